/*
 * schedule_subscription.c: the schedules that a subscription has by itself.
 *
 * A refresh when its template says so; every night the months that are over
 * into tables, and once a year the years; and one for the template, if it shall
 * not keep everything.  Where one is there already, active or not, it is left as
 * a person wants it.
 *
 * Called by subscribe.c and, as setup_cron(), from SQL, in the user's
 * transaction.  When a schedule runs is not decided here (schedule_check.c).
 *
 * Locks: rows of _wh.schedules.
 */
#include "postgres.h"

#include "caller.h"
#include "fmgr.h"
#include "utils/builtins.h"

#include "audit.h"
#include "schedule.h"
#include "schedule_check.h"
#include "sqlutil.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_setup_cron);

/* What a subscription has one of each of. */
typedef struct Kind
{
	const char *kind;
	const char *words;			/* that its name starts with */
	const char *schedule;		/* in UTC, as days are; NULL: the template's, in its zone */
} Kind;

static const Kind kinds[] = {
	{"refresh", "refresh", NULL},
	{"combine_month", "combine month", "H 3 * * *"},
	{"combine_year", "combine year", "0 2 15 2 *"},
};

/* 0 when the name is taken. */
static uint64
insert_schedule(const Kind *kind, const char *name, const char *template_name,
				const char *tenant_name, const char *schema)
{
	WhArg		args[] = {
		WH_TEXT(name), WH_TEXT(template_name), WH_TEXT(tenant_name), WH_TEXT(schema),
		WH_TEXT(kind->kind), WH_TEXT(kind->schedule)
	};

	return wh_schedule_write("INSERT INTO _wh.schedules (name, schedule, timezone, kind, template_name,"
							 "  tenant_name, target_schema)"
							 " SELECT $1, coalesce($6, t.schedule), CASE WHEN $6::text IS NOT NULL THEN 'UTC' END,"
							 "  $5, $2, $3, $4"
							 "  FROM _wh.mv_templates t WHERE t.template_name = $2"
							 " ON CONFLICT (name) DO NOTHING", lengthof(args), args);
}

/* False if there was one. */
static bool
schedule_kind(const Kind *kind, const char *template_name, const char *tenant_name,
			  const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(tenant_name), WH_TEXT(schema), WH_TEXT(kind->kind)};
	char	   *name = psprintf("%s %s %s", kind->words, template_name, tenant_name);
	char	   *unique_name;

	if (wh_query("SELECT FROM _wh.schedules WHERE kind = $4 AND template_name = $1"
				 " AND tenant_name = $2 AND target_schema = $3", lengthof(args), args) > 0)
		return false;
	if (strcmp(schema, tenant_name) != 0)
		name = psprintf("%s %s", name, schema);
	unique_name = name;
	/* Somebody's own schedule may have it. */
	for (int i = 2; insert_schedule(kind, unique_name, template_name, tenant_name, schema) == 0; i++)
		unique_name = psprintf("%s (%d)", name, i);
	wh_notify_config_on_commit();
	return true;
}

static bool
wants_retention(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};

	return wh_query("SELECT FROM _wh.mv_templates t WHERE t.template_name = $1"
					" AND (t.keep_days IS NOT NULL OR t.keep_years IS NOT NULL)"
					" AND NOT EXISTS (SELECT FROM _wh.schedules s WHERE s.kind = 'retention'"
					"  AND s.template_name = $1)", lengthof(args), args) > 0;
}

/* 0 when the name is taken. */
static uint64
insert_retention(const char *name, const char *template_name)
{
	WhArg		args[] = {WH_TEXT(name), WH_TEXT(template_name)};

	return wh_schedule_write("INSERT INTO _wh.schedules (name, schedule, timezone, kind, template_name)"
							 " VALUES ($1, 'H 4 * * *', 'UTC', 'retention', $2)"
							 " ON CONFLICT (name) DO NOTHING", lengthof(args), args);
}

/* One for all subscriptions of the template, if it does not keep everything. */
static bool
schedule_retention(const char *template_name)
{
	char	   *name = psprintf("retention %s", template_name);
	char	   *unique_name = name;

	if (!wants_retention(template_name))
		return false;
	for (int i = 2; insert_retention(unique_name, template_name) == 0; i++)
		unique_name = psprintf("%s (%d)", name, i);
	wh_notify_config_on_commit();
	return true;
}

int
wh_schedule_subscription(const char *template_name, const char *tenant_name, const char *schema)
{
	int			made = 0;

	wh_spi_begin();
	for (int i = 0; i < lengthof(kinds); i++)
		made += schedule_kind(&kinds[i], template_name, tenant_name, schema);
	made += schedule_retention(template_name);
	wh_spi_end();
	return made;
}

void
wh_schedule_unsubscription(const char *template_name, const char *tenant_name, const char *schema)
{
	WhArg		args[] = {WH_TEXT(template_name), WH_TEXT(tenant_name), WH_TEXT(schema)};

	wh_spi_begin();
	if (wh_schedule_write("DELETE FROM _wh.schedules WHERE kind <> 'sql' AND tenant_name = $2"
						  " AND ($1::text IS NULL OR template_name = $1)"
						  " AND ($3::text IS NULL OR target_schema = $3)",
						  lengthof(args), args) > 0)
		wh_notify_config_on_commit();
	wh_spi_end();
}

/* Schedules with another text than their template's now. */
static int32
follow_templates(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};

	return (int32) wh_schedule_write("UPDATE _wh.schedules c SET schedule = t.schedule"
									 " FROM _wh.mv_templates t, _wh.tenant_templates s"
									 " WHERE c.kind = 'refresh' AND t.template_name = c.template_name"
									 "  AND s.template_name = c.template_name AND s.active"
									 "  AND s.tenant_name = c.tenant_name"
									 "  AND s.target_schema = c.target_schema"
									 "  AND c.schedule <> t.schedule"
									 "  AND ($1::text IS NULL OR t.template_name = $1)",
									 lengthof(args), args);
}

static int32
schedule_subscriptions(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	MemoryContext cxt = CurrentMemoryContext;
	uint64		n = wh_query("SELECT template_name, tenant_name, target_schema"
							 " FROM _wh.tenant_templates"
							 " WHERE active AND ($1::text IS NULL OR template_name = $1)"
							 " ORDER BY 1, 2, 3", lengthof(args), args);
	SPITupleTable *rows = SPI_tuptable;
	int32		made = 0;

	for (uint64 i = 0; i < n; i++)
	{
		char	   *target[3];

		SPI_tuptable = rows;
		for (int col = 0; col < 3; col++)
			target[col] = wh_get_text(cxt, i, col + 1);
		made += wh_schedule_subscription(target[0], target[1], target[2]);
	}
	return made;
}

/* Also where all subscriptions have ended: what they left gets older as well. */
static int32
schedule_retentions(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	MemoryContext cxt = CurrentMemoryContext;
	uint64		n = wh_query("SELECT DISTINCT template_name FROM _wh.tenant_templates"
							 " WHERE $1::text IS NULL OR template_name = $1"
							 " ORDER BY 1", lengthof(args), args);
	SPITupleTable *rows = SPI_tuptable;
	int32		made = 0;

	for (uint64 i = 0; i < n; i++)
	{
		SPI_tuptable = rows;
		made += schedule_retention(wh_get_text(cxt, i, 1));
	}
	return made;
}

Datum
wh_sql_setup_cron(PG_FUNCTION_ARGS)
{
	char	   *template_name;
	int32		n;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	template_name = PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (template_name != NULL)
		wh_tenant_require_template(template_name);
	wh_spi_begin();
	n = follow_templates(template_name);
	n += schedule_subscriptions(template_name);
	n += schedule_retentions(template_name);
	wh_notify_config_on_commit();
	wh_spi_end();
	PG_RETURN_INT32(n);
}
