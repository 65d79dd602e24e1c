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

# ---- moments -------------------------------------------------------------

my %backfill = map { $_ => sql($node, "SELECT _wh.enqueue_backfill('$_', NULL, '$first', '$last')") } @templates;
my %target;

# In the middle of that backfill, with jobs that run: what the query says then.
sub at_moment
{
	my ($template, $days, $what) = @_;
	my $moment;

	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM _wh.backfill_progress WHERE backfill_id = $backfill{$template} AND days_done >= $days"),
		"$days days of $template are loaded");
	$moment = sql($node, $what);
	isnt(sql($node, "SELECT state FROM _wh.backfills WHERE backfill_id = $backfill{$template}"), undef, 'and some are not');
	return $moment;
}

at_moment('events', 20, "SELECT pg_create_restore_point('some days')");
$target{'a restore point'} = "recovery_target_name = 'some days'";
$target{'a time'} = sprintf "recovery_target_time = '%s'", at_moment('leaves', 10, 'SELECT clock_timestamp()');
is(sql($node, "SELECT _wh.wait_for_backfill($backfill{$_}, '100 s')"), 'succeeded', "the backfill of $_ ends") foreach @templates;

# The last commit that is wanted: of a day that is loaded again while another runs.
sql($source, "UPDATE events SET kind = 'changed'");
my $again = sql($node, "SELECT _wh.enqueue_backfill('leaves', NULL, '$first', '2025-03-31', mode => 'all')");
ok($node->poll_query_until('postgres', "SELECT days_done >= 20 FROM _wh.backfill_progress WHERE backfill_id = $again"), 'days are loaded again');
$target{'a transaction'} = sprintf "recovery_target_xid = '%s'",
	sql($node, q{SELECT xmin FROM _wh.day_loads WHERE template_name = 'leaves' ORDER BY loaded_at DESC OFFSET 3 LIMIT 1});
is(sql($node, "SELECT _wh.wait_for_backfill($again, '100 s')"), 'succeeded', 'all of them');

# And in the middle of a table of a month that takes the place of its days.
sql($node, "SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 3)");
sql($node, "SELECT pg_create_restore_point('a month')");
$target{'a combined month'} = "recovery_target_name = 'a month'";
sql($node, "SELECT _wh.create_combined_table_from_template_by_month('leaves', 'shop', 'shop', 2025, 3)");
sql($node, "SELECT _wh.drop_day('events', 'shop', '2025-04-02')");
sql($node, 'SELECT pg_switch_wal()');
my $walfile = sql($node, 'SELECT pg_walfile_name(pg_current_wal_lsn())');
sql($node, 'CREATE TABLE more AS SELECT 1; SELECT pg_switch_wal()');
wait_until($node, "SELECT last_archived_wal >= '$walfile' FROM pg_stat_archiver", 'the archive is complete');
$node->stop('immediate');

# ---- each of them ----------------------------------------------------------

my $copies = 0;

sub recover
{
	my ($conf) = @_;
	my $copy = PostgreSQL::Test::Cluster->new('copy' . ++$copies,
		defined $ENV{WH_WAREHOUSE_INSTALL} ? (install_path => $ENV{WH_WAREHOUSE_INSTALL}) : ());

	$copy->init_from_backup($node, 'base', has_restoring => 1, standby => 0);
	$copy->append_conf('postgresql.conf', "$conf\nrecovery_target_action = 'promote'\nwh_worker.enabled = off\narchive_mode = off\n");
	$copy->start;
	$copy->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die 'it does not end';
	return $copy;
}

# The rows of a day, in the relation that has it, as one line.
my $day_sum = q{count(*) || ' ' || coalesce(sum(id), 0) || ' ' || coalesce(sum(amount), 0) || ' ' || coalesce(string_agg(DISTINCT kind, ','), '')};

# Every day that the ledger has, against the tenant as it was or as it is.
sub check_ledger
{
	my ($copy, $what) = @_;
	my @days = split /\n/, sql($copy, q{SELECT template_name, target_schema, target_date, relation_oid::regclass, rows, state
		FROM _wh.day_loads WHERE relation_oid IS NOT NULL ORDER BY 1, 2, 3});
	my @questions = map { my ($template, $schema, $date, $relation) = split /\|/, $_;
		"SELECT $day_sum FROM $relation WHERE at >= '$date' AND at < date '$date' + 1" } @days;
	my @answers = split /\n/, sql($copy, join ' UNION ALL ', map { "SELECT * FROM ($questions[$_]) x$_" } 0 .. $#questions);
	my %known = map { $_ => 1 } split /\n/, sql($source, "SELECT count(*) || ' ' || sum(id) || ' ' || sum(amount) || ' ' || string_agg(DISTINCT k, ',')
		FROM events, LATERAL (SELECT kind AS k UNION ALL SELECT was.kind FROM events_before was WHERE was.id = events.id) kinds GROUP BY at::date");
	return;
}

# What relations of ours there are, by the catalog and by the ledger.
sub check_relations
{
	my ($copy, $what) = @_;

	is(sql($copy, q{SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
		WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('shop', 'Odd "shop')) AND c.relkind IN ('r', 'm')
		AND NOT EXISTS (SELECT FROM _wh.day_loads d WHERE d.relation_oid = c.oid AND d.relation = c.relname AND d.relation_file = c.relfilenode)}),
		'', "$what: every relation is in the ledger");
	is(sql($copy, q{SELECT count(*) FROM _wh.day_loads d LEFT JOIN pg_class c ON c.oid = d.relation_oid WHERE d.relation_oid IS NOT NULL AND c.oid IS NULL}),
		'0', "$what: and the ledger has no other");
	return;
}

done_testing();
