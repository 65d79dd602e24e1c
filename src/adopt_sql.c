/*
 * adopt_sql.c: adopt() and plan_adopt(): arguments, and a row for each thing.
 *
 * Called from SQL only.  Has adopt.c do it in the caller's transaction, tells
 * what became of each relation and view, and leaves a row in job_run_details.
 * Looks also for jobs of pg_cron that would go on loading the same, as far as
 * the caller may see them; whether and when they go he decides.
 *
 * May not change anything itself but that row.  Locks: none of its own.
 */
#include "postgres.h"

#include "commands/extension.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "adopt.h"
#include "audit.h"
#include "caller.h"
#include "log_context.h"
#include "sqlutil.h"
#include "subscribe.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_adopt);
PG_FUNCTION_INFO_V1(wh_sql_plan_adopt);

/* Columns of the result. */
enum
{
	RELATION, KIND, FIRST_DATE, LAST_DATE, DAYS, ROWS, STATUS, DETAIL, NCOLUMNS
};

typedef struct Row
{
	ReturnSetInfo *result;
	Datum		values[NCOLUMNS];
	bool		nulls[NCOLUMNS];
} Row;

static void
set_text(Row *row, int column, const char *text)
{
	row->nulls[column] = text == NULL;
	row->values[column] = text != NULL ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
set_value(Row *row, int column, Datum value)
{
	row->nulls[column] = false;
	row->values[column] = value;
}

static void
begin_row(Row *row, ReturnSetInfo *result, const char *relation, const char *kind)
{
	row->result = result;
	memset(row->nulls, true, sizeof(row->nulls));
	set_text(row, RELATION, relation);
	set_text(row, KIND, kind);
}

static void
end_row(Row *row, const char *status, const char *detail)
{
	set_text(row, STATUS, status);
	set_text(row, DETAIL, detail);
	tuplestore_putvalues(row->result->setResult, row->result->setDesc, row->values, row->nulls);
}

static const char *
taken(const WhAdoption *adoption)
{
	return adoption->dry_run ? "adopt" : "adopted";
}

static const char *
left(const WhAdoption *adoption)
{
	return adoption->dry_run ? "leave" : "left";
}

/* ---- relations and views ---- */

static void
report_relation(const WhAdoption *adoption, const WhAdoptee *relation, ReturnSetInfo *result)
{
	static const char *const kinds[] = {"day", "month", "year"};
	Row			row;

	begin_row(&row, result, quote_qualified_identifier(adoption->schema, relation->relname), kinds[relation->tier]);
	if (relation->is_ours)
	{
		end_row(&row, "ours", NULL);
		return;
	}
	if (relation->problem != NULL)
	{
		end_row(&row, relation->in_view ? "obstacle" : left(adoption), relation->problem);
		return;
	}
	set_value(&row, DAYS, Int64GetDatum(relation->ndays));
	set_value(&row, ROWS, Int64GetDatum(relation->rows));
	if (relation->ndays == 0)
	{
		end_row(&row, left(adoption), "it has no rows, and nothing says which days it is of");
		return;
	}
	set_value(&row, FIRST_DATE, relation->days[0]);
	set_value(&row, LAST_DATE, relation->days[relation->ndays - 1]);
	end_row(&row, taken(adoption), relation->remark);
}

static void
report_view(const WhAdoption *adoption, const WhAdoptedView *view, const char *kind, ReturnSetInfo *result)
{
	Row			row;

	if (!OidIsValid(view->relid))
		return;
	begin_row(&row, result, quote_qualified_identifier(view->schema, adoption->template_name), kind);
	if (view->is_ours)
		end_row(&row, "ours", NULL);
	else if (view->problem != NULL)
		end_row(&row, "obstacle", view->problem);
	else
		end_row(&row, taken(adoption), view->remark);
}

/* ---- pg_cron ---- */

static bool
may_read_pg_cron(void)
{
	WhArg		args[] = {WH_OID(GetOuterUserId())};

	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		return false;
	return wh_query_bool("SELECT pg_catalog.has_schema_privilege($1, 'cron', 'USAGE')"
						 "  AND pg_catalog.has_table_privilege($1, 'cron.job', 'SELECT')", lengthof(args), args);
}

/* Those whose command names the template, and the tenant or the schema, in quotes. */
static void
report_pg_cron(const WhAdoption *adoption, ReturnSetInfo *result)
{
	WhArg		args[] = {
		WH_TEXT(adoption->template_name), WH_TEXT(adoption->tenant_name), WH_TEXT(adoption->schema)
	};
	WhAdoptCaller saved;
	uint64		n;

	wh_spi_begin();
	if (may_read_pg_cron())
	{
		wh_adopt_become_caller(&saved);
		n = wh_query_once("SELECT coalesce(pg_catalog.to_jsonb(j) ->> 'jobname', 'job ' || j.jobid), j.jobid::text"
						  "  FROM cron.job j"
						  " WHERE j.database = pg_catalog.current_database()"
						  "   AND pg_catalog.strpos(j.command, pg_catalog.quote_literal($1)) > 0"
						  "   AND (pg_catalog.strpos(j.command, pg_catalog.quote_literal($2)) > 0"
						  "     OR pg_catalog.strpos(j.command, pg_catalog.quote_literal($3)) > 0)"
						  " ORDER BY j.jobid", lengthof(args), args);
		wh_adopt_become_admin(&saved);
		for (uint64 i = 0; i < n; i++)
		{
			Row			row;

			begin_row(&row, result, wh_get_text(CurrentMemoryContext, i, 1), "pg_cron job");
			end_row(&row, left(adoption),
					psprintf("the schedules of the subscription do this; end it with SELECT cron.unschedule(%s)",
							 wh_get_text(CurrentMemoryContext, i, 2)));
		}
	}
	wh_spi_end();
}

/* ---- calls ---- */

static void
record(const WhAdoption *adoption, TimestampTz started_at)
{
	int64		relations = 0;
	int64		rows = 0;

	for (int i = 0; i < adoption->n; i++)
	{
		const WhAdoptee *relation = &adoption->relations[i];

		if (relation->is_ours || relation->problem != NULL || relation->ndays == 0)
			continue;
		relations++;
		rows += relation->rows;
	}
	{
		WhArg		args[] = {
			WH_INT4(MyProcPid),
			WH_TEXT(psprintf("adopt %s of %s in %s", adoption->template_name, adoption->tenant_name, adoption->schema)),
			WH_TEXT(psprintf("adopted " INT64_FORMAT " relations with " INT64_FORMAT " rows", relations, rows)),
			WH_TSTZ(started_at), WH_TSTZ(GetCurrentTimestamp()), WH_INT8(rows)
		};

		wh_spi_begin();
		wh_query("INSERT INTO _wh.job_run_details"
				 " (job_pid, command, status, return_message, start_time, end_time, rows, reason)"
				 " VALUES ($1, $2, 'succeeded', $3, $4, $5, $6, 'run at once by ' || session_user)",
				 lengthof(args), args);
		wh_spi_end();
	}
}

static void
report(const WhAdoption *adoption, ReturnSetInfo *result)
{
	report_view(adoption, &adoption->public_view, "public view", result);
	report_view(adoption, &adoption->tenant_view, "tenant view", result);
	for (int i = adoption->n - 1; i >= 0; i--)
		report_relation(adoption, &adoption->relations[i], result);
	report_pg_cron(adoption, result);
}

static Datum
run(FunctionCallInfo fcinfo, bool dry_run)
{
	WhAdoption	adoption = {.dry_run = dry_run};
	TimestampTz started_at = GetCurrentTimestamp();
	WhLogContext context = {.operation = dry_run ? "plan_adopt" : "adopt"};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	if (!dry_run)
		wh_audit_call(fcinfo);
	adoption.template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	adoption.tenant_name = wh_tenant_text_arg(fcinfo, 1, "tenant_name");
	adoption.schema = PG_ARGISNULL(2) ?
		wh_subscribe_default_schema(adoption.template_name, adoption.tenant_name) :
		text_to_cstring(PG_GETARG_TEXT_PP(2));
	context.template_name = adoption.template_name;
	context.tenant_name = adoption.tenant_name;
	context.schema = adoption.schema;
	InitMaterializedSRF(fcinfo, 0);

	wh_log_context_push(&context);
	wh_adopt(&adoption);
	if (!dry_run)
		record(&adoption, started_at);
	wh_log_context_pop(&context);
	report(&adoption, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

Datum
wh_sql_adopt(PG_FUNCTION_ARGS)
{
	return run(fcinfo, false);
}

Datum
wh_sql_plan_adopt(PG_FUNCTION_ARGS)
{
	return run(fcinfo, true);
}
