/*
 * missing.h: days and views that a person took away.
 */
#ifndef WH_MISSING_H
#define WH_MISSING_H

#include "nodes/pg_list.h"

/*
 * Days of a subscription whose relation was dropped, renamed or moved become
 * missing, and ask for a publication.  Waits for nobody; connects SPI itself.
 * Returns the names of the templates that have something to publish because of
 * it, or because a view of theirs is gone.
 */
extern List *wh_missing_notice(const char *template_name, const char *schema);

/* From now on the process notes which relations change. */
extern void wh_missing_watch(void);

/* As wh_missing_notice() for every template, of what was noted, or may have been. */
extern List *wh_missing_notice_changed(void);

/* After the commit of what wh_missing_notice_changed() did: it is done. */
extern void wh_missing_committed(void);

#endif
