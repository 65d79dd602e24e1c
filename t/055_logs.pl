# The server log: one line for each thing that happened, at a level that does not
# flood, with JSON that a program reads, in jsonlog as in plain text.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $tenant = new_tenant('tenant');
create_events($tenant, '2025-07-01', 40, 10);

my $node = new_warehouse(
	conf => {
		logging_collector => 'on',
		log_destination => "'stderr,jsonlog'",
		log_directory => "'log'",
		log_filename => "'postgresql.log'",
		log_rotation_age => 0,
		'wh_worker.retry_delay' => "'50ms'" });

# SECRETS=1 makes a server say all it can
sql($node, "ALTER SYSTEM SET log_min_messages = 'debug1'");
$node->reload;

# What an operator would write to read it: a row for each line that is ours.
sql($node, <<'SQL');
	CREATE FUNCTION public.log_lines() RETURNS TABLE (severity text, message text, detail text, state_code text, c jsonb)
	LANGUAGE sql AS $$
		SELECT e ->> 'error_severity', e ->> 'message', e ->> 'detail', e ->> 'state_code',
			(regexp_match(e ->> 'context', '(?:^|\n)wh_worker: ({[^\n]*})(?:\n|$)'))[1]::jsonb
		FROM (SELECT CASE WHEN l LIKE '{%}' THEN l::jsonb END AS e
			FROM regexp_split_to_table(pg_read_file('log/postgresql.json'), '\n') AS l) AS entries
		WHERE e ->> 'context' ~ '(?:^|\n)wh_worker: {'
	$$
SQL

sub happened
{
	my ($condition, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT count(*) > 0 FROM public.log_lines() WHERE $condition", $name);
}

sub one
{
	my ($what, $condition) = @_;

	return sql($node, "SELECT $what FROM public.log_lines() WHERE $condition");
}

# A setting of workers.
sub set
{
	my ($name, $value) = @_;

	sql($node, "ALTER SYSTEM SET $name = '$value'");
	$node->reload;
	wait_until($node, "SELECT current_setting('$name')::interval = '$value'::interval", "$name is $value");

	# those that run may not have heard of it yet
	my $workers = sql($node, q{SELECT coalesce(array_agg(pid), '{}') FROM _wh.worker_status WHERE backend_type LIKE '%worker' AND pg_terminate_backend(pid)});
	wait_until($node, "SELECT NOT EXISTS (SELECT FROM _wh.worker_status WHERE pid = ANY ('$workers'))", 'workers are new');
	return;
}

sub last_job
{
	return sql($node, "SELECT max(job_id) FROM _wh.jobs WHERE kind = 'refresh'");
}

# ---- processes ---------------------------------------------------------

happened(q{c ->> 'event' = 'launcher_started' AND severity = 'LOG' AND c ->> 'database' = 'postgres' AND c ->> 'process' = 'launcher'},
	'a launcher says that it starts');
is(one('count(*)', q{c ->> 'event' = 'launcher_waits' AND c ->> 'database' = 'postgres' AND message LIKE '%does not exist'}), 1, 'and the supervisor once what it waited for');

# ---- a job that goes well ----------------------------------------------

add_events_template($node, 'events', schedule => '0 4 * * *');
add_tenant($node, 'shop', $tenant, templates => ['events'], start_date => '2025-07-01');
my ($backfill, $state) = enqueue_and_wait($node, q{'events', 'shop', '2025-07-01', '2025-07-02'});
my $job = last_job();

is($state, 'succeeded', 'two days are loaded');
happened("c ->> 'event' = 'backfill_succeeded' AND c ->> 'backfill_id' = '$backfill' AND severity = 'LOG' AND c ->> 'template' = 'events'", 'the end of a backfill is logged');
happened("c ->> 'event' = 'job_succeeded' AND c ->> 'job_id' = '$job'", 'the end of a job is a line');
is(one('severity', "c ->> 'event' = 'job_started' AND c ->> 'job_id' = '$job'"), 'DEBUG', 'its start too, for whoever looks closely');
is( one(q{severity || ' ' || (c - 'job_id' - 'ms' - 'bytes' - 'date' - 'backfill_id')::text}, "c ->> 'event' = 'job_succeeded' AND c ->> 'job_id' = '$job'"),
	'DEBUG {"rows": 10, "event": "job_succeeded", "schema": "shop", "tenant": "shop", "attempt": 1, "process": "worker", "database": "postgres", "template": "events", "operation": "refresh"}',
	'it says which, and how much');
is( one(q{count(*) FILTER (WHERE (c ->> 'ms')::int >= 0 AND (c ->> 'bytes')::int > 100 AND c ->> 'date' BETWEEN '2025-07-01' AND '2025-07-02' AND detail = '10 rows'
		AND message ~ '^job \d+ succeeded after \d+ ms: refresh events 2025-07-0[12] from shop into shop$')}, "c ->> 'event' = 'job_succeeded' AND c ->> 'operation' = 'refresh'"),
	2, 'how long it took, and the same for people');

set('wh_worker.log_min_duration', '0 ms');
enqueue_and_wait($node, q{'events', 'shop', '2025-07-03', '2025-07-03'});
happened("c ->> 'event' = 'job_succeeded' AND c ->> 'job_id' = '" . last_job() . "' AND severity = 'LOG'", 'log_min_duration = 0 logs what goes well');

# A cancel that comes when the job is committed: the line is written, and the worker stays.
sql($node, q{CREATE FUNCTION public.cancel_late() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RETURN CASE WHEN pg_cancel_backend(pg_backend_pid()) THEN NULL::_wh.jobs END; END $$;
	CREATE CONSTRAINT TRIGGER cancel_late AFTER UPDATE ON _wh.jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
	WHEN (NEW.kind = 'refresh' AND NEW.state = 'succeeded') EXECUTE FUNCTION public.cancel_late()});
my $worker = sql($node, q{SELECT string_agg(pid::text, ' ') FROM _wh.worker_status WHERE backend_type LIKE '%worker'});
is((enqueue_and_wait($node, q{'events', 'shop', '2025-07-03', '2025-07-03', mode => 'all'}))[1], 'succeeded', 'a day, cancelled after its commit');
happened("c ->> 'event' = 'job_succeeded' AND c ->> 'job_id' = '" . last_job() . "'", 'has its line');
is(one('count(*)', q{c ->> 'sqlstate' = '57014'}), 0, 'and nothing else');
is(sql($node, q{SELECT string_agg(pid::text, ' ') FROM _wh.worker_status WHERE backend_type LIKE '%worker'}), $worker, 'its worker is there');
sql($node, 'DROP TRIGGER cancel_late ON _wh.jobs');

set('wh_worker.log_min_duration', '10 min');
enqueue_and_wait($node, q{'events', 'shop', '2025-07-04', '2025-07-20'});
$job = last_job();
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE state = 'published' AND target_date > '2025-07-03'"), 17, 'of many days');
happened("c ->> 'event' = 'job_succeeded' AND c ->> 'job_id' = '$job'", 'that are loaded');
is( one(q{string_agg(DISTINCT c ->> 'event', ' ' ORDER BY c ->> 'event')},
		"severity <> 'DEBUG' AND (c ->> 'date')::date BETWEEN '2025-07-04' AND '2025-07-20' AND c ->> 'process' = 'worker'") =~ s/^$/none/r,
	'none', 'no line is logged at the default level');
fails_with($node, "ALTER SYSTEM SET wh_worker.log_min_duration = '-2'", '22023', qr/outside the valid range.*-1( ms)? \.\./, 'what means nothing is refused');

# ---- what fails --------------------------------------------------------

$tenant->safe_psql('postgres', 'ALTER TABLE events RENAME TO gone');
($backfill, $state) = enqueue_and_wait($node, q{'events', 'shop', '2025-07-21', '2025-07-21'});
$job = last_job();
is($state, 'failed', 'a query that fails at the tenant');
happened("c ->> 'event' = 'backfill_failed' AND c ->> 'backfill_id' = '$backfill' AND severity = 'WARNING' AND detail LIKE '%could not be loaded%'", 'the backfill is a warning');
is( one(q{severity || ' ' || state_code || ' ' || (c ->> 'sqlstate') || ' ' || (c ->> 'phase') || ' ' || (c ->> 'rows') || ' ' || (c ->> 'date')}, "c ->> 'event' = 'job_failed' AND c ->> 'job_id' = '$job'"),
	'WARNING 42P01 42P01 fetching 0 2025-07-21', 'so is the job, with its cause');
like(one('detail', "c ->> 'event' = 'job_failed' AND c ->> 'job_id' = '$job'"), qr/relation "events" does not exist/, 'what the tenant said');
$tenant->safe_psql('postgres', 'ALTER TABLE gone RENAME TO events');

# a tenant that cannot be reached: an attempt is a line, that it is set aside another
$tenant->stop;
$backfill = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-22', '2025-07-22')});
happened(q{c ->> 'event' = 'tenant_set_aside' AND severity = 'WARNING' AND c ->> 'tenant' = 'shop' AND c ->> 'sqlstate' LIKE '08%'}, 'a tenant that is set aside is a warning');
happened(q{c ->> 'event' = 'job_set_aside' AND severity = 'LOG' AND c ->> 'phase' = 'connecting' AND c ->> 'date' = '2025-07-22'}, 'its job waits');
is(one('count(*)', q{c ->> 'event' = 'tenant_set_aside'}), 1, 'it is said once');
cmp_ok(one('count(*)', q{c ->> 'event' = 'job_retried' AND c ->> 'date' = '2025-07-22' AND severity = 'LOG'}), '>=', 1, 'an attempt before that was retried');
# The lines first: more attempts are made.
is( sql($node, q{CREATE TEMP TABLE lines AS SELECT * FROM public.log_lines(); SELECT count(*) FROM lines l LEFT JOIN _wh.job_run_details d ON d.job_id = (c ->> 'job_id')::bigint AND d.status = 'retrying'
		AND d.return_message = l.detail WHERE c ->> 'date' = '2025-07-22' AND c ->> 'event' IN ('job_retried', 'job_set_aside') AND d.runid IS NULL}),
	0, 'each is in job_run_details too');
$tenant->start;
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'the tenant comes back');
happened(q{c ->> 'event' = 'tenant_back' AND severity = 'LOG' AND c ->> 'tenant' = 'shop'}, 'which is said');

# cancelled
my $holder = $tenant->background_psql('postgres', on_error_stop => 1);
$holder->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
$backfill = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-23', '2025-07-23')});
wait_until($node, q{SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching'}, 'a load waits');
sql($node, "SELECT _wh.cancel_backfill($backfill)");
happened("c ->> 'event' = 'job_cancelled' AND severity = 'LOG' AND c ->> 'sqlstate' = '57014' AND c ->> 'backfill_id' = '$backfill'", 'a job that was cancelled');
happened("c ->> 'event' = 'backfill_cancelled' AND severity = 'LOG' AND c ->> 'backfill_id' = '$backfill'", 'and its backfill');

# a worker that is terminated
$backfill = sql($node, q{SELECT _wh.enqueue_backfill('events', 'shop', '2025-07-24', '2025-07-24')});
wait_until($node, q{SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching' AND target_date = '2025-07-24'}, 'another load waits');
sql($node, 'SELECT pg_terminate_backend(' . worker_pid($node, q{target_date = '2025-07-24'}) . ')');
happened(q{c ->> 'event' = 'job_retried' AND c ->> 'process' = 'launcher' AND c ->> 'tenant' = 'shop' AND c ->> 'job_id' IS NOT NULL AND c ->> 'sqlstate' = '57P02'},
	'a job that lost its worker is told by the launcher');
$holder->query_safe('COMMIT');
$holder->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'and made again');
is(one('severity', q{c ->> 'operation' = 'refresh' AND c ->> 'sqlstate' = '57P01' AND c ->> 'date' = '2025-07-24' AND c ->> 'phase' = 'fetching' AND NOT c ? 'event'}), 'FATAL', 'what PostgreSQL itself said has the job and its phase');

# ---- days that look wrong, months, what is taken away ------------------

$tenant->safe_psql('postgres', q{DELETE FROM events WHERE at::date = '2025-07-25' AND id % 10 > 1});
sql($node, q{UPDATE _wh.mv_templates SET suspect_factor = 2});
enqueue_and_wait($node, q{'events', 'shop', '2025-07-25', '2025-07-25'});
happened(q{c ->> 'event' = 'day_suspect' AND severity = 'WARNING' AND c ->> 'date' = '2025-07-25' AND (c ->> 'rows')::int < 5}, 'a day that looks wrong is a warning');
enqueue_and_wait($node, q{'events', 'shop', '2025-07-26', '2025-07-31'});
sql($node, q{SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-21', false), _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-23', false)});
sql($node, q{UPDATE _wh.mv_templates SET suspect_factor = NULL});
sql($node, q{SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-25', false)});
sql($node, 'DROP MATERIALIZED VIEW shop.events_2025_07_05 CASCADE');
# the launcher looks when it wakes
happened(q{pg_reload_conf() AND c ->> 'event' = 'relations_missing' AND c ->> 'template' = 'events' AND severity = 'LOG'}, 'a day that a person dropped is noticed');

# ---- schedules ---------------------------------------------------------

sql($node, q{SELECT _wh.pause_tenant('shop')});
step_clock($node, '2025-08-01 05:00');
sql($node, q{UPDATE _wh.schedules SET next_run = '2025-08-01 03:00', last_status = NULL WHERE kind = 'refresh'});
happened(q{c ->> 'event' = 'schedule_skipped' AND severity = 'LOG' AND c ->> 'operation' = 'schedule' AND c ->> 'process' = 'launcher'
	AND c ->> 'tenant' = 'shop' AND c ->> 'schedule_id' IS NOT NULL AND message LIKE '%skipped: the tenant is paused'}, 'why nothing is loaded is logged');
sql($node, q{UPDATE _wh.schedules SET next_run = '2025-08-01 03:00' WHERE kind = 'refresh'});
happened(q{c ->> 'event' = 'schedule_skipped' AND severity = 'DEBUG' AND c ->> 'tenant' = 'shop'}, 'again for the same reason: for whoever looks closely');
is(one('count(*)', q{c ->> 'event' = 'schedule_skipped' AND severity = 'LOG' AND c ->> 'tenant' = 'shop'}), 1, 'so it is said once');
sql($node, q{SELECT _wh.resume_tenant('shop')});
happened(q{c ->> 'event' = 'schedule_enqueued' AND severity = 'DEBUG' AND c ->> 'tenant' = 'shop'}, 'what is queued is not worth a line');

my $combine = q{c ->> 'event' = 'job_succeeded' AND c ->> 'operation' = 'combine_month'};
sql($node, q{SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-05', false)});
step_clock($node, '2025-09-20 05:00');
sql($node, q{UPDATE _wh.schedules SET next_run = '2025-09-20 03:00', active = true WHERE kind = 'combine_month'});
happened($combine . q{ AND severity = 'LOG' AND (c ->> 'rows')::int > 200 AND c ->> 'tenant' = 'shop'}, 'a month that is combined is logged');

# ---- names, and the plain log ------------------------------------------

my $name = q{q"uo'te \\ {TARGET_DATE} <b>};
my $literal = WhTest::literal($name);

add_events_template($node, $name);
sql($node, sprintf q{SELECT _wh.subscribe('shop', %s, 'odd')}, $literal);
$tenant->safe_psql('postgres', 'ALTER TABLE events RENAME TO gone');
enqueue_and_wait($node, "$literal, 'shop', '2025-07-01', '2025-07-01', 'odd'");
wait_until($node, sprintf(q{SELECT count(*) = 1 FROM public.log_lines() WHERE c ->> 'event' = 'job_failed' AND c ->> 'template' = %s}, $literal),
	'a name with quotes and braces is as it is in the JSON');
sql($node, q{SELECT _wh.schedule('raise', '1 second', $$DO 'BEGIN RAISE E''first\nWARNING:  second''; END'$$)});
happened(q{c ->> 'event' = 'job_failed' AND c ->> 'operation' = 'sql' AND detail = 'first WARNING: second' AND c ->> 'sqlstate' = 'P0001' AND c ->> 'phase' = 'running'},
	'what a command raises is on one line');
sql($node, q{SELECT _wh.unschedule('raise')});
# a line is written after the job's end is committed, but before its worker is free
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running')) AND NOT EXISTS (SELECT FROM _wh.worker_status WHERE job_id IS NOT NULL)}, 'nothing is left to do');

my %events = map { split /=/ } split /\n/, sql($node, q{SELECT (c ->> 'event') || '=' || count(*) FROM public.log_lines() WHERE c ? 'event' AND c ->> 'event' NOT LIKE 'schedule%' GROUP BY c ->> 'event'});
my %plain;
my @contexts = slurp_file($node->data_dir . '/log/postgresql.log') =~ /(?:CONTEXT:  |^\t)wh_worker: (\{.*)$/mg;
my @parsed = map { eval { decode_json($_) } // () } @contexts;

cmp_ok(scalar @contexts, '>', 40, 'the plain log has them as well');
is(scalar @parsed, scalar @contexts, 'each JSON on one line');
$plain{ $_->{event} }++ foreach grep { defined $_->{event} && $_->{event} !~ /^(?:schedule|worker_st)/ } @parsed;
delete @events{ grep { /^worker_st/ } keys %events };
is_deeply(\%plain, \%events, 'every event is in both');
is(sql($node, q{SELECT count(*) FROM public.log_lines() WHERE c ? 'event' AND NOT c ? 'process'}), 0, 'all that happens in the background says where');

# ---- the query of the docs, and its table ------------------------------

my ($section) = slurp_file(source_root() . '/docs/operations.md') =~ /^## The log\n(.*?)(?=^## )/ms;
my ($query) = $section =~ /^```sql\n(.*?)^```/ms;
my $known = join ' ', $section =~ /^\| (`.*?) \|/mg;
my @undocumented = grep { index($known, "`$_`") < 0 } split /\n/, sql($node, q{SELECT DISTINCT c ->> 'event' FROM public.log_lines() WHERE c ? 'event'});

like(sql($node, $query), qr/\|WARNING\|job_failed\|shop\|events\|2025-07-21\|42P01\|job \d+ failed: /, 'the query that the docs give for the log');
is("@undocumented", '', 'the docs list every event');

# ---- the end -----------------------------------------------------------

sql($node, 'ALTER SYSTEM SET wh_worker.enabled = off');
$node->reload;
happened(q{c ->> 'event' = 'launcher_stopped' AND severity = 'LOG'}, 'a launcher says that it leaves');

done_testing();
