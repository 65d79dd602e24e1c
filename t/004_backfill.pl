# Backfills: 45 days of three tenants with four workers for backfills, through a killed
# worker and an immediate stop; and all that can be done to a backfill.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my ($first, $last) = ('2025-07-01', '2025-08-14');
my @tenants = ('shop_1', 'shop_2', 'shop_3');
my $production = new_tenant('production');
# Of five workers backfills have four; of three for a tenant they have two.
my $node = new_warehouse(
	conf => {
		'wh_worker.max_attempts' => 3,
		'wh_worker.max_workers' => 5,
		'wh_worker.max_workers_per_tenant' => 3,
	});

# The query passes a gate: a lock that the test holds while it wants the
# loads of the older half of the days to stand still.
my $gated_query = q{SELECT id, at, kind, amount, payload FROM events
	WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1
	AND (date '{TARGET_DATE}' > '2025-07-23' OR pg_advisory_xact_lock_shared(7) IS NOT NULL)};
add_events_template($node, 'events', query => $gated_query);

foreach my $i (1 .. 3)
{
	my $database = "shop_$i";

	$production->safe_psql('postgres', "CREATE DATABASE $database");
	create_events($production, $first, 45, 10 * $i,
		database => $database, seed => $i);
	$production->safe_psql($database, "DELETE FROM events WHERE at::date = '2025-08-05'")
	  if $i == 2;
	add_tenant($node, $database, $production,
		database => $database, templates => ['events'], start_date => $first);
}

sub check_everything
{
	my ($when) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $tenant (@tenants)
	{
		same_content($node, "SELECT * FROM $tenant.events", $production,
			events_query($first, $last), "$when: $tenant equals its source", $tenant);
		same_content($node,
			"SELECT id, at, kind, amount, payload FROM public.events WHERE schema_name = '$tenant'",
			$production, events_query($first, $last),
			"$when: the public view has all of $tenant", $tenant);
	}
	is( sql($node, "SELECT count(*) || ' ' || count(DISTINCT (target_schema, target_date)) || ' ' || string_agg(DISTINCT state, ',') FROM _wh.day_loads WHERE template_name = 'events'"),
		'135 135 published', "$when: every day is in the ledger, once");
	is( sql($node, "SELECT count(*) FROM _wh.day_loads d WHERE template_name = 'events' AND rows <> (SELECT count(*) FROM public.events e WHERE e.schema_name = d.target_schema AND e.at::date = d.target_date)"),
		0, "$when: the ledger's rows are those of the views");
	is( sql($node, "SELECT count(*) FROM pg_class c LEFT JOIN _wh.day_loads d ON d.relation_oid = c.oid WHERE c.relkind = 'm' AND d.relation_oid IS NULL"),
		0, "$when: no materialized view is without a ledger row");
	is(sql($node, "SELECT count(*) FROM _wh.day_loads d WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = d.relation_oid)"),
		0, "$when: no ledger row is without its relation");
	is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%' AND relkind <> 't'"),
		0, "$when: no transient relation is left");
	is( sql($node, "SELECT count(*) FROM (SELECT job_id FROM _wh.job_run_details WHERE status = 'succeeded' AND job_id IS NOT NULL GROUP BY job_id HAVING count(*) > 1) AS twice"),
		0, "$when: no job succeeded twice");
	is( sql($node, "SELECT count(*) FROM _wh.jobs WHERE state IN ('queued', 'running')"),
		0, "$when: the queue is empty");
}

# ---- plan, enqueue, run through crashes --------------------------------

my $everyone = "'events', NULL, '$first', '$last'";
my $state_before = sql($node, 'SELECT (SELECT count(*) FROM _wh.jobs) + (SELECT count(*) FROM _wh.backfills) + (SELECT count(*) FROM _wh.day_loads)');
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill($everyone)"),
	135, 'plan_backfill lists the days it would load');
is( sql($node, 'SELECT (SELECT count(*) FROM _wh.jobs) + (SELECT count(*) FROM _wh.backfills) + (SELECT count(*) FROM _wh.day_loads)'),
	$state_before, 'and changes nothing');

sql($node, "BEGIN; SELECT _wh.enqueue_backfill($everyone); ROLLBACK");
is( sql($node, 'SELECT (SELECT count(*) FROM _wh.jobs) + (SELECT count(*) FROM _wh.backfills)'),
	0, 'ROLLBACK takes the backfill back');

my %gate;
foreach my $tenant (@tenants)
{
	$gate{$tenant} = $production->background_psql($tenant);
	$gate{$tenant}->query_safe('SELECT pg_advisory_lock(7)');
}
my $id = sql($node, "SELECT _wh.enqueue_backfill($everyone)");
is( sql($node, "SELECT count(*) || ' ' || count(DISTINCT (target_schema, target_date)) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"),
	'135 135', 'what was planned is what is enqueued');

# Four workers stand still as soon as two tenants have come to their older half;
# the third may be some days behind.
my $days_done = "SELECT days_done >= 44 AND days_done < 135 FROM _wh.backfill_progress WHERE backfill_id = $id";
my $all_busy = "SELECT count(*) = 4 FROM _wh.worker_status WHERE backend_type LIKE '%worker' AND state IN ('connecting', 'fetching') AND target_date <= '2025-07-23'";
wait_until($node, $days_done, 'the newer days are loaded first');
wait_until($node, $all_busy, 'four workers are busy with the older half');
is( sql($node, "SELECT max(n) FROM (SELECT count(*) AS n FROM _wh.worker_status WHERE job_id IS NOT NULL GROUP BY tenant_name) AS t"),
	2, 'no tenant has more than one less than max_workers_per_tenant of them');
like(sql($node, "SELECT bar || ' ' || percent FROM _wh.backfill_progress WHERE backfill_id = $id"),
	qr/\S+.*\d/, 'backfill_progress shows a bar');

my $offset = log_end($node);
my $pid = worker_pid($node, "state = 'fetching'");
kill 'KILL', $pid;
$node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
pass('kill -9 of a busy worker: the server starts over');
wait_until($node, $all_busy, 'afterwards, four workers are busy again');
is( sql($node, "SELECT count(*) FROM _wh.jobs WHERE state = 'running'"),
	4, 'and only their jobs are running');

$node->stop('immediate');
$node->start;
wait_until($node, $all_busy, 'after an immediate stop, four workers are busy again');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%' AND relkind <> 't'"),
	0, 'no transient relation came out of the crashes');

foreach my $tenant (@tenants)
{
	$gate{$tenant}->query_safe('SELECT pg_advisory_unlock(7)');
	$gate{$tenant}->quit;
}
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"),
	'succeeded', 'the backfill ends by itself');
check_everything('after the crashes');
is( sql($node, "SELECT state || ' ' || days_total || ' ' || days_done || ' ' || days_failed || ' ' || days_running || ' ' || rows FROM _wh.backfill_progress WHERE backfill_id = $id"),
	'succeeded 135 135 0 0 ' . (45 * 60 - 20), 'backfill_progress agrees');

# ---- modes -------------------------------------------------------------

is(sql($node, "SELECT count(*) FROM _wh.plan_backfill($everyone)"),
	0, 'mode missing: nothing is left to load');
my (undef, $state) = enqueue_and_wait($node, $everyone);
is($state, 'succeeded', 'a backfill without days has succeeded');
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill($everyone, NULL, 'outdated')"),
	0, 'mode outdated: nothing while the template is as it was');
sql($node, "UPDATE _wh.mv_templates SET indexes = indexes || '; CREATE INDEX ix_{schema}_{view_name}_at ON {schema}.{view_name} (at)'");
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill($everyone, NULL, 'outdated')"),
	135, 'mode outdated: everything when the template changed');

# A run without trouble, over days that are there already.
(undef, $state) = enqueue_and_wait($node, "$everyone, NULL, 'all'");
is($state, 'succeeded', 'mode all loads 45 days of three tenants');
check_everything('after mode all');
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill($everyone, NULL, 'outdated')"),
	0, 'and nothing is outdated any more');

# ---- a date twice in the queue -----------------------------------------

sql($node, 'SELECT _wh.pause()');
my $one = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-01', '2025-07-06', NULL, 'all')");
my $two = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-04', '2025-07-09', NULL, 'all')");
is( sql($node, "SELECT count(*) || ' ' || count(DISTINCT target_date) FROM _wh.jobs WHERE kind = 'refresh' AND state = 'queued'"),
	'9 9', 'a date twice in the queue is one job');
is(sql($node, "SELECT _wh.wait_for_backfill($one, '300 ms')"),
	'timeout', 'nothing starts while the warehouse is paused');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE state = 'running'"),
	0, 'no job is running');
fails_with($node, "SELECT _wh.update_mv_by_template('events', 'shop_1', '2025-07-01')",
	'55000', qr/paused/, 'a function that reaches a tenant says so');
sql($node, 'SELECT _wh.resume()');
is( sql($node, "SELECT _wh.wait_for_backfill($two, '30 s') || ' ' || _wh.wait_for_backfill($one, '0 s')"),
	'succeeded succeeded', 'after resume both end, the later one not before the other');

# ---- cancel ------------------------------------------------------------

sql($node, "SELECT _wh.pause_tenant('shop_1')");
$one = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-01', '2025-07-05', NULL, 'all')");
(undef, $state) = enqueue_and_wait($node, "'events', 'shop_2', '2025-07-01', '2025-07-02', NULL, 'all'");
is($state, 'succeeded', 'a paused tenant does not hold up another');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE backfill_id = $one AND kind = 'refresh' AND state = 'queued'"),
	5, 'and its own jobs wait');
my $job = sql($node, "SELECT min(job_id) FROM _wh.jobs WHERE backfill_id = $one");
is(sql($node, "SELECT _wh.cancel_job($job)"), 1, 'cancel_job touches one job');
is(sql($node, "SELECT state FROM _wh.jobs WHERE job_id = $job"),
	'cancelled', 'which is cancelled');
is(sql($node, "SELECT _wh.cancel_job($job)"), 0, 'once');
is(sql($node, "SELECT _wh.cancel_backfill($one)"),
	4, 'cancel_backfill touches the others');
is(sql($node, "SELECT _wh.wait_for_backfill($one, '10 s')"),
	'cancelled', 'and the backfill is cancelled');
sql($node, "SELECT _wh.resume_tenant('shop_1')");

# ---- pause and resume one backfill -------------------------------------

sql($node, 'SELECT _wh.pause()');
$one = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-01', '2025-07-03', NULL, 'all')");
sql($node, "SELECT _wh.pause_backfill($one)");
sql($node, 'SELECT _wh.resume()');
(undef, $state) = enqueue_and_wait($node, "'events', 'shop_1', '2025-07-10', '2025-07-11', NULL, 'all'");
is($state, 'succeeded', 'a paused backfill does not hold up another of its tenant');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE backfill_id = $one AND state = 'queued' AND kind = 'refresh'"),
	3, 'and its jobs wait');
sql($node, "SELECT _wh.resume_backfill($one)");
is(sql($node, "SELECT _wh.wait_for_backfill($one, '30 s')"),
	'succeeded', 'until it is resumed');

# ---- failed jobs -------------------------------------------------------

add_events_template($node, 'divided',
	query => q{SELECT e.id / d.n AS id FROM events e, divisor d WHERE e.at::date = '{TARGET_DATE}'},
	columns => 'id integer',
	indexes => '');
foreach my $tenant (@tenants)
{
	my $divisor = $tenant eq 'shop_2' ? 0 : 1;

	$production->safe_psql($tenant,
		"CREATE TABLE divisor AS SELECT $divisor AS n; GRANT SELECT ON divisor TO wh_reader");
	sql($node, "SELECT _wh.subscribe('$tenant', 'divided', NULL, '$first')");
}
($id, $state) = enqueue_and_wait($node, "'divided', NULL, '2025-07-01', '2025-07-02'");
is($state, 'failed', 'a backfill with a day that fails has failed');
is( sql($node, "SELECT string_agg(DISTINCT tenant_name || ' ' || state || ' ' || coalesce(last_sqlstate, ''), ', ') FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"),
	'shop_1 succeeded , shop_2 failed 22012, shop_3 succeeded ',
	'only the tenant whose query fails; the others went on');
is( sql($node, "SELECT string_agg(DISTINCT schema_name, ' ' ORDER BY schema_name) FROM public.divided"),
	'shop_1 shop_3', 'what was loaded is published');
is( sql($node, "SELECT string_agg(DISTINCT state || ' ' || (relation_oid IS NULL), ',') FROM _wh.day_loads WHERE template_name = 'divided' AND tenant_name = 'shop_2'"),
	'failed true', 'the ledger says which days failed');
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill('divided', NULL, '$first', '2025-07-02', NULL, 'failed')"),
	2, 'mode failed plans them');
is(sql($node, "SELECT days_failed FROM _wh.backfill_progress WHERE backfill_id = $id"),
	2, 'and so does backfill_progress');
$production->safe_psql('shop_2', 'UPDATE divisor SET n = 1');
is(sql($node, "SELECT _wh.retry_failed($id)"),
	2, 'retry_failed touches them');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '30 s')"),
	'succeeded', 'and the backfill succeeds');
is(sql($node, "SELECT count(*) FROM shop_2.divided"),
	40, 'with all their rows');

# ---- wrong use ---------------------------------------------------------

fails_with($node, "BEGIN; SELECT _wh.wait_for_backfill(_wh.enqueue_backfill('events', 'shop_1', '2025-07-01', '2025-07-01', NULL, 'all'), '1 s')",
	'55000', qr/transaction/, 'waiting in the transaction that enqueued');
fails_with($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-02', '2025-07-01')",
	'22023', qr/./, 'an inverted window');
fails_with($node, "SELECT _wh.enqueue_backfill('nonesuch', 'shop_1', '2025-07-01', '2025-07-01')",
	'42704', qr/nonesuch/, 'an unknown template');
fails_with($node, "SELECT _wh.enqueue_backfill('events', 'nobody', '2025-07-01', '2025-07-01')",
	'42704', qr/nobody/, 'an unknown tenant');
fails_with($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-01', '2025-07-01', NULL, 'some')",
	'22023', qr/missing.*failed.*outdated.*all/s, 'an unknown mode is told the known ones');
fails_with($node, "SELECT _wh.wait_for_backfill(999999, '1 s')",
	'42704', qr/999999/, 'an unknown backfill');
fails_with($node, "SELECT _wh.subscribe('shop_2', 'events', 'shop_1')",
	'(23505|42710|22023)', qr/shop_1/, 'two tenants at one schema and template');
fails_with($node, "SELECT _wh.update_mv_by_template('events', 'shop_2', 'shop_1', '2025-07-01')",
	'(23505|42710|22023)', qr/shop_1/, 'nor by a call that runs at once');
is(sql($node, 'SELECT count(*) FROM _wh.jobs WHERE state IN (\'queued\', \'running\')'),
	0, 'wrong use enqueued nothing');

done_testing();
