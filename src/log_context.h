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
