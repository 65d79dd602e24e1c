/*
 * replace.c: a day of an older shape, or with older indexes, loaded again; and
 * the table of a month or year likewise.
 *
 * The files of two relations can be swapped only if they have the same columns
 * and indexes.  Where they have not, the day is loaded as a new relation under
 * a temporary name, and here takes the place of the old one.
 *
 * Called by refresh.c and late.c, before they write the ledger.  May not fetch, and drops
 * nothing on which something of a user's depends.
 *
 * Locks: the advisory lock of the tenant view; then, politely and all in one
 * attempt, as readers do: the tenant view, the old relation.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "common/md5.h"
#include "nodes/parsenodes.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "politely.h"
#include "publish.h"
#include "replace.h"
#include "sqlutil.h"
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
	WhView		view;
	bool		is_in_view;		/* the old relation is read by the tenant view */
} Replacement;

bool
wh_replace_needed(const WhTemplate *tmpl, TupleDesc columns, Oid relid,
				  const char *indexes_md5_of_day)
{
	char		md5[33];
	const char *problem = NULL;

	if (!wh_view_relation_has_columns(relid, columns))
		return true;
	if (indexes_md5_of_day == NULL)
		return false;
	if (!pg_md5_hash(tmpl->indexes, strlen(tmpl->indexes), md5, &problem))
		elog(ERROR, "could not compute an md5: %s", problem);	/* cannot happen */
	return strcmp(md5, indexes_md5_of_day) != 0;
}

char *
wh_replace_temporary_name(const char *relname)
{
	return psprintf("%s" TEMPORARY_SUFFIX,
					wh_template_fit_name(relname, NAMEDATALEN - (int) sizeof(TEMPORARY_SUFFIX)));
}

static Datum
one_oid(Oid oid)
{
	Datum		value = ObjectIdGetDatum(oid);

	return PointerGetDatum(construct_array(&value, 1, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* Lets the tenant view of the ledger read the new relation for the old one. */
static void
read_view(Replacement *replacement)
{
	WhView	   *view = &replacement->view;
	Oid			known_oid = wh_publish_read_tenant_view(view, replacement->tmpl, replacement->schema);

	if (!OidIsValid(view->relid) || view->relid != known_oid)
		return;
	for (uint64 i = 0; i < view->nmembers; i++)
	{
		if (view->members[i].relid != replacement->old_relid)
			continue;
		replacement->is_in_view = true;
		view->members[i].relid = replacement->new_relid;
		view->members[i].relname = get_rel_name(replacement->new_relid);
	}
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

static bool
is_matview(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_MATVIEW;
}

/* The tenant view, if it reads the old relation, is locked already. */
static void
attempt(void *arg)
{
	Replacement *replacement = arg;
	char	   *temporary_name = get_rel_name(replacement->new_relid);
	const char *kind = is_matview(replacement->old_relid) ? "MATERIALIZED VIEW" : "TABLE";
	WhSavedRelation *saved;

	wh_politely_lock(replacement->old_relid);
	if (replacement->is_in_view && wh_view_exists(&replacement->view))
		wh_view_create(&replacement->view);
	wh_user_views_refuse(one_oid(replacement->old_relid),
						 psprintf("%s \"%s.%s\" cannot be made anew",
								  is_matview(replacement->old_relid) ? "materialized view" : "table",
								  replacement->schema, replacement->relname));

	saved = wh_saved_read(replacement->old_relid);
	wh_saved_apply(saved, replacement->new_relid);
	wh_utility("DROP %s %s", kind,
			   quote_qualified_identifier(replacement->schema, replacement->relname));
	wh_utility("ALTER %s %s RENAME TO %s", kind,
			   quote_qualified_identifier(replacement->schema, temporary_name),
			   wh_quote(replacement->relname));
	rename_indexes(replacement, temporary_name);
}

void
wh_replace_finish(const WhTemplate *tmpl, const char *schema, const char *relname,
				  Oid old_relid, Oid new_relid)
{
	Replacement replacement = {
		.tmpl = tmpl, .schema = schema, .relname = relname,
		.old_relid = old_relid, .new_relid = new_relid
	};

	wh_spi_begin();
	wh_publish_lock(tmpl->name, schema);
	/* the day was loaded for the template as it was; the view is as it is now */
	replacement.tmpl = wh_template_read(tmpl->name);
	read_view(&replacement);
	replacement.tmpl = tmpl;
	wh_politely(replacement.is_in_view ? replacement.view.relid : old_relid,
				attempt, &replacement);
	CommandCounterIncrement();
	wh_spi_end();
}
