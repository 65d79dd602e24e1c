/*
 * combine_members.c: what is combined, and the locks that keep it as it is.
 *
 * Whoever loads or drops a day has the lock of its name before he reads the
 * ledger.  Here the names of all days of the period are locked, of those that
 * are not loaded too: a load that began before us has committed when we read
 * the ledger, and one that begins later finds its day in the table.
 *
 * Called by combine.c and combine_copy.c.  May not change anything.
 *
 * Locks, in this order: the advisory locks of the days' names, by date, those
 * of the months' names, that of the table's own name; on the members what keeps
 * out everybody who changes them and lets readers be.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/memutils.h"

#include "combine.h"
#include "load.h"
#include "sqlutil.h"
#include "tree.h"

/* How often the members may change while we wait for their locks. */
#define MAX_LOOKS 10

/* Of catalogs, the ledger, the views and the new table. */
#define LOCKS_BESIDES 150

/* ---- what there is ---- */

/*
 * Not by state: a suspect day stays one in the table.  That of a table is no
 * day's name.
 */
static bool
holds_many_days(const WhCombine *combine, const WhCombineMember *member)
{
	return strcmp(member->relname, wh_template_day_name(combine->template_name, member->first)) != 0;
}

static void
read_members(WhCombine *combine)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {
		WH_TEXT(combine->template_name), WH_TEXT(combine->schema),
		WH_DATE(combine->first), WH_DATE(combine->last)
	};
	uint64		n;

	wh_spi_begin();
	n = wh_query_latest("SELECT c.oid, c.relname, c.relkind = 'r',"
				 "       min(d.target_date), max(d.target_date), count(*)::integer,"
				 "       sum(d.rows)::bigint, sum(d.bytes)::bigint"
				 "  FROM _wh.day_loads d"
				 "  JOIN pg_catalog.pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation"
				 "   AND c.relkind IN ('m', 'r')"
				 "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = d.target_schema"
				 " WHERE d.template_name = $1 AND d.target_schema = $2"
				 "   AND d.target_date BETWEEN $3 AND $4"
				 " GROUP BY c.oid, c.relname, c.relkind ORDER BY min(d.target_date)",
				 lengthof(args), args);
	combine->nmembers = (int) n;
	combine->members = MemoryContextAllocZero(cxt, sizeof(WhCombineMember) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		WhCombineMember *member = &combine->members[i];

		member->relid = wh_get_oid(i, 1);
		member->relname = wh_get_text(cxt, i, 2);
		member->is_table = wh_get_bool(i, 3);
		member->first = wh_get_date(i, 4);
		member->last = wh_get_date(i, 5);
		member->days = wh_get_int4(i, 6);
		member->ledger_rows = wh_get_int8(i, 7);
		member->ledger_bytes = wh_get_int8(i, 8);
		member->in_tree = OidIsValid(wh_tree_parent(member->relid));
		member->is_combined = holds_many_days(combine, member);
	}
	wh_spi_end();
}

/* A month is combined too when its year is. */
static bool
is_combined_already(WhCombine *combine)
{
	for (int i = 0; i < combine->nmembers; i++)
	{
		const WhCombineMember *member = &combine->members[i];

		if (!member->is_combined ||
			(combine->month == 0 && strcmp(member->relname, combine->relname) != 0))
			continue;
		combine->already_combined = true;
		combine->relid = member->relid;
		combine->relname = member->relname;
		combine->rows = member->ledger_rows;
		return true;
	}
	return false;
}

Datum
wh_combine_member_oids(const WhCombine *combine)
{
	Datum	   *oids = palloc(sizeof(Datum) * Max(combine->nmembers, 1));

	for (int i = 0; i < combine->nmembers; i++)
		oids[i] = ObjectIdGetDatum(combine->members[i].relid);
	return wh_oid_array(oids, combine->nmembers);
}

/* ---- are there enough locks? ---- */

/*
 * What the drop of the members holds until the commit, as the catalogs have it:
 * relation, row type and its array, the rule of a materialized view, indexes,
 * TOAST table and its index.
 */
static int64
count_locks(const WhCombine *combine)
{
	WhArg		args[] = {wh_arg(OIDARRAYOID, wh_combine_member_oids(combine))};
	int64		names = combine->last - combine->first + 1 + (combine->month == 0 ? MONTHS_PER_YEAR : 0) + 1;

	wh_query("SELECT coalesce(sum(3 + (c.relkind = 'm')::integer + 2 * (c.reltoastrelid <> 0)::integer"
			 "   + (SELECT count(*) FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid)), 0)::bigint"
			 "  FROM pg_catalog.pg_class c WHERE c.oid = ANY ($1)", lengthof(args), args);
	return wh_get_int8(0, 1) + names + LOCKS_BESIDES;
}

static int64
count_locks_of_others(void)
{
	wh_query("SELECT count(*) FROM pg_catalog.pg_locks"
			 " WHERE NOT fastpath AND pid IS DISTINCT FROM pg_catalog.pg_backend_pid()", 0, NULL);
	return wh_get_int8(0, 1);
}

/*
 * Who fills the lock table makes everybody fail, readers too.  A quarter of what
 * nobody has now is left to them.
 */
static void
check_locks(const WhCombine *combine)
{
	int64		slots = MaxBackends + max_prepared_xacts;
	int64		room = max_locks_per_xact * slots;
	int64		others;
	int64		needed;

	wh_spi_begin();
	others = count_locks_of_others();
	needed = count_locks(combine);
	wh_spi_end();
	if (needed <= (room - others) / 4 * 3)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("combining %s of template \"%s\" in schema \"%s\" needs more locks than the server can safely give",
					combine->period, combine->template_name, combine->schema),
			 errdetail("It needs " INT64_FORMAT " for %d relations; the lock table has room for " INT64_FORMAT ", of which others hold " INT64_FORMAT ".",
					   needed, combine->nmembers, room, others),
			 errhint("%saise max_locks_per_transaction to " INT64_FORMAT " or more and restart the server.",
					 combine->month == 0 ? "Combine its months first, or r" : "R",
					 (needed * 4 / 3 + others) / slots + 1)));
}

/* ---- nobody may change it from here on ---- */

static void
lock_names(const WhCombine *combine)
{
	for (DateADT date = combine->first; date <= combine->last; date++)
		wh_load_lock(combine->schema, wh_template_day_name(combine->template_name, date));
	for (int month = 1; combine->month == 0 && month <= MONTHS_PER_YEAR; month++)
		wh_load_lock(combine->schema,
					 wh_template_period_name(combine->template_name, combine->year, month));
	wh_load_lock(combine->schema,
				 wh_template_period_name(combine->template_name, combine->year, combine->month));
}

/*
 * REFRESH, DROP, VACUUM and index DDL of people are kept out, readers are not.
 * A table could be written to as well.
 */
static void
lock_relations(const WhCombine *combine)
{
	for (int i = 0; i < combine->nmembers; i++)
		LockRelationOid(combine->members[i].relid,
						combine->members[i].is_table ? ShareRowExclusiveLock : ShareUpdateExclusiveLock);
}

static bool
same_members(const WhCombine *combine, const WhCombineMember *members, int nmembers)
{
	bool		same = combine->nmembers == nmembers;

	for (int i = 0; same && i < nmembers; i++)
		same = combine->members[i].relid == members[i].relid &&
			combine->members[i].days == members[i].days &&
			strcmp(combine->members[i].relname, members[i].relname) == 0;
	return same;
}

/* A person who had one locked before us may have renamed or dropped it. */
static void
read_and_lock_relations(WhCombine *combine)
{
	read_members(combine);
	for (int look = 0; look < MAX_LOOKS; look++)
	{
		WhCombineMember *members = combine->members;
		int			nmembers = combine->nmembers;

		if (is_combined_already(combine))
			return;
		lock_relations(combine);
		read_members(combine);
		if (same_members(combine, members, nmembers))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("days of %s of template \"%s\" change all the time in schema \"%s\"",
					combine->period, combine->template_name, combine->schema)));
}

void
wh_combine_lock_members(WhCombine *combine)
{
	read_members(combine);
	check_locks(combine);
	lock_names(combine);
	read_and_lock_relations(combine);
}
