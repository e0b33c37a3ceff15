/*
 * File system names from what peers chose.
 *
 * All three functions are one loop over the input's characters, with different rules for which of
 * them stay. What does not stay becomes %XX per byte. A piece (a character that stays, or one
 * escape) is written whole or not at all, so that a cut never leaves half a character or half an
 * escape, which would make two names equal.
 *
 * Why the results can't collide: "%" and "~" never stay in an id, so "%" always begins an escape
 * and "~" always begins the hash of an id that was cut, or the generation that the caller appends
 * (ten decimal digits at most, against 32 of hex).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "names.h"
#include "sha256.h"
#include "utf8.h"

enum { ID_HASH_DIGITS = 32, FILE_HASH_DIGITS = 16, STAGING_ID_MAX = 40 };

typedef bool stays_fn(uint32_t code, bool is_first);

static bool is_plain(uint32_t code, bool is_first)
{
	return (code >= 'A' && code <= 'Z') || (code >= 'a' && code <= 'z') ||
		(code >= '0' && code <= '9') || code == '_' || code == '-' ||
		(code == '.' && !is_first);
}

static bool stays_in_id(uint32_t code, bool is_first)
{
	return code >= 0x80 || is_plain(code, is_first);
}

static bool is_printable(uint32_t code)
{
	return code >= 32 && (code < 127 || code > 159) && code != 0xfffe && code != 0xffff;
}

/* The rule of meta_name_ok, once more: a name from elsewhere must not get out of its directory. */
static bool stays_in_file(uint32_t code, bool is_first)
{
	if (!is_printable(code))
		return false;
	if (code == '.')
		return !is_first;
	return code != '/' && code != '\\' && code != ':' && code != '%';
}

static bool stays_in_emqx_id(uint32_t code, bool is_first)
{
	(void)is_first;
	return is_printable(code) && code != '%' && code != ':' && code != '\\' && code != '/';
}

static bool stays_in_emqx_file(uint32_t code, bool is_first)
{
	return code == '%' || stays_in_emqx_id(code, is_first);
}

static bool stays_nowhere(uint32_t code, bool is_first)
{
	(void)code;
	(void)is_first;
	return false;
}

/* Writes pieces while they fit into max bytes, and NUL. Returns how many bytes; *ret_is_whole says
 * whether all of the input went in. */
static size_t escape(const char *in, size_t in_bytes, stays_fn *stays, char *out, size_t max,
	bool *ret_is_whole)
{
	size_t used = 0, at = 0;

	while (at < in_bytes) {
		uint32_t code;
		unsigned bytes = utf8_next(in + at, in_bytes - at, &code);
		char piece[8];
		size_t piece_bytes = bytes;
		if (bytes > 0 && stays(code, at == 0)) {
			memcpy(piece, in + at, bytes);
		} else {
			/* One byte of it; the others, if any, come next and are no character. */
			bytes = 1;
			piece_bytes = (size_t)snprintf(piece, sizeof(piece), "%%%02X",
				(uint8_t)in[at]);
		}
		if (piece_bytes > max - used)
			break;
		memcpy(out + used, piece, piece_bytes);
		used += piece_bytes;
		at += bytes;
	}
	out[used] = '\0';
	*ret_is_whole = at == in_bytes;
	return used;
}

/* Escapes into at most max bytes; what is longer ends in "~" and the first digits of its hash. */
static void escape_or_hash(const char *in, size_t in_bytes, stays_fn *stays, char *out, size_t max,
	size_t hash_digits)
{
	bool is_whole;

	escape(in, in_bytes, stays, out, max, &is_whole);
	if (is_whole)
		return;
	struct sha256 s;
	uint8_t digest[SHA256_DIGEST_BYTES];
	char hex[65];
	size_t used = escape(in, in_bytes, stays, out, max - 1 - hash_digits, &is_whole);
	sha256_init(&s);
	sha256_update(&s, in, in_bytes);
	sha256_digest(&s, digest);
	sha256_to_hex(digest, hex);
	out[used++] = '~';
	memcpy(out + used, hex, hash_digits);
	out[used + hash_digits] = '\0';
}

void names_escape_id(const char *id, size_t id_bytes, char ret[NAMES_ID_MAX + 1])
{
	escape_or_hash(id, id_bytes, stays_in_id, ret, NAMES_ID_MAX, ID_HASH_DIGITS);
	if (id_bytes == 0)
		memcpy(ret, "%", 2);
}

void names_escape_file(const char *name, size_t name_bytes, char ret[NAMES_FILE_MAX + 1])
{
	escape_or_hash(name, name_bytes, stays_in_file, ret, NAMES_FILE_MAX, FILE_HASH_DIGITS);
	if (name_bytes == 0)
		memcpy(ret, "%", 2);
}

static bool is_dots(const char *name, size_t bytes)
{
	return (bytes == 1 || bytes == 2) && name[0] == '.' && name[bytes - 1] == '.';
}

void names_escape_id_emqx(const char *id, size_t id_bytes, char ret[NAMES_ID_MAX + 1])
{
	escape_or_hash(id, id_bytes, is_dots(id, id_bytes) ? stays_nowhere : stays_in_emqx_id, ret,
		NAMES_ID_MAX, ID_HASH_DIGITS);
	if (id_bytes == 0)
		memcpy(ret, "%", 2);
}

void names_escape_file_emqx(const char *name, size_t name_bytes, char ret[NAMES_FILE_MAX + 1])
{
	escape_or_hash(name, name_bytes, is_dots(name, name_bytes) ? stays_nowhere : stays_in_emqx_file,
		ret, NAMES_FILE_MAX, FILE_HASH_DIGITS);
	if (name_bytes == 0)
		memcpy(ret, "%", 2);
}

/* Only there for people who look into the directory: the hash behind it makes the name unique. */
static void staging_id(const char *id, size_t id_bytes, char ret[STAGING_ID_MAX + 1])
{
	bool is_whole;
	size_t bytes = escape(id, id_bytes, is_plain, ret, STAGING_ID_MAX, &is_whole);

	for (size_t i = 0; i < bytes; i++)
		if (ret[i] >= 'A' && ret[i] <= 'Z')
			ret[i] = (char)(ret[i] - 'A' + 'a');
}

static void hash_id(struct sha256 *s, const char *id, size_t id_bytes)
{
	uint8_t length[8];

	for (int i = 0; i < 8; i++)
		length[i] = (uint8_t)((uint64_t)id_bytes >> (8 * i));
	sha256_update(s, length, sizeof(length));
	sha256_update(s, id, id_bytes);
}

void names_staging(uint64_t epoch, const char *clientid, size_t clientid_bytes, const char *fileid,
	size_t fileid_bytes, uint32_t generation, char ret[NAMES_STAGING_MAX + 1])
{
	char client[STAGING_ID_MAX + 1], file[STAGING_ID_MAX + 1], hex[65];
	uint8_t digest[SHA256_DIGEST_BYTES];
	struct sha256 s;

	staging_id(clientid, clientid_bytes, client);
	staging_id(fileid, fileid_bytes, file);
	sha256_init(&s);
	hash_id(&s, clientid, clientid_bytes);
	hash_id(&s, fileid, fileid_bytes);
	sha256_digest(&s, digest);
	sha256_to_hex(digest, hex);
	snprintf(ret, NAMES_STAGING_MAX + 1, "e%" PRIu64 "-%s-%s-%.*s-%" PRIu32, epoch, client,
		file, ID_HASH_DIGITS, hex, generation);
}
