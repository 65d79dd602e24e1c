/*
 * budget.c: what a query of a view locks, and what the server has for it.
 *
 * PostgreSQL locks every relation that a view reads when the query is
 * rewritten, and every index of them when it is planned, whatever the query's
 * conditions say; only a partition tree is pruned before that.  The table of
 * these locks has a fixed size, and whoever finds it full fails, also those
 * who read something else.  So a view that one query alone would fill it with
 * is not made: a tenant view stays without the new days, and the public view,
 * which grows through its tenant views, is made to refuse with a clear error.
 *
 * Called by publish.c, which asks before it makes a view and has the locks of
 * a tenant view remembered when it was made; totals.c counts them anew at each
 * publication.  Takes no lock, not even on what it counts.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "catalog/pg_class.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"

#include "budget.h"
#include "sqlutil.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_lock_budget);
PG_FUNCTION_INFO_V1(wh_sql_lock_advice);
PG_FUNCTION_INFO_V1(wh_sql_refuse_to_read);

/* Readers at once that the advised setting has room for. */
#define ADVISED_READERS 4

/* The advised max_locks_per_transaction is a multiple of this. */
#define ADVICE_STEP 64

/* ---- what the server has ---- */

/* As NLOCKENTS() of PostgreSQL's lock.c, 15 to 18. */
static int64
slots_per_setting(void)
{
	return (int64) MaxBackends + max_prepared_xacts;
}

int64
wh_budget(void)
{
	return max_locks_per_xact * slots_per_setting();
}

/*
 * As LockShmemSize() of lock.c: a lock is a LOCK, and a PROCLOCK for each who
 * holds it, taken to be two; and a tenth more.
 */
static int64
memory_of(int64 max_locks)
{
	long		locks = (long) (max_locks * slots_per_setting());
	Size		size = add_size(hash_estimate_size(locks, sizeof(LOCK)),
								hash_estimate_size(locks * 2, sizeof(PROCLOCK)));

	return (int64) add_size(size, size / 10);
}

/* max_locks_per_transaction for ADVISED_READERS such queries at once. */
static int64
advised_setting(int64 locks)
{
	int64		setting = (locks * ADVISED_READERS + slots_per_setting() - 1) / slots_per_setting();

	return (setting + ADVICE_STEP - 1) / ADVICE_STEP * ADVICE_STEP;
}

/* What to do, as the end of a sentence. */
static char *
ways_out(int64 locks)
{
	int64		setting = Max(advised_setting(locks), (int64) max_locks_per_xact);
	int64		megabytes = (memory_of(setting) - memory_of(max_locks_per_xact)) / (1024 * 1024) + 1;

	return psprintf("combine days into months and years, give the template the layout \"partitions\","
					" or set max_locks_per_transaction to " INT64_FORMAT " (room for %d such queries at once,"
					" with " INT64_FORMAT " MB more shared memory) and restart the server",
					setting, ADVISED_READERS, megabytes);
}

/* ---- what a query takes ---- */

/*
 * A leaf of a tree is locked only if it has one of the last 30 days, or may
 * have; for the bounds of a part its parent is.
 */
int64
wh_budget_locks_of(Datum members)
{
	WhArg		args[] = {wh_arg(OIDARRAYOID, members)};
	int			nest_level = NewGUCNestLevel();

	/* it is thought to cost so much that it would be compiled for longer than it runs */
	(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	wh_query("WITH RECURSIVE part AS ("
			 "  SELECT m.relid, false AS is_part FROM pg_catalog.unnest($1) AS m(relid)"
			 "  UNION ALL"
			 "  SELECT i.inhrelid, true FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.relid)"
			 " SELECT coalesce(pg_catalog.sum(coalesce(s.locks, 1 + ("
			 "     SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x"
			 "      WHERE x.indrelid = p.relid AND x.indislive)"
			 "     + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits q"
			 "         WHERE q.inhrelid = p.relid AND NOT p.is_part))), 0)::pg_catalog.int8"
			 "  FROM part p LEFT JOIN _wh.tenant_templates s ON s.view_oid = p.relid"
			 " WHERE NOT p.is_part OR coalesce(("
			 "     SELECT pg_catalog.max(d.target_date) >= (SELECT _wh.first_day_of_query()) FROM _wh.day_loads d"
			 "      WHERE d.relation_oid = p.relid), true)",
			 lengthof(args), args);
	AtEOXact_GUC(true, nest_level);
	return wh_get_int8(0, 1);
}

static int64
locks_of_view(const WhView *view)
{
	return 1 + wh_budget_locks_of(wh_view_member_oids(view));
}

/* Those that no view has read yet go behind the others. */
static void
put_new_members_last(WhView *view, const bool *is_new)
{
	WhMember   *sorted = palloc(sizeof(WhMember) * Max(view->nmembers, 1));
	uint64		n = 0;

	for (int pass = 0; pass < 2; pass++)
	{
		for (uint64 i = 0; i < view->nmembers; i++)
			if (is_new[i] == (pass == 1))
				sorted[n++] = view->members[i];
		if (pass == 0)
			view->nrefused = view->nmembers - n;
	}
	view->members = sorted;
	view->nmembers -= view->nrefused;
}

/*
 * What the view has already it keeps, whatever became of the budget: nobody
 * is to miss days that he had.
 */
void
wh_budget_fit_tenant_view(WhView *view, const bool *is_new)
{
	bool		any_new = false;

	for (uint64 i = 0; i < view->nmembers; i++)
		any_new = any_new || is_new[i];
	if (!any_new)
		return;					/* it is counted when it is made */
	view->locks = locks_of_view(view);
	if (view->locks <= wh_budget())
		return;
	view->locks_wanted = view->locks;
	put_new_members_last(view, is_new);
	view->locks = locks_of_view(view);
}

/*
 * One over a partition tree is left alone: what a query of it locks depends on
 * its conditions, and it does not grow by publications.
 */
void
wh_budget_fit_public_view(WhView *view)
{
	WhArg		args[] = {WH_TEXT(view->template_name), wh_arg(OIDARRAYOID, wh_view_member_oids(view))};

	if (view->nmembers == 1 && get_rel_relkind(view->members[0].relid) == RELKIND_PARTITIONED_TABLE)
		return;
	/* each load comes by: what the tenant views take was counted when they were made */
	wh_query("SELECT 1 + coalesce(pg_catalog.sum(locks), 0)::pg_catalog.int8 FROM _wh.tenant_templates"
			 " WHERE template_name = $1 AND view_oid = ANY ($2)", lengthof(args), args);
	view->locks = wh_get_int8(0, 1);
	view->refuses = view->locks > wh_budget();
}

/* ---- who publishes is told ---- */

static int64
tenths(int64 locks)
{
	return locks * 10 / Max(wh_budget(), 1);
}

void
wh_budget_warn_of_growth(const char *schema, const char *name, int64 before, int64 now)
{
	/* beyond the budget other warnings say more */
	if (tenths(now) < 5 || tenths(now) <= tenths(before) || now > wh_budget())
		return;
	ereport(WARNING,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("a query of view \"%s.%s\" needs half of the locks of the server or more", schema, name),
			 errdetail("It locks " INT64_FORMAT " relations and indexes; the server has room for " INT64_FORMAT ".",
					   now, wh_budget()),
			 errhint("Before it grows further, %s.", ways_out(now))));
}

void
wh_budget_warn_of_refused_days(const WhView *view, int64 days)
{
	ereport(WARNING,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg(INT64_FORMAT " loaded days are kept out of view \"%s.%s\"", days, view->schema, view->name),
			 errdetail("With them a query of it would lock " INT64_FORMAT " relations and indexes; the server has room for " INT64_FORMAT ".",
					   view->locks_wanted, wh_budget()),
			 errhint("They can be read in their own relations. To have them in the view, %s.",
					 ways_out(view->locks_wanted))));
}

void
wh_budget_warn_of_refusing(const WhView *view)
{
	ereport(WARNING,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("view \"%s.%s\" can no longer be read", view->schema, view->name),
			 errdetail("A query of it would lock " INT64_FORMAT " relations and indexes; the server has room for " INT64_FORMAT ".",
					   view->locks, wh_budget()),
			 errhint("The views of the tenants can be read. To have this one back, %s.",
					 ways_out(view->locks))));
}

/* ---- SQL ---- */

Datum
wh_sql_lock_budget(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(wh_budget());
}

/* (locks, refused days, refuses to be read): what to do, or NULL. */
Datum
wh_sql_lock_advice(PG_FUNCTION_ARGS)
{
	int64		locks = PG_GETARG_INT64(0);
	int64		refused_days = PG_GETARG_INT64(1);
	bool		refuses = PG_GETARG_BOOL(2);
	const char *state = "a query of it needs more than half of the locks that the server has";

	if (refuses && locks <= wh_budget())
		PG_RETURN_TEXT_P(cstring_to_text("it cannot be read until it is published again: call _wh.update_public_view_by_template()"));
	if (refuses)
		state = "it cannot be read, because a query of it would need more locks than the server has";
	else if (refused_days > 0)
		state = psprintf(INT64_FORMAT " loaded days are kept out of it, because a query would need more locks than the server has",
						 refused_days);
	else if (locks > wh_budget())
		state = "a query of it needs more locks than the server has";
	else if (locks * 2 <= wh_budget())
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("%s: %s", state, ways_out(locks))));
}

/* The locks of the public view of a template, as its tenant views were made. */
static int64
locks_of_template(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	int64		locks;

	wh_spi_begin();
	wh_query("SELECT 1 + coalesce(pg_catalog.sum(s.locks), 0)::pg_catalog.int8 FROM _wh.tenant_templates s"
			 " WHERE s.template_name = $1 AND s.view_oid IS NOT NULL", lengthof(args), args);
	locks = wh_get_int8(0, 1);
	wh_spi_end();
	return locks;
}

/*
 * What a public view reads that would take all locks of the server.  The
 * planner knows nothing of its rows, so that no condition of the query can be
 * found to be false before we are asked.
 */
Datum
wh_sql_refuse_to_read(PG_FUNCTION_ARGS)
{
	char	   *template_name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	int64		locks = locks_of_template(template_name);

	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("view \"public.%s\" cannot be read", template_name),
			 errdetail("A query of it would lock " INT64_FORMAT " relations and indexes; the server has room for " INT64_FORMAT ".",
					   locks, wh_budget()),
			 locks > wh_budget() ?
			 errhint("Read the views of the tenants. To have this one back, %s.", ways_out(locks)) :
			 errhint("It fits now: it can be read as soon as anything of the template is loaded, or _wh.update_public_view_by_template() is called.")));
	PG_RETURN_NULL();			/* not reached */
}
