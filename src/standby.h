/*
 * standby.h: a server in recovery has a warehouse that can be read.
 */
#ifndef WH_STANDBY_H
#define WH_STANDBY_H

#include "fmgr.h"

/* NULL unless the server is in recovery; else why no job starts here. */
extern const char *wh_standby_reason(void);

/* 25006 for a function that writes, where nothing can be written; names it. */
extern void wh_require_writable(FunctionCallInfo fcinfo);

#endif
