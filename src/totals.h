/*
 * totals.h: what the relations of a subscription take, kept so that nobody who
 * looks has to read the ledger.
 */
#ifndef WH_TOTALS_H
#define WH_TOTALS_H

/*
 * Counts the relations, rows and bytes of one subscription by tier, and the
 * locks of its tenant view, into its row.  SPI is connected by the caller, who
 * has the advisory lock of the tenant view.
 */
extern void wh_totals_count(const char *template_name, const char *schema);

#endif
