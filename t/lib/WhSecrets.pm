# Keys for passwords at rest, and the search for passwords that got anywhere
# they do not belong: logs, dumps, and all that the catalogs show.
#
# SECRETS=1 make test runs every test with settings that make the server say
# all it can, and ci/find-secrets looks through what it said.
package WhSecrets;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(basename);

our @EXPORT = qw(
  new_key write_key_file talkative_settings remember_password
  log_entries entries_with is_typed_statement shown_by_catalogs show_secrets
);

# ---- keys --------------------------------------------------------------

# A line of a key file.
sub new_key
{
	open my $random, '<:raw', '/dev/urandom' or die "no random numbers: $!";
	read($random, my $bytes, 32) == 32 or die "too few random numbers";
	close $random;
	return unpack 'H*', $bytes;
}

# Replaces the file as one should: readers see the old or the new one.
sub write_key_file
{
	my ($file, @lines) = @_;

	open my $out, '>', "$file.new" or die "could not write $file: $!";
	print $out "$_\n" foreach @lines;
	close $out or die "could not write $file: $!";
	chmod 0600, "$file.new" or die "could not chmod $file: $!";
	rename "$file.new", $file or die "could not rename $file: $!";
	return $file;
}

# ---- a server that says all it can -------------------------------------

sub talkative_settings
{
	return (
		log_statement => "'all'",
		log_min_messages => "'debug5'",
		log_parameter_max_length_on_error => -1,
		log_duration => 'on');
}

# For the search at the end of the whole run.
sub remember_password
{
	my ($password) = @_;

	return unless $ENV{SECRETS} && defined $ENV{TESTDIR};
	open my $list, '>>', "$ENV{TESTDIR}/known_passwords" or die "no list of passwords: $!";
	print $list "$password\n";
	close $list or die "no list of passwords: $!";
	return;
}

# ---- looking -----------------------------------------------------------

# The entries of a server's log; a further line of one starts with a tab.
sub log_entries
{
	my ($file, $offset) = @_;
	my @entries;

	open my $log, '<', $file or die "could not read $file: $!";
	seek $log, $offset // 0, 0;
	while (my $line = <$log>)
	{
		if (@entries && $line =~ /^\t/)
		{
			$entries[-1] .= $line;
		}
		else
		{
			push @entries, $line;
		}
	}
	close $log;
	return @entries;
}

sub entries_with
{
	my ($password, @entries) = @_;

	# also as it is within a literal
	my $quoted = $password =~ s/'/''/gr;

	return grep { index($_, $password) >= 0 || index($_, $quoted) >= 0 } @entries;
}

# Whether an entry is a statement as a client sent it, with what was typed in
# it: when it came, or once more below its error.
sub is_typed_statement
{
	my ($entry) = @_;

	return $entry =~ /\] \S+ (?:LOG:  (?:statement|execute \S+|duration: \S+ ms  statement): |STATEMENT:  )/;
}

# All that the catalogs, the statistics and our own relations show to a
# superuser, as text.
sub shown_by_catalogs
{
	my ($node, $database) = @_;
	my @relations = split /\n/, $node->safe_psql($database, q{
		SELECT c.oid::regclass FROM pg_class c
		WHERE c.relkind IN ('v', 'r', 'm', 'S')
		  AND c.oid::regclass::text ~ '^(_wh\.|pg_stat|pg_views|pg_matviews|pg_proc$|pg_rewrite|pg_settings|pg_prepared|pg_cursors|pg_trigger$|pg_attrdef|pg_description)'
		ORDER BY 1});
	my ($status, $out, $err) = $node->psql($database,
		join "\n", map { ("\\echo == $_", "SELECT * FROM $_;") } @relations);

	return "$out\n$err\n";
}

# Writes what the databases of a server show, and their dumps, below TESTDIR.
# A server that the test has stopped says nothing.
sub show_secrets
{
	my ($node) = @_;

	return unless defined $node->{_pid} && defined $ENV{TESTDIR};
	my ($status, $databases) = $node->psql('postgres', q{SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template1'});

	return if $status != 0;
	foreach my $database (split /\n/, $databases)
	{
		my $file = "$ENV{TESTDIR}/shown_" . basename($0, '.pl') . '_' . $node->name . "_$database";

		open my $shown, '>', $file or die "could not write $file: $!";
		$node->psql($database, 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements');
		print $shown shown_by_catalogs($node, $database);
		close $shown or die "could not write $file: $!";
		system('pg_dump', '-f', "$file.dump", '-d', $node->connstr($database));
	}
	return;
}

1;
