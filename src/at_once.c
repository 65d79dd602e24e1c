/*
 * at_once.c: loads days in the caller's transaction.
 *
 * Called by at_once_sql.c.  Wrong use raises; trouble at a tenant is a
 * WARNING, a row in job_run_details and a note in the ledger.  To go on after
 * such trouble, every day is fetched, and later put in place, in a
 * subtransaction of its own.
 *
 * All days are loaded before the first of them is put in place, so that no
 * reader waits for a network.  May not queue anything; workers do not come
 * here.
 *
 * Locks, in this order: the advisory locks of the days, by date, each before
 * its fetch; those of the tables that late.c puts days into; what publish.c locks; then existing days, by date, from their
 * swap to the end of the caller's transaction.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "at_once.h"
#include "attempt.h"
#include "error.h"
#include "metrics.h"
#include "missing.h"
#include "politely.h"
#include "publish.h"
#include "sqlutil.h"
#include "status.h"
#include "wh_worker.h"

typedef void (*OnceStep) (WhOnceCall *call, WhOnceDay *day);

/* ---- one step of one day, in a subtransaction ---- */

static void
close_remote(WhOnceCall *call)
{
	WhRemote   *remote = call->remote;

	call->remote = NULL;
	if (remote != NULL)
		wh_remote_close(remote);
}

/*
 * Whether an error is about the tenant or its data.  What the tenant caused is,
 * whatever its SQLSTATE: a tenant's query may be cancelled at the tenant.  Of
 * our own errors only those that its rows can cause are: a cancel, a lack of
 * memory, a lock that was not had or a name that is taken are the caller's.
 */
static bool
is_tenant_trouble(const ErrorData *edata)
{
	if (wh_error_is_remote())
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
set_log_date(WhOnceCall *call, const WhOnceDay *day)
{
	call->log.has_date = day != NULL;
	if (day != NULL)
		call->log.date = day->date;
}

static void
warn_of_failure(WhOnceCall *call, const WhOnceDay *day)
{
	set_log_date(call, day);
	ereport(WARNING,
			(errcode(day->sqlerrcode),
			 errmsg("%s of template \"%s\" could not be loaded from tenant \"%s\"",
					wh_date_text(day->date), call->template_name, call->tenant_name),
			 errdetail("%s", day->failure->message)));
}

static void
notice_unchanged(const WhOnceCall *call, const WhOnceDay *day)
{
	ereport(NOTICE,
			(errmsg("%s of template \"%s\" is unchanged at tenant \"%s\", skipping",
					wh_date_text(day->date), call->template_name, call->tenant_name)));
}

typedef struct Attempt
{
	WhOnceCall *call;
	WhOnceDay  *day;
	OnceStep	step;
} Attempt;

static void
run_step(void *arg)
{
	const Attempt *attempt = arg;

	attempt->step(attempt->call, attempt->day);
}

/* Runs the step; false if it failed for a reason that the call survives. */
static bool
attempt(WhOnceCall *call, WhOnceDay *day, OnceStep step)
{
	Attempt		what = {call, day, step};
	ErrorData  *edata;

	wh_error_reset();
	set_log_date(call, day);
	edata = wh_attempt(run_step, &what);
	if (edata == NULL)
		return true;

	day->phase = wh_status_get_phase();
	close_remote(call);
	if (!is_tenant_trouble(edata))
		ReThrowError(edata);
	day->failure = wh_failure_from_error(edata);
	day->sqlerrcode = edata->sqlerrcode;
	return false;
}

static void
fetch_step(WhOnceCall *call, WhOnceDay *day)
{
	day->fetched = wh_refresh_fetch(call->template_name, call->tenant_name,
									call->schema, day->date, 0,
									call->is_forced ? WH_REFRESH_FORCED : 0, NULL, &call->remote);
}

static void
prepare_step(WhOnceCall *call, WhOnceDay *day)
{
	wh_refresh_prepare(day->fetched, &call->tables);
}

static void
finish_step(WhOnceCall *call pg_attribute_unused(), WhOnceDay *day)
{
	wh_refresh_finish(day->refresh);
}

/* ---- the steps of all days ---- */

static void
fetch_day(WhOnceCall *call, WhOnceDay *day)
{
	day->started_at = GetCurrentTimestamp();
	if (call->unreachable != NULL)
	{
		/* one long wait for a dead tenant is enough */
		day->failure = call->unreachable->failure;
		day->sqlerrcode = call->unreachable->sqlerrcode;
		day->phase = call->unreachable->phase;
	}
	else if (!attempt(call, day, fetch_step))
	{
		day->fetched = NULL;
		warn_of_failure(call, day);
		if (day->phase == WH_PHASE_CONNECTING)
			call->unreachable = day;
	}
	day->ended_at = GetCurrentTimestamp();
}

static void
fetch_all_days(WhOnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		CHECK_FOR_INTERRUPTS();
		fetch_day(call, &call->days[i]);
	}
}

static void
fetch_days(WhOnceCall *call)
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

/* Tables of months and years are locked after days, so all days come first. */
static void
prepare_days(WhOnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		WhOnceDay  *day = &call->days[i];

		CHECK_FOR_INTERRUPTS();
		if (day->fetched == NULL || attempt(call, day, prepare_step))
			continue;
		wh_load_discard(day->fetched->day);
		day->fetched = NULL;
		warn_of_failure(call, day);
		day->ended_at = GetCurrentTimestamp();
	}
}

/* What prepare_days() did for it cannot be taken back alone. */
static void
refuse_late_day(const WhOnceDay *day)
{
	if (day->refresh->late != NULL)
		ereport(ERROR,
				(errcode(day->sqlerrcode),
				 errmsg("%s", day->failure->message)));
}

/* Puts either the new days in place or those that have a relation. */
static void
finish_days(WhOnceCall *call, bool is_new)
{
	for (int i = 0; i < call->ndays; i++)
	{
		WhOnceDay    *day = &call->days[i];

		CHECK_FOR_INTERRUPTS();
		if (day->refresh == NULL || day->refresh->unchanged || day->refresh->is_new != is_new)
			continue;
		if (!attempt(call, day, finish_step))
		{
			refuse_late_day(day);
			wh_load_discard(day->refresh->day);
			day->refresh = NULL;
		}
		day->ended_at = GetCurrentTimestamp();
	}
}

/* Those for which nothing was fetched. */
static void
confirm_days(WhOnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		WhOnceDay  *day = &call->days[i];

		if (day->refresh == NULL || !day->refresh->unchanged)
			continue;
		wh_refresh_finish(day->refresh);
		day->ended_at = GetCurrentTimestamp();
	}
}

static bool
any_day_to_publish(const WhOnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		const WhRefresh *refresh = call->days[i].refresh;

		if (refresh != NULL && !(refresh->unchanged && refresh->is_published))
			return true;
	}
	return false;
}

static const char *
describe_loaded(const WhRefresh *refresh)
{
	if (refresh->unchanged)
		return "unchanged";
	if (refresh->suspicion != NULL)
		return psprintf("suspect: %s", refresh->suspicion);
	return psprintf("loaded " INT64_FORMAT " rows", refresh->day->rows);
}

/* What is left for people: who asked, what happened, how much came. */
static void
record_day(const WhOnceCall *call, const WhOnceDay *day)
{
	const WhFailure *failure = day->failure;
	WhArg		args[] = {
		WH_INT4(MyProcPid),
		WH_TEXT(psprintf("refresh %s %s from %s into %s", call->template_name,
						 wh_date_text(day->date), call->tenant_name, call->schema)),
		WH_TEXT(failure ? "failed" : "succeeded"),
		WH_TEXT(failure ? failure->message : describe_loaded(day->refresh)),
		WH_TSTZ(day->started_at),
		WH_TSTZ(day->ended_at),
		WH_TEXT(failure ? failure->sqlstate : NULL),
		WH_TEXT(failure ? wh_status_phase_name(day->phase) : NULL),
		wh_arg_nullable(INT8OID, failure ? (Datum) 0 : Int64GetDatum(day->refresh->unchanged ? 0 : day->refresh->day->rows),
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

/* Of what an earlier try came to nothing is left. */
static void
begin_finishing(WhOnceCall *call)
{
	for (int i = 0; i < call->ndays; i++)
	{
		WhOnceDay  *day = &call->days[i];

		if (day->fetched == NULL)
			continue;
		day->refresh = day->fetched;
		day->failure = NULL;
	}
}

/*
 * New days go into the views before existing ones are finished, because readers
 * lock a view before its days.  The exchanges are last: from the first of them
 * on readers wait.
 */
static void
finish(void *arg)
{
	WhOnceCall *call = arg;
	bool		any_gone;

	begin_finishing(call);
	/* nobody else publishes what is noticed here */
	any_gone = wh_missing_notice(call->template_name, call->schema) != NIL;
	confirm_days(call);
	finish_days(call, true);
	if (any_gone || any_day_to_publish(call))
	{
		wh_status_phase(WH_PHASE_PUBLISHING);
		wh_publish_tenant_view(call->template_name, call->schema);
		wh_publish_public_view(call->template_name);
		finish_days(call, false);
	}
	for (int i = 0; i < call->ndays; i++)
		record_day(call, &call->days[i]);
	wh_publish_counters(call->template_name, call->schema);
	for (int i = 0; i < call->ndays; i++)
		if (call->days[i].refresh != NULL)
			wh_refresh_exchange(call->days[i].refresh);
}

static void
count_day(const WhOnceCall *call, const WhOnceDay *day)
{
	WhCounted	counted = {
		.kind = WH_COUNTED_CALL,.template_name = call->template_name,
		.result = day->failure != NULL ? WH_COUNTED_FAILED :
		day->refresh->unchanged ? WH_COUNTED_UNCHANGED : WH_COUNTED_SUCCEEDED
	};

	if (counted.result == WH_COUNTED_SUCCEEDED)
	{
		counted.rows = day->refresh->day->rows;
		counted.bytes = day->refresh->bytes_received;
	}
	wh_metrics_count(&counted);
}

static void
load_and_tell(WhOnceCall *call)
{
	fetch_days(call);
	prepare_days(call);
	set_log_date(call, NULL);
	wh_politely(InvalidOid, finish, call);
	for (int i = 0; i < call->ndays; i++)
		if (call->days[i].fetched != NULL && call->days[i].failure != NULL)
			warn_of_failure(call, &call->days[i]);
		else if (call->days[i].refresh != NULL && call->days[i].refresh->unchanged)
			notice_unchanged(call, &call->days[i]);
	for (int i = 0; i < call->ndays; i++)
		count_day(call, &call->days[i]);
	wh_status_phase(WH_PHASE_IDLE);
}

void
wh_once_load(WhOnceCall *call)
{
	call->log.operation = "refresh";
	call->log.template_name = call->template_name;
	call->log.tenant_name = call->tenant_name;
	call->log.schema = call->schema;
	wh_log_context_push(&call->log);
	load_and_tell(call);
	wh_log_context_pop(&call->log);
}

void
wh_once_set_days(WhOnceCall *call, DateADT first, DateADT last)
{
	call->ndays = last - first + 1;
	call->days = MemoryContextAllocExtended(CurrentMemoryContext,
											sizeof(WhOnceDay) * (Size) call->ndays,
											MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < call->ndays; i++)
		call->days[i].date = first + i;
}
