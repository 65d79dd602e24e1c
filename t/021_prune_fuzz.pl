# Plan-time pruning against the answer without it: expressions, columns, zones
# and moments that nobody chose, plans cached before the clock and the zone move.
# WH_FUZZ_SEED repeats a failure, WH_FUZZ_SECONDS looks longer.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PruneTree;
use WhTest;

my $seed = $ENV{WH_FUZZ_SEED} // (time * 1_000 + $$ % 1_000);
my $seconds = $ENV{WH_FUZZ_SECONDS} // 6;
my $again = "repeat with WH_FUZZ_SEED=$seed";

note "seed $seed";
srand($seed);

# Zones a bound must hold in, the last ones as far off as POSIX lets them be.
my @zones = ('UTC', 'Europe/Paris', 'America/New_York', 'Pacific/Kiritimati', 'Etc/GMT+12',
	'Asia/Kolkata', 'America/Sao_Paulo', 'Australia/Lord_Howe', 'Pacific/Apia', '<+03>-03',
	'Asia/Manila', 'ZZZ+16', 'ZZZ-16', 'ZZZ-16YYY+16,J60/0,J61/12',
	('ZZZ+16YYY-16,J60,J300', 'ZZZ-16YYY+16,J60,J300') x 3);

# Zones that no bound holds in.
my @odd_zones = ('ZZZ+167', 'ZZZ-167', 'ZZZ0YYY-167,J1,J365', 'ZZZ+167YYY-167', 'ZZZ+17');

# Days when something happens to a clock or a calendar.
my @days = ('2026-03-29 01:00', '2026-10-25 01:00', '2026-03-08 07:00', '2026-11-01 06:00',
	'2026-04-04 15:00', '2011-12-30 10:00', '2024-02-29', '2026-03-01', '2026-03-31',
	'2027-01-01', '2026-12-31', '2026-03-04', '2026-10-29', '2028-02-29', '2026-05-31', '2026-07-01');

sub one_of
{
	return $_[ int rand @_ ];
}

sub random_interval
{
	return one_of(
		'30 days', '1 month', '-1 month', '24 hours', '720 hours', '1 day', '-5 days', '0',
		'1 year 1 month 3 days 5 hours', '7 days 01:00', '3 months', '15 minutes', '-40 hours',
		'1 month -31 days', '2 weeks', '11 months 29 days 23:59:59.999999',
		int(rand 60) - 20 . ' days',
		int(rand 30) - 10 . ' months',
		int(rand 3000) - 1000 . ' hours');
}

sub random_unit
{
	return one_of('day', 'week', 'month', 'quarter', 'year', 'hour', 'minute', 'second', 'MONTH');
}

# One more step from an expression of a type; returns the next and its type.
sub random_step
{
	my ($text, $type) = @_;
	my $interval = sprintf "%s interval '%s'", one_of('-', '-', '+'), random_interval();
	my $unit = random_unit();
	my $zone = one_of(@zones);
	my @steps = (
		[ "($text $interval)", $type eq 'date' ? 'timestamp' : $type ],
		[ "($text)::date", 'date' ],
		[ "($text)::timestamp", 'timestamp' ],
		[ "($text)::timestamptz", 'timestamptz' ],
		[ "date_trunc('$unit', $text)", $type eq 'date' ? 'timestamptz' : $type ]);

	push @steps, [ "($text " . one_of('-', '+') . ' ' . int(rand 40) . ')', 'date' ] if $type eq 'date';
	push @steps, [ "($text AT TIME ZONE '$zone')", $type eq 'timestamp' ? 'timestamptz' : 'timestamp' ]
	  if $type ne 'date';
	push @steps, [ "($text)::$type(0)", $type ] if $type ne 'date';
	push @steps, [ "date_trunc('$unit', $text, '$zone')", $type ] if $type eq 'timestamptz';
	return @{ one_of(@steps) };
}

sub random_expression
{
	my ($text, $type) = @{ one_of(
			[ 'CURRENT_DATE', 'date' ], [ 'now()', 'timestamptz' ],
			[ 'CURRENT_TIMESTAMP', 'timestamptz' ], [ 'CURRENT_TIMESTAMP(0)', 'timestamptz' ],
			[ 'LOCALTIMESTAMP', 'timestamp' ], [ 'LOCALTIMESTAMP(3)', 'timestamp' ],
			[ 'statement_timestamp()', 'timestamptz' ]) };

	($text, $type) = random_step($text, $type) for 1 .. int rand 5;
	return $text;
}

sub random_key
{
	my ($type) = @_;
	my $text = 'logged_time';

	($text, $type) = random_key_step($text, $type) for 1 .. int rand 3;
	return $text;
}

sub random_key_step
{
	my ($text, $type) = @_;
	my ($next, $next_type);

	do
	{
		($next, $next_type) = random_step($text, $type);
	} while ($next =~ / interval |[-+] \d+\)$/);
	return ($next, $next_type);
}

sub random_condition
{
	my ($type) = @_;
	my $key = random_key($type);
	my $value = random_expression();

	# Every further conversion brings its own margin, so the plainest forms are the sharpest test.
	return sprintf "logged_time > %s %s interval '%s'", one_of('now()', 'LOCALTIMESTAMP', 'CURRENT_DATE'),
	  one_of('-', '+'), random_interval()
	  if rand() < 0.3;

	return one_of("$key >= $value", "$key > $value", "$key = $value", "$value <= $key", "$value < $key");
}

sub literal
{
	my ($text) = @_;

	$text =~ s/'/''/g;
	return "'$text'";
}

sub rows
{
	return join ",\n", map { '(' . join(', ', map { literal($_) } @$_) . ')' } @_;
}

my $node = new_prune_server(clock => 1);
my %type = (d => 'date', ts => 'timestamp', tz => 'timestamptz');

create_trees($node, first => "date '2026-01-01'", last => "date '2026-04-20'", tenants => 1);
$node->safe_psql('postgres', q{
	CREATE TABLE zones (zone text);
	CREATE TABLE odd_zones (zone text);
	CREATE TABLE days (day text);
	CREATE TABLE conditions (tree text, kind text, condition text, bound text);
	CREATE TABLE wrong (tree text, condition text, planned timestamptz, planned_zone text,
		run timestamptz, run_zone text, detail text);
	CREATE TABLE checks (bounds bigint, refused bigint, compared bigint);
	INSERT INTO checks VALUES (0, 0, 0);
});
$node->safe_psql('postgres', 'INSERT INTO zones VALUES ' . rows(map { [$_] } @zones));
$node->safe_psql('postgres', 'INSERT INTO odd_zones VALUES ' . rows(map { [$_] } @odd_zones));
$node->safe_psql('postgres', 'INSERT INTO days VALUES ' . rows(map { [$_] } @days));

# A bound is right if no key before it meets the condition, whenever and
# wherever that is asked after it was made.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION one_of(texts text[]) RETURNS text LANGUAGE sql VOLATILE AS
	'SELECT texts[1 + floor(random() * cardinality(texts))]';
CREATE FUNCTION some_moment() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	IF random() < 0.3 THEN
		RETURN timestamptz '1995-01-01 UTC' + random() * interval '15000 days';
	END IF;
	RETURN (SELECT one_of(array_agg(day)) FROM days)::timestamp AT TIME ZONE 'UTC'
		+ (random() - 0.5) * one_of('{2 s,2 h,30 h,5 days}')::interval;
END $$;
CREATE FUNCTION later_than(moment timestamptz) RETURNS timestamptz LANGUAGE sql VOLATILE AS $$
	SELECT moment + CASE floor(random() * 8)
		WHEN 0 THEN interval '0' WHEN 1 THEN random() * interval '1 hour' WHEN 2 THEN random() * interval '2 days'
		WHEN 3 THEN random() * interval '60 days' WHEN 4 THEN random() * interval '2 years'
		WHEN 5 THEN random() * interval '-24 hours' ELSE interval '-24 hours' END
$$;
CREATE FUNCTION bound_in_plan(tree text, condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	line text;
	bound text;
BEGIN
	FOR line IN EXECUTE format('EXPLAIN (COSTS OFF) SELECT FROM _wh.%I WHERE %s', 'open_' || tree, condition) LOOP
		bound := coalesce(bound, substring(line FROM '\(logged_time >= ''([^'']+)''::'));
	END LOOP;
	RETURN bound;
END $$;
CREATE PROCEDURE check_bounds() LANGUAGE plpgsql AS $$
DECLARE
	planned timestamptz := some_moment();
	planned_zone text := (SELECT one_of(array_agg(zone)) FROM zones);
	moment timestamptz;
	zone text;
	c record;
	met boolean;
BEGIN
	CALL set_clock(planned);
	PERFORM set_config('timezone', planned_zone, false);
	UPDATE conditions SET bound = bound_in_plan(tree, condition);
	UPDATE checks SET bounds = bounds + (SELECT count(bound) FROM conditions),
		refused = refused + (SELECT count(*) FILTER (WHERE bound IS NULL) FROM conditions);
	-- what a timestamptz says depends on the zone, and 16 hours are more than may be read back
	UPDATE conditions SET bound = (substring(bound FROM '^.{11}[^-+]*')::timestamp
		- (substring(bound FROM '[-+][0-9:]*$') || ':00')::interval)::text || ' UTC' WHERE tree = 'tz';
	FOR i IN 1 .. 8 LOOP
		moment := later_than(planned);
		zone := (SELECT one_of(array_agg(z.zone)) FROM zones AS z);
		CALL set_clock(moment);
		PERFORM set_config('timezone', zone, false);
		FOR c IN SELECT * FROM conditions WHERE bound IS NOT NULL LOOP
			EXECUTE format('SELECT bool_or(%s) FROM (SELECT (%L::%s - before)::%s AS logged_time
				FROM unnest(%L::interval[]) AS before) AS keys', c.condition, c.bound, c.kind, c.kind,
				CASE c.kind WHEN 'date' THEN '{1 day,2 days,4 days,40 days}'
					ELSE '{1 us,1 hour,13 hours,2 days,40 days}' END) INTO met;
			IF met THEN
				INSERT INTO wrong VALUES (c.tree, c.condition, planned, planned_zone, moment, zone, c.bound);
			END IF;
		END LOOP;
	END LOOP;
	PERFORM set_config('timezone', (SELECT one_of(array_agg(z.zone)) FROM odd_zones AS z), false);
	INSERT INTO wrong SELECT tree, condition, planned, planned_zone, planned, current_setting('timezone'), 'bounded'
	FROM conditions WHERE bound_in_plan(tree, condition) IS NOT NULL;
END $$;
CREATE PROCEDURE check_bounds(rounds int, seed float8) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. rounds LOOP
		CALL check_bounds();
	END LOOP;
END $$;

-- A cached plan says what the query says with the setting off.
CREATE FUNCTION answer(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	said text;
BEGIN
	EXECUTE query INTO said;
	RETURN said;
END $$;
CREATE PROCEDURE check_answers(seed float8) LANGUAGE plpgsql AS $$
DECLARE
	planned timestamptz;
	latest timestamptz;
	planned_zone text := (SELECT one_of(array_agg(zone)) FROM zones);
	c record;
	expected text;
	said text;
BEGIN
	PERFORM setseed(seed);
	planned := timestamptz '2026-02-20 UTC' + random() * interval '45 days';
	latest := planned;
	CALL set_clock(planned);
	PERFORM set_config('timezone', planned_zone, false);
	PERFORM set_config('plan_cache_mode', one_of('{force_generic_plan,force_custom_plan,auto}'), false);
	CREATE TEMPORARY TABLE queries AS
	SELECT row_number() OVER () AS n, tree, condition, format('SELECT count(*) || '' rows '' ||
		coalesce(sum(id), 0) || coalesce(min(logged_time)::text, ''none'') FROM %s WHERE %s',
		one_of(ARRAY[tree, 't1.' || tree]), condition) AS query FROM conditions;
	FOR c IN SELECT * FROM queries LOOP
		EXECUTE format('PREPARE q%s(integer) AS %s AND id >= $1', c.n, c.query);
		PERFORM answer(format('EXECUTE q%s(0)', c.n));
		COMMIT;
	END LOOP;
	FOR i IN 1 .. 6 LOOP
		-- whenever a plan was made, the clock is never set back by more than a day from there
		IF i > 1 THEN
			latest := latest + random() * one_of('{1 min,1 day,10 days}')::interval;
		END IF;
		CALL set_clock(latest - CASE WHEN i > 1 AND random() < 0.3 THEN random() ELSE 0 END * interval '24 hours');
		PERFORM set_config('timezone', one_of((SELECT array_agg(zone) FROM zones) ||
			CASE WHEN i % 3 = 0 THEN (SELECT array_agg(zone || '') FROM odd_zones, generate_series(1, 20)) END), false);
		FOR c IN SELECT * FROM queries LOOP
			PERFORM set_config('wh_worker.enable_stable_pruning', 'off', false);
			expected := answer(c.query);
			PERFORM set_config('wh_worker.enable_stable_pruning', 'on', false);
			said := answer(format('EXECUTE q%s(0)', c.n));
			UPDATE checks SET compared = compared + 1;
			IF said IS DISTINCT FROM expected OR answer(c.query) IS DISTINCT FROM expected THEN
				INSERT INTO wrong VALUES (c.tree, c.query, planned, planned_zone, now(), current_setting('timezone'),
					format('cached: %s, expected: %s', said, expected));
			END IF;
			COMMIT;
		END LOOP;
	END LOOP;
	DROP TABLE queries;
	DEALLOCATE ALL;
END $$;
CREATE TABLE _wh.open_d (logged_time date) PARTITION BY RANGE (logged_time);
CREATE TABLE rest_d PARTITION OF _wh.open_d DEFAULT;
CREATE TABLE _wh.open_ts (logged_time timestamp) PARTITION BY RANGE (logged_time);
CREATE TABLE rest_ts PARTITION OF _wh.open_ts DEFAULT;
CREATE TABLE _wh.open_tz (logged_time timestamptz) PARTITION BY RANGE (logged_time);
CREATE TABLE rest_tz PARTITION OF _wh.open_tz DEFAULT;
SQL

sub new_conditions
{
	my ($number) = @_;
	my @rows = map { my $tree = one_of(sort keys %type); [ $tree, $type{$tree}, random_condition($type{$tree}) ] }
	  1 .. $number;

	$node->safe_psql('postgres',
		'TRUNCATE conditions; INSERT INTO conditions (tree, kind, condition) VALUES ' . rows(@rows));
	return;
}

my $end = time + $seconds;
my $rounds = 0;

do
{
	new_conditions(150);
	$node->safe_psql('postgres', sprintf 'CALL check_bounds(2, %.6f)', rand);
	new_conditions(25);
	$node->safe_psql('postgres', sprintf 'CALL check_answers(%.6f)', rand);
	$rounds++;
} while (time < $end && sql($node, 'SELECT count(*) FROM wrong') eq '0');

is(sql($node, "SET timezone = 'UTC'; SELECT * FROM wrong LIMIT 5"), '', 'no row is missed') or diag $again;

my ($bounds, $refused, $compared) = split /\|/, sql($node, 'SELECT * FROM checks');
note "$rounds rounds: $bounds bounds made, $refused conditions without one, $compared runs of cached plans";
cmp_ok($bounds, '>', $refused, 'most conditions have a bound');
cmp_ok($compared, '>', 100, 'cached plans were run');

done_testing();
