/*
 * remote_connect.c: makes a connection to a tenant, and tells its state.
 *
 * Called by refresh.c, fetch_day and the checks through remote.h.  Here it is
 * decided which libpq parameters a tenant's options may set; remote_guard.c
 * decides which connections may be made.
 *
 * libpq's look-up of a host name blocks; every other wait is on the latch,
 * obeys interrupts, and ends with connect_timeout, the tenant's own or the
 * setting.  A connection is registered for closing at exit before it exists,
 * and one that could not be made is closed before the error goes on.
 *
 * No password may get into a message.  Takes no locks.
 */
#include "postgres.h"

#include <poll.h>

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "wait_event.h"
#include "wh_worker.h"
#include "compat.h"
#include "error.h"
#include "guc.h"
#include "password.h"
#include "plain_text.h"
#include "remote_audit.h"
#include "remote_private.h"
#include "secret.h"

/* Never exists; libpq takes an empty name, and a null one, for its default. */
#define NO_FILE "/dev/null/none"

static const char *const safe_options[] = {
	"channel_binding", "connect_timeout", "keepalives", "keepalives_count",
	"keepalives_idle", "keepalives_interval", "ssl_max_protocol_version",
	"ssl_min_protocol_version", "sslsni", "target_session_attrs",
	"tcp_user_timeout"
};

/* ---------------------------------------------------------------------
 * Errors
 * ---------------------------------------------------------------------
 */

static bool
is_source_location(const char *line, const char *end)
{
	const char *colon = end;

	while (colon > line && colon[-1] >= '0' && colon[-1] <= '9')
		colon--;
	return colon < end && colon - line > 3 && memcmp(colon - 3, ".c:", 3) == 0;
}

/* Finds ":  28P01: " in a line of a verbose message; NULL if it has none. */
static const char *
find_sqlstate(const char *line, const char *end)
{
	for (const char *p = line; p + 10 <= end; p++)
	{
		if (memcmp(p, ":  ", 3) == 0 && memcmp(p + 8, ": ", 2) == 0 &&
			strspn(p + 3, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
			return p + 3;
	}
	return NULL;
}

/*
 * libpq has no SQLSTATE for a failed connection except in the text of a
 * verbose message.  Takes it out of there into *sqlstate, and leaves out the
 * server's source locations.
 */
static char *
connection_message(const char *verbose, int *sqlstate)
{
	StringInfoData text;

	initStringInfo(&text);
	*sqlstate = ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	while (*verbose != '\0')
	{
		const char *end = verbose + strcspn(verbose, "\n");
		const char *state = find_sqlstate(verbose, end);

		if (state != NULL)
		{
			*sqlstate = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
			appendBinaryStringInfo(&text, verbose, state - verbose);
			appendBinaryStringInfo(&text, state + 7, end - state - 7);
			appendStringInfoChar(&text, ' ');
		}
		else if (!is_source_location(verbose, end))
		{
			appendBinaryStringInfo(&text, verbose, end - verbose);
			appendStringInfoChar(&text, ' ');
		}
		verbose = *end ? end + 1 : end;
	}
	return wh_plain_text(text.data);
}

static void
raise_connect_failure(WhRemote *remote)
{
	int			sqlstate;
	char	   *message = connection_message(PQerrorMessage(remote->conn), &sqlstate);
	bool		about_tls = strstr(message, "SSL") != NULL &&
		sqlstate == ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;

	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("could not connect to tenant \"%s\": %s", remote->name, message),
			 about_tls ?
			 errhint("The tenant's sslmode is \"%s\"; its server has to offer what that asks for.",
					 remote->sslmode) : 0));
}

/* ---------------------------------------------------------------------
 * Connecting
 * ---------------------------------------------------------------------
 */

/* The tenant's own connect_timeout (in seconds) goes before the setting. */
static int
connect_timeout(const WhTenant *tenant)
{
	for (int i = 0; i < tenant->noptions; i++)
	{
		if (strcmp(tenant->option_names[i], "connect_timeout") == 0)
		{
			int			seconds = atoi(tenant->option_values[i]);

			if (seconds > 0 && seconds <= PG_INT32_MAX / 1000)
				return seconds * 1000;
		}
	}
	return wh_connect_timeout;
}

static void
start_connecting(WhRemote *remote, const WhTenant *tenant)
{
	const char **names = palloc0((tenant->noptions + 24) * sizeof(char *));
	const char **values = palloc0((tenant->noptions + 24) * sizeof(char *));
	char	   *password;
	int			n = 0;

#define PARAMETER(name, value) (names[n] = (name), values[n++] = (value))
	PARAMETER("keepalives_idle", "30");
	PARAMETER("keepalives_interval", "10");
	PARAMETER("keepalives_count", "3");
	PARAMETER("tcp_user_timeout", psprintf("%d", wh_fetch_idle_timeout));
	/* no file, and not the certificate in the home of the server's user either */
	PARAMETER("sslcert", NO_FILE);
	/* a later one wins, so options may change those above, not those below */
	for (int i = 0; i < tenant->noptions; i++)
	{
		if (wh_remote_option_is_safe(tenant->option_names[i]) ||
			wh_remote_option_is_file(tenant->option_names[i]))
			PARAMETER(tenant->option_names[i], tenant->option_values[i]);
	}
	PARAMETER("host", tenant->host);
	PARAMETER("port", psprintf("%d", tenant->port));
	PARAMETER("dbname", tenant->dbname);
	PARAMETER("user", tenant->username);
	PARAMETER("passfile", NO_FILE);
	PARAMETER("sslmode", tenant->sslmode);
	PARAMETER("sslrootcert", tenant->sslrootcert);
	PARAMETER("gssencmode", "disable");
	PARAMETER("client_encoding", GetDatabaseEncodingName());
	PARAMETER("application_name", remote->application_name);

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not connect to tenant \"%s\": too many open files", remote->name),
				 errhint("Raise max_files_per_process or the operating system's limit.")));
	remote->has_external_fd = true;
	wh_remote_limits_start(remote);
	PARAMETER("password", password = wh_password_of(tenant, connect_timeout(tenant)));
#undef PARAMETER
	/* libpq keeps a copy, and wipes that when it closes the connection */
	remote->conn = wh_guard_connect_start(names, values);
	wh_secret_wipe(password);
	if (remote->conn == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	(void) PQsetErrorVerbosity(remote->conn, PQERRORS_VERBOSE);
}

static void
finish_connecting(WhRemote *remote, int timeout)
{
	TimestampTz start = GetCurrentTimestamp();
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (PQstatus(remote->conn) == CONNECTION_BAD)
		raise_connect_failure(remote);
	wh_remote_limits_notices(remote);
	while (status != PGRES_POLLING_OK)
	{
		uint32		wanted = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		long		left = wh_remote_time_left(start, timeout);
		int			events;

		if (status == PGRES_POLLING_FAILED)
			raise_connect_failure(remote);
		if (left == 0)
		{
			wh_error_mark_remote();
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("could not connect to tenant \"%s\": no answer within %s",
							remote->name, wh_remote_duration_text(timeout))));
		}
		CHECK_FOR_INTERRUPTS();
		events = WaitLatchOrSocket(MyLatch,
								   WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | wanted |
								   (left >= 0 ? WL_TIMEOUT : 0),
								   PQsocket(remote->conn), left, wh_wait_event(WH_WAIT_TENANT_CONNECT));
		wh_remote_check_latch(events);
		if (events & wanted)
			status = wh_guard_connect_poll(remote->conn);
		wh_remote_limits_memory(remote);
	}
}

static void
make_ready(WhRemote *remote)
{
	(void) PQsetErrorVerbosity(remote->conn, PQERRORS_DEFAULT);
	if (PQsetnonblocking(remote->conn, 1) != 0)
		wh_remote_raise_lost(remote);
	remote->events = WH_CREATE_WAIT_EVENT_SET(3);
	AddWaitEventToSet(remote->events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(remote->events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	remote->socket_events = WL_SOCKET_READABLE;
	remote->socket_position = AddWaitEventToSet(remote->events, WL_SOCKET_READABLE,
												PQsocket(remote->conn), NULL, NULL);
}

static WhRemote *
make_remote(const WhTenant *tenant, const char *application_name)
{
	MemoryContext context;
	MemoryContext old;
	WhRemote   *remote;

	context = AllocSetContextCreate(TopMemoryContext, "wh_worker remote", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	remote = palloc0(sizeof(WhRemote));
	remote->context = context;
	remote->name = pstrdup(tenant->name);
	remote->fingerprint = pstrdup(tenant->fingerprint);
	remote->sslmode = pstrdup(tenant->sslmode);
	MemoryContextSwitchTo(old);
	wh_remote_set_application_name(remote, application_name);
	wh_remote_register(remote);
	return remote;
}

/* ---------------------------------------------------------------------
 * What others call
 * ---------------------------------------------------------------------
 */

bool
wh_remote_option_is_safe(const char *name)
{
	for (int i = 0; i < lengthof(safe_options); i++)
	{
		if (strcmp(name, safe_options[i]) == 0)
			return true;
	}
	return false;
}

WhRemote *
wh_remote_connect(const WhTenant *tenant, const char *application_name)
{
	WhRemote   *remote;

	wh_guard_before(tenant);
	remote = make_remote(tenant, application_name);
	PG_TRY();
	{
		start_connecting(remote, tenant);
		finish_connecting(remote, connect_timeout(tenant));
		wh_guard_after(tenant, remote->conn);
		make_ready(remote);
	}
	PG_CATCH();
	{
		wh_remote_audit_failure(tenant);
		wh_remote_close(remote);
		PG_RE_THROW();
	}
	PG_END_TRY();
	wh_remote_audit_connected(tenant, remote);
	return remote;
}

const char *
wh_remote_fingerprint(const WhRemote *remote)
{
	return remote->fingerprint;
}

/* Also notices that the tenant closed the connection in the meantime. */
bool
wh_remote_is_idle(WhRemote *remote)
{
	if (wh_remote_is_ahead(remote) || !wh_remote_has_ended(remote))
		return false;
	for (int i = 0; i < 3 && wh_remote_poll_socket(PQsocket(remote->conn), POLLIN, 0); i++)
	{
		if (!wh_remote_limits_kept(remote) || !PQconsumeInput(remote->conn))
			return false;
		(void) PQisBusy(remote->conn);
	}
	return PQstatus(remote->conn) == CONNECTION_OK &&
		PQtransactionStatus(remote->conn) == PQTRANS_IDLE &&
		wh_remote_limits_kept(remote);
}

bool
wh_remote_used_tls(WhRemote *remote)
{
	return PQsslInUse(remote->conn) != 0;
}

int
wh_remote_server_version(WhRemote *remote)
{
	return PQserverVersion(remote->conn);
}

const char *
wh_remote_setting(WhRemote *remote, const char *parameter)
{
	return PQparameterStatus(remote->conn, parameter);
}

/* Takes effect with the next transaction, and for its time. */
void
wh_remote_set_application_name(WhRemote *remote, const char *application_name)
{
	int			length = pg_mbcliplen(application_name, strlen(application_name),
									  sizeof(remote->application_name) - 1);

	memcpy(remote->application_name, application_name, length);
	remote->application_name[length] = '\0';
}
