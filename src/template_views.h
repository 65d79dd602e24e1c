/*
 * template_views.h: all views of a template after its columns changed.
 */
#ifndef WH_TEMPLATE_VIEWS_H
#define WH_TEMPLATE_VIEWS_H

#include "postgres.h"

#include "template.h"

/*
 * Makes tenant views and public view have the columns of the template, and
 * what users built on them again; "invoker" is who may be held responsible for
 * dropping these.  2BP01 if something on top is in the way.  The current user
 * is admin_role; SPI is connected.
 */
extern void wh_template_views_remake(const char *template_name, Oid invoker);

/*
 * 40001 if a day that was loaded for an older version of the template cannot be
 * read with the columns of this one.
 */
extern void wh_template_views_check_day(const WhTemplate *tmpl, const char *schema, Oid relid);

/*
 * For who has just changed the layout: what is loaded from now on may be outside
 * of the tree, which the public view can read as its root only until then.
 */
extern void wh_template_views_new_layout(const char *template_name);

/* wh_template_views_remake() for who has just changed the template: casts checked, days counted. */
extern void wh_template_views_follow(const char *template_name, Oid invoker);

#endif
