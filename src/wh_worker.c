/*
 * wh_worker.c: _PG_init, and the two checks and two notices that every SQL
 * function may need.
 *
 * _PG_init only checks, defines, chains and registers.  A notice is kept until
 * the transaction commits: a rollback leaves nothing, and the launcher is
 * woken when what it is told about can be seen.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "audit.h"
#include "drop_guard.h"
#include "guc.h"
#include "hide_row.h"
#include "identity.h"
#include "key_file.h"
#include "listen.h"
#include "metrics.h"
#include "prune.h"
#include "sqlutil.h"
#include "status.h"
#include "supervisor.h"
#include "version.h"
#include "wh_worker.h"

PG_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type previous_shmem_request = NULL;
static shmem_startup_hook_type previous_shmem_startup = NULL;
static bool preloaded = false;

/*
 * Ids of jobs that the launcher is to read when the transaction commits.  Not
 * one range from the oldest to the newest: between them may lie a backfill.
 */
typedef struct Range
{
	int64		first;
	int64		last;
} Range;

static Range noted[8];
static int	nnoted = 0;
static bool noted_config = false;

void
wh_require_library(void)
{
	if (!preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wh_worker must be loaded via shared_preload_libraries"),
				 errhint("Add wh_worker to shared_preload_libraries in postgresql.conf and restart the server.")));
}

void
wh_require_preloaded(void)
{
	wh_require_library();
	wh_version_require();
}

void
wh_require_running(void)
{
	WhPause		pause;

	wh_spi_begin();
	pause = wh_identity_pause();
	wh_spi_end();
	if (pause != WH_RUNS)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", wh_identity_reason(pause)),
				 errhint("%s", wh_identity_hint(pause))));
}

void
wh_notify_jobs_on_commit(int64 first_job_id, int64 last_job_id)
{
	Range	   *range = NULL;

	for (int i = 0; i < nnoted && range == NULL; i++)
	{
		if (first_job_id <= noted[i].last + 1 && last_job_id >= noted[i].first - 1)
			range = &noted[i];
	}
	if (range == NULL && nnoted < lengthof(noted))
	{
		noted[nnoted++] = (Range) {first_job_id, last_job_id};
		return;
	}
	if (range == NULL)
		range = &noted[nnoted - 1];
	range->first = Min(range->first, first_job_id);
	range->last = Max(range->last, last_job_id);
}

void
wh_notify_config_on_commit(void)
{
	noted_config = true;
}

static void
tell_launcher(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT)
		for (int i = 0; i < nnoted; i++)
			wh_status_post_jobs(noted[i].first, noted[i].last);
	if (event == XACT_EVENT_COMMIT && noted_config)
		wh_status_post_config();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		nnoted = 0;
		noted_config = false;
	}
}

static void
request_shared_memory(void)
{
	if (previous_shmem_request)
		previous_shmem_request();
	wh_status_request();
	wh_metrics_request();
}

static void
start_shared_memory(void)
{
	if (previous_shmem_startup)
		previous_shmem_startup();
	wh_status_startup();
	wh_metrics_startup();
}

static void
warn_if_too_few_processes(void)
{
	int			needed = 1 + list_length(wh_guc_databases()) + wh_max_workers;

	if (max_worker_processes < needed)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("max_worker_processes is %d, but wh_worker alone needs %d",
						max_worker_processes, needed),
				 errhint("Set max_worker_processes to at least %d, and higher if parallel query or other extensions are used.",
						 needed)));
}

/* A server with a key file that cannot be used does not start, as with its own TLS key. */
static void
check_key_file(void)
{
	WhKeys		keys;

	if (IsUnderPostmaster || !wh_key_file_is_set())
		return;
	wh_keys_read(&keys);
	wh_keys_wipe(&keys);
}

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	wh_guc_define();
	wh_version_register();
	if (IsBinaryUpgrade)
		return;

	previous_shmem_request = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
	RegisterXactCallback(tell_launcher, NULL);
	wh_audit_register();
	warn_if_too_few_processes();
	check_key_file();
	wh_supervisor_register();
	wh_hide_row_register();
	wh_prune_register();
	wh_listen_register();
	wh_drop_guard_register();
	preloaded = true;
}
