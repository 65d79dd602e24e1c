/*
 * plain_text.h: text from outside, made fit for messages, logs and terminals.
 */
#ifndef WH_PLAIN_TEXT_H
#define WH_PLAIN_TEXT_H

/* Longer parts of a message are cut. */
#define WH_PLAIN_TEXT_LIMIT 2000

/*
 * A copy on one line, valid in the database's encoding, without characters
 * that a terminal obeys or that turn a line around, and of at most
 * WH_PLAIN_TEXT_LIMIT bytes and three dots.  NULL gives the empty string.
 */
extern char *wh_plain_text(const char *text);

#endif
