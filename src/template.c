/*
 * template.c: a template row made usable: rendered query, parsed columns,
 * parsed indexes.
 *
 * What a user wrote is parsed with PostgreSQL's own grammar and never spliced
 * into SQL unseen: column definitions become a TupleDesc, indexes become
 * IndexStmt nodes whose names are set here, and the query is known to be one
 * SELECT before a date is put into it.  template_check.c runs the same code
 * when a row is written, so that an accepted row is one that can be used.
 *
 * Called by refresh.c and template_check.c.  Talks to no tenant,
 * writes no table, takes no lock but those of catalog look-ups.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/heap.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parse_node.h"
#include "parser/parse_type.h"
#include "parser/parser.h"
#include "port/pg_crc32c.h"
#include "utils/formatting.h"
#include "utils/guc.h"

#include "sqlutil.h"
#include "template.h"
#include "wh_worker.h"

#define SCHEMA_PLACEHOLDER "{schema}"
#define VIEW_PLACEHOLDER "{view_name}"

#define MAX_NAME_BYTES (NAMEDATALEN - 1)
#define HASH_SUFFIX_BYTES 9		/* "_" and eight digits */
#define DATE_SUFFIX_BYTES 11	/* "_YYYY_MM_DD" */

/* The public view has one column more, and a view has no more than a table. */
#define MAX_COLUMNS (MaxHeapAttributeNumber - 1)

/* A text of a template while it is parsed, for error messages. */
typedef struct TemplateText
{
	const char *column;			/* of _wh.mv_templates */
	const char *template_name;
	const char *text;			/* as written */
	int			prefix;			/* characters that we put before it */
} TemplateText;

/* Identifiers that stand for the placeholders; as long, to keep positions. */
typedef struct Markers
{
	char		schema[sizeof(SCHEMA_PLACEHOLDER)];
	char		view[sizeof(VIEW_PLACEHOLDER)];
} Markers;

/*
 * Type names and string literals mean the same for whoever writes a template
 * and for the workers, whatever their settings are.
 */
static int
begin_fixed_settings(void)
{
	int			nest_level = NewGUCNestLevel();

	(void) set_config_option("search_path", "pg_catalog, public, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("standard_conforming_strings", "on", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}

static const char *
character_at(const char *text, int position)
{
	while (--position > 0 && *text != '\0')
		text += pg_mblen(text);
	return text;
}

/*
 * Points into the text that the user wrote, not into the statement that
 * contains it or that we made of it.
 */
static void
template_text_callback(void *arg)
{
	TemplateText *source = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		position = Max(position - source->prefix, 1);
		position = Min(position, pg_mbstrlen(source->text) + 1);
		errposition(0);
		internalerrposition(position);
		internalerrquery(source->text);
		if (strncmp(character_at(source->text, position), WH_DATE_PLACEHOLDER,
					strlen(WH_DATE_PLACEHOLDER)) == 0)
			errhint("%s has to stand inside quotes, as in '%s'.",
					WH_DATE_PLACEHOLDER, WH_DATE_PLACEHOLDER);
	}
	errcontext("%s of template \"%s\"", source->column, source->template_name);
}

static void
push_template_text(ErrorContextCallback *callback, TemplateText *source)
{
	callback->callback = template_text_callback;
	callback->arg = source;
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

/* One pass, so that a replacement is never replaced itself; b may be NULL. */
static char *
replace_both(const char *text, const char *a, const char *a_value,
			 const char *b, const char *b_value)
{
	StringInfoData result;

	initStringInfo(&result);
	while (*text != '\0')
	{
		if (strncmp(text, a, strlen(a)) == 0)
		{
			appendStringInfoString(&result, a_value);
			text += strlen(a);
		}
		else if (b != NULL && strncmp(text, b, strlen(b)) == 0)
		{
			appendStringInfoString(&result, b_value);
			text += strlen(b);
		}
		else
			appendStringInfoChar(&result, *text++);
	}
	return result.data;
}

/* ---- names ---- */

/*
 * The same on every machine and version: names of relations that exist are
 * computed again.
 */
static uint32
stable_hash(const char *name)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, name, strlen(name));
	FIN_CRC32C(crc);
	return crc;
}

char *
wh_template_fit_name(const char *name, int limit)
{
	int			len = strlen(name);

	if (len <= limit)
		return pstrdup(name);
	return psprintf("%.*s_%08x", pg_mbcliplen(name, len, limit - HASH_SUFFIX_BYTES),
					name, stable_hash(name));
}

char *
wh_template_day_name(const char *template_name, DateADT date)
{
	char	   *suffix = wh_date_text(date);

	for (char *p = suffix; *p != '\0'; p++)
		if (*p == '-')
			*p = '_';
	return psprintf("%s_%s", wh_template_fit_name(template_name, MAX_NAME_BYTES - DATE_SUFFIX_BYTES), suffix);
}

char *
wh_template_period_name(const char *template_name, int year, int month)
{
	const char *start = wh_template_fit_name(template_name, MAX_NAME_BYTES - DATE_SUFFIX_BYTES);

	return month == 0 ? psprintf("%s_%04d", start, year) : psprintf("%s_%04d_%02d", start, year, month);
}

/* ---- columns ---- */

/*
 * Bytes of the identifier that starts here.  The scanner has clipped what it
 * gave us, and a column under another name than declared is no column.
 */
static int
identifier_bytes(const char *token)
{
	const char *p = token;

	if (*p != '"')
	{
		while (isalnum((unsigned char) *p) || *p == '_' || *p == '$' || IS_HIGHBIT_SET(*p))
			p++;
		return p - token;
	}
	for (p++; *p != '\0' && !(p[0] == '"' && p[1] != '"'); p++)
		if (*p == '"')
			p++, token++;		/* a doubled quote counts once */
	return p - token - 1;
}

static void
refuse_column(ParseState *pstate, const ColumnDef *column, int sqlstate, const char *problem)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("column \"%s\" %s", column->colname, problem),
			 parser_errposition(pstate, column->location)));
}

static void
check_column_name(ParseState *pstate, const ColumnDef *column)
{
	if (identifier_bytes(pstate->p_sourcetext + column->location) > MAX_NAME_BYTES)
		refuse_column(pstate, column, ERRCODE_NAME_TOO_LONG, "was written with a name of more than 63 bytes");
	if (SystemAttributeByName(column->colname) != NULL)
		refuse_column(pstate, column, ERRCODE_INVALID_PARAMETER_VALUE, "has the name of a system column");
	if (strcmp(column->colname, "_wh_date") == 0 || strcmp(column->colname, "schema_name") == 0)
		refuse_column(pstate, column, ERRCODE_INVALID_PARAMETER_VALUE, "has a name that the warehouse uses itself");
}

static void
add_column(ParseState *pstate, TupleDesc columns, int attnum, const ColumnDef *column)
{
	Oid			type;
	int32		typmod;

	if (column->constraints != NIL || column->collClause != NULL ||
		column->compression != NULL || column->fdwoptions != NIL)
		refuse_column(pstate, column, ERRCODE_INVALID_PARAMETER_VALUE, "has more than a name and a type");
	if (column->typeName->setof)
		refuse_column(pstate, column, ERRCODE_INVALID_PARAMETER_VALUE, "cannot be a set");
	check_column_name(pstate, column);

	for (int i = 0; i < attnum - 1; i++)
		if (strcmp(NameStr(TupleDescAttr(columns, i)->attname), column->colname) == 0)
			refuse_column(pstate, column, ERRCODE_DUPLICATE_COLUMN, "is declared twice");

	typenameTypeIdAndMod(pstate, column->typeName, &type, &typmod);
	TupleDescInitEntry(columns, attnum, column->colname, type, typmod,
					   list_length(column->typeName->arrayBounds));
	CheckAttributeType(column->colname, type,
					   TupleDescAttr(columns, attnum - 1)->attcollation, NIL, 0);
}

/* The elements, if the text was nothing but a list of them. */
static List *
table_elements(List *statements)
{
	CreateStmt *create = (CreateStmt *) linitial_node(RawStmt, statements)->stmt;

	if (list_length(statements) != 1 || !IsA(create, CreateStmt) ||
		create->inhRelations != NIL || create->partbound != NULL ||
		create->partspec != NULL || create->ofTypename != NULL ||
		create->options != NIL || create->oncommit != ONCOMMIT_NOOP ||
		create->tablespacename != NULL || create->accessMethod != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("column definitions are not a list of names and types"),
				 errhint("Write them as in 'id INTEGER, store TEXT, quantity NUMERIC(10,2)'.")));
	if (create->tableElts == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column definitions are empty")));
	if (list_length(create->tableElts) > MAX_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("template has %d columns, at most %d are possible",
						list_length(create->tableElts), MAX_COLUMNS)));
	return create->tableElts;
}

static TupleDesc
build_columns(ParseState *pstate)
{
	List	   *elements = table_elements(raw_parser(pstate->p_sourcetext, RAW_PARSE_DEFAULT));
	TupleDesc	columns = CreateTemplateTupleDesc(list_length(elements));
	ListCell   *cell;

	foreach(cell, elements)
	{
		if (!IsA(lfirst(cell), ColumnDef))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("column definitions hold a constraint or a LIKE clause"),
					 errhint("Only names and types belong there; unique indexes are made by the template's indexes.")));
		add_column(pstate, columns, foreach_current_index(cell) + 1, lfirst_node(ColumnDef, cell));
	}
	return columns;
}

TupleDesc
wh_template_parse_columns(const char *template_name, const char *column_definitions)
{
	static const char prefix[] = "CREATE TABLE t (";
	TemplateText source = {"column_definitions", template_name, column_definitions, sizeof(prefix) - 1};
	ErrorContextCallback callback;
	ParseState *pstate = make_parsestate(NULL);
	int			nest_level = begin_fixed_settings();
	TupleDesc	columns;

	/* the line break ends a comment that the user left open */
	pstate->p_sourcetext = psprintf("%s%s\n)", prefix, column_definitions);
	push_template_text(&callback, &source);
	columns = build_columns(pstate);
	error_context_stack = callback.previous;
	AtEOXact_GUC(true, nest_level);
	free_parsestate(pstate);
	return columns;
}

char *
wh_template_column_list(const WhTemplate *tmpl)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < tmpl->columns->natts; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(tmpl->columns, i)->attname)));
	return list.data;
}

char *
wh_template_column_definition_list(const WhTemplate *tmpl)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < tmpl->columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(tmpl->columns, i);

		appendStringInfo(&list, "%s%s %s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(column->attname)),
						 format_type_extended(column->atttypid, column->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	return list.data;
}

AttrNumber
wh_template_find_column(TupleDesc columns, const char *name)
{
	for (int i = 0; name != NULL && i < columns->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(columns, i)->attname), name) == 0)
			return i + 1;
	return 0;
}

/* ---- query ---- */

/* What keeps a SELECT from being a mere subquery, or NULL. */
static const char *
problem_of_select(const SelectStmt *select)
{
	const char *problem = NULL;
	ListCell   *cell;

	if (select->intoClause != NULL)
		return "writes into a table";
	if (select->lockingClause != NIL)
		return "locks rows";
	if (select->withClause != NULL)
	{
		foreach(cell, select->withClause->ctes)
			if (!IsA(lfirst_node(CommonTableExpr, cell)->ctequery, SelectStmt))
				return "changes data";
	}
	if (select->op != SETOP_NONE)
	{
		problem = problem_of_select(select->larg);
		if (problem == NULL)
			problem = problem_of_select(select->rarg);
	}
	return problem;
}

static RawStmt *
single_select(const char *column, List *statements)
{
	RawStmt    *statement;
	const char *problem;

	if (list_length(statements) != 1 ||
		!IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s is not a single SELECT", column)));

	statement = linitial_node(RawStmt, statements);
	problem = problem_of_select((SelectStmt *) statement->stmt);
	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s", column, problem),
				 errhint("It runs in a read-only transaction as a subquery.")));
	return statement;
}

char *
wh_template_cut_query(const char *template_name, const char *column, const char *query)
{
	TemplateText source = {column, template_name, query, 0};
	ErrorContextCallback callback;
	int			nest_level = begin_fixed_settings();
	RawStmt    *statement;
	int			start;

	push_template_text(&callback, &source);
	statement = single_select(column, raw_parser(query, RAW_PARSE_DEFAULT));
	error_context_stack = callback.previous;
	AtEOXact_GUC(true, nest_level);

	start = Max(statement->stmt_location, 0);
	return statement->stmt_len > 0 ? pnstrdup(query + start, statement->stmt_len) :
		pstrdup(query + start);
}

char *
wh_template_render(const WhTemplate *tmpl, DateADT date)
{
	return replace_both(wh_template_cut_query(tmpl->name, "query_template", tmpl->query_template),
						WH_DATE_PLACEHOLDER, wh_date_text(date), NULL, NULL);
}

char *
wh_template_render_probe(const WhTemplate *tmpl, DateADT date)
{
	return replace_both(wh_template_cut_query(tmpl->name, "change_probe", tmpl->change_probe),
						WH_DATE_PLACEHOLDER, wh_date_text(date), NULL, NULL);
}

/* ---- indexes ---- */

/* Identifiers that nothing in the text can be taken for. */
static Markers
choose_markers(const char *text)
{
	char	   *lower = asc_tolower(text, strlen(text));
	Markers		markers;

	for (int number = 0; number < 100000; number++)
	{
		snprintf(markers.schema, sizeof(markers.schema), "whs%05d", number);
		snprintf(markers.view, sizeof(markers.view), "whv%08d", number);
		if (strstr(lower, markers.schema) == NULL && strstr(lower, markers.view) == NULL)
			return markers;
	}
	elog(ERROR, "no marker left");	/* cannot happen */
}

static void
refuse_index(const char *problem, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("index definition %s", problem),
			 errhint("%s", hint)));
}

static void
check_index(const IndexStmt *index, const Markers *markers)
{
	const RangeVar *relation = index->relation;

	if (index->concurrent)
		refuse_index("says CONCURRENTLY", "Indexes are built before anybody sees the rows; leave it out.");
	if (relation->catalogname != NULL || relation->schemaname == NULL ||
		strcmp(relation->schemaname, markers->schema) != 0 ||
		strcmp(relation->relname, markers->view) != 0)
		refuse_index("is not for the template's relation", "Write ON {schema}.{view_name}.");
	if (index->idxname == NULL || strstr(index->idxname, markers->view) == NULL)
		refuse_index("has a name that would be the same for every day",
					 "Name it as in idx_{schema}_{view_name}_id.");

	/* the scanner may have clipped it, and with it what tells it from others */
	if (strlen(index->idxname) > MAX_NAME_BYTES - MAX_MULTIBYTE_CHAR_LEN)
		refuse_index("has a name that is too long as written", "Shorten what stands around the placeholders.");
}

/* Puts in our names, and makes sure that no marker stands anywhere else. */
static void
name_index(IndexStmt *index, const Markers *markers, const char *schema, const char *relname)
{
	char	   *name = replace_both(index->idxname, markers->schema, schema, markers->view, relname);
	char	   *rest;

	index->idxname = NULL;
	index->relation = NULL;
	rest = nodeToString(index);
	if (strstr(rest, markers->schema) != NULL || strstr(rest, markers->view) != NULL)
		refuse_index("has a placeholder in a place of its own",
					 "{schema} and {view_name} can stand in the index name and after ON.");

	index->idxname = wh_template_fit_name(name, MAX_NAME_BYTES);
	index->relation = makeRangeVar(pstrdup(schema), pstrdup(relname), -1);
	index->if_not_exists = false;	/* an index in the way is no index of ours */
}

static void
check_name_is_new(List *indexes, const char *name)
{
	ListCell   *cell;

	foreach(cell, indexes)
		if (strcmp(lfirst_node(IndexStmt, cell)->idxname, name) == 0)
			refuse_index("has the name of another one", "Give each index a name of its own.");
}

static List *
build_indexes(List *statements, const Markers *markers, const char *schema, const char *relname)
{
	List	   *indexes = NIL;
	ListCell   *cell;

	foreach(cell, statements)
	{
		IndexStmt  *index = (IndexStmt *) lfirst_node(RawStmt, cell)->stmt;

		if (!IsA(index, IndexStmt))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("indexes hold a statement that is not CREATE INDEX")));
		check_index(index, markers);
		name_index(index, markers, schema, relname);
		check_name_is_new(indexes, index->idxname);
		indexes = lappend(indexes, index);
	}
	return indexes;
}

List *
wh_template_indexes(const WhTemplate *tmpl, const char *schema, const char *relname)
{
	TemplateText source = {"indexes", tmpl->name, tmpl->indexes, 0};
	Markers		markers = choose_markers(tmpl->indexes);
	char	   *text = replace_both(tmpl->indexes, SCHEMA_PLACEHOLDER, markers.schema,
									VIEW_PLACEHOLDER, markers.view);
	ErrorContextCallback callback;
	int			nest_level = begin_fixed_settings();
	List	   *indexes;

	push_template_text(&callback, &source);
	indexes = build_indexes(raw_parser(text, RAW_PARSE_DEFAULT), &markers, schema, relname);
	error_context_stack = callback.previous;
	AtEOXact_GUC(true, nest_level);
	return indexes;
}

/* ---- the table ---- */

WhTemplate *
wh_template_read(const char *name)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhTemplate *tmpl = palloc0(sizeof(WhTemplate));
	WhArg		args[] = {WH_TEXT(name)};

	wh_spi_begin();
	if (wh_query("SELECT template_name, version, query_template, column_definitions, indexes,"
				 " layout OPERATOR(pg_catalog.=) 'partitions', date_column, change_probe, tenant_isolation"
				 " FROM _wh.mv_templates WHERE template_name OPERATOR(pg_catalog.=) $1",
				 1, args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("template \"%s\" does not exist", name),
				 errhint("Templates are the rows of _wh.mv_templates.")));
	tmpl->name = wh_get_text(cxt, 0, 1);
	tmpl->version = wh_get_int4(0, 2);
	tmpl->query_template = wh_get_text(cxt, 0, 3);
	tmpl->column_definitions = wh_get_text(cxt, 0, 4);
	tmpl->indexes = wh_get_text(cxt, 0, 5);
	tmpl->in_tree = wh_get_bool(0, 6);
	tmpl->date_column = wh_get_text(cxt, 0, 7);
	tmpl->change_probe = wh_get_text(cxt, 0, 8);
	tmpl->tenant_isolation = wh_get_bool(0, 9);
	wh_spi_end();

	tmpl->columns = wh_template_parse_columns(tmpl->name, tmpl->column_definitions);
	tmpl->date_attnum = wh_template_find_column(tmpl->columns, tmpl->date_column);
	return tmpl;
}
