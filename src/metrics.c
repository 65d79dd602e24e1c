/*
 * metrics.c: what the warehouse counts, in shared memory, from one start of
 * the server to the next.
 *
 * A load must not feel that it is counted: its process keeps what it will
 * count to itself and adds it under the lock once, when its transaction has
 * committed; a counter never counts what was rolled back.  Phases are measured
 * in the process alone.  Only this file touches the segment and its LWLock,
 * under which nothing is allocated, formatted or raised and no other lock is
 * taken; metrics_view.c works on copies.
 *
 * The segment has a fixed size: a number of databases, the one that has counted
 * nothing for longest making room, and a number of templates, those that come
 * later being counted together.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "metrics.h"

#define TRANCHE_NAME "wh_worker metrics"

/* More than are listed at a time: some may be dropped and made anew. */
#define DATABASES (2 * WH_MAX_DATABASES)

const double wh_metrics_bounds[WH_BOUNDS] = {
	0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200
};

typedef struct Shared
{
	LWLock	   *lock;
	WhDatabaseCounters databases[DATABASES];
	WhTemplateCounters templates[WH_COUNTED_TEMPLATES];
} Shared;

/* What will be counted if this transaction, and the one around it, commits. */
typedef struct Pending
{
	WhCounted	counted;
	int			level;
} Pending;

static Shared *shared = NULL;
static List *pending = NIL;		/* in TopTransactionContext */
static TimestampTz readers_wait_since = 0;

/* The job at hand: how long it has been in each phase, and in this one since when. */
static int64 in_phase[WH_COUNTED_PHASES];	/* us */
static WhPhase phase_now = WH_PHASE_IDLE;
static TimestampTz phase_since = 0; /* 0: no job */

static double
seconds_between(TimestampTz from, TimestampTz to)
{
	return Max(to - from, 0) / 1000000.0;
}

/* ---- under the lock ---- */

static void
observe(WhHistogram *histogram, double seconds)
{
	int			i = 0;

	while (i < WH_BOUNDS && seconds > wh_metrics_bounds[i])
		i++;
	histogram->buckets[i]++;
	histogram->sum += seconds;
}

static void
forget_database(WhDatabaseCounters *database)
{
	for (int i = 0; i < WH_COUNTED_TEMPLATES; i++)
		if (shared->templates[i].database_oid == database->database_oid)
			memset(&shared->templates[i], 0, sizeof(WhTemplateCounters));
	memset(database, 0, sizeof(WhDatabaseCounters));
}

static WhDatabaseCounters *
find_database(Oid database_oid)
{
	for (int i = 0; i < DATABASES; i++)
		if (shared->databases[i].database_oid == database_oid)
			return &shared->databases[i];
	return NULL;
}

static WhDatabaseCounters *
my_database(TimestampTz now)
{
	WhDatabaseCounters *database = find_database(MyDatabaseId);

	if (database == NULL)
		database = find_database(InvalidOid);
	if (database == NULL)
	{
		database = &shared->databases[0];
		for (int i = 1; i < DATABASES; i++)
			if (shared->databases[i].used_at < database->used_at)
				database = &shared->databases[i];
		forget_database(database);
	}
	database->database_oid = MyDatabaseId;
	database->used_at = now;
	return database;
}

static WhTemplateCounters *
my_template(WhDatabaseCounters *database, const char *name)
{
	WhTemplateCounters *unused = NULL;

	for (int i = 0; i < WH_COUNTED_TEMPLATES; i++)
	{
		WhTemplateCounters *counters = &shared->templates[i];

		if (counters->database_oid == MyDatabaseId && strcmp(counters->template_name, name) == 0)
			return counters;
		if (unused == NULL && counters->database_oid == InvalidOid)
			unused = counters;
	}
	if (unused == NULL)
		return &database->other;
	unused->database_oid = MyDatabaseId;
	strlcpy(unused->template_name, name, NAMEDATALEN);
	return unused;
}

static bool
is_load_by_job(const WhCounted *counted)
{
	return counted->kind == WH_JOB_REFRESH && counted->result == WH_COUNTED_SUCCEEDED && counted->started_at != 0;
}

static void
add(WhDatabaseCounters *database, const WhCounted *counted, TimestampTz now)
{
	WhTemplateCounters *counters = my_template(database, counted->template_name);

	counters->ended[counted->kind][counted->result]++;
	counters->rows += counted->rows;
	counters->bytes += counted->bytes;
	if (!is_load_by_job(counted))
		return;
	observe(&counters->load, seconds_between(counted->started_at, now));
	for (int i = 0; i < WH_COUNTED_PHASES; i++)
		if (in_phase[i] > 0)
			observe(&database->phases[i], in_phase[i] / 1000000.0);
}

/* ---- the ends of transactions ---- */

static void
add_pending(void)
{
	TimestampTz now = GetCurrentTimestamp();
	WhDatabaseCounters *database;
	ListCell   *cell;

	wh_metrics_phase(phase_now);
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = my_database(now);
	foreach(cell, pending)
		add(database, &((Pending *) lfirst(cell))->counted, now);
	LWLockRelease(shared->lock);
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT && event != XACT_EVENT_PREPARE)
		return;
	if (event == XACT_EVENT_COMMIT && pending != NIL)
		add_pending();
	pending = NIL;
	wh_metrics_readers_pass();
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	ListCell   *cell;

	foreach(cell, pending)
	{
		Pending    *one = lfirst(cell);

		if (one->level < level)
			continue;
		if (event == SUBXACT_EVENT_ABORT_SUB)
			pending = foreach_delete_current(pending, cell);
		else if (event == SUBXACT_EVENT_COMMIT_SUB)
			one->level = level - 1;
	}
}

/* ---- what others call ---- */

void
wh_metrics_request(void)
{
	RequestAddinShmemSpace(sizeof(Shared));
	RequestNamedLWLockTranche(TRANCHE_NAME, 1);
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

void
wh_metrics_startup(void)
{
	bool		found;

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(TRANCHE_NAME, sizeof(Shared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(Shared));
		shared->lock = &(GetNamedLWLockTranche(TRANCHE_NAME))->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

void
wh_metrics_count(const WhCounted *counted)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	Pending    *one = palloc(sizeof(Pending));

	one->counted = *counted;
	one->counted.template_name = pstrdup(counted->template_name ? counted->template_name : "");
	one->level = GetCurrentTransactionNestLevel();
	pending = lappend(pending, one);
	MemoryContextSwitchTo(old);
}

void
wh_metrics_job_begins(void)
{
	memset(in_phase, 0, sizeof(in_phase));
	phase_now = WH_PHASE_IDLE;
	phase_since = GetCurrentTimestamp();
}

void
wh_metrics_phase(WhPhase phase)
{
	TimestampTz now;

	if (phase_since == 0)
		return;
	now = GetCurrentTimestamp();
	in_phase[phase_now] += Max(now - phase_since, 0);
	phase_now = phase;
	phase_since = now;
}

void
wh_metrics_readers_wait(void)
{
	if (readers_wait_since == 0)
		readers_wait_since = GetCurrentTimestamp();
}

void
wh_metrics_readers_pass(void)
{
	TimestampTz now;

	if (readers_wait_since == 0)
		return;
	now = GetCurrentTimestamp();
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	observe(&my_database(now)->readers_kept, seconds_between(readers_wait_since, now));
	LWLockRelease(shared->lock);
	readers_wait_since = 0;
}

TimestampTz
wh_metrics_readers_wait_since(void)
{
	return readers_wait_since;
}

void
wh_metrics_try(WhTryResult result, double waited)
{
	TimestampTz now = GetCurrentTimestamp();
	WhDatabaseCounters *database;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	database = my_database(now);
	database->tries[result]++;
	database->lock_wait += waited;
	LWLockRelease(shared->lock);
}

int
wh_metrics_copy(WhDatabaseCounters *database, WhTemplateCounters *templates)
{
	WhDatabaseCounters *found;
	int			n = 0;

	memset(database, 0, sizeof(WhDatabaseCounters));
	LWLockAcquire(shared->lock, LW_SHARED);
	found = find_database(MyDatabaseId);
	if (found != NULL)
		*database = *found;
	for (int i = 0; i < WH_COUNTED_TEMPLATES; i++)
		if (shared->templates[i].database_oid == MyDatabaseId)
			templates[n++] = shared->templates[i];
	LWLockRelease(shared->lock);
	return n;
}
