-- Passwords of tenants: encrypted when they are written, if there is a key.

CREATE FUNCTION _wh.seal_password() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_seal_password';
COMMENT ON FUNCTION _wh.seal_password() IS
'Trigger of _wh.tenant_connections: encrypts a password with the first key of wh_worker.key_file, for this tenant, host, port, database and role; without a key file it warns. A ciphertext stays; by UPDATE it must be that of this row (28P01, 55000)';

-- After check_tenant_row, which sees to it that what the password is for is there.
CREATE TRIGGER seal_password BEFORE INSERT OR UPDATE ON _wh.tenant_connections
	FOR EACH ROW EXECUTE FUNCTION _wh.seal_password();
COMMENT ON TRIGGER seal_password ON _wh.tenant_connections IS 'Encrypts passwords';

CREATE FUNCTION _wh.rotate_key() RETURNS integer
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_rotate_key';
COMMENT ON FUNCTION _wh.rotate_key() IS
'Encrypts every stored password that is in clear or of another key with the first key of wh_worker.key_file; returns how many. Waits for those who write to tenant_connections, and they for it. Errors: 55000 no key file, or the key of a password is not in it (then nothing is changed); 28P01 a ciphertext is not that of its row';

CREATE FUNCTION _wh.set_password_from_file(tenant_name text, file text) RETURNS void
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_set_password_from_file';
COMMENT ON FUNCTION _wh.set_password_from_file(text, text) IS
'Stores the first line of a file of the server as the password of a tenant, so that nobody types it into a statement. The caller has to be a superuser or a member of pg_read_server_files, with EXECUTE on this and UPDATE on tenant_connections. Errors: 42704 unknown tenant, 42501 not allowed, 28P01 no password in the first line';
