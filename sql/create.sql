-- Sets up a warehouse in the current database: the two roles, their rights and
-- the extension.  Run it with psql as a superuser, in the database that shall
-- hold the warehouse, on a server that preloads wh_worker; running it again is
-- harmless, and makes up for what has changed: another wh_worker.reader_role gets
-- the grants of the first one.
--
--     psql -d warehouse -f sql/create.sql
--
-- The names of the roles are the settings wh_worker.admin_role and
-- wh_worker.reader_role; on a server that does not preload the library yet
-- (to make the roles beforehand) they are whadmin and phood_ro, or
--
--     psql -d warehouse -v admin_role=NAME -v reader_role=NAME -f sql/create.sql

\set ON_ERROR_STOP on

-- Nobody's functions but PostgreSQL's own are called by what follows.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false) AS search_path \gset

\if :{?admin_role}
\else
	SELECT coalesce(current_setting('wh_worker.admin_role', true), 'whadmin') AS admin_role \gset
\endif
\if :{?reader_role}
\else
	SELECT coalesce(current_setting('wh_worker.reader_role', true), 'phood_ro') AS reader_role \gset
\endif

SELECT rolsuper AS is_superuser,
       current_database() AS database,
       current_setting('wh_worker.admin_role', true) IS NOT NULL AS is_preloaded,
       coalesce(current_setting('wh_worker.admin_role', true), :'admin_role') <> :'admin_role'
       OR coalesce(current_setting('wh_worker.reader_role', true), :'reader_role') <> :'reader_role' AS roles_differ,
       :'admin_role' = :'reader_role' AS roles_are_one,
       to_regrole(quote_ident(:'admin_role')) IS NULL AS admin_missing,
       to_regrole(quote_ident(:'reader_role')) IS NULL AS reader_missing,
       -- Before version 16 CREATEROLE gives itself any role but a superuser's,
       -- those too that run programs and write files as the server's user.
       CASE WHEN current_setting('server_version_num')::integer >= 160000
            THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END AS createrole,
       EXISTS (SELECT FROM pg_namespace n, aclexplode(n.nspacl) a
               WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE') AS public_is_open,
       NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'wh_worker') AS extension_missing
FROM pg_roles
WHERE rolname = current_user \gset

\if :is_superuser
\else
	DO $$
	BEGIN
		RAISE EXCEPTION 'this script must be run by a superuser'
			USING ERRCODE = 'insufficient_privilege';
	END
	$$;
\endif

\if :roles_differ
	DO $$
	BEGIN
		RAISE EXCEPTION 'the roles asked for are not those of wh_worker.admin_role and wh_worker.reader_role'
			USING ERRCODE = 'invalid_parameter_value',
			      HINT = 'Change the two settings in postgresql.conf first, or leave the variables out.';
	END
	$$;
\endif

\if :roles_are_one
	DO $$
	BEGIN
		RAISE EXCEPTION 'the admin role and the reader role must be two roles'
			USING ERRCODE = 'invalid_parameter_value';
	END
	$$;
\endif

\if :admin_missing
	-- LOGIN because a background worker of versions before 17 needs it; no
	-- password, so nobody can log in with one.
	CREATE ROLE :"admin_role" NOSUPERUSER CREATEDB :createrole LOGIN;
	\echo role :"admin_role": created, CREATEDB :createrole
\else
	\echo role :"admin_role": was there, left as it is
\endif

\if :reader_missing
	CREATE ROLE :"reader_role" NOSUPERUSER NOCREATEDB NOCREATEROLE LOGIN;
	\echo role :"reader_role": created
\else
	\echo role :"reader_role": was there, left as it is
\endif

-- The attributes that a role which was there may have, and should not.
SELECT string_agg(format('role "%s": %s', rolname, attributes), '; ' ORDER BY rolname) AS remark
FROM (SELECT rolname, concat_ws(' ',
		CASE WHEN rolsuper THEN 'SUPERUSER' END,
		CASE WHEN rolreplication THEN 'REPLICATION' END,
		CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
		CASE WHEN rolcreaterole AND (rolname = :'reader_role' OR :'createrole' = 'NOCREATEROLE') THEN 'CREATEROLE' END,
		CASE WHEN rolcreatedb AND rolname = :'reader_role' THEN 'CREATEDB' END,
		CASE WHEN rolname = :'reader_role' AND pg_has_role(oid, :'admin_role', 'MEMBER')
			THEN 'member of ' || quote_ident(:'admin_role') END) AS attributes
	FROM pg_roles WHERE rolname IN (:'admin_role', :'reader_role')) r
WHERE attributes <> '' \gset too_much_
\if :{?too_much_remark}
	\warn 'WARNING:' :too_much_remark 'is more than it should have'
\endif

GRANT CREATE, CONNECT, TEMPORARY ON DATABASE :"database" TO :"admin_role";
GRANT USAGE, CREATE ON SCHEMA public TO :"admin_role";
GRANT CONNECT ON DATABASE :"database" TO :"reader_role";
GRANT USAGE ON SCHEMA public TO :"reader_role";
\echo rights in database :"database": granted

\if :public_is_open
	-- As new databases have it from version 15 on: whoever could make a relation
	-- there could take the name of a public view before it is published.
	REVOKE CREATE ON SCHEMA public FROM PUBLIC;
	\echo schema public: closed to everybody but its owner and :"admin_role"
\endif

\if :extension_missing
	\if :is_preloaded
	\else
		\echo 'next: add wh_worker to shared_preload_libraries, restart the server, run this script again'
	\endif
	CREATE EXTENSION IF NOT EXISTS wh_worker;
	\echo extension wh_worker: created
\else
	\echo extension wh_worker: was there, left as it is
	\if :is_preloaded
		SELECT _wh.apply_grants() AS granted \gset
		\echo grants on what is loaded: :granted were missing
	\endif
\endif
RESET search_path;
