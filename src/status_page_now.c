/*
 * status_page_now.c: what runs and what waits, and how much was loaded on the
 * last days.
 *
 * Called by status_page.c.  A running load is held against the usual count of
 * rows of its subscription, the median of its last days, since nobody knows what
 * a tenant will send.  The history of loads is read once, back to the first day
 * of the chart, by the index on the ends of runs.
 *
 * Reads committed rows and shared memory; takes no lock that a load waits for.
 */
#include "postgres.h"

#include "html.h"
#include "sqlutil.h"
#include "status_page.h"

/* Of the chart. */
#define CHART_DAYS 14

/* ---- running jobs ---- */

/* What of the usual is here, in words; without anything usual the count alone. */
static char *
describe_rows(int64 rows, int64 usual)
{
	if (usual <= 0)
		return psprintf("%s rows", wh_page_count(rows));
	if (rows > usual)
		return psprintf("%s rows, more than the usual %s", wh_page_count(rows), wh_page_count(usual));
	return psprintf("%s of about %s rows", wh_page_count(rows), wh_page_count(usual));
}

/* A command is not shown: who may see the page may not see that. */
static char *
describe_job(uint64 row)
{
	char	   *kind = wh_page_column(row, 1);
	char	   *template_name = wh_get_text(CurrentMemoryContext, row, 2);
	char	   *date = wh_get_text(CurrentMemoryContext, row, 5);

	if (template_name == NULL)
		return psprintf("%s %s", kind, wh_page_name(wh_get_text(CurrentMemoryContext, row, 6)));
	return psprintf("%s %s%s%s", kind,
					wh_page_unit_name(template_name, wh_get_text(CurrentMemoryContext, row, 3),
									  wh_get_text(CurrentMemoryContext, row, 4)),
					date ? ", " : "", date ? date : "");
}

static void
put_running_job(const WhPage *page, uint64 row)
{
	bool		is_load = strcmp(wh_get_text(CurrentMemoryContext, row, 1), "refresh") == 0;
	int64		rows = wh_get_int8(row, 9);
	int64		usual = wh_get_int8(row, 11);
	char	   *words = describe_rows(rows, usual);
	char	   *blocked = wh_page_column(row, 12);

	appendStringInfo(page->out, "<li><p><b>%s</b> <span class=\"tag\">%s</span> for %s, worker %d</p>",
					 describe_job(row), wh_page_column(row, 7), wh_page_age(wh_get_int8(row, 8)),
					 wh_get_int4(row, 13));
	if (is_load)
	{
		wh_page_bar(page->out, usual > 0 ? (double) rows / usual : 0, words);
		appendStringInfo(page->out, "<p class=\"note\">%s, %s", words, wh_page_bytes(wh_get_int8(row, 10)));
		if (!wh_isnull(row, 14))
			appendStringInfo(page->out, "; held by %s", wh_page_column(row, 14));
		appendStringInfoString(page->out, "</p>");
	}
	if (blocked[0] != '\0')
		appendStringInfo(page->out, "<p>Waits for process %s, which reads or writes what it needs.</p>", blocked);
	appendStringInfoString(page->out, "</li>");
}

static void
put_running(const WhPage *page)
{
	uint64		n = wh_query(
		"SELECT w.kind, w.template_name, w.tenant_name, w.target_schema, w.target_date::pg_catalog.text, c.name,"
		"  w.state, extract(epoch FROM pg_catalog.clock_timestamp() - w.job_started_at)::pg_catalog.int8,"
		"  coalesce(w.rows_fetched, 0), coalesce(w.bytes_fetched, 0), u.usual,"
		"  nullif(pg_catalog.array_to_string(w.blocked_by, ', '), ''), w.pid, w.held_by"
		"  FROM _wh.worker_status w"
		"  LEFT JOIN _wh.jobs j ON j.job_id = w.job_id"
		"  LEFT JOIN _wh.schedules c ON c.schedule_id = j.schedule_id"
		"  LEFT JOIN LATERAL (SELECT pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY d.rows::pg_catalog.float8)"
		"     ::pg_catalog.int8 AS usual FROM (SELECT l.rows FROM _wh.day_loads l WHERE l.template_name = w.template_name"
		"        AND l.target_schema = w.target_schema AND l.relation_oid IS NOT NULL AND w.kind = 'refresh'"
		"      ORDER BY l.target_date DESC LIMIT 28) d) u ON true"
		" WHERE w.backend_type = 'wh_worker worker' AND w.datname = pg_catalog.current_database() AND w.job_id IS NOT NULL"
		" ORDER BY w.job_started_at", 0, NULL);

	if (n == 0)
	{
		appendStringInfoString(page->out, "<p>No job is running.</p>");
		return;
	}
	appendStringInfoString(page->out, "<ul class=\"cards\">");
	for (uint64 row = 0; row < n; row++)
		put_running_job(page, row);
	appendStringInfoString(page->out, "</ul>");
}

/* ---- backfills ---- */

static void
put_backfill(const WhPage *page, uint64 row)
{
	int64		total = wh_get_int8(row, 5);
	int64		done = wh_get_int8(row, 6);
	int64		failed = wh_get_int8(row, 7);
	char	   *words = psprintf("%s of %s days", wh_page_count(done), wh_page_count(total));

	appendStringInfo(page->out, "<li><p><b>backfill %s: %s</b> <span class=\"tag\">%s</span>",
					 wh_page_column(row, 1),
					 wh_page_unit_name(wh_get_text(CurrentMemoryContext, row, 2),
									   wh_get_text(CurrentMemoryContext, row, 3), NULL),
					 wh_page_column(row, 4));
	if (!wh_isnull(row, 8))
		appendStringInfo(page->out, " until about %s UTC", wh_page_column(row, 8));
	appendStringInfoString(page->out, "</p>");
	wh_page_bar(page->out, total > 0 ? (double) done / total : 0, words);
	appendStringInfo(page->out, "<p class=\"note\">%s", words);
	if (failed > 0)
		appendStringInfo(page->out, ", %s failed", wh_page_count(failed));
	appendStringInfoString(page->out, "</p></li>");
}

static void
put_backfills(const WhPage *page)
{
	/* their ids first, so that the view counts the days of no other */
	uint64		n = wh_query(
		"SELECT p.backfill_id, p.template_name, p.tenant_name, p.state, p.days_total, p.days_done, p.days_failed,"
		"  pg_catalog.to_char(p.eta AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"
		"  FROM _wh.backfill_progress p"
		" WHERE p.backfill_id = ANY (ARRAY(SELECT b.backfill_id FROM _wh.backfills b"
		"    WHERE b.state = 'running' ORDER BY b.backfill_id LIMIT 20))"
		" ORDER BY p.backfill_id", 0, NULL);

	if (n == 0)
		return;
	appendStringInfoString(page->out, "<h3>Backfills</h3><ul class=\"cards\">");
	for (uint64 row = 0; row < n; row++)
		put_backfill(page, row);
	appendStringInfoString(page->out, "</ul>");
}

static void
put_queue(const WhPage *page)
{
	uint64		n = wh_query(
		"SELECT q.wait_reason, pg_catalog.count(*),"
		"  extract(epoch FROM pg_catalog.clock_timestamp() - min(q.enqueued_at))::pg_catalog.int8"
		"  FROM _wh.job_status q WHERE q.state = 'queued' GROUP BY 1 ORDER BY 2 DESC, 1", 0, NULL);

	appendStringInfoString(page->out, "<h3>The queue</h3>");
	if (n == 0)
	{
		appendStringInfoString(page->out, "<p>Nothing waits.</p>");
		return;
	}
	appendStringInfoString(page->out, "<ul>");
	for (uint64 row = 0; row < n; row++)
		appendStringInfo(page->out, "<li><b>%s %s</b>: %s. The oldest was queued %s ago.</li>",
						 wh_page_count(wh_get_int8(row, 2)), wh_get_int8(row, 2) == 1 ? "job" : "jobs",
						 wh_page_column(row, 1), wh_page_age(wh_get_int8(row, 3)));
	appendStringInfoString(page->out, "</ul>");
}

void
wh_page_now(WhPage *page)
{
	wh_page_section(page, "now", "Running now");
	put_running(page);
	put_backfills(page);
	put_queue(page);
	wh_page_end_section(page);
}

/* ---- throughput ---- */

typedef struct Loads
{
	char	   *date;
	int64		loads;
	int64		failures;
	int64		rows;
	int64		bytes;
} Loads;

/* What a function that ran at once loaded is in the history under the same words. */
static int
read_loads(const WhPage *page, Loads *days)
{
	WhArg		args[] = {WH_DATE(page->today), WH_INT4(CHART_DAYS)};
	int			n = wh_query(
		"SELECT g.day::pg_catalog.date::pg_catalog.text, coalesce(r.loads, 0), coalesce(r.failures, 0),"
		"  coalesce(r.rows, 0), coalesce(r.bytes, 0)"
		"  FROM pg_catalog.generate_series($1 - $2 + 1, $1, interval '1 day') AS g(day)"
		"  LEFT JOIN (SELECT (h.end_time AT TIME ZONE 'UTC')::pg_catalog.date AS day,"
		"      pg_catalog.count(*) FILTER (WHERE h.status = 'succeeded') AS loads,"
		"      pg_catalog.count(*) FILTER (WHERE h.status IN ('failed', 'retrying')) AS failures,"
		"      (pg_catalog.sum(h.rows) FILTER (WHERE h.status = 'succeeded'))::pg_catalog.int8 AS rows,"
		"      (pg_catalog.sum(h.bytes) FILTER (WHERE h.status = 'succeeded'))::pg_catalog.int8 AS bytes"
		"    FROM _wh.job_run_details h"
		"   WHERE h.end_time >= ($1 - $2 + 1)::pg_catalog.timestamp AT TIME ZONE 'UTC'"
		"     AND h.command LIKE 'refresh % from % into %' AND h.status IN ('succeeded', 'failed', 'retrying')"
		"   GROUP BY 1) r ON r.day = g.day::pg_catalog.date"
		" ORDER BY g.day", lengthof(args), args);

	for (int i = 0; i < n; i++)
	{
		days[i].date = wh_get_text(CurrentMemoryContext, i, 1);
		days[i].loads = wh_get_int8(i, 2);
		days[i].failures = wh_get_int8(i, 3);
		days[i].rows = wh_get_int8(i, 4);
		days[i].bytes = wh_get_int8(i, 5);
	}
	return n;
}

static int64
value_of(const Loads *day, bool rows)
{
	return rows ? day->rows : day->loads;
}

static void
put_chart(const WhPage *page, const Loads *days, int n, bool rows)
{
	int64		most = 0;
	int			best = 0;

	for (int i = 0; i < n; i++)
	{
		if (value_of(&days[i], rows) > most)
			best = i;
		most = Max(most, value_of(&days[i], rows));
	}
	appendStringInfo(page->out, "<figure><figcaption>%s a day; at most %s, on %s</figcaption>"
					 "<svg class=\"chart\" viewBox=\"0 0 %d 100\" preserveAspectRatio=\"none\" role=\"img\">"
					 "<title>%s a day from %s to %s; today so far %s</title>",
					 rows ? "Rows" : "Loads", wh_page_short(most), days[best].date, n * 10,
					 rows ? "Rows" : "Loads", days[0].date, days[n - 1].date,
					 wh_page_count(value_of(&days[n - 1], rows)));
	for (int i = 0; i < n && most > 0; i++)
	{
		double		height = 100.0 * value_of(&days[i], rows) / most;

		if (height > 0)
			appendStringInfo(page->out, "<path class=\"full\" d=\"M%d 100v-%.4gh8v%.4gz\"><title>%s: %s</title></path>",
							 i * 10 + 1, height, height, days[i].date, wh_page_count(value_of(&days[i], rows)));
	}
	appendStringInfoString(page->out, "</svg><div class=\"ticks\" aria-hidden=\"true\">");
	for (int i = 0; i < n; i++)
		appendStringInfo(page->out, "<span>%s</span>", days[i].date + strlen(days[i].date) - 2);
	appendStringInfoString(page->out, "</div></figure>");
}

static void
put_loads_table(const WhPage *page, const Loads *days, int n)
{
	appendStringInfoString(page->out, "<details><summary>The same in numbers</summary>"
						   "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Throughput in numbers\"><table>"
						   "<thead><tr><th scope=\"col\">Day (UTC)</th><th scope=\"col\">Loads</th>"
						   "<th scope=\"col\">Attempts that failed</th><th scope=\"col\">Rows</th>"
						   "<th scope=\"col\">Received</th></tr></thead><tbody>");
	for (int i = n - 1; i >= 0; i--)
		appendStringInfo(page->out, "<tr><th scope=\"row\">%s</th><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>",
						 days[i].date, wh_page_count(days[i].loads), wh_page_count(days[i].failures),
						 wh_page_count(days[i].rows), wh_page_bytes(days[i].bytes));
	appendStringInfoString(page->out, "</tbody></table></div></details>");
}

void
wh_page_throughput(WhPage *page)
{
	Loads		days[CHART_DAYS] = {0};
	int			n = read_loads(page, days);

	wh_page_section(page, "throughput", "Throughput");
	appendStringInfoString(page->out, "<div class=\"charts\">");
	put_chart(page, days, n, true);
	put_chart(page, days, n, false);
	appendStringInfoString(page->out, "</div>");
	put_loads_table(page, days, n);
	wh_page_end_section(page);
}
