/*
 * swap.h: the files of a fresh heap under a day relation that is in use.
 *
 * The order of calls: wh_swap_lock_parts() before the heap is made and filled,
 * wh_swap_prepare() when it is full, wh_swap_ready() when it is certain that
 * the exchange is wanted, wh_swap_exchange() last.
 */
#ifndef WH_SWAP_H
#define WH_SWAP_H

#include "nodes/pg_list.h"
#include "utils/rel.h"

/*
 * ShareUpdateExclusiveLock on indexes and TOAST table of the relation, which
 * is itself locked so: nobody alters or vacuums them, readers do not feel it.
 */
extern void wh_swap_lock_parts(Relation day);

/*
 * Builds on the transient heap what the day relation has: indexes, and if it is
 * to be analyzed, statistics.
 * Returns their pairs for the exchange.  Errors name the user's relation and
 * index.  Locks nothing that readers use.
 */
extern List *wh_swap_prepare(Oid relid, Oid transient, bool analyze);

/*
 * Gives the day relation the statistics of the new content, if there are any (else
 * it keeps those of the old one until autovacuum has been there), and writes out
 * what the commit would have to write under the lock.
 */
extern void wh_swap_ready(Oid relid, Oid transient, List *index_pairs, bool has_statistics);

/*
 * Writes out a new relation that no exchange follows, so that a commit under a
 * lock has little left to write.
 */
extern void wh_swap_write_out(Oid relid);

/*
 * Puts the files of the transient heap and its indexes under the day relation
 * and drops the rest; the day is locked from then on until commit.  Tries
 * until it gets the lock (politely.h).
 */
extern void wh_swap_exchange(Oid relid, Oid transient, List *index_pairs, int64 rows,
							 bool has_statistics);

#endif
