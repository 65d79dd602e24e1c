/*
 * refresh.h: one day through the house: template, tenant, fetch, load, swap,
 * ledger.  Called by a worker's job and by the functions that run at once.
 */
#ifndef WH_REFRESH_H
#define WH_REFRESH_H

#include "load.h"
#include "remote.h"
#include "template.h"

typedef struct WhRefresh
{
	WhTemplate *tmpl;
	WhTenant   *tenant;
	char	   *schema;
	char	   *relname;
	DateADT		date;
	int64		job_id;			/* 0: none */
	TimestampTz fetch_started_at;
	int64		bytes_received;
	WhLeaf	   *leaf;			/* what it becomes, or NULL: a materialized view */
	WhLoadedDay *day;
	struct WhLateTable *late;	/* of its month or year, into which it goes, or NULL */
	Oid			replaced_oid;	/* relation of an older shape that the new one replaces */
	bool		replaces_empty;	/* replaced_oid has no content, and is no day to the ledger */
	bool		is_new;			/* the views have to learn of its relation */
	char	   *suspicion;		/* what is wrong with its count of rows, or NULL */
	bool		kept_old;		/* the content is what it was, because of that */
	char	   *probe_result;	/* of the change_probe, or NULL */
	char	   *probe_md5;
	bool		unchanged;		/* nothing was fetched: the day is what it was */
	bool		is_published;	/* unchanged: in the views, and counted */
} WhRefresh;

/* How a day is to be loaded; these add up. */
#define WH_REFRESH_FORCED 1		/* fetched even if its change_probe is unchanged */
#define WH_REFRESH_HELD 2		/* no faster than its tenant's limits allow */

/* Reads tenant_connections; 42704 if unknown.  Connects SPI itself. */
extern WhTenant *wh_tenant_read(const char *tenant_name);

/*
 * Fetches into a heap that nobody sees, and compares its count of rows with
 * that of the days before, which may be a WARNING.  A day that is there and
 * whose change_probe is unchanged is not fetched, unless that is forced.
 * *next_date, unless NULL, is the new day of the same template and schema that the
 * caller will probably want next over this connection: the tenant is asked for it
 * when this day's rows are here.  *remote is used if it is connected
 * to that tenant, else opened, and left open for the caller.  When this
 * raises, *remote may be in the middle of something: the caller closes it.
 */
extern WhRefresh *wh_refresh_fetch(const char *template_name, const char *tenant_name,
								   const char *schema, DateADT date, int64 job_id,
								   int flags, const DateADT *next_date, WhRemote **remote);

/*
 * What takes long and no lock that readers feel, for a day that goes into the
 * table of its month or year; see late.h.  After all days are fetched, since
 * those tables are locked after days.
 */
extern void wh_refresh_prepare(WhRefresh *refresh, List **tables);

/*
 * Writes the ledger: a day that was published stays so, any other becomes
 * loaded, combined, or suspect; of one that is unchanged only when that was seen.  Run by wh_politely(), so that it may be called again
 * after a rollback.  The caller publishes before it finishes days that are not
 * new.
 */
extern void wh_refresh_finish(WhRefresh *refresh);

/*
 * Exchanges the files of a day that has its relation already.  After
 * wh_refresh_finish(), in the same try, when nothing is left but the commit:
 * from then on the readers of the day wait.
 */
extern void wh_refresh_exchange(const WhRefresh *refresh);

/* Notes in the ledger that a day could not be loaded; its content stays. */
extern void wh_refresh_failed(const char *template_name, const char *tenant_name,
							  const char *schema, DateADT date, int64 job_id,
							  const char *message);

#endif
