/*
 * release_table.c: a materialized view becomes a table, in place.
 *
 * On disk the two are the same; what makes a materialized view of it are its kind in
 * pg_class and the rule that REFRESH runs.  So no row is copied: the kind is
 * changed, the rule goes with its dependencies, and whoever reads it goes on.
 * PostgreSQL looks up the kind of a relation each time a view that reads it is
 * used, because it once made views of tables in the same way.
 *
 * Called by release.c.  May not touch anything but these two rows and what depends
 * on the rule.  The lock of the caller keeps out REFRESH, VACUUM, DROP and
 * index DDL; readers never look at the rule, and need not be shut out.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_rewrite.h"
#include "commands/comment.h"
#include "rewrite/rewriteSupport.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "release.h"

static void
delete_rule(Oid relid)
{
	Relation	catalog = table_open(RewriteRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy2(RULERELNAME, ObjectIdGetDatum(relid),
											PointerGetDatum(ViewSelectRuleName));
	Oid			rule;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "materialized view %u has no rule", relid);	/* cannot happen */
	rule = ((Form_pg_rewrite) GETSTRUCT(tuple))->oid;
	CatalogTupleDelete(catalog, &tuple->t_self);
	deleteDependencyRecordsFor(RewriteRelationId, rule, false);
	DeleteComments(rule, RewriteRelationId, 0);
	table_close(catalog, RowExclusiveLock);
}

static void
change_kind(Oid relid)
{
	Relation	catalog = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);	/* cannot happen */
	form = (Form_pg_class) GETSTRUCT(tuple);
	form->relkind = RELKIND_RELATION;
	form->relhasrules = false;
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	table_close(catalog, RowExclusiveLock);
}

void
wh_release_make_table(Oid relid)
{
	delete_rule(relid);
	change_kind(relid);
	CacheInvalidateRelcacheByRelid(relid);
	InvokeObjectPostAlterHook(RelationRelationId, relid, 0);
	CommandCounterIncrement();
}
