/*
 * freshness.h: what a subscription remembers so that its freshness can be told
 * without the ledger.  SPI is connected by the caller.
 */
#ifndef WH_FRESHNESS_H
#define WH_FRESHNESS_H

#include "utils/date.h"

/*
 * The moment up to which all data is there, by the ledger, and whether loads that
 * would move it on fail.  The caller has the advisory lock of the tenant view.
 */
extern void wh_freshness_follow(const char *template_name, const char *schema);

/* A load that a schedule queued is about to be committed: how long it waited and ran. */
extern void wh_freshness_loaded(int64 job_id);

/* A job failed for good to load a day, as the ledger has it already. */
extern void wh_freshness_failed(const char *template_name, const char *schema, DateADT date);

#endif
