/*
 * adopt.c: takes over what pg_cron and dblink built, where it is.
 *
 * Days, months and years that have the names and columns that ours have become
 * rows of the ledger; the old views become ours.  Nothing is loaded, copied or
 * renamed, OIDs stay, and so does whatever depends on them.  What the old tenant
 * view reads is taken over as a whole or not at all: the view is made from the
 * ledger from then on, and a relation that was left would be gone from it.
 *
 * The public view reads all tenants, who are adopted one after the other.  It
 * becomes ours with the first, and goes on reading the views of the others by
 * the names that are kept in mv_templates.unadopted_schemas.
 *
 * When a day was last loaded nobody wrote down.  The beginning of the day is when
 * it cannot have been earlier, so that the next run of the schedule loads the
 * last days again, once.
 *
 * Called by adopt_sql.c, in the caller's transaction.  Reads no tenant.
 *
 * Locks, in this order: the advisory locks of the names; on relations and views
 * what keeps out everybody but readers; then, politely and in one attempt: the
 * ledger, the advisory locks of the views, what publish.c locks, and, only where
 * something belongs to another role, what readers feel.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "adopt.h"
#include "fetch_day.h"
#include "grants.h"
#include "guc.h"
#include "hold.h"
#include "load.h"
#include "politely.h"
#include "publish.h"
#include "schedule.h"
#include "sqlutil.h"
#include "status.h"
#include "subscribe.h"
#include "tenant.h"
#include "wh_worker.h"

#define MEANWHILE "a warehouse was taken over"
#define PUBLIC_SCHEMA "public"

/* Of catalogs, the ledger and the views. */
#define LOCKS_BESIDES 150

#define SUBSCRIPTION_ARGS(adoption) WH_TEXT((adoption)->template_name), WH_TEXT((adoption)->schema)

/* ---- what is asked for ---- */

static void
check_layout(const WhAdoption *adoption)
{
	if (adoption->tmpl->in_tree)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("template \"%s\" has the layout \"partitions\"", adoption->template_name),
				 errdetail("Materialized views can be taken over only in the layout \"matviews\"."),
				 errhint("Take them over in that layout, then call _wh.convert_layout().")));
}

static void
read_request(WhAdoption *adoption)
{
	adoption->tmpl = wh_template_read(adoption->template_name);
	wh_tenant_require(adoption->tenant_name);
	wh_publish_check_schema_name(adoption->schema);
	check_layout(adoption);
	if (!OidIsValid(get_namespace_oid(adoption->schema, true)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_SCHEMA),
				 errmsg("schema \"%s\" does not exist", adoption->schema),
				 errhint("Give the schema that holds what is to be taken over.")));
	adoption->admin = get_role_oid(wh_admin_role, false);
	adoption->may_own = superuser_arg(GetOuterUserId());
}

static void
find_views(WhAdoption *adoption)
{
	WhArg		args[] = {SUBSCRIPTION_ARGS(adoption)};
	WhAdoptedView *views[] = {&adoption->tenant_view, &adoption->public_view};

	wh_spi_begin();
	wh_query_latest("SELECT (SELECT view_oid FROM _wh.tenant_templates WHERE template_name = $1 AND target_schema = $2),"
					"       (SELECT view_oid FROM _wh.mv_templates WHERE template_name = $1)",
					lengthof(args), args);
	adoption->tenant_view.schema = adoption->schema;
	adoption->public_view.schema = PUBLIC_SCHEMA;
	for (int i = 0; i < lengthof(views); i++)
	{
		views[i]->relid = get_relname_relid(adoption->template_name, get_namespace_oid(views[i]->schema, false));
		views[i]->is_ours = OidIsValid(views[i]->relid) && wh_get_oid(0, i + 1) == views[i]->relid;
	}
	wh_spi_end();
}

/* ---- nobody may change it from here on ---- */

/* As in combine_members.c: who fills the lock table makes everybody fail. */
static void
check_locks(const WhAdoption *adoption)
{
	WhArg		args[] = {WH_OID(get_namespace_oid(adoption->schema, false)), WH_TEXT(adoption->template_name)};
	int64		slots = MaxBackends + max_prepared_xacts;
	int64		room = max_locks_per_xact * slots;
	int64		others;
	int64		needed;

	wh_spi_begin();
	wh_query("SELECT count(*) FROM pg_catalog.pg_locks"
			 " WHERE NOT fastpath AND pid IS DISTINCT FROM pg_catalog.pg_backend_pid()", 0, NULL);
	others = wh_get_int8(0, 1);
	wh_query("SELECT coalesce(sum(2 + (SELECT count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)), 0)::bigint"
			 "  FROM pg_catalog.pg_class c WHERE c.relnamespace = $1 AND c.relkind IN ('m', 'r')"
			 "   AND pg_catalog.starts_with(c.relname::text, $2 || '_')", lengthof(args), args);
	needed = wh_get_int8(0, 1) + LOCKS_BESIDES;
	wh_spi_end();
	if (needed <= (room - others) / 4 * 3)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("looking at the %d relations of template \"%s\" in schema \"%s\" needs more locks than the server can safely give",
					adoption->n, adoption->template_name, adoption->schema),
			 errdetail("It needs " INT64_FORMAT "; the lock table has room for " INT64_FORMAT ", of which others hold " INT64_FORMAT ".",
					   needed, room, others),
			 errhint("Raise max_locks_per_transaction to " INT64_FORMAT " or more and restart the server.",
					 (needed * 4 / 3 + others) / slots + 1)));
}

static void
report_change(const char *schema, const char *relname)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("relation \"%s.%s\" was dropped or renamed at the same time", schema, relname)));
}

static void
lock_one(const char *schema, const char *relname, Oid relid, LOCKMODE mode)
{
	LockRelationOid(relid, mode);
	if (get_relname_relid(relname, get_namespace_oid(schema, false)) != relid)
		report_change(schema, relname);
}

static void
lock_all(const WhAdoption *adoption)
{
	const WhAdoptedView *views[] = {&adoption->tenant_view, &adoption->public_view};

	for (int i = 0; i < adoption->n; i++)
		if (!adoption->relations[i].is_ours)
			wh_load_lock(adoption->schema, adoption->relations[i].relname);
	for (int i = 0; i < adoption->n; i++)
		if (!adoption->relations[i].is_ours)
			lock_one(adoption->schema, adoption->relations[i].relname, adoption->relations[i].relid,
					 adoption->relations[i].tier == WH_TIER_DAY ? ShareUpdateExclusiveLock : ShareRowExclusiveLock);
	for (int i = 0; i < lengthof(views); i++)
		if (OidIsValid(views[i]->relid) && !views[i]->is_ours)
			lock_one(views[i]->schema, adoption->template_name, views[i]->relid, ShareUpdateExclusiveLock);
}

/* What was found before the locks may be ours by now, if somebody else was at it. */
static void
look_again(WhAdoption *adoption)
{
	const WhAdoptee *before = adoption->relations;
	int			n = adoption->n;

	wh_adopt_find(adoption);
	find_views(adoption);
	for (int i = 0; i < Min(n, adoption->n); i++)
		if (adoption->relations[i].relid != before[i].relid)
			report_change(adoption->schema, before[i].relname);
	if (n != adoption->n)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("relations of template \"%s\" were made or dropped in schema \"%s\" at the same time",
						adoption->template_name, adoption->schema)));
}

/* ---- may it be taken over? ---- */

static bool
is_taken(const WhAdoptee *relation)
{
	return !relation->is_ours && relation->problem == NULL && relation->ndays > 0;
}

static int
count_taken(const WhAdoption *adoption)
{
	int			n = 0;

	for (int i = 0; i < adoption->n; i++)
		n += is_taken(&adoption->relations[i]);
	return n;
}

static void
append_problem(StringInfo text, const char *schema, const char *relname, const char *problem)
{
	appendStringInfo(text, "%s%s: %s.", text->len > 0 ? "\n" : "",
					 quote_qualified_identifier(schema, relname), problem);
}

/* The views' own problems, and those of relations that the tenant view reads. */
static char *
describe_obstacles(const WhAdoption *adoption)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < adoption->n; i++)
		if (adoption->relations[i].in_view && adoption->relations[i].problem != NULL && text.len < 2000)
			append_problem(&text, adoption->schema, adoption->relations[i].relname, adoption->relations[i].problem);
	if (adoption->tenant_view.problem != NULL)
		append_problem(&text, adoption->schema, adoption->template_name, adoption->tenant_view.problem);
	if (adoption->public_view.problem != NULL)
		append_problem(&text, PUBLIC_SCHEMA, adoption->template_name, adoption->public_view.problem);
	return text.len > 0 ? text.data : NULL;
}

static void
check_obstacles(const WhAdoption *adoption)
{
	char	   *obstacles = describe_obstacles(adoption);

	if (obstacles == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("template \"%s\" of tenant \"%s\" cannot be taken over in schema \"%s\"",
					adoption->template_name, adoption->tenant_name, adoption->schema),
			 errdetail("%s", obstacles),
			 errhint("Nothing was changed. Mend this, and look with SELECT * FROM _wh.plan_adopt(%s, %s, %s).",
					 quote_literal_cstr(adoption->template_name), quote_literal_cstr(adoption->tenant_name),
					 quote_literal_cstr(adoption->schema))));
}

/* ---- taking over ---- */

void
wh_adopt_become_caller(WhAdoptCaller *saved)
{
	GetUserIdAndSecContext(&saved->user, &saved->context);
	SetUserIdAndSecContext(GetOuterUserId(),
						   saved->context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

void
wh_adopt_become_admin(const WhAdoptCaller *saved)
{
	SetUserIdAndSecContext(saved->user, saved->context);
}

/* Readers feel it, so it is done only for what belongs to somebody else. */
static void
own(Oid relid, Oid owner, Oid admin)
{
	WhAdoptCaller saved;

	if (owner == admin)
		return;
	wh_politely_lock(relid);
	wh_adopt_become_caller(&saved);
	ATExecChangeOwner(relid, admin, false, AccessExclusiveLock);
	wh_adopt_become_admin(&saved);
	CommandCounterIncrement();
}

/* As readers lock them. */
static void
own_all(const WhAdoption *adoption)
{
	const WhAdoptedView *views[] = {&adoption->public_view, &adoption->tenant_view};

	for (int i = 0; i < lengthof(views); i++)
		if (OidIsValid(views[i]->relid) && !views[i]->is_ours)
			own(views[i]->relid, views[i]->owner, adoption->admin);
	for (int i = 0; i < adoption->n; i++)
		if (is_taken(&adoption->relations[i]))
			own(adoption->relations[i].relid, adoption->relations[i].owner, adoption->admin);
}

static Datum
array_of(Datum *values, int n, Oid type, int size)
{
	return PointerGetDatum(construct_array(values, n, type, size, true,
										   size == sizeof(int64) ? TYPALIGN_DOUBLE : TYPALIGN_INT));
}

/* Each day of a table has its share of the bytes, as when it is combined: they add up. */
static void
write_ledger(const WhAdoption *adoption, const WhAdoptee *relation)
{
	WhArg		args[] = {
		SUBSCRIPTION_ARGS(adoption), WH_TEXT(adoption->tenant_name),
		WH_TEXT(relation->relname), WH_OID(relation->relid), WH_OID(wh_load_file(relation->relid)),
		WH_TEXT(relation->tier == WH_TIER_DAY ? "loaded" : "combined"),
		WH_INT8(wh_load_bytes(relation->relid)), WH_INT8(relation->rows), WH_INT8(relation->ndays),
		WH_INT4(adoption->tmpl->version),
		WH_TEXT(relation->has_indexes ? wh_md5(adoption->tmpl->indexes) : "other indexes"),
		wh_arg(DATEARRAYOID, array_of(relation->days, relation->ndays, DATEOID, sizeof(DateADT))),
		wh_arg(INT8ARRAYOID, array_of(relation->day_rows, relation->ndays, INT8OID, sizeof(int64)))
	};

	if (wh_query("INSERT INTO _wh.day_loads AS d"
				 " (template_name, target_schema, target_date, tenant_name, relation, relation_oid, relation_file,"
				 "  state, rows, bytes, loaded_at, fetch_started_at, template_version, indexes_md5, counted)"
				 " SELECT $1, $2, n.date, $3, $4, $5, $6, $7, n.rows,"
				 "  (pg_catalog.div($8 * n.upto, n.total)"
				 "    - pg_catalog.div($8 * (n.upto - n.weight), n.total))::pg_catalog.int8,"
				 "  least(n.date::pg_catalog.timestamp AT TIME ZONE 'UTC', pg_catalog.now()),"
				 "  least(n.date::pg_catalog.timestamp AT TIME ZONE 'UTC', pg_catalog.now()), $11, $12, false"
				 "  FROM (SELECT w.date, w.rows, w.weight, pg_catalog.sum(w.weight) OVER (ORDER BY w.date) AS upto,"
				 "          CASE WHEN $9 = 0 THEN $10 ELSE $9 END AS total"
				 "    FROM (SELECT u.date, u.rows, CASE WHEN $9 = 0 THEN 1 ELSE u.rows END AS weight"
				 "      FROM ROWS FROM (pg_catalog.unnest($13), pg_catalog.unnest($14)) AS u(date, rows)) w) n"
				 " ON CONFLICT (template_name, target_schema, target_date) DO UPDATE SET"
				 "  tenant_name = excluded.tenant_name, relation = excluded.relation,"
				 "  relation_oid = excluded.relation_oid, relation_file = excluded.relation_file,"
				 "  state = excluded.state, in_views = false, counted = false, rows = excluded.rows,"
				 "  bytes = excluded.bytes, loaded_at = excluded.loaded_at,"
				 "  fetch_started_at = excluded.fetch_started_at, template_version = excluded.template_version,"
				 "  indexes_md5 = excluded.indexes_md5, probe_result = NULL, probe_md5 = NULL, checked_at = NULL,"
				 "  job_id = NULL, failed_at = NULL, last_error = NULL"
				 " WHERE d.relation_oid IS NULL",
				 lengthof(args), args) != (uint64) relation->ndays)
		report_change(adoption->schema, relation->relname);
}

static void
take_relations(const WhAdoption *adoption)
{
	for (int i = 0; i < adoption->n; i++)
	{
		const WhAdoptee *relation = &adoption->relations[i];

		CHECK_FOR_INTERRUPTS();
		if (!is_taken(relation))
			continue;
		if (relation->tier == WH_TIER_DAY)
			wh_adopt_define(relation->relid,
							wh_day_definition(adoption->tmpl, adoption->tenant_name, relation->first));
		write_ledger(adoption, relation);
	}
}

static void
remember_tenant_view(const WhAdoption *adoption)
{
	WhView		view;

	if (!OidIsValid(adoption->tenant_view.relid) || adoption->tenant_view.is_ours)
		return;
	(void) wh_publish_read_tenant_view(&view, adoption->tmpl, adoption->schema);
	wh_publish_remember_tenant_view(&view);
}

/* With the first tenant the others are noted; with each one it is one less. */
static void
remember_public_view(const WhAdoption *adoption)
{
	List	   *names = adoption->other_schemas;
	Datum	   *schemas = palloc(sizeof(Datum) * Max(list_length(names), 1));
	ListCell   *cell;
	int			n = 0;
	WhArg		args[] = {SUBSCRIPTION_ARGS(adoption), wh_arg_null(TEXTARRAYOID)};

	if (OidIsValid(adoption->public_view.relid) && !adoption->public_view.is_ours)
	{
		wh_publish_remember_public_view(adoption->template_name, adoption->public_view.relid);
		foreach(cell, names)
			schemas[n++] = CStringGetTextDatum(lfirst(cell));
		args[2] = wh_arg(TEXTARRAYOID, PointerGetDatum(construct_array(schemas, n, TEXTOID, -1, false, TYPALIGN_INT)));
	}
	wh_query("UPDATE _wh.mv_templates"
			 "   SET unadopted_schemas = pg_catalog.array_remove(coalesce($3, unadopted_schemas), $2)"
			 " WHERE template_name = $1 AND unadopted_schemas IS DISTINCT FROM"
			 "   pg_catalog.array_remove(coalesce($3, unadopted_schemas), $2)", lengthof(args), args);
}

static void
publish(const WhAdoption *adoption)
{
	(void) wh_publish_tenant_view(adoption->template_name, adoption->schema);
	(void) wh_publish_public_view(adoption->template_name);
	wh_publish_counters(adoption->template_name, adoption->schema);
	(void) wh_grants_follow(adoption->template_name, adoption->schema, true);
}

/* Run by wh_politely(): it may be rolled back and started over. */
static void
take_over(void *arg)
{
	const WhAdoption *adoption = arg;

	wh_spi_begin();
	wh_hold_subscription(adoption->template_name, adoption->tenant_name, adoption->schema, true, MEANWHILE);
	if (!wh_hold_template(adoption->tmpl, MEANWHILE))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("template \"%s\" changed while " MEANWHILE, adoption->template_name)));
	wh_publish_lock(adoption->template_name, adoption->schema);
	wh_publish_lock(adoption->template_name, NULL);
	own_all(adoption);
	take_relations(adoption);
	remember_tenant_view(adoption);
	remember_public_view(adoption);
	publish(adoption);
	wh_spi_end();
}

/* ---- the subscription ---- */

static DateADT
first_day(const WhAdoption *adoption)
{
	DateADT		first = 0;
	bool		found = false;

	for (int i = 0; i < adoption->n; i++)
	{
		const WhAdoptee *relation = &adoption->relations[i];

		if (!is_taken(relation) || (found && first <= DatumGetDateADT(relation->days[0])))
			continue;
		first = DatumGetDateADT(relation->days[0]);
		found = true;
	}
	return first;
}

/* From the first day on that there is: a gap behind it shall be seen. */
static void
subscribe(const WhAdoption *adoption)
{
	DateADT		first = first_day(adoption);
	WhArg		args[] = {SUBSCRIPTION_ARGS(adoption), WH_DATE(first)};

	wh_subscribe_if_missing(adoption->template_name, adoption->tenant_name, adoption->schema, first);
	wh_spi_begin();
	wh_query("UPDATE _wh.tenant_templates SET start_date = $3"
			 " WHERE template_name = $1 AND target_schema = $2 AND start_date > $3", lengthof(args), args);
	wh_spi_end();
}

static void
check_is_something(const WhAdoption *adoption)
{
	for (int i = 0; i < adoption->n; i++)
		if (adoption->relations[i].is_ours || is_taken(&adoption->relations[i]))
			return;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("schema \"%s\" has no day, month or year of template \"%s\" that can be taken over",
					adoption->schema, adoption->template_name),
			 errhint("They are named as in %s; look with SELECT * FROM _wh.plan_adopt(%s, %s, %s).",
					 quote_qualified_identifier(adoption->schema,
												psprintf("%s_2025_09_24", adoption->template_name)),
					 quote_literal_cstr(adoption->template_name), quote_literal_cstr(adoption->tenant_name),
					 quote_literal_cstr(adoption->schema))));
}

/* ---- all of it ---- */

static void
look(WhAdoption *adoption)
{
	wh_adopt_find(adoption);
	find_views(adoption);
	check_locks(adoption);
	if (!adoption->dry_run)
	{
		lock_all(adoption);
		look_again(adoption);
	}
	wh_adopt_judge(adoption);
	wh_adopt_read_views(adoption);
}

void
wh_adopt(WhAdoption *adoption)
{
	read_request(adoption);
	look(adoption);
	if (adoption->dry_run)
		return;
	check_obstacles(adoption);
	check_is_something(adoption);
	if (count_taken(adoption) > 0)
		subscribe(adoption);
	wh_politely(InvalidOid, take_over, adoption);
	(void) wh_schedule_subscription(adoption->template_name, adoption->tenant_name, adoption->schema);
	wh_notify_config_on_commit();
}
