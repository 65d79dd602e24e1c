/*
 * start_check.c: whether a worker that is asked for could connect.
 *
 * The launcher is connected, but what let it in may be gone since: the role may no longer
 * log in, or connect to the database.  A worker would die of that, FATAL, again
 * and again.  So the launcher looks first, says what is wrong and looks again.
 * Connection limits are not for background processes.
 *
 * Called by the launcher before it starts a worker.  Reads catalogs only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "compat.h"
#include "log_event.h"
#include "sqlutil.h"
#include "start_check.h"
#include "status.h"

static bool complained = false;

static const char *
role_problem(void)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	Form_pg_authid role;
	const char *problem = NULL;

	if (!HeapTupleIsValid(tuple))
		return psprintf("role %u does not exist", GetUserId());
	role = (Form_pg_authid) GETSTRUCT(tuple);
	if (!role->rolcanlogin)
		problem = psprintf("role \"%s\" is not permitted to log in", NameStr(role->rolname));
	ReleaseSysCache(tuple);
	return problem;
}

static const char *
database_problem(void)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	Form_pg_database database;
	const char *problem = NULL;

	if (!HeapTupleIsValid(tuple))
		return NULL;
	database = (Form_pg_database) GETSTRUCT(tuple);
	if (!database->datallowconn)
		problem = psprintf("database \"%s\" does not accept connections", NameStr(database->datname));
	else if (WH_DATABASE_ACLCHECK(MyDatabaseId, GetUserId(), ACL_CONNECT) != ACLCHECK_OK)
		problem = psprintf("role \"%s\" may not connect to database \"%s\"",
						   GetUserNameFromId(GetUserId(), false), NameStr(database->datname));
	ReleaseSysCache(tuple);
	return problem;
}

const char *
wh_start_problem(MemoryContext context)
{
	MemoryContext old;
	const char *problem;

	wh_begin_transaction();
	old = MemoryContextSwitchTo(context);
	problem = role_problem();
	if (problem == NULL)
		problem = database_problem();
	MemoryContextSwitchTo(old);
	wh_commit_transaction(context);
	return problem;
}

void
wh_start_failed(const char *database, const char *problem)
{
	wh_status_error(problem != NULL ? problem : "no background worker slot is free; increase max_worker_processes");
	if (!complained && problem == NULL)
		wh_log_no_process(database);
	else if (!complained)
		wh_log_launcher_waits(database, problem, NULL);
	complained = true;
}

void
wh_start_succeeded(void)
{
	if (complained)
		wh_status_error("");
	complained = false;
}
