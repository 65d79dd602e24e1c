/*
 * jitter.h: the random numbers of this process, from a seed that is logged.
 */
#ifndef WH_JITTER_H
#define WH_JITTER_H

/* Evenly distributed from 0 up to, but not including, 1. */
extern double wh_jitter(void);

#endif
