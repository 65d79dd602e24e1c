/*
 * stable_bound.h: the constant that a stable expression never falls below.
 */
#ifndef WH_STABLE_BOUND_H
#define WH_STABLE_BOUND_H

#include "datatype/timestamp.h"
#include "nodes/primnodes.h"

/*
 * A value that the expression is not before, now or whenever the plan runs
 * again; of the expression's type (midnight for a date).  False: none is proved.
 */
extern bool wh_stable_bound(Node *expression, Timestamp *bound);

/*
 * The plain column inside casts, truncations and AT TIME ZONE, and by how much
 * they can make it later at most; NULL if there is anything else.
 */
extern Var *wh_wrapped_column(Node *expression, int64 *later);

/* What a comparison of two types may err, as one is converted in the session's zone. */
extern int64 wh_comparison_margin(Oid left, Oid right);

#endif
