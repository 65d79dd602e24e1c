-- Tenants and subscriptions: bad input, switches, and what publication makes of
-- the ledger. No tenant is reached.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = warning;
SET datestyle = 'ISO, YMD';
SET ROLE whadmin;

--
-- tenant_connections: refused at INSERT
--
CREATE FUNCTION pg_temp.try_options(options jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, options)
	VALUES ('t', 'h', 'd', 'u', options)
$$;
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES ('', 'h', 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES (repeat('x', 64), 'h', 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES (E'a\nb', 'h', 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES (NULL, 'h', 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, password) VALUES ('t', NULL, 'd', 'u', 'secret');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, sslmode, password) VALUES ('t', 'h', 'd', 'u', NULL, 'secret');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES ('t', '', 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES ('t', 'h', '', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username) VALUES ('t', 'h', 'd', '');
INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username) VALUES ('t', 'h', 0, 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username) VALUES ('t', 'h', 65536, 'd', 'u');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, sslmode) VALUES ('t', 'h', 'd', 'u', 'on');
INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, max_connections) VALUES ('t', 'h', 'd', 'u', 0);
SELECT pg_temp.try_options('[]');
SELECT pg_temp.try_options('{"host": "elsewhere"}');
SELECT pg_temp.try_options('{"keepalives_idle": [30]}');
SELECT pg_temp.try_options('{"keepalives_idle": {"host": 1}}');
SELECT pg_temp.try_options('{"keepalives_idle": null}');
SELECT count(*) FROM _wh.tenant_connections;

--
-- accepted; renaming is not, and a change is dated
--
INSERT INTO _wh.tenant_connections (tenant_name, host, port, dbname, username, password, options, created_at, updated_at)
VALUES ('Tenant-A', 'h', 6543, 'd', 'u', 'it''s a \ secret', '{"keepalives_idle": 30, "keepalives": true}', '2020-01-01', '2020-01-01'),
       ('tenant "b"', 'h', 5432, 'd', 'u', NULL, '{}', '2020-01-01', '2020-01-01'),
       (repeat('é', 31), 'h', 5432, 'd', 'u', NULL, '{}', '2020-01-01', '2020-01-01');
UPDATE _wh.tenant_connections SET tenant_name = 'x' WHERE tenant_name = 'Tenant-A';
UPDATE _wh.tenant_connections SET host = 'h2', password = password WHERE tenant_name = 'Tenant-A';
SELECT password FROM _wh.tenant_connections WHERE tenant_name = 'Tenant-A';
UPDATE _wh.tenant_connections SET password = 'it''s a \ secret' WHERE tenant_name = 'Tenant-A';
SELECT tenant_name, updated_at = created_at AS unchanged FROM _wh.tenant_connections ORDER BY tenant_name COLLATE "C";
SELECT _wh.get_tenant_connection_string('Tenant-A');
SELECT _wh.get_tenant_connection_string('tenant "b"');
SELECT _wh.get_tenant_connection_string('nobody');
SELECT _wh.get_tenant_connection_string(NULL);

--
-- subscriptions
--
INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions)
VALUES ('sales', $$SELECT id, store FROM sales WHERE day = '{TARGET_DATE}'$$, 'id integer, store text');
SELECT _wh.subscribe('nobody', 'sales');
SELECT _wh.subscribe('Tenant-A', 'nothing');
SELECT _wh.subscribe(NULL, 'sales');
SELECT _wh.subscribe('Tenant-A', 'sales', '_wh');
SELECT _wh.subscribe('Tenant-A', 'sales', 'public');
SELECT _wh.subscribe('Tenant-A', 'sales', 'pg_mine');
SELECT _wh.subscribe('Tenant-A', 'sales', 'information_schema');
SELECT _wh.subscribe('Tenant-A', 'sales', '');
SELECT _wh.subscribe('Tenant-A', 'sales', repeat('x', 64));
SELECT _wh.subscribe('Tenant-A', 'sales', NULL, 'infinity');
RESET ROLE;
CREATE SCHEMA not_ours;
SET ROLE whadmin;
SELECT _wh.subscribe('Tenant-A', 'sales', 'not_ours');
INSERT INTO _wh.tenant_templates (tenant_name, template_name, target_schema) VALUES ('Tenant-A', 'sales', 'pg_catalog');
-- nothing was half-made
SELECT count(*) FROM _wh.tenant_templates;
SELECT nspname FROM pg_namespace WHERE nspowner = 'whadmin'::regrole AND nspname <> '_wh';

-- from today on, unless said otherwise; twice changes nothing
SELECT _wh.subscribe('Tenant-A', 'sales');
SELECT _wh.subscribe('Tenant-A', 'sales');
SELECT tenant_name, target_schema, start_date = (now() AT TIME ZONE 'UTC')::date AS today, active FROM _wh.tenant_templates;
SELECT _wh.subscribe('Tenant-A', 'sales', NULL, '2025-01-01');
SELECT tenant_name, target_schema, start_date, active FROM _wh.tenant_templates;
SELECT has_schema_privilege('phood_ro', 'Tenant-A', 'usage'), has_schema_privilege('phood_ro', 'Tenant-A', 'create');
-- two tenants cannot feed one schema and template
SELECT _wh.subscribe('tenant "b"', 'sales', 'Tenant-A');
SELECT _wh.unsubscribe('tenant "b"', 'sales');
SELECT _wh.unsubscribe('Tenant-A', 'sales');
SELECT active FROM _wh.tenant_templates;
SELECT _wh.subscribe('Tenant-A', 'sales');
SELECT start_date, active FROM _wh.tenant_templates;

--
-- add_tenant: all or nothing
--
SELECT _wh.add_tenant('tenant "b"', 'h', 5432, 'd', 'u', 'p');
SELECT _wh.add_tenant('c', 'h', 5432, 'd', 'u', 'p', '{sales,nothing}');
SELECT _wh.add_tenant('c', 'h', 99999, 'd', 'u', 'p', '{sales}');
SELECT _wh.add_tenant('pg_c', 'h', 5432, 'd', 'u', 'p', '{sales}');
SELECT _wh.add_tenant('c', 'h', 5432, 'd', 'u', 'p', ARRAY[NULL]);
SELECT count(*) FROM _wh.tenant_connections WHERE tenant_name IN ('c', 'pg_c');
SELECT _wh.add_tenant('c', 'h', 5432, 'd', 'u', 'p', '{sales}', '2025-01-02');
SELECT tenant_name, target_schema, start_date, active FROM _wh.tenant_templates ORDER BY tenant_name COLLATE "C";

--
-- switches
--
SELECT _wh.pause();
SELECT paused, paused_at IS NOT NULL, paused_by IS NOT NULL FROM _wh.warehouse;
SELECT * FROM _wh.check_tenant('c');
SELECT _wh.resume();
SELECT paused, paused_at IS NOT NULL, paused_by IS NOT NULL FROM _wh.warehouse;
SELECT _wh.pause_tenant('c');
SELECT active FROM _wh.tenant_connections WHERE tenant_name = 'c';
SELECT _wh.resume_tenant('c');
SELECT active FROM _wh.tenant_connections WHERE tenant_name = 'c';
SELECT _wh.pause_tenant('nobody');
SELECT _wh.pause_backfill(123456789);
SELECT _wh.resume_backfill(NULL);
SELECT * FROM _wh.check_tenant('nobody');
SELECT * FROM _wh.check_template('nothing', 'c');
SELECT * FROM _wh.check_template('sales', 'nobody');
-- trouble at a tenant is a row
UPDATE _wh.tenant_connections SET host = '/nonexistent', password = 'secret' WHERE tenant_name = 'c';
SELECT check_name, ok, detail <> '' FROM _wh.check_tenant('c');
SELECT check_name, ok, detail <> '' FROM _wh.check_template('sales', 'c');

--
-- publication, from a ledger made by hand
--
CREATE FUNCTION pg_temp.load(schema text, day date, tenant text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	name text := _wh.create_mv_name('sales', day);
BEGIN
	EXECUTE format('CREATE MATERIALIZED VIEW %I.%I AS SELECT 1 AS id, %L::text AS store', schema, name, day);
	INSERT INTO _wh.day_loads (template_name, target_schema, target_date, tenant_name, relation, relation_oid, state, rows, bytes, loaded_at)
	VALUES ('sales', schema, day, tenant, name, format('%I.%I', schema, name)::regclass, 'loaded', 1, 8192, '2025-02-01');
END
$$;
SELECT pg_temp.load('Tenant-A', '2025-01-01', 'Tenant-A'), pg_temp.load('Tenant-A', '2025-01-02', 'Tenant-A'), pg_temp.load('c', '2025-01-01', 'c');

-- a view that is not ours stays
CREATE VIEW public.sales AS SELECT 1 AS mine;
SELECT _wh.update_public_view_by_template('sales');
SELECT * FROM public.sales;
DROP VIEW public.sales;

SELECT _wh.update_tenant_union_view_by_template('sales', 'Tenant-A', 'Tenant-A');
SELECT _wh.update_tenant_union_view_by_template('sales', 'c', 'c');
SELECT _wh.update_public_view_by_template('sales');
SELECT attrelid::regclass, attname, atttypid::regtype FROM pg_attribute
WHERE attrelid IN ('"Tenant-A".sales'::regclass, 'public.sales'::regclass) ORDER BY attrelid, attnum;
SELECT obj_description('"Tenant-A".sales'::regclass), obj_description('public.sales'::regclass);
SELECT target_schema, target_date, state FROM _wh.day_loads ORDER BY target_schema COLLATE "C", target_date;
-- what has not changed is left alone
SELECT string_agg(xmin::text, ' ' ORDER BY ev_class) AS rules FROM pg_rewrite
WHERE ev_class IN ('"Tenant-A".sales'::regclass, 'public.sales'::regclass) \gset
SELECT _wh.update_tenant_union_view_by_template('sales', 'Tenant-A', 'Tenant-A'),
	_wh.update_public_view_by_template('sales');
SELECT string_agg(xmin::text, ' ' ORDER BY ev_class) = :'rules' AS left_alone FROM pg_rewrite
WHERE ev_class IN ('"Tenant-A".sales'::regclass, 'public.sales'::regclass);
-- the reader reads what is published
SET ROLE phood_ro;
SELECT * FROM public.sales ORDER BY schema_name COLLATE "C", store;
RESET ROLE;
SET ROLE whadmin;

--
-- drop_day
--
SELECT _wh.drop_day('sales', 'Tenant-A', '2025-01-09');
SELECT _wh.drop_day('sales', 'tenant "b"', '2025-01-01');
SELECT _wh.drop_day('sales', 'c', '2025-01-01', 'Tenant-A');
SELECT _wh.drop_day('sales', 'Tenant-A', NULL);
CREATE VIEW public.on_a_day AS SELECT id FROM "Tenant-A".sales_2025_01_01;
SELECT _wh.drop_day('sales', 'Tenant-A', '2025-01-01');
SELECT count(*) FROM "Tenant-A".sales;
DROP VIEW public.on_a_day;
SELECT _wh.drop_day('sales', 'Tenant-A', '2025-01-01');
SELECT store FROM "Tenant-A".sales;
SELECT _wh.does_mv_exist('Tenant-A', 'sales_2025_01_01');
SELECT days, days_since_start, rows, bytes, data_through, last_success = '2025-02-01' AS last_success
FROM _wh.tenant_templates WHERE tenant_name = 'Tenant-A';

--
-- remove_tenant
--
SELECT _wh.remove_tenant('nobody');
INSERT INTO _wh.jobs (kind, template_name, tenant_name, target_schema, target_date, priority, not_before)
VALUES ('refresh', 'sales', 'Tenant-A', 'Tenant-A', '2025-01-05', 40, 'infinity');
SELECT _wh.remove_tenant('Tenant-A');
SELECT state, last_error FROM _wh.jobs WHERE tenant_name = 'Tenant-A';
SELECT active FROM _wh.tenant_templates WHERE tenant_name = 'Tenant-A';
SELECT * FROM public.sales ORDER BY schema_name COLLATE "C", store;
-- the data of a tenant that is gone can still be dropped
CREATE VIEW public.on_a_view AS SELECT id FROM "Tenant-A".sales;
SELECT _wh.remove_tenant('Tenant-A', true);
DROP VIEW public.on_a_view;
SELECT _wh.remove_tenant('Tenant-A', true);
SELECT * FROM public.sales;
SELECT to_regnamespace('"Tenant-A"') IS NULL AS gone;
SELECT count(*) FROM _wh.day_loads WHERE tenant_name = 'Tenant-A';
-- what else is in the schema keeps it
CREATE TABLE c.mine ();
SELECT _wh.remove_tenant('c', true);
SELECT relname FROM pg_class WHERE relnamespace = 'c'::regnamespace;
SELECT * FROM public.sales;

-- nothing is left for the tests that follow
SELECT _wh.remove_tenant('tenant "b"'), _wh.remove_tenant(repeat('é', 31));
DROP VIEW public.sales;
DELETE FROM _wh.jobs WHERE template_name = 'sales';
DELETE FROM _wh.mv_templates WHERE template_name = 'sales';
DROP TABLE c.mine;
DROP SCHEMA c;
RESET ROLE;
DROP SCHEMA not_ours;
SELECT count(*) FROM _wh.tenant_connections;
SELECT count(*) FROM _wh.tenant_templates;
