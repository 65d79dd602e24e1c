/*
 * status_page_days.c: the grid of the status page: a row a subscription, a cell
 * a day; above it all of them together, below it the same in numbers.
 *
 * Called by status_page.c.  A state is told by its shape as well as by its
 * colour.  Runs of equal days are one piece of a path, drawn as a dashed line or
 * filled with a pattern, so that a year of good days takes no more bytes than
 * one day, and a browser draws 300 tenants at once.  What needs a look comes
 * first, and has its dates as a title.
 *
 * Reads nothing: it draws what status_page_units.c read.
 */
#include "postgres.h"

#include "utils/datetime.h"

#include "html.h"
#include "sqlutil.h"
#include "status_page.h"

/* Of one day in a row, in units of the drawing; the browser stretches them. */
#define CELL 10
#define HEIGHT 14

/* Rows on a page.  Those that need a look come first. */
#define MAX_ROWS 1500

/* Runs of a row that have a title of their own. */
#define MAX_TITLES 24

/* And of all rows: what is wrong everywhere must not make the page huge. */
#define MAX_TITLES_OF_PAGE 2000

/* What is drawn in which class and pattern. */
static const char classes[WH_PAGE_DAYS] = {'-', 'l', 'c', 's', 'r', 'f', 'm', 'q', 't'};

/* From the best to the worst: the order from the ground up, and of the legend. */
static const WhPageDay order[] = {
	WH_DAY_COMBINED, WH_DAY_LOADED, WH_DAY_TODAY, WH_DAY_QUEUED, WH_DAY_NOT_RENEWED, WH_DAY_SUSPECT,
	WH_DAY_MISSING, WH_DAY_FAILED
};

/* ---- one row ---- */


static bool
is_trouble(WhPageDay day)
{
	return day == WH_DAY_SUSPECT || day == WH_DAY_NOT_RENEWED || day == WH_DAY_FAILED || day == WH_DAY_MISSING;
}

static void
add_run(StringInfo path, WhPageDay day, int start, int length)
{
	int			x = start * CELL;
	int			width = length * CELL;

	if (day == WH_DAY_LOADED)
		appendStringInfo(path, "M%d 7h%d", x + 1, width - 2);
	else if (day == WH_DAY_COMBINED)
		appendStringInfo(path, "M%d 7h%d", x, width);
	else
		appendStringInfo(path, "M%d 0h%dv%dh-%dz", x, width, HEIGHT, width);
}

static void
put_path(StringInfo out, WhPageDay day, const char *path, const char *title)
{
	if (path[0] == '\0')
		return;
	appendStringInfo(out, "<path class=\"%c\" d=\"%s\"", classes[day], path);
	if (title != NULL)
		appendStringInfo(out, "><title>%s</title></path>", title);
	else
		appendStringInfoString(out, "/>");
}

static char *
title_of_run(const WhPage *page, WhPageDay day, int start, int length)
{
	char	   *first = wh_date_text(page->first + start);

	if (length == 1)
		return psprintf("%s: %s", first, wh_page_day_name(day));
	return psprintf("%s to %s: %s", first, wh_date_text(page->first + start + length - 1), wh_page_day_name(day));
}

static void
put_runs(WhPage *page, const WhPageUnit *unit, StringInfo out)
{
	StringInfoData paths[WH_PAGE_DAYS];
	int			ntitles = 0;
	int			length;

	for (int day = 0; day < WH_PAGE_DAYS; day++)
		initStringInfo(&paths[day]);
	for (int start = 0; start < page->ndays; start += length)
	{
		WhPageDay	day = unit->days[start];

		for (length = 1; start + length < page->ndays && unit->days[start + length] == day;)
			length++;
		if (day == WH_DAY_NONE)
			continue;
		add_run(&paths[day], day, start, length);
		if (is_trouble(day) && ntitles < MAX_TITLES && page->ntitles < MAX_TITLES_OF_PAGE)
		{
			ntitles++;
			page->ntitles++;
			put_path(out, day, paths[day].data, title_of_run(page, day, start, length));
			resetStringInfo(&paths[day]);
		}
	}
	for (int day = 0; day < WH_PAGE_DAYS; day++)
	{
		put_path(out, day, paths[day].data, NULL);
		pfree(paths[day].data);
	}
}

/* "85 loaded, 2 missing": for who cannot see it. */
static char *
describe_counts(const WhPageUnit *unit, bool only_trouble)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = lengthof(order) - 1; i >= 0; i--)
	{
		if (unit->count[order[i]] == 0 || (only_trouble && !is_trouble(order[i])))
			continue;
		appendStringInfo(&text, "%s%d %s", text.len > 0 ? ", " : "", unit->count[order[i]],
						 wh_page_day_name(order[i]));
	}
	if (unit->missing_before > 0)
		appendStringInfo(&text, "%s%s missing before", text.len > 0 ? ", " : "", wh_page_count(unit->missing_before));
	if (unit->refused_days > 0)
		appendStringInfo(&text, "%s%s kept out of the view", text.len > 0 ? ", " : "", wh_page_count(unit->refused_days));
	return text.data;
}

static void
add_word(StringInfo words, const char *word)
{
	if (word[0] != '\0')
		appendStringInfo(words, "%s%s", words->len > 0 ? ", " : "", word);
}

/* How far the data goes is said where nothing else is wrong, or where it does not go to yesterday. */
static void
put_status(const WhPage *page, const WhPageUnit *unit)
{
	StringInfoData words;

	initStringInfo(&words);
	if (!unit->active)
		add_word(&words, "paused or ended");
	if (unit->set_aside)
		add_word(&words, "set aside");
	if (unit->freshness >= WH_AT_RISK)
		add_word(&words, unit->freshness == WH_STALE ? "stale" : "at risk");
	add_word(&words, describe_counts(unit, true));
	if (words.len > 0)
		appendStringInfo(page->out, "<b>%s</b> ", words.data);
	if (unit->data_through == NULL)
		appendStringInfoString(page->out, "nothing published");
	else if (words.len == 0 || strcmp(unit->data_through, wh_date_text(page->today - 1)) < 0)
		appendStringInfo(page->out, "through <span>%s</span>", unit->data_through);
}

static char *
row_name(const WhPageUnit *unit)
{
	if (strcmp(unit->tenant_name, unit->target_schema) == 0)
		return wh_page_name(unit->tenant_name);
	return psprintf("%s in %s", wh_page_name(unit->tenant_name), wh_page_name(unit->target_schema));
}

static void
put_row(WhPage *page, const WhPageUnit *unit)
{
	const char *words = describe_counts(unit, false);

	appendStringInfo(page->out, "<li><span class=\"n\">%s</span>"
					 "<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\"><title>%s</title>",
					 row_name(unit), page->ndays * CELL, HEIGHT, words[0] == '\0' ? "no day expected" : words);
	put_runs(page, unit, page->out);
	appendStringInfoString(page->out, "</svg><span class=\"s\">");
	put_status(page, unit);
	appendStringInfoString(page->out, "</span></li>");
}

/* ---- a template ---- */

/* The first day of each month above the rows. */
static void
put_months(const WhPage *page)
{
	static const char *const months[] = {
		"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
	};

	appendStringInfoString(page->out, "<div class=\"axis\" aria-hidden=\"true\"><span></span><span class=\"months\">");
	for (int i = 0; i < page->ndays; i++)
	{
		int			year;
		int			month;
		int			day;

		j2date(page->first + i + POSTGRES_EPOCH_JDATE, &year, &month, &day);
		/* what would not fit before the right edge is left out */
		if (day == 1 && i < page->ndays * 0.95)
			appendStringInfo(page->out, "<i style=\"left:%.1f%%\">%s</i>", 100.0 * i / page->ndays, months[month - 1]);
	}
	appendStringInfoString(page->out, "</span><span></span></div>");
}

/* Rows of the template's units that do, or do not, need a look; how many are left out. */
static int
put_rows(WhPage *page, int first, int end, bool trouble, int *room)
{
	int			left_out = 0;

	for (int i = first; i < end; i++)
	{
		const WhPageUnit *unit = &page->units[i];

		if (wh_page_unit_has_trouble(unit) != trouble)
			continue;
		if ((*room)-- > 0)
			put_row(page, unit);
		else
			left_out++;
	}
	return left_out;
}

static int
count_trouble(const WhPage *page, int first, int end)
{
	int			n = 0;

	for (int i = first; i < end; i++)
		n += wh_page_unit_has_trouble(&page->units[i]);
	return n;
}

static void
put_template(WhPage *page, int first, int end, int *room_for_trouble, int *room_for_others)
{
	int			n = end - first;
	int			ntrouble = count_trouble(page, first, end);
	int			left_out;

	appendStringInfo(page->out, "<h3>%s</h3><p class=\"note\">", wh_page_name(page->units[first].template_name));
	if (ntrouble > 0)
		appendStringInfo(page->out, "%d of %d need a look, and come first.", ntrouble, n);
	else
		appendStringInfo(page->out, n == 1 ? "All days are there." : "All days of all %d are there.", n);
	appendStringInfoString(page->out, "</p>");
	put_months(page);
	appendStringInfoString(page->out, "<ul class=\"grid\">");
	left_out = put_rows(page, first, end, true, room_for_trouble);
	if (left_out > 0)
		appendStringInfo(page->out, "<li>and %d more that need a look</li>", left_out);
	left_out = put_rows(page, first, end, false, room_for_others);
	if (left_out > 0)
		appendStringInfo(page->out, "<li>and %d more with all of their days</li>", left_out);
	appendStringInfoString(page->out, "</ul>");
}

static int
end_of_template(const WhPage *page, int first)
{
	int			i = first;

	while (i < page->nunits && strcmp(page->units[i].template_name, page->units[first].template_name) == 0)
		i++;
	return i;
}

static void
put_templates(WhPage *page)
{
	int			ntrouble = count_trouble(page, 0, page->nunits);
	int			room_for_trouble = MAX_ROWS;
	int			room_for_others = Max(MAX_ROWS - ntrouble, 0);
	int			end;

	for (int first = 0; first < page->nunits; first = end)
	{
		end = end_of_template(page, first);
		put_template(page, first, end, &room_for_trouble, &room_for_others);
	}
}

/* ---- all together ---- */

static void
put_legend(const WhPage *page)
{
	appendStringInfoString(page->out, "<ul class=\"legend\">");
	for (int i = 0; i < lengthof(order); i++)
	{
		StringInfoData path;

		initStringInfo(&path);
		add_run(&path, order[i], 0, 3);
		appendStringInfo(page->out, "<li><svg viewBox=\"0 0 %d %d\" aria-hidden=\"true\">", 3 * CELL, HEIGHT);
		put_path(page->out, order[i], path.data, NULL);
		appendStringInfo(page->out, "</svg> %s</li>", wh_page_day_name(order[i]));
	}
	appendStringInfoString(page->out, "</ul>");
}

static int
count_on_day(const WhPage *page, int i, WhPageDay day)
{
	int			n = 0;

	for (int u = 0; u < page->nunits; u++)
		n += page->units[u].days[i] == day;
	return n;
}

/* Columns of a stacked chart: on the ground what is there, on top what is not. */
static void
put_columns(const WhPage *page)
{
	double	   *ground = palloc0(sizeof(double) * page->ndays);
	StringInfoData path;

	initStringInfo(&path);
	for (int o = 0; o < lengthof(order); o++)
	{
		resetStringInfo(&path);
		if (page->count[order[o]] == 0)
			continue;
		for (int i = 0; i < page->ndays; i++)
		{
			double		height = 100.0 * count_on_day(page, i, order[o]) / page->nunits;

			if (height == 0)
				continue;
			appendStringInfo(&path, "M%d %.4gh%dv-%.4gh-%dz", i * CELL + 1, 100 - ground[i], CELL - 2, height, CELL - 2);
			ground[i] += height;
		}
		appendStringInfo(page->out, "<path class=\"%c\" d=\"%s\"/>", classes[order[o]], path.data);
	}
}

static void
put_overview(const WhPage *page)
{
	appendStringInfo(page->out, "<figure><figcaption>All %s together: the share of them, day by day</figcaption>"
					 "<svg class=\"over\" viewBox=\"0 0 %d 100\" preserveAspectRatio=\"none\" role=\"img\"><title>",
					 wh_page_count(page->nunits), page->ndays * CELL);
	for (int i = lengthof(order) - 1, n = 0; i >= 0; i--)
		if (page->count[order[i]] > 0)
			appendStringInfo(page->out, "%s%s days %s", n++ > 0 ? ", " : "", wh_page_count(page->count[order[i]]),
							 wh_page_day_name(order[i]));
	appendStringInfoString(page->out, "</title>");
	put_columns(page);
	appendStringInfoString(page->out, "</svg></figure>");
}

/* ---- in numbers ---- */

static void
put_number(StringInfo out, int64 n)
{
	appendStringInfo(out, "<td>%s</td>", n == 0 ? "" : wh_page_count(n));
}

static void
put_numbers_row(const WhPage *page, const WhPageUnit *unit)
{
	StringInfo	out = page->out;

	appendStringInfo(out, "<tr><td>%s</td><th scope=\"row\">%s</th>", wh_page_name(unit->template_name), row_name(unit));
	put_number(out, unit->count[WH_DAY_LOADED] + unit->count[WH_DAY_COMBINED]);
	put_number(out, unit->count[WH_DAY_QUEUED]);
	put_number(out, unit->count[WH_DAY_SUSPECT]);
	put_number(out, unit->count[WH_DAY_NOT_RENEWED]);
	put_number(out, unit->count[WH_DAY_MISSING] + unit->missing_before);
	put_number(out, unit->count[WH_DAY_FAILED]);
	appendStringInfo(out, "<td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>",
					 unit->data_through ? unit->data_through : "", unit->lag < 0 ? "" : wh_page_age(unit->lag),
					 unit->last_success ? unit->last_success : "",
					 unit->next_run ? unit->next_run : "");
}

static void
put_numbers(const WhPage *page)
{
	int			room_for_trouble = MAX_ROWS;
	int			room_for_others = Max(MAX_ROWS - count_trouble(page, 0, page->nunits), 0);

	appendStringInfoString(page->out, "<details><summary>The same in numbers</summary>"
						   "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Days in numbers\"><table>"
						   "<thead><tr><th scope=\"col\">Template</th><th scope=\"col\">Tenant</th>"
						   "<th scope=\"col\">Loaded</th><th scope=\"col\">Queued</th><th scope=\"col\">Suspect</th>"
						   "<th scope=\"col\">Not renewed</th><th scope=\"col\">Missing</th><th scope=\"col\">Failed</th>"
						   "<th scope=\"col\">Data through</th><th scope=\"col\">Lag</th><th scope=\"col\">Last load (UTC)</th>"
						   "<th scope=\"col\">Next run (UTC)</th></tr></thead><tbody>");
	for (int i = 0; i < page->nunits; i++)
	{
		const WhPageUnit *unit = &page->units[i];
		int		   *room = wh_page_unit_has_trouble(unit) ? &room_for_trouble : &room_for_others;

		if ((*room)-- > 0)
			put_numbers_row(page, unit);
	}
	appendStringInfoString(page->out, "</tbody></table></div></details>");
}

void
wh_page_days(WhPage *page)
{
	wh_page_section(page, "days", psprintf("The last %d days", page->ndays));
	if (page->nunits == 0)
		appendStringInfoString(page->out, "<p>No tenant is subscribed to a template yet.</p>");
	else
	{
		put_legend(page);
		if (page->nunits > 5)
			put_overview(page);
		put_templates(page);
		put_numbers(page);
	}
	wh_page_end_section(page);
}
