/*
 * convert_sql.c: _wh.convert_layout(), which queues what is to be moved.
 *
 * Called from SQL only, in the caller's transaction.  Changes the layout of the
 * template, whose trigger keeps the views right, and queues a job for each
 * relation that is not in that layout; convert.c runs them.  A layout that is
 * changed again while jobs are queued leaves them without a purpose: they are
 * cancelled, and what is in the wrong place by then is queued anew.
 *
 * May not move anything itself.  Locks, all politely: the row of the template,
 * the advisory locks of its views, the public view; rows of queued jobs.
 */
#include "postgres.h"

#include "caller.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "audit.h"
#include "politely.h"
#include "queue.h"
#include "sqlutil.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_convert_layout);

typedef struct Request
{
	const char *template_name;
	const char *layout;
	int64		relations;		/* that are not in that layout */
} Request;

static void
check_layout_name(const char *layout)
{
	if (strcmp(layout, "matviews") != 0 && strcmp(layout, "partitions") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no layout", layout),
				 errhint("Layouts are \"matviews\" and \"partitions\".")));
}

/* Whether it was another one. */
static bool
change_layout(const Request *request)
{
	WhArg		args[] = {WH_TEXT(request->template_name), WH_TEXT(request->layout)};

	return wh_query("UPDATE _wh.mv_templates SET layout = $2"
					" WHERE template_name = $1 AND layout <> $2", lengthof(args), args) > 0;
}

/* One that runs finds out, and tries again. */
static void
cancel_queued(const Request *request)
{
	WhArg		args[] = {WH_TEXT(request->template_name)};

	if (wh_query("UPDATE _wh.jobs SET state = 'cancelled', finished_at = pg_catalog.clock_timestamp(),"
				 "   last_error = 'the layout was changed again'"
				 " WHERE kind = 'convert' AND state = 'queued' AND template_name = $1",
				 lengthof(args), args) > 0)
		wh_notify_config_on_commit();
}

static void
queue_relations(Request *request)
{
	WhArg		args[] = {
		WH_TEXT(request->template_name), WH_TEXT(request->layout), WH_INT4(WH_PRIORITY_BACKFILL)
	};

	wh_query("WITH misplaced AS ("
			 "  SELECT s.tenant_name, s.target_schema, min(d.target_date) AS target_date"
			 "    FROM _wh.day_loads d"
			 "    JOIN _wh.tenant_templates s USING (template_name, target_schema)"
			 "    JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation"
			 "     AND c.relkind IN ('m', 'r') AND c.relispartition <> ($2 = 'partitions')"
			 "    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = d.target_schema"
			 "   WHERE d.template_name = $1"
			 "   GROUP BY s.tenant_name, s.target_schema, d.relation_oid), made AS ("
			 " INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date,"
			 "   priority, sequence_number, reason)"
			 " SELECT 'convert', $1, tenant_name, target_schema, target_date, $3,"
			 "   max(target_date) OVER () - target_date, 'layout ' || $2"
			 "   FROM misplaced ORDER BY target_date DESC, target_schema"
			 " ON CONFLICT DO NOTHING RETURNING job_id)"
			 " SELECT (SELECT count(*) FROM misplaced), count(*), min(job_id), max(job_id) FROM made",
			 lengthof(args), args);
	request->relations = wh_get_int8(0, 1);
	if (wh_get_int8(0, 2) > 0)
		wh_notify_jobs_on_commit(wh_get_int8(0, 3), wh_get_int8(0, 4));
}

/* An empty tree is dropped, or the public view made to read it, by a publication. */
static void
queue_end(const Request *request)
{
	WhArg		args[] = {WH_TEXT(request->template_name)};

	if (wh_query("SELECT FROM _wh.mv_templates WHERE template_name = $1 AND view_oid IS NOT NULL",
				 lengthof(args), args) > 0)
		(void) wh_queue_enqueue_publish(request->template_name, 0);
}

/* Run by wh_politely(): it may be rolled back and started over. */
static void
convert(void *arg)
{
	Request    *request = arg;

	wh_spi_begin();
	if (change_layout(request))
		cancel_queued(request);
	queue_relations(request);
	if (request->relations == 0)
		queue_end(request);
	wh_spi_end();
}

Datum
wh_sql_convert_layout(PG_FUNCTION_ARGS)
{
	Request		request = {0};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	request.template_name = wh_tenant_text_arg(fcinfo, 0, "template_name");
	request.layout = wh_tenant_text_arg(fcinfo, 1, "layout");
	check_layout_name(request.layout);
	wh_spi_begin();
	wh_tenant_require_template(request.template_name);
	wh_politely(InvalidOid, convert, &request);
	wh_spi_end();
	PG_RETURN_INT32((int32) request.relations);
}
