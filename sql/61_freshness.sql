-- Freshness: the moment up to which all data of a subscription is there, why it
-- is not a later one, and when the next load is expected to move it on.
--
-- What has to be known of history is kept on the subscription (src/freshness.c),
-- so that nothing here reads the ledger but for days that failed or are suspect;
-- the rest is the queue, the schedules and the tenants as they are now.

CREATE FUNCTION _wh.next_run_after(schedule text, name text, timezone text, moment timestamptz) RETURNS timestamptz
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_next_run_after';
COMMENT ON FUNCTION _wh.next_run_after(text, text, text, timestamptz) IS
'The first run after a moment of a schedule with that text, name (what H is spread by) and time zone (NULL: wh_worker.timezone), infinity if there is none; NULL if text or zone cannot be understood, or text, name or moment is NULL';

CREATE FUNCTION _wh.quiet_until(quiet_hours text, at timestamptz) RETURNS timestamptz
LANGUAGE c STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_quiet_until';
COMMENT ON FUNCTION _wh.quiet_until(text, timestamptz) IS
'The first moment from the given one on that is outside of windows of the day as tenant_connections.quiet_hours has them, in the zone wh_worker.timezone; infinity if they leave none; NULL for NULL. Errors: 22023 for text that is no such list';

-- Moments of the server's clock (jobs, failures) are shown on the clock of
-- schedules, which only tests set to another time. A function, because to compile
-- this takes longer than to run it, and because nobody tells the planner how many
-- rows a step gives: hashing all of them is right with ten and with ten thousand.
CREATE FUNCTION _wh.expected_loads(OUT tenant_name text, OUT template_name text, OUT target_schema text,
	OUT fresh_within interval, OUT fresh_after text, OUT next_run timestamptz, OUT missing_days bigint,
	OUT suspect_days bigint, OUT failed_days bigint, OUT complete_until timestamptz, OUT lag interval,
	OUT lag_schedule interval, OUT lag_queue interval, OUT lag_tenant interval, OUT lag_run interval,
	OUT due_at timestamptz, OUT predicted_at timestamptz, OUT freshness text)
RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER ROWS 10000
SET search_path = pg_catalog, pg_temp SET jit = off SET work_mem = '32MB'
SET enable_nestloop = off SET enable_mergejoin = off
AS $$
WITH clock AS MATERIALIZED (
	-- UTC as an interval: to look a zone up by its name for each row takes longer
	-- than all else.
	SELECT t.moment, t.moment + t.ahead AS now, t.ahead, interval '0' AS utc, ((t.moment + t.ahead) AT TIME ZONE 'UTC')::date AS today,
		current_setting('wh_worker.max_workers')::integer AS workers,
		current_setting('wh_worker.max_workers_per_tenant')::integer AS workers_per_tenant,
		current_setting('wh_worker.catchup_days')::integer AS catchup_days,
		current_setting('wh_worker.enabled')::boolean AND _wh.pause_reason() IS NULL AS goes_on
	FROM (SELECT statement_timestamp() AS moment,
		current_setting('wh_worker.debug_clock_offset')::interval AS ahead) t
), tenant AS MATERIALIZED (
	-- Since when it keeps its loads from starting, and when that is expected to
	-- end: one that is out of reach stays so for as long again as it has been.
	SELECT t.tenant_name, row_number() OVER () AS tenant_number, t.quiet_hours,
		greatest(least(coalesce(t.max_connections, k.workers_per_tenant), k.workers), 1) AS cap,
		CASE WHEN NOT t.active THEN t.updated_at + k.ahead
			WHEN f.tenant_name IS NOT NULL THEN f.first_failure_at + k.ahead
			WHEN _wh.quiet_until(t.quiet_hours, k.now) > k.now THEN '-infinity' END AS away_since,
		CASE WHEN NOT t.active THEN 'infinity'
			WHEN f.tenant_name IS NOT NULL
				THEN greatest(f.retry_at, k.moment + greatest(k.moment - f.first_failure_at, interval '0')) + k.ahead
			ELSE coalesce(_wh.quiet_until(t.quiet_hours, k.now), k.now) END AS back_at
	FROM clock k CROSS JOIN _wh.tenant_connections t
	LEFT JOIN _wh.tenant_failures f ON f.tenant_name = t.tenant_name AND f.retry_at IS NOT NULL
		AND t.updated_at <= f.last_failure_at AND f.last_failure_at <= k.moment
), usual AS MATERIALIZED (
	SELECT s.template_name, avg(s.run_seconds) AS run_seconds, avg(s.queue_seconds) AS queue_seconds
	FROM _wh.tenant_templates s GROUP BY s.template_name
), overall AS MATERIALIZED (
	SELECT coalesce(avg(s.run_seconds), 0) AS run_seconds, coalesce(avg(s.queue_seconds), 0) AS queue_seconds
	FROM _wh.tenant_templates s
), unit AS MATERIALIZED (
	-- "day" is the first that is not complete. A load counts if it begins at
	-- "counts_from" or later. What no load has told is as elsewhere.
	SELECT s.tenant_name, s.template_name, s.target_schema, row_number() OVER () AS unit_number, t.tenant_number,
		s.active, s.data_through, s.failing_since + k.ahead AS failing_since,
		greatest(k.today - s.start_date + 1 - s.days_since_start, 0) AS missing_days,
		c.complete_until, d.day, coalesce(d.day >= s.data_through, true) AS has_no_hole, m.fresh_within, m.fresh_after,
		CASE m.fresh_after WHEN 'day' THEN (d.day + 1)::timestamp AT TIME ZONE k.utc ELSE c.complete_until END AS counts_from,
		coalesce(s.run_seconds, u.run_seconds, a.run_seconds) AS run_seconds,
		coalesce(s.queue_seconds, u.queue_seconds, a.queue_seconds) AS queue_seconds
	FROM clock k
	CROSS JOIN _wh.tenant_templates s
	LEFT JOIN tenant t ON t.tenant_name = s.tenant_name
	LEFT JOIN _wh.mv_templates m ON m.template_name = s.template_name
	LEFT JOIN usual u ON u.template_name = s.template_name
	CROSS JOIN overall a
	CROSS JOIN LATERAL (SELECT greatest(s.complete_until, s.start_date::timestamp AT TIME ZONE k.utc) AS complete_until) c
	CROSS JOIN LATERAL (SELECT (c.complete_until AT TIME ZONE k.utc)::date AS day) d
), job AS (
	SELECT j.job_id, j.kind = 'refresh' AS is_load, false AS is_running, j.template_name, j.tenant_name, j.target_schema, j.target_date,
		j.backfill_id, j.schedule_id, j.priority, j.sequence_number, j.not_before, j.enqueued_at, j.first_started_at, j.started_at
	FROM _wh.jobs j WHERE j.state = 'queued'
	UNION ALL
	SELECT j.job_id, j.kind = 'refresh', true, j.template_name, j.tenant_name, j.target_schema, j.target_date,
		j.backfill_id, j.schedule_id, j.priority, j.sequence_number, j.not_before, j.enqueued_at, j.first_started_at, j.started_at
	FROM _wh.jobs j WHERE j.state = 'running'
), pending AS MATERIALIZED (
	-- It counts for what comes after it if it could start now.  What has run
	-- longer than usual is expected to run on for as long as it is late.  Moments
	-- are of the server's clock here.
	SELECT j.job_id, j.is_running, j.priority >= 40 AS is_backfill, j.priority, j.sequence_number,
		coalesce(t.tenant_number, 0) AS tenant_number, coalesce(t.cap, k.workers) AS cap, u.unit_number, u.day = j.target_date AS is_first,
		j.is_load AND (j.target_date = u.day OR j.target_date > u.day AND u.has_no_hole) AS is_next,
		j.enqueued_at, j.first_started_at, j.started_at, x.may_start_at,
		NOT j.is_running AND x.may_start_at <= k.moment AS counts, coalesce(u.run_seconds, a.run_seconds) AS run_seconds,
		CASE WHEN j.is_running THEN abs(coalesce(u.run_seconds, a.run_seconds)
			- extract(epoch FROM k.moment - j.started_at)) END AS seconds_left
	FROM clock k
	CROSS JOIN job j
	LEFT JOIN unit u ON u.template_name = j.template_name AND u.target_schema = j.target_schema
	CROSS JOIN overall a
	LEFT JOIN tenant t ON t.tenant_number = u.tenant_number AND j.is_load
	LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id AND b.paused AND j.is_load AND j.schedule_id IS NULL
	CROSS JOIN LATERAL (SELECT CASE WHEN b.paused THEN 'infinity'
		ELSE greatest(j.not_before, t.back_at - k.ahead, k.moment) END AS may_start_at) x
), placed AS MATERIALIZED (
	-- The place of a job in the order in which jobs are handed out: by class, in
	-- it tenants take turns; who is first in a turn is not known.
	SELECT p.*, row_number() OVER (PARTITION BY p.is_backfill, p.tenant_number, p.priority
			ORDER BY p.sequence_number, p.job_id) AS turn,
		count(*) FILTER (WHERE p.counts) OVER tenant AS tenant_place,
		coalesce(sum(p.run_seconds) FILTER (WHERE p.counts) OVER tenant, 0) AS tenant_seconds
	FROM pending p
	WINDOW tenant AS (PARTITION BY p.is_backfill, p.tenant_number
		ORDER BY p.priority, p.sequence_number, p.job_id ROWS UNBOUNDED PRECEDING)
), turn AS (
	SELECT t.is_backfill, t.priority, t.turn,
		sum(t.jobs) OVER class - t.jobs / 2 AS place, sum(t.seconds) OVER class - (t.seconds + t.seconds / t.jobs) / 2 AS seconds_before
	FROM (SELECT p.is_backfill, p.priority, p.turn, count(*) AS jobs, sum(p.run_seconds) AS seconds
		FROM placed p WHERE p.counts GROUP BY 1, 2, 3) t
	WINDOW class AS (PARTITION BY t.is_backfill ORDER BY t.priority, t.turn)
), busy AS (
	-- Backfills leave a worker to others, and always keep one.
	SELECT c.is_backfill, CASE WHEN c.is_backfill THEN c.backfills ELSE c.others END AS jobs,
		CASE WHEN c.is_backfill THEN c.backfills_left ELSE c.others_left END AS seconds_left,
		greatest(k.workers - CASE WHEN c.is_backfill AND c.all_others > k.workers THEN k.workers - 1
			WHEN c.is_backfill OR c.all_backfills > 0 THEN 1 ELSE 0 END, 1) AS workers
	FROM clock k CROSS JOIN (
		SELECT b.is_backfill, p.*
		FROM (VALUES (false), (true)) b (is_backfill) CROSS JOIN (
			SELECT count(*) FILTER (WHERE p.is_running AND p.is_backfill) AS backfills,
				count(*) FILTER (WHERE p.is_running AND NOT p.is_backfill) AS others,
				coalesce(sum(p.seconds_left) FILTER (WHERE p.is_backfill), 0) AS backfills_left,
				coalesce(sum(p.seconds_left) FILTER (WHERE NOT p.is_backfill), 0) AS others_left,
				count(*) FILTER (WHERE (p.counts OR p.is_running) AND p.is_backfill) AS all_backfills,
				count(*) FILTER (WHERE (p.counts OR p.is_running) AND NOT p.is_backfill) AS all_others
			FROM pending p) p) c
), busy_tenant AS (
	SELECT p.tenant_number, p.is_backfill, count(*) AS jobs, sum(p.seconds_left) AS seconds_left
	FROM pending p WHERE p.is_running GROUP BY 1, 2
), next_job AS (
	-- Of the pending loads that would move "complete_until" on, the first.
	SELECT DISTINCT ON (p.unit_number) p.unit_number, p.is_running, p.is_backfill, p.enqueued_at + k.ahead AS enqueued_at,
		p.first_started_at + k.ahead AS first_started_at, p.started_at + k.ahead AS started_at,
		CASE WHEN p.is_running THEN p.started_at ELSE p.may_start_at END + k.ahead AS begins_at,
		CASE WHEN p.is_running THEN k.now + p.seconds_left * interval '1 s'
			ELSE p.may_start_at + k.ahead + (p.run_seconds + greatest(
				CASE WHEN b.jobs + coalesce(n.place, 0) <= b.workers THEN 0
					ELSE (b.seconds_left + coalesce(n.seconds_before, 0)) / b.workers END,
				CASE WHEN coalesce(t.jobs, 0) + p.tenant_place <= p.cap THEN 0
					ELSE (coalesce(t.seconds_left, 0) + p.tenant_seconds - CASE WHEN p.counts THEN p.run_seconds ELSE 0 END) / p.cap END))
				* interval '1 s' END AS done_at
	FROM clock k
	CROSS JOIN placed p
	JOIN busy b ON b.is_backfill = p.is_backfill
	LEFT JOIN turn n ON n.is_backfill = p.is_backfill AND n.priority = p.priority AND n.turn = p.turn
	LEFT JOIN busy_tenant t ON t.tenant_number = p.tenant_number AND t.is_backfill = p.is_backfill
	WHERE p.is_next
	ORDER BY p.unit_number, p.is_first DESC, p.is_running DESC, p.priority, p.sequence_number, p.job_id
), next_run AS (
	SELECT u.unit_number, min(c.next_run) AS next_run,
		min(CASE WHEN c.next_run >= u.counts_from THEN c.next_run
			ELSE _wh.next_run_after(c.schedule, c.name, c.timezone, u.counts_from - interval '1 s') END) AS counting_run
	FROM _wh.schedules c
	JOIN unit u ON u.template_name = c.template_name AND u.target_schema = c.target_schema AND u.tenant_name = c.tenant_name
	WHERE c.kind = 'refresh' AND c.active
	GROUP BY u.unit_number
), suspect AS (
	SELECT d.template_name, d.target_schema, count(*) AS days
	FROM _wh.day_loads d WHERE d.state = 'suspect' GROUP BY 1, 2
), failed AS (
	SELECT d.template_name, d.target_schema, count(*) AS days
	FROM _wh.day_loads d WHERE d.failed_at IS NOT NULL GROUP BY 1, 2
), forecast AS (
	-- Of a schedule that is late the launcher has had no time for as long again.
	-- It loads what is newer than all there is, heals what its days reach, and
	-- moves up what waits in a backfill.
	SELECT u.*, k.now, r.next_run, j.is_running, t.away_since, j.enqueued_at, j.first_started_at, j.started_at,
		coalesce(s.days, 0) AS suspect_days, coalesce(f.days, 0) AS failed_days, u.counts_from + u.fresh_within AS due_at,
		CASE WHEN j.is_running AND j.begins_at >= u.counts_from THEN j.done_at
			WHEN NOT k.goes_on OR u.failing_since IS NOT NULL THEN 'infinity'
			ELSE least(
				CASE WHEN NOT j.is_running AND j.begins_at >= u.counts_from THEN j.done_at ELSE 'infinity' END,
				CASE WHEN NOT j.is_backfill AND j.begins_at >= u.counts_from THEN 'infinity'
					WHEN u.has_no_hole OR u.day >= k.today - greatest(k.catchup_days, 1)
					THEN coalesce(_wh.quiet_until(t.quiet_hours, x.run_at), x.run_at)
						+ (u.queue_seconds + u.run_seconds) * interval '1 s'
					ELSE 'infinity' END) END AS predicted_at
	FROM clock k
	CROSS JOIN unit u
	LEFT JOIN tenant t ON t.tenant_number = u.tenant_number
	LEFT JOIN next_job j ON j.unit_number = u.unit_number
	LEFT JOIN next_run r ON r.unit_number = u.unit_number
	LEFT JOIN suspect s ON s.template_name = u.template_name AND s.target_schema = u.target_schema
	LEFT JOIN failed f ON f.template_name = u.template_name AND f.target_schema = u.target_schema
	CROSS JOIN LATERAL (SELECT greatest(coalesce(CASE WHEN r.counting_run < k.now THEN k.now + coalesce(k.now - nullif(r.counting_run, '-infinity'), interval '0')
		ELSE r.counting_run END, 'infinity'), CASE WHEN t.away_since IS NOT NULL THEN t.back_at END) AS run_at) x
), step AS (
	-- Four moments, each not before the one before it: there is nothing newer
	-- than the first; it was queued; it was started, or its tenant kept it from
	-- being; it is running.
	SELECT f.*, a.since, b.queued, c.tried, d.running
	FROM forecast f
	CROSS JOIN LATERAL (SELECT least(f.complete_until, f.now) AS since) a
	CROSS JOIN LATERAL (SELECT greatest(a.since, least(f.now, CASE
		WHEN f.is_running IS NOT NULL THEN least(f.enqueued_at, f.failing_since)
		ELSE coalesce(f.failing_since, CASE WHEN f.away_since > '-infinity' THEN f.away_since END) END)) AS queued) b
	CROSS JOIN LATERAL (SELECT greatest(b.queued, least(f.now,
		least(f.failing_since, f.first_started_at, CASE WHEN f.is_running IS NOT TRUE THEN f.away_since END))) AS tried) c
	CROSS JOIN LATERAL (SELECT CASE WHEN f.is_running THEN greatest(c.tried, least(f.now, f.started_at))
		ELSE f.now END AS running) d
)
SELECT s.tenant_name, s.template_name, s.target_schema, s.fresh_within, s.fresh_after, s.next_run, s.missing_days,
	s.suspect_days, s.failed_days, s.complete_until,
	CASE WHEN s.active THEN s.now - s.since END, CASE WHEN s.active THEN s.queued - s.since END,
	CASE WHEN s.active THEN s.tried - s.queued END, CASE WHEN s.active THEN s.running - s.tried END,
	CASE WHEN s.active THEN s.now - s.running END,
	CASE WHEN s.active THEN s.due_at END, CASE WHEN s.active THEN s.predicted_at END,
	CASE WHEN NOT s.active OR s.due_at IS NULL THEN NULL
		WHEN s.due_at <= s.now THEN 'stale'
		WHEN s.predicted_at > s.due_at THEN 'at_risk'
		ELSE 'fresh' END
FROM step s
$$;
COMMENT ON FUNCTION _wh.expected_loads() IS
'A row per subscription: what data_freshness says beyond its counters. Read that view instead, which has the columns'' meanings; next_run, lag and the like are as of the start of the statement';

CREATE VIEW _wh.data_freshness AS
SELECT s.tenant_name, s.template_name, s.target_schema, s.active, s.data_through, s.last_success,
	e.missing_days,
	round((extract(epoch FROM now() - s.last_success) / 3600)::numeric, 1) AS hours_old,
	e.next_run, s.days, s.rows, s.bytes, s.outdated_days, e.suspect_days, e.failed_days,
	e.fresh_within, e.fresh_after, e.complete_until,
	e.lag, e.lag_schedule, e.lag_queue, e.lag_tenant, e.lag_run,
	e.due_at, e.predicted_at, e.freshness
FROM _wh.tenant_templates s
JOIN _wh.expected_loads() e ON e.template_name = s.template_name AND e.target_schema = s.target_schema
ORDER BY s.template_name, s.target_schema;
COMMENT ON VIEW _wh.data_freshness IS 'A row per subscription: how far its data goes, what keeps it from going further, and whether the promise of its template (fresh_within) is kept, is going to be broken, or is broken';
COMMENT ON COLUMN _wh.data_freshness.tenant_name IS 'The tenant';
COMMENT ON COLUMN _wh.data_freshness.template_name IS 'The template';
COMMENT ON COLUMN _wh.data_freshness.target_schema IS 'The schema of its days and its tenant view';
COMMENT ON COLUMN _wh.data_freshness.active IS 'Whether it is loaded; of an inactive one nothing is promised or expected, and the lags are NULL';
COMMENT ON COLUMN _wh.data_freshness.data_through IS 'Newest day published (UTC)';
COMMENT ON COLUMN _wh.data_freshness.last_success IS 'When any of its days was last loaded, or seen to be unchanged';
COMMENT ON COLUMN _wh.data_freshness.missing_days IS 'Days that are not published, from start_date up to today (UTC)';
COMMENT ON COLUMN _wh.data_freshness.hours_old IS 'Hours since last_success, to a tenth';
COMMENT ON COLUMN _wh.data_freshness.next_run IS 'When its schedule comes due next; in the past: as soon as it can; infinity: never; NULL: it has none that is active';
COMMENT ON COLUMN _wh.data_freshness.days IS 'Days published';
COMMENT ON COLUMN _wh.data_freshness.rows IS 'Rows of these days';
COMMENT ON COLUMN _wh.data_freshness.bytes IS 'Bytes of their relations, with indexes and TOAST';
COMMENT ON COLUMN _wh.data_freshness.outdated_days IS 'Days that an older version of the template loaded';
COMMENT ON COLUMN _wh.data_freshness.suspect_days IS 'Days whose count of rows is far from that of the days before, see suspect_factor';
COMMENT ON COLUMN _wh.data_freshness.failed_days IS 'Days whose last load failed for good, whether they have older content or none';
COMMENT ON COLUMN _wh.data_freshness.fresh_within IS 'The promise of its template; NULL: none';
COMMENT ON COLUMN _wh.data_freshness.fresh_after IS 'What the promise counts from: load or day, as in mv_templates';
COMMENT ON COLUMN _wh.data_freshness.complete_until IS 'The moment up to which all data is there and in the views: the start of the load of the first day that is not complete, or the start of that day (UTC) if it has no content. Holes are looked for among the newest day published and the wh_worker.catchup_days before it; older ones only count as missing_days';
COMMENT ON COLUMN _wh.data_freshness.lag IS 'How long ago complete_until is; the sum of the next four';
COMMENT ON COLUMN _wh.data_freshness.lag_schedule IS 'The part of it in which no load was queued: it waited for its schedule';
COMMENT ON COLUMN _wh.data_freshness.lag_queue IS 'The part in which the load that comes next waited for a worker';
COMMENT ON COLUMN _wh.data_freshness.lag_tenant IS 'The part for which the tenant, or what it answered, is the reason: since the first attempt that did not succeed (retries wait, or it failed for good), or while the tenant is out of reach, paused or in its quiet hours';
COMMENT ON COLUMN _wh.data_freshness.lag_run IS 'The part since which the load runs, in its present attempt';
COMMENT ON COLUMN _wh.data_freshness.due_at IS 'When the promise is broken if nothing is loaded until then; NULL: none is made';
COMMENT ON COLUMN _wh.data_freshness.predicted_at IS 'When the next load that counts for the promise is expected to be published: by the queue before it, or else its schedule, and how long its loads have taken; infinity: nothing that runs by itself is expected to, because something is paused or switched off, there is no schedule, or the last load failed for good';
COMMENT ON COLUMN _wh.data_freshness.freshness IS 'fresh; at_risk: due_at is still to come, and predicted_at is later; stale: due_at is past; NULL: no promise';
