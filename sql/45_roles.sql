-- Who may do and read what: operators, readers of one tenant.

CREATE FUNCTION _wh.check_tenant_reader() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_check_tenant_reader';
COMMENT ON FUNCTION _wh.check_tenant_reader() IS
'Trigger of _wh.tenant_readers: keeps role_oid';

-- As whoever writes the row: a restore runs it too.
CREATE TRIGGER check_tenant_reader BEFORE INSERT OR UPDATE OF role_name, role_oid ON _wh.tenant_readers
	FOR EACH ROW EXECUTE FUNCTION _wh.check_tenant_reader();
COMMENT ON TRIGGER check_tenant_reader ON _wh.tenant_readers IS 'Keeps role_oid';

CREATE FUNCTION _wh.grant_tenant_reader(tenant_name text, role text)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_grant_tenant_reader';
COMMENT ON FUNCTION _wh.grant_tenant_reader(text, text) IS
'Lets a role read one tenant: its schemas, its days and tenant views, those that are loaded later too, and the isolated views of templates with tenant_isolation; not the public views. Waits for publications of the tenant''s views. Errors: 42704 unknown tenant or role, 22023 a role that reads all tenants by another way';

CREATE FUNCTION _wh.revoke_tenant_reader(tenant_name text, role text)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_revoke_tenant_reader';
COMMENT ON FUNCTION _wh.revoke_tenant_reader(text, text) IS
'Takes back what grant_tenant_reader() gave, but for what the role has by other tenants. Errors: 42704 the role is no reader of the tenant';

-- sql/create.sql calls it as a superuser: not by way of a function of admin_role.
CREATE FUNCTION _wh.apply_grants()
RETURNS bigint LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_apply_grants';
COMMENT ON FUNCTION _wh.apply_grants() IS
'Grants wh_worker.reader_role and the readers of tenants what they lack, on all that is loaded: after that setting has changed, or a restore without privileges. Returns how many grants on days and tenant views it made';

CREATE FUNCTION _wh.grant_operator(role text)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_grant_operator';
COMMENT ON FUNCTION _wh.grant_operator(text) IS
'Lets a role enqueue, cancel and pause, and read the status views; no credentials, no templates, no data. Errors: 42704 unknown role, 22023 the admin role';

CREATE FUNCTION _wh.revoke_operator(role text)
RETURNS void LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_revoke_operator';
COMMENT ON FUNCTION _wh.revoke_operator(text) IS
'Takes back what grant_operator() gave. Errors: 42704 unknown role';
