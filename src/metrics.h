/*
 * metrics.h: what the warehouse counts since the server started.  metrics.c
 * is the only file that touches these counters and their lock.
 */
#ifndef WH_METRICS_H
#define WH_METRICS_H

#include "datatype/timestamp.h"

#include "queue.h"
#include "status.h"

/* The kinds of jobs (WhJobKind), and days that a function loaded at once. */
#define WH_COUNTED_CALL (WH_JOB_CONVERT + 1)
#define WH_COUNTED_KINDS (WH_COUNTED_CALL + 1)

typedef enum WhCountedResult
{
	WH_COUNTED_SUCCEEDED,
	WH_COUNTED_UNCHANGED,		/* nothing had to be fetched */
	WH_COUNTED_RETRIED,
	WH_COUNTED_SET_ASIDE,		/* waits for its tenant */
	WH_COUNTED_FAILED,
	WH_COUNTED_CANCELLED,
	WH_COUNTED_RESULTS
} WhCountedResult;

#define WH_COUNTED_PHASES (WH_PHASE_RUNNING + 1)

/* Upper bounds of a histogram's buckets, in seconds; one more is for all above. */
#define WH_BOUNDS 15
extern const double wh_metrics_bounds[WH_BOUNDS];

typedef struct WhHistogram
{
	int64		buckets[WH_BOUNDS + 1]; /* not yet added up */
	double		sum;
} WhHistogram;

typedef struct WhTemplateCounters
{
	Oid			database_oid;	/* InvalidOid: free */
	char		template_name[NAMEDATALEN]; /* empty: jobs of no template */
	int64		ended[WH_COUNTED_KINDS][WH_COUNTED_RESULTS];
	int64		rows;
	int64		bytes;
	WhHistogram load;			/* of a job that loaded a day */
} WhTemplateCounters;

/* Templates beyond these are counted together. */
#define WH_COUNTED_TEMPLATES 256

/* Of a try for locks that readers feel. */
typedef enum WhTryResult
{
	WH_TRY_GRANTED,
	WH_TRY_REPEATED,
	WH_TRY_GIVEN_UP,
	WH_TRY_RESULTS
} WhTryResult;

typedef struct WhDatabaseCounters
{
	Oid			database_oid;	/* InvalidOid: free */
	TimestampTz used_at;
	WhTemplateCounters other;
	WhHistogram phases[WH_COUNTED_PHASES];
	WhHistogram readers_kept;
	int64		tries[WH_TRY_RESULTS];
	double		lock_wait;		/* s, from a first try to the last, if there were several */
} WhDatabaseCounters;

/* One attempt of a job, or one day of a call, that has ended. */
typedef struct WhCounted
{
	int			kind;
	WhCountedResult result;
	const char *template_name;	/* NULL: none */
	int64		rows;
	int64		bytes;
	TimestampTz started_at;		/* 0: how long it took is not counted */
} WhCounted;

/* From the hooks of _PG_init. */
extern void wh_metrics_request(void);
extern void wh_metrics_startup(void);

/* Counted when the transaction commits, and not if it does not. */
extern void wh_metrics_count(const WhCounted *counted);

/* The clock of a worker's job: from its claim on, by phase. */
extern void wh_metrics_job_begins(void);
extern void wh_metrics_phase(WhPhase phase);

/*
 * A lock that makes readers wait was asked for; all of them are given back.
 * Since when there has been one, for who gives back only his own; 0: there is none.
 */
extern void wh_metrics_readers_wait(void);
extern void wh_metrics_readers_pass(void);
extern TimestampTz wh_metrics_readers_wait_since(void);

/*
 * A try for such locks has ended, "waited" seconds after the one before it; of
 * one that was granted at once that is 0.
 */
extern void wh_metrics_try(WhTryResult result, double waited);

/*
 * Copies of what is counted for this database: *database is zeroed if nothing
 * is; templates, of which there are at most WH_COUNTED_TEMPLATES, are counted
 * in the result.
 */
extern int	wh_metrics_copy(WhDatabaseCounters *database, WhTemplateCounters *templates);

#endif
