-- Templates: what may be written, what is counted, and the names they give.
\set VERBOSITY default
SET client_min_messages = warning;
SET datestyle = 'SQL, DMY';

-- The shortest template; every refusal below differs from it in one thing.
CREATE FUNCTION pg_temp.try_query(query text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
	VALUES ('t', query, 'id integer')
$$;
CREATE FUNCTION pg_temp.try_columns(columns text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
	VALUES ('t', $q$SELECT id FROM sales WHERE day = '{TARGET_DATE}'$q$, columns)
$$;
CREATE FUNCTION pg_temp.try_indexes(indexes text) RETURNS void LANGUAGE sql AS $$
	INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes)
	VALUES ('t', $q$SELECT id FROM sales WHERE day = '{TARGET_DATE}'$q$, 'id integer, store text', indexes)
$$;
\set SHOW_CONTEXT never

--
-- query_template: accepted
--
BEGIN;
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions) VALUES
	('plain', 'SELECT 1 AS id WHERE ''{TARGET_DATE}'' < now()', 'id integer'),
	('semicolon', 'SELECT ''{TARGET_DATE}''::date AS d; -- the end', 'd date'),
	('other_braces', 'SELECT ''{a,{TARGET_DATE}}''::text[] AS a, ''{"k": 1}''::jsonb AS j', 'a text[], j jsonb'),
	('a_name_of_theirs', 'SELECT target_date AS id FROM s WHERE target_date = ''{TARGET_DATE}''', 'id date'),
	('with', 'WITH w AS (SELECT ''{TARGET_DATE}''::date d) SELECT d FROM w UNION ALL SELECT d FROM w', 'd date'),
	('Näme "with" quotes', 'VALUES (date ''{TARGET_DATE}'')', 'd date');
SELECT template_name, version FROM _wh.mv_templates WHERE created_at = now() ORDER BY template_name COLLATE "C";
ROLLBACK;

--
-- query_template: refused
--
SELECT pg_temp.try_query('SELECT 1 AS id');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{target_date}'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{TARGETDATE}'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{ TARGET_DATE }'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{TARGET-DATE}'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{{TARGET_DATE}}'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''${TARGET_DATE}'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{TARGET_DATE'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id WHERE ''{TARGET_DATE}'' < now() AND ''{Target Date}'' < now()');
SELECT pg_temp.try_query('SELECT 1 AS id
  FROM s WHERE day = {TARGET_DATE}');
SELECT pg_temp.try_query('SELEC 1 WHERE day = ''{TARGET_DATE}''');
SELECT pg_temp.try_query('SELECT 1 WHERE day = ''{TARGET_DATE}''; DROP TABLE s');
SELECT pg_temp.try_query('SELECT 1) AS t; DROP TABLE s; SELECT (''{TARGET_DATE}''');
SELECT pg_temp.try_query('DELETE FROM s WHERE day = ''{TARGET_DATE}''');
SELECT pg_temp.try_query('SELECT 1 INTO x WHERE day = ''{TARGET_DATE}''');
SELECT pg_temp.try_query('SELECT 1 INTO x UNION SELECT 2 WHERE day = ''{TARGET_DATE}''');
SELECT pg_temp.try_query('SELECT 1 FROM s WHERE day = ''{TARGET_DATE}'' FOR UPDATE');
SELECT pg_temp.try_query('WITH w AS (DELETE FROM s WHERE day = ''{TARGET_DATE}'' RETURNING id) SELECT id FROM w');
SELECT pg_temp.try_query('-- {TARGET_DATE}');

--
-- column_definitions
--
BEGIN;
SELECT pg_temp.try_columns('id INTEGER, "Store Name" TEXT, quantity NUMERIC(10,2), tags text[], at timestamptz(3), code char -- comment');
ROLLBACK;
SELECT pg_temp.try_columns('');
SELECT pg_temp.try_columns('id');
\echo :LAST_ERROR_SQLSTATE
SELECT pg_temp.try_columns('id integer,');
SELECT pg_temp.try_columns('id integer NOT NULL');
SELECT pg_temp.try_columns('id integer PRIMARY KEY');
SELECT pg_temp.try_columns('id integer DEFAULT 1');
SELECT pg_temp.try_columns('id integer, name text COLLATE "C"');
SELECT pg_temp.try_columns('id integer, UNIQUE (id)');
SELECT pg_temp.try_columns('LIKE pg_class');
SELECT pg_temp.try_columns('id serial');
SELECT pg_temp.try_columns('id nosuchtype');
SELECT pg_temp.try_columns('id integer, b anyelement');
SELECT pg_temp.try_columns('id integer, b record');
SELECT pg_temp.try_columns('id integer, id text');
SELECT pg_temp.try_columns('id integer, b varchar(0)');
SELECT pg_temp.try_columns('id integer, b SETOF integer');
SELECT pg_temp.try_columns('id integer, ctid integer');
SELECT pg_temp.try_columns('_wh_date date');
SELECT pg_temp.try_columns('schema_name text');
SELECT pg_temp.try_columns('a' || repeat('x', 63) || ' integer');
SELECT pg_temp.try_columns('"a""' || repeat('x', 62) || '" integer');
SELECT pg_temp.try_columns('id integer) PARTITION BY LIST (id');
SELECT pg_temp.try_columns('id integer) INHERITS (pg_class');
SELECT pg_temp.try_columns('id integer); DROP TABLE s; CREATE TABLE u (id integer');
SELECT pg_temp.try_columns((SELECT string_agg('c' || i || ' int', ',') FROM generate_series(1, 1600) i));
BEGIN;
SELECT pg_temp.try_columns((SELECT string_agg('c' || i || ' int', ',') FROM generate_series(1, 1599) i));
ROLLBACK;
BEGIN;
SELECT pg_temp.try_columns(repeat('a', 63) || ' integer, "' || repeat('b', 62) || '""" integer');
ROLLBACK;

--
-- indexes
--
BEGIN;
SELECT pg_temp.try_indexes('
	CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id);
	-- for {view_name}
	CREATE INDEX IF NOT EXISTS "Idx {view_name}" ON "{schema}"."{view_name}" USING hash (lower(store)) WHERE store <> ''{a}'';');
ROLLBACK;
SELECT pg_temp.try_indexes('CREATE INDEX idx_{view_name} ON {schema}.{view_name} id');
SELECT pg_temp.try_indexes('CREATE INDEX CONCURRENTLY idx_{view_name} ON {schema}.{view_name} (id)');
SELECT pg_temp.try_indexes('CREATE INDEX idx_{view_name} ON {view_name} (id)');
SELECT pg_temp.try_indexes('CREATE INDEX idx_{view_name} ON public.sales (id)');
SELECT pg_temp.try_indexes('CREATE INDEX ON {schema}.{view_name} (id)');
SELECT pg_temp.try_indexes('CREATE INDEX idx_id ON {schema}.{view_name} (id)');
SELECT pg_temp.try_indexes('CREATE INDEX idx_{schema}_{view_name}_' || repeat('x', 40) || ' ON {schema}.{view_name} (id)');
SELECT pg_temp.try_indexes('CREATE INDEX idx_{view_name} ON {schema}.{view_name} (id) WHERE store = ''{schema}''');
SELECT pg_temp.try_indexes('CREATE INDEX idx_{view_name} ON {schema}.{view_name} (id); CREATE INDEX idx_{view_name} ON {schema}.{view_name} (store)');
SELECT pg_temp.try_indexes('DROP TABLE {schema}.{view_name}');
SELECT pg_temp.try_indexes('CREATE INDEX idx_{view_name} ON {schema}.{view_name} (id); SELECT 1');

-- The message says which template and which text.
\set SHOW_CONTEXT always
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
VALUES ('shown', 'SELECT ''{TARGET_DATE}''', 'id integer, b nosuchtype');
\set SHOW_CONTEXT never

--
-- template_name
--
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
VALUES ('', 'SELECT ''{TARGET_DATE}''', 'd text');
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
VALUES (repeat('ä', 32), 'SELECT ''{TARGET_DATE}''', 'd text');
\set VERBOSITY terse
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
VALUES ('null', NULL, 'd text');
\set VERBOSITY default

--
-- version: counts changes of query, columns and indexes; kept by a restore
--
BEGIN;
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, version, updated_at)
VALUES ('v', 'SELECT ''{TARGET_DATE}''', 'd text', 7, '2020-01-01 UTC'),
	('zero', 'SELECT ''{TARGET_DATE}''', 'd text', 0, '2020-01-01 UTC');
SELECT template_name, version, updated_at = now() AS now FROM _wh.mv_templates WHERE template_name IN ('v', 'zero') ORDER BY 1;
UPDATE _wh.mv_templates SET view_oid = 1 WHERE template_name = 'v';
SELECT version, updated_at = now() AS now FROM _wh.mv_templates WHERE template_name = 'v';
UPDATE _wh.mv_templates SET description = 'about', version = 99 WHERE template_name = 'v';
SELECT version, updated_at = now() AS now FROM _wh.mv_templates WHERE template_name = 'v';
UPDATE _wh.mv_templates SET query_template = 'SELECT ''{TARGET_DATE}'' AS d' WHERE template_name = 'v';
UPDATE _wh.mv_templates SET column_definitions = 'd date' WHERE template_name = 'v';
UPDATE _wh.mv_templates SET indexes = 'CREATE INDEX i_{view_name} ON {schema}.{view_name} (d)' WHERE template_name = 'v';
SELECT version FROM _wh.mv_templates WHERE template_name = 'v';
SAVEPOINT s;
UPDATE _wh.mv_templates SET query_template = 'SELECT 1' WHERE template_name = 'v';
ROLLBACK TO s;

--
-- While days are loaded: another shape, but no other name and no delete
--
INSERT INTO _wh.day_loads (template_name, target_schema, target_date, tenant_name, relation, relation_oid, state)
VALUES ('v', 's', '2024-01-01', 's', 'v_2024_01_01', 1, 'loaded'),
	('v', 's', '2024-01-02', 's', 'v_2024_01_02', NULL, 'failed');
UPDATE _wh.mv_templates SET column_definitions = '  "d"   DATE -- the same' WHERE template_name = 'v';
UPDATE _wh.mv_templates SET query_template = 'SELECT ''{TARGET_DATE}''::date AS d' WHERE template_name = 'v';
SELECT version FROM _wh.mv_templates WHERE template_name = 'v';
UPDATE _wh.mv_templates SET column_definitions = 'd timestamp' WHERE template_name = 'v';
UPDATE _wh.mv_templates SET column_definitions = 'd date, e int' WHERE template_name = 'v';
SELECT version FROM _wh.mv_templates WHERE template_name = 'v';
SAVEPOINT s;
UPDATE _wh.mv_templates SET template_name = 'w' WHERE template_name = 'v';
ROLLBACK TO s;
INSERT INTO _wh.day_loads (template_name, target_schema, target_date, tenant_name, relation, relation_oid, state)
VALUES ('v', 's', '2024-01-03', 's', 'v_2024_01_03', 2, 'loaded');
DELETE FROM _wh.mv_templates WHERE template_name = 'v';
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
DELETE FROM _wh.day_loads WHERE template_name = 'v';
UPDATE _wh.mv_templates SET column_definitions = 'd date, e int', template_name = 'w' WHERE template_name = 'v';
SELECT template_name, version FROM _wh.mv_templates WHERE template_name IN ('v', 'w', 'zero') ORDER BY 1;
DELETE FROM _wh.mv_templates WHERE template_name IN ('w', 'zero');
ROLLBACK;

--
-- Names of day relations
--
SELECT _wh.create_mv_name('foodlogstats', '2024-03-05');
SELECT _wh.create_mv_name('Tenant "b"', '0001-01-01');
SELECT length(_wh.create_mv_name(repeat('a', 52), '2024-03-05')) AS fits, _wh.create_mv_name(repeat('a', 52), '2024-03-05') ~ '^a{52}_2024' AS as_is;
SELECT _wh.create_mv_name(repeat('a', 53), '2024-03-05');
SELECT _wh.create_mv_name(repeat('a', 52) || 'b', '2024-03-05') <> _wh.create_mv_name(repeat('a', 53), '2024-03-05') AS differ;
SELECT octet_length(_wh.create_mv_name('x' || repeat('ä', 31), '2024-03-05')) AS bytes;
SELECT _wh.create_mv_name(NULL, '2024-03-05') IS NULL AS is_null;
SELECT _wh.create_mv_name('t', 'infinity');
\echo :LAST_ERROR_SQLSTATE
SELECT _wh.create_mv_name('t', '10000-01-01');
SELECT _wh.create_mv_name('t', '0001-01-01 BC');

--
-- Today does not depend on the session's zone
--
BEGIN;
SET LOCAL TimeZone = 'Pacific/Kiritimati';
SELECT _wh.current_date_utc() = (now() AT TIME ZONE 'UTC')::date AS utc;
SET LOCAL TimeZone = 'Pacific/Pago_Pago';
SELECT _wh.current_date_utc() = (now() AT TIME ZONE 'UTC')::date AS utc;
ROLLBACK;
