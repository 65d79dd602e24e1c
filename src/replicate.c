/*
 * replicate.c: a commit that keeps no reader from a day while a synchronous
 * standby is away.
 *
 * A commit waits for its synchronous standby with all its locks.  A worker that
 * puts a day or a view in its place has locks that readers feel: with a standby
 * that is down they would wait until somebody notices.  So the commit is made
 * durable here, which gives the locks back, and is waited for afterwards, before
 * the worker goes on: as synchronous_commit says, and as long.  What is lost with
 * this server meanwhile is lost whole: the day, the ledger and the end of the
 * job are one commit, and a standby that lacks it has the job to do.  The end of
 * a backfill is a commit of the launcher's, after those of its days, and can be
 * seen only when the standby has it.
 *
 * Called by worker.c and retention.c.  Takes no lock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/guc.h"

#include "compat.h"
#include "replicate.h"
#include "sqlutil.h"

/* A cancel, or the end of the process, ends it: the server warns of what it means. */
static void
wait_for_standby(void)
{
	HOLD_INTERRUPTS();
	SyncRepWaitForLSN(XactLastCommitEnd, true);
	RESUME_INTERRUPTS();
}

void
wh_commit_then_replicate(MemoryContext context)
{
	bool		waits = synchronous_commit > SYNCHRONOUS_COMMIT_LOCAL_FLUSH;

	/* until this transaction ends */
	if (waits)
		(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	wh_commit_transaction(context);
	if (waits)
		wait_for_standby();
}

bool
wh_replicate_is_awaited_by(int pid)
{
	PGPROC	   *proc = BackendPidGetProc(pid);

	return proc != NULL && *(volatile uint32 *) &proc->wait_event_info == WAIT_EVENT_SYNC_REP;
}
