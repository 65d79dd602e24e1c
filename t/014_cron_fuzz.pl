# A few seconds of the schedules' fuzz target, from a seed that nobody chose.
# WH_FUZZ_SEED repeats a failure, WH_FUZZ_SECONDS looks longer.
use strict;
use warnings;
use FindBin;
use Test::More;

my $seed = $ENV{WH_FUZZ_SEED} // (time * 100_000 + $$ % 100_000);
my $seconds = $ENV{WH_FUZZ_SECONDS} // 5;

note "seed $seed";
my $output = qx{"$FindBin::RealBin/cron/fuzz" $seed $seconds 2>&1};
my $status = $?;

is($status, 0, 'no schedule is misread and no run is early, late or lost') or diag "seed $seed\n$output";
my ($accepted) = $output =~ /, (\d+) of them accepted/;
cmp_ok($accepted // 0, '>', 100, 'many of them were schedules');
note $output;

done_testing();
