-- Days, months and years: which relation is which.

CREATE FUNCTION _wh.relation_tier(template_name text, relation text, target_date date) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'wh_sql_relation_tier';
COMMENT ON FUNCTION _wh.relation_tier(text, text, date) IS
'Whether the relation of that name that holds a day of a template is a day, a month or a year; by its name alone';
