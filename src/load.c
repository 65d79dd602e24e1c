/*
 * load.c: rows from a callback into the heap of a day relation.
 *
 * Called by refresh.c, and by convert.c for what is in another relation already.
 * A new day is loaded in place into its materialized view, or into a table that
 * becomes a leaf of its tree, which nobody can see before commit; an existing
 * one into a transient heap with indexes and statistics, whose files swap.c puts
 * under it.
 *
 * May not know where the rows come from, and may not hold a lock that a reader
 * feels before wh_load_swap().
 *
 * Locks, in this order: the advisory lock of the day; ShareUpdateExclusiveLock
 * on the day relation and its parts while it is loaded (keeps out REFRESH, DROP,
 * VACUUM and index DDL), on a leaf ShareRowExclusiveLock, because a table could
 * be written to as well; what swap.c locks, to the end of the transaction.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/cluster.h"
#include "commands/matview.h"
#include "commands/tablecmds.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "compat.h"
#include "leaf.h"
#include "load.h"
#include "progress.h"
#include "sqlutil.h"
#include "statistics.h"
#include "status.h"
#include "swap.h"
#include "template_code.h"
#include "wh_worker.h"

/* Tells our advisory locks from those of pg_advisory_lock(), which are 1 and 2: no reader can take ours. */
#define WH_LOCK_CLASS_DAY 0x5744

static void
day_error_context(void *arg)
{
	const char *const *names = arg;

	errcontext("day relation \"%s.%s\"", names[0], names[1]);
}

/* ---- checks of an existing relation ---- */

static void
check_is_ours(const WhDayTarget *target, Oid relid)
{
	if (relid == target->known_oid)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("relation \"%s.%s\" exists and was not made by wh_worker",
					target->schema, target->relname),
			 errhint("Rename or drop it, then load the day again. What dblink filled can be taken over with _wh.adopt().")));
}

static bool
is_matview(const WhDayTarget *target)
{
	return target->leaf == NULL && target->definition != NULL;
}

static const char *
kind_of(const WhDayTarget *target)
{
	return is_matview(target) ? "materialized view" : "table";
}

static void
check_is_own(const WhDayTarget *target, Relation rel)
{
	if (rel->rd_rel->relkind != (is_matview(target) ? RELKIND_MATVIEW : RELKIND_RELATION))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation \"%s.%s\" is no longer a %s",
						target->schema, target->relname, kind_of(target)),
				 errhint("Rename or drop it, then load the day again.")));
	if (!WH_OWNS_RELATION(RelationGetRelid(rel), GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s \"%s.%s\" is not owned by role \"%s\"",
						kind_of(target), target->schema, target->relname,
						GetUserNameFromId(GetUserId(), false)),
				 errhint("Give it back with ALTER %s … OWNER TO, or drop it.",
						 is_matview(target) ? "MATERIALIZED VIEW" : "TABLE")));
}

static bool
same_column(Form_pg_attribute actual, Form_pg_attribute wanted)
{
	return !actual->attisdropped &&
		strcmp(NameStr(actual->attname), NameStr(wanted->attname)) == 0 &&
		actual->atttypid == wanted->atttypid &&
		actual->atttypmod == wanted->atttypmod;
}

static bool
same_columns(TupleDesc actual, TupleDesc wanted)
{
	bool		same = actual->natts == wanted->natts;

	for (int i = 0; same && i < wanted->natts; i++)
		same = same_column(TupleDescAttr(actual, i), TupleDescAttr(wanted, i));
	return same;
}

static void
check_shape(const WhDayTarget *target, Relation rel)
{
	bool		same = target->leaf != NULL ?
		wh_leaf_has_shape(target->leaf->tmpl, RelationGetRelid(rel)) :
		same_columns(RelationGetDescr(rel), target->columns);

	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("%s \"%s.%s\" does not have the columns of the template",
						kind_of(target), target->schema, target->relname),
				 errdetail("The template's column definitions changed after the day was first loaded."),
				 errhint("Drop the day with _wh.drop_day() and load it again.")));
}

/* ---- a new day ---- */

static void
build_index(IndexStmt *stmt)
{
	PlannedStmt *wrapper = makeNode(PlannedStmt);
	bool		pushed = wh_push_missing_snapshot();

	wrapper->commandType = CMD_UTILITY;
	wrapper->utilityStmt = (Node *) stmt;
	wrapper->stmt_location = -1;
	wrapper->stmt_len = 0;
	ProcessUtility(wrapper, "CREATE INDEX", false, PROCESS_UTILITY_QUERY,
				   NULL, NULL, None_Receiver, NULL);
	if (pushed)
		PopActiveSnapshot();
	CommandCounterIncrement();
}

/* A day that was renamed by hand still has its indexes under their names. */
static void
check_index_name_is_free(const IndexStmt *stmt, Oid namespace_oid)
{
	Oid			relid = get_relname_relid(stmt->idxname, namespace_oid);
	Oid			owner = OidIsValid(relid) ? IndexGetRelation(relid, true) : InvalidOid;

	if (!OidIsValid(relid))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DUPLICATE_TABLE),
			 errmsg("relation \"%s.%s\" exists, and the day needs that name for an index",
					stmt->relation->schemaname, stmt->idxname),
			 OidIsValid(owner) ?
			 errdetail("It is an index of relation \"%s\".", get_rel_name(owner)) : 0,
			 errhint("Rename or drop it, then load the day again.")));
}

/* PostgreSQL restricts the build, not the analysis that comes before it. */
static void
load_index(IndexStmt *stmt, Oid namespace_oid)
{
	WhRestricted restricted;

	CHECK_FOR_INTERRUPTS();
	check_index_name_is_free(stmt, namespace_oid);
	wh_restricted_begin(&restricted);
	wh_template_code_check_index(get_relname_relid(stmt->relation->relname, namespace_oid), stmt);
	build_index(stmt);
	wh_restricted_end(&restricted);
}

void
wh_load_indexes(List *indexes, const char *schema)
{
	Oid			namespace_oid = get_namespace_oid(schema, false);
	ListCell   *cell;

	foreach(cell, indexes)
		load_index(lfirst_node(IndexStmt, cell), namespace_oid);
}

static void
load_indexes_of_new(const WhDayTarget *target, Oid namespace_oid)
{
	ListCell   *cell;

	foreach(cell, target->indexes)
	{
		if (target->meanwhile != NULL)
			target->meanwhile(target->meanwhile_arg);
		load_index(lfirst_node(IndexStmt, cell), namespace_oid);
	}
	if (target->meanwhile != NULL)
		target->meanwhile(target->meanwhile_arg);
}

static void
set_populated(Oid relid)
{
	Relation	rel = table_open(relid, AccessExclusiveLock);

	SetMatViewPopulatedState(rel, true);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

static Oid
create_empty_day(const WhDayTarget *target, Oid namespace_oid)
{
	Oid			relid;
	Relation	rel;

	wh_spi_begin();
	wh_utility("CREATE MATERIALIZED VIEW %s AS %s WITH NO DATA",
			   quote_qualified_identifier(target->schema, target->relname),
			   target->definition);
	wh_spi_end();

	relid = get_relname_relid(target->relname, namespace_oid);
	rel = table_open(relid, AccessExclusiveLock);
	check_shape(target, rel);
	table_close(rel, NoLock);
	return relid;
}

/* Of a month or year outside of a tree. */
static Oid
create_empty_table(const WhDayTarget *target, Oid namespace_oid)
{
	StringInfoData sql;

	wh_spi_begin();
	initStringInfo(&sql);
	for (int i = 0; i < target->columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(target->columns, i);

		appendStringInfo(&sql, "%s%s %s", i > 0 ? ", " : "", quote_identifier(NameStr(column->attname)),
						 format_type_extended(column->atttypid, column->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
	}
	wh_utility("CREATE TABLE %s (%s)", quote_qualified_identifier(target->schema, target->relname), sql.data);
	wh_spi_end();
	return get_relname_relid(target->relname, namespace_oid);
}

static Oid
create_empty(const WhDayTarget *target, Oid namespace_oid)
{
	if (target->leaf != NULL)
		return wh_leaf_create(target->leaf, target->relname, NULL);
	return is_matview(target) ? create_empty_day(target, namespace_oid) :
		create_empty_table(target, namespace_oid);
}

static int64
load_rows(const WhDayTarget *target, Oid relid, WhRowSource source, void *arg)
{
	return target->leaf != NULL ? wh_leaf_load(target->leaf, relid, source, arg) :
		wh_rows_load(relid, source, arg);
}

static void
load_new_day(WhLoadedDay *day, const WhDayTarget *target, Oid namespace_oid,
			 WhRowSource source, void *arg)
{
	day->created = true;
	day->relid = create_empty(target, namespace_oid);
	day->rows = load_rows(target, day->relid, source, arg);
	if (is_matview(target))
		set_populated(day->relid);
	wh_status_phase(WH_PHASE_INDEXING);
	load_indexes_of_new(target, namespace_oid);
	wh_statistics_of_new(day->relid, day->rows);
}

/* ---- an existing day ---- */

/* What keeps out everybody who writes, and lets readers be. */
static LOCKMODE
load_lock_mode(const WhDayTarget *target)
{
	return is_matview(target) ? ShareUpdateExclusiveLock : ShareRowExclusiveLock;
}

static void
load_existing_day(WhLoadedDay *day, const WhDayTarget *target,
				  WhRowSource source, void *arg)
{
	Relation	rel = table_open(day->relid, load_lock_mode(target));
	bool		shown;

	check_is_own(target, rel);
	check_shape(target, rel);
	CheckTableNotInUse(rel, "refresh");
	wh_template_code_check_relation(day->relid);
	wh_swap_lock_parts(rel);
	day->transient = make_new_heap(day->relid, rel->rd_rel->reltablespace,
								   rel->rd_rel->relam, rel->rd_rel->relpersistence,
								   load_lock_mode(target));
	LockRelationOid(day->transient, AccessExclusiveLock);
	/* the transient heap is nobody's business */
	shown = wh_progress_begin(day->relid);
	day->rows = load_rows(target, day->transient, source, arg);
	if (shown)
		wh_progress_end();
	day->has_statistics = !wh_statistics_can_wait(rel, day->rows);
	table_close(rel, NoLock);
	day->index_pairs = wh_swap_prepare(day->relid, day->transient, day->has_statistics);
}

/* The relation may have been created or dropped just before we could lock it. */
static Oid
find_existing_day(const WhDayTarget *target, Oid namespace_oid)
{
	Oid			relid = get_relname_relid(target->relname, namespace_oid);

	if (!OidIsValid(relid))
		return InvalidOid;
	check_is_ours(target, relid);
	LockRelationOid(relid, load_lock_mode(target));
	if (get_relname_relid(target->relname, namespace_oid) != relid)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("relation \"%s.%s\" was dropped or renamed at the same time",
						target->schema, target->relname)));
	return relid;
}

static bool
lock_name(const char *schema, const char *relname, bool wait)
{
	char	   *name = quote_qualified_identifier(schema, relname);
	uint64		key = DatumGetUInt64(hash_any_extended((const unsigned char *) name,
													   strlen(name), 0));
	LOCKTAG		tag;
	bool		locked;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (key >> 32), (uint32) key,
						 WH_LOCK_CLASS_DAY);
	locked = LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
	pfree(name);
	return locked;
}

void
wh_load_lock(const char *schema, const char *relname)
{
	(void) lock_name(schema, relname, true);
}

bool
wh_load_try_lock(const char *schema, const char *relname)
{
	return lock_name(schema, relname, false);
}

WhLoadedDay *
wh_load_day(const WhDayTarget *target, WhRowSource source, void *arg)
{
	const char *names[2] = {target->schema, target->relname};
	Oid			namespace_oid = get_namespace_oid(target->schema, false);
	WhLoadedDay *day = palloc0(sizeof(WhLoadedDay));
	ErrorContextCallback callback;

	callback.callback = day_error_context;
	callback.arg = names;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	day->schema = target->schema;
	day->relname = target->relname;
	day->relid = find_existing_day(target, namespace_oid);
	if (OidIsValid(day->relid))
		load_existing_day(day, target, source, arg);
	else
		load_new_day(day, target, namespace_oid, source, arg);

	error_context_stack = callback.previous;
	return day;
}

void
wh_load_ready(const WhLoadedDay *day)
{
	if (OidIsValid(day->transient))
		wh_swap_ready(day->relid, day->transient, day->index_pairs, day->has_statistics);
}

void
wh_load_swap(const WhLoadedDay *day)
{
	const char *names[2] = {day->schema, day->relname};
	ErrorContextCallback callback;

	if (!OidIsValid(day->transient))
		return;

	callback.callback = day_error_context;
	callback.arg = names;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	wh_swap_exchange(day->relid, day->transient, day->index_pairs, day->rows,
					 day->has_statistics);

	error_context_stack = callback.previous;
}

void
wh_load_discard(const WhLoadedDay *day)
{
	ObjectAddress object;

	object.classId = RelationRelationId;
	object.objectId = day->created ? day->relid : day->transient;
	object.objectSubId = 0;
	if (!OidIsValid(object.objectId))
		return;
	performDeletion(&object, DROP_RESTRICT, PERFORM_DELETION_INTERNAL);
	CommandCounterIncrement();
}

int64
wh_load_bytes(Oid relid)
{
	return DatumGetInt64(DirectFunctionCall1(pg_total_relation_size,
											 ObjectIdGetDatum(relid)));
}

Oid
wh_load_file(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Oid			file = rel->rd_rel->relfilenode;

	table_close(rel, AccessShareLock);
	return file;
}
