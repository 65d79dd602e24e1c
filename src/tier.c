/*
 * tier.c: the day, month and year relations of a subscription, told apart.
 *
 * Which of them a relation is its name says: a table with the days of one month
 * may be that of a year in which the tenant joined in December, and one with a
 * single day that of a month.
 *
 * Called by whoever asks the ledger for periods: combine_due.c, retention.c and
 * the view storage_usage.  May not look at the relation itself: views must be
 * cheap, and take no lock on it.  Takes no locks.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"

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
