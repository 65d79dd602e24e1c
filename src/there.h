/*
 * there.h: whether what the ledger remembers by OID is still there.
 *
 * A relation counts only under its name and in its schema: one that a person
 * renamed or moved is his.  Pieces of SQL, for the files that ask.
 */
#ifndef WH_THERE_H
#define WH_THERE_H

#define WH_IS_THERE(oid, name, schema) \
"EXISTS (SELECT FROM pg_catalog.pg_class c_" \
" JOIN pg_catalog.pg_namespace n_ ON n_.oid = c_.relnamespace" \
" WHERE c_.oid = " oid " AND c_.relname = " name " AND n_.nspname = " schema ")"

/* The relation of "d", a row of _wh.day_loads, with its content. */
#define WH_DAY_IS_THERE \
"EXISTS (SELECT FROM pg_catalog.pg_class c_" \
" JOIN pg_catalog.pg_namespace n_ ON n_.oid = c_.relnamespace" \
" WHERE c_.oid = d.relation_oid AND c_.relname = d.relation AND n_.nspname = d.target_schema" \
" AND c_.relispopulated)"

/* The tenant view of "s", a row of _wh.tenant_templates, was made and is not there. */
#define WH_TENANT_VIEW_IS_GONE \
"(s.view_oid IS NOT NULL AND NOT " WH_IS_THERE("s.view_oid", "s.template_name", "s.target_schema") ")"

#endif
