/*
 * worker.h: the process that runs jobs.
 */
#ifndef WH_WORKER_PROCESS_H
#define WH_WORKER_PROCESS_H

/* What a worker is told at its start; travels in bgw_extra. */
typedef struct WhWorkerStart
{
	int			slot;
	uint32		generation;
	Oid			database_oid;
	Oid			role_oid;
} WhWorkerStart;

extern PGDLLEXPORT void wh_worker_main(Datum arg);

#endif
