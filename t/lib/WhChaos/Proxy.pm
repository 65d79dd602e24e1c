# One process that stands between a warehouse and the tenants of one server, with
# a port for each, and misbehaves at the ports that it is told to, while it runs:
#   pass              hands everything on
#   slow              a few bytes at a time
#   stall, N          after N bytes from the server of a connection no more of
#                     them, until told otherwise
#   cut, N            closes both ends after N bytes
#   hang              takes connections and never says a word
#   refuse            closes what connects
#   half_open         whoever is connected now hears nothing any more, ever
# Nothing blocks it: what a side does not read waits in a buffer of its own, and
# when that is full, the other side is not read.
package WhChaos::Proxy;

use strict;
use warnings;

use Errno qw(EAGAIN EWOULDBLOCK EINTR);
use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOMAXCONN);

use constant BUFFER_MAX => 256 * 1024;

sub new
{
	my ($class, @targets) = @_;
	my @gates = map { { target => $_, mode => 'pass', limit => 0, listener => listener() } } @targets;

	pipe(my $read, my $write) or die "could not make a pipe: $!";
	my $pid = fork();
	die "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		# _exit: the tests' own END blocks are not for this process.
		close $write;
		local $SIG{PIPE} = 'IGNORE';
		local $SIG{TERM} = sub { POSIX::_exit(0) };
		eval { serve({ gates => \@gates, control => $read, connections => {} }); 1 } or warn "proxy: $@";
		POSIX::_exit(0);
	}
	close $read;
	$write->autoflush(1);
	my @ports = map { $_->{listener}->sockport } @gates;
	close $_->{listener} foreach @gates;
	return bless { pid => $pid, control => $write, ports => \@ports }, $class;
}

sub listener
{
	my $listener = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', LocalPort => 0, Proto => 'tcp', ReuseAddr => 1, Listen => SOMAXCONN)
	  or die "could not listen: $@";

	$listener->blocking(0);
	return $listener;
}

sub port
{
	my ($self, $gate) = @_;

	return $self->{ports}[$gate];
}

sub behave
{
	my ($self, $gate, $mode, $limit) = @_;

	print { $self->{control} } "$gate $mode " . ($limit // 0) . "\n";
	return;
}

sub stop
{
	my ($self) = @_;
	my $pid = delete $self->{pid};

	return unless defined $pid;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return;
}

# ---- the process -------------------------------------------------------

sub serve
{
	my ($proxy) = @_;

	while (1)
	{
		my ($readable, $writable) = wanted($proxy);
		my ($read, $write) = IO::Select->select(IO::Select->new(@$readable), IO::Select->new(@$writable), undef, 0.2);

		foreach my $socket (@{ $write // [] })
		{
			flush_to($proxy, $socket) if $proxy->{side}{$socket};
		}
		foreach my $socket (@{ $read // [] })
		{
			if ($socket == $proxy->{control}) { obey($proxy) }
			elsif ($proxy->{side}{$socket}) { receive($proxy, $socket) }
			else
			{
				my ($gate) = grep { $_->{listener} == $socket } @{ $proxy->{gates} };

				admit($proxy, $gate) if $gate;
			}
		}
	}
	return;
}

# Which sockets to read and to write.  A side of a connection is {socket, peer
# (the other side), out (what waits to be written), is_server, ...}.
sub wanted
{
	my ($proxy) = @_;
	my @readable = ($proxy->{control}, map { $_->{listener} } @{ $proxy->{gates} });
	my @writable;

	foreach my $side (values %{ $proxy->{side} })
	{
		my $peer = $side->{peer};

		push @writable, $side->{socket} if length $side->{out};
		next if $peer && length $peer->{out} > BUFFER_MAX;
		next if $side->{is_server} && $side->{gate}{mode} eq 'stall' && $side->{count} > $side->{gate}{limit};
		push @readable, $side->{socket};
	}
	return (\@readable, \@writable);
}

sub obey
{
	my ($proxy) = @_;

	sysread($proxy->{control}, my $text, 4096) or POSIX::_exit(0);
	foreach my $line (split /\n/, $text)
	{
		my ($number, $mode, $limit) = split / /, $line;
		my $gate = $proxy->{gates}[$number] // next;
		my @sides = grep { $_->{gate} == $gate } values %{ $proxy->{side} };

		forget($proxy, $_) foreach grep { !$_->{peer} && !$_->{is_dead} } @sides;
		if ($mode eq 'half_open')
		{
			make_half_open($proxy, $_) foreach grep { $_->{is_server} } @sides;
			$mode = 'pass';
		}
		$_->{count} = 0 foreach @sides;
		@$gate{qw(mode limit)} = ($mode, $limit);
	}
	return;
}

sub make_half_open
{
	my ($proxy, $server) = @_;
	my $client = $server->{peer};

	forget($proxy, $server);
	return unless $client;
	delete $client->{peer};
	$client->{out} = '';
	$client->{is_dead} = 1;
	$proxy->{side}{ $client->{socket} } = $client;
	return;
}

sub add_side
{
	my ($proxy, $gate, $socket, $is_server) = @_;
	my $side = { socket => $socket, gate => $gate, out => '', is_server => $is_server, count => 0 };

	$socket->blocking(0);
	$proxy->{side}{$socket} = $side;
	return $side;
}

sub admit
{
	my ($proxy, $gate) = @_;
	my $client = $gate->{listener}->accept or return;

	if ($gate->{mode} eq 'refuse')
	{
		close $client;
		return;
	}
	if ($gate->{mode} eq 'hang')
	{
		add_side($proxy, $gate, $client, 0);
		return;
	}
	my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $gate->{target}, Proto => 'tcp');
	if (!$server)
	{
		close $client;
		return;
	}
	my $inside = add_side($proxy, $gate, $client, 0);
	my $outside = add_side($proxy, $gate, $server, 1);
	@$inside{'peer'} = $outside;
	@$outside{'peer'} = $inside;
	return;
}

# This side only; its socket is closed.
sub forget
{
	my ($proxy, $side) = @_;

	delete $proxy->{side}{ $side->{socket} };
	close $side->{socket};
	return;
}

sub drop_both
{
	my ($proxy, $side) = @_;
	my $peer = $side->{peer};

	forget($proxy, $side);
	return unless $peer;
	delete $side->{peer};
	delete $peer->{peer};
	forget($proxy, $peer);
	return;
}

sub receive
{
	my ($proxy, $side) = ($_[0], $_[0]->{side}{ $_[1] });
	my $mode = $side->{gate}{mode};
	my $got = sysread($side->{socket}, my $bytes, $mode eq 'slow' ? 300 : 16384);

	return if !defined $got && ($! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR);
	if (!$got)
	{
		end_of($proxy, $side);
		return;
	}
	return unless $side->{peer};
	$side->{count} += $got;
	if ($side->{is_server} && $mode eq 'cut' && $side->{count} > $side->{gate}{limit})
	{
		drop_both($proxy, $side);
		return;
	}
	$side->{peer}{out} .= $bytes;
	flush_to($proxy, $side->{peer}{socket});
	return;
}

# What it said before it left is still handed on.
sub end_of
{
	my ($proxy, $side) = @_;
	my $peer = $side->{peer};

	if (!$peer || !length $peer->{out})
	{
		drop_both($proxy, $side);
		return;
	}
	delete $peer->{peer};
	$peer->{is_last} = 1;
	$peer->{is_dead} = 1;
	forget($proxy, $side);
	return;
}

sub flush_to
{
	my ($proxy, $side) = ($_[0], $_[0]->{side}{ $_[1] });
	my $put = syswrite($side->{socket}, $side->{out});

	if (!defined $put)
	{
		drop_both($proxy, $side) unless $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
		return;
	}
	substr($side->{out}, 0, $put, '');
	forget($proxy, $side) if $side->{is_last} && !length $side->{out};
	return;
}

1;
