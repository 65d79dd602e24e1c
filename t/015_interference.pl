# What two people, or a person and a worker, do at the same moment, and what
# would then be wrong without anybody noticing.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my ($first, $last) = ('2025-07-01', '2025-07-03');
my $production = new_tenant('production');
my $node = new_warehouse();

add_events_template($node, 'events');
foreach my $i (1 .. 2)
{
	$production->safe_psql('postgres', "CREATE DATABASE shop_$i");
	create_events($production, $first, 6, 10, database => "shop_$i", seed => $i);
	add_tenant($node, "shop_$i", $production, database => "shop_$i",
		templates => ['events'], start_date => $first);
}

sub load
{
	my ($arguments, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($id, $state) = enqueue_and_wait($node, "'events', $arguments");

	is($state, 'succeeded', $name);
	return;
}

# A person keeps a day for himself, under another name.
sub rename_day
{
	my ($schema, $date) = @_;
	my $relation = "events_$date" =~ s/-/_/gr;

	return "ALTER MATERIALIZED VIEW $schema.$relation RENAME TO mine_$relation;"
	  . "ALTER INDEX $schema.idx_${schema}_${relation}_id RENAME TO mine_${relation}_id;";
}

sub is_noticed
{
	my ($schema, $date) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_until($node, "SELECT pg_reload_conf() AND state = 'missing' FROM _wh.day_loads WHERE target_schema = '$schema' AND target_date = '$date'",
		"that $date is missing in $schema is noticed");
	return;
}

sub is_published_without
{
	my ($schema, $date, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE kind = 'publish' AND state IN ('queued', 'running')",
		'nothing is left to publish');
	is(sql($node, "SELECT count(*) FROM $schema.events WHERE at::date = '$date'"), 0, $name);
	return;
}

load("NULL, '$first', '$last'", 'three days of two tenants are loaded');

# ---- a missing day, and somebody who counts before it is published -----

sql($node, 'SELECT _wh.pause()');
sql($node, rename_day('shop_1', '2025-07-02'));
is_noticed('shop_1', '2025-07-02');
sql($node, "SELECT _wh.subscribe('shop_1', 'events', start_date => '2025-06-30')");
sql($node, 'SELECT _wh.resume()');
is_published_without('shop_1', '2025-07-02', 'a subscription in between: the view no longer reads the renamed day');

sql($node, 'SELECT _wh.pause()');
sql($node, rename_day('shop_1', '2025-07-03'));
is_noticed('shop_1', '2025-07-03');
sql($node, "SELECT _wh.drop_day('events', 'shop_1', '2025-07-03')");
sql($node, 'SELECT _wh.resume()');
is_published_without('shop_1', '2025-07-03', 'drop_day of the missing day: the view no longer reads the renamed one');

$production->stop('immediate');
sql($node, 'SELECT _wh.pause_tenant($$shop_2$$)');
sql($node, rename_day('shop_2', '2025-07-03'));
my ($status, $out, $err) = $node->psql('postgres',
	"SELECT _wh.update_mv_by_template('events', 'shop_2', 'shop_2', '2025-07-01', false)");
is($out, 'f', 'a call whose tenant does not answer');
is_published_without('shop_2', '2025-07-03', 'publishes what it noticed all the same');
$production->start;
sql($node, 'SELECT _wh.resume_tenant($$shop_2$$)');

# ---- a ledger row that somebody has locked -----------------------------

my $session = $node->background_psql('postgres');
$session->query_safe("BEGIN; SELECT FROM _wh.day_loads WHERE target_schema = 'shop_2' AND target_date = '$first' FOR UPDATE");
sql($node, rename_day('shop_2', $first) . rename_day('shop_2', '2025-07-02'));
is_noticed('shop_2', '2025-07-02');
$session->quit;
is_noticed('shop_2', $first);
is_published_without('shop_2', $first, 'a row that was locked when the launcher looked is not forgotten');

# ---- views that are replaced again and again ---------------------------

sql($node, 'CREATE ROLE reader; ALTER VIEW shop_1.events SET (security_barrier = on); GRANT SELECT (id) ON shop_1.events TO reader');
load("'shop_1', '$_', '$_'", "$_ is loaded") foreach '2025-07-04', '2025-07-05';
is(sql($node, "SELECT count(*) FROM pg_shdepend WHERE refobjid = 'reader'::regrole"), 1, 'a grant on a column is noted once');

# ---- a load that meets a change of its template ------------------------

# The days that are loaded can be read as integers, the one under way cannot.
my $gated = q{SELECT id, at, kind, amount, payload FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1 AND pg_advisory_xact_lock_shared(7) IS NOT NULL};
$production->safe_psql('shop_1', q{UPDATE events SET kind = '7' WHERE at < '2025-07-06'; UPDATE events SET kind = 'abc' WHERE at >= '2025-07-06'});
$production->safe_psql('shop_2', q{UPDATE events SET kind = '7'});
load("NULL, '$first', '2025-07-05', mode => 'all'", 'days with numbers are loaded');
sql($node, "UPDATE _wh.mv_templates SET query_template = \$\$$gated\$\$");
my $gate = $production->background_psql('shop_1');
$gate->query_safe('SELECT pg_advisory_lock(7)');
my $id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-06', '2025-07-06')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching'", 'a load is under way');
sql($node, q{UPDATE _wh.mv_templates SET column_definitions = regexp_replace(column_definitions, 'kind [^,]*', 'kind INTEGER', 'i')});
$gate->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($id, '60 s')"), 'failed', 'a day that the new columns cannot show is not published');
like(sql($node, "SELECT string_agg(sqlstate, ' ' ORDER BY runid) FROM _wh.job_run_details JOIN _wh.jobs j USING (job_id) WHERE j.backfill_id = $id AND sqlstate IS NOT NULL"),
	qr/^40001 22P02$/, 'its load is begun again with the new columns, which the tenant does not fill');
is(sql($node, 'SELECT sum(kind) = 7 * count(*) FROM shop_1.events'), 't', 'the view can be read');

# ---- two who wait for each other, one of them politely -----------------

$production->safe_psql('shop_1', q{UPDATE events SET kind = '7'});
sql($node, q{UPDATE _wh.mv_templates SET indexes = indexes || '; CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)',
	query_template = replace(query_template, '_shared(7)', '_shared(extract(day FROM date ''{TARGET_DATE}'')::integer)')});
$gate = $production->background_psql('shop_1');
$gate->query_safe('SELECT pg_advisory_lock(2)');
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-02', '2025-07-02', mode => 'all')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching'", 'a worker has the second day');
my $person = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $person->query_safe('SELECT pg_backend_pid()');
$person->query_safe(q{SET deadlock_timeout = '1ms'; BEGIN; SELECT _wh.update_mv_by_template('events', 'shop_1', 'shop_1', '2025-07-01', false)});
$person->query_until(qr/asked/, qq{\\echo asked\nSELECT _wh.update_mv_by_template('events', 'shop_1', 'shop_1', '2025-07-02', false);\nCOMMIT;\n});
wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND NOT granted", 'a person has the first day, and waits for the second');
$gate->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($id, '60 s')"), 'succeeded', 'neither waits for ever');
$person->query('SELECT 1');
is(sql($node, q{SELECT count(*) FROM shop_1.events WHERE at::date IN ('2025-07-01', '2025-07-02')}), 20, 'and both days are there');
$person->quit;

$node->stop;
$production->stop;
done_testing();
