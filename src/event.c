/*
 * event.c: NOTIFY wh_worker, with a JSON payload, for programs that listen.
 *
 * Called by queue.c, backfill.c and health.c in the transaction that writes
 * what they tell, so that a listener never hears of what did not commit.  Operators
 * may listen: no message of an error, which may quote rows, goes out here.
 * Delivery is PostgreSQL's, and takes its lock on the queue at the commit.
 */
#include "postgres.h"

#include "commands/async.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#include "event.h"
#include "sqlutil.h"

/* Of the server's queue of notifications; what is left is for others. */
#define QUEUE_USAGE_MAX 0.9

/* Escaped it may grow sixfold, and a payload has less than 8000 bytes. */
#define NAME_BYTES 200

static void
add_text(StringInfo json, const char *key, const char *value)
{
	appendStringInfo(json, ",\"%s\":", key);
	if (value == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, value);
}

/* What a person wrote may be long. */
static void
add_clipped(StringInfo json, const char *key, const char *value, int bytes)
{
	char	   *clipped = NULL;

	if (value != NULL)
		clipped = pnstrdup(value, pg_mbcliplen(value, (int) strlen(value), bytes));
	add_text(json, key, clipped);
}

/*
 * Ends the object and has it sent.  A queue that is full, because a listener is
 * in a transaction for days, would make our commits fail, and so stop all jobs.
 */
static void
send_event(StringInfo json)
{
	double		usage = DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0));

	appendStringInfoChar(json, '}');
	if (usage < QUEUE_USAGE_MAX)
		Async_Notify(WH_EVENT_CHANNEL, json->data);
	pfree(json->data);
}

void
wh_event_job(const WhJob *job, const char *state, bool unchanged)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"event\":\"job\",\"job_id\":" INT64_FORMAT, job->job_id);
	add_text(&json, "kind", wh_queue_kind_name(job->kind));
	add_text(&json, "state", state);
	add_text(&json, "template", job->template_name);
	add_text(&json, "tenant", job->tenant_name);
	add_text(&json, "schema", job->target_schema);
	add_text(&json, "date", wh_queue_has_target(job) ? wh_date_text(job->target_date) : NULL);
	if (unchanged)
		appendStringInfoString(&json, ",\"unchanged\":true");
	if (job->kind == WH_JOB_SQL)
		add_clipped(&json, "schedule", job->schedule_name, NAME_BYTES);
	send_event(&json);
}

void
wh_event_backfill(int64 backfill_id, const char *state)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"event\":\"backfill\",\"backfill_id\":" INT64_FORMAT, backfill_id);
	add_text(&json, "state", state);
	send_event(&json);
}

void
wh_event_tenant(const char *tenant_name, const char *state)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"event\":\"tenant\"");
	add_text(&json, "tenant", tenant_name);
	add_text(&json, "state", state);
	send_event(&json);
}
