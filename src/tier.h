/*
 * tier.h: the day, month and year relations of a subscription, told apart.
 */
#ifndef WH_TIER_H
#define WH_TIER_H

#include "utils/date.h"

typedef enum WhTier
{
	WH_TIER_DAY,
	WH_TIER_MONTH,
	WH_TIER_YEAR,
} WhTier;

/* What the relation of the ledger is that has this name and holds this day. */
extern WhTier wh_tier_of(const char *template_name, const char *relname, DateADT date);

#endif
