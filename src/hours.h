/*
 * hours.h: windows of the day, as "08:00-12:00, 22:00-02:00".
 */
#ifndef WH_HOURS_H
#define WH_HOURS_H

#define WH_HOURS_MAX_WINDOWS 24
#define WH_HOURS_DAY (24 * 60)	/* minutes */

typedef struct WhHours
{
	int			nwindows;
	struct
	{
		int			from;		/* minute of the day, within */
		int			to;			/* minute of the day, no longer within */
	}			windows[WH_HOURS_MAX_WINDOWS];
} WhHours;

/*
 * False if the text is no such list: *error then says why (a literal) and
 * *position at which character, from 1.
 */
extern bool wh_hours_parse(const char *text, WhHours *hours,
						   const char **error, int *position);

/* How many minutes the windows that "minute" is in last from then on; 0: it is in none. */
extern int	wh_hours_left(const WhHours *hours, int minute);

#endif
