/*
 * html.c: text of others inside of HTML.
 *
 * Called by the parts of the status page (status_page*.c).  Names and errors
 * hold whatever somebody wrote: quotes, markup, line ends, letters of any
 * script.  What comes out is ASCII on one line, with everything else as
 * character references.  So it means the same in every encoding of a database, a
 * client or a file, is well-formed XML too, and passes through COPY's text
 * format, which escapes backslashes and line ends, without a change.
 *
 * Touches no table and takes no lock.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "html.h"

/* What is no character, or may not be in XML. */
#define REPLACEMENT 0xFFFD

/* U+2400 and the following show what control character was meant. */
#define CONTROL_PICTURES 0x2400
#define PICTURE_OF_DELETE 0x2421

/* The text in UTF-8; *known is false if nobody knows what its bytes mean. */
static const char *
to_utf8(const char *text, bool *known)
{
	int			length = strlen(text);

	*known = true;
	if (GetDatabaseEncoding() != PG_SQL_ASCII)
		return pg_server_to_any(text, length, PG_UTF8);
	*known = pg_verify_mbstr(PG_UTF8, text, length, true);
	return text;
}

/* The character at *text, and *text behind it. */
static pg_wchar
next_character(const char **text, bool known)
{
	const unsigned char *start = (const unsigned char *) *text;

	if (*start < 0x80 || !known)
	{
		*text += 1;
		return *start < 0x80 ? *start : REPLACEMENT;
	}
	*text += pg_utf_mblen(start);
	return utf8_to_unicode(start);
}

/* What XML 1.0 has no place for is shown, not left out. */
static pg_wchar
in_xml(pg_wchar c)
{
	if (c < 0x20)
		return CONTROL_PICTURES + c;
	if (c == 0x7F)
		return PICTURE_OF_DELETE;
	if ((c >= 0x80 && c < 0xA0) || c == 0xFFFE || c == 0xFFFF)
		return REPLACEMENT;
	return c;
}

static void
append_character(StringInfo out, pg_wchar c)
{
	if (c >= 0x80 || strchr("&<>\"'\\", (int) c) != NULL)
		appendStringInfo(out, "&#%u;", (unsigned int) c);
	else
		appendStringInfoChar(out, (char) c);
}

char *
wh_html(const char *text)
{
	StringInfoData out;
	bool		known;
	const char *next;

	initStringInfo(&out);
	if (text == NULL)
		return out.data;
	next = to_utf8(text, &known);
	while (*next != '\0')
		append_character(&out, in_xml(next_character(&next, known)));
	return out.data;
}

char *
wh_html_clipped(const char *text, int bytes)
{
	int			length;

	if (text == NULL || (length = strlen(text)) <= bytes)
		return wh_html(text);
	return psprintf("%s...", wh_html(pnstrdup(text, pg_mbcliplen(text, length, bytes))));
}

/*
 * Line ends and other controls; spaces of no width and marks that turn the
 * direction of text, with which a command could look like another one.
 */
static bool
must_be_seen(pg_wchar c)
{
	return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C ||
		(c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
		(c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

static bool
needs_escapes(const char *utf8, bool known)
{
	while (*utf8 != '\0')
	{
		if (*utf8 == '\\' || must_be_seen(next_character(&utf8, known)))
			return true;
	}
	return false;
}

char *
wh_html_literal(const char *text)
{
	StringInfoData out;
	bool		known;
	const char *utf8 = to_utf8(text, &known);
	bool		escapes = needs_escapes(utf8, known);
	bool		converted = utf8 != text;
	const char *from = text;

	initStringInfo(&out);
	appendStringInfoString(&out, escapes ? "E'" : "'");
	/* the bytes are copied from the text, which may have another encoding */
	while (*from != '\0')
	{
		const char *start = utf8;
		pg_wchar	c = next_character(&utf8, known);
		int			length = converted ? pg_mblen(from) : utf8 - start;

		if (must_be_seen(c))
			appendStringInfo(&out, "\\u%04X", (unsigned int) c);
		else
		{
			if (*from == '\'' || *from == '\\')
				appendStringInfoChar(&out, *from);
			appendBinaryStringInfo(&out, from, length);
		}
		from += length;
	}
	appendStringInfoChar(&out, '\'');
	return out.data;
}
