/*
 * combine.c: the days of a month or year in one table.
 *
 * A union of days grows a relation per tenant and day, and with it the time to
 * plan and the locks of every query.  Here the days of a period that is over
 * become one table; the tenant view reads that, and the days are dropped.
 *
 * Called by combine_sql.c.  All of it is one transaction, the caller's, so that
 * a crash leaves either the days or the table.  Nothing is dropped before what
 * replaces it is counted and in the view.  Reads no tenant.
 *
 * Locks, in this order: those of combine_members.c; then, politely and all in
 * one attempt: the ledger rows of the members, what publish.c locks, the members
 * for good.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/parsenodes.h"
#include "portability/instr_time.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "clock.h"
#include "combine.h"
#include "combine_due.h"
#include "grants.h"
#include "hold.h"
#include "load.h"
#include "member_rows.h"
#include "politely.h"
#include "publish.h"
#include "sqlutil.h"
#include "status.h"
#include "swap.h"
#include "template_code.h"
#include "tenant.h"
#include "tier.h"
#include "tree.h"
#include "user_views.h"

static double
seconds_since(instr_time start)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, start);
	return INSTR_TIME_GET_DOUBLE(now);
}

static DateADT
first_of(int year, int month)
{
	return date2j(year, month, 1) - POSTGRES_EPOCH_JDATE;
}

/* ---- what is asked for ---- */

static void
check_period(const WhCombine *combine)
{
	if (combine->year < 1 || combine->year > 9999)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("year %d is out of range", combine->year),
				 errhint("Years are from 1 to 9999.")));
	if (combine->month < 0 || combine->month > 12)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("month %d is out of range", combine->month),
				 errhint("Months are from 1 to 12.")));
}

static void
check_is_over(const WhCombine *combine)
{
	if (combine->last >= wh_clock_today())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s is not over and cannot be combined",
						combine->month == 0 ? "year" : "month", combine->period),
				 errhint("Days are UTC dates; it is %s.", wh_date_text(wh_clock_today()))));
}

static void
check_subscription(const WhCombine *combine)
{
	WhArg		args[] = {WH_TEXT(combine->template_name), WH_TEXT(combine->schema), WH_TEXT(combine->tenant_name)};

	wh_spi_begin();
	if (wh_query("SELECT FROM _wh.tenant_templates"
				 " WHERE template_name = $1 AND target_schema = $2 AND tenant_name = $3",
				 lengthof(args), args) == 0)
	{
		wh_tenant_require(combine->tenant_name);
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("tenant \"%s\" does not feed template \"%s\" into schema \"%s\"",
						combine->tenant_name, combine->template_name, combine->schema),
				 errhint("Subscriptions are the rows of _wh.tenant_templates.")));
	}
	wh_spi_end();
}

static void
read_request(WhCombine *combine)
{
	int			year = combine->year;
	int			month = combine->month;

	combine->tmpl = wh_template_read(combine->template_name);
	check_subscription(combine);
	check_period(combine);
	combine->first = first_of(year, Max(month, 1));
	combine->last = (month == 0 || month == 12 ? first_of(year + 1, 1) : first_of(year, month + 1)) - 1;
	combine->period = month == 0 ? psprintf("%04d", year) : psprintf("%04d-%02d", year, month);
	combine->relname = wh_template_period_name(combine->template_name, year, month);
	check_is_over(combine);
}

/* ---- what there is ---- */

static void
check_name_is_free(const WhCombine *combine)
{
	if (OidIsValid(get_relname_relid(combine->relname, get_namespace_oid(combine->schema, false))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s.%s\" exists and was not made by wh_worker",
						combine->schema, combine->relname),
				 errhint("Rename or drop it; its name is needed for the table of %s.", combine->period)));
}

static void
check_missing(const WhCombine *combine)
{
	if (combine->nmembers == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no day of %s of template \"%s\" is loaded in schema \"%s\"",
						combine->period, combine->template_name, combine->schema),
				 errhint("Load them with _wh.enqueue_backfill().")));
	if (combine->nmissing > 0 && !combine->allow_missing)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg_plural("%d day of %s of template \"%s\" is missing in schema \"%s\"",
							   "%d days of %s of template \"%s\" are missing in schema \"%s\"",
							   combine->nmissing, combine->nmissing, combine->period,
							   combine->template_name, combine->schema),
				 errdetail("Missing: %s.", wh_combine_name_days(combine->missing, combine->nmissing)),
				 errhint("Load them with _wh.enqueue_backfill(), or combine without them: allow_missing => true.")));
}

/* ---- the table ---- */

static void
create_table(WhCombine *combine)
{
	char	   *name = quote_qualified_identifier(combine->schema, combine->relname);
	WhLeaf		leaf = wh_combine_leaf(combine);

	combine->tablespace = wh_tier_tablespace(combine->template_name,
											 combine->last - combine->first > 31 ? WH_TIER_YEAR : WH_TIER_MONTH);
	wh_spi_begin();
	if (combine->tmpl->in_tree)
		(void) wh_leaf_create(&leaf, combine->relname, combine->tablespace);
	else
		wh_utility("CREATE TABLE %s (%s, " WH_DATE_COLUMN " pg_catalog.date)%s%s", name,
				   wh_template_column_definition_list(combine->tmpl),
				   combine->tablespace ? " TABLESPACE " : "",
				   combine->tablespace ? wh_quote(combine->tablespace) : "");
	wh_utility("COMMENT ON TABLE %s IS %s", name,
			   quote_literal_cstr(psprintf("Days of %s of template \"%s\" of tenant \"%s\"; made by wh_worker",
										   combine->period, combine->template_name, combine->tenant_name)));
	wh_grants_relation(combine->schema, combine->relname);
	wh_spi_end();
	combine->relid = get_relname_relid(combine->relname, get_namespace_oid(combine->schema, false));
}

/* A key of a day need not be one of a year. */
static void
report_duplicate_key(const WhCombine *combine, const char *index_name, const ErrorData *error)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("the key of index \"%s\" is unique in each day of template \"%s\", but not over %s",
					index_name, combine->template_name, combine->period),
			 error->detail != NULL ? errdetail("%s", error->detail) : 0,
			 errhint("Nothing was changed. Add a column that tells the days apart to that index in the template, or leave out UNIQUE.")));
}

static void
build_index(const WhCombine *combine, IndexStmt *index)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *index_name = pstrdup(index->idxname);

	PG_TRY();
	{
		wh_load_indexes(list_make1(index), combine->schema);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (geterrcode() != ERRCODE_UNIQUE_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		report_duplicate_key(combine, index_name, error);
	}
	PG_END_TRY();
}

static void
build_indexes(const WhCombine *combine)
{
	ListCell   *cell;

	wh_status_phase(WH_PHASE_INDEXING);
	foreach(cell, wh_template_indexes(combine->tmpl, combine->schema, combine->relname))
	{
		IndexStmt  *index = lfirst_node(IndexStmt, cell);

		if (index->tableSpace == NULL)
			index->tableSpace = combine->tablespace;
		build_index(combine, index);
	}
	wh_spi_begin();
	wh_utility("ANALYZE %s", quote_qualified_identifier(combine->schema, combine->relname));
	wh_spi_end();
	wh_status_phase(WH_PHASE_COMBINING);
}

char *
wh_combine_day_expression(const WhTemplate *tmpl, Oid relid)
{
	if (get_attnum(relid, WH_DATE_COLUMN) != InvalidAttrNumber)
		return WH_DATE_COLUMN;
	return wh_leaf_day_expression(tmpl);
}

WhLeaf
wh_combine_leaf(const WhCombine *combine)
{
	WhLeaf		leaf = {combine->tmpl, combine->schema, combine->first, combine->last};

	return leaf;
}

TupleDesc
wh_combine_columns(const WhTemplate *tmpl)
{
	int			natts = tmpl->columns->natts;
	TupleDesc	columns = CreateTemplateTupleDesc(natts + 1);

	for (int i = 1; i <= natts; i++)
		TupleDescCopyEntry(columns, i, tmpl->columns, i);
	TupleDescInitEntry(columns, natts + 1, WH_DATE_COLUMN, DATEOID, -1, 0);
	return columns;
}

void
wh_combine_fill(WhCombine *combine)
{
	int			nest_level = wh_member_rows_begin_settings();
	WhRestricted restricted;
	instr_time	start;

	wh_template_code_check_columns(combine->tmpl->columns);
	wh_restricted_begin(&restricted);
	INSTR_TIME_SET_CURRENT(start);
	create_table(combine);
	wh_combine_copy(combine);
	combine->copy_seconds = seconds_since(start);

	INSTR_TIME_SET_CURRENT(start);
	build_indexes(combine);
	combine->index_seconds = seconds_since(start);
	wh_restricted_end(&restricted);
	AtEOXact_GUC(true, nest_level);
}

static void
check_table(WhCombine *combine)
{
	int			nest_level = wh_member_rows_begin_settings();
	instr_time	start;

	INSTR_TIME_SET_CURRENT(start);
	wh_combine_check(combine);
	combine->check_seconds = seconds_since(start);
	AtEOXact_GUC(true, nest_level);
}

/* ---- in the place of its days ---- */

/*
 * Every day gets its share of the bytes, by its rows, so that sums over days stay
 * right: the shares are differences of sums that are rounded, and so add up.
 */
static void
write_ledger(const WhCombine *combine)
{
	int64		days = 0;
	WhArg		args[] = {
		WH_TEXT(combine->template_name), WH_TEXT(combine->schema),
		WH_DATE(combine->first), WH_DATE(combine->last),
		wh_arg(OIDARRAYOID, wh_combine_member_oids(combine)),
		WH_TEXT(combine->relname), WH_OID(combine->relid), WH_OID(wh_load_file(combine->relid)),
		WH_INT8(combine->bytes), WH_INT8(combine->rows), WH_TEXT(combine->tmpl->indexes), WH_INT8(0)
	};

	for (int i = 0; i < combine->nmembers; i++)
		days += combine->members[i].days;
	args[lengthof(args) - 1] = WH_INT8(days);
	if (wh_query("WITH weighed AS (SELECT target_date, CASE WHEN $10 = 0 THEN 1 ELSE rows END AS weight,"
				 "     CASE WHEN $10 = 0 THEN $12 ELSE $10 END AS total"
				 "    FROM _wh.day_loads WHERE template_name = $1 AND target_schema = $2"
				 "     AND target_date BETWEEN $3 AND $4 AND relation_oid = ANY ($5)),"
				 "  summed AS (SELECT target_date, weight, total,"
				 "     pg_catalog.sum(weight) OVER (ORDER BY target_date) AS upto FROM weighed)"
				 " UPDATE _wh.day_loads d"
				 "   SET state = CASE d.state WHEN 'suspect' THEN d.state ELSE 'combined' END, relation = $6,"
				 "       relation_oid = $7, relation_file = $8,"
				 "       bytes = (pg_catalog.div($9 * s.upto, s.total)"
				 "         - pg_catalog.div($9 * (s.upto - s.weight), s.total))::pg_catalog.int8,"
				 "       indexes_md5 = pg_catalog.md5($11), counted = false"
				 "   FROM summed s"
				 "  WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = s.target_date"
				 "   AND d.relation_oid = ANY ($5)", lengthof(args), args) != (uint64) days)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the ledger of template \"%s\" changed in schema \"%s\" while %s was combined",
						combine->template_name, combine->schema, combine->period)));
}

/* Those that are in a tree, or the others; nobody may depend on them. */
static void
drop_members(const WhCombine *combine, bool in_tree)
{
	Datum	   *oids = palloc(sizeof(Datum) * combine->nmembers);
	int			n = 0;

	for (int i = 0; i < combine->nmembers; i++)
		if (combine->members[i].in_tree == in_tree)
			oids[n++] = ObjectIdGetDatum(combine->members[i].relid);
	wh_user_views_refuse(wh_oid_array(oids, n),
						 psprintf("days of %s of template \"%s\" in schema \"%s\" cannot be combined",
								  combine->period, combine->template_name, combine->schema));
	for (int i = 0; i < combine->nmembers; i++)
		if (combine->members[i].in_tree == in_tree)
			wh_tree_drop_relation(combine->schema, combine->members[i].relname, combine->members[i].relid);
}

/*
 * Leaves hold the days that the new one is to hold, and no view names them.
 * What is not in the tree is read by the tenant view, which comes before it.
 */
static void
exchange_relations(const WhCombine *combine)
{
	WhLeaf		leaf = wh_combine_leaf(combine);

	if (combine->tmpl->in_tree)
	{
		drop_members(combine, true);
		wh_leaf_attach(&leaf, combine->relid);
	}
	wh_publish_tenant_view(combine->template_name, combine->schema);
	wh_publish_public_view(combine->template_name);
	wh_publish_counters(combine->template_name, combine->schema);
	drop_members(combine, false);
	if (!combine->tmpl->in_tree)
		drop_members(combine, true);
}

/* May be rolled back and started over; see politely.h. */
static void
exchange(void *arg)
{
	const WhCombine *combine = arg;
	char	   *meanwhile = psprintf("%s was combined", combine->period);

	wh_spi_begin();
	/* one that is being removed drops the days itself, and waits for our locks */
	wh_hold_subscription(combine->template_name, combine->tenant_name, combine->schema, true, meanwhile);
	(void) wh_hold_template(combine->tmpl, meanwhile);
	write_ledger(combine);
	exchange_relations(combine);
	wh_spi_end();
}

static void
put_in_place(WhCombine *combine)
{
	instr_time	start;

	combine->bytes = wh_load_bytes(combine->relid);
	wh_swap_write_out(combine->relid);
	INSTR_TIME_SET_CURRENT(start);
	wh_politely(InvalidOid, exchange, combine);
	combine->exchange_seconds = seconds_since(start);
}

/* ---- all of it ---- */

void
wh_combine(WhCombine *combine)
{
	read_request(combine);
	wh_status_phase(WH_PHASE_COMBINING);
	if (OidIsValid(get_namespace_oid(combine->schema, true)))
		wh_combine_lock_members(combine);
	if (combine->already_combined)
		combine->bytes = wh_load_bytes(combine->relid);
	else
	{
		combine->nmissing = wh_combine_missing(combine->template_name, combine->schema,
											   combine->first, combine->last, &combine->missing);
		if (combine->nmembers > 0)
			check_name_is_free(combine);
		check_missing(combine);
		wh_combine_fill(combine);
		check_table(combine);
		put_in_place(combine);
	}
	wh_status_phase(WH_PHASE_IDLE);
}

char *
wh_combine_summary(const WhCombine *combine)
{
	if (combine->already_combined)
		return psprintf("already combined in \"%s.%s\"", combine->schema, combine->relname);
	return psprintf("combined " INT64_FORMAT " rows of %d relations", combine->rows, combine->nmembers);
}
