# A standby: idle, everything about the warehouse can be read there, nothing can be
# changed. When it is promoted it goes on by itself with what the old primary had
# begun; the old primary comes back as its standby.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(conf => { max_wal_senders => 8, wal_log_hints => 'on', wal_keep_size => "'256MB'" });
my @templates = ('events', 'leaves');

create_events($source, '2025-03-01', 10, 50);
sql($source, "UPDATE events SET kind = 'version 0'");
add_events_template($node, $_) foreach @templates;
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at', tenant_isolation = true WHERE template_name = 'leaves'");
add_tenant($node, 'shop', $source, templates => \@templates);
is((enqueue_and_wait($node, "'$_', 'shop', '2025-03-01', '2025-03-04'"))[1], 'succeeded', "days of $_ are loaded") foreach @templates;
sql($node, 'UPDATE _wh.tenant_connections SET max_connections = 3');
sql($node, 'CREATE TABLE ticks (at timestamptz); GRANT INSERT ON ticks TO whadmin');
step_clock($node, '2025-03-20 03:00:00');
sql($node, "SELECT _wh.schedule('tick', '0 4 * * *', 'INSERT INTO ticks VALUES (now())')");

# The servers of a test are of one installation.
my $copies = 0;

sub copy_of
{
	my ($server, %opt) = @_;
	my $name = 'copy' . ++$copies;
	my $copy = PostgreSQL::Test::Cluster->new($name,
		defined $ENV{WH_WAREHOUSE_INSTALL} ? (install_path => $ENV{WH_WAREHOUSE_INSTALL}) : ());

	$server->backup($name);
	$copy->init_from_backup($server, $name, has_streaming => 1);
	$copy->append_conf('postgresql.conf', $opt{conf}) if defined $opt{conf};
	$copy->start;
	$server->wait_for_catchup($copy);
	return $copy;
}

sub states
{
	my ($server) = @_;

	return sql($server, 'SELECT backend_type, datname, state, pid, last_error FROM _wh.worker_status ORDER BY backend_type DESC');
}

my $idle = "wh_worker supervisor||standby||\nwh_worker launcher|postgres|standby||";
my $runs = "SELECT count(*) = 1 FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND state = 'idle'";

# ---- idle ----------------------------------------------------------------

my $standby = copy_of($node);

is(states($standby), $idle, 'worker_status says that it is a standby');
is(sql($standby, "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'wh_worker'"), '0', 'no process of ours runs');
is(sql($standby, 'SELECT _wh.pause_reason()'), 'the server is a standby', 'pause_reason() too');
like(sql($standby, 'SELECT _wh.status_page()'), qr/This server is a standby/, 'and the status page');
unlike(sql($standby, 'SELECT _wh.status_page()'), qr/No launcher is meant to run here/, 'which does not look for a launcher');
is(sql($standby, "SELECT count(*) FROM _wh.metrics WHERE name ~ '^wh_launcher'"), '0', 'the alert of a launcher that is gone has nothing to be about');
is(sql($standby, "SELECT bool_and(ok) FROM _wh.check_tenant('shop')"), 't', 'whether the tenant would be reached can be asked');
is(sql($standby, 'SELECT count(*), sum(id) FROM public.leaves'), sql($node, 'SELECT count(*), sum(id) FROM public.leaves'), 'the data can be read');
sql($standby, 'ALTER SYSTEM SET wh_worker.enabled = off');
$standby->reload;
wait_until($standby, "SELECT last_error = 'wh_worker.enabled is off' FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'",
	'it is said what would keep it from working');
sql($standby, 'ALTER SYSTEM RESET wh_worker.enabled');
$standby->reload;
is(log_count($standby, qr/ERROR|wh_worker: \{/), 0, 'nothing is in its log');

# ---- every relation, every function --------------------------------------

my @relations = split /\n/, sql($standby, q{SELECT oid::regclass FROM pg_class WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v', 'p') ORDER BY 1});
my @unreadable = grep { ($standby->psql('postgres', "SELECT x::text FROM $_ x"))[0] != 0 } @relations;

cmp_ok(scalar(@relations), '>', 20, 'there are relations');
is_deeply(\@unreadable, [], 'each can be read');

# A call of each with values that mean something, and what may be said of it but
# that the server is a standby: that only other arguments would do.
my @calls = split /\n/, sql($standby, q{
	SELECT p.proname || '|SELECT _wh.' || quote_ident(p.proname) || '(' || coalesce((
		SELECT string_agg(format('%s::%s', CASE
			WHEN t = 'text[]'::regtype THEN quote_literal('{}') WHEN p.proargnames[n] LIKE 'template%' THEN quote_literal('events') WHEN p.proargnames[n] = 'mode' THEN quote_literal('all')
			WHEN p.proargnames[n] IN ('schedule', 'quiet_hours', 'timezone', 'layout', 'family') THEN 'NULL'
			WHEN t = 'text'::regtype THEN quote_literal('shop') WHEN t = 'date'::regtype THEN quote_literal('2025-03-02')
			WHEN t IN ('integer'::regtype, 'bigint'::regtype) THEN '1' WHEN t = 'boolean'::regtype THEN 'true'
			WHEN t = 'interval'::regtype THEN quote_literal('1 ms') ELSE 'NULL' END, format_type(t, NULL)), ', ' ORDER BY n)
		FROM unnest(p.proargtypes) WITH ORDINALITY x (t, n)), '') || ')'
	FROM pg_proc p WHERE p.pronamespace = '_wh'::regnamespace AND p.prorettype <> 'trigger'::regtype ORDER BY 1});
my %may_say = (fetch_day => '0A000', refuse_to_read => '54000', write_status_page => '55000', orphaned_files => '55000');
my (@answered, @refused, @other);

foreach my $line (@calls)
{
	my ($name, $call) = split /\|/, $line, 2;
	my ($status, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\n$call");
	my ($sqlstate, $message) = $err =~ /ERROR:  (\w{5}): (.*)/;

	if ($status == 0) { push @answered, $name }
	elsif ($sqlstate eq '25006' && $message eq "cannot execute $name() on a standby" && $err =~ /HINT:  Call it on the primary/) { push @refused, $name }
	elsif ($sqlstate ne ($may_say{$name} // '')) { push @other, "$call: $err" }
}
is_deeply(\@other, [], 'a function works, or says that it is for the primary');
cmp_ok(scalar(@answered), '>', 15, 'some work: ' . join ' ', @answered);
cmp_ok(scalar(@refused), '>', 40, 'most change something');
fails_with($standby, "UPDATE _wh.tenant_connections SET port = 1", '25006', qr/read-only transaction/, 'tables cannot be written');
fails_with($node, 'SET default_transaction_read_only = on; SELECT _wh.pause()', '25006', qr/cannot execute pause\(\) in a read-only transaction/,
	'a transaction that is read-only says so');

# ---- readers there, while days are loaded on the primary ----------------

my @readers;

foreach my $view ('shop.events', 'shop.leaves', 'public.events')
{
	my $file = PostgreSQL::Test::Utils::tempdir() . '/' . $view =~ s/\./_/r;
	my %reader = (view => $view, out => '', err => '');

	# a version is there as a whole: 50 rows, and one more for each change, of one kind
	append_to_file($file, "SELECT 1 / (count(*) = 50 + max(substr(kind, 9)::integer) AND count(DISTINCT kind) = 1)::integer"
		. " FROM $view WHERE at >= '2025-03-02' AND at < '2025-03-03';\n");
	$reader{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-T', '600', '-f', $file, '-h', $standby->host, '-p', $standby->port, '-U', 'phood_ro', 'postgres' ],
		'<', \undef, '>', \$reader{out}, '2>', \$reader{err});
	push @readers, \%reader;
}
wait_until($standby, "SELECT count(*) = 3 FROM pg_stat_activity WHERE usename = 'phood_ro' AND query LIKE 'SELECT 1 /%'", 'readers of the standby run');
foreach my $version (1 .. 6)
{
	sql($source, "INSERT INTO events VALUES (100000 + $version, '2025-03-02 12:00', '', 1, 'added');
		UPDATE events SET kind = 'version $version' WHERE at::date = '2025-03-02'");
	is((enqueue_and_wait($node, "'$_', 'shop', '2025-03-02', '2025-03-02', mode => 'all'"))[1], 'succeeded', "version $version of $_ is loaded") foreach @templates;
}
$node->wait_for_catchup($standby);
foreach my $reader (@readers)
{
	$reader->{run}->signal('ALRM');    # how pgbench learns that its time is over
	$reader->{run}->finish;
	is($reader->{run}->full_result(0), 0, "on the standby every answer of $reader->{view} was right") or diag $reader->{err};
	like($reader->{out}, qr/transactions actually processed: [1-9]\d/, 'and there were some');
}
is(sql($standby, "SELECT max(kind) FROM $_ WHERE at >= '2025-03-02' AND at < '2025-03-03'"), 'version 6', "$_ is up to date there") foreach 'shop.events', 'shop.leaves';

# ---- the primary dies ----------------------------------------------------

step_clock($node, '2025-03-20 03:59:59');
wait_until($node, 'SELECT count(*) = 1 FROM ticks', 'a schedule came due on the primary');
wait_until($node, "SELECT count(*) = 1 FROM _wh.schedules WHERE name = 'tick' AND last_status ~ '^succeeded'", 'and is done');

# Two jobs have begun, the others wait; the tenant answers neither.
my $lock = $source->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
my %backfill = map { $_ => sql($node, "SELECT _wh.enqueue_backfill('$_', 'shop', '2025-03-01', '2025-03-10', mode => 'all')") } @templates;
wait_until($node, "SELECT count(*) = 2 FROM _wh.worker_status WHERE state = 'fetching'", 'two jobs run');
my $ran = sql($node, "SELECT string_agg(job_id::text, ',' ORDER BY job_id) FROM _wh.jobs WHERE state = 'running'");
$node->wait_for_catchup($standby);
is(sql($standby, "SELECT string_agg(job_id::text, ',' ORDER BY job_id) FROM _wh.job_status WHERE state = 'running'"), $ran, 'the standby knows of them');
is(sql($standby, "SELECT DISTINCT wait_reason FROM _wh.job_status WHERE state = 'queued'"), 'the server is a standby', 'and why none starts there');
is(states($standby), $idle, 'it is idle all the same');
$node->stop('immediate');
$lock->query_safe('COMMIT');
$lock->quit;

step_clock($standby, '2025-03-20 04:30:00');
my $end_of_log = log_end($standby);
$standby->promote;
wait_until($standby, $runs, 'the promoted server works by itself');
is(sql($standby, 'SELECT _wh.pause_reason()'), '', 'it is the same warehouse');
is(sql($standby, "SELECT _wh.wait_for_backfill($backfill{$_}, '50 s')"), 'succeeded', "the backfill of $_ ends there") foreach @templates;
is(sql($standby, "SELECT string_agg(job_id || ' ' || status || ' ' || sqlstate, ', ' ORDER BY job_id) FROM _wh.job_run_details WHERE job_id IN ($ran) AND status <> 'succeeded'"),
	join(', ', map { "$_ retrying 57P02" } split /,/, $ran), 'what ran on the old primary was interrupted, once each');
is(sql($standby, "SELECT count(*), count(DISTINCT job_id) FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id)
	WHERE backfill_id IN ($backfill{events}, $backfill{leaves}) AND kind = 'refresh' AND status = 'succeeded'"), '20|20', 'every day was loaded once');
foreach my $view ('shop.events', 'shop.leaves')
{
	same_content($standby, "SELECT id, at, kind, amount, payload FROM $view", $source, events_query('2025-03-01', '2025-03-10'), "$view has what the tenant has");
}
is(sql($standby, 'SELECT count(*) FROM _wh.day_loads d LEFT JOIN pg_class c ON c.oid = d.relation_oid WHERE c.relname IS DISTINCT FROM d.relation OR c.relfilenode <> d.relation_file OR NOT d.in_views'),
	'0', 'the ledger knows the relations');
is(sql($standby, "SELECT next_run AT TIME ZONE 'UTC' FROM _wh.schedules WHERE name = 'tick'"), '2025-03-21 04:00:00', 'the schedule knows that it ran today');
is(sql($standby, 'SELECT count(*) FROM ticks'), '1', 'and did not run again');
step_clock($standby, '2025-03-21 03:59:59');
wait_until($standby, 'SELECT count(*) = 2 FROM ticks', 'it runs tomorrow');
is((() = substr(slurp_file($standby->logfile), $end_of_log) =~ /\bERROR:/g), 0, 'no error is in the log');

# ---- the old primary as a standby of the new one -------------------------

sql($standby, 'CHECKPOINT');    # from then on pg_rewind sees that it has a timeline of its own
$node->command_ok([ 'pg_rewind', '--no-sync', '--target-pgdata', $node->data_dir, '--source-server', $standby->connstr('postgres') ], 'the old primary is rewound');
$node->append_conf('postgresql.conf', sprintf "port = %d\nunix_socket_directories = '%s'\n", $node->port, $node->host);
$node->enable_streaming($standby);
$node->start;
$standby->wait_for_catchup($node);
is(states($node), $idle, 'it is a standby');
is(sql($node, 'SELECT count(*), sum(id) FROM shop.events'), sql($standby, 'SELECT count(*), sum(id) FROM shop.events'), 'with the data of the new one');
$node->stop;

# ---- promoted without the library -----------------------------------------

my $bare = copy_of($standby, conf => "shared_preload_libraries = ''\n");

$lock = $source->background_psql('postgres');
$lock->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
my $left = sql($standby, "SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-05', mode => 'all')");
wait_until($standby, "SELECT count(*) >= 1 FROM _wh.worker_status WHERE state = 'fetching'", 'jobs run');
$standby->wait_for_catchup($bare);
$standby->stop('immediate');
$lock->query_safe('COMMIT');
$lock->quit;
$bare->promote;
foreach my $query ('SELECT * FROM _wh.worker_status', 'SELECT * FROM _wh.job_status', 'SELECT _wh.pause_reason()', 'SELECT _wh.pause()', "SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-01')")
{
	fails_with($bare, $query, '55000', qr/wh_worker must be loaded via shared_preload_libraries/, "$query without the library");
}
is(sql($bare, 'SELECT count(*) FROM shop.events'), sql($source, 'SELECT count(*) FROM events'), 'the data can be read');
is(sql($bare, 'SELECT count(*) FROM public.leaves'), sql($source, 'SELECT count(*) FROM events'), 'through every view');
$bare->append_conf('postgresql.conf', "shared_preload_libraries = 'wh_worker'\n");
$bare->restart;
wait_until($bare, $runs, 'with it the warehouse works');
is(sql($bare, "SELECT _wh.wait_for_backfill($left, '50 s')"), 'succeeded', 'and goes on');

done_testing();
