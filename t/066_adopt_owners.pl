# A warehouse of several owners is adopted: whoever had something goes on reading it,
# the public view is no less readable than it was, and only a superuser's own call
# gives away what belongs to others. The day of a row stays what it was.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use WhTest;

my $source = new_tenant('source');
my $node = new_warehouse();

create_events($source, '2025-03-01', 3, 5);
add_events_template($node, 'visits', columns => 'id INTEGER, at TIMESTAMP, seen TIMESTAMP', query => "SELECT id, at, at AS seen FROM events WHERE at >= '{TARGET_DATE}'::date AND at < '{TARGET_DATE}'::date + 1");
sql($node, "UPDATE _wh.mv_templates SET date_column = 'at'; SELECT _wh.pause()");
add_tenant($node, $_, $source) foreach 'one', 'two';

# ---- a warehouse of the old way, of a role of its own ------------------

sql($node, q{
	CREATE ROLE etl; GRANT CREATE ON SCHEMA public TO etl; GRANT CREATE ON SCHEMA one, two TO etl; GRANT USAGE ON SCHEMA one, two TO etl;
	CREATE ROLE bi; GRANT USAGE ON SCHEMA public TO bi;
	SET ROLE etl;});
foreach my $schema ('one', 'two')
{
	sql($node, qq{SET ROLE etl;
		CREATE TABLE $schema.visits_2024 AS SELECT n AS id, timestamp '2024-12-29' + n * interval '6 hours' AS at, timestamp '2024-12-30' + n * interval '6 hours' AS seen FROM generate_series(1, 7) n;
		CREATE MATERIALIZED VIEW $schema.visits_2025_03_01 AS SELECT n AS id, timestamp '2025-03-01' AS at, NULL::timestamp AS seen FROM generate_series(1, 5) n;
		CREATE VIEW $schema.visits AS SELECT * FROM $schema.visits_2024 UNION ALL SELECT * FROM $schema.visits_2025_03_01});
}
sql($node, q{SET ROLE etl;
	CREATE VIEW public.visits AS SELECT *, 'one'::text AS schema_name FROM one.visits UNION ALL SELECT *, 'two'::text FROM two.visits;
	CREATE VIEW public.report AS SELECT schema_name, count(*) FROM public.visits GROUP BY 1;
	CREATE VIEW public.report_of_day AS SELECT count(*) FROM one.visits_2025_03_01;
	GRANT SELECT ON public.visits, public.report, public.report_of_day TO bi});

sub seen_by_bi
{
	return sql($node, q{SET ROLE bi; SELECT count(*) FROM public.visits; SELECT sum(count) FROM public.report; SELECT * FROM public.report_of_day});
}

is(seen_by_bi(), "24\n24\n5", 'who reads it reads it');

# ---- only a superuser himself gives it away ----------------------------

# What admin_role has a superuser run, here by an index, runs as admin_role.
sql($node, q{SET ROLE whadmin;
	CREATE TABLE one.bait (a integer); INSERT INTO one.bait VALUES (1);
	CREATE FUNCTION one.steal(integer) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN IF pg_catalog.current_setting('my.armed', true) = 'on' THEN PERFORM _wh.adopt('visits', 'one', 'one'); END IF; RETURN $1; END $f$;
	CREATE INDEX bait_a ON one.bait (one.steal(a))});
fails_with($node, "SET my.armed = 'on'; REINDEX TABLE one.bait", '55000', qr/cannot be taken over in schema "one"/, 'an index of the admin role takes nothing over with the rights of a superuser');
sql($node, q{SET ROLE whadmin; DROP TABLE one.bait;
	CREATE FUNCTION one.help() RETURNS bigint SECURITY DEFINER LANGUAGE sql AS 'SELECT count(*) FROM _wh.adopt(''visits'', ''one'', ''one'')'});
fails_with($node, 'SELECT one.help()', '55000', qr/it belongs to role "etl"/, 'nor a function of it that a superuser calls');
is(sql($node, "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE relname LIKE 'visits%' AND relnamespace = 'one'::regnamespace"), 'etl', 'all is still whose it was');

# ---- what a view would lose --------------------------------------------

fails_with($node, "SELECT * FROM _wh.adopt('visits', 'one', 'one')", '55000', qr/it reads two\.visits, for which role "whadmin" lacks SELECT/, 'the public view would lose a tenant that the admin role may not read');
sql($node, 'GRANT SELECT ON two.visits TO whadmin; ALTER VIEW public.visits SET (security_invoker = true)');
fails_with($node, "SELECT * FROM _wh.adopt('visits', 'one', 'one')", '55000', qr/security_invoker/, 'a view that is read with the rights of its reader is none of ours');
sql($node, 'ALTER VIEW public.visits RESET (security_invoker)');

is(sql($node, "SELECT count(*) FROM _wh.adopt('visits', 'one', 'one') WHERE status = 'adopted'"), '4', 'a superuser gives the first tenant away');
is(seen_by_bi(), "24\n24\n5", 'all is read as before, by views of who had it too');
is(sql($node, "SELECT count(*) FROM _wh.adopt('visits', 'two', 'two') WHERE status = 'adopted'"), '3', 'and the second');
is(seen_by_bi(), "24\n24\n5", 'all is read as before');
is(sql($node, "SELECT string_agg(DISTINCT relowner::regrole::text, ' ') FROM pg_class WHERE relname LIKE 'visits%' AND relkind IN ('r', 'm', 'v')"), 'whadmin', 'it is the admin role\'s');
is(sql($node, "SELECT string_agg(DISTINCT status, ' ') FROM _wh.adopt('visits', 'one', 'one')"), 'ours', 'called again it finds its own');

# ---- the day of a row --------------------------------------------------

my $before = checksum($node, 'SELECT * FROM one.visits');
sql($node, "UPDATE _wh.mv_templates SET date_column = 'seen'; SELECT _wh.resume()");
fails_with($node, "SELECT _wh.drop_day('visits', 'one', '2024-12-30')", '55000', qr/by column "seen" table "one\.visits_2024" does not have the days that the ledger says/, 'by another column rows of another day would go');
fails_with($node, "SELECT _wh.update_mv_by_template('visits', 'one', 'one', '2024-12-30', false)", '55000', qr/by column "seen"/, 'nor is a late day put among them');
is(checksum($node, 'SELECT * FROM one.visits'), $before, 'nothing has changed');
sql($node, "UPDATE _wh.mv_templates SET date_column = 'at'; SELECT _wh.drop_day('visits', 'one', '2024-12-30')");
is(sql($node, 'SELECT count(*) FROM one.visits'), '8', 'by the right one the day goes');
is(sql($node, "SELECT _wh.update_mv_by_template('visits', 'one', 'one', '2024-12-29', false)"), 't', 'and a late day is exchanged');
is(sql($node, "SELECT count(*) FILTER (WHERE at < '2024-12-30') || ' ' || count(*) FROM one.visits"), '0 5', 'the tenant has no rows of it');

done_testing();
