# A day whose change_probe is unchanged is not fetched, and counts as fresh;
# anything else about it that a load would change is a reason to fetch.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse(conf => { 'wh_worker.catchup_days' => 3 });
my $probe = q{SELECT count(*), max(touched) FROM events
	WHERE at >= '{TARGET_DATE}' AND at < '{TARGET_DATE}'::date + 1};
my $today = sql($node, "SELECT _wh.current_date_utc()");
my $start = sql($node, "SELECT _wh.current_date_utc() - 3");

sub set_probe
{
	my ($query) = @_;

	$query =~ s/'/''/g if defined $query;
	return sql($node, 'UPDATE _wh.mv_templates SET change_probe = ' . (defined $query ? "'$query'" : 'NULL'));
}

sub day
{
	my ($date, $columns) = @_;

	return sql($node, "SELECT concat_ws(' ', $columns) FROM _wh.day_loads WHERE template_name = 'events' AND target_date = '$date'");
}

# What update_mv_window says of one day, and what it tells the caller.
sub update
{
	my ($date) = @_;
	my ($result, $out, $err) = $node->psql('postgres',
		"SELECT j.value->>'status' FROM _wh.update_mv_window_by_template('events', 'shop', '$date', '$date') u, jsonb_each(u) j");

	return "$out $err";
}

sub change
{
	my ($date) = @_;

	return $production->safe_psql('postgres',
		"UPDATE events SET amount = amount + 1, touched = nextval('touches') WHERE id = (SELECT min(id) FROM events WHERE at::date = '$date')");
}

sub is_unchanged
{
	my ($date, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like(update($date), qr/^unchanged \S+ NOTICE:  $date of template "events" is unchanged at tenant "shop", skipping/s, $name);
}

sub is_loaded
{
	my ($date, $name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is(update($date), 'loaded ', $name);
}

create_events($production, $start, 4, 50);
$production->safe_psql('postgres', q{
	CREATE SEQUENCE touches;
	GRANT ALL ON SEQUENCE touches TO wh_reader;
	ALTER TABLE events ADD touched bigint DEFAULT 0;
});
add_events_template($node, 'events');

# ---- what may be written -----------------------------------------------

fails_with($node, "UPDATE _wh.mv_templates SET change_probe = '-- {TARGET_DATE}'", '22023', qr/change_probe is not a single SELECT/, 'an empty probe');
fails_with($node, "UPDATE _wh.mv_templates SET change_probe = 'SELECT ''{TARGET_DATE}''; SELECT 2'", '22023', qr/change_probe is not a single SELECT/, 'two of them');
fails_with($node, "UPDATE _wh.mv_templates SET change_probe = 'SELECT 1'", '22023', qr/change_probe of template "events" does not contain \{TARGET_DATE\}/, 'one without a day');
fails_with($node, "UPDATE _wh.mv_templates SET change_probe = 'SELECT ''{target_date}'''", '22023', qr/change_probe of template "events" has "target_date" in braces/, 'a near miss');
fails_with($node, "UPDATE _wh.mv_templates SET change_probe = 'SELECT {TARGET_DATE}'", '42601', qr/syntax error/, 'a date without quotes');
fails_with($node, "UPDATE _wh.mv_templates SET change_probe = 'SELECT 1 FROM t WHERE d = ''{TARGET_DATE}'' FOR UPDATE'", '22023', qr/change_probe locks rows/, 'one that locks rows');

add_tenant($node, 'shop', $production, templates => ['events'], start_date => $start);
set_probe($probe);
is(sql($node, 'SELECT version FROM _wh.mv_templates'), 1, 'a probe is no new version');

# ---- at once -----------------------------------------------------------

is_loaded($start, 'a new day is loaded');
is(day($start, "probe_result, checked_at IS NULL"), '(50,0) t', 'and the result of the probe kept with it');
my $loaded_at = day($start, 'loaded_at');
is_unchanged($start, 'the probe is unchanged');
is(day($start, "loaded_at = '$loaded_at', checked_at > loaded_at, state"), 't t published', 'the ledger says when that was seen');
is(sql($node, "SELECT last_success = (SELECT checked_at FROM _wh.day_loads) FROM _wh.data_freshness"), 't', 'which data_freshness counts');
is(sql($node, 'SELECT concat_ws(\' \', status, return_message, rows, bytes) FROM _wh.job_run_details WHERE command LIKE \'refresh%\' ORDER BY runid DESC LIMIT 1'),
	'succeeded unchanged 0 0', 'and the history');
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '$start')"), 't', 'update_mv_by_template is true');
change($start);
is_loaded($start, 'a change is loaded');
is(day($start, 'probe_result, checked_at IS NULL'), '(50,1) t', 'with its result');
is_unchanged($start, 'and then nothing is');

# ---- what else asks for a load -----------------------------------------

sub is_loaded_once
{
	my ($name) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is_loaded($start, $name);
	return is_unchanged($start, "$name: once");
}

set_probe("$probe -- the same");
is_loaded_once('another probe');
sql($node, "UPDATE _wh.tenant_connections SET host = 'localhost', password = '" . reader_password() . "'");
is_loaded_once('another host');
sql($node, "UPDATE _wh.mv_templates SET indexes = indexes || ';CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)'");
is_loaded_once('another version of the template');
sql($node, sprintf('REFRESH MATERIALIZED VIEW shop.events_%s WITH NO DATA', $start =~ tr/-/_/r));
is_loaded_once('a relation that a person emptied');
sql($node, sprintf('DROP MATERIALIZED VIEW shop.events_%s CASCADE', $start =~ tr/-/_/r));
is_loaded_once('a relation that a person dropped');

my $name = 'events_' . ($start =~ tr/-/_/r);
sql($node, "UPDATE _wh.day_loads SET failed_at = now(), last_error = 'trouble'");
is_unchanged($start, 'a failure after the load');
is(day($start, 'failed_at IS NULL, last_error IS NULL'), 't t', 'is over');
sql($node, "SELECT _wh.refresh_mv('shop', '$name')");
isnt(day($start, 'loaded_at'), $loaded_at, 'refresh_mv loads anyway');
is(sql($node, 'SELECT return_message FROM _wh.job_run_details WHERE command LIKE \'refresh%\' ORDER BY runid DESC LIMIT 1'), 'loaded 50 rows', 'as its history says');
set_probe(undef);
is_loaded($start, 'no probe');
is(day($start, 'probe_result, probe_md5'), '', 'leaves no result');

# ---- results of all kinds ----------------------------------------------

sub result_of
{
	my ($query) = @_;

	set_probe("SELECT * FROM ($query) q WHERE '{TARGET_DATE}' <> ''");
	is_loaded_once($query);
	return day($start, 'probe_result');
}

is(result_of('SELECT 1 WHERE false'), '', 'no rows');
is(result_of('SELECT'), '()', 'no columns');
is(result_of(q{SELECT NULL, '', 'a,b', 'say "x"', E'two\nlines', date '2024-01-31', 1.50, true}),
	qq{(,"","a,b","say ""x""","two\nlines",2024-01-31,1.50,t)}, 'a row is kept as a row value');
is(result_of('SELECT n FROM generate_series(1, 3) n'), "(1)\n(2)\n(3)", 'a line per row');
like(result_of('SELECT n FROM generate_series(1, 100000) n'), qr/^sha256 [0-9a-f]{64} of 100000 rows$/, 'a long result is kept as a digest');
is(length(result_of(q{SELECT repeat('x', 998)})), 1000, 'as long as what is kept gets');
like(result_of(q{SELECT repeat('x', 999)}), qr/^sha256 /, 'and a byte more');
my $digest = day($start, 'probe_result');
isnt(result_of(q{SELECT repeat('x', 998) || 'y'}), $digest, 'another text has another digest');

set_probe(q{SELECT count(*), sum(xmin::text::bigint) FROM events WHERE at >= '{TARGET_DATE}' AND at < '{TARGET_DATE}'::date + 1});
is_loaded_once('versions of rows');
$production->safe_psql('postgres', "UPDATE events SET amount = 7 WHERE id = 17");
is_loaded_once('an update is seen by them');
$production->safe_psql('postgres', "INSERT INTO events SELECT 90017, at, kind, amount, payload, touched FROM events WHERE id = 17; DELETE FROM events WHERE id = 17");
is_loaded_once('a row deleted and another inserted');

# ---- one snapshot, and nothing read ------------------------------------

set_probe("SELECT 'stands still' WHERE '{TARGET_DATE}' <> ''");
is_loaded($start, 'a probe that stands still');
my $sum = sql($node, 'SELECT sum(amount) FROM public.events');
change($start);
is_unchanged($start, 'does not see a change');
is(sql($node, 'SELECT sum(amount) FROM public.events'), $sum, 'and nothing is fetched');
add_events_template($node, 'snapshots',
	query => q{SELECT pg_current_snapshot()::text AS payload WHERE '{TARGET_DATE}' <> ''},
	columns => 'payload TEXT', indexes => '');
sql($node, q{UPDATE _wh.mv_templates SET change_probe = $$SELECT nextval('touches') WHERE '{TARGET_DATE}' <> ''$$ WHERE template_name = 'snapshots'});
sql($node, "SELECT _wh.update_mv_by_template('snapshots', 'shop', '$start')");
like(sql($node, 'SELECT return_message FROM _wh.job_run_details WHERE command LIKE \'refresh%\' ORDER BY runid DESC LIMIT 1'),
	qr/tenant "shop": cannot execute nextval\(\) in a read-only transaction/, 'a probe cannot write');
sql($node, q{UPDATE _wh.mv_templates SET change_probe = $$SELECT pg_current_snapshot() WHERE '{TARGET_DATE}' <> ''$$ WHERE template_name = 'snapshots'});
my $writer = $production->background_psql('postgres');
$writer->query_safe('BEGIN; SELECT pg_current_xact_id()');
is(sql($node, "SELECT _wh.update_mv_by_template('snapshots', 'shop', '$start')"), 't', 'rows that tell their snapshot');
is(sql($node, 'SELECT payload = trim(both \'()\' from probe_result) FROM public.snapshots, _wh.day_loads WHERE template_name = \'snapshots\''), 't',
	'have that of the probe');
$writer->quit;

# ---- trouble -----------------------------------------------------------

set_probe("SELECT 1 / (SELECT 0 WHERE '{TARGET_DATE}' <> '')");
like(update($start), qr/^failed \S+ WARNING:  .*tenant "shop": division by zero/s, 'a probe that fails is trouble at the tenant');
is(day($start, "failed_at IS NOT NULL, state"), 't published', 'which the ledger notes');
is(sql($node, "SELECT string_agg(concat_ws(' ', check_name, ok), ',') FROM _wh.check_template('events', 'shop')"),
	'connection t,columns t,cost t,probe f', 'check_template says so');
set_probe($probe);
like(sql($node, "SELECT detail FROM _wh.check_template('events', 'shop') WHERE check_name = 'probe'"),
	qr/^estimated for yesterday: cost [\d.]+, \d+ rows; result: \(50,0\)$/, 'or what it costs and gives');
is_loaded_once('a probe that works again');

# ---- suspect days ------------------------------------------------------

# Seven days before $start, so that there is a median.
$production->safe_psql('postgres', qq{
	INSERT INTO events SELECT 100000 + d * 100 + n, date '$start' - d + n * interval '1 second', 'k', n, 'p', 0
	FROM generate_series(1, 7) d, generate_series(1, 50) n});
sql($node, "SELECT _wh.update_mv_window_by_template('events', 'shop', date '$start' - 7, date '$start' - 1)");
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = 2');
is_unchanged($start, 'a day that looks right');
$production->safe_psql('postgres', "DELETE FROM events WHERE at::date = '$start' AND id % 10 <> 0");
like(update($start), qr/^suspect /, 'most rows are gone: suspect');
like(update($start), qr/^suspect /, 'a suspect day is loaded again though its probe is unchanged');
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = NULL');
is_loaded_once('and when it is suspect no longer');
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = 2');
like(update($start), qr/^suspect /, 'nor is a day left alone whose count looks wrong only now');
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = NULL');
is_loaded_once('a day like any other');

# ---- jobs --------------------------------------------------------------

sub backfill
{
	my ($mode) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'events', 'shop', '$start', '$start', NULL, '$mode'");

	return sql($node, "SELECT concat_ws(' ', '$state', d.status, d.return_message) FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id) WHERE j.backfill_id = $id AND j.kind = 'refresh'");
}

is(backfill('all'), 'succeeded succeeded 5 rows', 'mode all loads whatever the probe says');
sql($node, "UPDATE _wh.day_loads SET failed_at = now(), last_error = 'trouble' WHERE target_date = '$start'");
is(backfill('failed'), 'succeeded succeeded unchanged', 'mode failed does not');
is(day($start, 'failed_at IS NULL'), 't', 'and the failure is over');

# A schedule: today and yesterday, which was fetched before it was over.
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN wh_worker');
sql($node, "SELECT _wh.update_mv_window_by_template('events', 'shop', '$start', '$today')");
sql($node, "UPDATE _wh.day_loads SET fetch_started_at = '$today'::timestamp AT TIME ZONE 'UTC' - interval '1 hour' WHERE target_date = date '$today' - 1");
my $before = sql($node, 'SELECT max(job_id) FROM _wh.jobs');

sub run_schedule
{
	my ($count) = @_;
	my $runs = sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE status IN ('enqueued', 'coalesced')");

	sql($node, "UPDATE _wh.schedules SET next_run = now() WHERE kind = 'refresh' AND template_name = 'events'");
	sql($node, "SELECT _wh.resume_schedule(name) FROM _wh.schedules WHERE kind = 'refresh'");
	$node->poll_query_until('postgres', "SELECT count(*) > $runs FROM _wh.job_run_details WHERE status IN ('enqueued', 'coalesced')")
	  or die 'the schedule did not run';
	$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')")
	  or die 'its jobs did not end';
	return sql($node, "SELECT string_agg(concat_ws(' ', j.reason, d.return_message), ', ' ORDER BY j.target_date)"
		  . " FROM _wh.jobs j JOIN _wh.job_run_details d USING (job_id) WHERE j.job_id > $before AND j.kind = 'refresh'");
}

is(run_schedule(), 'unfinished unchanged, today unchanged', 'a schedule finds both unchanged');
$before = sql($node, 'SELECT max(job_id) FROM _wh.jobs');
is(run_schedule(), 'today unchanged', 'and yesterday finished');
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '$today')"), 't', 'nor does update_mv_by_template of today');
is(sql($node, "SELECT command ~ '$today' FROM _wh.job_run_details WHERE command LIKE 'refresh%' ORDER BY runid DESC LIMIT 1"), 't', 'ask for yesterday again');
like($listener->query_safe('SELECT 1'), qr/"state":"succeeded"[^\n]*"date":"$today","unchanged":true/, 'a listener hears that nothing has changed');
is(sql($node, "SELECT last_status FROM _wh.schedules WHERE kind = 'refresh'"), 'succeeded: unchanged', 'and the schedule');
$listener->quit;

# ---- days in the table of their month ----------------------------------

my $month = '2024-02';
$production->safe_psql('postgres', qq{
	INSERT INTO events SELECT 200000 + d * 100 + n, date '$month-01' + d + n * interval '1 second', 'k', n, 'p', 0
	FROM generate_series(0, 28) d, generate_series(1, 20) n});
is((enqueue_and_wait($node, "'events', 'shop', '$month-01', '$month-29'"))[1], 'succeeded', 'a month is loaded');
sql($node, "SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2024, 2)");
is_unchanged("$month-10", 'a day of a combined month');
is(day("$month-10", "state, checked_at > loaded_at"), 'combined t', 'is spared, too');
change("$month-10");
is_loaded("$month-10", 'and loaded when it has changed');
is_unchanged("$month-10", 'once');
sql($node, "VACUUM FULL shop.events_2024_02");
is_loaded("$month-10", 'a table that somebody has written anew');
is_unchanged("$month-10", 'is known again');

# ---- leaves of a tree --------------------------------------------------

sql($node, "UPDATE _wh.mv_templates SET date_column = 'at' WHERE template_name = 'events'");
is(sql($node, "SELECT count(*) > 0 FROM _wh.convert_layout('events', 'partitions')"), 't', 'another layout') ;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')");
is_unchanged($start, 'moving a day is no reason to load it');
change($start);
is_loaded($start, 'a leaf is loaded when it has changed');
is_unchanged($start, 'once');

same_content($node, 'SELECT id, at, kind, amount, payload FROM public.events',
	$production, 'SELECT id, at, kind, amount, payload FROM events', 'in the end the warehouse has what the tenant has');
done_testing();
