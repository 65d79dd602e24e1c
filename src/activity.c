/*
 * activity.c: what a process of ours does, in pg_stat_activity and in the
 * process title.
 *
 * Exists because whoever looks for what loads a server looks there, or into ps,
 * before he knows of _wh.worker_status: the query of a worker says its job and its
 * phase, as in
 *
 *     wh_worker: refresh foodlogstats 2025-07-04 from tenant_a into tenant_a, fetching
 *
 * PostgreSQL shows a query to its own role and to those who may see all of them.
 * The application_name it shows to everybody, so no name of a tenant is in that.
 *
 * Called by worker.c and status.c.  May not raise: phases change while an error is
 * handled.  Takes no lock.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/ps_status.h"

#include "activity.h"
#include "plain_text.h"

#define PREFIX "wh_worker: "
#define JOB_BYTES 300

static char job_text[JOB_BYTES] = "";	/* empty: no job */

static void
show(const char *phase)
{
	char		text[sizeof(PREFIX) + JOB_BYTES + 32];

	snprintf(text, sizeof(text), PREFIX "%s, %s", job_text, phase);
	pgstat_report_activity(STATE_RUNNING, text);
	set_ps_display(text + strlen(PREFIX));
}

void
wh_activity_job(const WhJob *job)
{
	char	   *text;

	if (job == NULL)
	{
		job_text[0] = '\0';
		pgstat_report_activity(STATE_IDLE, NULL);
		set_ps_display("idle");
		return;
	}
	text = wh_plain_text(wh_queue_describe(job));
	strlcpy(job_text, text, pg_mbcliplen(text, strlen(text), JOB_BYTES - 1) + 1);
	show("starting");
}

void
wh_activity_phase(WhPhase phase)
{
	if (job_text[0] != '\0' && phase != WH_PHASE_IDLE)
		show(wh_status_phase_name(phase));
}

void
wh_activity_cycle(bool at_work)
{
	if (at_work)
		pgstat_report_activity(STATE_RUNNING, PREFIX "looks for what is next");
	else
		pgstat_report_activity(STATE_IDLE, NULL);
}
