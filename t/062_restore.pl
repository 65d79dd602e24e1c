# Dumps and copies of a warehouse: nothing is loaded before a person says so, what
# came with its rows is taken as loaded, and the rest is brought back.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse();
my $tempdir = PostgreSQL::Test::Utils::tempdir();

create_events($source, '2025-03-01', 6, 50);
add_events_template($node, $_) foreach 'events', 'leaves';
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at', tenant_isolation = true WHERE template_name = 'leaves'");
add_tenant($node, $_, $source, templates => [ 'events', 'leaves' ]) foreach 'shop', 'Odd "shop';
foreach my $template ('events', 'leaves')
{
	is((enqueue_and_wait($node, "'$template', NULL, '2025-03-01', '2025-03-06'"))[1], 'succeeded', "$template are loaded");
}
# February is a table, March is days
create_february();
sql($node, "SELECT _wh.pause_schedule(name) FROM _wh.schedules");

sub create_february
{
	$source->safe_psql('postgres', q{INSERT INTO events SELECT 100000 + i, timestamp '2025-02-01' + i * interval '12 hours', 'a', 1, 'february'
		FROM generate_series(0, 55) AS i});
	is((enqueue_and_wait($node, "'events', NULL, '2025-02-01', '2025-02-28'"))[1], 'succeeded', 'February is loaded');
	sql($node, "SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 2)");
	is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE state = 'combined'"), '28', 'and combined for one tenant');
}

my @questions = (
	'SELECT schema_name, count(*), sum(id), sum(amount) FROM public.events GROUP BY 1 ORDER BY 1',
	'SELECT schema_name, count(*), sum(id), sum(amount) FROM public.leaves GROUP BY 1 ORDER BY 1',
	'SELECT count(*), sum(id) FROM shop.events',
	'SELECT count(*), sum(id) FROM "Odd ""shop".leaves');

sub answers
{
	my ($at) = @_;

	return join("\n--\n", map { sql($at, $_) } @questions);
}

my $before = answers($node);

# Nothing may go to the tenants: their sessions are counted by their log.
sub connections
{
	return log_count($source, qr/connection authorized: user=wh_reader/);
}

sub restore
{
	my ($to, $file) = @_;
	my ($out, $err) = run_command([ 'psql', '-X', '-q', '-d', $to->connstr('postgres'), '-f', $file ]);

	return $err;
}

# Roles are not in a database's dump.
sub new_server
{
	my ($name) = @_;
	my $server = new_warehouse(name => $name, create_extension => 0);

	system_or_bail('pg_dumpall', '-d', $node->connstr('postgres'), '--roles-only', '-f', "$tempdir/roles.sql");
	restore($server, "$tempdir/roles.sql");
	return $server;
}

sub waits_for_confirmation
{
	my ($at, $what) = @_;

	wait_until($at, "SELECT state = 'waiting' AND last_error ~ 'copy that waits to be confirmed' FROM _wh.worker_status WHERE backend_type ~ 'launcher'",
		"$what: the launcher waits");
	fails_with($at, "SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-03-01')", '55000',
		qr/copy that waits to be confirmed/, "$what: no call asks a tenant");
	fails_with($at, 'SELECT _wh.rebuild_entire_warehouse()', '55000', qr/copy that waits/, "$what: nothing is rebuilt");
	my $backfill = sql($at, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-01', mode => 'all')");
	is(sql($at, "SELECT DISTINCT wait_reason FROM _wh.job_status WHERE state = 'queued'"),
		'the warehouse is a copy that waits to be confirmed', "$what: queued jobs say what they wait for");
	sql($at, "SELECT _wh.cancel_backfill($backfill)");
	sql($at, 'SELECT _wh.resume()');
	isnt(sql($at, 'SELECT _wh.pause_reason()'), '', "$what: resume() is no confirmation");
}

sub is_whole
{
	my ($at, $what) = @_;

	wait_until($at, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))", "$what: the queue is empty");
	wait_until($at, "SELECT NOT EXISTS (SELECT FROM _wh.backfills WHERE state = 'running')", "$what: all backfills have ended");
	is(sql($at, "SELECT string_agg(DISTINCT state, ',') FROM _wh.backfills WHERE mode = 'missing'"), 'succeeded', "$what: well");
	is(answers($at), $before, "$what: every question has its answer");
	is(sql($at, "SELECT count(*) FROM _wh.day_loads WHERE NOT in_views"), '0', "$what: every day is in the views");
	is(sql($at, "SELECT count(*) FROM _wh.day_loads d JOIN pg_class c ON c.oid = d.relation_oid WHERE c.relname <> d.relation OR c.relfilenode <> d.relation_file"),
		'0', "$what: the ledger knows the relations");
	is(sql($at, "SELECT count(*) FROM pg_class WHERE relname LIKE '%(incomplete)%' OR relname LIKE '%wh_new%'"), '0', "$what: nothing is left behind");
	is(sql($at, "SELECT to_jsonb(_wh.rebuild_entire_warehouse()) ->> 'days'"), '0', "$what: nothing is left to rebuild");
}

# ---- the schema _wh alone ----------------------------------------------

my $asked = connections();
my $small = "$tempdir/wh.sql";
system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '--schema=_wh', '-f', $small);
my $first = new_warehouse(name => 'first');
is(sql($first, 'SELECT _wh.pause_reason()'), '', 'a new warehouse needs no confirmation');
is(() = restore($first, $small) =~ /ERROR:\s++(?!schema "_wh" already exists)/g, 0, 'the schema _wh is restored without an error');
waits_for_confirmation($first, 'schema _wh');
is(connections(), $asked, 'until then no tenant was connected to');
my ($status, $out, $err) = $first->psql('postgres', 'SELECT _wh.confirm_warehouse()');
like($err, qr/NOTICE:\s+80 of 80 days are missing/, 'confirm_warehouse() says what is missing');
is(sql($first, 'SELECT _wh.pause_reason()'), '', 'and the warehouse runs');
is(sql($first, "SELECT string_agg(DISTINCT state, ',') FROM _wh.day_loads WHERE relation_oid IS NULL"), 'missing', 'its ledger is true');
sql($first, 'SELECT _wh.confirm_warehouse()');
my $rebuilt = sql($first, 'SELECT _wh.rebuild_entire_warehouse()') =~ s/'/''/gr;
is(sql($first, qq{SELECT count(*) FROM _wh.jobs j JOIN jsonb_array_elements('$rebuilt'::jsonb -> 'backfills') b
	ON (b ->> 'backfill_id')::bigint = j.backfill_id WHERE target_date < '2025-04-01'}), 80, 'everything that the ledger knew is loaded again');
is(sql($first, qq{SELECT ('$rebuilt'::jsonb ->> 'days')::bigint - count(*) FROM _wh.tenant_templates}), 80, 'and the days that the subscriptions are due');
wait_until($first, "SELECT NOT EXISTS (SELECT FROM _wh.backfills WHERE state = 'running')", 'all of it');
is(answers($first), $before, 'with the same answers');
is(sql($first, 'SELECT count(*) FROM _wh.mv_templates WHERE tree_oid IS NOT NULL'), '1', 'the tree was found again, or made');

# ---- the whole database ------------------------------------------------

my $whole = "$tempdir/whole.sql";
system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-f', $whole);
my $second = new_server('second');
$asked = connections();
$err = restore($second, $whole);
unlike($err, qr/ERROR(?!:\s+the warehouse is a copy that waits to be confirmed)/, 'the whole database is restored');
waits_for_confirmation($second, 'whole database');
is(connections(), $asked, 'REFRESH of a restored materialized view asks no tenant');
sql($second, 'DELETE FROM "Odd ""shop"."leaves_2025_03_02" WHERE id % 2 = 0');
($status, $out, $err) = $second->psql('postgres', 'SELECT _wh.confirm_warehouse()');
like($err, qr/WARNING:\s+relation "Odd "shop\.leaves_2025_03_02" is incomplete/, 'a table without all its rows is not taken');
like($err, qr/NOTICE:\s+41 of 80 days are missing/, 'days in tables are there') or diag($err);
wait_until($second, "SELECT count(*) = 11 FROM _wh.day_loads WHERE template_name = 'leaves' AND in_views", 'they are published');
is(sql($second, 'SELECT count(*) FROM shop.leaves'), '300', 'and answer');
wait_until($second, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE kind = 'publish' AND state IN ('queued', 'running'))", 'the view reads it no longer');
sql($second, q{DROP TABLE "Odd ""shop"."leaves_2025_03_02 (incomplete)"});
sql($second, 'SELECT _wh.rebuild_entire_warehouse()');
is_whole($second, 'whole database');

# ---- without the data --------------------------------------------------

my $structure = "$tempdir/structure.sql";
system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-f', $structure, '--exclude-table-data=shop.*', '--exclude-table-data="Odd ""shop".*');
my $third = new_server('third');
restore($third, $structure);
($status, $out, $err) = $third->psql('postgres', 'SELECT _wh.confirm_warehouse()');
like($err, qr/80 of 80 days are missing/, 'tables that came without their rows are not taken');
wait_until($third, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE kind = 'publish' AND state IN ('queued', 'running'))", 'the views read them no longer');
sql($third, "DROP TABLE " . sql($third, q{SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relname LIKE '% (incomplete)' AND relkind = 'r'}));
sql($third, 'SELECT _wh.rebuild_entire_warehouse()');
wait_until($third, "SELECT NOT EXISTS (SELECT FROM _wh.backfills WHERE state = 'running')", 'without the data: all backfills have ended');
is_whole($third, 'without the data');

# ---- copies as files ---------------------------------------------------

$node->stop;
$node->command_ok([ 'pg_resetwal', '-f', '-D', $node->data_dir ], 'the files get on well');
$node->start;
is(answers($node), $before, 'they are the same warehouse');
is(sql($node, 'SELECT _wh.pause_reason()'), '', 'and go on');
sql($node, "ALTER SYSTEM SET wh_worker.databases = ''");
sql($node, 'SELECT pg_reload_conf()');
wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> pg_backend_pid()}, 'nobody is in the database');
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
sql($node, 'ALTER SYSTEM RESET wh_worker.databases');
sql($node, 'SELECT pg_reload_conf()');
is($node->safe_psql('copy', 'SELECT _wh.pause_reason()'), 'the warehouse is a copy that waits to be confirmed',
	'a database made from it waits');
($status, $out, $err) = $node->psql('copy', 'SELECT _wh.confirm_warehouse()');
unlike($err, qr/missing/, 'it has all its days');
is($node->safe_psql('copy', 'SELECT count(*) FROM _wh.day_loads d WHERE NOT in_views'), '0', 'in its views');

# ---- what has no content is no day --------------------------------------

sql($node, 'REFRESH MATERIALIZED VIEW shop.events_2025_03_03 WITH NO DATA');
wait_until($node, "SELECT state = 'missing' FROM _wh.day_loads WHERE template_name = 'events' AND target_schema = 'shop' AND target_date = '2025-03-03'",
	'a day whose content a person took is missing');
wait_until($node, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))", 'a publication follows');
is(sql($node, 'SELECT count(*) FROM shop.events'), 300 + 56 - 50, 'readers see the others');
is((enqueue_and_wait($node, "'events', 'shop', '2025-03-01', '2025-03-06'"))[1], 'succeeded', 'it is loaded again');
is(answers($node), $before, 'and is in its place');

done_testing();
