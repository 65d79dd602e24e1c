/*
 * secret.c: passwords as AES-256-GCM ciphertexts.
 *
 * Called by password.c, for the trigger, the rotation of keys and whoever
 * connects.  The key that encrypts is the first of the key file; a ciphertext
 * names its key, so that older ones can be read as long as theirs is there.
 *
 * What a password is for is its associated data: the tenant's name, and the
 * host, port, database and role it was given for.  A ciphertext that is copied
 * to another row, or whose row was changed in a dump, opens for nobody.
 *
 * No message may hold a password or a key; both are wiped after use, also when
 * something fails.  Takes no locks.
 */
#include "postgres.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include "lib/stringinfo.h"
#include "utils/memutils.h"

#include "key_file.h"
#include "secret.h"

#define MARK "wh_encrypted:"
#define PREFIX MARK "v1:"
#define NONCE_BYTES 12
#define TAG_BYTES 16

/* Where the digits start, after the key's id and a colon. */
#define DIGITS_AT (sizeof(PREFIX) - 1 + WH_KEY_ID_LENGTH + 1)

bool
wh_secret_is_sealed(const char *text)
{
	return strncmp(text, MARK, sizeof(MARK) - 1) == 0;
}

void
wh_secret_wipe(char *text)
{
	if (text == NULL)
		return;
	explicit_bzero(text, strlen(text));
	pfree(text);
}

static void
append_field(StringInfo data, const char *field)
{
	appendStringInfo(data, "%zu:%s,", strlen(field), field);
}

/* No two tenants or addresses give the same: each field says its length. */
static void
make_associated_data(StringInfo data, const WhTenant *tenant)
{
	char		port[12];

	initStringInfo(data);
	snprintf(port, sizeof(port), "%d", tenant->port);
	append_field(data, PREFIX);
	append_field(data, tenant->name);
	append_field(data, tenant->host);
	append_field(data, port);
	append_field(data, tenant->dbname);
	append_field(data, tenant->username);
}

/*
 * One run of the cipher over "length" bytes.  "tag" is written when it
 * encrypts, and is what the result is checked against when it decrypts.
 */
static bool
run_cipher(bool encrypt, const WhKey *key, const unsigned char *nonce, const StringInfo data,
		   const unsigned char *in, int length, unsigned char *out, unsigned char *tag)
{
	EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
	int			done;
	bool		ok;

	ok = cipher != NULL &&
		EVP_CipherInit_ex(cipher, EVP_aes_256_gcm(), NULL, key->bytes, nonce, encrypt) == 1 &&
		EVP_CipherUpdate(cipher, NULL, &done, (const unsigned char *) data->data, data->len) == 1 &&
		EVP_CipherUpdate(cipher, out, &done, in, length) == 1 &&
		(encrypt || EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1) &&
		EVP_CipherFinal_ex(cipher, out + done, &done) == 1 &&
		(!encrypt || EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) == 1);
	EVP_CIPHER_CTX_free(cipher);
	/* libpq looks at the same queue of this thread */
	ERR_clear_error();
	return ok;
}

/* Prefix, id and digits of the nonce, the encrypted bytes and their tag. */
static char *
write_ciphertext(const char *key_id, const unsigned char *bytes, size_t length)
{
	char	   *text = palloc(DIGITS_AT + 2 * length + 1);

	snprintf(text, DIGITS_AT + 1, PREFIX "%s:", key_id);
	for (size_t i = 0; i < length; i++)
		snprintf(text + DIGITS_AT + 2 * i, 3, "%02x", bytes[i]);
	return text;
}

char *
wh_secret_seal(const WhTenant *tenant, const char *password)
{
	size_t		length = strlen(password);
	unsigned char *bytes = palloc(NONCE_BYTES + length + TAG_BYTES);
	StringInfoData data;
	WhKeys		keys;
	char		key_id[WH_KEY_ID_LENGTH + 1];
	bool		ok;

	make_associated_data(&data, tenant);
	/* nothing may fail between here and the wiping */
	wh_keys_read(&keys);
	strlcpy(key_id, keys.keys[0].id, sizeof(key_id));
	ok = pg_strong_random(bytes, NONCE_BYTES) &&
		run_cipher(true, &keys.keys[0], bytes, &data, (const unsigned char *) password, (int) length,
				   bytes + NONCE_BYTES, bytes + NONCE_BYTES + length);
	wh_keys_wipe(&keys);
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not encrypt the password of tenant \"%s\"", tenant->name)));
	return write_ciphertext(key_id, bytes, NONCE_BYTES + length + TAG_BYTES);
}

/* The bytes of a ciphertext, palloc'd; NULL if it is none of this version. */
static unsigned char *
read_ciphertext(const char *text, size_t *length)
{
	size_t		digits = strlen(text);
	unsigned char *bytes;

	if (digits < DIGITS_AT || strncmp(text, PREFIX, sizeof(PREFIX) - 1) != 0 ||
		text[DIGITS_AT - 1] != ':')
		return NULL;
	digits -= DIGITS_AT;
	if (digits % 2 != 0 || digits / 2 < NONCE_BYTES + TAG_BYTES)
		return NULL;
	*length = digits / 2;
	bytes = palloc(*length);
	return wh_hex_decode(text + DIGITS_AT, *length, bytes) ? bytes : NULL;
}

/* Opens with the key that the ciphertext names. */
static WhSecretState
open_ciphertext(const WhTenant *tenant, const char *stored, unsigned char *bytes, size_t length,
				char **password)
{
	size_t		secret_length = length - NONCE_BYTES - TAG_BYTES;
	char	   *secret = palloc0(secret_length + 1);
	WhSecretState state = WH_SECRET_NO_KEY;
	StringInfoData data;
	WhKeys		keys;
	const WhKey *key;

	make_associated_data(&data, tenant);
	/* nothing may fail between here and the wiping */
	wh_keys_read(&keys);
	key = wh_key_find(&keys, stored + sizeof(PREFIX) - 1);
	if (key != NULL)
		state = run_cipher(false, key, bytes, &data, bytes + NONCE_BYTES, (int) secret_length,
						   (unsigned char *) secret, bytes + length - TAG_BYTES) ?
			WH_SECRET_OPENED : WH_SECRET_FOREIGN;
	wh_keys_wipe(&keys);
	/* what came out before the tag was found wrong is nobody's */
	if (state == WH_SECRET_OPENED)
		*password = secret;
	else
		explicit_bzero(secret, secret_length);
	return state;
}

WhSecretState
wh_secret_try_open(const WhTenant *tenant, const char *stored, char **password)
{
	unsigned char *bytes;
	size_t		length;

	*password = NULL;
	if (!wh_secret_is_sealed(stored))
	{
		*password = pstrdup(stored);
		return WH_SECRET_CLEAR;
	}
	bytes = read_ciphertext(stored, &length);
	if (bytes == NULL)
		return WH_SECRET_MALFORMED;
	if (!wh_key_file_is_set())
		return WH_SECRET_NO_KEY;
	return open_ciphertext(tenant, stored, bytes, length, password);
}

bool
wh_secret_is_current(const char *text)
{
	WhKeys		keys;
	bool		current;

	if (!wh_secret_is_sealed(text) || strlen(text) < DIGITS_AT)
		return false;
	wh_keys_read(&keys);
	current = strncmp(text + sizeof(PREFIX) - 1, keys.keys[0].id, WH_KEY_ID_LENGTH) == 0;
	wh_keys_wipe(&keys);
	return current;
}

void
wh_secret_report(int elevel, const WhTenant *tenant, WhSecretState state)
{
	switch (state)
	{
		case WH_SECRET_MALFORMED:
			ereport(elevel,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("password of tenant \"%s\" starts with \"%s\" but is no ciphertext of this version",
							tenant->name, MARK),
					 errhint("Give the password in clear; it is encrypted when it is stored.")));
			break;
		case WH_SECRET_NO_KEY:
			ereport(elevel,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("password of tenant \"%s\" is encrypted with a key that is not there", tenant->name),
					 errhint("Add the key to the file that wh_worker.key_file names, or give the password anew.")));
			break;
		case WH_SECRET_FOREIGN:
			ereport(elevel,
					(errcode(ERRCODE_INVALID_PASSWORD),
					 errmsg("password of tenant \"%s\" was not encrypted for this row", tenant->name),
					 errdetail("Its ciphertext was changed, or belongs to another tenant, host, port, database or role."),
					 errhint("Give the password anew.")));
			break;
		case WH_SECRET_CLEAR:
		case WH_SECRET_OPENED:
			break;
	}
}

char *
wh_secret_open(const WhTenant *tenant, const char *stored)
{
	char	   *password;
	WhSecretState state = wh_secret_try_open(tenant, stored, &password);

	wh_secret_report(ERROR, tenant, state);
	return password;
}
