P="psql -X -h /tmp/prune/pg -p 55431 -U postgres postgres -qAt"
m() { # label, on/off, query
for w in on off; do
$P 2>&1 <<S | awk -v l="$1" -v w=$w '/Planning Time/{p=$3} /Execution Time/{e=$3} /^LOCKS/{k=$2} /ERROR/{err=$0} END{printf "%-52s %-4s plan %s ms  exec %s ms  locks %s %s\n", l, w, p, e, k, err}'
set wh_worker.enable_stable_pruning=$w; set timezone='UTC';
explain (analyze, summary) $2;
explain (analyze, summary) $2;
begin; $2; select 'LOCKS '||count(*) from pg_locks where pid=pg_backend_pid() and locktype='relation' and relation <> 'pg_locks'::regclass; commit;
explain (analyze, summary) $2;
S
done; }
m "one tenant, 30 days, CURRENT_DATE" "select count(*) from t7.big where logged_time >= current_date - interval '30 days'"
m "one tenant via public, 30 days, CURRENT_DATE" "select count(*) from big where schema_name='t7' and logged_time >= current_date - interval '30 days'"
m "one tenant, 30 days, ::date wrapped" "select count(*) from t7.big where logged_time::date >= current_date - 30"
m "one tenant, 1 day, = CURRENT_DATE" "select count(*) from t7.big where logged_time = current_date"
m "all tenants, 1 day, CURRENT_DATE" "select count(*) from big where logged_time >= current_date"
m "all tenants, 30 days, CURRENT_DATE" "select count(*) from big where logged_time >= current_date - interval '30 days'"
m "one tenant, 30 days, constant" "select count(*) from t7.big where logged_time >= '2026-10-22'"
m "all tenants, 30 days, constant" "select count(*) from big where logged_time >= '2026-10-22'"
m "not ours (pg_class)" "select count(*) from pg_class where oid = 1259"
