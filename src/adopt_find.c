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
 * Called by adopt.c.  Changes nothing.  Locks: those of a reader; a relation that
 * is somebody else's is read as the caller, who is a superuser then.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "adopt.h"
#include "combine.h"
#include "leaf.h"
#include "sqlutil.h"
#include "template_code.h"
#include "there.h"

void
wh_adopt_become_caller(WhAdoptCaller *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(GetOuterUserId(),
						   saved->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

void
wh_adopt_become_admin(const WhAdoptCaller *saved)
{
	SetUserIdAndSecContext(saved->user, saved->context);
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
		relation->remark = psprintf("it lacks index \"%s\" of the template, and gets it when it is loaded again",
									index->idxname);
	}
}

/* ---- rows ---- */

static char *
count_query(const WhAdoption *adoption, const WhAdoptee *relation)
{
	char	   *name = wh_relation_name(relation->relid);

	if (relation->tier == WH_TIER_DAY)
		return psprintf("SELECT %s::pg_catalog.date, pg_catalog.count(*) FROM ONLY %s",
						quote_literal_cstr(wh_date_text(relation->first)), name);
	return psprintf("SELECT %s, pg_catalog.count(*) FROM ONLY %s GROUP BY 1 ORDER BY 1",
					wh_combine_day_expression(adoption->tmpl, relation->relid), name);
}

static void
take_counts(WhAdoptee *relation, uint64 n, MemoryContext cxt)
{
	relation->days = MemoryContextAlloc(cxt, sizeof(Datum) * Max(n, 1));
	relation->day_rows = MemoryContextAlloc(cxt, sizeof(Datum) * Max(n, 1));
	relation->ndays = (int) n;
	relation->rows = 0;
	for (uint64 i = 0; i < n; i++)
	{
		DateADT		date = wh_get_date(i, 1);

		if (wh_isnull(i, 1))
			relation->problem = MemoryContextStrdup(cxt, "it has rows of no day");
		else if (date < relation->first || date > relation->last)
			relation->problem = MemoryContextStrdup(cxt, psprintf("it has rows of %s",
																 DATE_NOT_FINITE(date) ? "no date" : wh_date_text(date)));
		relation->days[i] = DateADTGetDatum(date);
		relation->day_rows[i] = Int64GetDatum(wh_get_int8(i, 2));
		relation->rows += wh_get_int8(i, 2);
	}
}

/* Whose columns are of other types than PostgreSQL's own cannot be read as a superuser. */
static void
count_rows(const WhAdoption *adoption, WhAdoptee *relation)
{
	MemoryContext cxt = CurrentMemoryContext;
	bool		foreign = relation->owner != adoption->admin;
	char	   *sql = count_query(adoption, relation);
	WhAdoptCaller saved;

	wh_spi_begin();
	if (foreign)
		wh_adopt_become_caller(&saved);
	take_counts(relation, wh_query_once(sql, 0, NULL), cxt);
	if (foreign)
		wh_adopt_become_admin(&saved);
	wh_spi_end();
}

static void
remark_gaps(WhAdoptee *relation)
{
	int			gaps;

	if (relation->tier == WH_TIER_DAY || relation->ndays == 0 || relation->remark != NULL)
		return;
	gaps = DatumGetDateADT(relation->days[relation->ndays - 1]) - DatumGetDateADT(relation->days[0]) + 1 -
		relation->ndays;
	if (gaps > 0)
		relation->remark = psprintf("%d days between its first and last one have no rows, and count as missing", gaps);
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
		count_rows(adoption, relation);
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
