/*
 * forecast_read.c: reads what a forecast needs: subscriptions, tenants,
 * schedules, the queue, days that are suspect or failed.
 *
 * Each table is read once, and rows find each other by name in hash tables:
 * to join them in SQL takes longer than all else.  Of the ledger only what
 * indexes of unusual days hold is read, so its size does not matter.
 *
 * Called by forecast.c; SPI is connected.  Writes nothing.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "forecast.h"
#include "guc.h"
#include "identity.h"
#include "schedule_check.h"
#include "sqlutil.h"

/* More than any statement here returns. */
#define MAX_COLUMNS 16

/* ---- rows by name ---- */

/* One or two texts. */
typedef struct RowName
{
	const char *first;
	const char *second;
	int			first_length;
	int			second_length;
} RowName;

typedef struct NameEntry
{
	RowName		name;
	void	   *row;
	uint32		hash;
	char		status;
} NameEntry;

static inline uint32
hash_name(RowName name)
{
	uint32		hash = hash_bytes((const unsigned char *) name.first, name.first_length);

	return name.second_length == 0 ? hash :
		hash_combine(hash, hash_bytes((const unsigned char *) name.second, name.second_length));
}

static inline bool
same_name(RowName a, RowName b)
{
	return a.first_length == b.first_length && a.second_length == b.second_length &&
		memcmp(a.first, b.first, a.first_length) == 0 && memcmp(a.second, b.second, a.second_length) == 0;
}

#define SH_PREFIX names
#define SH_ELEMENT_TYPE NameEntry
#define SH_KEY_TYPE RowName
#define SH_KEY name
#define SH_HASH_KEY(table, key) hash_name(key)
#define SH_EQUAL(table, a, b) same_name(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) (entry)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

static RowName
name_of(Datum first, Datum second)
{
	text	   *a = DatumGetTextPP(first);
	text	   *b = second == (Datum) 0 ? NULL : DatumGetTextPP(second);

	return (RowName) {.first = VARDATA_ANY(a),.first_length = VARSIZE_ANY_EXHDR(a),
		.second = b ? VARDATA_ANY(b) : "",.second_length = b ? VARSIZE_ANY_EXHDR(b) : 0};
}

static void *
find(names_hash *table, Datum first, Datum second)
{
	NameEntry  *entry = names_lookup(table, name_of(first, second));

	return entry ? entry->row : NULL;
}

static void
enter(names_hash *table, Datum first, Datum second, void *row)
{
	bool		found;

	names_insert(table, name_of(first, second), &found)->row = row;
}

/* ---- what is read ---- */

typedef struct Mean
{
	double		sum;
	int64		n;
} Mean;

typedef struct Template
{
	Datum		fresh_within;	/* 0: no promise */
	Datum		fresh_after;
	Mean		run;
	Mean		queue;
} Template;

typedef struct Reader
{
	WhForecast *forecast;
	names_hash *tenants;
	names_hash *templates;
	names_hash *units;
	WhForecastTenant *nobody;	/* whom jobs wait for that read no tenant */
	SPITupleTable *rows;		/* the result at hand */
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} Reader;

/* Runs a statement; next_row() gives its rows. */
static int
open_rows(Reader *reader, const char *sql, int nargs, const WhArg *args)
{
	uint64		n = wh_query_as_caller(sql, nargs, args);

	reader->rows = SPI_tuptable;
	Assert(reader->rows->tupdesc->natts <= MAX_COLUMNS);
	return (int) n;
}

static void
read_row(Reader *reader, int row)
{
	heap_deform_tuple(reader->rows->vals[row], reader->rows->tupdesc, reader->values, reader->nulls);
}

static void *
array_of(int n, Size size)
{
	return palloc_extended(Max(n, 1) * size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

static void
count(Mean *mean, double value)
{
	mean->sum += value;
	mean->n++;
}

/* Which of the first known values it is, as coalesce(). */
static double
known(bool is_known, double value, const Mean *mean, double otherwise)
{
	if (is_known)
		return value;
	return mean && mean->n > 0 ? mean->sum / mean->n : otherwise;
}

static void
read_clock(Reader *reader)
{
	WhForecast *forecast = reader->forecast;

	forecast->moment = GetCurrentStatementStartTimestamp();
	forecast->ahead = (int64) wh_debug_clock_offset * USECS_PER_SEC;
	forecast->now = forecast->moment + forecast->ahead;
	forecast->today = wh_clock_day_of(forecast->now);
	forecast->goes_on = wh_enabled && wh_identity_pause() == WH_RUNS;
}

/*
 * Since when it keeps its loads from starting, and when that is expected to end:
 * one that is out of reach stays so for as long again as it has been.
 */
static void
read_tenants(Reader *reader)
{
	WhForecast *forecast = reader->forecast;
	WhArg		args[] = {WH_TSTZ(forecast->moment), WH_TSTZ(forecast->now)};
	int			n = open_rows(reader, "SELECT t.tenant_name, t.quiet_hours, t.max_connections,"
							  " CASE WHEN NOT t.active THEN t.updated_at + k.ahead"
							  "   WHEN f.tenant_name IS NOT NULL THEN f.first_failure_at + k.ahead"
							  "   WHEN q.until > $2 THEN '-infinity' END,"
							  " CASE WHEN NOT t.active THEN 'infinity'"
							  "   WHEN f.tenant_name IS NOT NULL THEN k.ahead +"
							  "     greatest(f.retry_at, $1 + greatest($1 - f.first_failure_at, interval '0'))"
							  "   ELSE coalesce(q.until, $2) END"
							  "  FROM (SELECT $2 - $1 AS ahead) k"
							  " CROSS JOIN _wh.tenant_connections t"
							  " CROSS JOIN LATERAL (SELECT _wh.quiet_until(t.quiet_hours, $2) AS until OFFSET 0) q"
							  "  LEFT JOIN _wh.tenant_failures f ON f.tenant_name = t.tenant_name AND f.retry_at IS NOT NULL"
							  "   AND t.updated_at <= f.last_failure_at AND f.last_failure_at <= $1",
							  lengthof(args), args);
	WhForecastTenant *tenants = array_of(n + 1, sizeof(WhForecastTenant));

	reader->tenants = names_create(CurrentMemoryContext, n, NULL);
	for (int i = 0; i < n; i++)
	{
		WhForecastTenant *tenant = &tenants[i];

		read_row(reader, i);
		tenant->number = i + 1;
		tenant->quiet_hours = reader->nulls[1] ? NULL : DatumGetTextPP(reader->values[1]);
		tenant->cap = Max(Min(reader->nulls[2] ? wh_max_workers_per_tenant : DatumGetInt32(reader->values[2]),
							  wh_max_workers), 1);
		tenant->is_away = !reader->nulls[3];
		tenant->away_since = reader->nulls[3] ? 0 : DatumGetTimestampTz(reader->values[3]);
		tenant->back_at = DatumGetTimestampTz(reader->values[4]);
		enter(reader->tenants, reader->values[0], (Datum) 0, tenant);
	}
	reader->nobody = &tenants[n];
	reader->nobody->cap = wh_max_workers;
	TIMESTAMP_NOBEGIN(reader->nobody->back_at);
}

static void
read_templates(Reader *reader)
{
	int			n = open_rows(reader, "SELECT template_name, fresh_within, fresh_after FROM _wh.mv_templates", 0, NULL);
	Template   *templates = array_of(n, sizeof(Template));

	reader->templates = names_create(CurrentMemoryContext, n, NULL);
	for (int i = 0; i < n; i++)
	{
		read_row(reader, i);
		templates[i].fresh_within = reader->nulls[1] ? (Datum) 0 : reader->values[1];
		templates[i].fresh_after = reader->values[2];
		enter(reader->templates, reader->values[0], (Datum) 0, &templates[i]);
	}
}

/* "day" is the first that is not complete.  A load counts if it begins at "counts_from" or later. */
static void
read_unit(Reader *reader, WhForecastUnit *unit)
{
	const WhForecast *forecast = reader->forecast;
	Template   *template = find(reader->templates, reader->values[1], (Datum) 0);
	DateADT		start_date = DatumGetDateADT(reader->values[4]);

	unit->tenant_name = reader->values[0];
	unit->template_name = reader->values[1];
	unit->target_schema = reader->values[2];
	unit->tenant = find(reader->tenants, unit->tenant_name, (Datum) 0);
	unit->active = DatumGetBool(reader->values[3]);
	unit->missing_days = Max((int64) forecast->today - start_date + 1 - DatumGetInt64(reader->values[5]), 0);
	unit->complete_until = start_date * USECS_PER_DAY;
	if (!reader->nulls[7])
		unit->complete_until = Max(unit->complete_until, DatumGetTimestampTz(reader->values[7]));
	unit->day = wh_clock_day_of(unit->complete_until);
	unit->has_no_hole = reader->nulls[6] || unit->day >= DatumGetDateADT(reader->values[6]);
	unit->is_failing = !reader->nulls[8];
	if (unit->is_failing)
		unit->failing_since = wh_forecast_after(DatumGetTimestampTz(reader->values[8]), forecast->ahead);
	unit->fresh_within = template ? template->fresh_within : (Datum) 0;
	unit->fresh_after = template ? template->fresh_after : (Datum) 0;
	unit->counts_from = template && strcmp(TextDatumGetCString(template->fresh_after), "day") == 0 ?
		(unit->day + 1) * USECS_PER_DAY : unit->complete_until;
	unit->counting_run = DT_NOEND;
	unit->run_known = !reader->nulls[9];
	unit->queue_known = !reader->nulls[10];
	if (unit->run_known)
		unit->run_seconds = DatumGetFloat8(reader->values[9]);
	if (unit->queue_known)
		unit->queue_seconds = DatumGetFloat8(reader->values[10]);
}

/* What no load of a subscription has told is as elsewhere. */
static void
guess_durations(Reader *reader)
{
	WhForecast *forecast = reader->forecast;
	Mean		run = {0};
	Mean		queue = {0};

	for (int i = 0; i < forecast->nunits; i++)
	{
		WhForecastUnit *unit = &forecast->units[i];
		Template   *template = find(reader->templates, unit->template_name, (Datum) 0);

		if (unit->run_known)
			count(&run, unit->run_seconds);
		if (unit->queue_known)
			count(&queue, unit->queue_seconds);
		if (template && unit->run_known)
			count(&template->run, unit->run_seconds);
		if (template && unit->queue_known)
			count(&template->queue, unit->queue_seconds);
	}
	forecast->run_seconds = known(false, 0, &run, 0);
	forecast->queue_seconds = known(false, 0, &queue, 0);
	for (int i = 0; i < forecast->nunits; i++)
	{
		WhForecastUnit *unit = &forecast->units[i];
		Template   *template = find(reader->templates, unit->template_name, (Datum) 0);

		unit->run_seconds = known(unit->run_known, unit->run_seconds, template ? &template->run : NULL, forecast->run_seconds);
		unit->queue_seconds = known(unit->queue_known, unit->queue_seconds, template ? &template->queue : NULL,
									forecast->queue_seconds);
	}
}

static void
read_units(Reader *reader)
{
	WhForecast *forecast = reader->forecast;

	forecast->nunits = open_rows(reader, "SELECT tenant_name, template_name, target_schema, active, start_date,"
								 " days_since_start, data_through, complete_until, failing_since, run_seconds, queue_seconds"
								 "  FROM _wh.tenant_templates", 0, NULL);
	forecast->units = array_of(forecast->nunits, sizeof(WhForecastUnit));
	reader->units = names_create(CurrentMemoryContext, forecast->nunits, NULL);
	for (int i = 0; i < forecast->nunits; i++)
	{
		read_row(reader, i);
		read_unit(reader, &forecast->units[i]);
		enter(reader->units, reader->values[1], reader->values[2], &forecast->units[i]);
	}
	guess_durations(reader);
}

/* ---- what there is of each subscription ---- */

/* The next run that would be a load that counts; infinity if there is none. */
static TimestampTz
counting_run(const Reader *reader, const WhForecastUnit *unit)
{
	WhTiming	timing;

	if (!reader->nulls[3] && DatumGetTimestampTz(reader->values[3]) >= unit->counts_from)
		return DatumGetTimestampTz(reader->values[3]);
	if (!wh_schedule_try_parse(TextDatumGetCString(reader->values[4]), TextDatumGetCString(reader->values[5]),
							   reader->nulls[6] ? NULL : TextDatumGetCString(reader->values[6]), &timing))
		return DT_NOEND;
	return wh_cron_next(&timing.cron, timing.zone, wh_forecast_after(unit->counts_from, -USECS_PER_SEC));
}

static void
read_schedules(Reader *reader)
{
	int			n = open_rows(reader, "SELECT template_name, target_schema, tenant_name, next_run, schedule, name, timezone"
							  "  FROM _wh.schedules WHERE kind = 'refresh' AND active", 0, NULL);

	for (int i = 0; i < n; i++)
	{
		WhForecastUnit *unit;

		read_row(reader, i);
		unit = find(reader->units, reader->values[0], reader->values[1]);
		if (unit == NULL || !same_name(name_of(unit->tenant_name, (Datum) 0), name_of(reader->values[2], (Datum) 0)))
			continue;
		unit->counting_run = Min(unit->counting_run, counting_run(reader, unit));
		if (reader->nulls[3])
			continue;
		unit->next_run = unit->has_next_run ? Min(unit->next_run, DatumGetTimestampTz(reader->values[3])) :
			DatumGetTimestampTz(reader->values[3]);
		unit->has_next_run = true;
	}
}

static void
read_unusual_days(Reader *reader)
{
	int			n = open_rows(reader, "SELECT template_name, target_schema, count(*) FROM _wh.day_loads"
							  " WHERE state = 'suspect' GROUP BY 1, 2", 0, NULL);
	WhForecastUnit *unit;

	for (int i = 0; i < n; i++)
	{
		read_row(reader, i);
		if ((unit = find(reader->units, reader->values[0], reader->values[1])) != NULL)
			unit->suspect_days = DatumGetInt64(reader->values[2]);
	}
	n = open_rows(reader, "SELECT template_name, target_schema, count(*) FROM _wh.day_loads"
				  " WHERE failed_at IS NOT NULL GROUP BY 1, 2", 0, NULL);
	for (int i = 0; i < n; i++)
	{
		read_row(reader, i);
		if ((unit = find(reader->units, reader->values[0], reader->values[1])) != NULL)
			unit->failed_days = DatumGetInt64(reader->values[2]);
	}
}

/* ---- the queue ---- */

/* Whether a load of that date would move complete_until on. */
static void
compare_with_unit(const Reader *reader, WhForecastJob *job, bool is_load)
{
	const WhForecastUnit *unit = job->unit;
	DateADT		target_date;

	if (unit == NULL || !is_load)
		return;
	target_date = DatumGetDateADT(reader->values[4]);
	job->is_first = target_date == unit->day;
	job->is_next = job->is_first || (target_date > unit->day && unit->has_no_hole);
}

/*
 * It counts for what comes after it if it could start now.  What has run longer
 * than usual is expected to run on for as long as it is late.
 */
static void
read_job(const Reader *reader, WhForecastJob *job)
{
	const WhForecast *forecast = reader->forecast;
	const Datum *values = reader->values;
	const bool *nulls = reader->nulls;
	bool		is_load = DatumGetBool(values[0]);

	job->job_id = DatumGetInt64(values[5]);
	job->is_running = DatumGetBool(values[1]);
	job->unit = nulls[2] || nulls[3] ? NULL : find(reader->units, values[2], values[3]);
	job->tenant = is_load && job->unit && job->unit->tenant ? job->unit->tenant : reader->nobody;
	compare_with_unit(reader, job, is_load);
	job->priority = DatumGetInt16(values[6]);
	job->class = job->priority >= 40 ? WH_FORECAST_BACKFILLS : WH_FORECAST_OTHERS;
	job->sequence_number = DatumGetInt64(values[7]);
	job->enqueued_at = DatumGetTimestampTz(values[9]);
	job->was_started = !nulls[10];
	job->first_started_at = nulls[10] ? 0 : DatumGetTimestampTz(values[10]);
	job->started_at = nulls[11] ? forecast->moment : DatumGetTimestampTz(values[11]);
	job->may_start_at = Max(DatumGetTimestampTz(values[8]),
							Max(wh_forecast_after(job->tenant->back_at, -forecast->ahead), forecast->moment));
	if (!nulls[12])
		job->may_start_at = DT_NOEND;
	job->counts = !job->is_running && job->may_start_at <= forecast->moment;
	job->run_seconds = job->unit ? job->unit->run_seconds : forecast->run_seconds;
	if (job->is_running)
		job->seconds_left = fabs(job->run_seconds - (forecast->moment - job->started_at) / 1000000.0);
}

#define JOBS(is_running, state) \
"SELECT j.kind = 'refresh', " is_running ", j.template_name, j.target_schema, j.target_date, j.job_id, j.priority," \
"  j.sequence_number, j.not_before, j.enqueued_at, j.first_started_at, j.started_at, b.backfill_id" \
"  FROM _wh.jobs j" \
"  LEFT JOIN _wh.backfills b ON b.backfill_id = j.backfill_id AND b.paused AND j.kind = 'refresh' AND j.schedule_id IS NULL" \
" WHERE j.state = '" state "'"

static void
read_jobs(Reader *reader)
{
	WhForecast *forecast = reader->forecast;

	forecast->njobs = open_rows(reader, JOBS("false", "queued") " UNION ALL " JOBS("true", "running"), 0, NULL);
	forecast->jobs = array_of(forecast->njobs, sizeof(WhForecastJob));
	for (int i = 0; i < forecast->njobs; i++)
	{
		read_row(reader, i);
		read_job(reader, &forecast->jobs[i]);
	}
}

void
wh_forecast_read(WhForecast *forecast)
{
	Reader		reader = {.forecast = forecast};

	read_clock(&reader);
	read_tenants(&reader);
	read_templates(&reader);
	read_units(&reader);
	read_schedules(&reader);
	read_unusual_days(&reader);
	read_jobs(&reader);
}
