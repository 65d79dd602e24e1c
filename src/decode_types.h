/*
 * decode_types.h: values of the commonest types from the binary wire format,
 * as they lie in a row, without their receive function.
 */
#ifndef WH_DECODE_TYPES_H
#define WH_DECODE_TYPES_H

/* Where a column's value lies in the row at hand; length -1 is null. */
typedef struct WhRawField
{
	const char *data;
	int			length;
} WhRawField;

typedef enum WhWireForm
{
	WH_WIRE_RECEIVE,			/* only the receive function knows it */
	WH_WIRE_BOOL,
	WH_WIRE_INT2,
	WH_WIRE_INT4,
	WH_WIRE_INT8,
	WH_WIRE_FLOAT4,
	WH_WIRE_FLOAT8,
	WH_WIRE_DATE,
	WH_WIRE_TIME,
	WH_WIRE_TIMESTAMP,
	WH_WIRE_UUID,
	WH_WIRE_TEXT,
	WH_WIRE_BYTES,
	WH_WIRE_NUMERIC
} WhWireForm;

/* What is to be known of a column's type before any row. */
typedef struct WhWireType
{
	WhWireForm	form;
	bool		strict;			/* null needs no call either */
	int64		unit;			/* times: microseconds that are kept */
	int			limit;			/* text: bytes that surely fit; numeric: digits before the point */
	int			scale;			/* numeric: digits behind the point, or -1 for any */
} WhWireType;

extern void wh_wire_type(WhWireType *type, Oid oid, int32 typmod, bool strict);

/* The longest value that may have a header of one byte. */
#define WH_WIRE_SHORT 126

/*
 * The values of fields "from" to "natts" - 1; returns the first whose value
 * has to be asked of its receive function, which also raises what is wrong
 * with it, or "natts".  *room is memory for all values of up to WH_WIRE_SHORT
 * bytes, with one byte more for each; longer ones are allocated.
 */
extern int	wh_wire_values(const WhWireType *types, const WhRawField *fields, int from, int natts,
						   char **room, Datum *values, bool *isnull);

#endif
