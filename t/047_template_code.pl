# Code that a template brings: functions in its indexes, types of its columns.
# Who may write templates tries to have it run with the rights of admin_role.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhAttack;
use WhTest;

my $day = '2025-07-01';
my $production = new_tenant('production');
my $node = new_warehouse();

create_events($production, $day, 3, 5);
new_stock_warehouse($node, 'stock');
sql($node, 'CREATE ROLE author LOGIN');
add_tenant($node, 'shop', $production);
sql($node, sprintf(q{CREATE SCHEMA data; INSERT INTO _wh.tenant_connections VALUES ('shop', '127.0.0.1', %d, 'postgres', 'wh_reader', '''correct horse battery staple''')}, $production->port), 'stock');

sub in_both
{
	my ($text) = @_;

	$node->safe_psql($_, $text) foreach 'stock', 'postgres';
	return;
}

# The author may write templates, and has a schema of his own, in either.
in_both(<<'SQL');
GRANT USAGE ON SCHEMA _wh TO author;
GRANT SELECT, INSERT, UPDATE ON _wh.mv_templates TO author;
CREATE SCHEMA lab AUTHORIZATION author;
GRANT USAGE ON SCHEMA lab TO PUBLIC;
SET ROLE author;
CREATE TABLE lab.loot (who text, what text);
GRANT INSERT ON lab.loot TO PUBLIC;
-- takes what it can get
CREATE FUNCTION lab.take() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO lab.loot SELECT current_user, password FROM _wh.tenant_connections;
EXCEPTION WHEN insufficient_privilege THEN
	NULL;
END $$;
CREATE FUNCTION lab.steal(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM lab.take();
	RETURN value;
END $$;
CREATE FUNCTION lab.is_good(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
	AS $$ SELECT lab.steal(value) IS NOT NULL $$;
CREATE FUNCTION lab.plus(a text, b text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lab.steal(a) $$;
CREATE OPERATOR lab.|+| (FUNCTION = lab.plus, LEFTARG = text, RIGHTARG = text);
CREATE DOMAIN lab.checked AS text CHECK (lab.is_good(VALUE));
CREATE TYPE lab.mood AS ENUM ('kind 1');
CREATE FUNCTION lab.to_mood(value text) RETURNS lab.mood LANGUAGE sql IMMUTABLE
	AS $$ SELECT 'kind 1'::lab.mood FROM lab.steal(value) $$;
CREATE CAST (text AS lab.mood) WITH FUNCTION lab.to_mood(text);
SQL

our $query = q{SELECT id, kind FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1 AND kind IS NOT NULL};
my $number = 0;

# Whether the passwords are in the author's table, which is empty again then.
sub is_stolen
{
	my ($database) = @_;
	my $loot = sql($node, "WITH gone AS (DELETE FROM lab.loot RETURNING *) SELECT count(*) FROM gone WHERE what LIKE '%correct horse%'", $database);

	return $loot > 0;
}

sub weak_template
{
	my ($name, $columns, $indexes) = @_;

	return sql($node, "SET ROLE author; INSERT INTO _wh.mv_templates VALUES ('$name', '', \$\$$query\$\$, \$\$$columns\$\$, \$\$$indexes\$\$)", 'stock');
}

sub template
{
	my ($name, $columns, $indexes) = @_;

	return sql($node, 'INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule)'
		  . " VALUES ('$name', \$\$$query\$\$, \$\$$columns\$\$, \$\$$indexes\$\$, '0 0 29 2 *')");
}

# The template, by its author, and a day of it by an innocent caller.
sub weak_loads
{
	my ($columns, $indexes) = @_;
	my $name = 'weak' . ++$number;

	weak_template($name, $columns, $indexes);
	attempt($node, 'stock', "SELECT _wh.create_mv_from_template('$name', 'shop', 'data', '$day')");
	return is_stolen('stock');
}

sub ours_loads
{
	my ($columns, $indexes) = @_;
	my $name = 'ours' . ++$number;

	template($name, $columns, $indexes);
	sql($node, "SELECT _wh.subscribe('shop', '$name', 'shop', '$day')");
	my ($id, $state) = enqueue_and_wait($node, "'$name', 'shop', '$day', '$day'");
	is($state, 'failed', 'a worker refuses it');
	is(sql($node, "SELECT DISTINCT last_sqlstate FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), '42501', 'as it should');
	attempt($node, 'postgres', "SELECT _wh.update_mv_by_template('$name', 'shop', 'shop', '$day', false)");
	return is_stolen('postgres');
}

my $unique = 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)';
my $function = qr/function lab\.\S+ belongs to role "author".*rights of role "whadmin"/s;
my $type = qr/type lab\.\S+ belongs to role "author"/;
my @codes = (
	[ 'a function in an index reads all passwords', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (lab.steal(kind))', $function ],
	[ 'a function in an index\'s WHERE', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (id) WHERE lab.is_good(kind)', $function ],
	[ 'an operator in an index', 'id int, kind text', q{CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} ((kind OPERATOR(lab.|+|) 'x'))}, $function ],
	[ 'a cast to a domain in an index', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} ((kind::lab.checked))', $type ],
	[ 'a function inside another one\'s arguments', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (upper(coalesce(NULL, lab.steal(kind))))', $function ],
	[ 'a domain\'s check in the columns', 'id int, kind lab.checked', $unique, $type ],
	[ 'an array of such a domain', 'id int, kind lab.checked[]', $unique, $type,
		q{SELECT id, ARRAY[kind] AS kind FROM events WHERE at::date = '{TARGET_DATE}' AND kind IS NOT NULL} ]);

foreach my $code (@codes)
{
	my ($name, $columns, $indexes, $says, $own_query) = @$code;
	# dblink cannot give a tenant's array a type of ours; a view of the day can
	my $weak_columns = $columns =~ s/\[\]//r;

	attack($name,
		why => $says,
		weak => sub { weak_loads($weak_columns, $indexes) },
		here => sub {
			local $query = $own_query // $query;
			ours_loads($columns, $indexes);
		});
}

# ---- what is loaded already --------------------------------------------

# A function that is trusted when the first day is loaded, and later is not.
my $honest = q{
	CREATE OR REPLACE FUNCTION lab.lend(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(value) $$;
	ALTER FUNCTION lab.lend(text) OWNER TO postgres};
my $changes_hands = q{
	ALTER FUNCTION lab.lend(text) OWNER TO author;
	SET ROLE author;
	CREATE OR REPLACE FUNCTION lab.lend(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lab.steal(value) $$};
my $lent = 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (lab.lend(kind))';

in_both($honest);
template('lent', 'id int, kind text', $lent);
is(sql($node, "SELECT _wh.update_mv_by_template('lent', 'shop', 'shop', '$day', false)"), 't', 'a function of a superuser may be in an index');
is(sql($node, 'SELECT count(*) FROM shop.lent'), 5, 'and its rows are there');
is(sql($node, q{SELECT indexdef ~ 'lab\.lend' FROM pg_indexes WHERE indexname LIKE 'idx_shop_lent%_k'}), 't', 'and the index');
weak_template('lent', 'id int, kind text', $lent);
sql($node, "SELECT _wh.create_mv_from_template('lent', 'shop', 'data', '$day')", 'stock');
in_both($changes_hands);
attack('a function that changed hands after the first day was loaded',
	why => $function,
	weak => sub {
		attempt($node, 'stock', q{SELECT _wh.refresh_mv('data', 'lent_2025_07_01')});
		return is_stolen('stock');
	},
	here => sub {
		attempt($node, 'postgres', "SELECT _wh.update_mv_by_template('lent', 'shop', 'shop', '$day', false)");
		return is_stolen('postgres');
	});

# The rows of a month's table are put in with its indexes there.
in_both($honest);
is(sql($node, q{SELECT _wh.create_combined_table_from_template_by_month('lent', 'shop', 'shop', 2025, 7, allow_missing => true) ->> 'status'}), 'combined', 'a month');
sql($node, 'CREATE TABLE data.month (id int, kind text); CREATE INDEX ON data.month (lab.lend(kind))', 'stock');
in_both($changes_hands);
my @late_row = (
	weak => sub {
		attempt($node, 'stock', q{INSERT INTO data.month SELECT 1, 'x'});
		return is_stolen('stock');
	},
	here => sub {
		attempt($node, 'postgres', q{SELECT _wh.update_mv_by_template('lent', 'shop', 'shop', '2025-07-02', false)});
		return is_stolen('postgres');
	});
attack('the same, for a late day of a month that is one table',
	why => $function,
	@late_row);

# Who was given all rights on a table may give it a trigger.
in_both($honest);
in_both('CREATE FUNCTION lab.trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM lab.take(); RETURN NEW; END $$;'
	  . ' ALTER FUNCTION lab.trap() OWNER TO author');
sql($node, 'DROP INDEX data.month_lend_idx; GRANT ALL ON data.month TO author; GRANT USAGE ON SCHEMA data TO author', 'stock');
sql($node, 'GRANT ALL ON shop.lent_2025_07 TO author; GRANT USAGE ON SCHEMA shop TO author');
sql($node, 'SET ROLE author; CREATE TRIGGER trap BEFORE INSERT ON data.month FOR EACH ROW EXECUTE FUNCTION lab.trap()', 'stock');
sql($node, 'SET ROLE author; CREATE TRIGGER trap BEFORE INSERT ON shop.lent_2025_07 FOR EACH ROW EXECUTE FUNCTION lab.trap()');
attack('a trigger on the table of a month, by a role with all rights on it',
	why => $function,
	@late_row);

# A template that changes while days are loaded: old values are cast.
template('moods', 'id int, kind text', $unique);
is(sql($node, "SELECT _wh.update_mv_by_template('moods', 'shop', 'shop', '$day', false)"), 't', 'a day with plain types');
attack('a cast to a type of the author\'s, when columns change',
	why => $type,
	weak => sub {
		attempt($node, 'stock', q{CREATE TABLE data.moods AS SELECT 'kind 1'::text AS kind; SELECT count(kind::lab.mood) FROM data.moods});
		return is_stolen('stock');
	},
	here => sub {
		attempt($node, 'postgres', q{SET ROLE author; UPDATE _wh.mv_templates SET column_definitions = 'id int, kind lab.mood' WHERE template_name = 'moods'});
		return is_stolen('postgres');
	});

# ---- what trusted code may leave behind --------------------------------

# Written by whadmin: nothing of it outlives its run.
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA own AUTHORIZATION whadmin;
GRANT USAGE ON SCHEMA own TO PUBLIC;
SET ROLE whadmin;
CREATE FUNCTION own.leave(value text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('work_mem', '64kB', false);
	RETURN value;
END $$;
CREATE DOMAIN own.leaving AS text CHECK (own.leave(VALUE) IS NOT NULL);
CREATE FUNCTION own.hide(value text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS pg_class (left_behind int);
	RETURN value;
END $$;
CREATE DOMAIN own.hiding AS text CHECK (own.hide(VALUE) IS NOT NULL);
SQL
template($_, "id int, kind own.$_", $unique) foreach 'leaving', 'hiding';
my $left = q{SELECT 'work_mem ' || current_setting('work_mem')};
attack('settings changed by a check are left in the session',
	why => qr/^t$/m,
	weak => sub { gets($node, 'postgres', "SELECT 'x'::own.leaving; $left", qr/work_mem 64kB/) },
	here => sub { gets($node, 'postgres', "SELECT _wh.update_mv_by_template('leaving', 'shop', 'shop', '$day', false); $left", qr/work_mem 64kB/) });

my $hidden = q{SELECT 'hidden ' || count(*) FROM pg_catalog.pg_class WHERE relname = 'pg_class' AND relpersistence = 't'};
attack('a temporary table is left, to hide one of the catalog',
	why => qr/cannot create temporary table within security-restricted operation/,
	weak => sub { gets($node, 'postgres', "SELECT 'x'::own.hiding; $hidden", qr/hidden 1/) },
	here => sub { gets($node, 'postgres', "SELECT _wh.update_mv_by_template('hiding', 'shop', 'shop', '$day', false); $hidden", qr/hidden 1/) });

# ---- the caller's search_path ------------------------------------------

in_both(<<'SQL');
SET ROLE author;
CREATE FUNCTION lab.to_char(day date, format text) RETURNS text LANGUAGE sql AS $$ SELECT lab.steal('hijacked') $$;
CREATE FUNCTION lab.same(a text, b text) RETURNS boolean LANGUAGE sql AS $$ SELECT lab.steal(a) OPERATOR(pg_catalog.=) b $$;
CREATE OPERATOR lab.= (FUNCTION = lab.same, LEFTARG = text, RIGHTARG = text);
SQL
attack('operators and functions in the caller\'s search_path',
	why => qr/^t$/m,
	weak => sub {
		attempt($node, 'stock', "SET search_path = lab, pg_catalog, public; SELECT _wh.create_mv_from_template('weak1', 'shop', 'data', '2025-07-02')");
		return is_stolen('stock');
	},
	here => sub {
		attempt($node, 'postgres', "SET search_path = lab, pg_catalog, public; SELECT _wh.update_mv_by_template('moods', 'shop', 'shop', '$day', false)");
		return is_stolen('postgres');
	});

done_testing();
