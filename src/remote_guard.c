/*
 * remote_guard.c: a connection goes where its tenant's row says, with what
 * that row holds, and with nothing else that the server could lend it.
 *
 * The server's operating system user may reach much that a person who writes
 * rows may not: the server itself by peer or trust, other servers by a
 * password file, a service file or a certificate in its home.  So a tenant has
 * to ask for the password, and that password has to be the row's; libpq sees
 * no variable of the environment; and files come in only by the columns that
 * tenant_guard.c leaves to superusers.  Called by remote_connect.c and, for
 * what can be told from the row alone, by tenant_guard.c.
 *
 * No password may get into a message.  Takes no locks.
 */
#include "postgres.h"

#include <unistd.h>

#include "error.h"
#include "password.h"
#include "remote_private.h"

extern char **environ;

const char *const wh_remote_file_options[] = {"sslcert", "sslcrl", "sslcrldir", "sslkey", NULL};

/* As libpq tells a socket directory, or an abstract socket, from a host. */
static bool
is_socket(const char *entry)
{
	return entry[0] == '/' || entry[0] == '@';
}

bool
wh_remote_option_is_file(const char *name)
{
	for (const char *const *option = wh_remote_file_options; *option != NULL; option++)
	{
		if (strcmp(name, *option) == 0)
			return true;
	}
	return false;
}

/* libpq 16 and later take the word for the operating system's authorities. */
bool
wh_remote_is_root_file(const char *sslrootcert)
{
	return sslrootcert != NULL &&
		!(strcmp(sslrootcert, "system") == 0 && PQlibVersion() >= 160000);
}

/* A host may be a list, of which libpq takes the first that answers. */
bool
wh_remote_host_is_local(const char *host)
{
	if (!is_socket(host))
		return false;
	for (const char *comma = strchr(host, ','); comma != NULL; comma = strchr(comma + 1, ','))
	{
		if (!is_socket(comma + 1))
			return false;
	}
	return true;
}

bool
wh_remote_sslmode_encrypts(const char *sslmode)
{
	return strcmp(sslmode, "require") == 0 ||
		strcmp(sslmode, "verify-ca") == 0 ||
		strcmp(sslmode, "verify-full") == 0;
}

void
wh_guard_before(const WhTenant *tenant)
{
	bool		is_empty = tenant->password != NULL && tenant->password[0] == '\0';

	if (tenant->password_required && (is_empty || !wh_password_is_known(tenant)))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("could not connect to tenant \"%s\": it has no password", tenant->name),
				 errhint("Set password in _wh.tenant_connections; it is cleared when the connection is changed to go elsewhere.")));
	if (tenant->tls_required && !wh_remote_host_is_local(tenant->host) &&
		!wh_remote_sslmode_encrypts(tenant->sslmode))
		ereport(ERROR,
				(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
				 errmsg("could not connect to tenant \"%s\": sslmode \"%s\" does not protect the connection",
						tenant->name, tenant->sslmode)));
}

void
wh_guard_after(const WhTenant *tenant, PGconn *conn)
{
	if (!tenant->password_required || PQconnectionUsedPassword(conn))
		return;
	wh_error_mark_remote();
	ereport(ERROR,
			(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
			 errmsg("could not connect to tenant \"%s\": it did not ask for a password", tenant->name),
			 errdetail("Whoever is let in by trust, peer or a certificate may be somebody whom only the server's operating system user may be."),
			 errhint("Let the tenant's pg_hba.conf ask for a password (scram-sha-256), or have a superuser set password_required to false for this tenant.")));
}

/*
 * The environment without what libpq looks at: all its variables, of today and
 * of later versions, begin with PG.  Those of the resolver and of OpenSSL stay.
 */
static char **
environment_for_libpq(void)
{
	char	  **kept;
	int			n = 0;

	while (environ[n] != NULL)
		n++;
	kept = palloc((n + 1) * sizeof(char *));
	n = 0;
	for (char **variable = environ; *variable != NULL; variable++)
	{
		if (strncmp(*variable, "PG", 2) != 0)
			kept[n++] = *variable;
	}
	kept[n] = NULL;
	return kept;
}

/* libpq does not raise, so the environment is always back before others look. */
PGconn *
wh_guard_connect_start(const char *const *names, const char *const *values)
{
	char	  **whole = environ;
	PGconn	   *conn;

	environ = environment_for_libpq();
	conn = PQconnectStartParams(names, values, 0);
	pfree(environ);
	environ = whole;
	return conn;
}

PostgresPollingStatusType
wh_guard_connect_poll(PGconn *conn)
{
	char	  **whole = environ;
	PostgresPollingStatusType status;

	environ = environment_for_libpq();
	status = PQconnectPoll(conn);
	pfree(environ);
	environ = whole;
	return status;
}
