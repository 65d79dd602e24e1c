/*
 * mallinfo2.c: how much memory has been given away, as AddressSanitizer knows it.
 *
 * AddressSanitizer takes the place of malloc(), but not of mallinfo2(), which
 * would say that there is none; src/remote_limits.c believes it.  Linked into the
 * server by ci/make-sanitized-server.
 */
#include <malloc.h>
#include <stddef.h>

extern size_t __sanitizer_get_current_allocated_bytes(void);

struct mallinfo2
mallinfo2(void)
{
	struct mallinfo2 info = {0};

	info.uordblks = __sanitizer_get_current_allocated_bytes();
	return info;
}
