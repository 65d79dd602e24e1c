/*
 * key_file.h: the keys that encrypt passwords at rest.
 */
#ifndef WH_KEY_FILE_H
#define WH_KEY_FILE_H

#define WH_KEY_BYTES 32
#define WH_MAX_KEYS 16

/* Tells keys apart in ciphertexts; hexadecimal, and says nothing of the key. */
#define WH_KEY_ID_LENGTH 16

typedef struct WhKey
{
	char		id[WH_KEY_ID_LENGTH + 1];
	unsigned char bytes[WH_KEY_BYTES];
} WhKey;

/* The first one encrypts; all decrypt. */
typedef struct WhKeys
{
	int			n;
	WhKey		keys[WH_MAX_KEYS];
} WhKeys;

/* Whether wh_worker.key_file names a file. */
extern bool wh_key_file_is_set(void);

/*
 * Reads the file, which must be set: F0000 if it cannot be used.  The caller
 * wipes the keys with wh_keys_wipe() as soon as it has used them.
 */
extern void wh_keys_read(WhKeys *keys);
extern void wh_keys_wipe(WhKeys *keys);

/* NULL if there is none of this id. */
extern const WhKey *wh_key_find(const WhKeys *keys, const char *id);

/* 2 * "length" hexadecimal digits into bytes; false if they are not that. */
extern bool wh_hex_decode(const char *digits, size_t length, unsigned char *bytes);

#endif
