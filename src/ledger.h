/*
 * ledger.h: the rows of _wh.day_loads: what a day was, what it is now, and
 * whether its count of rows looks right.  SPI is connected by the caller.
 */
#ifndef WH_LEDGER_H
#define WH_LEDGER_H

#include "refresh.h"

/* What the ledger says of a day; without a row all is zero. */
typedef struct WhLedgerDay
{
	Oid			relation_oid;
	char	   *indexes_md5;	/* of the indexes text it was loaded with, or NULL */
	bool		is_suspect;
	int64		rows;
} WhLedgerDay;

/* Reads the row of the refresh's day; with "lock" it is kept until commit. */
extern void wh_ledger_read(const WhRefresh *refresh, bool lock, WhLedgerDay *day);

/*
 * Compares the count of rows with the days before, if the template has a
 * suspect_factor: what is wrong with it, for people, or NULL.  *keep says
 * whether the template wants the content kept that "old" describes.
 */
extern char *wh_ledger_suspicion(const WhRefresh *refresh, const WhLedgerDay *old, bool *keep);

/* The row of a day whose new content is in place, or about to be; the count as written. */
extern int64 wh_ledger_write(const WhRefresh *refresh);

/*
 * The same for a day whose rows are in refresh->late: combined, or suspect, with
 * its share of the bytes.
 */
extern void wh_ledger_write_late(const WhRefresh *refresh);

/* All days of a table for which another one was made, with the template's indexes. */
extern void wh_ledger_remade(const WhTemplate *tmpl, Oid old_relid, Oid new_relid);

/* Only the state and the reason: the content is what it was. */
extern void wh_ledger_keep(const WhRefresh *refresh);

extern void wh_ledger_failed(const char *template_name, const char *tenant_name,
							 const char *schema, DateADT date, int64 job_id,
							 const char *message);

#endif
