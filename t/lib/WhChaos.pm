# A warehouse under random faults: what happens in which order, for how long, and
# what is looked at when they have ended.  t/073_chaos.pl runs it for a moment,
# bench/chaos for as long as it is told to.
#
# The seed decides on the order of the faults and on what each of them picks from
# what is there then.  How the processes of the servers race against each other
# it cannot decide: a seed that found something may have to be run more than once.
package WhChaos;

use strict;
use warnings;

use Exporter 'import';
use Test::More;
use Time::HiRes qw(time usleep);
use WhChaos::Checks;
use WhChaos::Faults;
use WhChaos::Readers;
use WhChaos::World;

our @EXPORT = qw(chaos);

use constant AT_ONCE_MAX => 3;

# A psql whose server is away ends before it has read what it is to do.
my $no_connection = qr/ack Broken pipe/;

# Options: seed, seconds (of faults), pause (between two of them, on average),
# faults (no more than these), readers, patience (to recover), aloud, and those of WhChaos::World.
sub chaos
{
	my (%opt) = @_;
	my $world = WhChaos::World->new(%opt);
	my $self = bless { %opt, world => $world, active => [], deck => [], done => {} }, __PACKAGE__;

	WhChaos::Checks::be_heard() if $opt{aloud};
	srand($opt{seed});
	$self->load_everything;
	$world->{started} = time();
	my $readers = WhChaos::Readers->new($world, $opt{readers});
	$self->fault_after_fault;
	$self->end_faults(1);
	$self->look_after_servers;
	$self->tell(sprintf '%d faults of %d kinds, now all ended', $self->count, scalar keys %{ $self->{done} });
	WhChaos::Checks::say(join ', ', map { "$_ $self->{done}{$_}" } sort keys %{ $self->{done} });
	WhChaos::Checks::recovered($world, $opt{patience});
	$readers->stop;
	WhChaos::Checks::nobody_saw_anything($readers);
	WhChaos::Checks::sound($world, $opt{patience});
	$world->stop;
	return $self->count;
}

sub count
{
	my ($self) = @_;
	my $count = 0;

	$count += $_ foreach values %{ $self->{done} };
	return $count;
}

sub tell
{
	my ($self, $what) = @_;

	WhChaos::Checks::say(sprintf '%7.1f s  %s', time() - $self->{world}{started}, $what);
	return;
}

# History first, as in a warehouse that has been there for a while.
sub load_everything
{
	my ($self) = @_;
	my $world = $self->{world};

	foreach my $template (WhChaos::World::TEMPLATES)
	{
		is($world->backfill($template, 'missing', 300), 'succeeded', "$template: history is loaded");
	}
	return;
}

# ---- the course of it --------------------------------------------------

sub fault_after_fault
{
	my ($self) = @_;
	my $end = time() + $self->{seconds};
	my $next = time();
	my ($work, $look) = (0, 0);

	while (time() < $end && $self->count < $self->{faults})
	{
		$self->end_faults(0);
		if (time() >= $next && @{ $self->{active} } < AT_ONCE_MAX && $self->is_there)
		{
			$self->next_fault;
			$next = time() + $self->{pause} * (0.3 + rand 1.4);
		}
		if (time() >= $work)
		{
			$self->carefully('work', sub { $self->work }, $no_connection);
			$work = time() + 0.3 + rand 0.7;
		}
		if (time() >= $look)
		{
			$self->look_after_servers;
			$look = time() + 3;
		}
		usleep(50_000);    # poll interval
	}
	return;
}

# Whether the warehouse is: else few faults would find anything, and few could end.
sub is_there
{
	my ($self) = @_;

	return !grep { $_->{stopped} && $_->{stopped} eq $self->{world}{warehouse}->name } @{ $self->{active} };
}

# What goes wrong in here is no test's end, but is told at the end, unless it is
# what was expected.
sub carefully
{
	my ($self, $what, $code, $expected) = @_;
	my @result = eval { $code->() };

	WhChaos::Checks::finding("$what: $@") if $@ && !($expected && $@ =~ $expected);
	return @result;
}

# Some find nothing to do their harm to: their turn comes later.
sub next_fault
{
	my ($self) = @_;

	foreach my $attempt (1 .. 5)
	{
		$self->{deck} = [ WhChaos::Faults::deck() ] unless @{ $self->{deck} };
		my $name = shift @{ $self->{deck} };
		my $seed = int rand 2**31;
		my $rest = int rand 2**31;

		srand($seed);
		my ($what, $seconds, $end, $stopped) = $self->carefully($name, sub { WhChaos::Faults::cause($self->{world}, $name) });
		srand($rest);
		if (!defined $what)
		{
			push @{ $self->{deck} }, $name;
			next;
		}
		$self->{done}{$name}++;
		$self->tell($what . ($end ? sprintf ' (for %.1f s)', $seconds : ''));
		push @{ $self->{active} }, { end => $end, until => time() + $seconds, what => $what, stopped => $stopped } if $end;
		return;
	}
	return;
}

# The servers first: with one away, nothing else can be put right.
sub end_faults
{
	my ($self, $all) = @_;
	my @active = sort { !!$b->{stopped} <=> !!$a->{stopped} } @{ $self->{active} };

	$self->{active} = [];
	foreach my $fault (@active)
	{
		my $is_over = $all || time() >= $fault->{until} && ($fault->{stopped} || $self->is_there);

		if ($is_over)
		{
			$self->carefully($fault->{what}, $fault->{end});
			$self->tell("over: $fault->{what}");
		}
		else { push @{ $self->{active} }, $fault }
	}
	return;
}

# As a service manager does: a server that nobody stopped is started again.
sub look_after_servers
{
	my ($self) = @_;
	my $world = $self->{world};

	foreach my $server ($world->{warehouse}, @{ $world->{production} })
	{
		my $name = $server->name;

		next if grep { $_->{stopped} && $_->{stopped} eq $name } @{ $self->{active} };
		next if $world->control($server, 'status');
		$self->tell("$name is not there; it is started");
		$world->start_server($server) or WhChaos::Checks::finding("$name does not start");
	}
	return;
}

# ---- what goes on besides ----------------------------------------------

sub work
{
	my ($self) = @_;
	my $world = $self->{world};
	my $shop = WhChaos::Faults::one_of(@{ $world->{shops} });
	my $template = WhChaos::Faults::random_template();
	my $day = int rand($world->{days} + 1);
	my $date = "(date '$world->{first}' + $day)";
	my $name = WhChaos::World::literal($shop->{name});
	my $which = rand;

	if ($which < 0.55) { $world->change_day($shop, $day, rand() < 0.3 ? WhChaos::World::TEMPLATES : $template) }
	elsif ($which < 0.7)
	{
		my $mode = WhChaos::Faults::one_of(qw(all all missing failed outdated));

		$world->try_sql("SELECT _wh.enqueue_backfill('$template', " . (rand() < 0.2 ? 'NULL' : $name) . ", $date, least($date + 10, _wh.current_date_utc()), mode => '$mode')");
	}
	elsif ($which < 0.8) { $world->try_sql("SELECT _wh.update_mv_by_template('$template', $name, $date)") }
	elsif ($which < 0.9)
	{
		$world->try_sql("SELECT _wh.create_combined_table_from_template_by_month('$template', $name, $name, extract(year FROM $date)::integer, extract(month FROM $date)::integer, allow_missing => true)");
	}
	else { $world->try_sql("UPDATE _wh.schedules SET schedule = '* * * * *' WHERE kind = 'combine_month' AND template_name = '$template' AND tenant_name = $name") }
	foreach my $outdated (grep { rand() < 0.1 } keys %{ $world->{outdated} })
	{
		delete $world->{outdated}{$outdated}
		  if defined $world->try_sql("SELECT _wh.enqueue_backfill('$outdated', NULL, date '$world->{first}', _wh.current_date_utc(), mode => 'outdated')");
	}
	return;
}

1;
