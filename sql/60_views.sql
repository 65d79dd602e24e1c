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
	CASE WHEN s.pid IS NOT NULL AND s.job_id IS NOT NULL
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
-- reads its tenant, and so waits for it.
CREATE VIEW _wh.job_status AS
SELECT j.job_id, j.kind, j.template_name, j.tenant_name, j.target_schema, j.target_date, j.backfill_id,
	s.name AS schedule, j.reason,
	j.state, j.attempt, nullif(j.not_before, '-infinity') AS not_before,
	CASE WHEN j.state <> 'queued' THEN NULL
		WHEN NOT current_setting('wh_worker.enabled')::boolean THEN 'wh_worker.enabled is off'
		WHEN (SELECT paused FROM _wh.warehouse) THEN 'the warehouse is paused'
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
LEFT JOIN _wh.tenant_health h ON h.tenant_name = c.tenant_name
LEFT JOIN (SELECT tenant_name, count(*) AS running, count(*) FILTER (WHERE priority >= 40) AS backfills
		FROM _wh.jobs WHERE state = 'running' AND kind = 'refresh' GROUP BY 1) r
	ON r.tenant_name = c.tenant_name
CROSS JOIN (SELECT count(*) FILTER (WHERE priority >= 40) AS backfills FROM _wh.jobs WHERE state = 'running') w
CROSS JOIN LATERAL (SELECT coalesce(c.max_connections, current_setting('wh_worker.max_workers_per_tenant')::integer) AS cap) m
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

-- The bytes are the ledger's, as of the load: asking the relations themselves
-- would lock each of them, and a hundred thousand are too many to open.
CREATE VIEW _wh.storage_usage AS
SELECT s.tenant_name, s.template_name, s.target_schema,
	coalesce(u.relations, 0) AS relations, coalesce(u.rows, 0) AS rows, coalesce(u.bytes, 0) AS bytes,
	coalesce(u.day_relations, 0) AS day_relations, coalesce(u.day_rows, 0) AS day_rows,
	coalesce(u.day_bytes, 0) AS day_bytes, coalesce(u.day_tablespaces, '{}') AS day_tablespaces,
	coalesce(u.month_relations, 0) AS month_relations, coalesce(u.month_rows, 0) AS month_rows,
	coalesce(u.month_bytes, 0) AS month_bytes, coalesce(u.month_tablespaces, '{}') AS month_tablespaces,
	coalesce(u.year_relations, 0) AS year_relations, coalesce(u.year_rows, 0) AS year_rows,
	coalesce(u.year_bytes, 0) AS year_bytes, coalesce(u.year_tablespaces, '{}') AS year_tablespaces
FROM _wh.tenant_templates s
LEFT JOIN (
	SELECT r.template_name, r.target_schema,
		sum(r.relations)::bigint AS relations, sum(r.rows)::bigint AS rows, sum(r.bytes)::bigint AS bytes,
		(sum(r.relations) FILTER (WHERE r.tier = 'day'))::bigint AS day_relations,
		(sum(r.rows) FILTER (WHERE r.tier = 'day'))::bigint AS day_rows,
		(sum(r.bytes) FILTER (WHERE r.tier = 'day'))::bigint AS day_bytes,
		array_agg(r.tablespace ORDER BY r.tablespace) FILTER (WHERE r.tier = 'day') AS day_tablespaces,
		(sum(r.relations) FILTER (WHERE r.tier = 'month'))::bigint AS month_relations,
		(sum(r.rows) FILTER (WHERE r.tier = 'month'))::bigint AS month_rows,
		(sum(r.bytes) FILTER (WHERE r.tier = 'month'))::bigint AS month_bytes,
		array_agg(r.tablespace ORDER BY r.tablespace) FILTER (WHERE r.tier = 'month') AS month_tablespaces,
		(sum(r.relations) FILTER (WHERE r.tier = 'year'))::bigint AS year_relations,
		(sum(r.rows) FILTER (WHERE r.tier = 'year'))::bigint AS year_rows,
		(sum(r.bytes) FILTER (WHERE r.tier = 'year'))::bigint AS year_bytes,
		array_agg(r.tablespace ORDER BY r.tablespace) FILTER (WHERE r.tier = 'year') AS year_tablespaces
	FROM (
		SELECT d.template_name, d.target_schema, d.tier, t.spcname::text AS tablespace,
			count(*) AS relations, sum(d.rows) AS rows, sum(d.bytes) AS bytes
		FROM (
			SELECT template_name, target_schema, relation, relation_oid,
				_wh.relation_tier(template_name, relation, min(target_date)) AS tier,
				sum(rows) AS rows, sum(bytes) AS bytes
			FROM _wh.day_loads WHERE relation_oid IS NOT NULL GROUP BY 1, 2, 3, 4) d
		JOIN pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation
		JOIN pg_tablespace t ON t.oid = CASE c.reltablespace
			WHEN 0 THEN (SELECT b.dattablespace FROM pg_database b WHERE b.datname = current_database())
			ELSE c.reltablespace END
		GROUP BY 1, 2, 3, 4) r
	GROUP BY 1, 2) u ON u.template_name = s.template_name AND u.target_schema = s.target_schema
ORDER BY s.template_name, s.target_schema;
COMMENT ON VIEW _wh.storage_usage IS 'A row per subscription: relations, rows and bytes (with indexes and TOAST, as they were when loaded), all together and by day, month and year relations, with the tablespaces of these';

-- Who reads a part of a partition tree locks the part, and its root to know the
-- part's bounds; the public view locks the root once, and of the tenant views
-- none if it reads the root itself.
CREATE VIEW _wh.union_health AS
WITH tenant_view AS (
	SELECT s.template_name, s.target_schema, s.tenant_name, s.view_oid, s.refused_days,
		coalesce(c.members, 0) AS members, s.part_oid,
		coalesce(c.locks, 0) + 1 + CASE WHEN s.part_oid IS NOT NULL THEN 2 ELSE 0 END AS locks,
		coalesce(c.locks_unfiltered, 0) + 1 + CASE WHEN s.part_oid IS NOT NULL THEN 2 ELSE 0 END AS locks_unfiltered
	FROM _wh.tenant_templates s
	LEFT JOIN _wh.count_locks() c USING (template_name, target_schema)
	WHERE s.view_oid IS NOT NULL
), public_rule AS MATERIALIZED (
	SELECT t.template_name, t.view_oid,
		coalesce(bool_or(d.refclassid = 'pg_proc'::regclass
			AND d.refobjid = '_wh.refuse_to_read(text)'::regprocedure), false) AS refuses,
		coalesce(bool_or(c.relkind = 'p'), false) AS reads_tree
	FROM _wh.mv_templates t
	JOIN pg_rewrite r ON r.ev_class = t.view_oid
	JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
	LEFT JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
	GROUP BY t.template_name, t.view_oid
), public_view AS (
	SELECT p.template_name, p.view_oid, p.refuses, m.members,
		1 + m.locks - CASE WHEN p.reads_tree THEN m.members + m.parts - 1 ELSE greatest(m.parts - 1, 0) END AS locks,
		1 + m.locks_unfiltered
			- CASE WHEN p.reads_tree THEN m.members + m.parts - 1 ELSE greatest(m.parts - 1, 0) END AS locks_unfiltered
	FROM public_rule p
	CROSS JOIN LATERAL (
		SELECT count(*) AS members, count(v.part_oid) AS parts, coalesce(sum(v.locks), 0) AS locks,
			coalesce(sum(v.locks_unfiltered), 0) AS locks_unfiltered
		FROM tenant_view v WHERE v.template_name = p.template_name) m
), every_view AS (
	SELECT template_name, target_schema, tenant_name, view_oid, members, locks, locks_unfiltered, refused_days, false AS refuses
	FROM tenant_view
	UNION ALL
	SELECT template_name, 'public', NULL, view_oid, members, locks, locks_unfiltered, 0, refuses
	FROM public_view
)
SELECT v.template_name, v.target_schema, v.tenant_name, v.members,
	v.locks::bigint AS locks_per_query, v.locks_unfiltered::bigint AS locks_unfiltered,
	b.lock_budget, b.lock_budget / v.locks::bigint AS readers_at_once,
	NOT v.refuses AS readable, v.refused_days,
	(SELECT octet_length(r.ev_action::text) FROM pg_rewrite r
		WHERE r.ev_class = v.view_oid AND r.rulename = '_RETURN') AS definition_bytes,
	_wh.lock_advice(v.locks::bigint, v.refused_days, v.refuses) AS advice
FROM every_view v
CROSS JOIN (SELECT _wh.lock_budget() AS lock_budget) b
ORDER BY v.template_name, v.target_schema = 'public', v.target_schema;
COMMENT ON VIEW _wh.union_health IS 'A row per tenant view and public view (target_schema public): the relations or tenant views it reads, the locks that a query takes (of partitions: one for the last 30 days), the locks that the server has, how many such queries fit at once, and what to do, NULL when all is well';
