# Years of months and days: leap years, a tenant that joined in mid-year, days
# without rows, months without days; and a server with too few locks for it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse(conf => { max_locks_per_transaction => 40 });
my ($first, $last) = ('2023-06-10', '2024-12-31');
my $columns = 'id, at, kind, amount, payload';

add_events_template($node, 'events');
create_events($production, $first, 571, 2);
$production->safe_psql('postgres', "DELETE FROM events WHERE at::date = '2024-02-29'");
add_tenant($node, 'shop', $production, templates => ['events'], start_date => $first);

sub content
{
	return checksum($node, "SELECT $columns FROM public.events");
}

sub combine
{
	my ($arguments) = @_;
	my ($period) = $arguments =~ /\d, *\d/ ? 'month' : 'year';

	return sql($node, "SELECT concat_ws(' ', j->>'status', j->>'rows', jsonb_array_length(j->'days'), jsonb_array_length(j->'missing')) FROM _wh.create_combined_table_from_template_by_$period('events', 'shop', 'shop', $arguments) AS j");
}

sub relations
{
	return sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'm') AND relname !~ '_\\d\\d_\\d\\d\$'");
}

is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$last'", '3 min'))[1], 'succeeded', 'a year and a half of days is loaded');
my $before = content();
is($before, checksum($production, "SELECT $columns FROM events"), 'with the content of the tenant');

# ---- too few locks -----------------------------------------------------

my $offset = log_end($node);
fails_with($node, "SELECT _wh.create_combined_table_from_template_by_year('events', 'shop', 2024)", '53200',
	qr/combining 2024 of template "events" in schema "shop" needs more locks than the server can safely give.*It needs \d+ for 366 relations; the lock table has room for \d+, of which others hold \d+\..*Combine its months first, or raise max_locks_per_transaction to \d+ or more/s, 'a year of 366 days');
is(log_count($node, qr/out of shared memory/, $offset), 0, 'is refused before the server runs out of them');
is(content(), $before, 'nothing was changed');

# ---- months first ------------------------------------------------------

like(combine("2024, $_"), qr/^combined/, "month $_") foreach 1 .. 10;
is(relations(), join(' ', map { sprintf 'events_2024_%02d', $_ } 1 .. 10), 'ten months');
is(combine('2024'), 'combined 730 71 0', 'then the year: ten months, and the days of two');
is(content(), $before, 'same content');
is(relations(), 'events_2024', 'one table');
is(sql($node, "SELECT state || ' ' || rows || ' ' || relation || ' ' || in_views FROM _wh.day_loads WHERE target_date = '2024-02-29'"), 'combined 0 events_2024 true', 'the leap day, which has no rows, is there by the ledger');
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill('events', 'shop', '2024-01-01', '2024-12-31')"), 0, 'no day is missing');
is(sql($node, "SELECT days || ' ' || rows FROM _wh.tenant_templates"), '571 1140', 'the counters count it');
is(combine('2024'), 'already_combined 730', 'again: nothing to do');
is(combine('2024, 2'), 'already_combined 56', 'nor for a month of it');
is(combine('2023'), 'combined 410 205 0', 'a year that the tenant joined in June: nothing before is missing');
is(content(), $before, 'same content');
is(relations(), 'events_2023 events_2024', 'two tables');

# ---- days missing, empty months ----------------------------------------

add_events_template($node, 'holes');
sql($node, "SELECT _wh.subscribe('shop', 'holes', NULL, '2024-01-30')");
combine_only_when_asked($node);
sql($node, "SELECT _wh.update_mv_by_template('holes', 'shop', day::date) FROM unnest('{2024-02-28,2024-02-29,2024-04-01,2024-12-31}'::date[]) AS day");
fails_with($node, "SELECT _wh.create_combined_table_from_template_by_month('holes', 'shop', 'shop', 2024, 3, true)", '55000', qr/no day of 2024-03/, 'a month without any day');
fails_with($node, "SELECT _wh.create_combined_table_from_template_by_year('holes', 'shop', 2024)", '55000', qr/333 days of 2024 .* are missing.*Missing: 2024-01-30, 2024-01-31,/s, 'a year with days missing since its first');
is(sql($node, "SELECT concat_ws(' ', j->>'status', j->>'rows', jsonb_array_length(j->'missing')) FROM _wh.create_combined_table_from_template_by_month('holes', 'shop', 'shop', 2024, 2, true) AS j"), 'combined 2 27', 'a month of two days');
is(sql($node, "SELECT concat_ws(' ', j->>'status', j->>'rows', jsonb_array_length(j->'days'), jsonb_array_length(j->'missing')) FROM _wh.create_combined_table_from_template_by_year('holes', 'shop', 'shop', 2024, true, true) AS j"), 'combined 6 3 333', 'the year without them');
is( (enqueue_and_wait($node, "'holes', 'shop', '2024-03-01', '2024-03-31'"))[1], 'succeeded', 'a month of them comes late');
is(sql($node, "SELECT count(*), sum(rows), min(relation), max(state) FROM _wh.day_loads WHERE template_name = 'holes'"), '35|68|holes_2024|combined', 'into the table of the year');
is(sql($node, "SELECT count(*) FROM shop.holes"), 68, 'and into the view');
sql($node, "SELECT _wh.drop_day('holes', 'shop', target_date) FROM _wh.day_loads WHERE template_name = 'holes' ORDER BY target_date");
is(sql($node, "SELECT to_regclass('shop.holes_2024') IS NULL AND NOT EXISTS (SELECT FROM shop.holes)"), 't', 'when its last day is dropped, so is the table');

done_testing();
