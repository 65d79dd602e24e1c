# A template moves from one layout to the other and back: every relation with
# all of its rows, under readers, through crashes, and without a tenant.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my ($first, $last) = ('2024-12-28', '2025-02-05');
my $days = 40;
my %database = (shop_1 => 'shop_1', 'Shop "3"' => 'shop_3', "o'shop x" => 'shop_4');
my @shops = sort keys %database;
my $production = new_tenant('production');
my $node = new_warehouse(conf => { 'wh_worker.max_workers' => 3 });

# ---- the fixture -------------------------------------------------------

my $source = q{FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1};
my $unique = 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)';

add_events_template($node, 'events');
add_events_template($node, 'by "day"', query => "SELECT id, at::date AS day, kind $source",
	columns => 'id integer, day date, kind varchar(20)', indexes => 'CREATE INDEX "i {view_name}" ON {schema}.{view_name} (day)');
add_events_template($node, 'zoned', query => "SELECT id, at AT TIME ZONE 'UTC' AS seen $source",
	columns => 'id integer, seen timestamptz', indexes => $unique);
add_events_template($node, 'outside',
	query => "SELECT id, CASE WHEN id % 5 = 0 AND '{TARGET_DATE}' = '2025-02-03' THEN at + interval '1 day' ELSE at END AS at $source",
	columns => 'id integer, at timestamp', indexes => $unique);
my @templates = ('events', 'by "day"', 'zoned', 'outside');
my %column = (events => 'at', 'by "day"' => 'day', zoned => 'seen', outside => 'at');

foreach my $template (@templates)
{
	sql($node, "UPDATE _wh.mv_templates SET date_column = '$column{$template}' WHERE template_name = '$template'");
}
sql($node, "UPDATE _wh.mv_templates SET suspect_factor = 2 WHERE template_name = 'events'");
foreach my $shop (@shops)
{
	$production->safe_psql('postgres', "CREATE DATABASE $database{$shop}");
	create_events($production, $first, $days, 10, database => $database{$shop}, seed => length $shop,
		width => $shop eq 'shop_1' ? 9000 : 20);
	$production->safe_psql($database{$shop}, "DELETE FROM events WHERE at::date = '2025-01-10' OR (at::date = '2025-02-02' AND '$database{$shop}' = 'shop_1')");
	add_tenant($node, $shop, $production, database => $database{$shop}, templates => [@templates], start_date => $first);
}

sub load
{
	my ($template, $from, $to, $mode) = @_;
	my ($id, $state) = enqueue_and_wait($node, "'$template', NULL, '$from', '$to', NULL, '" . ($mode // 'missing') . "'");

	return $state;
}

sub quoted
{
	return join '.', map { '"' . ($_ =~ s/"/""/gr) . '"' } @_;
}

sub text
{
	my ($text) = @_;

	return "'" . ($text =~ s/'/''/gr) . "'";
}

sub combine
{
	my ($template, $shop, $year, $month) = @_;
	my $period = $month ? "month" : "year";

	return sql($node, "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_$period("
		  . join(', ', text($template), text($shop), text($shop), $year, $month ? ($month) : (), 'true') . ") AS j");
}

is(load($_, $first, $last), 'succeeded', "$_ is loaded") foreach @templates;

# A day of another shape, and a suspect one.
sql($node, q{UPDATE _wh.mv_templates SET column_definitions = 'id BIGINT, at TIMESTAMP, kind TEXT, amount NUMERIC, payload TEXT, note TEXT',
	query_template = replace(query_template, 'payload', 'payload, kind') WHERE template_name = 'events'});
is(load('events', '2025-01-30', '2025-02-03', 'all'), 'succeeded', 'days of a new shape');
$production->safe_psql($database{shop_1}, "DELETE FROM events WHERE at::date = '2025-02-04' AND id % 10 > 2");
is(load('events', '2025-02-04', '2025-02-04', 'all'), 'succeeded', 'a suspect day');
is(sql($node, "SELECT count(*) FROM _wh.day_loads WHERE state = 'suspect' AND target_date = '2025-02-04' AND template_name = 'events'"), 1, 'is suspect');

# Months and years among the days.
foreach my $template ('events', 'by "day"', 'zoned')
{
	is(combine($template, 'shop_1', 2024), 'combined', "a year of $template");
	is(combine($template, $_, 2025, 1), 'combined', "a month of $template") foreach 'shop_1', "o'shop x";
}
sql($node, 'CREATE VIEW public.mine AS SELECT kind, count(*) FROM public.events GROUP BY 1');
sql($node, 'CREATE ROLE somebody; GRANT SELECT ON shop_1.events_2025_02_01 TO somebody; GRANT SELECT (id) ON shop_1.events_2025_01 TO somebody');

# ---- what has to hold --------------------------------------------------

sub contents
{
	my ($template) = @_;

	return join "\n", map { checksum($node, 'SELECT * FROM ' . quoted($_, $template)) } 'public', @shops;
}

# Relations of our schemas and trees that no row of the ledger knows, and the other way round.
sub relations_are_right
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(sql($node, q{SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN (SELECT target_schema FROM _wh.tenant_templates) AND c.relkind IN ('r', 'm')
			AND NOT EXISTS (SELECT FROM _wh.day_loads d WHERE d.relation_oid = c.oid AND d.relation = c.relname AND d.target_schema = n.nspname)}),
		'', "$name: no relation is left behind");
	is(sql($node, q{SELECT string_agg(DISTINCT d.relation, ' ') FROM _wh.day_loads d LEFT JOIN pg_class c ON c.oid = d.relation_oid
		WHERE c.oid IS NULL OR c.relname <> d.relation OR c.relfilenode <> d.relation_file OR NOT d.in_views OR NOT d.counted}),
		'', "$name: the ledger knows them all");
	return is(sql($node, q{SELECT string_agg(s.target_schema, ' ') FROM _wh.tenant_templates s CROSS JOIN LATERAL (
			SELECT count(*) AS days, sum(rows) AS rows, sum(bytes) AS bytes FROM _wh.day_loads d WHERE (d.template_name, d.target_schema) = (s.template_name, s.target_schema)) c
		WHERE (s.days, s.rows, s.bytes) IS DISTINCT FROM (c.days, c.rows, c.bytes)}), '', "$name: counters are right");
}

sub members
{
	my ($view) = @_;

	return sql($node, "SELECT string_agg(DISTINCT d.refobjid::regclass::text, ' ') FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
		. " AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class WHERE r.ev_class = '$view'::regclass");
}

sub misplaced
{
	my ($template) = @_;

	return "SELECT count(DISTINCT c.oid) FROM _wh.day_loads d JOIN pg_class c ON c.oid = d.relation_oid JOIN _wh.mv_templates t USING (template_name)"
	  . " WHERE template_name = '$template' AND c.relispartition <> (t.layout = 'partitions')";
}

sub pending
{
	my ($template) = @_;

	return "SELECT count(*) FROM _wh.jobs WHERE template_name = '$template' AND kind IN ('convert', 'publish') AND state IN ('queued', 'running')";
}

sub ends
{
	my ($template, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return wait_until($node, "SELECT (" . pending($template) . ") = 0", $name);
}

sub convert
{
	my ($template, $layout) = @_;

	return sql($node, "SELECT _wh.convert_layout('$template', '$layout')");
}

# Sessions that ask both views in a loop, and fail at the first wrong answer.
my @readers;

sub start_readers
{
	foreach my $view ('public.events', 'shop_1.events', '"Shop ""3""".events', '"o\'shop x".events')
	{
		my $asked = "SELECT count(*) AS n, sum(hashtextextended(t::text, 0)) AS s FROM $view t";
		my ($n, $s) = split /\|/, sql($node, $asked);
		my $file = PostgreSQL::Test::Utils::tempdir() . '/reader.sql';
		my %reader = (out => '', err => '');

		append_to_file($file, "SELECT 1 / (n = $n AND s = $s)::integer FROM ($asked) a;\n");
		$reader{handle} = IPC::Run::start(
			[ 'pgbench', '-n', '-T', 600, '-c', 1, '-f', $file, '-h', $node->host, '-p', $node->port, 'postgres' ],
			'<', \undef, '>', \$reader{out}, '2>', \$reader{err});
		push @readers, \%reader;
	}
}

sub readers_were_right
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $running = 0;
	my $errors = '';

	foreach my $reader (@readers)
	{
		$reader->{handle}->pump_nb;
		$running++ if $reader->{handle}->pumpable;
		$reader->{handle}->kill_kill;
		$errors .= $reader->{err} =~ s/^.*(?:pgbench \(|terminat).*$//mgr;
	}
	@readers = ();
	unlike($errors, qr/error|ERROR|abort/, "$name: no reader had a wrong answer");
	return is($running, 4, "$name: readers ran to the end");
}

my %before = map { $_ => contents($_) } @templates;
my $columns = "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'public.events'::regclass AND attnum > 0";
my $columns_before = sql($node, $columns);
my $ledger = q{SELECT md5(string_agg(concat_ws(' ', template_name, target_schema, target_date, relation, state, rows, loaded_at, fetch_started_at, template_version, last_error), '|'
	ORDER BY template_name, target_schema, target_date)) FROM _wh.day_loads};
my $ledger_before = sql($node, $ledger);

relations_are_right('before');

# ---- refusals ----------------------------------------------------------

fails_with($node, q{SELECT _wh.convert_layout('nothing', 'partitions')}, '42704', qr/template "nothing" does not exist/, 'no such template');
fails_with($node, q{SELECT _wh.convert_layout('events', 'columns')}, '22023', qr/"columns" is no layout/, 'no such layout');
fails_with($node, q{SELECT _wh.convert_layout(NULL, 'partitions')}, '22004', qr/template_name must not be null/, 'no template');
add_events_template($node, 'undated');
fails_with($node, q{SELECT _wh.convert_layout('undated', 'partitions')}, '22023', qr/needs a date_column/, 'no date column');
fails_with($node, q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT _wh.convert_layout('events', 'partitions')}, '55000', qr/READ COMMITTED/, 'another isolation level');
fails_with($node, q{SET ROLE phood_ro; SELECT _wh.convert_layout('events', 'partitions')}, '42501', qr/permission denied/, 'not for readers');
is(convert('events', 'matviews'), 0, 'all are there already');
ends('events', 'nothing is left to do');

# ---- into the tree, without a tenant -----------------------------------

$production->stop;
sql($node, 'SELECT _wh.pause()');
is(convert('events', 'partitions'), 3 * 40 - 2 * 30 - 3, 'every relation is to be moved');
is(convert('events', 'partitions'), 3 * 40 - 2 * 30 - 3, 'asked twice');
is(sql($node, "SELECT count(*) || ' ' || string_agg(DISTINCT state || ', ' || wait_reason || ', ' || reason, ' ') FROM _wh.job_status WHERE kind = 'convert'"),
	'57 queued, the warehouse is paused, layout partitions', 'each has one job, which waits');
is(sql($node, "SELECT tenant_name || ' ' || target_schema || ' ' || target_date FROM _wh.job_status WHERE kind = 'convert' ORDER BY job_id LIMIT 1"),
	"Shop \"3\" Shop \"3\" 2025-02-05", 'that names it, the newest first');
sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = '00:00-24:00', active = false");
start_readers();
sql($node, 'SELECT _wh.resume()');
ends('events', 'they are moved while no tenant is there');
is(sql($node, misplaced('events')), 0, 'all of them');
readers_were_right('into the tree');
is(contents('events'), $before{events}, 'same content');
is(sql($node, $ledger), $ledger_before, 'the ledger has them as they were loaded');
is(sql($node, $columns), $columns_before, 'same columns');
is(members('public.events'), '_wh."events tree"', 'the public view reads the root');
is(members('shop_1.events'), '_wh."events tree shop_1"', 'a tenant view its part');
is(sql($node, "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'shop_1.events_2025_01'::regclass"),
	"FOR VALUES FROM ('2025-01-01 00:00:00') TO ('2025-02-01 00:00:00')", 'a month has the bounds of its month');
is(sql($node, "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'shop_1.events_2024'::regclass"),
	"FOR VALUES FROM ('2024-01-01 00:00:00') TO ('2025-01-01 00:00:00')", 'a year those of its year');
is(sql($node, "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'shop_1.events_2025_01'::regclass AND attnum > 0"),
	'id at kind amount payload note schema_name', 'and the columns of a leaf');
is(sql($node, "SELECT string_agg(indexrelid::regclass::text, ' ') FROM pg_index WHERE indrelid = 'shop_1.events_2025_01'::regclass"),
	'shop_1.idx_shop_1_events_2025_01_id', 'and the index');
is(sql($node, "SELECT has_table_privilege('somebody', 'shop_1.events_2025_02_01', 'SELECT') AND has_column_privilege('somebody', 'shop_1.events_2025_01', 'id', 'SELECT') AND has_table_privilege('phood_ro', 'shop_1.events_2025_02_03', 'SELECT')"),
	't', 'grants are kept');
is(sql($node, 'SELECT sum(count) FROM public.mine'), sql($node, 'SELECT count(*) FROM public.events'), 'a view of a user still works');
is(sql($node, "SELECT count(*) FROM _wh.job_run_details WHERE command LIKE 'convert events 20%' AND status = 'succeeded' AND return_message LIKE '% rows moved to layout partitions'"), 57, 'history says so');
is(sql($node, "SELECT bool_and(has_table_privilege('phood_ro', relation_oid, 'SELECT')) FROM _wh.day_loads WHERE template_name = 'events'"), 't', 'readers may read them');
relations_are_right('in the tree');
foreach my $template ('by "day"', 'zoned')
{
	cmp_ok(convert($template, 'partitions'), '>', 0, "$template is moved");
	ends($template, 'all of it');
	is(sql($node, misplaced($template)), 0, 'all of it');
	is(contents($template), $before{$template}, 'same content');
}
like(members('public.zoned'), qr/^_wh\."zoned tree"$/, 'the public view reads the root');
relations_are_right('three templates in trees');

# ---- rows outside of their day -----------------------------------------

convert('outside', 'partitions');
ends('outside', 'a template with a day that cannot be moved');
is(sql($node, "SELECT string_agg(DISTINCT target_date || ' ' || last_sqlstate || ' ' || attempt, ',') || ' ' || count(*) FROM _wh.jobs WHERE template_name = 'outside' AND kind = 'convert' AND state <> 'succeeded'"),
	'2025-02-03 23514 1 3', 'that day failed, without another try, at each tenant');
like(sql($node, "SELECT last_error FROM _wh.job_status WHERE template_name = 'outside' AND state = 'failed' LIMIT 1"),
	qr/2 rows of template "outside" for 2025-02-03 are outside of their day: In column "at" one has 2025-02-04/, 'by name');
is(sql($node, misplaced('outside')), 3, 'all others were moved');
is(contents('outside'), $before{outside}, 'the content is as it was');
like(members('shop_1.outside'), qr/^_wh\."outside tree shop_1" shop_1\.outside_2025_02_03$/, 'a view reads part and day');
like(members('public.outside'), qr/shop_1\.outside/, 'and the public view the tenant views');
is(convert('outside', 'partitions'), 3, 'asked again they are queued again');
ends('outside', 'and fail again');
is(convert('outside', 'matviews'), 3 * 40 - 3, 'back again');
ends('outside', 'they are moved');
is(sql($node, misplaced('outside')), 0, 'all of them');
is(contents('outside'), $before{outside}, 'same content');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'outside tree%'"), 0, 'the tree is gone');
relations_are_right('back again');

# ---- back, through crashes ---------------------------------------------

# The job that is at this tenant waits for a reader, until all is lost.
sub hold_and_stop
{
	my ($layout, $how) = @_;
	my $holder = $node->background_psql('postgres', on_error_stop => 0);

	$holder->query_safe('BEGIN; SELECT count(*) FROM shop_1.events');
	convert('events', $layout);
	wait_until($node, "SELECT count(*) > 0 FROM _wh.worker_status WHERE kind = 'convert' AND state = 'waiting_lock' AND tenant_name = 'shop_1' AND template_name = 'events' AND target_date IS NOT NULL AND blocked_by IS NOT NULL",
		"$how: a job waits for a reader");
	wait_until($node, "SELECT count(*) > 3 FROM _wh.jobs WHERE kind = 'convert' AND template_name = 'events' AND state = 'succeeded' AND finished_at > (SELECT updated_at FROM _wh.mv_templates WHERE template_name = 'events')",
		"$how: others are done");
	return $holder;
}
my $holder = hold_and_stop('matviews', 'immediate stop');
is(contents('events'), $before{events}, 'half of it: same content');
unlike(members('public.events'), qr/tree/, 'the public view reads the tenant views');
$node->stop('immediate');
eval { $holder->quit };
$node->start;
is(contents('events'), $before{events}, 'after an immediate stop: same content');
ends('events', 'it goes on by itself');
is(sql($node, misplaced('events')), 0, 'to the end');
is(contents('events'), $before{events}, 'same content');
is(sql($node, $ledger), $ledger_before, 'the ledger has them as they were loaded');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'events tree%'"), 0, 'the tree is gone');
is(sql($node, "SELECT string_agg(DISTINCT c.relkind::text, ' ' ORDER BY c.relkind::text) FROM _wh.day_loads d JOIN pg_class c ON c.oid = d.relation_oid WHERE template_name = 'events' AND d.state <> 'combined'"), 'm', 'days are materialized views');
is(sql($node, 'SELECT bool_and(_wh_date = at::date), count(*) FROM shop_1.events_2025_01'), 't|300', 'a month has its dates');
relations_are_right('after a stop');

$holder = hold_and_stop('partitions', 'kill');
my $killed = worker_pid($node, "kind = 'convert'") || die 'no worker converts';
kill 'KILL', $killed;
$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $killed") or die 'the server is not back';
eval { $holder->quit };
is(contents('events'), $before{events}, 'after kill -9: same content');
ends('events', 'it goes on by itself');
is(sql($node, misplaced('events')), 0, 'to the end');
is(contents('events'), $before{events}, 'same content');
relations_are_right('after a kill');

# ---- back under readers, with loads meanwhile --------------------------

$production->start;
sql($node, "UPDATE _wh.tenant_connections SET quiet_hours = NULL, active = true");
start_readers();
convert('events', 'matviews');
is(load('events', '2025-02-01', '2025-02-04', 'all'), 'succeeded', 'days are loaded meanwhile');
ends('events', 'and all is moved');
is(sql($node, misplaced('events')), 0, 'all of it');
readers_were_right('out of the tree');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'events tree%'"), 0, 'the tree is gone');
is(contents('events'), $before{events}, 'same content');
relations_are_right('loads meanwhile');

convert('events', 'partitions');
$production->safe_psql($_, "INSERT INTO events SELECT 90000 + n, timestamp '2025-02-06 10:00' + n * interval '1 second', 'k', 1, 'p' FROM generate_series(1, 5) AS n") foreach values %database;
is(load('events', '2025-02-06', '2025-02-06', 'missing'), 'succeeded', 'a new day arrives meanwhile');
ends('events', 'and all is moved');
is(sql($node, misplaced('events')), 0, 'all of it');
is(sql($node, "SELECT count(*), count(DISTINCT schema_name) FROM public.events WHERE at >= '2025-02-06'"), '15|3', 'the new day is there');
is(members('public.events'), '_wh."events tree"', 'the public view reads the root');
relations_are_right('a new day meanwhile');
$before{events} = contents('events');

# ---- turning round -----------------------------------------------------

$holder = hold_and_stop('matviews', 'turning round');
my $moved = sql($node, misplaced('events'));
cmp_ok($moved, '>', 0, 'turned round with some still to be moved');
$holder->query_safe('ROLLBACK');
convert('events', 'partitions');
cmp_ok(sql($node, "SELECT count(*) FROM _wh.jobs WHERE kind = 'convert' AND state = 'cancelled' AND last_error = 'the layout was changed again'"), '>', 0, 'what was queued is cancelled');
ends('events', 'all is where it was');
is(sql($node, misplaced('events')), 0, 'all of it');
is(contents('events'), $before{events}, 'same content');
is(members('public.events'), '_wh."events tree"', 'the public view reads the root');
relations_are_right('turned round');
$holder->quit;

# ---- what depends on a relation, wrong counts --------------------------

sql($node, 'CREATE VIEW public.on_a_day AS SELECT * FROM shop_1.events_2025_02_01');
sql($node, "DELETE FROM shop_1.events_2025_02_03 WHERE id = (SELECT min(id) FROM shop_1.events_2025_02_03)");
convert('events', 'matviews');
ends('events', 'a view of a user is on a day');
is(sql($node, "SELECT string_agg(target_date || ' ' || last_sqlstate, ', ' ORDER BY target_date) FROM _wh.jobs WHERE kind = 'convert' AND state = 'failed' AND template_name = 'events'"),
	'2025-02-01 2BP01, 2025-02-03 55000', 'it is refused, and so is one that has not the rows of the ledger');
is(sql($node, misplaced('events')), 2, 'all others are moved');
like(members('shop_1.events'), qr/tree shop_1/, 'the view reads its part');
unlike(members('"Shop ""3""".events'), qr/tree/, 'another one does not');
is(sql($node, "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname LIKE 'events tree%'"), 'events tree events tree shop_1', 'what is empty of the tree is gone');
sql($node, 'DROP VIEW public.on_a_day');
is(load('events', '2025-02-03', '2025-02-03', 'all'), 'succeeded', 'it is loaded again');
is(convert('events', 'matviews'), 1, 'the other is left');
ends('events', 'and moved');
is(sql($node, misplaced('events')), 0, 'all of it');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'events tree%'"), 0, 'the tree is gone');
is(contents('events'), $before{events}, 'same content');
relations_are_right('in the end');

# ---- the layout changed by hand ----------------------------------------

sql($node, "UPDATE _wh.mv_templates SET layout = 'matviews' WHERE template_name = 'zoned'");
unlike(members('public.zoned'), qr/tree/, 'the public view reads tenant views as soon as the layout is another one');
is(contents('zoned'), $before{zoned}, 'same content');
is(load('zoned', '2025-02-05', '2025-02-05', 'all'), 'succeeded', 'a day that is loaded again is moved by that');
is(sql($node, "SELECT string_agg(DISTINCT relkind::text, '') FROM pg_class WHERE relname = 'zoned_2025_02_05'"), 'm', 'and a materialized view');
is(contents('zoned'), $before{zoned}, 'same content');
sql($node, "SELECT _wh.remove_tenant('shop_1', true)");
is(sql($node, 'SELECT count(*) FROM public.zoned'), 2 * 390, 'a tenant goes from a mixed template');
convert('zoned', 'matviews');
ends('zoned', 'the rest is moved');
is(sql($node, "SELECT count(*) FROM pg_class WHERE relname LIKE 'zoned tree%'"), 0, 'and the tree gone');
relations_are_right('by hand');

# ---- a month: rows of another day of it, and its tablespace

my $month = quoted("o'shop x", 'zoned_2025_01');
$before{zoned} = checksum($node, 'SELECT * FROM public.zoned');
sql($node, q{SET allow_in_place_tablespaces = on; CREATE TABLESPACE slow LOCATION ''});
sql($node, "GRANT CREATE ON TABLESPACE slow TO whadmin; ALTER TABLE $month SET TABLESPACE slow");
sql($node, "UPDATE $month SET seen = seen + interval '1 day' WHERE id = 61");
convert('zoned', 'partitions');
ends('zoned', 'a month with a row of another day');
like(sql($node, "SELECT last_sqlstate || ' ' || last_error FROM _wh.job_status WHERE template_name = 'zoned' AND kind = 'convert' AND state = 'failed'"),
	qr/23514 1 row of table "o'shop x.zoned_2025_01" is outside of its day: In column "seen" one has 2025-01-04/, 'is refused by name');
is(sql($node, misplaced('zoned')), 1, 'all others are moved');
sql($node, "UPDATE $month SET seen = seen - interval '1 day' WHERE id = 61");
is(convert('zoned', 'partitions'), 1, 'put right, it is left');
ends('zoned', 'and moved');
is(checksum($node, 'SELECT * FROM public.zoned'), $before{zoned}, 'same content');
is(sql($node, "SELECT string_agg(spcname, ' ') FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace WHERE c.oid IN ('$month'::regclass, (SELECT indexrelid FROM pg_index WHERE indrelid = '$month'::regclass))" =~ s/o'shop/o''shop/gr),
	'slow slow', 'in the tablespace it was in');

done_testing();
