# Backfills read a tenant no faster than its limits, all workers together, and
# nothing else is held; a worker needs no more memory for a larger day.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse(conf => { 'wh_worker.max_workers_per_tenant' => 3, 'wh_worker.worker_idle_timeout' => "'1s'" });

create_events($production, '2025-01-01', 10, 300);
add_events_template($node, 'events');
add_tenant($node, 'shop', $production, templates => ['events'], start_date => '2025-01-01');

sub limit
{
	my ($rows, $bytes) = @_;

	return sql($node, sprintf('UPDATE _wh.tenant_connections SET max_rows_per_second = %s, max_bytes_per_second = %s',
		$rows // 'NULL', $bytes // 'NULL'));
}

sub settings
{
	my (%settings) = @_;

	$node->append_conf('postgresql.conf', join '', map { "wh_worker.$_ = $settings{$_}\n" } sort keys %settings);
	return $node->reload;
}

sub enqueue
{
	my ($template, $first, $last) = @_;

	return sql($node, "SELECT _wh.enqueue_backfill('$template', 'shop', '$first', '$last', NULL, 'all')");
}

# How a backfill ends, and whether it took as long as its rows or bytes have to,
# but for what may come at once.
sub ends_held
{
	my ($id, $column, $per_second, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', "$name: it succeeds");
	return is(sql($node, qq{
		SELECT extract(epoch FROM max(d.end_time) - min(d.start_time)) >= sum(d.$column) / $per_second.0 - 0.1
		  FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id)
		 WHERE j.backfill_id = $id AND j.kind = 'refresh'}), 't', "$name: it takes its time");
}

# ---- what may be written -----------------------------------------------

foreach my $column ('max_rows_per_second', 'max_bytes_per_second')
{
	fails_with($node, "UPDATE _wh.tenant_connections SET $column = 0", '22023', qr/$column 0 is out of range/, "$column 0");
	fails_with($node, "UPDATE _wh.tenant_connections SET $column = -5", '22023', qr/$column -5 is out of range/, "$column -5");
}

# ---- rows --------------------------------------------------------------

limit(300);
my $id = enqueue('events', '2025-01-01', '2025-01-04');
wait_until($node, "SELECT count(*) = 2 FROM _wh.worker_status WHERE backfill_id = $id AND held_by = 'max_rows_per_second' AND state = 'fetching'",
	'two workers are held at once');
my $too_many = '';
my $samples = 0;
while (sql($node, "SELECT state FROM _wh.backfills WHERE backfill_id = $id") eq 'running')
{
	# A tenth of a second's worth may come at once, and a wait's worth for each
	# worker may have come just now.
	my $sample = sql($node, qq{
		WITH now_read AS MATERIALIZED (SELECT coalesce(sum(rows_fetched), 0) AS rows FROM _wh.worker_status WHERE backfill_id = $id),
		done AS MATERIALIZED (SELECT min(started_at) AS since, count(*) FILTER (WHERE state = 'succeeded') * 300 AS rows
			FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh')
		SELECT concat_ws(' ', n.rows, extract(epoch FROM clock_timestamp() - d.since))
		FROM now_read n, done d WHERE n.rows > 300 * extract(epoch FROM clock_timestamp() - d.since) + 30 + 30});

	$too_many = $sample if $sample ne '';
	$samples++;
}
is($too_many, '', 'at no time more rows were read than may be');
cmp_ok($samples, '>', 3, 'as was looked for more than once');
ends_held($id, 'rows', 300, '1200 rows of four days by two workers, 300 a second');
is(sql($node, 'SELECT count(*) FROM _wh.worker_status WHERE held_by IS NOT NULL'), 0, 'nobody is held in the end');

# ---- bytes -------------------------------------------------------------

limit(undef, 40000);
$id = enqueue('events', '2025-01-01', '2025-01-03');
wait_until($node, "SELECT count(*) > 0 FROM _wh.worker_status WHERE backfill_id = $id AND held_by = 'max_bytes_per_second'", 'bytes hold as well');
ends_held($id, 'bytes', 40000, 'bytes of three days');
limit(1000000, 40000);
$id = enqueue('events', '2025-01-01', '2025-01-02');
ends_held($id, 'bytes', 40000, 'the lower of two limits');

# ---- what is not held --------------------------------------------------

limit(1, 1);
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2025-01-05')"), 't', 'a function that runs at once is not held');
is((enqueue_and_wait($node, "'events', 'shop', '2025-01-05', '2025-01-05', NULL, 'all'"))[1], 'succeeded', 'nor is a day for which somebody waits');
is(sql($node, "SELECT count(*) FROM _wh.fetch_day('events', 'shop', '2025-01-05') AS t(id integer, at timestamp, kind text, amount numeric, payload text)"), 300, 'nor fetch_day');

# ---- an end to it ------------------------------------------------------

limit(1);
$id = enqueue('events', '2025-01-01', '2025-01-10');
wait_until($node, "SELECT count(*) > 1 FROM _wh.worker_status WHERE backfill_id = $id AND held_by IS NOT NULL", 'one row a second');
cmp_ok(sql($node, "SELECT _wh.cancel_backfill($id)"), '>=', 8, 'a backfill that is held');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'cancelled', 'can be cancelled');
limit();
is((enqueue_and_wait($node, "'events', 'shop', '2025-01-01', '2025-01-10', NULL, 'all'"))[1], 'succeeded', 'without a limit all is as before');

# ---- time limits of either side ----------------------------------------

# Rows so wide that the connection's buffers are full, and the tenant waits.
add_events_template($node, 'wide', columns => 'id INTEGER, payload TEXT', indexes => '',
	query => q{SELECT n AS id, repeat(md5(n::text), 200000) AS payload FROM generate_series(1, 4) AS n WHERE '{TARGET_DATE}' <> ''});
settings(fetch_idle_timeout => '1s');
$production->safe_psql('postgres', "ALTER ROLE wh_reader SET $_") foreach ("statement_timeout = '1s'",
	"idle_in_transaction_session_timeout = '500ms'", "tcp_user_timeout = '500ms'");
limit(1);
$id = sql($node, "SELECT _wh.enqueue_backfill('wide', 'shop', '2025-01-01', '2025-01-02')");
ends_held($id, 'rows', 1, 'pauses longer than the time limits of either side');
is(sql($node, "SELECT string_agg(attempt::text, ' ') FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), '1 1', 'without another attempt');
limit();
settings(fetch_idle_timeout => '5min');
$production->safe_psql('postgres', 'ALTER ROLE wh_reader RESET ALL');

# ---- memory ------------------------------------------------------------

# Bytes of a process that are not the server's shared memory, its share of
# what it shares otherwise.
sub memory_of
{
	my ($pid) = @_;
	my $bytes = 0;
	my $counts = 0;

	open my $maps, '<', "/proc/$pid/smaps" or return 0;
	while (my $line = <$maps>)
	{
		$counts = $2 !~ m{^(?:/dev/zero|/dev/shm|/SYSV|/anon_hugepage)} if $line =~ /^[0-9a-f]+-[0-9a-f]+ (\S+ ){4}\s*(.*)$/;
		$bytes += $1 * 1024 if $counts && $line =~ /^Pss:\s+(\d+) kB/;
	}
	close $maps or return 0;
	return $bytes;
}

# The most that a worker of its own needs for that day.
sub peak_for
{
	my ($template, $date, $rows) = @_;
	my $most = 0;

	wait_until($node, "SELECT count(*) = 0 FROM _wh.worker_status WHERE backend_type = 'wh_worker worker'", 'no worker is left');
	my $id = sql($node, "SELECT _wh.enqueue_backfill('$template', 'shop', '$date', '$date')");

	while (1)
	{
		my ($state, $pid) = split /\|/, sql($node, "SELECT state, owner_pid FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'");

		if (defined $pid && $pid ne '')
		{
			my $bytes = memory_of($pid);

			$most = $bytes if $bytes > $most;
		}
		last if $state !~ /queued|running/;
	}
	is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', "$template of $date is loaded");
	is(sql($node, "SELECT rows FROM _wh.day_loads WHERE template_name = '$template' AND target_date = '$date'"), $rows, "$rows rows");
	return $most;
}

sub needs_no_more
{
	my ($name, $columns, $select, $few, $many) = @_;

	add_events_template($node, $name, columns => $columns, indexes => '',
		query => "SELECT $select FROM generate_series(1, CASE '{TARGET_DATE}' WHEN '2025-02-01' THEN $many ELSE $few END) AS n");
	my $large = peak_for($name, '2025-02-01', $many);
	my $small = 0;

	# one may be over before it is looked at
	for (my $day = 2; $day < 29 && $small == 0; $day++)
	{
		$small = peak_for($name, sprintf('2025-02-%02d', $day), $few);
	}
	note(sprintf('%s: %.1f MB for %d rows, %.1f MB for %d', $name, $small / 2**20, $few, $large / 2**20, $many));
	cmp_ok($_, '>', 0, "$name: the memory is seen") foreach $large, $small;
	return cmp_ok($large - $small, '<', 16 * 2**20, "$name: a larger day needs no more of it");
}

SKIP:
{
	skip 'no /proc/PID/smaps', 1 if !-r '/proc/self/smaps';
	skip 'AddressSanitizer keeps what was freed', 1 if $ENV{SANITIZE};
	needs_no_more('many', 'id INTEGER, payload TEXT, at TIMESTAMP, amount NUMERIC',
		"n AS id, md5(n::text) AS payload, timestamp '2025-02-01' + n * interval '1 ms' AS at, n / 7.0 AS amount", 10_000, 1_000_000);
	# ANALYZE keeps up to 30,000 rows of a day, whatever they are.
	needs_no_more('columns', join(', ', map { "c$_ INTEGER" } 1 .. 200), join(', ', map { "n + $_ AS c$_" } 1 .. 200), 30_000, 90_000);
	needs_no_more('toasted', 'id INTEGER, payload TEXT',
		"n AS id, (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 600) AS i) AS payload", 1_000, 4_000);
}

done_testing();
