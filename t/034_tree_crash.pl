# What t/027_combine_crash.pl says of a combine and a late day that are killed holds
# for months and years that are leaves of a partition tree.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use WhTest;

local $ENV{WH_TEST_LAYOUT} = 'partitions';
my $done = do "$FindBin::RealBin/027_combine_crash.pl";
die $@ || $! unless $done;
