# What adopt() must not take, and what it must not lose: a relation that the old
# views read is taken over or the call fails and says why; names of any kind; other
# owners. Then docs/migrate.md, each of its blocks as it stands.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhOldWarehouse;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse();
my $schema = q{it's "here"};
my $template = q{ev'ents {x}};

create_events($source, '2025-03-01', 10, 5);
add_events_template($node, $template, columns => 'id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC(12,3), payload TEXT');
add_events_template($node, 'other');
add_tenant($node, $schema, $source);
sql($node, "SELECT _wh.pause()");

sub ident
{
	my ($name) = @_;

	return '"' . ($name =~ s/"/""/gr) . '"';
}

sub quoted
{
	my ($name) = @_;

	return "'" . ($name =~ s/'/''/gr) . "'";
}

my ($s, $t) = (ident($schema), ident($template));
my $arguments = join ', ', quoted($template), quoted($schema), quoted($schema);
my $rows = q{SELECT n AS id, timestamp '%s 01:00' AS at, 'k' AS kind, n::numeric(12,3) AS amount, 'p' AS payload FROM generate_series(1, %d) n};

sub relation
{
	my ($suffix) = @_;

	return "$s." . ident("${template}_$suffix");
}

sub make_day
{
	my ($date, $count) = @_;

	sql($node, 'SET ROLE whadmin; CREATE MATERIALIZED VIEW ' . relation($date =~ s/-/_/gr) . ' AS ' . sprintf($rows, $date, $count));
	return;
}

sub make_view
{
	my (@relations) = @_;

	sql($node, "SET ROLE whadmin; DROP VIEW IF EXISTS $s.$t; CREATE VIEW $s.$t AS " . join(' UNION ALL ', map { "SELECT * FROM $_" } @relations));
	return;
}

# The state of everything that adopt() might change.
sub state_of_all
{
	return sql($node, q{SELECT md5(string_agg(concat_ws(' ', c.oid, c.relname, c.relowner, c.relacl::text, c.relfilenode, r.ev_action::text), chr(10) ORDER BY c.oid))
		FROM pg_class c LEFT JOIN pg_rewrite r ON r.ev_class = c.oid WHERE c.relnamespace <> 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'm', 'v', 'i') AND c.relname !~ '^(audit|job_run)'})
	  . sql($node, 'SELECT (SELECT count(*) FROM _wh.day_loads), (SELECT count(*) FROM _wh.tenant_templates), (SELECT count(*) FROM _wh.schedules)');
}

# The call fails, says this, and has changed nothing; the plan says so too.
sub refuses
{
	my ($pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = state_of_all();

	subtest $name => sub {
		fails_with($node, "SELECT * FROM _wh.adopt($arguments)", '55000', $pattern, 'adopt() fails');
		is(state_of_all(), $before, 'and changes nothing');
		like(sql($node, "SELECT detail FROM _wh.plan_adopt($arguments) WHERE status = 'obstacle'"), $pattern, 'as the plan said');
	};
	return;
}

# ---- wrong use ---------------------------------------------------------

fails_with($node, "SELECT * FROM _wh.adopt('nonesuch', " . quoted($schema) . ')', '42704', qr/template "nonesuch" does not exist/, 'an unknown template');
fails_with($node, 'SELECT * FROM _wh.adopt(' . quoted($template) . ", 'nobody', 'public')", '42704', qr/tenant "nobody" does not exist/, 'an unknown tenant');
fails_with($node, 'SELECT * FROM _wh.adopt(NULL, NULL)', '22004', qr/template_name/, 'NULL');
fails_with($node, 'SELECT * FROM _wh.plan_adopt(' . quoted($template) . ', ' . quoted($schema) . ", 'nowhere')", '3F000', qr/schema "nowhere" does not exist/, 'an unknown schema');
fails_with($node, "SELECT * FROM _wh.adopt($arguments)", '42704', qr/has no day, month or year of template/, 'nothing to take over');

# ---- what the view reads -----------------------------------------------

make_day('2025-03-01', 5);
make_day('2025-03-02', 7);
my @days = map { relation("2025_03_0$_") } 1, 2;

make_view(@days);
sql($node, "SET ROLE whadmin; CREATE OR REPLACE VIEW $s.$t AS SELECT * FROM $days[0] WHERE id > 1 UNION ALL SELECT * FROM $days[1]");
refuses(qr/it does more than to unite relations/, 'a condition');
sql($node, "SET ROLE whadmin; CREATE OR REPLACE VIEW $s.$t AS SELECT * FROM $days[0] UNION SELECT * FROM $days[1]");
refuses(qr/it is not a UNION ALL/, 'UNION');
sql($node, "SET ROLE whadmin; CREATE OR REPLACE VIEW $s.$t AS SELECT * FROM $days[0] UNION ALL SELECT id, at, payload AS kind, amount, kind AS payload FROM $days[1]");
refuses(qr/its column "kind" is not that of/, 'columns that changed places');
sql($node, "SET ROLE whadmin; CREATE OR REPLACE VIEW $s.$t AS SELECT id, at, kind, (amount * 2)::numeric(12,3) AS amount, payload FROM $days[0]");
refuses(qr/its column "amount" is not that of/, 'a column that is computed');
make_view(@days, $days[0]);
refuses(qr/it reads "ev'ents \{x\}_2025_03_01" twice/, 'a day twice');
sql($node, "SET ROLE whadmin; CREATE TABLE $s.legacy AS TABLE $days[0]; CREATE OR REPLACE VIEW $s.$t AS SELECT * FROM $days[0] UNION ALL SELECT * FROM $s.legacy");
refuses(qr/it reads .*legacy, which has not the name of a day, month or year/, 'a table of another name');
make_view(@days);
sql($node, "DROP TABLE $s.legacy");

# ---- what is wrong with a relation -------------------------------------

my $year = relation('2024');
sql($node, "SET ROLE whadmin; CREATE TABLE $year AS " . sprintf($rows, '2024-12-30', 3));
make_view(@days, $year);
refuses(qr/set date_column of the template/, 'a year without a date_column');
sql($node, "UPDATE _wh.mv_templates SET date_column = 'at'");
sql($node, "INSERT INTO $year SELECT 99, at, kind, amount, payload FROM (" . sprintf($rows, '2025-01-01', 1) . ') r');
refuses(qr/it has rows of 2025-01-01/, 'a row outside of its year');
sql($node, "UPDATE $year SET at = NULL WHERE at >= '2025-01-01'");
refuses(qr/it has rows of no day/, 'a row of no day');
sql($node, "UPDATE $year SET at = '2024-12-31' WHERE at IS NULL");
make_day('2024-12-31', 2);
make_view(@days, $year, relation('2024_12_31'));
refuses(qr/2024-12-31 is in "ev'ents \{x\}_2024" too/, 'a day that its year has too');
make_view(@days, $year);
sql($node, 'DROP MATERIALIZED VIEW ' . relation('2024_12_31'));
sql($node, "SET ROLE whadmin; CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER f BEFORE INSERT ON $year FOR EACH ROW EXECUTE FUNCTION public.f()");
refuses(qr/it has triggers or rules/, 'a trigger');
sql($node, "DROP TRIGGER f ON $year; ALTER TABLE $year ENABLE ROW LEVEL SECURITY");
refuses(qr/it has row security/, 'row security');
sql($node, "ALTER TABLE $year DISABLE ROW LEVEL SECURITY; DROP VIEW $s.$t; ALTER TABLE $year ALTER id TYPE bigint");
make_view($year);
refuses(qr/it has column "id" bigint where the template has "id" integer/, 'another type');
sql($node, "DROP VIEW $s.$t; ALTER TABLE $year ALTER id TYPE integer; REFRESH MATERIALIZED VIEW $days[0] WITH NO DATA");
make_view(@days, $year);
refuses(qr/it was never filled/, 'a day that was never filled');
sql($node, "REFRESH MATERIALIZED VIEW $days[0]");

# ---- what nobody reads -------------------------------------------------

sql($node, 'SET ROLE whadmin; CREATE MATERIALIZED VIEW ' . relation('2025_03_03') . ' AS SELECT 1 AS id');
sql($node, 'SET ROLE whadmin; CREATE VIEW ' . relation('2022') . ' AS SELECT 1 AS id');
sql($node, 'SET ROLE whadmin; CREATE TABLE ' . relation('2025_02_30') . ' (id integer)');
is(sql($node, "SELECT string_agg(status || ': ' || coalesce(detail, '-'), chr(10) ORDER BY relation) FROM _wh.plan_adopt($arguments) WHERE status = 'leave'"),
	"leave: it is not a table, as months and years are\nleave: it has no column \"at\" timestamp without time zone", 'what the view does not read is left, and what is no day is nothing');

is((split /\n/, sql($node, "BEGIN; INSERT INTO $year SELECT 7, '2024-12-20', kind, amount, payload FROM $year LIMIT 1; SELECT detail FROM _wh.plan_adopt($arguments) WHERE kind = 'year' AND status = 'adopt'; ROLLBACK"))[0],
	"it lacks index \"idx_${schema}_${template}_2024_id\" of the template, and gets it when it is loaded again; 9 days between its first and last one have no rows, and count as missing", 'what its owner should know is said');

# ---- whose it is -------------------------------------------------------

sql($node, "CREATE ROLE stranger; ALTER MATERIALIZED VIEW $days[1] OWNER TO stranger; CREATE ROLE deputy LOGIN; GRANT whadmin TO deputy");
fails_with($node, "SET SESSION AUTHORIZATION deputy; SELECT * FROM _wh.adopt($arguments)", '55000', qr/it belongs to role "stranger"/, 'what belongs to another role');
fails_with($node, "SET SESSION AUTHORIZATION stranger; SELECT * FROM _wh.adopt($arguments)", '42501', qr/permission denied/, 'nobody else may call it');
sql($node, "ALTER VIEW $s.$t OWNER TO stranger; GRANT USAGE ON SCHEMA $s TO stranger; GRANT SELECT ON ALL TABLES IN SCHEMA $s TO stranger");
my $content = checksum($node, "SELECT * FROM $s.$t");
is(sql($node, "SELECT string_agg(status || ' ' || kind || ' ' || coalesce(days || ' ' || rows, ''), chr(10) ORDER BY relation) FROM _wh.adopt($arguments)"),
	join("\n", 'adopted tenant view ', 'left year ', 'adopted year 2 4', 'adopted day 1 5', 'adopted day 1 7', 'left day '), 'a superuser takes it over');
is(checksum($node, "SELECT * FROM $s.$t"), $content, 'with the rows it had');
is(sql($node, "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE relname IN (" . quoted("${template}_2025_03_02") . ', ' . quoted($template) . ')'), 'whadmin', 'it belongs to the admin role');
is(sql($node, "SELECT count(*) FROM public.$t WHERE schema_name = " . quoted($schema)), 16, 'and is in a public view, which there was none');
is(sql($node, "SELECT string_agg(detail, '; ') FROM _wh.plan_adopt($arguments) WHERE status <> 'ours'"), 'it is not a table, as months and years are; it has no column "at" timestamp without time zone', 'the rest is as it was');

# Without the template's indexes it is made anew when it is loaded again.
is(sql($node, "SELECT count(*) FROM pg_indexes WHERE schemaname = " . quoted($schema)), 0, 'the days have no indexes');
sql($node, 'SELECT _wh.resume()');
is(sql($node, 'SELECT _wh.update_mv_by_template(' . join(', ', quoted($template), quoted($schema), quoted($schema)) . ", '2025-03-02', false)"), 't', 'a day is loaded again');
is(sql($node, "SELECT count(*) FROM pg_indexes WHERE schemaname = " . quoted($schema)), 1, 'and has its index then');
same_content($node, "SELECT id, at, kind, amount::numeric, payload FROM $s.$t WHERE at::date = '2025-03-02'", $source, "SELECT id, at, kind, round(amount, 3) AS amount, payload FROM events WHERE at::date = '2025-03-02'", 'with the tenant\'s rows');

# ---- another layout ----------------------------------------------------

sql($node, "UPDATE _wh.mv_templates SET date_column = 'at', layout = 'partitions' WHERE template_name = 'other'");
fails_with($node, "SELECT * FROM _wh.adopt('other', " . quoted($schema) . ')', '55000', qr/has the layout "partitions"/, 'a partitioned template');
sql($node, "SELECT _wh.convert_layout(" . quoted($template) . ", 'partitions')");
wait_until($node, "SELECT count(*) = 3 AND bool_and(state = 'succeeded') FROM _wh.jobs WHERE kind = 'convert'", 'what was taken over is moved to a partition tree');
is(sql($node, "SELECT count(*) || ' ' || count(*) FILTER (WHERE at < '2025-01-01') FROM public.$t"), '14 4', 'with its year');
$node->stop;

# ---- docs/migrate.md ---------------------------------------------------

my $old_source = new_tenant('old_source', role => 'readonly_user', password => old_password());
my $old = new_warehouse(
	name => 'old', create_extension => 0,
	conf => { shared_preload_libraries => "'pg_cron,wh_worker'", 'cron.database_name' => "'postgres'", 'cron.use_background_workers' => 'on' });
my $seed = slurp_file(source_root() . '/templates/foodlogstats.sql') =~ s/ON CONFLICT.*//sr;

create_old_warehouse($old);
sql($old, 'CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO whadmin');
as_role($old, 'whadmin', "$seed;");
foreach my $name ('a', 'b')
{
	create_food_log($old_source, "shop_$name", '2024-12-30', 4, 5, 3);
	as_role($old, 'whadmin', sprintf q{
		INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password) VALUES ('tenant_%1$s', '127.0.0.1', %2$d, 'shop_%1$s', 'readonly_user', '%3$s');
		CREATE SCHEMA tenant_%1$s;
		SELECT _wh.update_mv_window_by_template('foodlogstats', 'tenant_%1$s', 'tenant_%1$s', '2024-12-30', '2025-01-02');
		SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_%1$s', 'tenant_%1$s');
		SELECT cron.schedule('refresh %1$s', '10 4 29 2 *', $$SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_%1$s', 'tenant_%1$s', _wh.current_date_utc())$$);
	}, $name, $old_source->port, old_password());
}
as_role($old, 'whadmin', "SELECT _wh.create_combined_table_from_template_by_year('foodlogstats', 'tenant_a', 'tenant_a', 2024);
	SELECT _wh.update_tenant_union_view_by_template('foodlogstats', 'tenant_a', 'tenant_a'); SELECT _wh.update_public_view_by_template('foodlogstats')");

my $before = checksum($old, 'SELECT * FROM public.foodlogstats');
my @blocks = slurp_file(source_root() . '/docs/migrate.md') =~ /^[ ]*```sql\n(.*?)^[ ]*```$/msg;
my $out = '';

cmp_ok(scalar(@blocks), '>=', 8, 'docs/migrate.md has commands');
foreach my $block (@blocks)
{
	my ($status, $told, $err) = $old->psql('postgres', $block, on_error_stop => 1);

	is($status, 0, 'it runs: ' . ($block =~ /\A(.*)$/m)[0]) or diag($err);
	$out .= "$told\n";
}
like($out, qr/^(\d+\|[\d.]+)\n(?:.*\n)+?\1$/m, 'counts are the same before and after');
is(checksum($old, "SELECT * FROM public.foodlogstats WHERE logged_time < '2025-01-03'"), $before, 'and every row is there at the end');
is(sql($old, 'SELECT count(*) FROM _wh.schedules WHERE active') . ' ' . sql($old, 'SELECT count(*) FROM cron.job'), '0 0', 'the way back stops the schedules');
is(sql($old, "SELECT _wh.update_mv_by_template('foodlogstats', 'tenant_a', 'tenant_a', _wh.current_date_utc())"), 't', 'and the old call does what it did');

done_testing();
