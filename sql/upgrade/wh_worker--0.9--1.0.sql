/*
 * wh_worker--0.9--1.0.sql: ALTER EXTENSION wh_worker UPDATE, from the last
 * version before 1.0.  What a change of sql/ does to an extension that is there
 * already; t/072_upgrade.pl holds the result against a new one.  make appends
 * sql/99_privileges.sql: owners and rights are as in a new one.
 */
\echo Use "ALTER EXTENSION wh_worker UPDATE TO '1.0'" to load this file. \quit

-- As in sql/00_preamble.sql: nobody's functions and operators but PostgreSQL's own.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
DO $$
BEGIN
	IF current_setting('wh_worker.admin_role', true) IS NULL THEN
		RAISE EXCEPTION 'wh_worker must be loaded via shared_preload_libraries'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			      HINT = 'Add wh_worker to shared_preload_libraries in postgresql.conf and restart the server.';
	END IF;
END
$$;
-- On a standby, and with a synchronous one.
COMMENT ON COLUMN _wh.worker_status.state IS 'Its phase: starting, waiting, idle, connecting, fetching, indexing, waiting_lock, publishing, combining or running; waiting_replication while its commit waits for a synchronous standby. On a standby, where no process runs: standby';
COMMENT ON FUNCTION _wh.pause_reason() IS 'Why no job of this warehouse starts: the server is a standby, or the warehouse is paused, or a copy that waits for confirm_warehouse(); NULL while jobs start';
