/*
 * start_check.h: whether a worker that is asked for could connect.
 */
#ifndef WH_START_CHECK_H
#define WH_START_CHECK_H

#include "utils/palloc.h"

/*
 * Why a background worker of the current role could not connect to the current
 * database, or NULL.  Outside a transaction; leaves that memory context.
 */
extern const char *wh_start_problem(MemoryContext context);

/* A worker could not be started, NULL: because the server has no free slot for it.  Shown, and said once. */
extern void wh_start_failed(const char *database, const char *problem);

/* One was: what was shown is over. */
extern void wh_start_succeeded(void);

#endif
