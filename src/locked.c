/*
 * locked.c: who keeps us from our own tables.
 *
 * A person may hold a table of _wh for as long as he likes: LOCK TABLE, VACUUM
 * FULL, an ALTER TABLE in an open transaction.  Workers wait for him as everybody
 * does, and worker_status says for whom.  The launcher waits for nobody: it looks
 * before it touches a table, says what it found, and looks again, instead of
 * failing once a second at whatever it happens to do first.
 *
 * Nor does a tenant that a worker has asked ahead of time wait with us: such a worker
 * asks for all tables first, for a moment.
 *
 * Called by the launcher's loop, by worker.c, and by politely.c for the pids.
 * Between the look and the use somebody may come: then lock_timeout ends it.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "compat.h"
#include "locked.h"
#include "sqlutil.h"
#include "status.h"

#define LOOK_AGAIN_MS 1000
#define TRY_TIMEOUT "500ms"

/* What the launcher and the end of every job read or write. */
static const char *const tables[] = {
	"warehouse", "jobs", "day_loads", "tenant_templates", "mv_templates", "tenant_connections",
	"tenant_failures", "schedules", "backfills", "job_run_details"
};

/*
 * What a prepared transaction holds counts as that of the session that prepared
 * it, which may be gone, or do something else by now.
 */
int
wh_locked_pid(VirtualTransactionId holder)
{
	bool		have_more;
	PGPROC	   *proc;

	if (TransactionIdIsValid(TwoPhaseGetXidByVirtualXID(holder, &have_more)))
		return WH_LOCKED_PREPARED;
	proc = WH_PROC_OF_VXID(holder);
	return proc != NULL && proc->pid != 0 ? proc->pid : WH_LOCKED_GONE;
}

static int
holders_of(Oid relid, int *pids)
{
	LOCKTAG		tag;
	VirtualTransactionId *holders;
	int			nholders;
	int			npids = 0;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	holders = GetLockConflicts(&tag, RowExclusiveLock, &nholders);
	for (int i = 0; i < nholders && npids < WH_LOCKED_MAX_PIDS; i++)
	{
		int			pid = wh_locked_pid(holders[i]);

		if (pid != WH_LOCKED_GONE)
			pids[npids++] = pid;
	}
	pfree(holders);
	return npids;
}

const char *
wh_locked_table(int *pids, int *npids)
{
	Oid			schema = get_namespace_oid("_wh", true);

	for (int i = 0; OidIsValid(schema) && i < lengthof(tables); i++)
	{
		Oid			relid = get_relname_relid(tables[i], schema);

		if (!OidIsValid(relid))
			continue;
		*npids = holders_of(relid, pids);
		if (*npids > 0)
			return tables[i];
	}
	*npids = 0;
	return NULL;
}

static void
lock_all(void *arg)
{
	int			nest_level = NewGUCNestLevel();
	Oid			schema = get_namespace_oid("_wh", true);

	(void) set_config_option("lock_timeout", TRY_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	for (int i = 0; OidIsValid(schema) && i < lengthof(tables); i++)
	{
		Oid			relid = get_relname_relid(tables[i], schema);

		if (OidIsValid(relid))
			LockRelationOid(relid, *(LOCKMODE *) arg);
	}
	AtEOXact_GUC(true, nest_level);
}

bool
wh_locked_try(LOCKMODE mode)
{
	ErrorData  *error = wh_attempt(lock_all, &mode);

	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	return error == NULL;
}

static char *
describe(const char *table, int pid)
{
	if (pid == WH_LOCKED_PREPARED)
		return psprintf("table \"_wh.%s\" is locked by a prepared transaction", table);
	return psprintf("table \"_wh.%s\" is locked by process %d", table, pid);
}

static void
say(const char *database, const char *what, int pid)
{
	ereport(LOG,
			(errmsg("wh_worker waits in database \"%s\": %s", database, what),
			 pid == WH_LOCKED_PREPARED ?
			 errhint("It goes on when that transaction is committed or rolled back. See pg_prepared_xacts.") :
			 errhint("It goes on when that transaction ends.")));
}

bool
wh_locked_out(const char *database, MemoryContext context)
{
	static const char *locked = NULL;
	static TimestampTz looked_at = 0;
	TimestampTz now = GetCurrentTimestamp();
	const char *before = locked;
	int			pids[WH_LOCKED_MAX_PIDS];
	int			npids;
	char	   *what;

	if (locked == NULL && looked_at <= now && !TimestampDifferenceExceeds(looked_at, now, LOOK_AGAIN_MS))
		return false;
	looked_at = now;
	wh_begin_transaction();
	locked = wh_locked_table(pids, &npids);
	wh_commit_transaction(context);
	if (locked == NULL && before == NULL)
		return false;
	wh_status_blockers(pids, npids);
	if (locked == NULL)
		return false;
	what = describe(locked, pids[0]);
	if (before == NULL)
		say(database, what, pids[0]);
	wh_status_error(what);
	wh_status_phase(WH_PHASE_WAITING);
	return true;
}
