/*
 * drop_guard.h: DROP EXTENSION wh_worker is refused while there are days.
 */
#ifndef WH_DROP_GUARD_H
#define WH_DROP_GUARD_H

/* Called by _PG_init. */
extern void wh_drop_guard_register(void);

#endif
