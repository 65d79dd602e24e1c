-- Schedules: what is due when, under our names and under pg_cron's.

CREATE FUNCTION _wh.check_schedule() RETURNS trigger LANGUAGE c
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_check_schedule';
COMMENT ON FUNCTION _wh.check_schedule() IS
'Trigger of _wh.schedules: refuses a schedule or time zone that cannot be understood (22023) and a command whose writer admin_role may not act for (42501); keeps username and next_run';

-- As whoever writes the row: a restore runs it too.
CREATE TRIGGER check_schedule BEFORE INSERT OR UPDATE ON _wh.schedules
	FOR EACH ROW EXECUTE FUNCTION _wh.check_schedule();
COMMENT ON TRIGGER check_schedule ON _wh.schedules IS 'Refuses schedules that cannot be understood, and says when they run next';
-- What is written, check_schedule tells.
CREATE TRIGGER notify_config
	AFTER DELETE OR TRUNCATE ON _wh.schedules FOR EACH STATEMENT EXECUTE FUNCTION _wh.notify_config();
COMMENT ON TRIGGER notify_config ON _wh.schedules IS 'Tells the launcher';

CREATE FUNCTION _wh.in_zone(moment timestamptz, timezone text) RETURNS timestamp
LANGUAGE c STABLE STRICT
AS 'MODULE_PATHNAME', 'wh_sql_in_zone';
COMMENT ON FUNCTION _wh.in_zone(timestamptz, text) IS
'The wall clock of a time zone at a moment, as AT TIME ZONE; NULL if the zone is not known';

-- These run as their caller, because the command will run as him.
CREATE FUNCTION _wh.schedule(name text, schedule text, command text)
RETURNS bigint LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_schedule';
COMMENT ON FUNCTION _wh.schedule(text, text, text) IS
'Runs a command on a schedule (five cron fields, @hourly and kin, or an interval such as 30 seconds), as the role that calls this, as cron.schedule(); a superuser''s runs as the admin role, with a NOTICE. A command of that name gets the new schedule and command, and stays paused if it was. Returns the schedule_id. Errors: 22023 bad schedule, with the position of the mistake; 42501 the admin role may not SET ROLE to the caller (grant it: GRANT analyst TO whadmin), or the name belongs to another role; 42710 the name is that of a refresh or publication';

CREATE FUNCTION _wh.schedule(schedule text, command text)
RETURNS bigint LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_schedule_unnamed';
COMMENT ON FUNCTION _wh.schedule(text, text) IS
'The same without a name: each call makes a schedule, named "job" and its schedule_id';

CREATE FUNCTION _wh.unschedule(name text)
RETURNS boolean LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_unschedule';
COMMENT ON FUNCTION _wh.unschedule(text) IS
'Removes a schedule, and its command if that is queued; one that runs goes on. Returns true. Errors: 42704 unknown schedule, 42501 it belongs to another role';

CREATE FUNCTION _wh.unschedule(schedule_id bigint)
RETURNS boolean LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_unschedule_by_id';
COMMENT ON FUNCTION _wh.unschedule(bigint) IS
'The same by its schedule_id, the jobid of _wh.job';

CREATE FUNCTION _wh.pause_schedule(name text)
RETURNS void LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_pause_schedule';
COMMENT ON FUNCTION _wh.pause_schedule(text) IS
'The schedule does not come due until resume_schedule(); what it has queued runs. Errors: 42704 unknown schedule, 42501 it belongs to another role';

CREATE FUNCTION _wh.resume_schedule(name text)
RETURNS void LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_resume_schedule';
COMMENT ON FUNCTION _wh.resume_schedule(text) IS
'Ends pause_schedule(); the runs that were missed are one run, at once. Errors: 42704 unknown schedule, 42501 it belongs to another role';

CREATE FUNCTION _wh.setup_cron(template_name text DEFAULT NULL)
RETURNS integer LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_setup_cron';
COMMENT ON FUNCTION _wh.setup_cron(text) IS
'Gives every active subscription (of one template, or NULL for all) its schedules, as far as it has not got them: "refresh {template} {tenant}", staggered where the template''s schedule has an H, "combine month {template} {tenant}" (H 3 * * *) and "combine year {template} {tenant}" (0 2 15 2 *), with the schema at the end if it is not named after the tenant; and a template with keep_days or keep_years "retention {template}" (H 4 * * *), also when all its subscriptions have ended. Those of the last three kinds are in UTC. Refreshes that have another text than their template get the template''s. A schedule that you do not want is to be paused: one that is gone is made again. Returns how many it made or changed, so 0 when called again. Errors: 42704 unknown template';

CREATE FUNCTION _wh.import_pg_cron()
RETURNS integer LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_import_pg_cron';
COMMENT ON FUNCTION _wh.import_pg_cron() IS
'Copies the jobs that pg_cron has for this database and that the caller may see, inactive ones as inactive, in pg_cron''s time zone. Each keeps its role, but a superuser''s gets the admin role, with a NOTICE. One without a name becomes "pg_cron job" and its jobid; the second of two roles with the same name gets its role''s name added. Jobs whose name is there already are left alone, so that it can be called again; one that cannot be copied gets a WARNING that says why. pg_cron is not changed, and still runs them too: unschedule them there. Returns how many it copied. Errors: 42704 pg_cron is not installed in this database';

CREATE VIEW _wh.job AS
SELECT c.schedule_id AS jobid, c.schedule,
	coalesce(c.command, CASE WHEN c.kind LIKE 'combine%'
		THEN concat_ws(' ', replace(c.kind, '_', ' '), c.template_name, 'of ' || c.tenant_name, 'in ' || c.target_schema)
		ELSE concat_ws(' ', c.kind, c.template_name, 'from ' || c.tenant_name, 'into ' || c.target_schema) END) AS command,
	'localhost'::text AS nodename, current_setting('port')::integer AS nodeport,
	current_database()::text AS database, c.username, c.active, c.name AS jobname,
	c.kind, z.timezone, c.next_run,
	c.next_run AT TIME ZONE 'UTC' AS next_run_utc,
	_wh.in_zone(c.next_run, z.timezone) AS next_run_local,
	c.last_run, c.last_status
FROM _wh.schedules c
CROSS JOIN LATERAL (SELECT coalesce(c.timezone, current_setting('wh_worker.timezone')) AS timezone) z
ORDER BY c.schedule_id;
COMMENT ON VIEW _wh.job IS 'The schedules under the column names of pg_cron''s cron.job, with when each runs next: in UTC and on the wall clock of its time zone';
