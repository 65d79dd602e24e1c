/*
 * wait.c: wait_for_backfill: a backend sleeps until a backfill has ended.
 *
 * The launcher broadcasts a condition variable when a backfill ends; a
 * time-out of a second between looks is the safety net.  Each look takes a
 * snapshot of its own, so that the end is seen in any isolation level.  Locks
 * nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "sqlutil.h"
#include "status.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_wait_for_backfill);

#define LOOK_AGAIN_MS 1000

/*
 * The state of a backfill, or NULL if there is none that others can see; the
 * transaction that made it would wait for itself.
 */
static char *
look(int64 backfill_id, MemoryContext cxt)
{
	WhArg		args[] = {WH_INT8(backfill_id)};
	char	   *state = NULL;
	bool		own = false;

	wh_spi_begin();
	if (wh_query_latest("SELECT state, xmin FROM _wh.backfills WHERE backfill_id = $1", 1, args) > 0)
	{
		bool		isnull;

		state = wh_get_text(cxt, 0, 1);
		own = TransactionIdIsCurrentTransactionId(
			DatumGetTransactionId(SPI_getbinval(SPI_tuptable->vals[0],
												SPI_tuptable->tupdesc, 2, &isnull)));
	}
	wh_spi_end();
	if (own)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("backfill " INT64_FORMAT " was enqueued by this transaction", backfill_id),
				 errdetail("Its jobs start when the transaction commits."),
				 errhint("Commit first, then wait.")));
	return state;
}

static TimestampTz
deadline_of(Interval *timeout)
{
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												   TimestampTzGetDatum(GetCurrentTimestamp()),
												   IntervalPGetDatum(timeout)));
}

Datum
wh_sql_wait_for_backfill(PG_FUNCTION_ARGS)
{
	int64		backfill_id = PG_GETARG_INT64(0);
	TimestampTz deadline = deadline_of(PG_GETARG_INTERVAL_P(1));
	MemoryContext cxt = CurrentMemoryContext;
	char	   *state;

	wh_require_preloaded();
	wh_status_prepare_wait_backfill();
	for (;;)
	{
		long		left;

		state = look(backfill_id, cxt);
		if (state == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("backfill " INT64_FORMAT " does not exist", backfill_id)));
		if (strcmp(state, "running") != 0)
			break;
		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);
		if (left <= 0)
		{
			state = "timeout";
			break;
		}
		(void) wh_status_wait_backfill(Min(left, LOOK_AGAIN_MS));
	}
	wh_status_cancel_wait_backfill();
	PG_RETURN_TEXT_P(cstring_to_text(state));
}
