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

-- Rows are those of heap_form_tuple(), with and without nulls, also longer than a page.
CREATE FUNCTION pg_temp.row_form_compare(relation regclass, seed bigint, times integer)
	RETURNS integer LANGUAGE c STRICT AS :'library', 'row_form_compare';
CREATE TEMPORARY TABLE mixed (a boolean, b smallint, c integer, d bigint, e real, f float8, g uuid, h date,
	i time, j timestamp, k bytea, l text, m numeric, n varchar(14), o interval, p char(14), q money,
	r boolean, s text, t char(3), u "char", v text, w boolean, x macaddr8, y boolean, z bigint);
ALTER TABLE mixed ALTER v SET STORAGE PLAIN;
CREATE TEMPORARY TABLE one_text (a text);
CREATE TEMPORARY TABLE small (a boolean, b boolean);
\set ECHO none
SELECT format('CREATE TEMPORARY TABLE wide (%s)', string_agg(format('c%s %s', n,
	(ARRAY['integer', 'numeric', 'text', 'timestamp', 'bytea', 'boolean'])[1 + n % 6]), ', '))
FROM generate_series(1, 300) AS n \gexec
\set ECHO all
SELECT relation, pg_temp.row_form_compare(relation, seed, times) - times AS wrong
FROM (VALUES ('mixed'::regclass, 2000), ('one_text', 2000), ('small', 2000), ('wide', 50)) AS r (relation, times),
	CAST(extract(epoch FROM clock_timestamp()) AS bigint) AS s (seed);

-- A row that fills the room for ordinary ones to the brim.
CREATE FUNCTION pg_temp.row_form_brim(relation regclass) RETURNS integer LANGUAGE c STRICT AS :'library', 'row_form_brim';
CREATE TEMPORARY TABLE brim (a bytea, b text);
SELECT pg_temp.row_form_brim('brim') - 100 AS wrong;
