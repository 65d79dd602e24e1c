/*
 * combine_job.h: a job that combines a month or a year.
 */
#ifndef WH_COMBINE_JOB_H
#define WH_COMBINE_JOB_H

#include "queue.h"

/*
 * Called by a worker in a transaction, which it commits: what wh_combine()
 * does, and the success of the job.  Raises what that raises.
 */
extern void wh_combine_job(const WhJob *job);

#endif
