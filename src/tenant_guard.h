/*
 * tenant_guard.h: what only a superuser may write into tenant_connections.
 */
#ifndef WH_TENANT_GUARD_H
#define WH_TENANT_GUARD_H

#include "commands/trigger.h"

/*
 * Refuses what the writer may not (42501) and what nobody may (22023); the
 * row to write is returned, without its password if that was given for
 * another connection than the row describes now.
 */
extern HeapTuple wh_tenant_guard_row(TriggerData *trigger, HeapTuple row);

#endif
