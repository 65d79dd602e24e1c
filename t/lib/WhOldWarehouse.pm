# A warehouse as it was before: the tables and functions of the requirements, in
# SQL and PL/pgSQL over dblink and pg_cron, and a small food log for tenants to
# have. Nothing of it knows of the extension.
package WhOldWarehouse;

use strict;
use warnings;

use Exporter 'import';
use WhTest;

our @EXPORT = qw(create_food_log create_old_warehouse as_role old_password);

my $password = 'old password of readonly_user';

sub old_password
{
	return $password;
}

# As whoever runs the old warehouse, or reads it.
sub as_role
{
	my ($node, $role, $query) = @_;

	return $node->safe_psql('postgres', "SET SESSION AUTHORIZATION $role;\n$query");
}

# The tables of the food log in a database of its own, with $rows rows a day; the
# seed makes tenants differ.
sub create_food_log
{
	my ($node, $database, $first, $days, $rows, $seed) = @_;

	$node->safe_psql('postgres', qq(CREATE DATABASE "$database"));
	$node->safe_psql($database, qq{
		CREATE TABLE phood_client (id integer PRIMARY KEY, name text, code text);
		CREATE TABLE phood_region (id integer PRIMARY KEY, name text);
		CREATE TABLE phood_location (id integer PRIMARY KEY, name text, region_id integer, client_id integer);
		CREATE TABLE phood_station (id integer PRIMARY KEY, name text);
		CREATE TABLE phood_actiontaken (id integer PRIMARY KEY, name text);
		CREATE TABLE phood_actionreason (id integer PRIMARY KEY, name text);
		CREATE TABLE phood_foodcategory (id integer PRIMARY KEY, name text);
		CREATE TABLE phood_fooditem (id integer PRIMARY KEY, name text, category_id integer);
		CREATE TABLE phood_flag (id integer PRIMARY KEY, name text);
		CREATE TABLE phood_foodlogsum (id integer PRIMARY KEY, location_id integer, station_id integer,
			validation_status text, action_taken_id integer, action_reason_id integer, food_item_id integer,
			quantity numeric, average_weight numeric, weight numeric, cost_per_lb numeric,
			target_weight numeric, price_per_lb numeric, logged_time timestamptz);
		CREATE TABLE phood_foodlogsum_flags (foodlogsum_id integer, flag_id integer);
		INSERT INTO phood_client VALUES (1, 'Café Zoë', 'zoe');
		INSERT INTO phood_location VALUES (1, 'Main St', 1, 1), (2, '東京', NULL, 1);
		INSERT INTO phood_fooditem VALUES (1, 'Crème of "leek"', 1), (2, 'Rice', NULL);
		INSERT INTO phood_flag VALUES (1, 'hot'), (2, 'late');
		INSERT INTO phood_foodlogsum (id, location_id, food_item_id, quantity, weight, logged_time)
		SELECT day * $rows + n, 1 + n % 2, 1 + n % 2, n, (n * $seed)::numeric / 8,
			timestamptz '$first 00:00+00' + day * interval '1 day' + n * interval '7 minutes'
		FROM generate_series(0, $days - 1) AS day, generate_series(1, $rows) AS n;
		INSERT INTO phood_foodlogsum_flags SELECT id, 1 + n FROM phood_foodlogsum, generate_series(0, 1) AS n WHERE id % 4 = 0;
		GRANT SELECT ON ALL TABLES IN SCHEMA public TO readonly_user;
	});
	return;
}

sub create_old_warehouse
{
	my ($node) = @_;

	$node->safe_psql('postgres', q{
		CREATE ROLE whadmin NOSUPERUSER CREATEDB LOGIN;
		CREATE ROLE phood_ro LOGIN;
		GRANT CREATE ON DATABASE postgres TO whadmin;
		GRANT USAGE, CREATE ON SCHEMA public TO whadmin;
		CREATE EXTENSION dblink;
	});
	as_role($node, 'whadmin', old_tables());
	as_role($node, 'whadmin', old_functions());
	as_role($node, 'whadmin', old_views_and_years());
	return;
}

sub old_tables
{
	return q{
		CREATE SCHEMA _wh;
		CREATE TABLE _wh.tenant_connections (
			tenant_name TEXT PRIMARY KEY, host TEXT NOT NULL, port INTEGER DEFAULT 5432, dbname TEXT NOT NULL,
			username TEXT NOT NULL, password TEXT NOT NULL,
			created_at TIMESTAMP DEFAULT NOW(), updated_at TIMESTAMP DEFAULT NOW());
		CREATE TABLE _wh.mv_templates (
			template_name TEXT PRIMARY KEY, description TEXT, query_template TEXT NOT NULL,
			column_definitions TEXT NOT NULL, indexes TEXT);
	};
}

sub old_functions
{
	return q{
		CREATE FUNCTION _wh.get_tenant_connection_string(tenant_name TEXT) RETURNS TEXT SECURITY DEFINER LANGUAGE sql AS $f$
			SELECT format('host=%s port=%s dbname=%s user=%s password=''%s''', host, port, dbname, username, password)
			FROM _wh.tenant_connections c WHERE c.tenant_name = $1 $f$;
		CREATE FUNCTION _wh.current_date_utc() RETURNS date LANGUAGE sql AS $f$ SELECT (now() AT TIME ZONE 'UTC')::date $f$;
		CREATE FUNCTION _wh.create_mv_name(mvname TEXT, target_date date) RETURNS TEXT LANGUAGE sql AS $f$
			SELECT mvname || '_' || to_char(target_date, 'YYYY_MM_DD') $f$;
		CREATE FUNCTION _wh.does_mv_exist(target_schema TEXT, view_name TEXT) RETURNS boolean LANGUAGE sql AS $f$
			SELECT EXISTS (SELECT FROM pg_matviews WHERE schemaname = target_schema AND matviewname = view_name) $f$;
		CREATE FUNCTION _wh.refresh_mv(target_schema TEXT, view_name TEXT) RETURNS boolean LANGUAGE plpgsql AS $f$
		BEGIN
			EXECUTE format('REFRESH MATERIALIZED VIEW %I.%I', target_schema, view_name);
			RETURN true;
		END $f$;
		CREATE FUNCTION _wh.create_indexes(indexes TEXT, target_schema TEXT, view_name TEXT) RETURNS void LANGUAGE plpgsql AS $f$
		DECLARE
			statement TEXT;
		BEGIN
			FOREACH statement IN ARRAY string_to_array(indexes, ';') LOOP
				EXECUTE replace(replace(statement, '{schema}', target_schema), '{view_name}', view_name);
			END LOOP;
		END $f$;
		CREATE FUNCTION _wh.create_mv_from_template(template_name TEXT, tenant_connection_name TEXT, target_schema TEXT, target_date date)
		RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $f$
		DECLARE
			template _wh.mv_templates;
			view_name TEXT := _wh.create_mv_name(template_name, target_date);
		BEGIN
			SELECT * INTO STRICT template FROM _wh.mv_templates t WHERE t.template_name = $1;
			EXECUTE format('CREATE MATERIALIZED VIEW %I.%I AS SELECT * FROM public.dblink(_wh.get_tenant_connection_string(%L), %L) AS t(%s)',
				target_schema, view_name, tenant_connection_name,
				replace(template.query_template, '{TARGET_DATE}', target_date::text), template.column_definitions);
			PERFORM _wh.create_indexes(template.indexes, target_schema, view_name);
			EXECUTE format('GRANT SELECT ON %I.%I TO phood_ro', target_schema, view_name);
			RETURN true;
		END $f$;
		CREATE FUNCTION _wh.update_mv_by_template(template_name TEXT, tenant_connection_name TEXT, target_schema TEXT, target_date date,
			allow_refresh_yesterday boolean DEFAULT true)
		RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $f$
		BEGIN
			IF allow_refresh_yesterday AND _wh.does_mv_exist(target_schema, _wh.create_mv_name(template_name, target_date - 1)) THEN
				PERFORM _wh.refresh_mv(target_schema, _wh.create_mv_name(template_name, target_date - 1));
			END IF;
			IF _wh.does_mv_exist(target_schema, _wh.create_mv_name(template_name, target_date)) THEN
				RETURN _wh.refresh_mv(target_schema, _wh.create_mv_name(template_name, target_date));
			END IF;
			RETURN _wh.create_mv_from_template(template_name, tenant_connection_name, target_schema, target_date);
		END $f$;
		CREATE FUNCTION _wh.update_mv_window_by_template(template_name TEXT, tenant_connection_name TEXT, target_schema TEXT, start_date date, end_date date)
		RETURNS jsonb LANGUAGE sql SECURITY DEFINER AS $f$
			SELECT jsonb_object_agg(d::date, _wh.update_mv_by_template($1, $2, $3, d::date, false))
			FROM generate_series(start_date, end_date, interval '1 day') d $f$;
	};
}

sub old_views_and_years
{
	return q{
		CREATE FUNCTION _wh.update_tenant_union_view_by_template(template_name TEXT, tenant_connection_name TEXT, target_schema TEXT)
		RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $f$
		DECLARE
			query TEXT;
		BEGIN
			SELECT string_agg(format('SELECT * FROM %I.%I', n.nspname, c.relname), ' UNION ALL ' ORDER BY c.relname) INTO STRICT query
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = target_schema AND c.relkind IN ('m', 'r') AND c.relname ~ ('^' || template_name || '_\d{4}(_\d{2}_\d{2})?$');
			EXECUTE format('CREATE OR REPLACE VIEW %I.%I AS %s', target_schema, template_name, query);
			EXECUTE format('GRANT SELECT ON %I.%I TO phood_ro', target_schema, template_name);
			RETURN true;
		END $f$;
		CREATE FUNCTION _wh.update_public_view_by_template(template_name TEXT)
		RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $f$
		DECLARE
			query TEXT;
		BEGIN
			SELECT string_agg(format('SELECT *, %L AS schema_name FROM %I.%I', schemaname, schemaname, viewname), ' UNION ALL ' ORDER BY schemaname)
			INTO STRICT query FROM pg_views WHERE viewname = template_name AND schemaname <> 'public';
			EXECUTE format('CREATE OR REPLACE VIEW public.%I AS %s', template_name, query);
			EXECUTE format('GRANT SELECT ON public.%I TO phood_ro', template_name);
			RETURN true;
		END $f$;
		CREATE FUNCTION _wh.create_combined_table_from_template_by_year(template_name TEXT, tenant_connection_name TEXT, target_schema TEXT, year integer)
		RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER AS $f$
		DECLARE
			template _wh.mv_templates;
			table_name TEXT := template_name || '_' || year;
			view_name TEXT;
			days integer := 0;
		BEGIN
			SELECT * INTO STRICT template FROM _wh.mv_templates t WHERE t.template_name = $1;
			EXECUTE format('DROP VIEW IF EXISTS public.%I; DROP VIEW IF EXISTS %I.%I', template_name, target_schema, template_name);
			EXECUTE format('CREATE TABLE %I.%I (%s)', target_schema, table_name, template.column_definitions);
			FOR view_name IN SELECT matviewname FROM pg_matviews
				WHERE schemaname = target_schema AND matviewname LIKE table_name || '\_%' ORDER BY 1
			LOOP
				EXECUTE format('INSERT INTO %1$I.%2$I SELECT * FROM %1$I.%3$I', target_schema, table_name, view_name);
				EXECUTE format('DROP MATERIALIZED VIEW %I.%I', target_schema, view_name);
				days := days + 1;
			END LOOP;
			PERFORM _wh.create_indexes(template.indexes, target_schema, table_name);
			EXECUTE format('GRANT SELECT ON %I.%I TO phood_ro', target_schema, table_name);
			RETURN jsonb_build_object('days', days);
		END $f$;
	};
}

1;
