/*
 * swap.c: the files of a fresh heap under a day relation that is in use.
 *
 * Called by load.c.  Core's finish_heap_swap() builds the indexes anew under
 * AccessExclusiveLock; here they are built before, on the transient heap, and
 * the lock is held only while catalog rows are exchanged and until commit.
 * The exchange itself is core's swap_relation_files(), which is static: when
 * that changes in a new version of PostgreSQL, so must exchange_files().
 *
 * What belongs to the relation and not to its content stays as it is: OID,
 * owner, grants, comments, options, what depends on it, the CLUSTER mark.
 *
 * Materialized views, and tables that are leaves of a tree.
 *
 * Locks: ShareUpdateExclusiveLock on the relation, its indexes and its TOAST
 * table while the heap is filled; then AccessExclusiveLock on the relation,
 * its indexes, its TOAST table, in this order.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/toast_internals.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/dependency.h"
#include "catalog/heap.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/predicate.h"
#include "storage/smgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "compat.h"
#include "politely.h"
#include "progress.h"
#include "sqlutil.h"
#include "statistics.h"
#include "status.h"
#include "swap.h"

/* An index of the day relation and its copy on the transient heap. */
typedef struct IndexPair
{
	Oid			index;
	Oid			copy;
} IndexPair;

/* A name that only we know, and what it stands for. */
typedef struct HiddenName
{
	const char *ours;
	const char *users;
} HiddenName;

typedef struct Exchange
{
	Oid			relid;
	Oid			transient;
	List	   *index_pairs;
} Exchange;

static void
lock_parts(Relation day, LOCKMODE mode)
{
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(day))
		LockRelationOid(lfirst_oid(cell), mode);
	if (OidIsValid(day->rd_rel->reltoastrelid))
		LockRelationOid(day->rd_rel->reltoastrelid, mode);
}

void
wh_swap_lock_parts(Relation day)
{
	lock_parts(day, ShareUpdateExclusiveLock);
}

/* ---- errors in the user's names ---- */

/* As make_new_heap() names its heap: the OID makes it unique in the schema. */
static char *
copy_name(Oid relid)
{
	return psprintf("pg_temp_%u", relid);
}

static List *
add_hidden_name(List *hidden_names, Oid relid)
{
	HiddenName *hidden = palloc(sizeof(HiddenName));

	hidden->ours = copy_name(relid);
	hidden->users = get_rel_name(relid);
	return lappend(hidden_names, hidden);
}

static char *
replace_name(const char *text, const HiddenName *hidden)
{
	StringInfoData result;
	size_t		length = strlen(hidden->ours);
	const char *found;

	if (text == NULL)
		return NULL;
	initStringInfo(&result);
	while ((found = strstr(text, hidden->ours)) != NULL)
	{
		bool		whole = !isdigit((unsigned char) found[length]);

		appendBinaryStringInfo(&result, text, found - text);
		appendStringInfoString(&result, whole ? hidden->users : hidden->ours);
		text = found + length;
	}
	appendStringInfoString(&result, text);
	return result.data;
}

/* Asks no catalog: the transaction has failed. */
static void
use_users_names(ErrorData *error, const List *hidden_names)
{
	ListCell   *cell;

	foreach(cell, hidden_names)
	{
		const HiddenName *hidden = lfirst(cell);

		error->message = replace_name(error->message, hidden);
		error->detail = replace_name(error->detail, hidden);
		error->detail_log = replace_name(error->detail_log, hidden);
		error->hint = replace_name(error->hint, hidden);
		error->context = replace_name(error->context, hidden);
		error->table_name = replace_name(error->table_name, hidden);
		error->constraint_name = replace_name(error->constraint_name, hidden);
	}
}

/* ---- what the day relation has, on the transient heap ---- */

static Datum
column_setting(HeapTuple tuple, AttrNumber setting, bool *isnull)
{
	return SysCacheGetAttr(ATTNUM, tuple, setting, isnull);
}

/* Statistics target and options of one column, as ANALYZE obeys them. */
static void
copy_settings_of_column(Relation pg_attribute, Oid from, Oid to, AttrNumber attnum)
{
	HeapTuple	source = SearchSysCache2(ATTNUM, ObjectIdGetDatum(from), Int16GetDatum(attnum));
	HeapTuple	target = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(to), Int16GetDatum(attnum));
	Datum		values[Natts_pg_attribute] = {0};
	bool		isnull[Natts_pg_attribute] = {0};
	bool		replace[Natts_pg_attribute] = {0};
	const AttrNumber settings[] = {Anum_pg_attribute_attstattarget, Anum_pg_attribute_attoptions};
	bool		differs = false;

	if (!HeapTupleIsValid(source) || !HeapTupleIsValid(target))
		elog(ERROR, "cache lookup failed for column %d of relation %u or %u", attnum, from, to);	/* cannot happen */
	for (int i = 0; i < lengthof(settings); i++)
	{
		int			at = settings[i] - 1;
		bool		target_isnull;
		Datum		value = column_setting(target, settings[i], &target_isnull);

		values[at] = column_setting(source, settings[i], &isnull[at]);
		replace[at] = isnull[at] != target_isnull || (!isnull[at] && values[at] != value);
		differs = differs || replace[at];
	}
	if (differs)
	{
		target = heap_modify_tuple(target, RelationGetDescr(pg_attribute), values, isnull, replace);
		CatalogTupleUpdate(pg_attribute, &target->t_self, target);
	}
	ReleaseSysCache(source);
	heap_freetuple(target);
}

static void
copy_column_settings(Relation from, Oid to)
{
	Relation	pg_attribute = table_open(AttributeRelationId, RowExclusiveLock);
	TupleDesc	columns = RelationGetDescr(from);

	for (int i = 0; i < columns->natts; i++)
	{
		if (!TupleDescAttr(columns, i)->attisdropped)
			copy_settings_of_column(pg_attribute, RelationGetRelid(from), to, i + 1);
	}
	table_close(pg_attribute, RowExclusiveLock);
	CommandCounterIncrement();
}

/*
 * What is not ready is skipped by ANALYZE, and the exchange wants valid ones.
 * Each flag has to be set for itself.
 */
static void
make_index_valid(Oid index_oid, bool is_ready, bool is_valid)
{
	if (!is_ready)
		index_set_state_flags(index_oid, INDEX_CREATE_SET_READY);
	CommandCounterIncrement();
	if (!is_valid)
		index_set_state_flags(index_oid, INDEX_CREATE_SET_VALID);
	CommandCounterIncrement();
}

static IndexPair *
copy_index(Oid relid, Relation transient, Oid index_oid)
{
	IndexPair  *pair = palloc(sizeof(IndexPair));
	Relation	index = index_open(index_oid, AccessShareLock);
	Relation	copy;
	bool		shown;

	pair->index = index_oid;
	pair->copy = index_concurrently_create_copy(transient, index_oid,
												index->rd_rel->reltablespace,
												copy_name(index_oid));
	CommandCounterIncrement();
	copy = index_open(pair->copy, AccessExclusiveLock);
	shown = wh_progress_begin_index(relid, index_oid);
	index_build(transient, copy, BuildIndexInfo(copy), false, true);
	if (shown)
		wh_progress_end();
	index_close(copy, NoLock);
	CommandCounterIncrement();
	make_index_valid(pair->copy, false, false);
	copy_column_settings(index, pair->copy);
	index_close(index, NoLock);
	return pair;
}

static List *
copy_indexes(Relation day, Relation transient)
{
	List	   *pairs = NIL;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(day))
	{
		CHECK_FOR_INTERRUPTS();
		pairs = lappend(pairs, copy_index(RelationGetRelid(day), transient, lfirst_oid(cell)));
	}
	return pairs;
}

static List *
build_everything(Relation day, Relation transient, bool analyze)
{
	List	   *pairs;
	bool		pushed = wh_push_missing_snapshot();	/* for functions in indexes */

	wh_status_phase(WH_PHASE_INDEXING);
	copy_column_settings(day, RelationGetRelid(transient));
	pairs = copy_indexes(day, transient);
	if (analyze)
		wh_statistics_make(transient);
	if (pushed)
		PopActiveSnapshot();
	return pairs;
}

static List *
list_hidden_names(Relation day)
{
	List	   *hidden_names = add_hidden_name(NIL, RelationGetRelid(day));
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(day))
		hidden_names = add_hidden_name(hidden_names, lfirst_oid(cell));
	return hidden_names;
}

List *
wh_swap_prepare(Oid relid, Oid transient, bool analyze)
{
	Relation	day = table_open(relid, NoLock);
	Relation	heap = table_open(transient, AccessExclusiveLock);
	List	   *volatile hidden_names = list_hidden_names(day);
	List	   *volatile pairs = NIL;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		pairs = build_everything(day, heap, analyze);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		use_users_names(error, hidden_names);
		ReThrowError(error);
	}
	PG_END_TRY();
	table_close(heap, NoLock);
	table_close(day, NoLock);
	return pairs;
}

/* ---- before the lock ---- */

static void
move_statistics(Oid relid, Oid transient, List *index_pairs)
{
	ListCell   *cell;

	RemoveStatistics(relid, 0);
	CopyStatistics(transient, relid);
	foreach(cell, index_pairs)
	{
		const IndexPair *pair = lfirst(cell);

		RemoveStatistics(pair->index, 0);
		CopyStatistics(pair->copy, pair->index);
	}
	CommandCounterIncrement();
}

static void
sync_file(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);

	FlushRelationBuffers(rel);
	for (int fork = 0; fork <= MAX_FORKNUM; fork++)
	{
		if (smgrexists(RelationGetSmgr(rel), fork))
			smgrimmedsync(RelationGetSmgr(rel), fork);
	}
	relation_close(rel, NoLock);
}

/* With wal_level = minimal the commit would sync the new files. */
static void
sync_files(Oid transient, List *index_pairs)
{
	Relation	heap = table_open(transient, AccessShareLock);
	Oid			toast = heap->rd_rel->reltoastrelid;
	ListCell   *cell;

	table_close(heap, NoLock);
	sync_file(transient);
	if (OidIsValid(toast))
	{
		sync_file(toast);
		sync_file(toast_get_valid_index(toast, AccessShareLock));
	}
	foreach(cell, index_pairs)
		sync_file(((const IndexPair *) lfirst(cell))->copy);
}

/* The commit comes under the lock: leave it little to write. */
static void
write_out(Oid transient, List *index_pairs)
{
	if (!XLogIsNeeded())
		sync_files(transient, index_pairs);
	if (XactLastRecEnd != InvalidXLogRecPtr)
		XLogFlush(XactLastRecEnd);
}

void
wh_swap_write_out(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	List	   *pairs = NIL;
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		IndexPair  *pair = palloc0(sizeof(IndexPair));

		pair->copy = lfirst_oid(cell);
		pairs = lappend(pairs, pair);
	}
	table_close(rel, NoLock);
	write_out(relid, pairs);
}

/* ---- under the lock ---- */

static HeapTuple
pg_class_row(Oid relid)
{
	HeapTuple	tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);	/* cannot happen */
	return tuple;
}

/* What belongs to the content, from one row to the other; not what names it. */
static void
copy_file_columns(Form_pg_class to, const FormData_pg_class *from)
{
	to->relfilenode = from->relfilenode;
	to->reltablespace = from->reltablespace;
	to->relpersistence = from->relpersistence;
	to->reltoastrelid = from->reltoastrelid;
	to->relpages = from->relpages;
	to->reltuples = from->reltuples;
	to->relallvisible = from->relallvisible;
	WH_COPY_ALL_FROZEN(to, from);
}

/*
 * The first relation's file is new in this subtransaction; of the second one
 * the relation cache knows what it knew of the first.
 */
static void
exchange_in_relcache(Oid relid, Oid other_relid)
{
	Relation	rel = relation_open(relid, NoLock);
	Relation	other = relation_open(other_relid, NoLock);

	other->rd_createSubid = rel->rd_createSubid;
	other->WH_RD_NEW_FILE_SUBID = rel->WH_RD_NEW_FILE_SUBID;
	other->WH_RD_FIRST_FILE_SUBID = rel->WH_RD_FIRST_FILE_SUBID;
	WH_RELATION_ASSUME_NEW_FILE(rel);
	relation_close(rel, NoLock);
	relation_close(other, NoLock);
}

/* A TOAST table depends on its owner and on nothing else. */
static void
move_toast(Oid toast, Oid owner)
{
	ObjectAddress toast_address;
	ObjectAddress owner_address;
	long		count;

	if (!OidIsValid(toast))
		return;
	count = deleteDependencyRecordsFor(RelationRelationId, toast, false);
	if (count != 1)
		elog(ERROR, "expected one dependency record for TOAST table, found %ld", count);	/* cannot happen */
	ObjectAddressSet(toast_address, RelationRelationId, toast);
	ObjectAddressSet(owner_address, RelationRelationId, owner);
	recordDependencyOn(&toast_address, &owner_address, DEPENDENCY_INTERNAL);
}

/*
 * All rows are frozen, and no xid in them is older than the oldest that runs.
 * The day is populated, whatever it was.
 */
static void
set_heap_columns(Form_pg_class row)
{
	if (row->relkind == RELKIND_INDEX)
		return;
	row->relfrozenxid = RecentXmin;
	row->relminmxid = ReadNextMultiXactId();
	row->relispopulated = true;
}

/* Core's swap_relation_files(), TOAST by link, for what is no catalog. */
static void
exchange_files(Oid relid, Oid other_relid)
{
	Relation	pg_class = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	tuple = pg_class_row(relid);
	HeapTuple	other_tuple = pg_class_row(other_relid);
	Form_pg_class row = (Form_pg_class) GETSTRUCT(tuple);
	Form_pg_class other_row = (Form_pg_class) GETSTRUCT(other_tuple);
	FormData_pg_class before;
	CatalogIndexState indexes;

	memcpy(&before, row, CLASS_TUPLE_SIZE);
	copy_file_columns(row, other_row);
	copy_file_columns(other_row, &before);
	exchange_in_relcache(relid, other_relid);
	set_heap_columns(row);

	indexes = CatalogOpenIndexes(pg_class);
	CatalogTupleUpdateWithInfo(pg_class, &tuple->t_self, tuple, indexes);
	CatalogTupleUpdateWithInfo(pg_class, &other_tuple->t_self, other_tuple, indexes);
	CatalogCloseIndexes(indexes);
	InvokeObjectPostAlterHookArg(RelationRelationId, relid, 0, InvalidOid, true);
	InvokeObjectPostAlterHookArg(RelationRelationId, other_relid, 0, InvalidOid, true);

	move_toast(row->reltoastrelid, relid);
	move_toast(other_row->reltoastrelid, other_relid);

	heap_freetuple(tuple);
	heap_freetuple(other_tuple);
	table_close(pg_class, RowExclusiveLock);

	/* both are about to be invalidated, and each knows the other's file */
	WH_CLOSE_SMGR_BY_OID(relid);
	WH_CLOSE_SMGR_BY_OID(other_relid);
}

/* An index that a failed CREATE INDEX CONCURRENTLY left behind is whole now. */
static void
make_valid_if_not(Oid index_oid)
{
	Relation	index = index_open(index_oid, NoLock);
	bool		is_ready = index->rd_index->indisready;
	bool		is_valid = index->rd_index->indisvalid;

	index_close(index, NoLock);
	if (!is_ready || !is_valid)
		make_index_valid(index_oid, is_ready, is_valid);
}

static void
exchange_all_files(const Exchange *exchange)
{
	ListCell   *cell;

	exchange_files(exchange->relid, exchange->transient);
	foreach(cell, exchange->index_pairs)
	{
		const IndexPair *pair = lfirst(cell);

		exchange_files(pair->index, pair->copy);
	}
	CommandCounterIncrement();
	foreach(cell, exchange->index_pairs)
		make_valid_if_not(((const IndexPair *) lfirst(cell))->index);
}

/* With the old files; the transient heap and its indexes depend on nothing else. */
static void
drop_transient(Oid transient)
{
	ObjectAddress address;

	ObjectAddressSet(address, RelationRelationId, transient);
	performDeletion(&address, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
}

/* The names were those of the transient heap; the old ones are free now. */
static void
rename_toast(Relation day)
{
	Oid			toast = day->rd_rel->reltoastrelid;
	Oid			toast_index;
	char		name[NAMEDATALEN];

	if (!OidIsValid(toast))
		return;
	toast_index = toast_get_valid_index(toast, NoLock);
	snprintf(name, NAMEDATALEN, "pg_toast_%u", RelationGetRelid(day));
	RenameRelationInternal(toast, name, true, false);
	snprintf(name, NAMEDATALEN, "pg_toast_%u_index", RelationGetRelid(day));
	RenameRelationInternal(toast_index, name, true, true);
	CommandCounterIncrement();
	ResetRelRewrite(toast);
}

/* May be rolled back and started over; see politely.h. */
static void
exchange_under_lock(void *arg)
{
	const Exchange *exchange = arg;
	Relation	day = table_open(exchange->relid, NoLock);

	CheckTableNotInUse(day, "refresh");
	lock_parts(day, AccessExclusiveLock);
	/* of a serializable transaction that has read it, as core does */
	if (day->rd_rel->relkind == RELKIND_RELATION)
		TransferPredicateLocksToHeapRelation(day);
	table_close(day, NoLock);

	exchange_all_files(exchange);
	drop_transient(exchange->transient);

	day = table_open(exchange->relid, NoLock);
	rename_toast(day);
	RelationClearMissing(day);
	table_close(day, NoLock);
	CommandCounterIncrement();
}

/*
 * Autovacuum shall not analyze again what has been analyzed, except where
 * there are extended statistics: those of the new content it has to make.
 */
static void
report_content(Oid relid, int64 rows, bool has_statistics)
{
	Relation	day = table_open(relid, NoLock);

	if (has_statistics && RelationGetStatExtList(day) == NIL)
		WH_PGSTAT_REPORT_ANALYZE(day, rows);
	else
		wh_statistics_leave(day, rows);
	table_close(day, NoLock);
}

void
wh_swap_ready(Oid relid, Oid transient, List *index_pairs, bool has_statistics)
{
	if (has_statistics)
		move_statistics(relid, transient, index_pairs);
	write_out(transient, index_pairs);
}

void
wh_swap_exchange(Oid relid, Oid transient, List *index_pairs, int64 rows,
				 bool has_statistics)
{
	Exchange	exchange = {relid, transient, index_pairs};

	wh_politely(relid, exchange_under_lock, &exchange);
	report_content(relid, rows, has_statistics);
}
