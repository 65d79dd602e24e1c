/*
 * cron.c: reads the text of a schedule; cron.h has the grammar.
 *
 * One pass from left to right, stopping at the first mistake.  All that was
 * accepted up to there is ASCII, so that the byte where it stops is also the
 * character that the error names, in any encoding of the server.
 *
 * Called where a schedule is written and where next_run is computed.  Pure: no
 * catalogs, no memory, no errors raised.
 */
#include "postgres.h"

#include <limits.h>

#include "cron.h"

#define MAX_INTERVAL_SECONDS SECS_PER_DAY
#define MAX_INTERVAL_MINUTES (SECS_PER_DAY / SECS_PER_MINUTE)

/* More digits than any number here has; what is longer is only "too large". */
#define MAX_DIGITS 9

typedef struct Field
{
	const char *name;
	int			low;
	int			high;
	int			hash_high;		/* the highest value of a plain H */
	const char *names;			/* three letters each, the first is low; or NULL */
} Field;

enum
{
	MINUTE, HOUR, DAY, MONTH, WEEKDAY, NFIELDS
};

static const Field fields[NFIELDS] = {
	[MINUTE] = {"minute", 0, 59, 59, NULL},
	[HOUR] = {"hour", 0, 23, 23, NULL},
	/* Every month has a day 28. */
	[DAY] = {"day of month", 1, 31, 28, NULL},
	[MONTH] = {"month", 1, 12, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
	/* Sunday at both ends of the week. */
	[WEEKDAY] = {"day of week", 0, 7, 6, "sunmontuewedthufrisat"},
};

static const char *const five_fields =
"A schedule has five fields: minute, hour, day of month, month, day of week.";
static const char *const intervals =
"Intervals are 1 to 86400 seconds or 1 to 1440 minutes.";
static const char *const no_reboot =
"A schedule names times; nothing runs because a server started.";
static const char *const macro_names =
"There are @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly.";

static const struct
{
	const char *name;
	const char *meaning;
}			macros[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

typedef struct Parser
{
	const char *text;
	const char *at;
	uint64		key_hash;
	WhCronError *error;
} Parser;

/* isspace() and the like ask the locale, and these bytes are the grammar's. */
static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool
is_hash(const char *at)
{
	return (at[0] == 'H' || at[0] == 'h') && !is_letter(at[1]);
}

/* Whether the parser is at the end of a field or of the text. */
static bool
at_end_of_word(const Parser *parser)
{
	return *parser->at == '\0' || is_space(*parser->at);
}

static void
skip_space(Parser *parser)
{
	while (is_space(*parser->at))
		parser->at++;
}

/* How many letters are here. */
static int
count_letters(const char *at)
{
	int			n = 0;

	while (n < INT_MAX && is_letter(at[n]))
		n++;
	return n;
}

static bool
is_word(const char *at, int length, const char *word)
{
	return strlen(word) == length && pg_strncasecmp(at, word, length) == 0;
}

static bool fail(Parser *parser, const char *at, const char *hint,
				 const char *format,...) pg_attribute_printf(4, 5);

/* Notes a mistake; false, so that a caller can return it. */
static bool
fail(Parser *parser, const char *at, const char *hint, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(parser->error->message, sizeof(parser->error->message), format, args);
	va_end(args);
	parser->error->hint = hint;
	parser->error->position = (int) (at - parser->text) + 1;
	return false;
}

/* What stands here fits nowhere.  Only ASCII is shown: half a character would be invalid. */
static bool
fail_unexpected(Parser *parser, const char *hint)
{
	char		c = *parser->at;

	if (c == '\0')
		return fail(parser, parser->at, hint, "the schedule ends too early");
	if (is_space(c))
		return fail(parser, parser->at, hint, "unexpected white space");
	if (c <= ' ' || c > '~')
		return fail(parser, parser->at, hint, "unexpected character");
	return fail(parser, parser->at, hint, "unexpected \"%c\"", c);
}

/* A number of which the caller has seen the first digit. */
static bool
parse_number(Parser *parser, int *number)
{
	const char *start = parser->at;

	*number = 0;
	while (is_digit(*parser->at))
	{
		if (parser->at - start >= MAX_DIGITS)
			return fail(parser, start, NULL, "the number is too large");
		*number = *number * 10 + (*parser->at++ - '0');
	}
	return true;
}

/* jan, or mon. */
static bool
parse_name(Parser *parser, const Field *field, int *value)
{
	int			length = count_letters(parser->at);
	const char *hint = NULL;
	int			i;

	for (i = 0; field->names != NULL && field->names[i] != '\0'; i += 3)
	{
		if (length == 3 && pg_strncasecmp(parser->at, field->names + i, 3) == 0)
		{
			*value = field->low + i / 3;
			parser->at += 3;
			return true;
		}
	}

	if (is_word(parser->at, length, "L"))
		hint = "The last day of a month is $ in the day of month.";
	else if (field->names == NULL)
		hint = "Only months and days of the week have names.";
	else if (field->low == 1)
		hint = "Months are 1 to 12 or jan to dec.";
	else
		hint = "Days of the week are 0 to 7 or sun to sat.";
	return fail(parser, parser->at, hint, "\"%.*s\" is no %s", Min(length, 20), parser->at,
				field->name);
}

/* One value of a field, as a number or a name. */
static bool
parse_value(Parser *parser, const Field *field, int *value)
{
	const char *start = parser->at;

	if (is_letter(*start))
		return parse_name(parser, field, value);
	if (*start == ',' || at_end_of_word(parser))
		return fail(parser, start, NULL, "a value is missing in the %s", field->name);
	if (*start == '?')
		return fail(parser, start, "Write * where any value will do.", "\"?\" has no meaning here");
	if (*start == '$')
		return fail(parser, start, "It stands alone or in a list in the day of month.",
					"\"$\" has no meaning here");
	if (!is_digit(*start))
		return fail_unexpected(parser, NULL);
	if (!parse_number(parser, value))
		return false;
	if (*value < field->low || *value > field->high)
		return fail(parser, start, NULL, "%s %d is not between %d and %d",
					field->name, *value, field->low, field->high);
	return true;
}

/* The part of a range from its "-" on. */
static bool
parse_range_end(Parser *parser, const Field *field, const char *start, int low, int *high)
{
	const char *end;
	bool		is_sunday;

	parser->at++;
	end = parser->at;
	if (!parse_value(parser, field, high))
		return false;

	is_sunday = field == &fields[WEEKDAY] && *high == 0;
	/* A name does not say which of the two Sundays it is: sat-sun. */
	if (is_sunday && low > 0 && is_letter(*end))
		*high = 7;
	if (*high < low)
		return fail(parser, start,
					is_sunday ? "Sunday as the end of a range is 7." : NULL,
					"the range %d-%d runs backwards", low, *high);
	return true;
}

/* "/n", if it is there; otherwise 0. */
static bool
parse_step(Parser *parser, int *step)
{
	const char *start;

	*step = 0;
	if (*parser->at != '/')
		return true;
	start = ++parser->at;
	if (*start == ',' || at_end_of_word(parser))
		return fail(parser, start, NULL, "a step is missing after \"/\"");
	if (!is_digit(*start))
		return fail_unexpected(parser, "A step is a number.");
	if (!parse_number(parser, step))
		return false;
	if (*step == 0)
		return fail(parser, start, NULL, "a step is at least 1");
	return true;
}

/* Sets every step-th bit of a range. */
static void
set_bits(uint64 *bits, int low, int high, int step)
{
	int			value;

	for (value = low; value <= high; value += step)
		*bits |= UINT64CONST(1) << value;
}

/* FNV-1a: next runs may not move with a version of PostgreSQL or a machine. */
static uint64
hash_of_key(const char *key)
{
	uint64		hash = UINT64CONST(0xcbf29ce484222325);

	for (; *key != '\0'; key++)
		hash = (hash ^ (unsigned char) *key) * UINT64CONST(0x100000001b3);
	return hash;
}

/*
 * A number below the limit.  The bits are mixed (as in splitmix64), because
 * keys differ in their last letter only, and once more for each field, because
 * those with one minute shall not share their hour.
 */
static int
hash_below(const Parser *parser, const Field *field, int limit)
{
	uint64		hash = parser->key_hash +
		UINT64CONST(0x9e3779b97f4a7c15) * (field - fields + 1);

	hash = (hash ^ (hash >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	hash = (hash ^ (hash >> 27)) * UINT64CONST(0x94d049bb133111eb);
	hash ^= hash >> 31;
	return hash % limit;
}

/* H, H(a-b), either with a step: then the hash says where the steps begin. */
static bool
parse_hash(Parser *parser, const Field *field, uint64 *bits)
{
	const char *start;
	int			low = field->low;
	int			high = field->hash_high;
	int			step;

	parser->at++;
	if (*parser->at == '(')
	{
		start = ++parser->at;
		if (!parse_value(parser, field, &low))
			return false;
		if (*parser->at != '-')
			return fail_unexpected(parser, "The range of an H is written H(1-5).");
		if (!parse_range_end(parser, field, start, low, &high))
			return false;
		if (*parser->at != ')')
			return fail_unexpected(parser, "The range of an H is written H(1-5).");
		parser->at++;
	}

	start = parser->at + 1;
	if (!parse_step(parser, &step))
		return false;
	if (step > high - low + 1)
		return fail(parser, start, NULL, "the step is larger than the range of %d values",
					high - low + 1);
	if (step == 0)
		*bits |= UINT64CONST(1) << (low + hash_below(parser, field, high - low + 1));
	else
		set_bits(bits, low + hash_below(parser, field, step), high, step);
	return true;
}

/* One element of a field's list. */
static bool
parse_element(Parser *parser, const Field *field, uint64 *bits, bool *last_day)
{
	const char *start = parser->at;
	int			low = field->low;
	int			high = field->high;
	int			step;

	if (is_hash(start))
		return parse_hash(parser, field, bits);
	if (*start == '$' && field == &fields[DAY])
	{
		parser->at++;
		*last_day = true;
		return true;
	}

	if (*start == '*')
		parser->at++;
	else
	{
		if (!parse_value(parser, field, &low))
			return false;
		if (*parser->at == '-')
		{
			if (!parse_range_end(parser, field, start, low, &high))
				return false;
		}
		else if (*parser->at != '/')
			high = low;
	}
	if (!parse_step(parser, &step))
		return false;
	set_bits(bits, low, high, Max(step, 1));
	return true;
}

static bool
parse_field(Parser *parser, const Field *field, uint64 *bits, bool *last_day)
{
	*bits = 0;
	for (;;)
	{
		if (!parse_element(parser, field, bits, last_day))
			return false;
		if (at_end_of_word(parser))
			return true;
		if (*parser->at != ',')
			return fail_unexpected(parser, NULL);
		parser->at++;
	}
}

static bool
parse_fields(Parser *parser, WhCron *cron)
{
	uint64		bits[NFIELDS];
	bool		begins_with_star[NFIELDS];
	int			i;

	for (i = 0; i < NFIELDS; i++)
	{
		skip_space(parser);
		if (*parser->at == '\0')
			return fail(parser, parser->at, five_fields, "the %s is missing", fields[i].name);
		begins_with_star[i] = *parser->at == '*';
		if (!parse_field(parser, &fields[i], &bits[i], &cron->last_day))
			return false;
	}
	skip_space(parser);
	if (*parser->at != '\0')
		return fail(parser, parser->at, five_fields, "there is more after the day of week");

	cron->minutes = bits[MINUTE];
	cron->hours = bits[HOUR];
	cron->days = bits[DAY];
	cron->months = bits[MONTH];
	cron->weekdays = (bits[WEEKDAY] | bits[WEEKDAY] >> 7) & 0x7f;
	cron->any_day = begins_with_star[DAY];
	cron->any_weekday = begins_with_star[WEEKDAY];
	cron->every_hour = cron->hours == 0xffffff;
	return true;
}

static bool
parse_macro(Parser *parser, WhCron *cron)
{
	const char *start = parser->at;
	int			length = 1 + count_letters(start + 1);
	int			i;

	parser->at += length;
	if (!at_end_of_word(parser))
		return fail_unexpected(parser, macro_names);
	for (i = 0; i < lengthof(macros); i++)
	{
		if (is_word(start, length, macros[i].name))
		{
			skip_space(parser);
			if (*parser->at != '\0')
				return fail(parser, parser->at, NULL, "there is more after %s", macros[i].name);
			parser->at = macros[i].meaning;
			return parse_fields(parser, cron);
		}
	}
	if (is_word(start, length, "@reboot"))
		return fail(parser, start, no_reboot, "@reboot is no schedule");
	return fail(parser, start, macro_names, "\"%.*s\" is no schedule", Min(length, 20), start);
}

/* The seconds in an interval's unit, or 0. */
static int
unit_seconds(const char *at, int length)
{
	if (is_word(at, length, "second") || is_word(at, length, "seconds"))
		return 1;
	if (is_word(at, length, "minute") || is_word(at, length, "minutes"))
		return SECS_PER_MINUTE;
	return 0;
}

/*
 * Whether the text is meant as "N seconds": its second word begins with a unit,
 * or is any word but H with nothing behind it.  Names are never second among
 * five fields.
 */
static bool
looks_like_interval(const char *text)
{
	Parser		ahead = {.text = text,.at = text};
	const char *word;
	int			length;

	if (!is_digit(*ahead.at))
		return false;
	while (!at_end_of_word(&ahead))
		ahead.at++;
	skip_space(&ahead);
	word = ahead.at;
	length = count_letters(word);
	if (unit_seconds(word, length) > 0)
		return true;
	ahead.at += length;
	skip_space(&ahead);
	return length > 0 && !is_hash(word) && *ahead.at == '\0';
}

static bool
parse_interval(Parser *parser, WhCron *cron)
{
	const char *start = parser->at;
	int			number;
	int			length;
	int			unit;

	if (!parse_number(parser, &number))
	{
		parser->error->hint = intervals;
		return false;
	}
	if (!at_end_of_word(parser))
		return fail_unexpected(parser, intervals);
	skip_space(parser);
	length = count_letters(parser->at);
	unit = unit_seconds(parser->at, length);
	if (unit == 0)
		return fail(parser, parser->at, intervals, "\"%.*s\" is no unit of an interval",
					Min(length, 20), parser->at);
	if (number < 1 || number > (unit == 1 ? MAX_INTERVAL_SECONDS : MAX_INTERVAL_MINUTES))
		return fail(parser, start, intervals, "an interval of %d %s is out of range",
					number, unit == 1 ? "seconds" : "minutes");
	parser->at += length;
	skip_space(parser);
	if (*parser->at != '\0')
		return fail(parser, parser->at, NULL, "there is more after the interval");
	cron->interval_seconds = number * unit;
	return true;
}

bool
wh_cron_parse(const char *text, const char *hash_key, WhCron *cron, WhCronError *error)
{
	Parser		parser = {
		.text = text,
		.at = text,
		.key_hash = hash_of_key(hash_key == NULL ? "" : hash_key),
		.error = error,
	};

	memset(cron, 0, sizeof(*cron));
	memset(error, 0, sizeof(*error));
	skip_space(&parser);
	if (*parser.at == '\0')
		return fail(&parser, text, five_fields, "the schedule is empty");
	if (*parser.at == '@')
		return parse_macro(&parser, cron);
	if (looks_like_interval(parser.at))
		return parse_interval(&parser, cron);
	return parse_fields(&parser, cron);
}
