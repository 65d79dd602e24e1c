/*
 * version.h: whether the library that the server has loaded and the SQL of this
 * database are of one version.
 */
#ifndef WH_VERSION_H
#define WH_VERSION_H

/* From _PG_init; the setting that says which version the library is. */
extern void wh_version_register(void);

/*
 * Why the extension cannot be used here, and what to do: it is not created, or
 * is of another version than the library.  NULL if it can.  In a transaction;
 * palloc'd.  hint may be NULL.
 */
extern char *wh_version_problem(const char **hint);

/* 55000 if it is of another version; looked up once in a transaction. */
extern void wh_version_require(void);

#endif
