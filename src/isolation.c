/*
 * isolation.c: the filtered public view of a template with tenant_isolation.
 *
 * public.{template}_isolated has the columns of the public view, and of its rows
 * those of the tenants that the current role is a reader of.  It is a view of its
 * own, because a security barrier keeps the conditions of a query, but for
 * leakproof ones, above the filter; the public view keeps its plans.  Each tenant
 * is a branch with a condition of its own that has no column in it, so the tenants
 * of others are not opened, in either layout.
 *
 * Called by publish.c with the public view, and by the trigger of _wh.mv_templates.
 * May not touch a view that we did not make, nor drop one that something of a
 * user's depends on.  Locks: the advisory lock of the public view, then as publish.c.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "budget.h"
#include "grants.h"
#include "isolation.h"
#include "politely.h"
#include "publish.h"
#include "sqlutil.h"
#include "template_views.h"

#define ISOLATED_SUFFIX "_isolated"

char *
wh_isolation_view_name(const char *template_name)
{
	return wh_template_fit_name(psprintf("%s" ISOLATED_SUFFIX, template_name), NAMEDATALEN - 1);
}

Oid
wh_isolation_read_view(WhView *view, const WhTemplate *tmpl)
{
	WhArg		args[] = {WH_TEXT(tmpl->name)};
	Oid			known_oid;

	memset(view, 0, sizeof(WhView));
	view->schema = "public";
	view->name = wh_isolation_view_name(tmpl->name);
	view->template_name = tmpl->name;
	view->columns = tmpl->columns;
	view->is_public = true;
	view->is_isolated = true;
	view->comment = psprintf("Rows of template \"%s\" of the tenants that who reads it is a reader of; made and replaced by wh_worker",
							 tmpl->name);
	wh_query_latest("SELECT isolated_view_oid FROM _wh.mv_templates WHERE template_name = $1",
					lengthof(args), args);
	known_oid = wh_get_oid(0, 1);
	wh_publish_read_tenant_views(view);
	wh_budget_fit_public_view(view);
	view->relid = wh_view_find(view->schema, view->name);
	return known_oid;
}

void
wh_isolation_remember_view(const char *template_name, Oid view_oid)
{
	WhArg		args[] = {
		WH_TEXT(template_name),
		wh_arg_nullable(OIDOID, ObjectIdGetDatum(view_oid), !OidIsValid(view_oid))
	};

	wh_query("UPDATE _wh.mv_templates SET isolated_view_oid = $2"
			 " WHERE template_name = $1 AND isolated_view_oid IS DISTINCT FROM $2", lengthof(args), args);
}

static void
make_view(void *arg)
{
	wh_view_create(arg);
}

/* Who adds or removes a reader holds the advisory lock too. */
static void
make(const char *template_name)
{
	WhTemplate *tmpl = wh_template_read(template_name);
	WhView		view;
	Oid			known_oid;

	if (!tmpl->tenant_isolation)
		return;
	known_oid = wh_isolation_read_view(&view, tmpl);
	wh_view_check_is_ours(&view, known_oid);
	if (!wh_view_is_up_to_date(&view))
	{
		wh_politely(view.relid, make_view, &view);
		wh_isolation_remember_view(template_name, view.relid);
	}
	wh_grants_isolated_view(template_name, view.relid);
}

/*
 * As with the public view, the first look is without the advisory lock; whoever
 * holds it may wait for a view that this transaction has replaced.
 */
void
wh_isolation_publish(const char *template_name)
{
	WhTemplate *tmpl = wh_template_read(template_name);
	WhView		view;
	Oid			known_oid;

	if (!tmpl->tenant_isolation)
		return;
	known_oid = wh_isolation_read_view(&view, tmpl);
	wh_view_check_is_ours(&view, known_oid);
	if (wh_view_is_up_to_date(&view))
		return;
	wh_publish_lock(template_name, NULL);
	if (OidIsValid(view.relid) && !wh_view_is_replaceable(&view))
		wh_template_views_remake(template_name, GetUserId());
	make(template_name);
}

static void
drop_view(void *arg)
{
	WhView	   *view = arg;

	if (wh_view_exists(view))
		wh_utility("DROP VIEW %s", wh_view_name(view));
}

void
wh_isolation_follow(const char *template_name)
{
	WhTemplate *tmpl = wh_template_read(template_name);
	WhView		view;
	Oid			known_oid;

	wh_publish_lock(template_name, NULL);
	if (tmpl->tenant_isolation)
	{
		make(template_name);
		return;
	}
	known_oid = wh_isolation_read_view(&view, tmpl);
	if (OidIsValid(view.relid) && view.relid == known_oid)
		wh_politely(view.relid, drop_view, &view);
	wh_isolation_remember_view(template_name, InvalidOid);
}
