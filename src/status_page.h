/*
 * status_page.h: what the parts of the status page share.  Private to
 * status_page*.c.
 *
 * status_page.c reads the subscriptions first (status_page_units.c), then has
 * each section append itself to page->out.  SPI is connected all the time.
 */
#ifndef WH_STATUS_PAGE_H
#define WH_STATUS_PAGE_H

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/date.h"
#include "utils/timestamp.h"

/* What a day of a subscription shows. */
typedef enum WhPageDay
{
	WH_DAY_NONE,				/* nobody expects it */
	WH_DAY_LOADED,
	WH_DAY_COMBINED,			/* loaded, in the table of its month or year */
	WH_DAY_SUSPECT,
	WH_DAY_NOT_RENEWED,			/* has content, but loading it again failed */
	WH_DAY_FAILED,
	WH_DAY_MISSING,				/* and nothing is on its way */
	WH_DAY_QUEUED,				/* missing, but queued or running */
	WH_DAY_TODAY,				/* today, not asked for yet */
} WhPageDay;

#define WH_PAGE_DAYS (WH_DAY_TODAY + 1)

/* As in data_freshness. */
typedef enum WhFreshness
{
	WH_NO_PROMISE,
	WH_FRESH,
	WH_AT_RISK,
	WH_STALE,
} WhFreshness;

/* Of the lag: waiting for the schedule, the queue, the tenant; running. */
#define WH_LAG_PARTS 4

/* A subscription. */
typedef struct WhPageUnit
{
	char	   *tenant_name;
	char	   *template_name;
	char	   *target_schema;
	bool		active;			/* it and its tenant */
	bool		set_aside;		/* its tenant */
	DateADT		start_date;
	int64		missing_before; /* days missing before the page begins */
	int64		refused_days;
	char	   *data_through;	/* or NULL */
	char	   *last_success;	/* or NULL */
	char	   *next_run;		/* or NULL */
	WhFreshness freshness;
	char	   *complete_until; /* or NULL */
	char	   *due_at;			/* or NULL */
	char	   *predicted_at;	/* or NULL: nothing is expected to load it by itself */
	double		lag;			/* seconds; -1: none, it is not loaded */
	double		lag_parts[WH_LAG_PARTS];
	WhPageDay  *days;			/* one for each day of the page */
	int			count[WH_PAGE_DAYS];
} WhPageUnit;

typedef struct WhPage
{
	StringInfo	out;
	MemoryContext context;		/* of all that lives as long as the page */
	TimestampTz now;			/* by the clock of schedules */
	DateADT		today;
	DateADT		first;
	int			ndays;
	int			nunits;
	WhPageUnit *units;			/* by template, tenant and schema */
	int64		count[WH_PAGE_DAYS];	/* of all units */
	int			ntitles;		/* runs of days that were given one */
} WhPage;

/* status_page_units.c */
extern void wh_page_read_units(WhPage *page);
extern const char *wh_page_day_name(WhPageDay day);
extern bool wh_page_unit_has_trouble(const WhPageUnit *unit);

/* The first and the last of such days of a unit, as "2026-05-01" or "2026-05-01 to 2026-05-03". */
extern char *wh_page_span(const WhPage *page, const WhPageUnit *unit, WhPageDay day);
extern bool wh_page_find_days(const WhPage *page, const WhPageUnit *unit, WhPageDay day,
							  DateADT *first, DateADT *last);

/* status_page.c: the page; argument "n" of the SQL function says of how many days. */
extern StringInfo wh_page_make(FunctionCallInfo fcinfo, int n);

/* Its head, and its sections, in their files. */
extern void wh_page_style(WhPage *page);
extern void wh_page_patterns(WhPage *page);
extern void wh_page_attention(WhPage *page);
extern void wh_page_now(WhPage *page);
extern void wh_page_failures(WhPage *page);
extern void wh_page_throughput(WhPage *page);
extern void wh_page_freshness(WhPage *page);
extern void wh_page_days(WhPage *page);

/* status_page_freshness.c: "3 h: 2 h for the schedule, 1 h for the queue", the largest part first. */
extern char *wh_page_lag(const WhPageUnit *unit);

/* status_page_text.c: all palloc'd and safe in HTML. */
extern char *wh_page_count(int64 n);	/* 1,234,567 */
extern char *wh_page_short(int64 n);	/* 1.2 M */
extern char *wh_page_bytes(int64 n);	/* 1.2 GB */
extern char *wh_page_age(double seconds);	/* 3 h 20 min */
extern char *wh_page_name(const char *name);	/* with its own direction of writing */
extern char *wh_page_unit_name(const char *template_name, const char *tenant_name, const char *schema);

/* A column of the last result, as text and safe in HTML; "" for NULL. */
extern char *wh_page_column(uint64 row, int col);

/* A bar of which part in 1 is full, with words for who cannot see it. */
extern void wh_page_bar(StringInfo out, double part, const char *words);

/* <section> with its heading; the end is wh_page_end_section(). */
extern void wh_page_section(WhPage *page, const char *id, const char *title);
extern void wh_page_end_section(WhPage *page);

#endif
