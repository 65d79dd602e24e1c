/*
 * wait_event.h: what our processes wait for, as pg_stat_activity names it.
 */
#ifndef WH_WAIT_EVENT_H
#define WH_WAIT_EVENT_H

typedef enum WhWait
{
	WH_WAIT_SUPERVISOR_MAIN,	/* nothing to do, as the next two */
	WH_WAIT_LAUNCHER_MAIN,
	WH_WAIT_WORKER_MAIN,
	WH_WAIT_TENANT_CONNECT,		/* a tenant to accept a connection */
	WH_WAIT_TENANT_READ,		/* a tenant to send something, or take what we send */
	WH_WAIT_TENANT_LIMIT,		/* the time that a tenant's limit of rows or bytes asks for */
	WH_WAIT_READERS_PASS,		/* between two tries for a lock that readers feel */
	WH_WAIT_PASSWORD_COMMAND,	/* the program that asks a vault */
	WH_WAIT_SQL_START,			/* a free process for a scheduled command */
	WH_WAIT_SQL_RUN,			/* a scheduled command */
	WH_WAIT_SQL_END,			/* a scheduled command that was terminated */
	WH_WAIT_BACKFILL_END,		/* wait_for_backfill() */
	WH_WAITS
} WhWait;

/* The value that WaitLatch() and its kin want.  May not be called under a lock. */
extern uint32 wh_wait_event(WhWait wait);

#endif
