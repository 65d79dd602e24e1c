/*
 * member_rows.h: the rows of a relation of ours, read by a query on it.
 */
#ifndef WH_MEMBER_ROWS_H
#define WH_MEMBER_ROWS_H

#include "postgres.h"

typedef struct WhMemberRows WhMemberRows;

/*
 * Starts the query, a SELECT, with a snapshot of what is committed now in any
 * isolation level: it is newer than the locks of the caller.  What it allocates
 * is in a context below the current one.
 */
extern WhMemberRows *wh_member_rows_open(const char *sql);

/* The next row, a WhRowSource; false at the end, and then it may be closed. */
extern bool wh_member_rows_next(void *rows, Datum *values, bool *isnull);

extern void wh_member_rows_close(WhMemberRows *rows);

/*
 * Settings under which a cast of a day of an older shape gives the same for
 * everybody, up to AtEOXact_GUC() with the result.
 */
extern int	wh_member_rows_begin_settings(void);

#endif
