# Who reads all through a combine or a late day always reads the truth, and loads
# that meet a combine find their day where it is.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse();
my ($first, $last) = ('2024-01-29', '2024-03-03');
my $columns = 'id, at, kind, amount, payload';

add_events_template($node, 'events');
create_events($production, $first, 35, 40, width => 3000);
add_tenant($node, 'shop', $production, templates => ['events'], start_date => $first);

sub content
{
	return checksum($node, "SELECT $columns FROM shop.events");
}

sub source_content
{
	return checksum($production, "SELECT $columns FROM events");
}

my $combine_month = "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2024, 2) AS j";
my $combine_year = "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_year('events', 'shop', 'shop', 2024, true) AS j";

# ---- readers all through -----------------------------------------------

# An answer is right if it is that of before or that of after; a wrong one divides by zero.
my @readers;
my $sum = "count(*)::text || ' ' || sum(hashtext(id || kind || payload)::bigint)";

sub answer
{
	my ($server, $from) = @_;

	return sql($server, "SELECT $sum FROM $from");
}

sub start_readers
{
	my (@answers) = @_;
	my $right = join ', ', map { "'$_'" } @answers;
	my $directory = PostgreSQL::Test::Utils::tempdir();

	foreach my $view ('shop.events', 'public.events')
	{
		my $file = "$directory/" . $view =~ s/\./_/r;

		PostgreSQL::Test::Utils::append_to_file($file, "SELECT 1 / ($sum IN ($right))::integer FROM $view;\n");
		my %reader = (view => $view, out => '', err => '');
		$reader{run} = IPC::Run::start(
			[ 'pgbench', '-n', '-T', '600', '-f', $file, '-h', $node->host, '-p', $node->port, '-U', 'phood_ro', 'postgres' ],
			'<', \undef, '>', \$reader{out}, '2>', \$reader{err});
		push @readers, \%reader;
	}
	wait_until($node, "SELECT count(*) = 2 FROM pg_stat_activity WHERE usename = 'phood_ro' AND query LIKE 'SELECT 1 /%'", 'readers run');
	return;
}

# SIGALRM is how pgbench learns that its time is over.
sub readers_were_right
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $reader (@readers)
	{
		$reader->{run}->signal('ALRM');
		$reader->{run}->finish;
		is($reader->{run}->full_result(0), 0, "$name: every answer through $reader->{view} was right") or diag $reader->{err};
		my ($answers) = $reader->{out} =~ /transactions actually processed: (\d+)/;
		cmp_ok($answers, '>', 1, "$name: it had $answers answers");
	}
	@readers = ();
	return;
}

$production->safe_psql('postgres', "UPDATE events SET kind = 'none' WHERE kind IS NULL");
is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$last', NULL, 'all'"))[1], 'succeeded', 'days are loaded');
sql($node, "ALTER ROLE phood_ro LOGIN");
my $now = answer($production, 'events');
is(answer($node, 'public.events'), $now, 'the answer is that of the tenant');

start_readers($now);
is(sql($node, $combine_month), 'combined', 'a month is combined');
readers_were_right('a month');

start_readers($now);
is(sql($node, $combine_year), 'combined', 'a year is combined');
readers_were_right('a year');

change_events($production, '2024-02-19');
start_readers($now, answer($production, 'events'));
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-19', '2024-02-19', NULL, 'all'"))[1], 'succeeded', 'a late day is loaded');
readers_were_right('a late day');
is(answer($node, 'public.events'), $now = answer($production, 'events'), 'it is there');

change_events($production, '2024-02-20');
sql($node, q{UPDATE _wh.mv_templates SET indexes = 'CREATE INDEX idx_{view_name}_kind ON {schema}.{view_name} (kind)'});
start_readers($now, answer($production, 'events'));
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-20')"), 't', 'one whose table is made anew');
readers_were_right('a table that is made anew');
is(answer($node, 'public.events'), answer($production, 'events'), 'it is there');

# ---- a load that began before a combine, and one that comes during it ---

$production->safe_psql('postgres', "INSERT INTO events SELECT id + 1000000, at + interval '1 year', kind, amount, payload FROM events WHERE at::date BETWEEN '2024-02-01' AND '2024-02-09'");
is( (enqueue_and_wait($node, "'events', 'shop', '2025-02-01', '2025-02-07'"))[1], 'succeeded', 'days of another year');
my $tenant_lock = $production->background_psql('postgres');
$tenant_lock->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
my $load = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-02-08', '2025-02-08')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching'", 'a load of a missing day has begun');
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr/asked/, "\\echo asked\nBEGIN;\nSELECT j->>'rows' FROM _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 2, true) AS j;\n");
wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND locktype = 'advisory' AND NOT granted", 'a combine of its month waits for it');
$tenant_lock->query_safe('COMMIT');
$tenant_lock->quit;
# its publication may have to wait until the combine commits, below
wait_until($node, "SELECT state = 'succeeded' FROM _wh.jobs WHERE backfill_id = $load AND kind = 'refresh'", 'the load ends');
like($session->query_safe('SELECT 1'), qr/^(\d+\n)?1$/, 'then the combine');
my $first_load = $load;
$load = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-02-09', '2025-02-09')");
wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND $pid = ANY (pg_blocking_pids(pid))", 'a load of another day waits for the combine');
$session->query_safe('COMMIT');
$session->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($load, '50 s')"), 'succeeded', 'and ends');
is(sql($node, "SELECT _wh.wait_for_backfill($first_load, '50 s')"), 'succeeded', 'so does the first');
is(sql($node, "SELECT string_agg(DISTINCT relation, ' ') FROM _wh.day_loads WHERE target_date BETWEEN '2025-02-01' AND '2025-02-28'"), 'events_2025_02', 'both days are in the table');
is(content(), source_content(), 'with all their rows');

done_testing();
