/*
 * member_rows.c: the rows of a relation of ours, read by a query on it.
 *
 * What is loaded already is written anew in another relation: days into the
 * table of their month, relations of one layout into those of the other.  Rows
 * are pulled from a plan and handed on one by one, so that rows.c can write
 * them many at a time, frozen, into a file that is as new as they are.
 *
 * Called by combine_copy.c and convert.c, which have locked the relation against
 * everybody who could change it.  May not know what the rows are for.  Takes no
 * lock but that of a reader.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "member_rows.h"

struct WhMemberRows
{
	MemoryContext memory;
	QueryDesc  *query;
};

WhMemberRows *
wh_member_rows_open(const char *sql)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "wh_worker member",
												 ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(memory);
	WhMemberRows *rows = palloc(sizeof(WhMemberRows));
	RawStmt    *raw;
	Query	   *query;

	PushActiveSnapshot(GetLatestSnapshot());
	sql = pstrdup(sql);
	raw = linitial_node(RawStmt, pg_parse_query(sql));
	query = linitial_node(Query, pg_analyze_and_rewrite_fixedparams(raw, sql, NULL, 0, NULL));
	rows->memory = memory;
	rows->query = CreateQueryDesc(pg_plan_query(query, sql, 0, NULL), sql, GetActiveSnapshot(),
								  InvalidSnapshot, None_Receiver, NULL, NULL, 0);
	ExecutorStart(rows->query, 0);
	PopActiveSnapshot();
	MemoryContextSwitchTo(old_context);
	return rows;
}

void
wh_member_rows_close(WhMemberRows *rows)
{
	ExecutorFinish(rows->query);
	ExecutorEnd(rows->query);
	FreeQueryDesc(rows->query);
	MemoryContextDelete(rows->memory);
}

static TupleTableSlot *
next_slot(WhMemberRows *rows)
{
	MemoryContext old_context = MemoryContextSwitchTo(rows->query->estate->es_query_cxt);
	TupleTableSlot *slot = ExecProcNode(rows->query->planstate);

	MemoryContextSwitchTo(old_context);
	return slot;
}

/* The next row leaves its page behind, and a batch is written later. */
static void
copy_values(TupleTableSlot *slot, Datum *values, bool *isnull)
{
	slot_getallattrs(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(slot->tts_tupleDescriptor, i);

		isnull[i] = slot->tts_isnull[i];
		values[i] = isnull[i] ? (Datum) 0 :
			datumCopy(slot->tts_values[i], column->attbyval, column->attlen);
	}
}

bool
wh_member_rows_next(void *rows, Datum *values, bool *isnull)
{
	TupleTableSlot *slot = next_slot(rows);

	if (TupIsNull(slot))
		return false;
	copy_values(slot, values, isnull);
	return true;
}

int
wh_member_rows_begin_settings(void)
{
	static const char *const settings[][2] = {
		{"timezone", "UTC"}, {"datestyle", "ISO, YMD"}, {"intervalstyle", "postgres"},
		{"extra_float_digits", "1"}, {"bytea_output", "hex"}, {"xmlbinary", "base64"}
	};
	int			nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}
