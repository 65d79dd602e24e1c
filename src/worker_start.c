/*
 * worker_start.c: how a worker is asked for.
 *
 * Called by launcher.c, which decides when.  The process starts in worker.c,
 * with what is put into bgw_extra here.  Takes no locks but the postmaster's slots.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

#include "wh_worker.h"
#include "worker.h"

bool
wh_worker_register(WhWorkerStart *start, const char *database, BackgroundWorkerHandle **handle)
{
	BackgroundWorker process;
	MemoryContext old;
	bool		ok;

	StaticAssertStmt(sizeof(WhWorkerStart) <= BGW_EXTRALEN,
					 "a worker's arguments must fit into bgw_extra");
	start->database_oid = MyDatabaseId;
	start->role_oid = GetUserId();
	strlcpy(start->database, database, NAMEDATALEN);

	memset(&process, 0, sizeof(process));
	process.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	process.bgw_start_time = BgWorkerStart_RecoveryFinished;
	process.bgw_restart_time = BGW_NEVER_RESTART;
	process.bgw_notify_pid = MyProcPid;
	strlcpy(process.bgw_library_name, WH_LIBRARY_NAME, BGW_MAXLEN);
	strlcpy(process.bgw_function_name, "wh_worker_main", BGW_MAXLEN);
	snprintf(process.bgw_name, BGW_MAXLEN, "wh_worker worker for %s", database);
	strlcpy(process.bgw_type, "wh_worker worker", BGW_MAXLEN);
	memcpy(process.bgw_extra, start, sizeof(*start));

	old = MemoryContextSwitchTo(TopMemoryContext);
	ok = RegisterDynamicBackgroundWorker(&process, handle);
	MemoryContextSwitchTo(old);
	return ok;
}
