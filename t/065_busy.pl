# What a person does to the database, its roles and rights in the middle of a
# backfill: nothing hangs, no line of the log is repeated each second, no row is
# lost or doubled, and all goes on by itself when it is put right.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(create_extension => 0, conf => { 'wh_worker.databases' => "'wh'", 'wh_worker.max_workers' => 3 });
my ($first, $last) = ('2025-05-01', '2025-06-29');

create_events($source, $first, 60, 5);
sql($node, 'CREATE DATABASE wh');
sql($node, 'CREATE EXTENSION wh_worker', 'wh');
# where one looks from when nobody may be in the other
sql($node, 'CREATE EXTENSION wh_worker');

sub in_wh
{
	return sql($node, $_[0], $_[1] // 'wh');
}

# Templates of both layouts, with tenants, in the database "wh".
sub make_warehouse
{
	my $port = $source->port;
	my $password = reader_password();
	my $query = q{SELECT id, at, kind, amount, payload FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1};

	in_wh(qq{INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule, layout, date_column)
		SELECT t, \$\$$query\$\$, 'id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT',
			'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)', '0 0 29 2 *', l, 'at'
		FROM (VALUES ('events', 'matviews'), ('leaves', 'partitions')) v (t, l);
		SELECT _wh.add_tenant(t, '127.0.0.1', $port, 'postgres', 'wh_reader', '$password', '{events,leaves}', '$first') FROM unnest('{shop,other}'::text[]) t;
		SELECT _wh.pause_schedule(name) FROM _wh.schedules});
	return;
}

make_warehouse();

sub backfill
{
	my ($template, $database) = @_;

	return in_wh("SELECT _wh.enqueue_backfill('$template', NULL, '$first', '$last', mode => 'all')", $database);
}

sub waits_until
{
	my ($query, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok($node->poll_query_until($database // 'wh', $query), $name);
}

sub is_under_way
{
	my ($template) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $id = backfill($template);

	waits_until("SELECT count(*) > 5 FROM _wh.jobs WHERE backfill_id = $id AND state = 'succeeded'", 'a backfill is under way');
	return $id;
}

sub ends_well
{
	my ($id, $name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(in_wh("SELECT _wh.wait_for_backfill($id, '50 s')", $database), 'succeeded', $name);
}

# Both layouts, both tenants.
sub all_is_there
{
	my ($name, $database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $want = checksum($source, events_query($first, $last));

	is(join(' ', map { checksum($node, "SELECT id, at, kind, amount, payload FROM $_", $database // 'wh') } qw(shop.events other.events shop.leaves other.leaves)),
		join(' ', ($want) x 4), $name);
	return;
}

sub set_databases
{
	my ($databases) = @_;

	sql($node, "ALTER SYSTEM SET wh_worker.databases = '$databases'");
	$node->reload;
	return;
}

# Nobody of ours is connected to it.
sub is_left
{
	my ($database) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return waits_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '$database'", "all have left database $database", 'postgres');
}

my $launcher = q{SELECT count(*) = 1 FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND datname = '%s' AND %s};

ends_well(backfill($_), "$_ are loaded") foreach 'events', 'leaves';
all_is_there('all days are there');

# ---- roles and rights --------------------------------------------------

# While it is so: what each statement takes away, what is then said, and what puts it back.
my @rights = (
	{ what => 'NOLOGIN', take => 'ALTER ROLE whadmin NOLOGIN', give => 'ALTER ROLE whadmin LOGIN', said => 'role "whadmin" is not permitted to log in' },
	{ what => 'no CONNECT', take => 'REVOKE CONNECT ON DATABASE wh FROM whadmin, PUBLIC', give => 'GRANT CONNECT ON DATABASE wh TO whadmin, PUBLIC', said => 'role "whadmin" may not connect to database "wh"' });

sub end_workers
{
	return in_wh("SELECT count(pg_terminate_backend(pid)) FROM _wh.worker_status WHERE backend_type = 'wh_worker worker' AND pid IS NOT NULL");
}

foreach my $right (@rights)
{
	my $id = is_under_way('events');
	my $offset = log_end($node);

	sql($node, $right->{take});
	end_workers();
	# it may be over by now; a worker has to be wanted for anybody to be missed
	my $other = backfill('leaves');
	waits_until(sprintf($launcher, 'wh', "last_error = '$right->{said}'"), "$right->{what}: worker_status says it", 'postgres');
	waits_until(sprintf($launcher, 'wh', "(SELECT count(*) = 0 FROM _wh.worker_status w WHERE w.backend_type = 'wh_worker worker' AND w.pid IS NOT NULL)"), "$right->{what}: no worker is left", 'postgres');
	my $fatal = log_count($node, qr/ FATAL:  (?!terminating)/, $offset);
	sql($node, 'SELECT pg_reload_conf()') foreach 1 .. 30;
	is(log_count($node, qr/ FATAL:  (?!terminating)/, $offset), $fatal, "$right->{what}: none is started to die");
	is(log_count($node, qr/\Q$right->{said}\E/, $offset), 1, "$right->{what}: said once");
	sql($node, $right->{give});
	ends_well($_, "$right->{what}: given back, the backfill goes on") foreach $id, $other;
}

# A limit of connections is for people: workers start all the same.
sql($node, 'ALTER ROLE whadmin CONNECTION LIMIT 0');
my $id = is_under_way('leaves');
end_workers();
ends_well($id, 'CONNECTION LIMIT 0: new workers go on');
sql($node, 'ALTER ROLE whadmin CONNECTION LIMIT -1');

# The launcher itself cannot connect.
$id = is_under_way('leaves');
sql($node, 'REVOKE CONNECT ON DATABASE wh FROM whadmin, PUBLIC');
my $offset = log_end($node);
end_workers();
in_wh(q{SELECT pg_terminate_backend(pid) FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher' AND datname = 'wh'});
waits_until(sprintf($launcher, 'wh', q{state = 'waiting' AND last_error = 'its launcher could not connect; the server log says why'}), 'a launcher that cannot connect is said', 'postgres');
cmp_ok(log_count($node, qr/ FATAL:  permission denied for database "wh"/, $offset), '<=', 4, 'and is not tried again and again');
sql($node, 'GRANT CONNECT ON DATABASE wh TO whadmin, PUBLIC');
ends_well($id, 'it is tried again by itself');

# What it may do in the tenant's schema and in the database.
foreach my $case (
	[ 'CREATE on the schema', q{SELECT _wh.drop_day('events', 'shop', '2025-05-20'); ALTER SCHEMA shop OWNER TO CURRENT_USER; GRANT USAGE ON SCHEMA shop TO whadmin}, 'ALTER SCHEMA shop OWNER TO whadmin' ],
	[ 'USAGE on the schema', 'ALTER SCHEMA shop OWNER TO CURRENT_USER; REVOKE ALL ON SCHEMA shop FROM whadmin', 'ALTER SCHEMA shop OWNER TO whadmin; GRANT ALL ON SCHEMA shop TO whadmin' ],
	[ 'a day', 'ALTER MATERIALIZED VIEW shop.events_2025_05_20 OWNER TO CURRENT_USER', 'ALTER MATERIALIZED VIEW shop.events_2025_05_20 OWNER TO whadmin' ])
{
	my ($what, $take, $give) = @$case;

	in_wh($take);
	$id = backfill('events');
	is(in_wh("SELECT _wh.wait_for_backfill($id, '50 s')"), 'failed', "without $what its jobs fail") or diag(in_wh("SELECT DISTINCT last_sqlstate, last_error FROM _wh.jobs WHERE backfill_id = $id"));
	is(in_wh("SELECT string_agg(DISTINCT last_sqlstate, ' ') FROM _wh.jobs WHERE backfill_id = $id AND state = 'failed'"), '42501', "$what: for the right reason");
	is(in_wh("SELECT string_agg(DISTINCT tenant_name, ' ') FROM _wh.jobs WHERE backfill_id = $id AND state = 'failed' AND kind = 'refresh'"), 'shop', "$what: and of others none");
	in_wh($give);
	in_wh("SELECT _wh.retry_failed($id)");
	ends_well($id, "$what: given back, retry_failed() loads them");
}
all_is_there('after all that every day is there once');

fails_with($node, 'DROP OWNED BY whadmin CASCADE', '2BP01', qr/because extension wh_worker requires it/, 'DROP OWNED BY the admin role is refused', 'wh');
fails_with($node, 'DROP ROLE whadmin', '2BP01', qr/cannot be dropped because some objects depend on it/, 'DROP ROLE of the admin role is refused', 'wh');

# Workers grant to it meanwhile: PostgreSQL may say so, and a person tries again.
sub drop_reader
{
	foreach (1 .. 50)
	{
		return 1 if $node->psql('wh', 'DROP OWNED BY phood_ro; REVOKE ALL ON DATABASE wh FROM phood_ro') == 0 &&
			$node->psql('postgres', 'DROP OWNED BY phood_ro; DROP ROLE phood_ro') == 0;
	}
	return 0;
}

$id = is_under_way('events');
ok(drop_reader(), 'the reader role is dropped while it runs');
ends_well($id, 'without the reader role all goes on');
sql($node, 'CREATE ROLE phood_ro LOGIN');
in_wh('SELECT _wh.apply_grants()');
is(in_wh('SET ROLE phood_ro; SELECT count(*) FROM shop.events'), 300, 'a new one gets what it is due');

# Renamed while all of it runs: they go by its OID until they start anew.
$id = is_under_way('events');
sql($node, 'ALTER ROLE whadmin RENAME TO away');
ends_well($id, 'the admin role is renamed, and what runs goes on');
sql($node, 'ALTER ROLE away RENAME TO whadmin');

# A worker that is ended before it has claimed its job: the next one has it at once.
in_wh(q{CREATE FUNCTION public.stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END';
	CREATE TRIGGER stall BEFORE UPDATE ON _wh.jobs FOR EACH ROW WHEN (OLD.state = 'queued' AND NEW.state = 'running') EXECUTE FUNCTION public.stall()});
my $waiting = q{SELECT count(*) = %d FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted};
my $gate = $node->background_psql('wh');
$gate->query_safe('SELECT pg_advisory_lock(4711)');
$id = in_wh("SELECT _wh.enqueue_backfill('events', 'shop', '$first', '$first', mode => 'all')");
waits_until(sprintf($waiting, 1), 'a worker is about to claim a job');
my $claimant = in_wh(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted});
end_workers();
waits_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $claimant", 'it is ended');
$gate->quit;
in_wh('DROP TRIGGER stall ON _wh.jobs');
is(in_wh("SELECT _wh.wait_for_backfill($id, '45 s')"), 'succeeded', 'its job does not wait until the queue is read anew');

# ---- the database ------------------------------------------------------

$id = is_under_way('events');
fails_with($node, 'DROP DATABASE wh', '55006', qr/is being accessed by other users/, 'DROP DATABASE without FORCE is refused');
fails_with($node, 'ALTER DATABASE wh RENAME TO renamed', '55006', qr/is being accessed by other users/, 'so is RENAME');
set_databases('renamed');
is_left('wh');
sql($node, 'ALTER DATABASE wh RENAME TO renamed');
is($node->safe_psql('renamed', "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'renamed, the backfill goes on');
is(in_wh('SELECT _wh.pause_reason()', 'renamed'), '', 'it is the same warehouse');
all_is_there('with all days', 'renamed');
my $jobs = in_wh("SELECT string_agg(DISTINCT state, ' ') FROM _wh.jobs", 'renamed');
is($jobs, 'succeeded', 'no job is lost');

$id = in_wh("SELECT _wh.enqueue_backfill('leaves', NULL, '$first', '$last', mode => 'all')", 'renamed');
my $directory = PostgreSQL::Test::Utils::tempdir();
sql($node, "CREATE TABLESPACE elsewhere LOCATION '$directory'");
waits_until(sprintf($launcher, 'renamed', 'pid IS NOT NULL'), 'a launcher is there', 'postgres');
fails_with($node, 'ALTER DATABASE renamed SET TABLESPACE elsewhere', '55006', qr/is being accessed by other users/, 'SET TABLESPACE while it runs is refused');
set_databases('');
is_left('renamed');
sql($node, 'ALTER DATABASE renamed SET TABLESPACE elsewhere');
set_databases('renamed');
ends_well($id, 'moved to another tablespace, the backfill goes on', 'renamed');
all_is_there('with all days', 'renamed');

sql($node, 'ALTER DATABASE renamed ALLOW_CONNECTIONS false');
$offset = log_end($node);
$node->stop;
$node->start;
waits_until(sprintf($launcher, 'renamed', q{last_error = 'database "renamed" does not accept connections'}), 'without connections the launcher waits, and says so', 'postgres');
sql($node, 'ALTER DATABASE renamed ALLOW_CONNECTIONS true');
waits_until(sprintf($launcher, 'renamed', q{state = 'idle'}), 'with them it goes on', 'postgres');
is(log_count($node, qr/does not accept connections/, $offset), 1, 'said once');

$id = in_wh("SELECT _wh.enqueue_backfill('events', NULL, '$first', '$last', mode => 'all')", 'renamed');
waits_until("SELECT count(*) > 5 FROM _wh.jobs WHERE backfill_id = $id AND state = 'succeeded'", 'a backfill is under way', 'renamed');
$offset = log_end($node);
sql($node, 'DROP DATABASE renamed WITH (FORCE)');
pass('DROP DATABASE WITH (FORCE) takes it away from under its workers');
waits_until(sprintf($launcher, 'renamed', q{last_error = 'database "renamed" does not exist'}), 'that it is gone is said', 'postgres');
ok($source->poll_query_until('postgres', tenant_sessions(), '0'), 'no connection to a tenant is left');
waits_until(q{SELECT count(*) = 0 FROM _wh.worker_status WHERE backend_type = 'wh_worker worker'}, 'nor a worker', 'postgres');
is(log_count($node, qr/waits to start in database "renamed": database "renamed" does not exist/, $offset), 1, 'said once');
is(log_count($node, qr/ PANIC:  |terminated by signal/, $offset), 0, 'nobody crashed');
set_databases('wh');
sql($node, 'CREATE DATABASE wh');
in_wh('CREATE EXTENSION wh_worker');
make_warehouse();
ends_well(backfill('events'), 'a new warehouse is loaded in its place');

$node->stop;
$source->stop;
done_testing();
