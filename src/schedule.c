/*
 * schedule.c: a schedule has come due: what that means, by the ledger.
 *
 * Due means data, not ticks.  A refresh asks which days its subscription lacks
 * and enqueues those, each at most once, a combination which months or years are
 * over (combine_due.c); a command or a publication is enqueued unless it is
 * pending already.  Ticks that were missed are one run.  Every decision leaves a
 * row in job_run_details and the schedule's last_status; where a combination or
 * retention has nothing to do for the same reason as the last time, that row is
 * the last one.
 *
 * Called by the launcher (due.c), a schedule at a time, in a subtransaction of
 * its own; whatever is wrong with one is raised here and caught there.  Starts
 * nothing and talks to no tenant.
 *
 * Locks: the row of the schedule, then rows of _wh.jobs.  Rows that somebody
 * else has are passed over: the launcher waits for nobody.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"

#include "clock.h"
#include "combine_due.h"
#include "guc.h"
#include "log_event.h"
#include "queue.h"
#include "retention.h"
#include "schedule.h"
#include "schedule_check.h"
#include "wh_worker.h"

/* More runs than this are not counted one by one. */
#define COUNT_MISSED_MAX 1000

/* A run this late was missed, even if it is the only one. */
#define LATE_MS (60 * 1000)

/* Days that a message names. */
#define NAMED_DAYS_MAX 10

typedef struct Schedule
{
	int64		schedule_id;
	char	   *name;
	char	   *text;
	char	   *timezone;
	char	   *kind;
	char	   *template_name;
	char	   *tenant_name;
	char	   *target_schema;
	char	   *command;
	char	   *username;
	char	   *last_status;
	TimestampTz next_run;
	bool		has_next_run;
} Schedule;

/* What was decided, and why. */
typedef struct Decision
{
	const char *status;			/* enqueued, coalesced, skipped */
	char	   *message;
	char	   *reason;			/* due, or caught up */
	int64		job_id;			/* of the only job; 0: none or several */
	bool		disable;
	bool		is_stale;		/* skipped for the same reason as the last time */
} Decision;

/* ---- reading ---- */

/* Its row, locked; NULL if it is gone, inactive or *locked by somebody. */
static Schedule *
read_schedule(int64 schedule_id, bool *locked)
{
	WhArg		args[] = {WH_INT8(schedule_id)};
	MemoryContext cxt = CurrentMemoryContext;
	Schedule   *schedule;

	*locked = false;
	if (wh_query("SELECT name, schedule, timezone, kind, template_name, tenant_name,"
				 "  target_schema, command, username, next_run, last_status"
				 " FROM _wh.schedules WHERE schedule_id = $1 AND active"
				 " FOR NO KEY UPDATE SKIP LOCKED", lengthof(args), args) == 0)
	{
		*locked = wh_query("SELECT FROM _wh.schedules WHERE schedule_id = $1 AND active",
						   lengthof(args), args) > 0;
		return NULL;
	}
	schedule = palloc0(sizeof(Schedule));
	schedule->schedule_id = schedule_id;
	schedule->name = wh_get_text(cxt, 0, 1);
	schedule->text = wh_get_text(cxt, 0, 2);
	schedule->timezone = wh_get_text(cxt, 0, 3);
	schedule->kind = wh_get_text(cxt, 0, 4);
	schedule->template_name = wh_get_text(cxt, 0, 5);
	schedule->tenant_name = wh_get_text(cxt, 0, 6);
	schedule->target_schema = wh_get_text(cxt, 0, 7);
	schedule->command = wh_get_text(cxt, 0, 8);
	schedule->username = wh_get_text(cxt, 0, 9);
	schedule->last_status = wh_get_text(cxt, 0, 11);
	schedule->next_run = wh_get_timestamptz(0, 10);
	schedule->has_next_run = !wh_isnull(0, 10) && !TIMESTAMP_IS_NOBEGIN(schedule->next_run);
	return schedule;
}

/* ---- time ---- */

/*
 * The first run after now.  An interval keeps its beat: it counts from when it
 * was due, not from when somebody had time for it.
 */
static TimestampTz
run_after(const WhTiming *timing, TimestampTz due, TimestampTz now)
{
	int64		interval = (int64) timing->cron.interval_seconds * USECS_PER_SEC;

	if (interval == 0 || due > now)
		return wh_cron_next(&timing->cron, timing->zone, now);
	return due + ((now - due) / interval + 1) * interval;
}

/* How many runs came due from "due" to now, both included. */
static int64
count_runs(const WhTiming *timing, TimestampTz due, TimestampTz now)
{
	int64		n = 0;

	if (timing->cron.interval_seconds > 0)
		return (now - due) / ((int64) timing->cron.interval_seconds * USECS_PER_SEC) + 1;
	for (TimestampTz at = due; at <= now && n < COUNT_MISSED_MAX; n++)
		at = wh_cron_next(&timing->cron, timing->zone, at);
	return n;
}

static char *
describe_lateness(const WhTiming *timing, TimestampTz due, TimestampTz now)
{
	int64		n = count_runs(timing, due, now);

	if (n <= 1 && !TimestampDifferenceExceeds(due, now, LATE_MS))
		return "due";
	return psprintf("caught up %s" INT64_FORMAT " missed run%s since %s",
					n == COUNT_MISSED_MAX ? "at least " : "", n, n == 1 ? "" : "s",
					timestamptz_to_str(due));
}

/* ---- a refresh ---- */

/*
 * $1 template, $2 tenant, $3 schema, $4 today, $5 first day, $6 schedule,
 * $7 and $8 the classes of today's and of older days, $9 the first day that is
 * healed.  A day is wanted that is today, that was fetched before it was over,
 * that has no content, or whose last attempt failed; yesterday's late rows are
 * wanted even where nothing is healed.  One that waits in a lower class already
 * is moved up, and is the schedule's from then on: its backfill may be paused.
 */
static const char *const refresh_sql =
"WITH day AS ("
"  SELECT x.target_date,"
"    CASE WHEN x.target_date >= $4 - 1 THEN $7 ELSE $8 END AS priority,"
"    CASE WHEN x.target_date = $4 THEN 'today'"
"         WHEN l.relation_oid IS NOT NULL"
"          AND greatest(l.fetch_started_at, l.checked_at) < (x.target_date + 1)::timestamp AT TIME ZONE 'UTC'"
"         THEN 'unfinished'"
"         WHEN x.target_date < $9 THEN NULL"
"         WHEN l.failed_at IS NOT NULL THEN 'failed'"
"         WHEN l.relation_oid IS NULL THEN 'missing' END AS reason"
"    FROM (SELECT $4 - i AS target_date FROM generate_series(0, $4 - $5) AS i) AS x"
"    LEFT JOIN _wh.day_loads l ON l.template_name = $1 AND l.target_schema = $3"
"     AND l.target_date = x.target_date),"
" wanted AS (SELECT * FROM day WHERE reason IS NOT NULL),"
" made AS ("
"  INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date,"
"    schedule_id, reason, priority, sequence_number)"
"  SELECT 'refresh', $1, $2, $3, target_date, $6, reason, priority, $4 - target_date"
"    FROM wanted ORDER BY target_date DESC"
"  ON CONFLICT DO NOTHING RETURNING job_id, target_date),"
" lower AS ("
"  SELECT j.job_id, w.priority, w.reason FROM wanted w"
"    JOIN _wh.jobs j ON j.kind = 'refresh' AND j.state = 'queued' AND j.template_name = $1"
"     AND j.target_schema = $3 AND j.target_date = w.target_date"
"   WHERE j.priority > w.priority FOR NO KEY UPDATE OF j SKIP LOCKED),"
" raised AS ("
"  UPDATE _wh.jobs j SET priority = l.priority, sequence_number = $4 - j.target_date,"
"    schedule_id = $6, reason = l.reason"
"    FROM lower l WHERE j.job_id = l.job_id RETURNING j.job_id, j.target_date)"
" SELECT w.target_date, w.reason, m.job_id, r.job_id FROM wanted w"
"   LEFT JOIN made m ON m.target_date = w.target_date"
"   LEFT JOIN raised r ON r.target_date = w.target_date"
"  ORDER BY w.target_date DESC";

/* Why a refresh makes no sense now, for people, or NULL; *start is its first day. */
static char *
subscription_problem(const Schedule *schedule, DateADT *start)
{
	WhArg		args[] = {
		WH_TEXT(schedule->template_name), WH_TEXT(schedule->tenant_name),
		WH_TEXT(schedule->target_schema)
	};

	wh_query("SELECT (SELECT true FROM _wh.mv_templates WHERE template_name = $1),"
			 " c.active, s.active, s.start_date"
			 " FROM (SELECT) AS one"
			 " LEFT JOIN _wh.tenant_connections c ON c.tenant_name = $2"
			 " LEFT JOIN _wh.tenant_templates s ON s.template_name = $1"
			 "  AND s.tenant_name = $2 AND s.target_schema = $3", lengthof(args), args);
	if (wh_isnull(0, 1))
		return psprintf("template \"%s\" does not exist", schedule->template_name);
	if (wh_isnull(0, 2))
		return psprintf("tenant \"%s\" does not exist", schedule->tenant_name);
	if (wh_isnull(0, 3))
		return psprintf("tenant \"%s\" does not feed template \"%s\" into schema \"%s\"",
						schedule->tenant_name, schedule->template_name, schedule->target_schema);
	if (!wh_get_bool(0, 2))
		return pstrdup("the tenant is paused");
	if (!wh_get_bool(0, 3))
		return pstrdup("the subscription is inactive");
	*start = wh_get_date(0, 4);
	return NULL;
}

/* One list of days: "2 queued: 2025-07-02 (today), 2025-07-01 (missing)". */
typedef struct DayList
{
	const char *what;
	int			n;
	StringInfoData days;
} DayList;

static void
add_day(DayList *list, const char *date, const char *reason)
{
	if (list->n == 0)
		initStringInfo(&list->days);
	if (list->n < NAMED_DAYS_MAX)
		appendStringInfo(&list->days, "%s%s (%s)", list->n ? ", " : "", date, reason);
	else if (list->n == NAMED_DAYS_MAX)
		appendStringInfoString(&list->days, ", ...");
	list->n++;
}

static char *
describe_lists(const DayList *lists, int nlists)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < nlists; i++)
		if (lists[i].n > 0)
			appendStringInfo(&text, "%s%d %s: %s", text.len ? "; " : "",
							 lists[i].n, lists[i].what, lists[i].days.data);
	return text.data;
}

static void
describe_days(Decision *decision, uint64 n)
{
	DayList		lists[] = {{"queued"}, {"moved up"}, {"pending already"}};

	for (uint64 i = 0; i < n; i++)
	{
		int64		made = wh_get_int8(i, 3);
		int64		raised = wh_get_int8(i, 4);

		add_day(&lists[made ? 0 : raised ? 1 : 2], wh_date_text(wh_get_date(i, 1)),
				wh_get_text(CurrentMemoryContext, i, 2));
		if (made || raised)
			wh_notify_jobs_on_commit(made ? made : raised, made ? made : raised);
	}
	decision->status = lists[0].n + lists[1].n > 0 ? "enqueued" : "coalesced";
	decision->message = describe_lists(lists, lengthof(lists));
}

static void
decide_refresh(const Schedule *schedule, Decision *decision)
{
	DateADT		today = wh_clock_today();
	DateADT		start = 0;
	char	   *problem = subscription_problem(schedule, &start);
	WhArg		args[] = {
		WH_TEXT(schedule->template_name), WH_TEXT(schedule->tenant_name),
		WH_TEXT(schedule->target_schema), WH_DATE(today),
		WH_DATE(Max(start, today - Max(wh_catchup_days, 1))), WH_INT8(schedule->schedule_id),
		WH_INT4(WH_PRIORITY_TODAY), WH_INT4(WH_PRIORITY_CATCH_UP),
		WH_DATE(today - wh_catchup_days)
	};

	decision->status = "skipped";
	decision->message = problem;
	if (problem == NULL && start > today)
		decision->message = psprintf("nothing to do before its start_date %s", wh_date_text(start));
	if (decision->message == NULL)
		describe_days(decision, wh_query(refresh_sql, lengthof(args), args));
}

/* ---- months and years ---- */

/* Of many thousands of subscriptions most have nothing to combine every night. */
static bool
says_what_it_said(const Schedule *schedule, const Decision *decision)
{
	return strcmp(decision->status, "skipped") == 0 && schedule->last_status != NULL &&
		strcmp(schedule->last_status, psprintf("skipped: %s", decision->message)) == 0;
}

static void
decide_combine(const Schedule *schedule, Decision *decision)
{
	DateADT		start;
	WhCombineDue due = {
		.template_name = schedule->template_name,.tenant_name = schedule->tenant_name,
		.schema = schedule->target_schema,.schedule_id = schedule->schedule_id,
		.years = strcmp(schedule->kind, "combine_year") == 0
	};

	decision->status = "skipped";
	decision->message = subscription_problem(schedule, &start);
	if (decision->message == NULL)
	{
		wh_combine_enqueue_due(&due);
		decision->status = due.nqueued > 0 ? "enqueued" : due.npending > 0 ? "coalesced" : "skipped";
		decision->message = due.message;
		decision->job_id = due.job_id;
	}
	decision->is_stale = says_what_it_said(schedule, decision);
}

/* ---- the other kinds ---- */

/* After an INSERT that returns the job's id, if it was not pending already. */
static void
describe_job(Decision *decision, uint64 inserted)
{
	if (inserted == 0)
	{
		decision->status = "coalesced";
		decision->message = "an earlier run is still pending";
		return;
	}
	decision->status = "enqueued";
	decision->job_id = wh_get_int8(0, 1);
	decision->message = psprintf("job " INT64_FORMAT, decision->job_id);
	wh_notify_jobs_on_commit(decision->job_id, decision->job_id);
}

static void
decide_publish(const Schedule *schedule, Decision *decision)
{
	WhArg		args[] = {
		WH_TEXT(schedule->template_name), WH_INT8(schedule->schedule_id),
		WH_INT4(WH_PRIORITY_PUBLISH)
	};

	if (wh_query("SELECT FROM _wh.mv_templates WHERE template_name = $1", 1, args) == 0)
	{
		decision->status = "skipped";
		decision->message = psprintf("template \"%s\" does not exist", schedule->template_name);
		return;
	}
	describe_job(decision,
				 wh_query("INSERT INTO _wh.jobs (kind, template_name, schedule_id, reason, priority)"
						  " VALUES ('publish', $1, $2, 'due', $3)"
						  " ON CONFLICT DO NOTHING RETURNING job_id", lengthof(args), args));
}

static void
decide_retention(const Schedule *schedule, Decision *decision)
{
	WhArg		args[] = {
		WH_TEXT(schedule->template_name), WH_INT8(schedule->schedule_id),
		WH_INT4(WH_PRIORITY_BACKFILL)
	};

	decision->status = "skipped";
	if (wh_query("SELECT FROM _wh.mv_templates WHERE template_name = $1", 1, args) == 0)
		decision->message = psprintf("template \"%s\" does not exist", schedule->template_name);
	else if (!wh_retention_is_due(schedule->template_name))
		decision->message = "nothing is too old";
	else
		describe_job(decision,
					 wh_query("INSERT INTO _wh.jobs (kind, template_name, schedule_id, reason, priority)"
							  " VALUES ('retention', $1, $2, 'due', $3)"
							  " ON CONFLICT DO NOTHING RETURNING job_id", lengthof(args), args));
	decision->is_stale = says_what_it_said(schedule, decision);
}

/* What else may be wrong with the role is asked when the command runs. */
static void
decide_sql(const Schedule *schedule, Decision *decision)
{
	WhArg		args[] = {WH_INT8(schedule->schedule_id), WH_INT4(WH_PRIORITY_TODAY)};

	if (!OidIsValid(get_role_oid(schedule->username, true)))
	{
		decision->status = "skipped";
		decision->message = psprintf("role \"%s\" does not exist", schedule->username);
		decision->disable = true;
		return;
	}
	describe_job(decision,
				 wh_query("INSERT INTO _wh.jobs (kind, schedule_id, reason, priority)"
						  " VALUES ('sql', $1, 'due', $2)"
						  " ON CONFLICT DO NOTHING RETURNING job_id", lengthof(args), args));
}

/* ---- writing ---- */

static bool
is_combine(const Schedule *schedule)
{
	return strncmp(schedule->kind, "combine_", strlen("combine_")) == 0;
}

static char *
describe_schedule(const Schedule *schedule)
{
	if (strcmp(schedule->kind, "refresh") == 0)
		return psprintf("refresh %s from %s into %s", schedule->template_name,
						schedule->tenant_name, schedule->target_schema);
	if (strcmp(schedule->kind, "publish") == 0 || strcmp(schedule->kind, "retention") == 0)
		return psprintf("%s %s", schedule->kind, schedule->template_name);
	if (is_combine(schedule))
		return psprintf("combine %s %s of %s in %s", schedule->kind + strlen("combine_"),
						schedule->template_name, schedule->tenant_name, schedule->target_schema);
	return schedule->command ? schedule->command : "";
}

static void
record_decision(const Schedule *schedule, const Decision *decision)
{
	WhArg		args[] = {
		WH_INT8(schedule->schedule_id), WH_INT4(MyProcPid), WH_TEXT(schedule->username),
		WH_TEXT(describe_schedule(schedule)), WH_TEXT(decision->status), WH_TEXT(decision->message),
		wh_arg_nullable(INT8OID, Int64GetDatum(decision->job_id), decision->job_id == 0),
		WH_TEXT(decision->reason)
	};

	wh_query("INSERT INTO _wh.job_run_details (jobid, job_pid, username, command, status,"
			 " return_message, start_time, end_time, job_id, reason)"
			 " SELECT $1, $2, $3, $4, $5, $6, at, at, $7, $8 FROM clock_timestamp() AS at",
			 lengthof(args), args);
}

static void
move_on(const Schedule *schedule, const Decision *decision, TimestampTz now, TimestampTz next)
{
	char	   *status = psprintf("%s: %s", decision->disable ? "disabled" : decision->status,
								  decision->message);
	WhArg		args[] = {
		WH_INT8(schedule->schedule_id), WH_TSTZ(next), WH_TSTZ(now), WH_TEXT(status),
		WH_BOOL(decision->disable)
	};

	wh_schedule_write("UPDATE _wh.schedules SET next_run = $2, last_run = $3, last_status = $4,"
					  " active = active AND NOT $5 WHERE schedule_id = $1", lengthof(args), args);
}

/*
 * Why nothing is loaded is said once.  That there is nothing to combine or to
 * drop is no news, whatever it is that is waited for.
 */
static void
log_decision(const Schedule *schedule, const Decision *decision)
{
	WhLogSchedule log = {
		.name = schedule->name, .template_name = schedule->template_name,
		.tenant_name = schedule->tenant_name, .schema = schedule->target_schema,
		.status = decision->disable ? "disabled" : decision->status, .message = decision->message,
		.is_news = strcmp(decision->status, "skipped") == 0 &&
		!is_combine(schedule) && strcmp(schedule->kind, "retention") != 0 &&
		!says_what_it_said(schedule, decision)
	};

	wh_log_schedule(&log);
}

static TimestampTz
decide(const Schedule *schedule, TimestampTz now)
{
	WhTiming	timing;
	Decision	decision = {0};
	TimestampTz next;

	wh_schedule_parse(schedule->text, schedule->name, schedule->timezone, &timing);
	next = run_after(&timing, schedule->next_run, now);
	decision.reason = describe_lateness(&timing, schedule->next_run, now);
	if (strcmp(schedule->kind, "refresh") == 0)
		decide_refresh(schedule, &decision);
	else if (strcmp(schedule->kind, "publish") == 0)
		decide_publish(schedule, &decision);
	else if (is_combine(schedule))
		decide_combine(schedule, &decision);
	else if (strcmp(schedule->kind, "retention") == 0)
		decide_retention(schedule, &decision);
	else
		decide_sql(schedule, &decision);
	if (!decision.is_stale)
		record_decision(schedule, &decision);
	log_decision(schedule, &decision);
	move_on(schedule, &decision, now, next);
	return decision.disable ? DT_NOEND : next;
}

/* It was written past the trigger, and has yet to be given a time. */
static TimestampTz
set_first_run(const Schedule *schedule, TimestampTz now)
{
	WhTiming	timing;
	TimestampTz next;

	wh_schedule_parse(schedule->text, schedule->name, schedule->timezone, &timing);
	next = wh_cron_next(&timing.cron, timing.zone, now);
	{
		WhArg		args[] = {WH_INT8(schedule->schedule_id), WH_TSTZ(next)};

		wh_schedule_write("UPDATE _wh.schedules SET next_run = $2 WHERE schedule_id = $1",
						  lengthof(args), args);
	}
	return next;
}

TimestampTz
wh_schedule_run(int64 schedule_id, TimestampTz now)
{
	TimestampTz next;
	Schedule   *schedule;
	bool		locked;

	wh_spi_begin();
	schedule = read_schedule(schedule_id, &locked);
	if (schedule == NULL)
		next = locked ? DT_NOBEGIN : DT_NOEND;
	else if (!schedule->has_next_run)
		next = set_first_run(schedule, now);
	else if (schedule->next_run > now)
		next = schedule->next_run;
	else
		next = decide(schedule, now);
	wh_spi_end();
	return next;
}

TimestampTz
wh_schedule_failed(int64 schedule_id, TimestampTz now, const char *message)
{
	Decision	decision = {.status = "failed", .message = pstrdup(message), .reason = "due"};
	TimestampTz next = DT_NOEND;
	Schedule   *schedule;
	WhTiming	timing;
	bool		locked;

	wh_spi_begin();
	schedule = read_schedule(schedule_id, &locked);
	if (schedule == NULL)
		next = locked ? DT_NOBEGIN : DT_NOEND;
	else
	{
		if (wh_schedule_try_parse(schedule->text, schedule->name, schedule->timezone, &timing))
			next = run_after(&timing, schedule->has_next_run ? schedule->next_run : now, now);
		record_decision(schedule, &decision);
		move_on(schedule, &decision, now, next);
	}
	wh_spi_end();
	return next;
}

/* ---- another clock, another zone ---- */

/* Where the run that is waited for should be now; the same if it may stay. */
static TimestampTz
adjusted(const WhTiming *timing, bool has_zone, TimestampTz next_run, TimestampTz now,
		 bool zone_changed)
{
	TimestampTz next = wh_cron_next(&timing->cron, timing->zone, now);

	if (next < next_run ||
		(zone_changed && !has_zone && timing->cron.interval_seconds == 0))
		return next;
	return next_run;
}

/* False if its row is locked by somebody. */
static bool
adjust_one(int64 schedule_id, TimestampTz old, TimestampTz new)
{
	WhArg		args[] = {WH_INT8(schedule_id), WH_TSTZ(old), WH_TSTZ(new)};

	if (wh_schedule_write("UPDATE _wh.schedules SET next_run = $3 WHERE schedule_id ="
						  " (SELECT schedule_id FROM _wh.schedules WHERE schedule_id = $1"
						  "  AND next_run = $2 FOR NO KEY UPDATE SKIP LOCKED)",
						  lengthof(args), args) > 0)
		return true;
	return wh_query("SELECT FROM _wh.schedules WHERE schedule_id = $1 AND next_run = $2",
					2, args) == 0;
}

bool
wh_schedule_adjust(TimestampTz now, bool all, bool zone_changed)
{
	WhArg		args[] = {WH_TSTZ(now), WH_BOOL(all)};
	bool		complete = true;
	MemoryContext cxt = CurrentMemoryContext;
	SPITupleTable *rows;
	uint64		n;

	wh_spi_begin();
	n = wh_query("SELECT schedule_id, name, schedule, timezone, next_run FROM _wh.schedules"
				 " WHERE next_run > $1 AND ($2 OR next_run = 'infinity')", lengthof(args), args);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		WhTiming	timing;
		int64		schedule_id;
		char	   *name;
		char	   *text;
		char	   *timezone;
		TimestampTz next_run;
		TimestampTz next;

		SPI_tuptable = rows;	/* an UPDATE below has its own */
		schedule_id = wh_get_int8(i, 1);
		name = wh_get_text(cxt, i, 2);
		text = wh_get_text(cxt, i, 3);
		timezone = wh_get_text(cxt, i, 4);
		next_run = wh_get_timestamptz(i, 5);
		if (!wh_schedule_try_parse(text, name, timezone, &timing))
			continue;
		next = adjusted(&timing, timezone != NULL, next_run, now, zone_changed);
		if (next != next_run)
			complete &= adjust_one(schedule_id, next_run, next);
	}
	wh_spi_end();
	return complete;
}

/* ---- a tenant that was paused ---- */

void
wh_schedule_tenant_resumed(const char *tenant_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_TSTZ(wh_clock_now())};

	wh_spi_begin();
	wh_schedule_write("UPDATE _wh.schedules SET next_run = $2 WHERE kind <> 'sql'"
					  " AND tenant_name = $1 AND active AND next_run > $2"
					  " AND last_status LIKE 'skipped: %'", lengthof(args), args);
	wh_spi_end();
}

/* ---- ends of jobs ---- */

void
wh_schedule_job_ended(int64 schedule_id, const char *status)
{
	WhArg		args[] = {WH_INT8(schedule_id), WH_TEXT(status)};

	wh_spi_begin();
	/* That it is disabled says more than that a job failed for the same reason. */
	wh_schedule_write("UPDATE _wh.schedules SET last_status = $2 WHERE schedule_id ="
					  " (SELECT schedule_id FROM _wh.schedules WHERE schedule_id = $1"
					  "  AND (active OR last_status IS NULL OR last_status NOT LIKE 'disabled:%')"
					  "  FOR NO KEY UPDATE SKIP LOCKED)", lengthof(args), args);
	wh_spi_end();
}
