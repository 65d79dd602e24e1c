/*
 * sql_job_private.h: the segment between a worker and the process that runs a
 * command for it.  For sql_job.c and sql_job_process.c only.
 *
 * The worker writes it before the process starts, and reads it after the
 * process detached from the queue; so nothing in it needs a lock.
 */
#ifndef WH_SQL_JOB_PRIVATE_H
#define WH_SQL_JOB_PRIVATE_H

#include "postgres.h"

#include "tcop/cmdtag.h"

#define WH_SQL_JOB_MAGIC UINT64CONST(0x77685f73716c0001)
#define WH_SQL_JOB_QUEUE_SIZE 16384

typedef enum WhSqlJobKey
{
	WH_SQL_JOB_SHARED = 1,
	WH_SQL_JOB_COMMAND,
	WH_SQL_JOB_QUEUE,			/* messages, in the protocol's form */
} WhSqlJobKey;

typedef struct WhSqlJobShared
{
	/* what to do; the command itself is as long as it is */
	Oid			database_oid;
	Oid			role_oid;
	char		application_name[NAMEDATALEN];

	/* what came of it */
	bool		committed;		/* some of it at least */
	bool		cancelled;		/* its error is a cancel, not a timeout */
	bool		finished;		/* all of it, and committed */
	int64		rows;
	char		tag[COMPLETION_TAG_BUFSIZE];
} WhSqlJobShared;

/* 42501 unless commands may run as the role.  Needs a transaction. */
extern void wh_sql_job_check_role(Oid role);

#endif
