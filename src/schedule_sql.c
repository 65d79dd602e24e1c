/*
 * schedule_sql.c: schedules come, change, rest and go.
 *
 * Called from SQL, in the user's transaction.  schedule() and unschedule() take
 * the calls of pg_cron: they run as their caller, because the command will run
 * as him, and write as admin_role.  When a schedule runs is not decided here
 * (schedule_check.c); those of subscriptions are made by schedule_subscription.c.
 *
 * Locks: the row of the schedule, then queued jobs of it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "audit.h"
#include "caller.h"
#include "guc.h"
#include "schedule_check.h"
#include "schedule_write.h"
#include "sqlutil.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_schedule);
PG_FUNCTION_INFO_V1(wh_sql_schedule_unnamed);
PG_FUNCTION_INFO_V1(wh_sql_unschedule);
PG_FUNCTION_INFO_V1(wh_sql_unschedule_by_id);
PG_FUNCTION_INFO_V1(wh_sql_pause_schedule);
PG_FUNCTION_INFO_V1(wh_sql_resume_schedule);

/* ---- the caller and admin_role ---- */

void
wh_schedule_become_admin(WhCaller *caller)
{
	caller->role = GetUserId();
	wh_restricted_begin_as_admin(&caller->restricted);
}

void
wh_schedule_become_caller(const WhCaller *caller)
{
	wh_restricted_end(&caller->restricted);
}

/*
 * Commands are their owner's, and those of owners that are gone are
 * admin_role's; what loads and publishes is everybody's who may call us.
 */
static void
require_owner(const WhCaller *caller, const char *name, const char *kind, const char *username)
{
	Oid			owner = get_role_oid(username, true);

	if (strcmp(kind, "sql") != 0 || wh_may_act_as(caller->role, get_role_oid(wh_admin_role, false)) ||
		(OidIsValid(owner) && wh_may_act_as(caller->role, owner)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("schedule \"%s\" belongs to role \"%s\"", name, username)));
}

static void
report_no_schedule(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("schedule %s does not exist", what),
			 errhint("Schedules are the rows of _wh.schedules.")));
}

/* ---- schedule ---- */

static int64
next_schedule_id(void)
{
	wh_query("SELECT pg_catalog.nextval('_wh.schedules_schedule_id_seq')", 0, NULL);
	return wh_get_int8(0, 1);
}

int64
wh_schedule_insert_sql(const char *name, const WhNewSql *new)
{
	WhArg		args[] = {
		WH_INT8(next_schedule_id()), WH_TEXT(name), WH_TEXT(new->schedule), WH_TEXT(new->timezone),
		WH_TEXT(new->command), WH_TEXT(new->username), WH_BOOL(new->active)
	};

	if (wh_schedule_write("INSERT INTO _wh.schedules (schedule_id, name, schedule, timezone, kind,"
						  "  command, username, active)"
						  " VALUES ($1, coalesce($2, 'job ' || $1), $3, $4, 'sql', $5, $6, $7)"
						  " ON CONFLICT (name) DO NOTHING RETURNING schedule_id",
						  lengthof(args), args) == 0)
		return 0;
	wh_notify_config_on_commit();
	return wh_get_int8(0, 1);
}

/* The id of the schedule that had the name, now with another text and command; or 0. */
static int64
update_sql(const char *name, const WhNewSql *new, const WhCaller *caller)
{
	WhArg		args[] = {
		WH_TEXT(name), WH_TEXT(new->schedule), WH_TEXT(new->command), WH_TEXT(new->username)
	};
	char	   *kind;

	if (wh_query("SELECT kind, username FROM _wh.schedules WHERE name = $1 FOR NO KEY UPDATE",
				 1, args) == 0)
		return 0;
	kind = wh_get_text(CurrentMemoryContext, 0, 1);
	if (strcmp(kind, "sql") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("schedule \"%s\" exists and is of kind %s", name, kind),
				 errhint("Choose another name for the command.")));
	require_owner(caller, name, kind, wh_get_text(CurrentMemoryContext, 0, 2));
	wh_schedule_write("UPDATE _wh.schedules SET schedule = $2, command = $3, username = $4"
					  " WHERE name = $1 RETURNING schedule_id", lengthof(args), args);
	wh_notify_config_on_commit();
	return wh_get_int8(0, 1);
}

/* Somebody may take the name, or drop it, between the two statements. */
static int64
write_sql(const char *name, const WhNewSql *new, const WhCaller *caller)
{
	int64		id = 0;

	while (id == 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (name != NULL)
			id = update_sql(name, new, caller);
		if (id == 0)
			id = wh_schedule_insert_sql(name, new);
	}
	return id;
}

static int64
schedule(const char *name, const char *text, char *command)
{
	WhNewSql	new = {.schedule = text,.command = command,.active = true};
	WhCaller	caller;
	int64		id;

	if (name != NULL && name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a schedule is empty")));
	wh_schedule_check_text(text);
	new.username = wh_schedule_username(GetUserId());
	wh_schedule_become_admin(&caller);
	wh_spi_begin();
	id = write_sql(name, &new, &caller);
	wh_spi_end();
	wh_schedule_become_caller(&caller);
	return id;
}

Datum
wh_sql_schedule(PG_FUNCTION_ARGS)
{
	char	   *name;
	char	   *text;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	name = wh_tenant_text_arg(fcinfo, 0, "name");
	text = wh_tenant_text_arg(fcinfo, 1, "schedule");
	PG_RETURN_INT64(schedule(name, text, wh_tenant_text_arg(fcinfo, 2, "command")));
}

Datum
wh_sql_schedule_unnamed(PG_FUNCTION_ARGS)
{
	char	   *text;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	text = wh_tenant_text_arg(fcinfo, 0, "schedule");
	PG_RETURN_INT64(schedule(NULL, text, wh_tenant_text_arg(fcinfo, 1, "command")));
}

/* ---- unschedule, pause, resume ---- */

/* By its name, or by its id where that is NULL; locked. */
static int64
find_schedule(const char *name, int64 id, const WhCaller *caller)
{
	WhArg		args[] = {WH_TEXT(name), WH_INT8(id)};
	MemoryContext cxt = CurrentMemoryContext;

	if (wh_query("SELECT schedule_id, name, kind, username FROM _wh.schedules"
				 " WHERE CASE WHEN $1::text IS NULL THEN schedule_id = $2 ELSE name = $1 END"
				 " FOR UPDATE", lengthof(args), args) == 0)
		report_no_schedule(name ? psprintf("\"%s\"", name) : psprintf(INT64_FORMAT, id));
	require_owner(caller, wh_get_text(cxt, 0, 2), wh_get_text(cxt, 0, 3), wh_get_text(cxt, 0, 4));
	return wh_get_int8(0, 1);
}

/* A command that waits still would not find what to run; days are wanted anyway. */
static void
delete_schedule(int64 id)
{
	WhArg		args[] = {WH_INT8(id)};

	wh_schedule_write("DELETE FROM _wh.schedules WHERE schedule_id = $1", lengthof(args), args);
	wh_query("UPDATE _wh.jobs SET state = 'cancelled', finished_at = clock_timestamp(),"
			 " last_error = 'its schedule was removed'"
			 " WHERE kind = 'sql' AND state = 'queued' AND schedule_id = $1", lengthof(args), args);
	wh_notify_config_on_commit();
}

static void
unschedule(const char *name, int64 id)
{
	WhCaller	caller;

	wh_schedule_become_admin(&caller);
	wh_spi_begin();
	delete_schedule(find_schedule(name, id, &caller));
	wh_spi_end();
	wh_schedule_become_caller(&caller);
}

Datum
wh_sql_unschedule(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	unschedule(wh_tenant_text_arg(fcinfo, 0, "name"), 0);
	PG_RETURN_BOOL(true);
}

Datum
wh_sql_unschedule_by_id(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("schedule_id must not be null")));
	unschedule(NULL, PG_GETARG_INT64(0));
	PG_RETURN_BOOL(true);
}

static void
set_active(const char *name, bool active)
{
	WhCaller	caller;

	wh_schedule_become_admin(&caller);
	wh_spi_begin();
	{
		WhArg		args[] = {WH_INT8(find_schedule(name, 0, &caller)), WH_BOOL(active)};

		wh_schedule_write("UPDATE _wh.schedules SET active = $2"
						  " WHERE schedule_id = $1 AND active <> $2", lengthof(args), args);
	}
	wh_notify_config_on_commit();
	wh_spi_end();
	wh_schedule_become_caller(&caller);
}

Datum
wh_sql_pause_schedule(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	set_active(wh_tenant_text_arg(fcinfo, 0, "name"), false);
	PG_RETURN_VOID();
}

Datum
wh_sql_resume_schedule(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	set_active(wh_tenant_text_arg(fcinfo, 0, "name"), true);
	PG_RETURN_VOID();
}
