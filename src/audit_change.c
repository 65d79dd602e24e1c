/*
 * audit_change.c: a changed row of a table that people write, in the audit log.
 *
 * One trigger function for all such tables: it finds out which columns there
 * are, leaves out what the warehouse itself keeps up to date, and never writes
 * a secret: of a password the log says that it was set, changed or removed.
 *
 * Called as a trigger AFTER each row or a TRUNCATE, by a restore too, which is a change.  May
 * not refuse a change.  Locks: those of wh_audit_write().
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/sysattr.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#include "audit.h"
#include "json_text.h"
#include "wh_worker.h"

PG_FUNCTION_INFO_V1(wh_sql_audit_change);

/* Kept by the warehouse, or by a trigger of the same table. */
static const char *const kept_columns[] = {
	"created_at", "updated_at", "version", "view_oid", "isolated_view_oid", "tree_oid", "part_oid", "days", "days_since_start",
	"outdated_days", "rows", "bytes", "data_through", "last_success",
	"complete_until", "run_seconds", "queue_seconds", "failing_since", "locks", "refused_days", "next_run",
	"last_run", "last_status"
};

static bool
is_kept_column(const char *name)
{
	for (int i = 0; i < lengthof(kept_columns); i++)
		if (strcmp(name, kept_columns[i]) == 0)
			return true;
	return false;
}

static bool
is_same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* ---- the sides of a change ---- */

/* "old" or "new": what a column had or has; of a secret, that there is one. */
static void
add_column(StringInfo json, Form_pg_attribute column, const char *value, const char *secret)
{
	wh_json_key(json, NameStr(column->attname));
	if (value != NULL && wh_json_is_secret(NameStr(column->attname), column->atttypid))
		escape_json(json, secret);
	else
		wh_json_value(json, column->atttypid, value);
}

/* All columns of a row that has come or gone, but those that are null. */
static char *
whole_row(HeapTuple row, TupleDesc desc, const char *side)
{
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfo(&json, "{\"%s\":{", side);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char	   *value = column->attisdropped ? NULL : SPI_getvalue(row, desc, i + 1);

		if (value != NULL && !is_kept_column(NameStr(column->attname)))
			add_column(&json, column, value, "set");
	}
	appendStringInfoString(&json, "}}");
	return json.data;
}

/* Which row it was: the columns of the primary key. */
static void
add_key(StringInfo json, Relation rel, HeapTuple row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Bitmapset  *key = RelationGetIndexAttrBitmap(rel, INDEX_ATTR_BITMAP_PRIMARY_KEY);

	wh_json_key(json, "key");
	appendStringInfoChar(json, '{');
	for (int i = 0; i < desc->natts; i++)
		if (bms_is_member(i + 1 - FirstLowInvalidHeapAttributeNumber, key))
			add_column(json, TupleDescAttr(desc, i), SPI_getvalue(row, desc, i + 1), "set");
	appendStringInfoChar(json, '}');
}

/* NULL if nothing changed that a person decides on. */
static char *
difference(Relation rel, HeapTuple old_row, HeapTuple new_row)
{
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData json;
	StringInfoData old;
	StringInfoData new;

	initStringInfo(&json);
	initStringInfo(&old);
	initStringInfo(&new);
	appendStringInfoChar(&json, '{');
	add_key(&json, rel, old_row);
	appendStringInfoChar(&old, '{');
	appendStringInfoChar(&new, '{');
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);
		char	   *before;
		char	   *after;

		if (column->attisdropped || is_kept_column(NameStr(column->attname)))
			continue;
		before = SPI_getvalue(old_row, desc, i + 1);
		after = SPI_getvalue(new_row, desc, i + 1);
		if (is_same(before, after))
			continue;
		add_column(&old, column, before, "set");
		add_column(&new, column, after, "changed");
	}
	if (old.len == 1)
		return NULL;
	appendStringInfo(&json, ",\"old\":%s},\"new\":%s}}", old.data, new.data);
	return json.data;
}

/* ---- the trigger ---- */

static const char *
column_or_null(Relation rel, HeapTuple row, const char *name)
{
	TupleDesc	desc = RelationGetDescr(rel);
	int			number = SPI_fnumber(desc, name);

	return number > 0 ? SPI_getvalue(row, desc, number) : NULL;
}

static void
write_change(Relation rel, HeapTuple row, const char *event, const char *details)
{
	WhAudit		audit = {
		.event = event, .object = RelationGetRelationName(rel), .details = details,
		.tenant_name = row != NULL ? column_or_null(rel, row, "tenant_name") : NULL,
		.template_name = row != NULL ? column_or_null(rel, row, "template_name") : NULL,
		.target_schema = row != NULL ? column_or_null(rel, row, "target_schema") : NULL
	};

	if (details != NULL)
		wh_audit_write(&audit);
}

Datum
wh_sql_audit_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	Relation	rel;

	wh_require_preloaded();
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by a trigger", "audit_change")));
	rel = trigger->tg_relation;
	desc = RelationGetDescr(rel);
	if (TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		write_change(rel, NULL, "truncate", "{}");
	else if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		write_change(rel, trigger->tg_newtuple, "update",
					 difference(rel, trigger->tg_trigtuple, trigger->tg_newtuple));
	else if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
		write_change(rel, trigger->tg_trigtuple, "delete", whole_row(trigger->tg_trigtuple, desc, "old"));
	else
		write_change(rel, trigger->tg_trigtuple, "insert", whole_row(trigger->tg_trigtuple, desc, "new"));
	return PointerGetDatum(NULL);
}
