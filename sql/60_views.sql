-- Views for people and dashboards. They take no lock that a load waits for.

CREATE FUNCTION _wh.worker_slots(OUT pid integer, OUT backend_type text, OUT datname text, OUT state text,
	OUT job_id bigint, OUT backfill_id bigint, OUT kind text, OUT template_name text, OUT tenant_name text,
	OUT target_schema text, OUT target_date date, OUT rows_fetched bigint, OUT bytes_fetched bigint,
	OUT job_started_at timestamptz, OUT phase_started_at timestamptz, OUT jobs_succeeded bigint,
	OUT jobs_failed bigint, OUT last_error text, OUT noted_blockers integer[], OUT held_by text)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_worker_slots';
COMMENT ON FUNCTION _wh.worker_slots() IS 'The slots of shared memory; read the view worker_status instead';

CREATE VIEW _wh.worker_status AS
SELECT s.pid, s.backend_type, s.datname, s.state, s.job_id, s.backfill_id, s.kind, s.template_name, s.tenant_name,
	s.target_schema, s.target_date, s.rows_fetched, s.bytes_fetched, s.job_started_at, s.phase_started_at,
	s.jobs_succeeded, s.jobs_failed, s.last_error,
	CASE WHEN s.pid IS NOT NULL AND (s.job_id IS NOT NULL OR s.backend_type = 'wh_worker launcher')
		THEN coalesce(nullif(pg_blocking_pids(s.pid), '{}'), s.noted_blockers) END AS blocked_by,
	s.held_by
FROM _wh.worker_slots() s;
COMMENT ON VIEW _wh.worker_status IS 'A row per supervisor, launcher (one for each listed database, running or not) and worker: what it does now; from shared memory';

CREATE FUNCTION _wh.is_quiet(quiet_hours text, at timestamptz DEFAULT NULL) RETURNS boolean
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_is_quiet';
COMMENT ON FUNCTION _wh.is_quiet(text, timestamptz) IS
'Whether a time (NULL: now, by the clock of schedules) is within windows of the day as tenant_connections.quiet_hours has them, in the zone wh_worker.timezone; false for NULL. Errors: 22023 for text that is no such list';

-- A tenant whose row was written since it failed (another host, resume_tenant)
-- may be asked at once, and so may all when the clock was set back.
CREATE VIEW _wh.tenant_health AS
SELECT c.tenant_name,
	CASE WHEN f.retry_at IS NULL THEN 'closed' WHEN f.waits THEN 'open' ELSE 'half-open' END AS state,
	coalesce(f.consecutive_failures, 0) AS consecutive_failures,
	f.last_error, f.last_failure_at,
	CASE WHEN f.waits THEN f.retry_at END AS retry_at
FROM _wh.tenant_connections c
LEFT JOIN (
	SELECT t.*, t.retry_at > clock_timestamp() AND t.last_failure_at <= clock_timestamp()
			AND a.updated_at <= t.last_failure_at AS waits
	FROM _wh.tenant_failures t JOIN _wh.tenant_connections a USING (tenant_name)) f
	ON f.tenant_name = c.tenant_name
ORDER BY c.tenant_name;
COMMENT ON VIEW _wh.tenant_health IS
'A row per tenant: closed (all is well, or it failed once or twice), open (it keeps refusing connections and is not asked before retry_at) or half-open (one job may find out whether it can be reached again)';

-- The order of the cases is that in which the launcher looks.  Only a refresh
-- reads its tenant, and so waits for it. OFFSET 0: the health of a tenant is
-- looked up where it matters, so that the newest jobs are read by their index.
CREATE VIEW _wh.job_status AS
SELECT j.job_id, j.kind, j.template_name, j.tenant_name, j.target_schema, j.target_date, j.backfill_id,
	s.name AS schedule, j.reason,
	j.state, j.attempt, nullif(j.not_before, '-infinity') AS not_before,
	CASE WHEN j.state <> 'queued' THEN NULL
		WHEN NOT current_setting('wh_worker.enabled')::boolean THEN 'wh_worker.enabled is off'
		WHEN p.reason IS NOT NULL THEN p.reason
		WHEN b.paused AND j.kind = 'refresh' AND j.schedule_id IS NULL THEN 'the backfill is paused'
		WHEN NOT c.active THEN 'the tenant is paused'
		WHEN h.state = 'open' THEN 'the tenant is set aside'
		WHEN _wh.is_quiet(c.quiet_hours) THEN 'quiet hours of the tenant'
		WHEN j.not_before > clock_timestamp() THEN 'backoff after an error'
		WHEN h.state = 'half-open' AND r.running > 0 THEN 'another job finds out whether the tenant can be reached'
		WHEN r.running >= m.cap THEN 'the tenant has all the workers it may have'
		WHEN j.priority >= 40 AND r.backfills >= greatest(m.cap - 1, 1)
			THEN 'the tenant''s last worker is kept for what is no backfill'
		WHEN j.priority >= 40 AND w.backfills >= greatest(current_setting('wh_worker.max_workers')::integer - 1, 1)
			THEN 'the last worker is kept for what is no backfill'
		ELSE 'waits for a worker' END AS wait_reason,
	j.enqueued_at, j.started_at, j.finished_at, j.last_sqlstate, j.last_error
FROM _wh.jobs j
LEFT JOIN _wh.schedules s ON s.schedule_id = j.schedule_id
LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id
LEFT JOIN _wh.tenant_connections c ON j.kind = 'refresh' AND c.tenant_name = j.tenant_name
LEFT JOIN LATERAL (SELECT t.state FROM _wh.tenant_health t
		WHERE j.state = 'queued' AND t.tenant_name = c.tenant_name OFFSET 0) h ON true
LEFT JOIN (SELECT tenant_name, count(*) AS running, count(*) FILTER (WHERE priority >= 40) AS backfills
		FROM _wh.jobs WHERE state = 'running' AND kind = 'refresh' GROUP BY 1) r
	ON r.tenant_name = c.tenant_name
CROSS JOIN (SELECT count(*) FILTER (WHERE priority >= 40) AS backfills FROM _wh.jobs WHERE state = 'running') w
CROSS JOIN LATERAL (SELECT coalesce(c.max_connections, current_setting('wh_worker.max_workers_per_tenant')::integer) AS cap) m
CROSS JOIN (SELECT _wh.pause_reason() AS reason OFFSET 0) p
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
			coalesce(sum(q.rows), 0)::bigint AS rows,
			coalesce(sum(q.bytes), 0)::bigint AS bytes
		FROM _wh.jobs q
		WHERE q.backfill_id = b.backfill_id AND q.kind = 'refresh') j
) p
ORDER BY p.backfill_id;
COMMENT ON VIEW _wh.backfill_progress IS 'A row per backfill: days done, failed and running, the rows and bytes on disk that it loaded, a bar for \watch and an estimated end';

-- Kept with the counters, by src/totals.c: the ledger and the catalogs of a large
-- warehouse are too much to read whenever somebody looks.
CREATE VIEW _wh.storage_usage AS
SELECT s.tenant_name, s.template_name, s.target_schema,
	s.day_relations + s.month_relations + s.year_relations AS relations,
	s.day_rows + s.month_rows + s.year_rows AS rows,
	s.day_bytes + s.month_bytes + s.year_bytes AS bytes,
	s.day_relations, s.day_rows, s.day_bytes, s.day_tablespaces,
	s.month_relations, s.month_rows, s.month_bytes, s.month_tablespaces,
	s.year_relations, s.year_rows, s.year_bytes, s.year_tablespaces
FROM _wh.tenant_templates s
ORDER BY s.template_name, s.target_schema;
COMMENT ON VIEW _wh.storage_usage IS 'A row per subscription: relations, rows and bytes (with indexes and TOAST, as they were when loaded), all together and by day, month and year relations, with the tablespaces of these; as of the last publication';

-- Who reads a part of a partition tree locks the part, and its root to know the
-- part's bounds; the public view locks the root once, and of the tenant views
-- none if it reads the root itself. What a public view reads is asked of what
-- it may depend on: its own dependencies are one for each column of each tenant.
CREATE VIEW _wh.union_health AS
WITH public_view AS (
	SELECT t.template_name, t.view_oid, d.refuses, m.members,
		1 + m.locks - CASE WHEN d.reads_tree THEN m.members + m.parts - 1 ELSE greatest(m.parts - 1, 0) END AS locks,
		1 + m.locks_unfiltered
			- CASE WHEN d.reads_tree THEN m.members + m.parts - 1 ELSE greatest(m.parts - 1, 0) END AS locks_unfiltered
	FROM _wh.mv_templates t
	JOIN pg_rewrite r ON r.ev_class = t.view_oid AND r.rulename = '_RETURN'
	CROSS JOIN LATERAL (
		SELECT EXISTS (SELECT FROM pg_depend p WHERE p.classid = 'pg_rewrite'::regclass AND p.objid = r.oid
				AND p.refclassid = 'pg_proc'::regclass
				AND p.refobjid = '_wh.refuse_to_read(text)'::regprocedure) AS refuses,
			EXISTS (SELECT FROM pg_depend p WHERE p.classid = 'pg_rewrite'::regclass AND p.objid = r.oid
				AND p.refclassid = 'pg_class'::regclass AND p.refobjid = t.tree_oid) AS reads_tree) d
	LEFT JOIN (
		SELECT s.template_name, count(*) AS members, count(*) FILTER (WHERE s.reads_part) AS parts, sum(s.locks) AS locks,
			sum(s.locks_unfiltered) AS locks_unfiltered
		FROM _wh.tenant_templates s WHERE s.view_oid IS NOT NULL GROUP BY 1) g USING (template_name)
	CROSS JOIN LATERAL (SELECT coalesce(g.members, 0) AS members, coalesce(g.parts, 0) AS parts, coalesce(g.locks, 0) AS locks,
		coalesce(g.locks_unfiltered, 0) AS locks_unfiltered) m
), every_view AS (
	SELECT template_name, target_schema, tenant_name, view_oid, members, locks, locks_unfiltered, refused_days, false AS refuses
	FROM _wh.tenant_templates WHERE view_oid IS NOT NULL
	UNION ALL
	SELECT template_name, 'public', NULL, view_oid, members, locks, locks_unfiltered, 0, refuses
	FROM public_view
)
SELECT v.template_name, v.target_schema, v.tenant_name, v.members,
	v.locks::bigint AS locks_per_query, v.locks_unfiltered::bigint AS locks_unfiltered,
	b.lock_budget, b.lock_budget / greatest(v.locks::bigint, 1) AS readers_at_once,
	NOT v.refuses AS readable, v.refused_days,
	octet_length(r.ev_action::text) AS definition_bytes,
	_wh.lock_advice(v.locks::bigint, v.refused_days, v.refuses) AS advice
FROM every_view v
CROSS JOIN (SELECT _wh.lock_budget() AS lock_budget) b
LEFT JOIN pg_rewrite r ON r.ev_class = v.view_oid AND r.rulename = '_RETURN'
ORDER BY v.template_name, v.target_schema = 'public', v.target_schema;
COMMENT ON VIEW _wh.union_health IS 'A row per tenant view and public view (target_schema public): the relations or tenant views it reads, the locks that a query takes (of partitions: one for the last 30 days), the locks that the server has, how many such queries fit at once, and what to do, NULL when all is well; counted at the last publication of each tenant view';
