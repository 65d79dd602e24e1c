# Who reads the views all the while, each a process: what a reader may never meet
# is written down, a line each, and judged when all is over.
#
# An answer has to be, for each day in it, all rows of one version of that day,
# once, and never an older version than the same reader saw before.  A day that
# was there is there, and a query does not fail, unless the server went away or a
# person dropped what it reads.
package WhChaos::Readers;

use strict;
use warnings;

use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time);
use WhChaos::World;

# What a client is told when its server, or its session, ends.
my $server_left = qr/server closed the connection|the database system is (?:starting up|shutting down|in recovery mode|not yet accepting)|terminating connection|connection to server .* failed|could not (?:receive|send) data|no connection to the server|connection to server was lost|connection to client lost|canceling statement due to user request|psql exited with signal|ack Broken pipe/;

sub new
{
	my ($class, $world, $count) = @_;
	my $self = bless { world => $world, file => PostgreSQL::Test::Utils::tempdir() . '/readers', pids => [] }, $class;

	foreach my $number (1 .. $count)
	{
		my $pid = fork();

		die "could not fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			local $SIG{TERM} = sub { POSIX::_exit(0) };
			eval { $self->read_on($number); 1 } or $self->note_down('died', $@);
			POSIX::_exit(0);
		}
		push @{ $self->{pids} }, $pid;
	}
	return $self;
}

sub stop
{
	my ($self) = @_;

	foreach my $pid (splice @{ $self->{pids} })
	{
		kill 'TERM', $pid;
		waitpid $pid, 0;
	}
	return;
}

sub note_down
{
	my ($self, @fields) = @_;

	s/\s*\n\s*/ \\ /g, s/\|/!/g foreach @fields;
	open my $file, '>>', $self->{file} or die "could not write down what was read: $!";
	syswrite $file, join('|', sprintf('%.1f', time() - $self->{world}{started}), @fields) . "\n";
	close $file;
	return;
}

# ---- a reader ----------------------------------------------------------

sub read_on
{
	my ($self, $number) = @_;
	my $parent = getppid();
	my @shops = @{ $self->{world}{shops} };

	srand($self->{world}{seed} + $number);
	while (getppid() == $parent)
	{
		my $template = (WhChaos::World::TEMPLATES)[ int rand 2 ];
		my $shop = $shops[ int rand @shops ];

		if (rand() < 0.3) { $self->read_view($template, "public.$template", 'schema_name') }
		else
		{
			$self->read_view($template, WhChaos::World::identifier($shop->{name}) . ".$template", WhChaos::World::literal($shop->{name}));
		}
		$self->note_down('read');
	}
	return;
}

sub read_view
{
	my ($self, $template, $view, $schema) = @_;
	my $world = $self->{world};
	my $asked = time();
	my ($status, $out, $err);

	eval {
		$status = $world->{warehouse}->psql('postgres', "SELECT $schema, at::date - date '$world->{first}', count(*), min(version), max(version), sum(amount) FROM $view GROUP BY 1, 2",
			stdout => \$out, stderr => \$err, timeout => 120);
		1;
	} or $err = $@;
	if (!defined $status || $status != 0)
	{
		return if ($err // '') =~ $server_left;
		my $kind = $err =~ /relation ".*" does not exist|schema ".*" does not exist/ ? 'no view' : 'error';

		$self->note_down($kind, $view, $err);
		return;
	}
	$self->judge($template, $view, [ map { [ split /\|/ ] } split /\n/, $out ], $asked);
	return;
}

sub judge
{
	my ($self, $template, $view, $rows, $asked) = @_;
	my %shops = map { $_->{name} => $_ } @{ $self->{world}{shops} };
	my %there;

	foreach my $row (@$rows)
	{
		my ($name, $day, $count, $oldest, $newest, $sum) = @$row;
		my $shop = $shops{$name};
		my ($expected, $total) = $self->{world}->expected($shop, $day, $newest);

		$self->note_down('wrong', $view, "$name, day $day: $count rows of versions $oldest to $newest, sum $sum; $expected rows and $total expected")
		  if $oldest != $newest || $count != $expected || $sum != $total;
		my $seen = $self->{seen}{$view}{$name}{$day};
		$self->note_down('older', $view, "$name, day $day: version $newest, after version $seen")
		  if defined $seen && $newest < $seen;
		$self->{seen}{$view}{$name}{$day} = $newest;
		$there{$name}{$day} = 1;
	}
	foreach my $name (keys %{ $self->{there}{$view} })
	{
		my @gone = grep { !$there{$name}{$_} } sort { $a <=> $b } keys %{ $self->{there}{$view}{$name} };

		$self->note_down('gone', $view, $template, $name, join(' ', @gone), sprintf '%.1f', $asked - $self->{world}{started}) if @gone;
	}
	$self->{there}{$view} = \%there;
	return;
}

# ---- what they met -----------------------------------------------------

# How many answers there were, and what of the rest no person did.
sub findings
{
	my ($self) = @_;
	my ($answers, @findings) = (0);

	return (0) unless -e $self->{file};
	foreach my $line (split /\n/, slurp_file($self->{file}))
	{
		my ($time, $kind, @fields) = split /\|/, $line;

		if ($kind eq 'read') { $answers++ }
		elsif ($kind eq 'no view' && $self->was_dropped($time, $fields[0])) { next }
		elsif ($kind eq 'error' && $fields[1] =~ /deadlock detected/ && $self->was_dropped($time, $fields[0], 15)) { next }
		elsif ($kind eq 'gone' && $self->were_dropped($time, @fields)) { next }
		else { push @findings, $line }
	}
	return ($answers, @findings);
}

# A person dropped the view, or something below it, with CASCADE, not long ago; that
# locks the view below first, so it may also have been a deadlock with who reads both.
sub was_dropped
{
	my ($self, $time, $view, $seconds) = @_;

	return grep { $_->{time} <= $time && $time < $_->{time} + ($seconds // 180) && $view =~ /\b\Q$_->{template}\E$/ } @{ $self->{world}{dropped} };
}

sub were_dropped
{
	my ($self, $time, $view, $template, $name, $days) = @_;

	foreach my $day (split / /, $days)
	{
		return 0
		  unless grep { $_->{template} eq $template && $_->{time} <= $time && $time < $_->{time} + 180
			  && (!defined $_->{days} || $_->{name} eq $name && grep { $_ == $day } @{ $_->{days} }) } @{ $self->{world}{dropped} };
	}
	return 1;
}

1;
