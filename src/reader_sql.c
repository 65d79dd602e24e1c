/*
 * reader_sql.c: the functions by which roles become readers of one tenant.
 *
 * Called from SQL only.  The rows of _wh.tenant_readers are what counts; grants.c
 * makes grants of them, here for what is there already and with each publication
 * for what comes later.
 *
 * A role that can read all tenants by another way is refused: who grants it one
 * tenant believes it sees no other.
 *
 * Locks: template by template the advisory locks of the tenant's views, by schema,
 * and that of the views over all tenants, so that no publication runs beside it
 * and misses the row.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/rel.h"

#include "audit.h"
#include "caller.h"
#include "grants.h"
#include "guc.h"
#include "politely.h"
#include "publish.h"
#include "reader.h"
#include "sqlutil.h"
#include "template_code.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_check_tenant_reader);
PG_FUNCTION_INFO_V1(wh_sql_grant_tenant_reader);
PG_FUNCTION_INFO_V1(wh_sql_revoke_tenant_reader);
PG_FUNCTION_INFO_V1(wh_sql_apply_grants);

/* A subscription: the names of its tenant view. */
typedef struct Target
{
	char	   *template_name;
	char	   *schema;
	Oid			isolated_view;
	bool		is_last_of_template;
} Target;

/* Of one tenant, or with NULL of all, in the order of their locks. */
static List *
read_targets(const char *tenant_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name)};
	List	   *targets = NIL;
	uint64		n = wh_query_latest(
		"SELECT s.template_name, s.target_schema, c.oid,"
		"       pg_catalog.lead(s.template_name) OVER w IS DISTINCT FROM s.template_name"
		"  FROM _wh.tenant_templates s"
		"  JOIN _wh.mv_templates t USING (template_name)"
		"  LEFT JOIN pg_catalog.pg_class c ON c.oid = t.isolated_view_oid"
		" WHERE $1 IS NULL OR s.tenant_name = $1"
		" WINDOW w AS (ORDER BY s.template_name COLLATE \"C\", s.target_schema COLLATE \"C\")"
		" ORDER BY s.template_name COLLATE \"C\", s.target_schema COLLATE \"C\"",
		lengthof(args), args);

	for (uint64 i = 0; i < n; i++)
	{
		Target	   *target = palloc(sizeof(Target));

		target->template_name = wh_get_text(CurrentMemoryContext, i, 1);
		target->schema = wh_get_text(CurrentMemoryContext, i, 2);
		target->isolated_view = wh_get_oid(i, 3);
		target->is_last_of_template = wh_get_bool(i, 4);
		targets = lappend(targets, target);
	}
	return targets;
}

static void
lock_targets(const char *tenant_name)
{
	ListCell   *cell;

	foreach(cell, read_targets(tenant_name))
	{
		Target	   *target = lfirst(cell);

		wh_publish_lock(target->template_name, target->schema);
		if (target->is_last_of_template)
			wh_publish_lock(target->template_name, NULL);
	}
}

/* ---- granting ---- */

static void
refuse_role(const char *role_name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("role \"%s\" cannot be a reader of one tenant", role_name),
			 errdetail("%s", detail),
			 errhint("Make a role of its own for the readers of each tenant.")));
}

/* NOINHERIT does not help: who is a member may SET ROLE. */
static void
check_reads_no_other(const char *role_name, Oid role)
{
	Oid			reader = get_role_oid(wh_reader_role, true);

	if (strncmp(role_name, "pg_", 3) == 0)
		refuse_role(role_name, "Role names that start with \"pg_\" are reserved.");
	if (superuser_arg(role))
		refuse_role(role_name, "It is a superuser.");
	if (is_member_of_role(role, get_role_oid(wh_admin_role, false)))
		refuse_role(role_name, psprintf("It has the rights of role \"%s\", which owns the data of all tenants.",
										wh_admin_role));
	if (OidIsValid(reader) && is_member_of_role(role, reader))
		refuse_role(role_name, psprintf("It has the rights of role \"%s\", which reads all tenants.", wh_reader_role));
	if (is_member_of_role(role, ROLE_PG_READ_ALL_DATA))
		refuse_role(role_name, "It has the rights of role \"pg_read_all_data\", which reads all tenants.");
}

typedef struct Following
{
	const char *tenant_name;
	bool		reader_role_too;
	int64		granted;
} Following;

/* Run by wh_politely(): it may be rolled back and started over. */
static void
follow(void *arg)
{
	Following  *following = arg;
	ListCell   *cell;

	lock_targets(following->tenant_name);
	following->granted = 0;
	foreach(cell, read_targets(following->tenant_name))
	{
		Target	   *target = lfirst(cell);

		following->granted += wh_grants_follow(target->template_name, target->schema,
											   following->reader_role_too);
		if (OidIsValid(target->isolated_view))
			wh_grants_isolated_view(target->template_name, target->isolated_view);
	}
}

Datum
wh_sql_grant_tenant_reader(PG_FUNCTION_ARGS)
{
	Following	following = {0};
	char	   *role_name;
	Oid			role;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	following.tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	role_name = wh_caller_role_arg(fcinfo, 1, &role);
	wh_tenant_require(following.tenant_name);
	check_reads_no_other(role_name, role);
	wh_spi_begin();
	lock_targets(following.tenant_name);
	{
		WhArg		args[] = {WH_TEXT(following.tenant_name), WH_TEXT(role_name)};

		wh_query("INSERT INTO _wh.tenant_readers (tenant_name, role_name) VALUES ($1, $2)"
				 " ON CONFLICT (tenant_name, role_name) DO UPDATE SET role_name = EXCLUDED.role_name",
				 lengthof(args), args);
	}
	wh_politely(InvalidOid, follow, &following);
	wh_spi_end();
	PG_RETURN_VOID();
}

/* ---- taking back ---- */

typedef struct Revocation
{
	const char *tenant_name;
	List	   *roles;
} Revocation;

static void
take_back(void *arg)
{
	const Revocation *revocation = arg;
	ListCell   *cell;

	foreach(cell, revocation->roles)
		wh_grants_revoke(revocation->tenant_name, lfirst_oid(cell));
}

/* The rows go first: what they gave is what nothing gives any more. */
static uint64
end_readers(const char *tenant_name, const char *role_name, Oid role)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(role_name), WH_OID(role)};
	Revocation	revocation = {.tenant_name = tenant_name};
	uint64		n = wh_query("DELETE FROM _wh.tenant_readers WHERE tenant_name = $1"
							 " AND ($2 IS NULL OR role_name = $2 OR role_oid = $3) RETURNING role_oid",
							 lengthof(args), args);

	for (uint64 i = 0; i < n; i++)
		if (OidIsValid(wh_get_oid(i, 1)))
			revocation.roles = list_append_unique_oid(revocation.roles, wh_get_oid(i, 1));
	if (revocation.roles != NIL)
		wh_politely(InvalidOid, take_back, &revocation);
	return n;
}

void
wh_reader_forget_tenant(const char *tenant_name)
{
	end_readers(tenant_name, NULL, InvalidOid);
}

/* The role may be gone, its row is not. */
Datum
wh_sql_revoke_tenant_reader(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;
	char	   *role_name;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	role_name = wh_tenant_text_arg(fcinfo, 1, "role");
	wh_spi_begin();
	lock_targets(tenant_name);
	if (end_readers(tenant_name, role_name, get_role_oid(role_name, true)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" is no reader of tenant \"%s\"", role_name, tenant_name),
				 errhint("Readers of tenants are the rows of _wh.tenant_readers.")));
	wh_spi_end();
	PG_RETURN_VOID();
}

/* ---- all of them ---- */

static void
grant_public_views(void)
{
	uint64		n = wh_query("SELECT c.relname FROM _wh.mv_templates t"
							 "  JOIN pg_catalog.pg_class c ON c.oid = t.view_oid AND c.relname = t.template_name"
							 "   AND c.relnamespace = 'public'::pg_catalog.regnamespace ORDER BY 1", 0, NULL);
	List	   *names = NIL;
	ListCell   *cell;

	for (uint64 i = 0; i < n; i++)
		names = lappend(names, wh_get_text(CurrentMemoryContext, i, 1));
	foreach(cell, names)
		wh_grants_relation("public", lfirst(cell));
}

Datum
wh_sql_apply_grants(PG_FUNCTION_ARGS)
{
	Following	following = {.reader_role_too = true};
	WhRestricted restricted;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	/* sql/create.sql calls it as a superuser */
	wh_restricted_begin_as_admin(&restricted);
	wh_spi_begin();
	wh_politely(InvalidOid, follow, &following);
	grant_public_views();
	wh_spi_end();
	wh_restricted_end(&restricted);
	PG_RETURN_INT64(following.granted);
}

/* ---- the table ---- */

/* Who has the name now is meant: a restored row finds the role of that server. */
Datum
wh_sql_check_tenant_reader(PG_FUNCTION_ARGS)
{
	TriggerData *trigger;
	TupleDesc	desc;
	HeapTuple	tuple;
	char	   *role_name;
	int			attnum;
	Datum		role;
	bool		isnull;

	wh_require_preloaded();
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger", "check_tenant_reader")));
	trigger = (TriggerData *) fcinfo->context;
	desc = RelationGetDescr(trigger->tg_relation);
	tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	role_name = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "role_name"));
	if (role_name == NULL)
		return PointerGetDatum(tuple);	/* the column refuses it */
	attnum = SPI_fnumber(desc, "role_oid");
	role = ObjectIdGetDatum(get_role_oid(role_name, true));
	isnull = !OidIsValid(DatumGetObjectId(role));
	return PointerGetDatum(heap_modify_tuple_by_cols(tuple, desc, 1, &attnum, &role, &isnull));
}
