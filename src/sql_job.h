/*
 * sql_job.h: an sql job, in a process of its own, as the role that scheduled it.
 */
#ifndef WH_SQL_JOB_H
#define WH_SQL_JOB_H

#include "queue.h"

/*
 * Called by a worker, outside a transaction.  Starts the process, waits for its
 * end on the latch with interrupts, and returns the number of rows that the
 * command says it touched.  Raises what the command raised, with its SQLSTATE;
 * 42501 if the role may not be used, 42704 if it is gone.  A cancel, a timeout
 * or the end of the worker ends the process.
 */
extern int64 wh_sql_job_run(const WhJob *job);

/*
 * "SELECT 1": what the last statement of the command that succeeded last said;
 * NULL if it had no statement.
 */
extern const char *wh_sql_job_tag(void);

/*
 * Whether the command that failed last may be run again by itself: not when a
 * part of it was committed, when it was ended by a person, or took too long.
 */
extern bool wh_sql_job_may_repeat(const WhFailure *failure);

/* The process. */
extern PGDLLEXPORT void wh_sql_job_main(Datum arg);

#endif
