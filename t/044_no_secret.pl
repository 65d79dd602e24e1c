# A whole workflow on a server that says all it can (every statement and
# message logged, statistics of all statements): no password is anywhere, but
# for the one that a person typed, in the statement in which he typed it.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhAttack;
use WhSecrets;
use WhTest;

my %password = map { $_ => "the word of $_ is " . substr(new_key(), 0, 12) } qw(typed filed copied vaulted wrong bait);
my @untyped = grep { $_ ne 'typed' && $_ ne 'bait' } sort keys %password;
my $scratch = PostgreSQL::Test::Utils::tempdir();
my $first = '2025-03-01';
my $last = '2025-03-31';

# ---- servers -----------------------------------------------------------

my $tenant = new_tenant('tenant', password => $password{typed}, conf => { talkative_settings() });

$tenant->append_conf('pg_hba.conf', "hostssl all all 127.0.0.1/32 scram-sha-256\n");
$tenant->reload;
foreach my $role (qw(filed copied vaulted wrong bait))
{
	$tenant->safe_psql('postgres', "CREATE ROLE $role LOGIN PASSWORD '" . ($role eq 'wrong' ? 'another' : $password{$role}) . "'");
}
create_events($tenant, $first, 31, 5);
sql($tenant, 'GRANT SELECT ON events TO PUBLIC');

my $vault = "$scratch/vault";
append_to_file($vault, "#!/bin/sh\nif [ \"\$1\" = vaulted ]; then echo '$password{vaulted}'; else echo 'no $password{vaulted} for you' >&2; exit 1; fi\n");
chmod 0700, $vault;
foreach my $name (qw(filed wrong))
{
	append_to_file("$scratch/$name", "$password{$name}\n");
}

my %talkative = (
	talkative_settings(),
	shared_preload_libraries => "'wh_worker, pg_stat_statements'",
	'pg_stat_statements.track' => "'all'",
	track_activity_query_size => 65536);
my $keys = write_key_file("$scratch/keys", new_key());
my $node = new_warehouse(conf => {
	%talkative,
	'wh_worker.key_file' => "'$keys'",
	'wh_worker.password_command' => "'$vault'",
	'wh_worker.max_attempts' => 2 });

sql($node, 'CREATE EXTENSION pg_stat_statements');

# A listener hears every notification.
my $listener = $node->background_psql('postgres', on_error_stop => 0);
$listener->query_safe('LISTEN wh_worker');

# ---- the workflow ------------------------------------------------------

add_tenant($node, 'typed', $tenant, password => $password{typed});
foreach my $role (qw(filed vaulted wrong))
{
	sql($node, sprintf("INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password_from_command) VALUES ('%1\$s', '127.0.0.1', %2\$d, 'postgres', '%1\$s', '%1\$s' = 'vaulted')",
			$role, $tenant->port));
}
sql($node, "SELECT _wh.set_password_from_file(tenant_name, '$scratch/' || tenant_name) FROM _wh.tenant_connections WHERE tenant_name IN ('filed', 'wrong')");

# From a file of the client, which no statement holds.
append_to_file("$scratch/copied.tsv", sprintf("copied\t127.0.0.1\t%d\tpostgres\tcopied\t%s\n", $tenant->port, $password{copied}));
sql($node, "\\copy _wh.tenant_connections (tenant_name, host, port, dbname, username, password) from '$scratch/copied.tsv'");
append_to_file("$scratch/copied.password", "$password{copied}\n");
sql($node, "CREATE TEMPORARY TABLE given (password text);\n\\copy given from '$scratch/copied.password'\n"
	  . "UPDATE _wh.tenant_connections SET password = given.password FROM given WHERE tenant_name = 'copied';");

# Rows that are refused, by a trigger, a key, and before they are rows.
append_to_file("$scratch/refused.tsv", sprintf("refused\t127.0.0.1\t0\tpostgres\tcopied\t%s\n", $password{copied}));
$node->psql('postgres', "\\copy _wh.tenant_connections (tenant_name, host, port, dbname, username, password) from '$scratch/refused.tsv'");
$node->psql('postgres', "\\copy _wh.tenant_connections (tenant_name, host, port, dbname, username, password) from '$scratch/copied.tsv'");

append_to_file("$scratch/long.tsv", sprintf("long\t127.0.0.1\t5432\tpostgres\tcopied\t%s\tmore\n", $password{copied}));
my ($status, $out, $error) = $node->psql('postgres', "\\copy _wh.tenant_connections (tenant_name, host, port, dbname, username, password) from '$scratch/long.tsv'");
like($error, qr/extra data after last expected column.*\Q$password{copied}/s, 'who sends a row that is refused is told which');

add_events_template($node, 'events');
add_events_template($node, 'broken', query => "SELECT id, nothing AS at, kind, amount, payload FROM events WHERE at::date = '{TARGET_DATE}'");
sql($node, "SELECT _wh.subscribe(tenant_name, template_name, NULL, '$first') FROM _wh.tenant_connections, _wh.mv_templates");
my %state;
foreach my $name (qw(typed filed copied vaulted wrong))
{
	(undef, $state{$name}) = enqueue_and_wait($node, "'events', '$name', '$first', '$last'");
}
is_deeply(\%state, { typed => 'succeeded', filed => 'succeeded', copied => 'succeeded', vaulted => 'succeeded', wrong => 'failed' },
	'days are loaded by workers with passwords from each source, and not with a wrong one');
(undef, my $broken) = enqueue_and_wait($node, "'broken', 'filed', '$first', '$first'");
is($broken, 'failed', 'a query that does not work fails');

foreach my $name (sort keys %state)
{
	$node->psql('postgres', qq{
		SELECT _wh.update_mv_by_template('events', '$name', '$name', '$first');
		SELECT _wh.refresh_mv('$name', 'events_2025_03_02');
		SELECT count(*) FROM _wh.fetch_day('events', '$name', '$first') AS t(id integer, at timestamp, kind text, amount numeric, payload text);
		SELECT * FROM _wh.check_tenant('$name');
		SELECT * FROM _wh.check_template('events', '$name');
		SELECT _wh.update_tenant_union_view_by_template('events', '$name', '$name');
		SELECT _wh.create_combined_table_from_template_by_month('events', '$name', '$name', 2025, 3);
	}, on_error_stop => 0);
}
sql($node, "SELECT _wh.update_public_view_by_template('events')");
is(sql($node, 'SELECT count(*) FROM events'), 4 * 31 * 5, 'and everything can be queried');
unlike(sql($node, "SELECT _wh.get_tenant_connection_string(tenant_name) FROM _wh.tenant_connections WHERE tenant_name <> 'wrong'"),
	qr/wh_encrypted/, 'the admin reads the passwords');
write_key_file($keys, new_key(), split /\n/, slurp_file($keys));
is(sql($node, 'SELECT _wh.rotate_key()'), 4, 'and the key is changed');
$node->psql('postgres', "SELECT _wh.get_tenant_connection_string('nobody')");
sql($node, "UPDATE _wh.tenant_connections SET dbname = 'elsewhere', password = password WHERE tenant_name = 'copied'");
$node->psql('postgres', "SELECT _wh.update_mv_by_template('events', 'copied', 'copied', '$last')");
my $heard = $listener->query('SELECT 1');
$listener->quit;

# ---- the search --------------------------------------------------------

my $shown = shown_by_catalogs($node, 'postgres');
my $dump = (run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]))[0];
my $globals = (run_command([ 'pg_dumpall', '--globals-only', '-d', $node->connstr('postgres') ]))[0];
my @entries = log_entries($node->logfile);
my @tenants_entries = log_entries($tenant->logfile);

foreach my $relation (qw(_wh.worker_status _wh.job_run_details pg_stat_activity pg_stat_statements pg_proc))
{
	like($shown, qr/^== \Q$relation\E$/m, "$relation was looked at");
}
like($shown, qr/SELECT _wh\.add_tenant\(\$1/, 'the statements, for one');
like($shown, qr/wh_encrypted:v1:/, 'and ciphertexts');
like($dump, qr/wh_encrypted:v1:/, 'so does the dump');
like($heard, qr/Asynchronous notification "wh_worker".*failed/s, 'notifications came');
cmp_ok(scalar(grep { /DEBUG: / } @entries), '>', 1000, 'the log says all it can');
cmp_ok(scalar(entries_with($password{typed}, @entries)), '>', 0, 'and has the statement in which a password was typed');
is_deeply([ grep { !is_typed_statement($_) } entries_with($password{typed}, @entries) ], [], 'but that password nowhere else');
foreach my $name (@untyped)
{
	is_deeply([ entries_with($password{$name}, @entries) ], [], "the password of $name is not in the log");
}
is_deeply([ grep { !is_typed_statement($_) } map { entries_with($_, @tenants_entries) } values %password ], [],
	'nor is one in the log of the tenant, but in CREATE ROLE');
foreach my $name ('typed', @untyped)
{
	ok(index($shown, $password{$name}) < 0, "the catalogs, statistics and views do not show the password of $name");
	ok(index($dump, $password{$name}) < 0 && index($globals, $password{$name}) < 0, 'nor do dumps');
	ok(index($heard, $password{$name}) < 0, 'nor do notifications');
}
sql($node, 'CHECKPOINT');
foreach my $name (qw(typed filed vaulted wrong))
{
	is((run_command([ 'grep', '-rlaF', $password{$name}, $node->data_dir ]))[0], '', "no file of the server has the password of $name");
}

# ---- the same where it goes wrong --------------------------------------

my $stock = new_warehouse(name => 'stock', create_extension => 0, conf => { %talkative });
my $connection = sprintf("host=127.0.0.1 port=%d dbname=postgres user=bait password='%s' sslmode=require", $tenant->port, $password{bait});
my $literal = $connection =~ s/'/''/gr;
my $any = join '|', map { quotemeta } @password{ 'typed', @untyped };

sql($stock, 'CREATE EXTENSION dblink; CREATE EXTENSION postgres_fdw; CREATE EXTENSION pg_stat_statements');
sql($stock, qq{
	CREATE TABLE connections (tenant_name text, connection text);
	CREATE FUNCTION load(query text) RETURNS void LANGUAGE plpgsql AS \$\$
	BEGIN
		EXECUTE format('CREATE MATERIALIZED VIEW day AS SELECT * FROM dblink(%L, %L) AS t(id integer)',
			(SELECT connection FROM connections), query);
	END \$\$;
});
append_to_file("$scratch/connections.tsv", "bait\t$connection\n");
sql($stock, "\\copy connections from '$scratch/connections.tsv'");

attack('a load that fails leaves the password in the log, in the context of its error',
	weak => sub {
		my $from = log_end($stock);
		attempt($stock, 'postgres', "SELECT load('SELECT nothing FROM events')");
		log_count($stock, qr/\Q$password{bait}/, $from) > 0;
	},
	here => sub {
		my $from = log_end($node);
		attempt($node, 'postgres', "SELECT _wh.update_mv_by_template('broken', 'filed', 'filed', '$first')");
		log_count($node, qr/$any/, $from) > 0;
	});

attack('the definition of a day shows the password to whoever may see catalogs',
	weak => sub {
		attempt($stock, 'postgres', "SELECT load('SELECT id FROM events')");
		gets($stock, 'postgres', 'SELECT definition FROM pg_matviews', $password{bait});
	},
	here => sub { gets($node, 'postgres', 'SELECT definition FROM pg_matviews UNION ALL SELECT definition FROM pg_views', qr/$any/) });

attack('the statistics of statements show a password that was typed',
	weak => sub {
		attempt($stock, 'postgres', qq{
			CREATE SERVER tenant FOREIGN DATA WRAPPER postgres_fdw;
			CREATE USER MAPPING FOR CURRENT_USER SERVER tenant OPTIONS (user 'bait', password '$password{bait}')});
		gets($stock, 'postgres', 'SELECT query FROM pg_stat_statements', $password{bait});
	},
	here => sub {
		attempt($node, 'postgres', "UPDATE _wh.tenant_connections SET password = '$password{typed}' WHERE tenant_name = 'typed'");
		gets($node, 'postgres', 'SELECT query FROM pg_stat_statements', qr/$any/);
	});

attack('a dump shows a password that is stored',
	weak => sub { (run_command([ 'pg_dump', '-d', $stock->connstr('postgres') ]))[0] =~ /\Q$password{bait}/ },
	here => sub { (run_command([ 'pg_dump', '-d', $node->connstr('postgres') ]))[0] =~ /$any/ });

# What a session is doing shows to everybody with pg_read_all_stats.
attack('a connection that is being made shows its password in pg_stat_activity',
	weak => sub {
		my $session = $stock->background_psql('postgres');
		$session->query_safe("SELECT dblink_connect('$literal')");
		my $shows = gets($stock, 'postgres', 'SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()', $password{bait});
		$session->quit;
		$shows;
	},
	here => sub {
		my $session = $node->background_psql('postgres');
		$session->query_safe("SELECT ok FROM _wh.check_tenant('filed')");
		my $shows = gets($node, 'postgres', 'SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()', qr/$any/);
		$session->quit;
		$shows;
	});

done_testing();
