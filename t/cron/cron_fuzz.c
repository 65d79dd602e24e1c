/*
 * cron_fuzz.c: schedules that nobody would write, at times when clocks change.
 *
 * cron_fuzz SEED SECONDS: a program without a server, made of this file and
 * the two of the schedules' parser, under the address and undefined behaviour
 * sanitizers; t/cron/fuzz builds and runs it.
 *
 * Text: made from the grammar, then often mutated, or random bytes.  A refusal
 * must name a place in the text; what is accepted must be accepted again, the
 * same, also written out as plain lists.  Next runs: compared with an oracle
 * that asks the C library for the wall time of every minute of three days and
 * knows no calendar.  The C library's time zone data stand in for the
 * server's, so that the two functions of pgtime.h that cron_next.c calls are here.
 */
#include "postgres.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pgtime.h"

#include "../../src/cron.h"

#undef fprintf
#undef printf
#undef snprintf
#undef vsnprintf

#define MAX_BOUNDARIES 1000
#define DAY ((int64) SECS_PER_DAY)
#define ORACLE_DAYS 3
/* From 1973 on all offsets are whole minutes, which the oracle relies on. */
#define FIRST_TIME ((int64) 3 * 365 * SECS_PER_DAY)
#define LAST_TIME ((int64) 130 * 365 * SECS_PER_DAY)

struct pg_tz
{
	const char *name;
	int			nboundaries;
	int64		boundaries[MAX_BOUNDARIES];
};

static pg_tz zones[] = {
	{"UTC"}, {"Europe/Berlin"}, {"America/New_York"}, {"Australia/Lord_Howe"},
	{"Pacific/Apia"}, {"Africa/Casablanca"}, {"Asia/Kathmandu"}, {"America/Sao_Paulo"},
	{"Asia/Beirut"}, {"Pacific/Kwajalein"}, {"Africa/Cairo"}, {"America/Havana"},
	{"Europe/Dublin"}, {"Asia/Tehran"}, {"Pacific/Chatham"}, {"Antarctica/Troll"},
	{"America/St_Johns"}, {"America/Caracas"}
};

static uint64 random_state;
static unsigned long long seed;

/* ---- what the server's library would give ---------------------------- */

extern int	pg_vsnprintf(char *str, size_t count, const char *fmt, va_list args);
extern int	pg_strncasecmp(const char *s1, const char *s2, size_t n);

int
pg_vsnprintf(char *str, size_t count, const char *fmt, va_list args)
{
	return vsnprintf(str, count, fmt, args);
}

int
pg_strncasecmp(const char *s1, const char *s2, size_t n)
{
	return strncasecmp(s1, s2, n);
}

/* The C library's wall time, in the zone that use_zone() has chosen. */
static struct tm
local_time(int64 seconds)
{
	time_t		at = seconds;
	struct tm	result;

	localtime_r(&at, &result);
	return result;
}

static long
offset_at(int64 seconds)
{
	return local_time(seconds).tm_gmtoff;
}

static void
use_zone(const pg_tz *zone)
{
	setenv("TZ", zone->name, 1);
	tzset();
}

static void
find_boundaries(pg_tz *zone)
{
	int64		at = FIRST_TIME - 10 * DAY;

	use_zone(zone);
	while (at < LAST_TIME + 20000 * DAY)
	{
		int64		low = at;
		int64		high = at += DAY / 4;

		if (offset_at(low) == offset_at(high))
			continue;
		while (high - low > 1)
		{
			int64		middle = low + (high - low) / 2;

			if (offset_at(middle) == offset_at(low))
				low = middle;
			else
				high = middle;
		}
		if (zone->nboundaries >= MAX_BOUNDARIES)
			abort();
		zone->boundaries[zone->nboundaries++] = high;
		at = high;
	}
}

int
pg_next_dst_boundary(const pg_time_t *timep, long int *before_gmtoff, int *before_isdst,
					 pg_time_t *boundary, long int *after_gmtoff, int *after_isdst,
					 const pg_tz *tz)
{
	int			i;

	*before_gmtoff = offset_at(*timep);
	*before_isdst = 0;
	for (i = 0; i < tz->nboundaries; i++)
	{
		if (tz->boundaries[i] <= *timep)
			continue;
		*boundary = tz->boundaries[i];
		*after_gmtoff = offset_at(*boundary);
		*after_isdst = 0;
		return 1;
	}
	return 0;
}

/* ---- random things --------------------------------------------------- */

static uint64
random_bits(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state * UINT64CONST(0x2545f4914f6cdd1d) >> 16;
}

static int
random_below(int limit)
{
	return random_bits() % limit;
}

static void add(char *text, const char *format,...) pg_attribute_printf(2, 3);

/* Appends; a text that grows too long is cut. */
static void
add(char *text, const char *format,...)
{
	size_t		length = strlen(text);
	va_list		args;

	va_start(args, format);
	vsnprintf(text + length, 400 - length, format, args);
	va_end(args);
}

static void
add_element(char *text, int low, int high)
{
	int			a = low + random_below(high - low + 1);
	int			b = a + random_below(high - a + 1);
	int			step = 1 + random_below(high - low + 2);

	switch (random_below(12))
	{
		case 0:
			add(text, "*");
			break;
		case 1:
			add(text, "*/%d", step);
			break;
		case 2:
			add(text, "%d-%d", a, b);
			break;
		case 3:
			add(text, "%d-%d/%d", a, b, step);
			break;
		case 4:
			add(text, "%d/%d", a, step);
			break;
		case 5:
			add(text, "H");
			break;
		case 6:
			add(text, "H/%d", 1 + random_below(6));
			break;
		case 7:
			add(text, "H(%d-%d)", a, b);
			break;
		case 8:
			add(text, "H(%d-%d)/%d", a, b, 1 + random_below(b - a + 1));
			break;
		case 9:
			add(text, "%s", high == 31 ? "$" : high == 12 ? "jul-nov" : high == 7 ? "fri-sun" : "*");
			break;
		default:
			add(text, "%d", a);
	}
}

static void
make_schedule(char *text)
{
	static const int lows[] = {0, 0, 1, 1, 0};
	static const int highs[] = {59, 23, 31, 12, 7};
	static const char *const others[] = {
		"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@reboot"
	};
	int			i;

	text[0] = '\0';
	if (random_below(20) == 0)
	{
		add(text, "%s", others[random_below(lengthof(others))]);
		return;
	}
	if (random_below(20) == 0)
	{
		add(text, "%d %s", random_below(1500), random_below(2) ? "seconds" : "minute");
		return;
	}
	for (i = 0; i < lengthof(lows); i++)
	{
		/* Mostly dense days, so that something runs within the oracle's three. */
		if (i >= 2 && random_below(3) > 0)
			add(text, "*");
		else
			add_element(text, lows[i], highs[i]);
		while (random_below(4) == 0)
		{
			add(text, ",");
			add_element(text, lows[i], highs[i]);
		}
		if (i < lengthof(lows) - 1)
			add(text, "%s", random_below(10) == 0 ? " \t" : " ");
	}
}

static void
mutate(char *text)
{
	static const char likely[] = "*/-,$Hh()? \t@09176jansuLW#.secondminute\303\251\001\377";
	int			times = random_below(4);

	while (times-- > 0)
	{
		size_t		length = strlen(text);
		size_t		at = random_below(length + 1);
		char		c = random_below(8) == 0 ? 1 + random_below(255) : likely[random_below(sizeof(likely) - 1)];

		switch (random_below(3))
		{
			case 0:
				if (at < length)
					memmove(text + at, text + at + 1, length - at);
				break;
			case 1:
				if (length < 450)
				{
					memmove(text + at + 1, text + at, length - at + 1);
					text[at] = c;
				}
				break;
			default:
				if (at < length)
					text[at] = c;
		}
	}
}

static void
make_noise(char *text)
{
	int			length = random_below(60);
	int			i;

	for (i = 0; i < length; i++)
		text[i] = 1 + random_below(255);
	text[length] = '\0';
}

/* ---- checks ---------------------------------------------------------- */

static void
wrong(const char *what, const char *text, const char *where, int64 after, int64 got, int64 expected)
{
	const char *c;

	printf("wrong: %s\nseed %llu, schedule \"", what, seed);
	for (c = text; *c != '\0'; c++)
	{
		if (*c >= ' ' && *c <= '~')
			putchar(*c);
		else
			printf("\\x%02x", (unsigned char) *c);
	}
	printf("\", %s, after %lld, got %lld, expected %lld\n", where, (long long) after,
		   (long long) got, (long long) expected);
	exit(1);
}

static void
add_list(char *text, uint64 bits)
{
	const char *separator = "";
	int			i;

	for (i = 0; i < 60; i++)
	{
		if ((bits >> i & 1) == 0)
			continue;
		add(text, "%s%d", separator, i);
		separator = ",";
	}
	add(text, " ");
}

/* The same schedule as plain lists: nothing of the grammar but numbers. */
static void
check_written_out(const char *text, const WhCron *cron)
{
	char		plain[400] = "";
	WhCron		again;
	WhCronError error;

	if (cron->interval_seconds > 0)
	{
		add(plain, "%d seconds", cron->interval_seconds);
	}
	else
	{
		add_list(plain, cron->minutes);
		add_list(plain, cron->hours);
		if (cron->last_day)
			add(plain, "%s", cron->days == 0 ? "$" : "$,");
		add_list(plain, cron->days);
		add_list(plain, cron->months);
		add_list(plain, cron->weekdays);
	}
	if (!wh_cron_parse(plain, NULL, &again, &error))
		wrong(plain, text, "written out", error.position, 0, 0);
	again.any_day = cron->any_day;
	again.any_weekday = cron->any_weekday;
	if (memcmp(cron, &again, sizeof(again)) != 0)
		wrong(plain, text, "written out", 0, 0, 0);
}

/* A text of exactly its length on the heap, so that reading past it is seen. */
static bool
check_parser(const char *text, const char *key, WhCron *cron)
{
	size_t		length = strlen(text);
	char	   *copy = malloc(length + 1);
	WhCron		again;
	WhCronError error;
	WhCronError same_error;
	bool		accepted;

	memcpy(copy, text, length + 1);
	memset(cron, 1, sizeof(*cron));
	accepted = wh_cron_parse(copy, key, cron, &error);
	if (wh_cron_parse(copy, key, &again, &same_error) != accepted ||
		memcmp(cron, &again, sizeof(again)) != 0 || memcmp(&error, &same_error, sizeof(error)) != 0)
		wrong("not the same again", text, key, 0, 0, 0);
	free(copy);

	if (accepted)
		check_written_out(text, cron);
	else
	{
		const char *c;

		if (error.position < 1 || error.position > length + 1)
			wrong("position outside the text", text, key, 0, error.position, 0);
		for (c = text; c < text + error.position - 1; c++)
			if (*c < 0)
				wrong("position behind a character of several bytes", text, key, 0, error.position, 0);
		if (error.message[0] == '\0' || memchr(error.message, 0, sizeof(error.message)) == NULL)
			wrong("no message", text, key, 0, 0, 0);
		for (c = error.message; *c != '\0'; c++)
			if (*c < ' ' || *c > '~')
				wrong("message is not ASCII", text, key, 0, 0, 0);
	}
	return accepted;
}

/* ---- the oracle ------------------------------------------------------ */

static bool
names_wall_time(const WhCron *cron, const struct tm *wall)
{
	struct tm	tomorrow = *wall;
	bool		by_day;
	bool		by_weekday;

	if (wall->tm_sec != 0 || !(cron->minutes >> wall->tm_min & 1) ||
		!(cron->hours >> wall->tm_hour & 1) || !(cron->months >> (wall->tm_mon + 1) & 1))
		return false;
	tomorrow.tm_mday++;
	timegm(&tomorrow);			/* puts its fields in order */
	by_day = (cron->days >> wall->tm_mday & 1) || (cron->last_day && tomorrow.tm_mday == 1);
	by_weekday = cron->weekdays >> wall->tm_wday & 1;
	return cron->any_day || cron->any_weekday ? by_day && by_weekday : by_day || by_weekday;
}

/* Whether the wall showed the same a day or less before. */
static bool
is_repeated(int64 at)
{
	int64		wall = at + offset_at(at);
	int			hours;

	for (hours = 0; hours <= 26; hours++)
	{
		int64		before = wall - offset_at(at - hours * SECS_PER_HOUR);

		if (before < at && before + offset_at(before) == wall)
			return true;
	}
	return false;
}

/* Whether a wall time that this instant jumps over is one of the schedule's. */
static bool
skips_a_run(const WhCron *cron, int64 at)
{
	time_t		wall = at + offset_at(at - 1);

	for (; wall < at + offset_at(at); wall += SECS_PER_MINUTE)
	{
		struct tm	fields;

		gmtime_r(&wall, &fields);
		if (names_wall_time(cron, &fields))
			return true;
	}
	return false;
}

static bool
runs_at(const WhCron *cron, int64 at)
{
	struct tm	wall = local_time(at);

	if (names_wall_time(cron, &wall) && (cron->every_hour || !is_repeated(at)))
		return true;
	return skips_a_run(cron, at);
}

/* The first run after a time, or the end of the oracle's days. */
static int64
expected_run(const WhCron *cron, int64 after)
{
	int64		end = after + ORACLE_DAYS * DAY;
	int64		at;

	if (cron->interval_seconds > 0)
		return after + cron->interval_seconds;
	for (at = after - after % SECS_PER_MINUTE + SECS_PER_MINUTE; at < end; at += SECS_PER_MINUTE)
		if (runs_at(cron, at))
			return at;
	return end;
}

/* Often some hours or days, or exactly one second, before clocks change. */
static int64
random_time(const pg_tz *zone)
{
	int64		boundary;

	if (zone->nboundaries == 0 || random_below(4) == 0)
		return FIRST_TIME + random_bits() % (LAST_TIME - FIRST_TIME);
	do
		boundary = zone->boundaries[random_below(zone->nboundaries)];
	while (boundary < FIRST_TIME + 3 * DAY || boundary > LAST_TIME);
	switch (random_below(4))
	{
		case 0:
			return boundary - 1;
		case 1:
			return boundary - 2 * DAY + random_below(3 * DAY);
		default:
			return boundary - 2 * SECS_PER_HOUR + random_below(4 * SECS_PER_HOUR);
	}
}

static void
check_next(const char *text, const WhCron *cron)
{
	const int64 difference = (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	const pg_tz *zone = &zones[random_below(lengthof(zones))];
	int64		after = random_time(zone);
	int64		expected;
	TimestampTz next;
	int64		got;

	use_zone(zone);
	next = wh_cron_next(cron, zone, (after - difference) * USECS_PER_SEC +
						(random_below(2) ? 0 : random_below(USECS_PER_SEC)));
	expected = expected_run(cron, after);
	if (next == DT_NOEND)
	{
		if (expected < after + ORACLE_DAYS * DAY)
			wrong("no next run", text, zone->name, after, 0, expected);
		return;
	}
	got = next / USECS_PER_SEC + difference;
	if (next % USECS_PER_SEC != 0)
		wrong("fraction of a second", text, zone->name, after, got, expected);
	if (cron->interval_seconds > 0 || got < after + ORACLE_DAYS * DAY ||
		expected < after + ORACLE_DAYS * DAY)
	{
		if (got != expected)
			wrong("next run", text, zone->name, after, got, expected);
	}
	else if (got < LAST_TIME + 19000 * DAY && !runs_at(cron, got))
		wrong("no run of this schedule", text, zone->name, after, got, 0);
}

int
main(int argc, char **argv)
{
	time_t		end;
	long		texts = 0;
	long		accepted = 0;
	int			i;

	if (argc != 3)
	{
		fprintf(stderr, "usage: cron_fuzz SEED SECONDS\n");
		return 2;
	}
	seed = strtoull(argv[1], NULL, 10);
	random_state = (seed + 1) * UINT64CONST(0x9e3779b97f4a7c15);
	for (i = 0; i < lengthof(zones); i++)
		find_boundaries(&zones[i]);

	end = time(NULL) + atol(argv[2]);
	while (time(NULL) < end)
	{
		char		text[500];
		char		key[30];
		WhCron		cron;

		snprintf(key, sizeof(key), "key %d", random_below(1000));
		make_schedule(text);
		if (random_below(2))
			mutate(text);
		if (random_below(20) == 0)
			make_noise(text);
		texts++;
		if (!check_parser(text, key, &cron))
			continue;
		accepted++;
		check_next(text, &cron);
	}
	printf("seed %llu: %ld texts, %ld of them accepted and compared\n", seed, texts, accepted);
	return 0;
}
