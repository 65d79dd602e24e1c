# What an open transaction, a stepped clock or a vanished zone must not do to the
# launcher, to workers and to schedules.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $day = '2025-08-01';
my $tenant = new_tenant('production');
my $node = new_warehouse(
	conf => {
		'wh_worker.retry_delay' => "'100ms'",
		'wh_worker.retry_delay_max' => "'1s'",
		'wh_worker.worker_idle_timeout' => "'60s'",
		'wh_worker.max_workers' => 2
	});
create_events($tenant, $day, 20, 10);
$tenant->safe_psql('postgres', 'CREATE DATABASE slow');
create_events($tenant, $day, 20, 10, database => 'slow');
add_events_template($node, 'events');
add_tenant($node, 'a', $tenant, templates => ['events'], start_date => $day);
add_tenant($node, 'b', $tenant, templates => ['events'], start_date => $day);
add_tenant($node, 'slow', $tenant, database => 'slow', templates => ['events'], start_date => $day);
add_tenant($node, 'dead', $tenant, port => PostgreSQL::Test::Cluster::get_free_port(), templates => ['events'], start_date => $day);

# 1. Jobs whose rows an open transaction has locked (it took them over, or
# cancelled them) hang all workers in the claim.
sql($node, "SELECT _wh.pause()");
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, schedule_id, reason, priority)
	SELECT 'refresh', 'events', 'a', 'a', date '$day' + i, 1, 'missing', 25 FROM generate_series(0, 3) i");
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, schedule_id, reason, priority)
	SELECT 'refresh', 'events', 'b', 'b', date '$day' + i, 2, 'missing', 30 FROM generate_series(0, 3) i");
my $s = $node->background_psql('postgres');
$s->query_safe("BEGIN");
$s->query_safe("SELECT _wh.enqueue_backfill('events', 'a', '$day', '2025-08-04')");
sql($node, "SELECT _wh.resume()");
happens_within($node, 10, "SELECT count(*) = 4 FROM _wh.jobs WHERE tenant_name = 'b' AND kind = 'refresh' AND state = 'succeeded'",
	'1: others are loaded while somebody has jobs locked');
$s->query_safe("COMMIT");
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", 'all end');

# 2. A job that lost its worker, locked by somebody: the launcher stops.
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority, state, attempt)
	VALUES ('refresh', 'events', 'a', 'a', date '$day' + 10, 40, 'running', 1)");
$s->query_safe("BEGIN");
$s->query_safe("SELECT job_id FROM _wh.jobs WHERE state = 'running' FOR UPDATE");
sql($node, "SELECT _wh.resume()");
sql($node, "SELECT _wh.enqueue_backfill('events', 'b', '2025-08-06', '2025-08-07')");
happens_within($node, 10, "SELECT count(*) = 6 FROM _wh.jobs WHERE tenant_name = 'b' AND kind = 'refresh' AND state = 'succeeded'",
	'2: the launcher goes on beside a lost job that is locked');
$s->query_safe("COMMIT");
sql($node, "SELECT _wh.resume()");
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", 'all end');

# 3. The clock is set back while a tenant is set aside: it stays so for hours.
sql($node, "INSERT INTO _wh.tenant_failures (tenant_name, consecutive_failures, last_failure_at, retry_at)
	VALUES ('dead', 5, now() + interval '10 hours', now() + interval '10 hours 5 minutes')");
sql($node, "SELECT _wh.enqueue_backfill('events', 'dead', '$day', '$day')");
wait_until($node, "SELECT last_failure_at < now() FROM _wh.tenant_failures WHERE tenant_name = 'dead'", '3: it was probed');
is(sql($node, "SELECT retry_at < now() + interval '1 minute' FROM _wh.tenant_failures WHERE tenant_name = 'dead'"), 't',
	'3: the tenant is asked again soon');
sql($node, "SELECT _wh.remove_tenant('dead')");

# 4. A long load of a tenant of which another connection failed keeps others from being probed.
my $t = $tenant->background_psql('slow');
$t->query_safe("BEGIN");
$t->query_safe("LOCK TABLE events");
sql($node, "INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, schedule_id, reason, priority)
	VALUES ('refresh', 'events', 'slow', 'slow', '$day', 1, 'missing', 25)");
sql($node, "SELECT _wh.resume()");
wait_until($node, "SELECT state = 'running' FROM _wh.jobs WHERE tenant_name = 'slow'", '4: it runs');
sql($node, "INSERT INTO _wh.tenant_failures (tenant_name, consecutive_failures, last_failure_at, retry_at)
	VALUES ('slow', 1, now(), NULL), ('b', 3, now() - interval '1 hour', now() - interval '1 minute')");
sql($node, "SELECT _wh.resume()");
sql($node, "SELECT _wh.enqueue_backfill('events', 'b', '2025-08-05', '2025-08-05')");
happens_within($node, 10, "SELECT state = 'succeeded' FROM _wh.jobs WHERE tenant_name = 'b' AND target_date = '2025-08-05'",
	'4: another tenant is probed meanwhile');

# 5. A backfill of a day that a schedule's job loads just now, of which the
# launcher learns only when it reads again.
my $id = sql($node, "SELECT _wh.enqueue_backfill('events', 'slow', '$day', '$day')");
$t->query_safe("ROLLBACK");
is(sql($node, "SELECT _wh.wait_for_backfill($id, '12 s')"), 'succeeded', '5: it ends when the job does');
sql($node, "DELETE FROM _wh.tenant_failures");
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", 'all end');

# 6. The clock is set back while the row of a schedule is locked.
sub set_clock
{
	my ($h) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET wh_worker.debug_clock_offset = '${h}h';\nSELECT pg_reload_conf();");
	$node->poll_query_until('postgres', "SELECT current_setting('wh_worker.debug_clock_offset')::interval = '$h hours'")
	  or die 'the clock was not set';
	return;
}
set_clock(240);
sql($node, "INSERT INTO _wh.schedules (name, schedule, kind, template_name) VALUES ('locked', '\@hourly', 'publish', 'events'), ('free', '\@hourly', 'publish', 'events')");
sql($node, "UPDATE _wh.schedules SET next_run = now() + interval '240 hours' - interval '1 s' WHERE name = 'free'");
wait_until($node, "SELECT last_run > now() + interval '200 hours' FROM _wh.schedules WHERE name = 'free'", '6: the launcher sees the clock');
$s->query_safe("BEGIN");
$s->query_safe("SELECT schedule_id FROM _wh.schedules WHERE name = 'locked' FOR UPDATE");
set_clock(0);
wait_until($node, "SELECT next_run < now() + interval '2 hours' FROM _wh.schedules WHERE name = 'free'", '6: the others are planned anew');
$s->query_safe("COMMIT");
sql($node, "SELECT _wh.resume()");
happens_within($node, 10, "SELECT next_run < now() + interval '2 hours' FROM _wh.schedules WHERE name = 'locked'",
	'6: and the one that was locked');

# 7. A zone that was not there for a while (tzdata): the schedule stays at infinity.
sql($node, "ALTER TABLE _wh.schedules DISABLE TRIGGER check_schedule;
	UPDATE _wh.schedules SET timezone = 'Nowhere/Gone', next_run = now() WHERE name = 'free';
	ALTER TABLE _wh.schedules ENABLE TRIGGER check_schedule; SELECT _wh.resume()");
wait_until($node, "SELECT next_run = 'infinity' FROM _wh.schedules WHERE name = 'free'", '7: it cannot be planned');
sql($node, "ALTER TABLE _wh.schedules DISABLE TRIGGER check_schedule;
	UPDATE _wh.schedules SET timezone = 'Europe/Berlin' WHERE name = 'free';
	ALTER TABLE _wh.schedules ENABLE TRIGGER check_schedule");
sql($node, "SELECT _wh.pause_schedule('free')");
sql($node, "SELECT _wh.resume_schedule('free')");
happens_within($node, 10, "SELECT next_run < 'infinity' FROM _wh.schedules WHERE name = 'free'",
	'7: it is planned again when the zone is back');

# 8. Many schedules that come due and meet an open transaction's job: the launcher
# waits 100 ms for each, and hands out nothing meanwhile.
$s->query_safe("BEGIN");
$s->query_safe("SELECT _wh.enqueue_backfill('events', 'a', (now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date)");
my $offset = log_end($node);
sql($node, "UPDATE _wh.tenant_templates SET start_date = (now() AT TIME ZONE 'UTC')::date WHERE tenant_name = 'a'");
sql($node, "INSERT INTO _wh.schedules (name, schedule, kind, template_name, tenant_name, target_schema)
	SELECT 'many ' || i, '1 second', 'refresh', 'events', 'a', 'a' FROM generate_series(1, 60) i");
$node->wait_for_log(qr/could not be decided on/, $offset);
sql($node, "SELECT _wh.enqueue_backfill('events', 'b', date '2025-08-08' + i, date '2025-08-08' + i) FROM generate_series(0, 4) i");
happens_within($node, 20, "SELECT count(*) = 5 FROM _wh.jobs WHERE tenant_name = 'b' AND target_date BETWEEN '2025-08-08' AND '2025-08-12' AND kind = 'refresh' AND state = 'succeeded'",
	'8: other jobs start meanwhile');
$s->query_safe("ROLLBACK");

sql($node, "DELETE FROM _wh.schedules WHERE name LIKE 'many %'");
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", 'all end');

# 9. A single day that a paused backfill has queued.
sql($node, 'SELECT _wh.pause()');
my $history = sql($node, "SELECT _wh.enqueue_backfill('events', 'b', '2025-08-13', '2025-08-16')");
sql($node, "SELECT _wh.pause_backfill($history)");
sql($node, 'SELECT _wh.resume()');
my $single = sql($node, "SELECT _wh.enqueue_backfill('events', 'b', '2025-08-14', '2025-08-14')");
is(sql($node, "SELECT _wh.wait_for_backfill($single, '30 s')"), 'succeeded', '9: a single day that a paused backfill has queued');
is(sql($node, "SELECT days_total FROM _wh.backfills WHERE backfill_id = $history"), 3, '9: has left it');
sql($node, "SELECT _wh.resume_backfill($history)");
is(sql($node, "SELECT _wh.wait_for_backfill($history, '30 s')"), 'succeeded', '9: which loads the others');

$s->quit;
$t->quit;
done_testing();
