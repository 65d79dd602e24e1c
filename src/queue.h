/*
 * queue.h: the durable queue.  queue.c has the only SQL on _wh.jobs that
 * changes the state of a single job; backfill.c enqueues and cancels in bulk.
 */
#ifndef WH_QUEUE_H
#define WH_QUEUE_H

#include "datatype/timestamp.h"
#include "utils/date.h"

#include "error.h"

#define WH_PRIORITY_PUBLISH 20
#define WH_PRIORITY_BACKFILL 40

typedef struct WhJob
{
	int64		job_id;
	int64		backfill_id;	/* 0: none */
	bool		is_publish;
	char	   *template_name;
	char	   *tenant_name;	/* NULL for publish */
	char	   *target_schema;	/* NULL for publish */
	DateADT		target_date;
	int32		attempt;
	TimestampTz started_at;
} WhJob;

/* A queued job as the launcher orders it. */
typedef struct WhQueued
{
	int64		job_id;
	int64		backfill_id;
	char		tenant_name[NAMEDATALEN];	/* empty for publish */
	int16		priority;
	int64		sequence_number;
	TimestampTz not_before;
} WhQueued;

typedef void (*WhQueuedCallback) (const WhQueued *job, void *arg);

/*
 * Calls back for each queued job with an id in the range whose backfill is
 * not paused.  Needs a transaction.
 */
extern void wh_queue_read(int64 first, int64 last, WhQueuedCallback callback, void *arg);

/* queued -> running; NULL when somebody else was faster or it was cancelled. */
extern WhJob *wh_queue_claim(int64 job_id);

/* running -> succeeded, with its history row; part of the job's own commit. */
extern void wh_queue_succeed(const WhJob *job, int64 rows, int64 bytes);

typedef enum WhOutcome
{
	WH_OUTCOME_RETRY,
	WH_OUTCOME_FAILED,
	WH_OUTCOME_CANCELLED,
} WhOutcome;

/* running -> queued, failed or cancelled, with its history row. */
extern WhOutcome wh_queue_record_failure(const WhJob *job, const WhFailure *failure,
										 const char *phase);

/*
 * running without an owner -> queued again, or failed when it has lost its
 * worker max_attempts times.  job_id 0: every such job.
 */
extern void wh_queue_recover(int64 job_id);

/* A publish job for the template unless one is pending; true if made. */
extern bool wh_queue_enqueue_publish(const char *template_name, int64 backfill_id);

/* What a job does, for people: "refresh t 2025-01-31 from a into s". */
extern char *wh_queue_describe(const WhJob *job);

/*
 * Deletes finished jobs, their history and ended backfills after history_days;
 * true when there may be more to delete.
 */
extern bool wh_queue_prune(void);

#endif
