/*
 * missing.c: days and views that a person took away.
 *
 * A day counts only under its name and in its schema: a relation that was
 * dropped, renamed or moved is no longer the day's, and neither is one whose
 * content was taken (REFRESH … WITH NO DATA).  The ledger has to say so before
 * somebody believes it.
 *
 * Called by the launcher and by the functions that run at once.  The launcher does not compare a ledger of a million days
 * with pg_class again and again: the relation cache is told of every relation
 * that changes, and only those are looked up.  When it was told of more than
 * can be noted, or its queue has overflowed, everything is compared.
 *
 * May not touch a relation or a view: it marks rows, and a publication does the
 * rest.  Locks: rows of the ledger; those that somebody else has are skipped,
 * because that somebody may be waiting for the caller.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "identity.h"
#include "missing.h"
#include "sqlutil.h"
#include "there.h"

/* Relations noted between two looks. */
#define CHANGED_MAX 65536

static Oid	changed[CHANGED_MAX];
static int	nchanged = 0;

/* At first nothing is known: a person may have been there before us. */
static bool all_changed = true;
static TimestampTz compared_at = 0;

/* The whole ledger is compared again no sooner than after this. */
#define COMPARE_MS (5 * 60 * 1000)

/* ---- what the relation cache is told ---- */

static void
note_change(Datum arg pg_attribute_unused(), Oid relid)
{
	if (!OidIsValid(relid) || nchanged == CHANGED_MAX)
		all_changed = true;
	else
		changed[nchanged++] = relid;
}

/* Of the relations of a schema that is renamed the relation cache is not told. */
static void
note_namespace(Datum arg pg_attribute_unused(), int cacheid pg_attribute_unused(),
			   uint32 hashvalue pg_attribute_unused())
{
	all_changed = true;
}

void
wh_missing_watch(void)
{
	CacheRegisterRelcacheCallback(note_change, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, note_namespace, (Datum) 0);
}

static Datum
changed_oids(void)
{
	Datum	   *oids = palloc(sizeof(Datum) * Max(nchanged, 1));

	for (int i = 0; i < nchanged; i++)
		oids[i] = ObjectIdGetDatum(changed[i]);
	return PointerGetDatum(construct_array(oids, nchanged, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* ---- what is missing ---- */

#define GONE_SQL(which) \
"  SELECT d.template_name, d.target_schema, d.target_date, d.relation_oid FROM _wh.day_loads d" \
"   WHERE d.relation_oid IS NOT NULL AND " which " AND NOT " WH_DAY_IS_THERE

/*
 * The row as it is when it is locked has to name the same relation: one that
 * was committed since the snapshot would not be found in pg_class.
 */
#define MARK_SQL(which) \
"WITH seen AS MATERIALIZED (" GONE_SQL(which) ")," \
" gone AS (SELECT d.template_name, d.target_schema, d.target_date, d.relation, d.relation_oid" \
"   FROM seen s JOIN _wh.day_loads d ON d.template_name = s.template_name" \
"    AND d.target_schema = s.target_schema AND d.target_date = s.target_date" \
"    AND d.relation_oid = s.relation_oid" \
"   FOR NO KEY UPDATE OF d SKIP LOCKED)" \
" UPDATE _wh.day_loads d" \
"    SET state = 'missing', relation_oid = NULL, relation_file = NULL, in_views = false," \
"        counted = false, rows = 0, bytes = 0," \
"        last_error = CASE WHEN r.oid IS NULL THEN 'its relation was dropped, renamed or moved to another schema'" \
"          ELSE 'its materialized view has no content' END" \
"   FROM gone g LEFT JOIN (pg_catalog.pg_class r JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace)" \
"     ON r.oid = g.relation_oid AND r.relname = g.relation AND n.nspname = g.target_schema" \
"  WHERE d.template_name = g.template_name" \
"    AND d.target_schema = g.target_schema AND d.target_date = g.target_date" \
" RETURNING d.template_name"

/*
 * A leaf that a person detached is under its name still, and so a day of ours,
 * which the tenant view has to read by itself now.
 */
#define DETACHED_SQL(which) \
"WITH detached AS (SELECT d.template_name, d.target_schema, d.target_date" \
"   FROM _wh.day_loads d" \
"   JOIN _wh.tenant_templates s USING (template_name, target_schema)" \
"   JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid AND c.relkind = 'r' AND NOT c.relispartition" \
"  WHERE " which " AND d.in_views AND d.counted AND s.part_oid IS NOT NULL" \
"    AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r" \
"      JOIN pg_catalog.pg_depend p ON p.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass" \
"       AND p.objid = r.oid AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass" \
"       AND p.refobjid = d.relation_oid WHERE r.ev_class = s.view_oid)" \
"   FOR NO KEY UPDATE OF d SKIP LOCKED)" \
" UPDATE _wh.day_loads d SET counted = false FROM detached g" \
"  WHERE d.template_name = g.template_name" \
"    AND d.target_schema = g.target_schema AND d.target_date = g.target_date" \
" RETURNING d.template_name"

/* Templates with a view that has gone. */
#define VIEW_GONE_SQL(which) \
"SELECT t.template_name FROM _wh.mv_templates t" \
" WHERE " which \
"   AND ((t.view_oid IS NOT NULL AND NOT " WH_IS_THERE("t.view_oid", "t.template_name", "'public'") ")" \
"     OR EXISTS (SELECT FROM _wh.tenant_templates s" \
"         WHERE s.template_name = t.template_name AND " WH_TENANT_VIEW_IS_GONE "))"

/*
 * One that could not be made again, its name being taken or its schema gone, is
 * not tried at every change.
 */
#define NOT_TRIED_IN_VAIN \
"NOT EXISTS (SELECT FROM _wh.jobs p" \
"     WHERE p.kind = 'publish' AND p.template_name = t.template_name AND p.state = 'failed'" \
"       AND p.finished_at > clock_timestamp() - interval '5 minutes')"

#define OF_SUBSCRIPTION "d.template_name = $1 AND d.target_schema = $2"
#define OF_RELATIONS "d.relation_oid = ANY ($1)"
#define OF_ALL "true"

static List *
add_names(List *names, uint64 n, MemoryContext context)
{
	MemoryContext old_context = MemoryContextSwitchTo(context);

	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = wh_get_text(context, i, 1);
		ListCell   *cell;
		bool		known = false;

		foreach(cell, names)
			known = known || strcmp(lfirst(cell), name) == 0;
		if (!known)
			names = lappend(names, name);
	}
	MemoryContextSwitchTo(old_context);
	return names;
}

List *
wh_missing_notice(const char *template_name, const char *schema)
{
	MemoryContext context = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};
	List	   *names = NIL;

	wh_spi_begin();
	names = add_names(names, wh_query(MARK_SQL(OF_SUBSCRIPTION), lengthof(args), args), context);
	names = add_names(names, wh_query(DETACHED_SQL(OF_SUBSCRIPTION), lengthof(args), args), context);
	names = add_names(names, wh_query(VIEW_GONE_SQL("t.template_name = $1"), 1, args), context);
	wh_spi_end();
	return names;
}

/* *left: some rows were skipped because somebody had them locked. */
static List *
notice_changed(bool compare_all, bool *left)
{
	MemoryContext context = CurrentMemoryContext;
	WhArg		args[] = {wh_arg(OIDARRAYOID, changed_oids())};
	List	   *names = NIL;

	wh_spi_begin();
	if (compare_all)
	{
		names = add_names(names, wh_query(MARK_SQL(OF_ALL), 0, NULL), context);
		*left = wh_query(GONE_SQL(OF_ALL) " LIMIT 1", 0, NULL) > 0;
		names = add_names(names, wh_query(DETACHED_SQL(OF_ALL), 0, NULL), context);
	}
	else
	{
		names = add_names(names, wh_query(MARK_SQL(OF_RELATIONS), lengthof(args), args), context);
		*left = wh_query(GONE_SQL(OF_RELATIONS) " LIMIT 1", lengthof(args), args) > 0;
		names = add_names(names, wh_query(DETACHED_SQL(OF_RELATIONS), lengthof(args), args), context);
	}
	names = add_names(names, wh_query(VIEW_GONE_SQL(NOT_TRIED_IN_VAIN), 0, NULL), context);
	wh_spi_end();
	return names;
}

/* The ledger of a copy names the relations of the original until it is confirmed. */
static bool
is_confirmed(void)
{
	bool		confirmed;

	wh_spi_begin();
	confirmed = wh_identity_pause() != WH_UNCONFIRMED;
	wh_spi_end();
	return confirmed;
}

/* What the look under way is about; forgotten when it is committed. */
static int	nlooked_at = 0;
static bool looked_at_all = false;

void
wh_missing_committed(void)
{
	nchanged -= nlooked_at;
	memmove(changed, changed + nlooked_at, sizeof(Oid) * nchanged);
	nlooked_at = 0;
	looked_at_all = false;
}

/*
 * What is noted while we look is kept for the next look, and so is everything
 * if the look fails, is not committed, or finds rows that somebody has locked.
 */
List *
wh_missing_notice_changed(void)
{
	TimestampTz now = GetCurrentTimestamp();
	bool		compare;
	bool		left = false;
	List	   *names;

	/* the look before was not committed */
	all_changed = all_changed || looked_at_all;
	nlooked_at = 0;
	looked_at_all = false;
	compare = all_changed && TimestampDifferenceExceeds(compared_at, now, COMPARE_MS);
	if (nchanged == 0 && !compare)
		return NIL;
	if (!is_confirmed())
	{
		all_changed = true;
		return NIL;
	}
	looked_at_all = compare;
	if (compare)
	{
		all_changed = false;
		compared_at = now;
	}
	/* counted before the look: what comes during it stays */
	nlooked_at = nchanged;
	names = notice_changed(compare, &left);
	if (left && compare)
		all_changed = true;
	else if (left)
		nlooked_at = 0;
	return names;
}
