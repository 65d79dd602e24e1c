/*
 * remote_guard.h: which connections to tenants may be made, and kept.
 */
#ifndef WH_REMOTE_GUARD_H
#define WH_REMOTE_GUARD_H

#include "libpq-fe.h"
#include "remote.h"

/* Before anything is sent: 2F003 if the tenant has no password to give, or it would go unencrypted. */
extern void wh_guard_before(const WhTenant *tenant);

/* Before the first command: 2F003 unless the tenant asked for the password that it was given. */
extern void wh_guard_after(const WhTenant *tenant, PGconn *conn);

/* libpq's functions of these names, with nothing of the server's environment. */
extern PGconn *wh_guard_connect_start(const char *const *names, const char *const *values);
extern PostgresPollingStatusType wh_guard_connect_poll(PGconn *conn);

#endif
