# A warehouse with ten tenants under random faults, readers all the while: nothing
# is lost, doubled or left behind, and nobody has to do anything.  This runs a few
# faults, other ones each time; bench/chaos runs as many as one has time for.
# SEED=n repeats a run as far as chance can be repeated.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use WhChaos;

my $seed = $ENV{SEED} // int(rand(1_000_000));
my $minutes = $ENV{WH_CHAOS_MINUTES};
my %size =
  $minutes
  ? (aloud => 1, days => 45, servers => 3, seconds => 60 * $minutes, faults => 1_000_000, pause => $ENV{WH_CHAOS_PAUSE} // 7, readers => 3, patience => 600)
  : (days => 20, servers => 2, seconds => 40, faults => 12, pause => 2.5, readers => 2, patience => 120);

diag("SEED=$seed");
my $faults = chaos(seed => $seed, tenants => 10, spare => 10, %size);
cmp_ok($faults, '>=', $minutes ? 5 * $minutes : 3, "$faults faults were done");
done_testing();
