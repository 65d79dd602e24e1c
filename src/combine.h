/*
 * combine.h: the days of a month or year in one table.  Called by
 * combine_sql.c, in the caller's transaction.
 */
#ifndef WH_COMBINE_H
#define WH_COMBINE_H

#include "leaf.h"
#include "template.h"

/* The last column of such a table: the day that a row is of.  Views leave it out. */
#define WH_DATE_COLUMN "_wh_date"

/* A relation that goes into the table: a day, or a month with all its days. */
typedef struct WhCombineMember
{
	Oid			relid;
	char	   *relname;
	bool		is_table;		/* a plain table: it can be written to */
	bool		in_tree;		/* attached to the part of its subscription */
	bool		is_combined;	/* of days of a month */
	DateADT		first;
	DateADT		last;
	int32		days;
	int64		ledger_rows;
	int64		ledger_bytes;
	int64		rows;			/* copied from it */
} WhCombineMember;

typedef struct WhCombine
{
	/* what is asked for */
	const char *template_name;
	const char *tenant_name;
	const char *schema;
	int			year;
	int			month;			/* 0: the whole year */
	bool		allow_missing;
	bool		verify_content; /* compare check sums too, not only counts */

	/* what that means */
	WhTemplate *tmpl;
	const char *period;			/* 2024 or 2024-02, for people */
	const char *relname;		/* of the table */
	DateADT		first;
	DateADT		last;

	/* what became of it */
	bool		already_combined;
	int			nmembers;
	WhCombineMember *members;	/* by date; those combined already: see above */
	int			nmissing;
	DateADT    *missing;
	Oid			relid;
	char	   *tablespace;		/* that the template wants it in, or NULL */
	int64		rows;
	int64		bytes;
	double		copy_seconds;
	double		index_seconds;
	double		check_seconds;
	double		exchange_seconds;
} WhCombine;

/*
 * Everything, from the refusals to the drop of what is in the table now.
 * 42704, 22023, 42P07, 55000 and 23505 as the SQL function says; what it
 * allocates is in the context of the caller.
 */
extern void wh_combine(WhCombine *combine);

/* What came of it, for people, on one line. */
extern char *wh_combine_summary(const WhCombine *combine);

/*
 * Makes the table "relname" with the columns and indexes of "tmpl" and copies the
 * members into it; for whoever has locked them and checks what came of it.
 */
extern void wh_combine_fill(WhCombine *combine);

/*
 * The columns of such a table outside of a tree: those of the template and
 * WH_DATE_COLUMN.
 */
extern TupleDesc wh_combine_columns(const WhTemplate *tmpl);

/* As SQL: the day of a row of such a table; in a tree the date column says it. */
extern char *wh_combine_day_expression(const WhTemplate *tmpl, Oid relid);

/* The leaf that the table of the period becomes in a tree. */
extern WhLeaf wh_combine_leaf(const WhCombine *combine);

/*
 * combine_members.c: locks the names of the period and what is loaded of it,
 * and fills in the members, or already_combined.
 */
extern void wh_combine_lock_members(WhCombine *combine);

/* Their OIDs as an oid[]. */
extern Datum wh_combine_member_oids(const WhCombine *combine);

/* combine_copy.c: the rows of all members into the new table, and their counts. */
extern void wh_combine_copy(WhCombine *combine);

/*
 * combine_copy.c: 55000 unless every day has in the table as many rows as the
 * ledger and its old relation say; with verify_content also the same ones.
 */
extern void wh_combine_check(WhCombine *combine);

/*
 * combine_copy.c: where a table that was made of "members" (an oid[]) differs by
 * day from what the ledger says of these, for people; nothing too much either.
 * NULL: nowhere.
 */
extern char *wh_combine_difference(const WhTemplate *tmpl, const char *schema, Oid relid, Datum members);

#endif
