# A day that is loaded again changes its files under its readers: everything
# that is not its content stays, nobody waits for long, nobody sees a half, and
# a crash at any point leaves the old day or the new one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my ($first, $second, $third) = ('2025-07-01', '2025-07-02', '2025-07-03');
my $source = 'SELECT id, at, kind, payload FROM events WHERE at::date = ';

# The log of the tenant tells how often it was asked; the one of the warehouse,
# how often the lock was (a try is longer than deadlock_timeout).
my $production = new_tenant('production', conf => { log_statement => "'all'" });
my $node = new_warehouse(
	conf => {
		autovacuum => 'off',
		checkpoint_timeout => "'1h'",
		deadlock_timeout => "'50ms'",
		max_prepared_transactions => 1,
		log_lock_waits => 'on',
		'wh_worker.max_workers' => 1,
	});
my $lock_wait = qr/still waiting for AccessExclusiveLock on relation/;

# ---- the fixture -------------------------------------------------------

# Every third payload is too long for a page and cannot be compressed.
$production->safe_psql('postgres', q{
	CREATE TABLE events (id integer, at timestamp, kind text, payload text);
	INSERT INTO events
	SELECT d * 1000 + n, date '2025-07-01' + d + n * interval '1 second', 'kind ' || n % 5,
		CASE WHEN n % 3 = 0 THEN (SELECT string_agg(md5((n * i)::text), '') FROM generate_series(1, 90) AS i) ELSE 'short' END
	FROM generate_series(0, 2) AS d, generate_series(1, 300) AS n;
	GRANT SELECT ON events TO wh_reader;
});

# Another content of another length for all days.
my $version = 0;

sub change_source
{
	$version++;
	$production->safe_psql('postgres', qq{
		UPDATE events SET kind = 'version $version ' || id % 5;
		INSERT INTO events SELECT 1000 * d + 500 + $version, date '2025-07-01' + d + interval '1 hour', 'added', repeat('x', $version)
		FROM generate_series(0, 2) AS d;
	});
}

add_events_template($node, 'events',
	query => q{SELECT id, at, kind, payload FROM events WHERE at::date = '{TARGET_DATE}'},
	columns => 'id integer, at timestamp, kind text, payload text',
	indexes => q{CREATE UNIQUE INDEX idx_{view_name}_id ON {schema}.{view_name} (id);
		CREATE INDEX idx_{view_name}_at ON {schema}.{view_name} (at) WITH (fillfactor = 80);
		CREATE INDEX idx_{view_name}_kind ON {schema}.{view_name} (kind)});
add_tenant($node, 'shop', $production, templates => ['events'], start_date => $first);
sql($node, 'CREATE EXTENSION amcheck; CREATE EXTENSION pg_visibility');

sub relation
{
	my ($day) = @_;

	return 'shop.events_' . $day =~ s/-/_/gr;
}

# A job that loads the day again; its number.
sub enqueue
{
	my ($day) = @_;
	my $backfill = sql($node,
		"SELECT _wh.enqueue_backfill('events', 'shop', '$day', '$day', NULL, 'all')");

	return sql($node, "SELECT job_id FROM _wh.jobs WHERE backfill_id = $backfill AND kind = 'refresh'");
}

sub succeeds
{
	my ($job, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_for_job($node, "job_id = $job", 'succeeded', $name);
}

sub content
{
	my ($day) = @_;

	return checksum($node, 'SELECT * FROM ' . relation($day));
}

sub source_content
{
	my ($day) = @_;

	return checksum($production, "$source'$day'");
}

sub has_new_content
{
	my ($day, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(content($day), source_content($day), "$name: the day equals its source");
}

# Settings that a worker obeys from its next job on: a connection that sees
# them was made after the server told its processes.
sub set_settings
{
	my (%settings) = @_;

	foreach my $name (sort keys %settings)
	{
		my $value = $settings{$name};

		sql($node, defined $value ? "ALTER SYSTEM SET $name = '$value'" : "ALTER SYSTEM RESET $name");
	}
	$node->reload;
	foreach my $name (grep { defined $settings{$_} } sort keys %settings)
	{
		$node->poll_query_until('postgres', "SELECT current_setting('$name') = '$settings{$name}'")
		  or die "$name is not set";
	}
}

# Nothing of a load is left: no transient relation, no TOAST table of nobody.
sub nothing_left
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is( sql($node, q{
		SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c
		WHERE c.relname ~ 'pg_temp_[0-9]' OR (c.relkind = 't'
			AND NOT EXISTS (SELECT FROM pg_class o WHERE o.reltoastrelid = c.oid))}),
		'', "$name: nothing is left behind");
}

# Files of relations that no row of the catalog has; those that were dropped
# go with a checkpoint.
sub orphan_files
{
	return sql($node, q{
		CHECKPOINT;
		SELECT string_agg(f, ' ') FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database WHERE datname = current_database())) AS f
		WHERE f ~ '^[0-9]+' AND pg_filenode_relation(0, substring(f FROM '^[0-9]+')::oid) IS NULL});
}

sub is_sound
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	nothing_left($name);
	is( sql($node, q{
		SELECT string_agg(d.relation, ' ') FROM _wh.day_loads d JOIN pg_class c ON c.oid = d.relation_oid
		WHERE d.relation_file <> c.relfilenode OR d.state <> 'published'
			OR d.rows <> (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM shop.%I', d.relation), false, true, '')))[1]::text::bigint}),
		'', "$name: the ledger has the rows and the files that are there");
	return $node->command_ok(
		[
			'pg_amcheck', '--database', 'postgres', '--heapallindexed', '--parent-check', '--schema', 'shop',
			'--table', 'pg_catalog.pg_class', '--table', 'pg_catalog.pg_depend',
			'--table', 'pg_catalog.pg_attribute', '--table', 'pg_catalog.pg_statistic'
		],
		"$name: pg_amcheck finds nothing");
}

# A session that stays in a transaction which has read the day; its pid.
sub start_reader
{
	my ($day) = @_;
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_safe('BEGIN; SELECT count(*) FROM ' . relation($day));
	return ($session, $pid);
}

sub waits_for
{
	my ($job, $pid, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node,
		"SELECT count(*) = 1 FROM _wh.worker_status WHERE job_id = $job AND state = 'waiting_lock' AND blocked_by = ARRAY[$pid]",
		$name);
}

# Waits until the lock was asked for $count times since $offset.
sub tries_to_lock
{
	my ($count, $offset, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
	my $found;

	do
	{
		sql($node, 'SELECT 1');
		$found = log_count($node, $lock_wait, $offset);
	} while ($found < $count && time() < $deadline);
	return cmp_ok($found, '>=', $count, $name);
}

is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$third'"))[1],
	'succeeded', 'three days are loaded');

# ---- what belongs to the relation stays --------------------------------

my $day = relation($first);

sql($node, qq{
	CREATE ROLE analyst;
	GRANT SELECT ON $day TO analyst WITH GRANT OPTION;
	GRANT SELECT (kind) ON $day TO PUBLIC;
	COMMENT ON MATERIALIZED VIEW $day IS 'the first day';
	COMMENT ON COLUMN $day.kind IS 'a kind';
	COMMENT ON INDEX shop.idx_events_2025_07_01_id IS 'an index';
	ALTER MATERIALIZED VIEW $day SET (autovacuum_enabled = false, fillfactor = 70, toast.autovacuum_vacuum_threshold = 77);
	ALTER MATERIALIZED VIEW $day ALTER COLUMN kind SET STATISTICS 3;
	ALTER MATERIALIZED VIEW $day ALTER COLUMN at SET (n_distinct = 12);
	ALTER MATERIALIZED VIEW $day ALTER COLUMN payload SET STORAGE EXTERNAL;
	ALTER MATERIALIZED VIEW $day CLUSTER ON idx_events_2025_07_01_at;
	CREATE INDEX of_a_person ON $day (lower(kind), abs(id)) WHERE id > 3;
	ALTER INDEX shop.of_a_person ALTER COLUMN 1 SET STATISTICS 5;
	CREATE STATISTICS shop.of_two (dependencies) ON id, kind FROM $day;
	CREATE VIEW on_top AS SELECT kind, count(*) AS n FROM $day GROUP BY kind;
	ANALYZE $day;
});

# What must be the same before and after, by name.
my %kept = (
	'OID, owner, grants, options' =>
	  "SELECT oid, relname, relowner, relacl, reloptions, relam, reltablespace, relpersistence, relhasindex, relispopulated, relreplident FROM pg_class WHERE oid = '$day'::regclass",
	'options of the TOAST table' =>
	  "SELECT t.reloptions FROM pg_class t JOIN pg_class c ON c.reltoastrelid = t.oid WHERE c.oid = '$day'::regclass",
	'columns with their statistics targets, options, storage and grants' =>
	  "SELECT string_agg(a::text, ' ') FROM (SELECT attname, attnum, atttypid, attstattarget, attoptions, attstorage, attcompression, attacl FROM pg_attribute WHERE attrelid = '$day'::regclass AND attnum > 0 ORDER BY attnum) AS a",
	'comments' =>
	  "SELECT string_agg(d::text, ' ' ORDER BY d::text) FROM pg_description d WHERE objoid IN (SELECT '$day'::regclass UNION SELECT indexrelid FROM pg_index WHERE indrelid = '$day'::regclass)",
	'indexes, their options and targets, the CLUSTER mark' =>
	  "SELECT string_agg(i::text, ' ') FROM (SELECT x.*, c.reloptions, pg_get_indexdef(x.indexrelid), (SELECT array_agg(attstattarget ORDER BY attnum) FROM pg_attribute WHERE attrelid = x.indexrelid) FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid WHERE indrelid = '$day'::regclass ORDER BY 1) AS i",
	'what depends on it' =>
	  "SELECT string_agg((classid::regclass, objid, objsubid, refobjsubid, deptype)::text, ' ' ORDER BY classid, objid, objsubid, refobjsubid) FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = '$day'::regclass AND deptype <> 'i'",
	'what it depends on' =>
	  "SELECT string_agg(d::text, ' ' ORDER BY d::text) FROM pg_depend d WHERE classid = 'pg_class'::regclass AND objid = '$day'::regclass",
	'extended statistics' => "SELECT oid, stxname, stxrelid, stxkeys FROM pg_statistic_ext",
	'its definition' => "SELECT pg_get_viewdef('$day'::regclass)");
my $files = "SELECT oid::regclass, relfilenode FROM pg_class WHERE oid = '$day'::regclass OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = '$day'::regclass) ORDER BY oid";
my %before = map { $_ => sql($node, $kept{$_}) } keys %kept;
my %file_before = map { split /\|/ } split /\n/, sql($node, $files);
my $oldest_xid = sql($node, 'SELECT txid_current()');

change_source();
succeeds(enqueue($first), 'the first day is loaded again');
has_new_content($first, 'loaded again');
is(sql($node, $kept{$_}), $before{$_}, "it keeps $_") foreach sort keys %kept;
my %file_after = map { split /\|/ } split /\n/, sql($node, $files);
is(scalar keys %file_after, 5, 'a heap and four indexes');
isnt($file_after{$_}, $file_before{$_}, "$_ has a new file") foreach sort keys %file_after;
is(sql($node, 'SELECT sum(n) FROM on_top'), 301, 'a view on top has the new rows');
is( sql($node, "SELECT has_table_privilege('analyst', '$day', 'SELECT WITH GRANT OPTION')"),
	't', 'a grant still works');
is( sql($node, "SELECT t.relname || ' ' || x.relname || ' ' || t.relrewrite || ' ' || (pg_relation_size(t.oid) > 0) FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid JOIN pg_index i ON i.indrelid = t.oid JOIN pg_class x ON x.oid = i.indexrelid WHERE c.oid = '$day'::regclass")
	=~ s/(?<=pg_toast_)\d+/OID/gr,
	'pg_toast_OID pg_toast_OID_index 0 true', 'the TOAST table and its index have their usual names');
is( sql($node, "SELECT t.relname = 'pg_toast_' || c.oid FROM pg_class c JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.oid = '$day'::regclass"),
	't', 'by the OID of the day');

# ---- what belongs to the content is of the new one ---------------------

is( sql($node, "SELECT reltuples || ' ' || (relpages = pg_relation_size(oid) / 8192) || ' ' || (relallvisible = relpages) || ' ' || (relpages > 1) FROM pg_class WHERE oid = '$day'::regclass"),
	'301 true true true', 'pages and rows in pg_class are right');
is( sql($node, "SELECT string_agg(reltuples || ' ' || (relpages = pg_relation_size(oid) / 8192), ' ' ORDER BY oid) FROM pg_class WHERE oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = '$day'::regclass)"),
	'301 true 301 true 301 true 298 true', 'and those of the indexes');
is( sql($node, "SELECT all_visible = pg_relation_size('$day') / 8192 AND all_frozen = all_visible FROM pg_visibility_map_summary('$day')"),
	't', 'all pages are all-visible and all-frozen');
is(sql($node, "SELECT (SELECT count(*) FROM pg_check_frozen('$day')) + (SELECT count(*) FROM pg_check_visible('$day'))"),
	0, 'and rightly so');
is( sql($node, "SELECT bool_and(age(relfrozenxid) <= age(xid '$oldest_xid') AND age(relfrozenxid) > 0) AND bool_and(mxid_age(relminmxid) >= 0) FROM pg_class WHERE oid = '$day'::regclass OR oid = (SELECT reltoastrelid FROM pg_class WHERE oid = '$day'::regclass)"),
	't', 'the freeze horizons are recent');
is( sql($node, "SELECT string_agg(attname || ' ' || n_distinct || ' ' || coalesce(cardinality(most_common_vals::text::text[]), 0), ', ' ORDER BY attname) FROM pg_stats WHERE schemaname = 'shop' AND tablename = 'events_2025_07_01' AND attname <> 'payload'"),
	'at 12 0, id -1 0, kind 6 3', 'the statistics are gathered by the options of the columns');
is( sql($node, "SELECT most_common_vals::text ~ 'version $version' FROM pg_stats WHERE schemaname = 'shop' AND tablename = 'events_2025_07_01' AND attname = 'kind'"),
	't', 'from the new rows');
is( sql($node, "SELECT string_agg(attname, ' ' ORDER BY attname) FROM pg_stats WHERE schemaname = 'shop' AND tablename = 'of_a_person'"),
	'abs lower', 'also those of an expression in an index');
# Only ANALYZE can make extended statistics: autovacuum is told of the change.
wait_until($node,
	"SELECT n_live_tup = 301 AND n_dead_tup = 0 AND n_mod_since_analyze >= 301 FROM pg_stat_all_tables WHERE relid = '$day'::regclass",
	'with extended statistics autovacuum has something to analyze');
is_sound('loaded again');

my $job = enqueue($second);
succeeds($job, 'a day without extended statistics is loaded again');
is( sql($node, sprintf("SELECT n_live_tup || ' ' || n_dead_tup || ' ' || n_mod_since_analyze || ' ' || (last_analyze > (SELECT started_at FROM _wh.jobs WHERE job_id = $job)) FROM pg_stat_all_tables WHERE relid = '%s'::regclass", relation($second))),
	'301 0 0 true', 'without them it counts as analyzed');
is( sql($node, sprintf("SELECT n_live_tup || ' ' || n_dead_tup || ' ' || n_mod_since_analyze || ' ' || (last_analyze IS NOT NULL) FROM pg_stat_all_tables WHERE relid = '%s'::regclass", relation($third))),
	'300 0 0 true', 'as does a day that was new');

# ---- an empty day, and back --------------------------------------------

$production->safe_psql('postgres', 'ALTER TABLE events RENAME TO kept; CREATE TABLE events (LIKE kept); GRANT SELECT ON events TO wh_reader');
succeeds(enqueue($first), 'a day without rows is loaded over a full one');
is( sql($node, "SELECT reltuples || ' ' || relpages || ' ' || relallvisible || ' ' || pg_relation_size(oid) || ' ' || (SELECT count(*) FROM $day) FROM pg_class WHERE oid = '$day'::regclass"),
	'0 0 0 0 0', 'it is empty');
is(sql($node, "SET enable_seqscan = off; SELECT count(*) FROM $day WHERE id = 3"), 0, 'by its index too');
is(sql($node, 'SELECT count(*) FROM on_top'), 0, 'and so is the view on top');
is_sound('an empty day');
$production->safe_psql('postgres', 'DROP TABLE events; ALTER TABLE kept RENAME TO events');
succeeds(enqueue($first), 'and the rows are loaded over none');
has_new_content($first, 'after an empty day');
is(sql($node, "SET enable_seqscan = off; SELECT count(*) FROM $day WHERE id = 3"), 1, 'by its index too');

# ---- an index that cannot be built -------------------------------------

my %unbuildable = (
	'a duplicate key' => [
		"INSERT INTO events SELECT * FROM events WHERE id = 3",
		'23505',
		qr/^could not create unique index "idx_events_2025_07_01_id": Key \(id\)=\(3\) is duplicated\.$/ ],
	'a value too long for an index' => [
		"INSERT INTO events SELECT 999, timestamp '2025-07-01', payload, '' FROM events WHERE id = 3",
		'54000',
		qr/^index row size \d+ exceeds btree version \d maximum \d+ for index "idx_events_2025_07_01_kind": Index row references tuple \(\d+,\d+\) in relation "events_2025_07_01"\.$/ ]);

foreach my $mistake (sort keys %unbuildable)
{
	my ($change, $sqlstate, $message) = @{ $unbuildable{$mistake} };
	my $old = content($first);
	my $offset = log_end($node);
	my $error = "SELECT last_error FROM _wh.jobs WHERE job_id = ";

	$production->safe_psql('postgres', "CREATE TABLE kept AS TABLE events; $change");
	my $job = enqueue($first);
	wait_for_job($node, "job_id = $job", 'failed', "$mistake: the job fails");
	is(sql($node, "SELECT last_sqlstate FROM _wh.jobs WHERE job_id = $job"), $sqlstate, "$mistake: with its SQLSTATE");
	like(sql($node, "$error $job"), $message, "$mistake: and the user's names");
	is( sql($node, "SELECT last_error = ($error $job) AND failed_at IS NOT NULL AND state = 'published' FROM _wh.day_loads WHERE target_date = '$first'"),
		't', "$mistake: the ledger says so too");
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nSELECT _wh.update_mv_by_template('events', 'shop', '$first')");
	like($err, qr/WARNING:  $sqlstate: .*\nDETAIL:  [^\n]*"idx_events_2025_07_01_/s, "$mistake: a call that runs at once says the same");
	unlike($err, qr/pg_temp_/, "$mistake: in the user's names alone");
	is(log_count($node, qr/pg_temp_/, $offset), 0, "$mistake: and so does the log");
	is(content($first), $old, "$mistake: the old day stays");
	$production->safe_psql('postgres', 'TRUNCATE events; INSERT INTO events TABLE kept; DROP TABLE kept');
}
is_sound('an index that cannot be built');

# ---- one slow reader ---------------------------------------------------

my ($reader, $pid) = start_reader($first);
my $old = content($first);
my $offset = log_end($node);
my $asked = log_end($production);
my $count = sql($node, "SELECT count(*) FROM $day");

change_source();
$job = enqueue($first);
waits_for($job, $pid, 'worker_status says that the load waits, and for whom');
my $answers = 0;
foreach my $i (1 .. 20)
{
	$answers++
	  if $node->safe_psql('postgres', "SET statement_timeout = '5s'; SELECT count(*) FROM $day") eq $count;
}
is($answers, 20, 'other readers go on, and see the old day');
tries_to_lock(3, $offset, 'while the lock is asked for again and again');
is($reader->query_safe("SELECT count(*) FROM $day"), $count, 'so does the slow one');
is(content($first), $old, 'the old day is all there');
$reader->query_safe('COMMIT');
succeeds($job, 'when it ends the day is loaded');
$reader->quit;
has_new_content($first, 'after a slow reader');
is(log_count($production, qr/COPY \(SELECT .*$first/, $asked), 1, 'the tenant was asked once');
is(sql($node, "SELECT attempt FROM _wh.jobs WHERE job_id = $job"), 1, 'in one attempt');
is(sql($node, "SELECT count(*) FROM _wh.worker_status WHERE blocked_by IS NOT NULL OR state = 'waiting_lock'"),
	0, 'worker_status no longer names a blocker');
is_sound('swaps that were tried again');

# A call that runs at once is as polite.
change_source();
($reader, $pid) = start_reader($second);
$offset = log_end($node);
my $caller = $node->background_psql('postgres');
$caller->query_until(qr/called/, "\\echo called\nSELECT _wh.update_mv_by_template('events', 'shop', '$second');\n");
tries_to_lock(2, $offset, 'a call that runs at once asks for the lock again and again');
is( $node->safe_psql('postgres', "SET statement_timeout = '5s'; SELECT count(*) FROM " . relation($second)),
	301, 'meanwhile others read the old day');
$reader->query_safe('COMMIT');
$reader->quit;
$caller->query_safe('SELECT 1');
$caller->quit;
has_new_content($second, 'after a call that ran at once');
is_sound('a call that ran at once');

# ---- a reader that never ends ------------------------------------------

set_settings('wh_worker.job_timeout' => '2s', 'wh_worker.max_attempts' => '1');
change_source();
sql($node, "BEGIN; SELECT count(*) FROM " . relation($first) . "; PREPARE TRANSACTION 'reader'");
$job = enqueue($first);
wait_for_job($node, "job_id = $job", 'failed', 'a reader that never ends may be a prepared transaction');
like(sql($node, "SELECT last_error FROM _wh.jobs WHERE job_id = $job"), qr/processes 0 \(see pg_prepared_xacts\) still use it/, 'which is said');
sql($node, "ROLLBACK PREPARED 'reader'");

($reader, $pid) = start_reader($first);
$old = content($first);
$job = enqueue($first);
waits_for($job, $pid, 'a load waits for a reader that does not end');
wait_for_job($node, "job_id = $job", 'failed', 'after job_timeout it fails');
is(sql($node, "SELECT last_sqlstate || ' ' || phase FROM _wh.jobs JOIN _wh.job_run_details USING (job_id) WHERE job_id = $job"),
	'55P03 waiting_lock', 'because the lock was not available');
like(sql($node, "SELECT last_error FROM _wh.jobs WHERE job_id = $job"),
	qr/^could not lock relation "shop.events_2025_07_01" in time: After \d+ tries processes $pid still use it\.$/,
	'with the names of the relation and of who had it');
is(sql($node, "SELECT state || ' ' || (failed_at IS NOT NULL) FROM _wh.day_loads WHERE target_date = '$first'"),
	'published true', 'the ledger says so');
is(content($first), $old, 'the old day stays');
nothing_left('a load that gave up');
set_settings('wh_worker.job_timeout' => undef, 'wh_worker.max_attempts' => undef);
$node->poll_query_until('postgres', "SELECT current_setting('wh_worker.job_timeout') = '2h'");

# The same reader, and somebody who cancels.
$job = enqueue($first);
waits_for($job, $pid, 'a load waits again');
my $since = time();
is(sql($node, "SELECT _wh.cancel_job($job)"), 1, 'cancel_job finds it');
happens_within($node, 2,
	"SELECT state = 'cancelled' AND NOT EXISTS (SELECT FROM _wh.worker_status WHERE job_id = $job) FROM _wh.jobs WHERE job_id = $job",
	'and it ends within two seconds', $since);
is(content($first), $old, 'the old day stays');
nothing_left('a load that was cancelled');
$reader->query_safe('COMMIT');
$reader->quit;

# ---- a GRANT meanwhile -------------------------------------------------

# It only writes the row that the exchange writes; from 18 on it locks as a reader does.
set_settings('wh_worker.swap_lock_timeout' => '30s');
my $granter = $node->background_psql('postgres');
sql($node, 'CREATE ROLE late_reader');
$granter->query_safe("BEGIN; GRANT SELECT ON $day TO late_reader");
$asked = log_end($production);
$job = enqueue($first);
wait_until($node,
	"SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'relation') AND pid = (SELECT pid FROM _wh.worker_status WHERE job_id = $job)",
	'the exchange meets a GRANT that is not committed');
$granter->query_safe('COMMIT');
$granter->quit;
succeeds($job, 'which commits, and the load succeeds');
is(sql($node, "SELECT has_table_privilege('late_reader', '$day', 'SELECT')"), 't', 'the grant is there');
has_new_content($first, 'after a GRANT');
is(log_count($production, qr/COPY \(SELECT .*$first/, $asked), 1, 'the tenant was asked once');
is(sql($node, "SELECT attempt FROM _wh.jobs WHERE job_id = $job"), 1, 'in one attempt');
set_settings('wh_worker.swap_lock_timeout' => '200ms');

is(orphan_files(), '', 'no file is left of loads that failed, were cancelled or tried again');

# ---- old snapshots -----------------------------------------------------

my $repeatable = 'BEGIN ISOLATION LEVEL REPEATABLE READ';

# The rows are frozen: whoever has no lock sees the relation as it is.
change_source();
my $session = $node->background_psql('postgres');
$session->query_safe("$repeatable; SELECT count(*) FROM _wh.day_loads");
succeeds(enqueue($first), 'REPEATABLE READ: a transaction that has not touched the day does not hold it up');
is($session->query_safe("SELECT count(*) FROM $day"), 300 + $version, 'and sees the new rows when it reads it');
is($session->query_safe("SET enable_seqscan = off; SELECT count(*) FROM $day WHERE id = 500 + $version"),
	1, 'by an index too');
$session->query_safe('COMMIT');

change_source();
$pid = $session->query_safe('SELECT pg_backend_pid()');
my $seen = "SELECT count(*) || ' ' || max(kind) FROM $day";
$session->query_safe($repeatable);
$old = $session->query_safe($seen);
$job = enqueue($first);
waits_for($job, $pid, 'REPEATABLE READ: one that has touched it is waited for');
is($session->query_safe($seen), $old, 'and sees what it saw');
$session->query_safe('COMMIT');
succeeds($job, 'until it ends');
isnt($session->query_safe($seen), $old, 'then it sees the new rows');

change_source();
$old = sql($node, "SELECT string_agg(kind, ',' ORDER BY id) FROM $day");
$session->query_safe("BEGIN; DECLARE c CURSOR FOR SELECT kind FROM $day ORDER BY id");
my $fetched = $session->query_safe('FETCH 10 FROM c');
$job = enqueue($first);
waits_for($job, $pid, 'an open cursor is waited for');
$fetched .= "\n" . $session->query_safe('FETCH ALL FROM c');
is($fetched =~ s/\n/,/gr, $old, 'it has the old rows to its end');
$session->query_safe('CLOSE c');
is( sql($node, "SELECT state FROM _wh.jobs WHERE job_id = $job"),
	'running', 'its transaction is waited for, not the cursor');
$session->query_safe('COMMIT');
succeeds($job, 'which ends');
has_new_content($first, 'after a cursor');

change_source();
$old = sql($node, "SELECT string_agg(kind, ',' ORDER BY id) FROM $day");
$session->query_safe("DECLARE h CURSOR WITH HOLD FOR SELECT kind FROM $day ORDER BY id");
succeeds(enqueue($first), 'a cursor WITH HOLD holds nothing up');
is($session->query_safe('FETCH ALL FROM h') =~ s/\n/,/gr, $old, 'and has the old rows');
$session->query_safe('CLOSE h');

# ---- a reader that wants more ------------------------------------------

# It waits for the load, which waits for it.  With tries as short as in the
# first round it is the load that has to notice.
foreach my $timeouts ([ '1ms', '1h' ], [ '200ms', '50ms' ])
{
	my ($ours, $its) = @$timeouts;
	my $name = "tries of $ours, deadlock_timeout $its";

	set_settings('wh_worker.swap_lock_timeout' => $ours);
	change_source();
	$session = $node->background_psql('postgres', on_error_stop => 0);
	$pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_safe("SET deadlock_timeout = '$its'; BEGIN; SELECT count(*) FROM $day");
	$job = enqueue($first);
	waits_for($job, $pid, "$name: a load waits for a reader");
	$session->query_until(qr/asked/, "\\echo asked\nCREATE INDEX of_a_reader ON $day (at, id);\nCOMMIT;\n");
	succeeds($job, "$name: the reader wants more, and the load succeeds");
	$session->query('SELECT 1');
	my $reader_was_told = $session->{stderr} =~ /deadlock detected/;
	note 'deadlock: ' . ($reader_was_told ? 'the reader' : 'the load') . ' was told';
	is( sql($node, "SELECT string_agg(status || ' ' || coalesce(sqlstate, ''), ', ' ORDER BY runid) FROM _wh.job_run_details WHERE job_id = $job"),
		$reader_was_told ? 'succeeded ' : 'retrying 40P01, succeeded ', "$name: one is told of the deadlock");
	is(sql($node, "SELECT count(*) FROM pg_class WHERE relname = 'of_a_reader'"),
		$reader_was_told ? 0 : 1, "$name: the other gets its lock");
	has_new_content($first, $name);
	$session->quit;
	sql($node, "SET client_min_messages = 'warning'; DROP INDEX IF EXISTS shop.of_a_reader");
}
is_sound('old snapshots and deadlocks');

# ---- crashes -----------------------------------------------------------

# What is put back into the queue does not start before this is undone.
sub crash
{
	my ($name, $expected, @sessions) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$node->stop('immediate');
	$_->quit foreach @sessions;
	$node->start;
	is(content($first), $expected, "$name: after a crash it is one of them, whole");
	is_sound($name);
}

sub go_on
{
	sql($node, "SELECT _wh.resume_tenant('shop')");
}

sub start_waiting_load
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	change_source();
	sql($node, 'CHECKPOINT');
	($reader, $pid) = start_reader($first);
	$old = content($first);
	$offset = log_end($node);
	$job = enqueue($first);
	waits_for($job, $pid, "$name: the load is there");
	sql($node, "SELECT _wh.pause_tenant('shop')");
}

start_waiting_load('before the exchange');
crash('before the exchange', $old, $reader);
go_on();
succeeds($job, 'before the exchange: the job starts again');
has_new_content($first, 'before the exchange');
is(sql($node, "SELECT attempt FROM _wh.jobs WHERE job_id = $job"), 2, 'before the exchange: with its second attempt');

# The exchange is the last thing before the commit: a deferred trigger, which the
# commit runs first, stops it there.
sql($node, q{
	CREATE FUNCTION public.stand_still() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(8); RETURN NULL; END';
	CREATE CONSTRAINT TRIGGER stand_still AFTER UPDATE ON _wh.jobs DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW WHEN (new.state = 'succeeded') EXECUTE FUNCTION public.stand_still();
});
start_waiting_load('after the exchange');
$session = $node->background_psql('postgres');
$session->query_safe('SELECT pg_advisory_lock(8)');
$reader->query_safe('COMMIT');
wait_until($node, qq{
	SELECT count(*) = 2 FROM pg_locks WHERE pid = (SELECT pid FROM _wh.worker_status WHERE job_id = $job)
		AND ((locktype = 'relation' AND relation = '$day'::regclass AND mode = 'AccessExclusiveLock' AND granted)
		OR (locktype = 'advisory' AND NOT granted))},
	'after the exchange: the worker has the lock and waits in its commit');
my $previous_file = sql($node, "SELECT relation_file FROM _wh.day_loads WHERE target_date = '$first'");
crash('after the exchange', $old, $reader, $session);
is(sql($node, "SELECT relfilenode FROM pg_class WHERE oid = '$day'::regclass"),
	$previous_file, 'after the exchange: with the file it had');
sql($node, 'DROP TRIGGER stand_still ON _wh.jobs');
go_on();
succeeds($job, 'after the exchange: the job starts again');
has_new_content($first, 'after the exchange');

# With wal_level = minimal the new files are not in the WAL: they are written
# out by the load, or, when they are small, put into the WAL by the commit.
foreach my $settings (
	[],
	[ "wal_level = 'minimal'", 'max_wal_senders = 0', 'wal_skip_threshold = 0' ],
	['wal_skip_threshold = 2MB'])
{
	my $name = join(', ', 'after the commit', @$settings);

	if (@$settings)
	{
		$node->append_conf('postgresql.conf', join("\n", @$settings, ''));
		$node->restart;
	}
	start_waiting_load($name);
	tries_to_lock(2, $offset, "$name: it has tried before");
	$reader->query_safe('COMMIT');
	succeeds($job, "$name: the load succeeds");
	crash($name, source_content($first), $reader);
	is(sql($node, "SELECT state || ' ' || attempt FROM _wh.jobs WHERE job_id = $job"),
		'succeeded 1', "$name: and so says the job");
	go_on();
}

is(sql($node, $kept{$_}) =~ s/late_reader=r[^,}]*,?//r, $before{$_} =~ s/late_reader=r[^,}]*,?//r, "after all it has kept $_")
  foreach grep { $_ ne 'OID, owner, grants, options' } sort keys %kept;
is( sql($node, "SELECT count(*) FROM _wh.jobs WHERE state IN ('queued', 'running') AND kind = 'refresh'"),
	0, 'no job is left');

done_testing();
