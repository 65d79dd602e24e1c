/*
 * sqlutil.c: SPI with expected results, quoting, cached plans.
 *
 * Statements here are written by us and have to work, so that a result code
 * of SPI that says otherwise is raised instead of returned; callers only look
 * at rows.  Used by every file that runs SQL.
 *
 * Plans are kept for the life of the process: the launcher and the workers
 * run the same few statements again and again.  They are keyed by the address
 * of the statement's text, which is why that must be a literal.
 *
 * May not change user, search_path or transaction.  Takes no lock of its own.
 */
#include "postgres.h"

#include "common/md5.h"
#include "utils/array.h"
#include "utils/datetime.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "sqlutil.h"
#include "wh_worker.h"

/* More than any statement of ours needs. */
#define WH_MAX_QUERY_ARGS 32

typedef struct KeptPlan
{
	const char *sql;			/* hash key: the pointer, not the text */
	SPIPlanPtr	plan;
} KeptPlan;

static HTAB *kept_plans = NULL;

/* Executor arguments in the shape that SPI wants. */
typedef struct SpiArgs
{
	Oid			types[WH_MAX_QUERY_ARGS];
	Datum		values[WH_MAX_QUERY_ARGS];
	char		nulls[WH_MAX_QUERY_ARGS];
} SpiArgs;

static void
fill_spi_args(SpiArgs *spi_args, int nargs, const WhArg *args)
{
	if (nargs > WH_MAX_QUERY_ARGS)
		elog(ERROR, "too many arguments for a statement: %d", nargs);	/* cannot happen */

	for (int i = 0; i < nargs; i++)
	{
		spi_args->types[i] = args[i].type;
		spi_args->values[i] = args[i].value;
		spi_args->nulls[i] = args[i].isnull ? 'n' : ' ';
	}
}

static void
check_spi_result(int result, const char *sql)
{
	if (result < 0)
		elog(ERROR, "SPI failed with %s: %s", SPI_result_code_string(result), sql); /* cannot happen */
}

static SPIPlanPtr
prepare(const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr	plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL)
		check_spi_result(SPI_result, sql);
	return plan;
}

static HTAB *
create_kept_plans(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(const char *);
	ctl.entrysize = sizeof(KeptPlan);
	ctl.hcxt = TopMemoryContext;
	return hash_create("wh_worker plans", 64, &ctl,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* A statement that is used with different types would need two literals. */
static void
check_plan_types(SPIPlanPtr plan, const char *sql, int nargs, const Oid *types)
{
	bool		same = SPI_getargcount(plan) == nargs;

	for (int i = 0; same && i < nargs; i++)
		same = SPI_getargtypeid(plan, i) == types[i];
	if (!same)
		elog(ERROR, "statement is used with other argument types: %s", sql);	/* cannot happen */
}

static SPIPlanPtr
get_kept_plan(const char *sql, int nargs, Oid *types)
{
	KeptPlan   *entry;
	SPIPlanPtr	plan;

	if (kept_plans == NULL)
		kept_plans = create_kept_plans();

	entry = hash_search(kept_plans, &sql, HASH_FIND, NULL);
	if (entry != NULL)
	{
		check_plan_types(entry->plan, sql, nargs, types);
		return entry->plan;
	}

	/* entered only when it is kept, so that an error leaves nothing behind */
	plan = prepare(sql, nargs, types);
	entry = hash_search(kept_plans, &sql, HASH_ENTER, NULL);
	entry->plan = plan;
	SPI_keepplan(plan);
	return plan;
}

/*
 * Parse analysis may call functions that want a snapshot, and a background
 * worker has none unless somebody pushes it.  For execution SPI pushes its
 * own, fresh one on top.
 */
bool
wh_push_missing_snapshot(void)
{
	if (ActiveSnapshotSet())
		return false;
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

static uint64
run_plan(SPIPlanPtr plan, const char *sql, SpiArgs *spi_args, bool own_snapshot)
{
	check_spi_result(SPI_execute_plan(plan, spi_args->values, spi_args->nulls, !own_snapshot, 0), sql);
	return SPI_processed;
}

void
wh_begin_transaction(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
wh_commit_transaction(MemoryContext context)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

void
wh_spi_begin(void)
{
	check_spi_result(SPI_connect(), "connect");
}

void
wh_spi_end(void)
{
	check_spi_result(SPI_finish(), "finish");
}

uint64
wh_query(const char *sql, int nargs, const WhArg *args)
{
	SpiArgs		spi_args;
	uint64		processed;
	bool		pushed = wh_push_missing_snapshot();

	fill_spi_args(&spi_args, nargs, args);
	processed = run_plan(get_kept_plan(sql, nargs, spi_args.types), sql, &spi_args, true);
	if (pushed)
		PopActiveSnapshot();
	return processed;
}

bool
wh_query_bool(const char *sql, int nargs, const WhArg *args)
{
	return wh_query(sql, nargs, args) == 1 && wh_get_bool(0, 1);
}

uint64
wh_query_latest(const char *sql, int nargs, const WhArg *args)
{
	SpiArgs		spi_args;
	uint64		processed;

	fill_spi_args(&spi_args, nargs, args);
	/* what this transaction has done counts, as in wh_query() */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	processed = run_plan(get_kept_plan(sql, nargs, spi_args.types), sql, &spi_args, false);
	PopActiveSnapshot();
	return processed;
}

uint64
wh_query_as_caller(const char *sql, int nargs, const WhArg *args)
{
	SpiArgs		spi_args;

	fill_spi_args(&spi_args, nargs, args);
	return run_plan(get_kept_plan(sql, nargs, spi_args.types), sql, &spi_args, false);
}

uint64
wh_query_once(const char *sql, int nargs, const WhArg *args)
{
	SpiArgs		spi_args;
	SPIPlanPtr	plan;
	uint64		processed;
	bool		pushed = wh_push_missing_snapshot();

	fill_spi_args(&spi_args, nargs, args);
	plan = prepare(sql, nargs, spi_args.types);
	processed = run_plan(plan, sql, &spi_args, true);
	SPI_freeplan(plan);
	if (pushed)
		PopActiveSnapshot();
	return processed;
}

void
wh_utility(const char *fmt,...)
{
	StringInfoData sql;
	bool		pushed;

	initStringInfo(&sql);
	for (;;)
	{
		va_list		args;
		int			needed;

		va_start(args, fmt);
		needed = appendStringInfoVA(&sql, fmt, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}

	pushed = wh_push_missing_snapshot();
	check_spi_result(SPI_execute(sql.data, false, 0), sql.data);
	if (pushed)
		PopActiveSnapshot();
	pfree(sql.data);
}

/* The value itself, which lives as long as the last result. */
static Datum
get_datum(uint64 row, int col, bool *isnull)
{
	if (SPI_tuptable == NULL || row >= SPI_tuptable->numvals ||
		col < 1 || col > SPI_tuptable->tupdesc->natts)
		elog(ERROR, "no row " UINT64_FORMAT " with a column %d in the result", row, col);	/* cannot happen */
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, isnull);
}

/* The same for a column that has to be of "type"; 0 if null. */
static Datum
get_datum_of_type(uint64 row, int col, Oid type)
{
	bool		isnull;
	Datum		value = get_datum(row, col, &isnull);
	Oid			actual = SPI_gettypeid(SPI_tuptable->tupdesc, col);

	if (actual != type)
		elog(ERROR, "column %d has type %u, not %u", col, actual, type);	/* cannot happen */
	return isnull ? (Datum) 0 : value;
}

bool
wh_isnull(uint64 row, int col)
{
	bool		isnull;

	(void) get_datum(row, col, &isnull);
	return isnull;
}

char *
wh_get_text(MemoryContext cxt, uint64 row, int col)
{
	MemoryContext old_context;
	char	   *text;

	if (wh_isnull(row, col))
		return NULL;
	old_context = MemoryContextSwitchTo(cxt);
	text = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col);
	MemoryContextSwitchTo(old_context);
	return text;
}

int32
wh_get_int4(uint64 row, int col)
{
	bool		isnull;
	Datum		value = get_datum(row, col, &isnull);

	if (SPI_gettypeid(SPI_tuptable->tupdesc, col) == INT2OID)
		return isnull ? 0 : DatumGetInt16(value);
	return DatumGetInt32(get_datum_of_type(row, col, INT4OID));
}

int64
wh_get_int8(uint64 row, int col)
{
	bool		isnull;
	Datum		value = get_datum(row, col, &isnull);

	if (SPI_gettypeid(SPI_tuptable->tupdesc, col) != INT8OID)
		return wh_get_int4(row, col);
	return isnull ? 0 : DatumGetInt64(value);
}

bool
wh_get_bool(uint64 row, int col)
{
	return DatumGetBool(get_datum_of_type(row, col, BOOLOID));
}

Oid
wh_get_oid(uint64 row, int col)
{
	return DatumGetObjectId(get_datum_of_type(row, col, OIDOID));
}

DateADT
wh_get_date(uint64 row, int col)
{
	return DatumGetDateADT(get_datum_of_type(row, col, DATEOID));
}

TimestampTz
wh_get_timestamptz(uint64 row, int col)
{
	return DatumGetTimestampTz(get_datum_of_type(row, col, TIMESTAMPTZOID));
}

char *
wh_date_text(DateADT date)
{
	int			year;
	int			month;
	int			day;

	if (DATE_NOT_FINITE(date))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a day cannot be infinite")));

	j2date(date + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	if (year < 1 || year > 9999)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("day is out of range"),
				 errdetail("Days are from 0001-01-01 to 9999-12-31.")));
	return psprintf("%04d-%02d-%02d", year, month, day);
}

char *
wh_quote(const char *identifier)
{
	return pstrdup(quote_identifier(identifier));
}

char *
wh_relation_name(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}

Datum
wh_oid_array(Datum *oids, int n)
{
	return PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

char *
wh_md5(const char *text)
{
	char	   *md5 = palloc(33);
	const char *problem = NULL;

	if (!pg_md5_hash(text, strlen(text), md5, &problem))
		elog(ERROR, "could not compute an md5: %s", problem);	/* cannot happen */
	return md5;
}
