# Months and then years are combined with nobody there: schedules that come due
# by the clock, jobs of their own, and what is incomplete shown and left alone.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');

create_events($production, '2024-01-01', 70, 4);
my $node = new_warehouse(conf => { 'wh_worker.debug_clock_offset' => clock_offset_to('2024-03-01 12:00') });
add_events_template($node, 'events');
add_tenant($node, 'shop', $production, templates => ['events'], start_date => '2024-01-15', combine_on_schedule => 1);
my $month = 'combine month events shop';
my $year = 'combine year events shop';
my $source = "SELECT id, at, kind, amount, payload FROM events WHERE at >= '2024-01-15' AND at < ";

# Waits until the schedule was decided on since its last run, and says how.
sub due_at
{
	my ($time, $schedule) = @_;

	sql($node, "UPDATE _wh.schedules SET last_run = NULL WHERE name = '$schedule'");
	step_clock($node, $time);
	$node->poll_query_until('postgres', "SELECT last_run IS NOT NULL FROM _wh.schedules WHERE name = '$schedule'")
	  or die "$schedule did not come due";
	return;
}

sub decisions
{
	my ($schedule) = @_;

	return sql($node, "SELECT string_agg(d.status || ': ' || d.return_message, ' | ' ORDER BY d.runid) FROM _wh.job_run_details d JOIN _wh.schedules s ON s.schedule_id = d.jobid WHERE s.name = '$schedule' AND d.status IN ('enqueued', 'coalesced', 'skipped')");
}

sub all_ended
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", $name);
}

sub jobs
{
	return sql($node, "SELECT string_agg(concat_ws(' ', kind, target_date, state, last_sqlstate), ', ' ORDER BY job_id) FROM _wh.jobs WHERE kind LIKE 'combine%'");
}

sub relations
{
	return sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'm')");
}

sub load
{
	my ($from, $to) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'events', 'shop', '$from', '$to', NULL, 'all'");

	return $state;
}

# ---- the schedules -----------------------------------------------------

is(sql($node, "SELECT string_agg(concat_ws(' / ', jobname, schedule, timezone, command, kind), chr(10) ORDER BY jobid) FROM _wh.job"),
	"refresh events shop / 0 0 29 2 * / UTC / refresh events from shop into shop / refresh\n"
	  . "combine month events shop / H 3 * * * / UTC / combine month events of shop in shop / combine_month\n"
	  . "combine year events shop / 0 2 15 2 * / UTC / combine year events of shop in shop / combine_year",
	'add_tenant makes a schedule for months and one for years');
is(sql($node, "SELECT to_char(next_run_utc, 'YYYY-MM-DD HH24:MI') FROM _wh.job WHERE jobname = '$year'"), '2025-02-15 02:00', 'years on 15 February');
is(sql($node, "SELECT next_run_utc::date || ' ' || extract(hour FROM next_run_utc) FROM _wh.job WHERE jobname = '$month'"), '2024-03-02 3', 'months every night');
is(sql($node, 'SELECT _wh.setup_cron()'), 0, 'nothing is left for setup_cron');
sql($node, "UPDATE _wh.schedules SET active = false WHERE kind = 'refresh'");

# ---- months ------------------------------------------------------------

is(load('2024-01-15', '2024-03-01'), 'succeeded', 'days are loaded');
sql($node, "SELECT _wh.drop_day('events', 'shop', '2024-02-10'), _wh.drop_day('events', 'shop', '2024-02-29')");
sql($node, "UPDATE _wh.mv_templates SET settle_days = 3");

# February is over for one day on 2 March, and for three on 4 March.
due_at('2024-03-02 04:00', $month);
is(decisions($month), 'enqueued: 1 queued: 2024-01', 'a month in which the tenant joined; the last one has not settled');
all_ended('it is combined');
is(jobs(), 'combine_month 2024-01-01 succeeded', 'by a job');
is(sql($node, "SELECT priority || ' ' || reason || ' ' || (schedule_id = (SELECT schedule_id FROM _wh.schedules WHERE name = '$month'))::text FROM _wh.jobs WHERE kind = 'combine_month'"), '40 due true', 'in the class of backfills');
is(sql($node, "SELECT command || ': ' || return_message || ', ' || rows FROM _wh.job_run_details WHERE status = 'succeeded' AND command LIKE 'combine%'"),
	'combine events 2024-01 of shop in shop: combined 68 rows of 17 relations, 68', 'which left its history');
is(sql($node, "SELECT last_status FROM _wh.schedules WHERE name = '$month'"), 'succeeded: combined 68 rows of 17 relations', 'the schedule shows it');
like(relations(), qr/^events_2024_01 events_2024_02_01 /, 'the days of the month are a table');
due_at('2024-03-03 04:00', $month);
is(decisions($month), 'enqueued: 1 queued: 2024-01 | skipped: nothing to combine', 'a combined one is left alone');
due_at('2024-03-04 04:00', $month);
like(decisions($month), qr/ \| skipped: 1 incomplete: 2024-02 \(missing 2024-02-10, 2024-02-29\)$/, 'an incomplete one is named, with the leap day');
my $rows = sql($node, 'SELECT count(*) FROM _wh.job_run_details');
due_at('2024-03-05 04:00', $month);
due_at('2024-03-06 04:00', $month);
is(sql($node, 'SELECT count(*) FROM _wh.job_run_details'), $rows, 'and not again every night');
is(sql($node, "SELECT last_status FROM _wh.schedules WHERE name = '$month'"), 'skipped: 1 incomplete: 2024-02 (missing 2024-02-10, 2024-02-29)', 'though the schedule says so');
is(load('2024-02-10', '2024-02-10'), 'succeeded', 'a day of it comes');
due_at('2024-03-07 04:00', $month);
like(decisions($month), qr/ \| skipped: 1 incomplete: 2024-02 \(missing 2024-02-29\)$/, 'then it is said anew');
is(load('2024-02-29', '2024-02-29'), 'succeeded', 'the other comes');

# A tenant that is paused, or has its quiet hours, or cannot be reached.
sql($node, "SELECT _wh.pause_tenant('shop')");
due_at('2024-03-08 04:00', $month);
like(decisions($month), qr/ \| skipped: the tenant is paused$/, 'not while the tenant is paused');
sql($node, 'SELECT _wh.pause()');
sql($node, "SELECT _wh.resume_tenant('shop')");
sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = '00:00-24:00', host = '127.0.0.1', port = 1, password = '" . reader_password() . "'");
sql($node, "INSERT INTO _wh.tenant_failures VALUES ('shop', 9, clock_timestamp() + interval '1 s', '08006', 'x', clock_timestamp() + interval '1 day')");
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority) VALUES ('combine_month', 'events', 'shop', 'shop', '2024-02-01', 40)");
is(sql($node, "SELECT wait_reason FROM _wh.job_status WHERE state = 'queued'"), 'the warehouse is paused', 'while the warehouse is paused a job waits for that');
sql($node, 'SELECT _wh.resume()');
all_ended('and for nothing of its tenant, which it does not read');
is(jobs(), 'combine_month 2024-01-01 succeeded, combine_month 2024-02-01 succeeded', 'the next month is combined');
same_content($node, 'SELECT * FROM shop.events', $production, $source . "'2024-03-02'", 'same content');
like(decisions($month), qr/ \| (?:coalesced: 1 pending already: 2024-02|skipped: nothing to combine)$/, 'a tenant that is resumed is asked for its months at once');
sql($node, "DELETE FROM _wh.tenant_failures; UPDATE _wh.tenant_connections SET quiet_hours = NULL, password = '" . reader_password() . "', port = " . $production->port);

# One pending job for a month.
sql($node, 'SELECT _wh.pause()');
my $insert = "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority) VALUES ('combine_year', 'events', 'shop', 'shop', '2024-01-01', 40)";
sql($node, $insert);
fails_with($node, $insert, '23505', qr/jobs_one_pending_per_period_idx/, 'a period is queued once');
is(sql($node, "SELECT _wh.cancel_job(max(job_id)) FROM _wh.jobs"), 1, 'a queued one can be cancelled');
sql($node, $insert);
sql($node, 'SELECT _wh.resume()');
all_ended('a job for a year that is not over ends');
like(jobs(), qr/, combine_year 2024-01-01 cancelled, combine_year 2024-01-01 failed 22023$/, 'at once, as failed');

# ---- what fails ---------------------------------------------------------

step_clock($node, '2024-04-02 12:00');
is(load('2024-03-02', '2024-03-10'), 'succeeded', 'days of March');
sql($node, "UPDATE _wh.tenant_templates SET start_date = '2024-03-02'");
sql($node, 'CREATE VIEW public.on_a_day AS SELECT * FROM shop.events_2024_03_07');
$production->safe_psql('postgres', "INSERT INTO events SELECT 1000 + n, date '2024-03-10' + n, 'more', 1, 'x' FROM generate_series(1, 21) AS n");
is(load('2024-03-11', '2024-03-31'), 'succeeded', 'and the others');
due_at('2024-04-04 04:00', $month);
all_ended('its job ends');
like(jobs(), qr/, combine_month 2024-03-01 failed 2BP01$/, 'as failed, at once, while a view of a user is on a day');
like(sql($node, "SELECT last_status FROM _wh.schedules WHERE name = '$month'"), qr/^failed: .*cannot be combined because view public.on_a_day depends on it/, 'the schedule says why');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'events_2024_03%' AND relkind = 'm'"), 31, 'nothing was changed');
sql($node, 'DROP VIEW public.on_a_day');
due_at('2024-04-05 04:00', $month);
all_ended('the next night');
like(jobs(), qr/, combine_month 2024-03-01 succeeded$/, 'it is tried again');
is(relations(), 'events_2024_01 events_2024_02 events_2024_03', 'three months');

# ---- a year ------------------------------------------------------------

$production->safe_psql('postgres', "INSERT INTO events SELECT 2000 + n, date '2024-03-31' + n, 'more', 1, 'x' FROM generate_series(1, 280) AS n");
sql($node, "SELECT _wh.pause_schedule('$month')");
step_clock($node, '2025-01-06 12:00');
is(load('2024-04-01', '2024-12-30'), 'succeeded', 'the rest of the year, but for a day');
due_at('2025-02-15 02:10', $year);
is(decisions($year), 'skipped: 1 incomplete: 2024 (missing 2024-12-31)', 'a year that lacks a day is left alone');
is(load('2024-12-31', '2025-01-05'), 'succeeded', 'it comes');
sql($node, "UPDATE _wh.schedules SET last_run = NULL WHERE name = '$month'; SELECT _wh.resume_schedule('$month')");
wait_until($node, "SELECT last_run IS NOT NULL FROM _wh.schedules WHERE name = '$month'", 'the schedule of months was paused');
like(decisions($month), qr/enqueued: 9 queued: 2024-04, 2024-05,.*2024-12; 1 incomplete: 2025-01 \(missing 2025-01-06, .*\)$/, 'months of a year that is over are combined all the same');
all_ended('they are');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname ~ '^events_2024_..\$' AND relkind = 'r'"), 12, 'twelve months');
due_at('2026-02-15 02:10', $year);
like(decisions($year), qr/ \| enqueued: 1 queued: 2024; 1 incomplete: 2025 \(missing 2025-01-06, .* and 350 more\)$/, 'a year that was incomplete is caught up with');
all_ended('it is combined');
like(relations(), qr/^events_2024 events_2025_01_01 /, 'one table');
same_content($node, 'SELECT * FROM shop.events', $production, $source . "'2025-01-06'", 'same content');
due_at('2026-02-16 04:00', $month);
unlike(decisions($month), qr/queued: 2024-[0-9-, .]*; 1 incomplete: 2025-01 [^|]*\| .*2024/, 'months of a combined year are not asked for');

# ---- the end of a subscription -----------------------------------------

sql($node, 'SELECT _wh.pause()');
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority) VALUES ('combine_month', 'events', 'shop', 'shop', '2025-01-01', 40)");
sql($node, "SELECT _wh.unsubscribe('shop', 'events')");
is(sql($node, 'SELECT count(*) FROM _wh.schedules'), 0, 'unsubscribe takes the schedules away');
is(sql($node, 'SELECT state FROM _wh.jobs ORDER BY job_id DESC LIMIT 1'), 'cancelled', 'and queued jobs');
sql($node, "SELECT _wh.subscribe('shop', 'events', 'elsewhere')");
is(sql($node, "SELECT string_agg(name, ', ' ORDER BY schedule_id) FROM _wh.schedules"),
	'refresh events shop elsewhere, combine month events shop elsewhere, combine year events shop elsewhere', 'in another schema they have its name');
sql($node, "SELECT _wh.unschedule('$month elsewhere'), _wh.pause_schedule('$year elsewhere')");
is(sql($node, 'SELECT _wh.setup_cron()'), 1, 'setup_cron makes the one that is gone, and none that is paused');
sql($node, "SELECT _wh.remove_tenant('shop')");
is(sql($node, 'SELECT count(*) FROM _wh.schedules'), 0, 'remove_tenant takes them away');

done_testing();
