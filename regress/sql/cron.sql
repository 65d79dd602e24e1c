-- Schedules: what may be written, where a mistake is, and when a run is next.
-- The functions are t/cron/cron_test.c; times come with their expectation.
SET datestyle = 'ISO, YMD';
SET timezone = 'UTC';
\getenv srcdir PG_ABS_SRCDIR
\set library :srcdir '/../t/cron/cron_test'
CREATE FUNCTION pg_temp.cron_mistake(schedule text) RETURNS text
	LANGUAGE c STRICT AS :'library', 'cron_mistake';
CREATE FUNCTION pg_temp.cron_next(schedule text, zone text, after timestamptz, key text DEFAULT '')
	RETURNS timestamptz LANGUAGE c STRICT AS :'library', 'cron_next';

-- The next n runs, as the wall of the zone shows them.
CREATE FUNCTION pg_temp.runs(schedule text, zone text, after text, n integer, key text DEFAULT '')
	RETURNS text[] LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
	at timestamptz;
	result text[] := '{}';
BEGIN
	PERFORM set_config('timezone', zone, true);
	at := after::timestamptz;
	WHILE cardinality(result) < n LOOP
		at := pg_temp.cron_next(schedule, zone, at, key);
		result := result || at::text;
		EXIT WHEN at = 'infinity';
	END LOOP;
	RETURN result;
END
$$;

CREATE TEMPORARY TABLE expected (n serial, schedule text, zone text, after text, runs text[]);
-- Whatever does not run as expected; no row is right.
CREATE TEMPORARY VIEW unexpected AS
	SELECT schedule, zone, after, runs AS expected, got FROM (
		SELECT *, pg_temp.runs(schedule, zone, after, cardinality(runs)) AS got FROM expected) AS e
	WHERE got IS DISTINCT FROM runs ORDER BY n;

--
-- the text: accepted
--
SELECT schedule, pg_temp.cron_mistake(schedule) FROM unnest(ARRAY[
	'* * * * *', E' \t0  0\n1\r1 \f0 \x0b', '0-59 0-23 1-31 1-12 0-7', '*/5 */2 */3 */4 */2',
	'1,2,3 4-6,8 1,15,$ jan,MAR-May,12 sun,Tue-FRI,7', '10/20 5-23/6 1/10 2/3 1/2', '*,5 *,*/2 *,$ * *',
	'* * $ * *', 'H H H H H', 'h H/6 H(1-31)/10 H/3 H/7', 'H(0-29)/10,45 H(9-17) * H(jan-jun) H(mon-fri)',
	'H,H(30-59) 5,H * * *', 'H H * * sat-sun', '007 01 01 01 00', '*/90 * * * *',
	'@yearly', '@annually', '@monthly', '@weekly', '@daily', '@midnight', ' @Hourly ',
	'1 second', '1 seconds', '86400 seconds', '1 minute', ' 1440  MINUTES ', '5 H * * *'
]) WITH ORDINALITY AS a (schedule, n) WHERE pg_temp.cron_mistake(schedule) IS NOT NULL ORDER BY n;

--
-- the text: refused, with the position of the mistake
--
\pset format unaligned
SELECT schedule, pg_temp.cron_mistake(schedule) FROM unnest(ARRAY[
	-- too little, too much
	'', '   ', '*', '* *', '* * * * ', '0 0 1 1 ', '* * * * * *', '0 0 * * * 2026', '* * * * * ,',
	-- out of range
	'60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 0 *', '* * * 13 *', '* * * * 8',
	'0-60 * * * *', '1,2,77 * * * *', '* * 5-32 * *', '4294967296 * * * *', '99999999999999999999999 * * * *',
	-- ranges and steps
	'30-10 * * * *', '* * * dec-jan *', '* * * * fri-mon', '* * * * 5-0', '5- * * * *', '-5 * * * *', '1--5 * * * *', '1-5-9 * * * *',
	'*/0 * * * *', '*/ * * * *', '*/-5 * * * *', '*/x * * * *', '*/5/5 * * * *', '*/99999999999 * * * *', '/5 * * * *',
	-- lists
	',5 * * * *', '5, * * * *', '5,,6 * * * *', '*5 * * * *', '5* * * * *', '** * * * *', '5;6 * * * *',
	-- names
	'jan * * * *', '* mon * * *', '* * sun * *', '* * * mon *', '* * * * jan', '* * * january *', '* * * * monday', '* * * ja *',
	'* * * jan5 *', '* * * 1jan *', '* * L * *', '0 0 LW * *', '0 0 * * 5L', '0 0 15W * *', '0 0 * * 1#2',
	'* * ? * *', '0 0 ? * MON', 'a_word_that_is_longer_than_what_an_error_should_repeat * * * *',
	-- $
	'* $ * * *', '* * * * $', '* * $-1 * *', '* * 1-$ * *', '* * $/2 * *', '* * $$ * *',
	-- H
	'H( * * * *', 'H() * * * *', 'H(1) * * * *', 'H(1-) * * * *', 'H(5-1) * * * *', 'H(0-60) * * * *', 'H(1-5 * * * *', 'H(1-5)) * * * *',
	'H/0 * * * *', 'H/61 * * * *', 'H(1-5)/6 * * * *', 'H/ * * * *', 'H5 * * * *', 'HH * * * *', 'H-5 * * * *', '1-H * * * *', '* * H/29 * *',
	-- @
	'@', '@reboot', '@REBOOT', '@fortnightly', '@daily 5', '@daily@daily', '@every 5m', '@ daily', 'x@daily', '@daily1',
	-- intervals
	'0 seconds', '86401 seconds', '0 minutes', '1441 minutes', '99999999999 seconds', '5 hours', '5 h', '5 secs', '5 seconds ago', '5 minutes 3 seconds',
	'-5 seconds', '1.5 seconds', '5seconds', '5  minutes,', '0x10 seconds', 'five minutes', 'seconds'
]) WITH ORDINALITY AS a (schedule, n) ORDER BY n;
-- characters of several bytes and control characters; the position counts characters
SELECT pg_temp.cron_mistake(schedule) FROM unnest(ARRAY[
	U&'\00e9', U&'* * * * \00e9', U&'* * *\00e9 * *', U&'*\00a0* * * *', U&'\201c* * * * *', U&'5 seconds\00e9', U&'5 \00e9',
	U&'@daily\00e9', U&'1\0661 * * * *', U&'* * * * * \00e9\00e9', E'* * \x01 * *', E'*\x7f * * * *'
]) WITH ORDINALITY AS a (schedule, n) ORDER BY n;
-- a long text is read once
SELECT pg_temp.cron_mistake(repeat('1,', 1000000) || '60 * * * *');
SELECT pg_temp.cron_mistake(repeat(' ', 1000000));
SELECT pg_temp.cron_mistake(repeat('x', 1000000));
\pset format aligned

--
-- fields, lists, ranges, steps, names
--
INSERT INTO expected (schedule, zone, after, runs) VALUES
	('* * * * *', 'UTC', '2026-07-01 00:00', '{2026-07-01 00:01:00+00,2026-07-01 00:02:00+00}'),
	('* * * * *', 'UTC', '2026-07-01 00:00:59.999999', '{2026-07-01 00:01:00+00}'),
	('0 0 * * *', 'UTC', '2026-07-01 00:00', '{2026-07-02 00:00:00+00}'),
	('0 0 * * *', 'UTC', '2026-06-30 23:59:59.999999', '{2026-07-01 00:00:00+00}'),
	('10/20 * * * *', 'UTC', '2026-07-01 00:00', '{2026-07-01 00:10:00+00,2026-07-01 00:30:00+00,2026-07-01 00:50:00+00,2026-07-01 01:10:00+00}'),
	('10-40/15 5 * * *', 'UTC', '2026-07-01 00:00', '{2026-07-01 05:10:00+00,2026-07-01 05:25:00+00,2026-07-01 05:40:00+00,2026-07-02 05:10:00+00}'),
	('*/45 * * * *', 'UTC', '2026-07-01 00:00', '{2026-07-01 00:45:00+00,2026-07-01 01:00:00+00}'),
	('*/90 * * * *', 'UTC', '2026-07-01 00:00', '{2026-07-01 01:00:00+00}'),
	('59,0,30 22-23,1 * * *', 'UTC', '2026-07-01 22:59', '{2026-07-01 23:00:00+00,2026-07-01 23:30:00+00,2026-07-01 23:59:00+00,2026-07-02 01:00:00+00}'),
	('0 0 1 JAN,jul *', 'UTC', '2026-01-01 00:00', '{2026-07-01 00:00:00+00,2027-01-01 00:00:00+00}'),
	('0 0 1 mar-may/2 *', 'UTC', '2026-01-01 00:00', '{2026-03-01 00:00:00+00,2026-05-01 00:00:00+00,2027-03-01 00:00:00+00}'),
	('@yearly', 'UTC', '2026-07-01 00:00', '{2027-01-01 00:00:00+00}'),
	('@annually', 'UTC', '2026-07-01 00:00', '{2027-01-01 00:00:00+00}'),
	('@monthly', 'UTC', '2026-07-01 00:00', '{2026-08-01 00:00:00+00}'),
	('@weekly', 'UTC', '2026-07-01 00:00', '{2026-07-05 00:00:00+00}'),
	('@daily', 'UTC', '2026-07-01 00:00', '{2026-07-02 00:00:00+00}'),
	('@midnight', 'UTC', '2026-07-01 00:00', '{2026-07-02 00:00:00+00}'),
	('@hourly', 'UTC', '2026-07-01 00:00', '{2026-07-01 01:00:00+00}'),
	('30 6 * * *', 'Asia/Kathmandu', '2026-07-01 00:00:00+00', '{2026-07-01 06:30:00+05:45}'),
	('0 0 * * *', 'Asia/Kathmandu', '2026-07-01 00:00:00+00', '{2026-07-02 00:00:00+05:45}'),
-- Sunday is 0 and 7; 2026-07-01 is a Wednesday
	('0 0 * * 0', 'UTC', '2026-07-01 00:00', '{2026-07-05 00:00:00+00,2026-07-12 00:00:00+00}'),
	('0 0 * * 7', 'UTC', '2026-07-01 00:00', '{2026-07-05 00:00:00+00,2026-07-12 00:00:00+00}'),
	('0 0 * * SUN', 'UTC', '2026-07-01 00:00', '{2026-07-05 00:00:00+00,2026-07-12 00:00:00+00}'),
	('0 0 * * 5-7', 'UTC', '2026-07-01 00:00', '{2026-07-03 00:00:00+00,2026-07-04 00:00:00+00,2026-07-05 00:00:00+00,2026-07-10 00:00:00+00}'),
	('0 0 * * sat-sun', 'UTC', '2026-07-01 00:00', '{2026-07-04 00:00:00+00,2026-07-05 00:00:00+00,2026-07-11 00:00:00+00}'),
	('0 0 * * sun-mon', 'UTC', '2026-07-01 00:00', '{2026-07-05 00:00:00+00,2026-07-06 00:00:00+00,2026-07-12 00:00:00+00}'),
	('0 0 * * 0-7', 'UTC', '2026-07-01 00:00', '{2026-07-02 00:00:00+00,2026-07-03 00:00:00+00,2026-07-04 00:00:00+00,2026-07-05 00:00:00+00}'),
	('0 0 * * 3/2', 'UTC', '2026-07-01 00:00', '{2026-07-03 00:00:00+00,2026-07-05 00:00:00+00,2026-07-08 00:00:00+00}'),
	('0 0 * * 2,wed', 'UTC', '2026-07-01 00:00', '{2026-07-07 00:00:00+00,2026-07-08 00:00:00+00}'),
-- both days restricted: either; one of them begins with *: both
	('0 0 13 * 5', 'UTC', '2026-02-01 00:00', '{2026-02-06 00:00:00+00,2026-02-13 00:00:00+00,2026-02-20 00:00:00+00}'),
	('0 0 14 * 5', 'UTC', '2026-02-10 00:00', '{2026-02-13 00:00:00+00,2026-02-14 00:00:00+00,2026-02-20 00:00:00+00}'),
	('0 0 1-31 * 5', 'UTC', '2026-02-01 00:00', '{2026-02-02 00:00:00+00}'),
	('0 0 * * 5', 'UTC', '2026-02-01 00:00', '{2026-02-06 00:00:00+00,2026-02-13 00:00:00+00}'),
	('0 0 */2 * 1', 'UTC', '2026-06-01 00:00', '{2026-06-15 00:00:00+00,2026-06-29 00:00:00+00,2026-07-13 00:00:00+00}'),
	('0 0 1 * */2', 'UTC', '2026-06-30 00:00', '{2026-08-01 00:00:00+00,2026-09-01 00:00:00+00}'),
	('0 0 *,13 * 5', 'UTC', '2026-02-01 00:00', '{2026-02-06 00:00:00+00,2026-02-13 00:00:00+00}'),
	('0 0 13,* * 5', 'UTC', '2026-02-01 00:00', '{2026-02-02 00:00:00+00}'),
	('0 0 $ * 1', 'UTC', '2026-06-25 00:00', '{2026-06-29 00:00:00+00,2026-06-30 00:00:00+00,2026-07-06 00:00:00+00}'),
	('0 0 $ * *', 'UTC', '2026-06-25 00:00', '{2026-06-30 00:00:00+00,2026-07-31 00:00:00+00}'),
-- ends of months and years, leap days
	('0 12 $ * *', 'UTC', '2024-01-31 12:00', '{2024-02-29 12:00:00+00,2024-03-31 12:00:00+00,2024-04-30 12:00:00+00}'),
	('0 12 $ 2 *', 'UTC', '2022-01-31 12:00', '{2022-02-28 12:00:00+00,2023-02-28 12:00:00+00,2024-02-29 12:00:00+00}'),
	('0 0 $ 2 *', 'UTC', '1999-12-31 00:00', '{2000-02-29 00:00:00+00,2001-02-28 00:00:00+00}'),
	('0 0 $ 2 *', 'UTC', '2099-12-31 00:00', '{2100-02-28 00:00:00+00,2101-02-28 00:00:00+00}'),
	('0 0 1,$ * *', 'UTC', '2026-01-15 00:00', '{2026-01-31 00:00:00+00,2026-02-01 00:00:00+00,2026-02-28 00:00:00+00,2026-03-01 00:00:00+00}'),
	('0 0 $ 2,12 *', 'Europe/Berlin', '2026-02-28 00:00', '{2026-12-31 00:00:00+01,2027-02-28 00:00:00+01}'),
	('0 0 31 * *', 'UTC', '2026-01-31 00:00', '{2026-03-31 00:00:00+00,2026-05-31 00:00:00+00,2026-07-31 00:00:00+00}'),
	('0 0 30 * *', 'UTC', '2026-01-30 00:00', '{2026-03-30 00:00:00+00}'),
	('0 0 29 2 *', 'UTC', '2025-01-01 00:00', '{2028-02-29 00:00:00+00,2032-02-29 00:00:00+00}'),
	('0 0 29 2 *', 'UTC', '2096-03-01 00:00', '{2104-02-29 00:00:00+00}'),
	('0 0 29 2 */7', 'UTC', '2025-01-01 00:00', '{2032-02-29 00:00:00+00,2060-02-29 00:00:00+00,2088-02-29 00:00:00+00,2128-02-29 00:00:00+00}'),
	('59 23 31 12 *', 'UTC', '2025-12-31 23:59', '{2026-12-31 23:59:00+00,2027-12-31 23:59:00+00}'),
	('* * * * *', 'UTC', '2025-12-31 23:59:30', '{2026-01-01 00:00:00+00}'),
	('0 0 1 1 *', 'America/New_York', '2026-01-01 04:59:59+00', '{2026-01-01 00:00:00-05,2027-01-01 00:00:00-05}'),
	('0 0 1 1 *', 'Pacific/Kiritimati', '2025-12-31 09:59:59+00', '{2026-01-01 00:00:00+14,2027-01-01 00:00:00+14}'),
	('0 0 30 2 *', 'UTC', '2026-01-01 00:00', '{infinity}'),
	('0 0 31 4,6,9,11 *', 'America/New_York', '2026-01-01 00:00', '{infinity}'),
	('0 0 30 2 1', 'UTC', '2026-01-01 00:00', '{2026-02-02 00:00:00+00}'),
-- the ends of the calendar
	('* * * * *', 'UTC', 'infinity', '{infinity}'),
	('5 seconds', 'UTC', 'infinity', '{infinity}'),
	('0 0 * * *', 'UTC', '-infinity', '{4714-11-25 00:00:00+00 BC}'),
	('0 0 1 3 *', 'UTC', '0002-01-01 00:00 BC', '{"0002-03-01 00:00:00+00 BC","0001-03-01 00:00:00+00 BC","0001-03-01 00:00:00+00"}'),
	('0 0 29 2 *', 'UTC', '0002-01-01 00:00 BC', '{"0001-02-29 00:00:00+00 BC","0004-02-29 00:00:00+00"}'),
	('59 23 31 12 *', 'UTC', '294275-12-31 23:59', '{294276-12-31 23:59:00+00,infinity}'),
	('1440 minutes', 'UTC', '294276-12-31 00:00', '{infinity}'),
	('0 0 $ 1 *', 'Europe/Berlin', '9999-12-31 12:00', '{10000-01-31 00:00:00+01}'),
-- an offset with seconds
	('30 0 * * *', 'Africa/Monrovia', '1972-01-06 00:00', '{1972-01-06 00:30:00-00:44:30,1972-01-07 00:44:30+00,1972-01-08 00:30:00+00}'),
-- intervals: elapsed time, from whole seconds
	('1 second', 'UTC', '2026-07-01 00:00:00', '{2026-07-01 00:00:01+00,2026-07-01 00:00:02+00}'),
	('10 seconds', 'UTC', '2026-07-01 00:00:00.9', '{2026-07-01 00:00:10+00,2026-07-01 00:00:20+00}'),
	('10 seconds', 'UTC', '1999-12-31 23:59:55.5', '{2000-01-01 00:00:05+00}'),
	('86400 seconds', 'UTC', '2026-02-28 12:34:56', '{2026-03-01 12:34:56+00}'),
	('7 minutes', 'UTC', '2026-07-01 23:58:30', '{2026-07-02 00:05:30+00}'),
	('90 minutes', 'America/New_York', '2026-03-08 01:00', '{2026-03-08 03:30:00-04,2026-03-08 05:00:00-04}'),
	('30 minutes', 'America/New_York', '2026-11-01 00:45:00-04', '{2026-11-01 01:15:00-04,2026-11-01 01:45:00-04,2026-11-01 01:15:00-05}');
SELECT * FROM unexpected;
TRUNCATE expected;

--
-- clocks that are set forward
--
INSERT INTO expected (schedule, zone, after, runs) VALUES
-- 02:00 is 03:00 on 2026-03-08
	('30 2 * * *', 'America/New_York', '2026-03-07 00:00', '{2026-03-07 02:30:00-05,2026-03-08 03:00:00-04,2026-03-09 02:30:00-04}'),
	('30 2 * * *', 'America/New_York', '2026-03-08 01:59:59', '{2026-03-08 03:00:00-04}'),
	('30 2 * * *', 'America/New_York', '2026-03-08 03:00:00', '{2026-03-09 02:30:00-04}'),
	('0 2 * * *', 'America/New_York', '2026-03-08 00:00', '{2026-03-08 03:00:00-04,2026-03-09 02:00:00-04}'),
	('*/10 2 * * *', 'America/New_York', '2026-03-08 00:00', '{2026-03-08 03:00:00-04,2026-03-09 02:00:00-04,2026-03-09 02:10:00-04}'),
	('0,30 2-3 * * *', 'America/New_York', '2026-03-08 00:00', '{2026-03-08 03:00:00-04,2026-03-08 03:30:00-04,2026-03-09 02:00:00-04}'),
	('0 * * * *', 'America/New_York', '2026-03-08 00:30', '{2026-03-08 01:00:00-05,2026-03-08 03:00:00-04,2026-03-08 04:00:00-04}'),
	('30 * * * *', 'America/New_York', '2026-03-08 01:00', '{2026-03-08 01:30:00-05,2026-03-08 03:00:00-04,2026-03-08 03:30:00-04}'),
	('*/20 * * * *', 'America/New_York', '2026-03-08 01:20', '{2026-03-08 01:40:00-05,2026-03-08 03:00:00-04,2026-03-08 03:20:00-04}'),
	('30 2 8 3 *', 'America/New_York', '2026-01-01 00:00', '{2026-03-08 03:00:00-04,2027-03-08 02:30:00-05}'),
	('30 2 * * 1', 'America/New_York', '2026-03-07 00:00', '{2026-03-09 02:30:00-04}'),
	('59 1 * * *', 'America/New_York', '2026-03-07 12:00', '{2026-03-08 01:59:00-05,2026-03-09 01:59:00-04}'),
	('30 2 * * *', 'Europe/Berlin', '2026-03-28 12:00', '{2026-03-29 03:00:00+02,2026-03-30 02:30:00+02}'),
	('30 1 * * *', 'Europe/London', '2026-03-28 12:00', '{2026-03-29 02:00:00+01,2026-03-30 01:30:00+01}'),
-- standard time is summer time in Dublin, and winter has the exception
	('30 1 * * *', 'Europe/Dublin', '2026-03-28 12:00', '{2026-03-29 02:00:00+01,2026-03-30 01:30:00+01}'),
-- half an hour: 02:00 is 02:30
	('15 2 * * *', 'Australia/Lord_Howe', '2026-10-03 12:00', '{2026-10-04 02:30:00+11,2026-10-05 02:15:00+11}'),
	('30 2 * * *', 'Australia/Lord_Howe', '2026-10-03 12:00', '{2026-10-04 02:30:00+11,2026-10-05 02:30:00+11}'),
	('45 2 * * *', 'Australia/Lord_Howe', '2026-10-03 12:00', '{2026-10-04 02:45:00+11,2026-10-05 02:45:00+11}'),
-- two hours: 01:00 is 03:00
	('30 1,2 * * *', 'Antarctica/Troll', '2026-03-29 00:00', '{2026-03-29 03:00:00+02,2026-03-30 01:30:00+02,2026-03-30 02:30:00+02}'),
-- a quarter of an hour, once: 1986 began at 00:15
	('5 0 1 1 *', 'Asia/Kathmandu', '1985-06-01 00:00', '{1986-01-01 00:15:00+05:45,1987-01-01 00:05:00+05:45}'),
-- midnight is 01:00
	('0 0 * * *', 'America/Sao_Paulo', '2018-11-03 12:00', '{2018-11-04 01:00:00-02,2018-11-05 00:00:00-02}'),
	('30 0 * * 0', 'America/Sao_Paulo', '2018-11-03 12:00', '{2018-11-04 01:00:00-02,2018-11-11 00:30:00-02}'),
	('30 23 * * *', 'America/Sao_Paulo', '2018-11-03 12:00', '{2018-11-03 23:30:00-03,2018-11-04 23:30:00-02}'),
	('@daily', 'Asia/Beirut', '2024-03-30 12:00', '{2024-03-31 01:00:00+03,2024-04-01 00:00:00+03}'),
	('0 0 $ 3 *', 'Asia/Beirut', '2024-03-30 12:00', '{2024-03-31 01:00:00+03,2025-03-31 00:00:00+03}'),
-- Ramadan: back to +01 at its end
	('30 2 * * *', 'Africa/Casablanca', '2024-04-13 12:00', '{2024-04-14 03:00:00+01,2024-04-15 02:30:00+01}'),
-- a whole day: 2011-12-30 was left out
	('0 12 * * *', 'Pacific/Apia', '2011-12-29 00:00', '{2011-12-29 12:00:00-10,2011-12-31 00:00:00+14,2011-12-31 12:00:00+14}'),
	('0 0 * * *', 'Pacific/Apia', '2011-12-29 00:00', '{2011-12-31 00:00:00+14,2012-01-01 00:00:00+14}'),
	('0 0 30 12 *', 'Pacific/Apia', '2011-01-01 00:00', '{2011-12-31 00:00:00+14,2012-12-30 00:00:00+14}'),
	('0 6 * * fri', 'Pacific/Apia', '2011-12-28 00:00', '{2011-12-31 00:00:00+14,2012-01-06 06:00:00+14}'),
	('*/5 * * * *', 'Pacific/Apia', '2011-12-29 23:50', '{2011-12-29 23:55:00-10,2011-12-31 00:00:00+14,2011-12-31 00:05:00+14}'),
	('0 0 * * *', 'Pacific/Kwajalein', '1993-08-20 00:00', '{1993-08-22 00:00:00+12,1993-08-23 00:00:00+12}');
SELECT * FROM unexpected;
TRUNCATE expected;

--
-- clocks that are set back
--
INSERT INTO expected (schedule, zone, after, runs) VALUES
-- 02:00 is 01:00 on 2026-11-01
	('30 1 * * *', 'America/New_York', '2026-10-31 12:00', '{2026-11-01 01:30:00-04,2026-11-02 01:30:00-05}'),
	('30 1 * * *', 'America/New_York', '2026-11-01 01:00:00-05', '{2026-11-02 01:30:00-05}'),
	('0 1 * * *', 'America/New_York', '2026-11-01 00:59:59-04', '{2026-11-01 01:00:00-04,2026-11-02 01:00:00-05}'),
	('0 2 * * *', 'America/New_York', '2026-10-31 12:00', '{2026-11-01 02:00:00-05,2026-11-02 02:00:00-05}'),
	('0 1-3 * * *', 'America/New_York', '2026-11-01 00:00:00-04', '{2026-11-01 01:00:00-04,2026-11-01 02:00:00-05,2026-11-01 03:00:00-05}'),
	('*/30 0-5 * * *', 'America/New_York', '2026-11-01 00:30:00-04', '{2026-11-01 01:00:00-04,2026-11-01 01:30:00-04,2026-11-01 02:00:00-05}'),
	('30 1 1 11 *', 'America/New_York', '2026-06-01 00:00', '{2026-11-01 01:30:00-04,2027-11-01 01:30:00-04}'),
-- in every hour: goes on
	('0 * * * *', 'America/New_York', '2026-11-01 00:30:00-04', '{2026-11-01 01:00:00-04,2026-11-01 01:00:00-05,2026-11-01 02:00:00-05}'),
	('*/30 * * * *', 'America/New_York', '2026-11-01 00:30:00-04', '{2026-11-01 01:00:00-04,2026-11-01 01:30:00-04,2026-11-01 01:00:00-05,2026-11-01 01:30:00-05,2026-11-01 02:00:00-05}'),
	('30 0-23 * * *', 'America/New_York', '2026-11-01 01:00:00-04', '{2026-11-01 01:30:00-04,2026-11-01 01:30:00-05}'),
	('30 2 * * *', 'Europe/Berlin', '2026-10-24 12:00', '{2026-10-25 02:30:00+02,2026-10-26 02:30:00+01}'),
	('15 */2 * * *', 'Europe/Berlin', '2026-10-25 00:00', '{2026-10-25 00:15:00+02,2026-10-25 02:15:00+02,2026-10-25 04:15:00+01}'),
	('30 1 * * *', 'Europe/Dublin', '2026-10-24 12:00', '{2026-10-25 01:30:00+01,2026-10-26 01:30:00+00}'),
-- half an hour: 02:00 is 01:30
	('45 1 * * *', 'Australia/Lord_Howe', '2026-04-04 12:00', '{2026-04-05 01:45:00+11,2026-04-06 01:45:00+10:30}'),
	('15 1 * * *', 'Australia/Lord_Howe', '2026-04-04 12:00', '{2026-04-05 01:15:00+11,2026-04-06 01:15:00+10:30}'),
	('*/15 * * * *', 'Australia/Lord_Howe', '2026-04-05 01:30:00+11', '{2026-04-05 01:45:00+11,2026-04-05 01:30:00+10:30,2026-04-05 01:45:00+10:30,2026-04-05 02:00:00+10:30}'),
-- midnight is 23:00 of the day before
	('30 23 * * *', 'America/Sao_Paulo', '2019-02-16 12:00', '{2019-02-16 23:30:00-02,2019-02-17 23:30:00-03}'),
	('0 0 * * *', 'America/Sao_Paulo', '2019-02-16 12:00', '{2019-02-17 00:00:00-03,2019-02-18 00:00:00-03}'),
	('30 23 * * *', 'Asia/Beirut', '2024-10-26 12:00', '{2024-10-26 23:30:00+03,2024-10-27 23:30:00+02}'),
	('0 0 * * *', 'Asia/Beirut', '2024-10-26 12:00', '{2024-10-27 00:00:00+02,2024-10-28 00:00:00+02}'),
-- Ramadan: to +00 at its beginning
	('30 2 * * *', 'Africa/Casablanca', '2024-03-09 12:00', '{2024-03-10 02:30:00+01,2024-03-11 02:30:00+00}'),
-- the repeated day of Alaska
	('0 12 * * *', 'America/Juneau', '1867-10-17 20:00:00+00', '{1867-10-18 12:00:00+15:02:19,1867-10-19 12:00:00+15:02:19,1867-10-20 12:00:00-08:57:41}');
SELECT * FROM unexpected;
TRUNCATE expected;

--
-- every change of some clocks in some years, against all minutes of three days
--
CREATE TEMPORARY TABLE changes AS
	SELECT zone, day FROM unnest(ARRAY['America/New_York', 'Europe/Berlin', 'Australia/Lord_Howe', 'Pacific/Apia',
		'Africa/Casablanca', 'Africa/Cairo', 'America/Sao_Paulo', 'Asia/Beirut', 'America/Havana', 'Asia/Tehran',
		'Pacific/Chatham', 'America/Caracas', 'Asia/Pyongyang', 'Antarctica/Troll']) AS zone,
	LATERAL (SELECT day, (day AT TIME ZONE zone) - (day AT TIME ZONE 'UTC') AS clock,
		lead(day AT TIME ZONE zone - (day AT TIME ZONE 'UTC')) OVER (ORDER BY day) AS next_clock
		FROM unnest(ARRAY['2011-06-01', '2018-03-01', '2014-05-01']::timestamptz[]) AS start,
			generate_series(start, start + interval '1 year', '1 day') AS day) AS days
	WHERE clock <> next_clock AND abs(extract(epoch FROM next_clock - clock)) < 2 * 86400;
SELECT count(*) > 50 AS enough FROM changes;

CREATE TEMPORARY TABLE minutes AS
	SELECT zone, day, m, m AT TIME ZONE zone AS wall
	FROM changes, generate_series(day - interval '1 day', day + interval '2 days', '1 minute') AS m;
CREATE INDEX ON minutes (zone, day, wall);
ANALYZE changes, minutes;

CREATE FUNCTION pg_temp.disagreements(schedule text, wanted_minutes integer[], wanted_hours integer[])
	RETURNS TABLE (zone text, day timestamptz, runs timestamptz[], by_minutes timestamptz[])
	LANGUAGE sql AS $$
	WITH RECURSIVE walls AS (
		SELECT c.zone, c.day, wall
		FROM changes AS c, generate_series((c.day - interval '1 day') AT TIME ZONE c.zone,
			(c.day + interval '2 days') AT TIME ZONE c.zone, '1 minute') AS wall
		WHERE extract(minute FROM wall) = ANY (wanted_minutes) AND extract(hour FROM wall) = ANY (wanted_hours)),
	brute AS (
		SELECT DISTINCT w.zone, w.day, coalesce(
			CASE WHEN cardinality(wanted_hours) = 24 THEN m ELSE min(m) OVER (PARTITION BY w.zone, w.day, w.wall) END,
			(SELECT l.m FROM minutes AS l WHERE l.zone = w.zone AND l.day = w.day AND l.wall > w.wall ORDER BY l.wall, l.m LIMIT 1)) AS run
		FROM walls AS w LEFT JOIN minutes USING (zone, day, wall)),
	chain AS (
		SELECT c.zone, c.day, pg_temp.cron_next(schedule, c.zone, c.day - interval '1 day' - interval '1 second') AS run FROM changes AS c
		UNION ALL
		SELECT c.zone, c.day, pg_temp.cron_next(schedule, c.zone, c.run) FROM chain AS c
		WHERE c.run < c.day + interval '2 days')
	SELECT * FROM (
		SELECT zone, day, array_agg(run ORDER BY run) AS r FROM chain WHERE run <= day + interval '2 days' GROUP BY 1, 2) AS a
	FULL JOIN (SELECT zone, day, array_agg(run ORDER BY run) AS b FROM brute GROUP BY 1, 2) AS b USING (zone, day)
	WHERE r IS DISTINCT FROM b
$$;
SELECT * FROM pg_temp.disagreements('10 0-3,23 * * *', '{10}', '{0,1,2,3,23}');
SELECT * FROM pg_temp.disagreements('*/15 * * * *', '{0,15,30,45}', (SELECT array_agg(h) FROM generate_series(0, 23) AS h));
SELECT * FROM pg_temp.disagreements('0,45 */2 * * *', '{0,45}', '{0,2,4,6,8,10,12,14,16,18,20,22}');
SELECT * FROM pg_temp.disagreements('30 1,12 * * *', '{30}', '{1,12}');

--
-- H: a spread that never changes
--
SELECT key, schedule, pg_temp.runs(schedule, 'UTC', '2026-01-01 00:00', 2, key)
FROM (VALUES ('', 'H H * * *'), ('tenant_1', 'H H * * *'), ('tenant_2', 'H H * * *'), ('tenant_1', 'H */4 * * *'),
	('tenant_2', 'H */4 * * *'), ('tenant_1', 'H H/6 * * *'), ('tenant_2', 'H(0-9) H(9-17) H H *'),
	('tenant_1', 'H H * * H(mon-fri)'), ('tenant_1', 'H/20 H * * *')) AS v (key, schedule);

CREATE TEMPORARY TABLE spread AS
	SELECT key, schedule, run FROM generate_series(1, 1000) AS n, LATERAL (SELECT 'tenant_' || n AS key) AS k,
		unnest(ARRAY['H * * * *', 'H */4 * * *', 'H H * * *', 'H(10-19) H(9-17) * * *', '0 H/6 * * *', '0 0 H * *', '0 0 1 H *', '0 0 * * H', 'H/15 0 * * *']) AS schedule,
		LATERAL (SELECT pg_temp.cron_next(schedule, 'UTC', '2025-12-31 23:59:59+00', key) AT TIME ZONE 'UTC' AS run) AS r;
-- a thousand tenants: no value is left out, and at none there is a crowd
SELECT schedule, what, count(*) AS values, min(value), max(value), min(crowd) > 0.4 * 1000 / count(*) AS none_is_empty, max(crowd) < 1.8 * 1000 / count(*) AS none_is_crowded
FROM (SELECT schedule, what, value, count(*) AS crowd
	FROM spread, LATERAL (VALUES ('minute', extract(minute FROM run)), ('hour', extract(hour FROM run)), ('day', extract(day FROM run)),
		('month', extract(month FROM run)), ('weekday', extract(dow FROM run))) AS v (what, value)
	WHERE (schedule, what) IN (('H * * * *', 'minute'), ('H */4 * * *', 'minute'), ('H H * * *', 'minute'), ('H H * * *', 'hour'),
		('H(10-19) H(9-17) * * *', 'minute'), ('H(10-19) H(9-17) * * *', 'hour'), ('0 H/6 * * *', 'hour'), ('0 0 H * *', 'day'),
		('0 0 1 H *', 'month'), ('0 0 * * H', 'weekday'), ('H/15 0 * * *', 'minute'))
	GROUP BY 1, 2, 3) AS c
GROUP BY 1, 2 ORDER BY 1, 2;
-- those of one minute do not share their hour
SELECT min(hours) > 5 AS apart FROM (SELECT count(DISTINCT extract(hour FROM run)) AS hours
	FROM spread WHERE schedule = 'H H * * *' GROUP BY extract(minute FROM run)) AS m;
-- H/n: every n, from an offset on
SELECT pg_temp.runs('0 H/6 * * *', 'UTC', '2026-01-01 00:00', 5, 'tenant_3'),
	pg_temp.runs('0 0 H/10 * *', 'UTC', '2026-01-01 00:00', 4, 'tenant_3');
