-- Setting up: tenants, subscriptions, switches, checks.

CREATE FUNCTION _wh.add_tenant(tenant_name text, host text, port integer, dbname text, username text, password text,
	templates text[] DEFAULT '{}', start_date date DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_add_tenant';
COMMENT ON FUNCTION _wh.add_tenant(text, text, integer, text, text, text, text[], date) IS
'Makes the connection of a tenant (port NULL means 5432; password may be NULL), its schema with the reader''s right to use it, and a subscription with its schedules (see setup_cron) to each of the templates; without start_date from today (UTC) on. Errors: 42710 the tenant exists, 42704 unknown template, 22023 bad value, 42501 the schema exists and the admin role may not create in it';

CREATE FUNCTION _wh.subscribe(tenant_name text, template_name text, target_schema text DEFAULT NULL,
	start_date date DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_subscribe';
COMMENT ON FUNCTION _wh.subscribe(text, text, text, date) IS
'Lets a tenant feed a template into a schema (by default that of its only subscription to it, else named after the tenant), which is made if it is missing, from start_date on and by the template''s schedule; without start_date from today (UTC) on, or unchanged if subscribed already. An inactive subscription becomes active. Loads nothing. Errors: 42704 unknown tenant or template, 23505 another tenant feeds that schema and template, 22023 a schema that cannot hold a tenant''s data (_wh, public, information_schema, pg_…, longer than 63 bytes)';

CREATE FUNCTION _wh.unsubscribe(tenant_name text, template_name text, target_schema text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_unsubscribe';
COMMENT ON FUNCTION _wh.unsubscribe(text, text, text) IS
'Ends a subscription (target_schema NULL: the tenant''s only one to the template, else the schema named after it): its schedules go, its queued jobs are cancelled, its data stays queryable. Errors: 42704 no such subscription';

CREATE FUNCTION _wh.remove_tenant(tenant_name text, drop_data boolean DEFAULT false)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_remove_tenant';
COMMENT ON FUNCTION _wh.remove_tenant(text, boolean) IS
'Deletes the connection of a tenant, ends its subscriptions, removes their schedules and cancels its queued jobs. With drop_data its days, its tenant views, its subscriptions, its ledger rows and its schemas, if nothing else is in them, are dropped, else the data stays queryable. Errors: 42704 unknown tenant, 2BP01 an object of yours depends on what would be dropped';

CREATE FUNCTION _wh.drop_day(template_name text, tenant_name text, target_date date, target_schema text DEFAULT NULL)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_drop_day';
COMMENT ON FUNCTION _wh.drop_day(text, text, date, text) IS
'Takes a day (UTC) out of the views and the ledger and drops its relation, or deletes its rows in the table of its month or year. Waits for a load of that day, and then for readers as a swap does. Errors: 42704 no such day or subscription, 2BP01 an object of yours depends on it';

CREATE FUNCTION _wh.get_tenant_connection_string(tenant_name text)
RETURNS text LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_get_tenant_connection_string';
COMMENT ON FUNCTION _wh.get_tenant_connection_string(text) IS
'libpq connection string of a tenant with the password in clear: decrypted, or asked from wh_worker.password_command. The call is in the audit log and in the server log. Errors: 42704 unknown tenant, 25006 in a read-only transaction, 55000, 28P01 or F0000 its password cannot be decrypted, 08001 or 28P01 the program does not say one';

CREATE FUNCTION _wh.pause()
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_pause';
COMMENT ON FUNCTION _wh.pause() IS
'No new job starts, in the whole warehouse, and functions that reach a tenant raise 55000, until resume(); running jobs end by themselves';

CREATE FUNCTION _wh.resume()
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_resume';
COMMENT ON FUNCTION _wh.resume() IS
'Ends pause(). What came due meanwhile is due now';

CREATE FUNCTION _wh.pause_tenant(tenant_name text)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_pause_tenant';
COMMENT ON FUNCTION _wh.pause_tenant(text) IS
'No new job reads the tenant, and its schedules that come due are skipped, until resume_tenant(). Functions that run at once still read it. Errors: 42704 unknown tenant';

CREATE FUNCTION _wh.resume_tenant(tenant_name text)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_resume_tenant';
COMMENT ON FUNCTION _wh.resume_tenant(text) IS
'Ends pause_tenant(): schedules that were skipped are due now. A tenant that is set aside is asked at once. Errors: 42704 unknown tenant';

CREATE FUNCTION _wh.pause_backfill(backfill_id bigint)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_pause_backfill';
COMMENT ON FUNCTION _wh.pause_backfill(bigint) IS
'No new load of the backfill starts until resume_backfill(); days that are loaded are still published. Errors: 42704 unknown backfill';

CREATE FUNCTION _wh.resume_backfill(backfill_id bigint)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_resume_backfill';
COMMENT ON FUNCTION _wh.resume_backfill(bigint) IS
'Ends pause_backfill(). Errors: 42704 unknown backfill';

CREATE FUNCTION _wh.check_tenant(tenant_name text)
RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_check_tenant';
COMMENT ON FUNCTION _wh.check_tenant(text) IS
'Connects to a tenant as a load would and returns a row per check, with what was found in detail: connection, tls, password, version, read_only, clock, encoding. Loads nothing; trouble at the tenant is a row that is not ok. Errors: 42704 unknown tenant, 55000 while the warehouse is paused';

CREATE FUNCTION _wh.check_template(template_name text, tenant_name text)
RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_check_template_at_tenant';
COMMENT ON FUNCTION _wh.check_template(text, text) IS
'Asks a tenant whether it could run the template for yesterday (UTC) and returns a row per check: connection, columns as declared, estimated cost, and with a change_probe its estimated cost and its result. Loads nothing; trouble at the tenant is a row that is not ok. Errors: 42704 unknown template or tenant, 55000 while the warehouse is paused';
