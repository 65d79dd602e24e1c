# Days that arrive when their month or year is one table already: they go inside
# it, by every way a day is loaded, and nothing of them is seen twice or half.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse();
my ($first, $last) = ('2024-01-30', '2024-03-05');

add_events_template($node, 'events');
create_events($production, $first, 36, 20);
$production->safe_psql('postgres', "DELETE FROM events WHERE at::date = '2024-02-10'");
add_tenant($node, 'shop', $production, templates => ['events'], start_date => $first);

my $version = 0;

# Other rows, and more of them, for a day; keys stay unique over all days.
sub change_source
{
	my ($day) = @_;

	$version++;
	$production->safe_psql('postgres', qq{
		UPDATE events SET kind = 'version $version' WHERE at::date = '$day';
		INSERT INTO events VALUES (1000000 + $version, timestamp '$day' + interval '$version minute', 'added $version', $version, repeat('x', $version));
	});
}

sub is_source
{
	my ($name, $where) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$where //= 'true';
	is(checksum($node, "SELECT id, at, kind, amount, payload FROM shop.events WHERE $where"),
		checksum($production, "SELECT id, at, kind, amount, payload FROM events WHERE at::date BETWEEN '$first' AND '$last' AND $where"), "$name: the tenant view equals the source");
	return is(checksum($node, 'SELECT * FROM public.events'), checksum($node, "SELECT *, 'shop'::text AS schema_name FROM shop.events"), "$name: so does the public view");
}

sub relations
{
	return sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'm')");
}

# What the ledger says is what is there, by day; counters add up.
sub ledger_is_right
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(sql($node, q{
		SELECT string_agg(d.target_date || ' ' || d.state || ' ' || d.rows, ', ') FROM _wh.day_loads d
		LEFT JOIN (SELECT at::date AS target_date, count(*) AS n FROM shop.events GROUP BY 1) r USING (target_date)
		LEFT JOIN pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation AND c.relfilenode = d.relation_file
		WHERE d.template_name = 'events' AND (d.rows <> coalesce(r.n, 0) OR c.oid IS NULL OR NOT d.in_views OR NOT d.counted)}),
		'', "$name: the ledger has the rows and the relations that are there");
	is(sql($node, "SELECT days || ' ' || rows FROM _wh.tenant_templates WHERE template_name = 'events'"),
		sql($node, "SELECT (SELECT count(*) FROM _wh.day_loads WHERE template_name = 'events') || ' ' || (SELECT count(*) FROM shop.events)"),
		"$name: so have the counters");
	return is(sql($node, q{SELECT string_agg(relname, ' ') FROM pg_class WHERE relname ~ '_wh_new|pg_temp_[0-9]'}), '', "$name: no stage is left");
}

sub day
{
	my ($date, $columns) = @_;

	return sql($node, "SELECT concat_ws(' ', $columns) FROM _wh.day_loads WHERE template_name = 'events' AND target_date = '$date'");
}

sub combine
{
	my ($arguments) = @_;
	my ($period) = $arguments =~ /\d, *\d/ ? 'month' : 'year';

	return sql($node, "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_$period('events', 'shop', 'shop', $arguments) AS j");
}

is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$last', NULL, 'all'"))[1], 'succeeded', 'days are loaded');
sql($node, "SELECT _wh.drop_day('events', 'shop', '2024-02-20'), _wh.drop_day('events', 'shop', '2024-02-21')");
is(combine('2024, 2, true'), 'combined', 'a month with two days missing');
my $file = sql($node, "SELECT pg_relation_filenode('shop.events_2024_02')");

# ---- loaded again ------------------------------------------------------

change_source('2024-02-07');
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-07', '2024-02-07', NULL, 'all'"))[1], 'succeeded', 'a day of it is loaded by a job');
is_source('by a job', "at::date NOT IN ('2024-02-20', '2024-02-21')");
ledger_is_right('by a job');
is(day('2024-02-07', "state, relation, rows, last_error, job_id IS NOT NULL, fetch_started_at < loaded_at, bytes > 0"), 'combined events_2024_02 21 t t t', 'the ledger says how');
change_source('2024-02-08');
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-08')"), 't', 'another by a call');
is_source('by a call', "at::date NOT IN ('2024-02-20', '2024-02-21')");
is(sql($node, "BEGIN; SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-08'); ROLLBACK"), 't', 'which may be rolled back');
ledger_is_right('by a call');
is(sql($node, "SELECT pg_relation_filenode('shop.events_2024_02')"), $file, 'in the same table');
is(sql($node, "SELECT string_agg(id::text, ' ' ORDER BY ctid) FROM shop.events_2024_02 WHERE _wh_date = '2024-02-08'"),
	sql($production, "SELECT string_agg(id::text, ' ') FROM (SELECT id FROM events WHERE at >= '2024-02-08'::date AND at < '2024-02-08'::date + 1) AS t"),
	'in the order in which they came');

# ---- that were missing -------------------------------------------------

is(sql($node, "SELECT string_agg(planned_date::text, ' ' ORDER BY planned_date) FROM _wh.plan_backfill('events', 'shop', '2024-02-01', '2024-02-29')"), '2024-02-20 2024-02-21', 'two days are missing');
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-20', '2024-02-20'"))[1], 'succeeded', 'one is loaded by a backfill');
is(sql($node, "SELECT _wh.create_mv_from_template('events', 'shop', 'shop', '2024-02-21')"), 't', 'the other by create_mv_from_template');
is_source('after the missing ones');
ledger_is_right('after the missing ones');
unlike(relations(), qr/events_2024_02_/, 'they have no relations of their own');
my ($status, $out, $err) = $node->psql('postgres', "SELECT _wh.create_mv_from_template('events', 'shop', 'shop', '2024-02-21')");
is($out, 't', 'create_mv_from_template again is true');
like($err, qr/NOTICE:  2024-02-21 of template "events" is already in schema "shop", skipping/, 'and says that the day is there');
fails_with($node, "SELECT _wh.refresh_mv('shop', 'events_2024_02_21')", '42P01', qr/2024-02-21 of template "events" is in the table "shop.events_2024_02" now/, 'refresh_mv says where the day is now');
is(sql($node, "SELECT _wh.does_mv_exist('shop', 'events_2024_02_21')"), 'f', 'its name is gone');

# ---- windows, empty days -----------------------------------------------

change_source($_) foreach '2024-01-31', '2024-02-01', '2024-02-29', '2024-03-01';
$production->safe_psql('postgres', "DELETE FROM events WHERE at::date = '2024-02-15'");
is(sql($node, "SELECT string_agg(value->>'status' || ' ' || (value->>'rows'), ',' ORDER BY key) FROM jsonb_each(_wh.update_mv_window_by_template('events', 'shop', '2024-01-30', '2024-03-02')) WHERE key IN ('2024-01-31', '2024-02-01', '2024-02-10', '2024-02-15', '2024-03-01')"),
	'loaded 21,loaded 21,loaded 0,loaded 0,loaded 21', 'a window over its borders is loaded in one call');
is_source('a window');
ledger_is_right('a window');
is(day('2024-02-15', 'state, rows'), 'combined 0', 'a day that is empty now');
is(day('2024-02-10', 'state, rows'), 'combined 0', 'one that always was');

# ---- dropped -----------------------------------------------------------

sql($node, "SELECT _wh.drop_day('events', 'shop', '2024-02-12')");
is_source('a day is dropped', "at::date <> '2024-02-12'");
is(day('2024-02-12', 'state'), '', 'it is gone from the ledger');
ledger_is_right('a day is dropped');
is(sql($node, "SELECT string_agg(planned_date::text, ' ') FROM _wh.plan_backfill('events', 'shop', '2024-02-01', '2024-02-29')"), '2024-02-12', 'and missing');
fails_with($node, "SELECT _wh.drop_day('events', 'shop', '2024-02-12')", '42704', qr/day 2024-02-12 of template "events" is not loaded/, 'it cannot be dropped twice');
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-12', '2024-02-12'"))[1], 'succeeded', 'it comes back');
is_source('a day that was dropped');

# ---- suspect -----------------------------------------------------------

sql($node, "UPDATE _wh.mv_templates SET suspect_factor = 2, keep_last_good = true");
$production->safe_psql('postgres', "CREATE TABLE kept AS TABLE events; DELETE FROM events WHERE at::date = '2024-02-18' AND id % 10 > 0");
($status, $out, $err) = $node->psql('postgres', "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-18')");
like($err, qr/WARNING:  2024-02-18 of template "events" from tenant "shop" is suspect: 2 rows, expected/, 'a suspect day of it warns');
like(day('2024-02-18', 'state, rows, last_error'), qr/^suspect 20 2 rows, expected 10 to 40 .*; the 20 rows loaded before are kept$/, 'keep_last_good keeps its rows');
ledger_is_right('a suspect day that was kept');
sql($node, "UPDATE _wh.mv_templates SET keep_last_good = false");
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-18', '2024-02-18', NULL, 'all'"))[1], 'succeeded', 'without it');
like(day('2024-02-18', 'state, relation, rows, last_error'), qr/^suspect events_2024_02 2 2 rows, expected/, 'they are replaced');
is_source('a suspect day');
ledger_is_right('a suspect day');
sql($node, "SELECT _wh.drop_day('events', 'shop', '2024-02-18')");
is_source('a suspect day is dropped', "at::date <> '2024-02-18'");
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-18')"), 't', 'it is loaded, suspect again');
is(combine('2024, 1'), 'combined', 'another month');
is(combine('2024, true'), 'combined', 'and the year');
is(day('2024-02-18', 'state, relation'), 'suspect events_2024', 'a suspect day stays one');
$production->safe_psql('postgres', "TRUNCATE events; INSERT INTO events TABLE kept");
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-18')"), 't', 'the day is loaded whole');
is(day('2024-02-18', 'state, relation, rows, last_error'), 'combined events_2024 20', 'and is suspect no more');
is_source('a year');
ledger_is_right('a year');
is(relations(), 'events_2024', 'of all days there is one table');
sql($node, 'UPDATE _wh.mv_templates SET suspect_factor = NULL');

# ---- a key -------------------------------------------------------------

$production->safe_psql('postgres', "INSERT INTO events SELECT id, timestamp '2024-02-25 12:00', kind, amount, payload FROM events WHERE at::date = '2024-02-26' LIMIT 1");
my ($id, $state) = enqueue_and_wait($node, "'events', 'shop', '2024-02-25', '2024-02-25', NULL, 'all'");
is($state, 'failed', 'a key that another day has: the job fails');
is(sql($node, "SELECT last_sqlstate || ' ' || attempt FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), '23505 1', 'at its first attempt');
like(sql($node, "SELECT last_error FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), qr/^the key of index "idx_shop_events_2024_id" of template "events" does not hold over 2024 with the rows of 2024-02-25: Key \(id\)=\(\d+\) already exists\.$/, 'and says why');
is(day('2024-02-25', "state, rows, failed_at IS NOT NULL"), 'combined 20 t', 'the ledger says so, the day stays');
is(sql($node, "SELECT string_agg(value->>'status', ',' ORDER BY key) FROM jsonb_each(_wh.update_mv_window_by_template('events', 'shop', '2024-02-24', '2024-02-26'))"), 'loaded,failed,loaded', 'of a window the others are loaded');
is(sql($node, "SELECT string_agg(planned_date::text, ' ') FROM _wh.plan_backfill('events', 'shop', '2024-01-01', '2024-12-31', mode => 'failed')"), '2024-02-25', 'it is planned as failed');
$production->safe_psql('postgres', "DELETE FROM events WHERE at = '2024-02-25 12:00'");
is( (enqueue_and_wait($node, "'events', 'shop', '2024-01-30', '2024-03-05', NULL, 'failed'"))[1], 'succeeded', 'mended, it is loaded');
is_source('a key');
ledger_is_right('a key');

# ---- a relation of its own beside the table ----------------------------

# As an older state of things could leave it.
sub put_beside
{
	my ($day) = @_;
	my $relation = 'events_' . $day =~ s/-/_/gr;

	sql($node, qq{
		SET ROLE whadmin;
		BEGIN;
		CREATE MATERIALIZED VIEW shop.$relation AS SELECT id, at, kind, amount, payload FROM shop.events_2024 WHERE _wh_date = '$day';
		DELETE FROM shop.events_2024 WHERE _wh_date = '$day';
		UPDATE _wh.day_loads SET state = 'loaded', relation = '$relation', relation_oid = 'shop.$relation'::regclass,
			relation_file = pg_relation_filenode('shop.$relation'), in_views = false, counted = false WHERE target_date = '$day';
		SELECT _wh.update_tenant_union_view_by_template('events', 'shop');
		COMMIT;
	});
	ledger_is_right("$day lies beside the table");
	return;
}

put_beside($_) foreach '2024-02-13', '2024-02-14';
is(relations(), 'events_2024 events_2024_02_13 events_2024_02_14', 'two days have relations of their own');
sql($node, 'CREATE VIEW public.on_a_day AS SELECT * FROM shop.events_2024_02_13');
fails_with($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-13')", '2BP01',
	qr/"shop.events_2024_02_13" cannot be moved into table "shop.events_2024" because view public.on_a_day depends on it/, 'one that a view of a user is on is not moved');
sql($node, 'DROP VIEW public.on_a_day');
change_source('2024-02-13');
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-13', '2024-02-14', NULL, 'all'"))[1], 'succeeded', 'when they are loaded again');
is(relations(), 'events_2024', 'they are moved inside');
is_source('days that lay beside');
ledger_is_right('days that lay beside');

# ---- another shape, other indexes --------------------------------------

sql($node, q{
	COMMENT ON TABLE shop.events_2024 IS 'my year';
	COMMENT ON COLUMN shop.events_2024.kind IS 'my kind';
	CREATE ROLE analyst;
	GRANT SELECT ON shop.events_2024 TO analyst;
	UPDATE _wh.mv_templates SET
		query_template = replace(query_template, 'payload', 'payload, length(payload) AS width'),
		column_definitions = 'id BIGINT, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT, width INTEGER',
		indexes = indexes || '; CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)'});
is(sql($node, 'SELECT count(*), count(width) FROM shop.events'), sql($production, "SELECT count(*) || '|0' FROM events"), 'a column is added: the view has it, without values');
sql($node, 'CREATE VIEW public.on_the_year AS SELECT id FROM shop.events_2024');
my $before = sql($node, "SELECT 'shop.events_2024'::regclass::oid");
fails_with($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-14')", '2BP01',
	qr/table "shop.events_2024" cannot be made anew because view public.on_the_year depends on it/, 'a view of a user is on the table');
sql($node, 'DROP VIEW public.on_the_year');
is(sql($node, "SELECT 'shop.events_2024'::regclass::oid"), $before, 'so it is what it was');
change_source('2024-02-14');
is(sql($node, "SELECT string_agg(DISTINCT value->>'status', ',') FROM jsonb_each(_wh.update_mv_window_by_template('events', 'shop', '2024-02-13', '2024-02-16'))"), 'loaded', 'four days are loaded in one call');
isnt(sql($node, "SELECT 'shop.events_2024'::regclass::oid"), $before, 'the table was made anew');
is_source('a new shape');
ledger_is_right('a new shape');
is(relations(), 'events_2024', 'under its name');
is(sql($node, 'SELECT count(*) FROM shop.events WHERE width IS NOT NULL'), sql($production, "SELECT count(*) FROM events WHERE at::date BETWEEN '2024-02-13' AND '2024-02-16'"), 'the four days have values in the new column');
is(sql($node, "SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'shop.events_2024'::regclass AND attnum > 0"),
	'id bigint, at timestamp without time zone, kind text, amount numeric, payload text, width integer, _wh_date date', 'it has the columns of the template');
is(sql($node, "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'events_2024'"), 'idx_shop_events_2024_at idx_shop_events_2024_id', 'and its indexes');
is(sql($node, "SELECT obj_description('shop.events_2024'::regclass) || ', ' || col_description('shop.events_2024'::regclass, 3) || ', ' || has_table_privilege('analyst', 'shop.events_2024', 'SELECT') || ', ' || has_table_privilege('phood_ro', 'shop.events_2024', 'SELECT')"),
	'my year, my kind, true, true', 'comments and grants are kept');
is(sql($node, "SELECT count(*) FROM _wh.plan_backfill('events', 'shop', '$first', '$last', mode => 'outdated')"), 32, 'the other days are outdated');
is(sql($node, "SELECT outdated_days FROM _wh.tenant_templates"), 32, 'by the counters too');
$before = sql($node, "SELECT 'shop.events_2024'::regclass::oid");
is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$last', NULL, 'outdated'"))[1], 'succeeded', 'they are loaded, by several workers');
is(sql($node, "SELECT 'shop.events_2024'::regclass::oid"), $before, 'inside the same table');
is(sql($node, 'SELECT count(*) FROM shop.events WHERE width IS DISTINCT FROM length(payload)'), 0, 'all have values');
is_source('outdated days');
ledger_is_right('outdated days');

sql($node, q{UPDATE _wh.mv_templates SET
	query_template = replace(query_template, 'payload, length(payload) AS width', 'payload'),
	column_definitions = 'id INTEGER, at TIMESTAMP, kind TEXT, amount TEXT, payload TEXT'});
is(sql($node, 'SELECT count(*), pg_typeof(min(amount)) FROM shop.events'), sql($production, "SELECT count(*) || '|text' FROM events"), 'a column is dropped, one gets another type: the view follows');
fails_with($node, q{UPDATE _wh.mv_templates SET column_definitions = 'id INTEGER, at TIMESTAMP, kind INTEGER, amount TEXT, payload TEXT'}, '22P02',
	qr/have to be readable with the new columns of template "events": "shop.events_2024" is not/s, 'a type that the days in the table cannot have is refused');
is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-29', '2024-02-29', NULL, 'all'"))[1], 'succeeded', 'a leap day is loaded by a job');
is(sql($node, "SELECT count(*), pg_typeof(min(amount)) FROM shop.events_2024"), sql($production, "SELECT count(*) || '|text' FROM events"), 'into the table of the new shape');
ledger_is_right('a column less');
is(sql($node, "SELECT count(*) FROM shop.events e FULL JOIN shop.events_2024 t USING (id, at, amount, payload) WHERE e.id IS NULL OR t.id IS NULL"), 0, 'with the same rows');
sql($node, q{UPDATE _wh.mv_templates SET column_definitions = 'id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT',
	indexes = 'CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)'});
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-28')"), 't', 'and back again, with fewer indexes');
is(sql($node, "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'events_2024'"), 'idx_shop_events_2024_at', 'which the table has');
is_source('and back again');
sql($node, q{UPDATE _wh.mv_templates SET indexes = 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_kind ON {schema}.{view_name} (kind)'});
fails_with($node, "\\set ON_ERROR_STOP 1\nSELECT 1 / _wh.update_mv_by_template('events', 'shop', '2024-02-28')::integer", '22012', qr/could not be loaded.*the key of index "idx_shop_events_2024_wh_new_kind" is unique in each day/s, 'an index that does not hold over the table');
sql($node, q{UPDATE _wh.mv_templates SET indexes = 'CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)'});
is_source('a key that does not hold');

# ---- older snapshots ---------------------------------------------------

my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM _wh.day_loads');
my $old = $session->query_safe("SELECT count(*) || ' ' || max(kind) FROM shop.events");
change_source('2024-02-27');
is(sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-27')"), 't', 'a day is loaded beside a transaction that reads');
is($session->query_safe("SELECT count(*) || ' ' || max(kind) FROM shop.events"), $old, 'which sees what it saw');
$session->{stderr} = '';
$session->query("SELECT _wh.update_mv_by_template('events', 'shop', '2024-02-27')");
like($session->{stderr}, qr/could not serialize access/, 'and cannot load the day over what it does not see');
$session->query('ROLLBACK');
$session->quit;
is_source('older snapshots');

# ---- somebody is at it at the same time --------------------------------

# A load that began before: the tenant keeps it waiting, it has the day.
sql($node, "SELECT _wh.drop_day('events', 'shop', '$_')") foreach '2024-02-05';
change_source('2024-03-05');
my $tenant_lock = $production->background_psql('postgres');
$tenant_lock->query_safe('BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE');
$id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2024-02-05', '2024-02-05')");
my $other = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2024-03-05', '2024-03-05', NULL, 'all')");
wait_until($node, "SELECT count(*) = 2 FROM _wh.worker_status WHERE state = 'fetching'", 'two loads wait for their tenant');
$tenant_lock->query_safe('COMMIT');
$tenant_lock->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($_, '50 s')"), 'succeeded', 'both go inside the one table') foreach $id, $other;
is_source('two loads at once');
ledger_is_right('two loads at once');

# ---- the table goes ----------------------------------------------------

sql($node, "SELECT _wh.unsubscribe('shop', 'events')");
is_source('unsubscribed: the data stays');
sql($node, "SELECT _wh.subscribe('shop', 'events')");
combine_only_when_asked($node);
sql($node, 'DROP TABLE shop.events_2024 CASCADE');
sql($node, "SELECT _wh.update_tenant_union_view_by_template('events', 'shop'), _wh.update_public_view_by_template('events')");
is(sql($node, "SELECT bool_and(state = 'missing') AND count(*) = 36 FROM _wh.day_loads"), 't', 'somebody drops the table: all its days are missing');
is(sql($node, 'SELECT (SELECT count(*) FROM shop.events) + (SELECT count(*) FROM public.events)'), 0, 'the views are made again, without it');
is(sql($node, "SELECT days || ' ' || (missing_days > 0) FROM _wh.data_freshness"), '0 true', 'data_freshness says so');
is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$last'"))[1], 'succeeded', 'a backfill of what is missing');
like(relations(), qr/^events_2024_01_30 .*events_2024_03_05$/, 'brings them back as days');
is_source('after the table was dropped');
ledger_is_right('after the table was dropped');

done_testing();
