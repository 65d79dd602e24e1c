# Values survive a load unchanged: over binary and over text COPY, for names
# that need quoting, and for queries that do not end where one would like.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use WhTest;

my $day = '2025-08-01';
my $tenant = new_tenant('tenant');
my $node = new_warehouse();

$tenant->safe_psql('postgres', q{
	CREATE TYPE mood AS ENUM ('sad', 'glad', 'it''s "so\so"');
	CREATE DOMAIN short_text AS text CHECK (length(value) < 100);
	CREATE TYPE pair AS (a integer, b text);
	CREATE TABLE vals (
		day date, id integer,
		t text, v varchar(20), c char(5), n numeric, n2 numeric(10, 2),
		f8 float8, f4 float4, b boolean, i2 smallint, i8 bigint,
		d date, ts timestamp, tstz timestamptz, tm time, tmtz timetz, iv interval,
		j json, jb jsonb, u uuid, by bytea, ia integer[], ta text[], na numeric[],
		ip inet, net cidr, mac macaddr, bt bit varying, mo money, r int4range, x xml,
		m mood, s short_text, p pair, ma mood[]);
	INSERT INTO vals (day, id) VALUES ('2025-08-01', 1);
	INSERT INTO vals VALUES ('2025-08-01', 2, '', '', '', 0, 0, 0, 0, false, 0, 0,
		'2000-01-01', '2000-01-01', '2000-01-01', '00:00', '00:00+00', '0',
		'{}', '{}', '00000000-0000-0000-0000-000000000000', '', '{}', '{}', '{}',
		'0.0.0.0', '0.0.0.0/0', '00:00:00:00:00:00', '', 0, 'empty', '', 'sad', '', '(,)', '{}');
	INSERT INTO vals VALUES ('2025-08-01', 3, E'Zoë 東京 😀 \\N \\. \t\r\n\b\f\v "quoted"', 'größer', 'é',
		'NaN', 'NaN', 'NaN', 'NaN', true, -32768, -9223372036854775808,
		'infinity', 'infinity', 'infinity', '24:00', '23:59:59.999999-15:59', '-178000000 years',
		E'{"a":  [1, 2.50, "\u00e9"], "a": null}', '{"b": 1e400, "a": [null, true, "東京"]}',
		'ffffffff-ffff-ffff-ffff-ffffffffffff', '\x00ff5c0a0d09',
		'{{1,NULL},{3,-2147483648}}', ARRAY['', NULL, 'NULL', 'a"b', E'c\\d', 'é,{}'], '{NaN,1.10,-0.0}',
		'2001:db8::1/64', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', B'10101', -12345.67, '[1,10)', '<a>é</a>',
		'it''s "so\so"', 'of the tenant', '(7,"x,y")', ARRAY['glad', NULL, 'it''s "so\so"']::mood[]);
	INSERT INTO vals (day, id, n, f8, f4, d, ts, tstz, iv, n2, ia) VALUES
		('2025-08-01', 4, 'Infinity', 'Infinity', '-Infinity', '-infinity', '-infinity', '-infinity',
		 '1 mon -1 day 00:00:00.000001', -99999999.99, '[-2:0]={1,2,3}'),
		('2025-08-01', 5, '-Infinity', 1e-308, 1e-45, '1999-12-31', '1999-12-31 23:59:59.999999',
		 '1999-12-31 23:59:59.999999+00', '-00:00:01', 0.01, NULL),
		('2025-08-01', 6, 0.000, -0.0, -0.0, '4713-01-01 BC', '4713-01-01 BC', '4713-01-01 BC',
		 '1 year 2 mons 3 days 04:05:06.789', 10.00, NULL),
		('2025-08-01', 7, repeat('1234567890', 100)::numeric, 1.7976931348623157e308, 3.4e38,
		 '5874897-12-31', '294276-12-31 23:59:59', '294276-12-31 23:59:59+00', NULL, NULL, NULL),
		('2025-08-01', 8, (repeat('9', 500) || '.' || repeat('7', 500))::numeric, 0.1, 0.1,
		 '0001-01-01', '0001-01-01', '0044-03-15 BC', NULL, NULL, NULL),
		('2025-08-01', 9, 1e-1000, 2.5, 2.5, '2024-02-29', '2024-02-29', '2024-02-29 12:00+05:30', NULL, NULL, NULL);
	INSERT INTO vals (day, id, t, by, jb)
		SELECT '2025-08-01', 10, string_agg(md5(n::text) || 'é', ''),
			   decode(string_agg(md5(n::text), ''), 'hex'), to_jsonb(string_agg(md5(n::text), ' '))
		FROM generate_series(1, 100000) AS n;
	GRANT SELECT ON vals TO wh_reader;
});

my $built_in = 'id integer, t text, v varchar(20), c char(5), n numeric, n2 numeric(10, 2), '
  . 'f8 float8, f4 real, b boolean, i2 smallint, i8 bigint, d date, ts timestamp, '
  . 'tstz timestamptz, tm time, tmtz timetz, iv interval, j json, jb jsonb, u uuid, '
  . 'by bytea, ia integer[], ta text[], na numeric[], ip inet, net cidr, mac macaddr, '
  . 'bt bit varying, r int4range, x xml';
my @names = map { (split ' ', $_)[0] } split /, (?=[a-z])/, $built_in;
my $list = join ', ', @names;
my $condition = "WHERE day = '$day'";

# An enum and a domain that exist only at the tenant are declared as text.
my $foreign = 'm text, s text, p text, ma text';
my $foreign_list = 'm::text, s::text, p::text, ma::text';

# Both COPY formats: the second table has a column of a type of our own,
# which binary COPY cannot carry.
sql($node, "CREATE DOMAIN public.local_text AS text; GRANT USAGE ON TYPE public.local_text TO whadmin");
add_events_template($node, 'values_binary',
	query => "SELECT $list, m, s, p, ma FROM vals WHERE day = '{TARGET_DATE}'",
	columns => "$built_in, $foreign",
	indexes => '');
add_events_template($node, 'values_text',
	query => "SELECT $list, m, s, p, ma, t FROM vals WHERE day = '{TARGET_DATE}'",
	columns => "$built_in, $foreign, t2 public.local_text",
	indexes => '');
add_tenant($node, 'tenant', $tenant);

foreach my $case ([ 'values_binary', '' ], [ 'values_text', ', t AS t2' ])
{
	my ($template, $more) = @$case;

	is( sql($node, "SELECT _wh.update_mv_by_template('$template', 'tenant', 'tenant', '$day')"),
		't', "$template loads");
	same_content($node, "SELECT * FROM tenant.$template",
		$tenant, "SELECT $list, $foreign_list$more FROM vals $condition",
		"$template: the tenant view equals the source in every column");
	is( sql($node, "SELECT rows FROM _wh.day_loads WHERE template_name = '$template'"),
		10, "$template: the ledger has its rows");

	# Again, into the existing relation, and by PostgreSQL's own REFRESH.
	is( sql($node, "SELECT _wh.update_mv_by_template('$template', 'tenant', 'tenant', '$day')"),
		't', "$template loads again");
	same_content($node, "SELECT * FROM tenant.${template}_2025_08_01",
		$tenant, "SELECT $list, $foreign_list$more FROM vals $condition",
		"$template: equal after the second load");
	sql($node, "REFRESH MATERIALIZED VIEW tenant.${template}_2025_08_01");
	same_content($node, "SELECT * FROM tenant.${template}_2025_08_01",
		$tenant, "SELECT $list, $foreign_list$more FROM vals $condition",
		"$template: equal after REFRESH MATERIALIZED VIEW");
}
is( sql($node, q{SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
		FROM pg_attribute a WHERE a.attrelid = 'tenant.values_binary'::regclass AND a.attname IN ('v', 'c', 'n2')}),
	'v character varying(20), c character(5), n2 numeric(10,2)',
	'declared lengths and precisions are those of the view');

# A value that does not fit is an error, never cut.
add_events_template($node, 'too_long',
	query => "SELECT id, t FROM vals WHERE day = '{TARGET_DATE}' AND id = 3",
	columns => 'id integer, t varchar(3)',
	indexes => '');
my ($status, $out, $err) = $node->psql('postgres',
	"SELECT _wh.update_mv_by_template('too_long', 'tenant', 'tenant', '$day')");
is($out, 'f', 'a value too long for its column is no success');
like($err, qr/WARNING:.*too long for type character varying\(3\)/s,
	'and the WARNING says why');
is(sql($node, "SELECT to_regclass('tenant.too_long_2025_08_01') IS NULL"),
	't', 'and leaves nothing');

# Queries that end in a semicolon, a comment, both; braces that are the user's.
my %ending = (
	semicolon => ';',
	comment => ' -- all of the day',
	both => " -- first; \n ; -- second",
	block => ' /* ; */ ; ');
foreach my $name (sort keys %ending)
{
	add_events_template($node, "ends_in_$name",
		query => "SELECT id, t, '{a,b}'::text[] AS braces FROM vals WHERE day = '{TARGET_DATE}'$ending{$name}",
		columns => 'id integer, t text, braces text[]');
	is( sql($node, "SELECT _wh.update_mv_by_template('ends_in_$name', 'tenant', 'tenant', '$day')"),
		't', "a query that ends in $name loads");
	is(sql($node, "SELECT count(*) FROM tenant.ends_in_$name"),
		10, "a query that ends in $name: all rows are there");
}

# Names that need quoting, and names of 63 bytes and more.
my $long = 'a_very_long_name_of_a_template_that_nearly_fills_an_identifier';
my $longer = 'x' . 'y' x 70;
add_events_template($node, $long,
	query => "SELECT id, t AS \"Some Column\" FROM vals WHERE day >= '{TARGET_DATE}'::date - 1",
	columns => 'id integer, "Some Column" text',
	indexes => 'CREATE INDEX idx_{schema}_{view_name}_a ON {schema}.{view_name} (id);'
	  . ' CREATE INDEX idx_{schema}_{view_name}_b ON {schema}.{view_name} (id DESC)');
fails_with($node,
	"INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions) VALUES ('$longer', 'SELECT ''{TARGET_DATE}''', 'a text')",
	'(22023|23514|42622)', qr/63/, 'a template name of more than 63 bytes is refused');

foreach my $name ('Tenant-A', 'tenant "b"', 'Ünïcödé', 't' x 63, "o'brien; --")
{
	my $quoted = '"' . ($name =~ s/"/""/gr) . '"';
	my $literal = "'" . ($name =~ s/'/''/gr) . "'";

	add_tenant($node, $name, $tenant);
	is( sql($node, "SELECT _wh.update_mv_by_template('$long', $literal, '2025-08-01')"),
		't', "tenant $name loads");
	is( sql($node, "SELECT _wh.update_mv_by_template('$long', $literal, '2025-08-02')"),
		't', "tenant $name loads another day");
	is( sql($node, qq(SELECT count("Some Column") FROM $quoted.$long)),
		sql($tenant, "SELECT 2 * count(t) FROM vals"),
		"tenant $name: the view has both days");
	is( sql($node,
			"SELECT count(DISTINCT i.indexrelid) FROM _wh.day_loads d JOIN pg_index i ON i.indrelid = d.relation_oid WHERE d.tenant_name = $literal"),
		4, "tenant $name: both indexes of both days exist");
}
is(sql($node, "SELECT string_agg(DISTINCT schema_name, ' ' ORDER BY schema_name) FROM public.$long"),
	sql($node, "SELECT string_agg(tenant_name, ' ' ORDER BY tenant_name) FROM _wh.tenant_templates WHERE template_name = '$long'"),
	'the public view names every schema');
my ($name_63) = ('z' x 63);
fails_with($node,
	"SELECT _wh.add_tenant('${name_63}z', 'h', 5432, 'd', 'u', 'p')",
	'(22023|23514|42622)', qr/63/, 'a tenant name of more than 63 bytes is refused');

done_testing();
