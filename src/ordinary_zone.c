/*
 * ordinary_zone.c: keeps odd time zones away from the bounds of prune.c.
 *
 * A bound is right in every zone that stays within WH_ORDINARY_OFFSET of UTC,
 * and so do all zones of the world.  TimeZone also takes POSIX specifications
 * like 'ZZZ+167', a week from UTC.  A margin for these would cost every query
 * weeks of partitions, so such sessions get no bounds, and plans that were
 * cached with one are made again when a session's TimeZone becomes such a zone:
 * the setting's own assign hook is chained, which sees every way to change it
 * (SET, set_config, functions' SET clauses, roll back, reload).
 *
 * Called by the planner through prune.c and stable_bound.c, and by whatever
 * sets TimeZone, also while a transaction aborts: it may not raise errors,
 * allocate, or read a catalog.  Takes no lock.
 */
#include "postgres.h"

#include "utils/guc_tables.h"
#include "utils/plancache.h"

#include "compat.h"
#include "ordinary_zone.h"

/* Before the first zone had a law, and after the last change that any file lists. */
#define FIRST_SECOND (INT64CONST(-8520336000))	/* 1700 */
#define LAST_SECOND INT64CONST(4102444800)	/* 2100 */

static GucStringAssignHook previous_assign_timezone = NULL;
static bool watching = false;

static bool
is_ordinary_offset(long int seconds)
{
	return labs(seconds) <= WH_ORDINARY_OFFSET / USECS_PER_SEC;
}

/* Every offset is looked at: a specification may have one for a day a year only. */
static bool
offsets_are_ordinary(const pg_tz *zone)
{
	pg_time_t	moment = FIRST_SECOND;

	while (moment < LAST_SECOND)
	{
		long int	before = 0;
		long int	after = 0;
		pg_time_t	boundary;
		int			is_summer;
		int			found = pg_next_dst_boundary(&moment, &before, &is_summer, &boundary,
												 &after, &is_summer, zone);

		if (found < 0 || !is_ordinary_offset(before))
			return false;
		if (found == 0)
			return true;
		if (!is_ordinary_offset(after) || boundary <= moment)
			return false;
		moment = boundary;
	}
	return true;
}

bool
wh_zone_is_ordinary(const pg_tz *zone)
{
	/* Zones stay where they are as long as the process lives. */
	static const pg_tz *judged[4] = {NULL};
	static bool judgement[4];
	static int	next = 0;

	for (int i = 0; i < lengthof(judged); i++)
		if (judged[i] == zone)
			return judgement[i];
	next = (next + 1) % lengthof(judged);
	judgement[next] = offsets_are_ordinary(zone);
	judged[next] = zone;
	return judgement[next];
}

static void
assign_timezone(const char *newval, void *extra)
{
	if (previous_assign_timezone != NULL)
		previous_assign_timezone(newval, extra);
	if (watching && !wh_zone_is_ordinary(session_timezone))
		ResetPlanCache();
}

void
wh_zone_watch(void)
{
	watching = true;
}

bool
wh_zone_register(void)
{
	struct config_generic *setting = wh_find_setting("TimeZone");

	if (setting == NULL || setting->vartype != PGC_STRING)
		return false;
	previous_assign_timezone = ((struct config_string *) setting)->assign_hook;
	((struct config_string *) setting)->assign_hook = assign_timezone;
	return true;
}
