/*
 * rows.h: rows from a callback into a heap that nobody else sees.
 */
#ifndef WH_ROWS_H
#define WH_ROWS_H

/* Gives the next row, allocated in the current context; false at the end. */
typedef bool (*WhRowSource) (void *arg, Datum *values, bool *isnull);

/*
 * Every row of the source into "relid", of which nobody else knows yet,
 * frozen; the count.
 */
extern int64 wh_rows_load(Oid relid, WhRowSource source, void *arg);

#endif
