/*
 * wh_worker.h: what every file of the library may use.
 */
#ifndef WH_WORKER_H
#define WH_WORKER_H

#include "postgres.h"

#define WH_LIBRARY_NAME "wh_worker"

/*
 * 55000 unless the library was preloaded and is of the version of this database's
 * extension; every SQL function calls it, but those that say what is wrong, which
 * call the second.
 */
extern void wh_require_preloaded(void);
extern void wh_require_library(void);

/* 55000 while the warehouse is paused; functions that reach a tenant call it. */
extern void wh_require_running(void);

/* When this transaction commits, tell the launcher; nothing on rollback. */
extern void wh_notify_jobs_on_commit(int64 first_job_id, int64 last_job_id);
extern void wh_notify_config_on_commit(void);

#endif
