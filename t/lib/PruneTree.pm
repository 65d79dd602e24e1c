# What the tests of plan-time pruning share: a server whose clock can be moved,
# and partition trees as the layout "partitions" has them.
package PruneTree;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

our @EXPORT = qw(new_prune_server create_trees);

# Builds the library that moves a server's clock: gettimeofday, which is all the
# server asks, says what the file has, in microseconds since 1970; without a
# file it says the truth.
sub build_clock
{
	my ($file) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();

	append_to_file("$dir/clock.c", <<"C");
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec now;
	char text[32] = {0};
	int file = open("$file", O_RDONLY);

	clock_gettime(CLOCK_REALTIME, &now);
	tv->tv_sec = now.tv_sec;
	tv->tv_usec = now.tv_nsec / 1000;
	if (file >= 0)
	{
		if (read(file, text, sizeof(text) - 1) > 0)
		{
			tv->tv_sec = atoll(text) / 1000000;
			tv->tv_usec = atoll(text) % 1000000;
		}
		close(file);
	}
	return 0;
}
C
	system_or_bail($ENV{CC} // 'cc', '-O1', '-shared', '-fPIC', '-o', "$dir/clock.so", "$dir/clock.c");
	return "$dir/clock.so";
}

# A server that preloads us and runs none of our processes.  CALL
# set_clock(timestamptz) stops its clock at that moment, from the next
# statement on, when the option clock is given.
sub new_prune_server
{
	my (%opt) = @_;
	my $node = new_warehouse(
		name => $opt{name} // 'prune',
		start => 0,
		conf => {
			'wh_worker.databases' => "''",
			autovacuum => 'off',
			jit => 'off',
			%{ $opt{conf} // {} } });

	if ($opt{clock})
	{
		my $file = $node->data_dir . '/clock';

		local $ENV{LD_PRELOAD} = build_clock($file);
		$node->start;
		$node->safe_psql('postgres', qq{
			CREATE PROCEDURE set_clock(moment timestamptz) LANGUAGE plpgsql AS \$\$
			BEGIN
				EXECUTE format('COPY (SELECT %s) TO %L',
					floor(extract(epoch FROM moment) * 1000000), '$file');
				-- the time of a transaction is that of its start
				COMMIT;
			END \$\$});
	}
	else
	{
		$node->start;
	}
	$node->safe_psql('postgres', 'CREATE SCHEMA IF NOT EXISTS _wh');
	return $node;
}

# _wh.d, _wh.ts and _wh.tz: trees by a date, timestamp and timestamptz, with a
# leaf a day in schemas t1 to tN, and the views that readers use.  Options:
# tenants, first and last (dates as SQL).
sub create_trees
{
	my ($node, %opt) = @_;
	my $tenants = $opt{tenants} // 2;

	$node->safe_psql('postgres', <<"SQL");
SET timezone = 'UTC';
SET client_min_messages = warning;
CREATE PROCEDURE create_tree(tree text, kind text) LANGUAGE plpgsql AS \$\$
DECLARE
	tenant text;
	day date;
	leaf text;
BEGIN
	EXECUTE format('CREATE TABLE _wh.%I (id integer, gone text, logged_time %s, other_date date,
		schema_name text) PARTITION BY LIST (schema_name)', tree, kind);
	-- the columns of a part have other numbers than those of the root
	EXECUTE format('ALTER TABLE _wh.%I DROP COLUMN gone', tree);
	FOR tenant IN SELECT 't' || n FROM generate_series(1, $tenants) AS n LOOP
		EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', tenant);
		EXECUTE format('CREATE TABLE _wh.%I PARTITION OF _wh.%I FOR VALUES IN (%L)
			PARTITION BY RANGE (logged_time)', tree || '_' || tenant, tree, tenant);
		FOR day IN SELECT generate_series($opt{first}, $opt{last}, '1 day') LOOP
			leaf := format('%I.%I', tenant, tree || to_char(day, '_YYYY_MM_DD'));
			EXECUTE format('CREATE TABLE %s PARTITION OF _wh.%I FOR VALUES FROM (%L) TO (%L)',
				leaf, tree || '_' || tenant, day::text, (day + 1)::text);
			EXECUTE format('INSERT INTO %s SELECT n, (timestamp %L + n * interval ''97 minutes'')::%s, %L, %L
				FROM generate_series(0, 14) AS n', leaf, day, kind, day, tenant);
			COMMIT;
		END LOOP;
		EXECUTE format('CREATE VIEW %I.%I AS SELECT id, logged_time, other_date FROM _wh.%I',
			tenant, tree, tree || '_' || tenant);
	END LOOP;
	EXECUTE format('CREATE VIEW public.%I AS SELECT * FROM _wh.%I', tree, tree);
END \$\$;
CALL create_tree('d', 'date');
CALL create_tree('ts', 'timestamp');
CALL create_tree('tz', 'timestamptz');
ANALYZE;
SQL
	return;
}

1;
