/*
 * jitter.c: the random numbers of this process, from a seed that is logged.
 *
 * Retries are spread at random, so that a fleet does not return at once.  A
 * failure that depends on it can be replayed: the generator is ours alone, so
 * that nobody's setseed() or later use changes it, it is seeded once in the
 * life of a process, when it is first used, and that seed is in the server log.
 * Takes no locks.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "jitter.h"

double
wh_jitter(void)
{
	static pg_prng_state state;
	static bool seeded = false;

	if (!seeded)
	{
		uint64		seed;

		if (!pg_strong_random(&seed, sizeof(seed)))
			seed = ((uint64) GetCurrentTimestamp() << 16) ^ (uint64) MyProcPid;
		pg_prng_seed(&state, seed);
		seeded = true;
		ereport(LOG,
				(errmsg("wh_worker process %d draws its jitter from seed %llu",
						MyProcPid, (unsigned long long) seed)));
	}
	return pg_prng_double(&state);
}
