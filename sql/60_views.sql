-- Views for people and dashboards. They take no lock that a load waits for.

CREATE FUNCTION _wh.worker_slots(OUT pid integer, OUT backend_type text, OUT datname text, OUT state text,
	OUT job_id bigint, OUT backfill_id bigint, OUT kind text, OUT template_name text, OUT tenant_name text,
	OUT target_schema text, OUT target_date date, OUT rows_fetched bigint, OUT bytes_fetched bigint,
	OUT job_started_at timestamptz, OUT phase_started_at timestamptz, OUT jobs_succeeded bigint,
	OUT jobs_failed bigint, OUT last_error text, OUT noted_blockers integer[])
RETURNS SETOF record LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_worker_slots';
COMMENT ON FUNCTION _wh.worker_slots() IS 'The slots of shared memory; read the view worker_status instead';

CREATE VIEW _wh.worker_status AS
SELECT s.pid, s.backend_type, s.datname, s.state, s.job_id, s.backfill_id, s.kind, s.template_name, s.tenant_name,
	s.target_schema, s.target_date, s.rows_fetched, s.bytes_fetched, s.job_started_at, s.phase_started_at,
	s.jobs_succeeded, s.jobs_failed, s.last_error,
	CASE WHEN s.pid IS NOT NULL AND s.job_id IS NOT NULL
		THEN coalesce(nullif(pg_blocking_pids(s.pid), '{}'), s.noted_blockers) END AS blocked_by
FROM _wh.worker_slots() s;
COMMENT ON VIEW _wh.worker_status IS 'A row per supervisor, launcher (one for each listed database, running or not) and worker: what it does now; from shared memory';

CREATE VIEW _wh.job_status AS
SELECT j.job_id, j.kind, j.template_name, j.tenant_name, j.target_schema, j.target_date, j.backfill_id,
	j.state, j.attempt, nullif(j.not_before, '-infinity') AS not_before,
	CASE WHEN j.state <> 'queued' THEN NULL
		WHEN NOT current_setting('wh_worker.enabled')::boolean THEN 'wh_worker.enabled is off'
		WHEN (SELECT paused FROM _wh.warehouse) THEN 'the warehouse is paused'
		WHEN b.paused AND j.kind = 'refresh' THEN 'the backfill is paused'
		WHEN NOT c.active THEN 'the tenant is paused'
		WHEN j.not_before > clock_timestamp() THEN 'backoff after an error'
		WHEN r.running >= coalesce(c.max_connections, current_setting('wh_worker.max_workers_per_tenant')::integer)
			THEN 'the tenant has all the workers it may have'
		ELSE 'waits for a worker' END AS wait_reason,
	j.enqueued_at, j.started_at, j.finished_at, j.last_sqlstate, j.last_error
FROM _wh.jobs j
LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id
LEFT JOIN _wh.tenant_connections c ON c.tenant_name = j.tenant_name
LEFT JOIN (SELECT tenant_name, count(*) AS running FROM _wh.jobs WHERE state = 'running' GROUP BY 1) r
	ON r.tenant_name = j.tenant_name
ORDER BY j.job_id DESC;
COMMENT ON VIEW _wh.job_status IS 'A row per job, newest first, with what a queued one waits for';

CREATE VIEW _wh.backfill_progress AS
SELECT p.backfill_id, p.template_name, p.tenant_name, p.state, p.days_total, p.days_done, p.days_failed, p.days_running,
	p.rows, p.bytes, p.percent,
	repeat('█', (p.percent / 5)::integer) || repeat('░', 20 - (p.percent / 5)::integer) AS bar,
	p.started_at,
	CASE WHEN p.state = 'running' AND p.days_done > 0 AND p.days_done < p.days_total
		THEN clock_timestamp() + (clock_timestamp() - p.started_at)
			* ((p.days_total - p.days_done)::float8 / p.days_done) END AS eta,
	p.finished_at, p.last_error
FROM (
	SELECT b.backfill_id, b.template_name, b.tenant_name,
		CASE WHEN b.state = 'running' AND b.paused THEN 'paused' ELSE b.state END AS state,
		b.days_total, j.days_done, j.days_failed, j.days_running, j.rows, j.bytes,
		CASE WHEN b.days_total = 0 THEN CASE WHEN b.state = 'running' THEN 0 ELSE 100 END
			ELSE floor(100.0 * (j.days_done + j.days_failed) / b.days_total) END AS percent,
		j.started_at, b.finished_at, b.last_error
	FROM _wh.backfills b
	CROSS JOIN LATERAL (
		SELECT count(*) FILTER (WHERE q.state = 'succeeded') AS days_done,
			count(*) FILTER (WHERE q.state = 'failed') AS days_failed,
			count(*) FILTER (WHERE q.state = 'running') AS days_running,
			min(q.started_at) AS started_at,
			coalesce(sum(d.rows), 0)::bigint AS rows,
			coalesce(sum(d.bytes), 0)::bigint AS bytes
		FROM _wh.jobs q
		LEFT JOIN _wh.day_loads d ON d.template_name = q.template_name AND d.target_schema = q.target_schema
			AND d.target_date = q.target_date AND d.job_id = q.job_id
		WHERE q.backfill_id = b.backfill_id AND q.kind = 'refresh') j
) p
ORDER BY p.backfill_id;
COMMENT ON VIEW _wh.backfill_progress IS 'A row per backfill: days done, failed and running, rows, bytes on disk, a bar for \watch and an estimated end';

CREATE VIEW _wh.data_freshness AS
SELECT s.tenant_name, s.template_name, s.target_schema, s.active, s.data_through, s.last_success,
	greatest((now() AT TIME ZONE 'UTC')::date - s.start_date + 1 - s.days_since_start, 0) AS missing_days,
	round((extract(epoch FROM now() - s.last_success) / 3600)::numeric, 1) AS hours_old,
	s.days, s.rows, s.bytes, s.outdated_days,
	(SELECT count(*) FROM _wh.day_loads d WHERE d.template_name = s.template_name
		AND d.target_schema = s.target_schema AND d.state = 'suspect') AS suspect_days
FROM _wh.tenant_templates s
ORDER BY s.template_name, s.target_schema;
COMMENT ON VIEW _wh.data_freshness IS 'A row per subscription: how far its data goes, days missing since start_date up to today (UTC), hours since a day was last loaded, and days that an older version of the template loaded or whose count of rows is suspect';
