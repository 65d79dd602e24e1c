-- Roles: made when missing, never altered when they exist. sql/create.sql
-- does the same before the extension is created.
DO $$
DECLARE
	admin_role text := current_setting('wh_worker.admin_role');
	reader_role text := current_setting('wh_worker.reader_role');
	-- Before version 16 CREATEROLE gives itself any role but a superuser's, those
	-- too that run programs and write files as the server's user.
	safe_createrole boolean := current_setting('server_version_num')::integer >= 160000;
	role record;
BEGIN
	IF to_regrole(quote_ident(admin_role)) IS NULL THEN
		-- LOGIN because a background worker of versions before 17 needs it;
		-- no password, so nobody can log in with one.
		EXECUTE format('CREATE ROLE %I NOSUPERUSER CREATEDB %s LOGIN', admin_role,
			CASE WHEN safe_createrole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END);
	END IF;
	IF to_regrole(quote_ident(reader_role)) IS NULL THEN
		EXECUTE format('CREATE ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE LOGIN', reader_role);
	END IF;

	SELECT rolsuper, rolcreaterole, rolreplication, rolbypassrls INTO role FROM pg_roles WHERE rolname = admin_role;
	IF role.rolsuper THEN
		RAISE EXCEPTION 'role "%" of wh_worker.admin_role is a superuser', admin_role
			USING ERRCODE = 'invalid_parameter_value',
			      DETAIL = 'Every function of the warehouse, and every worker, would be one.',
			      HINT = format('Name another role, or run ALTER ROLE %I NOSUPERUSER.', admin_role);
	END IF;
	IF role.rolcreaterole AND NOT safe_createrole OR role.rolreplication OR role.rolbypassrls THEN
		RAISE WARNING 'role "%" of wh_worker.admin_role has rights that make it nearly a superuser', admin_role
			USING HINT = format('Run ALTER ROLE %I %sNOREPLICATION NOBYPASSRLS.', admin_role,
				CASE WHEN safe_createrole THEN '' ELSE 'NOCREATEROLE ' END);
	END IF;
	IF admin_role = reader_role OR pg_has_role(reader_role, admin_role, 'MEMBER') THEN
		RAISE EXCEPTION 'role "%" of wh_worker.reader_role has the rights of role "%"', reader_role, admin_role
			USING ERRCODE = 'invalid_parameter_value',
			      DETAIL = 'Readers would see the passwords of all tenants.',
			      HINT = 'Name another role, or take the membership away.';
	END IF;

	-- Its owner could drop all that is in it.
	SELECT r.rolname INTO role FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
	WHERE n.nspname = '_wh' AND NOT r.rolsuper AND r.rolname <> admin_role;
	IF FOUND THEN
		RAISE EXCEPTION 'schema "_wh" belongs to role "%"', role.rolname
			USING ERRCODE = 'insufficient_privilege',
			      HINT = 'Drop or rename it, so that it can be made anew.';
	END IF;
	-- The admin role could rename it and make another, with tables in it that a
	-- superuser takes for ours.
	EXECUTE format('ALTER SCHEMA _wh OWNER TO %I', current_user);

	EXECUTE format('GRANT CREATE, CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), admin_role);
	EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', admin_role);
	EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), reader_role);
	EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', reader_role);
END
$$;
