# Schedules: days of them in seconds, by stepping the clock that they are kept
# by.  What comes due, what that means by the ledger, and what is left of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $decisions = "status IN ('enqueued', 'coalesced', 'skipped')";
my $production = new_tenant('production');

sub set_config
{
	my ($node, $name, $value) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $name = '$value';\nSELECT pg_reload_conf();");
	return;
}

# Waits until a schedule has been decided on so often, and says how the last time.
sub decided
{
	my ($node, $schedule, $count, $columns) = @_;
	my $of = "FROM _wh.job_run_details WHERE $decisions AND jobid = (SELECT schedule_id FROM _wh.schedules WHERE name = '$schedule')";

	$node->poll_query_until('postgres', "SELECT count(*) >= $count $of");
	return sql($node, "SELECT count(*) OVER () || ' ' || concat_ws(' | ', $columns) $of ORDER BY runid DESC LIMIT 1");
}

sub next_run
{
	my ($node, $schedule) = @_;

	return sql($node, "SELECT to_char(next_run_utc, 'YYYY-MM-DD HH24:MI') FROM _wh.job WHERE jobname = '$schedule'");
}

sub next_run_is
{
	my ($node, $schedule, $time, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT to_char(next_run_utc, 'YYYY-MM-DD HH24:MI') = '$time' FROM _wh.job WHERE jobname = '$schedule'", $name);
}

sub all_ended
{
	my ($node, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", $name);
}

# The days that a refresh was queued for since the last time, as they ran.
my $last_job = 0;

sub new_days
{
	my ($node) = @_;
	my $days = sql($node, "SELECT string_agg(target_date || ' ' || reason || ' ' || priority, ', ' ORDER BY started_at) FROM _wh.jobs WHERE kind = 'refresh' AND job_id > $last_job");

	$last_job = sql($node, 'SELECT coalesce(max(job_id), 0) FROM _wh.jobs');
	return $days;
}

# ---- a warehouse with one worker ---------------------------------------

# Loads wait while the test holds lock 7, and fail for days in "broken".
create_events($production, '2025-07-01', 20, 5);
$production->safe_psql('postgres', 'CREATE TABLE broken (day date); GRANT SELECT ON broken TO wh_reader');
my $query = q{SELECT id, at, kind, amount, payload FROM events
	WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1
	AND (SELECT 1 / (1 - count(*)) FROM broken WHERE day = '{TARGET_DATE}') = 1
	AND pg_advisory_xact_lock_shared(7) IS NOT NULL};

my $node = new_warehouse(
	conf => {
		'wh_worker.max_workers' => 1,
		'wh_worker.max_attempts' => 1000,
		'wh_worker.catchup_days' => 3,
		'wh_worker.debug_clock_offset' => clock_offset_to('2025-07-10 10:00')
	});

add_events_template($node, 'events', query => $query, schedule => '30 */4 * * *');
add_tenant($node, 'shop', $production, templates => ['events'], start_date => '2025-07-05');
my $refresh = 'refresh events shop';

is(next_run($node, $refresh), '2025-07-10 12:30', 'add_tenant makes a schedule, by the clock');
is(sql($node, "SELECT to_char(next_run AT TIME ZONE 'UTC', 'HH24:MI') FROM _wh.data_freshness"), '12:30', 'data_freshness has it');

# ---- due means data ----------------------------------------------------

step_clock($node, '2025-07-10 12:30:05');
is(decided($node, $refresh, 1, 'status, reason, command, return_message'),
	'1 enqueued | due | refresh events from shop into shop | 4 queued: 2025-07-10 (today), 2025-07-09 (missing), 2025-07-08 (missing), 2025-07-07 (missing)',
	'today and what is missing back to catchup_days');
all_ended($node, 'these days are loaded');
is(new_days($node), '2025-07-10 today 25, 2025-07-09 missing 25, 2025-07-08 missing 30, 2025-07-07 missing 30',
	'newest first, today and yesterday in their class');
same_content($node, 'SELECT * FROM shop.events', $production,
	'SELECT id, at, kind, amount, payload FROM events WHERE at >= \'2025-07-07\' AND at < \'2025-07-11\'',
	'they have the tenant\'s rows');
is(next_run($node, $refresh), '2025-07-10 16:30', 'and it waits for the next time');
is(sql($node, "SELECT last_status LIKE 'succeeded%' AND last_run < next_run FROM _wh.schedules WHERE name = '$refresh'"), 't',
	'the schedule shows how its last job ended');

step_clock($node, '2025-07-10 16:30:05');
is(decided($node, $refresh, 2, 'status, return_message'), '2 enqueued | 1 queued: 2025-07-10 (today)',
	'a day that is complete is not loaded again');
all_ended($node, 'today is loaded again');
$last_job = sql($node, 'SELECT max(job_id) FROM _wh.jobs');

# Failed, dropped and unfinished days; none before start_date.
$production->safe_psql('postgres', "INSERT INTO broken VALUES ('2025-07-10')");
sql($node, "SELECT _wh.drop_day('events', 'shop', '2025-07-09'), _wh.drop_day('events', 'shop', '2025-07-08')");
sql($node, "UPDATE _wh.tenant_templates SET start_date = '2025-07-09'");
step_clock($node, '2025-07-11 00:30:05');
is(decided($node, $refresh, 3, 'return_message'),
	'3 3 queued: 2025-07-11 (today), 2025-07-10 (unfinished), 2025-07-09 (missing)',
	'yesterday was loaded before it ended; a day before start_date stays away');
all_ended($node, 'they end');
is(new_days($node), '2025-07-11 today 25, 2025-07-10 unfinished 25, 2025-07-09 missing 30', 'in this order');
is(sql($node, "SELECT state || ' ' || last_sqlstate FROM _wh.jobs WHERE target_date = '2025-07-10' ORDER BY job_id DESC LIMIT 1"),
	'failed 22012', 'yesterday failed');
sql($node, "SELECT _wh.drop_day('events', 'shop', '2025-07-11')");
$production->safe_psql('postgres', "INSERT INTO broken VALUES ('2025-07-11')");
step_clock($node, '2025-07-11 04:30:05');
is(decided($node, $refresh, 4, 'return_message'), '4 2 queued: 2025-07-11 (today), 2025-07-10 (unfinished)',
	'what failed is asked for again; its old content is still there');
all_ended($node, 'and fails again');
step_clock($node, '2025-07-12 00:30:05');
is(decided($node, $refresh, 5, 'reason, return_message'),
	'5 caught up 5 missed runs since 2025-07-11 08:30:00+00 | 3 queued: 2025-07-12 (today), 2025-07-11 (failed), 2025-07-10 (unfinished)',
	'a day without content that failed');
$production->safe_psql('postgres', 'DELETE FROM broken');
all_ended($node, 'they end');

# ---- a server that was away --------------------------------------------

sql($node, "UPDATE _wh.schedules SET schedule = '30 0 * * *' WHERE name = '$refresh'");
is(next_run($node, $refresh), '2025-07-13 00:30', 'another text, another time');
$last_job = sql($node, 'SELECT max(job_id) FROM _wh.jobs');
$node->stop;
$node->append_conf('postgresql.auto.conf', 'wh_worker.debug_clock_offset = ' . clock_offset_to('2025-07-15 07:00'));
$node->start;
is(decided($node, $refresh, 6, 'status, reason'), '6 enqueued | caught up 3 missed runs since 2025-07-13 00:30:00+00',
	'a server that was down across three due times runs once');
all_ended($node, 'the days end');
like(new_days($node), qr/^2025-07-15 today 25, 2025-07-14 missing 25, 2025-07-13 missing 30, 2025-07-12 unfinished 30$/,
	'and loads all that is missing');
is(decided($node, $refresh, 6, 'status'), '6 enqueued', 'once');
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE target_date BETWEEN '2025-07-12' AND '2025-07-15' AND state = 'published'"), 4,
	'every day is there');

# ---- pauses ------------------------------------------------------------

sql($node, 'SELECT _wh.pause()');
step_clock($node, '2025-07-17 07:00:30');
wait_until($node, "SELECT next_run < now() FROM _wh.schedules WHERE name = '$refresh'", 'the warehouse is paused past two due times');
sql($node, 'SELECT _wh.resume()');
is(decided($node, $refresh, 7, 'reason'), '7 caught up 2 missed runs since 2025-07-16 00:30:00+00', 'which are one run after it');
all_ended($node, 'it ends');

sql($node, "SELECT _wh.pause_schedule('$refresh')");
sql($node, "INSERT INTO _wh.schedules (name, schedule, kind, template_name) VALUES ('witness', '0 * * * *', 'publish', 'events')");
step_clock($node, '2025-07-18 07:00:30');
is(decided($node, 'witness', 1, 'status, reason, command'),
	'1 enqueued | caught up 24 missed runs since 2025-07-17 08:00:00+00 | publish events', 'a publication comes due');
is(decided($node, $refresh, 7, 'status'), '7 enqueued', 'a paused schedule does not');
is(next_run($node, $refresh), '2025-07-18 00:30', 'and keeps its time');
sql($node, "SELECT _wh.resume_schedule('$refresh')");
is(decided($node, $refresh, 8, 'reason'), '8 caught up 1 missed run since 2025-07-18 00:30:00+00', 'at which it is late when it is resumed');
all_ended($node, 'it ends');

sql($node, "SELECT _wh.pause_tenant('shop')");
step_clock($node, '2025-07-19 00:30:05');
is(decided($node, $refresh, 9, 'status, return_message'), '9 skipped | the tenant is paused', 'a tenant that is paused is not asked');
like(sql($node, "SELECT last_status FROM _wh.schedules WHERE name = '$refresh'"), qr/^skipped: the tenant is paused$/, 'and the schedule says so');
sql($node, "SELECT _wh.resume_tenant('shop')");
is(decided($node, $refresh, 10, 'status'), '10 enqueued', 'when it is resumed, what was skipped is made up for');
all_ended($node, 'it ends');
is(next_run($node, $refresh), '2025-07-20 00:30', 'and the schedule goes on as before');
sql($node, 'UPDATE _wh.tenant_templates SET active = false');
step_clock($node, '2025-07-20 00:30:05');
is(decided($node, $refresh, 11, 'status, return_message'), '11 skipped | the subscription is inactive', 'nor for a subscription that has ended');
sql($node, "UPDATE _wh.tenant_templates SET active = true, start_date = '2025-08-01'");
step_clock($node, '2025-07-21 00:30:05');
is(decided($node, $refresh, 12, 'status, return_message'), '12 skipped | nothing to do before its start_date 2025-08-01', 'nor before its first day');
sql($node, "UPDATE _wh.tenant_templates SET start_date = '2025-07-01'");

# ---- steps of the clock ------------------------------------------------

is(next_run($node, 'witness'), '2025-07-21 01:00', 'an hourly schedule');
my ($before) = decided($node, 'witness', 1, "''") =~ /^(\d+)/;
step_clock($node, '2025-07-20 18:20');
next_run_is($node, 'witness', '2025-07-20 19:00', 'does not wait for the old hour when the clock is set back');
step_clock($node, '2025-07-20 19:00:05');
is(decided($node, 'witness', $before + 1, 'reason'), $before + 1 . ' due', 'and runs at the next one');
step_clock($node, '2025-07-20 23:10');
is(decided($node, 'witness', $before + 2, 'reason'), $before + 2 . ' caught up 4 missed runs since 2025-07-20 20:00:00+00',
	'set forward, it runs once for the hours left out');
next_run_is($node, 'witness', '2025-07-21 00:00', 'and goes on');

# ---- another zone ------------------------------------------------------

sql($node, "INSERT INTO _wh.schedules (name, schedule, timezone, kind, template_name) VALUES"
	  . " ('by setting', '0 9 * * *', NULL, 'publish', 'events'), ('by name', '0 9 * * *', 'Asia/Tokyo', 'publish', 'events')");
is(next_run($node, 'by setting'), '2025-07-21 09:00', 'a schedule without a zone');
set_config($node, 'wh_worker.timezone', 'Europe/Berlin');
next_run_is($node, 'by setting', '2025-07-21 07:00', 'follows the setting');
is(next_run($node, 'by name'), '2025-07-21 00:00', 'one with a zone does not');
is(sql($node, "SELECT next_run_local || ' ' || timezone FROM _wh.job WHERE jobname = 'by setting'"), '2025-07-21 09:00:00 Europe/Berlin', 'and is shown in both');
set_config($node, 'wh_worker.timezone', 'UTC');
next_run_is($node, 'by setting', '2025-07-21 09:00', 'back again');
sql($node, "SELECT _wh.unschedule(name) FROM _wh.schedules WHERE kind = 'publish'");

# ---- the edges of daylight saving --------------------------------------

sql($node, "SELECT _wh.pause_schedule('$refresh')");
step_clock($node, '2026-03-07 12:00');
sql($node, "INSERT INTO _wh.schedules (name, schedule, timezone, kind, template_name) VALUES ('new york', '30 2 * * *', 'America/New_York', 'publish', 'events')");
is(next_run($node, 'new york'), '2026-03-08 07:00', '02:30 that does not exist is at the jump');
step_clock($node, '2026-03-08 07:00:05');
is(decided($node, 'new york', 1, 'reason'), '1 due', 'it runs there');
is(next_run($node, 'new york'), '2026-03-09 06:30', 'once, and the next day in summer time');
sql($node, "UPDATE _wh.schedules SET schedule = '30 1 * * *' WHERE name = 'new york'");
step_clock($node, '2026-10-31 12:00');
decided($node, 'new york', 2, "''");
is(next_run($node, 'new york'), '2026-11-01 05:30', '01:30 that comes twice');
step_clock($node, '2026-11-01 05:30:05');
is(decided($node, 'new york', 3, 'reason'), '3 due', 'runs the first time');
is(next_run($node, 'new york'), '2026-11-02 06:30', 'and not the second');
all_ended($node, 'all publications end');
sql($node, "SELECT _wh.unschedule('new york')");

# ---- a busy worker -----------------------------------------------------

step_clock($node, '2025-07-15 12:00');
sql($node, "DELETE FROM _wh.schedules; SELECT _wh.setup_cron()");
$last_job = sql($node, 'SELECT max(job_id) FROM _wh.jobs');
my $gate = $production->background_psql('postgres', on_error_stop => 1);
$gate->query_safe('SELECT pg_advisory_lock(7)');
set_config($node, 'wh_worker.catchup_days', '0');
sql($node, "UPDATE _wh.schedules SET schedule = '* * * * *' WHERE name = '$refresh'");
sql($node, "INSERT INTO _wh.schedules (name, schedule, command) VALUES ('command', '* * * * *', 'SELECT 1')");
my $tick = 0;
while ($tick < 60)
{
	$tick++;
	step_clock($node, sprintf('2025-07-15 %02d:%02d:02', 12 + int($tick / 60), $tick % 60));
	decided($node, $refresh, $tick, 'status');
}
is(decided($node, $refresh, 60, 'status, return_message'), '60 coalesced | 1 pending already: 2025-07-15 (today)',
	'sixty ticks while the one worker is busy');
is(sql($node, "SELECT count(*) || ' ' || min(state) FROM _wh.jobs WHERE kind = 'refresh' AND job_id > $last_job"), '1 running', 'are one job');
is(decided($node, 'command', 60, 'status, return_message'), '60 coalesced | an earlier run is still pending', 'of a command too');
is(sql($node, "SELECT count(*) || ' ' || min(state) FROM _wh.jobs WHERE kind = 'sql'"), '1 queued', 'one job');
is(sql($node, "SELECT string_agg(n || ' ' || status, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n FROM _wh.job_run_details WHERE $decisions AND jobid IN (SELECT schedule_id FROM _wh.schedules) GROUP BY status) AS c"),
	'118 coalesced, 2 enqueued', 'and every tick left a row');
$gate->query_safe('SELECT pg_advisory_unlock(7)');
$gate->quit;
sql($node, "UPDATE _wh.schedules SET schedule = '0 0 29 2 *'");
all_ended($node, 'the jobs end');

# A day that a backfill has queued is moved up.
sql($node, 'SELECT _wh.pause()');
sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-14', '2025-07-16', NULL, 'all')");
is(sql($node, "SELECT count(*) || ' ' || min(priority) FROM _wh.jobs WHERE state = 'queued'"), '3 40', 'a backfill waits');
sql($node, "UPDATE _wh.schedules SET schedule = '* * * * *' WHERE name = '$refresh'");
step_clock($node, '2025-07-15 14:00:02');
sql($node, "SELECT _wh.pause_backfill(backfill_id) FROM _wh.backfills WHERE state = 'running'");
sql($node, 'SELECT _wh.resume()');
like(decided($node, $refresh, 61, 'status, return_message'), qr/^61 enqueued \| 1 moved up: 2025-07-15 \(today\)$/, 'its day of today is moved up');
wait_until($node, "SELECT string_agg(target_date || ' ' || state || ' ' || priority, ', ' ORDER BY target_date) = '2025-07-14 queued 40, 2025-07-15 succeeded 25, 2025-07-16 queued 40' FROM _wh.jobs WHERE backfill_id = (SELECT max(backfill_id) FROM _wh.backfills)",
	'and loaded, though the backfill is paused');
sql($node, "UPDATE _wh.schedules SET schedule = '0 0 29 2 *'");
sql($node, "SELECT _wh.resume_backfill(backfill_id) FROM _wh.backfills WHERE state = 'running'");
all_ended($node, 'the backfill ends');

# ---- a row that cannot be understood, a role that is gone ---------------

sql($node, 'CREATE ROLE leaver; GRANT leaver TO whadmin');
sql($node, "INSERT INTO _wh.schedules (name, schedule, command, username) VALUES ('of the leaver', '0 * * * *', 'SELECT 1', 'leaver'), ('bad', '0 * * * *', 'SELECT 1', 'whadmin'), ('bad zone', '0 * * * *', 'SELECT 1', 'whadmin'), ('good', '0 * * * *', 'SELECT 1', 'whadmin')");
sql($node, q{ALTER TABLE _wh.schedules DISABLE TRIGGER USER;
	UPDATE _wh.schedules SET schedule = '99 * * * *' WHERE name = 'bad';
	UPDATE _wh.schedules SET timezone = 'Nowhere/At_All' WHERE name = 'bad zone';
	ALTER TABLE _wh.schedules ENABLE TRIGGER USER});
sql($node, 'DROP ROLE leaver');
is(sql($node, "SELECT count(*) FROM _wh.job WHERE next_run_local IS NULL"), 1, 'the view survives them');
step_clock($node, '2025-07-15 15:00:02');
like(decided($node, 'good', 1, 'status'), qr/^1 enqueued$/, 'one bad row does not stop the others');
wait_until($node, "SELECT last_status = 'failed: invalid schedule \"99 * * * *\": The mistake is at character 1: minute 99 is not between 0 and 59.' AND active AND next_run = 'infinity' FROM _wh.schedules WHERE name = 'bad'",
	'it is marked');
wait_until($node, "SELECT last_status LIKE 'failed: time zone \"Nowhere/At_All\" is not recognized%' FROM _wh.schedules WHERE name = 'bad zone'", 'and the other');
is(sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE status = 'failed' AND job_id IS NULL AND return_message LIKE 'invalid schedule%'"), 1, 'with a row in the history');
wait_until($node, "SELECT NOT active AND last_status = 'disabled: role \"leaver\" does not exist' FROM _wh.schedules WHERE name = 'of the leaver'",
	'a schedule whose role is gone is disabled, visibly');
sql($node, "UPDATE _wh.schedules SET schedule = '0 * * * *' WHERE name = 'bad'");
is(next_run($node, 'bad'), '2025-07-15 16:00', 'a mended row runs again');
sql($node, "SELECT _wh.unschedule(name) FROM _wh.schedules WHERE kind = 'sql'");
all_ended($node, 'the commands end');

# ---- a retry keeps its date --------------------------------------------

set_config($node, 'wh_worker.catchup_days', '0');
sql($node, "UPDATE _wh.schedules SET schedule = '58 23 * * *' WHERE name = '$refresh'");
sql($node, "UPDATE _wh.tenant_connections SET port = 1, password = '" . reader_password() . "'");
step_clock($node, '2025-07-15 23:58:02');
wait_until($node, "SELECT count(*) > 0 FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id) WHERE d.status = 'retrying' AND j.target_date = '2025-07-15' AND j.state IN ('queued', 'running')",
	'a load of today cannot reach its tenant before midnight');
my $job = sql($node, "SELECT job_id FROM _wh.jobs WHERE state IN ('queued', 'running')");
step_clock($node, '2025-07-16 00:10');
$node->safe_psql('postgres', "UPDATE _wh.tenant_connections SET password = '" . reader_password() . "', port = " . $production->port);
wait_for_job($node, "job_id = $job", 'succeeded', 'and is retried after it');
is(sql($node, "SELECT target_date || ' ' || reason FROM _wh.jobs WHERE job_id = $job"), '2025-07-15 today', 'for the day that it was queued for');
$node->stop;

# ---- pg_cron -----------------------------------------------------------

my $cron = PostgreSQL::Test::Cluster->new('with_pg_cron');
my $has_pg_cron = -e $cron->config_data('--pkglibdir') . '/pg_cron.so';

SKIP:
{
	skip 'pg_cron is not installed', 1 unless $has_pg_cron;
	my $other = new_warehouse(
		name => 'moving',
		conf => {
			shared_preload_libraries => "'pg_cron,wh_worker'",
			'cron.database_name' => "'postgres'",
			'cron.use_background_workers' => 'on'
		});

	sql($other, 'CREATE EXTENSION pg_cron');
	sql($other, 'CREATE ROLE bob LOGIN; CREATE ROLE eve LOGIN; GRANT bob TO whadmin; GRANT USAGE ON SCHEMA cron TO bob, eve');
	sql($other, q{SELECT cron.schedule('0 0 29 2 *', 'SELECT 1'); SELECT cron.schedule('nightly', '5 3 29 2 *', 'VACUUM');
		SELECT cron.schedule('asleep', '5 3 29 2 *', 'SELECT 2'); UPDATE cron.job SET active = false WHERE jobname = 'asleep'});
	sql($other, "SET SESSION AUTHORIZATION bob; SELECT cron.schedule('nightly', '6 3 29 2 *', 'SELECT 3')");
	sql($other, "SET SESSION AUTHORIZATION eve; SELECT cron.schedule('hers', '7 3 29 2 *', 'SELECT 4')");
	sql($other, "INSERT INTO cron.job (schedule, command, jobname, database, nodeport) VALUES ('8 3 29 2 *', 'SELECT 5', 'elsewhere', 'template1', 5432), ('\@reboot', 'SELECT 6', 'at start', 'postgres', 5432)");
	my $jobs = 'SELECT md5(string_agg(j::text, chr(10) ORDER BY jobid)) FROM cron.job j';
	my $before_import = sql($other, $jobs);
	my ($status, $out, $err) = $other->psql('postgres', 'SELECT _wh.import_pg_cron()');

	is($out, 4, 'the jobs of pg_cron are copied');
	like($err, qr/WARNING:  job "hers" of pg_cron was not copied: role "whadmin" may not SET ROLE to "eve"/, 'but not of a role that we may not act for');
	like($err, qr/WARNING:  job "at start" of pg_cron was not copied: its schedule "\@reboot" has a mistake at character 1/, 'nor what is no schedule');
	is( sql($other, "SELECT string_agg(concat_ws(' | ', jobname, schedule, command, username, active, timezone), chr(10) ORDER BY jobid) FROM _wh.job"),
		join("\n",
			'pg_cron job 1 | 0 0 29 2 * | SELECT 1 | whadmin | t | GMT',
			'nightly | 5 3 29 2 * | VACUUM | whadmin | t | GMT',
			'asleep | 5 3 29 2 * | SELECT 2 | whadmin | f | GMT',
			'nightly (bob) | 6 3 29 2 * | SELECT 3 | bob | t | GMT'),
		'with their names, roles, zone and whether they are active');
	is(sql($other, 'SET client_min_messages = error; SELECT _wh.import_pg_cron()'), 0, 'again copies nothing');
	is(sql($other, 'SELECT count(*) FROM _wh.schedules'), 4, 'twice');
	is(sql($other, $jobs), $before_import, 'pg_cron has what it had');
	sql($other, 'DELETE FROM _wh.schedules; GRANT USAGE ON SCHEMA _wh TO bob; GRANT EXECUTE ON FUNCTION _wh.import_pg_cron() TO bob');
	is(sql($other, 'SET ROLE bob; SELECT _wh.import_pg_cron()'), 1, 'a role that may import copies its own');
	is(sql($other, 'SELECT username FROM _wh.schedules'), 'bob', 'only');
	$other->stop;
}

done_testing();
