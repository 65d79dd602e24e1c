/*
 * tree.h: the partition tree of a template: one root, a part per subscription.
 *
 * SPI is connected by the caller, but where said otherwise.
 */
#ifndef WH_TREE_H
#define WH_TREE_H

#include "template.h"

/* The schema that trees are in: nobody but us makes relations there. */
#define WH_TREE_SCHEMA "_wh"

/* The root that we made for the template, or InvalidOid. */
extern Oid	wh_tree_root(const char *template_name);

/* The part of a subscription that we made, or InvalidOid. */
extern Oid	wh_tree_part(const char *template_name, const char *schema);

/* The partitioned table that a relation is attached to, or InvalidOid.  Needs no SPI. */
extern Oid	wh_tree_parent(Oid relid);

/*
 * The columns that a leaf has to have: those of the tree, or of the tree that
 * would be made.  They are the template's by name and type, schema_name and
 * what the template has no longer.
 */
extern TupleDesc wh_tree_columns(const WhTemplate *tmpl);

/* The columns that a relation has, without dropped ones. */
extern TupleDesc wh_tree_columns_of(Oid relid);

/*
 * Makes what is missing of root and part, and returns the part.  Within
 * wh_politely().  42P07 if something else has a name that is needed, 40001 if
 * the tree has not the columns of the template.
 */
extern Oid	wh_tree_ensure(const WhTemplate *tmpl, const char *schema);

/*
 * The tree after the template's columns changed: gets those that are new.
 * Within wh_politely().  55000 for a column whose type changed.
 */
extern void wh_tree_follow(const WhTemplate *tmpl);

/*
 * Drop a part, or the root, with all that is still attached to it.  Within
 * wh_politely(); no view may read it any more.
 */
extern void wh_tree_drop_part(Oid part);
extern void wh_tree_drop_root(const char *template_name);

/*
 * AccessExclusiveLock on a relation of the ledger that is about to be dropped,
 * and before it on the part that it is attached to, if it is: dropping a leaf
 * shuts out the readers of its part.  Within wh_politely().
 */
extern void wh_tree_lock_leaf(Oid relid);

/*
 * The same, and drops it; 40001 if a person has renamed or moved it.  2BP01 if
 * something depends on it.
 */
extern void wh_tree_drop_relation(const char *schema, const char *relname, Oid relid);

/*
 * Leaves of a subscription's part with days that the ledger misses since the last
 * publication: a person renamed or moved them.  They are his, and no longer
 * belong into the views; and new leaves of these days need their place.  SPI is
 * connected by the caller, who detaches them after the view has been made.
 */
extern List *wh_tree_strays(const char *template_name, const char *schema);
extern void wh_tree_detach(List *leaves);

/* Remembers root and parts by their names: in a restored database they have other OIDs. */
extern void wh_tree_relink(const char *template_name);

/* The first moment of a day as a literal of the date column's type. */
extern char *wh_tree_bound(const WhTemplate *tmpl, DateADT date);

#endif
