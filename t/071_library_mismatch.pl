# A library that is newer than the SQL of a database, and the other way round, as
# between the installation of a package and the restart or ALTER EXTENSION UPDATE:
# nothing of the warehouse runs, readers read, it says why, and goes on by itself.
use strict;
use warnings;

use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse();
my $library = sql($node, 'SHOW wh_worker.library_version');

is($library, sql($node, q{SELECT extversion FROM pg_extension WHERE extname = 'wh_worker'}), 'a new warehouse has the version of its library');
is(sql($node, q{SELECT default_version FROM pg_available_extensions WHERE name = 'wh_worker'}), $library, 'which is that of the control file');

create_events($source, '2025-03-01', 6, 20);
add_events_template($node, $_) foreach 'events', 'leaves';
sql($node, q{UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'});
add_tenant($node, 'shop', $source, templates => [ 'events', 'leaves' ]);
foreach my $template ('events', 'leaves')
{
	is((enqueue_and_wait($node, "'$template', 'shop', '2025-03-01', '2025-03-02'"))[1], 'succeeded', "$template are loaded");
}
sql($node, q{INSERT INTO _wh.schedules (name, schedule, kind, command, username) VALUES ('tick', '1 second', 'sql', 'SELECT 1', 'whadmin')});

# As new files, or an update, make it.
sub extension_is
{
	my ($version) = @_;

	sql($node, "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'wh_worker'");
	return;
}

sub runs
{
	my ($what) = @_;

	wait_until($node, q{SELECT state = 'idle' AND last_error IS NULL FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'}, "$what: the launcher works");
	is(sql($node, q{SELECT _wh.pause_reason() IS NULL}), 't', "$what: nothing is in the way");
	my $runs = sql($node, q{SELECT max(runid) FROM _wh.job_run_details});
	wait_until($node, qq{SELECT count(*) > 0 FROM _wh.job_run_details WHERE runid > $runs AND status = 'succeeded'}, "$what: schedules run");
	return;
}

# A job that is queued meanwhile, by somebody who does not ask us.
sub enqueue_by_hand
{
	my ($date) = @_;

	return sql($node, qq{INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority)
		VALUES ('refresh', 'events', 'shop', 'shop', '$date', 10) RETURNING job_id});
}

my @calls = (
	q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-03', '2025-03-03')},
	q{SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-03-03')},
	q{SELECT * FROM _wh.fetch_day('events', 'shop', '2025-03-03') AS f (id integer, at timestamp, kind text, amount numeric, payload text)},
	q{SELECT _wh.pause()},
	q{SELECT * FROM _wh.data_freshness},
	q{SELECT count(*) FROM _wh.metrics},
	q{UPDATE _wh.mv_templates SET settle_days = 2},
	q{REFRESH MATERIALIZED VIEW shop.events_2025_03_01});

sub waits
{
	my ($version, $hint, $date) = @_;
	my $offset = log_end($node);
	my $problem = qr/extension "wh_worker" has version \Q$version\E in this database, and the library that the server has loaded version \Q$library\E/;

	extension_is($version);
	wait_until($node, qq{SELECT state = 'waiting' AND last_error LIKE 'extension "wh_worker" has version $version%' FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'},
		"$version: the launcher waits");
	like(sql($node, 'SELECT _wh.pause_reason()'), $problem, "$version: pause_reason() says why");
	fails_with($node, $_, '55000', qr/$problem.*HINT:\s+$hint/s, "$version: $_") foreach @calls;
	is(sql($node, 'SELECT (SELECT count(*) > 0 FROM public.events) AND (SELECT count(*) > 0 FROM public.leaves)'), 't', "$version: readers read");

	# The launcher is told of it, and looks many times.
	my $job = enqueue_by_hand($date);
	wait_until($node, q{SELECT count(*) = 0 FROM _wh.jobs WHERE state = 'running'}, "$version: what ran has ended");
	my $runs = sql($node, q{SELECT max(runid) FROM _wh.job_run_details});
	my $launcher = q{FROM pg_stat_activity WHERE backend_type = 'wh_worker launcher'};
	foreach my $cycle (1 .. 3)
	{
		my $last = sql($node, "SELECT state_change $launcher");
		wait_until($node, "SELECT state_change > '$last' $launcher", "$version: it looks again");
	}
	is(sql($node, "SELECT state FROM _wh.jobs WHERE job_id = $job"), 'queued', "$version: no job starts");
	is(sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE runid > $runs AND reason IS DISTINCT FROM 'backfill'"), 0, "$version: no schedule runs");
	is(log_count($node, qr/waits to start in database "postgres": $problem/, $offset), 1, "$version: it is logged once");
	return $job;
}

sub goes_on
{
	my ($what, $job) = @_;

	runs($what);
	wait_for_job($node, "job_id = $job", 'succeeded', "$what: what waited is done");
	return;
}

runs('as it was made');

my $job = waits('0.9', 'Run ALTER EXTENSION wh_worker UPDATE in this database', '2025-03-03');
extension_is($library);
goes_on('after the update', $job);

$job = waits('1.10', 'Install version 1\.10 of the library if it is not installed, and restart the server', '2025-03-04');
extension_is($library);
goes_on('with the library', $job);

# ---- over a restart, and with work at hand ------------------------------

sql($source, q{CREATE FUNCTION slowly(date) RETURNS boolean LANGUAGE sql AS 'SELECT pg_advisory_xact_lock_shared(42) IS NOT NULL'; GRANT EXECUTE ON FUNCTION slowly TO wh_reader});
sql($node, q{UPDATE _wh.mv_templates SET query_template = 'SELECT id, at, kind, amount, payload FROM events WHERE slowly(''{TARGET_DATE}'') AND at >= ''{TARGET_DATE}''::date AND at < ''{TARGET_DATE}''::date + 1' WHERE template_name = 'events'});
my $holder = $source->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(42)');
my $backfill = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-05', '2025-03-05')});
my $running = sql($node, "SELECT job_id FROM _wh.jobs WHERE backfill_id = $backfill");
wait_for_job($node, "job_id = $running", 'running', 'a job runs');
wait_until($source, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'at its tenant');
extension_is('0.9');
wait_until($node, q{SELECT state = 'waiting' FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'}, 'while the version changes');
is(sql($node, qq{SELECT count(*) FROM _wh.worker_status WHERE job_id = $running}), 1, 'its worker can be seen');
my $offset = log_end($node);
$node->restart;
wait_until($node, q{SELECT state = 'waiting' AND last_error LIKE '%has version 0.9%' FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'}, 'after a restart the launcher waits');
is(sql($node, "SELECT state FROM _wh.jobs WHERE job_id = $running"), 'running', 'and touches nothing');
is(log_count($node, qr/ERROR|FATAL(?!.*terminating)/, $offset), 0, 'without an error');
$holder->quit;
extension_is($library);
goes_on('after the restart', $running);
same_content($node, 'SELECT * FROM shop.events_2025_03_05', $source, events_query('2025-03-05', '2025-03-05'), 'the day is whole');

# ---- a function with other columns --------------------------------------

sql($node, q{CREATE FUNCTION public.narrow_slots(OUT a integer, OUT b text) RETURNS SETOF record LANGUAGE c AS '$libdir/wh_worker', 'wh_sql_worker_slots'});
extension_is('0.9');
fails_with($node, 'SELECT * FROM public.narrow_slots()', '55000', qr/has version 0\.9/, 'slots with other columns are refused');
extension_is($library);
sql($node, 'DROP FUNCTION public.narrow_slots()');

# ---- scripts ------------------------------------------------------------

# What CREATE EXTENSION begins with, as a later version will have it.
my $preamble = slurp_file(source_root() . '/sql/00_preamble.sql') =~ s/^\\echo.*$//mr;

sub preamble_of
{
	my ($version) = @_;

	return $preamble =~ s/\@EXTVERSION\@/$version/gr;
}

fails_with($node, preamble_of('1.10'), '55000', qr/older than version 1\.10.*HINT:\s+Restart the server/s, 'a script is newer than the library');
sql($node, preamble_of($_)) foreach '0.9', $library;
pass('one of its version, or older, is not');
sql($node, q{SELECT _wh.pause_schedule('tick')});
wait_until($node, q{SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')}, 'nothing is left to do');
sql($node, 'DROP EXTENSION wh_worker CASCADE');
wait_until($node, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'wh_worker launcher'}, 'without the extension the launcher is there');
wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'wh_worker worker' AND state = 'active'}, 'and no worker is busy');
is(log_count($node, qr/terminated by signal|PANIC/), 0, 'nothing crashed');

done_testing();
