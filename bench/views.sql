-- A warehouse that only its catalogs and our tables know: :tenants tenants, 10
-- templates, :days days up to today.  bench/views calls it as a superuser.
--
-- Templates 1 to 8 are combined into years and months, 9 into months, 10 is not
-- combined.  The days, months and years are rows of pg_class without a file, so
-- that catalogs are as large as they would be, and the launcher finds what the
-- ledger names; so nothing here may be vacuumed but our own tables.  The views
-- are there, and read one empty table.
--
-- Rows are written without triggers, which would check each of them.

\set ON_ERROR_STOP on
SET session_replication_role = replica;
SET allow_system_table_mods = on;
SET synchronous_commit = off;
SET work_mem = '256MB';
SET maintenance_work_mem = '1GB';
SET jit = off;

SELECT (now() AT TIME ZONE 'UTC')::date AS today, current_setting('wh_worker.admin_role') AS admin_role \gset
SELECT :'today'::date - :days + 1 AS first_day,
	date_trunc('year', :'today'::date)::date AS this_year,
	date_trunc('month', :'today'::date - 7)::date AS this_month \gset

-- ---- who and what ----

INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username)
SELECT format('tenant_%s', n), format('shop%s.example', n), 'shop', 'wh_reader' FROM generate_series(1, :tenants) AS n;

INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, suspect_factor)
SELECT format('template_%s', n), 'SELECT 1 AS id, ''{TARGET_DATE}''::date AS day', 'id INTEGER, day DATE',
	'CREATE INDEX {view_name}_id ON {schema}.{view_name} (id)', 4
FROM generate_series(1, 10) AS n;

INSERT INTO _wh.tenant_failures (tenant_name, consecutive_failures, last_failure_at, last_sqlstate, last_error, retry_at)
SELECT format('tenant_%s', n), 5, now(), '08001', 'could not connect to its server', now() + interval '10 minutes'
FROM generate_series(7, :tenants, 200) AS n;

CREATE TEMPORARY TABLE subscription AS
SELECT t.tenant_name, m.template_name, t.tenant_name AS target_schema,
	substr(m.template_name, 10)::integer AS template_number, substr(t.tenant_name, 8)::integer AS tenant_number
FROM _wh.tenant_connections t CROSS JOIN _wh.mv_templates m WHERE m.template_name LIKE 'template%';

INSERT INTO _wh.tenant_templates (tenant_name, template_name, target_schema, start_date)
SELECT tenant_name, template_name, target_schema, :'first_day' FROM subscription;

INSERT INTO _wh.schedules (name, schedule, kind, template_name, tenant_name, target_schema, username, next_run, last_run, last_status)
SELECT concat_ws(' ', replace(k.kind, '_', ' '), s.template_name, s.tenant_name), k.schedule, k.kind, s.template_name, s.tenant_name,
	s.target_schema, :'admin_role', now() + k.ahead * (0.5 + random() / 2), now() - k.ahead * random(), 'succeeded'
FROM subscription s CROSS JOIN (VALUES ('refresh', 'H */4 * * *', interval '8 hours'),
	('combine_month', 'H 3 * * *', interval '1 day'), ('combine_year', '0 2 15 2 *', interval '90 days')) AS k(kind, schedule, ahead);

ANALYZE subscription;

-- ---- the ledger ----

CREATE TEMPORARY TABLE relation AS
SELECT s.*, p.tier, p.first_date, p.last_date,
	CASE p.tier WHEN 'year' THEN format('%s_%s', s.template_name, to_char(p.first_date, 'YYYY'))
		WHEN 'month' THEN format('%s_%s', s.template_name, to_char(p.first_date, 'YYYY_MM'))
		ELSE format('%s_%s', s.template_name, to_char(p.first_date, 'YYYY_MM_DD')) END AS relation,
	(1000000000 + row_number() OVER (ORDER BY s.tenant_number, s.template_number, p.first_date))::oid AS relation_oid
FROM subscription s CROSS JOIN LATERAL (
	SELECT tier, greatest(d::date, :'first_day') AS first_date,
		least(CASE tier WHEN 'year' THEN (d + interval '1 year')::date - 1 WHEN 'month' THEN (d + interval '1 month')::date - 1
			ELSE d::date END, :'today') AS last_date
	FROM (
		SELECT 'year' AS tier, generate_series(date_trunc('year', :'first_day'::date), :'this_year'::date - 1, '1 year') AS d
		WHERE s.template_number <= 8
		UNION ALL
		SELECT 'month', generate_series(CASE WHEN s.template_number <= 8 THEN :'this_year'::date
			ELSE date_trunc('month', :'first_day'::date) END, :'this_month'::date - 1, '1 month')
		WHERE s.template_number <= 9
		UNION ALL
		SELECT 'day', generate_series(CASE WHEN s.template_number <= 9 THEN :'this_month' ELSE :'first_day' END::date, :'today', '1 day')) p) p;

ANALYZE relation;
INSERT INTO _wh.day_loads (template_name, target_schema, target_date, tenant_name, relation, relation_oid, relation_file,
	state, in_views, rows, bytes, loaded_at, fetch_started_at, template_version, indexes_md5, last_error)
SELECT r.template_name, r.target_schema, d.day, r.tenant_name, r.relation, r.relation_oid, r.relation_oid,
	CASE WHEN r.tier <> 'day' THEN 'combined' WHEN d.chance < 0.001 THEN 'suspect' ELSE 'published' END,
	true, 1800 + (d.chance * 400)::integer, 300000 + (d.chance * 100000)::integer,
	d.day + interval '1 day 4 hours' * (1 + d.chance), d.day + interval '1 day 4 hours', 1, 'd41d8cd98f00b204e9800998ecf8427e',
	CASE WHEN r.tier = 'day' AND d.chance < 0.001 THEN '900 rows, expected 1000 to 4000' END
FROM relation r CROSS JOIN LATERAL (SELECT (r.first_date + n) AS day, random() AS chance
	FROM generate_series(0, r.last_date - r.first_date) AS n OFFSET 0) d
ORDER BY d.day, r.tenant_number;

-- A day in a thousand has no content.
UPDATE _wh.day_loads SET state = 'failed', relation_oid = NULL, relation_file = NULL, in_views = false, rows = 0, bytes = 0,
	failed_at = now(), last_error = 'could not connect to its server'
WHERE state = 'published' AND random() < 0.001;

-- ---- what the catalogs know ----

DO $$
DECLARE
	tenant text;
BEGIN
	FOR tenant IN SELECT tenant_name FROM _wh.tenant_connections LOOP
		EXECUTE format('CREATE SCHEMA %I AUTHORIZATION %I', tenant, current_setting('wh_worker.admin_role'));
	END LOOP;
END
$$;

ANALYZE pg_namespace;
CREATE TABLE public.nothing (id integer, day date);
-- A tenant at a time: what one command tells the caches is searched for each row.
CREATE INDEX ON relation (target_schema);
CREATE FUNCTION pg_temp.make_relations() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	schema record;
BEGIN
	FOR schema IN SELECT n.oid, t.tenant_name, n.nspowner FROM pg_namespace n JOIN _wh.tenant_connections t ON t.tenant_name = n.nspname
	LOOP
		INSERT INTO pg_class
		SELECT r.relation_oid, r.relation, schema.oid, 0, 0, schema.nspowner, 2, r.relation_oid, 0, 1, 1, 0, 0, true, false, 'p', 'm',
			2, 0, false, false, false, false, false, true, 'n', false, 0, pg_current_xact_id()::text::xid, '1', NULL, NULL, NULL
		FROM relation r WHERE r.target_schema = schema.tenant_name;
	END LOOP;
END
$$;
SELECT pg_temp.make_relations();
ANALYZE pg_class;
CREATE PROCEDURE public.make_views() LANGUAGE plpgsql AS $$
DECLARE
	parts text := repeat(E' UNION ALL\n SELECT id, day FROM public.nothing', 40);
	subscription record;
BEGIN
	FOR subscription IN SELECT * FROM _wh.tenant_templates LOOP
		EXECUTE format('CREATE VIEW %I.%I AS SELECT id, day FROM public.nothing %s',
			subscription.target_schema, subscription.template_name, parts);
	END LOOP;
	COMMIT;
	FOR subscription IN SELECT template_name, string_agg(format('SELECT id, day, %L::text AS schema_name FROM %I.%I', target_schema,
		target_schema, template_name), ' UNION ALL ') AS members FROM _wh.tenant_templates GROUP BY 1
	LOOP
		EXECUTE format('CREATE VIEW public.%I AS %s', subscription.template_name, subscription.members);
	END LOOP;
END
$$;
CALL public.make_views();
UPDATE _wh.tenant_templates s SET view_oid = c.oid
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = s.target_schema AND c.relname = s.template_name;
UPDATE _wh.mv_templates t SET view_oid = c.oid FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relname = t.template_name;

-- ---- what publications would have counted ----

UPDATE _wh.tenant_templates s SET days = c.days, days_since_start = c.days, rows = c.rows, bytes = c.bytes,
	data_through = c.data_through, last_success = c.last_success
FROM (SELECT template_name, target_schema, count(*) FILTER (WHERE in_views) AS days, sum(rows) AS rows, sum(bytes) AS bytes,
		max(target_date) FILTER (WHERE in_views) AS data_through, max(loaded_at) AS last_success
	FROM _wh.day_loads GROUP BY 1, 2) c
WHERE (s.template_name, s.target_schema) = (c.template_name, c.target_schema);
UPDATE _wh.tenant_templates s SET members = c.members, locks = c.members + 1, locks_unfiltered = c.members + 1,
	day_relations = c.d, day_rows = c.d * 2000, day_bytes = c.d * 350000, day_tablespaces = '{pg_default}',
	month_relations = c.m, month_rows = c.m * 60000, month_bytes = c.m * 10000000,
	month_tablespaces = CASE WHEN c.m > 0 THEN '{pg_default}' ELSE '{}' END::text[],
	year_relations = c.y, year_rows = c.y * 730000, year_bytes = c.y * 120000000,
	year_tablespaces = CASE WHEN c.y > 0 THEN '{pg_default}' ELSE '{}' END::text[]
FROM (SELECT template_name, target_schema, count(*) AS members, count(*) FILTER (WHERE tier = 'day') AS d,
		count(*) FILTER (WHERE tier = 'month') AS m, count(*) FILTER (WHERE tier = 'year') AS y
	FROM relation GROUP BY 1, 2) c
WHERE (s.template_name, s.target_schema) = (c.template_name, c.target_schema);

ANALYZE _wh.day_loads, _wh.schedules, _wh.tenant_templates;

-- ---- the queue and its history ----

-- What ran every four hours for :history days.
INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, schedule_id, reason, priority, state, attempt,
	enqueued_at, started_at, finished_at)
SELECT 'refresh', c.template_name, c.tenant_name, c.target_schema, (r.at AT TIME ZONE 'UTC')::date, c.schedule_id, 'today', 25,
	CASE WHEN random() < 0.002 THEN 'failed' ELSE 'succeeded' END, 1, r.at, r.at + interval '3 s', r.at + interval '4 s'
FROM generate_series(now() - make_interval(days => :history), now(), '4 hours') AS r(at)
JOIN _wh.schedules c ON c.kind = 'refresh';

-- Each job an attempt and a decision; the newest million of them are kept.
INSERT INTO _wh.job_run_details (jobid, job_pid, command, status, return_message, start_time, end_time, job_id, rows, bytes, reason)
SELECT j.schedule_id, 4711, concat_ws(' ', k.what, j.template_name, j.tenant_name, j.target_date), k.status, k.message,
	j.started_at, j.finished_at, CASE WHEN k.status = 'succeeded' THEN j.job_id END, 2000, 100000, j.reason
FROM (SELECT * FROM _wh.jobs ORDER BY job_id DESC LIMIT 500000) j
CROSS JOIN (VALUES ('schedule', 'enqueued', '1 day'), ('refresh', 'succeeded', '2000 rows')) AS k(what, status, message)
ORDER BY j.job_id, k.what DESC;

-- Backfills that ended, and four that run: half of their days are loaded, the
-- others wait (for tomorrow, so that nobody is asked for them meanwhile).
INSERT INTO _wh.backfills (template_name, tenant_name, start_date, end_date, mode, newest_first, state, days_total, created_at, finished_at)
SELECT s.template_name, s.tenant_name, :'today'::date - 129, :'today'::date - 30, 'missing', true, 'succeeded', 100,
	now() - interval '3 days', now() - interval '2 days'
FROM subscription s WHERE s.tenant_number <= :queued / 100 AND s.template_number = 1;
INSERT INTO _wh.backfills (template_name, start_date, end_date, mode, newest_first, days_total, created_at)
SELECT format('template_%s', n), :'today'::date - 109, :'today'::date - 100, 'all', true, :queued / 2, now() - interval '1 hour'
FROM generate_series(2, 5) AS n;
INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, backfill_id, priority, sequence_number, state,
	attempt, not_before, started_at, finished_at)
SELECT 'refresh', s.template_name, s.tenant_name, s.target_schema, b.end_date - n, b.backfill_id, 40, n,
	CASE WHEN b.state = 'succeeded' OR n % 2 = 0 THEN 'succeeded' ELSE 'queued' END, 1,
	CASE WHEN b.state = 'succeeded' OR n % 2 = 0 THEN '-infinity' ELSE now() + interval '1 day' END,
	CASE WHEN b.state = 'succeeded' OR n % 2 = 0 THEN now() - interval '1 hour' END,
	CASE WHEN b.state = 'succeeded' OR n % 2 = 0 THEN now() - interval '1 hour' END
FROM _wh.backfills b JOIN subscription s ON s.template_name = b.template_name AND s.tenant_name = coalesce(b.tenant_name, s.tenant_name)
CROSS JOIN generate_series(0, b.end_date - b.start_date) AS n;
UPDATE _wh.day_loads d SET job_id = j.job_id FROM _wh.jobs j
WHERE j.backfill_id IS NOT NULL AND j.state = 'succeeded'
	AND (d.template_name, d.target_schema, d.target_date) = (j.template_name, j.target_schema, j.target_date);

INSERT INTO _wh.audit_log (at, event, object, tenant_name, outcome, session_role, acting_role, pid, details)
SELECT now() - interval '30 days' * random(), 'connect', 'wh_worker worker', format('tenant_%s', 1 + n % :tenants), 'connected',
	:'admin_role', :'admin_role', 4711, '{"sslmode": "require"}'
FROM generate_series(1, :tenants * :history) AS n;
DROP PROCEDURE public.make_views();
