-- From one layout of a template to the other.

CREATE FUNCTION _wh.convert_layout(template_name text, layout text) RETURNS integer
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_convert_layout';
COMMENT ON FUNCTION _wh.convert_layout(text, text) IS
'Changes the layout of a template (matviews or partitions) and queues a job for every day, month and year of it that is in the other one, newest first; no tenant is read, and readers are served throughout. Returns how many relations are to be moved; 0 when all are there. Called again it queues what is left, with the other layout it turns round. Errors: 42704 unknown template, 22023 unknown layout, or partitions without a date_column, 55000 at another isolation level than READ COMMITTED';
