# A tenant in trouble costs the others nothing, leaves nothing half-made, and
# is told from the rest by what the job and the WARNING say.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhSecrets;
use WhTest;

my $day = '2025-08-01';
my $tls = new_tenant('tls');
my $no_tls = new_tenant('no_tls', tls => 0);
my $node = new_warehouse(
	conf => {
		'wh_worker.connect_timeout' => "'1s'",
		'wh_worker.fetch_idle_timeout' => "'1s'",
		'wh_worker.retry_delay' => "'50ms'",
		'wh_worker.retry_delay_max' => "'100ms'",
		'wh_worker.worker_idle_timeout' => "'1s'",
		'wh_worker.max_attempts' => 3,
	});

create_events($tls, $day, 2, 3000, width => 200);
create_events($no_tls, $day, 2, 10);

# Tenants "late" and "dup" have tables of their own, to be broken later.
foreach my $database ('late', 'dup')
{
	$tls->safe_psql('postgres', "CREATE DATABASE $database");
	create_events($tls, $day, 2, 3000, width => 200, database => $database);
}

my $hang = new_proxy(mode => 'hang');
my $stall = new_proxy(target => $tls->port, mode => 'stall', limit => 200_000);
my $cut = new_proxy(target => $tls->port, mode => 'cut', limit => 200_000);

add_events_template($node, 'events');

# name, options of add_tenant, SQLSTATE, message, attempts (undef: it cannot be
# connected to, so that its jobs wait for it)
my @bad = (
	[ 'down', { port => PostgreSQL::Test::Cluster::get_free_port() },
		'08001', qr/refused/, undef ],
	[ 'refused', { password => 'wrong' }, '28P01', qr/password authentication failed/, 1 ],
	[ 'plain', { port => $no_tls->port }, '08001', qr/SSL/, undef ],
	[ 'silent', { port => $hang->{port} }, '08\w\w\w', qr/no answer within/, undef ],
	[ 'stalled', {}, '(08\w\w\w|57\w\w\w)', qr/sent nothing for 1 s/, 3 ],
	[ 'cut', {}, '08\w\w\w', qr/lost|clos|SSL|EOF/, 3 ],
	[ 'late', { database => 'late' }, '22012', qr/division by zero/, 1 ],
);
my %broken_port = (stalled => $stall->{port}, cut => $cut->{port});

add_tenant($node, 'good', $tls, templates => ['events'], start_date => $day);
foreach my $bad (@bad)
{
	my ($name, $options) = @$bad;

	add_tenant($node, $name, $tls, %$options,
		templates => ['events'], start_date => $day);
}

# Those that break in mid-stream have a day already: it has to stay.
foreach my $name ('stalled', 'cut', 'late')
{
	is( sql($node, "SELECT _wh.update_mv_by_template('events', '$name', '$day')"),
		't', "$name loads while all is well");
}
my $old_content = checksum($node, "SELECT * FROM late.events");
foreach my $name (sort keys %broken_port)
{
	sql($node, "UPDATE _wh.tenant_connections SET port = $broken_port{$name}, password = '" . reader_password() . "' WHERE tenant_name = '$name'");
}
$tls->safe_psql('late', q{
	ALTER TABLE events RENAME TO events_table;
	CREATE VIEW events AS SELECT id / (CASE WHEN id % 3000 = 2900 THEN 0 ELSE 1 END) AS id,
		at, kind, amount, payload FROM events_table;
	GRANT SELECT ON events TO wh_reader;
});

# ---- functions that run at once ----------------------------------------

foreach my $bad (@bad)
{
	my ($name, $options, $sqlstate, $pattern) = @$bad;
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT _wh.update_mv_by_template('events', '$name', '$day')");

	is("$status $out", '0 f', "$name: the function returns false");
	like($err, qr/WARNING:.*$pattern/s, "$name: after a WARNING that says why");
	like($err, qr/\b$name\b/, "$name: and whom");
	like( sql($node, "SELECT status || ' ' || sqlstate || ' ' || return_message FROM _wh.job_run_details ORDER BY runid DESC LIMIT 1"),
		qr/^failed $sqlstate .*$pattern/s, "$name: job_run_details has it");
}
my $window = sql($node,
	"SELECT _wh.update_mv_window_by_template('events', 'down', '$day', '2025-08-02')");
like($window, qr/2025-08-01.*2025-08-02/s, 'a window reports every day');
unlike($window, qr/succeeded|loaded/, 'none of them as loaded');

foreach my $name ('stalled', 'cut', 'late')
{
	is(checksum($node, "SELECT * FROM $name.events"),
		$old_content, "$name: the old day stays");
}

# ---- jobs: all at once, and the good tenant among them -----------------

my $id = sql($node, "SELECT _wh.enqueue_backfill('events', NULL, '$day', '$day', NULL, 'all')");
my $unreachable = join ', ', map { "'$_->[0]'" } grep { !defined $_->[4] } @bad;
wait_until($node, "SELECT count(*) = 5 FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh' AND state IN ('succeeded', 'failed')",
	'the jobs of tenants that can be reached end');
wait_until($node, "SELECT count(*) = 3 AND bool_and(consecutive_failures >= 3) FROM _wh.tenant_health WHERE tenant_name IN ($unreachable)",
	'the others are set aside');
is(sql($node, "SELECT state FROM _wh.backfills WHERE backfill_id = $id"),
	'running', 'and the backfill waits for them');
is(sql($node, "SELECT state || ' ' || attempt FROM _wh.jobs WHERE backfill_id = $id AND tenant_name = 'good'"),
	'succeeded 1', 'the good tenant is loaded');
wait_until($node, "SELECT state = 'published' FROM _wh.day_loads WHERE tenant_name = 'good'",
	'and published without waiting for those that cannot be reached');
same_content($node, "SELECT * FROM good.events", $tls,
	events_query($day, $day), 'with its content');
foreach my $bad (@bad)
{
	my ($name, $options, $sqlstate, $pattern, $attempts) = @$bad;
	my $job = sql($node, "SELECT state || ' ' || attempt || ' ' || last_sqlstate || ' ' || last_error FROM _wh.jobs WHERE backfill_id = $id AND tenant_name = '$name'");

	if (!defined $attempts)
	{
		# It may be that a probe is on its way.
		like($job, qr/^(queued 2|running 3) $sqlstate .*$pattern/s,
			"$name: the job waits, and its attempts are not used up");
		like( sql($node, "SELECT state || ' ' || last_error FROM _wh.tenant_health WHERE tenant_name = '$name'"),
			qr/^(open|half-open) .*$pattern/s, "$name: tenant_health says why");
		next;
	}
	like($job, qr/^failed $attempts $sqlstate .*$pattern/s,
		"$name: the job failed" . ($attempts == 3 ? ' after three attempts' : ''));
	is( sql($node, "SELECT string_agg(d.status, ' ' ORDER BY runid) FROM _wh.job_run_details d JOIN _wh.jobs USING (job_id) WHERE backfill_id = $id AND tenant_name = '$name'"),
		join(' ', ('retrying') x ($attempts - 1), 'failed'),
		"$name: every attempt is recorded");
}
foreach my $name ('stalled', 'cut', 'late')
{
	is(checksum($node, "SELECT * FROM $name.events"),
		$old_content, "$name: the old day still stays");
}
is( sql($node, "SELECT count(*) FROM pg_class c LEFT JOIN _wh.day_loads d ON d.relation_oid = c.oid WHERE c.relkind = 'm' AND d.relation_oid IS NULL"),
	0, 'nothing half-made is left');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%' AND relkind <> 't'"),
	0, 'no transient relation either');

foreach my $bad (@bad)
{
	cmp_ok(sql($node, "SELECT count(*) FROM _wh.check_tenant('$bad->[0]')"),
		'>', 0, "check_tenant($bad->[0]) returns what it found");
}

# ---- once the cause is gone --------------------------------------------

sql($node, "UPDATE _wh.tenant_connections SET port = " . $tls->port . ", password = '" . reader_password() . "' WHERE tenant_name IN ('down', 'plain', 'silent', 'stalled', 'cut')");
is(sql($node, "SELECT _wh.wait_for_backfill($id, '40 s')"),
	'failed', 'nothing has to be done for those that were set aside');
is( sql($node, "SELECT string_agg(tenant_name, ' ' ORDER BY tenant_name) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh' AND state = 'succeeded'"),
	'down good plain silent', 'they succeed');
is(sql($node, "SELECT string_agg(DISTINCT state, ' ') FROM _wh.tenant_health"),
	'closed', 'and their tenants are as the others');
is(sql($node, "SELECT _wh.retry_failed($id)"), 4, 'retry_failed takes those that failed');
is(sql($node, "SELECT _wh.wait_for_backfill($id, '40 s')"),
	'failed', 'some still fail');
is( sql($node, "SELECT string_agg(tenant_name, ' ' ORDER BY tenant_name) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh' AND state = 'succeeded'"),
	'cut down good plain silent stalled', 'those whose trouble is over succeed');
ok($tls->poll_query_until('postgres', tenant_sessions(), '0'),
	'no session of ours stays at the tenants when the workers have left');

# ---- columns that do not fit -------------------------------------------

my $where = "FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1";
my @shapes = (
	[ 'too_few', 'SELECT id, at', 'id integer, at timestamp, payload text', qr/payload|2 .*3|3 .*2/ ],
	[ 'too_many', 'SELECT id, at, payload', 'id integer, at timestamp', qr/payload|2 .*3|3 .*2/ ],
	[ 'wrong_type', 'SELECT id, amount', 'id integer, at timestamp', qr/"at"/ ],
	[ 'no_column', 'SELECT id, nonesuch', 'id integer, nonesuch text', qr/nonesuch/ ],
);
foreach my $shape (@shapes)
{
	my ($template, $select, $columns, $pattern) = @$shape;

	add_events_template($node, $template,
		query => "$select $where", columns => $columns, indexes => '');
	my ($status, $out, $err) = $node->psql('postgres',
		"SELECT _wh.update_mv_by_template('$template', 'good', '$day')");
	is("$status $out", '0 f', "$template: false");
	like($err, qr/WARNING:.*$pattern/s, "$template: the WARNING names the column");
	is( sql($node, "SELECT status || ' ' || coalesce(rows, 0) FROM _wh.job_run_details ORDER BY runid DESC LIMIT 1"),
		'failed 0', "$template: no row moved");
	is(sql($node, "SELECT to_regclass('good.${template}_2025_08_01') IS NULL"),
		't', "$template: nothing is left");
	my ($backfill) = enqueue_and_wait($node, "'$template', 'good', '$day', '$day'");
	is( sql($node, "SELECT state || ' ' || attempt FROM _wh.jobs WHERE backfill_id = $backfill AND kind = 'refresh'"),
		'failed 1', "$template: the job fails at once");
}

# ---- duplicate keys ----------------------------------------------------

add_tenant($node, 'dup', $tls, database => 'dup', templates => ['events'],
	start_date => $day);
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'dup', '$day')"),
	't', 'a day loads');
my $before = checksum($node, 'SELECT * FROM dup.events');
$tls->safe_psql('dup', "INSERT INTO events SELECT * FROM events WHERE id IN (2999, 4000)");
my ($status, $out, $err) = $node->psql('postgres',
	"SELECT _wh.update_mv_by_template('events', 'dup', '$day')");
is("$status $out", '0 f', 'with a duplicate key it does not');
my $duplicate = qr/idx_dup_events_2025_08_01_id.*\(id\)=\(2999\)/s;
like($err, $duplicate, 'the WARNING says which index and which key');
unlike($err, qr/pg_temp_/, 'and no name that the user never saw');
is(checksum($node, 'SELECT * FROM dup.events'), $before, 'the old day stays');
($id) = enqueue_and_wait($node, "'events', 'dup', '$day', '2025-08-02', NULL, 'all'");
like( sql($node, "SELECT state || ' ' || attempt || ' ' || last_sqlstate || ' ' || last_error FROM _wh.jobs WHERE backfill_id = $id AND target_date = '$day'"),
	qr/^failed 1 23505 .*$duplicate/s, 'the job says so too');
like( sql($node, "SELECT state || ' ' || attempt || ' ' || last_sqlstate || ' ' || last_error FROM _wh.jobs WHERE backfill_id = $id AND target_date = '2025-08-02'"),
	qr/^failed 1 23505 .*idx_dup_events_2025_08_02_id.*\(id\)=\(4000\)/s,
	'and of a day that is new');
is(checksum($node, 'SELECT * FROM dup.events'), $before, 'the old day still stays');
is( sql($node, "SELECT string_agg(target_date || ' ' || state, ', ' ORDER BY target_date) FROM _wh.day_loads WHERE tenant_name = 'dup'"),
	'2025-08-01 published, 2025-08-02 failed', 'the ledger says so');

# ---- a relation that we did not make -----------------------------------

sql($node, "CREATE TABLE good.events_2025_08_02 AS SELECT 'precious' AS what");
fails_with($node, "SELECT _wh.update_mv_by_template('events', 'good', '2025-08-02')",
	'42P07', qr/events_2025_08_02/, 'a relation in the way of a day is named');
($id) = enqueue_and_wait($node, "'events', 'good', '2025-08-02', '2025-08-02'");
like( sql($node, "SELECT state || ' ' || last_sqlstate || ' ' || last_error FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"),
	qr/^failed 42P07 .*events_2025_08_02/s, 'a job fails, and names it');
is(sql($node, 'SELECT what FROM good.events_2025_08_02'),
	'precious', 'the relation is as it was');

sql($node, "CREATE TABLE public.taken AS SELECT 'precious' AS what");
add_events_template($node, 'taken', indexes => '');
fails_with($node, "SELECT _wh.update_mv_by_template('taken', 'good', '$day')",
	'42P07', qr/public.*taken/, 'a relation in the way of the public view is named');
is(sql($node, "SELECT to_regclass('good.taken') IS NULL AND to_regclass('good.taken_2025_08_01') IS NULL"),
	't', 'and the call leaves nothing');
my $state;
($id, $state) = enqueue_and_wait($node, "'taken', 'good', '$day', '$day'");
is($state, 'failed', 'a backfill that cannot be published has failed');
like( sql($node, "SELECT string_agg(kind || ' ' || last_sqlstate || ' ' || last_error, ', ') FROM _wh.jobs WHERE template_name = 'taken' AND state = 'failed'"),
	qr/42P07 .*taken/, 'and its job names the relation');
is(sql($node, 'SELECT what FROM public.taken'),
	'precious', 'which is as it was');
sql($node, 'DROP TABLE public.taken');
($id, $state) = enqueue_and_wait($node, "'taken', 'good', '$day', '$day', NULL, 'all'");
is($state, 'succeeded', 'once it is gone, all is published');
same_content($node, "SELECT id, at, kind, amount, payload FROM public.taken",
	$tls, events_query($day, $day), 'with all its rows');

# ---- no secrets --------------------------------------------------------

my $secret = reader_password();
is_deeply([ grep { !is_typed_statement($_) } entries_with($secret, log_entries($node->logfile)) ], [], 'no password is in the log');
is( sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE return_message LIKE '%$secret%' OR command LIKE '%$secret%'"),
	0, 'nor in the history');

stop_proxy($_) foreach ($hang, $stall, $cut);
done_testing();
