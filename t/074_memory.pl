# What a launcher and a worker have in memory after many jobs is what they had
# after a few: a worker forgets the relations that it met, of small ones after
# many jobs, of large ones when it knows too much.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

# As in src/caches.c.
my $forget_after_jobs = 512;
my $forget_after_bytes = 16 * 1024 * 1024;

my $production = new_tenant('production');
my $node = new_warehouse(conf => { 'wh_worker.max_workers' => 1, 'wh_worker.worker_idle_timeout' => "'10min'" });

# What is to be known of a relation grows with its columns.
$node->safe_psql('postgres', q{
	INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes)
	SELECT name,
		(SELECT 'SELECT ' || string_agg('n AS c' || c, ', ') || ', date ''{TARGET_DATE}'' AS day FROM generate_series(1, 5) AS n' FROM generate_series(1, width) AS c),
		(SELECT string_agg(format('c%s INTEGER, ', c), '') || 'day DATE' FROM generate_series(1, width) AS c),
		'CREATE INDEX {view_name}_c1 ON {schema}.{view_name} (c1)'
	FROM (VALUES ('wide', 400), ('narrow', 5)) AS t(name, width);
});
add_tenant($node, 'shop', $production, templates => [ 'wide', 'narrow' ]);
sql($node, 'UPDATE _wh.schedules SET active = false');

sub load
{
	my ($template, $first, $last) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($id, $state) = enqueue_and_wait($node, "'$template', 'shop', '$first', '$last'", '170 s');

	is($state, 'succeeded', "$template from $first to $last");
	wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", 'nothing is left to do');
	return;
}

# Bytes that its memory contexts use, which a process of ours says in the log.
sub used_by
{
	my ($kind) = @_;
	my $from = log_end($node);
	my $pid = sql($node, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'wh_worker $kind'");
	my $entry = qr/\[$pid\] .*Grand total: .* (\d+) used/;

	sql($node, "SELECT pg_log_backend_memory_contexts($pid)");
	$node->wait_for_log($entry, $from);
	my ($used) = slurp_file($node->logfile, $from) =~ $entry;
	return $used;
}

sub jobs_of_worker
{
	return sql($node, "SELECT jobs_succeeded FROM _wh.worker_status WHERE backend_type LIKE '%worker'");
}

# ---- many jobs ---------------------------------------------------------

load('narrow', '2022-12-01', '2022-12-31');
my $pid = worker_pid($node, 'true');
my $launcher_at_first = used_by('launcher');
my $worker_at_first = used_by('worker');

load('narrow', '2023-01-01', '2024-03-01');
my $worker_before = used_by('worker');
cmp_ok(jobs_of_worker(), '<', $forget_after_jobs, 'it is not time yet');
cmp_ok($worker_before, '>', $worker_at_first + 500_000, 'a worker knows the relations that it met');
load('narrow', '2024-03-02', '2024-04-10');
cmp_ok(jobs_of_worker(), '>', $forget_after_jobs, 'after so many jobs');
cmp_ok(used_by('worker'), '<', $worker_at_first + 500_000, 'it knows those of the last jobs');

# ---- large relations ---------------------------------------------------

load('wide', '2024-01-01', '2024-01-16');
$worker_before = used_by('worker');
load('wide', '2024-01-17', '2024-03-20');
cmp_ok(jobs_of_worker(), '<', 2 * $forget_after_jobs, 'many jobs are not needed');
diag used_by('worker'), ' ', $worker_before;
cmp_ok(used_by('worker'), '<', $worker_before + $forget_after_bytes, 'to make it forget large relations');

is(worker_pid($node, 'true'), $pid, 'all of that was one worker');
diag used_by('launcher'), ' ', $launcher_at_first;
cmp_ok(used_by('launcher'), '<', $launcher_at_first + 500_000, 'the launcher has no more in memory than at first');

$node->stop;
$production->stop;
done_testing();
