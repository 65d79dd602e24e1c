/*
 * guc.c: the settings of postgresql.conf: names, ranges, units, checks.
 *
 * Called once by _PG_init.  A bad value is refused here, with a message that
 * says what is allowed, so that nobody else has to check.  May not read a
 * catalog: check hooks run in the postmaster.
 */
#include "postgres.h"

#include <limits.h>

#include "pgtime.h"
#include "utils/guc.h"
#include "utils/varlena.h"

#include "guc.h"
#include "wh_worker.h"

char	   *wh_databases = NULL;
bool		wh_enabled = true;
int			wh_max_workers = 4;
int			wh_max_workers_per_tenant = 2;
char	   *wh_admin_role = NULL;
char	   *wh_reader_role = NULL;
int			wh_max_attempts = 5;
int			wh_retry_delay = 10 * 1000;
int			wh_retry_delay_max = 15 * 60 * 1000;
int			wh_connect_timeout = 10 * 1000;
int			wh_fetch_idle_timeout = 5 * 60 * 1000;
int			wh_job_timeout = 2 * 60 * 60 * 1000;
int			wh_max_row_size = 128 * 1024;
int			wh_max_day_size = 10 * 1024 * 1024;
int			wh_swap_lock_timeout = 200;
int			wh_worker_idle_timeout = 60 * 1000;
int			wh_history_days = 30;
int			wh_log_min_duration = 10 * 60 * 1000;
int			wh_audit_days = 365;
char	   *wh_status_page_file = NULL;
char	   *wh_key_file = NULL;
char	   *wh_password_command = NULL;
char	   *wh_timezone = NULL;
int			wh_catchup_days = 7;
int			wh_debug_clock_offset = 0;
bool		wh_enable_stable_pruning = true;

/*
 * The names of a comma-separated list of database names, quoted where they
 * have capitals or commas, as in search_path.  NIL and *ok = false when the
 * text is no such list.
 */
static List *
parse_databases(const char *value, bool *ok)
{
	char	   *copy = pstrdup(value);
	List	   *names = NIL;
	List	   *distinct = NIL;
	ListCell   *cell;

	*ok = SplitIdentifierString(copy, ',', &names);
	if (!*ok)
		return NIL;

	foreach(cell, names)
	{
		char	   *name = lfirst(cell);
		ListCell   *seen;
		bool		known = false;

		foreach(seen, distinct)
			known = known || strcmp(lfirst(seen), name) == 0;
		if (!known)
			distinct = lappend(distinct, pstrdup(name));
	}
	list_free(names);
	return distinct;
}

List *
wh_guc_databases(void)
{
	bool		ok;

	return parse_databases(wh_databases, &ok);
}

bool
wh_guc_lists(const char *database)
{
	List	   *names = wh_guc_databases();
	bool		found = false;
	ListCell   *cell;

	foreach(cell, names)
		found = found || strcmp(lfirst(cell), database) == 0;
	list_free_deep(names);
	return found;
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	bool		ok;
	List	   *names = parse_databases(*newval, &ok);

	if (!ok)
	{
		GUC_check_errdetail("List syntax is invalid: write database names separated by commas, in double quotes where they have capitals.");
		return false;
	}
	if (list_length(names) > WH_MAX_DATABASES)
	{
		GUC_check_errdetail("At most %d databases can hold a warehouse; %d are listed.",
							WH_MAX_DATABASES, list_length(names));
		return false;
	}
	list_free_deep(names);
	return true;
}

static bool
check_role(char **newval, void **extra, GucSource source)
{
	size_t		length = strlen(*newval);

	if (length == 0 || length >= NAMEDATALEN)
	{
		GUC_check_errdetail("A role name has 1 to %d bytes.", NAMEDATALEN - 1);
		return false;
	}
	if (strncmp(*newval, "pg_", 3) == 0)
	{
		GUC_check_errdetail("Role names that start with \"pg_\" are reserved.");
		return false;
	}
	return true;
}

static bool
check_timezone(char **newval, void **extra, GucSource source)
{
	pg_tz	   *zone = pg_tzset(*newval);

	if (zone == NULL || !pg_tz_acceptable(zone))
	{
		GUC_check_errdetail("\"%s\" is not a time zone; give a name such as Europe/Berlin.", *newval);
		return false;
	}
	return true;
}

static void
define_duration(const char *name, const char *description, int *variable,
				int boot_ms, int min_ms)
{
	DefineCustomIntVariable(name, description, NULL, variable, boot_ms, min_ms,
							INT_MAX, PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

static void
define_size(const char *name, const char *description, const char *detail, int *variable,
			int boot_kb, int min_kb, int max_kb)
{
	DefineCustomIntVariable(name, description, detail, variable, boot_kb, min_kb,
							max_kb, PGC_SIGHUP, GUC_UNIT_KB, NULL, NULL, NULL);
}

static void
define_schedule_settings(void)
{
	DefineCustomStringVariable("wh_worker.timezone",
							   "Time zone of schedules that name none, and of quiet hours.",
							   NULL, &wh_timezone, "UTC", PGC_SIGHUP, 0,
							   check_timezone, NULL, NULL);
	DefineCustomIntVariable("wh_worker.catchup_days",
							"How many days back a schedule looks for days that are missing, failed or were fetched before they were over.",
							"0: only today, and yesterday once.", &wh_catchup_days, 7, 0, 36500, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("wh_worker.debug_clock_offset",
							"Shifts the clock by which schedules are kept; for tests.",
							NULL, &wh_debug_clock_offset, 0, INT_MIN, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_S | GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL, NULL, NULL, NULL);
}

static void
define_process_settings(void)
{
	DefineCustomStringVariable("wh_worker.databases",
							   "Databases that hold a warehouse, separated by commas, in double quotes where they have capitals.",
							   "At most 32. Each gets a launcher as soon as it exists.",
							   &wh_databases, "postgres", PGC_SIGHUP, 0,
							   check_databases, NULL, NULL);
	DefineCustomBoolVariable("wh_worker.enabled",
							 "Whether new jobs start.",
							 "When off, running jobs finish and the launchers disconnect.",
							 &wh_enabled, true, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("wh_worker.max_workers",
							"Workers at once, over all databases.", NULL,
							&wh_max_workers, 4, 1, 256, PGC_POSTMASTER, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("wh_worker.max_workers_per_tenant",
							"Workers at once for one tenant.",
							"A tenant's own max_connections overrides it.",
							&wh_max_workers_per_tenant, 2, 1, 256, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomStringVariable("wh_worker.admin_role",
							   "Role that launchers and workers run as and that owns all warehouse objects.",
							   "CREATE EXTENSION makes it; set this before.", &wh_admin_role, "whadmin", PGC_POSTMASTER, 0,
							   check_role, NULL, NULL);
	DefineCustomStringVariable("wh_worker.reader_role",
							   "Role that gets SELECT on what is published.",
							   "After a change run sql/create.sql again, or _wh.apply_grants().", &wh_reader_role, "phood_ro", PGC_SIGHUP, 0,
							   check_role, NULL, NULL);
}

static void
define_job_settings(void)
{
	DefineCustomIntVariable("wh_worker.max_attempts",
							"Attempts of a job before it is failed.", NULL,
							&wh_max_attempts, 5, 1, 1000, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	define_duration("wh_worker.retry_delay",
					"Wait before the second attempt of a job; it doubles with each further one, up to wh_worker.retry_delay_max.",
					&wh_retry_delay, 10 * 1000, 1);
	define_duration("wh_worker.retry_delay_max",
					"Longest wait before an attempt.",
					&wh_retry_delay_max, 15 * 60 * 1000, 1);
	define_duration("wh_worker.connect_timeout",
					"Time to reach a tenant.",
					&wh_connect_timeout, 10 * 1000, 1);
	define_duration("wh_worker.fetch_idle_timeout",
					"A tenant that sends nothing for this long is given up.",
					&wh_fetch_idle_timeout, 5 * 60 * 1000, 1);
	define_duration("wh_worker.job_timeout",
					"Time for one attempt of a job, all of it.",
					&wh_job_timeout, 2 * 60 * 60 * 1000, 1);
	define_size("wh_worker.max_row_size",
				"Largest row that is taken from a tenant.",
				"A worker may need four times as much memory for one.",
				&wh_max_row_size, 128 * 1024, 64, 1024 * 1024);
	define_size("wh_worker.max_day_size",
				"How much a tenant may send for one day of one template.",
				"0 sets no limit.",
				&wh_max_day_size, 10 * 1024 * 1024, 0, INT_MAX);
	define_duration("wh_worker.swap_lock_timeout",
					"One try for a lock that readers feel; they have their turn before the next.",
					&wh_swap_lock_timeout, 200, 1);
	define_duration("wh_worker.worker_idle_timeout",
					"An idle worker, and its tenant connection, goes away after this.",
					&wh_worker_idle_timeout, 60 * 1000, 1);
	DefineCustomIntVariable("wh_worker.history_days",
							"Days that finished jobs and their history are kept.",
							"Of the history at most a million rows.",
							&wh_history_days, 30, 1, 36500, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("wh_worker.audit_days",
							"Days that the audit log is kept.",
							"Connections to tenants are kept for wh_worker.history_days.",
							&wh_audit_days, 365, 1, 36500, PGC_SIGHUP, 0,
							NULL, NULL, NULL);
}

static void
define_log_settings(void)
{
	DefineCustomIntVariable("wh_worker.log_min_duration",
							"Logs each job that succeeded and took at least this long.",
							"0 logs all of them, -1 none. What fails is logged in any case.",
							&wh_log_min_duration, 10 * 60 * 1000, -1, INT_MAX, PGC_SIGHUP,
							GUC_UNIT_MS, NULL, NULL, NULL);
}

/* The program is run without a shell, and from the data directory. */
static bool
check_password_command(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0' && **newval != '/')
	{
		GUC_check_errdetail("Give the program with its full path, and its arguments separated by spaces; no shell reads them.");
		return false;
	}
	return true;
}

static void
define_secret_settings(void)
{
	DefineCustomStringVariable("wh_worker.key_file",
							   "File with the keys that encrypt passwords of tenants at rest.",
							   "The first key encrypts, all decrypt. Empty: they are stored in clear.",
							   &wh_key_file, "", PGC_POSTMASTER, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("wh_worker.password_command",
							   "Program, with its full path and arguments, that prints the password of a tenant for which none is stored and password_from_command is true.",
							   "It is run with the tenant's name as its last argument.",
							   &wh_password_command, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_password_command, NULL, NULL);
}

static bool
check_page_file(char **newval, void **extra, GucSource source)
{
	if (**newval != '\0' && !is_absolute_path(*newval))
	{
		GUC_check_errdetail("Give the file with its full path.");
		return false;
	}
	return true;
}

static void
define_page_settings(void)
{
	DefineCustomStringVariable("wh_worker.status_page_file",
							   "File into which _wh.write_status_page() writes the status page.",
							   "It is replaced as a whole, so the server has to be allowed to write to its directory. Empty: none.",
							   &wh_status_page_file, "", PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   check_page_file, NULL, NULL);
}

static void
define_planner_settings(void)
{
	DefineCustomBoolVariable("wh_worker.enable_stable_pruning",
							 "Whether partitions are excluded by CURRENT_DATE and now() when a query is planned.",
							 "Plans cached before a change keep what they have.",
							 &wh_enable_stable_pruning, true, PGC_USERSET, GUC_EXPLAIN,
							 NULL, NULL, NULL);
}

void
wh_guc_define(void)
{
	define_process_settings();
	define_job_settings();
	define_schedule_settings();
	define_log_settings();
	define_secret_settings();
	define_page_settings();
	define_planner_settings();
	MarkGUCPrefixReserved(WH_LIBRARY_NAME);
}
