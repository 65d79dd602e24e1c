/*
 * due.c: the launcher's picture of the schedules: which is due next.
 *
 * A heap of (next_run, schedule_id) in memory, drawn from _wh.schedules when the
 * configuration changed and now and then; what is due is asked of the row
 * itself (schedule.c), so that the picture may be wrong.  Each schedule is
 * decided on in a subtransaction of its own: a bad one is marked, shown, and
 * moved on.  Decisions are committed without waiting for the disk: one that is
 * lost in a crash is made again.
 *
 * Called by launcher.c only.  May not start jobs, and waits for nobody longer
 * than LOCK_TIMEOUT.  Takes no locks itself.
 */
#include "postgres.h"

#include "lib/pairingheap.h"
#include "miscadmin.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "clock.h"
#include "due.h"
#include "error.h"
#include "guc.h"
#include "log_context.h"
#include "log_event.h"
#include "schedule.h"
#include "sqlutil.h"

/* Schedules decided on in one transaction. */
#define PER_TRANSACTION 100

#define LOCK_TIMEOUT "100ms"

/* Its row is locked: ask again; and what may be better in a while: later. */
#define AGAIN_MS 200
#define TROUBLE_MS 5000

/* Then the launcher has other things to do: each that is locked costs LOCK_TIMEOUT. */
#define BUDGET_MS 250

/* A clock that was set back by less than this is only waited for. */
#define STEP_BACK_MS (5 * 60 * 1000)

typedef struct Entry
{
	pairingheap_node node;
	int64		schedule_id;
	TimestampTz next_run;
} Entry;

static MemoryContext due_context = NULL;
static pairingheap *heap = NULL;
static TimestampTz last_now = 0;	/* the clock when we last looked */
static char *known_zone = NULL; /* wh_worker.timezone when we last looked */

/* What is left to adjust, because rows were locked. */
typedef struct Left
{
	bool		any;
	bool		by_zone;
} Left;

static Left left = {false, false};
static Left found_left = {false, false};	/* by a transaction that may be rolled back */

static int
compare(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const Entry *x = pairingheap_const_container(Entry, node, a);
	const Entry *y = pairingheap_const_container(Entry, node, b);

	if (x->next_run != y->next_run)
		return x->next_run < y->next_run ? 1 : -1;
	return x->schedule_id < y->schedule_id ? 1 : x->schedule_id > y->schedule_id ? -1 : 0;
}

static Entry *
first_entry(void)
{
	if (heap == NULL || pairingheap_is_empty(heap))
		return NULL;
	return pairingheap_container(Entry, node, pairingheap_first(heap));
}

/* ---- the picture ---- */

static void
start_anew(void)
{
	if (due_context == NULL)
		due_context = AllocSetContextCreate(TopMemoryContext, "wh_worker schedules",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(due_context);
	heap = MemoryContextAllocZero(due_context, sizeof(pairingheap));
	heap->ph_compare = compare;
}

static void
read_schedules(void)
{
	uint64		n;

	start_anew();
	wh_spi_begin();
	n = wh_query("SELECT schedule_id, coalesce(next_run, '-infinity') FROM _wh.schedules"
				 " WHERE active AND next_run IS DISTINCT FROM 'infinity'", 0, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Entry	   *entry = MemoryContextAlloc(due_context, sizeof(Entry));

		entry->schedule_id = wh_get_int8(i, 1);
		entry->next_run = wh_get_timestamptz(i, 2);
		pairingheap_add(heap, &entry->node);
	}
	wh_spi_end();
}

/*
 * At first both have changed: nobody looked while the server was down.  They
 * count as noticed once wh_due_run() is reached, so that what is rolled back is
 * done again.
 */
static void
adjust_to_changes(void)
{
	TimestampTz now = wh_clock_now();
	bool		stepped_back = TimestampDifferenceExceeds(now, last_now, STEP_BACK_MS);
	bool		zone_changed = known_zone == NULL || strcmp(known_zone, wh_timezone) != 0 ||
		left.by_zone;

	found_left.any = !wh_schedule_adjust(now, stepped_back || zone_changed || left.any, zone_changed);
	found_left.by_zone = found_left.any && zone_changed;
}

static void
note_changes(TimestampTz now)
{
	last_now = now;
	left = found_left;
	if (known_zone != NULL && strcmp(known_zone, wh_timezone) == 0)
		return;
	if (known_zone != NULL)
		pfree(known_zone);
	known_zone = NULL;
	known_zone = MemoryContextStrdup(TopMemoryContext, wh_timezone);
}

void
wh_due_reread(void)
{
	adjust_to_changes();
	CommandCounterIncrement();
	read_schedules();
}

/* ---- what is due ---- */

static void
begin_transaction(void)
{
	wh_begin_transaction();
	(void) set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
}

typedef struct Attempt
{
	int64		schedule_id;
	TimestampTz now;
	const char *message;		/* what is to be said of it; NULL: run it */
	TimestampTz next_run;		/* what came of it */
} Attempt;

static void
run_attempt(void *arg)
{
	Attempt    *what = arg;

	what->next_run = what->message == NULL ?
		wh_schedule_run(what->schedule_id, what->now) :
		wh_schedule_failed(what->schedule_id, what->now, what->message);
}

/* NULL, or the error that it ended with; the transaction goes on. */
static ErrorData *
attempt(Attempt *what)
{
	ErrorData  *error = wh_attempt(run_attempt, what);

	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	return error;
}

static TimestampTz
later(TimestampTz now, int ms)
{
	return TimestampTzPlusMilliseconds(now, ms);
}

/* When it is to be asked again. */
static TimestampTz
decide_on(int64 schedule_id, TimestampTz now)
{
	Attempt		run = {.schedule_id = schedule_id,.now = now};
	Attempt		mark = run;
	ErrorData  *error = attempt(&run);

	if (error == NULL)
		return run.next_run == DT_NOBEGIN ? later(now, AGAIN_MS) : run.next_run;
	wh_log_schedule_error(schedule_id, error, wh_sqlstate_is_transient(error->sqlerrcode));
	if (wh_sqlstate_is_transient(error->sqlerrcode))
		return later(now, TROUBLE_MS);	/* not the schedule's fault */
	mark.message = error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message;
	error = attempt(&mark);
	if (error != NULL)
		wh_log_schedule_error(schedule_id, error, wh_sqlstate_is_transient(error->sqlerrcode));
	return error != NULL || mark.next_run == DT_NOBEGIN ? later(now, TROUBLE_MS) : mark.next_run;
}

static TimestampTz
run_one(int64 schedule_id, TimestampTz now)
{
	WhLogContext context = {.operation = "schedule", .schedule_id = schedule_id};
	TimestampTz next;

	wh_log_context_push(&context);
	next = decide_on(schedule_id, now);
	wh_log_context_pop(&context);
	return next;
}

/* True if there was one. */
static bool
run_first(TimestampTz now)
{
	Entry	   *entry = first_entry();

	if (entry == NULL || entry->next_run > now)
		return false;
	pairingheap_remove_first(heap);
	entry->next_run = run_one(entry->schedule_id, now);
	if (entry->next_run == DT_NOEND)
		pfree(entry);
	else
		pairingheap_add(heap, &entry->node);
	return true;
}

/* The clock was set back: what waits for its old time waits for too long. */
static void
notice_step_back(void)
{
	MemoryContext context = CurrentMemoryContext;

	if (!TimestampDifferenceExceeds(wh_clock_now(), last_now, STEP_BACK_MS))
		return;
	begin_transaction();
	wh_due_reread();
	wh_commit_transaction(context);
}

bool
wh_due_run(void)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz now = wh_clock_now();
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BUDGET_MS);
	int			n = 0;

	notice_step_back();
	note_changes(now);
	if (first_entry() == NULL || first_entry()->next_run > now)
		return false;
	begin_transaction();
	while (n < PER_TRANSACTION && GetCurrentTimestamp() < deadline && run_first(now))
		n++;
	wh_commit_transaction(context);
	return first_entry() != NULL && first_entry()->next_run <= now;
}

long
wh_due_ms(void)
{
	Entry	   *entry = first_entry();

	return entry == NULL ? -1 : TimestampDifferenceMilliseconds(wh_clock_now(), entry->next_run);
}
