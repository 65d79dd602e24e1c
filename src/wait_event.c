/*
 * wait_event.c: what our processes wait for, as pg_stat_activity names it.
 *
 * Whoever looks at a slow load wants to know whether it waits for the tenant,
 * for a reader or for its turn.  From PostgreSQL 17 on an extension has wait
 * events of its own (type Extension); a name is registered once in the life of
 * the server, by whoever needs it first.  Before, all of them are shown as
 * Extension, and the phase in worker_status has to tell them apart.
 *
 * Called right before each wait.  Takes the server's lock on names of wait
 * events at the first use in a process, and nothing after that.
 */
#include "postgres.h"

#include "utils/wait_event.h"

#include "compat.h"
#include "wait_event.h"

/* In the order of WhWait. */
static const char *const names[WH_WAITS] = {
	"WhSupervisorMain", "WhLauncherMain", "WhWorkerMain",
	"WhTenantConnect", "WhTenantRead", "WhTenantLimit",
	"WhReadersPass", "WhPasswordCommand",
	"WhSqlStart", "WhSqlRun", "WhSqlEnd",
	"WhBackfillEnd"
};

uint32
wh_wait_event(WhWait wait)
{
	static uint32 known[WH_WAITS] = {0};

	if (known[wait] == 0)
		known[wait] = WH_WAIT_EVENT_NEW(names[wait]);
	return known[wait];
}
