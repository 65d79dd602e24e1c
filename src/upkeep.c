/*
 * upkeep.c: what the launcher does now and then, whatever the queue holds:
 * history that is old enough goes, days whose relation a person took away
 * become missing, and files without a relation are looked for.
 *
 * Called by launcher.c, outside of a transaction.  May wait for nobody: the
 * first two skip the rows that somebody has locked.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "audit.h"
#include "log_event.h"
#include "missing.h"
#include "orphan.h"
#include "queue.h"
#include "sqlutil.h"
#include "upkeep.h"

#define PRUNE_MS (60 * 60 * 1000)
#define PRUNE_AGAIN_MS 1000
#define NOTICE_MS 1000

/*
 * Nobody wakes the launcher for a relation that is dropped: it learns of it in
 * its next transaction, and a cycle in which nothing is to be done is cheap.
 */
#define LOOK_MS 5000

static TimestampTz last_prune = 0;
static TimestampTz last_notice = 0;

/* Whether there is more to prune at once. */
static bool
prune(MemoryContext context)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		more;

	if (last_prune != 0 && !TimestampDifferenceExceeds(last_prune, now, PRUNE_MS))
		return false;
	wh_begin_transaction();
	more = wh_queue_prune();
	more = wh_audit_prune() || more;
	wh_commit_transaction(context);
	last_prune = more ? TimestampTzPlusMilliseconds(now, PRUNE_AGAIN_MS - PRUNE_MS) : now;
	return more;
}

/* The views of these days are published anew. */
static void
notice_missing_days(MemoryContext context)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;

	if (!TimestampDifferenceExceeds(last_notice, now, NOTICE_MS))
		return;
	last_notice = now;
	wh_begin_transaction();
	foreach(cell, wh_missing_notice_changed())
		if (wh_queue_enqueue_publish(lfirst(cell), 0))
			wh_log_relations_missing(lfirst(cell));
	wh_commit_transaction(context);
	wh_missing_committed();
}

long
wh_upkeep(MemoryContext context)
{
	long		next_look;

	notice_missing_days(context);
	next_look = wh_orphans_look(context);
	return Min(next_look, prune(context) ? PRUNE_AGAIN_MS : LOOK_MS);
}

void
wh_upkeep_clock_stepped_back(void)
{
	last_prune = last_notice = 0;
}
