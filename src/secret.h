/*
 * secret.h: encrypting and decrypting the password of a tenant.
 *
 * A ciphertext is the text wh_encrypted:v1:<key id>:<hexadecimal digits>, so
 * that whoever meets it knows what it is and which key it needs.
 */
#ifndef WH_SECRET_H
#define WH_SECRET_H

#include "remote.h"

typedef enum WhSecretState
{
	WH_SECRET_CLEAR,			/* no ciphertext: the text is the password */
	WH_SECRET_MALFORMED,		/* starts like one, but is none that we write */
	WH_SECRET_NO_KEY,			/* its key is not in the key file, or there is no file */
	WH_SECRET_FOREIGN,			/* changed, or made for another tenant or address */
	WH_SECRET_OPENED
} WhSecretState;

/* A password that must be encrypted must not look like a ciphertext. */
extern bool wh_secret_is_sealed(const char *text);

/* Whether the text is a ciphertext of the key that encrypts now. */
extern bool wh_secret_is_current(const char *text);

/*
 * The ciphertext of a password, palloc'd, with the tenant's name, host, port,
 * database and role as associated data.  Needs a key file.
 */
extern char *wh_secret_seal(const WhTenant *tenant, const char *password);

/*
 * The password of a stored text, palloc'd, in *password if the state is CLEAR
 * or OPENED; else NULL.  wh_secret_open() raises for the other states.
 */
extern WhSecretState wh_secret_try_open(const WhTenant *tenant, const char *stored, char **password);
extern char *wh_secret_open(const WhTenant *tenant, const char *stored);

/* The error of a state, with "elevel" ERROR or WARNING; nothing of CLEAR and OPENED. */
extern void wh_secret_report(int elevel, const WhTenant *tenant, WhSecretState state);

/* Wipes and frees; NULL is fine. */
extern void wh_secret_wipe(char *text);

#endif
