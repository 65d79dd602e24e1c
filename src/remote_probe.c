/*
 * remote_probe.c: whether a tenant still has what it had, and patience.
 *
 * Called by refresh.c and check.c, between the begin of a tenant's transaction
 * and its COPY, so that what a probe says belongs to the snapshot of the rows.
 *
 * A result may have any number of rows and columns: rows come one by one, and
 * no more is kept than the start of their text and a digest of all of it.
 *
 * May not know what the result was before.  Every wait is as remote_wait.c's.
 * Takes no lock.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "error.h"
#include "guc.h"
#include "remote_private.h"

/* Longer results are kept as a digest. */
#define KEPT_BYTES 1000

#define HAS_TCP_USER_TIMEOUT 120000
#define HAS_TRANSACTION_TIMEOUT 170000

typedef struct Digest
{
	pg_cryptohash_ctx *hash;
	StringInfoData start;		/* of the text, a little more than KEPT_BYTES at most */
	StringInfoData row;			/* the one at hand */
	int64		rows;
	int64		bytes;
} Digest;

static void
raise_no_digest(const Digest *digest)
{
	ereport(ERROR,
			(errcode(ERRCODE_INTERNAL_ERROR),
			 errmsg("could not compute a SHA-256: %s", pg_cryptohash_error(digest->hash))));
}

static void
digest_begin(Digest *digest)
{
	memset(digest, 0, sizeof(*digest));
	initStringInfo(&digest->start);
	initStringInfo(&digest->row);
	digest->hash = pg_cryptohash_create(PG_SHA256);
	if (digest->hash == NULL || pg_cryptohash_init(digest->hash) < 0)
		raise_no_digest(digest);
}

/* As record_out() does: what differs in any value differs in its text. */
static void
append_field(StringInfo row, const char *value)
{
	if (value[0] != '\0' && strpbrk(value, "(),\"\\ \t\n\r\v\f") == NULL)
	{
		appendStringInfoString(row, value);
		return;
	}
	appendStringInfoChar(row, '"');
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '"' || *p == '\\')
			appendStringInfoChar(row, *p);
		appendStringInfoChar(row, *p);
	}
	appendStringInfoChar(row, '"');
}

static void
digest_add(Digest *digest, const char *data, int length)
{
	if (pg_cryptohash_update(digest->hash, (const uint8 *) data, length) < 0)
		raise_no_digest(digest);
	digest->bytes += length;
	if (digest->start.len <= KEPT_BYTES)
		appendBinaryStringInfo(&digest->start, data, Min(length, KEPT_BYTES + 1));
}

static void
digest_add_row(Digest *digest, const PGresult *result)
{
	StringInfo	row = &digest->row;

	resetStringInfo(row);
	appendStringInfoString(row, digest->rows > 0 ? "\n(" : "(");
	for (int i = 0; i < PQnfields(result); i++)
	{
		if (i > 0)
			appendStringInfoChar(row, ',');
		if (!PQgetisnull(result, 0, i))
			append_field(row, PQgetvalue(result, 0, i));
	}
	appendStringInfoChar(row, ')');
	digest_add(digest, row->data, row->len);
	digest->rows++;
}

static char *
digest_end(Digest *digest)
{
	uint8		sum[PG_SHA256_DIGEST_LENGTH];
	StringInfoData text;

	if (pg_cryptohash_final(digest->hash, sum, sizeof(sum)) < 0)
		raise_no_digest(digest);
	pg_cryptohash_free(digest->hash);
	if (digest->bytes <= KEPT_BYTES &&
		pg_verifymbstr(digest->start.data, digest->start.len, true))
		return digest->start.data;
	initStringInfo(&text);
	appendStringInfoString(&text, "sha256 ");
	for (int i = 0; i < PG_SHA256_DIGEST_LENGTH; i++)
		appendStringInfo(&text, "%02x", sum[i]);
	appendStringInfo(&text, " of " INT64_FORMAT " rows", digest->rows);
	return text.data;
}

static void
raise_endless_probe(WhRemote *remote)
{
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("tenant \"%s\" answers a probe with more than %d kB", remote->name, wh_max_day_size),
			 errhint("A change_probe is to be a few rows; wh_worker.max_day_size sets how much is taken.")));
}

char *
wh_remote_probe(WhRemote *remote, const char *query)
{
	Digest		digest;
	PGresult   *result;

	digest_begin(&digest);
	wh_remote_send(remote, psprintf("SELECT * FROM (%s\n) AS t", query), 0, NULL);
	if (!PQsetSingleRowMode(remote->conn))
		wh_remote_raise_unexpected(remote, "a probe");
	wh_remote_flush(remote);
	while ((result = wh_remote_next_result(remote)) != NULL &&
		   PQresultStatus(result) == PGRES_SINGLE_TUPLE)
	{
		CHECK_FOR_INTERRUPTS();
		digest_add_row(&digest, result);
		if (wh_max_day_size > 0 && digest.bytes > (int64) wh_max_day_size * 1024)
			raise_endless_probe(remote);
	}
	if (result == NULL)
		wh_remote_raise_lost(remote);
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
		wh_remote_raise_result(remote, result, "change_probe of the template");
	if (PQresultStatus(result) != PGRES_TUPLES_OK)
		wh_remote_raise_unexpected(remote, "a probe");
	wh_remote_expect_no_more(remote);
	return digest_end(&digest);
}

void
wh_remote_allow_pauses(WhRemote *remote)
{
	const char *params[1];
	int			version = PQserverVersion(remote->conn);

	params[0] = psprintf("%d", wh_job_timeout);
	/* a receive window that stays closed counts as an unanswered packet */
	if (version >= HAS_TCP_USER_TIMEOUT)
		(void) wh_remote_query_value(remote, "SELECT pg_catalog.set_config('tcp_user_timeout', '0', true)",
									 0, NULL);
	if (version >= HAS_TRANSACTION_TIMEOUT)
		(void) wh_remote_query_value(remote, "SELECT pg_catalog.set_config('transaction_timeout', $1, true)",
									 1, params);
}
