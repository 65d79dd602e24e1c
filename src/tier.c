/*
 * tier.c: the day, month and year relations of a subscription, told apart, and
 * where they are stored.
 *
 * Which of them a relation is its name says: a table with the days of one month
 * may be that of a year in which the tenant joined in December, and one with a
 * single day that of a month.
 *
 * Called by whoever asks the ledger for periods (combine_due.c, retention.c, the
 * view storage_usage), by combine.c and by the trigger of templates.  May not
 * look at the relation itself: views must be cheap, and take no lock on it.
 */
#include "postgres.h"

#include "catalog/pg_tablespace_d.h"
#include "commands/tablespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"

#include "guc.h"
#include "sqlutil.h"
#include "template.h"
#include "tier.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_relation_tier);

WhTier
wh_tier_of(const char *template_name, const char *relname, DateADT date)
{
	int			year;
	int			month;
	int			day;

	if (strcmp(relname, wh_template_day_name(template_name, date)) == 0)
		return WH_TIER_DAY;		/* as most are */
	j2date(date + POSTGRES_EPOCH_JDATE, &year, &month, &day);
	if (strcmp(relname, wh_template_period_name(template_name, year, month)) == 0)
		return WH_TIER_MONTH;
	if (strcmp(relname, wh_template_period_name(template_name, year, 0)) == 0)
		return WH_TIER_YEAR;
	return WH_TIER_DAY;
}

Datum
wh_sql_relation_tier(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"day", "month", "year"};
	char	   *template_name;
	char	   *relname;

	wh_require_preloaded();
	template_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	relname = text_to_cstring(PG_GETARG_TEXT_PP(1));
	PG_RETURN_TEXT_P(cstring_to_text(names[wh_tier_of(template_name, relname, PG_GETARG_DATEADT(2))]));
}

/* ---- tablespaces ---- */

static void
report_no_tablespace(int level, const char *template_name, const char *column, const char *tablespace)
{
	ereport(level,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("tablespace \"%s\" does not exist", tablespace),
			 errdetail("It is the %s of template \"%s\".", column, template_name),
			 errhint("Create it with CREATE TABLESPACE, or give the template another one.")));
}

char *
wh_tier_tablespace(const char *template_name, WhTier tier)
{
	MemoryContext cxt = CurrentMemoryContext;
	const char *column = tier == WH_TIER_YEAR ? "year_tablespace" : "month_tablespace";
	WhArg		args[] = {WH_TEXT(template_name), WH_BOOL(tier == WH_TIER_YEAR)};
	char	   *tablespace = NULL;

	if (tier == WH_TIER_DAY)
		return NULL;
	wh_spi_begin();
	if (wh_query("SELECT CASE WHEN $2 THEN year_tablespace ELSE month_tablespace END"
				 " FROM _wh.mv_templates WHERE template_name = $1", lengthof(args), args) == 1)
		tablespace = wh_get_text(cxt, 0, 1);
	wh_spi_end();
	if (tablespace != NULL && !OidIsValid(get_tablespace_oid(tablespace, true)))
		report_no_tablespace(ERROR, template_name, column, tablespace);
	return tablespace;
}

/* In that of the database everybody may create, as with CREATE TABLE. */
static bool
admin_may_create_in(Oid tablespace)
{
	WhArg		args[] = {WH_TEXT(wh_admin_role), WH_OID(tablespace)};

	if (tablespace == MyDatabaseTableSpace)
		return true;
	wh_query("SELECT pg_catalog.has_tablespace_privilege($1::pg_catalog.name, $2, 'CREATE')",
			 lengthof(args), args);
	return wh_get_bool(0, 1);
}

void
wh_tier_check_tablespace(const char *template_name, const char *column, const char *tablespace)
{
	/* what pg_restore switches off for checks that it comes too early for */
	int			level = check_function_bodies ? ERROR : WARNING;
	Oid			oid = get_tablespace_oid(tablespace, true);

	if (!OidIsValid(oid))
		report_no_tablespace(level, template_name, column, tablespace);
	else if (oid == GLOBALTABLESPACE_OID)
		ereport(level,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of template \"%s\" cannot be \"%s\"", column, template_name, tablespace),
				 errdetail("That tablespace holds what all databases share.")));
	else if (!admin_may_create_in(oid))
		ereport(level,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not create tables in tablespace \"%s\"", wh_admin_role, tablespace),
				 errhint("GRANT CREATE ON TABLESPACE %s TO %s;", wh_quote(tablespace), wh_quote(wh_admin_role))));
}
