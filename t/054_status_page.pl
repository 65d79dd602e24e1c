# The status page: what it says is so, names in it stay text, what it says to type
# can be typed, it is the same by every way, and a browser shows it to everybody.
use strict;
use warnings;
use utf8;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Encode qw(encode_utf8 decode_utf8);
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhBrowser;
use WhTest;

my $pages = PostgreSQL::Test::Utils::tempdir();
my $source = new_tenant('source');
my $node = new_warehouse(conf => { 'wh_worker.max_attempts' => 1, 'wh_worker.fetch_idle_timeout' => "'50s'", 'wh_worker.status_page_file' => "'$pages/status.html'" });
my $today = sql($node, 'SELECT _wh.current_date_utc()');

sub day
{
	my ($ago) = @_;

	return sql($node, "SELECT date '$today' - $ago");
}

# The page as a table of one row, so that all that is asked is of the same one.
sub make_page
{
	my ($days) = @_;

	sql($node, 'DROP TABLE IF EXISTS page; CREATE TABLE page AS SELECT _wh.status_page(' . ($days // '') . ') AS html');
	return;
}

# The text of the elements at a path, one an entry.
sub texts
{
	my ($path) = @_;
	my $out = sql($node, sprintf q{SELECT replace(t, E'\n', '') FROM page, XMLTABLE(XMLNAMESPACES('http://www.w3.org/1999/xhtml' AS h), $$%s$$ PASSING xmlparse(DOCUMENT html) COLUMNS t text PATH '.')}, $path);

	return split /\n/, decode_utf8($out);
}

# Its class attribute contains this word.
sub of_class
{
	my ($element, $class) = @_;

	return "//h:$element\[contains(concat(' ', \@class, ' '), ' $class ')]";
}

sub findings
{
	return texts('//h:section[@id="attention"]//h:li');
}

sub has_finding
{
	my ($pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	return ok(scalar(grep { $_ =~ $pattern } findings()), $name) || diag encode_utf8(join "\n", findings());
}

# ---- an empty warehouse, then one where all is well --------------------

# The launcher has just started; before its first round is over there is an error, that it could not.
wait_until($node, q{SELECT state = 'idle' FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher'}, 'a launcher runs');
make_page();
has_finding(qr/^well /, 'an empty warehouse is well');
is_deeply([ texts('//h:h2') ], [ 'All is well', 'Running now', 'Failures', 'Freshness', 'Throughput', 'The last 90 days' ], 'and has all sections');

create_events($source, day(6), 7, 40);
add_events_template($node, 'events');
add_tenant($node, 'shop', $source, templates => ['events'], start_date => day(6));
is((enqueue_and_wait($node, sprintf "'events', 'shop', '%s', '%s'", day(6), day(0)))[1], 'succeeded', 'days are loaded');
make_page();
has_finding(qr/^well /, 'all is well when every day is there');
is_deeply([ texts(of_class('ul', 'grid') . '//*[local-name() = "svg"]/*[local-name() = "title"]') ], ['7 loaded'], 'the row of the tenant says so');
like((texts(of_class('ul', 'grid') . '/h:li/h:span[@class="s"]'))[0], qr/^through $today$/, 'and how far the data goes');
is((grep { /^$today/ } texts('//h:section[@id="throughput"]//h:tr'))[0] =~ s/^$today//r =~ s/B$//r =~ s/ .*//r, sprintf('%d%d%d', 7, 0, 280) . sql($node, q{SELECT CASE WHEN b < 1024 THEN round(b)::text WHEN b < 10188 THEN round(b / 1024.0, 1)::text ELSE round(b / 1024.0)::text END FROM (SELECT sum(bytes) AS b FROM _wh.job_run_details WHERE command LIKE 'refresh %' AND status = 'succeeded') s}),
	'throughput has loads, failures, rows and bytes of today');

# ---- the same by every way ---------------------------------------------

my $html = sql($node, 'SELECT html FROM page');
unlike($html, qr/[^\x20-\x7e]|\\/, 'the page is printable ASCII on one line, without backslashes');
$node->safe_psql('postgres', "COPY (SELECT html FROM page) TO '$pages/copied.html'");
is(slurp_file("$pages/copied.html"), "$html\n", 'COPY writes it byte for byte, and a line end');
unlike($html, qr/<script|<link|<img|\bsrc=|url\((?!#)|https?:(?!\/\/www\.w3\.org\/1999\/xhtml")/i, 'it loads nothing and runs nothing');

fails_with($node, 'SELECT _wh.status_page(0)', '22023', qr/days must be between 1 and 366/, 'no days are refused');
fails_with($node, 'SELECT _wh.status_page(367)', '22023', qr/days must be between 1 and 366/, 'and too many');
fails_with($node, 'SELECT _wh.status_page(NULL)', '22004', qr/days must not be null/, 'and NULL');
make_page(3);
is_deeply([ texts(of_class('ul', 'grid') . '//*[local-name() = "svg"]/*[local-name() = "title"]') ], ['3 loaded'], 'a page of three days has three');

# ---- into a file, by a schedule ----------------------------------------

symlink "$pages/elsewhere.html", "$pages/status.html" or die "could not make a link: $!";
sql($node, "SELECT _wh.schedule('status page', '1 second', 'SELECT _wh.write_status_page()')");
wait_until($node, "SELECT (pg_stat_file('$pages/status.html', true)).size > 0", 'a schedule writes the file');
sql($node, "SELECT _wh.unschedule('status page')");
wait_until($node, "SELECT count(*) = 0 FROM _wh.jobs WHERE kind = 'sql' AND state IN ('queued', 'running')", 'it has stopped');
is(sql($node, "SELECT string_agg(DISTINCT status || ' ' || coalesce(sqlstate, ''), ', ') FROM _wh.job_run_details WHERE command LIKE '%write_status_page%' AND job_id IS NOT NULL AND status IN ('succeeded', 'failed')"), 'succeeded ', 'without an error');
ok(!-e "$pages/elsewhere.html" && !-l "$pages/status.html", 'a link in its place is replaced, not followed');
like(slurp_file("$pages/status.html"), qr/^<!DOCTYPE html>.*<\/html>$/, 'the whole page is there');
is(sprintf('%o', (stat "$pages/status.html")[2] & oct 7777), '644', 'others may read it');
is_deeply([ glob "$pages/*.new" ], [], 'nothing is left beside it');
is(sql($node, 'SELECT _wh.write_status_page(7)'), -s "$pages/status.html", 'it returns the bytes');
sql($node, "ALTER SYSTEM SET wh_worker.status_page_file = '$pages/not_there/status.html'; SELECT pg_reload_conf()");
wait_until($node, "SELECT current_setting('wh_worker.status_page_file') LIKE '%not_there%'", 'another file is named');
fails_with($node, 'SELECT _wh.write_status_page()', '58P01', qr/could not (?:create|remove) file ".*not_there.*": No such file or directory/, 'one that cannot be written is an error');
sql($node, q{ALTER SYSTEM SET wh_worker.status_page_file = ''; SELECT pg_reload_conf()});
wait_until($node, "SELECT current_setting('wh_worker.status_page_file') = ''", 'no file is named');
fails_with($node, 'SELECT _wh.write_status_page()', '55000', qr/there is no file for the status page/, 'none is an error that says so');
like(($node->psql('postgres', "ALTER SYSTEM SET wh_worker.status_page_file = 'status.html'"))[2], qr/invalid value.*full path/s, 'a path that is not full is refused');

# ---- what is wrong is said ---------------------------------------------

sql($node, 'SELECT _wh.pause()');
make_page();
has_finding(qr/^broken The warehouse is paused: no job starts\. Since .* UTC, by .*SELECT _wh\.resume\(\);$/, 'a pause is said');
sql($node, 'SELECT _wh.resume()');

sql($node, sprintf q{UPDATE _wh.day_loads SET state = 'suspect', last_error = '3 rows' WHERE target_date = '%s'; DROP MATERIALIZED VIEW shop.events_%s CASCADE; SELECT _wh.update_tenant_union_view_by_template('events', 'shop')}, day(5), day(4) =~ tr/-/_/r);
is(sql($node, q{SELECT count(*) FROM _wh.day_loads WHERE state = 'missing'}), '1', 'a day is taken away');
$source->safe_psql('postgres', 'ALTER TABLE events RENAME COLUMN kind TO sort');
is((enqueue_and_wait($node, sprintf q{'events', 'shop', '%1$s', '%1$s', mode => 'all'}, day(3)))[1], 'failed', 'a day cannot be loaded again');
is((enqueue_and_wait($node, sprintf q{'events', 'shop', '%1$s', '%1$s'}, day(7)))[1], 'failed', 'one that was never there fails');
make_page();
is_deeply([ sort grep { /:/ } texts(of_class('ul', 'grid') . '//*[local-name() = "path"]/*[local-name() = "title"]') ],
	[ sort { $a cmp $b } day(7) . ': failed', day(5) . ': suspect', day(4) . ': missing', day(3) . ': not renewed' ], 'each kind of day is in the grid, with its date');
like((texts(of_class('ul', 'grid') . '//*[local-name() = "svg"]/*[local-name() = "title"]'))[0], qr/^1 failed, 1 missing, 1 suspect, 1 not renewed, 4 loaded$/, 'and counted');
has_finding(qr/1 day failed and has no rows: events of shop/, 'a day that failed is said');
has_finding(qr/1 day is missing and not on its way: events of shop/, 'one that is missing');
has_finding(qr/1 day has a suspect count of rows: events of shop/, 'one that is suspect');
has_finding(qr/1 day could not be loaded again and shows what it had: events of shop/, 'one that is old');
is(scalar(grep { /column "kind" does not exist/ } texts('//h:section[@id="failures"]//h:tr')), 1, 'failures have their cause, once');
$source->safe_psql('postgres', 'ALTER TABLE events RENAME COLUMN sort TO kind');

# What it says to type does what it says.
sql($node, $_) foreach grep { /enqueue_backfill/ } texts('//h:section[@id="attention"]//h:code');
wait_until($node, q{SELECT count(*) = 0 FROM _wh.jobs WHERE state IN ('queued', 'running')}, 'the commands of the page are run');
make_page();
has_finding(qr/^well /, 'and all is well again');

# ---- a running job -----------------------------------------------------

my $proxy = new_proxy(target => $source->port, mode => 'stall', limit => 5000);
sql($node, sprintf q{SELECT _wh.add_tenant('slow', '127.0.0.1', %d, 'postgres', 'wh_reader', '%s', '{events}', '%s'); UPDATE _wh.schedules SET active = false}, $proxy->{port}, reader_password(), day(0));
my $backfill = sql($node, sprintf q{SELECT _wh.enqueue_backfill('events', 'slow', '%1$s', '%1$s')}, day(0));
wait_until($node, q{SELECT state IN ('connecting', 'fetching') FROM _wh.worker_status WHERE tenant_name = 'slow'}, 'a job runs');
make_page();
like((grep { /events of slow/ } texts('//h:section[@id="now"]//h:li'))[0], qr/^refresh events of slow, $today (?:connecting|fetching) for \d+ s, worker \d+0 rows0 rows, 0 B$/, 'it is shown, with its bar');
like((grep { /backfill/ } texts('//h:section[@id="now"]//h:li'))[0], qr/^backfill $backfill: events of slow running.*0 of 1 days/, 'and its backfill');
like((texts(of_class('ul', 'grid') . '//*[local-name() = "svg"]/*[local-name() = "title"]'))[1], qr/^1 queued$/, 'its day is on its way');
sql($node, "SELECT _wh.cancel_backfill($backfill)");
wait_for_job($node, "backfill_id = $backfill", 'cancelled', 'it is cancelled');
stop_proxy($proxy);

# ---- names that mean something to HTML, SQL and eyes -------------------

my @names = ("<script>window.alerted = 1</script>", qq{a&b"c'd\\e</title></svg>}, "new\nline\ttab", "\x{5e9}\x{5dc}\x{5d5}\x{5dd}", "evil\x{202e}lqs", "--\x{1F600} \$\$ %s {x}", ']]></style>', 'only me');
my $literals = join ', ', map { my $text = $_; $text =~ s/([\\'])/sprintf '\\%03o', ord $1/ge; $text =~ s/\n/\\n/g; $text =~ s/\t/\\t/g; "E'$text'" } @names;

sub synthetic_tenants
{
	my ($list, $templates) = @_;

	sql($node, encode_utf8(qq{SET session_replication_role = replica;
		TRUNCATE _wh.mv_templates, _wh.tenant_connections, _wh.tenant_templates, _wh.day_loads, _wh.jobs, _wh.job_run_details, _wh.schedules, _wh.backfills, _wh.tenant_failures;
		INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, fresh_within)
		SELECT t, 'SELECT ''{TARGET_DATE}''', 'a integer', '2 h' FROM unnest(ARRAY[$templates]) t;
		INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, updated_at) SELECT t, '127.0.0.1', 1, 'd', 'u', now() - interval '1 day' FROM ($list) l (t);
		INSERT INTO _wh.tenant_templates (tenant_name, template_name, target_schema, start_date, days_since_start, data_through, last_success, complete_until)
		SELECT c.tenant_name, t.template_name, c.tenant_name, date '$today' - 200, 201, '$today', now(), now() - interval '1 h' * (row_number() OVER () % 4) FROM _wh.tenant_connections c, _wh.mv_templates t;
		INSERT INTO _wh.day_loads (template_name, target_schema, target_date, tenant_name, relation, state, in_views, rows, loaded_at, failed_at, last_error)
		SELECT s.template_name, s.target_schema, g, s.tenant_name, 'r',
			CASE (g - date '$today' + length(s.target_schema) * 7) % 50 WHEN 1 THEN 'suspect' WHEN 2 THEN 'failed' WHEN 3 THEN 'missing' ELSE CASE WHEN g < date '$today' - 30 THEN 'combined' ELSE 'published' END END,
			true, 1000, now(), CASE (g - date '$today' + length(s.target_schema) * 7) % 50 WHEN 2 THEN now() WHEN 4 THEN now() END, 'because of <b>' || s.tenant_name || '</b>'
		FROM _wh.tenant_templates s, LATERAL (SELECT date '$today' - n FROM generate_series(0, 200) n) d (g);
		INSERT INTO _wh.schedules (name, schedule, kind, template_name, tenant_name, target_schema, active, next_run) SELECT 'refresh ' || template_name || ' ' || tenant_name, '0 0 29 2 *', 'refresh', template_name, tenant_name, target_schema, tenant_name NOT LIKE '%me', now() + interval '1 day' FROM _wh.tenant_templates;
		INSERT INTO _wh.tenant_failures (tenant_name, consecutive_failures, last_failure_at, first_failure_at, last_sqlstate, last_error, retry_at) SELECT tenant_name, 5, now(), now() - interval '1 h', '08006', 'no <i>answer</i>', now() + interval '1 h' FROM _wh.tenant_connections ORDER BY tenant_name LIMIT 3;
		ANALYZE _wh.day_loads; ANALYZE _wh.tenant_templates;}));
	return;
}

synthetic_tenants("SELECT unnest(ARRAY[$literals])", "E'<b>bold</b>\\'s &amp; \\n', 'plain'");
make_page();
is(sql($node, q{SELECT xmlparse(DOCUMENT html) IS NOT NULL FROM page}), 't', 'with such names the page is still well-formed');
my @shown = texts(of_class('ul', 'grid') . '/h:li/h:span[@class="n"]');
is_deeply([ sort @shown ], [ sort map { my $name = $_ =~ s/([\x00-\x1f])/chr(0x2400 + ord $1)/ger; ($name) x 2 } @names ], 'names are text, and what does not show in them is shown');
is(scalar(texts('//*[local-name() = "script" or local-name() = "b" and . = "bold"]')), 0, 'markup in them is none');
my @commands = texts('//h:section[@id="attention"]//h:code');
cmp_ok(scalar(@commands), '>', 15, 'there is something to type');
foreach my $command (@commands)
{
	# beside a subscription that begins in the future
	my ($status, $out, $err) = $node->psql('postgres', encode_utf8("BEGIN;\nSET LOCAL session_replication_role = replica;
		INSERT INTO _wh.tenant_templates (tenant_name, template_name, target_schema, start_date)
		SELECT min(c.tenant_name), t.template_name, 'later', date '$today' + 5 FROM _wh.tenant_connections c, _wh.mv_templates t GROUP BY 2;
		SET LOCAL session_replication_role = origin;\n$command\nROLLBACK;"));

	is($err, '', encode_utf8("it can be typed: $command"));
	unlike($command, qr/[\x00-\x1f\x{202e}]/, 'and shows what it is');
}
is(scalar(grep { /cannot be reached and is set aside.*no <i>answer<\/i>/ } findings()), 3, 'tenants that are set aside are told of, with what they said');
sql($node, $_) foreach map { encode_utf8($_) } grep { /resume_schedule/ } @commands;
is(sql($node, 'SELECT count(*) FROM _wh.schedules WHERE NOT active'), '0', 'schedules that were paused are not, by what was typed');

# ---- in a browser ------------------------------------------------------

sub looks_right
{
	my ($file, $rows, $name) = @_;

	foreach my $width (1280, 390)
	{
		foreach my $dark (0, 1)
		{
			my $seen = browse($file, width => $width, dark => $dark);

			subtest "$name, $width pixels wide, " . ($dark ? 'dark' : 'light') => sub {
				is($seen->{width}, $width, 'the window is as wide as that');
				ok($seen->{dark} ? $dark : !$dark, 'and of that scheme');
				cmp_ok($seen->{content}, '<=', $width, 'nothing is wider than the window');
				is_deeply($seen->{outside}, [], 'nor sticks out');
				cmp_ok($seen->{texts}, '>', 50, 'there is text');
				cmp_ok($seen->{text_contrast}, '>=', 4.5, 'text has contrast') or diag $seen->{worst};
				is_deeply([ sort keys %{ $seen->{drawn} } ], [qw(c l pf pm pq pr ps pt)], 'all states of days are drawn');
				is_deeply([ grep { $seen->{drawn}{$_} < 3 } sort keys %{ $seen->{drawn} } ], [], 'drawn states have contrast');
				is($seen->{without_title}, 0, "each of $seen->{images} drawings has its words");
				cmp_ok($seen->{images}, '>=', $rows, 'a drawing a row');
				is($seen->{rows}, $rows, 'all rows are there');
				is($seen->{headings}[0], 1, 'the first heading is the title');
				is(scalar(grep { $seen->{headings}[$_] > $seen->{headings}[ $_ - 1 ] + 1 } 1 .. $#{ $seen->{headings} }), 0, 'no level of headings is left out');
				is_deeply([ sort @{ $seen->{landmarks} } ], [qw(footer header main nav)], 'it has landmarks');
				is($seen->{lang}, 'en', 'and a language');
				is($seen->{scrolls_unreachable}, 0, 'what scrolls can be reached by keyboard');
				is($seen->{scripts} + $seen->{alerted} + $seen->{loaded}, 0, 'no script is in it, none ran, nothing was loaded');
			};
		}
	}
	return;
}

$node->safe_psql('postgres', "COPY (SELECT html FROM page) TO '$pages/names.html'");
looks_right("$pages/names.html", 2 * @names, 'odd names');
synthetic_tenants(q{SELECT 'tenant ' || n FROM generate_series(1, 3) n}, q{'food'});
make_page();
$node->safe_psql('postgres', "COPY (SELECT html FROM page) TO '$pages/three.html'");
looks_right("$pages/three.html", 3, '3 tenants');
synthetic_tenants(q{SELECT 'tenant ' || n FROM generate_series(1, 300) n}, q{'food', 'sales', 'stock'});
make_page();
$node->safe_psql('postgres', "COPY (SELECT html FROM page) TO '$pages/many.html'");
cmp_ok(-s "$pages/many.html", '<', 1_000_000, '300 tenants with 3 templates and 90 days are less than a megabyte');
looks_right("$pages/many.html", 900, '300 tenants');

# ---- who may -----------------------------------------------------------

sql($node, q{CREATE ROLE operator LOGIN; CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA _wh TO stranger; SELECT _wh.grant_operator('operator')});
is(sql($node, q{SET SESSION AUTHORIZATION operator; SELECT _wh.status_page() LIKE '<!DOCTYPE html>%'}), 't', 'an operator may look at the page');
fails_with($node, 'SET SESSION AUTHORIZATION operator; SELECT _wh.write_status_page()', '42501', qr/permission denied/, 'but not write the file');
fails_with($node, 'SET SESSION AUTHORIZATION stranger; SELECT _wh.status_page()', '42501', qr/permission denied/, 'others may not look');

# ---- a zone in which a day begins at one -------------------------------

# In Cairo that was on 2024-04-26.
step_clock($node, '2024-05-01 12:00');
is(sql($node, q{SET timezone = 'Africa/Cairo'; SELECT count(*) || ' ' || min(m[1]) || ' ' || max(m[1]) FROM regexp_matches(_wh.status_page(), '<tr><th scope="row">(2024-[0-9-]+)</th>', 'g') m}), '14 2024-04-18 2024-05-01', 'throughput has 14 days up to today in any zone');

done_testing();
