/*
 * release.c: release_data(): the warehouse lets go of its data, so that DROP
 * EXTENSION loses none of it.
 *
 * Days that are materialized views become tables, as many in one call as a quarter
 * of the server's lock table has room for; whoever calls it again goes on.
 * When none is left, all that is loaded is in the views and the views need
 * nothing of ours, the trees leave schema _wh, and the ledger forgets the days:
 * they are their owner's, and a later load of one finds its name taken.
 *
 * Called from SQL, in the caller's transaction as admin_role, while the warehouse
 * is paused.  May not ask a tenant, nor drop or copy a row.
 *
 * Locks, all politely: the row of _wh.warehouse, so that nobody resumes it; the ledger, against
 * all who load; of days what keeps out who changes them, and no reader; at the
 * end what publish.c locks, then AccessExclusiveLock on trees from the root down.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "audit.h"
#include "budget.h"
#include "caller.h"
#include "compat.h"
#include "identity.h"
#include "isolation.h"
#include "politely.h"
#include "publish.h"
#include "release.h"
#include "schedule.h"
#include "sqlutil.h"
#include "tree.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_release_data);

/* What a call may take of the lock table: one part of so many. */
#define BUDGET_SHARE 4

typedef struct Release
{
	int64		made;			/* tables, in this call */
	int64		left;
} Release;

typedef struct Subscription
{
	char	   *template_name;
	char	   *tenant_name;
	char	   *schema;
} Subscription;

/* ---- may it be done now ---- */

static void
check_paused(void)
{
	WhPause		pause = wh_identity_pause();

	if (pause == WH_UNCONFIRMED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", wh_identity_reason(pause)),
				 errhint("Its ledger does not know the relations that came with a dump. Call _wh.pause() and _wh.confirm_warehouse() first.")));
	if (pause != WH_PAUSED)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the warehouse is not paused"),
				 errhint("Call _wh.pause() first.")));
}

static void
check_no_job_runs(void)
{
	wh_query("SELECT pg_catalog.count(*) FROM _wh.jobs WHERE state = 'running' AND kind <> 'sql'", 0, NULL);
	if (wh_get_int8(0, 1) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg_plural("%lld job is still running", "%lld jobs are still running",
							   (unsigned long) wh_get_int8(0, 1), (long long) wh_get_int8(0, 1)),
				 errhint("Wait until _wh.worker_status shows none, or end them with _wh.cancel_job().")));
}

/* A function that runs at once and began before the pause is waited for. */
static void
lock_warehouse(void)
{
	wh_query("SELECT FROM _wh.warehouse FOR SHARE", 0, NULL);
	check_paused();
	wh_utility("LOCK TABLE _wh.day_loads IN SHARE ROW EXCLUSIVE MODE");
	check_no_job_runs();
}

/* ---- days ---- */

/*
 * All that is defined by fetch_day(), also what the ledger no longer knows: a
 * day that a person renamed, or that retention has detached.
 */
#define DAYS_DEFINED_BY_US \
"SELECT DISTINCT c.oid FROM pg_catalog.pg_depend d" \
"  JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid" \
"  JOIN pg_catalog.pg_class c ON c.oid = r.ev_class AND c.relkind = 'm'" \
" WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass" \
"   AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass" \
"   AND d.refobjid = '_wh.fetch_day(pg_catalog.text, pg_catalog.text, pg_catalog.date)'::pg_catalog.regprocedure"

static bool
has_content(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	bool		result = HeapTupleIsValid(tuple) && ((Form_pg_class) GETSTRUCT(tuple))->relispopulated;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return result;
}

/* With its lock: nobody empties it any more, or gives it away. */
static void
check_day(Oid relid)
{
	if (!WH_OWNS_RELATION(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of materialized view %s", wh_relation_name(relid)),
				 errhint("Run ALTER MATERIALIZED VIEW %s OWNER TO %s.", wh_relation_name(relid),
						 wh_quote(GetUserNameFromId(GetUserId(), false)))));
	if (!has_content(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("materialized view %s has no content", wh_relation_name(relid)),
				 errdetail("As a table it would be empty, and nobody would notice."),
				 errhint("Drop it, or have its day loaded again.")));
}

/* As many as fit. */
static void
make_tables(Release *release)
{
	WhArg		args[] = {WH_INT8(Max(wh_budget() / BUDGET_SHARE, 1))};
	List	   *relids = NIL;
	ListCell   *cell;
	uint64		n;

	n = wh_query_latest(DAYS_DEFINED_BY_US " ORDER BY c.oid LIMIT $1", lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
		relids = lappend_oid(relids, wh_get_oid(i, 1));
	release->made = 0;
	foreach(cell, relids)
	{
		CHECK_FOR_INTERRUPTS();
		LockRelationOid(lfirst_oid(cell), ShareUpdateExclusiveLock);
		if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_MATVIEW)
			continue;
		check_day(lfirst_oid(cell));
		wh_release_make_table(lfirst_oid(cell));
		release->made++;
	}
	wh_query_latest("SELECT pg_catalog.count(*) FROM (" DAYS_DEFINED_BY_US ") left_", 0, NULL);
	release->left = wh_get_int8(0, 1);
}

/* ---- views ---- */

static bool
is_schema(const char *name)
{
	return OidIsValid(get_namespace_oid(name, true));
}

/*
 * Nobody would look into the relations themselves for what is in no view.  Who
 * has dropped the schema of a tenant wants no view in it.
 */
static void
publish(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	ListCell   *cell;

	foreach(cell, wh_publish_waiting_schemas(template_name, CurrentMemoryContext))
	{
		if (!is_schema(lfirst(cell)))
			continue;
		wh_publish_tenant_view(template_name, lfirst(cell));
		wh_publish_counters(template_name, lfirst(cell));
	}
	if (wh_query("SELECT FROM _wh.mv_templates WHERE template_name = $1 AND view_oid IS NOT NULL",
				 lengthof(args), args) > 0)
		(void) wh_publish_public_view(template_name);
}

static void
warn_of_days_kept_out(const Subscription *subscription)
{
	WhArg		args[] = {WH_TEXT(subscription->template_name), WH_TEXT(subscription->schema)};

	wh_query("SELECT pg_catalog.count(*), pg_catalog.min(relation) FROM _wh.day_loads"
			 " WHERE template_name = $1 AND target_schema = $2 AND relation_oid IS NOT NULL AND NOT in_views",
			 lengthof(args), args);
	if (wh_get_int8(0, 1) > 0)
		ereport(WARNING,
				(errmsg(INT64_FORMAT " loaded days are in no view", wh_get_int8(0, 1)),
				 errdetail("They are relations of schema \"%s\", as \"%s\".", subscription->schema,
						   wh_get_text(CurrentMemoryContext, 0, 2))));
}

/* What asks our tables who may read, or calls our function to refuse, cannot stay so. */
static void
free_view(WhView *view, Oid known_oid)
{
	bool		refused = view->refuses;

	if (!OidIsValid(view->relid) || view->relid != known_oid || !(view->is_isolated || refused))
		return;
	view->refuses = false;
	view->is_released = true;
	wh_politely_lock(view->relid);
	wh_view_create(view);
	if (refused)
		ereport(WARNING,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("view \"%s.%s\" refuses no longer to be read", view->schema, view->name),
				 errdetail("A query of it locks " INT64_FORMAT " relations and indexes; the server has room for " INT64_FORMAT ".",
						   view->locks, wh_budget()),
				 errhint("Drop it, or raise max_locks_per_transaction.")));
}

static void
free_views(const char *template_name)
{
	WhTemplate *tmpl = wh_template_read(template_name);
	WhView		view;
	Oid			known_oid;

	known_oid = wh_publish_read_public_view(&view, tmpl);
	free_view(&view, known_oid);
	if (!tmpl->tenant_isolation)
		return;
	known_oid = wh_isolation_read_view(&view, tmpl);
	free_view(&view, known_oid);
}

/* ---- trees ---- */

/* DROP SCHEMA _wh, when nothing of ours is in it any more, must find no data there. */
static void
move_out(Oid relid, const char *schema)
{
	if (!OidIsValid(relid))
		return;
	wh_politely_lock(relid);
	wh_utility("ALTER TABLE %s SET SCHEMA %s", wh_relation_name(relid), wh_quote(schema));
}

/* ---- the end ---- */

static List *
read_subscriptions(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	List	   *subscriptions = NIL;
	uint64		n = wh_query("SELECT tenant_name, target_schema FROM _wh.tenant_templates"
							 " WHERE template_name = $1 ORDER BY 2", lengthof(args), args);

	for (uint64 i = 0; i < n; i++)
	{
		Subscription *subscription = palloc(sizeof(Subscription));

		subscription->template_name = pstrdup(template_name);
		subscription->tenant_name = wh_get_text(CurrentMemoryContext, i, 1);
		subscription->schema = wh_get_text(CurrentMemoryContext, i, 2);
		subscriptions = lappend(subscriptions, subscription);
	}
	return subscriptions;
}

static void
let_go(const Subscription *subscription)
{
	WhArg		args[] = {WH_TEXT(subscription->template_name), WH_TEXT(subscription->schema)};

	warn_of_days_kept_out(subscription);
	move_out(wh_tree_part(subscription->template_name, subscription->schema),
			 is_schema(subscription->schema) ? subscription->schema : "public");
	wh_schedule_unsubscription(subscription->template_name, subscription->tenant_name, subscription->schema);
	wh_query("UPDATE _wh.tenant_templates SET active = false, view_oid = NULL, part_oid = NULL,"
			 "   locks = 0, refused_days = 0"
			 " WHERE template_name = $1 AND target_schema = $2", lengthof(args), args);
	wh_query("DELETE FROM _wh.day_loads WHERE template_name = $1 AND target_schema = $2", lengthof(args), args);
	wh_publish_counters(subscription->template_name, subscription->schema);
}

static void
let_go_of_template(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	List	   *subscriptions = read_subscriptions(template_name);
	ListCell   *cell;

	foreach(cell, subscriptions)
		wh_publish_lock(template_name, ((Subscription *) lfirst(cell))->schema);
	publish(template_name);
	wh_publish_lock(template_name, NULL);
	free_views(template_name);
	move_out(wh_tree_root(template_name), "public");
	foreach(cell, subscriptions)
		let_go(lfirst(cell));
	wh_query("UPDATE _wh.mv_templates SET view_oid = NULL, isolated_view_oid = NULL, tree_oid = NULL"
			 " WHERE template_name = $1", lengthof(args), args);
}

static void
cancel_jobs(void)
{
	wh_query("UPDATE _wh.jobs SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(),"
			 "   last_error = 'the data was released'"
			 " WHERE state = 'queued' AND kind <> 'sql'", 0, NULL);
	wh_notify_config_on_commit();
}

static void
let_go_of_all(void)
{
	List	   *templates = NIL;
	ListCell   *cell;
	uint64		n = wh_query("SELECT template_name FROM _wh.mv_templates ORDER BY 1", 0, NULL);

	for (uint64 i = 0; i < n; i++)
		templates = lappend(templates, wh_get_text(CurrentMemoryContext, i, 1));
	cancel_jobs();
	foreach(cell, templates)
		let_go_of_template(lfirst(cell));
}

/* Run by wh_politely(): it may be rolled back and started over. */
static void
release_some(void *arg)
{
	Release    *release = arg;

	wh_spi_begin();
	lock_warehouse();
	make_tables(release);
	if (release->left == 0)
		let_go_of_all();
	wh_spi_end();
}

Datum
wh_sql_release_data(PG_FUNCTION_ARGS)
{
	Release		release = {0};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	wh_spi_begin();
	check_paused();
	check_no_job_runs();
	wh_politely(InvalidOid, release_some, &release);
	wh_spi_end();
	ereport(NOTICE,
			(errmsg(INT64_FORMAT " materialized views are tables now, " INT64_FORMAT " are left", release.made, release.left),
			 release.left > 0 ? errhint("Call _wh.release_data() again.") :
			 errhint("All data is released: DROP EXTENSION wh_worker loses none of it.")));
	PG_RETURN_INT32((int32) release.left);
}
