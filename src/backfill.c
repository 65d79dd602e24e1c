/*
 * backfill.c: enqueue_backfill and its kin, and the end of a backfill.
 *
 * The SQL functions run in the caller's transaction as admin_role; the
 * launcher is told when that commits.  wh_backfill_attend() is the launcher's:
 * a backfill ends only when none of its jobs is left, every day it loaded is
 * in the views, and the backfills that had queued some of its days before it
 * have ended too.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "audit.h"
#include "backfill.h"
#include "clock.h"
#include "event.h"
#include "log_event.h"
#include "queue.h"
#include "sqlutil.h"
#include "status.h"
#include "subscribe.h"
#include "there.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_enqueue_backfill);
PG_FUNCTION_INFO_V1(wh_sql_plan_backfill);
PG_FUNCTION_INFO_V1(wh_sql_cancel_backfill);
PG_FUNCTION_INFO_V1(wh_sql_cancel_job);
PG_FUNCTION_INFO_V1(wh_sql_retry_failed);

/*
 * The days of a window that a mode asks for, and why.  $1 template, $2 tenant
 * or NULL, $3 schema or NULL, $4 and $5 first and last day, $6 mode, $7 the
 * schema of a tenant that is not subscribed yet.
 */
#define DAYS_SQL \
"WITH subscription AS (" \
"  SELECT s.tenant_name, s.target_schema FROM _wh.tenant_templates s" \
"   WHERE s.template_name = $1 AND ($3::text IS NULL OR s.target_schema = $3)" \
"     AND CASE WHEN $2::text IS NULL" \
"         THEN s.active AND EXISTS (SELECT FROM _wh.tenant_connections c" \
"              WHERE c.tenant_name = s.tenant_name AND c.active)" \
"         ELSE s.tenant_name = $2 END" \
"  UNION ALL" \
"  SELECT $2::text, $7::text WHERE $2 IS NOT NULL AND NOT EXISTS (SELECT" \
"    FROM _wh.tenant_templates s WHERE s.template_name = $1 AND s.tenant_name = $2" \
"     AND ($3 IS NULL OR s.target_schema = $3)))," \
" wanted AS (" \
"  SELECT s.tenant_name, s.target_schema, d.target_date::date AS target_date," \
"    CASE WHEN l.target_date IS NULL OR (l.relation_oid IS NOT NULL AND r.oid IS NULL) THEN 'missing'" \
"         WHEN l.failed_at IS NOT NULL THEN 'failed'" \
"         WHEN l.relation_oid IS NULL THEN l.state" \
"         WHEN l.template_version < t.version THEN 'outdated'" \
"         WHEN l.state = 'suspect' THEN 'suspect'" \
"         ELSE 'loaded' END AS reason," \
"    r.oid IS NOT NULL AS has_content" \
"  FROM subscription s" \
"  JOIN _wh.mv_templates t ON t.template_name = $1" \
"  CROSS JOIN generate_series($4::timestamp, $5::timestamp, interval '1 day') AS d(target_date)" \
"  LEFT JOIN _wh.day_loads l ON l.template_name = $1" \
"    AND l.target_schema = s.target_schema AND l.target_date = d.target_date::date" \
"  LEFT JOIN (pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace)" \
"    ON r.oid = l.relation_oid AND r.relname = l.relation AND n.nspname = l.target_schema AND r.relispopulated)," \
" day AS (" \
"  SELECT tenant_name, target_schema, target_date, reason FROM wanted" \
"   WHERE CASE $6 WHEN 'missing' THEN NOT has_content" \
"                 WHEN 'failed' THEN reason = 'failed'" \
"                 WHEN 'outdated' THEN reason = 'outdated'" \
"                 ELSE true END)"

typedef struct BackfillRequest
{
	char	   *template_name;
	char	   *tenant_name;	/* NULL: every active tenant */
	char	   *target_schema;	/* NULL: as subscribed */
	char	   *default_schema; /* for a tenant that is not subscribed */
	DateADT		start_date;
	DateADT		end_date;
	char	   *mode;
	bool		newest_first;
} BackfillRequest;

#define REQUEST_ARGS(request) \
	WH_TEXT((request)->template_name), WH_TEXT((request)->tenant_name), \
	WH_TEXT((request)->target_schema), WH_DATE((request)->start_date), \
	WH_DATE((request)->end_date), WH_TEXT((request)->mode), \
	WH_TEXT((request)->default_schema)

static void
bad_argument(const char *message, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", message),
			 errhint("%s", hint)));
}

static void
check_window(DateADT start_date, DateADT end_date)
{
	if (DATE_NOT_FINITE(start_date) || DATE_NOT_FINITE(end_date))
		bad_argument("a window of days must have finite ends", "Give two dates.");
	if (start_date > end_date)
		bad_argument("start_date must not be after end_date",
					 "Both ends of the window are included.");
	if (end_date > wh_clock_today() + 1)
		bad_argument("a window of days must not end in the future",
					 "The last day that can be asked for is the one after today (UTC).");
}

static void
require_row(const char *sql, const char *what, const char *name)
{
	WhArg		args[] = {WH_TEXT(name)};

	if (wh_query_once(sql, 1, args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("%s \"%s\" does not exist", what, name)));
}

/* SPI is connected. */
static void
check_request(BackfillRequest *request)
{
	require_row("SELECT FROM _wh.mv_templates WHERE template_name = $1",
				"template", request->template_name);
	if (request->tenant_name != NULL)
		require_row("SELECT FROM _wh.tenant_connections WHERE tenant_name = $1",
					"tenant", request->tenant_name);
	check_window(request->start_date, request->end_date);
	if (strcmp(request->mode, "missing") != 0 && strcmp(request->mode, "failed") != 0 &&
		strcmp(request->mode, "outdated") != 0 && strcmp(request->mode, "all") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unrecognized backfill mode \"%s\"", request->mode),
				 errhint("The modes are \"missing\", \"failed\", \"outdated\" and \"all\".")));
}

static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static BackfillRequest *
read_request(FunctionCallInfo fcinfo)
{
	BackfillRequest *request = palloc0(sizeof(BackfillRequest));

	if (PG_ARGISNULL(0) || PG_ARGISNULL(2) || PG_ARGISNULL(3) ||
		PG_ARGISNULL(5) || PG_ARGISNULL(6))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("only tenant_name and target_schema may be null")));
	request->template_name = text_arg(fcinfo, 0);
	request->tenant_name = text_arg(fcinfo, 1);
	request->start_date = PG_GETARG_DATEADT(2);
	request->end_date = PG_GETARG_DATEADT(3);
	request->target_schema = text_arg(fcinfo, 4);
	request->mode = text_arg(fcinfo, 5);
	request->newest_first = PG_GETARG_BOOL(6);
	return request;
}

static void
set_default_schema(BackfillRequest *request)
{
	if (request->tenant_name != NULL)
		request->default_schema = request->target_schema ? request->target_schema :
			wh_subscribe_default_schema(request->template_name, request->tenant_name);
}

/* ---- enqueue and plan ---- */

static int64
insert_backfill(const BackfillRequest *request)
{
	WhArg		args[] = {
		WH_TEXT(request->template_name), WH_TEXT(request->tenant_name),
		WH_TEXT(request->target_schema), WH_DATE(request->start_date),
		WH_DATE(request->end_date), WH_TEXT(request->mode),
		WH_BOOL(request->newest_first)
	};

	wh_query("INSERT INTO _wh.backfills (template_name, tenant_name, target_schema,"
			 " start_date, end_date, mode, newest_first)"
			 " VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING backfill_id",
			 lengthof(args), args);
	return wh_get_int8(0, 1);
}

/* A person waits for a single day; many are what nobody watches. */
static int32
priority_of(const BackfillRequest *request)
{
	return request->tenant_name != NULL && request->start_date == request->end_date ?
		WH_PRIORITY_INTERACTIVE : WH_PRIORITY_BACKFILL;
}

/* Returns the days planned; *inserted those that were not pending already. */
static int64
insert_jobs(const BackfillRequest *request, int64 backfill_id, int64 *inserted)
{
	WhArg		args[] = {
		REQUEST_ARGS(request), WH_INT8(backfill_id),
		WH_BOOL(request->newest_first), WH_INT4(priority_of(request))
	};
	int64		planned;

	wh_query(DAYS_SQL ", made AS ("
			 " INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema,"
			 "   target_date, backfill_id, priority, sequence_number)"
			 " SELECT 'refresh', $1, tenant_name, target_schema, target_date, $8, $10,"
			 "   CASE WHEN $9 THEN $5 - target_date ELSE target_date - $4 END"
			 "   FROM day ORDER BY target_schema, target_date"
			 " ON CONFLICT DO NOTHING RETURNING job_id)"
			 " SELECT (SELECT count(*) FROM day), count(*), min(job_id), max(job_id) FROM made",
			 lengthof(args), args);
	planned = wh_get_int8(0, 1);
	*inserted = wh_get_int8(0, 2);
	if (*inserted > 0)
		wh_notify_jobs_on_commit(wh_get_int8(0, 3), wh_get_int8(0, 4));
	return planned;
}

/*
 * The single day for which a person waits leaves the backfill that has queued
 * it, which may be paused or take hours; that one then ends after this one.
 */
static int64
take_from_backfills(const BackfillRequest *request, int64 backfill_id)
{
	WhArg		args[] = {REQUEST_ARGS(request), WH_INT8(backfill_id), WH_INT4(WH_PRIORITY_INTERACTIVE)};

	wh_query(DAYS_SQL ", taken AS ("
			 " SELECT j.job_id, j.backfill_id FROM day"
			 "  JOIN _wh.jobs j ON j.template_name = $1 AND j.kind = 'refresh' AND j.state = 'queued'"
			 "   AND j.target_schema = day.target_schema AND j.target_date = day.target_date"
			 " WHERE j.backfill_id <> $8 FOR NO KEY UPDATE OF j),"
			 " moved AS (UPDATE _wh.jobs j SET backfill_id = $8, priority = least(j.priority, $9)"
			 "  FROM taken t WHERE j.job_id = t.job_id),"
			 " told AS (UPDATE _wh.backfills b SET days_total = b.days_total - t.days,"
			 "   waits_for = b.waits_for || $8"
			 "  FROM (SELECT backfill_id, count(*) AS days FROM taken GROUP BY 1) t"
			 "  WHERE b.backfill_id = t.backfill_id)"
			 " SELECT count(*) FROM taken", lengthof(args), args);
	if (wh_get_int8(0, 1) > 0)
		wh_notify_config_on_commit();
	return wh_get_int8(0, 1);
}

/*
 * A day that is pending already is not queued twice.  What a schedule made
 * belongs to this backfill from now on, so that it does not end before; and
 * nothing waits in a lower class than it would have here.  Returns how many it
 * took over.
 */
static int64
take_over_jobs(const BackfillRequest *request, int64 backfill_id)
{
	WhArg		args[] = {
		REQUEST_ARGS(request), WH_INT8(backfill_id), WH_INT4(priority_of(request))
	};

	wh_query(DAYS_SQL ", taken AS ("
			 " UPDATE _wh.jobs j SET backfill_id = coalesce(j.backfill_id, $8),"
			 "   priority = CASE j.state WHEN 'queued' THEN least(j.priority, $9) ELSE j.priority END"
			 "  FROM day WHERE j.template_name = $1 AND j.kind = 'refresh'"
			 "   AND j.state IN ('queued', 'running')"
			 "   AND j.target_schema = day.target_schema AND j.target_date = day.target_date"
			 "   AND (j.backfill_id IS NULL"
			 "    OR (j.backfill_id <> $8 AND j.state = 'queued' AND j.priority > $9))"
			 " RETURNING j.job_id, j.backfill_id, j.state)"
			 " SELECT count(*), min(job_id), max(job_id), count(*) FILTER (WHERE backfill_id = $8),"
			 "  count(*) FILTER (WHERE state = 'running')"
			 " FROM taken", lengthof(args), args);
	if (wh_get_int8(0, 1) > 0)
		wh_notify_jobs_on_commit(wh_get_int8(0, 2), wh_get_int8(0, 3));
	/* From a job that runs already the launcher would not learn of the backfill. */
	if (wh_get_int8(0, 5) > 0)
		wh_notify_config_on_commit();
	return wh_get_int8(0, 4);
}

/*
 * Days that another backfill has queued already are not queued twice; this
 * one then ends after that one.
 */
static void
note_shared_days(const BackfillRequest *request, int64 backfill_id)
{
	WhArg		args[] = {REQUEST_ARGS(request), WH_INT8(backfill_id)};

	wh_query(DAYS_SQL " UPDATE _wh.backfills SET waits_for = (SELECT"
			 " coalesce(array_agg(DISTINCT j.backfill_id), '{}') FROM day"
			 " JOIN _wh.jobs j ON j.template_name = $1 AND j.kind = 'refresh'"
			 "  AND j.state IN ('queued', 'running')"
			 "  AND j.target_schema = day.target_schema AND j.target_date = day.target_date"
			 " WHERE j.backfill_id <> $8) WHERE backfill_id = $8", lengthof(args), args);
}

static void
finish_enqueue(int64 backfill_id, int64 days)
{
	WhArg		args[] = {WH_INT8(backfill_id), WH_INT8(days)};

	wh_query("UPDATE _wh.backfills SET days_total = $2,"
			 " state = CASE WHEN $2 = 0 AND waits_for = '{}' THEN 'succeeded' ELSE 'running' END,"
			 " finished_at = CASE WHEN $2 = 0 AND waits_for = '{}' THEN clock_timestamp() END"
			 " WHERE backfill_id = $1 RETURNING state = 'succeeded'", lengthof(args), args);
	/* Without a job of its own the launcher would not learn of it. */
	if (days == 0)
		wh_notify_config_on_commit();
	if (wh_get_bool(0, 1))
		wh_event_backfill(backfill_id, "succeeded");
}

/*
 * A tenant that is named and does not feed the template yet (or not into the
 * schema that is named) is subscribed.  Without a name there must be one.
 */
static void
ensure_subscription(const BackfillRequest *request)
{
	WhArg		args[] = {WH_TEXT(request->template_name), WH_TEXT(request->tenant_name)};
	bool		any;

	any = wh_query("SELECT FROM _wh.tenant_templates s JOIN _wh.tenant_connections c"
				   " USING (tenant_name) WHERE s.template_name = $1"
				   " AND CASE WHEN $2::text IS NULL THEN s.active AND c.active"
				   "     ELSE s.tenant_name = $2 END LIMIT 1", lengthof(args), args) > 0;
	if (request->tenant_name == NULL && !any)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no active tenant subscribes to template \"%s\"",
						request->template_name),
				 errhint("Call _wh.subscribe(), or name the tenant.")));
	if (request->tenant_name != NULL && (request->target_schema != NULL || !any))
		wh_subscribe_if_missing(request->template_name, request->tenant_name,
								request->default_schema, wh_clock_today());
}

static int64
enqueue(BackfillRequest *request)
{
	int64		backfill_id;
	int64		planned;
	int64		inserted;

	check_request(request);
	set_default_schema(request);
	ensure_subscription(request);
	backfill_id = insert_backfill(request);
	planned = insert_jobs(request, backfill_id, &inserted);
	if (inserted < planned)
	{
		if (priority_of(request) == WH_PRIORITY_INTERACTIVE)
			inserted += take_from_backfills(request, backfill_id);
		inserted += take_over_jobs(request, backfill_id);
		note_shared_days(request, backfill_id);
	}
	finish_enqueue(backfill_id, inserted);
	return backfill_id;
}

Datum
wh_sql_enqueue_backfill(PG_FUNCTION_ARGS)
{
	BackfillRequest *request;
	int64		backfill_id;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	request = read_request(fcinfo);
	wh_spi_begin();
	backfill_id = enqueue(request);
	wh_spi_end();
	PG_RETURN_INT64(backfill_id);
}

Datum
wh_sql_plan_backfill(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	BackfillRequest *request;
	uint64		n;

	wh_require_preloaded();
	request = read_request(fcinfo);
	InitMaterializedSRF(fcinfo, 0);
	wh_spi_begin();
	check_request(request);
	set_default_schema(request);
	{
		WhArg		args[] = {REQUEST_ARGS(request), WH_BOOL(request->newest_first)};

		n = wh_query(DAYS_SQL " SELECT tenant_name, target_schema, target_date,"
					 " CASE WHEN EXISTS (SELECT FROM _wh.jobs j WHERE j.template_name = $1"
					 "   AND j.kind = 'refresh' AND j.state IN ('queued', 'running')"
					 "   AND j.target_schema = day.target_schema AND j.target_date = day.target_date)"
					 "  THEN reason || ', already queued' ELSE reason END"
					 " FROM day ORDER BY CASE WHEN $8 THEN $5 - target_date"
					 "  ELSE target_date - $4 END, tenant_name", lengthof(args), args);
	}
	for (uint64 i = 0; i < n; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	wh_spi_end();
	PG_RETURN_NULL();
}

/* ---- cancel and retry ---- */

static void
require_backfill(int64 backfill_id)
{
	WhArg		args[] = {WH_INT8(backfill_id)};

	if (wh_query("SELECT FROM _wh.backfills WHERE backfill_id = $1 FOR UPDATE", 1, args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("backfill " INT64_FORMAT " does not exist", backfill_id)));
}

/* Signals the workers of the jobs that the last query returned; how many. */
static int64
cancel_returned_jobs(uint64 n)
{
	int64	   *ids = palloc(sizeof(int64) * (n + 1));
	int64		touched = 0;

	for (uint64 i = 0; i < n; i++)
		ids[i] = wh_get_int8(i, 1);
	for (uint64 i = 0; i < n; i++)
		if (wh_status_cancel_running(ids[i]))
			touched++;
	return touched;
}

/* Its publish job stays: what is loaded is to be published. */
static int64
cancel_queued(int64 backfill_id)
{
	WhArg		args[] = {WH_INT8(backfill_id)};

	return (int64) wh_query("UPDATE _wh.jobs SET state = 'cancelled',"
							" finished_at = clock_timestamp() WHERE backfill_id = $1"
							" AND kind = 'refresh' AND state = 'queued'", 1, args);
}

Datum
wh_sql_cancel_backfill(PG_FUNCTION_ARGS)
{
	int64		backfill_id = PG_GETARG_INT64(0);
	WhArg		args[] = {WH_INT8(backfill_id)};
	int64		touched;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	wh_spi_begin();
	require_backfill(backfill_id);
	wh_query("UPDATE _wh.backfills SET cancel_requested = true, paused = false"
			 " WHERE backfill_id = $1 AND state = 'running'", 1, args);
	touched = cancel_queued(backfill_id);
	touched += cancel_returned_jobs(wh_query("SELECT job_id FROM _wh.jobs"
											 " WHERE backfill_id = $1 AND state = 'running'"
											 " AND kind = 'refresh'", 1, args));
	wh_notify_config_on_commit();
	wh_spi_end();
	PG_RETURN_INT64(touched);
}

Datum
wh_sql_cancel_job(PG_FUNCTION_ARGS)
{
	int64		job_id = PG_GETARG_INT64(0);
	WhArg		args[] = {WH_INT8(job_id)};
	int64		touched;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	wh_spi_begin();
	if (wh_query("SELECT FROM _wh.jobs WHERE job_id = $1", 1, args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("job " INT64_FORMAT " does not exist", job_id)));
	touched = (int64) wh_query("UPDATE _wh.jobs SET state = 'cancelled',"
							   " finished_at = clock_timestamp()"
							   " WHERE job_id = $1 AND state = 'queued'", 1, args);
	if (touched == 0)
		touched = cancel_returned_jobs(wh_query("SELECT job_id FROM _wh.jobs"
												" WHERE job_id = $1 AND state = 'running'",
												1, args));
	wh_notify_config_on_commit();
	wh_spi_end();
	PG_RETURN_INT64(touched);
}

Datum
wh_sql_retry_failed(PG_FUNCTION_ARGS)
{
	int64		backfill_id = PG_GETARG_INT64(0);
	WhArg		args[] = {WH_INT8(backfill_id)};
	int64		touched;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	wh_spi_begin();
	require_backfill(backfill_id);
	touched = (int64) wh_query("UPDATE _wh.jobs j SET state = 'queued', attempt = 0,"
							   " not_before = '-infinity', finished_at = NULL"
							   " WHERE backfill_id = $1 AND state = 'failed'"
							   " AND (kind = 'refresh' OR job_id = (SELECT max(l.job_id)"
							   "  FROM _wh.jobs l WHERE l.backfill_id = $1 AND l.kind = 'publish'))"
							   " AND NOT EXISTS (SELECT FROM _wh.jobs p"
							   "  WHERE p.kind = j.kind AND p.template_name = j.template_name"
							   "  AND p.target_schema IS NOT DISTINCT FROM j.target_schema"
							   "  AND p.target_date IS NOT DISTINCT FROM j.target_date"
							   "  AND p.state IN ('queued', 'running'))", 1, args);
	if (touched > 0)
		wh_query("UPDATE _wh.backfills SET state = 'running', finished_at = NULL,"
				 " last_error = NULL, cancel_requested = false WHERE backfill_id = $1", 1, args);
	wh_notify_config_on_commit();
	wh_spi_end();
	PG_RETURN_INT64(touched);
}

/* ---- the end of a backfill, for the launcher ---- */

typedef struct BackfillState
{
	char	   *template_name;
	bool		cancel_requested;
	bool		pending_jobs;
	bool		pending_publish;
	char	   *publish_error;	/* of a failed publish job of this backfill */
	bool		unpublished;
	bool		waits;
	bool		shared_failed;
	int64		failed;
	int64		cancelled;
} BackfillState;

static bool
exists_row(const char *sql, const WhArg *arg)
{
	return wh_query(sql, 1, arg) > 0;
}

/* The days that backfill $1 loaded and that are there, but not yet published. */
#define UNPUBLISHED_SQL \
"_wh.day_loads d JOIN _wh.jobs j ON j.job_id = d.job_id" \
" WHERE j.backfill_id = $1 AND NOT d.counted AND " WH_DAY_IS_THERE

static void
read_publish_state(BackfillState *state, int64 backfill_id, MemoryContext cxt)
{
	WhArg		id[] = {WH_INT8(backfill_id)};
	WhArg		tmpl[] = {WH_TEXT(state->template_name)};

	state->unpublished = exists_row("SELECT FROM " UNPUBLISHED_SQL " LIMIT 1", id);
	state->pending_publish = exists_row("SELECT FROM _wh.jobs WHERE template_name = $1"
										" AND kind = 'publish' AND state IN ('queued', 'running')",
										tmpl);
	if (wh_query("SELECT coalesce(p.last_error, 'the publish job was cancelled') FROM _wh.jobs p"
				 " WHERE p.backfill_id = $1 AND p.kind = 'publish'"
				 " AND p.state IN ('failed', 'cancelled')"
				 " AND p.started_at > (SELECT max(d.loaded_at) FROM " UNPUBLISHED_SQL ")"
				 " ORDER BY p.job_id DESC LIMIT 1", 1, id) > 0)
		state->publish_error = wh_get_text(cxt, 0, 1);
}

static void
read_job_state(BackfillState *state, int64 backfill_id)
{
	WhArg		id[] = {WH_INT8(backfill_id)};

	wh_query("SELECT count(*) FILTER (WHERE state IN ('queued', 'running')),"
			 " count(*) FILTER (WHERE state = 'failed'),"
			 " count(*) FILTER (WHERE state = 'cancelled')"
			 " FROM _wh.jobs WHERE backfill_id = $1 AND kind = 'refresh'", 1, id);
	state->pending_jobs = wh_get_int8(0, 1) > 0;
	state->failed = wh_get_int8(0, 2);
	state->cancelled = wh_get_int8(0, 3);

	wh_query("SELECT coalesce(bool_or(o.state = 'running'), false),"
			 " coalesce(bool_or(o.state IN ('failed', 'cancelled')), false)"
			 " FROM _wh.backfills b JOIN _wh.backfills o ON o.backfill_id = ANY (b.waits_for)"
			 " WHERE b.backfill_id = $1", 1, id);
	state->waits = wh_get_bool(0, 1);
	state->shared_failed = wh_get_bool(0, 2);
}

static void
end_backfill(int64 backfill_id, const BackfillState *state)
{
	const char *outcome = "succeeded";
	const char *error = NULL;

	if (state->publish_error != NULL && state->unpublished)
		outcome = "failed", error = state->publish_error;
	else if (state->cancel_requested)
		outcome = "cancelled";
	else if (state->failed > 0)
		outcome = "failed", error = psprintf(INT64_FORMAT " day%s could not be loaded", state->failed,
											  state->failed == 1 ? "" : "s");
	else if (state->shared_failed)
		outcome = "failed", error = "a backfill that shares days with it did not succeed";
	else if (state->cancelled > 0)
		outcome = "cancelled";
	{
		WhArg		args[] = {WH_INT8(backfill_id), WH_TEXT(outcome), WH_TEXT(error)};

		if (wh_query("UPDATE _wh.backfills SET state = $2, last_error = $3,"
					 " finished_at = clock_timestamp() WHERE backfill_id = $1 AND state = 'running'",
					 lengthof(args), args) == 1)
		{
			wh_event_backfill(backfill_id, outcome);
			wh_log_backfill_ended(backfill_id, state->template_name, outcome, error);
		}
	}
}

/* Its row is held by somebody who pauses, cancels or retries it? */
static WhAttended
not_locked(const WhArg *id)
{
	return exists_row("SELECT FROM _wh.backfills WHERE backfill_id = $1 AND state = 'running'",
					  id) ? WH_ATTEND_AGAIN : WH_ATTEND_ENDED;
}

static WhAttended
attend(int64 backfill_id, bool outstanding, MemoryContext cxt)
{
	WhArg		id[] = {WH_INT8(backfill_id)};
	BackfillState state = {0};

	if (wh_query("SELECT template_name, cancel_requested FROM _wh.backfills"
				 " WHERE backfill_id = $1 AND state = 'running' FOR UPDATE SKIP LOCKED",
				 1, id) == 0)
		return not_locked(id);
	state.template_name = wh_get_text(cxt, 0, 1);
	state.cancel_requested = wh_get_bool(0, 2);

	/* Those that were running when it was cancelled, and came back for a retry. */
	if (state.cancel_requested)
		(void) cancel_queued(backfill_id);
	read_publish_state(&state, backfill_id, cxt);
	if (state.unpublished && !state.pending_publish && state.publish_error == NULL)
	{
		wh_queue_enqueue_publish(state.template_name, backfill_id);
		return WH_ATTEND_GOES_ON;
	}
	if ((outstanding && !state.cancel_requested) || state.pending_publish)
		return WH_ATTEND_GOES_ON;
	read_job_state(&state, backfill_id);
	if (state.pending_jobs || (state.waits && !state.cancel_requested))
		return WH_ATTEND_GOES_ON;
	end_backfill(backfill_id, &state);
	return WH_ATTEND_ENDED;
}

WhAttended
wh_backfill_attend(int64 backfill_id, bool outstanding)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhAttended	result;

	wh_spi_begin();
	result = attend(backfill_id, outstanding, cxt);
	wh_spi_end();
	return result;
}
