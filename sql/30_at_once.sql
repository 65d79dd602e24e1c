-- The functions that run at once, in the caller's transaction, and fetch_day,
-- which the materialized views of days are defined with.

CREATE FUNCTION _wh.fetch_day(template_name text, tenant_name text, target_date date)
RETURNS SETOF record LANGUAGE c VOLATILE STRICT COST 1000000 ROWS 1000 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_fetch_day';
COMMENT ON FUNCTION _wh.fetch_day(text, text, date) IS
'The rows of one template, tenant and UTC date as the tenant sends them now; the column definition list must be that of the template. Errors: 42704 unknown template or tenant, 42804 other columns, 55000 while the warehouse is paused, and what the tenant says';

CREATE FUNCTION _wh.create_mv_from_template(template_name text, tenant_connection_name text, target_schema text, target_date date)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_create_mv_from_template';
COMMENT ON FUNCTION _wh.create_mv_from_template(text, text, text, date) IS
'Loads one day (UTC) and publishes it; a day that is there already is left as it is, with a NOTICE. Returns false, after a WARNING, if there was trouble at the tenant; a day without rows is loaded as well. Errors: 42704 unknown template or tenant, 22023 bad schema or date, 42P07 a relation of somebody else has the name, 55000 while the warehouse is paused';

CREATE FUNCTION _wh.update_mv_by_template(template_name text, tenant_connection_name text, target_schema text, target_date date,
	allow_refresh_yesterday boolean DEFAULT true)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_mv_by_template';
COMMENT ON FUNCTION _wh.update_mv_by_template(text, text, text, date, boolean) IS
'Loads one day (UTC), new or again, and publishes it. When the day is today and yesterday is in the ledger and its last load began before it ended, yesterday is loaded again too, unless allow_refresh_yesterday is false. Returns, for target_date, false after a WARNING if there was trouble at the tenant; the old content stays. Errors: as create_mv_from_template';

CREATE FUNCTION _wh.update_mv_by_template(template_name text, tenant_connection_name text, target_date date)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_mv_by_template_short';
COMMENT ON FUNCTION _wh.update_mv_by_template(text, text, date) IS
'The same, into the schema of the tenant''s only subscription to the template, else into the schema named after the tenant';

CREATE FUNCTION _wh.update_mv_window_by_template(template_name text, tenant_connection_name text, target_schema text, start_date date, end_date date)
RETURNS jsonb LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_mv_window_by_template';
COMMENT ON FUNCTION _wh.update_mv_window_by_template(text, text, text, date, date) IS
'Loads every day of the window (both ends included, UTC) and publishes them at the end. Returns an object with a status for every day: {"YYYY-MM-DD": {"status": "loaded", "rows": 1}}, {"status": "suspect", "rows": 1, "reason": text}, {"status": "unchanged"} or {"status": "failed", "error": text, "sqlstate": text}. Errors: as create_mv_from_template, and 22023 for a window that ends before it starts';

CREATE FUNCTION _wh.update_mv_window_by_template(template_name text, tenant_connection_name text, start_date date, end_date date)
RETURNS jsonb LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_mv_window_by_template_short';
COMMENT ON FUNCTION _wh.update_mv_window_by_template(text, text, date, date) IS
'The same, into the schema of the tenant''s only subscription to the template, else into the schema named after the tenant';

CREATE FUNCTION _wh.update_tenant_union_view_by_template(template_name text, tenant_connection_name text, target_schema text)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_tenant_union_view_by_template';
COMMENT ON FUNCTION _wh.update_tenant_union_view_by_template(text, text, text) IS
'Makes {schema}.{template} the union of all loaded days; loads do so themselves. Returns true. Errors: 42704 unknown template or tenant, 42P07 a relation of somebody else has the name';

CREATE FUNCTION _wh.update_tenant_union_view_by_template(template_name text, tenant_connection_name text)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_tenant_union_view_by_template_short';
COMMENT ON FUNCTION _wh.update_tenant_union_view_by_template(text, text) IS
'The same, in the schema of the tenant''s only subscription to the template, else in the schema named after the tenant';

CREATE FUNCTION _wh.update_public_view_by_template(template_name text)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_update_public_view_by_template';
COMMENT ON FUNCTION _wh.update_public_view_by_template(text) IS
'Makes public.{template} the union of all tenant views of the template, with schema_name; loads do so themselves. Returns true. Errors: 42704 unknown template, 42P07 a relation of somebody else has the name';

CREATE FUNCTION _wh.does_mv_exist(target_schema text, view_name text)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_does_mv_exist';
COMMENT ON FUNCTION _wh.does_mv_exist(text, text) IS
'Whether the schema has a materialized view of that name; false also if there is no such schema';

CREATE FUNCTION _wh.refresh_mv(target_schema text, view_name text)
RETURNS boolean LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_refresh_mv';
COMMENT ON FUNCTION _wh.refresh_mv(text, text) IS
'Loads the day in that materialized view again, whatever its change_probe says; one that the ledger does not know is refreshed as REFRESH MATERIALIZED VIEW does, with the admin role''s rights. Returns false, after a WARNING, if there was trouble at the tenant. Errors: 42P01 no such materialized view (of a day that was combined the message says in which table it is), 55000 while the warehouse is paused';
