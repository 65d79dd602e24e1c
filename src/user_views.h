/*
 * user_views.h: what is kept of a relation that is made anew, and the views
 * that users built on those of ours.
 *
 * SPI is connected by the caller.  Names are printed for the search_path
 * "pg_catalog, pg_temp", which the caller has set.
 */
#ifndef WH_USER_VIEWS_H
#define WH_USER_VIEWS_H

#include "nodes/pg_list.h"
#include "utils/acl.h"

/* Owner, privileges, options and comments, of the columns too. */
typedef struct WhSavedRelation
{
	char	   *schema;
	char	   *name;
	Oid			owner;
	Acl		   *acl;			/* NULL: the default */
	Datum		options;		/* reloptions */
	bool		has_options;
	char	   *comment;
	List	   *columns;		/* those with privileges or a comment */
} WhSavedRelation;

extern WhSavedRelation *wh_saved_read(Oid relid);

/* Gives them to another relation; what it has no column for is forgotten. */
extern void wh_saved_apply(const WhSavedRelation *saved, Oid relid);

/*
 * Locks the views that users built on "bases" (an oid[] of ours that are to be
 * dropped), the topmost first, and remembers them.  2BP01, naming it, for
 * whatever else hangs on them, or if "invoker" may not drop one.
 */
extern List *wh_user_views_save(Datum bases, Oid invoker, const char *template_name);

/* Drops them, the topmost first; makes them again, the lowest first. */
extern void wh_user_views_drop(List *views);
extern void wh_user_views_make(List *views, const char *template_name);

/* What of a user's hangs on a relation, described, but for a view of ours; or NULL. */
extern char *wh_user_views_dependent(Oid relid, Oid our_view);

/*
 * 2BP01, naming it, if anything of a user's hangs on "bases"; "what" says what
 * cannot be done, as the start of the message.
 */
extern void wh_user_views_refuse(Datum bases, const char *what);

#endif
