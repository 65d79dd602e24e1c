/*
 * drop_guard.c: DROP EXTENSION wh_worker is refused while there are days.
 *
 * PostgreSQL itself refuses it while materialized views are defined by fetch_day(),
 * with a list of them all.  Leaves of a partition tree and tables of months and
 * years depend on nothing of ours: their data would stay, and the ledger that
 * says what they are would be gone.  So the ledger is asked here, before
 * PostgreSQL asks its catalogs, and the error says what to do.
 *
 * With CASCADE a person has said what he wants.  A hook that passes on every other
 * statement.  Takes no lock but to read the ledger.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/value.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"

#include "compat.h"
#include "drop_guard.h"
#include "sqlutil.h"
#include "template_code.h"
#include "wh_worker.h"

static ProcessUtility_hook_type previous_process_utility = NULL;

static bool
drops_us(const DropStmt *statement)
{
	ListCell   *cell;

	if (statement->removeType != OBJECT_EXTENSION || statement->behavior == DROP_CASCADE)
		return false;
	foreach(cell, statement->objects)
		if (strcmp(strVal(lfirst(cell)), WH_LIBRARY_NAME) == 0)
			return true;
	return false;
}

/* Whoever may not drop it is told so by PostgreSQL. */
static bool
may_drop(void)
{
	Oid			extension = get_extension_oid(WH_LIBRARY_NAME, true);

	return OidIsValid(extension) && WH_OWNS_EXTENSION(extension, GetUserId()) &&
		OidIsValid(get_relname_relid("day_loads", get_namespace_oid("_wh", true)));
}

static void
check_days(void)
{
	WhRestricted restricted;
	int64		days;
	int64		relations;

	wh_restricted_begin_as_admin(&restricted);
	wh_spi_begin();
	wh_query("SELECT pg_catalog.count(*), pg_catalog.count(DISTINCT relation_oid)"
			 " FROM _wh.day_loads WHERE relation_oid IS NOT NULL", 0, NULL);
	days = wh_get_int8(0, 1);
	relations = wh_get_int8(0, 2);
	wh_spi_end();
	wh_restricted_end(&restricted);
	if (days > 0)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("cannot drop extension wh_worker because days of its warehouse depend on it"),
				 errdetail("The ledger has " INT64_FORMAT " days in " INT64_FORMAT " relations.", days, relations),
				 errhint("Call _wh.pause() and _wh.release_data() first, which makes plain tables of them, and keeps the views over them."
						 " DROP EXTENSION ... CASCADE drops all days that are materialized views, and the views that read them.")));
}

static void
process_utility(PlannedStmt *statement, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, DropStmt) && drops_us((DropStmt *) statement->utilityStmt) && may_drop())
		check_days();
	if (previous_process_utility)
		previous_process_utility(statement, query, read_only_tree, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, params, environment, dest, completion);
}

void
wh_drop_guard_register(void)
{
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
