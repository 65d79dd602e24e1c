# The planner's statistics: those of a small day are left to autovacuum, which is
# told of it and makes them; those of a large one, or where autovacuum would not
# or may not, come with the load.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my @days = map { sprintf '2025-07-%02d', $_ } 1 .. 9;
my $large = '2025-08-01';

my $production = new_tenant('production');
create_events($production, $days[0], scalar @days, 500);
$production->safe_psql('postgres', qq{
	INSERT INTO events SELECT 100000 + n, '$large', 'kind', 1, 'x' FROM generate_series(1, 10000) AS n;
	DELETE FROM events WHERE at::date = '$days[1]' AND id % 500 NOT BETWEEN 1 AND 40;
});

# Autovacuum is on, and does not come yet.
my $node = new_warehouse(
	conf => { autovacuum_naptime => "'1d'", log_autovacuum_min_duration => 0, 'wh_worker.max_workers' => 1 });
add_events_template($node, 'events');
add_events_template($node, 'bare', indexes => '');
add_tenant($node, 'shop', $production, templates => [ 'events', 'bare' ], start_date => $large);
sql($node, 'UPDATE _wh.schedules SET active = false');

sub relation
{
	my ($date, $template) = @_;

	return sprintf 'shop.%s_%s', $template // 'events', $date =~ tr/-/_/r;
}

sub load
{
	my ($date, $template) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($id, $state) = enqueue_and_wait($node,
		sprintf "'%s', 'shop', '%s', '%s', mode => 'all'", $template // 'events', $date, $date);

	return is($state, 'succeeded', "$date is loaded");
}

sub columns_with_statistics
{
	my ($date) = @_;

	return sql($node, sprintf "SELECT count(*) FROM pg_statistic WHERE starelid = '%s'::regclass", relation($date));
}

# Rows, dead ones, changes since ANALYZE, whether we analyzed it and autovacuum did.
sub counters
{
	my ($date, $expected, $name, $template) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, sprintf(
			"SELECT concat_ws(' ', n_live_tup, n_dead_tup, n_mod_since_analyze, last_analyze IS NOT NULL, last_autoanalyze IS NOT NULL) = '%s'"
			. " FROM pg_stat_all_tables WHERE relid = '%s'::regclass", $expected, relation($date, $template)), $name);
}

sub row_count_is_known
{
	my ($date, $rows, $template) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(sql($node, sprintf "SELECT reltuples || ' ' || (relpages * current_setting('block_size')::integer = pg_relation_size(oid)) || ' ' || (relallvisible = relpages) FROM pg_class WHERE oid = '%s'::regclass",
			relation($date, $template)), "$rows true true", 'its numbers of rows and pages are known');
	return like(sql($node, sprintf 'EXPLAIN SELECT * FROM %s', relation($date, $template)), qr/rows=$rows /, 'the planner uses them');
}

sub change_settings
{
	my (%settings) = @_;

	while (my ($name, $value) = each %settings)
	{
		sql($node, "ALTER SYSTEM SET $name = '$value'");
	}
	sql($node, 'SELECT pg_reload_conf()');
	while (my ($name, $value) = each %settings)
	{
		wait_until($node, "SELECT setting = '$value' FROM pg_settings WHERE name = '$name'", "$name is $value");
	}
	return;
}

# ---- left to autovacuum ------------------------------------------------

load($days[0]);
is(columns_with_statistics($days[0]), 0, 'a small new day is not analyzed by its load');
counters($days[0], '500 0 500 f f', 'but autovacuum is told of its rows');
row_count_is_known($days[0], 500);
load($days[0], 'bare');
counters($days[0], '500 0 500 f f', 'one without indexes as well', 'bare');
row_count_is_known($days[0], 500, 'bare');

# ---- analyzed by its load ----------------------------------------------

load($large);
is(columns_with_statistics($large), 5, 'a large new day is analyzed by its load');
counters($large, '10000 0 0 t f', 'and autovacuum has nothing to do');
load($days[1]);
is(columns_with_statistics($days[1]), 5, 'as is one that is too small for autovacuum to find');
counters($days[1], '40 0 0 t f', 'which its counters say');

change_settings(autovacuum_analyze_scale_factor => 1);
load($days[2]);
is(columns_with_statistics($days[2]), 5, 'and one that it would not find by its settings');
change_settings(autovacuum_analyze_scale_factor => 0.1);

change_settings(autovacuum => 'off');
load($days[3]);
is(columns_with_statistics($days[3]), 5, 'without autovacuum a small day is analyzed by its load');
counters($days[3], '500 0 0 t f', 'which its counters say');
change_settings(autovacuum => 'on');

# ---- loaded again ------------------------------------------------------

my $day = relation($days[3]);
my $statistics = "SELECT md5(string_agg(s::text, ',' ORDER BY staattnum)) FROM pg_statistic s WHERE starelid = '$day'::regclass";
my $before = sql($node, $statistics);
$production->safe_psql('postgres', "UPDATE events SET kind = 'new' WHERE at::date = '$days[3]'; DELETE FROM events WHERE at::date = '$days[3]' AND id % 5 = 0");
load($days[3]);
is(sql($node, "SELECT count(*) FROM $day WHERE kind = 'new'"), 400, 'a small day has new content');
is(sql($node, $statistics), $before, 'and the statistics of the old one');
counters($days[3], '400 0 400 t f', 'autovacuum is told of it');
row_count_is_known($days[3], 400);

$day = relation($days[4]);
load($days[4]);
sql($node, "ALTER MATERIALIZED VIEW $day SET (autovacuum_enabled = false)");
is(columns_with_statistics($days[4]), 0, 'a day without statistics');
load($days[4]);
is(columns_with_statistics($days[4]), 5, 'is analyzed by its next load if autovacuum is off for it');

# ---- and autovacuum does it --------------------------------------------

change_settings(autovacuum_naptime => 1);
foreach my $left ($days[0], $days[3])
{
	wait_until($node, sprintf("SELECT last_autoanalyze IS NOT NULL AND n_mod_since_analyze = 0 FROM pg_stat_all_tables WHERE relid = '%s'::regclass", relation($left)),
		"autovacuum analyzes $left");
	is(columns_with_statistics($left), 5, 'it has statistics');
}
like(sql($node, "SELECT most_common_vals FROM pg_stats WHERE schemaname || '.' || tablename = '" . relation($days[3]) . "' AND attname = 'kind'"),
	qr/new/, 'of the new content');
wait_until($node, sprintf("SELECT last_autoanalyze IS NOT NULL FROM pg_stat_all_tables WHERE relid = '%s'::regclass", relation($days[0], 'bare')),
	'and the one without indexes');

# ---- in the tree -------------------------------------------------------

add_events_template($node, 'leaves');
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'");
add_tenant($node, 'other', $production, templates => ['leaves'], start_date => $large);
my ($id, $state) = enqueue_and_wait($node, "'leaves', 'other', '$days[5]', '$days[5]', mode => 'all'");
is($state, 'succeeded', 'a day of a tree is loaded');
(my $leaf = relation($days[5], 'leaves')) =~ s/^shop/other/;
wait_until($node, "SELECT last_autoanalyze IS NOT NULL AND last_analyze IS NULL FROM pg_stat_all_tables WHERE relid = '$leaf'::regclass",
	'autovacuum analyzes it');

done_testing();
