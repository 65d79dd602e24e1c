# A disk that is really full, below the whole warehouse, below its months, and
# below the server's log: what needs room fails as something that may go away, what
# is there stays and is read, nothing is left behind, and with room it goes on.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use WhDisk;
use WhTest;

my $disk = small_disk('disk');

plan skip_all => 'no small disk to fill: ci/run-tests mounts one when it runs as root' unless defined $disk;

my $megabyte = 1024 * 1024;
my $source = new_tenant('source');
my $node = new_warehouse(
	create_extension => 0,
	conf => { 'wh_worker.databases' => "'template1'", 'wh_worker.max_attempts' => 1000, 'wh_worker.catchup_days' => 1000, autovacuum => 'off',
		# what compares the content must not need room for temporary files
		work_mem => "'64MB'" });

# Each day takes some 3 MB, and its index another 1.
create_events($source, '2025-03-01', 6, 3000, width => 900);
$source->safe_psql('postgres', q{INSERT INTO events SELECT 100000 + i, timestamp '2025-02-01' + i * interval '20 minutes', 'a', 1, repeat('february', 100) FROM generate_series(0, 2015) AS i});

# The database as it is, catalogs and all, moves to the disk.
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$disk'");
$node->safe_psql('template1', 'ALTER DATABASE postgres SET TABLESPACE small');
$node->safe_psql('template1', q{ALTER SYSTEM SET wh_worker.databases = 'postgres'});
$node->safe_psql('template1', 'SELECT pg_reload_conf()');
sql($node, 'CREATE EXTENSION wh_worker');
add_events_template($node, $_, indexes => 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id); CREATE INDEX idx_{schema}_{view_name}_p ON {schema}.{view_name} (payload)')
  foreach 'events', 'leaves';
sql($node, q{UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'});
add_tenant($node, 'shop', $source, templates => [ 'events', 'leaves' ]);
sql($node, q{SELECT _wh.pause_schedule(name) FROM _wh.schedules});
foreach my $template ('events', 'leaves')
{
	is((enqueue_and_wait($node, "'$template', 'shop', '2025-03-01', '2025-03-01'"))[1], 'succeeded', "$template are loaded");
}
is((enqueue_and_wait($node, q{'events', 'shop', '2025-02-01', '2025-02-28'}))[1], 'succeeded', 'and February');

my $checksum = checksum($node, 'SELECT * FROM public.events');
my $retries = q{FROM _wh.job_run_details WHERE status = 'retrying' AND sqlstate = '53100'};

sub last_attempt
{
	return sql($node, 'SELECT coalesce(max(runid), 0) FROM _wh.job_run_details');
}

# With so much room the job is tried and tried again, in this phase; then there is room.
sub fails_for_want_of_room
{
	my ($what, $room, $enqueue, $phase) = @_;
	my $failures = sql($node, q{SELECT count(*) FROM _wh.tenant_failures});
	my $last = last_attempt();
	my $relations = sql($node, q{SELECT count(*) FROM pg_class});

	sql($node, 'CHECKPOINT');
	leave_room_on($disk, $room);
	my $id = sql($node, "SELECT _wh.enqueue_backfill($enqueue)");
	wait_until($node, "SELECT count(*) >= 3 $retries AND runid > $last", "$what: it is tried again and again");
	is(sql($node, "SELECT string_agg(DISTINCT phase, ',') $retries AND runid > $last"), $phase, "$what: it fails while $phase");
	is(sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE runid > $last AND status IN ('failed', 'cancelled')"), 0, "$what: and is not given up");
	is(checksum($node, 'SELECT * FROM public.events'), $checksum, "$what: readers read what there was");
	is(sql($node, q{SELECT count(*) FROM _wh.tenant_failures}), $failures, "$what: it is not the tenant's fault");
	is(sql($node, q{SELECT bool_and(state = 'closed') FROM _wh.tenant_health}), 't', "$what: which is not set aside");
	sql($node, "SELECT _wh.pause_backfill($id)");
	wait_until($node, qq{SELECT count(*) = 0 FROM _wh.jobs WHERE state = 'running'}, "$what: while it rests");
	is(sql($node, q{SELECT count(*) FROM pg_class}), $relations, "$what: no relation is left behind");
	wait_until($node, q{SELECT count(*) = 0 FROM _wh.orphaned_files()}, "$what: nor a file");
	cmp_ok(room_on($disk), '>', $room - $megabyte, "$what: the room is free again") if $room >= $megabyte;
	leave_room_on($disk);
	sql($node, "SELECT _wh.resume_backfill($id)");
	is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', "$what: with room it goes on");
	return;
}

# ---- days ----------------------------------------------------------------

my ($heap, $index) = split /\|/, sql($node, q{SELECT pg_table_size('shop.events_2025_03_01'), pg_indexes_size('shop.events_2025_03_01')});

foreach my $template ('events', 'leaves')
{
	fails_for_want_of_room("a new day of $template", $megabyte, "'$template', 'shop', '2025-03-02', '2025-03-02'", 'fetching');
	same_content($node, "SELECT id, at, kind, amount, payload FROM shop.${template}_2025_03_02", $source, events_query('2025-03-02', '2025-03-02'), "a new day of $template");
	$checksum = checksum($node, 'SELECT * FROM public.events');
	fails_for_want_of_room("the indexes of a day of $template", $heap + int($index / 2), "'$template', 'shop', '2025-03-03', '2025-03-03'", 'indexing');
	same_content($node, "SELECT id, at, kind, amount, payload FROM shop.${template}_2025_03_03", $source, events_query('2025-03-03', '2025-03-03'), "a day of $template with its indexes");
	$checksum = checksum($node, 'SELECT * FROM public.events');
	change_events($source, '2025-03-02');
	fails_for_want_of_room("an old day of $template", $megabyte, "'$template', 'shop', '2025-03-02', '2025-03-02', mode => 'all'", 'fetching');
	same_content($node, "SELECT id, at, kind, amount, payload FROM shop.${template}_2025_03_02", $source, events_query('2025-03-02', '2025-03-02'), "an old day of $template");
	$checksum = checksum($node, 'SELECT * FROM public.events');
}

# ---- months --------------------------------------------------------------

sql($node, 'CHECKPOINT');
my $relations = sql($node, q{SELECT count(*) FROM pg_class});
leave_room_on($disk, $megabyte);
fails_with($node, q{SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 2)}, '53100', qr/No space left on device/, 'a month: it does not fit');
my $last = last_attempt();
my $job = sql($node, q{INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority) VALUES ('combine_month', 'events', 'shop', 'shop', '2025-02-01', 40) RETURNING job_id});
sql($node, 'SELECT _wh.pause(); SELECT _wh.resume()');
wait_until($node, "SELECT count(*) >= 3 $retries AND runid > $last AND job_id = $job", 'a month: as a job it is tried again and again');
is(checksum($node, 'SELECT * FROM public.events'), $checksum, 'a month: its days are read');
sql($node, 'SELECT _wh.pause()');
wait_until($node, q{SELECT count(*) = 0 FROM _wh.jobs WHERE state = 'running'}, 'a month: while it rests');
is(sql($node, q{SELECT count(*) FROM pg_class}), $relations, 'a month: no relation is left behind');
wait_until($node, q{SELECT count(*) = 0 FROM _wh.orphaned_files()}, 'a month: nor a file');
leave_room_on($disk);
sql($node, 'SELECT _wh.resume()');
wait_for_job($node, "job_id = $job", 'succeeded', 'a month: with room it goes on');
is(sql($node, q{SELECT count(*) FROM _wh.day_loads WHERE state = 'combined'}), 28, 'a month: all of it');
is(checksum($node, 'SELECT * FROM public.events'), $checksum, 'a month: with the same rows');

# ---- not a page for anything, our own tables and the catalogs included ----

sql($node, 'SELECT _wh.pause()');
my $id = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-04', '2025-03-06')});
my $offset = log_end($node);
leave_room_on($disk, 0);
sql($node, 'SELECT _wh.resume()');
ok($node->wait_for_log(qr/No space left on device/, $offset), 'nothing at all: it is in the log');
my $launcher = q{FROM pg_stat_activity WHERE backend_type = 'wh_worker launcher'};
foreach my $cycle (1 .. 4)
{
	my $change = sql($node, "SELECT state_change $launcher");
	wait_until($node, "SELECT state_change > '$change' $launcher", 'nothing at all: the launcher goes on');
}
is(checksum($node, 'SELECT * FROM public.events'), $checksum, 'nothing at all: readers read');
leave_room_on($disk);
# a worker that cannot write down what went wrong ends; its job is not locked by it any more
is(sql($node, "SELECT _wh.wait_for_backfill($id, '45 s')"), 'succeeded', 'nothing at all: with room it goes on');
same_content($node, q{SELECT * FROM shop.events WHERE at >= '2025-03-03'}, $source, events_query('2025-03-03', '2025-03-06'), 'all days are there');
wait_until($node, q{SELECT count(*) = 0 FROM _wh.orphaned_files()}, 'no file is left behind');
is(sql($node, q{SELECT count(*) FROM _wh.day_loads d WHERE relation_oid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = d.relation_oid AND c.relfilenode = d.relation_file)}), 0, 'the ledger knows its relations');
is(log_count($node, qr/PANIC|terminated by signal/), 0, 'nothing crashed');
$node->stop;

# ---- no room for the log of the server ------------------------------------

# Its log is where ci/run-suites, which takes a PANIC for a fault, does not look.
my $log_disk = small_disk('wal');
my $logged = new_warehouse(
	name => 'logged', start => 0, initdb => [ "--waldir=$log_disk/wal", '--wal-segsize=1' ],
	conf => { logging_collector => 'on', log_directory => "'server_log'", log_filename => "'all'", max_wal_size => "'8MB'", min_wal_size => "'2MB'", wal_init_zero => 'on' });

$logged->start;
sql($logged, 'CREATE EXTENSION wh_worker');
add_events_template($logged, 'events');
add_tenant($logged, 'shop', $source, templates => ['events']);
sql($logged, q{SELECT _wh.pause_schedule(name) FROM _wh.schedules});
is((enqueue_and_wait($logged, q{'events', 'shop', '2025-03-01', '2025-03-01'}))[1], 'succeeded', 'no room for WAL: a day is loaded before');
sql($logged, 'SELECT _wh.pause()');
$id = sql($logged, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-06', mode => 'all')});
leave_room_on($log_disk, 0);
# this may be what finds no room
$logged->psql('postgres', 'SELECT _wh.resume()', stderr => \my $ignored);

my $all = $logged->data_dir . '/server_log/all';
ok(eventually(sub { -e $all && slurp_file($all) =~ /PANIC:.*No space left on device/ }), 'no room for WAL: the server stops with a PANIC');
leave_room_on($log_disk);
# It could not start again for want of room, or is about to.
$logged->stop('immediate', fail_ok => 1);
$logged->_update_pid(-1);
$logged->start unless defined $logged->{_pid};
wait_until($logged, "SELECT state <> 'running' FROM _wh.backfills WHERE backfill_id = $id", 'no room for WAL: with room the backfill ends');
is(sql($logged, "SELECT state FROM _wh.backfills WHERE backfill_id = $id"), 'succeeded', 'no room for WAL: well');
same_content($logged, 'SELECT * FROM shop.events', $source, events_query('2025-03-01', '2025-03-06'), 'no room for WAL: all days are whole');
is(sql($logged, q{SELECT count(*) FROM _wh.job_run_details WHERE status = 'failed'}), 0, 'no room for WAL: no job was given up');

done_testing();
