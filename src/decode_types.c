/*
 * decode_types.c: values of the commonest types from the binary wire format,
 * as they lie in a row, without their receive function.
 *
 * Exists because calling a function for each value, with a copy of it that the
 * function may write to, is most of the work of a load.  Called by decode.c
 * for a row.
 *
 * What is not plainly right is left to the receive function: it decides, and
 * it raises the error.  So nothing here may accept a value that the type's
 * function refuses, or make another one of it; regress/sql/decode.sql
 * compares them byte by byte.
 *
 * Strings and numerics get the header of one byte that they would have in a
 * row anyway.  Knows no catalogs.  Takes no locks.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "mb/pg_wchar.h"
#include "port/pg_bswap.h"
#include "utils/date.h"
#include "utils/memutils.h"
#include "utils/uuid.h"

#include "compat.h"
#include "decode_types.h"

/* As numeric.c stores it; this is the format of the files since 9.1. */
#define NUMERIC_BASE 10000
#define NUMERIC_BASE_DIGITS 4
#define NUMERIC_WIRE_HEADER 8
#define NUMERIC_WIRE_NEGATIVE 0x4000
#define NUMERIC_SHORT_FLAG 0x8000
#define NUMERIC_SHORT_NEGATIVE 0x2000
#define NUMERIC_SHORT_SCALE_SHIFT 7
#define NUMERIC_SHORT_SCALE_MAX 0x3F
#define NUMERIC_SHORT_WEIGHT_MASK 0x7F
#define NUMERIC_SHORT_WEIGHT_MIN (-64)
#define NUMERIC_SHORT_WEIGHT_MAX 63

/* Each byte of a word: the highest bit, and all others. */
#define HIGH_BITS UINT64CONST(0x8080808080808080)
#define LOW_BITS UINT64CONST(0x7F7F7F7F7F7F7F7F)

static inline uint16
read_uint16(const char *p)
{
	uint16		n;

	memcpy(&n, p, sizeof(n));
	return pg_ntoh16(n);
}

static inline uint32
read_uint32(const char *p)
{
	uint32		n;

	memcpy(&n, p, sizeof(n));
	return pg_ntoh32(n);
}

static inline uint64
read_uint64(const char *p)
{
	uint64		n;

	memcpy(&n, p, sizeof(n));
	return pg_ntoh64(n);
}

/* ---- what a typmod allows ---- */

/* Times have microseconds; what is a multiple of the unit is not rounded. */
static int64
unit_of_typmod(int32 typmod)
{
	int64		unit = 1;

	for (int digits = typmod; typmod >= 0 && digits < MAX_TIMESTAMP_PRECISION; digits++)
		unit *= 10;
	return unit;
}

/* numeric(precision, scale), by the bits of numerictypmodin(). */
static void
limit_numeric(WhWireType *type, int32 typmod)
{
	int			precision;

	type->scale = -1;
	if (typmod < (int32) VARHDRSZ)
		return;
	precision = ((typmod - VARHDRSZ) >> 16) & 0xFFFF;
	type->scale = (((typmod - VARHDRSZ) & 0x7FF) ^ 1024) - 1024;
	type->limit = precision - type->scale;
	if (type->scale < 0)
		type->form = WH_WIRE_RECEIVE;
}

void
wh_wire_type(WhWireType *type, Oid oid, int32 typmod, bool strict)
{
	type->form = WH_WIRE_RECEIVE;
	type->strict = strict;
	type->unit = 1;
	type->limit = MaxAllocSize - VARHDRSZ;
	type->scale = -1;

	switch (oid)
	{
		case BOOLOID:
			type->form = WH_WIRE_BOOL;
			break;
		case INT2OID:
			type->form = WH_WIRE_INT2;
			break;
		case INT4OID:
			type->form = WH_WIRE_INT4;
			break;
		case INT8OID:
			type->form = WH_WIRE_INT8;
			break;
		case FLOAT4OID:
			type->form = WH_WIRE_FLOAT4;
			break;
		case FLOAT8OID:
			type->form = WH_WIRE_FLOAT8;
			break;
		case DATEOID:
			type->form = WH_WIRE_DATE;
			break;
		case TIMEOID:
			type->form = WH_WIRE_TIME;
			type->unit = unit_of_typmod(typmod);
			break;
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			type->form = WH_WIRE_TIMESTAMP;
			type->unit = unit_of_typmod(typmod);
			break;
		case UUIDOID:
			type->form = WH_WIRE_UUID;
			break;
		case VARCHAROID:
			/* so many bytes are never more characters */
			if (typmod >= (int32) VARHDRSZ)
				type->limit = typmod - VARHDRSZ;
			type->form = WH_WIRE_TEXT;
			break;
		case TEXTOID:
			type->form = WH_WIRE_TEXT;
			break;
		case BYTEAOID:
			type->form = WH_WIRE_BYTES;
			break;
		case NUMERICOID:
			type->form = WH_WIRE_NUMERIC;
			limit_numeric(type, typmod);
			break;
		default:
			break;
	}
}

/* ---- one value ---- */

/*
 * Characters of ASCII, without NUL, are valid in every encoding of a database.
 * The last eight bytes are looked at as one word, too, whatever of them was
 * seen before.
 */
static inline bool
is_ascii(const char *p, int length)
{
	const char *end = p + length;
	uint64		word;

	if (length < sizeof(word))
	{
		while (p < end && *p > 0)
			p++;
		return p == end;
	}
	for (; p < end; p += sizeof(word))
	{
		if (p > end - sizeof(word))
			p = end - sizeof(word);
		memcpy(&word, p, sizeof(word));
		/* the sum's bits are set where a byte is not zero */
		if ((word & HIGH_BITS) != 0 || ((word + LOW_BITS) & HIGH_BITS) != HIGH_BITS)
			return false;
	}
	return true;
}

static inline Datum
make_bytes(const WhRawField *field, char **room)
{
	char	   *value;

	if (field->length <= WH_WIRE_SHORT)
	{
		value = *room;
		SET_VARSIZE_SHORT(value, field->length + VARHDRSZ_SHORT);
		memcpy(value + VARHDRSZ_SHORT, field->data, field->length);
		*room += field->length + VARHDRSZ_SHORT;
	}
	else
	{
		value = palloc(field->length + VARHDRSZ);
		SET_VARSIZE(value, field->length + VARHDRSZ);
		memcpy(value + VARHDRSZ, field->data, field->length);
	}
	return PointerGetDatum(value);
}

/* Whether the typmod rounds, cuts or refuses nothing of the number. */
static inline bool
fits_numeric(const WhWireType *type, int first_digit, int weight, int scale)
{
	int			before_point = (weight + 1) * NUMERIC_BASE_DIGITS;

	if (type->scale < 0)
		return true;
	if (scale != type->scale)
		return false;
	before_point -= first_digit < 10 ? 3 : first_digit < 100 ? 2 : first_digit < 1000 ? 1 : 0;
	return before_point <= type->limit;
}

/*
 * Digits behind the point that the scale does not show would have to be cut
 * off; PostgreSQL sends none.
 */
static inline bool
has_hidden_digits(int last_digit, int ndigits, int weight, int scale)
{
	static const int power[NUMERIC_BASE_DIGITS] = {1, 10, 100, 1000};
	int			hidden = (ndigits - weight - 1) * NUMERIC_BASE_DIGITS - scale;

	if (hidden <= 0)
		return false;
	return hidden >= NUMERIC_BASE_DIGITS || last_digit % power[hidden] != 0;
}

/*
 * A number in the short form that nearly all have: finite, of a modest weight
 * and scale, without zeroes at either end.
 */
static inline bool
make_numeric(const WhWireType *type, const WhRawField *field, char **room, Datum *value)
{
	const char *p = field->data;
	char	   *to = *room;
	int			ndigits,
				weight,
				sign,
				scale;
	uint16		header;

	if (field->length < NUMERIC_WIRE_HEADER || field->length > WH_WIRE_SHORT)
		return false;
	ndigits = read_uint16(p);
	weight = (int16) read_uint16(p + 2);
	sign = read_uint16(p + 4);
	scale = read_uint16(p + 6);
	p += NUMERIC_WIRE_HEADER;
	if (field->length != NUMERIC_WIRE_HEADER + ndigits * (int) sizeof(uint16) ||
		weight < NUMERIC_SHORT_WEIGHT_MIN || weight > NUMERIC_SHORT_WEIGHT_MAX ||
		(sign != 0 && sign != NUMERIC_WIRE_NEGATIVE) || scale > NUMERIC_SHORT_SCALE_MAX)
		return false;

	if (ndigits == 0)
	{
		if (weight != 0 || sign != 0 || (type->scale >= 0 && scale != type->scale))
			return false;
	}
	else
	{
		int			first = read_uint16(p);
		int			last = read_uint16(p + (ndigits - 1) * sizeof(uint16));

		if (first == 0 || last == 0 || has_hidden_digits(last, ndigits, weight, scale) ||
			!fits_numeric(type, first, weight, scale))
			return false;
	}

	header = NUMERIC_SHORT_FLAG | (sign != 0 ? NUMERIC_SHORT_NEGATIVE : 0) |
		(scale << NUMERIC_SHORT_SCALE_SHIFT) | (weight & NUMERIC_SHORT_WEIGHT_MASK);
	SET_VARSIZE_SHORT(to, VARHDRSZ_SHORT + sizeof(header) + ndigits * sizeof(uint16));
	*value = PointerGetDatum(to);
	to += VARHDRSZ_SHORT;
	memcpy(to, &header, sizeof(header));
	to += sizeof(header);
	for (int i = 0; i < ndigits; i++)
	{
		uint16		digit = read_uint16(p);

		if (digit >= NUMERIC_BASE)
			return false;
		memcpy(to, &digit, sizeof(digit));
		p += sizeof(digit);
		to += sizeof(digit);
	}
	*room = to;
	return true;
}

/* False leaves *room as it was. */
static inline bool
make_value(const WhWireType *type, const WhRawField *field, char **room, Datum *value)
{
	const char *p = field->data;
	int			length = field->length;

	switch (type->form)
	{
		case WH_WIRE_RECEIVE:
			return false;
		case WH_WIRE_BOOL:
			*value = BoolGetDatum(length == 1 && *p != 0);
			return length == 1;
		case WH_WIRE_INT2:
			if (length != sizeof(int16))
				return false;
			*value = Int16GetDatum((int16) read_uint16(p));
			return true;
		case WH_WIRE_INT4:
			if (length != sizeof(int32))
				return false;
			*value = Int32GetDatum((int32) read_uint32(p));
			return true;
		case WH_WIRE_INT8:
			if (length != sizeof(int64))
				return false;
			*value = Int64GetDatum((int64) read_uint64(p));
			return true;
		case WH_WIRE_FLOAT4:
			{
				uint32		bits;
				float4		number;

				if (length != sizeof(number))
					return false;
				bits = read_uint32(p);
				memcpy(&number, &bits, sizeof(number));
				*value = Float4GetDatum(number);
				return true;
			}
		case WH_WIRE_FLOAT8:
			{
				uint64		bits;
				float8		number;

				if (length != sizeof(number))
					return false;
				bits = read_uint64(p);
				memcpy(&number, &bits, sizeof(number));
				*value = Float8GetDatum(number);
				return true;
			}
		case WH_WIRE_DATE:
			{
				DateADT		date;

				if (length != sizeof(date))
					return false;
				date = (DateADT) read_uint32(p);
				*value = DateADTGetDatum(date);
				return DATE_NOT_FINITE(date) || IS_VALID_DATE(date);
			}
		case WH_WIRE_TIME:
			{
				TimeADT		time;

				if (length != sizeof(time))
					return false;
				time = (TimeADT) read_uint64(p);
				*value = TimeADTGetDatum(time);
				return time >= 0 && time <= USECS_PER_DAY && (type->unit == 1 || time % type->unit == 0);
			}
		case WH_WIRE_TIMESTAMP:
			{
				int64		time;

				if (length != sizeof(time))
					return false;
				time = (int64) read_uint64(p);
				*value = Int64GetDatum(time);
				return IS_VALID_TIMESTAMP(time) && (type->unit == 1 || time % type->unit == 0);
			}
		case WH_WIRE_UUID:
			if (length != UUID_LEN)
				return false;
			memcpy(*room, p, UUID_LEN);
			*value = PointerGetDatum(*room);
			*room += UUID_LEN;
			return true;
		case WH_WIRE_TEXT:
			if (length > type->limit ||
				(!is_ascii(p, length) && !pg_verifymbstr(p, length, true)))
				return false;
			*value = make_bytes(field, room);
			return true;
		case WH_WIRE_BYTES:
			*value = make_bytes(field, room);
			return true;
		case WH_WIRE_NUMERIC:
			return make_numeric(type, field, room, value);
	}
	return false;
}

int
wh_wire_values(const WhWireType *types, const WhRawField *fields, int from, int natts,
			   char **room, Datum *values, bool *isnull)
{
	for (int i = from; i < natts; i++)
	{
		isnull[i] = fields[i].length < 0;
		if (isnull[i])
		{
			if (!types[i].strict)
				return i;
			values[i] = (Datum) 0;
		}
		else if (!make_value(&types[i], &fields[i], room, &values[i]))
			return i;
	}
	return natts;
}
