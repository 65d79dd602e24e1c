/*
 * relink.c: confirm_warehouse(): the ledger of a copy becomes true for it.
 *
 * What we remember by OID has other OIDs in a database that a dump was restored
 * into.  A relation that is there under its name, is admin_role's and has as
 * many rows as the ledger says is taken as what was loaded; so are views.  The
 * days of all others are missing: they were not in the dump, as materialized
 * views never are, or not all of their rows.  Such a relation may not be in a
 * view, nor in the way of a load: one that has content is renamed, one without
 * is filled again (refresh.c).
 *
 * Called from SQL, in the caller's transaction as admin_role.  May not ask a
 * tenant, nor drop anything.  Locks: the row of _wh.warehouse first, then rows of the
 * ledger, then, of relations that are renamed, AccessExclusiveLock.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "audit.h"
#include "caller.h"
#include "identity.h"
#include "isolation.h"
#include "missing.h"
#include "queue.h"
#include "sqlutil.h"
#include "template.h"
#include "there.h"
#include "tree.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_confirm_warehouse);

#define INCOMPLETE_SUFFIX " (incomplete)"

/* A relation under the name of one that the ledger knows by another OID. */
typedef struct Candidate
{
	Oid			relid;
	char	   *template_name;
	char	   *schema;
	char	   *relname;
	int64		rows;			/* as the ledger has them */
} Candidate;

typedef struct Subscription
{
	char	   *template_name;
	char	   *schema;
} Subscription;

static List *
read_names(uint64 n)
{
	List	   *names = NIL;

	for (uint64 i = 0; i < n; i++)
		names = lappend(names, wh_get_text(CurrentMemoryContext, i, 1));
	return names;
}

/* ---- views ---- */

#define VIEW_OF_THAT_NAME(name, schema) \
"(SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace" \
"  WHERE n.nspname = " schema " AND c.relname = " name " AND c.relkind = 'v'" \
"    AND pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE'))"

static void
relink_views(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(wh_isolation_view_name(template_name))};

	wh_query("UPDATE _wh.tenant_templates s SET locks = 0,"
			 "   view_oid = " VIEW_OF_THAT_NAME("s.template_name", "s.target_schema")
			 " WHERE s.template_name = $1 AND " WH_TENANT_VIEW_IS_GONE, 1, args);
	wh_query("UPDATE _wh.mv_templates t SET view_oid = " VIEW_OF_THAT_NAME("t.template_name", "'public'")
			 " WHERE t.template_name = $1 AND t.view_oid IS NOT NULL"
			 "   AND NOT " WH_IS_THERE("t.view_oid", "t.template_name", "'public'"), 1, args);
	wh_query("UPDATE _wh.mv_templates t SET isolated_view_oid = " VIEW_OF_THAT_NAME("$2", "'public'")
			 " WHERE t.template_name = $1 AND t.isolated_view_oid IS NOT NULL"
			 "   AND NOT " WH_IS_THERE("t.isolated_view_oid", "$2", "'public'"), lengthof(args), args);
}

/* ---- days, months, years ---- */

static List *
find_candidates(const Subscription *subscription)
{
	WhArg		args[] = {WH_TEXT(subscription->template_name), WH_TEXT(subscription->schema)};
	List	   *candidates = NIL;
	uint64		n;

	n = wh_query("SELECT c.oid, d.relation, sum(d.rows)::bigint"
				 "  FROM _wh.day_loads d"
				 "  JOIN pg_catalog.pg_namespace n ON n.nspname = d.target_schema"
				 "  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = d.relation"
				 "   AND c.relkind IN ('m', 'r') AND c.relispopulated"
				 "   AND pg_catalog.pg_has_role(current_user, c.relowner, 'USAGE')"
				 " WHERE d.template_name = $1 AND d.target_schema = $2"
				 "   AND d.relation_oid IS NOT NULL AND NOT " WH_DAY_IS_THERE
				 " GROUP BY c.oid, d.relation ORDER BY d.relation", lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
	{
		Candidate  *candidate = palloc(sizeof(Candidate));

		candidate->relid = wh_get_oid(i, 1);
		candidate->template_name = subscription->template_name;
		candidate->schema = subscription->schema;
		candidate->relname = wh_get_text(CurrentMemoryContext, i, 2);
		candidate->rows = wh_get_int8(i, 3);
		candidates = lappend(candidates, candidate);
	}
	return candidates;
}

static int64
count_rows(const Candidate *candidate)
{
	wh_query_once(psprintf("SELECT count(*) FROM ONLY %s", wh_relation_name(candidate->relid)), 0, NULL);
	return wh_get_int8(0, 1);
}

/* It is published again: the view that came with the dump may read something else. */
static void
take(const Candidate *candidate)
{
	WhArg		args[] = {
		WH_TEXT(candidate->template_name), WH_TEXT(candidate->schema), WH_TEXT(candidate->relname),
		WH_OID(candidate->relid)
	};

	wh_query("UPDATE _wh.day_loads d"
			 "   SET relation_oid = c.oid, relation_file = c.relfilenode, counted = false, in_views = false,"
			 "       state = CASE d.state WHEN 'published' THEN 'loaded' ELSE d.state END"
			 "  FROM pg_catalog.pg_class c"
			 " WHERE d.template_name = $1 AND d.target_schema = $2 AND d.relation = $3"
			 "   AND d.relation_oid IS NOT NULL AND c.oid = $4", lengthof(args), args);
}

static void
set_aside(const Candidate *candidate, int64 rows)
{
	Oid			part = wh_tree_parent(candidate->relid);
	char	   *name = psprintf("%s" INCOMPLETE_SUFFIX,
								wh_template_fit_name(candidate->relname, NAMEDATALEN - (int) sizeof(INCOMPLETE_SUFFIX)));

	if (OidIsValid(part))
		wh_utility("ALTER TABLE %s DETACH PARTITION %s", wh_relation_name(part), wh_relation_name(candidate->relid));
	wh_utility("ALTER %s %s RENAME TO %s",
			   get_rel_relkind(candidate->relid) == RELKIND_MATVIEW ? "MATERIALIZED VIEW" : "TABLE",
			   wh_relation_name(candidate->relid), wh_quote(name));
	ereport(WARNING,
			(errmsg("relation \"%s.%s\" is incomplete, and its days are missing", candidate->schema, candidate->relname),
			 errdetail("It has " INT64_FORMAT " rows, and had " INT64_FORMAT ". It is \"%s\" now.",
					   rows, candidate->rows, name)));
}

static void
relink_days(const Subscription *subscription)
{
	ListCell   *cell;

	foreach(cell, find_candidates(subscription))
	{
		const Candidate *candidate = lfirst(cell);
		int64		rows = count_rows(candidate);

		if (rows == candidate->rows)
			take(candidate);
		else
			set_aside(candidate, rows);
	}
}

/* ---- all of it ---- */

static List *
read_subscriptions(void)
{
	List	   *subscriptions = NIL;
	uint64		n = wh_query("SELECT template_name, target_schema FROM _wh.tenant_templates ORDER BY 1, 2", 0, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		Subscription *subscription = palloc(sizeof(Subscription));

		subscription->template_name = wh_get_text(CurrentMemoryContext, i, 1);
		subscription->schema = wh_get_text(CurrentMemoryContext, i, 2);
		subscriptions = lappend(subscriptions, subscription);
	}
	return subscriptions;
}

static void
report(void)
{
	int64		days;
	int64		missing;

	wh_query("SELECT count(*), count(*) FILTER (WHERE relation_oid IS NULL) FROM _wh.day_loads", 0, NULL);
	days = wh_get_int8(0, 1);
	missing = wh_get_int8(0, 2);
	if (missing > 0)
		ereport(NOTICE,
				(errmsg(INT64_FORMAT " of " INT64_FORMAT " days are missing", missing, days),
				 errhint("_wh.rebuild_entire_warehouse() loads them, and those that the ledger does not know yet.")));
}

static void
relink(void)
{
	List	   *templates = read_names(wh_query("SELECT template_name FROM _wh.mv_templates ORDER BY 1", 0, NULL));
	ListCell   *cell;

	foreach(cell, templates)
	{
		wh_tree_relink(lfirst(cell));
		relink_views(lfirst(cell));
	}
	foreach(cell, read_subscriptions())
	{
		const Subscription *subscription = lfirst(cell);

		CHECK_FOR_INTERRUPTS();
		relink_days(subscription);
		(void) wh_missing_notice(subscription->template_name, subscription->schema);
	}
	foreach(cell, templates)
		(void) wh_queue_enqueue_publish(lfirst(cell), 0);
}

Datum
wh_sql_confirm_warehouse(PG_FUNCTION_ARGS)
{
	WhArg		args[] = {WH_TEXT(wh_identity_here())};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	wh_spi_begin();
	if (wh_query("SELECT FROM _wh.warehouse WHERE identity <> $1 FOR UPDATE", lengthof(args), args) > 0)
	{
		relink();
		wh_query("UPDATE _wh.warehouse SET identity = $1, resumed_at = clock_timestamp()", lengthof(args), args);
		report();
	}
	wh_spi_end();
	PG_RETURN_VOID();
}
