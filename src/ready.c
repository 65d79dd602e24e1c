/*
 * ready.c: which job is next, kept in the launcher's memory.
 *
 * A heap of jobs per tenant, ordered by class and sequence; a heap of jobs
 * that wait for their time; counts of running jobs per tenant and of
 * outstanding jobs per backfill.  Picking costs a walk over the tenants, not
 * over the queue, and never touches a table, so that it stays the same with
 * a hundred thousand jobs queued and any amount of dead rows in _wh.jobs.
 *
 * Called by launcher.c only.  May be wrong (a job was cancelled meanwhile):
 * the claim of the worker finds that out.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "ready.h"
#include "wh_worker.h"

typedef struct Tenant
{
	char		name[NAMEDATALEN];	/* hash key; empty for publish jobs */
	dlist_node	link;
	pairingheap jobs;
	int			njobs;
	int			running;
	bool		active;
	int			cap;			/* 0: the setting's */
	uint64		last_served;
} Tenant;

typedef struct Entry
{
	int64		job_id;			/* hash key */
	WhQueued	job;
	Tenant	   *tenant;
	pairingheap_node node;
} Entry;

typedef struct Backfill
{
	int64		backfill_id;	/* hash key */
	int64		outstanding;
} Backfill;

static MemoryContext ready_context = NULL;
static HTAB *tenants = NULL;
static HTAB *entries = NULL;
static HTAB *backfills = NULL;
static dlist_head tenant_list;
static pairingheap *delayed = NULL;
static uint64 served = 0;

static int
compare_ready(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const WhQueued *x = &pairingheap_const_container(Entry, node, a)->job;
	const WhQueued *y = &pairingheap_const_container(Entry, node, b)->job;

	if (x->priority != y->priority)
		return x->priority < y->priority ? 1 : -1;
	if (x->sequence_number != y->sequence_number)
		return x->sequence_number < y->sequence_number ? 1 : -1;
	return x->job_id < y->job_id ? 1 : x->job_id > y->job_id ? -1 : 0;
}

static int
compare_delayed(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	TimestampTz x = pairingheap_const_container(Entry, node, a)->job.not_before;
	TimestampTz y = pairingheap_const_container(Entry, node, b)->job.not_before;

	return x < y ? 1 : x > y ? -1 : 0;
}

static HTAB *
make_hash(const char *name, Size keysize, Size entrysize, int flags)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = keysize;
	ctl.entrysize = entrysize;
	ctl.hcxt = ready_context;
	return hash_create(name, 1024, &ctl, HASH_ELEM | HASH_CONTEXT | flags);
}

void
wh_ready_reset(void)
{
	if (ready_context != NULL)
		MemoryContextDelete(ready_context);
	ready_context = AllocSetContextCreate(TopMemoryContext, "wh_worker queue",
										  ALLOCSET_DEFAULT_SIZES);
	tenants = make_hash("tenants", NAMEDATALEN, sizeof(Tenant), HASH_STRINGS);
	entries = make_hash("jobs", sizeof(int64), sizeof(Entry), HASH_BLOBS);
	backfills = make_hash("backfills", sizeof(int64), sizeof(Backfill), HASH_BLOBS);
	dlist_init(&tenant_list);
	delayed = MemoryContextAllocZero(ready_context, sizeof(pairingheap));
	delayed->ph_compare = compare_delayed;
}

static Tenant *
get_tenant(const char *name)
{
	bool		found;
	Tenant	   *tenant = hash_search(tenants, name, HASH_ENTER, &found);

	if (!found)
	{
		tenant->jobs.ph_compare = compare_ready;
		tenant->jobs.ph_arg = NULL;
		tenant->jobs.ph_root = NULL;
		tenant->njobs = 0;
		tenant->running = 0;
		tenant->active = true;
		tenant->cap = 0;
		tenant->last_served = 0;
		dlist_push_tail(&tenant_list, &tenant->link);
	}
	return tenant;
}

static Backfill *
get_backfill(int64 backfill_id)
{
	bool		found;
	Backfill   *backfill = hash_search(backfills, &backfill_id, HASH_ENTER, &found);

	if (!found)
		backfill->outstanding = 0;
	return backfill;
}

void
wh_ready_tenant(const char *tenant_name, bool active, int cap)
{
	Tenant	   *tenant = get_tenant(tenant_name);

	tenant->active = active;
	tenant->cap = cap;
}

static void
make_ready(Entry *entry)
{
	pairingheap_add(&entry->tenant->jobs, &entry->node);
	entry->tenant->njobs++;
}

void
wh_ready_add(const WhQueued *job)
{
	bool		found;
	Entry	   *entry = hash_search(entries, &job->job_id, HASH_ENTER, &found);

	if (found)
		return;
	entry->job = *job;
	entry->tenant = get_tenant(job->tenant_name);
	get_backfill(job->backfill_id)->outstanding++;
	if (job->not_before > GetCurrentTimestamp())
		pairingheap_add(delayed, &entry->node);
	else
		make_ready(entry);
}

void
wh_ready_started(const char *tenant_name, int64 backfill_id)
{
	get_tenant(tenant_name)->running++;
	get_backfill(backfill_id)->outstanding++;
}

void
wh_ready_finished(const char *tenant_name, int64 backfill_id)
{
	Tenant	   *tenant = get_tenant(tenant_name);
	Backfill   *backfill = get_backfill(backfill_id);

	/* A reset in between may have started the counts anew. */
	tenant->running = Max(tenant->running - 1, 0);
	backfill->outstanding = Max(backfill->outstanding - 1, 0);
}

static void
wake_delayed(void)
{
	TimestampTz now = GetCurrentTimestamp();

	while (!pairingheap_is_empty(delayed))
	{
		Entry	   *entry = pairingheap_container(Entry, node, pairingheap_first(delayed));

		if (entry->job.not_before > now)
			break;
		pairingheap_remove_first(delayed);
		make_ready(entry);
	}
}

static int
room_of(const Tenant *tenant)
{
	int			cap = tenant->cap > 0 ? tenant->cap : wh_max_workers_per_tenant;

	if (!tenant->active || tenant->njobs == 0)
		return 0;
	if (tenant->name[0] == '\0')
		cap = wh_max_workers;
	return Max(Min(tenant->njobs, cap - tenant->running), 0);
}

static Entry *
first_of(const Tenant *tenant)
{
	return pairingheap_container(Entry, node,
								 pairingheap_first((pairingheap *) &tenant->jobs));
}

/* Whether a is to be served before b; "keep" breaks ties within the class. */
static bool
goes_first(const Tenant *a, const Tenant *b, const char *keep)
{
	int16		x = first_of(a)->job.priority;
	int16		y = first_of(b)->job.priority;

	if (x != y)
		return x < y;
	if (keep != NULL && strcmp(a->name, keep) == 0)
		return true;
	if (keep != NULL && strcmp(b->name, keep) == 0)
		return false;
	return a->last_served < b->last_served;
}

bool
wh_ready_pick(const char *keep_tenant, WhQueued *job)
{
	Tenant	   *best = NULL;
	Entry	   *entry;
	dlist_iter	iter;

	wake_delayed();
	dlist_foreach(iter, &tenant_list)
	{
		Tenant	   *tenant = dlist_container(Tenant, link, iter.cur);

		if (room_of(tenant) > 0 &&
			(best == NULL || goes_first(tenant, best, keep_tenant)))
			best = tenant;
	}
	if (best == NULL)
		return false;

	entry = pairingheap_container(Entry, node, pairingheap_remove_first(&best->jobs));
	best->njobs--;
	best->running++;
	best->last_served = ++served;
	*job = entry->job;
	hash_search(entries, &job->job_id, HASH_REMOVE, NULL);
	return true;
}

int
wh_ready_startable(int limit)
{
	int			n = 0;
	dlist_iter	iter;

	wake_delayed();
	dlist_foreach(iter, &tenant_list)
	{
		n += room_of(dlist_container(Tenant, link, iter.cur));
		if (n >= limit)
			return limit;
	}
	return n;
}

TimestampTz
wh_ready_next_due(void)
{
	if (pairingheap_is_empty(delayed))
		return DT_NOEND;
	return pairingheap_container(Entry, node, pairingheap_first(delayed))->job.not_before;
}

int64
wh_ready_outstanding(int64 backfill_id)
{
	Backfill   *backfill = hash_search(backfills, &backfill_id, HASH_FIND, NULL);

	return backfill ? backfill->outstanding : 0;
}
