/*
 * status_page_freshness.c: how old the data is, why, and whether the promises of
 * templates are kept.
 *
 * Called by status_page.c.  All of it is what data_freshness says; here it is
 * sorted, so that what is stale is seen first, then what is going to be, then
 * what lags most, and cut where nobody would read on.  The parts of a lag are
 * told apart by their order and in words.
 *
 * Reads nothing: it shows what status_page_units.c read.
 */
#include "postgres.h"

#include "html.h"
#include "sqlutil.h"
#include "status_page.h"

/* Rows of the table. */
#define MAX_BROKEN 100
#define MAX_OTHERS 10

/* Indexed by WhFreshness. */
static const char *const names[] = {"no promise", "fresh", "at risk", "stale"};
static const char *const classes[] = {"tag", "badge well", "badge look", "badge broken"};

/* Indexed as lag_parts. */
static const char *const parts[WH_LAG_PARTS] = {"schedule", "queue", "tenant", "load"};

static int
largest_part(const WhPageUnit *unit, const bool *told)
{
	int			largest = -1;

	for (int i = 0; i < WH_LAG_PARTS; i++)
		if (!told[i] && unit->lag_parts[i] > 0 && (largest < 0 || unit->lag_parts[i] > unit->lag_parts[largest]))
			largest = i;
	return largest;
}

char *
wh_page_lag(const WhPageUnit *unit)
{
	bool		told[WH_LAG_PARTS] = {false};
	StringInfoData out;
	int			part;

	if (unit->lag < 0)
		return pstrdup("");
	initStringInfo(&out);
	appendStringInfoString(&out, wh_page_age(unit->lag));
	for (int n = 0; (part = largest_part(unit, told)) >= 0; n++)
	{
		/* one that is all of it needs no number */
		if (n == 0 && unit->lag_parts[part] >= unit->lag - 1)
			return psprintf("%s, all for the %s", out.data, parts[part]);
		appendStringInfo(&out, "%s %s for the %s", n == 0 ? ":" : ",", wh_page_age(unit->lag_parts[part]), parts[part]);
		told[part] = true;
	}
	return out.data;
}

/* ---- all of them ---- */

static void
put_counts(const WhPage *page)
{
	int			count[WH_STALE + 1] = {0};

	for (int i = 0; i < page->nunits; i++)
		if (page->units[i].lag >= 0)
			count[page->units[i].freshness]++;
	appendStringInfoString(page->out, "<ul class=\"tiles\">");
	for (int i = WH_STALE; i >= WH_NO_PROMISE; i--)
		appendStringInfo(page->out, "<li%s><b>%s</b> %s</li>",
						 count[i] == 0 ? "" : i == WH_STALE ? " class=\"bad\"" : i == WH_AT_RISK ? " class=\"look\"" : "",
						 wh_page_count(count[i]), names[i]);
	appendStringInfoString(page->out, "</ul>");
}

/* ---- the worst of them ---- */

/* The worst first; of the same kind what lags most. */
static int
compare(const void *left, const void *right)
{
	const WhPageUnit *a = *(const WhPageUnit *const *) left;
	const WhPageUnit *b = *(const WhPageUnit *const *) right;
	bool		a_broken = a->freshness >= WH_AT_RISK;
	bool		b_broken = b->freshness >= WH_AT_RISK;

	if ((a_broken || b_broken) && a->freshness != b->freshness)
		return a->freshness > b->freshness ? -1 : 1;
	if (a->lag != b->lag)
		return a->lag > b->lag ? -1 : 1;
	return a < b ? -1 : a > b;
}

static const WhPageUnit **
sort_units(const WhPage *page)
{
	const WhPageUnit **units = palloc(sizeof(WhPageUnit *) * Max(page->nunits, 1));

	for (int i = 0; i < page->nunits; i++)
		units[i] = &page->units[i];
	qsort(units, page->nunits, sizeof(WhPageUnit *), compare);
	return units;
}

static const char *
or_empty(const char *text_or_null)
{
	return text_or_null ? text_or_null : "";
}

static void
put_unit(const WhPage *page, const WhPageUnit *unit)
{
	appendStringInfo(page->out, "<tr><th scope=\"row\">%s</th><td><span class=\"%s\">%s</span></td><td>%s</td>"
					 "<td>%s</td><td>%s</td><td>%s</td></tr>",
					 wh_page_unit_name(unit->template_name, unit->tenant_name, unit->target_schema),
					 classes[unit->freshness], names[unit->freshness], or_empty(unit->complete_until), wh_page_lag(unit),
					 or_empty(unit->due_at), unit->predicted_at ? unit->predicted_at : "not by itself");
}

static void
put_worst(const WhPage *page)
{
	const WhPageUnit **units = sort_units(page);
	int			nbroken = 0;
	int			nothers = 0;

	appendStringInfoString(page->out, "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Freshness\"><table>"
						   "<thead><tr><th scope=\"col\">What</th><th scope=\"col\">Promise</th>"
						   "<th scope=\"col\">Complete until (UTC)</th><th scope=\"col\">Lag, and what it waited for</th>"
						   "<th scope=\"col\">Due (UTC)</th><th scope=\"col\">Expected (UTC)</th></tr></thead><tbody>");
	for (int i = 0; i < page->nunits; i++)
	{
		bool		broken = units[i]->freshness >= WH_AT_RISK;

		if (units[i]->lag >= 0 && (broken ? nbroken++ < MAX_BROKEN : nothers++ < MAX_OTHERS))
			put_unit(page, units[i]);
	}
	appendStringInfoString(page->out, "</tbody></table></div>");
	if (nbroken > MAX_BROKEN)
		appendStringInfo(page->out, "<p class=\"note\">and %s more that are stale or at risk</p>", wh_page_count(nbroken - MAX_BROKEN));
	if (nothers > MAX_OTHERS)
		appendStringInfo(page->out, "<p class=\"note\">and %s others, which lag less</p>", wh_page_count(nothers - MAX_OTHERS));
}

void
wh_page_freshness(WhPage *page)
{
	wh_page_section(page, "freshness", "Freshness");
	put_counts(page);
	if (page->nunits > 0)
		put_worst(page);
	wh_page_end_section(page);
}
