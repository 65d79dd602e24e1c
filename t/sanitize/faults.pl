# Every kind of fault that make sanitize is there for is reported, at its line, when
# there is one; and nothing is when there is none. Only run by ci/sanitize-tests.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use File::Copy qw(copy);
use IPC::Run;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

plan skip_all => 'only with ci/sanitize-tests' unless $ENV{SANITIZE};

my $dir = PostgreSQL::Test::Utils::tempdir();
my $pg_config = $ENV{PG_CONFIG};
my $pgxs = qx('$pg_config' --pgxs);

chomp $pgxs;
copy("$FindBin::RealBin/faults.c", $dir) or die "could not copy faults.c: $!";
system_or_bail('make', '-s', '-C', $dir, '-f', $pgxs, "PGXS=$pgxs", 'NO_PGXS=', "PG_CONFIG=$pg_config", 'MODULES=faults');

my $node = PostgreSQL::Test::Cluster->new('faulty');

$node->init;

# What a single-user server says; its reports go there too.
sub says
{
	my ($kind, $number) = @_;
	local $ENV{ASAN_OPTIONS} = 'detect_leaks=0:abort_on_error=0';
	local $ENV{UBSAN_OPTIONS} = 'print_stacktrace=1';
	my $input = "CREATE OR REPLACE FUNCTION fault(cstring, int) RETURNS int LANGUAGE c AS '$dir/faults', 'fault'\nSELECT fault('$kind', $number)\n";
	my $output = '';

	IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, 'postgres' ], '<', \$input, '>&', \$output);
	return $output;
}

my %fault = (
	chunk => [ 13, qr/AddressSanitizer: use-after-poison.*faults\.c/s ],
	freed => [ 13, qr/AddressSanitizer: use-after-poison.*faults\.c/s ],
	reset => [ 40, qr/AddressSanitizer: use-after-poison.*faults\.c/s ],
	alignment => [ 1, qr/faults\.c:\d+:\d+: runtime error: .*misaligned/ ],
	overflow => [ 1, qr/faults\.c:\d+:\d+: runtime error: signed integer overflow/ ],
	shift => [ 40, qr/faults\.c:\d+:\d+: runtime error: shift exponent 40/ ],
	assertion => [ 1, qr/TRAP: .*faults\.c/ ]);

foreach my $kind (sort keys %fault)
{
	my ($number, $pattern) = @{ $fault{$kind} };

	like(says($kind, $number), $pattern, "$kind: is reported");
}

my $output = says('none', 1);

like($output, qr/fault = "0"/, 'without a fault the function returns');
unlike($output, qr/AddressSanitizer|runtime error|TRAP/, 'and nothing is reported');

done_testing();
