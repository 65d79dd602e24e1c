/*
 * late.c: days that arrive when their month or year is one table already.
 *
 * A day that is loaded again, or that was missing when its period was combined,
 * goes inside the table: it is loaded into a stage that nobody sees, judged as
 * any day, and then its old rows are deleted and the new ones inserted in one
 * transaction.  Readers see the old rows until it commits, and never wait.
 *
 * A table that has not the template's columns or indexes cannot take the new
 * rows.  It is copied as combine.c copies days, and the copy takes its place.
 *
 * Called by refresh.c and subscribe.c.  May not fetch, and takes no lock that a
 * reader feels but in wh_late_finish().
 *
 * Locks, in this order: the caller has that of the day's name; that of the
 * table's name; RowExclusiveLock on the table, or what keeps out everybody but
 * readers while it is copied; in wh_late_finish() the rows of the ledger, then
 * what replace.c and publish.c lock, then a relation of the day's own.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "combine.h"
#include "late.h"
#include "ledger.h"
#include "politely.h"
#include "publish.h"
#include "refresh.h"
#include "replace.h"
#include "sqlutil.h"
#include "status.h"
#include "swap.h"
#include "template_code.h"
#include "there.h"
#include "tree.h"
#include "user_views.h"
#include "view.h"

/* ---- which table ---- */

static void
set_period(WhLateTable *table, int year, int month)
{
	table->period = month == 0 ? psprintf("%04d", year) : psprintf("%04d-%02d", year, month);
	table->first = date2j(year, Max(month, 1), 1) - POSTGRES_EPOCH_JDATE;
	table->last = (month == 0 || month == MONTHS_PER_YEAR ? date2j(year + 1, 1, 1) :
				   date2j(year, month + 1, 1)) - POSTGRES_EPOCH_JDATE - 1;
}

WhLateTable *
wh_late_find(const char *template_name, const char *schema, DateADT date)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhLateTable *table = NULL;
	int			year;
	int			month;
	int			day;
	char	   *month_name;

	j2date(date + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	month_name = wh_template_period_name(template_name, year, month);
	wh_spi_begin();
	{
		WhArg		args[] = {
			WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(date),
			WH_DATE(date2j(year, 1, 1) - POSTGRES_EPOCH_JDATE),
			WH_DATE(date2j(year, 12, 31) - POSTGRES_EPOCH_JDATE),
			WH_TEXT(month_name), WH_TEXT(wh_template_period_name(template_name, year, 0))
		};

		if (wh_query_latest("SELECT d.relation, d.relation_oid, pg_catalog.min(d.indexes_md5),"
							"       pg_catalog.count(*), pg_catalog.bool_or(d.target_date = $3) AS holds_day,"
							"       pg_catalog.sum(d.rows) FILTER (WHERE d.target_date = $3)::pg_catalog.int8"
							"  FROM _wh.day_loads d"
							" WHERE d.template_name = $1 AND d.target_schema = $2"
							"   AND d.target_date BETWEEN $4 AND $5 AND d.relation IN ($6, $7)"
							"   AND d.relation_oid IS NOT NULL AND " WH_DAY_IS_THERE
							" GROUP BY d.relation, d.relation_oid"
							" ORDER BY holds_day DESC, d.relation = $6 DESC LIMIT 1",
							lengthof(args), args) > 0)
		{
			table = MemoryContextAllocZero(cxt, sizeof(WhLateTable));
			table->relname = wh_get_text(cxt, 0, 1);
			table->relid = wh_get_oid(0, 2);
			table->indexes_md5 = wh_get_text(cxt, 0, 3);
			table->days = wh_get_int8(0, 4);
			table->holds_day = wh_get_bool(0, 5);
			table->rows = wh_get_int8(0, 6);
		}
	}
	wh_spi_end();
	if (table != NULL)
		set_period(table, year, strcmp(table->relname, month_name) == 0 ? month : 0);
	return table;
}

static void
report_gone(const char *schema, const char *relname)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("table \"%s.%s\" was dropped or renamed at the same time", schema, relname)));
}

/* A person who had it locked before us may have taken it away. */
static void
lock_table(const char *schema, const WhLateTable *table, LOCKMODE mode)
{
	LockRelationOid(table->relid, mode);
	if (get_relname_relid(table->relname, get_namespace_oid(schema, false)) != table->relid)
		report_gone(schema, table->relname);
}

/*
 * The table as it is now that nobody else is at it.  Of one that this
 * transaction has remade the ledger does not know before the days are finished.
 */
static WhLateTable *
lock_and_find(const WhRefresh *refresh, List **tables)
{
	WhLateTable *table;
	ListCell   *cell;

	wh_load_lock(refresh->schema, refresh->late->relname);
	table = wh_late_find(refresh->tmpl->name, refresh->schema, refresh->date);
	if (table == NULL || strcmp(table->relname, refresh->late->relname) != 0)
		report_gone(refresh->schema, refresh->late->relname);
	lock_table(refresh->schema, table, RowExclusiveLock);
	foreach(cell, *tables)
	{
		WhLateTable *known = lfirst(cell);

		if (known->relid != table->relid)
			continue;
		known->holds_day = table->holds_day;
		known->rows = table->rows;
		return known;
	}
	*tables = lappend(*tables, table);
	return table;
}

/* ---- a stage that nobody sees ---- */

WhLoadedDay *
wh_late_stage(const WhRefresh *refresh, WhRowSource source, void *arg)
{
	WhLoadedDay *day = palloc0(sizeof(WhLoadedDay));
	char	   *name = wh_replace_temporary_name(refresh->relname);

	day->schema = refresh->schema;
	day->relname = refresh->relname;
	day->created = true;
	wh_spi_begin();
	wh_utility("CREATE UNLOGGED TABLE %s (%s)", quote_qualified_identifier(refresh->schema, name),
			   wh_template_column_definition_list(refresh->tmpl));
	wh_spi_end();
	day->relid = get_relname_relid(name, get_namespace_oid(refresh->schema, false));
	wh_status_phase(WH_PHASE_FETCHING);
	day->rows = wh_rows_load(day->relid, source, arg);
	if (refresh->leaf != NULL)
		wh_leaf_check_rows(refresh->leaf, day->relid);
	return day;
}

/* ---- a table that was adopted ---- */

/*
 * Of such a table nothing but date_column says which day a row is of.  If that
 * is another column since, rows of other days would go, and some stay twice: a
 * look at all days tells.
 */
static void
check_date_column(const WhTemplate *tmpl, const char *schema, const WhLateTable *table)
{
	Datum		relid = ObjectIdGetDatum(table->relid);
	char	   *difference;

	if (get_attnum(table->relid, WH_DATE_COLUMN) != InvalidAttrNumber ||
		get_attnum(table->relid, WH_SCHEMA_NAME_COLUMN) != InvalidAttrNumber)
		return;
	difference = wh_combine_difference(tmpl, schema, table->relid, wh_oid_array(&relid, 1));
	if (difference != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("by column \"%s\" table \"%s.%s\" does not have the days that the ledger says",
						tmpl->date_column, schema, table->relname),
				 errdetail("%s", difference),
				 errhint("Set date_column of the template to what it was when the table was taken over, or mend the rows.")));
}

/* ---- a table that has to be remade ---- */

static char *
qualified_name(const char *schema, Oid relid)
{
	return quote_qualified_identifier(schema, get_rel_name(relid));
}

static void
check_remade(const WhRefresh *refresh, const WhLateTable *table)
{
	char	   *sql = psprintf(
		"SELECT FROM (SELECT %s AS day, pg_catalog.count(*) AS rows FROM ONLY %s GROUP BY 1) n"
		"  FULL JOIN (SELECT %s AS day, pg_catalog.count(*) AS rows FROM ONLY %s GROUP BY 1) o"
		"  USING (day) WHERE n.rows IS DISTINCT FROM o.rows LIMIT 1",
		wh_combine_day_expression(refresh->tmpl, table->remade), qualified_name(refresh->schema, table->remade),
		wh_combine_day_expression(refresh->tmpl, table->relid), qualified_name(refresh->schema, table->relid));

	wh_spi_begin();
	if (wh_query_once(sql, 0, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the copy of table \"%s.%s\" does not have its rows",
						refresh->schema, table->relname)));
	wh_spi_end();
}

/* The copy has the columns and indexes of the template. */
static void
remake(const WhRefresh *refresh, WhLateTable *table)
{
	WhCombineMember member = {
		.relid = table->relid, .relname = table->relname, .is_table = true, .is_combined = true
	};
	WhCombine	combine = {
		.template_name = refresh->tmpl->name, .tenant_name = refresh->tenant->name,
		.schema = refresh->schema, .tmpl = refresh->tmpl, .period = table->period,
		.first = table->first, .last = table->last,
		.relname = wh_replace_temporary_name(table->relname), .nmembers = 1, .members = &member
	};

	lock_table(refresh->schema, table, ShareRowExclusiveLock);
	check_date_column(refresh->tmpl, refresh->schema, table);
	wh_combine_fill(&combine);
	table->remade = combine.relid;
	check_remade(refresh, table);
}

/* What a failed attempt at another day made is gone with it. */
static void
remake_if_needed(const WhRefresh *refresh, WhLateTable *table)
{
	if (OidIsValid(table->remade) &&
		!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(table->remade)))
		table->remade = InvalidOid;
	if (!OidIsValid(table->remade) &&
		wh_replace_needed(refresh->tmpl, wh_combine_columns(refresh->tmpl), table->relid,
						  table->indexes_md5))
		remake(refresh, table);
}

static Oid
content_of(const WhLateTable *table)
{
	return OidIsValid(table->remade) ? table->remade : table->relid;
}

/* ---- the rows of a day ---- */

static char *
condition(const WhTemplate *tmpl, const char *schema, Oid relid, DateADT date)
{
	WhLeaf		leaf = {tmpl, schema, date, date};

	if (get_attnum(relid, WH_DATE_COLUMN) == InvalidAttrNumber)
		return wh_leaf_condition(&leaf);
	return psprintf(WH_DATE_COLUMN " = %s", quote_literal_cstr(wh_date_text(date)));
}

/* A trigger or a rule may keep rows; with the new ones they would be there twice. */
static void
check_none_is_left(const char *name, const char *where, DateADT date)
{
	if (wh_query_once(psprintf("SELECT FROM ONLY %s WHERE %s LIMIT 1", name, where), 0, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s keeps rows of %s that were deleted", name, wh_date_text(date)),
				 errhint("Drop the triggers and rules of that table.")));
}

/* Looks again only where the ledger expected other rows to go. */
static int64
delete_rows(const WhTemplate *tmpl, const char *schema, Oid relid, DateADT date, int64 expected)
{
	char	   *name = qualified_name(schema, relid);
	char	   *where = condition(tmpl, schema, relid, date);
	WhRestricted restricted;
	int64		rows;

	wh_restricted_begin(&restricted);
	wh_spi_begin();
	rows = (int64) wh_query_once(psprintf("DELETE FROM ONLY %s WHERE %s", name, where), 0, NULL);
	if (rows != expected)
		check_none_is_left(name, where, date);
	wh_spi_end();
	wh_restricted_end(&restricted);
	return rows;
}

static int64
expected_rows(const WhLateTable *table)
{
	return table->holds_day ? table->rows : 0;
}

/* What is replaced need not be right, but whoever changed it should know. */
static void
warn_of_other_rows(const WhRefresh *refresh, const WhLateTable *table, int64 deleted)
{
	int64		expected = expected_rows(table);

	if (deleted != expected)
		ereport(WARNING,
				(errmsg("table \"%s.%s\" had " INT64_FORMAT " rows of %s, the ledger " INT64_FORMAT,
						refresh->schema, table->relname, deleted, wh_date_text(refresh->date), expected),
				 errdetail("They are replaced.")));
}

static int64
insert_rows(const WhRefresh *refresh, const WhLateTable *table)
{
	char	   *columns = wh_template_column_list(refresh->tmpl);
	bool		in_tree = refresh->leaf != NULL;
	WhRestricted restricted;
	int64		rows;

	wh_restricted_begin(&restricted);
	wh_spi_begin();
	rows = (int64) wh_query_once(psprintf("INSERT INTO %s (%s, %s) SELECT %s, %s FROM ONLY %s",
										  qualified_name(refresh->schema, content_of(table)), columns,
										  in_tree ? WH_SCHEMA_NAME_COLUMN : WH_DATE_COLUMN, columns,
										  quote_literal_cstr(in_tree ? refresh->schema : wh_date_text(refresh->date)),
										  qualified_name(refresh->schema, refresh->day->relid)),
								 0, NULL);
	wh_spi_end();
	wh_restricted_end(&restricted);
	return rows;
}

/* The other row may be of the same day: the stage has no indexes. */
static void
report_duplicate_key(const WhRefresh *refresh, const WhLateTable *table, const ErrorData *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("the key of index \"%s\" of template \"%s\" does not hold over %s with the rows of %s",
					error->constraint_name, refresh->tmpl->name, table->period,
					wh_date_text(refresh->date)),
			 error->detail != NULL ? errdetail("%s", error->detail) : 0,
			 errhint("Nothing was changed. Mend the rows at the tenant, or the indexes of the template.")));
}

static void
insert_day(const WhRefresh *refresh, const WhLateTable *table)
{
	MemoryContext context = CurrentMemoryContext;
	int64		rows = 0;

	PG_TRY();
	{
		rows = insert_rows(refresh, table);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		report_duplicate_key(refresh, table, error);
	}
	PG_END_TRY();
	if (rows != refresh->day->rows)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" took " INT64_FORMAT " rows of " INT64_FORMAT,
						refresh->schema, table->relname, rows, refresh->day->rows),
				 errhint("Drop the triggers and rules of that table.")));
}

void
wh_late_prepare(WhRefresh *refresh, List **tables)
{
	WhLateTable *table;

	wh_status_phase(WH_PHASE_COMBINING);
	table = lock_and_find(refresh, tables);
	wh_template_code_check_columns(refresh->tmpl->columns);
	remake_if_needed(refresh, table);
	wh_template_code_check_relation(content_of(table));
	warn_of_other_rows(refresh, table,
					   delete_rows(refresh->tmpl, refresh->schema, content_of(table), refresh->date,
								   expected_rows(table)));
	insert_day(refresh, table);
	if (OidIsValid(table->remade))
		wh_swap_write_out(table->remade);
	wh_load_discard(refresh->day);
	refresh->day->relid = content_of(table);
	refresh->day->created = false;
	refresh->late = table;
}

/* ---- the end ---- */

/* Several days of one table may be finished one after the other. */
static void
put_remade_in_place(const WhRefresh *refresh)
{
	const WhLateTable *table = refresh->late;
	WhLeaf		leaf = {refresh->tmpl, refresh->schema, table->first, table->last};

	if (!OidIsValid(table->remade) ||
		get_relname_relid(table->relname, get_namespace_oid(refresh->schema, false)) == table->remade)
		return;
	wh_replace_finish(refresh->tmpl, refresh->schema, table->relname, table->relid, table->remade,
					  refresh->leaf != NULL ? &leaf : NULL);
	wh_ledger_remade(refresh->tmpl, table->relid, table->remade);
}

/* Made by somebody else, or gone: then it is not ours to drop. */
static bool
is_own_relation(const WhRefresh *refresh, Oid relid)
{
	return OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_MATVIEW &&
		get_relname_relid(refresh->relname, get_namespace_oid(refresh->schema, false)) == relid;
}

/* Readers lock the view before its days; from here on it does not read this one. */
static void
drop_own_relation(const WhRefresh *refresh, Oid relid)
{
	wh_publish_tenant_view(refresh->tmpl->name, refresh->schema);
	wh_user_views_refuse(wh_oid_array(&(Datum) {ObjectIdGetDatum(relid)}, 1),
						 psprintf("materialized view \"%s.%s\" cannot be moved into table \"%s.%s\"",
								  refresh->schema, refresh->relname,
								  refresh->schema, refresh->late->relname));
	wh_tree_drop_relation(refresh->schema, refresh->relname, relid);
}

void
wh_late_finish(WhRefresh *refresh, Oid own_relid)
{
	put_remade_in_place(refresh);
	wh_ledger_write_late(refresh);
	if (is_own_relation(refresh, own_relid))
		drop_own_relation(refresh, own_relid);
}

bool
wh_late_delete(const char *template_name, const char *schema, DateADT date)
{
	WhLateTable *table = wh_late_find(template_name, schema, date);
	WhTemplate *tmpl;

	if (table == NULL || !table->holds_day)
		return false;
	wh_load_lock(schema, table->relname);
	table = wh_late_find(template_name, schema, date);
	if (table == NULL || !table->holds_day || table->days == 1)
		return false;
	lock_table(schema, table, RowExclusiveLock);
	wh_template_code_check_relation(table->relid);
	tmpl = wh_template_read(template_name);
	check_date_column(tmpl, schema, table);
	(void) delete_rows(tmpl, schema, table->relid, date, expected_rows(table));
	return true;
}
