/*
 * status_page.c: _wh.status_page(): the state of the warehouse as one HTML document.
 *
 * Called from SQL, and by status_page_file.c.  The document needs nothing else:
 * style and drawings are in it, and no script.  It is on one line of ASCII
 * without backslashes (html.c), so that psql -At, COPY and every encoding give it
 * as it is; and it is well-formed XML.
 *
 * Runs as admin_role; who may call it sees no more than the status views show:
 * no command, no query, no password.  Reads, and takes no lock that a load waits
 * for.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "commands/dbcommands.h"

#include "clock.h"
#include "html.h"
#include "sqlutil.h"
#include "status_page.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_status_page);

#define MIN_DAYS 1
#define MAX_DAYS 366

static void
put_head(WhPage *page, const char *database)
{
	appendStringInfo(page->out, "<!DOCTYPE html>"
					 "<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>"
					 "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
					 "<meta name=\"color-scheme\" content=\"light dark\"/><title>Warehouse %s</title>", database);
	wh_page_style(page);
	appendStringInfoString(page->out, "</head><body>");
	wh_page_patterns(page);
}

static void
put_tile(WhPage *page, int64 n, const char *what, const char *class_if_any)
{
	appendStringInfo(page->out, "<li%s><b>%s</b> %s</li>", n > 0 ? class_if_any : "", wh_page_count(n), what);
}

static void
put_tiles(WhPage *page)
{
	int64		missing = page->count[WH_DAY_MISSING];

	for (int i = 0; i < page->nunits; i++)
		missing += page->units[i].missing_before;
	appendStringInfoString(page->out, "<ul class=\"tiles\">");
	put_tile(page, page->count[WH_DAY_FAILED], "days failed", " class=\"bad\"");
	put_tile(page, missing, "days missing", " class=\"bad\"");
	put_tile(page, page->count[WH_DAY_SUSPECT], "days suspect", " class=\"look\"");
	put_tile(page, page->count[WH_DAY_QUEUED], "days queued", "");
	put_tile(page, page->count[WH_DAY_LOADED] + page->count[WH_DAY_COMBINED], "days loaded", "");
	put_tile(page, page->nunits, "subscriptions", "");
	appendStringInfoString(page->out, "</ul>");
}

static void
put_header(WhPage *page, const char *database)
{
	WhArg		args[] = {WH_TSTZ(page->now)};

	(void) wh_query("SELECT pg_catalog.to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')", lengthof(args), args);
	appendStringInfo(page->out, "<header><h1>Warehouse <bdi>%s</bdi></h1>"
					 "<p class=\"note\">As of %s UTC. Days are UTC days; the last one is %s.</p>"
					 "<nav aria-label=\"Sections\"><ul><li><a href=\"#attention\">Attention</a></li>"
					 "<li><a href=\"#now\">Running now</a></li><li><a href=\"#failures\">Failures</a></li>"
					 "<li><a href=\"#freshness\">Freshness</a></li><li><a href=\"#throughput\">Throughput</a></li><li><a href=\"#days\">Days</a></li></ul></nav>",
					 database, wh_page_column(0, 1), wh_date_text(page->today));
	put_tiles(page);
	appendStringInfoString(page->out, "</header>");
}

static void
put_page(WhPage *page)
{
	char	   *database = wh_html(get_database_name(MyDatabaseId));

	wh_page_read_units(page);
	put_head(page, database);
	put_header(page, database);
	appendStringInfoString(page->out, "<main>");
	wh_page_attention(page);
	wh_page_now(page);
	wh_page_failures(page);
	wh_page_freshness(page);
	wh_page_throughput(page);
	wh_page_days(page);
	appendStringInfoString(page->out, "</main><footer><p>Made by _wh.status_page().</p></footer></body></html>");
}

static int
days_arg(FunctionCallInfo fcinfo, int n)
{
	int			days;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("days must not be null")));
	days = PG_GETARG_INT32(n);
	if (days < MIN_DAYS || days > MAX_DAYS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("days must be between %d and %d", MIN_DAYS, MAX_DAYS)));
	return days;
}

StringInfo
wh_page_make(FunctionCallInfo fcinfo, int n)
{
	WhPage		page = {.ndays = days_arg(fcinfo, n), .context = CurrentMemoryContext};

	page.out = makeStringInfo();
	page.now = wh_clock_now();
	page.today = wh_clock_day_of(page.now);
	page.first = page.today - page.ndays + 1;
	wh_spi_begin();
	put_page(&page);
	wh_spi_end();
	return page.out;
}

Datum
wh_sql_status_page(PG_FUNCTION_ARGS)
{
	StringInfo	page;

	wh_require_preloaded();
	page = wh_page_make(fcinfo, 0);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(page->data, page->len));
}
