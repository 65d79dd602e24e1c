/*
 * listen.h: who may LISTEN to what event.c tells.
 */
#ifndef WH_LISTEN_H
#define WH_LISTEN_H

/* Called by _PG_init. */
extern void wh_listen_register(void);

#endif
