/*
 * json_text.c: JSON of values that others wrote, on one line and bounded.
 *
 * Called by audit.c, audit_change.c and log_context.c.  PostgreSQL's own
 * escape_json() leaves no quote and no control character as it was, so that a
 * name with a newline cannot begin a line of the log, and no value end its
 * string.  Also says which values are secrets that may not be written at all.
 *
 * May run while an error is reported: touches no catalog and does not raise.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/json.h"

#include "json_text.h"

/* Of one value: an audit row holds both versions of a query. */
#define VALUE_BYTES 4000

void
wh_json_key(StringInfo json, const char *key)
{
	char		last = json->len > 0 ? json->data[json->len - 1] : '{';

	if (last != '{')
		appendStringInfoChar(json, ',');
	escape_json(json, key);
	appendStringInfoChar(json, ':');
}

static void
add_clipped(StringInfo json, const char *value)
{
	int			length = strlen(value);
	char	   *clipped;

	if (length <= VALUE_BYTES)
	{
		escape_json(json, value);
		return;
	}
	clipped = psprintf("%.*s… (%d bytes)", pg_mbcliplen(value, length, VALUE_BYTES), value, length);
	escape_json(json, clipped);
	pfree(clipped);
}

void
wh_json_text(StringInfo json, const char *key, const char *value)
{
	if (value == NULL)
		return;
	wh_json_key(json, key);
	add_clipped(json, value);
}

void
wh_json_int(StringInfo json, const char *key, int64 value)
{
	wh_json_key(json, key);
	appendStringInfo(json, INT64_FORMAT, value);
}

void
wh_json_value(StringInfo json, Oid type, const char *value)
{
	if (value == NULL)
		appendStringInfoString(json, "null");
	else if (type == BOOLOID)
		appendStringInfoString(json, value[0] == 't' ? "true" : "false");
	else if (type == INT2OID || type == INT4OID || type == INT8OID)
		appendStringInfoString(json, value);
	else
		add_clipped(json, value);
}

/* Not whether there has to be one: password_required is a boolean. */
bool
wh_json_is_secret(const char *name, Oid type)
{
	return type != BOOLOID && strstr(name, "password") != NULL;
}
