/*
 * launcher.c: one loop per database: reload, read what is new, reap, hand out
 * jobs, start workers, attend to backfills, sleep until the next thing.
 *
 * Connected as admin_role.  Talks to no tenant, runs no user's SQL and waits
 * for nothing but its latch: its lock_timeout is short, an error ends one
 * cycle and not the process, and each backfill is attended to in a
 * transaction of its own, so that a bad one stops nothing else.
 *
 * What it knows of the queue (ready.c) is a picture; it is told of changes by
 * committing backends (status.c) and draws the picture anew from time to time,
 * after an error, and when any configuration changed.
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
#include "utils/timestamp.h"

#include "activity.h"
#include "audit.h"
#include "backfill.h"
#include "due.h"
#include "guc.h"
#include "identity.h"
#include "launcher.h"
#include "locked.h"
#include "log_context.h"
#include "log_event.h"
#include "missing.h"
#include "queue.h"
#include "ready.h"
#include "sqlutil.h"
#include "start_check.h"
#include "status.h"
#include "supervisor.h"
#include "upkeep.h"
#include "version.h"
#include "wait_event.h"
#include "wh_worker.h"
#include "worker.h"

#define EXTENSION_CHECK_MS 500
#define REREAD_MS (60 * 1000)
#define PUBLISH_MS (20 * 1000)
#define ATTEND_AGAIN_MS 1000
#define SHORTAGE_MS 1000
#define RESTART_MS 1000
#define STEP_BACK_MS 1000
#define ERROR_DELAY_MS 1000
#define ERROR_DELAY_MAX_MS (30 * 1000)
#define KEEP_TENANT_JOBS 8
#define KEEP_TENANT_MS 1000

/* What we know of a worker of ours, by slot. */
typedef struct Worker
{
	bool		known;
	bool		seen;			/* in this cycle's copy */
	uint32		generation;
	BackgroundWorkerHandle *handle; /* NULL: started by a launcher before us */
	WhQueued	job;			/* handed over and not yet finished; job_id 0: idle */
	int			streak;			/* jobs of its tenant in a row */
	TimestampTz streak_started_at;
	int64		promised;		/* job that it may expect next; 0: none */
} Worker;

typedef struct RunningBackfill
{
	int64		backfill_id;
	bool		changed;		/* a job of it ended since it was attended to */
	TimestampTz attended_at;
	TimestampTz not_before;		/* it could not be attended to just now */
} RunningBackfill;

static Worker *workers = NULL;
static List *running_backfills = NIL;	/* in backfill_context */
static MemoryContext backfill_context = NULL;
static MemoryContext cycle_context = NULL;
static char my_database[NAMEDATALEN];

static bool need_reread = true;
static WhPause pause_state = WH_RUNS;
static TimestampTz last_reread = 0;
static TimestampTz no_start_before = 0;
static TimestampTz last_cycle = 0;
static TimestampTz wake_at;

static void
wake_no_later_than(TimestampTz when)
{
	if (when < wake_at)
		wake_at = when;
}

static void
wake_within(long ms)
{
	wake_no_later_than(TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms));
}

/* ---- reading ---- */

static void
read_pause(void)
{
	wh_spi_begin();
	pause_state = wh_identity_pause();
	wh_spi_end();
}

static void
read_tenants(void)
{
	uint64		n;

	wh_spi_begin();
	n = wh_query("SELECT tenant_name, active, coalesce(max_connections, 0), quiet_hours"
				 " FROM _wh.tenant_connections", 0, NULL);
	for (uint64 i = 0; i < n; i++)
		wh_ready_tenant(wh_get_text(cycle_context, i, 1), wh_get_bool(i, 2),
						(int) wh_get_int8(i, 3), wh_get_text(cycle_context, i, 4));
	wh_spi_end();
}

static void
read_unreachable(void)
{
	wh_ready_all_reachable();
	wh_queue_read_unreachable(wh_ready_unreachable);
	for (int i = 0; i < wh_status_max_slots(); i++)
		if (workers[i].known && workers[i].job.is_probe &&
			wh_ready_probe_answered(workers[i].job.tenant_name))
			workers[i].job.is_probe = false;
}

static RunningBackfill *
find_backfill(int64 backfill_id)
{
	ListCell   *cell;

	foreach(cell, running_backfills)
	{
		RunningBackfill *backfill = lfirst(cell);

		if (backfill->backfill_id == backfill_id)
			return backfill;
	}
	return NULL;
}

static void
add_backfill(int64 backfill_id)
{
	MemoryContext old = MemoryContextSwitchTo(backfill_context);
	RunningBackfill *backfill = palloc0(sizeof(RunningBackfill));

	backfill->backfill_id = backfill_id;
	backfill->changed = true;
	backfill->attended_at = GetCurrentTimestamp();
	running_backfills = lappend(running_backfills, backfill);
	MemoryContextSwitchTo(old);
}

static void
read_backfills(void)
{
	uint64		n;

	MemoryContextReset(backfill_context);
	running_backfills = NIL;
	wh_spi_begin();
	n = wh_query("SELECT backfill_id FROM _wh.backfills WHERE state = 'running'"
				 " ORDER BY backfill_id", 0, NULL);
	for (uint64 i = 0; i < n; i++)
		add_backfill(wh_get_int8(i, 1));
	wh_spi_end();
}

static void
add_queued(const WhQueued *job, void *arg)
{
	wh_ready_add(job);
	if (job->backfill_id != 0 && find_backfill(job->backfill_id) == NULL)
		add_backfill(job->backfill_id);
}

/* Draws the picture of the queue anew. */
static void
reread_all(void)
{
	wh_ready_reset();
	for (int i = 0; i < wh_status_max_slots(); i++)
		if (workers[i].known && workers[i].job.job_id != 0)
			wh_ready_started(&workers[i].job);
	read_pause();
	read_tenants();
	read_unreachable();
	read_backfills();
	wh_due_reread();
	wh_queue_read(PG_INT64_MIN, PG_INT64_MAX, add_queued, NULL);
	need_reread = false;
	last_reread = GetCurrentTimestamp();
}

static void
read_news(void)
{
	WhNews		news;

	wh_status_take_news(&news);
	if (news.reread_all ||
		TimestampDifferenceExceeds(last_reread, GetCurrentTimestamp(), REREAD_MS))
		need_reread = true;
	if (!need_reread && news.nranges == 0)
		return;

	wh_begin_transaction();
	if (need_reread)
	{
		/* Should this fail, the next cycle starts it again. */
		wh_queue_recover(0);
		CommandCounterIncrement();
		PopActiveSnapshot();
		PushActiveSnapshot(GetTransactionSnapshot());
		reread_all();
	}
	else
	{
		read_unreachable();
		for (int i = 0; i < news.nranges; i++)
			wh_queue_read(news.first[i], news.last[i], add_queued, NULL);
	}
	wh_commit_transaction(cycle_context);
}

/* ---- workers ---- */

static void
recover_job(int64 job_id)
{
	wh_begin_transaction();
	wh_queue_recover(job_id);
	/* one that was not claimed yet is queued still, and nobody else tells of it */
	wh_queue_read(job_id, job_id, add_queued, NULL);
	wh_commit_transaction(cycle_context);
}

static void
job_ended(Worker *worker)
{
	bool		was_publish = worker->job.tenant_name[0] == '\0';
	ListCell   *cell;

	/*
	 * A publish job serves every backfill of its template; and a job that was
	 * of no backfill when it started may have been taken over by one since.
	 */
	foreach(cell, running_backfills)
	{
		RunningBackfill *backfill = lfirst(cell);

		if (was_publish || worker->job.backfill_id == 0 ||
			backfill->backfill_id == worker->job.backfill_id)
			backfill->changed = true;
	}
	wh_ready_finished(&worker->job);
	worker->job.job_id = 0;
	worker->job.backfill_id = 0;
	worker->job.is_probe = false;
}

static void
forget_promise(Worker *worker)
{
	if (worker->promised != 0)
		wh_ready_forget_promise(worker->promised);
	worker->promised = 0;
}

static void
forget_worker(Worker *worker)
{
	if (worker->handle != NULL)
		pfree(worker->handle);
	forget_promise(worker);
	memset(worker, 0, sizeof(*worker));
}

/* A worker that left with a job in hand did not finish it. */
static void
reap_gone(void)
{
	for (int i = 0; i < wh_status_max_slots(); i++)
	{
		Worker	   *worker = &workers[i];
		int64		job_id = worker->job.job_id;

		if (!worker->known || worker->seen)
			continue;
		if (job_id != 0)
		{
			/* Whatever it died of may kill the next one too: no haste. */
			no_start_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESTART_MS);
			job_ended(worker);
		}
		forget_worker(worker);
		if (job_id != 0)
			recover_job(job_id);
	}
}

/* A launcher before us handed out its job: of what class it was is a guess. */
static void
adopt(Worker *worker, const WhSlotInfo *info)
{
	bool		tidies;

	worker->known = true;
	worker->generation = info->generation;
	worker->job.job_id = info->job_id;
	worker->job.backfill_id = info->backfill_id;
	/* what combines or moves relations reads no tenant, and counts for none */
	tidies = strncmp(info->job_kind, "combine", strlen("combine")) == 0 ||
		strcmp(info->job_kind, "retention") == 0 || strcmp(info->job_kind, "convert") == 0;
	if (!tidies)
		strlcpy(worker->job.tenant_name, info->tenant_name, NAMEDATALEN);
	worker->job.priority = tidies || (info->backfill_id != 0 && info->tenant_name[0] != '\0') ?
		WH_PRIORITY_BACKFILL : WH_PRIORITY_TODAY;
	if (worker->job.job_id != 0)
		wh_ready_started(&worker->job);
}

/* A worker that was asked for and could not be started gives its slot back. */
static bool
never_started(const Worker *worker, const WhSlotInfo *info, int slot)
{
	pid_t		pid;
	bool		gone;

	if (info->pid != 0)
		return false;
	/* Without a handle (a launcher before us asked for it) only time tells. */
	gone = worker->handle != NULL ?
		GetBackgroundWorkerPid(worker->handle, &pid) == BGWH_STOPPED :
		TimestampDifferenceExceeds(info->phase_started_at, GetCurrentTimestamp(),
								   WH_START_TIMEOUT_MS);
	if (!gone)
		return false;
	wh_status_unreserve_worker(slot, info->generation);
	no_start_before = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RESTART_MS);
	return true;
}

/* Compares what we know with what the slots say; counts who is on the way. */
static int
look_at_workers(WhSlotInfo *infos, int *slots, int *ncopied)
{
	int			starting = 0;
	int			n = wh_status_workers(infos, slots);

	for (int i = 0; i < wh_status_max_slots(); i++)
		workers[i].seen = false;
	for (int i = 0; i < n; i++)
	{
		Worker	   *worker = &workers[slots[i]];

		if (worker->known && worker->generation != infos[i].generation)
			continue;			/* reaped below, adopted in the next cycle */
		if (!worker->known)
			adopt(worker, &infos[i]);
		if (never_started(worker, &infos[i], slots[i]))
			continue;
		worker->seen = true;
		if (worker->job.job_id != 0 && infos[i].job_id == 0)
			job_ended(worker);
		if (infos[i].phase == WH_PHASE_STARTING)
			starting++;
	}
	reap_gone();
	*ncopied = n;
	return starting;
}

static bool
start_worker(void)
{
	WhWorkerStart start;
	Worker	   *worker;
	const char *problem = wh_start_problem(cycle_context);
	bool		ok;

	if (problem != NULL)
	{
		wh_start_failed(my_database, problem);
		wake_within(SHORTAGE_MS);
		return false;
	}
	memset(&start, 0, sizeof(start));
	start.slot = wh_status_reserve_worker(&start.generation);
	if (start.slot < 0)
	{
		wh_status_want_worker(true);
		return false;
	}
	worker = &workers[start.slot];
	if (worker->known && worker->job.job_id != 0)
	{
		/* It died since we looked, and its job must be found again. */
		need_reread = true;
		wake_within(0);
	}
	forget_worker(worker);
	ok = wh_worker_register(&start, my_database, &worker->handle);
	if (!ok)
	{
		worker->handle = NULL;
		wh_status_unreserve_worker(start.slot, start.generation);
		wh_start_failed(my_database, NULL);
		wake_within(SHORTAGE_MS);
		return false;
	}
	worker->known = true;
	worker->generation = start.generation;
	wh_start_succeeded();
	return true;
}

/* To change costs a connection, which is the price of a small day. */
static bool
keeps_its_tenant(const Worker *worker)
{
	return worker->job.tenant_name[0] != '\0' &&
		(worker->streak < KEEP_TENANT_JOBS ||
		 !TimestampDifferenceExceeds(worker->streak_started_at, GetCurrentTimestamp(), KEEP_TENANT_MS));
}

static void
count_streak(Worker *worker, const WhQueued *job)
{
	if (strcmp(worker->job.tenant_name, job->tenant_name) == 0)
		worker->streak++;
	else
	{
		worker->streak = 0;
		worker->streak_started_at = GetCurrentTimestamp();
	}
	worker->job = *job;
}

/* Hands the next job to an idle worker; false when there is none to hand. */
static bool
hand_out(int slot)
{
	Worker	   *worker = &workers[slot];
	bool		keep = keeps_its_tenant(worker);
	WhQueued	job;
	WhAssignment assignment;

	if (!wh_ready_pick(keep ? worker->job.tenant_name : NULL, slot, &job))
		return false;
	forget_promise(worker);
	memset(&assignment, 0, sizeof(assignment));
	assignment.job_id = job.job_id;
	assignment.backfill_id = job.backfill_id;
	strlcpy(assignment.tenant_name, job.tenant_name, NAMEDATALEN);
	assignment.next_job_id = worker->promised = wh_ready_promise(&job, slot);
	if (!wh_status_assign(slot, worker->generation, &assignment))
	{
		/* It was just leaving: the job goes back into the picture. */
		wh_ready_finished(&job);
		wh_ready_add(&job);
		forget_promise(worker);
		return true;
	}
	count_streak(worker, &job);
	return true;
}

static bool
is_idle(const Worker *worker, const WhSlotInfo *info)
{
	return worker->known && worker->seen && worker->job.job_id == 0 && info->phase == WH_PHASE_IDLE;
}

/* To those who were promised a job, or to those who were not; false when none is left. */
static bool
hand_out_all(const WhSlotInfo *infos, const int *slots, int n, bool promised)
{
	for (int i = 0; i < n; i++)
	{
		const Worker *worker = &workers[slots[i]];

		if (is_idle(worker, &infos[i]) && (worker->promised != 0) == promised &&
			!hand_out(slots[i]))
			return false;
	}
	return true;
}

/* Who is idle now did not get what he was promised, and does not keep it from others. */
static void
forget_promises_of_idle(void)
{
	for (int i = 0; i < wh_status_max_slots(); i++)
		if (workers[i].known && workers[i].job.job_id == 0)
			forget_promise(&workers[i]);
}

static void
dispatch(const WhSlotInfo *infos, const int *slots, int n, int starting)
{
	int			missing;

	if (hand_out_all(infos, slots, n, true))
		(void) hand_out_all(infos, slots, n, false);
	forget_promises_of_idle();
	missing = wh_ready_startable(wh_max_workers) - starting;
	if (missing <= 0)
		wh_status_want_worker(false);
	if (missing > 0 && GetCurrentTimestamp() < no_start_before)
	{
		wake_no_later_than(no_start_before);
		missing = 0;
	}
	while (missing-- > 0 && start_worker())
		;
	wake_no_later_than(wh_ready_next_due());
}

/* ---- backfills ---- */

static WhAttended
attend(const RunningBackfill *backfill)
{
	bool		outstanding = wh_ready_outstanding(backfill->backfill_id) > 0;
	WhAttended	result;

	wh_begin_transaction();
	result = wh_backfill_attend(backfill->backfill_id, outstanding);
	wh_commit_transaction(cycle_context);
	return result;
}

/* What goes wrong with one backfill must not keep the others from ending. */
static WhAttended
try_attend(const RunningBackfill *backfill)
{
	volatile WhAttended result = WH_ATTEND_AGAIN;

	PG_TRY();
	{
		result = attend(backfill);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cycle_context);
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(cycle_context);
	}
	PG_END_TRY();
	return result;
}

static bool
has_worker(int64 backfill_id)
{
	for (int i = 0; i < wh_status_max_slots(); i++)
		if (workers[i].known && workers[i].job.job_id != 0 &&
			workers[i].job.backfill_id == backfill_id)
			return true;
	return false;
}

/* One that waits for a tenant shall not keep to itself what it has loaded. */
static long
publish_delay_ms(const RunningBackfill *backfill)
{
	return has_worker(backfill->backfill_id) ? PUBLISH_MS : ATTEND_AGAIN_MS;
}

/* Those with nothing outstanding may have ended; the others publish now and then. */
static void
attend_to_backfills(void)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *left = NIL;
	bool		any_ended = false;
	ListCell   *cell;
	MemoryContext old;

	foreach(cell, running_backfills)
	{
		RunningBackfill *backfill = lfirst(cell);
		long		delay = publish_delay_ms(backfill);
		bool		due = TimestampDifferenceExceeds(backfill->attended_at, now, delay);
		bool		ended = false;

		if (backfill->changed && backfill->not_before <= now &&
			(due || wh_ready_outstanding(backfill->backfill_id) == 0))
		{
			WhAttended	result = try_attend(backfill);

			ended = result == WH_ATTEND_ENDED;
			backfill->changed = result == WH_ATTEND_AGAIN;
			backfill->attended_at = now;
			backfill->not_before = backfill->changed ?
				TimestampTzPlusMilliseconds(now, ATTEND_AGAIN_MS) : 0;
		}
		any_ended = any_ended || ended;
		if (backfill->changed)
			wake_no_later_than(backfill->not_before > now ? backfill->not_before :
							   TimestampTzPlusMilliseconds(backfill->attended_at, delay));
		if (!ended)
		{
			old = MemoryContextSwitchTo(backfill_context);
			left = lappend(left, backfill);
			MemoryContextSwitchTo(old);
		}
	}
	list_free(running_backfills);
	running_backfills = left;
	if (!any_ended)
		return;
	/* Those that share days with one that ended may end now too. */
	foreach(cell, running_backfills)
		((RunningBackfill *) lfirst(cell))->changed = true;
	wh_status_backfill_ended();
	wake_within(0);
}

/* ---- schedules ---- */

static void
run_schedules(void)
{
	if (pause_state == WH_RUNS && wh_due_run())
		wake_within(0);
	if (pause_state == WH_RUNS && wh_due_ms() >= 0)
		wake_within(wh_due_ms());
}

/* ---- the loop ---- */

/* The server's own clock was set back: what was put off would wait for its old time. */
static void
notice_step_back(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(now, last_cycle, STEP_BACK_MS))
	{
		need_reread = true;
		no_start_before = 0;
		wh_upkeep_clock_stepped_back();
	}
	last_cycle = now;
}

/* Without the extension, or with another version of it, all there is to do is to look again. */
static bool
have_extension(void)
{
	static char complaint[WH_ERROR_SIZE];
	const char *hint;
	char	   *problem;

	wh_begin_transaction();
	MemoryContextSwitchTo(cycle_context);
	problem = wh_version_problem(&hint);
	wh_commit_transaction(cycle_context);
	if (problem == NULL)
	{
		complaint[0] = '\0';
		return true;
	}
	if (strncmp(complaint, problem, sizeof(complaint) - 1) != 0)
		wh_log_launcher_waits(my_database, problem, hint);
	strlcpy(complaint, problem, sizeof(complaint));
	need_reread = true;
	wh_status_error(problem);
	wh_status_phase(WH_PHASE_WAITING);
	wake_within(EXTENSION_CHECK_MS);
	return false;
}

/* Waiting for the extension is over: its complaint must not stay. */
static void
report_idle(void)
{
	if (wh_status_get_phase() == WH_PHASE_IDLE)
		return;
	wh_status_error("");
	wh_status_phase(WH_PHASE_IDLE);
}

/* A copy starts nothing at all: what its ledger says is not true yet. */
static bool
is_confirmed(void)
{
	static bool complained = false;

	if (pause_state != WH_UNCONFIRMED)
		complained = false;
	else if (!complained)
	{
		ereport(LOG,
				(errmsg("wh_worker starts no job in database \"%s\": %s", my_database, wh_identity_reason(pause_state)),
				 errhint("%s", wh_identity_hint(pause_state))));
		complained = true;
		wh_status_error(wh_identity_reason(pause_state));
		wh_status_phase(WH_PHASE_WAITING);
	}
	return pause_state != WH_UNCONFIRMED;
}

/* True when there is nothing left to do here: switched off, and all at rest. */
static bool
cycle(void)
{
	WhSlotInfo *infos = palloc(sizeof(WhSlotInfo) * wh_status_max_slots());
	int		   *slots = palloc(sizeof(int) * wh_status_max_slots());
	int			n;
	int			starting;

	wake_within(REREAD_MS);
	notice_step_back();
	if (!have_extension())
		return !wh_enabled || !wh_guc_lists(my_database);
	if (wh_enabled && wh_guc_lists(my_database) && wh_locked_out(my_database, cycle_context))
	{
		need_reread = true;
		wake_within(EXTENSION_CHECK_MS);
		return false;
	}
	/* In this order: what a job left to be known is told before its end shows. */
	starting = look_at_workers(infos, slots, &n);
	read_news();
	if (!wh_enabled || !wh_guc_lists(my_database))
	{
		wh_status_want_worker(false);
		return n == 0;
	}
	if (!is_confirmed())
		return false;
	report_idle();
	if (pause_state == WH_RUNS)
		dispatch(infos, slots, n, starting);
	attend_to_backfills();
	run_schedules();
	wake_within(wh_upkeep(cycle_context));
	return false;
}

/* One error ends one cycle: say it, wait longer each time, draw anew. */
static bool
guarded_cycle(void)
{
	static int	errors = 0;
	volatile bool done = false;

	PG_TRY();
	{
		done = cycle();
		if (errors > 0)
			wh_status_error("");
		errors = 0;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(cycle_context);
		error = CopyErrorData();
		HOLD_INTERRUPTS();
		if (errors < 3)
			EmitErrorReport();
		AbortCurrentTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
		wh_status_error(error->message);
		need_reread = true;
		wake_at = GetCurrentTimestamp();
		wake_at = TimestampTzPlusMilliseconds(wake_at,
											  Min(ERROR_DELAY_MS << Min(errors, 5), ERROR_DELAY_MAX_MS));
		errors++;
	}
	PG_END_TRY();
	return done;
}

static void
rest(void)
{
	long		ms = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), wake_at);

	pgstat_report_stat(false);
	wh_activity_cycle(false);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(ms, REREAD_MS), wh_wait_event(WH_WAIT_LAUNCHER_MAIN));
	ResetLatch(MyLatch);
	/* A cancel that came while we slept has nothing to cancel. */
	QueryCancelPending = false;
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		need_reread = true;
	}
}

void
wh_launcher_main(Datum arg)
{
	WhLauncherStart start;

	memcpy(&start, MyBgworkerEntry->bgw_extra, sizeof(start));
	strlcpy(my_database, start.database, NAMEDATALEN);
	wh_log_context_process("launcher", my_database);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(start.database, wh_admin_role, 0);
	if (!wh_status_attach_launcher(start.slot, start.generation))
		return;

	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("lock_timeout", "1s", PGC_USERSET, PGC_S_SESSION);
	/* to compile what it asks catalogs would take longer than to run it */
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_SESSION);
	workers = MemoryContextAllocZero(TopMemoryContext,
									 sizeof(Worker) * wh_status_max_slots());
	backfill_context = AllocSetContextCreate(TopMemoryContext, "wh_worker backfills",
											 ALLOCSET_SMALL_SIZES);
	cycle_context = AllocSetContextCreate(TopMemoryContext, "wh_worker cycle",
										  ALLOCSET_DEFAULT_SIZES);
	wh_ready_reset();
	wh_missing_watch();
	wh_log_process_started("launcher", my_database);

	for (;;)
	{
		MemoryContextSwitchTo(cycle_context);
		MemoryContextReset(cycle_context);
		wake_at = DT_NOEND;
		wh_activity_cycle(true);
		if (guarded_cycle())
			break;
		rest();
	}
	wh_log_process_stopped("launcher", my_database);
}
