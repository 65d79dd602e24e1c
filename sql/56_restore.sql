-- A copy of a warehouse waits for a person: dumps, files of another cluster,
-- databases made from a template.

CREATE FUNCTION _wh.pause_reason() RETURNS text
	LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_pause_reason';
COMMENT ON FUNCTION _wh.pause_reason() IS
	'Why no job of this warehouse starts: the server is a standby, or its library of another version than the extension in this database, or the warehouse is paused, or a copy that waits for confirm_warehouse(); NULL while jobs start';

CREATE FUNCTION _wh.confirm_warehouse() RETURNS void
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_confirm_warehouse';
COMMENT ON FUNCTION _wh.confirm_warehouse() IS
	'Lets the jobs of a restored or copied warehouse start, and makes the ledger true for it: a relation that is there, has all its rows and belongs to the admin role is taken as loaded; of all others the days are missing, and are loaded by their schedules, a backfill or rebuild_entire_warehouse(). Reads every relation that came with a dump once, to count it. In a warehouse that is no copy it does nothing. Errors: 42501 the caller has not the rights of the admin role';

CREATE FUNCTION _wh.rebuild_entire_warehouse() RETURNS jsonb
	LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_rebuild_entire_warehouse';
COMMENT ON FUNCTION _wh.rebuild_entire_warehouse() IS
	'Enqueues a backfill, newest day first, for every active subscription that lacks days: those that the ledger knows, and those from its start_date on. Returns {"backfills": [{"backfill_id", "template_name", "tenant_name", "target_schema", "start_date", "end_date", "days"}, …], "days": all of them}; the view backfill_progress says when they will end. What is there is not loaded again, so that it can be called again. Errors: 42501 the caller has not the rights of the admin role, 55000 the warehouse is a copy that waits for confirm_warehouse()';

-- As whoever writes the rows: a restore does.
CREATE FUNCTION _wh.note_restore() RETURNS trigger LANGUAGE c
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_note_restore';
COMMENT ON FUNCTION _wh.note_restore() IS
	'Trigger of the tables that a dump fills: a warehouse whose rows are restored waits for confirm_warehouse()';

DO $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY '{tenant_connections,mv_templates,tenant_templates,schedules,backfills,jobs,day_loads}'::text[]
	LOOP
		EXECUTE format('CREATE TRIGGER note_restore BEFORE INSERT ON _wh.%I'
			' FOR EACH STATEMENT EXECUTE FUNCTION _wh.note_restore()', name);
		EXECUTE format('COMMENT ON TRIGGER note_restore ON _wh.%I IS %L', name,
			'Notices that a dump is restored');
	END LOOP;
END
$$;
