# Tenants' servers that want to harm: each does one thing that no server does.
# Whatever it is, it is refused within the limits, nothing of it is published,
# the workers live on and the others are loaded.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;
use WhAttack;
use WhHostile;

my $day = '2025-08-01';
my $hostile = new_hostile_server();
my $good = new_tenant('good');
my $node = new_warehouse(
	conf => {
		'wh_worker.fetch_idle_timeout' => "'2s'",
		'wh_worker.job_timeout' => "'6s'",
		'wh_worker.retry_delay' => "'50ms'",
		'wh_worker.retry_delay_max' => "'100ms'",
		'wh_worker.max_attempts' => 1,
		'wh_worker.max_row_size' => "'1MB'",
		'wh_worker.max_day_size' => "'8MB'",
	});

create_events($good, $day, 1, 100);
add_events_template($node, 'events');
$node->safe_psql('postgres', q{
	INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule)
	VALUES ('notes', 'SELECT id, note FROM notes WHERE day = ''{TARGET_DATE}''', 'id integer, note text', '0 0 29 2 *');
	INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, schedule, change_probe)
	VALUES ('probed', 'SELECT id, note FROM notes WHERE day = ''{TARGET_DATE}''', 'id integer, note text', '0 0 29 2 *',
			'SELECT ''a probe'' WHERE ''{TARGET_DATE}'' <> ''''')});

sub add_hostile
{
	my ($name, $template) = @_;

	add_tenant($node, $name, undef, port => $hostile->{port}, database => $name,
		sslmode => 'disable', templates => [$template], start_date => $day);
	return;
}

# Behaviour, and what the job says: SQLSTATE and message. A third: the tenant
# cannot be connected to, so that its jobs wait.
my %refused = (
	lying_tag => [ '08P01', qr/not complete/ ],
	describes_more => [ '42611', qr/the query gives 3, the template declares 2/ ],
	describes_fewer => [ '42611', qr/the query gives 1, the template declares 2/ ],
	describes_others => [ '42804', qr/column "id".* declared as integer but the tenant sends type 25/ ],
	describes_nothing => [ '42611', qr/the query gives 0/ ],
	fewer_columns => [ '22P04', qr/has 1 columns, expected 2/ ],
	more_columns => [ '22P04', qr/has 3 columns, expected 2/ ],
	many_columns => [ '22P04', qr/has 32001 columns, expected 2/ ],
	negative_columns => [ '22P04', qr/has -2 columns, expected 2/ ],
	bad_signature => [ '22P04', qr/no signature/ ],
	bad_flags => [ '22P04', qr/unknown flags/ ],
	endless_header => [ '54000', qr/a row of more than 1024 kB/ ],
	no_trailer => [ '08P01', qr/ended too early/ ],
	trailer_twice => [ '22P04', qr/data after the end/ ],
	row_after_trailer => [ '22P04', qr/data after the end/ ],
	negative_field => [ '22P04', qr/wrong length of a field/ ],
	field_of_2_gb => [ '54000', qr/a row of more than 1024 kB/ ],
	message_of_2_gb => [ '08\w+', qr/cannot allocate memory for input buffer/ ],
	message_of_900_mb => [ '54000', qr/more than can be held/ ],
	message_of_no_length => [ '08\w+', qr/lost synchronization|connection/ ],
	wrong_value => [ '08P01|22P03', qr/binary|insufficient data/ ],
	wrong_encoding => [ '22021', qr/invalid byte sequence/ ],
	nul_in_text => [ '22021', qr/invalid byte sequence/ ],
	copy_in => [ '08P01', qr/unexpected answer/ ],
	copy_both => [ '08P01', qr/unexpected answer/ ],
	no_copy => [ '08P01', qr/unexpected answer/ ],
	row_after_error => [ '22012', qr/division by zero/ ],
	no_protocol => [ '08\w+', qr/./ ],
	many_rows => [ '54000', qr/a day of more than 8192 kB/ ],
	endless_rows => [ '54000', qr/a day of more than 8192 kB/ ],
	endless_row => [ '54000', qr/a row of more than 1024 kB/ ],
	large_row => [ '54000', qr/a row of more than 1024 kB/ ],
	many_notices => [ '08P01', qr/notices and notifications without end/ ],
	endless_notices => [ '08P01', qr/notices and notifications without end/ ],
	many_notifications => [ '08P01', qr/notices and notifications without end/ ],
	endless_notifications => [ '08P01', qr/notices and notifications without end/ ],
	many_parameters => [ '54000', qr/more than can be held/ ],
	endless_answer => [ '54000', qr/more than can be held/ ],
	endless_nonsense => [ '57014', qr/statement timeout/ ],
	endless_probe => [ '54000', qr/answers a probe with more than 8192 kB/ ],
	ends_of_cancelled => [ '08P01', qr/unexpected answer/ ],
	trickle => [ '57014', qr/statement timeout/ ],
	forged_message => [ '22012', qr/^tenant "forged_message": broken .*forged line/ ],
	huge_message => [ '22012', qr/^tenant "huge_message": M{1900,2000}\.\.\.: D+\.\.\.$/ ],
	success_as_error => [ '08P01', qr/all is well/ ],
	cancel_as_error => [ '57014', qr/canceling statement/ ],
	no_sqlstate => [ '08006', qr/nothing more/ ],
	endless_parameters => [ '08\w+', qr/no answer within/, 'waits' ],
	# newer libpqs look at the length themselves
	endless_greeting => [ '54000|08001', qr/more than can be held|received invalid error message/ ],
	forged_greeting => [ '28000', qr/no LOG: forged greeting/ ],
	endless_authentication => [ '08\w+', qr/./, 'waits' ],
	unknown_authentication => [ '08\w+', qr/authentication/, 'waits' ],
	silent_startup => [ '08\w+', qr/no answer within/, 'waits' ],
	silent_password => [ '08\w+', qr/no answer within/, 'waits' ],
	silent_begin => [ '08006', qr/has sent nothing for 2 s/ ],
	silent_describe => [ '08006', qr/has sent nothing for 2 s/ ],
	silent_copy => [ '08006', qr/has sent nothing for 2 s/ ],
	silent_rows => [ '08006', qr/has sent nothing for 2 s/ ],
	silent_end => [ '08006', qr/has sent nothing for 2 s/ ],
);

# These rows are as they should be; what comes before or after them is not.
my %loaded = (honest => 1, forged_notice => 1, endless_ends => 1, notice_of_900_mb => 1, idle_notice_of_900_mb => 1);
my @names = hostile_behaviours();
my @waiting = grep { $refused{$_} && $refused{$_}[2] } @names;

is_deeply([ sort(keys %refused, keys %loaded) ], \@names, 'every behaviour is expected to do something');

# ---- all at once, and an ordinary tenant among them ---------------------

add_tenant($node, 'good', $good, templates => ['events'], start_date => $day);
add_hostile($_, $_ eq 'endless_probe' ? 'probed' : 'notes') foreach @names;
# Of these nothing comes, or no end; the others may need as long as this machine takes.
sql($node, qq{UPDATE _wh.tenant_connections SET options = '{"connect_timeout": "1"}' WHERE tenant_name = '$_'}) foreach @waiting;
my $log_start = log_end($node);

sql($node, "SELECT _wh.enqueue_backfill('$_', NULL, '$day', '$day', NULL, 'all')")
  foreach 'notes', 'probed', 'events';
my $waiting = join ', ', map { "'$_'" } @waiting;
wait_until($node, qq{SELECT bool_and(state IN ('succeeded', 'failed'))
	FROM _wh.jobs WHERE kind = 'refresh' AND tenant_name NOT IN ($waiting)}, 'every job ends');
wait_until($node, "SELECT count(*) = @{[ scalar @waiting ]} AND bool_and(consecutive_failures >= 1 AND last_error IS NOT NULL) FROM _wh.tenant_health WHERE tenant_name IN ($waiting)",
	'those that cannot be connected to are known');

# After a day they do so to who asks for the next one ahead.
foreach my $name (qw(notice_of_900_mb idle_notice_of_900_mb endless_ends))
{
	my $id = sql($node, "SELECT _wh.enqueue_backfill('notes', '$name', date '$day' + 1, date '$day' + 3)");

	# it may be refused, if it is waited for, or done without
	like(sql($node, "SELECT _wh.wait_for_backfill($id, '60 s')"), $name eq 'endless_ends' ? qr/^succeeded$/ : qr/^(?:succeeded|failed)$/,
		"$name: days one after the other");
}

# libpq reads a message for as long as its bytes come: of one that will not be
# held no more is taken than was read before its length was known.
foreach my $name (qw(message_of_900_mb notice_of_900_mb idle_notice_of_900_mb))
{
	cmp_ok(most_sent($hostile, $name), '<', most_on_the_way() + 65536, "$name: nothing of it is taken");
}

# Memory that is nobody else's, at its most.
my @pids = split /\n/, sql($node, q{SELECT pid FROM _wh.worker_status WHERE backend_type LIKE '%worker'});
my ($most) = sort { $b <=> $a } map { peak_memory($_) } @pids;
cmp_ok(scalar @pids, '>', 0, 'the workers live on');

# AddressSanitizer keeps what was freed, and what it knows of all of it.
my $limit = $ENV{SANITIZE} ? 750_000 : 250_000;

cmp_ok($most, '<', $limit, "none of them ever took more than $limit kB ($most kB)");

foreach my $name (sort keys %refused)
{
	my ($sqlstate, $pattern, $is_waiting) = @{ $refused{$name} };
	my $said = $is_waiting
	  ? sql($node, "SELECT last_error FROM _wh.tenant_health WHERE tenant_name = '$name'")
	  : sql($node, "SELECT d.sqlstate || ' ' || d.return_message FROM _wh.jobs j JOIN _wh.job_run_details d USING (job_id) WHERE j.tenant_name = '$name' AND j.kind = 'refresh' AND j.state = 'failed'");

	like($said, $is_waiting ? $pattern : qr/^(?:$sqlstate) /, "$name: is refused");
	like($said =~ s/^\w{5} //r, $pattern, "$name: for what it does") unless $is_waiting;
	cmp_ok(length $said, '<', 4100, "$name: in a message of some lines");
	unlike($said, qr/[\x00-\x1F\x7F]|\xC2[\x80-\x9F]|\xE2\x80[\xA8-\xAE]/, "$name: that no terminal obeys");
}
is( sql($node, q{SELECT string_agg(DISTINCT tenant_name, ' ' ORDER BY tenant_name) FROM _wh.day_loads WHERE relation_oid IS NOT NULL}),
	'endless_ends forged_notice good honest idle_notice_of_900_mb notice_of_900_mb', 'nothing of the others is in the ledger');
is( sql($node, q{SELECT string_agg(DISTINCT relnamespace::regnamespace::text, ' ' ORDER BY relnamespace::regnamespace::text) FROM pg_class WHERE relkind = 'm'}),
	'endless_ends forged_notice good honest idle_notice_of_900_mb notice_of_900_mb', 'and nothing of them is kept');
is(sql($node, 'SELECT count(*) FROM good.events'), 100, 'the ordinary tenant is loaded');
is(sql($node, 'SELECT string_agg(note, \',\' ORDER BY id) FROM honest.notes'), 'note 1,note 2,note 3', 'the server can behave');
is(log_count($node, qr/^\S*(?:2025-08-01 00:00:00|LOG:  forged|FATAL:  forged)/, $log_start), 0, 'no line of the log is forged');
unlike(slurp_file($node->logfile, $log_start), qr/[\x07\x1B\x7F]/, 'and no terminal obeys the log');

# A connection whose COMMIT is never answered to the end is given up, not waited for.
foreach my $time ('once more', 'and again')
{
	my ($id, $state) = enqueue_and_wait($node, "'notes', 'endless_ends', '$day', '$day', NULL, 'all'");

	is($state, 'succeeded', "a connection that never ends its transaction is replaced by another, $time");
}

# ---- the same servers and dblink ---------------------------------------

new_stock_warehouse($node, 'stock');

sub peak_memory
{
	my ($pid) = @_;
	my ($peak) = slurp_file("/proc/$pid/status") =~ /^VmHWM:\s+(\d+) kB/m;

	return $peak;
}

# Whether the stock warehouse makes a materialized view of what the server sends.
sub stock_loads
{
	my ($name) = @_;

	$node->safe_psql('stock', qq{
		INSERT INTO _wh.tenant_connections VALUES ('$name', '127.0.0.1', $hostile->{port}, '$name', 'wh_reader', 'x')
		ON CONFLICT DO NOTHING;
		INSERT INTO _wh.mv_templates VALUES ('notes', '', 'SELECT id, note FROM notes', 'id integer, note text', NULL)
		ON CONFLICT DO NOTHING});
	my ($status, $out, $err) = attempt($node, 'stock',
		"DROP SCHEMA IF EXISTS $name CASCADE; SELECT _wh.create_mv_from_template('notes', '$name', '$name', '$day')");

	return $out eq 't';
}

# Whether ours does, called by hand.
sub here_loads
{
	my ($name) = @_;
	my ($status, $out, $err) = attempt($node, 'postgres',
		"SELECT _wh.update_mv_by_template('notes', '$name', '$day')");

	return $out eq 't';
}

ok(stock_loads('honest') && here_loads('honest'), 'both load what an honest server sends');

foreach my $case (
	[ 'a server that says it sent more rows than it did', 'lying_tag', qr/not complete/ ],
	[ 'a server that sends rows until the disk is full', 'many_rows', qr/a day of more than 8192 kB/ ],
	[ 'a server that sends one huge field', 'large_row', qr/a row of more than 1024 kB/ ],
	[ 'a server that sends notices by the thousand', 'many_notices', qr/notices and notifications without end/ ],
	[ 'a server that sends notifications by the thousand', 'many_notifications', qr/notices and notifications without end/ ],
	[ 'a server that fills the memory with parameters', 'many_parameters', qr/more than can be held/ ])
{
	my ($name, $behaviour, $why) = @$case;

	attack($name, why => $why,
		weak => sub { stock_loads($behaviour) },
		here => sub { here_loads($behaviour) });
}

attack('a server that talks to the terminal of who reads the error',
	why => qr/broken .*forged line/,
	weak => sub { stock_loads('forged_message'); last_answer() =~ /\e\[2J/ },
	here => sub { here_loads('forged_message'); last_answer() =~ /[\e\a]/ });

attack('a server whose error message is megabytes',
	why => qr/MMM\.\.\./,
	weak => sub { stock_loads('huge_message'); length last_answer() > 1_000_000 },
	here => sub { here_loads('huge_message'); length last_answer() > 20_000 });

attack('a server that writes lines of its own into our log',
	weak => sub { my $from = log_end($node); stock_loads('forged_notice'); log_count($node, qr/^2025-08-01 00:00:00 UTC FATAL:  forged notice/, $from) > 0 },
	here => sub { my $from = log_end($node); here_loads('forged_notice'); log_count($node, qr/^2025-08-01 00:00:00 UTC FATAL:  forged notice/, $from) > 0 });

done_testing();
