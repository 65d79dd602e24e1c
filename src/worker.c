/*
 * worker.c: claim, run, record; one error boundary.
 *
 * A dynamic background worker, started by the launcher and connected as
 * admin_role.  It takes the job that the launcher puts into its slot and runs
 * it in three transactions: claim (queued to running, so that a crash can be
 * seen), run (load, swap, ledger and succeeded in one commit), and only on an
 * error record (retry, failed or cancelled).  Between jobs it keeps its
 * connection to the tenant; after worker_idle_timeout without a job it goes.
 *
 * May not choose jobs, and knows nothing of how a day is fetched (refresh.c)
 * or published (publish.c), or days are combined (combine.c).
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "activity.h"
#include "attempt.h"
#include "audit.h"
#include "caches.h"
#include "combine_job.h"
#include "convert.h"
#include "error.h"
#include "fetch_day.h"
#include "freshness.h"
#include "guc.h"
#include "locked.h"
#include "log_context.h"
#include "log_event.h"
#include "metrics.h"
#include "politely.h"
#include "publish.h"
#include "queue.h"
#include "refresh.h"
#include "replicate.h"
#include "retention.h"
#include "sql_job.h"
#include "sqlutil.h"
#include "status.h"
#include "version.h"
#include "wait_event.h"
#include "wh_worker.h"
#include "worker.h"

/* How long a tenant is kept waiting with what was asked for ahead. */
#define AHEAD_MS 1000

static WhRemote *kept_remote = NULL;
static WhSequel asked_ahead = {0};
static MemoryContext job_context = NULL;

static void
commit_transaction(void)
{
	wh_commit_then_replicate(job_context);
	pgstat_report_stat(false);
}

static void
show_job(const WhJob *job)
{
	WhSlotInfo	info;

	memset(&info, 0, sizeof(info));
	info.backfill_id = job->backfill_id;
	strlcpy(info.job_kind, wh_queue_kind_name(job->kind), sizeof(info.job_kind));
	if (job->template_name != NULL)
		strlcpy(info.template_name, job->template_name, NAMEDATALEN);
	if (wh_queue_has_target(job))
	{
		strlcpy(info.tenant_name, job->tenant_name, NAMEDATALEN);
		strlcpy(info.target_schema, job->target_schema, NAMEDATALEN);
		info.target_date = job->target_date;
		info.has_date = true;
	}
	info.job_started_at = job->started_at;
	wh_status_job(&info);
	wh_activity_job(job);
}

/* Who has locked a table of ours may keep it for long: the tenant does not wait for him with us. */
static void
spare_tenant(LOCKMODE mode)
{
	if (kept_remote != NULL && wh_remote_is_ahead(kept_remote) && !wh_locked_try(mode))
		wh_day_drop_ahead(&kept_remote);
}

static void
drop_connection(void)
{
	if (kept_remote != NULL)
		wh_remote_close(kept_remote);
	kept_remote = NULL;
}

/* ---- the kinds of jobs ---- */

static void
publish_day(const WhJob *job)
{
	if (job->backfill_id != 0)
		return;					/* a job of its own does it for all of them */
	wh_publish_tenant_view(job->template_name, job->target_schema);
	wh_publish_public_view(job->template_name);
}

typedef struct FinishedDay
{
	const WhJob *job;
	WhRefresh  *refresh;
	bool		tried;			/* and somebody was in the way */
} FinishedDay;

/*
 * Who asks for a day, or asks for it again, is given what it is from then on: a
 * job that has waited in the queue may be wanted by somebody new.
 */
static bool
is_what_was_asked_for(const WhJob *job)
{
	return job->job_id == asked_ahead.job_id && job->newest_request == asked_ahead.newest_request;
}

static void
push_what_is_ahead(void)
{
	if (kept_remote != NULL)
		wh_remote_push(kept_remote);
}

/* What came to nothing the last time may still have to be published. */
static void
finish_unchanged(const FinishedDay *day)
{
	const WhJob *job = day->job;

	wh_refresh_finish(day->refresh);
	if (!day->refresh->is_published)
		publish_day(job);
	if (!day->refresh->is_published && job->backfill_id == 0)
		wh_publish_counters(job->template_name, job->target_schema);
	wh_queue_unchanged(job);
}

/* A publication of its own does so for a backfill. */
static void
keep_counters(const WhJob *job)
{
	wh_publish_counters(job->template_name, job->target_schema);
	wh_spi_begin();
	wh_freshness_loaded(job->job_id);
	wh_spi_end();
}

/*
 * A new day is published when it is in the ledger; any other before, because
 * readers lock a view before its days.  The exchange of its files is last: all
 * that comes after it makes readers wait.
 */
static void
finish_day(void *arg)
{
	FinishedDay *day = arg;
	const WhJob *job = day->job;

	if (day->tried)
		wh_day_drop_ahead(&kept_remote);
	day->tried = true;
	if (day->refresh->unchanged)
	{
		finish_unchanged(day);
		return;
	}
	if (!day->refresh->is_new)
		publish_day(job);
	wh_refresh_finish(day->refresh);
	if (day->refresh->is_new)
		publish_day(job);
	if (job->backfill_id == 0)
		keep_counters(job);
	wh_queue_succeed(job, day->refresh->day->rows, day->refresh->bytes_received, NULL);
	wh_refresh_exchange(day->refresh);
}

/*
 * The tenant could not be reached the last time: if it can be now, the others
 * of its jobs need not wait until this one is done, which may take hours.  The
 * connection is kept for the job.
 */
static void
probe(const WhJob *job)
{
	wh_begin_transaction();
	wh_day_connect(wh_template_read(job->template_name), wh_tenant_read(job->tenant_name),
				   job->target_date, &kept_remote);
	wh_queue_probe_succeeded(job);
	commit_transaction();
	wh_status_wake_launcher();
}

static int
refresh_flags(const WhJob *job)
{
	return (job->is_forced ? WH_REFRESH_FORCED : 0) |
		(job->priority >= WH_PRIORITY_BACKFILL ? WH_REFRESH_HELD : 0);
}

/*
 * From the first lock that a reader feels to the commit nobody is waited for
 * longer than one try: what cannot be had gives back all the others.
 */
static void
run_refresh(const WhJob *job, int64 next_job_id)
{
	FinishedDay day = {.job = job};
	List	   *tables = NIL;
	bool		has_next;

	if (job->is_probe)
		probe(job);
	wh_begin_transaction();
	spare_tenant(AccessShareLock);
	has_next = next_job_id != 0 && wh_queue_is_sequel(job, next_job_id, &asked_ahead);
	day.refresh = wh_refresh_fetch(job->template_name, job->tenant_name,
								   job->target_schema, job->target_date,
								   job->job_id, refresh_flags(job),
								   has_next ? &asked_ahead.target_date : NULL, &kept_remote);
	push_what_is_ahead();
	wh_audit_flush();
	wh_refresh_prepare(day.refresh, &tables);
	wh_politely(InvalidOid, finish_day, &day);
	push_what_is_ahead();
	commit_transaction();
}

static List *
schemas_to_publish(const char *template_name)
{
	List	   *schemas;

	wh_begin_transaction();
	schemas = wh_publish_waiting_schemas(template_name, job_context);
	commit_transaction();
	return schemas;
}

typedef struct SchemaToPublish
{
	const char *template_name;
	const char *schema;
} SchemaToPublish;

/* A day counts as published only when both of its views have it. */
static void
publish_both_views(void *arg)
{
	const SchemaToPublish *publication = arg;

	wh_publish_tenant_view(publication->template_name, publication->schema);
	wh_publish_public_view(publication->template_name);
	wh_publish_counters(publication->template_name, publication->schema);
}

static void
publish_schema(void *arg)
{
	wh_begin_transaction();
	wh_politely(InvalidOid, publish_both_views, arg);
	commit_transaction();
}

/* What a person took away is gone, whatever keeps the view from being made. */
static void
count_schema(void *arg)
{
	const SchemaToPublish *publication = arg;

	wh_begin_transaction();
	wh_publish_count_unpublished(publication->template_name, publication->schema);
	commit_transaction();
}

/*
 * One schema whose view cannot be made (its name is taken) must not keep the
 * others from being published: each has its own transaction, and the first
 * error is raised when all the others are done.
 */
static void
run_publish(const WhJob *job)
{
	ErrorData  *first_error = NULL;
	ListCell   *cell;

	wh_status_phase(WH_PHASE_PUBLISHING);
	foreach(cell, schemas_to_publish(job->template_name))
	{
		SchemaToPublish publication = {job->template_name, lfirst(cell)};
		ErrorData  *error = wh_attempt_transactions(publish_schema, &publication);

		if (error != NULL)
			(void) wh_attempt_transactions(count_schema, &publication);
		if (first_error == NULL)
			first_error = error;
	}

	wh_begin_transaction();
	wh_publish_public_view(job->template_name);
	commit_transaction();
	if (first_error == NULL)
	{
		wh_begin_transaction();
		wh_convert_publish(job->template_name);
		wh_publish_check_complete(job->template_name);
		/* whoever enqueues another one now waits for this commit */
		wh_queue_succeed(job, 0, 0, NULL);
		if (wh_publish_is_out_of_date(job->template_name))
			(void) wh_queue_enqueue_publish(job->template_name, job->backfill_id);
		commit_transaction();
	}
	else
		ReThrowError(first_error);
}

/* The table, what it replaces and the end of the job are one commit. */
static void
run_combine(const WhJob *job)
{
	wh_begin_transaction();
	wh_combine_job(job);
	commit_transaction();
}

/* The new relation, the end of the old one and that of the job are one commit. */
static void
run_convert(const WhJob *job)
{
	wh_begin_transaction();
	wh_convert_job(job);
	commit_transaction();
}

/* It runs in a process of its own, as the role that scheduled it. */
static void
run_sql(const WhJob *job)
{
	int64		rows = wh_sql_job_run(job);

	/* What it did is committed: a cancel comes too late. */
	HOLD_CANCEL_INTERRUPTS();
	wh_begin_transaction();
	wh_queue_succeed(job, rows, 0, wh_sql_job_tag());
	commit_transaction();
	QueryCancelPending = false;
	RESUME_CANCEL_INTERRUPTS();
}

/* ---- claim, run, record ---- */

static WhJob *
claim(int64 job_id)
{
	WhJob	   *job = NULL;
	MemoryContext old;

	wh_begin_transaction();
	spare_tenant(RowExclusiveLock);
	old = MemoryContextSwitchTo(job_context);
	if (wh_version_problem(NULL) == NULL)
		job = wh_queue_claim(job_id);
	MemoryContextSwitchTo(old);
	commit_transaction();
	return job;
}

static void
run(const WhJob *job, int64 next_job_id)
{
	/* A cancel that arrived while the job was still being claimed counts. */
	if (wh_status_cancel_requested())
		QueryCancelPending = InterruptPending = true;
	enable_timeout_after(STATEMENT_TIMEOUT, wh_job_timeout);
	if (!is_what_was_asked_for(job))
		wh_day_drop_ahead(&kept_remote);
	switch (job->kind)
	{
		case WH_JOB_REFRESH:
			run_refresh(job, next_job_id);
			break;
		case WH_JOB_PUBLISH:
			run_publish(job);
			break;
		case WH_JOB_SQL:
			run_sql(job);
			break;
		case WH_JOB_COMBINE_MONTH:
		case WH_JOB_COMBINE_YEAR:
			run_combine(job);
			break;
		case WH_JOB_RETENTION:
			wh_retention_run(job);
			break;
		case WH_JOB_CONVERT:
			run_convert(job);
			break;
	}
	disable_timeout(STATEMENT_TIMEOUT, false);
}

/* Ends whatever the failed attempt left open; nothing here may raise. */
static void
clean_up_after_error(void)
{
	HOLD_INTERRUPTS();
	disable_timeout(STATEMENT_TIMEOUT, false);
	drop_connection();
	AbortCurrentTransaction();
	QueryCancelPending = false;
	FlushErrorState();
	RESUME_INTERRUPTS();
}

static void
record(const WhJob *job, const WhFailure *failure, WhPhase phase)
{
	WhOutcome	outcome;

	/* A second cancel must not keep the first from being written down. */
	HOLD_CANCEL_INTERRUPTS();
	wh_begin_transaction();
	outcome = wh_queue_record_failure(job, failure, wh_status_phase_name(phase),
									  phase == WH_PHASE_CONNECTING);
	if (outcome == WH_OUTCOME_FAILED && job->kind == WH_JOB_REFRESH)
		wh_refresh_failed(job->template_name, job->tenant_name, job->target_schema,
						  job->target_date, job->job_id, failure->message);
	commit_transaction();
	QueryCancelPending = false;
	RESUME_CANCEL_INTERRUPTS();
	wh_log_job_ended_badly(job, failure, outcome, phase);
}

static void
run_and_record(const WhJob *job, int64 next_job_id)
{
	WhFailure  *volatile failure = NULL;
	volatile WhPhase phase = WH_PHASE_IDLE;

	wh_error_reset();
	PG_TRY();
	{
		run(job, next_job_id);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		phase = wh_status_get_phase();
		MemoryContextSwitchTo(job_context);
		error = CopyErrorData();
		failure = wh_failure_from_error(error);
		clean_up_after_error();
	}
	PG_END_TRY();

	if (failure == NULL)
		wh_log_job_succeeded(job);
	else
	{
		/* Whatever error came with it: who cancelled it wants it ended. */
		failure->cancelled = failure->cancelled || wh_status_cancel_requested();
		if (job->kind == WH_JOB_SQL && !wh_sql_job_may_repeat(failure))
			failure->transient = false;
		record(job, failure, phase);
	}
	wh_status_job_done(failure == NULL ? WH_JOB_SUCCEEDED :
					   failure->cancelled ? WH_JOB_NEITHER : WH_JOB_FAILED,
					   failure ? failure->message : NULL);
}

static void
run_assigned(int64 job_id, int64 next_job_id)
{
	WhJob	   *job;

	MemoryContextReset(job_context);
	job = claim(job_id);
	if (job == NULL)
	{
		wh_status_job_done(WH_JOB_NEITHER, NULL);
		return;
	}
	show_job(job);
	wh_metrics_job_begins();
	wh_log_context_job(job);
	wh_log_job_started(job);
	run_and_record(job, next_job_id);
	wh_log_context_job(NULL);
	wh_activity_job(NULL);
}

static void
reload_if_asked(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

static long
left_of(TimestampTz since, int ms)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   TimestampTzPlusMilliseconds(since, ms));
}

/* How long it may sleep; what was asked for ahead is given up when nobody wants it. */
static long
time_to_sleep(TimestampTz idle_since)
{
	long		left = left_of(idle_since, wh_worker_idle_timeout);
	long		ahead_left = left_of(idle_since, AHEAD_MS);

	if (kept_remote == NULL || !wh_remote_is_ahead(kept_remote))
		return left;
	if (ahead_left <= 0)
		wh_day_drop_ahead(&kept_remote);
	return ahead_left <= 0 ? left : Min(left, ahead_left);
}

/* Runs what it is handed until it has been idle for too long. */
static void
serve(const char *database)
{
	TimestampTz idle_since = GetCurrentTimestamp();

	for (;;)
	{
		int64		job_id;
		int64		next_job_id;
		long		left;

		/* A cancel that came too late for its job has nothing to cancel. */
		QueryCancelPending = false;
		CHECK_FOR_INTERRUPTS();
		reload_if_asked();
		job_id = wh_status_take_assignment(&next_job_id);
		if (job_id != 0)
		{
			run_assigned(job_id, next_job_id);
			wh_caches_after_job(job_context);
			idle_since = GetCurrentTimestamp();
			continue;
		}

		left = time_to_sleep(idle_since);
		if (left <= 0 || !wh_enabled || !wh_guc_lists(database) || wh_status_should_leave())
		{
			if (wh_status_retire())
				return;
			continue;
		}
		/* the counters of the last jobs do not wait for the next one */
		pgstat_report_stat(true);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, wh_wait_event(WH_WAIT_WORKER_MAIN));
		ResetLatch(MyLatch);
	}
}

void
wh_worker_main(Datum arg)
{
	static WhWorkerStart start;	/* its name of the database is told as long as we are */

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	wh_log_context_process("worker", start.database);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(start.database_oid, start.role_oid, 0);
	if (!wh_status_attach_worker(start.slot, start.generation))
		return;

	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	/* to compile what it asks catalogs would take longer than to run it */
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_SESSION);
	job_context = AllocSetContextCreate(TopMemoryContext, "wh_worker job",
										ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(job_context);
	wh_status_phase(WH_PHASE_IDLE);
	wh_status_wake_launcher();
	wh_log_process_started("worker", start.database);
	serve(start.database);
	drop_connection();
	wh_log_process_stopped("worker", start.database);
}
