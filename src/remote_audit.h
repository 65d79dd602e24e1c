/*
 * remote_audit.h: attempts to connect to a tenant, in the audit log.
 */
#ifndef WH_REMOTE_AUDIT_H
#define WH_REMOTE_AUDIT_H

#include "remote.h"
#include "tenant.h"

extern void wh_remote_audit_connected(const WhTenant *tenant, WhRemote *remote);

/* In a PG_CATCH(), of the error at hand, which stays as it is. */
extern void wh_remote_audit_failure(const WhTenant *tenant);

#endif
