# Recovery to a moment: of the backup and archive of a warehouse in the middle of
# its work, what the ledger says is there, and nothing else; and it goes on.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse(start => 0, conf => { max_wal_senders => 4 });
my @templates = ('events', 'leaves');
my ($first, $last) = ('2025-03-01', '2025-04-10');

$node->enable_archiving;
$node->start;
sql($node, 'CREATE EXTENSION wh_worker');
create_events($source, $first, 41, 40);
add_events_template($node, $_) foreach @templates;
sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'");
add_tenant($node, $_, $source, templates => \@templates) foreach 'shop', 'Odd "shop';
sql($node, 'SELECT _wh.pause_schedule(name) FROM _wh.schedules');
$node->backup('base');

# A day in one line, and what the tenant has said of its days: before and after
# their rows were changed.
my $sums = q{at::date || ' ' || count(*) || ' ' || sum(id) || ' ' || sum(amount) || ' ' || string_agg(DISTINCT kind, ',' ORDER BY kind)};
my $of_tenant = "SELECT $sums FROM events GROUP BY at::date";
my %before = map { $_ => 1 } split /\n/, sql($source, $of_tenant);
my %after;

# ---- moments -------------------------------------------------------------

my %target;

# The ledger itself notes each, within the load that makes it so many days: who
# asks from outside may be told when all is over.
sql($node, q{CREATE TABLE moments (what text PRIMARY KEY, template text, days int, since timestamptz DEFAULT clock_timestamp(), at timestamptz, lsn pg_lsn);
	CREATE FUNCTION note_moments() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
	BEGIN
		UPDATE moments m SET at = clock_timestamp(), lsn = pg_create_restore_point(m.what)
		WHERE m.template = new.template_name AND m.at IS NULL
		AND m.days <= (SELECT count(*) FROM _wh.day_loads d WHERE d.template_name = m.template AND d.loaded_at > m.since);
		RETURN NULL;
	END $$;
	CREATE TRIGGER note_moments AFTER INSERT OR UPDATE OF loaded_at ON _wh.day_loads FOR EACH ROW EXECUTE FUNCTION note_moments()});

sub at_moment
{
	my ($what, $template, $days) = @_;

	sql($node, "INSERT INTO moments (what, template, days) VALUES ('$what', '$template', $days)");
	return;
}

sub moment
{
	my ($what, $column) = @_;

	return sql($node, "SELECT $column FROM moments WHERE what = '$what'");
}

at_moment('a restore point', 'events', 20);
at_moment('a time', 'leaves', 10);
my %backfill = map { $_ => sql($node, "SELECT _wh.enqueue_backfill('$_', NULL, '$first', '$last')") } @templates;
is(sql($node, "SELECT _wh.wait_for_backfill($backfill{$_}, '100 s')"), 'succeeded', "the backfill of $_ ends") foreach @templates;

$target{'a restore point'} = "recovery_target_name = 'a restore point'";
$target{'a time'} = sprintf "recovery_target_time = '%s'", moment('a time', 'at');

# Days are loaded again, over those that are there.
sql($source, "UPDATE events SET kind = 'changed'");
%after = map { $_ => 1 } split /\n/, sql($source, $of_tenant);
at_moment('a place in the WAL', 'leaves', 20);
my $again = sql($node, "SELECT _wh.enqueue_backfill('leaves', NULL, '$first', '2025-03-31', mode => 'all')");
is(sql($node, "SELECT _wh.wait_for_backfill($again, '100 s')"), 'succeeded', 'days are loaded again');
$target{'a place in the WAL'} = sprintf "recovery_target_lsn = '%s'", moment('a place in the WAL', 'lsn');

# And between two tables of a month.
sql($node, "SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 3)");
sql($node, "SELECT pg_create_restore_point('a month')");
$target{'a combined month'} = "recovery_target_name = 'a month'";
sql($node, "SELECT _wh.create_combined_table_from_template_by_month('leaves', 'shop', 'shop', 2025, 3)");
sql($node, "SELECT _wh.drop_day('events', 'shop', '2025-04-02')");
my $wal_file = sql($node, 'SELECT pg_walfile_name(pg_switch_wal())');
wait_until($node, "SELECT last_archived_wal >= '$wal_file' FROM pg_stat_archiver", 'all of it is in the archive');
$node->stop('immediate');

# ---- what is there at each ------------------------------------------------

my $copies = 0;

# It does not work yet, so that one can look.
sub recover
{
	my ($target) = @_;
	my $copy = PostgreSQL::Test::Cluster->new('copy' . ++$copies,
		defined $ENV{WH_WAREHOUSE_INSTALL} ? (install_path => $ENV{WH_WAREHOUSE_INSTALL}) : ());

	$copy->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', "$target\nrecovery_target_action = 'promote'\nwh_worker.enabled = off\narchive_mode = off\n");
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'recovery does not end';
	return $copy;
}

# The days that the ledger has, as they are in the relations that it names.
sub days_in_relations
{
	my ($copy) = @_;
	my $queries = sql($copy, q{SELECT string_agg(format('SELECT %L || (SELECT %s FROM %s WHERE at >= %L AND at < date %L + 1 GROUP BY at::date)',
			template_name || ' ', } . "'" . ($sums =~ s/'/''/gr) . "'" . q{, relation_oid::regclass, target_date, target_date), ' UNION ALL ')
		FROM _wh.day_loads WHERE relation_oid IS NOT NULL});

	return split /\n/, sql($copy, $queries);
}

# A day is as the tenant has it, or had it, and as the ledger counts it; nothing
# else is there.
sub is_consistent
{
	my ($copy, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ledger = sql($copy, 'SELECT count(*) FROM _wh.day_loads WHERE relation_oid IS NOT NULL');
	my @days = map { s/^\w+ //r } days_in_relations($copy);

	is(scalar(grep { $before{$_} || $after{$_} } @days), $ledger, "$what: each of $ledger days is one of the tenant's");
	is(sql($copy, 'SELECT bool_and(rows = 40) FROM _wh.day_loads WHERE relation_oid IS NOT NULL'), 't', "$what: with as many rows as the ledger says");
	is(sql($copy, q{SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
		WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('shop', 'Odd "shop')) AND c.relkind IN ('r', 'm')
		AND NOT EXISTS (SELECT FROM _wh.day_loads d WHERE d.relation_oid = c.oid AND d.relation = c.relname AND d.relation_file = c.relfilenode)}),
		'', "$what: the ledger knows every relation");
	foreach my $view (map { ("shop.$_", qq{"Odd ""shop".$_}) } @templates)
	{
		my $rows = sql($copy, "SELECT to_regclass('$view') IS NOT NULL") eq 't' ? sql($copy, "SELECT count(*) FROM $view") : 0;
		my ($schema, $template) = $view =~ /(shop|Odd).*\.(\w+)/;

		# a partition is seen as soon as it is one
		my $is_there = $template eq 'leaves' && $rows ? 'relation_oid IS NOT NULL' : 'in_views';
		is($rows, sql($copy, "SELECT coalesce(sum(rows), 0) FROM _wh.day_loads WHERE $is_there AND template_name = '$template' AND target_schema LIKE '$schema%'"),
			"$what: view $view has the days that the ledger says");
	}
	return $ledger;
}

sub goes_on
{
	my ($copy, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$copy->append_conf('postgresql.conf', 'wh_worker.enabled = on');
	$copy->reload;
	wait_until($copy, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))", "$what: the queue is worked off");
	wait_until($copy, "SELECT string_agg(DISTINCT state, ',') = 'succeeded' FROM _wh.backfills", "$what: the backfills end well");
	is(is_consistent($copy, "$what, at the end"), 2 * 2 * 41, "$what: every day is there");
	is(sql($copy, "SELECT count(*) FROM _wh.day_loads WHERE NOT in_views"), '0', "$what: in the views");
	is(sql($copy, "SELECT count(*) FROM (SELECT FROM _wh.job_run_details WHERE status = 'succeeded' AND job_id IS NOT NULL GROUP BY job_id HAVING count(*) > 1) twice"),
		'0', "$what: no job was done twice");
	return;
}

my %unfinished = ('a restore point' => 2, 'a time' => 2, 'a place in the WAL' => 1, 'a combined month' => 0);

foreach my $what (sort keys %target)
{
	my $copy = recover($target{$what});

	is(sql($copy, 'SELECT _wh.pause_reason()'), '', "$what: it is the same warehouse");
	cmp_ok(sql($copy, "SELECT count(*) FROM _wh.backfills WHERE state = 'running'"), '<=', $unfinished{$what}, "$what: it is a moment of the past");
	cmp_ok(sql($copy, "SELECT count(*) FROM _wh.jobs WHERE state = 'queued'"), '>', 0, "$what: inside a backfill") if $unfinished{$what};
	is_consistent($copy, $what);
	my $changed = grep { /changed/ } days_in_relations($copy);
	cmp_ok($changed, '>', 0, "$what: some days were loaded again") if $what eq 'a place in the WAL';
	cmp_ok($changed, '<', 62, "$what: and some were not") if $what eq 'a place in the WAL';
	is(sql($copy, "SELECT string_agg(DISTINCT template_name, ',') FROM _wh.day_loads WHERE state = 'combined'"), $what eq 'a combined month' ? 'events' : '', "$what: what was combined then");
	goes_on($copy, $what);
	is(scalar(grep { /^leaves .* changed$/ } days_in_relations($copy)), 62, "$what: the days that were to be loaded again are") if $unfinished{$what} < 2;
	$copy->stop;
}

done_testing();
