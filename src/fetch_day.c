/*
 * fetch_day.c: a template's rows of one day, as a tenant sends them now.
 *
 * Joins template, remote and decode into a stream of rows, which refresh.c
 * pours into a heap and _wh.fetch_day() into a tuplestore.  The function is
 * what a day's materialized view is defined as, so that a plain REFRESH
 * MATERIALIZED VIEW works and shows no tenant query to a reader.
 *
 * The end of the data is believed only when the server said that the COPY
 * completed, the decoder saw its trailer, and the count in the command tag is
 * the count of rows that came.
 *
 * May not know where the rows go, and does not write to the ledger.  Takes no
 * lock here; at the tenant, what its query takes.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "decode.h"
#include "fetch_day.h"
#include "guc.h"
#include "progress.h"
#include "refresh.h"
#include "sqlutil.h"
#include "status.h"
#include "template_code.h"
#include "wh_worker.h"

/* How much may come before the progress is shown again. */
#define WH_PROGRESS_BYTES (64 * 1024)

/* Of the name of our database, at least, in that of the session at the tenant. */
#define NAME_BYTES 12

struct WhDayStream
{
	WhRemote   *remote;
	TupleDesc	columns;
	bool		binary;
	char	   *copy_sql;		/* NULL: it was asked for ahead */
	WhDecoder  *decoder;
	WhRate	   *rate;			/* NULL: no limit */
	char	   *next_query;		/* of the day to ask for when this one is here, or NULL */
	int			guc_level;		/* undoes client_encoding */
	int64		rows;
	int64		rows_sent;		/* by the command tag; -1 until the end */
	bool		ended;
	int64		bytes;
	int64		bytes_shown;
};

PG_FUNCTION_INFO_V1(wh_sql_fetch_day);

/*
 * Servers show any other character as "?" or as an escape for each byte, by their
 * version, which would leave less room.
 */
static char *
in_ascii(const char *name)
{
	StringInfoData result;

	initStringInfo(&result);
	for (; *name != '\0'; name += pg_mblen(name))
		appendStringInfoChar(&result, *name >= ' ' && *name <= '~' ? *name : '?');
	return result.data;
}

/*
 * Who reads, and what, for the administrator of the tenant: "wh_worker:
 * foodlogstats 2025-07-04 for warehouse".  Its server cuts a name after 63 bytes,
 * so the template and our database share what the rest leaves.
 */
static char *
name_at_tenant(const WhTemplate *tmpl, DateADT date)
{
	const char *template_name = in_ascii(tmpl->name);
	const char *database = in_ascii(get_database_name(MyDatabaseId));
	int			room = NAMEDATALEN - 1 - strlen("wh_worker:  YYYY-MM-DD for ");
	int			template_bytes = strlen(template_name);
	int			database_bytes = strlen(database);

	if (template_bytes + database_bytes > room)
	{
		database_bytes = Min(database_bytes, Max(room - template_bytes, NAME_BYTES));
		template_bytes = Min(template_bytes, room - database_bytes);
	}
	return psprintf("wh_worker: %.*s %s for %.*s", template_bytes, template_name, wh_date_text(date),
					database_bytes, database);
}

void
wh_day_connect(const WhTemplate *tmpl, const WhTenant *tenant, DateADT date,
			   WhRemote **remote)
{
	char	   *name = name_at_tenant(tmpl, date);

	if (*remote != NULL &&
		strcmp(wh_remote_fingerprint(*remote), tenant->fingerprint) == 0 &&
		wh_remote_is_idle(*remote))
	{
		wh_remote_set_application_name(*remote, name);
		return;
	}

	if (*remote != NULL)
	{
		WhRemote   *unfit = *remote;

		*remote = NULL;
		wh_remote_close(unfit);
	}
	wh_status_phase(WH_PHASE_CONNECTING);
	*remote = wh_remote_connect(tenant, name);
}

/*
 * The receive functions of text types convert from the client's encoding; the
 * client is the tenant here, which we asked to send in our own encoding.
 */
static int
set_client_encoding(void)
{
	int			level = NewGUCNestLevel();

	(void) set_config_option("client_encoding", GetDatabaseEncodingName(),
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	return level;
}

static WhDayStream *
make_stream(const WhTemplate *tmpl, WhRemote *remote)
{
	WhDayStream *stream = palloc0(sizeof(WhDayStream));

	wh_status_phase(WH_PHASE_FETCHING);
	wh_status_progress(0, 0);
	stream->remote = remote;
	stream->columns = tmpl->columns;
	return stream;
}

WhDayStream *
wh_day_open(const WhTemplate *tmpl, DateADT date, WhRemote *remote)
{
	WhDayStream *stream = make_stream(tmpl, remote);

	wh_remote_begin(remote, wh_template_render(tmpl, date), tmpl->columns,
					&stream->binary, &stream->copy_sql);
	return stream;
}

void
wh_day_start(WhDayStream *stream, WhRate *rate)
{
	if (rate != NULL)
		wh_remote_allow_pauses(stream->remote);
	if (stream->copy_sql != NULL)
		wh_remote_copy_start(stream->remote, stream->copy_sql);
	stream->rate = rate;
	stream->decoder = wh_decoder_create(stream->columns, stream->binary);
	stream->rows_sent = -1;
	stream->guc_level = set_client_encoding();
}

WhDayStream *
wh_day_resume(const WhTemplate *tmpl, const WhTenant *tenant, DateADT date,
			  WhRemote *remote, TimestampTz *asked_at)
{
	WhDayStream *stream;

	if (remote == NULL || !wh_remote_is_ahead(remote) ||
		strcmp(wh_remote_fingerprint(remote), tenant->fingerprint) != 0)
		return NULL;
	stream = make_stream(tmpl, remote);
	if (!wh_remote_copy_asked(remote, wh_template_render(tmpl, date), tmpl->columns,
							  &stream->binary, asked_at))
		return NULL;
	return stream;
}

void
wh_day_ask_next(WhDayStream *stream, const WhTemplate *tmpl, DateADT date)
{
	wh_remote_set_application_name(stream->remote, name_at_tenant(tmpl, date));
	stream->next_query = wh_template_render(tmpl, date);
}

void
wh_day_drop_ahead(WhRemote **remote)
{
	WhRemote   *unfit = *remote;

	if (unfit == NULL || !wh_remote_is_ahead(unfit))
		return;
	*remote = NULL;
	wh_remote_close(unfit);
}

void
wh_day_push(void *arg)
{
	WhDayStream *stream = arg;

	wh_remote_push(stream->remote);
}

void
wh_day_leave(WhDayStream *stream)
{
	wh_remote_end(stream->remote);
}

static void
show_progress(WhDayStream *stream)
{
	if (stream->bytes - stream->bytes_shown < WH_PROGRESS_BYTES)
		return;
	stream->bytes_shown = stream->bytes;
	wh_status_progress(stream->rows, stream->bytes);
	wh_progress_bytes(stream->bytes);
}

/* The tenant is told to end its transaction as soon as its rows are here. */
static void
end_of_rows(WhDayStream *stream)
{
	wh_decoder_finish(stream->decoder);
	if (stream->rows_sent != stream->rows)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the rows of the day are not complete"),
				 errdetail("The tenant sent %lld rows, %lld were received.",
						   (long long) stream->rows_sent, (long long) stream->rows)));
	AtEOXact_GUC(true, stream->guc_level);
	if (stream->next_query != NULL)
		(void) wh_remote_end_and_ask(stream->remote, stream->next_query, stream->columns);
	else
		wh_remote_end(stream->remote);
	wh_status_progress(stream->rows, stream->bytes);
	wh_progress_bytes(stream->bytes);
	stream->ended = true;
	if (stream->rate != NULL)
		wh_rate_end(stream->rate, stream->rows, stream->bytes);
}

static void
raise_too_large(const char *what, int limit, const char *setting)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("the tenant sends %s of more than %d kB", what, limit),
			 errhint("%s sets how much is taken.", setting)));
}

/* A row may be split over messages; the memory for it is taken as they come. */
static void
check_sizes(const WhDayStream *stream, int len)
{
	if ((int64) wh_decoder_waiting(stream->decoder) + len > (int64) wh_max_row_size * 1024)
		raise_too_large("a row", wh_max_row_size, "wh_worker.max_row_size");
	if (wh_max_day_size > 0 && stream->bytes > (int64) wh_max_day_size * 1024)
		raise_too_large("a day", wh_max_day_size, "wh_worker.max_day_size");
}

/* Hands the next message to the decoder; false after the last. */
static bool
receive_message(WhDayStream *stream)
{
	char	   *data;
	int			len;

	if (stream->rate != NULL)
		wh_rate_pause(stream->rate, stream->rows, stream->bytes);
	len = wh_remote_copy_next(stream->remote, &data, &stream->rows_sent);
	if (len < 0)
	{
		end_of_rows(stream);
		return false;
	}
	stream->bytes += len;
	check_sizes(stream, len);
	show_progress(stream);
	wh_decoder_feed(stream->decoder, data, len);
	return true;
}

bool
wh_day_next(void *arg, Datum *values, bool *isnull)
{
	WhDayStream *stream = arg;

	while (!wh_decoder_next(stream->decoder, values, isnull))
	{
		if (!receive_message(stream))
			return false;
	}
	stream->rows++;
	return true;
}

int64
wh_day_close(WhDayStream *stream, int64 rows_kept)
{
	if (!stream->ended || rows_kept != stream->rows)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the rows of the day are not complete"),
				 errdetail("%lld rows were received, %lld were kept.",
						   (long long) stream->rows, (long long) rows_kept)));
	return stream->bytes;
}

/* ---- _wh.fetch_day ---- */

char *
wh_day_definition(const WhTemplate *tmpl, const char *tenant_name, DateADT date)
{
	return psprintf("SELECT %s FROM _wh.fetch_day(%s::pg_catalog.text, %s::pg_catalog.text, %s::pg_catalog.date) AS t(%s)",
					wh_template_column_list(tmpl), quote_literal_cstr(tmpl->name),
					quote_literal_cstr(tenant_name), quote_literal_cstr(wh_date_text(date)),
					wh_template_column_definition_list(tmpl));
}

static void
check_result_allowed(ReturnSetInfo *result)
{
	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0 || result->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("fetch_day can only be used in FROM with a column definition list"),
				 errhint("Write SELECT … FROM _wh.fetch_day(…) AS t(column type, …).")));
}

static char *
column_text(Form_pg_attribute column)
{
	return psprintf("%s %s", quote_identifier(NameStr(column->attname)),
					format_type_with_typemod(column->atttypid, column->atttypmod));
}

/* The caller's column definition list has to be that of the template. */
static void
check_columns(const WhTemplate *tmpl, TupleDesc expected)
{
	TupleDesc	columns = tmpl->columns;

	if (expected->natts != columns->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the column definition list has %d columns, but template \"%s\" has %d",
						expected->natts, tmpl->name, columns->natts)));

	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute wanted = TupleDescAttr(columns, i);
		Form_pg_attribute given = TupleDescAttr(expected, i);

		if (strcmp(NameStr(wanted->attname), NameStr(given->attname)) != 0 ||
			wanted->atttypid != given->atttypid || wanted->atttypmod != given->atttypmod)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" of template \"%s\" does not fit the column definition list",
							NameStr(wanted->attname), tmpl->name),
					 errdetail("The template has \"%s\", the list has \"%s\".",
							   column_text(wanted), column_text(given))));
	}
}

static int64
pour_rows(WhDayStream *stream, TupleDesc columns, Tuplestorestate *store)
{
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "wh_worker row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = CurrentMemoryContext;
	Datum	   *values = palloc(sizeof(Datum) * columns->natts);
	bool	   *isnull = palloc(sizeof(bool) * columns->natts);
	int64		rows = 0;

	for (;;)
	{
		bool		found;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(row_context);
		MemoryContextSwitchTo(row_context);
		found = wh_day_next(stream, values, isnull);
		MemoryContextSwitchTo(old_context);
		if (!found)
			return rows;
		tuplestore_putvalues(store, columns, values, isnull);
		rows++;
	}
}

/* The rows of the day into "store", over a connection of their own. */
static void
fetch_into_store(const WhTemplate *tmpl, const WhTenant *tenant, DateADT date,
				 Tuplestorestate *store)
{
	WhRemote   *volatile remote = NULL;
	volatile int guc_level = NewGUCNestLevel();

	PG_TRY();
	{
		WhRemote   *opened = NULL;
		WhDayStream *stream;
		WhRestricted restricted;

		wh_template_code_check_columns(tmpl->columns);
		wh_day_connect(tmpl, tenant, date, &opened);
		remote = opened;
		stream = wh_day_open(tmpl, date, opened);
		wh_restricted_begin(&restricted);
		wh_day_start(stream, NULL);
		wh_day_close(stream, pour_rows(stream, tmpl->columns, store));
		wh_restricted_end(&restricted);
	}
	PG_FINALLY();
	{
		/* before the error is reported, which happens in the client's encoding */
		AtEOXact_GUC(false, guc_level);
		if (remote != NULL)
			wh_remote_close(remote);
	}
	PG_END_TRY();
}

Datum
wh_sql_fetch_day(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old_context;
	WhTemplate *tmpl;
	WhTenant   *tenant;
	DateADT		date;
	Tuplestorestate *store;

	wh_require_preloaded();
	wh_require_running();
	check_result_allowed(result);
	date = PG_GETARG_DATEADT(2);

	tmpl = wh_template_read(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	check_columns(tmpl, result->expectedDesc);
	tenant = wh_tenant_read(text_to_cstring(PG_GETARG_TEXT_PP(1)));

	old_context = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	store = tuplestore_begin_heap((result->allowedModes & SFRM_Materialize_Random) != 0,
								  false, work_mem);
	result->returnMode = SFRM_Materialize;
	result->setResult = store;
	result->setDesc = CreateTupleDescCopy(tmpl->columns);
	MemoryContextSwitchTo(old_context);

	fetch_into_store(tmpl, tenant, date, store);
	return (Datum) 0;
}
