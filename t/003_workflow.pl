# The "Typical Workflow" of the requirements runs as written, every call in
# both of its forms, and readers see what they may and nothing else.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $tenant = new_tenant('tenant',
	database => 'production', role => 'readonly_user', password => 'password123');

# Two months of a small food log: every fifth day has no rows, look-ups are
# missing now and then, and the last second of a day is among the rows.
$tenant->safe_psql('production', q{
	CREATE TABLE phood_client (id integer PRIMARY KEY, name text, code text);
	CREATE TABLE phood_region (id integer PRIMARY KEY, name text);
	CREATE TABLE phood_location (id integer PRIMARY KEY, name text, region_id integer, client_id integer);
	CREATE TABLE phood_station (id integer PRIMARY KEY, name text);
	CREATE TABLE phood_actiontaken (id integer PRIMARY KEY, name text);
	CREATE TABLE phood_actionreason (id integer PRIMARY KEY, name text);
	CREATE TABLE phood_foodcategory (id integer PRIMARY KEY, name text);
	CREATE TABLE phood_fooditem (id integer PRIMARY KEY, name text, category_id integer);
	CREATE TABLE phood_flag (id integer PRIMARY KEY, name text);
	CREATE TABLE phood_foodlogsum (id integer PRIMARY KEY, location_id integer, station_id integer,
		validation_status text, action_taken_id integer, action_reason_id integer, food_item_id integer,
		quantity numeric, average_weight numeric, weight numeric, cost_per_lb numeric,
		target_weight numeric, price_per_lb numeric, logged_time timestamptz);
	CREATE TABLE phood_foodlogsum_flags (foodlogsum_id integer, flag_id integer);
	INSERT INTO phood_client VALUES (1, 'Café Zoë', 'zoe');
	INSERT INTO phood_region VALUES (1, 'North');
	INSERT INTO phood_location VALUES (1, 'Main St', 1, 1), (2, '東京', NULL, 1);
	INSERT INTO phood_station VALUES (1, 'Grill');
	INSERT INTO phood_actiontaken VALUES (1, 'Composted');
	INSERT INTO phood_actionreason VALUES (1, 'Overproduction');
	INSERT INTO phood_foodcategory VALUES (1, 'Soup');
	INSERT INTO phood_fooditem VALUES (1, 'Crème of "leek"', 1), (2, 'Rice', NULL);
	INSERT INTO phood_flag VALUES (1, 'hot'), (2, 'late');
	INSERT INTO phood_foodlogsum
	SELECT day * 24 + hour, 1 + hour % 3, nullif(hour % 2, 0), 'ok', nullif(hour % 3, 0), 1, 1 + hour % 2,
		   hour, hour / 8.0, hour * 1.5, NULL, 2.50, 0.1, timestamptz '2025-08-01 00:00+00' + day * interval '1 day'
		   + CASE WHEN hour = 23 THEN interval '23:59:59.999999' ELSE hour * interval '1 hour' END
	FROM generate_series(0, 60) AS day, generate_series(0, 23) AS hour
	WHERE day % 5 <> 2;
	INSERT INTO phood_foodlogsum_flags SELECT id, 1 + n FROM phood_foodlogsum, generate_series(0, 1) AS n WHERE id % 4 = 0;
	INSERT INTO phood_foodlogsum (id, location_id, logged_time) VALUES (1000001, 1, now());
	GRANT SELECT ON ALL TABLES IN SCHEMA public TO readonly_user;
});

my $node = new_warehouse();
my $port = $tenant->port;
my $root = source_root();
chdir $root or die "could not enter $root: $!";

# ---- as written --------------------------------------------------------

my ($status, $out, $err) = $node->psql('postgres', qq{
-- 1. Set up tenant connection (direct SQL)
INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password)
VALUES ('tenant_a', '127.0.0.1', $port, 'production', 'readonly_user', 'password123');

-- 2. Load template (if not already loaded)
\\i sql/template-foodlogstats.sql

-- 3. Backfill historical data (one month at a time to avoid timeouts)
SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_a', 'reports', '2025-08-01'::date, '2025-08-31'::date);
SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_a', 'reports', '2025-09-01'::date, '2025-09-30'::date);

-- 4. Create the tenant union view
SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_a', 'reports');

-- 5. Create/update the public master view
SELECT _wh.update_public_view_by_template('foodlogstats');

-- 6. Daily operations: update current day
SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', CURRENT_DATE);
});
is($status, 0, 'the workflow runs as written') or diag($err);
unlike($err, qr/WARNING|ERROR/, 'without a warning');

my $template = slurp_file("$root/templates/foodlogstats.sql");
my ($query) = $template =~ /\$query\$(.*?)\$query\$/s;
my $of_days = sub {
	my ($first, $last) = @_;
	my $text = $query;

	$text =~ s/>= '\{TARGET_DATE\}'/>= '$first'/;
	$text =~ s/\('\{TARGET_DATE\}'::date \+ 1\)/('$last'::date + 1)/;
	return $text;
};

same_content($node, "SELECT * FROM reports.foodlogstats WHERE logged_time < '2025-10-01'",
	$tenant, $of_days->('2025-08-01', '2025-09-30'),
	'the tenant view equals the source', 'production');
same_content($node,
	"SELECT id, store, station, validation_status, region, action_taken_id, action_taken, name, quantity, average_weight, weight, client, food_category, cost_per_lb, target_weight, price_per_lb, action_reason, client_id, logged_time, flags FROM public.foodlogstats WHERE schema_name = 'reports'",
	$tenant, $of_days->('2025-08-01', '2200-01-01'),
	'the public view equals the source, today included', 'production');
is( sql($node, "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'public.foodlogstats'::regclass AND attnum > 0"),
	'id store station validation_status region action_taken_id action_taken name quantity average_weight weight client food_category cost_per_lb target_weight price_per_lb action_reason client_id logged_time flags schema_name',
	'the public view has the columns in order, schema_name last');
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE state = 'published'"),
	62, 'the ledger has 61 days and today');
is( sql($node, "SELECT rows || ' ' || state FROM _wh.day_loads WHERE target_date = '2025-08-03'"),
	'0 published', 'a day without rows is a day');
is( sql($node, "SELECT string_agg(indexname || CASE WHEN indexdef LIKE '%UNIQUE%' THEN ' unique' ELSE '' END, ', ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'reports' AND tablename = 'foodlogstats_2025_08_01'"),
	'idx_reports_foodlogstats_2025_08_01_id unique, idx_reports_foodlogstats_2025_08_01_logged_time, idx_reports_foodlogstats_2025_08_01_store',
	'a day has the three indexes of the template, under their names');
is( sql($node, "SELECT reltuples FROM pg_class WHERE oid = 'reports.foodlogstats_2025_08_01'::regclass"),
	24, 'and statistics');

# ---- twice, and the other forms ----------------------------------------

my $before = checksum($node, 'SELECT * FROM public.foodlogstats');
sql($node, "\\i templates/foodlogstats.sql");
is( sql($node, "SELECT count(*) || ' ' || max(version) FROM _wh.mv_templates"),
	'1 1', 'loading the template twice is harmless');

# No schema named: that of the tenant's only subscription to the template.
my $loaded = "SELECT max(loaded_at) FROM _wh.day_loads WHERE target_schema = 'reports' AND target_date";
my $earlier = sql($node, "$loaded <= '2025-08-03'");
my $result = sql($node,
	"SELECT jsonb_pretty(_wh.update_mv_window_by_template('foodlogstats', 'tenant_a', '2025-08-01'::date, '2025-08-03'::date))");
foreach my $day ('2025-08-01', '2025-08-02', '2025-08-03')
{
	like($result, qr/$day/, "the window without a schema reports $day");
}
like($result, qr/succeeded|loaded|published/, 'with a status');
cmp_ok(sql($node, "SELECT min(loaded_at) FROM _wh.day_loads WHERE target_schema = 'reports' AND target_date <= '2025-08-03'"),
	'gt', $earlier, 'and loads into the one schema that the tenant feeds');
is( sql($node, "SELECT jsonb_typeof(_wh.update_mv_window_by_template('foodlogstats', 'tenant_a', 'reports', '2025-08-01', '2025-08-01')) IN ('object', 'array')"),
	't', 'a window of one day is a window');

# With two of them, it is the schema that is named after the tenant.
is( sql($node, "SELECT _wh.create_mv_from_template('foodlogstats', 'tenant_a', 'tenant_a', '2025-08-05')"),
	't', 'create_mv_from_template');
sql($node, "SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_a', '2025-08-01'::date, '2025-08-03'::date)");
is( sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', '2025-08-04'::date)"),
	't', 'update_mv_by_template without a schema');
is( sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', '2025-08-04'::date, false)"),
	't', 'update_mv_by_template with all arguments');
is( sql($node, "SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_a')"),
	't', 'update_tenant_union_view_by_template without a schema');
same_content($node, 'SELECT * FROM tenant_a.foodlogstats',
	$tenant, $of_days->('2025-08-01', '2025-08-05'),
	'the view of the tenant\'s own schema equals the source', 'production');
is( checksum($node, "SELECT * FROM public.foodlogstats WHERE schema_name = 'reports'"),
	$before, 'the rows under the other schema did not change');
is( sql($node, "SELECT string_agg(DISTINCT schema_name, ' ' ORDER BY schema_name) FROM public.foodlogstats"),
	'reports tenant_a', 'the public view has both schemas');

is(sql($node, "SELECT _wh.create_mv_name('foodlogstats', '2025-09-24')"),
	'foodlogstats_2025_09_24', 'create_mv_name');
is(sql($node, "SELECT _wh.does_mv_exist('reports', 'foodlogstats_2025_09_24') || ' ' || _wh.does_mv_exist('reports', 'foodlogstats_2030_01_01')"),
	'true false', 'does_mv_exist');
is(sql($node, "SELECT _wh.current_date_utc() = (now() AT TIME ZONE 'UTC')::date"),
	't', 'current_date_utc');
is( sql($node, "SELECT count(*) FROM _wh.fetch_day('foodlogstats', 'tenant_a', '2025-08-02') AS t(id integer, store text, station text, validation_status text, region text, action_taken_id integer, action_taken text, name text, quantity numeric, average_weight numeric, weight numeric, client text, food_category text, cost_per_lb numeric, target_weight numeric, price_per_lb numeric, action_reason text, client_id text, logged_time timestamp, flags text)"),
	24, 'fetch_day');
my $connection = sql($node, "SELECT _wh.get_tenant_connection_string('tenant_a')");
like($connection, qr/dbname='?production'?/, 'get_tenant_connection_string names the database');
is( scalar $tenant->psql("production", "SELECT 1", connstr => $connection),
	0, 'and is a connection string that connects');

# ---- refreshing by hand ------------------------------------------------

$tenant->safe_psql('production', "UPDATE phood_foodlogsum SET weight = weight + 1 WHERE logged_time >= '2025-08-01 00:00+00' AND logged_time < '2025-08-03 00:00+00'");
sql($node, 'REFRESH MATERIALIZED VIEW reports.foodlogstats_2025_08_01');
is(sql($node, "SELECT _wh.refresh_mv('reports', 'foodlogstats_2025_08_02')"),
	't', 'refresh_mv');
same_content($node, "SELECT * FROM reports.foodlogstats WHERE logged_time < '2025-10-01'",
	$tenant, $of_days->('2025-08-01', '2025-09-30'),
	'both bring the tenant\'s new values', 'production');
sql($node, 'REFRESH MATERIALIZED VIEW CONCURRENTLY reports.foodlogstats_2025_08_01');
pass('a day with a unique index can be refreshed concurrently');

# ---- yesterday's late rows ---------------------------------------------

# Yesterday was last loaded before it ended; a row came in later.
my $yesterday = sql($node, 'SELECT _wh.current_date_utc() - 1');
my $yesterday_name = sql($node, "SELECT _wh.create_mv_name('foodlogstats', '$yesterday')");
sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', '$yesterday')");
my $make_yesterday_early = "UPDATE _wh.day_loads SET fetch_started_at = timestamptz '$yesterday 12:00+00' WHERE target_date = '$yesterday'";
sql($node, $make_yesterday_early);
$tenant->safe_psql('production', "INSERT INTO phood_foodlogsum (id, location_id, logged_time) VALUES (1000002, 1, '$yesterday 23:30+00')");
sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', _wh.current_date_utc(), false)");
is(sql($node, "SELECT count(*) FROM reports.$yesterday_name"),
	0, 'allow_refresh_yesterday false: yesterday stays');
sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', _wh.current_date_utc())");
is(sql($node, "SELECT count(*) FROM reports.$yesterday_name"),
	1, 'by default, yesterday is loaded again when it had not ended');
my $loaded_at = sql($node, "SELECT loaded_at FROM _wh.day_loads WHERE target_schema = 'reports' AND target_date = '$yesterday'");
sql($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', _wh.current_date_utc())");
is( sql($node, "SELECT loaded_at FROM _wh.day_loads WHERE target_schema = 'reports' AND target_date = '$yesterday'"),
	$loaded_at, 'and not again when it had');

# ---- readers -----------------------------------------------------------

my $as_reader = sub {
	return "SET SESSION AUTHORIZATION phood_ro; $_[0]";
};
is( checksum($node, 'SELECT * FROM public.foodlogstats'),
	sql($node, $as_reader->("SELECT count(*) || ' rows ' || md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM public.foodlogstats AS t")),
	'the reader role reads the public view');
is( sql($node, $as_reader->('SELECT count(*) FROM reports.foodlogstats_2025_08_01')),
	24, 'and days');
foreach my $query (
	'SELECT * FROM _wh.tenant_connections',
	'SELECT * FROM _wh.mv_templates',
	"SELECT _wh.get_tenant_connection_string('tenant_a')",
	"SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', '2025-08-04')",
	"SELECT _wh.enqueue_backfill('foodlogstats', 'tenant_a', '2025-08-04', '2025-08-04')",
	"SELECT * FROM _wh.fetch_day('foodlogstats', 'tenant_a', '2025-08-04') AS t(id integer)")
{
	fails_with($node, $as_reader->($query), '42501',
		qr/permission denied/, "the reader role may not: $query");
}
my $definitions = sql($node,
	"SELECT string_agg(definition, ' ') FROM pg_matviews WHERE schemaname = 'reports'");
unlike($definitions, qr/phood_|password|127\.0\.0\.1/,
	'definitions show neither the tenant\'s query nor its credentials');
like($definitions, qr/fetch_day/, 'they are calls of fetch_day');

# The admin role does all of it without being superuser.
is( sql($node, "SET ROLE whadmin; SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'reports', '2025-08-06')"),
	't', 'the admin role loads');
is( sql($node, "SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ' ') FROM pg_class WHERE relnamespace IN ('reports'::regnamespace, 'tenant_a'::regnamespace)"),
	'whadmin', 'everything belongs to the admin role');

# ---- wrong use ---------------------------------------------------------

fails_with($node, "SELECT _wh.update_mv_by_template('nonesuch', 'tenant_a', '2025-08-04')",
	'42704', qr/template "nonesuch" does not exist/, 'an unknown template');
fails_with($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'nobody', '2025-08-04')",
	'42704', qr/tenant "nobody" does not exist/, 'an unknown tenant');
fails_with($node, "SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_a', '2025-08-04', '2025-08-01')",
	'22023', qr/./, 'an inverted window');
fails_with($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'pg_catalog', '2025-08-04')",
	'(22023|42939)', qr/pg_catalog/, 'a schema of the system');
fails_with($node, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', '_wh', '2025-08-04')",
	'(22023|42939)', qr/_wh/, 'our own schema');

done_testing();
