/*
 * hold.c: what has to stay as it is until a transaction that writes a relation
 * of ours commits.
 *
 * A load, a combine and a conversion read the subscription and the template when
 * they begin, which may be hours before their commit.  Before they put anything
 * in its place they make sure here that it still belongs there.
 *
 * Called by refresh.c, combine.c and convert.c.  Locks: rows of tenant_templates
 * and mv_templates, shared, to the end of the transaction.
 */
#include "postgres.h"

#include "hold.h"
#include "sqlutil.h"

#define OF_SUBSCRIPTION \
"SELECT FROM _wh.tenant_templates" \
" WHERE tenant_name = $1 AND template_name = $2 AND target_schema = $3"

/*
 * It has been deleted, which is for good, or another session has its row: one
 * that is deleting it, or a person's that looks at it FOR UPDATE and leaves it
 * there.  Only the end of that session tells, and we have locks that it may be
 * waiting for.
 */
static void
report_no_subscription(const char *template_name, const char *tenant_name,
					   const char *schema, bool is_there, const char *meanwhile)
{
	if (is_there)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("another session has locked that tenant \"%s\" feeds template \"%s\" into schema \"%s\"",
						tenant_name, template_name, schema),
				 errdetail("It is being removed, or its row is locked, while %s.", meanwhile)));
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("tenant \"%s\" no longer feeds template \"%s\" into schema \"%s\"",
					tenant_name, template_name, schema),
			 errdetail("It was removed while %s.", meanwhile)));
}

void
wh_hold_subscription(const char *template_name, const char *tenant_name,
					 const char *schema, bool lock, const char *meanwhile)
{
	WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(template_name), WH_TEXT(schema)};

	if (wh_query(lock ? OF_SUBSCRIPTION " FOR KEY SHARE SKIP LOCKED" : OF_SUBSCRIPTION,
				 lengthof(args), args) == 0)
		report_no_subscription(template_name, tenant_name, schema,
							   lock && wh_query_latest(OF_SUBSCRIPTION, lengthof(args), args) > 0,
							   meanwhile);
}

bool
wh_hold_template(const WhTemplate *tmpl, const char *meanwhile)
{
	WhArg		args[] = {
		WH_TEXT(tmpl->name), WH_INT4(tmpl->version), WH_BOOL(tmpl->in_tree), WH_TEXT(tmpl->date_column)
	};

	if (wh_query("SELECT version = $2, (layout = 'partitions') <> $3"
				 "   OR ($3 AND date_column IS DISTINCT FROM $4)"
				 "  FROM _wh.mv_templates WHERE template_name = $1 FOR SHARE",
				 lengthof(args), args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("template \"%s\" was deleted while %s", tmpl->name, meanwhile)));
	if (wh_get_bool(0, 2))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the layout or date_column of template \"%s\" changed while %s",
						tmpl->name, meanwhile)));
	return wh_get_bool(0, 1);
}
