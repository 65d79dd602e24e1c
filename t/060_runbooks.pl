# docs/operations.md: every line of its run-books is run, from top to bottom of each
# section, in a warehouse that has the fault the section is for; what they say and
# what they mend is looked at. A section or a block that is not run fails the test.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use WhTest;

my @alerts = qw(WhDataStale WhDataAtRisk WhJobsFailed WhTenantSetAside WhQueueNotMoving WhLauncherGone WhMetricsGone WhUnionLocks WhTooManySuspectDays);
my $root = source_root();
my $dir = PostgreSQL::Test::Utils::tempdir();
my $new_password = 'a new long random one';

# ---- the file ----------------------------------------------------------

# Sections in their order: title, and the blocks of commands below it; what has no
# language is what one sees.
sub sections_of
{
	my ($file) = @_;
	my (@sections, $language, $block);

	foreach my $line (split /\n/, slurp_file($file))
	{
		if (defined $block)
		{
			$block .= "$line\n" and next unless $line eq '```';
			push @{ $sections[-1]{blocks} }, { language => $language, text => $block } if $language ne '';
			undef $block;
		}
		elsif ($line =~ /^```(\w*)$/)
		{
			($language, $block) = ($1, '');
		}
		elsif ($line =~ /^##? (.*)$/)
		{
			push @sections, { title => $1, blocks => [] };
		}
	}
	return grep { @{ $_->{blocks} } } @sections;
}

my @sections = sections_of("$root/docs/operations.md");
my %section = map { $_->{title} => $_ } @sections;

is_deeply([ grep { !$section{$_} } @alerts ], [], 'every alert has its section');
is_deeply([ grep { $_->{language} !~ /^(?:sql|sh)$/ } map { @{ $_->{blocks} } } @sections ], [], 'blocks are sql or sh');

# ---- a warehouse of two tenants ----------------------------------------

my $source = new_tenant('source');
# Room for 10 * (38 connections + 4 of autovacuum + 16 workers + 4 walsenders) = 620 locks.
my $node = new_warehouse(conf => { max_connections => 38, max_locks_per_transaction => 10, room_for_autovacuum(3),
	max_wal_senders => 4, max_worker_processes => 16 });
my ($key_file) = sql($node, 'SHOW wh_worker.key_file');
my ($today, $yesterday) = map { sql($node, "SELECT _wh.current_date_utc() - $_") } 0, 1;

create_events($source, '2025-08-01', 31, 10);
sql($source, q{INSERT INTO events SELECT 1000000 + n, now() AT TIME ZONE 'UTC' - n * interval '8 hours', 'recent', n, 'x' FROM generate_series(0, 5) n});

# A template over "events" under another name for its time.
sub add_template
{
	my ($name, $table) = @_;

	add_events_template($node, $name,
		query => qq{SELECT id, at AS logged_time, kind, amount, payload FROM $table WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1},
		columns => 'id INTEGER, logged_time TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT',
		indexes => join '; ', map { "CREATE INDEX idx_{schema}_{view_name}_$_ ON {schema}.{view_name} ($_)" } qw(id logged_time kind));
	return;
}

add_template('foodlogstats', 'events');
add_template('broken', 'no_such_table');
add_tenant($node, $_, $source, templates => ['foodlogstats'], start_date => $yesterday) foreach 'tenant_a', 'tenant_b';

# ---- running blocks ----------------------------------------------------

my ($backfill, $job, $pid) = (0, 0, 0);
my ($blocks_run, %stands_for, $standby);

sub replaced
{
	my ($text) = @_;
	my $port = $source->port;

	$text =~ s/\b4711\b/$pid/g;
	$text =~ s/\b4712\b/$job/g;
	$text =~ s/(_backfill|retry_failed)\(7\)/$1($backfill)/g;
	$text =~ s/db2\.tenant-a\.example/127.0.0.1/g;
	$text =~ s/port = 5432/port = $port/g;
	$text =~ s/\breadonly_user\b/wh_reader/g;
	$text =~ s{/etc/postgresql\b}{$node->basedir}ge;
	$text =~ s/\bwh_worker\.keys\b/keys/g;
	$text =~ s/\Q$_\E/$stands_for{$_}/g foreach keys %stands_for;
	return $text;
}

# As whom and where the first line of a block says; what it printed.
sub run_sql
{
	my ($text, $database, $superuser) = @_;
	my $server = $text =~ /^-- at the tenant$/m ? $source : $text =~ /^-- at the (?:standby|promoted server)$/m ? $standby : $node;
	my $role = $superuser || $text =~ /^-- (?:as a superuser|at the tenant)\b/m ? getpwuid($<) : 'dba';
	my ($status, $out, $err) = $server->psql($database // 'postgres', replaced($text), on_error_stop => 1, extra_params => [ '-U', $role ]);

	return ($status == 0, "$out\n", $err);
}

# With the environment of somebody who is logged in to the server.
sub run_sh
{
	my ($text, %env) = @_;
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGDATA => $node->data_dir, BACKUP => "$dir/backup", %env);
	my $status = IPC::Run::run([ 'bash', '-e', '-c', replaced($text) ], '<', '/dev/null', '>', "$dir/out", '2>', "$dir/err");

	return ($status, slurp_file("$dir/out"), slurp_file("$dir/err"));
}

# Options: before (the fault), at (what happens between blocks, by number), seen (what
# a block has to show), stands_for (further replacements), database, superuser, env (by number).
sub run_section
{
	my ($title, %opt) = @_;
	my $number = 0;

	%stands_for = %{ $opt{stands_for} // {} };
	$opt{before}->() if $opt{before};
	foreach my $block (@{ $section{$title}{blocks} })
	{
		$opt{at}{$number}->() if $opt{at}{$number};
		my ($ok, $out, $err);
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

		do
		{
			($ok, $out, $err) = $block->{language} eq 'sh' ? run_sh($block->{text}, %{ $opt{env}{$number} // {} }) : run_sql($block->{text}, $opt{database}{$number}, $opt{superuser}{$number});
		} while ($opt{comes_and_goes}{$number} && $out !~ $opt{seen}{$number} && time < $deadline);

		ok($ok, "$title: block $number runs") or diag("$block->{text}$out$err");
		like($out, $opt{seen}{$number}, "$title: block $number shows what it is for") if $opt{seen}{$number};
		$blocks_run++;
		$number++;
	}
	is(scalar(grep { $_ >= $number } map { keys %{ $opt{$_} // {} } } 'at', 'seen'), 0, "$title: it has no fewer blocks than the test expects");
	$section{$title}{run} = 1;
	%stands_for = ();
	return;
}

sub all_ended
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, q{SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')}, $name);
}

sub set_and_reload
{
	my ($setting) = @_;

	sql($node, "ALTER SYSTEM SET $setting");
	sql($node, 'SELECT pg_reload_conf()');
	return;
}

my $launcher_is = sub {
	my ($state, $error) = @_;
	return "SELECT count(*) = 1 FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND state = '$state' AND datname = 'postgres'"
	  . (defined $error ? " AND last_error = '$error'" : '');
};

# ---- the sections, in an order in which one leaves what the next needs --

run_section('Operations');
enqueue_and_wait($node, "'foodlogstats', NULL, '2025-07-20', '2025-08-31'");

my $tenant_a = q{template_name = 'foodlogstats' AND tenant_name = 'tenant_a'};

run_section('WhDataStale',
	stands_for => { '2025-08-01' => $yesterday, '2025-08-31' => $today },
	before => sub {
		sql($node, q{SELECT _wh.pause_schedule('refresh foodlogstats tenant_a'); UPDATE _wh.mv_templates SET fresh_within = '2 hours'});
	},
	seen => { 0 => qr/^foodlogstats\|tenant_a\|tenant_a\|/m, 1 => qr/^refresh foodlogstats tenant_a\|f\|/m });
wait_until($node, "SELECT freshness = 'fresh' FROM _wh.data_freshness WHERE $tenant_a", 'it is fresh');
is(sql($node, q{SELECT active, schedule FROM _wh.schedules WHERE name = 'refresh foodlogstats tenant_a'}), 't|H * * * *', 'and its schedule goes on');

run_section('WhDataAtRisk',
	before => sub {
		sql($node, q{UPDATE _wh.mv_templates SET schedule = '0 0 29 2 *'; SELECT _wh.setup_cron();
			UPDATE _wh.tenant_connections SET max_rows_per_second = 1, max_connections = 1 WHERE tenant_name = 'tenant_a'});
		$backfill = sql($node, q{SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_a', '2025-08-01', '2025-08-31', mode => 'all')});
	},
	seen => { 0 => qr/^foodlogstats\|tenant_a\|.*^\d+\|(?:queued|running)\|/ms });
wait_until($node, "SELECT count(*) = 1 FROM _wh.jobs WHERE state = 'succeeded' AND target_date = '$today' AND tenant_name = 'tenant_a' AND priority < 40 AND backfill_id > $backfill", 'the day was loaded out of turn');
is(sql($node, "SELECT state FROM _wh.backfill_progress WHERE backfill_id = $backfill"), 'paused', 'while the backfill is paused');
sql($node, "SELECT _wh.cancel_backfill($backfill); UPDATE _wh.tenant_connections SET max_rows_per_second = NULL, max_connections = NULL; UPDATE _wh.mv_templates SET fresh_within = NULL");
all_ended('nothing is left of it');

run_section('WhJobsFailed',
	before => sub {
		sql($source, 'ALTER TABLE events RENAME TO events_moved');
		$backfill = (enqueue_and_wait($node, q{'foodlogstats', 'tenant_a', '2025-08-30', '2025-08-31', mode => 'all'}))[0];
		$job = sql($node, "SELECT max(job_id) FROM _wh.jobs WHERE backfill_id = $backfill AND state = 'failed'");
	},
	at => {
		2 => sub { sql($source, 'ALTER TABLE events_moved RENAME TO events') },
		3 => sub { all_ended('what is tried again ends') } },
	seen => {
		0 => qr/\|42P01\|tenant "tenant_a": relation "events" does not exist.*\|failed\|\w+\|42P01\|/s,
		1 => qr/^connection\|f|^columns\|f/m,
		3 => qr/\A\n*\z/ });

my $closed_port = PostgreSQL::Test::Cluster::get_free_port();

run_section('WhTenantSetAside',
	stands_for => { $new_password => reader_password() },
	before => sub {
		sql($node, "UPDATE _wh.tenant_connections SET port = $closed_port, password = '" . reader_password() . "' WHERE tenant_name = 'tenant_a'");
		$backfill = sql($node, q{SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_a', '2025-08-30', '2025-08-31', mode => 'all')});
		wait_until($node, q{SELECT consecutive_failures >= 3 FROM _wh.tenant_health WHERE tenant_name = 'tenant_a'}, 'a tenant is set aside');
	},
	seen => { 0 => qr/^tenant_a\|(?:open|half-open)\|\d+\|.*^connection\|f\|/ms });
wait_until($node, q{SELECT state = 'closed' FROM _wh.tenant_health WHERE tenant_name = 'tenant_a'}, 'it is back');
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'and what waited is loaded');

# All that keeps a job from starting, at once.
run_section('WhQueueNotMoving',
	before => sub {
		set_and_reload('wh_worker.enabled = off');
		wait_until($node, $launcher_is->('waiting', 'wh_worker.enabled is off'), 'the launcher waits');
		$backfill = sql($node, q{SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_a', '2025-08-29', '2025-08-31', mode => 'all')});
		$job = sql($node, "SELECT max(job_id) FROM _wh.jobs WHERE backfill_id = $backfill");
		sql($node, "SELECT _wh.pause(), _wh.pause_backfill($backfill), _wh.pause_tenant('tenant_a')");
	},
	at => { 3 => sub { is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'the queue moves') } },
	seen => {
		0 => qr/^wh_worker\.enabled is off\|3\|.*\|waiting\|.*\|wh_worker\.enabled is off\n.*^t\|/ms,
		3 => qr/^0$/m,
		4 => qr/^\d+\|succeeded\|\|/m });

my $launcher = q{SELECT pid FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND datname = 'postgres'};
my $launcher_pid;

run_section('WhLauncherGone',
	before => sub {
		set_and_reload('wh_worker.enabled = off');
		wait_until($node, $launcher_is->('waiting', 'wh_worker.enabled is off'), 'the launcher waits');
	},
	at => { 2 => sub { wait_until($node, $launcher_is->('idle'), 'it is back'); $launcher_pid = sql($node, $launcher) } },
	seen => { 0 => qr/^wh_worker launcher\|postgres\|\|waiting\|wh_worker\.enabled is off\noff\npostgres$/m, 2 => qr/^\d+\|t$/m });
wait_until($node, "SELECT pid <> $launcher_pid AND state = 'idle' FROM _wh.worker_status WHERE pid = ($launcher)", 'a new one takes over');

sql($node, 'CREATE ROLE wh_exporter LOGIN IN ROLE pg_monitor');
run_section('WhMetricsGone', env => { 0 => { PGUSER => 'wh_exporter' } }, seen => { 0 => qr/accepting connections\n(?s:.*)\(1 row\)/ });

run_section('WhTooManySuspectDays',
	before => sub {
		sql($node, q{UPDATE _wh.mv_templates SET suspect_factor = 3 WHERE template_name = 'foodlogstats'});
		sql($source, q{CREATE TABLE lost AS SELECT * FROM events WHERE at::date = '2025-08-31' AND id % 10 <> 1; DELETE FROM events WHERE at::date = '2025-08-31' AND id % 10 <> 1});
		enqueue_and_wait($node, q{'foodlogstats', 'tenant_a', '2025-08-31', '2025-08-31', mode => 'all'});
	},
	at => {
		1 => sub { sql($source, 'INSERT INTO events SELECT * FROM lost') },
		2 => sub {
			wait_until($node, "SELECT suspect_days = 0 FROM _wh.data_freshness WHERE $tenant_a", 'mended and loaded again it is not suspect');
			sql($source, q{DELETE FROM events WHERE at::date = '2025-08-31' AND id % 10 <> 1});
			enqueue_and_wait($node, q{'foodlogstats', 'tenant_a', '2025-08-31', '2025-08-31', mode => 'all'});
			is(sql($node, "SELECT suspect_days FROM _wh.data_freshness WHERE $tenant_a"), 1, 'and once more it is');
		} },
	seen => { 0 => qr/^foodlogstats\|tenant_a\|1\ntenant_a\|2025-08-31\|1\|/m });
wait_until($node, "SELECT suspect_days = 0 FROM _wh.data_freshness WHERE $tenant_a", 'with a factor that bears it it is not');

run_section('Pause and resume',
	before => sub { $backfill = sql($node, q{SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_a', '2025-08-01', '2025-08-31', mode => 'all')}) });
# It may be just that time of the day.
sql($node, 'UPDATE _wh.tenant_connections SET quiet_hours = NULL');
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'a backfill that was paused ends');

# A reader that holds a day.
my $reader;

run_section('A reader in the way',
	before => sub {
		$reader = $node->background_psql('postgres', on_error_stop => 0, extra_params => [ '-U', 'phood_ro' ]);
		$pid = $reader->query_safe('SELECT pg_backend_pid()');
		$reader->query_safe('BEGIN; SELECT count(*) FROM tenant_a.foodlogstats_2025_08_31');
		$backfill = sql($node, q{SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_a', '2025-08-31', '2025-08-31', mode => 'all')});
		wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'waiting_lock' AND $pid = ANY (blocked_by)", 'a reader is in the way');
	},
	# between two tries to get the lock the worker does something else for a moment
	comes_and_goes => { 0 => 1 },
	seen => { 0 => qr/^foodlogstats\|tenant_a\|2025-08-31\|[^|]*\|\d+\|phood_ro\|\|idle in transaction\|.*SELECT count/m, 1 => qr/\At\nt\n+\z/ });
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'without it the day is exchanged');
$reader->{run}->kill_kill;

run_section('A tenant\'s password',
	at => { 2 => sub { fails_with($node, q{SELECT * FROM _wh.fetch_day('foodlogstats', 'tenant_a', '2025-08-31') AS f (id integer, logged_time timestamp, kind text, amount numeric, payload text)}, '28P01', qr/password/, 'the old password is refused') } },
	seen => { 2 => qr/^connection\|t\|.*^password\|t\|/ms });
is((enqueue_and_wait($node, q{'foodlogstats', 'tenant_a', '2025-08-31', '2025-08-31', mode => 'all'}))[1], 'succeeded', 'with the new one days are loaded');
sql($source, "ALTER ROLE wh_reader PASSWORD '" . reader_password() . "'");
sql($node, "UPDATE _wh.tenant_connections SET password = '" . reader_password() . "'");

my $old_keys = slurp_file($key_file);

run_section('The key of the passwords', seen => { 1 => qr/^2$/m });
isnt(slurp_file($key_file), $old_keys, 'there is another key');
is(scalar(split /\n/, slurp_file($key_file)), 1, 'and one only');
is(sql($node, q{SELECT bool_and(ok) FROM _wh.check_tenant('tenant_a')}), 't', 'which opens the passwords');

run_section('WhUnionLocks',
	at => { 1 => sub { sql($node, q{UPDATE _wh.schedules SET active = false WHERE kind LIKE 'combine%'}) } },
	seen => { 0 => qr/^foodlogstats\|public\|2\|\d+\|\d+\|\d\|t\|0\|\S/m, 1 => qr/^combine month foodlogstats tenant_a\|f\|.*"status": "combined".*^\d+$/ms });
all_ended('all is converted');
is(sql($node, q{SELECT count(*) FROM _wh.union_health WHERE advice IS NOT NULL}), 0, 'there is nothing to advise any more');
is(sql($node, q{SELECT count(*) || ' ' || count(DISTINCT schema_name) FROM foodlogstats WHERE logged_time < '2025-09-01'}), '611 2', 'and every row is there');

run_section('Start and stop',
	before => sub { $backfill = sql($node, q{SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_b', '2025-08-01', '2025-08-31', mode => 'all')}) },
	at => { 1 => sub { $node->_update_pid(1); is(sql($node, 'SHOW max_locks_per_transaction'), 256, 'the server was restarted') },
		2 => sub { wait_until($node, $launcher_is->('waiting'), 'the warehouse is stopped') } });
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"), 'succeeded', 'what ran is loaded after all');

# ---- what there is to look at every day --------------------------------

run_section('Every day',
	before => sub {
		sql($node, q{SELECT _wh.subscribe('tenant_b', 'broken'); SELECT _wh.enqueue_backfill('broken', 'tenant_b', '2025-08-31', '2025-08-31')});
		sql($node, q{SET SESSION AUTHORIZATION whadmin; SELECT _wh.schedule('divide', '1 second', 'SELECT 1 / 0')});
		sql($node, qq{UPDATE _wh.tenant_connections SET port = $closed_port, password = 'x' WHERE tenant_name = 'tenant_b'; UPDATE _wh.mv_templates SET fresh_within = '1 hour' WHERE template_name = 'broken'})
		  if wait_until($node, q{SELECT count(*) = 2 FROM (SELECT 1 FROM _wh.jobs WHERE state = 'failed' AND template_name = 'broken' UNION ALL SELECT 1 FROM _wh.schedules WHERE name = 'divide' AND last_status LIKE 'failed%') f}, 'a day and a command fail');
		sql($node, q{SELECT _wh.pause_schedule('divide'); SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_b', '2025-08-31', '2025-08-31', mode => 'all'); SELECT _wh.pause_tenant('tenant_a')});
		wait_until($node, q{SELECT state <> 'closed' FROM _wh.tenant_health WHERE tenant_name = 'tenant_b'}, 'a tenant is set aside');
		wait_until($node, q{SELECT last_status LIKE 'failed%' FROM _wh.schedules WHERE name = 'divide'}, 'the last run of the command has failed');
	},
	# its job runs, too, whenever it is looked whether the tenant is back
	comes_and_goes => { 3 => 1 },
	seen => {
		0 => qr/^wh_worker supervisor\|\|idle\|\nwh_worker launcher\|postgres\|idle\|/m,
		1 => qr/^broken\|tenant_b\|/m,
		2 => qr/^broken\|tenant_b\|refresh\|42P01\|1\|.*^divide\|.*\|failed: division by zero$/ms,
		3 => qr/^tenant_b\|(?:open|half-open)\|.*^tenant_a\n.*\|1\|/ms });
sql($node, "UPDATE _wh.tenant_connections SET port = " . $source->port . ", password = '" . reader_password() . "', active = true; SELECT _wh.unsubscribe('tenant_b', 'broken')");
all_ended('all is well again');

# ---- back up and restore -----------------------------------------------

my $copy_port = PostgreSQL::Test::Cluster::get_free_port();
my $copy_sql = sub {
	my ($out, $err);
	IPC::Run::run([ 'psql', '-XAtq', '-h', $dir, '-p', $copy_port, '-d', 'postgres', '-c', $_[0] ], '>', \$out, '2>', \$err);
	return $out;
};
my $copy_eventually = sub {
	my ($query, $answer) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (time < $deadline)
	{
		return 1 if $copy_sql->($query) =~ $answer;
	}
	return 0;
};

run_section('Back up and restore',
	at => {
		4 => sub {
			is(sql($node, 'SELECT count(*) FROM _wh.day_loads', 'restored'), sql($node, 'SELECT count(*) FROM _wh.day_loads'), 'the ledger is restored');
			is(sql($node, 'SELECT count(*) FROM _wh.tenant_connections', 'restored'), 2, 'and the tenants');
			set_and_reload(q{wh_worker.databases = 'postgres, restored'});
			wait_until($node, q{SELECT state = 'waiting' AND last_error LIKE '%is a copy that waits to be confirmed%' FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND datname = 'restored'}, 'the copy waits to be confirmed');
		} },
	seen => { 4 => qr/^the warehouse is a copy that waits to be confirmed\n.*"backfills"/s },
	database => { 4 => 'restored' });
ok($node->poll_query_until('restored', q{SELECT count(*) = 0 FROM _wh.backfills WHERE state = 'running'}), 'the days that are not there are loaded again');
is(sql($node, q{SELECT count(*) FROM foodlogstats WHERE logged_time < '2025-09-01'}, 'restored'), sql($node, q{SELECT count(*) FROM foodlogstats WHERE logged_time < '2025-09-01'}), 'every row of them');

# The copy is a server of its own; it asks nobody.
ok(IPC::Run::run([ 'pg_ctl', '-D', "$dir/backup", '-w', '-l', "$dir/backup.log", '-o', "-p $copy_port -k $dir -c listen_addresses=''", 'start' ], '>', '/dev/null', '2>', '/dev/null'), 'the copy starts');
ok($copy_eventually->(q{SELECT state, last_error FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'}, qr/^waiting\|wh_worker\.enabled is off$/m), 'and loads nothing');
is($copy_sql->(q{SELECT count(*) FROM foodlogstats WHERE logged_time < '2025-09-01'}) + 0, sql($node, q{SELECT count(*) FROM foodlogstats WHERE logged_time < '2025-09-01'}), 'all rows are in it');
IPC::Run::run([ 'pg_ctl', '-D', "$dir/backup", '-m', 'immediate', '-w', 'stop' ], '>', '/dev/null', '2>', '/dev/null');
set_and_reload(q{wh_worker.databases = 'postgres'});

# ---- a standby ---------------------------------------------------------

run_section('Standby, promotion, PITR',
	before => sub {
		$standby = PostgreSQL::Test::Cluster->new('standby', defined $ENV{WH_WAREHOUSE_INSTALL} ? (install_path => $ENV{WH_WAREHOUSE_INSTALL}) : ());
		$node->backup('standby');
		$standby->init_from_backup($node, 'standby', has_streaming => 1);
		$standby->start;
		$node->wait_for_catchup($standby);
		$ENV{STANDBY} = $standby->data_dir;
	},
	at => { 3 => sub { wait_until($standby, $launcher_is->('idle'), 'the promoted server works') } },
	seen => { 0 => qr/\Awh_worker supervisor\|\|standby\|\nwh_worker launcher\|postgres\|standby\|\n+\z/, 3 => qr/^wh_worker launcher\|postgres\|idle\|$/m });
delete $ENV{STANDBY};
$standby->stop;
sql($node, "ALTER SYSTEM RESET $_") foreach 'synchronous_standby_names', 'wh_worker.enabled';
sql($node, 'SELECT pg_reload_conf()');
wait_until($node, $launcher_is->('idle'), 'so does the first one again');

run_section('Upgrade', at => { 1 => sub { $node->_update_pid(1) } }, seen => { 2 => qr/^1\.0\nwh_worker supervisor\|/m });
run_section('Capacity', seen => { 0 => qr/^20\d\d-\d\d-\d\d .*\|\d+\|\d+\.\d\|\d+\.\d\d$/m, 2 => qr/^foodlogstats\|2\|\d+\|\d+\|/m });

# A transaction that somebody left open is the one to end.
my $left_open = $node->background_psql('postgres');
$left_open->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $left_open_pid = $left_open->query_safe('SELECT pg_backend_pid()');
run_section('What grows', superuser => { 1 => 1 }, seen => { 0 => qr/^pg_attribute\|.*\|\d+\|\d+\|/m, 1 => qr/^session $left_open_pid\|\d+\|.*\|idle in transaction$/m });
$left_open->quit;

# What they show is looked at by t/055_logs.pl and t/056_progress.pl.
run_section('The log', superuser => { 0 => 1 });
run_section('Watching a load');

run_section('A disk is full',
	stands_for => { '30 seconds' => '1 second' },
	seen => { 0 => qr/^foodlogstats\|tenant_[ab]\|\d+\|\d+\|.*^pg_default\|.*^\d+\|\d+ [kM]B$/ms },
	at => { 2 => sub { wait_until($node, q{SELECT count(*) = 0 FROM _wh.day_loads WHERE template_name = 'foodlogstats' AND target_date < '2025-09-01'}, 'what is too old goes') } });

my $lock = $node->background_psql('postgres', extra_params => [ '-U', 'whadmin' ]);
$pid = $lock->query_safe('BEGIN; LOCK TABLE _wh.jobs; SELECT pg_backend_pid()');
wait_until($node, $launcher_is->('waiting'), 'the launcher finds a table locked');
run_section('A table of the warehouse is locked', superuser => { 1 => 1 }, seen => { 0 => qr/^wh_worker launcher\|waiting\|table "_wh\.jobs" is locked by process $pid\|$pid\|/m });
wait_until($node, $launcher_is->('idle'), 'it goes on');
$lock->{run}->finish if $lock->{run};

run_section('Rename, move or drop the database',
	stands_for => { old_name => 'restored', new_name => 'renamed' },
	before => sub { set_and_reload(q{wh_worker.databases = 'restored'}); $node->poll_query_until('restored', q{SELECT state = 'idle' FROM _wh.worker_status WHERE datname = 'restored' AND backend_type ~ 'launcher'}) },
	at => { 1 => sub { wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'restored'}, 'all have left it') } });
wait_until($node, q{SELECT count(*) = 1 FROM _wh.worker_status WHERE datname = 'renamed' AND state = 'idle' AND backend_type ~ 'launcher'}, 'it is a warehouse under its new name');
my $rows = sql($node, 'SELECT count(*), sum(id) FROM foodlogstats', 'renamed');
$node->poll_query_until('renamed', q{SELECT count(*) = 0 FROM _wh.jobs WHERE state = 'running'});
run_section('Leave wh_worker', database => { 0 => 'renamed', 1 => 'renamed' }, seen => { 0 => qr/^0$/m });
is(sql($node, 'SELECT count(*), sum(id) FROM foodlogstats', 'renamed'), $rows, 'every row is there without it');
set_and_reload(q{wh_worker.databases = 'postgres'});

my $data = $node->data_dir;
my ($directory) = sql($node, q{SELECT pg_relation_filepath('pg_class')}) =~ m{^(.*)/};

run_section('Files that a crash has left',
	before => sub {
		PostgreSQL::Test::Utils::append_to_file("$data/$directory/$_", 'x' x 8192) foreach '987654', '987654_fsm';
		wait_until($node, 'SELECT count(*) = 2 FROM _wh.orphaned_files()', 'there are such files');
		# of a relation there, for all that anybody knows
		PostgreSQL::Test::Utils::append_to_file($source->data_dir . "/$directory/987654", 'x');
	},
	env => { 1 => { PGDATA => $source->data_dir } },
	seen => { 0 => qr{^pg_default\|\Q$directory\E/987654\|8192\|}m });
ok(!-e "$data/$directory/987654" && !-e "$data/$directory/987654_fsm", 'they are removed');
ok(-e $source->data_dir . "/$directory/987654", 'and nothing of another cluster that PGDATA names');
is(sql($node, 'SELECT count(*) FROM _wh.orphaned_files()'), 0, 'and there is none');

# ---- all of it ---------------------------------------------------------

is_deeply([ map { $_->{title} } grep { !$_->{run} } @sections ], [], 'every section was run');
is($blocks_run, scalar(map { @{ $_->{blocks} } } @sections), 'and every block');

done_testing();
