/*
 * faults.c: one fault a call, for t/sanitize/faults.pl: what make sanitize is
 * meant to find, it has to find when it is there.
 *
 * Never part of the extension.  What is wrong is chosen while it runs, so that
 * no compiler sees it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/memutils.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(fault);

typedef struct Numbers
{
	char		first;
	int			second;
} Numbers;

static int
behind_a_chunk(int size)
{
	char	   *chunk = palloc0(size);

	chunk[size] = 'x';
	return chunk[0];
}

static int
of_a_freed_chunk(int size)
{
	char	   *chunk = palloc0(size);

	pfree(chunk);
	/* cppcheck-suppress deallocuse */
	return chunk[size - 1];
}

static int
of_a_reset_context(int size)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "faults", ALLOCSET_SMALL_SIZES);
	char	   *chunk = MemoryContextAllocZero(context, size);

	MemoryContextReset(context);
	return chunk[size - 1];
}

static int
misaligned(int offset)
{
	char	   *chunk = palloc0(64);

	return ((Numbers *) (chunk + offset))->second;
}

Datum
fault(PG_FUNCTION_ARGS)
{
	const char *kind = PG_GETARG_CSTRING(0);
	int32		number = PG_GETARG_INT32(1);

	if (strcmp(kind, "chunk") == 0)
		PG_RETURN_INT32(behind_a_chunk(number));
	if (strcmp(kind, "freed") == 0)
		PG_RETURN_INT32(of_a_freed_chunk(number));
	if (strcmp(kind, "reset") == 0)
		PG_RETURN_INT32(of_a_reset_context(number));
	if (strcmp(kind, "alignment") == 0)
		PG_RETURN_INT32(misaligned(number));
	if (strcmp(kind, "overflow") == 0)
		PG_RETURN_INT32(number + PG_INT32_MAX);
	if (strcmp(kind, "shift") == 0)
		PG_RETURN_INT32(1 << number);
	if (strcmp(kind, "assertion") == 0)
		Assert(number == 0);
	PG_RETURN_INT32(0);
}
