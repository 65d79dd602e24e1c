# Who may do and read what: the roles of create.sql, the reader, readers of one
# tenant, the isolated public view, operators; and attacks by each of them.
use strict;
use warnings;

use IPC::Run ();
use Test::More;
use WhAttack;
use WhTest;

my $admins = 'Ware House; "admins"';
my $readers = q{BI's readers};

# ---- create.sql, for any names -----------------------------------------

my $named = new_warehouse(
	name => 'named',
	create_extension => 0,
	conf => {
		'wh_worker.admin_role' => "'$admins'",
		'wh_worker.reader_role' => "'BI''s readers'" });

sub create_sql
{
	my ($node, @variables) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), @variables, '-f', source_root() . '/sql/create.sql' ],
		'>', \$out, '2>', \$err);
	return ("$out\n$err", $? >> 8);
}

sql($named, 'GRANT CREATE ON SCHEMA public TO PUBLIC');
my ($said, $status) = create_sql($named);
is($status, 0, 'create.sql works with names that need quotes') or diag($said);
like($said, qr/closed to everybody/, 'and closes schema public');
($said, $status) = create_sql($named);
is($status, 0, 'and may be run again') or diag($said);
unlike($said, qr/closed to everybody|created|WARNING/, 'when it has nothing to do');
my $safe = sql($named, "SELECT current_setting('server_version_num')::integer >= 160000");
is( sql($named, q{SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin
	FROM pg_roles WHERE rolname LIKE 'Ware%' OR rolname LIKE 'BI%' ORDER BY 1}),
	"$readers|f|f|f|f|f|t\n$admins|f|t|$safe|f|f|t", 'the roles have what they need, CREATEROLE where that is no superuser');
is( sql($named, q{SELECT count(*) FROM pg_class WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v', 'S')
	AND oid <> '_wh.tenant_connections'::regclass AND relowner::regrole::text <> '"Ware House; ""admins"""'}), '0', 'everything but the connections belongs to the admin role');
wait_until($named, "SELECT count(*) = 1 FROM _wh.worker_status WHERE backend_type LIKE '%launcher' AND state = 'idle'", 'its launcher runs');
like((create_sql($named, '-v', 'reader_role=somebody'))[0], qr/not those of wh_worker/, 'other names than the settings are refused');
sql($named, qq{ALTER ROLE "$readers" CREATEDB});
like((create_sql($named))[0], qr/WARNING: role "BI's readers": CREATEDB is more than it should have/, 'a role that has too much is told of');
sql($named, q{CREATE SCHEMA shop; CREATE ROLE other; CREATE TABLE before_it (a integer)});
$named->safe_psql('postgres', 'CREATE DATABASE second');
foreach my $case (
	[ qq{ALTER ROLE "Ware House; ""admins""" SUPERUSER}, qr/is a superuser/, qq{ALTER ROLE "Ware House; ""admins""" NOSUPERUSER} ],
	[ qq{GRANT "Ware House; ""admins""" TO "$readers"}, qr/has the rights of role/, qq{REVOKE "Ware House; ""admins""" FROM "$readers"} ])
{
	sql($named, $case->[0]);
	fails_with($named, 'CREATE EXTENSION wh_worker', '22023', $case->[1], "refused: $case->[0]", 'second');
	sql($named, $case->[2]);
}
$named->stop;

# ---- two tenants, two layouts ------------------------------------------

my $source = new_tenant('source', database => 'a');
my $node = new_warehouse();

create_events($source, '2025-03-01', 40, 5, database => 'a');
$source->safe_psql('postgres', 'CREATE DATABASE b');
create_events($source, '2025-03-01', 40, 5, database => 'b', seed => 2);
$source->safe_psql('b', q{UPDATE events SET kind = 'secret of b', amount = 4711});
sql($node, 'CREATE ROLE reader_a LOGIN; CREATE ROLE reader_b LOGIN; CREATE ROLE reader_both LOGIN; CREATE ROLE ops LOGIN; CREATE ROLE nobody_special LOGIN');
foreach my $template ('events', 'leaves')
{
	add_events_template($node, $template);
	sql($node, qq{UPDATE _wh.mv_templates SET tenant_isolation = true, date_column = 'at',
		layout = CASE template_name WHEN 'events' THEN 'matviews' ELSE 'partitions' END WHERE template_name = '$template'});
}
sql($node, q{UPDATE _wh.mv_templates SET description = 'TEMPLATE-SECRET', query_template = '/* TEMPLATE-SECRET */ ' || query_template});
add_tenant($node, "shop_$_", $source, database => $_, templates => [ 'events', 'leaves' ], start_date => '2025-03-01') foreach 'a', 'b';

sub load
{
	my ($template, $tenant, $first, $last) = @_;

	return sql($node, "SELECT _wh.update_mv_window_by_template('$template', '$tenant', '$first', '" . ($last // $first) . "')");
}

sub as_role
{
	my ($role, $query) = @_;
	my ($exit, $out, $err) = attempt($node, 'postgres', $query, user => $role, on_error_stop => 1);

	return $exit == 0 ? $out : $err =~ /ERROR:\s+(.*)/ ? $1 : $err;
}

foreach my $tenant ('shop_a', 'shop_b')
{
	load($_, $tenant, '2025-03-01', '2025-03-02') foreach 'events', 'leaves';
}

# ---- readers of one tenant ---------------------------------------------

sql($node, "SELECT _wh.grant_tenant_reader('shop_a', 'reader_a')");
is(as_role('reader_a', 'SELECT (SELECT count(*) FROM shop_a.events), (SELECT count(*) FROM shop_a.leaves), (SELECT count(*) FROM shop_a.events_2025_03_01), (SELECT count(*) FROM shop_a.leaves_2025_03_01)'),
	'10|10|5|5', 'a reader of a tenant reads its views and days, in both layouts');
foreach my $relation ('shop_b.events', 'shop_b.events_2025_03_01', 'shop_b.leaves_2025_03_01')
{
	is(as_role('reader_a', "SELECT count(*) FROM $relation"), 'permission denied for schema shop_b', "but not $relation");
}
is(as_role('reader_a', "SELECT count(*) FROM public.$_"), "permission denied for view $_", "nor public.$_") foreach 'events', 'leaves';

load('events', 'shop_a', '2025-03-03');
load('leaves', 'shop_a', '2025-03-03');
is(as_role('reader_a', 'SELECT (SELECT count(*) FROM shop_a.events_2025_03_03), (SELECT count(*) FROM shop_a.leaves_2025_03_03)'), '5|5', 'days that come later too');
my ($id, $end) = enqueue_and_wait($node, "'events', 'shop_a', '2025-03-04', '2025-03-31'");
($id, $end) = enqueue_and_wait($node, "'leaves', 'shop_a', '2025-03-04', '2025-03-31'");
is($end, 'succeeded', 'and those that workers load');
is(as_role('reader_a', 'SELECT (SELECT count(*) FROM shop_a.events_2025_03_30), (SELECT count(*) FROM shop_a.leaves_2025_03_30)'), '5|5', 'can be read');
like(sql($node, "SELECT _wh.create_combined_table_from_template_by_month('$_', 'shop_a', 2025, 3)"), qr/"combined"/, "a month of $_ is combined") foreach 'events', 'leaves';
is(as_role('reader_a', 'SELECT (SELECT count(*) FROM shop_a.events_2025_03), (SELECT count(*) FROM shop_a.leaves_2025_03)'), '155|155', 'and can be read');

sql($node, "SELECT _wh.subscribe('shop_a', 'events', 'reports', '2025-03-01')");
sql($node, "SELECT _wh.update_mv_by_template('events', 'shop_a', 'reports', '2025-03-01')");
is(as_role('reader_a', 'SELECT (SELECT count(*) FROM reports.events), (SELECT count(*) FROM reports.events_2025_03_01)'), '5|5', 'so is a schema that comes later');
sql($node, "SELECT _wh.subscribe('shop_b', 'leaves', 'reports', '2025-03-01')");
sql($node, "SELECT _wh.update_mv_by_template('leaves', 'shop_b', 'reports', '2025-03-01')");
is(as_role('reader_a', "SELECT count(*) FROM reports.$_"), 'permission denied for ' . ($_ eq 'leaves' ? 'view' : 'table') . " $_", "of a schema with two tenants only its own: not $_")
  foreach 'leaves', 'leaves_2025_03_01';

sql($node, "UPDATE _wh.mv_templates SET column_definitions = 'id BIGINT, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT' WHERE template_name = 'events'");
is(as_role('reader_a', 'SELECT (SELECT count(*) FROM shop_a.events), (SELECT count(*) FROM public.events_isolated)'), '155|160', 'views that are made anew keep the grant');

sql($node, "CREATE ROLE would_be NOINHERIT IN ROLE phood_ro; SELECT _wh.grant_tenant_reader('shop_b', 'reader_b'); SELECT _wh.grant_tenant_reader('shop_a', 'reader_both'); SELECT _wh.grant_tenant_reader('shop_b', 'reader_both')");
foreach my $case (
	[ 'whadmin', qr/has the rights of role "whadmin"/ ],
	[ 'phood_ro', qr/has the rights of role "phood_ro"/ ],
	[ 'would_be', qr/has the rights of role "phood_ro"/ ],
	[ 'postgres', qr/is a superuser/ ],
	[ 'pg_monitor', qr/reserved/ ])
{
	my ($role, $why) = @$case;

	$role = sql($node, 'SELECT current_user') if $role eq 'postgres';
	fails_with($node, "SELECT _wh.grant_tenant_reader('shop_a', '$role')", '22023', $why, "$case->[0] cannot be a reader of one tenant");
}
sql($node, 'CREATE ROLE reads_everything; GRANT pg_read_all_data TO reads_everything; CREATE ROLE in_bi; GRANT phood_ro TO in_bi');
fails_with($node, "SELECT _wh.grant_tenant_reader('shop_a', 'reads_everything')", '22023', qr/pg_read_all_data/, 'nor can who reads everything');
fails_with($node, "SELECT _wh.grant_tenant_reader('shop_a', 'in_bi')", '22023', qr/phood_ro/, 'nor a member of the reader role');
fails_with($node, "SELECT _wh.grant_tenant_reader('shop_a', 'nowhere')", '42704', qr/nowhere/, 'an unknown role');
fails_with($node, "SELECT _wh.grant_tenant_reader('nowhere', 'reader_a')", '42704', qr/nowhere/, 'an unknown tenant');
fails_with($node, 'SELECT _wh.grant_tenant_reader(NULL, NULL)', '22004', qr/null/, 'no tenant');
fails_with($node, "SELECT _wh.revoke_tenant_reader('shop_a', 'reader_b')", '42704', qr/no reader of tenant/, 'who is no reader');

# ---- the isolated view -------------------------------------------------

foreach my $template ('events', 'leaves')
{
	my $schemas = "SELECT string_agg(DISTINCT schema_name, ' ' ORDER BY schema_name) FROM public.${template}_isolated";
	my $mine = $template eq 'events' ? 'reports shop_a' : 'shop_a';
	my $other = $template eq 'leaves' ? 'reports shop_b' : 'shop_b';

	is(as_role('reader_a', $schemas), $mine, "$template: a reader sees his tenant in the isolated view");
	is(as_role('reader_b', $schemas), $other, "$template: another one the other");
	is(as_role('reader_both', $schemas), 'reports shop_a shop_b', "$template: who reads both sees both");
	is(as_role('phood_ro', $schemas), "permission denied for view ${template}_isolated", "$template: the reader role has the public view");
	is(sql($node, $schemas), 'reports shop_a shop_b', "$template: a superuser sees all");
	is(sql($node, "SET ROLE whadmin; $schemas"), '', "$template: the admin role, a reader of nobody, nothing");
	is(sql($node, "SELECT count(*) FROM (SELECT * FROM public.$template EXCEPT ALL SELECT * FROM public.${template}_isolated) x"), '0', "$template: it has the rows of the public view");
	my $plan = as_role('reader_b', "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM public.${template}_isolated WHERE at >= '2025-03-01' AND at < '2025-03-02'");
	my %scans = (a => [], b => []);

	push @{ $scans{ / on shop_(.)/ ? $1 : '' } }, $_ foreach $plan =~ /(Scan.* on shop_(?:a|b)\..*)/g;
	ok(@{ $scans{a} } > 0 && @{ $scans{b} } > 0 && !grep({ !/never executed/ } @{ $scans{a} }) && !grep({ /never executed/ } @{ $scans{b} }),
		"$template: relations of others are not read") or diag($plan);
	unlike(sql($node, "SELECT reloptions FROM pg_class WHERE oid = 'public.$template'::regclass"), qr/barrier/, "$template: the public view keeps its plans");
}

sql($node, 'ALTER VIEW public.events_isolated RESET (security_barrier)');
load('events', 'shop_b', '2025-03-03');
like(sql($node, "SELECT reloptions FROM pg_class WHERE oid = 'public.events_isolated'::regclass"), qr/security_barrier=true/, 'a barrier that was taken away comes back');
sql($node, q{CREATE VIEW public.on_top AS SELECT id, schema_name FROM public.events_isolated; GRANT SELECT ON public.on_top TO reader_a});
fails_with($node, "UPDATE _wh.mv_templates SET tenant_isolation = false WHERE template_name = 'events'", '2BP01', qr/on_top/, 'what a user built on it is in the way of dropping it');
sql($node, "UPDATE _wh.mv_templates SET column_definitions = 'id TEXT, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT, extra INTEGER', query_template = replace(query_template, 'payload FROM', 'payload, 1 FROM') WHERE template_name = 'events'");
is(sql($node, "SELECT string_agg(attname || ' ' || atttypid::regtype, ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'public.events_isolated'::regclass AND attnum > 0"),
	'id text, at timestamp without time zone, kind text, amount numeric, payload text, extra integer, schema_name text', 'it follows the columns');
is(sql($node, "SELECT has_table_privilege('reader_a', 'public.events_isolated', 'SELECT') AND has_table_privilege('reader_a', 'public.on_top', 'SELECT') AND reloptions::text LIKE '%barrier%' FROM pg_class WHERE oid = 'public.events_isolated'::regclass"), 't', 'with its grants, its barrier and what is on top');
is(as_role('reader_a', "SELECT string_agg(DISTINCT schema_name, ' ' ORDER BY schema_name) FROM public.events_isolated"), 'reports shop_a', 'and its filter');
sql($node, 'DROP VIEW public.on_top');
sql($node, "UPDATE _wh.mv_templates SET tenant_isolation = false WHERE template_name = 'events'");
is(sql($node, "SELECT to_regclass('public.events_isolated') IS NULL AND isolated_view_oid IS NULL FROM _wh.mv_templates WHERE template_name = 'events'"), 't', 'a template that no longer wants it loses it');
sql($node, 'CREATE TABLE public.events_isolated (a integer)');
fails_with($node, "UPDATE _wh.mv_templates SET tenant_isolation = true WHERE template_name = 'events'", '42P07', qr/not made by wh_worker/, 'a relation of somebody else is not replaced');
sql($node, 'DROP TABLE public.events_isolated');
sql($node, "UPDATE _wh.mv_templates SET tenant_isolation = true WHERE template_name = 'events'");
is(as_role('reader_b', "SELECT string_agg(DISTINCT schema_name, ' ') FROM public.events_isolated"), 'shop_b', 'one that wants it again gets it, with the grants');

# ---- taking back, renaming, dropping -----------------------------------

sql($node, "SELECT _wh.revoke_tenant_reader('shop_a', 'reader_both')");
is(as_role('reader_both', "SELECT count(*) FROM shop_a.events"), 'permission denied for schema shop_a', 'what is taken back is gone');
is(as_role('reader_both', "SELECT (SELECT count(*) FROM shop_b.events), (SELECT count(*) FROM reports.leaves), (SELECT string_agg(DISTINCT schema_name, ' ') FROM public.events_isolated)"), '15|5|shop_b', 'what comes from another tenant stays');
is(as_role('reader_both', 'SELECT count(*) FROM reports.events'), 'permission denied for view events', 'in a shared schema as well');
sql($node, "SELECT _wh.revoke_tenant_reader('shop_b', 'reader_both'); DROP ROLE reader_both");
pass('a role from which all is taken back can be dropped');

sql($node, "CREATE ROLE passing LOGIN; SELECT _wh.grant_tenant_reader('shop_b', 'passing'); ALTER ROLE passing RENAME TO renamed");
load('events', 'shop_b', '2025-03-04');
is(as_role('renamed', "SELECT (SELECT count(*) FROM shop_b.events_2025_03_04), (SELECT string_agg(DISTINCT schema_name, ' ') FROM public.events_isolated)"), '5|shop_b', 'a role that is renamed stays a reader');

# ---- dumped and restored -----------------------------------------------

sql($node, "CREATE ROLE leaves_soon LOGIN; SELECT _wh.grant_tenant_reader('shop_b', 'leaves_soon')");
my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'the warehouse is dumped');
sql($node, 'DROP OWNED BY leaves_soon; DROP ROLE leaves_soon');
sql($node, 'CREATE DATABASE restored');
$node->psql('restored', "\\i $dump", on_error_stop => 0);
is($node->safe_psql('restored', q{SELECT string_agg(role_name || ' ' || coalesce(role_oid::regrole::text, 'nobody'), ', ' ORDER BY role_name) FROM _wh.tenant_readers WHERE role_name IN ('reader_a', 'leaves_soon')}),
	'leaves_soon nobody, reader_a reader_a', 'readers are restored as the roles that have their names there, one without a role as nobody');
is($node->safe_psql('restored', q{SELECT has_schema_privilege('reader_a', 'shop_a', 'USAGE') AND has_table_privilege('reader_a', 'shop_a.events', 'SELECT') AND NOT has_schema_privilege('reader_a', 'shop_b', 'USAGE')
	AND NOT has_table_privilege('reader_a', 'public.events', 'SELECT') AND reloptions::text LIKE '%security_barrier=true%' FROM pg_class WHERE oid = 'public.leaves_isolated'::regclass}), 't', 'with what they had, and the isolated view');

# ---- another reader role -----------------------------------------------

sql($node, 'CREATE ROLE new_bi LOGIN');
sql($node, "ALTER SYSTEM SET wh_worker.reader_role = 'new_bi';\nSELECT pg_reload_conf();");
wait_until($node, "SELECT current_setting('wh_worker.reader_role') = 'new_bi'", 'the setting is another one');
is(as_role('new_bi', 'SELECT count(*) FROM public.events'), 'permission denied for view events', 'the new role has nothing yet');
($said, $status) = create_sql($node);
is($status, 0, 'create.sql is run again') or diag($said);
like($said, qr/grants on what is loaded: [1-9]/, 'and grants what is missing');
is(as_role('new_bi', 'SELECT (SELECT count(*) > 0 FROM public.events), (SELECT count(*) > 0 FROM shop_b.events), (SELECT count(*) FROM shop_b.events_2025_03_01)'), 't|t|5', 'so it reads everything');
is(sql($node, 'SELECT _wh.apply_grants()'), '0', 'once is enough');
sql($node, "ALTER SYSTEM RESET wh_worker.reader_role;\nSELECT pg_reload_conf();");

# ---- operators ---------------------------------------------------------

sql($node, "SELECT _wh.grant_operator('ops')");
$id = as_role('ops', "SELECT _wh.enqueue_backfill('events', 'shop_b', '2025-03-10', '2025-03-11')");
is(as_role('ops', "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'an operator enqueues, and waits');
is(as_role('ops', "SELECT state, days_done FROM _wh.backfill_progress WHERE backfill_id = $id"), 'succeeded|2', 'and watches');
is(as_role('ops', "SELECT count(*) > 0 FROM _wh.$_"), 't', "reads $_") foreach qw(worker_status job_status data_freshness storage_usage tenant_health union_health);
is(as_role('ops', "SELECT _wh.pause_tenant('shop_b'); SELECT _wh.resume_tenant('shop_b'); SELECT _wh.pause(); SELECT _wh.resume()"), "\n\n\n", 'pauses and resumes');
$id = as_role('ops', "SELECT _wh.pause_tenant('shop_b'); SELECT _wh.enqueue_backfill('events', 'shop_b', '2025-03-12', '2025-03-13')") =~ s/\s//gr;
is(as_role('ops', "SELECT _wh.cancel_backfill($id)"), '2', 'cancels');
as_role('ops', "SELECT _wh.resume_tenant('shop_b')");
is(as_role('ops', "SELECT count(*) FROM _wh.$_"), "permission denied for table $_", "but does not read $_") foreach qw(tenant_connections mv_templates jobs schedules job_run_details tenant_readers);
is(as_role('ops', 'SELECT count(*) FROM _wh.job'), 'permission denied for view job', 'nor what others have scheduled');
is(as_role('ops', 'SELECT count(*) FROM public.events'), 'permission denied for view events', 'nor any data');
is(as_role('ops', "SELECT _wh.get_tenant_connection_string('shop_a')"), 'permission denied for function get_tenant_connection_string', 'nor a password');
is(as_role('ops', "SELECT _wh.grant_operator('ops')"), 'permission denied for function grant_operator', 'nor makes operators');
is(as_role('ops', "LISTEN wh_worker"), '', 'may listen');
is(as_role('ops', "SELECT _wh.enqueue_backfill('events', 'shop_b', '2025-03-12', '2025-03-12', 'elsewhere')"),
	'role "ops" may not subscribe tenant "shop_b" to template "events" in schema "elsewhere"', 'but not have a tenant feed another schema');
sql($node, "SELECT _wh.unsubscribe('shop_b', 'leaves', 'reports')");
is(as_role('ops', "SELECT _wh.enqueue_backfill('leaves', 'shop_b', '2025-03-12', '2025-03-12', 'reports')"),
	'role "ops" may not subscribe tenant "shop_b" to template "leaves" in schema "reports"', 'nor one again that was ended');
sql($node, "SELECT _wh.revoke_operator('ops')");
is(as_role('ops', 'SELECT count(*) FROM _wh.job_status'), 'permission denied for schema _wh', 'until it is taken back');
sql($node, "CREATE ROLE short_lived; SELECT _wh.grant_operator('short_lived'); SELECT _wh.revoke_operator('short_lived'); DROP ROLE short_lived");
fails_with($node, "SELECT _wh.grant_operator('whadmin')", '22023', qr/administers/, 'the admin role is none');
fails_with($node, "SELECT _wh.grant_operator('nowhere')", '42704', qr/nowhere/, 'an unknown role');
sql($node, "SELECT _wh.grant_operator('ops')");

done_testing();
