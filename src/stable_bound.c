/*
 * stable_bound.c: proves constant lower bounds of CURRENT_DATE, now() and what
 * dashboards make of them.
 *
 * Called by prune.c while a query is planned.  Reads only the expression, the
 * start of the transaction and statement, and the tables of time zones; takes no lock and raises
 * no error: what could overflow or is no valid argument gets no bound.
 *
 * The proof.  now() can only grow, but for a clock that is set back: it starts
 * a day early.  A bound of a timestamptz is an instant, that of a date or
 * timestamp a time on the wall.  Between the two lies the offset of a zone,
 * never more than WH_ORDINARY_OFFSET either way; so each conversion takes that
 * much off, whatever the zone is when the plan runs, summer time included.  All
 * other steps keep the order, or take off by how much they may break it.
 * Functions not listed, parameters of generic plans, OR, IN have no proof here.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "ordinary_zone.h"
#include "stable_bound.h"

/* How far a clock may be set back under a cached plan. */
#define CLOCK_MARGIN USECS_PER_DAY
/* Larger offsets get no bound, so that no arithmetic here can overflow. */
#define MAX_OFFSET_DAYS 400000
#define MAX_OFFSET_MONTHS 12000

static Timestamp
floor_to_day(Timestamp time)
{
	Timestamp	remainder = time % USECS_PER_DAY;

	return time - (remainder < 0 ? remainder + USECS_PER_DAY : remainder);
}

static Timestamp
bound_of_now(void)
{
	return (Timestamp) GetCurrentTransactionStartTimestamp() - CLOCK_MARGIN;
}

static bool
bound_of_keyword(SQLValueFunction *function, Timestamp *bound)
{
	*bound = bound_of_now();
	switch (function->op)
	{
		case SVFOP_CURRENT_DATE:
			*bound = floor_to_day(*bound - WH_ORDINARY_OFFSET);
			return true;
		case SVFOP_CURRENT_TIMESTAMP:
			return true;
		case SVFOP_CURRENT_TIMESTAMP_N:
			*bound -= USECS_PER_SEC;	/* rounded */
			return true;
		case SVFOP_LOCALTIMESTAMP:
			*bound -= WH_ORDINARY_OFFSET;
			return true;
		case SVFOP_LOCALTIMESTAMP_N:
			*bound -= WH_ORDINARY_OFFSET + USECS_PER_SEC;
			return true;
		default:
			return false;
	}
}

static char *
constant_text(Node *argument)
{
	Const	   *constant = IsA(argument, Const) ? castNode(Const, argument) : NULL;

	if (constant == NULL || constant->constisnull || constant->consttype != TEXTOID)
		return NULL;
	return TextDatumGetCString(constant->constvalue);
}

/* The units are listed because another one is an error, which is not ours to raise. */
static bool
is_truncation_unit(Node *argument)
{
	static const char *const units[] = {"second", "minute", "hour", "day",
	"week", "month", "quarter", "year"};
	char	   *unit = constant_text(argument);

	for (int i = 0; unit != NULL && i < lengthof(units); i++)
		if (pg_strcasecmp(unit, units[i]) == 0)
			return true;
	return false;
}

/* Abbreviations come first when it runs; the server keeps these within 14 hours. */
static bool
is_ordinary_zone_name(Node *argument)
{
	char	   *name = constant_text(argument);
	pg_tz	   *zone = name != NULL && strlen(name) <= TZ_STRLEN_MAX ? pg_tzset(name) : NULL;

	return zone != NULL && wh_zone_is_ordinary(zone);
}

static Timestamp
truncate_to(Node *unit, Timestamp time)
{
	return DatumGetTimestamp(DirectFunctionCall2(timestamp_trunc,
												 castNode(Const, unit)->constvalue,
												 TimestampGetDatum(time)));
}

/* The argument that a function hands on, more or less as it is; NULL for others. */
static Node *
converted_argument(FuncExpr *function)
{
	switch (function->funcid)
	{
		case F_TIMESTAMP_DATE:
		case F_TIMESTAMP_TIMESTAMPTZ:
		case F_TIMESTAMPTZ_DATE:
		case F_TIMESTAMPTZ_TIMESTAMP:
		case F_DATE_TIMESTAMP:
		case F_DATE_TIMESTAMPTZ:
		case F_TIMESTAMP_TIMESTAMP_INT4:
		case F_TIMESTAMPTZ_TIMESTAMPTZ_INT4:
			return linitial(function->args);
		case F_TIMEZONE_TEXT_TIMESTAMP:
		case F_TIMEZONE_TEXT_TIMESTAMPTZ:
			return is_ordinary_zone_name(linitial(function->args)) ? lsecond(function->args) : NULL;
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
			if (!is_ordinary_zone_name(lthird(function->args)))
				return NULL;
			/* FALLTHROUGH */
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
			return is_truncation_unit(linitial(function->args)) ? lsecond(function->args) : NULL;
		default:
			return NULL;
	}
}

static bool
bound_of_conversion(FuncExpr *function, Timestamp *bound)
{
	Node	   *argument = converted_argument(function);

	if (argument == NULL || !wh_stable_bound(argument, bound))
		return false;
	switch (function->funcid)
	{
		case F_TIMESTAMP_DATE:
			return true;
		case F_TIMESTAMP_TIMESTAMPTZ:
		case F_TIMESTAMPTZ_DATE:
		case F_TIMESTAMPTZ_TIMESTAMP:
		case F_TIMEZONE_TEXT_TIMESTAMP:
		case F_TIMEZONE_TEXT_TIMESTAMPTZ:
			*bound -= WH_ORDINARY_OFFSET;
			return true;
		case F_DATE_TIMESTAMP:
			*bound = floor_to_day(*bound);
			return true;
		case F_DATE_TIMESTAMPTZ:
			*bound = floor_to_day(*bound - WH_ORDINARY_OFFSET);
			return true;
		case F_TIMESTAMP_TIMESTAMP_INT4:
		case F_TIMESTAMPTZ_TIMESTAMPTZ_INT4:
			*bound -= USECS_PER_SEC;	/* rounded */
			return true;
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
			*bound = truncate_to(linitial(function->args), *bound);
			return true;
		default:
			/* A timestamptz is truncated on the wall, and converted back. */
			*bound = truncate_to(linitial(function->args), *bound - WH_ORDINARY_OFFSET) -
				WH_ORDINARY_OFFSET;
			return true;
	}
}

static bool
bound_of_function(FuncExpr *function, Timestamp *bound)
{
	switch (function->funcid)
	{
		case F_NOW:
		case F_TRANSACTION_TIMESTAMP:
			*bound = bound_of_now();
			return true;
		case F_STATEMENT_TIMESTAMP:
			/* A procedure's statement may be days older than its transaction. */
			*bound = (Timestamp) GetCurrentStatementStartTimestamp() - CLOCK_MARGIN;
			return true;
		default:
			return bound_of_conversion(function, bound);
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

/* Infinite intervals, which newer servers have, are beyond the limits. */
static bool
add_interval(Timestamp *bound, Const *offset, int sign, bool with_zone)
{
	Interval   *interval = DatumGetIntervalP(offset->constvalue);

	if (interval->month < -MAX_OFFSET_MONTHS || interval->month > MAX_OFFSET_MONTHS ||
		interval->day < -MAX_OFFSET_DAYS || interval->day > MAX_OFFSET_DAYS ||
		interval->time < -MAX_OFFSET_DAYS * USECS_PER_DAY ||
		interval->time > MAX_OFFSET_DAYS * USECS_PER_DAY)
		return false;

	/* Months, then days, each counted on the wall and converted back; then hours. */
	if (with_zone && interval->month != 0)
		*bound -= WH_ORDINARY_OFFSET;
	*bound = DatumGetTimestamp(DirectFunctionCall2(sign < 0 ? timestamp_mi_interval : timestamp_pl_interval,
												   TimestampGetDatum(*bound),
												   IntervalPGetDatum(interval)));

	/*
	 * The 28th 23:59 and the 31st 00:00 both lead to the 28th of February, the
	 * later one to the earlier time: months keep the order of days only.
	 */
	if (interval->month != 0)
		*bound -= USECS_PER_DAY;
	if (with_zone && interval->month != 0)
		*bound -= WH_ORDINARY_OFFSET;
	if (with_zone && interval->day != 0)
		*bound -= 2 * WH_ORDINARY_OFFSET;
	return true;
}

static bool
bound_of_operator(OpExpr *operator, Timestamp *bound)
{
	Const	   *offset;

	if (list_length(operator->args) != 2 || !IsA(lsecond(operator->args), Const))
		return false;
	offset = lsecond_node(Const, operator->args);
	if (offset->constisnull || !wh_stable_bound(linitial(operator->args), bound))
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

/* Years outside 1 to 9999 get none: a further step from there could leave the range. */
bool
wh_stable_bound(Node *expression, Timestamp *bound)
{
	const Timestamp year_1 = -730120 * USECS_PER_DAY;
	const Timestamp year_10000 = 2921940 * USECS_PER_DAY;
	bool		found = false;

	if (IsA(expression, SQLValueFunction))
		found = bound_of_keyword(castNode(SQLValueFunction, expression), bound);
	else if (IsA(expression, FuncExpr))
		found = bound_of_function(castNode(FuncExpr, expression), bound);
	else if (IsA(expression, OpExpr))
		found = bound_of_operator(castNode(OpExpr, expression), bound);
	return found && *bound > year_1 && *bound < year_10000;
}

Var *
wh_wrapped_column(Node *expression, int64 *later)
{
	*later = 0;
	while (IsA(expression, FuncExpr))
	{
		FuncExpr   *function = castNode(FuncExpr, expression);

		switch (function->funcid)
		{
			case F_TIMESTAMP_DATE:
			case F_DATE_TIMESTAMP:
			case F_DATE_TRUNC_TEXT_TIMESTAMP:
				break;
			case F_TIMESTAMP_TIMESTAMP_INT4:
			case F_TIMESTAMPTZ_TIMESTAMPTZ_INT4:
				*later += USECS_PER_SEC;
				break;
			case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
			case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
				*later += 2 * WH_ORDINARY_OFFSET;
				break;
			default:
				*later += WH_ORDINARY_OFFSET;
				break;
		}
		expression = converted_argument(function);
		if (expression == NULL)
			return NULL;
	}
	return IsA(expression, Var) ? castNode(Var, expression) : NULL;
}

int64
wh_comparison_margin(Oid left, Oid right)
{
	return (left == TIMESTAMPTZOID) != (right == TIMESTAMPTZOID) ? WH_ORDINARY_OFFSET : 0;
}
