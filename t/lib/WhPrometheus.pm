# The real exporter and the real Prometheus of Debian, with the files of
# monitoring/ in which only addresses and durations are others.
package WhPrometheus;

use strict;
use warnings;

use Exporter 'import';
use HTTP::Tiny;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use WhTest;

our @EXPORT = qw(
  shipped_file rewrite start_exporter stop_exporter start_prometheus
  ask alerts_known alerts_firing wait_for_alerts wait_for_answer);

my %process;		# by name: pid of a child
my %port;
my $directory;

sub shipped_file
{
	my ($name) = @_;

	return slurp_file(source_root() . "/monitoring/$name");
}

# Each pair of pattern and text must be found.
sub rewrite
{
	my ($text, @pairs) = @_;

	while (my ($pattern, $replacement) = splice @pairs, 0, 2)
	{
		$text =~ s/$pattern/$replacement/g or die "no $pattern in: $text";
	}
	return $text;
}

# One for all: the rules are looked for beside the configuration.
sub directory
{
	$directory //= PostgreSQL::Test::Utils::tempdir();
	return $directory;
}

sub write_file
{
	my ($name, $text) = @_;
	my $path = directory() . "/$name";

	open my $file, '>:raw', $path or die "could not write $path: $!";
	print $file $text;
	close $file or die "could not write $path: $!";
	return $path;
}

sub start_process
{
	my ($name, @command) = @_;
	my $log = "$PostgreSQL::Test::Utils::log_path/$name.log";
	my $pid = fork();

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null' or POSIX::_exit(1);
		open STDOUT, '>>', $log or POSIX::_exit(1);
		open STDERR, '>&', \*STDOUT or POSIX::_exit(1);
		exec { $command[0] } @command or POSIX::_exit(1);
	}
	$process{$name} = $pid;
	return;
}

sub stop_process
{
	my ($name) = @_;
	my $pid = delete $process{$name} or return;

	kill 'KILL', $pid;
	waitpid $pid, 0;
	return;
}

END
{
	my $status = $?;

	stop_process($_) foreach keys %process;
	$? = $status;
}

sub start_exporter
{
	my ($node, $role, $database) = @_;
	my $host = $node->host;
	my $config = write_file('sql_exporter.yml', rewrite(shipped_file('sql_exporter.yml'),
			qr{postgres://\S+(?=')}, "postgres://$role@/$database?host=$host&port=" . $node->port . '&sslmode=disable',
			qr{interval: 15s}, 'interval: 1s'));

	$port{exporter} //= PostgreSQL::Test::Cluster::get_free_port();
	start_process('exporter', 'prometheus-sql-exporter', '-config.file', $config,
		'-web.listen-address', "127.0.0.1:$port{exporter}");
	return;
}

sub stop_exporter
{
	stop_process('exporter');
	return;
}

# The rules fire within seconds: their durations are rewritten, and nothing else.
sub start_prometheus
{
	$port{prometheus} = PostgreSQL::Test::Cluster::get_free_port();
	write_file('wh_worker.rules.yml', rewrite(shipped_file('wh_worker.rules.yml'),
			qr{(?<= for: )\d+m}, '1s', qr{(?<= > )600\b}, '3', qr{(?<= > )120\b}, '6'));
	my $config = write_file('prometheus.yml', rewrite(shipped_file('prometheus.yml'),
			qr{(?<=_interval: )15s}, '1s', qr{localhost:9237}, "127.0.0.1:$port{exporter}"));
	start_process('prometheus', 'prometheus', "--config.file=$config",
		'--storage.tsdb.path=' . directory() . '/tsdb', "--web.listen-address=127.0.0.1:$port{prometheus}");
	return;
}

# What Prometheus says of an address of its API; undef while it says nothing.
sub api
{
	my ($address, %parameters) = @_;
	my $http = HTTP::Tiny->new(timeout => 10);
	my $url = "http://127.0.0.1:$port{prometheus}/api/v1/$address";

	$url .= '?' . $http->www_form_urlencode(\%parameters) if %parameters;
	my $response = $http->get($url);
	my $answer = eval { decode_json($response->{content}) };

	return unless defined $answer;
	diag("$url: $answer->{error}") if $answer->{status} ne 'success';
	return $answer->{status} eq 'success' ? $answer->{data} : undef;
}

# A query's result: labels as a hash and the value, for each series; undef: an error.
sub ask
{
	my ($query) = @_;
	my $data = api('query', query => $query);

	return unless defined $data;
	return [ map { { %{ $_->{metric} }, value => $_->{value}[1] } } @{ $data->{result} } ];
}

# Names of the alerts that it knows.
sub alerts_known
{
	my $data = api('rules') // { groups => [] };

	return [ sort map { $_->{name} } map { @{ $_->{rules} } } @{ $data->{groups} } ];
}

# Names of alerts that fire, each with the labels asked for, in order.
sub alerts_firing
{
	my (@labels) = @_;
	my $data = api('alerts');

	return 'nothing known' unless defined $data;
	my %firing = map { my $alert = $_; join(' ', $alert->{labels}{alertname}, map { $_ // '-' } @{ $alert->{labels} }{@labels}) => 1 }
	  grep { $_->{state} eq 'firing' } @{ $data->{alerts} };

	return join ', ', sort keys %firing;
}

sub poll
{
	my ($what, $expected, $name) = @_;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $answer;

	do
	{
		$answer = $what->();
		return pass($name) if defined $answer && $answer eq $expected;
		usleep(100_000);    # poll interval: the others cannot be waited on
	} while (time() < $deadline);
	return is($answer, $expected, $name);
}

# Until these, and no others, fire.
sub wait_for_alerts
{
	my ($expected, $name, @labels) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return poll(sub { alerts_firing(@labels) }, $expected, $name);
}

# Until the query gives one series with that value.
sub wait_for_answer
{
	my ($query, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return poll(sub { my $series = ask($query); $series && @$series == 1 ? $series->[0]{value} : undef }, $expected, $name);
}

1;
