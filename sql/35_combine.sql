-- The functions that combine the days of a month or year into one table, in
-- the caller's transaction.

CREATE FUNCTION _wh.create_combined_table_from_template_by_year(template_name text, tenant_connection_name text,
	target_schema text, year integer, allow_missing boolean DEFAULT false, verify_content boolean DEFAULT false)
RETURNS jsonb LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_create_combined_table_from_template_by_year';
COMMENT ON FUNCTION _wh.create_combined_table_from_template_by_year(text, text, text, integer, boolean, boolean) IS
'Makes {schema}.{template}_{YYYY} of the days and months of a year that is over, lets the tenant view read it, compares the rows of every day with the ledger and the old relations (with verify_content by check sums too) and drops these. Returns {"status": "combined" or "already_combined", "table", "rows", "days": [rows of each old relation], "missing": [dates], "bytes_before", "bytes", "durations", "seconds"}. Errors: 42704 unknown template or tenant, 22023 year not over, 42P07 a relation of somebody else has the name, 55000 days missing (unless allow_missing) or not as the ledger says, 23505 a unique index of the template does not hold over the year, 53200 the lock table is too small for that many relations, 2BP01 something of a user''s depends on a day';

CREATE FUNCTION _wh.create_combined_table_from_template_by_year(template_name text, tenant_connection_name text, year integer)
RETURNS jsonb LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_create_combined_table_from_template_by_year_short';
COMMENT ON FUNCTION _wh.create_combined_table_from_template_by_year(text, text, integer) IS
'The same, in the schema of the tenant''s only subscription to the template, else in the schema named after the tenant';

CREATE FUNCTION _wh.create_combined_table_from_template_by_month(template_name text, tenant_connection_name text,
	target_schema text, year integer, month integer, allow_missing boolean DEFAULT false, verify_content boolean DEFAULT false)
RETURNS jsonb LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_create_combined_table_from_template_by_month';
COMMENT ON FUNCTION _wh.create_combined_table_from_template_by_month(text, text, text, integer, integer, boolean, boolean) IS
'The same for a month that is over: {schema}.{template}_{YYYY_MM} of its days. A month whose year is combined is already_combined. Errors: as for a year';

CREATE FUNCTION _wh.create_combined_table_from_template_by_month(template_name text, tenant_connection_name text,
	year integer, month integer)
RETURNS jsonb LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_create_combined_table_from_template_by_month_short';
COMMENT ON FUNCTION _wh.create_combined_table_from_template_by_month(text, text, integer, integer) IS
'The same, in the schema of the tenant''s only subscription to the template, else in the schema named after the tenant';
