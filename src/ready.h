/*
 * ready.h: the launcher's picture of the queue: which job is next.
 *
 * Pure data in the launcher's memory, rebuilt from _wh.jobs whenever in doubt;
 * reads no table and starts nothing.
 */
#ifndef WH_READY_H
#define WH_READY_H

#include "queue.h"

/* Forgets everything. */
extern void wh_ready_reset(void);

/* A tenant's switch and its cap on workers at once (0: the setting's). */
extern void wh_ready_tenant(const char *tenant_name, bool active, int cap);

extern void wh_ready_add(const WhQueued *job);

/* A job that a worker has: it counts for its tenant and its backfill. */
extern void wh_ready_started(const char *tenant_name, int64 backfill_id);
extern void wh_ready_finished(const char *tenant_name, int64 backfill_id);

/*
 * Takes out the next job, and counts it as started: the lowest priority class,
 * in it the tenant served longest ago, in it the lowest sequence number.
 * "keep_tenant" is preferred within the class if not NULL: its connection is
 * open in the worker that asks.
 */
extern bool wh_ready_pick(const char *keep_tenant, WhQueued *job);

/* How many more jobs could start now, caps considered; at most "limit". */
extern int	wh_ready_startable(int limit);

/* When the next waiting job may start; DT_NOEND if none waits. */
extern TimestampTz wh_ready_next_due(void);

/* Jobs of a backfill known here: queued or with a worker. */
extern int64 wh_ready_outstanding(int64 backfill_id);

#endif
