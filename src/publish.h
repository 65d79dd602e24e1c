/*
 * publish.h: the tenant view, the public view, grants and the counters of a
 * subscription, from what the ledger says.  Gets names, not jobs.
 *
 * All of it runs by SPI (which it connects itself) as the current user, who is
 * admin_role.  The order of locks is described in publish.c; for a caller that
 * also replaces the content of days it means: publish first, swap last.
 */
#ifndef WH_PUBLISH_H
#define WH_PUBLISH_H

#include "template.h"
#include "utils/date.h"
#include "view.h"

/* 22023 for a schema that can hold no tenant: _wh, pg_*, public, too long, ... */
extern void wh_publish_check_schema_name(const char *schema);

/* Makes the schema if missing, with the reader's USAGE; refuses _wh, pg_*, ... */
extern void wh_publish_schema(const char *schema);

/*
 * The advisory lock, until the end of the transaction, that serialises those
 * who change the views of one template in one schema; schema NULL means the
 * public view.  The functions below take it themselves.
 */
extern void wh_publish_lock(const char *template_name, const char *schema);

/*
 * Makes the tenant view the union of every loaded day of the ledger, as far as
 * the lock budget goes, and marks these published; true if the view was made or
 * changed.  42P07 when a relation that we did not make has its name.
 */
extern bool wh_publish_tenant_view(const char *template_name, const char *schema);

/*
 * The same for public.{template} over all tenant views of the template; beyond
 * the lock budget it is made to refuse.
 */
extern bool wh_publish_public_view(const char *template_name);

/*
 * The schemas with days or views that wait for a publication, or with a part of
 * a tree that was left; names in "context".
 */
extern List *wh_publish_waiting_schemas(const char *template_name, MemoryContext context);

/* Whether the views read what is gone, or a part of a tree that was left, or are gone themselves. */
extern bool wh_publish_is_out_of_date(const char *template_name);

/* 54000 if loaded days are kept out of a tenant view, see budget.h. */
extern void wh_publish_check_complete(const char *template_name);

/* Recomputes days, outdated_days, rows, bytes, ... of one subscription. */
extern void wh_publish_counters(const char *template_name, const char *schema);

/* The same after a publication that failed: what waits for one goes on waiting. */
extern void wh_publish_count_unpublished(const char *template_name, const char *schema);

/* That a day was seen to be what the tenant has; the counters stay as they are. */
extern void wh_publish_checked(const char *template_name, const char *schema, TimestampTz checked_at);

/*
 * For template_views.c and replace.c, with SPI connected.  The readers fill in
 * how the view should be, and return the OID that we remember for it.
 */
extern Oid	wh_publish_read_tenant_view(WhView *view, const WhTemplate *tmpl, const char *schema);
extern Oid	wh_publish_read_public_view(WhView *view, const WhTemplate *tmpl);

/* The tenant views of its template, as its members. */
extern void wh_publish_read_tenant_views(WhView *view);
extern void wh_publish_remember_tenant_view(WhView *view);
extern void wh_publish_remember_public_view(const char *template_name, Oid view_oid);

/* Notes in the ledger that the members of a tenant view are in it. */
extern void wh_publish_mark_in_views(const WhView *view);

#endif
