/*
 * caches.h: what a worker knows of the catalogs, and how much that may become.
 */
#ifndef WH_CACHES_H
#define WH_CACHES_H

/*
 * A job has ended: now and then what is known is forgotten.  Outside of a
 * transaction; the memory context is "context" afterwards.
 */
extern void wh_caches_after_job(MemoryContext context);

#endif
