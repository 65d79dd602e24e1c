/*
 * orphan_sql.c: who is told of files without a relation: whoever calls
 * _wh.orphaned_files(), and the server log.
 *
 * The launcher looks a little after its start, because a crash restarts it and
 * is what leaves such files, and every hour, because a transaction that was open
 * the first time may have hidden some.  It says so when there are more than it
 * said before.  What is done about them is a person's decision.  Takes no lock.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "commands/tablespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "log_event.h"
#include "orphan.h"
#include "sqlutil.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_orphaned_files);

/* The first time, when what was left by a crash is older than all that runs. */
#define FIRST_LOOK_MS 3000
#define LOOK_MS (60 * 60 * 1000)

#define ORPHAN_COLUMNS 4

static void
put_orphan(Tuplestorestate *store, TupleDesc desc, const WhOrphan *orphan)
{
	char	   *tablespace = get_tablespace_name(orphan->tablespace);
	Datum		values[ORPHAN_COLUMNS] = {
		tablespace != NULL ? CStringGetTextDatum(tablespace) : (Datum) 0,
		CStringGetTextDatum(orphan->path),
		Int64GetDatum(orphan->bytes),
		TimestampTzGetDatum(orphan->modified_at)
	};
	bool		nulls[ORPHAN_COLUMNS] = {tablespace == NULL};

	tuplestore_putvalues(store, desc, values, nulls);
}

Datum
wh_sql_orphaned_files(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *cell;

	wh_require_preloaded();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("files without a relation cannot be told on a standby"),
				 errdetail("Which transactions run on the primary is not known here.")));
	InitMaterializedSRF(fcinfo, 0);
	foreach(cell, wh_orphans_find())
		put_orphan(rsinfo->setResult, rsinfo->setDesc, lfirst(cell));
	PG_RETURN_NULL();
}

/* ---- the launcher ---- */

static void
look(void)
{
	static int	logged = 0;
	List	   *orphans = wh_orphans_find();
	int64		bytes = 0;
	ListCell   *cell;

	foreach(cell, orphans)
		bytes += ((WhOrphan *) lfirst(cell))->bytes;
	if (list_length(orphans) > logged)
		wh_log_orphaned_files(get_database_name(MyDatabaseId), list_length(orphans), bytes);
	logged = list_length(orphans);
}

long
wh_orphans_look(MemoryContext context)
{
	static TimestampTz next = 0;
	TimestampTz now = GetCurrentTimestamp();

	/* also when the clock was set back */
	if (next == 0 || TimestampDifferenceMilliseconds(now, next) > LOOK_MS)
		next = TimestampTzPlusMilliseconds(now, FIRST_LOOK_MS);
	if (now >= next)
	{
		wh_begin_transaction();
		look();
		wh_commit_transaction(context);
		next = TimestampTzPlusMilliseconds(now, LOOK_MS);
	}
	return TimestampDifferenceMilliseconds(now, next);
}
