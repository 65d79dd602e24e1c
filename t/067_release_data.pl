# Leaving: DROP EXTENSION is refused while there are days, in both layouts, and says
# what to do; release_data() makes plain tables of all data, and nothing that
# somebody can ask has another answer then, nor when the extension is gone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(conf => { max_connections => 38, max_worker_processes => 8, max_locks_per_transaction => 10,
	max_wal_senders => 2, room_for_autovacuum(2) });
my ($first, $last) = ('2025-01-01', '2025-04-30');
my $odd = q{Odd "sh'op{TARGET_DATE}};
my $quoted = q{"Odd ""sh'op{TARGET_DATE}"};

create_events($source, $first, 120, 3);
add_events_template($node, 'events', indexes => '');
add_events_template($node, 'leaves');
add_events_template($node, 'not "used');
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at', tenant_isolation = true WHERE template_name = 'leaves'");
add_tenant($node, $_, $source, templates => [ 'events', 'leaves', 'not "used' ], start_date => $first) foreach 'shop', $odd;
add_events_template($node, $_) foreach 'vanished', 'vanishing';
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'vanishing'");
add_tenant($node, 'gone', $source, templates => [ 'vanished', 'vanishing' ], start_date => $first);
sql($node, 'SELECT _wh.pause_schedule(name) FROM _wh.schedules');

# ---- DROP EXTENSION, empty, and while a backfill runs -----------------

sql($node, 'CREATE DATABASE empty');
sql($node, $_, 'empty') foreach 'CREATE EXTENSION wh_worker', 'DROP EXTENSION wh_worker';
pass('a warehouse without days can be dropped');

sub is_refused
{
	my ($what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return fails_with($node, 'DROP EXTENSION wh_worker', '2BP01',
		qr/cannot drop extension wh_worker because days of its warehouse depend on it.*DETAIL:\s+The ledger has \d+ days? in \d+ relations.*HINT:\s+Call _wh.pause\(\) and _wh.release_data\(\) first/s, $what);
}

my $id = sql($node, "SELECT _wh.enqueue_backfill('leaves', NULL, '$first', '2025-01-20')");
wait_until($node, 'SELECT count(*) > 0 FROM _wh.day_loads', 'a backfill of leaves has begun');
is_refused('DROP EXTENSION while it runs, though no leaf depends on us');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '60 s')"), 'succeeded', 'the backfill goes on to its end');
is_refused('DROP EXTENSION with leaves alone');
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '$first', '$last')");
wait_until($node, q{SELECT count(*) > 0 FROM _wh.day_loads WHERE template_name = 'events'}, 'a backfill of materialized views has begun');
is_refused('DROP EXTENSION while that runs');
sql($node, 'CREATE ROLE somebody');
fails_with($node, 'SET ROLE somebody; DROP EXTENSION IF EXISTS nothing, wh_worker', '42501', qr/must be owner of extension wh_worker/, 'who may not drop it learns nothing');
fails_with($node, 'SELECT _wh.release_data()', '55000', qr/the warehouse is not paused.*HINT:\s+Call _wh.pause\(\) first/s, 'release_data() of a warehouse that runs');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '120 s')"), 'succeeded', 'the backfill goes on to its end');
(undef, my $state) = enqueue_and_wait($node, "'events', '" . $odd =~ s/'/''/gr . "', '$first', '2025-03-31'");
is($state, 'succeeded', 'another tenant');
is(sql($node, "SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 1)->>'status'"), 'combined', 'a month is a table');

# A person drops the schema of a tenant, with all that depends on it.
is((enqueue_and_wait($node, "'$_', 'gone', '$first', '$first'"))[1], 'succeeded', "a day of $_") foreach 'vanished', 'vanishing';
sql($node, 'DROP SCHEMA gone CASCADE');
wait_until($node, q{SELECT count(*) = 2 FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname IN ('vanished', 'vanishing')}, 'its public views are there again');

# ---- what people have made of it --------------------------------------

sql($node, "CREATE ROLE $_") foreach 'buyer', q{"the ""auditor'"}, 'stranger';
sql($node, q{SELECT _wh.grant_tenant_reader('shop', 'buyer'); SELECT _wh.grant_tenant_reader('shop', 'the "auditor''')});
sql($node, q{GRANT SELECT (id) ON shop.events_2025_02_02 TO stranger; COMMENT ON COLUMN shop.events_2025_02_02.id IS 'mine';
	CREATE INDEX mine ON shop.events_2025_02_02 (at DESC) WHERE id > 0; CREATE STATISTICS shop.mine ON id, at FROM shop.events_2025_02_02;
	ALTER MATERIALIZED VIEW shop.events_2025_02_03 SET (fillfactor = 90);
	COMMENT ON MATERIALIZED VIEW shop.events_2025_02_03 IS 'dear'; COMMENT ON RULE "_RETURN" ON shop.events_2025_02_03 IS 'gone with the rule';
	CREATE VIEW public.mine AS SELECT e.id, d.at FROM public.events e JOIN shop.events_2025_02_02 d USING (id)});
sql($node, 'ALTER MATERIALIZED VIEW shop.events_2025_02_04 RENAME TO kept_by_me');
wait_until($node, q{SELECT state = 'missing' FROM _wh.day_loads WHERE template_name = 'events' AND target_schema = 'shop' AND target_date = '2025-02-04'}, 'a day is renamed');
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))}, 'and leaves the views');

# Every relation outside of _wh that has rows, with its content.
my $ours_or_core = q{relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('_wh', 'pg_catalog', 'information_schema', 'pg_toast'))};

sub content
{
	return sql($node, qq{
		SELECT format('SELECT %L, count(*), md5(string_agg(h, NULL ORDER BY h)) FROM (SELECT md5(r::text) AS h FROM %I.%I r) hashes', nspname || '.' || relname, nspname, relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'm', 'v') AND NOT $ours_or_core ORDER BY c.oid \\gexec});
}

sub properties
{
	return sql($node, qq{
		SELECT c.oid, c.relname, c.relfilenode, c.relowner, c.relacl, c.reloptions, c.relreplident, c.reltuples, c.relispopulated, obj_description(c.oid, 'pg_class'),
			(SELECT string_agg(concat_ws(' ', a.attname, a.atttypid, a.attacl, a.attstattarget, col_description(c.oid, a.attnum)), ',' ORDER BY attnum) FROM pg_attribute a WHERE a.attrelid = c.oid),
			(SELECT string_agg(pg_get_indexdef(i.indexrelid), ',' ORDER BY i.indexrelid) FROM pg_index i WHERE i.indrelid = c.oid),
			(SELECT count(*) FROM pg_statistic_ext e WHERE e.stxrelid = c.oid)
		FROM pg_class c WHERE c.relkind IN ('r', 'm') AND NOT $ours_or_core
		ORDER BY c.oid});
}

# What each of these may read of the filtered view.
sub seen_by
{
	return join ', ', map { "$_ " . sql($node, "SET ROLE $_; SELECT count(*) FROM public.leaves_isolated") } scalar(getpwuid($<)), 'buyer', q{"the ""auditor'"};
}

sub view_columns
{
	return sql($node, qq{SELECT c.oid, a.attname, a.atttypid, c.relacl, c.reloptions FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relkind = 'v' AND a.attnum > 0 AND NOT $ours_or_core ORDER BY c.oid, a.attnum});
}

sub facts
{
	my ($of_views) = @_;

	return join "\n--\n", content(), properties(), seen_by(), $of_views ? view_columns() : ();
}

# ---- refused when it cannot be right ----------------------------------

sql($node, 'SELECT _wh.pause()');
sql($node, q{ALTER MATERIALIZED VIEW shop.events_2025_03_03 OWNER TO somebody});
fails_with($node, 'SELECT _wh.release_data()', '42501', qr/must be owner of materialized view shop.events_2025_03_03.*HINT:\s+Run ALTER MATERIALIZED VIEW shop.events_2025_03_03 OWNER TO whadmin/s, 'a day that belongs to somebody else');
sql($node, q{ALTER MATERIALIZED VIEW shop.events_2025_03_03 OWNER TO whadmin});
my $before = facts(1);
like($before, qr/ 60, buyer 60, "the ""auditor'" 60/, 'readers of one tenant see its rows');
like($before, qr/^public\.events\|627\|/m, 'the public view has all rows but those that a person keeps');

# ---- released, while people read and in more than one call ------------

my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; DECLARE c CURSOR FOR SELECT id FROM shop.events; FETCH 1 FROM c; DECLARE d CURSOR FOR SELECT * FROM public.mine; FETCH 1 FROM d');
my ($status, $left, $err) = $node->psql('postgres', 'SELECT _wh.release_data()');
is($status, 0, 'a first call, beside a transaction that has read all days') or diag($err);
cmp_ok($left, '>', 0, 'does not make all of them');
like($err, qr/NOTICE:\s+(\d+) materialized views are tables now, $left are left.*HINT:\s+Call _wh.release_data\(\) again/s, 'and says so');
is($reader->query_safe('FETCH FORWARD ALL FROM c') =~ tr/\n//, 355, 'the cursor has all rows') ;
$reader->query_safe('COMMIT');
$reader->quit;
is(facts(1), $before, 'in between nothing has changed for anybody');
is_refused('in between DROP EXTENSION is refused');
sql($node, 'SELECT _wh.resume()');
is((enqueue_and_wait($node, "'events', 'shop', '2025-02-10', '2025-02-12', mode => 'all'"))[1], 'succeeded', 'one may still go on loading instead');
is(join(' ', content() =~ /^(public\.events\|.*)$/m), join(' ', $before =~ /^(public\.events\|.*)$/m), 'with the same content');
sql($node, 'SELECT _wh.pause()');
$before = facts(1);
# A public view that refuses to be read calls a function of ours: a server with fewer locks has one.
sub restart_with
{
	my ($connections) = @_;

	$node->append_conf('postgresql.conf', "max_connections = $connections\n");
	$node->restart;
	return;
}

restart_with(4);
sql($node, "SELECT _wh.update_public_view_by_template('events')");
fails_with($node, 'SELECT count(*) FROM public.events', '54000', qr/cannot be read/, 'with fewer locks the public view refuses to be read');
my $calls = 0;
while ($left ne '0' && $calls++ < 10)
{
	($status, $left, $err) = $node->psql('postgres', 'SELECT _wh.release_data()');
	is($status, 0, 'another call') or diag($err);
}
is($left, '0', 'until nothing is left');
like($err, qr/0 are left.*HINT:\s+All data is released/s, 'which it says');

like($err, qr/WARNING:\s+view "public.events" refuses no longer to be read.*HINT:\s+Drop it, or raise max_locks_per_transaction/s, 'as it says of the view that refused');
restart_with(38);
is(facts(1), $before, 'every relation has the content, the file, the owner, the grants, indexes and comments that it had; so have views');
is(sql($node, q{SELECT count(*) FROM pg_class WHERE relkind = 'm'}), 0, 'none is a materialized view');
is(sql($node, q{SELECT count(*) FROM _wh.day_loads}), 0, 'the ledger is empty');
is(sql($node, q{SELECT count(*) FILTER (WHERE active) || ' ' || sum(days) || ' ' || sum(bytes) FROM _wh.tenant_templates}), '0 0 0', 'no subscription is active, or has days');
is(sql($node, q{SELECT string_agg(n.nspname || '.' || c.relname, ', ' ORDER BY n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relkind = 'p'}),
	"$odd.leaves tree $odd, public.leaves tree, public.vanishing tree, public.vanishing tree gone, shop.leaves tree shop",
	'trees are where their data is, or in public if their schema is gone');
is(sql($node, 'SET client_min_messages = warning; SELECT _wh.release_data()'), '0', 'called again it finds nothing to do');
sql($node, q{INSERT INTO shop.events_2025_02_02 SELECT * FROM shop.events_2025_02_02; VACUUM FULL shop.events_2025_02_02; REINDEX TABLE shop.events_2025_02_02; ANALYZE shop.events_2025_02_02});
is(sql($node, 'SELECT count(*) FROM shop.events_2025_02_02'), 6, 'a day can be written, vacuumed and analyzed as any table');
sql($node, q{DELETE FROM shop.events_2025_02_02 WHERE ctid > '(0,3)'});

# ---- a load of what is no longer ours ---------------------------------

sql($node, 'SELECT _wh.resume()');
fails_with($node, "SELECT _wh.create_mv_from_template('events', 'shop', 'shop', '2025-02-02')", '42P07', qr/exists/, 'a later load finds the name taken');
is(sql($node, 'SELECT count(*) FROM shop.events_2025_02_02'), 3, 'and leaves it alone');
sql($node, 'SELECT _wh.pause()');
is(sql($node, 'SELECT count(*) FROM _wh.day_loads WHERE relation_oid IS NOT NULL'), 0, 'the ledger has no content');

# ---- a dump of it, and the end ----------------------------------------

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$before = facts(1);
sql($node, 'DROP EXTENSION wh_worker');
pass('DROP EXTENSION without CASCADE');
is(facts(1), $before, 'all of it is as it was');
sql($node, 'DROP SCHEMA _wh');
pass('schema _wh is empty, and can be dropped');
is(facts(1), $before, 'all can be read without it');
PostgreSQL::Test::Utils::system_or_bail('pg_dump', '-d', $node->connstr('postgres'), '-f', $dump);
sql($node, 'CREATE DATABASE dumped');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('dumped'), '-f', $dump ], 'a dump of what is left is restored');
is(checksum($node, 'SELECT * FROM public.events', 'dumped'), checksum($node, 'SELECT * FROM public.events'), 'with all rows');
is(checksum($node, 'SELECT * FROM public.leaves', 'dumped'), checksum($node, 'SELECT * FROM public.leaves'), 'in both layouts');
$node->restart;
$node->command_ok([ 'pg_amcheck', '--install-missing', '-h', $node->host, '-p', $node->port, 'postgres' ], 'pg_amcheck finds nothing');
sql($node, 'CREATE EXTENSION wh_worker');
fails_with($node, 'SELECT * FROM _wh.worker_status WHERE false; SELECT _wh.release_data()', '55000', qr/not paused/, 'a new warehouse can be made in its place');

$node->stop;
$source->stop;
done_testing();
