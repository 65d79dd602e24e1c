/*
 * error.c: turning an ErrorData into a record, and what is worth a retry.
 *
 * Called by the worker's error boundary and by the functions that run at
 * once, after they caught an error and copied it; everything here is pure
 * but for one flag, which remote.c sets just before it raises what a tenant
 * said.
 *
 * May not raise, log, or touch a catalog: the transaction may have failed.
 * Takes no lock.
 */
#include "postgres.h"

#include "error.h"
#include "plain_text.h"
#include "wh_worker.h"

/* Whether the error that is on its way is a tenant's. */
static bool error_is_remote = false;

void
wh_error_mark_remote(void)
{
	error_is_remote = true;
}

void
wh_error_reset(void)
{
	error_is_remote = false;
}

bool
wh_error_is_remote(void)
{
	return error_is_remote;
}

static bool
class_is_transient(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
			return true;
		default:
			return false;
	}
}

/* Servers newer or older than the one we are built for may say them. */
#define SNAPSHOT_TOO_OLD MAKE_SQLSTATE('7', '2', '0', '0', '0')
#define TRANSACTION_TIMEOUT MAKE_SQLSTATE('2', '5', 'P', '0', '4')

/*
 * A conflict with recovery at a standby is a serialization failure, so that
 * class 40 covers it.
 *
 * What is said by a wrong password, query, value or name stays wrong until
 * somebody changes it.  query_canceled depends on who cancelled, and is
 * decided in wh_failure_from_error().
 */
bool
wh_sqlstate_is_transient(int sqlerrcode)
{
	if (class_is_transient(sqlerrcode))
		return true;

	switch (sqlerrcode)
	{
		case ERRCODE_ADMIN_SHUTDOWN:
		case ERRCODE_CRASH_SHUTDOWN:
		case ERRCODE_CANNOT_CONNECT_NOW:
		case ERRCODE_IDLE_SESSION_TIMEOUT:
		case ERRCODE_IDLE_IN_TRANSACTION_SESSION_TIMEOUT:
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_IO_ERROR:
		case SNAPSHOT_TOO_OLD:
		case TRANSACTION_TIMEOUT:
			return true;
		default:
			return false;
	}
}

/*
 * PostgreSQL raises the same SQLSTATE for a cancel request and for
 * statement_timeout; message_id is the text before translation.
 */
static bool
is_statement_timeout(const ErrorData *edata)
{
	return edata->message_id != NULL &&
		strcmp(edata->message_id, "canceling statement due to statement timeout") == 0;
}

/* It may quote a value or say what a tenant said, as long as that is. */
static char *
one_line_message(const ErrorData *edata)
{
	char	   *message = wh_plain_text(edata->message ? edata->message : "missing error text");

	if (edata->detail == NULL || edata->detail[0] == '\0')
		return message;
	return psprintf("%s: %s", message, wh_plain_text(edata->detail));
}

WhFailure *
wh_failure_from_error(const ErrorData *edata)
{
	WhFailure  *failure = palloc0(sizeof(WhFailure));
	bool		query_canceled = edata->sqlerrcode == ERRCODE_QUERY_CANCELED;

	strlcpy(failure->sqlstate, unpack_sql_state(edata->sqlerrcode), sizeof(failure->sqlstate));
	failure->message = one_line_message(edata);
	failure->cancelled = query_canceled && !error_is_remote && !is_statement_timeout(edata);
	failure->transient = query_canceled ? !failure->cancelled :
		wh_sqlstate_is_transient(edata->sqlerrcode);
	return failure;
}
