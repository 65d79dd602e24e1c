# The sweep: every function of _wh is called and every relation of it read by a
# reader, a reader of one tenant, an operator and a role without rights. The lists
# come from the catalog; what is in none of the classes below fails the test, so
# that whoever adds an object says here who may have it.
use strict;
use warnings;

use Test::More;
use WhTest;

# admin: the admin role alone. operator: operators too. helper: what the status
# views are made of, without rights of its own. everybody: whoever can name it.
my %class_of_function = (
	(map { $_ => 'operator' } qw(
		enqueue_backfill plan_backfill wait_for_backfill cancel_backfill cancel_job retry_failed
		pause resume pause_tenant resume_tenant pause_backfill resume_backfill status_page
		create_mv_name current_date_utc worker_slots is_quiet expected_loads lock_budget pause_reason)),
	(map { $_ => 'helper' } qw(lock_advice metric_counters metric_queue)),
	(map { $_ => 'everybody' } qw(refuse_to_read)),
	(map { $_ => 'admin' } qw(
		add_tenant remove_tenant subscribe unsubscribe drop_day setup_cron convert_layout adopt plan_adopt
		get_tenant_connection_string check_tenant check_template
		grant_tenant_reader revoke_tenant_reader apply_grants grant_operator revoke_operator
		orphaned_files confirm_warehouse rebuild_entire_warehouse release_data warehouse_identity note_restore
		fetch_day create_mv_from_template update_mv_by_template update_mv_window_by_template
		update_tenant_union_view_by_template update_public_view_by_template does_mv_exist refresh_mv
		create_combined_table_from_template_by_month create_combined_table_from_template_by_year write_status_page
		schedule unschedule pause_schedule resume_schedule import_pg_cron in_zone quiet_until
		rotate_key set_password_from_file seal_password audit_change guard_audit_log
		check_tenant_row check_subscription_row check_schedule check_tenant_reader template_changed notify_config
		relation_tier first_day_of_query)));
my %class_of_relation = (
	(map { $_ => 'operator' } qw(worker_status backfill_progress job_status data_freshness storage_usage tenant_health union_health metrics)),
	(map { $_ => 'admin' } qw(
		warehouse tenant_connections mv_templates tenant_templates tenant_readers tenant_failures schedules
		day_loads jobs backfills job_run_details job audit_log audit_log_audit_id_seq
		backfills_backfill_id_seq jobs_job_id_seq schedules_schedule_id_seq job_run_details_runid_seq)));
my $marker = 'TEMPLATE-SECRET';
my $command = 'COMMAND-SECRET';
my @secrets = (reader_password(), $marker, $command);

my $source = new_tenant('source');
my $node = new_warehouse();

create_events($source, '2025-03-01', 5, 5);
add_events_template($node, $_, query => "/* $marker */ SELECT id, at, kind, amount, payload FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1")
  foreach 'events', 'leaves';
add_events_template($node, 'broken', query => "SELECT id, at, kind, amount, '$marker'::text || payload FROM events_2 WHERE at = '{TARGET_DATE}'");
sql($node, "UPDATE _wh.mv_templates SET tenant_isolation = true, layout = 'partitions', date_column = 'at' WHERE template_name = 'leaves'");
add_tenant($node, 'shop', $source, templates => [ 'events', 'leaves', 'broken' ], start_date => '2025-03-01');
sql($node, "CREATE ROLE $_ LOGIN") foreach 'tenant_reader', 'operator', 'stranger';
sql($node, "SELECT _wh.grant_tenant_reader('shop', 'tenant_reader'); SELECT _wh.grant_operator('operator')");
sql($node, "SET SESSION AUTHORIZATION whadmin; SELECT _wh.schedule('theirs', '0 0 29 2 *', 'SELECT ''$command''')");
my %backfill = map { $_ => (enqueue_and_wait($node, "'$_', 'shop', '2025-03-01', '2025-03-03'"))[0] } 'events', 'leaves';
is((enqueue_and_wait($node, "'broken', 'shop', '2025-03-01', '2025-03-01'"))[1], 'failed', 'a backfill fails, so that there are errors to read');
my $job = sql($node, "SELECT min(job_id) FROM _wh.jobs WHERE backfill_id = $backfill{events}");

# ---- what there is -----------------------------------------------------

# Functions of the schema: name, signature, a call with arguments that fit.
sub functions
{
	my @functions;
	my %value = (
		template_name => "'events'", tenant_name => "'shop'", tenant_connection_name => "'shop'", target_schema => "'shop'",
		target_date => "'2025-03-01'", start_date => "'2025-03-01'", end_date => "'2025-03-02'", year => '2025', month => '3',
		backfill_id => $backfill{events}, job_id => $job, timeout => "'10ms'", mvname => "'events'", view_name => "'events'",
		role => "'operator'", relation => "'events_2025_03_01'", quiet_hours => "'08:00-12:00'", name => "'theirs'",
		locks => '1', refused_days => '1', refuses => 'false', layout => "'matviews'", mode => "'all'", moment => 'now()', at => 'now()', timezone => "'UTC'",
		newest_first => 'true', allow_missing => 'true', command => "'SELECT 1'", schedule => "'0 0 29 2 *'");

	foreach my $line (split /\n/, sql($node, q{
		SELECT p.proname || '|' || p.oid::regprocedure || '|' || (p.prorettype = 'trigger'::regtype OR p.prorettype = 'record'::regtype AND p.proargmodes IS NULL) || '|' || coalesce((
			SELECT string_agg(coalesce(p.proargnames[a.n], '') || ':' || format_type(a.type, NULL), ',' ORDER BY a.n)
			FROM unnest(p.proargtypes) WITH ORDINALITY a (type, n)), '')
		FROM pg_proc p WHERE p.pronamespace = '_wh'::regnamespace ORDER BY p.oid::regprocedure::text}))
	{
		my ($name, $signature, $no_table, $arguments) = split /\|/, $line, 4;
		my @values = map { my ($argument, $type) = split /:/, $_, 2; ($value{$argument} // 'NULL') . "::$type" } split /,/, $arguments;

		push @functions, { name => $name, signature => $signature,
			call => ($no_table eq 'true' ? 'SELECT ' : 'SELECT * FROM ') . "_wh.$name(" . join(', ', @values) . ')' };
	}
	return @functions;
}

# Relations of the schema, but for the trees of templates, which only admins have.
sub relations
{
	return map { { name => $_, call => /_seq$/ ? qq{SELECT last_value FROM _wh."$_"} : qq{SELECT x::text FROM _wh."$_" x} } } split /\n/, sql($node, q{
		SELECT c.relname FROM pg_class c WHERE c.relnamespace = '_wh'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p')
		AND c.oid NOT IN (SELECT tree_oid FROM _wh.mv_templates WHERE tree_oid IS NOT NULL
			UNION ALL SELECT part_oid FROM _wh.tenant_templates WHERE part_oid IS NOT NULL) ORDER BY 1});
}

sub trees
{
	return split /\n/, sql($node, q{SELECT tree_oid::regclass FROM _wh.mv_templates WHERE tree_oid IS NOT NULL
		UNION SELECT part_oid::regclass FROM _wh.tenant_templates WHERE part_oid IS NOT NULL});
}

sub unclassified
{
	return ((map { "function $_->{signature}" } grep { !exists $class_of_function{ $_->{name} } } functions()),
		(map { "relation $_->{name}" } grep { !exists $class_of_relation{ $_->{name} } } relations()));
}

# Runs each statement in a transaction of its own that is rolled back, as the role;
# what each got, and what it was told.
sub run_all
{
	my ($role, @statements) = @_;
	my $script = "\\set VERBOSITY verbose\nSET statement_timeout = '20s';\n";

	$script .= "\\warn == $_\n\\echo == $_\nBEGIN;\n$statements[$_];\nROLLBACK;\n" foreach 0 .. $#statements;
	my ($exit, $out, $err) = $node->psql('postgres', $script, on_error_stop => 0, extra_params => [ '-U', $role ]);
	my @told = map { { out => '', err => '' } } @statements;

	foreach my $side ([ 'out', $out ], [ 'err', $err ])
	{
		while ($side->[1] =~ /^(?:psql:\S+ )?== (\d+)\n(.*?)(?=^(?:psql:\S+ )?== \d+$|\z)/msg)
		{
			$told[$1]{ $side->[0] } = $2;
		}
	}
	return @told;
}

sub denied
{
	my ($told) = @_;

	return $told->{err} =~ /ERROR:  42501: permission denied for/;
}

sub secrets_in
{
	my ($told) = @_;
	my $text = $told->{out} . ($told->{err} =~ s/^LINE \d+:.*\n.*$//mgr);

	return grep { index($text, $_) >= 0 } @secrets;
}

is_deeply([ unclassified() ], [], 'every function and relation is classified');
is_deeply([ grep { my $name = $_; !grep { $_->{name} eq $name } functions() } sort keys %class_of_function ], [], 'and every function that is classified exists');
is_deeply([ grep { my $name = $_; !grep { $_->{name} eq $name } relations() } sort keys %class_of_relation ], [], 'and every relation');
sql($node, q{CREATE FUNCTION _wh.forgotten() RETURNS integer LANGUAGE sql AS 'SELECT 1'; CREATE TABLE _wh.forgotten_too (a integer); CREATE VIEW _wh.forgotten_view AS SELECT 1 AS a});
is_deeply([ unclassified() ], [ 'function _wh.forgotten()', 'relation forgotten_too', 'relation forgotten_view' ], 'a new one would be noticed');
sql($node, 'DROP FUNCTION _wh.forgotten(); DROP TABLE _wh.forgotten_too; DROP VIEW _wh.forgotten_view');

# ---- what the catalog says ---------------------------------------------

is(sql($node, q{SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p WHERE pronamespace = '_wh'::regnamespace
	AND ((proowner = 'whadmin'::regrole) <> prosecdef OR prosecdef AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false))}), '', 'functions belong to the admin role, but those that run as their caller to a superuser; SECURITY DEFINER has a fixed search_path');
is(sql($node, sprintf q{SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p WHERE pronamespace = '_wh'::regnamespace
	AND NOT prosecdef AND proname IN (%s)}, join ', ', map { "'$_'" } grep { $class_of_function{$_} eq 'operator' } keys %class_of_function), '', 'what an operator may call is SECURITY DEFINER');
is(sql($node, q{SELECT string_agg(p.proname, ', ') FROM pg_proc p WHERE pronamespace = '_wh'::regnamespace AND has_function_privilege('stranger', p.oid, 'EXECUTE')}),
	join(', ', grep { $class_of_function{$_} eq 'everybody' } sort keys %class_of_function), 'PUBLIC has EXECUTE on nothing else');
is(sql($node, q{SELECT string_agg(relname, ', ') FROM pg_class WHERE relnamespace = '_wh'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'S') AND relowner <> 'whadmin'::regrole}), 'tenant_connections', 'relations belong to the admin role, but connections to a superuser');

# ---- everything, by everybody ------------------------------------------

# A role that may name what is in _wh (a second pass) still may not use it.
foreach my $role ('phood_ro', 'tenant_reader', 'stranger', 'operator')
{
	foreach my $with_usage ($role eq 'operator' ? 1 : (0, 1))
	{
		my $may = $role eq 'operator' ? qr/^(?:operator|helper|everybody)$/ : $with_usage ? qr/^everybody$/ : qr/^$/;
		my @objects = ((map { { %$_, class => $class_of_function{ $_->{name} }, what => $_->{signature} } } functions()),
			(map { { %$_, class => $class_of_relation{ $_->{name} }, what => $_->{name} } } relations()),
			(map { { call => "SELECT x::text FROM $_ x", class => 'admin', what => $_ } } trees()));
		my $label = $role . ($with_usage && $role ne 'operator' ? ' with USAGE on the schema' : '');
		my (@open, @shut, @leaking);

		sql($node, "GRANT USAGE ON SCHEMA _wh TO $role") if $with_usage && $role ne 'operator';
		my @told = run_all($role, map { $_->{call} } @objects);
		sql($node, "REVOKE USAGE ON SCHEMA _wh FROM $role") if $with_usage && $role ne 'operator';
		foreach my $index (0 .. $#objects)
		{
			my ($object, $told) = ($objects[$index], $told[$index]);

			push @open, "$object->{what}: $told->{out}$told->{err}" if $object->{class} !~ $may && !denied($told);
			push @shut, "$object->{what}: $told->{err}" if $object->{class} =~ $may && denied($told);
			push @leaking, "$object->{what}: $told->{out}$told->{err}" if secrets_in($told);
		}
		is_deeply(\@open, [], "$label: what it may not use is refused");
		is_deeply(\@shut, [], "$label: what it may use is not");
		is_deeply(\@leaking, [], "$label: and shows no secret");
		cmp_ok(scalar(@objects), '>', 60, "$label: that was all of it");
	}
	my @writes = map {
		my $relation = $_->{name};
		map { sprintf $_, qq{_wh."$relation"} } 'INSERT INTO %s DEFAULT VALUES', 'DELETE FROM %s', 'TRUNCATE %s', 'LOCK TABLE %s IN EXCLUSIVE MODE'
	} grep { $_->{name} !~ /_seq$/ } relations();
	push @writes, map { ("SELECT nextval('_wh.$_->{name}')", "SELECT setval('_wh.$_->{name}', 1)") } grep { $_->{name} =~ /_seq$/ } relations();
	my @told = run_all($role, @writes);

	# A view is refused for what it is before its privileges are looked at; TRUNCATE of it too.
	is_deeply([ map { "$writes[$_]: $told[$_]{err}" } grep { $told[$_]{err} !~ /ERROR:  (?:42501|55000|42809):/ } 0 .. $#writes ], [], "$role writes and locks nothing");
}

# Whatever else a role can read, the system's own catalogs and views included.
foreach my $role ('phood_ro', 'tenant_reader', 'operator')
{
	my @readable = split /\n/, sql($node, "SELECT c.oid::regclass FROM pg_class c WHERE c.relkind IN ('r', 'v', 'm', 'p') AND has_table_privilege('$role', c.oid, 'SELECT') AND has_schema_privilege('$role', c.relnamespace, 'USAGE') ORDER BY 1");
	my @told = run_all($role, (map { "SELECT x::text FROM $_ x" } @readable),
		'SELECT pg_get_viewdef(oid), obj_description(oid) FROM pg_class WHERE relkind IN (\'v\', \'m\')',
		'SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = \'_wh\'::regnamespace');

	is_deeply([ grep { secrets_in($told[$_]) } 0 .. $#told ], [], "$role: no secret in the " . scalar(@readable) . ' relations that it can read');
	cmp_ok(scalar(grep { $_ =~ /^shop\./ } @readable), $role eq 'operator' ? '==' : '>=', $role eq 'operator' ? 0 : 8, $role eq 'operator' ? 'none of them with data' : 'days and views are among them');
	is(scalar(grep { $_ =~ /^_wh\./ } @readable), $role eq 'operator' ? scalar(grep { $_ eq 'operator' } values %class_of_relation) : 0, 'and of _wh only what it shall');
}
is((run_all('phood_ro', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'wh_worker%' OR application_name LIKE 'wh_worker%' OR query LIKE '%shop%' AND pid <> pg_backend_pid()}))[0]{out} =~ s/\s//gr, '0', 'a reader does not see what workers do');
my @found = run_all((sql($node, 'SELECT current_user')), 'SELECT _wh.get_tenant_connection_string(\'shop\'); SELECT x::text FROM _wh.mv_templates x; SELECT x::text FROM _wh.schedules x');
is(scalar(secrets_in($found[0])), 3, 'the secrets are there to be found');

done_testing();
