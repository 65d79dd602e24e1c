/*
 * subscribe.c: tenants and subscriptions come and go; days are dropped.
 *
 * Called from SQL, in the user's transaction; wh_subscribe_if_missing() also
 * by the functions that load.  Nothing here talks to a tenant.  Relations are
 * dropped only if the ledger knows their OID, never with CASCADE, and only
 * after the views have been made without them.
 *
 * Locks when data is dropped: for a single day that of its name, and what
 * late.c locks when it is in the table of its month or year; the day relations as a load takes them
 * (ShareUpdateExclusiveLock), their ledger rows, then what publish.c locks,
 * then the relations for good.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "caller.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "audit.h"
#include "clock.h"
#include "late.h"
#include "load.h"
#include "password.h"
#include "politely.h"
#include "publish.h"
#include "reader.h"
#include "schedule.h"
#include "secret.h"
#include "sqlutil.h"
#include "status.h"
#include "subscribe.h"
#include "tenant.h"
#include "tree.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_add_tenant);
PG_FUNCTION_INFO_V1(wh_sql_subscribe);
PG_FUNCTION_INFO_V1(wh_sql_unsubscribe);
PG_FUNCTION_INFO_V1(wh_sql_remove_tenant);
PG_FUNCTION_INFO_V1(wh_sql_drop_day);

/* A relation of ours that is about to go. */
typedef struct Doomed
{
	Oid			relid;
	char	   *schema;
	char	   *relname;
} Doomed;

/* The tenant that feeds a schema and template, or NULL; *active if it does. */
static char *
read_owner(const char *template_name, const char *schema, MemoryContext cxt, bool *active)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	if (wh_query("SELECT tenant_name, active FROM _wh.tenant_templates"
				 " WHERE template_name = $1 AND target_schema = $2",
				 lengthof(args), args) == 0)
		return NULL;
	*active = wh_get_bool(0, 2);
	return wh_get_text(cxt, 0, 1);
}

static void
check_owner(const char *owner, const char *template_name, const char *tenant_name, const char *schema)
{
	if (strcmp(owner, tenant_name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("schema \"%s\" and template \"%s\" are already fed by tenant \"%s\"",
						schema, template_name, owner),
				 errhint("Give another target_schema for tenant \"%s\".", tenant_name)));
}

/*
 * Two at once may both find nothing; the second one's INSERT waits for the
 * first and then finds the row.
 */
static void
insert_subscription(const char *template_name, const char *tenant_name, const char *schema,
					DateADT start_date)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(start_date)};
	bool		active;

	if (wh_query("INSERT INTO _wh.tenant_templates (tenant_name, template_name, target_schema, start_date)"
				 " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", lengthof(args), args) == 1)
	{
		wh_notify_config_on_commit();
		return;
	}
	check_owner(read_owner(template_name, schema, CurrentMemoryContext, &active),
				template_name, tenant_name, schema);
}

static void
activate(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	wh_query("UPDATE _wh.tenant_templates SET active = true"
			 " WHERE template_name = $1 AND target_schema = $2", lengthof(args), args);
	wh_notify_config_on_commit();
}

/* An operator loads what is subscribed; what is, admins decide. */
static void
check_may_subscribe(const char *template_name, const char *tenant_name, const char *schema)
{
	if (!wh_caller_is_admin())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not subscribe tenant \"%s\" to template \"%s\" in schema \"%s\"",
						wh_caller_name(), tenant_name, template_name, schema),
				 errhint("Have it subscribed by a member of the admin role, with _wh.subscribe().")));
}

void
wh_subscribe_if_missing(const char *template_name, const char *tenant_name,
						const char *schema, DateADT start_date)
{
	char	   *owner;
	bool		active;

	wh_tenant_require_template(template_name);
	wh_tenant_require(tenant_name);
	wh_spi_begin();
	owner = read_owner(template_name, schema, CurrentMemoryContext, &active);
	if (owner != NULL)
		check_owner(owner, template_name, tenant_name, schema);
	if (owner == NULL || !active)
		check_may_subscribe(template_name, tenant_name, schema);
	wh_publish_schema(schema);
	if (owner == NULL)
		insert_subscription(template_name, tenant_name, schema, start_date);
	else if (!active)
		activate(template_name, schema);
	wh_spi_end();
}

char *
wh_subscribe_default_schema(const char *template_name, const char *tenant_name)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(tenant_name)};
	char	   *schema;

	wh_spi_begin();
	if (wh_query("SELECT target_schema FROM _wh.tenant_templates"
				 " WHERE template_name = $1 AND tenant_name = $2", lengthof(args), args) == 1)
		schema = wh_get_text(cxt, 0, 1);
	else
		schema = MemoryContextStrdup(cxt, tenant_name);
	wh_spi_end();
	return schema;
}

/* An optional schema argument, with its default. */
static char *
schema_arg(FunctionCallInfo fcinfo, int n, const char *template_name, const char *tenant_name)
{
	if (PG_ARGISNULL(n))
		return wh_subscribe_default_schema(template_name, tenant_name);
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* An optional start_date argument: from today on when it is NULL. */
static DateADT
start_date_arg(FunctionCallInfo fcinfo, int n)
{
	DateADT		date = PG_ARGISNULL(n) ? wh_clock_today() : PG_GETARG_DATEADT(n);

	(void) wh_date_text(date);	/* refuses infinity and the like */
	return date;
}

static void
set_start_date(const char *template_name, const char *schema, DateADT start_date)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(start_date)};

	wh_spi_begin();
	wh_query("UPDATE _wh.tenant_templates SET start_date = $3"
			 " WHERE template_name = $1 AND target_schema = $2 AND start_date <> $3",
			 lengthof(args), args);
	wh_spi_end();
	wh_publish_counters(template_name, schema);
}

Datum
wh_sql_subscribe(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;
	char	   *template_name;
	char	   *schema;
	DateADT		start_date;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	template_name = wh_tenant_text_arg(fcinfo, 1, "template_name");
	schema = schema_arg(fcinfo, 2, template_name, tenant_name);
	start_date = start_date_arg(fcinfo, 3);
	wh_subscribe_if_missing(template_name, tenant_name, schema, start_date);
	if (!PG_ARGISNULL(3))
		set_start_date(template_name, schema, start_date);
	(void) wh_schedule_subscription(template_name, tenant_name, schema);
	PG_RETURN_VOID();
}

static void
insert_tenant(FunctionCallInfo fcinfo, const char *tenant_name)
{
	WhTenant	tenant = {
		.name = pstrdup(tenant_name),
		.host = wh_tenant_text_arg(fcinfo, 1, "host"),
		.port = PG_ARGISNULL(2) ? 5432 : PG_GETARG_INT32(2),
		.dbname = wh_tenant_text_arg(fcinfo, 3, "dbname"),
		.username = wh_tenant_text_arg(fcinfo, 4, "username"),
		.password = PG_ARGISNULL(5) ? NULL : wh_tenant_text_arg(fcinfo, 5, "password")
	};
	/* not by the trigger: what looks at statements may look at their arguments */
	WhArg		args[] = {
		WH_TEXT(tenant.name), WH_TEXT(tenant.host), WH_INT4(tenant.port), WH_TEXT(tenant.dbname),
		WH_TEXT(tenant.username), WH_TEXT(wh_password_to_store(&tenant, tenant.password))
	};

	wh_secret_wipe(tenant.password);
	wh_spi_begin();
	if (wh_query("INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password)"
				 " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
				 lengthof(args), args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("tenant \"%s\" already exists", tenant_name),
				 errhint("Change its row in _wh.tenant_connections, or use _wh.subscribe() for further templates.")));
	wh_spi_end();
}

Datum
wh_sql_add_tenant(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;
	DateADT		start_date;
	Datum	   *templates = NULL;
	bool	   *nulls = NULL;
	int			ntemplates = 0;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	start_date = start_date_arg(fcinfo, 7);
	if (!PG_ARGISNULL(6))
		deconstruct_array(PG_GETARG_ARRAYTYPE_P(6), TEXTOID, -1, false, TYPALIGN_INT,
						  &templates, &nulls, &ntemplates);
	insert_tenant(fcinfo, tenant_name);
	wh_publish_schema(tenant_name);
	for (int i = 0; i < ntemplates; i++)
	{
		char	   *template_name;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("templates must not hold a null")));
		template_name = TextDatumGetCString(templates[i]);
		wh_subscribe_if_missing(template_name, tenant_name, tenant_name, start_date);
		(void) wh_schedule_subscription(template_name, tenant_name, tenant_name);
	}
	wh_notify_config_on_commit();
	PG_RETURN_VOID();
}

/* Queued jobs of a tenant, or of one of its subscriptions; running ones end by themselves. */
static void
cancel_queued_jobs(const char *tenant_name, const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(template_name), WH_TEXT(schema)};

	wh_query("UPDATE _wh.jobs SET state = 'cancelled', finished_at = clock_timestamp(),"
			 "   last_error = 'subscription ended'"
			 " WHERE kind IN ('refresh', 'combine_month', 'combine_year', 'convert') AND state = 'queued' AND tenant_name = $1"
			 "   AND ($2 IS NULL OR template_name = $2) AND ($3 IS NULL OR target_schema = $3)",
			 lengthof(args), args);
	wh_notify_config_on_commit();
}

/* Those that are at their last step may still succeed. */
static void
cancel_running_jobs(const char *tenant_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name)};
	uint64		n = wh_query("SELECT job_id FROM _wh.jobs"
							 " WHERE state = 'running' AND tenant_name = $1", lengthof(args), args);

	for (uint64 i = 0; i < n; i++)
		(void) wh_status_cancel_running(wh_get_int8(i, 1));
}

/* Waits for loads that are about to commit, and lets no other get that far. */
static void
lock_subscriptions(const char *tenant_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name)};

	wh_query("SELECT FROM _wh.tenant_templates WHERE tenant_name = $1 FOR UPDATE",
			 lengthof(args), args);
}

static void
report_no_subscription(const char *tenant_name, const char *template_name, const char *schema)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("tenant \"%s\" does not feed template \"%s\" into schema \"%s\"",
					tenant_name, template_name, schema),
			 errhint("Subscriptions are the rows of _wh.tenant_templates.")));
}

Datum
wh_sql_unsubscribe(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;
	char	   *template_name;
	char	   *schema;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	template_name = wh_tenant_text_arg(fcinfo, 1, "template_name");
	schema = schema_arg(fcinfo, 2, template_name, tenant_name);

	wh_spi_begin();
	{
		WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(template_name), WH_TEXT(schema)};

		if (wh_query("UPDATE _wh.tenant_templates SET active = false"
					 " WHERE tenant_name = $1 AND template_name = $2 AND target_schema = $3",
					 lengthof(args), args) == 0)
			report_no_subscription(tenant_name, template_name, schema);
	}
	wh_schedule_unsubscription(template_name, tenant_name, schema);
	cancel_queued_jobs(tenant_name, template_name, schema);
	wh_spi_end();
	PG_RETURN_VOID();
}

/*
 * The relations of ledger rows that are still what the ledger says, locked
 * against loads; date NULL means every day.
 */
static List *
lock_days(const char *template_name, const char *schema, WhArg date)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), date};
	List	   *days = NIL;
	uint64		n;
	ListCell   *cell;

	n = wh_query("SELECT c.oid, n.nspname, c.relname"
				 "  FROM _wh.day_loads d"
				 "  JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation"
				 "   AND c.relkind IN ('m', 'r')"
				 "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = d.target_schema"
				 " WHERE d.template_name = $1 AND d.target_schema = $2"
				 "   AND ($3 IS NULL OR d.target_date = $3)"
				 " GROUP BY c.oid, n.nspname, c.relname"
				 " ORDER BY c.relname", lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
	{
		Doomed	   *day = palloc(sizeof(Doomed));

		day->relid = wh_get_oid(i, 1);
		day->schema = wh_get_text(CurrentMemoryContext, i, 2);
		day->relname = wh_get_text(CurrentMemoryContext, i, 3);
		days = lappend(days, day);
	}
	foreach(cell, days)
		LockRelationOid(((Doomed *) lfirst(cell))->relid, ShareUpdateExclusiveLock);
	return days;
}

static void
drop_days(List *days)
{
	ListCell   *cell;

	foreach(cell, days)
	{
		Doomed	   *day = lfirst(cell);

		wh_tree_drop_relation(day->schema, day->relname, day->relid);
	}
}

static uint64
forget_days(const char *template_name, const char *schema, WhArg date)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), date};

	return wh_query("DELETE FROM _wh.day_loads WHERE template_name = $1 AND target_schema = $2"
					" AND ($3 IS NULL OR target_date = $3) RETURNING NOT counted",
					lengthof(args), args);
}

/* Deletes the subscription; its tenant view if it is ours, else NULL. */
static char *
forget_subscription(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};
	Oid			view_oid;

	wh_query("DELETE FROM _wh.tenant_templates WHERE template_name = $1 AND target_schema = $2"
			 " RETURNING view_oid", lengthof(args), args);
	view_oid = wh_get_oid(0, 1);
	if (!OidIsValid(view_oid) ||
		get_relname_relid(template_name, get_namespace_oid(schema, true)) != view_oid)
		return NULL;
	return quote_qualified_identifier(schema, template_name);
}

static void
drop_subscription_data(const char *template_name, const char *schema)
{
	List	   *days = lock_days(template_name, schema, wh_arg_null(DATEOID));
	Oid			part = wh_tree_part(template_name, schema);
	char	   *tenant_view;

	forget_days(template_name, schema, wh_arg_null(DATEOID));
	wh_publish_lock(template_name, schema);
	tenant_view = forget_subscription(template_name, schema);
	wh_publish_public_view(template_name);
	if (tenant_view != NULL)
		wh_utility("DROP VIEW %s", tenant_view);
	drop_days(days);
	if (OidIsValid(part))
		wh_tree_drop_part(part);
}

/* Nothing in it, nobody's target, and ours: then the schema goes as well. */
static void
drop_empty_schema(const char *schema)
{
	Oid			schema_oid = get_namespace_oid(schema, true);
	WhArg		args[] = {WH_OID(schema_oid), WH_TEXT(schema)};

	if (!OidIsValid(schema_oid))
		return;
	if (wh_query("SELECT FROM pg_catalog.pg_namespace n"
				 " WHERE n.oid = $1 AND n.nspowner = (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)"
				 "   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d"
				 "     WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = n.oid)"
				 "   AND NOT EXISTS (SELECT FROM _wh.tenant_templates s WHERE s.target_schema = $2)",
				 lengthof(args), args) == 1)
		wh_utility("DROP SCHEMA %s", wh_quote(schema));
}

static void
drop_tenant_data(void *arg)
{
	const char *tenant_name = arg;
	WhArg		args[] = {WH_TEXT(tenant_name)};
	uint64		n;
	char	  **targets;

	n = wh_query("SELECT template_name, target_schema FROM _wh.tenant_templates"
				 " WHERE tenant_name = $1 ORDER BY template_name, target_schema",
				 lengthof(args), args);
	targets = palloc(sizeof(char *) * 2 * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		targets[2 * i] = wh_get_text(CurrentMemoryContext, i, 1);
		targets[2 * i + 1] = wh_get_text(CurrentMemoryContext, i, 2);
	}
	for (uint64 i = 0; i < n; i++)
		drop_subscription_data(targets[2 * i], targets[2 * i + 1]);
	for (uint64 i = 0; i < n; i++)
		drop_empty_schema(targets[2 * i + 1]);
}

/* Removes the connection; a tenant may be left that has only its data. */
static void
delete_connection(const char *tenant_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name)};

	wh_query("DELETE FROM _wh.tenant_failures WHERE tenant_name = $1", lengthof(args), args);
	if (wh_query("DELETE FROM _wh.tenant_connections WHERE tenant_name = $1",
				 lengthof(args), args) == 0 &&
		wh_query("SELECT FROM _wh.tenant_templates WHERE tenant_name = $1",
				 lengthof(args), args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("tenant \"%s\" does not exist", tenant_name)));
}

Datum
wh_sql_remove_tenant(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	wh_spi_begin();
	delete_connection(tenant_name);
	wh_schedule_unsubscription(NULL, tenant_name, NULL);
	cancel_queued_jobs(tenant_name, NULL, NULL);
	cancel_running_jobs(tenant_name);
	if (!PG_ARGISNULL(1) && PG_GETARG_BOOL(1))
	{
		lock_subscriptions(tenant_name);
		wh_reader_forget_tenant(tenant_name);
		wh_politely(InvalidOid, drop_tenant_data, tenant_name);
		drop_empty_schema(tenant_name);
	}
	else
	{
		WhArg		args[] = {WH_TEXT(tenant_name)};

		wh_query("UPDATE _wh.tenant_templates SET active = false WHERE tenant_name = $1",
				 lengthof(args), args);
	}
	wh_spi_end();
	PG_RETURN_VOID();
}

static void
check_feeds(const char *tenant_name, const char *template_name, const char *schema)
{
	bool		active;
	char	   *owner = read_owner(template_name, schema, CurrentMemoryContext, &active);

	if (owner == NULL || strcmp(owner, tenant_name) != 0)
		report_no_subscription(tenant_name, template_name, schema);
}

typedef struct DoomedDay
{
	const char *template_name;
	const char *schema;
	DateADT		date;
	List	   *relations;
} DoomedDay;

/* As readers do: the view before its days. */
static void
drop_day(void *arg)
{
	const DoomedDay *day = arg;
	bool		uncounted;

	if (forget_days(day->template_name, day->schema, WH_DATE(day->date)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("day %s of template \"%s\" is not loaded in schema \"%s\"",
						wh_date_text(day->date), day->template_name, day->schema)));
	/* the views may still read a relation that a person renamed */
	uncounted = wh_get_bool(0, 1);
	if (day->relations != NIL || (uncounted && OidIsValid(get_namespace_oid(day->schema, true))))
	{
		wh_publish_tenant_view(day->template_name, day->schema);
		/* fewer days may make readable again what would have taken too many locks */
		wh_publish_public_view(day->template_name);
	}
	drop_days(day->relations);
	wh_publish_counters(day->template_name, day->schema);
}

Datum
wh_sql_drop_day(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;
	DoomedDay	day = {0};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	day.template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	tenant_name = wh_tenant_text_arg(fcinfo, 1, "tenant_name");
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target_date must not be null")));
	day.date = PG_GETARG_DATEADT(2);
	day.schema = schema_arg(fcinfo, 3, day.template_name, tenant_name);

	wh_spi_begin();
	wh_tenant_require_template(day.template_name);
	check_feeds(tenant_name, day.template_name, day.schema);
	/* waits for a load of that day, before readers feel anything */
	wh_load_lock(day.schema, wh_template_day_name(day.template_name, day.date));
	if (!wh_late_delete(day.template_name, day.schema, day.date))
		day.relations = lock_days(day.template_name, day.schema, WH_DATE(day.date));
	wh_politely(InvalidOid, drop_day, &day);
	wh_spi_end();
	PG_RETURN_VOID();
}
