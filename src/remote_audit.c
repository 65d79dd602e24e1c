/*
 * remote_audit.c: attempts to connect to a tenant, in the audit log.
 *
 * Called by remote_connect.c, once for each connection that was made or was
 * not; one that is kept from job to job is one row.  Says where to and as whom,
 * whether it is encrypted, and why it failed; no password.
 *
 * May not raise.  Takes no locks: the row is written at a later commit.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

#include "audit.h"
#include "json_text.h"
#include "log_context.h"
#include "remote_audit.h"

static void
begin_details(StringInfo json, const WhTenant *tenant)
{
	initStringInfo(json);
	appendStringInfoChar(json, '{');
	wh_json_text(json, "host", tenant->host);
	wh_json_int(json, "port", tenant->port);
	wh_json_text(json, "dbname", tenant->dbname);
	wh_json_text(json, "username", tenant->username);
	wh_json_text(json, "sslmode", tenant->sslmode);
	if (wh_log_context_job_id() != 0)
		wh_json_int(json, "job_id", wh_log_context_job_id());
}

static void
note(const WhTenant *tenant, const char *outcome, StringInfo details)
{
	WhAudit		audit = {
		.event = "connect", .tenant_name = tenant->name, .outcome = outcome, .details = details->data,
		.object = MyBgworkerEntry != NULL ? MyBgworkerEntry->bgw_type : "client backend"
	};

	appendStringInfoChar(details, '}');
	wh_audit_connection(&audit);
	pfree(details->data);
}

void
wh_remote_audit_connected(const WhTenant *tenant, WhRemote *remote)
{
	StringInfoData details;

	begin_details(&details, tenant);
	wh_json_key(&details, "tls");
	appendStringInfoString(&details, wh_remote_used_tls(remote) ? "true" : "false");
	note(tenant, "connected", &details);
}

void
wh_remote_audit_failure(const WhTenant *tenant)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "wh_worker audit failure",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	StringInfoData details;
	ErrorData  *error = CopyErrorData();

	begin_details(&details, tenant);
	wh_json_text(&details, "sqlstate", unpack_sql_state(error->sqlerrcode));
	wh_json_text(&details, "message", error->message);
	note(tenant, "failed", &details);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
