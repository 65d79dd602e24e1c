/*
 * remote_private.h: what the files behind remote.h share.
 *
 * Only remote*.c may include it: it is the one place where libpq's header
 * comes in, and nobody else sees a PGconn.  The names carry the prefix because
 * the server and all that it loads share one space of symbols.
 */
#ifndef WH_REMOTE_PRIVATE_H
#define WH_REMOTE_PRIVATE_H

#include "lib/ilist.h"
#include "libpq-fe.h"
#include "storage/latch.h"

#include "compat.h"
#include "remote.h"

struct WhRemote
{
	dlist_node	node;			/* in the list that remote_close.c keeps */
	MemoryContext context;		/* holds this struct too */
	PGconn	   *conn;
	bool		has_external_fd;
	WaitEventSet *events;		/* latch, postmaster, socket */
	int			socket_position;
	uint32		socket_events;
	PGresult   *result;			/* the last one read; cleared by the next */
	char	   *copy_data;		/* the CopyData message the caller looks at */
	bool		copying;
	bool		ending;			/* COMMIT was sent, its answer is not read yet */
	char	   *fitting_columns;	/* what was declared when a description was last checked, */
	char	   *fitting_shape;	/* and what it was; or NULL */
	Oid		   *fitting_targets;	/* and the types that the columns were cast to */
	bool		fitting_binary;	/* and the format of the COPY */
	struct WhAhead *ahead;		/* what was asked before anybody wanted it, or NULL */
	int64		memory_before;	/* remote_limits.c */
	int			unasked;		/* notices and notifications of this transaction */
	char	   *name;
	char	   *fingerprint;
	char	   *sslmode;
	char		application_name[NAMEDATALEN];
};

/* remote_limits.c: raises when the tenant makes us hold, or says, too much */
extern void wh_remote_limits_start(WhRemote *remote);
extern void wh_remote_limits_notices(WhRemote *remote);
extern void wh_remote_limits_memory(WhRemote *remote);
extern void wh_remote_limits_begin(WhRemote *remote);
extern void wh_remote_limits_check(WhRemote *remote);
extern bool wh_remote_limits_kept(WhRemote *remote);

/* remote_wait.c: text of ours, palloc'd */
extern char *wh_remote_duration_text(int ms);

/* remote_wait.c: errors; "context" is ours, or NULL */
extern int	wh_remote_error_sqlstate(const char *state);
WH_NORETURN extern void wh_remote_raise_lost(WhRemote *remote);
WH_NORETURN extern void wh_remote_raise_result(WhRemote *remote, const PGresult *result,
											   const char *context);
extern void wh_remote_raise_unexpected(WhRemote *remote, const char *what);

/* remote_wait.c: waiting; a result lives until the next one is asked for */
extern long wh_remote_time_left(TimestampTz start, int timeout);
extern void wh_remote_check_latch(uint32 events);
extern void wh_remote_read_more(WhRemote *remote);
extern void wh_remote_flush(WhRemote *remote);
extern PGresult *wh_remote_next_result(WhRemote *remote);
extern bool wh_remote_has_ended(WhRemote *remote);
extern void wh_remote_expect_ended(WhRemote *remote);

/* remote_wait.c: commands; wh_remote_send() and check_sent() do not wait */
extern void wh_remote_check_sent(WhRemote *remote, int sent);
extern void wh_remote_send(WhRemote *remote, const char *sql, int nparams,
						   const char *const *params);
extern void wh_remote_expect_no_more(WhRemote *remote);
extern PGresult *wh_remote_expect_result(WhRemote *remote, ExecStatusType expected);
extern void wh_remote_run(WhRemote *remote, const char *sql);
extern char *wh_remote_query_value(WhRemote *remote, const char *sql, int nparams,
								   const char *const *params);

/* remote.c, for remote_ahead.c: neither waits */
extern void wh_remote_send_opening(WhRemote *remote, const char *query);
extern char *wh_remote_text_of_result(const PGresult *result);
extern char *wh_remote_text_of_columns(TupleDesc columns);
extern char *wh_remote_copy_sql(const char *query, TupleDesc columns, const Oid *targets, bool binary);
/*
 * remote_guard.c: before anything is sent, 2F003 if there is no password to give
 * or it would go unencrypted; before the first command, 2F003 unless the tenant
 * asked for the password.
 */
extern void wh_guard_before(const WhTenant *tenant);
extern void wh_guard_after(const WhTenant *tenant, PGconn *conn);

/* libpq's functions of these names, which see none of its variables in the environment. */
extern PGconn *wh_guard_connect_start(const char *const *names, const char *const *values);
extern PostgresPollingStatusType wh_guard_connect_poll(PGconn *conn);

/* remote_close.c; "deadline" is in ms of CLOCK_MONOTONIC, 0 looks only */
extern bool wh_remote_poll_socket(int fd, short events, int64 deadline);
extern void wh_remote_register(WhRemote *remote);

#endif
