/*
 * operator.c: roles that may enqueue, cancel, pause and watch, and nothing else.
 *
 * Called from SQL only.  What an operator gets is in the two lists below, and is
 * given as ordinary grants, which pg_dump keeps; docs/security.md says the same.
 * On them is nothing that shows a password, a template or somebody's command,
 * or asks a tenant while the caller listens.
 *
 * May not grant to admin_role itself, which has all of it.  Takes no locks but
 * those of the catalog rows that GRANT writes.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/acl.h"
#include "utils/array.h"

#include "audit.h"
#include "caller.h"
#include "guc.h"
#include "sqlutil.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_grant_operator);
PG_FUNCTION_INFO_V1(wh_sql_revoke_operator);

/* All forms of each.  The last lines are what the views are made of. */
static const char *const operator_functions[] = {
	"enqueue_backfill", "plan_backfill", "wait_for_backfill", "cancel_backfill", "cancel_job", "retry_failed",
	"pause", "resume", "pause_tenant", "resume_tenant", "pause_backfill", "resume_backfill",
	"create_mv_name", "current_date_utc", "status_page", "pause_reason",
	"worker_slots", "is_quiet", "expected_loads", "lock_budget", "lock_advice", "metric_counters", "metric_queue"
};

static const char *const operator_views[] = {
	"worker_status", "backfill_progress", "job_status", "data_freshness", "storage_usage", "tenant_health",
	"union_health", "metrics"
};

static Datum
text_array(const char *const *names, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		elements[i] = CStringGetTextDatum(names[i]);
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Their names, one after the other, as GRANT takes them. */
static char *
list_functions(void)
{
	WhArg		args[] = {wh_arg(TEXTARRAYOID, text_array(operator_functions, lengthof(operator_functions)))};

	wh_query("SELECT pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ')"
			 "  FROM pg_catalog.pg_proc p"
			 " WHERE p.pronamespace = '_wh'::pg_catalog.regnamespace AND p.proname = ANY ($1)",
			 lengthof(args), args);
	return wh_get_text(CurrentMemoryContext, 0, 1);
}

static char *
list_views(void)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < lengthof(operator_views); i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", quote_qualified_identifier("_wh", operator_views[i]));
	return list.data;
}

/* The one that runs all of it needs no grant, and would lose its own. */
static char *
operator_arg(FunctionCallInfo fcinfo)
{
	Oid			role;
	char	   *name = wh_caller_role_arg(fcinfo, 0, &role);

	if (role == get_role_oid(wh_admin_role, false))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("role \"%s\" administers the warehouse and cannot be made an operator", name)));
	return wh_quote(name);
}

Datum
wh_sql_grant_operator(PG_FUNCTION_ARGS)
{
	char	   *role;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	role = operator_arg(fcinfo);
	wh_spi_begin();
	wh_utility("GRANT USAGE ON SCHEMA _wh TO %s", role);
	wh_utility("GRANT SELECT ON %s TO %s", list_views(), role);
	wh_utility("GRANT EXECUTE ON FUNCTION %s TO %s", list_functions(), role);
	wh_spi_end();
	PG_RETURN_VOID();
}

Datum
wh_sql_revoke_operator(PG_FUNCTION_ARGS)
{
	char	   *role;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	role = operator_arg(fcinfo);
	wh_spi_begin();
	wh_utility("REVOKE EXECUTE ON FUNCTION %s FROM %s", list_functions(), role);
	wh_utility("REVOKE SELECT ON %s FROM %s", list_views(), role);
	wh_utility("REVOKE USAGE ON SCHEMA _wh FROM %s", role);
	wh_spi_end();
	PG_RETURN_VOID();
}
