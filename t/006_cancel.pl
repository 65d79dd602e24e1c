# Whatever a worker waits for at a tenant, a cancel, a termination and a
# shutdown take effect within two seconds, and no session of ours stays there.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $day = '2025-08-01';
my $tenant = new_tenant('tenant');
create_events($tenant, $day, 1, 3000, width => 200);

# Timeouts that do not come to our help.
my $node = new_warehouse(
	conf => {
		'wh_worker.connect_timeout' => "'5min'",
		'wh_worker.fetch_idle_timeout' => "'5min'",
		'wh_worker.worker_idle_timeout' => "'5min'",
	});

my $stall = new_proxy(target => $tenant->port, mode => 'stall', limit => 200_000);
my $hang = new_proxy(mode => 'hang');

add_events_template($node, 'events');
add_events_template($node, 'sleepy',
	query => q{SELECT id, at, kind, amount, payload FROM events
		WHERE at >= '{TARGET_DATE}'::date AND pg_sleep(600) IS NOT NULL});
add_tenant($node, 'sleeping', $tenant, templates => ['sleepy']);
add_tenant($node, 'stalled', $tenant, port => $stall->{port}, templates => ['events']);
add_tenant($node, 'silent', $tenant, port => $hang->{port}, templates => ['events']);

# Ways to be stuck: template, phase, and the proxy that shows it.
my %stuck = (
	sleeping => [ 'sleepy', 'fetching', undef ],
	stalled => [ 'events', 'fetching', $stall ],
	silent => [ 'events', 'connecting', $hang ]);

# Waits until our session at the tenant is where it will not go on.
sub wait_for_tenant
{
	my ($name, $before) = @_;
	my ($template, $phase, $proxy) = @{ $stuck{$name} };

	if (defined $proxy)
	{
		proxy_reaches_limit($proxy, $before) or die 'the proxy was not reached';
		return;
	}
	$tenant->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'wh_reader' AND wait_event = 'PgSleep'")
	  or die 'the tenant does not sleep';
}

# Enqueues a job that gets stuck; returns its id and its worker's pid.
sub start_stuck_job
{
	my ($name) = @_;
	my ($template, $phase, $proxy) = @{ $stuck{$name} };
	my $before = defined $proxy ? proxy_reached_limit($proxy) : 0;

	sql($node, "SELECT _wh.resume_tenant('$name')");
	my $backfill = sql($node,
		"SELECT _wh.enqueue_backfill('$template', '$name', '$day', '$day', NULL, 'all')");
	my $job = sql($node,
		"SELECT job_id FROM _wh.jobs WHERE backfill_id = $backfill AND kind = 'refresh'");

	wait_for_tenant($name, $before);
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM _wh.worker_status WHERE job_id = $job AND state = '$phase'")
	  or die "job $job is not $phase";
	# What is put back into the queue shall not start again.
	sql($node, "SELECT _wh.pause_tenant('$name')");
	return ($job, worker_pid($node, "job_id = $job"));
}

sub nothing_left_at_tenant
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	happens_within($tenant, 1, tenant_sessions() =~ s/count\(\*\)/count(*) = 0/r,
		"$what: a second later the tenant has no session of ours");
}

foreach my $name ('sleeping', 'stalled', 'silent')
{
	my ($template) = @{ $stuck{$name} };

	my ($job, $pid) = start_stuck_job($name);
	my $since = time();
	sql($node, "SELECT pg_cancel_backend($pid)");
	happens_within($node, 2, "SELECT state = 'cancelled' FROM _wh.jobs WHERE job_id = $job",
		"$name: pg_cancel_backend cancels the job", $since);
	nothing_left_at_tenant("$name, pg_cancel_backend");
	is( sql($node, "SELECT status FROM _wh.job_run_details WHERE job_id = $job"),
		'cancelled', "$name: and the history says so");

	($job, $pid) = start_stuck_job($name);
	$since = time();
	is(sql($node, "SELECT _wh.cancel_job($job)"), 1, "$name: cancel_job finds the job");
	happens_within($node, 2,
		"SELECT state = 'cancelled' AND NOT EXISTS (SELECT FROM _wh.worker_status WHERE job_id = $job) FROM _wh.jobs WHERE job_id = $job",
		"$name: cancel_job cancels it", $since);
	nothing_left_at_tenant("$name, cancel_job");

	($job, $pid) = start_stuck_job($name);
	$since = time();
	sql($node, "SELECT pg_terminate_backend($pid)");
	happens_within($node, 2,
		"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)",
		"$name: pg_terminate_backend ends the worker", $since);
	nothing_left_at_tenant("$name, pg_terminate_backend");
	wait_for_job($node, "job_id = $job", 'queued',
		"$name: and its job goes back to the queue");
	is(sql($node, "SELECT _wh.cancel_job($job)"), 1, "$name: where it can be cancelled");

	# A call that runs at once obeys its own session's cancel.
	my $before = defined $stuck{$name}[2] ? proxy_reached_limit($stuck{$name}[2]) : 0;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/called/,
		"\\echo called\nSELECT _wh.update_mv_by_template('$template', '$name', '$day');\n");
	wait_for_tenant($name, $before);
	$since = time();
	sql($node, "SELECT pg_cancel_backend($pid)");
	happens_within($node, 2,
		"SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid",
		"$name: pg_cancel_backend ends a call", $since);
	nothing_left_at_tenant("$name, a call that was cancelled");
	$session->query('SELECT 1');
	like($session->{stderr}, qr/canceling statement due to user request/,
		"$name: and it is an ERROR, as with any statement");
	$session->quit;

	($job, $pid) = start_stuck_job($name);
	$since = time();
	$node->stop('fast');
	cmp_ok(time() - $since, '<=', 2, "$name: fast shutdown takes no longer than two seconds");
	nothing_left_at_tenant("$name, fast shutdown");
	$node->start;
	wait_for_job($node, "job_id = $job", 'queued',
		"$name: after the start its job is queued again");
	is(sql($node, "SELECT _wh.cancel_job($job)"), 1, "$name: and can be cancelled");
}

is(sql($node, "SELECT count(*) FROM pg_class WHERE relkind = 'm'"),
	0, 'nothing was half-made');
is( sql($node, "SELECT count(*) FROM _wh.jobs WHERE state IN ('queued', 'running') AND kind = 'refresh'"),
	0, 'no job is left');

stop_proxy($_) foreach ($stall, $hang);
done_testing();
