# A combine, or a late day, that is killed at any of its steps has not happened,
# and happens when it is run again.  In the layout $ENV{WH_TEST_LAYOUT}, by default
# matviews; t/034_tree_crash.pl runs this for the other one.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
my $node = new_warehouse(conf => { autovacuum => 'off' });
my ($first, $last) = ('2024-01-29', '2024-03-03');
my $columns = 'id, at, kind, amount, payload';

add_events_template($node, 'events');
sql($node, sprintf(q(UPDATE _wh.mv_templates SET layout = '%s', date_column = 'at'), $ENV{WH_TEST_LAYOUT} // 'matviews'));
create_events($production, $first, 35, 40, width => 3000);
add_tenant($node, 'shop', $production, templates => ['events'], start_date => $first);

# Whoever gets to a point where this is called waits while somebody has lock 8.
sql($node, q{
	CREATE FUNCTION public.stop_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(8); END';
	CREATE FUNCTION public.stop_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock_shared(8); RETURN NULL; END';
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO PUBLIC});

sub content
{
	return checksum($node, "SELECT $columns FROM shop.events");
}

sub source_content
{
	return checksum($production, "SELECT $columns FROM events");
}

sub relations
{
	return sql($node, "SELECT string_agg(relname || '=' || oid, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'shop'::regnamespace");
}

sub ledger
{
	return sql($node, "SELECT md5(string_agg((target_date, state, relation, relation_oid, rows)::text, ' ' ORDER BY target_date)) FROM _wh.day_loads");
}

sub is_sound
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	is(sql($node, q{
		SELECT string_agg(d.target_date::text, ' ') FROM _wh.day_loads d
		LEFT JOIN (SELECT at::date AS target_date, count(*) AS n FROM shop.events GROUP BY 1) r USING (target_date)
		LEFT JOIN pg_class c ON c.oid = d.relation_oid AND c.relname = d.relation AND c.relfilenode = d.relation_file
		WHERE d.rows <> coalesce(r.n, 0) OR c.oid IS NULL}), '', "$name: the ledger is right");
	is(sql($node, q{SELECT string_agg(c.relname, ' ') FROM pg_class c WHERE c.relnamespace = 'shop'::regnamespace AND c.relkind IN ('r', 'm')
		AND NOT EXISTS (SELECT FROM _wh.day_loads d WHERE d.relation_oid = c.oid)}), '', "$name: every relation is known");
	return $node->command_ok([ 'pg_amcheck', '--database', 'postgres', '--heapallindexed', '--schema', 'shop' ], "$name: pg_amcheck finds nothing");
}

# kill -9 of a backend, or of everything; then all is as at the last commit.
sub crash
{
	my ($name, $pid, @sessions) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	if (defined $pid)
	{
		kill 'KILL', $pid;
		$_->{run}->kill_kill foreach @sessions;
		$node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid") or die "$name: the server does not come back";
	}
	else
	{
		$node->stop('immediate');
		$_->{run}->kill_kill foreach @sessions;
		$node->start;
	}
	return;
}

sql($node, 'CREATE EXTENSION amcheck');
is( (enqueue_and_wait($node, "'events', 'shop', '$first', '$last', NULL, 'all'"))[1], 'succeeded', 'days are loaded');

# ---- a combine is killed -----------------------------------------------

my $combine_month = "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2024, 2) AS j";
my $combine_year = "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_year('events', 'shop', 'shop', 2024, true) AS j";
my %stop = (
	'before the copy' => 'EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN (\'CREATE TABLE\') EXECUTE FUNCTION public.stop_event()',
	'after the copy' => 'EVENT TRIGGER stop ON ddl_command_start WHEN TAG IN (\'CREATE INDEX\') EXECUTE FUNCTION public.stop_event()',
	'after the index' => 'EVENT TRIGGER stop ON ddl_command_end WHEN TAG IN (\'CREATE INDEX\') EXECUTE FUNCTION public.stop_event()',
	'in the exchange' => 'EVENT TRIGGER stop ON sql_drop EXECUTE FUNCTION public.stop_event()',
	'at the commit' => 'CONSTRAINT TRIGGER stop AFTER UPDATE ON _wh.day_loads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.stop_row()');

sub combine_is_killed
{
	my ($what, $combine, $point, $kill_one) = @_;
	my $name = "$what, $point";
	my ($kind) = $stop{$point} =~ /^(EVENT TRIGGER|CONSTRAINT TRIGGER)/;
	my @before = (content(), relations(), ledger());

	sql($node, "CREATE $stop{$point}");
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(8)');
	my $session = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');
	$session->query_until(qr/asked/, "\\echo asked\n$combine;\n");
	wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND locktype = 'advisory' AND objid = 8 AND NOT granted", "$name: it is there");
	is(content(), $before[0], "$name: readers read on") unless $point =~ /exchange|commit/;
	crash($name, $kill_one ? $pid : undef, $holder, $session);
	sql($node, $kind eq 'EVENT TRIGGER' ? 'DROP EVENT TRIGGER stop' : 'DROP TRIGGER stop ON _wh.day_loads');
	is(content(), $before[0], "$name: the content is what it was");
	is(relations(), $before[1], "$name: so are the relations");
	is(ledger(), $before[2], "$name: so is the ledger");
	is_sound($name);
	return;
}

my $kill_one = 0;
foreach my $point (sort keys %stop)
{
	combine_is_killed('a month', $combine_month, $point, $kill_one = !$kill_one);
}
is(sql($node, $combine_month), 'combined', 'run again, the month is combined');
$node->stop('immediate');
$node->start;
is(content(), source_content(), 'a crash after the commit changes nothing');
is_sound('after the commit');
is(sql($node, $combine_month), 'already_combined', 'and there is nothing left to do');
combine_is_killed('a year', $combine_year, $_, 1) foreach 'after the index', 'in the exchange';

# ---- a late day is killed ----------------------------------------------

my %late_stop = (
	'staged' => 'TRIGGER stop BEFORE DELETE ON shop.events_2024_02 FOR EACH STATEMENT EXECUTE FUNCTION public.stop_row()',
	'deleted' => 'TRIGGER stop BEFORE INSERT ON shop.events_2024_02 FOR EACH STATEMENT EXECUTE FUNCTION public.stop_row()',
	'inserted' => 'TRIGGER stop AFTER INSERT ON shop.events_2024_02 FOR EACH STATEMENT EXECUTE FUNCTION public.stop_row()',
	'at the commit' => 'CONSTRAINT TRIGGER stop AFTER UPDATE ON _wh.day_loads DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.stop_row()');

# A table that is made anew stops where a combine does.
sub late_day_is_killed
{
	my ($point, $stop, $kill_one) = @_;
	my $name = "a late day, $point";
	my ($kind) = $stop =~ /^(EVENT TRIGGER|CONSTRAINT TRIGGER|TRIGGER)/;
	my ($on) = $stop =~ /ON (\w+\.\w+)/;
	my @before = (content(), relations(), ledger());

	change_events($production, '2024-02-17');
	sql($node, "CREATE $stop");
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(8)');
	my $id = sql($node, "SELECT _wh.enqueue_backfill('events', 'shop', '2024-02-17', '2024-02-17', NULL, 'all')");
	my $worker = "SELECT pid FROM _wh.worker_status WHERE backfill_id = $id AND kind = 'refresh'";
	wait_until($node, "SELECT count(*) = 1 FROM pg_locks WHERE pid = ($worker) AND locktype = 'advisory' AND objid = 8 AND NOT granted", "$name: it is there");
	is(content(), $before[0], "$name: readers read on");
	my $pid = sql($node, $worker);
	sql($node, "SELECT _wh.pause_backfill($id)");
	crash($name, $kill_one ? $pid : undef, $holder);
	sql($node, $kind eq 'EVENT TRIGGER' ? 'DROP EVENT TRIGGER stop' : "DROP TRIGGER stop ON $on");
	is(content(), $before[0], "$name: the content is what it was");
	is(relations(), $before[1], "$name: so are the relations");
	is(ledger(), $before[2], "$name: so is the ledger");
	is_sound($name);
	sql($node, "SELECT _wh.resume_backfill($id)");
	is(sql($node, "SELECT _wh.wait_for_backfill($id, '50 s')"), 'succeeded', "$name: the job starts again");
	is(content(), source_content(), "$name: then the day is new");
	is_sound("$name, again");
	return;
}

foreach my $point (sort keys %late_stop)
{
	late_day_is_killed($point, $late_stop{$point}, $kill_one = !$kill_one);
}
foreach my $point ('after the copy', 'in the exchange')
{
	my $indexes = $point =~ /copy/ ? 'CREATE INDEX idx_{view_name}_at ON {schema}.{view_name} (at)' : 'CREATE INDEX idx_{view_name}_id ON {schema}.{view_name} (id)';

	sql($node, "UPDATE _wh.mv_templates SET indexes = '$indexes'");
	late_day_is_killed("its table made anew, $point", $stop{$point}, $kill_one = !$kill_one) if $point =~ /copy/;
	is( (enqueue_and_wait($node, "'events', 'shop', '2024-02-16', '2024-02-16', NULL, 'all'"))[1], 'succeeded', "$point: the table has the new indexes");
}

done_testing();
