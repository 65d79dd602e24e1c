# Templates that change while days are loaded: what the views show at once,
# what is loaded again, and what of a user's is kept or stands in the way.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my ($first, $last) = ('2025-07-01', '2025-07-04');
my $production = new_tenant('production');
my $node = new_warehouse();
my $index = 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)';

add_events_template($node, 'events');
foreach my $i (1 .. 2)
{
	$production->safe_psql('postgres', "CREATE DATABASE shop_$i");
	create_events($production, $first, 6, 10 * $i, database => "shop_$i", seed => $i);
	add_tenant($node, "shop_$i", $production, database => "shop_$i",
		templates => ['events'], start_date => $first);
}

sub load
{
	my ($mode, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($id, $state) = enqueue_and_wait($node, "'events', NULL, '$first', '$last', mode => '$mode'");

	is($state, 'succeeded', $name);
	return sql($node, "SELECT count(*) FROM _wh.jobs WHERE kind = 'refresh' AND backfill_id = $id");
}

sub change
{
	my ($columns, $list, $more) = @_;

	sql($node, "UPDATE _wh.mv_templates SET column_definitions = '$columns', query_template = \$\$"
		  . "SELECT $list FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1\$\$"
		  . ($more // '') . " WHERE template_name = 'events'");
}

sub columns_of
{
	my ($relation) = @_;

	return sql($node, "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)"
		  . " FROM pg_attribute WHERE attrelid = '$relation'::regclass AND attnum > 0 AND NOT attisdropped");
}

# Both views against the source, with the list as old days have to show it.
sub views_show
{
	my ($list, $old_list, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	foreach my $i (1 .. 2)
	{
		my $source = "SELECT $old_list FROM events WHERE at >= '$first' AND at < date '$last' + 1";

		same_content($node, "SELECT * FROM shop_$i.events", $production, $source, "$name: tenant view of shop_$i", "shop_$i");
		same_content($node, "SELECT $list FROM public.events WHERE schema_name = 'shop_$i'",
			$production, $source, "$name: public view of shop_$i", "shop_$i");
	}
}

sub outdated
{
	return sql($node, "SELECT string_agg(outdated_days::text, ' ' ORDER BY target_schema) FROM _wh.data_freshness");
}

load('missing', 'four days of two tenants are loaded');
is(outdated(), '0 0', 'no day is outdated');

# ---- readers all the while ---------------------------------------------

# Every SELECT has to find all rows: 40 of shop_1 and 80 of shop_2.
my $stop = PostgreSQL::Test::Utils::tempdir() . '/stop';
my $loop = q{
\set ON_ERROR_STOP on
DO $$ BEGIN
	IF (SELECT count(*) FROM public.events) <> 120 THEN RAISE 'a half of public.events'; END IF;
	IF (SELECT count(*) FROM shop_1.events) <> 40 THEN RAISE 'a half of shop_1.events'; END IF;
END $$;
};
my ($reads, $read_errors) = (0, '');
my @readers;
foreach my $n (1 .. 2)
{
	my $script = PostgreSQL::Test::Utils::tempdir() . "/reader_$n.sql";
	my $out = "$script.out";

	append_to_file($script, $loop);
	push @readers, { out => $out, harness => IPC::Run::start(
			[ 'sh', '-c', 'while ! test -e "$1"; do "$2" -X -q -f "$3" -d "$4" || echo failed; echo done; done > "$5" 2>&1',
				'sh', $stop, 'psql', $script, $node->connstr('postgres'), $out ]) };
}

# ---- every kind of change ----------------------------------------------

sql($node, q{
	CREATE ROLE analyst LOGIN;
	CREATE ROLE second LOGIN;
	GRANT SELECT ON public.events, shop_1.events TO analyst WITH GRANT OPTION;
	GRANT SELECT (id) ON public.events TO second;
	SET ROLE analyst;
	GRANT SELECT ON public.events TO second;
	RESET ROLE;
	COMMENT ON VIEW public.events IS 'all the shops';
	COMMENT ON COLUMN public.events.kind IS 'what it was';
	ALTER VIEW shop_1.events SET (security_barrier = on);
});
my $kept = q{SELECT string_agg(concat_ws(' ', c.oid::regclass, relowner::regrole, relacl, reloptions, obj_description(c.oid, 'pg_class'),
	(SELECT string_agg(concat_ws(' ', attname, attacl, col_description(c.oid, attnum)), ',' ORDER BY attname) FROM pg_attribute
	  WHERE attrelid = c.oid AND attname IN ('id', 'kind'))), '; ' ORDER BY c.oid::regclass::text)
	FROM pg_class c WHERE relkind = 'v' AND relname IN ('events', 'kinds', 'more_kinds')};
my $kept_before = sql($node, $kept);

change('id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT, doubled NUMERIC',
	'id, at, kind, amount, payload, amount * 2');
views_show('id, at, kind, amount, payload, doubled', 'id, at, kind, amount, payload, NULL', 'a column added');
is(outdated(), '4 4', 'all days are outdated');
is(sql($node, $kept), $kept_before, 'owner, privileges, options and comments are kept');
is( sql($node, "SELECT count(*) FROM _wh.plan_backfill('events', NULL, '$first', '$last', mode => 'outdated')"),
	8, 'plan_backfill finds them');
sql($node, "SELECT _wh.update_mv_by_template('events', 'shop_1', 'shop_1', '$first', false)");
is(outdated(), '3 4', 'a day loaded again is not outdated');
is(columns_of("shop_1.events_2025_07_01"),
	'id integer, at timestamp without time zone, kind text, amount numeric, payload text, doubled numeric',
	'and has the new shape');
is( sql($node, "SELECT string_agg(indexname, ' ') FROM pg_indexes WHERE schemaname = 'shop_1' AND tablename = 'events_2025_07_01'"),
	'idx_shop_1_events_2025_07_01_id', 'and its index under its name');
is( sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE '%wh\\_new%'"),
	0, 'nothing has the temporary name');
is( sql($node, "SELECT count(doubled) || ' of ' || count(*) FROM shop_1.events"),
	'10 of 40', 'its column is filled, that of the others is NULL');
is(load('outdated', 'a backfill of the outdated days'), 7, 'loads just those');
is(outdated(), '0 0', 'none is outdated any more');
views_show('id, at, kind, amount, payload, doubled', 'id, at, kind, amount, payload, amount * 2', 'added and loaded again');

change('id INTEGER, at TIMESTAMP, kind TEXT, amount NUMERIC, doubled NUMERIC', 'id, at, kind, amount, amount * 2');
views_show('id, at, kind, amount, doubled', 'id, at, kind, amount, amount * 2', 'a column dropped');
is(sql($node, $kept), $kept_before, 'everything is kept by a view made anew');

change('kind TEXT, id INTEGER, amount NUMERIC, doubled NUMERIC, at TIMESTAMP', 'kind, id, amount, amount * 2, at');
views_show('kind, id, amount, doubled, at', 'kind, id, amount, amount * 2, at', 'columns reordered');

change('kind TEXT, id INTEGER, amount NUMERIC, twice NUMERIC, at TIMESTAMP', 'kind, id, amount, amount * 2, at');
views_show('kind, id, amount, twice, at', 'kind, id, amount, NULL, at', 'a column renamed');

change('kind VARCHAR(20), id BIGINT, amount FLOAT8, twice NUMERIC, at TIMESTAMPTZ', 'kind, id, amount, amount * 2, at');
is(columns_of('public.events'),
	'kind character varying(20), id bigint, amount double precision, twice numeric, at timestamp with time zone, schema_name text',
	'columns retyped in the public view');
views_show('kind, id, amount, twice, at', 'kind, id, amount::float8, NULL, at::timestamptz', 'columns retyped');
is(load('outdated', 'a backfill after four more changes'), 8, 'loads every day');
views_show('kind, id, amount, twice, at', 'kind, id, amount::float8, amount * 2, at::timestamptz', 'loaded again');
is(outdated(), '0 0', 'again none is outdated');

# ---- what cannot be read is refused ------------------------------------

my $before = columns_of('public.events') . checksum($node, 'SELECT * FROM public.events');
fails_with($node, q{UPDATE _wh.mv_templates SET column_definitions = 'kind VARCHAR(20), id DATE, amount FLOAT8, twice NUMERIC, at TIMESTAMPTZ'},
	'42846', qr/column "id" of template "events" cannot change from bigint to date/, 'a type without a cast is refused');
fails_with($node, q{UPDATE _wh.mv_templates SET column_definitions = 'kind INTEGER, id BIGINT, amount FLOAT8, twice NUMERIC, at TIMESTAMPTZ'},
	'22P02', qr/"kind 1".*"shop_1\.events_2025_07_01" is not/s, 'a cast that a loaded value does not survive is refused');
fails_with($node, q{UPDATE _wh.mv_templates SET template_name = 'other'},
	'55000', qr/cannot be renamed while 8 days are loaded/, 'a rename is refused');
fails_with($node, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT; UPDATE _wh.mv_templates SET column_definitions = 'id BIGINT'},
	'55000', qr/READ COMMITTED/, 'a snapshot of before is refused');
is(columns_of('public.events') . checksum($node, 'SELECT * FROM public.events'),
	$before, 'and nothing has changed');
is(outdated(), '0 0', 'nor been counted');

# ---- indexes -----------------------------------------------------------

sql($node, qq{UPDATE _wh.mv_templates SET indexes = '$index; CREATE INDEX idx_{schema}_{view_name}_at ON {schema}.{view_name} (at)'});
my $old_oid = sql($node, "SELECT 'shop_1.events_2025_07_02'::regclass::oid");
sql($node, q{GRANT SELECT ON shop_1.events_2025_07_02 TO second; COMMENT ON MATERIALIZED VIEW shop_1.events_2025_07_02 IS 'that day'});
is(outdated(), '4 4', 'other indexes make days outdated');
is(load('outdated', 'the days are loaded with them'), 8, 'every one');
is( sql($node, "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'shop_1' AND tablename = 'events_2025_07_02'"),
	'idx_shop_1_events_2025_07_02_at idx_shop_1_events_2025_07_02_id', 'they have them');
is( sql($node, "SELECT has_table_privilege('second', oid, 'SELECT') AND oid <> $old_oid AND obj_description(oid, 'pg_class') = 'that day' FROM pg_class WHERE oid = 'shop_1.events_2025_07_02'::regclass"),
	't', 'and the grants and the comment that a day had');
my $oid = sql($node, "SELECT 'shop_1.events_2025_07_02'::regclass::oid");
load('all', 'the same days once more');
is(sql($node, "SELECT 'shop_1.events_2025_07_02'::regclass::oid"), $oid, 'are swapped, not replaced');

# ---- users' views on top -----------------------------------------------

sql($node, q{
	CREATE VIEW public.kinds WITH (security_barrier = on) AS SELECT kind AS the_kind, count(*) AS n FROM public.events GROUP BY kind;
	CREATE VIEW public.more_kinds AS SELECT k.the_kind, e.id FROM public.kinds k JOIN shop_1.events e ON e.kind = k.the_kind;
	GRANT SELECT ON public.more_kinds TO second;
	COMMENT ON VIEW public.kinds IS 'a count';
	ALTER VIEW public.kinds OWNER TO analyst;
	GRANT SELECT ON public.kinds TO second;
	GRANT CREATE ON SCHEMA public TO analyst;
	GRANT USAGE ON SCHEMA shop_1 TO analyst;
	ALTER VIEW public.more_kinds OWNER TO analyst;
});
my $content = checksum($node, 'SELECT * FROM public.more_kinds');
$kept_before = sql($node, $kept);
change('id BIGINT, kind TEXT, amount FLOAT8, at TIMESTAMPTZ', 'id, kind, amount, at');
is(checksum($node, 'SELECT * FROM public.more_kinds'), $content, 'a view on a view of a user survives');
is(sql($node, $kept), $kept_before, 'with owner, privileges, options and comments');

$before = columns_of('public.events') . sql($node, 'SELECT version FROM _wh.mv_templates');
fails_with($node, q{UPDATE _wh.mv_templates SET column_definitions = 'id BIGINT, amount FLOAT8, at TIMESTAMPTZ'},
	'2BP01', qr/because of view public\.(?:more_)?kinds.*column .*kind.* does not exist/s, 'a view that would break refuses the change');
fails_with($node, q{SET ROLE whadmin; UPDATE _wh.mv_templates SET column_definitions = 'kind TEXT, id BIGINT, amount FLOAT8, at TIMESTAMPTZ'},
	'2BP01', qr/because of view public\.(?:more_)?kinds.*role "whadmin" may not drop it/s, 'so does one that the writer may not drop');
foreach my $object (
	[ 'CREATE MATERIALIZED VIEW public.stored AS SELECT * FROM public.kinds', 'materialized view stored', 'DROP MATERIALIZED VIEW public.stored' ],
	[ 'CREATE FUNCTION public.f() RETURNS SETOF public.events LANGUAGE sql AS $$SELECT * FROM public.events$$', 'function f', 'DROP FUNCTION public.f()' ],
	[ 'CREATE RULE r AS ON INSERT TO public.kinds DO INSTEAD NOTHING', 'rule r on view', 'DROP RULE r ON public.kinds' ],
	[ 'CREATE FUNCTION public.t() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; CREATE TRIGGER t INSTEAD OF DELETE ON shop_1.events FOR EACH ROW EXECUTE FUNCTION public.t()', 'trigger t on view', 'DROP TRIGGER t ON shop_1.events' ])
{
	my ($create, $described, $drop) = @$object;
	my $pattern = $described =~ s/ (?=\S+$)/ (?:public\\.)?/r;

	sql($node, $create);
	fails_with($node, q{UPDATE _wh.mv_templates SET column_definitions = 'kind TEXT, id BIGINT, amount FLOAT8, at TIMESTAMPTZ'},
		'2BP01', qr/cannot change because of $pattern/, "what cannot be made again refuses it: $described");
	sql($node, $drop);
}
is(columns_of('public.events') . sql($node, 'SELECT version FROM _wh.mv_templates'), $before, 'and nothing has changed');

sql($node, 'CREATE VIEW public.of_a_day AS SELECT id FROM shop_1.events_2025_07_03');
fails_with($node, "SELECT _wh.update_mv_by_template('events', 'shop_1', 'shop_1', '2025-07-03', false)",
	'2BP01', qr/because view (?:public\.)?of_a_day depends on it/, 'a view on a day of the old shape keeps that day as it is');
sql($node, 'DROP VIEW public.of_a_day');
is(load('outdated', 'the last days are loaded again'), 8, 'every one');
is(outdated(), '0 0', 'and none is outdated');
is(checksum($node, 'SELECT * FROM public.more_kinds'), $content, 'the view on the view still has its rows');

append_to_file($stop, 'now');
foreach my $reader (@readers)
{
	$reader->{harness}->finish;
	my $lines = slurp_file($reader->{out});

	$reads += () = $lines =~ /^done$/mg;
	$read_errors .= join '', $lines =~ /^(?!done$).*\n/mg;
}
is($read_errors, '', 'no reader met an error or a half');
cmp_ok($reads, '>', 20, "in $reads reads");

# ---- a change meets a load ---------------------------------------------

# The load of a fifth day stands still at the tenant while the template changes.
my $gated = q{SELECT id, kind, amount, at FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1 AND pg_advisory_xact_lock_shared(7) IS NOT NULL};
sql($node, "UPDATE _wh.mv_templates SET query_template = \$\$$gated\$\$");
my $gate = $production->background_psql('shop_1');
$gate->query_safe('SELECT pg_advisory_lock(7)');
my $id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop_1', '2025-07-05', '2025-07-05')");
wait_until($node, "SELECT count(*) = 1 FROM _wh.worker_status WHERE state = 'fetching'", 'a load is under way');
change('kind TEXT, id BIGINT, at TIMESTAMPTZ, fresh TEXT', q{kind, id, at, 'fresh'});
$gate->quit;
is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', 'it goes on with the columns of before');
is( sql($node, "SELECT count(*) || ' ' || count(fresh) FROM shop_1.events WHERE at::date = '2025-07-05'"),
	'10 0', 'its day is in the view, which has the new columns');
is(outdated(), '5 4', 'and is outdated');

$node->stop;
$production->stop;
done_testing();
