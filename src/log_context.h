/*
 * log_context.h: a line of JSON in the context of every message, which says
 * which operation of the warehouse it is about.
 */
#ifndef WH_LOG_CONTEXT_H
#define WH_LOG_CONTEXT_H

#include "utils/date.h"
#include "utils/elog.h"

#include "queue.h"

typedef struct WhLogContext
{
	ErrorContextCallback callback;	/* pushed and popped with the operation */
	const char *operation;
	int64		schedule_id;	/* 0: none */
	const char *template_name;	/* these three may be NULL */
	const char *tenant_name;
	const char *schema;
	DateADT		date;
	bool		has_date;
} WhLogContext;

/* What a line of the log knows beyond that: see log_event.c. */
typedef struct WhLogFacts
{
	const char *event;
	const char *database;		/* for who is connected to none, or NULL */
	int64		job_id;			/* 0: none, as the next two; for who runs none itself */
	int64		backfill_id;
	int64		schedule_id;
	const char *template_name;	/* these four may be NULL */
	const char *tenant_name;
	const char *schema;
	const char *phase;
	bool		has_counts;
	int64		rows;
	int64		bytes;
	bool		has_duration;
	int64		ms;
} WhLogFacts;

/* Of the messages from now on; NULL: nothing more. */
extern void wh_log_context_facts(const WhLogFacts *facts);

/* Around an operation in a session, or within a process of ours. */
extern void wh_log_context_push(WhLogContext *context);
extern void wh_log_context_pop(const WhLogContext *context);

/* For the life of a background process; "database" may be NULL. */
extern void wh_log_context_process(const char *process, const char *database);

/* The job that it runs; NULL: none. */
extern void wh_log_context_job(const WhJob *job);

/* The number of that job, or 0. */
extern int64 wh_log_context_job_id(void);

#endif
