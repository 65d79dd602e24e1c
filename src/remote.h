/*
 * remote.h: a connection to a tenant.  Only remote*.c include libpq's
 * header, by remote_private.h; nobody else sees a PGconn.
 *
 * Every wait is on the latch, obeys interrupts, and has a deadline.
 */
#ifndef WH_REMOTE_H
#define WH_REMOTE_H

#include "access/tupdesc.h"
#include "utils/timestamp.h"

typedef struct WhRemote WhRemote;

/* What is needed to reach a tenant; strings live as long as the caller's. */
typedef struct WhTenant
{
	char	   *name;
	char	   *host;
	int			port;
	char	   *dbname;
	char	   *username;
	char	   *password;		/* as it is stored, or NULL; see password.h */
	char	   *sslmode;
	char	   *sslrootcert;	/* or NULL */
	bool		password_required;	/* the tenant must ask for the password */
	bool		tls_required;	/* over TCP */
	bool		password_from_command;	/* may wh_worker.password_command be asked? */
	int			noptions;		/* further libpq parameters, already checked */
	char	  **option_names;
	char	  **option_values;
	char	   *fingerprint;	/* changes when any of the above does */
	int64		max_rows_per_second;	/* 0: no limit */
	int64		max_bytes_per_second;
} WhTenant;

/* A parameter that options may name?  (connect_timeout, keepalives, ...) */
extern bool wh_remote_option_is_safe(const char *name);

/* One that names a file, so that only a superuser may set it?  (sslcert, ...) */
extern bool wh_remote_option_is_file(const char *name);
extern const char *const wh_remote_file_options[];	/* ends with NULL */

/* The same of sslrootcert, which may be NULL. */
extern bool wh_remote_is_root_file(const char *sslrootcert);

/* Nothing but Unix-domain sockets?  TLS over TCP for certain? */
extern bool wh_remote_host_is_local(const char *host);
extern bool wh_remote_sslmode_encrypts(const char *sslmode);

/* Connects; raises 08001, 28P01, ... with the tenant's name in the message. */
extern WhRemote *wh_remote_connect(const WhTenant *tenant, const char *application_name);

/* For messages and for deciding whether a kept connection may serve. */
extern const char *wh_remote_fingerprint(const WhRemote *remote);
extern bool wh_remote_is_idle(WhRemote *remote);	/* usable, no transaction open */
extern bool wh_remote_used_tls(WhRemote *remote);
extern int	wh_remote_server_version(WhRemote *remote);
extern const char *wh_remote_setting(WhRemote *remote, const char *parameter);
/* Sent with the next wh_remote_begin(), for the time of its transaction. */
extern void wh_remote_set_application_name(WhRemote *remote, const char *application_name);

/*
 * Opens the read-only repeatable-read transaction with fixed settings and
 * checks that "query" gives columns that fit "columns": reports by column
 * name before a row moves.  *binary says which COPY format will be used;
 * *copy_sql (palloc'd) is the COPY to start.  A string that the tenant sends for
 * a column of another type is parsed here, so that its error names the column.
 */
extern void wh_remote_begin(WhRemote *remote, const char *query, TupleDesc columns,
							bool *binary, char **copy_sql);

/* Sends the COPY that wh_remote_begin() made; its rows then come by copy_next. */
extern void wh_remote_copy_start(WhRemote *remote, const char *copy_sql);

/*
 * The next CopyData message: its length and *data (valid until the next
 * call), or -1 at the end, which is only reached when the server said that
 * the command completed; *rows_sent is then the count in its command tag.
 */
extern int	wh_remote_copy_next(WhRemote *remote, char **data, int64 *rows_sent);

/*
 * Ends the transaction at the tenant, and does not wait for the answer: whoever
 * uses the connection next does.  It may be kept.
 */
extern void wh_remote_end(WhRemote *remote);

/*
 * Instead of that, ends the transaction and begins the next, in which "query" will be
 * wanted; nothing is waited for.  Only what fits the columns of the last COPY is
 * asked ahead; false, and the transaction is only ended, if the columns are others.
 * Then wh_remote_push(), now and then, takes it on as far as answers are there:
 * the COPY runs while we do something else.  It waits for nothing and raises
 * nothing; what went wrong comes out when it is used.
 */
extern bool wh_remote_end_and_ask(WhRemote *remote, const char *query, TupleDesc columns);
extern void wh_remote_push(WhRemote *remote);

/*
 * Is something asked ahead?  The connection is of use for nothing else then.  And if it
 * is this: its rows come by copy_next, as after copy_start.  False: it is something
 * else, or came to nothing, as when the connection was lost; close the connection.
 */
extern bool wh_remote_is_ahead(const WhRemote *remote);
extern bool wh_remote_copy_asked(WhRemote *remote, const char *query, TupleDesc columns,
								 bool *binary, TimestampTz *asked_at);

/* First column of the first row of "sql" as text, or NULL; for checks. */
extern char *wh_remote_value(WhRemote *remote, const char *sql);

/*
 * All rows of the query as one text, for telling whether it is what it was: a
 * line per row, written as a row value; of more than 1000 bytes, or of bytes
 * that are no text here, their SHA-256.  Within the transaction of
 * wh_remote_begin(); keeps no more than a row in memory.
 */
extern char *wh_remote_probe(WhRemote *remote, const char *query);

/*
 * For a COPY of which little may be read for a long time: keeps the tenant from
 * ending it because of that, for the rest of its transaction.
 */
extern void wh_remote_allow_pauses(WhRemote *remote);

/* Estimated total cost and rows of the query, by EXPLAIN. */
extern char *wh_remote_explain(WhRemote *remote, const char *query);

/*
 * Closes.  If a command is still running it is cancelled first, for at most
 * a second.  Never raises; safe in error paths and at process exit.
 */
extern void wh_remote_close(WhRemote *remote);

#endif
