/*
 * check.c: what a DBA asks before trusting a tenant or a template.
 *
 * check_tenant() and check_template() connect as a load would and return a
 * row per check; they load nothing and change nothing.  Trouble at the tenant
 * is a row with ok = false, never an error: every step runs in a
 * subtransaction of its own, and a step that failed ends the list.  A local
 * cancel request is no finding and goes through.  Takes no lock.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "caller.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "attempt.h"
#include "clock.h"
#include "error.h"
#include "password.h"
#include "refresh.h"
#include "remote.h"
#include "sqlutil.h"
#include "template.h"
#include "tenant.h"
#include "wh_worker.h"

/* Older servers may work, but nobody has tried. */
#define MIN_SERVER_VERSION 120000

/* Clocks further apart than this put rows near midnight into doubt. */
#define MAX_CLOCK_DIFFERENCE 60.0

PG_FUNCTION_INFO_V1(wh_sql_check_tenant);
PG_FUNCTION_INFO_V1(wh_sql_check_template_at_tenant);

typedef struct Check
{
	ReturnSetInfo *result;
	WhTenant   *tenant;
	WhTemplate *tmpl;			/* NULL for check_tenant */
	char	   *query;			/* rendered for yesterday */
	WhRemote   *remote;
} Check;

typedef void (*CheckStep) (Check *check);

static void
report(Check *check, const char *name, bool ok, const char *detail)
{
	Datum		values[] = {CStringGetTextDatum(name), BoolGetDatum(ok), CStringGetTextDatum(detail)};
	bool		nulls[] = {false, false, false};

	tuplestore_putvalues(check->result->setResult, check->result->setDesc, values, nulls);
}

static void
close_remote(Check *check)
{
	WhRemote   *remote = check->remote;

	check->remote = NULL;
	if (remote != NULL)
		wh_remote_close(remote);
}

/* Makes a finding of an error, or passes a cancel on. */
static void
report_error(Check *check, const char *name, ErrorData *error)
{
	WhFailure  *failure = wh_failure_from_error(error);

	if (failure->cancelled)
	{
		close_remote(check);
		ReThrowError(error);
	}
	report(check, name, false, failure->message);
}

typedef struct Attempt
{
	Check	   *check;
	CheckStep	step;
} Attempt;

static void
run_attempt(void *arg)
{
	const Attempt *attempt = arg;

	attempt->step(attempt->check);
}

/* False if the step raised an error, which is then a row of the result. */
static bool
run_step(Check *check, const char *name, CheckStep step)
{
	Attempt		attempt = {check, step};
	ErrorData  *error;

	wh_error_reset();
	error = wh_attempt(run_attempt, &attempt);
	if (error != NULL)
		report_error(check, name, error);
	return error == NULL;
}

static void
check_connection(Check *check)
{
	check->remote = wh_remote_connect(check->tenant, "wh_worker check");
	report(check, "connection", true,
		   psprintf("database \"%s\" at %s:%d as \"%s\"", check->tenant->dbname,
					check->tenant->host, check->tenant->port, check->tenant->username));
}

static void
check_tls(Check *check)
{
	if (wh_remote_used_tls(check->remote))
		report(check, "tls", true, psprintf("in use, sslmode %s", check->tenant->sslmode));
	else if (wh_remote_host_is_local(check->tenant->host))
		report(check, "tls", true, "not needed on a local socket");
	else
		report(check, "tls", false,
			   psprintf("the connection is not encrypted (sslmode %s)", check->tenant->sslmode));
}

static void
check_password(Check *check)
{
	if (check->tenant->password_required)
		report(check, "password", true, wh_password_source(check->tenant));
	else
		report(check, "password", false, "the tenant need not ask for one: password_required is off");
}

static void
check_version(Check *check)
{
	int			version = wh_remote_server_version(check->remote);

	report(check, "version", version >= MIN_SERVER_VERSION,
		   psprintf("PostgreSQL %s%s", wh_remote_setting(check->remote, "server_version"),
					version >= MIN_SERVER_VERSION ? "" : "; 12 or newer is expected"));
}

/* Opens the transaction of a load around a query that reads nothing. */
static void
check_read_only(Check *check)
{
	TupleDesc	columns = CreateTemplateTupleDesc(1);
	bool		binary;
	char	   *copy_sql;
	char	   *setting;

	TupleDescInitEntry(columns, 1, "one", INT4OID, -1, 0);
	wh_remote_begin(check->remote, "SELECT 1 AS one", columns, &binary, &copy_sql);
	setting = wh_remote_value(check->remote, "SHOW transaction_read_only");
	wh_remote_end(check->remote);
	if (setting != NULL && strcmp(setting, "on") == 0)
		report(check, "read_only", true, "our transactions there cannot write");
	else
		report(check, "read_only", false, "our transactions there could write; a pooler may drop settings");
}

static void
check_clock(Check *check)
{
	TimestampTz before = GetCurrentTimestamp();
	char	   *epoch = wh_remote_value(check->remote, "SELECT extract(epoch FROM clock_timestamp())");
	TimestampTz after = GetCurrentTimestamp();
	double		here;
	double		ahead;

	/* the answer was made about halfway */
	here = (before + (after - before) / 2) / (double) USECS_PER_SEC +
		(double) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	ahead = (epoch != NULL ? strtod(epoch, NULL) : 0) - here;
	report(check, "clock", fabs(ahead) <= MAX_CLOCK_DIFFERENCE,
		   psprintf("the tenant's clock is %.1f s %s ours", fabs(ahead), ahead < 0 ? "behind" : "ahead of"));
}

static void
check_encoding(Check *check)
{
	const char *name = wh_remote_setting(check->remote, "server_encoding");
	int			encoding = name != NULL ? pg_char_to_encoding(name) : -1;
	bool		known = encoding >= 0 && encoding != PG_SQL_ASCII;

	if (known && encoding == GetDatabaseEncoding())
		report(check, "encoding", true, name);
	else if (known && OidIsValid(FindDefaultConversionProc(encoding, GetDatabaseEncoding())))
		report(check, "encoding", true,
			   psprintf("%s, converted to %s", name, GetDatabaseEncodingName()));
	else
		report(check, "encoding", false,
			   psprintf("%s cannot be converted to %s with certainty",
						name != NULL ? name : "unknown", GetDatabaseEncodingName()));
}

static void
check_columns(Check *check)
{
	bool		binary;
	char	   *copy_sql;

	wh_remote_begin(check->remote, check->query, check->tmpl->columns, &binary, &copy_sql);
	report(check, "columns", true,
		   psprintf("%d columns as declared, sent as %s", check->tmpl->columns->natts,
					binary ? "binary" : "text"));
}

static void
check_cost(Check *check)
{
	char	   *estimate = wh_remote_explain(check->remote, check->query);

	wh_remote_end(check->remote);
	report(check, "cost", true,
		   psprintf("estimated for yesterday: %s", estimate != NULL ? estimate : "unknown"));
}

static void
check_probe(Check *check)
{
	char	   *probe = wh_template_render_probe(check->tmpl, wh_clock_today() - 1);
	bool		binary;
	char	   *copy_sql;
	char	   *estimate;
	char	   *result;

	wh_remote_begin(check->remote, check->query, check->tmpl->columns, &binary, &copy_sql);
	estimate = wh_remote_explain(check->remote, probe);
	result = wh_remote_probe(check->remote, probe);
	wh_remote_end(check->remote);
	report(check, "probe", true,
		   psprintf("estimated for yesterday: %s; result: %s", estimate != NULL ? estimate : "unknown",
					result[0] != '\0' ? result : "no rows"));
}

Datum
wh_sql_check_tenant(PG_FUNCTION_ARGS)
{
	Check		check = {0};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_require_running();
	check.tenant = wh_tenant_read(wh_tenant_text_arg(fcinfo, 0, "tenant_name"));
	InitMaterializedSRF(fcinfo, 0);
	check.result = (ReturnSetInfo *) fcinfo->resultinfo;

	if (run_step(&check, "connection", check_connection))
		(void) (run_step(&check, "tls", check_tls) &&
				run_step(&check, "password", check_password) &&
				run_step(&check, "version", check_version) &&
				run_step(&check, "read_only", check_read_only) &&
				run_step(&check, "clock", check_clock) &&
				run_step(&check, "encoding", check_encoding));
	close_remote(&check);
	return (Datum) 0;
}

Datum
wh_sql_check_template_at_tenant(PG_FUNCTION_ARGS)
{
	Check		check = {0};

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_require_running();
	check.tmpl = wh_template_read(wh_tenant_text_arg(fcinfo, 0, "template_name"));
	check.tenant = wh_tenant_read(wh_tenant_text_arg(fcinfo, 1, "tenant_name"));
	check.query = wh_template_render(check.tmpl, wh_clock_today() - 1);
	InitMaterializedSRF(fcinfo, 0);
	check.result = (ReturnSetInfo *) fcinfo->resultinfo;

	(void) (run_step(&check, "connection", check_connection) &&
			run_step(&check, "columns", check_columns) &&
			run_step(&check, "cost", check_cost) &&
			check.tmpl->change_probe != NULL &&
			run_step(&check, "probe", check_probe));
	close_remote(&check);
	return (Datum) 0;
}
