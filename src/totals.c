/*
 * totals.c: what the relations of a subscription take: by day, month and year,
 * and in locks.
 *
 * A warehouse of a thousand tenants has a ledger of millions of days and a
 * million relations; to read both whenever somebody looks at
 * _wh.storage_usage or _wh.union_health would take seconds.  So the sums are
 * kept in the row of the subscription, next to its counters.
 *
 * Called by publish.c whenever it counts, which it does in the commit of
 * whatever changed the ledger or asked for a publication.  They are counted
 * anew each time, not added to: what a person does to relations by himself
 * (an index, a tablespace) is in them from then on, and no mistake stays.
 *
 * May not look at a relation itself, or lock it.  Locks: the row of the
 * subscription, under the advisory lock of its view.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "sqlutil.h"
#include "totals.h"

/*
 * Of each relation of the ledger that is under its name what it takes.  OFFSET
 * 0: look-ups by OID, whatever the planner thinks of the size of the catalogs,
 * and each of them once, not for every sum that it is in.
 * A relation with a parent is a leaf of a partition tree.
 */
#define RELATIONS_SQL \
"SELECT _wh.relation_tier($1, r.relation, r.first_date) AS tier, c.tablespace, r.rows, r.bytes," \
"       r.in_views, c.is_leaf, r.last_date >= (SELECT _wh.first_day_of_query()) AS is_recent," \
"       1 + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x" \
"             WHERE x.indrelid = r.relation_oid AND x.indislive) AS locks" \
"  FROM (SELECT d.relation_oid, d.relation, pg_catalog.min(d.target_date) AS first_date," \
"               pg_catalog.max(d.target_date) FILTER (WHERE d.in_views) AS last_date," \
"               pg_catalog.sum(d.rows) AS rows, pg_catalog.sum(d.bytes) AS bytes," \
"               pg_catalog.bool_or(d.in_views) AS in_views" \
"          FROM _wh.day_loads d" \
"         WHERE d.template_name = $1 AND d.target_schema = $2 AND d.relation_oid IS NOT NULL" \
"         GROUP BY d.relation_oid, d.relation) r" \
" CROSS JOIN LATERAL (SELECT coalesce(nullif(p.reltablespace, 0), $3) AS tablespace," \
"          p.relispartition AS is_leaf FROM pg_catalog.pg_class p" \
"    WHERE p.oid = r.relation_oid AND p.relname = r.relation OFFSET 0) c" \
" OFFSET 0"

#define TIER_SQL(tier) \
" pg_catalog.count(*) FILTER (WHERE r.tier = '" tier "') AS " tier "_relations," \
" coalesce(pg_catalog.sum(r.rows) FILTER (WHERE r.tier = '" tier "'), 0)::pg_catalog.int8 AS " tier "_rows," \
" coalesce(pg_catalog.sum(r.bytes) FILTER (WHERE r.tier = '" tier "'), 0)::pg_catalog.int8 AS " tier "_bytes," \
" ARRAY(SELECT t.spcname::pg_catalog.text FROM pg_catalog.pg_tablespace t" \
"   WHERE t.oid = ANY (pg_catalog.array_agg(r.tablespace) FILTER (WHERE r.tier = '" tier "'))" \
"   ORDER BY t.spcname COLLATE \"C\") AS " tier "_tablespaces"

/*
 * A query locks the view, of a partition tree its part and its root besides,
 * and every relation of the view with its indexes; of leaves only those that it
 * may need.
 */
#define LOCKS_SQL \
" pg_catalog.count(*) FILTER (WHERE r.in_views) AS members," \
" coalesce(pg_catalog.sum(r.locks) FILTER (WHERE r.in_views AND (r.is_recent OR NOT r.is_leaf)), 0)::pg_catalog.int8 AS locks," \
" coalesce(pg_catalog.sum(r.locks) FILTER (WHERE r.in_views), 0)::pg_catalog.int8 AS locks_unfiltered"

#define LOCKS_BESIDES "1 + CASE WHEN c.reads_part THEN 2 ELSE 0 END"

/* Of a layout that was left the part stays, and no view reads it. */
#define READS_PART_SQL \
" EXISTS (SELECT FROM _wh.tenant_templates v" \
"   JOIN pg_catalog.pg_rewrite w ON w.ev_class = v.view_oid" \
"   JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid" \
"    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = v.part_oid" \
"  WHERE v.template_name = $1 AND v.target_schema = $2 AND v.part_oid IS NOT NULL) AS reads_part"

#define OF_TIER(row, tier) row "." tier "_relations, " row "." tier "_rows, " row "." tier "_bytes, " row "." tier "_tablespaces"
#define TOTALS(row) OF_TIER(row, "day") ", " OF_TIER(row, "month") ", " OF_TIER(row, "year") ", " row ".members, " row ".reads_part"

/* A row that would be the same is left alone: it would only have to be vacuumed. */
void
wh_totals_count(const char *template_name, const char *schema)
{
	WhArg		args[] = {
		WH_TEXT(template_name), WH_TEXT(schema), WH_OID(MyDatabaseTableSpace)
	};

	wh_query("UPDATE _wh.tenant_templates s SET"
			 " (day_relations, day_rows, day_bytes, day_tablespaces,"
			 "  month_relations, month_rows, month_bytes, month_tablespaces,"
			 "  year_relations, year_rows, year_bytes, year_tablespaces,"
			 "  members, reads_part, locks, locks_unfiltered) ="
			 " (" TOTALS("c") ", c.locks + " LOCKS_BESIDES ", c.locks_unfiltered + " LOCKS_BESIDES ")"
			 " FROM (SELECT" TIER_SQL("day") "," TIER_SQL("month") "," TIER_SQL("year") "," LOCKS_SQL "," READS_PART_SQL
			 "         FROM (" RELATIONS_SQL ") r) c"
			 " WHERE s.template_name = $1 AND s.target_schema = $2"
			 "   AND (" TOTALS("s") ", s.locks, s.locks_unfiltered) IS DISTINCT FROM"
			 "       (" TOTALS("c") ", c.locks + " LOCKS_BESIDES ", c.locks_unfiltered + " LOCKS_BESIDES ")",
			 lengthof(args), args);
}
