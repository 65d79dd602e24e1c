/*
 * sqlutil.h: SPI with expected results, quoting, cached plans.
 *
 * Everything here runs as the current user.  Callers connect SPI themselves
 * by wh_spi_begin() / wh_spi_end(); getters copy into the context they are
 * given, because SPI's own memory goes away at wh_spi_end().
 */
#ifndef WH_SQLUTIL_H
#define WH_SQLUTIL_H

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

typedef struct WhArg
{
	Oid			type;
	Datum		value;
	bool		isnull;
} WhArg;

static inline WhArg
wh_arg_text(const char *s)
{
	WhArg		a = {TEXTOID, s ? CStringGetTextDatum(s) : (Datum) 0, s == NULL};

	return a;
}

static inline WhArg
wh_arg(Oid type, Datum value)
{
	WhArg		a = {type, value, false};

	return a;
}

static inline WhArg
wh_arg_null(Oid type)
{
	WhArg		a = {type, (Datum) 0, true};

	return a;
}

/* For arguments of a SQL function, which may be NULL. */
static inline WhArg
wh_arg_nullable(Oid type, Datum value, bool isnull)
{
	WhArg		a = {type, isnull ? (Datum) 0 : value, isnull};

	return a;
}

#define WH_TEXT(s) wh_arg_text(s)
#define WH_DATE(d) wh_arg(DATEOID, DateADTGetDatum(d))
#define WH_INT4(i) wh_arg(INT4OID, Int32GetDatum(i))
#define WH_INT8(i) wh_arg(INT8OID, Int64GetDatum(i))
#define WH_BOOL(b) wh_arg(BOOLOID, BoolGetDatum(b))
#define WH_OID(o) wh_arg(OIDOID, ObjectIdGetDatum(o))
#define WH_TSTZ(t) wh_arg(TIMESTAMPTZOID, TimestampTzGetDatum(t))

/*
 * A transaction of a background worker, with a snapshot.  The commit leaves the
 * given memory context as the current one.
 */
extern void wh_begin_transaction(void);
extern void wh_commit_transaction(MemoryContext context);

/* A background worker has no snapshot unless somebody pushes one; true if it did. */
extern bool wh_push_missing_snapshot(void);

extern void wh_spi_begin(void);
extern void wh_spi_end(void);

/*
 * Runs one statement; its plan is kept for the life of the process, keyed by
 * the pointer "sql", which must be a string literal.  Returns SPI_processed;
 * rows are in SPI_tuptable.  A fresh snapshot is taken each time.
 */
extern uint64 wh_query(const char *sql, int nargs, const WhArg *args);

/* The same, read-only, of what is committed now in any isolation level. */
extern uint64 wh_query_latest(const char *sql, int nargs, const WhArg *args);

/*
 * The same, read-only, of what the calling statement sees: for functions that
 * are STABLE, and have to read several tables as they were at one time.
 */
extern uint64 wh_query_as_caller(const char *sql, int nargs, const WhArg *args);

/* The boolean that wh_query() gives in one row; false if it gives none. */
extern bool wh_query_bool(const char *sql, int nargs, const WhArg *args);

/* wh_query() without keeping the plan, for generated text. */
extern uint64 wh_query_once(const char *sql, int nargs, const WhArg *args);

/* Runs a generated utility statement (DDL). */
extern void wh_utility(const char *fmt,...) pg_attribute_printf(1, 2);

/*
 * Column "col" (from 1) of row "row" (from 0) of the last result.  The other
 * types must fit exactly; text is the output form of whatever type it is.
 */
extern bool wh_isnull(uint64 row, int col);
extern char *wh_get_text(MemoryContext cxt, uint64 row, int col);	/* NULL if null */
extern int64 wh_get_int8(uint64 row, int col);	/* 0 if null; int2, int4, int8 */
extern int32 wh_get_int4(uint64 row, int col);	/* 0 if null; int2, int4 */
extern bool wh_get_bool(uint64 row, int col);	/* false if null */
extern Oid	wh_get_oid(uint64 row, int col);	/* InvalidOid if null */
extern DateADT wh_get_date(uint64 row, int col);	/* 0 if null */
extern TimestampTz wh_get_timestamptz(uint64 row, int col); /* 0 if null */

/*
 * Formats a date as YYYY-MM-DD, whatever DateStyle says; palloc'd.  22008 for
 * infinity and for years that have not four digits.
 */
extern char *wh_date_text(DateADT date);

/* The quoted, qualified name of a relation that is there. */
extern char *wh_relation_name(Oid relid);

/* An oid[] of "n" values, for arguments. */
extern Datum wh_oid_array(Datum *oids, int n);

/* The md5 of a text as PostgreSQL's md5() gives it. */
extern char *wh_md5(const char *text);

/* quote_identifier, but always a fresh palloc'd copy that is safe to keep. */
extern char *wh_quote(const char *identifier);

#endif
