/*
 * prune.h: plan-time pruning of our partition trees by stable lower bounds.
 */
#ifndef WH_PRUNE_H
#define WH_PRUNE_H

/* Chains the planner hook; called once by _PG_init. */
extern void wh_prune_register(void);

#endif
