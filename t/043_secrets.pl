# Passwords at rest: what is stored, who can open it, what a rotation and a
# restore leave, and the program that fetches passwords from a vault.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhAttack;
use WhSecrets;
use WhTest;

my $password = reader_password();
my $yesterday = "(now() AT TIME ZONE 'UTC')::date - 1";
my $tenant = new_tenant('tenant');
my ($keys, $first_key, $second_key) = (PostgreSQL::Test::Utils::tempdir() . '/keys', new_key(), new_key());

write_key_file($keys, '# made for this test', '', $first_key);

my $node = new_warehouse(conf => { 'wh_worker.key_file' => "'$keys'" });

sub stored
{
	my ($name, $at) = @_;

	return sql($at // $node, "SELECT password FROM _wh.tenant_connections WHERE tenant_name = '$name'");
}

sub loads
{
	my ($at, $name) = @_;
	my ($status, $out) = $at->psql('postgres',
		"SELECT _wh.update_mv_by_template('events', '$name', '$name', $yesterday)");

	return ($out // '') eq 't';
}

sub clear_text
{
	my ($name, $at) = @_;
	my $connection = sql($at // $node, "SELECT _wh.get_tenant_connection_string('$name')");

	return $connection =~ /password='((?:[^'\\]|\\.)*)'/ ? $1 : undef;
}

create_events($tenant, sql($node, "SELECT $yesterday"), 1, 10);
add_events_template($node, 'events');

# ---- what is stored ----------------------------------------------------

add_tenant($node, 'a', $tenant, templates => ['events']);
like(stored('a'), qr/^wh_encrypted:v1:[0-9a-f]{16}:[0-9a-f]+$/, 'add_tenant stores a ciphertext');
sql($node, sprintf(q{INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password)
	VALUES ('b', '127.0.0.1', %d, 'postgres', 'wh_reader', '%s')}, $tenant->port, $password));
like(stored('b'), qr/^wh_encrypted:v1:/, 'a plain INSERT too');
isnt(stored('a') =~ s/.*://r, stored('b') =~ s/.*://r, 'the same password twice is not the same ciphertext');
is(clear_text('a'), $password, 'the admin gets it in clear');
ok(loads($node, 'a'), 'a load decrypts it');
ok(loads($node, 'b'), 'the other tenant too');

my $before = stored('a');
sql($node, "UPDATE _wh.tenant_connections SET max_connections = 3 WHERE tenant_name = 'a'");
is(stored('a'), $before, 'a change of something else leaves the ciphertext');
sql($node, "UPDATE _wh.tenant_connections SET password = '$password' WHERE tenant_name = 'a'");
isnt(stored('a'), $before, 'a password that is given again is encrypted again');
my $odd = "it's \\ \xc3\xa9\t";
sql($node, "SELECT _wh.add_tenant('odd', 'h', NULL, 'd', 'u', \$q\$$odd\$q\$), _wh.add_tenant('empty', 'h', 1, 'd', 'u', ''), _wh.add_tenant('none', 'h', 1, 'd', 'u', NULL)");
is(clear_text('odd'), $odd =~ s/(['\\])/\\$1/gr, 'quotes, backslashes and other characters come back as they were');
is(clear_text('empty'), '', 'an empty password stays one');
is(stored('none'), '', 'no password stays none');
fails_with($node, "INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password) VALUES ('x', 'h', 'd', 'u', 'wh_encrypted:hello')",
	'22023', qr/no ciphertext of this version/, 'a password that looks like a ciphertext is refused');
is(sql($node, "SELECT detail FROM _wh.check_tenant('a') WHERE check_name = 'password'"), 'stored, encrypted', 'check_tenant says so');

# ---- a stock alternative, and a server without a key -------------------

my $clear = new_warehouse(name => 'clear', conf => { 'wh_worker.key_file' => "''" });
my ($status, $out, $warning) = $clear->psql('postgres',
	sprintf("SELECT _wh.add_tenant('a', '127.0.0.1', %d, 'postgres', 'wh_reader', '%s'), _wh.add_tenant('b', 'h', 1, 'd', 'u', '%s')",
		$tenant->port, $password, $password));
my @warnings = $warning =~ /WARNING: .*stored in clear/g;
is(scalar @warnings, 1, 'without a key file a transaction is warned once');
unlike($warning, qr/\Q$password/, 'without the password');
add_events_template($clear, 'events');
sql($clear, "SELECT _wh.subscribe('a', 'events')");
ok(loads($clear, 'a'), 'it works all the same');
like(sql($clear, "SELECT detail FROM _wh.check_tenant('a') WHERE check_name = 'password'"), qr/in clear/, 'check_tenant says what it is');

# What an extension for encryption gives: a ciphertext that knows no row.
sql($clear, q{
	CREATE EXTENSION pgcrypto;
	CREATE TABLE stock (tenant_name text, host text, password bytea, CHECK (host <> 'refused'));
});
sql($clear, "INSERT INTO stock VALUES ('a', 'h', pgp_sym_encrypt('$password', 'key')), ('mallory', 'evil.example', NULL)");

sub dump_of
{
	my ($at) = @_;

	return (run_command([ 'pg_dump', '-d', $at->connstr('postgres'), '--schema=_wh' ]))[0];
}

attack('a stolen dump shows passwords',
	weak => sub { dump_of($clear) =~ /\Q$password/ },
	here => sub { dump_of($node) =~ /\Q$password/ });

sub on_disk
{
	my ($at) = @_;

	sql($at, 'CHECKPOINT');
	return (run_command([ 'grep', '-rlaF', $password, $at->data_dir ]))[0] ne '';
}

attack('a stolen disk shows passwords, in tables or in the WAL',
	weak => sub { on_disk($clear) }, here => sub { on_disk($node) });

attack('a ciphertext that is copied to the row of another tenant opens there',
	why => qr/28P01|was not encrypted for this row/,
	weak => sub {
		attempt($clear, 'postgres', "UPDATE stock SET password = (SELECT password FROM stock WHERE tenant_name = 'a') WHERE tenant_name = 'mallory'");
		gets($clear, 'postgres', "SELECT pgp_sym_decrypt(password, 'key') FROM stock WHERE tenant_name = 'mallory'", $password);
	},
	here => sub {
		gets($node, 'postgres', "INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password)
			SELECT 'mallory', 'evil.example', dbname, username, password FROM _wh.tenant_connections WHERE tenant_name = 'a';
			SELECT _wh.get_tenant_connection_string('mallory')", $password);
	});

attack('a dump in which somebody changed the host opens the password for that host',
	why => qr/was not encrypted for this row/,
	weak => sub {
		attempt($clear, 'postgres', "UPDATE stock SET host = 'evil.example' WHERE tenant_name = 'a'");
		gets($clear, 'postgres', "SELECT pgp_sym_decrypt(password, 'key') FROM stock WHERE tenant_name = 'a'", $password);
	},
	here => sub {
		my $ciphertext = stored('b');

		# as restoring a dump does it
		gets($node, 'postgres', "DELETE FROM _wh.tenant_connections WHERE tenant_name = 'none';
			INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password) VALUES ('none', 'evil.example', 'postgres', 'wh_reader', '$ciphertext');
			SELECT _wh.get_tenant_connection_string('none')", $password);
	});

my $earlier = stored('b');
sql($node, "UPDATE _wh.tenant_connections SET password = '$password' WHERE tenant_name = 'b'");
attack('a host is changed, and an earlier ciphertext given as the password anew',
	why => qr/was not encrypted for this row/,
	weak => sub {
		attempt($clear, 'postgres', "UPDATE stock SET host = 'other.example', password = password WHERE tenant_name = 'a'");
		gets($clear, 'postgres', "SELECT pgp_sym_decrypt(password, 'key') FROM stock WHERE host = 'other.example'", $password);
	},
	here => sub {
		gets($node, 'postgres', "SET ROLE whadmin;
			UPDATE _wh.tenant_connections SET host = 'evil.example', password = '$earlier' WHERE tenant_name = 'b';
			SELECT _wh.get_tenant_connection_string('b')", qr/evil\.example.*\Q$password/);
	});
is(clear_text('b'), $password, 'nothing of it stays');
sql($node, "UPDATE _wh.tenant_connections SET port = port + 1, password = password WHERE tenant_name = 'b'");
is(clear_text('b'), $password, 'a superuser moves a tenant and says that its password goes along');
sql($node, "UPDATE _wh.tenant_connections SET port = port - 1, password = password WHERE tenant_name = 'b'");

my $damaged = stored('b') =~ s/(.)$/$1 eq '0' ? '1' : '0'/er;
fails_with($node, "UPDATE _wh.tenant_connections SET password = '$damaged' WHERE tenant_name = 'b'",
	'28P01', qr/was not encrypted for this row/, 'a ciphertext with one digit changed is no password');

# A row that is refused: what a constraint and COPY say of it.
my $row = "x\th\t0\td\tu\t$password";

sub copies
{
	my ($at, $table, $columns, $line) = @_;
	my $from = log_end($at);

	attempt($at, 'postgres', "COPY $table ($columns) FROM STDIN;\n$line\n\\.\n");
	return log_count($at, qr/\Q$password/, $from) > 0;
}

attack('a row that COPY refuses is in the log, with its password',
	why => qr/port 0 is out of range/,
	weak => sub {
		attempt($clear, 'postgres', 'ALTER TABLE stock ALTER password TYPE text; ALTER TABLE stock ADD port integer CHECK (port > 0)');
		copies($clear, 'stock', 'tenant_name, host, port, password', "x\th\t0\t$password");
	},
	here => sub { copies($node, '_wh.tenant_connections', 'tenant_name, host, port, dbname, username, password', $row) });
sql($node, 'CREATE TABLE given (password text); CREATE TABLE tenant_connections_given (password text)');
attack('a password with a tab, by the way of a table of its own, is in the log', why => qr/extra data after last expected column/,
	weak => sub { copies($node, 'given', 'password', "\t$password") },
	here => sub { copies($node, 'tenant_connections_given', 'password', "\t$password") });
sql($node, 'DROP TABLE given, tenant_connections_given');

attack('a row without a host is in the log, with its password',
	why => qr/host of a tenant must not be null/,
	weak => sub {
		attempt($clear, 'postgres', 'ALTER TABLE stock ALTER host SET NOT NULL');
		copies($clear, 'stock', 'tenant_name, password', "x\t$password");
	},
	here => sub { copies($node, '_wh.tenant_connections', 'tenant_name, dbname, username, password', "x\td\tu\t$password") });

# ---- dump and restore --------------------------------------------------

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
my $other = new_warehouse(name => 'restored', create_extension => 0, conf => { 'wh_worker.key_file' => "''" });
my $ciphertext = stored('a');

system_or_bail('pg_dump', '-f', $dump, '-d', $node->connstr('postgres'), '--extension=wh_worker', '--schema=_wh', '--data-only', '-t', '_wh.tenant_connections');
sql($other, 'CREATE EXTENSION wh_worker');
(undef, undef, $warning) = $other->psql('postgres', "\\i $dump");
unlike($warning, qr/ERROR/, 'a dump is restored where the key is not');
is(stored('a', $other), $ciphertext, 'ciphertexts are left alone');
fails_with($other, "SELECT _wh.get_tenant_connection_string('a')", '55000',
	qr/encrypted with a key that is not there/, 'and open for nobody');
$other->append_conf('postgresql.conf', "wh_worker.key_file = '$keys'\n");
$other->restart;
is(clear_text('a', $other), $password, 'until the key is there');
$other->stop;

# ---- rotation ----------------------------------------------------------

write_key_file($keys, $second_key, $first_key);
is(clear_text('a'), $password, 'with a new key in front the old ciphertexts open');
is(stored('a'), $ciphertext, 'and stay as they are');

sql($node, "DELETE FROM _wh.tenant_connections WHERE tenant_name IN ('mallory', 'none')");

# The server is killed in the middle of it.
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe('BEGIN');
is($session->query_safe('SELECT _wh.rotate_key() > 0'), 't', 'the rotation is not committed yet');
$node->stop('immediate');
eval { $session->quit };
$node->start;
is(clear_text('a'), $password, 'after a crash in a rotation everything is readable');
is(stored('a'), $ciphertext, 'as it was');
is(sql($node, 'SELECT _wh.rotate_key()'), 3, 'the rotation writes all passwords anew');
is(sql($node, 'SELECT _wh.rotate_key()'), 0, 'and once more nothing');
write_key_file($keys, $second_key);
is(clear_text('a'), $password, 'then the old key may go');
ok(loads($node, 'a'), 'and loads go on');
fails_with($node, "UPDATE _wh.tenant_connections SET password = '$ciphertext' WHERE tenant_name = 'a'",
	'55000', qr/key that is not there/, 'a ciphertext of the old key is refused');
sql($node, "INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password) VALUES ('old', 'h', 'd', 'u', '$ciphertext')");
fails_with($node, 'SELECT _wh.rotate_key()', '55000', qr/password of tenant "old"/, 'a rotation that cannot read one changes none');
sql($node, "DELETE FROM _wh.tenant_connections WHERE tenant_name = 'old'");
fails_with($clear, 'SELECT _wh.rotate_key()', '55000', qr/key_file is not set/, 'without a key file there is nothing to rotate to');

# A warehouse that gets its first key.
write_key_file("$keys.clear", new_key());
$clear->append_conf('postgresql.conf', "wh_worker.key_file = '$keys.clear'\n");
$clear->restart;
ok(loads($clear, 'a'), 'a password that was stored in clear still serves');
is(stored('a', $clear), $password, 'and is still stored so');
is(sql($clear, 'SELECT _wh.rotate_key()'), 2, 'rotate_key encrypts it');
like(stored('a', $clear), qr/^wh_encrypted:v1:/, 'so that it is a ciphertext');
ok(loads($clear, 'a'), 'which serves as well');

# ---- the key file ------------------------------------------------------

foreach my $case (
	[ 'readable by all', sub { chmod 0644, $keys }, qr/has group or world access/ ],
	[ 'readable by its group', sub { chmod 0640, $keys }, qr/has group or world access/ ],
	[ 'missing', sub { rename $keys, "$keys.away" }, qr/could not read key file/ ],
	[ 'a directory', sub { rename $keys, "$keys.away"; mkdir $keys, 0700 }, qr/not a regular file/ ],
	[ 'empty', sub { write_key_file($keys, '# nothing') }, qr/It holds no key/ ],
	[ 'cut short', sub { write_key_file($keys, $first_key, substr($second_key, 1)) }, qr/Line 2 is no key/ ],
	[ 'longer than any list', sub { write_key_file($keys, '#' x 10_000) }, qr/longer than any list/ ])
{
	my ($name, $spoil, $message) = @$case;
	my $from = log_end($node);

	rename "$keys.away", $keys if -e "$keys.away";
	$spoil->();
	my (undef, undef, $error) = $node->psql('postgres', "SELECT _wh.get_tenant_connection_string('a')");
	like($error, $message, "a key file that is $name is refused when it is needed");
	my $entries = join '', log_entries($node->logfile, $from);
	ok(index($entries, substr $second_key, 8, 20) < 0, 'and the log says nothing of keys');
	rmdir $keys if -d $keys;
	rename "$keys.away", $keys if -e "$keys.away";
	write_key_file($keys, $second_key);
}
chmod 0644, $keys;
$node->stop;
ok(!$node->start(fail_ok => 1), 'a server whose key file others may read does not start');
cmp_ok(log_count($node, qr/FATAL: .*has group or world access/), '>', 0, 'and says why');
chmod 0600, $keys;
$node->start;

# ---- a program that asks a vault ---------------------------------------

my $vault = PostgreSQL::Test::Utils::tempdir() . '/vault';
my $asked = "$vault.asked";

sub write_vault
{
	my ($script) = @_;

	open my $file, '>', "$vault.new" or die "could not write $vault: $!";
	print $file "#!/bin/sh\n$script\n";
	close $file or die "could not write $vault: $!";
	chmod 0700, "$vault.new" or die "could not chmod $vault: $!";
	rename "$vault.new", $vault or die "could not rename $vault: $!";
}

sub set_command
{
	my ($command) = @_;

	sql($node, "ALTER SYSTEM SET wh_worker.password_command = '$command';\nSELECT pg_reload_conf()");
	$node->poll_query_until('postgres', "SELECT current_setting('wh_worker.password_command') = '$command'")
	  or die 'the setting did not come';
}

write_vault(qq(echo "\$# \$1 \$2 \$WH_TENANT_HOST:\$WH_TENANT_PORT/\$WH_TENANT_DBNAME/\$WH_TENANT_USERNAME" >>$asked
	env | grep '^PG' >>$asked
	echo '$password'
	echo 'url: somewhere'));
set_command("$vault --get");
sql($node, "UPDATE _wh.tenant_connections SET password = NULL, password_from_command = true WHERE tenant_name = 'b'");
is(clear_text('b'), $password, 'the first line that the program prints is the password');
is(slurp_file($asked), sprintf("2 --get b 127.0.0.1:%d/postgres/wh_reader\n", $tenant->port),
	'it got the words of the setting, the name, and what the password is for, and nothing for libpq');
ok(loads($node, 'b'), 'loads ask it too');
unlink $asked;
is(clear_text('a'), $password, 'a stored password goes before it');
ok(!-e $asked, 'and it is not asked');
is(sql($node, "SELECT detail FROM _wh.check_tenant('b') WHERE check_name = 'password'"),
	'from wh_worker.password_command', 'check_tenant says so');
my ($backfill, $state) = enqueue_and_wait($node, "'events', 'b', $yesterday, $yesterday, mode => 'all'");
is($state, 'succeeded', 'a worker asks it');

# Names are data.
my $name = q{x'; touch pwned; echo '$(touch pwned)`touch pwned`};
my $literal = $name =~ s/'/''/gr;

# Programs are run in the data directory.
sub was_run
{
	my ($at) = @_;

	return -e $at->data_dir . '/pwned';
}

sql($node, "INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password_from_command) VALUES ('$literal', 'h', 'd', 'u', true)");
attack('the name of a tenant is run as a command by the shell of the program',
	weak => sub {
		attempt($clear, 'postgres', "CREATE TABLE got (line text);
			DO \$do\$ BEGIN EXECUTE format('COPY got FROM PROGRAM %L', format('echo ''%s''', '$literal')); END \$do\$");
		was_run($clear);
	},
	here => sub {
		attempt($node, 'postgres', "SELECT _wh.get_tenant_connection_string('$literal')");
		was_run($node);
	});
like(slurp_file($asked), qr/^2 --get \Q$name\E h:5432/m, 'the program got it as it is');

# What it complains of.
write_vault("echo 'token $password refused' >&2; exit 3");
attack('what the program complains of is in the log',
	why => qr/password_command failed/,
	weak => sub {
		my $from = log_end($clear);
		attempt($clear, 'postgres', "COPY got FROM PROGRAM '$vault'");
		log_count($clear, qr/\Q$password/, $from) > 0;
	},
	here => sub {
		my $from = log_end($node);
		attempt($node, 'postgres', "SELECT _wh.get_tenant_connection_string('b')");
		log_count($node, qr/\Q$password/, $from) > 0;
	});
fails_with($node, "SELECT _wh.get_tenant_connection_string('b')", '08001', qr/exited with exit code 3/, 'its failure is that of the connection');
ok(!loads($node, 'b'), 'and a load fails');
sql($node, "ALTER SYSTEM SET wh_worker.connect_timeout = '2s';\nSELECT pg_reload_conf()");
$node->poll_query_until('postgres', "SELECT current_setting('wh_worker.connect_timeout') = '2s'");

my $pids = "$vault.pids";

# How many of the processes whose ids are in the file run.
sub runs
{
	my ($file) = @_;
	my @states = split ' ', (run_command([ 'ps', '-o', 'stat=', '-p', join ',', split ' ', slurp_file($file) ]))[0];

	return scalar grep { !/^Z/ } @states;
}

# A process that was killed is gone soon, not at once.
sub is_gone
{
	my ($file) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (runs($file) && time < $deadline) { }
	return !runs($file);
}

write_vault("tail -f /dev/null & echo \$\$ \$! >$pids; wait");
fails_with($node, "SELECT _wh.get_tenant_connection_string('b')", '08001', qr/did not end in time/, 'a program that hangs is given up');
ok(is_gone($pids), 'and killed, with what it started');
write_vault("echo \$\$ >$pids; exec >/dev/null; exec tail -f /dev/null");
fails_with($node, "SELECT _wh.get_tenant_connection_string('b')", '08001', qr/did not end in time/, 'so is one that closed its output');
ok(is_gone($pids), 'and it is killed');
write_vault("echo \$\$ >$pids; exec yes");
fails_with($node, "SELECT _wh.get_tenant_connection_string('b')", '08001', qr/did not end in time/, 'and one that never stops printing');
ok(is_gone($pids), 'which is killed as well');

sql($node, "ALTER SYSTEM SET wh_worker.connect_timeout = '50s';\nSELECT pg_reload_conf()");
$node->poll_query_until('postgres', "SELECT current_setting('wh_worker.connect_timeout') = '50s'");
unlink $pids;
write_vault("echo \$\$ >$pids.new; mv $pids.new $pids; exec tail -f /dev/null");
my $waiting = $node->background_psql('postgres', on_error_stop => 0);
$waiting->query_until(qr/started/, "\\echo started\nSELECT _wh.get_tenant_connection_string('b');\n");
my $deadline = time + 50;
while (!-e $pids && time < $deadline)
{
	sql($node, 'SELECT 1');
}
ok(runs($pids), 'a program runs');
sql($node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%connection_string(''b'')%' AND pid <> pg_backend_pid()");
wait_until($node, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%connection_string(''b'')%' AND pid <> pg_backend_pid())", 'the session that waits for it is terminated');
ok(is_gone($pids), 'and the program with it');
eval { $waiting->quit };

foreach my $case (
	[ 'nothing', 'exit 0', qr/It is empty/ ],
	[ 'an empty line', 'echo; echo more', qr/It is empty/ ],
	[ 'a very long line', 'head -c 9000 /dev/zero | tr "\\0" x', qr/It is too long/ ],
	[ 'a zero byte', 'printf "a\\0b\\n"', qr/zero byte/ ],
	[ 'bytes that are no text', 'printf "\\377\\n"', qr/no text in the encoding/ ])
{
	my ($what, $script, $message) = @$case;

	write_vault($script);
	fails_with($node, "SELECT _wh.get_tenant_connection_string('b')", '28P01', $message, "a program that prints $what has no password");
}
write_vault('printf "carriage\\r\\nreturn"');
is(clear_text('b'), 'carriage', 'a line may end as on Windows');
write_vault('head -c 1000000 /dev/zero | tr "\\0" "\\n" | sed "1s/^/much/"');
is(clear_text('b'), 'much', 'what comes after the first line is not kept');
unlink $vault;
fails_with($node, "SELECT _wh.get_tenant_connection_string('b')", '08001', qr/password_command failed/, 'a program that is not there has none either');

fails_with($node, "SET ROLE whadmin; SET wh_worker.password_command = '/bin/echo'", '55P02', qr/cannot be changed now/, 'no session sets the program');
fails_with($node, "SET ROLE whadmin; ALTER SYSTEM SET wh_worker.password_command = '/bin/echo'", '42501', qr/permission denied/, 'nor does the admin role');
fails_with($node, "SET ROLE whadmin; SHOW wh_worker.password_command", '42501', qr/must be superuser|permission denied/, 'which cannot even see it');
fails_with($node, "ALTER SYSTEM SET wh_worker.password_command = 'vault get'", '22023', qr/full path/, 'it has a full path');
set_command('');
is(clear_text('b'), undef, 'without it there is no password');

# ---- a password that nobody types --------------------------------------

my $file = PostgreSQL::Test::Utils::tempdir() . '/password';
append_to_file($file, "$password\nand more\n");
chmod 0600, $file;
sql($node, "SELECT _wh.set_password_from_file('b', '$file')");
like(stored('b'), qr/^wh_encrypted:v1:/, 'a password from a file is stored encrypted');
is(sql($node, q{SELECT tenant_name FROM _wh.audit_log WHERE object = 'set_password_from_file'}), 'b', 'and the call is in the audit log');
is(clear_text('b'), $password, 'and is its first line');
fails_with($node, "SET ROLE whadmin; SELECT _wh.set_password_from_file('b', '$file')", '42501', qr/permission denied to read a file/, 'the admin role may not read files of the server');
fails_with($node, "SELECT _wh.set_password_from_file('nobody', '$file')", '42704', qr/does not exist/, 'a tenant has to be there');
fails_with($node, "SELECT _wh.set_password_from_file('b', '$file.not')", '58P01', qr/could not open file/, 'and the file');
sql($node, 'GRANT pg_read_server_files TO whadmin; SET ROLE whadmin; SELECT ' . "_wh.set_password_from_file('b', '$file')");
ok(loads($node, 'b'), 'who may read files of the server and the tables may do it');

done_testing();
