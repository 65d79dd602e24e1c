# Days that are not as they should be: too many or too few rows, none at all,
# a relation that a person took away, a tenant whose columns have changed.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my ($first, $last) = ('2025-07-01', '2025-07-12');
my $production = new_tenant('production');
my $node = new_warehouse();

add_events_template($node, 'events');
foreach my $shop ('shop_1', 'shop_2')
{
	$production->safe_psql('postgres', "CREATE DATABASE $shop");
	create_events($production, $first, 12, 100, database => $shop);
	add_tenant($node, $shop, $production,
		database => $shop, templates => ['events'], start_date => $first);
}

sub load_days
{
	my ($tenant, $from, $to) = @_;
	my ($id, $state) = enqueue_and_wait($node,
		"'events', '$tenant', '$from', '$to', NULL, 'all', false");

	return $state;
}

sub day
{
	my ($tenant, $date) = @_;

	return sql($node, "SELECT state || ' ' || rows || ' ' || in_views FROM _wh.day_loads WHERE target_schema = '$tenant' AND target_date = '$date'");
}

sub freshness
{
	my ($column, $tenant) = @_;

	return sql($node, "SELECT $column FROM _wh.data_freshness WHERE target_schema = '$tenant'");
}

# ---- no rows at all ----------------------------------------------------

$production->safe_psql('shop_1', "DELETE FROM events WHERE at::date = '2025-07-03'");
is(load_days('shop_1', $first, '2025-07-08'), 'succeeded', 'days are loaded');
is(day('shop_1', '2025-07-03'), 'published 0 true', 'a day without rows is a day');
is(sql($node, 'SELECT count(*) FROM shop_1.events_2025_07_03'), 0, 'with an empty relation');
is(freshness('days', 'shop_1'), 8, 'and is counted');
is(freshness('suspect_days', 'shop_1'), 0, 'without suspect_factor nothing is suspect');

# ---- a count out of the band -------------------------------------------

foreach my $factor ('0.5', "'NaN'", "'infinity'")
{
	fails_with($node, "UPDATE _wh.mv_templates SET suspect_factor = $factor",
		'23514', qr/suspect_factor/, "a suspect_factor of $factor is refused");
}
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = 2');
is(sql($node, 'SELECT version FROM _wh.mv_templates'), 1, 'setting it makes no day outdated');

$production->safe_psql('shop_1', q{
	DELETE FROM events WHERE at::date = '2025-07-09' AND id % 10 <> 0;
	INSERT INTO events SELECT id + 100000, at, kind, amount, payload FROM events WHERE at::date = '2025-07-10';
	INSERT INTO events SELECT id + 200000, at, kind, amount, payload FROM events WHERE at::date = '2025-07-11';
	INSERT INTO events SELECT id + 100000, at, kind, amount, payload FROM events WHERE at::date = '2025-07-11' AND id > 200000;
});
my $offset = log_end($node);
is(load_days('shop_1', '2025-07-02', '2025-07-11'), 'succeeded', 'out of the band: the load succeeds');
is(day('shop_1', '2025-07-03'), 'published 0 true', 'with fewer than five days before it nothing is suspect');
is(day('shop_1', '2025-07-09'), 'suspect 10 true', 'too few rows are suspect, and in the views');
is(day('shop_1', '2025-07-10'), 'published 200 true', 'what is just inside is not');
is(day('shop_1', '2025-07-11'), 'suspect 300 true', 'too many rows are suspect');
is(freshness("suspect_days || ' ' || days || ' ' || data_through", 'shop_1'),
	'2 11 2025-07-11', 'data_freshness counts them, as suspect and as days');
is(sql($node, "SELECT count(*) FROM shop_1.events WHERE at::date = '2025-07-11'"), 300, 'their rows can be read');
like( sql($node, "SELECT last_error FROM _wh.day_loads WHERE state = 'suspect' AND target_date = '2025-07-09'"),
	qr/^10 rows, expected 50 to 200 \(the median of the 8 days before is 100\)$/, 'the ledger has the numbers');
like( sql($node, "SELECT return_message FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id) WHERE j.target_date = '2025-07-09' ORDER BY runid DESC LIMIT 1"),
	qr/^suspect: 10 rows, expected 50 to 200/, 'job_run_details too');
is(log_count($node, qr/WARNING:.*2025-07-09 of template "events" from tenant "shop_1" is suspect: 10 rows, expected 50 to 200/, $offset),
	1, 'and the log');
is( sql($node, "SELECT reason FROM _wh.plan_backfill('events', 'shop_1', '2025-07-09', '2025-07-09', mode => 'all')"),
	'suspect', 'plan_backfill says so');

my ($status, $out, $err) = $node->psql('postgres',
	"SELECT _wh.update_mv_window_by_template('events', 'shop_1', '2025-07-09', '2025-07-09')");
like($out, qr/"status": "suspect"/, 'a window that runs at once says so');
like($err, qr/WARNING:.*is suspect: 10 rows/, 'after a WARNING');
is(day('shop_1', '2025-07-09'), 'suspect 10 true', 'it is still suspect');

$production->safe_psql('shop_1', q{
	INSERT INTO events SELECT id + 300000, timestamp '2025-07-09', kind, amount, payload FROM events WHERE at::date = '2025-07-08';
});
is(load_days('shop_1', '2025-07-09', '2025-07-09'), 'succeeded', 'once the tenant is complete');
is(day('shop_1', '2025-07-09'), 'published 110 true', 'the day is no longer suspect');

# Today may still grow.
my $today = sql($node, 'SELECT _wh.current_date_utc()');
sql($node, "SELECT _wh.update_mv_by_template('events', 'shop_1', 'shop_1', '$today', false)");
like(day('shop_1', $today), qr/^published 0/, 'a day that is not over is not suspect for its few rows');
sql($node, "SELECT _wh.drop_day('events', 'shop_1', '$today')");

# ---- keep_last_good ----------------------------------------------------

is(load_days('shop_2', $first, '2025-07-10'), 'succeeded', 'the other tenant is loaded');
sql($node, 'UPDATE _wh.mv_templates SET keep_last_good = true');
$production->safe_psql('shop_2', "DELETE FROM events WHERE at::date IN ('2025-07-09', '2025-07-11') AND id % 10 <> 0");
my $content = checksum($node, 'SELECT * FROM shop_2.events');
my $row = "SELECT (rows, bytes, loaded_at, fetch_started_at, relation_oid, relation_file, job_id) FROM _wh.day_loads WHERE target_schema = 'shop_2' AND target_date = '2025-07-09'";
my $before = sql($node, $row);
is(load_days('shop_2', '2025-07-09', '2025-07-11'), 'succeeded', 'keep_last_good: the load succeeds');
is(day('shop_2', '2025-07-09'), 'suspect 100 true', 'the day is suspect');
is(sql($node, $row), $before, 'the ledger describes the content that is there');
like( sql($node, "SELECT last_error FROM _wh.day_loads WHERE target_schema = 'shop_2' AND target_date = '2025-07-09'"),
	qr/^10 rows, expected 50 to 200 .*; the 100 rows loaded before are kept$/, 'and says what came');
is( checksum($node, "SELECT * FROM shop_2.events WHERE at < '2025-07-11'"),
	$content, 'the content is what it was');
is(day('shop_2', '2025-07-11'), 'suspect 10 true', 'where there was none before, what came is loaded');
is(freshness('suspect_days', 'shop_2'), 2, 'data_freshness counts both');
is( sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%' AND relkind <> 't'"),
	0, 'no transient relation is left');
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop_2', '2025-07-09')"), 't', 'the same at once');
is(sql($node, $row), $before, 'keeps it too');
$production->safe_psql('shop_2', q{
	INSERT INTO events SELECT id + 400000, timestamp '2025-07-11', kind, amount, payload FROM events WHERE at::date = '2025-07-08' LIMIT 20;
});
is(load_days('shop_2', '2025-07-11', '2025-07-11'), 'succeeded', 'a suspect day is loaded again');
is(day('shop_2', '2025-07-11'), 'suspect 30 true', 'what is kept is good content, not the suspect one');
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = NULL, keep_last_good = false');
is(load_days('shop_2', '2025-07-09', '2025-07-11'), 'succeeded', 'once the band is off');
is(day('shop_2', '2025-07-09'), 'published 10 true', 'what the tenant has is loaded');
is(freshness('suspect_days', 'shop_2'), 0, 'and nothing is suspect');

# ---- relations that a person took away ---------------------------------

my $days_before = freshness('missing_days', 'shop_2');
my $expected = checksum($node, 'SELECT * FROM shop_2.events');
sql($node, q{
	DROP MATERIALIZED VIEW shop_2.events_2025_07_02 CASCADE;
	ALTER MATERIALIZED VIEW shop_2.events_2025_07_04 RENAME TO mine;
	CREATE SCHEMA elsewhere;
	ALTER MATERIALIZED VIEW shop_2.events_2025_07_06 SET SCHEMA elsewhere;
});
is( sql($node, "SELECT string_agg(planned_date::text || ' ' || reason, ', ' ORDER BY planned_date) FROM _wh.plan_backfill('events', 'shop_2', '$first', '2025-07-11')"),
	'2025-07-02 missing, 2025-07-04 missing, 2025-07-06 missing', 'plan_backfill sees that days are missing');
# The launcher looks when it wakes.
wait_until($node, q{
	SELECT pg_reload_conf() AND (SELECT string_agg(target_date || ' ' || (relation_oid IS NULL), ', ' ORDER BY target_date)
	= '2025-07-02 true, 2025-07-04 true, 2025-07-06 true' FROM _wh.day_loads WHERE state = 'missing')},
	'the ledger says that they are missing');
wait_until($node, "SELECT missing_days - $days_before = 3 FROM _wh.data_freshness WHERE target_schema = 'shop_2'",
	'data_freshness counts them as soon as the views are without them');
wait_until($node, "SELECT to_regclass('shop_2.events') IS NOT NULL AND to_regclass('public.events') IS NOT NULL",
	'the views that went with a day are made again');
is( checksum($node, 'SELECT * FROM shop_2.events'),
	checksum($production, events_query($first, '2025-07-11') . " AND at::date NOT IN ('2025-07-02', '2025-07-04', '2025-07-06')", 'shop_2'),
	'with the days that are left');
my ($id, $state) = enqueue_and_wait($node, "'events', 'shop_2', '$first', '2025-07-11'");
is($state, 'failed', 'a backfill of what is missing fails');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), 3, 'it loads just these days');
like( sql($node, "SELECT last_error FROM _wh.jobs WHERE backfill_id = $id AND state = 'failed'"),
	qr/"shop_2\.idx_shop_2_events_2025_07_04_id" exists.*index of relation "mine"/, 'but for the one whose index still has the name that is needed');
sql($node, 'ALTER INDEX shop_2.idx_shop_2_events_2025_07_04_id RENAME TO mine_id');
is(sql($node, "SELECT _wh.retry_failed($id)"), 1, 'retried after that is renamed as well');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'it succeeds');
is(checksum($node, 'SELECT * FROM shop_2.events'), $expected, 'and the view is as before');
is(freshness('missing_days', 'shop_2'), $days_before, 'nothing more is missing');
is( sql($node, "SELECT count(*) FROM shop_2.mine UNION ALL SELECT count(*) FROM elsewhere.events_2025_07_06"),
	"100\n100", 'what the person renamed or moved is left alone');

# ---- columns that changed at the tenant --------------------------------

my $good = checksum($node, 'SELECT * FROM shop_1.events');
my @drifts = (
	[ 'ALTER TABLE events DROP COLUMN amount', qr/column "?amount"? does not exist/ ],
	[ 'ALTER TABLE events ADD COLUMN amount boolean', qr/"amount".*numeric.*boolean/ ]);
foreach my $drift (@drifts)
{
	my ($change, $message) = @$drift;

	$production->safe_psql('shop_1', $change);
	($id, $state) = enqueue_and_wait($node,
		"'events', NULL, '2025-07-05', '2025-07-06', NULL, 'all'");
	is($state, 'failed', "$change: the backfill failed");
	is( sql($node, "SELECT string_agg(DISTINCT tenant_name || ' ' || state, ', ' ORDER BY tenant_name || ' ' || state) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"),
		'shop_1 failed, shop_2 succeeded', 'for that tenant, the other one goes on');
	like( sql($node, "SELECT DISTINCT last_error FROM _wh.jobs WHERE backfill_id = $id AND state = 'failed'"),
		$message, 'the column is named');
	like( sql($node, "SELECT state || ' ' || (failed_at IS NOT NULL) || ' ' || last_error FROM _wh.day_loads WHERE target_schema = 'shop_1' AND target_date = '2025-07-05'"),
		qr/^published true .*$message/, 'also in the ledger');
	is(checksum($node, 'SELECT * FROM shop_1.events'), $good, 'the last good days stay');
}

done_testing();
