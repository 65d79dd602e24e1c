/*
 * progress.h: a load as a row of pg_stat_progress_copy.
 */
#ifndef WH_PROGRESS_H
#define WH_PROGRESS_H

/*
 * Rows are about to be written for this relation.  False if a load of ours, or
 * what the session does otherwise, is shown already and stays; else the caller ends
 * it.  An error ends it too.
 */
extern bool wh_progress_begin(Oid relid);
extern void wh_progress_end(void);

/* So far; nothing where none was begun. */
extern void wh_progress_rows(int64 rows);
extern void wh_progress_bytes(int64 bytes);

/* The same for one index after the other, in pg_stat_progress_create_index. */
extern bool wh_progress_begin_index(Oid relid, Oid index_oid);

#endif
