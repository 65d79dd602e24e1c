# What t/versions/ shares: servers of several versions, made by ci/portable-server
# in directories of WH_SERVERS that are named after them.
#
# ci/matrix runs those tests, in the newest release of Debian.
package WhVersions;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(basename);
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

our @EXPORT = qw(installation_of run_with_tenants_of_others);

# Tests of what warehouse and tenant say to each other: values in both formats
# of COPY, errors, cancelling, probes, what is asked ahead.
my @tests = qw(002_values 003_workflow 005_bad_tenants 006_cancel 032_probe 038_ahead);

sub installation_of
{
	my ($version) = @_;

	return "$ENV{WH_SERVERS}/$version/install";
}

sub versions
{
	die "WH_SERVERS names no directory of servers: run ci/matrix\n" unless -d ($ENV{WH_SERVERS} // '');
	my @found = sort { $a <=> $b } map { basename($_) } glob "$ENV{WH_SERVERS}/*";
	return @found;
}

# Which versions said in their logs that they start.
sub versions_in_logs
{
	my ($dir) = @_;
	my %seen;

	foreach my $log (glob "$dir/*.log")
	{
		$seen{$_} = 1 foreach slurp_file($log) =~ /starting PostgreSQL (\d+)/g;
	}
	return join ' ', sort { $a <=> $b } keys %seen;
}

# One test, as a program of its own; what it printed is shown when it failed.
sub run_test
{
	my ($test, $warehouse, $tenant) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir("${test}_${warehouse}_${tenant}");
	local %ENV = (
		%ENV,
		WH_WAREHOUSE_INSTALL => installation_of($warehouse),
		WH_TENANT_INSTALL => installation_of($tenant),
		TESTDATADIR => $dir,
		TESTLOGDIR => "$dir/log");
	my @command = ($^X, (map { "-I$_" } @INC), source_root() . "/t/$test.pl");
	my $output = '';
	my $passed = IPC::Run::run(\@command, '<', \undef, '>', \$output, '2>', \$output);

	ok($passed, "$test: warehouse $warehouse, tenant $tenant");
	note($output) unless $passed;
	is(versions_in_logs("$dir/log"), join(' ', sort { $a <=> $b } $warehouse, $tenant), 'with servers of these versions');
	return;
}

sub run_with_tenants_of_others
{
	my ($warehouse) = @_;
	my @tenants = grep { $_ != $warehouse } versions();

	die "no server of another version than $warehouse\n" unless @tenants;
	foreach my $tenant (@tenants)
	{
		run_test($_, $warehouse, $tenant) foreach @tests;
	}
	return;
}

1;
