/*
 * upkeep.h: what the launcher does now and then.
 */
#ifndef WH_UPKEEP_H
#define WH_UPKEEP_H

#include "postgres.h"

/*
 * Prunes history and notices what a person took away, each in a transaction of
 * its own, if it is time; in "context" afterwards.  Returns in how many
 * milliseconds to call it again.
 */
extern long wh_upkeep(MemoryContext context);

/* What was put off by the clock before would wait for its old time. */
extern void wh_upkeep_clock_stepped_back(void);

#endif
