/*
 * rate.c: how fast a tenant may be read: max_rows_per_second and
 * max_bytes_per_second of its connection.
 *
 * What was read costs time: a row 1/max_rows_per_second, a byte likewise.  In
 * shared memory each tenant has a clock for each limit, up to which its time is
 * spent; whoever has read something moves the clocks on and waits until they
 * are reached.  So the limits hold for all workers of a tenant together.  What
 * is not read in a tenth of a second may be read later, because reading takes
 * time, too, and waits end late; nothing else is saved up.
 *
 * While we wait we do not read, the connection's buffers fill, and the tenant's
 * COPY stops sending.  The tenant is ahead of us by these buffers at most.
 *
 * Called by fetch_day.c for loads of the class backfill.  Waits on the latch,
 * obeys interrupts, and takes no lock but that of status.c, for a moment.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "storage/latch.h"

#include "rate.h"
#include "status.h"
#include "wait_event.h"

/* Less than this is not waited for: a wait has its price, too. */
#define LEAST_WAIT_US 20000

/* How far a clock may be behind; the rows of so much time may come at once. */
#define SAVED_US 100000

struct WhRate
{
	char	   *tenant_name;
	double		per_second[WH_LIMITS];	/* 0: no limit */
	int64		paid[WH_LIMITS];	/* rows and bytes that the clocks know of */
};

WhRate *
wh_rate_of(const WhTenant *tenant)
{
	WhRate	   *rate;

	if (tenant->max_rows_per_second == 0 && tenant->max_bytes_per_second == 0)
		return NULL;
	rate = palloc0(sizeof(WhRate));
	rate->tenant_name = pstrdup(tenant->name);
	rate->per_second[WH_LIMIT_ROWS] = tenant->max_rows_per_second;
	rate->per_second[WH_LIMIT_BYTES] = tenant->max_bytes_per_second;
	return rate;
}

/* The same for all processes, and never set. */
static int64
now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

/* What is not paid yet costs, in microseconds; the larger of both. */
static double
costs_of(const WhRate *rate, const int64 *read, double *costs)
{
	double		most = 0;

	for (int i = 0; i < WH_LIMITS; i++)
	{
		costs[i] = rate->per_second[i] == 0 ? 0 :
			(read[i] - rate->paid[i]) * 1000000.0 / rate->per_second[i];
		most = Max(most, costs[i]);
	}
	return most;
}

static void
wait_until(int64 until)
{
	int64		now;

	while ((now = now_us()) < until)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min((until - now + 999) / 1000, PG_INT32_MAX), wh_wait_event(WH_WAIT_TENANT_LIMIT));
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
pay(WhRate *rate, const int64 *read, const double *costs)
{
	int64		now = now_us();
	int64		until[WH_LIMITS];
	int			limit;

	wh_status_pay(rate->tenant_name, costs, now - SAVED_US, until);
	memcpy(rate->paid, read, sizeof(rate->paid));
	limit = until[WH_LIMIT_ROWS] >= until[WH_LIMIT_BYTES] ? WH_LIMIT_ROWS : WH_LIMIT_BYTES;
	wh_status_progress(read[WH_LIMIT_ROWS], read[WH_LIMIT_BYTES]);
	wh_status_held(until[limit] > now ? limit : WH_LIMITS);
	wait_until(until[limit]);
}

void
wh_rate_pause(WhRate *rate, int64 rows, int64 bytes)
{
	int64		read[WH_LIMITS] = {rows, bytes};
	double		costs[WH_LIMITS];

	if (costs_of(rate, read, costs) >= LEAST_WAIT_US)
		pay(rate, read, costs);
}

void
wh_rate_end(WhRate *rate, int64 rows, int64 bytes)
{
	int64		read[WH_LIMITS] = {rows, bytes};
	double		costs[WH_LIMITS];

	(void) costs_of(rate, read, costs);
	pay(rate, read, costs);
	wh_status_held(WH_LIMITS);
}
