# Plan-time pruning by CURRENT_DATE and now(): what dashboards send touches few
# partitions, what has no proof touches all, and every answer is the one that
# comes with the setting off.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use PruneTree;
use WhTest;

# The most that margins add to the days of a query, and midnight during the test.
use constant MARGIN => 7;

my $node = new_prune_server(conf => { max_locks_per_transaction => 256 });

create_trees($node, first => 'CURRENT_DATE - 60', last => 'CURRENT_DATE + 5', tenants => 2);
$node->safe_psql('postgres', q{
	CREATE FUNCTION leaves_locked() RETURNS bigint LANGUAGE sql AS $$
		SELECT count(*) FROM pg_catalog.pg_locks JOIN pg_catalog.pg_class ON oid = relation
		WHERE pid = pg_backend_pid() AND relkind = 'r' AND relispartition
	$$;
	CREATE DOMAIN moment AS timestamp CHECK (VALUE IS NOT NULL);
});

my $leaves = sql($node, "SELECT count(*) FROM pg_inherits WHERE inhparent = '_wh.ts_t1'::regclass");
is($leaves, 66, 'a tenant has a leaf a day');

# Runs statements in a transaction of their own; returns their last line and
# how many leaves were locked.
sub run_with
{
	my ($settings, @statements) = @_;
	my $out = $node->safe_psql('postgres', join ";\n", "SET timezone = 'UTC'", $settings, 'BEGIN',
		@statements, 'SELECT leaves_locked()', 'ROLLBACK');
	my @lines = split /\n/, $out;
	my $locked = pop @lines;

	return (join("\n", @lines), $locked);
}

my $on = 'SET wh_worker.enable_stable_pruning = on';
my $off = 'SET wh_worker.enable_stable_pruning = off';

# The same with and without; locks at most $most leaves with, all $all without.
sub prunes
{
	my ($most, $all, $name, @statements) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($answer, $locked) = run_with($on, @statements);
	my ($expected, $all_locked) = run_with($off, @statements);

	return subtest $name => sub {
		is($answer, $expected, 'the answer');
		cmp_ok($locked, '<=', $most, 'few leaves');
		cmp_ok($locked, '>', 0, 'but some');
		is($all_locked, $all, 'all of them without it');
	};
}

sub does_not_prune
{
	my ($all, $name, @statements) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($answer, $locked) = run_with($on, @statements);
	my ($expected) = run_with($off, @statements);

	return subtest $name => sub {
		is($answer, $expected, 'the answer');
		is($locked, $all, 'all leaves');
	};
}

sub query
{
	my ($from, $condition) = @_;

	return "SELECT count(*), sum(id), min(logged_time), max(logged_time) FROM $from WHERE $condition";
}

# How many leaves of a tenant begin with the day.
sub leaves_from
{
	my ($day) = @_;

	return sql($node, "SELECT CURRENT_DATE + 6 - ($day)::date");
}

# ---- what dashboards send: the condition, and the first day it asks for ----

my @forms = (
	[ 'logged_time >= CURRENT_DATE', 'CURRENT_DATE' ],
	[ 'logged_time = CURRENT_DATE', 'CURRENT_DATE' ],
	[ 'logged_time >= CURRENT_DATE - 30', 'CURRENT_DATE - 30' ],
	[ "logged_time >= CURRENT_DATE - INTERVAL '30 days'", 'CURRENT_DATE - 30' ],
	[ "logged_time >= CURRENT_DATE + INTERVAL '-30 day'", 'CURRENT_DATE - 30' ],
	[ "logged_time >= CURRENT_DATE - INTERVAL '1 month'", "CURRENT_DATE - interval '1 month 1 day'" ],
	[ "logged_time > now() - interval '30 days'", 'CURRENT_DATE - 30' ],
	[ "logged_time > now() - '30 days'::interval", 'CURRENT_DATE - 30' ],
	[ "logged_time > now() - interval '1 month'", "CURRENT_DATE - interval '1 month 2 days'" ],
	[ "logged_time > now() - make_interval(days => 7)", 'CURRENT_DATE - 7' ],
	[ "now() - interval '7 days' < logged_time", 'CURRENT_DATE - 7' ],
	[ "logged_time >= date_trunc('month', CURRENT_DATE)", "date_trunc('month', CURRENT_DATE - 4)" ],
	[ "logged_time >= date_trunc('week', now())", "date_trunc('week', CURRENT_DATE - 3)" ],
	[ "logged_time >= date_trunc('day', now() + INTERVAL '-14 day')", 'CURRENT_DATE - 14' ],
	[ "logged_time >= CAST(now() + INTERVAL '-7 day' AS date)", 'CURRENT_DATE - 7' ],
	[ 'logged_time >= (CURRENT_DATE - 30)::timestamp', 'CURRENT_DATE - 30' ],
	[ 'logged_time >= (now() AT TIME ZONE \'UTC\')::date', 'CURRENT_DATE' ],
	[ "logged_time >= timezone('UTC', now()) - interval '24 hours'", 'CURRENT_DATE - 1' ],
	[ "logged_time >= date_trunc('day', current_timestamp AT TIME ZONE 'Europe/Paris') AT TIME ZONE 'Europe/Paris'",
		'CURRENT_DATE' ],
	[ "logged_time >= date_trunc('day', now(), 'Asia/Tokyo')", 'CURRENT_DATE' ],
	[ 'logged_time BETWEEN CURRENT_DATE - 30 AND CURRENT_DATE', 'CURRENT_DATE - 30' ],
	[ 'logged_time::date >= CURRENT_DATE - 7', 'CURRENT_DATE - 7' ],
	[ "date_trunc('week', logged_time) = date_trunc('week', now())", "date_trunc('week', CURRENT_DATE - 3)" ],
	[ "logged_time > localtimestamp - interval '24 hours'", 'CURRENT_DATE - 1' ],
	[ "logged_time > localtimestamp(0) - interval '24 hours' AND id > 3", 'CURRENT_DATE - 1' ],
	[ 'NOT logged_time < CURRENT_DATE - 3', 'CURRENT_DATE - 3' ],
	[ "logged_time > statement_timestamp() - interval '2 days'", 'CURRENT_DATE - 2' ]);

foreach my $form (@forms)
{
	my ($condition, $first) = @$form;
	my $most = leaves_from($first) + MARGIN;

	prunes($most, $leaves, "$_ WHERE $condition", query($_, $condition)) for qw(t1.d t1.ts t1.tz);
}
prunes(2 * (leaves_from('CURRENT_DATE - 7') + MARGIN), 2 * $leaves, 'all tenants through the public view',
	query('public.ts', 'logged_time >= CURRENT_DATE - 7'));
prunes(leaves_from('CURRENT_DATE - 7') + MARGIN, $leaves, 'one tenant through the public view',
	query('public.ts', "schema_name = 't2' AND logged_time >= CURRENT_DATE - 7"));

# ---- what has no proof ----

my @refused = (
	"logged_time >= clock_timestamp() - interval '3 days'",
	"logged_time >= (now() - interval '3 days')::text::timestamp",
	'logged_time >= (SELECT CURRENT_DATE - 3)',
	'logged_time >= CURRENT_DATE - id',
	"logged_time >= CURRENT_DATE - (id || ' days')::interval",
	"logged_time >= CURRENT_DATE - interval '1 day' * id",
	"logged_time >= (CURRENT_DATE - 3)::timestamp::moment",
	'logged_time IN (CURRENT_DATE, CURRENT_DATE - 1)',
	'(logged_time >= CURRENT_DATE - 3 OR id = 1)',
	'NOT logged_time >= CURRENT_DATE - 3',
	'logged_time <= CURRENT_DATE',
	'logged_time <> CURRENT_DATE',
	"logged_time >= greatest(now() - interval '3 days', 'yesterday'::timestamptz)",
	"logged_time >= now() AT TIME ZONE 'ZZZ+167'",
	"logged_time >= now() AT TIME ZONE interval '-100 hours'",
	"logged_time + interval '1 day' >= CURRENT_DATE",
	"logged_time >= CURRENT_DATE - interval '300000 days' * 2",
	"logged_time >= CURRENT_DATE - interval '2000 years'",
	'logged_time >= CURRENT_DATE - 800000',
	"extract(year FROM logged_time) >= extract(year FROM now())",
	'other_date >= CURRENT_DATE - 3');

foreach my $condition (@refused)
{
	does_not_prune($leaves, "not by $condition", query('t1.ts', $condition));
}
fails_with($node, "SELECT FROM t1.ts WHERE logged_time >= date_trunc('fortnight', now())", '22023',
	qr/fortnight/, 'an error of the expression stays one');

# ---- plans that are kept ----

my $one_week = leaves_from('CURRENT_DATE - 7') + MARGIN;
my $generic = 'SET plan_cache_mode = force_generic_plan';
my $custom = 'SET plan_cache_mode = force_custom_plan';

prunes($one_week, $leaves, 'a cached plan without parameters', $generic,
	'PREPARE p AS ' . query('t1.tz', 'logged_time >= CURRENT_DATE - 7'), 'EXECUTE p', 'EXECUTE p');
prunes($one_week, $leaves, 'a custom plan with a parameter', $custom,
	'PREPARE p(int) AS ' . query('t1.tz', 'logged_time >= CURRENT_DATE - $1'), 'EXECUTE p(7)', 'EXECUTE p(6)');
does_not_prune($leaves, 'a generic plan with a parameter', $generic,
	'PREPARE p(int) AS ' . query('t1.tz', 'logged_time >= CURRENT_DATE - $1'), 'EXECUTE p(7)', 'EXECUTE p(6)');
prunes($one_week, $leaves, 'a cursor',
	'DECLARE c CURSOR FOR SELECT id, logged_time FROM t1.ts WHERE logged_time >= CURRENT_DATE - 7 ORDER BY 2, 1',
	'FETCH 20 FROM c', 'MOVE 10 FROM c', 'FETCH ALL FROM c');
prunes($one_week, $leaves, 'a function', q{CREATE FUNCTION rows_of_week(OUT rows bigint) LANGUAGE plpgsql AS
	'BEGIN SELECT count(*) INTO rows FROM t1.ts WHERE logged_time >= CURRENT_DATE - 7; END'},
	'SELECT rows_of_week() FROM generate_series(1, 8)');
my $in_sql = q{CREATE FUNCTION rows_of(days int) RETURNS bigint
	LANGUAGE sql STABLE AS 'SELECT count(*) FROM t1.ts WHERE logged_time >= CURRENT_DATE - days'};
does_not_prune($leaves, 'a generic plan of a function in SQL', $generic, $in_sql, 'SELECT rows_of(7)');
if ($node->pg_version >= 18)
{
	prunes($one_week, $leaves, 'a custom plan of a function in SQL', $custom, $in_sql, 'SELECT rows_of(7)');
}

# ---- time zones further from UTC than any on earth ----

my $week = 'PREPARE p AS ' . query('t1.ts', 'logged_time >= CURRENT_DATE - 7');

foreach my $zone ('ZZZ+167', 'ZZZ-167', 'ZZZ0YYY-167,J1,J365', 'ZZZ+17')
{
	does_not_prune($leaves, "planned in $zone", "SET LOCAL timezone = '$zone'",
		query('t1.ts', 'logged_time >= CURRENT_DATE - 7'));
	does_not_prune($leaves, "cached, then moved to $zone", $week, 'EXECUTE p', 'COMMIT', "SET timezone = '$zone'",
		'BEGIN', 'EXECUTE p');
}
foreach my $zone ('ZZZ+16', 'ZZZ-16', 'Pacific/Kiritimati', 'America/Los_Angeles', '<+03>-03')
{
	prunes($one_week, $leaves, "planned in $zone", "SET LOCAL timezone = '$zone'",
		query('t1.ts', 'logged_time >= CURRENT_DATE - 7'));
	prunes($one_week, $leaves, "cached, then moved to $zone", $week, 'EXECUTE p', 'COMMIT', "SET timezone = '$zone'",
		'BEGIN', 'EXECUTE p');
}
does_not_prune($leaves, 'moved by set_config', $week, 'EXECUTE p', 'COMMIT', 'BEGIN',
	"SELECT set_config('timezone', 'ZZZ+167', true)", 'EXECUTE p');
does_not_prune($leaves, 'moved back by a roll back', "SET timezone = 'ZZZ+167'", 'COMMIT', 'BEGIN',
	"SET timezone = 'UTC'", $week, 'EXECUTE p', 'ROLLBACK', 'BEGIN', 'EXECUTE p');
does_not_prune($leaves, 'moved by the clause of a function', $week, 'EXECUTE p', 'COMMIT', 'BEGIN', q{
	CREATE FUNCTION pg_temp.again(OUT said text) LANGUAGE plpgsql SET timezone = 'ZZZ+167' AS
	$$ BEGIN EXECUTE 'EXECUTE p' INTO said; END $$}, 'SELECT pg_temp.again()');
prunes($one_week, $leaves, 'moved there and back', $week, 'EXECUTE p', 'COMMIT', "SET timezone = 'ZZZ+167'",
	'RESET timezone', 'BEGIN', 'EXECUTE p', "SET LOCAL timezone = 'UTC'");

# ---- shapes of queries ----

$node->safe_psql('postgres', q{
	CREATE TABLE days (day date, name text);
	INSERT INTO days SELECT CURRENT_DATE - n, 'day ' || n FROM generate_series(0, 40, 3) AS n;
	CREATE VIEW guarded WITH (security_barrier) AS SELECT * FROM t1.ts WHERE id <> 5;
	CREATE TABLE loose AS SELECT id, logged_time - interval '3 days' AS logged_time FROM t1.ts;
	CREATE VIEW other_relations AS SELECT id, logged_time FROM loose
		UNION ALL SELECT id, logged_time FROM t1.ts
		UNION ALL SELECT 99, now()::timestamp;
	CREATE VIEW converted AS SELECT id, logged_time::date AS logged_time FROM t1.ts
		UNION ALL SELECT id, logged_time FROM t1.d;
	CREATE ROLE reader;
	GRANT USAGE ON SCHEMA t1, _wh TO reader;
	GRANT SELECT ON _wh.ts_t2, _wh.d_t2 TO reader;
	ALTER TABLE _wh.ts_t2 ENABLE ROW LEVEL SECURITY;
	CREATE POLICY few ON _wh.ts_t2 TO reader USING (id < 7 AND logged_time::text <> '');
});

my $recent = 'logged_time >= CURRENT_DATE - 7';
my $from = "FROM t1.ts WHERE $recent";

# The most leaves with it, all without.
my @shapes = (
	[ 'a security barrier', $one_week, $leaves, "SELECT count(*) FROM guarded
		WHERE logged_time >= localtimestamp - interval '7 days'" ],
	[ 'row security', $one_week, $leaves, 'SET ROLE reader', "SELECT count(*), sum(id) FROM _wh.ts_t2 WHERE $recent",
		'RESET ROLE' ],
	[ 'a join', $one_week, $leaves,
		"SELECT count(*), sum(id) FROM t1.ts JOIN days ON day = logged_time::date WHERE $recent" ],
	[ 'a left join from it', $one_week, $leaves,
		"SELECT count(*), count(day) FROM t1.ts LEFT JOIN days ON day = logged_time::date WHERE $recent" ],
	[ 'ON of a left join, nullable side', $one_week, $leaves,
		"SELECT count(*), count(id) FROM days LEFT JOIN t1.ts ON day = logged_time::date AND $recent" ],
	[ 'ON of a right join', $one_week, $leaves,
		"SELECT count(*), count(id) FROM t1.ts RIGHT JOIN days ON day = logged_time::date AND $recent" ],
	[ 'both sides', 2 * $one_week, 2 * $leaves,
		"SELECT count(*) FROM t1.ts AS a JOIN t2.ts AS b USING (id)
		WHERE a.$recent AND b.$recent AND a.logged_time::date = b.logged_time::date" ],
	[ 'EXISTS', $one_week, $leaves,
		"SELECT count(*) FROM days WHERE EXISTS (SELECT FROM t1.ts WHERE day = logged_time::date AND $recent)" ],
	[ 'NOT EXISTS', $one_week, $leaves,
		"SELECT count(*) FROM days WHERE NOT EXISTS (SELECT FROM t1.ts WHERE day = logged_time::date AND $recent)" ],
	[ 'NOT IN', $one_week, $leaves,
		"SELECT count(*) FROM days WHERE day NOT IN (SELECT logged_time::date $from)" ],
	[ 'UNION ALL', 2 * $one_week, 2 * $leaves,
		"SELECT count(*), sum(id) FROM (SELECT * FROM t1.ts UNION ALL SELECT * FROM t2.ts) AS u WHERE $recent" ],
	[ 'UNION', 2 * $one_week, 2 * $leaves,
		"SELECT count(*), sum(id) FROM (SELECT * FROM t1.ts UNION SELECT * FROM t2.ts) AS u WHERE $recent" ],
	[ 'a view of a part and other relations', $one_week, $leaves,
		"SELECT count(*), sum(id) FROM other_relations WHERE $recent" ],
	[ 'a common table expression', $one_week, $leaves,
		"WITH c AS MATERIALIZED (SELECT * $from) SELECT count(*), sum(id) FROM c" ],
	[ 'groups', $one_week, $leaves,
		"SELECT d, count(*) FROM (SELECT logged_time::date AS d, id FROM t1.ts) AS g
		WHERE d >= CURRENT_DATE - 7 GROUP BY d ORDER BY d" ],
	[ 'MIN and MAX', $one_week, $leaves, "SELECT min(logged_time), max(logged_time) $from" ],
	[ 'a limit', $one_week, $leaves, "SELECT id, logged_time $from ORDER BY logged_time, id LIMIT 3" ],
	[ 'LATERAL', $one_week, $leaves,
		"SELECT count(*), sum(l.id) FROM generate_series(1, 3) AS g, LATERAL (SELECT * $from AND id = g) AS l" ],
	[ 'a parallel plan', $one_week, $leaves, 'SET LOCAL parallel_setup_cost = 0', 'SET LOCAL parallel_tuple_cost = 0',
		'SET LOCAL min_parallel_table_scan_size = 0', "SELECT count(*), sum(id) $from" ],
	[ 'an update', $one_week, $leaves, "UPDATE _wh.ts_t1 SET id = -id WHERE $recent RETURNING id" ],
	[ 'a delete', $one_week, $leaves, "DELETE FROM _wh.ts_t1 WHERE $recent RETURNING id" ],
	[ 'a lock', $one_week, $leaves, "SELECT id $from ORDER BY logged_time, id LIMIT 4 FOR UPDATE" ],
	[ 'partitionwise', 2 * $one_week, 2 * $leaves, 'SET LOCAL enable_partitionwise_aggregate = on',
		'SET LOCAL enable_partitionwise_join = on',
		"SELECT count(*) FROM t1.ts AS a JOIN t2.ts AS b ON a.logged_time = b.logged_time AND a.id = b.id
		WHERE a.$recent AND b.$recent" ],
	[ 'a query within a query', $one_week, $leaves,
		"SELECT name, (SELECT count(*) $from AND logged_time::date = day) FROM days ORDER BY day" ]);

foreach my $shape (@shapes)
{
	my ($name, $most, $all, @statements) = @$shape;

	prunes($most, $all, $name, @statements);
}

# What cannot exclude partitions must be right all the same.
my @unpruned = (
	[ 'ON of a left join, the other side', $leaves,
		"SELECT count(*), count(name) FROM t1.ts LEFT JOIN days ON day = logged_time::date AND $recent" ],
	[ 'a security barrier that holds conditions back', $leaves, "SELECT count(*) FROM guarded WHERE $recent" ],
	[ 'a full join', $leaves, 'SET LOCAL enable_mergejoin = off',
		"SELECT count(*), count(name), count(id) FROM t1.ts FULL JOIN days ON day = logged_time::date AND $recent" ],
	[ 'above a full join', $leaves,
		"SELECT count(*) FROM t1.ts FULL JOIN days ON day = logged_time::date WHERE ($recent) IS NOT FALSE" ],
	[ 'pruning switched off', $leaves, 'SET LOCAL enable_partition_pruning = off', "SELECT count(*), sum(id) $from" ]);

foreach my $shape (@unpruned)
{
	my ($name, $all, @statements) = @$shape;

	does_not_prune($all, $name, @statements);
}

my ($updated) = run_with($on, "UPDATE _wh.ts_t1 SET id = -id WHERE $recent", 'SELECT count(*), sum(id) FROM t1.ts');
my ($expected) = run_with($off, "UPDATE _wh.ts_t1 SET id = -id WHERE $recent", 'SELECT count(*), sum(id) FROM t1.ts');
my ($before) = run_with($off, 'SELECT count(*), sum(id) FROM t1.ts');
is($updated, $expected, 'an update changes the same rows');
isnt($updated, $before, 'and does change some');

# The union's wrapped side gets no bound, its plain side does.
my ($converted, $converted_locked) = run_with($on, query('converted', 'logged_time >= CURRENT_DATE - 7'));
my ($converted_off) = run_with($off, query('converted', 'logged_time >= CURRENT_DATE - 7'));
is($converted, $converted_off, 'a union that converts one side');
cmp_ok($converted_locked, '<=', $leaves + $one_week, 'is bounded on its plain side');

# ---- values at the ends of time, types of one's own ----

$node->safe_psql('postgres', q{
	CREATE TABLE _wh.ends (k timestamp) PARTITION BY RANGE (k);
	CREATE TABLE ends_early PARTITION OF _wh.ends FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
	CREATE TABLE ends_late PARTITION OF _wh.ends FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
	CREATE TABLE ends_rest PARTITION OF _wh.ends DEFAULT;
	INSERT INTO _wh.ends VALUES ('-infinity'), ('infinity'), ('0044-03-15 BC'), ('294276-12-31'), (now()), (NULL);
	CREATE TABLE _wh.own (k moment) PARTITION BY RANGE (k);
	CREATE TABLE own_early PARTITION OF _wh.own FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
	CREATE TABLE own_late PARTITION OF _wh.own FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
	INSERT INTO _wh.own VALUES ('-infinity'), ('infinity'), ('0044-03-15 BC'), (now());
	CREATE TABLE public.others (k timestamp) PARTITION BY RANGE (k);
	CREATE TABLE others_early PARTITION OF public.others FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
	CREATE TABLE others_late PARTITION OF public.others FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
	CREATE TABLE _wh.hashed (k timestamp, id int) PARTITION BY HASH (id);
	CREATE TABLE hashed_all PARTITION OF _wh.hashed FOR VALUES WITH (MODULUS 1, REMAINDER 0);
	CREATE TABLE _wh.pair (k timestamp, id int) PARTITION BY RANGE (k, id);
	CREATE TABLE pair_all PARTITION OF _wh.pair FOR VALUES FROM (MINVALUE, MINVALUE) TO (MAXVALUE, MAXVALUE);
	CREATE TABLE _wh.computed (k timestamp, id int) PARTITION BY RANGE ((k + interval '1 day'));
	CREATE TABLE computed_all PARTITION OF _wh.computed DEFAULT;
	CREATE TABLE _wh.empty (k timestamp, schema_name text) PARTITION BY LIST (schema_name);
});
prunes(2, 3, 'infinite, ancient and unknown times',
	"SELECT array_agg(k ORDER BY k) FROM _wh.ends WHERE k >= CURRENT_DATE - 7");
does_not_prune(2, 'a domain has no bound', 'SELECT count(*) FROM _wh.own WHERE k >= CURRENT_DATE - 7');
does_not_prune(2, 'what is not ours has none', 'SELECT count(*) FROM public.others WHERE k >= CURRENT_DATE - 7');
foreach my $tree (qw(hashed pair computed))
{
	unlike(sql($node, "EXPLAIN SELECT FROM _wh.$tree WHERE k >= CURRENT_DATE - 7"), qr/k >= '/,
		"nor has a table that is partitioned another way: $tree");
}
is(sql($node, 'SELECT count(*) FROM _wh.empty WHERE k >= CURRENT_DATE - 7'), '0', 'a tree without parts');
like(sql($node, 'EXPLAIN SELECT FROM _wh.ends WHERE k >= CURRENT_DATE - 7'), qr/k >= '/, 'while ours has one');

done_testing();
