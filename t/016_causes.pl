# What is tried again and what is not: by the SQLSTATE that a tenant gives.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $day = '2025-01-01';
my $production = new_tenant('production',
	conf => { max_wal_senders => 3 });
my $node = new_warehouse(
	conf => {
		'wh_worker.retry_delay' => "'20ms'",
		'wh_worker.retry_delay_max' => "'40ms'",
		'wh_worker.max_attempts' => 2,
	});

# The state that the tenant raises; a real one comes from the server itself.
$production->safe_psql('postgres', q{
	CREATE FUNCTION raise_state(state text) RETURNS integer LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'the tenant says %', state USING ERRCODE = state;
	END $$;
	CREATE FUNCTION run(statement text) RETURNS integer LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement;
		RETURN 1;
	END $$;
	CREATE TABLE locked (id integer);
	CREATE TABLE secret (id integer);
	CREATE TABLE numbers (id text);
	INSERT INTO numbers VALUES ('one');
	GRANT SELECT ON locked, numbers TO wh_reader;
});

# name, select list and source, columns, SQLSTATE, attempts
my @real = (
	[ 'lock_timeout', 'id FROM locked', '55P03', 2 ],
	[ 'temp_files', 'max(n)::integer AS id FROM (SELECT n FROM generate_series(1, 2000000) AS n ORDER BY md5(n::text)) AS s', '53400', 2 ],
	[ 'permission', 'id FROM secret', '42501', 1 ],
	[ 'no_column', 'nonesuch AS id FROM numbers', '42703', 1 ],
	[ 'no_table', 'id FROM nonesuch', '42P01', 1 ],
	[ 'syntax', q{run('SELECT FROM FROM') AS id}, '42601', 1 ],
	[ 'bad_value', 'id::integer FROM numbers', '22P02', 1 ],
	[ 'division', '1 / (length(current_user) - length(session_user)) AS id', '22012', 1 ],
);

# Those that cannot be provoked at will.
my @raised = (
	(map { [ $_, 2 ] } qw(08000 08006 40001 40P01 53000 53100 53200 53300 55006 57P01 57P02 57P03 58030 25P03 57P05)),
	(map { [ $_, 1 ] } qw(23505 22003 21000 25006 28000 3D000 3F000 42883 42P07 42804 0A000 54000 57P04 XX000 XX001 P0001)));

my $dated = "WHERE '{TARGET_DATE}' <> ''";

sub add_case
{
	my ($name, $query) = @_;

	add_events_template($node, $name, query => "SELECT $query", columns => 'id integer', indexes => '');
	sql($node, "SELECT _wh.subscribe('shop', '$name', NULL, '$day')");
	return;
}

add_tenant($node, 'shop', $production);
$production->safe_psql('postgres',
	"ALTER ROLE wh_reader SET lock_timeout = '50ms'; ALTER ROLE wh_reader SET work_mem = '64kB'; ALTER ROLE wh_reader SET temp_file_limit = '100kB'");
my $locker = $production->background_psql('postgres');
$locker->query_safe('BEGIN; LOCK TABLE locked');

foreach my $case (@real)
{
	add_case($case->[0], $case->[1] =~ / WHERE / ? $case->[1] : "$case->[1] $dated");
}
foreach my $case (@raised)
{
	add_case("raised_$case->[0]", "raise_state('$case->[0]') AS id $dated");
}
sql($node, 'UPDATE _wh.schedules SET active = false');
foreach my $template (map({ $_->[0] } @real), map({ "raised_$_->[0]" } @raised))
{
	sql($node, "SELECT _wh.enqueue_backfill('$template', 'shop', '$day', '$day')");
}
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')",
	'all of them end');

sub outcome
{
	my ($template) = @_;

	return sql($node, "SELECT state || ' ' || last_sqlstate || ' ' || attempt FROM _wh.jobs WHERE template_name = '$template' AND kind = 'refresh'");
}
foreach my $case (@real)
{
	my ($name, undef, $state, $attempts) = @$case;

	is(outcome($name), "failed $state $attempts",
		"$name: $state " . ($attempts > 1 ? 'is tried again' : 'fails at once'))
	  or diag(sql($node, "SELECT last_error FROM _wh.jobs WHERE template_name = '$name'"));
}
foreach my $case (@raised)
{
	my ($state, $attempts) = @$case;

	is(outcome("raised_$state"), "failed $state $attempts",
		"$state " . ($attempts > 1 ? 'is tried again' : 'fails at once'));
}
is(sql($node, "SELECT state || ' ' || consecutive_failures FROM _wh.tenant_health WHERE tenant_name = 'shop'"),
	'closed 0', 'a tenant that can be connected to is not set aside');
$locker->query_safe('ROLLBACK');
$locker->quit;

# ---- a standby that cancels a load that is in the way of its recovery -----

$production->append_conf('pg_hba.conf', "local replication all trust\n");
$production->reload;
$production->safe_psql('postgres', q{
	ALTER ROLE wh_reader RESET ALL;
	CREATE TABLE moving AS SELECT n AS id FROM generate_series(1, 1000) AS n;
	GRANT SELECT ON moving TO wh_reader;
});
$production->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($production, 'base', has_streaming => 1);
$standby->append_conf('postgresql.conf', "max_standby_streaming_delay = '0'\nport = " . $standby->port);
# The backup did not keep its mode.
chmod 0600, $standby->data_dir . "/server.key" or die "could not chmod server.key: $!";
$standby->start;
add_tenant($node, 'standby', $standby);
add_case('moving', "id FROM moving WHERE '{TARGET_DATE}' <> '' AND (id > 1 OR pg_sleep(600) IS NOT NULL)");
sql($node, "SELECT _wh.unsubscribe('shop', 'moving')");
sql($node, "SELECT _wh.subscribe('standby', 'moving', NULL, '$day')");
sql($node, 'UPDATE _wh.schedules SET active = false');
my $backfill = sql($node, "SELECT _wh.enqueue_backfill('moving', 'standby', '$day', '$day')");
$standby->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
  or die 'the load does not sleep';
$production->safe_psql('postgres', 'DELETE FROM moving WHERE id < 500');
$production->safe_psql('postgres', 'VACUUM moving');
is(sql($node, "SELECT _wh.wait_for_backfill($backfill, '50 s')"),
	'succeeded', 'a load that is in the way of recovery at a standby succeeds');
is( sql($node, "SELECT string_agg(d.status || coalesce(' ' || d.sqlstate, ''), ', ' ORDER BY runid) FROM _wh.job_run_details d JOIN _wh.jobs j USING (job_id) WHERE j.backfill_id = $backfill AND j.kind = 'refresh'"),
	'retrying 40001, succeeded', 'when it is tried again');
is(sql($node, 'SELECT count(*) FROM standby.moving'), 501, 'with what is there now');
$standby->stop;

done_testing();
