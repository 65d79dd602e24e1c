# Where connections go and as whom: a person who may write the rows of tenants,
# and is no superuser, gets nothing that only the server's operating system user
# may have, and no password that was meant for somebody else.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhAttack;
use WhTest;

# Without spaces, so that it gets through a connection string of the weak side.
my $password = 'sesame-7f3a';
my $files = PostgreSQL::Test::Utils::tempdir();

# Whose certificate it is says the name in it.
system_or_bail('openssl', 'req', '-new', '-x509', '-days', '30', '-nodes', '-newkey', 'ec',
	'-pkeyopt', 'ec_paramgen_curve:prime256v1', '-subj', '/CN=cert_reader',
	'-out', "$files/client.crt", '-keyout', "$files/client.key");
chmod 0600, "$files/client.key" or die "could not chmod client.key: $!";

# ---- servers -----------------------------------------------------------

# What is to be stolen: rows of this server, which only some may read.
sub keep_secret
{
	my ($node, $secret, $reader) = @_;

	$node->safe_psql('postgres', "CREATE TABLE vault AS SELECT '$secret'::text AS secret;"
		  . (defined $reader ? "GRANT SELECT ON vault TO $reader" : ''));
	return;
}

sub let_in
{
	my ($node, @lines) = @_;

	unlink $node->data_dir . '/pg_hba.conf';
	$node->append_conf('pg_hba.conf', join("\n", @lines, ''));
	$node->reload;
	return;
}

my $production = new_tenant('production', password => $password, conf => { ssl_ca_file => "'$files/client.crt'" });
keep_secret($production, 'the rows of production', 'wh_reader');
$production->safe_psql('postgres', qq{
	CREATE ROLE cert_reader LOGIN;
	CREATE ROLE twin LOGIN PASSWORD '$password';
	GRANT SELECT ON vault TO cert_reader, twin});
let_in($production, 'local all all trust',
	'hostssl all cert_reader 127.0.0.1/32 cert',
	'hostssl all wh_reader,twin 127.0.0.1/32 scram-sha-256');
$production->safe_psql('postgres', 'CREATE DATABASE other');
$production->safe_psql('other', "CREATE TABLE vault AS SELECT 'the rows of another database'::text AS secret; GRANT SELECT ON vault TO wh_reader");

# A server whose superuser the operating system user may be, as on most machines.
my $neighbour = new_tenant('neighbour');
keep_secret($neighbour, 'only for the superuser');
let_in($neighbour, 'local all all peer', 'hostssl all all 127.0.0.1/32 trust');
$neighbour->append_conf('postgresql.conf', "log_statement = 'all'");
$neighbour->reload;
my $superuser = sql($neighbour, 'SELECT current_user');

my $no_tls = new_tenant('no_tls', password => $password, tls => 0);
keep_secret($no_tls, 'sent in the clear', 'wh_reader');

# It takes down the password that it is given.
my $thief = new_tenant('thief', password => $password);
keep_secret($thief, 'the password has arrived', 'wh_reader');
let_in($thief, 'local all all trust', 'hostssl all all 127.0.0.1/32 password');

# ---- warehouses: ours, ours weakened, and one on dblink ----------------

# A program that knows all passwords.
append_to_file("$files/vault", "#!/bin/sh\necho $password\n");
chmod 0700, "$files/vault" or die "could not chmod vault: $!";

my $node = new_warehouse(conf => { 'wh_worker.enabled' => 'off', 'wh_worker.password_command' => "'$files/vault'" });
my @tables = qw(tenant_connections mv_templates);

sub new_stock
{
	my ($where) = @_;

	new_stock_warehouse($where, 'stock');
	$where->safe_psql('stock', q{
		GRANT ALL ON ALL TABLES IN SCHEMA _wh TO whadmin;
		CREATE SCHEMA loot;
		GRANT USAGE ON SCHEMA loot TO whadmin;
		ALTER DEFAULT PRIVILEGES IN SCHEMA loot GRANT SELECT ON TABLES TO whadmin;
		INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
		VALUES ('steal', 'SELECT secret FROM vault', 'secret text'),
			   ('setting', $$SELECT coalesce(current_setting('wh.lent', true), 'nothing was lent')$$, 'secret text')});
	return;
}

sub add_steal_templates
{
	my ($where, $database) = @_;

	$where->safe_psql($database, q{
		INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
		VALUES ('steal', $$SELECT secret FROM vault WHERE '{TARGET_DATE}' > ''$$, 'secret text'),
			   ('setting', $$SELECT coalesce(current_setting('wh.lent', true), 'nothing was lent') AS secret WHERE '{TARGET_DATE}' > ''$$, 'secret text')});
	return;
}

new_stock($node);
add_steal_templates($node, 'postgres');
foreach my $database ('unchecked', 'owned')
{
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION wh_worker');
	add_steal_templates($node, $database);
}
$node->safe_psql('unchecked', 'ALTER TABLE _wh.tenant_connections DISABLE TRIGGER check_tenant_row');
$node->safe_psql('owned', q{
	ALTER TABLE _wh.tenant_connections OWNER TO whadmin;
	ALTER FUNCTION _wh.check_tenant_row() OWNER TO whadmin;
	ALTER FUNCTION _wh.notify_config() OWNER TO whadmin});

# ---- what the attackers do ---------------------------------------------

sub quoted
{
	my ($value) = @_;

	return 'NULL' unless defined $value;
	return "'" . ($value =~ s/'/''/gr) . "'";
}

sub insert_statement
{
	my (%row) = @_;
	my @columns = sort keys %row;

	return "DELETE FROM _wh.tenant_connections WHERE tenant_name = 'evil';\n"
	  . 'INSERT INTO _wh.tenant_connections (tenant_name, '
	  . join(', ', @columns) . ") VALUES ('evil', "
	  . join(', ', map { quoted($row{$_}) } @columns) . ");\n";
}

sub row_of
{
	my ($server, %row) = @_;

	return (host => '127.0.0.1', port => $server->port, dbname => 'postgres',
		username => 'wh_reader', password => $password, %row);
}

# Fetches over what the row says, here or in a weakened copy of ours.
sub fetch_statement
{
	my ($template) = @_;

	return sprintf(q{SELECT * FROM _wh.fetch_day('%s', 'evil', '2025-01-01') AS t(secret text);}, $template // 'steal');
}

sub fetched
{
	my ($database, $statements, $secret, %opt) = @_;

	return gets($opt{node} // $node, $database, $statements . fetch_statement($opt{template}), $secret, user => 'whadmin');
}

# The same as the requirements' functions do it.
sub stock_fetched
{
	my ($statements, $secret, %opt) = @_;
	my $where = $opt{node} // $node;
	my $template = $opt{template} // 'steal';
	my $result = gets($where, 'stock', $statements . qq{
		SELECT _wh.create_mv_from_template('$template', 'evil', 'loot', '2025-01-01');
		SELECT * FROM loot.${template}_2025_01_01;}, $secret, user => 'whadmin');

	$where->safe_psql('stock', "DROP MATERIALIZED VIEW IF EXISTS loot.${template}_2025_01_01");
	return $result;
}

# What the row for the stock table is: its password must not be null, and it
# has no further columns.
sub stock_row
{
	my (%row) = @_;

	$row{password} //= '';
	return map { $_ => $row{$_} } qw(host port dbname username password);
}

# One row, tried on dblink and here.
sub attack_with_row
{
	my ($name, $row, $secret, $why) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return attack($name, why => $why,
		weak => sub { stock_fetched(insert_statement(stock_row(%$row)), $secret) },
		here => sub { fetched('postgres', insert_statement(%$row), $secret) });
}

is(sql($node, insert_statement(row_of($production)) . fetch_statement()),
	'the rows of production', 'a tenant that asks for the password of its row is reached');
is(sql($node, "SELECT detail FROM _wh.check_tenant('evil') WHERE check_name = 'password'"),
	'stored, encrypted', 'and check_tenant says how');

# ---- as the server's operating system user -----------------------------

my $for_superuser = 'only for the superuser';
my $socket = $neighbour->host;

attack_with_row('the local superuser by peer',
	{ row_of($neighbour, host => $socket, username => $superuser, password => undef) },
	$for_superuser, qr/it has no password/);
attack_with_row('the local superuser by peer, with any password',
	{ row_of($neighbour, host => $socket, username => $superuser, password => 'any') },
	$for_superuser, qr/did not ask for a password/);
attack_with_row('the local superuser by trust',
	{ row_of($neighbour, username => $superuser, password => '') },
	$for_superuser, qr/it has no password/);
attack_with_row('the local superuser by trust, with any password',
	{ row_of($neighbour, username => $superuser, password => 'any') },
	$for_superuser, qr/did not ask for a password/);
cmp_ok(log_count($neighbour, qr/statement: SELECT secret FROM vault/), '>=', 4, 'what is weaker sent commands there');
is(log_count($neighbour, qr/ wh_worker: .*(?:statement: |execute )/), 0, 'we not one');

# ---- what the environment of the server lends --------------------------

my $lender = new_warehouse(name => 'lender', conf => { 'wh_worker.enabled' => 'off' });
new_stock($lender);
add_steal_templates($lender, 'postgres');
append_to_file("$files/passfile", "*:*:*:*:$password\n");
chmod 0600, "$files/passfile" or die "could not chmod passfile: $!";
append_to_file("$files/services", "[lent]\noptions=-c wh.lent=from-the-service-file\n");

my @lent = (
	[ 'a password file of the server', { PGPASSFILE => "$files/passfile" },
		{ password => undef }, 'the rows of production', qr/it has no password/ ],
	[ 'a service file of the server', { PGSERVICE => 'lent', PGSERVICEFILE => "$files/services" },
		{ template => 'setting' }, 'from-the-service-file', qr/nothing was lent/ ],
	[ 'session settings in the environment', { PGOPTIONS => '-c wh.lent=from-the-environment' },
		{ template => 'setting' }, 'from-the-environment', qr/nothing was lent/ ],
	[ 'another address in the environment', { PGHOSTADDR => '127.0.0.1' },
		{ host => 'production.invalid' }, 'the rows of production', qr/could not translate host name/ ],
	[ 'a certificate in the environment', { PGSSLCERT => "$files/client.crt", PGSSLKEY => "$files/client.key" },
		{ username => 'cert_reader' }, 'the rows of production', qr/client certificate/ ],
	[ 'a password in the environment', { PGPASSWORD => $password },
		{ password => undef }, 'the rows of production', qr/it has no password/ ],
);
foreach my $case (@lent)
{
	my ($name, $environment, $change, $secret, $why) = @$case;
	my %row = row_of($production, %$change);
	my $template = delete $row{template};
	# A null password is left out, not empty, where a careful person wrote the function.
	my $without_password = sprintf q{CREATE OR REPLACE FUNCTION _wh.get_tenant_connection_string(tenant_name text) RETURNS text
		LANGUAGE sql SECURITY DEFINER AS $$ SELECT 'host=127.0.0.1 dbname=postgres user=wh_reader port=%d' $$}, $production->port;

	$lender->stop('fast');
	{
		local %ENV = (%ENV, %$environment);
		$lender->start;
	}
	sql($lender, $without_password, 'stock') if exists $environment->{PGPASSWORD};
	attack($name, why => $why,
		weak => sub { stock_fetched(insert_statement(stock_row(%row)), $secret, node => $lender, template => $template) },
		here => sub { fetched('postgres', insert_statement(%row), $secret, node => $lender, template => $template) });
}
$lender->stop('fast');

# ---- names that are more than names ------------------------------------

my $elsewhere = 'port=' . $neighbour->port . " user=$superuser";

attack_with_row('a connection string as database name',
	{ row_of($production, dbname => 'postgres port=' . $thief->port) }, 'the password has arrived', qr/database "postgres port=\d+" does not exist/);
attack_with_row('a connection string as user name',
	{ row_of($production, username => "wh_reader $elsewhere") }, $for_superuser, qr/no pg_hba.conf entry/);
attack_with_row('a connection string as password',
	{ row_of($production, password => "x $elsewhere") }, $for_superuser, qr/password authentication failed/);

# The weak side has no options: there the database name smuggles them in.
sub attack_with_options
{
	my ($name, $row, $options, $secret, $why) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $smuggled = join ' ', $row->{dbname}, map { "$_=$options->{$_}" } sort keys %$options;
	my $json = '{' . join(', ', map { qq("$_": "$options->{$_}") } sort keys %$options) . '}';

	return attack($name, why => $why,
		weak => sub { stock_fetched(insert_statement(stock_row(%$row, dbname => $smuggled)), $secret) },
		here => sub { fetched('postgres', insert_statement(%$row, options => $json), $secret) });
}

attack_with_options('an option that redirects', { row_of($production, host => 'production.invalid') },
	{ hostaddr => '127.0.0.1' }, 'the rows of production', qr/options may not hold "hostaddr"/);
attack_with_options('an option that names a password file', { row_of($production, password => undef) },
	{ passfile => "$files/passfile" }, 'the rows of production', qr/options may not hold "passfile"/);
attack_with_options('a certificate and key of the server', { row_of($production, username => 'cert_reader', password => undef) },
	{ sslcert => "$files/client.crt", sslkey => "$files/client.key" },
	'the rows of production', qr/only a superuser may name or change files/);
my $no_certificate = qr/"\Q$files\E\/passfile": no certificate/;
attack('a look at what files there are', why => qr/only a superuser may name or change files/,
	weak => sub { fetched('unchecked', insert_statement(row_of($production, sslmode => 'verify-ca', sslrootcert => "$files/passfile")), $no_certificate) },
	here => sub { fetched('postgres', insert_statement(row_of($production, sslmode => 'verify-ca', sslrootcert => "$files/passfile")), $no_certificate) });

# ---- in the clear ------------------------------------------------------

my $in_the_clear = 'sent in the clear';

attack_with_row('a server that offers no TLS', { row_of($no_tls) }, $in_the_clear, qr/server does not support SSL/);
attack_with_row('sslmode prefer', { row_of($no_tls, sslmode => 'prefer') }, $in_the_clear, qr/sslmode "prefer" does not protect/);
attack_with_row('sslmode disable behind a socket in a list of hosts',
	{ row_of($no_tls, host => '/nonexistent,127.0.0.1', sslmode => 'disable') }, $in_the_clear, qr/sslmode "disable" does not protect/);
attack('a row that asks for no TLS', why => qr/only a superuser may do without TLS to tenant "evil"/,
	weak => sub { fetched('unchecked', insert_statement(row_of($no_tls, sslmode => 'disable', tls_required => 'false')), $in_the_clear) },
	here => sub { fetched('postgres', insert_statement(row_of($no_tls, sslmode => 'disable', tls_required => 'false')), $in_the_clear) });
fails_with($node, insert_statement(row_of($production, host => '127.0.0.1,')), '22023', qr/empty entry/,
	'a list of hosts has no empty entry, for which libpq would take the local socket');

# Whoever answers at the tenant's address, with a certificate of his own.
my %verified = (sslmode => 'verify-full', sslrootcert => $production->data_dir . '/server.crt');
my $arrived = 'the password has arrived';

is(sql($node, insert_statement(row_of($production, %verified)) . fetch_statement()),
	'the rows of production', 'with verify-full the tenant is reached');
is(sql($node, insert_statement(row_of($production, %verified, options => '{"channel_binding": "require"}')) . fetch_statement()),
	'the rows of production', 'and with channel_binding');
sql($node, insert_statement(row_of($thief, %verified)));
attack('a server that only looks like the tenant', why => qr/certificate verify failed/,
	weak => sub { stock_fetched(insert_statement(stock_row(row_of($thief))), $arrived) },
	here => sub { fetched('postgres', '', $arrived) });
# Here the authority is one that certifies others too: only the name is wrong.
%verified = (host => 'localhost', sslmode => 'verify-full', sslrootcert => $thief->data_dir . '/server.crt');
foreach my $database ('postgres', 'unchecked')
{
	like((attempt($node, $database, insert_statement(row_of($thief, %verified)) . fetch_statement()))[2],
		qr/does not match host name "localhost"/, "$database: the certificate is another server's");
}
attack('verification turned off, to receive the password', why => qr/it has no password/,
	weak => sub { fetched('unchecked', "UPDATE _wh.tenant_connections SET sslmode = 'require' WHERE tenant_name = 'evil';", $arrived) },
	here => sub { fetched('postgres', "UPDATE _wh.tenant_connections SET sslmode = 'require' WHERE tenant_name = 'evil';", $arrived) });

# ---- what only a superuser may allow -----------------------------------

# It would do with peer, were it allowed.
my %local = (row_of($neighbour, host => $socket, username => $superuser, password => undef));

# The same statements in a weakened copy and here; a superuser's afterwards.
sub attack_copy
{
	my ($name, $copy, $statements, $why) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return attack($name, why => $why,
		weak => sub { fetched($copy, $statements, $for_superuser) },
		here => sub { fetched('postgres', $statements, $for_superuser) });
}

my $no_permission = qr/only a superuser may do without the password of tenant "evil"/;
attack_copy('a row that asks for no password', 'unchecked',
	insert_statement(%local, password_required => 'false'), $no_permission);
attack_copy('a row that is changed to ask for none', 'unchecked',
	insert_statement(%local) . "UPDATE _wh.tenant_connections SET password_required = false;", $no_permission);

foreach my $database ('postgres', 'unchecked')
{
	sql($node, insert_statement(%local, username => 'wh_reader', password_required => 'false'), $database);
}
attack_copy('a permission that was given for another role', 'unchecked',
	"UPDATE _wh.tenant_connections SET username = '$superuser' WHERE tenant_name = 'evil';",
	qr/only a superuser may change username of tenant "evil"/);
foreach my $database ('postgres', 'unchecked')
{
	sql($node, insert_statement(%local, host => '127.0.0.9', password_required => 'false'), $database);
}
attack_copy('a permission that was given for another server', 'unchecked',
	"UPDATE _wh.tenant_connections SET host = '$socket' WHERE tenant_name = 'evil';",
	qr/only a superuser may change host of tenant "evil"/);

attack_copy('the check switched off by the owner of the table', 'owned',
	"ALTER TABLE _wh.tenant_connections DISABLE TRIGGER check_tenant_row;\n"
	  . insert_statement(%local, password_required => 'false'),
	qr/must be owner of table tenant_connections/);
sql($node, 'ALTER TABLE _wh.tenant_connections ENABLE TRIGGER check_tenant_row; DELETE FROM _wh.tenant_connections', 'owned');

my $evil_function = q{CREATE FUNCTION public.evil() RETURNS trigger LANGUAGE plpgsql
	AS 'BEGIN NEW.password_required := false; RETURN NEW; END';
	CREATE TRIGGER zz BEFORE INSERT ON _wh.tenant_connections FOR EACH ROW EXECUTE FUNCTION public.evil();};
attack_copy('a trigger that changes the row after the check', 'owned',
	$evil_function . insert_statement(%local), qr/permission denied for table tenant_connections/);
sql($node, 'DROP FUNCTION public.evil CASCADE; DELETE FROM _wh.tenant_connections', 'owned');

attack_copy('rows in a child table, which the check never sees', 'owned',
	'DELETE FROM _wh.tenant_connections; CREATE TABLE public.child () INHERITS (_wh.tenant_connections);'
	  . (insert_statement(%local, password_required => 'false') =~ s/INSERT INTO _wh.tenant_connections/INSERT INTO public.child/r),
	qr/must be owner of table tenant_connections/);
sql($node, 'DROP TABLE public.child', 'owned');

attack_copy('another function in place of the check', 'owned',
	"CREATE OR REPLACE FUNCTION _wh.check_tenant_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
	  . insert_statement(%local, password_required => 'false'),
	qr/must be owner of function check_tenant_row/);

my $ambush = q{CREATE OR REPLACE FUNCTION _wh.notify_config() RETURNS trigger LANGUAGE plpgsql
	AS 'BEGIN ALTER ROLE whadmin CREATEDB; RETURN NULL; END';};
foreach my $side ('owned', 'postgres')
{
	sql($node, insert_statement(row_of($production)), $side);
}

# The superuser comes by and changes a row.
sub ambushed
{
	my ($database) = @_;

	attempt($node, $database, $ambush, user => 'whadmin');
	sql($node, 'UPDATE _wh.tenant_connections SET max_connections = 1', $database);
	return sql($node, "SELECT rolcreatedb FROM pg_roles WHERE rolname = 'whadmin'") eq 't';
}
attack('a superuser who changes a row runs what was put there for him', why => qr/must be owner of function notify_config/,
	weak => sub { my $done = ambushed('owned'); sql($node, 'ALTER ROLE whadmin NOCREATEDB'); return $done },
	here => sub { ambushed('postgres') });

# Code that waits for a superuser: in a trigger that runs at the commit, when he
# has his rights back, or in a function that he calls.
sub lurked
{
	my ($database, $trap, @visit) = @_;
	my $code = q{BEGIN IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN ALTER ROLE whadmin BYPASSRLS; END IF; };

	attempt($node, $database, qq{CREATE SCHEMA lurking; CREATE FUNCTION lurking.code() RETURNS trigger LANGUAGE plpgsql AS '$code RETURN NULL; END';
		$trap}, user => 'whadmin');
	my $told = last_answer();
	foreach my $visit (@visit)
	{
		attempt($node, $database, $visit);
		$told .= last_answer();
	}
	note_answer($told);
	my $done = sql($node, "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'whadmin'") eq 't';
	sql($node, 'ALTER ROLE whadmin NOBYPASSRLS; DROP SCHEMA lurking CASCADE', $database);
	return $done;
}
my $waits = 'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION lurking.code();';
my $visit = 'UPDATE _wh.tenant_connections SET max_connections = coalesce(max_connections, 1) + 1';
attack('a trigger of the audit log waits for the commit of a superuser', why => qr/within security-restricted operation/,
	weak => sub { lurked('owned', "CREATE CONSTRAINT TRIGGER lurks AFTER UPDATE ON _wh.tenant_connections $waits", $visit) },
	here => sub { lurked('postgres', "CREATE CONSTRAINT TRIGGER lurks AFTER INSERT ON _wh.audit_log $waits", $visit) });
my $cascade = "CREATE TABLE lurking.log (tenant text REFERENCES _wh.tenant_connections ON DELETE CASCADE);
	INSERT INTO lurking.log SELECT tenant_name FROM _wh.tenant_connections;
	CREATE CONSTRAINT TRIGGER lurks AFTER DELETE ON lurking.log $waits";
sql($node, q{INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES ('leaving', 'h', 'd', 'u')}, $_) foreach 'owned', 'postgres';
# From 18 on a trigger that waits runs as who caused it, which is the owner of the key.
if ($node->pg_version < 18)
{
	attack('a foreign key has a superuser who deletes a tenant run a trigger', why => qr/permission denied for table tenant_connections/,
		weak => sub { lurked('owned', $cascade, "DELETE FROM _wh.tenant_connections WHERE tenant_name = 'leaving'") },
		here => sub { lurked('postgres', $cascade, "DELETE FROM _wh.tenant_connections WHERE tenant_name = 'leaving'") });
}
else
{
	fails_with($node, "SET ROLE whadmin; CREATE SCHEMA lurking; $cascade", '42501',
		qr/permission denied for table tenant_connections/, 'a foreign key is refused');
	sql($node, 'DROP SCHEMA lurking CASCADE');
}
foreach my $call ([ 'set_password_from_file', "tenant_name text, file text", 'void', "'x', 'y'", 'RETURN;' ],
	[ 'apply_grants', '', 'bigint', '', 'RETURN 0;' ])
{
	my ($function, $arguments, $result, $values, $return) = @$call;
	my $replaced = "CREATE OR REPLACE FUNCTION _wh.$function($arguments) RETURNS $result LANGUAGE plpgsql
		AS 'BEGIN ALTER ROLE whadmin BYPASSRLS; $return END'";

	sql($node, "ALTER FUNCTION _wh.$function OWNER TO whadmin", 'owned');
	attack("$function, which superusers call, is replaced", why => qr/must be owner of function $function/,
		weak => sub { lurked('owned', $replaced, "SELECT _wh.$function($values)") },
		here => sub { lurked('postgres', $replaced, "SELECT _wh.$function($values)") });
}
attack('a trigger of the schedules waits for a superuser who schedules', why => qr/within security-restricted operation/,
	weak => sub { lurked('owned', "CREATE CONSTRAINT TRIGGER lurks AFTER UPDATE ON _wh.tenant_connections $waits", $visit) },
	here => sub { lurked('postgres', "CREATE CONSTRAINT TRIGGER lurks AFTER INSERT ON _wh.schedules $waits", q{SELECT _wh.schedule('visit', '@daily', 'SELECT 1')}) });

# ---- a password that was meant for another connection ------------------

# A clerk keeps the addresses up to date, and may not read passwords.
foreach my $database ('postgres', 'stock')
{
	$node->safe_psql($database, ($database eq 'postgres' ? 'CREATE ROLE clerk LOGIN;' : '') . q{
		GRANT USAGE ON SCHEMA _wh TO clerk;
		GRANT INSERT, DELETE, SELECT (tenant_name, host), UPDATE (host, port, dbname, username) ON _wh.tenant_connections TO clerk});
}

sub attack_as_clerk
{
	my ($name, $row, $change, $secret, $why) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $statement = $change =~ /^INSERT/ ? $change : "UPDATE _wh.tenant_connections SET $change WHERE tenant_name = 'evil';";

	sql($node, insert_statement(%$row));
	sql($node, insert_statement(stock_row(%$row)), 'stock');
	return attack($name, why => $why // qr/it has no password/,
		weak => sub { attempt($node, 'stock', $statement, user => 'clerk'); stock_fetched('', $secret) },
		here => sub { attempt($node, 'postgres', $statement, user => 'clerk'); fetched('postgres', '', $secret) });
}

attack_as_clerk('another host receives the password', { row_of($thief, host => '127.0.0.9') },
	"host = '127.0.0.1'", $arrived);
attack_as_clerk('another port receives the password', { row_of($production) },
	'port = ' . $thief->port, $arrived);
attack_as_clerk('another host by INSERT … ON CONFLICT', { row_of($thief, host => '127.0.0.9') },
	"INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password) VALUES ('evil', '127.0.0.1', 'd', 'u', 'p') "
	  . "ON CONFLICT (tenant_name) DO UPDATE SET host = excluded.host;", $arrived);
attack_as_clerk('the password opens another database', { row_of($production) },
	"dbname = 'other'", 'the rows of another database');
attack_as_clerk('the password is tried for another role', { row_of($production) },
	"username = 'twin'", 'the rows of production');

sql($node, insert_statement(row_of($production)));
sql($node, insert_statement(row_of($production)), 'unchecked');
my $same = 'UPDATE _wh.tenant_connections SET port = ' . $thief->port . ", password = password WHERE tenant_name = 'evil';";
attack('a password is not given anew by password = password', why => qr/password of tenant "evil" is cleared.*it has no password/s,
	weak => sub { fetched('unchecked', $same, $arrived) },
	here => sub { fetched('postgres', $same, $arrived) });

attack('a vault gives the password for another server', why => qr/only a superuser may let wh_worker.password_command give/,
	weak => sub { fetched('unchecked', insert_statement(row_of($thief, password => undef, password_from_command => 'true')), $arrived) },
	here => sub { fetched('postgres', insert_statement(row_of($thief, password => undef, password_from_command => 'true')), $arrived) });
foreach my $database ('postgres', 'unchecked')
{
	sql($node, insert_statement(row_of($production, password => undef, password_from_command => 'true')), $database);
}
is(sql($node, fetch_statement()), 'the rows of production', 'a superuser may have the program asked');
my $moved = 'UPDATE _wh.tenant_connections SET port = ' . $thief->port . " WHERE tenant_name = 'evil';";
attack('a vault gives the password for another port', why => qr/only a superuser may change port of tenant "evil"/,
	weak => sub { fetched('unchecked', $moved, $arrived) },
	here => sub { fetched('postgres', $moved, $arrived) });

# ---- what goes on as it should -----------------------------------------

my $clear = "UPDATE _wh.tenant_connections SET %s WHERE tenant_name = 'evil' RETURNING password IS NULL";
sql($node, insert_statement(row_of($production)));
foreach my $kept ('max_connections = 2', "sslmode = 'verify-ca', sslrootcert = 'x'", 'port = port', "host = 'elsewhere', password = 'new'",
	"port = 1, password = 'new'")
{
	is(sql($node, sprintf($clear, $kept)), 'f', "$kept: the password stays");
}
is(sql($node, sprintf($clear, "sslmode = 'require'")), 't', 'less verification clears it');

# What a superuser allowed.
is(sql($node, insert_statement(%local, password_required => 'false') . fetch_statement()),
	$for_superuser, 'a superuser may let a tenant do without a password');
is(sql($node, "SELECT ok || ' ' || detail FROM _wh.check_tenant('evil') WHERE check_name = 'password'"),
	'false the tenant need not ask for one: password_required is off', 'check_tenant mentions it');
is(sql($node, insert_statement(row_of($no_tls, sslmode => 'disable', tls_required => 'false')) . fetch_statement()),
	$in_the_clear, 'and without TLS');
my $options = qq({"sslcert": "$files/client.crt", "sslkey": "$files/client.key"});
is(sql($node, insert_statement(row_of($production, username => 'cert_reader', password => undef, password_required => 'false', options => $options)) . fetch_statement()),
	'the rows of production', 'or show a certificate');
is((attempt($node, 'postgres', "UPDATE _wh.tenant_connections SET max_connections = 3, password_required = true, options = options;", user => 'whadmin', on_error_stop => 1))[0],
	0, 'others may still write the row, and be stricter');

# ---- a dump ------------------------------------------------------------

sql($node, 'DELETE FROM _wh.tenant_connections');
sql($node, insert_statement(%$_) =~ s/^DELETE.*\n//r =~ s/'evil'/'tenant $_->{port}$_->{username}'/r)
  foreach { %local, password_required => 'false' },
  { row_of($no_tls, sslmode => 'disable', tls_required => 'false') },
  { row_of($thief, %verified) },
  { row_of($production, username => 'cert_reader', password_required => 'false', options => $options) };
my $rows = sql($node, 'SELECT * FROM _wh.tenant_connections ORDER BY 1');
is(scalar(split /\n/, $rows), 4, 'four rows with all that superusers may allow');
command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', "$files/dump.sql" ], 'are dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
my ($status, undef, $warnings) = $node->psql('restored', slurp_file("$files/dump.sql"), on_error_stop => 1);
is($status, 0, 'and restored');
unlike($warnings // '', qr/cleared/, 'without a password being cleared');
is(sql($node, 'SELECT * FROM _wh.tenant_connections ORDER BY 1', 'restored'), $rows, 'as they were');
is(sql($node, q{SELECT pg_get_userbyid(relowner) <> 'whadmin' FROM pg_class WHERE oid = '_wh.tenant_connections'::regclass}, 'restored'),
	't', 'the table is a superuser\'s there too');

done_testing();
