/*
 * json_text.h: JSON of values that others wrote, on one line and bounded.
 */
#ifndef WH_JSON_TEXT_H
#define WH_JSON_TEXT_H

#include "lib/stringinfo.h"

/* "key": with a comma before it unless it is the first of its object. */
extern void wh_json_key(StringInfo json, const char *key);

/* A key with a text, or nothing if that is NULL; what is too long is clipped. */
extern void wh_json_text(StringInfo json, const char *key, const char *value);
extern void wh_json_int(StringInfo json, const char *key, int64 value);

/* The value, given as its type's output function wrote it; NULL is null. */
extern void wh_json_value(StringInfo json, Oid type, const char *value);

/* Whether a column or argument of that name and type holds a secret. */
extern bool wh_json_is_secret(const char *name, Oid type);

#endif
