/*
 * caller.c: the role that calls a function of ours, which runs as admin_role.
 *
 * Inside a SECURITY DEFINER function current_user is its owner and says nothing
 * of who called it, and EXECUTE is given away by one careless GRANT ON ALL
 * FUNCTIONS, or by a function of somebody else's that runs as admin_role too.
 * So what shows a credential, changes who may read what, or destroys data asks
 * here for the role of the session, which SET ROLE changes and no function does.
 *
 * Called by the SQL functions.  May not change the current user.  Takes no locks.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "caller.h"
#include "compat.h"
#include "guc.h"
#include "tenant.h"

bool
wh_caller_is_admin(void)
{
	return has_privs_of_role(GetOuterUserId(), get_role_oid(wh_admin_role, false));
}

/* From 16 on a membership can be one that gives neither, so to be a member says nothing. */
bool
wh_may_act_as(Oid member, Oid role)
{
	return has_privs_of_role(member, role) || WH_MAY_SET_ROLE(member, role);
}

char *
wh_caller_name(void)
{
	return GetUserNameFromId(GetOuterUserId(), false);
}

void
wh_caller_require_admin(FunctionCallInfo fcinfo)
{
	if (wh_caller_is_admin())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for function %s", get_func_name(fcinfo->flinfo->fn_oid)),
			 errdetail("Role \"%s\" has not the rights of role \"%s\"; that it may execute the function is not enough.",
					   wh_caller_name(), wh_admin_role)));
}

char *
wh_caller_role_arg(FunctionCallInfo fcinfo, int n, Oid *role)
{
	char	   *name = wh_tenant_text_arg(fcinfo, n, "role");

	*role = get_role_oid(name, false);
	return name;
}
