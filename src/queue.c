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

#include <math.h>

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "guc.h"
#include "queue.h"
#include "sqlutil.h"
#include "status.h"
#include "wh_worker.h"

#define PRUNE_ROWS 5000

static const char *const read_sql =
"SELECT j.job_id, j.backfill_id, j.tenant_name, j.priority, j.sequence_number, j.not_before"
"  FROM _wh.jobs j"
"  LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id"
" WHERE j.state = 'queued' AND j.job_id BETWEEN $1 AND $2"
"   AND NOT coalesce(b.paused AND j.kind = 'refresh', false)";

void
wh_queue_read(int64 first, int64 last, WhQueuedCallback callback, void *arg)
{
	WhArg		args[] = {WH_INT8(first), WH_INT8(last)};
	uint64		n;

	wh_spi_begin();
	n = wh_query(read_sql, lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
	{
		WhQueued	job;
		char	   *tenant = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 3);

		job.job_id = wh_get_int8(i, 1);
		job.backfill_id = wh_get_int8(i, 2);
		strlcpy(job.tenant_name, tenant ? tenant : "", NAMEDATALEN);
		job.priority = (int16) wh_get_int8(i, 4);
		job.sequence_number = wh_get_int8(i, 5);
		job.not_before = wh_get_timestamptz(i, 6);
		callback(&job, arg);
	}
	wh_spi_end();
}

WhJob *
wh_queue_claim(int64 job_id)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_INT8(job_id), WH_INT4(MyProcPid)};
	WhJob	   *job = NULL;

	wh_spi_begin();
	if (wh_query("UPDATE _wh.jobs"
				 "   SET state = 'running', attempt = attempt + 1, owner_pid = $2,"
				 "       started_at = clock_timestamp(), finished_at = NULL"
				 " WHERE job_id = $1 AND state = 'queued' AND not_before <= clock_timestamp()"
				 "   AND NOT EXISTS (SELECT FROM _wh.warehouse WHERE paused)"
				 " RETURNING kind = 'publish', template_name, tenant_name, target_schema,"
				 "   target_date, backfill_id, attempt, started_at",
				 lengthof(args), args) == 1)
	{
		job = MemoryContextAllocZero(cxt, sizeof(WhJob));
		job->job_id = job_id;
		job->is_publish = wh_get_bool(0, 1);
		job->template_name = wh_get_text(cxt, 0, 2);
		job->tenant_name = wh_get_text(cxt, 0, 3);
		job->target_schema = wh_get_text(cxt, 0, 4);
		if (!job->is_publish)
			job->target_date = wh_get_date(0, 5);
		job->backfill_id = wh_get_int8(0, 6);
		job->attempt = (int32) wh_get_int8(0, 7);
		job->started_at = wh_get_timestamptz(0, 8);
	}
	wh_spi_end();
	return job;
}

char *
wh_queue_describe(const WhJob *job)
{
	if (job->is_publish)
		return psprintf("publish %s", job->template_name);
	return psprintf("refresh %s %s from %s into %s", job->template_name,
					wh_date_text(job->target_date), job->tenant_name,
					job->target_schema);
}

/* The history row of an attempt; SPI is connected. */
static void
write_history(const WhJob *job, const char *status, const char *message,
			  const char *sqlstate, const char *phase, int64 rows, int64 bytes)
{
	WhArg		args[] = {
		WH_INT4(MyProcPid), WH_TEXT(wh_queue_describe(job)), WH_TEXT(status),
		WH_TEXT(message), WH_TSTZ(job->started_at), WH_INT8(job->job_id),
		WH_TEXT(sqlstate), WH_TEXT(phase), WH_INT8(rows), WH_INT8(bytes),
		WH_TEXT(job->backfill_id ? psprintf("backfill " INT64_FORMAT, job->backfill_id) : NULL)
	};

	wh_query("INSERT INTO _wh.job_run_details (job_pid, command, status, return_message,"
			 " start_time, end_time, job_id, sqlstate, phase, rows, bytes, reason)"
			 " VALUES ($1, $2, $3, $4, $5, clock_timestamp(), $6, $7, $8, $9, $10, $11)",
			 lengthof(args), args);
}

/* What came of a job that succeeded; SPI is connected. */
static char *
describe_success(const WhJob *job, int64 rows)
{
	WhArg		args[] = {
		WH_TEXT(job->template_name), WH_TEXT(job->target_schema), WH_DATE(job->target_date)
	};

	if (job->is_publish)
		return NULL;
	if (wh_query("SELECT last_error FROM _wh.day_loads WHERE template_name = $1"
				 " AND target_schema = $2 AND target_date = $3 AND state = 'suspect'",
				 lengthof(args), args) == 0)
		return psprintf(INT64_FORMAT " rows", rows);
	return psprintf("suspect: %s", wh_get_text(CurrentMemoryContext, 0, 1));
}

void
wh_queue_succeed(const WhJob *job, int64 rows, int64 bytes)
{
	WhArg		args[] = {WH_INT8(job->job_id)};

	wh_spi_begin();
	if (wh_query("UPDATE _wh.jobs SET state = 'succeeded', finished_at = clock_timestamp(),"
				 " owner_pid = NULL, last_sqlstate = NULL, last_error = NULL"
				 " WHERE job_id = $1 AND state = 'running'", 1, args) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("job " INT64_FORMAT " is no longer ours to finish", job->job_id)));
	write_history(job, "succeeded", describe_success(job, rows), NULL, NULL, rows, bytes);
	wh_spi_end();
}

/* Exponential, with a ceiling and jitter, so that a fleet does not return at once. */
static double
retry_delay_ms(int32 attempt)
{
	double		delay = (double) wh_retry_delay * pow(2.0, Min(attempt - 1, 30));

	delay = Min(delay, (double) wh_retry_delay_max);
	return delay * (0.75 + 0.25 * pg_prng_double(&pg_global_prng_state));
}

WhOutcome
wh_queue_record_failure(const WhJob *job, const WhFailure *failure, const char *phase)
{
	static const char *const states[] = {"queued", "failed", "cancelled"};
	static const char *const statuses[] = {"retrying", "failed", "cancelled"};
	WhOutcome	outcome = WH_OUTCOME_FAILED;

	if (failure->cancelled)
		outcome = WH_OUTCOME_CANCELLED;
	else if (failure->transient && job->attempt < wh_max_attempts)
		outcome = WH_OUTCOME_RETRY;

	wh_spi_begin();
	{
		WhArg		args[] = {
			WH_INT8(job->job_id), WH_TEXT(states[outcome]),
			wh_arg(FLOAT8OID, Float8GetDatum(outcome == WH_OUTCOME_RETRY ?
											 retry_delay_ms(job->attempt) : 0)),
			WH_TEXT(failure->sqlstate), WH_TEXT(failure->message)
		};

		wh_query("UPDATE _wh.jobs SET state = $2, owner_pid = NULL,"
				 " not_before = clock_timestamp() + $3 * interval '1 millisecond',"
				 " finished_at = CASE WHEN $2 = 'queued' THEN NULL ELSE clock_timestamp() END,"
				 " last_sqlstate = $4, last_error = $5"
				 " WHERE job_id = $1 AND state = 'running'", lengthof(args), args);
	}
	write_history(job, statuses[outcome], failure->message, failure->sqlstate,
				  phase, 0, 0);
	wh_spi_end();

	if (outcome == WH_OUTCOME_RETRY)
		wh_notify_jobs_on_commit(job->job_id, job->job_id);
	return outcome;
}

static void
recover_one(int64 job_id)
{
	WhArg		args[] = {WH_INT8(job_id), WH_INT4(wh_max_attempts)};

	wh_query("WITH lost AS ("
			 " UPDATE _wh.jobs SET owner_pid = NULL,"
			 "  state = CASE WHEN attempt >= $2 THEN 'failed' ELSE 'queued' END,"
			 "  finished_at = CASE WHEN attempt >= $2 THEN clock_timestamp() END,"
			 "  last_sqlstate = '57P02', last_error = 'its worker went away'"
			 " WHERE job_id = $1 AND state = 'running'"
			 " RETURNING job_id, state, started_at, backfill_id, kind, template_name)"
			 " INSERT INTO _wh.job_run_details (command, status, return_message,"
			 "  start_time, end_time, job_id, sqlstate, reason)"
			 " SELECT kind || ' ' || template_name,"
			 "  CASE state WHEN 'queued' THEN 'retrying' ELSE 'failed' END,"
			 "  'its worker went away', started_at, clock_timestamp(), job_id, '57P02',"
			 "  'backfill ' || backfill_id FROM lost", lengthof(args), args);
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
	most = Max(most, wh_query("DELETE FROM _wh.backfills WHERE backfill_id IN (SELECT backfill_id"
							  " FROM _wh.backfills WHERE state <> 'running'"
							  " AND finished_at < now() - $1 * interval '1 day' LIMIT $2)",
							  lengthof(args), args));
	wh_spi_end();
	return most == PRUNE_ROWS;
}
