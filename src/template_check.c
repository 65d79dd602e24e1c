/*
 * template_check.c: what may be written into _wh.mv_templates.
 *
 * A template that cannot work is refused when it is written, with a message
 * for the one who writes it, instead of failing in every job.  The trigger
 * before the change looks at its own row and, before it lets a template be
 * renamed or deleted, at the ledger; an INSERT looks at nothing else, so that a
 * dump can be restored in any order.  The trigger after it lets the views
 * follow.
 *
 * Called by triggers.  Talks to no tenant.  Locks: those of template_views.c;
 * a query of the ledger takes the lock of a reader.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "clock.h"
#include "guc.h"
#include "isolation.h"
#include "schedule_check.h"
#include "sqlutil.h"
#include "template.h"
#include "template_views.h"
#include "tier.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_check_template);
PG_FUNCTION_INFO_V1(wh_sql_template_changed);
PG_FUNCTION_INFO_V1(wh_sql_notify_config);
PG_FUNCTION_INFO_V1(wh_sql_create_mv_name);
PG_FUNCTION_INFO_V1(wh_sql_current_date_utc);

static void
check_template_name(const char *name)
{
	if (name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("template name is empty")));
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("template name \"%s\" is too long", name),
				 errdetail("It has %d bytes; its views can have names of at most %d.",
						   (int) strlen(name), (NAMEDATALEN - 1))));
}

/* The end of TARGET_DATE, in any case and with any separator, or NULL. */
static const char *
match_target_date(const char *text)
{
	if (pg_strncasecmp(text, "target", 6) != 0)
		return NULL;
	text += 6;
	text += strspn(text, " _-");
	return pg_strncasecmp(text, "date", 4) == 0 ? text + 4 : NULL;
}

/*
 * Whether word..end, which match_target_date() found, was meant to be the
 * placeholder and is not.  Without braces it is a name of the user's.
 */
static bool
is_near_miss(const char *query, const char *word, const char *end)
{
	bool		right_word = end - word == 11 && strncmp(word, "TARGET_DATE", 11) == 0;
	const char *before = word;
	const char *after = end + strspn(end, " ");
	bool		opened;
	bool		closed;

	while (before > query && before[-1] == ' ')
		before--;
	opened = before > query && before[-1] == '{';
	closed = *after == '}';

	if (opened && closed && right_word && before == word && after == end)
	{
		char		outer = before - 1 > query ? before[-2] : '\0';

		return outer == '$' || (outer == '{' && after[1] == '}');
	}
	return (opened && closed) || (right_word && (opened || closed));
}

static void
check_placeholders(const char *template_name, const char *column, const char *query)
{
	for (const char *p = query; *p != '\0'; p++)
	{
		const char *end = match_target_date(p);

		if (end != NULL && is_near_miss(query, p, end))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("%s of template \"%s\" has \"%.*s\" in braces that are not those of the placeholder",
							column, template_name, (int) (end - p), p),
					 errhint("Write %s.", WH_DATE_PLACEHOLDER)));
	}
	if (strstr(query, WH_DATE_PLACEHOLDER) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of template \"%s\" does not contain %s",
						column, template_name, WH_DATE_PLACEHOLDER),
				 errhint("Write '%s', in quotes, where the day belongs.", WH_DATE_PLACEHOLDER)));
}

/* Only what the trigger reads; NULL where the table's constraint will refuse. */
static WhTemplate
template_of_tuple(HeapTuple tuple, TupleDesc desc)
{
	WhTemplate	tmpl = {0};
	char	   *layout;

	tmpl.name = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "template_name"));
	tmpl.query_template = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "query_template"));
	tmpl.change_probe = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "change_probe"));
	tmpl.column_definitions = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "column_definitions"));
	tmpl.indexes = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "indexes"));
	tmpl.date_column = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "date_column"));
	layout = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "layout"));
	tmpl.in_tree = layout != NULL && strcmp(layout, "partitions") == 0;
	return tmpl;
}

static int32
version_of_tuple(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		version = SPI_getbinval(tuple, desc, SPI_fnumber(desc, "version"), &isnull);

	return isnull ? 1 : DatumGetInt32(version);
}

static bool
is_complete(const WhTemplate *tmpl)
{
	return tmpl->name != NULL && tmpl->query_template != NULL &&
		tmpl->column_definitions != NULL && tmpl->indexes != NULL;
}

/* A missing one is refused by the table's constraint. */
static void
check_schedule(HeapTuple tuple, TupleDesc desc)
{
	char	   *schedule = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "schedule"));

	if (schedule != NULL)
		wh_schedule_check_text(schedule);
}

/* One that a row has already may be gone: then combining says so. */
static void
check_tablespace(HeapTuple tuple, HeapTuple old_tuple, TupleDesc desc, const char *column)
{
	char	   *tablespace = SPI_getvalue(tuple, desc, SPI_fnumber(desc, column));
	char	   *old = old_tuple ? SPI_getvalue(old_tuple, desc, SPI_fnumber(desc, column)) : NULL;

	if (tablespace == NULL || (old != NULL && strcmp(old, tablespace) == 0))
		return;
	wh_spi_begin();
	wh_tier_check_tablespace(SPI_getvalue(tuple, desc, SPI_fnumber(desc, "template_name")),
							 column, tablespace);
	wh_spi_end();
}

/* Longer than anybody waits for data, and short enough to add to any moment. */
#define FRESH_WITHIN_MAX_YEARS 10

static void
refuse_promise(HeapTuple tuple, TupleDesc desc, const char *column, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("%s of template \"%s\" is %s", column,
					SPI_getvalue(tuple, desc, SPI_fnumber(desc, "template_name")),
					SPI_getvalue(tuple, desc, SPI_fnumber(desc, column))),
			 errhint("%s", hint)));
}

/* A missing fresh_after is refused by the table's constraint. */
static void
check_promise(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		within = SPI_getbinval(tuple, desc, SPI_fnumber(desc, "fresh_within"), &isnull);
	char	   *after = SPI_getvalue(tuple, desc, SPI_fnumber(desc, "fresh_after"));
	Interval	none = {0};
	Interval	most = {.month = FRESH_WITHIN_MAX_YEARS * MONTHS_PER_YEAR};

	if (!isnull &&
		(DatumGetInt32(DirectFunctionCall2(interval_cmp, within, IntervalPGetDatum(&none))) <= 0 ||
		 DatumGetInt32(DirectFunctionCall2(interval_cmp, within, IntervalPGetDatum(&most))) > 0))
		refuse_promise(tuple, desc, "fresh_within",
					   "It has to be longer than nothing and at most 10 years, such as '6 hours'; NULL makes no promise.");
	if (after != NULL && strcmp(after, "load") != 0 && strcmp(after, "day") != 0)
		refuse_promise(tuple, desc, "fresh_after",
					   "It has to be load (how old the data may get) or day (how long after its end a day is complete).");
}

static void
check_settings(HeapTuple tuple, HeapTuple old_tuple, TupleDesc desc)
{
	check_schedule(tuple, desc);
	check_promise(tuple, desc);
	check_tablespace(tuple, old_tuple, desc, "month_tablespace");
	check_tablespace(tuple, old_tuple, desc, "year_tablespace");
}

static bool
is_date_type(Oid type)
{
	return type == DATEOID || type == TIMESTAMPOID || type == TIMESTAMPTZOID;
}

/* A date column is checked in the layout that does not need it as well. */
static void
check_layout(const WhTemplate *tmpl)
{
	TupleDesc	columns = wh_template_parse_columns(tmpl->name, tmpl->column_definitions);
	AttrNumber	attnum = wh_template_find_column(columns, tmpl->date_column);

	if (tmpl->in_tree && tmpl->date_column == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("layout \"partitions\" of template \"%s\" needs a date_column", tmpl->name),
				 errhint("Name the column that tells the day of a row.")));
	if (tmpl->date_column == NULL)
		return;
	if (attnum == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("date_column \"%s\" is no column of template \"%s\"", tmpl->date_column, tmpl->name)));
	if (!is_date_type(TupleDescAttr(columns, attnum - 1)->atttypid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("date_column \"%s\" of template \"%s\" is of type %s", tmpl->date_column, tmpl->name,
						format_type_be(TupleDescAttr(columns, attnum - 1)->atttypid)),
				 errhint("It has to be date, timestamp or timestamptz.")));
}

/* What is asked about a day has to be told which. */
static void
check_query(const char *template_name, const char *column, const char *query)
{
	check_placeholders(template_name, column, query);
	(void) wh_template_cut_query(template_name, column, query);
}

static void
check_template(const WhTemplate *tmpl)
{
	check_template_name(tmpl->name);
	check_query(tmpl->name, "query_template", tmpl->query_template);
	if (tmpl->change_probe != NULL)
		check_query(tmpl->name, "change_probe", tmpl->change_probe);
	(void) wh_template_parse_columns(tmpl->name, tmpl->column_definitions);
	(void) wh_template_indexes(tmpl, "s", "v");
	check_layout(tmpl);
}

static int64
count_loaded_days(const char *template_name)
{
	WhArg		args[] = {WH_TEXT(template_name)};
	int64		days;

	wh_spi_begin();
	wh_query("SELECT pg_catalog.count(*) FROM _wh.day_loads"
			 " WHERE template_name OPERATOR(pg_catalog.=) $1 AND relation_oid IS NOT NULL",
			 1, args);
	days = wh_get_int8(0, 1);
	wh_spi_end();
	return days;
}

/* "what" cannot be "done" while days are loaded: they would be orphans. */
static void
refuse_while_loaded(const char *what, const char *template_name, const char *done, int64 days,
					const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg_plural("%s \"%s\" cannot be %s while %lld day is loaded",
						   "%s \"%s\" cannot be %s while %lld days are loaded",
						   (unsigned long) days, what, template_name, done, (long long) days),
			 errhint("%s", hint)));
}

static void
check_delete(const WhTemplate *old)
{
	int64		days = count_loaded_days(old->name);

	if (days > 0)
		refuse_while_loaded("template", old->name, "deleted", days,
							"Drop these days first with _wh.drop_day().");
}

static void
check_rename(const WhTemplate *old, const WhTemplate *new)
{
	int64		days;

	if (strcmp(old->name, new->name) == 0)
		return;
	days = count_loaded_days(old->name);
	if (days > 0)
		refuse_while_loaded("template", old->name, "renamed", days,
							"Write it under a new name as well, or drop these days first with _wh.drop_day().");
}

static Oid
oid_of_tuple(HeapTuple tuple, TupleDesc desc, const char *column)
{
	bool		isnull;
	Datum		oid = SPI_getbinval(tuple, desc, SPI_fnumber(desc, column), &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(oid);
}

/* The tree is divided by it. */
static void
check_date_column_stays(const WhTemplate *old, const WhTemplate *new, Oid tree)
{
	if (!OidIsValid(tree) || get_rel_relkind(tree) != RELKIND_PARTITIONED_TABLE ||
		(new->date_column != NULL && strcmp(old->date_column, new->date_column) == 0))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("date_column of template \"%s\" cannot change while days are in its partition tree", old->name),
			 errhint("Move the template with _wh.convert_layout(%s, 'matviews'), change it, and move it back.",
					 quote_literal_cstr(old->name))));
}

/* Whether days that were loaded before are outdated. */
static bool
content_changed(const WhTemplate *old, const WhTemplate *new)
{
	return strcmp(old->query_template, new->query_template) != 0 ||
		strcmp(old->column_definitions, new->column_definitions) != 0 ||
		strcmp(old->indexes, new->indexes) != 0;
}

static HeapTuple
set_column(HeapTuple tuple, TupleDesc desc, const char *column, Datum value)
{
	int			attnum = SPI_fnumber(desc, column);
	bool		isnull = false;

	return heap_modify_tuple_by_cols(tuple, desc, 1, &attnum, &value, &isnull);
}

/* A restored row keeps its version. */
static HeapTuple
finish_insert(HeapTuple tuple, TupleDesc desc)
{
	int32		version = version_of_tuple(tuple, desc);

	return version >= 1 ? tuple : set_column(tuple, desc, "version", Int32GetDatum(1));
}

static bool
isolation_of_tuple(HeapTuple tuple, TupleDesc desc)
{
	bool		isnull;
	Datum		value = SPI_getbinval(tuple, desc, SPI_fnumber(desc, "tenant_isolation"), &isnull);

	return !isnull && DatumGetBool(value);
}

/* Noting what we made is no change of the template. */
static bool
relations_differ(HeapTuple old_tuple, HeapTuple tuple, TupleDesc desc)
{
	return oid_of_tuple(old_tuple, desc, "view_oid") != oid_of_tuple(tuple, desc, "view_oid") ||
		oid_of_tuple(old_tuple, desc, "isolated_view_oid") != oid_of_tuple(tuple, desc, "isolated_view_oid") ||
		oid_of_tuple(old_tuple, desc, "tree_oid") != oid_of_tuple(tuple, desc, "tree_oid");
}

static HeapTuple
finish_update(HeapTuple old_tuple, HeapTuple tuple, TupleDesc desc, bool changed)
{
	int32		version = version_of_tuple(old_tuple, desc) + (changed ? 1 : 0);

	if (!changed && relations_differ(old_tuple, tuple, desc))
		return tuple;
	tuple = set_column(tuple, desc, "version", Int32GetDatum(version));
	return set_column(tuple, desc, "updated_at",
					  TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
}

static TriggerData *
get_trigger(FunctionCallInfo fcinfo, const char *function_name)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger", function_name)));
	return (TriggerData *) fcinfo->context;
}

Datum
wh_sql_check_template(PG_FUNCTION_ARGS)
{
	TriggerData *trigger;
	TupleDesc	desc;
	WhTemplate	old;
	WhTemplate	new;

	wh_require_preloaded();
	trigger = get_trigger(fcinfo, "check_template");
	desc = RelationGetDescr(trigger->tg_relation);
	old = template_of_tuple(trigger->tg_trigtuple, desc);

	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		check_delete(&old);
		return PointerGetDatum(trigger->tg_trigtuple);
	}
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
	{
		if (is_complete(&old))
			check_template(&old);
		check_settings(trigger->tg_trigtuple, NULL, desc);
		return PointerGetDatum(finish_insert(trigger->tg_trigtuple, desc));
	}

	new = template_of_tuple(trigger->tg_newtuple, desc);
	if (!is_complete(&new))
		return PointerGetDatum(trigger->tg_newtuple);
	check_template(&new);
	check_settings(trigger->tg_newtuple, trigger->tg_trigtuple, desc);
	check_rename(&old, &new);
	check_date_column_stays(&old, &new, oid_of_tuple(trigger->tg_trigtuple, desc, "tree_oid"));
	return PointerGetDatum(finish_update(trigger->tg_trigtuple, trigger->tg_newtuple, desc,
										 content_changed(&old, &new)));
}

/*
 * Views follow at once.  Ours are made as admin_role, whoever may write
 * templates; for users' views on top it is the writer who has to have the right.
 */
Datum
wh_sql_template_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger;
	TupleDesc	desc;
	Oid			invoker;
	int			context;
	WhTemplate	old;
	WhTemplate	new;

	wh_require_preloaded();
	trigger = get_trigger(fcinfo, "template_changed");
	desc = RelationGetDescr(trigger->tg_relation);
	old = template_of_tuple(trigger->tg_trigtuple, desc);
	new = template_of_tuple(trigger->tg_newtuple, desc);
	GetUserIdAndSecContext(&invoker, &context);
	SetUserIdAndSecContext(get_role_oid(wh_admin_role, false),
						   context | SECURITY_LOCAL_USERID_CHANGE);
	wh_spi_begin();
	if (old.in_tree != new.in_tree)
		wh_template_views_new_layout(new.name);
	if (version_of_tuple(trigger->tg_trigtuple, desc) != version_of_tuple(trigger->tg_newtuple, desc))
		wh_template_views_follow(new.name, invoker);
	if (isolation_of_tuple(trigger->tg_trigtuple, desc) != isolation_of_tuple(trigger->tg_newtuple, desc) &&
		OidIsValid(oid_of_tuple(trigger->tg_newtuple, desc, "view_oid")))
		wh_isolation_follow(new.name);
	wh_spi_end();
	SetUserIdAndSecContext(invoker, context);
	return PointerGetDatum(NULL);
}

/* What a launcher knows of the configuration is read again after commit. */
Datum
wh_sql_notify_config(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	(void) get_trigger(fcinfo, "notify_config");
	wh_notify_config_on_commit();
	return PointerGetDatum(NULL);
}

Datum
wh_sql_create_mv_name(PG_FUNCTION_ARGS)
{
	char	   *name;

	wh_require_preloaded();
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PG_RETURN_TEXT_P(cstring_to_text(wh_template_day_name(name, PG_GETARG_DATEADT(1))));
}

/* Of the transaction's start, as CURRENT_DATE. */
Datum
wh_sql_current_date_utc(PG_FUNCTION_ARGS)
{
	wh_require_preloaded();
	PG_RETURN_DATEADT(wh_clock_day_of(GetCurrentTransactionStartTimestamp()));
}
