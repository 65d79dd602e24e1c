/*
 * compat.h: every test of PG_VERSION_NUM, so that no other file has one.
 * PostgreSQL 15 to 18.  Header only; include it after the server's headers.
 */
#ifndef WH_COMPAT_H
#define WH_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "wh_worker needs PostgreSQL 15 or newer"
#endif

/* A WaitEventSet that belongs to the process, not to a resource owner. */
#if PG_VERSION_NUM >= 170000
#define WH_CREATE_WAIT_EVENT_SET(nevents) CreateWaitEventSet(NULL, nevents)
#else
#define WH_CREATE_WAIT_EVENT_SET(nevents) CreateWaitEventSet(TopMemoryContext, nevents)
#endif

#endif
