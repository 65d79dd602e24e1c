/*
 * driver.c: libFuzzer inside a server.
 *
 * What is to be fuzzed calls the server's own code: receive functions, the
 * grammar, type look-ups, ereport(). So the targets are not programs with
 * stubs but a library that a standalone backend (postgres --single) loads, and
 * SELECT fuzz('decode', ARRAY['-runs=1000', 'corpus']) never returns: libFuzzer
 * ends the process, with 0 if it found nothing. fuzz/run does all that.
 *
 * Each input is a subtransaction, so that an ERROR leaves nothing behind. What
 * is fuzzed allocates in memory contexts: that these do not grow from input to
 * input is looked at here. guard.c sees what is touched out of place: the
 * address sanitizer would have to be loaded before a packaged server's own libraries.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

#include "fuzz.h"

/* Inputs until all is cached that will be, and how much may grow after them. */
#define WARM_UP 2000
#define ALLOWED_GROWTH (16 * 1024 * 1024)

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fuzz);

extern int	LLVMFuzzerRunDriver(int *argc, char ***argv,
								int (*callback) (const uint8 *data, size_t size));

static WhFuzzTarget target;
static MemoryContext input_context;

void
wh_fuzz_require(bool condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "FUZZ: %s\n", what);
	abort();
}

/* The caches may grow: they hold each type name that was ever looked up. */
static Size
memory_in_use(void)
{
	return MemoryContextMemAllocated(TopMemoryContext, true) -
		MemoryContextMemAllocated(CacheMemoryContext, true);
}

static void
check_growth(void)
{
	static int64 inputs = 0;
	static Size before = 0;

	inputs++;
	if (inputs == WARM_UP)
		before = memory_in_use();
	if (inputs > WARM_UP && inputs % 1000 == 0)
		wh_fuzz_require(memory_in_use() < before + ALLOWED_GROWTH, "memory contexts grow from input to input");
}

static int
run_one(const uint8 *data, size_t size)
{
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(input_context);
	PG_TRY();
	{
		target(data, size);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(input_context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	CurrentResourceOwner = owner;
	MemoryContextSwitchTo(input_context);
	MemoryContextReset(input_context);
	wh_fuzz_free_all();
	check_growth();
	return 0;
}

static WhFuzzTarget
target_of_name(const char *name)
{
	if (strcmp(name, "decode") == 0)
		return wh_fuzz_decode;
	if (strcmp(name, "cron") == 0)
		return wh_fuzz_cron;
	if (strcmp(name, "template") == 0)
		return wh_fuzz_template;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no fuzz target \"%s\"", name)));
	return NULL;
}

Datum
fuzz(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum	   *options;
	int			noptions;
	char	  **argv;
	int			argc = 0;

	target = target_of_name(name);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT,
					  &options, NULL, &noptions);
	argv = palloc0((noptions + 2) * sizeof(char *));
	argv[argc++] = name;
	for (int i = 0; i < noptions; i++)
		argv[argc++] = TextDatumGetCString(options[i]);
	input_context = AllocSetContextCreate(TopMemoryContext, "fuzz input", ALLOCSET_DEFAULT_SIZES);

	/* libFuzzer takes only signals that nobody has taken; it needs this one for -timeout */
	signal(SIGALRM, SIG_DFL);
	LLVMFuzzerRunDriver(&argc, &argv, run_one);
	PG_RETURN_VOID();
}
