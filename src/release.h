/*
 * release.h: the warehouse lets go of its data.
 */
#ifndef WH_RELEASE_H
#define WH_RELEASE_H

#include "postgres_ext.h"

/*
 * A materialized view with content becomes a table, as it is: its OID, rows, files,
 * indexes, grants, comments and all that depends on it stay.  The caller owns it
 * and has locked it with ShareUpdateExclusiveLock or more.
 */
extern void wh_release_make_table(Oid relid);

#endif
