# The lock budget: what queries really lock, warnings at half of it, views that
# are not made because one query would take it all, and how they come back.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
# Room for 10 * (20 connections + 3 autovacuum workers and their launcher + 16 workers) = 400 locks.
my $node = new_warehouse(conf => {
	max_connections => 20, max_locks_per_transaction => 10,
	room_for_autovacuum(3), max_wal_senders => 0, max_worker_processes => 16 });
my $index = 'CREATE INDEX {view_name}_%s ON {schema}.{view_name} (%s)';

add_events_template($node, 'plain', indexes => '');
add_events_template($node, 'events');
add_events_template($node, 'wide', indexes => join '; ', map { sprintf $index, $_, $_ } qw(id at kind));
foreach my $shop ('shop_1', 'shop_2')
{
	$production->safe_psql('postgres', "CREATE DATABASE $shop");
	create_events($production, '2024-01-01', 120, 3, database => $shop, width => 9000);
	add_tenant($node, $shop, $production, database => $shop, templates => [ 'plain', 'events', 'wide' ],
		start_date => '2024-01-01');
}

# Days of January 2024, numbered on into the months that follow.
sub load_days
{
	my ($template, $tenant, $from, $to) = @_;
	my ($id, $state) = enqueue_and_wait($node,
		"'$template', '$tenant', date '2024-01-01' + $from - 1, date '2024-01-01' + $to - 1");

	return $state;
}

# What one transaction holds after a statement, by itself and as union_health says.
sub locks_are_counted
{
	my ($view, $locks, $name) = @_;
	my ($schema, $template) = split /\./, $view;
	my $held = q{SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384};

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return subtest $name => sub {
		is(health($view, 'locks_per_query'), $locks, 'as union_health counts');
		is(health($view, 'locks_unfiltered'), $locks, 'with a condition or without');
		foreach my $query ("EXPLAIN (COSTS OFF) SELECT * FROM $view",
			"SELECT count(*), max(payload), max(amount) FROM $view",
			"SELECT count(*) FROM $view WHERE at >= '2024-01-02' AND at < '2024-01-03'",
			$schema eq 'public' ? "SELECT count(*) FROM $view WHERE schema_name = 'shop_1'" : ())
		{
			my $out = sql($node, "BEGIN; SELECT 'locks'; $query; SELECT 'held ' || ($held); COMMIT");

			like($out, qr/^held $locks$/m, $query);
		}
	};
}

sub health
{
	my ($view, $expression) = @_;
	my ($schema, $template) = split /\./, $view;

	return sql($node, "SELECT $expression FROM _wh.union_health WHERE template_name = '$template' AND target_schema = '$schema'");
}

# ---- what is counted ---------------------------------------------------

is(sql($node, 'SELECT _wh.lock_budget()'), 400, 'the budget is what the lock table is sized for');
foreach my $case ([ 'plain', 0 ], [ 'events', 1 ], [ 'wide', 3 ])
{
	my ($template, $indexes) = @$case;
	my @locks = map { 1 + $_ * (1 + $indexes) } (5, 4);

	is(load_days($template, 'shop_1', 1, 5), 'succeeded', "$template of shop_1");
	is(load_days($template, 'shop_2', 1, 4), 'succeeded', "$template of shop_2");
	locks_are_counted("shop_1.$template", $locks[0], "$template: tenant view, $indexes indexes");
	locks_are_counted("public.$template", 1 + $locks[0] + $locks[1], "$template: public view, $indexes indexes");
}
is(health('shop_1.wide', "concat_ws(' ', tenant_name, members, lock_budget, readers_at_once, readable, refused_days, definition_bytes > 1000, advice IS NULL)"),
	'shop_1 5 400 19 t 0 t t', 'a row per tenant view');
is(health('public.wide', "concat_ws(' ', coalesce(tenant_name, 'all'), members, readers_at_once, advice IS NULL)"), 'all 2 10 t', 'and per public view');
is(sql($node, "SELECT string_agg(target_schema || '.' || template_name, ' ') FROM _wh.union_health"),
	'shop_1.events shop_2.events public.events shop_1.plain shop_2.plain public.plain shop_1.wide shop_2.wide public.wide', 'of every template');
sql($node, 'CREATE INDEX mine ON shop_1.wide_2024_01_01 (amount)');
sql($node, "SELECT _wh.update_tenant_union_view_by_template('wide', 'shop_1')");
locks_are_counted('shop_1.wide', 22, 'an index that somebody made counts from the next publication on');
sql($node, 'DROP INDEX shop_1.mine');

# ---- partitions --------------------------------------------------------

# Of 50 days up to today a query for the last 30 locks, with its margin, 32.
my $held = q{SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384};
my $today = sql($node, "SELECT (now() AT TIME ZONE 'UTC')::date");
my $recent = "WHERE at >= date '$today' - 31";

add_events_template($node, 'tree');
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'tree'");
foreach my $shop ('shop_3', 'shop_4')
{
	$production->safe_psql('postgres', "CREATE DATABASE $shop");
	create_events($production, sql($node, "SELECT date '$today' - 49"), 50, 3, database => $shop);
	add_tenant($node, $shop, $production, database => $shop, templates => ['tree']);
}
is((enqueue_and_wait($node, "'tree', NULL, date '$today' - 49, date '$today'"))[1], 'succeeded', 'a partition tree');
foreach my $case ([ 'shop_3.tree', '', 3 + 50 * 2 ], [ 'shop_3.tree', $recent, 3 + 32 * 2 ],
	[ 'public.tree', '', 2 + 2 * 101 ], [ 'public.tree', $recent, 2 + 2 * 65 ])
{
	my ($view, $where, $locks) = @$case;

	is(health($view, $where eq '' ? 'locks_unfiltered' : 'locks_per_query'), $locks, "partitions: $view $where");
	is(sql($node, "BEGIN; SELECT FROM $view $where LIMIT 0; $held; COMMIT") =~ /(\d+)$/ ? $1 : '', $locks, 'which is what it locks');
}
# By the time of the day the margin reaches into one day more; which, the plan says.
my ($bound) = sql($node, 'EXPLAIN (COSTS OFF) SELECT FROM shop_3.tree WHERE at >= CURRENT_DATE - 30') =~ /\(at >= '(\d+-\d+-\d+) /;
my $days = sql($node, "SELECT date '$today' - date '$bound' + 1");
ok($days == 32 || $days == 33, "the margin of a dashboard's filter is a day or two");
is(sql($node, "BEGIN; SELECT FROM public.tree WHERE at >= CURRENT_DATE - 30 LIMIT 0; $held; COMMIT") =~ /(\d+)$/ ? $1 : '',
	2 + 2 * (1 + 2 * $days), 'and what a dashboard locks');
is(health('public.tree', "concat_ws(' ', members, readable, advice)"), '2 t', 'nothing to do about it');

# ---- half of it --------------------------------------------------------

sql($node, "SELECT _wh.remove_tenant('shop_2', true)");
add_tenant($node, 'shop_2', $production, database => 'shop_2', templates => ['wide'], start_date => '2024-01-01');
is(load_days('wide', 'shop_1', 6, 49), 'succeeded', '49 days');
is(log_count($node, 'needs half of the locks'), 0, 'less than half: no warning');
is(load_days('wide', 'shop_1', 50, 50), 'succeeded', 'half');
is(log_count($node, 'WARNING: .*view "shop_1.wide" needs half of the locks'), 1, 'a warning');
is(log_count($node, 'WARNING: .*view "public.wide" needs half of the locks'), 1, 'of the public view too');
is(log_count($node, 'locks 201 relations and indexes; the server has room for 400'), 1, 'with numbers');
is(log_count($node, 'HINT: .*combine days.*"partitions".*max_locks_per_transaction to 64 \(room for 4 such queries at once, with \d+ MB'), 2, 'and what to do');
sql($node, "SELECT _wh.update_mv_by_template('wide', 'shop_1', '2024-01-31')") foreach 1 .. 2;
is(load_days('wide', 'shop_1', 51, 51), 'succeeded', 'a day more');
is(log_count($node, 'needs half of the locks'), 2, 'warned once, not at each load');
like(health('shop_1.wide', 'advice'), qr/more than half of the locks.*max_locks_per_transaction to 64/, 'the advice');

# ---- a tenant view that would need more than all of it -----------------

my $id = sql($node, "SELECT _wh.enqueue_backfill('wide', 'shop_1', '2024-02-21', date '2024-01-01' + 99)");
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'failed', 'a backfill of 49 days more is not published');
like(sql($node, "SELECT last_error FROM _wh.backfills WHERE backfill_id = $id"), qr/^49 loaded days are kept out of view "shop_1.wide"/, 'and says so');
is(sql($node, "SELECT count(*), count(*) FILTER (WHERE state = 'succeeded') FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), '49|49', 'every load succeeded');
is(sql($node, "SELECT count(*), max(last_error) FROM _wh.day_loads WHERE template_name = 'wide' AND target_schema = 'shop_1' AND state = 'loaded' AND NOT in_views"),
	'49|kept out of the view of its tenant, a query of which would need more locks than the server has', 'the ledger too');
is(sql($node, 'SELECT count(*) FROM shop_1.wide'), 51 * 3, 'the view is as it was');
is(sql($node, 'SELECT count(*) FROM shop_1.wide_2024_02_21'), 3, 'the day is there');
is(log_count($node, 'WARNING: .*49 loaded days are kept out of view "shop_1.wide"'), 1, 'a warning');
is(health('shop_1.wide', "concat_ws(' ', members, locks_per_query, refused_days)"), '51 205 49', 'health knows');
like(health('shop_1.wide', 'advice'), qr/^49 loaded days are kept out of it/, 'and advises');

my ($status, $out, $err) = $node->psql('postgres', "SELECT _wh.update_mv_by_template('wide', 'shop_1', '2024-02-21')");
is($out, 't', 'a day that is kept out is loaded again');
unlike($err, qr/kept out/, 'that is no news');
($status, $out, $err) = $node->psql('postgres', "SELECT _wh.create_mv_from_template('wide', 'shop_1', 'shop_1', date '2024-01-01' + 100)");
is($out, 't', 'a new day is loaded');
like($err, qr/WARNING:  50 loaded days are kept out.*would lock 405 .*room for 400/s, 'and kept out, with a warning');
sql($node, "SELECT _wh.drop_day('wide', 'shop_1', '2024-01-01')");
is(sql($node, 'SELECT count(*) FROM shop_1.wide'), 50 * 3, 'a day that is dropped leaves the view');
is(health('shop_1.wide', 'refused_days'), 50, 'the others stay out');
sql($node, "SELECT _wh.drop_day('wide', 'shop_1', '2024-01-02')");
is(health('shop_1.wide', "concat_ws(' ', members, locks_per_query, refused_days, readable)"), '99 397 0 t', 'when they fit they are published');
is(sql($node, 'SELECT count(*) FROM shop_1.wide'), 99 * 3, 'all of them');
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE template_name = 'wide' AND (NOT in_views OR last_error IS NOT NULL)"), 0, 'and the ledger is clean');

# ---- a public view that would ------------------------------------------

my $filter = "FROM public.wide WHERE schema_name = 'shop_2'";
my $rule = "SELECT xmin FROM pg_rewrite WHERE ev_class = 'public.wide'::regclass";

sql($node, 'CREATE VIEW public.on_top AS SELECT schema_name, amount FROM public.wide; GRANT SELECT ON public.on_top TO phood_ro');
is(load_days('wide', 'shop_2', 1, 1), 'succeeded', 'a day of another tenant');
foreach my $query ('SELECT count(*) FROM public.wide', "SELECT * $filter", "SELECT count(*) FROM public.wide WHERE schema_name IS NULL",
	'SELECT * FROM public.on_top')
{
	fails_with($node, "SET ROLE phood_ro; $query", '54000',
		qr/view "public.wide" cannot be read.*lock 403 .*room for 400\..*Read the views of the tenants\..*max_locks_per_transaction to 64/s, $query);
}
is(sql($node, 'SET ROLE phood_ro; SELECT (SELECT count(*) FROM shop_1.wide), (SELECT count(*) FROM shop_2.wide)'), '297|3', 'the tenants can be read');
is(log_count($node, 'WARNING: .*view "public.wide" can no longer be read'), 1, 'a warning');
is(health('public.wide', "concat_ws(' ', members, locks_per_query, readers_at_once, readable)"), '2 403 0 f', 'health knows');
like(health('public.wide', 'advice'), qr/^it cannot be read, because/, 'and advises');
my $as_made = sql($node, $rule);
sql($node, "SELECT _wh.update_mv_by_template('wide', 'shop_2', '2024-01-01')");
is(load_days('wide', 'shop_2', 2, 2), 'succeeded', 'a further day');
is(sql($node, $rule), $as_made, 'it is not made again at each load');
is(log_count($node, 'can no longer be read'), 1, 'nor warned of again');
sql($node, q{UPDATE _wh.mv_templates SET column_definitions = column_definitions || ', note TEXT',
	query_template = replace(query_template, 'payload', 'payload, kind') WHERE template_name = 'wide'});
is(sql($node, "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'public.wide'::regclass AND attnum > 0 AND NOT attisdropped"),
	'id at kind amount payload note schema_name', 'it follows its template');
fails_with($node, 'SELECT note FROM public.wide', '54000', qr/cannot be read/, 'and still refuses');

sql($node, "SELECT _wh.drop_day('wide', 'shop_1', date '2024-02-01' + $_)") foreach 0 .. 27;
is(health('public.wide', "concat_ws(' ', locks_per_query, readable)"), 1 + 397 - 28 * 4 + 9 . ' t', 'with fewer days it can be read again');
is(sql($node, "SELECT count(*), count(*) FILTER (WHERE schema_name = 'shop_2') FROM public.wide"), '219|6', 'with every tenant');
is(sql($node, 'SELECT count(*) FROM public.on_top'), 219, 'and so can a view on top of it');

# ---- a server that has more --------------------------------------------

is(load_days('wide', 'shop_2', 3, 40), 'succeeded', 'it grows again');
fails_with($node, 'SELECT count(*) FROM public.wide', '54000', qr/cannot be read/, 'beyond the budget');
my ($advised) = health('public.wide', 'advice') =~ /max_locks_per_transaction to (\d+)/;
is($advised, 64, 'the advised setting');
$node->append_conf('postgresql.conf', "max_locks_per_transaction = $advised\n");
$node->restart;
fails_with($node, 'SELECT count(*) FROM public.wide', '54000', qr/It fits now.*update_public_view_by_template/s, 'with it the view fits');
like(health('public.wide', 'advice'), qr/update_public_view_by_template/, 'health says so');
is(sql($node, "BEGIN; SELECT _wh.update_public_view_by_template('wide'); SELECT count(*) FROM public.wide; ROLLBACK"), "t\n333", 'and so it is');
is(load_days('wide', 'shop_2', 41, 41), 'succeeded', 'and with the next day it is back');
my $locks = 1 + 397 - 28 * 4 + 1 + 41 * 4;
locks_are_counted('public.wide', $locks, 'with its locks');
my @readers = map { $node->background_psql('postgres') } 1 .. 4;
foreach my $reader (@readers)
{
	is($reader->query_safe('BEGIN; SELECT count(*) FROM public.wide'), 213 + 123, 'one of four readers at once');
}
is(sql($node, "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND relation >= 16384 AND pid <> pg_backend_pid()"), 4 * $locks, 'which hold all their locks');
$_->quit foreach @readers;

done_testing();
