/*
 * remote.c: what a fetch asks of a tenant: begin and describe, copy, end.
 *
 * Called by refresh.c, fetch_day and the checks.  Does not know what is
 * fetched, and writes nothing anywhere: at the tenant every transaction is
 * read only, and a query of a template is sent by the extended protocol, which
 * takes one statement only.
 *
 * remote_connect.c makes a connection, remote_wait.c waits for the answers and
 * raises errors, remote_close.c closes; no other file knows libpq.
 *
 * No call blocks but the look-up of a host name inside libpq.  Every wait is
 * on the latch, obeys interrupts and has a deadline: fetch_idle_timeout
 * without a byte.  Takes no locks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "wh_worker.h"
#include "error.h"
#include "guc.h"
#include "plain_text.h"
#include "remote_private.h"

/* The columns that a statement at the tenant gives. */
typedef struct RemoteShape
{
	int			ncolumns;
	char	  **names;
	Oid		   *types;
	int		   *typmods;
} RemoteShape;

/* ---------------------------------------------------------------------
 * What the tenant is asked to send
 * ---------------------------------------------------------------------
 */

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
		shape->names[i] = wh_plain_text(PQfname(result, i));
		shape->types[i] = PQftype(result, i);
		shape->typmods[i] = PQfmod(result, i);
	}
	return shape;
}

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

/*
 * Does the binary form mean the same there and here, and does reading it take
 * no more memory than it has?  That of a tsquery takes and clears a gigabyte if
 * its first bytes say so.
 */
static bool
is_binary_safe(Oid type)
{
	Oid			element = get_element_type(type);
	HeapTuple	tuple;
	Form_pg_type form;
	bool		safe;

	if (OidIsValid(element))
		return is_built_in(type) && is_binary_safe(element);
	if (!is_built_in(type) || is_registry_type(type) || type == TSQUERYOID)
		return false;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);	/* cannot happen */
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
	wh_error_mark_remote();
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
	name = wh_remote_query_value(remote,
								 "SELECT pg_catalog.format_type($1::pg_catalog.oid, $2::pg_catalog.int4)",
								 2, params);
	return name ? name : "an unknown type";
}

static void
raise_column_type(WhRemote *remote, Form_pg_attribute attribute, const char *sent)
{
	wh_error_mark_remote();
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
	wh_remote_run(remote, "ROLLBACK");
	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(columns, i);
		PGresult   *result;
		const char *state;

		wh_remote_check_sent(remote, PQsendPrepare(remote->conn, "",
												   cast_select(query, columns, targets, i, i), 0, NULL));
		wh_remote_flush(remote);
		result = wh_remote_next_result(remote);
		if (result == NULL)
			wh_remote_raise_lost(remote);
		if (PQresultStatus(result) == PGRES_COMMAND_OK)
		{
			wh_remote_expect_no_more(remote);
			continue;
		}
		state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
		if (state == NULL || wh_remote_error_sqlstate(state) != ERRCODE_CANNOT_COERCE)
			wh_remote_raise_result(remote, result, psprintf("column \"%s\" of the template",
															NameStr(attribute->attname)));
		wh_remote_expect_no_more(remote);
		raise_column_type(remote, attribute,
						  remote_type_name(remote, shape->types[i], shape->typmods[i]));
	}
}

static void
check_cast_types(WhRemote *remote, TupleDesc columns, const Oid *targets, const RemoteShape *cast)
{
	if (cast->ncolumns != columns->natts)
		wh_remote_raise_unexpected(remote, "a cast");
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
	wh_remote_send(remote,
				   PQserverVersion(remote->conn) >= 90600 ?
				   "SELECT pg_catalog.set_config('application_name', $1, true),"
				   " pg_catalog.set_config('client_encoding', $2, true),"
				   " pg_catalog.set_config('client_min_messages', 'error', true),"
				   " pg_catalog.set_config('statement_timeout', $3, true),"
				   " pg_catalog.set_config('idle_in_transaction_session_timeout', $3, true),"
				   " pg_catalog.set_config('TimeZone', 'UTC', true),"
				   " pg_catalog.set_config('DateStyle', 'ISO, MDY', true),"
				   " pg_catalog.set_config('IntervalStyle', 'postgres', true),"
				   " pg_catalog.set_config('extra_float_digits', '3', true),"
				   " pg_catalog.set_config('bytea_output', 'hex', true),"
				   " pg_catalog.set_config('standard_conforming_strings', 'on', true)" :
				   "SELECT pg_catalog.set_config('application_name', $1, true),"
				   " pg_catalog.set_config('client_encoding', $2, true),"
				   " pg_catalog.set_config('client_min_messages', 'error', true),"
				   " pg_catalog.set_config('statement_timeout', $3, true),"
				   " pg_catalog.set_config('TimeZone', 'UTC', true),"
				   " pg_catalog.set_config('DateStyle', 'ISO, MDY', true),"
				   " pg_catalog.set_config('IntervalStyle', 'postgres', true),"
				   " pg_catalog.set_config('extra_float_digits', '3', true),"
				   " pg_catalog.set_config('bytea_output', 'hex', true),"
				   " pg_catalog.set_config('standard_conforming_strings', 'on', true)",
				   3, params);
}

static void
send_describe(WhRemote *remote, const char *sql)
{
	wh_remote_check_sent(remote, PQsendPrepare(remote->conn, "", sql, 0, NULL));
	wh_remote_check_sent(remote, PQsendDescribePrepared(remote->conn, ""));
}

/* Opens the transaction and describes the query as it is. */
void
wh_remote_send_opening(WhRemote *remote, const char *query)
{
	wh_remote_limits_begin(remote);
	wh_remote_send(remote, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, NULL);
	send_settings(remote);
	send_describe(remote, psprintf("SELECT * FROM (%s\n) AS t", query));
}

/*
 * The next step's result in the pipeline.  An error of a step that is not
 * "may_fail" is raised; of one that is, it gives NULL.
 */
static PGresult *
pipeline_step(WhRemote *remote, ExecStatusType expected, bool may_fail)
{
	PGresult   *result = wh_remote_next_result(remote);

	if (result == NULL)
		wh_remote_raise_lost(remote);
	if (PQresultStatus(result) == expected)
		return result;
	if (may_fail && PQstatus(remote->conn) == CONNECTION_OK &&
		(PQresultStatus(result) == PGRES_FATAL_ERROR ||
		 PQresultStatus(result) == PGRES_PIPELINE_ABORTED))
		return NULL;
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		wh_remote_raise_result(remote, result, NULL);
	wh_remote_raise_unexpected(remote, "a command");
	return NULL;
}

/* A pipeline marks the end of each step's results by a NULL. */
static void
pipeline_step_end(WhRemote *remote)
{
	if (wh_remote_next_result(remote) != NULL)
		wh_remote_raise_unexpected(remote, "a command");
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

static void
pipeline_begin(WhRemote *remote)
{
	wh_remote_expect_ended(remote);
	if (!PQenterPipelineMode(remote->conn))
		wh_remote_raise_lost(remote);
}

static void
pipeline_send(WhRemote *remote)
{
	wh_remote_check_sent(remote, PQpipelineSync(remote->conn));
	wh_remote_flush(remote);
}

static void
pipeline_end(WhRemote *remote)
{
	(void) pipeline_step(remote, PGRES_PIPELINE_SYNC, false);
	if (!PQexitPipelineMode(remote->conn))
		wh_remote_raise_unexpected(remote, "a pipeline");
}

/*
 * One round trip: opens the transaction and describes the query as it is
 * (*plain) and, unless "casting" is NULL, cast (*cast, NULL if it could not be).
 */
static void
open_and_describe(WhRemote *remote, const char *query, const char *casting,
				  RemoteShape **plain, RemoteShape **cast)
{
	pipeline_begin(remote);
	wh_remote_send_opening(remote, query);
	if (casting != NULL)
		send_describe(remote, casting);
	pipeline_send(remote);

	(void) pipeline_step(remote, PGRES_COMMAND_OK, false);
	pipeline_step_end(remote);
	(void) pipeline_step(remote, PGRES_TUPLES_OK, false);
	pipeline_step_end(remote);
	*plain = pipeline_description(remote, false);
	if (casting != NULL)
		*cast = pipeline_description(remote, true);
	pipeline_end(remote);
}

static RemoteShape *
describe_cast(WhRemote *remote, const char *casting)
{
	RemoteShape *cast;

	pipeline_begin(remote);
	send_describe(remote, casting);
	pipeline_send(remote);
	cast = pipeline_description(remote, true);
	pipeline_end(remote);
	return cast;
}

/* ---------------------------------------------------------------------
 * What is known to fit: the cast of the same columns need not be described again
 * ---------------------------------------------------------------------
 */

char *
wh_remote_text_of_columns(TupleDesc columns)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < columns->natts; i++)
		appendStringInfo(&text, "%s %u,", quote_identifier(NameStr(TupleDescAttr(columns, i)->attname)),
						 TupleDescAttr(columns, i)->atttypid);
	return text.data;
}

static char *
text_of_shape(const RemoteShape *shape)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < shape->ncolumns; i++)
		appendStringInfo(&text, "%s %u %d,", quote_identifier(shape->names[i]),
						 shape->types[i], shape->typmods[i]);
	return text.data;
}

char *
wh_remote_text_of_result(const PGresult *result)
{
	return text_of_shape(shape_of_result(result));
}

static bool
same_text(const char *a, const char *b)
{
	return a != NULL && strcmp(a, b) == 0;
}

static void
remember_fitting(WhRemote *remote, const char *columns, const char *shape)
{
	if (remote->fitting_columns != NULL)
		pfree(remote->fitting_columns);
	remote->fitting_columns = NULL;
	if (remote->fitting_shape != NULL)
		pfree(remote->fitting_shape);
	remote->fitting_shape = MemoryContextStrdup(remote->context, shape);
	remote->fitting_columns = MemoryContextStrdup(remote->context, columns);
}

/* What the cast of the next query is that fits, so that it can be asked ahead. */
static void
remember_targets(WhRemote *remote, const Oid *targets, int ncolumns, bool binary)
{
	if (remote->fitting_targets != NULL)
		pfree(remote->fitting_targets);
	remote->fitting_targets = MemoryContextAlloc(remote->context, ncolumns * sizeof(Oid));
	memcpy(remote->fitting_targets, targets, ncolumns * sizeof(Oid));
	remote->fitting_binary = binary;
}

/* "cast" is what the cast query was described as, NULL if it could not be. */
static void
check_cast(WhRemote *remote, const char *query, TupleDesc columns, const Oid *targets,
		   const RemoteShape *plain, const RemoteShape *cast)
{
	if (cast == NULL)
	{
		diagnose_casts(remote, query, columns, targets, plain);
		wh_remote_raise_unexpected(remote, "a cast");
	}
	check_cast_types(remote, columns, targets, cast);
}

/* ---------------------------------------------------------------------
 * What others call
 * ---------------------------------------------------------------------
 */

void
wh_remote_begin(WhRemote *remote, const char *query, TupleDesc columns,
				bool *binary, char **copy_sql)
{
	const char *integer_datetimes = PQparameterStatus(remote->conn, "integer_datetimes");
	Oid		   *targets = palloc(columns->natts * sizeof(Oid));
	char	   *columns_text = wh_remote_text_of_columns(columns);
	bool		was_fitting = same_text(remote->fitting_columns, columns_text);
	char	   *casting;
	RemoteShape *plain;
	RemoteShape *cast = NULL;

	*binary = integer_datetimes != NULL && strcmp(integer_datetimes, "on") == 0;
	for (int i = 0; i < columns->natts; i++)
	{
		targets[i] = cast_type(TupleDescAttr(columns, i)->atttypid);
		*binary = *binary && is_binary_safe(TupleDescAttr(columns, i)->atttypid);
	}
	casting = cast_select(query, columns, targets, 0, columns->natts - 1);
	open_and_describe(remote, query, was_fitting ? NULL : casting, &plain, &cast);
	check_column_count(remote, columns, plain);
	if (!was_fitting || !same_text(remote->fitting_shape, text_of_shape(plain)))
	{
		if (was_fitting)
			cast = describe_cast(remote, casting);
		check_cast(remote, query, columns, targets, plain, cast);
		remember_fitting(remote, columns_text, text_of_shape(plain));
	}
	if (parse_strings_here(columns, plain, targets))
		*binary = false;
	remember_targets(remote, targets, columns->natts, *binary);
	*copy_sql = wh_remote_copy_sql(query, columns, targets, *binary);
}

char *
wh_remote_copy_sql(const char *query, TupleDesc columns, const Oid *targets, bool binary)
{
	return psprintf("COPY (%s) TO STDOUT (FORMAT %s)",
					cast_select(query, columns, targets, 0, columns->natts - 1),
					binary ? "binary" : "text");
}

void
wh_remote_copy_start(WhRemote *remote, const char *copy_sql)
{
	wh_remote_send(remote, copy_sql, 0, NULL);
	wh_remote_flush(remote);
	(void) wh_remote_expect_result(remote, PGRES_COPY_OUT);
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
	{
		/* in a COPY libpq keeps silent about a connection that was closed */
		if (PQstatus(remote->conn) == CONNECTION_BAD)
			wh_remote_raise_lost(remote);
		wh_remote_read_more(remote);
	}
	if (length > 0)
	{
		*data = remote->copy_data;
		return length;
	}

	/* -1 is also how an error in mid-stream begins: the result decides */
	remote->copying = false;
	if (length < -1)
		wh_remote_raise_lost(remote);
	result = wh_remote_expect_result(remote, PGRES_COMMAND_OK);
	*rows_sent = strtoll(PQcmdTuples(result), NULL, 10);
	wh_remote_expect_no_more(remote);
	return -1;
}

void
wh_remote_end(WhRemote *remote)
{
	wh_remote_send(remote, "COMMIT", 0, NULL);
	wh_remote_flush(remote);
	remote->ending = true;
}

char *
wh_remote_value(WhRemote *remote, const char *sql)
{
	return wh_remote_query_value(remote, sql, 0, NULL);
}

char *
wh_remote_explain(WhRemote *remote, const char *query)
{
	bool		own_transaction;
	char	   *plan;
	char	   *numbers;
	double		startup;
	double		total;
	double		rows;

	wh_remote_expect_ended(remote);
	own_transaction = PQtransactionStatus(remote->conn) == PQTRANS_IDLE;
	if (own_transaction)
		wh_remote_run(remote, "BEGIN TRANSACTION READ ONLY");
	plan = wh_remote_query_value(remote, psprintf("EXPLAIN SELECT * FROM (%s\n) AS t", query), 0, NULL);
	if (own_transaction)
		wh_remote_end(remote);
	numbers = plan ? strstr(plan, "(cost=") : NULL;
	if (numbers == NULL ||
		sscanf(numbers, "(cost=%lf..%lf rows=%lf", &startup, &total, &rows) != 3)
		return plan;
	return psprintf("cost %.2f, %.0f rows", total, rows);
}
