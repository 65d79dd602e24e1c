# Names, queries, columns and indexes full of what means something to SQL are
# data, through everything that is done with a day; and attacks by such text.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Encode qw(encode_utf8);
use JSON::PP qw(decode_json);
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhAttack;
use WhTest;

my $first = '2024-11-28';
my $production = new_tenant('production');
my $node = new_warehouse();

create_events($production, $first, 8, 4);
# what a backslash means is not the tenant's to decide
$production->safe_psql('postgres', 'ALTER ROLE wh_reader SET standard_conforming_strings = off; ALTER ROLE wh_reader SET escape_string_warning = off');
new_stock_warehouse($node, 'stock');
sql($node, 'CREATE ROLE author LOGIN');
foreach my $database ('stock', 'postgres')
{
	sql($node, 'GRANT USAGE ON SCHEMA _wh TO author; GRANT SELECT, INSERT ON _wh.mv_templates TO author', $database);
	make_canary($database);
}
sql($node, 'CREATE SCHEMA data', 'stock');

# As a string of SQL that means the same whatever standard_conforming_strings is.
sub text_of
{
	my ($text) = @_;

	$text =~ s/([\\'])/sprintf '\\%03o', ord $1/ge;
	$text =~ s/\n/\\n/g;
	return encode_utf8("E'$text'");
}

sub name_of
{
	my ($name) = @_;

	$name =~ s/"/""/g;
	return encode_utf8(qq("$name"));
}

sub make_canary
{
	my ($database) = @_;

	return sql($node, 'SET client_min_messages = warning; CREATE TABLE IF NOT EXISTS public.canary AS SELECT true AS alive; ALTER TABLE public.canary OWNER TO whadmin', $database);
}

sub is_alive
{
	my ($database) = @_;
	my ($status, $out) = $node->psql($database // 'postgres', 'SELECT alive FROM public.canary');

	return $status == 0 && $out eq 't';
}

# ---- as data, through the whole of it ----------------------------------

# Name of template, tenant and schema, date column, other column.
my @names = (
	[ q{t"1'; DROP TABLE canary; --}, q{shop'); DROP TABLE canary; --}, q{s"; DROP TABLE canary; --}, q{day"; --}, q{a', 'b} ],
	[ q{%s%n%1$I $$ {schema} {view_name}}, q{%L{TARGET_DATE}$x$}, q{$$ %s /* {view_name} */}, q{at %s {TARGET_DATE}}, "two\nlines" ],
	[ q{\\' OR '' = '\\}, q{back\\slash}, q{E'\\\\'}, q{\\n}, q{-- } ],
	[ q{Events}, q{Shop}, q{SHOP}, q{At}, q{AT} ],
	[ "\x{0435}vents", "sh\x{043E}p", "sh\x{03BF}p", "\x{0430}t", "\x{FF07}; \x{2019}--" ],
	[ 'ä' x 31, 'ö' x 31, 'ü' x 31, 'é' x 31, 'è' x 31 ],
	[ q{select}, q{null}, q{table}, q{current_date}, q{user} ]);

# The query is as odd as the names, and does the same for all of them.
my $query = <<'SQL';
/* a comment ; /* in a comment */ ' */ SELECT id, at AS "at", $$;'"--$$ || '%s' || E'\'' || '\' || kind AS k -- {schema} '
FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1 AND '{a}'::text[] IS NOT NULL ; -- the end;
SQL
chomp $query;
my $source = q{SELECT id, at, $$;'"--$$ || '%s' || E'\'' || '\\' || kind AS k FROM events};

sub shows
{
	my ($names, $where, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($template, $tenant, $schema, $date, $column) = map { name_of($_) } @$names;
	my $public = sprintf 'SELECT id, %s, %s FROM public.%s WHERE schema_name = %s', $date, $column, $template, text_of($names->[2]);

	same_content($node, "SELECT * FROM $schema.$template", $production, "$source WHERE $where", "$name: tenant view");
	same_content($node, $public, $production, "$source WHERE $where", "$name: public view");
}

sub done
{
	my ($sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return is(sql($node, $sql), $expected, $name);
}

sub all_ended
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')", $name);
	return is(sql($node, "SELECT string_agg(last_error, ' / ') FROM _wh.jobs WHERE state <> 'succeeded'"), '', 'without an error');
}

foreach my $n (0 .. $#names)
{
	my $names = $names[$n];
	my ($template, $tenant, $schema, $date, $column) = map { text_of($_) } @$names;
	my $columns = text_of(sprintf 'id integer, %s timestamp, %s text', map { my $i = $_; $i =~ s/"/""/g; qq("$i") } @$names[3, 4]);
	my $index = text_of(sprintf 'CREATE UNIQUE INDEX "i ""%d;-- {view_name}" ON {schema}.{view_name} (id); CREATE INDEX "j{schema}{view_name}" ON {schema}.{view_name} (id) WHERE %s <> \';--\'', $n, map { my $i = $_; $i =~ s/"/""/g; qq("$i") } $names->[4]);
	my $call = "$template, $tenant, $schema";
	my $what = "names $n";

	sql($node, sprintf 'INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, date_column, schedule) VALUES (%s, %s, %s, %s, %s, %s)',
		$template, text_of($query), $columns, $index, $date, "'0 0 29 2 *'");
	sql($node, sprintf q{SELECT _wh.add_tenant(%s, '127.0.0.1', %d, 'postgres', 'wh_reader', 'correct horse battery staple')}, $tenant, $production->port);
	sql($node, "SELECT _wh.subscribe($tenant, $template, $schema, '$first')");
	like(sql($node, "SELECT count(*) FILTER (WHERE ok) || ' of ' || count(*) FROM _wh.check_template($template, $tenant)"), qr/^(\d+) of \1$/, "$what: all checks");
	done("SELECT _wh.update_mv_by_template($call, '$first')", 't', "$what: a day at once");
	my ($id, $state) = enqueue_and_wait($node, "$template, $tenant, '2024-11-29', '2024-12-03', $schema");
	is($state, 'succeeded', "$what: days by workers");
	shows($names, "at < '2024-12-04'", "$what: loaded");

	done("SELECT _wh.update_mv_by_template($call, '2024-11-29')", 't', "$what: a day again");
	done("SELECT _wh.does_mv_exist($schema, _wh.create_mv_name($template, '2024-11-29'))", 't', "$what: found by its name");
	done("SELECT _wh.refresh_mv($schema, _wh.create_mv_name($template, '2024-11-29'))", 't', "$what: refreshed by its name");
	done("SELECT _wh.update_tenant_union_view_by_template($call) AND _wh.update_public_view_by_template($template)", 't', "$what: views");
	sql($node, sprintf 'REFRESH MATERIALIZED VIEW %s.%s', name_of($names->[2]), name_of(Encode::decode_utf8(sql($node, "SELECT _wh.create_mv_name($template, '2024-11-30')"))));
	shows($names, "at < '2024-12-04'", "$what: loaded again");

	done("SELECT _wh.create_combined_table_from_template_by_month($call, 2024, 11, allow_missing => true, verify_content => true) ->> 'status'", 'combined', "$what: a month");
	done("SELECT _wh.update_mv_by_template($call, '2024-11-30')", 't', "$what: a late day");
	shows($names, "at < '2024-12-04'", "$what: combined");
	done("SELECT _wh.convert_layout($template, 'partitions')", 4, "$what: to partitions");
	all_ended("$what: has moved");
	done("SELECT _wh.update_mv_by_template($call, '2024-12-04')", 't', "$what: a new day");
	done("SELECT _wh.update_mv_by_template($call, '2024-11-30')", 't', "$what: a late day");
	done("SELECT _wh.update_mv_by_template($call, '2024-12-01')", 't', "$what: a day again");
	shows($names, "at < '2024-12-05'", "$what: partitions");
	done("SELECT _wh.create_combined_table_from_template_by_year($call, 2024, allow_missing => true) ->> 'status'", 'combined', "$what: a year");
	done("SELECT _wh.update_mv_by_template($call, '2024-11-30')", 't', "$what: a late day of it");
	shows($names, "at < '2024-12-05'", "$what: a year");
	done("SELECT _wh.convert_layout($template, 'matviews')", 1, "$what: and back");
	all_ended("$what: has moved back");
	shows($names, "at < '2024-12-05'", "$what: moved back");
	sql($node, "SELECT _wh.drop_day($template, $tenant, '2024-11-30', $schema)");
	shows($names, "at < '2024-12-05' AND at::date <> '2024-11-30'", "$what: without a day");

	# a column more, and the views follow
	my $more = $columns;
	$more =~ s/'$/, "n;'" integer'/;
	$more =~ s/"n;'"/"n;\\047"/;
	sql($node, sprintf q{UPDATE _wh.mv_templates SET column_definitions = %s, query_template = replace(query_template, 'AS k', 'AS k, 1') WHERE template_name = %s}, $more, $template);
	done(sprintf(q{SELECT count("n;'") || ' of ' || count(*) FROM %s.%s}, name_of($names->[2]), name_of($names->[0])), '0 of 24', "$what: a new column in the view");
	done("SELECT _wh.update_mv_by_template($call, '2024-12-04')", 't', "$what: a day with it");
	done(sprintf(q{SELECT count("n;'") || ' of ' || count(*) FROM %s.%s}, name_of($names->[2]), name_of($names->[0])), '4 of 24', "$what: has it");

	sql($node, "UPDATE _wh.mv_templates SET keep_days = 1 WHERE template_name = $template");
	sql($node, "SELECT _wh.setup_cron($template)");
	sql($node, "UPDATE _wh.schedules SET last_run = NULL, next_run = now() - interval '1 year' WHERE kind = 'retention' AND template_name = $template");
	wait_until($node, "SELECT count(*) = 1 FROM _wh.schedules WHERE kind = 'retention' AND template_name = $template AND last_status LIKE 'succeeded: dropped%'", "$what: retention");
	done(sprintf('SELECT count(*) FROM %s.%s', name_of($names->[2]), name_of($names->[0])), 0, "$what: has dropped everything");
	sql($node, "SELECT _wh.remove_tenant($tenant, true)");
	done("SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($schema))", 0, "$what: nothing is left");
	ok(is_alive(), "$what: and nobody came to harm");
}

# ---- log and audit -----------------------------------------------------

my @contexts = slurp_file($node->logfile) =~ /(?:CONTEXT:  |^\t)wh_worker: (\{.*)$/mg;
my @parsed = grep { defined } map { eval { decode_json($_) } } @contexts;
my %logged = map { ($_->{template} // '') => 1 } @parsed;

cmp_ok(scalar @contexts, '>', 0, 'the log has contexts');
is(scalar @parsed, scalar @contexts, 'each is JSON on a line of its own');
is(sql($node, q{SELECT count(DISTINCT template_name) FROM _wh.audit_log WHERE object = 'enqueue_backfill'}), scalar @names, 'the audit log has all names as they are');
is(sql($node, sprintf q{SELECT details ->> 'target_schema' = %1$s AND target_schema = %1$s FROM _wh.audit_log WHERE object = 'enqueue_backfill' AND template_name = %2$s},
		text_of($names[0][2]), text_of($names[0][0])), 't', 'in its details too');

# ---- attacks -----------------------------------------------------------

my $quoted = q{'correct horse battery staple'};
my $plain = q{SELECT id, kind FROM events WHERE at::date = '{TARGET_DATE}'};
my $plain_index = 'CREATE INDEX ON {schema}.{view_name} (id)';
my $own_index = 'CREATE INDEX i_{view_name} ON {schema}.{view_name} (id)';
my $number = 0;

sub weak_tenant
{
	my ($name, $port, $database, $user, $password) = @_;

	return sql($node, sprintf('INSERT INTO _wh.tenant_connections VALUES (%s, %s, %d, %s, %s, %s)', text_of($name), q{'127.0.0.1'}, $port,
			text_of($database), text_of($user), text_of($password // $quoted)), 'stock');
}

# What its author writes; a stock warehouse takes everything.
sub weak_template
{
	my ($name, $query, $columns, $indexes) = map { text_of($_) } @_;

	return sql($node, "SET ROLE author; INSERT INTO _wh.mv_templates VALUES ($name, '', $query, $columns, $indexes)", 'stock');
}

# The canary sings again afterwards.
sub killed
{
	my ($database) = @_;
	my $killed = !is_alive($database);

	make_canary($database);
	return $killed;
}

# A template by its author, and then a day by an innocent caller.
sub write_and_load
{
	my (%what) = @_;
	my $name = text_of($what{name} // 'ours' . ++$number);

	return attempt($node, 'postgres',
		sprintf('SET ROLE author; INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule) VALUES (%s, %s, %s, %s, %s); RESET ROLE;',
			$name, text_of($what{query} // $plain), text_of($what{columns} // 'id int, kind text'), text_of($what{indexes} // $own_index), q{'0 0 29 2 *'})
		  . " SELECT _wh.update_mv_by_template($name, 'shop', 'shop', '2024-12-01', false)");
}

sub weak_write_and_load
{
	my (%what) = @_;
	my $name = $what{name} // 'weak' . ++$number;

	weak_template($name, $what{query} // $plain, $what{columns} // 'id int, kind text', $what{indexes} // $plain_index);
	return attempt($node, 'stock', sprintf q{SELECT _wh.create_mv_from_template(%s, 'shop', 'data', '2024-12-01')}, text_of($name));
}

sub template_kills
{
	my ($weak, $ours) = @_;

	return (
		weak => sub {
			weak_write_and_load(%$weak);
			return killed('stock');
		},
		here => sub {
			write_and_load(%{ $ours // $weak });
			return killed('postgres');
		});
}

weak_tenant('shop', $production->port, 'postgres', 'wh_reader');
add_tenant($node, 'shop', $production);
add_events_template($node, 'events');

attack('a template\'s name ends a statement and begins another', why => qr/^t$/m,
	template_kills({ name => 'x AS SELECT 1; DROP TABLE public.canary; --', indexes => '' }));
attack('column definitions that close the list', why => qr/syntax error|column definitions are not a list/,
	template_kills({ columns => 'id int, kind text); DROP TABLE public.canary; --' }));
attack('an index text with another statement', why => qr/indexes hold a statement that is not CREATE INDEX/,
	template_kills({ indexes => "$plain_index; DROP TABLE public.canary" }, { indexes => "$own_index; DROP TABLE public.canary" }));
attack('an index text with a statement in a dollar quote', why => qr/indexes hold a statement that is not CREATE INDEX/,
	template_kills({ indexes => q{DO $x$ BEGIN DROP TABLE public.canary; END $x$} }));

sql($production, q{CREATE TABLE written (x int); GRANT INSERT, SELECT ON written TO wh_reader;
	CREATE FUNCTION write_it() RETURNS int LANGUAGE sql AS 'INSERT INTO written VALUES (1) RETURNING x'});

sub anything_written
{
	return sql($production, 'WITH d AS (DELETE FROM written RETURNING 1) SELECT count(*) FROM d') > 0;
}

attack('a query with another statement writes at the tenant', why => qr/query_template is not a single SELECT/,
	weak => sub {
		weak_write_and_load(query => 'SELECT 1, $$x$$; INSERT INTO written VALUES (1); SELECT 1, $$x$$');
		return anything_written();
	},
	here => sub {
		write_and_load(query => $_) foreach (
			q{SELECT 1, '{TARGET_DATE}') TO STDOUT; INSERT INTO written VALUES (1); COPY (SELECT 1},
			q{SELECT 1, '{TARGET_DATE}') AS t(id, kind)) TO STDOUT; COMMIT; INSERT INTO written VALUES (1); --},
			q{WITH w AS (INSERT INTO written VALUES (1) RETURNING x) SELECT x, '{TARGET_DATE}' FROM w},
			q{SELECT x, '{TARGET_DATE}' INTO other FROM written},
			q{SELECT 1, '{TARGET_DATE}'; INSERT INTO written VALUES (1)});
		return anything_written();
	});
attack('a function in the query writes at the tenant', why => qr/cannot execute INSERT in a read-only transaction/,
	weak => sub {
		weak_write_and_load(query => 'SELECT write_it(), $$x$$');
		return anything_written();
	},
	here => sub {
		write_and_load(query => q{SELECT write_it(), '{TARGET_DATE}'});
		return anything_written();
	});

my $other = new_tenant('other', database => 'loot');
my $led = 'postgres port=' . $other->port . ' dbname=loot';
my $connects = q{SELECT ok || ': ' || detail FROM _wh.check_tenant('%s') WHERE check_name = 'connection'};
attack('a database name that is a connection string leads to another server', why => qr/^false: .*database "postgres port=\d+ dbname=loot" does not exist/m,
	weak => sub {
		weak_tenant('led', $production->port, $led, 'wh_reader');
		return gets($node, 'stock', q{SELECT d FROM dblink(_wh.get_tenant_connection_string('led'), 'SELECT current_database()::text') AS t(d text)}, qr/^loot$/m);
	},
	here => sub {
		add_tenant($node, 'led', $production, database => $led);
		return gets($node, 'postgres', sprintf($connects, 'led'), qr/^true/m);
	});
attack('a user name that is more than one leads to another port', why => qr/^false: /m,
	weak => sub {
		weak_tenant('led too', 1, 'postgres', 'wh_reader port=' . $production->port);
		return gets($node, 'stock', q{SELECT d FROM dblink(_wh.get_tenant_connection_string('led too'), 'SELECT 1') AS t(d int)}, qr/^1$/m);
	},
	here => sub {
		add_tenant($node, 'led too', $production, port => 1, username => 'wh_reader port=' . $production->port);
		return gets($node, 'postgres', sprintf($connects, 'led too'), qr/^true/m);
	});
attack('a password ends its place in the connection string and adds a host', why => qr/password='x\\' host=evil\.example \\\\'/,
	weak => sub {
		weak_tenant('ends', $production->port, 'postgres', 'wh_reader', q{'x' host=evil.example});
		return gets($node, 'stock', q{SELECT _wh.get_tenant_connection_string('ends')}, qr/' host=evil\.example$/m);
	},
	here => sub {
		add_tenant($node, 'ends', $production, password => q{x' host=evil.example \\});
		my (undef, $string) = attempt($node, 'postgres', q{SELECT _wh.get_tenant_connection_string('ends')});

		$string =~ s/'(?:[^'\\]|\\.)*'/''/g;
		return $string =~ /evil/;
	});

attack('a backslash in a name, with standard_conforming_strings off', why => qr/^t\ncombined$/m,
	weak => sub {
		# quotes doubled by hand, as is often seen
		sql($node, q{CREATE FUNCTION note(name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $f$
			BEGIN EXECUTE 'COMMENT ON SCHEMA data IS ''' || replace(name, '''', '''''') || ''''; END $f$}, 'stock');
		attempt($node, 'stock', 'SET standard_conforming_strings = off; SET escape_string_warning = off; SELECT note(' . text_of(q{\'; DROP TABLE public.canary; --}) . ')');
		return killed('stock');
	},
	here => sub {
		my $name = text_of(q{\'; DROP TABLE public.canary; --});

		attempt($node, 'postgres', 'SET standard_conforming_strings = off; INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)'
			  . " VALUES ($name, " . text_of($plain) . ", 'id int, kind text', '0 0 29 2 *');"
			  . " SELECT _wh.update_mv_by_template($name, 'shop', 'shop', '2024-12-01', false);"
			  . " SELECT _wh.create_combined_table_from_template_by_month($name, 'shop', 'shop', 2024, 12, allow_missing => true) ->> 'status'");
		return killed('postgres');
	});

my $forged = q{SELECT 0, '{TARGET_DATE}'::timestamp, 'forged', 0, ''};
my $loads = sub { join ' ', map { "SELECT _wh.update_mv_by_template('$_', 'shop', 'shop', '2024-12-01', false);" } @_ };
attack('a name in capitals leads to another\'s relation', why => qr/^t\nt$/m,
	weak => sub {
		weak_template('EVENTS', q{SELECT 0, 'forged'}, 'id int, kind text', $plain_index);
		attempt($node, 'stock', q{SELECT _wh.create_mv_from_template('EVENTS', 'shop', 'data', '2024-12-01')});
		return sql($node, q{SELECT min(kind) FROM data.events_2024_12_01}, 'stock') eq 'forged';
	},
	here => sub {
		add_events_template($node, 'EVENTS', query => $forged);
		attempt($node, 'postgres', $loads->('EVENTS', 'events'));
		return sql($node, q{SELECT bool_or(kind = 'forged') FROM shop.events}) eq 't';
	});
attack('a long name is cut to that of another\'s relation', why => qr/^t\nt$/m,
	weak => sub {
		my $long = 'l' x 63;

		weak_template("${long}a", q{SELECT 0, 'forged'}, 'id int, kind text', $plain_index);
		attempt($node, 'stock', "SELECT _wh.create_mv_from_template('${long}a', 'shop', 'data', '2024-12-01')");
		return sql($node, "SELECT min(kind) FROM data.$long", 'stock') eq 'forged';
	},
	here => sub {
		my $long = 'l' x 62;

		add_events_template($node, "${long}a", query => $forged);
		add_events_template($node, "${long}b");
		attempt($node, 'postgres', $loads->("${long}a", "${long}b"));
		return sql($node, "SELECT bool_or(kind = 'forged') FROM shop.${long}b") eq 't';
	});

attack('a tenant\'s name ends the command of its schedule',
	weak => sub {
		# as people write it for pg_cron
		my $command = sql($node, sprintf(q{SELECT format('SELECT _wh.create_mv_from_template(''events'', ''%%s'', ''data'', ''2024-12-02'')', %s)}, text_of(q{shop', 'data', '2024-12-02'); DROP TABLE public.canary; --})), 'stock');

		attempt($node, 'stock', $command);
		return killed('stock');
	},
	here => sub {
		my $tenant = text_of(q{shop', 'data', '2024-12-02'); DROP TABLE public.canary; --});

		sql($node, sprintf q{SELECT _wh.add_tenant(%s, '127.0.0.1', %d, 'postgres', 'wh_reader', 'correct horse battery staple', '{events}', '2024-12-01')}, $tenant, $production->port);
		sql($node, "UPDATE _wh.schedules SET next_run = now() WHERE tenant_name = $tenant");
		wait_until($node, "SELECT count(*) > 0 FROM _wh.schedules WHERE tenant_name = $tenant AND last_run IS NOT NULL", 'it came due');
		is(sql($node, "SELECT count(command) FROM _wh.schedules WHERE tenant_name = $tenant"), 0, 'without a command');
		return killed('postgres');
	});

done_testing();
