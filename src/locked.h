/*
 * locked.h: who keeps us from our own tables.
 */
#ifndef WH_LOCKED_H
#define WH_LOCKED_H

#include "storage/lock.h"
#include "utils/palloc.h"

#define WH_LOCKED_MAX_PIDS 8

/* A prepared transaction's pid, as pg_blocking_pids() has it. */
#define WH_LOCKED_PREPARED 0
#define WH_LOCKED_GONE (-1)

/* The process that has the lock, or one of these two. */
extern int	wh_locked_pid(VirtualTransactionId holder);

/*
 * The name of a table of ours that somebody holds a lock on that keeps us from
 * writing there, and who; NULL if none is so.  Asks for no lock.  Within a
 * transaction.
 */
extern const char *wh_locked_table(int *pids, int *npids);

/*
 * Locks all of these tables until the end of the transaction, if that takes no
 * longer than a moment; else none, and false.
 */
extern bool wh_locked_try(LOCKMODE mode);

/*
 * For the launcher, outside a transaction: whether there is such a table.  It is
 * shown, with who has it, and said once.  Looks at most once a second while
 * there is none.
 */
extern bool wh_locked_out(const char *database, MemoryContext context);

#endif
