/*
 * log_event.c: the lines of the server log, one for each thing that happened.
 *
 * One place for words and levels, so that a line has one form for people and, in
 * the JSON of its context (log_context.c), one name for programs.  Levels are
 * chosen so that ten thousand jobs a day do not flood a log, and none that
 * somebody has to act on is missed:
 *
 *     WARNING  stays as it is until somebody does something
 *     LOG      somebody may want to know; an attempt that failed, once
 *     DEBUG1   what goes well, unless it took long (wh_worker.log_min_duration)
 *
 * Called by whoever did it: for a job after its commit, for the others right
 * before it.  Raises nothing but a cancel of the session's own command, and reads
 * no table.  Takes no lock.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "log_context.h"
#include "log_event.h"
#include "plain_text.h"

/* What came of the job at hand. */
static struct
{
	int64		rows;
	int64		bytes;
	char		message[256];	/* empty: none */
} result;

/* Names in it may have a newline, and would begin a line of their own. */
static void
say(int level, int sqlerrcode, const WhLogFacts *facts, const char *message, const char *detail,
	const char *hint)
{
	/*
	 * A message ends with a look for interrupts.  A worker has nobody to catch a
	 * cancel here, which would end it, and its job be taken for one that lost it.
	 */
	if (WH_IN_BACKGROUND_WORKER)
		HOLD_INTERRUPTS();
	wh_log_context_facts(facts);
	PG_TRY();
	{
		ereport(level,
				(sqlerrcode != 0 ? errcode(sqlerrcode) : 0,
				 errmsg_internal("%s", wh_plain_text(message)),
				 detail != NULL ? errdetail_log("%s", wh_plain_text(detail)) : 0,
				 hint != NULL ? errhint("%s", hint) : 0));
	}
	PG_FINALLY();
	{
		/* they are the caller's, whose frame an error leaves */
		wh_log_context_facts(NULL);
	}
	PG_END_TRY();
	if (WH_IN_BACKGROUND_WORKER)
		RESUME_INTERRUPTS();
}

static int
code_of(const WhFailure *failure)
{
	const char *s = failure->sqlstate;

	return MAKE_SQLSTATE(s[0], s[1], s[2], s[3], s[4]);
}

/* ---- jobs ---- */

static int64
ms_since(TimestampTz since)
{
	return Max(GetCurrentTimestamp() - since, 0) / 1000;
}

void
wh_log_job_started(const WhJob *job)
{
	WhLogFacts	facts = {.event = "job_started"};

	wh_log_job_result(0, 0, NULL);
	if (!message_level_is_interesting(DEBUG1))
		return;
	say(DEBUG1, 0, &facts,
		psprintf("job " INT64_FORMAT " starts: %s", job->job_id, wh_queue_describe(job)), NULL, NULL);
}

void
wh_log_job_result(int64 rows, int64 bytes, const char *message)
{
	result.rows = rows;
	result.bytes = bytes;
	result.message[0] = '\0';
	if (message != NULL)
		strlcpy(result.message, message,
				pg_mbcliplen(message, strlen(message), sizeof(result.message) - 1) + 1);
}

/* Those that put relations in the place of others are few, and always of interest. */
static int
level_of_success(const WhJob *job, int64 ms)
{
	if (job->kind == WH_JOB_COMBINE_MONTH || job->kind == WH_JOB_COMBINE_YEAR ||
		job->kind == WH_JOB_CONVERT)
		return LOG;
	return wh_log_min_duration >= 0 && ms >= wh_log_min_duration ? LOG : DEBUG1;
}

void
wh_log_job_succeeded(const WhJob *job)
{
	WhLogFacts	facts = {
		.event = "job_succeeded",
		.has_counts = true, .rows = result.rows, .bytes = result.bytes,
		.has_duration = true, .ms = ms_since(job->started_at)
	};
	int			level = level_of_success(job, facts.ms);

	if (!message_level_is_interesting(level))
		return;
	say(level, 0, &facts,
		psprintf("job " INT64_FORMAT " succeeded after " INT64_FORMAT " ms: %s", job->job_id, facts.ms,
				 wh_queue_describe(job)),
		result.message[0] != '\0' ? result.message : NULL, NULL);
}

void
wh_log_job_ended_badly(const WhJob *job, const WhFailure *failure, WhOutcome outcome, WhPhase phase)
{
	static const char *const events[] = {"job_retried", "job_set_aside", "job_failed", "job_cancelled"};
	static const char *const words[] = {"is retried", "waits for its tenant", "failed", "was cancelled"};
	WhLogFacts	facts = {
		.event = events[outcome], .phase = wh_status_phase_name(phase),
		.has_counts = true,
		.has_duration = true, .ms = ms_since(job->started_at)
	};

	wh_status_get_progress(&facts.rows, &facts.bytes);
	say(outcome == WH_OUTCOME_FAILED ? WARNING : LOG, code_of(failure), &facts,
		psprintf("job " INT64_FORMAT " %s: %s", job->job_id, words[outcome], wh_queue_describe(job)),
		failure->message, NULL);
}

void
wh_log_job_lost(const WhJob *job, const char *message, bool failed)
{
	WhLogFacts	facts = {
		.event = failed ? "job_failed" : "job_retried",
		.job_id = job->job_id, .backfill_id = job->backfill_id, .schedule_id = job->schedule_id,
		.template_name = job->template_name, .tenant_name = job->tenant_name, .schema = job->target_schema,
		.has_duration = true, .ms = ms_since(job->started_at)
	};

	say(failed ? WARNING : LOG, ERRCODE_CRASH_SHUTDOWN, &facts,
		psprintf("job " INT64_FORMAT " %s: %s", job->job_id, failed ? "failed" : "is retried",
				 wh_queue_describe(job)),
		message, NULL);
}

/* ---- what the state of things has become ---- */

void
wh_log_tenant_set_aside(const char *tenant_name, int failures, const WhFailure *failure)
{
	WhLogFacts	facts = {.event = "tenant_set_aside", .tenant_name = tenant_name};

	say(WARNING, code_of(failure), &facts,
		psprintf("tenant \"%s\" is set aside after %d failures to connect", tenant_name, failures),
		failure->message,
		"Its jobs wait; one of them tries now and then. See _wh.tenant_health.");
}

void
wh_log_tenant_back(const char *tenant_name, int failures)
{
	WhLogFacts	facts = {.event = "tenant_back", .tenant_name = tenant_name};

	say(LOG, 0, &facts,
		psprintf("tenant \"%s\" can be reached again after %d failures to connect", tenant_name, failures),
		NULL, NULL);
}

void
wh_log_backfill_ended(int64 backfill_id, const char *template_name, const char *state, const char *error)
{
	bool		failed = strcmp(state, "failed") == 0;
	WhLogFacts	facts = {
		.event = psprintf("backfill_%s", state), .backfill_id = backfill_id,
		.template_name = template_name
	};

	say(failed ? WARNING : LOG, 0, &facts,
		psprintf("backfill " INT64_FORMAT " of template \"%s\" %s%s", backfill_id, template_name,
				 strcmp(state, "cancelled") == 0 ? "was " : "", state),
		error,
		failed ? psprintf("See _wh.job_status, then _wh.retry_failed(" INT64_FORMAT ").", backfill_id) : NULL);
}

void
wh_log_day_suspect(const char *day, const char *template_name, const char *tenant_name,
				   const char *suspicion, int64 rows, int64 bytes)
{
	WhLogFacts	facts = {
		.event = "day_suspect",
		.has_counts = true, .rows = rows, .bytes = bytes
	};

	say(WARNING, 0, &facts,
		psprintf("%s of template \"%s\" from tenant \"%s\" is suspect: %s", day, template_name,
				 tenant_name, suspicion),
		NULL, NULL);
}

void
wh_log_relations_missing(const char *template_name)
{
	WhLogFacts	facts = {.event = "relations_missing", .template_name = template_name};

	say(LOG, 0, &facts,
		psprintf("relations of template \"%s\" were taken away; its views are made again", template_name),
		NULL, NULL);
}

void
wh_log_retired(const char *what, const char *done, const char *tenant_name, const char *schema,
			   int64 rows, int64 bytes)
{
	WhLogFacts	facts = {
		.event = "relations_retired", .tenant_name = tenant_name, .schema = schema,
		.has_counts = true, .rows = rows, .bytes = bytes
	};

	say(LOG, 0, &facts, psprintf("%s: %s", what, done), NULL, NULL);
}

/* ---- schedules ---- */

void
wh_log_schedule(const WhLogSchedule *schedule)
{
	WhLogFacts	facts = {
		.template_name = schedule->template_name,
		.tenant_name = schedule->tenant_name, .schema = schedule->schema
	};
	int			level = strcmp(schedule->status, "disabled") == 0 ? WARNING :
		schedule->is_news ? LOG : DEBUG1;

	if (!message_level_is_interesting(level))
		return;
	facts.event = psprintf("schedule_%s", schedule->status);
	say(level, 0, &facts,
		psprintf("schedule \"%s\" %s: %s", schedule->name,
				 level == WARNING ? "is disabled" : schedule->status, schedule->message),
		NULL, NULL);
}

void
wh_log_schedule_error(int64 schedule_id, const ErrorData *error, bool transient)
{
	WhLogFacts	facts = {.event = "schedule_error"};

	say(transient ? LOG : WARNING, error->sqlerrcode, &facts,
		psprintf("schedule " INT64_FORMAT " could not be decided on: %s", schedule_id, error->message),
		error->detail, NULL);
}

void
wh_log_orphaned_files(const char *database, int files, int64 bytes)
{
	WhLogFacts	facts = {.event = "files_orphaned", .database = database};

	say(LOG, 0, &facts,
		psprintf("database \"%s\" has files of %.1f MB in all that belong to no relation: %d", database,
				 bytes / (1024.0 * 1024.0), files),
		NULL, "A crash while relations were made leaves such files. _wh.orphaned_files() lists them.");
}

/* ---- processes ---- */

/* Workers come and go; a launcher stays. */
static void
say_of_process(const char *event, const char *process, const char *what, const char *database)
{
	WhLogFacts	facts = {.event = psprintf("%s_%s", process, event)};

	say(strcmp(process, "launcher") == 0 ? LOG : DEBUG1, 0, &facts,
		psprintf("wh_worker %s %s in database \"%s\"", process, what, database), NULL, NULL);
}

void
wh_log_process_started(const char *process, const char *database)
{
	say_of_process("started", process, "starts", database);
}

void
wh_log_process_stopped(const char *process, const char *database)
{
	say_of_process("stopped", process, "stops", database);
}

void
wh_log_launcher_waits(const char *database, const char *why, const char *hint)
{
	WhLogFacts	facts = {.event = "launcher_waits", .database = database};

	say(LOG, 0, &facts,
		psprintf("wh_worker waits to start in database \"%s\": %s", database, why), NULL, hint);
}

void
wh_log_no_process(const char *database)
{
	WhLogFacts	facts = {.event = "worker_not_started"};

	say(WARNING, ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, &facts,
		psprintf("wh_worker cannot start a worker in database \"%s\": no background worker slot is free",
				 database),
		NULL, "Increase max_worker_processes.");
}
