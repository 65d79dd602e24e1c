/*
 * password_command.h: asks the program of wh_worker.password_command.
 */
#ifndef WH_PASSWORD_COMMAND_H
#define WH_PASSWORD_COMMAND_H

#include "remote.h"

/* Tokens of cloud providers are passwords too. */
#define WH_PASSWORD_MAX 8192

/*
 * The first line that the program prints, palloc'd.  Waits on the latch, at
 * most "timeout" ms; 08001 if the program does not say a password by then.
 */
extern char *wh_password_command_run(const WhTenant *tenant, int timeout);

/*
 * Ends "password" of "length" bytes, for which there is room for one more, before
 * a carriage return, and refuses what no password can be; wiped then.
 */
extern void wh_password_check(char *password, size_t length, const char *where);

#endif
