/*
 * password.c: passwords of tenants from where they are kept to where they are
 * used.
 *
 * The trigger encrypts what is written to tenant_connections, if there is a
 * key; it runs while a dump is restored too, and leaves ciphertexts alone, so
 * that a dump can be restored before its key is there.  wh_password_of() serves
 * whoever connects.  rotate_key() writes all passwords anew with the first key
 * of the file; as long as the older ones are in the file too, everything can
 * be read whenever the server stops.
 *
 * A password that was decrypted here is wiped by whoever asked for it.  Lock
 * order: rotate_key() locks tenant_connections against writers, and nothing
 * after it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "audit.h"
#include "caller.h"
#include "guc.h"
#include "key_file.h"
#include "password.h"
#include "password_command.h"
#include "refresh.h"
#include "secret.h"
#include "sqlutil.h"
#include "tenant.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_seal_password);
PG_FUNCTION_INFO_V1(wh_sql_rotate_key);
PG_FUNCTION_INFO_V1(wh_sql_set_password_from_file);

/* ---- for whoever connects ---- */

char *
wh_password_of(const WhTenant *tenant, int timeout)
{
	if (tenant->password != NULL)
		return wh_secret_open(tenant, tenant->password);
	if (wh_password_is_known(tenant))
		return wh_password_command_run(tenant, timeout);
	return NULL;
}

bool
wh_password_is_known(const WhTenant *tenant)
{
	return tenant->password != NULL ||
		(tenant->password_from_command && wh_password_command[0] != '\0');
}

const char *
wh_password_source(const WhTenant *tenant)
{
	if (tenant->password == NULL)
		return "from wh_worker.password_command";
	if (wh_secret_is_sealed(tenant->password))
		return "stored, encrypted";
	return "stored in clear; wh_worker.key_file would encrypt it";
}

/* ---- storing ---- */

/* Once a transaction: a restore may bring hundreds of rows. */
static void
warn_of_clear_password(const WhTenant *tenant)
{
	static TimestampTz warned_in = 0;

	if (warned_in == GetCurrentTransactionStartTimestamp())
		return;
	warned_in = GetCurrentTransactionStartTimestamp();
	ereport(WARNING,
			(errmsg("password of tenant \"%s\" is stored in clear", tenant->name),
			 errdetail("Who can read a dump, a backup or the files of this server can read the passwords in it."),
			 errhint("Set wh_worker.key_file, restart the server and call _wh.rotate_key().")));
}

char *
wh_password_to_store(const WhTenant *tenant, const char *password)
{
	char	   *clear = NULL;
	WhSecretState state;

	if (password == NULL)
		return NULL;
	/* an empty one is none: there is nothing to hide, and whoever connects sees it */
	if (password[0] == '\0')
		return pstrdup(password);
	if (!wh_secret_is_sealed(password))
	{
		if (wh_key_file_is_set())
			return wh_secret_seal(tenant, password);
		warn_of_clear_password(tenant);
		return pstrdup(password);
	}
	state = wh_secret_try_open(tenant, password, &clear);
	wh_secret_wipe(clear);
	/* whoever restores a dump may bring the key later */
	wh_secret_report(state == WH_SECRET_MALFORMED ? ERROR : WARNING, tenant, state);
	return pstrdup(password);
}

/* The key file may be spoilt since it was read last: nothing is left in clear then either. */
static char *
store_and_wipe(const WhTenant *tenant, char *password)
{
	char	   *volatile stored = NULL;

	PG_TRY();
	{
		stored = wh_password_to_store(tenant, password);
	}
	PG_CATCH();
	{
		wh_secret_wipe(password);
		PG_RE_THROW();
	}
	PG_END_TRY();
	wh_secret_wipe(password);
	return stored;
}

/* ---- the trigger ---- */

/* NULL for a null; also of columns that are no text. */
static char *
column_text(const TriggerData *trigger, HeapTuple row, const char *column)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	return SPI_getvalue(row, desc, SPI_fnumber(desc, column));
}

/* What a password is for; check_tenant_row() has seen that none is null. */
static void
read_identity(const TriggerData *trigger, HeapTuple row, WhTenant *tenant)
{
	memset(tenant, 0, sizeof(*tenant));
	tenant->name = column_text(trigger, row, "tenant_name");
	tenant->host = column_text(trigger, row, "host");
	tenant->port = pg_strtoint32(column_text(trigger, row, "port"));
	tenant->dbname = column_text(trigger, row, "dbname");
	tenant->username = column_text(trigger, row, "username");
	tenant->password = column_text(trigger, row, "password");
}

static bool
is_same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool
is_same_identity(const WhTenant *a, const WhTenant *b)
{
	return strcmp(a->name, b->name) == 0 && strcmp(a->host, b->host) == 0 && a->port == b->port &&
		strcmp(a->dbname, b->dbname) == 0 && strcmp(a->username, b->username) == 0;
}

/*
 * For an UPDATE; NULL if the row may stay as it is.  One that has to do with
 * neither the password nor what it is for reads no key.  A ciphertext that
 * follows its row elsewhere has been let through by check_tenant_row(); one
 * that is given anew must be this row's: nobody restores by UPDATE.
 */
static char *
password_after_update(const WhTenant *before, const WhTenant *tenant)
{
	bool		is_same = is_same_text(before->password, tenant->password);
	char	   *clear;
	char	   *stored;

	if (is_same && is_same_identity(before, tenant))
		return NULL;
	if (!wh_secret_is_sealed(tenant->password))
		return wh_password_to_store(tenant, tenant->password);
	clear = wh_secret_open(is_same ? before : tenant, tenant->password);
	stored = is_same ? wh_secret_seal(tenant, clear) : NULL;
	wh_secret_wipe(clear);
	return stored;
}

/* What the row will hold, or NULL if it may stay as it is. */
static char *
password_for_row(const TriggerData *trigger, HeapTuple row)
{
	WhTenant	tenant;
	WhTenant	before;

	read_identity(trigger, row, &tenant);
	if (tenant.password == NULL)
		return NULL;
	if (!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return wh_password_to_store(&tenant, tenant.password);
	read_identity(trigger, trigger->tg_trigtuple, &before);
	return password_after_update(&before, &tenant);
}

static HeapTuple
with_password(const TriggerData *trigger, HeapTuple row, const char *password)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			number = SPI_fnumber(desc, "password");
	Datum		value = CStringGetTextDatum(password);
	bool		isnull = false;

	return heap_modify_tuple_by_cols(row, desc, 1, &number, &value, &isnull);
}

Datum
wh_sql_seal_password(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	HeapTuple	row;
	char	   *stored;

	wh_require_preloaded();
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function must be called as a trigger")));
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple;
	stored = password_for_row(trigger, row);
	return PointerGetDatum(stored == NULL ? row : with_password(trigger, row, stored));
}

/* ---- rotation ---- */

/* Any that was not decrypted raises an error: nothing is half done. */
static void
rotate_password(const char *tenant_name)
{
	WhTenant   *tenant = wh_tenant_read(tenant_name);
	char	   *password = wh_secret_open(tenant, tenant->password);
	WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(store_and_wipe(tenant, password))};

	wh_spi_begin();
	wh_query("UPDATE _wh.tenant_connections SET password = $2 WHERE tenant_name = $1",
			 lengthof(args), args);
	wh_spi_end();
}

/* The names of tenants whose password another key than the first one encrypts, or none. */
static List *
tenants_to_rotate(void)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *names = NIL;
	uint64		n;

	wh_spi_begin();
	n = wh_query("SELECT tenant_name, password FROM _wh.tenant_connections"
				 " WHERE password <> '' ORDER BY tenant_name", 0, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old;

		if (wh_secret_is_current(wh_get_text(CurrentMemoryContext, i, 2)))
			continue;
		old = MemoryContextSwitchTo(context);
		names = lappend(names, wh_get_text(context, i, 1));
		MemoryContextSwitchTo(old);
	}
	wh_spi_end();
	return names;
}

Datum
wh_sql_rotate_key(PG_FUNCTION_ARGS)
{
	List	   *names;
	ListCell   *cell;

	wh_require_preloaded();
	wh_caller_require_admin(fcinfo);
	wh_audit_call(fcinfo);
	if (!wh_key_file_is_set())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("wh_worker.key_file is not set"),
				 errhint("Set it in postgresql.conf and restart the server.")));
	/* after it nobody writes with a key that was read before */
	wh_spi_begin();
	wh_utility("LOCK TABLE _wh.tenant_connections IN SHARE ROW EXCLUSIVE MODE");
	wh_spi_end();
	names = tenants_to_rotate();
	foreach(cell, names)
		rotate_password(lfirst(cell));
	PG_RETURN_INT32(list_length(names));
}

/* ---- a password that nobody types ---- */

/* The first line of the file, palloc'd; its length is bounded as a command's. */
static char *
first_line_of(const char *name)
{
	char	   *line = palloc0(WH_PASSWORD_MAX + 2);
	FILE	   *file = AllocateFile(name, "r");
	size_t		length = 0;

	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\" for reading: %m", name)));
	/* so that no copy of it stays in a buffer that nobody wipes */
	setvbuf(file, NULL, _IONBF, 0);
	for (int c = getc(file); c != EOF && c != '\n' && length <= WH_PASSWORD_MAX; c = getc(file))
		line[length++] = (char) c;
	FreeFile(file);
	wh_password_check(line, length, psprintf("file \"%s\"", name));
	return line;
}

Datum
wh_sql_set_password_from_file(PG_FUNCTION_ARGS)
{
	char	   *tenant_name;
	char	   *file;
	char	   *password;
	WhTenant   *tenant;

	wh_require_preloaded();
	wh_audit_call(fcinfo);
	tenant_name = wh_tenant_text_arg(fcinfo, 0, "tenant_name");
	file = wh_tenant_text_arg(fcinfo, 1, "file");
	/* it runs as its caller, whose right this is */
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to read a file of the server"),
				 errhint("Be a superuser or a member of pg_read_server_files, or use password_command.")));
	tenant = wh_tenant_read(tenant_name);
	password = first_line_of(file);
	{
		WhArg		args[] = {WH_TEXT(tenant_name), WH_TEXT(store_and_wipe(tenant, password))};

		wh_spi_begin();
		wh_query("UPDATE _wh.tenant_connections SET password = $2 WHERE tenant_name = $1",
				 lengthof(args), args);
		wh_spi_end();
	}
	PG_RETURN_VOID();
}
