/*
 * queue.c: the states of a job: queued, running, succeeded, failed, cancelled.
 *
 * Called by the launcher (read, recover, prune) and by workers (claim,
 * succeed, record).  All SQL here runs in the caller's transaction and locks
 * one row of _wh.jobs before anything else.  A claim looks a job up by its
 * key: with a queue of hundred thousands and a load that keeps its snapshot
 * for minutes, every scan for "the next queued one" would wade through the
 * dead versions of all jobs claimed since.  What is next is the launcher's
 * knowledge (launcher.c), what is true is the row's.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "event.h"
#include "guc.h"
#include "health.h"
#include "identity.h"
#include "log_event.h"
#include "metrics.h"
#include "queue.h"
#include "schedule.h"
#include "sqlutil.h"
#include "status.h"
#include "wh_worker.h"

#define PRUNE_ROWS 5000
#define HISTORY_ROWS 1000000
#define PUBLISH_AGAIN_MS 1000

/* What is said of a refresh that had nothing to load. */
#define UNCHANGED "unchanged"

static const char *const read_sql =
"SELECT j.job_id, j.backfill_id, CASE j.kind WHEN 'refresh' THEN j.tenant_name END,"
" j.priority, j.sequence_number, j.not_before"
"  FROM _wh.jobs j"
"  LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id"
" WHERE j.state = 'queued' AND j.job_id BETWEEN $1 AND $2"
"   AND NOT coalesce(b.paused AND j.kind = 'refresh' AND j.schedule_id IS NULL, false)";

/* A clock that was set back must not make a retry wait for hours. */
static void
pull_in(TimestampTz latest)
{
	WhArg		args[] = {WH_TSTZ(latest)};

	wh_query("UPDATE _wh.jobs SET not_before = $1 WHERE job_id IN (SELECT j.job_id"
			 " FROM _wh.jobs j WHERE j.state = 'queued' AND j.not_before > $1"
			 " FOR NO KEY UPDATE SKIP LOCKED)", lengthof(args), args);
}

static void
fill_queued(WhQueued *job, uint64 row)
{
	char	   *tenant = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, 3);

	job->job_id = wh_get_int8(row, 1);
	job->backfill_id = wh_get_int8(row, 2);
	strlcpy(job->tenant_name, tenant ? tenant : "", NAMEDATALEN);
	job->priority = (int16) wh_get_int8(row, 4);
	job->sequence_number = wh_get_int8(row, 5);
	job->not_before = wh_get_timestamptz(row, 6);
	job->is_probe = false;
}

void
wh_queue_read(int64 first, int64 last, WhQueuedCallback callback, void *arg)
{
	WhArg		args[] = {WH_INT8(first), WH_INT8(last)};
	TimestampTz latest = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 Max(wh_retry_delay_max, PUBLISH_AGAIN_MS));
	bool		any_later = false;
	uint64		n;

	wh_spi_begin();
	n = wh_query(read_sql, lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
	{
		WhQueued	job;

		fill_queued(&job, i);
		any_later = any_later || job.not_before > latest;
		job.not_before = Min(job.not_before, latest);
		callback(&job, arg);
	}
	if (any_later)
		pull_in(latest);
	wh_spi_end();
}

/*
 * A tenant whose connection was changed, or that was resumed, since it failed
 * may be asked at once; and so may all if the clock was set back.
 */
void
wh_queue_read_unreachable(WhUnreachableCallback callback)
{
	uint64		n;

	wh_spi_begin();
	n = wh_query("SELECT f.tenant_name, CASE WHEN c.updated_at > f.last_failure_at"
				 "   OR f.last_failure_at > clock_timestamp() THEN NULL ELSE f.retry_at END"
				 " FROM _wh.tenant_failures f JOIN _wh.tenant_connections c USING (tenant_name)",
				 0, NULL);
	for (uint64 i = 0; i < n; i++)
		callback(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1),
				 wh_isnull(i, 2) ? DT_NOBEGIN : wh_get_timestamptz(i, 2));
	wh_spi_end();
}

/* In the order of WhJobKind. */
static const char *const kind_names[] = {
	"refresh", "publish", "sql", "combine_month", "combine_year", "retention", "convert"
};

static WhJobKind
kind_from_name(const char *name)
{
	for (int i = 0; i < lengthof(kind_names); i++)
		if (strcmp(name, kind_names[i]) == 0)
			return (WhJobKind) i;
	elog(ERROR, "job of unknown kind %s", name);	/* cannot happen: a constraint */
}

const char *
wh_queue_kind_name(WhJobKind kind)
{
	return kind_names[kind];
}

bool
wh_queue_has_target(const WhJob *job)
{
	return job->kind == WH_JOB_REFRESH || job->kind == WH_JOB_COMBINE_MONTH ||
		job->kind == WH_JOB_COMBINE_YEAR || job->kind == WH_JOB_CONVERT;
}

/* What it says is asked for when it runs; NULL if its schedule has gone. */
static void
read_command(WhJob *job, MemoryContext cxt)
{
	WhArg		args[] = {WH_INT8(job->schedule_id)};

	if (wh_query("SELECT command, username, name FROM _wh.schedules WHERE schedule_id = $1",
				 1, args) == 0)
		return;
	job->command = wh_get_text(cxt, 0, 1);
	job->username = wh_get_text(cxt, 0, 2);
	job->schedule_name = wh_get_text(cxt, 0, 3);
}

/* The running backfills that want the day of a row of _wh.jobs. */
#define WHO_WANTS(jobs) \
" FROM _wh.backfills b" \
"  WHERE b.state = 'running' AND b.template_name = " jobs ".template_name" \
"   AND " jobs ".target_date BETWEEN b.start_date AND b.end_date" \
"   AND coalesce(b.tenant_name = " jobs ".tenant_name, true)" \
"   AND coalesce(b.target_schema = " jobs ".target_schema, true)"

/* What read_job() reads, of a row of _wh.jobs. */
#define JOB_COLUMNS \
"job_id, kind, template_name, tenant_name, target_schema, target_date," \
" backfill_id, attempt, started_at, schedule_id, reason," \
" kind = 'refresh' AND EXISTS (SELECT FROM _wh.tenant_failures f WHERE f.tenant_name = jobs.tenant_name)," \
" priority, kind = 'refresh' AND EXISTS (SELECT" WHO_WANTS("jobs") " AND b.mode = 'all')," \
" CASE kind WHEN 'refresh' THEN (SELECT max(b.backfill_id)" WHO_WANTS("jobs") ") END"

static WhJob *
read_job(uint64 row, MemoryContext cxt)
{
	WhJob	   *job = MemoryContextAllocZero(cxt, sizeof(WhJob));

	job->job_id = wh_get_int8(row, 1);
	job->kind = kind_from_name(wh_get_text(cxt, row, 2));
	job->template_name = wh_get_text(cxt, row, 3);
	job->tenant_name = wh_get_text(cxt, row, 4);
	job->target_schema = wh_get_text(cxt, row, 5);
	if (wh_queue_has_target(job))
		job->target_date = wh_get_date(row, 6);
	job->backfill_id = wh_get_int8(row, 7);
	job->attempt = (int32) wh_get_int8(row, 8);
	job->started_at = wh_get_timestamptz(row, 9);
	job->schedule_id = wh_get_int8(row, 10);
	job->reason = wh_get_text(cxt, row, 11);
	job->is_probe = wh_get_bool(row, 12);
	job->priority = wh_get_int4(row, 13);
	job->is_forced = wh_get_bool(row, 14);
	job->newest_request = wh_get_int8(row, 15);
	return job;
}

WhJob *
wh_queue_claim(int64 job_id)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_INT8(job_id), WH_INT4(MyProcPid), WH_TEXT(wh_identity_here())};
	WhJob	   *job = NULL;

	wh_spi_begin();
	/* Whoever has its row locked tells of it at his commit; a worker waits for nobody. */
	if (wh_query("UPDATE _wh.jobs"
				 "   SET state = 'running', attempt = attempt + 1, owner_pid = $2,"
				 "       first_started_at = coalesce(first_started_at, clock_timestamp()),"
				 "       started_at = clock_timestamp(), finished_at = NULL"
				 " WHERE job_id = (SELECT q.job_id FROM _wh.jobs q"
				 "   WHERE q.job_id = $1 AND q.state = 'queued' AND q.not_before <= clock_timestamp()"
				 "    AND EXISTS (SELECT FROM _wh.warehouse WHERE NOT paused AND identity = $3)"
				 "   FOR NO KEY UPDATE OF q SKIP LOCKED)"
				 " RETURNING " JOB_COLUMNS,
				 lengthof(args), args) == 1)
		job = read_job(0, cxt);
	if (job != NULL && job->kind == WH_JOB_SQL)
		read_command(job, cxt);
	wh_spi_end();
	return job;
}

bool
wh_queue_is_sequel(const WhJob *job, int64 other_job_id, WhSequel *sequel)
{
	WhArg		args[] = {
		WH_INT8(other_job_id), WH_TEXT(job->template_name), WH_TEXT(job->tenant_name),
		WH_TEXT(job->target_schema)
	};
	bool		is_sequel;

	wh_spi_begin();
	is_sequel = wh_query("SELECT q.target_date, (SELECT max(b.backfill_id)" WHO_WANTS("q") ")"
						 "  FROM _wh.jobs q"
						 " WHERE q.job_id = $1 AND q.state = 'queued' AND q.kind = 'refresh'"
						 "   AND q.template_name = $2 AND q.tenant_name = $3 AND q.target_schema = $4"
						 "   AND NOT EXISTS (SELECT FROM _wh.day_loads d"
						 "     WHERE d.template_name = $2 AND d.target_schema = $4"
						 "       AND d.target_date = q.target_date AND d.relation_oid IS NOT NULL)",
						 lengthof(args), args) == 1;
	sequel->job_id = is_sequel ? other_job_id : 0;
	if (is_sequel)
	{
		sequel->target_date = wh_get_date(0, 1);
		sequel->newest_request = wh_get_int8(0, 2);
	}
	wh_spi_end();
	return is_sequel;
}

char *
wh_queue_describe(const WhJob *job)
{
	if (job->kind == WH_JOB_PUBLISH)
		return psprintf("publish %s", job->template_name);
	if (job->kind == WH_JOB_SQL)
		return psprintf("sql %s", job->schedule_name ? job->schedule_name : "of a schedule that is gone");
	if (job->kind == WH_JOB_RETENTION)
		return psprintf("retention %s", job->template_name);
	if (job->kind == WH_JOB_COMBINE_MONTH || job->kind == WH_JOB_COMBINE_YEAR)
		return psprintf("combine %s %.*s of %s in %s", job->template_name,
						job->kind == WH_JOB_COMBINE_YEAR ? 4 : 7, wh_date_text(job->target_date),
						job->tenant_name, job->target_schema);
	if (job->kind == WH_JOB_CONVERT)
		return psprintf("convert %s %s of %s in %s", job->template_name,
						wh_date_text(job->target_date), job->tenant_name, job->target_schema);
	return psprintf("refresh %s %s from %s into %s", job->template_name,
					wh_date_text(job->target_date), job->tenant_name,
					job->target_schema);
}

/* The history row of an attempt, with its worker's pid; SPI is connected. */
static void
write_history(const WhJob *job, const char *status, const char *message,
			  const char *sqlstate, const char *phase, int64 rows, int64 bytes)
{
	WhArg		args[] = {
		WH_INT4(MyProcPid),
		WH_TEXT(job->kind == WH_JOB_SQL && job->command ? job->command : wh_queue_describe(job)),
		WH_TEXT(status),
		WH_TEXT(message), WH_TSTZ(job->started_at), WH_INT8(job->job_id),
		WH_TEXT(sqlstate), WH_TEXT(phase), WH_INT8(rows), WH_INT8(bytes),
		WH_TEXT(job->backfill_id ? psprintf("backfill " INT64_FORMAT, job->backfill_id) : job->reason),
		wh_arg_nullable(INT8OID, Int64GetDatum(job->schedule_id), job->schedule_id == 0),
		WH_TEXT(job->kind == WH_JOB_SQL && job->username ? job->username : GetUserNameFromId(GetUserId(), false))
	};

	wh_query("INSERT INTO _wh.job_run_details (job_pid, command, status, return_message,"
			 " start_time, end_time, job_id, sqlstate, phase, rows, bytes, reason, jobid, username)"
			 " VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6, $7, $8, $9, $10, $11, $12, $13)",
			 lengthof(args), args);
}

/* What came of a job that succeeded; SPI is connected. */
static char *
describe_success(const WhJob *job, int64 rows)
{
	WhArg		args[] = {
		WH_TEXT(job->template_name), WH_TEXT(job->target_schema), WH_DATE(job->target_date)
	};

	if (job->kind != WH_JOB_REFRESH)
		return NULL;
	if (wh_query("SELECT last_error FROM _wh.day_loads WHERE template_name = $1"
				 " AND target_schema = $2 AND target_date = $3 AND state = 'suspect'",
				 lengthof(args), args) == 0)
		return psprintf(INT64_FORMAT " rows", rows);
	return psprintf("suspect: %s", wh_get_text(CurrentMemoryContext, 0, 1));
}

static void
count(const WhJob *job, WhCountedResult result, int64 rows, int64 bytes)
{
	WhCounted	counted = {
		.kind = job->kind,.result = result,.template_name = job->template_name,
		.rows = job->kind == WH_JOB_REFRESH ? rows : 0,
		.bytes = job->kind == WH_JOB_REFRESH ? bytes : 0,
		.started_at = job->started_at
	};

	wh_metrics_count(&counted);
}

/* Those who listen, and at its end the schedule that made it; SPI is connected. */
static void
tell(const WhJob *job, const char *status, const char *message)
{
	wh_event_job(job, status, message != NULL && strcmp(message, UNCHANGED) == 0);
	if (job->schedule_id != 0 && strcmp(status, "retrying") != 0)
		wh_schedule_job_ended(job->schedule_id, message == NULL ? status :
							  psprintf("%s: %s", status, message));
}

void
wh_queue_succeed(const WhJob *job, int64 rows, int64 bytes, const char *message)
{
	WhArg		args[] = {WH_INT8(job->job_id)};

	wh_spi_begin();
	if (wh_query("UPDATE _wh.jobs j SET state = 'succeeded', finished_at = clock_timestamp(),"
				 " owner_pid = NULL, last_sqlstate = NULL, last_error = NULL,"
				 " (rows, bytes) = (SELECT d.rows, d.bytes FROM _wh.day_loads d"
				 "   WHERE j.kind = 'refresh' AND d.template_name = j.template_name"
				 "     AND d.target_schema = j.target_schema AND d.target_date = j.target_date AND d.job_id = j.job_id)"
				 " WHERE job_id = $1 AND state = 'running'", 1, args) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " is no longer ours to finish", job->job_id)));
	if (message == NULL)
		message = describe_success(job, rows);
	write_history(job, "succeeded", message, NULL, NULL, rows, bytes);
	tell(job, "succeeded", message);
	count(job, message != NULL && strcmp(message, UNCHANGED) == 0 ? WH_COUNTED_UNCHANGED :
		  WH_COUNTED_SUCCEEDED, rows, bytes);
	wh_log_job_result(rows, bytes, message);
	wh_spi_end();
}

void
wh_queue_unchanged(const WhJob *job)
{
	wh_queue_succeed(job, 0, 0, UNCHANGED);
}

/* Whether the attempt did not count, because its tenant is set aside; SPI is connected. */
static bool
note_health(const WhJob *job, const WhFailure *failure, bool connecting)
{
	if (job->kind != WH_JOB_REFRESH || failure->cancelled)
		return false;
	if (connecting && wh_health_concerns(failure))
		return wh_health_failed(job->tenant_name, failure);
	return false;
}

static WhOutcome
decide(const WhJob *job, const WhFailure *failure, bool connecting)
{
	if (failure->cancelled)
		return WH_OUTCOME_CANCELLED;
	if (note_health(job, failure, connecting))
		return WH_OUTCOME_SET_ASIDE;
	return failure->transient && job->attempt < wh_max_attempts ?
		WH_OUTCOME_RETRY : WH_OUTCOME_FAILED;
}

WhOutcome
wh_queue_record_failure(const WhJob *job, const WhFailure *failure, const char *phase,
						bool connecting)
{
	static const char *const states[] = {"queued", "queued", "failed", "cancelled"};
	static const char *const statuses[] = {"retrying", "retrying", "failed", "cancelled"};
	static const WhCountedResult results[] = {
		WH_COUNTED_RETRIED, WH_COUNTED_SET_ASIDE, WH_COUNTED_FAILED, WH_COUNTED_CANCELLED
	};
	WhOutcome	outcome;

	wh_spi_begin();
	outcome = decide(job, failure, connecting);
	{
		WhArg		args[] = {
			WH_INT8(job->job_id), WH_TEXT(states[outcome]),
			wh_arg_nullable(FLOAT8OID, Float8GetDatum(outcome == WH_OUTCOME_RETRY ?
													  wh_health_delay_ms(job->attempt - 1) : 0),
							outcome != WH_OUTCOME_RETRY),
			WH_TEXT(failure->sqlstate), WH_TEXT(failure->message),
			WH_INT4(outcome == WH_OUTCOME_SET_ASIDE ? 1 : 0)
		};

		wh_query("UPDATE _wh.jobs SET state = $2, owner_pid = NULL, attempt = attempt - $6,"
				 " not_before = coalesce(clock_timestamp() + $3 * interval '1 millisecond', '-infinity'),"
				 " finished_at = CASE WHEN $2 = 'queued' THEN NULL ELSE clock_timestamp() END,"
				 " last_sqlstate = $4, last_error = $5"
				 " WHERE job_id = $1 AND state = 'running'", lengthof(args), args);
	}
	write_history(job, statuses[outcome], failure->message, failure->sqlstate,
				  phase, 0, 0);
	tell(job, statuses[outcome], failure->message);
	count(job, results[outcome], 0, 0);
	wh_spi_end();

	if (outcome == WH_OUTCOME_RETRY || outcome == WH_OUTCOME_SET_ASIDE)
		wh_notify_jobs_on_commit(job->job_id, job->job_id);
	return outcome;
}

/*
 * The jobs of its schedules that nobody tried before this one have waited for
 * the tenant, not for a worker: nobody shall expect later that the queue is as
 * slow.
 */
static void
note_wait_for_tenant(const WhJob *job, TimestampTz away_since)
{
	WhArg		args[] = {WH_TEXT(job->tenant_name), WH_TSTZ(away_since), WH_INT8(job->job_id)};

	wh_query("WITH waiting AS ("
			 "  SELECT job_id FROM _wh.jobs WHERE state = 'queued' AND kind = 'refresh'"
			 "   AND tenant_name = $1 AND schedule_id IS NOT NULL AND first_started_at IS NULL"
			 "   FOR NO KEY UPDATE SKIP LOCKED)"
			 " UPDATE _wh.jobs j SET first_started_at = least(j.first_started_at, greatest(j.enqueued_at, $2))"
			 "  WHERE j.job_id IN (SELECT job_id FROM waiting UNION ALL SELECT $3)", lengthof(args), args);
}

void
wh_queue_probe_succeeded(const WhJob *job)
{
	TimestampTz away_since;

	wh_spi_begin();
	if (wh_health_reached(job->tenant_name, &away_since))
		note_wait_for_tenant(job, away_since);
	wh_spi_end();
	/* The launcher looks at who is unreachable whenever it hears of a job. */
	wh_notify_jobs_on_commit(job->job_id, job->job_id);
}

static void
recover_one(int64 job_id)
{
	WhArg		args[] = {WH_INT8(job_id), WH_INT4(wh_max_attempts)};
	const char *message = "its worker went away";
	const char *status;
	WhJob	   *job;

	/* One that somebody has locked is found again when the queue is reread. */
	if (wh_query("UPDATE _wh.jobs SET owner_pid = NULL,"
				 "  state = CASE WHEN attempt >= $2 THEN 'failed' ELSE 'queued' END,"
				 "  finished_at = CASE WHEN attempt >= $2 THEN clock_timestamp() END,"
				 "  last_sqlstate = '57P02', last_error = 'its worker went away'"
				 " WHERE job_id = (SELECT q.job_id FROM _wh.jobs q WHERE q.job_id = $1"
				 "  AND q.state = 'running' FOR NO KEY UPDATE SKIP LOCKED)"
				 " RETURNING " JOB_COLUMNS, lengthof(args), args) == 0)
		return;
	job = read_job(0, CurrentMemoryContext);
	if (job->kind == WH_JOB_SQL)
		read_command(job, CurrentMemoryContext);
	status = job->attempt >= wh_max_attempts ? "failed" : "retrying";
	write_history(job, status, message, "57P02", NULL, 0, 0);
	tell(job, status, message);
	count(job, job->attempt >= wh_max_attempts ? WH_COUNTED_FAILED : WH_COUNTED_RETRIED, 0, 0);
	wh_log_job_lost(job, message, job->attempt >= wh_max_attempts);
	wh_notify_jobs_on_commit(job_id, job_id);
}

void
wh_queue_recover(int64 job_id)
{
	wh_spi_begin();
	if (job_id != 0)
		recover_one(job_id);
	else
	{
		uint64		n = wh_query("SELECT job_id FROM _wh.jobs WHERE state = 'running'", 0, NULL);
		int64	   *ids = palloc(sizeof(int64) * (n + 1));

		for (uint64 i = 0; i < n; i++)
			ids[i] = wh_get_int8(i, 1);
		for (uint64 i = 0; i < n; i++)
			if (!wh_status_job_has_owner(ids[i]))
				recover_one(ids[i]);
	}
	wh_spi_end();
}

bool
wh_queue_enqueue_publish(const char *template_name, int64 backfill_id)
{
	WhArg		args[] = {
		WH_TEXT(template_name), WH_INT8(backfill_id), WH_INT4(WH_PRIORITY_PUBLISH)
	};
	bool		made;

	wh_spi_begin();
	/* At most one a second, whatever keeps its days from being published. */
	made = wh_query("INSERT INTO _wh.jobs (kind, template_name, backfill_id, priority, not_before)"
					" VALUES ('publish', $1, nullif($2, 0), $3, coalesce((SELECT max(p.started_at)"
					"  FROM _wh.jobs p WHERE p.kind = 'publish' AND p.template_name = $1"
					"   AND (p.backfill_id = $2 OR ($2 = 0 AND p.backfill_id IS NULL)))"
					"  + interval '1 second', '-infinity'))"
					" ON CONFLICT DO NOTHING RETURNING job_id", lengthof(args), args) == 1;
	if (made)
		wh_notify_jobs_on_commit(wh_get_int8(0, 1), wh_get_int8(0, 1));
	wh_spi_end();
	return made;
}

/*
 * The newest rows are counted only when there may be too many: numbers that
 * were given to no row are rare.  SPI is connected.
 */
static uint64
prune_history_rows(void)
{
	WhArg		args[] = {WH_INT8(HISTORY_ROWS), WH_INT4(PRUNE_ROWS)};

	if (wh_query("SELECT FROM _wh.job_run_details HAVING max(runid) - min(runid) >= $1",
				 1, args) == 0)
		return 0;
	return wh_query("DELETE FROM _wh.job_run_details WHERE runid IN (SELECT d.runid"
					" FROM _wh.job_run_details d WHERE d.runid <= (SELECT l.runid"
					"  FROM _wh.job_run_details l ORDER BY l.runid DESC OFFSET $1 LIMIT 1)"
					" ORDER BY d.runid LIMIT $2)", lengthof(args), args);
}

/*
 * A running backfill keeps its jobs, because its progress is counted from them.
 * In portions, so that the launcher is never away for long.
 */
bool
wh_queue_prune(void)
{
	WhArg		args[] = {WH_INT4(wh_history_days), WH_INT4(PRUNE_ROWS)};
	uint64		most;

	wh_spi_begin();
	most = wh_query("DELETE FROM _wh.jobs WHERE job_id IN (SELECT j.job_id FROM _wh.jobs j"
					" LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id"
					" WHERE j.state IN ('succeeded', 'failed', 'cancelled')"
					" AND j.finished_at < now() - $1 * interval '1 day'"
					" AND b.state IS DISTINCT FROM 'running' LIMIT $2)", lengthof(args), args);
	most = Max(most, wh_query("DELETE FROM _wh.job_run_details WHERE runid IN (SELECT runid"
							  " FROM _wh.job_run_details"
							  " WHERE end_time < now() - $1 * interval '1 day' LIMIT $2)",
							  lengthof(args), args));
	most = Max(most, prune_history_rows());
	wh_query("DELETE FROM _wh.tenant_failures f WHERE NOT EXISTS (SELECT"
			 " FROM _wh.tenant_connections c WHERE c.tenant_name = f.tenant_name)", 0, NULL);
	most = Max(most, wh_query("DELETE FROM _wh.backfills WHERE backfill_id IN (SELECT backfill_id"
							  " FROM _wh.backfills WHERE state <> 'running'"
							  " AND finished_at < now() - $1 * interval '1 day' LIMIT $2)",
							  lengthof(args), args));
	wh_spi_end();
	return most == PRUNE_ROWS;
}
