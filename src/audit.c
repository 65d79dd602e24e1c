/*
 * audit.c: rows of _wh.audit_log.
 *
 * Called by the functions that people call (calls), by audit_change.c (changes
 * of what people write) and by remote_connect.c (connections out).  Whoever
 * does it, the row is written as admin_role, who alone may, and says who was
 * logged in, as whom he acted, and from where.
 *
 * A row of a call or change commits with it.  A connection is made whatever
 * becomes of the transaction, so its row waits in the process's memory for the
 * next commit; of a process that ends before one, the server log has it.
 *
 * May not raise but for what the INSERT raises.  Locks: a writer's on the table.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "audit.h"
#include "guc.h"
#include "json_text.h"
#include "sqlutil.h"
#include "standby.h"
#include "template_code.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_guard_audit_log);

/* A session that connects and rolls back for ever keeps the newest. */
#define MAX_PENDING 100
#define PRUNE_ROWS 5000
#define CONNECTION_ROWS 1000000

typedef struct Pending
{
	WhAudit		audit;
	TimestampTz at;
	MemoryContext context;
} Pending;

static List *pending = NIL;
static int	nwritten = 0;		/* of these, by the transaction at hand */

/* ---- one row ---- */

static void
insert_row(const WhAudit *audit, TimestampTz at)
{
	WhArg		args[] = {
		WH_TSTZ(at), WH_TEXT(audit->event), WH_TEXT(audit->object), WH_TEXT(audit->tenant_name),
		WH_TEXT(audit->template_name), WH_TEXT(audit->target_schema), WH_TEXT(audit->outcome),
		WH_TEXT(GetUserNameFromId(GetSessionUserId(), true)),
		WH_TEXT(GetUserNameFromId(GetOuterUserId(), true)),
		WH_INT4(MyProcPid), WH_TEXT(audit->details)
	};

	wh_spi_begin();
	wh_query("INSERT INTO _wh.audit_log (at, event, object, tenant_name, template_name, target_schema,"
			 "  outcome, session_role, acting_role, pid, client_addr, details)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7, coalesce($8, ''), coalesce($9, ''), $10,"
			 "  pg_catalog.inet_client_addr(), coalesce($11, '{}')::pg_catalog.jsonb)",
			 lengthof(args), args);
	wh_spi_end();
}

/* Who writes templates need not be able to write here; who writes connections may be a superuser. */
static void
insert_as_admin(const WhAudit *audit, TimestampTz at)
{
	WhRestricted restricted;

	wh_restricted_begin_as_admin(&restricted);
	insert_row(audit, at);
	wh_restricted_end(&restricted);
}

void
wh_audit_write(const WhAudit *audit)
{
	insert_as_admin(audit, GetCurrentTimestamp());
}

/* ---- calls ---- */

static void
note_target(WhAudit *audit, const char *argument, const char *value)
{
	if (strcmp(argument, "tenant_name") == 0 || strcmp(argument, "tenant_connection_name") == 0)
		audit->tenant_name = value;
	else if (strcmp(argument, "template_name") == 0)
		audit->template_name = value;
	else if (strcmp(argument, "target_schema") == 0)
		audit->target_schema = value;
}

static void
add_argument(StringInfo json, WhAudit *audit, FunctionCallInfo fcinfo, int n, Oid type, const char *name)
{
	Oid			output;
	bool		is_varlena;
	char	   *value;

	if (PG_ARGISNULL(n))
		return;
	getTypeOutputInfo(type, &output, &is_varlena);
	value = OidOutputFunctionCall(output, PG_GETARG_DATUM(n));
	note_target(audit, name, value);
	wh_json_key(json, name);
	if (wh_json_is_secret(name, type))
		escape_json(json, "given");
	else
		wh_json_value(json, type, value);
}

static char *
describe_arguments(WhAudit *audit, FunctionCallInfo fcinfo, HeapTuple proc)
{
	Oid		   *types;
	char	  **names;
	char	   *modes;
	int			nargs = get_func_arg_info(proc, &types, &names, &modes);
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	for (int i = 0; i < Min(nargs, PG_NARGS()); i++)
		add_argument(&json, audit, fcinfo, i, types[i],
					 names != NULL && names[i][0] != '\0' ? names[i] : psprintf("$%d", i + 1));
	appendStringInfoChar(&json, '}');
	return json.data;
}

void
wh_audit_call(FunctionCallInfo fcinfo)
{
	WhAudit		audit = {.event = "call"};
	HeapTuple	proc;

	if (fcinfo->flinfo == NULL)
		return;					/* by another function of ours */
	wh_require_writable(fcinfo);
	proc = SearchSysCache1(PROCOID, ObjectIdGetDatum(fcinfo->flinfo->fn_oid));
	if (!HeapTupleIsValid(proc))
		elog(ERROR, "cache lookup failed for function %u", fcinfo->flinfo->fn_oid);	/* cannot happen */
	audit.object = pstrdup(NameStr(((Form_pg_proc) GETSTRUCT(proc))->proname));
	audit.details = describe_arguments(&audit, fcinfo, proc);
	ReleaseSysCache(proc);
	wh_audit_write(&audit);
}

/* ---- connections out ---- */

static const char *
copy_or_null(const char *text)
{
	return text != NULL ? pstrdup(text) : NULL;
}

static void
forget(Pending *row)
{
	pending = list_delete_ptr(pending, row);
	MemoryContextDelete(row->context);
}

void
wh_audit_connection(const WhAudit *audit)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "wh_worker audit", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Pending    *row = palloc(sizeof(Pending));

	row->context = context;
	row->at = GetCurrentTimestamp();
	row->audit.event = pstrdup(audit->event);
	row->audit.object = copy_or_null(audit->object);
	row->audit.tenant_name = copy_or_null(audit->tenant_name);
	row->audit.template_name = copy_or_null(audit->template_name);
	row->audit.target_schema = copy_or_null(audit->target_schema);
	row->audit.outcome = copy_or_null(audit->outcome);
	row->audit.details = copy_or_null(audit->details);
	MemoryContextSwitchTo(TopMemoryContext);
	pending = lappend(pending, row);
	MemoryContextSwitchTo(old);
	if (list_length(pending) > MAX_PENDING && nwritten == 0)
		forget(linitial(pending));
}

/* The extension may be gone, or dropped by this very transaction. */
static bool
log_exists(void)
{
	Oid			schema = get_namespace_oid("_wh", true);

	return OidIsValid(schema) && OidIsValid(get_relname_relid("audit_log", schema)) &&
		SearchSysCacheExists1(AUTHNAME, CStringGetDatum(wh_admin_role));
}

static void
write_pending(void)
{
	bool		pushed = wh_push_missing_snapshot();

	while (nwritten < list_length(pending))
	{
		const Pending *row = list_nth(pending, nwritten);

		insert_as_admin(&row->audit, row->at);
		nwritten++;
	}
	if (pushed)
		PopActiveSnapshot();
}

void
wh_audit_flush(void)
{
	if (pending != NIL && !XactReadOnly && log_exists())
		write_pending();
}

/* What a transaction that is rolled back could not leave is written by the next. */
static void
attend_to_pending(XactEvent event, void *arg pg_attribute_unused())
{
	if (event == XACT_EVENT_PRE_COMMIT)
		wh_audit_flush();
	if (event == XACT_EVENT_COMMIT)
		while (nwritten-- > 0)
			forget(linitial(pending));
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		nwritten = 0;
}

void
wh_audit_register(void)
{
	RegisterXactCallback(attend_to_pending, NULL);
}

/* ---- what is kept ---- */

/*
 * Connections are many, and of use while what they loaded can be looked up;
 * changes are few, and of use for longer.
 */
bool
wh_audit_prune(void)
{
	WhArg		args[] = {
		WH_INT4(wh_audit_days), WH_INT4(wh_history_days), WH_INT4(PRUNE_ROWS), WH_INT4(CONNECTION_ROWS)
	};
	uint64		most;

	wh_spi_begin();
	most = wh_query("DELETE FROM _wh.audit_log WHERE (at, audit_id) IN (SELECT at, audit_id FROM _wh.audit_log"
					" WHERE at < now() - CASE event WHEN 'connect' THEN $2 ELSE $1 END * interval '1 day'"
					" ORDER BY at, audit_id LIMIT $3)", 3, args);
	if (wh_query("SELECT FROM _wh.audit_log HAVING max(audit_id) - min(audit_id) >= $1", 1, &args[3]) > 0)
		most = Max(most, wh_query("DELETE FROM _wh.audit_log WHERE (at, audit_id) IN (SELECT at, audit_id"
								  " FROM _wh.audit_log WHERE event = 'connect'"
								  " ORDER BY at DESC, audit_id DESC OFFSET $1 LIMIT $2)", 2,
								  (WhArg[]) {args[3], args[2]}));
	wh_spi_end();
	return most == PRUNE_ROWS;
}

/* ---- append-only ---- */

/*
 * Whatever somebody was granted on the table.  Not the trigger's function but
 * who runs the statement is looked at: our own rows are written as the owner,
 * and so are those of a restore.
 */
Datum
wh_sql_guard_audit_log(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	wh_require_preloaded();
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger", "guard_audit_log")));
	if (!has_privs_of_role(GetUserId(), trigger->tg_relation->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the audit log can only be written by the warehouse itself"),
				 errhint("Only its owner can delete from it; wh_worker.audit_days says how long it is kept.")));
	return PointerGetDatum(NULL);
}
