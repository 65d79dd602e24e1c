# What must not happen to a queue when people and processes interfere: each
# test here failed on a version that had the fault.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse(conf => { 'wh_worker.max_attempts' => 2 });

create_events($production, '2025-07-01', 5, 10);
add_events_template($node, 'events');
add_tenant($node, 'shop', $production,
	templates => ['events'], start_date => '2025-07-01');

sub backfill_state
{
	my ($id) = @_;

	return sql($node, "SELECT _wh.wait_for_backfill($id, '60s')");
}

# ---- a day that goes away before it is published ------------------------

my $id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-05')");
is(backfill_state($id), 'succeeded', 'a backfill to begin with');
sql($node, "SELECT _wh.pause_tenant('shop')");
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-05', mode => 'all')");
sql($node, "BEGIN; DROP VIEW public.events, shop.events; DROP MATERIALIZED VIEW shop.events_2025_07_02;
	UPDATE _wh.day_loads d SET state = 'loaded', job_id = j.job_id FROM _wh.jobs j
	WHERE j.backfill_id = $id AND j.target_date = d.target_date AND d.target_date = '2025-07-02'; COMMIT");
is(sql($node, "SELECT _wh.cancel_backfill($id)"), 5, 'cancel_backfill takes all that is queued');
is(backfill_state($id), 'cancelled',
	'a loaded day whose relation was dropped does not keep a backfill from ending');
cmp_ok(sql($node, "SELECT count(*) FROM _wh.jobs WHERE kind = 'publish' AND backfill_id = $id"),
	'<=', 1, 'nor makes publish jobs for ever');
sql($node, "SELECT _wh.resume_tenant('shop')");
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-05')");
is(backfill_state($id), 'succeeded', 'what was dropped is made again');
same_content($node, 'SELECT * FROM shop.events', $production,
	events_query('2025-07-01', '2025-07-05'), 'with its content');

# ---- cancelled while its publish job waits -----------------------------

sql($node, 'SELECT _wh.pause()');
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-05', mode => 'all')");
sql($node, "INSERT INTO _wh.jobs (kind, template_name, backfill_id, priority) VALUES ('publish', 'events', $id, 20)");
is(sql($node, "SELECT _wh.cancel_backfill($id)"), 5, 'cancel_backfill leaves the publish job');
sql($node, 'SELECT _wh.resume()');
is(backfill_state($id), 'cancelled', 'and the backfill ends when it is resumed');
is(sql($node, "SELECT state FROM _wh.jobs WHERE backfill_id = $id AND kind = 'publish'"),
	'succeeded', 'after its publish job');

# ---- one backfill's row in somebody's hands ----------------------------

sql($node, 'SELECT _wh.pause()');
my $first = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-01', mode => 'all')");
my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT _wh.pause_backfill($first)");
my $second = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-02', '2025-07-02', mode => 'all')");
sql($node, 'SELECT _wh.resume()');
is(backfill_state($second), 'succeeded',
	'an open transaction on one backfill does not hold up the next');
$holder->query_safe('ROLLBACK');
$holder->quit;
is(backfill_state($first), 'succeeded', 'and that one ends when it is let go');

# ---- shared days, a cancelled sharer, and other isolation levels -------

sql($node, "SELECT _wh.pause_tenant('shop')");
$first = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-03', mode => 'all')");
$second = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-03', mode => 'all')");
is(sql($node, "SELECT waits_for FROM _wh.backfills WHERE backfill_id = $second"),
	"{$first}", 'a backfill knows whose jobs it waits for');
sql($node, "SELECT _wh.cancel_backfill($second)");
is(backfill_state($second), 'cancelled', 'cancelled, it does not wait for them');
my $waiter = $node->background_psql('postgres');
$waiter->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql($node, "SELECT _wh.resume_tenant('shop')");
is($waiter->query_safe("SELECT _wh.wait_for_backfill($first, '60s')"),
	'succeeded', 'wait_for_backfill sees the end in REPEATABLE READ');
$waiter->quit;

# ---- the launcher's and the supervisor's end ---------------------------

sub pid_of
{
	my ($type) = @_;

	return sql($node, "SELECT pid FROM _wh.worker_status WHERE backend_type = 'wh_worker $type' AND pid IS NOT NULL");
}
my $supervisor = pid_of('supervisor');
sql($node, "SELECT pg_terminate_backend($supervisor)");
wait_until($node, "SELECT pid <> $supervisor FROM _wh.worker_status WHERE backend_type = 'wh_worker supervisor' AND pid IS NOT NULL",
	'the supervisor is started again');
my $launcher = pid_of('launcher');
sql($node, "SELECT pg_terminate_backend($launcher)");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND pid <> $launcher",
	'and starts a launcher that it did not start the last time');
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-01', '2025-07-05', mode => 'all')");
is(backfill_state($id), 'succeeded', 'which works');

# ---- old history goes ---------------------------------------------------

sql($node, "UPDATE _wh.jobs SET finished_at = now() - interval '31 days';
	UPDATE _wh.job_run_details SET end_time = now() - interval '31 days';
	UPDATE _wh.backfills SET finished_at = now() - interval '31 days' WHERE backfill_id <> $id");
sql($node, 'SELECT pg_terminate_backend(' . pid_of('launcher') . ')');
wait_until($node, 'SELECT (SELECT count(*) FROM _wh.jobs) + (SELECT count(*) FROM _wh.job_run_details) = 0',
	'jobs and history older than history_days are deleted');
is(sql($node, 'SELECT string_agg(backfill_id::text, $$,$$) FROM _wh.backfills'),
	$id, 'and so are backfills, but not younger ones');

done_testing();
