/*
 * load.h: rows from a callback into the heap of a day relation.
 *
 * Two steps, so that no lock that a reader feels is held while rows come in:
 * wh_load_day() makes the new content where nobody sees it, wh_load_swap()
 * puts it in place.  Knows no tenant and no job.
 */
#ifndef WH_LOAD_H
#define WH_LOAD_H

#include "access/tupdesc.h"
#include "nodes/pg_list.h"

#include "leaf.h"
#include "rows.h"

typedef struct WhDayTarget
{
	const char *schema;
	const char *relname;
	TupleDesc	columns;		/* the shape the relation has to have */
	const char *definition;		/* SELECT … FROM _wh.fetch_day(…) AS t(…); NULL: a table */
	const WhLeaf *leaf;			/* it is a leaf of a tree; NULL: it is none */
	List	   *indexes;		/* IndexStmt nodes for a new relation */
	Oid			known_oid;		/* relation that the ledger says is ours, or InvalidOid */
	void		(*meanwhile) (void *arg);	/* called between the indexes of a new relation, or NULL */
	void	   *meanwhile_arg;
} WhDayTarget;

typedef struct WhLoadedDay
{
	const char *schema;			/* as in the target, which outlives this */
	const char *relname;
	Oid			relid;			/* the day relation */
	Oid			transient;		/* fresh heap to swap in, or InvalidOid if in place */
	List	   *index_pairs;	/* its indexes and those they are for; see swap.h */
	bool		has_statistics;	/* the transient heap has; else autovacuum makes them */
	bool		created;		/* the relation is new: views must learn of it */
	int64		rows;
} WhLoadedDay;

/*
 * Serialises writers of one day relation until the transaction ends.  Taken
 * before the ledger is read and the tenant is asked, so that an older
 * snapshot of the tenant never replaces a newer one.
 */
extern void wh_load_lock(const char *schema, const char *relname);
extern bool wh_load_try_lock(const char *schema, const char *relname);

/*
 * Makes or opens the relation, and loads.  An existing relation keeps its
 * readers and its content until wh_load_swap(); a new one is complete.  Both
 * have their indexes when this returns.  42P07 if a relation of that name
 * exists and is not known_oid.  The caller holds wh_load_lock().
 */
extern WhLoadedDay *wh_load_day(const WhDayTarget *target, WhRowSource source, void *arg);

/*
 * What of a swap needs no lock that readers feel: statistics, and writing out.
 * Once, when it is certain that the day is to be swapped.
 */
extern void wh_load_ready(const WhLoadedDay *day);

/*
 * Puts the fresh heap under the relation; after it the day is what was loaded.
 * Tries for the lock until it gets it; nothing is left to do but the commit.
 */
extern void wh_load_swap(const WhLoadedDay *day);

/* Drops what wh_load_day() made, when its swap failed and was rolled back. */
extern void wh_load_discard(const WhLoadedDay *day);

/* Builds indexes (IndexStmt nodes); 42P07 if one's name is taken. */
extern void wh_load_indexes(List *indexes, const char *schema);

/* Bytes on disk with indexes and TOAST, and the current relfilenode. */
extern int64 wh_load_bytes(Oid relid);
extern Oid	wh_load_file(Oid relid);

#endif
