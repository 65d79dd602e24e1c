/*
 * decode_test.c: the decoder against the types' receive functions, for
 * regress/sql/decode.sql.
 *
 * A library of its own, made of this file and the decoder, so that the
 * extension carries no function that only tests call.  Nobody installs it; the
 * test loads it from where it was built.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "../../src/decode.h"
#include "../../src/decode_types.h"
#include "../../src/row_form.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(decode_compare);
PG_FUNCTION_INFO_V1(row_form_compare);
PG_FUNCTION_INFO_V1(row_form_brim);

/* What became of one value: a row's bytes, or an error. */
typedef struct Outcome
{
	HeapTuple	tuple;
	ErrorData  *error;
} Outcome;

static pg_prng_state randomness;

/* ---- wire formats, right and wrong ---- */

static int
below(int n)
{
	return (int) pg_prng_uint64_range(&randomness, 0, n - 1);
}

static void
append_random_bytes(StringInfo wire, int length)
{
	for (int i = 0; i < length; i++)
		appendStringInfoCharMacro(wire, (char) below(256));
}

/* Small numbers, large ones, and those next to a limit. */
static int64
random_int64(void)
{
	static const int64 limits[] = {0, PG_INT64_MIN, PG_INT64_MAX, PG_INT32_MIN, PG_INT32_MAX,
		INT64CONST(-211813488000000000), INT64CONST(9223371331200000000), INT64CONST(86400000000),
	-2451545, 2145031949};
	uint64		any = pg_prng_uint64(&randomness);

	switch (below(4))
	{
		case 0:
			return (int64) ((uint64) limits[below(lengthof(limits))] + (uint64) (below(5) - 2));
		case 1:
			return (int64) any;
		case 2:
			return (int64) any / 1000000 * 1000000;
		default:
			return (int64) any >> below(64);
	}
}

static void
append_integer(StringInfo wire, int length)
{
	int64		n = random_int64();

	if (length == 1)
		pq_sendint8(wire, (uint8) n);
	else if (length == 2)
		pq_sendint16(wire, (uint16) n);
	else if (length == 4)
		pq_sendint32(wire, (uint32) n);
	else
		pq_sendint64(wire, n);
}

/* One to four bytes of a character, now and then of none. */
static void
append_text(StringInfo wire)
{
	static const char *const characters[] = {"a", "b", " ", "7", "\x7f", "\x01", "é", "東", "😀"};
	static const char *const wrong[] = {"\x80", "\xff", "\xc3", "\xe6\x9d", "\xed\xa0\x80", "\xc0\x80"};
	int			kind = below(10);
	int			length = below(4) == 0 ? below(300) : below(24);

	for (int i = 0; i < length; i++)
		appendStringInfoString(wire, characters[kind < 5 ? below(6) : below(lengthof(characters))]);
	if (kind == 9 && below(2) == 0)
		appendStringInfoString(wire, wrong[below(lengthof(wrong))]);
	else if (kind == 9)
		appendStringInfoCharMacro(wire, '\0');
	for (int i = 0; kind == 9 && i < below(12); i++)
		appendStringInfoChar(wire, 'z');
}

static int
random_digit(void)
{
	switch (below(12))
	{
		case 0:
			return 0;
		case 1:
			return 100 * below(100);
		case 2:
			return below(10);
		case 3:
			return below(10) == 0 ? 10000 + below(2) * below(50000) : 9999;
		default:
			return below(10000);
	}
}

/* A number of so many digits behind the point, nearly always as PostgreSQL sends it. */
static void
append_sent_numeric(StringInfo wire, int scale)
{
	static const int power[] = {1, 10, 100, 1000};
	int			behind = (scale + 3) / 4;
	int			weight = below(4) - 1 - (scale > 4 ? below(behind) : 0);
	int			ndigits = Max(1, weight + 1 + behind);
	int			last = power[behind * 4 - scale];

	pq_sendint16(wire, ndigits);
	pq_sendint16(wire, weight);
	pq_sendint16(wire, below(2) * 0x4000);
	pq_sendint16(wire, scale);
	for (int i = 0; i < ndigits - 1; i++)
		pq_sendint16(wire, 1 + below(below(2) == 0 ? 9 : 9999));
	pq_sendint16(wire, below(10000 / last) * last);
}

/* A number as no server would send it, or might. */
static void
append_any_numeric(StringInfo wire)
{
	static const uint16 signs[] = {0, 0, 0, 0, 0, 0, 0, 0x4000, 0x4000, 0x4000, 0x4000, 0xC000, 0xD000, 0xF000, 1};
	int			ndigits = below(20) == 0 ? below(70) : below(6);
	int			weight = below(10) == 0 ? below(400) - 200 : below(6) - 2;
	int			scale = below(10) == 0 ? below(20000) : below(3) == 0 ? below(70) : 2;

	/* those that the short form has no bits for */
	if (below(10) == 0)
		weight = below(2) * 128 - 66 + below(4);

	if (below(3) > 0)
		scale = Max(0, (ndigits - weight - 1) * 4 - below(5));
	if (below(20) == 0)
		scale = 62 + below(4);
	pq_sendint16(wire, below(50) == 0 ? ndigits + 1 : ndigits);
	pq_sendint16(wire, weight);
	pq_sendint16(wire, signs[below(lengthof(signs))]);
	pq_sendint16(wire, scale);
	for (int i = 0; i < ndigits; i++)
		pq_sendint16(wire, random_digit());
}

static void
append_value(StringInfo wire, Oid type, int32 typmod)
{
	int			scale = typmod < 0 ? below(12) : (typmod - (int) VARHDRSZ) & 0x3FF;

	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			append_text(wire);
			break;
		case NUMERICOID:
			if (below(2) == 0)
				append_sent_numeric(wire, Min(scale, 20));
			else
				append_any_numeric(wire);
			break;
		case BYTEAOID:
			append_random_bytes(wire, below(200));
			break;
		default:
			if (get_typbyval(type))
				append_integer(wire, get_typlen(type));
			else
				append_random_bytes(wire, get_typlen(type));
			break;
	}
	/* now and then too short or too long */
	if (below(40) == 0)
		append_random_bytes(wire, 1);
	else if (below(40) == 0 && wire->len > 0)
		wire->len--;
}

/* ---- both ways to a row ---- */

static HeapTuple
decode_row(TupleDesc columns, StringInfo wire)
{
	StringInfoData stream;
	WhDecoder  *decoder = wh_decoder_create(columns, true);
	Datum		value;
	bool		isnull;
	HeapTuple	tuple;
	int			first;

	initStringInfo(&stream);
	appendBinaryStringInfo(&stream, "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0", 19);
	pq_sendint16(&stream, 1);
	pq_sendint32(&stream, wire->len);
	appendBinaryStringInfo(&stream, wire->data, wire->len);
	pq_sendint16(&stream, -1);

	/* in two messages, cut anywhere */
	first = below(stream.len + 1);
	wh_decoder_feed(decoder, stream.data, first);
	if (!wh_decoder_next(decoder, &value, &isnull))
	{
		wh_decoder_feed(decoder, stream.data + first, stream.len - first);
		if (!wh_decoder_next(decoder, &value, &isnull))
			ereport(ERROR, (errmsg("no row")));
		first = stream.len;
	}
	tuple = wh_row_form(wh_row_form_create(columns), &value, &isnull);
	if (wh_decoder_next(decoder, &value, &isnull))
		ereport(ERROR, (errmsg("two rows")));
	if (first < stream.len)
	{
		wh_decoder_feed(decoder, stream.data + first, stream.len - first);
		if (wh_decoder_next(decoder, &value, &isnull))
			ereport(ERROR, (errmsg("two rows")));
	}
	wh_decoder_finish(decoder);
	return tuple;
}

static HeapTuple
receive_row(TupleDesc columns, StringInfo wire)
{
	Form_pg_attribute attribute = TupleDescAttr(columns, 0);
	StringInfoData copy;
	Datum		value;
	bool		isnull = false;
	Oid			function,
				ioparam;

	initStringInfo(&copy);
	appendBinaryStringInfo(&copy, wire->data, wire->len);
	getTypeBinaryInputInfo(attribute->atttypid, &function, &ioparam);
	value = OidReceiveFunctionCall(function, &copy, ioparam, attribute->atttypmod);
	if (copy.cursor != copy.len)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("incorrect binary data format")));
	return heap_form_tuple(columns, &value, &isnull);
}

static Outcome
outcome_of(HeapTuple (*make_row) (TupleDesc, StringInfo), TupleDesc columns, StringInfo wire)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Outcome outcome = {NULL, NULL};

	PG_TRY();
	{
		outcome.tuple = make_row(columns, wire);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		outcome.error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return outcome;
}

/* But for what an insertion writes: xmin, xmax, ctid and the bits for them. */
static bool
is_same_row(HeapTuple a, HeapTuple b)
{
	return a->t_len == b->t_len && a->t_data->t_hoff == b->t_data->t_hoff &&
		a->t_data->t_infomask2 == b->t_data->t_infomask2 &&
		((a->t_data->t_infomask ^ b->t_data->t_infomask) & ~HEAP_XACT_MASK) == 0 &&
		memcmp(a->t_data->t_bits, b->t_data->t_bits, a->t_len - SizeofHeapTupleHeader) == 0;
}

static bool
is_same(const Outcome *a, const Outcome *b)
{
	if (a->error != NULL || b->error != NULL)
		return a->error != NULL && b->error != NULL &&
			a->error->sqlerrcode == b->error->sqlerrcode &&
			strcmp(a->error->message, b->error->message) == 0;
	return is_same_row(a->tuple, b->tuple);
}

static bool
is_direct(TupleDesc columns, StringInfo wire)
{
	Form_pg_attribute attribute = TupleDescAttr(columns, 0);
	WhRawField	field = {wire->data, wire->len};
	WhWireType	type;
	char	   *room = palloc(WH_WIRE_SHORT + 1);
	Datum		value;
	bool		isnull;

	wh_wire_type(&type, attribute->atttypid, attribute->atttypmod, true);
	return wh_wire_values(&type, &field, 0, 1, &room, &value, &isnull) == 1;
}

static void
show_difference(const Outcome *decoded, const Outcome *received, StringInfo wire)
{
	char	   *hex = palloc(wire->len * 2 + 1);

	hex[hex_encode(wire->data, wire->len, hex)] = '\0';
	ereport(WARNING,
			(errmsg("not the same for \\x%s", hex),
			 errdetail("The decoder: %s. The receive function: %s.",
					   decoded->error == NULL ? "a value" : decoded->error->message,
					   received->error == NULL ? "a value" : received->error->message)));
}

/*
 * decode_compare(type, typmod, seed, times): how many values of the wire format
 * were the same by both ways, which were accepted, which were made directly.
 */
Datum
decode_compare(PG_FUNCTION_ARGS)
{
	Oid			type = PG_GETARG_OID(0);
	int			times = PG_GETARG_INT32(3);
	TupleDesc	columns = CreateTemplateTupleDesc(1);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "decode_compare",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context;
	int			counts[3] = {0, 0, 0};
	Datum		numbers[lengthof(counts)];

	TupleDescInitEntry(columns, 1, "value", type, PG_GETARG_INT32(1), 0);
	pg_prng_seed(&randomness, (uint64) PG_GETARG_INT64(2));
	old_context = MemoryContextSwitchTo(context);
	for (int i = 0; i < times; i++)
	{
		StringInfoData wire;
		Outcome		decoded,
					received;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		initStringInfo(&wire);
		append_value(&wire, type, PG_GETARG_INT32(1));
		decoded = outcome_of(decode_row, columns, &wire);
		received = outcome_of(receive_row, columns, &wire);
		if (is_same(&decoded, &received))
			counts[0]++;
		else
			show_difference(&decoded, &received, &wire);
		counts[1] += received.error == NULL;
		counts[2] += is_direct(columns, &wire);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	for (int i = 0; i < lengthof(counts); i++)
		numbers[i] = Int32GetDatum(counts[i]);
	PG_RETURN_ARRAYTYPE_P(construct_array(numbers, lengthof(counts), INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* A value of the type, as long as the receive function likes one of them. */
static Datum
random_value(Form_pg_attribute attribute)
{
	TupleDesc	columns = CreateTemplateTupleDesc(1);
	Outcome		outcome;
	Datum		value;
	bool		isnull;

	TupleDescInitEntry(columns, 1, "value", attribute->atttypid, attribute->atttypmod, 0);
	do
	{
		StringInfoData wire;

		initStringInfo(&wire);
		append_value(&wire, attribute->atttypid, attribute->atttypmod);
		outcome = outcome_of(below(2) == 0 ? decode_row : receive_row, columns, &wire);
	} while (outcome.error != NULL);
	value = heap_getattr(outcome.tuple, 1, columns, &isnull);

	/* with a header of four bytes, too */
	if (attribute->attlen == -1 && below(2) == 0)
		value = PointerGetDatum(PG_DETOAST_DATUM_COPY(value));
	return value;
}

/* row_form_compare(relation, seed, times): how many rows are those of heap_form_tuple(). */
Datum
row_form_compare(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	TupleDesc	columns = RelationGetDescr(rel);
	WhRowForm  *form = wh_row_form_create(columns);
	Datum	   *values = palloc0(columns->natts * sizeof(Datum));
	bool	   *isnull = palloc(columns->natts * sizeof(bool));
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "row_form_compare",
												  ALLOCSET_DEFAULT_SIZES);
	int			same = 0;

	pg_prng_seed(&randomness, (uint64) PG_GETARG_INT64(1));
	for (int i = 0; i < PG_GETARG_INT32(2); i++)
	{
		MemoryContext old_context = MemoryContextSwitchTo(context);
		int			nulls = below(3);
		Outcome		ours = {NULL, NULL};
		Outcome		cores = {NULL, NULL};

		CHECK_FOR_INTERRUPTS();
		for (int c = 0; c < columns->natts; c++)
		{
			isnull[c] = nulls > 0 && below(nulls * 3) == 0;
			if (!isnull[c])
				values[c] = random_value(TupleDescAttr(columns, c));
		}
		ours.tuple = wh_row_form(form, values, isnull);
		cores.tuple = heap_form_tuple(columns, values, isnull);
		same += is_same(&ours, &cores);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(context);
	}
	table_close(rel, AccessShareLock);
	PG_RETURN_INT32(same);
}

/*
 * row_form_brim(relation): the same, for a bytea that nearly fills the room, in every
 * length, and a text behind it for which there is none.
 */
Datum
row_form_brim(PG_FUNCTION_ARGS)
{
	Relation	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	TupleDesc	columns = RelationGetDescr(rel);
	WhRowForm  *form = wh_row_form_create(columns);
	bool		isnull[2] = {false, false};
	Size		long_size = 4 * 1024 * 1024;
	text	   *long_text = palloc0(long_size);
	int			same = 0;

	SET_VARSIZE(long_text, long_size);
	for (int size = BLCKSZ - 100; size < BLCKSZ; size++)
	{
		Datum		values[2] = {PointerGetDatum(palloc0(size)), PointerGetDatum(long_text)};
		Outcome		ours = {NULL, NULL};
		Outcome		cores = {NULL, NULL};

		SET_VARSIZE(DatumGetPointer(values[0]), size);
		ours.tuple = wh_row_form(form, values, isnull);
		cores.tuple = heap_form_tuple(columns, values, isnull);
		same += is_same(&ours, &cores);
		heap_freetuple(ours.tuple);
		heap_freetuple(cores.tuple);
	}
	table_close(rel, AccessShareLock);
	PG_RETURN_INT32(same);
}
