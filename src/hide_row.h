/*
 * hide_row.h: keeps rows of tenant_connections out of the server's log.
 */
#ifndef WH_HIDE_ROW_H
#define WH_HIDE_ROW_H

/* Called once, by _PG_init. */
extern void wh_hide_row_register(void);

#endif
