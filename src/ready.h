/*
 * ready.h: the launcher's picture of the queue: which job is next.
 *
 * Pure data in the launcher's memory, rebuilt from _wh.jobs whenever in doubt;
 * reads no table and starts nothing.
 */
#ifndef WH_READY_H
#define WH_READY_H

#include "queue.h"

/* Forgets everything but whose turn it is. */
extern void wh_ready_reset(void);

/*
 * A tenant's switch, its cap on workers at once (0: the setting's) and the
 * windows of the day in which it is not read (NULL: none).
 */
extern void wh_ready_tenant(const char *tenant_name, bool active, int cap,
							const char *quiet_hours);

/* The tenants that could not be connected to: first none, then one by one. */
extern void wh_ready_all_reachable(void);
extern void wh_ready_unreachable(const char *tenant_name, TimestampTz retry_at);

/* Whether the tenant of a probe can be reached now: then it counts as one no more. */
extern bool wh_ready_probe_answered(const char *tenant_name);

/* A job that is known already is replaced if anything of it changed. */
extern void wh_ready_add(const WhQueued *job);

/* A job that a worker has: it counts for its tenant, class and backfill. */
extern void wh_ready_started(const WhQueued *job);
extern void wh_ready_finished(const WhQueued *job);

/*
 * Takes out the next job, and counts it as started.  A backfill's jobs and all
 * others share the workers as the head of ready.c says; in these classes the
 * lowest priority goes first, in it the tenant served longest ago, in it the
 * lowest sequence number.  "keep_tenant" is preferred within a priority if not
 * NULL: its connection is open in the worker that asks.  "worker" tells the workers
 * apart: a job that another one is promised is left to it if there is one like it.
 */
extern bool wh_ready_pick(const char *keep_tenant, int worker, WhQueued *job);

/*
 * The job of a backfill that would be next for the same tenant, which the worker that
 * has "job" may expect, or 0.  That binds nobody; a worker has one promise at most.
 */
extern int64 wh_ready_promise(const WhQueued *job, int worker);
extern void wh_ready_forget_promise(int64 job_id);

/* How many more jobs could start now, caps considered; at most "limit". */
extern int	wh_ready_startable(int limit);

/* When the next waiting job may start, at the earliest; DT_NOEND if none waits. */
extern TimestampTz wh_ready_next_due(void);

/* Jobs of a backfill known here: queued or with a worker. */
extern int64 wh_ready_outstanding(int64 backfill_id);

#endif
