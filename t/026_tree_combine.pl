# Months and years as leaves of a partition tree: the same content as outside of
# one, days that arrive late inside them, and what a tree adds to refuse.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse();
my ($first, $last) = ('2023-12-20', '2024-12-31');

# timestamptz, in a session zone far from UTC: a day is one of UTC
$production->safe_psql('postgres', 'CREATE DATABASE shop');
create_events($production, $first, 378, 4, database => 'shop');
$production->safe_psql('shop', "DELETE FROM events WHERE at::date IN ('2024-02-29', '2024-07-01')");
add_events_template($node, 'events', columns => 'id INTEGER, at TIMESTAMPTZ, kind TEXT, amount NUMERIC, payload TEXT',
	query => q{SELECT id, at AT TIME ZONE 'UTC' AS at, kind, amount, payload FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1});
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at'");
sql($node, "ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'");
add_tenant($node, 'shop', $production, database => 'shop', templates => ['events'], start_date => $first);

sub backfill
{
	my ($from, $to, $mode) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'events', 'shop', '$from', '$to', NULL, '" . ($mode // 'missing') . "'");

	return $state;
}

sub content
{
	return checksum($node, 'SELECT * FROM ' . ($_[0] // 'public.events'));
}

sub leaves
{
	return sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' AND relispartition AND relname !~ '_2024_0[2-9]_|_2023_12_'");
}

sub source
{
	return "SELECT id, at AT TIME ZONE 'UTC' AS at, kind, amount, payload FROM events WHERE at >= '$first' AND at < date '$last' + 1";
}

is(backfill($first, '2024-01-31'), 'succeeded', 'a month is loaded');
is(backfill('2024-02-01', $last), 'succeeded', 'and a year');
same_content($node, 'SELECT * FROM shop.events', $production, source(), 'days are those of the tenant', 'shop');
my $before = content();

sub by_month { return "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2024, $_[0], verify_content => true) AS j" }
is(sql($node, by_month(1)), 'combined', 'January is one leaf');
is(content(), $before, 'with the same content');
is(sql($node, by_month(1)), 'already_combined', 'once');
is(sql($node, by_month(2)), 'combined', 'February of a leap year, with an empty day');
is(sql($node, "SELECT count(*) FROM pg_inherits WHERE inhrelid = 'shop.events_2024_01'::regclass"), 1, 'in the tree');
is(sql($node, "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'shop.events_2024_01'::regclass"),
	"FOR VALUES FROM ('2024-01-01 09:00:00+09') TO ('2024-02-01 09:00:00+09')", 'for the month in UTC');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'events_2024_01_%' AND relkind = 'r'"), 0, 'in the place of its days');
is(sql($node, "SELECT rows FROM _wh.day_loads WHERE target_date = '2024-02-29'"), 0, 'an empty day is one');

# a day late for its month: inside the leaf
$production->safe_psql('shop', "UPDATE events SET amount = amount + 1 WHERE at::date = '2024-01-15'");
$production->safe_psql('shop', "INSERT INTO events SELECT 900000 + n, timestamp '2024-02-29 23:59:59', 'late', n, 'late' FROM generate_series(1, 3) AS n");
is(backfill('2024-01-15', '2024-01-15', 'all'), 'succeeded', 'a late day');
is(backfill('2024-02-29', '2024-02-29', 'all'), 'succeeded', 'and another one');
same_content($node, 'SELECT * FROM shop.events', $production, source(), 'are in their months', 'shop');
is(sql($node, "SELECT string_agg(state || ' ' || rows || ' ' || relation, ', ' ORDER BY target_date) FROM _wh.day_loads WHERE target_date IN ('2024-01-15', '2024-02-29')"),
	'combined 4 events_2024_01, combined 3 events_2024_02', 'and the ledger says so');

# the year, of two months and the days
$before = content();
is(sql($node, "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_year('events', 'shop', 'shop', 2024, verify_content => true) AS j"), 'combined', 'the year is one leaf');
is(content(), $before, 'with the same content');
is(content('shop.events'), checksum($node, 'SELECT id, at, kind, amount, payload FROM public.events'), 'in both views');
is(sql($node, "SELECT count(*) || ' ' || count(DISTINCT relation_oid) FROM _wh.day_loads"), '378 13', 'for the ledger too');
is(sql($node, "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE indrelid = 'shop.events_2024'::regclass"), 'shop.idx_shop_events_2024_id', 'with its index');
$production->safe_psql('shop', "DELETE FROM events WHERE at::date = '2024-06-06' AND id % 2 = 0");
is(backfill('2024-06-06', '2024-06-06', 'all'), 'succeeded', 'a day late for its year');
same_content($node, 'SELECT * FROM shop.events', $production, source(), 'is in it', 'shop');

# rows outside of their day would be another day's there
sql($node, q{UPDATE _wh.mv_templates SET query_template = replace(query_template, '+ 1', '+ 2')});
is(backfill('2024-06-06', '2024-06-06', 'all'), 'failed', 'rows of the next day are refused');
like(sql($node, "SELECT last_error FROM _wh.jobs WHERE state = 'failed' ORDER BY job_id DESC LIMIT 1"), qr/outside of their day/, 'by name');
same_content($node, 'SELECT * FROM shop.events', $production, source(), 'and nothing changed', 'shop');
sql($node, q{UPDATE _wh.mv_templates SET query_template = replace(query_template, '+ 2', '+ 1')});

# other columns and indexes: the leaf follows the tree, or is remade
sql($node, q{UPDATE _wh.mv_templates SET column_definitions = column_definitions || ', extra TEXT', query_template = replace(query_template, 'payload', 'payload, ''x'' AS extra'),
	indexes = indexes || '; CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)'});
is(backfill('2024-06-07', '2024-06-08', 'all'), 'succeeded', 'days of a new shape');
is(sql($node, 'SELECT count(*), count(extra) FROM public.events'), sql($node, 'SELECT sum(rows) FROM _wh.day_loads') . '|8', 'are inside the year');
is(sql($node, "SELECT count(*) FROM pg_index WHERE indrelid = 'shop.events_2024'::regclass"), 2, 'which has the new index');
sql($node, "SELECT _wh.drop_day('events', 'shop', '2024-06-07')");
is(sql($node, "SELECT count(*) FROM public.events WHERE at >= '2024-06-07Z' AND at < '2024-06-08Z'"), 0, 'a day is dropped from the year');
is(sql($node, "SELECT count(*) FROM public.events"), sql($node, 'SELECT sum(rows) FROM _wh.day_loads'), 'and nothing else');
is(leaves(), 'events_2024', 'no other leaf of that year is left');

done_testing();
