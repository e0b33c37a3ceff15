/*
 * The metadata of a file, from the payload of `init` and back.
 *
 * Parsing has two passes. The first is json_check(): from there on it is known to be JSON, and the
 * answer to what is still wrong is invalid_filemeta. Then the members of the top-level object are
 * walked once and the last span of each known key is noted; only those spans are looked into. So
 * neither a repeated key nor thousands of unknown ones cost more than a step over them.
 *
 * Integers are read from their digits, never through a double. They may also come as a string of
 * digits, as EMQX accepts them. A null is a key that is not there, whatever the key.
 *
 * The canonical form of meta_to_json() is never longer than the payload it came from: it has the
 * same values without the white space between them.
 */
#include <errno.h>
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "json.h"
#include "meta.h"
#include "sha256.h"
#include "utf8.h"

static const char ERROR_JSON[] = "invalid_filemeta_json";
static const char ERROR_META[] = "invalid_filemeta";
const char META_NO_MEMORY[] = "no_memory";

enum key {
	KEY_NAME,
	KEY_SIZE,
	KEY_CHECKSUM,
	KEY_EXPIRE_AT,
	KEY_SEGMENTS_TTL,
	KEY_USER_DATA,
	KEY_COUNT,
};

static const char *const key_names[KEY_COUNT] = {
	[KEY_NAME] = "name",
	[KEY_SIZE] = "size",
	[KEY_CHECKSUM] = "checksum",
	[KEY_EXPIRE_AT] = "expire_at",
	[KEY_SEGMENTS_TTL] = "segments_ttl",
	[KEY_USER_DATA] = "user_data",
};

bool meta_name_ok(const char *name, size_t name_bytes)
{
	if (name_bytes == 0 || name_bytes > META_NAME_MAX)
		return false;
	if (name[0] == '.' && (name_bytes == 1 || (name_bytes == 2 && name[1] == '.')))
		return false;
	while (name_bytes > 0) {
		uint32_t code;
		unsigned bytes = utf8_next(name, name_bytes, &code);
		if (bytes == 0)
			return false; /* surrogates are here, too */
		if (code < 32 || (code >= 127 && code <= 159) || code == 0xfffe || code == 0xffff)
			return false;
		if (code == '/' || code == '\\' || code == ':')
			return false;
		name += bytes;
		name_bytes -= bytes;
	}
	return true;
}

/* Fills spans with the last value of each known key; JSON_NULL stands for absent. */
static void members_find(const struct json *object, struct json spans[KEY_COUNT])
{
	struct json_iter it;
	struct json key, value;

	for (int i = 0; i < KEY_COUNT; i++)
		spans[i] = (struct json){JSON_NULL, NULL, 0};
	json_iter_init(&it, object);
	while (json_iter_next(&it, &key, &value))
		for (int i = 0; i < KEY_COUNT; i++)
			if (json_string_is(&key, key_names[i]))
				spans[i] = value;
}

/* 0; −EINVAL when it is no integer of [min, INT64_MAX]. An absent one is fine and sets nothing. */
static int integer_read(const struct json *v, uint64_t min, bool *ret_has, uint64_t *ret)
{
	if (v->kind == JSON_NULL)
		return 0;
	const char *at = v->text, *end = at + v->bytes;
	uint64_t n = 0;
	if (v->kind == JSON_STRING) {
		at++;
		end--;
	} else if (v->kind != JSON_NUMBER) {
		return -EINVAL;
	}
	if (at == end)
		return -EINVAL;
	for (; at < end; at++) {
		unsigned digit = (unsigned char)*at - (unsigned)'0';
		if (digit > 9 || n > ((uint64_t)INT64_MAX - digit) / 10)
			return -EINVAL;
		n = n * 10 + digit;
	}
	if (n < min)
		return -EINVAL;
	*ret_has = true;
	*ret = n;
	return 0;
}

static int name_read(const struct json *v, char **ret)
{
	char name[META_NAME_MAX + 1];
	size_t bytes;

	if (v->kind != JSON_STRING || json_string_decode(v, name, META_NAME_MAX, &bytes))
		return -EINVAL;
	if (!meta_name_ok(name, bytes))
		return -EINVAL;
	name[bytes] = '\0';
	*ret = strdup(name);
	return *ret ? 0 : -ENOMEM;
}

static int checksum_read(const struct json *v, bool *ret_has, uint8_t ret[32])
{
	char hex[64];
	size_t bytes;

	if (v->kind == JSON_NULL)
		return 0;
	if (v->kind != JSON_STRING || json_string_decode(v, hex, sizeof(hex), &bytes) ||
		sha256_from_hex(hex, bytes, ret))
		return -EINVAL;
	*ret_has = true;
	return 0;
}

static int user_data_read(const struct json *v, struct meta *m)
{
	if (v->kind == JSON_NULL)
		return 0;
	m->user_data = strndup(v->text, v->bytes);
	m->user_data_bytes = v->bytes;
	return m->user_data ? 0 : -ENOMEM;
}

const char *meta_parse(const char *json, size_t json_bytes, struct meta *ret)
{
	struct json root, spans[KEY_COUNT];
	struct meta m = {0};

	if (json_bytes > META_PAYLOAD_MAX)
		return ERROR_META;
	if (!json_check(json, json_bytes, META_DEPTH_MAX, &root) || root.kind != JSON_OBJECT)
		return ERROR_JSON;
	members_find(&root, spans);
	int err = name_read(&spans[KEY_NAME], &m.name);
	if (!err && (integer_read(&spans[KEY_SIZE], 0, &m.has_size, &m.size) ||
		checksum_read(&spans[KEY_CHECKSUM], &m.has_checksum, m.checksum) ||
		integer_read(&spans[KEY_EXPIRE_AT], 0, &m.has_expire_at, &m.expire_at) ||
		integer_read(&spans[KEY_SEGMENTS_TTL], 1, &m.has_segments_ttl, &m.segments_ttl)))
		err = -EINVAL;
	if (!err)
		err = user_data_read(&spans[KEY_USER_DATA], &m);
	if (err) {
		meta_fini(&m);
		return err == -ENOMEM ? META_NO_MEMORY : ERROR_META;
	}
	*ret = m;
	return NULL;
}

void meta_fini(struct meta *m)
{
	free(m->name);
	free(m->user_data);
	memset(m, 0, sizeof(*m));
}

int meta_copy(struct meta *ret, const struct meta *from)
{
	struct meta m = *from;

	m.name = from->name ? strdup(from->name) : NULL;
	m.user_data = from->user_data ? strndup(from->user_data, from->user_data_bytes) : NULL;
	if (!m.name != !from->name || !m.user_data != !from->user_data) {
		meta_fini(&m);
		return -ENOMEM;
	}
	*ret = m;
	return 0;
}

static bool user_data_equal(const struct meta *a, const struct meta *b)
{
	struct json va, vb;

	if (!a->user_data || !b->user_data)
		return !a->user_data && !b->user_data;
	if (a->user_data_bytes == b->user_data_bytes &&
		memcmp(a->user_data, b->user_data, a->user_data_bytes) == 0)
		return true;
	return json_check(a->user_data, a->user_data_bytes, META_DEPTH_MAX, &va) &&
		json_check(b->user_data, b->user_data_bytes, META_DEPTH_MAX, &vb) &&
		json_equal(&va, &vb);
}

static bool optional_equal(bool has_a, uint64_t a, bool has_b, uint64_t b)
{
	return has_a == has_b && (!has_a || a == b);
}

bool meta_equal(const struct meta *a, const struct meta *b)
{
	return strcmp(a->name ? a->name : "", b->name ? b->name : "") == 0 &&
		optional_equal(a->has_size, a->size, b->has_size, b->size) &&
		a->has_checksum == b->has_checksum &&
		(!a->has_checksum || memcmp(a->checksum, b->checksum, sizeof(a->checksum)) == 0) &&
		optional_equal(a->has_expire_at, a->expire_at, b->has_expire_at, b->expire_at) &&
		optional_equal(a->has_segments_ttl, a->segments_ttl, b->has_segments_ttl,
			b->segments_ttl) &&
		user_data_equal(a, b);
}

/* Integers go in as text: cJSON would print them through a double. */
static bool integer_add(cJSON *object, enum key key, bool has, uint64_t n)
{
	char text[24];

	if (!has)
		return true;
	snprintf(text, sizeof(text), "%" PRIu64, n);
	return cJSON_AddRawToObject(object, key_names[key], text) != NULL;
}

char *meta_to_json(const struct meta *m, size_t *ret_bytes)
{
	cJSON *object = cJSON_CreateObject();
	char hex[65], *text = NULL;
	bool ok = object && cJSON_AddStringToObject(object, key_names[KEY_NAME], m->name) &&
		integer_add(object, KEY_SIZE, m->has_size, m->size);

	if (ok && m->has_checksum) {
		sha256_to_hex(m->checksum, hex);
		ok = cJSON_AddStringToObject(object, key_names[KEY_CHECKSUM], hex) != NULL;
	}
	ok = ok && integer_add(object, KEY_EXPIRE_AT, m->has_expire_at, m->expire_at) &&
		integer_add(object, KEY_SEGMENTS_TTL, m->has_segments_ttl, m->segments_ttl);
	if (ok && m->user_data)
		ok = cJSON_AddRawToObject(object, key_names[KEY_USER_DATA], m->user_data) != NULL;
	if (ok)
		text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	if (text)
		*ret_bytes = strlen(text);
	return text;
}
