/*
 * probe.h: whether a day has changed at its tenant since it was loaded, by the
 * change_probe of its template.  Used by refresh.c.
 */
#ifndef WH_PROBE_H
#define WH_PROBE_H

#include "refresh.h"

/*
 * Asks the tenant, in the transaction in which the day would be fetched, and
 * notes the answer in the refresh.  Without a change_probe it does nothing.
 */
extern void wh_probe_ask(WhRefresh *refresh, WhRemote *remote);

/*
 * True if the answer is that which the content of the day has in the ledger, and
 * there is no other reason to load it: then refresh->day describes what is there.
 */
extern bool wh_probe_is_unchanged(WhRefresh *refresh);

#endif
