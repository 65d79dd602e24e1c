# The promise of a template, fresh_within: it is fresh, at risk before it is
# broken, stale, and fresh again; what the lag consists of; when the next load is
# expected. Hours pass by stepping the clock of schedules; what is measured by the
# server's own clock (a job that waits or runs) is made old by writing its row.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse(
	conf => {
		'wh_worker.max_workers' => 1,
		'wh_worker.catchup_days' => 3,
		'wh_worker.connect_timeout' => "'1s'",
		'wh_worker.worker_idle_timeout' => "'1min'",
		'wh_worker.debug_clock_offset' => clock_offset_to('2025-07-10 10:00')
	});

# One row, as text, of the subscription of a tenant.
sub fresh
{
	my ($columns, $tenant) = @_;

	return sql($node, "SELECT concat_ws(' | ', $columns) FROM _wh.data_freshness WHERE tenant_name = '" . ($tenant // 'shop') . "'");
}

sub at
{
	my ($column) = @_;

	return "to_char($column AT TIME ZONE 'UTC', 'DD HH24:MI')";
}

sub fresh_is
{
	my ($columns, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(fresh($columns), $expected, $name);
}

# Which part of the lag it is, but for less than two minutes of the others.
sub lag_is
{
	my ($part, $from, $to, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $others = join ' + ', grep { $_ ne "lag_$part" } map { "lag_$_" } qw(schedule queue tenant run);

	return is(fresh("lag_$part BETWEEN '$from' AND '$to', $others < '2 min', lag = $others + lag_$part"), 't | t | t', $name)
	  || diag(fresh('lag, lag_schedule, lag_queue, lag_tenant, lag_run'));
}

sub all_ended
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", $name);
}

# The schedule has been decided on and what it queued has ended.
sub loaded_at
{
	my ($time, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $runs = "SELECT count(*) FROM _wh.job_run_details WHERE status IN ('enqueued', 'coalesced') AND command LIKE 'refresh events from shop %'";
	my $before = sql($node, $runs);

	step_clock($node, $time);
	$node->poll_query_until('postgres', "SELECT ($runs) > $before") or die "the schedule was not decided on";
	return all_ended($name);
}

# ---- what is refused ---------------------------------------------------

create_events($production, '2025-07-01', 30, 5);
$production->safe_psql('postgres', 'CREATE TABLE broken (day date); GRANT SELECT ON broken TO wh_reader');
add_events_template($node, 'events',
	query => q{SELECT id, at, kind, amount, payload FROM events
		WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1
		AND (SELECT 1 / (1 - count(*)) FROM broken WHERE day = '{TARGET_DATE}') = 1
		AND pg_advisory_xact_lock_shared(7) IS NOT NULL},
	schedule => '30 */4 * * *');
fails_with($node, "UPDATE _wh.mv_templates SET fresh_within = '$_'", '22023', qr/fresh_within of template "events" is /, "fresh_within $_ is refused")
  foreach '0', '-1 hour', '10 years 1 day';
fails_with($node, "UPDATE _wh.mv_templates SET fresh_after = 'week'", '22023', qr/fresh_after of template "events" is week/, 'and another fresh_after');
add_tenant($node, 'shop', $production, templates => ['events'], start_date => '2025-07-09');
fresh_is('freshness, due_at, lag_schedule = lag', 't', 'without a promise there is a lag, and nothing that is due');
sql($node, "UPDATE _wh.mv_templates SET fresh_within = '5 hours'");
is(sql($node, 'SELECT version FROM _wh.mv_templates'), 1, 'a promise makes no day outdated');

# ---- fresh, at risk, stale, fresh --------------------------------------

fresh_is(join(', ', at('complete_until'), at('due_at'), 'missing_days', 'freshness'), '09 00:00 | 09 05:00 | 2 | stale',
	'nothing is there before the first load');
fresh_is(at('next_run') . ', predicted_at >= next_run', '10 12:30 | t', 'its schedule is known to come');
loaded_at('2025-07-10 12:30:05', 'it comes, and loads');
fresh_is(join(', ', at('complete_until'), at('due_at'), 'missing_days', 'freshness'), '10 12:30 | 10 17:30 | 0 | fresh', 'then all is there');
is(sql($node, "SELECT run_seconds > 0 AND queue_seconds >= 0 AND complete_until = (SELECT max(fetch_started_at) FILTER (WHERE target_date = '2025-07-10') FROM _wh.day_loads)
	FROM _wh.tenant_templates"), 't', 'the subscription remembers how long it took, and when the tenant was read');
is(sql($node, "SELECT predicted_at = next_run + (run_seconds + queue_seconds) * interval '1 s' FROM _wh.data_freshness JOIN _wh.tenant_templates USING (tenant_name)"), 't',
	'the next load is expected when the schedule comes due, and as long later as it took');
lag_is('schedule', '0 s', '2 min', 'there is no lag to speak of');

sql($node, "UPDATE _wh.mv_templates SET fresh_within = '3 hours'");
fresh_is(at('due_at') . ', freshness', '10 15:30 | at_risk', 'a promise that the schedule cannot keep is at risk at once');
sql($node, "UPDATE _wh.mv_templates SET fresh_within = '5 hours'");

sql($node, "SELECT _wh.pause_schedule('refresh events shop')");
fresh_is('predicted_at, freshness, next_run', 'infinity | at_risk', 'a paused schedule: nothing is expected, so it is at risk before it is broken');
step_clock($node, '2025-07-10 17:29');
fresh_is('freshness', 'at_risk', 'until the last minute');
step_clock($node, '2025-07-10 17:30:30');
fresh_is('freshness', 'stale', 'then it is stale');
lag_is('schedule', '4:59', '5:02', 'and the schedule is the reason');
sql($node, "SELECT _wh.resume_schedule('refresh events shop')");
wait_until($node, "SELECT freshness = 'fresh' FROM _wh.data_freshness", 'a load later it is fresh');
all_ended('all has ended');

foreach my $switch ([ 'the warehouse', 'pause()', 'resume()' ], [ 'the tenant', "pause_tenant('shop')", "resume_tenant('shop')" ])
{
	my ($what, $off, $on) = @$switch;

	sql($node, "SELECT _wh.$off");
	fresh_is('predicted_at, freshness', 'infinity | at_risk', "while $what is paused, nothing is expected");
	sql($node, "SELECT _wh.$on");
	wait_until($node, "SELECT freshness = 'fresh' FROM _wh.data_freshness", 'when it is resumed, it is');
}
all_ended('what the end of the pause brought has ended');

# ---- the tenant --------------------------------------------------------

sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = '16:00-22:15'");
fresh_is(at('predicted_at'), '10 22:15', 'a schedule that comes due in quiet hours is expected to load at their end');
fresh_is(at('due_at') . ', freshness', '10 22:30 | fresh', 'which is in time here');
sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = '16:00-22:45'");
fresh_is('freshness', 'at_risk', 'and here is not');
sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = '00:00-12:00, 12:00-24:00'");
fresh_is('predicted_at', 'infinity', 'hours that are all quiet have no end');
sql($node, 'UPDATE _wh.tenant_connections SET quiet_hours = NULL');
fresh_is('freshness', 'fresh', 'without them it is fresh');

$production->stop;
step_clock($node, '2025-07-10 20:30:05');
wait_until($node, "SELECT state = 'open' OR state = 'half-open' FROM _wh.tenant_health", 'the tenant is set aside');
wait_until($node, "SELECT lag_tenant > '0' AND lag_queue + lag_run < '1 min' FROM _wh.data_freshness", 'some of the lag is its');
# No job finds out meanwhile that it is still down, which would make the retry a later one:
# what the launcher reads when it is resumed has to be there by then.
sql($node, 'SELECT _wh.pause()');
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state = 'running'", 'nothing runs');
sql($node, 'BEGIN; SELECT _wh.resume(); UPDATE _wh.tenant_failures SET first_failure_at = first_failure_at - interval \'90 min\', retry_at = now() + interval \'10 min\', last_failure_at = now();
	UPDATE _wh.jobs SET enqueued_at = enqueued_at - interval \'90 min\', first_started_at = first_started_at - interval \'90 min\' WHERE state = \'queued\'; COMMIT');
fresh_is("lag_tenant BETWEEN '1:30' AND '1:32', lag = lag_schedule + lag_queue + lag_tenant + lag_run", 't | t', 'out of reach for 90 minutes: these are the tenant\'s');
fresh_is("predicted_at - complete_until - lag BETWEEN '1:30' AND '1:32'", 't', 'and it is expected to be so for as long again');
fresh_is(at('due_at') . ', freshness', '10 22:30 | fresh', 'which is early enough');
sql($node, "UPDATE _wh.tenant_failures SET first_failure_at = first_failure_at - interval '60 min'");
fresh_is('freshness', 'at_risk', 'after 150 minutes it is not');
$production->start;
sql($node, "SELECT _wh.resume_tenant('shop')");
all_ended('when it is back, its days are loaded');
fresh_is('freshness', 'fresh', 'and it is fresh');

# ---- a load that fails for good ----------------------------------------

$production->safe_psql('postgres', "INSERT INTO broken VALUES ('2025-07-11')");
loaded_at('2025-07-11 00:30:05', 'a day begins, and cannot be loaded');
fresh_is('failed_days, missing_days, data_through, predicted_at, freshness', '1 | 1 | 2025-07-10 | infinity | at_risk',
	'nobody expects that the next try is any better');
fresh_is(at('complete_until'), '11 00:00', 'the day before is complete');
sql($node, "UPDATE _wh.tenant_templates SET failing_since = failing_since - interval '20 min'");
fresh_is("lag_tenant BETWEEN '20 min' AND '21 min', lag = lag_schedule + lag_tenant", 't | t', 'the time since it fails is the tenant\'s');
$production->safe_psql('postgres', 'DELETE FROM broken');
loaded_at('2025-07-11 04:30:05', 'the next run repairs it');
fresh_is('failed_days, missing_days, freshness', '0 | 0 | fresh', 'and it is fresh');
is(sql($node, 'SELECT failing_since IS NULL FROM _wh.tenant_templates'), 't', 'nothing fails any more');

$production->safe_psql('postgres', "INSERT INTO broken VALUES ('2025-07-02')");
enqueue_and_wait($node, "'events', 'shop', '2025-07-02', '2025-07-02'");
fresh_is('failed_days, freshness', '1 | fresh', 'an old day that fails is counted, and changes nothing');
sql($node, "SELECT _wh.drop_day('events', 'shop', '2025-07-02')");

# ---- holes -------------------------------------------------------------

sql($node, "SELECT _wh.drop_day('events', 'shop', '2025-07-10')");
fresh_is(at('complete_until') . ', data_through, missing_days', '10 00:00 | 2025-07-11 | 1', 'a hole in the last days holds it back');
loaded_at('2025-07-11 08:30:05', 'its schedule heals it');
fresh_is(at('complete_until') . ', missing_days', '11 08:30 | 0', 'and all is there again');
sql($node, "SELECT _wh.subscribe('shop', 'events', NULL, '2025-07-01')");
fresh_is(at('complete_until') . ', missing_days', '08 00:00 | 8', 'so do days that the schedule reaches');
sql($node, "ALTER SYSTEM SET wh_worker.catchup_days = 1; SELECT pg_reload_conf()");
loaded_at('2025-07-11 12:30:05', 'it loads again');
fresh_is(at('complete_until') . ', missing_days', '11 12:30 | 8', 'older ones are only counted');
sql($node, "ALTER SYSTEM SET wh_worker.catchup_days = 3; SELECT _wh.subscribe('shop', 'events', NULL, '2025-07-09'); SELECT pg_reload_conf()");

# ---- the run and the queue ---------------------------------------------

# Another tenant's load has the only worker and stands at the gate.
add_tenant($node, 'other', $production, templates => ['events'], start_date => '2025-07-11');
sql($node, "UPDATE _wh.schedules SET active = false WHERE tenant_name = 'other'");
my $gate = $production->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(7)');
sql($node, "SELECT _wh.enqueue_backfill('events', 'other', '2025-07-11', '2025-07-11')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.jobs WHERE state = 'running' AND tenant_name = 'other'", 'the other tenant has the worker');
step_clock($node, '2025-07-11 16:30:05');
wait_for_job($node, "tenant_name = 'shop' AND state = 'queued' AND kind = 'refresh'", 'queued', 'ours is queued');
fresh_is('freshness, lag_queue > \'0\', lag_run', 'fresh | t | 00:00:00', 'it waits');
sql($node, "UPDATE _wh.jobs SET enqueued_at = enqueued_at - interval '3 hours' WHERE tenant_name = 'shop' AND state = 'queued'");
fresh_is("lag_queue BETWEEN '3:00' AND '3:02', lag_tenant, lag_run, lag = lag_schedule + lag_queue", 't | 00:00:00 | 00:00:00 | t', 'for three hours: these are the queue\'s');
sql($node, "UPDATE _wh.tenant_templates SET run_seconds = 7200 WHERE tenant_name = 'other'");
fresh_is("predicted_at - complete_until - lag BETWEEN '1:58' AND '2:01', freshness", 't | at_risk',
	'what runs takes two hours by its history: ours is expected then, and too late');
is(fresh("lag_run BETWEEN '0' AND '2 min', predicted_at - complete_until - lag BETWEEN '1:58' AND '2:01'", 'other'), 't | t', 'as is the other');
sql($node, "UPDATE _wh.tenant_templates SET run_seconds = 60 WHERE tenant_name = 'other'");
fresh_is('freshness', 'fresh', 'a minute would do no harm');
sql($node, "UPDATE _wh.jobs SET started_at = started_at - interval '91 min', first_started_at = first_started_at - interval '91 min' WHERE tenant_name = 'other' AND state = 'running'");
fresh_is("predicted_at - complete_until - lag BETWEEN '1:30' AND '1:32', freshness", 't | at_risk',
	'what has run 90 minutes longer than usual is expected to run for as long again');
$gate->query_safe('SELECT pg_advisory_unlock_all()');
all_ended('when the gate opens, both are loaded');
fresh_is('freshness', 'fresh', 'and it is fresh');

$gate->query_safe('SELECT pg_advisory_lock(7)');
step_clock($node, '2025-07-11 20:30:05');
wait_for_job($node, "tenant_name = 'shop' AND state = 'running'", 'running', 'ours runs');
sql($node, "UPDATE _wh.jobs SET started_at = started_at - interval '2 hours', first_started_at = first_started_at - interval '2 hours', enqueued_at = enqueued_at - interval '2 hours' WHERE state = 'running'");
fresh_is("lag_run BETWEEN '2:00' AND '2:02', lag_queue < '1 min', lag_tenant < '1 min', lag = lag_schedule + lag_queue + lag_tenant + lag_run", 't | t | t | t', 'for two hours: these are the run\'s');
fresh_is("predicted_at - complete_until - lag BETWEEN '1:50' AND '2:02', freshness", 't | at_risk', 'and it is at risk');
$gate->query_safe('SELECT pg_advisory_unlock_all()');
all_ended('it ends');
is(sql($node, "SELECT run_seconds BETWEEN 1800 AND 1900 FROM _wh.tenant_templates WHERE tenant_name = 'shop'"), 't', 'a quarter of what it took is remembered');
sql($node, 'UPDATE _wh.tenant_templates SET run_seconds = 1, queue_seconds = 1');

# ---- what the queue is not to blame for --------------------------------

sub queue_seconds_of
{
	my ($template) = @_;

	return sql($node, "SELECT queue_seconds FROM _wh.tenant_templates WHERE tenant_name = 'shop' AND template_name = '$template'");
}

$gate->query_safe('SELECT pg_advisory_lock(7)');
sql($node, "SELECT _wh.enqueue_backfill('events', 'other', '2025-07-11', '2025-07-11', NULL, 'all')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.jobs WHERE state = 'running' AND tenant_name = 'other'", 'the other tenant has the worker again');
step_clock($node, '2025-07-11 20:31');
sql($node, "UPDATE _wh.schedules SET next_run = '2025-07-11 20:30:30+00' WHERE name = 'refresh events shop'");
wait_for_job($node, "tenant_name = 'shop' AND state = 'queued' AND kind = 'refresh'", 'queued', 'ours is queued');
sql($node, "UPDATE _wh.jobs SET enqueued_at = enqueued_at - interval '3 hours' WHERE tenant_name = 'shop' AND state = 'queued'");
sql($node, 'SELECT _wh.pause(); SELECT _wh.resume()');
$gate->query_safe('SELECT pg_advisory_unlock_all()');
all_ended('both are loaded');
is(queue_seconds_of('events'), 1, 'a wait in which the warehouse was paused is not remembered');

# Of two templates of a tenant that is down one is tried, and the other waits.
add_events_template($node, 'more', schedule => '45 */4 * * *');
sql($node, "SELECT _wh.subscribe('shop', 'more', NULL, '2025-07-11')");
enqueue_and_wait($node, "'more', 'shop', '2025-07-11', '2025-07-11'");
sql($node, "UPDATE _wh.tenant_templates SET queue_seconds = 1 WHERE template_name = 'more'");
$production->stop;
sql($node, "UPDATE _wh.schedules SET next_run = '2025-07-11 20:30:30+00' WHERE name = 'refresh events shop'");
wait_until($node, "SELECT count(*) = 1 FROM _wh.tenant_failures WHERE retry_at IS NOT NULL", 'the tenant is set aside again');
sql($node, "BEGIN; UPDATE _wh.tenant_failures SET retry_at = now() + interval '1 hour', last_failure_at = now(), first_failure_at = now() - interval '3 hours';
	UPDATE _wh.schedules SET next_run = '2025-07-11 20:30:30+00' WHERE name = 'refresh more shop'; COMMIT");
wait_for_job($node, "template_name = 'more' AND kind = 'refresh' AND schedule_id IS NOT NULL", 'queued', 'a job that nobody tries');
sql($node, "UPDATE _wh.jobs SET enqueued_at = enqueued_at - interval '3 hours' WHERE template_name = 'more' AND state = 'queued'");
$production->start;
sql($node, "UPDATE _wh.tenant_failures SET retry_at = now()");
enqueue_and_wait($node, "'events', 'other', '2025-07-11', '2025-07-11', NULL, 'all'");
all_ended('the tenant is back, and all is loaded');
cmp_ok(queue_seconds_of('more'), '<', 100, 'nor is the wait for a tenant that was set aside');
sql($node, "SELECT _wh.unsubscribe('shop', 'more'); DELETE FROM _wh.tenant_templates WHERE template_name = 'more'; UPDATE _wh.schedules SET active = false WHERE name = 'refresh more shop'");

# ---- a day is complete so long after its end ---------------------------

sql($node, "UPDATE _wh.mv_templates SET fresh_within = '2 hours', fresh_after = 'day'");
step_clock($node, '2025-07-11 23:00');
fresh_is(join(', ', "to_char(complete_until AT TIME ZONE 'UTC', 'DD HH24')", at('due_at'), at('next_run'), at('predicted_at'), 'freshness'),
	'11 20 | 12 02:00 | 12 00:30 | 12 00:30 | fresh', 'the day is due two hours after its end, and expected');
sql($node, "UPDATE _wh.schedules SET schedule = '30 3,23 * * *' WHERE name = 'refresh events shop'");
fresh_is(join(', ', at('next_run'), at('predicted_at'), 'freshness'), '11 23:30 | 12 03:30 | at_risk',
	'a load before its end does not count; the first after it is too late');
sql($node, "UPDATE _wh.schedules SET schedule = '30 */4 * * *' WHERE name = 'refresh events shop'");
sql($node, "SELECT _wh.pause_schedule('refresh events shop')");
step_clock($node, '2025-07-12 01:59');
fresh_is('freshness', 'at_risk', 'without its schedule it is at risk');
step_clock($node, '2025-07-12 02:00:10');
fresh_is('freshness', 'stale', 'and stale when it is due');
sql($node, "SELECT _wh.resume_schedule('refresh events shop')");
wait_until($node, "SELECT freshness = 'fresh' FROM _wh.data_freshness WHERE tenant_name = 'shop'", 'a load later it is fresh');
fresh_is(at('due_at'), '13 02:00', 'and the next day is due');
all_ended('all has ended');

# ---- unchanged, inactive, many -----------------------------------------

sql($node, "UPDATE _wh.mv_templates SET fresh_after = 'load', fresh_within = '5 hours', change_probe = \$\$SELECT count(*) FROM events WHERE at::date = '{TARGET_DATE}'\$\$");
loaded_at('2025-07-12 04:30:05', 'with a change_probe it loads');
loaded_at('2025-07-12 08:30:05', 'and sees that nothing has changed');
is(sql($node, "SELECT return_message FROM _wh.job_run_details WHERE status = 'succeeded' ORDER BY runid DESC LIMIT 1"), 'unchanged', 'it did not load');
fresh_is(at('complete_until') . ', freshness', '12 08:30 | fresh', 'that counts as a load');
sql($node, "SELECT _wh.unsubscribe('shop', 'events')");
fresh_is('active, lag, due_at, predicted_at, freshness', 'f', 'of an ended subscription nothing is expected');

sql($node, q{INSERT INTO _wh.tenant_templates (tenant_name, template_name, target_schema, start_date) VALUES ('gone', 'no such', 'gone', '2030-01-01')});
is(sql($node, "SELECT lag || ' ' || coalesce(freshness, 'none') FROM _wh.data_freshness WHERE tenant_name = 'gone'"), '00:00:00 none',
	'one that has yet to begin, of a template that is gone, has a row as well');
sql($node, q{DELETE FROM _wh.tenant_templates WHERE tenant_name = 'gone'; UPDATE _wh.schedules SET next_run = '-infinity'});
is(sql($node, 'SELECT count(*) FROM _wh.data_freshness WHERE predicted_at IS NOT NULL'), 1, 'schedules without a time break nothing');

$gate->quit;
done_testing();
