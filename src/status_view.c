/*
 * status_view.c: worker_status: the slots as rows.
 *
 * Copies the slots (status.c) and formats the copy, so that looking never
 * holds up a worker.  Called by the view only.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "replicate.h"
#include "standby.h"
#include "status.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_worker_slots);

/* In the order of worker_slots(). */
#define SLOT_COLUMNS 20
#define TYPE_COLUMN 1
#define DATABASE_COLUMN 2
#define STATE_COLUMN 3
#define ERROR_COLUMN 17

static Datum
text_or_null(const char *value, bool *isnull)
{
	*isnull = value[0] == '\0';
	return *isnull ? (Datum) 0 : CStringGetTextDatum(value);
}

static Datum
time_or_null(TimestampTz value, bool *isnull)
{
	*isnull = value == 0;
	return TimestampTzGetDatum(value);
}

static Datum
int8_or_null(int64 value, bool *isnull)
{
	*isnull = value == 0;
	return Int64GetDatum(value);
}

static Datum
blockers_or_null(const WhSlotInfo *info, bool *isnull)
{
	Datum		pids[WH_MAX_BLOCKERS];

	*isnull = info->nblockers == 0;
	for (int i = 0; i < info->nblockers; i++)
		pids[i] = Int32GetDatum(info->blockers[i]);
	return *isnull ? (Datum) 0 :
		PointerGetDatum(construct_array(pids, info->nblockers, INT4OID,
										sizeof(int32), true, TYPALIGN_INT));
}

static const char *
held_by(const WhSlotInfo *info)
{
	static const char *const limits[] = {"max_rows_per_second", "max_bytes_per_second"};

	return info->is_held ? limits[info->held_by] : "";
}

static const char *
type_of(const WhSlotInfo *info)
{
	static const char *const types[] = {"supervisor", "launcher", "worker"};

	return types[info->kind];
}

static const char *
state_of(const WhSlotInfo *info)
{
	return info->pid != 0 && wh_replicate_is_awaited_by(info->pid) ? "waiting_replication" :
		wh_status_phase_name(info->phase);
}

static void
put_slot(Tuplestorestate *store, TupleDesc desc, const WhSlotInfo *info)
{
	Datum		v[SLOT_COLUMNS];
	bool		n[SLOT_COLUMNS] = {0};
	bool		busy = info->job_id != 0;
	int			i = 0;

	v[i] = Int32GetDatum(info->pid), n[i] = info->pid == 0, i++;
	v[i] = CStringGetTextDatum(psprintf("wh_worker %s", type_of(info))), i++;
	v[i] = text_or_null(info->database, &n[i]), i++;
	v[i] = CStringGetTextDatum(state_of(info)), i++;
	v[i] = int8_or_null(info->job_id, &n[i]), i++;
	v[i] = int8_or_null(info->backfill_id, &n[i]), i++;
	v[i] = text_or_null(info->job_kind, &n[i]), i++;
	v[i] = text_or_null(info->template_name, &n[i]), i++;
	v[i] = text_or_null(busy ? info->tenant_name : "", &n[i]), i++;
	v[i] = text_or_null(info->target_schema, &n[i]), i++;
	v[i] = DateADTGetDatum(info->target_date), n[i] = !info->has_date, i++;
	v[i] = Int64GetDatum(info->rows), n[i] = !busy, i++;
	v[i] = Int64GetDatum(info->bytes), n[i] = !busy, i++;
	v[i] = time_or_null(info->job_started_at, &n[i]), i++;
	v[i] = time_or_null(info->phase_started_at, &n[i]), i++;
	v[i] = Int64GetDatum(info->jobs_succeeded), n[i] = info->kind != WH_SLOT_WORKER, i++;
	v[i] = Int64GetDatum(info->jobs_failed), n[i] = info->kind != WH_SLOT_WORKER, i++;
	v[i] = text_or_null(info->last_error, &n[i]), i++;
	v[i] = blockers_or_null(info, &n[i]), i++;
	v[i] = text_or_null(held_by(info), &n[i]), i++;
	Assert(i == SLOT_COLUMNS);
	tuplestore_putvalues(store, desc, v, n);
}

/* Who would run if this server were promoted now, and what would keep it from doing so. */
static void
put_standby(Tuplestorestate *store, TupleDesc desc, WhSlotKind kind, const char *database)
{
	Datum		v[SLOT_COLUMNS];
	bool		n[SLOT_COLUMNS];
	WhSlotInfo	info = {.kind = kind};

	memset(n, true, sizeof(n));
	v[TYPE_COLUMN] = CStringGetTextDatum(psprintf("wh_worker %s", type_of(&info)));
	v[STATE_COLUMN] = CStringGetTextDatum("standby");
	n[TYPE_COLUMN] = n[STATE_COLUMN] = false;
	v[DATABASE_COLUMN] = text_or_null(database, &n[DATABASE_COLUMN]);
	v[ERROR_COLUMN] = text_or_null(kind == WH_SLOT_LAUNCHER && !wh_enabled ?
								   "wh_worker.enabled is off" : "", &n[ERROR_COLUMN]);
	tuplestore_putvalues(store, desc, v, n);
}

static void
put_all_standby(Tuplestorestate *store, TupleDesc desc)
{
	ListCell   *cell;

	put_standby(store, desc, WH_SLOT_SUPERVISOR, "");
	foreach(cell, wh_guc_databases())
		put_standby(store, desc, WH_SLOT_LAUNCHER, lfirst(cell));
}

/* Of another version it can be read as long as it has the columns of this one. */
static void
refuse_other_columns(void)
{
	wh_require_preloaded();
	elog(ERROR, "worker_slots is declared with other columns");	/* cannot happen */
}

Datum
wh_sql_worker_slots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	WhSlotInfo *infos;
	int			n;

	wh_require_library();
	InitMaterializedSRF(fcinfo, 0);
	if (rsinfo->setDesc->natts != SLOT_COLUMNS)
		refuse_other_columns();
	if (wh_standby_reason() != NULL)
	{
		put_all_standby(rsinfo->setResult, rsinfo->setDesc);
		PG_RETURN_NULL();
	}
	infos = palloc(sizeof(WhSlotInfo) * wh_status_max_slots());
	n = wh_status_copy(infos);
	for (int i = 0; i < n; i++)
		put_slot(rsinfo->setResult, rsinfo->setDesc, &infos[i]);
	PG_RETURN_NULL();
}
