-- quiet_hours of a tenant: which text is taken, and what it means.

\set VERBOSITY terse
CREATE FUNCTION try_quiet_hours(hours text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	INSERT INTO _wh.tenant_connections (tenant_name, host, dbname, username, quiet_hours)
	VALUES ('quiet', 'h', 'd', 'u', hours);
	DELETE FROM _wh.tenant_connections WHERE tenant_name = 'quiet';
	RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN sqlstate || ' ' || detail;
END
$$;
SELECT left(hours, 32) AS hours, try_quiet_hours(hours) FROM (VALUES
	(1, NULL), (2, '08:00-12:00'), (3, '8:00-12:00,22:00-02:00'), (4, ' 08:00 - 12:00 , 22:00 - 24:00 '),
	(5, '00:00-24:00'), (6, ''), (7, '08:00'), (8, '08:00-'), (9, '08:00-25:00'), (10, '08:60-09:00'),
	(11, '24:01-02:00'), (12, '08:00-08:00'), (13, '24:00-00:00'), (14, '08:00-09:00,'), (15, '08:00-09:00;10:00-11:00'),
	(16, '008:00-09:00'), (17, '08:0-09:00'), (18, '08:000-09:00'), (19, '-08:00-09:00'), (20, 'always'),
	(21, (SELECT string_agg('01:00-02:00', ',') FROM generate_series(1, 24))),
	(22, (SELECT string_agg('01:00-02:00', ',') FROM generate_series(1, 25)))) AS t(n, hours) ORDER BY n;

-- a time of the day, and whether it is quiet then
SELECT hours, string_agg(at || CASE WHEN _wh.is_quiet(hours, ('2026-03-01 ' || at || ' UTC')::timestamptz)
	THEN ' quiet' ELSE ' -' END, ', ' ORDER BY at) AS answers
FROM (VALUES ('08:00-12:00'), ('22:00-02:00'), ('22:00-24:00'), ('00:00-24:00'), ('08:00-10:00,09:00-12:00'), (NULL)) AS h(hours)
CROSS JOIN (VALUES ('00:00:00'), ('01:59:59'), ('02:00:00'), ('07:59:59'), ('08:00:00'), ('09:30:00'), ('11:59:59'),
	('12:00:00'), ('21:59:59'), ('22:00:00'), ('23:59:59')) AS t(at)
GROUP BY hours ORDER BY hours;
SELECT _wh.is_quiet('nonsense');
DROP FUNCTION try_quiet_hours(text);
