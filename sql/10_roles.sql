-- Roles: made when missing, never altered when they exist. sql/create.sql
-- does the same before the extension is created.
DO $$
DECLARE
	admin_role text := current_setting('wh_worker.admin_role');
	reader_role text := current_setting('wh_worker.reader_role');
BEGIN
	IF to_regrole(quote_ident(admin_role)) IS NULL THEN
		-- LOGIN because a background worker of versions before 17 needs it;
		-- no password, so nobody can log in with one.
		EXECUTE format('CREATE ROLE %I NOSUPERUSER LOGIN', admin_role);
	END IF;
	IF to_regrole(quote_ident(reader_role)) IS NULL THEN
		EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE LOGIN', reader_role);
	END IF;
	EXECUTE format('GRANT CREATE, CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), admin_role);
	EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', admin_role);
	EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', reader_role);
END
$$;
