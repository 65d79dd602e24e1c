/*
 * at_once_sql.c: the functions that load days and make views in the caller's
 * transaction.
 *
 * Called from SQL only.  Checks arguments, subscribes what is not subscribed,
 * has at_once.c load and publish.c publish, and says what came of it.  Wrong
 * use raises; trouble at a tenant is a false or a status.
 *
 * May not queue anything; workers do not come here.  Locks are taken by
 * at_once.c and publish.c; those on days last to the end of the transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "at_once.h"
#include "audit.h"
#include "clock.h"
#include "missing.h"
#include "publish.h"
#include "sqlutil.h"
#include "subscribe.h"
#include "tenant.h"
#include "there.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_create_mv_from_template);
PG_FUNCTION_INFO_V1(wh_sql_update_mv_by_template);
PG_FUNCTION_INFO_V1(wh_sql_update_mv_by_template_short);
PG_FUNCTION_INFO_V1(wh_sql_update_mv_window_by_template);
PG_FUNCTION_INFO_V1(wh_sql_update_mv_window_by_template_short);
PG_FUNCTION_INFO_V1(wh_sql_update_tenant_union_view_by_template);
PG_FUNCTION_INFO_V1(wh_sql_update_tenant_union_view_by_template_short);
PG_FUNCTION_INFO_V1(wh_sql_update_public_view_by_template);
PG_FUNCTION_INFO_V1(wh_sql_does_mv_exist);
PG_FUNCTION_INFO_V1(wh_sql_refresh_mv);

/* ---- arguments ---- */

static DateADT
date_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	DateADT		date;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	date = PG_GETARG_DATEADT(n);
	if (DATE_NOT_FINITE(date))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be infinite", name)));
	/* a tenant's clock, or the caller's time zone, may be ahead of UTC */
	if (date > wh_clock_today() + 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s is in the future", name, wh_date_text(date)),
				 errhint("Days are UTC dates; it is %s.", wh_date_text(wh_clock_today()))));
	(void) wh_date_text(date);	/* refuses years that have not four digits */
	return date;
}

/* The first three arguments; without a schema argument the usual one. */
static WhOnceCall *
begin_call(FunctionCallInfo fcinfo, bool has_schema)
{
	WhOnceCall   *call = palloc0(sizeof(WhOnceCall));

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	call->template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	call->tenant_name = wh_tenant_text_arg(fcinfo, 1, "tenant_connection_name");
	call->schema = has_schema ? wh_tenant_text_arg(fcinfo, 2, "target_schema") :
		wh_subscribe_default_schema(call->template_name, call->tenant_name);
	return call;
}

static void
subscribe_and_load(WhOnceCall *call, DateADT first, DateADT last)
{
	wh_require_running();
	wh_subscribe_if_missing(call->template_name, call->tenant_name, call->schema, wh_clock_today());
	wh_once_set_days(call, first, last);
	wh_once_load(call);
}

/* ---- single days ---- */

static bool
day_exists(const WhOnceCall *call, DateADT date)
{
	WhArg		args[] = {WH_TEXT(call->template_name), WH_TEXT(call->schema), WH_DATE(date)};
	bool		exists;

	wh_spi_begin();
	exists = wh_query("SELECT FROM _wh.day_loads d"
					  " WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = $3"
					  "   AND " WH_DAY_IS_THERE,
					  lengthof(args), args) > 0;
	wh_spi_end();
	return exists;
}

Datum
wh_sql_create_mv_from_template(PG_FUNCTION_ARGS)
{
	WhOnceCall   *call = begin_call(fcinfo, true);
	DateADT		date = date_arg(fcinfo, 3, "target_date");

	wh_require_running();
	wh_subscribe_if_missing(call->template_name, call->tenant_name, call->schema, wh_clock_today());
	if (day_exists(call, date))
	{
		ereport(NOTICE,
				(errmsg("%s of template \"%s\" is already in schema \"%s\", skipping",
						wh_date_text(date), call->template_name, call->schema)));
		PG_RETURN_BOOL(true);
	}
	wh_once_set_days(call, date, date);
	wh_once_load(call);
	PG_RETURN_BOOL(call->days[0].failure == NULL);
}

/* Whether yesterday's content is from before yesterday ended, and was not seen to be right since. */
static bool
yesterday_is_unfinished(const WhOnceCall *call, DateADT today)
{
	WhArg		args[] = {
		WH_TEXT(call->template_name), WH_TEXT(call->schema), WH_DATE(today - 1),
		WH_TSTZ((TimestampTz) today * USECS_PER_DAY)
	};
	bool		unfinished;

	wh_spi_begin();
	unfinished = wh_query("SELECT FROM _wh.day_loads"
						  " WHERE template_name = $1 AND target_schema = $2 AND target_date = $3"
						  " AND relation_oid IS NOT NULL AND greatest(fetch_started_at, checked_at) < $4",
						  lengthof(args), args) > 0;
	wh_spi_end();
	return unfinished;
}

static bool
update_day(WhOnceCall *call, DateADT date, bool allow_refresh_yesterday)
{
	bool		with_yesterday = allow_refresh_yesterday && date == wh_clock_today() &&
	yesterday_is_unfinished(call, date);

	subscribe_and_load(call, with_yesterday ? date - 1 : date, date);
	return call->days[call->ndays - 1].failure == NULL;
}

Datum
wh_sql_update_mv_by_template(PG_FUNCTION_ARGS)
{
	WhOnceCall   *call = begin_call(fcinfo, true);
	DateADT		date = date_arg(fcinfo, 3, "target_date");
	bool		allow_refresh_yesterday = PG_ARGISNULL(4) || PG_GETARG_BOOL(4);

	PG_RETURN_BOOL(update_day(call, date, allow_refresh_yesterday));
}

Datum
wh_sql_update_mv_by_template_short(PG_FUNCTION_ARGS)
{
	WhOnceCall   *call = begin_call(fcinfo, false);

	PG_RETURN_BOOL(update_day(call, date_arg(fcinfo, 2, "target_date"), true));
}

/* ---- windows ---- */

static void
append_status(StringInfo json, const WhOnceDay *day)
{
	appendStringInfo(json, "\"%s\": ", wh_date_text(day->date));
	if (day->failure == NULL)
	{
		appendStringInfo(json, "{\"status\": \"%s\", \"rows\": " INT64_FORMAT,
						 day->refresh->unchanged ? "unchanged" :
						 day->refresh->suspicion ? "suspect" : "loaded", day->refresh->day->rows);
		if (day->refresh->suspicion != NULL)
		{
			appendStringInfoString(json, ", \"reason\": ");
			escape_json(json, day->refresh->suspicion);
		}
		appendStringInfoChar(json, '}');
		return;
	}
	appendStringInfoString(json, "{\"status\": \"failed\", \"error\": ");
	escape_json(json, day->failure->message);
	appendStringInfo(json, ", \"sqlstate\": \"%s\"}", day->failure->sqlstate);
}

static Datum
status_of_days(const WhOnceCall *call)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int i = 0; i < call->ndays; i++)
	{
		if (i > 0)
			appendStringInfoString(&json, ", ");
		append_status(&json, &call->days[i]);
	}
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

static Datum
update_window(WhOnceCall *call, DateADT first, DateADT last)
{
	if (first > last)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start_date %s is after end_date %s",
						wh_date_text(first), wh_date_text(last)),
				 errhint("Both ends of the window are included.")));
	subscribe_and_load(call, first, last);
	return status_of_days(call);
}

Datum
wh_sql_update_mv_window_by_template(PG_FUNCTION_ARGS)
{
	WhOnceCall   *call = begin_call(fcinfo, true);

	return update_window(call, date_arg(fcinfo, 3, "start_date"), date_arg(fcinfo, 4, "end_date"));
}

Datum
wh_sql_update_mv_window_by_template_short(PG_FUNCTION_ARGS)
{
	WhOnceCall   *call = begin_call(fcinfo, false);

	return update_window(call, date_arg(fcinfo, 2, "start_date"), date_arg(fcinfo, 3, "end_date"));
}

/* ---- views ---- */

static bool
update_tenant_view(WhOnceCall *call)
{
	wh_subscribe_if_missing(call->template_name, call->tenant_name, call->schema, wh_clock_today());
	(void) wh_missing_notice(call->template_name, call->schema);
	wh_publish_tenant_view(call->template_name, call->schema);
	wh_publish_counters(call->template_name, call->schema);
	return true;
}

Datum
wh_sql_update_tenant_union_view_by_template(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(update_tenant_view(begin_call(fcinfo, true)));
}

Datum
wh_sql_update_tenant_union_view_by_template_short(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(update_tenant_view(begin_call(fcinfo, false)));
}

Datum
wh_sql_update_public_view_by_template(PG_FUNCTION_ARGS)
{
	char	   *template_name;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	wh_publish_public_view(template_name);
	PG_RETURN_BOOL(true);
}

/* ---- by the name of the relation ---- */

/* In the layout partitions a day is a table. */
static bool
is_day(Oid relid)
{
	WhArg		args[] = {WH_OID(relid)};
	bool		found;

	wh_spi_begin();
	found = wh_query("SELECT FROM _wh.day_loads d"
					 " WHERE d.relation_oid = $1 AND d.state <> 'combined' AND " WH_DAY_IS_THERE " LIMIT 1",
					 lengthof(args), args) > 0;
	wh_spi_end();
	return found;
}

static Oid
find_matview(const char *schema, const char *view_name)
{
	Oid			namespace_oid = get_namespace_oid(schema, true);
	Oid			relid = InvalidOid;

	if (OidIsValid(namespace_oid))
		relid = get_relname_relid(view_name, namespace_oid);
	if (OidIsValid(relid) && get_rel_relkind(relid) != RELKIND_MATVIEW && !is_day(relid))
		relid = InvalidOid;
	return relid;
}

Datum
wh_sql_does_mv_exist(PG_FUNCTION_ARGS)
{
	char	   *schema;
	char	   *view_name;

	wh_require_preloaded();
	schema = wh_tenant_text_arg(fcinfo, 0, "target_schema");
	view_name = wh_tenant_text_arg(fcinfo, 1, "view_name");
	PG_RETURN_BOOL(OidIsValid(find_matview(schema, view_name)));
}

/* The call that loads the day which the relation holds; NULL if none does. */
static WhOnceCall *
call_for_relation(char *schema, Oid relid)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(schema), WH_OID(relid)};
	WhOnceCall   *call = palloc0(sizeof(WhOnceCall));
	DateADT		date;

	wh_spi_begin();
	if (wh_query("SELECT template_name, tenant_name, target_date FROM _wh.day_loads"
				 " WHERE target_schema = $1 AND relation_oid = $2",
				 lengthof(args), args) == 0)
	{
		wh_spi_end();
		return NULL;
	}
	call->template_name = wh_get_text(cxt, 0, 1);
	call->tenant_name = wh_get_text(cxt, 0, 2);
	call->schema = schema;
	date = wh_get_date(0, 3);
	wh_spi_end();
	call->is_forced = true;		/* as REFRESH MATERIALIZED VIEW */
	wh_once_set_days(call, date, date);
	return call;
}

/* The name of a day that was combined may be in somebody's script. */
static void
report_no_matview(const char *schema, const char *view_name)
{
	WhArg		args[] = {WH_TEXT(schema), WH_TEXT(view_name)};
	bool		combined;

	wh_spi_begin();
	combined = wh_query("SELECT d.target_date, d.template_name, d.relation FROM _wh.day_loads d"
						" WHERE d.target_schema = $1 AND d.relation_oid IS NOT NULL AND d.relation <> $2"
						"   AND _wh.create_mv_name(d.template_name, d.target_date) = $2",
						lengthof(args), args) > 0;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("materialized view \"%s.%s\" does not exist", schema, view_name),
			 combined ?
			 errdetail("%s of template \"%s\" is in the table \"%s.%s\" now.",
					   wh_date_text(wh_get_date(0, 1)), wh_get_text(CurrentMemoryContext, 0, 2),
					   schema, wh_get_text(CurrentMemoryContext, 0, 3)) : 0,
			 combined ?
			 errhint("Load that day again with _wh.update_mv_by_template().") :
			 errhint("Create a day with _wh.create_mv_from_template().")));
}

Datum
wh_sql_refresh_mv(PG_FUNCTION_ARGS)
{
	char	   *schema;
	char	   *view_name;
	Oid			relid;
	WhOnceCall   *call;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	schema = wh_tenant_text_arg(fcinfo, 0, "target_schema");
	view_name = wh_tenant_text_arg(fcinfo, 1, "view_name");
	relid = find_matview(schema, view_name);
	if (!OidIsValid(relid))
		report_no_matview(schema, view_name);

	call = call_for_relation(schema, relid);
	if (call != NULL)
	{
		wh_require_running();
		wh_once_load(call);
		PG_RETURN_BOOL(call->days[0].failure == NULL);
	}

	/* not a day of ours: an ordinary refresh, with admin_role's rights */
	wh_spi_begin();
	wh_utility("REFRESH MATERIALIZED VIEW %s", quote_qualified_identifier(schema, view_name));
	wh_spi_end();
	PG_RETURN_BOOL(true);
}
