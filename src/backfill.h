/*
 * backfill.h: batches of jobs, and when a batch has ended.
 */
#ifndef WH_BACKFILL_H
#define WH_BACKFILL_H

typedef enum WhAttended
{
	WH_ATTEND_ENDED,
	WH_ATTEND_GOES_ON,
	WH_ATTEND_AGAIN,			/* somebody holds its row: look again soon */
} WhAttended;

/*
 * Called by the launcher for a running backfill, in a transaction of its own.
 * "outstanding" is whether jobs of it are queued or running as far as the
 * launcher knows.  Enqueues a publish job if loaded days wait for the views;
 * ends the backfill when all is done.
 */
extern WhAttended wh_backfill_attend(int64 backfill_id, bool outstanding);

#endif
