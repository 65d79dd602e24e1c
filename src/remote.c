/*
 * remote.c: a connection to a tenant, and the only file that knows libpq.
 *
 * Called by refresh.c, fetch_day and the checks.  Does not know what is
 * fetched, and writes nothing anywhere: at the tenant every transaction is
 * read only, and a query of a template is sent by the extended protocol, which
 * takes one statement only.
 *
 * No call blocks but the look-up of a host name inside libpq.  Every wait is
 * on the latch, obeys interrupts and has a deadline: connect_timeout for a
 * connection, fetch_idle_timeout without a byte for anything else.  Closing
 * is bounded to a second even if the peer is stalled, and also happens when
 * the process exits: a FATAL error runs no PG_CATCH.
 *
 * All connections are in open_remotes from before they exist until they are
 * closed.  Takes no locks.
 */
#include "postgres.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "wh_worker.h"
#include "compat.h"
#include "error.h"
#include "guc.h"
#include "remote.h"

#define CLOSE_TIMEOUT 1000		/* ms, for everything that closing does */
#define CANCEL_RETRY 200		/* ms until a cancel that changed nothing is repeated */
#define CANCEL_STACK_SIZE (256 * 1024)

struct WhRemote
{
	dlist_node	node;			/* in open_remotes */
	MemoryContext context;		/* holds this struct too */
	PGconn	   *conn;
	bool		has_external_fd;
	WaitEventSet *events;		/* latch, postmaster, socket */
	int			socket_position;
	uint32		socket_events;
	PGresult   *result;			/* the last one read; cleared by the next */
	char	   *copy_data;		/* the CopyData message the caller looks at */
	bool		copying;
	char	   *name;
	char	   *fingerprint;
	char	   *sslmode;
	char		application_name[NAMEDATALEN];
};

/* The columns that a statement at the tenant gives. */
typedef struct RemoteShape
{
	int			ncolumns;
	char	  **names;
	Oid		   *types;
	int		   *typmods;
} RemoteShape;

static dlist_head open_remotes = DLIST_STATIC_INIT(open_remotes);

static const char *const safe_options[] = {
	"channel_binding", "connect_timeout", "keepalives", "keepalives_count",
	"keepalives_idle", "keepalives_interval", "ssl_max_protocol_version",
	"ssl_min_protocol_version", "sslsni", "target_session_attrs",
	"tcp_user_timeout"
};

/* ---------------------------------------------------------------------
 * Messages
 * ---------------------------------------------------------------------
 */

/* A copy on one line, in the database's encoding whatever the peer sent. */
static char *
one_line(const char *message)
{
	char	   *copy = pstrdup(message ? message : "");
	bool		valid = pg_verifymbstr(copy, strlen(copy), true);
	int			length = 0;

	for (char *p = copy; *p != '\0'; p++)
	{
		if (*p == '\n' || *p == '\r' || *p == '\t')
			*p = ' ';
		if (!valid && IS_HIGHBIT_SET(*p))
			*p = '?';
		if (*p == ' ' && (length == 0 || copy[length - 1] == ' '))
			continue;
		copy[length++] = *p;
	}
	while (length > 0 && copy[length - 1] == ' ')
		length--;
	copy[length] = '\0';
	return copy;
}

static char *
result_field(const PGresult *result, int field)
{
	const char *text = PQresultErrorField(result, field);
	char	   *copy;

	if (text == NULL)
		return NULL;
	copy = pstrdup(text);
	if (!pg_verifymbstr(copy, strlen(copy), true))
	{
		for (char *p = copy; *p != '\0'; p++)
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
	}
	return copy;
}

/* A SQLSTATE as sent; states that are no errors count as a broken protocol. */
static int
error_sqlstate(const char *state)
{
	if (state == NULL || strlen(state) != 5)
		return ERRCODE_CONNECTION_FAILURE;
	if (state[0] == '0' && state[1] >= '0' && state[1] <= '2')
		return ERRCODE_PROTOCOL_VIOLATION;
	return MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
}

static void raise_connection_lost(WhRemote *remote) pg_attribute_noreturn();
static void raise_result(WhRemote *remote, const PGresult *result, const char *context) pg_attribute_noreturn();

static void
raise_connection_lost(WhRemote *remote)
{
	char	   *message = one_line(PQerrorMessage(remote->conn));

	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("tenant \"%s\": %s", remote->name,
					message[0] ? message : "connection lost")));
}

/* Raises what the tenant said; "context" is ours, or NULL. */
static void
raise_result(WhRemote *remote, const PGresult *result, const char *context)
{
	char	   *state = result_field(result, PG_DIAG_SQLSTATE);
	char	   *primary = result_field(result, PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = result_field(result, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = result_field(result, PG_DIAG_MESSAGE_HINT);
	char	   *remote_context = result_field(result, PG_DIAG_CONTEXT);

	if (primary == NULL)
		primary = one_line(PQresultErrorMessage(result));
	if (primary[0] == '\0')
		raise_connection_lost(remote);
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(error_sqlstate(state)),
			 errmsg("tenant \"%s\": %s", remote->name, primary),
			 detail ? errdetail("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 remote_context ? errcontext("%s", remote_context) : 0,
			 context ? errcontext("%s", context) : 0));
}

static void
raise_unexpected(WhRemote *remote, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("tenant \"%s\" gave an unexpected answer to %s", remote->name, what)));
}

/* "90 s", or "1500 ms" if it is no whole number of seconds. */
static char *
duration_text(int ms)
{
	return ms % 1000 == 0 ? psprintf("%d s", ms / 1000) : psprintf("%d ms", ms);
}

/* ---------------------------------------------------------------------
 * Waiting
 * ---------------------------------------------------------------------
 */

/* Milliseconds of "timeout" that are left since "start"; -1 without a limit. */
static long
time_left(TimestampTz start, int timeout)
{
	if (timeout <= 0)
		return -1;
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(),
										   TimestampTzPlusMilliseconds(start, timeout));
}

static void
check_latch(uint32 events)
{
	if (events & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Returns when one of "wanted" happened on the socket, else raises. */
static void
wait_for_socket(WhRemote *remote, uint32 wanted)
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
		long		left = time_left(start, wh_fetch_idle_timeout);

		CHECK_FOR_INTERRUPTS();
		if (left == 0)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("tenant \"%s\" has sent nothing for %s", remote->name,
							duration_text(wh_fetch_idle_timeout)),
					 errhint("wh_worker.fetch_idle_timeout sets how long a silent tenant is waited for.")));
		if (WaitEventSetWait(remote->events, left, &event, 1, PG_WAIT_EXTENSION) == 0)
			continue;
		if (event.events & (WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE))
			return;
		check_latch(event.events);
	}
}

static void
read_more(WhRemote *remote)
{
	wait_for_socket(remote, WL_SOCKET_READABLE);
	/* a lost connection also shows in the result, with what the server said */
	(void) PQconsumeInput(remote->conn);
}

static void
flush_output(WhRemote *remote)
{
	int			state;

	while ((state = PQflush(remote->conn)) > 0)
	{
		wait_for_socket(remote, WL_SOCKET_READABLE | WL_SOCKET_WRITEABLE);
		(void) PQconsumeInput(remote->conn);
	}
	if (state < 0)
		raise_connection_lost(remote);
}

/* The next result, or NULL; it lives until the next call. */
static PGresult *
next_result(WhRemote *remote)
{
	PQclear(remote->result);
	remote->result = NULL;
	while (PQisBusy(remote->conn))
		read_more(remote);
	remote->result = PQgetResult(remote->conn);
	return remote->result;
}

/* ---------------------------------------------------------------------
 * Commands
 * ---------------------------------------------------------------------
 */

static void
check_sent(WhRemote *remote, int sent)
{
	if (!sent)
		raise_connection_lost(remote);
}

static void
send_command(WhRemote *remote, const char *sql, int nparams, const char *const *params)
{
	check_sent(remote, PQsendQueryParams(remote->conn, sql, nparams, NULL, params, NULL, NULL, 0));
}

/* After the result of a command nothing more may come. */
static void
expect_no_more(WhRemote *remote)
{
	PGresult   *result = next_result(remote);

	if (result == NULL)
		return;
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		raise_result(remote, result, NULL);
	raise_unexpected(remote, "a command");
}

static PGresult *
expect_result(WhRemote *remote, ExecStatusType expected)
{
	PGresult   *result = next_result(remote);

	if (result == NULL)
		raise_connection_lost(remote);
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		raise_result(remote, result, NULL);
	if (PQresultStatus(result) != expected)
		raise_unexpected(remote, "a command");
	return result;
}

static void
run_command(WhRemote *remote, const char *sql)
{
	send_command(remote, sql, 0, NULL);
	flush_output(remote);
	(void) expect_result(remote, PGRES_COMMAND_OK);
	expect_no_more(remote);
}

static char *
first_value(PGresult *result)
{
	if (PQntuples(result) < 1 || PQnfields(result) < 1 || PQgetisnull(result, 0, 0))
		return NULL;
	return one_line(PQgetvalue(result, 0, 0));
}

static char *
query_value(WhRemote *remote, const char *sql, int nparams, const char *const *params)
{
	char	   *value;

	send_command(remote, sql, nparams, params);
	flush_output(remote);
	value = first_value(expect_result(remote, PGRES_TUPLES_OK));
	expect_no_more(remote);
	return value;
}

static RemoteShape *
shape_of_result(const PGresult *result)
{
	RemoteShape *shape = palloc(sizeof(RemoteShape));

	shape->ncolumns = PQnfields(result);
	shape->names = palloc(shape->ncolumns * sizeof(char *));
	shape->types = palloc(shape->ncolumns * sizeof(Oid));
	shape->typmods = palloc(shape->ncolumns * sizeof(int));
	for (int i = 0; i < shape->ncolumns; i++)
	{
		shape->names[i] = one_line(PQfname(result, i));
		shape->types[i] = PQftype(result, i);
		shape->typmods[i] = PQfmod(result, i);
	}
	return shape;
}

/* ---------------------------------------------------------------------
 * What the tenant is asked to send
 * ---------------------------------------------------------------------
 */

/* Only types whose OIDs are the same everywhere can be named at a tenant. */
static bool
is_built_in(Oid type)
{
	return type < FirstGenbkiObjectId;
}

static bool
is_registry_type(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return true;
		default:
			return false;
	}
}

/* Does the binary form mean the same there and here? */
static bool
is_binary_safe(Oid type)
{
	Oid			element = get_element_type(type);
	HeapTuple	tuple;
	Form_pg_type form;
	bool		safe;

	if (OidIsValid(element))
		return is_built_in(type) && is_binary_safe(element);
	if (!is_built_in(type) || is_registry_type(type))
		return false;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	form = (Form_pg_type) GETSTRUCT(tuple);
	safe = OidIsValid(form->typsend) && OidIsValid(form->typreceive) &&
		form->typtype != TYPTYPE_COMPOSITE;
	ReleaseSysCache(tuple);
	return safe;
}

static bool
is_string_type(Oid type)
{
	char		category;
	bool		preferred;

	get_type_category_preferred(type, &category, &preferred);
	return category == TYPCATEGORY_STRING;
}

/* The type that a declared one is cast to at the tenant. */
static Oid
cast_type(Oid declared)
{
	return is_built_in(declared) ? declared : TEXTOID;
}

/* Without typmod, also for those where none means 1 (bpchar, bit). */
static char *
cast_type_name(Oid type)
{
	return format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* SELECT of the columns [first, last], cast; "targets" are the types. */
static char *
cast_select(const char *query, TupleDesc columns, const Oid *targets, int first, int last)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ");
	for (int i = first; i <= last; i++)
		appendStringInfo(&sql, "%st.%s::%s", i > first ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(columns, i)->attname)),
						 cast_type_name(targets[i]));
	appendStringInfo(&sql, " FROM (%s\n) AS t(", query);
	for (int i = 0; i < columns->natts; i++)
		appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(columns, i)->attname)));
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* The name of a declared column that the tenant does not give. */
static const char *
missing_column(TupleDesc columns, const RemoteShape *shape)
{
	for (int i = 0; i < columns->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(columns, i)->attname);
		bool		found = false;

		for (int j = 0; j < shape->ncolumns && !found; j++)
			found = strcmp(name, shape->names[j]) == 0;
		if (!found)
			return name;
	}
	return NameStr(TupleDescAttr(columns, shape->ncolumns)->attname);
}

/* The name of a column of the tenant that is not declared. */
static const char *
extra_column(TupleDesc columns, const RemoteShape *shape)
{
	for (int j = 0; j < shape->ncolumns; j++)
	{
		bool		found = false;

		for (int i = 0; i < columns->natts && !found; i++)
			found = strcmp(shape->names[j], NameStr(TupleDescAttr(columns, i)->attname)) == 0;
		if (!found)
			return shape->names[j];
	}
	return shape->names[columns->natts];
}

static void
check_column_count(WhRemote *remote, TupleDesc columns, const RemoteShape *shape)
{
	if (shape->ncolumns == columns->natts)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_COLUMN_DEFINITION),
			 errmsg("tenant \"%s\": number of columns differs: the query gives %d, the template declares %d",
					remote->name, shape->ncolumns, columns->natts),
			 shape->ncolumns < columns->natts ?
			 errdetail("Column \"%s\" is declared, but the query does not give it.",
					   missing_column(columns, shape)) :
			 errdetail("The query gives column \"%s\", which is not declared.",
					   extra_column(columns, shape)),
			 errhint("Make column_definitions list the columns of query_template in their order.")));
}

/*
 * A tenant's string for a column of another type is parsed here, where the
 * message can name the column; the tenant's own cast would fail without it.
 */
static bool
parse_strings_here(TupleDesc columns, const RemoteShape *shape, Oid *targets)
{
	bool		any = false;

	for (int i = 0; i < columns->natts; i++)
	{
		Oid			sent = shape->types[i];

		if ((sent == TEXTOID || sent == VARCHAROID || sent == BPCHAROID ||
			 sent == NAMEOID || sent == UNKNOWNOID) && !is_string_type(targets[i]))
		{
			targets[i] = TEXTOID;
			any = true;
		}
	}
	return any;
}

static char *
remote_type_name(WhRemote *remote, Oid type, int typmod)
{
	const char *params[2];
	char	   *name;

	params[0] = psprintf("%u", type);
	params[1] = psprintf("%d", typmod);
	name = query_value(remote,
					   "SELECT pg_catalog.format_type($1::pg_catalog.oid, $2::pg_catalog.int4)",
					   2, params);
	return name ? name : "an unknown type";
}

static void
raise_column_type(WhRemote *remote, Form_pg_attribute attribute, const char *sent)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("tenant \"%s\": column \"%s\" of the template is declared as %s but the tenant sends %s",
					remote->name, NameStr(attribute->attname),
					format_type_with_typemod(attribute->atttypid, attribute->atttypmod), sent),
			 errhint("Change column_definitions, or cast the column in query_template.")));
}

/* Tries column by column which of them cannot be cast; returns if all can. */
static void
diagnose_casts(WhRemote *remote, const char *query, TupleDesc columns,
			   const Oid *targets, const RemoteShape *shape)
{
	run_command(remote, "ROLLBACK");
	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(columns, i);
		PGresult   *result;
		const char *state;

		check_sent(remote, PQsendPrepare(remote->conn, "",
										 cast_select(query, columns, targets, i, i), 0, NULL));
		flush_output(remote);
		result = next_result(remote);
		if (result == NULL)
			raise_connection_lost(remote);
		if (PQresultStatus(result) == PGRES_COMMAND_OK)
		{
			expect_no_more(remote);
			continue;
		}
		state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
		if (state == NULL || error_sqlstate(state) != ERRCODE_CANNOT_COERCE)
			raise_result(remote, result, psprintf("column \"%s\" of the template",
												  NameStr(attribute->attname)));
		expect_no_more(remote);
		raise_column_type(remote, attribute,
						  remote_type_name(remote, shape->types[i], shape->typmods[i]));
	}
}

static void
check_cast_types(WhRemote *remote, TupleDesc columns, const Oid *targets, const RemoteShape *cast)
{
	if (cast->ncolumns != columns->natts)
		raise_unexpected(remote, "a cast");
	for (int i = 0; i < columns->natts; i++)
	{
		if (cast->types[i] != targets[i])
			raise_column_type(remote, TupleDescAttr(columns, i),
							  psprintf("type %u", cast->types[i]));
	}
}

/* ---------------------------------------------------------------------
 * The opening pipeline: BEGIN, settings, and both descriptions at once
 * ---------------------------------------------------------------------
 */

static void
send_settings(WhRemote *remote)
{
	const char *params[3];

	params[0] = remote->application_name;
	params[1] = GetDatabaseEncodingName();
	params[2] = psprintf("%d", wh_job_timeout);
	send_command(remote,
				 PQserverVersion(remote->conn) >= 90600 ?
				 "SELECT pg_catalog.set_config('application_name', $1, true),"
				 " pg_catalog.set_config('client_encoding', $2, true),"
				 " pg_catalog.set_config('statement_timeout', $3, true),"
				 " pg_catalog.set_config('idle_in_transaction_session_timeout', $3, true),"
				 " pg_catalog.set_config('TimeZone', 'UTC', true),"
				 " pg_catalog.set_config('DateStyle', 'ISO, MDY', true),"
				 " pg_catalog.set_config('IntervalStyle', 'postgres', true),"
				 " pg_catalog.set_config('extra_float_digits', '3', true),"
				 " pg_catalog.set_config('bytea_output', 'hex', true)" :
				 "SELECT pg_catalog.set_config('application_name', $1, true),"
				 " pg_catalog.set_config('client_encoding', $2, true),"
				 " pg_catalog.set_config('statement_timeout', $3, true),"
				 " pg_catalog.set_config('TimeZone', 'UTC', true),"
				 " pg_catalog.set_config('DateStyle', 'ISO, MDY', true),"
				 " pg_catalog.set_config('IntervalStyle', 'postgres', true),"
				 " pg_catalog.set_config('extra_float_digits', '3', true),"
				 " pg_catalog.set_config('bytea_output', 'hex', true)",
				 3, params);
}

static void
send_describe(WhRemote *remote, const char *sql)
{
	check_sent(remote, PQsendPrepare(remote->conn, "", sql, 0, NULL));
	check_sent(remote, PQsendDescribePrepared(remote->conn, ""));
}

/*
 * The next step's result in the pipeline.  An error of a step that is not
 * "may_fail" is raised; of one that is, it gives NULL.
 */
static PGresult *
pipeline_step(WhRemote *remote, ExecStatusType expected, bool may_fail)
{
	PGresult   *result = next_result(remote);

	if (result == NULL)
		raise_connection_lost(remote);
	if (PQresultStatus(result) == expected)
		return result;
	if (may_fail && PQstatus(remote->conn) == CONNECTION_OK &&
		(PQresultStatus(result) == PGRES_FATAL_ERROR ||
		 PQresultStatus(result) == PGRES_PIPELINE_ABORTED))
		return NULL;
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		raise_result(remote, result, NULL);
	raise_unexpected(remote, "a command");
	return NULL;
}

/* A pipeline marks the end of each step's results by a NULL. */
static void
pipeline_step_end(WhRemote *remote)
{
	if (next_result(remote) != NULL)
		raise_unexpected(remote, "a command");
}

static RemoteShape *
pipeline_description(WhRemote *remote, bool may_fail)
{
	RemoteShape *shape = NULL;
	PGresult   *result;

	(void) pipeline_step(remote, PGRES_COMMAND_OK, may_fail);
	pipeline_step_end(remote);
	result = pipeline_step(remote, PGRES_COMMAND_OK, may_fail);
	if (result != NULL)
		shape = shape_of_result(result);
	pipeline_step_end(remote);
	return shape;
}

/*
 * One round trip: opens the transaction and describes the query as it is
 * (*plain) and cast (*cast, NULL if it could not be).
 */
static void
open_and_describe(WhRemote *remote, const char *query, const char *casting,
				  RemoteShape **plain, RemoteShape **cast)
{
	if (!PQenterPipelineMode(remote->conn))
		raise_connection_lost(remote);
	send_command(remote, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, NULL);
	send_settings(remote);
	send_describe(remote, psprintf("SELECT * FROM (%s\n) AS t", query));
	send_describe(remote, casting);
	check_sent(remote, PQpipelineSync(remote->conn));
	flush_output(remote);

	(void) pipeline_step(remote, PGRES_COMMAND_OK, false);
	pipeline_step_end(remote);
	(void) pipeline_step(remote, PGRES_TUPLES_OK, false);
	pipeline_step_end(remote);
	*plain = pipeline_description(remote, false);
	*cast = pipeline_description(remote, true);
	(void) pipeline_step(remote, PGRES_PIPELINE_SYNC, false);
	if (!PQexitPipelineMode(remote->conn))
		raise_unexpected(remote, "a pipeline");
}

/* ---------------------------------------------------------------------
 * Connecting
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
	return one_line(text.data);
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
	const char **names = palloc0((tenant->noptions + 20) * sizeof(char *));
	const char **values = palloc0((tenant->noptions + 20) * sizeof(char *));
	int			n = 0;

#define PARAMETER(name, value) (names[n] = (name), values[n++] = (value))
	PARAMETER("keepalives_idle", "30");
	PARAMETER("keepalives_interval", "10");
	PARAMETER("keepalives_count", "3");
	PARAMETER("tcp_user_timeout", psprintf("%d", wh_fetch_idle_timeout));
	/* a later one wins, so options may change those above, not those below */
	for (int i = 0; i < tenant->noptions; i++)
	{
		if (wh_remote_option_is_safe(tenant->option_names[i]))
			PARAMETER(tenant->option_names[i], tenant->option_values[i]);
	}
	PARAMETER("host", tenant->host);
	PARAMETER("port", psprintf("%d", tenant->port));
	PARAMETER("dbname", tenant->dbname);
	PARAMETER("user", tenant->username);
	PARAMETER("password", tenant->password);
	PARAMETER("passfile", "/dev/null");
	PARAMETER("sslmode", tenant->sslmode);
	PARAMETER("sslrootcert", tenant->sslrootcert);
	PARAMETER("gssencmode", "disable");
	PARAMETER("client_encoding", GetDatabaseEncodingName());
	PARAMETER("application_name", remote->application_name);
#undef PARAMETER

	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not connect to tenant \"%s\": too many open files", remote->name),
				 errhint("Raise max_files_per_process or the operating system's limit.")));
	remote->has_external_fd = true;
	remote->conn = PQconnectStartParams(names, values, 0);
	if (remote->conn == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	(void) PQsetErrorVerbosity(remote->conn, PQERRORS_VERBOSE);
}

static void
ignore_notice(void *arg, const PGresult *result)
{
}

static void
finish_connecting(WhRemote *remote, int timeout)
{
	TimestampTz start = GetCurrentTimestamp();
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	if (PQstatus(remote->conn) == CONNECTION_BAD)
		raise_connect_failure(remote);
	(void) PQsetNoticeReceiver(remote->conn, ignore_notice, NULL);
	while (status != PGRES_POLLING_OK)
	{
		uint32		wanted = status == PGRES_POLLING_READING ? WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		long		left = time_left(start, timeout);
		int			events;

		if (status == PGRES_POLLING_FAILED)
			raise_connect_failure(remote);
		if (left == 0)
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("could not connect to tenant \"%s\": no answer within %s",
							remote->name, duration_text(timeout))));
		CHECK_FOR_INTERRUPTS();
		events = WaitLatchOrSocket(MyLatch,
								   WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | wanted |
								   (left >= 0 ? WL_TIMEOUT : 0),
								   PQsocket(remote->conn), left, PG_WAIT_EXTENSION);
		check_latch(events);
		if (events & wanted)
			status = PQconnectPoll(remote->conn);
	}
}

static void
make_ready(WhRemote *remote)
{
	(void) PQsetErrorVerbosity(remote->conn, PQERRORS_DEFAULT);
	if (PQsetnonblocking(remote->conn, 1) != 0)
		raise_connection_lost(remote);
	remote->events = WH_CREATE_WAIT_EVENT_SET(3);
	AddWaitEventToSet(remote->events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(remote->events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	remote->socket_events = WL_SOCKET_READABLE;
	remote->socket_position = AddWaitEventToSet(remote->events, WL_SOCKET_READABLE,
												PQsocket(remote->conn), NULL, NULL);
}

/* ---------------------------------------------------------------------
 * Closing: nothing here may raise, palloc or wait without an end
 * ---------------------------------------------------------------------
 */

static int64
monotonic_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* True when the socket is ready before the deadline. */
static bool
poll_socket(int fd, short events, int64 deadline)
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
			if (!poll_socket(PQcancelSocket(cancel),
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

/* Reads away what has arrived; true if that was the end of the command. */
static bool
command_has_ended(WhRemote *remote)
{
	int			ends = 0;

	while (PQtransactionStatus(remote->conn) == PQTRANS_ACTIVE)
	{
		PGresult   *result;
		ExecStatusType status;

		(void) PQconsumeInput(remote->conn);
		if (PQisBusy(remote->conn))
			return false;
		result = PQgetResult(remote->conn);
		status = PQresultStatus(result);
		PQclear(result);
		if (status == PGRES_COPY_OUT)
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

	(void) PQflush(remote->conn);
	while (monotonic_ms() < deadline)
	{
		if (!remote->copying && command_has_ended(remote))
			return;
		send_cancel(remote->conn, deadline);
		if (remote->copying)
			return;
		(void) poll_socket(PQsocket(remote->conn), POLLIN,
						   Min(deadline, monotonic_ms() + CANCEL_RETRY));
	}
}

static void
close_all_remotes(int code, Datum arg)
{
	while (!dlist_is_empty(&open_remotes))
		wh_remote_close(dlist_container(WhRemote, node, dlist_head_node(&open_remotes)));
}

static WhRemote *
make_remote(const WhTenant *tenant, const char *application_name)
{
	static bool registered = false;
	MemoryContext context;
	MemoryContext old;
	WhRemote   *remote;

	if (!registered)
	{
		before_shmem_exit(close_all_remotes, (Datum) 0);
		registered = true;
	}
	context = AllocSetContextCreate(TopMemoryContext, "wh_worker remote", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	remote = palloc0(sizeof(WhRemote));
	remote->context = context;
	remote->name = pstrdup(tenant->name);
	remote->fingerprint = pstrdup(tenant->fingerprint);
	remote->sslmode = pstrdup(tenant->sslmode);
	MemoryContextSwitchTo(old);
	wh_remote_set_application_name(remote, application_name);
	dlist_push_tail(&open_remotes, &remote->node);
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
	WhRemote   *remote = make_remote(tenant, application_name);

	PG_TRY();
	{
		start_connecting(remote, tenant);
		finish_connecting(remote, connect_timeout(tenant));
		make_ready(remote);
	}
	PG_CATCH();
	{
		wh_remote_close(remote);
		PG_RE_THROW();
	}
	PG_END_TRY();
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
	for (int i = 0; i < 3 && poll_socket(PQsocket(remote->conn), POLLIN, 0); i++)
	{
		if (!PQconsumeInput(remote->conn))
			return false;
		(void) PQisBusy(remote->conn);
	}
	return PQstatus(remote->conn) == CONNECTION_OK &&
		PQtransactionStatus(remote->conn) == PQTRANS_IDLE;
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

void
wh_remote_begin(WhRemote *remote, const char *query, TupleDesc columns,
				bool *binary, char **copy_sql)
{
	const char *integer_datetimes = PQparameterStatus(remote->conn, "integer_datetimes");
	Oid		   *targets = palloc(columns->natts * sizeof(Oid));
	char	   *casting;
	RemoteShape *plain;
	RemoteShape *cast;

	*binary = integer_datetimes != NULL && strcmp(integer_datetimes, "on") == 0;
	for (int i = 0; i < columns->natts; i++)
	{
		targets[i] = cast_type(TupleDescAttr(columns, i)->atttypid);
		*binary = *binary && is_binary_safe(TupleDescAttr(columns, i)->atttypid);
	}
	casting = cast_select(query, columns, targets, 0, columns->natts - 1);
	open_and_describe(remote, query, casting, &plain, &cast);
	check_column_count(remote, columns, plain);
	if (cast == NULL)
	{
		diagnose_casts(remote, query, columns, targets, plain);
		raise_unexpected(remote, "a cast");
	}
	check_cast_types(remote, columns, targets, cast);
	if (parse_strings_here(columns, plain, targets))
	{
		*binary = false;
		casting = cast_select(query, columns, targets, 0, columns->natts - 1);
	}
	*copy_sql = psprintf("COPY (%s) TO STDOUT (FORMAT %s)", casting, *binary ? "binary" : "text");
}

void
wh_remote_copy_start(WhRemote *remote, const char *copy_sql)
{
	send_command(remote, copy_sql, 0, NULL);
	flush_output(remote);
	(void) expect_result(remote, PGRES_COPY_OUT);
	remote->copying = true;
}

int
wh_remote_copy_next(WhRemote *remote, char **data, int64 *rows_sent)
{
	int			length;
	PGresult   *result;

	if (remote->copy_data != NULL)
	{
		PQfreemem(remote->copy_data);
		remote->copy_data = NULL;
	}
	CHECK_FOR_INTERRUPTS();
	while ((length = PQgetCopyData(remote->conn, &remote->copy_data, 1)) == 0)
		read_more(remote);
	if (length > 0)
	{
		*data = remote->copy_data;
		return length;
	}

	/* -1 is also how an error in mid-stream begins: the result decides */
	remote->copying = false;
	if (length < -1)
		raise_connection_lost(remote);
	result = expect_result(remote, PGRES_COMMAND_OK);
	*rows_sent = strtoll(PQcmdTuples(result), NULL, 10);
	expect_no_more(remote);
	return -1;
}

void
wh_remote_end(WhRemote *remote)
{
	run_command(remote, "COMMIT");
}

char *
wh_remote_value(WhRemote *remote, const char *sql)
{
	return query_value(remote, sql, 0, NULL);
}

char *
wh_remote_explain(WhRemote *remote, const char *query)
{
	bool		own_transaction = PQtransactionStatus(remote->conn) == PQTRANS_IDLE;
	char	   *plan;
	char	   *numbers;
	double		startup;
	double		total;
	double		rows;

	if (own_transaction)
		run_command(remote, "BEGIN TRANSACTION READ ONLY");
	plan = query_value(remote, psprintf("EXPLAIN SELECT * FROM (%s\n) AS t", query), 0, NULL);
	if (own_transaction)
		wh_remote_end(remote);
	numbers = plan ? strstr(plan, "(cost=") : NULL;
	if (numbers == NULL ||
		sscanf(numbers, "(cost=%lf..%lf rows=%lf", &startup, &total, &rows) != 3)
		return plan;
	return psprintf("cost %.2f, %.0f rows", total, rows);
}

void
wh_remote_close(WhRemote *remote)
{
	if (remote == NULL)
		return;
	dlist_delete(&remote->node);
	if (remote->conn != NULL)
	{
		if (PQstatus(remote->conn) == CONNECTION_OK &&
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
