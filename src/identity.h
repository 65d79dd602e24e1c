/*
 * identity.h: whether this is the database that the warehouse was made in, or
 * a copy that nobody has confirmed yet.
 */
#ifndef WH_IDENTITY_H
#define WH_IDENTITY_H

#include "postgres.h"

typedef enum WhPause
{
	WH_RUNS,
	WH_PAUSED,					/* by pause() */
	WH_UNCONFIRMED,				/* a copy: two must not ask the tenants */
} WhPause;

/* The cluster's system identifier and the database's OID, as _wh.warehouse keeps them. */
extern char *wh_identity_here(void);

/* Whether jobs may start.  SPI is connected by the caller. */
extern WhPause wh_identity_pause(void);

/* For a WhPause other than WH_RUNS: what is wrong, and what to call. */
extern const char *wh_identity_reason(WhPause pause);
extern const char *wh_identity_hint(WhPause pause);

#endif
