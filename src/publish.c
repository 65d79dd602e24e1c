/*
 * publish.c: what BI tools see: tenant views, public views, grants, counters.
 *
 * Called by workers, by the functions that run at once and by subscribe.c.
 * Works from the ledger and the subscriptions alone and knows no job and no
 * tenant connection.  A view is replaced only when its members or its columns
 * differ from what the catalogs say it has, and by politely.c, since replacing
 * it shuts readers out for a moment; one whose columns changed in place is
 * left to template_views.c; a relation that we did not make is never touched.
 *
 * Locks, in this order: the advisory locks of tenant views, by schema; that of
 * the public view; then as readers do: public view, tenant views, day
 * relations.  The template is read after the advisory lock, because who
 * changes one holds all of them to his commit.  Members are read as they are now
 * (wh_query_latest): a REPEATABLE READ transaction would take out of a view what
 * others have put in since its snapshot.  Ledger rows that somebody else
 * is writing are left to their writer (SKIP LOCKED), because that writer may
 * be waiting for our advisory lock.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/lsyscache.h"

#include "budget.h"
#include "freshness.h"
#include "grants.h"
#include "isolation.h"
#include "politely.h"
#include "publish.h"
#include "sqlutil.h"
#include "status.h"
#include "template.h"
#include "template_views.h"
#include "there.h"
#include "totals.h"
#include "tree.h"
#include "view.h"
#include "wh_worker.h"

#define PUBLIC_SCHEMA "public"

/* No advisory lock that a reader could take, see load.c. */
#define WH_LOCK_CLASS_VIEW 0x5745

/* last_error of a day that is loaded and kept out of the tenant view. */
#define KEPT_OUT_SQL "'kept out of the view of its tenant, a query of which would need more locks than the server has'"

void
wh_publish_lock(const char *template_name, const char *schema)
{
	char	   *target = psprintf("wh_worker view %zu %s %s", strlen(template_name), template_name,
								  schema != NULL ? schema : "");
	uint64		key = hash_bytes_extended((const unsigned char *) target, (int) strlen(target),
										  schema != NULL);
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key, WH_LOCK_CLASS_VIEW);
	wh_politely_wants(&tag, ExclusiveLock);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	wh_politely_wants(NULL, NoLock);
	pfree(target);
}

void
wh_publish_check_schema_name(const char *schema)
{
	const char *hint = NULL;

	if (schema[0] == '\0')
		hint = "Give the name of the schema that shall hold the tenant's days.";
	else if (strlen(schema) >= NAMEDATALEN)
		hint = "A schema name has at most 63 bytes; give a shorter target_schema.";
	else if (strcmp(schema, "_wh") == 0)
		hint = "That schema holds the warehouse's own tables; give another target_schema.";
	else if (strcmp(schema, PUBLIC_SCHEMA) == 0)
		hint = "That schema holds the views over all tenants; give another target_schema.";
	else if (strncmp(schema, "pg_", 3) == 0 || strcmp(schema, "information_schema") == 0)
		hint = "That name is reserved for PostgreSQL itself; give another target_schema.";

	if (hint != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("schema \"%s\" cannot hold a tenant's data", schema),
				 errhint("%s", hint)));
}

static void
check_may_create_in(const char *schema, Oid schema_oid)
{
	WhArg		args[] = {WH_OID(schema_oid)};

	if (!wh_query_bool("SELECT has_schema_privilege($1, 'CREATE')", lengthof(args), args))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not create relations in schema \"%s\"",
						GetUserNameFromId(GetUserId(), false), schema),
				 errhint("Use another target_schema, or run GRANT USAGE, CREATE ON SCHEMA %s TO %s.",
						 wh_quote(schema), wh_quote(GetUserNameFromId(GetUserId(), false)))));
}

void
wh_publish_schema(const char *schema)
{
	Oid			schema_oid;

	wh_publish_check_schema_name(schema);
	wh_spi_begin();
	if (!OidIsValid(get_namespace_oid(schema, true)))
	{
		/* two loads of a new tenant must not both try to make it */
		wh_publish_lock("", schema);
		wh_utility("CREATE SCHEMA IF NOT EXISTS %s", wh_quote(schema));
	}
	schema_oid = get_namespace_oid(schema, false);
	check_may_create_in(schema, schema_oid);
	wh_grants_schema(schema, schema_oid);
	wh_spi_end();
}

/* Takes the members from a result of (oid, schema, relname). */
static void
read_members(WhView *view, uint64 n)
{
	view->nmembers = n;
	view->members = palloc(sizeof(WhMember) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		view->members[i].relid = wh_get_oid(i, 1);
		view->members[i].schema = wh_get_text(CurrentMemoryContext, i, 2);
		view->members[i].relname = wh_get_text(CurrentMemoryContext, i, 3);
	}
}

/*
 * An OID of the ledger counts only if the relation still has its name.  The
 * days of a month or year share one, and leaves are read through the part they
 * are attached to.  In the layout partitions the part is read also while it has
 * no leaf, so that the view is right when the first one comes.  Those that would
 * pass the lock budget are left out.
 */
static void
read_tenant_members(WhView *view, bool in_tree)
{
	WhArg		args[] = {WH_TEXT(view->name), WH_TEXT(view->schema), WH_BOOL(in_tree)};
	bool	   *is_new;

	read_members(view, wh_query_latest(
		"SELECT c.oid, n.nspname, c.relname, NOT pg_catalog.bool_or(m.in_views) FROM ("
		"  SELECT coalesce(i.inhparent, c.oid) AS relid, pg_catalog.min(d.target_date) AS first_date,"
		"         pg_catalog.bool_or(d.in_views) AS in_views"
		"    FROM _wh.day_loads d"
		"    JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation AND c.relispopulated"
		"    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = d.target_schema"
		"    LEFT JOIN pg_catalog.pg_inherits i ON c.relispartition AND i.inhrelid = c.oid"
		"   WHERE d.template_name = $1 AND d.target_schema = $2"
		"     AND d.state IN ('loaded', 'published', 'suspect', 'combined')"
		"   GROUP BY 1"
		"  UNION"
		"  SELECT s.part_oid, '-infinity', true FROM _wh.tenant_templates s"
		"   WHERE s.template_name = $1 AND s.target_schema = $2 AND $3) m"
		"  JOIN pg_catalog.pg_class c ON c.oid = m.relid"
		"  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
		" GROUP BY c.oid, n.nspname, c.relname ORDER BY pg_catalog.min(m.first_date)",
		lengthof(args), args));
	is_new = palloc(sizeof(bool) * Max(view->nmembers, 1));
	for (uint64 i = 0; i < view->nmembers; i++)
		is_new[i] = wh_get_bool(i, 4);
	wh_budget_fit_tenant_view(view, is_new);
}

/*
 * Whether no tenant view reads anything but its part of the tree, so that the
 * root holds all there is.  In the layout partitions nobody adds what is not in
 * the tree; before it is left, the public view is made of tenant views again.
 * What was loaded before, and is about to be published, counts too, and so does
 * what a view that is gone will read when it is made again.
 */
static bool
all_in_tree(const WhTemplate *tmpl)
{
	WhArg		args[] = {WH_TEXT(tmpl->name)};

	return tmpl->in_tree &&
		wh_query_latest("SELECT FROM _wh.mv_templates WHERE template_name = $1 AND unadopted_schemas <> '{}'"
				 " UNION ALL"
				 " SELECT FROM _wh.tenant_templates s"
				 "  JOIN pg_catalog.pg_rewrite r ON r.ev_class = s.view_oid"
				 "  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
				 "   AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass"
				 "   AND d.refobjid <> r.ev_class"
				 " WHERE s.template_name = $1 AND d.refobjid IS DISTINCT FROM s.part_oid"
				 " UNION ALL"
				 " SELECT FROM _wh.day_loads l"
				 "  LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = l.relation_oid"
				 " WHERE l.template_name = $1 AND NOT l.counted"
				 "  AND l.relation_oid IS NOT NULL AND i.inhrelid IS NULL"
				 " UNION ALL"
				 " SELECT FROM _wh.tenant_templates s"
				 "  JOIN _wh.day_loads l ON l.template_name = s.template_name AND l.target_schema = s.target_schema"
				 "  LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = l.relation_oid"
				 " WHERE s.template_name = $1 AND " WH_TENANT_VIEW_IS_GONE
				 "  AND l.relation_oid IS NOT NULL AND i.inhrelid IS NULL"
				 " LIMIT 1",
				 lengthof(args), args) == 0;
}

static bool
read_root(WhView *view)
{
	WhArg		args[] = {WH_TEXT(view->name)};

	read_members(view, wh_query_latest(
		"SELECT c.oid, n.nspname, c.relname FROM _wh.mv_templates t"
		"  JOIN pg_catalog.pg_class c ON c.oid = t.tree_oid AND c.relkind = 'p'"
		"  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
		" WHERE t.template_name = $1", lengthof(args), args));
	return view->nmembers > 0;
}

/*
 * Of a warehouse that is being adopted also the views of tenants whose turn has not
 * come: the public view of the old way had their rows.
 */
void
wh_publish_read_tenant_views(WhView *view)
{
	WhArg		args[] = {WH_TEXT(view->template_name)};

	/* OFFSET: a few look-ups, and never all of pg_class */
	read_members(view, wh_query_latest(
		"SELECT c.oid, n.nspname, c.relname"
		"  FROM _wh.tenant_templates s"
		" CROSS JOIN LATERAL (SELECT v.oid, v.relname, v.relnamespace FROM pg_catalog.pg_class v"
		"    WHERE v.oid = s.view_oid AND v.relname = s.template_name AND v.relkind = 'v' OFFSET 0) c"
		"  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.target_schema"
		" WHERE s.template_name = $1"
		" UNION"
		" SELECT c.oid, n.nspname, c.relname"
		"  FROM _wh.mv_templates t CROSS JOIN LATERAL pg_catalog.unnest(t.unadopted_schemas) u(target_schema)"
		" CROSS JOIN LATERAL (SELECT v.oid, v.relname, v.relnamespace FROM pg_catalog.pg_class v"
		"    WHERE v.oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', u.target_schema, t.template_name))"
		"      AND v.relkind = 'v' OFFSET 0) c"
		"  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
		" WHERE t.template_name = $1"
		" ORDER BY 2",
		lengthof(args), args));
}

static void
read_public_members(WhView *view, const WhTemplate *tmpl)
{
	if (!all_in_tree(tmpl) || !read_root(view))
		wh_publish_read_tenant_views(view);
}

static void
check_schema_name_is_free(const WhView *view)
{
	for (int i = 0; i < view->columns->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(view->columns, i)->attname), WH_SCHEMA_NAME_COLUMN) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("template \"%s\" has a column \"" WH_SCHEMA_NAME_COLUMN "\", which the public view adds itself",
							view->name),
					 errhint("Give that column another name in column_definitions.")));
	}
}

/* Reads the state of the public view; returns the OID we remember for it. */
Oid
wh_publish_read_public_view(WhView *view, const WhTemplate *tmpl)
{
	WhArg		args[] = {WH_TEXT(tmpl->name)};
	Oid			known_oid;

	memset(view, 0, sizeof(WhView));
	view->schema = PUBLIC_SCHEMA;
	view->name = tmpl->name;
	view->template_name = tmpl->name;
	view->columns = tmpl->columns;
	view->is_public = true;
	view->comment = psprintf("Rows of template \"%s\" of all tenants; made and replaced by wh_worker", tmpl->name);
	wh_query_latest("SELECT view_oid FROM _wh.mv_templates WHERE template_name = $1", lengthof(args), args);
	known_oid = wh_get_oid(0, 1);
	read_public_members(view, tmpl);
	wh_budget_fit_public_view(view);
	view->relid = wh_view_find(view->schema, view->name);
	return known_oid;
}

void
wh_publish_remember_public_view(const char *template_name, Oid view_oid)
{
	WhArg		args[] = {
		WH_TEXT(template_name),
		wh_arg_nullable(OIDOID, ObjectIdGetDatum(view_oid), !OidIsValid(view_oid))
	};

	wh_query("UPDATE _wh.mv_templates SET view_oid = $2"
			 " WHERE template_name = $1 AND view_oid IS DISTINCT FROM $2", lengthof(args), args);
}

static void
make_view(void *arg)
{
	wh_view_create(arg);
}

/*
 * The first look is without the advisory lock: whoever holds it may be waiting
 * for a tenant view that this transaction has replaced.  What it sees may be from
 * before and after somebody else's commit, so that it can only say that there is
 * nothing to do: a view that is not the one remembered may have been made just now.
 */
static bool
publish_public_view(const char *template_name)
{
	WhTemplate *tmpl = wh_template_read(template_name);
	WhView		view;
	Oid			known_oid = wh_publish_read_public_view(&view, tmpl);

	check_schema_name_is_free(&view);
	if (view.relid == known_oid && wh_view_is_up_to_date(&view))
		return false;
	wh_publish_lock(template_name, NULL);
	tmpl = wh_template_read(template_name);
	known_oid = wh_publish_read_public_view(&view, tmpl);
	wh_view_check_is_ours(&view, known_oid);
	if (wh_view_is_up_to_date(&view))
		return false;
	if (!wh_view_is_replaceable(&view))
	{
		wh_template_views_remake(template_name, GetUserId());
		return true;
	}
	wh_politely(view.relid, make_view, &view);
	wh_publish_remember_public_view(template_name, view.relid);
	if (view.refuses)
		wh_budget_warn_of_refusing(&view);
	return true;
}

/* Reads the state of a tenant view; returns the OID we remember for it. */
Oid
wh_publish_read_tenant_view(WhView *view, const WhTemplate *tmpl, const char *schema)
{
	WhArg		args[] = {WH_TEXT(tmpl->name), WH_TEXT(schema)};
	Oid			known_oid;

	memset(view, 0, sizeof(WhView));
	view->schema = schema;
	view->name = tmpl->name;
	view->template_name = tmpl->name;
	view->columns = tmpl->columns;
	if (wh_query_latest("SELECT view_oid, tenant_name, locks, refused_days FROM _wh.tenant_templates"
				 " WHERE template_name = $1 AND target_schema = $2", lengthof(args), args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no tenant feeds schema \"%s\" and template \"%s\"", schema, tmpl->name),
				 errhint("Subscribe one with _wh.subscribe().")));
	known_oid = wh_get_oid(0, 1);
	view->comment = psprintf("Days of template \"%s\" of tenant \"%s\"; made and replaced by wh_worker",
							 tmpl->name, wh_get_text(CurrentMemoryContext, 0, 2));
	view->locks_before = wh_get_int8(0, 3);
	view->refused_days_before = wh_get_int8(0, 4);
	read_tenant_members(view, tmpl->in_tree);
	view->relid = wh_view_find(schema, tmpl->name);
	return known_oid;
}

void
wh_publish_remember_tenant_view(WhView *view)
{
	if (view->locks == 0)
		view->locks = 1 + wh_budget_locks_of(wh_view_member_oids(view));
	{
		WhArg		args[] = {
			WH_TEXT(view->name), WH_TEXT(view->schema), WH_OID(view->relid), WH_INT8(view->locks)
		};

		wh_query("UPDATE _wh.tenant_templates SET view_oid = $3, locks = $4"
				 " WHERE template_name = $1 AND target_schema = $2"
				 "   AND (view_oid, locks) IS DISTINCT FROM ($3, $4)",
				 lengthof(args), args);
	}
}

/* The public view grows with its tenant views, though it is not made anew. */
static void
warn_of_growth(const WhView *view)
{
	WhArg		args[] = {WH_TEXT(view->name)};
	int64		all;

	wh_query("SELECT 1 + coalesce(pg_catalog.sum(locks), 0)::pg_catalog.int8"
			 " FROM _wh.tenant_templates WHERE template_name = $1", lengthof(args), args);
	all = wh_get_int8(0, 1);
	wh_budget_warn_of_growth(view->schema, view->name, view->locks_before, view->locks);
	wh_budget_warn_of_growth(PUBLIC_SCHEMA, view->name, all - view->locks + view->locks_before, all);
}

/* Days that are kept out say so; a load of one that is kept out already is no news. */
static void
note_refused_days(const WhView *view)
{
	WhView		refused = {.nmembers = view->nrefused,.members = view->members + view->nmembers};
	WhArg		args[] = {
		WH_TEXT(view->name), WH_TEXT(view->schema), wh_arg(OIDARRAYOID, wh_view_member_oids(&refused))
	};

	if (view->nrefused == 0 && view->refused_days_before == 0)
		return;
	wh_query("WITH late AS (SELECT target_date FROM _wh.day_loads"
			 "   WHERE template_name = $1 AND target_schema = $2 AND NOT in_views"
			 "     AND relation_oid = ANY ($3) AND last_error IS NULL FOR UPDATE SKIP LOCKED)"
			 " UPDATE _wh.day_loads d SET last_error = " KEPT_OUT_SQL " FROM late l"
			 "  WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = l.target_date",
			 lengthof(args), args);
	if (wh_query("UPDATE _wh.tenant_templates s SET refused_days = r.days"
				 "  FROM (SELECT pg_catalog.count(*) AS days FROM _wh.day_loads d"
				 "         WHERE d.template_name = $1 AND d.target_schema = $2 AND d.relation_oid = ANY ($3)) r"
				 " WHERE s.template_name = $1 AND s.target_schema = $2 AND s.refused_days <> r.days"
				 " RETURNING s.refused_days", lengthof(args), args) == 1 &&
		wh_get_int8(0, 1) > view->refused_days_before)
		wh_budget_warn_of_refused_days(view, wh_get_int8(0, 1));
}

/*
 * Only what the view holds; who is writing a row will publish it itself.  A
 * suspect day stays one.
 */
void
wh_publish_mark_in_views(const WhView *view)
{
	WhArg		args[] = {WH_TEXT(view->name), WH_TEXT(view->schema),
	wh_arg(OIDARRAYOID, wh_view_member_oids(view))};

	wh_query("WITH ready AS (SELECT target_date FROM _wh.day_loads"
			 "   WHERE template_name = $1 AND target_schema = $2 AND NOT in_views"
			 "     AND (relation_oid = ANY ($3) OR EXISTS (SELECT FROM pg_catalog.pg_inherits i"
			 "       WHERE i.inhrelid = relation_oid AND i.inhparent = ANY ($3))) FOR UPDATE SKIP LOCKED)"
			 " UPDATE _wh.day_loads d SET in_views = true,"
			 "     state = CASE d.state WHEN 'loaded' THEN 'published' ELSE d.state END,"
			 "     last_error = nullif(d.last_error, " KEPT_OUT_SQL ")"
			 "   FROM ready r"
			 "  WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = r.target_date",
			 lengthof(args), args);
}

/* Who is writing a row will have it counted himself. */
#define MARK_COUNTED_SQL(which) \
"WITH seen AS (SELECT target_date FROM _wh.day_loads" \
"   WHERE template_name = $1 AND target_schema = $2 AND NOT counted" \
"     AND " which " FOR UPDATE SKIP LOCKED)" \
" UPDATE _wh.day_loads d SET counted = true FROM seen" \
"  WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = seen.target_date"

/*
 * Before the members are read: of what goes later the view does not know yet,
 * and it asks for the next publication.
 */
static void
mark_gone_counted(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	wh_query(MARK_COUNTED_SQL("relation_oid IS NULL"), lengthof(args), args);
}

static void
grant_to_readers(void *arg)
{
	const WhView *view = arg;

	(void) wh_grants_follow(view->template_name, view->schema, false);
}

/* Of each other tenant it costs one look that it has none. */
static void
let_readers_in(WhView *view)
{
	WhArg		args[] = {WH_TEXT(view->template_name), WH_TEXT(view->schema)};

	if (wh_query_latest("SELECT FROM _wh.tenant_templates s JOIN _wh.tenant_readers r USING (tenant_name)"
						" WHERE s.template_name = $1 AND s.target_schema = $2 LIMIT 1", lengthof(args), args) > 0)
		wh_politely(InvalidOid, grant_to_readers, view);
}

static bool
publish_tenant_view(const char *template_name, const char *schema)
{
	WhTemplate *tmpl;
	WhView		view;
	Oid			known_oid;
	bool		change;
	List	   *strays;

	wh_publish_lock(template_name, schema);
	strays = wh_tree_strays(template_name, schema);
	mark_gone_counted(template_name, schema);
	tmpl = wh_template_read(template_name);
	known_oid = wh_publish_read_tenant_view(&view, tmpl, schema);
	wh_view_check_is_ours(&view, known_oid);
	change = !wh_view_is_up_to_date(&view);
	if (change && !wh_view_is_replaceable(&view))
		wh_template_views_remake(template_name, GetUserId());
	else if (change)
	{
		wh_politely(view.relid, make_view, &view);
		wh_publish_remember_tenant_view(&view);
		warn_of_growth(&view);
	}
	wh_grants_relation(view.schema, view.name);
	let_readers_in(&view);
	wh_publish_mark_in_views(&view);
	note_refused_days(&view);
	wh_tree_detach(strays);
	return change;
}

bool
wh_publish_tenant_view(const char *template_name, const char *schema)
{
	bool		changed;

	wh_status_phase(WH_PHASE_PUBLISHING);
	wh_spi_begin();
	changed = publish_tenant_view(template_name, schema);
	wh_spi_end();
	return changed;
}

bool
wh_publish_public_view(const char *template_name)
{
	bool		changed;

	wh_status_phase(WH_PHASE_PUBLISHING);
	wh_spi_begin();
	changed = publish_public_view(template_name);
	wh_grants_relation(PUBLIC_SCHEMA, template_name);
	wh_isolation_publish(template_name);
	wh_spi_end();
	return changed;
}

/* ---- what waits for a publication ---- */

/*
 * The tenant view of "s" reads its part of a tree, though the layout is another
 * one by now and nothing is in it any more.
 */
#define READS_LEFT_PART \
"EXISTS (SELECT FROM _wh.mv_templates t_" \
"  JOIN pg_catalog.pg_rewrite r_ ON r_.ev_class = s.view_oid" \
"  JOIN pg_catalog.pg_depend d_ ON d_.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass" \
"   AND d_.objid = r_.oid AND d_.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass" \
"   AND d_.refobjid = s.part_oid" \
" WHERE t_.template_name = s.template_name AND t_.layout = 'matviews'" \
"   AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i_ WHERE i_.inhparent = s.part_oid))"

/*
 * For a publication that is waited for: it has done what it could, but not all
 * that is loaded can be read.
 */
void
wh_publish_check_complete(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};

	wh_spi_begin();
	if (wh_query("SELECT target_schema, refused_days::pg_catalog.text FROM _wh.tenant_templates"
				 " WHERE template_name = $1 AND refused_days > 0 ORDER BY 1 LIMIT 1",
				 lengthof(args), args) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s loaded days are kept out of view \"%s.%s\"",
						wh_get_text(CurrentMemoryContext, 0, 2),
						wh_get_text(CurrentMemoryContext, 0, 1), template_name),
				 errdetail("A query of it would need more locks than the server has."),
				 errhint("See the advice of _wh.union_health.")));
	wh_spi_end();
}

List *
wh_publish_waiting_schemas(const char *template_name, MemoryContext context)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	MemoryContext old_context;
	List	   *schemas = NIL;
	uint64		n;

	wh_spi_begin();
	n = wh_query("SELECT d.target_schema FROM _wh.day_loads d"
				 "  JOIN _wh.tenant_templates s USING (template_name, target_schema)"
				 " WHERE d.template_name = $1 AND NOT d.counted"
				 " UNION"
				 " SELECT s.target_schema FROM _wh.tenant_templates s"
				 " WHERE s.template_name = $1 AND " WH_TENANT_VIEW_IS_GONE
				 " UNION"
				 " SELECT s.target_schema FROM _wh.tenant_templates s"
				 " WHERE s.template_name = $1 AND " READS_LEFT_PART
				 " ORDER BY 1", lengthof(args), args);
	old_context = MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
		schemas = lappend(schemas, wh_get_text(context, i, 1));
	MemoryContextSwitchTo(old_context);
	wh_spi_end();
	return schemas;
}

bool
wh_publish_is_out_of_date(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	bool		found;

	wh_spi_begin();
	found = wh_query("SELECT FROM _wh.day_loads d"
					 "  JOIN _wh.tenant_templates s USING (template_name, target_schema)"
					 " WHERE d.template_name = $1 AND NOT d.counted AND d.relation_oid IS NULL"
					 " UNION ALL"
					 " SELECT FROM _wh.tenant_templates s"
					 " WHERE s.template_name = $1 AND (" WH_TENANT_VIEW_IS_GONE " OR " READS_LEFT_PART ")"
					 " LIMIT 1", lengthof(args), args) > 0;
	wh_spi_end();
	return found;
}

/* ---- counters ---- */

/*
 * Marked before they are counted: what is written after the mark asks again.
 * A day that is not in the views, though its relation is there, still waits;
 * so does one that is gone, until the view has been made without it.
 */
static void
mark_counted(int nargs, const WhArg *args)
{
	wh_query(MARK_COUNTED_SQL("in_views"), nargs, args);
}

static void
count_subscription(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	wh_query("UPDATE _wh.tenant_templates s"
			 "   SET days = c.days, days_since_start = c.days_since_start, outdated_days = c.outdated_days,"
			 "       rows = c.rows, bytes = c.bytes, data_through = c.data_through, last_success = c.last_success"
			 "  FROM (SELECT count(*) FILTER (WHERE d.in_views) AS days,"
			 "               count(*) FILTER (WHERE d.in_views AND d.target_date >= t.start_date) AS days_since_start,"
			 "               count(*) FILTER (WHERE d.relation_oid IS NOT NULL"
			 "                 AND d.template_version < m.version) AS outdated_days,"
			 "               coalesce(sum(d.rows) FILTER (WHERE d.in_views), 0)::bigint AS rows,"
			 "               coalesce(sum(d.bytes) FILTER (WHERE d.in_views), 0)::bigint AS bytes,"
			 "               max(d.target_date) FILTER (WHERE d.in_views) AS data_through,"
			 "               greatest(max(d.loaded_at), max(d.checked_at)) AS last_success"
			 "          FROM _wh.tenant_templates t"
			 "          JOIN _wh.mv_templates m USING (template_name)"
			 "          LEFT JOIN _wh.day_loads d USING (template_name, target_schema)"
			 "         WHERE t.template_name = $1 AND t.target_schema = $2) c"
			 " WHERE s.template_name = $1 AND s.target_schema = $2"
			 "   AND (s.days, s.days_since_start, s.outdated_days, s.rows, s.bytes, s.data_through, s.last_success)"
			 "       IS DISTINCT FROM"
			 "       (c.days, c.days_since_start, c.outdated_days, c.rows, c.bytes, c.data_through, c.last_success)",
			 lengthof(args), args);
	wh_freshness_follow(template_name, schema);
	wh_totals_count(template_name, schema);
}

void
wh_publish_counters(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	wh_spi_begin();
	/* sums made before somebody else's commit must not overwrite his */
	wh_publish_lock(template_name, schema);
	mark_counted(lengthof(args), args);
	count_subscription(template_name, schema);
	wh_spi_end();
}

void
wh_publish_count_unpublished(const char *template_name, const char *schema)
{
	wh_spi_begin();
	wh_publish_lock(template_name, schema);
	count_subscription(template_name, schema);
	wh_spi_end();
}

void
wh_publish_checked(const char *template_name, const char *schema, TimestampTz checked_at)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_TSTZ(checked_at)};

	wh_spi_begin();
	wh_publish_lock(template_name, schema);
	wh_query("UPDATE _wh.tenant_templates SET last_success = $3"
			 " WHERE template_name = $1 AND target_schema = $2"
			 "   AND (last_success < $3 OR last_success IS NULL)", lengthof(args), args);
	wh_freshness_follow(template_name, schema);
	wh_spi_end();
}
