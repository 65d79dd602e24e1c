# ALTER EXTENSION UPDATE, from the last version before 1.0 and with a warehouse's
# data in it: the catalogs are those of a new one, the data are what they were,
# and the warehouse goes on.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhCatalog;
use WhTest;

my $tenant = new_tenant('tenant');
my $node = new_warehouse(create_extension => 0);
my $version = sql($node, "SELECT default_version FROM pg_available_extensions WHERE name = 'wh_worker'");

# make installcheck: only a private server has the scripts of earlier versions.
plan skip_all => 'the script of version 0.9 is not installed'
  if sql($node, q{SELECT count(*) FROM pg_available_extension_versions WHERE name = 'wh_worker' AND version = '0.9'}) eq '0';

# What the library takes the script for.
sub pretend_to_be
{
	my ($what) = @_;

	sql($node, "UPDATE pg_extension SET extversion = '$what' WHERE extname = 'wh_worker'");
	return;
}

# ---- a warehouse of 0.9 ------------------------------------------------

# There is no library of 0.9 any more. This one leaves tables that are older than
# itself alone; the version that it is told keeps it at work.
sql($node, "CREATE EXTENSION wh_worker VERSION '0.9'");
pretend_to_be($version);
create_events($tenant, '2025-03-01', 8, 50);
$tenant->safe_psql('postgres', q{INSERT INTO events SELECT 100000 + i, timestamp '2025-02-01' + i * interval '12 hours', 'a', 1, 'february'
	FROM generate_series(0, 55) AS i});
add_events_template($node, $_) foreach 'events', 'leaves', 'isolated';
sql($node, q{UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'});
sql($node, q{UPDATE _wh.mv_templates SET tenant_isolation = true WHERE template_name = 'isolated'});
add_tenant($node, $_, $tenant, templates => [ 'events', 'leaves', 'isolated' ]) foreach 'shop', q{Odd "shop's};
foreach my $template ('events', 'leaves', 'isolated')
{
	is((enqueue_and_wait($node, "'$template', NULL, '2025-03-01', '2025-03-06'"))[1], 'succeeded', "$template are loaded");
}
foreach my $template ('events', 'leaves')
{
	is((enqueue_and_wait($node, "'$template', 'shop', '2025-02-01', '2025-02-28'"))[1], 'succeeded', "February of $template is loaded");
	sql($node, "SELECT _wh.create_combined_table_from_template_by_month('$template', 'shop', 'shop', 2025, 2)");
}
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE state = 'combined'"), '56', 'and combined');

# What people made of it: roles, a schedule of their own, views of ours in theirs, a queue.
sql($node, q{CREATE ROLE op LOGIN; CREATE ROLE one_shop LOGIN;
	SELECT _wh.grant_operator('op'); SELECT _wh.grant_tenant_reader('shop', 'one_shop')});
sql($node, q{SELECT _wh.schedule('by hand', '0 0 29 2 *', 'SELECT 1')});
sql($node, q{CREATE VIEW public.totals AS SELECT schema_name, at::date AS day, sum(amount) AS amount FROM public.events GROUP BY 1, 2;
	CREATE VIEW public.how_old AS SELECT tenant_name, template_name, data_through FROM _wh.data_freshness});
my @views = map { "public.on_$_" } split /\n/, sql($node, q{SELECT c.relname FROM pg_class c WHERE relnamespace = '_wh'::regnamespace AND relkind = 'v' ORDER BY 1});
sql($node, "CREATE VIEW $_ AS SELECT * FROM " . s/^public\.on_/_wh./r) foreach @views;
sql($node, q{SELECT _wh.pause_schedule(name) FROM _wh.schedules});
sql($node, q{ALTER SYSTEM SET wh_worker.enabled = off; SELECT pg_reload_conf()});
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))}, 'the queue is empty');
sql($node, q{SELECT _wh.enqueue_backfill('leaves', 'shop', '2025-03-07', '2025-03-08')});

my @questions = (
	(map { "SELECT * FROM public.$_" } 'events', 'leaves'),
	(map { qq{SELECT * FROM $_.events UNION ALL SELECT * FROM $_.leaves UNION ALL SELECT * FROM $_.isolated} } 'shop', q{"Odd ""shop's"}),
	'SELECT * FROM public.totals',
	q{SELECT relname, relkind, relfilenode FROM pg_class WHERE relname ~ '^(events|leaves|isolated)'});

# All the rows of our tables, of the columns that 0.9 had.
my %columns = map { split /\|/, $_, 2 } split /\n/, sql($node, q{SELECT c.oid::regclass, string_agg(quote_ident(attname), ', ' ORDER BY attnum)
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT attisdropped
	WHERE relnamespace = '_wh'::regnamespace AND relkind = 'r' GROUP BY c.oid});
cmp_ok(scalar keys %columns, '>=', 12, 'the tables of 0.9');
my %tables = map { $_ => "SELECT $columns{$_} FROM $_" } keys %columns;

sub contents
{
	return { map { $_ => checksum($node, $tables{$_} // $_) } @_ };
}

my ($data, $rows) = (contents(@questions), contents(keys %tables));

# ---- the update --------------------------------------------------------

# What people have put into our schema is not ours.
my $strangers = q{SELECT string_agg(concat_ws(' ', what, pg_get_userbyid(owner), acl), E'\n' ORDER BY what) FROM
	(SELECT relname, relowner, relacl FROM pg_class WHERE relnamespace = '_wh'::regnamespace AND relname ~ '^by_hand'
	UNION ALL SELECT proname, proowner, proacl FROM pg_proc WHERE pronamespace = '_wh'::regnamespace AND proname ~ '^by_hand') AS s(what, owner, acl)};
sql($node, q{CREATE TABLE _wh.by_hand_table (a integer); GRANT SELECT ON _wh.by_hand_table TO PUBLIC; CREATE VIEW _wh.by_hand_view AS SELECT 1 AS a;
	CREATE AGGREGATE _wh.by_hand_sum(integer) (sfunc = int4pl, stype = integer); CREATE PROCEDURE _wh.by_hand_procedure() LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';
	CREATE FUNCTION _wh.by_hand_function() RETURNS integer LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'});
my $by_hand = sql($node, $strangers);
is(scalar(() = $by_hand =~ /^by_hand/mg), 5, 'there are such things');

pretend_to_be('0.9');
my ($status, $out, $err) = $node->psql('postgres', 'SET ROLE whadmin; ALTER EXTENSION wh_worker UPDATE');
like($err, qr/must be owner of extension wh_worker/, 'the admin role cannot update');
sql($node, 'ALTER EXTENSION wh_worker UPDATE');
is(sql($node, q{SELECT extversion FROM pg_extension WHERE extname = 'wh_worker'}), $version, 'it is updated');
is_deeply(contents(@questions), $data, 'no day has changed, nor its file');
is_deeply(contents(keys %tables), $rows, 'nor any row of ours');
is(sql($node, $strangers), $by_hand, 'nor what is not ours');
is(sql($node, q{SELECT count(*) FROM pg_init_privs p WHERE p.objoid IN (SELECT oid FROM pg_class WHERE relname ~ '^by_hand' UNION ALL SELECT oid FROM pg_proc WHERE proname ~ '^by_hand')}),
	'0', 'whose rights are dumped as before');

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION wh_worker');
my ($updated, $fresh) = map { extension_catalog($node, $_) } 'postgres', 'fresh';

# what was granted to people, and not by the script
s/\n(?:op|one_shop) from [^\n]*//g foreach values %$updated;
my @differences = catalog_differences('updated', $updated, 'new', $fresh);
is(scalar @differences, 0, 'the catalogs are those of a new one') or diag(join "\n\n", @differences);

# And it would have been noticed.
$node->safe_psql('fresh', q{COMMENT ON COLUMN _wh.job_status.state IS 'other';
	GRANT SELECT ON _wh.jobs TO phood_ro;
	ALTER FUNCTION _wh.pause() VOLATILE COST 7;
	ALTER TABLE _wh.jobs ALTER attempt SET DEFAULT 7, ADD CONSTRAINT other CHECK (attempt >= 0);
	CREATE INDEX other ON _wh.jobs (attempt);
	ALTER TABLE _wh.schedules DISABLE TRIGGER note_restore;
	ALTER VIEW _wh.job_status OWNER TO phood_ro;
	ALTER EXTENSION wh_worker DROP FUNCTION _wh.current_date_utc();
	UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'wh_worker'});
my $attempt = sql($node, q{SELECT count(*) FROM pg_attribute WHERE attrelid = '_wh.jobs'::regclass AND NOT attisdropped
	AND attnum BETWEEN 1 AND (SELECT attnum FROM pg_attribute WHERE attrelid = '_wh.jobs'::regclass AND attname = 'attempt')});
is_deeply([ map { /^(.*)/ } catalog_differences('updated', $updated, 'new', extension_catalog($node, 'fresh')) ],
	[ 'comment on column state of view _wh.job_status', 'comment on function _wh.current_date_utc()', 'dumped rows of _wh.tenant_connections',
		'function _wh.current_date_utc()', 'function _wh.pause()', 'member function _wh.current_date_utc()',
		'relation _wh.job_status', 'relation _wh.jobs', "relation _wh.jobs column $attempt", 'relation _wh.jobs constraint other',
		'relation _wh.jobs index other', 'relation _wh.schedules trigger note_restore' ], 'whatever differs is noticed');

# ---- and goes on -------------------------------------------------------

sql($node, q{ALTER SYSTEM RESET wh_worker.enabled; SELECT pg_reload_conf()});
wait_until($node, q{SELECT state = 'succeeded' FROM _wh.backfills ORDER BY backfill_id DESC LIMIT 1}, 'what was queued is loaded');
same_content($node, q{SELECT id, at, kind, amount, payload FROM shop.leaves}, $tenant, events_query('2025-02-01', '2025-03-08'), 'completely');
is((enqueue_and_wait($node, "'events', NULL, '2025-03-01', '2025-03-08', mode => 'all'"))[1], 'succeeded', 'days are loaded again');
same_content($node, q{SELECT id, at, kind, amount, payload FROM shop.events}, $tenant, events_query('2025-02-01', '2025-03-08'), 'with all rows');
is(sql($node, q{SET SESSION AUTHORIZATION op; SELECT _wh.enqueue_backfill('events', 'shop', '2025-03-01', '2025-03-01', mode => 'all') > 0}), 't', 'operators are operators');
is(sql($node, q{SET SESSION AUTHORIZATION one_shop; SELECT count(*) FROM public.isolated_isolated}), '300', 'who reads one tenant does');
sql($node, "SELECT count(*) FROM $_") foreach @views;
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))}, 'all jobs are done');
is(sql($node, q{SELECT count(*) FROM _wh.jobs WHERE state <> 'succeeded'}), '0', 'well');

done_testing();
