-- Schedules as they are written: what is refused, what is kept, who may.
SET timezone = 'UTC';
-- nothing comes due meanwhile
SELECT _wh.pause();
CREATE VIEW pg_temp.clock AS
SELECT name, schedule, timezone, kind, username, active,
	to_char(next_run AT TIME ZONE 'UTC', 'MI:SS') AS minute, next_run > now() AS in_future
FROM _wh.schedules ORDER BY schedule_id;

-- pg_cron's calls
SELECT _wh.schedule('nightly vacuum', '5 3 * * *', 'VACUUM') > 0 AS has_id;
SELECT _wh.schedule('10 */2 * * *', 'SELECT 1') > 0 AS has_id;
SELECT name = 'job ' || schedule_id AS generated, kind, command, username, active FROM _wh.schedules ORDER BY schedule_id;
SELECT _wh.schedule('nightly vacuum', '7 3 * * *', 'VACUUM ANALYZE')
	= (SELECT schedule_id FROM _wh.schedules WHERE name = 'nightly vacuum') AS same_id;
SELECT schedule, command, to_char(next_run AT TIME ZONE 'UTC', 'HH24:MI:SS') AS at
FROM _wh.schedules WHERE name = 'nightly vacuum';
SELECT schedule, command, nodename, database = current_database() AS here, username, active, jobname, kind, timezone,
	next_run_utc = next_run AT TIME ZONE 'UTC' AS utc, next_run_local = next_run AT TIME ZONE 'UTC' AS local
FROM _wh.job WHERE jobname = 'nightly vacuum';
SELECT _wh.unschedule(schedule_id) FROM _wh.schedules WHERE name LIKE 'job %';
SELECT count(*) FROM _wh.schedules;

-- bad text is refused with its position, wherever it is written
\set VERBOSITY sqlstate
SELECT _wh.schedule('x', '0 25 * * *', 'SELECT 1');
SELECT _wh.schedule('', '* * * * *', 'SELECT 1');
SELECT _wh.schedule(NULL, '* * * * *', 'SELECT 1');
SELECT _wh.schedule('x', '* * * * *', NULL);
\set VERBOSITY default
SELECT _wh.schedule('x', '', 'SELECT 1');
SELECT _wh.schedule('x', '* * * *', 'SELECT 1');
INSERT INTO _wh.schedules (name, schedule, command) VALUES ('x', '0 0 32 * *', 'SELECT 1');
INSERT INTO _wh.schedules (name, schedule, timezone, command) VALUES ('x', '0 0 * * *', 'Europe/Berln', 'SELECT 1');
INSERT INTO _wh.schedules (name, schedule, timezone, command) VALUES ('x', '0 0 * * *', 'UTC+2', 'SELECT 1');
\set VERBOSITY terse
INSERT INTO _wh.schedules (name, schedule) VALUES ('x', '0 0 * * *');
INSERT INTO _wh.schedules (name, schedule, kind) VALUES ('x', '0 0 * * *', 'refresh');
INSERT INTO _wh.schedules (name, schedule, kind, template_name) VALUES ('x', '0 0 * * *', 'combine_year', 'x');
INSERT INTO _wh.schedules (name, schedule, kind, command) VALUES ('x', '0 0 * * *', 'monthly', 'SELECT 1');
\set VERBOSITY default
UPDATE _wh.schedules SET schedule = '5 3 * * mon-tui';
UPDATE _wh.schedules SET timezone = 'Nowhere';
SELECT _wh.unschedule('nobody');
SELECT _wh.unschedule(0);
SELECT _wh.pause_schedule('nobody');
SELECT _wh.resume_schedule('nobody');
SELECT count(*) FROM _wh.schedules;

-- next_run follows text and zone; a pause keeps it
UPDATE _wh.schedules SET schedule = '30 12 * * *', timezone = 'Asia/Kolkata';
SELECT to_char(next_run AT TIME ZONE 'UTC', 'HH24:MI') AS utc, to_char(next_run_local, 'HH24:MI') AS local, timezone FROM _wh.job;
UPDATE _wh.schedules SET timezone = NULL;
SELECT to_char(next_run_utc, 'HH24:MI') AS utc, timezone FROM _wh.job;
UPDATE _wh.schedules SET schedule = 'H H * * *', name = 'spread a';
SELECT next_run AS before FROM _wh.schedules \gset
UPDATE _wh.schedules SET name = 'spread b';
SELECT next_run <> :'before' AS moved FROM _wh.schedules;
UPDATE _wh.schedules SET next_run = '2020-01-01';
SELECT _wh.pause_schedule('spread b');
SELECT active, next_run FROM _wh.schedules;
SELECT _wh.resume_schedule('spread b');
SELECT active, next_run FROM _wh.schedules;
UPDATE _wh.schedules SET schedule = 'h  h * * *';
SELECT next_run FROM _wh.schedules;
UPDATE _wh.schedules SET schedule = '0 0 30 2 *';
SELECT next_run FROM _wh.schedules;
SELECT next_run_local FROM _wh.job;

-- what is not the user's
CREATE ROLE wh_scheduler;
GRANT USAGE ON SCHEMA _wh TO wh_scheduler;
GRANT SELECT, INSERT, UPDATE, DELETE ON _wh.schedules TO wh_scheduler;
GRANT EXECUTE ON FUNCTION _wh.schedule(text, text, text), _wh.unschedule(text), _wh.pause_schedule(text) TO wh_scheduler;
SET ROLE wh_scheduler;
SELECT _wh.schedule('mine', '@hourly', 'SELECT 1');
INSERT INTO _wh.schedules (name, schedule, command) VALUES ('mine', '@hourly', 'SELECT 1');
RESET ROLE;
GRANT wh_scheduler TO whadmin;
SET ROLE wh_scheduler;
SELECT _wh.schedule('mine', '@hourly', 'SELECT 1') > 0 AS has_id;
INSERT INTO _wh.schedules (name, schedule, command, username, next_run, last_run, last_status)
VALUES ('mine too', '5 * * * *', 'SELECT 1', 'whadmin', '2020-01-01', '2020-01-01', 'succeeded');
UPDATE _wh.schedules SET username = 'whadmin', next_run = '2020-01-01', last_run = '2020-01-01', last_status = 'x'
WHERE name LIKE 'mine%';
SELECT name, username, next_run > now() AS in_future, last_run, last_status FROM _wh.schedules WHERE name LIKE 'mine%' ORDER BY name;
-- another's
SELECT _wh.schedule('spread b', '@hourly', 'SELECT 1');
SELECT _wh.unschedule('spread b');
SELECT _wh.pause_schedule('spread b');
-- a command that he writes runs as him
UPDATE _wh.schedules SET command = 'SELECT 2' WHERE name = 'spread b';
UPDATE _wh.schedules SET schedule = '@daily' WHERE name = 'spread b';
SELECT username FROM _wh.schedules WHERE name = 'spread b';
SELECT _wh.unschedule('mine');
RESET ROLE;
-- the owner of the table has no stronger name to give
SET ROLE whadmin;
UPDATE _wh.schedules SET username = 'postgres', command = 'SELECT 3';
SELECT DISTINCT username FROM _wh.schedules;
RESET ROLE;
-- as a restored dump writes it
INSERT INTO _wh.schedules (name, schedule, command, username, next_run, last_run, last_status)
VALUES ('restored', '5 * * * *', 'SELECT 1', 'wh_scheduler', '2020-01-01', '2020-01-02', 'succeeded');
SELECT username, next_run, last_run, last_status FROM _wh.schedules WHERE name = 'restored';
DELETE FROM _wh.schedules;
DROP OWNED BY wh_scheduler;
DROP ROLE wh_scheduler;

-- subscriptions
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)
VALUES ('cron_visits', $$SELECT 1 AS id WHERE '{TARGET_DATE}' <> ''$$, 'id integer', '61 * * * *');
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
VALUES ('cron_visits', $$SELECT 1 AS id WHERE '{TARGET_DATE}' <> ''$$, 'id integer'),
	('cron_sales', $$SELECT 1 AS id WHERE '{TARGET_DATE}' <> ''$$, 'id integer');
UPDATE _wh.mv_templates SET schedule = 'never' WHERE template_name = 'cron_visits';
SELECT _wh.add_tenant('cron_a', 'localhost', 5432, 'd', 'u', 'p', '{cron_visits,cron_sales}');
SELECT _wh.add_tenant('cron_b', 'localhost', 5432, 'd', 'u', 'p');
SELECT _wh.subscribe('cron_b', 'cron_visits', 'cron_other');
SELECT name, schedule, kind, template_name, tenant_name, target_schema, username FROM _wh.schedules ORDER BY name;
SELECT kind, count(DISTINCT next_run) > 1 AS staggered FROM _wh.schedules GROUP BY 1 ORDER BY 1;
SELECT _wh.setup_cron();
UPDATE _wh.mv_templates SET schedule = '15 * * * *' WHERE template_name = 'cron_visits';
SELECT _wh.setup_cron('cron_sales'), _wh.setup_cron('cron_visits'), _wh.setup_cron();
SELECT * FROM pg_temp.clock WHERE name LIKE '%cron_visits%';
SELECT d.template_name, d.target_schema, d.next_run = s.next_run AS next_run
FROM _wh.data_freshness d JOIN _wh.schedules s USING (template_name, target_schema) WHERE s.kind = 'refresh' ORDER BY 1, 2;
-- one that is there already, under a name that is taken
DELETE FROM _wh.schedules;
SELECT _wh.schedule('refresh cron_sales cron_a', '0 0 * * *', 'SELECT 1') > 0 AS has_id;
SELECT _wh.setup_cron();
SELECT name, kind FROM _wh.schedules ORDER BY name;
SELECT _wh.schedule('refresh cron_visits cron_a', '0 0 * * *', 'SELECT 1');
SELECT _wh.setup_cron('nonesuch');
SELECT _wh.unsubscribe('cron_b', 'cron_visits');
SELECT name FROM _wh.schedules ORDER BY name;
-- a load that was asked for subscribes, but makes no schedule
SELECT _wh.enqueue_backfill('cron_sales', 'cron_b', '2025-07-01', '2025-07-01') > 0 AS has_id;
SELECT count(*) FROM _wh.tenant_templates WHERE tenant_name = 'cron_b' AND template_name = 'cron_sales' AND active;
SELECT count(*) FROM _wh.schedules WHERE tenant_name = 'cron_b';
SELECT _wh.setup_cron();
SELECT name FROM _wh.schedules WHERE tenant_name = 'cron_b';
SELECT _wh.remove_tenant('cron_a');
SELECT name FROM _wh.schedules ORDER BY name;
SELECT _wh.import_pg_cron();

DELETE FROM _wh.schedules;
SET client_min_messages = warning;
SELECT _wh.remove_tenant('cron_a', true), _wh.remove_tenant('cron_b', true);
DELETE FROM _wh.mv_templates WHERE template_name IN ('cron_visits', 'cron_sales');
DROP VIEW public.cron_visits, public.cron_sales;
SELECT _wh.resume();
