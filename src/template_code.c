/*
 * template_code.c: whose code a template may bring, and how it is run.
 *
 * A template's indexes may call functions, and its columns may be of types that
 * check their values; whoever was granted TRIGGER on a table of a month or year may
 * have put one there.  All that runs as admin_role, who can read every password
 * and every tenant's rows.  So it has to belong to somebody who could do as
 * much anyway: a superuser, or a role that may act as admin_role.  It is looked
 * at when it is about to run, since an owner can change between two loads.
 * What a trusted role's function calls is that role's to answer for; operator
 * classes and base types are made by superusers only.
 *
 * Called by load.c, late.c, combine.c, fetch_day.c and template_views.c; how code is
 * run is also for audit.c, schedule_sql.c, pg_cron_import.c and reader_sql.c.  Runs
 * nothing of it itself.  Locks: those of catalog look-ups.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_utilcmd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

#include "caller.h"
#include "guc.h"
#include "template_code.h"

/* ---- how it is run ---- */

void
wh_restricted_begin(WhRestricted *restricted)
{
	GetUserIdAndSecContext(&restricted->user, &restricted->context);
	SetUserIdAndSecContext(restricted->user,
						   restricted->context | SECURITY_RESTRICTED_OPERATION);
	restricted->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

/*
 * For what superusers may call: a trigger that admin_role put on a table of its
 * own must find no way to their rights, neither a setting that stays nor a
 * constraint trigger that waits for the commit, when they are back.
 */
void
wh_restricted_begin_as_admin(WhRestricted *restricted)
{
	wh_restricted_begin(restricted);
	SetUserIdAndSecContext(get_role_oid(wh_admin_role, false),
						   restricted->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

void
wh_restricted_end(const WhRestricted *restricted)
{
	AtEOXact_GUC(false, restricted->guc_level);
	SetUserIdAndSecContext(restricted->user, restricted->context);
}

/* ---- whose it is ---- */

static bool
is_trusted(Oid owner)
{
	Oid			admin = get_role_oid(wh_admin_role, false);

	return wh_may_act_as(owner, admin);
}

static void
refuse(const char *kind, const char *name, Oid owner)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("%s %s belongs to role \"%s\"", kind, name,
					GetUserNameFromId(owner, true)),
			 errdetail("It would run with the rights of role \"%s\".", wh_admin_role),
			 errhint("Read it, then give it to role \"%s\" with ALTER %s … OWNER TO.", wh_admin_role,
					 strcmp(kind, "type") == 0 ? "TYPE" : "FUNCTION")));
}

static void
check_function(Oid function)
{
	HeapTuple	tuple;
	Oid			owner;

	if (function < FirstNormalObjectId)
		return;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", function);	/* cannot happen */
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);
	if (!is_trusted(owner))
		refuse("function", format_procedure(function), owner);
}

/* Whoever owns a type can give it checks and casts. */
static void
check_type(Oid type)
{
	HeapTuple	tuple;
	Oid			owner;

	if (type < FirstNormalObjectId)
		return;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);	/* cannot happen */
	owner = ((Form_pg_type) GETSTRUCT(tuple))->typowner;
	ReleaseSysCache(tuple);
	if (!is_trusted(owner))
		refuse("type", format_type_be(type), owner);
}

static bool
function_callback(Oid function, void *context pg_attribute_unused())
{
	check_function(function);
	return false;
}

/* Visits every function of an expression; those of domains are their types'. */
static bool
code_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	(void) check_functions_in_node(node, function_callback, context);
	if (IsA(node, CoerceToDomain))
		check_type(((CoerceToDomain *) node)->resulttype);
	return expression_tree_walker(node, code_walker, context);
}

static void
check_expression(Node *expression)
{
	(void) code_walker(expression, NULL);
}

/* ---- what there is to look at ---- */

void
wh_template_code_check_columns(TupleDesc columns)
{
	for (int i = 0; i < columns->natts; i++)
	{
		if (!TupleDescAttr(columns, i)->attisdropped)
			check_type(TupleDescAttr(columns, i)->atttypid);
	}
}

/* An index of plain columns brings no code; a small day is not to pay for looking. */
static bool
has_expressions(const IndexStmt *index)
{
	ListCell   *cell;

	foreach(cell, index->indexParams)
		if (lfirst_node(IndexElem, cell)->expr != NULL)
			return true;
	return index->whereClause != NULL;
}

void
wh_template_code_check_index(Oid relid, IndexStmt *index)
{
	IndexStmt  *transformed;
	ListCell   *cell;

	if (!has_expressions(index))
		return;
	transformed = transformIndexStmt(relid, index, "");
	foreach(cell, transformed->indexParams)
		check_expression(lfirst_node(IndexElem, cell)->expr);
	check_expression(transformed->whereClause);
}

void
wh_template_code_check_relation(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	ListCell   *cell;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		check_function(rel->trigdesc->triggers[i].tgfoid);
	foreach(cell, RelationGetIndexList(rel))
	{
		Relation	index = index_open(lfirst_oid(cell), AccessShareLock);

		check_expression((Node *) RelationGetIndexExpressions(index));
		check_expression((Node *) RelationGetIndexPredicate(index));
		index_close(index, NoLock);
	}
	relation_close(rel, NoLock);
}
