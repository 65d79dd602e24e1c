/*
 * clock.c: the time by which schedules are kept.
 *
 * Called wherever "now" decides what is due, which day is today and whether a
 * day was over when it was fetched.  Tests step it to and fro by a setting,
 * so that days of schedule pass in seconds and nobody sleeps.
 *
 * How long something takes and when a retry comes is not its business: that is
 * GetCurrentTimestamp() and the latch.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "clock.h"
#include "guc.h"

TimestampTz
wh_clock_now(void)
{
	return GetCurrentTimestamp() + (int64) wh_debug_clock_offset * USECS_PER_SEC;
}

DateADT
wh_clock_day_of(TimestampTz moment)
{
	int64		days = moment / USECS_PER_DAY;

	return (DateADT) (moment % USECS_PER_DAY < 0 ? days - 1 : days);
}

DateADT
wh_clock_today(void)
{
	return wh_clock_day_of(wh_clock_now());
}
