# A tenant's server that does what no server does. It speaks PostgreSQL's
# protocol as far as wh_worker and dblink use it, and behaves, but for one
# thing, which the name of the database chooses: %behaviour has them all.
#
# It answers in plain text and asks for a cleartext password, whatever that is.
# Every connection is a process of its own, so that one may wait for ever.
package WhHostile;

use strict;
use warnings;

use Exporter 'import';
use IO::Select;
use IO::Socket::INET;
use List::Util qw(max);
use POSIX ();
use PostgreSQL::Test::Utils;
use Socket qw(SOL_SOCKET SOMAXCONN SO_SNDBUF);

our @EXPORT = qw(new_hostile_server stop_hostile_servers hostile_behaviours most_sent most_on_the_way);

use constant { INT4 => 23, TEXT => 25 };
use constant SMALL_BUFFER => 65536;
use constant SIGNATURE => "PGCOPY\n\377\r\n\0";

my %servers;

# ---- messages ----------------------------------------------------------

sub message
{
	my ($type, $body) = @_;

	return $type . pack('N', 4 + length $body) . $body;
}

sub field
{
	my ($value) = @_;

	return defined $value ? pack('N', length $value) . $value : pack('N', 0xFFFFFFFF);
}

# A DataRow, and as it has no other framing, a row of a binary COPY.
sub fields
{
	return pack('n', scalar @_) . join '', map { field($_) } @_;
}

sub description
{
	my @columns = @_;

	return message('T', pack('n', scalar @columns)
		  . join '', map { "$_->[0]\0" . pack('NnNnNn', 0, 0, $_->[1], 0xFFFF, 0xFFFFFFFF, 0) } @columns);
}

sub complete
{
	my ($tag) = @_;

	return message('C', "$tag\0");
}

# An error or a notice; a hash of its fields.
sub report
{
	my ($type, %field) = @_;

	return message($type, join('', map { "$_$field{$_}\0" } sort keys %field) . "\0");
}

sub parameter
{
	my ($name, $value) = @_;

	return message('S', "$name\0$value\0");
}

sub notice
{
	return report('N', S => 'NOTICE', C => '00000', M => $_[0]);
}

# ---- one row, in the format that the COPY asked for ---------------------

sub copy_header
{
	return SIGNATURE . pack('NN', 0, 0);
}

# Row number n, whose note is that long.
sub copy_row
{
	my ($session, $n, $note) = @_;

	return $session->{binary} ? fields(pack('N', $n), $note) : "$n\t$note\n";
}

sub data
{
	return message('d', $_[0]);
}

# The COPY as it should be, of rows that are given as they go over the wire.
sub copy_of
{
	my ($session, $count, @rows) = @_;

	return join '', copy_start($session), (map { data($_) } @rows), copy_end($session, $count);
}

sub copy_start
{
	my ($session) = @_;

	return message('H', pack('Cn*', $session->{binary}, 2, $session->{binary}, $session->{binary}))
	  . ($session->{binary} ? data(copy_header()) : '');
}

sub copy_end
{
	my ($session, $count) = @_;

	return ($session->{binary} ? data(pack('n', 0xFFFF)) : '') . message('c', '') . complete("COPY $count");
}

# Three small rows in either protocol; dblink asks for a SELECT.
sub honest_rows
{
	my ($session) = @_;

	return rows_of($session, 3, map { [ $_, "note $_" ] } 1 .. 3);
}

# The rows, and how many the command tag says they are.
sub rows_of
{
	my ($session, $count, @rows) = @_;

	return copy_of($session, $count, map { copy_row($session, @$_) } @rows) if $session->{copying};
	return join '', description([ 'id', INT4 ], [ 'note', TEXT ]),
	  (map { message('D', fields(@$_)) } @rows), complete("SELECT $count");
}

# As many rows of a kilobyte, made while they are sent.
sub many_rows
{
	my ($session, $count) = @_;
	my $note = 'x' x 1000;
	my $copying = $session->{copying};
	my @rows = {
		each => sub { $copying ? data(copy_row($session, $_[0], $note)) : message('D', fields($_[0], $note)) },
		times => $count };

	return (copy_start($session), @rows, copy_end($session, $count)) if $copying;
	return (description([ 'id', INT4 ], [ 'note', TEXT ]), @rows, complete("SELECT $count"));
}

# ---- behaviours --------------------------------------------------------

# At the point in the conversation (see answer()) what is sent instead of what
# should be; a code that returns undef has said all there is, and then silence.
my %behaviour = (
	honest => {},

	# what it says of its rows
	lying_tag => { rows => sub { rows_of($_[0], 5, map { [ $_, 'x' ] } 1 .. 3) } },
	describes_more => { describe => sub { description([ 'id', INT4 ], [ 'note', TEXT ], [ 'more', TEXT ]) } },
	describes_fewer => { describe => sub { description([ 'id', INT4 ]) } },
	describes_others => { cast => sub { description([ 'id', TEXT ], [ 'note', INT4 ]) } },
	describes_nothing => { describe => sub { message('n', '') } },

	# COPY that is none
	fewer_columns => { rows => sub { copy_of($_[0], 1, fields(pack('N', 1))) } },
	more_columns => { rows => sub { copy_of($_[0], 1, fields(pack('N', 1), 'x', 'y')) } },
	many_columns => { rows => sub { copy_of($_[0], 1, fields(pack('N', 1), ('x') x 32000)) } },
	negative_columns => { rows => sub { copy_of($_[0], 1, pack('n', 0xFFFE)) } },
	bad_signature => { rows => sub { copy_start($_[0]) =~ s/PGCOPY/PGC0PY/r } },
	bad_flags => { rows => sub { message('H', pack('Cn*', 1, 2, 1, 1)) . data(SIGNATURE . pack('NN', 0x20000, 0)) } },
	endless_header => { rows => sub { message('H', pack('Cn*', 1, 2, 1, 1)) . data(SIGNATURE . pack('NN', 0, 0x1FFFFFF0)), flood(data('x' x 65536)) } },
	no_trailer => { rows => sub { copy_start($_[0]) . data(copy_row($_[0], 1, 'x')) . message('c', '') . complete('COPY 1') } },
	trailer_twice => { rows => sub { copy_of($_[0], 1, copy_row($_[0], 1, 'x'), pack('n', 0xFFFF)) } },
	row_after_trailer => { rows => sub { copy_of($_[0], 2, copy_row($_[0], 1, 'x'), pack('n', 0xFFFF) . copy_row($_[0], 2, 'x')) } },
	negative_field => { rows => sub { copy_of($_[0], 1, pack('nN', 2, 0xFFFFFFFE)) } },
	field_of_2_gb => { rows => sub { copy_start($_[0]) . data(pack('nN', 2, 0x7FFFFFFF)), flood(data('x' x 65536)) } },
	message_of_2_gb => { rows => sub { copy_start($_[0]) . 'd' . pack('N', 0x7FFFFFFF), flood('x' x 65536) } },
	message_of_900_mb => { small_buffer => 1, rows => sub { copy_start($_[0]) . 'd' . pack('N', 900_000_000), flood('x' x 1_000_000) } },
	message_of_no_length => { rows => sub { copy_start($_[0]) . 'd' . pack('N', 0) } },
	wrong_value => { rows => sub { copy_of($_[0], 1, fields('12', 'x')) } },
	wrong_encoding => { rows => sub { copy_of($_[0], 1, fields(pack('N', 1), "\xC3\x28")) } },
	nul_in_text => { rows => sub { copy_of($_[0], 1, fields(pack('N', 1), "a\0b")) } },
	copy_in => { rows => sub { message('G', pack('Cn*', 1, 2, 1, 1)) } },
	copy_both => { rows => sub { message('W', pack('Cn*', 1, 2, 1, 1)) } },
	no_copy => { rows => sub { complete('COPY 3') } },
	row_after_error => {
		rows => sub {
			copy_start($_[0]) . report('E', S => 'ERROR', C => '22012', M => 'division by zero')
			  . data(copy_row($_[0], 1, 'x')) . copy_end($_[0], 1);
		} },
	no_protocol => { rows => sub { "HTTP/1.1 400 Bad Request\r\n\r\n" } },

	# too much
	many_rows => { rows => sub { many_rows($_[0], 16_000) } },
	endless_rows => { rows => sub { copy_start($_[0]), flood(data(copy_row($_[0], 1, 'x' x 1000)) x 64) } },
	endless_row => { rows => sub { copy_start($_[0]) . data(pack('nN', 2, 4)), flood(data('x' x 8192)) } },
	large_row => { rows => sub { rows_of($_[0], 1, [ 1, 'x' x 4_000_000 ]) } },
	many_notices => { rows => sub { notice('y' x 100) x 5000 . honest_rows($_[0]) } },
	endless_notices => { rows => sub { copy_start($_[0]), flood(notice('y' x 100) x 64) } },
	many_notifications => { rows => sub { message('A', pack('N', 1) . "channel\0payload\0") x 5000 . honest_rows($_[0]) } },
	endless_notifications => { begin => sub { flood(message('A', pack('N', 1) . "channel\0payload\0") x 64) } },
	many_parameters => { rows => sub { { each => sub { parameter("p$_[0]", 'v' x 25_000) }, times => 4000 }, honest_rows($_[0]) } },
	endless_parameters => { startup => sub { message('R', pack('N', 0)), flood(parameter('p' . int(rand 1e9), 'v' x 25_000)) } },
	endless_answer => { settings => sub { flood(message('D', fields(map { 'x' x 100 } 1 .. $_[0]{settings})) x 64) } },
	endless_nonsense => { settings => sub { flood(message('D', fields('x' x 1000)) x 64) } },
	endless_probe => { probe => sub { flood(message('D', fields('x' x 1000)) x 64) } },
	endless_ends => { commit => sub { flood(complete('COMMIT') x 64) } },
	notice_of_900_mb => { small_buffer => 1, commit => sub { 'N' . pack('N', 900_000_000), flood('x' x 1_000_000) } },
	idle_notice_of_900_mb => { small_buffer => 1, commit => sub { complete('COMMIT') . message('Z', 'I') . 'N' . pack('N', 900_000_000), flood('x' x 1_000_000) } },
	ends_of_cancelled => { rows => sub { complete('SELECT 1'), flood(complete('SELECT 1') x 64) } },
	trickle => { rows => sub { copy_start($_[0]), trickle(data('')) } },

	# what it says
	forged_message => {
		rows => sub {
			report('E', S => 'ERROR', C => '22012',
				M => "broken\n2025-08-01 00:00:00 UTC LOG:  forged line\e[2J\e]0;title\a \xC2\x9B31m \xE2\x80\xAEdesrever",
				D => "detail\nFATAL:  forged detail\e[31m", H => "hint\r\e[1A", W => "context\nFATAL:  forged context");
		} },
	forged_notice => { rows => sub { notice("quiet\n2025-08-01 00:00:00 UTC FATAL:  forged notice\e[2J") . honest_rows($_[0]) } },
	huge_message => { rows => sub { report('E', S => 'ERROR', C => '22012', map { $_ => $_ x 3_000_000 } qw(M D H W)) } },
	success_as_error => { rows => sub { report('E', S => 'ERROR', C => '00000', M => 'all is well') } },
	cancel_as_error => { rows => sub { report('E', S => 'ERROR', C => '57014', M => 'canceling statement due to user request') } },
	no_sqlstate => { rows => sub { report('E', S => 'ERROR', M => 'nothing more') } },

	# while it connects
	endless_authentication => { password => sub { message('R', pack('N', 3)) x 3, trickle(message('R', pack('N', 3))) } },
	unknown_authentication => { startup => sub { message('R', pack('N', 99)) } },
	endless_greeting => { startup => sub { flood('E' . pack('N', 0x7FFFFFFF) . 'x' x 65536) } },
	forged_greeting => { startup => sub { report('E', S => 'FATAL', C => '28000', M => "no\nLOG:  forged greeting\e[2J") } },

	# silence
	silent_startup => { startup => sub { undef } },
	silent_password => { password => sub { undef } },
	silent_begin => { begin => sub { undef } },
	silent_describe => { describe => sub { undef } },
	silent_copy => { rows => sub { undef } },
	silent_rows => { rows => sub { copy_start($_[0]) . data(copy_row($_[0], 1, 'x')), undef } },
	silent_end => { rows => sub { copy_start($_[0]) . data(copy_row($_[0], 1, 'x')) . data(pack('n', 0xFFFF)), undef } },
);

sub hostile_behaviours
{
	my @names = sort keys %behaviour;

	return @names;
}

# Marks what is repeated until the client goes away. With "each" and "times" it
# is made when it is sent.
sub flood
{
	return { again => $_[0], every => 0 };
}

sub trickle
{
	return { again => $_[0], every => 0.2 };
}

# ---- the conversation --------------------------------------------------

# Sends what belongs to the point, or what the behaviour puts there.
sub answer
{
	my ($session, $point, $default) = @_;
	my $code = $session->{behaviour}{$point};
	my @parts = defined $code ? $code->($session) : ($default);

	foreach my $part (@parts)
	{
		return be_silent($session) unless defined $part;
		return repeat($session, $part) if ref $part && $part->{again};
		put($session, ref $part ? $part->{each}->($_) : $part) foreach 1 .. (ref $part ? $part->{times} : 1);
	}
	return;
}

sub put
{
	my ($session, $bytes) = @_;
	my $offset = 0;

	while ($offset < length $bytes)
	{
		my $written = syswrite $session->{socket}, $bytes, 1_000_000, $offset;

		leave($session) unless $written;
		$offset += $written;
		$session->{sent} += $written;
	}
	return;
}

# The client is gone; what it took, and what was on the way to it, is noted.
sub leave
{
	my ($session) = @_;

	open my $log, '>>', $session->{sent_log} or POSIX::_exit(1);
	syswrite $log, "$session->{database} $session->{sent}\n";
	POSIX::_exit(0);
}

# Until the client leaves. What it says meanwhile is not answered; in a trickle
# it is waited for, for a part of a second.
sub repeat
{
	my ($session, $part) = @_;
	my $socket = IO::Select->new($session->{socket});

	while (1)
	{
		put($session, $part->{again});
		next unless $part->{every};
		next unless $socket->can_read($part->{every});
		sysread $session->{socket}, my $ignored, 65536 or POSIX::_exit(0);
	}
	return;
}

sub be_silent
{
	my ($session) = @_;

	1 while sysread $session->{socket}, my $ignored, 65536;
	POSIX::_exit(0);
}

sub get
{
	my ($session, $length) = @_;
	my $bytes = '';

	while (length $bytes < $length)
	{
		sysread $session->{socket}, $bytes, $length - length $bytes, length $bytes
		  or POSIX::_exit(0);
	}
	return $bytes;
}

sub start_up
{
	my ($session) = @_;
	my ($code, $body);

	do
	{
		($code, $body) = unpack 'Na*', get($session, unpack('N', get($session, 4)) - 4);
		POSIX::_exit(0) if $code == 80877102;    # a cancel, which nobody hears
		put($session, 'N') if $code == 80877103 || $code == 80877104;
	} while ($code != 196608);
	my %parameter = split /\0/, $body =~ s/\0+\z//r;

	$session->{database} = $parameter{database};
	$session->{behaviour} = $behaviour{ $parameter{database} } // {};
	setsockopt $session->{socket}, SOL_SOCKET, SO_SNDBUF, SMALL_BUFFER if $session->{behaviour}{small_buffer};
	answer($session, 'startup', message('R', pack('N', 3)));
	get_message($session);
	answer($session, 'password', message('R', pack('N', 0)));
	put($session, join '', parameter('server_version', '15.4'), parameter('server_encoding', 'UTF8'),
		parameter('client_encoding', 'UTF8'), parameter('integer_datetimes', 'on'),
		parameter('standard_conforming_strings', 'on'), parameter('DateStyle', 'ISO, MDY'),
		message('K', pack('NN', $$, 1)), message('Z', 'I'));
	return;
}

sub get_message
{
	my ($session) = @_;
	my ($type, $length) = unpack 'aN', get($session, 5);

	return ($type, get($session, $length - 4));
}

# What a statement is, by what wh_worker and dblink send.
sub point_of
{
	my ($session, $sql) = @_;

	$session->{copying} = $sql =~ /^COPY / ? 1 : 0;
	$session->{binary} = $sql =~ /FORMAT binary/ ? 1 : 0;
	return 'begin' if $sql =~ /^BEGIN/;
	return 'commit' if $sql =~ /^(?:COMMIT|ROLLBACK)/;
	return 'settings' if $sql =~ /set_config/;
	return 'probe' if $sql =~ /a probe/;
	return 'describe' if $sql =~ /^SELECT \* FROM \(/;
	return 'cast' if $sql =~ /^SELECT t\./;
	return 'set' if $sql =~ /^SET /i;
	return 'rows';
}

sub describe
{
	my ($session, $kind) = @_;
	my $point = $session->{point};
	my @columns = ([ 'id', INT4 ], [ 'note', TEXT ]);

	put($session, message('t', pack('n', 0))) if $kind eq 'S';
	return put($session, description(map { [ 'set_config', TEXT ] } 1 .. $session->{settings})) if $point eq 'settings';
	return put($session, description([ 'probe', TEXT ])) if $point eq 'probe';
	return answer($session, $point, description(@columns)) if $point eq 'describe' || $point eq 'cast';
	return put($session, message('n', ''));
}

sub execute
{
	my ($session) = @_;
	my $point = $session->{point};

	return answer($session, $point, complete('BEGIN')) if $point eq 'begin';
	return answer($session, $point, complete('COMMIT')) if $point eq 'commit';
	return answer($session, $point, complete('SET')) if $point eq 'set';
	return answer($session, $point, message('D', fields(('x') x $session->{settings})) . complete('SELECT 1')) if $point eq 'settings';
	return answer($session, $point, message('D', fields('same')) . complete('SELECT 1')) if $point eq 'probe';
	return answer($session, 'rows', honest_rows($session));
}

sub take_statement
{
	my ($session, $sql) = @_;

	$session->{settings} = () = $sql =~ /set_config/g;
	$session->{point} = point_of($session, $sql);
	return;
}

sub converse
{
	my ($session) = @_;
	my %reply = ('P' => message('1', ''), 'B' => message('2', ''), 'C' => message('3', ''));

	start_up($session);
	while (1)
	{
		my ($type, $body) = get_message($session);

		return if $type eq 'X';
		take_statement($session, $body =~ s/\0.*//sr) if $type eq 'Q';
		take_statement($session, (split /\0/, $body)[1]) if $type eq 'P';
		put($session, $reply{$type}) if defined $reply{$type};
		describe($session, substr $body, 0, 1) if $type eq 'D';
		execute($session) if $type eq 'E' || $type eq 'Q';
		put($session, message('Z', $session->{point} eq 'commit' ? 'I' : 'T')) if $type eq 'S';
		put($session, message('Z', 'I')) if $type eq 'Q';
	}
	return;
}

# ---- processes ---------------------------------------------------------

sub new_hostile_server
{
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		LocalPort => 0,
		Proto => 'tcp',
		ReuseAddr => 1,
		Listen => SOMAXCONN) or die "could not listen: $@";
	my $sent_log = PostgreSQL::Test::Utils::tempdir() . '/sent';
	my $parent = $$;
	my $pid = fork();

	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		# _exit: the tests' own END blocks are not for this process.
		eval { accept_connections($listener, $parent, $sent_log); };
		POSIX::_exit(0);
	}

	my $server = { pid => $pid, port => $listener->sockport, sent_log => $sent_log };

	$servers{$pid} = $server;
	close $listener;
	return $server;
}

sub accept_connections
{
	my ($listener, $parent, $sent_log) = @_;

	# one process group, so that all of them can be ended at once
	setpgrp(0, 0);
	$SIG{CHLD} = 'IGNORE';
	$SIG{TERM} = sub { POSIX::_exit(0) };
	$SIG{PIPE} = 'IGNORE';
	while (getppid() == $parent)
	{
		my $ready = '';

		vec($ready, fileno $listener, 1) = 1;
		next unless select $ready, undef, undef, 0.5;
		my $socket = $listener->accept or next;
		my $pid = fork();

		if (defined $pid && $pid == 0)
		{
			close $listener;
			eval { converse({ socket => $socket, settings => 0, point => '', sent => 0, sent_log => $sent_log }); };
			POSIX::_exit(0);
		}
		close $socket;
	}
	return;
}

# The most bytes that a connection had sent when the client left it, of one that
# uses a small buffer; and how many of them may have been on the way, as Linux
# doubles what it is asked for.
sub most_sent
{
	my ($server, $database) = @_;

	return max(slurp_file($server->{sent_log}) =~ /^\Q$database\E (\d+)$/mg);
}

sub most_on_the_way
{
	my (undef, $receive_buffer) = split ' ', slurp_file('/proc/sys/net/ipv4/tcp_rmem');

	return 2 * SMALL_BUFFER + $receive_buffer;
}

sub stop_hostile_servers
{
	foreach my $pid (keys %servers)
	{
		kill 'TERM', -$pid;
		waitpid $pid, 0;
		delete $servers{$pid};
	}
	return;
}

END
{
	my $exit_code = $?;

	stop_hostile_servers();
	$? = $exit_code;
}

1;
