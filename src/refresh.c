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
 * Locks, in this order: the job row (the caller's); the advisory lock of the
 * day; what load.c says; in wh_refresh_finish() the ledger row before the
 * strong lock on the day relation, which comes last of all.
 */
#include "postgres.h"

#include "access/tupdesc.h"
#include "catalog/namespace.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "fetch_day.h"
#include "load.h"
#include "publish.h"
#include "refresh.h"
#include "sqlutil.h"
#include "wh_worker.h"

/* The relation that the ledger has for the day, or InvalidOid. */
static Oid
read_known_relation(const WhRefresh *refresh)
{
	WhArg		args[] = {WH_TEXT(refresh->tmpl->name), WH_TEXT(refresh->schema), WH_DATE(refresh->date)};
	Oid			known = InvalidOid;

	wh_spi_begin();
	if (wh_query("SELECT relation_oid FROM _wh.day_loads"
				 " WHERE template_name = $1 AND target_schema = $2 AND target_date = $3",
				 lengthof(args), args) > 0)
		known = wh_get_oid(0, 1);
	wh_spi_end();
	return known;
}

/* What the materialized view is defined as: it names no query and no host. */
static char *
day_definition(const WhRefresh *refresh)
{
	return psprintf("SELECT %s FROM _wh.fetch_day(%s::pg_catalog.text, %s::pg_catalog.text, %s::pg_catalog.date) AS t(%s)",
					wh_template_column_list(refresh->tmpl),
					quote_literal_cstr(refresh->tmpl->name),
					quote_literal_cstr(refresh->tenant->name),
					quote_literal_cstr(wh_date_text(refresh->date)),
					wh_template_column_definition_list(refresh->tmpl));
}

static void
fill_target(const WhRefresh *refresh, WhDayTarget *target)
{
	target->schema = refresh->schema;
	target->relname = refresh->relname;
	target->columns = refresh->tmpl->columns;
	target->definition = day_definition(refresh);
	target->indexes = wh_template_indexes(refresh->tmpl, refresh->schema, refresh->relname);
	target->known_oid = read_known_relation(refresh);
}

/* The part that waits for the tenant; its memory goes when it is done. */
static void
fetch_and_load(WhRefresh *refresh, WhRemote **remote)
{
	MemoryContext result_context = CurrentMemoryContext;
	MemoryContext work_context = AllocSetContextCreate(result_context, "wh_worker refresh",
													   ALLOCSET_DEFAULT_SIZES);
	WhDayTarget target;
	WhDayStream *stream;

	MemoryContextSwitchTo(work_context);
	fill_target(refresh, &target);
	wh_day_connect(refresh->tmpl, refresh->tenant, refresh->date, remote);
	refresh->fetch_started_at = GetCurrentTimestamp();
	stream = wh_day_open(refresh->tmpl, refresh->date, *remote);

	MemoryContextSwitchTo(result_context);
	refresh->day = wh_load_day(&target, wh_day_next, stream);
	refresh->bytes_received = wh_day_close(stream, refresh->day->rows);
	MemoryContextDelete(work_context);
}

WhRefresh *
wh_refresh_fetch(const char *template_name, const char *tenant_name,
				 const char *schema, DateADT date, int64 job_id,
				 WhRemote **remote)
{
	WhRefresh  *refresh = palloc0(sizeof(WhRefresh));

	refresh->tmpl = wh_template_read(template_name);
	refresh->tenant = wh_tenant_read(tenant_name);
	refresh->schema = pstrdup(schema);
	refresh->relname = wh_template_day_name(template_name, date);
	refresh->date = date;
	refresh->job_id = job_id;

	/* somebody may have dropped it since the subscription was made */
	if (!OidIsValid(get_namespace_oid(schema, true)))
		wh_publish_schema(schema);
	wh_load_lock(refresh->schema, refresh->relname);
	fetch_and_load(refresh, remote);
	return refresh;
}

/*
 * The tenant may have been removed while its rows came in; from here on its
 * removal waits for us.
 */
static void
check_subscription(const WhRefresh *refresh)
{
	WhArg		args[] = {WH_TEXT(refresh->tenant->name), WH_TEXT(refresh->tmpl->name), WH_TEXT(refresh->schema)};

	if (wh_query("SELECT FROM _wh.tenant_templates"
				 " WHERE tenant_name = $1 AND template_name = $2 AND target_schema = $3"
				 " FOR KEY SHARE", lengthof(args), args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("tenant \"%s\" no longer feeds template \"%s\" into schema \"%s\"",
						refresh->tenant->name, refresh->tmpl->name, refresh->schema)));
}

/* The ledger row, locked; a day that is new to the ledger has none. */
static void
lock_ledger_row(const WhRefresh *refresh)
{
	WhArg		args[] = {WH_TEXT(refresh->tmpl->name), WH_TEXT(refresh->schema), WH_DATE(refresh->date)};

	wh_query("SELECT FROM _wh.day_loads"
			 " WHERE template_name = $1 AND target_schema = $2 AND target_date = $3"
			 " FOR NO KEY UPDATE",
			 lengthof(args), args);
}

static int64
write_ledger(const WhRefresh *refresh)
{
	const WhLoadedDay *day = refresh->day;
	WhArg		args[] = {
		WH_TEXT(refresh->tmpl->name), WH_TEXT(refresh->schema), WH_DATE(refresh->date),
		WH_TEXT(refresh->tenant->name), WH_TEXT(refresh->relname), WH_OID(day->relid),
		WH_OID(wh_load_file(day->relid)), WH_INT8(day->rows), WH_INT8(wh_load_bytes(day->relid)),
		WH_TSTZ(refresh->fetch_started_at), WH_INT4(refresh->tmpl->version),
		wh_arg_nullable(INT8OID, Int64GetDatum(refresh->job_id), refresh->job_id == 0),
		WH_BOOL(day->created)
	};

	wh_query("INSERT INTO _wh.day_loads AS d"
			 " (template_name, target_schema, target_date, tenant_name, relation, relation_oid,"
			 "  relation_file, state, rows, bytes, loaded_at, fetch_started_at, template_version, job_id)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7, 'loaded', $8, $9,"
			 "  pg_catalog.clock_timestamp(), $10, $11, $12)"
			 " ON CONFLICT (template_name, target_schema, target_date) DO UPDATE SET"
			 "  tenant_name = excluded.tenant_name, relation = excluded.relation,"
			 "  relation_oid = excluded.relation_oid, relation_file = excluded.relation_file,"
			 "  state = CASE WHEN d.state = 'published' AND NOT $13 THEN 'published' ELSE 'loaded' END,"
			 "  rows = excluded.rows, bytes = excluded.bytes, loaded_at = excluded.loaded_at,"
			 "  fetch_started_at = excluded.fetch_started_at,"
			 "  template_version = excluded.template_version, job_id = excluded.job_id,"
			 "  failed_at = NULL, last_error = NULL"
			 " RETURNING d.rows",
			 lengthof(args), args);
	return wh_get_int8(0, 1);
}

void
wh_refresh_finish(WhRefresh *refresh)
{
	int64		rows;

	wh_spi_begin();
	check_subscription(refresh);
	lock_ledger_row(refresh);
	wh_load_swap(refresh->day);
	if (refresh->day->created)
		wh_publish_grant(refresh->schema, refresh->relname);
	rows = write_ledger(refresh);
	wh_spi_end();

	if (rows != refresh->day->rows)
		elog(ERROR, "ledger has " INT64_FORMAT " rows of " INT64_FORMAT, rows, refresh->day->rows);	/* cannot happen */
}

void
wh_refresh_failed(const char *template_name, const char *tenant_name,
				  const char *schema, DateADT date, int64 job_id,
				  const char *message)
{
	WhArg		args[] = {
		WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(date), WH_TEXT(tenant_name),
		WH_TEXT(wh_template_day_name(template_name, date)),
		wh_arg_nullable(INT8OID, Int64GetDatum(job_id), job_id == 0),
		WH_TEXT(message)
	};

	wh_spi_begin();
	wh_query("INSERT INTO _wh.day_loads AS d"
			 " (template_name, target_schema, target_date, tenant_name, relation, state,"
			 "  job_id, failed_at, last_error)"
			 " VALUES ($1, $2, $3, $4, $5, 'failed', $6, pg_catalog.clock_timestamp(), $7)"
			 " ON CONFLICT (template_name, target_schema, target_date) DO UPDATE SET"
			 "  failed_at = excluded.failed_at, last_error = excluded.last_error",
			 lengthof(args), args);
	wh_spi_end();
}
