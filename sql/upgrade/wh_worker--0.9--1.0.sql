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
	IF string_to_array(coalesce(current_setting('wh_worker.library_version', true), '0'), '.')::integer[]
		< string_to_array('1.0', '.')::integer[]
	THEN
		RAISE EXCEPTION 'the library that the server has loaded is older than version 1.0 of extension "wh_worker"'
			USING ERRCODE = 'object_not_in_prerequisite_state',
			      HINT = 'Restart the server, so that it loads the library that is installed.';
	END IF;
END
$$;
-- On a standby, and with a synchronous one.
COMMENT ON COLUMN _wh.worker_status.state IS 'Its phase: starting, waiting, idle, connecting, fetching, indexing, waiting_lock, publishing, combining or running; waiting_replication while its commit waits for a synchronous standby. On a standby, where no process runs: standby';
COMMENT ON FUNCTION _wh.pause_reason() IS 'Why no job of this warehouse starts: the server is a standby, or its library of another version than the extension in this database, or the warehouse is paused, or a copy that waits for confirm_warehouse(); NULL while jobs start';

-- sql/57_release.sql

CREATE FUNCTION _wh.release_data() RETURNS integer
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_release_data';
COMMENT ON FUNCTION _wh.release_data() IS
'Makes all data of a paused warehouse independent of it, so that DROP EXTENSION wh_worker loses none: days that are materialized views become tables, in place, with their grants, indexes and comments; partition trees move from schema _wh to public and the schemas of their tenants; the views go on reading them, {template}_isolated for the roles that are readers now. Then the ledger is empty, no subscription is active and none has schedules; a later load of such a day fails with 42P07, because its name is taken. No row is copied and no reader waits for a day. One call makes as many tables as a quarter of the lock table has room for: returns how many materialized views are left, 0 when all is released. Errors: 55000 the warehouse is not paused or is a copy that waits for confirm_warehouse(), or a day has no content; 55006 a job still runs; 42501 the caller has not the rights of the admin role, or a day belongs to somebody else; 42P07 the name of a tree is taken in its new schema';

-- sql/60_views.sql, sql/69_view_columns.sql

CREATE OR REPLACE VIEW _wh.worker_status AS
SELECT s.pid, s.backend_type, s.datname, s.state, s.job_id, s.backfill_id, s.kind, s.template_name, s.tenant_name,
	s.target_schema, s.target_date, s.rows_fetched, s.bytes_fetched, s.job_started_at, s.phase_started_at,
	s.jobs_succeeded, s.jobs_failed, s.last_error,
	CASE WHEN s.pid IS NOT NULL AND (s.job_id IS NOT NULL OR s.backend_type = 'wh_worker launcher')
		THEN coalesce(nullif(pg_blocking_pids(s.pid), '{}'), s.noted_blockers) END AS blocked_by,
	s.held_by
FROM _wh.worker_slots() s;
COMMENT ON COLUMN _wh.worker_status.blocked_by IS 'Processes (pid) that hold a lock that a worker with a job, or the launcher, waits for, or was denied at its last try; 0 is a prepared transaction; NULL: none does';
-- Files that a crash has left.
CREATE FUNCTION _wh.orphaned_files(OUT tablespace text, OUT path text, OUT bytes bigint, OUT modified_at timestamptz)
	RETURNS SETOF record LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_orphaned_files';
COMMENT ON FUNCTION _wh.orphaned_files() IS
	'Files of relations of this database, whosoever, that no relation has: what a server that was killed while a relation was made leaves behind, and nothing removes. path is relative to the data directory. Files that have changed since the oldest transaction which runs began are not judged, so that a long transaction hides some; empty ones are left out, because a relation that was dropped has one until the next checkpoint. Takes no lock that anybody waits for; reads the names of all files of the database, and pg_class. Errors: 55000 the server is a standby';
