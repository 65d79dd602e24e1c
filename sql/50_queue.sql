-- Backfills: what a user enqueues, watches, cancels and retries.

CREATE FUNCTION _wh.enqueue_backfill(template_name text, tenant_name text, start_date date, end_date date,
	target_schema text DEFAULT NULL, mode text DEFAULT 'missing', newest_first boolean DEFAULT true)
RETURNS bigint LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_enqueue_backfill';
COMMENT ON FUNCTION _wh.enqueue_backfill(text, text, date, date, text, text, boolean) IS
'Queues a job for every day of the window (both ends included, UTC, at most tomorrow) that the mode (missing, failed, outdated or all) asks for, by default with the newest first. tenant_name NULL means every active tenant that subscribes actively to the template, target_schema NULL every schema that the tenant feeds with it. Returns the backfill_id; the jobs start when the transaction commits. Errors: 42704 unknown template or tenant, or no tenant subscribes; 22023 unknown mode, or a window with infinite or exchanged ends or one that ends later than tomorrow';

CREATE FUNCTION _wh.plan_backfill(template_name text, tenant_name text, start_date date, end_date date,
	target_schema text DEFAULT NULL, mode text DEFAULT 'missing', newest_first boolean DEFAULT true,
	OUT planned_tenant text, OUT planned_schema text, OUT planned_date date, OUT reason text)
RETURNS SETOF record LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_plan_backfill';
COMMENT ON FUNCTION _wh.plan_backfill(text, text, date, date, text, text, boolean) IS
'The days that enqueue_backfill with the same arguments would load, in its order, and why: missing, failed, outdated, suspect or loaded, with ", already queued" if a job for that day is pending. Changes nothing. Errors: as enqueue_backfill';

CREATE FUNCTION _wh.wait_for_backfill(backfill_id bigint, timeout interval)
RETURNS text LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_wait_for_backfill';
COMMENT ON FUNCTION _wh.wait_for_backfill(bigint, interval) IS
'Waits until the backfill has ended, all it loaded being published, or for so long: returns succeeded, failed, cancelled, or timeout; NULL for a NULL. Errors: 42704 unknown backfill, 55000 in the transaction that enqueued it';

CREATE FUNCTION _wh.cancel_backfill(backfill_id bigint)
RETURNS bigint LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_cancel_backfill';
COMMENT ON FUNCTION _wh.cancel_backfill(bigint) IS
'Cancels what is queued of a backfill and tells its running jobs to stop at once. Returns how many jobs it touched; NULL for a NULL. Days already loaded stay and are published. Errors: 42704 unknown backfill';

CREATE FUNCTION _wh.cancel_job(job_id bigint)
RETURNS bigint LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_cancel_job';
COMMENT ON FUNCTION _wh.cancel_job(bigint) IS
'Cancels a queued job, or tells a running one to stop at once. Returns how many jobs it touched: 1, or 0 if it had ended; NULL for a NULL. Errors: 42704 unknown job';

CREATE FUNCTION _wh.retry_failed(backfill_id bigint)
RETURNS bigint LANGUAGE c VOLATILE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'wh_sql_retry_failed';
COMMENT ON FUNCTION _wh.retry_failed(bigint) IS
'Queues the failed jobs of a backfill again, with all their attempts before them, except those of which the same day is pending already; the backfill is running again. Returns how many; NULL for a NULL. Errors: 42704 unknown backfill';
