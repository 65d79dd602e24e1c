/*
 * activity.h: what a process of ours does, in pg_stat_activity and in the
 * process title.
 */
#ifndef WH_ACTIVITY_H
#define WH_ACTIVITY_H

#include "queue.h"
#include "status.h"

/* A worker runs this job from now on; NULL: it is idle. */
extern void wh_activity_job(const WhJob *job);

/* By status.c, of any process; nothing where no job runs. */
extern void wh_activity_phase(WhPhase phase);

/* A launcher or the supervisor is at work, or at rest. */
extern void wh_activity_cycle(bool at_work);

#endif
