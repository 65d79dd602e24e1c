/*
 * supervisor.h: the process that keeps a launcher for each listed database.
 */
#ifndef WH_SUPERVISOR_H
#define WH_SUPERVISOR_H

/* What a launcher is told at its start; travels in bgw_extra. */
typedef struct WhLauncherStart
{
	int			slot;
	uint32		generation;
	char		database[NAMEDATALEN];
} WhLauncherStart;

extern void wh_supervisor_register(void);
extern PGDLLEXPORT void wh_supervisor_main(Datum arg);

#endif
