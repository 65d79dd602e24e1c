/*
 * probe.c: whether a day has changed at its tenant since it was loaded.
 *
 * A template may name a change_probe, a cheap query.  What it gives is kept in
 * the ledger with the content of the same snapshot; a refresh for which it gives
 * the same again need not fetch.  That is so only for content that a load would
 * not change in any other way: of the present version of the template, in the
 * relation and file that we made, of the present layout, and not suspect.
 *
 * Called by refresh.c, which has the lock of the day's name.  May not write to
 * the ledger, and takes no lock.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "combine.h"
#include "late.h"
#include "ledger.h"
#include "load.h"
#include "probe.h"
#include "replace.h"
#include "sqlutil.h"

/*
 * The same answer of another server, or to another role, says nothing.  Each part
 * begins with its length, so that no two of them run into each other.
 */
static char *
md5_of_question(const WhRefresh *refresh)
{
	const WhTenant *tenant = refresh->tenant;
	const char *parts[] = {refresh->tmpl->change_probe, tenant->host, tenant->dbname, tenant->username};
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%d", tenant->port);
	for (int i = 0; i < lengthof(parts); i++)
		appendStringInfo(&text, " %zu %s", strlen(parts[i]), parts[i]);
	return wh_md5(text.data);
}

void
wh_probe_ask(WhRefresh *refresh, WhRemote *remote)
{
	MemoryContext cxt = GetMemoryChunkContext(refresh);
	char	   *result;

	if (refresh->tmpl->change_probe == NULL)
		return;
	result = wh_remote_probe(remote, wh_template_render_probe(refresh->tmpl, refresh->date));
	refresh->probe_result = MemoryContextStrdup(cxt, result);
	refresh->probe_md5 = MemoryContextStrdup(cxt, md5_of_question(refresh));
}

/* A load would make it anew, or put it elsewhere. */
static bool
is_out_of_place(const WhRefresh *refresh, const WhLedgerDay *known)
{
	const WhLateTable *late = refresh->late;

	if (late == NULL)
		return wh_replace_needed(refresh->tmpl, refresh->tmpl->columns, known->relation_oid,
								 known->indexes_md5);
	return late->relid != known->relation_oid ||
		wh_replace_needed(refresh->tmpl, wh_combine_columns(refresh->tmpl), known->relation_oid,
						  known->indexes_md5);
}

static WhLoadedDay *
day_that_is_there(WhRefresh *refresh, const WhLedgerDay *known)
{
	WhLoadedDay *day = MemoryContextAllocZero(GetMemoryChunkContext(refresh), sizeof(WhLoadedDay));

	day->schema = refresh->schema;
	day->relname = refresh->relname;
	day->relid = known->relation_oid;
	day->rows = known->rows;
	return day;
}

/* Its count may look wrong only now that the day is over. */
static bool
looks_wrong(const WhRefresh *refresh, const WhLedgerDay *known)
{
	bool		keep;

	return wh_ledger_suspicion(refresh, known, &keep) != NULL;
}

bool
wh_probe_is_unchanged(WhRefresh *refresh)
{
	WhLedgerDay known;

	if (refresh->probe_result == NULL)
		return false;
	wh_spi_begin();
	if (wh_ledger_read_probed(refresh, &known) && !is_out_of_place(refresh, &known))
	{
		refresh->day = day_that_is_there(refresh, &known);
		refresh->unchanged = !looks_wrong(refresh, &known);
	}
	wh_spi_end();
	return refresh->unchanged;
}
