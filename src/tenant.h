/*
 * tenant.h: arguments of the functions about tenants.  wh_tenant_read() is
 * declared in refresh.h.
 */
#ifndef WH_TENANT_H
#define WH_TENANT_H

#include "fmgr.h"

/* A text argument that must not be NULL: 22004 that names it. */
extern char *wh_tenant_text_arg(FunctionCallInfo fcinfo, int n, const char *name);

/* 42704 for a tenant or template that does not exist. */
extern void wh_tenant_require(const char *tenant_name);
extern void wh_tenant_require_template(const char *template_name);

#endif
