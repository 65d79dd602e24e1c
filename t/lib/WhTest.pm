# What the tests share: a warehouse, tenants with TLS and passwords, a proxy
# that misbehaves on request, and waiting by asking.
#
# Nothing here sleeps for a result to appear: everything polls, with a limit.
package WhTest;

use strict;
use warnings;

BEGIN
{
	# A stuck wait is found after a minute, not after three.
	$ENV{PG_TEST_TIMEOUT_DEFAULT} = 60
	  unless defined $ENV{PG_TEST_TIMEOUT_DEFAULT};
}

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Socket qw(SOMAXCONN);
use Test::More;
use Time::HiRes qw(time usleep);
use Time::Local qw(timegm);
use WhSecrets;

our @EXPORT = qw(
  new_tenant new_warehouse room_for_autovacuum add_tenant combine_only_when_asked reader_password source_root
  create_events change_events add_events_template events_query
  sql wait_until wait_for_job happens_within checksum same_content
  fails_with log_count log_end worker_pid tenant_sessions enqueue_and_wait
  clock_offset_to step_clock
  new_proxy stop_proxy proxy_reached_limit proxy_reaches_limit wait_for_proxy_limit
);

my @proxies;
my @warehouses;
my $key;

sub reader_password
{
	return 'correct horse battery staple';
}

# Where the sources are, with templates/ and sql/ in them.
sub source_root
{
	return abs_path(dirname(__FILE__) . '/../..');
}

# ---- clusters ----------------------------------------------------------

sub common_settings
{
	my (%conf) = @_;
	my %settings = (
		fsync => 'off',
		shared_buffers => "'32MB'",
		log_statement => "'none'",
		wal_level => "'replica'",
		max_wal_size => "'1GB'",
		timezone => "'UTC'",
		max_connections => 60,
		%conf,
		$ENV{SECRETS} ? talkative_settings() : ());

	return join('', map { "$_ = $settings{$_}\n" } sort keys %settings);
}

sub make_certificate
{
	my ($dir) = @_;

	system_or_bail('openssl', 'req', '-new', '-x509', '-days', '30',
		'-nodes', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
		'-subj', '/CN=127.0.0.1', '-out', "$dir/server.crt",
		'-keyout', "$dir/server.key");
	chmod 0600, "$dir/server.key" or die "could not chmod server.key: $!";
}

# The programs of a kind of server, where t/versions/ runs a test with those of
# other versions; else those of the path.
sub installation
{
	my ($kind) = @_;
	my $path = $ENV{"WH_\U$kind\E_INSTALL"};

	return defined $path ? (install_path => $path) : ();
}

# A production server: TCP on 127.0.0.1, TLS, and a role that has to give its
# password.  Options: role, password, database (made if not postgres), tls,
# conf (a hash of settings).
sub new_tenant
{
	my ($name, %opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, installation('tenant'));
	my $role = $opt{role} // 'wh_reader';
	my $password = $opt{password} // reader_password();
	my $tls = $opt{tls} // 1;
	my $kind = $tls ? 'hostssl' : 'host';

	remember_password($password);
	my %conf = (
		listen_addresses => "'127.0.0.1'",
		ssl => $tls ? 'on' : 'off',
		%{ $opt{conf} // {} });

	$node->init(extra => [ '-E', 'UTF8', '--locale=C' ]);
	make_certificate($node->data_dir) if $tls;
	$node->append_conf('postgresql.conf', common_settings(%conf));
	unlink $node->data_dir . '/pg_hba.conf';
	$node->append_conf('pg_hba.conf',
		"local all all trust\n$kind all $role 127.0.0.1/32 scram-sha-256\n");
	$node->start;
	$node->safe_psql('postgres',
		"CREATE ROLE $role LOGIN PASSWORD '$password'");
	create_database($node, $opt{database})
	  if defined $opt{database} && $opt{database} ne 'postgres';
	return $node;
}

sub create_database
{
	my ($node, $database) = @_;

	$node->safe_psql('postgres', qq(CREATE DATABASE "$database"));
}

# A server that preloads us.  Options: name, conf (a hash of settings, which
# win), create_extension (default 1), start (default 1), initdb (more options of it).
sub new_warehouse
{
	my (%opt) = @_;
	my $node = PostgreSQL::Test::Cluster->new($opt{name} // 'warehouse', installation('warehouse'));
	my %conf = (
		shared_preload_libraries => "'wh_worker'",
		restart_after_crash => 'on',
		max_worker_processes => 16,
		'wh_worker.databases' => "'postgres'",
		'wh_worker.max_workers' => 4,
		'wh_worker.retry_delay' => "'100ms'",
		'wh_worker.retry_delay_max' => "'1s'",
		log_min_messages => "'info'",
		%{ $opt{conf} // {} });

	$node->init(extra => [ '-E', 'UTF8', '--locale=C', @{ $opt{initdb} // [] } ]);
	keep_secrets($node, \%conf);
	$node->append_conf('postgresql.conf', common_settings(%conf));
	return $node if defined $opt{start} && !$opt{start};
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION wh_worker')
	  unless defined $opt{create_extension} && !$opt{create_extension};
	return $node;
}

# Settings for so many workers of autovacuum, and as much room in the lock table in
# all versions: 17 makes it for one process more, 18 for their slots instead of them.
sub room_for_autovacuum
{
	my ($workers) = @_;
	my ($major) = qx(postgres --version) =~ /(\d+)/;

	$workers-- if $major >= 17;
	return (autovacuum_max_workers => $workers,
		$major >= 18 ? (autovacuum_worker_slots => $workers) : ());
}

# Passwords are encrypted, by one key, so that what one warehouse dumps another
# can use. With SECRETS=1 statements are gathered, and at the end of the test its
# warehouses show what they know; ci/find-secrets looks at that.
sub keep_secrets
{
	my ($node, $conf) = @_;

	$key = new_key() unless defined $key;
	$conf->{'wh_worker.key_file'} = "'" . write_key_file($node->basedir . '/keys', $key) . "'"
	  unless defined $conf->{'wh_worker.key_file'};
	return unless $ENV{SECRETS};
	$conf->{shared_preload_libraries} =~ s/'$/, pg_stat_statements'/;
	push @warehouses, $node;
	return;
}

# Registers a tenant at the warehouse.  Options: port (of a proxy), database,
# username, password, sslmode, templates (a list), start_date, combine_on_schedule.
sub add_tenant
{
	my ($warehouse, $name, $tenant, %opt) = @_;
	my $templates = join ', ', map { literal($_) } @{ $opt{templates} // [] };
	my $start = defined $opt{start_date} ? literal($opt{start_date}) : 'NULL';

	$warehouse->safe_psql(
		'postgres',
		sprintf(
			'SELECT _wh.add_tenant(%s, %s, %d, %s, %s, %s, ARRAY[%s]::text[], %s)',
			literal($name), literal('127.0.0.1'),
			$opt{port} // $tenant->port,
			literal($opt{database} // 'postgres'),
			literal($opt{username} // 'wh_reader'),
			literal($opt{password} // reader_password()),
			$templates, $start));
	$warehouse->safe_psql(
		'postgres',
		sprintf(
			q{UPDATE _wh.tenant_connections SET sslmode = %1$s, tls_required = %1$s NOT IN ('disable', 'allow', 'prefer') WHERE tenant_name = %2$s},
			literal($opt{sslmode}), literal($name))) if defined $opt{sslmode};

	combine_only_when_asked($warehouse) unless $opt{combine_on_schedule};
	return;
}

# Whatever hour it is, no month or year is combined that a test has not asked for.
sub combine_only_when_asked
{
	my ($warehouse) = @_;

	$warehouse->safe_psql('postgres', q{UPDATE _wh.schedules SET schedule = '0 0 29 2 *' WHERE kind IN ('combine_month', 'combine_year') AND schedule <> '0 0 29 2 *'});
	return;
}

sub literal
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	return $text =~ /\\/ ? "E'" . ($text =~ s/\\/\\\\/gr) . "'" : "'$text'";
}

# ---- a small fixture ---------------------------------------------------

# Table "events" with $rows rows a day for $days days from $first on; the
# seed makes tenants differ.  Options: database, width of the payload.
sub create_events
{
	my ($node, $first, $days, $rows, %opt) = @_;
	my $seed = $opt{seed} // 1;
	my $width = $opt{width} // 20;
	my $role = $opt{role} // 'wh_reader';

	$node->safe_psql(
		$opt{database} // 'postgres', qq{
		CREATE TABLE events (id integer, at timestamp, kind text, amount numeric, payload text);
		INSERT INTO events
		SELECT day * $rows + n, date '$first' + day + n * interval '1 second',
			   CASE WHEN n % 7 = 0 THEN NULL ELSE 'kind ' || n % 5 END,
			   (n * $seed)::numeric / 8,
			   rpad(md5((day * $rows + n + $seed)::text), $width, 'x')
		FROM generate_series(0, $days - 1) AS day, generate_series(1, $rows) AS n;
		CREATE INDEX ON events (at);
		GRANT SELECT ON events TO $role;
	});
}

my $events_version = 0;

# Other rows, and one more, for a day of create_events().
sub change_events
{
	my ($node, $day) = @_;

	$events_version++;
	$node->safe_psql('postgres', qq{
		UPDATE events SET kind = 'version $events_version' WHERE at::date = '$day';
		INSERT INTO events VALUES (100000 + $events_version, date '$day' + interval '$events_version second', 'added', 1, repeat('y', 3000))});
	return;
}

# ---- the clock that schedules are kept by ------------------------------

# How many seconds it must be ahead to show this time (UTC) now: or a part of a
# second more, never less, for a minute that has yet to begin is a minute due.
sub clock_offset_to
{
	my ($time) = @_;
	my ($year, $month, $day, $hour, $minute, $second) = $time =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+)(?::(\d+))?$/
	  or die "this is no time: $time";

	return POSIX::ceil(timegm($second // 0, $minute, $hour, $day, $month - 1, $year) - time());
}

# From here on it is that time (UTC), and the clock goes on.
sub step_clock
{
	my ($node, $time) = @_;
	my $offset = clock_offset_to($time);

	$node->safe_psql('postgres', "ALTER SYSTEM SET wh_worker.debug_clock_offset = $offset;\nSELECT pg_reload_conf();");
	$node->poll_query_until('postgres', "SELECT extract(epoch FROM current_setting('wh_worker.debug_clock_offset')::interval) = $offset")
	  or die "the clock was not set";
	return;
}

# The query of the template, for a range of days, as the tenant would answer.
sub events_query
{
	my ($first, $last) = @_;

	return "SELECT id, at, kind, amount, payload FROM events "
	  . "WHERE at >= '$first' AND at < date '$last' + 1";
}

# A template over "events".  Options: query, columns, indexes, schedule (by
# default one that does not come due while a test runs).
sub add_events_template
{
	my ($warehouse, $name, %opt) = @_;
	my $query = $opt{query}
	  // q{SELECT id, at, kind, amount, payload FROM events
		WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1};
	my $columns = $opt{columns}
	  // 'id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT';
	my $indexes = $opt{indexes}
	  // 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)';

	$warehouse->safe_psql('postgres',
		'INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule)'
		  . sprintf(' VALUES (%s, %s, %s, %s, %s)',
			literal($name), literal($query), literal($columns),
			literal($indexes), literal($opt{schedule} // '0 0 29 2 *')));
}

# ---- asking and waiting ------------------------------------------------

# One value, with output settings that make text comparable.
sub sql
{
	my ($node, $query, $database) = @_;

	return $node->safe_psql($database // 'postgres', $query);
}

sub wait_until
{
	my ($node, $query, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok($node->poll_query_until('postgres', $query), $name);
}

# Waits for a job of $condition to be in $state.
sub wait_for_job
{
	my ($node, $condition, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node,
		"SELECT count(*) > 0 AND bool_and(state = '$state') FROM _wh.jobs WHERE $condition",
		$name);
}

# Polls as fast as it can; passes if the query says t before the deadline.
sub happens_within
{
	my ($node, $seconds, $query, $name, $since) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = ($since // time()) + $seconds;
	my $answer;

	do
	{
		my ($status, $out) = $node->psql('postgres', $query);

		$answer = $out // '';
		return pass($name) if $answer eq 't';
	} while (time() < $deadline);

	diag("after $seconds s the last answer was \"$answer\": $query");
	return fail($name);
}

# Calls enqueue_backfill, waits for its end, and returns the id and the end.
sub enqueue_and_wait
{
	my ($node, $arguments, $limit) = @_;
	my $id = sql($node, "SELECT _wh.enqueue_backfill($arguments)");
	my $state = sql($node, sprintf(
			"SELECT _wh.wait_for_backfill(%s, '%s')", $id, $limit // ($PostgreSQL::Test::Utils::timeout_default - 10) . ' s'));

	return ($id, $state);
}

# Count and checksum over all columns of all rows, whatever their order.
sub checksum
{
	my ($node, $query, $database) = @_;

	return $node->safe_psql(
		$database // 'postgres', qq{
		SET timezone = 'UTC';
		SET datestyle = 'ISO, YMD';
		SET intervalstyle = 'postgres';
		SET bytea_output = 'hex';
		SET extra_float_digits = 1;
		SELECT count(*) || ' rows ' || coalesce(md5(string_agg(h, '' ORDER BY h)), 'none')
		FROM (SELECT md5(whole_row::text) AS h FROM ($query) AS whole_row) AS hashes;
	});
}

sub same_content
{
	my ($warehouse, $query, $tenant, $source_query, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(checksum($warehouse, $query),
		checksum($tenant, $source_query, $database), $name);
}

# Runs a statement that must fail with this SQLSTATE and a message like that.
sub fails_with
{
	my ($node, $query, $sqlstate, $pattern, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($status, $out, $err) = $node->psql($database // 'postgres',
		"\\set VERBOSITY verbose\n$query");

	return subtest $name => sub {
		isnt($status, 0, 'it fails');
		like($err, qr/ERROR:  $sqlstate:/, "with SQLSTATE $sqlstate");
		like($err, $pattern, 'and says why');
	};
}

sub log_end
{
	my ($node) = @_;

	return -s $node->logfile;
}

# How many lines of the server log since $offset match; of what only SECRETS=1
# makes it log, none.
sub log_count
{
	my ($node, $pattern, $offset) = @_;
	my @lines = map { split /\n/ } grep { !$ENV{SECRETS} || !/ DEBUG:  / } log_entries($node->logfile, $offset);

	return scalar grep { /$pattern/ } @lines;
}

sub worker_pid
{
	my ($node, $condition) = @_;

	return sql($node,
		"SELECT pid FROM _wh.worker_status WHERE backend_type LIKE '%worker' AND $condition LIMIT 1");
}

# Query that counts our sessions at a tenant.
sub tenant_sessions
{
	my ($role) = @_;

	$role = 'wh_reader' unless defined $role;
	return "SELECT count(*) FROM pg_stat_activity WHERE usename = '$role'";
}

# ---- a proxy that misbehaves -------------------------------------------

# Options: target (port), mode:
#   pass              hands everything on
#   stall, limit => N after N bytes from the server sends no more of them,
#                     but keeps both connections
#   cut, limit => N   closes both connections after N bytes from the server
#   hang              takes connections and never says a word
# Only the first $opt{times} connections that reach the limit suffer from it
# (default: all).
sub new_proxy
{
	my (%opt) = @_;
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => $opt{port} // 0,
		Proto => 'tcp',
		ReuseAddr => 1,
		Listen => SOMAXCONN) or die "could not listen: $@";
	my $flag = PostgreSQL::Test::Utils::tempdir() . '/reached';
	my $parent = $$;
	my $pid = fork();

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		# _exit: the tests' own END blocks are not for this process.
		$SIG{TERM} = sub { POSIX::_exit(0) };
		eval { serve_proxy($listener, $flag, $parent, %opt); };
		POSIX::_exit(0);
	}

	my $proxy = { pid => $pid, port => $listener->sockport, flag => $flag };

	close $listener;
	push @proxies, $proxy;
	return $proxy;
}

sub serve_proxy
{
	my ($listener, $flag, $parent, %opt) = @_;
	my $mode = $opt{mode} // 'pass';
	my $times = $opt{times};
	my $select = IO::Select->new($listener);
	my (%peer, %is_server, %count, %stalled, %accepted);

	my $drop = sub {
		my ($sock) = @_;
		my $other = delete $peer{$sock};

		foreach my $s (grep { defined } $sock, $other)
		{
			$select->remove($s);
			delete $peer{$s};
			delete $is_server{$s};
			delete $stalled{$s};
			delete $count{$s};
			close $s;
		}
	};

	while (getppid() == $parent)
	{
		foreach my $sock ($select->can_read(0.5))
		{
			if ($sock == $listener)
			{
				my $client = $listener->accept or next;

				if ($mode eq 'hang')
				{
					$accepted{$client} = $client;
					reach_limit($flag);
					next;
				}
				my $server = IO::Socket::INET->new(
					PeerAddr => '127.0.0.1',
					PeerPort => $opt{target},
					Proto => 'tcp');
				if (!$server)
				{
					close $client;
					next;
				}
				$peer{$client} = $server;
				$peer{$server} = $client;
				$is_server{$server} = 1;
				$count{$server} = 0;
				$select->add($client, $server);
				next;
			}
			next unless $peer{$sock};

			my $got = sysread($sock, my $buffer, 16384);

			if (!$got)
			{
				$drop->($sock);
				next;
			}
			if ($is_server{$sock} && $mode ne 'pass')
			{
				$count{$sock} += $got;
				if ($count{$sock} > $opt{limit}
					&& (!defined $times || $times-- > 0))
				{
					reach_limit($flag);
					if ($mode eq 'cut')
					{
						$drop->($sock);
						next;
					}
					# Stall: read no more from the server, but go on
					# listening to the client, to notice that it leaves.
					$select->remove($sock);
					next;
				}
			}
			write_all($peer{$sock}, $buffer) or $drop->($sock);
		}
	}
}

sub reach_limit
{
	my ($flag) = @_;

	open my $file, '>>', $flag or return;
	print $file "1\n";
	close $file;
}

sub write_all
{
	my ($sock, $buffer) = @_;
	my $offset = 0;

	while ($offset < length $buffer)
	{
		my $put = syswrite($sock, $buffer, length($buffer) - $offset, $offset);

		return 0 unless $put;
		$offset += $put;
	}
	return 1;
}

# How many connections met the proxy's limit (or its silence) so far.
sub proxy_reached_limit
{
	my ($proxy) = @_;

	return 0 unless -e $proxy->{flag};
	my @lines = split /\n/, slurp_file($proxy->{flag});
	return scalar @lines;
}

# Waits until more than $before connections met the limit; false when none does.
sub proxy_reaches_limit
{
	my ($proxy, $before) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	while (time() < $deadline)
	{
		return 1 if proxy_reached_limit($proxy) > $before;
		usleep(10_000);    # poll interval
	}
	return 0;
}

sub wait_for_proxy_limit
{
	my ($proxy, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok(proxy_reaches_limit($proxy, 0), $name);
}

sub stop_proxy
{
	my ($proxy) = @_;
	my $pid = delete $proxy->{pid};

	return unless defined $pid;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	@proxies = grep { defined $_->{pid} } @proxies;
}

END
{
	my $exit_code = $?;

	stop_proxy($_) foreach my @running = @proxies;
	show_secrets($_) foreach @warehouses;
	$? = $exit_code;
}

1;
