/*
 * The table of the configuration: every key once, with its default, its type and its range.
 *
 * Defaults, parsing, ranges, -o, the dump, the nearest-key hint and the schema handed to libcyaml
 * all come from here; sluiced.yaml(5) is checked against it by tests/unit/test_conf.c. Defaults are
 * written as they would stand in a file, and go through the same parser at start. A new key is a
 * member of struct conf, a line here and a paragraph in the manual.
 */
#include <stdlib.h>
#include <string.h>
#include "conf_key.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)
#define MINUTE 60
#define HOUR 3600
#define DAY 86400

static const char *const durability_words[] = {"crash", "power", NULL};
static const char *const level_words[] = {"error", "warn", "info", "debug", NULL};
static const char *const prealloc_words[] = {"reserve", "sparse", NULL};
static const char *const digest_words[] = {"always", "asked", NULL};
static const char *const layout_words[] = {"plain", "emqx", NULL};
static const char *const auto_words[] = {"auto", NULL};

/* The type of the member is checked here, since conf_values.c writes through an offset. */
#define MEMBER(member, ctype) \
	.offset = offsetof(struct conf, member) + \
		0 * sizeof(char[_Generic(((struct conf *)0)->member, ctype: 1, default: -1)])
#define COUNT(key, member, default_text, least, most) \
	{.path = key, .text = default_text, .type = CONF_COUNT, MEMBER(member, uint32_t), \
		.min = least, .max = most}
#define COUNT_AUTO(key, member, least, most) \
	{.path = key, .text = "auto", .type = CONF_COUNT, MEMBER(member, uint32_t), .min = least, \
		.max = most, .words = auto_words}
#define SIZE32(key, member, default_text, least, most) \
	{.path = key, .text = default_text, .type = CONF_SIZE32, MEMBER(member, uint32_t), \
		.min = least, .max = most}
#define SIZE64(key, member, default_text, least, most) \
	{.path = key, .text = default_text, .type = CONF_SIZE64, MEMBER(member, uint64_t), \
		.min = least, .max = most}
#define SECONDS(key, member, default_text, least, most) \
	{.path = key, .text = default_text, .type = CONF_SECONDS, MEMBER(member, uint32_t), \
		.min = least, .max = most}
#define MILLIS(key, member, default_text, least, most) \
	{.path = key, .text = default_text, .type = CONF_MILLIS, MEMBER(member, uint32_t), \
		.min = least, .max = most}
#define MODE(key, member, default_text, least) \
	{.path = key, .text = default_text, .type = CONF_MODE, MEMBER(member, uint32_t), \
		.min = least, .max = 0777}
#define WORD(key, member, ctype, default_text, list) \
	{.path = key, .text = default_text, .type = CONF_WORD, MEMBER(member, ctype), .words = list}

const struct conf_key conf_keys[] = {
	{.path = "data", .text = "./sluice-data", .type = CONF_STRING, MEMBER(data, char *)},
	COUNT_AUTO("reactors", reactors, 1, 64),
	{.path = "durability", .text = "crash", .type = CONF_WORD,
		MEMBER(durability, enum conf_durability), .words = durability_words},
	{.path = "listen", .text = "127.0.0.1:1883", .type = CONF_LIST,
		.offset = offsetof(struct conf, listen),
		.count_offset = offsetof(struct conf, listen_count), .min = 1,
		.max = CONF_LISTEN_MAX,
		.item_valid = conf_listen_valid,
		.item_form = "a numeric ADDR:PORT such as 127.0.0.1:1883 or [::1]:1883, "
			"perhaps with \" durability=power\" behind it"},

	WORD("log.level", log.level, enum conf_log_level, "info", level_words),

	COUNT("mqtt.connections_max", mqtt.connections_max, "100000", 1, 10000000),
	COUNT("mqtt.connections_address_max", mqtt.connections_address_max, "0", 0, 10000000),
	COUNT("mqtt.connect_rate", mqtt.connect_rate, "0", 0, 10000000),
	COUNT("mqtt.connect_rate_address", mqtt.connect_rate_address, "0", 0, 10000000),
	MILLIS("mqtt.connect_timeout", mqtt.connect_timeout_ms, "10s", 100, HOUR * 1000),
	MILLIS("mqtt.takeover_timeout", mqtt.takeover_timeout_ms, "1s", 0, HOUR * 1000),
	SECONDS("mqtt.keep_alive_max", mqtt.keep_alive_max_s, "0s", 0, UINT16_MAX),
	SIZE32("mqtt.min_rate", mqtt.min_rate_bytes, "1KiB", 0, GIB),
	MILLIS("mqtt.min_rate_window", mqtt.min_rate_window_ms, "30s", 1000, HOUR * 1000),
	COUNT("mqtt.receive_maximum", mqtt.receive_max, "1024", 1, UINT16_MAX),
	SIZE32("mqtt.packet_max", mqtt.packet_bytes_max, "268435460", KIB, 268435460),
	SIZE32("mqtt.header_max", mqtt.head_bytes_max, "32KiB", KIB, 16 * MIB),
	SIZE32("mqtt.message_max", mqtt.message_bytes_max, "1MiB", 0, 256 * MIB - 1),
	SIZE64("mqtt.received_total", mqtt.received_bytes_max, "512MiB", 64 * KIB, TIB),
	SIZE64("mqtt.unsent_total", mqtt.unsent_bytes_max, "256MiB", 64 * KIB, TIB),
	COUNT("mqtt.topic_alias_maximum", mqtt.topic_alias_max, "32", 0, UINT16_MAX),
	SECONDS("mqtt.session_expiry_max", mqtt.session_expiry_max_s, "7d", 0, UINT32_MAX),
	COUNT("mqtt.sessions_max", mqtt.sessions_max, "200000", 1, 100000000),
	COUNT("mqtt.subscriptions_max", mqtt.subscriptions_max, "100", 0, 1000000),
	COUNT("mqtt.filter_levels_max", mqtt.filter_levels_max, "128", 1, 65536),
	COUNT("mqtt.queue_messages", mqtt.queue_messages_max, "1000", 0, 10000000),
	SIZE64("mqtt.queue_bytes", mqtt.queue_bytes_max, "1MiB", 0, TIB),
	SIZE64("mqtt.queue_total", mqtt.queue_total_bytes_max, "256MiB", 0, TIB),
	COUNT("mqtt.inflight", mqtt.inflight_max, "32", 1, UINT16_MAX),
	COUNT("mqtt.unacknowledged_max", mqtt.replies_max, "65535", 1, UINT16_MAX),
	COUNT("mqtt.statuses_max", mqtt.statuses_max, "16", 1, UINT16_MAX),
	COUNT("mqtt.statuses_reactor_max", mqtt.statuses_reactor_max, "64", 1, UINT16_MAX),
	MILLIS("mqtt.shutdown_timeout", mqtt.drain_ms, "10s", 0, HOUR * 1000),

	SIZE64("limits.client_bytes_rate", limits.client_bytes_rate, "0", 0, TIB),
	COUNT("limits.client_messages_rate", limits.client_messages_rate, "0", 0, 1000000000),
	SIZE64("limits.user_bytes_rate", limits.user_bytes_rate, "0", 0, TIB),
	COUNT("limits.user_messages_rate", limits.user_messages_rate, "0", 0, 1000000000),

	SIZE64("transfer.file_max", transfer.file_bytes_max, "1TiB", 1, 4096 * TIB),
	COUNT("transfer.extents_max", transfer.extents_max, "65536", 1, 16777216),
	COUNT("transfer.unfinished_max", transfer.unfinished_max, "1024", 1, 65536),
	COUNT("transfer.open_max", transfer.open_max, "100000", 1, 100000000),
	COUNT("transfer.open_client_max", transfer.open_client_max, "10000", 1, 100000000),
	COUNT("transfer.open_user_max", transfer.open_user_max, "0", 0, 100000000),
	COUNT("transfer.files_client_max", transfer.files_client_max, "0", 0, 100000000),
	COUNT("transfer.files_user_max", transfer.files_user_max, "0", 0, 100000000),
	SIZE64("transfer.staged_max", transfer.staged_bytes_max, "0", 0, 4096 * TIB),
	SIZE64("transfer.staged_client_max", transfer.staged_client_max, "0", 0, 4096 * TIB),
	SIZE64("transfer.staged_user_max", transfer.staged_user_max, "0", 0, 4096 * TIB),
	SECONDS("transfer.ttl_min", transfer.ttl_min_s, "60s", 1, UINT32_MAX),
	SECONDS("transfer.ttl_max", transfer.ttl_max_s, "1d", 1, UINT32_MAX),
	SIZE64("transfer.backlog_max", transfer.backlog_bytes_max, "64MiB", 64 * KIB, TIB),
	SIZE64("transfer.backlog_total", transfer.backlog_total_max, "512MiB", 64 * KIB, TIB),
	SIZE64("transfer.scratch_max", transfer.scratch_bytes_max, "1GiB", 0, 4096 * TIB),
	SECONDS("transfer.replay_window", transfer.replay_window_s, "24h", 0, UINT32_MAX),
	COUNT("transfer.replay_max", transfer.replay_max, "100000", 0, 100000000),
	WORD("transfer.preallocate", transfer.prealloc, enum conf_prealloc, "reserve",
		prealloc_words),
	SIZE64("transfer.sync_every", transfer.sync_bytes, "4GiB", 0, 4096 * TIB),
	SIZE64("transfer.disk_free_min", transfer.disk_free_min, "64MiB", 0, 4096 * TIB),
	SIZE64("transfer.disk_free_stop", transfer.disk_free_stop, "16MiB", 0, 4096 * TIB),

	{.path = "export.dir", .text = "", .type = CONF_OPTION, MEMBER(export.dir, char *)},
	WORD("export.layout", export.layout, enum conf_layout, "plain", layout_words),
	MODE("export.file_mode", export.file_mode, "0640", 0400),
	MODE("export.dir_mode", export.dir_mode, "0750", 0700),
	{.path = "export.group", .text = "", .type = CONF_OPTION, MEMBER(export.group, char *)},
	{.path = "export.manifest", .text = "true", .type = CONF_BOOL,
		MEMBER(export.manifest, bool)},
	{.path = "export.retention", .text = "false", .type = CONF_BOOL,
		MEMBER(export.retention, bool)},
	SECONDS("export.retention_interval", export.retention_interval_s, "10m", 1, UINT32_MAX),
	COUNT("export.parallel", export.parallel_max, "512", 1, 65536),

	SIZE32("io.splice_min", io.splice_min, "48KiB", KIB, 16 * MIB),
	SIZE32("io.pipe_size", io.pipe_bytes, "1MiB", 4 * KIB, 64 * MIB),
	COUNT("io.pipes", io.pipes_max, "32", 1, 4096),
	SIZE32("io.buffer_size", io.buffer_bytes, "128KiB", 4 * KIB, 64 * MIB),
	COUNT("io.buffers", io.buffers_max, "128", 2, 32768),
	COUNT("io.splices", io.splices_max, "6", 1, 1024),
	COUNT("io.workers", io.workers_max, "24", 2, 4096),
	COUNT("io.open_files", io.open_files_max, "4096", 1, 1000000),
	SIZE64("io.journal_size", io.journal_bytes, "16MiB", 64 * KIB, 64 * GIB),

	COUNT_AUTO("verify.threads", verify.threads, 1, 256),
	SIZE32("verify.step", verify.step_bytes, "1MiB", 4 * KIB, GIB),
	WORD("verify.digest", verify.digest, enum conf_digest, "always", digest_words),

	{.path = "events.subscribers", .text = "", .type = CONF_LIST,
		.offset = offsetof(struct conf, events.subscribers),
		.count_offset = offsetof(struct conf, events.subscribers_count),
		.max = CONF_SUBSCRIBERS_MAX},
};

const size_t conf_keys_count = sizeof(conf_keys) / sizeof(conf_keys[0]);

_Static_assert(sizeof(conf_keys) / sizeof(conf_keys[0]) <= CONF_KEYS_MAX, "CONF_KEYS_MAX");
/* The members are reached by a 16 bit offset, and enums are read and written as unsigned. */
_Static_assert(sizeof(struct conf) <= UINT16_MAX, "conf_key.offset");
_Static_assert(sizeof(enum conf_durability) == sizeof(unsigned), "CONF_WORD");

const struct conf_key *conf_key_find(const char *path, size_t path_bytes)
{
	for (size_t i = 0; i < conf_keys_count; i++) {
		if (!strncmp(conf_keys[i].path, path, path_bytes) && !conf_keys[i].path[path_bytes])
			return &conf_keys[i];
	}
	return NULL;
}

bool conf_section_known(const char *name)
{
	size_t bytes = strlen(name);

	for (size_t i = 0; i < conf_keys_count; i++) {
		if (!strncmp(conf_keys[i].path, name, bytes) && conf_keys[i].path[bytes] == '.')
			return true;
	}
	return false;
}

/* Levenshtein's distance, for strings shorter than CONF_PATH_BYTES_MAX. */
static unsigned edits_between(const char *a, const char *b)
{
	unsigned row[CONF_PATH_BYTES_MAX];
	size_t b_bytes = strlen(b);

	for (size_t j = 0; j <= b_bytes; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		unsigned diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= b_bytes; j++) {
			unsigned best = diagonal + (a[i - 1] != b[j - 1]);

			if (best > row[j] + 1)
				best = row[j] + 1;
			if (best > row[j - 1] + 1)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[b_bytes];
}

static const char *leaf_of(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot ? dot + 1 : path;
}

const struct conf_key *conf_key_nearest(const char *path)
{
	const struct conf_key *nearest = NULL;
	unsigned least = 4; /* more edits than three, or than half of a word, are another */

	if (strlen(path) >= CONF_PATH_BYTES_MAX)
		return NULL;
	if (least > strlen(path) / 2 + 1)
		least = strlen(path) / 2 + 1;
	for (size_t i = 0; i < conf_keys_count; i++) {
		const char *known = conf_keys[i].path;
		/* The right name in the wrong section is as near as one wrong letter. */
		unsigned edits = 1;

		if (strcmp(leaf_of(path), leaf_of(known)))
			edits = edits_between(path, known);

		if (edits < least) {
			least = edits;
			nearest = &conf_keys[i];
		}
	}
	return nearest;
}
