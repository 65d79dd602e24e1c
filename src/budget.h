/*
 * budget.h: the locks that a query of a view takes, and those the server has.
 */
#ifndef WH_BUDGET_H
#define WH_BUDGET_H

#include "view.h"

/* Locks that the server's lock table is sized for. */
extern int64 wh_budget(void);

/*
 * Locks of a query that reads these members (an oid[]), without the view
 * itself; of a partition tree, of one for the last 30 days.  A tenant view
 * counts as it was when it was last made.  SPI is connected.
 */
extern int64 wh_budget_locks_of(Datum members);

/*
 * Decides whether the view can be made of its members: of a tenant view those
 * that would pass the budget are put behind nmembers, into nrefused; a public
 * view that is no partition tree is to refuse.  "is_new" says which members no
 * view has read yet.
 */
extern void wh_budget_fit_tenant_view(WhView *view, const bool *is_new);
extern void wh_budget_fit_public_view(WhView *view);

/*
 * WARNINGs, for who has published: when the view of that name has passed half
 * of the budget, or a further tenth; when days were kept out of it; when it
 * refuses to be read from now on.
 */
extern void wh_budget_warn_of_growth(const char *schema, const char *name, int64 before, int64 now);
extern void wh_budget_warn_of_refused_days(const WhView *view, int64 days);
extern void wh_budget_warn_of_refusing(const WhView *view);

#endif
