/*
 * forecast_queue.c: how long a pending job waits for a worker.
 *
 * Jobs are handed out by class, in it tenants take turns; who is first in a
 * turn is not known, so that a job is taken to be in the middle of its turn.
 * Before it come those that run and those that could start now, by as many at
 * once as the class has workers, and as its tenant allows.
 *
 * Called by forecast.c.  Memory only: reads no table.
 */
#include "postgres.h"

#include "forecast.h"
#include "guc.h"

/* The jobs that count of one turn of a priority; and those before. */
typedef struct Turn
{
	int64		jobs;
	double		seconds;
	int64		place;
	double		seconds_before;
} Turn;

typedef struct Priority
{
	int			priority;
	int			class;
	Turn	   *turns;			/* from turn 1 on */
	int64		nturns;
	int64		size;
} Priority;

typedef struct Queue
{
	Priority   *priorities;
	int			npriorities;
	int64		waiting[WH_FORECAST_CLASSES];
	int64		running[WH_FORECAST_CLASSES];
	double		seconds_left[WH_FORECAST_CLASSES];
	int			workers[WH_FORECAST_CLASSES];
} Queue;

/* ---- who runs ---- */

static void
count_jobs(const WhForecast *forecast, Queue *queue)
{
	for (int i = 0; i < forecast->njobs; i++)
	{
		WhForecastJob *job = &forecast->jobs[i];

		if (job->is_running)
		{
			queue->running[job->class]++;
			queue->seconds_left[job->class] += job->seconds_left;
			job->tenant->running[job->class]++;
			job->tenant->seconds_left[job->class] += job->seconds_left;
		}
		else if (job->counts)
			queue->waiting[job->class]++;
	}
}

/* Backfills leave a worker to others, and always keep one. */
static void
share_workers(Queue *queue)
{
	int64		others = queue->waiting[WH_FORECAST_OTHERS] + queue->running[WH_FORECAST_OTHERS];
	int64		backfills = queue->waiting[WH_FORECAST_BACKFILLS] + queue->running[WH_FORECAST_BACKFILLS];

	queue->workers[WH_FORECAST_BACKFILLS] = Max(wh_max_workers - (others > wh_max_workers ? wh_max_workers - 1 : 1), 1);
	queue->workers[WH_FORECAST_OTHERS] = Max(wh_max_workers - (backfills > 0 ? 1 : 0), 1);
}

/* ---- turns ---- */

static int
compare_order(const WhForecastJob *a, const WhForecastJob *b)
{
	if (a->priority != b->priority)
		return a->priority < b->priority ? -1 : 1;
	if (a->sequence_number != b->sequence_number)
		return a->sequence_number < b->sequence_number ? -1 : 1;
	return a->job_id < b->job_id ? -1 : a->job_id > b->job_id;
}

static int
compare_by_tenant(const void *a, const void *b)
{
	const WhForecastJob *left = *(WhForecastJob *const *) a;
	const WhForecastJob *right = *(WhForecastJob *const *) b;

	if (left->class != right->class)
		return left->class - right->class;
	if (left->tenant->number != right->tenant->number)
		return left->tenant->number - right->tenant->number;
	return compare_order(left, right);
}

static int
compare_priorities(const void *a, const void *b)
{
	return ((const Priority *) a)->priority - ((const Priority *) b)->priority;
}

static Priority *
find_priority(Queue *queue, int priority)
{
	for (int i = 0; i < queue->npriorities; i++)
		if (queue->priorities[i].priority == priority)
			return &queue->priorities[i];
	return NULL;
}

static Priority *
get_priority(Queue *queue, const WhForecastJob *job)
{
	Priority   *found = find_priority(queue, job->priority);

	if (found != NULL)
		return found;
	queue->priorities = queue->priorities == NULL ? palloc(sizeof(Priority)) :
		repalloc(queue->priorities, (queue->npriorities + 1) * sizeof(Priority));
	found = &queue->priorities[queue->npriorities++];
	*found = (Priority) {.priority = job->priority,.class = job->class,.size = 64};
	found->turns = palloc0(found->size * sizeof(Turn));
	return found;
}

static void
count_in_turn(Queue *queue, const WhForecastJob *job)
{
	Priority   *priority = get_priority(queue, job);

	if (job->turn > priority->size)
	{
		int64		size = Max(job->turn, priority->size * 2);

		priority->turns = repalloc_huge(priority->turns, size * sizeof(Turn));
		memset(priority->turns + priority->size, 0, (size - priority->size) * sizeof(Turn));
		priority->size = size;
	}
	priority->nturns = Max(priority->nturns, job->turn);
	priority->turns[job->turn - 1].jobs++;
	priority->turns[job->turn - 1].seconds += job->run_seconds;
}

/* Of each tenant which turn is whose, and what of it comes before. */
static void
give_turns(const WhForecast *forecast, Queue *queue)
{
	WhForecastJob **order = palloc_extended(Max(forecast->njobs, 1) * sizeof(WhForecastJob *), MCXT_ALLOC_HUGE);
	WhForecastJob *before = NULL;

	for (int i = 0; i < forecast->njobs; i++)
		order[i] = &forecast->jobs[i];
	qsort(order, forecast->njobs, sizeof(WhForecastJob *), compare_by_tenant);
	for (int i = 0; i < forecast->njobs; i++)
	{
		WhForecastJob *job = order[i];
		bool		same = before != NULL && before->class == job->class && before->tenant == job->tenant;

		job->turn = same && before->priority == job->priority ? before->turn + 1 : 1;
		job->tenant_place = (same ? before->tenant_place : 0) + (job->counts ? 1 : 0);
		job->tenant_seconds = (same ? before->tenant_seconds : 0) + (job->counts ? job->run_seconds : 0);
		if (job->counts)
			count_in_turn(queue, job);
		before = job;
	}
	pfree(order);
}

static void
sum_turns(Queue *queue)
{
	int64		jobs[WH_FORECAST_CLASSES] = {0};
	double		seconds[WH_FORECAST_CLASSES] = {0};

	if (queue->npriorities > 0)
		qsort(queue->priorities, queue->npriorities, sizeof(Priority), compare_priorities);
	for (int i = 0; i < queue->npriorities; i++)
		for (int64 t = 0; t < queue->priorities[i].nturns; t++)
		{
			Turn	   *turn = &queue->priorities[i].turns[t];
			int			class = queue->priorities[i].class;

			if (turn->jobs == 0)
				continue;
			jobs[class] += turn->jobs;
			seconds[class] += turn->seconds;
			turn->place = jobs[class] - turn->jobs / 2;
			turn->seconds_before = seconds[class] - (turn->seconds + turn->seconds / turn->jobs) / 2;
		}
}

/* ---- what that means for a job ---- */

static double
wait_of(Queue *queue, const WhForecastJob *job)
{
	const Priority *priority = find_priority(queue, job->priority);
	const Turn *turn = priority != NULL && job->turn <= priority->nturns ? &priority->turns[job->turn - 1] : NULL;
	const WhForecastTenant *tenant = job->tenant;
	double		for_class = 0;
	double		for_tenant = 0;

	if (queue->running[job->class] + (turn ? turn->place : 0) > queue->workers[job->class])
		for_class = (queue->seconds_left[job->class] + (turn ? turn->seconds_before : 0)) / queue->workers[job->class];
	if (tenant->running[job->class] + job->tenant_place > tenant->cap)
		for_tenant = (tenant->seconds_left[job->class] + job->tenant_seconds - (job->counts ? job->run_seconds : 0)) / tenant->cap;
	return Max(for_class, for_tenant);
}

/* The first incomplete day before later ones, what runs before what waits. */
static bool
comes_before(const WhForecastJob *a, const WhForecastJob *b)
{
	if (a->is_first != b->is_first)
		return a->is_first;
	if (a->is_running != b->is_running)
		return a->is_running;
	return compare_order(a, b) < 0;
}

static void
choose_next(WhForecast *forecast)
{
	for (int i = 0; i < forecast->njobs; i++)
	{
		WhForecastJob *job = &forecast->jobs[i];

		if (job->is_next && (job->unit->next_job == NULL || comes_before(job, job->unit->next_job)))
			job->unit->next_job = job;
	}
}

void
wh_forecast_queue(WhForecast *forecast)
{
	Queue		queue = {0};

	count_jobs(forecast, &queue);
	share_workers(&queue);
	give_turns(forecast, &queue);
	sum_turns(&queue);
	choose_next(forecast);
	for (int i = 0; i < forecast->nunits; i++)
		if (forecast->units[i].next_job != NULL)
			forecast->units[i].next_job->wait_seconds = wait_of(&queue, forecast->units[i].next_job);
}
