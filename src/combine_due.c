/*
 * combine_due.c: which months and years wait to be combined, by the ledger.
 *
 * A period is due when it is over since the template's settle_days, has days
 * and is not combined yet.  A due one that lacks days is left alone and named:
 * to combine without them is for a person to say.  A month is due even when
 * its year is: until that is combined the month saves locks.
 *
 * Called by the launcher for a schedule (schedule.c), and for the days that are
 * missing by combine.c.  Reads the ledger and catalogs only; touches no
 * relation of a tenant.  Locks: rows of _wh.jobs that it makes.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "clock.h"
#include "combine_due.h"
#include "queue.h"
#include "sqlutil.h"
#include "there.h"
#include "wh_worker.h"

/* How many missing days, and how many periods, a message names. */
#define NAMED_DAYS 10
#define NAMED_PERIODS 10

/* ---- days that are missing ---- */

/*
 * A tenant's first day is that of the subscription, or an older one that was
 * loaded: history need not have been asked for when it was made.
 */
int
wh_combine_missing(const char *template_name, const char *schema, DateADT first, DateADT last,
				   DateADT **missing)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_DATE(first), WH_DATE(last)};
	uint64		n;

	wh_spi_begin();
	n = wh_query("SELECT x.target_date FROM (SELECT $3 + i AS target_date"
				 "    FROM pg_catalog.generate_series(0, $4 - $3) AS i) x"
				 " WHERE x.target_date >= (SELECT least(s.start_date, (SELECT min(d.target_date)"
				 "      FROM _wh.day_loads d WHERE d.template_name = $1 AND d.target_schema = $2"
				 "       AND d.relation_oid IS NOT NULL))"
				 "    FROM _wh.tenant_templates s WHERE s.template_name = $1 AND s.target_schema = $2)"
				 "   AND NOT EXISTS (SELECT FROM _wh.day_loads d"
				 "     WHERE d.template_name = $1 AND d.target_schema = $2 AND d.target_date = x.target_date"
				 "       AND " WH_DAY_IS_THERE ")"
				 " ORDER BY 1", lengthof(args), args);
	*missing = MemoryContextAlloc(cxt, sizeof(DateADT) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
		(*missing)[i] = wh_get_date(i, 1);
	wh_spi_end();
	return (int) n;
}

char *
wh_combine_name_days(const DateADT *days, int ndays)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < Min(ndays, NAMED_DAYS); i++)
		appendStringInfo(&text, "%s%s", i > 0 ? ", " : "", wh_date_text(days[i]));
	if (ndays > NAMED_DAYS)
		appendStringInfo(&text, " and %d more", ndays - NAMED_DAYS);
	return text.data;
}

/* ---- periods that are due ---- */

typedef struct Period
{
	DateADT		first;
	DateADT		last;
} Period;

/* The oldest first. */
static Period *
read_periods(const WhCombineDue *due, uint64 *nperiods)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {
		WH_TEXT(due->template_name), WH_TEXT(due->schema),
		WH_TEXT(due->years ? "year" : "month"), WH_DATE(wh_clock_today())
	};
	Period	   *periods;

	*nperiods = wh_query("SELECT p.first, p.next - 1"
						 "  FROM (SELECT pg_catalog.date_trunc($3, d.target_date::timestamp)::date AS first,"
						 "     (pg_catalog.date_trunc($3, d.target_date::timestamp) + ('1 ' || $3)::interval)::date AS next,"
						 "     pg_catalog.bool_or(CASE $3 WHEN 'month' THEN t.tier <> 'day' ELSE t.tier = 'year' END) AS combined"
						 "    FROM _wh.day_loads d CROSS JOIN LATERAL (SELECT"
						 "      _wh.relation_tier(d.template_name, d.relation, d.target_date) AS tier) t"
						 "   WHERE d.template_name = $1 AND d.target_schema = $2 AND " WH_DAY_IS_THERE
						 "   GROUP BY 1, 2) p"
						 "  JOIN _wh.mv_templates m ON m.template_name = $1"
						 " WHERE NOT p.combined AND $4 - p.next >= m.settle_days"
						 " ORDER BY 1", lengthof(args), args);
	periods = MemoryContextAlloc(cxt, sizeof(Period) * Max(*nperiods, 1));
	for (uint64 i = 0; i < *nperiods; i++)
	{
		periods[i].first = wh_get_date(i, 1);
		periods[i].last = wh_get_date(i, 2);
	}
	return periods;
}

/* 0 if it is pending already. */
static int64
enqueue(const WhCombineDue *due, DateADT first)
{
	WhArg		args[] = {
		WH_TEXT(wh_queue_kind_name(due->years ? WH_JOB_COMBINE_YEAR : WH_JOB_COMBINE_MONTH)),
		WH_TEXT(due->template_name), WH_TEXT(due->tenant_name), WH_TEXT(due->schema),
		WH_DATE(first), WH_INT8(due->schedule_id), WH_INT4(WH_PRIORITY_BACKFILL)
	};
	int64		job_id;

	if (wh_query("INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date,"
				 "  schedule_id, reason, priority, sequence_number)"
				 " VALUES ($1, $2, $3, $4, $5, $6, 'due', $7, $5 - date '1970-01-01')"
				 " ON CONFLICT DO NOTHING RETURNING job_id", lengthof(args), args) == 0)
		return 0;
	job_id = wh_get_int8(0, 1);
	wh_notify_jobs_on_commit(job_id, job_id);
	return job_id;
}

/* One list of periods: "2 queued: 2024-03, 2024-04". */
typedef struct PeriodList
{
	const char *what;
	int			n;
	StringInfoData periods;
} PeriodList;

static void
add_period(PeriodList *list, const char *period, const char *details)
{
	if (list->n == 0)
		initStringInfo(&list->periods);
	if (list->n < NAMED_PERIODS)
		appendStringInfo(&list->periods, "%s%s%s", list->n ? ", " : "", period, details);
	else if (list->n == NAMED_PERIODS)
		appendStringInfoString(&list->periods, ", ...");
	list->n++;
}

static char *
describe_lists(const PeriodList *lists, int nlists)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < nlists; i++)
		if (lists[i].n > 0)
			appendStringInfo(&text, "%s%d %s: %s", text.len ? "; " : "",
							 lists[i].n, lists[i].what, lists[i].periods.data);
	if (text.len == 0)
		appendStringInfoString(&text, "nothing to combine");
	return text.data;
}

/* Those of a sorted list that lie in the period; how many. */
static int
missing_in(const Period *period, DateADT *missing, int nmissing, DateADT **first)
{
	int			n = 0;

	for (int i = 0; i < nmissing; i++)
		if (missing[i] >= period->first && missing[i] <= period->last && n++ == 0)
			*first = &missing[i];
	return n;
}

static void
decide(WhCombineDue *due, const Period *period, DateADT *missing, int nmissing, PeriodList *lists)
{
	char	   *name = pnstrdup(wh_date_text(period->first), due->years ? 4 : 7);
	DateADT    *lacking = NULL;
	int			nlacking = missing_in(period, missing, nmissing, &lacking);
	int64		job_id;

	if (nlacking > 0)
	{
		add_period(&lists[2], name, psprintf(" (missing %s)", wh_combine_name_days(lacking, nlacking)));
		return;
	}
	job_id = enqueue(due, period->first);
	due->job_id = job_id != 0 ? job_id : due->job_id;
	add_period(&lists[job_id != 0 ? 0 : 1], name, "");
}

/* The launcher waits for this: the days of all periods are looked up at once. */
void
wh_combine_enqueue_due(WhCombineDue *due)
{
	PeriodList	lists[] = {{"queued"}, {"pending already"}, {"incomplete"}};
	uint64		nperiods;
	Period	   *periods = read_periods(due, &nperiods);
	DateADT    *missing = NULL;
	int			nmissing = nperiods == 0 ? 0 :
		wh_combine_missing(due->template_name, due->schema,
						   periods[0].first, periods[nperiods - 1].last, &missing);

	for (uint64 i = 0; i < nperiods; i++)
		decide(due, &periods[i], missing, nmissing, lists);
	due->nqueued = lists[0].n;
	due->npending = lists[1].n;
	due->nincomplete = lists[2].n;
	if (due->nqueued != 1)
		due->job_id = 0;
	due->message = describe_lists(lists, lengthof(lists));
}
