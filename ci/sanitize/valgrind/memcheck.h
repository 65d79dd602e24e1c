/*
 * PostgreSQL tells Valgrind which part of its memory is whose: a chunk that was
 * freed, the bytes behind one, a page that nobody has pinned. This header takes
 * the place of Valgrind's and tells AddressSanitizer, which alone would only see
 * the large blocks that memory contexts are made of. Only ci/make-sanitized-server
 * compiles a server with it.
 *
 * What Valgrind is told about values that nobody has written yet has no
 * counterpart; pools need none, as they are described chunk by chunk.
 */
#ifndef WH_SANITIZE_MEMCHECK_H
#define WH_SANITIZE_MEMCHECK_H

#include <sanitizer/asan_interface.h>

#define VALGRIND_MAKE_MEM_NOACCESS(addr, size) \
	__asan_poison_memory_region((addr), (size))
#define VALGRIND_MAKE_MEM_UNDEFINED(addr, size) \
	__asan_unpoison_memory_region((addr), (size))
#define VALGRIND_MAKE_MEM_DEFINED(addr, size) \
	__asan_unpoison_memory_region((addr), (size))

#define VALGRIND_MEMPOOL_ALLOC(context, addr, size) \
	__asan_unpoison_memory_region((addr), (size))
/* Its bytes have been made inaccessible by wipe_mem(), or given back by free(). */
#define VALGRIND_MEMPOOL_FREE(context, addr) do {} while (0)
#define VALGRIND_MEMPOOL_CHANGE(context, old, new, size) \
	__asan_unpoison_memory_region((new), (size))
#define VALGRIND_CREATE_MEMPOOL(context, redzones, zeroed) do {} while (0)
#define VALGRIND_DESTROY_MEMPOOL(context) do {} while (0)

#define VALGRIND_CHECK_MEM_IS_DEFINED(addr, size) do {} while (0)

#endif
