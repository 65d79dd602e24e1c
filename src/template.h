/*
 * template.h: a template row made usable: rendered query, parsed columns,
 * parsed indexes.  Pure but for type look-ups; talks to no tenant.
 */
#ifndef WH_TEMPLATE_H
#define WH_TEMPLATE_H

#include "access/tupdesc.h"
#include "nodes/pg_list.h"
#include "utils/date.h"

#define WH_DATE_PLACEHOLDER "{TARGET_DATE}"

typedef struct WhTemplate
{
	char	   *name;
	int32		version;
	char	   *query_template; /* as written */
	char	   *change_probe;	/* as written, or NULL */
	char	   *column_definitions;
	char	   *indexes;
	bool		in_tree;		/* layout partitions */
	bool		tenant_isolation;
	char	   *date_column;	/* NULL: none was named */
	AttrNumber	date_attnum;	/* of it, in columns; 0 if there is none */
	TupleDesc	columns;		/* parsed column_definitions */
} WhTemplate;

/* Reads _wh.mv_templates by SPI (connects itself); 42704 if unknown. */
extern WhTemplate *wh_template_read(const char *name);

/*
 * Parses 'id INTEGER, store TEXT': names and types only.  The template's name
 * is for messages.  ERROR 42601, 22023, or what the type look-up says.
 */
extern TupleDesc wh_template_parse_columns(const char *template_name,
										   const char *column_definitions);

/* The number of the column of that name; 0 if there is none, or name is NULL. */
extern AttrNumber wh_template_find_column(TupleDesc columns, const char *name);

/*
 * The one SELECT of that column of a template, without semicolon and what
 * follows it; ERROR 42601/22023.
 */
extern char *wh_template_cut_query(const char *template_name, const char *column, const char *query);

/*
 * The single SELECT of the template, without trailing semicolon, with the
 * date put in; ready to be wrapped as "(" query "\n) AS t".
 */
extern char *wh_template_render(const WhTemplate *tmpl, DateADT date);

/* The same of its change_probe, which it has to have. */
extern char *wh_template_render_probe(const WhTemplate *tmpl, DateADT date);

/*
 * IndexStmt nodes for one relation: relation and index names set by us,
 * ready for ProcessUtility, one use each.  Index names are cut at 63 bytes
 * with a hash.
 */
extern List *wh_template_indexes(const WhTemplate *tmpl, const char *schema,
								 const char *relname);

/* 'a, b, c' quoted, and 'a integer, b text' quoted with typmods. */
extern char *wh_template_column_list(const WhTemplate *tmpl);
extern char *wh_template_column_definition_list(const WhTemplate *tmpl);

/* The name, or if it is too long its start with a stable hash. */
extern char *wh_template_fit_name(const char *name, int limit);

/* {template}_{YYYY_MM_DD}, cut with a stable hash to 63 bytes. */
extern char *wh_template_day_name(const char *template_name, DateADT date);

/* {template}_{YYYY_MM}, or with month 0 {template}_{YYYY}, cut likewise. */
extern char *wh_template_period_name(const char *template_name, int year, int month);

#endif
