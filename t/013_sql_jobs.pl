# Commands on a schedule: whose rights and settings they have, that nobody gets
# stronger by one, what is recorded of them, and how they are ended.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $node = new_warehouse(conf => { log_min_messages => "'warning'" });

sql($node, q{
	CREATE ROLE analyst LOGIN;
	GRANT analyst TO whadmin;
	CREATE SCHEMA lab AUTHORIZATION analyst;
	ALTER ROLE analyst SET search_path = lab;
	ALTER ROLE analyst SET work_mem = '5MB';
	ALTER ROLE analyst SET application_name = 'something else';
	CREATE ROLE stranger LOGIN;
	CREATE TABLE seen (what text, value text);
	GRANT INSERT, SELECT ON seen TO PUBLIC;
	CREATE TABLE secret (x int);
});

# A schedule that is not due while the test runs; a superuser may name the role.
my $count = 0;

sub new_schedule
{
	my ($command, $role) = @_;
	my $name = 'test ' . ++$count;

	$node->safe_psql('postgres', sprintf(
			q{INSERT INTO _wh.schedules (name, schedule, kind, command, username)
			VALUES ('%s', '0 0 1 1 *', 'sql', $command$%s$command$, '%s')},
			$name, $command, $role // 'analyst'));
	return $name;
}

# As if it had come due; the launcher is told only that something has changed.
sub insert_job
{
	my ($name) = @_;

	return sql($node, qq{
		INSERT INTO _wh.jobs (kind, schedule_id, priority)
		SELECT 'sql', schedule_id, 25 FROM _wh.schedules WHERE name = '$name' RETURNING job_id});
}

sub start_job
{
	my ($name) = @_;
	my $job = insert_job($name);

	sql($node, 'SELECT _wh.resume()');
	return $job;
}

sub start_command
{
	return start_job(new_schedule(@_));
}

sub ended
{
	my ($job) = @_;

	$node->poll_query_until('postgres',
		"SELECT state IN ('succeeded', 'failed', 'cancelled') FROM _wh.jobs WHERE job_id = $job")
	  or die "job $job does not end";
	return $job;
}

# What is recorded of it: state, SQLSTATE, message; the attempts apart.
sub outcome
{
	my ($job) = @_;

	return sql($node, qq{
		SELECT concat_ws(' ', j.state, d.sqlstate, d.return_message)
		FROM _wh.jobs j JOIN _wh.job_run_details d USING (job_id)
		WHERE job_id = $job ORDER BY runid DESC LIMIT 1});
}

sub attempts
{
	my ($job) = @_;

	return sql($node, "SELECT attempt FROM _wh.jobs WHERE job_id = $job");
}

sub run
{
	return outcome(ended(start_command(@_)));
}

# Waits until the command of a job is being run; returns the pid of its process.
sub process_of
{
	my ($condition) = @_;
	my $query = "FROM pg_stat_activity WHERE backend_type = 'wh_worker sql' AND $condition";

	$node->poll_query_until('postgres', "SELECT count(*) = 1 $query")
	  or die 'the command does not run';
	return sql($node, "SELECT pid $query");
}

my $sleeping = "wait_event = 'PgSleep'";
my $no_process = "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'wh_worker sql'";

# ---- whose session it is ----------------------------------------------

my $name = new_schedule(q{
	INSERT INTO public.seen VALUES ('session_user', session_user), ('current_user', current_user),
		('search_path', current_setting('search_path')), ('work_mem', current_setting('work_mem')),
		('is_superuser', current_setting('is_superuser'));
	INSERT INTO public.seen SELECT a.field, a.value
	FROM pg_stat_activity, LATERAL (VALUES ('application_name', application_name), ('backend_type', backend_type),
		('usename', usename), ('state', state), ('query', left(btrim(query, E'\n\t'), 23))) AS a (field, value)
	WHERE pid = pg_backend_pid()
});
my $job = ended(start_job($name));
is(outcome($job), 'succeeded INSERT 0 5', 'a command runs, and its tag is what is recorded');
is( sql($node, "SELECT string_agg(what || '=' || value, ', ' ORDER BY what) FROM seen"),
	"application_name=wh_worker sql: $name, backend_type=wh_worker sql, current_user=analyst, "
	  . 'is_superuser=off, query=INSERT INTO public.seen, search_path=lab, session_user=analyst, '
	  . 'state=active, usename=analyst, work_mem=5MB',
	'with the session and the settings of its role, and pg_stat_activity shows it');
is( sql($node, qq{
		SELECT d.username, d.rows, d.jobid = s.schedule_id, d.command = s.command, d.database, d.sqlstate IS NULL
		FROM _wh.job_run_details d, _wh.schedules s WHERE d.job_id = $job AND s.name = '$name'}),
	'analyst|10|t|t|postgres|t', 'job_run_details has the columns of pg_cron');
is(sql($node, $no_process), 't', 'and its process is gone');

foreach my $try (
	[ 'SELECT * FROM _wh.tenant_connections', 'permission denied for schema _wh' ],
	[ 'RESET ROLE; SELECT * FROM _wh.tenant_connections', 'permission denied for schema _wh' ],
	[ 'RESET SESSION AUTHORIZATION; SELECT * FROM _wh.tenant_connections', 'permission denied for schema _wh' ],
	[ 'SET ROLE whadmin', 'permission denied to set role "whadmin"' ],
	[ 'SET SESSION AUTHORIZATION whadmin', 'permission denied to set session authorization' ],
	[ 'SET SESSION AUTHORIZATION postgres', 'permission denied to set session authorization' ],
	[ 'DISCARD ALL', undef ],
	[ 'SELECT * FROM public.secret', 'permission denied for table secret' ])
{
	my ($command, $message) = @$try;
	my $outcome = run($command);

	like($outcome, defined $message ? qr/^failed 42501 \Q$message\E/ : qr/^succeeded/,
		"$command: " . ($message // 'harmless'));
}

# ---- who may be run as ------------------------------------------------

like(run('SELECT 1', 'postgres'), qr/^failed 42501 role "postgres" is a superuser/,
	'never as a superuser');
like(run('SELECT 1', 'stranger'), qr/^failed 42501 role "whadmin" may not SET ROLE to "stranger"/,
	'nor as a role that the admin role cannot be');
is(run('SELECT 1', 'whadmin'), 'succeeded SELECT 1', 'but as the admin role itself');

foreach my $stronger ('postgres', 'stranger')
{
	$name = new_schedule("INSERT INTO seen VALUES ('stronger', '$stronger')");
	sql($node, qq{
		SET SESSION AUTHORIZATION whadmin;
		ALTER TABLE _wh.schedules DISABLE TRIGGER USER;
		UPDATE _wh.schedules SET username = '$stronger' WHERE name = '$name';
		ALTER TABLE _wh.schedules ENABLE TRIGGER USER;
	});
	is(sql($node, "SELECT username FROM _wh.schedules WHERE name = '$name'"),
		$stronger, "the table's owner writes the name $stronger");
	like(outcome(ended(start_job($name))), qr/^failed 42501/, 'and is refused at run time');
}
is(sql($node, "SELECT count(*) FROM seen WHERE what = 'stronger'"), 0, 'nothing was run');

$name = new_schedule('SELECT 1');
sql($node, 'ALTER ROLE analyst SUPERUSER');
like(outcome(ended(start_job($name))), qr/^failed 42501 role "analyst" is a superuser/,
	'a role that became a superuser is refused');
sql($node, 'ALTER ROLE analyst NOSUPERUSER');
is(outcome(ended(start_job($name))), 'succeeded SELECT 1', 'until it is one no longer');

sql($node, q{CREATE ROLE boss SUPERUSER; GRANT boss TO analyst; ALTER ROLE analyst SET role = 'boss'});
like(outcome(ended(start_job($name))), qr/^failed 42501 the session .* current user is "boss"/,
	'a session that begins as a superuser by a setting of its role is refused');
sql($node, 'ALTER ROLE analyst RESET role; REVOKE boss FROM analyst');

sql($node, 'ALTER ROLE analyst NOLOGIN');
like(outcome(ended(start_job($name))), qr/^failed 28000 role "analyst" is not permitted to log in/,
	'a role without LOGIN: the error says so');
sql($node, 'ALTER ROLE analyst LOGIN');

sql($node, 'REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
like(outcome(ended(start_job($name))), qr/^failed 42501 permission denied for database "postgres"/,
	'a role without CONNECT: the error says so');
sql($node, 'GRANT CONNECT ON DATABASE postgres TO PUBLIC');

sql($node, 'ALTER DATABASE postgres SET lock_timeout = 12345');
is(run("SELECT 1 / (current_setting('lock_timeout') <> '12345ms')::int; SELECT 1"),
	'failed 22012 division by zero', 'settings of the database are those of its session, too');
sql($node, 'ALTER DATABASE postgres RESET lock_timeout');

sql($node, 'CREATE ROLE passing LOGIN; GRANT passing TO whadmin');
$name = new_schedule('SELECT 1', 'passing');
sql($node, 'DROP ROLE passing');
like(outcome(ended($job = start_job($name))), qr/^failed 42704 role "passing" does not exist/,
	'a role that is gone fails the job');
is(attempts($job), 1, 'at once');
is(sql($node, "SELECT active, last_status FROM _wh.schedules WHERE name = '$name'"),
	'f|disabled: role "passing" does not exist', 'and disables the schedule, visibly');

$name = new_schedule('SELECT 1');
sql($node, 'SELECT _wh.pause()');
$job = insert_job($name);
sql($node, "DELETE FROM _wh.schedules WHERE name = '$name'");
sql($node, 'SELECT _wh.resume()');
like(outcome(ended($job)), qr/^failed 42704 schedule \d+ does not exist/,
	'a job whose schedule has gone fails');

# ---- what is run, and what is recorded ---------------------------------

is(run('CREATE TABLE t AS SELECT 1 AS x'), 'succeeded SELECT 1', 'CREATE TABLE AS');
is(run('UPDATE t SET x = 2'), 'succeeded UPDATE 1', 'UPDATE');
is(run('VACUUM (ANALYZE) t'), 'succeeded VACUUM', 'VACUUM, which needs to be outside a transaction');
is(run('VACUUM t; SELECT 1'), 'failed 25001 VACUUM cannot run inside a transaction block',
	'but not together with something else');
is(run('-- nothing at all'), 'succeeded', 'an empty command');
like(run('SELECT 1; SELEC 2'), qr/^failed 42601 syntax error at or near "SELEC"/, 'a syntax error');
is(run("INSERT INTO t VALUES (3); SELECT 1 / 0"), 'failed 22012 division by zero',
	'an error, with its SQLSTATE');
is(sql($node, 'SELECT count(*) FROM lab.t'), 1, 'undoes all of the command');
is(run('INSERT INTO t VALUES (4); INSERT INTO t VALUES (5), (6)'), 'succeeded INSERT 0 2',
	'several statements: the last tag');
is(sql($node, "SELECT rows FROM _wh.job_run_details ORDER BY runid DESC LIMIT 1"),
	3, 'and the rows of all');
is(run('BEGIN; INSERT INTO t VALUES (7); COMMIT; SELECT 1 / 0'), 'failed 22012 division by zero',
	'a command may say COMMIT itself');
is(sql($node, 'SELECT count(*) FROM lab.t WHERE x = 7'), 1, 'and keeps what it committed');
like(run('BEGIN; INSERT INTO t VALUES (8)'), qr/^failed 25000 the command left a transaction open/,
	'but not leave it open');
is(sql($node, 'SELECT count(*) FROM lab.t WHERE x = 8'), 0, 'which is rolled back');
is( run(q{CREATE PROCEDURE twice() LANGUAGE plpgsql AS
			$$ BEGIN INSERT INTO t VALUES (9); COMMIT; INSERT INTO t VALUES (10); END $$}),
	'succeeded CREATE PROCEDURE', 'a procedure is made');
is(run('CALL twice()'), 'succeeded CALL', 'and may commit');
is(run('SELECT x FROM t WHERE x >= 9 ORDER BY x'), 'succeeded SELECT 2', 'both rows are there');
like(run('COPY t FROM STDIN'), qr/^failed 0A000 a scheduled command cannot COPY from STDIN/,
	'there is no client to COPY from');
like(run('COPY t TO STDOUT'), qr/^failed 0A000/, 'nor to');
like(run('LISTEN nothing'), qr/^failed 0A000/, 'nor to be notified');

my $long = 'SELECT ' . join(' + ', ("length('" . 'x' x 10_000 . "')") x 105) . ' AS n INTO lengths';
is(run($long), 'succeeded SELECT 1', 'a command of a megabyte');
is(sql($node, 'SELECT n FROM lab.lengths'), 1_050_000, 'arrives as it is');

my $offset = log_end($node);
is(run(q{DO $$ BEGIN RAISE NOTICE 'three blind mice'; RAISE WARNING 'see how they run'; END $$}),
	'succeeded DO', 'a command that says something');
# a server that logs notices has it from the process itself
is(log_count($node, qr/(?:LOG:.*schedule "test \d+": |\] )NOTICE:  three blind mice/, $offset),
	1, 'what it says goes to the log');
is(log_count($node, qr/WARNING:  see how they run/, $offset), 1, 'once');
is(run(q{DO $$ BEGIN FOR i IN 1..3000 LOOP RAISE NOTICE '%', repeat('x', 100); END LOOP; END $$}),
	'succeeded DO', 'more than its queue holds');

my $e_acute = "\xc3\xa9";
is(run("DO \$\$ BEGIN RAISE 'caf$e_acute'; END \$\$"), "failed P0001 caf$e_acute", 'a message with an accent');
like(run("SET client_encoding = 'LATIN1'; DO \$\$ BEGIN RAISE 'caf$e_acute'; END \$\$"),
	qr/^failed P0001 caf\?+$/, 'one in another encoding does not get into our tables');
cmp_ok(length(run(q{DO $$ BEGIN RAISE '%', repeat('x', 1000000); END $$})), '<', 10_000,
	'one of a megabyte is cut');

# ---- what is tried again ----------------------------------------------

sql($node, 'CREATE SEQUENCE lab.tries; ALTER SEQUENCE lab.tries OWNER TO analyst');
my $fail_twice = q{DO $$ BEGIN IF nextval('tries') %% 3 <> 0 THEN
	RAISE serialization_failure; END IF; END $$} =~ s/%%/%/r;
is(outcome($job = ended(start_command($fail_twice))), 'succeeded DO',
	'a serialization failure is tried again');
is(attempts($job), 3, 'until it works');
like(outcome($job = ended(start_command("BEGIN; INSERT INTO t VALUES (11); COMMIT; $fail_twice"))),
	qr/^failed 40001/, 'but not when something was committed before');
is(attempts($job), 1, 'because that would be done twice');

# ---- how it is ended ---------------------------------------------------

sql($node, "ALTER ROLE analyst SET statement_timeout = '200ms'");
like(outcome($job = ended(start_command('SELECT FROM pg_sleep(600)'))),
	qr/^failed 57014 canceling statement due to statement timeout/,
	"the role's statement_timeout ends it");
is(attempts($job), 1, 'and it is not tried again');
like(run('SET statement_timeout = 0; SELECT pg_sleep(0.3)'), qr/^succeeded/, 'it can be set');
sql($node, 'ALTER ROLE analyst RESET statement_timeout');

sql($node, "ALTER SYSTEM SET wh_worker.job_timeout = '1s'");
$node->reload;
$node->poll_query_until('postgres', "SELECT setting = '1000' FROM pg_settings WHERE name = 'wh_worker.job_timeout'");
like(outcome($job = ended(start_command('SET statement_timeout = 0; SELECT pg_sleep(600)'))),
	qr/^failed 57014/, 'job_timeout ends it, whatever it sets');
is(attempts($job), 1, 'for good');
is(sql($node, $no_process), 't', 'and its process with it');
sql($node, 'ALTER SYSTEM RESET wh_worker.job_timeout');
$node->reload;
$node->poll_query_until('postgres', "SELECT setting > '1000' FROM pg_settings WHERE name = 'wh_worker.job_timeout'");

my $stubborn = q{DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(600); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END $$};
$job = start_command($stubborn);
process_of($sleeping);
is(sql($node, "SELECT state, kind FROM _wh.worker_status WHERE job_id = $job"),
	'running|sql', 'worker_status shows that it runs');
my $since = time();
is(sql($node, "SELECT _wh.cancel_job($job)"), 1, 'cancel_job finds it');
happens_within($node, 2,
	"SELECT state = 'cancelled' AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'wh_worker sql') FROM _wh.jobs WHERE job_id = $job",
	'and ends it, though it catches a cancel', $since);

$job = start_command('SELECT FROM pg_sleep(600)');
my $pid = process_of($sleeping);
sql($node, "SELECT pg_cancel_backend($pid)");
like(outcome(ended($job)), qr/^cancelled 57014 canceling statement due to user request/,
	'pg_cancel_backend of its process cancels it');

$job = start_command('SELECT FROM pg_sleep(600)');
$pid = process_of($sleeping);
sql($node, "SELECT pg_terminate_backend($pid)");
like(outcome(ended($job)), qr/^failed 57P01 terminating background worker/,
	'pg_terminate_backend of its process fails it');
is(attempts($job), 1, 'and it is not begun again');

# ---- the whole way -----------------------------------------------------

sql($node, q{
	GRANT USAGE ON SCHEMA _wh TO analyst;
	GRANT EXECUTE ON FUNCTION _wh.schedule(text, text, text), _wh.unschedule(text) TO analyst;
	SET SESSION AUTHORIZATION analyst;
	SELECT _wh.schedule('every second', '1 seconds', 'INSERT INTO public.seen VALUES (''by schedule'', session_user)')});
wait_until($node, "SELECT count(*) > 1 FROM seen WHERE what = 'by schedule'", 'a role schedules a command');
is(sql($node, "SELECT DISTINCT value FROM seen WHERE what = 'by schedule'"), 'analyst', 'and it runs as that role');
wait_until($node, "SELECT last_status = 'succeeded: INSERT 0 1' FROM _wh.schedules WHERE name = 'every second'",
	'the schedule shows what came of it');

my $remove = q{SET SESSION AUTHORIZATION other; SELECT _wh.unschedule('every second')};
sql($node, 'CREATE ROLE other; GRANT USAGE ON SCHEMA _wh TO other; GRANT EXECUTE ON FUNCTION _wh.unschedule(text) TO other');
fails_with($node, $remove, '42501', qr/schedule "every second" belongs to role "analyst"/, 'another role may not remove it');
if ($node->pg_version >= 16)
{
	sql($node, 'GRANT analyst TO other WITH INHERIT FALSE, SET FALSE');
	fails_with($node, $remove, '42501', qr/schedule "every second" belongs to role "analyst"/, 'nor a member without its rights');
	sql($node, 'REVOKE analyst FROM other');
}
sql($node, 'GRANT analyst TO other');
is(sql($node, $remove), 't', 'who has its rights may');
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')")
  or die 'its jobs do not end';

# ---- how it is ended with its worker -----------------------------------

$name = new_schedule('SELECT FROM pg_sleep(600)');
$job = start_job($name);
$pid = process_of($sleeping);
$since = time();
sql($node, sprintf('SELECT pg_terminate_backend(%s)', worker_pid($node, "job_id = $job")));
happens_within($node, 2, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
	'a worker that is terminated takes the process with it', $since);
process_of($sleeping);
is(attempts($job), 2, 'and the job is begun again by another');
is(sql($node, 'SELECT _wh.pause()'), '', 'no further job shall start');

$since = time();
$node->stop('fast');
cmp_ok(time() - $since, '<=', 2, 'a fast shutdown takes no longer than two seconds');
$node->append_conf('postgresql.conf', "max_worker_processes = 3\nmax_logical_replication_workers = 0\n");
$node->start;
wait_for_job($node, "job_id = $job", 'queued', 'after the start the job is queued again');
is(sql($node, "SELECT _wh.cancel_job($job)"), 1, 'and can be cancelled');
sql($node, 'SELECT _wh.resume()');

# ---- no room for its process -------------------------------------------

$job = start_command('SELECT 1');
wait_until($node,
	"SELECT count(*) = 1 FROM _wh.worker_status WHERE job_id = $job AND last_error LIKE '%max_worker_processes%'",
	'without a free background worker slot it waits, and says for what');
is(sql($node, "SELECT _wh.cancel_job($job)"), 1, 'it can be cancelled');
is(outcome(ended($job)), 'cancelled 57014 canceling statement due to user request', 'as any other');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE state IN ('queued', 'running')"), 0, 'no job is left');

done_testing();
