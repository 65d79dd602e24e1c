-- Everything belongs to admin_role; nobody else may touch it unless granted.
DO $$
DECLARE
	admin_role text := current_setting('wh_worker.admin_role');
	object record;
BEGIN
	FOR object IN
		SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS name
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace = '_wh'::regnamespace AND c.relkind IN ('r', 'v')
	LOOP
		EXECUTE format('ALTER %s %s OWNER TO %I', object.kind, object.name, admin_role);
		EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', object.name);
	END LOOP;
	FOR object IN
		SELECT p.oid::regprocedure::text AS name
		FROM pg_catalog.pg_proc p WHERE p.pronamespace = '_wh'::regnamespace
	LOOP
		EXECUTE format('ALTER FUNCTION %s OWNER TO %I', object.name, admin_role);
		EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', object.name);
	END LOOP;
	-- Public views that refuse to be read call it as whoever reads them.
	EXECUTE 'GRANT EXECUTE ON FUNCTION _wh.refuse_to_read(text) TO PUBLIC';
	EXECUTE 'REVOKE ALL ON SCHEMA _wh FROM PUBLIC';
	-- CREATE: the partition trees of templates are made there. The grant option
	-- is for grant_operator().
	EXECUTE format('GRANT USAGE, CREATE ON SCHEMA _wh TO %I WITH GRANT OPTION', admin_role);
END
$$;
