/*
 * combine_copy.c: the rows of days into the table of their month or year, and
 * the proof that all of them are there.
 *
 * Called by combine.c, which has locked the relations against everybody who
 * could change them.  A day of an older shape is read as the tenant view reads
 * it, with typed NULLs and casts; these are evaluated once, here, under
 * settings that do not depend on who calls.
 *
 * Rows are written by rows.c as those of a day are: many at a time, frozen, into
 * a file that is as new as they are.  A session with an older snapshot that
 * finds the new table behind the view has to see them, because the days they
 * came from are gone then.
 *
 * May not drop or publish anything.  Takes no lock but those of a reader.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "combine.h"
#include "load.h"
#include "member_rows.h"
#include "sqlutil.h"
#include "view.h"

/* The plan that reads one member after the other. */
typedef struct Copy
{
	WhCombine  *combine;
	MemoryContext memory;
	int			next_member;
	WhCombineMember *member;	/* that is being read, or NULL */
	WhMemberRows *rows;
} Copy;

/* ---- what is read ---- */

/* The rows of a member with the columns of the template, and their day if that is wanted. */
static char *
member_query(const WhCombine *combine, const WhCombineMember *member, bool with_day)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	wh_view_append_columns(&sql, combine->tmpl->columns, member->relid);
	if (with_day && member->is_combined)
		appendStringInfo(&sql, ", %s AS " WH_DATE_COLUMN,
						 wh_combine_day_expression(combine->tmpl, member->relid));
	else if (with_day)
		appendStringInfo(&sql, ", %s::pg_catalog.date AS " WH_DATE_COLUMN,
						 quote_literal_cstr(wh_date_text(member->first)));
	appendStringInfo(&sql, " FROM ONLY %s", quote_qualified_identifier(combine->schema, member->relname));
	return sql.data;
}

static void
open_member(Copy *copy)
{
	MemoryContext old_context = MemoryContextSwitchTo(copy->memory);

	copy->member = &copy->combine->members[copy->next_member++];
	copy->rows = wh_member_rows_open(member_query(copy->combine, copy->member,
												  !copy->combine->tmpl->in_tree));
	MemoryContextSwitchTo(old_context);
}

static void
close_member(Copy *copy)
{
	wh_member_rows_close(copy->rows);
	copy->rows = NULL;
	copy->member = NULL;
	MemoryContextReset(copy->memory);
}

/* A WhRowSource over all members. */
static bool
next_row(void *arg, Datum *values, bool *isnull)
{
	Copy	   *copy = arg;

	for (;;)
	{
		if (copy->member == NULL)
		{
			if (copy->next_member == copy->combine->nmembers)
				return false;
			open_member(copy);
		}
		if (wh_member_rows_next(copy->rows, values, isnull))
		{
			copy->member->rows++;
			return true;
		}
		close_member(copy);
	}
}

void
wh_combine_copy(WhCombine *combine)
{
	Copy		copy = {.combine = combine};
	WhLeaf		leaf = wh_combine_leaf(combine);

	copy.memory = AllocSetContextCreate(CurrentMemoryContext, "wh_worker combine",
										ALLOCSET_DEFAULT_SIZES);
	combine->rows = combine->tmpl->in_tree ? wh_leaf_load(&leaf, combine->relid, next_row, &copy) :
		wh_rows_load(combine->relid, next_row, &copy);
	MemoryContextDelete(copy.memory);
}

/* ---- counts ---- */

static void
report_difference(const WhCombine *combine, const char *relname, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("relation \"%s.%s\" does not have the rows that the ledger says",
					combine->schema, relname),
			 errdetail("%s", detail),
			 errhint("Load it again with _wh.update_mv_by_template(), then combine again.")));
}

static void
check_members(const WhCombine *combine)
{
	for (int i = 0; i < combine->nmembers; i++)
	{
		const WhCombineMember *member = &combine->members[i];

		if (member->rows != member->ledger_rows)
			report_difference(combine, member->relname,
							  psprintf("It has " INT64_FORMAT " rows, the ledger " INT64_FORMAT ".",
									   member->rows, member->ledger_rows));
	}
}

char *
wh_combine_difference(const WhTemplate *tmpl, const char *schema, Oid relid, Datum members)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(tmpl->name), WH_TEXT(schema), wh_arg(OIDARRAYOID, members)};
	char	   *detail = NULL;
	char	   *sql = psprintf(
		"SELECT target_date, coalesce(t.rows, 0), coalesce(d.rows, 0)"
		"  FROM (SELECT %s AS target_date, pg_catalog.count(*) AS rows FROM ONLY %s GROUP BY 1) t"
		"  FULL JOIN (SELECT target_date, rows FROM _wh.day_loads"
		"    WHERE template_name = $1 AND target_schema = $2 AND relation_oid = ANY ($3)) d USING (target_date)"
		" WHERE coalesce(t.rows, 0) <> coalesce(d.rows, 0) ORDER BY 1 LIMIT 1",
		wh_combine_day_expression(tmpl, relid), wh_relation_name(relid));

	wh_spi_begin();
	if (wh_query_once(sql, lengthof(args), args) > 0)
	{
		MemoryContext old_context = MemoryContextSwitchTo(cxt);

		detail = psprintf("Of %s it has " INT64_FORMAT " rows, the ledger " INT64_FORMAT ".",
						  wh_isnull(0, 1) ? "no day" : wh_date_text(wh_get_date(0, 1)),
						  wh_get_int8(0, 2), wh_get_int8(0, 3));
		MemoryContextSwitchTo(old_context);
	}
	wh_spi_end();
	return detail;
}

static void
check_days(const WhCombine *combine)
{
	char	   *difference = wh_combine_difference(combine->tmpl, combine->schema, combine->relid,
												   wh_combine_member_oids(combine));

	if (difference != NULL)
		report_difference(combine, combine->relname, difference);
}

/* ---- contents ---- */

/*
 * Sums of hashes over whole rows do not depend on their order, and numeric ones
 * do not overflow.  Every type has an output form, not every one a hash.
 */
static char *
sums_query(const char *rows_query)
{
	return psprintf("SELECT " WH_DATE_COLUMN ", pg_catalog.sum(pg_catalog.hashtextextended((r.*)::pg_catalog.text, 0))::pg_catalog.text"
					" FROM (%s) r GROUP BY 1", rows_query);
}

/* A text by day, from the first of the period on; NULL for days without rows. */
static void
read_sums(const WhCombine *combine, const char *rows_query, char **sums)
{
	MemoryContext cxt = CurrentMemoryContext;
	uint64		n;

	wh_spi_begin();
	n = wh_query_once(sums_query(rows_query), 0, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		DateADT		date = wh_get_date(i, 1);

		if (date < combine->first || date > combine->last)
			report_difference(combine, combine->relname, "It has rows of other days.");
		sums[date - combine->first] = wh_get_text(cxt, i, 2);
	}
	wh_spi_end();
}

static bool
same_sum(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void
check_contents(const WhCombine *combine)
{
	int			ndays = combine->last - combine->first + 1;
	char	  **before = palloc0(sizeof(char *) * ndays);
	char	  **after = palloc0(sizeof(char *) * ndays);
	StringInfoData sql;

	for (int i = 0; i < combine->nmembers; i++)
	{
		CHECK_FOR_INTERRUPTS();
		read_sums(combine, member_query(combine, &combine->members[i], true), before);
	}
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	wh_view_append_columns(&sql, combine->tmpl->columns, combine->relid);
	appendStringInfo(&sql, ", %s AS " WH_DATE_COLUMN " FROM ONLY %s",
					 wh_combine_day_expression(combine->tmpl, combine->relid),
					 quote_qualified_identifier(combine->schema, combine->relname));
	read_sums(combine, sql.data, after);
	for (int i = 0; i < ndays; i++)
		if (!same_sum(before[i], after[i]))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("table \"%s.%s\" does not have the content of the relations it was made from",
							combine->schema, combine->relname),
					 errdetail("The check sums of %s differ.", wh_date_text(combine->first + i))));
}

void
wh_combine_check(WhCombine *combine)
{
	check_members(combine);
	check_days(combine);
	if (combine->verify_content)
		check_contents(combine);
}
