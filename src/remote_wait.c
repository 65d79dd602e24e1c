/*
 * remote_wait.c: sending to a tenant, waiting for what it answers, and raising
 * what it said.
 *
 * Called by the other remote*.c.  Does not know what is fetched.
 *
 * Every wait is on the latch and obeys interrupts; one for a tenant's socket
 * ends with an error after fetch_idle_timeout without a byte.  Nothing here
 * may be called while closing: that may neither raise nor wait for interrupts.
 *
 * What the peer sends may be in any encoding and have any number of lines; it
 * leaves this file valid in the database's encoding.  Takes no locks.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "wait_event.h"
#include "wh_worker.h"
#include "error.h"
#include "guc.h"
#include "plain_text.h"
#include "remote_private.h"

/* ms that the answer to a COMMIT is waited for, all of it, which is long there as a rule */
#define END_TIMEOUT 1000

/* ---------------------------------------------------------------------
 * Messages
 * ---------------------------------------------------------------------
 */

static char *
result_field(const PGresult *result, int field)
{
	const char *text = PQresultErrorField(result, field);

	return text ? wh_plain_text(text) : NULL;
}

/* A SQLSTATE as sent; states that are no errors count as a broken protocol. */
int
wh_remote_error_sqlstate(const char *state)
{
	if (state == NULL || strlen(state) != 5)
		return ERRCODE_CONNECTION_FAILURE;
	if (state[0] == '0' && state[1] >= '0' && state[1] <= '2')
		return ERRCODE_PROTOCOL_VIOLATION;
	return MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
}

void
wh_remote_raise_lost(WhRemote *remote)
{
	char	   *message = wh_plain_text(PQerrorMessage(remote->conn));

	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("tenant \"%s\": %s", remote->name,
					message[0] ? message : "connection lost")));
}

/* Raises what the tenant said; "context" is ours, or NULL. */
void
wh_remote_raise_result(WhRemote *remote, const PGresult *result, const char *context)
{
	char	   *state = result_field(result, PG_DIAG_SQLSTATE);
	char	   *primary = result_field(result, PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = result_field(result, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = result_field(result, PG_DIAG_MESSAGE_HINT);
	char	   *remote_context = result_field(result, PG_DIAG_CONTEXT);

	if (primary == NULL)
		primary = wh_plain_text(PQresultErrorMessage(result));
	if (primary[0] == '\0')
		wh_remote_raise_lost(remote);
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(wh_remote_error_sqlstate(state)),
			 errmsg("tenant \"%s\": %s", remote->name, primary),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 remote_context ? errcontext("%s", remote_context) : 0,
			 context ? errcontext("%s", context) : 0));
}

void
wh_remote_raise_unexpected(WhRemote *remote, const char *what)
{
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("tenant \"%s\" gave an unexpected answer to %s", remote->name, what)));
}

/* "90 s", or "1500 ms" if it is no whole number of seconds. */
char *
wh_remote_duration_text(int ms)
{
	return ms % 1000 == 0 ? psprintf("%d s", ms / 1000) : psprintf("%d ms", ms);
}

/* ---------------------------------------------------------------------
 * Waiting
 * ---------------------------------------------------------------------
 */

/* Milliseconds of "timeout" that are left since "start"; -1 without a limit. */
long
wh_remote_time_left(TimestampTz start, int timeout)
{
	if (timeout <= 0)
		return -1;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   TimestampTzPlusMilliseconds(start, timeout));
}

void
wh_remote_check_latch(uint32 events)
{
	if (events & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
raise_silence(WhRemote *remote)
{
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("tenant \"%s\" has sent nothing for %s", remote->name,
					wh_remote_duration_text(wh_fetch_idle_timeout)),
			 errhint("wh_worker.fetch_idle_timeout sets how long a silent tenant is waited for.")));
}

/* True when one of "wanted" happened on the socket, false after "timeout" ms. */
static bool
wait_for_socket_until(WhRemote *remote, uint32 wanted, int timeout)
{
	TimestampTz start = GetCurrentTimestamp();

	if (wanted != remote->socket_events)
	{
		ModifyWaitEvent(remote->events, remote->socket_position, wanted, NULL);
		remote->socket_events = wanted;
	}
	for (;;)
	{
		WaitEvent	event;
		long		left = wh_remote_time_left(start, timeout);

		CHECK_FOR_INTERRUPTS();
		if (left == 0)
			return false;
		if (WaitEventSetWait(remote->events, left, &event, 1, wh_wait_event(WH_WAIT_TENANT_READ)) == 0)
			continue;
		if (event.events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE))
			return true;
		wh_remote_check_latch(event.events);
	}
}

/* Returns when one of "wanted" happened on the socket, else raises. */
static void
wait_for_socket(WhRemote *remote, uint32 wanted)
{
	if (!wait_for_socket_until(remote, wanted, wh_fetch_idle_timeout))
		raise_silence(remote);
}

void
wh_remote_read_more(WhRemote *remote)
{
	wait_for_socket(remote, WL_SOCKET_READABLE);
	wh_remote_limits_check(remote);
	/* a lost connection also shows in the result, with what the server said */
	(void) PQconsumeInput(remote->conn);
}

void
wh_remote_flush(WhRemote *remote)
{
	int			state;

	while ((state = PQflush(remote->conn)) > 0)
	{
		wait_for_socket(remote, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE);
		wh_remote_limits_check(remote);
		(void) PQconsumeInput(remote->conn);
	}
	if (state < 0)
		wh_remote_raise_lost(remote);
}

/* The next result, or NULL; it lives until the next call. */
PGresult *
wh_remote_next_result(WhRemote *remote)
{
	PQclear(remote->result);
	remote->result = NULL;
	while (PQisBusy(remote->conn) && PQstatus(remote->conn) != CONNECTION_BAD)
		wh_remote_read_more(remote);
	remote->result = PQgetResult(remote->conn);
	return remote->result;
}

/*
 * Reads the answer to the COMMIT that wh_remote_end() sent.  False, after which the
 * connection is of no use, if it was an error or does not come, or does not end.
 */
bool
wh_remote_has_ended(WhRemote *remote)
{
	TimestampTz start = GetCurrentTimestamp();
	bool		succeeded = true;
	PGresult   *result;

	while (remote->ending)
	{
		long		left = wh_remote_time_left(start, END_TIMEOUT);

		CHECK_FOR_INTERRUPTS();
		if (left == 0)
			return false;
		if (PQisBusy(remote->conn) && PQstatus(remote->conn) != CONNECTION_BAD)
		{
			if (!wait_for_socket_until(remote, WL_SOCKET_READABLE, left) ||
				!wh_remote_limits_kept(remote))
				return false;
			(void) PQconsumeInput(remote->conn);
			continue;
		}
		result = PQgetResult(remote->conn);
		remote->ending = result != NULL;
		succeeded = succeeded && (result == NULL || PQresultStatus(result) == PGRES_COMMAND_OK);
		PQclear(result);
	}
	return succeeded;
}

void
wh_remote_expect_ended(WhRemote *remote)
{
	if (!wh_remote_has_ended(remote))
		wh_remote_raise_lost(remote);
}

/* ---------------------------------------------------------------------
 * Commands
 * ---------------------------------------------------------------------
 */

void
wh_remote_check_sent(WhRemote *remote, int sent)
{
	if (!sent)
		wh_remote_raise_lost(remote);
}

void
wh_remote_send(WhRemote *remote, const char *sql, int nparams, const char *const *params)
{
	wh_remote_expect_ended(remote);
	/* from who does not take it libpq reads meanwhile */
	wh_remote_limits_memory(remote);
	wh_remote_check_sent(remote, PQsendQueryParams(remote->conn, sql, nparams, NULL, params, NULL, NULL, 0));
}

/* After the result of a command nothing more may come. */
void
wh_remote_expect_no_more(WhRemote *remote)
{
	PGresult   *result = wh_remote_next_result(remote);

	if (result == NULL)
		return;
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		wh_remote_raise_result(remote, result, NULL);
	wh_remote_raise_unexpected(remote, "a command");
}

PGresult *
wh_remote_expect_result(WhRemote *remote, ExecStatusType expected)
{
	PGresult   *result = wh_remote_next_result(remote);

	if (result == NULL)
		wh_remote_raise_lost(remote);
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		wh_remote_raise_result(remote, result, NULL);
	if (PQresultStatus(result) != expected)
		wh_remote_raise_unexpected(remote, "a command");
	return result;
}

void
wh_remote_run(WhRemote *remote, const char *sql)
{
	wh_remote_send(remote, sql, 0, NULL);
	wh_remote_flush(remote);
	(void) wh_remote_expect_result(remote, PGRES_COMMAND_OK);
	wh_remote_expect_no_more(remote);
}

static char *
first_value(PGresult *result)
{
	if (PQntuples(result) < 1 || PQnfields(result) < 1 || PQgetisnull(result, 0, 0))
		return NULL;
	return wh_plain_text(PQgetvalue(result, 0, 0));
}

char *
wh_remote_query_value(WhRemote *remote, const char *sql, int nparams, const char *const *params)
{
	char	   *value;

	wh_remote_send(remote, sql, nparams, params);
	wh_remote_flush(remote);
	value = first_value(wh_remote_expect_result(remote, PGRES_TUPLES_OK));
	wh_remote_expect_no_more(remote);
	return value;
}
