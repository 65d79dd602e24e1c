/*
 * worker.h: the process that runs jobs.
 */
#ifndef WH_WORKER_PROCESS_H
#define WH_WORKER_PROCESS_H

#include "postmaster/bgworker.h"

/* What a worker is told at its start; travels in bgw_extra. */
typedef struct WhWorkerStart
{
	int			slot;
	uint32		generation;
	Oid			database_oid;
	Oid			role_oid;
	char		database[NAMEDATALEN];
} WhWorkerStart;

extern PGDLLEXPORT void wh_worker_main(Datum arg);

/*
 * Asks for a worker in the slot of "start", for the caller's database and role; false
 * if the server has no process left for it.  *handle lives until it is pfree'd.
 */
extern bool wh_worker_register(WhWorkerStart *start, const char *database,
							   BackgroundWorkerHandle **handle);

#endif
