/*
 * rows.c: rows from a callback into a heap that nobody else sees.
 *
 * Called by load.c for a day, by leaf.c for one in a tree, by combine_copy.c
 * for a month or year.  Rows are written many at a time and frozen, which is
 * right only because the relation's file is as new as they are.
 *
 * May not know where the rows come from, nor what the relation is for.  Takes
 * no lock but that of the relation, which its maker has already.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "progress.h"
#include "row_form.h"
#include "rows.h"
#include "sqlutil.h"

#define WH_BATCH_ROWS 1000
#define WH_ROW_KEEP (32 * 1024) /* memory kept from row to row */
#define WH_BATCH_KEEP (64 * 1024)	/* memory kept from batch to batch */
#define WH_BATCH_BYTES (96 * 1024)	/* a batch that has grown to this is written */

/* No free space map: the file only ever grows while it is loaded. */
#define WH_INSERT_OPTIONS (TABLE_INSERT_FROZEN | TABLE_INSERT_SKIP_FSM)

/* Rows on their way into one relation. */
typedef struct Batch
{
	Relation	rel;
	CommandId	cid;
	BulkInsertState bulk_state;
	WhRowForm  *form;
	Datum	   *values;			/* of one row */
	bool	   *isnull;
	MemoryContext row_memory;	/* what the values point to */
	MemoryContext memory;		/* the rows at hand */
	TupleTableSlot *slots[WH_BATCH_ROWS];	/* made when first needed */
	int			nslots;			/* how many were made */
	int			nrows;			/* how many are filled */
	int64		rows_written;
} Batch;

static Batch *
batch_begin(Relation rel)
{
	Batch	   *batch = palloc0(sizeof(Batch));

	batch->rel = rel;
	batch->cid = GetCurrentCommandId(true);
	batch->bulk_state = GetBulkInsertState();
	batch->form = wh_row_form_create(RelationGetDescr(rel));
	batch->values = palloc(RelationGetNumberOfAttributes(rel) * sizeof(Datum));
	batch->isnull = palloc(RelationGetNumberOfAttributes(rel) * sizeof(bool));
	batch->row_memory = AllocSetContextCreate(CurrentMemoryContext, "wh_worker row",
											  WH_ROW_KEEP, 8 * 1024, 64 * 1024);
	batch->memory = AllocSetContextCreate(CurrentMemoryContext, "wh_worker batch",
										  WH_BATCH_KEEP, 8 * 1024, 64 * 1024);
	return batch;
}

/* Making all slots at once is a tenth of the work of a small day. */
static TupleTableSlot *
batch_next_slot(Batch *batch)
{
	if (batch->nrows == batch->nslots)
		batch->slots[batch->nslots++] =
			MakeSingleTupleTableSlot(RelationGetDescr(batch->rel), &TTSOpsHeapTuple);
	return batch->slots[batch->nrows];
}

static void
batch_write(Batch *batch)
{
	MemoryContext old_context;

	if (batch->nrows == 0)
		return;

	/* the insertion leaks into the current context */
	old_context = MemoryContextSwitchTo(batch->memory);
	table_multi_insert(batch->rel, batch->slots, batch->nrows, batch->cid,
					   WH_INSERT_OPTIONS, batch->bulk_state);
	MemoryContextSwitchTo(old_context);

	batch->rows_written += batch->nrows;
	for (int i = 0; i < batch->nrows; i++)
		ExecClearTuple(batch->slots[i]);
	batch->nrows = 0;
	wh_progress_rows(batch->rows_written);
	MemoryContextReset(batch->memory);
}

static bool
batch_is_full(Batch *batch)
{
	return batch->nrows == WH_BATCH_ROWS ||
		MemoryContextMemAllocated(batch->memory, false) >= WH_BATCH_BYTES;
}

/* Takes one row from the source; false at its end. */
static bool
batch_add_row(Batch *batch, WhRowSource source, void *arg)
{
	TupleTableSlot *slot = batch_next_slot(batch);
	MemoryContext old_context = MemoryContextSwitchTo(batch->row_memory);
	bool		found = source(arg, batch->values, batch->isnull);

	if (found)
	{
		MemoryContextSwitchTo(batch->memory);
		ExecStoreHeapTuple(wh_row_form(batch->form, batch->values, batch->isnull), slot, true);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(batch->row_memory);
	if (!found)
		return false;
	batch->nrows++;
	return true;
}

static int64
batch_end(Batch *batch)
{
	int64		rows;

	batch_write(batch);
	rows = batch->rows_written;
	FreeBulkInsertState(batch->bulk_state);
	table_finish_bulk_insert(batch->rel, WH_INSERT_OPTIONS);
	for (int i = 0; i < batch->nslots; i++)
		ExecDropSingleTupleTableSlot(batch->slots[i]);
	MemoryContextDelete(batch->memory);
	MemoryContextDelete(batch->row_memory);
	pfree(batch);
	return rows;
}

int64
wh_rows_load(Oid relid, WhRowSource source, void *arg)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);
	bool		pushed = wh_push_missing_snapshot();
	bool		shown = wh_progress_begin(relid);
	Batch	   *batch = batch_begin(rel);
	int64		rows;

	/* statistics.c decides whether they count as changed: not if ANALYZE sees them */
	pgstat_unlink_relation(rel);
	rel->pgstat_enabled = false;

	while (batch_add_row(batch, source, arg))
	{
		CHECK_FOR_INTERRUPTS();
		if (batch_is_full(batch))
			batch_write(batch);
	}
	rows = batch_end(batch);
	if (shown)
		wh_progress_end();

	if (pushed)
		PopActiveSnapshot();
	table_close(rel, NoLock);
	CommandCounterIncrement();
	return rows;
}
