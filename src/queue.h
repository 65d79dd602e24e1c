/*
 * queue.h: the durable queue.  queue.c has the only SQL on _wh.jobs that
 * changes the state of a single job; backfill.c enqueues and cancels in bulk.
 */
#ifndef WH_QUEUE_H
#define WH_QUEUE_H

#include "datatype/timestamp.h"
#include "utils/date.h"

#include "error.h"

/* Classes of jobs; the lower number runs first. */
#define WH_PRIORITY_INTERACTIVE 10	/* a person waits: a backfill of one day */
#define WH_PRIORITY_PUBLISH 20
#define WH_PRIORITY_TODAY 25	/* what a schedule wants fresh: today, yesterday; sql */
#define WH_PRIORITY_CATCH_UP 30 /* what a schedule found missing */
#define WH_PRIORITY_BACKFILL 40

typedef enum WhJobKind
{
	WH_JOB_REFRESH,
	WH_JOB_PUBLISH,
	WH_JOB_SQL,
	WH_JOB_COMBINE_MONTH,
	WH_JOB_COMBINE_YEAR,
	WH_JOB_RETENTION,
	WH_JOB_CONVERT,
} WhJobKind;

typedef struct WhJob
{
	int64		job_id;
	int64		backfill_id;	/* 0: none */
	int64		schedule_id;	/* 0: no schedule made it */
	WhJobKind	kind;
	char	   *template_name;	/* NULL for sql */
	char	   *tenant_name;	/* of a refresh, combination or conversion, else NULL */
	char	   *target_schema;
	DateADT		target_date;	/* of what is no refresh: the first day */
	char	   *command;		/* of an sql job, as its schedule has it now */
	char	   *username;		/* who runs it */
	char	   *schedule_name;
	char	   *reason;			/* why it was enqueued, or NULL */
	bool		is_probe;		/* its tenant could not be reached the last time */
	bool		is_forced;		/* a backfill that runs wants all days loaded again */
	int32		priority;
	int32		attempt;
	TimestampTz started_at;
	int64		newest_request; /* of the backfills that want the day of a refresh; 0: none */
} WhJob;

/* The day that is asked for while the one before it is loaded, and who wanted it then. */
typedef struct WhSequel
{
	int64		job_id;			/* 0: none */
	DateADT		target_date;
	int64		newest_request;
} WhSequel;

/* A queued job as the launcher orders it. */
typedef struct WhQueued
{
	int64		job_id;
	int64		backfill_id;
	char		tenant_name[NAMEDATALEN];	/* of a refresh, else empty */
	int16		priority;
	int64		sequence_number;
	TimestampTz not_before;
	bool		is_probe;		/* handed out to find out whether its tenant can be reached */
} WhQueued;

typedef void (*WhQueuedCallback) (const WhQueued *job, void *arg);

/*
 * Calls back for each queued job with an id in the range whose backfill is
 * not paused.  Needs a transaction.  What would have to wait longer than any
 * retry does, because the clock was set back, is pulled in.
 */
extern void wh_queue_read(int64 first, int64 last, WhQueuedCallback callback, void *arg);

/* queued -> running; NULL when somebody else was faster or it was cancelled. */
extern WhJob *wh_queue_claim(int64 job_id);

/*
 * Is the other job, which is queued, to load a new day of the same template, tenant
 * and schema?  What it is; of what is committed, and it may be cancelled any time.
 */
extern bool wh_queue_is_sequel(const WhJob *job, int64 other_job_id, WhSequel *sequel);

/*
 * running -> succeeded, with its history row; part of the job's own commit.
 * The message is what an sql job said; NULL: what a refresh is described by.
 */
extern void wh_queue_succeed(const WhJob *job, int64 rows, int64 bytes, const char *message);

/* The same for a refresh that had nothing to load. */
extern void wh_queue_unchanged(const WhJob *job);

typedef enum WhOutcome
{
	WH_OUTCOME_RETRY,
	WH_OUTCOME_SET_ASIDE,		/* waits for its tenant; the attempt does not count */
	WH_OUTCOME_FAILED,
	WH_OUTCOME_CANCELLED,
} WhOutcome;

/*
 * running -> queued, failed or cancelled, with its history row.  "connecting":
 * it did not get as far as being connected to its tenant.
 */
extern WhOutcome wh_queue_record_failure(const WhJob *job, const WhFailure *failure,
										 const char *phase, bool connecting);

/* A probe reached its tenant: the other jobs need not wait until it is done. */
extern void wh_queue_probe_succeeded(const WhJob *job);

/*
 * Calls back for each tenant that could not be connected to the last time, with
 * when it may be asked again.  Needs a transaction.
 */
typedef void (*WhUnreachableCallback) (const char *tenant_name, TimestampTz retry_at);
extern void wh_queue_read_unreachable(WhUnreachableCallback callback);

/*
 * running without an owner -> queued again, or failed when it has lost its
 * worker max_attempts times.  job_id 0: every such job.
 */
extern void wh_queue_recover(int64 job_id);

/* A publish job for the template unless one is pending; true if made. */
extern bool wh_queue_enqueue_publish(const char *template_name, int64 backfill_id);

extern const char *wh_queue_kind_name(WhJobKind kind);

/* Whether it has a tenant, a schema and a date; only a refresh reads the tenant. */
extern bool wh_queue_has_target(const WhJob *job);

/* What a job does, for people: "refresh t 2025-01-31 from a into s". */
extern char *wh_queue_describe(const WhJob *job);

/*
 * Deletes finished jobs, their history and ended backfills after history_days,
 * and of the history all but the newest million rows; true when there may be
 * more to delete.
 */
extern bool wh_queue_prune(void);

#endif
