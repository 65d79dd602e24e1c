/*
 * row_form.h: values into a row of the heap, faster than heap_form_tuple().
 */
#ifndef WH_ROW_FORM_H
#define WH_ROW_FORM_H

#include "access/htup.h"
#include "access/tupdesc.h"

typedef struct WhRowForm WhRowForm;

/* Allocated in the current context, as long as "columns" are. */
extern WhRowForm *wh_row_form_create(TupleDesc columns);

/*
 * What heap_form_tuple() makes of them, in the current context; to be inserted,
 * not to be used as a composite value.
 */
extern HeapTuple wh_row_form(WhRowForm *form, Datum *values, bool *isnull);

#endif
