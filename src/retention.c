/*
 * retention.c: what is older than a template wants it kept.
 *
 * The limit is a day: keep_days before today, or the first of the year that is
 * keep_years before this one, whichever is earlier.  A relation goes when its
 * newest day is before the limit, so that nothing younger is ever lost and no
 * month or year table is cut.  The subscription then begins with what is left,
 * so that no schedule loads the days again.
 *
 * A job is one per template, for all its subscriptions, also those that have
 * ended.  Each portion of relations is a transaction, so that the locks stay
 * few and what is done stays done; trouble with one subscription does not keep
 * the others from having theirs.
 *
 * Called by worker.c, and by schedule.c to ask whether there is something to do.
 * How relations go is in retire.c, with the locks.  Reads no tenant.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

#include "attempt.h"
#include "clock.h"
#include "log_event.h"
#include "replicate.h"
#include "retention.h"
#include "retire.h"
#include "sqlutil.h"
#include "status.h"
#include "user_views.h"

/* Relations in a transaction: each has some seven locks, with its indexes. */
#define PORTION 50

/* How many relations that must stay an error names. */
#define NAMED_RELATIONS 5

/* What a template wants. */
typedef struct Rule
{
	DateADT		limit;			/* the first day that is kept */
	bool		drop;			/* else detach */
} Rule;

/* What is left undone is remembered over the transactions of a job. */
typedef struct Run
{
	const WhJob *job;
	MemoryContext context;		/* lives as long as the job */
	Rule		rule;
	const char *schema;			/* of the subscription at hand */
	const char *tenant_name;
	List	   *kept;			/* OIDs that something of a user's depends on */
	StringInfoData kept_because;
	int64		relations;
	int64		rows;
	int64		bytes;
} Run;

/* ---- the rule ---- */

static DateADT
first_day_of_year(DateADT date, int years_before)
{
	int			year;
	int			month;
	int			day;

	j2date(date + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	/* far back the number of the day would overflow, into the future */
	year = Max(year - years_before, 1);
	return date2j(year, 1, 1) - POSTGRES_EPOCH_JDATE;
}

/* False if it keeps everything, or is gone. */
static bool
read_rule(const char *template_name, Rule *rule)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	DateADT		today = wh_clock_today();

	if (wh_query("SELECT keep_days, keep_years, retention = 'drop' FROM _wh.mv_templates"
				 " WHERE template_name = $1", lengthof(args), args) == 0 ||
		(wh_isnull(0, 1) && wh_isnull(0, 2)))
		return false;
	rule->limit = today;
	if (!wh_isnull(0, 1))
		rule->limit = today - wh_get_int4(0, 1);
	if (!wh_isnull(0, 2))
		rule->limit = Min(rule->limit, first_day_of_year(today, wh_get_int4(0, 2)));
	rule->drop = wh_get_bool(0, 3);
	return true;
}

DateADT
wh_retention_limit(const char *template_name)
{
	Rule		rule;

	return read_rule(template_name, &rule) ? rule.limit : DATEVAL_NOBEGIN;
}

bool
wh_retention_is_due(const char *template_name)
{
	Rule		rule;

	if (!read_rule(template_name, &rule))
		return false;
	{
		WhArg		args[] = {WH_TEXT(template_name), WH_DATE(rule.limit)};

		return wh_query("SELECT FROM _wh.day_loads d"
						"  JOIN _wh.tenant_templates s USING (template_name, target_schema)"
						" WHERE d.template_name = $1 AND d.target_date < $2 AND d.relation_oid IS NOT NULL"
						"   AND NOT EXISTS (SELECT FROM _wh.day_loads l"
						"    WHERE l.relation_oid = d.relation_oid AND l.target_date >= $2)"
						" LIMIT 1", lengthof(args), args) > 0;
	}
}

/* ---- what goes ---- */

static Datum
oid_array(const List *list)
{
	Datum	   *oids = palloc(sizeof(Datum) * Max(list_length(list), 1));
	ListCell   *cell;

	foreach(cell, list)
		oids[foreach_current_index(cell)] = ObjectIdGetDatum(lfirst_oid(cell));
	return PointerGetDatum(construct_array(oids, list_length(list), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* In the order of their locks; of "among" only, if that is not NIL. */
static void
read_relations(const Run *run, const List *among, WhRetirement *retirement)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {
		WH_TEXT(run->job->template_name), WH_TEXT(run->schema), WH_DATE(run->rule.limit),
		wh_arg(OIDARRAYOID, oid_array(run->kept)), WH_INT4(PORTION),
		wh_arg_nullable(OIDARRAYOID, oid_array(among), among == NIL)
	};

	retirement->n = (int) wh_query("SELECT oid, relname, first, last, rows, bytes"
								   "  FROM (SELECT c.oid, c.relname,"
								   "     min(d.target_date) AS first, max(d.target_date) AS last,"
								   "     sum(d.rows)::bigint AS rows, sum(d.bytes)::bigint AS bytes"
								   "    FROM _wh.day_loads d"
								   "    JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation"
								   "     AND c.relkind IN ('m', 'r')"
								   "    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = d.target_schema"
								   "   WHERE d.template_name = $1 AND d.target_schema = $2"
								   "     AND NOT c.oid = ANY ($4) AND ($6 IS NULL OR c.oid = ANY ($6))"
								   "   GROUP BY c.oid, c.relname HAVING max(d.target_date) < $3) r"
								   " ORDER BY pg_catalog.array_position('{day,month,year}',"
								   "   _wh.relation_tier($1, relname::text, first)), first LIMIT $5",
								   lengthof(args), args);
	retirement->relations = palloc0(sizeof(WhRetiree) * Max(retirement->n, 1));
	for (int i = 0; i < retirement->n; i++)
	{
		WhRetiree  *relation = &retirement->relations[i];

		relation->relid = wh_get_oid(i, 1);
		relation->relname = wh_get_text(cxt, i, 2);
		relation->first = wh_get_date(i, 3);
		relation->last = wh_get_date(i, 4);
		relation->rows = wh_get_int8(i, 5);
		relation->bytes = wh_get_int8(i, 6);
	}
}

/* Days before the limit that a month or year keeps are expected as before. */
static void
read_start_date(const Run *run, WhRetirement *retirement)
{
	WhArg		args[] = {WH_TEXT(run->job->template_name), WH_TEXT(run->schema), WH_DATE(run->rule.limit)};

	wh_query("SELECT least($3, min(d.target_date)) FROM _wh.day_loads d"
			 " WHERE d.template_name = $1 AND d.target_schema = $2"
			 "   AND d.relation_oid IN (SELECT l.relation_oid FROM _wh.day_loads l"
			 "     WHERE l.template_name = $1 AND l.target_schema = $2 AND l.target_date >= $3)",
			 lengthof(args), args);
	retirement->start_date = wh_get_date(0, 1);
}

static List *
oids_of(const WhRetirement *retirement)
{
	List	   *oids = NIL;

	for (int i = 0; i < retirement->n; i++)
		oids = lappend_oid(oids, retirement->relations[i].relid);
	return oids;
}

/* Whoever had them locked before us may have changed what they hold. */
static void
lock_relations(const Run *run, WhRetirement *retirement)
{
	wh_retire_lock_names(retirement);
	wh_retire_lock(retirement);
	read_relations(run, oids_of(retirement), retirement);
}

static Oid
tenant_view_oid(const Run *run)
{
	WhArg		args[] = {WH_TEXT(run->job->template_name), WH_TEXT(run->schema)};

	if (wh_query("SELECT view_oid FROM _wh.tenant_templates WHERE template_name = $1 AND target_schema = $2",
				 lengthof(args), args) == 0)
		return InvalidOid;
	return wh_get_oid(0, 1);
}

static void
keep(Run *run, const WhRetiree *relation, const char *obstacle)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->context);

	run->kept = lappend_oid(run->kept, relation->relid);
	if (list_length(run->kept) <= NAMED_RELATIONS)
		appendStringInfo(&run->kept_because, "%s%s depends on %s.%s", run->kept_because.len ? ", " : "",
						 obstacle, run->schema, relation->relname);
	else if (list_length(run->kept) == NAMED_RELATIONS + 1)
		appendStringInfoString(&run->kept_because, ", ...");
	MemoryContextSwitchTo(old_context);
}

/* What something of a user's depends on stays; a view of his still reads it. */
static void
leave_out_used(Run *run, WhRetirement *retirement)
{
	Oid			our_view = tenant_view_oid(run);
	int			n = 0;

	for (int i = 0; i < retirement->n; i++)
	{
		WhRetiree  *relation = &retirement->relations[i];
		char	   *obstacle = wh_user_views_dependent(relation->relid, our_view);

		if (obstacle != NULL)
			keep(run, relation, obstacle);
		else
			retirement->relations[n++] = *relation;
	}
	retirement->n = n;
}

/* ---- what is said of it ---- */

static void
record(Run *run, const WhRetirement *retirement, TimestampTz started_at)
{
	const WhJob *job = run->job;
	StringInfoData message;
	char	   *command = psprintf("retention %s of %s in %s", job->template_name, run->tenant_name, run->schema);
	int64		rows = 0;
	int64		bytes = 0;

	initStringInfo(&message);
	appendStringInfo(&message, "%s %d relation%s:", retirement->drop ? "dropped" : "detached",
					 retirement->n, retirement->n == 1 ? "" : "s");
	for (int i = 0; i < retirement->n; i++)
	{
		appendStringInfo(&message, "%s %s", i > 0 ? "," : "", retirement->relations[i].relname);
		rows += retirement->relations[i].rows;
		bytes += retirement->relations[i].bytes;
	}
	{
		WhArg		args[] = {
			WH_INT4(MyProcPid), WH_TEXT(command), WH_TEXT(message.data), WH_TSTZ(started_at),
			WH_INT8(job->job_id), WH_INT8(rows), WH_INT8(bytes),
			WH_TEXT(psprintf("older than %s", wh_date_text(run->rule.limit))),
			wh_arg_nullable(INT8OID, Int64GetDatum(job->schedule_id), job->schedule_id == 0)
		};

		wh_query("INSERT INTO _wh.job_run_details (job_pid, command, status, return_message,"
				 " start_time, end_time, job_id, rows, bytes, reason, jobid)"
				 " VALUES ($1, $2, 'succeeded', $3, $4, clock_timestamp(), $5, $6, $7, $8, $9)",
				 lengthof(args), args);
	}
	wh_log_retired(command, message.data, run->tenant_name, run->schema, rows, bytes);
	run->relations += retirement->n;
	run->rows += rows;
	run->bytes += bytes;
}

/* ---- a subscription ---- */

/*
 * False if it is gone.  Whoever is writing its counters is waited for before
 * anything is locked: who removes it waits for the locks of its relations.
 */
static bool
wait_for_subscription(const Run *run)
{
	WhArg		args[] = {WH_TEXT(run->job->template_name), WH_TEXT(run->schema)};
	bool		found;

	wh_begin_transaction();
	wh_spi_begin();
	found = wh_query("SELECT FROM _wh.tenant_templates WHERE template_name = $1 AND target_schema = $2"
					 " FOR NO KEY UPDATE", lengthof(args), args) > 0;
	wh_spi_end();
	wh_commit_then_replicate(run->context);
	return found;
}

/* Within a transaction; false when nothing is left. */
static bool
retire_portion(Run *run, bool *busy)
{
	TimestampTz started_at = GetCurrentTimestamp();
	WhRetirement retirement = {
		.template_name = run->job->template_name,.schema = run->schema,.drop = run->rule.drop
	};

	read_relations(run, NIL, &retirement);
	if (retirement.n == 0)
		return false;
	lock_relations(run, &retirement);
	if (retirement.drop)
		leave_out_used(run, &retirement);
	if (retirement.n == 0)
		return true;
	read_start_date(run, &retirement);
	*busy = !wh_retire(&retirement);
	if (*busy)
		return true;
	record(run, &retirement, started_at);
	return true;
}

static void
retire_subscription(void *arg)
{
	Run		   *run = arg;
	bool		more = true;

	while (more)
	{
		bool		busy = false;

		CHECK_FOR_INTERRUPTS();
		wh_begin_transaction();
		wh_spi_begin();
		more = retire_portion(run, &busy);
		wh_spi_end();
		wh_commit_then_replicate(run->context);
		if (busy)
			more = wait_for_subscription(run);
	}
}

/* ---- the job ---- */

/* Pairs of schema and tenant, in the job's memory; NIL if all is to be kept. */
static List *
begin_run(Run *run)
{
	WhArg		args[] = {WH_TEXT(run->job->template_name)};
	List	   *targets = NIL;
	uint64		n = 0;
	MemoryContext old_context;

	wh_begin_transaction();
	wh_spi_begin();
	if (read_rule(run->job->template_name, &run->rule))
		n = wh_query("SELECT target_schema, tenant_name FROM _wh.tenant_templates"
					 " WHERE template_name = $1 ORDER BY 1", lengthof(args), args);
	old_context = MemoryContextSwitchTo(run->context);
	for (uint64 i = 0; i < n; i++)
	{
		targets = lappend(targets, wh_get_text(run->context, i, 1));
		targets = lappend(targets, wh_get_text(run->context, i, 2));
	}
	MemoryContextSwitchTo(old_context);
	wh_spi_end();
	wh_commit_then_replicate(run->context);
	return targets;
}

static void
finish_run(const Run *run)
{
	if (run->kept != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg_plural("%d relation of template \"%s\" is too old and cannot be dropped",
							   "%d relations of template \"%s\" are too old and cannot be dropped",
							   list_length(run->kept), list_length(run->kept), run->job->template_name),
				 errdetail("%s; " INT64_FORMAT " others went.", run->kept_because.data, run->relations)));
	wh_begin_transaction();
	wh_queue_succeed(run->job, run->rows, 0,
					 psprintf("%s " INT64_FORMAT " relations with " INT64_FORMAT " rows, " INT64_FORMAT " bytes",
							  run->rule.drop ? "dropped" : "detached",
							  run->relations, run->rows, run->bytes));
	wh_commit_then_replicate(run->context);
}

void
wh_retention_run(const WhJob *job)
{
	Run			run = {.job = job,.context = CurrentMemoryContext};
	ErrorData  *first_error = NULL;
	List	   *targets;

	initStringInfo(&run.kept_because);
	wh_status_phase(WH_PHASE_PUBLISHING);
	targets = begin_run(&run);
	for (int i = 0; i < list_length(targets); i += 2)
	{
		ErrorData  *error;

		run.schema = list_nth(targets, i);
		run.tenant_name = list_nth(targets, i + 1);
		error = wh_attempt_transactions(retire_subscription, &run);
		if (first_error == NULL)
			first_error = error;
	}
	if (first_error != NULL)
		ReThrowError(first_error);
	finish_run(&run);
}
