/*
 * retire.c: whole relations of the ledger leave it, and the views.
 *
 * First the rows of the ledger go, then the views are made without them, and
 * only then what nobody reads any more is dropped, or left to the user under
 * its name.  Never with CASCADE.
 *
 * Called by retention.c.  May not choose what goes.
 *
 * Locks, in this order: the advisory locks of their names, then on them what
 * keeps out everybody who changes them and lets readers be; then, politely and
 * all in one attempt: the subscription, their ledger rows, what publish.c locks,
 * the relations for good.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "load.h"
#include "politely.h"
#include "publish.h"
#include "retire.h"
#include "sqlutil.h"
#include "tree.h"

void
wh_retire_lock_names(const WhRetirement *retirement)
{
	for (int i = 0; i < retirement->n; i++)
		wh_load_lock(retirement->schema, retirement->relations[i].relname);
}

void
wh_retire_lock(const WhRetirement *retirement)
{
	for (int i = 0; i < retirement->n; i++)
		LockRelationOid(retirement->relations[i].relid, ShareUpdateExclusiveLock);
}

static Datum
relation_oids(const WhRetirement *retirement)
{
	Datum	   *oids = palloc(sizeof(Datum) * retirement->n);

	for (int i = 0; i < retirement->n; i++)
		oids[i] = ObjectIdGetDatum(retirement->relations[i].relid);
	return wh_oid_array(oids, retirement->n);
}

/* Days of which there is nothing go with their time, whatever became of them. */
static void
forget(const WhRetirement *retirement)
{
	WhArg		args[] = {
		WH_TEXT(retirement->template_name), WH_TEXT(retirement->schema),
		WH_DATE(retirement->start_date), wh_arg(OIDARRAYOID, relation_oids(retirement))
	};

	wh_query("DELETE FROM _wh.day_loads WHERE template_name = $1 AND target_schema = $2"
			 " AND (relation_oid = ANY ($4) OR (relation_oid IS NULL AND target_date < $3))",
			 lengthof(args), args);
	wh_query("UPDATE _wh.tenant_templates SET start_date = $3"
			 " WHERE template_name = $1 AND target_schema = $2 AND start_date < $3", 3, args);
}

/*
 * Dropped, or left to the user; what is a leaf of a tree leaves that first.  The
 * views no longer read it, but a tenant view may read the part that it is in.
 */
static void
let_go(const WhRetirement *retirement, const WhRetiree *relation)
{
	Oid			part = wh_tree_parent(relation->relid);

	if (!retirement->drop && !OidIsValid(part))
		return;
	if (retirement->drop)
	{
		wh_tree_drop_relation(retirement->schema, relation->relname, relation->relid);
		return;
	}
	wh_tree_lock_leaf(relation->relid);
	wh_utility("ALTER TABLE %s DETACH PARTITION %s", wh_relation_name(part), wh_relation_name(relation->relid));
}

typedef struct Attempt
{
	const WhRetirement *retirement;
	bool		done;
} Attempt;

/* May be rolled back and started over; see politely.h. */
static void
attempt(void *arg)
{
	Attempt    *what = arg;
	const WhRetirement *retirement = what->retirement;
	WhArg		args[] = {WH_TEXT(retirement->template_name), WH_TEXT(retirement->schema)};

	/* who removes it drops its relations himself, and waits for our locks */
	what->done = wh_query("SELECT FROM _wh.tenant_templates WHERE template_name = $1 AND target_schema = $2"
						  " FOR NO KEY UPDATE SKIP LOCKED", lengthof(args), args) > 0;
	if (!what->done)
		return;
	forget(retirement);
	wh_publish_tenant_view(retirement->template_name, retirement->schema);
	wh_publish_public_view(retirement->template_name);
	wh_publish_counters(retirement->template_name, retirement->schema);
	for (int i = 0; i < retirement->n; i++)
		let_go(retirement, &retirement->relations[i]);
}

bool
wh_retire(WhRetirement *retirement)
{
	Attempt		what = {.retirement = retirement};

	wh_politely(InvalidOid, attempt, &what);
	return what.done;
}
