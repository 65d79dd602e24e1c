\set QUIET on
CREATE TABLE qs(q text);
DO $$ DECLARE r text; v text; f text; BEGIN
FOREACH v IN ARRAY ARRAY['d','ts','tz','t1.d','t1.ts','t1.tz'] LOOP
 FOREACH f IN ARRAY ARRAY['logged_time >= current_date','logged_time > current_date - 3','current_date - 7 <= logged_time','logged_time >= now() - interval ''2 days''',
  'logged_time >= now() - interval ''1 month''','logged_time between current_date - interval ''10 days'' and current_date - 2','logged_time = current_date','logged_time::date >= current_date - 4',
  'logged_time::date = current_date - 1','date_trunc(''week'', logged_time) = date_trunc(''week'', localtimestamp)','logged_time >= date_trunc(''month'', now())','logged_time::timestamptz > current_timestamp(0) - interval ''40 hours''',
  'logged_time::timestamp >= localtimestamp','logged_time > statement_timestamp() - interval ''5 days'' and id > 1','(logged_time >= current_date - 2 or id = 1)','not (logged_time >= current_date - 2)','logged_time <= current_date - 230','logged_time < now() - interval ''232 days''',
  'logged_time >= now() + interval ''-3 days''','logged_time >= date_trunc(''month'', now() - interval ''1 month'')::date and logged_time < date_trunc(''month'', now())','logged_date >= current_date - 5','logged_time >= (select current_date - 1)','logged_time >= current_date - interval ''1 day'' * 3','logged_time in (current_date, current_date - 1)','logged_time >= clock_timestamp() - interval ''3 days''','(logged_time at time zone ''Asia/Tokyo'') >= now() - interval ''3 days'''] LOOP
  INSERT INTO qs VALUES (format('SELECT count(*), sum(id), min(logged_time), max(logged_time), md5(string_agg(x::text, '','' ORDER BY x::text)) FROM %s x WHERE %s', v, f));
 END LOOP; END LOOP;
 -- shapes
 FOREACH f IN ARRAY ARRAY[
 'SELECT count(*) FROM t1.ts a JOIN t2.ts b USING (logged_time) WHERE a.logged_time >= current_date - 3',
 'SELECT count(*), count(b.id) FROM t1.ts a LEFT JOIN t2.ts b ON a.logged_time = b.logged_time AND b.logged_time >= current_date - 3 WHERE a.logged_time > now() - interval ''10 days''',
 'SELECT count(*), count(b.id) FROM t1.d a LEFT JOIN t2.ts b ON a.logged_time = b.logged_time AND a.logged_time >= current_date - 3',
 'SELECT count(*), count(a.id), count(b.id) FROM t1.d a FULL JOIN (select * from t2.d where logged_time >= current_date - 2) b ON a.logged_time = b.logged_time',
 'WITH c AS MATERIALIZED (SELECT * FROM ts WHERE logged_time >= current_date - 5) SELECT count(*), sum(id) FROM c',
 'SELECT count(*), sum(n) FROM (SELECT schema_name, logged_time::date d, count(*) n FROM ts GROUP BY 1,2) g WHERE d >= current_date - 4',
 'SELECT schema_name, count(*) FROM tz WHERE logged_time >= current_date - 3 GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1',
 'SELECT min(logged_time) FROM ts WHERE logged_time > now() - interval ''20 days''','SELECT max(logged_time) FROM t1.tz WHERE logged_time > now() - interval ''20 days''',
 'SELECT count(*), sum(id) FROM (SELECT * FROM t1.ts UNION ALL SELECT * FROM t2.ts UNION ALL SELECT 1, now()::timestamp, current_date, ''x'') u WHERE logged_time >= current_date - 3',
 'SELECT count(*), sum(id) FROM (SELECT id, logged_time::date d FROM t1.ts UNION ALL SELECT id, logged_time FROM t2.d) u WHERE d >= current_date - 3',
 'SELECT count(*) FROM t1.d a WHERE EXISTS (SELECT 1 FROM t2.ts b WHERE b.logged_time::date = a.logged_time AND b.logged_time >= current_date - 9)',
 'SELECT count(*) FROM t1.d a WHERE NOT EXISTS (SELECT 1 FROM t2.ts b WHERE b.logged_time::date = a.logged_time AND b.logged_time >= current_date - 9)',
 'SELECT count(*) FROM t1.d a WHERE a.logged_time NOT IN (SELECT b.logged_time FROM t2.d b WHERE b.logged_time >= current_date - 9)',
 'SELECT count(*), sum(l.id) FROM generate_series(1,3) g, LATERAL (SELECT * FROM ts WHERE logged_time >= current_date - 2 AND id = g LIMIT 7) l'] LOOP INSERT INTO qs VALUES (f); END LOOP;
END $$;
CREATE PROCEDURE cmp() LANGUAGE plpgsql AS $$
DECLARE q text; z text; m text; a text; b text; n int := 0; bad int := 0; BEGIN
 FOREACH z IN ARRAY ARRAY['UTC','Pacific/Kiritimati','America/Los_Angeles','Europe/Berlin','Etc/GMT+12'] LOOP
 PERFORM set_config('timezone', z, false);
 FOR q IN SELECT qs.q FROM qs LOOP
  FOREACH m IN ARRAY ARRAY['force_generic_plan','force_custom_plan'] LOOP
  PERFORM set_config('plan_cache_mode', m, false);
  PERFORM set_config('wh_worker.enable_stable_pruning','off',false);
  EXECUTE 'SELECT string_agg(y::text, ''|'') FROM ('||q||') y' INTO a;
  PERFORM set_config('wh_worker.enable_stable_pruning','on',false);
  EXECUTE 'SELECT string_agg(y::text, ''|'') FROM ('||q||') y' INTO b;
  n := n + 1;
  IF a IS DISTINCT FROM b THEN bad := bad + 1; RAISE WARNING 'differs in %: % % %', z, q, a, b; END IF;
  END LOOP;
 END LOOP; COMMIT; END LOOP;
 RAISE NOTICE '% comparisons, % differ', n, bad;
END $$;
CALL cmp();
