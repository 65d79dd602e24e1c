/*
 * late.h: days that arrive when their month or year is one table already.
 *
 * They have no relation of their own: their rows are exchanged inside the
 * table.  Called by refresh.c, and by subscribe.c to drop such a day.
 */
#ifndef WH_LATE_H
#define WH_LATE_H

#include "load.h"
#include "nodes/pg_list.h"
#include "template.h"

/* The table of a month or year. */
typedef struct WhLateTable
{
	char	   *relname;
	char	   *period;			/* 2024 or 2024-02, for people */
	DateADT		first;			/* of the period */
	DateADT		last;
	Oid			relid;			/* that the ledger knows */
	char	   *indexes_md5;	/* as in the ledger */
	int64		days;			/* that it holds, by the ledger */
	bool		holds_day;		/* the one that was asked for among them */
	int64		rows;			/* of that day */
	Oid			remade;			/* takes its place when a day is finished, or InvalidOid */
} WhLateTable;

struct WhRefresh;

/*
 * The table that holds the day, or to whose period it belongs; NULL if there is
 * none.  As it is now, in any isolation level; it stays so for a caller who has
 * the lock of the day's name (load.h).
 */
extern WhLateTable *wh_late_find(const char *template_name, const char *schema, DateADT date);

/* Like wh_load_day(), into a table of its own that wh_load_discard() drops. */
extern WhLoadedDay *wh_late_stage(const struct WhRefresh *refresh, WhRowSource source, void *arg);

/*
 * The rows of the day in the table are those of the stage, which is gone then;
 * nobody sees it before the commit, and nobody who reads waits.  A table of an
 * older shape, or with older indexes, is copied to one that takes its place in
 * wh_late_finish().  "tables" has those that this transaction has been at.
 * 23505 if a unique key does not hold over the period.  Waits for whoever else
 * is at the same table.
 */
extern void wh_late_prepare(struct WhRefresh *refresh, List **tables);

/*
 * The ledger, the place of a table that was remade, and the end of a relation of
 * the day's own, of which "own_relid" may be one.  Run by wh_politely(), SPI is
 * connected.
 */
extern void wh_late_finish(struct WhRefresh *refresh, Oid own_relid);

/*
 * Deletes the rows of a day that is in a table with others; false if it is not.
 * The caller has the lock of the day's name.
 */
extern bool wh_late_delete(const char *template_name, const char *schema, DateADT date);

#endif
