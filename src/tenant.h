/*
 * tenant.h: arguments of the functions about tenants.  wh_tenant_read() is
 * declared in refresh.h.
 */
#ifndef WH_TENANT_H
#define WH_TENANT_H

#include "datatype/timestamp.h"
#include "fmgr.h"

/* A text argument that must not be NULL: 22004 that names it. */
extern char *wh_tenant_text_arg(FunctionCallInfo fcinfo, int n, const char *name);

/* 42704 for a tenant or template that does not exist. */
extern void wh_tenant_require(const char *tenant_name);
extern void wh_tenant_require_template(const char *template_name);

/*
 * The first moment from the given one on that is outside of quiet hours,
 * DT_NOEND if they leave none.  Exact but for a change of the zone's offset
 * meanwhile, which the launcher notices.  22023 for text that is no such list.
 */
extern TimestampTz wh_tenant_quiet_until(text *quiet_hours, TimestampTz moment);

#endif
