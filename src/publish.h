/*
 * publish.h: the tenant view, the public view, grants and the counters of a
 * subscription, from what the ledger says.  Gets names, not jobs.
 *
 * All of it runs by SPI as the current user, who is admin_role.
 */
#ifndef WH_PUBLISH_H
#define WH_PUBLISH_H

#include "utils/date.h"

/* Makes the schema if missing, with the reader's USAGE; refuses _wh, pg_*, ... */
extern void wh_publish_schema(const char *schema);

/* SELECT on a relation of ours for reader_role, if that role exists. */
extern void wh_publish_grant(const char *schema, const char *relname);

/*
 * Makes the tenant view the union of every loaded day of the ledger and marks
 * these published; true if the view was made or changed.  42P07 when a
 * relation that we did not make has its name.
 */
extern bool wh_publish_tenant_view(const char *template_name, const char *schema);

/* The same for public.{template} over all tenant views of the template. */
extern bool wh_publish_public_view(const char *template_name);

/* Every tenant view with unpublished days, then the public view. */
extern void wh_publish_template(const char *template_name);

/* Recomputes days, rows, bytes, data_through, last_success of one subscription. */
extern void wh_publish_counters(const char *template_name, const char *schema);

#endif
