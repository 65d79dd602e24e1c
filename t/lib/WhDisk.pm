# A disk that is really full: a small file system of its own, which ci/run-tests
# mounts when it may, and which a file fills but for the room that is asked for.
package WhDisk;

use strict;
use warnings;

use Exporter 'import';
use Fcntl qw(:flock);
use PostgreSQL::Test::Utils qw(system_or_bail);
use Time::HiRes qw(usleep);

our @EXPORT = qw(small_disk room_on leave_room_on eventually);

my @claims;

# A directory on a file system that nobody else uses while this process lives;
# nothing where there is none.
sub small_disk
{
	my ($name) = @_;

	foreach my $disk (glob(($ENV{WH_SMALL_DISKS} || '/nonexistent') . '/*'))
	{
		open my $claim, '>>', "$disk/claim" or next;
		next unless flock $claim, LOCK_EX | LOCK_NB;
		push @claims, $claim;
		system_or_bail('find', $disk, '-mindepth', '1', '!', '-name', 'claim', '-delete');
		mkdir "$disk/$name" or die "could not make $disk/$name: $!";
		return "$disk/$name";
	}
	return;
}

# Free bytes.
sub room_on
{
	my ($disk) = @_;
	my @lines = split /\n/, qx(df --output=avail -B1 '$disk');

	return $lines[1] + 0;
}

# Fills it but for so many bytes; without them it is empty again.
sub leave_room_on
{
	my ($disk, $bytes) = @_;
	my $filler = "$disk/../filler";

	unlink $filler;
	return unless defined $bytes;
	my $filled = 0;

	# Others may take some of it meanwhile.
	while ((my $size = room_on($disk) - $bytes) > 0)
	{
		$filled += $size if system("fallocate -o $filled -l $size '$filler' 2>/dev/null") == 0;
	}
	return;
}

# Polls until it is so, for a minute at most.
sub eventually
{
	my ($is_so) = @_;

	foreach my $try (1 .. 600)
	{
		return 1 if $is_so->();
		usleep(100_000);    # poll interval
	}
	return 0;
}

1;
