/*
 * health.h: tenants that keep refusing connections are set aside.
 *
 * closed (all is well), open (not asked before retry_at), half-open (one job
 * may probe).  Kept in _wh.tenant_failures; shown by _wh.tenant_health.
 */
#ifndef WH_HEALTH_H
#define WH_HEALTH_H

#include "utils/timestamp.h"

#include "error.h"

/* How long to wait before trying again: exponential, with a ceiling and jitter. */
extern double wh_health_delay_ms(int doublings);

/* Whether a failure while connecting says that the tenant cannot be reached. */
extern bool wh_health_concerns(const WhFailure *failure);

/*
 * A job could not connect.  True if the tenant is set aside because of it, or
 * still is: then the attempt does not count, and the job waits for the tenant.
 * In the caller's transaction; SPI is connected.
 */
extern bool wh_health_failed(const char *tenant_name, const WhFailure *failure);

/*
 * A connection was made: forgets the failures, if there were any.  True if the
 * tenant had been set aside; it was out of reach since *away_since then.  In the
 * caller's transaction; SPI is connected.
 */
extern bool wh_health_reached(const char *tenant_name, TimestampTz *away_since);

#endif
