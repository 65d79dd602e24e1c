/*
 * grants.c: who may read what we publish: reader_role and tenant readers.
 *
 * reader_role, a setting, gets SELECT on every day when it is made and on every
 * view.  A tenant reader is a row of _wh.tenant_readers; default privileges
 * would not do, because two tenants can feed one schema.  Its grants follow with
 * each publication, under the advisory lock that publications hold: who grants
 * holds it too, so that one of the two sees what the other has committed, and no
 * day is forgotten.
 *
 * A role counts by its OID, so that a renamed one is followed, and one that is
 * made later under the name of one that was dropped gets nothing.
 *
 * Called by publish.c, isolation.c, reader_sql.c, refresh.c, combine.c and
 * convert.c.  May not grant on what admin_role does not own.  A GRANT takes no
 * lock on a relation, from 18 on a reader's; it fails when somebody else has just
 * written its row of pg_class, so the functions for several relations are called
 * politely.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"

#include "grants.h"
#include "guc.h"
#include "sqlutil.h"

static Oid
reader_role_oid(void)
{
	if (wh_reader_role == NULL || wh_reader_role[0] == '\0')
		return InvalidOid;
	return get_role_oid(wh_reader_role, true);
}

/* ---- reader_role ---- */

static void
grant_usage(const char *schema, Oid schema_oid, Oid role)
{
	WhArg		args[] = {WH_OID(role), WH_OID(schema_oid)};

	if (!wh_query_bool("SELECT pg_catalog.has_schema_privilege($1, $2, 'USAGE')", lengthof(args), args))
		wh_utility("GRANT USAGE ON SCHEMA %s TO %s", wh_quote(schema),
				   wh_quote(GetUserNameFromId(role, false)));
}

static void
grant_select(const char *qualified_name, Oid relid, Oid role)
{
	WhArg		args[] = {WH_OID(role), WH_OID(relid)};

	if (!wh_query_bool("SELECT pg_catalog.has_table_privilege($1, $2, 'SELECT')", lengthof(args), args))
		wh_utility("GRANT SELECT ON %s TO %s", qualified_name, wh_quote(GetUserNameFromId(role, false)));
}

void
wh_grants_schema(const char *schema, Oid schema_oid)
{
	Oid			reader = reader_role_oid();

	if (OidIsValid(reader))
		grant_usage(schema, schema_oid, reader);
}

void
wh_grants_relation(const char *schema, const char *relname)
{
	Oid			reader = reader_role_oid();

	if (OidIsValid(reader))
		grant_select(quote_qualified_identifier(schema, relname),
					 get_relname_relid(relname, get_namespace_oid(schema, false)), reader);
}

/* ---- tenant readers ---- */

/* A list of the OIDs in column 1 of the last result. */
static List *
oids_of_result(uint64 n)
{
	List	   *oids = NIL;

	for (uint64 i = 0; i < n; i++)
		oids = lappend_oid(oids, wh_get_oid(i, 1));
	return oids;
}

static List *
readers_of(const char *template_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema)};

	return oids_of_result(wh_query_latest(
		"SELECT DISTINCT a.oid FROM _wh.tenant_templates s"
		"  JOIN _wh.tenant_readers r USING (tenant_name)"
		"  JOIN pg_catalog.pg_roles a ON a.oid = r.role_oid"
		" WHERE s.template_name = $1 AND ($2 IS NULL OR s.target_schema = $2) ORDER BY 1",
		lengthof(args), args));
}

/* What the role cannot read yet, as a list of names for GRANT; NULL: nothing. */
static char *
unreadable(const char *template_name, const char *schema, Oid role, int64 *n)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(schema), WH_OID(role)};

	wh_query_latest(
		"SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', s.nspname, c.relname), ', '), pg_catalog.count(*)"
		"  FROM (SELECT relation_oid AS relid, relation FROM _wh.day_loads"
		"         WHERE template_name = $1 AND target_schema = $2 AND relation_oid IS NOT NULL"
		"        UNION"
		"        SELECT view_oid, template_name FROM _wh.tenant_templates"
		"         WHERE template_name = $1 AND target_schema = $2) d"
		"  JOIN pg_catalog.pg_class c ON c.oid = d.relid AND c.relname = d.relation"
		"  JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace AND s.nspname = $2"
		" WHERE NOT pg_catalog.has_table_privilege($3, c.oid, 'SELECT')"
		"   AND pg_catalog.pg_has_role(c.relowner, 'USAGE')",
		lengthof(args), args);
	*n = wh_get_int8(0, 2);
	return wh_get_text(CurrentMemoryContext, 0, 1);
}

int64
wh_grants_follow(const char *template_name, const char *schema, bool reader_role_too)
{
	List	   *roles = readers_of(template_name, schema);
	Oid			schema_oid = get_namespace_oid(schema, true);
	int64		granted = 0;
	ListCell   *cell;

	if (reader_role_too && OidIsValid(reader_role_oid()))
		roles = lappend_oid(roles, reader_role_oid());
	if (!OidIsValid(schema_oid))
		return 0;
	foreach(cell, roles)
	{
		Oid			role = lfirst_oid(cell);
		int64		n;
		char	   *names = unreadable(template_name, schema, role, &n);

		grant_usage(schema, schema_oid, role);
		if (names != NULL)
			wh_utility("GRANT SELECT ON %s TO %s", names, wh_quote(GetUserNameFromId(role, false)));
		granted += n;
	}
	return granted;
}

void
wh_grants_isolated_view(const char *template_name, Oid view_oid)
{
	List	   *roles = readers_of(template_name, NULL);
	Oid			schema_oid = get_rel_namespace(view_oid);
	ListCell   *cell;

	foreach(cell, roles)
	{
		grant_usage(get_namespace_name(schema_oid), schema_oid, lfirst_oid(cell));
		grant_select(wh_relation_name(view_oid), view_oid, lfirst_oid(cell));
	}
}

/* ---- taking away ---- */

/*
 * Of the tenant's schemas whatever the role was granted, days that retention
 * left behind too, but for what belongs to another tenant that it reads.
 */
static void
revoke_relations(const char *tenant_name, Oid role, const char *role_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_OID(role)};

	if (wh_query("SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')"
				 "  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
				 " WHERE (n.nspname = $1"
				 "     OR n.nspname IN (SELECT target_schema FROM _wh.tenant_templates WHERE tenant_name = $1))"
				 "   AND c.relkind IN ('r', 'v', 'm', 'p') AND pg_catalog.pg_has_role(c.relowner, 'USAGE')"
				 "   AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) a WHERE a.grantee = $2)"
				 "   AND NOT EXISTS (SELECT FROM _wh.tenant_readers r"
				 "     JOIN _wh.tenant_templates s USING (tenant_name)"
				 "     LEFT JOIN _wh.day_loads d USING (template_name, target_schema)"
				 "    WHERE r.role_oid = $2 AND s.target_schema = n.nspname AND c.oid IN (s.view_oid, d.relation_oid))",
				 lengthof(args), args) == 1 && !wh_isnull(0, 1))
		wh_utility("REVOKE SELECT ON %s FROM %s", wh_get_text(CurrentMemoryContext, 0, 1), wh_quote(role_name));
}

static void
revoke_schemas(const char *tenant_name, Oid role, const char *role_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_OID(role)};

	if (wh_query("SELECT pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname), ', ')"
				 "  FROM pg_catalog.pg_namespace n"
				 " WHERE (n.nspname = $1"
				 "     OR n.nspname IN (SELECT target_schema FROM _wh.tenant_templates WHERE tenant_name = $1))"
				 "   AND EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) a WHERE a.grantee = $2)"
				 "   AND NOT EXISTS (SELECT FROM _wh.tenant_readers r JOIN _wh.tenant_templates s USING (tenant_name)"
				 "     WHERE r.role_oid = $2 AND s.target_schema = n.nspname)",
				 lengthof(args), args) == 1 && !wh_isnull(0, 1))
		wh_utility("REVOKE USAGE ON SCHEMA %s FROM %s", wh_get_text(CurrentMemoryContext, 0, 1),
				   wh_quote(role_name));
}

static void
revoke_isolated_views(Oid role, const char *role_name)
{
	WhArg		args[] = {WH_OID(role)};

	if (wh_query("SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ')"
				 "  FROM _wh.mv_templates t"
				 "  JOIN pg_catalog.pg_class c ON c.oid = t.isolated_view_oid"
				 "  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
				 " WHERE EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) a WHERE a.grantee = $1)"
				 "   AND NOT EXISTS (SELECT FROM _wh.tenant_readers r JOIN _wh.tenant_templates s USING (tenant_name)"
				 "     WHERE r.role_oid = $1 AND s.template_name = t.template_name)",
				 lengthof(args), args) == 1 && !wh_isnull(0, 1))
		wh_utility("REVOKE SELECT ON %s FROM %s", wh_get_text(CurrentMemoryContext, 0, 1), wh_quote(role_name));
}

void
wh_grants_revoke(const char *tenant_name, Oid role)
{
	char	   *role_name = GetUserNameFromId(role, true);

	if (role_name == NULL)
		return;					/* a role that is gone has nothing */
	revoke_relations(tenant_name, role, role_name);
	revoke_schemas(tenant_name, role, role_name);
	revoke_isolated_views(role, role_name);
}
