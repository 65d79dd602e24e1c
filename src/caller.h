/*
 * caller.h: the role that calls a function of ours, which runs as admin_role.
 */
#ifndef WH_CALLER_H
#define WH_CALLER_H

#include "fmgr.h"

/*
 * Whether the session's role (SET ROLE counts, SECURITY DEFINER does not) has
 * the rights of admin_role, as launchers, workers and superusers do.
 */
extern bool wh_caller_is_admin(void);

/* Whether a role has the rights of another, or can take them by SET ROLE. */
extern bool wh_may_act_as(Oid member, Oid role);

/* 42501, naming the function, unless it has. */
extern void wh_caller_require_admin(FunctionCallInfo fcinfo);

/* The name of the session's role. */
extern char *wh_caller_name(void);

/* Argument "n", a role's name; 22004 for NULL, 42704 if there is none. */
extern char *wh_caller_role_arg(FunctionCallInfo fcinfo, int n, Oid *role);

#endif
