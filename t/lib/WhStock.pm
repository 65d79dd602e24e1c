# What the warehouse would be as people write it: the functions of the
# requirements with dblink, in the schema "stock" of the same database, owned by
# whadmin and SECURITY DEFINER as ours are, with names and templates put into
# SQL by format() with %s and replace().  Attacks are tried on it first.
package WhStock;

use strict;
use warnings;
use Exporter 'import';

our @EXPORT = qw(make_stock stock_tenant stock_template);

# Makes the schema.  "author" may write templates, there and in _wh.
sub make_stock
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<'SQL');
	CREATE EXTENSION dblink;
	CREATE ROLE author LOGIN;
	GRANT USAGE ON SCHEMA _wh TO author;
	GRANT SELECT, INSERT, UPDATE ON _wh.mv_templates TO author;
	CREATE SCHEMA lab AUTHORIZATION author;
	GRANT USAGE ON SCHEMA lab TO PUBLIC;
	CREATE SCHEMA stock AUTHORIZATION whadmin;
	CREATE SCHEMA data AUTHORIZATION whadmin;
	GRANT USAGE ON SCHEMA stock, data TO PUBLIC;
	GRANT EXECUTE ON FUNCTION dblink(text, text) TO whadmin;
	SET ROLE whadmin;
	CREATE TABLE stock.tenants (tenant_name text, host text, port integer, dbname text, username text, password text);
	CREATE TABLE stock.templates (template_name text, query_template text, column_definitions text, indexes text);
	GRANT SELECT, INSERT, UPDATE ON stock.templates TO author;
	CREATE FUNCTION stock.connection_string(tenant text) RETURNS text LANGUAGE sql AS
	$$ SELECT format('host=%s port=%s dbname=%s user=%s password=%s', host, port, dbname, username, password)
	   FROM stock.tenants WHERE tenant_name = tenant $$;
	CREATE FUNCTION stock.mv_name(name text, day date) RETURNS text LANGUAGE sql AS
	$$ SELECT name || '_' || to_char(day, 'YYYY_MM_DD') $$;
	CREATE FUNCTION stock.create_mv(template text, tenant text, target_schema text, day date) RETURNS text
	LANGUAGE plpgsql SECURITY DEFINER AS $$
	DECLARE
		t stock.templates;
		name text := stock.mv_name(template, day);
	BEGIN
		SELECT * INTO t FROM stock.templates WHERE template_name = template;
		EXECUTE format('DROP MATERIALIZED VIEW IF EXISTS %s.%s', target_schema, name);
		EXECUTE format('CREATE MATERIALIZED VIEW %s.%s AS SELECT * FROM dblink(%L, %L) AS t(%s)', target_schema, name,
			stock.connection_string(tenant), replace(t.query_template, '{TARGET_DATE}', day::text), t.column_definitions);
		EXECUTE replace(replace(t.indexes, '{schema}', target_schema), '{view_name}', name);
		RETURN name;
	END $$;
SQL
	return;
}

sub quoted
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	$text =~ s/\\/\\\\/g;
	return "E'$text'";
}

sub stock_tenant
{
	my ($node, @values) = @_;

	$node->safe_psql('postgres', 'INSERT INTO stock.tenants VALUES (' . join(', ', map { quoted($_) } @values) . ')');
	return;
}

# Written by whoever may, in both: name, query, columns, indexes.
sub stock_template
{
	my ($node, @values) = @_;

	$node->safe_psql('postgres', 'SET ROLE author; INSERT INTO stock.templates VALUES ('
		  . join(', ', map { quoted($_) } @values) . ')');
	return;
}

1;
