/*
 * ready.c: which job is next, kept in the launcher's memory.
 *
 * For each tenant two heaps of jobs, those of backfills and all others, both
 * ordered by priority and sequence; a heap of jobs that wait for their time;
 * counts of running jobs, and of outstanding jobs per backfill.  Picking costs
 * a walk over the tenants, not over the queue, and never touches a table, so
 * that it stays the same with a hundred thousand jobs queued and any amount of
 * dead rows in _wh.jobs.
 *
 * How the two classes share the workers: of two or more, backfills hold all
 * but one at most, so that today's loads find one; and while a backfill's job
 * could start, the others hold all but one at most.  A single worker
 * alternates.  The same goes within a tenant for the workers it may have.
 *
 * A tenant that is set aside or has its quiet hours is passed over.  One that
 * could not be reached the last time gets a single job, to probe, and all of
 * these together a quarter of the workers, so that waiting for the silent
 * never takes the workers from the others.
 *
 * Called by launcher.c only.  May be wrong (a job was cancelled meanwhile):
 * the claim of the worker finds that out.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "pgtime.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "guc.h"
#include "hours.h"
#include "ready.h"
#include "wh_worker.h"

typedef enum Class
{
	CLASS_OTHER,
	CLASS_BACKFILL,
} Class;

#define NCLASSES 2

#define NOBODY (-1)

typedef struct Tenant
{
	char		name[NAMEDATALEN];	/* hash key; empty for publish and sql jobs */
	dlist_node	link;
	pairingheap jobs[NCLASSES];
	int			njobs[NCLASSES];
	int			running[NCLASSES];
	bool		active;
	int			cap;			/* 0: the setting's */
	bool		unreachable;	/* the last time */
	int			probes;			/* running jobs that were started since */
	TimestampTz retry_at;
	WhHours		quiet_hours;
	TimestampTz hours_checked;	/* what follows holds from then ... */
	TimestampTz hours_valid_to; /* ... up to then, by the clock of schedules */
	bool		quiet;
	bool		open;			/* as of the last look(): may start something */
	uint64		last_served;
	Class		last_class;
} Tenant;

typedef struct Entry
{
	int64		job_id;			/* hash key */
	WhQueued	job;
	Tenant	   *tenant;
	bool		waits;			/* in the heap of those that wait for their time */
	int			promised_to;	/* a worker, or NOBODY */
	pairingheap_node node;
} Entry;

typedef struct Backfill
{
	int64		backfill_id;	/* hash key */
	int64		outstanding;
} Backfill;

static MemoryContext tenant_context = NULL;
static MemoryContext ready_context = NULL;
static HTAB *tenants = NULL;
static HTAB *entries = NULL;
static HTAB *backfills = NULL;
static dlist_head tenant_list = DLIST_STATIC_INIT(tenant_list);
static pairingheap *delayed = NULL;
static int	running[NCLASSES];
static uint64 served = 0;
static Class last_class = CLASS_BACKFILL;

/* ---- the heaps ---- */

static Class
class_of(const WhQueued *job)
{
	return job->priority >= WH_PRIORITY_BACKFILL ? CLASS_BACKFILL : CLASS_OTHER;
}

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
make_hash(MemoryContext context, const char *name, Size keysize, Size entrysize, int flags)
{
	HASHCTL		ctl;

	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = keysize;
	ctl.entrysize = entrysize;
	ctl.hcxt = context;
	return hash_create(name, 1024, &ctl, HASH_ELEM | HASH_CONTEXT | flags);
}

static void
clear_tenant(Tenant *tenant)
{
	for (int class = 0; class < NCLASSES; class++)
	{
		tenant->jobs[class].ph_compare = compare_ready;
		tenant->jobs[class].ph_arg = NULL;
		tenant->jobs[class].ph_root = NULL;
		tenant->njobs[class] = 0;
		tenant->running[class] = 0;
	}
	tenant->active = true;
	tenant->cap = 0;
	tenant->unreachable = false;
	tenant->probes = 0;
	tenant->retry_at = 0;
	tenant->quiet_hours.nwindows = 0;
	tenant->hours_checked = tenant->hours_valid_to = 0;
	tenant->quiet = false;
}

/* Whose turn it is must not start anew whenever a setting changes. */
void
wh_ready_reset(void)
{
	dlist_iter	iter;

	if (tenant_context == NULL)
	{
		tenant_context = AllocSetContextCreate(TopMemoryContext, "wh_worker tenants",
											   ALLOCSET_DEFAULT_SIZES);
		tenants = make_hash(tenant_context, "tenants", NAMEDATALEN, sizeof(Tenant), HASH_STRINGS);
	}
	dlist_foreach(iter, &tenant_list)
		clear_tenant(dlist_container(Tenant, link, iter.cur));

	if (ready_context != NULL)
		MemoryContextDelete(ready_context);
	ready_context = AllocSetContextCreate(TopMemoryContext, "wh_worker queue",
										  ALLOCSET_DEFAULT_SIZES);
	entries = make_hash(ready_context, "jobs", sizeof(int64), sizeof(Entry), HASH_BLOBS);
	backfills = make_hash(ready_context, "backfills", sizeof(int64), sizeof(Backfill), HASH_BLOBS);
	delayed = MemoryContextAllocZero(ready_context, sizeof(pairingheap));
	delayed->ph_compare = compare_delayed;
	running[CLASS_OTHER] = running[CLASS_BACKFILL] = 0;
}

static Tenant *
get_tenant(const char *name)
{
	bool		found;
	Tenant	   *tenant = hash_search(tenants, name, HASH_ENTER, &found);

	if (!found)
	{
		clear_tenant(tenant);
		tenant->last_served = 0;
		tenant->last_class = CLASS_BACKFILL;
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

static void
put_into_heap(Entry *entry, TimestampTz now)
{
	Class		class = class_of(&entry->job);

	entry->waits = entry->job.not_before > now;
	if (entry->waits)
	{
		pairingheap_add(delayed, &entry->node);
		return;
	}
	pairingheap_add(&entry->tenant->jobs[class], &entry->node);
	entry->tenant->njobs[class]++;
}

static void
take_from_heap(Entry *entry)
{
	Class		class = class_of(&entry->job);

	if (entry->waits)
	{
		pairingheap_remove(delayed, &entry->node);
		return;
	}
	pairingheap_remove(&entry->tenant->jobs[class], &entry->node);
	entry->tenant->njobs[class]--;
}

void
wh_ready_add(const WhQueued *job)
{
	bool		found;
	Entry	   *entry = hash_search(entries, &job->job_id, HASH_ENTER, &found);

	if (found)
	{
		take_from_heap(entry);
		get_backfill(entry->job.backfill_id)->outstanding--;
	}
	entry->job = *job;
	entry->promised_to = NOBODY;
	entry->tenant = get_tenant(job->tenant_name);
	get_backfill(job->backfill_id)->outstanding++;
	put_into_heap(entry, GetCurrentTimestamp());
}

void
wh_ready_started(const WhQueued *job)
{
	Class		class = class_of(job);
	Tenant	   *tenant = get_tenant(job->tenant_name);

	tenant->running[class]++;
	tenant->probes += job->is_probe ? 1 : 0;
	running[class]++;
	get_backfill(job->backfill_id)->outstanding++;
}

void
wh_ready_finished(const WhQueued *job)
{
	Class		class = class_of(job);
	Tenant	   *tenant = get_tenant(job->tenant_name);
	Backfill   *backfill = get_backfill(job->backfill_id);

	/* A reset in between may have started the counts anew. */
	tenant->running[class] = Max(tenant->running[class] - 1, 0);
	tenant->probes = Max(tenant->probes - (job->is_probe ? 1 : 0), 0);
	running[class] = Max(running[class] - 1, 0);
	backfill->outstanding = Max(backfill->outstanding - 1, 0);
}

static void
wake_delayed(TimestampTz now)
{
	while (!pairingheap_is_empty(delayed))
	{
		Entry	   *entry = pairingheap_container(Entry, node, pairingheap_first(delayed));

		if (entry->job.not_before > now)
			break;
		pairingheap_remove_first(delayed);
		put_into_heap(entry, now);
	}
}

/* ---- tenants ---- */

void
wh_ready_tenant(const char *tenant_name, bool active, int cap, const char *quiet_hours)
{
	Tenant	   *tenant = get_tenant(tenant_name);
	const char *error;
	int			position;

	tenant->active = active;
	tenant->cap = cap;
	/* What the check of the row would refuse was written without it: no hours. */
	if (quiet_hours == NULL ||
		!wh_hours_parse(quiet_hours, &tenant->quiet_hours, &error, &position))
		tenant->quiet_hours.nwindows = 0;
	tenant->hours_checked = tenant->hours_valid_to = 0;
}

void
wh_ready_all_reachable(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &tenant_list)
	{
		Tenant	   *tenant = dlist_container(Tenant, link, iter.cur);

		tenant->unreachable = false;
		tenant->retry_at = 0;
	}
}

void
wh_ready_unreachable(const char *tenant_name, TimestampTz retry_at)
{
	Tenant	   *tenant = get_tenant(tenant_name);

	tenant->unreachable = true;
	tenant->retry_at = retry_at;
}

bool
wh_ready_probe_answered(const char *tenant_name)
{
	Tenant	   *tenant = get_tenant(tenant_name);

	if (!tenant->unreachable)
		tenant->probes = 0;
	return !tenant->unreachable;
}

/*
 * Whether the tenant has its quiet hours, and until when that is known.  No
 * longer than an hour, because a zone may change its offset meanwhile.
 */
static bool
is_quiet(Tenant *tenant, TimestampTz now)
{
	pg_time_t	seconds;
	struct pg_tm *local;
	int			left;

	if (tenant->quiet_hours.nwindows == 0)
		return false;
	if (tenant->hours_checked <= now && now < tenant->hours_valid_to)
		return tenant->quiet;

	seconds = timestamptz_to_time_t(now);
	local = pg_localtime(&seconds, pg_tzset(wh_timezone));
	left = wh_hours_left(&tenant->quiet_hours, local->tm_hour * 60 + local->tm_min);
	tenant->quiet = left > 0;
	/* Outside them every minute may be the first of the next window. */
	left = tenant->quiet ? Min(left, 60) : 1;
	tenant->hours_checked = now;
	tenant->hours_valid_to = TimestampTzPlusMilliseconds(time_t_to_timestamptz(seconds),
														 (left * 60 - local->tm_sec) * 1000L);
	return tenant->quiet;
}

static int
cap_of(const Tenant *tenant)
{
	int			cap = tenant->cap > 0 ? tenant->cap : wh_max_workers_per_tenant;

	if (tenant->name[0] == '\0')
		return wh_max_workers;
	return tenant->unreachable ? 1 : Min(cap, wh_max_workers);
}

static int
waiting(const Tenant *tenant)
{
	return tenant->njobs[CLASS_OTHER] + tenant->njobs[CLASS_BACKFILL];
}

/* How many more jobs of a class the tenant may start now. */
static int
room_of(const Tenant *tenant, Class class)
{
	int			cap = cap_of(tenant);
	int			room = cap - tenant->running[CLASS_OTHER] - tenant->running[CLASS_BACKFILL];

	if (!tenant->open)
		return 0;
	if (class == CLASS_BACKFILL)
		room = Min(room, Max(cap - 1, 1) - tenant->running[class]);
	return Max(Min(room, tenant->njobs[class]), 0);
}

/* ---- whose turn it is ---- */

/* What a walk over the tenants found. */
typedef struct Look
{
	int			room[NCLASSES]; /* jobs that could start if nothing else did */
	int			room_together;	/* the same, with the tenants' caps */
	int			allowed[NCLASSES];	/* jobs that may start, of all tenants */
} Look;

/*
 * Workers that wait for tenants that did not answer the last time.  A job that
 * reached its tenant before another one failed to is none of them: it may take
 * hours, in which nobody else could probe.
 */
static int
count_probes(void)
{
	int			probes = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &tenant_list)
	{
		const Tenant *tenant = dlist_container(Tenant, link, iter.cur);

		if (tenant->unreachable)
			probes += tenant->probes;
	}
	return probes;
}

static void
open_tenants(TimestampTz now)
{
	TimestampTz clock_now = wh_clock_now();
	int			probes = Max(wh_max_workers / 4, 1) - count_probes();
	dlist_iter	iter;

	dlist_foreach(iter, &tenant_list)
	{
		Tenant	   *tenant = dlist_container(Tenant, link, iter.cur);

		tenant->open = tenant->active && waiting(tenant) > 0 &&
			tenant->retry_at <= now && (!tenant->unreachable || probes > 0) &&
			!is_quiet(tenant, clock_now);
	}
}

/* The rule that the head of this file gives, as numbers. */
static void
divide_workers(Look *look)
{
	int			idle = Max(wh_max_workers - running[CLASS_OTHER] - running[CLASS_BACKFILL], 0);
	bool		share = wh_max_workers > 1;
	int			others_limit = wh_max_workers - (share && look->room[CLASS_BACKFILL] > 0 ? 1 : 0);
	int			backfills_limit = wh_max_workers - (share ? 1 : 0);

	look->allowed[CLASS_OTHER] = Max(Min(others_limit - running[CLASS_OTHER], idle), 0);
	look->allowed[CLASS_BACKFILL] = Max(Min(backfills_limit - running[CLASS_BACKFILL], idle), 0);
}

static void
look_around(Look *look)
{
	TimestampTz now = GetCurrentTimestamp();
	dlist_iter	iter;

	memset(look, 0, sizeof(*look));
	wake_delayed(now);
	open_tenants(now);
	dlist_foreach(iter, &tenant_list)
	{
		const Tenant *tenant = dlist_container(Tenant, link, iter.cur);
		int			others = room_of(tenant, CLASS_OTHER);
		int			backfilled = room_of(tenant, CLASS_BACKFILL);

		if (!tenant->open)
			continue;
		look->room[CLASS_OTHER] += others;
		look->room[CLASS_BACKFILL] += backfilled;
		look->room_together += Min(others + backfilled,
								   Max(cap_of(tenant) - tenant->running[CLASS_OTHER] -
									   tenant->running[CLASS_BACKFILL], 0));
	}
	divide_workers(look);
}

static Entry *
first_of(const Tenant *tenant, Class class)
{
	return pairingheap_container(Entry, node,
								 pairingheap_first((pairingheap *) &tenant->jobs[class]));
}

/* Whether a is to be served before b; "keep" breaks ties within the priority. */
static bool
goes_first(const Tenant *a, const Tenant *b, Class class, const char *keep)
{
	int16		x = first_of(a, class)->job.priority;
	int16		y = first_of(b, class)->job.priority;

	if (x != y)
		return x < y;
	if (keep != NULL && strcmp(a->name, keep) == 0)
		return true;
	if (keep != NULL && strcmp(b->name, keep) == 0)
		return false;
	return a->last_served < b->last_served;
}

static Tenant *
choose_tenant(Class class, const char *keep)
{
	Tenant	   *best = NULL;
	dlist_iter	iter;

	dlist_foreach(iter, &tenant_list)
	{
		Tenant	   *tenant = dlist_container(Tenant, link, iter.cur);

		if (room_of(tenant, class) > 0 &&
			(best == NULL || goes_first(tenant, best, class, keep)))
			best = tenant;
	}
	return best;
}

/* False if nothing may start. */
static bool
choose_class(const Look *look, Class *class)
{
	bool		other = look->room[CLASS_OTHER] > 0 && look->allowed[CLASS_OTHER] > 0;
	bool		backfill = look->room[CLASS_BACKFILL] > 0 && look->allowed[CLASS_BACKFILL] > 0;

	if (other && backfill && wh_max_workers == 1)
		*class = last_class == CLASS_OTHER ? CLASS_BACKFILL : CLASS_OTHER;
	else
		*class = other ? CLASS_OTHER : CLASS_BACKFILL;
	return other || backfill;
}

/*
 * Within a tenant, whose turn has come with a job of no backfill: it must leave
 * one of the tenant's workers to a backfill that could start, or alternate
 * with it on the only one.
 */
static bool
backfill_has_its_turn(const Tenant *tenant, const Look *look)
{
	int			cap = cap_of(tenant);

	if (wh_max_workers == 1 || look->allowed[CLASS_BACKFILL] == 0 ||
		room_of(tenant, CLASS_BACKFILL) == 0)
		return false;
	return cap == 1 ? tenant->last_class == CLASS_OTHER :
		tenant->running[CLASS_OTHER] >= cap - 1;
}

/*
 * The first that no other worker is promised, if it is of the same priority as the
 * first of all; which is it itself if there is no such.
 */
static Entry *
first_for(const Tenant *tenant, Class class, int worker)
{
	Entry	   *first = first_of(tenant, class);
	Entry	   *second;

	if (first->promised_to == NOBODY || first->promised_to == worker ||
		tenant->njobs[class] == 1)
		return first;
	pairingheap_remove_first((pairingheap *) &tenant->jobs[class]);
	second = first_of(tenant, class);
	pairingheap_add((pairingheap *) &tenant->jobs[class], &first->node);
	return second->job.priority == first->job.priority ? second : first;
}

static void
take(Tenant *tenant, Class class, int worker, WhQueued *job)
{
	Entry	   *entry = first_for(tenant, class, worker);

	*job = entry->job;
	take_from_heap(entry);
	get_backfill(job->backfill_id)->outstanding--;
	job->is_probe = tenant->unreachable;
	wh_ready_started(job);
	tenant->last_served = ++served;
	tenant->last_class = last_class = class;
	hash_search(entries, &job->job_id, HASH_REMOVE, NULL);
}

bool
wh_ready_pick(const char *keep_tenant, int worker, WhQueued *job)
{
	Look		look;
	Class		class;
	Tenant	   *tenant;

	look_around(&look);
	if (!choose_class(&look, &class))
		return false;
	tenant = choose_tenant(class, keep_tenant);
	if (class == CLASS_OTHER && backfill_has_its_turn(tenant, &look))
		class = CLASS_BACKFILL;
	take(tenant, class, worker, job);
	return true;
}

int64
wh_ready_promise(const WhQueued *job, int worker)
{
	Tenant	   *tenant = get_tenant(job->tenant_name);
	Entry	   *entry;

	if (class_of(job) != CLASS_BACKFILL || job->is_probe || tenant->name[0] == '\0' ||
		!tenant->active || tenant->unreachable || tenant->njobs[CLASS_BACKFILL] == 0 ||
		is_quiet(tenant, wh_clock_now()))
		return 0;
	entry = first_of(tenant, CLASS_BACKFILL);
	if (entry->promised_to != NOBODY || entry->job.priority != job->priority)
		return 0;
	entry->promised_to = worker;
	return entry->job.job_id;
}

void
wh_ready_forget_promise(int64 job_id)
{
	Entry	   *entry = hash_search(entries, &job_id, HASH_FIND, NULL);

	if (entry != NULL)
		entry->promised_to = NOBODY;
}

int
wh_ready_startable(int limit)
{
	Look		look;
	int			n;

	look_around(&look);
	n = Min(look.room[CLASS_OTHER], look.allowed[CLASS_OTHER]) +
		Min(look.room[CLASS_BACKFILL], look.allowed[CLASS_BACKFILL]);
	return Min(Min(n, look.room_together), limit);
}

/* When the tenant's jobs may start; in the past if only a worker is missing. */
static TimestampTz
due_of(Tenant *tenant)
{
	TimestampTz due = tenant->retry_at;
	TimestampTz clock_now = wh_clock_now();

	if (is_quiet(tenant, clock_now))
		due = Max(due, GetCurrentTimestamp() + (tenant->hours_valid_to - clock_now));
	return due;
}

TimestampTz
wh_ready_next_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz due = DT_NOEND;
	dlist_iter	iter;

	if (!pairingheap_is_empty(delayed))
		due = pairingheap_container(Entry, node, pairingheap_first(delayed))->job.not_before;
	dlist_foreach(iter, &tenant_list)
	{
		Tenant	   *tenant = dlist_container(Tenant, link, iter.cur);

		/* Those that wait for a worker start when one is done. */
		if (tenant->active && waiting(tenant) > 0 && due_of(tenant) > now)
			due = Min(due, due_of(tenant));
	}
	return due;
}

int64
wh_ready_outstanding(int64 backfill_id)
{
	Backfill   *backfill = hash_search(backfills, &backfill_id, HASH_FIND, NULL);

	return backfill ? backfill->outstanding : 0;
}
