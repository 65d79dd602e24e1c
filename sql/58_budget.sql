-- The locks that a query of a view takes, and those the server has.

-- Fixed when the server starts. Stable, so that who asks union_health for something
-- else need not be allowed to call it.
CREATE FUNCTION _wh.lock_budget() RETURNS bigint
LANGUAGE c STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_lock_budget';
COMMENT ON FUNCTION _wh.lock_budget() IS
'How many locks the server''s lock table is sized for: max_locks_per_transaction for every process and prepared transaction that there may be';

-- It reads nothing, so that it needs nobody's rights: to change the role for each
-- row of a view costs ten times what it does.
CREATE FUNCTION _wh.lock_advice(locks bigint, refused_days bigint, refuses boolean) RETURNS text
LANGUAGE c STABLE STRICT
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
