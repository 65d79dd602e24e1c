-- What the catalog says of schema _wh and of our settings, as one JSON value:
-- what ci/reference writes into docs/. Read-only; run in a fresh database with
-- the extension, as a superuser. C collation, so that the order is always the same.
SELECT jsonb_pretty(jsonb_build_object(
	'settings', (
		SELECT jsonb_agg(jsonb_build_object('name', name, 'type', vartype, 'unit', unit, 'default', boot_val,
				'min', min_val, 'max', max_val, 'context', context, 'comment', short_desc, 'detail', extra_desc)
			ORDER BY name COLLATE "C")
		FROM pg_catalog.pg_settings WHERE name LIKE 'wh\_worker.%'),
	'functions', (
		SELECT jsonb_agg(jsonb_build_object('name', p.proname, 'arguments', pg_catalog.pg_get_function_arguments(p.oid),
				'input', pg_catalog.oidvectortypes(p.proargtypes), 'result', pg_catalog.pg_get_function_result(p.oid),
				'trigger', p.prorettype = 'pg_catalog.trigger'::regtype, 'runs_as_caller', NOT p.prosecdef,
				'comment', pg_catalog.obj_description(p.oid, 'pg_proc'))
			ORDER BY p.proname COLLATE "C", p.pronargs DESC, p.oid)
		FROM pg_catalog.pg_proc p WHERE p.pronamespace = '_wh'::regnamespace),
	'relations', (
		SELECT jsonb_agg(jsonb_build_object('name', c.relname, 'kind', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END,
				'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
				'dumped', (SELECT c.oid = ANY (e.extconfig) FROM pg_catalog.pg_extension e WHERE e.extname = 'wh_worker'),
				'keys', (
					SELECT jsonb_agg(pg_catalog.pg_get_constraintdef(k.oid) ORDER BY k.contype, k.conname COLLATE "C")
					FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u')),
				'columns', (
					SELECT jsonb_agg(jsonb_build_object('name', a.attname,
							'type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
							'identity', a.attidentity <> '', 'default', pg_catalog.pg_get_expr(d.adbin, d.adrelid, true),
							'comment', pg_catalog.col_description(c.oid, a.attnum))
						ORDER BY a.attnum)
					FROM pg_catalog.pg_attribute a
					LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
					WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
			ORDER BY c.relname COLLATE "C")
		FROM pg_catalog.pg_class c
		WHERE c.relnamespace = '_wh'::regnamespace AND c.relkind IN ('r', 'v', 'm', 'p', 'f')),
	'others', (
		SELECT jsonb_agg(jsonb_build_object('name', o.name, 'comment', o.comment) ORDER BY o.name COLLATE "C")
		FROM (
			SELECT format('trigger %s on %s', t.tgname, t.tgrelid::regclass) AS name,
				pg_catalog.obj_description(t.oid, 'pg_trigger') AS comment
			FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
			WHERE NOT t.tgisinternal AND c.relnamespace = '_wh'::regnamespace
			UNION ALL
			SELECT format('type %s', t.typname), pg_catalog.obj_description(t.oid, 'pg_type')
			FROM pg_catalog.pg_type t
			WHERE t.typnamespace = '_wh'::regnamespace AND t.typtype <> 'c' AND t.typelem = 0) o)));
