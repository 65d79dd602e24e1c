# A server that is killed in the middle of a load leaves files that no relation
# has: they are found and reported, and nothing else is, whatever is going on.
use strict;
use warnings;

use PostgreSQL::Test::Utils qw(append_to_file);
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(conf => { max_prepared_transactions => 4, allow_in_place_tablespaces => 'on', 'wh_worker.max_workers' => 3 });
my $orphans = 'SELECT path FROM _wh.orphaned_files() ORDER BY path';

create_events($source, '2025-03-01', 3, 3000, width => 200);
add_events_template($node, $_) foreach 'events', 'leaves';
sql($node, q{UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'});
add_tenant($node, 'shop', $source, templates => [ 'events', 'leaves' ]);
sql($node, q{UPDATE _wh.tenant_connections SET max_connections = 3});
sql($node, q{SELECT _wh.pause_schedule(name) FROM _wh.schedules});
is((enqueue_and_wait($node, q{'events', 'shop', '2025-03-01', '2025-03-01'}))[1], 'succeeded', 'a day is loaded');
sql($node, q{CREATE DATABASE other});

# Files that pg_class does not have, as seen from outside.
sub strangers
{
	my $database = sql($node, 'SELECT oid FROM pg_database WHERE datname = current_database()');
	my %known = map { $_ => 1 } split /\n/, sql($node, q{SELECT pg_relation_filepath(oid) FROM pg_class WHERE pg_relation_filepath(oid) IS NOT NULL});
	my $data = $node->data_dir;
	my @files = map { s{^\Q$data\E/}{}r } glob("$data/base/$database/* $data/pg_tblspc/*/*/$database/*");

	return grep { -s "$data/$_" } grep { my $main = s{(/\d+)(?:_\w+)?(?:\.\d+)?$}{$1}r; m{/\d[\d_a-z.]*$} && !$known{$main} } @files;
}

# A file that has changed just now is left alone.
sub a_while_passes
{
	my $now = sql($node, 'SELECT clock_timestamp()');

	$node->poll_query_until('postgres', "SELECT clock_timestamp() > '$now'::timestamptz + interval '200 ms'") or die 'time stands still';
	return;
}

is(sql($node, $orphans), '', 'a warehouse has none');

# ---- what is in the making ----------------------------------------------

my $proxy = new_proxy(target => $source->port, mode => 'stall', limit => 300_000);
sql($node, 'UPDATE _wh.tenant_connections SET port = ' . $proxy->{port} . q{, password = '} . reader_password() . q{'});
sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-02', mode => 'all'), _wh.enqueue_backfill('leaves', 'shop', '2025-03-03', '2025-03-03')});
wait_until($node, q{SELECT count(*) = 3 FROM _wh.worker_status WHERE state = 'fetching' AND rows_fetched > 500}, 'an old day, a new one and a leaf are being loaded');
a_while_passes();
cmp_ok(scalar(@{ [ strangers() ] }), '>=', 3, 'their files are there, and their relations cannot be seen');
is(sql($node, $orphans), '', 'they are no orphans');

my $session = $node->background_psql('postgres');
$session->query_safe(q{BEGIN; CREATE TABLE made_now AS SELECT repeat('x', 100) FROM generate_series(1, 10000); CREATE TEMPORARY TABLE made_here AS SELECT 1 AS a});
sql($node, q{BEGIN; CREATE TABLE prepared AS SELECT repeat('x', 100) FROM generate_series(1, 10000); PREPARE TRANSACTION 'prepared'});
a_while_passes();
is(sql($node, $orphans), '', 'nor is a table of a transaction that is open, or prepared');

# ---- killed --------------------------------------------------------------

sql($node, q{SELECT _wh.pause()});
my $offset = log_end($node);
my $victim = worker_pid($node, q{state = 'fetching'});
kill 'KILL', $victim;
eval { $session->quit };
ok($node->poll_query_until('postgres', qq{SELECT pg_postmaster_start_time() IS NOT NULL AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $victim)}), 'the server starts anew after a worker is killed');
wait_until($node, 'SELECT count(*) >= 4 FROM _wh.orphaned_files()', 'what the loads and the session left is found');
sql($node, q{CHECKPOINT});
my @found = split /\n/, sql($node, $orphans);
my ($prepared) = split /\n/, sql($node, q{SELECT gid FROM pg_prepared_xacts});
is($prepared, 'prepared', 'the prepared transaction is still there');
sql($node, q{COMMIT PREPARED 'prepared'});
a_while_passes();
is_deeply([ split /\n/, sql($node, $orphans) ], [ sort(strangers()) ], 'all of them, and nothing else');
is(scalar(grep { /_(?:fsm|vm)$/ || /\.\d+$/ || /\d$/ } @found), scalar @found, 'by their paths');
is(sql($node, q{SELECT count(*) FROM _wh.orphaned_files() o WHERE bytes <> (pg_stat_file(path)).size OR date_trunc('second', modified_at) <> (pg_stat_file(path)).modification OR tablespace <> 'pg_default'}), 0, 'with what they take');
cmp_ok(sql($node, q{SELECT sum(bytes) FROM _wh.orphaned_files()}), '>', 500_000, 'which is something');
is(sql($node, q{SELECT count(*) FROM prepared}), 10000, 'what was prepared is whole');

ok($node->wait_for_log(qr/database "postgres" has files of \d+\.\d MB in all that belong to no relation: \d+/, $offset), 'the launcher says so');
sql($node, q{SELECT _wh.resume()});
stop_proxy($proxy);
sql($node, 'UPDATE _wh.tenant_connections SET port = ' . $source->port . q{, password = '} . reader_password() . q{'});
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))}, 'the loads are done again');
same_content($node, 'SELECT * FROM shop.events', $source, events_query('2025-03-01', '2025-03-02'), 'days are whole');
same_content($node, 'SELECT * FROM shop.leaves', $source, events_query('2025-03-03', '2025-03-03'), 'and the leaf');
is(log_count($node, qr/belong to no relation/, $offset), 1, 'it was said once');

# ---- removed by a person -------------------------------------------------

a_while_passes();
@found = split /\n/, sql($node, $orphans);
is(scalar(grep { unlink $node->data_dir . "/$_" } @found), scalar @found, 'they are removed');
is(sql($node, $orphans), '', 'and there are none');
is(join(' ', strangers()), '', 'as seen from outside');
$node->restart;
is(sql($node, q{SELECT count(*) FROM shop.events, shop.leaves WHERE leaves.id = 1 + (SELECT min(id) FROM shop.leaves)}), 6000, 'nobody misses them');

# ---- other names, places and states --------------------------------------

my ($mine, $other) = split /\|/, sql($node, q{SELECT (SELECT oid FROM pg_database WHERE datname = current_database()), (SELECT oid FROM pg_database WHERE datname = 'other')});
my $data = $node->data_dir;

sql($node, q{CREATE TABLESPACE elsewhere LOCATION ''});
sql($node, q{CREATE TABLE here_too TABLESPACE elsewhere AS SELECT 1 AS a; CREATE UNLOGGED TABLE unlogged (a integer PRIMARY KEY)});
my ($directory) = sql($node, q{SELECT pg_relation_filepath('here_too')}) =~ m{^(.*)/};
my ($taken) = sql($node, q{SELECT pg_relation_filepath('unlogged')}) =~ m{(\d+)$};
my @strange = ("base/$mine/t3_987650", "base/$mine/987651_fsm", "base/$mine/987651.1", "base/$mine/987652_init", "$directory/987653", "$directory/$taken");
my @not_ours = ("base/$other/987654", "base/$mine/987655.bak", "base/$mine/t3_", "base/$mine/x987656", "base/$mine/987657_xyz", "base/$mine/987658_fsm2", "base/$mine/pgsql_tmp987659");

append_to_file("$data/$_", 'x') foreach @strange, @not_ours;
append_to_file("$data/base/$mine/987660", '');
sql($node, q{CREATE TABLE empty (a text)});
my $empty = sql($node, q{SELECT pg_relation_filepath('empty')});
a_while_passes();
sql($node, 'CHECKPOINT');
sql($node, 'DROP TABLE empty');
sql($node, q{CREATE TABLE dropped AS SELECT repeat('x', 100) FROM generate_series(1, 10000)});
my $dropped = sql($node, q{SELECT pg_relation_filepath('dropped')});
sql($node, 'DROP TABLE dropped');
sql($node, 'VACUUM FULL pg_class');
sql($node, 'VACUUM FULL pg_attribute');
a_while_passes();
ok(-e "$data/$_" && -z "$data/$_", 'a relation that is dropped leaves an empty file until the next checkpoint') foreach $dropped, $empty;
is_deeply([ split /\n/, sql($node, $orphans) ], [ sort @strange ], 'only files that are named as those of relations are found, and none that is to be removed');
is(sql($node, q{SELECT string_agg(path, ' ') FROM _wh.orphaned_files() WHERE tablespace = 'elsewhere'}), "$directory/987653 $directory/$taken", 'each in its tablespace');
sql($node, 'CHECKPOINT');
ok(!-e "$data/$dropped" && !-e "$data/$empty", 'the checkpoint removes it');
is_deeply([ split /\n/, sql($node, $orphans) ], [ sort @strange ], 'an empty file is none, whatever its age');

# Who does not tell since when he is at it, may have been so since he came.
$session = $node->background_psql('postgres');
$session->query_safe(q{SET track_activities = off});
append_to_file("$data/base/$mine/987661", 'x');
a_while_passes();
is(sql($node, qq{SELECT count(*) FROM ($orphans) o WHERE path LIKE '%987661'}), 0, 'who does not tell what he does hides what is newer than he is');
is(sql($node, qq{SELECT count(*) FROM ($orphans) o WHERE path LIKE '%987653'}), 1, 'but not what is older');
$session->quit;
wait_until($node, qq{SELECT count(*) = 1 FROM ($orphans) o WHERE path LIKE '%987661'}, 'until he is gone');

$session = $node->background_psql('postgres');
$session->query_safe('BEGIN; SELECT 1');
append_to_file("$data/base/$mine/987662", 'x');
a_while_passes();
is(sql($node, qq{SELECT count(*) FROM ($orphans) o WHERE path LIKE '%98766_'}), 1, 'a transaction hides what is newer than it is');
$session->quit;

done_testing();
