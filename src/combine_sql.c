/*
 * combine_sql.c: the functions that combine a month or a year.
 *
 * Called from SQL only.  Checks arguments, has combine.c do it in the caller's
 * transaction, and says what came of it: as jsonb, and as a row of
 * job_run_details.  Wrong use raises; nothing is changed then.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "audit.h"
#include "combine.h"
#include "log_context.h"
#include "sqlutil.h"
#include "subscribe.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_create_combined_table_from_template_by_year);
PG_FUNCTION_INFO_V1(wh_sql_create_combined_table_from_template_by_year_short);
PG_FUNCTION_INFO_V1(wh_sql_create_combined_table_from_template_by_month);
PG_FUNCTION_INFO_V1(wh_sql_create_combined_table_from_template_by_month_short);

/* ---- arguments ---- */

static int
int_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return PG_GETARG_INT32(n);
}

/* A month of 0 means the whole year to combine.c, and is nothing a user may say. */
static int
month_arg(FunctionCallInfo fcinfo, int n)
{
	int			month = int_arg(fcinfo, n, "month");

	if (month < 1 || month > 12)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("month %d is out of range", month),
				 errhint("Months are from 1 to 12.")));
	return month;
}

/* The first three arguments; without a schema argument the usual one. */
static void
begin_call(FunctionCallInfo fcinfo, bool has_schema, WhCombine *combine)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	memset(combine, 0, sizeof(WhCombine));
	combine->template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	combine->tenant_name = wh_tenant_text_arg(fcinfo, 1, "tenant_connection_name");
	combine->schema = has_schema ? wh_tenant_text_arg(fcinfo, 2, "target_schema") :
		wh_subscribe_default_schema(combine->template_name, combine->tenant_name);
}

/* allow_missing and verify_content, from the n-th argument on. */
static void
read_options(FunctionCallInfo fcinfo, int n, WhCombine *combine)
{
	combine->allow_missing = !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
	combine->verify_content = !PG_ARGISNULL(n + 1) && PG_GETARG_BOOL(n + 1);
}

/* ---- what came of it ---- */

static void
append_member(StringInfo json, const WhCombineMember *member)
{
	appendStringInfoString(json, "{\"relation\": ");
	escape_json(json, member->relname);
	if (member->is_combined)
		appendStringInfo(json, ", \"first_date\": \"%s\", \"last_date\": \"%s\", \"days\": %d",
						 wh_date_text(member->first), wh_date_text(member->last), member->days);
	else
		appendStringInfo(json, ", \"date\": \"%s\"", wh_date_text(member->first));
	appendStringInfo(json, ", \"rows\": " INT64_FORMAT ", \"bytes\": " INT64_FORMAT "}",
					 member->rows, member->ledger_bytes);
}

static void
append_lists(StringInfo json, const WhCombine *combine)
{
	appendStringInfoString(json, ", \"days\": [");
	for (int i = 0; i < combine->nmembers; i++)
	{
		if (i > 0)
			appendStringInfoString(json, ", ");
		append_member(json, &combine->members[i]);
	}
	appendStringInfoString(json, "], \"missing\": [");
	for (int i = 0; i < combine->nmissing; i++)
		appendStringInfo(json, "%s\"%s\"", i > 0 ? ", " : "", wh_date_text(combine->missing[i]));
	appendStringInfoChar(json, ']');
}

static Datum
result(const WhCombine *combine, double seconds)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"status\": \"%s\", \"table\": ",
					 combine->already_combined ? "already_combined" : "combined");
	escape_json(&json, quote_qualified_identifier(combine->schema, combine->relname));
	appendStringInfo(&json, ", \"rows\": " INT64_FORMAT, combine->rows);
	if (!combine->already_combined)
	{
		int64		bytes_before = 0;

		for (int i = 0; i < combine->nmembers; i++)
			bytes_before += combine->members[i].ledger_bytes;
		append_lists(&json, combine);
		appendStringInfo(&json, ", \"bytes_before\": " INT64_FORMAT ", \"content_verified\": %s"
						 ", \"durations\": {\"copy\": %.3f, \"index\": %.3f, \"check\": %.3f, \"exchange\": %.3f}",
						 bytes_before, combine->verify_content ? "true" : "false",
						 combine->copy_seconds, combine->index_seconds,
						 combine->check_seconds, combine->exchange_seconds);
	}
	appendStringInfo(&json, ", \"seconds\": %.3f, \"bytes\": " INT64_FORMAT "}", seconds, combine->bytes);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

static void
record(const WhCombine *combine, TimestampTz started_at)
{
	WhArg		args[] = {
		WH_INT4(MyProcPid),
		WH_TEXT(psprintf("combine %s %s of %s in %s", combine->template_name, combine->period,
						 combine->tenant_name, combine->schema)),
		WH_TEXT(wh_combine_summary(combine)),
		WH_TSTZ(started_at), WH_TSTZ(GetCurrentTimestamp()),
		WH_INT8(combine->rows)
	};

	wh_spi_begin();
	wh_query("INSERT INTO _wh.job_run_details"
			 " (job_pid, command, status, return_message, start_time, end_time, rows, reason)"
			 " VALUES ($1, $2, 'succeeded', $3, $4, $5, $6, 'run at once by ' || session_user)",
			 lengthof(args), args);
	wh_spi_end();
}

static Datum
run(WhCombine *combine)
{
	TimestampTz started_at = GetCurrentTimestamp();
	WhLogContext context = {
		.operation = combine->month == 0 ? "combine_year" : "combine_month",
		.template_name = combine->template_name, .tenant_name = combine->tenant_name,
		.schema = combine->schema
	};

	wh_log_context_push(&context);
	wh_combine(combine);
	if (!combine->already_combined)
		record(combine, started_at);
	wh_log_context_pop(&context);
	return result(combine, (double) (GetCurrentTimestamp() - started_at) / USECS_PER_SEC);
}

/* ---- the functions ---- */

Datum
wh_sql_create_combined_table_from_template_by_year(PG_FUNCTION_ARGS)
{
	WhCombine	combine;

	begin_call(fcinfo, true, &combine);
	combine.year = int_arg(fcinfo, 3, "year");
	read_options(fcinfo, 4, &combine);
	PG_RETURN_DATUM(run(&combine));
}

Datum
wh_sql_create_combined_table_from_template_by_year_short(PG_FUNCTION_ARGS)
{
	WhCombine	combine;

	begin_call(fcinfo, false, &combine);
	combine.year = int_arg(fcinfo, 2, "year");
	PG_RETURN_DATUM(run(&combine));
}

Datum
wh_sql_create_combined_table_from_template_by_month(PG_FUNCTION_ARGS)
{
	WhCombine	combine;

	begin_call(fcinfo, true, &combine);
	combine.year = int_arg(fcinfo, 3, "year");
	combine.month = month_arg(fcinfo, 4);
	read_options(fcinfo, 5, &combine);
	PG_RETURN_DATUM(run(&combine));
}

Datum
wh_sql_create_combined_table_from_template_by_month_short(PG_FUNCTION_ARGS)
{
	WhCombine	combine;

	begin_call(fcinfo, false, &combine);
	combine.year = int_arg(fcinfo, 2, "year");
	combine.month = month_arg(fcinfo, 3);
	PG_RETURN_DATUM(run(&combine));
}
