/*
 * schedule.h: what is due, which days that means, by the ledger.
 *
 * All of it connects SPI itself and runs in the caller's transaction.
 */
#ifndef WH_SCHEDULE_H
#define WH_SCHEDULE_H

#include "datatype/timestamp.h"

/*
 * Called by due.c for a schedule whose next_run has come: enqueues what it
 * means, leaves a decision in job_run_details, and moves next_run on.  Returns
 * the new next_run; DT_NOEND if the schedule is gone, inactive or has none.
 * DT_NOBEGIN: its row is locked by somebody, ask again soon.
 */
extern TimestampTz wh_schedule_run(int64 schedule_id, TimestampTz now);

/*
 * The same for a schedule that could not be decided on: says so in its row and
 * in job_run_details.  DT_NOEND if its text is what is wrong.
 */
extern TimestampTz wh_schedule_failed(int64 schedule_id, TimestampTz now, const char *message);

/*
 * The clock or the setting of the zone is another one: no schedule shall wait
 * for longer than until its first run after now, and with "zone_changed" those
 * that name no zone wait for exactly that.  What is due stays due.  Without "all"
 * only those that could not be planned (their zone was not there).  False: some
 * rows were locked, ask again.
 */
extern bool wh_schedule_adjust(TimestampTz now, bool all, bool zone_changed);

/*
 * The schedules of a subscription, as far as it has none: a refresh, by the
 * template's column, and those that combine.  Returns how many were made.
 */
extern int	wh_schedule_subscription(const char *template_name, const char *tenant_name,
									 const char *schema);

/* The schedules of a subscription go with it; NULL: all of the tenant's. */
extern void wh_schedule_unsubscription(const char *template_name, const char *tenant_name,
									   const char *schema);

/* What came due and was skipped while the tenant was paused is due now. */
extern void wh_schedule_tenant_resumed(const char *tenant_name);

/* The last job that a schedule made has ended: shown as its last_status. */
extern void wh_schedule_job_ended(int64 schedule_id, const char *status);

#endif
