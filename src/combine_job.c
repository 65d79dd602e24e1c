/*
 * combine_job.c: a job that combines a month or a year.
 *
 * Called by worker.c, in the one transaction that makes the table, drops its
 * days and ends the job.  Reads no tenant.  What a schedule queued may have
 * been combined by a person meanwhile: then there is nothing left to do.
 *
 * Locks: those of combine.c, then the row of the job.
 */
#include "postgres.h"

#include "utils/datetime.h"

#include "combine.h"
#include "combine_job.h"

void
wh_combine_job(const WhJob *job)
{
	WhCombine	combine = {0};
	int			month;
	int			day;

	combine.template_name = job->template_name;
	combine.tenant_name = job->tenant_name;
	combine.schema = job->target_schema;
	j2date(job->target_date + POSTGRES_EPOCH_JDATE, &combine.year, &month, &day);
	if (job->kind == WH_JOB_COMBINE_MONTH)
		combine.month = month;
	wh_combine(&combine);
	wh_queue_succeed(job, combine.rows, 0, wh_combine_summary(&combine));
}
