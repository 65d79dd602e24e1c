/*
 * compat.h: every test of PG_VERSION_NUM, so that no other file has one.
 * PostgreSQL 15 to 18.  Header only; include it after the server's headers.
 */
#ifndef WH_COMPAT_H
#define WH_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "wh_worker needs PostgreSQL 15 or newer"
#endif

#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "nodes/makefuncs.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "rewrite/rewriteManip.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/acl.h"
#include "utils/guc_tables.h"
#include "utils/wait_event.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* In front of a function that does not return. */
#if PG_VERSION_NUM >= 180000
#define WH_NORETURN pg_noreturn
#else
#define WH_NORETURN pg_attribute_noreturn()
#endif

/* A WaitEventSet that belongs to the process, not to a resource owner. */
#if PG_VERSION_NUM >= 170000
#define WH_CREATE_WAIT_EVENT_SET(nevents) CreateWaitEventSet(NULL, nevents)
#else
#define WH_CREATE_WAIT_EVENT_SET(nevents) CreateWaitEventSet(TopMemoryContext, nevents)
#endif

/* Whether a role owns a relation, or may act as its owner. */
#if PG_VERSION_NUM >= 160000
#define WH_OWNS_RELATION(relid, roleid) object_ownercheck(RelationRelationId, relid, roleid)
#else
#define WH_OWNS_RELATION(relid, roleid) pg_class_ownercheck(relid, roleid)
#endif

#if PG_VERSION_NUM >= 160000
#define WH_NAMESPACE_ACLCHECK(nspid, roleid, mode) \
	object_aclcheck(NamespaceRelationId, nspid, roleid, mode)
#else
#define WH_NAMESPACE_ACLCHECK(nspid, roleid, mode) pg_namespace_aclcheck(nspid, roleid, mode)
#endif

#if PG_VERSION_NUM >= 160000
#define WH_DATABASE_ACLCHECK(dbid, roleid, mode) \
	object_aclcheck(DatabaseRelationId, dbid, roleid, mode)
#else
#define WH_DATABASE_ACLCHECK(dbid, roleid, mode) pg_database_aclcheck(dbid, roleid, mode)
#endif

#if PG_VERSION_NUM >= 160000
#define WH_OWNS_EXTENSION(extension, roleid) object_ownercheck(ExtensionRelationId, extension, roleid)
#else
#define WH_OWNS_EXTENSION(extension, roleid) pg_extension_ownercheck(extension, roleid)
#endif

/* Whether this process is one of the background workers. */
#if PG_VERSION_NUM >= 170000
#define WH_IN_BACKGROUND_WORKER AmBackgroundWorkerProcess()
#else
#define WH_IN_BACKGROUND_WORKER IsBackgroundWorker
#endif

/* Whether one role may SET ROLE to another by its memberships. */
#if PG_VERSION_NUM >= 160000
#define WH_MAY_SET_ROLE(member, role) member_can_set_role(member, role)
#else
#define WH_MAY_SET_ROLE(member, role) is_member_of_role_nosuper(member, role)
#endif

/* Runs a portal to its end, at top level. */
#if PG_VERSION_NUM >= 180000
#define WH_PORTAL_RUN(portal, dest, qc) PortalRun(portal, FETCH_ALL, true, dest, dest, qc)
#else
#define WH_PORTAL_RUN(portal, dest, qc) PortalRun(portal, FETCH_ALL, true, true, dest, dest, qc)
#endif

/* A setting's own record, to chain its hooks; NULL if there is none. */
static inline struct config_generic *
wh_find_setting(const char *name)
{
#if PG_VERSION_NUM >= 160000
	return find_option(name, false, true, LOG);
#else
	struct config_generic **settings = get_guc_variables();

	for (int i = 0; i < GetNumConfigOptions(); i++)
		if (strcmp(settings[i]->name, name) == 0)
			return settings[i];
	return NULL;
#endif
}

/* The process behind a virtual transaction id; NULL if it is gone. */
#if PG_VERSION_NUM >= 170000
#define WH_PROC_OF_VXID(vxid) ProcNumberGetProc((vxid).procNumber)
#else
#define WH_PROC_OF_VXID(vxid) BackendIdGetProc((vxid).backendId)
#endif

/* The relation cache's notes of which subtransaction made a relation's file. */
#if PG_VERSION_NUM >= 160000
#define WH_RD_NEW_FILE_SUBID rd_newRelfilelocatorSubid
#define WH_RD_FIRST_FILE_SUBID rd_firstRelfilelocatorSubid
#define WH_RELATION_ASSUME_NEW_FILE(rel) RelationAssumeNewRelfilelocator(rel)
#else
#define WH_RD_NEW_FILE_SUBID rd_newRelfilenodeSubid
#define WH_RD_FIRST_FILE_SUBID rd_firstRelfilenodeSubid
#define WH_RELATION_ASSUME_NEW_FILE(rel) RelationAssumeNewRelfilenode(rel)
#endif

/* From 17 on, the relation cache keeps no reference to the other's file. */
#if PG_VERSION_NUM >= 170000
#define WH_CLOSE_SMGR_BY_OID(relid) ((void) (relid))
#else
#define WH_CLOSE_SMGR_BY_OID(relid) RelationCloseSmgrByOid(relid)
#endif

/* Columns of pg_class that only newer versions have. */
#if PG_VERSION_NUM >= 180000
#define WH_COPY_ALL_FROZEN(to, from) ((to)->relallfrozen = (from)->relallfrozen)
#else
#define WH_COPY_ALL_FROZEN(to, from) ((void) 0)
#endif

/* The file of a catalog that is mapped, and has none in pg_class. */
#if PG_VERSION_NUM >= 160000
#define WH_MAPPED_FILE(relid) RelationMapOidToFilenumber(relid, false)
#else
#define WH_MAPPED_FILE(relid) RelationMapOidToFilenode(relid, false)
#endif

/* What a process says of itself, by a number from 1 on. */
#if PG_VERSION_NUM >= 160000
#define WH_LOCAL_BACKEND_STATUS(n) pgstat_get_local_beentry_by_index(n)
#else
#define WH_LOCAL_BACKEND_STATUS(n) pgstat_fetch_stat_local_beentry(n)
#endif

/* relpages, reltuples and relallvisible of a relation without indexes. */
#if PG_VERSION_NUM >= 180000
#define WH_SET_ROW_COUNT(rel, pages, rows, all_visible) \
	vac_update_relstats(rel, pages, rows, all_visible, all_visible, false, \
						InvalidTransactionId, InvalidMultiXactId, NULL, NULL, true)
#else
#define WH_SET_ROW_COUNT(rel, pages, rows, all_visible) \
	vac_update_relstats(rel, pages, rows, all_visible, false, \
						InvalidTransactionId, InvalidMultiXactId, NULL, NULL, true)
#endif

/* A wait event of ours; before 17 those of all extensions are one. */
#if PG_VERSION_NUM >= 170000
#define WH_WAIT_EVENT_NEW(name) WaitEventExtensionNew(name)
#else
#define WH_WAIT_EVENT_NEW(name) ((void) (name), PG_WAIT_EXTENSION)
#endif

#if PG_VERSION_NUM >= 180000
#define WH_PGSTAT_REPORT_ANALYZE(rel, live) \
	pgstat_report_analyze(rel, live, 0, true, GetCurrentTimestamp())
#else
#define WH_PGSTAT_REPORT_ANALYZE(rel, live) pgstat_report_analyze(rel, live, 0, true)
#endif

/*
 * The query of a view as its rule has it: before 16 its range table begins with
 * the view itself, as OLD and NEW.
 */
static inline Query *
wh_rule_query(Relation view, Query *query)
{
#if PG_VERSION_NUM < 160000
	static const char *const names[] = {"new", "old"};

	for (int i = 0; i < 2; i++)
	{
		RangeTblEntry *entry = addRangeTableEntryForRelation(make_parsestate(NULL), view, AccessShareLock,
															 makeAlias(names[i], NIL), false, false)->p_rte;

		entry->requiredPerms = 0;
		query->rtable = lcons(entry, query->rtable);
	}
	OffsetVarNodes((Node *) query, 2, 0);
#endif
	return query;
}

#endif
