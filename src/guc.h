/*
 * guc.h: the settings.  Read anywhere, written only by guc.c.
 */
#ifndef WH_GUC_H
#define WH_GUC_H

#include "nodes/pg_list.h"

#define WH_MAX_DATABASES 32

extern char *wh_databases;
extern bool wh_enabled;
extern int	wh_max_workers;
extern int	wh_max_workers_per_tenant;
extern char *wh_admin_role;
extern char *wh_reader_role;
extern int	wh_max_attempts;
extern int	wh_retry_delay;		/* ms */
extern int	wh_retry_delay_max; /* ms */
extern int	wh_connect_timeout; /* ms */
extern int	wh_fetch_idle_timeout;	/* ms */
extern int	wh_job_timeout;		/* ms */
extern int	wh_max_row_size;	/* kB */
extern int	wh_max_day_size;	/* kB; 0: no limit */
extern int	wh_swap_lock_timeout;	/* ms */
extern int	wh_worker_idle_timeout; /* ms */
extern int	wh_history_days;
extern int	wh_log_min_duration;	/* ms; -1: no job */
extern int	wh_audit_days;
extern char *wh_status_page_file;	/* empty: none */
extern char *wh_key_file;		/* empty: none */
extern char *wh_password_command;	/* empty: none */
extern char *wh_timezone;
extern int	wh_catchup_days;
extern int	wh_debug_clock_offset;	/* s */
extern bool wh_enable_stable_pruning;

extern void wh_guc_define(void);

/* The names in wh_worker.databases, palloc'd, without duplicates. */
extern List *wh_guc_databases(void);

/* Whether a database is one of them. */
extern bool wh_guc_lists(const char *database);

#endif
