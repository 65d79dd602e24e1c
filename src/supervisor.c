/*
 * supervisor.c: one static background worker that keeps a launcher for each
 * database of wh_worker.databases.
 *
 * It is connected to no database, so that none is kept from being dropped or
 * renamed, and reads shared catalogs only: a launcher that named a missing
 * database or role would die FATAL and fill the log.  What is missing is said
 * once in the log and all the time in worker_status; the cause is looked for
 * again every second while there is one.  May not touch a warehouse table and
 * waits for nothing but its latch.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
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
#include "utils/timestamp.h"

#include "activity.h"
#include "guc.h"
#include "log_context.h"
#include "log_event.h"
#include "status.h"
#include "supervisor.h"
#include "wait_event.h"
#include "wh_worker.h"

#define RECHECK_MS 1000
#define RESTART_INTERVAL_MS 1000
#define RESTART_INTERVAL_MAX_MS (30 * 1000)

/* One listed (or lately listed) database; lives in TopMemoryContext. */
typedef struct ListedDatabase
{
	char		name[NAMEDATALEN];
	int			slot;
	uint32		generation;
	bool		listed;
	BackgroundWorkerHandle *handle; /* NULL: not started by this process */
	TimestampTz started_at;
	int			failures;		/* launchers in a row that never got there */
	char		complaint[WH_ERROR_SIZE];	/* as last logged */
} ListedDatabase;

static List *databases = NIL;

void
wh_supervisor_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, WH_LIBRARY_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "wh_supervisor_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "wh_worker supervisor", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "wh_worker supervisor", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static ListedDatabase *
find_database(const char *name)
{
	ListCell   *cell;

	foreach(cell, databases)
	{
		ListedDatabase *db = lfirst(cell);

		if (strcmp(db->name, name) == 0)
			return db;
	}
	return NULL;
}

static bool
is_listed(const char *name, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

/* Brings the list up to date with the setting; forgets who left and is gone. */
static void
read_list(void)
{
	List	   *names = wh_guc_databases();
	List	   *keep = NIL;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	ListCell   *cell;

	foreach(cell, databases)
		((ListedDatabase *) lfirst(cell))->listed = false;
	/* First those that go, so that their slots serve those that come. */
	foreach(cell, databases)
	{
		ListedDatabase *db = lfirst(cell);

		if (!is_listed(db->name, names) &&
			(db->slot < 0 || wh_status_release_launcher(db->slot)))
			pfree(db);
		else
			keep = lappend(keep, db);
	}
	list_free(databases);
	databases = keep;

	foreach(cell, names)
	{
		ListedDatabase *db = find_database(lfirst(cell));

		if (db == NULL)
		{
			db = palloc0(sizeof(ListedDatabase));
			strlcpy(db->name, lfirst(cell), NAMEDATALEN);
			db->slot = -1;
			databases = lappend(databases, db);
		}
		db->listed = true;
		if (db->slot < 0)
			db->slot = wh_status_launcher_slot(db->name, &db->generation);
	}

	MemoryContextSwitchTo(old);
}

/*
 * The row of a shared catalog with a name in a given column, or NULL.  Read by
 * a sequential scan: a process without a database has no relation cache of
 * catalog indexes, and so no syscache.
 */
static HeapTuple
find_shared_row(Oid catalog, AttrNumber name_column, const char *name)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	TableScanDesc scan = table_beginscan_catalog(rel, 0, NULL);
	HeapTuple	tuple;
	HeapTuple	found = NULL;

	while (found == NULL && (tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, name_column, RelationGetDescr(rel), &isnull);

		if (strcmp(NameStr(*DatumGetName(value)), name) == 0)
			found = heap_copytuple(tuple);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Why the admin role cannot be connected as, or NULL. */
static const char *
role_problem(void)
{
	HeapTuple	tuple = find_shared_row(AuthIdRelationId, Anum_pg_authid_rolname, wh_admin_role);

	if (tuple == NULL)
		return psprintf("role \"%s\" does not exist", wh_admin_role);
	if (!((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin)
		return psprintf("role \"%s\" is not permitted to log in", wh_admin_role);
	return NULL;
}

/* Why a launcher cannot run in that database now, or NULL. */
static const char *
database_problem(const char *name)
{
	HeapTuple	tuple = find_shared_row(DatabaseRelationId, Anum_pg_database_datname, name);

	if (tuple == NULL)
		return psprintf("database \"%s\" does not exist", name);
	if (!((Form_pg_database) GETSTRUCT(tuple))->datallowconn)
		return psprintf("database \"%s\" does not accept connections", name);
	return role_problem();
}

/* Shown all the time, logged when it changes. */
static void
complain(ListedDatabase *db, const char *problem)
{
	wh_status_launcher_waiting(db->slot, problem);
	if (strcmp(db->complaint, problem) == 0)
		return;
	strlcpy(db->complaint, problem, sizeof(db->complaint));
	wh_log_launcher_waits(db->name, problem, NULL);
}

static void
start_launcher(ListedDatabase *db)
{
	BackgroundWorker worker;
	WhLauncherStart start;
	MemoryContext old;
	bool		ok;

	StaticAssertStmt(sizeof(WhLauncherStart) <= BGW_EXTRALEN,
					 "a launcher's arguments must fit into bgw_extra");
	memset(&worker, 0, sizeof(worker));
	memset(&start, 0, sizeof(start));
	start.slot = db->slot;
	start.generation = db->generation;
	strlcpy(start.database, db->name, NAMEDATALEN);

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, WH_LIBRARY_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "wh_launcher_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "wh_worker launcher for %s", db->name);
	strlcpy(worker.bgw_type, "wh_worker launcher", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &start, sizeof(start));

	if (db->handle != NULL)
		pfree(db->handle);
	db->handle = NULL;
	db->started_at = GetCurrentTimestamp();
	old = MemoryContextSwitchTo(TopMemoryContext);
	ok = RegisterDynamicBackgroundWorker(&worker, &db->handle);
	MemoryContextSwitchTo(old);
	if (!ok)
	{
		db->handle = NULL;
		complain(db, "no background worker slot is free; increase max_worker_processes");
		return;
	}
	db->failures++;
}

static bool
launcher_runs(ListedDatabase *db)
{
	pid_t		pid;

	if (wh_status_launcher_running(db->slot))
	{
		db->complaint[0] = '\0';
		db->failures = 0;
		return true;
	}
	return db->handle != NULL &&
		GetBackgroundWorkerPid(db->handle, &pid) != BGWH_STOPPED;
}

/* What keeps it out (a right to connect, most likely) may stay for long: its FATALs shall not fill the log. */
static bool
started_lately(const ListedDatabase *db)
{
	int			interval = Min(RESTART_INTERVAL_MS << Min(Max(db->failures - 1, 0), 5), RESTART_INTERVAL_MAX_MS);

	/* One that was started in the future was so before the clock was set back. */
	return db->started_at <= GetCurrentTimestamp() &&
		!TimestampDifferenceExceeds(db->started_at, GetCurrentTimestamp(), interval);
}

/* Starts what should run and does not; true when all of it runs. */
static bool
look_after(ListedDatabase *db)
{
	const char *problem;

	if (launcher_runs(db))
		return true;
	if (!db->listed)
		return false;
	if (!wh_enabled)
	{
		wh_status_launcher_waiting(db->slot, "wh_worker.enabled is off");
		return true;
	}
	problem = database_problem(db->name);
	if (problem == NULL && db->failures > 1)
		wh_status_launcher_waiting(db->slot, "its launcher could not connect; the server log says why");
	if (problem == NULL && started_lately(db))
		return false;
	if (problem != NULL)
		complain(db, problem);
	else
		start_launcher(db);
	return false;
}

static bool
look_after_all(void)
{
	bool		settled = true;
	ListCell   *cell;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	read_list();
	foreach(cell, databases)
	{
		ListedDatabase *db = lfirst(cell);

		if (db->slot < 0 || !look_after(db))
			settled = false;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	return settled;
}

void
wh_supervisor_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	wh_log_context_process("supervisor", NULL);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	wh_status_attach_supervisor();
	wh_status_phase(WH_PHASE_IDLE);
	wh_activity_cycle(false);

	for (;;)
	{
		bool		settled = look_after_all();

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (settled ? 0 : WL_TIMEOUT),
						 RECHECK_MS, wh_wait_event(WH_WAIT_SUPERVISOR_MAIN));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}
