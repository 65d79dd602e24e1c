/*
 * metrics_view.c: metric_counters: what is counted, and who works, as rows.
 *
 * Called by the view metrics only, once for each metric, so that who asks for
 * one metric reads that one.  Works on copies (metrics.c, status.c), so that
 * looking never holds up a load.  Histograms are given as Prometheus wants
 * them: buckets that include the smaller ones, their sum and their count.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "budget.h"
#include "guc.h"
#include "metrics.h"
#include "queue.h"
#include "standby.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_metric_counters);

#define COLUMNS 6
#define OTHER "other"

/* A row; what is NULL does not apply. */
typedef struct MetricRow
{
	const char *template_name;
	const char *kind;
	const char *result;
	const char *phase;
	const char *bound;
	double		value;
} MetricRow;

typedef struct Reading
{
	ReturnSetInfo *rsinfo;
	WhDatabaseCounters database;
	WhTemplateCounters *templates;
	int			ntemplates;
} Reading;

/* In the order of WhCountedResult. */
static const char *const result_names[] = {
	"succeeded", "unchanged", "retried", "set_aside", "failed", "cancelled"
};

static void
put(const Reading *reading, const MetricRow *row)
{
	const char *texts[] = {row->template_name, row->kind, row->result, row->phase, row->bound};
	Datum		values[COLUMNS];
	bool		nulls[COLUMNS] = {0};

	for (int i = 0; i < lengthof(texts); i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	values[COLUMNS - 1] = Float8GetDatum(row->value);
	tuplestore_putvalues(reading->rsinfo->setResult, reading->rsinfo->setDesc, values, nulls);
}

static void
put_value(const Reading *reading, const char *kind, double value)
{
	MetricRow	row = {.kind = kind,.value = value};

	put(reading, &row);
}

/* ---- histograms ---- */

static int64
observations(const WhHistogram *histogram)
{
	int64		n = 0;

	for (int i = 0; i <= WH_BOUNDS; i++)
		n += histogram->buckets[i];
	return n;
}

static void
put_buckets(const Reading *reading, MetricRow row, const WhHistogram *histogram)
{
	int64		n = 0;

	for (int i = 0; i <= WH_BOUNDS; i++)
	{
		n += histogram->buckets[i];
		row.bound = i == WH_BOUNDS ? "+Inf" : psprintf("%g", wh_metrics_bounds[i]);
		row.value = (double) n;
		put(reading, &row);
	}
}

static void
put_histogram(const Reading *reading, MetricRow row, const WhHistogram *histogram, const char *part)
{
	if (strcmp(part, "bucket") == 0)
	{
		put_buckets(reading, row, histogram);
		return;
	}
	row.value = strcmp(part, "sum") == 0 ? histogram->sum : (double) observations(histogram);
	put(reading, &row);
}

static void
put_loads(const Reading *reading, const char *part)
{
	for (int i = 0; i < reading->ntemplates; i++)
	{
		const WhTemplateCounters *counters = &reading->templates[i];
		MetricRow	row = {.template_name = counters->template_name};

		if (counters->template_name[0] != '\0')
			put_histogram(reading, row, &counters->load, part);
	}
}

/* Those that work is done in. */
static void
put_phases(const Reading *reading, const char *part)
{
	for (int i = WH_PHASE_CONNECTING; i < WH_COUNTED_PHASES; i++)
	{
		MetricRow	row = {.phase = wh_status_phase_name((WhPhase) i)};

		if (i != WH_PHASE_RUNNING)
			put_histogram(reading, row, &reading->database.phases[i], part);
	}
}

static void
put_readers_kept(const Reading *reading, const char *part)
{
	MetricRow	row = {0};

	put_histogram(reading, row, &reading->database.readers_kept, part);
}

/* ---- counters ---- */

static void
put_ended(const Reading *reading, const char *part)
{
	for (int i = 0; i < reading->ntemplates; i++)
	{
		const WhTemplateCounters *counters = &reading->templates[i];

		for (int kind = 0; kind < WH_COUNTED_KINDS; kind++)
			for (int result = 0; result < WH_COUNTED_RESULTS; result++)
			{
				MetricRow	row = {
					.template_name = counters->template_name,
					.kind = kind == WH_COUNTED_CALL ? "call" : wh_queue_kind_name((WhJobKind) kind),
					.result = result_names[result],
					.value = (double) counters->ended[kind][result]
				};

				if (counters->ended[kind][result] > 0)
					put(reading, &row);
			}
	}
}

static void
put_received(const Reading *reading, const char *part)
{
	for (int i = 0; i < reading->ntemplates; i++)
	{
		const WhTemplateCounters *counters = &reading->templates[i];
		MetricRow	row = {.template_name = counters->template_name};

		row.value = (double) (strcmp(part, "rows") == 0 ? counters->rows : counters->bytes);
		if (counters->template_name[0] != '\0')
			put(reading, &row);
	}
}

static void
put_tries(const Reading *reading, const char *part)
{
	put_value(reading, "granted", (double) reading->database.tries[WH_TRY_GRANTED]);
	put_value(reading, "repeated", (double) reading->database.tries[WH_TRY_REPEATED]);
	put_value(reading, "given_up", (double) reading->database.tries[WH_TRY_GIVEN_UP]);
}

static void
put_lock_wait(const Reading *reading, const char *part)
{
	put_value(reading, NULL, reading->database.lock_wait);
}

/* ---- who works now ---- */

static int
copy_slots(WhSlotInfo **infos)
{
	*infos = palloc(sizeof(WhSlotInfo) * wh_status_max_slots());
	return wh_status_copy(*infos);
}

static void
put_workers(const Reading *reading, const char *part)
{
	WhSlotInfo *infos;
	int			n = copy_slots(&infos);
	int			busy = 0;
	int			idle = 0;
	int			elsewhere = 0;

	for (int i = 0; i < n; i++)
	{
		if (infos[i].kind != WH_SLOT_WORKER)
			continue;
		if (infos[i].database_oid != MyDatabaseId)
			elsewhere++;
		else if (infos[i].job_id != 0)
			busy++;
		else
			idle++;
	}
	put_value(reading, "busy", busy);
	put_value(reading, "idle", idle);
	put_value(reading, "elsewhere", elsewhere);
	put_value(reading, "free", wh_max_workers - busy - idle - elsewhere);
}

/* The launcher of this database, or NULL. */
static const WhSlotInfo *
find_launcher(const WhSlotInfo *infos, int n)
{
	for (int i = 0; i < n; i++)
		if (infos[i].kind == WH_SLOT_LAUNCHER && infos[i].pid != 0 &&
			infos[i].database_oid == MyDatabaseId)
			return &infos[i];
	return NULL;
}

static void
put_launcher(const Reading *reading, const char *part)
{
	WhSlotInfo *infos;
	int			n = copy_slots(&infos);
	const WhSlotInfo *launcher = find_launcher(infos, n);

	if (wh_standby_reason() != NULL)
		return;					/* it is not meant to run there, and nobody shall be woken */
	if (strcmp(part, "up") == 0)
		put_value(reading, NULL, launcher != NULL);
	else
		put_value(reading, NULL, launcher != NULL && launcher->last_error[0] != '\0');
}

/* Since when nothing has moved; nothing ever has if there is no launcher. */
static void
put_standstill(const Reading *reading, const char *part)
{
	WhSlotInfo *infos;
	int			n = copy_slots(&infos);
	TimestampTz moved_at = 0;

	for (int i = 0; i < n; i++)
		if (infos[i].database_oid == MyDatabaseId)
			moved_at = Max(moved_at, infos[i].moved_at);
	if (moved_at == 0)
		moved_at = PgStartTime;
	put_value(reading, NULL, Max(GetCurrentTimestamp() - moved_at, 0) / 1000000.0);
}

static void
put_rows_so_far(const Reading *reading, const char *part)
{
	WhSlotInfo *infos;
	int			n = copy_slots(&infos);
	double		rows = 0;

	for (int i = 0; i < n; i++)
		if (infos[i].kind == WH_SLOT_WORKER && infos[i].database_oid == MyDatabaseId &&
			infos[i].job_id != 0)
			rows += (double) infos[i].rows;
	put_value(reading, NULL, rows);
}

static void
put_budget(const Reading *reading, const char *part)
{
	put_value(reading, NULL, (double) wh_budget());
}

/* ---- the function ---- */

typedef struct Family
{
	const char *name;
	void		(*put) (const Reading *reading, const char *part);
	const char *part;
} Family;

static const Family families[] = {
	{"ended", put_ended, NULL},
	{"rows", put_received, "rows"},
	{"bytes", put_received, "bytes"},
	{"load_bucket", put_loads, "bucket"},
	{"load_sum", put_loads, "sum"},
	{"load_count", put_loads, "count"},
	{"phase_bucket", put_phases, "bucket"},
	{"phase_sum", put_phases, "sum"},
	{"phase_count", put_phases, "count"},
	{"readers_bucket", put_readers_kept, "bucket"},
	{"readers_sum", put_readers_kept, "sum"},
	{"readers_count", put_readers_kept, "count"},
	{"tries", put_tries, NULL},
	{"lock_wait", put_lock_wait, NULL},
	{"workers", put_workers, NULL},
	{"launcher_up", put_launcher, "up"},
	{"launcher_failing", put_launcher, "failing"},
	{"standstill", put_standstill, NULL},
	{"rows_so_far", put_rows_so_far, NULL},
	{"lock_budget", put_budget, NULL},
};

static const Family *
find_family(const char *name)
{
	for (int i = 0; i < lengthof(families); i++)
		if (strcmp(families[i].name, name) == 0)
			return &families[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unknown family of counters \"%s\"", name),
			 errhint("Read the view _wh.metrics instead.")));
}

static bool
has_ended(const WhTemplateCounters *counters)
{
	for (int kind = 0; kind < WH_COUNTED_KINDS; kind++)
		for (int result = 0; result < WH_COUNTED_RESULTS; result++)
			if (counters->ended[kind][result] > 0)
				return true;
	return false;
}

static void
add_counters(WhTemplateCounters *to, const WhTemplateCounters *from)
{
	for (int kind = 0; kind < WH_COUNTED_KINDS; kind++)
		for (int result = 0; result < WH_COUNTED_RESULTS; result++)
			to->ended[kind][result] += from->ended[kind][result];
	to->rows += from->rows;
	to->bytes += from->bytes;
	for (int i = 0; i <= WH_BOUNDS; i++)
		to->load.buckets[i] += from->load.buckets[i];
	to->load.sum += from->load.sum;
}

/*
 * Templates that there was no room for are counted under a name of their own; a
 * template that is called so is counted with them, as no series may be there twice.
 */
static void
add_other(Reading *reading)
{
	WhTemplateCounters *other = &reading->templates[reading->ntemplates];

	if (!has_ended(&reading->database.other))
		return;
	for (int i = 0; i < reading->ntemplates; i++)
		if (strcmp(reading->templates[i].template_name, OTHER) == 0)
		{
			add_counters(&reading->templates[i], &reading->database.other);
			return;
		}
	*other = reading->database.other;
	strlcpy(other->template_name, OTHER, NAMEDATALEN);
	reading->ntemplates++;
}

Datum
wh_sql_metric_counters(PG_FUNCTION_ARGS)
{
	const Family *family;
	Reading		reading = {0};

	wh_require_preloaded();
	family = find_family(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	InitMaterializedSRF(fcinfo, 0);
	reading.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	reading.templates = palloc(sizeof(WhTemplateCounters) * (WH_COUNTED_TEMPLATES + 1));
	reading.ntemplates = wh_metrics_copy(&reading.database, reading.templates);
	add_other(&reading);
	family->put(&reading, family->part);
	PG_RETURN_NULL();
}
