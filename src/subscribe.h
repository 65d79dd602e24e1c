/*
 * subscribe.h: which tenant feeds which template into which schema.
 */
#ifndef WH_SUBSCRIBE_H
#define WH_SUBSCRIBE_H

#include "utils/date.h"

/*
 * For a load that somebody asked for: makes sure that the tenant feeds the
 * template and schema.  A missing subscription is made with start_date, an
 * inactive one is made active.  42704 for an unknown template or tenant, 22023
 * for a schema that cannot be used, 23505 when another tenant feeds it.
 */
extern void wh_subscribe_if_missing(const char *template_name, const char *tenant_name,
									const char *schema, DateADT start_date);

/*
 * The schema that is meant when none is given: that of the only subscription
 * of the tenant to the template, else the tenant's name.  palloc'd.
 */
extern char *wh_subscribe_default_schema(const char *template_name, const char *tenant_name);

#endif
