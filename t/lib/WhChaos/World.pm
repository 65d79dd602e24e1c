# The world that faults are done to: tenants' servers, each with the databases of
# some tenants, a warehouse that reads them through proxies, two templates (one of
# each layout), and what all of them should contain.
#
# The rows of a day follow from the tenant, the day and a version, the number of
# times that the day was changed there, which every row carries.  So any answer of
# a view can be judged by itself: the rows of one version, all of them, once.
package WhChaos::World;

use strict;
use warnings;

use IO::Select;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);
use WhChaos::Proxy;
use WhDisk qw(small_disk);
use WhTest;

use constant TEMPLATES => ('sales', 'visits');
use constant QUERY => q{SELECT id, at, version, amount, payload%s FROM events
	WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1};
use constant COLUMNS => 'id INTEGER, at TIMESTAMP, version INTEGER, amount NUMERIC, payload TEXT';

# At a tenant: the rows of a day in this version instead of what is there.
my $set_day = q{
	CREATE TABLE events (id integer, at timestamp, version integer, amount numeric, payload text);
	CREATE INDEX ON events (at);
	GRANT SELECT ON events TO wh_reader;
	CREATE FUNCTION set_day(number integer, version integer) RETURNS void BEGIN ATOMIC
		DELETE FROM events WHERE at >= date '%1$s' + number AND at < date '%1$s' + number + 1;
		INSERT INTO events
		SELECT number * 100000 + k, date '%1$s' + number + k * interval '1 second', version, k * version + %2$d,
			rpad(md5(concat(k, ' ', version, ' ', %2$d)), CASE WHEN number %% 10 = 3 THEN 4000 ELSE 40 END, md5(k::text))
		FROM generate_series(1, 3 + (number * 7 + %2$d) %% 23 + CASE WHEN number %% 10 = 3 THEN 150 ELSE 0 END + version) AS k;
	END;
	SELECT set_day(n, 0) FROM generate_series(0, %3$d) AS n;
};

sub identifier
{
	my ($name) = @_;

	return '"' . ($name =~ s/"/""/gr) . '"';
}

sub literal
{
	my ($text) = @_;

	return "'" . ($text =~ s/'/''/gr) . "'";
}

# Options: servers, tenants, days (before today), spare (after today).
sub new
{
	my ($class, %opt) = @_;
	my $self = bless { %opt, versions => {}, promises => [], dropped => [], started => time(), segv => 0, findings => [] }, $class;

	$self->{first} = POSIX::strftime('%Y-%m-%d', gmtime(time() - 86400 * $opt{days}));
	$self->make_tenants;
	$self->make_warehouse;
	return $self;
}

sub make_tenants
{
	my ($self) = @_;
	my @servers = map { new_tenant("chaos_production_$_", conf => { restart_after_crash => 'on' }) } 1 .. $self->{servers};

	$self->{production} = \@servers;
	foreach my $n (1 .. $self->{tenants})
	{
		my $server = $servers[ $n % @servers ];
		my $database = sprintf 'shop_%02d', $n;
		my $tenant = { number => $n, database => $database, server => $server, server_number => $n % @servers,
			name => $n == 3 ? qq(O'Neil "$n") : $database };

		$server->safe_psql('postgres', "CREATE DATABASE $database");
		$server->safe_psql($database, sprintf $set_day, $self->{first}, $n, $self->{days} + $self->{spare});
		push @{ $self->{shops} }, $tenant;
	}
	foreach my $number (0 .. $#servers)
	{
		my @shops = grep { $_->{server_number} == $number } @{ $self->{shops} };
		my $proxy = WhChaos::Proxy->new(map { $_->{server}->port } @shops);

		push @{ $self->{proxies} }, $proxy;
		foreach my $gate (0 .. $#shops)
		{
			@{ $shops[$gate] }{qw(proxy gate)} = ($proxy, $gate);
		}
	}
	return;
}

sub make_warehouse
{
	my ($self) = @_;
	my $node = new_warehouse(
		name => 'chaos_warehouse',
		conf => {
			max_connections => 80,
			max_worker_processes => 20,
			max_locks_per_transaction => 256,
			log_line_prefix => "'%m [%p] %b %e '",
			log_lock_waits => 'on',
			deadlock_timeout => "'500ms'",
			autovacuum_naptime => "'5s'",
			checkpoint_timeout => "'30s'",
			idle_in_transaction_session_timeout => "'30s'",
			'wh_worker.connect_timeout' => "'2s'",
			'wh_worker.fetch_idle_timeout' => "'3s'",
			'wh_worker.job_timeout' => "'60s'",
			'wh_worker.worker_idle_timeout' => "'3s'",
			'wh_worker.max_workers_per_tenant' => 2,
			'wh_worker.catchup_days' => 1000 });

	$self->{warehouse} = $node;
	foreach my $template (TEMPLATES)
	{
		add_events_template($node, $template, query => sprintf(QUERY, ''), columns => COLUMNS, schedule => '15 seconds');
	}
	sql($node, q{UPDATE _wh.mv_templates SET date_column = 'at', settle_days = 0;
		UPDATE _wh.mv_templates SET layout = 'partitions' WHERE template_name = 'visits'});
	sql($node, 'CREATE EXTENSION amcheck');
	$self->use_small_disk;
	foreach my $shop (@{ $self->{shops} })
	{
		add_tenant($node, $shop->{name}, $shop->{server}, port => $shop->{proxy}->port($shop->{gate}),
			database => $shop->{database}, templates => [TEMPLATES], start_date => $self->{first});
	}
	sql($node, q{CREATE TABLE public.heartbeat (at timestamptz);
		ALTER TABLE public.heartbeat OWNER TO whadmin;
		SELECT _wh.schedule('heartbeat', '2 seconds', 'INSERT INTO public.heartbeat VALUES (clock_timestamp())')});
	return;
}

# Tables of months are made on a disk that faults can fill, where there is one.
sub use_small_disk
{
	my ($self) = @_;
	my $disk = small_disk('chaos') // return;

	$self->{disk} = $disk;
	sql($self->{warehouse}, "CREATE TABLESPACE small LOCATION '$disk'");
	sql($self->{warehouse}, q{GRANT CREATE ON TABLESPACE small TO whadmin; UPDATE _wh.mv_templates SET month_tablespace = 'small'});
	return;
}

# ---- what should be there ----------------------------------------------

# What all rows of a day are in a version: how many, and the sum of the amounts.
sub expected
{
	my ($self, $shop, $day, $version) = @_;
	my $rows = 3 + ($day * 7 + $shop->{number}) % 23 + ($day % 10 == 3 ? 150 : 0) + $version;

	return ($rows, $version * $rows * ($rows + 1) / 2 + $shop->{number} * $rows);
}

sub version
{
	my ($self, $shop, $day) = @_;

	return $self->{versions}{ $shop->{name} }{$day} // 0;
}

# Another version of a day at its tenant, and the warehouse is asked to load it.
# The commit at the tenant may succeed although we do not hear of it: then the
# same version is written again.
sub change_day
{
	my ($self, $shop, $day, @templates) = @_;
	my $version = $self->version($shop, $day) + 1;
	my ($status) = $shop->{server}->psql($shop->{database}, "SET statement_timeout = '10s'; SET lock_timeout = '1s'; SELECT set_day($day, $version)",
		stderr => \my $err);

	if (!defined $status || $status != 0)
	{
		$self->{maybe}{ $shop->{name} }{$day} = $version;
		return;
	}
	$self->{versions}{ $shop->{name} }{$day} = $version;
	foreach my $template (@templates)
	{
		my $id = $self->try_sql(sprintf "SELECT _wh.enqueue_backfill('%s', %s, date '%s' + %d, date '%3\$s' + %4\$d, mode => 'all')",
			$template, literal($shop->{name}), $self->{first}, $day);

		push @{ $self->{promises} }, { backfill => $id, shop => $shop, day => $day, template => $template, version => $version } if $id;
	}
	return;
}

# ---- asking a server that may be away ----------------------------------

# The answer, or undef; then $self->{error} says why.
sub try_sql
{
	my ($self, $query, $timeout) = @_;
	my $timed_out;
	my ($status, $out, $err);

	eval {
		$self->{warehouse}->psql('postgres', "SET lock_timeout = '5s'; SET statement_timeout = '8s';\n$query", stdout => \$out, stderr => \$err,
			timeout => $timeout // 30, timed_out => \$timed_out, on_error_stop => 1) == 0 and $status = 1;
		1;
	} or $err = $@;
	$self->{error} = $timed_out ? 'timed out' : $err;
	return $status ? $out // '' : undef;
}

sub is_up
{
	my ($self) = @_;

	return defined $self->try_sql('SELECT 1', 10);
}

# What becomes of a backfill of all days, of all tenants unless it says otherwise.
sub backfill
{
	my ($self, $template, $mode, $seconds) = @_;
	my $id = WhTest::sql($self->{warehouse},
		"SELECT _wh.enqueue_backfill('$template', NULL, date '$self->{first}', _wh.current_date_utc(), mode => '$mode')");

	return WhTest::sql($self->{warehouse}, "SELECT _wh.wait_for_backfill($id, '$seconds s')");
}

# True as soon as the check is, false when it is not within the seconds.
sub eventually
{
	my ($self, $seconds, $check) = @_;
	my $deadline = time() + $seconds;

	while (1)
	{
		return 1 if $check->();
		return 0 if time() > $deadline;
		usleep(200_000);    # poll interval
	}
}

# pg_ctl, without a word and without giving up the test when it fails.
sub control
{
	my ($self, $node, @action) = @_;
	my $log = $node->logfile . '.control';

	local %ENV = (%ENV, %{ { $node->_get_env() } });
	return system(sprintf "%s -D '%s' -l '%s' -t 60 %s >>'%s' 2>&1", $node->installed_command('pg_ctl'), $node->data_dir,
		$node->logfile, join(' ', @action), $log) == 0;
}

# No process of the warehouse is stopped any more: a server with one cannot end.
sub thaw
{
	my ($self) = @_;

	kill 'CONT', $_ foreach keys %{ delete $self->{frozen} // {} };
	return;
}

sub stop_server
{
	my ($self, $node, $mode) = @_;

	$self->thaw;
	$self->control($node, '-w', '-m', $mode, 'stop') || !$self->control($node, 'status')
	  or push @{ $self->{findings} }, 'stop -m ' . $mode . ' of ' . $node->name . ' did not end';
	return;
}

# Where the processes of a postmaster that was killed still leave, it is tried again.
sub start_server
{
	my ($self, $node) = @_;

	$self->thaw;
	return $self->eventually(90, sub { $self->control($node, '-w', 'start') || $self->control($node, 'status') });
}

sub stop
{
	my ($self) = @_;

	$_->stop foreach @{ $self->{proxies} };
	return;
}

1;
