/*
 * convert.h: relations from one layout of their template into the other.
 *
 * convert_sql.c queues a job for each; worker.c runs them.
 */
#ifndef WH_CONVERT_H
#define WH_CONVERT_H

#include "queue.h"

/*
 * The job, all of it, in the transaction of the caller, which has nothing left
 * to do but to commit.  What is in the layout of the template already is left
 * alone.  23514 if rows are outside of their days, 55000 if their number is not
 * that of the ledger, 2BP01 if something of a user's depends on the relation.
 */
extern void wh_convert_job(const WhJob *job);

/*
 * The public view as wh_publish_public_view() makes it, and the end of a
 * partition tree that nothing is in and nothing reads.  Holds the advisory lock
 * of the public view to the commit: whoever moves a relation later enqueues
 * another publication, because by then the job of the caller has ended; what was
 * moved before, and is still in the views, the caller sees.
 */
extern void wh_convert_publish(const char *template_name);

#endif
