SET client_min_messages=warning; SET timezone='UTC';
CREATE SCHEMA IF NOT EXISTS _wh;
CREATE OR REPLACE PROCEDURE mk(root text, typ text, nt int, nd int, idx int) LANGUAGE plpgsql AS $$
DECLARE t int; d int; leaf text; part text; b date;
BEGIN
 EXECUTE format('CREATE TABLE _wh.%I (id int, logged_time %s, logged_date date, v text, schema_name text) PARTITION BY LIST (schema_name)', root, typ);
 COMMIT;
 FOR t IN 1..nt LOOP
  EXECUTE format('CREATE SCHEMA IF NOT EXISTS t%s', t);
  part := root||'_t'||t;
  EXECUTE format('CREATE TABLE _wh.%I (id int, logged_time %s, logged_date date, v text, schema_name text) PARTITION BY RANGE (logged_time)', part, typ);
  FOR d IN 0..nd-1 LOOP
    b := current_date - nd + 2 + d;
    leaf := format('t%s.%I', t, root||'_'||to_char(b,'YYYY_MM_DD'));
    EXECUTE format('CREATE TABLE %s PARTITION OF _wh.%I FOR VALUES FROM (%L) TO (%L)', leaf, part, b::text, (b+1)::text);
    FOR i IN 1..idx LOOP
      EXECUTE format('CREATE INDEX ON %s (%s)', leaf, CASE i WHEN 1 THEN 'id' WHEN 2 THEN 'logged_time' ELSE 'v' END);
    END LOOP;
    IF typ <> 'date' THEN
    EXECUTE format('INSERT INTO %s SELECT n, %L::%s + n*interval ''97 minutes'', %L, ''v'', %L FROM generate_series(0,14) n', leaf, b::text, typ, b::text, 't'||t);
    ELSE
    EXECUTE format('INSERT INTO %s SELECT n, %L::date, %L, ''v'', %L FROM generate_series(0,2) n', leaf, b::text, b::text, 't'||t);
    END IF;
    IF d % 40 = 39 THEN COMMIT; END IF;
  END LOOP;
  EXECUTE format('ALTER TABLE _wh.%I ATTACH PARTITION _wh.%I FOR VALUES IN (%L)', root, part, 't'||t);
  EXECUTE format('CREATE VIEW t%s.%I AS SELECT id, logged_time, logged_date, v FROM _wh.%I', t, root, part);
  COMMIT;
 END LOOP;
 EXECUTE format('CREATE VIEW public.%I AS SELECT id, logged_time, logged_date, v, schema_name FROM _wh.%I', root, root);
END $$;
CALL mk('d','date',3,240,0);
CALL mk('ts','timestamp',3,240,0);
CALL mk('tz','timestamptz',3,240,0);
