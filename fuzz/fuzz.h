/*
 * fuzz.h: what the fuzz targets and their driver share.
 */
#ifndef WH_FUZZ_H
#define WH_FUZZ_H

/*
 * One input.  What it allocates in the current context goes after it; an ERROR
 * is an answer like any other.
 */
typedef void (*WhFuzzTarget) (const uint8 *data, size_t size);

extern void wh_fuzz_decode(const uint8 *data, size_t size);
extern void wh_fuzz_cron(const uint8 *data, size_t size);
extern void wh_fuzz_template(const uint8 *data, size_t size);

/* Something that may never be was: ends the process, and libFuzzer keeps the input. */
extern void wh_fuzz_require(bool condition, const char *what);

/*
 * Memory behind whose end nothing may be touched, nor before its start: guard.c.
 * Freed by wh_fuzz_free(), or all of it by wh_fuzz_free_all().
 */
extern void *wh_fuzz_guarded(Size size);
extern char *wh_fuzz_copy(const void *data, size_t size);
extern void wh_fuzz_free(void *memory);
extern void wh_fuzz_free_all(void);

#endif
