/*
 * schedule_check.c: what may be written into _wh.schedules.
 *
 * A schedule that cannot be understood is refused when it is written, with the
 * position of the mistake.  The trigger also keeps the columns that are not the
 * user's: next_run follows from the text, the zone and the clock, and username
 * is whoever wrote the command, so that nobody gives a command a stronger name
 * than his own.  A superuser may write all of them, because a restored dump
 * does; what may really run as whom is asked again when it runs.
 *
 * Called by the trigger and by the files that write schedules.  Looks at the
 * row, roles and settings, at no other table.  Takes no locks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rel.h"

#include "clock.h"
#include "compat.h"
#include "guc.h"
#include "schedule_check.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_check_schedule);
PG_FUNCTION_INFO_V1(wh_sql_in_zone);

/* Whether the statement that fires the trigger is one of ours. */
static bool own_write = false;

/* ---- text and zone ---- */

static void
refuse_text(const char *text, const WhCronError *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid schedule \"%s\"", text),
			 errdetail("The mistake is at character %d: %s.", error->position, error->message),
			 error->hint ? errhint("%s", error->hint) : 0));
}

void
wh_schedule_check_text(const char *text)
{
	WhCron		cron;
	WhCronError error;

	if (!wh_cron_parse(text, NULL, &cron, &error))
		refuse_text(text, &error);
}

/*
 * POSIX specifications, which the server takes as well, are left out: "UTC+2"
 * would be two hours west, and a name with a slip of the pen a zone of its own.
 */
static bool
is_posix_zone(const char *name)
{
	static const char *const names[] = {
		"EST5EDT", "CST6CDT", "MST7MDT", "PST8PDT", "GMT0", "GMT+0", "GMT-0"
	};

	if (strpbrk(name, "0123456789") == NULL || pg_strncasecmp(name, "Etc/GMT", 7) == 0)
		return false;
	for (int i = 0; i < lengthof(names); i++)
		if (pg_strcasecmp(name, names[i]) == 0)
			return false;
	return true;
}

pg_tz *
wh_schedule_zone(const char *name)
{
	pg_tz	   *zone;

	if (name[0] == '\0' || is_posix_zone(name))
		return NULL;
	zone = pg_tzset(name);
	return zone != NULL && pg_tz_acceptable(zone) ? zone : NULL;
}

static pg_tz *
default_zone(void)
{
	pg_tz	   *zone = wh_timezone ? pg_tzset(wh_timezone) : NULL;

	return zone ? zone : pg_tzset("GMT");
}

bool
wh_schedule_try_parse(const char *text, const char *name, const char *timezone, WhTiming *timing)
{
	WhCronError error;

	timing->zone = timezone ? wh_schedule_zone(timezone) : default_zone();
	return timing->zone != NULL && wh_cron_parse(text, name, &timing->cron, &error);
}

void
wh_schedule_parse(const char *text, const char *name, const char *timezone, WhTiming *timing)
{
	WhCronError error;

	if (!wh_cron_parse(text, name, &timing->cron, &error))
		refuse_text(text, &error);
	timing->zone = timezone ? wh_schedule_zone(timezone) : default_zone();
	if (timing->zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not recognized", timezone),
				 errhint("Give a name such as Europe/Berlin; pg_timezone_names has all of them.")));
}

/* For views: one bad row must not take all the others with it. */
Datum
wh_sql_in_zone(PG_FUNCTION_ARGS)
{
	TimestampTz when;
	pg_tz	   *zone;
	struct pg_tm tm;
	fsec_t		fsec;
	int			offset;
	Timestamp	result;

	wh_require_preloaded();
	when = PG_GETARG_TIMESTAMPTZ(0);
	zone = wh_schedule_zone(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (zone == NULL)
		PG_RETURN_NULL();
	if (TIMESTAMP_NOT_FINITE(when))
		PG_RETURN_TIMESTAMP(when);
	if (timestamp2tm(when, &offset, &tm, &fsec, NULL, zone) != 0 ||
		tm2timestamp(&tm, fsec, NULL, &result) != 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMP(result);
}

/* ---- roles ---- */

char *
wh_schedule_role_problem(Oid role)
{
	Oid			admin = get_role_oid(wh_admin_role, false);
	char	   *name = GetUserNameFromId(role, false);

	if (superuser_arg(role))
		return psprintf("role \"%s\" is a superuser", name);
	if (role != admin && !WH_MAY_SET_ROLE(admin, role))
		return psprintf("role \"%s\" may not SET ROLE to \"%s\"", wh_admin_role, name);
	return NULL;
}

char *
wh_schedule_username(Oid writer)
{
	char	   *problem;

	if (superuser_arg(writer))
	{
		ereport(NOTICE,
				(errmsg("the command will run as role \"%s\"", wh_admin_role),
				 errdetail("Commands never run as a superuser.")));
		return pstrdup(wh_admin_role);
	}
	problem = wh_schedule_role_problem(writer);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s", problem),
				 errhint("GRANT %s TO %s;", wh_quote(GetUserNameFromId(writer, false)),
						 wh_quote(wh_admin_role))));
	return GetUserNameFromId(writer, false);
}

/* ---- our own statements ---- */

uint64
wh_schedule_write(const char *sql, int nargs, const WhArg *args)
{
	bool		outer = own_write;
	uint64		n = 0;

	own_write = true;
	PG_TRY();
	{
		n = wh_query(sql, nargs, args);
	}
	PG_FINALLY();
	{
		own_write = outer;
	}
	PG_END_TRY();
	return n;
}

/* ---- the trigger ---- */

typedef struct Row
{
	char	   *name;
	char	   *schedule;
	char	   *timezone;
	char	   *kind;
	char	   *command;
	char	   *username;
	TimestampTz next_run;
	bool		has_next_run;
} Row;

static Row
read_row(HeapTuple tuple, TupleDesc desc)
{
	Row			row = {0};
	bool		isnull;
	Datum		next_run = SPI_getbinval(tuple, desc, SPI_fnumber(desc, "next_run"), &isnull);

	row.name = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "name"));
	row.schedule = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "schedule"));
	row.timezone = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "timezone"));
	row.kind = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "kind"));
	row.command = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "command"));
	row.username = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "username"));
	row.has_next_run = !isnull;
	row.next_run = isnull ? 0 : DatumGetTimestampTz(next_run);
	return row;
}

static bool
same_text(const char *a, const char *b)
{
	return (a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0);
}

/* Another text may mean the same; a new name moves what H stands for. */
static bool
timing_changed(const Row *old, const Row *new, const WhTiming *new_timing)
{
	WhTiming	old_timing;

	return !wh_schedule_try_parse(old->schedule, old->name, old->timezone, &old_timing) ||
		!same_text(old->timezone, new->timezone) ||
		memcmp(&old_timing.cron, &new_timing->cron, sizeof(WhCron)) != 0;
}

static bool
timing_touched(const Row *old, const Row *new)
{
	return !same_text(old->schedule, new->schedule) || !same_text(old->name, new->name) ||
		!same_text(old->timezone, new->timezone);
}

/* What next_run shall be; old is NULL for a new row. */
static TimestampTz
decide_next_run(const Row *old, const Row *new, bool trusted)
{
	WhTiming	timing;
	bool		touched = old == NULL || timing_touched(old, new);
	bool		changed = old == NULL;

	if (touched)
	{
		wh_schedule_parse(new->schedule, new->name, new->timezone, &timing);
		changed = changed || timing_changed(old, new, &timing);
	}
	if (old == NULL && trusted && new->has_next_run)
		return new->next_run;
	if (!changed && trusted && new->has_next_run)
		return new->next_run;
	if (!changed && !trusted && old->has_next_run)
		return old->next_run;
	if (!touched)
		wh_schedule_parse(new->schedule, new->name, new->timezone, &timing);
	return wh_cron_next(&timing.cron, timing.zone, wh_clock_now());
}

/* Whoever last wrote the command; what is not sql runs as admin_role. */
static char *
decide_username(const Row *old, const Row *new, bool trusted)
{
	bool		same_command;

	if (new->kind == NULL || strcmp(new->kind, "sql") != 0)
		return wh_admin_role;
	if (trusted && new->username != NULL && new->username[0] != '\0' &&
		(own_write || old == NULL || !same_text(old->username, new->username)))
		return new->username;
	same_command = old != NULL && same_text(old->command, new->command) &&
		same_text(old->kind, new->kind);
	return same_command ? old->username : wh_schedule_username(GetUserId());
}

static HeapTuple
set_kept_columns(HeapTuple tuple, TupleDesc desc, char *username, TimestampTz next_run)
{
	int			columns[] = {SPI_fnumber(desc, "username"), SPI_fnumber(desc, "next_run")};
	Datum		values[] = {CStringGetTextDatum(username), TimestampTzGetDatum(next_run)};
	bool		nulls[] = {false, false};

	return heap_modify_tuple_by_cols(tuple, desc, lengthof(columns), columns, values, nulls);
}

/* The past of a schedule is not written by hand. */
static HeapTuple
set_history(HeapTuple tuple, HeapTuple old_tuple, TupleDesc desc)
{
	int			columns[] = {SPI_fnumber(desc, "last_run"), SPI_fnumber(desc, "last_status")};
	Datum		values[] = {(Datum) 0, (Datum) 0};
	bool		nulls[] = {true, true};

	if (old_tuple != NULL)
		for (int i = 0; i < lengthof(columns); i++)
			values[i] = SPI_getbinval(old_tuple, desc, columns[i], &nulls[i]);
	return heap_modify_tuple_by_cols(tuple, desc, lengthof(columns), columns, values, nulls);
}

Datum
wh_sql_check_schedule(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool		trusted = own_write || superuser();
	TupleDesc	desc;
	HeapTuple	old_tuple = NULL;
	HeapTuple	tuple;
	Row			old = {0};
	Row			new;

	wh_require_preloaded();
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger", "check_schedule")));
	if (!own_write)
		wh_notify_config_on_commit();

	desc = RelationGetDescr(trigger->tg_relation);
	tuple = trigger->tg_trigtuple;
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
	{
		old_tuple = trigger->tg_trigtuple;
		tuple = trigger->tg_newtuple;
		old = read_row(old_tuple, desc);
	}
	new = read_row(tuple, desc);
	if (new.name == NULL || new.schedule == NULL)
		return PointerGetDatum(tuple);	/* the table's constraint refuses it */
	if (new.name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a schedule is empty")));

	if (!trusted)
		tuple = set_history(tuple, old_tuple, desc);
	tuple = set_kept_columns(tuple, desc,
							 decide_username(old_tuple ? &old : NULL, &new, trusted),
							 decide_next_run(old_tuple ? &old : NULL, &new, trusted));
	return PointerGetDatum(tuple);
}
