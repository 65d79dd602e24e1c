-- Compares what the tenants say (the temporary tables source_rows and
-- source_checksums, filled by demo/run) with what the warehouse holds: rows
-- through the public view, checksums over all columns through the tenant view.

CREATE TEMPORARY TABLE proof AS
SELECT tenant, day, source.rows AS source_rows, coalesce(public_rows.rows, 0) AS warehouse_rows, ledger.rows AS ledger_rows,
	source_checksum.checksum AS source_checksum, warehouse_checksum.checksum AS warehouse_checksum
FROM source_rows AS source
JOIN source_checksums AS source_checksum USING (tenant, day)
LEFT JOIN (
	SELECT schema_name AS tenant, logged_time::date AS day, count(*) AS rows
	FROM public.foodlogstats
	GROUP BY 1, 2
) AS public_rows USING (tenant, day)
LEFT JOIN (
	SELECT tenant_name AS tenant, target_date AS day, rows
	FROM _wh.day_loads
	WHERE template_name = 'foodlogstats' AND state = 'published'
) AS ledger USING (tenant, day)
LEFT JOIN (
	SELECT 'tenant_a' AS tenant, logged_time::date AS day, md5(string_agg(t::text, E'\n' ORDER BY id)) AS checksum
	FROM tenant_a.foodlogstats AS t GROUP BY 2
	UNION ALL
	SELECT 'tenant_b', logged_time::date, md5(string_agg(t::text, E'\n' ORDER BY id))
	FROM tenant_b.foodlogstats AS t GROUP BY 2
	UNION ALL
	SELECT 'Tenant-C', logged_time::date, md5(string_agg(t::text, E'\n' ORDER BY id))
	FROM "Tenant-C".foodlogstats AS t GROUP BY 2
) AS warehouse_checksum USING (tenant, day);

SELECT day,
	max(pair) FILTER (WHERE tenant = 'tenant_a') AS tenant_a,
	max(pair) FILTER (WHERE tenant = 'tenant_b') AS tenant_b,
	max(pair) FILTER (WHERE tenant = 'Tenant-C') AS "Tenant-C"
FROM proof, LATERAL (SELECT format('%5s %s %5s', source_rows,
	CASE WHEN source_rows = warehouse_rows THEN '=' ELSE '≠' END, warehouse_rows) AS pair) AS pairs
GROUP BY day
ORDER BY day;

SELECT tenant,
	count(*) AS days,
	sum(source_rows) AS "rows at source",
	sum(warehouse_rows) AS "rows in warehouse",
	count(*) FILTER (WHERE source_rows = warehouse_rows AND source_rows = ledger_rows) AS "equal counts",
	count(*) FILTER (WHERE source_checksum IS NOT DISTINCT FROM warehouse_checksum) AS "equal checksums",
	left(md5(string_agg(coalesce(source_checksum, '-'), '' ORDER BY day)), 12) AS "all days at source",
	left(md5(string_agg(coalesce(warehouse_checksum, '-'), '' ORDER BY day)), 12) AS "in warehouse"
FROM proof
GROUP BY tenant
ORDER BY sum(source_rows) DESC;

SELECT tenant, day, source_rows, warehouse_rows, ledger_rows,
	source_checksum IS NOT DISTINCT FROM warehouse_checksum AS checksums_equal
FROM proof
WHERE source_rows IS DISTINCT FROM warehouse_rows
	OR source_rows IS DISTINCT FROM ledger_rows
	OR source_checksum IS DISTINCT FROM warehouse_checksum
ORDER BY 1, 2 \g :differences

SELECT count(*) = :days
	AND bool_and(source_rows = warehouse_rows AND source_rows IS NOT DISTINCT FROM ledger_rows
		AND source_checksum IS NOT DISTINCT FROM warehouse_checksum)
	AND sum(warehouse_rows) = (SELECT count(*) FROM public.foodlogstats) AS equal
FROM proof \gset
