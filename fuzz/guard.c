/*
 * guard.c: memory that ends where the accessible memory ends.
 *
 * A page that nobody may touch follows each allocation, which lies as close to
 * it as its alignment allows; the bytes in between and before are checked when
 * it is freed. So a read or write behind the end stops the process where it
 * happens, also in the server's own functions.
 */
#include "postgres.h"

#include <sys/mman.h>

#include "fuzz.h"

#define PAGE 4096
#define FILL 0x5A
#define CHECKED_BEFORE 64

typedef struct Region
{
	struct Region *next;
	char	   *start;			/* of pages that may be touched */
	Size		pages;
	char	   *memory;			/* what was asked for */
	Size		size;
} Region;

static Region *used = NULL;
static Region *unused = NULL;	/* of one page each, most are */

static Region *
new_region(Size pages)
{
	Region	   *region = malloc(sizeof(Region));

	region->pages = pages;
	region->start = mmap(NULL, (pages + 1) * PAGE, PROT_READ | PROT_WRITE,
						 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	wh_fuzz_require(region->start != MAP_FAILED, "there is no memory");
	wh_fuzz_require(mprotect(region->start + pages * PAGE, PAGE, PROT_NONE) == 0, "a page cannot be guarded");
	return region;
}

static Region *
take_region(Size pages)
{
	Region	   *region = unused;

	if (pages > 1 || region == NULL)
		return new_region(pages);
	unused = region->next;
	return region;
}

static char *
end_of(const Region *region)
{
	return region->start + region->pages * PAGE;
}

static void
check_fill(const char *from, const char *to)
{
	for (; from < to; from++)
		wh_fuzz_require(*from == FILL, "something was written beside its memory");
}

void *
wh_fuzz_guarded(Size size)
{
	Region	   *region = take_region((MAXALIGN(size) + CHECKED_BEFORE + PAGE - 1) / PAGE);

	region->size = size;
	region->memory = end_of(region) - MAXALIGN(size);
	memset(region->memory - CHECKED_BEFORE, FILL, CHECKED_BEFORE + MAXALIGN(size));
	region->next = used;
	used = region;
	return region->memory;
}

char *
wh_fuzz_copy(const void *data, size_t size)
{
	char	   *copy = wh_fuzz_guarded(size);

	if (size > 0)
		memcpy(copy, data, size);
	return copy;
}

static void
release(Region *region)
{
	check_fill(region->memory - CHECKED_BEFORE, region->memory);
	check_fill(region->memory + region->size, end_of(region));
	if (region->pages == 1)
	{
		region->next = unused;
		unused = region;
		return;
	}
	munmap(region->start, (region->pages + 1) * PAGE);
	free(region);
}

void
wh_fuzz_free(void *memory)
{
	for (Region **link = &used; *link != NULL; link = &(*link)->next)
	{
		Region	   *region = *link;

		if (region->memory != memory)
			continue;
		*link = region->next;
		release(region);
		return;
	}
	wh_fuzz_require(false, "memory was freed that nobody has");
}

void
wh_fuzz_free_all(void)
{
	while (used != NULL)
	{
		Region	   *region = used;

		used = region->next;
		release(region);
	}
}
