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
	FROM (SELECT 'narrow_' || n, 5 FROM generate_series(1, 30) AS n UNION ALL SELECT 'wide', 400) AS t(name, width);
});
add_tenant($node, 'shop', $production, templates => [ 'wide', map { "narrow_$_" } 1 .. 30 ]);
sql($node, 'UPDATE _wh.schedules SET active = false');

# So many days of a template, which has a view of its own.
sub load
{
	my ($days, $template) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($id, $state) = enqueue_and_wait($node, "'$template', 'shop', '2025-01-01', date '2025-01-01' + $days - 1", '170 s');

	return is($state, 'succeeded', "$days days of $template are loaded");
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

load(5, 'narrow_1');
my $pid = worker_pid($node, 'true');
my ($at_first, $launcher_at_first) = (used_by('worker'), used_by('launcher'));
my $template = 2;
my $before;
do
{
	$before = used_by('worker') if jobs_of_worker() < $forget_after_jobs;
	load(30, 'narrow_' . $template++);
} while (jobs_of_worker() <= $forget_after_jobs);
cmp_ok($before, '>', $at_first + 2_000_000, 'a worker knows the relations that it met');
cmp_ok(used_by('worker'), '<', $before - 1_000_000, 'after many jobs it knows those of the last ones');

# ---- large relations ---------------------------------------------------

load(60, 'wide');
my $with_large = used_by('worker');
load(20, 'narrow_' . $template);
cmp_ok(jobs_of_worker(), '<', 2 * $forget_after_jobs, 'many jobs are not needed');
cmp_ok(used_by('worker'), '<', $with_large - $forget_after_bytes, 'to make it forget large ones');

is(worker_pid($node, 'true'), $pid, 'all of that was one worker');
cmp_ok(used_by('launcher'), '<', $launcher_at_first + 1_000_000, 'the launcher has little more in memory than at first');

$node->stop;
$production->stop;
done_testing();
