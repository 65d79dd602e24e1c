/*
 * key_file.c: reads the file that wh_worker.key_file names.
 *
 * Called by secret.c whenever it encrypts or decrypts, and once when the
 * server starts, so that a file that cannot be used is found before a password
 * is needed.  The file is read anew each time: no process keeps a key, and a
 * line that is added to the file counts from then on without a restart.
 *
 * Who may read the file decides who may read all passwords, so its owner and
 * mode are checked as PostgreSQL checks those of its own ssl_key_file.  No
 * message may hold anything of its content.  Takes no locks.
 */
#include "postgres.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"

#include "guc.h"
#include "key_file.h"

/* Sixteen keys, and some comments. */
#define MAX_FILE_BYTES 8192

/* So that the id is no hash that anything else makes of the key. */
static const char id_domain[] = "wh_worker key id";

bool
wh_key_file_is_set(void)
{
	return wh_key_file != NULL && wh_key_file[0] != '\0';
}

void
wh_keys_wipe(WhKeys *keys)
{
	explicit_bzero(keys, sizeof(*keys));
}

static int
hex_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

bool
wh_hex_decode(const char *digits, size_t length, unsigned char *bytes)
{
	for (size_t i = 0; i < length; i++)
	{
		int			high = hex_value(digits[2 * i]);
		int			low = high < 0 ? -1 : hex_value(digits[2 * i + 1]);

		if (low < 0)
			return false;
		bytes[i] = (unsigned char) (high << 4 | low);
	}
	return true;
}

static void
refuse_file(const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("could not use key file \"%s\"", wh_key_file),
			 errdetail("%s", reason)));
}

static void
refuse_file_for_error(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("could not read key file \"%s\": %m", wh_key_file)));
}

/* As check_ssl_key_file_permissions() has it, but of the file that is open. */
static void
check_file(int fd)
{
	struct stat file;

	if (fstat(fd, &file) != 0)
		refuse_file_for_error();
	if (!S_ISREG(file.st_mode))
		refuse_file("It is not a regular file.");
	if (file.st_uid != geteuid() && file.st_uid != 0)
		refuse_file("It must be owned by the user that runs the server, or by root.");
	if ((file.st_uid == geteuid() && (file.st_mode & (S_IRWXG | S_IRWXO)) != 0) ||
		(file.st_uid == 0 && (file.st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) != 0))
		ereport(ERROR,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("key file \"%s\" has group or world access", wh_key_file),
				 errdetail("It must have permissions u=rw (0600) or less if the user that runs the server owns it, or permissions u=rw,g=r (0640) or less if root does.")));
}

/* The content of the file, with a NUL at its end. */
static void
read_file(char *content)
{
	int			fd = OpenTransientFile(wh_key_file, O_RDONLY | O_NONBLOCK);
	ssize_t		total = 0;
	ssize_t		got;

	if (fd < 0)
		refuse_file_for_error();
	check_file(fd);
	while ((got = read(fd, content + total, MAX_FILE_BYTES + 1 - total)) > 0)
		total += got;
	if (got < 0)
	{
		explicit_bzero(content, MAX_FILE_BYTES + 1);
		refuse_file_for_error();
	}
	if (CloseTransientFile(fd) != 0 || total > MAX_FILE_BYTES)
	{
		explicit_bzero(content, MAX_FILE_BYTES + 1);
		refuse_file("It is longer than any list of keys.");
	}
	content[total] = '\0';
}

static bool
name_key(WhKey *key)
{
	unsigned char hashed[sizeof(id_domain) + WH_KEY_BYTES];
	unsigned char hash[EVP_MAX_MD_SIZE];
	bool		ok;

	memcpy(hashed, id_domain, sizeof(id_domain));
	memcpy(hashed + sizeof(id_domain), key->bytes, WH_KEY_BYTES);
	ok = EVP_Digest(hashed, sizeof(hashed), hash, NULL, EVP_sha256(), NULL) == 1;
	explicit_bzero(hashed, sizeof(hashed));
	for (int i = 0; ok && i < WH_KEY_ID_LENGTH / 2; i++)
		snprintf(key->id + 2 * i, 3, "%02x", hash[i]);
	return ok;
}

/* Adds the key of a line, unless that is empty or a comment; false if it is neither. */
static bool
read_line(char *line, size_t length, WhKeys *keys)
{
	WhKey	   *key = &keys->keys[keys->n];

	while (length > 0 && strchr(" \t\r", line[length - 1]) != NULL)
		length--;
	while (length > 0 && strchr(" \t", *line) != NULL)
		line++, length--;
	if (length == 0 || *line == '#')
		return true;
	if (length != 2 * WH_KEY_BYTES || keys->n == WH_MAX_KEYS ||
		!wh_hex_decode(line, WH_KEY_BYTES, key->bytes) || !name_key(key))
		return false;
	keys->n++;
	return true;
}

/* Zero, or the number of the line that is wrong. */
static int
read_lines(char *content, WhKeys *keys)
{
	int			number = 0;

	for (char *line = content; *line != '\0';)
	{
		size_t		length = strcspn(line, "\n");

		number++;
		if (!read_line(line, length, keys))
			return number;
		line += length + (line[length] == '\n' ? 1 : 0);
	}
	return 0;
}

void
wh_keys_read(WhKeys *keys)
{
	char		content[MAX_FILE_BYTES + 1];
	int			wrong_line;

	read_file(content);
	memset(keys, 0, sizeof(*keys));
	wrong_line = read_lines(content, keys);
	explicit_bzero(content, sizeof(content));
	if (wrong_line == 0 && keys->n > 0)
		return;

	wh_keys_wipe(keys);
	ereport(ERROR,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("could not use key file \"%s\"", wh_key_file),
			 wrong_line == 0 ? errdetail("It holds no key.") :
			 errdetail("Line %d is no key of %d hexadecimal digits, or is one more than %d keys.",
					   wrong_line, 2 * WH_KEY_BYTES, WH_MAX_KEYS),
			 errhint("A key is a line as \"openssl rand -hex %d\" writes it.", WH_KEY_BYTES)));
}

const WhKey *
wh_key_find(const WhKeys *keys, const char *id)
{
	for (int i = 0; i < keys->n; i++)
	{
		if (strncmp(keys->keys[i].id, id, WH_KEY_ID_LENGTH) == 0)
			return &keys->keys[i];
	}
	return NULL;
}
