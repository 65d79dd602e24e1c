/*
 * launcher.h: the process that hands out the jobs of one database.
 */
#ifndef WH_LAUNCHER_H
#define WH_LAUNCHER_H

extern PGDLLEXPORT void wh_launcher_main(Datum arg);

#endif
