# A person locks a table of ours for a while, in the middle of a backfill: nothing
# hangs for ever, nothing loops, worker_status says which table and who has it,
# no tenant is kept waiting, and all goes on by itself when the lock goes.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my @tables = qw(warehouse jobs day_loads tenant_templates mv_templates tenant_connections schedules backfills);
my $source = new_tenant('source');
my $node = new_warehouse(conf => { max_prepared_transactions => 1, 'wh_worker.max_workers' => 3, 'wh_worker.worker_idle_timeout' => "'10min'" });
my ($first, $last) = ('2025-05-01', '2025-06-29');

create_events($source, $first, 60, 5);
add_events_template($node, $_) foreach 'events', 'leaves';
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'");
add_tenant($node, $_, $source, templates => [ 'events', 'leaves' ], start_date => $first) foreach 'shop', 'other';
sql($node, 'SELECT _wh.pause_schedule(name) FROM _wh.schedules');
sql($node, q{INSERT INTO _wh.schedules (name, schedule, kind, template_name) VALUES ('often', '1 second', 'publish', 'events')});
foreach my $template ('events', 'leaves')
{
	is((enqueue_and_wait($node, "'$template', NULL, '$first', '2025-05-03'"))[1], 'succeeded', "days of $template to begin with");
}

my $launcher = q{SELECT %s FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'};

# What the launcher and the workers wrote into the log from there on.
sub lines_since
{
	my ($offset) = @_;

	return log_count($node, qr/ (?:LOG|WARNING|ERROR|FATAL):  /, $offset) - log_count($node, qr/ LOG:  backfill \d+ /, $offset);
}

sub holder
{
	my ($lock) = @_;
	my $session = $node->background_psql('postgres', timeout => 4 * $PostgreSQL::Test::Utils::timeout_default);
	my $pid = $session->query_safe("BEGIN; $lock; SELECT pg_backend_pid()");

	return ($session, $pid);
}

sub go_on
{
	my ($session, $id, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$session->query_safe('COMMIT');
	$session->quit;
	is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', "$what: the backfill goes on by itself");
	wait_until($node, sprintf($launcher, "state = 'idle' AND last_error IS NULL AND blocked_by IS NULL"), "$what: the launcher is at rest again");
	is(sql($node, 'SELECT max(attempt) FROM _wh.jobs WHERE backfill_id = ' . $id), '1', "$what: no attempt was spent on it");
	return;
}

foreach my $i (0 .. $#tables)
{
	my $table = $tables[$i];
	my $template = $i % 2 ? 'events' : 'leaves';
	my $id = sql($node, "SELECT _wh.enqueue_backfill('$template', NULL, '$first', '$last', mode => 'all')");

	wait_until($node, "SELECT count(*) > 5 FROM _wh.jobs WHERE backfill_id = $id AND state = 'succeeded'", "$table: a backfill is under way");
	my $before = log_end($node);
	my ($session, $pid) = holder("LOCK TABLE _wh.$table IN ACCESS EXCLUSIVE MODE");
	my $offset = log_end($node);

	wait_until($node, sprintf($launcher, "state = 'waiting' AND last_error = 'table \"_wh.$table\" is locked by process $pid' AND blocked_by = '{$pid}'"),
		"$table: worker_status says that it is locked, and by whom");
	wait_until($node, "SELECT bool_and(job_id IS NULL OR blocked_by = '{$pid}') FROM _wh.worker_status WHERE backend_type = 'wh_worker worker'",
		"$table: and so of the workers that wait");
	ok($source->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'wh_reader' AND (state <> 'idle' OR wait_event <> 'ClientRead')}),
		"$table: no transaction at the tenant waits with them");
	is(sql($node, 'SELECT count(DISTINCT at::date) >= 3 FROM public.events'), 't', "$table: readers go on");
	# it looks each half a second; so long that it would have failed again and again
	wait_until($node, sprintf($launcher, "clock_timestamp() > phase_started_at + interval '4 s'"), "$table: four seconds go by");
	cmp_ok(lines_since($offset), '<=', 3, "$table: the log does not fill");
	is(log_count($node, qr/wh_worker waits in database "postgres": table "_wh.$table" is locked by process $pid/, $before), 1, "$table: it says so once");
	go_on($session, $id, $table);
	is(log_count($node, qr/ (?:FATAL|PANIC):  /, $offset), 0, "$table: nobody died of it");
}

same_content($node, 'SELECT id, at, kind, amount, payload FROM shop.events', $source, events_query($first, $last), 'all days are what the tenant has');
same_content($node, 'SELECT id, at, kind, amount, payload FROM other.leaves', $source, events_query($first, $last), 'in both layouts');

# ---- weaker locks keep us out too, and a shutdown waits for nobody -----

my $id = sql($node, "SELECT _wh.enqueue_backfill('events', NULL, '$first', '$last', mode => 'all')");
my ($session, $pid) = holder('LOCK TABLE _wh.day_loads IN SHARE MODE');
wait_until($node, sprintf($launcher, "last_error = 'table \"_wh.day_loads\" is locked by process $pid'"), 'a lock that lets read is seen');
is(sql($node, "SELECT count(*) > 0 FROM _wh.day_loads"), 't', 'reading goes on');
go_on($session, $id, 'day_loads in share mode');

# ---- a lock that no process holds ---------------------------------------

# While the session that prepared it does something else, and after a restart.
$id = sql($node, "SELECT _wh.enqueue_backfill('events', NULL, '$first', '$last', mode => 'all')");
($session) = holder('LOCK TABLE _wh.jobs IN ACCESS EXCLUSIVE MODE');
my $offset = log_end($node);
$session->query_safe("PREPARE TRANSACTION 'a night'");
my $prepared = sprintf $launcher, q{state = 'waiting' AND last_error = 'table "_wh.jobs" is locked by a prepared transaction' AND blocked_by = '{0}'};
wait_until($node, $prepared, 'a prepared transaction is told from the session that prepared it');
wait_until($node, sprintf($launcher, "clock_timestamp() > phase_started_at + interval '4 s'"), 'four seconds go by');
cmp_ok(lines_since($offset), '<=', 3, 'the log does not fill');
$session->quit;
$node->stop('fast');
$node->start;
wait_until($node, $prepared, 'after a restart too');
sql($node, "ROLLBACK PREPARED 'a night'");
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'and the backfill goes on by itself');

$id = sql($node, "SELECT _wh.enqueue_backfill('events', NULL, '$first', '$last', mode => 'all')");
($session, $pid) = holder('LOCK TABLE _wh.jobs, _wh.day_loads, _wh.warehouse IN ACCESS EXCLUSIVE MODE');
wait_until($node, sprintf($launcher, "last_error ~ 'is locked by process $pid'"), 'three tables are locked');
$node->stop('fast');
pass('a fast shutdown waits for nobody');
$session->{run}->finish if exists $session->{run};
$node->start;
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'after the start the backfill goes on');
same_content($node, 'SELECT id, at, kind, amount, payload FROM shop.events', $source, events_query($first, $last), 'to the same content');

$node->stop;
$source->stop;
done_testing();
