set jit=off; set timezone='UTC';
set plan_cache_mode=force_generic_plan;
prepare g as select count(*) from t7.big where logged_time >= current_date - interval '30 days';
prepare gp(int) as select count(*) from t7.big where logged_time >= current_date - $1;
execute g; execute gp(30);
\echo generic without parameters / with parameter / custom with parameter: locks
begin; execute g; select count(*) from pg_locks where pid=pg_backend_pid() and locktype='relation' and relation<>'pg_locks'::regclass; commit;
begin; execute gp(30); select count(*) from pg_locks where pid=pg_backend_pid() and locktype='relation' and relation<>'pg_locks'::regclass; commit;
set plan_cache_mode=force_custom_plan;
begin; execute gp(30); select count(*) from pg_locks where pid=pg_backend_pid() and locktype='relation' and relation<>'pg_locks'::regclass; commit;
set plan_cache_mode=auto;
begin; execute gp(30);execute gp(30);execute gp(30);execute gp(30);execute gp(30);execute gp(30); execute gp(30); commit;
select name, generic_plans, custom_plans from pg_prepared_statements;
