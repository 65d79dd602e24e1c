/*
 * hours.c: windows of the day, as "08:00-12:00, 22:00-02:00".
 *
 * A window that ends before it begins goes over midnight; windows may overlap
 * or follow each other.  Pure: knows no time zone and no clock, which are the
 * callers' (ready.c, and the check of a tenant's row).  Takes no locks,
 * allocates nothing and raises nothing.
 */
#include "postgres.h"

#include "hours.h"

static const char *
skip_blanks(const char *p)
{
	while (*p == ' ' || *p == '\t')
		p++;
	return p;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* "8:00", "08:00" or "24:00"; *p moves behind it. */
static bool
parse_time(const char **p, int *minute, const char **error)
{
	const char *s = skip_blanks(*p);
	int			hour = 0;
	int			ndigits = 0;

	*p = s;
	*error = "a time of the day is expected, such as 08:30";
	while (is_digit(*s) && ndigits++ < 2)
		hour = hour * 10 + (*s++ - '0');
	if (ndigits == 0 || ndigits > 2 || s[0] != ':' || !is_digit(s[1]) || !is_digit(s[2]) ||
		is_digit(s[3]))
		return false;
	*minute = hour * 60 + (s[1] - '0') * 10 + (s[2] - '0');
	*error = "there is no such time of the day";
	if (s[1] > '5' || *minute > WH_HOURS_DAY)
		return false;
	*p = s + 3;
	return true;
}

/* A window of no length could mean the whole day as well, so it is refused. */
static bool
parse_window(const char **p, WhHours *hours, const char **error)
{
	const char *start = skip_blanks(*p);
	int			from;
	int			to;

	if (!parse_time(p, &from, error))
		return false;
	*p = skip_blanks(*p);
	*error = "a hyphen and the end of the window are expected";
	if (**p != '-')
		return false;
	(*p)++;
	if (!parse_time(p, &to, error))
		return false;
	from %= WH_HOURS_DAY;
	*error = from == to ? "the window has no length" : "there are too many windows";
	if (from == to || hours->nwindows == WH_HOURS_MAX_WINDOWS)
	{
		*p = start;
		return false;
	}
	hours->windows[hours->nwindows].from = from;
	hours->windows[hours->nwindows++].to = to;
	*p = skip_blanks(*p);
	return true;
}

bool
wh_hours_parse(const char *text, WhHours *hours, const char **error, int *position)
{
	const char *p = text;
	bool		more = true;

	hours->nwindows = 0;
	while (more)
	{
		if (!parse_window(&p, hours, error))
			break;
		more = *p == ',';
		if (more)
			p++;
		else if (*p == '\0')
			return true;
		else
			*error = "a comma or the end is expected";
	}
	*position = (int) (p - text) + 1;
	return false;
}

/* What is left of one window at that minute; 0: it is not in it. */
static int
left_of_window(const WhHours *hours, int i, int minute)
{
	int			length = hours->windows[i].to - hours->windows[i].from;
	int			passed = minute - hours->windows[i].from;

	if (length < 0)
		length += WH_HOURS_DAY;
	if (passed < 0)
		passed += WH_HOURS_DAY;
	return Max(length - passed, 0);
}

int
wh_hours_left(const WhHours *hours, int minute)
{
	int			left = 0;
	bool		grew = true;

	/* Where one window ends another may go on. */
	while (grew && left < WH_HOURS_DAY)
	{
		grew = false;
		for (int i = 0; i < hours->nwindows; i++)
		{
			int			more = left_of_window(hours, i, (minute + left) % WH_HOURS_DAY);

			left += more;
			grew = grew || more > 0;
		}
	}
	return Min(left, WH_HOURS_DAY);
}
