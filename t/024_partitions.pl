# The layout "partitions": days are leaves of one tree, the views are those of
# the other layout to whoever reads them, and a query touches what it needs.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse();
my $first = '2025-01-01';
my $days = 40;
my @shops = ('shop_1', 'shop_2', 'Shop "3"');

add_events_template($node, 'events');
add_events_template($node, 'plain');
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'events'");
foreach my $shop (@shops)
{
	my $database = lc($shop =~ s/\W/_/gr);

	$production->safe_psql('postgres', qq(CREATE DATABASE "$database"));
	create_events($production, $first, $days, 20, database => $database, seed => length $shop);
	add_tenant($node, $shop, $production, database => $database, templates => [ 'events', 'plain' ], start_date => $first);
}

sub backfill
{
	my ($template, $from, $to, $mode) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'$template', NULL, '$from', '$to', NULL, '" . ($mode // 'missing') . "'");

	return $state;
}

sub plan_locks
{
	my ($query) = @_;
	my $out = $node->safe_psql('postgres', "BEGIN; EXPLAIN (COSTS off) $query; SELECT 'locks ' || count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation <> 'pg_locks'::regclass AND relation >= 16384;");

	return ($out =~ /locks (\d+)/)[0];
}

# ---- the same for whoever reads

is(backfill('events', $first, '2025-02-09'), 'succeeded', 'days are loaded');
is(backfill('plain', $first, '2025-02-09'), 'succeeded', 'and in the other layout');
my $same = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM %s t";
is(sql($node, sprintf($same, 'public.events')), sql($node, sprintf($same, 'public.plain')), 'public views are equal');
is(sql($node, 'SELECT count(*) FROM public.events'), 3 * 40 * 20, 'and complete');
foreach my $shop ('shop_1', '"Shop ""3"""')
{
	is(sql($node, sprintf($same, "$shop.events")), sql($node, sprintf($same, "$shop.plain")), "tenant views of $shop are equal");
}
my $columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0";
is(sql($node, sprintf($columns, "public.events")), sql($node, sprintf($columns, "public.plain")), 'same columns of the public view');
is(sql($node, sprintf($columns, "shop_1.events")), sql($node, sprintf($columns, "shop_1.plain")), 'same columns of the tenant view');
like(sql($node, sprintf($columns, "shop_1.events_2025_01_05")), qr/, schema_name text$/, 'a leaf ends with schema_name');
is(sql($node, "SELECT string_agg(DISTINCT state, ',') FROM _wh.day_loads WHERE template_name = 'events'"), 'published', 'days are published');
is(sql($node, "SELECT days || ' ' || rows FROM _wh.tenant_templates WHERE template_name = 'events' AND tenant_name = 'shop_1'"), '40 800', 'and counted');
is(sql($node, "SELECT count(*) FROM pg_constraint WHERE conrelid = 'shop_1.events_2025_01_05'::regclass"), 0, 'no CHECK is left on a leaf');
is(sql($node, "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY 1) FROM pg_index WHERE indrelid = 'shop_1.events_2025_01_05'::regclass"),
	sql($node, "SELECT replace(string_agg(indexrelid::regclass::text, ' ' ORDER BY 1), 'plain', 'events') FROM pg_index WHERE indrelid = 'shop_1.plain_2025_01_05'::regclass"),
	'a leaf has the indexes of the template under their names');

# ---- and cheap

my $day = "at >= '2025-01-20' AND at < '2025-01-21'";
cmp_ok(plan_locks("SELECT * FROM public.events WHERE schema_name = 'shop_1' AND $day"), '<=', 12, 'one day of one tenant locks little');
cmp_ok(plan_locks("SELECT * FROM shop_1.events WHERE $day"), '<=', 12, 'and through the tenant view');
cmp_ok(plan_locks("SELECT * FROM public.events WHERE $day"), '<=', 30, 'one day of all tenants too');
is(sql($node, "SELECT count(*) FROM public.events WHERE schema_name = 'shop_1' AND $day"), 20, 'with its rows');

# ---- a day is loaded again: swapped, indexes and all

my $oid = sql($node, "SELECT 'shop_1.events_2025_01_05'::regclass::oid");
my $view = sql($node, "SELECT xmin FROM pg_class WHERE oid = 'shop_1.events'::regclass");
$production->safe_psql('shop_1', "UPDATE events SET amount = -1 WHERE at::date = '2025-01-05'");
is(backfill('events', '2025-01-05', '2025-01-05', 'all'), 'succeeded', 'a day is loaded again');
is(sql($node, "SELECT count(*) FROM public.events WHERE schema_name = 'shop_1' AND amount = -1"), 20, 'and has the new rows');
is(sql($node, "SELECT 'shop_1.events_2025_01_05'::regclass::oid"), $oid, 'in the same leaf');
is(sql($node, "SELECT count(*) FROM pg_inherits WHERE inhrelid = $oid"), 1, 'which is still in the tree');
is(sql($node, "SELECT bool_and(_wh.update_mv_by_template('events', 'shop_2', 'shop_2', d::date)) FROM generate_series(date '2025-02-08', '2025-02-10', '1 day') AS d"), 't', 'at once: days there and a new one');
is(sql($node, "SELECT count(*) FROM shop_2.events WHERE at >= '2025-02-08'"), 40, 'with their rows');
is(sql($node, "SELECT xmin FROM pg_class WHERE oid = 'shop_1.events'::regclass"), $view, 'the tenant view was not made again');
is(sql($node, "SELECT _wh.does_mv_exist('shop_1', 'events_2025_01_05')"), 't', 'does_mv_exist knows a leaf');
is(sql($node, "SELECT _wh.refresh_mv('shop_1', 'events_2025_01_05')"), 't', 'refresh_mv too');

# ---- rows outside of their day

$production->safe_psql('shop_1', "CREATE VIEW late AS SELECT id, at + interval '5 hours' * (id % 7) AS at, kind, amount, payload FROM events; GRANT SELECT ON late TO wh_reader");
sql($node, "INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, layout, date_column)
	SELECT 'late', replace(replace(query_template, 'FROM events', 'FROM late'), 'at >=', 'id > 0 AND at - interval ''5 hours'' * (id % 7) >='), column_definitions, 'partitions', 'at' FROM _wh.mv_templates WHERE template_name = 'events'");
my (undef, $query) = (0, sql($node, "SELECT query_template FROM _wh.mv_templates WHERE template_name = 'late'"));
sql($node, "UPDATE _wh.mv_templates SET query_template = 'SELECT id, at, kind, amount, payload FROM late WHERE (at - interval ''5 hours'' * (id % 7))::date = ''{TARGET_DATE}''' WHERE template_name = 'late'");
sql($node, "SELECT _wh.subscribe('shop_1', 'late', NULL, '2025-01-01')");
combine_only_when_asked($node);
is(backfill('late', '2025-01-03', '2025-01-03'), 'failed', 'rows outside of their day refuse it');
like(sql($node, "SELECT last_error FROM _wh.job_status WHERE template_name = 'late' AND kind = 'refresh'"), qr/\d+ rows of template "late" for 2025-01-03 are outside of their day: In column "at" one has 2025-01-04/, 'by name');
is(sql($node, "SELECT attempt FROM _wh.jobs WHERE template_name = 'late' AND kind = 'refresh'"), 1, 'without another try');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'late_2025%'"), 0, 'and nothing is left');

# ---- templates

fails_with($node, "UPDATE _wh.mv_templates SET date_column = NULL WHERE template_name = 'events'", '22023', qr/needs a date_column/, 'the layout needs a date column');
fails_with($node, "UPDATE _wh.mv_templates SET date_column = 'kind' WHERE template_name = 'events'", '22023', qr/of type text/, 'of a date type');
fails_with($node, "UPDATE _wh.mv_templates SET date_column = 'nothing' WHERE template_name = 'events'", '22023', qr/is no column/, 'that exists');
fails_with($node, "UPDATE _wh.mv_templates SET column_definitions = replace(column_definitions, 'NUMERIC', 'float8') WHERE template_name = 'events'", '55000', qr/cannot change from numeric to double precision/, 'a column keeps its type in a tree');
sql($node, "UPDATE _wh.mv_templates SET column_definitions = column_definitions || ', extra integer', query_template = replace(query_template, 'payload', 'payload, 7 AS extra') WHERE template_name = 'events'");
is(sql($node, "SELECT count(*), count(extra) FROM public.events"), '2400|0', 'a new column is NULL in old days');
is(backfill('events', '2025-01-05', '2025-01-07', 'outdated'), 'succeeded', 'days are loaded with it');
is(sql($node, "SELECT count(*), count(extra) FROM public.events"), '2400|180', 'and have it');
$production->safe_psql('shop_1', "INSERT INTO events SELECT 90000 + n, timestamp '2025-02-10 10:00' + n * interval '1 second', 'k', 1, 'p' FROM generate_series(1, 5) AS n");
is(backfill('events', '2025-02-10', '2025-02-10', 'missing'), 'succeeded', 'and new ones');
is(sql($node, "SELECT count(extra) FROM shop_1.events WHERE at >= '2025-02-10'"), 5, 'have it too');
sql($node, "UPDATE _wh.mv_templates SET column_definitions = replace(column_definitions, ', extra integer', ''), query_template = replace(query_template, ', 7 AS extra', '') WHERE template_name = 'events'");
is(sql($node, sprintf($columns, 'shop_1.events')), sql($node, sprintf($columns, 'shop_1.plain')), 'a column goes from the views');
is(backfill('events', '2025-01-05', '2025-01-05', 'outdated'), 'succeeded', 'and days are loaded without it');
is(sql($node, "SELECT count(*) FROM public.events WHERE at::date = '2025-01-05'"), 60, 'with all rows');
sql($node, "UPDATE _wh.mv_templates SET indexes = 'CREATE INDEX idx_{schema}_{view_name}_kind ON {schema}.{view_name} (kind)' WHERE template_name = 'events'");
is(backfill('events', '2025-01-05', '2025-01-05', 'outdated'), 'succeeded', 'other indexes: the leaf is replaced');
is(sql($node, "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE indrelid = 'shop_1.events_2025_01_05'::regclass"), 'shop_1.idx_shop_1_events_2025_01_05_kind', 'and has these');
is(sql($node, "SELECT count(*) FROM public.events WHERE at::date = '2025-01-05'"), 60, 'and all rows');

# ---- days and tenants go

sql($node, "SELECT _wh.drop_day('events', 'shop_1', '2025-01-07')");
is(sql($node, "SELECT count(*) FROM public.events WHERE at::date = '2025-01-07'"), 40, 'a day is dropped');
sql($node, 'DROP TABLE shop_1.events_2025_01_08');
sql($node, 'SELECT pg_reload_conf()');
wait_until($node, "SELECT state = 'missing' FROM _wh.day_loads WHERE template_name = 'events' AND target_schema = 'shop_1' AND target_date = '2025-01-08'", 'a dropped leaf is noticed');
sql($node, "SELECT _wh.remove_tenant('shop_2', drop_data => true)");
is(sql($node, "SELECT string_agg(DISTINCT schema_name, ' ' ORDER BY schema_name) FROM public.events"), 'Shop "3" shop_1', 'a tenant goes');
is(sql($node, "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = '_wh' AND relkind = 'p'"), 3, 'with its part');

done_testing();
