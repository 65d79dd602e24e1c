/*
 * fetch_day.h: a template's rows of one day, as a tenant sends them now.
 * Used by refresh.c, and by _wh.fetch_day() for everybody else.
 */
#ifndef WH_FETCH_DAY_H
#define WH_FETCH_DAY_H

#include "rate.h"
#include "remote.h"
#include "template.h"

typedef struct WhDayStream WhDayStream;

/* What a day's materialized view is defined as: it names no query and no host. */
extern char *wh_day_definition(const WhTemplate *tmpl, const char *tenant_name, DateADT date);

/*
 * Makes *remote a connection to the tenant that is ready for a day: the given
 * one if it can serve, else a new one.  It is the caller's to close.
 */
extern void wh_day_connect(const WhTemplate *tmpl, const WhTenant *tenant,
						   DateADT date, WhRemote **remote);

/* Starts the transaction at the tenant: whatever is asked from now on is of one snapshot. */
extern WhDayStream *wh_day_open(const WhTemplate *tmpl, DateADT date, WhRemote *remote);

/* Starts the COPY, of which no more is read than "rate" allows; NULL: no limit. */
extern void wh_day_start(WhDayStream *stream, WhRate *rate);

/*
 * Instead of both, if the connection has been asked for this day ahead; NULL if not,
 * or if that came to nothing: then connect.  *asked_at is when its snapshot was
 * asked for, which may be before the caller's locks.
 */
extern WhDayStream *wh_day_resume(const WhTemplate *tmpl, const WhTenant *tenant, DateADT date,
								  WhRemote *remote, TimestampTz *asked_at);

/*
 * Before the first row: when the last one is here, the tenant is asked for this day of
 * the template, which is likely to be next.  Then wh_day_push(), now and then, helps
 * it on; it waits for nothing and raises nothing.
 */
extern void wh_day_ask_next(WhDayStream *stream, const WhTemplate *tmpl, DateADT date);
extern void wh_day_push(void *stream);

/*
 * Closes a connection that has a day asked for ahead, and sets it to NULL; leaves any
 * other alone.  For whoever is going to wait for somebody, or wants something else.
 */
extern void wh_day_drop_ahead(WhRemote **remote);

/* Instead of that, ends the transaction. */
extern void wh_day_leave(WhDayStream *stream);

/*
 * The next row; the argument is a WhDayStream, so that it is a WhRowSource.
 * At the end the tenant's transaction is ended, and 08P01 raised unless the
 * tenant counted as many rows as came.
 */
extern bool wh_day_next(void *stream, Datum *values, bool *isnull);

/*
 * After the last row: 08P01 unless the caller kept as many rows as came;
 * returns the bytes received.
 */
extern int64 wh_day_close(WhDayStream *stream, int64 rows_kept);

#endif
