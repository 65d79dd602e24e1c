/*
 * rate.h: how fast a tenant may be read.  Used by refresh.c and fetch_day.c.
 */
#ifndef WH_RATE_H
#define WH_RATE_H

#include "remote.h"

typedef struct WhRate WhRate;

/* NULL if the tenant has no limit. */
extern WhRate *wh_rate_of(const WhTenant *tenant);

/*
 * Waits until the rows and bytes that came since the start of the day, the
 * first in all, may have been read.  Often called, it waits for many at a time.
 */
extern void wh_rate_pause(WhRate *rate, int64 rows, int64 bytes);

/* The same for the last of them, few as they may be. */
extern void wh_rate_end(WhRate *rate, int64 rows, int64 bytes);

#endif
