-- What a BI user asks, as the reader role.

\echo 'How many rows do we have of each tenant?'
SELECT schema_name AS tenant, count(*) AS rows, count(DISTINCT logged_time::date) AS days,
	min(logged_time)::date AS first, max(logged_time)::date AS last
FROM foodlogstats
GROUP BY schema_name
ORDER BY rows DESC;

\echo 'Which stores log the most weight?'
SELECT client, store, region, count(*) AS entries, round(sum(weight)) AS lb
FROM foodlogstats
GROUP BY client, store, region
ORDER BY lb DESC
LIMIT 6;

\echo 'What does the wasted food cost, week by week?'
SELECT date_trunc('week', logged_time)::date AS week,
	round(sum(weight * cost_per_lb) FILTER (WHERE schema_name = 'tenant_a')) AS tenant_a,
	round(sum(weight * cost_per_lb) FILTER (WHERE schema_name = 'tenant_b')) AS tenant_b,
	round(sum(weight * cost_per_lb) FILTER (WHERE schema_name = 'Tenant-C')) AS "Tenant-C"
FROM foodlogstats
WHERE action_taken = 'Wasted'
GROUP BY week
ORDER BY week;

\echo 'And the last seven days at tenant_b, by what was done with the food?'
SELECT logged_time::date AS day, count(*) AS entries,
	round(sum(weight) FILTER (WHERE action_taken = 'Wasted')) AS wasted_lb,
	round(sum(weight) FILTER (WHERE action_taken = 'Donated')) AS donated_lb,
	round(sum(weight) FILTER (WHERE action_taken IS NULL)) AS unknown_lb,
	count(*) FILTER (WHERE flags LIKE '%manager%') AS seen_by_manager
FROM tenant_b.foodlogstats
WHERE logged_time >= :'last_day'::date - 6
GROUP BY day
ORDER BY day;
