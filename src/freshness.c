/*
 * freshness.c: what a subscription remembers of its loads: the moment up to
 * which all data is there, how long loads wait and run, since when they fail.
 *
 * The view data_freshness tells from it when the next load will be there,
 * without a look at the ledger or the history, whose sizes have no limit.
 *
 * Called by publish.c when the counters are kept, by a worker before the commit
 * of a load, and by ledger.c after a failure.  May write nothing but the row of
 * the subscription.
 *
 * Locks: that row, which whoever keeps the counters has by then; after a
 * failure of a job only if nobody has it.
 */
#include "postgres.h"

#include "freshness.h"
#include "guc.h"
#include "sqlutil.h"

/*
 * $1 template, $2 schema, $3 wh_worker.catchup_days, of "s", the row of the
 * subscription.  A day is complete if the tenant's snapshot was taken after it
 * had ended, or nobody knows when.  How far back holes are looked for depends on
 * the newest day, not on today, so that the ledger alone decides.
 */
#define COMPLETE_UNTIL \
"(SELECT coalesce(" \
"   (SELECT CASE WHEN d.in_views THEN greatest(d.fetch_started_at, d.checked_at, x.begins) ELSE x.begins END" \
"      FROM generate_series(greatest(t.start_date - n.newest, -$3), 0) AS i" \
"     CROSS JOIN LATERAL (SELECT n.newest + i AS day, (n.newest + i)::timestamp AT TIME ZONE 'UTC' AS begins," \
"         (n.newest + i + 1)::timestamp AT TIME ZONE 'UTC' AS ends) x" \
"      LEFT JOIN _wh.day_loads d ON d.template_name = $1 AND d.target_schema = $2 AND d.target_date = x.day" \
"     WHERE NOT coalesce(d.in_views, false) OR greatest(d.fetch_started_at, d.checked_at) < x.ends" \
"     ORDER BY x.day LIMIT 1)," \
"   (n.newest + 1)::timestamp AT TIME ZONE 'UTC')" \
"  FROM (SELECT max(l.target_date) AS newest FROM _wh.day_loads l" \
"    WHERE l.template_name = $1 AND l.target_schema = $2 AND l.in_views AND l.target_date >= t.start_date) n" \
" WHERE n.newest IS NOT NULL)"

#define FIRST_INCOMPLETE_DAY(complete_until, start_date) \
"(greatest(" complete_until ", " start_date "::timestamp AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')::date"

/*
 * A quarter for the new one: after a change of the data or of the tenant four
 * loads tell most of it, and a single slow one is soon forgotten.
 */
#define MEAN(column) \
column " = coalesce(s." column " + 0.25 * (j." column " - s." column "), j." column ", s." column ")"

void
wh_freshness_follow(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_INT4(wh_catchup_days)};

	wh_query("UPDATE _wh.tenant_templates s"
			 "   SET complete_until = c.complete_until, failing_since = c.failing_since"
			 "  FROM (SELECT u.complete_until, CASE WHEN EXISTS (SELECT FROM _wh.day_loads f"
			 "            WHERE f.template_name = $1 AND f.target_schema = $2 AND f.failed_at IS NOT NULL"
			 "              AND f.target_date >= " FIRST_INCOMPLETE_DAY("u.complete_until", "u.start_date") ")"
			 "          THEN u.failing_since END AS failing_since"
			 "          FROM (SELECT t.start_date, t.failing_since, " COMPLETE_UNTIL " AS complete_until"
			 "                  FROM _wh.tenant_templates t"
			 "                 WHERE t.template_name = $1 AND t.target_schema = $2) u) c"
			 " WHERE s.template_name = $1 AND s.target_schema = $2"
			 "   AND (s.complete_until, s.failing_since) IS DISTINCT FROM (c.complete_until, c.failing_since)",
			 lengthof(args), args);
}

/*
 * What its tenant's quiet hours kept it from, the queue is not to blame for.  A
 * wait in which something stood in the way that a later load will not meet (a
 * pause, a server that was down, wh_worker.enabled) tells nothing of the queue.
 */
void
wh_freshness_loaded(int64 job_id)
{
	WhArg		args[] = {WH_INT8(job_id)};

	wh_query("UPDATE _wh.tenant_templates s"
			 "   SET " MEAN("run_seconds") ", " MEAN("queue_seconds")
			 "  FROM (SELECT q.template_name, q.target_schema,"
			 "          extract(epoch FROM clock_timestamp() - q.started_at)::float8 AS run_seconds,"
			 "          CASE WHEN EXISTS (SELECT FROM pg_catalog.unnest(ARRAY[c.updated_at, w.resumed_at,"
			 "              pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_conf_load_time()]) AS stood(until)"
			 "            WHERE stood.until BETWEEN q.enqueued_at AND q.first_started_at) THEN NULL"
			 "            ELSE extract(epoch FROM q.first_started_at - least(q.first_started_at,"
			 "            coalesce(_wh.quiet_until(c.quiet_hours, q.enqueued_at + k.ahead) - k.ahead,"
			 "              q.enqueued_at)))::float8 END AS queue_seconds"
			 "          FROM _wh.jobs q"
			 "          JOIN _wh.tenant_connections c USING (tenant_name)"
			 "         CROSS JOIN _wh.warehouse w"
			 "         CROSS JOIN (SELECT current_setting('wh_worker.debug_clock_offset')::interval AS ahead) k"
			 "         WHERE q.job_id = $1 AND q.schedule_id IS NOT NULL) j"
			 " WHERE s.template_name = j.template_name AND s.target_schema = j.target_schema",
			 lengthof(args), args);
}

/* Whoever has the row has a load to tell of; a failure waits for nobody, and the next one tells as well. */
void
wh_freshness_failed(const char *template_name, const char *schema, DateADT date)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(date)};

	wh_query("WITH failing AS (SELECT s.template_name, s.target_schema FROM _wh.tenant_templates s"
			 "   WHERE s.template_name = $1 AND s.target_schema = $2 AND s.failing_since IS NULL"
			 "     AND $3 >= " FIRST_INCOMPLETE_DAY("s.complete_until", "s.start_date")
			 "   FOR NO KEY UPDATE SKIP LOCKED)"
			 " UPDATE _wh.tenant_templates s SET failing_since = clock_timestamp() FROM failing f"
			 "  WHERE s.template_name = f.template_name AND s.target_schema = f.target_schema",
			 lengthof(args), args);
}
