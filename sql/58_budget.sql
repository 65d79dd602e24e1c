-- The locks that a query of a view takes, and those the server has.

CREATE FUNCTION _wh.lock_budget() RETURNS bigint
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_lock_budget';
COMMENT ON FUNCTION _wh.lock_budget() IS
'How many locks the server''s lock table is sized for: max_locks_per_transaction for every process and prepared transaction that there may be';

CREATE FUNCTION _wh.lock_advice(locks bigint, refused_days bigint, refuses boolean) RETURNS text
LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_lock_advice';
COMMENT ON FUNCTION _wh.lock_advice(bigint, bigint, boolean) IS
'What to do about a view a query of which takes so many locks, out of which so many loaded days are kept, and which refuses to be read or does not; NULL: nothing';

CREATE FUNCTION _wh.refuse_to_read(template_name text) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_refuse_to_read';
COMMENT ON FUNCTION _wh.refuse_to_read(text) IS
'What the public view of a template reads while a query of it would need more locks than the server has. Errors: 54000 always';

-- What a dashboard asks for: the last 30 days. A condition with CURRENT_DATE or
-- now() is given a day of margin when partitions are chosen.
CREATE FUNCTION _wh.first_day_of_query() RETURNS date
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$ SELECT (now() AT TIME ZONE 'UTC')::date - 31 $$;
COMMENT ON FUNCTION _wh.first_day_of_query() IS
'The first day of which a query for the last 30 days may lock a partition';

-- By the ledger, because the dependencies of so many views are ten times as
-- many rows. A relation with a parent is a leaf of a partition tree. To compile
-- this takes longer than to run it.
CREATE FUNCTION _wh.count_locks() RETURNS TABLE (template_name text, target_schema text, members bigint,
	locks bigint, locks_unfiltered bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off SET work_mem = '32MB'
AS $$
SELECT r.template_name, r.target_schema, count(*),
	coalesce(sum(1 + coalesce(x.indexes, 0)) FILTER (WHERE i.inhparent IS NULL OR r.is_recent), 0)::bigint,
	sum(1 + coalesce(x.indexes, 0))::bigint
FROM (
	SELECT d.template_name, d.target_schema, d.relation_oid,
		max(d.target_date) >= (SELECT _wh.first_day_of_query()) AS is_recent
	FROM _wh.day_loads d
	WHERE d.in_views AND d.relation_oid IS NOT NULL
	GROUP BY d.template_name, d.target_schema, d.relation_oid) r
LEFT JOIN (SELECT indrelid, count(*) AS indexes FROM pg_index WHERE indislive GROUP BY indrelid) x
	ON x.indrelid = r.relation_oid
LEFT JOIN pg_inherits i ON i.inhrelid = r.relation_oid
GROUP BY r.template_name, r.target_schema
$$;
COMMENT ON FUNCTION _wh.count_locks() IS
'For each subscription the relations in its view, and the locks of these relations and their indexes, of a query for the last 30 days and of one without a condition';
