/*
 * statistics.h: who makes the planner's statistics of a day that was loaded, we
 * or autovacuum.  Used by load.c and swap.c.
 */
#ifndef WH_STATISTICS_H
#define WH_STATISTICS_H

#include "utils/rel.h"

/* True if autovacuum is sure to find the relation with so many new rows, and may. */
extern bool wh_statistics_can_wait(Relation rel, int64 rows);

/* ANALYZE, now. */
extern void wh_statistics_make(Relation rel);

/*
 * Of a relation that is new in this transaction: makes them, or tells autovacuum
 * that there are "rows" rows to look at.
 */
extern void wh_statistics_of_new(Oid relid, int64 rows);

/*
 * Tells autovacuum that the whole content of the relation is "rows" new rows
 * without statistics.
 */
extern void wh_statistics_leave(Relation rel, int64 rows);

#endif
