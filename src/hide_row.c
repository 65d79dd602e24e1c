/*
 * hide_row.c: keeps rows of tenant_connections out of the server's log.
 *
 * When COPY meets a row that it cannot take (a column too many, a tenant that
 * is there already, whatever a trigger says), PostgreSQL adds the whole line to
 * the error's context, and the password in it goes into the log.  The context
 * of such messages is not logged; the client, who sent the row, gets it.
 *
 * Called for every message of every process that is logged.  May not raise,
 * allocate, or touch a catalog; takes no lock.
 */
#include "postgres.h"

#include "utils/elog.h"

#include "hide_row.h"

static emit_log_hook_type previous_emit_log = NULL;

/* The words around the name differ with lc_messages; these two stay. */
static bool
is_of_copied_tenant(const char *context)
{
	return strstr(context, "COPY") != NULL && strstr(context, "tenant_connections") != NULL;
}

static void
hide_row(ErrorData *edata)
{
	if (edata->context != NULL && is_of_copied_tenant(edata->context))
		edata->hide_ctx = true;
	if (previous_emit_log)
		previous_emit_log(edata);
}

void
wh_hide_row_register(void)
{
	previous_emit_log = emit_log_hook;
	emit_log_hook = hide_row;
}
