/*
 * Topic names and filters.
 *
 * A topic is split at every "/"; levels may be empty, so "/a" has two and "a/" has two. Matching
 * walks filter and name once, side by side, and allocates nothing. It accepts any bytes: validity
 * is asked for apart, once, when a name or filter comes in.
 */
#include "topic.h"
#include "utf8.h"

#include <stdint.h>
#include <string.h>

enum { TOPIC_BYTES_MAX = 65535 };

#define ONES 0x0101010101010101ull
#define HIGHS 0x8080808080808080ull

static inline uint64_t zero_bytes(uint64_t word)
{
	return (word - ONES) & ~word & HIGHS;
}

/* Runs for every PUBLISH, hence eight bytes at a time. */
bool topic_has_wildcard(const char *topic, size_t topic_bytes)
{
	size_t i = 0;

	for (; topic_bytes - i >= 8; i += 8) {
		uint64_t word;

		memcpy(&word, topic + i, sizeof(word));
		if (zero_bytes(word ^ ONES * '+') | zero_bytes(word ^ ONES * '#'))
			return true;
	}
	for (; i < topic_bytes; i++)
		if (topic[i] == '+' || topic[i] == '#')
			return true;
	return false;
}

bool topic_name_ok(const char *topic, size_t topic_bytes)
{
	return topic_bytes > 0 && topic_bytes <= TOPIC_BYTES_MAX &&
	       utf8_mqtt_ok(topic, topic_bytes) && !topic_has_wildcard(topic, topic_bytes);
}

bool topic_filter_ok(const char *filter, size_t filter_bytes)
{
	if (filter_bytes == 0 || filter_bytes > TOPIC_BYTES_MAX ||
		!utf8_mqtt_ok(filter, filter_bytes))
		return false;
	for (size_t i = 0; i < filter_bytes; i++) {
		if (filter[i] != '+' && filter[i] != '#')
			continue;
		bool last = i + 1 == filter_bytes;

		if (i > 0 && filter[i - 1] != '/')
			return false;
		if (!last && (filter[i] == '#' || filter[i + 1] != '/'))
			return false;
	}
	return true;
}

/* Bytes from `at` to the next "/" or the end. */
static size_t level_bytes(const char *topic, size_t topic_bytes, size_t at)
{
	const char *slash = memchr(topic + at, '/', topic_bytes - at);

	return slash ? (size_t)(slash - topic) - at : topic_bytes - at;
}

bool topic_match(const char *filter, size_t filter_bytes, const char *topic, size_t topic_bytes)
{
	size_t f = 0, t = 0;

	if (filter_bytes == 0 || topic_bytes == 0)
		return false;
	if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
		return false;
	for (;;) {
		size_t f_bytes = level_bytes(filter, filter_bytes, f);
		size_t t_bytes = level_bytes(topic, topic_bytes, t);
		bool f_last = f + f_bytes == filter_bytes, t_last = t + t_bytes == topic_bytes;

		if (f_bytes == 1 && filter[f] == '#')
			return true;
		if (!(f_bytes == 1 && filter[f] == '+') &&
			(f_bytes != t_bytes || memcmp(filter + f, topic + t, f_bytes) != 0))
			return false;
		if (t_last) /* "a/#" matches its parent "a" too [MQTT 5.0, 4.7.1.2] */
			return f_last || (filter_bytes - (f + f_bytes) == 2 &&
						 memcmp(filter + f + f_bytes, "/#", 2) == 0);
		if (f_last)
			return false;
		f += f_bytes + 1;
		t += t_bytes + 1;
	}
}

bool topic_is_shared(const char *filter, size_t filter_bytes)
{
	return filter_bytes >= 7 && memcmp(filter, "$share/", 7) == 0;
}

bool topic_share_split(const char *filter, size_t filter_bytes, const char **ret_group,
	size_t *ret_group_bytes, const char **ret_filter, size_t *ret_filter_bytes)
{
	if (!topic_is_shared(filter, filter_bytes))
		return false;
	size_t group_bytes = level_bytes(filter, filter_bytes, 7);
	size_t rest = 7 + group_bytes + 1; /* beyond the end when nothing follows the group */

	if (group_bytes == 0 || topic_has_wildcard(filter + 7, group_bytes) || rest >= filter_bytes)
		return false;
	*ret_group = filter + 7;
	*ret_group_bytes = group_bytes;
	*ret_filter = filter + rest;
	*ret_filter_bytes = filter_bytes - rest;
	return true;
}
