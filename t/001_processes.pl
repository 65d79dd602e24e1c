# Processes: who is started when, what is waited for, and that each wait is
# said once and ends by itself.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $launcher_of = sub {
	my ($database, $condition) = @_;
	return "SELECT count(*) = 1 FROM _wh.worker_status "
	  . "WHERE backend_type LIKE '%launcher' AND datname = '$database' AND $condition";
};

my $tenant = new_tenant('tenant');
create_events($tenant, '2025-08-01', 5, 10);

# ---- waiting for the role, the database, the extension -----------------

my $node = new_warehouse(
	create_extension => 0,
	start => 0,
	conf => { 'wh_worker.databases' => "'postgres, second'" });
$node->start;

$node->wait_for_log(qr/whadmin.*does not exist/);
pass('a missing admin role is said in the log');
$node->wait_for_log(qr/database "second" does not exist/);
pass('a missing database is said in the log');

sql($node, 'CREATE EXTENSION wh_worker');
wait_until($node, $launcher_of->('postgres', "state = 'idle'"),
	'the launcher notices CREATE EXTENSION');
is(sql($node, "SELECT count(*) FROM _wh.worker_status WHERE backend_type LIKE '%supervisor'"),
	1, 'worker_status has the supervisor');
wait_until($node,
	$launcher_of->('second', "state = 'waiting' AND last_error LIKE '%does not exist%'"),
	'worker_status says which database is missing');
is( sql($node,
		"SELECT usename FROM pg_stat_activity WHERE backend_type LIKE '%launcher' AND datname = 'postgres'"),
	'whadmin', 'the launcher runs as the admin role');
is(sql($node, "SELECT rolsuper FROM pg_roles WHERE rolname = 'whadmin'"),
	'f', 'which is no superuser');

sql($node, 'CREATE DATABASE second');
wait_until($node,
	$launcher_of->('second', "pid IS NOT NULL AND state = 'waiting' AND last_error LIKE '%xtension%'"),
	'a database that appears gets a launcher, which says that the extension is missing');
sql($node, 'CREATE EXTENSION wh_worker', 'second');
wait_until($node, $launcher_of->('second', "state = 'idle' AND coalesce(last_error, '') = ''"),
	'and goes on when the extension is there');
is(log_count($node, qr/database "second" does not exist/),
	1, 'the missing database was logged once');
is(log_count($node, qr/whadmin.*does not exist/),
	1, 'the missing role was logged once');

# ---- a job, idle workers ----------------------------------------------

add_events_template($node, 'events');
add_tenant($node, 'tenant', $tenant,
	templates => ['events'], start_date => '2025-08-01');
my (undef, $state) =
  enqueue_and_wait($node, "'events', 'tenant', '2025-08-01', '2025-08-01'");
is($state, 'succeeded', 'a job runs');
wait_until($node,
	"SELECT count(*) > 0 AND bool_and(state = 'idle') FROM _wh.worker_status WHERE backend_type LIKE '%worker'",
	'its worker stays, idle');
is( sql($node,
		"SELECT DISTINCT usename FROM pg_stat_activity WHERE backend_type LIKE '%wh_worker worker%'"),
	'whadmin', 'a worker runs as the admin role');
sql($node, "ALTER SYSTEM SET wh_worker.worker_idle_timeout = '100ms'");
$node->reload;
wait_until($node,
	"SELECT count(*) = 0 FROM _wh.worker_status WHERE backend_type LIKE '%worker'",
	'idle workers leave after worker_idle_timeout');
ok($tenant->poll_query_until('postgres', tenant_sessions() , '0'),
	'and their tenant connections with them');

# ---- disabled ----------------------------------------------------------

sql($node, 'ALTER SYSTEM SET wh_worker.enabled = off');
$node->reload;
wait_until($node,
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE '%launcher' AND backend_type LIKE '%wh%'",
	'launchers disconnect when wh_worker.enabled is off');
my $backfill = sql($node,
	"SELECT _wh.enqueue_backfill('events', 'tenant', '2025-08-02', '2025-08-03')");
sql($node, 'DROP DATABASE second');
pass('a database that held a warehouse can be dropped');
is( sql($node,
		"SELECT string_agg(DISTINCT state, ',') FROM _wh.jobs WHERE backfill_id = $backfill AND kind = 'refresh'"),
	'queued', 'no job started meanwhile');
sql($node, 'ALTER SYSTEM RESET wh_worker.enabled');
$node->reload;
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '30 s')"),
	'succeeded', 'the queue goes on when it is on again');

# ---- a launcher that is terminated -------------------------------------

wait_until($node, $launcher_of->('postgres', 'pid IS NOT NULL'),
	'there is a launcher');
my $pid = sql($node,
	"SELECT pid FROM _wh.worker_status WHERE backend_type LIKE '%launcher' AND datname = 'postgres'");
sql($node, "SELECT pg_terminate_backend($pid)");
wait_until($node, $launcher_of->('postgres', "pid <> $pid AND state = 'idle'"),
	'a terminated launcher is started again');
(undef, $state) =
  enqueue_and_wait($node, "'events', 'tenant', '2025-08-04', '2025-08-04'");
is($state, 'succeeded', 'and its queue goes on');

# ---- settings ----------------------------------------------------------

fails_with($node, 'ALTER SYSTEM SET wh_worker.max_workers = 0',
	'22023', qr/outside the valid range.*1 \.\. 256/,
	'max_workers out of range is refused');
fails_with($node, "ALTER SYSTEM SET wh_worker.retry_delay = '5 parsecs'",
	'22023', qr/invalid value for parameter.*Valid units/s,
	'a wrong unit is refused, and the valid ones are named');
fails_with($node, "ALTER SYSTEM SET wh_worker.databases = 'a,,b'",
	'22023', qr/wh_worker\.databases.*DETAIL/s,
	'a list of databases that does not parse is refused');
fails_with($node, "ALTER SYSTEM SET wh_worker.admin_role = 'pg_whadmin'",
	'22023', qr/wh_worker\.admin_role.*reserved/s,
	'a reserved role name is refused');
fails_with($node, 'SET wh_worker.no_such_setting = 1',
	'42602', qr/no_such_setting/, 'an unknown setting of ours is refused');

# ---- the admin role renamed while we are down --------------------------

sql($node, 'ALTER ROLE whadmin RENAME TO whadmin_away');
my $offset = log_end($node);
$node->restart;
wait_until($node,
	$launcher_of->('postgres', "state = 'waiting' AND last_error LIKE '%whadmin%'"),
	'without its role the launcher waits and says so');
sql($node, 'ALTER ROLE whadmin_away RENAME TO whadmin');
wait_until($node, $launcher_of->('postgres', "state = 'idle'"),
	'and goes on when the role is back');
is(log_count($node, qr/role "whadmin" does not exist/, $offset),
	1, 'the log says it once');

# ---- too few background workers ----------------------------------------

is(log_count($node, qr/WARNING:.*max_worker_processes/),
	0, 'no warning while max_worker_processes is large enough');
sql($node, 'CREATE DATABASE third');
sql($node, "ALTER SYSTEM SET wh_worker.databases = 'postgres,third'");
sql($node, 'ALTER SYSTEM SET max_logical_replication_workers = 0');
sql($node, 'ALTER SYSTEM SET max_worker_processes = 3');
sql($node, 'ALTER SYSTEM RESET wh_worker.worker_idle_timeout');
$offset = log_end($node);
$node->restart;
my $log = slurp_file($node->logfile, $offset);
like($log, qr/WARNING:[^\n]*max_worker_processes/,
	'start-up warns that max_worker_processes is too small');
my ($needed) = $log =~ /HINT:[^\n]*max_worker_processes to at least (\d+)/;
is($needed, 7, 'and names the number: supervisor, two launchers, four workers');

wait_until($node,
	"SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type LIKE '%wh_worker launcher%'",
	'the two launchers have used up the background workers');
$backfill = sql($node,
	"SELECT _wh.enqueue_backfill('events', 'tenant', '2025-08-05', '2025-08-05')");
wait_until($node,
	$launcher_of->('postgres', "last_error LIKE '%max_worker_processes%'"),
	'a launcher that gets no worker says so');
sql($node, "ALTER SYSTEM SET wh_worker.databases = 'postgres'");
$node->reload;
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"),
	'succeeded', 'and goes on when there is room');
is(log_count($node, qr/no background worker slot is free/, $offset),
	1, 'the log says it once');

sql($node, 'ALTER SYSTEM SET max_worker_processes = ' . ($needed // 16));
sql($node, "ALTER SYSTEM SET wh_worker.databases = 'postgres,third'");
$offset = log_end($node);
$node->restart;
is(log_count($node, qr/WARNING:.*max_worker_processes/, $offset),
	0, 'the number named is enough');

done_testing();
