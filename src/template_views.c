/*
 * template_views.c: all views of a template after its columns changed.
 *
 * Days stay as they were loaded until they are loaded again; meanwhile the
 * views give them the template's columns: typed NULLs for what they lack,
 * casts for what has another type.  A view whose columns only grew at the end
 * is replaced; any other is dropped and made again with what users had granted
 * and written on it, and the views that users built on it likewise, all in
 * one attempt that leaves nothing behind when it fails.
 *
 * Called by the trigger of _wh.mv_templates in the transaction of who changes
 * a template, and by publish.c when a view has lost its shape.  May not touch a
 * day's content, nor a relation that we did not make.
 *
 * Locks: the advisory locks of tenant views by schema, then of the public view,
 * so that nobody publishes with the columns of before; then, politely and all
 * in one attempt, as readers do: users' views from the top, public view,
 * tenant views by schema.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "isolation.h"
#include "politely.h"
#include "publish.h"
#include "sqlutil.h"
#include "template.h"
#include "template_code.h"
#include "template_views.h"
#include "tree.h"
#include "user_views.h"
#include "view.h"

/* The views of a template that exist and are ours. */
typedef struct TemplateViews
{
	WhTemplate *tmpl;
	Oid			invoker;
	WhView		over_tenants[2];	/* the public view, the isolated view */
	bool		has[2];
	int			ntenants;
	WhView	   *tenants;
} TemplateViews;

/* ---- can days of an older shape be read as the new one? ---- */

typedef struct ReadableCheck
{
	const WhTemplate *tmpl;
	const WhMember *day;
} ReadableCheck;

static void
readable_error_context(void *arg)
{
	const ReadableCheck *check = arg;

	errcontext("days already loaded have to be readable with the new columns of template \"%s\": \"%s.%s\" is not",
			   check->tmpl->name, check->day->schema, check->day->relname);
}

/*
 * The cast of "column" from what the day has, if there are values that might
 * not survive it; else NULL.
 */
static char *
risky_cast(const WhTemplate *tmpl, Form_pg_attribute column, Form_pg_attribute actual)
{
	CoercionPathType path;
	Oid			function;

	if (actual->atttypid == column->atttypid &&
		(column->atttypmod < 0 || actual->atttypmod == column->atttypmod))
		return NULL;
	path = find_coercion_pathway(column->atttypid, actual->atttypid, COERCION_EXPLICIT, &function);
	if (path == COERCION_PATH_NONE)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_COERCE),
				 errmsg("column \"%s\" of template \"%s\" cannot change from %s to %s while days are loaded",
						NameStr(column->attname), tmpl->name,
						format_type_be(actual->atttypid), format_type_be(column->atttypid)),
				 errdetail("There is no cast between these types, so that the days already loaded could not be read."),
				 errhint("Give the new column another name, or drop these days first with _wh.drop_day().")));
	if (column->atttypmod < 0 && get_typtype(column->atttypid) != TYPTYPE_DOMAIN &&
		find_coercion_pathway(column->atttypid, actual->atttypid, COERCION_IMPLICIT, &function) != COERCION_PATH_NONE)
		return NULL;
	return psprintf("pg_catalog.count(%s::%s)", quote_identifier(NameStr(column->attname)),
					format_type_extended(column->atttypid, column->atttypmod,
										 FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
}

static void
check_day_is_readable(const WhTemplate *tmpl, const WhMember *day)
{
	ReadableCheck check = {tmpl, day};
	ErrorContextCallback callback;
	WhRestricted restricted;
	StringInfoData casts;

	initStringInfo(&casts);
	for (int i = 0; i < tmpl->columns->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(tmpl->columns, i);
		HeapTuple	tuple = SearchSysCacheAttName(day->relid, NameStr(column->attname));
		char	   *cast;

		if (!HeapTupleIsValid(tuple))
			continue;
		cast = risky_cast(tmpl, column, (Form_pg_attribute) GETSTRUCT(tuple));
		ReleaseSysCache(tuple);
		if (cast != NULL)
			appendStringInfo(&casts, "%s%s", casts.len > 0 ? ", " : "", cast);
	}
	if (casts.len == 0)
		return;

	callback.callback = readable_error_context;
	callback.arg = &check;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	wh_template_code_check_columns(tmpl->columns);
	wh_restricted_begin(&restricted);
	wh_query_once(psprintf("SELECT %s FROM %s", casts.data,
						   quote_qualified_identifier(day->schema, day->relname)), 0, NULL);
	wh_restricted_end(&restricted);
	error_context_stack = callback.previous;
}

void
wh_template_views_check_day(const WhTemplate *tmpl, const char *schema, Oid relid)
{
	WhMember	day = {.relid = relid, .schema = pstrdup(schema), .relname = get_rel_name(relid)};
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		check_day_is_readable(tmpl, &day);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (geterrcode() != ERRCODE_CANNOT_COERCE &&
			ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("template \"%s\" changed while a day was loaded", tmpl->name),
				 errdetail("The day cannot be read with the new columns: %s.", error->message)));
	}
	PG_END_TRY();
}

/* ---- what there is ---- */

static int
read_schemas(const char *template_name, char ***schemas)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	int			n = (int) wh_query(
		"SELECT s.target_schema FROM _wh.tenant_templates s"
		"  JOIN pg_catalog.pg_namespace n ON n.nspname = s.target_schema"
		" WHERE s.template_name = $1 ORDER BY s.target_schema COLLATE \"C\"",
		lengthof(args), args);

	*schemas = palloc(sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		(*schemas)[i] = wh_get_text(CurrentMemoryContext, i, 1);
	return n;
}

static void
lock_names(const char *template_name, char **schemas, int n)
{
	for (int i = 0; i < n; i++)
		wh_publish_lock(template_name, schemas[i]);
	wh_publish_lock(template_name, NULL);
}

static Oid
read_over_tenants(WhView *view, const WhTemplate *tmpl, int which)
{
	return which == 0 ? wh_publish_read_public_view(view, tmpl) : wh_isolation_read_view(view, tmpl);
}

/* Views that were not made by us are left out, and so not touched. */
static void
read_views(TemplateViews *views, char **schemas, int n)
{
	views->tenants = palloc0(sizeof(WhView) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		WhView	   *view = &views->tenants[views->ntenants];
		Oid			known_oid = wh_publish_read_tenant_view(view, views->tmpl, schemas[i]);

		if (OidIsValid(view->relid) && view->relid == known_oid)
			views->ntenants++;
	}
	for (int i = 0; i < lengthof(views->has); i++)
		views->has[i] = read_over_tenants(&views->over_tenants[i], views->tmpl, i) == views->over_tenants[i].relid &&
			OidIsValid(views->over_tenants[i].relid);
}

static bool
any_column_is_wrong(const TemplateViews *views)
{
	for (int i = 0; i < views->ntenants; i++)
		if (!wh_view_columns_are_right(&views->tenants[i]))
			return true;
	for (int i = 0; i < lengthof(views->has); i++)
		if (views->has[i] && !wh_view_columns_are_right(&views->over_tenants[i]))
			return true;
	return false;
}

/* ---- one attempt ---- */

static bool
is_dropped(const WhView *view)
{
	return OidIsValid(view->relid) && !wh_view_is_replaceable(view);
}

/* The OIDs of ours that are dropped: those over all tenants with any tenant view. */
static Datum
dropped_views(const TemplateViews *views)
{
	Datum	   *oids = palloc(sizeof(Datum) * (views->ntenants + lengthof(views->has)));
	int			n = 0;
	bool		any;

	for (int i = 0; i < views->ntenants; i++)
		if (is_dropped(&views->tenants[i]))
			oids[n++] = ObjectIdGetDatum(views->tenants[i].relid);
	any = n > 0;
	for (int i = 0; i < lengthof(views->has); i++)
		any = any || (views->has[i] && is_dropped(&views->over_tenants[i]));
	for (int i = 0; any && i < lengthof(views->has); i++)
		if (views->has[i])
			oids[n++] = ObjectIdGetDatum(views->over_tenants[i].relid);
	return PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
}

/* They are dropped by name: that has to be theirs still when they are locked. */
static void
lock_view(const WhView *view)
{
	wh_politely_lock(view->relid);
	if (!wh_view_exists(view))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("view \"%s.%s\" was dropped, renamed or moved at the same time",
						view->schema, view->name)));
}

static void
lock_views(const TemplateViews *views)
{
	for (int i = 0; i < lengthof(views->has); i++)
		if (views->has[i])
			lock_view(&views->over_tenants[i]);
	for (int i = 0; i < views->ntenants; i++)
		lock_view(&views->tenants[i]);
}

static WhSavedRelation *
drop_view(WhView *view)
{
	WhSavedRelation *saved = wh_saved_read(view->relid);

	wh_utility("DROP VIEW %s", wh_view_name(view));
	view->relid = InvalidOid;
	return saved;
}

static void
make_view(WhView *view, const WhSavedRelation *saved)
{
	wh_view_create(view);
	if (saved != NULL)
		wh_saved_apply(saved, view->relid);
}

/* The members of a view over all tenants are known by OID, and some are new. */
static void
make_over_tenants(TemplateViews *views, int which, const WhSavedRelation *saved)
{
	WhView	   *view = &views->over_tenants[which];
	Oid			relid = view->relid;

	read_over_tenants(view, views->tmpl, which);
	view->relid = relid;
	make_view(view, saved);
	if (which == 0)
		wh_publish_remember_public_view(views->tmpl->name, view->relid);
	else
		wh_isolation_remember_view(views->tmpl->name, view->relid);
}

static void
remake_all(TemplateViews *views, bool drop_over_tenants)
{
	WhSavedRelation *saved_over[lengthof(views->has)] = {NULL};
	WhSavedRelation **saved = palloc0(sizeof(WhSavedRelation *) * Max(views->ntenants, 1));

	for (int i = 0; i < lengthof(views->has); i++)
		if (views->has[i] && drop_over_tenants)
			saved_over[i] = drop_view(&views->over_tenants[i]);
	for (int i = 0; i < views->ntenants; i++)
		if (is_dropped(&views->tenants[i]))
			saved[i] = drop_view(&views->tenants[i]);
	for (int i = 0; i < views->ntenants; i++)
	{
		make_view(&views->tenants[i], saved[i]);
		wh_publish_remember_tenant_view(&views->tenants[i]);
		wh_publish_mark_in_views(&views->tenants[i]);
	}
	for (int i = 0; i < lengthof(views->has); i++)
		if (views->has[i])
			make_over_tenants(views, i, saved_over[i]);
}

/* Works on a copy: an attempt that fails is made again. */
static void
attempt(void *arg)
{
	TemplateViews views = *(const TemplateViews *) arg;
	Datum		dropped = dropped_views(&views);
	int			ndropped = ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(dropped)),
										  ARR_DIMS(DatumGetArrayTypeP(dropped)));
	List	   *users = NIL;

	views.tenants = memcpy(palloc(sizeof(WhView) * Max(views.ntenants, 1)),
						   views.tenants, sizeof(WhView) * views.ntenants);
	if (ndropped > 0)
		users = wh_user_views_save(dropped, views.invoker, views.tmpl->name);
	lock_views(&views);
	wh_user_views_drop(users);
	remake_all(&views, ndropped > 0);
	wh_user_views_make(users, views.tmpl->name);
}

static void
remake(TemplateViews *views)
{
	if (any_column_is_wrong(views))
		wh_politely(InvalidOid, attempt, views);
}

void
wh_template_views_remake(const char *template_name, Oid invoker)
{
	TemplateViews views = {.invoker = invoker};
	char	  **schemas;
	int			n = read_schemas(template_name, &schemas);

	lock_names(template_name, schemas, n);
	views.tmpl = wh_template_read(template_name);
	read_views(&views, schemas, n);
	remake(&views);
}

/*
 * What others committed before our advisory locks were granted has to be
 * seen, which a snapshot of the whole transaction would not.
 */
static void
check_isolation(const char *template_name)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("template \"%s\" has subscriptions and can only be changed at isolation level READ COMMITTED",
						template_name)));
}

/* Nobody publishes with the layout of before, until this commits. */
void
wh_template_views_new_layout(const char *template_name)
{
	WhView		view;
	char	  **schemas;
	int			n = read_schemas(template_name, &schemas);

	if (n == 0)
		return;
	check_isolation(template_name);
	lock_names(template_name, schemas, n);
	if (OidIsValid(wh_publish_read_public_view(&view, wh_template_read(template_name))) &&
		OidIsValid(view.relid))
		wh_publish_public_view(template_name);
}

static void
follow_in_tree(void *arg)
{
	wh_tree_follow(arg);
}

void
wh_template_views_follow(const char *template_name, Oid invoker)
{
	TemplateViews views = {.invoker = invoker};
	WhRestricted restricted;
	char	  **schemas;
	int			n = read_schemas(template_name, &schemas);

	if (n == 0)
		return;
	check_isolation(template_name);
	lock_names(template_name, schemas, n);
	views.tmpl = wh_template_read(template_name);
	read_views(&views, schemas, n);
	/* the rows of leaves get the values of new columns, which a type may check */
	wh_template_code_check_columns(views.tmpl->columns);
	wh_restricted_begin(&restricted);
	wh_politely(InvalidOid, follow_in_tree, views.tmpl);
	wh_restricted_end(&restricted);
	for (int i = 0; i < views.ntenants; i++)
		for (uint64 day = 0; day < views.tenants[i].nmembers + views.tenants[i].nrefused; day++)
			check_day_is_readable(views.tmpl, &views.tenants[i].members[day]);
	remake(&views);
	for (int i = 0; i < n; i++)
		wh_publish_counters(template_name, schemas[i]);
}
