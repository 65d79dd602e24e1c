/*
 * sql_job.c: the worker's side of an sql job: who may run it, the process that
 * does, and what it says.
 *
 * Called by worker.c.  The command never runs here, because this session is
 * admin_role's: a RESET ROLE in it would lead back to the owner of the
 * warehouse.  It runs in a process connected as the role of the schedule
 * (sql_job_process.c), for which there is nothing to go back to.
 *
 * The owner of _wh.schedules can write any name into username, so a name is
 * only believed if admin_role may SET ROLE to it anyway, and is never a
 * superuser's.  That is asked here, when the job runs, and by the process again
 * when it is connected, by OID, since roles change in between.
 *
 * The worker waits without a transaction, so that it holds back no VACUUM.
 * However it leaves, the process is ended first.  Locks the schedule's row
 * when its role is gone, and nothing else.
 */
#include "postgres.h"

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "libpq/pqmq.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "schedule_check.h"
#include "sql_job.h"
#include "sql_job_private.h"
#include "sqlutil.h"
#include "status.h"
#include "wait_event.h"
#include "wh_worker.h"

/* For a free background worker slot. */
#define SLOT_WAIT_MS (30 * 1000)
#define SLOT_AGAIN_MS 200

/* For a process that was terminated. */
#define END_WAIT_MS (5 * 1000)

/* What is kept of a message. */
#define MESSAGE_SIZE 8192

typedef struct Process
{
	const WhJob *job;
	dsm_segment *segment;
	WhSqlJobShared *shared;
	shm_mq_handle *queue;
	BackgroundWorkerHandle *handle; /* NULL: not registered */
	ErrorData  *error;			/* the first one that it raised, or NULL */
	MemoryContext message_context;
} Process;

/* Whether the last command had something committed before it failed. */
static bool partly_committed = false;

/* Of the last command that succeeded. */
static char last_tag[COMPLETION_TAG_BUFSIZE];

/* ---- who may run it ---- */

void
wh_sql_job_check_role(Oid role)
{
	char	   *problem = wh_schedule_role_problem(role);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s", problem),
				 errdetail("Scheduled commands run as a role that \"%s\" may SET ROLE to, and never as a superuser.",
						   wh_admin_role)));
}

/* Visible in the table, and in nobody's way until the role is back. */
static void
disable_schedule(const WhJob *job)
{
	WhArg		args[] = {
		WH_INT8(job->schedule_id), WH_TEXT(job->username),
		WH_TEXT(psprintf("disabled: role \"%s\" does not exist", job->username))
	};

	wh_spi_begin();
	(void) wh_schedule_write("UPDATE _wh.schedules SET active = false, last_status = $3"
							 " WHERE schedule_id = $1 AND username = $2", lengthof(args), args);
	wh_notify_config_on_commit();
	wh_spi_end();
}

/* The role, checked; InvalidOid when there is none and the schedule is disabled. */
static Oid
role_of(const WhJob *job)
{
	MemoryContext old = CurrentMemoryContext;
	Oid			role;

	wh_begin_transaction();
	role = get_role_oid(job->username, true);
	if (OidIsValid(role))
		wh_sql_job_check_role(role);
	else
		disable_schedule(job);
	wh_commit_transaction(old);
	return role;
}

static Oid
require_role(const WhJob *job)
{
	Oid			role;

	if (job->command == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("schedule " INT64_FORMAT " does not exist", job->schedule_id)));
	role = role_of(job);
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", job->username),
				 errdetail("Schedule \"%s\" is disabled.", job->schedule_name)));
	return role;
}

/* ---- the process ---- */

static void
create_segment(Process *process, Oid role)
{
	const WhJob *job = process->job;
	Size		command_size = strlen(job->command) + 1;
	shm_toc_estimator estimator;
	shm_toc    *toc;
	shm_mq	   *queue;
	char	   *command;

	shm_toc_initialize_estimator(&estimator);
	shm_toc_estimate_chunk(&estimator, sizeof(WhSqlJobShared));
	shm_toc_estimate_chunk(&estimator, command_size);
	shm_toc_estimate_chunk(&estimator, WH_SQL_JOB_QUEUE_SIZE);
	shm_toc_estimate_keys(&estimator, 3);
	process->segment = dsm_create(shm_toc_estimate(&estimator), 0);
	toc = shm_toc_create(WH_SQL_JOB_MAGIC, dsm_segment_address(process->segment),
						 shm_toc_estimate(&estimator));

	process->shared = shm_toc_allocate(toc, sizeof(WhSqlJobShared));
	memset(process->shared, 0, sizeof(WhSqlJobShared));
	process->shared->database_oid = MyDatabaseId;
	process->shared->role_oid = role;
	snprintf(process->shared->application_name, NAMEDATALEN, "wh_worker sql: %s",
			 job->schedule_name);
	shm_toc_insert(toc, WH_SQL_JOB_SHARED, process->shared);

	command = shm_toc_allocate(toc, command_size);
	memcpy(command, job->command, command_size);
	shm_toc_insert(toc, WH_SQL_JOB_COMMAND, command);

	queue = shm_mq_create(shm_toc_allocate(toc, WH_SQL_JOB_QUEUE_SIZE), WH_SQL_JOB_QUEUE_SIZE);
	shm_toc_insert(toc, WH_SQL_JOB_QUEUE, queue);
	shm_mq_set_receiver(queue, MyProc);
	process->queue = shm_mq_attach(queue, process->segment, NULL);
}

/* Another job's end may free a slot: waiting for it costs no attempt. */
static void
wait_for_slot(TimestampTz since)
{
	static const char *const problem =
		"no background worker slot is free; increase max_worker_processes";

	if (TimestampDifferenceExceeds(since, GetCurrentTimestamp(), SLOT_WAIT_MS))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start a process for an sql job: no background worker slot is free"),
				 errhint("Increase max_worker_processes: every sql job that runs needs one.")));
	wh_status_error(problem);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 SLOT_AGAIN_MS, wh_wait_event(WH_WAIT_SQL_START));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

static void
start_process(Process *process)
{
	TimestampTz since = GetCurrentTimestamp();
	bool		waited = false;
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(process->segment));
	strlcpy(worker.bgw_library_name, WH_LIBRARY_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "wh_sql_job_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, process->shared->application_name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, "wh_worker sql", BGW_MAXLEN);

	while (!RegisterDynamicBackgroundWorker(&worker, &process->handle))
	{
		process->handle = NULL;
		waited = true;
		wait_for_slot(since);
	}
	if (waited)
		wh_status_error("");
	shm_mq_set_handle(process->queue, process->handle);
}

static bool
has_ended(Process *process)
{
	pid_t		pid;
	BgwHandleStatus status = GetBackgroundWorkerPid(process->handle, &pid);

	return status == BGWH_STOPPED || status == BGWH_POSTMASTER_DIED;
}

/* False if it goes on.  Also run while this process exits, so without looking at interrupts. */
static bool
terminate_process(Process *process)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), END_WAIT_MS);

	TerminateBackgroundWorker(process->handle);
	while (!has_ended(process))
	{
		long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (left <= 0)
		{
			ereport(LOG,
					(errmsg("the process of job " INT64_FORMAT " has not ended yet, although it was terminated",
							process->job->job_id)));
			return false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, wh_wait_event(WH_WAIT_SQL_END));
		ResetLatch(MyLatch);
	}
	return true;
}

/*
 * When all went well, it has ended by itself.  Its queue is detached from before
 * it is waited for, because it cannot end while it has something to say; what
 * it committed is only known after that, and not if it goes on.
 */
static void
end_process(int code, Datum arg)
{
	Process    *process = (Process *) DatumGetPointer(arg);
	bool		ended = true;

	if (process->queue != NULL)
		shm_mq_detach(process->queue);
	process->queue = NULL;
	if (process->handle != NULL && !has_ended(process))
		ended = terminate_process(process);
	process->handle = NULL;
	if (process->segment != NULL)
	{
		partly_committed = !ended || (process->shared != NULL && process->shared->committed);
		dsm_detach(process->segment);
	}
	process->segment = NULL;
}

/* ---- what it says ---- */

/*
 * Text that can be stored: the process may have chosen another client_encoding,
 * and a message may be of any length.
 */
static char *
clean_text(const char *text)
{
	char	   *copy;
	int			len;

	if (text == NULL)
		return NULL;
	len = strlen(text);
	if (!pg_verify_mbstr(GetDatabaseEncoding(), text, len, true))
	{
		copy = pnstrdup(text, Min(len, MESSAGE_SIZE));
		for (char *p = copy; *p != '\0'; p++)
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
		return copy;
	}
	return pnstrdup(text, pg_mbcliplen(text, len, MESSAGE_SIZE));
}

static void
keep_error(Process *process, const ErrorData *message, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);

	process->error = palloc0(sizeof(ErrorData));
	process->error->sqlerrcode = message->sqlerrcode;
	process->error->message = clean_text(message->message);
	process->error->detail = clean_text(message->detail);
	process->error->hint = clean_text(message->hint);
	MemoryContextSwitchTo(old);
}

/* The process itself logs what log_min_messages lets it. */
static void
log_notice(const Process *process, const ErrorData *message)
{
	if (message->elevel >= log_min_messages)
		return;
	ereport(LOG,
			(errmsg("job " INT64_FORMAT ", schedule \"%s\": %s:  %s",
					process->job->job_id, process->job->schedule_name,
					message->elevel == WARNING ? "WARNING" :
					message->elevel == NOTICE ? "NOTICE" : "INFO",
					clean_text(message->message)),
			 message->detail ? errdetail_internal("%s", clean_text(message->detail)) : 0,
			 message->hint ? errhint("%s", clean_text(message->hint)) : 0));
}

static void
take_message(Process *process, const void *data, Size size)
{
	MemoryContext old = MemoryContextSwitchTo(process->message_context);
	StringInfoData buffer;
	ErrorData	message;
	char		type;

	initStringInfo(&buffer);
	appendBinaryStringInfo(&buffer, data, size);
	type = pq_getmsgbyte(&buffer);
	if (type == 'E' || type == 'N')
	{
		pq_parse_errornotice(&buffer, &message);
		if (type == 'N')
			log_notice(process, &message);
		else if (process->error == NULL)
			keep_error(process, &message, old);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(process->message_context);
}

/* Until the process detaches, which is the last that it does. */
static void
listen_to(Process *process)
{
	for (;;)
	{
		Size		size;
		void	   *data;
		shm_mq_result result;

		CHECK_FOR_INTERRUPTS();
		result = shm_mq_receive(process->queue, &size, &data, true);
		if (result == SHM_MQ_DETACHED)
			break;
		if (result == SHM_MQ_SUCCESS)
		{
			take_message(process, data, size);
			continue;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH, -1, wh_wait_event(WH_WAIT_SQL_RUN));
		ResetLatch(MyLatch);
	}
	/* What it did is done: a cancel comes too late. */
	HOLD_CANCEL_INTERRUPTS();
	if (WaitForBackgroundWorkerShutdown(process->handle) == BGWH_POSTMASTER_DIED)
		proc_exit(1);
	RESUME_CANCEL_INTERRUPTS();
}

static void
raise_error(const Process *process)
{
	const ErrorData *error = process->error;

	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !process->shared->cancelled)
		wh_error_mark_remote(); /* the role's statement_timeout is no cancel */
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg_internal("%s", error->message ? error->message : "missing error text"),
			 error->detail ? errdetail_internal("%s", error->detail) : 0,
			 error->hint ? errhint("%s", error->hint) : 0));
}

static int64
take_result(const Process *process)
{
	if (process->error != NULL)
		raise_error(process);
	if (!process->shared->finished)
		ereport(ERROR,
				(errcode(ERRCODE_CRASH_SHUTDOWN),
				 errmsg("the process of the sql job went away")));
	strlcpy(last_tag, process->shared->tag, sizeof(last_tag));
	return process->shared->rows;
}

const char *
wh_sql_job_tag(void)
{
	return last_tag[0] != '\0' ? last_tag : NULL;
}

bool
wh_sql_job_may_repeat(const WhFailure *failure)
{
	return !partly_committed &&
		strcmp(failure->sqlstate, "57014") != 0 &&	/* query_canceled */
		strcmp(failure->sqlstate, "57P01") != 0;	/* admin_shutdown */
}

int64
wh_sql_job_run(const WhJob *job)
{
	Process		process = {.job = job};
	int64		rows;
	Oid			role;

	partly_committed = false;
	wh_status_phase(WH_PHASE_RUNNING);
	role = require_role(job);
	process.message_context = AllocSetContextCreate(CurrentMemoryContext, "wh_worker messages",
													ALLOCSET_DEFAULT_SIZES);
	PG_ENSURE_ERROR_CLEANUP(end_process, PointerGetDatum(&process));
	{
		create_segment(&process, role);
		start_process(&process);
		listen_to(&process);
		rows = take_result(&process);
	}
	PG_END_ENSURE_ERROR_CLEANUP(end_process, PointerGetDatum(&process));
	end_process(0, PointerGetDatum(&process));
	return rows;
}
