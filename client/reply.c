/*
 * Response messages. Nothing in them is trusted: numbers are integers in range, ranges ascend.
 */
#include "reply.h"

#include <cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { EXTENTS_MAX = 1 << 20 };

/* cJSON has doubles: whole numbers up to 2^53, 8 PiB, come through exactly; others are no number
 * here. */
static bool get_uint(const cJSON *item, uint64_t *ret)
{
	if (!cJSON_IsNumber(item) || item->valuedouble < 0 ||
		item->valuedouble > 9007199254740992.0 ||
		item->valuedouble != (double)(uint64_t)item->valuedouble) {
		return false;
	}
	*ret = (uint64_t)item->valuedouble;
	return true;
}

static bool get_missing(const cJSON *array, struct reply *r)
{
	const cJSON *pair;
	uint64_t last = 0;

	cJSON_ArrayForEach(pair, array)
	{
		struct extent e;
		if (!get_uint(cJSON_GetArrayItem(pair, 0), &e.from) ||
			!get_uint(cJSON_GetArrayItem(pair, 1), &e.to) || e.from >= e.to ||
			e.from < last) {
			return false;
		}
		if (r->missing_count == REPLY_MISSING_MAX) {
			r->truncated = true;
			return true;
		}
		r->missing[r->missing_count++] = e;
		last = e.to;
	}
	return true;
}

static bool get_status(const cJSON *status, struct reply *r)
{
	static const char *const names[] = {
		[REPLY_NONE] = "none",
		[REPLY_OPEN] = "open",
		[REPLY_VERIFYING] = "verifying",
		[REPLY_EXPORTED] = "exported",
	};
	const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(status, "state"));
	size_t i = 0;

	while (state && i < 4 && strcmp(state, names[i]) != 0) {
		i++;
	}
	if (!state || i == 4) {
		return false;
	}
	r->state = (enum reply_state)i;
	r->has_size = get_uint(cJSON_GetObjectItemCaseSensitive(status, "size"), &r->size);
	get_uint(cJSON_GetObjectItemCaseSensitive(status, "received"), &r->received);
	r->truncated = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(status, "truncated"));
	r->has_status = true;
	return get_missing(cJSON_GetObjectItemCaseSensitive(status, "missing"), r);
}

int reply_parse(const char *text, size_t text_bytes, struct reply *ret)
{
	struct reply r = {0};
	cJSON *json = cJSON_ParseWithLength(text, text_bytes);
	const char *topic = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "topic"));
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(json, "status");
	uint64_t code;

	if (!topic || !get_uint(cJSON_GetObjectItemCaseSensitive(json, "reason_code"), &code) ||
		code > 255) {
		goto bad;
	}
	filecmd_parse(topic, strlen(topic), &r.cmd);
	r.reason_code = (uint8_t)code;
	const char *description =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "reason_description"));
	snprintf(r.description, sizeof(r.description), "%s", description ? description : "");
	if (status && !get_status(status, &r)) {
		goto bad;
	}
	r.json = json;
	*ret = r;
	return 0;
bad:
	cJSON_Delete(json);
	return -EBADMSG;
}

void reply_fini(struct reply *r)
{
	cJSON_Delete(r->json);
	r->json = NULL;
}

/* Where the server's knowledge ends. Without a size, received and missing bytes together end
 * where the last received one does, unless the list is cut: then only what lies below its last
 * range is sure. */
static uint64_t known_end(const struct reply *r)
{
	uint64_t end = r->received;

	if (r->has_size) {
		return r->size;
	}
	if (r->truncated) {
		return r->missing_count ? r->missing[r->missing_count - 1].to : 0;
	}
	for (size_t i = 0; i < r->missing_count; i++) {
		end += r->missing[i].to - r->missing[i].from;
	}
	return end;
}

int reply_coverage(const struct reply *r, bool has_size, uint64_t size, struct cover *ret_covered,
	bool *ret_is_partial)
{
	uint64_t end = known_end(r);
	int rc;

	cover_init(ret_covered, EXTENTS_MAX);
	*ret_is_partial = r->truncated && r->received > 0;
	if (r->received == 0) {
		return 0;
	}
	if (has_size && end > size) {
		end = size;
	}
	rc = cover_add(ret_covered, 0, end);
	for (size_t i = 0; rc == 0 && i < r->missing_count; i++) {
		rc = cover_remove(ret_covered, r->missing[i].from, r->missing[i].to);
	}
	if (rc < 0) {
		cover_fini(ret_covered);
	}
	return rc;
}
