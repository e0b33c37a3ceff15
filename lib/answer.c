/*
 * Response messages, events and manifests, as JSON text.
 *
 * cJSON escapes the strings and keeps the order. Integers and what is JSON already (user_data, the
 * init metadata) go in as raw text: cJSON would print integers through a double. Lists of extents
 * are put together here, one raw item for all, since a node per number would cost more than the
 * rest of the message.
 *
 * Every object is built by a writer with a sticky error, so that running out of memory is asked
 * about once, at the end.
 */
#include <assert.h>
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "answer.h"
#include "sha256.h"

/* Of a message but its lists and ids, and of an extent in a list. */
enum { BYTES_USUAL = 512, EXTENT_BYTES_USUAL = 24 };

struct writer {
	cJSON *object;
	bool failed;
};

static struct writer writer_begin(void)
{
	cJSON *object = cJSON_CreateObject();

	return (struct writer){object, object == NULL};
}

/* Takes the item over. The key must be a literal: it is not copied. */
static void put_item(struct writer *w, const char *key, cJSON *item)
{
	if (!w->failed && cJSON_AddItemToObjectCS(w->object, key, item))
		return;
	cJSON_Delete(item);
	w->failed = true;
}

static void put_raw(struct writer *w, const char *key, const char *json)
{
	put_item(w, key, json ? cJSON_CreateRaw(json) : cJSON_CreateNull());
}

static void put_string(struct writer *w, const char *key, const char *text)
{
	put_item(w, key, text ? cJSON_CreateString(text) : cJSON_CreateNull());
}

/* cJSON wants a NUL at the end. */
static void put_bytes(struct writer *w, const char *key, const char *text, size_t text_bytes)
{
	char *copy = strndup(text, text_bytes);

	if (copy)
		put_string(w, key, copy);
	else
		w->failed = true;
	free(copy);
}

/* Returns where the text goes on. Ten times as fast as snprintf, of which a list takes 64. */
static char *put_decimal(char *at, uint64_t n)
{
	char digits[20];
	size_t first = sizeof(digits);

	do {
		digits[--first] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	memcpy(at, digits + first, sizeof(digits) - first);
	return at + sizeof(digits) - first;
}

static void put_integer(struct writer *w, const char *key, uint64_t n)
{
	char text[24];

	*put_decimal(text, n) = '\0';
	put_raw(w, key, text);
}

static void put_digest(struct writer *w, const char *key, const uint8_t *digest)
{
	char hex[65];

	if (digest)
		sha256_to_hex(digest, hex);
	put_string(w, key, digest ? hex : NULL);
}

/* [[from,to],…], half-open. */
static void put_extents(struct writer *w, const char *key, const struct extent *extents,
	size_t count)
{
	char text[ANSWER_MISSING_MAX * sizeof("[18446744073709551615,18446744073709551615],") + 3];
	char *at = text;

	assert(count <= ANSWER_MISSING_MAX);
	*at++ = '[';
	for (size_t i = 0; i < count; i++) {
		*at = ','; /* overwritten in front of the first */
		at += i > 0;
		*at++ = '[';
		at = put_decimal(at, extents[i].from);
		*at++ = ',';
		at = put_decimal(at, extents[i].to);
		*at++ = ']';
	}
	memcpy(at, "]", 2);
	put_raw(w, key, text);
}

/* RFC 3339 in UTC with milliseconds; null for a time that has no year. */
static void put_time(struct writer *w, const char *key, int64_t at_ms)
{
	int64_t ms = at_ms % 1000;
	struct tm tm;
	char text[64];

	time_t seconds = (time_t)(at_ms / 1000);
	if (ms < 0) {
		ms += 1000;
		seconds--;
	}
	if (!gmtime_r(&seconds, &tm)) {
		put_raw(w, key, NULL);
		return;
	}
	size_t used = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + used, sizeof(text) - used, ".%03dZ", (int)ms);
	put_string(w, key, text);
}

static cJSON *writer_take(struct writer *w)
{
	cJSON *object = w->object;

	if (w->failed) {
		cJSON_Delete(object);
		object = NULL;
	}
	w->object = NULL;
	return object;
}

/* bytes_hint: with so much memory to begin with, it need not be moved. */
static char *writer_print(struct writer *w, size_t bytes_hint, size_t *ret_bytes)
{
	cJSON *object = writer_take(w);
	char *text = object ? cJSON_PrintBuffered(object, (int)bytes_hint, false) : NULL;

	cJSON_Delete(object);
	if (text)
		*ret_bytes = strlen(text);
	return text;
}

static void put_status(struct writer *w, const struct answer *a)
{
	struct writer status = writer_begin();

	put_string(&status, "state", a->state);
	if (a->status_has_size)
		put_integer(&status, "size", a->status_size);
	else
		put_raw(&status, "size", NULL);
	put_integer(&status, "received", a->received);
	put_integer(&status, "frontier", a->frontier);
	put_extents(&status, "missing", a->missing, a->missing_count);
	put_raw(&status, "truncated", a->truncated ? "true" : "false");
	put_item(w, "status", writer_take(&status));
}

char *answer_to_json(const struct answer *a, size_t *ret_bytes)
{
	struct writer w = writer_begin();

	put_string(&w, "vsn", "0.1");
	put_bytes(&w, "topic", a->topic, a->topic_bytes);
	put_integer(&w, "packet_id", a->packet_id);
	put_integer(&w, "reason_code", a->reason_code);
	put_string(&w, "reason_description", a->description);
	if (a->has_missing) {
		put_extents(&w, "missing", a->missing, a->missing_count);
		put_integer(&w, "missing_bytes", a->missing_bytes);
	}
	if (a->expected)
		put_digest(&w, "expected", a->expected);
	if (a->actual)
		put_digest(&w, "actual", a->actual);
	if (a->has_status)
		put_status(&w, a);
	return writer_print(&w, BYTES_USUAL + a->topic_bytes + a->missing_count * EXTENT_BYTES_USUAL, ret_bytes);
}

char *answer_event_to_json(const struct answer_event *e, size_t *ret_bytes)
{
	struct writer w = writer_begin();

	put_bytes(&w, "clientid", e->clientid, e->clientid_bytes);
	put_bytes(&w, "fileid", e->fileid, e->fileid_bytes);
	put_string(&w, "name", e->name);
	if (e->has_size)
		put_integer(&w, "size", e->size);
	else
		put_raw(&w, "size", NULL);
	put_digest(&w, "sha256", e->sha256);
	if (e->path)
		put_string(&w, "path", e->path);
	if (e->reason)
		put_string(&w, "reason", e->reason);
	put_raw(&w, "user_data", e->user_data);
	put_item(&w, "seconds", cJSON_CreateNumber(e->seconds));
	return writer_print(&w, BYTES_USUAL + e->clientid_bytes + e->fileid_bytes, ret_bytes);
}

char *answer_manifest_to_json(const struct answer_manifest *m, size_t *ret_bytes)
{
	struct writer w = writer_begin();

	put_bytes(&w, "clientid", m->clientid, m->clientid_bytes);
	put_bytes(&w, "fileid", m->fileid, m->fileid_bytes);
	put_integer(&w, "generation", m->generation);
	put_string(&w, "name", m->name);
	put_string(&w, "path", m->path);
	put_integer(&w, "size", m->size);
	put_digest(&w, "sha256", m->sha256);
	put_raw(&w, "meta", m->meta_json);
	put_raw(&w, "user_data", m->user_data);
	put_time(&w, "opened_at", m->opened_at_ms);
	put_time(&w, "exported_at", m->exported_at_ms);

	cJSON *object = writer_take(&w);
	char *text = object ? cJSON_PrintBuffered(object, 2 * BYTES_USUAL, true) : NULL;
	cJSON_Delete(object);
	if (!text)
		return NULL;
	size_t bytes = strlen(text);
	char *line = realloc(text, bytes + 2);
	if (!line) {
		free(text);
		return NULL;
	}
	memcpy(line + bytes, "\n", 2);
	*ret_bytes = bytes + 1;
	return line;
}
