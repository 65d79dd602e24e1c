/*
 * version.c: the library and the SQL of a database have to be of one version.
 *
 * After new files were installed the server goes on with the library it has
 * loaded until it is restarted, and each database with the SQL it has until
 * ALTER EXTENSION UPDATE.  In between a function may have other columns than
 * its declaration, and a statement of the library name a column that is not
 * there.  So nothing of ours starts then: the launcher waits and says why, a
 * worker claims no job, and functions raise 55000.
 *
 * No invalidation tells of a change of pg_extension, so the look-up, of one row
 * by an index, is made once in a transaction.  The scripts of the extension
 * itself are let through: they are what mends it.  Reads pg_extension and
 * nothing else.  Takes no lock but that of a catalog that is read.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/rel.h"

#include "version.h"
#include "wh_worker.h"

static char *library_version = NULL;	/* the setting */
static bool is_known_good = false;	/* in this transaction */

/* The version of the SQL in this database; NULL if there is none. */
static char *
installed_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(WH_LIBRARY_NAME));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/* By their numbers: 1.10 is newer than 1.9. */
static bool
is_older(const char *version, const char *than)
{
	while (*version != '\0' || *than != '\0')
	{
		char	   *version_end;
		char	   *than_end;
		long		a = strtol(version, &version_end, 10);
		long		b = strtol(than, &than_end, 10);

		if (a != b)
			return a < b;
		if (version_end == version && than_end == than)
			return strcmp(version, than) < 0;
		version = version_end + (*version_end == '.' ? 1 : 0);
		than = than_end + (*than_end == '.' ? 1 : 0);
	}
	return false;
}

static char *
describe(const char *version, const char **hint)
{
	if (hint != NULL)
		*hint = is_older(version, WH_EXTENSION_VERSION) ?
			"Run ALTER EXTENSION wh_worker UPDATE in this database." :
			psprintf("Install version %s of the library if it is not installed, and restart the server.", version);
	return psprintf("extension \"wh_worker\" has version %s in this database, and the library that the server has loaded version %s",
					version, WH_EXTENSION_VERSION);
}

char *
wh_version_problem(const char **hint)
{
	char	   *version = installed_version();

	if (version == NULL)
	{
		if (hint != NULL)
			*hint = "Run CREATE EXTENSION wh_worker there.";
		return pstrdup("extension \"wh_worker\" is not created in this database");
	}
	return strcmp(version, WH_EXTENSION_VERSION) == 0 ? NULL : describe(version, hint);
}

/* Functions of ours that outlive their extension are none of its version. */
void
wh_version_require(void)
{
	char	   *version;
	const char *hint;

	if (is_known_good || creating_extension)
		return;
	version = installed_version();
	if (version != NULL && strcmp(version, WH_EXTENSION_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", describe(version, &hint)),
				 errhint("%s", hint)));
	is_known_good = true;
}

static void
forget(XactEvent event, void *arg)
{
	(void) event;
	(void) arg;
	is_known_good = false;
}

/* It may have been the one in which the extension was updated. */
static void
forget_subtransaction(SubXactEvent event, SubTransactionId my_id, SubTransactionId parent_id, void *arg)
{
	(void) my_id;
	(void) parent_id;
	(void) arg;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		is_known_good = false;
}

void
wh_version_register(void)
{
	DefineCustomStringVariable("wh_worker.library_version",
							   "Version of the library that the server has loaded.",
							   "Each database has a version of the extension as well (extversion in pg_extension); while they differ, nothing of the warehouse runs there.",
							   &library_version, WH_EXTENSION_VERSION, PGC_INTERNAL,
							   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, NULL, NULL, NULL);
	RegisterXactCallback(forget, NULL);
	RegisterSubXactCallback(forget_subtransaction, NULL);
}
