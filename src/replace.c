/*
 * replace.c: a day of an older shape, or with older indexes, loaded again; and
 * the table of a month or year likewise.
 *
 * The files of two relations can be swapped only if they have the same columns
 * and indexes.  Where they have not, or where the layout of the template has
 * changed, the day is loaded as a new relation under a temporary name, and here
 * takes the place of the old one.
 *
 * Called by refresh.c, late.c and convert.c, before they write the ledger.  May
 * not fetch, and drops nothing on which something of a user's depends.
 *
 * Locks: the advisory lock of the tenant view; then, politely and all in one
 * attempt, as readers do: the tenant view, the part of the tree that the old
 * relation is in, the old relation.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "politely.h"
#include "publish.h"
#include "replace.h"
#include "sqlutil.h"
#include "tree.h"
#include "user_views.h"
#include "view.h"

#define TEMPORARY_SUFFIX "_wh_new"

typedef struct Replacement
{
	const WhTemplate *tmpl;
	const char *schema;
	const char *relname;
	Oid			old_relid;
	Oid			new_relid;
	const WhLeaf *leaf;			/* what the new one becomes, or NULL */
	WhView		view;
	bool		view_changes;	/* it has to read the new one instead of the old one */
} Replacement;

bool
wh_replace_needed(const WhTemplate *tmpl, TupleDesc columns, Oid relid,
				  const char *indexes_md5_of_day)
{
	if (OidIsValid(wh_tree_parent(relid)) != tmpl->in_tree)
		return true;
	if (!(tmpl->in_tree ? wh_leaf_has_shape(tmpl, relid) : wh_view_relation_has_columns(relid, columns)))
		return true;
	if (indexes_md5_of_day == NULL)
		return false;
	return strcmp(wh_md5(tmpl->indexes), indexes_md5_of_day) != 0;
}

char *
wh_replace_temporary_name(const char *relname)
{
	return psprintf("%s" TEMPORARY_SUFFIX,
					wh_template_fit_name(relname, NAMEDATALEN - (int) sizeof(TEMPORARY_SUFFIX)));
}

static bool
is_member(const WhView *view, Oid relid)
{
	for (uint64 i = 0; i < view->nmembers; i++)
		if (view->members[i].relid == relid)
			return true;
	return false;
}

static void
remove_member(WhView *view, Oid relid)
{
	uint64		kept = 0;

	for (uint64 i = 0; i < view->nmembers; i++)
		if (view->members[i].relid != relid)
			view->members[kept++] = view->members[i];
	view->nmembers = kept;
}

static void
add_member(WhView *view, Oid relid)
{
	WhMember   *members = palloc(sizeof(WhMember) * (view->nmembers + 1));
	WhMember	member = {relid, get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid)};

	/* behind the members there may be others that are kept out of the view */
	memcpy(members, view->members, sizeof(WhMember) * view->nmembers);
	members[view->nmembers++] = member;
	view->members = members;
	view->nrefused = 0;
}

/* One that lost its content is no member any more, but the view may read it still. */
static bool
is_read_by(Oid relid, Oid view)
{
	WhArg		args[] = {WH_OID(view), WH_OID(relid)};

	return wh_query("SELECT FROM pg_catalog.pg_rewrite r"
					"  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
					"   AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
					"   AND d.refobjid = $2"
					" WHERE r.ev_class = $1", lengthof(args), args) > 0;
}

/*
 * Lets the tenant view of the ledger read the new relation for the old one.
 * From one leaf to another it reads the part, before and after.
 */
static void
read_view(Replacement *replacement)
{
	WhView	   *view = &replacement->view;
	Oid			known_oid = wh_publish_read_tenant_view(view, replacement->tmpl, replacement->schema);
	Oid			reader = replacement->leaf != NULL ?
		wh_tree_part(replacement->tmpl->name, replacement->schema) : replacement->new_relid;
	bool		was_member = is_member(view, replacement->old_relid) ||
		OidIsValid(wh_tree_parent(replacement->old_relid)) ||
		(OidIsValid(view->relid) && is_read_by(replacement->old_relid, view->relid));

	if (!OidIsValid(view->relid) || view->relid != known_oid || !was_member)
		return;
	remove_member(view, replacement->old_relid);
	if (!is_member(view, reader))
		add_member(view, reader);
	replacement->view_changes = !wh_view_is_up_to_date(view);
}

/* Indexes were made in the order of the template, under the temporary name. */
static void
rename_indexes(const Replacement *replacement, const char *temporary_name)
{
	List	   *present = wh_template_indexes(replacement->tmpl, replacement->schema, temporary_name);
	List	   *wanted = wh_template_indexes(replacement->tmpl, replacement->schema, replacement->relname);
	ListCell   *from;
	ListCell   *to;

	forboth(from, present, to, wanted)
		wh_utility("ALTER INDEX %s RENAME TO %s",
				   quote_qualified_identifier(replacement->schema, lfirst_node(IndexStmt, from)->idxname),
				   wh_quote(lfirst_node(IndexStmt, to)->idxname));
}

static const char *
kind_of(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_MATVIEW ? "MATERIALIZED VIEW" : "TABLE";
}

/*
 * What leaves the tree is in the public view all the same: that became the union
 * of tenant views when the layout was changed.  To make it read the root again
 * is left to the next publication, because readers lock it before tenant views.
 */
static void
change_views(Replacement *replacement)
{
	if (!replacement->view_changes || !wh_view_exists(&replacement->view))
		return;
	wh_view_create(&replacement->view);
}

/* The tenant view, if it changes, is locked already. */
static void
attempt(void *arg)
{
	Replacement *replacement = arg;
	char	   *temporary_name = get_rel_name(replacement->new_relid);
	const char *kind = kind_of(replacement->new_relid);
	WhSavedRelation *saved;

	wh_tree_lock_leaf(replacement->old_relid);
	change_views(replacement);
	wh_user_views_refuse(wh_oid_array(&(Datum) {ObjectIdGetDatum(replacement->old_relid)}, 1),
						 psprintf("%s \"%s.%s\" cannot be made anew",
								  get_rel_relkind(replacement->old_relid) == RELKIND_MATVIEW ? "materialized view" : "table",
								  replacement->schema, replacement->relname));

	saved = wh_saved_read(replacement->old_relid);
	wh_saved_apply(saved, replacement->new_relid);
	wh_utility("DROP %s %s", kind_of(replacement->old_relid),
			   quote_qualified_identifier(replacement->schema, replacement->relname));
	wh_utility("ALTER %s %s RENAME TO %s", kind,
			   quote_qualified_identifier(replacement->schema, temporary_name),
			   wh_quote(replacement->relname));
	rename_indexes(replacement, temporary_name);
	if (replacement->leaf != NULL)
		wh_leaf_attach(replacement->leaf, replacement->new_relid);
}

/* The view has to be able to read the part before anything is attached to it. */
static void
replace(void *arg)
{
	Replacement *replacement = arg;
	const WhTemplate *tmpl = replacement->tmpl;

	if (replacement->leaf != NULL)
		(void) wh_tree_ensure(tmpl, replacement->schema);
	wh_publish_lock(tmpl->name, replacement->schema);
	/* the day was loaded for the template as it was; the view is as it is now */
	replacement->tmpl = wh_template_read(tmpl->name);
	replacement->view_changes = false;
	read_view(replacement);
	replacement->tmpl = tmpl;
	wh_politely(replacement->view_changes ? replacement->view.relid : InvalidOid, attempt, replacement);
}

void
wh_replace_finish(const WhTemplate *tmpl, const char *schema, const char *relname,
				  Oid old_relid, Oid new_relid, const WhLeaf *leaf)
{
	Replacement replacement = {
		.tmpl = tmpl, .schema = schema, .relname = relname,
		.old_relid = old_relid, .new_relid = new_relid, .leaf = leaf
	};

	wh_spi_begin();
	wh_politely(InvalidOid, replace, &replacement);
	CommandCounterIncrement();
	wh_spi_end();
}
