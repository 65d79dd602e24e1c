/*
 * row_form.c: values into a row of the heap, faster than heap_form_tuple().
 *
 * Exists because heap_form_tuple() goes over the values twice, to know the
 * size and then to write them, and asks the catalog's description of a column
 * both times.  Here they are written once, where there is room for any
 * ordinary row, by what was found out before the first; the row is then copied
 * to memory of its size.  Called by rows.c for each row.
 *
 * The bytes are those of heap_form_tuple(), which regress/sql/decode.sql
 * compares; it is called for what does not fit and for values out of line.
 * But the fields that an insertion writes are zero; those of a composite
 * value, which share their place, are not made.
 * May not know where the values come from.  Takes no locks.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"

#include "row_form.h"

/* A longer row is toasted or written by itself; what it costs is not this. */
#define ROOM BLCKSZ

typedef enum FormKind
{
	FORM_BYTE,
	FORM_INT16,
	FORM_INT32,
	FORM_INT64,
	FORM_FIXED,					/* by reference, of a known length */
	FORM_VARLENA,
	FORM_OTHER
} FormKind;

typedef struct FormColumn
{
	FormKind	kind;
	int			align;			/* in bytes */
	int			length;
	bool		packable;		/* a header of one byte where it is enough */
} FormColumn;

struct WhRowForm
{
	TupleDesc	columns;
	FormColumn *forms;
	union
	{
		char		bytes[ROOM];
		double		force_align_d;
		int64		force_align_i64;
	}			room;
};

static int
bytes_of_align(char align)
{
	return align == TYPALIGN_CHAR ? 1 : align == TYPALIGN_SHORT ? ALIGNOF_SHORT :
		align == TYPALIGN_INT ? ALIGNOF_INT : ALIGNOF_DOUBLE;
}

static FormKind
kind_of_column(Form_pg_attribute attribute)
{
	if (attribute->attlen == -1)
		return FORM_VARLENA;
	if (attribute->attlen < 0)
		return FORM_OTHER;
	if (!attribute->attbyval)
		return FORM_FIXED;
	switch (attribute->attlen)
	{
		case sizeof(char):
			return FORM_BYTE;
		case sizeof(int16):
			return FORM_INT16;
		case sizeof(int32):
			return FORM_INT32;
		case sizeof(int64):
			return FORM_INT64;
		default:
			return FORM_OTHER;
	}
}

WhRowForm *
wh_row_form_create(TupleDesc columns)
{
	WhRowForm  *form = palloc(sizeof(WhRowForm));

	form->columns = columns;
	form->forms = palloc(columns->natts * sizeof(FormColumn));
	for (int i = 0; i < columns->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(columns, i);

		form->forms[i].kind = kind_of_column(attribute);
		form->forms[i].align = bytes_of_align(attribute->attalign);
		form->forms[i].length = attribute->attlen;
		form->forms[i].packable = attribute->attstorage != TYPSTORAGE_PLAIN;
	}
	return form;
}

/* ---- one value ---- */

/* Up to seven bytes of zero; there are always eight. */
static inline char *
pad(char *to, int align)
{
	const uint64 zero = 0;

	memcpy(to, &zero, sizeof(zero));
	return (char *) TYPEALIGN(align, to);
}

/* Where the value ends, or NULL if heap_form_tuple() has to be asked. */
static inline char *
write_varlena(const FormColumn *column, char *to, const char *end, const char *value)
{
	Size		length;

	if (VARATT_IS_EXTERNAL(value))
		return NULL;
	if (VARATT_IS_SHORT(value))
	{
		length = VARSIZE_SHORT(value);
		if (length > end - to)
			return NULL;
		memcpy(to, value, length);
	}
	else if (column->packable && VARATT_CAN_MAKE_SHORT(value))
	{
		length = VARATT_CONVERTED_SHORT_SIZE(value);
		if (length > end - to)
			return NULL;
		SET_VARSIZE_SHORT(to, length);
		memcpy(to + VARHDRSZ_SHORT, VARDATA(value), length - VARHDRSZ_SHORT);
	}
	else
	{
		to = pad(to, column->align);
		length = VARSIZE(value);
		if (length > end - to)
			return NULL;
		memcpy(to, value, length);
	}
	return to + length;
}

/* As write_varlena(); "end" has eight bytes and those of a number behind it. */
static inline char *
write_value(const FormColumn *column, char *to, const char *end, Datum value)
{
	switch (column->kind)
	{
		case FORM_BYTE:
			to = pad(to, column->align);
			*to = DatumGetChar(value);
			return to + sizeof(char);
		case FORM_INT16:
			to = pad(to, column->align);
			*(int16 *) to = DatumGetInt16(value);
			return to + sizeof(int16);
		case FORM_INT32:
			to = pad(to, column->align);
			*(int32 *) to = DatumGetInt32(value);
			return to + sizeof(int32);
		case FORM_INT64:
			to = pad(to, column->align);
			*(int64 *) to = DatumGetInt64(value);
			return to + sizeof(int64);
		case FORM_FIXED:
			to = pad(to, column->align);
			if (column->length > end - to)
				return NULL;
			memcpy(to, DatumGetPointer(value), column->length);
			return to + column->length;
		case FORM_VARLENA:
			return write_varlena(column, to, end, DatumGetPointer(value));
		case FORM_OTHER:
			break;
	}
	return NULL;
}

/* ---- the row ---- */

/* The values behind the header, which gets its bits; NULL as above. */
static char *
write_values(WhRowForm *form, Datum *values, bool *isnull, HeapTupleHeader header)
{
	char	   *to = (char *) header + header->t_hoff;
	char	   *end = form->room.bytes + ROOM - 2 * sizeof(int64);
	bool		has_nulls = (header->t_infomask & HEAP_HASNULL) != 0;

	/* aligned like the room itself: padding alone does not go past it */
	StaticAssertStmt((ROOM - 2 * sizeof(int64)) % MAXIMUM_ALIGNOF == 0, "the end of the room is not aligned");
	for (int i = 0; i < form->columns->natts; i++)
	{
		const FormColumn *column = &form->forms[i];

		if (isnull[i])
			continue;
		if (has_nulls)
			header->t_bits[i / BITS_PER_BYTE] |= 1 << (i % BITS_PER_BYTE);
		if (column->kind == FORM_VARLENA)
			header->t_infomask |= HEAP_HASVARWIDTH;
		to = write_value(column, to, end, values[i]);
		if (to == NULL || to > end)
			return NULL;
	}
	return to;
}

static void
write_header(WhRowForm *form, bool *isnull, HeapTupleHeader header)
{
	int			natts = form->columns->natts;
	int			length = SizeofHeapTupleHeader;
	bool		has_nulls = memchr(isnull, 1, natts) != NULL;

	if (has_nulls)
		length += BITMAPLEN(natts);
	length = MAXALIGN(length);
	memset(header, 0, length);
	header->t_hoff = length;
	header->t_infomask = has_nulls ? HEAP_HASNULL : 0;
	HeapTupleHeaderSetNatts(header, natts);
}

HeapTuple
wh_row_form(WhRowForm *form, Datum *values, bool *isnull)
{
	HeapTupleHeader header = (HeapTupleHeader) form->room.bytes;
	HeapTuple	row;
	char	   *end;
	int			length;

	write_header(form, isnull, header);
	end = write_values(form, values, isnull, header);
	if (end == NULL)
		return heap_form_tuple(form->columns, values, isnull);

	length = end - form->room.bytes;
	row = palloc(HEAPTUPLESIZE + length);
	row->t_len = length;
	ItemPointerSetInvalid(&row->t_self);
	row->t_tableOid = InvalidOid;
	row->t_data = (HeapTupleHeader) ((char *) row + HEAPTUPLESIZE);
	memcpy(row->t_data, header, length);
	return row;
}
