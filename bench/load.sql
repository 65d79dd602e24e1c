-- The tables of bench/load, from bench.runs, for psql.  Ratios are those of a pair of
-- runs, then the median.

\pset null ''
CREATE TEMPORARY VIEW names AS
SELECT * FROM (VALUES (1, 'ours', 'ours'), (1, '1 worker', 'ours, one worker'), (2, '2 workers', 'ours, two workers'),
	(3, 'unchanged', 'ours, the probe says unchanged'), (4, 'dblink', 'dblink'), (5, 'fdw', 'postgres_fdw'),
	(6, 'psql', 'psql | psql'), (7, 'producer', 'the tenant alone'), (8, 'floor', 'PostgreSQL alone'),
	(9, 'by hand', 'by hand, largest first')) AS t (n, way, name);
CREATE TEMPORARY VIEW first_ways AS
SELECT * FROM bench.runs WHERE way IN ('ours', '1 worker') AND pair > 0 AND work <> 'memory';
CREATE TEMPORARY VIEW results AS
SELECT r.work, r.net, n, name AS way, count(*) AS runs,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY r.ms)::numeric AS ms, min(r.ms) AS least, max(r.ms) AS most,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY r.cpu_ms)::numeric AS cpu_ms,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY r.wal_bytes)::numeric AS wal_bytes, max(r.peak_kb) AS peak_kb,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY r.ms / o.ms)::numeric AS ratio, min(r.ms / o.ms) AS least_ratio, max(r.ms / o.ms) AS most_ratio,
	percentile_cont(0.5) WITHIN GROUP (ORDER BY o.cpu_ms / nullif(r.cpu_ms, 0))::numeric AS cpu_ratio
FROM bench.runs AS r JOIN names USING (way) JOIN first_ways AS o USING (work, net, pair)
GROUP BY r.work, r.net, n, name;

SELECT work, net, way, runs, round(ms, 1) AS "wall ms", round(least, 1) AS min, round(most, 1) AS max,
	round(cpu_ms) AS "CPU ms", round(wal_bytes / 1e6, 1) AS "WAL MB", round(peak_kb / 1024, 1) AS "peak MB",
	round(ratio, 2) AS "its wall / ours", round(least_ratio, 2) AS min, round(most_ratio, 2) AS max,
	round(cpu_ratio, 2) AS "our CPU / its"
FROM results
ORDER BY array_position('{day,analyzed,indexed,refresh,wide,toast,year,fleet}', work), net DESC, n;

SELECT work, net, round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ours.ms / floors.ms)::numeric, 2)
		AS "our wall / larger of the tenant alone and PostgreSQL alone",
	round(min(ours.ms / floors.ms), 2) AS min, round(max(ours.ms / floors.ms), 2) AS max
FROM first_ways AS ours
JOIN (SELECT work, net, pair, max(ms) AS ms FROM bench.runs WHERE way IN ('producer', 'floor')
	GROUP BY work, net, pair) AS floors USING (work, net, pair)
WHERE work <> 'refresh' GROUP BY work, net ORDER BY array_position('{day,analyzed,indexed,wide,toast}', work), net DESC;

SELECT net AS "memory of a worker", pair AS rows, round(peak_kb / 1024, 1) AS "peak PSS without shared buffers, MB",
	round((peak_kb - first_value(peak_kb) OVER (PARTITION BY net ORDER BY pair)) / 1024, 1) AS "more, MB"
FROM bench.runs WHERE work = 'memory' ORDER BY net DESC, pair;
