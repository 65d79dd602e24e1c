-- Checks of tenants and subscriptions when they are written. They look at the
-- row alone and run as whoever writes it: a restore runs them too.

CREATE FUNCTION _wh.check_tenant_row() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_check_tenant_row';
COMMENT ON FUNCTION _wh.check_tenant_row() IS
'Trigger of _wh.tenant_connections: refuses a connection that cannot work (22023) and renaming (0A000); sets updated_at';

CREATE TRIGGER check_tenant_row BEFORE INSERT OR UPDATE ON _wh.tenant_connections
	FOR EACH ROW EXECUTE FUNCTION _wh.check_tenant_row();
COMMENT ON TRIGGER check_tenant_row ON _wh.tenant_connections IS 'Refuses connections that cannot work';

CREATE FUNCTION _wh.check_subscription_row() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_check_subscription_row';
COMMENT ON FUNCTION _wh.check_subscription_row() IS
'Trigger of _wh.tenant_templates: refuses names that are too long and schemas that cannot hold a tenant''s data (22023)';

-- The counters and view_oid, which publication keeps, need no check.
CREATE TRIGGER check_subscription_row
	BEFORE INSERT OR UPDATE OF tenant_name, template_name, target_schema ON _wh.tenant_templates
	FOR EACH ROW EXECUTE FUNCTION _wh.check_subscription_row();
COMMENT ON TRIGGER check_subscription_row ON _wh.tenant_templates IS 'Refuses schemas that cannot hold a tenant''s data';
