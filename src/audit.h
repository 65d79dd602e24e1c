/*
 * audit.h: _wh.audit_log, the record of who changed and asked for what.
 */
#ifndef WH_AUDIT_H
#define WH_AUDIT_H

#include "fmgr.h"

typedef struct WhAudit
{
	const char *event;			/* as the column event of the log */
	const char *object;			/* the table or function */
	const char *tenant_name;	/* these three may be NULL */
	const char *template_name;
	const char *target_schema;
	const char *outcome;		/* of a connection, else NULL */
	const char *details;		/* a JSON object without secrets, or NULL */
} WhAudit;

/* Writes a row in the transaction at hand, whose rollback takes it back. */
extern void wh_audit_write(const WhAudit *audit);

/*
 * The call of the SQL function itself, with its arguments; those named password
 * are only said to be given.
 */
extern void wh_audit_call(FunctionCallInfo fcinfo);

/*
 * A row of its own for an attempt to connect to a tenant.  It is kept until a
 * transaction of this process commits, whatever becomes of the one at hand.
 */
extern void wh_audit_connection(const WhAudit *audit);

/*
 * Writes these rows now, not in a subtransaction: for whoever is going to hold
 * locks that readers feel at his commit, when there should be nothing to wait for.
 */
extern void wh_audit_flush(void);

/* To be called once, when the library is loaded. */
extern void wh_audit_register(void);

/* Deletes what is too old; true when there may be more.  Needs a transaction. */
extern bool wh_audit_prune(void);

#endif
