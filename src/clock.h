/*
 * clock.h: the time by which schedules are kept.
 */
#ifndef WH_CLOCK_H
#define WH_CLOCK_H

#include "datatype/timestamp.h"
#include "utils/date.h"

/* Now, shifted by wh_worker.debug_clock_offset, with which tests step it. */
extern TimestampTz wh_clock_now(void);

/* The UTC day of a moment. */
extern DateADT wh_clock_day_of(TimestampTz moment);

/* Today in UTC by that clock. */
extern DateADT wh_clock_today(void);

#endif
