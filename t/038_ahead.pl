# While the indexes of a day are built the tenant is asked for the next one.  Rows that
# were asked for before their turn never take the place of newer ones, and no
# tenant is kept waiting with them for longer than that.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
$production->append_conf('postgresql.conf', 'log_connections = on');
$production->reload;
create_events($production, '2025-07-01', 60, 20);

# One day can be made to fail.
$production->safe_psql('postgres', q{
	CREATE TABLE trouble (divisor integer);
	INSERT INTO trouble VALUES (1);
	GRANT SELECT ON trouble TO wh_reader});
my $query = q{SELECT id, at, kind, amount * (1 / CASE WHEN date '{TARGET_DATE}' = '2025-07-23' THEN (SELECT divisor FROM trouble) ELSE 1 END),
	payload FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1};

# Whoever builds an index over gate(n, …) waits while somebody holds lock n.
my $node = new_warehouse(conf => { 'wh_worker.max_workers' => 1 });
sql($node, q{CREATE FUNCTION public.gate(n integer, id integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
	BEGIN
		IF current_setting('gate.passes', true) IS DISTINCT FROM 'all' THEN
			PERFORM pg_advisory_lock_shared(n);
			PERFORM pg_advisory_unlock_shared(n);
		END IF;
		RETURN id;
	END $$});
my $indexes = join(';', map { "CREATE INDEX gate_${_}_{schema}_{view_name} ON {schema}.{view_name} (public.gate($_, id))" } 1, 2);
add_events_template($node, 'events', query => $query, indexes => $indexes);
add_tenant($node, 'shop', $production, templates => ['events'], start_date => '2025-09-01');
sql($node, 'UPDATE _wh.schedules SET active = false');

my $gates = $node->background_psql('postgres');

sub gate
{
	my ($how, @gates) = @_;

	$gates->query_safe("SELECT pg_advisory_$how($_)") foreach @gates;
	return;
}

sub backfill
{
	my ($first, $last, $mode) = @_;

	return sql($node, sprintf "SELECT _wh.enqueue_backfill('events', 'shop', '%s', '%s', mode => '%s', newest_first => false)",
		$first, $last, $mode // 'missing');
}

sub ends
{
	my ($id, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sql($node, "SELECT _wh.wait_for_backfill($id, '60 s')"), $state, $name);
}

# What the tenant's session does, or did last, is for this day.
sub tenant_is_at
{
	my ($what, $day, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($production,
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'wh_reader' AND query LIKE '$what%$day%' AND state <> 'idle'", $name);
}

# Asked for its rows, or asked what they will be like and done with the answer: what
# is not there yet when the worker goes by it would look for only at the next day.
sub tenant_has_answered
{
	my ($day, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($production,
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'wh_reader' AND query LIKE '%$day%' AND (state = 'idle in transaction' AND wait_event = 'ClientRead' OR query LIKE 'COPY%')", $name);
}

sub tenant_is_left_alone
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($production,
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'wh_reader' AND state <> 'idle'", $name);
}

sub waits_at_gate
{
	my ($n, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = $n AND NOT granted", $name);
}

# Stops the worker while it builds the last index of the first day, when it has
# asked for the second.
sub stop_between
{
	my ($first, $second) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	gate('lock', 1, 2);
	my $id = backfill($first, $second);
	waits_at_gate(1, "$first is being indexed");
	tenant_has_answered($second, "the tenant was asked for $second, or has said what it will be like");
	gate('unlock', 1);
	waits_at_gate(2, 'at the next index');
	tenant_is_at('COPY', $second, 'it is asked for its rows');
	return $id;
}

sub content_is_right
{
	my ($first, $last, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return same_content($node, "SELECT id, at, kind, amount, payload FROM shop.events WHERE at >= '$first' AND at < date '$last' + 1",
		$production, events_query($first, $last), $name);
}

sub connections
{
	return log_count($production, qr/connection authorized: user=wh_reader/);
}

# ---- what it is for ----------------------------------------------------

my $id = stop_between('2025-07-01', '2025-07-02');
gate('unlock', 2);
ends($id, 'succeeded', 'both days come');
content_is_right('2025-07-01', '2025-07-02', 'and are right');
is(connections(), 1, 'over one connection');
is(sql($node, "SELECT count(*) FROM _wh.day_loads b JOIN _wh.day_loads a ON a.target_date = '2025-07-01'
	WHERE b.target_date = '2025-07-02' AND b.fetch_started_at < a.loaded_at"), 1,
	'the ledger says when the second was asked for, not when its turn came');

$id = backfill('2025-07-03', '2025-07-12');
ends($id, 'succeeded', 'ten days come');
content_is_right('2025-07-03', '2025-07-12', 'and are right');
is(connections(), 1, 'over the same connection');

$id = backfill('2025-07-01', '2025-07-12', 'all');
ends($id, 'succeeded', 'they are loaded again');
is(connections(), 1, 'which asks for nothing that could not be used');

# ---- somebody else was there first -------------------------------------

$id = stop_between('2025-07-13', '2025-07-14');
change_events($production, '2025-07-14');
is(sql($node, "SET gate.passes = 'all'; SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-14', false)"), 't',
	'somebody loads the second day, newer than what was asked for');
gate('unlock', 2);
ends($id, 'succeeded', 'the backfill ends after him');
content_is_right('2025-07-13', '2025-07-14', 'and has not put older rows in the place of newer ones');

# ---- somebody asks for the day when it was asked for --------------------

foreach my $mode ('missing', 'all')
{
	my ($first, $second) = $mode eq 'missing' ? ('2025-08-01', '2025-08-02') : ('2025-08-03', '2025-08-04');
	my $last = $mode eq 'missing' ? $second : '2025-08-05';

	$id = stop_between($first, $second);
	change_events($production, $second);
	my $request = backfill($second, $last, $mode);
	gate('unlock', 2);
	ends($_, 'succeeded', "$mode: both backfills end") foreach $id, $request;
	content_is_right($first, $last, 'and he who asked last has what was there when he asked');
}

$id = stop_between('2025-08-06', '2025-08-07');
sql($node, "SELECT _wh.cancel_job(job_id) FROM _wh.jobs WHERE state = 'queued' AND target_date = '2025-08-07'");
change_events($production, '2025-08-07');
my $again = backfill('2025-08-07', '2025-08-07');
gate('unlock', 2);
ends($id, 'cancelled', 'a backfill ends without a day that was cancelled');
ends($again, 'succeeded', 'which is asked for again');
content_is_right('2025-08-06', '2025-08-07', 'and is as it was then');

# ---- nobody is waited for meanwhile ------------------------------------

$id = stop_between('2025-07-15', '2025-07-16');
my $holder = $node->background_psql('postgres', on_error_stop => 1);
$holder->query_safe('BEGIN');
$holder->query_safe('LOCK TABLE _wh.day_loads IN SHARE MODE');
gate('unlock', 2);
tenant_is_left_alone('while the first day waits for a lock the tenant is left alone');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE state = 'running' AND target_date = '2025-07-15'"), 1, 'it does wait');
$holder->query_safe('COMMIT');
ends($id, 'succeeded', 'then both days come');
content_is_right('2025-07-15', '2025-07-16', 'and are right');

$id = stop_between('2025-07-17', '2025-07-18');
gate('lock', 3);
sql($node, "UPDATE _wh.mv_templates SET indexes = replace(indexes, 'gate(1', 'gate(3')");
my $other = $node->background_psql('postgres');
$other->query_until(qr/^asked$/m, "\\echo asked\nSELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-18', false);\n\\echo loaded\n");
waits_at_gate(3, 'somebody loads the second day and does not get on');
gate('unlock', 2);
wait_until($node, "SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE l.locktype = 'advisory' AND NOT l.granted AND a.backend_type = 'wh_worker worker'", 'the worker waits for him');
wait_until($production, "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'wh_reader' AND query LIKE 'COPY%2025-07-18%' AND application_name LIKE 'wh_worker%'
	AND state <> 'idle' AND pid <> (SELECT max(pid) FROM pg_stat_activity WHERE usename = 'wh_reader')", 'with nothing open at the tenant');
gate('unlock', 3);
$other->query_until(qr/^loaded$/m, "\\echo loaded\n");
$other->quit;
ends($id, 'succeeded', 'then the backfill ends');
sql($node, "UPDATE _wh.mv_templates SET indexes = replace(indexes, 'gate(3', 'gate(1')");
content_is_right('2025-07-17', '2025-07-18', 'and both days are right');

$id = stop_between('2025-08-08', '2025-08-09');
is(sql($node, "SET gate.passes = 'all'; SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-08-09', false)"), 't',
	'somebody loads the second day');
$holder->query_safe('BEGIN');
$holder->query_safe(sprintf 'COMMENT ON MATERIALIZED VIEW shop.%s IS $$held$$',
	sql($node, "SELECT quote_ident(relation) FROM _wh.day_loads WHERE target_date = '2025-08-09'"));
gate('unlock', 2);
wait_until($node, "SELECT count(*) = 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE l.locktype = 'relation' AND NOT l.granted AND a.backend_type = 'wh_worker worker'", 'and somebody else has locked it');
tenant_is_left_alone('the worker waits for him with nothing open at the tenant');
$holder->query_safe('COMMIT');
ends($id, 'succeeded', 'then the backfill ends');
content_is_right('2025-08-08', '2025-08-09', 'and both days are right');

# ---- it is not wanted any more -----------------------------------------

$id = stop_between('2025-07-19', '2025-07-20');
sql($node, "SELECT _wh.cancel_job(job_id) FROM _wh.jobs WHERE state = 'queued' AND target_date = '2025-07-20'");
gate('unlock', 2);
tenant_is_left_alone('a day that was cancelled is given up');
ends($id, 'cancelled', 'the backfill ends without it');
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE target_date = '2025-07-20'"), 0, 'it was not loaded');

$id = stop_between('2025-07-20', '2025-07-21');
sql($node, 'SELECT _wh.pause()');
gate('unlock', 2);
tenant_is_left_alone('so is one that has to wait, because all does');
sql($node, 'SELECT _wh.resume()');
ends($id, 'succeeded', 'it comes later');
content_is_right('2025-07-20', '2025-07-21', 'and is right');

# ---- it comes to nothing -----------------------------------------------

$production->safe_psql('postgres', 'UPDATE trouble SET divisor = 0');
$id = backfill('2025-07-22', '2025-07-24');
ends($id, 'failed', 'one day of three fails at the tenant');
is(sql($node, "SELECT string_agg(target_date || ' ' || state, ', ' ORDER BY target_date) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"),
	'2025-07-22 succeeded, 2025-07-23 failed, 2025-07-24 succeeded', 'that one');
like(sql($node, "SELECT last_error FROM _wh.jobs WHERE backfill_id = $id AND state = 'failed'"), qr/division by zero/, 'with its own error');
content_is_right('2025-07-24', '2025-07-24', 'the one behind it is right');

$id = stop_between('2025-07-25', '2025-07-26');
$production->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'wh_reader'");
gate('unlock', 2);
ends($id, 'succeeded', 'a connection that is lost meanwhile is made again');
content_is_right('2025-07-25', '2025-07-26', 'and both days are right');

# ---- what is never asked for ahead -------------------------------------

sub is_not_asked
{
	my ($first, $second, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	gate('lock', 2);
	my $backfill = backfill($first, $second);
	waits_at_gate(2, "$first is being indexed");
	tenant_is_left_alone($name);
	gate('unlock', 2);
	ends($backfill, 'succeeded', 'both days come');
	return content_is_right($first, $second, 'and are right');
}

sql($node, "UPDATE _wh.tenant_connections SET max_rows_per_second = 100000");
is_not_asked('2025-07-27', '2025-07-28', 'of a tenant that has a limit no day is asked for ahead');
sql($node, "UPDATE _wh.tenant_connections SET max_rows_per_second = NULL");
sql($node, "UPDATE _wh.mv_templates SET change_probe = 'SELECT max(id) FROM events WHERE at::date = date ''{TARGET_DATE}'''");
is_not_asked('2025-07-29', '2025-07-30', 'nor one that may prove to be unchanged');

sql($node, "UPDATE _wh.mv_templates SET change_probe = NULL");

# ---- a promise is kept, and keeps nobody from anything ------------------

$gates->quit;
$holder->quit;
$node->append_conf('postgresql.conf', 'wh_worker.max_workers = 4');
$node->restart;
$gates = $node->background_psql('postgres');
gate('lock', 2, 3);
sql($node, "UPDATE _wh.mv_templates SET indexes = replace(indexes, 'gate(2', 'gate(3')");
my $single = backfill('2025-08-20', '2025-08-20');
waits_at_gate(3, 'the first worker loads a day');
sql($node, "UPDATE _wh.mv_templates SET indexes = replace(indexes, 'gate(3', 'gate(2')");
gate('lock', 1);
$id = backfill('2025-08-21', '2025-08-24');
waits_at_gate(1, 'the second loads the first day of four');
tenant_is_at('%', '2025-08-22', 'and has asked what the next will be like');
gate('unlock', 1);
waits_at_gate(2, 'at the next index');
tenant_is_at('COPY', '2025-08-22', 'and has asked for the next');
gate('unlock', 3);
ends($single, 'succeeded', 'the first is idle');
gate('unlock', 2);
ends($id, 'succeeded', 'all come');
is(sql($node, "SELECT string_agg(target_date::text, ' ' ORDER BY started_at) FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"),
	'2025-08-21 2025-08-22 2025-08-23 2025-08-24', 'in their order');
is(sql($node, "SELECT count(*) FROM _wh.day_loads b JOIN _wh.day_loads a ON a.target_date = '2025-08-21'
	WHERE b.target_date = '2025-08-22' AND b.fetch_started_at < a.loaded_at"), 1, 'by him who had asked for it');
content_is_right('2025-08-20', '2025-08-24', 'and are right');

$gates->quit;
done_testing();
