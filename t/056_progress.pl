# What is to be seen of a load while it runs: in pg_stat_progress_copy, in
# pg_stat_activity, in the process title, at the tenant; and that nothing of it
# stays when the load ends, however it does.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $tenant = new_tenant('tenant');
create_events($tenant, '2025-07-01', 4, 4000, width => 100);
my $proxy = new_proxy(target => $tenant->port, mode => 'stall', limit => 300_000);
my $node = new_warehouse(conf => { 'wh_worker.max_workers' => 2 });
my $version = sql($node, q{SELECT current_setting('server_version_num')::int / 10000});

add_events_template($node, 'events');
add_tenant($node, 'shop', $tenant, templates => ['events'], start_date => '2025-07-01');
add_tenant($node, 'slow', $tenant, port => $proxy->{port}, templates => ['events'], start_date => '2025-07-01');

my $progress = 'SELECT count(*) FROM pg_stat_progress_copy';
my $row = q{FROM pg_stat_progress_copy p JOIN _wh.worker_status s USING (pid) JOIN pg_stat_activity a USING (pid)};

sub enqueue
{
	my ($name, $day) = @_;

	return sql($node, "SELECT _wh.enqueue_backfill('events', '$name', '$day', '$day', mode => 'all')");
}

# Another port needs the password again.
sub move
{
	my ($name, $port) = @_;

	sql($node, "UPDATE _wh.tenant_connections SET port = $port WHERE tenant_name = '$name'");
	sql($node, sprintf q{UPDATE _wh.tenant_connections SET password = '%s' WHERE tenant_name = '%s'}, reader_password(), $name);
	return;
}

# The process title, where the system shows it as a file.
sub title_of
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/cmdline") =~ s/\0+$//r =~ s/\0/ /gr;
}

# ---- while a day loads -------------------------------------------------

my $backfill = enqueue('slow', '2025-07-01');

wait_for_proxy_limit($proxy, 'a tenant that stops in the middle of its rows');
wait_until($node, "SELECT count(*) = 1 $row WHERE p.bytes_processed > 100000 AND p.tuples_processed > 500 AND p.tuples_processed < 4000", 'rows and bytes that came are shown');
is(sql($node, "SELECT p.command || ', ' || p.type || ', ' || p.datname || ', ' || p.bytes_total || ', ' || p.tuples_excluded $row"), 'COPY FROM, CALLBACK, postgres, 0, 0', 'as a COPY');
is( sql($node, "SELECT a.state || ': ' || a.query || ' [' || a.application_name || ']' $row"),
	'active: wh_worker: refresh events 2025-07-01 from slow into slow, fetching []', 'pg_stat_activity names the tenant, the day and the phase');
is(sql($node, "SELECT a.wait_event_type || ' ' || a.wait_event $row"), $version >= 17 ? 'Extension WhTenantRead' : 'Extension Extension', 'and what it waits for');
wait_until($node, "SELECT bool_and(state = 'idle') FROM pg_stat_activity WHERE backend_type = 'wh_worker launcher'", 'the launcher is idle');

my ($query) = slurp_file(source_root() . '/docs/operations.md') =~ /^## Watching a load\n.*?^```sql\n(.*?)^```/ms;
my $pid = worker_pid($node, q{tenant_name = 'slow'});

like(sql($node, $query), qr/^$pid\|events\|slow\|2025-07-01\|fetching\|[1-9]\d*\|[1-9]\d*\|\w+$/, 'the query that the docs give');
like(title_of($pid), qr/wh_worker worker for postgres.* refresh events 2025-07-01 from slow into slow, fetching$/, 'so does the process title') if -r "/proc/$pid/cmdline";
is(sql($tenant, q{SELECT application_name FROM pg_stat_activity WHERE usename = 'wh_reader' AND query LIKE 'COPY%'}), 'wh_worker: events 2025-07-01 for postgres', 'the tenant sees who reads what');
sql($node, 'CREATE ROLE nobody LOGIN');
is( sql($node, q{SET ROLE nobody; SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%slow%' OR application_name LIKE '%slow%'}), 0, 'who is nobody sees no name of a tenant');

sql($node, "SELECT _wh.cancel_backfill($backfill)");
wait_until($node, "SELECT ($progress) = 0", 'a load that was cancelled is shown no more');
wait_until($node, "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid", 'its worker is idle');
like(title_of($pid), qr/ idle$/, 'and says so') if -r "/proc/$pid/cmdline";

# ---- while a day is loaded again ---------------------------------------

stop_proxy($proxy);
my (undef, $state) = enqueue_and_wait($node, q{'events', 'shop', '2025-07-01', '2025-07-02'});
is($state, 'succeeded', 'two days');
is(sql($node, $progress), 0, 'of which nothing stays');

my $holder = $tenant->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
$backfill = enqueue('shop', '2025-07-01');
wait_until($tenant, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'wh_reader' AND wait_event_type = 'Lock'}, 'another load of one of them waits at the tenant');
is(sql($node, $progress), 0, 'no row has come: nothing is shown');
$holder->query_safe('ROLLBACK');
$holder->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'it goes on');

$proxy = new_proxy(target => $tenant->port, mode => 'stall', limit => 300_000);
move('shop', $proxy->{port});
$backfill = enqueue('shop', '2025-07-01');
wait_for_proxy_limit($proxy, 'the same in the middle of its rows');
wait_until($node, "SELECT count(*) = 1 $row WHERE p.relid = 'shop.events_2025_07_01'::regclass AND p.tuples_processed > 500", 'it is shown as the day, not as a heap that nobody knows');

# an error, not a cancel
sql($tenant, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'wh_reader' AND state <> 'idle'});
stop_proxy($proxy);
wait_until($node, q{SELECT count(*) > 0 FROM _wh.job_run_details WHERE status = 'retrying' AND phase = 'fetching'}, 'the connection is lost');
sql($node, "SELECT _wh.cancel_backfill($backfill)");
wait_until($node, "SELECT ($progress) = 0", 'and nothing of it stays');
move($_, $tenant->port) foreach qw(shop slow);

# ---- within what a session does itself ---------------------------------

# A trigger on what it is told of a load says what its session shows then.
sql($node, q{
	CREATE TABLE public.seen (command text, relid oid, tuples bigint, bytes bigint);
	CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
	BEGIN
		INSERT INTO public.seen SELECT command, relid, tuples_processed, bytes_processed FROM pg_stat_progress_copy WHERE pid = pg_backend_pid();
		RETURN NULL;
	END $$;
	CREATE TRIGGER look AFTER INSERT OR UPDATE ON _wh.day_loads FOR EACH ROW EXECUTE FUNCTION public.look();
});
sql($node, q{SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-02', false)});
is(sql($node, 'SELECT count(*) FROM public.seen'), 0, 'a load at once is over when it is recorded');
$node->safe_psql('postgres', q{COPY (SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-02', false)) TO STDOUT});
is(sql($node, q{SELECT string_agg(DISTINCT command || ' ' || relid || ' ' || tuples || ' ' || bytes, ',') FROM public.seen}), 'COPY TO 0 0 0', 'a COPY around one stays what it was');
sql($node, 'DROP TRIGGER look ON _wh.day_loads');

# ---- names -------------------------------------------------------------

my $long = 'é' x 25;
my $quoted = WhTest::literal($long);

add_events_template($node, $long, indexes => '');
sql($node, "SELECT _wh.subscribe('shop', $quoted, 'odd')");
$proxy = new_proxy(target => $tenant->port, mode => 'stall', limit => 300_000);
move('shop', $proxy->{port});
$backfill = sql($node, "SELECT _wh.enqueue_backfill($quoted, 'shop', '2025-07-03', '2025-07-03', 'odd')");
wait_for_proxy_limit($proxy, 'a template whose name is long, and not ASCII');
wait_until($node, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'wh_worker: refresh ' || $quoted || ' 2025-07-03 from shop into odd, fetching'", 'is shown as it is');
my $name = sql($tenant, q{SELECT application_name FROM pg_stat_activity WHERE usename = 'wh_reader' AND query LIKE 'COPY%'});
like($name, qr/^wh_worker: .* 2025-07-03 for postgres$/, 'at the tenant it is cut, and the day is not');
cmp_ok(length $name, '<=', 63, 'which has room for so much');
sql($node, "SELECT _wh.cancel_backfill($backfill)");
wait_until($node, "SELECT ($progress) = 0", 'it ends');
stop_proxy($proxy);

# ---- what wait events are called ---------------------------------------

SKIP:
{
	skip 'extensions have wait events of their own from PostgreSQL 17 on', 1 if $version < 17;
	is(sql($node, q{SELECT count(*) >= 4 FROM pg_wait_events WHERE type = 'Extension' AND name IN ('WhLauncherMain', 'WhWorkerMain', 'WhSupervisorMain', 'WhTenantRead', 'WhTenantConnect')}), 't', 'ours are listed');
}

done_testing();
