/*
 * replace.h: a day of an older shape, or with older indexes, loaded again.
 */
#ifndef WH_REPLACE_H
#define WH_REPLACE_H

#include "leaf.h"
#include "template.h"

/*
 * Whether a relation cannot take new content, because it is not of the layout of
 * the template, has not these columns, or the indexes of the template are not
 * those that it was loaded with (md5 of their text; NULL if not known).
 */
extern bool wh_replace_needed(const WhTemplate *tmpl, TupleDesc columns, Oid relid,
							  const char *indexes_md5_of_day);

/* The name under which the new relation is loaded, in the same schema. */
extern char *wh_replace_temporary_name(const char *relname);

/*
 * Politely puts the new relation in the place of the old one: in the views or
 * in the tree, with its grants and comments, and in the end under its name.
 * "leaf" is what it becomes in a tree, or NULL.  2BP01, naming it, if
 * something of a user's depends on the old one.
 */
extern void wh_replace_finish(const WhTemplate *tmpl, const char *schema, const char *relname,
							  Oid old_relid, Oid new_relid, const WhLeaf *leaf);

#endif
