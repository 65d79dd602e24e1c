# What people do to tables of ours, and callers in other isolation levels: no row
# is lost from a view or in it twice, and loads go on.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse();
my $first = '2024-01-01';
my @shops = ('shop_1', 'shop_2', 'shop_3');

foreach my $shop (@shops)
{
	$production->safe_psql('postgres', "CREATE DATABASE $shop");
	create_events($production, $first, 62, 4, database => $shop, seed => length $shop);
	add_tenant($node, $shop, $production, database => $shop, start_date => $first);
}

sub backfill
{
	my ($template, $from, $to) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'$template', 'shop_1', '$from', '$to'");

	return $state;
}

sub once
{
	my ($template, $shop, $date) = @_;

	return "SELECT _wh.update_mv_by_template('$template', '$shop', '$shop', '$date')";
}

# Days that have not the four rows that each day has at the tenant, in both views.
sub odd_days
{
	my ($template, $to, $rows) = @_;

	return sql($node, join ' UNION ALL ', map {
			"SELECT '$_ ' || d || ' ' || count(at) FROM generate_series(timestamp '$first', '$to', '1 day') AS d
			 LEFT JOIN $_.$template ON at >= d AND at < d + interval '1 day' GROUP BY d HAVING count(at) <> " . ($rows // 4)
		} 'shop_1', 'public');
}

# ---- an older snapshot takes nobody out of a view

foreach my $layout ('matviews', 'partitions')
{
	my $template = "in_$layout";

	add_events_template($node, $template);
	sql($node, "UPDATE _wh.mv_templates SET layout = '$layout', date_column = 'at' WHERE template_name = '$template'");
	is(sql($node, once($template, 'shop_1', $first)), 't', "$layout: a first tenant");
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM _wh.tenant_templates');
	is(sql($node, once($template, 'shop_2', $first)), 't', 'a second one joins after a snapshot was taken');
	is($session->query_safe(once($template, 'shop_3', $first)), 't', 'and a third one with that snapshot');
	$session->query_safe('COMMIT');
	$session->quit;
	is(sql($node, "SELECT string_agg(schema_name || ' ' || n, ', ' ORDER BY schema_name) FROM (SELECT schema_name, count(*) AS n FROM public.$template GROUP BY 1) v"),
		'shop_1 4, shop_2 4, shop_3 4', 'all are in the public view');
}

# ---- a table that keeps what is deleted

add_events_template($node, 'e', indexes => 'CREATE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)');
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'e'; SELECT _wh.subscribe('shop_1', 'e', NULL, '$first')");
combine_only_when_asked($node);
is(backfill('e', $first, '2024-02-10'), 'succeeded', 'days are loaded');
is(sql($node, "SELECT _wh.create_combined_table_from_template_by_month('e', 'shop_1', 'shop_1', 2024, 1)->>'status'"), 'combined', 'a month is combined');
sql($node, "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER keep BEFORE DELETE ON shop_1.e_2024_01 FOR EACH ROW EXECUTE FUNCTION keep()");
fails_with($node, once('e', 'shop_1', '2024-01-05'), '55000', qr/table shop_1.e_2024_01 keeps rows of 2024-01-05 that were deleted/, 'a late day is not added to its old rows');
fails_with($node, "SELECT _wh.drop_day('e', 'shop_1', '2024-01-05')", '55000', qr/keeps rows/, 'nor is a day dropped that stays');
is(odd_days('e', '2024-02-10'), '', 'every day is there once');
sql($node, 'DROP TRIGGER keep ON shop_1.e_2024_01');
is(sql($node, once('e', 'shop_1', '2024-01-05')), 't', 'without the trigger it is loaded');

# ---- check sums are of all columns, also where one has the name of an alias

add_events_template($node, 'aliases', columns => 'id INTEGER, at TIMESTAMP, r TEXT', indexes => 'CREATE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)',
	query => q{SELECT id, at, kind FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1});
sql($node, "SELECT _wh.subscribe('shop_1', 'aliases', NULL, '$first')");
combine_only_when_asked($node);
is(backfill('aliases', $first, '2024-01-31'), 'succeeded', 'a template with a column "r"');
sql($node, q{CREATE FUNCTION spoil() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN UPDATE shop_1.aliases_2024_01 SET id = -id; END';
	CREATE EVENT TRIGGER spoil ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION spoil()});
my $combine = "SELECT _wh.create_combined_table_from_template_by_month('aliases', 'shop_1', 'shop_1', 2024, 1, verify_content => true)->>'status'";
fails_with($node, $combine, 'XX001', qr/does not have the content/, 'another column that changes is noticed');
sql($node, 'DROP EVENT TRIGGER spoil');
is(sql($node, $combine), 'combined', 'content that is right is right');

# ---- a leaf that a person renamed is his

sql($node, 'ALTER TABLE shop_1.e_2024_02_02 RENAME TO mine; ALTER INDEX shop_1.idx_shop_1_e_2024_02_02_id RENAME TO mine_id');
is(sql($node, once('e', 'shop_1', '2024-02-10')), 't', 'a leaf is renamed, and a load notices');
is(sql($node, "SELECT state FROM _wh.day_loads WHERE template_name = 'e' AND target_date = '2024-02-02'"), 'missing', 'its day is missing');
is(sql($node, "SELECT count(*) FROM public.e WHERE at >= '2024-02-02' AND at < '2024-02-03'"), 0, 'and leaves the views');
is(sql($node, 'SELECT count(*) FROM shop_1.mine'), 4, 'but not the person');
is(backfill('e', '2024-02-02', '2024-02-02'), 'succeeded', 'it is loaded again');
is(odd_days('e', '2024-02-10'), '', 'and is in the views');
sql($node, 'CREATE SCHEMA archive; GRANT USAGE ON SCHEMA archive TO whadmin; ALTER TABLE shop_1.e_2024_01 SET SCHEMA archive');
is(sql($node, once('e', 'shop_1', '2024-02-10')), 't', 'a month is moved away, and a load notices');
is(sql($node, "SELECT count(*) FROM public.e WHERE at < '2024-02-01'"), 0, 'its days leave the views');
is(sql($node, "SELECT string_agg(DISTINCT state, ' ') FROM _wh.day_loads WHERE template_name = 'e' AND target_date < '2024-02-01'"), 'missing', 'and are missing');
is(backfill('e', $first, '2024-01-31'), 'succeeded', 'until they are loaded again');
is(odd_days('e', '2024-02-10'), '', 'into the views');

# In one transaction, or a worker may be warned in our place.
sql($node, 'CREATE SCHEMA closed');
my (undef, undef, $warnings) = $node->psql('postgres', 'BEGIN; ALTER TABLE shop_1.e_2024_02_04 SET SCHEMA closed; ' . once('e', 'shop_1', '2024-02-10') . '; COMMIT');
like($warnings, qr/closed.e_2024_02_04 is no day of ours any more.*DETACH PARTITION closed.e_2024_02_04/s, 'one that is out of reach keeps nobody from loading');
sql($node, 'DROP TABLE closed.e_2024_02_04');
is(backfill('e', '2024-02-04', '2024-02-04'), 'succeeded', 'and its day can be loaded when it is gone');

# ---- one that was detached is a day still

sql($node, 'ALTER TABLE _wh."e tree shop_1" DETACH PARTITION shop_1.e_2024_02_03');
sql($node, 'SELECT pg_reload_conf()');
wait_until($node, "SELECT count(*) = 4 FROM public.e WHERE at >= '2024-02-03' AND at < '2024-02-04'", 'a leaf is detached: the views read it by itself');
is(odd_days('e', '2024-02-10'), '', 'both of them');
is(sql($node, "SELECT _wh.convert_layout('e', 'partitions')"), 1, 'it can be moved back');
wait_until($node, "SELECT relispartition FROM pg_class WHERE oid = to_regclass('shop_1.e_2024_02_03')", 'into the tree');
is(odd_days('e', '2024-02-10'), '', 'with its rows');

# ---- a column that is dropped from the tree

sql($node, "UPDATE _wh.mv_templates SET column_definitions = replace(column_definitions, ', amount NUMERIC', ''), query_template = replace(query_template, ', amount', '') WHERE template_name = 'e'");
sql($node, 'ALTER TABLE _wh."e tree" DROP COLUMN amount');
is(sql($node, once('e', 'shop_1', '2024-02-09')), 't', 'a day that is there is loaded');
is(sql($node, once('e', 'shop_1', '2024-02-11')), 't', 'a new one too');
is(sql($node, "SELECT _wh.create_combined_table_from_template_by_month('e', 'shop_1', 'shop_1', 2024, 1)->>'status'"), 'combined', 'a month is combined');
is(sql($node, once('e', 'shop_1', '2024-01-09')), 't', 'a late day goes inside it');
is(sql($node, once('e', 'shop_1', '2024-01-09')), 't', 'and again');
sql($node, 'ALTER TABLE _wh."e tree" ADD COLUMN amount numeric');
is(sql($node, "SELECT bool_and(_wh.update_mv_by_template('e', 'shop_1', 'shop_1', d::date)) FROM generate_series(timestamp '2024-01-10', '2024-02-12', '8 days') AS d"), 't', 'a column is added by hand');
is(odd_days('e', '2024-02-11'), '', 'every day is there once');

# ---- a row of ours that a person has locked, and leaves so

sql($node, "ALTER SYSTEM SET wh_worker.max_attempts = 1000; SELECT pg_reload_conf()");
my $person = $node->background_psql('postgres');
$person->query_safe('BEGIN; SELECT count(*) FROM (SELECT FROM _wh.tenant_templates FOR UPDATE) AS rows');
my $waiting = sql($node, "SELECT _wh.enqueue_backfill('e', 'shop_1', '2024-02-10', '2024-02-10', mode => 'all')");
wait_until($node, "SELECT attempt > 1 AND last_sqlstate = '55006' FROM _wh.jobs WHERE kind = 'refresh' AND backfill_id = $waiting", 'a load is tried again while a person has the row of its subscription');
$person->query_safe('COMMIT');
$person->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($waiting, '50 s')"), 'succeeded', 'and succeeds when he has left');
sql($node, "ALTER SYSTEM RESET wh_worker.max_attempts; SELECT pg_reload_conf()");

# ---- a public view that somebody else makes, while we look whether it is there

add_events_template($node, 'looked_at');
is(sql($node, once('looked_at', 'shop_1', $first)), 't', 'a day and its public view');
my $maker = $node->background_psql('postgres');
my $looker = $node->background_psql('postgres', on_error_stop => 0);
my $looker_pid = $looker->query_safe('SELECT pg_backend_pid()');
$maker->query_safe('BEGIN; LOCK TABLE _wh.tenant_templates IN ACCESS EXCLUSIVE MODE; DROP VIEW public.looked_at');
$looker->query_until(qr/begun/, "\\echo begun\nCREATE TABLE looked AS SELECT _wh.update_public_view_by_template('looked_at') AS done;\n");
wait_until($node, "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $looker_pid", 'a publication is kept from seeing all of it at once');
$maker->query_safe("SELECT _wh.update_public_view_by_template('looked_at'); COMMIT");
$maker->quit;
wait_until($node, "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $looker_pid", 'and goes on');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname = 'looked'"), 1, 'it takes the view that was made meanwhile for ours');
$looker->quit;

# ---- another date column while the first day of a tree is loaded

add_events_template($node, 'two', columns => 'id INTEGER, at TIMESTAMP, at2 TIMESTAMP', indexes => '',
	query => q{SELECT id, at, at AS at2 FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1});
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'two'; SELECT _wh.subscribe('shop_1', 'two', NULL, '$first')");
combine_only_when_asked($node);
my $lock = $production->background_psql('shop_1');
$lock->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
my $id = sql($node, "SELECT _wh.enqueue_backfill('two', 'shop_1', '$first', '$first')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching'", 'a load waits for its tenant');
sql($node, "UPDATE _wh.mv_templates SET date_column = 'at2' WHERE template_name = 'two'");
$lock->query_safe('COMMIT');
$lock->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'it is loaded');
is(sql($node, q{SELECT pg_get_partkeydef('_wh."two tree shop_1"'::regclass)}), 'RANGE (at2)', 'into a tree by the new date column');

done_testing();
