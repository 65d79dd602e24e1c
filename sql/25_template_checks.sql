-- Checks of templates when they are written, and the triggers that tell the
-- launcher of changed configuration. They do not run as admin_role: a
-- restore runs them too.

CREATE FUNCTION _wh.check_template() RETURNS trigger LANGUAGE c
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_check_template';
COMMENT ON FUNCTION _wh.check_template() IS
	'Trigger of _wh.mv_templates: refuses a template that cannot work, counts its version, and keeps its name while days are loaded';

CREATE TRIGGER check_template BEFORE INSERT OR UPDATE OR DELETE ON _wh.mv_templates
	FOR EACH ROW EXECUTE FUNCTION _wh.check_template();
COMMENT ON TRIGGER check_template ON _wh.mv_templates IS 'Refuses templates that cannot work';

CREATE FUNCTION _wh.template_changed() RETURNS trigger LANGUAGE c
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_template_changed';
COMMENT ON FUNCTION _wh.template_changed() IS
	'Trigger of _wh.mv_templates: gives the views of a template its new columns and counts the days that are outdated, keeps the public view right when the layout changes, and makes or drops the isolated view; 42846 if a type of loaded days has no cast, the error of the cast if a value does not survive it, 2BP01 if something on top of a view is in the way';

CREATE TRIGGER template_changed AFTER UPDATE ON _wh.mv_templates
	FOR EACH ROW WHEN (OLD.version IS DISTINCT FROM NEW.version OR OLD.layout IS DISTINCT FROM NEW.layout
		OR OLD.tenant_isolation IS DISTINCT FROM NEW.tenant_isolation)
	EXECUTE FUNCTION _wh.template_changed();
COMMENT ON TRIGGER template_changed ON _wh.mv_templates IS 'Lets the views follow the template';

CREATE FUNCTION _wh.notify_config() RETURNS trigger LANGUAGE c
	SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_notify_config';
COMMENT ON FUNCTION _wh.notify_config() IS
	'Trigger of the tables that users write: tells the launcher at commit that configuration changed';

-- Columns that publication keeps, such as counters, wake nobody.
CREATE TRIGGER notify_config
	AFTER INSERT OR DELETE OR UPDATE OF template_name, query_template, column_definitions, indexes
	ON _wh.mv_templates FOR EACH STATEMENT EXECUTE FUNCTION _wh.notify_config();
COMMENT ON TRIGGER notify_config ON _wh.mv_templates IS 'Tells the launcher';
CREATE TRIGGER notify_config
	AFTER INSERT OR DELETE OR UPDATE
	ON _wh.tenant_connections FOR EACH STATEMENT EXECUTE FUNCTION _wh.notify_config();
COMMENT ON TRIGGER notify_config ON _wh.tenant_connections IS 'Tells the launcher';
CREATE TRIGGER notify_config
	AFTER INSERT OR DELETE OR UPDATE OF tenant_name, template_name, target_schema, start_date, active
	ON _wh.tenant_templates FOR EACH STATEMENT EXECUTE FUNCTION _wh.notify_config();
COMMENT ON TRIGGER notify_config ON _wh.tenant_templates IS 'Tells the launcher';
CREATE TRIGGER notify_config
	AFTER INSERT OR DELETE OR UPDATE OF paused, identity
	ON _wh.warehouse FOR EACH STATEMENT EXECUTE FUNCTION _wh.notify_config();
COMMENT ON TRIGGER notify_config ON _wh.warehouse IS 'Tells the launcher';

CREATE FUNCTION _wh.create_mv_name(mvname text, target_date date) RETURNS text
	LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_create_mv_name';
COMMENT ON FUNCTION _wh.create_mv_name(text, date) IS
	'Name of the day relation of a template: {mvname}_{YYYY_MM_DD}; a name of more than 52 bytes is cut and gets a hash before the date. NULL for a NULL. Errors: 22008 infinity, or a year that has not four digits';

CREATE FUNCTION _wh.current_date_utc() RETURNS date
	LANGUAGE c STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_current_date_utc';
COMMENT ON FUNCTION _wh.current_date_utc() IS
	'Today in UTC, whatever the session''s time zone, as of the start of the transaction';
