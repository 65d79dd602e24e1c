# Attacks by those who have a role in the warehouse: readers, readers of one
# tenant, operators, whoever may connect, and the admin role itself. Each works
# on what is weaker: the stock warehouse, or a copy of ours with one thing undone.
use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use WhAttack;
use WhTest;

my $marker = 'TEMPLATE-SECRET';
my $source = new_tenant('source', database => 'a');
# Passwords are in clear, so that the weak side has something to show.
my $node = new_warehouse(conf => { 'wh_worker.key_file' => "''" });

create_events($source, '2025-03-01', 20, 5, database => 'a');
$source->safe_psql('postgres', 'CREATE DATABASE b');
create_events($source, '2025-03-01', 20, 5, database => 'b', seed => 2);
$source->safe_psql('b', q{UPDATE events SET kind = 'secret of b'});
sql($node, 'CREATE ROLE reader_a LOGIN; CREATE ROLE mallory LOGIN; CREATE ROLE weak_reader LOGIN');

add_events_template($node, $_, query => "/* $marker */ SELECT id, at, kind, amount, payload FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1")
  foreach 'events', 'leaves';
sql($node, q{UPDATE _wh.mv_templates SET tenant_isolation = true, date_column = 'at',
	layout = CASE template_name WHEN 'events' THEN 'matviews' ELSE 'partitions' END});
add_tenant($node, "shop_$_", $source, database => $_, templates => [ 'events', 'leaves' ], start_date => '2025-03-01') foreach 'a', 'b';

sub load
{
	my ($template, $tenant, $day, $schema) = @_;

	return sql($node, sprintf("SELECT _wh.update_mv_by_template('%s', '%s', '%s', '%s')", $template, $tenant, $schema // $tenant, $day));
}

foreach my $tenant ('shop_a', 'shop_b')
{
	load($_, $tenant, '2025-03-01') foreach 'events', 'leaves';
}
sql($node, "SELECT _wh.grant_tenant_reader('shop_a', 'reader_a')");

new_stock_warehouse($node, 'stock');
$node->safe_psql('stock', sprintf(q{
	INSERT INTO _wh.tenant_connections VALUES ('shop_b', '127.0.0.1', %d, 'b', 'wh_reader', '%s');
	INSERT INTO _wh.mv_templates VALUES ('events', '', '/* %s */ SELECT id, at, kind, amount, payload FROM events WHERE at::date = ''{TARGET_DATE}''',
		'id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT', NULL);
}, $source->port, reader_password(), $marker));
# dblink takes a password with blanks only in quotes
$node->safe_psql('stock', q{UPDATE _wh.tenant_connections SET password = '''' || password || ''''; SELECT _wh.create_mv_from_template('events', 'shop_b', 'shop_b', '2025-03-01')});

# ---- what readers are not to see ---------------------------------------

attack('a reader reads the query of a template in the definition of a day',
	weak => sub { gets($node, 'stock', "SELECT definition FROM pg_matviews WHERE schemaname = 'shop_b'", $marker, user => 'phood_ro') },
	here => sub { gets($node, 'postgres', "SELECT pg_get_viewdef(oid) FROM pg_class WHERE relkind IN ('m', 'v') AND relnamespace::regnamespace::text LIKE 'shop%'", $marker, user => 'phood_ro') },
	why => qr/fetch_day/);

attack('a reader has a function of the warehouse tell him the password of a tenant',
	weak => sub { gets($node, 'stock', "SELECT _wh.get_tenant_connection_string('shop_b')", reader_password(), user => 'phood_ro') },
	here => sub { gets($node, 'postgres', "SELECT _wh.get_tenant_connection_string('shop_b')", reader_password(), user => 'phood_ro') },
	why => qr/permission denied for schema _wh/);

sql($node, q{
	CREATE ROLE careless LOGIN;
	GRANT USAGE ON SCHEMA _wh TO careless;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA _wh TO careless;
	CREATE FUNCTION public.connection_unchecked(tenant text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS 'SELECT password FROM _wh.tenant_connections WHERE tenant_name = $1';
	ALTER FUNCTION public.connection_unchecked(text) OWNER TO whadmin});
attack('who was granted EXECUTE on all functions by mistake reads the password of a tenant',
	weak => sub { gets($node, 'postgres', "SELECT public.connection_unchecked('shop_b')", reader_password(), user => 'careless') },
	here => sub { gets($node, 'postgres', "SELECT _wh.get_tenant_connection_string('shop_b')", reader_password(), user => 'careless') },
	why => qr/that it may execute the function is not enough/);

sql($node, q{
	CREATE FUNCTION public.describe_tenant(tenant text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
		AS 'SELECT _wh.get_tenant_connection_string($1)';
	ALTER FUNCTION public.describe_tenant(text) OWNER TO whadmin});
$node->safe_psql('stock', q{CREATE FUNCTION public.describe_tenant(tenant text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'SELECT _wh.get_tenant_connection_string($1)'});
attack('a function that an admin wrote lends his rights to whoever calls it',
	weak => sub { gets($node, 'stock', "SELECT public.describe_tenant('shop_b')", reader_password(), user => 'phood_ro') },
	here => sub { gets($node, 'postgres', "SELECT public.describe_tenant('shop_b')", reader_password(), user => 'phood_ro') },
	why => qr/has not the rights of role "whadmin"/);

$source->safe_psql('b', q{UPDATE events SET kind = 'changed of b' WHERE at::date = '2025-03-01'});
attack('a reader makes the warehouse ask a tenant',
	weak => sub { does($node, 'stock', "SELECT _wh.refresh_mv('shop_b', 'events_2025_03_01')", q{SELECT bool_and(kind = 'changed of b') FROM shop_b.events_2025_03_01}, user => 'phood_ro') },
	here => sub { does($node, 'postgres', "SELECT _wh.refresh_mv('shop_b', 'events_2025_03_01'); REFRESH MATERIALIZED VIEW shop_b.events_2025_03_01", q{SELECT bool_or(kind = 'changed of b') FROM shop_b.events_2025_03_01}, user => 'phood_ro') },
	why => qr/permission denied for schema _wh.*(must be owner of|permission denied for) materialized view/s);

sql($node, 'GRANT USAGE ON SCHEMA _wh TO weak_reader');
attack('a reader listens to what becomes of the jobs of all tenants',
	weak => sub { gets($node, 'postgres', 'LISTEN wh_worker; SELECT pg_listening_channels()', 'wh_worker', user => 'weak_reader') },
	here => sub { gets($node, 'postgres', 'LISTEN wh_worker; SELECT pg_listening_channels()', qr/^wh_worker$/m, user => 'phood_ro') },
	why => qr/permission denied to listen/);
sql($node, 'REVOKE USAGE ON SCHEMA _wh FROM weak_reader');

# ---- one tenant and no other -------------------------------------------

sql($node, q{
	GRANT USAGE ON SCHEMA shop_a, public TO weak_reader;
	GRANT SELECT ON ALL TABLES IN SCHEMA shop_a TO weak_reader;
	GRANT SELECT ON ALL TABLES IN SCHEMA public TO weak_reader});
attack('a reader of one tenant reads the others in the public view',
	weak => sub { gets($node, 'postgres', 'SELECT kind FROM public.events', 'secret of b', user => 'weak_reader') },
	here => sub { gets($node, 'postgres', 'SELECT kind FROM public.events; SELECT kind FROM public.leaves; SELECT kind FROM public.events_isolated', 'secret of b', user => 'reader_a') },
	why => qr/permission denied for view events\b.*permission denied for view leaves\b/s);

foreach my $template ('events', 'leaves')
{
	my $filter = q{EXISTS (SELECT FROM _wh.tenant_templates s JOIN _wh.tenant_readers r USING (tenant_name)
		WHERE s.target_schema = v.schema_name AND pg_has_role(r.role_oid, 'USAGE'))};
	my $leak = q{CREATE FUNCTION pg_temp.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
		AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END';};

	sql($node, "CREATE VIEW public.weak_$template AS SELECT * FROM public.$template v WHERE $filter; GRANT SELECT ON public.weak_$template TO reader_a");
	is(sql($node, "SET ROLE reader_a; SELECT string_agg(DISTINCT schema_name, ' ') FROM public.weak_$template"), 'shop_a', "the weak view of $template filters too");
	attack("a cheap function is shown the rows of others before the filter ($template)",
		weak => sub { gets($node, 'postgres', "$leak SELECT count(*) FROM public.weak_$template WHERE pg_temp.leak(kind)", 'secret of b', user => 'reader_a') },
		here => sub { gets($node, 'postgres', "$leak SELECT count(*) FROM public.${template}_isolated WHERE pg_temp.leak(kind)", 'secret of b', user => 'reader_a') },
		why => qr/NOTICE:  kind 1/);
	attack("a cast that fails quotes a row of others ($template)",
		weak => sub { gets($node, 'postgres', "SELECT count(*) FROM public.weak_$template WHERE CASE WHEN kind LIKE 'secret%' THEN kind::integer ELSE 1 END = 1", 'secret of b', user => 'reader_a') },
		here => sub { gets($node, 'postgres', "SELECT count(*) FROM public.${template}_isolated WHERE CASE WHEN kind LIKE 'secret%' THEN kind::integer ELSE 1 END = 1", 'secret of b', user => 'reader_a') },
		why => qr/^5$/m);
}

sql($node, "SELECT _wh.subscribe('shop_a', 'events', 'reports', '2025-03-01'); SELECT _wh.subscribe('shop_b', 'leaves', 'reports', '2025-03-01')");
load('events', 'shop_a', '2025-03-01', 'reports');
sql($node, 'GRANT USAGE ON SCHEMA reports TO weak_reader; ALTER DEFAULT PRIVILEGES FOR ROLE whadmin IN SCHEMA reports GRANT SELECT ON TABLES TO weak_reader');
load('leaves', 'shop_b', '2025-03-01', 'reports');
load('leaves', 'shop_b', '2025-03-02', 'reports');
attack('a reader of one tenant reads another that feeds the same schema',
	weak => sub { gets($node, 'postgres', 'SELECT kind FROM reports.leaves; SELECT kind FROM reports.leaves_2025_03_02', 'secret of b', user => 'weak_reader') },
	here => sub { gets($node, 'postgres', 'SELECT kind FROM reports.leaves; SELECT kind FROM reports.leaves_2025_03_02', 'secret of b', user => 'reader_a') },
	why => qr/permission denied for view leaves.*permission denied for table leaves_2025_03_02/s);

# The next day of shop_b, read by a role that has the name of a reader who is gone.
sub recycle_role
{
	my ($role, $day, $by_name) = @_;

	sql($node, "CREATE ROLE $role; SELECT _wh.grant_tenant_reader('shop_b', '$role'); DROP OWNED BY $role; DROP ROLE $role; CREATE ROLE $role LOGIN");
	sql($node, "UPDATE _wh.tenant_readers SET role_name = role_name WHERE role_name = '$role'") if $by_name;
	load('events', 'shop_b', $day);
	return gets($node, 'postgres', 'SELECT kind FROM shop_b.events', 'secret of b', user => $role);
}

attack('a new role with the name of a reader who was dropped reads his tenant',
	weak => sub { recycle_role('left_1', '2025-03-02', 1) },
	here => sub { recycle_role('left_2', '2025-03-03', 0) },
	why => qr/permission denied for schema shop_b/);

sub recycle_tenant
{
	my ($tenant, $keep_row) = @_;

	add_tenant($node, $tenant, $source, database => 'a', templates => ['events'], start_date => '2025-03-01');
	load('events', $tenant, '2025-03-01');
	sql($node, "SELECT _wh.grant_tenant_reader('$tenant', 'mallory')");
	sql($node, "SELECT _wh.remove_tenant('$tenant', true)");
	sql($node, "INSERT INTO _wh.tenant_readers (tenant_name, role_name) VALUES ('$tenant', 'mallory')") if $keep_row;
	add_tenant($node, $tenant, $source, database => 'b', templates => ['events'], start_date => '2025-03-01');
	load('events', $tenant, '2025-03-02');
	return gets($node, 'postgres', "SELECT kind FROM $tenant.events", 'secret of b', user => 'mallory');
}

attack('the reader of a tenant that was removed reads the next one of that name',
	weak => sub { recycle_tenant('shop_c', 1) },
	here => sub { recycle_tenant('shop_d', 0) },
	why => qr/permission denied for schema shop_d/);

# ---- operators ---------------------------------------------------------

sql($node, q{SELECT _wh.grant_operator('mallory'); SET SESSION AUTHORIZATION whadmin; SELECT _wh.schedule('theirs', '0 0 29 2 *', 'SELECT ''COMMAND-SECRET''')});
sql($node, 'CREATE ROLE weak_operator LOGIN; GRANT USAGE ON SCHEMA _wh TO weak_operator; GRANT SELECT ON ALL TABLES IN SCHEMA _wh TO weak_operator; GRANT EXECUTE ON FUNCTION _wh.in_zone(timestamptz, text) TO weak_operator');
my $look = 'SELECT * FROM _wh.mv_templates; SELECT * FROM _wh.tenant_connections; SELECT * FROM _wh.job; SELECT * FROM _wh.schedules';
attack('an operator reads the templates',
	weak => sub { gets($node, 'postgres', $look, $marker, user => 'weak_operator') },
	here => sub { gets($node, 'postgres', $look, $marker, user => 'mallory') },
	why => qr/permission denied for table mv_templates/);
attack('an operator reads the commands that others have scheduled',
	weak => sub { gets($node, 'postgres', $look, 'COMMAND-SECRET', user => 'weak_operator') },
	here => sub { gets($node, 'postgres', $look, 'COMMAND-SECRET', user => 'mallory') },
	why => qr/permission denied for view job.*permission denied for table schedules/s);

# Whoever may make a schema puts it before pg_catalog; what our functions call
# by a name without a schema is then his, and runs as their owner.
my $traps = q{
	CREATE SCHEMA traps;
	CREATE TABLE traps.loot (who text);
	GRANT INSERT ON traps.loot TO PUBLIC;
	GRANT USAGE ON SCHEMA traps TO PUBLIC;
	CREATE FUNCTION traps.caught() RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO traps.loot VALUES (current_user); EXCEPTION WHEN OTHERS THEN NULL; END';
	CREATE FUNCTION traps.to_char(date, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM traps.caught(); RETURN pg_catalog.to_char($1::timestamp, $2); END';
	CREATE FUNCTION traps.now() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN PERFORM traps.caught(); RETURN pg_catalog.now(); END';
	CREATE FUNCTION traps.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN PERFORM traps.caught(); RETURN pg_catalog.clock_timestamp(); END';
	CREATE FUNCTION traps.current_setting(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM traps.caught(); RETURN pg_catalog.current_setting($1); END';
	CREATE FUNCTION traps.same(text, text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM traps.caught(); RETURN $1 OPERATOR(pg_catalog.=) $2; END';
	CREATE OPERATOR traps.= (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.same);
	CREATE FUNCTION traps.join(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM traps.caught(); RETURN $1 OPERATOR(pg_catalog.||) $2; END';
	CREATE OPERATOR traps.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = traps.join);
	SET search_path = traps, pg_catalog;
};
my $caught = q{SELECT EXISTS (SELECT FROM traps.loot WHERE who <> 'mallory')};
my $calls = q{SELECT _wh.create_mv_name('events', '2025-03-01');
	SELECT _wh.enqueue_backfill('events', 'shop_b', '2025-03-05', '2025-03-06');
	SELECT _wh.plan_backfill('events', 'shop_b', '2025-03-05', '2025-03-06');
	SELECT _wh.cancel_backfill(1); SELECT _wh.retry_failed(1); SELECT _wh.pause_tenant('shop_b'); SELECT _wh.resume_tenant('shop_b');}
  . join(' ', map { "SELECT * FROM _wh.$_;" } qw(worker_status backfill_progress job_status data_freshness storage_usage tenant_health union_health));
$node->safe_psql($_, "GRANT CREATE ON DATABASE $_ TO mallory") foreach 'stock', 'postgres';
attack('functions and operators of the caller run with the rights of the owner',
	weak => sub { does($node, 'stock', "$traps SELECT _wh.create_mv_name('events', '2025-03-01')", $caught, user => 'mallory') },
	here => sub { does($node, 'postgres', "$traps $calls", $caught, user => 'mallory') },
	why => qr/events_2025_03_01/);
is(sql($node, q{SELECT count(*) > 0 FROM _wh.backfills WHERE enqueued_by = 'mallory'}), 't', 'the calls here did something');

# ---- in the way --------------------------------------------------------

# A session that publishes holds its locks; the reader sees in pg_locks which, takes
# all that SQL can take of them when they are free, and the next publication waits.
sub stand_in_the_way
{
	my ($publish) = @_;
	my $victim = $node->background_psql('postgres');
	my $reader = $node->background_psql('postgres', extra_params => [ '-U', 'phood_ro' ]);
	my ($exit, $out, $err);

	$victim->query_safe("BEGIN; SELECT $publish");
	my $take = $reader->query_safe(q{SELECT string_agg(format('SELECT pg_advisory_lock(%s); SELECT pg_advisory_lock(%s, %s)',
		(classid::bigint::bit(64) << 32 | objid::bigint::bit(64))::bigint, classid::bigint::bit(32)::integer, objid::bigint::bit(32)::integer), ';')
		FROM pg_locks WHERE locktype = 'advisory'});
	die "no advisory lock was taken: $publish" if $take eq '';
	$victim->query_safe('COMMIT');
	$reader->query_safe($take);
	($exit, $out, $err) = $node->psql('postgres', "SET lock_timeout = '1s'; SET statement_timeout = '20s'; SELECT $publish", on_error_stop => 1);
	$reader->quit;
	$victim->quit;
	note_answer($err);
	return $exit != 0;
}

sql($node, q{CREATE FUNCTION public.weak_publish(template text) RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(hashtextextended(template, 0)); END'});
attack('a reader takes the advisory lock of a publication',
	weak => sub { stand_in_the_way(q{public.weak_publish('events')}) },
	here => sub { stand_in_the_way(q{_wh.update_tenant_union_view_by_template('events', 'shop_b', 'shop_b')}) });

sql($node, 'GRANT CREATE ON SCHEMA public TO PUBLIC');
my $squat = 'CREATE VIEW public.not_yet_published AS SELECT 1 AS a';
attack('a reader takes the name of a public view before it is published',
	weak => sub { does($node, 'postgres', $squat, q{SELECT to_regclass('public.not_yet_published') IS NOT NULL}, user => 'phood_ro') },
	here => sub {
		my ($out, $err) = ('', '');

		sql($node, 'DROP VIEW public.not_yet_published');
		IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-f', source_root() . '/sql/create.sql' ], '>', \$out, '2>', \$err) or die $err;
		does($node, 'postgres', $squat, q{SELECT to_regclass('public.not_yet_published') IS NOT NULL}, user => 'phood_ro');
	},
	why => qr/permission denied for schema public/);

# ---- the way to a superuser --------------------------------------------

SKIP:
{
	skip 'from version 16 on CREATEROLE gives no such roles', 1 if sql($node, "SELECT current_setting('server_version_num')::integer >= 160000") eq 't';
	sql($node, 'CREATE ROLE whadmin_as_written LOGIN NOSUPERUSER CREATEDB CREATEROLE');
	attack('the admin role gives itself the roles that read files and run programs',
		weak => sub { gets($node, 'postgres', "GRANT pg_read_server_files, pg_execute_server_program TO whadmin_as_written; CREATE TEMP TABLE t (a text); COPY t FROM PROGRAM 'echo run as the server'; SELECT a FROM t", 'run as the server', user => 'whadmin_as_written') },
		here => sub { gets($node, 'postgres', "GRANT pg_read_server_files, pg_execute_server_program TO whadmin; CREATE TEMP TABLE t (a text); COPY t FROM PROGRAM 'echo run as the server'; SELECT a FROM t", 'run as the server', user => 'whadmin') },
		why => qr/permission denied|must have/);
}

# The script of the extension as it would be with the check undone: run by psql,
# with the search_path that CREATE EXTENSION gives a script.
sub weak_script
{
	my ($undo) = @_;
	my $script = join '', map { slurp_file($_) } sort glob source_root() . '/sql/[0-9]*.sql';

	$script =~ s/^\\echo.*$//m;
	$script =~ s/MODULE_PATHNAME/\$libdir\/wh_worker/g;
	$undo->($script) or die 'there is nothing to undo';
	return "SET search_path = _wh, pg_temp;\n" . $script;
}

my $plant = q{
	CREATE TABLE _wh.loot (who text);
	CREATE FUNCTION _wh.format(text, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO _wh.loot VALUES (current_user); RETURN pg_catalog.format($1, $2); END';
	CREATE FUNCTION _wh.format(text, name, text) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO _wh.loot VALUES (current_user); RETURN pg_catalog.format($1, $2, $3); END';
	CREATE FUNCTION _wh.quote_ident(name) RETURNS text LANGUAGE plpgsql AS 'BEGIN INSERT INTO _wh.loot VALUES (current_user); RETURN pg_catalog.quote_ident($1::text); END'};
foreach my $database ('planted', 'planted_weak', 'owned', 'owned_weak')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, "GRANT CREATE ON DATABASE $database TO mallory; CREATE SCHEMA _wh AUTHORIZATION " . ($database =~ /^planted/ ? 'whadmin' : 'mallory'));
	$node->safe_psql($database, "SET ROLE whadmin; $plant") if $database =~ /^planted/;
}
my $looted = q{SELECT EXISTS (SELECT FROM _wh.loot WHERE who = 'SUPERUSER')} =~ s/SUPERUSER/sql($node, 'SELECT current_user')/er;
attack('the admin role plants functions in schema _wh for the superuser who creates the extension',
	weak => sub { does($node, 'planted_weak', weak_script(sub { $_[0] =~ s/^SELECT pg_catalog.set_config\('search_path'.*$//m }), $looted) },
	here => sub { does($node, 'planted', 'CREATE EXTENSION wh_worker', $looted) });
is($node->safe_psql('planted', q{SELECT count(*) FROM pg_extension WHERE extname = 'wh_worker'}), '1', 'the extension was created there');
is($node->safe_psql('planted', q{SELECT nspowner = 'whadmin'::regrole FROM pg_namespace WHERE nspname = '_wh'}), 'f', 'and the schema taken from whom it would be renamed by');

attack('who made schema _wh first owns what is in it, and drops it',
	weak => sub {
		$node->psql('owned_weak', weak_script(sub { $_[0] =~ s/AND NOT r\.rolsuper AND r\.rolname <> admin_role/AND false/; $_[0] =~ s/^\s*EXECUTE format\('ALTER SCHEMA _wh OWNER.*$//m }), on_error_stop => 0);
		$node->safe_psql('owned_weak', 'SELECT count(*) FROM _wh.tenant_connections');
		does($node, 'owned_weak', 'DROP TABLE _wh.tenant_connections CASCADE', q{SELECT to_regclass('_wh.tenant_connections') IS NULL}, user => 'mallory');
	},
	here => sub { does($node, 'owned', 'CREATE EXTENSION wh_worker', q{SELECT to_regclass('_wh.tenant_connections') IS NOT NULL}) },
	why => qr/schema "_wh" belongs to role "mallory"/);

done_testing();
