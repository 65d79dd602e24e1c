/*
 * tenant_guard.c: what only a superuser may write into tenant_connections,
 * and which changes of a row take its password away.
 *
 * Called by the trigger in tenant.c, whose checks of single values come
 * first.  The trigger runs as whoever writes the row, so "superuser" is that
 * role; the table and the trigger's function belong to a superuser, because
 * their owner could switch all this off.  A restore inserts rows as a
 * superuser, and nothing is ever cleared or refused then: only an UPDATE can
 * take a password elsewhere.
 *
 * No message may hold a value of the row but its name, host and sslmode.
 * Takes no locks.
 */
#include "postgres.h"

#include "access/sysattr.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/bitmapset.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"

#include "remote.h"
#include "tenant_guard.h"

static const char *const target_columns[] = {"host", "port", "dbname", "username"};

/* As text; NULL for a null. */
static char *
column_text(const TriggerData *trigger, HeapTuple row, const char *column)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);

	return SPI_getvalue(row, desc, SPI_fnumber(desc, column));
}

static bool
column_is_true(const TriggerData *trigger, HeapTuple row, const char *column)
{
	char	   *value = column_text(trigger, row, column);

	return value != NULL && value[0] == 't';
}

static bool
same_text(const char *a, const char *b)
{
	return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* The row before the UPDATE; NULL if this is an INSERT. */
static HeapTuple
row_before(const TriggerData *trigger)
{
	return TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_trigtuple : NULL;
}

static bool
column_changed(const TriggerData *trigger, HeapTuple row, const char *column)
{
	return !same_text(column_text(trigger, row_before(trigger), column),
					  column_text(trigger, row, column));
}

/* An option that names a file; NULL if it is not there. */
static char *
file_option(const TriggerData *trigger, HeapTuple row, const char *name)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	bool		isnull;
	Datum		options;
	JsonbValue *value;

	if (row == NULL)
		return NULL;
	options = SPI_getbinval(row, desc, SPI_fnumber(desc, "options"), &isnull);
	if (isnull)
		return NULL;
	value = getKeyJsonValueFromContainer(&DatumGetJsonbP(options)->root, name, strlen(name), NULL);
	if (value == NULL)
		return NULL;
	if (value->type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("option \"%s\" is not a string", name),
				 errhint("It is the name of a file.")));
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/* NULL if the column is null or names no file. */
static char *
root_file(const TriggerData *trigger, HeapTuple row)
{
	char	   *value = row == NULL ? NULL : column_text(trigger, row, "sslrootcert");

	return wh_remote_is_root_file(value) ? value : NULL;
}

static void
refuse(const TriggerData *trigger, HeapTuple row, const char *what, const char *detail, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("only a superuser may %s tenant \"%s\"", what,
					column_text(trigger, row, "tenant_name")),
			 detail != NULL ? errdetail("%s", detail) : 0,
			 hint != NULL ? errhint("%s", hint) : 0));
}

/* ---------------------------------------------------------------------
 * For everybody
 * ---------------------------------------------------------------------
 */

/* libpq puts its own default, the server's own socket, for an empty entry. */
static void
check_host_list(const TriggerData *trigger, HeapTuple row)
{
	const char *host = column_text(trigger, row, "host");
	size_t		length = strlen(host);

	if (host[0] == ',' || host[length - 1] == ',' || strstr(host, ",,") != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("host of tenant \"%s\" has an empty entry",
						column_text(trigger, row, "tenant_name")),
				 errhint("Write host names, addresses or socket directories, separated by commas.")));
}

static void
check_encryption(const TriggerData *trigger, HeapTuple row)
{
	char	   *sslmode = column_text(trigger, row, "sslmode");

	if (!column_is_true(trigger, row, "tls_required") ||
		wh_remote_sslmode_encrypts(sslmode) ||
		wh_remote_host_is_local(column_text(trigger, row, "host")))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("sslmode \"%s\" does not protect the connection to tenant \"%s\"", sslmode,
					column_text(trigger, row, "tenant_name")),
			 errdetail("Passwords and rows could be read on their way."),
			 errhint("Use verify-full with sslrootcert, or at least require; a superuser may set tls_required to false for a tenant.")));
}

/* ---------------------------------------------------------------------
 * For those who are no superusers
 * ---------------------------------------------------------------------
 */

static const struct
{
	const char *column;
	bool		allows;			/* the value that only a superuser may give it */
	const char *what;
} permissions[] = {
	{"password_required", false, "do without the password of"},
	{"tls_required", false, "do without TLS to"},
	{"password_from_command", true, "let wh_worker.password_command give the password of"}
};

static void
refuse_permissions(const TriggerData *trigger, HeapTuple row)
{
	HeapTuple	before = row_before(trigger);

	for (int i = 0; i < lengthof(permissions); i++)
	{
		const char *column = permissions[i].column;
		bool		allows = permissions[i].allows;

		if (column_is_true(trigger, row, column) == allows &&
			(before == NULL || column_is_true(trigger, before, column) != allows))
			refuse(trigger, row, permissions[i].what, NULL,
				   psprintf("Leave %s at its default, or ask a superuser to change it for this tenant.", column));
	}
}

static void
refuse_files(const TriggerData *trigger, HeapTuple row)
{
	HeapTuple	before = row_before(trigger);
	bool		same = same_text(root_file(trigger, before), root_file(trigger, row));

	for (const char *const *name = wh_remote_file_options; *name != NULL; name++)
		same = same && same_text(file_option(trigger, before, *name), file_option(trigger, row, *name));
	if (!same)
		refuse(trigger, row, "name or change files for the connection to",
			   "They are read as the operating system user of the server.",
			   "Ask a superuser to set sslrootcert and the options sslcert, sslkey, sslcrl and sslcrldir.");
}

/* What a superuser allowed, he allowed for one role of one database. */
static bool
has_permissions(const TriggerData *trigger, HeapTuple row)
{
	for (int i = 0; i < lengthof(permissions); i++)
	{
		if (column_is_true(trigger, row, permissions[i].column) == permissions[i].allows)
			return true;
	}
	return file_option(trigger, row, "sslcert") != NULL ||
		file_option(trigger, row, "sslkey") != NULL;
}

static void
refuse_to_redirect(const TriggerData *trigger, HeapTuple row)
{
	for (int i = 0; i < lengthof(target_columns); i++)
	{
		if (column_changed(trigger, row, target_columns[i]) && has_permissions(trigger, row))
			refuse(trigger, row, psprintf("change %s of", target_columns[i]),
				   "A superuser gave this connection a permission, or a certificate, as it is.",
				   "With password_required, tls_required and password_from_command at their defaults, and without sslcert and sslkey, others may change it.");
	}
}

/* ---------------------------------------------------------------------
 * Passwords stay with the connection that they were given for
 * ---------------------------------------------------------------------
 */

/* How surely we know that the server is the one that host names. */
static int
verification(const char *sslmode)
{
	if (strcmp(sslmode, "verify-full") == 0)
		return 2;
	return strcmp(sslmode, "verify-ca") == 0 ? 1 : 0;
}

/* What of the row could take the password to another server or role; "" if nothing. */
static char *
redirections(const TriggerData *trigger, HeapTuple row)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; i < lengthof(target_columns); i++)
	{
		if (column_changed(trigger, row, target_columns[i]))
			appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", target_columns[i]);
	}
	if (verification(column_text(trigger, row, "sslmode")) <
		verification(column_text(trigger, row_before(trigger), "sslmode")))
		appendStringInfo(&list, "%ssslmode", list.len > 0 ? ", " : "");
	return list.data;
}

/*
 * The value that was there is no proof that the writer knows it: he may have
 * written password = password.  A superuser, who can read it anyway, is taken
 * at his word if his statement names the column.
 */
static bool
password_is_given(const TriggerData *trigger, HeapTuple row)
{
	int			number = SPI_fnumber(RelationGetDescr(trigger->tg_relation), "password");

	return column_changed(trigger, row, "password") ||
		(superuser() &&
		 bms_is_member(number - FirstLowInvalidHeapAttributeNumber, trigger->tg_updatedcols));
}

static HeapTuple
without_password(const TriggerData *trigger, HeapTuple row, const char *changed)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	int			number = SPI_fnumber(desc, "password");
	Datum		value = (Datum) 0;
	bool		isnull = true;

	ereport(WARNING,
			(errmsg("password of tenant \"%s\" is cleared", column_text(trigger, row, "tenant_name")),
			 errdetail("It was given for another connection: %s changed.", changed),
			 errhint("Set it again, in a statement of its own if it is the same.")));
	return heap_modify_tuple_by_cols(row, desc, 1, &number, &value, &isnull);
}

HeapTuple
wh_tenant_guard_row(TriggerData *trigger, HeapTuple row)
{
	char	   *changed = row_before(trigger) == NULL ? "" : redirections(trigger, row);

	check_host_list(trigger, row);
	check_encryption(trigger, row);
	if (!superuser())
	{
		refuse_permissions(trigger, row);
		refuse_files(trigger, row);
		if (row_before(trigger) != NULL)
			refuse_to_redirect(trigger, row);
	}
	if (changed[0] != '\0' && column_text(trigger, row, "password") != NULL &&
		!password_is_given(trigger, row))
		row = without_password(trigger, row, changed);
	return row;
}
