/*
 * remote_ahead.c: the next query is at the tenant before anybody wants its rows.
 *
 * Exists because a small day costs as much waiting for its tenant as building
 * its indexes, and the one can be done while the other is.  When the rows of a
 * day are here, COMMIT, BEGIN and the description of the next query are sent at
 * once; wh_remote_push(), which its caller calls between other work, sends the
 * COPY when they are answered.  Called by fetch_day.c through remote.h.
 *
 * libpq cannot queue a COPY behind other commands; hence two steps.  It reads no
 * further than the answer to the description: what the COPY sends stays in the
 * socket until somebody asks for it, and the tenant waits, so that a long day
 * takes no memory here.
 *
 * Whoever uses the rows answers for their snapshot, which is older than his locks:
 * see refresh.c.  Nothing here raises but wh_remote_copy_asked(), and
 * wh_remote_end_and_ask() what wh_remote_end() would.  Takes no locks.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "clock.h"
#include "remote_private.h"

typedef enum AheadStage
{
	AHEAD_DESCRIBING,			/* answers of the pipeline are still to come */
	AHEAD_COPYING,				/* the COPY was sent */
	AHEAD_USELESS
} AheadStage;

typedef struct WhAhead
{
	MemoryContext context;		/* holds this struct too */
	char	   *query;
	char	   *columns;
	char	   *copy_sql;
	bool		binary;
	TimestampTz asked_at;
	AheadStage	stage;
	int			step;			/* of the pipeline: how many were answered */
	bool		in_step;		/* the NULL that ends it is still to come */
} WhAhead;

/* COMMIT, BEGIN, the settings, the statement, its description. */
static const ExecStatusType answers[] = {
	PGRES_COMMAND_OK, PGRES_COMMAND_OK, PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_COMMAND_OK
};

#define DESCRIPTION (lengthof(answers) - 1)

static WhAhead *
make_ahead(WhRemote *remote, const char *query, TupleDesc columns)
{
	MemoryContext context = AllocSetContextCreate(remote->context, "wh_worker ahead",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	WhAhead    *ahead = palloc0(sizeof(WhAhead));

	ahead->context = context;
	ahead->query = pstrdup(query);
	ahead->columns = wh_remote_text_of_columns(columns);
	ahead->binary = remote->fitting_binary;
	ahead->copy_sql = wh_remote_copy_sql(query, columns, remote->fitting_targets, ahead->binary);
	MemoryContextSwitchTo(old);
	return ahead;
}

static void
forget_ahead(WhRemote *remote)
{
	MemoryContext context = remote->ahead->context;

	remote->ahead = NULL;
	MemoryContextDelete(context);
}

bool
wh_remote_end_and_ask(WhRemote *remote, const char *query, TupleDesc columns)
{
	if (remote->fitting_columns == NULL || remote->fitting_targets == NULL ||
		strcmp(remote->fitting_columns, wh_remote_text_of_columns(columns)) != 0)
	{
		wh_remote_end(remote);
		return false;
	}
	remote->ahead = make_ahead(remote, query, columns);
	remote->ahead->asked_at = wh_clock_now();
	wh_remote_check_sent(remote, PQenterPipelineMode(remote->conn));
	wh_remote_send(remote, "COMMIT", 0, NULL);
	wh_remote_send_opening(remote, query);
	wh_remote_check_sent(remote, PQpipelineSync(remote->conn));
	wh_remote_flush(remote);
	return true;
}

/* ---- the answers ---- */

static void
send_copy(WhRemote *remote)
{
	remote->ahead->stage =
		PQexitPipelineMode(remote->conn) &&
		PQsendQueryParams(remote->conn, remote->ahead->copy_sql, 0, NULL, NULL, NULL, NULL, 0) &&
		PQflush(remote->conn) >= 0 ? AHEAD_COPYING : AHEAD_USELESS;
}

static bool
is_as_expected(const WhRemote *remote, const PGresult *result)
{
	const WhAhead *ahead = remote->ahead;

	if (PQresultStatus(result) != answers[ahead->step])
		return false;
	return ahead->step != DESCRIPTION ||
		strcmp(wh_remote_text_of_result(result), remote->fitting_shape) == 0;
}

/* One more answer; each but the last is followed by a NULL. */
static void
take_answer(WhRemote *remote, const PGresult *result)
{
	WhAhead    *ahead = remote->ahead;

	if (ahead->in_step)
	{
		ahead->in_step = false;
		ahead->step++;
		if (result != NULL)
			ahead->stage = AHEAD_USELESS;
	}
	else if (result == NULL)
		ahead->stage = AHEAD_USELESS;
	else if (ahead->step < lengthof(answers))
	{
		ahead->in_step = true;
		if (!is_as_expected(remote, result))
			ahead->stage = AHEAD_USELESS;
	}
	else if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
		send_copy(remote);
	else
		ahead->stage = AHEAD_USELESS;
}

/* As far as the answers have come, or, if it may wait, to the end. */
static void
take_answers(WhRemote *remote, bool may_wait)
{
	while (remote->ahead->stage == AHEAD_DESCRIBING)
	{
		PGresult   *result;

		if (PQisBusy(remote->conn) && PQstatus(remote->conn) != CONNECTION_BAD)
		{
			if (!may_wait)
				return;
			wh_remote_read_more(remote);
			continue;
		}
		result = PQgetResult(remote->conn);
		take_answer(remote, result);
		PQclear(result);
	}
}

void
wh_remote_push(WhRemote *remote)
{
	if (remote->ahead == NULL || remote->ahead->stage != AHEAD_DESCRIBING)
		return;
	if (!wh_remote_limits_kept(remote) ||
		PQflush(remote->conn) < 0 || !PQconsumeInput(remote->conn))
		remote->ahead->stage = AHEAD_USELESS;
	take_answers(remote, false);
}

/* ---- its use ---- */

bool
wh_remote_is_ahead(const WhRemote *remote)
{
	return remote->ahead != NULL;
}

bool
wh_remote_copy_asked(WhRemote *remote, const char *query, TupleDesc columns,
					 bool *binary, TimestampTz *asked_at)
{
	WhAhead    *ahead = remote->ahead;

	if (ahead == NULL || strcmp(ahead->query, query) != 0 ||
		strcmp(ahead->columns, wh_remote_text_of_columns(columns)) != 0)
		return false;
	take_answers(remote, true);
	if (ahead->stage != AHEAD_COPYING)
		return false;
	wh_remote_flush(remote);
	/* a connection that was lost before our turn is made again, and no error of ours */
	if (PQresultStatus(wh_remote_next_result(remote)) != PGRES_COPY_OUT)
		return false;
	remote->copying = true;
	*binary = ahead->binary;
	*asked_at = ahead->asked_at;
	forget_ahead(remote);
	return true;
}
