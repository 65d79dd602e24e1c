# What the row of a subscription keeps (relations, rows, bytes, tablespaces, locks)
# is what a recount finds, after each of many steps of every kind in a random
# order: loads, late days, combined months and years, days dropped or taken away,
# another layout, other columns and indexes, retention, crashes.  SEED=n repeats
# an order.
use strict;
use warnings;

use Test::More;
use WhTest;

my $seed = $ENV{SEED} // int(rand(1_000_000));
my $production = new_tenant('production');
my $node = new_warehouse(conf => {
	max_locks_per_transaction => 256, autovacuum => 'off',
	allow_in_place_tablespaces => 'on', 'wh_worker.history_days' => 2 });
my ($first, $days) = ('2024-11-20', 75);
my @tenants = ('shop', 'Shop "2"');
my @templates = ('events', 'leaves');

note("SEED=$seed");
srand($seed);

sub one_of
{
	return $_[ int rand @_ ];
}

sub quoted
{
	return "'" . ($_[0] =~ s/'/''/gr) . "'";
}

# A day that the tenants have.
sub day
{
	return sql($node, "SELECT date '$first' + " . int rand $days);
}

# ---- the fixture -------------------------------------------------------

foreach my $tablespace ('months', 'years')
{
	$node->safe_psql('postgres', "CREATE TABLESPACE $tablespace LOCATION ''");
	sql($node, "GRANT CREATE ON TABLESPACE $tablespace TO whadmin");
}
add_events_template($node, $_) foreach @templates;
sql($node, q{UPDATE _wh.mv_templates SET date_column = 'at', month_tablespace = 'months', suspect_factor = 2});
sql($node, q{UPDATE _wh.mv_templates SET layout = 'partitions', year_tablespace = 'years' WHERE template_name = 'leaves'});
foreach my $n (0 .. $#tenants)
{
	$production->safe_psql('postgres', "CREATE DATABASE db_$n");
	create_events($production, $first, $days, 3 + $n, database => "db_$n", seed => $n + 1);
	add_tenant($node, $tenants[$n], $production, database => "db_$n", templates => [@templates], start_date => $first);
}
sql($node, "UPDATE _wh.schedules SET active = false WHERE kind <> 'retention'");

# What is kept, and what there is: relations and their rows by their names, not by
# the code that keeps the totals.
my $recount = q{
	SELECT s.template_name, s.target_schema, s.tier_relations AS kept, r.tier_relations AS counted
	FROM (SELECT template_name, target_schema,
			concat_ws(' ', day_relations, day_rows, day_bytes, day_tablespaces, '/', month_relations, month_rows, month_bytes, month_tablespaces, '/',
				year_relations, year_rows, year_bytes, year_tablespaces, '/', members) AS tier_relations
		FROM _wh.tenant_templates) s
	JOIN (SELECT k.template_name, k.target_schema, string_agg(t.totals, ' / ' ORDER BY t.tier) || ' / ' || max(t.members) AS tier_relations
		FROM _wh.tenant_templates k
		CROSS JOIN LATERAL (
			SELECT p.tier, concat_ws(' ', count(c.oid), coalesce(sum(n.rows), 0), coalesce(sum(d.bytes), 0),
					coalesce(array_agg(DISTINCT coalesce(b.spcname, 'pg_default')::text) FILTER (WHERE c.oid IS NOT NULL), '{}')) AS totals,
				sum(count(*) FILTER (WHERE d.in_views)) OVER () AS members
			FROM (VALUES (1, '_\d{4}_\d\d_\d\d'), (2, '_\d{4}_\d\d'), (3, '_\d{4}')) AS p(tier, pattern)
			LEFT JOIN (pg_class c
				JOIN (SELECT relation_oid, sum(bytes)::bigint AS bytes, bool_or(in_views) AS in_views FROM _wh.day_loads GROUP BY 1) d ON d.relation_oid = c.oid
				LEFT JOIN pg_tablespace b ON b.oid = c.reltablespace
				CROSS JOIN LATERAL (SELECT (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || c.oid::regclass, false, true, '')))[1]::text::bigint AS rows) n)
				ON c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = k.target_schema) AND c.relkind IN ('r', 'm')
					AND c.relname ~ ('^' || k.template_name || p.pattern || '$')
			GROUP BY p.tier) t
		GROUP BY 1, 2) r USING (template_name, target_schema)
	WHERE s.tier_relations <> r.tier_relations};

# What a query of a view locks: the view, and all with it but our own tables.
sub locks_held
{
	my ($view, $where) = @_;

	return (split /\n/, sql($node, qq{BEGIN; EXPLAIN (COSTS OFF) SELECT * FROM $view $where;
		SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384; COMMIT}))[-1];
}

sub locks_are_right
{
	my ($name) = @_;
	my (@kept, @held);

	foreach my $row (split /\n/, sql($node, q{SELECT format('%I.%I', target_schema, template_name), locks_per_query, locks_unfiltered
		FROM _wh.union_health WHERE target_schema <> 'public' ORDER BY 1}))
	{
		my ($view, $locks, $unfiltered) = split /\|/, $row;

		push @kept, "$view $locks $unfiltered";
		push @held, "$view " . locks_held($view, q{WHERE at >= CURRENT_DATE - 30}) . ' ' . locks_held($view, '');
	}
	return is_deeply(\@kept, \@held, "$name: locks");
}

# Jobs may still be under way.
sub totals_are_right
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = wait_until($node, "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running')) AND NOT EXISTS ($recount)", $name);

	diag("SEED=$seed; " . sql($node, $recount)) if !$ok;
	return $ok;
}

# ---- the steps ---------------------------------------------------------

my $mine = 0;

sub some_relation
{
	my ($condition) = @_;

	return sql($node, "SELECT format('%I.%I', d.target_schema, d.relation) FROM _wh.day_loads d JOIN pg_class c ON c.oid = d.relation_oid
		WHERE $condition ORDER BY md5(d.relation_oid::text || " . rand() . ') LIMIT 1');
}

# What a person does by himself is noticed by the next publication.
sub publish
{
	return sql($node, 'SELECT _wh.update_tenant_union_view_by_template(template_name, tenant_name, target_schema) FROM _wh.tenant_templates');
}

my %step = (
	'days are loaded' => sub {
		my $from = day();

		enqueue_and_wait($node, sprintf("'%s', %s, '%s', least(date '%s' + %d, date '$first' + $days - 1), NULL, '%s'",
			one_of(@templates), quoted(one_of(@tenants)), $from, $from, rand 25, one_of('missing', 'missing', 'all')));
	},
	'a day is loaded at once' => sub {
		# what retention detached may be in its way
		$node->psql('postgres', sprintf("SELECT _wh.update_mv_by_template('%s', %s, '%s')", one_of(@templates), quoted(one_of(@tenants)), day()));
	},
	'a day has other rows' => sub {
		my $n = int rand 2;
		my $day = day();

		$production->safe_psql("db_$n", one_of("DELETE FROM events WHERE at::date = '$day' AND id % 3 <> 0",
			"INSERT INTO events SELECT id + 100000, at, kind, amount, repeat(payload, 100) FROM events WHERE at::date = '$day'"));
		enqueue_and_wait($node, sprintf("'%s', %s, '%s', '%s', NULL, 'all'", one_of(@templates), quoted($tenants[$n]), $day, $day));
	},
	'a day is dropped' => sub {
		my $day = sql($node, sprintf("SELECT quote_literal(template_name) || ', ' || quote_literal(tenant_name) || ', ' || quote_literal(target_date)
			FROM _wh.day_loads ORDER BY md5(target_date::text || target_schema || %f) LIMIT 1", rand));

		sql($node, "SELECT _wh.drop_day($day)") if $day ne '';
	},
	'a person takes a day away' => sub {
		my $relation = some_relation("c.relkind = 'm'");

		sql($node, "ALTER MATERIALIZED VIEW $relation RENAME TO mine_" . ++$mine) if $relation ne '';
		publish();
	},
	'a person makes an index' => sub {
		my $relation = some_relation("c.relkind IN ('m', 'r')");

		sql($node, "CREATE INDEX ON $relation (amount)") if $relation ne '';
		publish();
	},
	'a month is combined' => sub {
		my ($year, $month) = @{ one_of([ 2024, 11 ], [ 2024, 12 ], [ 2025, 1 ]) };
		my $tenant = quoted(one_of(@tenants));

		$node->psql('postgres', sprintf("SELECT _wh.create_combined_table_from_template_by_month('%s', %s, %s, %d, %d, true)",
			one_of(@templates), $tenant, $tenant, $year, $month));
	},
	'a year is combined' => sub {
		my $tenant = quoted(one_of(@tenants));

		$node->psql('postgres', sprintf("SELECT _wh.create_combined_table_from_template_by_year('%s', %s, %s, 2024, true)",
			one_of(@templates), $tenant, $tenant));
	},
	'the layout is another one' => sub {
		sql($node, sprintf("SELECT _wh.convert_layout('events', '%s')", one_of('matviews', 'partitions')));
	},
	'the template has another index' => sub {
		sql($node, sprintf(q{UPDATE _wh.mv_templates SET indexes = 'CREATE INDEX "{view_name} %s" ON {schema}.{view_name} (%s)' WHERE template_name = '%s'},
			(one_of('id', 'kind', 'at')) x 2, one_of(@templates)));
		enqueue_and_wait($node, sprintf("'%s', NULL, '%s', '2025-02-02', NULL, 'outdated'", one_of(@templates), day()));
	},
	'what is old is retired' => sub {
		my $template = one_of(@templates);
		my $keep = "(now() AT TIME ZONE 'UTC')::date - date '" . day() . "' + 20";

		sql($node, sprintf("UPDATE _wh.mv_templates SET keep_days = $keep, retention = '%s' WHERE template_name = '$template'", one_of('drop', 'detach')));
		sql($node, "SELECT _wh.setup_cron('$template')");
		sql($node, "UPDATE _wh.schedules SET last_run = NULL, next_run = now() - interval '10 years' WHERE kind = 'retention' AND template_name = '$template'");
		$node->poll_query_until('postgres', "SELECT count(*) = 1 AND bool_and(last_run IS NOT NULL) FROM _wh.schedules WHERE kind = 'retention' AND template_name = '$template'")
		  or die 'retention did not come due';
		$node->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM _wh.jobs WHERE state IN ('queued', 'running'))") or die 'retention did not end';
		sql($node, "UPDATE _wh.mv_templates SET keep_days = NULL WHERE template_name = '$template'");
	},
	'a subscription ends, and begins again' => sub {
		my ($tenant, $template) = (quoted(one_of(@tenants)), one_of(@templates));

		sql($node, "SELECT _wh.unsubscribe($tenant, '$template')");
		sql($node, "SELECT _wh.subscribe($tenant, '$template', NULL, '$first')");
		sql($node, "UPDATE _wh.schedules SET active = false WHERE kind <> 'retention'");
	},
	'a tenant leaves, and comes back' => sub {
		my $n = int rand 2;

		sql($node, sprintf('SELECT _wh.remove_tenant(%s, true)', quoted($tenants[$n])));
		add_tenant($node, $tenants[$n], $production, database => "db_$n", templates => [@templates], start_date => $first);
		sql($node, "UPDATE _wh.schedules SET active = false WHERE kind <> 'retention'");
	},
	'the server crashes in a load' => sub {
		sql($node, sprintf("SELECT _wh.enqueue_backfill('%s', %s, '2025-01-01', '2025-01-20', NULL, 'all')", one_of(@templates), quoted(one_of(@tenants))));
		$node->stop('immediate');
		$node->start;
	});

# Each kind of step twice, and between them loads, in an order that nobody chose.
my @order = (sort keys %step, grep { $_ ne 'a tenant leaves, and comes back' } sort keys %step);
push @order, ('days are loaded') x 10;
foreach my $n (reverse 1 .. $#order)
{
	my $with = int rand($n + 1);

	@order[ $n, $with ] = @order[ $with, $n ];
}

foreach my $template (@templates)
{
	is((enqueue_and_wait($node, "'$template', NULL, '$first', '2025-01-25'"))[1], 'succeeded', "days of $template");
}
totals_are_right('at first');
locks_are_right('at first');
my $n = 0;
foreach my $kind (@order)
{
	$n++;
	$step{$kind}->();
	totals_are_right("step $n: $kind") or last;
	locks_are_right("step $n") if $n % 8 == 0;
}
locks_are_right('at the end');

# ---- what is seen ------------------------------------------------------

is(sql($node, q{SELECT count(*) FROM _wh.storage_usage u JOIN _wh.tenant_templates s USING (template_name, target_schema)
	WHERE u.relations <> s.day_relations + s.month_relations + s.year_relations OR u.bytes <> s.day_bytes + s.month_bytes + s.year_bytes
		OR u.rows <> s.day_rows + s.month_rows + s.year_rows}), 0, 'storage_usage adds them up');
is(sql($node, q{SELECT string_agg(view, ' ' ORDER BY view) FROM (VALUES ('storage_usage'), ('union_health'), ('backfill_progress')) AS v(view)
	WHERE EXISTS (SELECT FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
		WHERE r.ev_class = ('_wh.' || view)::regclass AND d.refobjid = '_wh.day_loads'::regclass)}), '', 'and no such view reads the ledger');
like(sql($node, q{SET enable_seqscan = off; EXPLAIN SELECT * FROM _wh.job_status LIMIT 100}), qr/Index Scan Backward using jobs_pkey/, 'the newest jobs are read by their index');

# A backfill knows what it loaded, though the days were loaded again since. (A
# template of its own: what retention detached is in the way of days of the others.)
add_events_template($node, 'loads');
sql($node, "SELECT _wh.subscribe('shop', 'loads', NULL, '$first')");
my ($id) = enqueue_and_wait($node, "'loads', 'shop', '2024-12-01', '2024-12-03', NULL, 'all'");
my $progress = "SELECT days_done || ' ' || rows || ' ' || bytes FROM _wh.backfill_progress WHERE backfill_id = $id";
my $loaded = sql($node, q{SELECT '3 ' || sum(rows) || ' ' || sum(bytes) FROM _wh.day_loads
	WHERE template_name = 'loads' AND target_schema = 'shop' AND target_date BETWEEN '2024-12-01' AND '2024-12-03'});
is(sql($node, $progress), $loaded, 'what a backfill loaded');
enqueue_and_wait($node, "'loads', 'shop', '2024-12-01', '2024-12-03', NULL, 'all'");
is(sql($node, $progress), $loaded, 'stays what it loaded');

# A publication that fails, for a name is taken, still counts.
sql($node, 'BEGIN; DROP VIEW public.loads, shop.loads; CREATE TABLE shop.loads (mine int); DROP MATERIALIZED VIEW shop.loads_2024_12_02, shop.loads_2024_12_03; COMMIT');
enqueue_and_wait($node, "'events', 'shop', '2024-12-01', '2024-12-01', NULL, 'all'");	# wakes the launcher
wait_until($node, "SELECT count(*) > 0 FROM _wh.jobs WHERE template_name = 'loads' AND kind = 'publish' AND last_error IS NOT NULL", 'a publication cannot make the view');
is(sql($node, "SELECT day_relations || ' ' || days || ' ' || data_through FROM _wh.tenant_templates WHERE template_name = 'loads'"), '1 1 2024-12-01', 'what a person dropped is gone from the totals');
is(sql($node, "SELECT members || ' ' || (complete_until AT TIME ZONE 'UTC')::date FROM _wh.tenant_templates WHERE template_name = 'loads'"), '1 2024-11-24', 'and from what is said of the view, and of its freshness');

done_testing();
