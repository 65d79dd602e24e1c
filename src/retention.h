/*
 * retention.h: what is older than a template wants it kept.
 */
#ifndef WH_RETENTION_H
#define WH_RETENTION_H

#include "queue.h"
#include "utils/date.h"

/* The first day that the template wants kept, or DATEVAL_NOBEGIN.  SPI is connected. */
extern DateADT wh_retention_limit(const char *template_name);

/* Whether the template has relations that are too old.  SPI is connected. */
extern bool wh_retention_is_due(const char *template_name);

/*
 * A retention job, all of it: called by a worker outside a transaction, in the
 * job's memory context.  2BP01 at the end, when all the others are gone, if
 * something of a user's depends on a relation that should have been dropped.
 */
extern void wh_retention_run(const WhJob *job);

#endif
