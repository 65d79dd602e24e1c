# The servers of bench/load, what is in them, and how one load is measured.
# Sourced by bench/load after demo/cluster.sh, never run.
#
# One server is all tenants: over TCP on the loopback with scram passwords, with
# TLS (sslmode=require) and without.  A database of it is a tenant's database:
# "phood" has one large day, "year" 366 small ones, "fleet_N" a few days of its
# own size.  Each has the twenty columns of templates/foodlogstats.sql as one
# table, so that the tenant has little to do: a query with nine joins makes every
# way as slow as the tenant.
#
# The other server is the warehouse, for all ways alike as users have it: fsync
# on, wal_level = replica, full_page_writes on.  Checkpoints are made between the
# loads and not during them, files of WAL are recycled, and autovacuum is off.
# What is written after a load, by vacuum and checkpoints, is in no number.

# shellcheck disable=SC2154 # cluster.sh has set them
nets=(tls clear)
declare -A sslmode=([tls]=require [clear]=disable)
year_first=2024-01-01
big_day=2024-01-01

food_columns='id INTEGER, store TEXT, station TEXT, validation_status TEXT, region TEXT, action_taken_id INTEGER, action_taken TEXT, name TEXT, quantity NUMERIC, average_weight NUMERIC, weight NUMERIC, client TEXT, food_category TEXT, cost_per_lb NUMERIC, target_weight NUMERIC, price_per_lb NUMERIC, action_reason TEXT, client_id TEXT, logged_time TIMESTAMP, flags TEXT'
food_indexes='CREATE UNIQUE INDEX idx_{schema}_{view_name}_id ON {schema}.{view_name} (id);
CREATE INDEX idx_{schema}_{view_name}_logged_time ON {schema}.{view_name} (logged_time);
CREATE INDEX idx_{schema}_{view_name}_store ON {schema}.{view_name} (store)'
of_the_day="WHERE logged_time >= '{TARGET_DATE}'::date AND logged_time < '{TARGET_DATE}'::date + 1"

# Two hundred columns of the five commonest types.
wide_columns()
{
	local n types=(INTEGER NUMERIC TEXT TIMESTAMP 'DOUBLE PRECISION')

	printf 'id INTEGER, logged_time TIMESTAMP'
	for ((n = 3; n <= 200; n++)); do
		printf ', c%s %s' "$n" "${types[n % 5]}"
	done
}

wide_values()
{
	local n values=('n + %s' '((n * %s) %% 99991) / 100.0' "'text ' || (n * %s) %% 9973"
		"timestamp '2024-01-01' + (n * %s) %% 86400 * interval '1 s'" '(n * %s) %% 1013 / 7.0::float8')

	for ((n = 3; n <= 200; n++)); do
		# shellcheck disable=SC2059 # the formats are above
		printf ", ${values[n % 5]}" "$n"
	done
}

toast_columns='id INTEGER, logged_time TIMESTAMP, quantity INTEGER, document TEXT'

# names_of 'id INTEGER, …': id, …
names_of()
{
	sed -E 's/([a-z_0-9]+) [^,(]+(,|$)/\1\2/g' <<<"$1"
}

query_of()
{
	case $1 in
		bare | indexed | probed) printf 'SELECT %s FROM food %s' "$(names_of "$food_columns")" "$of_the_day" ;;
		wide) printf 'SELECT %s FROM wide %s' "$(names_of "$(wide_columns)")" "$of_the_day" ;;
		toast) printf 'SELECT %s FROM toast %s' "$(names_of "$toast_columns")" "$of_the_day" ;;
	esac
}

columns_of()
{
	case $1 in
		wide) wide_columns ;;
		toast) printf '%s' "$toast_columns" ;;
		*) printf '%s' "$food_columns" ;;
	esac
}

# query_on TEMPLATE DATE
query_on()
{
	query_of "$1" | sed "s/{TARGET_DATE}/$2/g"
}

# ---- the tenants ----

# tenant_food DATABASE DAYS ROWS_PER_DAY
tenant_food()
{
	cluster_sql tenant postgres -c "CREATE DATABASE $1"
	cluster_sql tenant "$1" -v first="$year_first" -v days="$2" -v per_day="$3" <<-SQL
		CREATE TABLE food ($food_columns);
		SELECT setseed(0.5) \\gset
		INSERT INTO food
		SELECT n,
			(ARRAY['Harbour', 'Old Town', 'Café Zürich', 'Riverside', 'Central Station', 'Campus', 'Airport', 'Market Hall'])
				[1 + (random() * 7)::integer] || ' ' || (random() * 40)::integer,
			(ARRAY['Grill', 'Salad bar', 'Bakery', 'Hot buffet', 'Pâtisserie'])[1 + (random() * 4)::integer],
			(ARRAY['validated', 'validated', 'pending', 'rejected', NULL])[1 + (random() * 4)::integer],
			(ARRAY['North', 'South', 'Île-de-France', 'East'])[1 + (random() * 3)::integer],
			1 + n % 4,
			(ARRAY['Wasted', 'Donated', 'Composted', 'Sold at discount'])[1 + n % 4],
			(ARRAY['Roast beef', 'Pulled pork', 'Chicken thighs', 'Salmon', 'Miso soup', 'Roasted carrots', 'Baguette'])
				[1 + (random() * 6)::integer],
			round((1 + random() * 20)::numeric, 2), round((random() * 3)::numeric, 3), round((random() * 60)::numeric, 3),
			'Company and Sons', (ARRAY['Meat', 'Fish', 'Vegetables', 'Bread and pastry'])[1 + (random() * 3)::integer],
			round((random() * 10)::numeric, 4),
			CASE WHEN random() < 0.8 THEN round((random() * 20)::numeric, 1) END,
			round((random() * 20)::numeric, 2),
			(ARRAY['Expired', 'Overproduction', 'Damaged', NULL])[1 + (random() * 3)::integer],
			'COSO',
			date :'first' + ((n - 1) / :per_day) + random() * interval '86399 s',
			CASE WHEN random() < 0.2 THEN 'recount, photo' END
		FROM generate_series(1, :days * :per_day) AS n;
		CREATE INDEX ON food (logged_time);
		CREATE TABLE generation (n integer);
		INSERT INTO generation VALUES (0);
		GRANT SELECT ON food, generation TO reader;
		VACUUM (FREEZE, ANALYZE) food;
	SQL
}

tenant_wide()
{
	cluster_sql tenant phood -v rows="$1" -v day="$big_day" <<-SQL
		CREATE TABLE wide ($(wide_columns));
		INSERT INTO wide SELECT n, timestamp :'day' + n % 86400 * interval '1 s'$(wide_values) FROM generate_series(1, :rows) AS n;
		GRANT SELECT ON wide TO reader;
		VACUUM (FREEZE, ANALYZE) wide;
	SQL
}

# Documents of some 8 kB that do not compress, and so are toasted.
tenant_toast()
{
	cluster_sql tenant phood -v rows="$1" -v day="$big_day" <<-SQL
		CREATE TABLE toast ($toast_columns);
		INSERT INTO toast
		SELECT n, timestamp :'day' + n % 86400 * interval '1 s', n,
			(SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, 256) AS i)
		FROM generate_series(1, :rows) AS n;
		GRANT SELECT ON toast TO reader;
		VACUUM (FREEZE, ANALYZE) toast;
	SQL
}

start_tenants()
{
	scratch_certificates
	password=$(openssl rand -hex 16)
	cluster_new tenant <<-'SETTINGS'
		fsync = off
		autovacuum = off
		shared_buffers = '1GB'
		max_connections = 50
		checkpoint_timeout = '1h'
	SETTINGS
	cluster_tls tenant
	as_server tee -a "$scratch/tenant/pg_hba.conf" >/dev/null <<<'hostnossl all all 127.0.0.1/32 scram-sha-256'
	cluster_start tenant
	cluster_sql tenant postgres -c "CREATE ROLE reader LOGIN PASSWORD '$password'"
}

# conninfo NET DATABASE
conninfo()
{
	printf 'host=127.0.0.1 port=%s dbname=%s user=reader password=%s sslmode=%s' \
		"${cluster_port[tenant]}" "$2" "$password" "${sslmode[$1]}"
}

# producer NET DATABASE TEMPLATE DATE FORMAT: prints the file with a command that
# writes the day to its standard output.
producer()
{
	local file="$scratch/producer.$1.$2.$3.$5.sh"

	printf 'exec "%s" -X -q -d "%s" -c "COPY (%s) TO STDOUT (FORMAT %s)"\n' \
		"$bindir/psql" "$(conninfo "$1" "$2")" "$(query_on "$3" "$4")" "$5" >"$file"
	printf '%s' "$file"
}

# ---- the warehouse ----

warehouse()
{
	cluster_sql warehouse warehouse "$@"
}

start_warehouse()
{
	cluster_warehouse "shared_buffers = '1GB'
		autovacuum = off
		checkpoint_timeout = '1h'
		max_wal_size = '16GB'
		min_wal_size = '4GB'
		max_locks_per_transaction = 2048
		wh_worker.worker_idle_timeout = '1h'
		fsync = ${FSYNC:-on}"
	warehouse <<-'SQL'
		CREATE EXTENSION dblink;
		CREATE EXTENSION postgres_fdw;
		CREATE SCHEMA bench;
		CREATE TABLE bench.runs (work text, net text, pair integer, way text, ms numeric, cpu_ms numeric, wal_bytes numeric, peak_kb numeric);

		-- Of nanoseconds where the kernel counts them, else utime + stime of ticks.
		CREATE FUNCTION bench.cpu_ms(pids integer[]) RETURNS numeric LANGUAGE sql AS $$
			SELECT coalesce(sum(coalesce(split_part(pg_read_file(format('/proc/%s/schedstat', pid), 0, 1000, true), ' ', 1)::numeric / 1000000,
				10 * (stat[12]::numeric + stat[13]::numeric))), 0)
			FROM unnest(pids) AS pid,
				string_to_array(regexp_replace(pg_read_file(format('/proc/%s/stat', pid), 0, 1000, true), '^.*\) ', ''), ' ') AS stat $$;

		-- The most memory a process had, less the shared buffers it has touched.
		CREATE FUNCTION bench.peak_kb(pids integer[]) RETURNS numeric LANGUAGE sql AS $$
			SELECT max(substring(status FROM 'VmHWM:\s*(\d+)')::numeric - substring(status FROM 'RssShmem:\s*(\d+)')::numeric)
			FROM unnest(pids) AS pid, pg_read_file(format('/proc/%s/status', pid), 0, 10000, true) AS status $$;

		-- From here on the peak is counted anew.
		CREATE PROCEDURE bench.forget_peaks(pids integer[]) LANGUAGE plpgsql AS $$
			DECLARE
				pid integer;
			BEGIN
				FOREACH pid IN ARRAY pids LOOP
					EXECUTE format('COPY (SELECT 5) TO %L', format('/proc/%s/clear_refs', pid));
				END LOOP;
			END $$;

		CREATE FUNCTION bench.must_have_succeeded(id bigint, state text) RETURNS void LANGUAGE plpgsql AS $$
			BEGIN
				IF state <> 'succeeded' THEN
					RAISE 'backfill % ended as %: %', id, state, (SELECT max(last_error) FROM _wh.jobs WHERE backfill_id = id);
				END IF;
			END $$;

		CREATE FUNCTION bench.workers() RETURNS integer[] LANGUAGE sql AS $$
			SELECT coalesce(array_agg(pid ORDER BY pid), '{}') FROM _wh.worker_status WHERE backend_type LIKE '%worker' AND pid IS NOT NULL $$;
	SQL
}

# A template of ours, which nothing loads by itself.
warehouse_template()
{
	local name=$1 indexes=''

	case $name in
		indexed | probed) indexes=$food_indexes ;;
	esac
	warehouse -v name="$name" -v query="$(query_of "$name")" -v columns="$(columns_of "$name")" -v indexes="$indexes" <<-'SQL'
		INSERT INTO _wh.mv_templates (template_name, query_template, column_definitions, indexes, schedule)
		VALUES (:'name', :'query', :'columns', :'indexes', '@yearly');
	SQL
}

# warehouse_tenant NAME NET DATABASE TEMPLATE…: as if never loaded.
warehouse_tenant()
{
	local name=$1 net=$2 database=$3

	shift 3
	warehouse -v name="$name" -v port="${cluster_port[tenant]}" -v database="$database" -v password="$password" \
		-v sslmode="${sslmode[$net]}" -v first="$year_first" -v templates="{$(IFS=,; printf '%s' "$*")}" >/dev/null <<-'SQL'
		SELECT _wh.remove_tenant(tenant_name, true) FROM _wh.tenant_connections WHERE tenant_name = :'name';
		BEGIN;
		SELECT _wh.add_tenant(:'name', '127.0.0.1', :port, :'database', 'reader', :'password', :'templates', :'first');
		UPDATE _wh.tenant_connections SET sslmode = :'sslmode', tls_required = :'sslmode' = 'require' WHERE tenant_name = :'name';
		UPDATE _wh.schedules SET active = false;
		COMMIT;
	SQL
}

remove_tenants()
{
	warehouse -c 'SELECT _wh.remove_tenant(tenant_name, true) FROM _wh.tenant_connections' >/dev/null
}

# rival.food_tls and so on, for postgres_fdw.
foreign_tables()
{
	local net

	for net in "${nets[@]}"; do
		warehouse -v port="${cluster_port[tenant]}" -v password="$password" <<-SQL
			CREATE SERVER tenant_$net FOREIGN DATA WRAPPER postgres_fdw
				OPTIONS (host '127.0.0.1', port :'port', dbname 'phood', sslmode '${sslmode[$net]}', fetch_size '10000');
			CREATE USER MAPPING FOR postgres SERVER tenant_$net OPTIONS (user 'reader', password :'password');
			CREATE FOREIGN TABLE rival.food_$net ($food_columns) SERVER tenant_$net OPTIONS (schema_name 'public', table_name 'food');
			CREATE FOREIGN TABLE rival.wide_$net ($(wide_columns)) SERVER tenant_$net OPTIONS (schema_name 'public', table_name 'wide');
			CREATE FOREIGN TABLE rival.toast_$net ($toast_columns) SERVER tenant_$net OPTIONS (schema_name 'public', table_name 'toast');
		SQL
	done
}

# warehouse_workers N: that many workers, started and warm.
workers_now=4
warehouse_workers()
{
	[ "$workers_now" != "$1" ] || return 0
	workers_now=$1
	as_server tee -a "$scratch/warehouse/postgresql.conf" >/dev/null <<<"wh_worker.max_workers = $1"
	as_server "$bindir/pg_ctl" -D "$scratch/warehouse" -l "$scratch/warehouse.log" -s -w -m fast \
		-o "-p ${cluster_port[warehouse]}" restart >/dev/null 2>&1 </dev/null || fail 'the warehouse does not restart'
}

# What earlier loads left behind is written before the next begins.
settle()
{
	warehouse -c 'VACUUM pg_class, pg_attribute, pg_type, pg_depend, pg_shdepend, pg_index, pg_rewrite, pg_statistic, pg_description' \
		-c 'VACUUM _wh.jobs, _wh.day_loads, _wh.job_run_details, _wh.backfills, _wh.tenant_templates' -c 'CHECKPOINT'
}

# measure WORK NET PAIR WAY ours|here|elsewhere: the statements on standard input,
# timed in one session of the warehouse.  Whose CPU and memory it takes: that
# of our workers, of this session, or of neither.
measure()
{
	local pids

	case $5 in
		ours) pids='bench.workers()' ;;
		here) pids='ARRAY[pg_backend_pid()]' ;;
		elsewhere) pids="'{}'::integer[]" ;;
	esac
	settle
	{
		cat <<-SQL
			CALL bench.forget_peaks($pids);
			SELECT bench.cpu_ms($pids) AS cpu, pg_current_wal_insert_lsn() AS lsn, extract(epoch FROM clock_timestamp()) AS started \\gset
		SQL
		cat
		cat <<-SQL
			SELECT extract(epoch FROM clock_timestamp()) AS ended, pg_current_wal_insert_lsn() AS lsn_after \\gset
			INSERT INTO bench.runs VALUES ('$1', '$2', $3, '$4', 1000 * (:ended - :started), nullif(bench.cpu_ms($pids) - :cpu, 0),
				CASE WHEN '$5:$4' <> 'elsewhere:producer' THEN :'lsn_after'::pg_lsn - :'lsn'::pg_lsn END, bench.peak_kb($pids));
		SQL
	} >"$scratch/measured.sql"
	PGOPTIONS='-c client_min_messages=warning' warehouse -At -f "$scratch/measured.sql" >"$scratch/measured.out" ||
		fail "$1 by $4 failed"
}
