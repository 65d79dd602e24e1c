/*
 * cron_next.c: when a schedule runs next.
 *
 * The wall clock of a time zone is a row of segments with a constant offset
 * from UTC.  Inside a segment the search is plain calendar arithmetic on wall
 * time, by months, days, hours and minutes; between two segments lies either a
 * gap (wall times that never come) or an overlap (wall times that come again).
 * cron.h says what a schedule does there.  Wall times are seconds since
 * 1970-01-01 as the wall shows it.
 *
 * Called by whoever keeps next_run.  Pure: no catalogs, no memory, no errors.
 */
#include "postgres.h"

#include "pgtime.h"
#include "port/pg_bitutils.h"

#include "cron.h"

#define MINUTES_PER_DAY (HOURS_PER_DAY * MINS_PER_HOUR)
#define EPOCH_DIFFERENCE \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* 29 February on a given weekday can be 40 years away, as from 1880 to 1920. */
#define SEARCH_DAYS (50 * 366)

/* No zone was ever set back by more than a day. */
#define LONGEST_OVERLAP ((int64) 2 * SECS_PER_DAY)

/* Rounds down, also below zero. */
static int64
floor_division(int64 dividend, int64 divisor)
{
	int64		quotient = dividend / divisor;

	return dividend % divisor < 0 ? quotient - 1 : quotient;
}

/* The lowest set bit from a given one on, or -1. */
static int
next_bit(uint64 bits, int from)
{
	uint64		rest = (bits >> from) << from;

	return rest == 0 ? -1 : pg_rightmost_one_pos64(rest);
}

/* The first minute of a day, from a given one on, that a schedule names; or -1. */
static int
next_minute(const WhCron *cron, int from)
{
	int			hour = next_bit(cron->hours, from / MINS_PER_HOUR);
	int			minute = -1;

	if (hour == from / MINS_PER_HOUR)
	{
		minute = next_bit(cron->minutes, from % MINS_PER_HOUR);
		if (minute < 0)
			hour = next_bit(cron->hours, hour + 1);
	}
	if (hour < 0)
		return -1;
	return hour * MINS_PER_HOUR + (minute < 0 ? next_bit(cron->minutes, 0) : minute);
}

static int
month_length(int64 year, int month)
{
	static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	bool		leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

	return lengths[month - 1] + (month == 2 && leap ? 1 : 0);
}

/*
 * Days since 1970-01-01 as year, month and day.  Not j2date(): a wall clock
 * west of Greenwich can show a day before that one's first.  Years begin in
 * March here, so that the leap day is the last of its year.
 */
static void
split_day(int64 day, int64 *year, int *month, int *mday)
{
	int64		era = floor_division(day + 719468, 146097);
	int			day_of_era = day + 719468 - era * 146097;
	int			year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
							   day_of_era / 146096) / 365;
	int			day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 -
											year_of_era / 100);
	int			march_month = (5 * day_of_year + 2) / 153;

	*mday = day_of_year - (153 * march_month + 2) / 5 + 1;
	*month = march_month < 10 ? march_month + 3 : march_month - 9;
	*year = era * 400 + year_of_era + (*month <= 2 ? 1 : 0);
}

static bool
day_matches(const WhCron *cron, int64 day, int mday, bool is_last)
{
	/* 1970-01-01 was a Thursday. */
	int			weekday = day + 4 - floor_division(day + 4, 7) * 7;
	bool		by_day = (cron->days >> mday & 1) != 0 || (cron->last_day && is_last);
	bool		by_weekday = (cron->weekdays >> weekday & 1) != 0;

	if (cron->any_day || cron->any_weekday)
		return by_day && by_weekday;
	return by_day || by_weekday;
}

/* The first wall time that a schedule names, from one on and before another. */
static bool
next_wall_time(const WhCron *cron, int64 from, int64 until, int64 *found)
{
	int64		minute = floor_division(from + SECS_PER_MINUTE - 1, SECS_PER_MINUTE);
	int64		day = floor_division(minute, MINUTES_PER_DAY);
	int			minute_of_day = minute - day * MINUTES_PER_DAY;

	while (day * SECS_PER_DAY < until)
	{
		int64		year;
		int			month;
		int			mday;
		int			length;

		split_day(day, &year, &month, &mday);
		length = month_length(year, month);
		if ((cron->months >> month & 1) == 0)
		{
			day += length - mday + 1;
			minute_of_day = 0;
			continue;
		}
		for (; mday <= length; mday++, day++, minute_of_day = 0)
		{
			int			match;

			if (!day_matches(cron, day, mday, mday == length))
				continue;
			match = next_minute(cron, minute_of_day);
			if (match >= 0)
			{
				*found = (day * MINUTES_PER_DAY + match) * SECS_PER_MINUTE;
				return *found < until;
			}
		}
	}
	return false;
}

static TimestampTz
timestamp_of(int64 seconds)
{
	if (seconds >= END_TIMESTAMP / USECS_PER_SEC + EPOCH_DIFFERENCE)
		return DT_NOEND;
	return (seconds - EPOCH_DIFFERENCE) * USECS_PER_SEC;
}

/* The same in seconds since 1970 UTC, for the first second that may be a run. */
static TimestampTz
next_by_fields(const WhCron *cron, const pg_tz *zone, int64 first)
{
	int64		horizon = first + (int64) SEARCH_DAYS * SECS_PER_DAY;
	pg_time_t	start = first - LONGEST_OVERLAP;
	int64		seen = PG_INT64_MIN;	/* the wall has shown all before this */

	for (;;)
	{
		long int	offset;
		long int	next_offset;
		int			is_dst;
		pg_time_t	boundary;
		int64		end = horizon;
		int64		from;
		int64		wall;
		int			changes;

		changes = pg_next_dst_boundary(&start, &offset, &is_dst, &boundary,
									   &next_offset, &is_dst, zone);
		if (changes < 0)
			return DT_NOEND;
		if (changes > 0)
			end = Min(boundary, horizon);

		from = Max(start, first) + offset;
		if (!cron->every_hour)
			from = Max(from, seen);
		if (next_wall_time(cron, from, end + offset, &wall))
			return timestamp_of(wall - offset);
		if (end == horizon)
			return DT_NOEND;

		/* What the wall leaves out at this boundary is one run there. */
		seen = Max(seen, boundary + offset);
		if (boundary >= first && next_wall_time(cron, seen, boundary + next_offset, &wall))
			return timestamp_of(boundary);
		start = boundary;
	}
}

TimestampTz
wh_cron_next(const WhCron *cron, const pg_tz *zone, TimestampTz after)
{
	int64		second;

	if (TIMESTAMP_IS_NOEND(after))
		return DT_NOEND;
	second = floor_division(Max(after, MIN_TIMESTAMP), USECS_PER_SEC) + EPOCH_DIFFERENCE;
	if (cron->interval_seconds > 0)
		return timestamp_of(second + cron->interval_seconds);
	return next_by_fields(cron, zone, second + 1);
}
