/*
 * leaf.h: a day, month or year as a leaf of a partition tree.
 *
 * Made and filled as a table that nobody sees, attached when it is full.  Each
 * function connects SPI itself.
 */
#ifndef WH_LEAF_H
#define WH_LEAF_H

#include "rows.h"
#include "template.h"

typedef struct WhLeaf
{
	const WhTemplate *tmpl;
	const char *schema;			/* also the value of schema_name in its rows */
	DateADT		first;			/* day that it holds */
	DateADT		last;			/* included */
} WhLeaf;

/*
 * An empty table of that name in the leaf's schema, in a tablespace if one is
 * given; its OID.
 */
extern Oid	wh_leaf_create(const WhLeaf *leaf, const char *relname, const char *tablespace);

/*
 * Fills a leaf, or the heap that is to be swapped into one, from a source of
 * the template's columns; the count.  23514 if a row is outside of the leaf's days.
 */
extern int64 wh_leaf_load(const WhLeaf *leaf, Oid relid, WhRowSource source, void *arg);

/* As SQL: the condition that rows of these days fulfil, by the date column. */
extern char *wh_leaf_condition(const WhLeaf *leaf);

/* As SQL: the day of a row, by the date column. */
extern char *wh_leaf_day_expression(const WhTemplate *tmpl);

/* 23514 if a row of a relation with the template's columns is outside of the days. */
extern void wh_leaf_check_rows(const WhLeaf *leaf, Oid relid);

/*
 * Attaches a full table to the part of its subscription, which is made if it is
 * missing.  Within wh_politely().  42P17 if another leaf holds one of its days.
 */
extern void wh_leaf_attach(const WhLeaf *leaf, Oid relid);

/* Whether a relation has the columns of a leaf of that template, now. */
extern bool wh_leaf_has_shape(const WhTemplate *tmpl, Oid relid);

#endif
