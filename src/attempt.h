/*
 * attempt.h: one action in a subtransaction of its own.
 */
#ifndef WH_ATTEMPT_H
#define WH_ATTEMPT_H

#include "utils/elog.h"

typedef void (*WhAction) (void *arg);

/*
 * Runs the action.  NULL if it worked; else what it raised, copied into the
 * caller's memory context, after everything it did was rolled back.  The caller
 * decides whether that is the end: ReThrowError() passes it on.
 */
extern ErrorData *wh_attempt(WhAction action, void *arg);

/*
 * The same for an action that begins and commits transactions of its own, called
 * outside one: what is under way when it fails is rolled back, what it committed
 * stays.  A cancel is passed on at once.
 */
extern ErrorData *wh_attempt_transactions(WhAction action, void *arg);

#endif
