# pg_upgrade: the days are there, known to the ledger and published; once it is
# confirmed what was queued goes on, a day can be loaded again, and the tree takes new leaves.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;
use WhVersions;

my ($first, $last) = ('2025-01-01', '2025-02-10');
my $production = new_tenant('production');
create_events($production, '2025-01-01', 60, 5);

# A stopped server of a version; without data of ours, if another's shall come.
sub warehouse_of
{
	my ($version, $name, %opt) = @_;
	local $ENV{WH_WAREHOUSE_INSTALL} = installation_of($version);

	# 18 would make checksums, which both must have or have not
	return new_warehouse(name => $name, initdb => $version >= 18 ? ['--no-data-checksums'] : [], %opt);
}

sub fill
{
	my ($node) = @_;

	add_events_template($node, 'events');
	add_events_template($node, 'leaves');
	sql($node, "UPDATE _wh.mv_templates SET layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'");
	add_tenant($node, 'shop', $production, templates => [ 'events', 'leaves' ], start_date => $first);
	foreach my $template ('events', 'leaves')
	{
		my ($id, $state) = enqueue_and_wait($node, "'$template', 'shop', '$first', '$last'");

		is($state, 'succeeded', "$template: days are loaded");
		is(sql($node, "SELECT j->>'status' FROM _wh.create_combined_table_from_template_by_month('$template', 'shop', 'shop', 2025, 1, verify_content => true) AS j"),
			'combined', 'a month is combined');
		sql($node, "CREATE VIEW on_$template AS SELECT kind, sum(amount) FROM public.$template GROUP BY kind");
	}
	sql($node, 'CREATE ROLE analyst LOGIN; GRANT SELECT ON public.events TO analyst');
	return;
}

# What must be the same afterwards; of relations also which they are.
sub everything
{
	my ($node) = @_;
	my $of_schemas = "relnamespace::regnamespace::text IN ('shop', 'public')";

	return join "\n", map { sql($node, $_) }
	  (map { ("SELECT * FROM on_$_ ORDER BY kind", "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM public.$_ t") } 'events', 'leaves'),
	  'SELECT t.*, relation_oid::regclass FROM _wh.day_loads t ORDER BY t::text',
	  'SELECT t.*, view_oid::regclass FROM _wh.mv_templates t ORDER BY t::text',
	  'SELECT t.*, view_oid::regclass FROM _wh.tenant_templates t ORDER BY t::text',
	  'SELECT t FROM _wh.tenant_connections t ORDER BY t::text',
	  'SELECT schedule_id, name, schedule FROM _wh.schedules ORDER BY schedule_id',
	  # the owner of all of it may do what only the newer version knows
	  "SELECT c.oid, c.oid::regclass, relkind, relowner::regrole, reloptions,
		(SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM aclexplode(relacl) a WHERE a.grantee <> relowner)
		FROM pg_class c WHERE $of_schemas ORDER BY c.oid",
	  # from 17 on the types that come with a table are members too
	  "SELECT pg_describe_object(classid, objid, 0) AS member FROM pg_depend d JOIN pg_extension e ON refobjid = e.oid
		WHERE extname = 'wh_worker' AND deptype = 'e' AND classid <> 'pg_type'::regclass ORDER BY member";
}

sub upgrade
{
	my ($from, $to) = @_;
	my $old = warehouse_of($from, "old_${from}_$to");
	my $new = warehouse_of($to, "new_${from}_$to", start => 0);

	fill($old);
	my $before = everything($old);
	my $ledger = "SELECT t FROM _wh.day_loads t WHERE target_date < '2025-02-11' ORDER BY t::text";
	my $known = sql($old, $ledger);
	sql($old, 'SELECT _wh.pause()');
	my $waiting = sql($old, "SELECT _wh.enqueue_backfill('leaves', 'shop', '2025-02-11', '2025-02-12')");
	$old->stop;

	# Its programs start those of both: libraries of the newer ones serve the older.
	local $ENV{LD_LIBRARY_PATH} = join ':', map { installation_of($_) . '/lib' } $to, $from;
	my $dir = PostgreSQL::Test::Utils::tempdir;
	chdir $dir or die "could not change to $dir: $!";
	command_ok([ installation_of($to) . '/bin/pg_upgrade', '--no-sync',
			'--old-datadir', $old->data_dir, '--new-datadir', $new->data_dir,
			'--old-bindir', installation_of($from) . '/bin', '--new-bindir', installation_of($to) . '/bin',
			'--socketdir', $new->host, '--old-port', $old->port, '--new-port', $new->port ],
		"pg_upgrade from $from to $to");
	delete local $ENV{LD_LIBRARY_PATH};
	$new->start;
	is($new->pg_version->major, $to, 'the server is the new one');
	is(everything($new), $before, 'all is as it was');

	# the old one is still there, and could be started
	sql($new, 'SELECT _wh.resume()');
	like(sql($new, 'SELECT _wh.pause_reason()'), qr/copy that waits to be confirmed/, 'it loads nothing before somebody confirms that it is the one');
	is(sql($new, 'SELECT count(*) FROM _wh.jobs WHERE state <> $$queued$$ AND target_date >= $$2025-02-11$$'), 0, 'really nothing');
	sql($new, 'SELECT _wh.confirm_warehouse()');
	is(sql($new, $ledger), $known, 'after which it knows the same days');
	is(sql($new, "SELECT _wh.wait_for_backfill($waiting, '50 s')"), 'succeeded', 'what was queued is loaded');
	change_events($production, '2025-02-03');
	change_events($production, '2025-01-15');
	foreach my $template ('events', 'leaves')
	{
		my ($id, $state) = enqueue_and_wait($new, "'$template', 'shop', '$first', '2025-02-12', NULL, 'all'");
		is($state, 'succeeded', "$template: all days are loaded again, and those that were not there");
		same_content($new, "SELECT id, at, kind, amount, payload FROM shop.$template", $production,
			"SELECT * FROM events WHERE at < '2025-02-13'", 'with what the tenant has now');
	}
	$new->stop;
	return;
}

upgrade(15, 17);
done_testing();
