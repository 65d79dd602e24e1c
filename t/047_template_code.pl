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
use WhStock;
use WhTest;

my $day = '2025-07-01';
my $production = new_tenant('production');
my $node = new_warehouse();

create_events($production, $day, 3, 5);
make_stock($node);
stock_tenant($node, 'shop', '127.0.0.1', $production->port, 'postgres', 'wh_reader', q{'correct horse battery staple'});
add_tenant($node, 'shop', $production);
$node->safe_psql('postgres', <<'SQL');
SET ROLE author;
CREATE TABLE lab.loot (who text, what text);
GRANT INSERT ON lab.loot TO PUBLIC;
-- takes what it can get, from either warehouse
CREATE FUNCTION lab.steal(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	BEGIN
		INSERT INTO lab.loot SELECT current_user, password FROM stock.tenants;
		INSERT INTO lab.loot SELECT current_user, password FROM _wh.tenant_connections;
	EXCEPTION WHEN insufficient_privilege THEN
		NULL;
	END;
	RETURN value;
END $$;
CREATE FUNCTION lab.is_good(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
	AS $$ SELECT lab.steal(value) IS NOT NULL $$;
CREATE FUNCTION lab.plus(a text, b text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lab.steal(a) $$;
CREATE OPERATOR lab.+++ (FUNCTION = lab.plus, LEFTARG = text, RIGHTARG = text);
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
	my $loot = sql($node, "WITH gone AS (DELETE FROM lab.loot RETURNING *) SELECT count(*) FROM gone WHERE what LIKE '%correct horse%'");

	return $loot > 0;
}

# The template, by its author, and a day of it by an innocent caller; in both.
sub weak_loads
{
	my ($columns, $indexes) = @_;
	my $name = 'weak' . ++$number;

	stock_template($node, $name, $query, $columns, $indexes);
	$node->psql('postgres', "SELECT stock.create_mv('$name', 'shop', 'data', '$day')");
	return is_stolen();
}

sub ours_loads
{
	my ($columns, $indexes, $says) = @_;
	my $name = 'ours' . ++$number;
	my ($id, $state);

	$node->safe_psql('postgres', "SET ROLE author; INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule)"
		  . " VALUES ('$name', \$\$$query\$\$, \$\$$columns\$\$, \$\$$indexes\$\$, '0 0 29 2 *')");
	my ($status, $out, $err) = $node->psql('postgres', "SELECT _wh.update_mv_by_template('$name', 'shop', 'shop', '$day', false)");
	isnt($status, 0, "$name: at once it is refused");
	like($err, $says, 'with a reason');
	sql($node, "SELECT _wh.subscribe('shop', '$name', 'shop', '$day')");
	($id, $state) = enqueue_and_wait($node, "'$name', 'shop', '$day', '$day'");
	is($state, 'failed', 'a worker refuses it as well');
	is(sql($node, "SELECT DISTINCT last_sqlstate FROM _wh.jobs WHERE backfill_id = $id AND kind = 'refresh'"), '42501', 'and says why');
	return is_stolen();
}

my $unique = 'CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id)';
my $function = qr/function lab\.\S+ of a template belongs to role "author".*rights of role "whadmin"/s;
my $type = qr/type lab\.\S+ of a template belongs to role "author"/;
my @codes = (
	[ 'a function in an index reads all passwords', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (lab.steal(kind))', $function ],
	[ 'a function in an index\'s WHERE', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (id) WHERE lab.is_good(kind)', $function ],
	[ 'an operator in an index', 'id int, kind text', q{CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} ((kind OPERATOR(lab.+++) 'x'))}, $function ],
	[ 'a cast to a domain in an index', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} ((kind::lab.checked))', $type ],
	[ 'a function inside another one\'s arguments', 'id int, kind text', 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (upper(coalesce(NULL, lab.steal(kind))))', $function ],
	[ 'a domain\'s check in the columns', 'id int, kind lab.checked', $unique, $type ],
	[ 'an array of such a domain', 'id int, kind lab.checked', $unique, $type, q{id int, kind lab.checked[]}, q{SELECT id, ARRAY[kind] AS kind FROM events WHERE at::date = '{TARGET_DATE}' AND kind IS NOT NULL} ]);

foreach my $code (@codes)
{
	my ($name, $columns, $indexes, $says, $own_columns, $own_query) = @$code;

	attack($name,
		weak => sub { weak_loads($columns, $indexes) },
		here => sub {
			local $query = $own_query // $query;
			ours_loads($own_columns // $columns, $indexes, $says);
		});
}

# ---- what is loaded already --------------------------------------------

# A function that is trusted when the first day is loaded, and later is not.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION lab.lend(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(value) $$;
SQL
my $lent = 'CREATE INDEX idx_{schema}_{view_name}_k ON {schema}.{view_name} (lab.lend(kind))';
$node->safe_psql('postgres', "INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule)"
	  . " VALUES ('lent', \$\$$query\$\$, 'id int, kind text', \$\$$lent\$\$, '0 0 29 2 *')");
is(sql($node, "SELECT _wh.update_mv_by_template('lent', 'shop', 'shop', '$day', false)"), 't', 'a function of a superuser may be in an index');
is(sql($node, "SELECT count(*) FROM shop.lent WHERE kind IS NOT NULL"), 5, 'and its rows are there');
is(sql($node, q{SELECT indexdef ~ 'lab\.lend' FROM pg_indexes WHERE indexname LIKE 'idx_shop_lent%_k'}), 't', 'and the index');
stock_template($node, 'lent', $query, 'id int, kind text', $lent);
sql($node, "SELECT stock.create_mv('lent', 'shop', 'data', '$day')");
$node->safe_psql('postgres', <<'SQL');
ALTER FUNCTION lab.lend(text) OWNER TO author;
SET ROLE author;
CREATE OR REPLACE FUNCTION lab.lend(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lab.steal(value) $$;
SQL
attack('a function that changed hands after the first day was loaded',
	weak => sub {
		$node->psql('postgres', "SELECT stock.create_mv('lent', 'shop', 'data', '$day')");
		return is_stolen();
	},
	here => sub {
		fails_with($node, "SELECT _wh.update_mv_by_template('lent', 'shop', 'shop', '$day', false)", '42501', $function, 'loading it again is refused');
		return is_stolen();
	});

# The rows of a month's table are put in with its indexes there.
$node->safe_psql('postgres', <<'SQL');
ALTER FUNCTION lab.lend(text) OWNER TO postgres;
CREATE OR REPLACE FUNCTION lab.lend(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT upper(value) $$;
SQL
is(sql($node, q{SELECT _wh.create_combined_table_from_template_by_month('lent', 'shop', 'shop', 2025, 7, allow_missing => true) ->> 'status'}), 'combined', 'a month');
$node->safe_psql('postgres', <<'SQL');
ALTER FUNCTION lab.lend(text) OWNER TO author;
SET ROLE author;
CREATE OR REPLACE FUNCTION lab.lend(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lab.steal(value) $$;
SQL
attack('the same, for a late day of a month that is one table',
	weak => sub {
		sql($node, 'SET ROLE whadmin; CREATE TABLE data.month (id int, kind text); CREATE INDEX ON data.month (lab.lend(kind));'
			  . q{ INSERT INTO data.month SELECT 1, 'x'});
		return is_stolen();
	},
	here => sub {
		fails_with($node, "SELECT _wh.update_mv_by_template('lent', 'shop', 'shop', '2025-07-02', false)", '42501', $function, 'a late day is refused');
		return is_stolen();
	});

# A template that changes while days are loaded: old values are cast.
$node->safe_psql('postgres', "INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)"
	  . " VALUES ('moods', \$\$$query\$\$, 'id int, kind text', '0 0 29 2 *')");
is(sql($node, "SELECT _wh.update_mv_by_template('moods', 'shop', 'shop', '$day', false)"), 't', 'a day with plain types');
attack('a cast to a type of the author\'s, when columns change',
	weak => sub {
		sql($node, q{SET ROLE whadmin; CREATE TABLE data.moods AS SELECT 'kind 1'::text AS kind; SELECT count(kind::lab.mood) FROM data.moods});
		return is_stolen();
	},
	here => sub {
		fails_with($node, q{SET ROLE author; UPDATE _wh.mv_templates SET column_definitions = 'id int, kind lab.mood' WHERE template_name = 'moods'}, '42501', $type, 'the change is refused');
		return is_stolen();
	});

# ---- what trusted code may leave behind --------------------------------

# The author cannot write it, but may find it: nothing of it outlives its run.
$node->safe_psql('postgres', <<'SQL');
SET ROLE whadmin;
CREATE FUNCTION stock.leave(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM set_config('wh.left', 'behind', false), set_config('work_mem', '64kB', false);
	RETURN value;
END $$;
CREATE DOMAIN stock.leaving AS text CHECK (stock.leave(VALUE) IS NOT NULL);
RESET ROLE;
GRANT USAGE ON SCHEMA stock TO PUBLIC;
SQL
my $left = q{SELECT 'work_mem ' || current_setting('work_mem')};
attack('settings changed by a check are left in the session',
	weak => sub {
		return sql($node, "SELECT count('x'::stock.leaving) FROM generate_series(1, 2); $left") =~ /work_mem 64kB/;
	},
	here => sub {
		$node->safe_psql('postgres', "INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)"
			  . " VALUES ('leaving', \$\$$query\$\$, 'id int, kind stock.leaving', '0 0 29 2 *')");
		my $out = sql($node, "SELECT _wh.update_mv_by_template('leaving', 'shop', 'shop', '$day', false); $left");
		like($out, qr/^t\n/, 'a type of whadmin may be a column\'s');
		return $out =~ /work_mem 64kB/;
	});

$node->safe_psql('postgres', <<'SQL');
SET ROLE whadmin;
CREATE FUNCTION stock.become(value text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS pg_class (left_behind int);
	RETURN value;
END $$;
CREATE DOMAIN stock.becoming AS text CHECK (stock.become(VALUE) IS NOT NULL);
SQL
attack('a temporary table is made to hide one of the catalog',
	weak => sub {
		return sql($node, q{SELECT 'x'::stock.becoming; SELECT count(*) FROM pg_class WHERE relname = 'pg_class' AND relpersistence = 't'}) =~ /1$/;
	},
	here => sub {
		$node->safe_psql('postgres', "INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)"
			  . " VALUES ('becoming', \$\$$query\$\$, 'id int, kind stock.becoming', '0 0 29 2 *')");
		my ($status, $out, $err) = $node->psql('postgres', "SELECT _wh.update_mv_by_template('becoming', 'shop', 'shop', '$day', false);"
			  . q{ SELECT count(*) FROM pg_class WHERE relname = 'pg_class' AND relpersistence = 't'});
		like($err, qr/cannot create temporary table within security-restricted operation/, 'that is refused');
		return $out =~ /1$/;
	});

# ---- the caller's search_path ------------------------------------------

$node->safe_psql('postgres', <<'SQL');
SET ROLE author;
CREATE FUNCTION lab.to_char(day date, format text) RETURNS text LANGUAGE sql AS $$ SELECT lab.steal('hijacked') $$;
CREATE FUNCTION lab.same(a text, b text) RETURNS boolean LANGUAGE sql AS $$ SELECT lab.steal(a) = b $$;
CREATE OPERATOR lab.= (FUNCTION = lab.same, LEFTARG = text, RIGHTARG = text);
SQL
attack('operators and functions in the caller\'s search_path',
	weak => sub {
		$node->psql('postgres', "SET search_path = lab, pg_catalog, public; SELECT stock.create_mv('weak1', 'shop', 'data', '$day')");
		return is_stolen();
	},
	here => sub {
		is(sql($node, "SET search_path = lab, pg_catalog, public; SELECT _wh.update_mv_by_template('moods', 'shop', 'shop', '$day', false)"), 't', 'it works as ever');
		return is_stolen();
	});

done_testing();
