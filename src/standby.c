/*
 * standby.c: what is said on a standby, and while a backup is recovered.
 *
 * None of our processes runs there (they start when recovery has finished), and
 * nothing can be written; views and what only reads work.  Whoever calls a
 * function that writes is told where to call it, instead of which statement of
 * ours failed first.
 *
 * Called by audit.c, through which every function goes that changes something,
 * and by what says why no job starts.  May not write, and takes no lock.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "standby.h"

const char *
wh_standby_reason(void)
{
	return RecoveryInProgress() ? "the server is a standby" : NULL;
}

void
wh_require_writable(FunctionCallInfo fcinfo)
{
	char	   *name = get_func_name(fcinfo->flinfo->fn_oid);

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("cannot execute %s() on a standby", name),
				 errhint("Call it on the primary, or after this server was promoted.")));
	PreventCommandIfReadOnly(psprintf("%s()", name));
}
