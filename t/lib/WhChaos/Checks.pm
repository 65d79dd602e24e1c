# What has to be when the faults have ended: first that everything recovered with
# nobody's help, then that every day is what its tenant has, that everything that
# is kept about days is true, and that nothing was left behind.
package WhChaos::Checks;

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use WhChaos::World;
use WhTest;

my @findings;
my $is_heard = 0;

sub be_heard
{
	$is_heard = 1;
	return;
}

# What happened: in the log of the test, or for who watches it.
sub say
{
	return $is_heard ? diag(@_) : note(@_);
}

# Something that was seen when there was no time for a test.
sub finding
{
	my ($what) = @_;

	push @findings, $what;
	diag($what);
	return;
}

sub nothing_found
{
	my ($name, @found) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $total = @found;

	splice @found, 30 if $total > 30;
	diag("$name: $total findings\n" . join("\n", @found)) if $total;
	return is($total, 0, $name);
}

# ---- it has recovered --------------------------------------------------

# What a warehouse that is well has nothing of.
my $unwell = q{
	WITH days AS (
		SELECT s.template_name, s.target_schema, d::date AS target_date
		FROM _wh.tenant_templates AS s, generate_series(s.start_date, _wh.current_date_utc(), '1 day') AS d
	)
	SELECT 'job ' || concat_ws(' ', job_id, kind, template_name, target_schema, target_date, state, 'attempt ' || attempt, last_error)
	FROM _wh.jobs WHERE state IN ('queued', 'running') AND kind <> 'sql'
	UNION ALL
	SELECT 'backfill ' || concat_ws(' ', backfill_id, state, last_error) FROM _wh.backfills WHERE state = 'running'
	UNION ALL
	SELECT 'day ' || concat_ws(' ', template_name, target_schema, target_date, coalesce(l.state, 'is not there'), l.failed_at, l.last_error)
	FROM days LEFT JOIN _wh.day_loads AS l USING (template_name, target_schema, target_date)
	WHERE l.state IS NULL OR l.state NOT IN ('published', 'combined') OR NOT l.in_views OR NOT l.counted OR l.failed_at IS NOT NULL
	UNION ALL
	SELECT 'relation ' || concat_ws(' ', l.target_schema, l.relation, c.oid::regclass)
	FROM _wh.day_loads AS l LEFT JOIN pg_class AS c ON c.oid = l.relation_oid
	WHERE l.relation_oid IS NOT NULL AND c.relname IS DISTINCT FROM l.relation
	UNION ALL
	SELECT 'view ' || view FROM (
		SELECT format('%I.%I', target_schema, template_name) AS view FROM _wh.tenant_templates
		UNION SELECT format('public.%I', template_name) FROM _wh.mv_templates) AS v
	WHERE to_regclass(view) IS NULL
	UNION ALL
	SELECT 'tenant ' || concat_ws(' ', tenant_name, state, last_error) FROM _wh.tenant_health WHERE state <> 'closed'
	UNION ALL
	SELECT 'worker ' || concat_ws(' ', backend_type, pid, state, last_error) FROM _wh.worker_status
	WHERE backend_type NOT LIKE '%worker' AND (pid IS NULL OR state <> 'idle') AND backend_type LIKE '%launcher'};

sub recovered
{
	my ($world, $patience) = @_;
	my $begun = time();
	my $left = 'nothing could be asked';
	my ($killed, $when) = @{ $world->{killed} // [ 0, 0 ] };
	# until the postmaster has seen the end of who was killed just now, it has nothing to recover from
	my $well = $world->eventually($patience, sub {
		my $answer = $killed && time() - $when < 20 && kill(0, $killed) ? 'somebody who was killed is there yet' : $world->try_sql($unwell);

		$left = $answer // $world->{error};
		return defined $answer && $answer eq '';
	});

	ok($well, 'everything recovers by itself') or diag(show($left));
	say(sprintf 'recovered after %.1f s', time() - $begun);
	nothing_found('what was promised is there', broken_promises($world));
	return;
}

sub show
{
	my ($text) = @_;
	my @lines = split /\n/, $text;

	return scalar(@lines) . " lines\n" . join("\n", @lines[ 0 .. ($#lines < 40 ? $#lines : 40) ]);
}

# The version of each day, in a view or at its tenant; -1 for several at once.
sub versions_in
{
	my ($world, $node, $database, $from) = @_;

	return map { split /\|/ } split /\n/,
	  sql($node, "SELECT at::date - date '$world->{first}', CASE WHEN min(version) = max(version) THEN max(version) ELSE -1 END FROM $from GROUP BY 1", $database);
}

sub versions_here
{
	my ($world, $template, $shop) = @_;

	return versions_in($world, $world->{warehouse}, 'postgres', WhChaos::World::identifier($shop->{name}) . ".$template");
}

# A backfill that succeeded has loaded its day as it was when it was enqueued, or newer.
sub broken_promises
{
	my ($world) = @_;
	my %succeeded = map { $_ => 1 } split /\n/, sql($world->{warehouse}, q{SELECT backfill_id FROM _wh.backfills WHERE state = 'succeeded'});
	my (@broken, %in_view);

	foreach my $promise (grep { $succeeded{ $_->{backfill} } } @{ $world->{promises} })
	{
		my ($shop, $template, $day) = @$promise{qw(shop template day)};
		my $versions = $in_view{$template}{ $shop->{name} } //= { versions_here($world, $template, $shop) };

		push @broken, "backfill $promise->{backfill} of $template at $shop->{name}, day $day: version " . ($versions->{$day} // 'none') . ", $promise->{version} was there"
		  if ($versions->{$day} // -1) < $promise->{version};
	}
	say(scalar(keys %succeeded) . ' backfills succeeded, ' . @{ $world->{promises} } . ' days were changed and asked for');
	return @broken;
}

# ---- what readers saw --------------------------------------------------

sub nobody_saw_anything
{
	my ($readers) = @_;
	my ($answers, @found) = $readers->findings;

	say("$answers answers were read");
	cmp_ok($answers, '>', 0, 'views were read all the while');
	return nothing_found('no reader saw half a day, a day twice, or an error', @found);
}

# ---- it is sound -------------------------------------------------------

sub sound
{
	my ($world, $patience) = @_;

	schedules_go_on($world);
	come_to_rest($world, $patience);
	content_is_right($world);
	ledger_is_right($world);
	totals_are_right($world);
	nothing_is_left($world, $patience);
	log_is_clean($world);
	nothing_found('nothing else was noticed', @findings, @{ $world->{findings} });
	return;
}

# The scheduler has not stopped silently.
sub schedules_go_on
{
	my ($world) = @_;

	return wait_until($world->{warehouse}, q{SELECT count(*) >= 2 FROM public.heartbeat WHERE at > '} . sql($world->{warehouse}, 'SELECT clock_timestamp()') . q{'},
		'commands still run on their schedule');
}

# Days that changed at a tenant since they were loaded, whoever was or was not told,
# are asked for, and those of an older shape; then nothing is scheduled any more.
sub come_to_rest
{
	my ($world, $patience) = @_;
	my $node = $world->{warehouse};
	my $left = '';

	foreach my $template (WhChaos::World::TEMPLATES)
	{
		is($world->backfill($template, 'outdated', $patience), 'succeeded', "$template: days of before a change are loaded");
		load_changed_days($world, $template);
	}
	sql($node, 'UPDATE _wh.schedules SET active = false');
	ok($world->eventually($patience, sub { $left = sql($node, $unwell); $left eq '' }), 'and all is at rest') or diag(show($left));
	return;
}

sub load_changed_days
{
	my ($world, $template) = @_;
	my $count = 0;

	foreach my $shop (@{ $world->{shops} })
	{
		my %here = versions_here($world, $template, $shop);
		my %there = versions_in($world, $shop->{server}, $shop->{database}, 'events');

		foreach my $day (grep { $there{$_} != $here{$_} } keys %here)
		{
			$count++;
			sql($world->{warehouse}, sprintf "SELECT _wh.enqueue_backfill('%s', %s, date '%s' + %d, date '%3\$s' + %4\$d, mode => 'all')",
				$template, WhChaos::World::literal($shop->{name}), $world->{first}, $day);
		}
	}
	return say("$template: $count changed days are asked for");
}

sub content_is_right
{
	my ($world) = @_;
	my $columns = 'id, at, version, amount, payload';

	foreach my $template (WhChaos::World::TEMPLATES)
	{
		my %public = by_day($world->{warehouse}, "SELECT schema_name AS name, $columns FROM public.$template", 'postgres');
		my @wrong;

		foreach my $shop (@{ $world->{shops} })
		{
			my $name = WhChaos::World::literal($shop->{name}) . '::text';
			my $view = WhChaos::World::identifier($shop->{name}) . ".$template";
			my $last = sql($world->{warehouse}, 'SELECT _wh.current_date_utc()');
			my $range = "at >= '$world->{first}' AND at < date '$last' + 1";
			my %there = by_day($shop->{server}, "SELECT $name AS name, $columns FROM events WHERE $range", $shop->{database});
			my %here = by_day($world->{warehouse}, "SELECT $name AS name, $columns FROM $view WHERE $range", 'postgres');

			foreach my $day (sort keys %{ { %there, %here } })
			{
				my ($tenant, $own, $all) = map { $_ // 'nothing' } $there{$day}, $here{$day}, $public{$day};

				push @wrong, "$day: $tenant at the tenant, $own in its view, $all in the public view" if $tenant ne $own || $own ne $all;
			}
		}
		nothing_found("$template: every day is what its tenant has", @wrong);
	}
	return;
}

sub by_day
{
	my ($node, $query, $database) = @_;

	return map { my ($day, $sum) = /^(.*)\|(.*)$/; ($day => $sum) } split /\n/, sql($node, qq{
		SET timezone = 'UTC'; SET datestyle = 'ISO, YMD';
		SELECT concat_ws(' ', name, day), count(*) || ' rows ' || md5(string_agg(h, '' ORDER BY h))
		FROM (SELECT name, at::date AS day, md5(q::text) AS h FROM ($query) AS q) AS hashes GROUP BY 1}, $database);
}

sub ledger_is_right
{
	my ($world) = @_;
	my $node = $world->{warehouse};

	nothing_found('every relation of the ledger is there, under its name, with its file', split /\n/, sql($node, q{
		SELECT concat_ws(' ', d.template_name, d.target_schema, d.target_date, d.state, d.relation, d.relation_oid, c.oid::regclass, d.relation_file, c.relfilenode)
		FROM _wh.day_loads AS d LEFT JOIN pg_class AS c ON c.oid = d.relation_oid
		LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
		WHERE c.oid IS NULL OR c.relname <> d.relation OR n.nspname <> d.target_schema}));
	nothing_found('every relation in the schemas of tenants is in the ledger', split /\n/, sql($node, q{
		SELECT c.oid::regclass FROM pg_class AS c JOIN _wh.tenant_templates AS s ON s.target_schema = c.relnamespace::regnamespace::text
			OR quote_ident(s.target_schema) = c.relnamespace::regnamespace::text
		WHERE c.relkind IN ('r', 'm') AND NOT EXISTS (SELECT FROM _wh.day_loads AS d WHERE d.relation_oid = c.oid)}));
	nothing_found('no transient heap has stayed', split /\n/, sql($node, q{SELECT oid::regclass FROM pg_class WHERE relname ~ '^pg_temp_\d+'}));
	foreach my $template (WhChaos::World::TEMPLATES)
	{
		nothing_found("$template: the ledger counts what the view has", split /\n/, sql($node, qq{
			SELECT concat_ws(' ', target_schema, target_date, d.rows, v.n) FROM
			(SELECT * FROM _wh.day_loads WHERE template_name = '$template') AS d
			FULL JOIN (SELECT schema_name AS target_schema, at::date AS target_date, count(*) AS n FROM public.$template GROUP BY 1, 2) AS v
				USING (target_schema, target_date)
			WHERE coalesce(d.rows, 0) <> coalesce(v.n, 0)}));
	}
	nothing_found('invalid indexes', split /\n/, sql($node, q{SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid AND indexrelid::regclass::text !~ '_ccnew|_ccold'}));
	$node->command_ok([ 'pg_amcheck', '--database', 'postgres', '--heapallindexed' ], 'pg_amcheck finds nothing');
	return;
}

sub totals_are_right
{
	my ($world) = @_;

	return nothing_found('what a subscription keeps is what a recount finds', split /\n/, sql($world->{warehouse}, q{
		SELECT concat_ws(' ', s.template_name, s.target_schema, s.days, l.days, '|', s.rows, l.rows, '|', s.bytes, l.bytes, '|', s.members, l.members, '|',
			s.day_relations, s.month_relations, s.year_relations, l.relations)
		FROM _wh.tenant_templates AS s
		JOIN (SELECT template_name, target_schema, count(*) AS days, sum(rows) AS rows, sum(bytes) AS bytes,
				count(DISTINCT relation_oid) AS relations, count(DISTINCT relation_oid) FILTER (WHERE in_views) AS members
			FROM _wh.day_loads WHERE state <> 'missing' AND relation_oid IS NOT NULL GROUP BY 1, 2) AS l USING (template_name, target_schema)
		WHERE s.days <> l.days OR s.rows <> l.rows OR s.bytes <> l.bytes OR s.members <> l.members
			OR s.day_relations + s.month_relations + s.year_relations <> l.relations}));
}

# Workers are idle, then gone, with their connections, locks and slots.
sub nothing_is_left
{
	my ($world, $patience) = @_;
	my $node = $world->{warehouse};

	nothing_found('no job is running without a worker', split /\n/, sql($node, q{SELECT concat_ws(' ', job_id, kind, owner_pid) FROM _wh.jobs WHERE state IN ('running', 'queued') AND kind <> 'sql'}));
	foreach my $server (@{ $world->{production} })
	{
		my $left = 0;

		ok($world->eventually(30, sub { $left = sql($server, tenant_sessions()); $left == 0 }), $server->name . ': no session is left there') or diag($left);
	}
	wait_until($node, q{SELECT count(*) = 0 FROM _wh.worker_status WHERE backend_type LIKE '%worker'}, 'no worker is left');
	wait_until($node, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'wh_worker%' AND backend_type NOT LIKE '%launcher%' AND backend_type NOT LIKE '%supervisor%'}, 'nor a process of one');
	is(sql($node, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'}), 0, 'nor an advisory lock');
	is(sql($node, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'wh_worker launcher%'}), 1, 'there is one launcher');
	is(sql($node, q{SELECT count(*) FROM pg_prepared_xacts}), 0, 'no prepared transaction');
	nothing_found('temporary files', grep { -f } glob $node->data_dir . '/base/pgsql_tmp/*');
	my $launcher = sql($node, q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'wh_worker launcher%'});
	my ($memory) = slurp_file("/proc/$launcher/smaps_rollup") =~ /^Anonymous:\s+(\d+) kB/m;
	cmp_ok($memory, '<', 64 * 1024, "the launcher's memory is bounded");
	say("the launcher has $memory kB of its own");
	orphaned_files($world);
	return;
}

# A crash in the middle of a load leaves files that no catalog names, as PostgreSQL
# does.  All of them are reported, and nothing else.
sub orphaned_files
{
	my ($world) = @_;
	my $node = $world->{warehouse};
	my ($nobodys, $reported) = ('', '');

	sql($node, 'CHECKPOINT');
	my $same = $world->eventually(30, sub {
		$nobodys = join "\n", nobodys_files($node);
		$reported = join "\n", sort split /\n/, sql($node, 'SELECT path FROM _wh.orphaned_files()');
		$nobodys eq $reported;
	});
	ok($same, 'orphaned_files() reports what crashes left behind') or diag("there are\n$nobodys\nreported are\n$reported");
	return say(scalar(split /\n/, $nobodys) . ' files of loads that a crash ended are nobody\'s');
}

sub nobodys_files
{
	my ($node) = @_;
	my %known = map { $_ => 1 } split /\n/, sql($node, 'SELECT pg_relation_filenode(oid) FROM pg_class WHERE pg_relation_filenode(oid) IS NOT NULL');
	my $database = sql($node, q{SELECT oid FROM pg_database WHERE datname = 'postgres'});
	my $directory = $node->data_dir;
	my @files = grep { m{/(\d+)(?:_\w+)?(?:\.\d+)?$} && !$known{$1} && -s } glob "$directory/base/$database/* $directory/pg_tblspc/*/PG_*/$database/*";

	s{^\Q$directory\E/}{} foreach @files;
	@files = sort @files;
	return @files;
}

# ---- what the log says -------------------------------------------------

sub log_is_clean
{
	my ($world) = @_;
	my (%states, @internal);
	my $signals = 0;

	foreach my $line (split /\n/, slurp_file($world->{warehouse}->logfile))
	{
		$signals++ if $line =~ /was terminated by signal 11\b/;
		push @internal, $line if $line =~ /PANIC:  |TRAP: |terminated by signal (?:4|6|7|8)\b/;
		next unless $line =~ /\] (?<who>[\w ]+) (?<state>[0-9A-Z]{5}) (?:LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC):  (?<what>.*)/ && $+{state} ne '00000';
		my ($who, $state, $what) = @+{qw(who state what)};

		push @internal, $line if $state =~ /^XX/;
		$states{"$state $who"} //= [ 0, $what ];
		$states{"$state $who"}[0]++;
	}
	say(sprintf '%5d x %s: %s', $states{$_}[0], $_, $states{$_}[1]) foreach sort keys %states;
	cmp_ok($signals, '<=', $world->{segv}, 'no process crashed that was not made to');
	return nothing_found('no error of the kind that cannot happen is in the log', @internal);
}

1;
