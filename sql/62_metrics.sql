-- What Prometheus and its kin read. A branch of the view for each metric, with a
-- constant name, so that a query for one name runs that branch alone. Nothing here
-- reads the ledger or the history as a whole: counts come from shared memory, from
-- counters that are kept with subscriptions, and by indexes of what is unusual.
-- Functions are called as whoever reads the view, so what pg_monitor may call is here.

CREATE FUNCTION _wh.metric_counters(family text, OUT template_name text, OUT kind text, OUT result text,
	OUT phase text, OUT bound text, OUT value float8)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_metric_counters';
COMMENT ON FUNCTION _wh.metric_counters(text) IS
'A family of counters of this database from shared memory, since the server started, or of what its processes do now; read the view metrics instead. Errors: 22023 unknown family';

-- Startable is what waits for nothing but a worker, or its turn.
CREATE FUNCTION _wh.metric_queue() RETURNS TABLE (class text, queued bigint, running bigint, startable bigint,
	oldest_startable float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
AS $$
WITH tenant AS MATERIALIZED (
	SELECT c.tenant_name, c.active AND h.state <> 'open' AND NOT coalesce(_wh.is_quiet(c.quiet_hours), false) AS may_be_read
	FROM _wh.tenant_connections c JOIN _wh.tenant_health h USING (tenant_name)
), warehouse AS MATERIALIZED (
	SELECT _wh.pause_reason() IS NULL AND current_setting('wh_worker.enabled')::boolean AS is_open
), job AS (
	SELECT j.priority, true AS is_queued,
		w.is_open AND j.not_before <= clock_timestamp() AND coalesce(t.may_be_read, true)
			AND NOT coalesce(b.paused AND j.kind = 'refresh' AND j.schedule_id IS NULL, false) AS is_startable,
		greatest(j.enqueued_at, j.not_before) AS since
	FROM _wh.jobs j
	CROSS JOIN warehouse w
	LEFT JOIN tenant t ON j.kind = 'refresh' AND t.tenant_name = j.tenant_name
	LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id
	WHERE j.state = 'queued'
	UNION ALL
	SELECT j.priority, false, false, NULL FROM _wh.jobs j WHERE j.state = 'running'
)
SELECT c.class, count(*) FILTER (WHERE j.is_queued), count(*) FILTER (WHERE NOT j.is_queued),
	count(*) FILTER (WHERE j.is_startable),
	coalesce(greatest(extract(epoch FROM clock_timestamp() - min(j.since) FILTER (WHERE j.is_startable)), 0), 0)::float8
FROM (VALUES (10, 'interactive'), (20, 'publish'), (25, 'today'), (30, 'catch_up'), (40, 'backfill')) c (priority, class)
LEFT JOIN job j ON j.priority = c.priority
GROUP BY c.class
$$;
COMMENT ON FUNCTION _wh.metric_queue() IS
'For each class of jobs how many are queued, running, and queued with nothing to wait for but a worker, and for how many seconds the oldest of these has been so; read the view metrics instead';

CREATE VIEW _wh.metrics AS
WITH queue AS MATERIALIZED (
	SELECT * FROM _wh.metric_queue()
), freshness AS MATERIALIZED (
	-- What data_freshness is made of; an inactive subscription has no lag.
	SELECT e.template_name, e.tenant_name, e.target_schema, e.missing_days, e.suspect_days, e.failed_days,
		e.lag, e.lag_schedule, e.lag_queue, e.lag_tenant, e.lag_run, coalesce(e.freshness, 'no_promise') AS state
	FROM _wh.expected_loads() e WHERE e.lag IS NOT NULL
), template AS MATERIALIZED (
	SELECT f.template_name, sum(f.missing_days) AS missing_days, sum(f.suspect_days) AS suspect_days,
		sum(f.failed_days) AS failed_days, max(f.lag_schedule) AS lag_schedule, max(f.lag_queue) AS lag_queue,
		max(f.lag_tenant) AS lag_tenant, max(f.lag_run) AS lag_run,
		count(*) FILTER (WHERE f.state = 'fresh') AS fresh, count(*) FILTER (WHERE f.state = 'at_risk') AS at_risk,
		count(*) FILTER (WHERE f.state = 'stale') AS stale, count(*) FILTER (WHERE f.state = 'no_promise') AS no_promise
	FROM freshness f GROUP BY f.template_name
), ended AS MATERIALIZED (
	SELECT * FROM _wh.metric_counters('ended')
), subscription AS MATERIALIZED (
	SELECT s.template_name, sum(s.days) AS days, sum(s.rows) AS rows, sum(s.bytes) AS bytes,
		sum(s.outdated_days) AS outdated_days, sum(s.refused_days) AS refused_days,
		max(s.locks) AS tenant_locks
	FROM _wh.tenant_templates s GROUP BY s.template_name
)
-- ---- what was done, since the server started ----
SELECT 'wh_loads_total' AS name, 'counter' AS type,
	'Attempts to load a day that ended, by jobs and by calls that loaded at once; of a transaction that was rolled back none' AS help,
	jsonb_build_object('template', l.template_name, 'source', l.source, 'result', l.result) AS labels,
	sum(l.value) AS value
FROM (
	SELECT t.template_name, 'job' AS source, r.result, 0::float8 AS value FROM _wh.mv_templates t
	CROSS JOIN (VALUES ('succeeded'), ('unchanged'), ('retried'), ('set_aside'), ('failed'), ('cancelled')) r (result)
	UNION ALL
	SELECT e.template_name, CASE e.kind WHEN 'call' THEN 'call' ELSE 'job' END, e.result, e.value FROM ended e
	WHERE e.kind IN ('refresh', 'call')) l
GROUP BY l.template_name, l.source, l.result
UNION ALL
SELECT 'wh_jobs_total', 'counter', 'Attempts of jobs that ended, of all kinds',
	jsonb_build_object('template', e.template_name, 'kind', e.kind, 'result', e.result), sum(e.value)
FROM ended e WHERE e.kind <> 'call' GROUP BY e.template_name, e.kind, e.result
UNION ALL
SELECT 'wh_received_rows_total', 'counter', 'Rows received from tenants and loaded',
	jsonb_build_object('template', r.template_name), sum(r.value)
FROM (SELECT template_name, value FROM _wh.metric_counters('rows')
	UNION ALL SELECT template_name, 0 FROM _wh.mv_templates) r GROUP BY r.template_name
UNION ALL
SELECT 'wh_received_bytes_total', 'counter', 'Bytes received from tenants and loaded, as bytes of job_run_details',
	jsonb_build_object('template', b.template_name), sum(b.value)
FROM (SELECT template_name, value FROM _wh.metric_counters('bytes')
	UNION ALL SELECT template_name, 0 FROM _wh.mv_templates) b GROUP BY b.template_name
UNION ALL
SELECT 'wh_load_duration_seconds_bucket', 'histogram', 'Jobs that loaded a day, by how long they took from their start to their commit',
	jsonb_build_object('template', c.template_name, 'le', c.bound), c.value
FROM _wh.metric_counters('load_bucket') c
UNION ALL
SELECT 'wh_load_duration_seconds_sum', 'histogram', 'How long they took together',
	jsonb_build_object('template', c.template_name), c.value
FROM _wh.metric_counters('load_sum') c
UNION ALL
SELECT 'wh_load_duration_seconds_count', 'histogram', 'How many they are',
	jsonb_build_object('template', c.template_name), c.value
FROM _wh.metric_counters('load_count') c
UNION ALL
SELECT 'wh_phase_duration_seconds_bucket', 'histogram', 'The same jobs, by how long they were in a phase; those that never were are not in it',
	jsonb_build_object('phase', c.phase, 'le', c.bound), c.value
FROM _wh.metric_counters('phase_bucket') c
UNION ALL
SELECT 'wh_phase_duration_seconds_sum', 'histogram', 'How long they were in the phase together',
	jsonb_build_object('phase', c.phase), c.value
FROM _wh.metric_counters('phase_sum') c
UNION ALL
SELECT 'wh_phase_duration_seconds_count', 'histogram', 'How many of them were in the phase',
	jsonb_build_object('phase', c.phase), c.value
FROM _wh.metric_counters('phase_count') c
UNION ALL
SELECT 'wh_lock_tries_total', 'counter', 'Polite tries for the locks of a swap or a view: granted, repeated because somebody was in the way, or given up',
	jsonb_build_object('result', c.kind), c.value
FROM _wh.metric_counters('tries') c
UNION ALL
SELECT 'wh_lock_wait_seconds_total', 'counter', 'Time from the first of these tries to the last, where there were several',
	'{}', c.value
FROM _wh.metric_counters('lock_wait') c
UNION ALL
SELECT 'wh_readers_kept_seconds_bucket', 'histogram', 'Times in which a reader of a day or view had to wait for us, from the request of the lock to its release, by length',
	jsonb_build_object('le', c.bound), c.value
FROM _wh.metric_counters('readers_bucket') c
UNION ALL
SELECT 'wh_readers_kept_seconds_sum', 'histogram', 'The lengths of these together',
	'{}', c.value
FROM _wh.metric_counters('readers_sum') c
UNION ALL
SELECT 'wh_readers_kept_seconds_count', 'histogram', 'How many they are',
	'{}', c.value
FROM _wh.metric_counters('readers_count') c
-- ---- who works ----
UNION ALL
SELECT 'wh_worker_slots', 'gauge', 'Workers that there may be: busy or idle in this database, at work elsewhere, free',
	jsonb_build_object('state', c.kind), c.value
FROM _wh.metric_counters('workers') c
UNION ALL
SELECT 'wh_launcher_up', 'gauge', 'Whether this database has a launcher that runs: 1 or 0', '{}', c.value
FROM _wh.metric_counters('launcher_up') c
UNION ALL
SELECT 'wh_launcher_failing', 'gauge', 'Whether its launcher has an error, shown as last_error in worker_status: 1 or 0',
	'{}', c.value
FROM _wh.metric_counters('launcher_failing') c
UNION ALL
SELECT 'wh_standstill_seconds', 'gauge', 'How long no job has begun, received rows or ended', '{}', c.value
FROM _wh.metric_counters('standstill') c
UNION ALL
SELECT 'wh_running_rows', 'gauge', 'Rows that jobs which run now have received so far', '{}', c.value
FROM _wh.metric_counters('rows_so_far') c
UNION ALL
SELECT 'wh_enabled', 'gauge', 'Whether the setting wh_worker.enabled is on: 1 or 0', '{}',
	current_setting('wh_worker.enabled')::boolean::integer
UNION ALL
SELECT 'wh_paused', 'gauge', 'Whether the warehouse is paused, or a copy that waits for confirm_warehouse(): 1 or 0', '{}',
	(_wh.pause_reason() IS NOT NULL)::integer
UNION ALL
SELECT 'wh_info', 'gauge', 'Always 1; the version of the extension', jsonb_build_object('version', e.extversion), 1
FROM pg_extension e WHERE e.extname = 'wh_worker'
UNION ALL
SELECT 'wh_read_at_seconds', 'gauge', 'When this was read, in seconds since 1970: a reader that shows old values is found by it',
	'{}', extract(epoch FROM clock_timestamp())
-- ---- what waits ----
UNION ALL
SELECT 'wh_queue_jobs', 'gauge', 'Jobs that are queued or running, by class',
	jsonb_build_object('class', q.class, 'state', s.state), CASE s.state WHEN 'queued' THEN q.queued ELSE q.running END
FROM queue q CROSS JOIN (VALUES ('queued'), ('running')) s (state)
UNION ALL
SELECT 'wh_queue_startable_jobs', 'gauge', 'Of those queued the ones that wait for nothing but a worker or their turn',
	jsonb_build_object('class', q.class), q.startable FROM queue q
UNION ALL
SELECT 'wh_queue_oldest_startable_seconds', 'gauge', 'How long the oldest of these has been startable, at most; 0: there is none',
	jsonb_build_object('class', q.class), q.oldest_startable FROM queue q
UNION ALL
SELECT 'wh_schedule_overdue_seconds', 'gauge', 'How long the schedule that is most overdue has waited to be decided on; 0 while the warehouse is paused or disabled',
	'{}', CASE WHEN _wh.pause_reason() IS NOT NULL OR NOT current_setting('wh_worker.enabled')::boolean THEN 0
		ELSE coalesce(greatest(extract(epoch FROM clock_timestamp() - o.next_run), 0), 0) END
FROM (SELECT min(next_run) AS next_run FROM _wh.schedules WHERE active AND isfinite(next_run)) o
UNION ALL
SELECT 'wh_backfills', 'gauge', 'Backfills that have not ended',
	jsonb_build_object('state', s.state), count(b.backfill_id)
FROM (VALUES ('running', false), ('paused', true)) s (state, paused)
LEFT JOIN _wh.backfills b ON b.state = 'running' AND b.paused = s.paused GROUP BY s.state
UNION ALL
SELECT 'wh_failed_jobs', 'gauge', 'Jobs that failed for good within the last hour and were not retried',
	jsonb_strip_nulls(jsonb_build_object('template', j.template_name, 'kind', j.kind)), count(*)
FROM _wh.jobs j WHERE j.state = 'failed' AND j.finished_at > now() - interval '1 hour'
GROUP BY j.template_name, j.kind
-- ---- tenants ----
UNION ALL
SELECT 'wh_tenants', 'gauge', 'Tenants, by whether they are paused, and if not by their state in tenant_health',
	jsonb_build_object('state', s.state), count(t.tenant_name)
FROM (VALUES ('closed'), ('open'), ('half-open'), ('paused')) s (state)
LEFT JOIN (SELECT h.tenant_name, CASE WHEN c.active THEN h.state ELSE 'paused' END AS state
	FROM _wh.tenant_health h JOIN _wh.tenant_connections c USING (tenant_name)) t ON t.state = s.state GROUP BY s.state
UNION ALL
SELECT 'wh_tenant_set_aside', 'gauge', 'Whether the tenant keeps refusing connections and is set aside (open or half-open in tenant_health): 1 or 0',
	jsonb_build_object('tenant', h.tenant_name), (h.state <> 'closed')::integer
FROM _wh.tenant_health h
UNION ALL
SELECT 'wh_tenant_consecutive_failures', 'gauge', 'Connections to the tenant that failed since the last that was made; only tenants with any',
	jsonb_build_object('tenant', h.tenant_name), h.consecutive_failures
FROM _wh.tenant_health h WHERE h.consecutive_failures > 0
-- ---- data: active subscriptions ----
UNION ALL
SELECT 'wh_data_lag_seconds', 'gauge', 'How old the data of a subscription is: lag of data_freshness',
	jsonb_build_object('template', f.template_name, 'tenant', f.tenant_name, 'schema', f.target_schema),
	date_part('epoch', f.lag)
FROM freshness f
UNION ALL
SELECT 'wh_data_lag_part_seconds', 'gauge', 'The greatest lag_schedule, lag_queue, lag_tenant and lag_run of the subscriptions of a template',
	jsonb_build_object('template', t.template_name, 'part', p.part), date_part('epoch', p.lag)
FROM template t CROSS JOIN LATERAL (VALUES ('schedule', t.lag_schedule), ('queue', t.lag_queue),
	('tenant', t.lag_tenant), ('run', t.lag_run)) p (part, lag)
UNION ALL
SELECT 'wh_data_promise', 'gauge', 'Always 1; only subscriptions whose promise (fresh_within) is broken (stale) or expected to be (at_risk)',
	jsonb_build_object('template', f.template_name, 'tenant', f.tenant_name, 'schema', f.target_schema, 'state', f.state), 1
FROM freshness f WHERE f.state IN ('stale', 'at_risk')
UNION ALL
SELECT 'wh_subscriptions', 'gauge', 'Subscriptions by what has become of their promise: fresh, at_risk, stale or no_promise',
	jsonb_build_object('template', t.template_name, 'state', s.state), s.subscriptions
FROM template t CROSS JOIN LATERAL (VALUES ('fresh', t.fresh), ('at_risk', t.at_risk), ('stale', t.stale),
	('no_promise', t.no_promise)) s (state, subscriptions)
UNION ALL
SELECT 'wh_missing_days', 'gauge', 'Days from start_date to today that are not published',
	jsonb_build_object('template', t.template_name), t.missing_days FROM template t
UNION ALL
SELECT 'wh_failed_days', 'gauge', 'Days whose last attempt failed for good, until one succeeds',
	jsonb_build_object('template', t.template_name), t.failed_days FROM template t
UNION ALL
SELECT 'wh_suspect_days', 'gauge', 'Days whose count of rows is far from that of the days before',
	jsonb_build_object('template', t.template_name), t.suspect_days FROM template t
-- ---- data: all subscriptions ----
UNION ALL
SELECT 'wh_outdated_days', 'gauge', 'Days that an older version of the template loaded',
	jsonb_build_object('template', s.template_name), s.outdated_days FROM subscription s
UNION ALL
SELECT 'wh_published_days', 'gauge', 'Days that are published, as of the last publication',
	jsonb_build_object('template', s.template_name), s.days FROM subscription s
UNION ALL
SELECT 'wh_published_rows', 'gauge', 'Rows of these days',
	jsonb_build_object('template', s.template_name), s.rows FROM subscription s
UNION ALL
SELECT 'wh_published_bytes', 'gauge', 'Bytes of their relations, with indexes and TOAST',
	jsonb_build_object('template', s.template_name), s.bytes FROM subscription s
-- ---- locks of a query ----
UNION ALL
SELECT 'wh_union_locks', 'gauge', 'Locks of a query of the public view, and of the tenant view that takes most, of partitions one for the last 30 days, as of the last publication',
	jsonb_build_object('template', s.template_name, 'view', 'tenant'), s.tenant_locks FROM subscription s
UNION ALL
SELECT 'wh_union_locks', 'gauge', 'Locks of a query of the public view, and of the tenant view that takes most, of partitions one for the last 30 days, as of the last publication',
	jsonb_build_object('template', u.template_name, 'view', 'public'), u.locks_per_query
FROM _wh.union_health u WHERE u.tenant_name IS NULL
UNION ALL
SELECT 'wh_union_refused_days', 'gauge', 'Loaded days that are kept out of tenant views, a query of which would need more locks than the server has',
	jsonb_build_object('template', s.template_name), s.refused_days FROM subscription s
UNION ALL
SELECT 'wh_lock_budget', 'gauge', 'Locks that the lock table of the server is sized for', '{}', c.value
FROM _wh.metric_counters('lock_budget') c;
COMMENT ON VIEW _wh.metrics IS 'A row per metric and labels, for Prometheus: what was done since the server started, who works, what waits, how fresh the data of each subscription is; members of pg_monitor may read it';
COMMENT ON COLUMN _wh.metrics.name IS 'Name of the metric; of a histogram with _bucket, _sum or _count';
COMMENT ON COLUMN _wh.metrics.type IS 'counter (only grows, from 0 at a start of the server), gauge or histogram';
COMMENT ON COLUMN _wh.metrics.help IS 'What it says';
COMMENT ON COLUMN _wh.metrics.labels IS 'An object of texts: what it is about';
COMMENT ON COLUMN _wh.metrics.value IS 'The value; seconds and bytes where the name says so';
