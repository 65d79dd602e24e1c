-- Sets up a warehouse in the current database: the two roles, their rights and
-- the extension.  Run it with psql as a superuser, in the database that shall
-- hold the warehouse, on a server that preloads wh_worker; running it again is
-- harmless.
--
--     psql -d warehouse -f sql/create.sql
--
-- The names of the roles are the settings wh_worker.admin_role and
-- wh_worker.reader_role; on a server that does not preload the library yet
-- (to make the roles beforehand) they are whadmin and phood_ro, or
--
--     psql -d warehouse -v admin_role=NAME -v reader_role=NAME -f sql/create.sql

\set ON_ERROR_STOP on

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
       to_regrole(quote_ident(:'admin_role')) IS NULL AS admin_missing,
       to_regrole(quote_ident(:'reader_role')) IS NULL AS reader_missing,
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

\if :admin_missing
	-- LOGIN because a background worker of versions before 17 needs it; no
	-- password, so nobody can log in with one.
	CREATE ROLE :"admin_role" NOSUPERUSER LOGIN;
	\echo role :"admin_role": created
\else
	\echo role :"admin_role": was there, left as it is
\endif

\if :reader_missing
	CREATE ROLE :"reader_role" NOSUPERUSER NOCREATEDB NOCREATEROLE LOGIN;
	\echo role :"reader_role": created
\else
	\echo role :"reader_role": was there, left as it is
\endif

GRANT CREATE, CONNECT, TEMPORARY ON DATABASE :"database" TO :"admin_role";
GRANT USAGE, CREATE ON SCHEMA public TO :"admin_role";
GRANT USAGE ON SCHEMA public TO :"reader_role";
\echo rights in database :"database": granted

\if :extension_missing
	\if :is_preloaded
	\else
		\echo 'next: add wh_worker to shared_preload_libraries, restart the server, run this script again'
	\endif
	CREATE EXTENSION IF NOT EXISTS wh_worker;
	\echo extension wh_worker: created
\else
	\echo extension wh_worker: was there, left as it is
\endif
