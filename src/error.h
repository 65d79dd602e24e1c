/*
 * error.h: turning an ErrorData into a record, and what is worth a retry.
 */
#ifndef WH_ERROR_H
#define WH_ERROR_H

#include "utils/elog.h"

typedef struct WhFailure
{
	char		sqlstate[6];
	char	   *message;		/* message, then detail, on one line */
	bool		transient;		/* worth another try */
	bool		cancelled;		/* a local cancel request, not a timeout */
} WhFailure;

/* SQLSTATE classes that another try may mend: connection, resources, ... */
extern bool wh_sqlstate_is_transient(int sqlerrcode);

/* Copies what a record needs into the current memory context. */
extern WhFailure *wh_failure_from_error(const ErrorData *edata);

/*
 * Set by remote*.c just before they raise what is a tenant's fault, so that the
 * tenant's "query canceled" is not taken for a cancel of our own; cleared by
 * wh_error_reset() before a unit of work starts.
 */
extern void wh_error_mark_remote(void);
extern void wh_error_reset(void);
extern bool wh_error_is_remote(void);	/* was the last error a tenant's? */

#endif
