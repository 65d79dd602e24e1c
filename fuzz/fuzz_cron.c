/*
 * fuzz_cron.c: any text as a schedule.
 *
 * The first byte chooses the time zone, the next eight the time; the rest is
 * the text. t/cron/cron_fuzz.c knows what is right; this one looks for what no
 * schedule may do, whatever the text: read past it, overflow, go back in time.
 */
#include "postgres.h"

#include "pgtime.h"
#include "utils/timestamp.h"

#include "../src/cron.h"
#include "fuzz.h"

#define HEADER 9

/* Later, the server's own rules of when clocks change contradict themselves. */
#define YEARS 350

static const char *const zones[] = {
	"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
	"Pacific/Apia", "Africa/Casablanca", "America/St_Johns"
};

static void
check_error(const WhCronError *error)
{
	wh_fuzz_require(error->message[0] != '\0' && strlen(error->message) < sizeof(error->message),
					"a schedule was refused without a message");
	wh_fuzz_require(error->position >= 1, "a schedule was refused without a position");
}

static void
check_runs(const WhCron *cron, const pg_tz *zone, TimestampTz after)
{
	for (int i = 0; i < 4; i++)
	{
		TimestampTz next = wh_cron_next(cron, zone, after);

		if (TIMESTAMP_IS_NOEND(next))
			return;
		wh_fuzz_require(next > after, "a run is not later than the one before");
		if (cron->interval_seconds == 0)
			wh_fuzz_require(wh_cron_next(cron, zone, next - 1) == next,
							"a run is not found from the moment before it");
		after = next;
	}
}

void
wh_fuzz_cron(const uint8 *data, size_t size)
{
	WhCron		cron;
	WhCron		again;
	WhCronError error;
	TimestampTz after;
	char	   *text;

	if (size < HEADER)
		return;
	memcpy(&after, data + 1, sizeof(after));
	after %= (TimestampTz) (YEARS * DAYS_PER_YEAR) * USECS_PER_DAY;
	text = wh_fuzz_guarded(size - HEADER + 1);
	memcpy(text, data + HEADER, size - HEADER);
	text[size - HEADER] = '\0';
	if (!wh_cron_parse(text, "key", &cron, &error))
		check_error(&error);
	else
	{
		wh_fuzz_require(wh_cron_parse(text, "key", &again, &error) &&
						memcmp(&cron, &again, sizeof(cron)) == 0, "a schedule was read in two ways");
		check_runs(&cron, pg_tzset(zones[data[0] % lengthof(zones)]), after);
		check_runs(&cron, pg_tzset("UTC"), DT_NOBEGIN);
	}
	wh_fuzz_free(text);
}
