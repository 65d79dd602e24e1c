/*
 * log_event.h: the lines of the server log, one for each thing that happened.
 * docs/operations.md lists them.
 */
#ifndef WH_LOG_EVENT_H
#define WH_LOG_EVENT_H

#include "queue.h"
#include "status.h"

/* ---- a job, told by its worker after the commit ---- */

extern void wh_log_job_started(const WhJob *job);

/* What came of the job at hand, for wh_log_job_succeeded(); message may be NULL. */
extern void wh_log_job_result(int64 rows, int64 bytes, const char *message);
extern void wh_log_job_succeeded(const WhJob *job);
extern void wh_log_job_ended_badly(const WhJob *job, const WhFailure *failure,
								   WhOutcome outcome, WhPhase phase);

/* By the launcher: its worker went away, and it is failed or queued again. */
extern void wh_log_job_lost(const WhJob *job, const char *message, bool failed);

/* ---- what the state of things has become ---- */

extern void wh_log_tenant_set_aside(const char *tenant_name, int failures, const WhFailure *failure);
extern void wh_log_tenant_back(const char *tenant_name, int failures);
extern void wh_log_backfill_ended(int64 backfill_id, const char *template_name, const char *state,
								  const char *error);
extern void wh_log_day_suspect(const char *day, const char *template_name, const char *tenant_name,
							   const char *suspicion, int64 rows, int64 bytes);
extern void wh_log_relations_missing(const char *template_name);
extern void wh_log_orphaned_files(const char *database, int files, int64 bytes);

/* "what" is the operation, as job_run_details has it, "done" what it did. */
extern void wh_log_retired(const char *what, const char *done, const char *tenant_name,
						   const char *schema, int64 rows, int64 bytes);

/* ---- schedules, within a WhLogContext that has their number ---- */

typedef struct WhLogSchedule
{
	const char *name;
	const char *template_name;	/* these three may be NULL */
	const char *tenant_name;
	const char *schema;
	const char *status;			/* enqueued, coalesced, skipped, disabled */
	const char *message;
	bool		is_news;		/* skipped for another reason than the last time */
} WhLogSchedule;

extern void wh_log_schedule(const WhLogSchedule *schedule);
extern void wh_log_schedule_error(int64 schedule_id, const ErrorData *error, bool transient);

/* ---- processes ---- */

extern void wh_log_process_started(const char *process, const char *database);
extern void wh_log_process_stopped(const char *process, const char *database);

/* hint may be NULL; once for each reason */
extern void wh_log_launcher_waits(const char *database, const char *why, const char *hint);
extern void wh_log_no_process(const char *database);

#endif
