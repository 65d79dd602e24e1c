/*
 * adopt.h: a warehouse that was built by pg_cron and dblink, taken over as it is.
 *
 * adopt.c does it, adopt_find.c says what there is, adopt_view.c reads the old
 * views, adopt_rule.c gives a day its new definition, adopt_sql.c is called.
 */
#ifndef WH_ADOPT_H
#define WH_ADOPT_H

#include "nodes/pg_list.h"

#include "template.h"
#include "tier.h"

/* A relation that has the name of a day, month or year of the template. */
typedef struct WhAdoptee
{
	Oid			relid;
	char	   *relname;
	WhTier		tier;
	DateADT		first;			/* of its period */
	DateADT		last;
	Oid			owner;
	bool		is_ours;		/* the ledger knows it already */
	bool		in_view;		/* the old tenant view reads it */
	const char *problem;		/* why it cannot be ours, or NULL */
	const char *remark;			/* what its owner should know, or NULL */
	bool		has_indexes;	/* all of the template's */
	int64		rows;
	int			ndays;
	Datum	   *days;			/* that it has rows of, dates */
	Datum	   *day_rows;		/* int8 */
} WhAdoptee;

/* The old tenant view, or the old public view. */
typedef struct WhAdoptedView
{
	const char *schema;
	Oid			relid;			/* InvalidOid: there is none */
	Oid			owner;
	bool		is_ours;
	const char *problem;		/* why it cannot be ours, or NULL */
	const char *remark;
	List	   *members;		/* OIDs of what it reads */
} WhAdoptedView;

typedef struct WhAdoption
{
	/* what is asked for */
	const char *template_name;
	const char *tenant_name;
	const char *schema;
	bool		dry_run;

	/* what there is */
	Oid			admin;
	bool		may_own;		/* the caller may give us what belongs to others */
	WhTemplate *tmpl;
	int			n;
	WhAdoptee  *relations;		/* days by date, months, years: the order of their locks */
	WhAdoptedView tenant_view;
	WhAdoptedView public_view;
	List	   *other_schemas;	/* whose views the public view reads, and that are not ours yet */
} WhAdoption;

/*
 * All of it, or with dry_run nothing but what would become of it.  42704, 22023,
 * 23505, 53200 and 55000 as the SQL functions say.
 */
extern void wh_adopt(WhAdoption *adoption);

/*
 * adopt_find.c: the relations by their names; then, when they are locked, what
 * keeps each from being ours, and its rows.
 */
extern void wh_adopt_find(WhAdoption *adoption);
extern void wh_adopt_judge(WhAdoption *adoption);

/* Something more that its owner should know. */
extern void wh_adopt_remark(WhAdoptee *relation, const char *remark);

/* How the first column differs from what the template has, for people, or NULL. */
extern char *wh_adopt_columns_problem(TupleDesc actual, TupleDesc wanted, const char *last_column, Oid last_type);

/* adopt_view.c: both views, what they read, and what keeps them from being ours. */
extern void wh_adopt_read_views(WhAdoption *adoption);

/*
 * adopt_rule.c: the definition of a materialized view, in place.  The caller keeps
 * REFRESH and DROP out; readers never look at it.
 */
extern void wh_adopt_define(Oid relid, const char *definition);

/* Between the two, as the caller of the SQL function, who may be a superuser. */
typedef struct WhAdoptCaller
{
	Oid			user;
	int			context;
} WhAdoptCaller;

extern void wh_adopt_become_caller(WhAdoptCaller *saved);
extern void wh_adopt_become_admin(const WhAdoptCaller *saved);

#endif
