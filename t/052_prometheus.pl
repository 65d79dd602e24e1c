# The real exporter reads the metrics, the real Prometheus scrapes it, and each of
# the shipped alerts fires for a real fault and clears when that is mended.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use POSIX qw(strftime);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhPrometheus;
use WhTest;

my $production = new_tenant('production');
my $shaky = new_tenant('shaky');
# Room for 400 locks, as in t/023_union_health.pl.
my $node = new_warehouse(conf => {
	max_connections => 20, max_locks_per_transaction => 10,
	room_for_autovacuum(3), max_wal_senders => 0, max_worker_processes => 16,
	'wh_worker.connect_timeout' => "'2s'" });
my $indexes = join '; ', map { "CREATE INDEX {view_name}_$_ ON {schema}.{view_name} ($_)" } qw(id at kind);

create_events($production, '2024-01-01', 70, 20);
create_events($shaky, '2024-01-01', 2, 20);
add_events_template($node, 'events');
add_events_template($node, 'wide', indexes => $indexes);
add_tenant($node, 'shop', $production, templates => [ 'events', 'wide' ], start_date => '2024-01-01');
add_tenant($node, 'corner "shop"', $shaky, templates => ['events'], start_date => '2024-01-01');
sql($node, 'CREATE ROLE wh_metrics LOGIN IN ROLE pg_monitor');

sub load
{
	my ($arguments, $state) = @_;
	my ($id, $end) = enqueue_and_wait($node, $arguments);

	is($end, $state // 'succeeded', "backfill of $arguments");
	return $id;
}

# ---- what is shipped ---------------------------------------------------

# Names of metrics in an expression, or in all of them.
sub metrics_in
{
	my ($expression) = @_;

	return grep { $_ ne 'wh_worker' } $expression =~ /\b(wh_\w+)/g;
}

load(q{'events', NULL, '2024-01-01', '2024-01-02'});
my %exists = map { $_ => 1 } split /\n/, sql($node, 'SELECT DISTINCT name FROM _wh.metrics');
my $dashboard = decode_json(shipped_file('grafana-dashboard.json'));
my @expressions = map { map { $_->{expr} } @{ $_->{targets} // [] } } @{ $dashboard->{panels} };
my $rules = shipped_file('wh_worker.rules.yml');
my %alert = map { $_ => 1 } $rules =~ /alert: (\w+)/g;

cmp_ok(scalar(@expressions), '>=', 15, 'the dashboard has expressions');
# What nothing has been seen of yet exists all the same.
my %sparse = map { $_ => 1 } qw(wh_data_promise wh_failed_jobs wh_tenant_consecutive_failures);
is_deeply([ grep { !$exists{$_} && !$sparse{$_} } map { metrics_in($_) } @expressions, $rules =~ s/runbook:.*//gr ], [],
	'dashboard and rules name metrics that exist');
is_deeply([ grep { $_ !~ /wh_/ } @expressions ], [], 'and each names one');
is_deeply([ sort keys %alert ], [ sort qw(WhDataStale WhDataAtRisk WhJobsFailed WhTenantSetAside WhQueueNotMoving WhLauncherGone WhMetricsGone WhUnionLocks WhTooManySuspectDays) ], 'the alerts');
is_deeply([ $rules =~ m{runbook: (\S+)}g ], [ map { "docs/operations.md#\L$_" } $rules =~ /alert: (\w+)/g ], 'each has its run-book');
is(sql($node, sprintf q{SELECT string_agg(DISTINCT k, ', ') FROM _wh.metrics, jsonb_object_keys(labels) k WHERE k NOT IN (%s)},
		join ', ', map { "'$_'" } shipped_file('sql_exporter.yml') =~ /^ {10}- (\w+)$/mg), '', 'the exporter hands on every label');

my $documentation = slurp_file(source_root() . '/docs/monitoring.md');
my %documented = map { $_ => 1 } $documentation =~ /`(wh_\w+)`/g;
is_deeply([ grep { !$documented{ s/_(?:bucket|sum|count)$//r } } sort keys %exists ], [], 'every metric is documented');
is_deeply([ grep { !$exists{$_} && !$exists{"${_}_bucket"} && !$sparse{$_} } sort grep { !/^wh_(?:metrics|worker)$/ } keys %documented ], [], 'and what is documented exists');
is_deeply([ sort $documentation =~ /^\| `(Wh\w+)`/mg ], [ sort keys %alert ], 'the alerts as well');

# ---- from the view to Prometheus ---------------------------------------

start_exporter($node, 'wh_metrics', 'postgres');
start_prometheus();
wait_for_answer('sum(wh_loads_total{result="succeeded",template="events"})', '4', 'Prometheus has what was counted');
is_deeply(alerts_known(), [ sort keys %alert ], 'it knows the alerts');
wait_for_alerts('', 'no alert fires');
my @missing = grep { my $series = ask("{__name__=\"$_\"}"); !$series || !@$series } sort keys %exists;
is_deeply(\@missing, [], 'every metric is there under its name');
is_deeply([ sort keys %{ ask('wh_launcher_up')->[0] } ], [qw(__name__ database instance job value)], 'without labels that say nothing');
is_deeply([ map { $_->{tenant} } @{ ask('wh_data_lag_seconds{tenant=~"corner.*"}') } ], ['corner "shop"'], 'names are what they are');
is(ask('wh_load_duration_seconds_bucket{template="events",le="+Inf"}')->[0]{value}, '4', 'a histogram has its bucket of all');
foreach my $expression (@expressions)
{
	my $query = $expression =~ s/\$__rate_interval/1m/gr =~ s/\$database/postgres/gr;

	ok(defined ask($query), "Prometheus understands $query");
}

# ---- each alert, fired and cleared -------------------------------------

my %seen;

sub fires
{
	my ($expected, $name, @labels) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$seen{$1} = 1 while $expected =~ /(Wh\w+)/g;
	return wait_for_alerts($expected, $name, @labels);
}

sub clears
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for_alerts('', $name);
}

# A table that is gone.
sql($production, 'ALTER TABLE events RENAME TO moved');
my $id = load(q{'events', 'shop', '2024-01-03', '2024-01-04'}, 'failed');
fires('WhJobsFailed events', 'days that failed', 'template');
sql($production, 'ALTER TABLE moved RENAME TO events');
sql($node, "SELECT _wh.retry_failed($id)");
clears('until they are loaded');

# A tenant that is down.
$shaky->stop('immediate');
$id = sql($node, q{SELECT _wh.enqueue_backfill('events', 'corner "shop"', '2024-01-01', '2024-01-02', mode => 'all')});
fires('WhTenantSetAside corner "shop"', 'a tenant that is down', 'tenant');
$shaky->start;
clears('until it is there again');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'and its days are loaded');

# A launcher that hangs.
my $launcher = sql($node, q{SELECT pid FROM _wh.worker_status WHERE backend_type LIKE '%launcher'});
kill 'STOP', $launcher;
$id = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2024-01-05', '2024-01-05')});
fires('WhQueueNotMoving', 'a launcher that hangs');
kill 'CONT', $launcher;
clears('until it goes on');

# A launcher that is gone.
sql($node, 'ALTER SYSTEM SET wh_worker.enabled = off; SELECT pg_reload_conf()');
fires('WhLauncherGone postgres', 'a launcher that is gone', 'database');
sql($node, 'ALTER SYSTEM RESET wh_worker.enabled; SELECT pg_reload_conf()');
clears('until it is back');

# Days that look wrong: of twenty rows one is left.
load(q{'events', 'shop', '2024-01-06', '2024-01-20'});
sql($node, q{UPDATE _wh.mv_templates SET suspect_factor = 3 WHERE template_name = 'events'});
sql($production, q{CREATE TABLE saved AS SELECT * FROM events WHERE at::date BETWEEN '2024-01-15' AND '2024-01-20';
	DELETE FROM events WHERE at::date BETWEEN '2024-01-15' AND '2024-01-20' AND id % 20 <> 1});
load(q{'events', 'shop', '2024-01-15', '2024-01-20', mode => 'all'});
fires('WhTooManySuspectDays events', 'days with too few rows', 'template');
sql($production, 'DELETE FROM events e USING saved s WHERE e.id = s.id; INSERT INTO events SELECT * FROM saved');
load(q{'events', 'shop', '2024-01-15', '2024-01-20', mode => 'all'});
clears('until their rows are there');

# A view over too many days.
load(q{'wide', 'shop', '2024-01-01', '2024-02-29'});
fires('WhUnionLocks wide public, WhUnionLocks wide tenant', 'views that lock much', 'template', 'view');
sql($node, 'ALTER SYSTEM SET max_locks_per_transaction = 40');
$node->restart;
clears('until the server has room for them');

# A promise: a schedule that is paused will break it, has broken it, and goes on.
my $tomorrow = strftime('%Y-%m-%d', gmtime(time() + 86400));
step_clock($node, "$tomorrow 12:00:00");
add_events_template($node, 'promised', schedule => '*/10 * * * *');
sql($node, qq{UPDATE _wh.mv_templates SET fresh_within = '1 hour' WHERE template_name = 'promised';
	SELECT _wh.subscribe('shop', 'promised', NULL, '$tomorrow'); SELECT _wh.setup_cron('promised')});
my $schedule = sql($node, q{SELECT name FROM _wh.schedules WHERE template_name = 'promised' AND kind = 'refresh'});
load("'promised', 'shop', '$tomorrow', '$tomorrow'");
wait_for_answer('wh_subscriptions{template="promised",state="fresh"}', '1', 'a promise that is kept');
wait_for_alerts('', 'is no reason for an alert');
sql($node, "SELECT _wh.pause_schedule('$schedule')");
fires('WhDataAtRisk promised shop', 'a promise that will be broken', 'template', 'tenant');
step_clock($node, "$tomorrow 14:00:00");
fires('WhDataStale promised shop', 'a promise that is broken', 'template', 'tenant');
sql($node, "SELECT _wh.resume_schedule('$schedule')");
step_clock($node, "$tomorrow 14:10:01");
clears('until the schedule has loaded the day');

# Nobody there to ask: neither the server nor the exporter.
$node->stop('fast');
fires('WhMetricsGone', 'a server that is down');
$node->start;
clears('until it is up');
stop_exporter();
fires('WhMetricsGone', 'an exporter that is down');
start_exporter($node, 'wh_metrics', 'postgres');
clears('until it is up as well');

is_deeply([ grep { !$seen{$_} } sort keys %alert ], [], 'every alert was seen');

done_testing();
