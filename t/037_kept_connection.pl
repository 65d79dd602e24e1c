# A worker keeps its connection from day to day, and what it knows of the tenant's
# query: a query that gives something else is noticed all the same.  It does not
# wait for the end of the tenant's transaction, which ends all the same.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $production = new_tenant('production');
create_events($production, '2025-07-01', 10, 20);
my $node = new_warehouse(conf => { 'wh_worker.max_workers' => 1 });
add_events_template($node, 'events',
	query => q{SELECT * FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1});
add_events_template($node, 'kinds',
	query => q{SELECT kind, id FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1},
	columns => 'kind TEXT, id INTEGER', indexes => '');
add_tenant($node, 'shop', $production, templates => [ 'events', 'kinds' ], start_date => '2025-08-01');
sql($node, 'UPDATE _wh.schedules SET active = false');

sub load
{
	my ($date, $template) = @_;
	my ($id, $state) = enqueue_and_wait($node,
		sprintf "'%s', 'shop', '%s', '%s', mode => 'all'", $template // 'events', $date, $date);

	return $state eq 'succeeded' ? $state :
		sql($node, "SELECT last_error FROM _wh.jobs WHERE backfill_id = $id AND last_error IS NOT NULL");
}

sub session
{
	return $production->safe_psql('postgres',
		"SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE usename = 'wh_reader'");
}

sub change
{
	my ($what) = @_;

	return $production->safe_psql('postgres', "ALTER TABLE events $what");
}

# ---- one connection ----------------------------------------------------

is(load('2025-07-01'), 'succeeded', 'a day');
my $session = session();
like($session, qr/^\d+$/, 'its connection is kept');
wait_until($production, "SELECT state = 'idle' AND backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $session",
	'and in no transaction');
is(load('2025-07-02'), 'succeeded', 'the next day');
is(load('2025-07-03', 'kinds'), 'succeeded', 'one of another template');
is(load('2025-07-03'), 'succeeded', 'and of the first again');
is(session(), $session, 'come over the same connection');
same_content($node, 'SELECT id, at, kind, amount, payload FROM shop.events',
	$production, events_query('2025-07-01', '2025-07-03'), 'they have all that the tenant has');
same_content($node, 'SELECT kind, id FROM shop.kinds', $production,
	"SELECT kind, id FROM events WHERE at::date = '2025-07-03'", 'each its own columns');

# ---- another shape over it ---------------------------------------------

change('ALTER id TYPE bigint');
is(load('2025-07-04'), 'succeeded', 'a type that fits as well');
is(session(), $session, 'comes over the same connection');
same_content($node, 'SELECT id, at, kind, amount, payload FROM shop.events_2025_07_04',
	$production, events_query('2025-07-04', '2025-07-04'), 'and is right');

change('ALTER amount TYPE text USING amount::text');
is(load('2025-07-05'), 'succeeded', 'numbers that come as text');
is(session(), $session, 'come over it as well');
same_content($node, 'SELECT id, at, kind, amount, payload FROM shop.events_2025_07_05',
	$production, events_query('2025-07-05', '2025-07-05'), 'and are right');

change('ADD extra integer');
like(load('2025-07-06'), qr/the query gives 6, the template declares 5/, 'another column is an error');
change('DROP extra');
is(load('2025-07-06'), 'succeeded', 'without it the day comes');

change('ALTER amount TYPE boolean USING true');
like(load('2025-07-07'), qr/column "amount" of the template is declared as numeric but the tenant sends boolean/,
	'a type that does not fit is named');
change('ALTER amount TYPE text USING amount::text');
like(load('2025-07-07'), qr/invalid input syntax for type numeric: "true"/, 'and so is text that is no number');
change('ALTER amount TYPE numeric USING 1');
is(load('2025-07-07'), 'succeeded', 'when the tenant is as before the day comes');

# ---- the connection is lost between days -------------------------------

$session = session();
$production->safe_psql('postgres', "SELECT pg_terminate_backend($session, 10000)");
is(load('2025-07-08'), 'succeeded', 'a connection that the tenant closed is not used');
isnt(session(), $session, 'but another');

# ---- a function that closes at once ------------------------------------

my $offset = log_end($production);
is(sql($node, "SELECT count(*) FROM _wh.fetch_day('kinds', 'shop', '2025-07-09') AS t(kind text, id integer)"), 20,
	'fetch_day gives the day');
wait_until($production, "SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = 'wh_reader'",
	'its own connection is closed');
is(log_count($production, qr/canceling|unexpected EOF|connection to client lost/, $offset), 0, 'in good order');

done_testing();
