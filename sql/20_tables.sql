-- The tables of the warehouse: what users write (connections, templates,
-- subscriptions) and what is kept (ledger, queue, history).

CREATE FUNCTION _wh.warehouse_identity() RETURNS text LANGUAGE c STABLE
	SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'wh_sql_warehouse_identity';
COMMENT ON FUNCTION _wh.warehouse_identity() IS
	'The system identifier of this cluster and the OID of this database, as system/oid: a copy has another';

CREATE TABLE _wh.warehouse (
	singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
	identity text NOT NULL DEFAULT _wh.warehouse_identity(),
	paused boolean NOT NULL DEFAULT false,
	paused_at timestamptz,
	paused_by text,
	resumed_at timestamptz
);
INSERT INTO _wh.warehouse DEFAULT VALUES;
COMMENT ON TABLE _wh.warehouse IS 'The one row of warehouse-wide state; written by _wh.pause(), _wh.resume() and _wh.confirm_warehouse()';
COMMENT ON COLUMN _wh.warehouse.singleton IS 'Always true: there is one row';
COMMENT ON COLUMN _wh.warehouse.identity IS 'warehouse_identity() of the database that may load the tenants; another value, such as restored, stops all jobs until confirm_warehouse()';
COMMENT ON COLUMN _wh.warehouse.paused IS 'Whether no new job may start';
COMMENT ON COLUMN _wh.warehouse.paused_at IS 'When it was paused';
COMMENT ON COLUMN _wh.warehouse.paused_by IS 'Role that paused it';
COMMENT ON COLUMN _wh.warehouse.resumed_at IS 'When its last pause ended, or it was confirmed; NULL: neither';

CREATE TABLE _wh.tenant_connections (
	tenant_name text PRIMARY KEY,
	host text NOT NULL,
	port integer NOT NULL DEFAULT 5432,
	dbname text NOT NULL,
	username text NOT NULL,
	password text,
	sslmode text NOT NULL DEFAULT 'require',
	sslrootcert text,
	options jsonb NOT NULL DEFAULT '{}',
	max_connections integer,
	max_rows_per_second integer,
	max_bytes_per_second bigint,
	quiet_hours text,
	active boolean NOT NULL DEFAULT true,
	password_required boolean NOT NULL DEFAULT true,
	tls_required boolean NOT NULL DEFAULT true,
	password_from_command boolean NOT NULL DEFAULT false,
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE _wh.tenant_connections IS 'The production databases we read, one row a tenant';
COMMENT ON COLUMN _wh.tenant_connections.tenant_name IS 'Name of the tenant, at most 63 bytes; the default name of its schema';
COMMENT ON COLUMN _wh.tenant_connections.host IS 'Host name, address or socket directory';
COMMENT ON COLUMN _wh.tenant_connections.port IS 'TCP port, 1 to 65535';
COMMENT ON COLUMN _wh.tenant_connections.dbname IS 'Database at the tenant';
COMMENT ON COLUMN _wh.tenant_connections.username IS 'Role at the tenant; read-only rights are enough';
COMMENT ON COLUMN _wh.tenant_connections.password IS 'Password of that role, encrypted if there is a key file, or NULL; cleared by a change of host, port, dbname or username, and of sslmode to one that verifies less, that does not give it anew';
COMMENT ON COLUMN _wh.tenant_connections.sslmode IS 'As libpq''s sslmode; require by default, at least require over TCP unless tls_required is off';
COMMENT ON COLUMN _wh.tenant_connections.sslrootcert IS 'File with trusted certificate authorities, for verify-ca and verify-full; only a superuser may name one';
COMMENT ON COLUMN _wh.tenant_connections.options IS 'Further libpq parameters as a JSON object of strings and numbers, from a list of safe ones, and for superusers files: sslcert, sslkey, sslcrl, sslcrldir';
COMMENT ON COLUMN _wh.tenant_connections.max_connections IS 'Workers at once for this tenant; NULL means wh_worker.max_workers_per_tenant';
COMMENT ON COLUMN _wh.tenant_connections.max_rows_per_second IS 'Rows a second that backfills read from this tenant, all their workers together; other loads are not held; NULL: no limit';
COMMENT ON COLUMN _wh.tenant_connections.max_bytes_per_second IS 'The same for bytes of data, as bytes_fetched in worker_status counts them; with both set, both hold';
COMMENT ON COLUMN _wh.tenant_connections.quiet_hours IS 'Windows of the day in which no job reads the tenant, as 08:00-12:00, 22:00-02:00, in the zone wh_worker.timezone; NULL: none';
COMMENT ON COLUMN _wh.tenant_connections.active IS 'Whether jobs of this tenant may start; written by pause_tenant and resume_tenant';
COMMENT ON COLUMN _wh.tenant_connections.password_required IS 'Whether the tenant has to ask for the password of this row before anything is sent there; only a superuser may turn it off';
COMMENT ON COLUMN _wh.tenant_connections.tls_required IS 'Whether sslmode must be at least require over TCP; only a superuser may turn it off';
COMMENT ON COLUMN _wh.tenant_connections.password_from_command IS 'Whether wh_worker.password_command gives the password when none is stored; only a superuser may turn it on';
COMMENT ON COLUMN _wh.tenant_connections.created_at IS 'When the row was made';
COMMENT ON COLUMN _wh.tenant_connections.updated_at IS 'When the row was last changed';

CREATE TABLE _wh.mv_templates (
	template_name text PRIMARY KEY,
	description text,
	query_template text NOT NULL,
	column_definitions text NOT NULL,
	indexes text NOT NULL DEFAULT '',
	layout text NOT NULL DEFAULT 'matviews' CHECK (layout IN ('matviews', 'partitions')),
	date_column text,
	schedule text NOT NULL DEFAULT 'H */4 * * *',
	settle_days integer NOT NULL DEFAULT 1,
	suspect_factor double precision,
	keep_last_good boolean NOT NULL DEFAULT false,
	change_probe text,
	month_tablespace text,
	year_tablespace text,
	keep_days integer,
	keep_years integer,
	retention text NOT NULL DEFAULT 'drop',
	fresh_within interval,
	fresh_after text NOT NULL DEFAULT 'load',
	version integer NOT NULL DEFAULT 1,
	tenant_isolation boolean NOT NULL DEFAULT false,
	view_oid oid,
	isolated_view_oid oid,
	tree_oid oid,
	unadopted_schemas text[] NOT NULL DEFAULT '{}',
	created_at timestamptz NOT NULL DEFAULT now(),
	updated_at timestamptz NOT NULL DEFAULT now(),
	CONSTRAINT mv_templates_suspect_factor_is_at_least_1
		CHECK (suspect_factor >= 1 AND suspect_factor <= 1000000),
	CONSTRAINT mv_templates_settle_days_is_at_least_0
		CHECK (settle_days >= 0),
	CONSTRAINT mv_templates_keep_days_is_at_least_1 CHECK (keep_days >= 1),
	CONSTRAINT mv_templates_keep_years_is_at_least_1 CHECK (keep_years >= 1),
	CONSTRAINT mv_templates_retention_is_drop_or_detach CHECK (retention IN ('drop', 'detach')),
	CONSTRAINT mv_templates_fresh_within_is_up_to_10_years
		CHECK (fresh_within > interval '0' AND fresh_within <= interval '10 years'),
	CONSTRAINT mv_templates_fresh_after_is_load_or_day CHECK (fresh_after IN ('load', 'day'))
);
COMMENT ON TABLE _wh.mv_templates IS 'The queries we run at tenants, with their columns and indexes';
COMMENT ON COLUMN _wh.mv_templates.template_name IS 'Name of the template, at most 63 bytes; the name of its views';
COMMENT ON COLUMN _wh.mv_templates.description IS 'What it is, for people';
COMMENT ON COLUMN _wh.mv_templates.query_template IS 'A single SELECT with {TARGET_DATE} inside quotes; the date is put in as YYYY-MM-DD';
COMMENT ON COLUMN _wh.mv_templates.column_definitions IS 'Names and types of the result, as in a column list';
COMMENT ON COLUMN _wh.mv_templates.indexes IS 'CREATE INDEX statements separated by semicolons, with {schema} and {view_name}';
COMMENT ON COLUMN _wh.mv_templates.layout IS 'How days are kept: matviews (a materialized view each, under union views) or partitions (leaves of one partition tree); days that are loaded already are moved by _wh.convert_layout()';
COMMENT ON COLUMN _wh.mv_templates.date_column IS 'The column of type date, timestamp or timestamptz that tells a row''s day (UTC); the layout partitions needs it';
COMMENT ON COLUMN _wh.mv_templates.schedule IS 'When its subscriptions are refreshed: what setup_cron and add_tenant write into schedules';
COMMENT ON COLUMN _wh.mv_templates.settle_days IS 'How many days a month or year is left alone after it ended before its schedule combines it, so that late rows find their days';
COMMENT ON COLUMN _wh.mv_templates.suspect_factor IS 'A day is suspect with fewer rows than the median of the days before divided by it, or more than that times it; NULL: never';
COMMENT ON COLUMN _wh.mv_templates.keep_last_good IS 'Whether a day keeps the content it has when what comes is suspect';
COMMENT ON COLUMN _wh.mv_templates.change_probe IS 'A single cheap SELECT whose result tells whether a day has changed at the tenant, {TARGET_DATE} as in query_template; a day that is there is not fetched again while the result is what it was; NULL: none';
COMMENT ON COLUMN _wh.mv_templates.month_tablespace IS 'Tablespace in which the tables of months are made, and those of their indexes that name none; NULL: the database''s';
COMMENT ON COLUMN _wh.mv_templates.year_tablespace IS 'The same for years';
COMMENT ON COLUMN _wh.mv_templates.keep_days IS 'Days before today (UTC) that are kept; a relation goes when its newest day is older, a month or year as a whole; NULL: no such limit';
COMMENT ON COLUMN _wh.mv_templates.keep_years IS 'Calendar years before this one that are kept likewise; with keep_days too, what either keeps is kept; NULL: no such limit';
COMMENT ON COLUMN _wh.mv_templates.retention IS 'What becomes of relations that are too old: drop, or detach: out of the views and the ledger, and left as they are';
COMMENT ON COLUMN _wh.mv_templates.fresh_within IS 'The promise to readers: how old the data of a subscription may get, see fresh_after; an interval of more than nothing and at most 10 years; NULL: none is made';
COMMENT ON COLUMN _wh.mv_templates.fresh_after IS 'What fresh_within counts from: load (the moment up to which all data is there, data_freshness.complete_until, is never longer ago) or day (each day is complete, by a load begun after it ended, within that time of its end in UTC)';
COMMENT ON COLUMN _wh.mv_templates.tenant_isolation IS 'Whether there is a public view {template}_isolated, in which readers of tenants (grant_tenant_reader) see the rows of these tenants';
COMMENT ON COLUMN _wh.mv_templates.version IS 'Counts the changes of query, columns and indexes';
COMMENT ON COLUMN _wh.mv_templates.view_oid IS 'The public view that we made, or NULL; a view with another OID is never replaced';
COMMENT ON COLUMN _wh.mv_templates.isolated_view_oid IS 'The isolated view that we made, or NULL; a view with another OID is never replaced';
COMMENT ON COLUMN _wh.mv_templates.tree_oid IS 'The root of the partition tree that we made, or NULL';
COMMENT ON COLUMN _wh.mv_templates.unadopted_schemas IS 'Schemas whose views of the old way the public view reads until adopt() is called for their tenants';
COMMENT ON COLUMN _wh.mv_templates.created_at IS 'When the row was made';
COMMENT ON COLUMN _wh.mv_templates.updated_at IS 'When the row was last changed';

CREATE TABLE _wh.tenant_templates (
	tenant_name text NOT NULL,
	template_name text NOT NULL,
	target_schema text NOT NULL,
	start_date date NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')::date,
	active boolean NOT NULL DEFAULT true,
	days bigint NOT NULL DEFAULT 0,
	days_since_start bigint NOT NULL DEFAULT 0,
	outdated_days bigint NOT NULL DEFAULT 0,
	rows bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	data_through date,
	last_success timestamptz,
	complete_until timestamptz,
	run_seconds double precision,
	queue_seconds double precision,
	failing_since timestamptz,
	view_oid oid,
	part_oid oid,
	locks bigint NOT NULL DEFAULT 0,
	refused_days bigint NOT NULL DEFAULT 0,
	members bigint NOT NULL DEFAULT 0,
	reads_part boolean NOT NULL DEFAULT false,
	locks_unfiltered bigint NOT NULL DEFAULT 0,
	day_relations bigint NOT NULL DEFAULT 0,
	day_rows bigint NOT NULL DEFAULT 0,
	day_bytes bigint NOT NULL DEFAULT 0,
	day_tablespaces text[] NOT NULL DEFAULT '{}',
	month_relations bigint NOT NULL DEFAULT 0,
	month_rows bigint NOT NULL DEFAULT 0,
	month_bytes bigint NOT NULL DEFAULT 0,
	month_tablespaces text[] NOT NULL DEFAULT '{}',
	year_relations bigint NOT NULL DEFAULT 0,
	year_rows bigint NOT NULL DEFAULT 0,
	year_bytes bigint NOT NULL DEFAULT 0,
	year_tablespaces text[] NOT NULL DEFAULT '{}',
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_name, template_name, target_schema),
	CONSTRAINT tenant_templates_one_tenant_per_schema_and_template UNIQUE (template_name, target_schema),
	CONSTRAINT tenant_templates_start_date_has_a_year_of_four_digits
		CHECK (start_date BETWEEN '0001-01-01' AND '9999-12-31')
) WITH (fillfactor = 70);
COMMENT ON TABLE _wh.tenant_templates IS 'Subscriptions: which tenant feeds which template into which schema';
COMMENT ON COLUMN _wh.tenant_templates.tenant_name IS 'The tenant';
COMMENT ON COLUMN _wh.tenant_templates.template_name IS 'The template';
COMMENT ON COLUMN _wh.tenant_templates.target_schema IS 'The schema of its day relations and its tenant view';
COMMENT ON COLUMN _wh.tenant_templates.start_date IS 'First day that is expected to be there (UTC)';
COMMENT ON COLUMN _wh.tenant_templates.active IS 'Whether it is loaded; an inactive one stays queryable';
COMMENT ON COLUMN _wh.tenant_templates.days IS 'Days published, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.days_since_start IS 'Days published from start_date on, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.outdated_days IS 'Days of them that an older version of the template loaded';
COMMENT ON COLUMN _wh.tenant_templates.rows IS 'Rows of these days';
COMMENT ON COLUMN _wh.tenant_templates.bytes IS 'Bytes of their relations, with indexes and TOAST';
COMMENT ON COLUMN _wh.tenant_templates.data_through IS 'Newest day published';
COMMENT ON COLUMN _wh.tenant_templates.last_success IS 'When a day was last loaded, or seen to be unchanged';
COMMENT ON COLUMN _wh.tenant_templates.complete_until IS 'The moment up to which all data is there, as of the last publication or look at the tenant: the start of the load of the first day that is not complete, or the start of that day if it has no content; looked for among the newest day published and the wh_worker.catchup_days before it, not before start_date; NULL: nothing is there';
COMMENT ON COLUMN _wh.tenant_templates.run_seconds IS 'How long a load that its schedule queued takes, from its start to its commit: a mean in which each counts a quarter and all before it the rest; NULL: there was none';
COMMENT ON COLUMN _wh.tenant_templates.queue_seconds IS 'How long such a load waits for a worker before it is first started, in the same way, but for waits in which a pause ended, the server started or its configuration was read';
COMMENT ON COLUMN _wh.tenant_templates.failing_since IS 'Since when loads that would move complete_until on have failed for good; NULL: the last one did not';
COMMENT ON COLUMN _wh.tenant_templates.view_oid IS 'The tenant view that we made, or NULL; a view with another OID is never replaced';
COMMENT ON COLUMN _wh.tenant_templates.part_oid IS 'Its part of the partition tree that we made, or NULL';
COMMENT ON COLUMN _wh.tenant_templates.locks IS 'Locks of a query of the tenant view, of partitions one for the last 30 days, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.refused_days IS 'Loaded days that are kept out of the tenant view, a query of which would need more locks than the server has';
COMMENT ON COLUMN _wh.tenant_templates.members IS 'Relations that its view reads, leaves of partitions each by itself, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.reads_part IS 'Whether its view reads its part of the partition tree, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.locks_unfiltered IS 'Locks of a query of the tenant view without a condition, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.day_relations IS 'Day relations that are there, in the views or not, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.day_rows IS 'Their rows';
COMMENT ON COLUMN _wh.tenant_templates.day_bytes IS 'Their bytes with indexes and TOAST, as they were when loaded';
COMMENT ON COLUMN _wh.tenant_templates.day_tablespaces IS 'Names of the tablespaces they were in';
COMMENT ON COLUMN _wh.tenant_templates.month_relations IS 'Tables of months that are there, in the views or not, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.month_rows IS 'Their rows';
COMMENT ON COLUMN _wh.tenant_templates.month_bytes IS 'Their bytes with indexes and TOAST, as they were when loaded';
COMMENT ON COLUMN _wh.tenant_templates.month_tablespaces IS 'Names of the tablespaces they were in';
COMMENT ON COLUMN _wh.tenant_templates.year_relations IS 'Tables of years that are there, in the views or not, as of the last publication';
COMMENT ON COLUMN _wh.tenant_templates.year_rows IS 'Their rows';
COMMENT ON COLUMN _wh.tenant_templates.year_bytes IS 'Their bytes with indexes and TOAST, as they were when loaded';
COMMENT ON COLUMN _wh.tenant_templates.year_tablespaces IS 'Names of the tablespaces they were in';
COMMENT ON COLUMN _wh.tenant_templates.created_at IS 'When the row was made';

CREATE TABLE _wh.tenant_readers (
	tenant_name text NOT NULL,
	role_name text NOT NULL,
	role_oid oid,
	created_at timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant_name, role_name)
);
COMMENT ON TABLE _wh.tenant_readers IS 'Roles that may read one tenant; written by grant_tenant_reader and revoke_tenant_reader';
COMMENT ON COLUMN _wh.tenant_readers.tenant_name IS 'The tenant';
COMMENT ON COLUMN _wh.tenant_readers.role_name IS 'The role, as it was called when the row was written';
COMMENT ON COLUMN _wh.tenant_readers.role_oid IS 'The role that had that name then; who has it now counts for nothing, NULL: nobody had it';
COMMENT ON COLUMN _wh.tenant_readers.created_at IS 'When the row was made';

CREATE TABLE _wh.backfills (
	backfill_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	template_name text NOT NULL,
	tenant_name text,
	target_schema text,
	start_date date NOT NULL,
	end_date date NOT NULL,
	mode text NOT NULL CHECK (mode IN ('missing', 'failed', 'outdated', 'all')),
	newest_first boolean NOT NULL,
	state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'succeeded', 'failed', 'cancelled')),
	paused boolean NOT NULL DEFAULT false,
	cancel_requested boolean NOT NULL DEFAULT false,
	days_total bigint NOT NULL DEFAULT 0,
	waits_for bigint[] NOT NULL DEFAULT '{}',
	enqueued_by text NOT NULL DEFAULT session_user,
	created_at timestamptz NOT NULL DEFAULT now(),
	finished_at timestamptz,
	last_error text,
	CHECK (start_date <= end_date)
);
CREATE INDEX backfills_running_idx ON _wh.backfills (backfill_id) WHERE state = 'running';
COMMENT ON TABLE _wh.backfills IS 'Batches of jobs made by enqueue_backfill';
COMMENT ON COLUMN _wh.backfills.backfill_id IS 'What enqueue_backfill returned';
COMMENT ON COLUMN _wh.backfills.template_name IS 'The template';
COMMENT ON COLUMN _wh.backfills.tenant_name IS 'The tenant, or NULL for every active tenant of the template';
COMMENT ON COLUMN _wh.backfills.target_schema IS 'The schema asked for, or NULL';
COMMENT ON COLUMN _wh.backfills.start_date IS 'First day asked for (UTC)';
COMMENT ON COLUMN _wh.backfills.end_date IS 'Last day asked for, included';
COMMENT ON COLUMN _wh.backfills.mode IS 'Which days: missing, failed, outdated or all';
COMMENT ON COLUMN _wh.backfills.newest_first IS 'Whether the newest day is loaded first';
COMMENT ON COLUMN _wh.backfills.state IS 'running, succeeded, failed or cancelled';
COMMENT ON COLUMN _wh.backfills.paused IS 'Whether its jobs may not start';
COMMENT ON COLUMN _wh.backfills.cancel_requested IS 'Whether cancel_backfill was called';
COMMENT ON COLUMN _wh.backfills.days_total IS 'Days it has to load itself';
COMMENT ON COLUMN _wh.backfills.waits_for IS 'Backfills that had queued some of its days already; it ends after them';
COMMENT ON COLUMN _wh.backfills.enqueued_by IS 'Role that enqueued it';
COMMENT ON COLUMN _wh.backfills.created_at IS 'When it was enqueued';
COMMENT ON COLUMN _wh.backfills.finished_at IS 'When it ended';
COMMENT ON COLUMN _wh.backfills.last_error IS 'Why it failed';

CREATE TABLE _wh.jobs (
	job_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	kind text NOT NULL CHECK (kind IN ('refresh', 'publish', 'sql', 'combine_month', 'combine_year', 'retention', 'convert')),
	template_name text,
	tenant_name text,
	target_schema text,
	target_date date,
	backfill_id bigint,
	schedule_id bigint,
	reason text,
	priority smallint NOT NULL,
	sequence_number bigint NOT NULL DEFAULT 0,
	state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
	attempt integer NOT NULL DEFAULT 0,
	not_before timestamptz NOT NULL DEFAULT '-infinity',
	owner_pid integer,
	enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	first_started_at timestamptz,
	started_at timestamptz,
	finished_at timestamptz,
	last_sqlstate text,
	last_error text,
	rows bigint,
	bytes bigint,
	CONSTRAINT jobs_have_a_target CHECK (CASE
		WHEN kind IN ('refresh', 'combine_month', 'combine_year', 'convert') THEN template_name IS NOT NULL AND tenant_name IS NOT NULL
			AND target_schema IS NOT NULL AND target_date IS NOT NULL
		WHEN kind IN ('publish', 'retention') THEN template_name IS NOT NULL
		ELSE schedule_id IS NOT NULL END)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX jobs_one_pending_per_day_idx ON _wh.jobs (template_name, target_schema, target_date)
	WHERE kind = 'refresh' AND state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_pending_publish_idx ON _wh.jobs (template_name)
	WHERE kind = 'publish' AND state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_pending_per_schedule_idx ON _wh.jobs (schedule_id)
	WHERE kind = 'sql' AND state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_pending_per_period_idx ON _wh.jobs (kind, template_name, target_schema, target_date)
	WHERE kind IN ('combine_month', 'combine_year') AND state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_pending_retention_idx ON _wh.jobs (template_name)
	WHERE kind = 'retention' AND state IN ('queued', 'running');
CREATE UNIQUE INDEX jobs_one_pending_conversion_idx ON _wh.jobs (template_name, target_schema, target_date)
	WHERE kind = 'convert' AND state IN ('queued', 'running');
CREATE INDEX jobs_backfill_idx ON _wh.jobs (backfill_id) WHERE backfill_id IS NOT NULL;
CREATE INDEX jobs_publish_idx ON _wh.jobs (backfill_id) WHERE kind = 'publish';
CREATE INDEX jobs_running_idx ON _wh.jobs (job_id) WHERE state = 'running';
CREATE INDEX jobs_failed_newest_idx ON _wh.jobs (job_id) WHERE state = 'failed';
CREATE INDEX jobs_queued_idx ON _wh.jobs (job_id) WHERE state = 'queued';
CREATE INDEX jobs_failed_idx ON _wh.jobs (finished_at) WHERE state = 'failed';
COMMENT ON TABLE _wh.jobs IS 'The durable queue; written only by the functions and workers of wh_worker';
COMMENT ON COLUMN _wh.jobs.job_id IS 'Identifies the job';
COMMENT ON COLUMN _wh.jobs.kind IS 'refresh (load a day), publish (put loaded days into the views), sql (the command of a schedule), combine_month or combine_year (the days of one into a table), retention (what is older than its template wants it kept) or convert (move a day, month or year to the layout of its template)';
COMMENT ON COLUMN _wh.jobs.template_name IS 'The template';
COMMENT ON COLUMN _wh.jobs.tenant_name IS 'The tenant that is refreshed, or whose days are combined or moved';
COMMENT ON COLUMN _wh.jobs.target_schema IS 'The schema of these days';
COMMENT ON COLUMN _wh.jobs.target_date IS 'The day of a refresh, the first day of the month or year, or the first in a relation that is moved (UTC); never computed again';
COMMENT ON COLUMN _wh.jobs.backfill_id IS 'The backfill it belongs to, or NULL';
COMMENT ON COLUMN _wh.jobs.schedule_id IS 'The schedule that made it, or NULL';
COMMENT ON COLUMN _wh.jobs.reason IS 'Why a schedule made it: today, unfinished, missing, failed or due; of a conversion the layout that was asked for';
COMMENT ON COLUMN _wh.jobs.priority IS 'Class: lower runs first; 10 interactive, 20 publish, 25 today, 30 catch-up, 40 backfill';
COMMENT ON COLUMN _wh.jobs.sequence_number IS 'Order within the class and tenant';
COMMENT ON COLUMN _wh.jobs.state IS 'queued, running, succeeded, failed or cancelled';
COMMENT ON COLUMN _wh.jobs.attempt IS 'How often it was started, but for attempts that found its tenant set aside';
COMMENT ON COLUMN _wh.jobs.not_before IS 'It does not start earlier (retries wait)';
COMMENT ON COLUMN _wh.jobs.owner_pid IS 'Process that runs it';
COMMENT ON COLUMN _wh.jobs.enqueued_at IS 'When it was enqueued';
COMMENT ON COLUMN _wh.jobs.first_started_at IS 'When its first attempt started, or when it was kept from starting by its tenant, which was set aside and came back since';
COMMENT ON COLUMN _wh.jobs.started_at IS 'When its last attempt started';
COMMENT ON COLUMN _wh.jobs.finished_at IS 'When it ended';
COMMENT ON COLUMN _wh.jobs.last_sqlstate IS 'SQLSTATE of its last error';
COMMENT ON COLUMN _wh.jobs.last_error IS 'Message of its last error';
COMMENT ON COLUMN _wh.jobs.rows IS 'Rows of the day that a refresh loaded; NULL: it has loaded none';
COMMENT ON COLUMN _wh.jobs.bytes IS 'Bytes on disk of that day, with indexes and TOAST, when it was loaded';

CREATE TABLE _wh.schedules (
	schedule_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	name text NOT NULL UNIQUE,
	schedule text NOT NULL,
	timezone text,
	kind text NOT NULL DEFAULT 'sql' CHECK (kind IN ('refresh', 'publish', 'sql', 'combine_month', 'combine_year', 'retention')),
	template_name text,
	tenant_name text,
	target_schema text,
	command text,
	active boolean NOT NULL DEFAULT true,
	username text NOT NULL DEFAULT '',
	next_run timestamptz,
	last_run timestamptz,
	last_status text,
	CONSTRAINT schedules_have_a_target CHECK (CASE
		WHEN kind IN ('refresh', 'combine_month', 'combine_year') THEN template_name IS NOT NULL AND tenant_name IS NOT NULL
			AND target_schema IS NOT NULL AND command IS NULL
		WHEN kind IN ('publish', 'retention') THEN template_name IS NOT NULL AND command IS NULL
		ELSE command IS NOT NULL END)
);
CREATE INDEX schedules_subscription_idx ON _wh.schedules (template_name, tenant_name, target_schema) WHERE tenant_name IS NOT NULL;
COMMENT ON TABLE _wh.schedules IS 'What runs when';
COMMENT ON COLUMN _wh.schedules.schedule_id IS 'Identifies the schedule; jobid in _wh.job and job_run_details';
COMMENT ON COLUMN _wh.schedules.name IS 'Its name; what H in the schedule is spread by';
COMMENT ON COLUMN _wh.schedules.schedule IS 'Five cron fields, @hourly and kin, or an interval such as 30 seconds';
COMMENT ON COLUMN _wh.schedules.timezone IS 'IANA time zone of the fields; NULL: wh_worker.timezone';
COMMENT ON COLUMN _wh.schedules.kind IS 'refresh (the days a subscription lacks), combine_month or combine_year (its months or years that are over), publish (a template''s views), retention (what of a template is too old) or sql (the command)';
COMMENT ON COLUMN _wh.schedules.template_name IS 'The template; NULL for sql';
COMMENT ON COLUMN _wh.schedules.tenant_name IS 'The tenant of a subscription that is refreshed or combined';
COMMENT ON COLUMN _wh.schedules.target_schema IS 'The schema of that subscription';
COMMENT ON COLUMN _wh.schedules.command IS 'What an sql schedule runs';
COMMENT ON COLUMN _wh.schedules.active IS 'Whether it comes due; written by pause_schedule and resume_schedule';
COMMENT ON COLUMN _wh.schedules.username IS 'The role that an sql schedule runs as: who wrote the row';
COMMENT ON COLUMN _wh.schedules.next_run IS 'When it comes due next; in the past: as soon as it can; infinity: never';
COMMENT ON COLUMN _wh.schedules.last_run IS 'When it last came due and was decided on';
COMMENT ON COLUMN _wh.schedules.last_status IS 'What came of it: of the decision first, then of the last job that it made';

CREATE TABLE _wh.tenant_failures (
	tenant_name text PRIMARY KEY,
	consecutive_failures integer NOT NULL,
	last_failure_at timestamptz NOT NULL,
	last_sqlstate text,
	last_error text,
	retry_at timestamptz,
	first_failure_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE _wh.tenant_failures IS 'Tenants that could not be connected to; read the view tenant_health instead';
COMMENT ON COLUMN _wh.tenant_failures.tenant_name IS 'The tenant';
COMMENT ON COLUMN _wh.tenant_failures.consecutive_failures IS 'Connections that failed since the last one that was made';
COMMENT ON COLUMN _wh.tenant_failures.last_failure_at IS 'When the last one failed';
COMMENT ON COLUMN _wh.tenant_failures.last_sqlstate IS 'Its SQLSTATE';
COMMENT ON COLUMN _wh.tenant_failures.last_error IS 'Its message';
COMMENT ON COLUMN _wh.tenant_failures.retry_at IS 'Set aside until then, when one job may probe; NULL: not set aside';
COMMENT ON COLUMN _wh.tenant_failures.first_failure_at IS 'When the first of these failed: the tenant has been out of reach since';

CREATE TABLE _wh.day_loads (
	template_name text NOT NULL,
	target_schema text NOT NULL,
	target_date date NOT NULL,
	tenant_name text NOT NULL,
	relation text NOT NULL,
	relation_oid oid,
	relation_file oid,
	state text NOT NULL CHECK (state IN ('loaded', 'published', 'suspect', 'combined', 'failed', 'missing')),
	in_views boolean NOT NULL DEFAULT false,
	counted boolean NOT NULL DEFAULT true,
	rows bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	loaded_at timestamptz,
	fetch_started_at timestamptz,
	template_version integer,
	indexes_md5 text,
	probe_result text,
	probe_md5 text,
	checked_at timestamptz,
	job_id bigint,
	failed_at timestamptz,
	last_error text,
	PRIMARY KEY (template_name, target_schema, target_date)
);
CREATE INDEX day_loads_uncounted_idx ON _wh.day_loads (template_name, target_schema) WHERE NOT counted;
CREATE INDEX day_loads_relation_oid_idx ON _wh.day_loads (relation_oid) WHERE relation_oid IS NOT NULL;
CREATE INDEX day_loads_suspect_idx ON _wh.day_loads (template_name, target_schema) WHERE state = 'suspect';
CREATE INDEX day_loads_failed_idx ON _wh.day_loads (template_name, target_schema, target_date) WHERE failed_at IS NOT NULL;
COMMENT ON TABLE _wh.day_loads IS 'The ledger: which days are loaded, from what and when';
COMMENT ON COLUMN _wh.day_loads.template_name IS 'The template';
COMMENT ON COLUMN _wh.day_loads.target_schema IS 'The schema';
COMMENT ON COLUMN _wh.day_loads.target_date IS 'The day (UTC)';
COMMENT ON COLUMN _wh.day_loads.tenant_name IS 'The tenant it came from';
COMMENT ON COLUMN _wh.day_loads.relation IS 'Name of the day relation in target_schema, or of the table of its month or year that many days share';
COMMENT ON COLUMN _wh.day_loads.relation_oid IS 'OID of that relation; NULL while there is none';
COMMENT ON COLUMN _wh.day_loads.relation_file IS 'Its file (relfilenode) as we loaded it';
COMMENT ON COLUMN _wh.day_loads.state IS 'loaded (in its relation), published (in the views), suspect (in its relation or table, see last_error), combined (in the table of its month or year), failed (there is no content) or missing (a person took its relation away)';
COMMENT ON COLUMN _wh.day_loads.in_views IS 'Whether its relation is in the views';
COMMENT ON COLUMN _wh.day_loads.counted IS 'Whether views and counters of the subscription know of it; false asks for a publication';
COMMENT ON COLUMN _wh.day_loads.rows IS 'Rows: as the tenant counted them, as received and as loaded';
COMMENT ON COLUMN _wh.day_loads.bytes IS 'Bytes of the relation with indexes and TOAST; its share of those of a month or year';
COMMENT ON COLUMN _wh.day_loads.loaded_at IS 'When the content was loaded';
COMMENT ON COLUMN _wh.day_loads.fetch_started_at IS 'When the tenant''s snapshot of that content was taken, or a moment before';
COMMENT ON COLUMN _wh.day_loads.template_version IS 'Version of the template that loaded it';
COMMENT ON COLUMN _wh.day_loads.indexes_md5 IS 'MD5 of the template''s indexes that it was loaded with';
COMMENT ON COLUMN _wh.day_loads.probe_result IS 'What the template''s change_probe gave in the tenant''s snapshot of that content: a line per row, or of more than 1000 bytes their SHA-256; NULL: there was none';
COMMENT ON COLUMN _wh.day_loads.probe_md5 IS 'MD5 of that change_probe and of the host, port, database and role that it was asked with; the result counts for no other';
COMMENT ON COLUMN _wh.day_loads.checked_at IS 'When the change_probe last said that the content is what the tenant has, or a moment before; NULL: not since it was loaded';
COMMENT ON COLUMN _wh.day_loads.job_id IS 'The job that loaded it; NULL for a call that ran at once';
COMMENT ON COLUMN _wh.day_loads.failed_at IS 'When the last attempt failed; NULL when it did not';
COMMENT ON COLUMN _wh.day_loads.last_error IS 'Message of that failure, or why the day is suspect, missing or kept out of the view of its tenant';

CREATE TABLE _wh.job_run_details (
	jobid bigint,
	runid bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
	job_pid integer,
	database text NOT NULL DEFAULT current_database(),
	username text NOT NULL DEFAULT current_user,
	command text,
	status text NOT NULL,
	return_message text,
	start_time timestamptz,
	end_time timestamptz,
	job_id bigint,
	sqlstate text,
	phase text,
	rows bigint,
	bytes bigint,
	reason text
);
CREATE INDEX job_run_details_job_idx ON _wh.job_run_details (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX job_run_details_end_time_idx ON _wh.job_run_details USING brin (end_time);
COMMENT ON TABLE _wh.job_run_details IS 'One row per attempt of a job, decision of a schedule, or call that ran at once; kept for wh_worker.history_days, and of more than a million rows only the newest';
COMMENT ON COLUMN _wh.job_run_details.jobid IS 'The schedule, as in cron.job_run_details; NULL for jobs that no schedule made';
COMMENT ON COLUMN _wh.job_run_details.runid IS 'Identifies the attempt';
COMMENT ON COLUMN _wh.job_run_details.job_pid IS 'Process that ran it';
COMMENT ON COLUMN _wh.job_run_details.database IS 'Database it ran in';
COMMENT ON COLUMN _wh.job_run_details.username IS 'Role it ran as';
COMMENT ON COLUMN _wh.job_run_details.command IS 'What it did, for people';
COMMENT ON COLUMN _wh.job_run_details.status IS 'Of an attempt: succeeded, retrying, failed or cancelled; of a schedule that came due: enqueued, coalesced, skipped or failed';
COMMENT ON COLUMN _wh.job_run_details.return_message IS 'The error, or what was loaded, unchanged for a day that its change_probe kept from being fetched, the tag of a command, or what was queued';
COMMENT ON COLUMN _wh.job_run_details.start_time IS 'When the attempt started';
COMMENT ON COLUMN _wh.job_run_details.end_time IS 'When it ended';
COMMENT ON COLUMN _wh.job_run_details.job_id IS 'The job; NULL for a call that ran at once, and where a schedule made none or several';
COMMENT ON COLUMN _wh.job_run_details.sqlstate IS 'SQLSTATE of the error';
COMMENT ON COLUMN _wh.job_run_details.phase IS 'Phase in which the error came';
COMMENT ON COLUMN _wh.job_run_details.rows IS 'Rows loaded, combined or retired, or of all statements of a command';
COMMENT ON COLUMN _wh.job_run_details.bytes IS 'Bytes received from the tenant, or of the relations that retention took';
COMMENT ON COLUMN _wh.job_run_details.reason IS 'Why the job existed, such as "backfill 7", "today" or "due"; of a schedule that came due also how many runs it caught up';

SELECT pg_catalog.pg_extension_config_dump('_wh.tenant_connections', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.mv_templates', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.tenant_templates', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.tenant_readers', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.backfills', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.backfills_backfill_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.schedules', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.schedules_schedule_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.jobs', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.jobs_job_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.day_loads', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.job_run_details', '');
SELECT pg_catalog.pg_extension_config_dump('_wh.job_run_details_runid_seq', '');
