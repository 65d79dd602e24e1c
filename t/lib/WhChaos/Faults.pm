# The faults: each is a function that does it and returns what it did, how long
# it lasts, what ends it, and the server that is not there meanwhile.  Nothing
# here looks whether it did harm.
package WhChaos::Faults;

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);
use WhChaos::Holder;
use WhChaos::World;
use WhDisk qw(room_on);
use WhTest ();

sub literal { return WhChaos::World::literal(@_) }
sub identifier { return WhChaos::World::identifier(@_) }

sub one_of
{
	return $_[ int rand @_ ];
}

sub some_time
{
	my ($from, $to) = @_;

	return $from + rand($to - $from);
}

sub random_shop { return one_of(@{ $_[0]{shops} }) }
sub random_template { return one_of(WhChaos::World::TEMPLATES) }

# A relation of ours in a tenant's schema: a day, or the table of a month.
sub random_relation
{
	my ($world, $condition) = @_;
	my $row = $world->try_sql(q{SELECT d.target_schema, d.relation, c.relkind, d.template_name,
			string_agg((d.target_date - date '} . $world->{first} . q{')::text, ' ')
		FROM _wh.day_loads d JOIN pg_class c ON c.oid = d.relation_oid } . ($condition // '') . q{ GROUP BY 1, 2, 3, 4 ORDER BY random() LIMIT 1}) // '';
	my ($schema, $name, $kind, $template, $days) = split /\|/, $row;

	return unless defined $days;
	return { schema => $schema, relation => $name, name => identifier($schema) . '.' . identifier($name),
		type => $kind eq 'm' ? 'MATERIALIZED VIEW' : 'TABLE', template => $template, days => [ split / /, $days ] };
}

# ---- processes ---------------------------------------------------------

my @processes = (
	'wh_worker launcher for %', 'wh_worker supervisor', 'wh_worker worker%', 'wh_worker worker%', 'wh_worker worker%', 'client backend',
	'checkpointer', 'walwriter', 'background writer', 'autovacuum launcher', 'autovacuum worker', 'wh_worker sql');

sub kill_process
{
	my ($world) = @_;
	my $type = one_of(@processes);
	my $signal = one_of(qw(KILL KILL TERM TERM QUIT SEGV INT));
	my $pid = $world->try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '$type' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1");

	return unless $pid;
	kill $signal, $pid or return;
	$world->{segv}++ if $signal eq 'SEGV';
	$world->{killed} = [ $pid, time() ] if $signal =~ /KILL|QUIT|SEGV/;
	return ("kill -$signal $pid, a $type");
}

# It neither works nor dies for a while.
sub freeze_process
{
	my ($world) = @_;
	my $type = one_of(@processes[ 0 .. 4 ]);
	my $pid = $world->try_sql("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '$type' ORDER BY random() LIMIT 1");

	return unless $pid && kill 'STOP', $pid;
	$world->{frozen}{$pid} = 1;
	return ("kill -STOP $pid, a $type", some_time(1, 6), sub { $world->thaw });
}

sub terminate_all_workers
{
	my ($world) = @_;
	my $how = one_of('pg_terminate_backend', 'pg_cancel_backend');
	my $count = $world->try_sql("SELECT count($how(pid)) FROM pg_stat_activity WHERE backend_type LIKE 'wh_worker worker%'");

	return defined $count ? ("$how of $count workers") : ();
}

sub restart_warehouse
{
	my ($world) = @_;
	my $mode = one_of('immediate', 'immediate', 'fast');

	$world->stop_server($world->{warehouse}, $mode);
	return ("stop -m $mode of the warehouse", some_time(0, 4), sub { $world->start_server($world->{warehouse}) }, $world->{warehouse}->name);
}

sub kill_postmaster
{
	my ($world) = @_;
	my $file = $world->{warehouse}->data_dir . '/postmaster.pid';
	my ($pid) = -e $file ? split /\n/, slurp_file($file) : ();

	return unless $pid && kill 'KILL', $pid;
	return ("kill -KILL $pid, the postmaster", some_time(0, 2), sub { $world->start_server($world->{warehouse}) }, $world->{warehouse}->name);
}

# ---- tenants -----------------------------------------------------------

sub stop_tenant
{
	my ($world) = @_;
	my $server = one_of(@{ $world->{production} });
	my $mode = one_of('immediate', 'fast');

	$world->stop_server($server, $mode);
	return ('stop -m ' . $mode . ' of ' . $server->name, some_time(1, 8), sub { $world->start_server($server) }, $server->name);
}

sub kill_tenant_session
{
	my ($world) = @_;
	my $server = one_of(@{ $world->{production} });
	my ($status, $pid) = $server->psql('postgres', "SELECT pid FROM pg_stat_activity WHERE usename = 'wh_reader' ORDER BY random() LIMIT 1");
	my $signal = one_of(qw(KILL TERM INT));

	return unless $pid && kill $signal, $pid;
	return ("kill -$signal $pid, our session at " . $server->name);
}

sub lock_tenant_table
{
	my ($world) = @_;
	my $shop = random_shop($world);
	my $holder = WhChaos::Holder->new($shop->{server}, $shop->{database}, "LOCK TABLE events IN ACCESS EXCLUSIVE MODE") or return;

	return ("lock on the table of $shop->{name}", some_time(1, 6), sub { $holder->release });
}

sub rename_tenant_table
{
	my ($world) = @_;
	my $shop = random_shop($world);
	my $rename = sub { $shop->{server}->psql($shop->{database}, "SET lock_timeout = '5s'; ALTER TABLE $_[0] RENAME TO $_[1]", stderr => \my $err) };

	return unless $rename->('events', 'elsewhere') == 0;
	return ("the table of $shop->{name} is renamed", some_time(1, 5),
		sub { $world->eventually(30, sub { $rename->('elsewhere', 'events') == 0 }) });
}

# All databases of a server; made again with its password and rights.
sub drop_tenant_role
{
	my ($world) = @_;
	my $number = int rand @{ $world->{production} };
	my $server = $world->{production}[$number];
	my @databases = map { $_->{database} } grep { $_->{server_number} == $number } @{ $world->{shops} };

	foreach my $database (@databases)
	{
		$server->psql($database, 'DROP OWNED BY wh_reader', stderr => \my $err);
	}
	$server->psql('postgres', 'DROP ROLE wh_reader', stderr => \my $err);
	return ('the role of ' . $server->name . ' is dropped', some_time(1, 5), sub {
		my $password = literal(WhTest::reader_password());

		$world->eventually(30, sub {
			$server->psql('postgres', "SELECT format('CREATE ROLE wh_reader LOGIN PASSWORD %L', $password) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'wh_reader') \\gexec", stderr => \my $error) == 0;
		});
		foreach my $database (@databases)
		{
			$world->eventually(30, sub { $server->psql($database, 'GRANT SELECT ON events TO wh_reader', stderr => \my $error) == 0 });
		}
	});
}

sub proxy_fault
{
	my ($world, $mode, $limit, $from, $to) = @_;
	my @shops = rand() < 0.3 ? @{ $world->{shops} } : (random_shop($world));

	$_->{proxy}->behave($_->{gate}, $mode, $limit) foreach @shops;
	return ("the way to " . (@shops > 1 ? 'all tenants' : $shops[0]{name}) . ": $mode $limit", some_time($from, $to),
		sub { $_->{proxy}->behave($_->{gate}, 'pass', 0) foreach @shops });
}

sub stall { return proxy_fault($_[0], 'stall', one_of(0, 2000, 6000, 20000, 100000), 1, 8) }
sub cut { return proxy_fault($_[0], 'cut', one_of(0, 2000, 6000, 20000, 100000), 1, 8) }
sub hang { return proxy_fault($_[0], 'hang', 0, 1, 6) }
sub refuse { return proxy_fault($_[0], 'refuse', 0, 1, 6) }
sub half_open { return proxy_fault($_[0], 'half_open', 0, 1, 2) }
sub slow { return proxy_fault($_[0], 'slow', 0, 1, 6) }

# ---- locks -------------------------------------------------------------

my @our_tables = qw(jobs day_loads schedules tenant_templates mv_templates warehouse tenant_connections job_run_details backfills tenant_failures);

sub hold
{
	my ($world, $statement) = @_;
	my $holder = WhChaos::Holder->new($world->{warehouse}, 'postgres', $statement) or return;

	return ($statement, some_time(1, 7), sub { $holder->release });
}

sub lock_our_table
{
	my ($world) = @_;

	return hold($world, 'LOCK TABLE _wh.' . one_of(@our_tables) . ' IN ' . one_of('ACCESS EXCLUSIVE', 'ACCESS EXCLUSIVE', 'SHARE', 'ROW EXCLUSIVE') . ' MODE');
}

sub lock_our_rows
{
	my ($world) = @_;

	return hold($world, 'SELECT count(*) FROM (SELECT FROM _wh.' . one_of(@our_tables) . ' FOR UPDATE) AS rows');
}

sub lock_day
{
	my ($world) = @_;
	my $day = random_relation($world) // return;

	return hold($world, "SELECT count(*) FROM $day->{name}") if $day->{type} ne 'TABLE' || rand() < 0.5;
	return hold($world, "LOCK TABLE $day->{name} IN " . one_of('ACCESS EXCLUSIVE', 'SHARE UPDATE EXCLUSIVE', 'SHARE') . ' MODE');
}

sub lock_view
{
	my ($world) = @_;
	my $template = random_template();
	my $view = one_of('public', identifier(random_shop($world)->{name})) . ".$template";

	return hold($world, one_of("SELECT count(*) FROM $view", "LOCK TABLE $view IN ACCESS EXCLUSIVE MODE", "LOCK TABLE $view IN ACCESS SHARE MODE"));
}

# ---- persons -----------------------------------------------------------

sub has_dropped
{
	my ($world, %what) = @_;

	push @{ $world->{dropped} }, { time => time() - $world->{started}, %what };
	return;
}

# With CASCADE the views that read it go too.
sub drop_relation
{
	my ($world) = @_;
	my $day = random_relation($world) // return;

	has_dropped($world, template => $day->{template});
	defined $world->try_sql("DROP $day->{type} $day->{name} CASCADE") or return ("somebody could not drop $day->{name}: $world->{error}");
	return ("somebody dropped $day->{name}");
}

sub drop_view
{
	my ($world) = @_;
	my $template = random_template();
	my $view = one_of('public', identifier(random_shop($world)->{name})) . ".$template";

	has_dropped($world, template => $template);
	defined $world->try_sql("DROP VIEW $view CASCADE") or return ("somebody could not drop $view: $world->{error}");
	return ("somebody dropped $view");
}

# And drops it under its new name later: its indexes have the names of the day's.
sub rename_relation
{
	my ($world) = @_;
	my $day = random_relation($world, "AND c.relname ~ '\\d{4}_\\d\\d_\\d\\d\$'") // return;
	my $other = 'mine ' . int rand 1e6;

	has_dropped($world, template => $day->{template}, name => $day->{schema}, days => $day->{days});
	defined $world->try_sql("ALTER $day->{type} $day->{name} RENAME TO " . identifier($other)) or return;
	return ("somebody renamed $day->{name}", some_time(1, 5), sub {
		has_dropped($world, template => $day->{template});
		$world->eventually(60, sub { defined $world->try_sql("DROP $day->{type} IF EXISTS " . identifier($day->{schema}) . '.' . identifier($other) . ' CASCADE') });
	});
}

sub drop_reader_role
{
	my ($world) = @_;

	defined $world->try_sql('DROP OWNED BY phood_ro; DROP ROLE phood_ro') or return;
	return ('somebody dropped the reader role', some_time(1, 4),
		sub { $world->eventually(60, sub { defined $world->try_sql(q{SELECT 'CREATE ROLE phood_ro LOGIN' WHERE to_regrole('phood_ro') IS NULL \gexec}) }) });
}

sub drop_schedule
{
	my ($world) = @_;
	my $name = $world->try_sql(q{SELECT name FROM _wh.schedules WHERE name <> 'heartbeat' ORDER BY random() LIMIT 1}) // return;

	defined $world->try_sql(one_of('SELECT _wh.unschedule(' . literal($name) . ')', 'DELETE FROM _wh.schedules WHERE name = ' . literal($name))) or return;
	return ("somebody dropped the schedule $name", some_time(1, 5), sub { $world->eventually(60, sub { defined $world->try_sql('SELECT _wh.setup_cron()') }) });
}

sub pause_something
{
	my ($world) = @_;
	my $name = literal(random_shop($world)->{name});
	my ($what, $argument) = @{ one_of([ '', '' ], [ '_tenant', $name ], [ '_schedule', literal('heartbeat') ]) };

	defined $world->try_sql("SELECT _wh.pause$what($argument)") or return;
	return ("pause$what($argument)", some_time(1, 5), sub { $world->eventually(60, sub { defined $world->try_sql("SELECT _wh.resume$what($argument)") }) });
}

sub change_setting
{
	my ($world) = @_;
	my ($name, $value) = @{ one_of([ 'wh_worker.enabled', 'off' ], [ 'wh_worker.databases', q{''} ], [ 'wh_worker.max_workers_per_tenant', '1' ],
			[ 'wh_worker.swap_lock_timeout', q{'1ms'} ], [ 'wh_worker.job_timeout', q{'1s'} ], [ 'autovacuum', 'off' ], [ 'wh_worker.worker_idle_timeout', q{'1ms'} ]) };

	defined $world->try_sql("ALTER SYSTEM SET $name = $value; SELECT pg_reload_conf()") or return;
	return ("$name = $value", some_time(1, 6), sub { $world->eventually(60, sub { defined $world->try_sql("ALTER SYSTEM RESET $name; SELECT pg_reload_conf()") }) });
}

# The template gets a column, or loses it; the days of before are loaded again.
sub change_template
{
	my ($world) = @_;
	my $template = random_template();
	my $has = ($world->try_sql("SELECT column_definitions ~ 'doubled' FROM _wh.mv_templates WHERE template_name = '$template'") // return) eq 't';
	my $columns = WhChaos::World::COLUMNS . ($has ? '' : ', doubled INTEGER');
	my $query = sprintf WhChaos::World::QUERY, $has ? '' : ', version * 2 AS doubled';

	defined $world->try_sql(sprintf 'UPDATE _wh.mv_templates SET column_definitions = %s, query_template = %s WHERE template_name = %s',
		literal($columns), literal($query), literal($template)) or return ("the columns of $template could not be changed: $world->{error}");
	$world->{outdated}{$template} = 1;
	return ("the template $template " . ($has ? 'loses a column' : 'gets a column'));
}

sub rewrite_something
{
	my ($world) = @_;
	my $day = random_relation($world);
	my @statements = map { ("VACUUM FULL _wh.$_", "REINDEX TABLE _wh.$_", "VACUUM (FREEZE, ANALYZE) _wh.$_") } qw(jobs day_loads tenant_templates job_run_details);

	push @statements, ("VACUUM FULL $day->{name}", "REINDEX TABLE $day->{name}", "REINDEX TABLE CONCURRENTLY $day->{name}") x 4 if $day;
	my $statement = one_of(@statements);

	return ($statement . (defined $world->try_sql($statement) ? '' : ": $world->{error}"));
}

sub cancel_something
{
	my ($world) = @_;
	my $call = one_of(
		'count(_wh.cancel_job(job_id)) FROM (SELECT job_id FROM _wh.jobs WHERE state IN (\'queued\', \'running\') ORDER BY random() LIMIT 3) AS jobs',
		'count(_wh.cancel_backfill(backfill_id)) FROM (SELECT backfill_id FROM _wh.backfills WHERE state = \'running\' ORDER BY random() LIMIT 1) AS backfills');
	my $count = $world->try_sql("SELECT $call") // return;

	return ("$count cancelled of $call");
}

# The warehouse writes there at the same time, so that it may take more than one try.
sub fill_disk
{
	my ($world) = @_;
	my $disk = $world->{disk} // return;
	my $filler = "$disk/../filler";
	my $room = one_of(0, 8192, 100_000);

	return if -e $filler;
	foreach my $attempt (1 .. 10)
	{
		my $size = room_on($disk) - $room;

		next unless $size > 0 && system("fallocate -l $size '$filler' 2>/dev/null") == 0;
		return ('the disk of the months is full', some_time(2, 8), sub { unlink $filler });
	}
	unlink $filler;
	return;
}

# To a later time, often over midnight; or back.
sub step_clock
{
	my ($world) = @_;
	my $offset = $world->{clock} // 0;
	my $step = one_of(600, 3600, 6 * 3600, 12 * 3600, -60, -1200, -7200);

	$offset += $step;
	return if $offset > 86400 * ($world->{spare} - 2) || $offset < -7200;
	defined $world->try_sql("ALTER SYSTEM SET wh_worker.debug_clock_offset = $offset; SELECT pg_reload_conf()") or return;
	$world->{clock} = $offset;
	return ("the clock steps by $step s");
}

# ---- which there are ---------------------------------------------------

# As often as its number before any of them comes again.
my %faults = (
	kill_process => [ 6, \&kill_process ],
	freeze_process => [ 1, \&freeze_process ],
	terminate_all_workers => [ 1, \&terminate_all_workers ],
	restart_warehouse => [ 2, \&restart_warehouse ],
	kill_postmaster => [ 1, \&kill_postmaster ],
	stop_tenant => [ 2, \&stop_tenant ],
	kill_tenant_session => [ 1, \&kill_tenant_session ],
	lock_tenant_table => [ 1, \&lock_tenant_table ],
	rename_tenant_table => [ 1, \&rename_tenant_table ],
	drop_tenant_role => [ 1, \&drop_tenant_role ],
	stall => [ 2, \&stall ],
	cut => [ 2, \&cut ],
	hang => [ 1, \&hang ],
	refuse => [ 1, \&refuse ],
	half_open => [ 1, \&half_open ],
	slow => [ 1, \&slow ],
	lock_our_table => [ 2, \&lock_our_table ],
	lock_our_rows => [ 1, \&lock_our_rows ],
	lock_day => [ 2, \&lock_day ],
	lock_view => [ 1, \&lock_view ],
	drop_relation => [ 2, \&drop_relation ],
	drop_view => [ 1, \&drop_view ],
	rename_relation => [ 1, \&rename_relation ],
	drop_reader_role => [ 1, \&drop_reader_role ],
	drop_schedule => [ 1, \&drop_schedule ],
	pause_something => [ 1, \&pause_something ],
	change_setting => [ 2, \&change_setting ],
	change_template => [ 1, \&change_template ],
	rewrite_something => [ 2, \&rewrite_something ],
	cancel_something => [ 1, \&cancel_something ],
	fill_disk => [ 2, \&fill_disk ],
	step_clock => [ 2, \&step_clock ]);

# A deck, shuffled; the caller's random numbers decide how.
sub deck
{
	my @deck = map { ($_) x $faults{$_}[0] } sort keys %faults;

	foreach my $last (reverse 1 .. $#deck)
	{
		my $other = int rand($last + 1);

		@deck[ $last, $other ] = @deck[ $other, $last ];
	}
	return @deck;
}

sub cause
{
	my ($world, $name) = @_;

	return $faults{$name}[1]->($world);
}

1;
