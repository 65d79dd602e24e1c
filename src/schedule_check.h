/*
 * schedule_check.h: what may stand in a row of _wh.schedules, for those who
 * write and read one.
 */
#ifndef WH_SCHEDULE_CHECK_H
#define WH_SCHEDULE_CHECK_H

#include "cron.h"
#include "sqlutil.h"

typedef struct WhTiming
{
	WhCron		cron;
	pg_tz	   *zone;
} WhTiming;

/* 22023 for text that is no schedule, with the position of the mistake. */
extern void wh_schedule_check_text(const char *text);

/*
 * When a schedule runs: its text, its name (for H) and its time zone, NULL for
 * the setting's.  22023 for what cannot be understood.
 */
extern void wh_schedule_parse(const char *text, const char *name, const char *timezone,
							  WhTiming *timing);

/* The same, but false for what cannot be understood. */
extern bool wh_schedule_try_parse(const char *text, const char *name, const char *timezone,
								  WhTiming *timing);

/* A time zone by its IANA name; NULL if there is none. */
extern pg_tz *wh_schedule_zone(const char *name);

/* Why commands may not run as a role, for people; NULL if they may. */
extern char *wh_schedule_role_problem(Oid role);

/*
 * The role that commands of a writer run as: the writer, or admin_role, with a
 * NOTICE, for a superuser.  42501 if admin_role may not act for it.
 */
extern char *wh_schedule_username(Oid writer);

/*
 * wh_query() for a statement of ours that writes _wh.schedules: the columns
 * that are kept take what it says.  The launcher is not told of it.
 */
extern uint64 wh_schedule_write(const char *sql, int nargs, const WhArg *args);

#endif
