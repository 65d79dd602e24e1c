/*
 * politely.c: locks that readers feel, asked for in short tries.
 *
 * Called by swap.c for the exchange of a day's files, by whoever replaces
 * a view, and by worker.c and at_once.c around all of that.  Whoever waits for AccessExclusiveLock makes every later reader wait
 * behind it, and it waits itself for the slowest reader.  So a try is short,
 * and between two tries the queue is empty and readers have their turn.
 *
 * A try is one internal subtransaction around the lock and the action: what
 * fails in the middle (a GRANT that was committed in between updates the same
 * catalog row) is undone and tried again, without loading again.  Somebody who
 * needs several such locks, a view's and a day's, asks for all of them in one
 * action: then no reader waits behind the first while we wait for the second.
 *
 * May not know what the action does.  Takes no lock but the one it is asked for.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "jitter.h"
#include "locked.h"
#include "metrics.h"
#include "politely.h"
#include "status.h"
#include "wait_event.h"

#define PAUSE_MIN_MS 200
#define PAUSE_MAX_MS 400

typedef struct Polite
{
	Oid			relid;
	WhAction action;
	void	   *arg;
	MemoryContext try_context;	/* memory of one try */
	WhPhase		phase;			/* what we were doing before */
	TimestampTz counted_at;		/* the time until then is counted as waited for */
	TimestampTz deadline;
	int			tries;
	int			nblockers;		/* of the last try */
	int			blockers[WH_MAX_BLOCKERS];
	int			deadlocked_pid; /* a holder that waits for us, or 0 */
} Polite;

/* Within a try: what is asked for now belongs to it. */
static bool trying = false;

/* The relation that the try was waiting for when it failed, if it says so. */
static Oid	wanted_relid = InvalidOid;
static LOCKTAG wanted_tag;
static LOCKMODE wanted_mode = NoLock;	/* NoLock: not known */

/* What another try may mend: somebody else was there first. */
static bool
somebody_was_in_the_way(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_T_R_DEADLOCK_DETECTED:
			return true;
		case ERRCODE_INTERNAL_ERROR:
			/* a GRANT takes no lock on the relation, it only writes its row */
			return error->message_id != NULL &&
				strcmp(error->message_id, "tuple concurrently updated") == 0;
		default:
			return false;
	}
}

static void
set_lock_timeout(void)
{
	char		value[32];

	snprintf(value, sizeof(value), "%dms", wh_swap_lock_timeout);
	(void) set_config_option("lock_timeout", value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}

void
wh_politely_wants(const LOCKTAG *tag, LOCKMODE mode)
{
	wanted_mode = tag != NULL ? mode : NoLock;
	if (tag != NULL)
		wanted_tag = *tag;
}

void
wh_politely_lock(Oid relid)
{
	WhPhase		phase = wh_status_get_phase();
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	wanted_relid = relid;
	wh_politely_wants(&tag, AccessExclusiveLock);
	wh_metrics_readers_wait();
	wh_status_phase(WH_PHASE_WAITING_LOCK);
	LockRelationOid(relid, AccessExclusiveLock);
	wh_status_phase(phase);
	wh_politely_wants(NULL, NoLock);
	wanted_relid = InvalidOid;
}

static void
lock_and_act(void *arg)
{
	const Polite *polite = arg;
	int			nest_level = NewGUCNestLevel();

	MemoryContextSwitchTo(polite->try_context);
	trying = true;
	set_lock_timeout();
	if (OidIsValid(polite->relid))
		wh_politely_lock(polite->relid);
	polite->action(polite->arg);
	AtEOXact_GUC(true, nest_level);
}

/* One try; NULL if it worked, else what failed, after it was rolled back. */
static ErrorData *
try_once(Polite *polite)
{
	bool		held_before = wh_metrics_readers_wait_since() != 0;
	ErrorData  *error;

	polite->try_context = AllocSetContextCreate(CurrentMemoryContext, "wh_worker try",
												ALLOCSET_DEFAULT_SIZES);
	wanted_relid = InvalidOid;
	wanted_mode = NoLock;
	error = wh_attempt(lock_and_act, polite);
	trying = false;
	if (error != NULL)
	{
		/* what an earlier action of the transaction locked is still locked */
		if (!held_before)
			wh_metrics_readers_pass();
		MemoryContextDelete(polite->try_context);	/* there may be thousands of tries */
	}
	return error;
}

/* Whether a process waits for us, itself or behind others that do. */
static bool
waits_for_us(int pid, List **seen)
{
	ArrayType  *array;
	int32	   *pids;
	int			npids;
	bool		found = false;

	if (list_member_int(*seen, pid))
		return false;
	*seen = lappend_int(*seen, pid);
	array = DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(pid)));
	pids = (int32 *) ARR_DATA_PTR(array);
	npids = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	for (int i = 0; i < npids && !found; i++)
		found = pids[i] == MyProcPid || waits_for_us(pids[i], seen);
	pfree(array);
	return found;
}

/*
 * Whose locks exclude the one that we wanted, now that we do not wait for it.
 * Who of them waits for a lock that we keep from try to try will never be done.
 */
static void
note_blockers(Polite *polite)
{
	VirtualTransactionId *holders;
	int			nholders;
	List	   *seen = NIL;

	polite->nblockers = 0;
	polite->deadlocked_pid = 0;
	if (wanted_mode != NoLock)
	{
		holders = GetLockConflicts(&wanted_tag, wanted_mode, &nholders);
		for (int i = 0; i < nholders; i++)
		{
			int			pid = wh_locked_pid(holders[i]);

			if (pid == WH_LOCKED_GONE)
				continue;
			if (polite->nblockers < WH_MAX_BLOCKERS)
				polite->blockers[polite->nblockers++] = pid;
			if (pid != WH_LOCKED_PREPARED && waits_for_us(pid, &seen))
				polite->deadlocked_pid = pid;
		}
		pfree(holders);
		list_free(seen);
	}
	else
		(void) wh_locked_table(polite->blockers, &polite->nblockers);
	wh_status_blockers(polite->blockers, polite->nblockers);
}

/*
 * A worker's statement timeout is the end of its job, which may have begun
 * long before the first try; whoever gives up before it can say why.
 */
static TimestampTz
deadline_from_now(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), wh_job_timeout);

	if (WH_IN_BACKGROUND_WORKER && get_timeout_active(STATEMENT_TIMEOUT))
		deadline = Min(deadline, get_timeout_finish_time(STATEMENT_TIMEOUT));
	return deadline;
}

static bool
may_try_again(const Polite *polite)
{
	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
									   PAUSE_MAX_MS + wh_swap_lock_timeout) < polite->deadline;
}

static char *
describe_blockers(const Polite *polite)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < polite->nblockers; i++)
		appendStringInfo(&text, "%s%d%s", i == 0 ? "" : ", ", polite->blockers[i],
						 polite->blockers[i] == WH_LOCKED_PREPARED ? " (see pg_prepared_xacts)" : "");
	return polite->nblockers == 0 ? NULL : text.data;
}

static void
give_up(const Polite *polite, const ErrorData *last_error)
{
	char	   *name = OidIsValid(wanted_relid) ? get_rel_name(wanted_relid) : NULL;
	char	   *pids = describe_blockers(polite);

	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 name == NULL ? errmsg("could not get a lock in time") :
			 errmsg("could not lock relation \"%s.%s\" in time",
					get_namespace_name(get_rel_namespace(wanted_relid)), name),
			 pids != NULL ?
			 errdetail("After %d tries processes %s still use it.", polite->tries, pids) :
			 errdetail("The last of %d tries said: %s.", polite->tries, last_error->message),
			 errhint("End the transactions that use it, or raise wh_worker.swap_lock_timeout if its queries overlap all the time.")));
}

/*
 * Another try would end as this one did.  The deadlock detector, ours and the
 * other's, looks once in a wait, and seldom just when both of us wait.
 */
static void
raise_deadlock(const Polite *polite)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 OidIsValid(wanted_relid) ?
			 errmsg("deadlock detected on relation \"%s.%s\"",
					get_namespace_name(get_rel_namespace(wanted_relid)),
					get_rel_name(wanted_relid)) :
			 errmsg("deadlock detected on the advisory lock of a view"),
			 errdetail("Process %d uses it and waits for a lock that this process holds.",
					   polite->deadlocked_pid)));
}

/* Not shortened when the latch is set: it may be set for many reasons. */
static void
let_readers_pass(void)
{
	long		pause_ms = PAUSE_MIN_MS + (long) (wh_jitter() * (PAUSE_MAX_MS - PAUSE_MIN_MS));
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause_ms);
	long		left = pause_ms;

	while (left > 0)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, wh_wait_event(WH_WAIT_READERS_PASS));
		ResetLatch(MyLatch);
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);
	}
	CHECK_FOR_INTERRUPTS();
}

/* As it goes on, so that who waits for hours is seen waiting. */
static void
count_try(Polite *polite, WhTryResult result)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		at_once = polite->tries == 1 && result == WH_TRY_GRANTED;

	wh_metrics_try(result, at_once ? 0 : Max(now - polite->counted_at, 0) / 1000000.0);
	polite->counted_at = now;
}

void
wh_politely(Oid relid, WhAction action, void *arg)
{
	Polite		polite = {.relid = relid,.action = action,.arg = arg};
	ErrorData  *error;

	if (trying)
	{
		if (OidIsValid(relid))
			wh_politely_lock(relid);
		action(arg);
		return;
	}
	polite.phase = wh_status_get_phase();
	polite.deadline = deadline_from_now();
	polite.counted_at = GetCurrentTimestamp();
	for (;;)
	{
		polite.tries++;
		error = try_once(&polite);
		if (error == NULL)
			break;
		if (!somebody_was_in_the_way(error))
			ReThrowError(error);
		note_blockers(&polite);
		wh_status_phase(WH_PHASE_WAITING_LOCK);
		if (polite.deadlocked_pid != 0 || !may_try_again(&polite))
		{
			count_try(&polite, WH_TRY_GIVEN_UP);
			if (polite.deadlocked_pid != 0)
				raise_deadlock(&polite);
			give_up(&polite, error);
		}
		FreeErrorData(error);
		count_try(&polite, WH_TRY_REPEATED);
		let_readers_pass();
		wh_status_phase(polite.phase);
	}
	count_try(&polite, WH_TRY_GRANTED);
	if (polite.tries > 1)
		wh_status_blockers(NULL, 0);
}
