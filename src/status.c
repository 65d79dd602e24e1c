/*
 * status.c: the shared-memory segment: who runs, what it does, what it is
 * handed, and what a committing backend tells a launcher.
 *
 * Only this file touches the segment and its one LWLock; what is counted has a
 * segment of its own (metrics.c).  Nothing is
 * formatted, allocated or raised under the lock, and no other lock is taken
 * under it; readers copy and work on the copy.  Latches are set under the
 * lock, because a slot's process may be gone once it is released.
 *
 * An owner frees its slot in on_shmem_exit, installed before the slot is marked
 * as attached: that is when its transaction has been rolled back, so that its job
 * is not locked any more when the launcher takes it back.  A generation number keeps a late process from using a
 * slot that was given to somebody else meanwhile.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "activity.h"
#include "guc.h"
#include "metrics.h"
#include "status.h"
#include "wait_event.h"
#include "wh_worker.h"

#define TRANCHE_NAME "wh_worker"

/* Up to when the time of a tenant is spent; see rate.c. */
typedef struct WhClocks
{
	Oid			database_oid;
	char		tenant_name[NAMEDATALEN];
	int64		until[WH_LIMITS];
} WhClocks;

typedef struct WhSlot
{
	WhSlotInfo	info;			/* guarded by the lock, like all of it */
	PGPROC	   *proc;			/* NULL until attached */
	int64		assigned_job;	/* handed over, not yet taken */
	int64		next_job;		/* its next_job_id */
	bool		wants_worker;	/* launcher: found no free slot */
	WhClocks	clocks;			/* of any tenant; not cleared with the slot */
	WhNews		news;			/* launcher: from committing backends */
} WhSlot;

typedef struct WhShared
{
	LWLock	   *lock;
	ConditionVariable backfill_ended;
	int			nslots;
	WhSlot		slots[FLEXIBLE_ARRAY_MEMBER];
} WhShared;

static WhShared *shared = NULL;
static int	my_slot = -1;
static WhPhase my_phase = WH_PHASE_IDLE;
static int64 my_rows = 0;
static int64 my_bytes = 0;

#define FIRST_LAUNCHER 1
#define FIRST_WORKER (FIRST_LAUNCHER + WH_MAX_DATABASES)

static const char *const phase_names[] = {
	"starting", "waiting", "idle", "connecting", "fetching", "indexing",
	"waiting_lock", "publishing", "combining", "running"
};

static Size
segment_size(void)
{
	return add_size(offsetof(WhShared, slots),
					mul_size(FIRST_WORKER + wh_max_workers, sizeof(WhSlot)));
}

void
wh_status_request(void)
{
	RequestAddinShmemSpace(segment_size());
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
}

void
wh_status_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(TRANCHE_NAME, segment_size(), &found);
	if (!found)
	{
		memset(shared, 0, segment_size());
		shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
		ConditionVariableInit(&shared->backfill_ended);
		shared->nslots = FIRST_WORKER + wh_max_workers;
		for (int i = 0; i < shared->nslots; i++)
			shared->slots[i].info.kind = i == 0 ? WH_SLOT_SUPERVISOR :
				i < FIRST_WORKER ? WH_SLOT_LAUNCHER : WH_SLOT_WORKER;
	}
	LWLockRelease(AddinShmemInitLock);
}

static void
lock_segment(LWLockMode mode)
{
	LWLockAcquire(shared->lock, mode);
}

static void
unlock_segment(void)
{
	LWLockRelease(shared->lock);
}

static void
wake(WhSlot *slot)
{
	if (slot->proc != NULL)
		SetLatch(&slot->proc->procLatch);
}

static void
set_phase(WhSlotInfo *info, WhPhase phase)
{
	info->phase = phase;
	info->phase_started_at = GetCurrentTimestamp();
}

/* Empties a slot for its next use; the generation goes on counting. */
static void
clear_slot(WhSlot *slot)
{
	WhSlotKind	kind = slot->info.kind;
	uint32		generation = slot->info.generation;
	WhClocks	clocks = slot->clocks;

	memset(slot, 0, sizeof(WhSlot));
	slot->clocks = clocks;
	slot->info.kind = kind;
	slot->info.generation = generation;
}

static bool
slot_is(int slot, uint32 generation)
{
	return slot >= 0 && slot < shared->nslots &&
		shared->slots[slot].info.in_use &&
		shared->slots[slot].info.generation == generation;
}

/* The launcher of a database, attached or not; NULL if there is none. */
static WhSlot *
launcher_of(Oid database_oid)
{
	for (int i = FIRST_LAUNCHER; i < FIRST_WORKER; i++)
	{
		WhSlot	   *slot = &shared->slots[i];

		if (slot->info.in_use && slot->info.database_oid == database_oid)
			return slot;
	}
	return NULL;
}

/*
 * A worker's slot becomes free; a launcher's stays with its database, because
 * the supervisor decides about it.  Others who may have waited are woken.
 */
static void
detach(int code, Datum arg)
{
	WhSlot	   *slot;

	if (my_slot < 0)
		return;
	slot = &shared->slots[my_slot];
	lock_segment(LW_EXCLUSIVE);
	if (slot->proc != MyProc)
		 /* somebody else's by now */ ;
	else if (slot->info.kind == WH_SLOT_WORKER)
	{
		clear_slot(slot);
		for (int i = FIRST_LAUNCHER; i < FIRST_WORKER; i++)
			wake(&shared->slots[i]);
	}
	else
	{
		/* A supervisor that was started later is not notified of this exit. */
		wake(&shared->slots[0]);
		slot->proc = NULL;
		slot->info.pid = 0;
		slot->info.database_oid = InvalidOid;
		slot->wants_worker = false;
		set_phase(&slot->info, WH_PHASE_WAITING);
	}
	unlock_segment();
	my_slot = -1;
}

static void
attach_locked(int index)
{
	WhSlot	   *slot = &shared->slots[index];

	slot->proc = MyProc;
	slot->info.in_use = true;
	slot->info.pid = MyProcPid;
	slot->info.database_oid = MyDatabaseId;
	set_phase(&slot->info, WH_PHASE_STARTING);
	slot->info.moved_at = slot->info.phase_started_at;
	my_phase = WH_PHASE_STARTING;
}

static bool
attach(int index, uint32 generation)
{
	bool		ok;

	Assert(my_slot == -1);
	on_shmem_exit(detach, (Datum) 0);
	my_slot = index;
	lock_segment(LW_EXCLUSIVE);
	ok = slot_is(index, generation) && shared->slots[index].proc == NULL;
	if (ok)
		attach_locked(index);
	unlock_segment();
	if (!ok)
		my_slot = -1;
	return ok;
}

void
wh_status_attach_supervisor(void)
{
	on_shmem_exit(detach, (Datum) 0);
	my_slot = 0;
	lock_segment(LW_EXCLUSIVE);
	attach_locked(0);
	unlock_segment();
}

bool
wh_status_attach_launcher(int slot, uint32 generation)
{
	return attach(slot, generation);
}

bool
wh_status_attach_worker(int slot, uint32 generation)
{
	return attach(slot, generation);
}

void
wh_status_phase(WhPhase phase)
{
	wh_metrics_phase(phase);
	my_phase = phase;
	wh_activity_phase(phase);
	if (my_slot < 0)
		return;
	lock_segment(LW_EXCLUSIVE);
	if (shared->slots[my_slot].info.phase != phase)
		set_phase(&shared->slots[my_slot].info, phase);
	unlock_segment();
}

WhPhase
wh_status_get_phase(void)
{
	return my_phase;
}

const char *
wh_status_phase_name(WhPhase phase)
{
	return phase_names[phase];
}

void
wh_status_progress(int64 rows, int64 bytes)
{
	my_rows = rows;
	my_bytes = bytes;
	if (my_slot < 0)
		return;
	lock_segment(LW_EXCLUSIVE);
	shared->slots[my_slot].info.rows = rows;
	shared->slots[my_slot].info.bytes = bytes;
	shared->slots[my_slot].info.moved_at = GetCurrentTimestamp();
	unlock_segment();
}

void
wh_status_get_progress(int64 *rows, int64 *bytes)
{
	*rows = my_rows;
	*bytes = my_bytes;
}

/* Who was in the way when a lock was tried for, shown between the tries. */
void
wh_status_blockers(const int *pids, int npids)
{
	WhSlotInfo *info;

	if (my_slot < 0)
		return;
	npids = Min(npids, WH_MAX_BLOCKERS);
	info = &shared->slots[my_slot].info;
	lock_segment(LW_EXCLUSIVE);
	info->nblockers = npids;
	if (npids > 0)
		memcpy(info->blockers, pids, sizeof(int) * npids);
	unlock_segment();
}

/* WH_LIMITS: by none of them. */
void
wh_status_held(int limit)
{
	if (my_slot < 0)
		return;
	lock_segment(LW_EXCLUSIVE);
	shared->slots[my_slot].info.is_held = limit < WH_LIMITS;
	shared->slots[my_slot].info.held_by = limit;
	unlock_segment();
}

/*
 * Of the tenant, or else those that are furthest back: as no more tenants are
 * read at once than there are workers, these are in the past and of no use.
 */
static WhClocks *
clocks_of(const char *tenant_name)
{
	WhClocks   *oldest = &shared->slots[FIRST_WORKER].clocks;

	for (int i = FIRST_WORKER; i < shared->nslots; i++)
	{
		WhClocks   *clocks = &shared->slots[i].clocks;

		if (clocks->database_oid == MyDatabaseId && strcmp(clocks->tenant_name, tenant_name) == 0)
			return clocks;
		if (Max(clocks->until[0], clocks->until[1]) < Max(oldest->until[0], oldest->until[1]))
			oldest = clocks;
	}
	memset(oldest, 0, sizeof(WhClocks));
	oldest->database_oid = MyDatabaseId;
	strlcpy(oldest->tenant_name, tenant_name, NAMEDATALEN);
	return oldest;
}

void
wh_status_pay(const char *tenant_name, const double *costs, int64 earliest, int64 *until)
{
	WhClocks   *clocks;

	lock_segment(LW_EXCLUSIVE);
	clocks = clocks_of(tenant_name);
	for (int i = 0; i < WH_LIMITS; i++)
		until[i] = clocks->until[i] = Max(clocks->until[i], earliest) + (int64) costs[i];
	unlock_segment();
}

void
wh_status_error(const char *message)
{
	char		copy[WH_ERROR_SIZE];

	if (my_slot < 0)
		return;
	strlcpy(copy, message, sizeof(copy));
	lock_segment(LW_EXCLUSIVE);
	memcpy(shared->slots[my_slot].info.last_error, copy, sizeof(copy));
	unlock_segment();
}

/* ---- supervisor ---- */

int
wh_status_launcher_slot(const char *database, uint32 *generation)
{
	int			free_slot = -1;
	int			result = -1;

	lock_segment(LW_EXCLUSIVE);
	for (int i = FIRST_LAUNCHER; i < FIRST_WORKER && result < 0; i++)
	{
		WhSlot	   *slot = &shared->slots[i];

		if (!slot->info.in_use && free_slot < 0)
			free_slot = i;
		else if (slot->info.in_use && strcmp(slot->info.database, database) == 0)
			result = i;
	}
	if (result < 0 && free_slot >= 0)
	{
		WhSlot	   *slot = &shared->slots[free_slot];

		clear_slot(slot);
		slot->info.in_use = true;
		slot->info.generation++;
		strlcpy(slot->info.database, database, NAMEDATALEN);
		set_phase(&slot->info, WH_PHASE_STARTING);
		result = free_slot;
	}
	if (result >= 0)
		*generation = shared->slots[result].info.generation;
	unlock_segment();
	return result;
}

void
wh_status_launcher_waiting(int slot, const char *why)
{
	char		copy[WH_ERROR_SIZE];

	strlcpy(copy, why, sizeof(copy));
	lock_segment(LW_EXCLUSIVE);
	if (shared->slots[slot].info.phase != WH_PHASE_WAITING)
		set_phase(&shared->slots[slot].info, WH_PHASE_WAITING);
	memcpy(shared->slots[slot].info.last_error, copy, sizeof(copy));
	unlock_segment();
}

/* The database is no longer listed: its launcher, if any, sees that and goes. */
bool
wh_status_release_launcher(int slot)
{
	bool		gone;

	lock_segment(LW_EXCLUSIVE);
	gone = shared->slots[slot].proc == NULL;
	if (gone)
		clear_slot(&shared->slots[slot]);
	unlock_segment();
	return gone;
}

bool
wh_status_launcher_running(int slot)
{
	bool		running;

	lock_segment(LW_SHARED);
	running = shared->slots[slot].proc != NULL;
	unlock_segment();
	return running;
}

/* ---- launcher ---- */

/*
 * Reserved long ago by a launcher that went away before its worker came: the
 * next generation makes it free again, and a worker that comes late leave.
 */
static bool
is_stale(const WhSlot *slot)
{
	return slot->info.in_use && slot->proc == NULL &&
		TimestampDifferenceExceeds(slot->info.phase_started_at, GetCurrentTimestamp(),
								   WH_START_TIMEOUT_MS);
}

int
wh_status_reserve_worker(uint32 *generation)
{
	int			result = -1;

	lock_segment(LW_EXCLUSIVE);
	for (int i = FIRST_WORKER; i < shared->nslots && result < 0; i++)
	{
		WhSlot	   *slot = &shared->slots[i];

		if (slot->info.in_use && !is_stale(slot))
			continue;
		clear_slot(slot);
		slot->info.in_use = true;
		slot->info.generation++;
		slot->info.database_oid = MyDatabaseId;
		memcpy(slot->info.database, shared->slots[my_slot].info.database, NAMEDATALEN);
		set_phase(&slot->info, WH_PHASE_STARTING);
		*generation = slot->info.generation;
		result = i;
	}
	unlock_segment();
	return result;
}

void
wh_status_unreserve_worker(int slot, uint32 generation)
{
	lock_segment(LW_EXCLUSIVE);
	if (slot_is(slot, generation) && shared->slots[slot].proc == NULL)
		clear_slot(&shared->slots[slot]);
	unlock_segment();
}

/* Whether a worker can be handed a job: attached, idle, with nothing waiting. */
static bool
can_take(const WhSlot *slot)
{
	return slot->proc != NULL && slot->info.phase == WH_PHASE_IDLE &&
		slot->info.job_id == 0 && slot->assigned_job == 0;
}

bool
wh_status_assign(int slot, uint32 generation, const WhAssignment *job)
{
	bool		ok;

	lock_segment(LW_EXCLUSIVE);
	ok = slot_is(slot, generation) && can_take(&shared->slots[slot]);
	if (ok)
	{
		WhSlot	   *worker = &shared->slots[slot];

		worker->assigned_job = job->job_id;
		worker->next_job = job->next_job_id;
		worker->info.job_id = job->job_id;
		worker->info.backfill_id = job->backfill_id;
		worker->info.cancel_requested = false;
		memcpy(worker->info.tenant_name, job->tenant_name, NAMEDATALEN);
		wake(worker);
	}
	unlock_segment();
	return ok;
}

bool
wh_status_job_has_owner(int64 job_id)
{
	bool		found = false;

	lock_segment(LW_SHARED);
	for (int i = FIRST_WORKER; i < shared->nslots && !found; i++)
		found = shared->slots[i].info.in_use &&
			shared->slots[i].info.database_oid == MyDatabaseId &&
			shared->slots[i].info.job_id == job_id;
	unlock_segment();
	return found;
}

int
wh_status_max_slots(void)
{
	return shared->nslots;
}

int
wh_status_copy(WhSlotInfo *infos)
{
	int			n = 0;

	lock_segment(LW_SHARED);
	for (int i = 0; i < shared->nslots; i++)
		if (shared->slots[i].info.in_use)
			infos[n++] = shared->slots[i].info;
	unlock_segment();
	return n;
}

int
wh_status_workers(WhSlotInfo *workers, int *slots)
{
	int			n = 0;

	lock_segment(LW_SHARED);
	for (int i = FIRST_WORKER; i < shared->nslots; i++)
	{
		WhSlot	   *slot = &shared->slots[i];

		if (!slot->info.in_use || slot->info.database_oid != MyDatabaseId)
			continue;
		workers[n] = slot->info;
		slots[n] = i;
		n++;
	}
	unlock_segment();
	return n;
}

/*
 * A launcher that has work and found all slots taken says so, which lets idle
 * workers of other databases leave at once.
 */
void
wh_status_want_worker(bool wanted)
{
	lock_segment(LW_EXCLUSIVE);
	if (wanted)
		for (int i = FIRST_WORKER; i < shared->nslots; i++)
		{
			WhSlot	   *slot = &shared->slots[i];

			if (can_take(slot) && slot->info.database_oid != MyDatabaseId)
				wake(slot);
		}
	shared->slots[my_slot].wants_worker = wanted;
	unlock_segment();
}

/* ---- worker ---- */

int64
wh_status_take_assignment(int64 *next_job_id)
{
	WhSlot	   *slot = &shared->slots[my_slot];
	int64		job_id;

	lock_segment(LW_EXCLUSIVE);
	job_id = slot->assigned_job;
	*next_job_id = slot->next_job;
	slot->assigned_job = 0;
	unlock_segment();
	return job_id;
}

void
wh_status_job(const WhSlotInfo *job)
{
	WhSlotInfo *info = &shared->slots[my_slot].info;

	my_rows = my_bytes = 0;
	lock_segment(LW_EXCLUSIVE);
	info->backfill_id = job->backfill_id;
	memcpy(info->job_kind, job->job_kind, sizeof(info->job_kind));
	memcpy(info->template_name, job->template_name, NAMEDATALEN);
	memcpy(info->tenant_name, job->tenant_name, NAMEDATALEN);
	memcpy(info->target_schema, job->target_schema, NAMEDATALEN);
	info->target_date = job->target_date;
	info->has_date = job->has_date;
	info->job_started_at = job->job_started_at;
	info->rows = 0;
	info->bytes = 0;
	info->is_held = false;
	info->nblockers = 0;
	info->moved_at = GetCurrentTimestamp();
	unlock_segment();
}

/* The job has ended and is recorded; the launcher may hand over the next. */
void
wh_status_job_done(WhJobResult result, const char *error)
{
	WhSlot	   *slot = &shared->slots[my_slot];
	WhSlot	   *launcher;
	char		copy[WH_ERROR_SIZE] = "";

	if (error != NULL)
		strlcpy(copy, error, sizeof(copy));

	lock_segment(LW_EXCLUSIVE);
	slot->info.job_id = 0;
	slot->info.backfill_id = 0;
	slot->info.has_date = false;
	slot->info.cancel_requested = false;
	slot->info.job_kind[0] = '\0';
	slot->info.template_name[0] = '\0';
	slot->info.target_schema[0] = '\0';
	slot->info.job_started_at = 0;
	slot->info.is_held = false;
	slot->info.nblockers = 0;
	if (result == WH_JOB_SUCCEEDED)
		slot->info.jobs_succeeded++;
	else if (result == WH_JOB_FAILED)
	{
		slot->info.jobs_failed++;
		memcpy(slot->info.last_error, copy, sizeof(copy));
	}
	set_phase(&slot->info, WH_PHASE_IDLE);
	my_phase = WH_PHASE_IDLE;
	slot->info.moved_at = slot->info.phase_started_at;
	launcher = launcher_of(MyDatabaseId);
	if (launcher != NULL)
	{
		launcher->info.moved_at = slot->info.moved_at;
		wake(launcher);
	}
	unlock_segment();
}

bool
wh_status_cancel_requested(void)
{
	bool		requested;

	lock_segment(LW_SHARED);
	requested = shared->slots[my_slot].info.cancel_requested;
	unlock_segment();
	return requested;
}

/*
 * An idle worker makes room for another database that found no free slot, as
 * long as it has not been handed a job itself.
 */
bool
wh_status_should_leave(void)
{
	bool		leave = false;

	lock_segment(LW_EXCLUSIVE);
	if (shared->slots[my_slot].assigned_job == 0)
		for (int i = FIRST_LAUNCHER; i < FIRST_WORKER && !leave; i++)
		{
			WhSlot	   *slot = &shared->slots[i];

			leave = slot->info.in_use && slot->wants_worker &&
				slot->info.database_oid != MyDatabaseId;
			if (leave)
				slot->wants_worker = false;
		}
	unlock_segment();
	return leave;
}

/*
 * An idle worker that leaves closes its slot to the launcher first, so that no
 * job is handed to a process on its way out.  False: a job came in between.
 */
bool
wh_status_retire(void)
{
	bool		ok;

	lock_segment(LW_EXCLUSIVE);
	ok = shared->slots[my_slot].assigned_job == 0;
	if (ok)
		set_phase(&shared->slots[my_slot].info, WH_PHASE_STARTING);
	unlock_segment();
	return ok;
}

/* ---- backends ---- */

/*
 * The worker that runs the job is told to cancel.  The signal is sent under
 * the lock: the process cannot leave its slot, and so its pid, meanwhile.
 */
bool
wh_status_cancel_running(int64 job_id)
{
	bool		found = false;

	lock_segment(LW_EXCLUSIVE);
	for (int i = FIRST_WORKER; i < shared->nslots; i++)
	{
		WhSlotInfo *info = &shared->slots[i].info;

		if (!info->in_use || info->job_id != job_id || info->pid == 0 ||
			info->database_oid != MyDatabaseId)
			continue;
		info->cancel_requested = true;
		found = kill(info->pid, SIGINT) == 0 || found;
	}
	unlock_segment();
	return found;
}

void
wh_status_wake_launcher(void)
{
	WhSlot	   *launcher;

	lock_segment(LW_SHARED);
	launcher = launcher_of(MyDatabaseId);
	if (launcher != NULL)
		wake(launcher);
	unlock_segment();
}

void
wh_status_post_jobs(int64 first, int64 last)
{
	WhSlot	   *launcher;

	lock_segment(LW_EXCLUSIVE);
	launcher = launcher_of(MyDatabaseId);
	if (launcher != NULL)
	{
		WhNews	   *news = &launcher->news;

		if (news->nranges < lengthof(news->first))
		{
			news->first[news->nranges] = first;
			news->last[news->nranges] = last;
			news->nranges++;
		}
		else
			news->reread_all = true;
		wake(launcher);
	}
	unlock_segment();
}

void
wh_status_post_config(void)
{
	WhSlot	   *launcher;

	lock_segment(LW_EXCLUSIVE);
	launcher = launcher_of(MyDatabaseId);
	if (launcher != NULL)
	{
		launcher->news.reread_all = true;
		wake(launcher);
	}
	unlock_segment();
}

void
wh_status_take_news(WhNews *news)
{
	WhSlot	   *slot = &shared->slots[my_slot];

	lock_segment(LW_EXCLUSIVE);
	*news = slot->news;
	slot->news.nranges = 0;
	slot->news.reread_all = false;
	unlock_segment();
}

void
wh_status_backfill_ended(void)
{
	ConditionVariableBroadcast(&shared->backfill_ended);
}

void
wh_status_prepare_wait_backfill(void)
{
	ConditionVariablePrepareToSleep(&shared->backfill_ended);
}

bool
wh_status_wait_backfill(long timeout_ms)
{
	return ConditionVariableTimedSleep(&shared->backfill_ended, timeout_ms,
									   wh_wait_event(WH_WAIT_BACKFILL_END));
}

void
wh_status_cancel_wait_backfill(void)
{
	ConditionVariableCancelSleep();
}
