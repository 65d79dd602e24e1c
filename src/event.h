/*
 * event.h: NOTIFY wh_worker, with a JSON payload, for programs that listen.
 */
#ifndef WH_EVENT_H
#define WH_EVENT_H

#include "queue.h"

#define WH_EVENT_CHANNEL "wh_worker"

/* Each is sent when the caller's transaction commits; SPI is connected. */
extern void wh_event_job(const WhJob *job, const char *state, bool unchanged);
extern void wh_event_backfill(int64 backfill_id, const char *state);
extern void wh_event_tenant(const char *tenant_name, const char *state);

#endif
