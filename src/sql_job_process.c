/*
 * sql_job_process.c: the process that runs the command of a schedule.
 *
 * A dynamic background worker, started by sql_job.c and connected as the role
 * of the schedule: its session user is that role, so that RESET ROLE and SET
 * SESSION AUTHORIZATION lead nowhere, and its settings (ALTER ROLE ... SET)
 * are those of any session of that role.  It runs one command and leaves.
 *
 * A command is run as psql -c runs it: one transaction for all its statements,
 * unless they say BEGIN and COMMIT themselves; a statement that is alone may
 * be one that needs no transaction around it (VACUUM, CALL with COMMIT).
 *
 * Messages go to the worker's queue as they would go to a client.  There is
 * no client, though, that could be asked for anything: COPY from and to one is
 * refused, since there is no socket to read from.  Reads no table of ours.
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq/pqmq.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

#include "compat.h"
#include "log_context.h"
#include "sql_job.h"
#include "sql_job_private.h"

static WhSqlJobShared *shared = NULL;
static bool transaction_started = false;

/* ---- transactions and their timeout ---- */

static void
start_transaction(void)
{
	if (!transaction_started)
		StartTransactionCommand();
	transaction_started = true;
	if (StatementTimeout > 0)
		enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
}

static void
finish_transaction(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (transaction_started)
		CommitTransactionCommand();
	transaction_started = false;
}

static void
note_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		shared->committed = true;
}

/* ---- one statement ---- */

static void
refuse_client_copy(const Node *statement)
{
	if (IsA(statement, CopyStmt) && ((const CopyStmt *) statement)->filename == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a scheduled command cannot COPY from STDIN or to STDOUT"),
				 errdetail("No client is connected.")));
}

static List *
plan_statement(RawStmt *statement, const char *command)
{
	bool		with_snapshot = analyze_requires_snapshot(statement);
	List	   *plans;

	if (with_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_plan_queries(pg_analyze_and_rewrite_fixedparams(statement, command, NULL, 0, NULL),
							command, CURSOR_OPT_PARALLEL_OK, NULL);
	if (with_snapshot)
		PopActiveSnapshot();
	return plans;
}

static void
note_completion(const QueryCompletion *completion)
{
	const char *name = GetCommandTagName(completion->commandTag);

	if (!command_tag_display_rowcount(completion->commandTag))
	{
		strlcpy(shared->tag, name, sizeof(shared->tag));
		return;
	}
	snprintf(shared->tag, sizeof(shared->tag),
			 completion->commandTag == CMDTAG_INSERT ? "%s 0 " UINT64_FORMAT : "%s " UINT64_FORMAT,
			 name, completion->nprocessed);
	shared->rows += completion->nprocessed;
}

/* "cxt" outlives a transaction: a procedure may commit in the middle. */
static void
run_statement(RawStmt *statement, const char *command, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	DestReceiver *nowhere = CreateDestReceiver(DestNone);
	CommandTag	command_tag = CreateCommandTag(statement->stmt);
	QueryCompletion completion;
	Portal		portal;
	List	   *plans;

	refuse_client_copy(statement->stmt);
	InitializeQueryCompletion(&completion);
	plans = plan_statement(statement, command);
	CHECK_FOR_INTERRUPTS();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command, command_tag, plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	MemoryContextSwitchTo(old);

	(void) WH_PORTAL_RUN(portal, nowhere, &completion);
	nowhere->rDestroy(nowhere);
	PortalDrop(portal, false);
	note_completion(&completion);
}

/* ---- the command ---- */

/* What a statement means for the next one, as for a client's simple query. */
static void
after_statement(const RawStmt *statement, bool is_last, bool is_block)
{
	if (is_last)
	{
		if (is_block)
			EndImplicitTransactionBlock();
		finish_transaction();
	}
	else if (IsA(statement->stmt, TransactionStmt))
		finish_transaction();
	else
	{
		CommandCounterIncrement();
		disable_timeout(STATEMENT_TIMEOUT, false);
	}
}

static void
run_statements(List *statements, const char *command)
{
	bool		is_block = list_length(statements) > 1;
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "wh_worker statement",
											  ALLOCSET_DEFAULT_SIZES);
	ListCell   *cell;

	foreach(cell, statements)
	{
		RawStmt    *statement = lfirst_node(RawStmt, cell);

		start_transaction();
		if (is_block)
			BeginImplicitTransactionBlock();
		CHECK_FOR_INTERRUPTS();
		run_statement(statement, command, cxt);
		after_statement(statement, lnext(statements, cell) == NULL, is_block);
		MemoryContextReset(cxt);
	}
}

static void
run_command(const char *command)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "wh_worker command",
											  ALLOCSET_DEFAULT_SIZES);
	List	   *statements;

	start_transaction();
	MemoryContextSwitchTo(cxt);
	statements = pg_parse_query(command);
	run_statements(statements, command);
	finish_transaction();
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("the command left a transaction open"),
				 errdetail("What it did since BEGIN is rolled back."),
				 errhint("End the command with COMMIT, or leave out its BEGIN.")));
}

/*
 * The error is said while it is the current one, so that it is logged with its
 * statement and reaches the worker; what was open is rolled back after that.
 */
static bool
try_command(const char *command)
{
	volatile bool ok = true;

	PG_TRY();
	{
		run_command(command);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		ok = false;
		HOLD_INTERRUPTS();
		disable_timeout(STATEMENT_TIMEOUT, false);
		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		shared->cancelled = wh_failure_from_error(error)->cancelled;
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	return ok;
}

/* ---- the session ---- */

/* Without a segment who started us is gone, and wants nothing any more. */
static const char *
attach(dsm_handle handle)
{
	dsm_segment *segment = dsm_attach(handle);
	shm_toc    *toc;
	shm_mq	   *queue;

	if (segment == NULL)
		return NULL;
	toc = shm_toc_attach(WH_SQL_JOB_MAGIC, dsm_segment_address(segment));
	if (toc == NULL)
		elog(ERROR, "the segment of an sql job has a wrong magic number");	/* cannot happen */
	shared = shm_toc_lookup(toc, WH_SQL_JOB_SHARED, false);
	queue = shm_toc_lookup(toc, WH_SQL_JOB_QUEUE, false);
	shm_mq_set_sender(queue, MyProc);
	pq_redirect_to_shm_mq(segment, shm_mq_attach(queue, segment, NULL));
	return shm_toc_lookup(toc, WH_SQL_JOB_COMMAND, false);
}

/* The second of the two looks: at the session as it has become. */
static void
check_session(void)
{
	StartTransactionCommand();
	if (GetAuthenticatedUserId() != shared->role_oid ||
		GetSessionUserId() != shared->role_oid || superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the session of an sql job is not that of its role"),
				 errdetail("It is connected as \"%s\", and its current user is \"%s\".",
						   GetUserNameFromId(GetSessionUserId(), false),
						   GetUserNameFromId(GetUserId(), false))));
	wh_sql_job_check_role(shared->role_oid);
	CommitTransactionCommand();
}

/* As a client's would at connection: above the role's, below what it says itself. */
static void
set_client_settings(void)
{
	SetConfigOption("application_name", shared->application_name, PGC_USERSET, PGC_S_CLIENT);
	SetConfigOption("client_encoding", GetDatabaseEncodingName(), PGC_USERSET, PGC_S_CLIENT);
}

void
wh_sql_job_main(Datum arg)
{
	const char *command;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	command = attach(DatumGetUInt32(arg));
	if (command == NULL)
		return;
	wh_log_context_process(shared->application_name, NULL);
	BackgroundWorkerInitializeConnectionByOid(shared->database_oid, shared->role_oid, 0);
	set_client_settings();
	check_session();

	debug_query_string = command;
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, command);
	RegisterXactCallback(note_commit, NULL);
	shared->finished = try_command(command);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(true);
}
