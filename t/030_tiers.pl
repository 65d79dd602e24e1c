# Where months and years are stored, what each tier takes, and what is older
# than a template wants it kept.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');

# Without autovacuum, which adds a free space map to what we have measured.
my $node = new_warehouse(
	conf => {
		'wh_worker.debug_clock_offset' => clock_offset_to('2024-03-15 12:00'),
		'wh_worker.catchup_days' => 30,
		autovacuum => 'off',
		allow_in_place_tablespaces => 'on'
	});

create_events($production, '2023-11-20', 150, 3);
$production->safe_psql('postgres', "DELETE FROM events WHERE at::date = '2024-01-07'");
foreach my $tablespace ('months', 'years', 'own', 'secret')
{
	$node->safe_psql('postgres', "CREATE TABLESPACE $tablespace LOCATION ''");
}
sql($node, 'GRANT CREATE ON TABLESPACE months, years, own TO whadmin');
add_events_template($node, 'events',
	indexes => 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id);'
	  . ' CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at) TABLESPACE own');
add_tenant($node, 'shop', $production, templates => ['events'], start_date => '2023-12-20');
add_tenant($node, 'ended', $production, templates => ['events'], start_date => '2023-12-01');
sql($node, "UPDATE _wh.schedules SET active = false WHERE kind <> 'retention'");

sub load
{
	my ($tenant, $from, $to) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'events', '$tenant', '$from', '$to', NULL, 'all'");

	return $state;
}

sub all_ended
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", $name);
}

sub due_at
{
	my ($time, $schedule) = @_;
	my $offset = clock_offset_to($time);

	sql($node, "UPDATE _wh.schedules SET last_run = NULL WHERE name = '$schedule'");
	$node->safe_psql('postgres', "ALTER SYSTEM SET wh_worker.debug_clock_offset = $offset;\nSELECT pg_reload_conf();");
	$node->poll_query_until('postgres', "SELECT last_run IS NOT NULL FROM _wh.schedules WHERE name = '$schedule'")
	  or die "$schedule did not come due";
	return;
}

# The schedule is due now.
sub comes_due
{
	my ($schedule, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	sql($node, "UPDATE _wh.schedules SET last_run = NULL, next_run = now() - interval '10 years' WHERE name = '$schedule'");
	return wait_until($node, "SELECT last_run IS NOT NULL FROM _wh.schedules WHERE name = '$schedule'", $name);
}

sub relations
{
	my ($schema) = @_;

	return sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = '$schema'::regnamespace AND relkind IN ('r', 'm')");
}

sub last_status
{
	my ($schedule) = @_;

	return sql($node, "SELECT last_status FROM _wh.schedules WHERE name = '$schedule'");
}

is(load('shop', '2023-12-20', '2024-03-15'), 'succeeded', 'days are loaded');
is(load('ended', '2023-12-01', '2024-03-01'), 'succeeded', 'of another tenant too');

# ---- tablespaces -------------------------------------------------------

my $set = 'UPDATE _wh.mv_templates SET';
fails_with($node, "$set month_tablespace = 'nowhere'", '42704', qr/tablespace "nowhere" does not exist.*month_tablespace of template "events"/s, 'a tablespace that is not there');
fails_with($node, "$set year_tablespace = 'pg_global'", '22023', qr/cannot be "pg_global"/, 'one that holds no tables');
fails_with($node, "$set year_tablespace = 'secret'", '42501', qr/role "whadmin" may not create tables in tablespace "secret".*GRANT CREATE ON TABLESPACE secret TO whadmin;/s, 'one without the right');
sql($node, "$set month_tablespace = 'pg_default'");
sql($node, "$set month_tablespace = 'months', year_tablespace = 'years'");
is(sql($node, 'SELECT version FROM _wh.mv_templates'), 1, 'where it is stored is no change of the content');

my $month = q{SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_month('events', 'shop', %d, %d) AS j};
is(sql($node, sprintf $month, 2023, 12), 'combined', 'a month');
is(sql($node, sprintf $month, 2024, 1), 'combined', 'and another');
my $stored = q{SELECT string_agg(c.relname || ' ' || coalesce(t.spcname, 'default'), ', ' ORDER BY c.relname) FROM pg_class c LEFT JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.relnamespace = 'shop'::regnamespace AND c.relname ~ '%s'};
is(sql($node, sprintf $stored, '^(idx_shop_)?events_2023_12(_id|_at)?$'),
	'events_2023_12 months, idx_shop_events_2023_12_at own, idx_shop_events_2023_12_id months',
	'a month and its index are where the template says, an index that names a tablespace in that');
is(sql($node, q{SELECT t.spcname FROM pg_class c JOIN pg_class o ON o.oid = c.reltoastrelid JOIN pg_tablespace t ON t.oid = o.reltablespace WHERE c.oid = 'shop.events_2023_12'::regclass}),
	'months', 'and its TOAST table');
is(sql($node, q{SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_year('events', 'shop', 2023) AS j}), 'combined', 'a year');
is(sql($node, sprintf $stored, '^(idx_shop_)?events_2023(_id|_at)?$'),
	'events_2023 years, idx_shop_events_2023_at own, idx_shop_events_2023_id years', 'a year too');

# ---- what each tier takes ----------------------------------------------

my $tiers = "'day', '^events_...._.._..\$'), ('month', '^events_...._..\$'), ('year', '^events_....\$'";
my $measured = sql($node, "SELECT string_agg(t.tier || ' ' || c.n || ' ' || c.bytes, ', ' ORDER BY t.tier) FROM (VALUES ($tiers)) AS t(tier, pattern) CROSS JOIN LATERAL (SELECT count(*) AS n, sum(pg_total_relation_size(oid)) AS bytes FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'm') AND relname ~ t.pattern) AS c");
my $usage = 'SELECT %s FROM _wh.storage_usage WHERE tenant_name = \'shop\'';
is(sql($node, sprintf $usage, "concat_ws(', ', 'day ' || day_relations || ' ' || day_bytes, 'month ' || month_relations || ' ' || month_bytes, 'year ' || year_relations || ' ' || year_bytes)"),
	$measured, 'storage_usage says what the relations say');
like($measured, qr/^day 44 \d+, month 1 \d+, year 1 \d+$/, 'of each tier');
is(sql($node, sprintf $usage, "concat_ws(' ', day_rows, month_rows, year_rows, rows)"),
	sql($node, q{SELECT concat_ws(' ', 44 * 3, (SELECT count(*) FROM shop.events_2024_01), (SELECT count(*) FROM shop.events_2023), (SELECT count(*) FROM shop.events))}), 'and their rows');
is(sql($node, sprintf $usage, "concat_ws(' ', day_tablespaces, month_tablespaces, year_tablespaces, relations, bytes = day_bytes + month_bytes + year_bytes)"),
	'{pg_default} {months} {years} 46 t', 'and where they are');
is(sql($node, "SELECT concat_ws(' ', day_relations, month_relations, year_relations, month_bytes, year_tablespaces) FROM _wh.storage_usage WHERE tenant_name = 'ended'"), '92 0 0 0 {}', 'a tenant of days only');
is(sql($node, "SELECT string_agg(_wh.relation_tier(repeat('x', 63), _wh.create_mv_name(repeat('x', 63), '2024-02-29'), '2024-02-29') || ' ' || _wh.relation_tier('a', r, '2024-02-29'), ' ') FROM unnest('{a_2024_02,a_2024,a_2024_02_29}'::text[]) AS r"), 'day month day year day day', 'the name tells the tier');
my $reader = $node->background_psql('postgres', on_error_stop => 1);
$reader->query_safe('BEGIN');
$reader->query_safe('SELECT * FROM _wh.storage_usage');
is($reader->query_safe(q{SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE l.pid = pg_backend_pid() AND c.relnamespace = 'shop'::regnamespace}), 0, 'it locks none of them');
$reader->query_safe('COMMIT');
$reader->quit;

# A tablespace that is gone.
sql($node, 'GRANT CREATE ON TABLESPACE secret TO whadmin');
sql($node, "$set month_tablespace = 'secret'");
$node->safe_psql('postgres', 'DROP TABLESPACE secret');
sql($node, "$set description = 'still to be written'");
sql($node, "INSERT INTO _wh.schedules (name, schedule, kind, template_name, tenant_name, target_schema, next_run) VALUES ('now', '0 0 1 1 *', 'combine_month', 'events', 'shop', 'shop', now() - interval '10 years')");
all_ended('a job for a month');
wait_until($node, "SELECT last_status LIKE 'failed%' FROM _wh.schedules WHERE name = 'now'", 'ends');
is(last_status('now'), 'failed: tablespace "secret" does not exist: It is the month_tablespace of template "events".', 'and says which tablespace is gone');
is(sql($node, "SELECT attempt || ' ' || last_sqlstate FROM _wh.jobs WHERE kind = 'combine_month' AND state = 'failed'"), '1 42704', 'at the first attempt');
my ($status, $out, $err) = $node->psql('postgres', "SET check_function_bodies = off; INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, year_tablespace) VALUES ('restored', 'SELECT 1 AS a WHERE ''{TARGET_DATE}'' <> ''''', 'a integer', 'secret')");
like($err, qr/WARNING:  tablespace "secret" does not exist/, 'a dump is restored without its tablespaces, with a warning');
sql($node, "$set month_tablespace = NULL, year_tablespace = NULL; SELECT _wh.unschedule('now'); DELETE FROM _wh.mv_templates WHERE template_name = 'restored'");

# ---- retention: what goes, and what does not ---------------------------

fails_with($node, "$set keep_days = 0", '23514', qr/keep_days_is_at_least_1/, 'nothing is kept for no days');
fails_with($node, "$set keep_years = 0", '23514', qr/keep_years_is_at_least_1/, 'nor years');
fails_with($node, "$set retention = 'forget'", '23514', qr/retention_is_drop_or_detach/, 'nor by other means');
is(sql($node, 'SELECT _wh.setup_cron()'), 0, 'who keeps everything needs no retention');
sql($node, "$set keep_days = 60, keep_years = 1");
sql($node, "INSERT INTO _wh.schedules (name, schedule, command, username) VALUES ('retention events', '0 0 1 1 *', 'SELECT 1', 'whadmin')");
is(sql($node, 'SELECT _wh.setup_cron()'), 1, 'setup_cron makes a schedule for the template');
is(sql($node, "SELECT concat_ws(' / ', jobname, schedule, timezone, command, active) FROM _wh.job WHERE kind = 'retention'"), 'retention events (2) / H 4 * * * / UTC / retention events / t', 'once a day, under a name that is free');
sql($node, "SELECT _wh.unschedule('retention events'), _wh.unschedule('retention events (2)')");
is(sql($node, 'SELECT _wh.setup_cron()'), 1, 'once more');
is(sql($node, 'SELECT _wh.setup_cron()'), 0, 'and not again');
my $retention = 'retention events';
sql($node, "SELECT _wh.unsubscribe('ended', 'events')");

# 60 days before 15 March are 15 January; a year before it began on 1 January 2023.
my $before = checksum($node, 'SELECT * FROM public.events');
comes_due($retention, 'the schedule');
is(last_status($retention), 'skipped: nothing is too old', 'what either of the limits keeps is kept');
is(checksum($node, 'SELECT * FROM public.events'), $before, 'nothing is lost');

sql($node, "$set keep_years = NULL");
sql($node, "$set keep_days = 74");
comes_due($retention, 'the limit is 1 January 2024');
all_ended('what is older goes');
is(relations('shop') =~ s/events_2024_0[23]_\d\d ?//gr, 'events_2024_01 ', 'the year with its table; the month that holds the limit stays');
is(sql($node, "SELECT count(*), min(target_date) FROM _wh.day_loads WHERE target_schema = 'ended'"), '61|2024-01-01', 'and the days of a subscription that has ended');
is(sql($node, "SELECT min(at)::date || ' ' || count(*) FROM shop.events"), '2024-01-01 222', 'they are out of the views');
is(sql($node, "SELECT string_agg(status || ': ' || command || ': ' || regexp_replace(return_message, ' events_2023_12_.*', ' ...') || ' (' || rows || ', ' || (bytes > 0) || ', ' || reason || ')', chr(10) ORDER BY runid) FROM _wh.job_run_details WHERE command LIKE 'retention%of%'"),
	"succeeded: retention events of ended in ended: dropped 31 relations: ... (93, true, older than 2024-01-01)\n"
	  . 'succeeded: retention events of shop in shop: dropped 1 relation: events_2023 (36, true, older than 2024-01-01)',
	'it says what it dropped');
like(last_status($retention), qr/^succeeded: dropped 32 relations with 129 rows, \d+ bytes$/, 'all in all');
is(log_count($node, 'retention events of shop in shop: dropped 1 relation: events_2023'), 1, 'in the log too');
is(sql($node, "SELECT string_agg(target_schema || ' ' || start_date, ', ' ORDER BY target_schema) FROM _wh.tenant_templates"), 'ended 2024-01-01, shop 2024-01-01', 'subscriptions begin with what is left');

# ---- a day that is exactly as old as the limit; what users need --------

# 15 days before 15 March 2024 is 29 February, which is kept.
sql($node, "$set keep_days = 15");
sql($node, 'CREATE VIEW public.on_a_day AS SELECT * FROM shop.events_2024_02_10');
sql($node, 'CREATE VIEW public.on_the_view AS SELECT * FROM shop.events');
comes_due($retention, 'another limit');
all_ended('what is older goes');
is(relations('shop'), join(' ', 'events_2024_02_10', 'events_2024_02_29', map { sprintf 'events_2024_03_%02d', $_ } 1 .. 15),
	'a day as old as the limit stays, and one that a view of a user reads');
is(last_status($retention), 'failed: 1 relation of template "events" is too old and cannot be dropped: view public.on_a_day depends on shop.events_2024_02_10; 87 others went.', 'which is said');
is(sql($node, "SELECT state || ' ' || last_sqlstate || ' ' || attempt FROM _wh.jobs WHERE kind = 'retention' ORDER BY job_id DESC LIMIT 1"), 'failed 2BP01 1', 'as a failure');
is(sql($node, "SELECT string_agg(return_message ~ '^dropped 50 ' || ' ' || rows, ', ' ORDER BY runid) FROM _wh.job_run_details WHERE command = 'retention events of ended in ended' AND reason = 'older than 2024-02-29'"), 'true 147, false 27', 'many go in portions');
is(sql($node, "SELECT string_agg(DISTINCT _wh_day, ' ' ORDER BY _wh_day) FROM (SELECT to_char(at, 'MM-DD') AS _wh_day FROM public.on_the_view) AS v WHERE _wh_day < '03-02'"), '02-10 02-29 03-01', 'views on the view go on');
sql($node, 'DROP VIEW public.on_a_day');
comes_due($retention, 'the view is dropped');
all_ended('then it goes');
like(last_status($retention), qr/^succeeded: dropped 1 relations? with 3 rows/, 'the next time');

# ---- what is gone stays gone -------------------------------------------

sql($node, "UPDATE _wh.schedules SET active = true, last_run = NULL, next_run = now() - interval '10 years' WHERE name = 'refresh events shop'");
wait_until($node, "SELECT last_run IS NOT NULL FROM _wh.schedules WHERE name = 'refresh events shop'", 'a refresh that heals 30 days');
all_ended('ends');
is(sql($node, "SELECT min(target_date) FROM _wh.day_loads WHERE target_schema = 'shop'"), '2024-02-29', 'and does not load again what is too old');
is(load('shop', '2024-02-20', '2024-02-20'), 'succeeded', 'a person may');
comes_due($retention, 'until retention comes by');
all_ended('and takes it');
unlike(relations('shop'), qr/events_2024_02_20/, 'again');

# ---- detach ------------------------------------------------------------

sql($node, "$set retention = 'detach'");
sql($node, "UPDATE _wh.schedules SET active = false WHERE kind = 'refresh'");
sql($node, 'CREATE VIEW public.on_a_day AS SELECT * FROM shop.events_2024_02_29');
due_at('2024-03-16 05:00', $retention);
all_ended('a day later the leap day is too old');
like(relations('shop'), qr/^events_2024_02_29 events_2024_03_01 /, 'it stays as a relation');
is(sql($node, 'SELECT count(*) FROM public.on_a_day'), 3, 'that a view may read');
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE target_date = '2024-02-29'"), 0, 'out of the ledger');
is(sql($node, "SELECT min(at)::date FROM public.events"), '2024-03-01', 'and the views');
like(last_status($retention), qr/^succeeded: detached 2 relations with 6 rows/, 'as it says');
is((enqueue_and_wait($node, "'events', 'shop', '2024-02-29', '2024-02-29'"))[1], 'failed', 'the name is taken now');
is(sql($node, "SELECT last_sqlstate FROM _wh.jobs WHERE target_date = '2024-02-29' AND state = 'failed'"), '42P07', 'by a relation that is the user\'s');
sql($node, "DROP VIEW public.on_a_day; DROP MATERIALIZED VIEW shop.events_2024_02_29");

# ---- years -------------------------------------------------------------

sql($node, "$set retention = 'drop', keep_days = NULL, keep_years = 1");
due_at('2025-12-31 23:00', $retention);
is(last_status($retention), 'skipped: nothing is too old', 'the year before is kept to the last day of this one');
due_at('2026-01-01 05:00', $retention);
all_ended('then it is over');
is(sql($node, 'SELECT count(*) FROM _wh.day_loads'), 0, 'all of it');
is(sql($node, 'SELECT count(*) FROM public.events'), 0, 'the views are there, and empty');
is(sql($node, "SELECT start_date FROM _wh.tenant_templates WHERE target_schema = 'shop'"), '2025-01-01', 'and begin with what would be kept');
sql($node, "$set keep_years = NULL");
due_at('2026-01-02 05:00', $retention);
is(last_status($retention), 'skipped: nothing is too old', 'without a limit nothing is done');

# ---- limits beyond all calendars, and who is in the way ----------------

is(load('shop', '2024-03-01', '2024-03-10'), 'succeeded', 'days of long ago');
foreach my $limit ('keep_years = 9999999', 'keep_years = 2147483647', 'keep_years = NULL, keep_days = 2147483647')
{
	sql($node, "$set $limit WHERE template_name = 'events'");
	comes_due($retention, $limit);
	is(last_status($retention), 'skipped: nothing is too old', 'is forever');
}
sql($node, "$set keep_days = 30 WHERE template_name = 'events'");
my $publisher = $node->background_psql('postgres', on_error_stop => 1);
$publisher->query_safe("BEGIN; UPDATE _wh.tenant_templates SET days = days WHERE target_schema = 'shop'");
comes_due($retention, 'they are too old while somebody counts them');
wait_until($node, q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type LIKE 'wh_worker worker%')
	OR (SELECT state = 'succeeded' FROM _wh.jobs WHERE kind = 'retention' ORDER BY job_id DESC LIMIT 1)}, 'retention waits for him');
$publisher->query_safe('COMMIT');
$publisher->quit;
all_ended('he is done');
like(last_status($retention), qr/^succeeded: dropped 10 relations with 30 rows/, 'they are not left for the next night');
sql($node, "SELECT _wh.unsubscribe('shop', 'events'), _wh.unschedule('$retention')");
is(sql($node, "SELECT _wh.setup_cron('events')"), 1, 'a template of which all subscriptions have ended has retention too');

# ---- leaves of a partition tree ----------------------------------------

add_events_template($node, 'leaves');
sql($node, "$set layout = 'partitions', date_column = 'at', keep_days = 692, month_tablespace = 'months' WHERE template_name = 'leaves'");
sql($node, "SELECT _wh.subscribe('shop', 'leaves', NULL, '2024-01-01')");
sql($node, "UPDATE _wh.schedules SET active = false WHERE kind <> 'retention'");
is((enqueue_and_wait($node, "'leaves', 'shop', '2024-01-01', '2024-02-29'"))[1], 'succeeded', 'days as leaves');
is(sql($node, q{SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_month('leaves', 'shop', 2024, 1) AS j}), 'combined', 'a month');
is(sql($node, "SELECT t.spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid = 'shop.leaves_2024_01'::regclass"), 'months', 'in its tablespace');
comes_due('retention leaves', 'the limit is 10 February 2024');
all_ended('what is older goes');
my $of_tree = "SELECT min(relname) || ' ' || count(*) FROM pg_class WHERE relname LIKE 'leaves_2024%%' AND relkind = 'r' AND %s";
is(sql($node, sprintf $of_tree, 'relispartition'), 'leaves_2024_02_10 20', 'leaves are dropped');
is(sql($node, sprintf $of_tree, 'true'), 'leaves_2024_02_10 20', 'for good');
same_content($node, 'SELECT * FROM shop.leaves', $production, "SELECT id, at, kind, amount, payload FROM events WHERE at >= '2024-02-10' AND at < '2024-03-01'", 'the view has the others');
sql($node, "$set retention = 'detach', keep_days = 690 WHERE template_name = 'leaves'");
comes_due('retention leaves', 'two days later');
all_ended('leaves are detached');
is(sql($node, sprintf $of_tree, 'NOT relispartition'), 'leaves_2024_02_10 2', 'and are tables of their own');
is(sql($node, 'SELECT count(*) FROM shop.leaves_2024_02_10'), 3, 'with their rows');
is(sql($node, 'SELECT min(at)::date FROM public.leaves'), '2024-02-12', 'which the views have no longer');
is(sql($node, "SELECT day_relations || ' ' || month_relations FROM _wh.storage_usage WHERE template_name = 'leaves'"), '18 0', 'nor the ledger');

done_testing();
