# Whatever a job or a call fails of, its process is afterwards what it was before:
# no memory context more, no connection, descriptor, snapshot, lock or temporary
# file. Each fault happens a few times before the first look, for what is made once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;
use WhHostile;

my $day = '2025-08-01';
my ($warm_up, $rounds) = (2, 2);
my $tenant = new_tenant('production');
my $hostile = new_hostile_server();
my $cut = new_proxy(target => $tenant->port, mode => 'cut', limit => 200_000);
my $stall = new_proxy(target => $tenant->port, mode => 'stall', limit => 200_000);
my $node = new_warehouse(
	conf => {
		'wh_worker.max_workers' => 1,
		'wh_worker.max_attempts' => 1,
		'wh_worker.retry_delay' => "'20ms'",
		'wh_worker.retry_delay_max' => "'50ms'",
		'wh_worker.fetch_idle_timeout' => "'1s'",
		'wh_worker.job_timeout' => "'3s'",
		'wh_worker.max_row_size' => "'1MB'",
		'wh_worker.max_day_size' => "'8MB'",
		'wh_worker.worker_idle_timeout' => "'30min'",
	});

# ---- the faults ----------------------------------------------------------

create_events($tenant, $day, 2, 3000, width => 200);
$tenant->safe_psql('postgres', q{
	CREATE TABLE doubled AS SELECT n % 500 AS id FROM generate_series(1, 1000) AS n;
	GRANT SELECT ON doubled TO wh_reader});

# Of templates: query, columns, indexes; what the job says.
my $dated = "WHERE '{TARGET_DATE}' <> ''";
my %faulty = (
	late_error => [ "id / (CASE WHEN id % 3000 = 2900 THEN 0 ELSE 1 END) AS id FROM events WHERE at::date = '{TARGET_DATE}'", 'id integer', '', '22012' ],
	no_table => [ "id FROM nonesuch $dated", 'id integer', '', '42P01' ],
	too_long => [ "payload FROM events WHERE at::date = '{TARGET_DATE}'", 'payload varchar(10)', '', '22001' ],
	not_unique => [ "id FROM doubled $dated", 'id integer', 'CREATE UNIQUE INDEX {view_name}_id ON {schema}.{view_name} (id)', '23505' ],
	in_the_way => [ "id FROM doubled $dated", 'id integer', '', '42P07' ],
	in_the_view => [ "id FROM doubled $dated", 'id integer', '', undef ],
	sleeping => [ "id FROM doubled $dated AND pg_sleep(600) IS NOT NULL", 'id integer', '', '08006' ]);

# Of tenants' servers, as WhHostile has them.
my @hostile = qw(lying_tag describes_more describes_others describes_nothing fewer_columns many_columns bad_signature
  endless_header no_trailer data_after_end negative_field field_of_2_gb message_of_2_gb wrong_value wrong_encoding copy_in copy_both no_copy
  no_protocol many_rows endless_row large_row many_notices endless_notices many_parameters huge_message success_as_error
  no_sqlstate forged_greeting endless_ends silent_rows);
my %known = map { $_ => 1 } hostile_behaviours();

@hostile = grep { $known{$_} } @hostile;
cmp_ok(scalar @hostile, '>=', 28, 'the hostile server can do what is asked of it');

add_tenant($node, 'shop', $tenant);
foreach my $name (sort keys %faulty)
{
	my ($query, $columns, $indexes) = @{ $faulty{$name} };

	add_events_template($node, $name, query => "SELECT $query", columns => $columns, indexes => $indexes);
	sql($node, "SELECT _wh.subscribe('shop', '$name', NULL, '$day')");
}
add_events_template($node, 'parts', query => "SELECT id, at FROM events, (VALUES (1), (2)) AS twice WHERE at::date = '{TARGET_DATE}'",
	columns => 'id integer, at timestamp', indexes => 'CREATE UNIQUE INDEX {view_name}_id ON {schema}.{view_name} (id)');
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'parts'; SELECT _wh.subscribe('shop', 'parts', NULL, '$day')");
add_events_template($node, 'events');
add_events_template($node, 'notes', query => q{SELECT id, note FROM notes WHERE day = '{TARGET_DATE}'},
	columns => 'id integer, note text', indexes => '');
add_tenant($node, 'cut', $tenant, port => $cut->{port}, templates => ['events'], start_date => $day);
add_tenant($node, 'stalled', $tenant, port => $stall->{port}, templates => ['events'], start_date => $day);
add_tenant($node, 'stranger', $tenant, password => 'wrong', templates => ['events'], start_date => $day);
add_tenant($node, 'down', $tenant, port => PostgreSQL::Test::Cluster::get_free_port(), templates => ['events'], start_date => $day);
foreach my $name (@hostile)
{
	add_tenant($node, $name, undef, port => $hostile->{port}, database => $name,
		sslmode => 'disable', templates => ['notes'], start_date => $day);
}

# Commands of our own that fail, or whose process does.
sql($node, q{
	UPDATE _wh.schedules SET active = false;
	CREATE ROLE analyst LOGIN;
	GRANT analyst TO whadmin;
	INSERT INTO _wh.schedules (name, schedule, kind, command, username) VALUES
		('fails', '0 0 1 1 *', 'sql', 'SELECT 1 / 0', 'analyst'),
		('leaves', '0 0 1 1 *', 'sql', 'SELECT pg_terminate_backend(pg_backend_pid())', 'analyst')});
# What is in the way of a day, and of a view.
sql($node, "CREATE TABLE shop.in_the_way_2025_08_01 (); CREATE TABLE public.in_the_view ()");

# ---- all of them, as jobs ------------------------------------------------

my $ended = q{NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running') AND tenant_name IS DISTINCT FROM 'down')};

sub let_all_fail
{
	sql($node, 'SELECT _wh.pause()');
	sql($node, "SELECT _wh.enqueue_backfill(template_name, tenant_name, '$day', '$day', NULL, 'all') FROM _wh.tenant_templates");
	sql($node, q{INSERT INTO _wh.jobs (kind, schedule_id, priority) SELECT 'sql', schedule_id, 25 FROM _wh.schedules WHERE kind = 'sql'});
	sql($node, 'SELECT _wh.resume()');
	$node->poll_query_until('postgres', "SELECT $ended") or die 'a job does not end';
	sql($node, 'SELECT _wh.pause()');
	$node->poll_query_until('postgres', "SELECT bool_and(state = 'idle') FROM _wh.worker_status WHERE backend_type = 'wh_worker worker' AND pid IS NOT NULL")
	  or die 'the worker does not become idle';
	return;
}

sub pid_of
{
	my ($kind) = @_;

	return sql($node, "SELECT pid FROM _wh.worker_status WHERE backend_type = 'wh_worker $kind' AND pid IS NOT NULL");
}

# Contexts by name: how many, and the bytes used of them. Not those of what PostgreSQL
# caches of relations and rows of catalogs, nor plans, which are made again when needed.
sub contexts_of
{
	my ($pid) = @_;
	my $from = log_end($node);
	my (%count, %bytes, $cache_level);

	sql($node, "SELECT pg_log_backend_memory_contexts($pid)");
	$node->wait_for_log(qr/PID $pid\b.*Grand total: /s, $from);
	foreach my $line (split /\n/, slurp_file($node->logfile, $from))
	{
		my ($level, $name, $used) = $line =~ /\[$pid\].*level: (\d+); (.*?): \d+ total in .*? (\d+) used/ or next;

		$cache_level = undef if defined $cache_level && $level <= $cache_level;
		$cache_level = $level if $name eq 'CacheMemoryContext';
		next if $name eq 'CachedPlan' || defined $cache_level && $name !~ /^CachedPlan/;
		$count{$name}++;
		$bytes{$name} += $used;
	}
	return (\%count, \%bytes);
}

# What there is more of than there was, by more than is allowed; a fault that leaves
# something behind does so in every round.
sub grown
{
	my ($now, $before, $allowed) = @_;

	return map { "$_: $before->{$_} -> $now->{$_}" }
	  grep { $now->{$_} - ($before->{$_} //= 0) > $allowed } sort keys %$now;
}

# Sockets and sets of events by kind; files of relations stay open by design.
sub descriptors_of
{
	my ($pid) = @_;
	my %count;

	foreach my $file (glob "/proc/$pid/fd/*")
	{
		my ($kind) = (readlink($file) // '') =~ /^(socket|pipe|anon_inode:\S+)/ or next;
		$count{$kind}++;
	}
	return \%count;
}

sub holds_nothing
{
	my ($pid, $who) = @_;

	my $held = "SELECT (SELECT count(*) FROM pg_locks WHERE pid = $pid) || ' ' || (SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL)) || ' ' || (SELECT count(*) FROM pg_ls_tmpdir())";

	# the launcher alone is never at rest for long
	$node->poll_query_until('postgres', $held, '0 0 0') if $who eq 'the launcher';
	is(sql($node, $held), '0 0 0', "$who holds no lock, has no snapshot and no temporary file");
	return;
}

let_all_fail() foreach 1 .. $warm_up;
my %pid = map { $_ => pid_of($_) } qw(worker launcher supervisor);
my %before = map { $_ => [ contexts_of($pid{$_}), descriptors_of($pid{$_}) ] } qw(worker launcher);
my $failures = sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE status <> 'succeeded'");

let_all_fail() foreach 1 .. $rounds;
foreach my $who (qw(worker launcher))
{
	my ($count, $bytes) = contexts_of($pid{$who});
	my ($old_count, $old_bytes, $old_descriptors) = @{ $before{$who} };

	is(pid_of($who), $pid{$who}, "the $who is the same as before");
	is_deeply([ grown($count, $old_count, $rounds - 1) ], [], "the $who has the memory contexts that it had");
	is_deeply([ grown($bytes, $old_bytes, 16_384) ], [], 'and hardly more in them');
	is_deeply(descriptors_of($pid{$who}), $old_descriptors, 'and the sockets and sets of events');
	holds_nothing($pid{$who}, "the $who");
}
cmp_ok(sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE status <> 'succeeded'") - $failures,
	'>=', $rounds * (@hostile + keys %faulty), 'every one of them failed, every time');
foreach my $name (sort grep { defined $faulty{$_}[3] } keys %faulty)
{
	is( sql($node, "SELECT string_agg(DISTINCT last_sqlstate, ' ') FROM _wh.jobs WHERE template_name = '$name' AND kind = 'refresh'"),
		$faulty{$name}[3], "$name: as it was meant to");
}
is( sql($node, "SELECT string_agg(DISTINCT kind || ' ' || last_sqlstate, ', ') FROM _wh.jobs WHERE state = 'failed' AND (template_name IN ('in_the_view', 'parts') OR kind = 'sql')"),
	'publish 42P07, refresh 23505, sql 22012, sql 57P01', 'so did a view, a part, and commands');
cmp_ok(sql($tenant, tenant_sessions()), '<=', 1, 'at the tenant there is one connection at most');
is( sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%' AND relkind <> 't'"),
	0, 'no transient relation is left');

# ---- the same in a session that calls functions which run at once ----------

sql($node, 'SELECT _wh.resume()');
my $session = $node->background_psql('postgres', on_error_stop => 0);
my @calls = (
	(map { "SELECT _wh.update_mv_by_template('notes', '$_', '$day')" } grep { $_ ne 'silent_rows' } @hostile),
	(map { "SELECT _wh.update_mv_by_template('$_', 'shop', '$day')" } grep { $_ ne 'sleeping' } sort keys %faulty),
	"SELECT _wh.update_mv_by_template('parts', 'shop', '$day')",
	(map { "SELECT _wh.update_mv_by_template('events', '$_', '$day')" } qw(cut stranger down)),
	"SELECT count(*) FROM _wh.fetch_day('late_error', 'shop', '$day') AS t(id integer)",
	"SELECT count(*) FROM _wh.fetch_day('events', 'cut', '$day') AS t(id integer, at timestamp, kind text, amount numeric, payload text)",
	"SELECT count(*) FROM _wh.check_tenant('down')",
	"SELECT count(*) FROM _wh.check_template('no_table', 'shop')",
	"BEGIN; SELECT _wh.update_mv_by_template('late_error', 'shop', '$day'); ROLLBACK",
	"DO \$\$ BEGIN PERFORM count(*) FROM _wh.fetch_day('late_error', 'shop', '$day') AS t(id integer); EXCEPTION WHEN OTHERS THEN NULL; END \$\$");

sub call_all
{
	foreach my $call (@calls)
	{
		$session->query($call);
		$session->{stderr} = '';
	}
	return;
}

sub contexts_of_session
{
	# 18 has the parents of a context by their numbers.
	my $parent = $node->pg_version < 18 ? 'c.parent' :
	  '(SELECT p.name FROM contexts p WHERE p.path[p.level] = c.path[c.level - 1])';
	my $list = $session->query_safe(qq{WITH contexts AS (SELECT * FROM pg_backend_memory_contexts)
		SELECT string_agg(name || '=' || n, ',')
		FROM (SELECT name, count(*) AS n FROM contexts c
			WHERE name <> 'CachedPlan' AND ($parent IS DISTINCT FROM 'CacheMemoryContext' OR name LIKE 'CachedPlan%') GROUP BY name) AS by_name});

	return { map { split /=/ } split /,/, $list };
}

call_all() foreach 1 .. $warm_up;
my $pid = $session->query_safe('SELECT pg_backend_pid()');
my $contexts = contexts_of_session();
my $descriptors = descriptors_of($pid);
call_all() foreach 1 .. $rounds;
is_deeply([ grown(contexts_of_session(), $contexts, $rounds - 1) ], [], 'a session has the memory contexts that it had');
is_deeply(descriptors_of($pid), $descriptors, 'and the sockets and sets of events');
is($session->query_safe('SELECT pg_backend_pid()'), $pid, 'and is the same');
holds_nothing($pid, 'the session');
$session->quit;
is( sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'pg\\_temp\\_%' AND relkind <> 't'"),
	0, 'no transient relation is left by calls');

done_testing();
