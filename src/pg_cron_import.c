/*
 * pg_cron_import.c: copies the jobs of an installed pg_cron.
 *
 * Called from SQL.  Reads cron.job as its caller, who sees what pg_cron lets
 * him see, and writes our schedules as admin_role.  Never writes to pg_cron:
 * whoever moves decides when to remove the jobs there.  A job that was copied
 * is known by its name, and left alone from then on.
 *
 * Locks: none beyond those of its statements.
 */
#include "postgres.h"

#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/guc.h"

#include "audit.h"
#include "caller.h"
#include "schedule_check.h"
#include "schedule_write.h"
#include "sqlutil.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_import_pg_cron);

typedef struct CronJob
{
	char	   *name;
	char	   *schedule;
	char	   *command;
	char	   *username;
	bool		active;
} CronJob;

static void
require_pg_cron(void)
{
	if (OidIsValid(get_extension_oid("pg_cron", true)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("extension \"pg_cron\" is not installed in this database"),
			 errhint("Its jobs are in the database that cron.database_name names; for commands of other databases use _wh.schedule().")));
}

/* In pg_cron each role has names of its own; the second one's are told apart. */
static void
tell_apart(CronJob *jobs, int njobs)
{
	for (int i = 1; i < njobs; i++)
		for (int j = 0; j < i; j++)
			if (strcmp(jobs[i].name, jobs[j].name) == 0)
			{
				jobs[i].name = psprintf("%s (%s)", jobs[i].name, jobs[i].username);
				break;
			}
}

/*
 * The zone that pg_cron keeps time by: before it had a setting, GMT.  Newer ones
 * show it to few, but it says nothing that the hours of the jobs do not.
 */
static const char *
zone_of_pg_cron(void)
{
	const char *zone = GetConfigOption("cron.timezone", true, false);

	return zone == NULL || zone[0] == '\0' ? "GMT" : zone;
}

/* As rows of jsonb, because older versions of pg_cron have not all columns. */
static CronJob *
read_jobs(int *njobs, MemoryContext cxt)
{
	uint64		n;
	CronJob    *jobs;

	n = wh_query_once("SELECT coalesce(j.row ->> 'jobname', 'pg_cron job ' || (j.row ->> 'jobid')),"
					  "  j.row ->> 'schedule', j.row ->> 'command', j.row ->> 'username',"
					  "  coalesce((j.row ->> 'active')::boolean, true)"
					  " FROM (SELECT to_jsonb(job) AS row FROM cron.job AS job"
					  "  WHERE job.database = current_database() ORDER BY job.jobid) AS j", 0, NULL);
	jobs = MemoryContextAllocZero(cxt, sizeof(CronJob) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		jobs[i].name = wh_get_text(cxt, i, 1);
		jobs[i].schedule = wh_get_text(cxt, i, 2);
		jobs[i].command = wh_get_text(cxt, i, 3);
		jobs[i].username = wh_get_text(cxt, i, 4);
		jobs[i].active = wh_get_bool(i, 5);
	}
	*njobs = (int) n;
	return jobs;
}

/* Why the job cannot be ours, or NULL. */
static char *
job_problem(const CronJob *job, const char *timezone, Oid caller)
{
	Oid			role = get_role_oid(job->username, true);
	WhCron		cron;
	WhCronError error;

	if (!OidIsValid(role))
		return psprintf("role \"%s\" does not exist", job->username);
	if (!wh_may_act_as(caller, role))
		return psprintf("it belongs to role \"%s\"", job->username);
	if (!wh_cron_parse(job->schedule, job->name, &cron, &error))
		return psprintf("its schedule \"%s\" has a mistake at character %d: %s",
						job->schedule, error.position, error.message);
	if (wh_schedule_zone(timezone) == NULL)
		return psprintf("time zone \"%s\" is not recognized", timezone);
	/* A superuser's become admin_role's, as those that he schedules here. */
	return superuser_arg(role) ? NULL : wh_schedule_role_problem(role);
}

static void
warn_skipped(const CronJob *job, const char *problem)
{
	ereport(WARNING,
			(errmsg("job \"%s\" of pg_cron was not copied: %s", job->name, problem)));
}

/* A copy has the name already, or something that is none. */
static bool
is_taken(const CronJob *job)
{
	WhArg		args[] = {WH_TEXT(job->name)};

	if (wh_query("SELECT kind = 'sql' FROM _wh.schedules WHERE name = $1", lengthof(args), args) == 0)
		return false;
	if (!wh_get_bool(0, 1))
		warn_skipped(job, "a schedule of that name exists and is no command");
	return true;
}

/* True if it was not there yet. */
static bool
copy_job(const CronJob *job, const char *timezone, const WhCaller *caller)
{
	char	   *problem;
	WhNewSql	new = {
		.schedule = job->schedule,.timezone = timezone,.command = job->command,.active = job->active
	};

	if (is_taken(job))
		return false;
	problem = job_problem(job, timezone, caller->role);
	if (problem != NULL)
	{
		warn_skipped(job, problem);
		return false;
	}
	new.username = wh_schedule_username(get_role_oid(job->username, false));
	return wh_schedule_insert_sql(job->name, &new) != 0;
}

Datum
wh_sql_import_pg_cron(PG_FUNCTION_ARGS)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhCaller	caller;
	CronJob    *jobs;
	char	   *timezone;
	int			njobs;
	int32		copied = 0;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	require_pg_cron();
	timezone = pstrdup(zone_of_pg_cron());
	wh_spi_begin();
	jobs = read_jobs(&njobs, cxt);
	tell_apart(jobs, njobs);
	wh_schedule_become_admin(&caller);
	for (int i = 0; i < njobs; i++)
		copied += copy_job(&jobs[i], timezone, &caller);
	wh_schedule_become_caller(&caller);
	wh_spi_end();
	PG_RETURN_INT32(copied);
}
