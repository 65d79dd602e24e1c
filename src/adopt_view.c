/*
 * adopt_view.c: what views of the old way read.
 *
 * A view that becomes ours is made anew from the ledger sooner or later.  That
 * gives the same rows only if it is what the old functions made: UNION ALL of
 * all columns of relations, in order, without any condition; the public view
 * with the name of each schema as a constant at the end.  This is read from the
 * parsed view, never from its text.  Whatever else a view does is a problem, in
 * words for whoever made it.
 *
 * Called by adopt.c, which has locked both views.  Changes nothing.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "adopt.h"
#include "sqlutil.h"
#include "view.h"

typedef struct Reading
{
	TupleDesc	columns;		/* of the template */
	bool		is_public;
	WhAdoptedView *view;
	List	   *schema_names;	/* the constants, one for each member */
} Reading;

static void
complain(Reading *reading, const char *problem)
{
	if (reading->view->problem == NULL)
		reading->view->problem = problem;
}

/* ---- what the union is made of ---- */

/* Whether a query is FROM and a list of columns, or a union, and nothing else. */
static bool
is_bare(const Query *query)
{
	return query->commandType == CMD_SELECT && query->jointree->quals == NULL &&
		query->cteList == NIL && query->sortClause == NIL && query->limitCount == NULL &&
		query->limitOffset == NULL && query->distinctClause == NIL && query->groupClause == NIL &&
		query->groupingSets == NIL && query->havingQual == NULL && query->rowMarks == NIL &&
		!query->hasAggs && !query->hasWindowFuncs && !query->hasTargetSRFs && !query->hasSubLinks;
}

/* The entry of the one relation that a branch reads, or NULL; its number in *index. */
static RangeTblEntry *
only_relation(const Query *query, int *index)
{
	RangeTblEntry *entry;

	if (list_length(query->jointree->fromlist) != 1 ||
		!IsA(linitial(query->jointree->fromlist), RangeTblRef))
		return NULL;
	*index = linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;
	entry = rt_fetch(*index, query->rtable);
	return entry->rtekind == RTE_RELATION && entry->tablesample == NULL ? entry : NULL;
}

static bool
is_column(const TargetEntry *target, int index, const RangeTblEntry *entry, const char *name)
{
	const Var  *var = (const Var *) target->expr;

	return !target->resjunk && IsA(var, Var) && var->varno == index && var->varlevelsup == 0 &&
		var->varattno > 0 && strcmp(get_attname(entry->relid, var->varattno, false), name) == 0;
}

static void
read_schema_name(Reading *reading, const TargetEntry *target)
{
	const Const *value = (const Const *) target->expr;

	if (target->resjunk || !IsA(value, Const) || value->consttype != TEXTOID || value->constisnull)
		complain(reading, "its column " WH_SCHEMA_NAME_COLUMN " is not a constant text in every branch");
	else
		reading->schema_names = lappend(reading->schema_names, TextDatumGetCString(value->constvalue));
}

static void
read_branch(Reading *reading, const Query *query)
{
	int			natts = reading->columns->natts;
	int			index = 0;
	RangeTblEntry *entry = only_relation(query, &index);

	if (entry == NULL)
	{
		complain(reading, "it is not a union of whole relations");
		return;
	}
	if (list_length(query->targetList) != natts + (reading->is_public ? 1 : 0))
	{
		complain(reading, psprintf("it does not have the columns of the template where it reads \"%s\"",
								   get_rel_name(entry->relid)));
		return;
	}
	for (int i = 0; i < natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(reading->columns, i)->attname);

		if (!is_column(list_nth(query->targetList, i), index, entry, name))
			complain(reading, psprintf("its column \"%s\" is not that of \"%s\"", name, get_rel_name(entry->relid)));
	}
	if (reading->is_public)
		read_schema_name(reading, llast(query->targetList));
	if (list_member_oid(reading->view->members, entry->relid))
		complain(reading, psprintf("it reads \"%s\" twice", get_rel_name(entry->relid)));
	reading->view->members = lappend_oid(reading->view->members, entry->relid);
}

static void read_query(Reading *reading, const Query *query);

static void
read_union(Reading *reading, const Query *query, Node *node)
{
	check_stack_depth();
	if (IsA(node, RangeTblRef))
	{
		const RangeTblEntry *entry = rt_fetch(((RangeTblRef *) node)->rtindex, query->rtable);

		read_query(reading, entry->subquery);
	}
	else
	{
		const SetOperationStmt *operation = castNode(SetOperationStmt, node);

		if (operation->op != SETOP_UNION || !operation->all)
			complain(reading, "it is not a UNION ALL");
		read_union(reading, query, operation->larg);
		read_union(reading, query, operation->rarg);
	}
}

static void
read_query(Reading *reading, const Query *query)
{
	CHECK_FOR_INTERRUPTS();
	if (!is_bare(query))
		complain(reading, "it does more than to unite relations");
	else if (query->setOperations != NULL)
		read_union(reading, query, query->setOperations);
	else
		read_branch(reading, query);
}

/* ---- a view ---- */

static void
read_view(Reading *reading, const WhAdoption *adoption)
{
	WhAdoptedView *view = reading->view;
	Relation	rel = relation_open(view->relid, AccessShareLock);

	view->owner = rel->rd_rel->relowner;
	if (rel->rd_rel->relkind != RELKIND_VIEW)
		complain(reading, "it is not a view");
	else
	{
		const char *problem = wh_adopt_columns_problem(RelationGetDescr(rel), reading->columns,
													   reading->is_public ? WH_SCHEMA_NAME_COLUMN : NULL, TEXTOID);

		if (problem != NULL)
			complain(reading, problem);
		else
			read_query(reading, get_view_query(rel));
		if (view->owner != adoption->admin && !adoption->may_own)
			complain(reading, psprintf("it belongs to role \"%s\"", GetUserNameFromId(view->owner, false)));
	}
	relation_close(rel, NoLock);
}

/* ---- the tenant view ---- */

static WhAdoptee *
find_relation(WhAdoption *adoption, Oid relid)
{
	for (int i = 0; i < adoption->n; i++)
		if (adoption->relations[i].relid == relid)
			return &adoption->relations[i];
	return NULL;
}

/* What it reads has to be ours too, or its rows would be gone. */
static void
read_tenant_view(WhAdoption *adoption)
{
	WhAdoptedView *view = &adoption->tenant_view;
	Reading		reading = {.columns = adoption->tmpl->columns,.view = view};
	ListCell   *cell;

	read_view(&reading, adoption);
	foreach(cell, view->members)
	{
		WhAdoptee  *relation = find_relation(adoption, lfirst_oid(cell));

		if (relation == NULL)
			complain(&reading, psprintf("it reads %s, which has not the name of a day, month or year of the template",
										wh_relation_name(lfirst_oid(cell))));
		else
		{
			relation->in_view = true;
			if (relation->problem != NULL)
				complain(&reading, psprintf("it reads \"%s\", which cannot be taken over", relation->relname));
		}
	}
	for (int i = 0; i < adoption->n; i++)
		if (!adoption->relations[i].in_view && !adoption->relations[i].is_ours &&
			adoption->relations[i].problem == NULL)
			wh_adopt_remark(&adoption->relations[i], "the tenant view does not read it yet, and will");
}

/* ---- the public view ---- */

static bool
is_our_tenant_view(const WhAdoption *adoption, Oid relid)
{
	WhArg		args[] = {WH_TEXT(adoption->template_name), WH_OID(relid)};
	bool		found;

	wh_spi_begin();
	found = wh_query("SELECT FROM _wh.tenant_templates WHERE template_name = $1 AND view_oid = $2",
					 lengthof(args), args) > 0;
	wh_spi_end();
	return found;
}

/* A view of its tenant, under the name of its schema. */
static void
check_public_member(WhAdoption *adoption, Reading *reading, Oid relid, const char *schema_name)
{
	char	   *schema = get_namespace_name(get_rel_namespace(relid));

	if (get_rel_relkind(relid) != RELKIND_VIEW || strcmp(get_rel_name(relid), adoption->template_name) != 0)
		complain(reading, psprintf("it reads %s, which is not the view of a tenant", wh_relation_name(relid)));
	else if (strcmp(schema, schema_name) != 0)
		complain(reading, psprintf("it calls rows of schema \"%s\" those of \"%s\"", schema, schema_name));
	else if (strcmp(schema, adoption->schema) != 0 && !is_our_tenant_view(adoption, relid))
		adoption->other_schemas = lappend(adoption->other_schemas, schema);
}

static void
read_public_view(WhAdoption *adoption)
{
	WhAdoptedView *view = &adoption->public_view;
	Reading		reading = {.columns = adoption->tmpl->columns,.is_public = true,.view = view};
	ListCell   *member;
	ListCell   *name;

	read_view(&reading, adoption);
	forboth(member, view->members, name, reading.schema_names)
		check_public_member(adoption, &reading, lfirst_oid(member), lfirst(name));
	if (view->problem != NULL)
		return;
	if (!list_member_oid(view->members, adoption->tenant_view.relid))
		view->remark = "it does not read this tenant yet, and will";
	else if (adoption->other_schemas != NIL)
		view->remark = psprintf("it goes on reading %d more schemas that are not taken over yet",
								list_length(adoption->other_schemas));
}

void
wh_adopt_read_views(WhAdoption *adoption)
{
	if (OidIsValid(adoption->tenant_view.relid) && !adoption->tenant_view.is_ours)
		read_tenant_view(adoption);
	if (OidIsValid(adoption->public_view.relid) && !adoption->public_view.is_ours)
		read_public_view(adoption);
}
