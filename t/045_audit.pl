# The audit log: what is in it, who cannot change it, what is not in it; and the
# JSON in the context of log lines.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhAttack;
use WhTest;

my $first = '2025-07-01';
my $secret = 'hunter2 and more';
my $production = new_tenant('production', password => $secret);
my $node = new_warehouse(conf => { logging_collector => 'on', log_destination => "'stderr,jsonlog'", log_filename => "'all.log'" });

create_events($production, $first, 4, 5);

# The log since $since (a moment of the server), newest last.
sub now
{
	return sql($node, 'SELECT clock_timestamp()');
}

sub audited
{
	my ($since, $columns, $where) = @_;

	return sql($node, "SELECT $columns FROM _wh.audit_log WHERE at > '$since'" . (defined $where ? " AND $where" : '') . ' ORDER BY at, audit_id');
}

sub count_audited
{
	my ($since, $where) = @_;

	return sql($node, "SELECT count(*) FROM _wh.audit_log WHERE at > '$since' AND $where");
}

# ---- who changed what --------------------------------------------------

my $since = now();
add_tenant($node, 'shop', $production, password => $secret);
is(audited($since, "concat_ws(' ', event, object, tenant_name, details -> 'new' ->> 'password', details ->> 'password')"),
	"call add_tenant shop given\ninsert tenant_connections shop set", 'a tenant is added: the call and the row');
is(audited($since, "concat_ws(' ', session_role, acting_role, client_addr, details -> 'new' ->> 'host', details -> 'new' -> 'port')", "event = 'insert'"),
	'postgres postgres 127.0.0.1 ' . $production->port, 'by whom, and what');
is(audited($since, "details -> 'new' ? 'created_at' OR details -> 'new' ? 'sslrootcert'", "event = 'insert'"), 'f', 'and nothing that goes without saying');

$since = now();
sql($node, "UPDATE _wh.tenant_connections SET password = 'other', max_connections = 3 WHERE tenant_name = 'shop'");
is(audited($since, 'details'),
	'{"key": {"tenant_name": "shop"}, "new": {"password": "changed", "max_connections": 3}, "old": {"password": "set", "max_connections": null}}',
	'an update has the key, the old and the new; of a password only that it changed');
$since = now();
sql($node, "UPDATE _wh.tenant_connections SET password = NULL WHERE tenant_name = 'shop'");
is(audited($since, "details ->> 'new'"), '{"password": null}', 'and that it is gone');
$since = now();
sql($node, "UPDATE _wh.tenant_connections SET max_connections = 3 WHERE tenant_name = 'shop'");
is(audited($since, 'details'), '', 'what changes nothing leaves nothing');
sql($node, "UPDATE _wh.tenant_connections SET password = " . WhTest::literal($secret) . " WHERE tenant_name = 'shop'");

$since = now();
add_events_template($node, 'events');
sql($node, "UPDATE _wh.mv_templates SET description = repeat('long ', 2000) WHERE template_name = 'events'");
is(audited($since, "concat_ws(' ', event, template_name, details -> 'new' ->> 'schedule', length(details -> 'new' ->> 'description'))"),
	"insert events 0 0 29 2 *\nupdate events 4015", 'a template; a value of 10000 bytes is clipped');
$since = now();
sql($node, "SELECT _wh.subscribe('shop', 'events', 'shop', '$first')");
is(audited($since, "concat_ws(' ', event, object, tenant_name, template_name, target_schema)", "object IN ('subscribe', 'tenant_templates')"),
	"call subscribe shop events shop\ninsert tenant_templates shop events shop", 'a subscription');
is(audited($since, "concat_ws(' ', event, tenant_name, details -> 'new' ->> 'kind')", "object = 'schedules'"), "insert shop refresh\ninsert shop combine_month\ninsert shop combine_year", 'and its schedules');
$since = now();
sql($node, "SELECT _wh.schedule('tidy', '0 0 29 2 *', 'SELECT 1'); SELECT _wh.pause_schedule('tidy'); SELECT _wh.unschedule('tidy')");
is(audited($since, "concat_ws(' ', event, object, details -> 'new' -> 'active')"),
	"call schedule\ninsert schedules true\ncall pause_schedule\nupdate schedules false\ncall unschedule\ndelete schedules", 'a schedule comes, rests and goes');
$since = now();
sql($node, 'SELECT _wh.pause(); SELECT _wh.resume()');
is(audited($since, "concat_ws(' ', event, object, details -> 'new' -> 'paused')"), "call pause\nupdate warehouse true\ncall resume\nupdate warehouse false", 'the switch');

# ---- who asked for what, and connections out ---------------------------

$since = now();
my ($id, $state) = enqueue_and_wait($node, "'events', 'shop', '2025-07-01', '2025-07-03'");
is($state, 'succeeded', 'three days');
is(audited($since, "concat_ws(' ', object, tenant_name, details ->> 'start_date', details ->> 'mode')", "event = 'call'"), 'enqueue_backfill shop 2025-07-01 missing', 'who enqueued them');
wait_until($node, "SELECT count(*) > 0 FROM _wh.audit_log WHERE at > '$since' AND event = 'connect'", 'a connection out is in it');
cmp_ok(count_audited($since, "event = 'connect'"), '<=', 2, 'one of each worker, however many days');
is(sql($node, "SELECT DISTINCT concat_ws(' ', object, tenant_name, outcome, session_role, details ->> 'username', details ->> 'tls', details ? 'job_id') FROM _wh.audit_log WHERE at > '$since' AND event = 'connect'"),
	'wh_worker worker shop connected whadmin wh_reader true t', 'whose, where to, and how');

$since = now();
sql($node, "UPDATE _wh.tenant_connections SET password = 'wrong' WHERE tenant_name = 'shop'");
(undef, $state) = enqueue_and_wait($node, "'events', 'shop', '2025-07-04', '2025-07-04'");
is($state, 'failed', 'with a wrong password');
wait_until($node, "SELECT count(*) = 1 FROM _wh.audit_log WHERE at > '$since' AND outcome = 'failed'", 'a connection that failed is in it, though its job was rolled back');
like(audited($since, "concat_ws(' ', details ->> 'sqlstate', details ->> 'message')", "event = 'connect'"), qr/^28P01 could not connect to tenant "shop".*password authentication failed/, 'with the reason');
$since = now();
is(sql($node, "BEGIN; SELECT _wh.update_mv_by_template('events', 'shop', 'shop', '2025-07-04', false); ROLLBACK; SELECT 1"), "f\n1", 'at once, and rolled back');
is(count_audited($since, "event = 'call'"), 0, 'the call is rolled back');
is(audited($since, "concat_ws(' ', event, outcome, session_role, object)"), 'connect failed postgres client backend', 'the connection was made all the same: the next commit of the session has written it');
sql($node, "UPDATE _wh.tenant_connections SET password = " . WhTest::literal($secret) . " WHERE tenant_name = 'shop'");
$since = now();
sql($node, "SELECT _wh.cancel_backfill($id), _wh.retry_failed($id)");
is(audited($since, "concat_ws(' ', object, details ->> 'backfill_id' = '$id')"), "cancel_backfill t\nretry_failed t", 'who cancelled, who tried again');
$since = now();
sql($node, "SELECT _wh.update_mv_by_template('events', 'shop', '2025-07-04'); SELECT _wh.create_combined_table_from_template_by_month('events', 'shop', 'shop', 2025, 7, true); SELECT _wh.drop_day('events', 'shop', '2025-07-04')");
is(audited($since, "concat_ws(' ', object, target_schema)", "event = 'call'"), "update_mv_by_template\ncreate_combined_table_from_template_by_month shop\ndrop_day", 'what ran at once');

# ---- who cannot change it ----------------------------------------------

$node->safe_psql('postgres', <<'SQL');
CREATE ROLE intruder LOGIN;
GRANT USAGE ON SCHEMA _wh TO intruder;
GRANT ALL ON ALL TABLES IN SCHEMA _wh TO intruder;
-- the same without its trigger
CREATE TABLE public.plain_log (LIKE _wh.audit_log INCLUDING ALL);
INSERT INTO public.plain_log SELECT * FROM _wh.audit_log;
GRANT ALL ON public.plain_log TO intruder;
SQL
my %wrongs = (
	'rows of the audit log are deleted by a role that was granted everything' => 'DELETE FROM %s',
	'rows of it are rewritten' => q{UPDATE %s SET session_role = 'somebody else'},
	'it is emptied' => 'TRUNCATE %s',
	'rows are forged' => q{INSERT INTO %s (at, event, object, session_role, acting_role, pid, details) VALUES (now(), 'call', 'drop_day', 'somebody else', 'somebody else', 1, '{}')});
foreach my $wrong (sort keys %wrongs)
{
	my $try = sub {
		my ($table) = @_;
		my ($status) = $node->psql('postgres', 'SET ROLE intruder; ' . sprintf $wrongs{$wrong}, $table);
		return $status == 0;
	};

	attack($wrong, weak => sub { $try->('public.plain_log') }, here => sub { $try->('_wh.audit_log') });
}
fails_with($node, 'SET ROLE intruder; DELETE FROM _wh.audit_log', '42501', qr/audit log can only be written by the warehouse/, 'it says so');
is(sql($node, q{SET ROLE whadmin; WITH d AS (DELETE FROM _wh.audit_log WHERE at < 'yesterday' RETURNING 1) SELECT count(*) FROM d}), 0, 'its owner may');

$node->safe_psql('postgres', <<'SQL');
-- a log as it is often written: by the owner's function, which asks for current_user
CREATE TABLE public.naive_log (who text);
CREATE TABLE public.watched (x int);
CREATE FUNCTION public.naive() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN INSERT INTO public.naive_log VALUES (current_user); RETURN NULL; END';
CREATE TRIGGER naive AFTER INSERT ON public.watched EXECUTE FUNCTION public.naive();
GRANT INSERT ON public.watched TO intruder;
CREATE ROLE shared_hat; GRANT shared_hat TO intruder; GRANT INSERT ON public.watched TO shared_hat;
GRANT USAGE ON SCHEMA _wh TO shared_hat; GRANT INSERT ON _wh.mv_templates TO shared_hat;
SQL
attack('who did it hides behind SET ROLE and the rights of a function',
	weak => sub {
		sql($node, 'SET SESSION AUTHORIZATION intruder; SET ROLE shared_hat; INSERT INTO public.watched VALUES (1)');
		return sql($node, 'SELECT who FROM public.naive_log') ne 'intruder';
	},
	here => sub {
		my $now = now();

		sql($node, q{SET SESSION AUTHORIZATION intruder; SET ROLE shared_hat; INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions) VALUES ('hidden', 'SELECT 1, ''{TARGET_DATE}''', 'a int, b text')});
		my $who = audited($now, "session_role || ' as ' || acting_role");
		is($who, 'intruder as shared_hat', 'who it was, and as whom');
		return $who !~ /intruder/;
	});

attack('the change of a connection is hidden by TRUNCATE',
	weak => sub {
		sql($node, q{CREATE TABLE public.rows_only (x int); CREATE TRIGGER naive AFTER DELETE ON public.rows_only FOR EACH ROW EXECUTE FUNCTION public.naive();
			INSERT INTO public.rows_only VALUES (1); DELETE FROM public.naive_log; TRUNCATE public.rows_only});
		return sql($node, 'SELECT count(*) FROM public.naive_log') == 0;
	},
	here => sub {
		my $now = now();

		sql($node, 'CREATE TABLE public.saved AS SELECT * FROM _wh.schedules; TRUNCATE _wh.schedules; INSERT INTO _wh.schedules SELECT * FROM public.saved');
		return count_audited($now, "event = 'truncate' AND object = 'schedules'") == 0;
	});

# ---- what is not in it -------------------------------------------------

my $known = sql($node, q{SELECT count(*) FROM _wh.audit_log WHERE audit_log::text ~ 'hunter2|wrong"'});
is($known, 0, 'no password is in it');
attack('a password is read from the audit log',
	weak => sub {
		# a trigger that keeps to_jsonb(NEW), on a table of connections without encryption
		return sql($node, q{CREATE TABLE public.connections (tenant_name text, password text);
			CREATE TABLE public.naive_rows (of jsonb);
			CREATE FUNCTION public.keep_row() RETURNS trigger LANGUAGE plpgsql
				AS 'BEGIN INSERT INTO public.naive_rows VALUES (to_jsonb(NEW)); RETURN NULL; END';
			CREATE TRIGGER keep_row AFTER INSERT ON public.connections FOR EACH ROW EXECUTE FUNCTION public.keep_row();
			INSERT INTO public.connections VALUES ('shop', 'hunter2');
			SELECT bool_or(of::text ~ 'hunter2') FROM public.naive_rows}) eq 't';
	},
	here => sub {
		return sql($node, q{SELECT coalesce(bool_or(audit_log::text ~ 'hunter2'), false) FROM _wh.audit_log}) eq 't';
	});

sub json_lines
{
	return map { decode_json($_) } split /\n/, slurp_file($node->data_dir . '/log/all.json');
}

attack('a password is read, and the trace rolled back',
	weak => sub {
		sql($node, 'DELETE FROM public.naive_log; BEGIN; SELECT password FROM _wh.tenant_connections; INSERT INTO public.watched VALUES (1); ROLLBACK');
		return sql($node, 'SELECT count(*) FROM public.naive_log') == 0;
	},
	here => sub {
		# the collector writes a line some time after the process has handed it over
		my $lines = q{SELECT count(*) FROM regexp_matches(pg_read_file('log/all.json'), '"message":"the password of tenant ..shop.. was given to role ..postgres..', 'g')};
		my $before = sql($node, $lines);

		sql($node, q{BEGIN; SELECT length(_wh.get_tenant_connection_string('shop')); ROLLBACK});
		return !$node->poll_query_until('postgres', $lines, $before + 1);
	});
fails_with($node, q{BEGIN READ ONLY; SELECT _wh.get_tenant_connection_string('shop')}, '25006', qr/read-only transaction/, 'where it cannot be recorded it is not given');

# ---- the context of log lines ------------------------------------------

sub contexts
{
	my ($pattern) = @_;

	return map { $_->{context} =~ /^wh_worker: (\{.*\})$/m ? decode_json($1) : () }
	  grep { $_->{message} =~ $pattern && defined $_->{context} } json_lines();
}

my ($failed) = contexts(qr/^job \d+ failed/);
is(join(' ', map { $failed->{$_} // '?' } qw(process operation template tenant schema date attempt)), 'worker refresh events shop shop 2025-07-04 1', 'a failed job, in jsonlog');
is($failed->{backfill_id}, sql($node, "SELECT backfill_id FROM _wh.jobs WHERE job_id = $failed->{job_id}"), 'its numbers are those of the queue');
my ($once) = contexts(qr/^2025-07-04 of template "events" could not be loaded/);
is(join(' ', map { $once->{$_} // '?' } qw(operation template tenant schema date)), 'refresh events shop shop 2025-07-04', 'what ran at once');
my @lost = grep { ($_->{backend_type} // '') =~ /^wh_worker/ && $_->{error_severity} !~ /^DEBUG/ && ($_->{context} // '') !~ /^wh_worker: \{.*\}$/m } json_lines();
is(scalar @lost, 0, 'no line of a process of ours is without it') or diag(join "\n", map { $_->{message} } @lost);
like(slurp_file($node->data_dir . '/log/all.log'), qr/CONTEXT:  wh_worker: \{"event":"job_failed","process":"worker","database":"postgres","operation":"refresh","job_id":\d+,"attempt":1,/, 'in plain text too');
unlike(slurp_file($node->data_dir . '/log/all.log'), qr/hunter2.*CONTEXT|CONTEXT.*hunter2/, 'and no password in a context');

# ---- dump, restore, end ------------------------------------------------

my $dump = $node->basedir . '/dump.sql';
my $rows = sql($node, 'SELECT count(*) FROM _wh.audit_log');
my $newest = sql($node, 'SELECT max(at) FROM _wh.audit_log');
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'a dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-d', $node->connstr('copy'), '-f', $dump ], 'and its restore');
is(sql($node, "SELECT count(*) FROM _wh.audit_log WHERE at <= '$newest'", 'copy'), $rows, 'all rows come back');
is(sql($node, "SELECT DISTINCT session_role FROM _wh.audit_log WHERE at > '$newest' AND object = 'tenant_connections'", 'copy'), 'postgres', 'and who restored the connections is in it');

sql($node, q{SET ROLE whadmin; INSERT INTO _wh.audit_log (at, event, object, session_role, acting_role, pid, details)
	SELECT now() - n * interval '1 day', e, 'old', 'a', 'a', 1, '{}' FROM unnest('{1,29,31,364,366}'::int[]) AS n, unnest('{call,connect}'::text[]) AS e});
$node->restart;
wait_until($node, q{SELECT count(*) = 6 FROM _wh.audit_log WHERE object = 'old'}, 'what is too old goes');
is(sql($node, q{SELECT string_agg(event || ' ' || round(extract(epoch FROM now() - at) / 86400), ', ' ORDER BY event, at DESC) FROM _wh.audit_log WHERE object = 'old'}),
	'call 1, call 29, call 31, call 364, connect 1, connect 29', 'connections before changes');

# ---- it is in nobody's way ---------------------------------------------

sql($node, q{SELECT _wh.update_mv_by_template('events', 'shop', '2025-07-01')});
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query(q{BEGIN; SELECT _wh.update_mv_by_template('events', 'shop', '2025-07-01'); ROLLBACK;});
$session->query('DROP EXTENSION wh_worker CASCADE;');
is(sql($node, q{SELECT count(*) FROM pg_extension WHERE extname = 'wh_worker'}), 0, 'the extension can be dropped by a session that has connections to write down');
$session->quit;

done_testing();
