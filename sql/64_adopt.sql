-- Taking over a warehouse that was built by pg_cron and dblink.

CREATE FUNCTION _wh.adopt(template_name text, tenant_name text, target_schema text DEFAULT NULL)
RETURNS TABLE (relation text, kind text, first_date date, last_date date, days bigint, rows bigint, status text, detail text)
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_adopt';
COMMENT ON FUNCTION _wh.adopt(text, text, text) IS
'Takes over what was built by dblink for a tenant and template, in the schema given or that of its only subscription, else named after the tenant: materialized views {template}_{YYYY_MM_DD}, tables {template}_{YYYY} and {template}_{YYYY_MM}, the tenant view and the public view, under their names and without loading them again. They get into the ledger with their rows counted, materialized views are defined as _wh.fetch_day() from then on, and the tenant is subscribed with its schedules. Returns a row for each relation, view and job of pg_cron: its days that have rows, its rows, status adopted, ours (it was already) or left, and why. All or nothing for what the old views read. A superuser may call it for what belongs to other roles, which it gives to the admin role. Errors: 55000 something that the old views read cannot be taken over, or layout partitions; 42704 unknown template or tenant, or nothing to take over; 3F000 no such schema; 23505 another tenant feeds that schema and template; 53200 the lock table is too small';

CREATE FUNCTION _wh.plan_adopt(template_name text, tenant_name text, target_schema text DEFAULT NULL)
RETURNS TABLE (relation text, kind text, first_date date, last_date date, days bigint, rows bigint, status text, detail text)
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_plan_adopt';
COMMENT ON FUNCTION _wh.plan_adopt(text, text, text) IS
'What adopt() with the same arguments would do, by reading every relation as it would, and changes nothing: status adopt, ours (it is already), leave, or obstacle, which makes adopt() fail. Errors: as of adopt(), but 42704 for nothing to take over and 55000 for obstacles';
