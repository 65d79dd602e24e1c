/*
 * orphan.h: files of relations that no relation has any more.
 */
#ifndef WH_ORPHAN_H
#define WH_ORPHAN_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef struct WhOrphan
{
	Oid			tablespace;
	char	   *path;			/* from the data directory on */
	int64		bytes;
	TimestampTz modified_at;
} WhOrphan;

/* Those of this database, palloc'd; in a transaction, and not during recovery. */
extern List *wh_orphans_find(void);

/*
 * By the launcher, outside of a transaction: looks, once a while after its start
 * and then every hour, and logs what there is more of than the last time.
 * Returns after how many ms it wants to be called again.
 */
extern long wh_orphans_look(MemoryContext context);

#endif
