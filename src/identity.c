/*
 * identity.c: two warehouses must not load the same tenants.
 *
 * The row of _wh.warehouse says which database it was made in: the cluster's
 * system identifier and the database's OID.  It is not dumped.  A database that
 * was copied as files (pg_upgrade, a template, another cluster's files) has
 * the row of the one it was copied from; one into which a dump is restored is
 * told apart by the trigger of the tables that a dump fills.  Until a person
 * calls confirm_warehouse() no job starts in either, and no function asks a
 * tenant.  A standby that is promoted is the same warehouse and goes on.
 *
 * Called by the launcher, the claim of a job and the functions that reach a
 * tenant.  May not start or stop anything.  Locks the one row that it writes.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rls.h"

#include "guc.h"
#include "identity.h"
#include "sqlutil.h"
#include "standby.h"
#include "version.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_warehouse_identity);
PG_FUNCTION_INFO_V1(wh_sql_pause_reason);
PG_FUNCTION_INFO_V1(wh_sql_note_restore);

char *
wh_identity_here(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

/* The default of a column, so that it runs in CREATE EXTENSION before all else is there. */
Datum
wh_sql_warehouse_identity(PG_FUNCTION_ARGS)
{
	(void) fcinfo;
	PG_RETURN_TEXT_P(cstring_to_text(wh_identity_here()));
}

WhPause
wh_identity_pause(void)
{
	WhArg		args[] = {WH_TEXT(wh_identity_here())};

	if (wh_query("SELECT identity = $1, paused FROM _wh.warehouse", lengthof(args), args) != 1 ||
		!wh_get_bool(0, 1))
		return WH_UNCONFIRMED;
	return wh_get_bool(0, 2) ? WH_PAUSED : WH_RUNS;
}

const char *
wh_identity_reason(WhPause pause)
{
	return pause == WH_PAUSED ? "the warehouse is paused" :
		"the warehouse is a copy that waits to be confirmed";
}

const char *
wh_identity_hint(WhPause pause)
{
	return pause == WH_PAUSED ? "Call _wh.resume() first." :
		"If no other warehouse loads these tenants any more, call _wh.confirm_warehouse().";
}

Datum
wh_sql_pause_reason(PG_FUNCTION_ARGS)
{
	WhPause		pause;
	char	   *problem;

	(void) fcinfo;
	wh_require_library();
	problem = wh_version_problem(NULL);
	if (problem != NULL)
		PG_RETURN_TEXT_P(cstring_to_text(problem));
	if (wh_standby_reason() != NULL)
		PG_RETURN_TEXT_P(cstring_to_text(wh_standby_reason()));
	wh_spi_begin();
	pause = wh_identity_pause();
	wh_spi_end();
	if (pause == WH_RUNS)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(wh_identity_reason(pause)));
}

/*
 * What every dump sets at its head, whoever restores it and in whatever order:
 * no function's body is checked, and no row is kept back silently.
 */
static bool
is_restore(void)
{
	return !check_function_bodies && !row_security;
}

static void
mark_restored(void)
{
	Oid			invoker;
	int			context;

	GetUserIdAndSecContext(&invoker, &context);
	SetUserIdAndSecContext(get_role_oid(wh_admin_role, false), context | SECURITY_LOCAL_USERID_CHANGE);
	wh_spi_begin();
	wh_query("UPDATE _wh.warehouse SET identity = 'restored' WHERE identity <> 'restored'", 0, NULL);
	wh_spi_end();
	SetUserIdAndSecContext(invoker, context);
	wh_notify_config_on_commit();
}

/*
 * Before the rows, so that they are never there without the mark: each table of
 * a dump is committed by itself, and the launcher looks at it at once.
 */
Datum
wh_sql_note_restore(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"note_restore\" was not called as a trigger")));
	if (is_restore())
		mark_restored();
	return PointerGetDatum(NULL);
}
