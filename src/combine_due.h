/*
 * combine_due.h: which months and years wait to be combined, by the ledger.
 */
#ifndef WH_COMBINE_DUE_H
#define WH_COMBINE_DUE_H

#include "utils/date.h"

/*
 * The days from first to last that are expected of a subscription and are not
 * loaded, in the caller's context; returns how many.  Connects SPI itself.
 */
extern int	wh_combine_missing(const char *template_name, const char *schema,
							   DateADT first, DateADT last, DateADT **missing);

/* "2024-03-20, 2024-03-21 and 12 more" */
extern char *wh_combine_name_days(const DateADT *days, int ndays);

/* What a schedule asks for, and what became of it. */
typedef struct WhCombineDue
{
	const char *template_name;
	const char *tenant_name;
	const char *schema;
	bool		years;			/* else months */
	int64		schedule_id;

	int			nqueued;
	int			npending;
	int			nincomplete;
	int64		job_id;			/* of the only job; 0: none or several */
	char	   *message;		/* all of it, for people */
} WhCombineDue;

/*
 * Queues a job for every period that is over since settle_days, has days, is
 * not combined yet and lacks none.  SPI is connected.
 */
extern void wh_combine_enqueue_due(WhCombineDue *due);

#endif
