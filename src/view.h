/*
 * view.h: one view of ours: what it reads, its columns, its text.
 */
#ifndef WH_VIEW_H
#define WH_VIEW_H

#include "access/tupdesc.h"
#include "lib/stringinfo.h"

/* The column that a public view adds to those of the template. */
#define WH_SCHEMA_NAME_COLUMN "schema_name"

/* A relation that a view reads: a day of a tenant view, a tenant view of the public one. */
typedef struct WhMember
{
	Oid			relid;
	char	   *schema;
	char	   *relname;
} WhMember;

/* A view of ours as it should be, and what has its name now. */
typedef struct WhView
{
	const char *schema;
	const char *name;
	const char *template_name;
	Oid			relid;			/* what has that name now, or InvalidOid */
	TupleDesc	columns;		/* of the template */
	const char *comment;		/* for a new one */
	bool		is_public;		/* adds schema_name */
	bool		is_isolated;	/* filters by who reads it, see isolation.c */
	bool		is_released;	/* needs nothing of ours, see release.c */
	uint64		nmembers;
	WhMember   *members;		/* nrefused more stand behind the nmembers */
	uint64		nrefused;		/* that are kept out, see budget.h */
	bool		refuses;		/* who reads it shall get an error, see budget.h */
	int64		locks;			/* of a query of it as it should be; 0: not counted */
	int64		locks_wanted;	/* with the refused members, if there are any */
	int64		locks_before;	/* of a tenant view, as it was made the last time */
	int64		refused_days_before;
} WhView;

/* The relation of that name, or InvalidOid. */
extern Oid	wh_view_find(const char *schema, const char *name);

/* The quoted, qualified name. */
extern char *wh_view_name(const WhView *view);

/* 42P07 unless the name is free or belongs to the view we made. */
extern void wh_view_check_is_ours(const WhView *view, Oid known_oid);

/* Exists, reads exactly its members (or refuses) and has exactly its columns? */
extern bool wh_view_is_up_to_date(const WhView *view);

/* Could CREATE OR REPLACE VIEW give it its columns?  True if there is none. */
extern bool wh_view_is_replaceable(const WhView *view);

/* Are the columns of the existing view the wanted ones? */
extern bool wh_view_columns_are_right(const WhView *view);

/* Has a relation these columns and no others? */
extern bool wh_view_relation_has_columns(Oid relid, TupleDesc columns);

/* Is it still there, now that we have its lock? */
extern bool wh_view_exists(const WhView *view);

/*
 * CREATE OR REPLACE VIEW, with the comment if it is new; sets relid.  42P07 if
 * ours is gone and something else has its name.
 */
extern void wh_view_create(WhView *view);

/*
 * The columns as a relation of any shape can give them, separated by commas:
 * typed NULLs for what it lacks, casts for what has changed.
 */
extern void wh_view_append_columns(StringInfo sql, TupleDesc columns, Oid relid);

/* The members' OIDs as an oid[]. */
extern Datum wh_view_member_oids(const WhView *view);

#endif
