/*
 * ordinary_zone.h: which time zones a bound of prune.c may rely on.
 */
#ifndef WH_ORDINARY_ZONE_H
#define WH_ORDINARY_ZONE_H

#include "datatype/timestamp.h"
#include "pgtime.h"

/* No zone of the world was ever further from UTC (Manila before 1844: 15:56). */
#define WH_ORDINARY_OFFSET (16 * USECS_PER_HOUR)

/* Whether a zone never was and never will be further from UTC than that. */
extern bool wh_zone_is_ordinary(const pg_tz *zone);

/* From now on, plans of this backend are thrown away when TimeZone stops being ordinary. */
extern void wh_zone_watch(void);

/* Prepares wh_zone_watch; called once by _PG_init.  False: there is nothing to watch. */
extern bool wh_zone_register(void);

#endif
