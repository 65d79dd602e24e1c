# A short run of the fuzz targets from the kept corpus, always the same one, so
# that a failure is the change's. make fuzz looks longer.
use strict;
use warnings;
use FindBin;
use Test::More;

plan skip_all => 'the targets bring sanitizers of their own, in a server without' if $ENV{SANITIZE};

my $runs = 5000;
my $output = qx{"$FindBin::RealBin/../fuzz/run" -r $runs 2>&1};

is($?, 0, 'nothing is read or written out of place, and nothing leaks') or diag $output;
foreach my $target ('decode', 'cron', 'template')
{
	my ($done, $coverage) = $output =~ /^$target: Done (\d+) runs.*cov: (\d+)/m;

	cmp_ok($done // 0, '>=', $runs, "$target: all inputs were tried");
	cmp_ok($coverage // 0, '>', 100, "$target: and they got into it");
}
note $output;

done_testing();
