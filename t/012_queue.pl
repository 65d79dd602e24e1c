# Who is next: classes of jobs, fairness among tenants, caps, quiet hours,
# tenants that are set aside, and what is told to those who listen.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my ($first, $last) = ('2025-01-01', '2025-01-31');
my $production = new_tenant('production');
my $node = new_warehouse(
	conf => {
		'wh_worker.max_workers' => 3,
		'wh_worker.max_attempts' => 3,
		'wh_worker.worker_idle_timeout' => "'1min'",
	});

# Every load stands still at the gate of its tenant while the test holds it.
my @tenants = ('a', 'b', 'c');
my %gate;

foreach my $name (@tenants)
{
	$production->safe_psql('postgres', "CREATE DATABASE $name");
	create_events($production, $first, 31, 3, database => $name);
}
add_events_template($node, 'events',
	query => q{SELECT id, at, kind, amount, payload FROM events
		WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1
		AND pg_advisory_xact_lock_shared(7) IS NOT NULL});
foreach my $name (@tenants)
{
	add_tenant($node, $name, $production,
		database => $name, templates => ['events'], start_date => $first);
}
# Nothing comes due by itself here.
sql($node, 'UPDATE _wh.schedules SET active = false');

sub close_gates
{
	foreach my $name (@tenants)
	{
		$gate{$name} //= $production->background_psql($name);
		$gate{$name}->query_safe('SELECT pg_advisory_lock(7)');
	}
	return;
}

sub open_gates
{
	my (@names) = @_;

	foreach my $name (@names ? @names : @tenants)
	{
		$gate{$name}->query_safe('SELECT pg_advisory_unlock_all()');
	}
	return;
}

# A job as a schedule makes it; the launcher reads the queue anew.
sub add_job
{
	my ($tenant, $date, $priority, $count) = @_;
	my $days = $count // 1;

	sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority, sequence_number, reason)
		SELECT 'refresh', 'events', '$tenant', '$tenant', date '$date' + n, $priority, n, 'today' FROM generate_series(0, $days - 1) AS n;
		UPDATE _wh.tenant_connections SET active = active");
	return;
}

sub settings
{
	my (%conf) = @_;

	foreach my $name (sort keys %conf)
	{
		sql($node, "ALTER SYSTEM SET wh_worker.$name = '$conf{$name}'");
	}
	$node->reload;
	return;
}

sub nothing_pending
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node,
		"SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", $name);
}

# What runs now, as "tenant:priority ...".
sub running_is
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node,
		"SELECT '$expected' = string_agg(j.tenant_name || ':' || j.priority, ' ' ORDER BY j.priority, j.tenant_name)
		 FROM _wh.jobs j JOIN _wh.worker_status w USING (job_id) WHERE j.state = 'running' AND w.state = 'fetching'",
		$name);
}

sub wait_reason_is
{
	my ($condition, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sql($node, "SELECT DISTINCT wait_reason FROM _wh.job_status WHERE state = 'queued' AND $condition"),
		$expected, $name);
}

# The order in which jobs were started for the first time.
sub order_of_start
{
	my ($condition, $what) = @_;

	return sql($node, "SELECT string_agg($what, ' ' ORDER BY started_at) FROM _wh.jobs WHERE kind = 'refresh' AND ($condition)");
}

# ---- three workers: a backfill takes two, and keeps one ------------------

settings(max_workers_per_tenant => 3);
close_gates();
my $backfill = sql($node, "SELECT _wh.enqueue_backfill('events', 'a', '2025-01-01', '2025-01-31')");
running_is('a:40 a:40', 'a backfill leaves one of three workers free');
wait_reason_is("backfill_id = $backfill", 'the tenant\'s last worker is kept for what is no backfill',
	'and job_status says what its other days wait for');
add_job('b', '2025-01-01', 25, 3);
running_is('b:25 a:40 a:40', 'a load of today starts at once, whatever the backfill has queued');
add_job('c', '2025-01-01', 10);
sql($node, "SELECT _wh.pause_backfill($backfill)");
sql($node, "SELECT pg_cancel_backend(pid) FROM _wh.worker_status WHERE tenant_name = 'a'");
running_is('c:10 b:25 b:25', 'others take all workers while no backfill could start');
sql($node, "SELECT _wh.resume_backfill($backfill)");
wait_reason_is("backfill_id = $backfill", 'waits for a worker', 'the backfill waits');
add_job('c', '2025-01-02', 25, 3);
open_gates('c');
running_is('b:25 b:25 a:40', 'and has the next worker, before what is more urgent');
open_gates();
nothing_pending('all of it ends');

# ---- the same within a tenant ---------------------------------------------

settings(max_workers_per_tenant => 2);
close_gates();
$backfill = sql($node, "SELECT _wh.enqueue_backfill('events', 'a', '2025-01-01', '2025-01-05', mode => 'all')");
running_is('a:40', 'a backfill leaves one of two workers of its tenant free');
add_job('a', '2025-01-10', 25, 3);
running_is('a:25 a:40', 'a load of today has it');
wait_reason_is('tenant_name = $$a$$', 'the tenant has all the workers it may have',
	'and the others wait for the tenant');
sql($node, "UPDATE _wh.tenant_connections SET max_connections = 1 WHERE tenant_name = 'b'");
add_job('b', '2025-01-10', 25, 3);
running_is('a:25 b:25 a:40', 'max_connections of a tenant overrides the setting');
sql($node, "UPDATE _wh.tenant_connections SET max_connections = NULL WHERE tenant_name = 'b'");
open_gates();
nothing_pending('all of it ends');

# ---- raising the priority of a queued job ---------------------------------

settings(max_workers_per_tenant => 2);
sql($node, "UPDATE _wh.tenant_connections SET max_connections = 1 WHERE tenant_name = 'a'");
close_gates();
$backfill = sql($node, "SELECT _wh.enqueue_backfill('events', 'a', '2025-01-01', '2025-01-20', mode => 'all')");
running_is('a:40', 'a tenant with one connection');
my $single = sql($node, "SELECT _wh.enqueue_backfill('events', 'a', '2025-01-03', '2025-01-03', mode => 'all')");
is(sql($node, "SELECT priority FROM _wh.jobs WHERE backfill_id IN ($backfill, $single) AND target_date = '2025-01-03'"),
	10, 'somebody who asks for a single day raises its job');
add_job('a', '2025-01-25', 25);
open_gates();
nothing_pending('all of it ends');
is( sql($node, "SELECT count(*) FROM _wh.jobs j, _wh.jobs single WHERE single.backfill_id = $single AND single.target_date = '2025-01-03' AND j.backfill_id = $backfill AND j.kind = 'refresh' AND j.started_at < single.started_at"),
	1, 'which is the next of its tenant');
like(order_of_start("tenant_name = 'a' AND (backfill_id IN ($backfill, $single) OR target_date = '2025-01-25' AND backfill_id IS NULL)", 'priority::text'),
	qr/^40 10 40 25( 40)+$/, 'on its only connection a tenant alternates');
is(sql($node, "SELECT state FROM _wh.backfills WHERE backfill_id = $single"),
	'succeeded', 'the backfill of the single day ends with it');
sql($node, 'UPDATE _wh.tenant_connections SET max_connections = NULL');

# A day that a schedule has queued belongs to who asks for it.
sql($node, 'SELECT _wh.pause()');
add_job('a', '2025-01-30', 30);
$single = sql($node, "SELECT _wh.enqueue_backfill('events', 'a', '2025-01-30', '2025-01-30', mode => 'all')");
is(sql($node, "SELECT days_total || ' ' || (SELECT string_agg(backfill_id || ' ' || priority, ',') FROM _wh.jobs WHERE state = 'queued') FROM _wh.backfills WHERE backfill_id = $single"),
	"1 $single 10", 'a day that a schedule has queued is taken over');
sql($node, 'SELECT _wh.resume()');
is(sql($node, "SELECT _wh.wait_for_backfill($single, '30 s')"), 'succeeded', 'and waited for');

# ---- quiet hours ----------------------------------------------------------

# The clock of schedules is set to $time of the day, UTC.
sub set_clock
{
	my ($time) = @_;
	my $offset = sql($node, "SELECT round(extract(epoch FROM time '$time') - extract(epoch FROM now()::time))::integer");

	settings(debug_clock_offset => "${offset}s");
	return;
}
set_clock('23:30');
sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = '22:00-02:00, 08:00-09:00' WHERE tenant_name = 'a'");
fails_with($node, "UPDATE _wh.tenant_connections SET quiet_hours = '22:00-' WHERE tenant_name = 'a'",
	'22023', qr/At character 7/, 'bad quiet hours');
add_job('a', '2025-01-25', 25);
add_job('b', '2025-01-25', 25);
wait_until($node, "SELECT count(*) = 1 FROM _wh.jobs WHERE state = 'succeeded' AND tenant_name = 'b' AND target_date = '2025-01-25'",
	'while one tenant has its quiet hours another is served')
  or diag(sql($node, "SELECT job_id, tenant_name, state, attempt, wait_reason, last_error FROM _wh.job_status WHERE state <> 'succeeded'"), sql($node, 'SELECT * FROM _wh.worker_status'), sql($node, 'SELECT now()'));
wait_reason_is("tenant_name = 'a'", 'quiet hours of the tenant', 'its own job waits, and says for what');
settings(timezone => 'Africa/Lagos');    # an hour ahead, in summer too
set_clock('07:30');
wait_reason_is("tenant_name = 'a'", 'quiet hours of the tenant', 'they are those of wh_worker.timezone');
set_clock('07:59:58');
nothing_pending('when they end the job starts');
settings(timezone => 'UTC', debug_clock_offset => '0');
sql($node, 'UPDATE _wh.tenant_connections SET quiet_hours = NULL');

# ---- a tenant that is down ------------------------------------------------

my $shaky = new_tenant('shaky');
create_events($shaky, $first, 31, 3);
add_events_template($node, 'plain');
add_tenant($node, 'shaky', $shaky, templates => ['plain'], start_date => $first);
add_tenant($node, 'well', $production, database => 'a', templates => ['plain'], start_date => $first);
sql($node, 'UPDATE _wh.schedules SET active = false');
is(sql($node, "SELECT string_agg(DISTINCT state || ' ' || consecutive_failures, ',') FROM _wh.tenant_health"),
	'closed 0', 'every tenant is well');

my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN wh_worker');
$shaky->stop;
$backfill = sql($node, "SELECT _wh.enqueue_backfill('plain', 'shaky', '2025-01-01', '2025-01-20')");
wait_until($node, "SELECT state <> 'closed' FROM _wh.tenant_health WHERE tenant_name = 'shaky'",
	'after three failures in a row a tenant is set aside');
like(sql($node, "SELECT consecutive_failures || ' ' || last_error FROM _wh.tenant_health WHERE tenant_name = 'shaky'"),
	qr/^([3-9]|\d\d+) .*could not connect/, 'tenant_health says why');
settings(retry_delay => '1min', retry_delay_max => '1min');
wait_until($node, "SELECT state = 'open' AND retry_at > now() + interval '20 s' FROM _wh.tenant_health WHERE tenant_name = 'shaky'",
	'every probe that fails sets it aside again');
wait_reason_is("tenant_name = 'shaky' AND not_before IS NULL", 'the tenant is set aside', 'its jobs say so');
is(sql($node, "SELECT count(*) FROM _wh.worker_status WHERE tenant_name = 'shaky' AND job_id IS NOT NULL"),
	0, 'no worker is held');
my ($other, $state) = enqueue_and_wait($node, "'plain', 'well', '2025-01-01', '2025-01-31'");
is($state, 'succeeded', 'another tenant is served');
is( sql($node, "SELECT count(*) || ' ' || sum(attempt) FROM _wh.jobs WHERE backfill_id = $backfill AND kind = 'refresh' AND state = 'queued'"),
	'20 2', 'only the failures before it was set aside count as attempts');

$shaky->start;
my $runid = sql($node, 'SELECT max(runid) FROM _wh.job_run_details');
close_shaky_gate();
settings(retry_delay => '100ms', retry_delay_max => '1s');
# It may be asked at once, although nothing changed.
sql($node, "SELECT _wh.resume_tenant('shaky')");
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"),
	'succeeded', 'when it is back, all jobs succeed');
is( sql($node, "SELECT state || ' ' || consecutive_failures || ' ' || coalesce(last_error, 'none') FROM _wh.tenant_health WHERE tenant_name = 'shaky'"),
	'closed 0 none', 'and the tenant is as the others');
is( sql($node, "SELECT count(*) FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id) WHERE runid > $runid AND backfill_id = $backfill AND status <> 'succeeded'"),
	0, 'without a failure since');

sub close_shaky_gate
{
	# The first probe has to be alone while it is not known to have succeeded.
	is( sql($node, "SELECT count(*) FROM _wh.jobs WHERE state = 'running' AND tenant_name = 'shaky'"),
		0, 'nothing runs before a probe may');
	return;
}

# ---- who listens ----------------------------------------------------------

my @events;
my $heard = $listener->query_safe('SELECT 1');

push @events, decode_json($1) while $heard =~ /with payload "(\{.*\})" received/g;
my ($opened, $closed) =
  map { my $s = $_; grep { $_->{event} eq 'tenant' && $_->{state} eq $s } @events } ('open', 'closed');
is($opened->{tenant}, 'shaky', 'a listener hears that a tenant is set aside');
ok(!exists $opened->{message}, 'but not why: every role may listen');
is($closed->{tenant}, 'shaky', 'and that it can be reached again');
is(scalar(grep { $_->{event} eq 'tenant' } @events), 2, 'both once');
my ($end) = grep { $_->{event} eq 'backfill' && $_->{backfill_id} == $backfill } @events;
is($end->{state}, 'succeeded', 'it hears of the end of a backfill');
my @succeeded = grep { $_->{event} eq 'job' && $_->{state} eq 'succeeded' && ($_->{tenant} // '') eq 'shaky' } @events;
is(scalar(@succeeded), 20, 'and of every job');
my $job = $succeeded[0];
is(join(' ', @$job{qw(kind template tenant schema)}), 'refresh plain shaky shaky', 'what it did');
is( sql($node, "SELECT target_date FROM _wh.jobs WHERE job_id = $job->{job_id}"),
	$job->{date}, 'and for which day');
cmp_ok(scalar(grep { $_->{event} eq 'job' && $_->{state} eq 'retrying' } @events), '>=', 3, 'and of every failed attempt');
$listener->quit;

# ---- a clock that was set back ---------------------------------------------

sql($node, "SELECT _wh.pause_tenant('a')");
add_job('a', '2025-01-12', 25);
sql($node, "UPDATE _wh.jobs SET not_before = now() + interval '5 hours' WHERE state = 'queued'");
sql($node, "SELECT _wh.resume_tenant('a')");
nothing_pending('a retry is not waited for longer than retry_delay_max');

# ---- seeds ----------------------------------------------------------------

cmp_ok(log_count($node, qr/wh_worker process \d+ draws its jitter from seed \d+/), '>=', 1,
	'the seed of a process that drew a random number is in the log');

# ---- a single worker -------------------------------------------------------

sql($node, "ALTER SYSTEM SET wh_worker.max_workers = 1");
$node->restart;
sql($node, 'SELECT _wh.pause()');
$backfill = sql($node, "SELECT _wh.enqueue_backfill('plain', 'well', '2025-01-01', '2025-01-05', mode => 'all')");
my $today = sql($node, "WITH made AS (INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority, sequence_number)
	SELECT 'refresh', 'plain', 'shaky', 'shaky', date '2025-01-01' + n, 25, n FROM generate_series(0, 3) AS n RETURNING job_id)
	SELECT min(job_id) FROM made");
sql($node, 'SELECT _wh.resume()');
nothing_pending('everything ends with a single worker');
# A publication that is due in between takes a turn of today's jobs.
my $turns = sql($node, "SELECT string_agg(CASE WHEN kind = 'publish' THEN 'p' WHEN priority = 25 THEN 't' ELSE 'b' END, '' ORDER BY started_at)
	FROM _wh.jobs WHERE job_id >= $today OR (backfill_id = $backfill AND kind = 'refresh')");
is(join('', sort split //, $turns =~ tr/p//dr), 'bbbbbtttt', 'every job of the two kinds');
unlike($turns, qr/bb.*t|[tp][tp].*b/, 'which alternates as long as there are both');

# Round-robin over the tenants of a class, with the connection kept for a while: for
# eight jobs, and for a second if these are small.
sql($node, "UPDATE _wh.mv_templates SET query_template = 'SELECT q.* FROM (' || query_template || ') AS q, pg_catalog.pg_sleep(0.13)'
	WHERE template_name = 'plain'");
sql($node, 'SELECT _wh.pause()');
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority, sequence_number)
	SELECT 'refresh', 'plain', t, t, date '2025-01-01' + n, 30, n FROM generate_series(0, 19) AS n, unnest('{well,shaky}'::text[]) AS t");
my $sessions = sql($node, 'SELECT max(job_id) - 40 FROM _wh.jobs');
sql($node, 'SELECT _wh.resume()');
nothing_pending('the jobs of two tenants end');
my @runs = order_of_start("job_id > $sessions AND priority = 30", 'tenant_name') =~ /((?:well ?)+|(?:shaky ?)+)/g;
cmp_ok(scalar(@runs), '>=', 4, 'two tenants take turns');
cmp_ok(scalar(@runs), '<=', 8, 'but not for every job: the connection is kept');

# ---- history ---------------------------------------------------------------

sql($node, q{INSERT INTO _wh.job_run_details (status, end_time)
	SELECT 'succeeded', now() FROM generate_series(1, 1000000)});
my $newest = sql($node, 'SELECT max(runid) FROM _wh.job_run_details');
sql($node, "SELECT pg_terminate_backend(pid) FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND pid IS NOT NULL");
wait_until($node, 'SELECT count(*) = 1000000 FROM _wh.job_run_details',
	'of more than a million rows of history only the newest are kept');
is(sql($node, 'SELECT max(runid) - min(runid) FROM _wh.job_run_details'),
	999999, 'the newest');

done_testing();
