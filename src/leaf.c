/*
 * leaf.c: a day, month or year as a leaf of a partition tree.
 *
 * A leaf is made as a table of its own, with a CHECK that says what the
 * partition's bounds will say, so that attaching it reads no row.  The loader
 * does not know of CHECKs: rows that are outside of their day are looked for
 * when it is full, and refuse it by name instead of being in the wrong place.
 *
 * Called by load.c, replace.c, refresh.c and combine.c.  May not touch a view
 * or the ledger.
 *
 * Locks: ShareUpdateExclusiveLock on the part while a leaf is attached, to the
 * end of the transaction; readers do not feel it.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "leaf.h"
#include "sqlutil.h"
#include "tree.h"
#include "view.h"

#define BOUNDS_CONSTRAINT "wh_worker_bounds"

/* Where the columns of a leaf come from. */
#define FROM_NOWHERE (-1)		/* the template has it no longer: NULL */
#define FROM_SCHEMA (-2)

typedef struct LeafRows
{
	WhRowSource source;
	void	   *arg;
	int			natts;
	int		   *from;			/* column of the source, or one of the above */
	Datum		schema_name;
	Datum	   *values;			/* a row of the source */
	bool	   *isnull;
} LeafRows;

/* ---- bounds ---- */

/* A table of a year that was adopted has no other column that says it. */
static void
require_date_column(const WhTemplate *tmpl)
{
	if (tmpl->date_attnum == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing says which day rows of template \"%s\" are of", tmpl->name),
				 errdetail("A table of a month or year that was taken over has no column for that but the date_column of its template."),
				 errhint("Set date_column of the template to what it was.")));
}

char *
wh_leaf_condition(const WhLeaf *leaf)
{
	const char *column;

	require_date_column(leaf->tmpl);
	column = wh_quote(leaf->tmpl->date_column);
	return psprintf("%s >= %s AND %s < %s", column, wh_tree_bound(leaf->tmpl, leaf->first),
					column, wh_tree_bound(leaf->tmpl, leaf->last + 1));
}

char *
wh_leaf_day_expression(const WhTemplate *tmpl)
{
	const char *column;

	require_date_column(tmpl);
	column = wh_quote(tmpl->date_column);
	if (TupleDescAttr(tmpl->columns, tmpl->date_attnum - 1)->atttypid == TIMESTAMPTZOID)
		return psprintf("pg_catalog.timezone('UTC', %s)::pg_catalog.date", column);
	return psprintf("%s::pg_catalog.date", column);
}

/* As PostgreSQL words the constraint of a partition, so that it sees them equal. */
static char *
bounds_condition(const WhLeaf *leaf)
{
	return psprintf(WH_SCHEMA_NAME_COLUMN " IS NOT NULL AND " WH_SCHEMA_NAME_COLUMN " = %s AND %s IS NOT NULL AND %s",
					quote_literal_cstr(leaf->schema), wh_quote(leaf->tmpl->date_column),
					wh_leaf_condition(leaf));
}

static void
report_outside(const WhLeaf *leaf, int64 rows, const char *example)
{
	char	   *days = leaf->first == leaf->last ? wh_date_text(leaf->first) :
		psprintf("%s to %s", wh_date_text(leaf->first), wh_date_text(leaf->last));

	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg_plural("%lld row of template \"%s\" for %s is outside of its day",
						   "%lld rows of template \"%s\" for %s are outside of their day",
						   (unsigned long) rows, (long long) rows, leaf->tmpl->name, days),
			 errdetail("In column \"%s\" one has %s.", leaf->tmpl->date_column,
					   example != NULL ? example : "a null"),
			 errhint("In the layout \"partitions\" the query of the template may only give rows whose date_column lies in the day (UTC).")));
}

void
wh_leaf_check_rows(const WhLeaf *leaf, Oid relid)
{
	const char *column = wh_quote(leaf->tmpl->date_column);

	wh_spi_begin();
	wh_query_once(psprintf("SELECT pg_catalog.count(*), pg_catalog.min(%s)::pg_catalog.text"
						   "  FROM ONLY %s WHERE (%s) IS NOT TRUE",
						   column, wh_relation_name(relid), wh_leaf_condition(leaf)), 0, NULL);
	if (wh_get_int8(0, 1) > 0)
		report_outside(leaf, wh_get_int8(0, 1), wh_get_text(CurrentMemoryContext, 0, 2));
	wh_spi_end();
}

/* ---- making and filling ---- */

Oid
wh_leaf_create(const WhLeaf *leaf, const char *relname, const char *tablespace)
{
	TupleDesc	columns;
	StringInfoData sql;

	wh_spi_begin();
	columns = wh_tree_columns(leaf->tmpl);
	initStringInfo(&sql);
	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(columns, i);

		appendStringInfo(&sql, "%s %s, ", quote_identifier(NameStr(column->attname)),
						 format_type_extended(column->atttypid, column->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	wh_utility("CREATE TABLE %s (%sCONSTRAINT " BOUNDS_CONSTRAINT " CHECK (%s))%s%s",
			   quote_qualified_identifier(leaf->schema, relname), sql.data, bounds_condition(leaf),
			   tablespace != NULL ? " TABLESPACE " : "", tablespace != NULL ? wh_quote(tablespace) : "");
	wh_spi_end();
	return get_relname_relid(relname, get_namespace_oid(leaf->schema, false));
}

static int
column_from(const WhLeaf *leaf, const char *name)
{
	TupleDesc	columns = leaf->tmpl->columns;

	for (int i = 0; i < columns->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(columns, i)->attname), name) == 0)
			return i;
	return strcmp(name, WH_SCHEMA_NAME_COLUMN) == 0 ? FROM_SCHEMA : FROM_NOWHERE;
}

static void
map_columns(LeafRows *rows, const WhLeaf *leaf, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	columns = RelationGetDescr(rel);

	rows->natts = columns->natts;
	rows->from = palloc(sizeof(int) * columns->natts);
	for (int i = 0; i < columns->natts; i++)
		rows->from[i] = TupleDescAttr(columns, i)->attisdropped ? FROM_NOWHERE :
			column_from(leaf, NameStr(TupleDescAttr(columns, i)->attname));
	table_close(rel, NoLock);
	rows->schema_name = CStringGetTextDatum(leaf->schema);
	rows->values = palloc(sizeof(Datum) * leaf->tmpl->columns->natts);
	rows->isnull = palloc(sizeof(bool) * leaf->tmpl->columns->natts);
}

/* A WhRowSource that puts the columns of another one where the leaf has them. */
static bool
next_row(void *arg, Datum *values, bool *isnull)
{
	LeafRows   *rows = arg;

	if (!rows->source(rows->arg, rows->values, rows->isnull))
		return false;
	for (int i = 0; i < rows->natts; i++)
	{
		int			from = rows->from[i];

		isnull[i] = from == FROM_NOWHERE || (from >= 0 && rows->isnull[from]);
		values[i] = isnull[i] ? (Datum) 0 :
			from == FROM_SCHEMA ? rows->schema_name : rows->values[from];
	}
	return true;
}

int64
wh_leaf_load(const WhLeaf *leaf, Oid relid, WhRowSource source, void *arg)
{
	LeafRows	rows = {.source = source, .arg = arg};
	int64		count;

	map_columns(&rows, leaf, relid);
	count = wh_rows_load(relid, next_row, &rows);
	wh_leaf_check_rows(leaf, relid);
	return count;
}

/* ---- in the tree ---- */

/* The CHECK has done its work: the bounds say the same. */
void
wh_leaf_attach(const WhLeaf *leaf, Oid relid)
{
	char	   *name = wh_relation_name(relid);
	Oid			part;

	wh_spi_begin();
	part = wh_tree_ensure(leaf->tmpl, leaf->schema);
	if (!wh_leaf_has_shape(leaf->tmpl, relid))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the columns of template \"%s\" changed while a day was loaded", leaf->tmpl->name)));
	wh_utility("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)",
			   wh_relation_name(part), name, wh_tree_bound(leaf->tmpl, leaf->first),
			   wh_tree_bound(leaf->tmpl, leaf->last + 1));
	wh_utility("ALTER TABLE %s DROP CONSTRAINT IF EXISTS " BOUNDS_CONSTRAINT, name);
	wh_spi_end();
}

bool
wh_leaf_has_shape(const WhTemplate *tmpl, Oid relid)
{
	TupleDesc	actual = wh_tree_columns_of(relid);
	TupleDesc	wanted;
	bool		same;

	wh_spi_begin();
	wanted = wh_tree_columns(tmpl);
	same = actual->natts == wanted->natts;
	for (int i = 0; same && i < wanted->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(actual, i);
		Form_pg_attribute w = TupleDescAttr(wanted, i);

		same = strcmp(NameStr(a->attname), NameStr(w->attname)) == 0 &&
			a->atttypid == w->atttypid && a->atttypmod == w->atttypmod;
	}
	wh_spi_end();
	return same;
}
