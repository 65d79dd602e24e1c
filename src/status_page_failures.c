/*
 * status_page_failures.c: what failed, why, and when it is tried again.
 *
 * Called by status_page.c.  Days that failed are in the ledger, until a load of
 * them succeeds; jobs that will be tried again are in the queue.  Equal causes
 * of a template are one row.  Errors are shown as job_status shows them to
 * operators.
 *
 * Reads committed rows only, and takes no lock.
 */
#include "postgres.h"

#include "guc.h"
#include "html.h"
#include "sqlutil.h"
#include "status_page.h"

#define MAX_FAILURES 200

/* Of an error; all of it is in the tables. */
#define CAUSE_BYTES 400

/*
 * A failed day that no job is queued for comes again with its schedule, if that
 * looks back so far.
 */
static uint64
read_failures(const WhPage *page)
{
	WhArg		args[] = {
		WH_DATE(page->first), WH_DATE(page->today), WH_INT4(wh_catchup_days), WH_INT4(MAX_FAILURES)
	};

	return wh_query(
		"SELECT f.template_name, min(f.tenant_name), min(f.target_schema), pg_catalog.count(*),"
		"  min(f.target_date)::pg_catalog.text, max(f.target_date)::pg_catalog.text, f.cause,"
		"  pg_catalog.to_char(max(f.at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),"
		"  pg_catalog.to_char(min(f.again) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), f.retrying,"
		"  pg_catalog.count(*) FILTER (WHERE f.again IS NULL), pg_catalog.count(DISTINCT f.target_schema)"
		"  FROM ("
		"    SELECT d.template_name, d.tenant_name, d.target_schema, d.target_date, d.last_error AS cause,"
		"      d.failed_at AS at, false AS retrying, CASE WHEN d.target_date >= $2 - $3 THEN ("
		"        SELECT min(c.next_run) FROM _wh.schedules c WHERE c.kind = 'refresh' AND c.active"
		"          AND c.template_name = s.template_name AND c.tenant_name = s.tenant_name"
		"          AND c.target_schema = s.target_schema) END AS again"
		"      FROM _wh.tenant_templates s JOIN _wh.day_loads d"
		"        ON d.template_name = s.template_name AND d.target_schema = s.target_schema"
		"     WHERE d.target_date BETWEEN $1 AND $2 AND d.failed_at IS NOT NULL"
		"       AND NOT EXISTS (SELECT FROM _wh.jobs q WHERE q.kind = 'refresh' AND q.state IN ('queued', 'running')"
		"         AND q.template_name = d.template_name AND q.target_schema = d.target_schema"
		"         AND q.target_date = d.target_date)"
		"    UNION ALL"
		"    SELECT j.template_name, j.tenant_name, j.target_schema, j.target_date, j.last_error,"
		"      coalesce(j.finished_at, j.started_at), true, greatest(j.not_before, h.retry_at)"
		"      FROM _wh.jobs j LEFT JOIN _wh.tenant_health h ON h.tenant_name = j.tenant_name"
		"     WHERE j.state = 'queued' AND j.last_error IS NOT NULL) f"
		" GROUP BY f.template_name, f.cause, f.retrying"
		" ORDER BY max(f.at) DESC NULLS LAST, 1, 2, 3 LIMIT $4", lengthof(args), args);
}

/* The tenants' own errors name them. */
static char *
describe_target(uint64 row)
{
	char	   *template_name = wh_get_text(CurrentMemoryContext, row, 1);
	char	   *name;

	if (template_name == NULL)
		return pstrdup("a command");
	name = wh_page_unit_name(template_name, wh_get_text(CurrentMemoryContext, row, 2),
							 wh_get_text(CurrentMemoryContext, row, 3));
	if (wh_get_int8(row, 12) > 1)
		return psprintf("%s and %s more", name, wh_page_count(wh_get_int8(row, 12) - 1));
	return name;
}

static char *
describe_days(uint64 row)
{
	char	   *first = wh_page_column(row, 5);
	char	   *last = wh_page_column(row, 6);

	if (first[0] == '\0')
		return pstrdup("");
	if (strcmp(first, last) == 0)
		return first;
	return psprintf("%s days, %s to %s", wh_page_count(wh_get_int8(row, 4)), first, last);
}

static char *
describe_next_try(uint64 row)
{
	int64		never = wh_get_int8(row, 11);

	if (wh_isnull(row, 9))
		return pstrdup(wh_get_bool(row, 10) ? "as soon as it can" : "not by itself");
	if (never > 0)
		return psprintf("%s UTC; %s of them not by themselves", wh_page_column(row, 9), wh_page_count(never));
	return psprintf("%s UTC", wh_page_column(row, 9));
}

static void
put_failure(const WhPage *page, uint64 row)
{
	appendStringInfo(page->out, "<tr><th scope=\"row\">%s<br/><span class=\"note\">%s</span></th><td class=\"cause\">%s</td>"
					 "<td>%s</td><td>%s</td></tr>",
					 describe_target(row),
					 describe_days(row),
					 wh_html_clipped(wh_get_text(CurrentMemoryContext, row, 7), CAUSE_BYTES),
					 wh_page_column(row, 8), describe_next_try(row));
}

void
wh_page_failures(WhPage *page)
{
	uint64		n = read_failures(page);

	wh_page_section(page, "failures", "Failures");
	if (n == 0)
		appendStringInfoString(page->out, "<p>Nothing has failed that was not made good since.</p>");
	else
	{
		appendStringInfoString(page->out, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Failures\"><table>"
							   "<thead><tr><th scope=\"col\">What</th><th scope=\"col\">Cause</th>"
							   "<th scope=\"col\">Last try (UTC)</th><th scope=\"col\">Next try</th></tr></thead><tbody>");
		for (uint64 row = 0; row < n; row++)
			put_failure(page, row);
		appendStringInfoString(page->out, "</tbody></table></div>");
		if (n == MAX_FAILURES)
			appendStringInfo(page->out, "<p class=\"note\">The newest %d.</p>", MAX_FAILURES);
	}
	wh_page_end_section(page);
}
