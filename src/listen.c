/*
 * listen.c: who may LISTEN to what event.c tells.
 *
 * PostgreSQL lets every role listen to every channel.  Ours says which tenants and
 * templates there are and what becomes of their jobs, as worker_status does; so
 * LISTEN wh_worker is for those who may look into schema _wh, admins and operators.
 * The check is when LISTEN is said, as for any other right that a session uses
 * later.  In a database without that schema nobody is kept from anything.
 *
 * A hook that passes on every other statement.  Takes no locks.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/builtins.h"

#include "event.h"
#include "listen.h"

static ProcessUtility_hook_type previous_process_utility = NULL;

static void
check_listen(const ListenStmt *statement)
{
	Oid			schema;

	if (strcmp(statement->conditionname, WH_EVENT_CHANNEL) != 0)
		return;
	schema = get_namespace_oid("_wh", true);
	if (OidIsValid(schema) &&
		!DatumGetBool(DirectFunctionCall2(has_schema_privilege_id, ObjectIdGetDatum(schema),
										  CStringGetTextDatum("USAGE"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to listen to channel \"%s\"", WH_EVENT_CHANNEL),
				 errdetail("What it says of jobs and tenants is for roles with USAGE on schema _wh.")));
}

static void
process_utility(PlannedStmt *statement, const char *query, bool read_only_tree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *environment, DestReceiver *dest, QueryCompletion *completion)
{
	if (IsA(statement->utilityStmt, ListenStmt))
		check_listen((ListenStmt *) statement->utilityStmt);
	if (previous_process_utility)
		previous_process_utility(statement, query, read_only_tree, context, params, environment, dest, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, params, environment, dest, completion);
}

void
wh_listen_register(void)
{
	previous_process_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
