/*
 * politely.h: locks that readers feel, asked for in short tries.
 */
#ifndef WH_POLITELY_H
#define WH_POLITELY_H

#include "storage/lock.h"

#include "attempt.h"

/*
 * Takes AccessExclusiveLock on the relation and runs the action, all in one
 * subtransaction with wh_worker.swap_lock_timeout as lock_timeout; the locks
 * stay until the transaction ends.  InvalidOid: the action locks what it
 * needs.  When somebody is in the way, the subtransaction is rolled back,
 * readers have their turn, and it is tried again, so the action must be able
 * to start over: what it allocates is gone then, and what it notes elsewhere it
 * must note anew.  55P03 when wh_worker.job_timeout has passed.
 *
 * Within an action it only takes the lock and runs its own action: the outer
 * one is tried again as a whole.
 */
extern void wh_politely(Oid relid, WhAction action, void *arg);

/* AccessExclusiveLock, within an action; who is in the way is told of it. */
extern void wh_politely_lock(Oid relid);

/*
 * Around waiting for a lock that is no relation's: who holds it may wait for
 * one that we keep from try to try.  NULL: it was granted.
 */
extern void wh_politely_wants(const LOCKTAG *tag, LOCKMODE mode);

#endif
