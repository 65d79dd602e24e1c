-- The extension, its roles and what belongs to whom.
CREATE EXTENSION wh_worker;
SELECT rolname, rolsuper, rolcreatedb, rolcanlogin, rolpassword IS NULL AS no_password,
	rolcreaterole = (rolname = 'whadmin' AND current_setting('server_version_num')::integer >= 160000) AS createrole_where_safe
FROM pg_authid WHERE rolname IN ('whadmin', 'phood_ro') ORDER BY 1;
-- every object of ours belongs to the admin role, but what guards the permissions of superusers
SELECT relkind, relname FROM pg_class
WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v', 'S') AND relowner <> 'whadmin'::regrole;
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = '_wh'::regnamespace AND (proowner = 'whadmin'::regrole) <> prosecdef;
-- and nobody else may execute or read any of it, but what refuses whoever calls it
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = '_wh'::regnamespace AND has_function_privilege('phood_ro', p.oid, 'execute');
SELECT has_schema_privilege('phood_ro', '_wh', 'usage');
-- every object has a comment
SELECT c.oid::regclass FROM pg_class c
WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL;
SELECT a.attrelid::regclass, attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE relnamespace = '_wh'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
AND col_description(c.oid, attnum) IS NULL;
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = '_wh'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;
-- what security definer functions need: a fixed search_path
SELECT p.oid::regprocedure FROM pg_proc p
WHERE pronamespace = '_wh'::regnamespace AND prosecdef
AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false);
