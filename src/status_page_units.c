/*
 * status_page_units.c: the subscriptions of the status page, and what each of
 * their days is.
 *
 * Called by status_page.c before any section is written: the headline counts
 * these days, the grid draws them.  One query reads the ledger for the days of
 * the page, by its primary key and a subscription at a time; what its rows say
 * comes as one short text for each subscription, a number and a letter a day,
 * so that a hundred thousand days are no hundred thousand rows.
 *
 * Reads committed rows only, and takes no lock.
 */
#include "postgres.h"

#include "sqlutil.h"
#include "status_page.h"

/* Indexed by WhPageDay; for people. */
static const char *const day_names[] = {
	"not expected", "loaded", "combined", "suspect", "not renewed", "failed", "missing", "queued", "not yet loaded today"
};

const char *
wh_page_day_name(WhPageDay day)
{
	return day_names[day];
}

static WhPageDay
day_of_letter(char letter)
{
	switch (letter)
	{
		case 'l':
			return WH_DAY_LOADED;
		case 'c':
			return WH_DAY_COMBINED;
		case 's':
			return WH_DAY_SUSPECT;
		case 'r':
			return WH_DAY_NOT_RENEWED;
		case 'f':
			return WH_DAY_FAILED;
		default:
			return WH_DAY_MISSING;
	}
}

/* Expected from start_date on: missing until the ledger says otherwise. */
static void
expect_days(const WhPage *page, WhPageUnit *unit)
{
	unit->days = palloc0(sizeof(WhPageDay) * page->ndays);
	if (!unit->active)
		return;
	for (int i = 0; i < page->ndays; i++)
		if (page->first + i >= unit->start_date)
			unit->days[i] = page->first + i == page->today ? WH_DAY_TODAY : WH_DAY_MISSING;
}

/* "0l1l2f": the days that are in the ledger. */
static void
note_ledger(const WhPage *page, WhPageUnit *unit, const char *marks)
{
	while (marks != NULL && *marks != '\0')
	{
		char	   *end;
		long		i = strtol(marks, &end, 10);
		WhPageDay	day = day_of_letter(*end);

		/* who ended a subscription does not expect what is gone */
		if (i >= 0 && i < page->ndays && (unit->active || day != WH_DAY_MISSING))
			unit->days[i] = day;
		marks = end + 1;
	}
}

/* "3 7 8 ": those that a job is queued for, or loads. */
static void
note_queue(const WhPage *page, WhPageUnit *unit, const char *marks)
{
	while (marks != NULL && *marks != '\0')
	{
		char	   *end;
		long		i = strtol(marks, &end, 10);

		if (i >= 0 && i < page->ndays &&
			(unit->days[i] == WH_DAY_MISSING || unit->days[i] == WH_DAY_TODAY || unit->days[i] == WH_DAY_NONE))
			unit->days[i] = WH_DAY_QUEUED;
		marks = *end == '\0' ? end : end + 1;
	}
}

static void
count_days(WhPage *page, WhPageUnit *unit)
{
	for (int i = 0; i < page->ndays; i++)
	{
		unit->count[unit->days[i]]++;
		page->count[unit->days[i]]++;
	}
}

/*
 * Of what lacks since start_date, as the counters of the subscription say, the
 * part that the page does not show.
 */
static int64
missing_before(const WhPageUnit *unit, int64 missing)
{
	int64		shown = unit->count[WH_DAY_MISSING] + unit->count[WH_DAY_QUEUED] +
		unit->count[WH_DAY_TODAY] + unit->count[WH_DAY_FAILED];

	return unit->active ? Max(missing - shown, 0) : 0;
}

static WhFreshness
freshness_of(const char *text)
{
	if (text == NULL)
		return WH_NO_PROMISE;
	if (strcmp(text, "stale") == 0)
		return WH_STALE;
	return strcmp(text, "at_risk") == 0 ? WH_AT_RISK : WH_FRESH;
}

static void
read_freshness(const WhPage *page, WhPageUnit *unit, uint64 row)
{
	unit->freshness = freshness_of(wh_get_text(page->context, row, 14));
	unit->complete_until = wh_get_text(page->context, row, 15);
	unit->due_at = wh_get_text(page->context, row, 16);
	unit->predicted_at = wh_get_text(page->context, row, 17);
	unit->lag = wh_isnull(row, 18) ? -1 : wh_get_int8(row, 18);
	for (int i = 0; i < WH_LAG_PARTS; i++)
		unit->lag_parts[i] = wh_get_int8(row, 19 + i);
}

static void
read_unit(WhPage *page, WhPageUnit *unit, uint64 row)
{
	MemoryContext cxt = page->context;

	unit->template_name = wh_get_text(cxt, row, 1);
	unit->tenant_name = wh_get_text(cxt, row, 2);
	unit->target_schema = wh_get_text(cxt, row, 3);
	unit->active = wh_get_bool(row, 4);
	unit->set_aside = wh_get_bool(row, 5);
	unit->start_date = wh_get_date(row, 6);
	unit->refused_days = wh_get_int8(row, 8);
	unit->data_through = wh_get_text(cxt, row, 9);
	unit->last_success = wh_get_text(cxt, row, 10);
	unit->next_run = wh_get_text(cxt, row, 11);
	expect_days(page, unit);
	note_ledger(page, unit, wh_get_text(cxt, row, 12));
	note_queue(page, unit, wh_get_text(cxt, row, 13));
	read_freshness(page, unit, row);
	count_days(page, unit);
	/* a queued day of before start_date is no day that lacks, so this is at least 0 */
	unit->missing_before = unit->start_date < page->first ? missing_before(unit, wh_get_int8(row, 7)) : 0;
}

void
wh_page_read_units(WhPage *page)
{
	WhArg		args[] = {WH_DATE(page->first), WH_DATE(page->today)};

	page->nunits = wh_query(
		"SELECT f.template_name, f.tenant_name, f.target_schema,"
		"  f.active AND coalesce(c.active, false), coalesce(h.state = 'open', false),"
		"  s.start_date, f.missing_days, s.refused_days, f.data_through::pg_catalog.text,"
		"  pg_catalog.to_char(f.last_success AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),"
		"  pg_catalog.to_char(f.next_run AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),"
		"  l.marks, q.marks, f.freshness,"
		"  pg_catalog.to_char(f.complete_until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),"
		"  pg_catalog.to_char(f.due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),"
		"  pg_catalog.to_char(f.predicted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),"
		"  extract(epoch FROM f.lag)::pg_catalog.int8, extract(epoch FROM f.lag_schedule)::pg_catalog.int8,"
		"  extract(epoch FROM f.lag_queue)::pg_catalog.int8, extract(epoch FROM f.lag_tenant)::pg_catalog.int8,"
		"  extract(epoch FROM f.lag_run)::pg_catalog.int8"
		"  FROM _wh.data_freshness f"
		"  JOIN _wh.tenant_templates s USING (tenant_name, template_name, target_schema)"
		"  LEFT JOIN _wh.tenant_connections c ON c.tenant_name = f.tenant_name"
		"  LEFT JOIN _wh.tenant_health h ON h.tenant_name = f.tenant_name"
		"  LEFT JOIN LATERAL (SELECT pg_catalog.string_agg((d.target_date - $1) || CASE"
		"      WHEN d.state = 'failed' OR d.state = 'missing' AND d.failed_at IS NOT NULL THEN 'f'"
		"      WHEN d.state = 'missing' THEN 'm'"
		"      WHEN d.state = 'suspect' THEN 's'"
		"      WHEN d.failed_at IS NOT NULL THEN 'r'"
		"      WHEN d.state = 'combined' THEN 'c' ELSE 'l' END, '') AS marks"
		"    FROM _wh.day_loads d WHERE d.template_name = f.template_name"
		"     AND d.target_schema = f.target_schema AND d.target_date BETWEEN $1 AND $2) l ON true"
		"  LEFT JOIN (SELECT j.template_name, j.target_schema,"
		"      pg_catalog.string_agg((j.target_date - $1)::pg_catalog.text, ' ') AS marks"
		"    FROM _wh.jobs j WHERE j.kind = 'refresh' AND (j.state = 'queued' OR j.state = 'running')"
		"     AND j.target_date BETWEEN $1 AND $2 GROUP BY 1, 2) q"
		"   ON q.template_name = f.template_name AND q.target_schema = f.target_schema"
		" ORDER BY f.template_name, f.tenant_name, f.target_schema", lengthof(args), args);
	page->units = MemoryContextAllocZero(page->context, sizeof(WhPageUnit) * Max(page->nunits, 1));
	for (int i = 0; i < page->nunits; i++)
		read_unit(page, &page->units[i], i);
}

/* What a person should know of, whether or not it mends itself. */
bool
wh_page_unit_has_trouble(const WhPageUnit *unit)
{
	return unit->count[WH_DAY_FAILED] + unit->count[WH_DAY_MISSING] + unit->count[WH_DAY_SUSPECT] +
		unit->count[WH_DAY_NOT_RENEWED] > 0 || unit->missing_before > 0 || unit->refused_days > 0;
}

bool
wh_page_find_days(const WhPage *page, const WhPageUnit *unit, WhPageDay day, DateADT *first, DateADT *last)
{
	bool		found = false;

	for (int i = 0; i < page->ndays; i++)
	{
		if (unit->days[i] != day)
			continue;
		if (!found)
			*first = page->first + i;
		*last = page->first + i;
		found = true;
	}
	return found;
}

char *
wh_page_span(const WhPage *page, const WhPageUnit *unit, WhPageDay day)
{
	DateADT		first;
	DateADT		last;

	if (!wh_page_find_days(page, unit, day, &first, &last))
		return pstrdup("");
	return first == last ? wh_date_text(first) :
		psprintf("%s to %s", wh_date_text(first), wh_date_text(last));
}
