# A warehouse that was built by pg_cron and dblink, as the requirements have it, is
# taken over as docs/migrate.md says: it answers every query as before, keeps every
# OID, goes on by schedule, takes late days, and combines its year.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhOldWarehouse;
use WhTest;

my $source = new_tenant('source', role => 'readonly_user', password => old_password());
my $port = $source->port;

create_food_log($source, 'shop_a', '2023-12-27', 400, 10, 3);
create_food_log($source, 'shop_b', '2024-12-20', 30, 7, 5);

my $node = new_warehouse(
	create_extension => 0,
	conf => {
		shared_preload_libraries => "'pg_cron,wh_worker'",
		'cron.database_name' => "'postgres'",
		'cron.use_background_workers' => 'on'
	});

# ---- the old warehouse -------------------------------------------------

create_old_warehouse($node);
my $template = slurp_file(source_root() . '/templates/foodlogstats.sql') =~ s/ON CONFLICT.*//sr;
as_role($node, 'whadmin', "$template;" . sprintf q{
	INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password) VALUES
		('tenant_a', '127.0.0.1', %1$d, 'shop_a', 'readonly_user', '%2$s'),
		('tenant_b', '127.0.0.1', %1$d, 'shop_b', 'readonly_user', '%2$s');
	CREATE SCHEMA tenant_a; CREATE SCHEMA tenant_b;
	GRANT USAGE ON SCHEMA tenant_a, tenant_b TO phood_ro;
	SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_a', 'tenant_a', '2023-12-27'::date, '2023-12-31'::date);
	SELECT _wh.create_combined_table_from_template_by_year('foodlogstats', 'tenant_a', 'tenant_a', 2023);
	SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_a', 'tenant_a', '2024-12-20'::date, '2025-01-03'::date);
	SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_b', 'tenant_b', '2024-12-20'::date, '2025-01-03'::date);
	SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_a', 'tenant_a');
	SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_b', 'tenant_b');
	SELECT _wh.update_public_view_by_template('foodlogstats');
}, $port, old_password());
sql($node, 'CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO whadmin');
as_role($node, 'whadmin', qq{SELECT cron.schedule('refresh $_', '10 4 29 2 *', \$\$SELECT _wh.update_mv_by_template('foodlogstats', '$_', '$_', _wh.current_date_utc())\$\$)})
  foreach 'tenant_a', 'tenant_b';

# What people have built on it.
sql($node, q{
	CREATE ROLE analyst; GRANT USAGE ON SCHEMA tenant_a TO analyst;
	GRANT SELECT ON tenant_a.foodlogstats_2024_12_24, public.foodlogstats TO analyst;
	COMMENT ON MATERIALIZED VIEW tenant_a.foodlogstats_2024_12_24 IS 'Christmas Eve';
	CREATE SCHEMA bi AUTHORIZATION analyst; GRANT USAGE ON SCHEMA bi TO phood_ro;
	SET ROLE analyst;
	CREATE VIEW bi.monthly AS SELECT schema_name, date_trunc('month', logged_time) AS month, sum(weight) AS weight FROM public.foodlogstats GROUP BY 1, 2;
	CREATE VIEW bi.eve AS SELECT * FROM tenant_a.foodlogstats_2024_12_24;
	GRANT SELECT ON bi.monthly, bi.eve TO phood_ro;
});

my @queries = (
	'SELECT * FROM public.foodlogstats',
	'SELECT schema_name, count(*), sum(weight), min(logged_time), max(logged_time) FROM public.foodlogstats GROUP BY 1',
	"SELECT * FROM public.foodlogstats WHERE EXTRACT(YEAR FROM logged_time) = 2023",
	"SELECT * FROM public.foodlogstats WHERE logged_time BETWEEN '2023-12-30' AND '2024-12-22'",
	'SELECT * FROM tenant_a.foodlogstats', 'SELECT * FROM tenant_b.foodlogstats',
	'SELECT * FROM tenant_a.foodlogstats_2023', 'SELECT * FROM tenant_b.foodlogstats_2025_01_03',
	'SELECT * FROM bi.monthly', 'SELECT * FROM bi.eve');

sub answers
{
	return map { checksum($node, "SELECT * FROM ($_) q") } @queries;
}

# Asked as BI tools ask: what the reader role sees.
sub answers_of_reader
{
	return map { as_role($node, 'phood_ro', "SELECT count(*) || ' ' || md5(string_agg(q::text, '' ORDER BY q::text)) FROM ($_) q") } @queries;
}

my $everything = q{
	SELECT string_agg(concat_ws(' ', c.oid, n.nspname, c.relname, c.relkind, c.relfilenode, obj_description(c.oid), (SELECT string_agg(g::text, ',' ORDER BY g::text) FROM unnest(c.relacl) g WHERE g::text !~ '^phood_ro')), chr(10) ORDER BY c.oid)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('tenant_a', 'tenant_b', 'public', 'bi') AND c.relname NOT LIKE 'dblink%'};
my @before = answers_of_reader();
my $before = sql($node, $everything);

like($before[0], qr/^(?!0 )\d+ /, 'the old warehouse has rows');
like(sql($node, "SELECT definition FROM pg_matviews WHERE matviewname = 'foodlogstats_2025_01_03' AND schemaname = 'tenant_a'"), qr/dblink/, 'by dblink');

# ---- beside it ---------------------------------------------------------

sql($node, "UPDATE cron.job SET active = false; ALTER SCHEMA _wh RENAME TO _wh_old; CREATE EXTENSION wh_worker");
sql($node, q{
	SELECT _wh.pause();
	INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password)
	SELECT tenant_name, host, port, dbname, username, password FROM _wh_old.tenant_connections;
	INSERT INTO _wh.mv_templates (template_name, description, query_template, column_definitions, indexes, date_column)
	SELECT template_name, description, query_template, column_definitions, indexes, 'logged_time' FROM _wh_old.mv_templates;
});
is(join(' ', answers_of_reader()), join(' ', @before), 'with the extension beside it, it answers as before');
is(sql($node, "SELECT status || ' ' || count(*) || ' ' || coalesce(sum(rows), 0) FROM _wh.plan_adopt('foodlogstats', 'tenant_a', 'tenant_a') GROUP BY status ORDER BY status COLLATE \"C\""),
	"adopt 18 200\nleave 1 0", 'the plan: 15 days, a year and two views; a job of pg_cron stays');
is(sql($node, 'SELECT count(*) FROM _wh.day_loads') . sql($node, 'SELECT count(*) FROM _wh.tenant_templates'), '00', 'the plan changes nothing');
is(sql($node, $everything), $before, 'at all');

# ---- the first tenant --------------------------------------------------

# Nobody who reads waits for it, and ROLLBACK takes it back.
my $trial = $node->background_psql('postgres');
$trial->query_safe("BEGIN; SELECT count(*) FROM _wh.adopt('foodlogstats', 'tenant_a')");
is(join(' ', map { as_role($node, 'phood_ro', "SET lock_timeout = '1ms'; SELECT count(*) || ' ' || md5(string_agg(q::text, '' ORDER BY q::text)) FROM ($_) q") } @queries),
	join(' ', @before), 'readers wait for nothing of it');
$trial->query_safe('ROLLBACK');
$trial->quit;
is(sql($node, $everything), $before, 'a rollback leaves everything as it was');
is(sql($node, "SELECT count(*) FROM pg_matviews WHERE schemaname = 'tenant_a' AND definition ~ 'dblink'") . ' ' . sql($node, 'SELECT count(*) FROM _wh.day_loads'), '15 0', 'with its definitions');

# Nor does it wait for a report that goes on reading.
my $report = $node->background_psql('postgres');
$report->query_safe('BEGIN; SELECT count(*) FROM public.foodlogstats');
my $adopted = as_role($node, 'whadmin', q{
	SELECT concat_ws(' | ', relation, kind, first_date, last_date, days, rows, status, detail)
	FROM _wh.adopt('foodlogstats', 'tenant_a') WHERE kind <> 'day' ORDER BY relation});
is($report->query_safe('SELECT count(*) > 0 FROM tenant_a.foodlogstats_2024_12_24'), 't', 'a report that reads all of it goes on, and nobody waits');
$report->query_safe('COMMIT');
$report->quit;
is($adopted, join("\n",
		'public.foodlogstats | public view | adopted | it goes on reading 1 more schemas that are not taken over yet',
		'refresh tenant_a | pg_cron job | left | the schedules of the subscription do this; end it with SELECT cron.unschedule(1)',
		'tenant_a.foodlogstats | tenant view | adopted',
		'tenant_a.foodlogstats_2023 | year | 2023-12-27 | 2023-12-31 | 5 | 50 | adopted'),
	'the admin role takes over the first tenant');
is(join(' ', answers_of_reader()), join(' ', @before), 'every query is answered as before');
is(sql($node, $everything), $before, 'relations, indexes, files, privileges and comments are what they were');
is(sql($node, "SELECT string_agg(DISTINCT state, ' ') || ' ' || count(*) || ' ' || sum(rows) || ' ' || min(target_date) || ' ' || bool_and(in_views) FROM _wh.day_loads WHERE state <> 'combined'"),
	'published 15 150 2024-12-20 true', 'the days are published');
is(sql($node, "SELECT count(*) || ' ' || sum(rows) || ' ' || min(target_date) || ' ' || bool_and(in_views) || ' ' || (sum(bytes) = pg_total_relation_size('tenant_a.foodlogstats_2023')) FROM _wh.day_loads WHERE state = 'combined'"),
	'5 50 2023-12-27 true true', 'those of the year combined');
is(sql($node, "SELECT days || ' ' || rows || ' ' || data_through || ' ' || start_date FROM _wh.tenant_templates"), '20 200 2025-01-03 2023-12-27', 'the subscription begins with the first day');
is(sql($node, "SELECT string_agg(kind, ' ' ORDER BY kind) FROM _wh.schedules WHERE tenant_name = 'tenant_a'"), 'combine_month combine_year refresh', 'and has its schedules');
is(sql($node, 'SELECT unadopted_schemas FROM _wh.mv_templates'), '{tenant_b}', 'the other one is known to be left');
is(sql($node, 'SELECT _wh.update_public_view_by_template($$foodlogstats$$)') . sql($node, 'SELECT count(DISTINCT schema_name) FROM public.foodlogstats'), 't2', 'a publication keeps its rows');
fails_with($node, "SELECT _wh.subscribe('tenant_b', 'foodlogstats'); SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_b')", '42P07', qr/was not made by wh_worker/, 'a view of the old way is never replaced');

# ---- the second --------------------------------------------------------

# Called twice at once: the other one waits, and finds what became of it.
my $twice = $node->background_psql('postgres');
my $by_status = "SELECT status || ' ' || count(*) || ' ' || coalesce(sum(rows), 0) FROM _wh.adopt('foodlogstats', 'tenant_b', 'tenant_b') GROUP BY status ORDER BY status COLLATE \"C\"";
my $other = $node->background_psql('postgres');
is($twice->query_safe("BEGIN; $by_status"), "adopted 16 105\nleft 1 0\nours 1 0", 'a superuser takes over the second one');
$other->query_until(qr/asked/, "\\echo asked\n$by_status;\n\\echo told\n");
wait_until($node, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'", 'another call waits');
$twice->query_safe('COMMIT');
like($other->query_until(qr/told/, ''), qr/\Aleft 1 0\nours 17 0\ntold/, 'and finds that all is done');
$_->quit foreach $twice, $other;
is(join(' ', answers_of_reader()), join(' ', @before), 'every query is answered as before');
is(sql($node, $everything), $before, 'and everything is what it was');
is(sql($node, 'SELECT unadopted_schemas FROM _wh.mv_templates'), '{}', 'nobody is left');
is(sql($node, "SELECT string_agg(DISTINCT status, ' ') FROM _wh.adopt('foodlogstats', 'tenant_b', 'tenant_b') WHERE kind <> 'pg_cron job'"), 'ours', 'again it finds its own');
is(sql($node, "SELECT return_message FROM _wh.job_run_details WHERE command LIKE 'adopt%' ORDER BY runid LIMIT 1"), 'adopted 16 relations with 200 rows', 'the history says so');
is(sql($node, "SELECT count(*) FROM _wh.audit_log WHERE object LIKE '%adopt%'"), 4, 'and the audit log; what was rolled back is in neither');

# ---- nothing of the old way is left ------------------------------------

sql($node, 'SELECT cron.unschedule(jobid) FROM cron.job');
sql($node, 'DROP SCHEMA _wh_old CASCADE; DROP EXTENSION dblink');
pass('nothing depends on dblink or the old functions any more');
is(sql($node, "SELECT count(*) FROM pg_matviews WHERE schemaname LIKE 'tenant%' AND definition ~ 'fetch_day' AND definition !~ 'phood_|password|dblink'"), 30, 'days are calls of fetch_day');
sql($node, '\c'); # a new session
is(join(' ', answers_of_reader()), join(' ', @before), 'every query is answered as before');

# ---- it goes on --------------------------------------------------------

$source->safe_psql('shop_b', "UPDATE phood_foodlogsum SET weight = weight + 1000 WHERE logged_time >= '2025-01-02 00:00+00' AND logged_time < '2025-01-03 00:00+00'");
# What comes due now, whatever hour it is, is not of today.
step_clock($node, '2025-01-05 12:00');
sql($node, 'SELECT _wh.resume()');
sql($node, "REFRESH MATERIALIZED VIEW tenant_b.foodlogstats_2025_01_02");
cmp_ok(sql($node, 'SELECT min(weight) FROM tenant_b.foodlogstats_2025_01_02'), '>', 1000, 'REFRESH MATERIALIZED VIEW asks the tenant');
sql($node, "REFRESH MATERIALIZED VIEW CONCURRENTLY tenant_b.foodlogstats_2025_01_02");
my $day = sql($node, "SELECT 'tenant_b.foodlogstats_2025_01_02'::regclass::oid");
is(sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_b', 'tenant_b', '2025-01-02', false)"), 't', 'an adopted day is loaded again');
is(sql($node, "SELECT 'tenant_b.foodlogstats_2025_01_02'::regclass::oid"), $day, 'in place');

sql($node, "UPDATE _wh.schedules SET next_run = '2025-01-05 00:00+00' WHERE kind = 'refresh'");
wait_until($node, "SELECT count(*) = 4 FROM _wh.day_loads WHERE target_date IN ('2025-01-04', '2025-01-05') AND in_views", 'the schedules load the next days');
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", 'and have done all they wanted');
is(sql($node, "SELECT count(*) FROM public.foodlogstats WHERE logged_time >= '2025-01-04'"), 2 * (10 + 7), 'which the public view has');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE kind = 'refresh' AND state = 'succeeded' AND target_date BETWEEN '2024-12-29' AND '2025-01-03'"), 11, 'and the days of the last week once more, but for the one that was loaded since: nobody knew when');
is(sql($node, "SELECT count(*) FROM _wh.jobs WHERE state = 'failed'"), 0, 'none failed');

my $definition = "SELECT replace(definition, '%s', 'DAY') FROM pg_matviews WHERE schemaname = 'tenant_b' AND matviewname = 'foodlogstats_%s'";
is(sql($node, sprintf $definition, '2025-01-01', '2025_01_01'), sql($node, sprintf $definition, '2025-01-05', '2025_01_05'), 'an adopted day is defined as a new one is');
my ($dump) = run_command([ 'pg_dump', '-s', '-n', 'tenant_a', $node->connstr('postgres') ]);
is(() = $dump =~ /FROM _wh.fetch_day/g, 17, 'pg_dump has them all');

# ---- late days ---------------------------------------------------------

my $others = checksum($node, "SELECT * FROM tenant_a.foodlogstats WHERE logged_time::date <> '2023-12-28'");
$source->safe_psql('shop_a', "UPDATE phood_foodlogsum SET weight = weight + 5000 WHERE logged_time >= '2023-12-28 00:00+00' AND logged_time < '2023-12-29 00:00+00'");
sql($node, "UPDATE _wh.mv_templates SET date_column = NULL");
fails_with($node, "SELECT _wh.drop_day('foodlogstats', 'tenant_a', '2023-12-27')", '55000', qr/nothing says which day rows of template "foodlogstats" are of/, 'without a date_column a late day has no place');
sql($node, "UPDATE _wh.mv_templates SET date_column = 'logged_time'");
is(sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'tenant_a', '2023-12-28', false)"), 't', 'a late day of the adopted year');
is(sql($node, "SELECT count(*) || ' ' || (min(weight) > 5000) FROM tenant_a.foodlogstats WHERE logged_time::date = '2023-12-28'"), '10 true', 'is exchanged in its table');
is(checksum($node, "SELECT * FROM tenant_a.foodlogstats WHERE logged_time::date <> '2023-12-28'"), $others, 'the other days are what they were');
sql($node, "SELECT _wh.drop_day('foodlogstats', 'tenant_a', '2023-12-27')");
is(sql($node, "SELECT count(*) FROM tenant_a.foodlogstats WHERE logged_time < '2024-01-01'"), 40, 'a day of it is dropped');

# ---- its year ----------------------------------------------------------

sql($node, 'DROP VIEW bi.eve');
my $rows = checksum($node, 'SELECT * FROM public.foodlogstats');
is(sql($node, "SELECT _wh.create_combined_table_from_template_by_year('foodlogstats', 'tenant_b', 'tenant_b', 2024, false, true) ->> 'status'"), 'combined', 'adopted days are combined to a year');
is(sql($node, "SELECT r ->> 'status' || ' ' || (r ->> 'rows') FROM _wh.create_combined_table_from_template_by_year('foodlogstats', 'tenant_a', 'tenant_a', 2024, true, true) r"), 'combined 120', 'a year with gaps as well');
is(checksum($node, 'SELECT * FROM public.foodlogstats'), $rows, 'with all their rows');
is(sql($node, "SELECT _wh.create_combined_table_from_template_by_year('foodlogstats', 'tenant_a', 'tenant_a', 2023) ->> 'status'"), 'already_combined', 'the adopted year is one already');
is(log_count($node, qr/PANIC|TRAP|server process .* was terminated/), 0, 'and nothing crashed');

done_testing();
