/*
 * pause.c: the switches: the whole warehouse, a tenant, a backfill.
 *
 * Called from SQL.  Each is one row that the launcher and the claim of a job
 * look at; what runs already is left to end.  Pausing what is paused, and
 * resuming what runs, changes nothing.  Locks the one row that it writes.
 */
#include "postgres.h"

#include "fmgr.h"

#include "audit.h"
#include "identity.h"
#include "schedule.h"
#include "sqlutil.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_pause);
PG_FUNCTION_INFO_V1(wh_sql_resume);
PG_FUNCTION_INFO_V1(wh_sql_pause_tenant);
PG_FUNCTION_INFO_V1(wh_sql_resume_tenant);
PG_FUNCTION_INFO_V1(wh_sql_pause_backfill);
PG_FUNCTION_INFO_V1(wh_sql_resume_backfill);

Datum
wh_sql_pause(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	wh_spi_begin();
	wh_query("UPDATE _wh.warehouse SET paused = true, paused_at = now(), paused_by = session_user"
			 " WHERE NOT paused", 0, NULL);
	wh_notify_config_on_commit();
	wh_spi_end();
	PG_RETURN_VOID();
}

Datum
wh_sql_resume(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	wh_spi_begin();
	wh_query("UPDATE _wh.warehouse SET paused = false, paused_at = NULL, paused_by = NULL,"
			 " resumed_at = clock_timestamp()"
			 " WHERE paused", 0, NULL);
	if (wh_identity_pause() == WH_UNCONFIRMED)
		ereport(WARNING,
				(errmsg("%s", wh_identity_reason(WH_UNCONFIRMED)),
				 errhint("%s", wh_identity_hint(WH_UNCONFIRMED))));
	wh_notify_config_on_commit();
	wh_spi_end();
	PG_RETURN_VOID();
}

static void
set_tenant_active(const char *tenant_name, bool active)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_BOOL(active)};

	wh_tenant_require(tenant_name);
	wh_spi_begin();
	/* resumed though it was not paused: one that is set aside is asked at once */
	wh_query("UPDATE _wh.tenant_connections SET active = $2"
			 " WHERE tenant_name = $1 AND (active <> $2 OR $2)", lengthof(args), args);
	if (active)
		wh_schedule_tenant_resumed(tenant_name);
	wh_notify_config_on_commit();
	wh_spi_end();
}

Datum
wh_sql_pause_tenant(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	set_tenant_active(wh_tenant_text_arg(fcinfo, 0, "tenant_name"), false);
	PG_RETURN_VOID();
}

Datum
wh_sql_resume_tenant(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	set_tenant_active(wh_tenant_text_arg(fcinfo, 0, "tenant_name"), true);
	PG_RETURN_VOID();
}

static void
set_backfill_paused(FunctionCallInfo fcinfo, bool paused)
{
	wh_require_preloaded();
	wh_audit_call(fcinfo);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("backfill_id must not be null")));
	wh_spi_begin();
	{
		WhArg		args[] = {WH_INT8(PG_GETARG_INT64(0)), WH_BOOL(paused)};

		if (wh_query("UPDATE _wh.backfills SET paused = $2 WHERE backfill_id = $1",
					 lengthof(args), args) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("backfill " INT64_FORMAT " does not exist", PG_GETARG_INT64(0))));
	}
	wh_notify_config_on_commit();
	wh_spi_end();
}

Datum
wh_sql_pause_backfill(PG_FUNCTION_ARGS)
{
	set_backfill_paused(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
wh_sql_resume_backfill(PG_FUNCTION_ARGS)
{
	set_backfill_paused(fcinfo, false);
	PG_RETURN_VOID();
}
