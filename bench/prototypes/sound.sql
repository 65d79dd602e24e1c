\set QUIET on
CREATE SCHEMA _wh;
CREATE TABLE _wh.p_date (k date) PARTITION BY RANGE(k); CREATE TABLE x1 PARTITION OF _wh.p_date DEFAULT;
CREATE TABLE _wh.p_timestamp (k timestamp) PARTITION BY RANGE(k); CREATE TABLE x2 PARTITION OF _wh.p_timestamp DEFAULT;
CREATE TABLE _wh.p_timestamptz (k timestamptz) PARTITION BY RANGE(k); CREATE TABLE x3 PARTITION OF _wh.p_timestamptz DEFAULT;
CREATE TABLE forms(f text);
INSERT INTO forms VALUES ('current_date'),('now()'),('localtimestamp'),('current_timestamp(0)'),('transaction_timestamp()'),
('current_date - 30'),('current_date + 5'),('7 + current_date'),('current_date - interval ''1 month'''),('current_date - interval ''1 day'''),
('now() - interval ''30 days'''),('now() - interval ''720 hours'''),('now() - interval ''1 month'''),('now() - interval ''1 year 1 month 3 days 5 hours'''),
('now() + interval ''1 month'''),('now() - interval ''-1 month'''),('localtimestamp - interval ''2 months'''),('now()::date - 7'),('now()::timestamp - interval ''1 month'''),
('date_trunc(''month'', now())'),('date_trunc(''month'', current_date)'),('date_trunc(''week'', localtimestamp)'),('date_trunc(''year'', now()) - interval ''1 year'''),
('date_trunc(''month'', now() - interval ''1 month'')'),('date_trunc(''month'', now())::date - 1'),('date_trunc(''month'', date_trunc(''month'', now()) - interval ''744 hours'')'),
('date_trunc(''quarter'', current_date - interval ''3 months'')::date'),('date_trunc(''month'', now() - interval ''1 mon 27 days 12 hours'')'),
('date_trunc(''month'', now() - interval ''1 month'' - interval ''1 day'') - interval ''1 month'''),('(now() - interval ''1 month'')::date'),
('(now() - interval ''1 month'' + interval ''2 months'')::timestamp(0)'),('date_trunc(''day'', now()) + interval ''1 day''');
CREATE TABLE zones(z text);
INSERT INTO zones VALUES ('UTC'),('Europe/Berlin'),('America/New_York'),('Pacific/Kiritimati'),('Etc/GMT+12'),('Asia/Kolkata'),('America/Sao_Paulo'),('Australia/Lord_Howe'),('Pacific/Apia');
CREATE TABLE bad(f text, ktype text, t timestamptz, z text, t2 timestamptz, z2 text, bound text, val text);
CREATE TABLE stats(n bigint, minslack interval, f text, ktype text, maxslack interval);
CREATE PROCEDURE settime(t timestamptz) LANGUAGE plpgsql AS $$ BEGIN
 EXECUTE format('COPY (SELECT %s) TO ''/tmp/prune/fake/now''', extract(epoch from t)); END $$;
CREATE PROCEDURE run(rounds int, seed float) LANGUAGE plpgsql AS $$
DECLARE r int; i int; t timestamptz; t2 timestamptz; zz text; z2 text; fr record; kt text; line text; b text; ok bool; v text; bounds jsonb; s interval; 
 zs text[] := (SELECT array_agg(z) FROM zones); nz int := array_length(zs,1);
BEGIN
 PERFORM setseed(seed);
 FOR r IN 1..rounds LOOP
  -- half of the moments lie about a month's end or a change to or from summer time
  t := '2026-01-01 UTC'::timestamptz + random()*interval '1000 days';
  IF random() < 0.6 THEN t := date_trunc('month', t) + (random()-0.5)*interval '5 days'; END IF;
  zz := zs[1+floor(random()*nz)];
  CALL settime(t); COMMIT; PERFORM set_config('timezone', zz, false);
  bounds := '{}';
  FOR fr IN SELECT f FROM forms LOOP FOREACH kt IN ARRAY ARRAY['date','timestamp','timestamptz'] LOOP
   b := NULL;
   FOR line IN EXECUTE format('EXPLAIN SELECT FROM _wh.p_%s WHERE k >= %s', kt, fr.f) LOOP
     b := coalesce(b, substring(line from $r$\(k >= '([^']+)'::$r$));
   END LOOP;
   bounds := bounds || jsonb_build_object(kt||':'||fr.f, b);
  END LOOP; END LOOP;
  FOR i IN 1..12 LOOP
   t2 := t + (ARRAY[interval '0', random()*interval '1 hour', random()*interval '1 day', random()*interval '5 days', random()*interval '100 days', -random()*interval '20 hours'])[1+floor(random()*6)];
   z2 := zs[1+floor(random()*nz)];
   CALL settime(t2); COMMIT; PERFORM set_config('timezone', z2, false);
   FOR fr IN SELECT f FROM forms LOOP FOREACH kt IN ARRAY ARRAY['date','timestamp','timestamptz'] LOOP
    b := bounds->>(kt||':'||fr.f);
    EXECUTE format('SELECT (%s)::%s >= %L::%s, (%s)::%s::text, (%s)::%s::timestamp - %L::%s::timestamp', fr.f, kt, b, kt, fr.f, kt, fr.f, kt, b, kt) INTO ok, v, s;
    IF ok IS NOT TRUE THEN INSERT INTO bad VALUES (fr.f, kt, t, zz, t2, z2, b, v); END IF;
    INSERT INTO stats VALUES (1, s, fr.f, kt, s);
   END LOOP; END LOOP;
  END LOOP;
 END LOOP;
END $$;
CALL run(:rounds, 0.42);
SET timezone='UTC';
SELECT count(*) AS checks, (SELECT count(*) FROM bad) AS bad FROM stats;
SELECT * FROM bad LIMIT 10;
SELECT f, ktype, min(minslack) AS least_slack FROM stats GROUP BY 1,2 ORDER BY 3 LIMIT 12;
