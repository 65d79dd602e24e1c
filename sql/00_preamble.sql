-- wh_worker: the extension script starts here.
-- Assembled by make from sql/[0-9]*.sql; never edit the assembled file.
\echo Use "CREATE EXTENSION wh_worker" to load this file. \quit

-- Whoever made schema _wh before us may have put functions and operators into it
-- that this script, run by a superuser, would call instead of PostgreSQL's own.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

-- The names of the two roles are settings, and settings exist only in a
-- server that preloads the library.
DO $$
BEGIN
	IF current_setting('wh_worker.admin_role', true) IS NULL THEN
		RAISE EXCEPTION 'wh_worker must be loaded via shared_preload_libraries'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			      HINT = 'Add wh_worker to shared_preload_libraries in postgresql.conf and restart the server.';
	END IF;
	-- Files of a new version, and a server that has not been restarted since.
	IF string_to_array(coalesce(current_setting('wh_worker.library_version', true), '0'), '.')::integer[]
		< string_to_array('@EXTVERSION@', '.')::integer[]
	THEN
		RAISE EXCEPTION 'the library that the server has loaded is older than version @EXTVERSION@ of extension "wh_worker"'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			      HINT = 'Restart the server, so that it loads the library that is installed.';
	END IF;
END
$$;
