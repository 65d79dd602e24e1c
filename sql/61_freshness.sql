-- Freshness: the moment up to which all data of a subscription is there, why it
-- is not a later one, and when the next load is expected to move it on.
--
-- What has to be known of history is kept on the subscription (src/freshness.c),
-- so that nothing here reads the ledger but for days that failed or are suspect;
-- the rest is the queue, the schedules and the tenants as they are now
-- (src/forecast.c).

CREATE FUNCTION _wh.quiet_until(quiet_hours text, at timestamptz) RETURNS timestamptz
LANGUAGE c STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_quiet_until';
COMMENT ON FUNCTION _wh.quiet_until(text, timestamptz) IS
'The first moment from the given one on that is outside of windows of the day as tenant_connections.quiet_hours has them, in the zone wh_worker.timezone; infinity if they leave none; NULL for NULL. Errors: 22023 for text that is no such list';

-- C, because the queue is placed job by job. Nobody tells the planner how many rows
-- its statements give: hashing all of them is right with ten and with ten thousand.
CREATE FUNCTION _wh.expected_loads(OUT tenant_name text, OUT template_name text, OUT target_schema text,
	OUT fresh_within interval, OUT fresh_after text, OUT next_run timestamptz, OUT missing_days bigint,
	OUT suspect_days bigint, OUT failed_days bigint, OUT complete_until timestamptz, OUT lag interval,
	OUT lag_schedule interval, OUT lag_queue interval, OUT lag_tenant interval, OUT lag_run interval,
	OUT due_at timestamptz, OUT predicted_at timestamptz, OUT freshness text)
RETURNS SETOF record LANGUAGE c STABLE SECURITY DEFINER ROWS 10000
SET search_path = pg_catalog, pg_temp SET jit = off SET work_mem = '32MB'
SET enable_nestloop = off SET enable_mergejoin = off
AS 'MODULE_PATHNAME', 'wh_sql_expected_loads';
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
