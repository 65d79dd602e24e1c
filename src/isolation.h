/*
 * isolation.h: the filtered public view of a template with tenant_isolation.
 *
 * As admin_role, with SPI connected by the caller.
 */
#ifndef WH_ISOLATION_H
#define WH_ISOLATION_H

#include "view.h"
#include "template.h"

/* Its name in the schema public. */
extern char *wh_isolation_view_name(const char *template_name);

/* Reads the state of the view; returns the OID we remember for it. */
extern Oid	wh_isolation_read_view(WhView *view, const WhTemplate *tmpl);

extern void wh_isolation_remember_view(const char *template_name, Oid view_oid);

/* Makes the view as it should be, if the template wants one, and grants it. */
extern void wh_isolation_publish(const char *template_name);

/* The template's tenant_isolation changed: makes the view, or drops it. */
extern void wh_isolation_follow(const char *template_name);

#endif
