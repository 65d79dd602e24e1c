/*
 * fuzz_decode.c: any bytes as a tenant's COPY data.
 *
 *   byte 0     1: binary, 0: text
 *   byte 1     how many columns
 *   byte 2     how long a message is, 0: all is one message
 *   ...        a type for each column
 *   the rest   the stream; a binary one gets its header unless byte 0 has bit 2
 *
 * Messages, and what the decoder allocates for values (see fuzz/run), lie in
 * guarded memory. Values are written as text, as a query would. However the
 * stream is split, the rows have to be the same.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "../src/decode.h"
#include "fuzz.h"

#define MAX_COLUMNS 12
#define HEADER 3

typedef struct FuzzType
{
	Oid			type;
	int32		typmod;
} FuzzType;

/* Those that are read here, with typmods on both sides of what fits, and others. */
static const FuzzType fuzz_types[] = {
	{BOOLOID, -1}, {INT2OID, -1}, {INT4OID, -1}, {INT8OID, -1}, {FLOAT4OID, -1}, {FLOAT8OID, -1},
	{DATEOID, -1}, {TIMEOID, -1}, {TIMEOID, 0}, {TIMESTAMPOID, -1}, {TIMESTAMPOID, 3},
	{TIMESTAMPTZOID, -1}, {UUIDOID, -1}, {TEXTOID, -1}, {VARCHAROID, -1}, {VARCHAROID, 4 + VARHDRSZ},
	{BYTEAOID, -1}, {NUMERICOID, -1}, {NUMERICOID, ((10 << 16) | 2) + VARHDRSZ},
	{NUMERICOID, ((3 << 16) | 0x7FF) + VARHDRSZ}, {BPCHAROID, 6 + VARHDRSZ}, {BPCHAROID, -1},
	{INT4ARRAYOID, -1}, {TEXTARRAYOID, -1}, {JSONBOID, -1}, {JSONOID, -1}, {INETOID, -1},
	{INTERVALOID, -1}, {BITOID, 7}, {VARBITOID, -1}, {POINTOID, -1}, {INT4RANGEOID, -1},
	{TSVECTOROID, -1}, {TIMETZOID, -1}, {NAMEOID, -1}, {CHAROID, -1}, {NUMRANGEOID, -1},
	{NUMMULTIRANGEOID, -1}, {PATHOID, -1}
};

/* What a stream gave. */
typedef struct Outcome
{
	int64		rows;
	uint64		hash;
	int			sqlerrcode;		/* 0: none */
} Outcome;

/* decode*.c are compiled to call this one. */
extern void *wh_fuzz_palloc(Size size);

void *
wh_fuzz_palloc(Size size)
{
	if (!AllocSizeIsValid(size))
		elog(ERROR, "invalid memory alloc request size %zu", size);	/* cannot happen */
	return wh_fuzz_guarded(size);
}

/* ---- one stream ---- */

static TupleDesc
columns_of(const uint8 *types, int ncolumns)
{
	TupleDesc	columns = CreateTemplateTupleDesc(ncolumns);

	for (int i = 0; i < ncolumns; i++)
	{
		const FuzzType *type = &fuzz_types[types[i] % lengthof(fuzz_types)];

		TupleDescInitEntry(columns, i + 1, "c", type->type, type->typmod, 0);
	}
	return columns;
}

/* As it would be stored and read again: a value that cannot be written is none. */
static void
look_at_row(TupleDesc columns, Datum *values, bool *isnull, Outcome *outcome)
{
	HeapTuple	tuple = heap_form_tuple(columns, values, isnull);

	heap_deform_tuple(tuple, columns, values, isnull);
	for (int i = 0; i < columns->natts; i++)
	{
		Oid			function;
		bool		is_varlena;
		char	   *text;

		if (isnull[i])
			continue;
		getTypeOutputInfo(TupleDescAttr(columns, i)->atttypid, &function, &is_varlena);
		text = OidOutputFunctionCall(function, values[i]);
		outcome->hash = hash_combine64(outcome->hash, hash_bytes_extended((unsigned char *) text, strlen(text), i));
	}
	outcome->rows++;
}

static void
decode_message(WhDecoder *decoder, TupleDesc columns, MemoryContext row_context, Outcome *outcome)
{
	Datum		values[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];
	MemoryContext old = MemoryContextSwitchTo(row_context);

	while (wh_decoder_next(decoder, values, isnull))
	{
		look_at_row(columns, values, isnull, outcome);
		MemoryContextReset(row_context);
	}
	MemoryContextSwitchTo(old);
}

static void
decode_stream(TupleDesc columns, bool binary, const uint8 *data, size_t size, size_t step,
			  Outcome *outcome)
{
	WhDecoder  *decoder = wh_decoder_create(columns, binary);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext, "row", ALLOCSET_DEFAULT_SIZES);

	for (size_t at = 0; at < size; at += step)
	{
		size_t		length = Min(step, size - at);

		char	   *message = wh_fuzz_copy(data + at, length);

		wh_decoder_feed(decoder, message, length);
		decode_message(decoder, columns, row_context, outcome);
		wh_fuzz_free(message);
	}
	wh_decoder_finish(decoder);
}

static Outcome
outcome_of(TupleDesc columns, bool binary, const uint8 *data, size_t size, size_t step)
{
	volatile Outcome outcome = {0};
	MemoryContext old = CurrentMemoryContext;
	ErrorContextCallback *callbacks = error_context_stack;

	PG_TRY();
	{
		decode_stream(columns, binary, data, size, step, (Outcome *) &outcome);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		outcome.sqlerrcode = geterrcode();
		FlushErrorState();
	}
	PG_END_TRY();
	error_context_stack = callbacks;
	wh_fuzz_free_all();
	return outcome;
}

static void
fuzz_stream(TupleDesc columns, bool binary, const uint8 *data, size_t size, size_t step)
{
	Outcome		whole = outcome_of(columns, binary, data, size, Max(size, 1));
	Outcome		split;

	if (step == 0 || size / step > 2000)
		return;
	split = outcome_of(columns, binary, data, size, step);
	wh_fuzz_require(whole.rows == split.rows && whole.hash == split.hash &&
					whole.sqlerrcode == split.sqlerrcode,
					"the rows depend on how the stream was split");
}

void
wh_fuzz_decode(const uint8 *data, size_t size)
{
	static const uint8 header[19] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";
	int			ncolumns = size > 1 ? data[1] % MAX_COLUMNS + 1 : 0;
	bool		binary;
	bool		own_header;
	uint8	   *stream;
	size_t		length;

	if (size < HEADER + ncolumns || ncolumns == 0)
		return;
	binary = (data[0] & 1) != 0;
	own_header = !binary || (data[0] & 2) != 0;
	length = size - HEADER - ncolumns;
	stream = palloc(length + sizeof(header));
	memcpy(stream, header, sizeof(header));
	memcpy(stream + (own_header ? 0 : sizeof(header)), data + HEADER + ncolumns, length);
	fuzz_stream(columns_of(data + HEADER, ncolumns), binary, stream,
				length + (own_header ? 0 : sizeof(header)), data[2]);
}
