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
 * The same for a day whose content is as we made it, of the present version of
 * the template, not suspect, and probed with the result that the refresh has;
 * false for any other.
 */
extern bool wh_ledger_read_probed(const WhRefresh *refresh, WhLedgerDay *day);

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

/*
 * That the content is what the tenant has, if it still is in that relation.  A
 * failure before is over.  Returns whether the day is in the views, and counted.
 */
extern bool wh_ledger_confirm(const WhRefresh *refresh, Oid relation_oid);

extern void wh_ledger_failed(const char *template_name, const char *tenant_name,
							 const char *schema, DateADT date, int64 job_id,
							 const char *message);

#endif
