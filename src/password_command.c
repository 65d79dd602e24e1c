/*
 * password_command.c: runs a program that knows the passwords of tenants, as
 * the client of a vault.
 *
 * Called by password.c for a tenant without a stored password, each time it is
 * connected to.  No shell has a part in it: the program and its arguments are
 * the words of the setting, which only a superuser can change, and the tenant's
 * name is an argument of its own, whatever is in it.  Where the password is
 * for goes into the environment, so that the program may refuse a host that it
 * does not know.
 *
 * The program has no input; its errors go nowhere, since those of a vault's
 * client may tell what nobody shall read in the log; of its output a bounded
 * part is kept.  Its whole process group is killed when it takes too long and
 * whenever the wait for it ends early, also by the end of this process.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "password_command.h"
#include "wait_event.h"

#define MAX_WORDS 32

/* Between looks at a program that closed its output and did not end yet. */
#define LOOK_AGAIN_MS 10

extern char **environ;

typedef struct Command
{
	const WhTenant *tenant;
	TimestampTz deadline;
	pid_t		pid;			/* 0: none, or waited for */
	int			output;			/* -1: none */
	int			nexternal;		/* file descriptors that fd.c counts */
	char		printed[WH_PASSWORD_MAX + 2];
	size_t		length;
} Command;

/* ---- the program ---- */

/* The words of the setting and the tenant's name. */
static char **
make_arguments(const char *tenant_name)
{
	char	  **words = palloc0((MAX_WORDS + 2) * sizeof(char *));
	char	   *rest = pstrdup(wh_password_command);
	int			n = 0;

	for (char *word = strtok_r(rest, " \t", &rest); word != NULL; word = strtok_r(NULL, " \t", &rest))
	{
		if (n == MAX_WORDS)
			ereport(ERROR,
					(errcode(ERRCODE_CONFIG_FILE_ERROR),
					 errmsg("wh_worker.password_command has more than %d words", MAX_WORDS)));
		words[n++] = word;
	}
	words[n] = pstrdup(tenant_name);
	return words;
}

/* Ours, but for what libpq reads, and what the password is for. */
static char **
make_environment(const WhTenant *tenant)
{
	char	  **environment;
	int			n = 0;

	while (environ[n] != NULL)
		n++;
	environment = palloc0((n + 5) * sizeof(char *));
	n = 0;
	for (char **variable = environ; *variable != NULL; variable++)
	{
		if (strncmp(*variable, "PG", 2) != 0 && strncmp(*variable, "WH_TENANT_", 10) != 0)
			environment[n++] = *variable;
	}
	environment[n++] = psprintf("WH_TENANT_HOST=%s", tenant->host);
	environment[n++] = psprintf("WH_TENANT_PORT=%d", tenant->port);
	environment[n++] = psprintf("WH_TENANT_DBNAME=%s", tenant->dbname);
	environment[n++] = psprintf("WH_TENANT_USERNAME=%s", tenant->username);
	return environment;
}

/*
 * In the child: nothing of ours may run any more, neither a handler of a
 * signal nor anything at exit.
 */
static void
become_program(char **arguments, char **environment, int output, int max_file)
{
	int			null = open("/dev/null", O_RDWR);
	sigset_t	none;

	if (null < 0 || setpgid(0, 0) != 0 ||
		dup2(null, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0)
		_exit(126);
	for (int file = STDERR_FILENO + 1; file < max_file; file++)
		(void) close(file);
	for (int number = 1; number < NSIG; number++)
		(void) signal(number, SIG_DFL);
	sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	execve(arguments[0], arguments, environment);
	_exit(127);
}

static void
report_start_failure(const Command *command)
{
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
			 errmsg("could not start wh_worker.password_command for tenant \"%s\": %m",
					command->tenant->name)));
}

static void
start_program(Command *command)
{
	char	  **arguments = make_arguments(command->tenant->name);
	char	  **environment = make_environment(command->tenant);
	long		max_file = sysconf(_SC_OPEN_MAX);
	int			ends[2];
	sigset_t	all;
	sigset_t	before;

	/* all that fd.c may open, and some more of libraries */
	if (max_file < 0 || max_file > 65536)
		max_file = 65536;
	if (!AcquireExternalFD())
		report_start_failure(command);
	command->nexternal = 1;
	if (pipe(ends) != 0)
		report_start_failure(command);
	command->output = ends[0];
	fflush(NULL);
	sigfillset(&all);
	(void) sigprocmask(SIG_SETMASK, &all, &before);
	command->pid = fork();
	if (command->pid == 0)
		become_program(arguments, environment, ends[1], (int) max_file);
	/* here too, so that it is done whoever comes first */
	if (command->pid > 0)
		(void) setpgid(command->pid, command->pid);
	(void) sigprocmask(SIG_SETMASK, &before, NULL);
	(void) close(ends[1]);
	if (command->pid < 0)
	{
		command->pid = 0;
		report_start_failure(command);
	}
	if (fcntl(command->output, F_SETFL, O_NONBLOCK) != 0)
		report_start_failure(command);
}

/* Also at the end of this process; nothing is left, whatever had happened. */
static void
clean_up(int code, Datum arg)
{
	Command    *command = (Command *) DatumGetPointer(arg);

	if (command->pid > 0)
	{
		(void) kill(-command->pid, SIGKILL);
		while (waitpid(command->pid, NULL, 0) < 0 && errno == EINTR)
			;
		command->pid = 0;
	}
	if (command->output >= 0)
		(void) close(command->output);
	command->output = -1;
	if (command->nexternal > 0)
		ReleaseExternalFD();
	command->nexternal = 0;
	explicit_bzero(command->printed, sizeof(command->printed));
}

/* ---- waiting ---- */

static void
report_late_program(const Command *command)
{
	ereport(ERROR,
			(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
			 errmsg("wh_worker.password_command did not end in time for tenant \"%s\"",
					command->tenant->name)));
}

/* Until the output can be read, if there is one, or for some ms. */
static void
wait_for_program(const Command *command, int events)
{
	long		left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), command->deadline);

	if (left <= 0)
		report_late_program(command);
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
							 events ? command->output : PGINVALID_SOCKET,
							 events ? left : Min(left, LOOK_AGAIN_MS),
							 wh_wait_event(WH_WAIT_PASSWORD_COMMAND));
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* What is more than a password is read, so that the program can end, and forgotten. */
static void
read_output(Command *command)
{
	for (;;)
	{
		char		more[1024];
		ssize_t		got = read(command->output, more, sizeof(more));
		size_t		kept = got > 0 ? Min((size_t) got, WH_PASSWORD_MAX + 1 - command->length) : 0;

		memcpy(command->printed + command->length, more, kept);
		command->length += kept;
		explicit_bzero(more, sizeof(more));
		if (got == 0)
			return;
		CHECK_FOR_INTERRUPTS();
		if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not read the output of wh_worker.password_command: %m")));
		if (got < 0 || TimestampDifferenceMilliseconds(GetCurrentTimestamp(), command->deadline) <= 0)
			wait_for_program(command, WL_SOCKET_READABLE);
	}
}

static void
wait_for_end(Command *command)
{
	int			status;
	pid_t		ended;

	while ((ended = waitpid(command->pid, &status, WNOHANG)) == 0)
		wait_for_program(command, 0);
	if (ended < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not wait for wh_worker.password_command: %m")));
	command->pid = 0;
	if (status != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("wh_worker.password_command failed for tenant \"%s\"", command->tenant->name),
				 errdetail_internal("%s", wait_result_to_str(status)),
				 errhint("What it says of itself is not logged; run it by hand as the user of the server.")));
}

/* ---- what it said ---- */

void
wh_password_check(char *password, size_t length, const char *where)
{
	const char *problem = NULL;

	if (length > 0 && length <= WH_PASSWORD_MAX && password[length - 1] == '\r')
		length--;
	if (length == 0)
		problem = "It is empty.";
	else if (length > WH_PASSWORD_MAX)
		problem = "It is too long.";
	else if (memchr(password, '\0', length) != NULL)
		problem = "It has a zero byte.";
	else if (!pg_verifymbstr(password, (int) length, true))
		problem = "It is no text in the encoding of this database.";
	if (problem == NULL)
	{
		password[length] = '\0';
		return;
	}
	explicit_bzero(password, Min(length, WH_PASSWORD_MAX + 1));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PASSWORD),
			 errmsg("no password in the first line of %s", where),
			 errdetail_internal("%s", problem)));
}

static char *
first_line_printed(Command *command)
{
	char	   *end = memchr(command->printed, '\n', command->length);
	size_t		length = end != NULL ? (size_t) (end - command->printed) : command->length;

	wh_password_check(command->printed, length,
					  psprintf("what wh_worker.password_command says of tenant \"%s\"", command->tenant->name));
	return pstrdup(command->printed);
}

char *
wh_password_command_run(const WhTenant *tenant, int timeout)
{
	Command    *command = palloc0(sizeof(Command));
	char	   *volatile password = NULL;

	command->tenant = tenant;
	command->output = -1;
	command->deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout);
	PG_ENSURE_ERROR_CLEANUP(clean_up, PointerGetDatum(command));
	{
		start_program(command);
		read_output(command);
		wait_for_end(command);
		password = first_line_printed(command);
	}
	PG_END_ENSURE_ERROR_CLEANUP(clean_up, PointerGetDatum(command));
	clean_up(0, PointerGetDatum(command));
	return password;
}
