/*
 * template_code.h: code that a template brings with it: functions in its
 * indexes, types of its columns.  It runs with the rights of admin_role.
 */
#ifndef WH_TEMPLATE_CODE_H
#define WH_TEMPLATE_CODE_H

#include "access/tupdesc.h"
#include "nodes/parsenodes.h"

/* What wh_restricted_end() puts back; an error puts it back by itself. */
typedef struct WhRestricted
{
	Oid			user;
	int			context;
	int			guc_level;
} WhRestricted;

/*
 * Between the two no code may change the role, make a temporary object or leave
 * something for the end of the transaction, no setting outlives it, and names
 * without a schema are those of pg_catalog.
 */
extern void wh_restricted_begin(WhRestricted *restricted);
extern void wh_restricted_begin_as_admin(WhRestricted *restricted);
extern void wh_restricted_end(const WhRestricted *restricted);

/*
 * 42501 for code that belongs to a role that is neither a superuser nor may act
 * as admin_role: whoever owns it can put anything into it.
 */
extern void wh_template_code_check_columns(TupleDesc columns);
extern void wh_template_code_check_index(Oid relid, IndexStmt *index);

/* The same for the indexes and triggers that a relation has. */
extern void wh_template_code_check_relation(Oid relid);

#endif
