/*
 * at_once.h: loading days in the caller's transaction.  Used by at_once_sql.c.
 */
#ifndef WH_AT_ONCE_H
#define WH_AT_ONCE_H

#include "error.h"
#include "log_context.h"
#include "refresh.h"
#include "status.h"

/* One day of a call, and what became of it. */
typedef struct WhOnceDay
{
	DateADT		date;
	WhRefresh  *fetched;		/* its new content, or NULL */
	WhRefresh  *refresh;		/* the same, if it could be put in place */
	WhFailure  *failure;		/* why it was not loaded, or NULL */
	int			sqlerrcode;		/* of that failure */
	WhPhase		phase;			/* in which it failed */
	TimestampTz started_at;
	TimestampTz ended_at;
} WhOnceDay;

typedef struct WhOnceCall
{
	char	   *template_name;
	char	   *tenant_name;
	char	   *schema;
	int			ndays;
	WhOnceDay    *days;			/* by date */
	bool		is_forced;		/* days are fetched whatever their change_probe says */
	WhRemote   *remote;			/* kept from day to day */
	List	   *tables;			/* of months and years that days went into */
	WhLogContext log;			/* of the day at hand */
	const WhOnceDay *unreachable; /* the day for which no connection was had */
} WhOnceCall;

/* Gives the call the days from first to last, of which there may be many. */
extern void wh_once_set_days(WhOnceCall *call, DateADT first, DateADT last);

/*
 * Loads, publishes and records the days of the call.  What could not be loaded
 * because of its tenant or its data has a failure; anything else is raised.
 */
extern void wh_once_load(WhOnceCall *call);

#endif
