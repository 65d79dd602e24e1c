/*
 * retire.h: whole relations of the ledger leave it, and the views.
 */
#ifndef WH_RETIRE_H
#define WH_RETIRE_H

#include "utils/date.h"

/* A day, or the table of a month or year. */
typedef struct WhRetiree
{
	Oid			relid;
	char	   *relname;
	DateADT		first;
	DateADT		last;
	int64		rows;
	int64		bytes;
} WhRetiree;

typedef struct WhRetirement
{
	const char *template_name;
	const char *schema;
	bool		drop;			/* else they stay, as relations of the user's */
	DateADT		start_date;		/* the subscription shall begin no earlier */
	int			n;
	WhRetiree  *relations;
} WhRetirement;

/*
 * Waits for loads of them, keeps further ones and REFRESH, DROP and VACUUM out;
 * readers do not feel it.  They are in the order of their advisory locks: days
 * by date, then months, then years.  SPI is connected.
 */
extern void wh_retire_lock_names(const WhRetirement *retirement);
extern void wh_retire_lock(const WhRetirement *retirement);

/*
 * Takes them out of the ledger and the views, and drops them or lets them be.
 * All of it in one polite attempt, or nothing.  False, with nothing done, if the
 * subscription is being removed.  SPI is connected.
 */
extern bool wh_retire(WhRetirement *retirement);

#endif
