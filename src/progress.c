/*
 * progress.c: a load as a row of pg_stat_progress_copy.
 *
 * Exists because tools that watch a server look there for long loads.  The
 * relation is the day's (of a transient heap nobody knows what it is for), bytes
 * are those that the tenant sent, tuples those that were written; how many there
 * will be nobody knows.  Building an index of a transient heap shows itself in
 * pg_stat_progress_create_index, as CREATE INDEX does of itself.
 *
 * A session shows one command at a time.  What a user's own command shows, as
 * COPY (SELECT _wh.update_mv_by_template(...)) TO STDOUT, is left alone.  An error ends
 * what is shown, also within a subtransaction: PostgreSQL sees to that.
 *
 * Called by load.c and rows.c (rows), fetch_day.c (bytes) and swap.c (indexes).
 * Takes no lock.
 */
#include "postgres.h"

#include "commands/progress.h"
#include "pgstat.h"
#include "utils/backend_status.h"

#include "progress.h"

/* What we show; an error ends it without telling us. */
static Oid	shown_relid = InvalidOid;

static bool
is_free(void)
{
	return MyBEEntry != NULL && MyBEEntry->st_progress_command == PROGRESS_COMMAND_INVALID;
}

static bool
is_ours(void)
{
	return OidIsValid(shown_relid) && MyBEEntry != NULL &&
		MyBEEntry->st_progress_command == PROGRESS_COMMAND_COPY &&
		MyBEEntry->st_progress_command_target == shown_relid;
}

bool
wh_progress_begin(Oid relid)
{
	const int	what[] = {PROGRESS_COPY_COMMAND, PROGRESS_COPY_TYPE};
	const int64 values[] = {PROGRESS_COPY_COMMAND_FROM, PROGRESS_COPY_TYPE_CALLBACK};

	if (!is_free())
		return false;
	shown_relid = relid;
	pgstat_progress_start_command(PROGRESS_COMMAND_COPY, relid);
	pgstat_progress_update_multi_param(lengthof(what), what, values);
	return true;
}

bool
wh_progress_begin_index(Oid relid, Oid index_oid)
{
	const int	what[] = {PROGRESS_CREATEIDX_COMMAND, PROGRESS_CREATEIDX_INDEX_OID};
	const int64 values[] = {PROGRESS_CREATEIDX_COMMAND_CREATE, index_oid};

	if (!is_free())
		return false;
	pgstat_progress_start_command(PROGRESS_COMMAND_CREATE_INDEX, relid);
	pgstat_progress_update_multi_param(lengthof(what), what, values);
	return true;
}

void
wh_progress_end(void)
{
	shown_relid = InvalidOid;
	pgstat_progress_end_command();
}

void
wh_progress_rows(int64 rows)
{
	if (is_ours())
		pgstat_progress_update_param(PROGRESS_COPY_TUPLES_PROCESSED, rows);
}

void
wh_progress_bytes(int64 bytes)
{
	if (is_ours())
		pgstat_progress_update_param(PROGRESS_COPY_BYTES_PROCESSED, bytes);
}
