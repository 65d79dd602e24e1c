\set QUIET on
CREATE OR REPLACE PROCEDURE travel() LANGUAGE plpgsql AS $$
DECLARE fr record; z text; v text; a text; b text; k int := 0; n int := 0; bad int := 0; t0 timestamptz := clock_timestamp(); i int; nz int; rows bigint := 0; BEGIN
 PERFORM set_config('plan_cache_mode', 'force_generic_plan', false); PERFORM set_config('timezone', 'Europe/Berlin', false);
 CREATE TEMP TABLE pq AS SELECT row_number() over () k, format('SELECT count(*), sum(id), min(logged_time), max(logged_time) FROM t1.%s WHERE logged_time >= %s', u.tab, f) q FROM forms, unnest(ARRAY['d','ts','tz']) u(tab);
 PERFORM set_config('wh_worker.enable_stable_pruning','on',false);
 CALL settime('2026-11-21 22:59:50 UTC'); COMMIT;    -- ten seconds before midnight in Berlin
 FOR fr IN SELECT * FROM pq LOOP EXECUTE format('PREPARE p%s AS SELECT y::text FROM (%s) y', fr.k, fr.q); EXECUTE 'EXECUTE p'||fr.k INTO a; END LOOP;
 COMMIT;
 FOR i IN 0..11 LOOP
  CALL settime('2026-11-21 22:59:50 UTC'::timestamptz + (ARRAY['9.9s','10s','11s','1h','-20h','1d','3d','9d','9d 1h','10d','30d','55d']::interval[])[i+1]);
  COMMIT;
  FOREACH z IN ARRAY ARRAY['Europe/Berlin','Etc/GMT+12','Pacific/Kiritimati'] LOOP
  PERFORM set_config('timezone', z, false);
  FOR fr IN SELECT * FROM pq LOOP
   PERFORM set_config('wh_worker.enable_stable_pruning','off',false);
   EXECUTE 'SELECT y::text FROM ('||fr.q||') y' INTO a;
   PERFORM set_config('wh_worker.enable_stable_pruning','on',false);
   EXECUTE 'EXECUTE p'||fr.k INTO b;
   n := n + 1; IF a NOT LIKE '(0,%' THEN rows := rows + 1; END IF;
   IF a IS DISTINCT FROM b THEN bad := bad + 1; RAISE WARNING 'differs % % % % %', i, z, fr.q, a, b; END IF;
  END LOOP; END LOOP; COMMIT;
 END LOOP;
 RAISE NOTICE '% runs of cached plans after the clock moved, % with rows, % differ', n, rows, bad;
END $$;
CALL travel();
