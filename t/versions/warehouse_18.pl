# A warehouse of PostgreSQL 18, tenants of the other versions.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use Test::More;
use WhVersions;

run_with_tenants_of_others(18);
done_testing();
