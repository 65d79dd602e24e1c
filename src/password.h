/*
 * password.h: the password with which a tenant is reached.
 */
#ifndef WH_PASSWORD_H
#define WH_PASSWORD_H

#include "remote.h"

/*
 * The password in clear, palloc'd: what the row of the tenant holds, or else
 * what wh_worker.password_command says; NULL if there is neither.  Waits for
 * that command, at most "timeout" ms.  The caller wipes it with
 * wh_secret_wipe() as soon as it has used it.
 */
extern char *wh_password_of(const WhTenant *tenant, int timeout);

/* Whether there is one, and where from; for people. */
extern bool wh_password_is_known(const WhTenant *tenant);
extern const char *wh_password_source(const WhTenant *tenant);

/*
 * What is to be stored for a password that was given: its ciphertext if there
 * is a key file.  NULL stays NULL.
 */
extern char *wh_password_to_store(const WhTenant *tenant, const char *password);

#endif
