/*
 * tenant.c: rows of tenant_connections and tenant_templates: what may be
 * written there, and what a connection needs to be made from them.
 *
 * The triggers run for every INSERT and UPDATE, also while a dump is restored,
 * so they look at nothing but the row itself.  wh_tenant_read() serves the
 * fetch path and the checks; get_tenant_connection_string() serves people.
 * Passwords pass through here: no message may hold a value of a connection
 * but its name, host and port.  Takes no locks beyond those of its queries.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "caller.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit.h"
#include "clock.h"
#include "guc.h"
#include "hours.h"
#include "password.h"
#include "publish.h"
#include "refresh.h"
#include "remote.h"
#include "secret.h"
#include "sqlutil.h"
#include "tenant.h"
#include "tenant_guard.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_check_tenant_row);
PG_FUNCTION_INFO_V1(wh_sql_check_subscription_row);
PG_FUNCTION_INFO_V1(wh_sql_get_tenant_connection_string);
PG_FUNCTION_INFO_V1(wh_sql_is_quiet);
PG_FUNCTION_INFO_V1(wh_sql_quiet_until);

char *
wh_tenant_text_arg(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	return text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static void
report_unknown_tenant(const char *tenant_name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("tenant \"%s\" does not exist", tenant_name),
			 errhint("Tenants are the rows of _wh.tenant_connections; _wh.add_tenant() makes one.")));
}

void
wh_tenant_require(const char *tenant_name)
{
	WhArg		args[] = {WH_TEXT(tenant_name)};

	wh_spi_begin();
	if (wh_query("SELECT FROM _wh.tenant_connections WHERE tenant_name = $1",
				 lengthof(args), args) == 0)
		report_unknown_tenant(tenant_name);
	wh_spi_end();
}

void
wh_tenant_require_template(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};

	wh_spi_begin();
	if (wh_query("SELECT FROM _wh.mv_templates WHERE template_name = $1",
				 lengthof(args), args) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("template \"%s\" does not exist", template_name),
				 errhint("Templates are the rows of _wh.mv_templates.")));
	wh_spi_end();
}

/* A column of the row that a trigger looks at, or 0 with *isnull. */
static Datum
row_value(TriggerData *trigger, HeapTuple row, const char *column, bool *isnull)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			number = SPI_fnumber(desc, column);

	if (number <= 0)
		elog(ERROR, "no column \"%s\"", column);	/* cannot happen */
	return SPI_getbinval(row, desc, number, isnull);
}

/* NULL for a null. */
static char *
row_text(TriggerData *trigger, HeapTuple row, const char *column)
{
	bool		isnull;
	Datum		value = row_value(trigger, row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/*
 * The table's own constraint would do, but its message shows the whole row,
 * and the password with it.
 */
static void
check_not_null(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (column->attnotnull && heap_attisnull(row, i + 1, desc))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("%s of a tenant must not be null", NameStr(column->attname)),
					 errtable(trigger->tg_relation)));
	}
}

static void
check_name(const char *what, const char *name)
{
	if (name == NULL)
		return;
	if (name[0] == '\0' || strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s \"%s\" has %zu bytes", what, name, strlen(name)),
				 errhint("A name has 1 to %d bytes.", NAMEDATALEN - 1)));
	for (const char *p = name; *p != '\0'; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s has a control character at byte %d", what, (int) (p - name) + 1),
					 errhint("Control characters would spoil logs and schema names.")));
	}
}

static void
check_not_empty(TriggerData *trigger, HeapTuple row, const char *column)
{
	char	   *value = row_text(trigger, row, column);

	if (value != NULL && value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of tenant \"%s\" is empty", column, row_text(trigger, row, "tenant_name")),
				 errhint("Give the %s with which the tenant's database is reached.", column)));
}

static void
check_port(TriggerData *trigger, HeapTuple row)
{
	bool		isnull;
	int32		port = DatumGetInt32(row_value(trigger, row, "port", &isnull));

	if (!isnull && (port < 1 || port > 65535))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("port %d is out of range", port),
				 errhint("A TCP port is a number from 1 to 65535; PostgreSQL's default is 5432.")));
}

static void
check_sslmode(TriggerData *trigger, HeapTuple row)
{
	static const char *const modes[] = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"};
	char	   *mode = row_text(trigger, row, "sslmode");

	if (mode == NULL)
		return;
	for (int i = 0; i < lengthof(modes); i++)
	{
		if (strcmp(mode, modes[i]) == 0)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("sslmode \"%s\" is not known", mode),
			 errhint("Use disable, allow, prefer, require, verify-ca or verify-full.")));
}

static void
check_max_connections(TriggerData *trigger, HeapTuple row)
{
	bool		isnull;
	int32		max = DatumGetInt32(row_value(trigger, row, "max_connections", &isnull));

	if (!isnull && max < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_connections %d is out of range", max),
				 errhint("Give at least 1, or NULL for wh_worker.max_workers_per_tenant; _wh.pause_tenant() stops all jobs of a tenant.")));
}

/* The column is an integer or a bigint. */
static void
check_limit(TriggerData *trigger, HeapTuple row, const char *column)
{
	char	   *limit = SPI_getvalue(row, RelationGetDescr(trigger->tg_relation),
									 SPI_fnumber(RelationGetDescr(trigger->tg_relation), column));

	if (limit != NULL && strtoll(limit, NULL, 10) < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s is out of range", column, limit),
				 errhint("Give at least 1, or NULL for no limit; _wh.pause_tenant() stops all jobs of a tenant.")));
}

/* The windows of the text, or an error with the position of the mistake. */
static void
parse_quiet_hours(const char *text, WhHours *hours)
{
	const char *error;
	int			position;

	if (!wh_hours_parse(text, hours, &error, &position))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid quiet_hours \"%s\"", text),
				 errdetail("At character %d: %s.", position, error),
				 errhint("Write windows of the day, as 08:00-12:00, 22:00-02:00, or NULL for none.")));
}

static void
check_quiet_hours(TriggerData *trigger, HeapTuple row)
{
	char	   *text = row_text(trigger, row, "quiet_hours");
	WhHours		hours;

	if (text != NULL)
		parse_quiet_hours(text, &hours);
}

static void
check_option(const char *key, const JsonbValue *value)
{
	if (!wh_remote_option_is_safe(key) && !wh_remote_option_is_file(key))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options may not hold \"%s\"", key),
				 errhint("Only libpq parameters that cannot redirect or weaken a connection are allowed, such as connect_timeout or keepalives; host, user, password and the like have columns of their own.")));
	if (value->type != jbvString && value->type != jbvNumeric && value->type != jbvBool)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" is neither a string, a number nor a boolean", key)));
}

static void
check_options(TriggerData *trigger, HeapTuple row)
{
	bool		isnull;
	Datum		value = row_value(trigger, row, "options", &isnull);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	item;
	char	   *key = NULL;

	if (isnull)
		return;
	if (!JB_ROOT_IS_OBJECT(DatumGetJsonbP(value)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("options is not a JSON object"),
				 errhint("Write it like '{\"keepalives_idle\": 30}'.")));

	iterator = JsonbIteratorInit(&DatumGetJsonbP(value)->root);
	/* nested values come in one piece: they are only refused */
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			key = pnstrdup(item.val.string.val, item.val.string.len);
		else if (token == WJB_VALUE)
			check_option(key, &item);
	}
}

static void
check_called_as_trigger(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger")));
}

static HeapTuple
new_row(const TriggerData *trigger)
{
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
}

/* Days, jobs and schemas know the tenant by its name. */
static void
refuse_renaming(TriggerData *trigger)
{
	char	   *before = row_text(trigger, trigger->tg_trigtuple, "tenant_name");
	char	   *after = row_text(trigger, trigger->tg_newtuple, "tenant_name");

	if (strcmp(before, after) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("tenant \"%s\" cannot be renamed", before),
				 errhint("Add a tenant of the new name with _wh.add_tenant() and remove the old one with _wh.remove_tenant().")));
}

static HeapTuple
with_updated_at(TriggerData *trigger, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			number = SPI_fnumber(desc, "updated_at");
	Datum		now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	bool		isnull = false;

	return heap_modify_tuple_by_cols(row, desc, 1, &number, &now, &isnull);
}

Datum
wh_sql_check_tenant_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;

	wh_require_preloaded();
	check_called_as_trigger(fcinfo);
	row = new_row(trigger);
	check_not_null(trigger, row);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		refuse_renaming(trigger);
	check_name("tenant_name", row_text(trigger, row, "tenant_name"));
	check_not_empty(trigger, row, "host");
	check_not_empty(trigger, row, "dbname");
	check_not_empty(trigger, row, "username");
	check_port(trigger, row);
	check_sslmode(trigger, row);
	check_options(trigger, row);
	check_max_connections(trigger, row);
	check_limit(trigger, row, "max_rows_per_second");
	check_limit(trigger, row, "max_bytes_per_second");
	check_quiet_hours(trigger, row);
	row = wh_tenant_guard_row(trigger, row);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		row = with_updated_at(trigger, row);
	return PointerGetDatum(row);
}

Datum
wh_sql_check_subscription_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	char	   *schema;

	wh_require_preloaded();
	check_called_as_trigger(fcinfo);
	row = new_row(trigger);
	check_name("tenant_name", row_text(trigger, row, "tenant_name"));
	check_name("template_name", row_text(trigger, row, "template_name"));
	schema = row_text(trigger, row, "target_schema");
	if (schema != NULL)
	{
		wh_publish_check_schema_name(schema);
		check_name("target_schema", schema);
	}
	return PointerGetDatum(row);
}

static void
read_options(WhTenant *tenant, MemoryContext cxt)
{
	WhArg		args[] = {WH_TEXT(tenant->name)};
	uint64		n;

	/* libpq writes its booleans as 0 and 1 */
	n = wh_query("SELECT o.key, CASE o.value WHEN 'true' THEN '1' WHEN 'false' THEN '0'"
				 "   ELSE o.value #>> '{}' END"
				 "  FROM _wh.tenant_connections t, jsonb_each(t.options) o"
				 " WHERE t.tenant_name = $1 ORDER BY o.key",
				 lengthof(args), args);
	tenant->noptions = (int) n;
	tenant->option_names = MemoryContextAllocZero(cxt, sizeof(char *) * Max(n, 1));
	tenant->option_values = MemoryContextAllocZero(cxt, sizeof(char *) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		tenant->option_names[i] = wh_get_text(cxt, i, 1);
		tenant->option_values[i] = wh_get_text(cxt, i, 2);
	}
}

/* One 'name=value' of a libpq connection string. */
static void
append_parameter(StringInfo conninfo, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(conninfo, "%s%s='", conninfo->len > 0 ? " " : "", name);
	for (const char *p = value; *p != '\0'; p++)
	{
		if (*p == '\'' || *p == '\\')
			appendStringInfoChar(conninfo, '\\');
		appendStringInfoChar(conninfo, *p);
	}
	appendStringInfoChar(conninfo, '\'');
}

/* Room for a value with a backslash before each character, and for its name. */
static int
parameter_room(const char *value)
{
	return value == NULL ? 0 : 2 * (int) strlen(value) + NAMEDATALEN;
}

/* It never grows, so that it leaves no copy behind. */
static char *
connection_string(const WhTenant *tenant, const char *password)
{
	StringInfoData conninfo;
	int			room = parameter_room(tenant->host) + parameter_room(tenant->dbname) +
		parameter_room(tenant->username) + parameter_room(password) + parameter_room(tenant->sslmode) +
		parameter_room(tenant->sslrootcert) + NAMEDATALEN;

	for (int i = 0; i < tenant->noptions; i++)
		room += parameter_room(tenant->option_values[i]);
	initStringInfo(&conninfo);
	enlargeStringInfo(&conninfo, room);
	append_parameter(&conninfo, "host", tenant->host);
	append_parameter(&conninfo, "port", psprintf("%d", tenant->port));
	append_parameter(&conninfo, "dbname", tenant->dbname);
	append_parameter(&conninfo, "user", tenant->username);
	append_parameter(&conninfo, "password", password);
	append_parameter(&conninfo, "sslmode", tenant->sslmode);
	append_parameter(&conninfo, "sslrootcert", tenant->sslrootcert);
	for (int i = 0; i < tenant->noptions; i++)
		append_parameter(&conninfo, tenant->option_names[i], tenant->option_values[i]);
	return conninfo.data;
}

/*
 * Differs when any field does.  Salted anew in each process and no text of
 * the fields, so that it tells nothing of a password wherever it ends up.
 */
static char *
make_fingerprint(const WhTenant *tenant, MemoryContext cxt)
{
	static uint64 salt[2] = {0, 0};
	char	   *all = connection_string(tenant, tenant->password);
	int			len = (int) strlen(all);
	char	   *fields;

	if (salt[0] == 0 && !pg_strong_random(salt, sizeof(salt)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number")));
	fields = psprintf("%016llx%016llx",
					  (unsigned long long) hash_bytes_extended((unsigned char *) all, len, salt[0]),
					  (unsigned long long) hash_bytes_extended((unsigned char *) all, len, salt[1]));
	wh_secret_wipe(all);
	return MemoryContextStrdup(cxt, psprintf("%s %s %d%d%d", tenant->name, fields, tenant->password_required,
											 tenant->tls_required, tenant->password_from_command));
}

WhTenant *
wh_tenant_read(const char *tenant_name)
{
	MemoryContext cxt = CurrentMemoryContext;
	WhArg		args[] = {WH_TEXT(tenant_name)};
	WhTenant   *tenant = palloc0(sizeof(WhTenant));

	wh_spi_begin();
	if (wh_query("SELECT tenant_name, host, port, dbname, username, password, sslmode, sslrootcert,"
				 "       max_rows_per_second, max_bytes_per_second, password_required, tls_required,"
				 "       password_from_command"
				 "  FROM _wh.tenant_connections WHERE tenant_name = $1",
				 lengthof(args), args) == 0)
		report_unknown_tenant(tenant_name);
	tenant->name = wh_get_text(cxt, 0, 1);
	tenant->host = wh_get_text(cxt, 0, 2);
	tenant->port = wh_get_int4(0, 3);
	tenant->dbname = wh_get_text(cxt, 0, 4);
	tenant->username = wh_get_text(cxt, 0, 5);
	tenant->password = wh_get_text(cxt, 0, 6);
	tenant->sslmode = wh_get_text(cxt, 0, 7);
	tenant->sslrootcert = wh_get_text(cxt, 0, 8);
	tenant->max_rows_per_second = wh_get_int8(0, 9);
	tenant->max_bytes_per_second = wh_get_int8(0, 10);
	tenant->password_required = wh_get_bool(0, 11);
	tenant->tls_required = wh_get_bool(0, 12);
	tenant->password_from_command = wh_get_bool(0, 13);
	read_options(tenant, cxt);
	tenant->fingerprint = make_fingerprint(tenant, cxt);
	wh_spi_end();
	return tenant;
}

Datum
wh_sql_get_tenant_connection_string(PG_FUNCTION_ARGS)
{
	WhTenant   *tenant;
	char	   *password;
	char	   *conninfo;
	text	   *result;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	tenant = wh_tenant_read(wh_tenant_text_arg(fcinfo, 0, "tenant_name"));
	/* a rollback takes back the row of the audit log, and not what was read */
	ereport(LOG,
			(errmsg("the password of tenant \"%s\" was given to role \"%s\"", tenant->name,
					GetUserNameFromId(GetSessionUserId(), true)),
			 errhidestmt(true)));
	password = wh_password_of(tenant, wh_connect_timeout);
	conninfo = connection_string(tenant, password);
	wh_secret_wipe(password);
	result = cstring_to_text(conninfo);
	wh_secret_wipe(conninfo);
	PG_RETURN_TEXT_P(result);
}

/* Minutes that windows of the day last on from a moment; the second of its minute in *second. */
static int
quiet_minutes(text *quiet_hours, TimestampTz moment, int *second)
{
	pg_time_t	seconds = timestamptz_to_time_t(moment);
	struct pg_tm *local;
	WhHours		hours;

	parse_quiet_hours(text_to_cstring(quiet_hours), &hours);
	local = pg_localtime(&seconds, pg_tzset(wh_timezone));
	if (local == NULL)
		return 0;
	*second = local->tm_sec;
	return wh_hours_left(&hours, local->tm_hour * 60 + local->tm_min);
}

/* For the views; what decides is the launcher's own look at the same hours. */
Datum
wh_sql_is_quiet(PG_FUNCTION_ARGS)
{
	int			second;

	wh_require_preloaded();
	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(quiet_minutes(PG_GETARG_TEXT_PP(0),
								 PG_ARGISNULL(1) ? wh_clock_now() : PG_GETARG_TIMESTAMPTZ(1), &second) > 0);
}

TimestampTz
wh_tenant_quiet_until(text *quiet_hours, TimestampTz moment)
{
	int			second;
	int			minutes;

	if (TIMESTAMP_NOT_FINITE(moment))
		return moment;
	minutes = quiet_minutes(quiet_hours, moment, &second);
	if (minutes == 0)
		return moment;
	if (minutes >= WH_HOURS_DAY)
		return DT_NOEND;
	moment = time_t_to_timestamptz(timestamptz_to_time_t(moment));
	return TimestampTzPlusMilliseconds(moment, (minutes * 60 - second) * INT64CONST(1000));
}

Datum
wh_sql_quiet_until(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	PG_RETURN_TIMESTAMPTZ(wh_tenant_quiet_until(PG_GETARG_TEXT_PP(0), PG_GETARG_TIMESTAMPTZ(1)));
}
