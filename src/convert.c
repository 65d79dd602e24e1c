/*
 * convert.c: one relation from one layout of its template into the other.
 *
 * A day, month or year that is in the other layout is read here, not at its
 * tenant: its rows are written into a new relation under a temporary name, are
 * counted, and in the end the new one takes the place of the old one, in the
 * views or in the tree.  All that is one transaction, so that a crash leaves the
 * old one, and the job.  The content is as old as it was: when it was loaded,
 * and for which version of the template, stays.
 *
 * Called by worker.c.  May not ask a tenant, and does not choose what is moved.
 *
 * Locks, in this order: the advisory lock of the relation's name, as a load
 * takes it; on the relation what keeps out everybody who changes it and lets
 * readers be; then, politely and all in one attempt: the subscription, the
 * template, the ledger rows, the advisory lock of the tenant view, what replace.c
 * locks, the advisory lock of the public view, the row of the job.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/tablespace.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "combine.h"
#include "convert.h"
#include "fetch_day.h"
#include "grants.h"
#include "hold.h"
#include "ledger.h"
#include "load.h"
#include "member_rows.h"
#include "politely.h"
#include "publish.h"
#include "replace.h"
#include "sqlutil.h"
#include "status.h"
#include "swap.h"
#include "template_code.h"
#include "there.h"
#include "tree.h"
#include "view.h"

/* How often the relation of a day may change while we wait for its lock. */
#define MAX_LOOKS 10

typedef struct Conversion
{
	const WhJob *job;
	WhTemplate *tmpl;
	Oid			relid;			/* as it is now */
	char	   *relname;
	int64		days;			/* that the ledger says it holds */
	int64		rows;
	bool		is_period;		/* a month or year */
	WhLeaf		leaf;			/* its name says which days it is for */
	WhLoadedDay *made;			/* what takes its place */
} Conversion;

#define SUBSCRIPTION_ARGS(conversion) \
	WH_TEXT((conversion)->job->template_name), WH_TEXT((conversion)->job->target_schema)

static char *
qualified_name(const Conversion *conversion, const char *relname)
{
	return quote_qualified_identifier(conversion->job->target_schema, relname);
}

/* ---- what is to be moved ---- */

/* What holds the day of the job now; it may have been combined since that was queued. */
static bool
find_relation(Conversion *conversion)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {SUBSCRIPTION_ARGS(conversion), WH_DATE(conversion->job->target_date)};
	bool		found;

	wh_spi_begin();
	found = wh_query_latest("SELECT d.relation_oid, d.relation, count(*), sum(d.rows)::bigint, min(d.target_date)"
							"  FROM _wh.day_loads d"
							" WHERE d.template_name = $1 AND d.target_schema = $2"
							"   AND d.relation_oid = (SELECT o.relation_oid FROM _wh.day_loads o"
							"     WHERE o.template_name = $1 AND o.target_schema = $2 AND o.target_date = $3)"
							"   AND " WH_DAY_IS_THERE
							" GROUP BY d.relation_oid, d.relation", lengthof(args), args) > 0;
	if (found)
	{
		conversion->relid = wh_get_oid(0, 1);
		conversion->relname = wh_get_text(cxt, 0, 2);
		conversion->days = wh_get_int8(0, 3);
		conversion->rows = wh_get_int8(0, 4);
		conversion->leaf.first = wh_get_date(0, 5);
	}
	wh_spi_end();
	return found;
}

static void
report_change(const Conversion *conversion)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("relation \"%s.%s\" was loaded, combined, dropped or renamed at the same time",
					conversion->job->target_schema, conversion->relname)));
}

static DateADT
first_of(int year, int month)
{
	return date2j(year, month, 1) - POSTGRES_EPOCH_JDATE;
}

/* Its first day need not be the first of its month, where the tenant joined in it. */
static void
read_period(Conversion *conversion)
{
	const char *template_name = conversion->tmpl->name;
	const char *relname = conversion->relname;
	WhLeaf	   *leaf = &conversion->leaf;
	int			year;
	int			month;
	int			day;

	leaf->tmpl = conversion->tmpl;
	leaf->schema = conversion->job->target_schema;
	leaf->last = leaf->first;
	conversion->is_period = strcmp(relname, wh_template_day_name(template_name, leaf->first)) != 0;
	if (!conversion->is_period)
		return;
	j2date(leaf->first + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	if (strcmp(relname, wh_template_period_name(template_name, year, month)) == 0)
	{
		leaf->first = first_of(year, month);
		leaf->last = (month == MONTHS_PER_YEAR ? first_of(year + 1, 1) : first_of(year, month + 1)) - 1;
	}
	else if (strcmp(relname, wh_template_period_name(template_name, year, 0)) == 0)
	{
		leaf->first = first_of(year, 1);
		leaf->last = first_of(year + 1, 1) - 1;
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("relation \"%s.%s\" has not the name of a day, month or year of template \"%s\"",
						conversion->job->target_schema, relname, template_name)));
}

static bool
is_in_place(const Conversion *conversion)
{
	return OidIsValid(wh_tree_parent(conversion->relid)) == conversion->tmpl->in_tree;
}

/* REFRESH, DROP, VACUUM and index DDL are kept out; a table could be written to as well. */
static void
lock_relation(const Conversion *conversion)
{
	const WhJob *job = conversion->job;

	LockRelationOid(conversion->relid, get_rel_relkind(conversion->relid) == RELKIND_MATVIEW ?
					ShareUpdateExclusiveLock : ShareRowExclusiveLock);
	if (get_relname_relid(conversion->relname, get_namespace_oid(job->target_schema, true)) != conversion->relid)
		report_change(conversion);
}

/* False: there is nothing to move.  Whoever loads or combines it has the lock of its name. */
static bool
find_and_lock(Conversion *conversion)
{
	for (int look = 0; look < MAX_LOOKS; look++)
	{
		Oid			relid;

		if (!find_relation(conversion) || is_in_place(conversion))
			return false;
		relid = conversion->relid;
		wh_status_phase(WH_PHASE_WAITING_LOCK);
		wh_load_lock(conversion->job->target_schema, conversion->relname);
		wh_status_phase(WH_PHASE_COMBINING);
		if (!find_relation(conversion))
			return false;
		if (conversion->relid != relid)
			continue;
		lock_relation(conversion);
		read_period(conversion);
		return !is_in_place(conversion);
	}
	report_change(conversion);
	return false;
}

/* ---- the new relation ---- */

/* Its rows with the columns of the template, and if asked for the date as it has it. */
static char *
rows_query(const Conversion *conversion, const char *date)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	wh_view_append_columns(&sql, conversion->tmpl->columns, conversion->relid);
	if (date != NULL)
		appendStringInfo(&sql, ", %s", date);
	appendStringInfo(&sql, " FROM ONLY %s", qualified_name(conversion, conversion->relname));
	return sql.data;
}

static void
fill_target(const Conversion *conversion, WhDayTarget *target)
{
	const WhJob *job = conversion->job;
	WhTemplate *tmpl = conversion->tmpl;

	memset(target, 0, sizeof(*target));
	target->schema = job->target_schema;
	target->relname = wh_replace_temporary_name(conversion->relname);
	target->columns = tmpl->columns;
	if (tmpl->in_tree)
		target->leaf = &conversion->leaf;
	else if (conversion->is_period)
		target->columns = wh_combine_columns(tmpl);
	else
		target->definition = wh_day_definition(tmpl, job->tenant_name, conversion->leaf.first);
	target->indexes = wh_template_indexes(tmpl, job->target_schema, target->relname);
}

/* Where the old one is, the new one and its indexes are made. */
static int
begin_settings(const Conversion *conversion)
{
	int			nest_level = wh_member_rows_begin_settings();
	Oid			tablespace = get_rel_tablespace(conversion->relid);

	(void) set_config_option("default_tablespace",
							 OidIsValid(tablespace) ? get_tablespace_name(tablespace) : "",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}

/* The bounds of a month let pass what is in another day of it.  Of one that was adopted nothing else says the day. */
static void
check_days_of_rows(const Conversion *conversion)
{
	const WhTemplate *tmpl = conversion->tmpl;
	int64		rows;

	wh_spi_begin();
	wh_query_once(psprintf("SELECT pg_catalog.count(*), pg_catalog.min(%s)::pg_catalog.text FROM (%s) r"
						   " WHERE %s IS DISTINCT FROM " WH_DATE_COLUMN,
						   wh_quote(tmpl->date_column), rows_query(conversion, WH_DATE_COLUMN),
						   wh_leaf_day_expression(tmpl)), 0, NULL);
	rows = wh_get_int8(0, 1);
	if (rows > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg_plural("%lld row of table \"%s.%s\" is outside of its day",
							   "%lld rows of table \"%s.%s\" are outside of their day",
							   (unsigned long) rows, (long long) rows,
							   conversion->job->target_schema, conversion->relname),
				 errdetail("In column \"%s\" one has %s.", tmpl->date_column,
						   wh_isnull(0, 2) ? "a null" : wh_get_text(CurrentMemoryContext, 0, 2)),
				 errhint("In the layout \"partitions\" a row's date_column has to lie in the day (UTC) that it was loaded for.")));
	wh_spi_end();
}

static void
report_difference(const Conversion *conversion, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("relation \"%s.%s\" does not have the rows that the ledger says",
					conversion->job->target_schema, conversion->relname),
			 errdetail("%s", detail),
			 errhint("Load it again with _wh.update_mv_by_template(), then call _wh.convert_layout() again.")));
}

static void
check_days(const Conversion *conversion)
{
	Datum		old = ObjectIdGetDatum(conversion->relid);
	char	   *difference = wh_combine_difference(conversion->tmpl, conversion->job->target_schema,
												   conversion->made->relid, wh_oid_array(&old, 1));

	if (difference != NULL)
		report_difference(conversion, difference);
}

static void
build(Conversion *conversion)
{
	int			nest_level = begin_settings(conversion);
	const char *date = !conversion->is_period || conversion->tmpl->in_tree ? NULL :
		wh_leaf_day_expression(conversion->tmpl);
	WhMemberRows *rows;
	WhRestricted restricted;
	WhDayTarget target;

	wh_template_code_check_columns(conversion->tmpl->columns);
	wh_restricted_begin(&restricted);
	if (conversion->is_period && conversion->tmpl->in_tree &&
		get_attnum(conversion->relid, WH_DATE_COLUMN) != InvalidAttrNumber)
		check_days_of_rows(conversion);
	fill_target(conversion, &target);
	rows = wh_member_rows_open(rows_query(conversion, date));
	conversion->made = wh_load_day(&target, wh_member_rows_next, rows);
	wh_member_rows_close(rows);

	wh_status_phase(WH_PHASE_COMBINING);
	if (conversion->made->rows != conversion->rows)
		report_difference(conversion,
						  psprintf("It has " INT64_FORMAT " rows, the ledger " INT64_FORMAT ".",
								   conversion->made->rows, conversion->rows));
	if (conversion->is_period)
		check_days(conversion);
	wh_restricted_end(&restricted);
	AtEOXact_GUC(true, nest_level);
	wh_swap_write_out(conversion->made->relid);
}

/* ---- in its place ---- */

/* Of another version it would be of another shape. */
static void
hold(const Conversion *conversion)
{
	const WhJob *job = conversion->job;
	const WhTemplate *tmpl = conversion->tmpl;
	char	   *meanwhile = psprintf("relation \"%s.%s\" was moved to another layout",
									 job->target_schema, conversion->relname);

	wh_hold_subscription(job->template_name, job->tenant_name, job->target_schema, true, meanwhile);
	if (!wh_hold_template(tmpl, meanwhile))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("template \"%s\" changed while %s", tmpl->name, meanwhile)));
}

static void
lock_ledger(const Conversion *conversion)
{
	WhArg		args[] = {SUBSCRIPTION_ARGS(conversion), WH_OID(conversion->relid)};

	if (wh_query("SELECT FROM _wh.day_loads WHERE template_name = $1 AND target_schema = $2"
				 " AND relation_oid = $3 ORDER BY target_date FOR NO KEY UPDATE",
				 lengthof(args), args) != (uint64) conversion->days)
		report_change(conversion);
}

/*
 * The last ones leave the end to a publication: the public view is made to
 * read the root, or the tree is dropped.  Two that run at once both do, since
 * neither knows of the other's commit.
 */
static void
succeed(const Conversion *conversion, int64 rows, const char *message)
{
	const WhJob *job = conversion->job;
	WhArg		args[] = {WH_TEXT(job->template_name)};

	if (wh_query("SELECT FROM _wh.jobs WHERE kind = 'convert' AND state = 'queued'"
				 " AND template_name = $1 LIMIT 1", lengthof(args), args) == 0)
	{
		/* see wh_convert_publish(): one that runs has seen us, or has ended */
		wh_publish_lock(job->template_name, NULL);
		(void) wh_queue_enqueue_publish(job->template_name, 0);
	}
	wh_queue_succeed(job, rows, 0, message);
}

/* Run by wh_politely(): it may be rolled back and started over. */
static void
put_in_place(void *arg)
{
	Conversion *conversion = arg;
	const WhJob *job = conversion->job;
	const WhTemplate *tmpl = conversion->tmpl;

	wh_spi_begin();
	hold(conversion);
	lock_ledger(conversion);
	wh_publish_lock(job->template_name, job->target_schema);
	wh_replace_finish(tmpl, job->target_schema, conversion->relname, conversion->relid,
					  conversion->made->relid, tmpl->in_tree ? &conversion->leaf : NULL);
	wh_grants_relation(job->target_schema, conversion->relname);
	wh_ledger_remade(tmpl, conversion->relid, conversion->made->relid);
	wh_publish_counters(job->template_name, job->target_schema);
	succeed(conversion, conversion->rows,
			psprintf(INT64_FORMAT " rows moved to layout %s", conversion->rows,
					 tmpl->in_tree ? "partitions" : "matviews"));
	wh_spi_end();
}

static void
nothing_to_do(void *arg)
{
	wh_spi_begin();
	succeed(arg, 0, "already there");
	wh_spi_end();
}

void
wh_convert_job(const WhJob *job)
{
	Conversion	conversion = {.job = job};

	wh_status_phase(WH_PHASE_COMBINING);
	conversion.tmpl = wh_template_read(job->template_name);
	if (find_and_lock(&conversion))
	{
		build(&conversion);
		wh_politely(InvalidOid, put_in_place, &conversion);
	}
	else
		wh_politely(InvalidOid, nothing_to_do, &conversion);
}

/* ---- the end ---- */

/* Made by us, empty, and read by nobody: not by a view of ours, nor by a user. */
#define IS_UNUSED(oid) \
"EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = " oid " AND c.relkind = 'p'" \
"   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)" \
"   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'n'" \
"     AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = c.oid)" \
"   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type y" \
"     JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass" \
"      AND d.refobjid IN (y.oid, y.typarray) AND d.deptype = 'n' WHERE y.oid = c.reltype))"

/* In the layout matviews nobody adds anything to a tree. */
static void
drop_unused_tree(void *arg)
{
	const char *template_name = arg;
	WhArg		args[] = {WH_TEXT(template_name)};
	List	   *parts = NIL;
	ListCell   *cell;
	uint64		n;

	n = wh_query("SELECT s.part_oid FROM _wh.tenant_templates s JOIN _wh.mv_templates t USING (template_name)"
				 " WHERE s.template_name = $1 AND t.layout = 'matviews' AND " IS_UNUSED("s.part_oid"),
				 lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
		parts = lappend_oid(parts, wh_get_oid(i, 1));
	foreach(cell, parts)
	{
		WhArg		part[] = {WH_TEXT(template_name), WH_OID(lfirst_oid(cell))};

		wh_tree_drop_part(lfirst_oid(cell));
		wh_query("UPDATE _wh.tenant_templates SET part_oid = NULL"
				 " WHERE template_name = $1 AND part_oid = $2", lengthof(part), part);
	}
	if (wh_query("SELECT FROM _wh.mv_templates t WHERE t.template_name = $1 AND t.layout = 'matviews'"
				 " AND " IS_UNUSED("t.tree_oid"), lengthof(args), args) > 0)
		wh_tree_drop_root(template_name);
}

void
wh_convert_publish(const char *template_name)
{
	wh_spi_begin();
	wh_publish_lock(template_name, NULL);
	wh_publish_public_view(template_name);
	wh_politely(InvalidOid, drop_unused_tree, unconstify(char *, template_name));
	wh_spi_end();
}
