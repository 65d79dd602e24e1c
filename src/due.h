/*
 * due.h: the launcher's picture of the schedules: which is due next.
 */
#ifndef WH_DUE_H
#define WH_DUE_H

/* Draws the picture anew from _wh.schedules; in a transaction of the caller. */
extern void wh_due_reread(void);

/*
 * Runs what is due, in transactions of its own, a bounded number at a time;
 * true when more is due.  One bad schedule is marked and shown, and the others
 * go on.  Notices when the clock was stepped.
 */
extern bool wh_due_run(void);

/* Milliseconds until the next one is due; -1 if there is none. */
extern long wh_due_ms(void);

#endif
