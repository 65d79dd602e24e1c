/*
 * tree.c: the partition tree of a template: one root, a part per subscription.
 *
 * In the layout "partitions" the rows of all tenants are one table to the
 * planner: LIST (schema_name), and below RANGE of the template's date column.
 * A query for one tenant and a few days then plans, locks and opens these days
 * alone, which no union of views can do.  Root and parts are in schema _wh; the
 * leaves, which leaf.c makes, are in the schema of their tenant.
 *
 * The columns of the tree only ever grow: a template that drops a column
 * leaves it behind, empty in new leaves, because taking it away would rewrite
 * the plans of everybody for nothing.
 *
 * Called by leaf.c, publish.c, replace.c, subscribe.c and template_views.c.  A
 * table counts as ours only by the OID that we noted.  May not touch a leaf's
 * content.
 *
 * Locks, all politely: the advisory lock of the template's tree; then the root,
 * ShareUpdateExclusiveLock to attach a part; AccessExclusiveLock from the root
 * down to change columns or drop a part, from the part down to detach a leaf.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "politely.h"
#include "publish.h"
#include "sqlutil.h"
#include "tree.h"
#include "view.h"

/* ---- what there is ---- */

/* Of all that is kept of a relation that we made: is it still there? */
static Oid
still_there(Oid relid)
{
	return OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ? relid : InvalidOid;
}

Oid
wh_tree_root(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};

	if (wh_query("SELECT tree_oid FROM _wh.mv_templates WHERE template_name = $1",
				 lengthof(args), args) == 0)
		return InvalidOid;
	return still_there(wh_get_oid(0, 1));
}

Oid
wh_tree_part(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	if (wh_query("SELECT part_oid FROM _wh.tenant_templates"
				 " WHERE template_name = $1 AND target_schema = $2", lengthof(args), args) == 0)
		return InvalidOid;
	return still_there(wh_get_oid(0, 1));
}

Oid
wh_tree_parent(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		is_leaf;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	is_leaf = ((Form_pg_class) GETSTRUCT(tuple))->relispartition;
	ReleaseSysCache(tuple);
	return is_leaf ? get_partition_parent(relid, true) : InvalidOid;
}

/* ---- columns ---- */

static TupleDesc
columns_of_new_tree(const WhTemplate *tmpl)
{
	int			natts = tmpl->columns->natts;
	TupleDesc	columns = CreateTemplateTupleDesc(natts + 1);

	for (int i = 1; i <= natts; i++)
		TupleDescCopyEntry(columns, i, tmpl->columns, i);
	TupleDescInitEntry(columns, natts + 1, WH_SCHEMA_NAME_COLUMN, TEXTOID, -1, 0);
	return columns;
}

/*
 * Without those that a person dropped: a leaf need not have them.  The lock is
 * given back at once: who loads for hours keeps nobody from a new column.
 */
TupleDesc
wh_tree_columns_of(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	all = RelationGetDescr(rel);
	TupleDesc	columns;
	int			natts = 0;

	for (int i = 0; i < all->natts; i++)
		natts += TupleDescAttr(all, i)->attisdropped ? 0 : 1;
	columns = CreateTemplateTupleDesc(natts);
	natts = 0;
	for (int i = 0; i < all->natts; i++)
		if (!TupleDescAttr(all, i)->attisdropped)
			TupleDescCopyEntry(columns, ++natts, all, i + 1);
	table_close(rel, AccessShareLock);
	return columns;
}

TupleDesc
wh_tree_columns(const WhTemplate *tmpl)
{
	Oid			root = wh_tree_root(tmpl->name);

	return OidIsValid(root) ? wh_tree_columns_of(root) : columns_of_new_tree(tmpl);
}

static Form_pg_attribute
find_column(TupleDesc columns, const char *name)
{
	for (int i = 0; i < columns->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(columns, i)->attname), name) == 0)
			return TupleDescAttr(columns, i);
	return NULL;
}

static char *
type_text(Form_pg_attribute column)
{
	return format_type_extended(column->atttypid, column->atttypmod,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static char *
column_definition(Form_pg_attribute column)
{
	return psprintf("%s %s", wh_quote(NameStr(column->attname)), type_text(column));
}

static void
check_columns(const WhTemplate *tmpl, Oid root)
{
	TupleDesc	actual = wh_tree_columns_of(root);

	for (int i = 0; i < tmpl->columns->natts; i++)
	{
		Form_pg_attribute wanted = TupleDescAttr(tmpl->columns, i);
		Form_pg_attribute column = find_column(actual, NameStr(wanted->attname));

		if (column == NULL || column->atttypid != wanted->atttypid || column->atttypmod != wanted->atttypmod)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("the columns of template \"%s\" changed at the same time", tmpl->name)));
	}
}

static void
refuse_type(const WhTemplate *tmpl, Form_pg_attribute column, Form_pg_attribute wanted)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("column \"%s\" of template \"%s\" cannot change from %s to %s while its layout is \"partitions\"",
					NameStr(wanted->attname), tmpl->name, type_text(column), type_text(wanted)),
			 errdetail("All days of all tenants are in one partition tree, and would be rewritten under a lock."),
			 errhint("Move the template with _wh.convert_layout(%s, 'matviews'), change it, and move it back; or give the new column another name.",
					 quote_literal_cstr(tmpl->name))));
}

/* What has to be added, as the end of an ALTER TABLE; empty if nothing. */
static char *
missing_columns(const WhTemplate *tmpl, Oid root)
{
	TupleDesc	actual = wh_tree_columns_of(root);
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < tmpl->columns->natts; i++)
	{
		Form_pg_attribute wanted = TupleDescAttr(tmpl->columns, i);
		Form_pg_attribute column = find_column(actual, NameStr(wanted->attname));

		if (column == NULL)
			appendStringInfo(&sql, "%sADD COLUMN %s", sql.len > 0 ? ", " : "", column_definition(wanted));
		else if (column->atttypid != wanted->atttypid || column->atttypmod != wanted->atttypmod)
			refuse_type(tmpl, column, wanted);
	}
	return sql.data;
}

void
wh_tree_follow(const WhTemplate *tmpl)
{
	Oid			root = wh_tree_root(tmpl->name);
	char	   *additions;

	if (!OidIsValid(root))
		return;
	additions = missing_columns(tmpl, root);
	if (additions[0] == '\0')
		return;
	wh_politely_lock(root);
	wh_utility("ALTER TABLE %s %s", wh_relation_name(root), additions);
}

/* ---- the date column ---- */

static char *
part_key(const WhTemplate *tmpl)
{
	return psprintf("RANGE (%s)", wh_quote(tmpl->date_column));
}

char *
wh_tree_bound(const WhTemplate *tmpl, DateADT date)
{
	switch (TupleDescAttr(tmpl->columns, tmpl->date_attnum - 1)->atttypid)
	{
		case DATEOID:
			return quote_literal_cstr(wh_date_text(date));
		case TIMESTAMPOID:
			return quote_literal_cstr(psprintf("%s 00:00:00", wh_date_text(date)));
		default:				/* timestamptz: days are those of UTC */
			return quote_literal_cstr(psprintf("%s 00:00:00+00", wh_date_text(date)));
	}
}

/* ---- making ---- */

static char *
root_name(const char *template_name)
{
	return wh_template_fit_name(psprintf("%s tree", template_name), NAMEDATALEN - 1);
}


static char *
part_name(const char *template_name, const char *schema)
{
	return wh_template_fit_name(psprintf("%s tree %s", template_name, schema), NAMEDATALEN - 1);
}

static void
check_name_is_free(const char *name, const char *template_name)
{
	if (OidIsValid(get_relname_relid(name, get_namespace_oid(WH_TREE_SCHEMA, false))))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s.%s\" exists and was not made by wh_worker", WH_TREE_SCHEMA, name),
				 errhint("Rename or drop it; its name is needed for the partition tree of template \"%s\".",
						 template_name)));
}

static Oid
create_partitioned(const WhTemplate *tmpl, const char *name, TupleDesc columns, const char *key, const char *comment)
{
	char	   *qualified = quote_qualified_identifier(WH_TREE_SCHEMA, name);
	StringInfoData list;

	check_name_is_free(name, tmpl->name);
	initStringInfo(&list);
	for (int i = 0; i < columns->natts; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", column_definition(TupleDescAttr(columns, i)));
	wh_utility("CREATE TABLE %s (%s) PARTITION BY %s", qualified, list.data, key);
	wh_utility("COMMENT ON TABLE %s IS %s", qualified, quote_literal_cstr(comment));
	return get_relname_relid(name, get_namespace_oid(WH_TREE_SCHEMA, false));
}

static Oid
make_root(const WhTemplate *tmpl)
{
	Oid			root = create_partitioned(tmpl, root_name(tmpl->name), columns_of_new_tree(tmpl),
										  "LIST (" WH_SCHEMA_NAME_COLUMN ")",
										  psprintf("Partition tree of template \"%s\"; made by wh_worker", tmpl->name));
	WhArg		args[] = {WH_TEXT(tmpl->name), WH_OID(root)};

	wh_query("UPDATE _wh.mv_templates SET tree_oid = $2 WHERE template_name = $1", lengthof(args), args);
	return root;
}

static Oid
make_part(const WhTemplate *tmpl, Oid root, const char *schema)
{
	Oid			part = create_partitioned(tmpl, part_name(tmpl->name, schema), wh_tree_columns_of(root),
										  part_key(tmpl),
										  psprintf("Days of template \"%s\" in schema \"%s\"; made by wh_worker",
												   tmpl->name, schema));
	WhArg		args[] = {WH_TEXT(tmpl->name), WH_TEXT(schema), WH_OID(part)};

	wh_utility("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES IN (%s)", wh_relation_name(root),
			   wh_relation_name(part), quote_literal_cstr(schema));
	wh_query("UPDATE _wh.tenant_templates SET part_oid = $3"
			 " WHERE template_name = $1 AND target_schema = $2", lengthof(args), args);
	return part;
}

Oid
wh_tree_ensure(const WhTemplate *tmpl, const char *schema)
{
	Oid			part = wh_tree_part(tmpl->name, schema);
	Oid			root;

	if (!OidIsValid(part))
	{
		/* two tenants' first days must not both make the root */
		wh_publish_lock(tmpl->name, NULL);
		root = wh_tree_root(tmpl->name);
		if (!OidIsValid(root))
			root = make_root(tmpl);
		part = wh_tree_part(tmpl->name, schema);
		if (!OidIsValid(part))
			part = make_part(tmpl, root, schema);
	}
	check_columns(tmpl, part);
	return part;
}

/* ---- dropping ---- */

void
wh_tree_drop_part(Oid part)
{
	Oid			root = wh_tree_parent(part);

	if (OidIsValid(root))
		wh_politely_lock(root);
	wh_politely_lock(part);
	wh_utility("DROP TABLE %s", wh_relation_name(part));
}

void
wh_tree_drop_root(const char *template_name)
{
	Oid			root = wh_tree_root(template_name);
	WhArg		args[] = {WH_TEXT(template_name)};

	if (!OidIsValid(root))
		return;
	wh_politely_lock(root);
	wh_utility("DROP TABLE %s", wh_relation_name(root));
	wh_query("UPDATE _wh.mv_templates SET tree_oid = NULL WHERE template_name = $1", lengthof(args), args);
	wh_query("UPDATE _wh.tenant_templates SET part_oid = NULL WHERE template_name = $1", lengthof(args), args);
}

void
wh_tree_lock_leaf(Oid relid)
{
	Oid			part = wh_tree_parent(relid);

	if (OidIsValid(part))
		wh_politely_lock(part);
	wh_politely_lock(relid);
}

/* ---- what a person took away ---- */

static Datum
first_moment(Oid type, DateADT date)
{
	return type == DATEOID ? DateADTGetDatum(date) : TimestampGetDatum((Timestamp) date * USECS_PER_DAY);
}

/* The leaf whose bounds hold the day, or InvalidOid. */
static Oid
leaf_at(Relation part, DateADT date)
{
	PartitionDesc leaves = RelationGetPartitionDesc(part, true);
	PartitionKey key = RelationGetPartitionKey(part);
	Datum		value = first_moment(key->parttypid[0], date);
	bool		is_equal;
	int			index;

	if (leaves->nparts == 0)
		return InvalidOid;
	index = leaves->boundinfo->indexes[1 + partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
																		 leaves->boundinfo, 1, &value, &is_equal)];
	return index >= 0 ? leaves->oids[index] : InvalidOid;
}

static bool
holds_days(const char *template_name, const char *schema, Oid relid)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_OID(relid)};

	return wh_query_latest("SELECT FROM _wh.day_loads"
						   " WHERE template_name = $1 AND target_schema = $2 AND relation_oid = $3 LIMIT 1",
						   lengthof(args), args) > 0;
}

List *
wh_tree_strays(const char *template_name, const char *schema)
{
	Oid			part = wh_tree_part(template_name, schema);
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};
	List	   *found = NIL;
	List	   *strays = NIL;
	ListCell   *cell;
	Relation	rel;
	uint64		n;

	if (!OidIsValid(part))
		return NIL;
	n = wh_query_latest("SELECT target_date FROM _wh.day_loads"
						" WHERE template_name = $1 AND target_schema = $2 AND NOT counted AND relation_oid IS NULL",
						lengthof(args), args);
	rel = table_open(part, AccessShareLock);
	for (uint64 i = 0; i < n; i++)
	{
		Oid			leaf = leaf_at(rel, wh_get_date(i, 1));

		if (OidIsValid(leaf))
			found = list_append_unique_oid(found, leaf);
	}
	table_close(rel, AccessShareLock);
	foreach(cell, found)
		if (!holds_days(template_name, schema, lfirst_oid(cell)))
			strays = lappend_oid(strays, lfirst_oid(cell));
	return strays;
}

/* Its name is looked up: others shall be published though we may not do that. */
static bool
may_look_up(Oid part, Oid leaf)
{
	if (WH_NAMESPACE_ACLCHECK(get_rel_namespace(leaf), GetUserId(), ACL_USAGE) == ACLCHECK_OK)
		return true;
	ereport(WARNING,
			(errmsg("table %s is no day of ours any more, and is in the partition tree still", wh_relation_name(leaf)),
			 errhint("Run ALTER TABLE %s DETACH PARTITION %s.", wh_relation_name(part), wh_relation_name(leaf))));
	return false;
}

/* Run by wh_politely(): it may be rolled back and started over. */
static void
detach(void *arg)
{
	ListCell   *cell;

	foreach(cell, (List *) arg)
	{
		Oid			part = wh_tree_parent(lfirst_oid(cell));

		if (!OidIsValid(part) || !may_look_up(part, lfirst_oid(cell)))
			continue;
		wh_tree_lock_leaf(lfirst_oid(cell));
		if (wh_tree_parent(lfirst_oid(cell)) == part)
			wh_utility("ALTER TABLE %s DETACH PARTITION %s", wh_relation_name(part), wh_relation_name(lfirst_oid(cell)));
	}
}

void
wh_tree_detach(List *leaves)
{
	if (leaves != NIL)
		wh_politely(InvalidOid, detach, leaves);
}

void
wh_tree_drop_relation(const char *schema, const char *relname, Oid relid)
{
	bool		is_matview = get_rel_relkind(relid) == RELKIND_MATVIEW;

	wh_tree_lock_leaf(relid);
	if (get_relname_relid(relname, get_namespace_oid(schema, true)) != relid)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("relation \"%s.%s\" was renamed or moved at the same time", schema, relname)));
	wh_utility("DROP %s %s", is_matview ? "MATERIALIZED VIEW" : "TABLE",
			   quote_qualified_identifier(schema, relname));
}

/* ---- after a restore ---- */

/* A partitioned table of ours under that name in the schema of trees, or InvalidOid. */
static Oid
find_own(const char *name)
{
	Oid			relid = get_relname_relid(name, get_namespace_oid(WH_TREE_SCHEMA, false));

	return OidIsValid(still_there(relid)) && WH_OWNS_RELATION(relid, GetUserId()) ? relid : InvalidOid;
}

void
wh_tree_relink(const char *template_name)
{
	Oid			root = find_own(root_name(template_name));
	WhArg		args[] = {
		WH_TEXT(template_name), wh_arg_nullable(OIDOID, ObjectIdGetDatum(root), !OidIsValid(root))
	};
	uint64		n;
	char	  **schemas;

	wh_query("UPDATE _wh.mv_templates SET tree_oid = $2"
			 " WHERE template_name = $1 AND tree_oid IS DISTINCT FROM $2", lengthof(args), args);
	n = wh_query("SELECT target_schema FROM _wh.tenant_templates WHERE template_name = $1", 1, args);
	schemas = palloc(sizeof(char *) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		schemas[i] = wh_get_text(CurrentMemoryContext, i, 1);
	for (uint64 i = 0; i < n; i++)
	{
		Oid			part = find_own(part_name(template_name, schemas[i]));
		bool		found = OidIsValid(part) && wh_tree_parent(part) == root;
		WhArg		part_args[] = {
			WH_TEXT(template_name), WH_TEXT(schemas[i]), wh_arg_nullable(OIDOID, ObjectIdGetDatum(part), !found)
		};

		wh_query("UPDATE _wh.tenant_templates SET part_oid = $3"
				 " WHERE template_name = $1 AND target_schema = $2 AND part_oid IS DISTINCT FROM $3",
				 lengthof(part_args), part_args);
	}
}
