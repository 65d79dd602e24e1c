/*
 * forecast.c: when each subscription is expected to be loaded next, and why
 * what it has is not newer: expected_loads(), what data_freshness says beyond
 * counters.
 *
 * Called for views and metrics again and again, at thousands of subscriptions
 * and tens of thousands of jobs; so it reads each table once
 * (forecast_read.c), places the queue in memory (forecast_queue.c), and sees
 * what the calling statement sees.
 *
 * Moments of the server's clock (jobs, failures) are shown on the clock of
 * schedules, which only tests set to another time.
 *
 * Writes nothing, takes no lock of its own.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "utils/timestamp.h"

#include "forecast.h"
#include "guc.h"
#include "sqlutil.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_expected_loads);

#define COLUMNS 18

/*
 * Four moments, each not before the one before it: there is nothing newer than
 * the first; it was queued; it was started, or its tenant kept it from being; it
 * is running.
 */
typedef struct Steps
{
	TimestampTz since;
	TimestampTz queued;
	TimestampTz tried;
	TimestampTz running;
} Steps;

typedef struct Row
{
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS];
	int			n;
} Row;

static TimestampTz
seconds_after(TimestampTz moment, double seconds)
{
	return wh_forecast_after(moment, (int64) rint(seconds * 1000000.0));
}

/* ---- the next load ---- */

static TimestampTz
begins_at(const WhForecast *forecast, const WhForecastJob *job)
{
	return wh_forecast_after(job->is_running ? job->started_at : job->may_start_at, forecast->ahead);
}

static TimestampTz
done_at(const WhForecast *forecast, const WhForecastJob *job)
{
	if (job->is_running)
		return seconds_after(forecast->now, job->seconds_left);
	return seconds_after(begins_at(forecast, job), job->run_seconds + job->wait_seconds);
}

/* Of a schedule that is late the launcher has had no time for as long again. */
static TimestampTz
run_at(const WhForecast *forecast, const WhForecastUnit *unit)
{
	TimestampTz result = unit->counting_run;

	if (TIMESTAMP_IS_NOBEGIN(result))
		result = forecast->now;
	else if (result < forecast->now)
		result = forecast->now + (forecast->now - result);
	if (unit->tenant && unit->tenant->is_away)
		result = Max(result, unit->tenant->back_at);
	return result;
}

/*
 * What the schedule would load: it loads what is newer than all there is, heals
 * what its days reach, and moves up what waits in a backfill.
 */
static TimestampTz
scheduled_at(const WhForecast *forecast, const WhForecastUnit *unit, bool waits)
{
	TimestampTz result;

	if (waits && unit->next_job->class != WH_FORECAST_BACKFILLS)
		return DT_NOEND;
	if (!unit->has_no_hole && unit->day < forecast->today - Max(wh_catchup_days, 1))
		return DT_NOEND;
	result = run_at(forecast, unit);
	if (unit->tenant && unit->tenant->quiet_hours)
		result = wh_tenant_quiet_until(unit->tenant->quiet_hours, result);
	return seconds_after(result, unit->queue_seconds + unit->run_seconds);
}

static TimestampTz
predicted_at(const WhForecast *forecast, const WhForecastUnit *unit)
{
	const WhForecastJob *job = unit->next_job;
	bool		job_counts = job && begins_at(forecast, job) >= unit->counts_from;
	TimestampTz result;

	if (job_counts && job->is_running)
		return done_at(forecast, job);
	if (!forecast->goes_on || unit->is_failing)
		return DT_NOEND;
	result = scheduled_at(forecast, unit, job_counts);
	return job_counts ? Min(result, done_at(forecast, job)) : result;
}

/* ---- why there is nothing newer ---- */

static TimestampTz
queued_at(const WhForecast *forecast, const WhForecastUnit *unit)
{
	const WhForecastTenant *tenant = unit->tenant;
	TimestampTz result = forecast->now;

	if (unit->is_failing)
		result = Min(result, unit->failing_since);
	if (unit->next_job)
		return Min(result, wh_forecast_after(unit->next_job->enqueued_at, forecast->ahead));
	if (!unit->is_failing && tenant && tenant->is_away && !TIMESTAMP_IS_NOBEGIN(tenant->away_since))
		result = Min(result, tenant->away_since);
	return result;
}

static TimestampTz
tried_at(const WhForecast *forecast, const WhForecastUnit *unit)
{
	const WhForecastJob *job = unit->next_job;
	TimestampTz result = forecast->now;

	if (unit->is_failing)
		result = Min(result, unit->failing_since);
	if (job && job->was_started)
		result = Min(result, wh_forecast_after(job->first_started_at, forecast->ahead));
	if (!(job && job->is_running) && unit->tenant && unit->tenant->is_away)
		result = Min(result, unit->tenant->away_since);
	return result;
}

static Steps
steps_of(const WhForecast *forecast, const WhForecastUnit *unit)
{
	const WhForecastJob *job = unit->next_job;
	Steps		steps;

	steps.since = Min(unit->complete_until, forecast->now);
	steps.queued = Max(steps.since, queued_at(forecast, unit));
	steps.tried = Max(steps.queued, tried_at(forecast, unit));
	steps.running = job && job->is_running ?
		Max(steps.tried, Min(forecast->now, wh_forecast_after(job->started_at, forecast->ahead))) : forecast->now;
	return steps;
}

/* ---- rows ---- */

static void
put(Row *row, Datum value, bool is_null)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = is_null;
}

static void
put_text(Row *row, const char *value)
{
	put(row, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

/* Of an inactive subscription nothing is promised or expected. */
static void
put_time_between(Row *row, bool active, TimestampTz from, TimestampTz to)
{
	put(row, active ? DirectFunctionCall2(timestamp_mi, TimestampTzGetDatum(to), TimestampTzGetDatum(from)) : (Datum) 0,
		!active);
}

static void
put_promise(Row *row, const WhForecast *forecast, const WhForecastUnit *unit)
{
	bool		promised = unit->active && unit->fresh_within != (Datum) 0;
	TimestampTz predicted = unit->active ? predicted_at(forecast, unit) : DT_NOEND;
	TimestampTz due = !promised ? DT_NOEND :
		DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(unit->counts_from),
												unit->fresh_within));

	put(row, TimestampTzGetDatum(due), !promised);
	put(row, TimestampTzGetDatum(predicted), !unit->active);
	put_text(row, !promised ? NULL : due <= forecast->now ? "stale" : predicted > due ? "at_risk" : "fresh");
}

static void
put_unit(ReturnSetInfo *rsinfo, const WhForecast *forecast, const WhForecastUnit *unit)
{
	Steps		steps = steps_of(forecast, unit);
	Row			row = {.n = 0};

	put(&row, unit->tenant_name, false);
	put(&row, unit->template_name, false);
	put(&row, unit->target_schema, false);
	put(&row, unit->fresh_within, unit->fresh_within == (Datum) 0);
	put(&row, unit->fresh_after, unit->fresh_after == (Datum) 0);
	put(&row, TimestampTzGetDatum(unit->next_run), !unit->has_next_run);
	put(&row, Int64GetDatum(unit->missing_days), false);
	put(&row, Int64GetDatum(unit->suspect_days), false);
	put(&row, Int64GetDatum(unit->failed_days), false);
	put(&row, TimestampTzGetDatum(unit->complete_until), false);
	put_time_between(&row, unit->active, steps.since, forecast->now);
	put_time_between(&row, unit->active, steps.since, steps.queued);
	put_time_between(&row, unit->active, steps.queued, steps.tried);
	put_time_between(&row, unit->active, steps.tried, steps.running);
	put_time_between(&row, unit->active, steps.running, forecast->now);
	put_promise(&row, forecast, unit);
	Assert(row.n == COLUMNS);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row.values, row.nulls);
}

Datum
wh_sql_expected_loads(PG_FUNCTION_ARGS)
{
	WhForecast	forecast = {0};

	wh_require_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	wh_spi_begin();
	wh_forecast_read(&forecast);
	wh_forecast_queue(&forecast);
	for (int i = 0; i < forecast.nunits; i++)
		put_unit((ReturnSetInfo *) fcinfo->resultinfo, &forecast, &forecast.units[i]);
	wh_spi_end();
	return (Datum) 0;
}
