# The metrics: each is compared with what it counts, counters grow with what was
# committed only, a query for one runs that one, and only monitoring may read them.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(conf => { 'wh_worker.max_workers' => 3, 'wh_worker.swap_lock_timeout' => "'50ms'" });
my $odd = q{odd "name" {x} <b> \\n};

create_events($source, '2025-01-01', 20, 30);
add_events_template($node, 'events');
add_tenant($node, 'shop', $source, templates => ['events'], start_date => '2025-01-01');
add_tenant($node, $odd, $source);

# One value, or the sum of several; '' if there is none.
sub metric
{
	my ($name, %labels) = @_;
	my $object = join ', ', map { my $value = $labels{$_} =~ s/'/''/gr; "'$_', '$value'" } sort keys %labels;

	return sql($node, "SELECT sum(value) FROM _wh.metrics WHERE name = '$name' AND labels \@> jsonb_build_object($object)");
}

sub moves
{
	my ($name, $labels, $by, $action, $what) = @_;
	my $before = metric($name, %$labels);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$action->();
	return is((metric($name, %$labels) || 0) - ($before || 0), $by, $what);
}

# ---- the view as such --------------------------------------------------

is(sql($node, q{SELECT string_agg(DISTINCT name, ', ') FROM _wh.metrics WHERE name !~ '^wh_[a-z_]+$' OR type NOT IN ('counter', 'gauge', 'histogram')
	OR help = '' OR labels IS NULL OR jsonb_typeof(labels) <> 'object' OR value IS NULL OR (type = 'counter') <> (name LIKE '%\_total')}), '', 'names, types and values are well formed');
my $no_series_twice = q{SELECT count(*) FROM (SELECT name, labels FROM _wh.metrics GROUP BY 1, 2 HAVING count(*) > 1) d};
is(sql($node, $no_series_twice), '0', 'no series twice');
is(sql($node, q{SELECT string_agg(DISTINCT l.value #>> '{}', ', ') FROM _wh.metrics m, jsonb_each(m.labels) l WHERE jsonb_typeof(l.value) <> 'string'}), '', 'labels are texts');

# A query for one metric runs no branch but its own.
my @plan = split /\n/, sql($node, q{EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM _wh.metrics WHERE name = 'wh_info'});
is_deeply([ map { /-> +(\S+ Scan (?:on|using) \S+)/ } grep { /Scan/ && !/never executed/ && !/SELECT\* / } grep { !/Subquery Scan/ } @plan ], ['Seq Scan on pg_extension'], 'asked for one metric it reads that one');

# ---- loads -------------------------------------------------------------

my %of_events = (template => 'events');
is(metric('wh_loads_total', %of_events, source => 'job', result => 'failed'), '0', 'a template that has done nothing has zeros');
is((enqueue_and_wait($node, q{'events', 'shop', '2025-01-01', '2025-01-05'}))[1], 'succeeded', 'five days');
is(metric('wh_loads_total', %of_events, source => 'job', result => 'succeeded'), '5', 'five loads are counted');
is(metric('wh_jobs_total', %of_events, kind => 'refresh', result => 'succeeded'), '5', 'as jobs as well');
is(metric('wh_jobs_total', %of_events, kind => 'publish', result => 'succeeded'), sql($node, q{SELECT count(*) FROM _wh.jobs WHERE kind = 'publish' AND state = 'succeeded'}), 'and so are publications');
is(metric('wh_received_rows_total', %of_events), sql($node, 'SELECT sum(rows) FROM _wh.job_run_details WHERE rows > 0'), 'with their rows');
is(metric('wh_received_bytes_total', %of_events), sql($node, 'SELECT sum(bytes) FROM _wh.job_run_details WHERE bytes > 0'), 'and bytes');
is(metric('wh_load_duration_seconds_count', %of_events), '5', 'each with its duration');
is(metric('wh_load_duration_seconds_bucket', %of_events, le => '+Inf'), '5', 'in the bucket of all');
is(sql($node, q{SELECT count(*) FROM (SELECT value, lag(value) OVER (ORDER BY (labels ->> 'le')::float8) AS before
	FROM _wh.metrics WHERE name = 'wh_load_duration_seconds_bucket') b WHERE value < before}), '0', 'buckets include the smaller ones');
my $longest = sql($node, q{SELECT max(extract(epoch FROM finished_at - started_at)) FROM _wh.jobs WHERE kind = 'refresh'});
cmp_ok(metric('wh_load_duration_seconds_sum', %of_events), '>=', $longest, 'the sum of durations is of seconds');
cmp_ok(metric('wh_load_duration_seconds_sum', %of_events), '<', 5 * $longest + 5, 'and of no other unit');
foreach my $phase ('connecting', 'fetching', 'indexing')
{
	cmp_ok(metric('wh_phase_duration_seconds_count', phase => $phase), '>', 0, "loads were in phase $phase");
}
cmp_ok(sql($node, q{SELECT sum(value) FROM _wh.metrics WHERE name = 'wh_phase_duration_seconds_sum'}), '<=', metric('wh_load_duration_seconds_sum', %of_events) + 0.001, 'phases are parts of the durations');

# ---- calls, and what is rolled back ------------------------------------

my %call = (%of_events, source => 'call', result => 'succeeded');
my $update = q{_wh.update_mv_by_template('events', 'shop', 'shop', '2025-01-06', false)};
moves('wh_loads_total', \%call, 1, sub { sql($node, "SELECT $update") }, 'a call is counted');
moves('wh_received_rows_total', \%of_events, 30, sub { sql($node, "SELECT $update") }, 'with its rows');
moves('wh_loads_total', \%call, 0, sub { sql($node, "BEGIN; SELECT $update; ROLLBACK") }, 'what is rolled back is not');
moves('wh_loads_total', \%call, 1, sub { sql($node, "BEGIN; SELECT $update; SAVEPOINT a; SELECT $update; ROLLBACK TO a; COMMIT") }, 'nor what a savepoint takes back');
moves('wh_loads_total', \%call, 2, sub { sql($node, "BEGIN; SELECT $update; SAVEPOINT a; SELECT $update; RELEASE a; COMMIT") }, 'but what it keeps is');
moves('wh_loads_total', { %call, result => 'failed' }, 1, sub {
		sql($source, 'ALTER TABLE events RENAME TO moved');
		sql($node, "SET client_min_messages = error; SELECT $update");
	}, 'a call that failed is counted as that');
my ($id) = enqueue_and_wait($node, q{'events', 'shop', '2025-01-07', '2025-01-08'});
is(metric('wh_loads_total', %of_events, source => 'job', result => 'failed'), '2', 'and so are jobs');
# The day of the call as well: it has content, but its last attempt failed.
is(metric('wh_failed_days', %of_events), sql($node, 'SELECT count(*) FROM _wh.day_loads WHERE failed_at IS NOT NULL'), 'days that failed');
is(metric('wh_failed_days', %of_events), '3', 'are three');
is(metric('wh_failed_jobs', %of_events, kind => 'refresh'), '2', 'failed jobs of the last hour');
# What the functions read, a plan of the view does not say.
my $unusual = sql($node, q{SELECT count(*) FROM _wh.day_loads WHERE failed_at IS NOT NULL OR state = 'suspect'});
cmp_ok(sql($node, 'SELECT count(*) FROM _wh.day_loads'), '>', $unusual, 'the ledger has more than the days that are unusual');
is(sql($node, q{SET enable_seqscan = off; BEGIN; CREATE TEMP TABLE m AS SELECT * FROM _wh.metrics;
	SELECT string_agg(relname || ' ' || seq_scan || ' ' || coalesce(idx_tup_fetch, 0), ', ' ORDER BY relname)
	FROM pg_stat_xact_user_tables WHERE schemaname = '_wh' AND relname IN ('day_loads', 'job_run_details'); COMMIT}),
	"day_loads 0 $unusual, job_run_details 0 0", 'of the ledger only these are read, and nothing of the history');
is(sql($node, q{SET enable_seqscan = off; BEGIN; CREATE TEMP TABLE m AS SELECT * FROM _wh.metrics;
	SELECT seq_scan FROM pg_stat_xact_user_tables WHERE schemaname = '_wh' AND relname = 'jobs'; COMMIT}), '0', 'nor are jobs that have ended');
sql($node, q{UPDATE _wh.jobs SET finished_at = now() - interval '2 hours' WHERE state = 'failed'});
is(metric('wh_failed_jobs', %of_events), '', 'and of no hour before');
sql($source, 'ALTER TABLE moved RENAME TO events');
sql($node, "SELECT _wh.retry_failed($id); SELECT $update");
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'they are loaded');
is(metric('wh_failed_days', %of_events), '0', 'and failed no longer');

# ---- locks -------------------------------------------------------------

my $reader = $node->background_psql('postgres');
$reader->query_safe('BEGIN; SELECT count(*) FROM shop.events');
my $repeated = metric('wh_lock_tries_total', result => 'repeated');
my $kept = metric('wh_readers_kept_seconds_count');
my $busy = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-01-01', '2025-01-01', mode => 'all')});
wait_until($node, "SELECT value > $repeated + 1 FROM _wh.metrics WHERE name = 'wh_lock_tries_total' AND labels ->> 'result' = 'repeated'", 'tries for a lock that a reader keeps are counted');
is(metric('wh_worker_slots', state => 'busy'), '1', 'one worker is busy with it');
is(metric('wh_queue_jobs', state => 'running', class => 'interactive'), '1', 'its job runs');
is(sql($node, q{SELECT sum(value) FROM _wh.metrics WHERE name = 'wh_worker_slots'}), '3', 'slots are all that there are');
my $granted = metric('wh_lock_tries_total', result => 'granted');
$reader->query_safe('COMMIT');
$reader->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($busy, '50 s')"), 'succeeded', 'it gets its lock');
cmp_ok(metric('wh_lock_tries_total', result => 'granted'), '>', $granted, 'which is counted');
cmp_ok(metric('wh_lock_wait_seconds_total'), '>=', 0.2, 'with the time from the first try on');
cmp_ok(metric('wh_readers_kept_seconds_count'), '>=', $kept + 3, 'each try may have kept a reader');
cmp_ok(metric('wh_readers_kept_seconds_sum'), '<', metric('wh_lock_wait_seconds_total') + 5, 'for less long than it was tried');

# ---- what is shown of now ----------------------------------------------

is(metric('wh_launcher_up'), '1', 'the launcher is there');
is(metric('wh_launcher_failing'), '0', 'and well');
is(metric('wh_published_days', %of_events), '8', 'days');
is(metric('wh_published_rows', %of_events), '240', 'rows');
is(metric('wh_union_locks', %of_events, view => 'tenant'), sql($node, q{SELECT locks_per_query FROM _wh.union_health WHERE target_schema = 'shop'}), 'locks of the tenant view, as union_health says');
is(metric('wh_union_locks', %of_events, view => 'public'), sql($node, q{SELECT locks_per_query FROM _wh.union_health WHERE target_schema = 'public'}), 'and of the public view');
is(metric('wh_lock_budget'), sql($node, 'SELECT _wh.lock_budget()'), 'the budget');
is(sql($node, q{SELECT count(*) FROM _wh.metrics m JOIN _wh.data_freshness f ON f.template_name = m.labels ->> 'template' AND f.tenant_name = m.labels ->> 'tenant'
	AND f.target_schema = m.labels ->> 'schema' WHERE m.name = 'wh_data_lag_seconds' AND abs(m.value - extract(epoch FROM f.lag)) < 60}), '1', 'the lag, as data_freshness says');
is(metric('wh_missing_days', %of_events), sql($node, 'SELECT sum(missing_days) FROM _wh.data_freshness'), 'missing days');
is(metric('wh_subscriptions', state => 'no_promise'), '1', 'a subscription without a promise');
is(metric('wh_tenant_set_aside', tenant => $odd), '0', 'names are what they are');
is(metric('wh_tenants', state => 'closed'), '2', 'tenants that can be reached');

# What waits for something else than a worker is not startable.
sub startable
{
	return metric('wh_queue_startable_jobs');
}
sql($node, q{SELECT _wh.pause_tenant('shop')});
my $waiting = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-01-09', '2025-01-12')});
is(metric('wh_queue_jobs', state => 'queued', class => 'backfill'), '4', 'jobs are queued');
is(startable(), '0', 'and not startable while their tenant is paused');
is(metric('wh_tenants', state => 'paused'), '1', 'which is shown');
sql($node, q{SELECT _wh.pause(); SELECT _wh.resume_tenant('shop')});
is(startable(), '0', 'nor while the warehouse is');
is(metric('wh_paused'), '1', 'which is shown too');
sql($node, "SELECT _wh.pause_backfill($waiting); SELECT _wh.resume()");
is(startable(), '0', 'nor while the backfill is');
is(metric('wh_backfills', state => 'paused'), '1', 'as one that is paused');
my $launcher = sql($node, q{SELECT pid FROM _wh.worker_status WHERE backend_type LIKE '%launcher'});
kill 'STOP', $launcher;
sql($node, "SELECT _wh.resume_backfill($waiting)");
is(startable(), '4', 'then they are');
wait_until($node, q{SELECT min(value) > 0.2 FROM _wh.metrics WHERE name = 'wh_standstill_seconds' OR name = 'wh_queue_oldest_startable_seconds' AND labels ->> 'class' = 'backfill'}, 'and a standstill can be seen');
kill 'CONT', $launcher;
is(sql($node, "SELECT _wh.wait_for_backfill($waiting, '50 s')"), 'succeeded', 'until it is over');
is(metric('wh_queue_oldest_startable_seconds'), '0', 'nothing waits any more');

# ---- who may read them -------------------------------------------------

sql($node, 'CREATE ROLE monitoring LOGIN IN ROLE pg_monitor; CREATE ROLE stranger LOGIN');
my ($status, $out, $err) = $node->psql('postgres', 'SELECT count(*) > 100 FROM _wh.metrics', extra_params => [ '-U', 'monitoring' ]);
is($out, 't', "a member of pg_monitor reads all of them ($err)");
is(sql($node, q{SELECT string_agg(relname, ', ') FROM pg_class WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v', 'S', 'p', 'm')
	AND has_any_column_privilege('monitoring', oid, 'SELECT, INSERT, UPDATE, REFERENCES')}), 'metrics', 'and nothing else of the warehouse');
is(sql($node, q{SELECT string_agg(proname, ', ' ORDER BY proname) FROM pg_proc WHERE pronamespace = '_wh'::regnamespace
	AND has_function_privilege('monitoring', oid, 'EXECUTE')}), 'expected_loads, metric_counters, metric_queue, pause_reason, refuse_to_read', 'and calls what it is made of');
($status, $out, $err) = $node->psql('postgres', 'SELECT count(*) FROM _wh.metrics', extra_params => [ '-U', 'stranger' ]);
like($err, qr/permission denied/, 'a stranger reads none');
fails_with($node, q{SELECT * FROM _wh.metric_counters('nothing')}, '22023', qr/unknown family of counters "nothing"/, 'an unknown family is refused');

# ---- partitions --------------------------------------------------------

add_events_template($node, 'tree');
sql($node, q{UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'tree';
	SELECT _wh.subscribe('shop', 'tree', NULL, '2025-01-01')});
is((enqueue_and_wait($node, q{'tree', 'shop', '2025-01-01', '2025-01-03'}))[1], 'succeeded', 'days of a tree');
foreach my $view (qw(tenant public))
{
	my $schema = $view eq 'tenant' ? 'shop' : 'public';

	is(metric('wh_union_locks', template => 'tree', view => $view),
		sql($node, "SELECT locks_per_query FROM _wh.union_health WHERE template_name = 'tree' AND target_schema = '$schema'"), "locks of its $view view");
}

# ---- more templates than there is room for -----------------------------

sql($node, q{INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)
	SELECT 't' || i, 'SELECT 1 AS a WHERE date ''{TARGET_DATE}'' IS NULL', 'a INTEGER', '0 0 29 2 *' FROM generate_series(1, 260) i});
add_events_template($node, 'other');
$source->stop;
sql($node, q{SET client_min_messages = error; SELECT _wh.update_mv_by_template('other', 'shop', 'shop', '2025-01-01', false)});
my $failed = sql($node, q{SELECT sum(value) FROM _wh.metrics WHERE name = 'wh_loads_total' AND labels ->> 'source' = 'call' AND labels ->> 'result' = 'failed'});
sql($node, q{SET client_min_messages = error;
	SELECT count(_wh.update_mv_by_template('t' || i, 'shop', 'shop', '2025-01-01', false)) FROM generate_series(1, 260) i});
is(sql($node, q{SELECT sum(value) FROM _wh.metrics WHERE name = 'wh_loads_total' AND labels ->> 'source' = 'call' AND labels ->> 'result' = 'failed'}), $failed + 260, 'none of 260 templates is lost');
cmp_ok(metric('wh_loads_total', template => 'other', source => 'call'), '>=', 5, 'those that there is no room for are counted together');
is(metric('wh_loads_total', template => 't1', source => 'call', result => 'failed'), '1', 'others by their names');
is(sql($node, $no_series_twice), '0', 'no series twice, although a template is called other');

# Counters begin anew with the server, as Prometheus expects; another database has its own.
sql($node, 'CREATE DATABASE another');
$node->safe_psql('another', 'CREATE EXTENSION wh_worker');
is($node->safe_psql('another', q{SELECT coalesce(sum(value), 0) FROM _wh.metrics WHERE type = 'counter'}), '0', 'another database has counted nothing');
$node->restart;
is(metric('wh_received_rows_total', %of_events), '0', 'a restart begins anew');

done_testing();
