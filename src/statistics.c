/*
 * statistics.c: who makes the planner's statistics of a day that was loaded.
 *
 * ANALYZE is two fifths of the work of a small day, and the plan of a query that
 * reads one is hardly better for it.  So a small day is left to autovacuum: it
 * is told of the rows as it would be of an INSERT, and finds them.  What it
 * would not find, or may not look at, is analyzed here, as is what is large.
 *
 * How many rows and pages a relation has the planner knows in any case: the
 * build of an index writes that down, and for a relation without one we do.
 *
 * Called by load.c and swap.c.  Takes no lock but ANALYZE's, on a relation that
 * its caller has locked already.
 */
#include "postgres.h"

#include "access/multixact.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/visibilitymap.h"
#include "commands/vacuum.h"
#include "pgstat.h"
#include "postmaster/autovacuum.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "sqlutil.h"
#include "statistics.h"

/*
 * From so many rows on a day is analyzed with its load, where that is a smaller
 * part of it: of 20 columns and three indexes 37 % at 2,000 rows and less than
 * 25 % at 10,000.  A plan that is wrong about fewer rows costs milliseconds.
 */
#define WH_LARGE_DAY 10000

static const AutoVacOpts *
options_of(Relation rel)
{
	return rel->rd_options != NULL ? &((const StdRdOptions *) rel->rd_options)->autovacuum : NULL;
}

/* How many rows have to have changed for autovacuum to analyze, as it computes it. */
static double
analyze_threshold(const AutoVacOpts *options, int64 rows)
{
	int			base = options != NULL && options->analyze_threshold >= 0 ?
		options->analyze_threshold : autovacuum_anl_thresh;
	double		scale = options != NULL && options->analyze_scale_factor >= 0 ?
		options->analyze_scale_factor : autovacuum_anl_scale;

	return base + scale * rows;
}

bool
wh_statistics_can_wait(Relation rel, int64 rows)
{
	const AutoVacOpts *options = options_of(rel);

	return rows < WH_LARGE_DAY && AutoVacuumingActive() &&
		(options == NULL || options->enabled) &&
		rows > analyze_threshold(options, rows);
}

void
wh_statistics_make(Relation rel)
{
	wh_spi_begin();
	wh_utility("ANALYZE %s",
			   quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
										  RelationGetRelationName(rel)));
	wh_spi_end();
}

static void
set_row_count(Relation rel, int64 rows)
{
	BlockNumber all_visible;

	visibilitymap_count(rel, &all_visible, NULL);
	WH_SET_ROW_COUNT(rel, RelationGetNumberOfBlocks(rel), rows, all_visible);
}

void
wh_statistics_of_new(Oid relid, int64 rows)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);

	if (!wh_statistics_can_wait(rel, rows))
		wh_statistics_make(rel);
	else
	{
		if (RelationGetIndexList(rel) == NIL)
			set_row_count(rel, rows);
		pgstat_count_heap_insert(rel, rows);
	}
	table_close(rel, NoLock);
}

void
wh_statistics_leave(Relation rel, int64 rows)
{
	pgstat_count_truncate(rel);
	pgstat_count_heap_insert(rel, rows);
}
