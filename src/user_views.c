/*
 * user_views.c: what is kept of a relation that is made anew, and the views
 * that users built on those of ours.
 *
 * Columns of a view can only be added at its end; for any other change it is
 * dropped and made again, and so is everything on top of it.  Nothing is ever
 * dropped with CASCADE, and nothing is dropped that could not be made again as
 * it was: triggers, rules, functions, materialized views that depend on a
 * view refuse the change.  Privileges and options are copied as they are in
 * the catalogs, because GRANT could not give back what a third role granted.
 *
 * Called by template_views.c and replace.c.  A user's view is dropped and made
 * as its owner, never as anybody with more rights.  Locks: as readers do, the
 * topmost view first.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "compat.h"
#include "politely.h"
#include "sqlutil.h"
#include "user_views.h"

typedef struct SavedColumn
{
	char	   *name;
	Acl		   *acl;
	char	   *comment;
} SavedColumn;

typedef struct UserView
{
	Oid			relid;
	char	   *definition;
	WhSavedRelation *saved;
} UserView;

/* ---- what is kept of a relation ---- */

static void
read_column(WhSavedRelation *saved, Oid relid, AttrNumber attnum, HeapTuple tuple)
{
	bool		isnull;
	Datum		acl = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attacl, &isnull);
	char	   *comment = GetComment(relid, RelationRelationId, attnum);
	SavedColumn *column;

	if (isnull && comment == NULL)
		return;
	column = palloc0(sizeof(SavedColumn));
	column->name = pstrdup(NameStr(((Form_pg_attribute) GETSTRUCT(tuple))->attname));
	column->acl = isnull ? NULL : DatumGetAclPCopy(acl);
	column->comment = comment;
	saved->columns = lappend(saved->columns, column);
}

static void
read_columns(WhSavedRelation *saved, Oid relid)
{
	for (AttrNumber attnum = 1;; attnum++)
	{
		HeapTuple	tuple = SearchSysCache2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));

		if (!HeapTupleIsValid(tuple))
			return;
		read_column(saved, relid, attnum, tuple);
		ReleaseSysCache(tuple);
	}
}

WhSavedRelation *
wh_saved_read(Oid relid)
{
	WhSavedRelation *saved = palloc0(sizeof(WhSavedRelation));
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class relation;
	Datum		value;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("relation with OID %u was dropped at the same time", relid)));
	relation = (Form_pg_class) GETSTRUCT(tuple);
	saved->schema = get_namespace_name(relation->relnamespace);
	saved->name = pstrdup(NameStr(relation->relname));
	saved->owner = relation->relowner;
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_relacl, &isnull);
	saved->acl = isnull ? NULL : DatumGetAclPCopy(value);
	value = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	saved->has_options = !isnull;
	saved->options = isnull ? (Datum) 0 : datumCopy(value, false, -1);
	ReleaseSysCache(tuple);
	saved->comment = GetComment(relid, RelationRelationId, 0);
	read_columns(saved, relid);
	return saved;
}

/* Notes who is mentioned in privileges, as GRANT does. */
static void
note_members(Oid relid, AttrNumber attnum, Oid owner, Acl *old_acl, Acl *new_acl)
{
	Oid		   *old_members;
	Oid		   *new_members;
	int			nold = aclmembers(old_acl, &old_members);
	int			nnew = aclmembers(new_acl, &new_members);

	updateAclDependencies(RelationRelationId, relid, attnum, owner,
						  nold, old_members, nnew, new_members);
}

static void
apply_to_class(const WhSavedRelation *saved, Oid relid)
{
	Relation	catalog = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple	old_tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	Datum		values[Natts_pg_class] = {0};
	bool		nulls[Natts_pg_class] = {0};
	bool		replaced[Natts_pg_class] = {0};
	HeapTuple	tuple;
	Datum		old_acl;
	bool		isnull;

	if (!HeapTupleIsValid(old_tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);	/* cannot happen */
	old_acl = SysCacheGetAttr(RELOID, old_tuple, Anum_pg_class_relacl, &isnull);
	values[Anum_pg_class_relacl - 1] = PointerGetDatum(saved->acl);
	nulls[Anum_pg_class_relacl - 1] = saved->acl == NULL;
	replaced[Anum_pg_class_relacl - 1] = true;
	values[Anum_pg_class_reloptions - 1] = saved->options;
	nulls[Anum_pg_class_reloptions - 1] = !saved->has_options;
	replaced[Anum_pg_class_reloptions - 1] = true;
	tuple = heap_modify_tuple(old_tuple, RelationGetDescr(catalog), values, nulls, replaced);
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	note_members(relid, 0, ((Form_pg_class) GETSTRUCT(tuple))->relowner,
				 isnull ? NULL : DatumGetAclPCopy(old_acl), saved->acl);
	table_close(catalog, RowExclusiveLock);
	CommandCounterIncrement();
}

static void
apply_to_attribute(const SavedColumn *column, Oid relid, Oid owner, HeapTuple old_tuple)
{
	Relation	catalog = table_open(AttributeRelationId, RowExclusiveLock);
	Datum		values[Natts_pg_attribute] = {0};
	bool		nulls[Natts_pg_attribute] = {0};
	bool		replaced[Natts_pg_attribute] = {0};
	HeapTuple	tuple;
	bool		isnull;
	Datum		old_acl = SysCacheGetAttr(ATTNUM, old_tuple, Anum_pg_attribute_attacl, &isnull);

	values[Anum_pg_attribute_attacl - 1] = PointerGetDatum(column->acl);
	replaced[Anum_pg_attribute_attacl - 1] = true;
	tuple = heap_modify_tuple(old_tuple, RelationGetDescr(catalog), values, nulls, replaced);
	CatalogTupleUpdate(catalog, &tuple->t_self, tuple);
	note_members(relid, ((Form_pg_attribute) GETSTRUCT(tuple))->attnum, owner,
				 isnull ? NULL : DatumGetAclPCopy(old_acl), column->acl);
	table_close(catalog, RowExclusiveLock);
	CommandCounterIncrement();
}

static void
apply_column(const SavedColumn *column, Oid relid, Oid owner)
{
	HeapTuple	tuple = SearchSysCacheCopyAttName(relid, column->name);

	if (!HeapTupleIsValid(tuple))
		return;
	if (column->comment != NULL)
		CreateComments(relid, RelationRelationId,
					   ((Form_pg_attribute) GETSTRUCT(tuple))->attnum, column->comment);
	if (column->acl != NULL)
		apply_to_attribute(column, relid, owner, tuple);
	heap_freetuple(tuple);
}

/* The owner first: privileges name him as their giver. */
static void
apply_owner(const WhSavedRelation *saved, Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class relation = (Form_pg_class) GETSTRUCT(tuple);
	bool		same = relation->relowner == saved->owner;
	char		relkind = relation->relkind;

	ReleaseSysCache(tuple);
	if (!same)
		wh_utility("ALTER %s %s OWNER TO %s",
				   relkind == RELKIND_VIEW ? "VIEW" :
				   relkind == RELKIND_MATVIEW ? "MATERIALIZED VIEW" : "TABLE",
				   quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
											  get_rel_name(relid)),
				   wh_quote(GetUserNameFromId(saved->owner, false)));
}

void
wh_saved_apply(const WhSavedRelation *saved, Oid relid)
{
	ListCell   *cell;

	apply_owner(saved, relid);
	apply_to_class(saved, relid);
	CreateComments(relid, RelationRelationId, 0, saved->comment);
	foreach(cell, saved->columns)
		apply_column(lfirst(cell), relid, saved->owner);
	CommandCounterIncrement();
}

/* ---- users' views ---- */

WH_NORETURN static void
refuse(const char *template_name, const char *object, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("columns of template \"%s\" cannot change because of %s", template_name, object),
			 errdetail("%s", detail),
			 errhint("%s", hint)));
}

/* The views on top of "bases", the topmost first, as a list of OIDs. */
static List *
find_views(Datum bases)
{
	WhArg		args[] = {wh_arg(OIDARRAYOID, bases)};
	List	   *views = NIL;
	uint64		n;

	/* a view can depend on another one's columns and on its row type */
	n = wh_query("WITH RECURSIVE on_top (oid, depth) AS ("
				 "  SELECT b.oid, 0 FROM unnest($1) b (oid)"
				 "  UNION ALL"
				 "  SELECT u.oid, t.depth + 1 FROM on_top t CROSS JOIN LATERAL ("
				 "    SELECT DISTINCT r.ev_class AS oid"
				 "      FROM (SELECT d.classid, d.objid FROM pg_catalog.pg_depend d"
				 "             WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = t.oid"
				 "            UNION ALL"
				 "            SELECT d.classid, d.objid FROM pg_catalog.pg_depend d"
				 "              JOIN pg_catalog.pg_class c ON c.oid = t.oid"
				 "              JOIN pg_catalog.pg_type y ON y.oid = c.reltype"
				 "             WHERE d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
				 "               AND d.refobjid IN (y.oid, y.typarray)) d"
				 "      JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass"
				 "       AND r.oid = d.objid AND r.rulename = '_RETURN' AND r.ev_class <> t.oid"
				 "      JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind = 'v') u"
				 ") CYCLE oid SET is_cycle USING path"
				 " SELECT oid FROM on_top WHERE NOT is_cycle AND oid <> ALL ($1)"
				 " GROUP BY oid ORDER BY max(depth) DESC, oid",
				 lengthof(args), args);
	for (uint64 i = 0; i < n; i++)
		views = lappend_oid(views, wh_get_oid(i, 1));
	return views;
}

static Datum
with_views(Datum bases, List *views)
{
	ArrayType  *array = DatumGetArrayTypePCopy(bases);
	ListCell   *cell;

	foreach(cell, views)
	{
		int			index = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array)) + 1;

		array = array_set(array, 1, &index, ObjectIdGetDatum(lfirst_oid(cell)), false,
						  -1, sizeof(Oid), true, TYPALIGN_INT);
	}
	return PointerGetDatum(array);
}

/*
 * What depends on one of "relations" and is neither a part of it nor one of
 * them nor "our_view", described; or NULL.
 */
static char *
find_obstacle(Datum relations, Oid our_view)
{
	WhArg		args[] = {wh_arg(OIDARRAYOID, relations), WH_OID(our_view)};

	if (wh_query("SELECT CASE WHEN r.rulename = '_RETURN'"
				 "    THEN pg_catalog.pg_describe_object('pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class, 0)"
				 "    ELSE pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) END"
				 "  FROM (SELECT d.* FROM pg_catalog.pg_depend d"
				 "         WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ($1)"
				 "        UNION ALL"
				 "        SELECT d.* FROM pg_catalog.pg_class c"
				 "          JOIN pg_catalog.pg_type y ON y.oid = c.reltype"
				 "          JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass"
				 "           AND d.refobjid IN (y.oid, y.typarray)"
				 "         WHERE c.oid = ANY ($1)) d"
				 "  LEFT JOIN pg_catalog.pg_rewrite r"
				 "    ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid"
				 " WHERE d.deptype <> 'i' AND NOT coalesce(r.rulename = '_RETURN' AND r.ev_class = ANY ($1), false)"
				 "   AND NOT coalesce(r.rulename = '_RETURN' AND r.ev_class = $2, false)"
				 "   AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i"
				 "     WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass"
				 "       AND i.indexrelid = d.objid AND i.indrelid = ANY ($1))"
				 " ORDER BY 1 LIMIT 1",
				 lengthof(args), args) == 0)
		return NULL;
	return wh_get_text(CurrentMemoryContext, 0, 1);
}

char *
wh_user_views_dependent(Oid relid, Oid our_view)
{
	Datum		value = ObjectIdGetDatum(relid);

	return find_obstacle(PointerGetDatum(construct_array(&value, 1, OIDOID, sizeof(Oid), true, TYPALIGN_INT)),
						 our_view);
}

void
wh_user_views_refuse(Datum bases, const char *what)
{
	char	   *obstacle = find_obstacle(bases, InvalidOid);

	if (obstacle != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
				 errmsg("%s because %s depends on it", what, obstacle),
				 errhint("Drop it, or let it read the tenant view instead.")));
}

static UserView *
save_view(Oid relid, Oid invoker, const char *template_name)
{
	UserView   *view = palloc0(sizeof(UserView));
	WhArg		args[] = {WH_OID(relid)};
	char	   *object;

	view->relid = relid;
	view->saved = wh_saved_read(relid);
	object = psprintf("view %s", quote_qualified_identifier(view->saved->schema, view->saved->name));
	if (!has_privs_of_role(invoker, view->saved->owner))
		refuse(template_name, object,
			   psprintf("It has to be made again, and role \"%s\" may not drop it.",
						GetUserNameFromId(invoker, false)),
			   "Change the template as its owner or as a superuser, or drop the view first.");
	if (isOtherTempNamespace(get_rel_namespace(relid)))
		refuse(template_name, object, "It is a temporary view of another session.",
			   "Wait until that session has ended.");
	wh_query("SELECT pg_catalog.pg_get_viewdef($1)", lengthof(args), args);
	view->definition = wh_get_text(CurrentMemoryContext, 0, 1);
	return view;
}

List *
wh_user_views_save(Datum bases, Oid invoker, const char *template_name)
{
	List	   *views = NIL;
	List	   *oids = find_views(bases);
	char	   *obstacle;
	ListCell   *cell;

	foreach(cell, oids)
		wh_politely_lock(lfirst_oid(cell));

	/* again: they may have been changed before they were locked */
	oids = find_views(bases);
	obstacle = find_obstacle(with_views(bases, oids), InvalidOid);
	if (obstacle != NULL)
		refuse(template_name, obstacle,
			   "It depends on a view that has to be made again, and cannot be made again itself.",
			   "Drop it first, and make it again afterwards.");
	foreach(cell, oids)
		views = lappend(views, save_view(lfirst_oid(cell), invoker, template_name));
	return views;
}

static void
run_as(Oid role, const char *statement)
{
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(role, context | SECURITY_LOCAL_USERID_CHANGE);
	wh_utility("%s", statement);
	SetUserIdAndSecContext(user, context);
}

void
wh_user_views_drop(List *views)
{
	ListCell   *cell;

	foreach(cell, views)
	{
		WhSavedRelation *saved = ((UserView *) lfirst(cell))->saved;

		run_as(saved->owner, psprintf("DROP VIEW %s",
									  quote_qualified_identifier(saved->schema, saved->name)));
	}
}

/* Whether the attempt as a whole may be repeated, or was cancelled. */
static bool
is_about_the_attempt(int sqlstate)
{
	return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE || sqlstate == ERRCODE_T_R_DEADLOCK_DETECTED ||
		sqlstate == ERRCODE_QUERY_CANCELED || sqlstate == ERRCODE_ADMIN_SHUTDOWN;
}

static void
make_view(const UserView *view, const char *template_name)
{
	const WhSavedRelation *saved = view->saved;
	char	   *name = quote_qualified_identifier(saved->schema, saved->name);
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		run_as(saved->owner, psprintf("CREATE VIEW %s AS %s", name, view->definition));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (is_about_the_attempt(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		refuse(template_name, psprintf("view %s", name),
			   psprintf("It has to be made again, which fails: %s.", error->message),
			   "Drop or change the view first.");
	}
	PG_END_TRY();
	wh_saved_apply(saved, get_relname_relid(saved->name, get_namespace_oid(saved->schema, false)));
}

void
wh_user_views_make(List *views, const char *template_name)
{
	for (int i = list_length(views) - 1; i >= 0; i--)
		make_view(list_nth(views, i), template_name);
}
