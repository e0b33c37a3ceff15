/*
 * Any bytes as the payload of init: refused with one of two words, or metadata that keeps every
 * rule; what was read, written as JSON and read again, is equal, is no longer than the payload was,
 * and stays equal when white space is put into its user_data.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A copy with a blank behind every punctuation mark outside strings. */
static char *spaced(const char *json, size_t json_bytes, size_t *ret_bytes)
{
	char *out = malloc(2 * json_bytes + 1);
	size_t used = 0;
	int in_string = 0;

	for (size_t i = 0; i < json_bytes; i++) {
		out[used++] = json[i];
		if (in_string && json[i] == '\\')
			out[used++] = json[++i];
		else if (json[i] == '"')
			in_string = !in_string;
		else if (!in_string && strchr(",:[{", json[i]))
			out[used++] = ' ';
	}
	out[used] = '\0';
	*ret_bytes = used;
	return out;
}

static void check_spaced(const struct meta *m)
{
	struct meta other;

	if (!m->user_data)
		return;
	assert(strlen(m->user_data) == m->user_data_bytes);
	assert(!meta_copy(&other, m));
	free(other.user_data);
	other.user_data = spaced(m->user_data, m->user_data_bytes, &other.user_data_bytes);
	assert(meta_equal(m, &other) && meta_equal(&other, m));
	meta_fini(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct meta m, again;
	size_t json_bytes = 0;
	const char *error = meta_parse((const char *)data, bytes, &m);

	if (error) {
		assert(strcmp(error, "invalid_filemeta") == 0 ||
			strcmp(error, "invalid_filemeta_json") == 0);
		return 0;
	}
	assert(meta_name_ok(m.name, strlen(m.name)));
	assert(m.size <= INT64_MAX && m.expire_at <= INT64_MAX && m.segments_ttl <= INT64_MAX);
	assert(!m.has_segments_ttl || m.segments_ttl >= 1);
	char *json = meta_to_json(&m, &json_bytes);
	assert(json && strlen(json) == json_bytes && json_bytes <= bytes);
	assert(!meta_parse(json, json_bytes, &again));
	assert(meta_equal(&m, &again) && meta_equal(&again, &m));
	check_spaced(&m);
	free(json);
	meta_fini(&again);
	meta_fini(&m);
	return 0;
}
