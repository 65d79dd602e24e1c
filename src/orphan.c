/*
 * orphan.c: files of relations that no relation has any more.
 *
 * A server that is killed while a relation is made leaves its files behind:
 * nothing in PostgreSQL looks for them afterwards.  Found here: every file of
 * this database, in each tablespace, that is named like one of a relation and
 * whose number pg_class and the map of the catalogs do not know.
 *
 * The race is with whoever makes a relation now: a file is there before its row
 * in pg_class can be seen.  So names are read first, then when the oldest
 * transaction that runs began, then pg_class by a snapshot taken after that.  A
 * file that has not changed since before all running transactions began was made
 * by one that has ended, so that this snapshot has its row if it was committed.
 * Transactions that are prepared have nobody who runs them: their rows are
 * looked for as well, and first, so that those of one that is committed meanwhile
 * are seen by the snapshot.  The first file of a dropped relation stays, empty, until
 * a checkpoint, and if it was empty before, no time tells when it was dropped:
 * empty files, which take no room, are left out.
 *
 * Called by the launcher and from SQL.  Removes nothing.  Takes no lock but
 * that of pg_class and pg_tablespace, which are read.
 */
#include "postgres.h"

#include <ctype.h>
#include <sys/stat.h>

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_tablespace.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/backend_status.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/relmapper.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "orphan.h"

/* A file system's clock may be a few milliseconds late. */
#define CLOCK_MARGIN_US 100000

/* The number of a relation's files, which is unique in a tablespace. */
typedef struct FileKey
{
	Oid			tablespace;
	Oid			number;
} FileKey;

typedef struct FileEntry
{
	FileKey		key;
	bool		is_known;
} FileEntry;

typedef struct Search
{
	HTAB	   *files;			/* numbers; names are not kept, there may be very many */
	TimestampTz oldest;			/* when the oldest transaction that runs began */
	List	   *orphans;
} Search;

typedef void (*FileVisitor) (Search *search, const FileKey *key, const char *path);

static void
skip_digits(const char **s)
{
	while (isdigit((unsigned char) **s))
		(*s)++;
}

/*
 * The number in the name of a file: 16384, 16384_fsm, 16384.1, 16384_init.2, and
 * those of temporary relations, t3_16384.  InvalidOid: it is no relation's.
 */
static Oid
number_in_name(const char *name)
{
	const char *s = name;
	const char *number;

	if (*s == 't' && isdigit((unsigned char) s[1]))
	{
		s++;
		skip_digits(&s);
		if (*s++ != '_')
			return InvalidOid;
	}
	number = s;
	if (!isdigit((unsigned char) *s) || *s == '0')
		return InvalidOid;
	skip_digits(&s);
	if (*s == '_')
	{
		ForkNumber	fork;
		int			length = forkname_chars(s + 1, &fork);

		if (length <= 0)
			return InvalidOid;
		s += 1 + length;
	}
	if (*s == '.' && isdigit((unsigned char) s[1]))
	{
		s++;
		skip_digits(&s);
	}
	return *s == '\0' ? (Oid) strtoul(number, NULL, 10) : InvalidOid;
}

static void
visit_directory(Search *search, FileVisitor visit, Oid tablespace, const char *path)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	/* of most tablespaces this database has none */
	while ((entry = ReadDirExtended(dir, path, DEBUG1)) != NULL)
	{
		FileKey		key = {tablespace, number_in_name(entry->d_name)};
		char		file[MAXPGPATH];

		CHECK_FOR_INTERRUPTS();
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		if (OidIsValid(key.number))
			visit(search, &key, file);
	}
	if (dir != NULL)
		FreeDir(dir);
}

static void
visit_files(Search *search, FileVisitor visit)
{
	Relation	rel = table_open(TableSpaceRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			tablespace = ((Form_pg_tablespace) GETSTRUCT(tuple))->oid;

		if (tablespace != GLOBALTABLESPACE_OID)
			visit_directory(search, visit, tablespace, GetDatabasePath(MyDatabaseId, tablespace));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
note_number(Search *search, const FileKey *key, const char *path)
{
	bool		found;
	FileEntry  *file = hash_search(search->files, key, HASH_ENTER, &found);

	(void) path;
	if (!found)
		file->is_known = false;
}

/* ---- who runs ---- */

/*
 * When the process began what it may still have in hand; DT_NOEND: nothing.
 * One that does not tell what it does may have been at it since its start.
 */
static TimestampTz
began(const PgBackendStatus *status)
{
	bool		tells = status->st_state != STATE_DISABLED &&
		(status->st_state != STATE_UNDEFINED || pgstat_track_activities);

	if (status->st_databaseid != MyDatabaseId)
		return DT_NOEND;
	if (status->st_xact_start_timestamp != 0)
		return status->st_xact_start_timestamp;
	return tells ? DT_NOEND : status->st_proc_start_timestamp;
}

static TimestampTz
oldest_running_transaction(void)
{
	TimestampTz oldest = GetCurrentTransactionStartTimestamp();
	int			n;

	pgstat_clear_backend_activity_snapshot();
	n = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= n; i++)
		oldest = Min(oldest, began(&WH_LOCAL_BACKEND_STATUS(i)->backendStatus));
	pgstat_clear_backend_activity_snapshot();
	return oldest;
}

/* ---- what is known ---- */

static void
mark_known(HTAB *files, const FormData_pg_class *class)
{
	FileKey		key = {
		OidIsValid(class->reltablespace) ? class->reltablespace : MyDatabaseTableSpace,
		class->relfilenode
	};
	FileEntry  *file;

	if (class->relisshared || !RELKIND_HAS_STORAGE(class->relkind))
		return;
	if (!OidIsValid(key.number))
		key.number = WH_MAPPED_FILE(class->oid);
	file = hash_search(files, &key, HASH_FIND, NULL);
	if (file != NULL)
		file->is_known = true;
}

static void
mark_rows(HTAB *files, Relation rel, Snapshot snapshot)
{
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		mark_known(files, (Form_pg_class) GETSTRUCT(tuple));
	}
	table_endscan(scan);
}

/* What is not committed yet, and then all as it is committed. */
static void
mark_all_known(HTAB *files)
{
	Relation	rel = table_open(RelationRelationId, AccessShareLock);
	Snapshot	committed;
	SnapshotData dirty;

	/* The map of the catalogs too; whoever has pg_class open already is not told by opening it. */
	AcceptInvalidationMessages();
	InitDirtySnapshot(dirty);
	mark_rows(files, rel, &dirty);
	committed = RegisterSnapshot(GetLatestSnapshot());
	mark_rows(files, rel, committed);
	UnregisterSnapshot(committed);
	table_close(rel, AccessShareLock);
}

/* ---- all of it ---- */

static TimestampTz
to_timestamp(time_t seconds, long nanoseconds)
{
	return time_t_to_timestamptz(seconds) + nanoseconds / 1000;
}

/* One that is gone by now, is empty, or may be somebody's, is none. */
static void
judge(Search *search, const FileKey *key, const char *path)
{
	FileEntry  *file = hash_search(search->files, key, HASH_FIND, NULL);
	struct stat status;
	WhOrphan   *orphan;

	if (file == NULL || file->is_known || lstat(path, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0)
		return;
	if (to_timestamp(status.st_ctim.tv_sec, status.st_ctim.tv_nsec) + CLOCK_MARGIN_US >= search->oldest)
		return;
	orphan = palloc(sizeof(WhOrphan));
	orphan->tablespace = key->tablespace;
	orphan->path = pstrdup(path);
	orphan->bytes = status.st_size;
	orphan->modified_at = to_timestamp(status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
	search->orphans = lappend(search->orphans, orphan);
}

static bool
all_known(HTAB *files)
{
	HASH_SEQ_STATUS sequence;
	FileEntry  *file;

	hash_seq_init(&sequence, files);
	while ((file = hash_seq_search(&sequence)) != NULL)
		if (!file->is_known)
		{
			hash_seq_term(&sequence);
			return false;
		}
	return true;
}

List *
wh_orphans_find(void)
{
	HASHCTL		ctl = {.keysize = sizeof(FileKey),.entrysize = sizeof(FileEntry),.hcxt = CurrentMemoryContext};
	Search		search = {.orphans = NIL};

	search.files = hash_create("wh_worker files", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	visit_files(&search, note_number);
	search.oldest = oldest_running_transaction();
	mark_all_known(search.files);
	if (!all_known(search.files))
		visit_files(&search, judge);
	hash_destroy(search.files);
	return search.orphans;
}
