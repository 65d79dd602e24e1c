/*
 * refresh.c: one day through the house: template, tenant, fetch, load, swap,
 * ledger.
 *
 * Called by a worker's job, and by at_once.c for functions that run in the
 * caller's transaction.  A refresh has two halves, so that a call over several
 * days can do everything that waits for a network before it takes the first
 * lock that a reader feels: wh_refresh_fetch(), then wh_refresh_finish().
 *
 * May not decide about retries, and does not touch views: publish.c does.
 *
 * A day whose month or year is one table already goes inside that table: late.c.
 *
 * A worker may have the tenant asked for the next day before that day's turn comes.
 * Such rows have a snapshot that is older than the lock of their day, so they are
 * used only for a day that the ledger still has no relation of when the lock is
 * held: there is nothing that they could be older than.  Nothing is waited for
 * while they stand in the connection.
 *
 * Locks, in this order: the job row (the caller's); the advisory lock of the
 * day; what load.c says (ShareUpdateExclusiveLock on a relation that is to be
 * replaced); in wh_refresh_finish() the ledger row before what swap.c and
 * replace.c lock, which comes last of all.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "storage/lmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "clock.h"
#include "compat.h"
#include "fetch_day.h"
#include "grants.h"
#include "hold.h"
#include "late.h"
#include "ledger.h"
#include "load.h"
#include "log_event.h"
#include "probe.h"
#include "publish.h"
#include "rate.h"
#include "refresh.h"
#include "replace.h"
#include "sqlutil.h"
#include "template_code.h"
#include "template_views.h"
#include "tree.h"
#include "wh_worker.h"

/* What we did, in messages of hold.c. */
#define MEANWHILE "a day was loaded"

/* What the ledger has for the day before it is asked for. */
static WhLedgerDay
read_known_day(const WhRefresh *refresh)
{
	WhLedgerDay known;

	wh_spi_begin();
	wh_ledger_read(refresh, false, &known);
	wh_spi_end();
	return known;
}

static bool
is_day_relation(Oid relid)
{
	char		relkind = get_rel_relkind(relid);

	return relkind == RELKIND_MATVIEW || relkind == RELKIND_RELATION;
}

/* A table of release.c, which has not come to its end: a materialized view takes its place. */
static bool
is_released(const WhRefresh *refresh, Oid relid)
{
	return !refresh->tmpl->in_tree && get_rel_relkind(relid) == RELKIND_RELATION &&
		!OidIsValid(wh_tree_parent(relid));
}

/*
 * A relation of an older shape or layout, or with other indexes, cannot take the new
 * content: a new one is loaded under another name and replaces it in the end.
 * Until then nobody may refresh, drop or alter the old one.
 */
static bool
must_replace(const WhRefresh *refresh, const WhLedgerDay *known)
{
	Oid			namespace_oid = get_namespace_oid(refresh->schema, false);

	if (!OidIsValid(known->relation_oid) ||
		get_relname_relid(refresh->relname, namespace_oid) != known->relation_oid ||
		!is_day_relation(known->relation_oid))
		return false;			/* the load says what is wrong, if anything is */
	LockRelationOid(known->relation_oid, get_rel_relkind(known->relation_oid) == RELKIND_MATVIEW ?
					ShareUpdateExclusiveLock : ShareRowExclusiveLock);
	return get_relname_relid(refresh->relname, namespace_oid) == known->relation_oid &&
		(is_released(refresh, known->relation_oid) ||
		 wh_replace_needed(refresh->tmpl, refresh->tmpl->columns, known->relation_oid,
						   known->indexes_md5));
}

/*
 * A materialized view of that name and of our making that has no content, as a
 * restore or REFRESH … WITH NO DATA leaves it: to the ledger the day is missing.
 */
static Oid
find_empty_day(const WhRefresh *refresh)
{
	Oid			relid = get_relname_relid(refresh->relname, get_namespace_oid(refresh->schema, false));
	WhArg		args[] = {WH_OID(relid)};
	bool		found;

	if (!OidIsValid(relid) || !WH_OWNS_RELATION(relid, GetUserId()))
		return InvalidOid;
	wh_spi_begin();
	found = wh_query("SELECT FROM pg_catalog.pg_class c"
					 "  JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid"
					 "  JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
					 "   AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass"
					 "   AND d.refobjid = '_wh.fetch_day(text,text,date)'::pg_catalog.regprocedure"
					 " WHERE c.oid = $1 AND c.relkind = 'm' AND NOT c.relispopulated", lengthof(args), args) > 0;
	wh_spi_end();
	return found ? relid : InvalidOid;
}

static void
load_under_another_name(WhRefresh *refresh, WhDayTarget *target, Oid replaced_oid)
{
	refresh->replaced_oid = replaced_oid;
	target->relname = MemoryContextStrdup(GetMemoryChunkContext(refresh),
										  wh_replace_temporary_name(refresh->relname));
	target->known_oid = InvalidOid;
}

static void
fill_target(WhRefresh *refresh, WhDayTarget *target, WhRemote **remote)
{
	WhLedgerDay known = read_known_day(refresh);
	Oid			empty = OidIsValid(known.relation_oid) ? InvalidOid : find_empty_day(refresh);

	/* no tenant is kept in the middle of a COPY while somebody is waited for */
	if (OidIsValid(known.relation_oid))
		wh_day_drop_ahead(remote);
	target->schema = refresh->schema;
	target->relname = refresh->relname;
	target->known_oid = known.relation_oid;
	refresh->replaces_empty = OidIsValid(empty);
	if (refresh->replaces_empty)
		load_under_another_name(refresh, target, empty);
	else if (must_replace(refresh, &known))
		load_under_another_name(refresh, target, known.relation_oid);
	target->leaf = refresh->leaf;
	target->columns = refresh->tmpl->columns;
	target->definition = wh_day_definition(refresh->tmpl, refresh->tenant->name, refresh->date);
	target->indexes = wh_template_indexes(refresh->tmpl, target->schema, target->relname);
}

static void
hold_subscription(const WhRefresh *refresh, bool lock)
{
	wh_hold_subscription(refresh->tmpl->name, refresh->tenant->name, refresh->schema, lock, MEANWHILE);
}

/*
 * The template may have changed since it was read, and no longer allow what was
 * loaded.  Whoever changes it looks at the days of the ledger: with the lock
 * he waits for our commit, or we for his.
 */
static void
check_template(const WhRefresh *refresh)
{
	const WhLoadedDay *day = refresh->day;

	if (!wh_hold_template(refresh->tmpl, MEANWHILE))
		wh_template_views_check_day(wh_template_read(refresh->tmpl->name), refresh->schema,
									day->created ? day->relid : day->transient);
}

static WhLoadedDay *
load(WhRefresh *refresh, const WhDayTarget *target, WhDayStream *stream)
{
	if (refresh->late != NULL)
		return wh_late_stage(refresh, wh_day_next, stream);
	return wh_load_day(target, wh_day_next, stream);
}

/* What is held to a limit, or may not be fetched at all, is not asked for ahead. */
static void
plan_next(WhRefresh *refresh, WhDayTarget *target, WhDayStream *stream,
		  const DateADT *next_date)
{
	if (next_date == NULL || refresh->late != NULL || refresh->tmpl->change_probe != NULL)
		return;
	wh_day_ask_next(stream, refresh->tmpl, *next_date);
	target->meanwhile = wh_day_push;
	target->meanwhile_arg = stream;
}

static void
fetch(WhRefresh *refresh, WhDayTarget *target, WhDayStream *stream,
	  WhRate *rate, const DateADT *next_date, MemoryContext result_context)
{
	WhRestricted restricted;

	wh_template_code_check_columns(refresh->tmpl->columns);
	wh_restricted_begin(&restricted);
	wh_day_start(stream, rate);
	plan_next(refresh, target, stream, next_date);
	MemoryContextSwitchTo(result_context);
	refresh->day = load(refresh, target, stream);
	refresh->bytes_received = wh_day_close(stream, refresh->day->rows);
	wh_restricted_end(&restricted);
	refresh->is_new = refresh->day->created && refresh->late == NULL &&
		(!OidIsValid(refresh->replaced_oid) || refresh->replaces_empty);
}

/* The day, ready to be started; NULL if what is there is what it would be. */
static WhDayStream *
ask(WhRefresh *refresh, int flags, WhRemote **remote)
{
	WhDayStream *stream;

	wh_day_connect(refresh->tmpl, refresh->tenant, refresh->date, remote);
	refresh->fetch_started_at = wh_clock_now();
	stream = wh_day_open(refresh->tmpl, refresh->date, *remote);
	wh_probe_ask(refresh, *remote);
	if ((flags & WH_REFRESH_FORCED) == 0 && wh_probe_is_unchanged(refresh))
	{
		wh_day_leave(stream);
		return NULL;
	}
	return stream;
}

/* The same, of what was asked for before our turn, if it may be used. */
static WhDayStream *
resume(WhRefresh *refresh, const WhRate *rate, bool is_new, WhRemote *remote)
{
	if (!is_new || refresh->late != NULL || rate != NULL || refresh->tmpl->change_probe != NULL)
		return NULL;
	return wh_day_resume(refresh->tmpl, refresh->tenant, refresh->date, remote,
						 &refresh->fetch_started_at);
}

/* The part that waits for the tenant; its memory goes when it is done. */
static void
fetch_and_load(WhRefresh *refresh, int flags, const DateADT *next_date, WhRemote **remote)
{
	MemoryContext result_context = CurrentMemoryContext;
	MemoryContext work_context = AllocSetContextCreate(result_context, "wh_worker refresh",
													   ALLOCSET_DEFAULT_SIZES);
	WhDayTarget target = {0};
	WhDayStream *stream;
	WhRate	   *rate = (flags & WH_REFRESH_HELD) != 0 ? wh_rate_of(refresh->tenant) : NULL;

	refresh->late = wh_late_find(refresh->tmpl->name, refresh->schema, refresh->date);
	MemoryContextSwitchTo(work_context);
	if (refresh->late == NULL)
		fill_target(refresh, &target, remote);
	wh_spi_begin();
	hold_subscription(refresh, false);
	wh_spi_end();
	stream = resume(refresh, rate, !OidIsValid(target.known_oid) && !OidIsValid(refresh->replaced_oid), *remote);
	if (stream == NULL)
		stream = ask(refresh, flags, remote);
	if (stream != NULL)
		fetch(refresh, &target, stream, rate, rate == NULL ? next_date : NULL, result_context);
	MemoryContextSwitchTo(result_context);
	MemoryContextDelete(work_context);
}

/*
 * Decided once, before the lock is tried for: nobody else writes this day until
 * we commit.  The commit shall have little left to do.
 */
static void
judge(WhRefresh *refresh)
{
	WhLedgerDay known;

	if (refresh->unchanged)
		return;
	wh_spi_begin();
	wh_ledger_read(refresh, false, &known);
	refresh->suspicion = wh_ledger_suspicion(refresh, &known, &refresh->kept_old);
	wh_spi_end();
	if (refresh->suspicion != NULL)
		wh_log_day_suspect(wh_date_text(refresh->date), refresh->tmpl->name, refresh->tenant->name,
						   refresh->suspicion, refresh->day->rows, refresh->bytes_received);
	if (refresh->kept_old)
		wh_load_discard(refresh->day);
	else
		wh_load_ready(refresh->day);
}

static WhLeaf *
leaf_of(const WhRefresh *refresh)
{
	WhLeaf	   *leaf;

	if (!refresh->tmpl->in_tree)
		return NULL;
	leaf = palloc(sizeof(WhLeaf));
	leaf->tmpl = refresh->tmpl;
	leaf->schema = refresh->schema;
	leaf->first = leaf->last = refresh->date;
	return leaf;
}

static void
lock_day(const WhRefresh *refresh, WhRemote **remote)
{
	if (wh_load_try_lock(refresh->schema, refresh->relname))
		return;
	wh_day_drop_ahead(remote);
	wh_load_lock(refresh->schema, refresh->relname);
}

WhRefresh *
wh_refresh_fetch(const char *template_name, const char *tenant_name,
				 const char *schema, DateADT date, int64 job_id,
				 int flags, const DateADT *next_date, WhRemote **remote)
{
	WhRefresh  *refresh = palloc0(sizeof(WhRefresh));

	refresh->tmpl = wh_template_read(template_name);
	refresh->tenant = wh_tenant_read(tenant_name);
	refresh->schema = pstrdup(schema);
	refresh->relname = wh_template_day_name(template_name, date);
	refresh->date = date;
	refresh->leaf = leaf_of(refresh);
	refresh->job_id = job_id;

	/* somebody may have dropped it since the subscription was made */
	if (!OidIsValid(get_namespace_oid(schema, true)))
		wh_publish_schema(schema);
	lock_day(refresh, remote);
	fetch_and_load(refresh, flags, next_date, remote);
	judge(refresh);
	return refresh;
}

/* The template cannot change any more until the commit. */
void
wh_refresh_prepare(WhRefresh *refresh, List **tables)
{
	if (refresh->late == NULL || refresh->kept_old || refresh->unchanged)
		return;
	wh_spi_begin();
	check_template(refresh);
	wh_spi_end();
	wh_late_prepare(refresh, tables);
}

/* All but the exchange of files, which comes last of all. */
static void
put_in_place(WhRefresh *refresh)
{
	int64		rows;

	if (OidIsValid(refresh->replaced_oid))
		wh_replace_finish(refresh->tmpl, refresh->schema, refresh->relname,
						  refresh->replaced_oid, refresh->day->relid, refresh->leaf);
	else if (refresh->day->created && refresh->leaf != NULL)
		wh_leaf_attach(refresh->leaf, refresh->day->relid);
	if (refresh->day->created)
		wh_grants_relation(refresh->schema, refresh->relname);
	rows = wh_ledger_write(refresh);
	if (rows != refresh->day->rows)
		elog(ERROR, "ledger has " INT64_FORMAT " rows of " INT64_FORMAT, rows, refresh->day->rows);	/* cannot happen */
}

void
wh_refresh_finish(WhRefresh *refresh)
{
	WhLedgerDay known;

	wh_spi_begin();
	hold_subscription(refresh, true);
	wh_ledger_read(refresh, true, &known);
	if (refresh->unchanged)
		refresh->is_published = wh_ledger_confirm(refresh, known.relation_oid);
	else if (refresh->kept_old)
		wh_ledger_keep(refresh);
	else if (refresh->late != NULL)
		wh_late_finish(refresh, known.relation_oid);
	else
	{
		check_template(refresh);
		put_in_place(refresh);
	}
	wh_spi_end();
}

void
wh_refresh_exchange(const WhRefresh *refresh)
{
	if (!refresh->kept_old)
		wh_load_swap(refresh->day);
}

void
wh_refresh_failed(const char *template_name, const char *tenant_name,
				  const char *schema, DateADT date, int64 job_id,
				  const char *message)
{
	wh_spi_begin();
	wh_ledger_failed(template_name, tenant_name, schema, date, job_id, message);
	wh_spi_end();
}
