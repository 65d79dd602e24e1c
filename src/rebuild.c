/*
 * rebuild.c: rebuild_entire_warehouse(): a backfill for all that is missing.
 *
 * Called from SQL, in the caller's transaction as admin_role.  What is missing is
 * asked of enqueue_backfill's own plan; here are only the windows: the runs of
 * days that the ledger knows, and of those that a subscription asks for.  Days
 * that the template's retention would take away again are not among them.  Takes
 * no locks but those of enqueue_backfill.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "audit.h"
#include "caller.h"
#include "clock.h"
#include "identity.h"
#include "retention.h"
#include "sqlutil.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_rebuild_entire_warehouse);

/* Days of one subscription without a gap. */
typedef struct Window
{
	char	   *template_name;
	char	   *tenant_name;
	char	   *schema;
	DateADT		first;
	DateADT		last;
} Window;

/* $1 template, $2 today, $3 first day that is kept or NULL. */
#define WINDOWS_SQL \
"WITH day AS (" \
"  SELECT s.tenant_name, s.target_schema, d.target_date" \
"    FROM _wh.tenant_templates s" \
"    JOIN _wh.tenant_connections c ON c.tenant_name = s.tenant_name AND c.active" \
"    JOIN _wh.day_loads d ON d.template_name = s.template_name AND d.target_schema = s.target_schema" \
"   WHERE s.template_name = $1 AND s.active" \
"  UNION" \
"  SELECT s.tenant_name, s.target_schema, s.start_date + i" \
"    FROM _wh.tenant_templates s" \
"    JOIN _wh.tenant_connections c ON c.tenant_name = s.tenant_name AND c.active" \
"   CROSS JOIN LATERAL generate_series(0, $2 - s.start_date) AS i" \
"   WHERE s.template_name = $1 AND s.active)," \
" numbered AS (" \
"  SELECT *, target_date - row_number() OVER (PARTITION BY target_schema ORDER BY target_date)::integer AS run" \
"    FROM day WHERE target_date <= $2 AND ($3 IS NULL OR target_date >= $3))" \
" SELECT tenant_name, target_schema, min(target_date), max(target_date) FROM numbered" \
"  GROUP BY tenant_name, target_schema, run ORDER BY tenant_name, target_schema, max(target_date) DESC"

static List *
read_windows(List *windows, char *template_name)
{
	DateADT		limit = wh_retention_limit(template_name);
	WhArg		args[] = {
		WH_TEXT(template_name), WH_DATE(wh_clock_today()),
		wh_arg_nullable(DATEOID, DateADTGetDatum(limit), DATE_NOT_FINITE(limit))
	};
	uint64		n = wh_query(WINDOWS_SQL, lengthof(args), args);

	for (uint64 i = 0; i < n; i++)
	{
		Window	   *window = palloc(sizeof(Window));

		window->template_name = template_name;
		window->tenant_name = wh_get_text(CurrentMemoryContext, i, 1);
		window->schema = wh_get_text(CurrentMemoryContext, i, 2);
		window->first = wh_get_date(i, 3);
		window->last = wh_get_date(i, 4);
		windows = lappend(windows, window);
	}
	return windows;
}

/* One that lacks nothing gets no backfill; returns how many days it lacks. */
static int64
enqueue(const Window *window, StringInfo list)
{
	WhArg		args[] = {
		WH_TEXT(window->template_name), WH_TEXT(window->tenant_name), WH_DATE(window->first),
		WH_DATE(window->last), WH_TEXT(window->schema)
	};
	int64		days;

	wh_query("SELECT count(*) FROM _wh.plan_backfill($1, $2, $3, $4, $5)", lengthof(args), args);
	days = wh_get_int8(0, 1);
	if (days == 0)
		return 0;
	wh_query("SELECT _wh.enqueue_backfill($1, $2, $3, $4, $5)", lengthof(args), args);
	appendStringInfo(list, "%s{\"backfill_id\": " INT64_FORMAT ", \"template_name\": ",
					 list->len > 0 ? ", " : "", wh_get_int8(0, 1));
	escape_json(list, window->template_name);
	appendStringInfoString(list, ", \"tenant_name\": ");
	escape_json(list, window->tenant_name);
	appendStringInfoString(list, ", \"target_schema\": ");
	escape_json(list, window->schema);
	appendStringInfo(list, ", \"start_date\": \"%s\", \"end_date\": \"%s\", \"days\": " INT64_FORMAT "}",
					 wh_date_text(window->first), wh_date_text(window->last), days);
	return days;
}

/* The ledger of a copy names the relations of the original: all would be missing. */
static void
require_confirmed(void)
{
	if (wh_identity_pause() == WH_UNCONFIRMED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", wh_identity_reason(WH_UNCONFIRMED)),
				 errhint("%s", wh_identity_hint(WH_UNCONFIRMED))));
}

Datum
wh_sql_rebuild_entire_warehouse(PG_FUNCTION_ARGS)
{
	StringInfoData list;
	List	   *templates = NIL;
	List	   *windows = NIL;
	int64		days = 0;
	uint64		n;
	ListCell   *cell;
	MemoryContext caller = CurrentMemoryContext;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	wh_spi_begin();
	require_confirmed();
	initStringInfo(&list);
	n = wh_query("SELECT template_name FROM _wh.mv_templates ORDER BY 1", 0, NULL);
	for (uint64 i = 0; i < n; i++)
		templates = lappend(templates, wh_get_text(CurrentMemoryContext, i, 1));
	foreach(cell, templates)
		windows = read_windows(windows, lfirst(cell));
	foreach(cell, windows)
		days += enqueue(lfirst(cell), &list);
	MemoryContextSwitchTo(caller);
	{
		char	   *json = psprintf("{\"backfills\": [%s], \"days\": " INT64_FORMAT "}", list.data, days);

		wh_spi_end();
		PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	}
}
