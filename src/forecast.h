/*
 * forecast.h: the warehouse as it is now, as far as it says when which
 * subscription is loaded next.  Between forecast*.c only.
 *
 * Texts point into rows of SPI, and are there until its end.
 */
#ifndef WH_FORECAST_H
#define WH_FORECAST_H

#include "datatype/timestamp.h"
#include "utils/date.h"

/* How classes of jobs share the workers: index of what is kept for each. */
#define WH_FORECAST_OTHERS 0
#define WH_FORECAST_BACKFILLS 1
#define WH_FORECAST_CLASSES 2

typedef struct WhForecastTenant
{
	int			number;			/* from 1 */
	text	   *quiet_hours;	/* NULL: none */
	int			cap;			/* workers at once */
	bool		is_away;
	TimestampTz away_since;		/* -infinity: in its quiet hours */
	TimestampTz back_at;
	int			running[WH_FORECAST_CLASSES];
	double		seconds_left[WH_FORECAST_CLASSES];
} WhForecastTenant;

typedef struct WhForecastJob
{
	int64		job_id;
	struct WhForecastUnit *unit;	/* NULL: none */
	WhForecastTenant *tenant;	/* never NULL: what waits for no tenant has one of its own */
	bool		is_running;
	bool		is_first;		/* of the first day that is not complete */
	bool		is_next;		/* would move complete_until on */
	bool		counts;			/* waits, and could start now */
	int			class;
	int			priority;
	int64		sequence_number;
	TimestampTz enqueued_at;
	TimestampTz may_start_at;	/* moments of the server's clock */
	TimestampTz started_at;
	TimestampTz first_started_at;
	bool		was_started;	/* whether first_started_at is known */
	double		run_seconds;	/* how long it is expected to take */
	double		seconds_left;	/* of one that runs */

	/* written by wh_forecast_queue() */
	int64		turn;			/* from 1, among those of its tenant and priority */
	int64		tenant_place;	/* jobs of its tenant up to it, and what they take */
	double		tenant_seconds;
	double		wait_seconds;	/* until a worker takes it */
} WhForecastJob;

typedef struct WhForecastUnit
{
	Datum		tenant_name;
	Datum		template_name;
	Datum		target_schema;
	WhForecastTenant *tenant;	/* NULL: none */
	bool		active;
	int64		missing_days;
	int64		suspect_days;
	int64		failed_days;
	bool		is_failing;
	TimestampTz failing_since;
	TimestampTz complete_until;
	DateADT		day;			/* the first that is not complete */
	bool		has_no_hole;
	Datum		fresh_within;	/* 0: no promise */
	Datum		fresh_after;	/* 0: the template is not there */
	TimestampTz counts_from;	/* a load that begins earlier is none */
	bool		run_known;
	bool		queue_known;
	double		run_seconds;
	double		queue_seconds;
	bool		has_next_run;
	TimestampTz next_run;
	TimestampTz counting_run;	/* infinity: none */

	/* written by wh_forecast_queue() */
	WhForecastJob *next_job;	/* NULL: none */
} WhForecastUnit;

typedef struct WhForecast
{
	TimestampTz moment;			/* the statement's start, by the server's clock */
	TimestampTz now;			/* the same by the clock of schedules */
	int64		ahead;			/* of the server's, in microseconds */
	DateADT		today;
	bool		goes_on;
	double		run_seconds;	/* of loads anywhere */
	double		queue_seconds;
	WhForecastUnit *units;
	int			nunits;
	WhForecastJob *jobs;
	int			njobs;
} WhForecast;

/* A moment that may be infinite, and microseconds. */
static inline TimestampTz
wh_forecast_after(TimestampTz moment, int64 usecs)
{
	return TIMESTAMP_NOT_FINITE(moment) ? moment : moment + usecs;
}

/* Reads it, of what the calling statement sees; SPI is connected. */
extern void wh_forecast_read(WhForecast *forecast);

/* Where in the queue the pending jobs are, and which of them each subscription waits for. */
extern void wh_forecast_queue(WhForecast *forecast);

#endif
