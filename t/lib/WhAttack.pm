# Attacks, each made twice: on something really weaker, where it must succeed,
# and here, where it must not. So no test passes because the attack was clumsy.
#
#   attack('a reader reads the passwords', why => qr/permission denied/,
#       weak => sub { gets($stock, 'stock', $query, $password, user => 'phood_ro') },
#       here => sub { gets($node, 'postgres', $query, $password, user => 'phood_ro') });
#
# Each sub returns true if the attack succeeded. One that dies fails the test,
# on either side. "why" is what the attempt here must have been told.
#
# new_stock_warehouse() makes the stock alternative: a database with dblink and
# the functions of a warehouse as one writes them at first, in plain PL/pgSQL.
package WhAttack;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use WhTest;

our @EXPORT = qw(attack attempt gets does last_answer note_answer new_stock_warehouse);

# What the attacker was told last: output and errors of the attempt.
my $answer = '';

sub attack
{
	my ($name, %side) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($weak, $weak_trouble, $weak_answer) = tried($side{weak});
	my ($here, $here_trouble, $here_answer) = tried($side{here});
	my $told = !defined $side{why} || $here_answer =~ $side{why};
	my $passed = ok($weak && !$here && $told && !defined $weak_trouble && !defined $here_trouble, $name);

	return 1 if $passed;
	diag("the attempt on the weak side died: $weak_trouble") if defined $weak_trouble;
	diag("the attempt here died: $here_trouble") if defined $here_trouble;
	diag("it does not succeed on the weak side, so it shows nothing:\n$weak_answer") unless $weak || defined $weak_trouble;
	diag("IT SUCCEEDS HERE:\n$here_answer") if $here;
	diag("it fails here, but for another reason than $side{why}:\n$here_answer") unless $told;
	return 0;
}

# Whether the sub succeeded, what it died of, and what it was told last.
sub tried
{
	my ($sub) = @_;

	$answer = '';
	my $succeeded = eval { $sub->() ? 1 : 0 };

	return ($succeeded, defined $succeeded ? undef : $@, $answer);
}

# Runs SQL, by default all of it whatever fails, as $opt{user} (over the
# cluster's own socket, which trusts). The exit code, the output, the errors.
sub attempt
{
	my ($node, $database, $query, %opt) = @_;
	my @as = defined $opt{user} ? ('-U', $opt{user}) : ();
	my ($status, $out, $err) = $node->psql($database, $query,
		on_error_stop => $opt{on_error_stop} // 0,
		extra_params => \@as);

	note_answer("$out\n$err");
	return ($status, $out, $err);
}

# True if the attempt shows $secret (a text or qr//), in what it returns or in
# what it is told. psql does not repeat the query itself but for LINE 1: below
# an error, so that a secret which the attacker typed is not one he got.
sub gets
{
	my ($node, $database, $query, $secret, %opt) = @_;
	my ($status, $out, $err) = attempt($node, $database, $query, %opt);
	my $pattern = ref $secret ? $secret : qr/\Q$secret\E/;

	$err =~ s/^LINE \d+:.*\n.*$//mg;
	return "$out\n$err" =~ $pattern;
}

# True if, after the attempt, the query $proof (as superuser) returns t.
sub does
{
	my ($node, $database, $query, $proof, %opt) = @_;

	attempt($node, $database, $query, %opt);
	return $node->safe_psql($database, $proof) eq 't';
}

sub last_answer
{
	return $answer;
}

# For attempts that do not go through psql: what they were told.
sub note_answer
{
	my ($text) = @_;

	$answer = $text;
	return;
}

# ---- the stock alternative ---------------------------------------------

# A database of that name at $node with the tables and functions that the
# workflow needs, over dblink: SECURITY DEFINER without a search_path, SQL and
# connection strings pasted together, and privileges as CREATE leaves them.
sub new_stock_warehouse
{
	my ($node, $database) = @_;

	$node->safe_psql('postgres', qq(CREATE DATABASE "$database"));
	$node->safe_psql($database, stock_tables() . stock_functions());
	return;
}

sub stock_tables
{
	return q{
		CREATE EXTENSION dblink;
		CREATE SCHEMA _wh;
		GRANT USAGE ON SCHEMA _wh TO PUBLIC;
		CREATE TABLE _wh.tenant_connections (
			tenant_name text PRIMARY KEY,
			host text NOT NULL,
			port integer DEFAULT 5432,
			dbname text NOT NULL,
			username text NOT NULL,
			password text NOT NULL,
			created_at timestamp DEFAULT now(),
			updated_at timestamp DEFAULT now());
		CREATE TABLE _wh.mv_templates (
			template_name text PRIMARY KEY,
			description text,
			query_template text NOT NULL,
			column_definitions text NOT NULL,
			indexes text);
	};
}

sub stock_functions
{
	return q{
		CREATE FUNCTION _wh.get_tenant_connection_string(tenant_name text) RETURNS text
		LANGUAGE sql SECURITY DEFINER AS $$
			SELECT format('host=%s port=%s dbname=%s user=%s password=%s',
						  c.host, c.port, c.dbname, c.username, c.password)
			FROM _wh.tenant_connections c WHERE c.tenant_name = $1
		$$;

		CREATE FUNCTION _wh.create_mv_name(mvname text, target_date date) RETURNS text
		LANGUAGE sql SECURITY DEFINER AS $$
			SELECT mvname || '_' || to_char(target_date, 'YYYY_MM_DD')
		$$;

		CREATE FUNCTION _wh.create_mv_from_template(template_name text, tenant_connection_name text,
													target_schema text, target_date date) RETURNS boolean
		LANGUAGE plpgsql SECURITY DEFINER AS $$
		DECLARE
			t record;
			mv text := _wh.create_mv_name(template_name, target_date);
		BEGIN
			SELECT * INTO STRICT t FROM _wh.mv_templates m
			WHERE m.template_name = create_mv_from_template.template_name;
			EXECUTE 'CREATE SCHEMA IF NOT EXISTS ' || target_schema;
			EXECUTE 'CREATE MATERIALIZED VIEW ' || target_schema || '.' || mv
				|| ' AS SELECT * FROM dblink(_wh.get_tenant_connection_string('''
				|| tenant_connection_name || '''), '
				|| quote_literal(replace(t.query_template, '{TARGET_DATE}', target_date::text))
				|| ') AS t(' || t.column_definitions || ')';
			IF t.indexes IS NOT NULL THEN
				EXECUTE replace(replace(t.indexes, '{schema}', target_schema), '{view_name}', mv);
			END IF;
			RETURN true;
		END
		$$;

		CREATE FUNCTION _wh.refresh_mv(target_schema text, view_name text) RETURNS boolean
		LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
			EXECUTE 'REFRESH MATERIALIZED VIEW ' || target_schema || '.' || view_name;
			RETURN true;
		END
		$$;

		CREATE FUNCTION _wh.update_tenant_union_view_by_template(template_name text, target_schema text) RETURNS boolean
		LANGUAGE plpgsql SECURITY DEFINER AS $$
		DECLARE
			body text;
		BEGIN
			SELECT string_agg('SELECT * FROM ' || target_schema || '.' || m.matviewname, ' UNION ALL ')
			INTO body
			FROM pg_matviews m WHERE m.schemaname = target_schema AND m.matviewname LIKE template_name || '\_%';
			EXECUTE 'CREATE OR REPLACE VIEW ' || target_schema || '.' || template_name || ' AS ' || body;
			RETURN true;
		END
		$$;
	};
}

1;
