/*
 * plain_text.c: text from outside, made fit for messages, logs and terminals.
 *
 * Exists because a tenant's server may say anything: a megabyte of it, lines
 * that look like those of our log, escape sequences for the terminal of
 * whoever reads it.  Called by remote*.c for what a tenant says, by error.c for
 * what is kept of an error, which may quote a value, and by log_event.c and
 * activity.c for names.
 *
 * May not raise: error.c is called when the transaction has failed.  Knows no
 * catalogs.  Takes no lock.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "plain_text.h"

/* Whether the character of UTF-8 is one of those that nobody sees but a terminal. */
static bool
is_invisible(const unsigned char *p, int length)
{
	/* U+0080 to U+009F: as good as an escape */
	if (length == 2)
		return p[0] == 0xC2 && p[1] < 0xA0;
	if (length != 3 || p[0] != 0xE2)
		return false;
	/* U+2028 to U+202E and U+2066 to U+2069: line ends, and other directions */
	return (p[1] == 0x80 && p[2] >= 0xA8 && p[2] <= 0xAE) ||
		(p[1] == 0x81 && p[2] >= 0xA6 && p[2] <= 0xA9);
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* One character of the text, "length" bytes at "p"; returns how many were written. */
static int
put_character(char *to, const char *p, int length, bool at_space)
{
	if (is_space(*p))
	{
		*to = ' ';
		return at_space ? 0 : 1;
	}
	if ((unsigned char) *p < ' ' || *p == 0x7F ||
		(GetDatabaseEncoding() == PG_UTF8 && is_invisible((const unsigned char *) p, length)))
	{
		*to = '?';
		return 1;
	}
	memcpy(to, p, length);
	return length;
}

/* As many bytes of the text as matter, with valid characters only. */
static char *
valid_start(const char *text)
{
	int			length = strnlen(text, 4 * WH_PLAIN_TEXT_LIMIT);
	char	   *copy = pnstrdup(text, length);

	/* a character that the cut went through is left out */
	if (text[length] != '\0')
		copy[pg_mbcliplen(copy, length, length)] = '\0';
	if (!pg_verifymbstr(copy, strlen(copy), true))
	{
		for (char *p = copy; *p != '\0'; p++)
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
	}
	return copy;
}

char *
wh_plain_text(const char *text)
{
	char	   *copy = valid_start(text ? text : "");
	char	   *plain = palloc(strlen(copy) + sizeof("..."));
	const char *p = copy;
	int			length = 0;

	while (*p != '\0' && length < WH_PLAIN_TEXT_LIMIT)
	{
		int			bytes = pg_mblen(p);

		length += put_character(plain + length, p, bytes, length == 0 || plain[length - 1] == ' ');
		p += bytes;
	}
	while (length > 0 && plain[length - 1] == ' ')
		length--;
	plain[length] = '\0';
	if (*p != '\0')
		strcpy(plain + length, "...");
	pfree(copy);
	return plain;
}
