/*
 * view.c: one view of ours: what it reads, its columns, its text.
 *
 * Used by publish.c, template_views.c and replace.c, which know which views
 * there are and why.  Here is what the catalogs say about a view, how that
 * differs from what is wanted, and the CREATE OR REPLACE that makes the one of
 * the other.  SPI is connected by the caller.
 *
 * May not drop anything.  Takes no lock but what CREATE VIEW takes: the caller
 * has locked an existing view, by politely.c, before its members.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "sqlutil.h"
#include "user_views.h"
#include "view.h"

Datum
wh_view_member_oids(const WhView *view)
{
	Datum	   *oids = palloc(sizeof(Datum) * Max(view->nmembers, 1));

	for (uint64 i = 0; i < view->nmembers; i++)
		oids[i] = ObjectIdGetDatum(view->members[i].relid);
	return PointerGetDatum(construct_array(oids, (int) view->nmembers, OIDOID,
										   sizeof(Oid), true, TYPALIGN_INT));
}

/*
 * What the view reads now, by its dependencies, is what it should read?  Now, and
 * not when a REPEATABLE READ transaction took its snapshot.
 */
static bool
members_are_right(const WhView *view)
{
	WhArg		args[] = {WH_OID(view->relid), wh_arg(OIDARRAYOID, wh_view_member_oids(view))};

	return wh_query_latest(
		"SELECT count(*) = cardinality($2) AND coalesce(bool_and(u.relid = ANY ($2)), true)"
		"  FROM (SELECT DISTINCT d.refobjid AS relid"
		"          FROM pg_catalog.pg_rewrite r"
		"          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
		"           AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
		"           AND d.refobjid <> r.ev_class"
		"           AND d.refobjid NOT IN ('_wh.tenant_readers'::pg_catalog.regclass,"
		"               '_wh.tenant_templates'::pg_catalog.regclass)"
		"         WHERE r.ev_class = $1) u",
		lengthof(args), args) == 1 && wh_get_bool(0, 1);
}

/* Is it made so that whoever reads it gets an error? */
static bool
refuses_now(Oid relid)
{
	WhArg		args[] = {WH_OID(relid)};

	return wh_query_latest(
		"SELECT FROM pg_catalog.pg_rewrite r"
		"  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
		"   AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
		"  JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid AND p.proname = 'refuse_to_read'"
		"  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = '_wh'"
		" WHERE r.ev_class = $1", lengthof(args), args) > 0;
}

/* Not if a person has taken it away. */
static bool
has_barrier(Oid relid)
{
	WhArg		args[] = {WH_OID(relid)};

	return wh_query("SELECT FROM pg_catalog.pg_class"
					" WHERE oid = $1 AND reloptions @> '{security_barrier=true}'", lengthof(args), args) == 1;
}

/* Type with its typmod, readable under any search_path. */
static char *
type_text(Form_pg_attribute column)
{
	return format_type_extended(column->atttypid, column->atttypmod,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static bool
same_column(Form_pg_attribute a, Form_pg_attribute b)
{
	return strcmp(NameStr(a->attname), NameStr(b->attname)) == 0 &&
		a->atttypid == b->atttypid && a->atttypmod == b->atttypmod;
}

/*
 * A column of the template as a member can give it: a day of an older shape
 * gets a typed NULL for what it lacks and a cast for what has changed.
 */
static void
append_member_column(StringInfo sql, Oid relid, Form_pg_attribute column)
{
	const char *name = quote_identifier(NameStr(column->attname));
	HeapTuple	tuple = SearchSysCacheAttName(relid, NameStr(column->attname));

	if (!HeapTupleIsValid(tuple))
		appendStringInfo(sql, "NULL::%s AS %s", type_text(column), name);
	else if (same_column(column, (Form_pg_attribute) GETSTRUCT(tuple)))
		appendStringInfoString(sql, name);
	else
		appendStringInfo(sql, "%s::%s AS %s", name, type_text(column), name);
	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
}

void
wh_view_append_columns(StringInfo sql, TupleDesc columns, Oid relid)
{
	for (int i = 0; i < columns->natts; i++)
	{
		if (i > 0)
			appendStringInfoString(sql, ", ");
		append_member_column(sql, relid, TupleDescAttr(columns, i));
	}
}

/* The root of a tree has it as a column, by which the planner prunes. */
static void
append_schema_name(StringInfo sql, const WhMember *member)
{
	if (member != NULL && get_attnum(member->relid, WH_SCHEMA_NAME_COLUMN) != InvalidAttrNumber)
		appendStringInfoString(sql, ", " WH_SCHEMA_NAME_COLUMN);
	else
		appendStringInfo(sql, ", %s::pg_catalog.text AS " WH_SCHEMA_NAME_COLUMN,
						 member ? quote_literal_cstr(member->schema) : "NULL");
}

/* Of a subscription as it is when the view is read: it may be another tenant's by then. */
static void
append_isolation(StringInfo sql, const WhView *view, const WhMember *member)
{
	appendStringInfo(sql, " WHERE EXISTS (SELECT FROM _wh.tenant_templates s"
					 " JOIN _wh.tenant_readers r ON r.tenant_name = s.tenant_name"
					 " WHERE s.template_name = %s AND s.target_schema = %s"
					 " AND pg_catalog.pg_has_role(r.role_oid, 'USAGE'))",
					 quote_literal_cstr(view->template_name), quote_literal_cstr(member->schema));
}

/* Who is a reader of the tenant now, as a list of names; without any, nobody. */
static char *
reader_names(const WhView *view, const WhMember *member)
{
	WhArg		args[] = {WH_TEXT(view->template_name), WH_TEXT(member->schema)};

	wh_query_latest("SELECT pg_catalog.string_agg(pg_catalog.quote_literal(a.rolname), ', ' ORDER BY a.rolname)"
					"  FROM _wh.tenant_templates s JOIN _wh.tenant_readers r USING (tenant_name)"
					"  JOIN pg_catalog.pg_roles a ON a.oid = r.role_oid"
					" WHERE s.template_name = $1 AND s.target_schema = $2", lengthof(args), args);
	return wh_isnull(0, 1) ? NULL : wh_get_text(CurrentMemoryContext, 0, 1);
}

static void
append_released_isolation(StringInfo sql, const WhView *view, const WhMember *member)
{
	char	   *names = reader_names(view, member);

	if (names == NULL)
		appendStringInfoString(sql, " WHERE false");
	else
		appendStringInfo(sql, " WHERE EXISTS (SELECT FROM pg_catalog.pg_roles a WHERE a.rolname IN (%s)"
						 " AND pg_catalog.pg_has_role(a.oid, 'USAGE'))", names);
}

/* One branch of the union; without a member, the branch that has no rows. */
static void
append_branch(StringInfo sql, const WhView *view, const WhMember *member)
{
	appendStringInfoString(sql, "SELECT ");
	wh_view_append_columns(sql, view->columns, member ? member->relid : InvalidOid);
	if (view->is_public)
		append_schema_name(sql, member);
	if (member != NULL)
		appendStringInfo(sql, " FROM %s", quote_qualified_identifier(member->schema, member->relname));
	else
		appendStringInfoString(sql, " WHERE false");
	if (member != NULL && view->is_isolated && view->is_released)
		append_released_isolation(sql, view, member);
	else if (member != NULL && view->is_isolated)
		append_isolation(sql, view, member);
}

/* The same columns from a function that raises an error. */
static char *
refusing_body(const WhView *view)
{
	StringInfoData columns;
	StringInfoData sql;

	initStringInfo(&columns);
	initStringInfo(&sql);
	for (int i = 0; i < view->columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(view->columns, i);

		appendStringInfo(&columns, "%s %s, ", quote_identifier(NameStr(column->attname)), type_text(column));
		appendStringInfo(&sql, "%s, ", quote_identifier(NameStr(column->attname)));
	}
	return psprintf("SELECT %s" WH_SCHEMA_NAME_COLUMN " FROM _wh.refuse_to_read(%s) AS t(%s"
					WH_SCHEMA_NAME_COLUMN " pg_catalog.text)",
					sql.data, quote_literal_cstr(view->template_name), columns.data);
}

static char *
view_body(const WhView *view)
{
	StringInfoData sql;

	if (view->refuses)
		return refusing_body(view);
	initStringInfo(&sql);
	if (view->nmembers == 0)
		append_branch(&sql, view, NULL);
	for (uint64 i = 0; i < view->nmembers; i++)
	{
		if (i > 0)
			appendStringInfoString(&sql, "\nUNION ALL\n");
		append_branch(&sql, view, &view->members[i]);
	}
	return sql.data;
}

/*
 * How many of the view's columns are the wanted ones, counted until the first
 * that is not; *natts is how many it has.
 */
static int
matching_columns(const WhView *view, int *natts)
{
	int			matching = 0;

	for (*natts = 0;; (*natts)++)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(view->relid),
											Int16GetDatum(*natts + 1));
		Form_pg_attribute column;

		if (!HeapTupleIsValid(tuple))
			return matching;
		column = (Form_pg_attribute) GETSTRUCT(tuple);
		if (matching == *natts &&
			(*natts < view->columns->natts
			 ? same_column(column, TupleDescAttr(view->columns, *natts))
			 : view->is_public && *natts == view->columns->natts &&
			 strcmp(NameStr(column->attname), WH_SCHEMA_NAME_COLUMN) == 0))
			matching++;
		ReleaseSysCache(tuple);
	}
}

static int
wanted_columns(const WhView *view)
{
	return view->columns->natts + (view->is_public ? 1 : 0);
}

bool
wh_view_columns_are_right(const WhView *view)
{
	int			natts;

	return matching_columns(view, &natts) == wanted_columns(view) && natts == wanted_columns(view);
}

/* CREATE OR REPLACE VIEW can only add columns at the end. */
bool
wh_view_is_replaceable(const WhView *view)
{
	int			natts;

	return !OidIsValid(view->relid) || matching_columns(view, &natts) == natts;
}

/* Whether a relation has these columns and no others. */
bool
wh_view_relation_has_columns(Oid relid, TupleDesc columns)
{
	WhView		shape = {.relid = relid, .columns = columns};

	return wh_view_columns_are_right(&shape);
}

/* 42P07 unless the name is free or belongs to the view we made. */
void
wh_view_check_is_ours(const WhView *view, Oid known_oid)
{
	if (OidIsValid(view->relid) && view->relid != known_oid)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\".\"%s\" exists and was not made by wh_worker",
						view->schema, view->name),
				 errhint("Rename or drop it; its name is needed for the view of template \"%s\". What dblink filled can be taken over with _wh.adopt().",
						 view->name)));
}

Oid
wh_view_find(const char *schema, const char *name)
{
	return get_relname_relid(name, get_namespace_oid(schema, false));
}

char *
wh_view_name(const WhView *view)
{
	return quote_qualified_identifier(view->schema, view->name);
}

/* Whoever had it locked before us may have dropped, renamed or moved it. */
bool
wh_view_exists(const WhView *view)
{
	return OidIsValid(view->relid) && wh_view_find(view->schema, view->name) == view->relid;
}

/* OR REPLACE only what is ours: the name may be somebody else's by now. */
void
wh_view_create(WhView *view)
{
	bool		existed = wh_view_exists(view);
	WhSavedRelation *saved = existed ? wh_saved_read(view->relid) : NULL;

	wh_utility("CREATE %sVIEW %s%s AS\n%s", existed ? "OR REPLACE " : "", wh_view_name(view),
			   view->is_isolated ? " WITH (security_barrier = true)" : "", view_body(view));
	if (!existed)
		wh_utility("COMMENT ON VIEW %s IS %s", wh_view_name(view), quote_literal_cstr(view->comment));
	else if (saved->has_options && !view->is_isolated)
		wh_saved_apply(saved, view->relid); /* a replaced view loses its options */
	view->relid = wh_view_find(view->schema, view->name);
}

bool
wh_view_is_up_to_date(const WhView *view)
{
	if (!OidIsValid(view->relid) ||
		(view->is_public && refuses_now(view->relid) != view->refuses) ||
		(view->is_isolated && !has_barrier(view->relid)))
		return false;
	return (view->refuses || members_are_right(view)) && wh_view_columns_are_right(view);
}
