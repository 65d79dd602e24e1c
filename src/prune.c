/*
 * prune.c: makes "key >= CURRENT_DATE - 30" prune when the query is planned.
 *
 * PostgreSQL prunes by stable expressions only when a plan starts, after every
 * partition was planned and locked.  Time only moves on, so such a lower bound
 * implies a constant one that also holds for every later run of a cached plan;
 * we add it beside the original in the same list of ANDed conditions.  As the
 * addition is implied, it can cost time but never change an answer.
 *
 * Called by the planner for each relation it takes up, that is after views and
 * subqueries are pulled up, constants folded and custom plans' parameters put
 * in.  Takes no lock, reads only the syscache, raises no error.
 *
 * How a bound is proved.  An expression is followed as a wall-clock time that
 * is no later than its value at any later moment in any session's time zone:
 * now() starts two days back (time zones, and a clock set back by a day), each
 * step is monotonic on the wall clock or takes off what it is not, and a day
 * at the end covers the key's own conversions.  What has no such proof gets no
 * bound: functions not listed, parameters of generic plans, OR, NOT.  Zones more
 * than a day from UTC (possible only as POSIX specifications) are not covered.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/plancat.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "guc.h"
#include "prune.h"

/* How far before now a bound may start from: zones reach 15 h, clocks err. */
#define NOW_MARGIN (2 * USECS_PER_DAY)
/* Taken off a finished bound: the key's zone, and summer time in conversions. */
#define KEY_MARGIN USECS_PER_DAY
/* Larger offsets get no bound, so that no arithmetic here can overflow. */
#define MAX_OFFSET_DAYS 400000
#define MAX_OFFSET_MONTHS 12000

static get_relation_info_hook_type previous_get_relation_info = NULL;

static bool lower_bound(Node *expression, Timestamp *bound);

static Timestamp
floor_to_day(Timestamp time)
{
	Timestamp	remainder = time % USECS_PER_DAY;

	return time - (remainder < 0 ? remainder + USECS_PER_DAY : remainder);
}

/* A timestamptz is a count from an instant in UTC, so it also is UTC's wall clock. */
static Timestamp
now_on_every_wall(void)
{
	return (Timestamp) GetCurrentTransactionStartTimestamp() - NOW_MARGIN;
}

static bool
lower_bound_of_keyword(SQLValueFunction *function, Timestamp *bound)
{
	*bound = now_on_every_wall();
	switch (function->op)
	{
		case SVFOP_CURRENT_DATE:
			*bound = floor_to_day(*bound);
			return true;
		case SVFOP_CURRENT_TIMESTAMP:
		case SVFOP_CURRENT_TIMESTAMP_N:
		case SVFOP_LOCALTIMESTAMP:
		case SVFOP_LOCALTIMESTAMP_N:
			return true;
		default:
			return false;
	}
}

/* The units are listed because another one is an error, which is not ours to raise. */
static bool
is_truncation_unit(Node *argument)
{
	static const char *const units[] = {"second", "minute", "hour", "day",
	"week", "month", "quarter", "year"};
	char	   *unit;

	if (!IsA(argument, Const) || castNode(Const, argument)->constisnull)
		return false;
	unit = TextDatumGetCString(castNode(Const, argument)->constvalue);
	for (int i = 0; i < lengthof(units); i++)
		if (pg_strcasecmp(unit, units[i]) == 0)
			return true;
	return false;
}

static bool
lower_bound_of_function(FuncExpr *function, Timestamp *bound)
{
	switch (function->funcid)
	{
		case F_NOW:
		case F_TRANSACTION_TIMESTAMP:
		case F_STATEMENT_TIMESTAMP:
			*bound = now_on_every_wall();
			return true;
		case F_TIMESTAMP_DATE:
		case F_TIMESTAMP_TIMESTAMPTZ:
		case F_TIMESTAMPTZ_DATE:
		case F_TIMESTAMPTZ_TIMESTAMP:
			/* The same on the wall; a time that a zone skips moves forward. */
			return lower_bound(linitial(function->args), bound);
		case F_DATE_TIMESTAMP:
		case F_DATE_TIMESTAMPTZ:
			if (!lower_bound(linitial(function->args), bound))
				return false;
			*bound = floor_to_day(*bound);
			return true;
		case F_TIMESTAMP_TIMESTAMP_INT4:
		case F_TIMESTAMPTZ_TIMESTAMPTZ_INT4:
			/* It rounds, at most to the second. */
			if (!lower_bound(linitial(function->args), bound))
				return false;
			*bound -= USECS_PER_SEC;
			return true;
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
			if (!is_truncation_unit(linitial(function->args)) ||
				!lower_bound(lsecond(function->args), bound))
				return false;
			*bound = DatumGetTimestamp(DirectFunctionCall2(timestamp_trunc,
														   castNode(Const, linitial(function->args))->constvalue,
														   TimestampGetDatum(*bound)));
			return true;
		default:
			return false;
	}
}

static bool
add_days(Timestamp *bound, Const *days, int sign)
{
	int32		number = DatumGetInt32(days->constvalue);

	if (number < -MAX_OFFSET_DAYS || number > MAX_OFFSET_DAYS)
		return false;
	*bound += sign * (int64) number * USECS_PER_DAY;
	return true;
}

static bool
add_interval(Timestamp *bound, Const *offset, int sign, bool with_zone)
{
	Interval   *interval = DatumGetIntervalP(offset->constvalue);

	if (interval->month < -MAX_OFFSET_MONTHS || interval->month > MAX_OFFSET_MONTHS ||
		interval->day < -MAX_OFFSET_DAYS || interval->day > MAX_OFFSET_DAYS ||
		interval->time < -MAX_OFFSET_DAYS * USECS_PER_DAY ||
		interval->time > MAX_OFFSET_DAYS * USECS_PER_DAY)
		return false;
	*bound = DatumGetTimestamp(DirectFunctionCall2(sign < 0 ? timestamp_mi_interval : timestamp_pl_interval,
												   TimestampGetDatum(*bound),
												   IntervalPGetDatum(interval)));

	/*
	 * The 28th 23:59 and the 31st 00:00 both lead to the 28th of February, the
	 * later one to the earlier time: months keep the order of days only.
	 */
	if (interval->month != 0)
		*bound -= USECS_PER_DAY;
	/* Hours across a change of the zone's offset are not hours on the wall. */
	if (with_zone && interval->time != 0)
		*bound -= USECS_PER_DAY;
	return true;
}

static bool
lower_bound_of_operator(OpExpr *operator, Timestamp *bound)
{
	Const	   *offset;

	if (list_length(operator->args) != 2 || !IsA(lsecond(operator->args), Const))
		return false;
	offset = lsecond_node(Const, operator->args);
	if (offset->constisnull || !lower_bound(linitial(operator->args), bound))
		return false;
	switch (operator->opfuncid)
	{
		case F_DATE_MII:
			return add_days(bound, offset, -1);
		case F_DATE_PLI:
			return add_days(bound, offset, 1);
		case F_DATE_MI_INTERVAL:
		case F_TIMESTAMP_MI_INTERVAL:
			return add_interval(bound, offset, -1, false);
		case F_DATE_PL_INTERVAL:
		case F_TIMESTAMP_PL_INTERVAL:
			return add_interval(bound, offset, 1, false);
		case F_TIMESTAMPTZ_MI_INTERVAL:
			return add_interval(bound, offset, -1, true);
		case F_TIMESTAMPTZ_PL_INTERVAL:
			return add_interval(bound, offset, 1, true);
		default:
			return false;
	}
}

/*
 * A wall-clock time that the expression is never before, from now on.  Years
 * outside 1 to 9999 get none: a further step from there could leave the range.
 */
static bool
lower_bound(Node *expression, Timestamp *bound)
{
	const Timestamp year_1 = -730120 * USECS_PER_DAY;
	const Timestamp year_10000 = 2921940 * USECS_PER_DAY;
	bool		found = false;

	if (IsA(expression, SQLValueFunction))
		found = lower_bound_of_keyword(castNode(SQLValueFunction, expression), bound);
	else if (IsA(expression, FuncExpr))
		found = lower_bound_of_function(castNode(FuncExpr, expression), bound);
	else if (IsA(expression, OpExpr))
		found = lower_bound_of_operator(castNode(OpExpr, expression), bound);
	return found && *bound > year_1 && *bound < year_10000;
}

/*
 * The relation's column inside casts and truncations, none of which make it
 * later by as much as KEY_MARGIN leaves; NULL if there is anything else.
 */
static Var *
key_column(Node *expression, Index relid)
{
	if (IsA(expression, Var))
	{
		Var		   *column = castNode(Var, expression);
		bool		ours = column->varno == relid && column->varlevelsup == 0 &&
			column->varattno > 0;
		bool		dated = column->vartype == DATEOID ||
			column->vartype == TIMESTAMPOID || column->vartype == TIMESTAMPTZOID;

		return ours && dated ? column : NULL;
	}
	if (!IsA(expression, FuncExpr))
		return NULL;
	switch (castNode(FuncExpr, expression)->funcid)
	{
		case F_TIMESTAMP_DATE:
		case F_TIMESTAMP_TIMESTAMPTZ:
		case F_TIMESTAMPTZ_DATE:
		case F_TIMESTAMPTZ_TIMESTAMP:
		case F_DATE_TIMESTAMP:
		case F_DATE_TIMESTAMPTZ:
			return key_column(linitial(castNode(FuncExpr, expression)->args), relid);
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
			return key_column(lsecond(castNode(FuncExpr, expression)->args), relid);
		default:
			return NULL;
	}
}

static Datum
bound_as(Oid type, Timestamp bound)
{
	if (type == DATEOID)
		return DateADTGetDatum((DateADT) (floor_to_day(bound) / USECS_PER_DAY));
	return TimestampGetDatum(bound);
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

/* The constant bound that a condition implies for a column of the relation, or NULL. */
static Expr *
implied_bound(Node *condition, Index relid)
{
	OpExpr	   *comparison;
	Oid			operator;
	Var		   *column;
	Node	   *value;
	Timestamp	bound;

	if (condition == NULL || !IsA(condition, OpExpr))
		return NULL;
	comparison = castNode(OpExpr, condition);
	if (list_length(comparison->args) != 2)
		return NULL;
	operator = comparison->opno;
	column = key_column(linitial(comparison->args), relid);
	value = lsecond(comparison->args);
	if (column == NULL)
	{
		operator = get_commutator(operator);
		column = key_column(lsecond(comparison->args), relid);
		value = linitial(comparison->args);
	}
	if (column == NULL || !OidIsValid(operator) || IsA(value, Const))
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
	if (!lower_bound(value, &bound))
		return NULL;
	return make_bound(column, bound - KEY_MARGIN);
}

/* Conditions that are ANDed, as the planner keeps them at this point. */
static List *
with_bounds(List *conditions, Index relid)
{
	List	   *bounds = NIL;
	ListCell   *cell;

	foreach(cell, conditions)
	{
		Expr	   *bound = implied_bound(lfirst(cell), relid);

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
add_bounds(Node *jointree, Index relid)
{
	if (jointree == NULL)
		return;
	if (IsA(jointree, FromExpr))
	{
		FromExpr   *from = castNode(FromExpr, jointree);
		ListCell   *cell;

		foreach(cell, from->fromlist)
			add_bounds(lfirst(cell), relid);
		if (from->quals != NULL && IsA(from->quals, List))
			from->quals = (Node *) with_bounds((List *) from->quals, relid);
	}
	else if (IsA(jointree, JoinExpr))
	{
		JoinExpr   *join = castNode(JoinExpr, jointree);

		add_bounds(join->larg, relid);
		add_bounds(join->rarg, relid);
		if (join->quals != NULL && IsA(join->quals, List))
			join->quals = (Node *) with_bounds((List *) join->quals, relid);
	}
}

/*
 * A tree under UNION ALL: the conditions were already given to the union, and
 * are handed down to its members right after this.
 */
static void
add_bounds_to_union(PlannerInfo *root, RelOptInfo *parent)
{
	List	   *additions = NIL;
	ListCell   *cell;

	foreach(cell, parent->baserestrictinfo)
	{
		RestrictInfo *condition = lfirst_node(RestrictInfo, cell);
		Expr	   *bound = implied_bound((Node *) condition->clause, parent->relid);
		RestrictInfo *addition;
		bool		known = false;
		ListCell   *other;

		if (bound == NULL)
			continue;
		foreach(other, parent->baserestrictinfo)
			known = known || equal(lfirst_node(RestrictInfo, other)->clause, bound);
		if (known)
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
	if (!is_our_tree(relation))
		return;
	if (member != NULL)
		add_bounds_to_union(root, root->simple_rel_array[member->parent_relid]);
	else
		add_bounds((Node *) root->parse->jointree, rel->relid);
}

void
wh_prune_register(void)
{
	previous_get_relation_info = get_relation_info_hook;
	get_relation_info_hook = prune_relation;
}
