/*
 * remote_close.c: cancels what still runs at a tenant and closes the connection.
 *
 * Called through remote.h by whoever connected, in error paths too, and by the
 * server when the process exits: a FATAL error runs no PG_CATCH.
 *
 * Nothing here may raise, palloc, look at interrupts or wait without an end,
 * but for wh_remote_register(), which is called while connecting: closing is
 * bounded to a second even if the peer is stalled.
 *
 * All connections are in open_remotes from before they exist until they are
 * closed.  Takes no locks of the server's; the mutex is between a cancel's
 * thread and the one that waits for it.
 */
#include "postgres.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#include "wh_worker.h"
#include "remote_private.h"

#define CLOSE_TIMEOUT 1000		/* ms, for everything that closing does */
#define CANCEL_RETRY 200		/* ms until a cancel that changed nothing is repeated */
#define CANCEL_STACK_SIZE (256 * 1024)

static dlist_head open_remotes = DLIST_STATIC_INIT(open_remotes);

static int64
monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* True when the socket is ready before the deadline. */
bool
wh_remote_poll_socket(int fd, short events, int64 deadline)
{
	struct pollfd entry;

	entry.fd = fd;
	entry.events = events;
	for (;;)
	{
		int64		left = deadline - monotonic_ms();
		int			ready;

		entry.revents = 0;
		ready = poll(&entry, 1, left > 0 ? (int) left : 0);
		if (ready > 0)
			return true;
		if (ready == 0 || errno != EINTR)
			return false;
	}
}

#ifdef LIBPQ_HAS_ASYNC_CANCEL

static void
send_cancel(PGconn *conn, int64 deadline)
{
	PGcancelConn *cancel = PQcancelCreate(conn);

	if (cancel == NULL)
		return;
	if (PQcancelStart(cancel))
	{
		PostgresPollingStatusType status = PGRES_POLLING_WRITING;

		while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
		{
			if (!wh_remote_poll_socket(PQcancelSocket(cancel),
									   status == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline))
				break;
			status = PQcancelPoll(cancel);
		}
	}
	PQcancelFinish(cancel);
}

#else

/*
 * PQcancel() blocks, for minutes if the peer is stalled, so it is called by a
 * thread that may be left behind.  Whoever of the two is last frees this.
 */
typedef struct CancelCall
{
	pthread_mutex_t lock;		/* guards the two flags */
	pthread_cond_t changed;
	bool		done;
	bool		abandoned;
	PGcancel   *cancel;
} CancelCall;

static void
free_cancel_call(CancelCall *call)
{
	pthread_cond_destroy(&call->changed);
	pthread_mutex_destroy(&call->lock);
	PQfreeCancel(call->cancel);
	free(call);
}

static void *
cancel_thread(void *arg)
{
	CancelCall *call = arg;
	char		message[256];
	bool		last;

	(void) PQcancel(call->cancel, message, sizeof(message));
	pthread_mutex_lock(&call->lock);
	call->done = true;
	last = call->abandoned;
	pthread_cond_signal(&call->changed);
	pthread_mutex_unlock(&call->lock);
	if (last)
		free_cancel_call(call);
	return NULL;
}

/* Signals are the server's main thread's business, so block them in ours. */
static bool
start_cancel_thread(CancelCall *call)
{
	pthread_attr_t attributes;
	pthread_t	thread;
	sigset_t	all;
	sigset_t	before;
	bool		started;

	if (pthread_attr_init(&attributes) != 0)
		return false;
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, CANCEL_STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	started = pthread_create(&thread, &attributes, cancel_thread, call) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return started;
}

static CancelCall *
make_cancel_call(PGconn *conn)
{
	CancelCall *call = calloc(1, sizeof(CancelCall));
	pthread_condattr_t attributes;

	if (call == NULL)
		return NULL;
	call->cancel = PQgetCancel(conn);
	if (call->cancel == NULL)
	{
		free(call);
		return NULL;
	}
	pthread_mutex_init(&call->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&call->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	return call;
}

static void
send_cancel(PGconn *conn, int64 deadline)
{
	CancelCall *call = make_cancel_call(conn);
	struct timespec until;
	bool		last;

	if (call == NULL)
		return;
	if (!start_cancel_thread(call))
	{
		free_cancel_call(call);
		return;
	}
	until.tv_sec = deadline / 1000;
	until.tv_nsec = (deadline % 1000) * 1000000;
	pthread_mutex_lock(&call->lock);
	while (!call->done)
	{
		if (pthread_cond_timedwait(&call->changed, &call->lock, &until) != 0)
			break;
	}
	last = call->done;
	call->abandoned = !call->done;
	pthread_mutex_unlock(&call->lock);
	if (last)
		free_cancel_call(call);
}

#endif							/* LIBPQ_HAS_ASYNC_CANCEL */

/*
 * Reads away what has arrived; true if that was the end of the command.  A peer
 * may send ends of commands without end.
 */
static bool
command_has_ended(WhRemote *remote, int64 deadline)
{
	int			ends = 0;

	while (PQtransactionStatus(remote->conn) == PQTRANS_ACTIVE)
	{
		PGresult   *result;
		ExecStatusType status;

		/* who sends more than can be held is read no further */
		if (!wh_remote_limits_kept(remote))
		{
			remote->copying = true;
			return false;
		}
		(void) PQconsumeInput(remote->conn);
		if (PQisBusy(remote->conn) || monotonic_ms() >= deadline)
			return false;
		result = PQgetResult(remote->conn);
		status = PQresultStatus(result);
		PQclear(result);
		/* in any kind of COPY libpq gives the same result again and again */
		if (status == PGRES_COPY_OUT || status == PGRES_COPY_IN || status == PGRES_COPY_BOTH)
		{
			remote->copying = true;
			return false;
		}
		if (status == PGRES_PIPELINE_SYNC)
			(void) PQexitPipelineMode(remote->conn);
		/* one NULL ends a step of a pipeline, two mean that nothing is left */
		ends = result == NULL ? ends + 1 : 0;
		if (ends > 1)
			return true;
	}
	return true;
}

/*
 * A cancel that arrives before its command has begun is lost.  A COPY that
 * streams has begun; otherwise the tenant's answer shows that it was heeded.
 */
static void
cancel_command(WhRemote *remote)
{
	int64		deadline = monotonic_ms() + CLOSE_TIMEOUT;

	if (wh_remote_limits_kept(remote))
		(void) PQflush(remote->conn);
	while (monotonic_ms() < deadline)
	{
		if (!remote->copying && command_has_ended(remote, deadline))
			return;
		send_cancel(remote->conn, deadline);
		if (remote->copying)
			return;
		(void) wh_remote_poll_socket(PQsocket(remote->conn), POLLIN,
									 Min(deadline, monotonic_ms() + CANCEL_RETRY));
	}
}

void
wh_remote_close(WhRemote *remote)
{
	if (remote == NULL)
		return;
	dlist_delete(&remote->node);
	if (remote->conn != NULL)
	{
		if (PQstatus(remote->conn) == CONNECTION_OK && !remote->ending &&
			PQtransactionStatus(remote->conn) == PQTRANS_ACTIVE)
			cancel_command(remote);
		if (remote->copy_data != NULL)
			PQfreemem(remote->copy_data);
		PQclear(remote->result);
	}
	if (remote->events != NULL)
		FreeWaitEventSet(remote->events);
	if (remote->conn != NULL)
		PQfinish(remote->conn);
	if (remote->has_external_fd)
		ReleaseExternalFD();
	MemoryContextDelete(remote->context);
}

static void
close_all_remotes(int code, Datum arg)
{
	while (!dlist_is_empty(&open_remotes))
		wh_remote_close(dlist_container(WhRemote, node, dlist_head_node(&open_remotes)));
}

/* From here on the connection is closed when the process exits. */
void
wh_remote_register(WhRemote *remote)
{
	static bool registered = false;

	if (!registered)
	{
		before_shmem_exit(close_all_remotes, (Datum) 0);
		registered = true;
	}
	dlist_push_tail(&open_remotes, &remote->node);
}
