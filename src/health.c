/*
 * health.c: tenants that keep refusing connections are set aside.
 *
 * The breaker of a tenant: closed while it can be reached; open from its third
 * failure in a row on, for a time that doubles with every further one; then
 * half-open, when one job may probe.  The row of _wh.tenant_failures is what
 * is known; ready.c, in the launcher, obeys it.
 *
 * Called by queue.c when an attempt failed and by a worker that probed.  Locks
 * the one row, last: a load that could not connect holds nothing a reader
 * feels.
 */
#include "postgres.h"

#include <math.h>

#include "event.h"
#include "guc.h"
#include "health.h"
#include "jitter.h"
#include "log_event.h"
#include "sqlutil.h"

/* Failures in a row from which on a tenant is set aside. */
#define FAILURES_TO_OPEN 3

double
wh_health_delay_ms(int doublings)
{
	double		delay = (double) wh_retry_delay * pow(2.0, Min(doublings, 30));

	return Min(delay, (double) wh_retry_delay_max) * (0.75 + 0.25 * wh_jitter());
}

/*
 * Whether it says that the tenant cannot be reached, rather than that it was
 * asked for the wrong thing: a wrong password is nothing to wait for.
 */
bool
wh_health_concerns(const WhFailure *failure)
{
	return !failure->cancelled &&
		(strncmp(failure->sqlstate, "08", 2) == 0 ||
		 strcmp(failure->sqlstate, "57P03") == 0 ||
		 strcmp(failure->sqlstate, "53300") == 0);
}

static int32
count_failure(const char *tenant_name, const WhFailure *failure)
{
	WhArg		args[] = {
		WH_TEXT(tenant_name), WH_TEXT(failure->sqlstate), WH_TEXT(failure->message)
	};

	/*
	 * One that was on its way when the tenant was set aside tells nothing new.
	 * What a clock that was set back since has written means nothing.
	 */
	wh_query("INSERT INTO _wh.tenant_failures AS f"
			 " (tenant_name, consecutive_failures, last_failure_at, last_sqlstate, last_error)"
			 " VALUES ($1, 1, clock_timestamp(), $2, $3)"
			 " ON CONFLICT (tenant_name) DO UPDATE SET"
			 "  consecutive_failures = f.consecutive_failures"
			 "   + CASE WHEN f.retry_at > clock_timestamp()"
			 "      AND f.last_failure_at <= clock_timestamp() THEN 0 ELSE 1 END,"
			 "  retry_at = CASE WHEN f.last_failure_at <= clock_timestamp() THEN f.retry_at END,"
			 "  last_failure_at = clock_timestamp(), last_sqlstate = $2, last_error = $3"
			 " RETURNING consecutive_failures", lengthof(args), args);
	return wh_get_int4(0, 1);
}

/* False if it had been set aside before. */
static bool
set_aside(const char *tenant_name, int32 failures)
{
	WhArg		args[] = {
		WH_TEXT(tenant_name),
		wh_arg(FLOAT8OID, Float8GetDatum(wh_health_delay_ms(failures - FAILURES_TO_OPEN)))
	};

	return wh_query("UPDATE _wh.tenant_failures"
					" SET retry_at = clock_timestamp() + $2 * interval '1 millisecond'"
					" WHERE tenant_name = $1 AND (retry_at IS NULL OR retry_at <= clock_timestamp())",
					lengthof(args), args) == 1;
}

bool
wh_health_failed(const char *tenant_name, const WhFailure *failure)
{
	int32		failures = count_failure(tenant_name, failure);

	if (failures < FAILURES_TO_OPEN)
		return false;
	if (set_aside(tenant_name, failures) && failures == FAILURES_TO_OPEN)
	{
		wh_event_tenant(tenant_name, "open");
		wh_log_tenant_set_aside(tenant_name, failures, failure);
	}
	return true;
}

bool
wh_health_reached(const char *tenant_name, TimestampTz *away_since)
{
	WhArg		args[] = {WH_TEXT(tenant_name)};
	int32		failures;

	if (wh_query("DELETE FROM _wh.tenant_failures WHERE tenant_name = $1"
				 " RETURNING consecutive_failures, first_failure_at", lengthof(args), args) == 0)
		return false;
	failures = wh_get_int4(0, 1);
	*away_since = wh_get_timestamptz(0, 2);
	if (failures < FAILURES_TO_OPEN)
		return false;
	wh_event_tenant(tenant_name, "closed");
	wh_log_tenant_back(tenant_name, failures);
	return true;
}
