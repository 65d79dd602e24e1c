/*
 * decode.h: CopyData messages into rows.  Knows the two COPY formats and no
 * connection: it is handed bytes.  Used by load.c and by fetch_day.
 */
#ifndef WH_DECODE_H
#define WH_DECODE_H

#include "access/tupdesc.h"

typedef struct WhDecoder WhDecoder;

/* Allocated in the current context; rows come in the shape of "columns". */
extern WhDecoder *wh_decoder_create(TupleDesc columns, bool binary);

/* Hands over one message; the bytes must stay valid until it is used up. */
extern void wh_decoder_feed(WhDecoder *decoder, const char *data, int len);

/* Bytes that were fed and wait for the rest of their row. */
extern int	wh_decoder_waiting(const WhDecoder *decoder);

/*
 * The next complete row of what was fed: true and values/isnull (allocated in
 * the current context), or false when more bytes are needed.
 */
extern bool wh_decoder_next(WhDecoder *decoder, Datum *values, bool *isnull);

/* After the last message: raises 08P01 unless the stream is complete. */
extern void wh_decoder_finish(WhDecoder *decoder);

#endif
