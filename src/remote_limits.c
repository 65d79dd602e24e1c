/*
 * remote_limits.c: how much a tenant may make us hold, and how much it may say
 * that nobody asked for.
 *
 * Exists because libpq takes whatever comes: it makes room for a message of
 * two gigabytes as soon as one is announced, keeps each row of an answer, each
 * notification and each parameter it is told of.  Called between the reads of
 * remote_connect.c and remote_wait.c.
 *
 * libpq tells nobody what it holds, so it is what malloc() has given away less
 * what our own memory contexts have of it.  Where the C library does not say
 * that, only the limits of fetch_day.c hold.
 *
 * Takes no locks.
 */
#include "postgres.h"

#ifdef __GLIBC__
#if __GLIBC_PREREQ(2, 33)
#define HAS_MALLINFO2
#include <malloc.h>
#endif
#endif

#include "utils/memutils.h"

#include "wh_worker.h"
#include "error.h"
#include "guc.h"
#include "remote_private.h"

/* Bytes that a connection may take whatever its rows are. */
#define ALLOWED_BYTES ((int64) 64 * 1024 * 1024)

/* libpq's buffer doubles until a row fits, and a row is copied out of it. */
#define COPIES_OF_A_ROW 3

/* A tenant is told to send no notices; some come while it connects. */
#define ALLOWED_UNASKED 1000

/* What malloc() has given away to whomever. */
static int64
allocated_memory(void)
{
#ifdef HAS_MALLINFO2
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
#else
	return 0;
#endif
}

/* Of which this is PostgreSQL's own. */
static int64
context_memory(void)
{
	return MemoryContextMemAllocated(TopMemoryContext, true);
}

/* Whether the connection has taken more; our own part is asked for only if it matters. */
static bool
has_taken(const WhRemote *remote, int64 bytes)
{
	int64		more = allocated_memory() - remote->memory_before;

	return more > bytes && more - context_memory() > bytes;
}

static int64
allowed_memory(void)
{
	return ALLOWED_BYTES + COPIES_OF_A_ROW * (int64) wh_max_row_size * 1024;
}

static void
count_notice(void *arg, const PGresult *result)
{
	((WhRemote *) arg)->unasked++;
}

/* Notifications that are not taken out are kept by libpq. */
static void
drop_notifications(WhRemote *remote)
{
	PGnotify   *notification;

	while ((notification = PQnotifies(remote->conn)) != NULL)
	{
		PQfreemem(notification);
		remote->unasked++;
	}
}

/* Before there is a connection: what it takes is counted from here. */
void
wh_remote_limits_start(WhRemote *remote)
{
	remote->memory_before = allocated_memory() - context_memory();
}

/* From now on it is seen what the tenant says unasked. */
void
wh_remote_limits_notices(WhRemote *remote)
{
	(void) PQsetNoticeReceiver(remote->conn, count_notice, remote);
}

void
wh_remote_limits_memory(WhRemote *remote)
{
	if (!has_taken(remote, allowed_memory()))
		return;
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("tenant \"%s\" sends more than can be held", remote->name),
			 errdetail("One row or one answer took more than %lld MB.",
					   (long long) (allowed_memory() / (1024 * 1024))),
			 errhint("wh_worker.max_row_size sets how large a row may be.")));
}

/*
 * Before every read: with the room for a large message libpq reads on for as long
 * as bytes come, so that it has to be known what it made room for.  It does so when
 * it looks at what has arrived, the beginning of a message too, after a whole row.
 */
void
wh_remote_limits_check(WhRemote *remote)
{
	drop_notifications(remote);
	if (remote->unasked > ALLOWED_UNASKED)
	{
		wh_error_mark_remote();
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("tenant \"%s\" sends notices and notifications without end", remote->name),
				 errdetail("More than %d came in one transaction.", ALLOWED_UNASKED)));
	}
	wh_remote_limits_memory(remote);
}

/* A transaction begins: what was said before it is forgiven, what is held is not. */
void
wh_remote_limits_begin(WhRemote *remote)
{
	remote->unasked = 0;
}

/* Whether a kept connection has grown so much that a new one is better. */
bool
wh_remote_limits_kept(WhRemote *remote)
{
	drop_notifications(remote);
	return remote->unasked <= ALLOWED_UNASKED &&
		!has_taken(remote, allowed_memory() / 2);
}
