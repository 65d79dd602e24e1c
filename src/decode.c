/*
 * decode.c: CopyData messages into rows.
 *
 * Exists because the same rows feed a heap (load.c's row source) and the
 * tuplestore of fetch_day, where the server's COPY reader has no relation to
 * work on.  Called by refresh.c; handed bytes, knows no connection and no
 * catalogs but the types' input and receive functions.
 *
 * The messages are taken as one stream of bytes: a row may be split over
 * messages and a message may hold several rows.  A message that holds whole
 * rows, which is what PostgreSQL sends, is decoded where it lies; only an
 * unfinished rest is copied.  The typmod is applied here, by the type's own
 * function, so that a value that is too long is an error and never cut.
 * Text is verified to be valid in the database's encoding.
 *
 * Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "decode.h"
#include "decode_types.h"

#define COPY_SIGNATURE "PGCOPY\n\377\r\n\0"
#define COPY_SIGNATURE_LENGTH 11
#define COPY_HEADER_LENGTH (COPY_SIGNATURE_LENGTH + 8)
#define COPY_CRITICAL_FLAGS 0xFFFF0000

typedef struct DecodedColumn
{
	const char *name;
	Oid			type;
	int32		typmod;
	Oid			ioparam;
	FmgrInfo	function;		/* receive if binary, else input */
} DecodedColumn;

struct WhDecoder
{
	bool		binary;
	bool		header_seen;
	bool		end_seen;
	int			natts;
	DecodedColumn *columns;
	WhWireType *types;			/* of the columns, if binary */
	WhRawField *fields;
	int			room;			/* bytes for the short values of the row */

	const char *data;			/* bytes not used yet */
	int			length;
	StringInfoData rest;		/* an unfinished row waits here for more */
	StringInfoData scratch;		/* one field, or one line without escapes */

	int64		row;			/* for messages; counts from 1 */
	int			column;			/* being converted, or -1 */
};

static int16
read_int16(const char *p)
{
	uint16		n;

	memcpy(&n, p, sizeof(n));
	return (int16) pg_ntoh16(n);
}

static int32
read_int32(const char *p)
{
	uint32		n;

	memcpy(&n, p, sizeof(n));
	return (int32) pg_ntoh32(n);
}

static void
decode_error_context(void *arg)
{
	WhDecoder  *decoder = arg;

	if (decoder->column >= 0)
		errcontext("row %lld, column \"%s\"", (long long) decoder->row,
				   decoder->columns[decoder->column].name);
}

static void
bad_stream(const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
			 errmsg("the tenant's COPY data is malformed: %s", problem)));
}

static void
bad_value(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
			 errmsg("incorrect binary data format")));
}

static void
advance(WhDecoder *decoder, int nbytes)
{
	decoder->data += nbytes;
	decoder->length -= nbytes;
}

/* False if the header has not come in full. */
static bool
read_header(WhDecoder *decoder)
{
	const char *p = decoder->data;
	int32		extension;

	if (decoder->length < COPY_HEADER_LENGTH)
		return false;
	if (memcmp(p, COPY_SIGNATURE, COPY_SIGNATURE_LENGTH) != 0)
		bad_stream("no signature");
	if (read_int32(p + COPY_SIGNATURE_LENGTH) & COPY_CRITICAL_FLAGS)
		bad_stream("unknown flags in the header");
	extension = read_int32(p + COPY_SIGNATURE_LENGTH + 4);
	if (extension < 0 || extension > MaxAllocSize / 2)
		bad_stream("wrong length of the header");
	if (decoder->length - COPY_HEADER_LENGTH < extension)
		return false;
	advance(decoder, COPY_HEADER_LENGTH + extension);
	decoder->header_seen = true;
	return true;
}

/*
 * Finds the fields of the next row; nothing is used up unless all of it is
 * there.  The trailer makes end_seen true and gives no row.
 */
static bool
split_binary_row(WhDecoder *decoder)
{
	const char *p = decoder->data;
	int			left = decoder->length;
	int			room = 0;
	int16		nfields;

	if (left < 2)
		return false;
	nfields = read_int16(p);
	p += 2;
	left -= 2;
	if (nfields == -1)
	{
		decoder->end_seen = true;
		advance(decoder, 2);
		return false;
	}
	if (nfields != decoder->natts)
		ereport(ERROR,
				(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
				 errmsg("the tenant's COPY data is malformed: row %lld has %d columns, expected %d",
						(long long) decoder->row + 1, nfields, decoder->natts)));

	for (int i = 0; i < nfields; i++)
	{
		int32		length;

		if (left < 4)
			return false;
		length = read_int32(p);
		p += 4;
		left -= 4;
		if (length < -1)
			bad_stream("wrong length of a field");
		decoder->fields[i].data = p;
		decoder->fields[i].length = length;
		if (length > 0)
		{
			if (left < length)
				return false;
			p += length;
			left -= length;
		}
		if (length <= WH_WIRE_SHORT)
			room += length + 1;
	}
	decoder->room = room;
	advance(decoder, p - decoder->data);
	return true;
}

/* Any type, by its receive function, in a copy that it may write to. */
static Datum
receive_field(WhDecoder *decoder, DecodedColumn *column, const WhRawField *field)
{
	StringInfo	scratch = &decoder->scratch;
	Datum		value;

	resetStringInfo(scratch);
	appendBinaryStringInfo(scratch, field->data, field->length);
	value = ReceiveFunctionCall(&column->function, scratch, column->ioparam, column->typmod);
	if (scratch->cursor != scratch->len)
		bad_value();
	return value;
}

/* The end of the line that starts at "p", or NULL if it has not come. */
static const char *
find_line_end(const char *p, int length)
{
	const char *end = p + length;
	const char *from = p;

	while (from < end)
	{
		const char *newline = memchr(from, '\n', end - from);
		const char *before = newline;

		if (newline == NULL)
			return NULL;
		/* behind an odd number of backslashes it is data */
		while (before > p && before[-1] == '\\')
			before--;
		if ((newline - before) % 2 == 0)
			return newline;
		from = newline + 1;
	}
	return NULL;
}

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/*
 * One escape, whose backslash is behind us; returns where the input goes on.
 * *numeric says that the byte was given by number, so that the field has to
 * be verified again.
 */
static const char *
read_escape(const char *p, const char *end, char *byte, bool *numeric)
{
	char		c = *p++;
	int			value;

	switch (c)
	{
		case 'b':
			*byte = '\b';
			break;
		case 'f':
			*byte = '\f';
			break;
		case 'n':
			*byte = '\n';
			break;
		case 'r':
			*byte = '\r';
			break;
		case 't':
			*byte = '\t';
			break;
		case 'v':
			*byte = '\v';
			break;
		case 'x':
			*byte = c;
			if (p < end && hex_value(*p) >= 0)
			{
				value = hex_value(*p++);
				if (p < end && hex_value(*p) >= 0)
					value = value * 16 + hex_value(*p++);
				*byte = (char) value;
				*numeric = true;
			}
			break;
		case '0':
		case '1':
		case '2':
		case '3':
		case '4':
		case '5':
		case '6':
		case '7':
			value = c - '0';
			for (int i = 0; i < 2 && p < end && *p >= '0' && *p <= '7'; i++)
				value = value * 8 + (*p++ - '0');
			*byte = (char) (value & 0377);
			*numeric = true;
			break;
		default:
			*byte = c;
			break;
	}
	return p;
}

/*
 * One field from "p" to the tab or the end of the line, unescaped and with a
 * NUL behind it, into "out"; returns where it stopped.
 */
static const char *
read_text_field(const char *p, const char *end, char **out, WhRawField *field)
{
	const char *start = p;
	char	   *to = *out;
	bool		numeric = false;

	while (p < end && *p != '\t')
	{
		if (*p == '\\' && p + 1 < end)
		{
			p = read_escape(p + 1, end, to, &numeric);
			to++;
		}
		else
			*to++ = *p++;
	}
	field->data = *out;
	field->length = to - *out;
	*to++ = '\0';
	*out = to;
	if (numeric)
		pg_verifymbstr(field->data, field->length, false);
	if (p - start == 2 && start[0] == '\\' && start[1] == 'N')
		field->length = -1;
	return p;
}

static void
split_text_line(WhDecoder *decoder, const char *line, int length)
{
	const char *p = line;
	const char *end = line + length;
	char	   *out;

	pg_verifymbstr(line, length, false);

	/* unescaping shortens, and each NUL stands for a tab or the newline */
	resetStringInfo(&decoder->scratch);
	enlargeStringInfo(&decoder->scratch, length + 1);
	out = decoder->scratch.data;

	for (int i = 0; i < decoder->natts; i++)
	{
		if (i > 0)
		{
			if (p == end)
				ereport(ERROR,
						(errcode(ERRCODE_BAD_COPY_FILE_FORMAT),
						 errmsg("missing data for column \"%s\"", decoder->columns[i].name)));
			p++;
		}
		p = read_text_field(p, end, &out, &decoder->fields[i]);
	}
	if (p != end)
		bad_stream("extra data after the last column");
}

/* As split_binary_row(), for lines of text. */
static bool
split_text_row(WhDecoder *decoder)
{
	const char *line = decoder->data;
	const char *newline = find_line_end(line, decoder->length);
	int			length;

	if (newline == NULL)
		return false;
	length = newline - line;
	advance(decoder, length + 1);
	if (length == 2 && line[0] == '\\' && line[1] == '.')
	{
		decoder->end_seen = true;
		return false;
	}
	split_text_line(decoder, line, length);
	return true;
}

static Datum
decode_text_field(DecodedColumn *column, const WhRawField *field)
{
	if (column->type == TEXTOID)
		return PointerGetDatum(cstring_to_text_with_len(field->data, field->length));
	return InputFunctionCall(&column->function, unconstify(char *, field->data),
							 column->ioparam, column->typmod);
}

/* A domain may refuse NULL, so its function is asked. */
static Datum
decode_null(WhDecoder *decoder, DecodedColumn *column)
{
	if (decoder->binary)
		return ReceiveFunctionCall(&column->function, NULL, column->ioparam, column->typmod);
	return InputFunctionCall(&column->function, NULL, column->ioparam, column->typmod);
}

/* Most values directly, into memory allocated once; the others by their function. */
static void
decode_binary_fields(WhDecoder *decoder, Datum *values, bool *isnull)
{
	char	   *room = decoder->room == 0 ? NULL : palloc(decoder->room);
	int			natts = decoder->natts;
	int			i = 0;

	while ((i = wh_wire_values(decoder->types, decoder->fields, i, natts, &room, values, isnull)) < natts)
	{
		decoder->column = i;
		values[i] = isnull[i] ? decode_null(decoder, &decoder->columns[i]) :
			receive_field(decoder, &decoder->columns[i], &decoder->fields[i]);
		i++;
	}
	decoder->column = -1;
}

static void
decode_text_fields(WhDecoder *decoder, Datum *values, bool *isnull)
{
	for (int i = 0; i < decoder->natts; i++)
	{
		DecodedColumn *column = &decoder->columns[i];
		WhRawField *field = &decoder->fields[i];

		decoder->column = i;
		isnull[i] = field->length < 0;
		values[i] = isnull[i] ? decode_null(decoder, column) : decode_text_field(column, field);
	}
	decoder->column = -1;
}

/* What is left of a message that goes away waits for the next one. */
static void
keep_rest(WhDecoder *decoder)
{
	StringInfo	rest = &decoder->rest;

	if (decoder->length == 0)
		resetStringInfo(rest);
	else if (decoder->data >= rest->data && decoder->data < rest->data + rest->maxlen)
	{
		memmove(rest->data, decoder->data, decoder->length);
		rest->len = decoder->length;
	}
	else
	{
		resetStringInfo(rest);
		appendBinaryStringInfo(rest, decoder->data, decoder->length);
	}
	decoder->data = rest->data;
	decoder->length = rest->len;
}

static void
prepare_column(DecodedColumn *column, Form_pg_attribute attribute, bool binary)
{
	Oid			function;

	column->name = pstrdup(NameStr(attribute->attname));
	column->type = attribute->atttypid;
	column->typmod = attribute->atttypmod;
	if (binary)
		getTypeBinaryInputInfo(column->type, &function, &column->ioparam);
	else
		getTypeInputInfo(column->type, &function, &column->ioparam);
	fmgr_info(function, &column->function);
}

WhDecoder *
wh_decoder_create(TupleDesc columns, bool binary)
{
	WhDecoder  *decoder = palloc0(sizeof(WhDecoder));

	decoder->binary = binary;
	decoder->header_seen = !binary;
	decoder->natts = columns->natts;
	decoder->columns = palloc0(columns->natts * sizeof(DecodedColumn));
	decoder->fields = palloc0(columns->natts * sizeof(WhRawField));
	decoder->column = -1;
	decoder->types = palloc0(columns->natts * sizeof(WhWireType));
	for (int i = 0; i < columns->natts; i++)
	{
		DecodedColumn *column = &decoder->columns[i];

		prepare_column(column, TupleDescAttr(columns, i), binary);
		wh_wire_type(&decoder->types[i], column->type, column->typmod, column->function.fn_strict);
	}
	initStringInfo(&decoder->rest);
	initStringInfo(&decoder->scratch);
	return decoder;
}

void
wh_decoder_feed(WhDecoder *decoder, const char *data, int len)
{
	if (decoder->length > 0)
	{
		appendBinaryStringInfo(&decoder->rest, data, len);
		decoder->data = decoder->rest.data;
		decoder->length = decoder->rest.len;
	}
	else
	{
		decoder->data = data;
		decoder->length = len;
	}
}

int
wh_decoder_waiting(const WhDecoder *decoder)
{
	return decoder->length;
}

bool
wh_decoder_next(WhDecoder *decoder, Datum *values, bool *isnull)
{
	ErrorContextCallback callback;
	bool		found = false;

	if (decoder->header_seen || read_header(decoder))
	{
		if (!decoder->end_seen)
			found = decoder->binary ? split_binary_row(decoder) : split_text_row(decoder);
		if (decoder->end_seen && decoder->length > 0)
			bad_stream("data after the end");
	}
	if (!found)
	{
		keep_rest(decoder);
		return false;
	}

	decoder->row++;
	callback.callback = decode_error_context;
	callback.arg = decoder;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	if (decoder->binary)
		decode_binary_fields(decoder, values, isnull);
	else
		decode_text_fields(decoder, values, isnull);
	error_context_stack = callback.previous;
	return true;
}

void
wh_decoder_finish(WhDecoder *decoder)
{
	if (decoder->length > 0 || (decoder->binary && !decoder->end_seen))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the tenant's COPY data ended too early"),
				 errdetail("%lld rows were complete.", (long long) decoder->row)));
}
