/*
 * adopt_rule.c: another definition for a materialized view, in place.
 *
 * A day of the old way is defined as a query over dblink, which may hold a
 * password.  It is to be defined as days of ours are, and to keep its OID, rows,
 * indexes, grants and whatever depends on it.
 *
 * PostgreSQL's own way to replace the rule of a relation locks readers out until
 * the commit, of every day that the old views read.  Readers of a materialized
 * view never look at its rule, only REFRESH does: so the row of pg_rewrite and
 * its dependencies are exchanged here under the lock that keeps REFRESH out.
 *
 * Called by adopt.c, which has checked that the columns are the same.  May not
 * touch anything but that rule.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_rewrite.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "rewrite/rewriteSupport.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "adopt.h"
#include "compat.h"

static List *
analyzed(Oid relid, const char *definition)
{
	RawStmt    *statement = linitial_node(RawStmt, raw_parser(definition, RAW_PARSE_DEFAULT));
	Relation	rel = table_open(relid, NoLock);
	Query	   *query = wh_rule_query(rel, parse_analyze_fixedparams(statement, definition, NULL, 0, NULL));

	table_close(rel, NoLock);
	return list_make1(query);
}

static void
depend(Oid rule, Oid relid, List *actions)
{
	ObjectAddress myself;
	ObjectAddress relation;

	ObjectAddressSet(myself, RewriteRelationId, rule);
	ObjectAddressSet(relation, RelationRelationId, relid);
	deleteDependencyRecordsFor(RewriteRelationId, rule, false);
	recordDependencyOn(&myself, &relation, DEPENDENCY_INTERNAL);
	recordDependencyOnExpr(&myself, (Node *) actions, NIL, DEPENDENCY_NORMAL);
}

void
wh_adopt_define(Oid relid, const char *definition)
{
	List	   *actions = analyzed(relid, definition);
	Relation	catalog = table_open(RewriteRelationId, RowExclusiveLock);
	HeapTuple	old_tuple = SearchSysCacheCopy2(RULERELNAME, ObjectIdGetDatum(relid),
												PointerGetDatum(ViewSelectRuleName));
	Datum		values[Natts_pg_rewrite] = {0};
	bool		nulls[Natts_pg_rewrite] = {0};
	bool		replaced[Natts_pg_rewrite] = {0};
	HeapTuple	tuple;

	if (!HeapTupleIsValid(old_tuple))
		elog(ERROR, "materialized view %u has no rule", relid);	/* cannot happen */
	values[Anum_pg_rewrite_ev_action - 1] = CStringGetTextDatum(nodeToString(actions));
	replaced[Anum_pg_rewrite_ev_action - 1] = true;
	tuple = heap_modify_tuple(old_tuple, RelationGetDescr(catalog), values, nulls, replaced);
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	depend(((Form_pg_rewrite) GETSTRUCT(tuple))->oid, relid, actions);
	table_close(catalog, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}
