/*
 * grants.h: who may read what we publish: reader_role and tenant readers.
 *
 * All of it runs as admin_role with SPI connected by the caller.
 */
#ifndef WH_GRANTS_H
#define WH_GRANTS_H

/* USAGE on a schema, SELECT on a relation of ours, for reader_role if it exists. */
extern void wh_grants_schema(const char *schema, Oid schema_oid);
extern void wh_grants_relation(const char *schema, const char *relname);

/*
 * For the tenant readers of a subscription (and reader_role) what they lack on
 * its schema, its tenant view and the relations of its ledger; how many
 * relations that were.  The caller has the advisory lock of the tenant view.
 */
extern int64 wh_grants_follow(const char *template_name, const char *schema, bool reader_role_too);

/* SELECT on the isolated view of a template for the readers of its tenants. */
extern void wh_grants_isolated_view(const char *template_name, Oid view_oid);

/*
 * Takes everything of a tenant away from a role that is none of its readers any
 * more; what it has by another tenant stays.
 */
extern void wh_grants_revoke(const char *tenant_name, Oid role);

#endif
