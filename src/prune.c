/*
 * prune.c: makes "key >= CURRENT_DATE - 30" prune when the query is planned.
 *
 * PostgreSQL prunes by stable expressions only when a plan starts, after every
 * partition was planned and locked.  Time only moves on, so such a lower bound
 * implies a constant one that also holds for every later run of a cached plan;
 * we add it beside the original in the same list of ANDed conditions.  As the
 * addition is implied, it can cost time but never change an answer.  What is
 * implied, and why, is in stable_bound.c; which time zones that holds for, in
 * ordinary_zone.c.
 *
 * Called by the planner for each relation it takes up, that is after views and
 * subqueries are pulled up, constants folded and custom plans' parameters put
 * in.  Takes no lock, raises no error, and reads only the syscache and the
 * list of partitions that the planner has just looked up.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_partitioned_table.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "partitioning/partdesc.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "guc.h"
#include "ordinary_zone.h"
#include "prune.h"
#include "stable_bound.h"

/* The column that tells a row's day: only bounds of it can exclude partitions. */
typedef struct KeyColumn
{
	Index		relid;
	AttrNumber	number;
} KeyColumn;

static get_relation_info_hook_type previous_get_relation_info = NULL;

/* The first partition of a relation that the planner has open; any would do. */
static Oid
some_partition(PlannerInfo *root, Oid relation)
{
	Relation	rel = table_open(relation, NoLock);
	PartitionDesc partitions = PartitionDirectoryLookup(root->glob->partition_directory, rel);
	Oid			partition = partitions->nparts > 0 ? partitions->oids[0] : InvalidOid;

	table_close(rel, NoLock);
	return partition;
}

/* The column that a relation is partitioned by in ranges; 0 if it is not. */
static AttrNumber
range_column(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(PARTRELID, ObjectIdGetDatum(relation));
	AttrNumber	column = InvalidAttrNumber;

	if (HeapTupleIsValid(tuple))
	{
		Form_pg_partitioned_table partitioned = (Form_pg_partitioned_table) GETSTRUCT(tuple);

		if (partitioned->partstrat == PARTITION_STRATEGY_RANGE && partitioned->partnatts == 1)
			column = partitioned->partattrs.values[0];
		ReleaseSysCache(tuple);
	}
	return column;
}

/* A tenant's part is partitioned by the column itself, a root by way of its parts. */
static AttrNumber
key_of_tree(PlannerInfo *root, Oid relation)
{
	AttrNumber	column = range_column(relation);
	Oid			part;
	char	   *name;

	if (AttributeNumberIsValid(column))
		return column;
	part = some_partition(root, relation);
	column = range_column(part);
	name = AttributeNumberIsValid(column) ? get_attname(part, column, true) : NULL;
	return name != NULL ? get_attnum(relation, name) : InvalidAttrNumber;
}

static Var *
key_inside(Node *expression, KeyColumn *key, int64 *later)
{
	Var		   *column = wh_wrapped_column(expression, later);

	if (column == NULL || column->varno != key->relid || column->varlevelsup != 0 ||
		column->varattno != key->number)
		return NULL;
	if (column->vartype != DATEOID && column->vartype != TIMESTAMPOID &&
		column->vartype != TIMESTAMPTZOID)
		return NULL;
	return column;
}

static Datum
bound_as(Oid type, Timestamp bound)
{
	Timestamp	remainder = bound % USECS_PER_DAY;

	if (type != DATEOID)
		return TimestampGetDatum(bound);
	return DateADTGetDatum((DateADT) (bound / USECS_PER_DAY - (remainder < 0 ? 1 : 0)));
}

/* column >= bound, in the column's own type: only then is the operator immutable. */
static Expr *
make_bound(Var *column, Timestamp bound)
{
	TypeCacheEntry *type = lookup_type_cache(column->vartype, TYPECACHE_BTREE_OPFAMILY);
	Oid			operator = get_opfamily_member(type->btree_opf, column->vartype,
											   column->vartype, BTGreaterEqualStrategyNumber);
	bool		is_date = column->vartype == DATEOID;
	Const	   *constant = makeConst(column->vartype, -1, InvalidOid,
									 is_date ? sizeof(DateADT) : sizeof(Timestamp),
									 bound_as(column->vartype, bound), false,
									 is_date ? true : FLOAT8PASSBYVAL);
	Expr	   *clause;

	if (!OidIsValid(operator))
		return NULL;
	clause = make_opclause(operator, BOOLOID, false, (Expr *) copyObject(column),
						   (Expr *) constant, InvalidOid, InvalidOid);
	set_opfuncid((OpExpr *) clause);
	return clause;
}

/* The constant bound that a condition implies for the key, or NULL. */
static Expr *
implied_bound(Node *condition, KeyColumn *key)
{
	OpExpr	   *comparison;
	Oid			operator;
	Var		   *column;
	Node	   *left;
	Node	   *right;
	int64		later;
	Timestamp	bound;

	if (condition == NULL || !IsA(condition, OpExpr))
		return NULL;
	comparison = castNode(OpExpr, condition);
	if (list_length(comparison->args) != 2)
		return NULL;
	operator = comparison->opno;
	left = linitial(comparison->args);
	right = lsecond(comparison->args);
	column = key_inside(left, key, &later);
	if (column == NULL)
	{
		operator = get_commutator(operator);
		left = lsecond(comparison->args);
		right = linitial(comparison->args);
		column = key_inside(left, key, &later);
	}
	if (column == NULL || !OidIsValid(operator) || IsA(right, Const))
		return NULL;

	/* date, timestamp and timestamptz share one family, also between them. */
	switch (get_op_opfamily_strategy(operator,
									 lookup_type_cache(column->vartype,
													   TYPECACHE_BTREE_OPFAMILY)->btree_opf))
	{
		case BTEqualStrategyNumber:
		case BTGreaterEqualStrategyNumber:
		case BTGreaterStrategyNumber:
			break;
		default:
			return NULL;
	}
	if (!wh_zone_is_ordinary(session_timezone) || !wh_stable_bound(right, &bound))
		return NULL;
	bound -= later + wh_comparison_margin(exprType(left), exprType(right));
	wh_zone_watch();
	return make_bound(column, bound);
}

/* Conditions that are ANDed, as the planner keeps them at this point. */
static List *
with_bounds(List *conditions, KeyColumn *key)
{
	List	   *bounds = NIL;
	ListCell   *cell;

	foreach(cell, conditions)
	{
		Expr	   *bound = implied_bound(lfirst(cell), key);

		/* MIN and MAX are planned a second time, from conditions that have it. */
		if (bound != NULL && !list_member(conditions, bound))
			bounds = list_append_unique(bounds, bound);
	}
	return list_concat(conditions, bounds);
}

/*
 * Beside its own condition an implied one is right everywhere, in an outer
 * join's ON as well.
 */
static void
add_bounds(Node *jointree, KeyColumn *key)
{
	if (jointree == NULL)
		return;
	if (IsA(jointree, FromExpr))
	{
		FromExpr   *from = castNode(FromExpr, jointree);
		ListCell   *cell;

		foreach(cell, from->fromlist)
			add_bounds(lfirst(cell), key);
		if (from->quals != NULL && IsA(from->quals, List))
			from->quals = (Node *) with_bounds((List *) from->quals, key);
	}
	else if (IsA(jointree, JoinExpr))
	{
		JoinExpr   *join = castNode(JoinExpr, jointree);

		add_bounds(join->larg, key);
		add_bounds(join->rarg, key);
		if (join->quals != NULL && IsA(join->quals, List))
			join->quals = (Node *) with_bounds((List *) join->quals, key);
	}
}

/* The union's column that the tree's key is; none if the union wraps it. */
static AttrNumber
column_of_union(AppendRelInfo *member, AttrNumber key)
{
	ListCell   *cell;

	foreach(cell, member->translated_vars)
	{
		Node	   *translated = lfirst(cell);

		if (translated != NULL && IsA(translated, Var) &&
			castNode(Var, translated)->varno == member->child_relid &&
			castNode(Var, translated)->varattno == key)
			return foreach_current_index(cell) + 1;
	}
	return InvalidAttrNumber;
}

static bool
is_among(Expr *clause, List *conditions)
{
	ListCell   *cell;

	foreach(cell, conditions)
		if (equal(lfirst_node(RestrictInfo, cell)->clause, clause))
			return true;
	return false;
}

/*
 * A tree under UNION ALL: the conditions were already given to the union, and
 * are handed down to its members right after this.
 */
static void
add_bounds_to_union(PlannerInfo *root, RelOptInfo *parent, KeyColumn *key)
{
	List	   *additions = NIL;
	ListCell   *cell;

	foreach(cell, parent->baserestrictinfo)
	{
		RestrictInfo *condition = lfirst_node(RestrictInfo, cell);
		Expr	   *bound = implied_bound((Node *) condition->clause, key);
		RestrictInfo *addition;

		if (bound == NULL || is_among(bound, parent->baserestrictinfo) ||
			is_among(bound, additions))
			continue;
		addition = make_simple_restrictinfo(root, bound);
		addition->security_level = condition->security_level;
		additions = lappend(additions, addition);
	}
	parent->baserestrictinfo = list_concat(parent->baserestrictinfo, additions);
}

/* The roots and tenants' parts of our trees, and nothing else partitioned, live in _wh. */
static bool
is_our_tree(Oid relation)
{
	return get_rel_namespace(relation) == get_namespace_oid("_wh", true);
}

static void
prune_tree(PlannerInfo *root, Oid relation, Index relid, AppendRelInfo *member)
{
	KeyColumn	key = {relid, key_of_tree(root, relation)};

	if (!AttributeNumberIsValid(key.number))
		return;
	if (member == NULL)
	{
		add_bounds((Node *) root->parse->jointree, &key);
		return;
	}
	key.relid = member->parent_relid;
	key.number = column_of_union(member, key.number);
	if (AttributeNumberIsValid(key.number))
		add_bounds_to_union(root, root->simple_rel_array[member->parent_relid], &key);
}

static void
prune_relation(PlannerInfo *root, Oid relation, bool inhparent, RelOptInfo *rel)
{
	AppendRelInfo *member;

	if (previous_get_relation_info)
		previous_get_relation_info(root, relation, inhparent, rel);

	/* Every planned relation comes by: what is not partitioned leaves here. */
	if (rel->part_scheme == NULL || !wh_enable_stable_pruning || !enable_partition_pruning)
		return;
	member = root->append_rel_array ? root->append_rel_array[rel->relid] : NULL;
	if (member != NULL && planner_rt_fetch(member->parent_relid, root)->rtekind == RTE_RELATION)
		return;					/* the tree's root was here before it */
	if (is_our_tree(relation))
		prune_tree(root, relation, rel->relid, member);
}

/* Without the watch over TimeZone a cached plan's bound could become wrong. */
void
wh_prune_register(void)
{
	if (!wh_zone_register())
		return;
	previous_get_relation_info = get_relation_info_hook;
	get_relation_info_hook = prune_relation;
}
