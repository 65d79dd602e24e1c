/*
 * status.h: shared memory.  status.c is the only file that touches the
 * segment and its lock; everybody else calls these.
 *
 * There is one slot for the supervisor, one for each database that may hold a
 * warehouse (its launcher), and one for each worker.  A slot is written by the
 * process that owns it and by whoever hands it work, always under the lock;
 * it is read by copying.
 */
#ifndef WH_STATUS_H
#define WH_STATUS_H

#include "datatype/timestamp.h"
#include "utils/date.h"

typedef enum WhPhase
{
	WH_PHASE_STARTING,
	WH_PHASE_WAITING,			/* for what last_error says; not workers */
	WH_PHASE_IDLE,
	WH_PHASE_CONNECTING,
	WH_PHASE_FETCHING,
	WH_PHASE_INDEXING,
	WH_PHASE_WAITING_LOCK,
	WH_PHASE_PUBLISHING,
	WH_PHASE_COMBINING,			/* days into the table of their month or year */
	WH_PHASE_RUNNING,			/* the command of a schedule */
} WhPhase;

typedef enum WhSlotKind
{
	WH_SLOT_SUPERVISOR,
	WH_SLOT_LAUNCHER,
	WH_SLOT_WORKER,
} WhSlotKind;

/* What a tenant's connection may limit. */
#define WH_LIMIT_ROWS 0
#define WH_LIMIT_BYTES 1
#define WH_LIMITS 2

#define WH_ERROR_SIZE 256
#define WH_MAX_BLOCKERS 8

/* A worker that has not come by then is not waited for any longer. */
#define WH_START_TIMEOUT_MS (30 * 1000)

typedef enum WhJobResult
{
	WH_JOB_SUCCEEDED,
	WH_JOB_FAILED,				/* this attempt */
	WH_JOB_NEITHER,				/* cancelled, or not ours to run */
} WhJobResult;

/* What a slot says; also the shape in which it is copied out. */
typedef struct WhSlotInfo
{
	WhSlotKind	kind;
	bool		in_use;
	uint32		generation;		/* counts the uses of this slot */
	int			pid;			/* 0 until attached */
	Oid			database_oid;
	char		database[NAMEDATALEN];
	WhPhase		phase;
	TimestampTz phase_started_at;

	/* workers: the job at hand; job_id 0 means idle */
	int64		job_id;
	int64		backfill_id;
	char		job_kind[16];
	char		template_name[NAMEDATALEN];
	char		tenant_name[NAMEDATALEN];
	char		target_schema[NAMEDATALEN];
	DateADT		target_date;
	bool		has_date;
	bool		cancel_requested;	/* by cancel_job, for this job */
	TimestampTz job_started_at;
	int64		rows;
	int64		bytes;
	bool		is_held;		/* reads no faster than a limit allows */
	int			held_by;		/* which of them */
	int			nblockers;		/* in the way at the last try for a lock */
	int			blockers[WH_MAX_BLOCKERS];

	int64		jobs_succeeded;
	int64		jobs_failed;
	TimestampTz moved_at;		/* a job began, went on or ended; of a launcher: one of its workers' */
	char		last_error[WH_ERROR_SIZE];
} WhSlotInfo;

/* A job as the launcher hands it to a worker. */
typedef struct WhAssignment
{
	int64		job_id;
	int64		backfill_id;
	char		tenant_name[NAMEDATALEN];
	int64		next_job_id;	/* which it may well be handed next; 0: nobody knows */
} WhAssignment;

/* Shared memory: called from the hooks of _PG_init. */
extern void wh_status_request(void);
extern void wh_status_startup(void);

/* ---- any process with a slot ---- */
extern void wh_status_attach_supervisor(void);
extern bool wh_status_attach_launcher(int slot, uint32 generation);
extern bool wh_status_attach_worker(int slot, uint32 generation);

/* No-ops in an ordinary backend, but the phase is kept for its own records. */
extern void wh_status_phase(WhPhase phase);
extern WhPhase wh_status_get_phase(void);
extern const char *wh_status_phase_name(WhPhase phase);
extern void wh_status_progress(int64 rows, int64 bytes);
extern void wh_status_get_progress(int64 *rows, int64 *bytes);	/* as last told */
extern void wh_status_blockers(const int *pids, int npids);	/* none clears */
extern void wh_status_held(int limit);	/* WH_LIMITS clears */
extern void wh_status_error(const char *message);	/* "" clears */

/*
 * Moves the clocks of a tenant (rate.c) on by the costs; all in microseconds.
 * A clock that is behind "earliest" starts there.  until: where they are then.
 */
extern void wh_status_pay(const char *tenant_name, const double *costs, int64 earliest, int64 *until);

/* ---- supervisor: one slot per listed database ---- */
extern int	wh_status_launcher_slot(const char *database, uint32 *generation);
extern void wh_status_launcher_waiting(int slot, const char *why);	/* no process yet */
extern bool wh_status_release_launcher(int slot);	/* false: still runs */
extern bool wh_status_launcher_running(int slot);

/* ---- launcher ---- */
extern int	wh_status_reserve_worker(uint32 *generation);	/* -1: all in use */
extern void wh_status_unreserve_worker(int slot, uint32 generation);
extern bool wh_status_assign(int slot, uint32 generation, const WhAssignment *job);
extern bool wh_status_job_has_owner(int64 job_id);
extern int	wh_status_workers(WhSlotInfo *workers, int *slots);	/* of MyDatabaseId */
extern int	wh_status_max_slots(void);
extern int	wh_status_copy(WhSlotInfo *infos);	/* all slots in use */
extern void wh_status_want_worker(bool wanted);

/* ---- worker ---- */
extern int64 wh_status_take_assignment(int64 *next_job_id);	/* 0: none */
extern void wh_status_job(const WhSlotInfo *job);	/* copies the job's fields */
extern void wh_status_job_done(WhJobResult result, const char *error);
extern bool wh_status_cancel_requested(void);
extern bool wh_status_should_leave(void);
extern bool wh_status_retire(void);

/* ---- backends ---- */
extern bool wh_status_cancel_running(int64 job_id);
extern void wh_status_wake_launcher(void);	/* of MyDatabaseId */

/*
 * Ranges of new job ids, from committing backends to their launcher.  When
 * more come than fit, the launcher is told to read all of the queue.
 */
typedef struct WhNews
{
	bool		reread_all;
	int			nranges;
	int64		first[64];
	int64		last[64];
} WhNews;

extern void wh_status_post_jobs(int64 first, int64 last);
extern void wh_status_post_config(void);
extern void wh_status_take_news(WhNews *news);

/* Waiting for a backfill to end. */
extern void wh_status_backfill_ended(void);
extern void wh_status_prepare_wait_backfill(void);
extern bool wh_status_wait_backfill(long timeout_ms);	/* true: timed out */
extern void wh_status_cancel_wait_backfill(void);

#endif
