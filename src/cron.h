/*
 * cron.h: schedules as text, and when they run next.  Pure: cron.c and
 * cron_next.c read nothing but their arguments and the time zone data, take no
 * memory and raise no error.
 *
 *   minute hour day-of-month month day-of-week
 *     *  5  1-5  1,15  *\/10  10-40/10  10/10 (from 10 on)  jan  mon-fri
 *     $            last day of the month (day of month only)
 *     H  H/6  H(9-17)  H(0-29)/10
 *                  a value of its own for each hash key, always the same;
 *                  H alone means 1 to 28 as a day of month
 *   @yearly @annually @monthly @weekly @daily @midnight @hourly
 *   N seconds (1 to 86400), N minutes (1 to 1440)
 *
 * Sunday is 0 and 7.  Where day of month and day of week are both restricted,
 * a day matches if either does; where one of them begins with *, both must.
 *
 * When the clocks change:
 * - forward: all runs whose wall time is left out are one run, at the jump;
 * - back: every wall time runs once, the first time that it comes.  Only a
 *   schedule that runs in each of the 24 hours goes on through the repeated
 *   hour as well: it asks for "every five minutes" or "every hour", and would
 *   otherwise be silent for an hour;
 * - an interval is elapsed time and sees none of this.
 */
#ifndef WH_CRON_H
#define WH_CRON_H

#include "datatype/timestamp.h"
#include "pgtime.h"

typedef struct WhCron
{
	int32		interval_seconds;	/* 0: the fields below count */
	uint32		hours;			/* bits 0 to 23 */
	uint64		minutes;		/* bits 0 to 59 */
	uint32		days;			/* bits 1 to 31 */
	uint16		months;			/* bits 1 to 12 */
	uint8		weekdays;		/* bits 0 (Sunday) to 6 */
	bool		last_day;		/* $ */
	bool		any_day;		/* the day of month begins with * */
	bool		any_weekday;	/* the day of week begins with * */
	bool		every_hour;		/* all 24 hours */
} WhCron;

typedef struct WhCronError
{
	char		message[120];	/* a clause, lower case, no period; ASCII */
	const char *hint;			/* a sentence, or NULL */
	int			position;		/* of the mistake, in characters from 1 */
} WhCronError;

/*
 * False, with *error filled, if the text is no schedule.  The hash key decides
 * what H stands for; NULL is the empty key.  Equal schedules give structures
 * of equal bytes.
 */
extern bool wh_cron_parse(const char *text, const char *hash_key, WhCron *cron,
						  WhCronError *error);

/*
 * The first run strictly after a time, DT_NOEND if there is none within 50
 * years (30 2) or the calendar ends before.  After -infinity: the first run
 * of all; after infinity: none.  An interval counts from the given time,
 * without its fraction of a second.
 */
extern TimestampTz wh_cron_next(const WhCron *cron, const pg_tz *zone, TimestampTz after);

#endif
