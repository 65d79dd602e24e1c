/*
 * status_page_attention.c: the headline of the status page: what needs a person
 * now, and what to type.
 *
 * Called by status_page.c.  What stands still comes first (no launcher, paused,
 * set aside), then days that lack or look wrong, then what somebody should know.
 * Days of a tenant that is set aside or paused are counted with it: the cure is
 * there.  Commands have names as constants of SQL that mean the same when they
 * are pasted, see html.c.
 *
 * Reads what status_page_units.c read, small tables and shared memory.
 */
#include "postgres.h"

#include "html.h"
#include "identity.h"
#include "guc.h"
#include "sqlutil.h"
#include "standby.h"
#include "status_page.h"

/* Of one kind of trouble with one template; more of them are told together. */
#define SEPARATE_UNITS 2

/* Of those, how many are named. */
#define SAMPLE_UNITS 6

/* A queue in which nothing has moved for so long, though something could. */
#define STUCK_SECONDS 600

/* A load that waits so long for readers to go. */
#define LOCK_SECONDS 300

typedef enum Level
{
	BROKEN,
	LOOK,
	NOTE,
} Level;

#define LEVELS (NOTE + 1)

/* Of each level. */
#define MAX_ITEMS 40

typedef struct Attention
{
	const WhPage *page;
	StringInfoData items[LEVELS];
	int			n[LEVELS];
} Attention;

/*
 * A finding: what, why, and what to type, commands separated by line ends
 * (none: NULL).  What and why are HTML, commands are not.
 */
static void
find(Attention *found, Level level, const char *what, const char *why, const char *commands)
{
	static const char *const names[] = {"broken", "look", "note"};
	StringInfo	out = &found->items[level];

	if (found->n[level]++ >= MAX_ITEMS)
		return;
	appendStringInfo(out, "<li class=\"%s\"><p><span class=\"badge\">%s</span> <b>%s</b> %s</p>",
					 names[level], names[level], what, why ? why : "");
	while (commands != NULL)
	{
		const char *end = strchr(commands, '\n');
		char	   *command = end ? pnstrdup(commands, end - commands) : pstrdup(commands);

		appendStringInfo(out, "<pre tabindex=\"0\"><code>%s</code></pre>", wh_html(command));
		commands = end ? end + 1 : NULL;
	}
	appendStringInfoString(out, "</li>");
}

/* ---- the warehouse ---- */

static void
find_paused(Attention *found)
{
	if (wh_identity_pause() == WH_UNCONFIRMED)
		find(found, BROKEN, "This is a copy of a warehouse that nobody has confirmed yet: no job starts.",
			 "Confirm it when no other warehouse loads these tenants any more.", "SELECT _wh.confirm_warehouse();");
	if (wh_query("SELECT pg_catalog.to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), paused_by"
				 "  FROM _wh.warehouse WHERE paused", 0, NULL) > 0)
		find(found, BROKEN, "The warehouse is paused: no job starts.",
			 psprintf("Since %s UTC, by %s.", wh_page_column(0, 1), wh_page_column(0, 2)), "SELECT _wh.resume();");
	if (!wh_enabled)
		find(found, BROKEN, "wh_worker.enabled is off: no job starts.", NULL,
			 "ALTER SYSTEM SET wh_worker.enabled = on;\nSELECT pg_reload_conf();");
}

static void
find_launcher(Attention *found)
{
	char	   *error;

	if (!wh_enabled)
		return;
	if (wh_standby_reason() != NULL)
	{
		find(found, NOTE, "This server is a standby: the primary loads, and what is shown here came from it.", NULL, NULL);
		return;
	}
	if (wh_query("SELECT pid IS NOT NULL, last_error FROM _wh.worker_status"
				 " WHERE backend_type = 'wh_worker launcher' AND datname = pg_catalog.current_database()", 0, NULL) == 0)
	{
		find(found, BROKEN, "No launcher is meant to run here: nothing is loaded by itself.",
			 "The database is not in wh_worker.databases; add it there and reload.", "SHOW wh_worker.databases;");
		return;
	}
	error = wh_page_column(0, 2);
	if (!wh_get_bool(0, 1))
		find(found, BROKEN, "The launcher does not run: nothing is loaded by itself.", error,
			 "SELECT * FROM _wh.worker_status WHERE backend_type <> 'wh_worker worker';");
	else if (error[0] != '\0')
		find(found, LOOK, "The launcher's last round failed; it tries again.", error,
			 "SELECT * FROM _wh.worker_status WHERE backend_type = 'wh_worker launcher';");
}

/* Whether anything could start is asked only when nothing has ended for a while. */
static void
find_stuck_queue(Attention *found)
{
	WhArg		args[] = {WH_INT4(STUCK_SECONDS)};

	if (wh_query_bool("SELECT EXISTS (SELECT FROM _wh.jobs WHERE state = 'running') OR coalesce((SELECT"
					  " pg_catalog.clock_timestamp() - h.end_time < pg_catalog.make_interval(secs => $1)"
					  " FROM _wh.job_run_details h ORDER BY h.runid DESC LIMIT 1), false)", lengthof(args), args))
		return;
	if (wh_query("SELECT pg_catalog.count(*) FROM _wh.job_status WHERE state = 'queued'"
				 "   AND wait_reason = 'waits for a worker'"
				 "   AND greatest(enqueued_at, not_before) < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)"
				 " HAVING pg_catalog.count(*) > 0", lengthof(args), args) > 0)
		find(found, BROKEN, "The queue does not move.",
			 psprintf("%s jobs could have started, and none has for 10 minutes. The server log says why.",
					  wh_page_count(wh_get_int8(0, 1))),
			 "SELECT * FROM _wh.worker_status;");
}

/* The server waits for a standby, and so do all who write. */
static void
find_replication(Attention *found)
{
	uint64		n = wh_query("SELECT FROM _wh.worker_status WHERE state = 'waiting_replication'"
							 " AND datname = pg_catalog.current_database()", 0, NULL);

	if (n > 0)
		find(found, LOOK, psprintf("%s processes wait for a synchronous standby.", wh_page_count(n)),
			 "If this stays, the standby is away, and nobody can commit.",
			 "SELECT application_name, state, sync_state FROM pg_stat_replication;\nSHOW synchronous_standby_names;");
}

static void
find_held_up_loads(Attention *found)
{
	WhArg		args[] = {WH_INT4(LOCK_SECONDS)};
	uint64		n = wh_query(
		"SELECT template_name, tenant_name, target_schema, pg_catalog.array_to_string(blocked_by, ', '),"
		"  extract(epoch FROM pg_catalog.clock_timestamp() - phase_started_at)::pg_catalog.int8"
		"  FROM _wh.worker_status WHERE state = 'waiting_lock' AND blocked_by <> '{}'"
		"   AND datname = pg_catalog.current_database()"
		"   AND phase_started_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)",
		lengthof(args), args);

	for (uint64 row = 0; row < n; row++)
	{
		char	   *pids = wh_get_text(CurrentMemoryContext, row, 4);

		find(found, LOOK,
			 psprintf("%s cannot be put in place.",
					  wh_page_unit_name(wh_get_text(CurrentMemoryContext, row, 1), wh_get_text(CurrentMemoryContext, row, 2),
										wh_get_text(CurrentMemoryContext, row, 3))),
			 psprintf("It has waited %s for readers that do not end.", wh_page_age(wh_get_int8(row, 5))),
			 psprintf("SELECT pid, usename, state, xact_start, query FROM pg_stat_activity WHERE pid IN (%s);", pids));
	}
}

/* ---- tenants ---- */

static int64
days_that_wait(const WhPage *page, const char *tenant_name)
{
	int64		n = 0;

	for (int i = 0; i < page->nunits; i++)
		if (strcmp(page->units[i].tenant_name, tenant_name) == 0)
			n += page->units[i].count[WH_DAY_FAILED] + page->units[i].count[WH_DAY_MISSING] +
				page->units[i].count[WH_DAY_QUEUED];
	return n;
}

static void
find_tenants(Attention *found)
{
	uint64		n = wh_query(
		"SELECT h.tenant_name, h.state, c.active, h.consecutive_failures, h.last_error,"
		"  pg_catalog.to_char(h.retry_at AT TIME ZONE 'UTC', 'HH24:MI')"
		"  FROM _wh.tenant_health h JOIN _wh.tenant_connections c USING (tenant_name)"
		" WHERE h.state <> 'closed' OR NOT c.active ORDER BY 1", 0, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		char	   *tenant_name = wh_get_text(CurrentMemoryContext, row, 1);
		char	   *literal = wh_html_literal(tenant_name);
		int64		n_days = days_that_wait(found->page, tenant_name);
		char	   *days = n_days == 0 ? "" : psprintf("%s of its days are not there.", wh_page_count(n_days));

		if (!wh_get_bool(row, 3))
			find(found, NOTE, psprintf("Tenant %s is paused.", wh_page_name(tenant_name)),
				 days, psprintf("SELECT _wh.resume_tenant(%s);", literal));
		else if (strcmp(wh_get_text(CurrentMemoryContext, row, 2), "open") == 0)
			find(found, BROKEN, psprintf("Tenant %s cannot be reached and is set aside.", wh_page_name(tenant_name)),
				 psprintf("%s %s failures in a row; it is asked again at %s UTC. %s", days,
						  wh_page_count(wh_get_int4(row, 4)), wh_page_column(row, 6),
						  wh_html_clipped(wh_get_text(CurrentMemoryContext, row, 5), 300)),
				 psprintf("SELECT * FROM _wh.check_tenant(%s);\nSELECT _wh.resume_tenant(%s);", literal, literal));
		else
			find(found, LOOK, psprintf("Tenant %s could not be reached; one job finds out whether it is back.",
									   wh_page_name(tenant_name)),
				 wh_html_clipped(wh_get_text(CurrentMemoryContext, row, 5), 300),
				 psprintf("SELECT * FROM _wh.check_tenant(%s);", literal));
	}
}

/* ---- days ---- */

/* A kind of trouble with days, in words that stand between a number and a name. */
typedef struct Trouble
{
	WhPageDay	day;
	Level		level;
	const char *one;
	const char *many;
	const char *mode;			/* of the backfill that does something about it */
} Trouble;

static const Trouble troubles[] = {
	{WH_DAY_FAILED, BROKEN, "day failed and has no rows", "days failed and have no rows", "failed"},
	{WH_DAY_MISSING, BROKEN, "day is missing and not on its way", "days are missing and not on their way", "missing"},
	{WH_DAY_SUSPECT, LOOK, "day has a suspect count of rows", "days have a suspect count of rows", "all"},
	{WH_DAY_NOT_RENEWED, LOOK, "day could not be loaded again and shows what it had",
	"days could not be loaded again and show what they had", "failed"},
};

static bool
has_trouble(const WhPageUnit *unit, const Trouble *trouble)
{
	/* what a tenant has that cannot be read is said of the tenant */
	bool		told = (!unit->active || unit->set_aside) && trouble->day != WH_DAY_SUSPECT;

	return unit->count[trouble->day] > 0 && !told;
}

/* Whether the schedule of the unit comes back to all of these days by itself. */
static bool
heals(const WhPage *page, const WhPageUnit *unit, const Trouble *trouble)
{
	DateADT		first = page->today;
	DateADT		last;

	return trouble->day != WH_DAY_SUSPECT && unit->next_run != NULL &&
		wh_page_find_days(page, unit, trouble->day, &first, &last) && first >= page->today - wh_catchup_days;
}

/* Of one subscription (schema given) or of all of the template. */
static void
add_look_at_suspects(StringInfo commands, const char *template_name, const char *schema)
{
	appendStringInfo(commands, "SELECT target_schema, target_date, rows, last_error FROM _wh.day_loads"
					 " WHERE template_name = %s%s%s AND state = 'suspect' ORDER BY 1, 2;", wh_html_literal(template_name),
					 schema ? " AND target_schema = " : "", schema ? wh_html_literal(schema) : "");
}

static void
find_unit(Attention *found, const WhPageUnit *unit, const Trouble *trouble)
{
	const WhPage *page = found->page;
	int			n = unit->count[trouble->day];
	bool		healing = heals(page, unit, trouble);
	StringInfoData commands;
	DateADT		first = page->today;
	DateADT		last = page->today;

	(void) wh_page_find_days(page, unit, trouble->day, &first, &last);
	initStringInfo(&commands);
	if (trouble->day == WH_DAY_SUSPECT)
	{
		add_look_at_suspects(&commands, unit->template_name, unit->target_schema);
		appendStringInfoChar(&commands, '\n');
	}
	appendStringInfo(&commands, "SELECT _wh.enqueue_backfill(%s, %s, '%s', '%s', %s, '%s');",
					 wh_html_literal(unit->template_name), wh_html_literal(unit->tenant_name), wh_date_text(first),
					 wh_date_text(last), wh_html_literal(unit->target_schema), trouble->mode);
	find(found, healing ? LOOK : trouble->level,
		 psprintf("%s %s: %s.", wh_page_count(n), n == 1 ? trouble->one : trouble->many,
				  wh_page_unit_name(unit->template_name, unit->tenant_name, unit->target_schema)),
		 healing ? psprintf("%s. Its schedule tries again at %s UTC.", wh_page_span(page, unit, trouble->day), unit->next_run) :
		 psprintf("%s.", wh_page_span(page, unit, trouble->day)), commands.data);
}

/* What to type for all subscriptions of a template that have the trouble. */
static char *
command_for_template(const WhPage *page, const char *template_name, const Trouble *trouble)
{
	StringInfoData command;

	initStringInfo(&command);
	/* all are not loaded again with one command because some look odd */
	if (trouble->day == WH_DAY_SUSPECT)
		add_look_at_suspects(&command, template_name, NULL);
	else
		appendStringInfo(&command, "SELECT target_schema, _wh.enqueue_backfill(template_name, tenant_name,"
						 " greatest(start_date, '%s'), '%s', target_schema, '%s')"
						 " FROM _wh.tenant_templates WHERE template_name = %s AND active AND start_date <= '%s';",
						 wh_date_text(page->first), wh_date_text(page->today), trouble->mode, wh_html_literal(template_name),
						 wh_date_text(page->today));
	return command.data;
}

static void
find_units_together(Attention *found, int first, int end, const Trouble *trouble)
{
	const WhPage *page = found->page;
	char	   *template_name = page->units[first].template_name;
	bool		healing = true;
	StringInfoData names;
	int64		days = 0;
	int			nunits = 0;

	initStringInfo(&names);
	for (int i = first; i < end; i++)
	{
		if (!has_trouble(&page->units[i], trouble))
			continue;
		healing = healing && heals(page, &page->units[i], trouble);
		if (nunits++ < SAMPLE_UNITS)
			appendStringInfo(&names, "%s%s", nunits > 1 ? ", " : "", wh_page_name(page->units[i].target_schema));
		days += page->units[i].count[trouble->day];
	}
	if (nunits > SAMPLE_UNITS)
		appendStringInfo(&names, " and %d more", nunits - SAMPLE_UNITS);
	find(found, healing ? LOOK : trouble->level,
		 psprintf("%s %s: %s of %d tenants.", wh_page_count(days), trouble->many, wh_page_name(template_name), nunits),
		 psprintf("%s.%s", names.data, healing ? " Their schedules try again." : ""),
		 command_for_template(page, template_name, trouble));
}

static void
find_template(Attention *found, int first, int end, const Trouble *trouble)
{
	int			n = 0;

	for (int i = first; i < end; i++)
		n += has_trouble(&found->page->units[i], trouble);
	if (n > SEPARATE_UNITS)
	{
		find_units_together(found, first, end, trouble);
		return;
	}
	for (int i = first; i < end; i++)
		if (has_trouble(&found->page->units[i], trouble))
			find_unit(found, &found->page->units[i], trouble);
}

static void
find_days(Attention *found)
{
	const WhPage *page = found->page;
	int			end;

	for (int t = 0; t < lengthof(troubles); t++)
		for (int first = 0; first < page->nunits; first = end)
		{
			end = first;
			while (end < page->nunits && strcmp(page->units[end].template_name, page->units[first].template_name) == 0)
				end++;
			find_template(found, first, end, &troubles[t]);
		}
}

/* ---- promises ---- */

/* Days that lack are told as days; this says that data is older than promised. */
static void
find_breaches(Attention *found, WhFreshness freshness)
{
	const WhPage *page = found->page;
	const WhPageUnit *sample = NULL;
	int64		n = 0;

	for (int i = 0; i < page->nunits; i++)
	{
		if (page->units[i].freshness != freshness)
			continue;
		if (sample == NULL || page->units[i].lag > sample->lag)
			sample = &page->units[i];
		n++;
	}
	if (sample == NULL)
		return;
	find(found, freshness == WH_STALE ? BROKEN : LOOK,
		 psprintf(freshness == WH_STALE ? "%s %s older than promised." : "%s %s going to be older than promised.",
				  wh_page_count(n), n == 1 ? "subscription is" : "subscriptions are"),
		 psprintf("%s%s is complete until %s UTC, was to be renewed by %s and is expected %s. Its lag is %s.",
				  n > 1 ? "The worst, " : "", wh_page_unit_name(sample->template_name, sample->tenant_name, sample->target_schema),
				  sample->complete_until ? sample->complete_until : "never", sample->due_at ? sample->due_at : "never",
				  sample->predicted_at ? psprintf("at %s", sample->predicted_at) : "not by itself", wh_page_lag(sample)),
		 psprintf("SELECT tenant_name, template_name, lag, lag_schedule, lag_queue, lag_tenant, lag_run, due_at, predicted_at"
				  " FROM _wh.data_freshness WHERE freshness = '%s' ORDER BY lag DESC;",
				  freshness == WH_STALE ? "stale" : "at_risk"));
}

/* What the page does not show, and what readers do not see. */
static void
find_hidden_days(Attention *found)
{
	const WhPage *page = found->page;

	for (int i = 0; i < page->nunits; i++)
	{
		const WhPageUnit *unit = &page->units[i];
		char	   *name = wh_page_unit_name(unit->template_name, unit->tenant_name, unit->target_schema);

		if (unit->refused_days > 0)
			find(found, BROKEN, psprintf("%s loaded days of %s are kept out of its view.",
										 wh_page_count(unit->refused_days), name),
				 "A query of it would need more locks than the server has.",
				 psprintf("SELECT * FROM _wh.union_health WHERE template_name = %s;", wh_html_literal(unit->template_name)));
		if (unit->missing_before > 0)
			find(found, LOOK, psprintf("%s days of %s are missing before %s.", wh_page_count(unit->missing_before),
									   name, wh_date_text(page->first)), NULL,
				 psprintf("SELECT _wh.enqueue_backfill(%s, %s, '%s', '%s', %s);",
						  wh_html_literal(unit->template_name), wh_html_literal(unit->tenant_name),
						  wh_date_text(unit->start_date), wh_date_text(page->first - 1),
						  wh_html_literal(unit->target_schema)));
	}
}

/* ---- schedules and backfills ---- */

/* Refreshes that failed are told as days. */
static void
find_schedules(Attention *found)
{
	uint64		n = wh_query(
		"SELECT c.name, c.active, coalesce(c.last_status, ''), c.kind"
		"  FROM _wh.schedules c WHERE NOT c.active"
		"    OR c.kind <> 'refresh' AND (c.last_status LIKE 'failed%' OR c.last_status LIKE 'disabled%')"
		" ORDER BY c.active DESC, c.name", 0, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		char	   *name = wh_get_text(CurrentMemoryContext, row, 1);
		char	   *status = wh_html_clipped(wh_get_text(CurrentMemoryContext, row, 3), 300);
		bool		disabled = strncmp(status, "disabled", strlen("disabled")) == 0;

		if (wh_get_bool(row, 2) || disabled)
			find(found, LOOK, psprintf("The schedule %s failed.", wh_page_name(name)), status,
				 psprintf("SELECT status, return_message, end_time FROM _wh.job_run_details d JOIN _wh.job j USING (jobid)"
						  " WHERE j.jobname = %s ORDER BY runid DESC LIMIT 5;", wh_html_literal(name)));
		else
			find(found, NOTE, psprintf("The schedule %s is paused.", wh_page_name(name)), NULL,
				 psprintf("SELECT _wh.resume_schedule(%s);", wh_html_literal(name)));
	}
}

/* One that failed counts until its days are there, by whatever way, for a week. */
static void
find_backfills(Attention *found)
{
	uint64		n = wh_query(
		"SELECT b.backfill_id, b.template_name, b.tenant_name, b.paused, b.last_error FROM _wh.backfills b"
		" WHERE b.state = 'running' AND b.paused OR b.state = 'failed'"
		"   AND b.finished_at > pg_catalog.clock_timestamp() - interval '7 days'"
		"   AND EXISTS (SELECT FROM _wh.jobs j"
		"      LEFT JOIN _wh.day_loads d ON j.kind = 'refresh' AND d.template_name = j.template_name"
		"        AND d.target_schema = j.target_schema AND d.target_date = j.target_date"
		"     WHERE j.backfill_id = b.backfill_id AND j.state = 'failed'"
		"       AND (d.failed_at IS NOT NULL OR j.kind = 'publish'))"
		" ORDER BY b.backfill_id DESC LIMIT 50", 0, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		char	   *name = wh_page_unit_name(wh_get_text(CurrentMemoryContext, row, 2),
											 wh_get_text(CurrentMemoryContext, row, 3), NULL);
		char	   *id = wh_get_text(CurrentMemoryContext, row, 1);

		if (wh_get_bool(row, 4))
			find(found, NOTE, psprintf("Backfill %s (%s) is paused.", id, name), NULL,
				 psprintf("SELECT _wh.resume_backfill(%s);", id));
		else
			find(found, LOOK, psprintf("Backfill %s (%s) failed.", id, name),
				 wh_html_clipped(wh_get_text(CurrentMemoryContext, row, 5), 300),
				 psprintf("SELECT _wh.retry_failed(%s);", id));
	}
}

/* ---- all ---- */

static char *
headline(const Attention *found)
{
	if (found->n[BROKEN] > 0)
		return psprintf("%d %s", found->n[BROKEN], found->n[BROKEN] == 1 ? "thing is broken" : "things are broken");
	if (found->n[LOOK] > 0)
		return psprintf("Nothing is broken; %d %s", found->n[LOOK], found->n[LOOK] == 1 ? "thing needs a look" : "things need a look");
	return pstrdup("All is well");
}

void
wh_page_attention(WhPage *page)
{
	Attention	found = {.page = page};
	int			more = 0;

	for (int level = 0; level < LEVELS; level++)
		initStringInfo(&found.items[level]);
	find_paused(&found);
	find_launcher(&found);
	find_stuck_queue(&found);
	find_tenants(&found);
	find_breaches(&found, WH_STALE);
	find_breaches(&found, WH_AT_RISK);
	find_days(&found);
	find_hidden_days(&found);
	find_replication(&found);
	find_held_up_loads(&found);
	find_schedules(&found);
	find_backfills(&found);

	wh_page_section(page, "attention", headline(&found));
	appendStringInfoString(page->out, "<ul class=\"cards\">");
	for (int level = 0; level < LEVELS; level++)
	{
		appendStringInfoString(page->out, found.items[level].data);
		more += Max(found.n[level] - MAX_ITEMS, 0);
	}
	if (found.n[BROKEN] + found.n[LOOK] + found.n[NOTE] == 0)
		appendStringInfoString(page->out, "<li class=\"well\"><p><span class=\"badge\">well</span>"
							   " Every expected day is there and nothing waits for a person.</p></li>");
	if (more > 0)
		appendStringInfo(page->out, "<li><p>and %d more like these</p></li>", more);
	appendStringInfoString(page->out, "</ul>");
	wh_page_end_section(page);
}
