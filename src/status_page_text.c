/*
 * status_page_text.c: numbers, ages, names and bars of the status page.
 *
 * Called by its sections.  All that comes out of here is palloc'd and may be put
 * into HTML as it is.  Touches no table and takes no lock.
 */
#include "postgres.h"

#include "html.h"
#include "sqlutil.h"
#include "status_page.h"

char *
wh_page_count(int64 n)
{
	char		digits[32];
	StringInfoData out;
	int			length = snprintf(digits, sizeof(digits), INT64_FORMAT, n);

	initStringInfo(&out);
	for (int i = 0; i < length; i++)
	{
		if (i > 0 && (length - i) % 3 == 0 && digits[i - 1] != '-')
			appendStringInfoChar(&out, ',');
		appendStringInfoChar(&out, digits[i]);
	}
	return out.data;
}

/* One digit behind the point where there is one before it. */
static char *
scaled(double n, const char *const *units, int nunits, double step)
{
	int			i = 0;

	while (n >= step && i < nunits - 1)
	{
		n /= step;
		i++;
	}
	return psprintf(i > 0 && n < 9.95 ? "%.1f%s" : "%.0f%s", n, units[i]);
}

char *
wh_page_short(int64 n)
{
	static const char *const units[] = {"", " k", " M", " G", " T"};

	return scaled((double) n, units, lengthof(units), 1000);
}

char *
wh_page_bytes(int64 n)
{
	static const char *const units[] = {" B", " kB", " MB", " GB", " TB", " PB"};

	return scaled((double) n, units, lengthof(units), 1024);
}

char *
wh_page_age(double seconds)
{
	int64		s = (int64) Max(seconds, 0);

	if (s < 90)
		return psprintf("%d s", (int) s);
	if (s < 90 * 60)
		return psprintf("%d min", (int) (s / 60));
	if (s < 10 * 3600 && s % 3600 >= 60)
		return psprintf("%d h %d min", (int) (s / 3600), (int) (s % 3600 / 60));
	if (s < 48 * 3600)
		return psprintf("%d h", (int) (s / 3600));
	return psprintf("%d days", (int) (s / 86400));
}

char *
wh_page_name(const char *name)
{
	return psprintf("<bdi>%s</bdi>", wh_html(name));
}

/* The schema is named where it is not the tenant's own name. */
char *
wh_page_unit_name(const char *template_name, const char *tenant_name, const char *schema)
{
	if (schema != NULL && tenant_name != NULL && strcmp(schema, tenant_name) != 0)
		return psprintf("%s of %s in %s", wh_page_name(template_name), wh_page_name(tenant_name), wh_page_name(schema));
	if (tenant_name != NULL)
		return psprintf("%s of %s", wh_page_name(template_name), wh_page_name(tenant_name));
	return wh_page_name(template_name);
}

char *
wh_page_column(uint64 row, int col)
{
	return wh_html(wh_get_text(CurrentMemoryContext, row, col));
}

void
wh_page_bar(StringInfo out, double part, const char *words)
{
	appendStringInfo(out, "<svg class=\"bar\" viewBox=\"0 0 100 1\" preserveAspectRatio=\"none\" role=\"img\">"
					 "<title>%s</title><path class=\"empty\" d=\"M0 0h100v1H0z\"/>"
					 "<path class=\"full\" d=\"M0 0h%.1fv1H0z\"/></svg>",
					 words, Min(Max(part, 0), 1) * 100);
}

void
wh_page_section(WhPage *page, const char *id, const char *title)
{
	appendStringInfo(page->out, "<section id=\"%s\" aria-labelledby=\"%s-h\"><h2 id=\"%s-h\">%s</h2>",
					 id, id, id, title);
}

void
wh_page_end_section(WhPage *page)
{
	appendStringInfoString(page->out, "</section>");
}
