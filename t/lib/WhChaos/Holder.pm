# A person's session that has begun a transaction, done one statement, and gone
# to lunch.  It waits for nothing: who cannot have the lock at once leaves again.
package WhChaos::Holder;

use strict;
use warnings;

use IPC::Run ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

# Nothing, if the statement fails.
sub new
{
	my ($class, $node, $database, $statement) = @_;
	my $self = bless { in => "SET lock_timeout = '2s';\nBEGIN;\n$statement;\n\\echo held\n", out => '', err => '' }, $class;
	my $deadline = time() + 10;

	local %ENV = (%ENV, %{ { $node->_get_env() } });
	$self->{psql} = eval {
		IPC::Run::start([ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', '-' ],
			'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err});
	} or return;
	while (time() < $deadline && eval { $self->{psql}->pump_nb; $self->{psql}->pumpable } && $self->{out} !~ /held/)
	{
		usleep(20_000);    # poll interval
	}
	return $self if $self->{out} =~ /held/;
	$self->release;
	return;
}

# Its transaction is rolled back, if the server still knows of it.
sub release
{
	my ($self) = @_;
	my $psql = delete $self->{psql} or return;

	return eval { $psql->kill_kill(grace => 1); 1 };
}

1;
