-- Everything belongs to admin_role; nobody else may touch it unless granted.
-- But tenant_connections and the functions that run as their caller, triggers among
-- them, stay with the superuser who makes the extension: a table's owner can switch
-- its triggers off, or add rows that they never see, and a function's owner can
-- replace it. What only a superuser may allow would then be anybody's who owns it;
-- and a superuser who writes a row, or calls such a function, would run what
-- admin_role made of it. What others have put into the schema is none of ours, and
-- stays as it is when a version is updated. No REFERENCES: a foreign key that cascades has whoever
-- deletes a tenant write to a table with triggers of somebody else's.
DO $$
DECLARE
	admin_role text := current_setting('wh_worker.admin_role');
	object record;
BEGIN
	FOR object IN
		SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END AS kind, c.oid::regclass::text AS name,
			c.oid = '_wh.tenant_connections'::regclass AS stays
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace = '_wh'::regnamespace AND c.relkind IN ('r', 'v')
		AND EXISTS (SELECT FROM pg_catalog.pg_depend d
			WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
	LOOP
		IF NOT object.stays THEN
			EXECUTE format('ALTER %s %s OWNER TO %I', object.kind, object.name, admin_role);
		END IF;
		EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', object.name);
	END LOOP;
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE'
		' ON _wh.tenant_connections TO %I WITH GRANT OPTION', admin_role);
	FOR object IN
		SELECT p.oid::regprocedure::text AS name, NOT p.prosecdef AS stays,
			NOT p.prosecdef AND p.prorettype <> 'trigger'::regtype AS is_lent
		FROM pg_catalog.pg_proc p WHERE p.pronamespace = '_wh'::regnamespace
		AND EXISTS (SELECT FROM pg_catalog.pg_depend d
			WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
	LOOP
		IF NOT object.stays THEN
			EXECUTE format('ALTER FUNCTION %s OWNER TO %I', object.name, admin_role);
		END IF;
		EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', object.name);
		IF object.is_lent THEN
			EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I WITH GRANT OPTION', object.name, admin_role);
		END IF;
	END LOOP;
	-- Public views that refuse to be read call it as whoever reads them.
	EXECUTE 'GRANT EXECUTE ON FUNCTION _wh.refuse_to_read(text) TO PUBLIC';
	EXECUTE 'REVOKE ALL ON SCHEMA _wh FROM PUBLIC';
	-- Monitoring reads the metrics, and nothing else of ours.
	EXECUTE 'GRANT USAGE ON SCHEMA _wh TO pg_monitor';
	EXECUTE 'GRANT SELECT ON _wh.metrics TO pg_monitor';
	EXECUTE 'GRANT EXECUTE ON FUNCTION _wh.metric_counters(text), _wh.metric_queue(), _wh.expected_loads(), _wh.pause_reason() TO pg_monitor';
	-- CREATE: the partition trees of templates are made there. The grant option
	-- is for grant_operator().
	EXECUTE format('GRANT USAGE, CREATE ON SCHEMA _wh TO %I WITH GRANT OPTION', admin_role);
END
$$;
