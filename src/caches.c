/*
 * caches.c: what a worker knows of the catalogs does not grow for ever.
 *
 * A backend keeps what it once read of pg_class, pg_attribute and their kin,
 * and also what it did not find there, as long as it lives, and nobody tells it
 * that it will never ask again.  A session ends; a worker goes from day to day
 * for weeks, meets a relation or two with each, and forgets none of them.  So it
 * throws away everything now and then, gives back what memory is free then, and
 * reads again what it needs.
 *
 * Called by worker.c between two jobs.  May not be used where a relation is
 * open, and not by the launcher, which would compare its whole ledger with
 * the catalogs for it (missing.c).  Takes no lock.
 */
#include "postgres.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "nodes/memnodes.h"
#include "utils/inval.h"
#include "utils/memutils.h"

#include "caches.h"
#include "sqlutil.h"

/*
 * To read again what is needed costs 10 ms, which is nothing after so many jobs,
 * each of which leaves half a kilobyte or more behind.
 */
#define FORGET_AFTER_JOBS 512

/*
 * A view of years of days is known in megabytes, a new day of many columns in a
 * tenth of one.  What the next few jobs need shall not be forgotten before they
 * run.
 */
#define FORGET_AFTER_BYTES (16 * 1024 * 1024)
#define LOOK_AFTER_JOBS 16

static int	jobs = 0;
static Size used_at_first = 0;	/* after the first job since all was forgotten */

/*
 * Of the context itself what is not free counts: it gives nothing back, and
 * takes what is free again.  Those below it are deleted with what they are of.
 */
static Size
used(void)
{
	MemoryContextCounters own;

	memset(&own, 0, sizeof(own));
	CacheMemoryContext->methods->stats(CacheMemoryContext, NULL, NULL, &own, false);
	return MemoryContextMemAllocated(CacheMemoryContext, true) - own.freespace;
}

static bool
is_too_much(void)
{
	if (jobs == 1)
		used_at_first = used();
	if (jobs >= FORGET_AFTER_JOBS)
		return true;
	return jobs % LOOK_AFTER_JOBS == 0 && used() > used_at_first + FORGET_AFTER_BYTES;
}

/* What is free between what is in use goes back to the system too. */
static void
give_back(void)
{
#ifdef __GLIBC__
	(void) malloc_trim(0);
#endif
}

void
wh_caches_after_job(MemoryContext context)
{
	jobs++;
	if (!is_too_much())
		return;
	jobs = 0;
	wh_begin_transaction();
	InvalidateSystemCaches();
	wh_commit_transaction(context);
	give_back();
}
