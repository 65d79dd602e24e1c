/*
 * adopt_find.c: the relations that a warehouse of the old way has of a template.
 *
 * They are known by their names, as the old functions knew them.  What is wrong
 * with one is said in words and never raised: whether that matters depends on
 * whether the old view reads it, which adopt.c decides.
 *
 * Each is read once: a day to count its rows, a month or year to count those of
 * each of its days.  Days of a table that have no rows are not known: nobody can
 * tell whether they were loaded.
 *
 * Called by adopt.c.  Changes nothing, and runs no code of whoever owns a relation.
 * Locks: those of a reader.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "adopt.h"
#include "clock.h"
#include "combine.h"
#include "sqlutil.h"
#include "template_code.h"
#include "there.h"

void
wh_adopt_remark(WhAdoptee *relation, const char *remark)
{
	relation->remark = relation->remark == NULL ? remark : psprintf("%s; %s", relation->remark, remark);
}

/* ---- by name ---- */

static DateADT
date_of(int year, int month, int day)
{
	return date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
}

/* What comes after the template's name: YYYY, YYYY_MM or YYYY_MM_DD. */
static bool
read_suffix(WhAdoptee *relation, const char *suffix)
{
	int			year = 0;
	int			month = 1;
	int			day = 1;
	int			fields = sscanf(suffix, "%4d_%2d_%2d", &year, &month, &day);

	if (year < 1 || month < 1 || month > MONTHS_PER_YEAR || day < 1 ||
		day > day_tab[isleap(year) ? 1 : 0][month - 1])
		return false;
	relation->tier = fields == 3 ? WH_TIER_DAY : fields == 2 ? WH_TIER_MONTH : WH_TIER_YEAR;
	relation->first = date_of(year, month, day);
	if (relation->tier == WH_TIER_DAY)
		relation->last = relation->first;
	else if (relation->tier == WH_TIER_YEAR || month == MONTHS_PER_YEAR)
		relation->last = date_of(year + 1, 1, 1) - 1;
	else
		relation->last = date_of(year, month + 1, 1) - 1;
	return true;
}

/* Days, months, years: the order in which everybody locks their names. */
void
wh_adopt_find(WhAdoption *adoption)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(adoption->template_name), WH_TEXT(adoption->schema)};
	uint64		n;

	adoption->n = 0;
	wh_spi_begin();
	n = wh_query_latest("SELECT c.oid, c.relname, c.relowner, s.suffix,"
						"       EXISTS (SELECT FROM _wh.day_loads d WHERE d.relation_oid = c.oid"
						"         AND d.template_name = $1 AND d.target_schema = $2 AND " WH_DAY_IS_THERE ")"
						"  FROM pg_catalog.pg_class c"
						" CROSS JOIN LATERAL (SELECT pg_catalog.substr(c.relname::text, pg_catalog.length($1) + 2) AS suffix) s"
						" WHERE c.relnamespace = pg_catalog.quote_ident($2)::pg_catalog.regnamespace"
						"   AND pg_catalog.left(c.relname::text, pg_catalog.length($1) + 1) = $1 || '_'"
						"   AND s.suffix ~ '^[0-9]{4}(_[0-9]{2}){0,2}$'"
						"   AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
						" ORDER BY pg_catalog.length(s.suffix) DESC, s.suffix COLLATE \"C\"",
						lengthof(args), args);
	adoption->relations = MemoryContextAllocZero(cxt, sizeof(WhAdoptee) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		WhAdoptee  *relation = &adoption->relations[adoption->n];

		if (!read_suffix(relation, wh_get_text(CurrentMemoryContext, i, 4)))
			continue;			/* 2024_02_30 is the name of no day */
		relation->relid = wh_get_oid(i, 1);
		relation->relname = wh_get_text(cxt, i, 2);
		relation->owner = wh_get_oid(i, 3);
		relation->is_ours = wh_get_bool(i, 5);
		adoption->n++;
	}
	wh_spi_end();
}

/* ---- shape ---- */

static char *
column_text(Form_pg_attribute column)
{
	return psprintf("\"%s\" %s", NameStr(column->attname),
					format_type_with_typemod(column->atttypid, column->atttypmod));
}

static bool
same_column(Form_pg_attribute a, Form_pg_attribute b)
{
	return strcmp(NameStr(a->attname), NameStr(b->attname)) == 0 && a->atttypid == b->atttypid &&
		a->atttypmod == b->atttypmod && a->attcollation == b->attcollation;
}

static char *
column_problem(Form_pg_attribute actual, Form_pg_attribute wanted)
{
	if (actual == NULL)
		return psprintf("it has no column %s", column_text(wanted));
	if (same_column(actual, wanted))
		return NULL;
	if (strcmp(column_text(actual), column_text(wanted)) == 0)
		return psprintf("its column %s has another collation", column_text(wanted));
	return psprintf("it has column %s where the template has %s", column_text(actual), column_text(wanted));
}

/* The columns that are not dropped, in their order; *n is how many. */
static Form_pg_attribute *
live_columns(TupleDesc columns, int *n)
{
	Form_pg_attribute *live = palloc(sizeof(Form_pg_attribute) * Max(columns->natts, 1));

	*n = 0;
	for (int i = 0; i < columns->natts; i++)
		if (!TupleDescAttr(columns, i)->attisdropped)
			live[(*n)++] = TupleDescAttr(columns, i);
	return live;
}

char *
wh_adopt_columns_problem(TupleDesc actual, TupleDesc wanted, const char *last_column, Oid last_type)
{
	int			n;
	Form_pg_attribute *live = live_columns(actual, &n);
	Form_pg_attribute last = n > wanted->natts ? live[wanted->natts] : NULL;

	for (int i = 0; i < wanted->natts; i++)
	{
		char	   *problem = column_problem(i < n ? live[i] : NULL, TupleDescAttr(wanted, i));

		if (problem != NULL)
			return problem;
	}
	if (last_column != NULL &&
		(last == NULL || strcmp(NameStr(last->attname), last_column) != 0 || last->atttypid != last_type))
		return psprintf("its last column is not \"%s\" %s", last_column, format_type_be(last_type));
	if (n > wanted->natts + (last_column != NULL ? 1 : 0))
		return psprintf("it has column %s, which the template has not", column_text(live[n - 1]));
	return NULL;
}

static bool
has_triggers(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		if (!rel->trigdesc->triggers[i].tgisinternal)
			return true;
	return false;
}

static const char *
table_problem(const WhAdoption *adoption, const WhAdoptee *relation, Relation rel)
{
	const WhTemplate *tmpl = adoption->tmpl;
	bool		has_day = get_attnum(relation->relid, WH_DATE_COLUMN) != InvalidAttrNumber;

	if (rel->rd_rel->relkind != RELKIND_RELATION)
		return "it is not a table, as months and years are";
	if (rel->rd_rel->relispartition || has_subclass(relation->relid) || has_superclass(relation->relid))
		return "it is part of a partitioned or inherited table";
	if (rel->rd_rel->relrowsecurity)
		return "it has row security";
	if (has_triggers(rel) || rel->rd_rel->relhasrules)
		return "it has triggers or rules";
	if (!has_day && tmpl->date_attnum == 0)
		return psprintf("nothing says which day its rows are of: set date_column of the template, or add a last column " WH_DATE_COLUMN " of type date to it");
	return wh_adopt_columns_problem(RelationGetDescr(rel), tmpl->columns,
									has_day ? WH_DATE_COLUMN : NULL, DATEOID);
}

static const char *
matview_problem(const WhAdoption *adoption, Relation rel)
{
	if (rel->rd_rel->relkind != RELKIND_MATVIEW)
		return "it is not a materialized view, as days are";
	if (!RelationIsPopulated(rel))
		return "it was never filled";
	return wh_adopt_columns_problem(RelationGetDescr(rel), adoption->tmpl->columns, NULL, InvalidOid);
}

static const char *
relation_problem(const WhAdoption *adoption, const WhAdoptee *relation, Relation rel)
{
	if (relation->owner != adoption->admin && !adoption->may_own)
		return psprintf("it belongs to role \"%s\"", GetUserNameFromId(relation->owner, false));
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		return "it is unlogged or temporary";
	return relation->tier == WH_TIER_DAY ? matview_problem(adoption, rel) :
		table_problem(adoption, relation, rel);
}

/* ---- indexes ---- */

/* Is there one of that name, that says the same as far as plain columns go? */
static bool
has_index(Relation rel, const IndexStmt *wanted)
{
	Oid			index = get_relname_relid(wanted->idxname, RelationGetNamespace(rel));
	HeapTuple	tuple = OidIsValid(index) ? SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index)) : NULL;
	Form_pg_index form;
	bool		same;
	int			n = 0;
	ListCell   *cell;

	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_index) GETSTRUCT(tuple);
	same = form->indrelid == RelationGetRelid(rel) && form->indisvalid &&
		form->indisunique == wanted->unique && form->indnkeyatts == list_length(wanted->indexParams);
	foreach(cell, wanted->indexParams)
	{
		const IndexElem *element = lfirst_node(IndexElem, cell);

		if (same && element->name != NULL)
			same = form->indkey.values[n] == get_attnum(RelationGetRelid(rel), element->name);
		n++;
	}
	ReleaseSysCache(tuple);
	return same;
}

static void
judge_indexes(const WhAdoption *adoption, WhAdoptee *relation, Relation rel)
{
	ListCell   *cell;

	relation->has_indexes = true;
	foreach(cell, wh_template_indexes(adoption->tmpl, adoption->schema, relation->relname))
	{
		const IndexStmt *index = lfirst_node(IndexStmt, cell);

		if (has_index(rel, index))
			continue;
		relation->has_indexes = false;
		wh_adopt_remark(relation, psprintf("it lacks index \"%s\" of the template, and gets it when it is loaded again",
										   index->idxname));
	}
}

/* ---- rows ---- */

/* Where the day of a row stands; 0: the relation is of one day. */
static AttrNumber
day_column(const WhAdoption *adoption, const WhAdoptee *relation)
{
	AttrNumber	column = get_attnum(relation->relid, WH_DATE_COLUMN);

	if (relation->tier == WH_TIER_DAY)
		return InvalidAttrNumber;
	return column != InvalidAttrNumber ? column :
		get_attnum(relation->relid, adoption->tmpl->date_column);
}

/* In UTC, as wh_leaf_day_expression() says it in SQL; out of all bounds for infinity. */
static DateADT
day_of_value(Datum value, Oid type)
{
	if (type == DATEOID)
		return DatumGetDateADT(value);
	if (TIMESTAMP_NOT_FINITE(DatumGetTimestamp(value)))
		return DATEVAL_NOEND;
	if (type == TIMESTAMPTZOID)
		return wh_clock_day_of(DatumGetTimestampTz(value));
	return DatumGetDateADT(DirectFunctionCall1(timestamp_date, value));
}

static void
count_row(WhAdoptee *relation, TupleTableSlot *slot, AttrNumber column, int64 *counts)
{
	DateADT		date = relation->first;
	bool		isnull = false;

	if (column != InvalidAttrNumber)
	{
		Datum		value = slot_getattr(slot, column, &isnull);

		date = isnull ? 0 : day_of_value(value, TupleDescAttr(slot->tts_tupleDescriptor, column - 1)->atttypid);
	}
	if (isnull)
		relation->problem = "it has rows of no day";
	else if (date < relation->first || date > relation->last)
		relation->problem = psprintf("it has rows of %s",
									 date < date_of(1, 1, 1) || date > date_of(9999, 12, 31) ? "no date" : wh_date_text(date));
	else
		counts[date - relation->first]++;
}

/*
 * By its OID and without SQL: the relation may be somebody else's, who must not
 * get code of his to run by giving its name to another one.
 */
static void
scan(const WhAdoption *adoption, WhAdoptee *relation, Relation rel, int64 *counts)
{
	AttrNumber	column = day_column(adoption, relation);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);

	while (relation->problem == NULL && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		count_row(relation, slot, column, counts);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
}

/* A day without rows is a day; of a month or year only those that have some are known. */
static void
count_rows(const WhAdoption *adoption, WhAdoptee *relation, Relation rel)
{
	int			n = relation->last - relation->first + 1;
	int64	   *counts = palloc0(sizeof(int64) * n);

	scan(adoption, relation, rel, counts);
	relation->days = palloc(sizeof(Datum) * n);
	relation->day_rows = palloc(sizeof(Datum) * n);
	for (int i = 0; i < n; i++)
	{
		if (counts[i] == 0 && relation->tier != WH_TIER_DAY)
			continue;
		relation->days[relation->ndays] = DateADTGetDatum(relation->first + i);
		relation->day_rows[relation->ndays++] = Int64GetDatum(counts[i]);
		relation->rows += counts[i];
	}
	pfree(counts);
}

static void
remark_gaps(WhAdoptee *relation)
{
	int			gaps;

	if (relation->tier == WH_TIER_DAY || relation->ndays == 0)
		return;
	gaps = DatumGetDateADT(relation->days[relation->ndays - 1]) - DatumGetDateADT(relation->days[0]) + 1 -
		relation->ndays;
	if (gaps > 0)
		wh_adopt_remark(relation, psprintf("%d days between its first and last one have no rows, and count as missing", gaps));
}

/* ---- which relation has a day ---- */

/* By day from the first on: the name of the relation that has it. */
typedef struct Calendar
{
	DateADT		first;
	int			ndays;
	char	  **holders;
} Calendar;

static void
make_calendar(const WhAdoption *adoption, Calendar *calendar)
{
	DateADT		first = 0;
	DateADT		last = -1;

	for (int i = 0; i < adoption->n; i++)
	{
		if (i == 0 || adoption->relations[i].first < first)
			first = adoption->relations[i].first;
		if (i == 0 || adoption->relations[i].last > last)
			last = adoption->relations[i].last;
	}
	calendar->first = first;
	calendar->ndays = last - first + 1;
	calendar->holders = palloc0(sizeof(char *) * Max(calendar->ndays, 1));
}

static void
note_ledger(const WhAdoption *adoption, Calendar *calendar)
{
	WhArg		args[] = {WH_TEXT(adoption->template_name), WH_TEXT(adoption->schema)};
	MemoryContext cxt = CurrentMemoryContext;
	uint64		n;

	wh_spi_begin();
	n = wh_query_latest("SELECT d.target_date, d.relation FROM _wh.day_loads d WHERE d.template_name = $1"
						" AND d.target_schema = $2 AND d.relation_oid IS NOT NULL AND " WH_DAY_IS_THERE,
						lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
	{
		int			day = wh_get_date(i, 1) - calendar->first;

		if (day >= 0 && day < calendar->ndays)
			calendar->holders[day] = wh_get_text(cxt, i, 2);
	}
	wh_spi_end();
}

/* A day is in one relation; the view of the old way would have had it from both. */
static void
claim_days(Calendar *calendar, WhAdoptee *relation)
{
	for (int i = 0; i < relation->ndays; i++)
	{
		DateADT		date = DatumGetDateADT(relation->days[i]);
		char	   *holder = calendar->holders[date - calendar->first];

		if (holder != NULL)
		{
			relation->problem = psprintf("%s is in \"%s\" too", wh_date_text(date), holder);
			return;
		}
	}
	for (int i = 0; i < relation->ndays; i++)
		calendar->holders[DatumGetDateADT(relation->days[i]) - calendar->first] = relation->relname;
}

/* ---- all of them ---- */

static void
judge(const WhAdoption *adoption, WhAdoptee *relation)
{
	Relation	rel = try_relation_open(relation->relid, AccessShareLock);

	if (rel == NULL)
	{
		relation->problem = "it was dropped at the same time";
		return;
	}
	relation->owner = rel->rd_rel->relowner;
	relation->problem = relation_problem(adoption, relation, rel);
	if (relation->problem == NULL)
	{
		judge_indexes(adoption, relation, rel);
		count_rows(adoption, relation, rel);
	}
	relation_close(rel, NoLock);
}

/* Tables first: of a day that is in both, the table has the older claim. */
void
wh_adopt_judge(WhAdoption *adoption)
{
	Calendar	calendar;

	wh_template_code_check_columns(adoption->tmpl->columns);
	make_calendar(adoption, &calendar);
	note_ledger(adoption, &calendar);
	for (int i = adoption->n - 1; i >= 0; i--)
	{
		WhAdoptee  *relation = &adoption->relations[i];

		CHECK_FOR_INTERRUPTS();
		if (relation->is_ours)
			continue;
		judge(adoption, relation);
		if (relation->problem == NULL)
			claim_days(&calendar, relation);
		if (relation->problem == NULL)
			remark_gaps(relation);
	}
}
