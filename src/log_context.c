/*
 * log_context.c: which operation a message is about, as JSON, in its context.
 *
 *     CONTEXT:  wh_worker: {"event":"job_failed","process":"worker",
 *               "database":"warehouse","operation":"refresh","job_id":7,...}
 *
 * (on one line).  PostgreSQL writes the context of a message into its log in
 * every format, after the message: CONTEXT in plain text, a column of csvlog, a
 * field of jsonlog.  So a program finds the operation without parsing what was
 * written for people.  It holds names and numbers only, and of those no more
 * than one line.
 *
 * Processes of ours have one for their life, and say what job they run; functions
 * that run at once have one for the call.  What log_event.c knows of a thing that
 * happened is added.  A message has one such line: of an operation within a
 * process it is the operation's.  Touches no catalog: it is made while an error
 * is reported.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "json_text.h"
#include "log_context.h"
#include "status.h"

static const char *my_process = NULL;
static const char *my_database = NULL;
static const WhJob *my_job = NULL;
static const WhLogFacts *my_facts = NULL;
static ErrorContextCallback process_callback;

/* As wh_date_text(), which may raise. */
static void
add_date(StringInfo json, DateADT date)
{
	char		text[MAXDATELEN + 1];
	struct pg_tm tm = {0};

	if (DATE_NOT_FINITE(date))
		return;
	j2date(date + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
	EncodeDateOnly(&tm, USE_ISO_DATES, text);
	wh_json_text(json, "date", text);
}

static void
add_target(StringInfo json, const char *template_name, const char *tenant_name, const char *schema)
{
	wh_json_text(json, "template", template_name);
	wh_json_text(json, "tenant", tenant_name);
	wh_json_text(json, "schema", schema);
}

static void
add_number(StringInfo json, const char *key, int64 number)
{
	if (number != 0)
		wh_json_int(json, key, number);
}

static void
add_job(StringInfo json, const WhJob *job)
{
	wh_json_text(json, "operation", wh_queue_kind_name(job->kind));
	wh_json_int(json, "job_id", job->job_id);
	wh_json_int(json, "attempt", job->attempt);
	add_number(json, "backfill_id", job->backfill_id);
	add_number(json, "schedule_id", job->schedule_id);
	add_target(json, job->template_name, job->tenant_name, job->target_schema);
	if (wh_queue_has_target(job))
		add_date(json, job->target_date);
	wh_json_text(json, "username", job->username);
}

/* What was being done, unless a thing that happened says when it did. */
static void
add_phase(StringInfo json)
{
	WhPhase		phase = wh_status_get_phase();

	if (my_facts != NULL)
		wh_json_text(json, "phase", my_facts->phase);
	else if (phase != WH_PHASE_IDLE)
		wh_json_text(json, "phase", wh_status_phase_name(phase));
}

static void
add_facts(StringInfo json, const WhLogFacts *facts)
{
	const WhJob *job = my_job;

	/* what the job has told is not told twice */
	if (job == NULL)
	{
		add_number(json, "job_id", facts->job_id);
		add_number(json, "backfill_id", facts->backfill_id);
		add_number(json, "schedule_id", facts->schedule_id);
	}
	add_target(json, job && job->template_name ? NULL : facts->template_name,
			   job && job->tenant_name ? NULL : facts->tenant_name,
			   job && job->target_schema ? NULL : facts->schema);
	if (facts->has_counts)
	{
		wh_json_int(json, "rows", facts->rows);
		wh_json_int(json, "bytes", facts->bytes);
	}
	if (facts->has_duration)
		wh_json_int(json, "ms", facts->ms);
}

/* ---- callbacks ---- */

static void
begin(StringInfo json)
{
	initStringInfo(json);
	appendStringInfoChar(json, '{');
	if (my_facts != NULL)
		wh_json_text(json, "event", my_facts->event);
	wh_json_text(json, "process", my_process);
	wh_json_text(json, "database", my_database == NULL && my_facts != NULL ?
				 my_facts->database : my_database);
}

static void
tell(StringInfo json)
{
	int			sqlstate = geterrcode();

	if (my_facts != NULL)
		add_facts(json, my_facts);
	if (sqlstate != ERRCODE_SUCCESSFUL_COMPLETION && sqlstate != ERRCODE_WARNING)
		wh_json_text(json, "sqlstate", unpack_sql_state(sqlstate));
	appendStringInfoChar(json, '}');
	errcontext("wh_worker: %s", json->data);
	pfree(json->data);
}

static void
tell_operation(void *arg)
{
	const WhLogContext *context = arg;
	StringInfoData json;

	begin(&json);
	wh_json_text(&json, "operation", context->operation);
	add_number(&json, "schedule_id", context->schedule_id);
	add_target(&json, context->template_name, context->tenant_name, context->schema);
	if (context->has_date)
		add_date(&json, context->date);
	add_phase(&json);
	tell(&json);
}

static bool
operation_tells(void)
{
	for (ErrorContextCallback *callback = error_context_stack; callback != NULL; callback = callback->previous)
		if (callback->callback == tell_operation)
			return true;
	return false;
}

static void
tell_process(void *arg pg_attribute_unused())
{
	StringInfoData json;

	if (operation_tells())
		return;
	begin(&json);
	if (my_job != NULL)
	{
		add_job(&json, my_job);
		add_phase(&json);
	}
	tell(&json);
}

/* ---- what others call ---- */

void
wh_log_context_push(WhLogContext *context)
{
	context->callback.callback = tell_operation;
	context->callback.arg = context;
	context->callback.previous = error_context_stack;
	error_context_stack = &context->callback;
}

void
wh_log_context_pop(const WhLogContext *context)
{
	error_context_stack = context->callback.previous;
}

void
wh_log_context_process(const char *process, const char *database)
{
	my_process = process;
	my_database = database;
	process_callback.callback = tell_process;
	process_callback.previous = error_context_stack;
	error_context_stack = &process_callback;
}

void
wh_log_context_job(const WhJob *job)
{
	my_job = job;
}

void
wh_log_context_facts(const WhLogFacts *facts)
{
	my_facts = facts;
}

int64
wh_log_context_job_id(void)
{
	return my_job != NULL ? my_job->job_id : 0;
}
