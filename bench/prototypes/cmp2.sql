\set QUIET on
CREATE OR REPLACE PROCEDURE cmp2(zones text[], which text) LANGUAGE plpgsql AS $$
DECLARE r record; z text; a text; b text; c text; n int := 0; bad int := 0; BEGIN
 PERFORM set_config('plan_cache_mode', 'force_generic_plan', false); PERFORM set_config('timezone', 'UTC', false);
 FOR r IN SELECT q, row_number() over () k FROM qs WHERE q ~ which LOOP
  EXECUTE format('PREPARE p%s AS SELECT string_agg(y::text, ''|'') FROM (%s) y', r.k, r.q);
  EXECUTE 'EXECUTE p'||r.k INTO a;
  FOREACH z IN ARRAY zones LOOP
   PERFORM set_config('timezone', z, false);
   PERFORM set_config('wh_worker.enable_stable_pruning','off',false);
   EXECUTE 'SELECT string_agg(y::text, ''|'') FROM ('||r.q||') y' INTO a;
   PERFORM set_config('wh_worker.enable_stable_pruning','on',false);
   EXECUTE 'SELECT string_agg(y::text, ''|'') FROM ('||r.q||') y' INTO b;
   EXECUTE 'EXECUTE p'||r.k INTO c;
   n := n + 1;
   IF a IS DISTINCT FROM b OR a IS DISTINCT FROM c THEN bad := bad + 1; RAISE WARNING 'differs in %: % | % | % | %', z, r.q, a, b, c; END IF;
  END LOOP; PERFORM set_config('timezone', 'UTC', false);
  EXECUTE 'DEALLOCATE p'||r.k;
  COMMIT; -- locks
 END LOOP;
 RAISE NOTICE '% comparisons (fresh and cached), % differ', n, bad;
END $$;
CALL cmp2(ARRAY['Pacific/Kiritimati','America/Los_Angeles'], 'FROM (t1.ts|t1.tz|t1.d|ts|d) x');
