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

/*
 * The tablespace that the template wants months or years in, or NULL.  42704 if
 * it is gone.  Connects SPI itself.
 */
extern char *wh_tier_tablespace(const char *template_name, WhTier tier);

/*
 * For the trigger of templates, with SPI connected: 42704 if there is no such
 * tablespace, 42501 if admin_role may not create in it, 22023 for pg_global.
 * A restored row gets a warning instead: its tablespaces may come later.
 */
extern void wh_tier_check_tablespace(const char *template_name, const char *column, const char *tablespace);

#endif
