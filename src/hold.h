/*
 * hold.h: what has to stay as it is until a transaction that writes a relation
 * of ours commits: the subscription, the layout of the template.
 *
 * SPI is connected by the caller.  "meanwhile" says what was done, for messages:
 * "a day was loaded".
 */
#ifndef WH_HOLD_H
#define WH_HOLD_H

#include "template.h"

/*
 * 42704 if the tenant does not feed the template into the schema any more.  With
 * "lock" its removal waits for us from here on; one that has begun waits for our
 * other locks already, so then, and if a person has the row, it is 55006.  That is
 * worth another try of a job but not of a swap: our locks have to go first.
 */
extern void wh_hold_subscription(const char *template_name, const char *tenant_name,
								 const char *schema, bool lock, const char *meanwhile);

/*
 * 42704 if the template is gone, 40001 if it has another layout than when it was
 * read, or another date_column in a tree; whoever changes it waits for us from
 * here on.  Whether it is also of the same version.
 */
extern bool wh_hold_template(const WhTemplate *tmpl, const char *meanwhile);

#endif
