-- Values of binary COPY: the decoder makes the same bytes of a row as the types'
-- own receive functions, and the same errors, for wire formats right and wrong.
-- The function is t/decode/decode_test.c; it warns of every difference.
\getenv srcdir PG_ABS_SRCDIR
\set library :srcdir '/../t/decode/decode_test'
CREATE FUNCTION pg_temp.decode_compare(type regtype, typmod integer, seed bigint, times integer)
	RETURNS integer[] LANGUAGE c STRICT AS :'library', 'decode_compare';

CREATE TEMPORARY TABLE columns (n serial, type text, typmod integer GENERATED ALWAYS AS (
	CASE WHEN type ~ '^numeric\(' THEN (split_part(translate(type, '()', ',,'), ',', 2)::integer << 16)
			+ (split_part(translate(type, '()', ',,'), ',', 3)::integer & 2047) + 4
		WHEN type ~ '^(var)?char\(' THEN substring(type FROM '\d+')::integer + 4
		WHEN type ~ '\(' THEN substring(type FROM '\d+')::integer
		ELSE -1 END) STORED);
INSERT INTO columns (type) SELECT * FROM unnest(ARRAY[
	'boolean', 'smallint', 'integer', 'bigint', 'real', 'double precision', 'uuid', 'date',
	'time', 'time(0)', 'time(3)', 'time(6)', 'timestamp', 'timestamp(0)', 'timestamp(3)', 'timestamp(6)',
	'timestamptz', 'timestamptz(0)', 'timestamptz(6)', 'bytea', 'text', 'varchar', 'varchar(14)', 'varchar(1000)',
	'numeric', 'numeric(10,2)', 'numeric(20,0)', 'numeric(1000,2)', 'numeric(4,2)', 'numeric(3,5)',
	'numeric(12,8)', 'numeric(4,4)', 'numeric(5,-2)', 'interval', 'bpchar', 'char(14)', 'money']);
SELECT type, typmod FROM columns WHERE typmod <> -1 ORDER BY n;

-- Half of the values are always the same, the others are new in every run.
CREATE TEMPORARY TABLE results AS
SELECT c.*, seed, pg_temp.decode_compare(format_type(type::regtype, NULL)::regtype, typmod, seed, 1000) AS counts
FROM columns AS c, LATERAL (VALUES (n::bigint), (extract(epoch FROM clock_timestamp())::bigint * 100 + n)) AS s (seed);

-- All the same, some accepted, some refused; made without the function where it can be.
SELECT type, seed, counts FROM results WHERE counts[1] <> 1000 ORDER BY n;
SELECT type FROM results GROUP BY n, type HAVING sum(counts[2]) = 0 ORDER BY n;
SELECT type FROM results GROUP BY n, type HAVING sum(counts[2]) = 2000 ORDER BY n;
SELECT type FROM results GROUP BY n, type HAVING sum(counts[3]) = 0 ORDER BY n;
SELECT type FROM results GROUP BY n, type HAVING sum(counts[3]) > sum(counts[2]) ORDER BY n;
