/*
 * replicate.h: the commits of our processes, where a standby is synchronous.
 */
#ifndef WH_REPLICATE_H
#define WH_REPLICATE_H

#include "utils/palloc.h"

/*
 * wh_commit_transaction(), but the locks are given back before a synchronous
 * standby is waited for.
 */
extern void wh_commit_then_replicate(MemoryContext context);

/* Whether that process waits for a synchronous standby now. */
extern bool wh_replicate_is_awaited_by(int pid);

#endif
