/*
 * html.h: text of others inside of HTML that is also XML, and inside of SQL
 * that is shown in it.
 */
#ifndef WH_HTML_H
#define WH_HTML_H

#include "lib/stringinfo.h"

/*
 * Text as character data or as the value of a quoted attribute: printable
 * ASCII without markup and without backslashes, whatever the text holds.
 * Palloc'd; "" for NULL.
 */
extern char *wh_html(const char *text);

/* The same of its first "bytes" bytes or fewer, with three dots if that is not all. */
extern char *wh_html_clipped(const char *text, int bytes);

/*
 * A string constant of SQL that is the text when somebody pastes it: what does
 * not show, or changes how its neighbours show, is in it as an escape.  Not yet
 * HTML.
 */
extern char *wh_html_literal(const char *text);

#endif
