/*
 * fuzz_template.c: any text as a template's columns, query or indexes.
 *
 * The first byte chooses which; the rest is the text. What is accepted has to
 * be data and nothing else: column definitions that mean the same when they are
 * written out, a query that stays inside the parentheses we put it into, and
 * indexes of our relation only.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/date.h"

#include "../src/template.h"
#include "fuzz.h"

#define SCHEMA "a \"schema\""
#define RELATION "events_2025_08_01"

/* The text as a C string, or NULL if no SQL statement could hold it. */
static char *
text_of(const uint8 *data, size_t size)
{
	char	   *text = wh_fuzz_guarded(size + 1);

	memcpy(text, data, size);
	text[size] = '\0';
	return strlen(text) == size && pg_verifymbstr(text, size, true) ? text : NULL;
}

static void
fuzz_columns(const char *text)
{
	WhTemplate	tmpl = {0};
	TupleDesc	again;

	tmpl.columns = wh_template_parse_columns("t", text);
	again = wh_template_parse_columns("t", wh_template_column_definition_list(&tmpl));
	wh_fuzz_require(again->natts == tmpl.columns->natts, "columns got lost");
	for (int i = 0; i < again->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(tmpl.columns, i);
		Form_pg_attribute b = TupleDescAttr(again, i);

		wh_fuzz_require(strcmp(NameStr(a->attname), NameStr(b->attname)) == 0 &&
						a->atttypid == b->atttypid && a->atttypmod == b->atttypmod,
						"a column is another one when it is written out");
	}
}

/* Whether the statements are one SELECT of everything from one subquery "t". */
static bool
is_one_subquery(List *statements)
{
	SelectStmt *select;
	RangeSubselect *range;

	if (list_length(statements) != 1)
		return false;
	select = (SelectStmt *) linitial_node(RawStmt, statements)->stmt;
	if (!IsA(select, SelectStmt) || select->op != SETOP_NONE ||
		list_length(select->targetList) != 1 || list_length(select->fromClause) != 1 ||
		select->whereClause != NULL || select->groupClause != NIL || select->havingClause != NULL ||
		select->sortClause != NIL || select->limitCount != NULL || select->limitOffset != NULL ||
		select->withClause != NULL || select->intoClause != NULL || select->lockingClause != NIL ||
		select->distinctClause != NIL || select->windowClause != NIL)
		return false;
	range = linitial(select->fromClause);
	return IsA(range, RangeSubselect) && !range->lateral && range->alias != NULL &&
		strcmp(range->alias->aliasname, "t") == 0 && range->alias->colnames == NIL;
}

static void
fuzz_query(char *text)
{
	WhTemplate	tmpl = {0};
	char	   *query;
	List	   *statements;

	tmpl.name = pstrdup("t");
	tmpl.query_template = text;
	query = wh_template_render(&tmpl, 9344);
	/* what the grammar refuses now is refused at the tenant, as a whole */
	statements = raw_parser(psprintf("SELECT * FROM (%s\n) AS t", query), RAW_PARSE_DEFAULT);
	wh_fuzz_require(is_one_subquery(statements), "a query leaves its parentheses");
}

static void
fuzz_indexes(char *text)
{
	WhTemplate	tmpl = {0};
	List	   *indexes;
	ListCell   *cell;

	tmpl.name = pstrdup("t");
	tmpl.indexes = text;
	indexes = wh_template_indexes(&tmpl, SCHEMA, RELATION);
	foreach(cell, indexes)
	{
		IndexStmt  *index = lfirst_node(IndexStmt, cell);

		wh_fuzz_require(index->relation != NULL && index->relation->catalogname == NULL &&
						strcmp(index->relation->schemaname, SCHEMA) == 0 &&
						strcmp(index->relation->relname, RELATION) == 0,
						"an index of another relation");
		wh_fuzz_require(index->idxname != NULL && index->idxname[0] != '\0' &&
						strlen(index->idxname) < NAMEDATALEN &&
						pg_verifymbstr(index->idxname, strlen(index->idxname), true),
						"an index without a name");
		wh_fuzz_require(!index->concurrent && !index->if_not_exists, "an index that may fail silently");
	}
}

void
wh_fuzz_template(const uint8 *data, size_t size)
{
	char	   *text = size > 0 ? text_of(data + 1, size - 1) : NULL;

	if (text == NULL)
		return;
	switch (data[0] % 3)
	{
		case 0:
			fuzz_columns(text);
			break;
		case 1:
			fuzz_query(text);
			break;
		case 2:
			fuzz_indexes(text);
			break;
	}
}
