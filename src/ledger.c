/*
 * ledger.c: the rows of _wh.day_loads.
 *
 * Called by refresh.c for the one day that it loads; publish.c notes what is in
 * the views, and missing.c what a person took away.
 *
 * May not touch a day relation or a view.
 *
 * Locks: the ledger row of the refresh's day, before the strong lock on its
 * relation; after a failure the row of the subscription.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "clock.h"
#include "freshness.h"
#include "late.h"
#include "ledger.h"
#include "publish.h"
#include "sqlutil.h"
#include "there.h"

/* How many days before a day its count is compared with, and at least. */
#define TRAILING_DAYS 28
#define TRAILING_DAYS_MIN 5

#define DAY_ARGS(refresh) \
	WH_TEXT((refresh)->tmpl->name), WH_TEXT((refresh)->schema), WH_DATE((refresh)->date)

#define SELECT_DAY \
	"SELECT relation_oid, indexes_md5, state = 'suspect', rows FROM _wh.day_loads" \
	" WHERE template_name = $1 AND target_schema = $2 AND target_date = $3"

void
wh_ledger_read(const WhRefresh *refresh, bool lock, WhLedgerDay *day)
{
	WhArg		args[] = {DAY_ARGS(refresh)};
	MemoryContext cxt = GetMemoryChunkContext((void *) refresh);
	uint64		n;

	memset(day, 0, sizeof(*day));
	if (lock)
		n = wh_query(SELECT_DAY " FOR NO KEY UPDATE", lengthof(args), args);
	else
		n = wh_query(SELECT_DAY, lengthof(args), args);
	if (n == 0)
		return;
	day->relation_oid = wh_get_oid(0, 1);
	day->indexes_md5 = wh_get_text(cxt, 0, 2);
	day->is_suspect = wh_get_bool(0, 3);
	day->rows = wh_get_int8(0, 4);
}

bool
wh_ledger_read_probed(const WhRefresh *refresh, WhLedgerDay *day)
{
	MemoryContext cxt = GetMemoryChunkContext((void *) refresh);
	WhArg		args[] = {
		DAY_ARGS(refresh), WH_INT4(refresh->tmpl->version), WH_TEXT(refresh->tenant->name),
		WH_TEXT(refresh->probe_md5), WH_TEXT(refresh->probe_result)
	};

	memset(day, 0, sizeof(*day));
	if (wh_query_latest("SELECT d.relation_oid, d.indexes_md5, d.rows FROM _wh.day_loads d"
						"  JOIN pg_catalog.pg_class r ON r.oid = d.relation_oid AND r.relfilenode = d.relation_file"
						" WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = $3"
						"   AND d.state IN ('loaded', 'published', 'combined')"
						"   AND d.template_version = $4 AND d.tenant_name = $5"
						"   AND d.probe_md5 = $6 AND d.probe_result = $7"
						"   AND " WH_DAY_IS_THERE, lengthof(args), args) == 0)
		return false;
	day->relation_oid = wh_get_oid(0, 1);
	day->indexes_md5 = wh_get_text(cxt, 0, 2);
	day->rows = wh_get_int8(0, 3);
	return true;
}

/* ---- does the count look right? ---- */

/* The fewest and the most rows that are still inside. */
typedef struct Band
{
	int64		days;			/* that the median is of */
	char	   *median;
	int64		low;
	int64		high;
	bool		keep_last_good;
} Band;

/*
 * A day without content has no count.  Suspect ones are counted: when the
 * business has changed for good, the median follows.
 */
static bool
read_band(const WhRefresh *refresh, Band *band)
{
	WhArg		args[] = {DAY_ARGS(refresh), WH_INT4(TRAILING_DAYS)};

	if (wh_query("SELECT b.days, b.median::pg_catalog.text,"
				 "       pg_catalog.ceil(b.median / t.suspect_factor)::pg_catalog.int8,"
				 "       pg_catalog.floor(least(b.median * t.suspect_factor, 9e18))::pg_catalog.int8,"
				 "       t.keep_last_good"
				 "  FROM _wh.mv_templates t CROSS JOIN LATERAL ("
				 "    SELECT pg_catalog.count(*) AS days,"
				 "           pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY p.rows::pg_catalog.float8) AS median"
				 "      FROM (SELECT d.rows FROM _wh.day_loads d"
				 "             WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date < $3"
				 "               AND d.relation_oid IS NOT NULL"
				 "             ORDER BY d.target_date DESC LIMIT $4) p) b"
				 " WHERE t.template_name = $1 AND t.suspect_factor IS NOT NULL",
				 lengthof(args), args) == 0)
		return false;
	band->days = wh_get_int8(0, 1);
	if (band->days < TRAILING_DAYS_MIN)
		return false;
	band->median = wh_get_text(CurrentMemoryContext, 0, 2);
	band->low = wh_get_int8(0, 3);
	band->high = wh_get_int8(0, 4);
	band->keep_last_good = wh_get_bool(0, 5);
	return true;
}

/* A day that was not over when it was asked for may still grow. */
static bool
day_was_over(const WhRefresh *refresh)
{
	return wh_clock_day_of(refresh->fetch_started_at) > refresh->date;
}

static bool
is_inside(const Band *band, int64 rows, bool may_be_low)
{
	return (may_be_low || rows >= band->low) && rows <= band->high;
}

/* A kept content is a good one: it was not suspect, or is so no longer. */
static bool
is_worth_keeping(const WhRefresh *refresh, const Band *band, const WhLedgerDay *old)
{
	return !refresh->is_new && OidIsValid(old->relation_oid) &&
		(!old->is_suspect || is_inside(band, old->rows, false));
}

char *
wh_ledger_suspicion(const WhRefresh *refresh, const WhLedgerDay *old, bool *keep)
{
	MemoryContext cxt = GetMemoryChunkContext((void *) refresh);
	MemoryContext old_context;
	int64		rows = refresh->day->rows;
	Band		band;
	char	   *text;

	*keep = false;
	if (!read_band(refresh, &band) || is_inside(&band, rows, !day_was_over(refresh)))
		return NULL;
	*keep = band.keep_last_good && is_worth_keeping(refresh, &band, old);

	old_context = MemoryContextSwitchTo(cxt);
	text = psprintf(INT64_FORMAT " rows, expected " INT64_FORMAT " to " INT64_FORMAT
					" (the median of the " INT64_FORMAT " days before is %s)",
					rows, band.low, band.high, band.days, band.median);
	if (*keep)
		text = psprintf("%s; the " INT64_FORMAT " rows loaded before are kept", text, old->rows);
	MemoryContextSwitchTo(old_context);
	return text;
}

/* ---- writing ---- */

/*
 * The files of a transient heap are those that the day is about to get.  A day
 * that replaces the relation of one that was in the views is in them: the
 * tenant view was made to read the new relation.
 */
int64
wh_ledger_write(const WhRefresh *refresh)
{
	const WhLoadedDay *day = refresh->day;
	Oid			content = OidIsValid(day->transient) ? day->transient : day->relid;
	WhArg		args[] = {
		DAY_ARGS(refresh),
		WH_TEXT(refresh->tenant->name), WH_TEXT(refresh->relname), WH_OID(day->relid),
		WH_OID(wh_load_file(content)), WH_INT8(day->rows), WH_INT8(wh_load_bytes(content)),
		WH_TSTZ(refresh->fetch_started_at), WH_INT4(refresh->tmpl->version),
		wh_arg_nullable(INT8OID, Int64GetDatum(refresh->job_id), refresh->job_id == 0),
		WH_BOOL(refresh->is_new), WH_TEXT(refresh->tmpl->indexes), WH_TEXT(refresh->suspicion),
		WH_TEXT(refresh->probe_result), WH_TEXT(refresh->probe_md5)
	};

	wh_query("INSERT INTO _wh.day_loads AS d"
			 " (template_name, target_schema, target_date, tenant_name, relation, relation_oid,"
			 "  relation_file, state, rows, bytes, loaded_at, fetch_started_at, template_version,"
			 "  job_id, indexes_md5, last_error, counted, probe_result, probe_md5)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7,"
			 "  CASE WHEN $15::text IS NULL THEN 'loaded' ELSE 'suspect' END, $8, $9,"
			 "  pg_catalog.clock_timestamp(), $10, $11, $12, pg_catalog.md5($14), $15, false, $16, $17)"
			 " ON CONFLICT (template_name, target_schema, target_date) DO UPDATE SET"
			 "  tenant_name = excluded.tenant_name, relation = excluded.relation,"
			 "  relation_oid = excluded.relation_oid, relation_file = excluded.relation_file,"
			 "  state = CASE WHEN excluded.state = 'loaded' AND d.in_views AND NOT $13"
			 "    THEN 'published' ELSE excluded.state END,"
			 "  in_views = d.in_views AND NOT $13, counted = false,"
			 "  rows = excluded.rows, bytes = excluded.bytes, loaded_at = excluded.loaded_at,"
			 "  fetch_started_at = excluded.fetch_started_at,"
			 "  template_version = excluded.template_version, job_id = excluded.job_id,"
			 "  indexes_md5 = excluded.indexes_md5, probe_result = excluded.probe_result,"
			 "  probe_md5 = excluded.probe_md5, checked_at = NULL,"
			 "  failed_at = NULL, last_error = excluded.last_error"
			 " RETURNING d.rows",
			 lengthof(args), args);
	return wh_get_int8(0, 1);
}

/*
 * Whatever is in the views there, it is too: they read the table.  The bytes of
 * the others are what they were.
 */
void
wh_ledger_write_late(const WhRefresh *refresh)
{
	Oid			relid = refresh->day->relid;
	WhArg		args[] = {
		DAY_ARGS(refresh),
		WH_TEXT(refresh->tenant->name), WH_TEXT(refresh->late->relname), WH_OID(relid),
		WH_OID(wh_load_file(relid)), WH_INT8(refresh->day->rows), WH_INT8(wh_load_bytes(relid)),
		WH_TSTZ(refresh->fetch_started_at), WH_INT4(refresh->tmpl->version),
		wh_arg_nullable(INT8OID, Int64GetDatum(refresh->job_id), refresh->job_id == 0),
		WH_TEXT(refresh->tmpl->indexes), WH_TEXT(refresh->suspicion),
		WH_TEXT(refresh->probe_result), WH_TEXT(refresh->probe_md5)
	};

	wh_query("INSERT INTO _wh.day_loads AS d"
			 " (template_name, target_schema, target_date, tenant_name, relation, relation_oid,"
			 "  relation_file, state, rows, bytes, loaded_at, fetch_started_at, template_version,"
			 "  job_id, indexes_md5, last_error, in_views, counted, probe_result, probe_md5)"
			 " SELECT $1, $2, $3, $4, $5, $6, $7,"
			 "  CASE WHEN $14::text IS NULL THEN 'combined' ELSE 'suspect' END, $8,"
			 "  CASE WHEN o.rows + $8 = 0 THEN $9 / (o.days + 1)"
			 "    ELSE pg_catalog.round($9::pg_catalog.numeric * $8 / (o.rows + $8))::pg_catalog.int8 END,"
			 "  pg_catalog.clock_timestamp(), $10, $11, $12, pg_catalog.md5($13), $14, o.in_views, false,"
			 "  $15, $16"
			 "  FROM (SELECT coalesce(pg_catalog.sum(c.rows), 0) AS rows, pg_catalog.count(*) AS days,"
			 "               coalesce(pg_catalog.bool_or(c.in_views), false) AS in_views"
			 "          FROM _wh.day_loads c WHERE c.relation_oid = $6"
			 "           AND (c.template_name, c.target_schema, c.target_date) <> ($1, $2, $3)) o"
			 " ON CONFLICT (template_name, target_schema, target_date) DO UPDATE SET"
			 "  tenant_name = excluded.tenant_name, relation = excluded.relation,"
			 "  relation_oid = excluded.relation_oid, relation_file = excluded.relation_file,"
			 "  state = excluded.state, in_views = excluded.in_views OR d.in_views, counted = false,"
			 "  rows = excluded.rows, bytes = excluded.bytes, loaded_at = excluded.loaded_at,"
			 "  fetch_started_at = excluded.fetch_started_at,"
			 "  template_version = excluded.template_version, job_id = excluded.job_id,"
			 "  indexes_md5 = excluded.indexes_md5, probe_result = excluded.probe_result,"
			 "  probe_md5 = excluded.probe_md5, checked_at = NULL,"
			 "  failed_at = NULL, last_error = excluded.last_error",
			 lengthof(args), args);
}

void
wh_ledger_remade(const WhTemplate *tmpl, Oid old_relid, Oid new_relid)
{
	WhArg		args[] = {
		WH_OID(old_relid), WH_OID(new_relid), WH_OID(wh_load_file(new_relid)),
		WH_INT8(wh_load_bytes(new_relid)), WH_TEXT(tmpl->indexes)
	};

	wh_query("UPDATE _wh.day_loads d"
			 "   SET relation_oid = $2, relation_file = $3, counted = false,"
			 "       indexes_md5 = pg_catalog.md5($5),"
			 "       bytes = CASE WHEN o.rows = 0 THEN $4 / o.days"
			 "         ELSE pg_catalog.round($4::pg_catalog.numeric * d.rows / o.rows)::pg_catalog.int8 END"
			 "  FROM (SELECT pg_catalog.sum(c.rows) AS rows, pg_catalog.count(*) AS days"
			 "          FROM _wh.day_loads c WHERE c.relation_oid = $1) o"
			 " WHERE d.relation_oid = $1", lengthof(args), args);
}

void
wh_ledger_keep(const WhRefresh *refresh)
{
	WhArg		args[] = {DAY_ARGS(refresh), WH_TEXT(refresh->suspicion)};

	wh_query("UPDATE _wh.day_loads SET state = 'suspect', failed_at = NULL, last_error = $4"
			 " WHERE template_name = $1 AND target_schema = $2 AND target_date = $3",
			 lengthof(args), args);
}

bool
wh_ledger_confirm(const WhRefresh *refresh, Oid relation_oid)
{
	WhArg		args[] = {DAY_ARGS(refresh), WH_TSTZ(refresh->fetch_started_at)};
	bool		is_published;

	if (relation_oid != refresh->day->relid)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("relation \"%s.%s\" was dropped or replaced at the same time",
						refresh->schema, refresh->relname)));
	wh_query("UPDATE _wh.day_loads SET checked_at = $4, failed_at = NULL,"
			 "  last_error = CASE WHEN failed_at IS NULL THEN last_error END"
			 " WHERE template_name = $1 AND target_schema = $2 AND target_date = $3"
			 " RETURNING in_views AND counted", lengthof(args), args);
	is_published = wh_get_bool(0, 1);
	wh_publish_checked(refresh->tmpl->name, refresh->schema, refresh->fetch_started_at);
	return is_published;
}

void
wh_ledger_failed(const char *template_name, const char *tenant_name,
				 const char *schema, DateADT date, int64 job_id, const char *message)
{
	WhArg		args[] = {
		WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(date), WH_TEXT(tenant_name),
		WH_TEXT(wh_template_day_name(template_name, date)),
		wh_arg_nullable(INT8OID, Int64GetDatum(job_id), job_id == 0),
		WH_TEXT(message)
	};

	wh_query("INSERT INTO _wh.day_loads AS d"
			 " (template_name, target_schema, target_date, tenant_name, relation, state,"
			 "  job_id, failed_at, last_error)"
			 " VALUES ($1, $2, $3, $4, $5, 'failed', $6, pg_catalog.clock_timestamp(), $7)"
			 " ON CONFLICT (template_name, target_schema, target_date) DO UPDATE SET"
			 "  failed_at = excluded.failed_at, last_error = excluded.last_error",
			 lengthof(args), args);
	/* a call that runs at once keeps its locks for as long as its caller likes, and tells him */
	if (job_id != 0)
		wh_freshness_failed(template_name, schema, date);
}
