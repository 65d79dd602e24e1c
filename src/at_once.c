/*
 * at_once.c: the functions that load days and make views in the caller's
 * transaction.
 *
 * Called from SQL only.  Wrong use raises; trouble at a tenant is a WARNING, a
 * row in job_run_details, a note in the ledger and a false or a status.  To
 * go on after such trouble, every day is fetched, and later put in place, in a
 * subtransaction of its own.
 *
 * All days are loaded before the first of them is put in place, so that no
 * reader waits for a network.  May not queue anything; workers do not come
 * here.
 *
 * Locks, in this order: the advisory locks of the days, by date, each before
 * its fetch; what publish.c locks; then existing days, by date, from their
 * swap to the end of the caller's transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "error.h"
#include "publish.h"
#include "refresh.h"
#include "sqlutil.h"
#include "status.h"
#include "subscribe.h"
#include "tenant.h"
#include "wh_worker.h"

/* One day of a call, and what became of it. */
typedef struct OnceDay
{
	DateADT		date;
	WhRefresh  *refresh;		/* its new content, or NULL */
	WhFailure  *failure;		/* why it was not loaded, or NULL */
	WhPhase		phase;			/* in which it failed */
	TimestampTz started_at;
	TimestampTz ended_at;
} OnceDay;

typedef struct OnceCall
{
	char	   *template_name;
	char	   *tenant_name;
	char	   *schema;
	int			ndays;
	OnceDay    *days;			/* by date */
	WhRemote   *remote;			/* kept from day to day */
	const OnceDay *unreachable; /* the day for which no connection was had */
} OnceCall;

typedef void (*OnceStep) (OnceCall *call, OnceDay *day);

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

/* ---- one step of one day, in a subtransaction ---- */

static void
close_remote(OnceCall *call)
{
	WhRemote   *remote = call->remote;

	call->remote = NULL;
	if (remote != NULL)
		wh_remote_close(remote);
}

/*
 * Whether an error is about the tenant or its data.  What remote.c raises is,
 * whatever its SQLSTATE: a tenant's query may be cancelled at the tenant.  Of
 * our own errors only those that its rows can cause are: a cancel, a lack of
 * memory, a lock that was not had or a name that is taken are the caller's.
 */
static bool
is_tenant_trouble(const ErrorData *edata)
{
	if (edata->filename != NULL && strcmp(edata->filename, "remote.c") == 0)
		return true;

	switch (ERRCODE_TO_CATEGORY(edata->sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
		default:
			return false;
	}
}

static void
warn_of_failure(const OnceCall *call, const OnceDay *day, int sqlerrcode)
{
	ereport(WARNING,
			(errcode(sqlerrcode),
			 errmsg("%s of template \"%s\" could not be loaded from tenant \"%s\"",
					wh_date_text(day->date), call->template_name, call->tenant_name),
			 errdetail("%s", day->failure->message)));
}

/* Runs the step; false if it failed for a reason that the call survives. */
static bool
attempt(OnceCall *call, OnceDay *day, OnceStep step)
{
	MemoryContext old_context = CurrentMemoryContext;
	ResourceOwner old_owner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;

	wh_error_reset();
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(old_context);
	PG_TRY();
	{
		step(call, day);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old_context);
		edata = CopyErrorData();
		FlushErrorState();
		day->phase = wh_status_get_phase();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	CurrentResourceOwner = old_owner;
	if (edata == NULL)
		return true;

	close_remote(call);
	if (!is_tenant_trouble(edata))
		ReThrowError(edata);
	day->failure = wh_failure_from_error(edata);
	warn_of_failure(call, day, edata->sqlerrcode);
	return false;
}

static void
fetch_step(OnceCall *call, OnceDay *day)
{
	day->refresh = wh_refresh_fetch(call->template_name, call->tenant_name,
									call->schema, day->date, 0, &call->remote);
}

static void
finish_step(OnceCall *call pg_attribute_unused(), OnceDay *day)
{
	wh_refresh_finish(day->refresh);
}

/* ---- the steps of all days ---- */

static void
fetch_day(OnceCall *call, OnceDay *day)
{
	day->started_at = GetCurrentTimestamp();
	if (call->unreachable != NULL)
	{
		/* one long wait for a dead tenant is enough */
		day->failure = call->unreachable->failure;
		day->phase = call->unreachable->phase;
	}
	else if (!attempt(call, day, fetch_step))
	{
		day->refresh = NULL;
		if (day->phase == WH_PHASE_CONNECTING)
			call->unreachable = day;
	}
	day->ended_at = GetCurrentTimestamp();
}

static void
fetch_all_days(OnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		CHECK_FOR_INTERRUPTS();
		fetch_day(call, &call->days[i]);
	}
}

static void
fetch_days(OnceCall *call)
{
	PG_TRY();
	{
		fetch_all_days(call);
	}
	PG_CATCH();
	{
		close_remote(call);
		PG_RE_THROW();
	}
	PG_END_TRY();
	close_remote(call);
}

/* Puts either the new days in place or the existing ones. */
static void
finish_days(OnceCall *call, bool created)
{
	for (int i = 0; i < call->ndays; i++)
	{
		OnceDay    *day = &call->days[i];

		CHECK_FOR_INTERRUPTS();
		if (day->refresh == NULL || day->refresh->day->created != created)
			continue;
		if (!attempt(call, day, finish_step))
		{
			wh_load_discard(day->refresh->day);
			day->refresh = NULL;
		}
		day->ended_at = GetCurrentTimestamp();
	}
}

static bool
any_day_loaded(const OnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		if (call->days[i].refresh != NULL)
			return true;
	}
	return false;
}

/* What is left for people: who asked, what happened, how much came. */
static void
record_day(const OnceCall *call, const OnceDay *day)
{
	const WhFailure *failure = day->failure;
	WhArg		args[] = {
		WH_INT4(MyProcPid),
		WH_TEXT(psprintf("refresh %s %s from %s into %s", call->template_name,
						 wh_date_text(day->date), call->tenant_name, call->schema)),
		WH_TEXT(failure ? "failed" : "succeeded"),
		WH_TEXT(failure ? failure->message :
				psprintf("loaded " INT64_FORMAT " rows", day->refresh->day->rows)),
		WH_TSTZ(day->started_at),
		WH_TSTZ(day->ended_at),
		WH_TEXT(failure ? failure->sqlstate : NULL),
		WH_TEXT(failure ? wh_status_phase_name(day->phase) : NULL),
		wh_arg_nullable(INT8OID, failure ? (Datum) 0 : Int64GetDatum(day->refresh->day->rows),
						failure != NULL),
		wh_arg_nullable(INT8OID, failure ? (Datum) 0 : Int64GetDatum(day->refresh->bytes_received),
						failure != NULL)
	};

	wh_spi_begin();
	wh_query("INSERT INTO _wh.job_run_details"
			 " (job_pid, command, status, return_message, start_time, end_time,"
			 "  sqlstate, phase, rows, bytes, reason)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'run at once by ' || session_user)",
			 lengthof(args), args);
	wh_spi_end();
	if (failure != NULL)
		wh_refresh_failed(call->template_name, call->tenant_name, call->schema,
						  day->date, 0, failure->message);
}

/*
 * New days go into the views before existing ones are swapped, because readers
 * lock a view before its days.
 */
static void
load_days(OnceCall *call)
{
	fetch_days(call);
	finish_days(call, true);
	if (any_day_loaded(call))
	{
		wh_status_phase(WH_PHASE_PUBLISHING);
		wh_publish_tenant_view(call->template_name, call->schema);
		wh_publish_public_view(call->template_name);
		finish_days(call, false);
	}
	for (int i = 0; i < call->ndays; i++)
		record_day(call, &call->days[i]);
	wh_publish_counters(call->template_name, call->schema);
	wh_status_phase(WH_PHASE_IDLE);
}

/* ---- arguments ---- */

/* As current_date_utc(): of the transaction's start. */
static DateADT
today_utc(void)
{
	return (DateADT) (GetCurrentTransactionStartTimestamp() / USECS_PER_DAY);
}

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
	if (date > today_utc() + 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s is in the future", name, wh_date_text(date)),
				 errhint("Days are UTC dates; it is %s.", wh_date_text(today_utc()))));
	(void) wh_date_text(date);	/* refuses years that have not four digits */
	return date;
}

/* The first three arguments; without a schema argument the usual one. */
static OnceCall *
begin_call(FunctionCallInfo fcinfo, bool has_schema)
{
	OnceCall   *call = palloc0(sizeof(OnceCall));

	wh_require_preloaded();
	call->template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	call->tenant_name = wh_tenant_text_arg(fcinfo, 1, "tenant_connection_name");
	call->schema = has_schema ? wh_tenant_text_arg(fcinfo, 2, "target_schema") :
		wh_subscribe_default_schema(call->template_name, call->tenant_name);
	return call;
}

/* The days from first to last, of which there may be many. */
static void
set_days(OnceCall *call, DateADT first, DateADT last)
{
	call->ndays = last - first + 1;
	call->days = MemoryContextAllocExtended(CurrentMemoryContext,
											sizeof(OnceDay) * (Size) call->ndays,
											MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < call->ndays; i++)
		call->days[i].date = first + i;
}

static void
subscribe_and_load(OnceCall *call, DateADT first, DateADT last)
{
	wh_require_running();
	wh_subscribe_if_missing(call->template_name, call->tenant_name, call->schema, today_utc());
	set_days(call, first, last);
	load_days(call);
}

/* ---- single days ---- */

static bool
day_exists(const OnceCall *call, DateADT date)
{
	WhArg		args[] = {WH_TEXT(call->template_name), WH_TEXT(call->schema), WH_DATE(date)};
	bool		exists;

	wh_spi_begin();
	exists = wh_query("SELECT FROM _wh.day_loads d"
					  " JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid"
					  " WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = $3",
					  lengthof(args), args) > 0;
	wh_spi_end();
	return exists;
}

Datum
wh_sql_create_mv_from_template(PG_FUNCTION_ARGS)
{
	OnceCall   *call = begin_call(fcinfo, true);
	DateADT		date = date_arg(fcinfo, 3, "target_date");

	wh_require_running();
	wh_subscribe_if_missing(call->template_name, call->tenant_name, call->schema, today_utc());
	if (day_exists(call, date))
	{
		ereport(NOTICE,
				(errmsg("%s of template \"%s\" is already in schema \"%s\", skipping",
						wh_date_text(date), call->template_name, call->schema)));
		PG_RETURN_BOOL(true);
	}
	set_days(call, date, date);
	load_days(call);
	PG_RETURN_BOOL(call->days[0].failure == NULL);
}

/* Whether yesterday's content is from before yesterday ended. */
static bool
yesterday_is_unfinished(const OnceCall *call, DateADT today)
{
	WhArg		args[] = {
		WH_TEXT(call->template_name), WH_TEXT(call->schema), WH_DATE(today - 1),
		WH_TSTZ((TimestampTz) today * USECS_PER_DAY)
	};
	bool		unfinished;

	wh_spi_begin();
	unfinished = wh_query("SELECT FROM _wh.day_loads"
						  " WHERE template_name = $1 AND target_schema = $2 AND target_date = $3"
						  " AND state IN ('loaded', 'published') AND fetch_started_at < $4",
						  lengthof(args), args) > 0;
	wh_spi_end();
	return unfinished;
}

static bool
update_day(OnceCall *call, DateADT date, bool allow_refresh_yesterday)
{
	bool		with_yesterday = allow_refresh_yesterday && date == today_utc() &&
	yesterday_is_unfinished(call, date);

	subscribe_and_load(call, with_yesterday ? date - 1 : date, date);
	return call->days[call->ndays - 1].failure == NULL;
}

Datum
wh_sql_update_mv_by_template(PG_FUNCTION_ARGS)
{
	OnceCall   *call = begin_call(fcinfo, true);
	DateADT		date = date_arg(fcinfo, 3, "target_date");
	bool		allow_refresh_yesterday = PG_ARGISNULL(4) || PG_GETARG_BOOL(4);

	PG_RETURN_BOOL(update_day(call, date, allow_refresh_yesterday));
}

Datum
wh_sql_update_mv_by_template_short(PG_FUNCTION_ARGS)
{
	OnceCall   *call = begin_call(fcinfo, false);

	PG_RETURN_BOOL(update_day(call, date_arg(fcinfo, 2, "target_date"), true));
}

/* ---- windows ---- */

static void
append_status(StringInfo json, const OnceDay *day)
{
	appendStringInfo(json, "\"%s\": ", wh_date_text(day->date));
	if (day->failure == NULL)
	{
		appendStringInfo(json, "{\"status\": \"loaded\", \"rows\": " INT64_FORMAT "}",
						 day->refresh->day->rows);
		return;
	}
	appendStringInfoString(json, "{\"status\": \"failed\", \"error\": ");
	escape_json(json, day->failure->message);
	appendStringInfo(json, ", \"sqlstate\": \"%s\"}", day->failure->sqlstate);
}

static Datum
status_of_days(const OnceCall *call)
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
update_window(OnceCall *call, DateADT first, DateADT last)
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
	OnceCall   *call = begin_call(fcinfo, true);

	return update_window(call, date_arg(fcinfo, 3, "start_date"), date_arg(fcinfo, 4, "end_date"));
}

Datum
wh_sql_update_mv_window_by_template_short(PG_FUNCTION_ARGS)
{
	OnceCall   *call = begin_call(fcinfo, false);

	return update_window(call, date_arg(fcinfo, 2, "start_date"), date_arg(fcinfo, 3, "end_date"));
}

/* ---- views ---- */

static bool
update_tenant_view(OnceCall *call)
{
	wh_subscribe_if_missing(call->template_name, call->tenant_name, call->schema, today_utc());
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
	template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	wh_publish_public_view(template_name);
	PG_RETURN_BOOL(true);
}

/* ---- by the name of the relation ---- */

static Oid
find_matview(const char *schema, const char *view_name)
{
	Oid			namespace_oid = get_namespace_oid(schema, true);
	Oid			relid = InvalidOid;

	if (OidIsValid(namespace_oid))
		relid = get_relname_relid(view_name, namespace_oid);
	if (OidIsValid(relid) && get_rel_relkind(relid) != RELKIND_MATVIEW)
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
static OnceCall *
call_for_relation(char *schema, Oid relid)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(schema), WH_OID(relid)};
	OnceCall   *call = palloc0(sizeof(OnceCall));
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
	set_days(call, date, date);
	return call;
}

Datum
wh_sql_refresh_mv(PG_FUNCTION_ARGS)
{
	char	   *schema;
	char	   *view_name;
	Oid			relid;
	OnceCall   *call;

	wh_require_preloaded();
	schema = wh_tenant_text_arg(fcinfo, 0, "target_schema");
	view_name = wh_tenant_text_arg(fcinfo, 1, "view_name");
	relid = find_matview(schema, view_name);
	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("materialized view \"%s.%s\" does not exist", schema, view_name),
				 errhint("Create a day with _wh.create_mv_from_template().")));

	call = call_for_relation(schema, relid);
	if (call != NULL)
	{
		wh_require_running();
		load_days(call);
		PG_RETURN_BOOL(call->days[0].failure == NULL);
	}

	/* not a day of ours: an ordinary refresh, with admin_role's rights */
	wh_spi_begin();
	wh_utility("REFRESH MATERIALIZED VIEW %s", quote_qualified_identifier(schema, view_name));
	wh_spi_end();
	PG_RETURN_BOOL(true);
}
