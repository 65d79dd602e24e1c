# Days into the table of their month, and months into that of their year: same
# content, fewer relations, refusals by name, and nothing changed by those.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse();

add_events_template($node, 'events');
my %first = (shop_1 => '2024-02-27', shop_2 => '2023-12-20');
my %last = (shop_1 => '2024-04-02', shop_2 => '2024-01-02');
foreach my $shop ('shop_1', 'shop_2')
{
	$production->safe_psql('postgres', "CREATE DATABASE $shop");
	create_events($production, $first{$shop}, $shop eq 'shop_1' ? 36 : 14, 50,
		database => $shop, seed => length $shop, width => $shop eq 'shop_1' ? 20 : 9000);
	add_tenant($node, $shop, $production,
		database => $shop, templates => ['events'], start_date => $first{$shop});
}
$production->safe_psql('shop_1', "DELETE FROM events WHERE at::date = '2024-03-05'");

sub load_days
{
	my ($tenant, $from, $to) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'events', '$tenant', '$from', '$to', NULL, 'all'");

	return $state;
}

sub combine
{
	my ($arguments, $expression) = @_;
	my ($period) = $arguments =~ /\d, *\d/ ? 'month' : 'year';

	$expression //= "j->>'status'";
	return sql($node, "SELECT $expression FROM _wh.create_combined_table_from_template_by_$period($arguments) AS j");
}

sub refused
{
	my ($arguments, $sqlstate, $pattern, $name) = @_;
	my ($period) = $arguments =~ /\d, *\d/ ? 'month' : 'year';

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return fails_with($node, "SELECT _wh.create_combined_table_from_template_by_$period($arguments)",
		$sqlstate, $pattern, $name);
}

sub relations
{
	my ($schema) = @_;

	return sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = '$schema'::regnamespace AND relkind IN ('r', 'm')");
}

sub content
{
	return checksum($node, 'SELECT * FROM public.events');
}

# ---- refusals ----------------------------------------------------------

refused("'nothing', 'shop_1', 'shop_1', 2024", '42704', qr/template "nothing" does not exist/, 'no such template');
refused("'events', 'nobody', 'nobody', 2024", '42704', qr/tenant "nobody" does not exist/, 'no such tenant');
refused("'events', 'shop_1', 'shop_2', 2024", '42704', qr/does not feed template/, 'not subscribed there');
refused("'events', 'shop_1', extract(year FROM now() AT TIME ZONE 'UTC')::integer", '22023', qr/is not over/, 'the current year');
refused("'events', 'shop_1', 0", '22023', qr/year 0 is out of range/, 'no year');
refused("'events', 'shop_1', 2024, 13", '22023', qr/month 13 is out of range/, 'no month');
refused("'events', 'shop_1', 2024", '55000', qr/no day of 2024/, 'nothing is loaded');

foreach my $shop ('shop_1', 'shop_2')
{
	is(load_days($shop, $first{$shop}, $last{$shop}), 'succeeded', "$shop is loaded");
}
sql($node, "SELECT _wh.drop_day('events', 'shop_1', '2024-03-20')");
my $days_only = relations('shop_1');
refused("'events', 'shop_1', 2024, 3", '55000', qr/1 day of 2024-03 .*Missing: 2024-03-20\./s, 'a day is missing');
refused("'events', 'shop_1', 2024", '55000', qr/days of 2024 .*Missing: 2024-03-20, 2024-04-03,.* and \d+ more/s, 'many are');
is(load_days('shop_1', '2024-03-20', '2024-03-20'), 'succeeded', 'the missing day is loaded');

my $before = content();
sql($node, 'CREATE TABLE shop_1.events_2024_03 (mine integer); INSERT INTO shop_1.events_2024_03 VALUES (1)');
refused("'events', 'shop_1', 2024, 3", '42P07', qr/"shop_1.events_2024_03" exists and was not made by wh_worker/, 'the name is taken');
is(sql($node, 'SELECT mine FROM shop_1.events_2024_03; DROP TABLE shop_1.events_2024_03'), 1, 'and left alone');

sql($node, 'CREATE VIEW public.on_a_day AS SELECT * FROM shop_1.events_2024_03_07');
refused("'events', 'shop_1', 2024, 3", '2BP01', qr/cannot be combined because view public.on_a_day depends on it/, 'a view of a user is on a day');
sql($node, 'DROP VIEW public.on_a_day');

sql($node, "UPDATE _wh.day_loads SET rows = rows + 1 WHERE target_schema = 'shop_1' AND target_date = '2024-03-09'");
refused("'events', 'shop_1', 2024, 3", '55000', qr/"shop_1.events_2024_03_09" does not have the rows.*It has 50 rows, the ledger 51/s, 'a day is not as the ledger says');
sql($node, "UPDATE _wh.day_loads SET rows = rows - 1 WHERE target_schema = 'shop_1' AND target_date = '2024-03-09'");
is(content(), $before, 'refusals change nothing');
unlike(relations('shop_1'), qr/events_2024_03( |$)/, 'and leave nothing behind');

# ---- a month -----------------------------------------------------------

is(combine("'events', 'shop_1', 'shop_1', 2024, 3, false, true",
		"concat_ws(' ', j->>'status', j->>'table', j->>'rows', jsonb_array_length(j->'days'), j->'days'->4->>'relation', j->'days'->4->>'rows', j->>'missing', j->>'content_verified')"),
	'combined shop_1.events_2024_03 1500 31 events_2024_03_05 0 [] true', 'a month is combined, with an empty day');
is(content(), $before, 'same content');
is(relations('shop_1'),
	'events_2024_02_27 events_2024_02_28 events_2024_02_29 events_2024_03 events_2024_04_01 events_2024_04_02',
	'the days are gone');
is(sql($node, "SELECT count(*), count(DISTINCT relation_oid), sum(rows), min(state), max(relation) FROM _wh.day_loads WHERE state = 'combined'"),
	'31|1|1500|combined|events_2024_03', 'the ledger knows');
is(sql($node, "SELECT relation_oid = 'shop_1.events_2024_03'::regclass AND in_views AND counted FROM _wh.day_loads WHERE target_schema = 'shop_1' AND target_date = '2024-03-05'"),
	't', 'of the empty day too');
is(sql($node, "SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'shop_1.events_2024_03'::regclass AND attnum > 0"),
	'id integer, at timestamp without time zone, kind text, amount numeric, payload text, _wh_date date', 'columns of the template and the date');
is(sql($node, 'SELECT bool_and(_wh_date = at::date) FROM shop_1.events_2024_03'), 't', 'which is right');
is(sql($node, "SELECT string_agg(indexname, ' ') FROM pg_indexes WHERE tablename = 'events_2024_03'"), 'idx_shop_1_events_2024_03_id', 'it has the index');
is(sql($node, "SELECT reltuples FROM pg_class WHERE oid = 'shop_1.events_2024_03'::regclass"), 1500, 'and statistics');
is(sql($node, "SELECT has_table_privilege('phood_ro', 'shop_1.events_2024_03', 'SELECT')"), 't', 'and is granted to readers');
is(sql($node, "SELECT days || ' ' || rows FROM _wh.data_freshness WHERE target_schema = 'shop_1'"), '36 1750', 'counters are as before');
is(sql($node, "SELECT command || ': ' || return_message FROM _wh.job_run_details WHERE command LIKE 'combine%'"),
	'combine events 2024-03 of shop_1 in shop_1: combined 1500 rows of 31 relations', 'the run is recorded');
is(combine("'events', 'shop_1', 2024, 3"), 'already_combined', 'again: nothing to do');

is(sql($node, "SELECT count(*) FROM _wh.plan_backfill('events', 'shop_1', '2024-03-01', '2024-03-31')"), 0, 'and no day is missing');

# ---- a year ------------------------------------------------------------

is(combine("'events', 'shop_1', 2024, 2"), 'combined', 'a month in which the tenant joined, in a leap year');
is(sql($node, q{BEGIN; SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_year('events', 'shop_1', 'shop_1', 2024, true) AS j; ROLLBACK}),
	'combined', 'a year, and rolled back');
is(relations('shop_1'), 'events_2024_02 events_2024_03 events_2024_04_01 events_2024_04_02', 'nothing is left of it');
is(combine("'events', 'shop_1', 'shop_1', 2024, true, true",
		"concat_ws(' ', j->>'status', j->>'rows', j->'days'->1->>'relation', j->'days'->1->>'days', j->'days'->1->>'rows', j->'days'->2->>'date', jsonb_array_length(j->'missing'))"),
	'combined 1750 events_2024_03 31 1500 2024-04-01 273', 'a year of months and days, with days missing');
is(content(), $before, 'same content');
is(relations('shop_1'), 'events_2024', 'one table');
is(sql($node, 'SELECT bool_and(_wh_date = at::date) FROM shop_1.events_2024'), 't', 'with the right dates');
is(combine("'events', 'shop_1', 2024"), 'already_combined', 'again: nothing to do');
is(combine("'events', 'shop_1', 2024, 3", "concat_ws(' ', j->>'status', j->>'table', j->>'rows')"),
	'already_combined shop_1.events_2024 1500', 'nor for a month of it');

# ---- older shapes, wide rows -------------------------------------------

sql($node, q{UPDATE _wh.mv_templates SET column_definitions = 'id BIGINT, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT, note TEXT',
	query_template = replace(query_template, 'payload', 'payload, kind')});
is(load_days('shop_2', '2023-12-28', '2023-12-29'), 'succeeded', 'some days of the new shape');
$before = content();
is(combine("'events', 'shop_2', 'shop_2', 2023, false, true", "concat_ws(' ', j->>'status', j->>'rows', jsonb_array_length(j->'days'))"),
	'combined 600 12', 'a year of a tenant that joined in it, days of two shapes');
is(content(), $before, 'same content');
is(relations('shop_2'), 'events_2023 events_2024_01_01 events_2024_01_02', 'the other year is as it was');

# ---- a key of days only ------------------------------------------------

add_events_template($node, 'keyed', query => q{SELECT (row_number() OVER (ORDER BY id))::integer AS n, kind FROM events
	WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1},
	columns => 'n INTEGER, kind TEXT', indexes => 'CREATE UNIQUE INDEX k_{schema}_{view_name} ON {schema}.{view_name} (n)');
sql($node, "SELECT _wh.update_mv_window_by_template('keyed', 'shop_1', '2024-02-27', '2024-02-29')");
refused("'keyed', 'shop_1', 'shop_1', 2024, 2", '23505', qr/unique in each day of template "keyed", but not over 2024-02.*Key \(n\)=\(\d+\) is duplicated/s, 'a key that is not unique over the month');
is(sql($node, "SELECT count(*) FROM shop_1.keyed"), 150, 'and the days are there');

# ---- a table that a person takes away ----------------------------------

sql($node, 'ALTER TABLE shop_2.events_2023 RENAME TO gone');
sql($node, "SELECT _wh.update_tenant_union_view_by_template('events', 'shop_2')");
is(sql($node, "SELECT count(*), count(relation_oid) FROM _wh.day_loads WHERE target_schema = 'shop_2' AND state = 'missing'"), '12|0', 'all days of a renamed table are missing');
is(sql($node, 'SELECT count(*) FROM shop_2.events'), 100, 'and no longer in the view');
is(load_days('shop_2', '2023-12-20', '2023-12-31'), 'succeeded', 'they are loaded again');
is(sql($node, 'SELECT count(*) FROM shop_2.events'), 700, 'and in the view');
sql($node, 'DROP TABLE shop_2.gone');

# ---- crash, and the end of a tenant ------------------------------------

is(combine("'events', 'shop_2', 2023, 12"), 'combined', 'a month');
$before = content();
$node->stop('immediate');
$node->start;
is(content(), $before, 'survives a crash');
sql($node, "SELECT _wh.remove_tenant('shop_1', true)");
is(sql($node, "SELECT to_regnamespace('shop_1') IS NULL"), 't', 'a tenant goes with its combined table');

done_testing();
