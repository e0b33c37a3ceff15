/*
 * The configuration as a whole: defaults, -o, the checks that span keys, the dump. The keys are in
 * conf_table.c, their values in conf_key.c and conf_values.c, the file in conf_scan.c and
 * conf_file.c.
 *
 * Every error is one sentence that names where, what and the cure; it is written for the person at
 * the terminal, so callers print it as it is.
 */
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "conf_key.h"

int conf_init(struct conf *c)
{
	char error[256];
	struct conf_place place = {.name = "default", .error = error, .error_max = sizeof(error)};

	memset(c, 0, sizeof(*c));
	for (size_t i = 0; i < conf_keys_count; i++) {
		/* The table's own texts are valid (test_conf.c loads them), so this is memory. */
		if (conf_key_set(c, &conf_keys[i], conf_keys[i].text, &place)) {
			conf_fini(c);
			return -ENOMEM;
		}
	}
	return 0;
}

void conf_fini(struct conf *c)
{
	for (size_t i = 0; i < conf_keys_count; i++)
		conf_key_clear(c, &conf_keys[i]);
}

int conf_set(struct conf *c, const char *assignment, char *ret_error, size_t error_max)
{
	struct conf_place place = {.name = "-o", .error = ret_error, .error_max = error_max};
	const char *equals = strchr(assignment, '=');
	const struct conf_key *key, *nearest;
	char path[CONF_PATH_BYTES_MAX];

	if (!equals)
		return conf_fail(
			&place, "\"%.60s\" has no value; write key.path=value.", assignment);
	key = conf_key_find(assignment, equals - assignment);
	if (key)
		return conf_key_set(c, key, equals + 1, &place);
	snprintf(path, sizeof(path), "%.*s", (int)(equals - assignment), assignment);
	nearest = conf_key_nearest(path);
	if (nearest)
		return conf_fail(&place, "%s is no key; did you mean %s?", path, nearest->path);
	return conf_fail(&place, "%s is no key; see sluiced.yaml(5) for the keys there are.", path);
}

/* Absolute, without ".", ".." and doubled slashes, by text alone: symbolic links are not followed,
 * as the directories need not exist yet. 0 or −ENAMETOOLONG. */
static int path_normalise(const char *path, char *ret_path, size_t path_max)
{
	char full[2 * CONF_STRING_BYTES_MAX];
	size_t used = 0;
	char *rest = full, *level;

	if (*path == '/') {
		snprintf(full, sizeof(full), "%s", path);
	} else {
		if (!getcwd(full, CONF_STRING_BYTES_MAX))
			return -errno;
		used = strlen(full);
		snprintf(full + used, sizeof(full) - used, "/%s", path);
		used = 0;
	}
	while ((level = strsep(&rest, "/"))) {
		size_t bytes = strlen(level);

		if (!bytes || !strcmp(level, "."))
			continue;
		if (!strcmp(level, "..")) {
			while (used && ret_path[--used] != '/')
				;
			continue;
		}
		if (used + 1 + bytes >= path_max)
			return -ENAMETOOLONG;
		ret_path[used++] = '/';
		memcpy(ret_path + used, level, bytes);
		used += bytes;
	}
	ret_path[used] = '\0'; /* "/" is the empty string here, which is a prefix of all */
	return 0;
}

static bool path_within(const char *path, const char *dir)
{
	size_t bytes = strlen(dir);

	return !strncmp(path, dir, bytes) && (!path[bytes] || path[bytes] == '/');
}

/* Consumers read and remove what is in the export directory, so nothing of ours may lie there, and
 * our own directories are emptied by us. */
static int check_directories(const struct conf *c, const struct conf_place *place)
{
	static const char *const ours[] = {"journal", "staging"};
	char data[CONF_STRING_BYTES_MAX], export[CONF_STRING_BYTES_MAX];
	char own[CONF_STRING_BYTES_MAX + 16];

	if (path_normalise(c->data, data, sizeof(data)))
		return conf_fail(
			place, "data is too long as an absolute path; choose a shorter one.");
	if (!c->export.dir)
		return 0;
	if (path_normalise(c->export.dir, export, sizeof(export)))
		return conf_fail(
			place, "export.dir is too long as an absolute path; choose a shorter one.");
	if (path_within(data, export))
		return conf_fail(place,
			"export.dir (%.200s) contains the data directory; give it a directory "
			"of its own.",
			c->export.dir);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		snprintf(own, sizeof(own), "%s/%s", data, ours[i]);
		if (path_within(export, own))
			return conf_fail(place,
				"export.dir (%.200s) lies in the daemon's own %s directory; give "
				"it a directory of its own.",
				c->export.dir, ours[i]);
	}
	return 0;
}

enum { BYTES_RATE_MIN = 64 * 1024 };

static int check_sizes(const struct conf *c, const struct conf_place *place)
{
	char need[CONF_TEXT_BYTES_MAX];

	if (c->io.buffer_bytes < 2ull * c->io.splice_min + c->mqtt.head_bytes_max) {
		conf_size_format(2ull * c->io.splice_min + c->mqtt.head_bytes_max, need);
		return conf_fail(place,
			"io.buffer_size is less than twice io.splice_min plus "
			"mqtt.header_max; make it at least %s.",
			need);
	}
	if (c->mqtt.message_bytes_max > c->mqtt.packet_bytes_max)
		return conf_fail(place, "mqtt.message_max is more than mqtt.packet_max; lower it.");
	if (c->mqtt.head_bytes_max > c->mqtt.packet_bytes_max)
		return conf_fail(place, "mqtt.header_max is more than mqtt.packet_max; lower it.");
	if ((uint64_t)c->mqtt.message_bytes_max + c->mqtt.head_bytes_max > c->mqtt.received_bytes_max)
		return conf_fail(place, "mqtt.message_max plus mqtt.header_max is more than "
			"mqtt.received_total; raise that.");
	if (c->io.buffer_bytes > c->mqtt.received_bytes_max)
		return conf_fail(
			place, "io.buffer_size is more than mqtt.received_total; raise that.");
	if (c->mqtt.queue_bytes_max > c->mqtt.queue_total_bytes_max)
		return conf_fail(
			place, "mqtt.queue_bytes is more than mqtt.queue_total; lower it.");
	if (c->transfer.backlog_bytes_max > c->transfer.backlog_total_max)
		return conf_fail(place,
			"transfer.backlog_max is more than transfer.backlog_total; lower it.");
	/* Less than a step is never hashed before fin, so a transfer would stop being read for
	 * good. */
	if (c->verify.step_bytes > c->transfer.backlog_bytes_max)
		return conf_fail(place, "verify.step is more than transfer.backlog_max; lower it.");
	/* What is taken in one go, a receive buffer or a second's worth, is waited for before the
	 * next. */
	if (c->limits.client_bytes_rate && c->limits.client_bytes_rate < BYTES_RATE_MIN)
		return conf_fail(place, "limits.client_bytes_rate is below 64KiB; raise it, or make "
			"it 0, which is no limit.");
	if (c->limits.user_bytes_rate && c->limits.user_bytes_rate < BYTES_RATE_MIN)
		return conf_fail(place, "limits.user_bytes_rate is below 64KiB; raise it, or make "
			"it 0, which is no limit.");
	return 0;
}

enum { JOURNAL_WORKERS = 2 }; /* its write and its sync */

static int check_counts(const struct conf *c, const struct conf_place *place)
{
	if (c->transfer.ttl_min_s > c->transfer.ttl_max_s)
		return conf_fail(
			place, "transfer.ttl_min is more than transfer.ttl_max; lower it.");
	if (c->transfer.open_client_max > c->transfer.open_max)
		return conf_fail(place,
			"transfer.open_client_max is more than transfer.open_max; lower it.");
	if (c->transfer.open_user_max > c->transfer.open_max)
		return conf_fail(place,
			"transfer.open_user_max is more than transfer.open_max; lower it.");
	if (c->export.retention && !c->export.manifest)
		return conf_fail(place, "export.retention goes by manifests; set export.manifest to "
			"true, too.");
	/* Splices and syncs that fill all workers would stop the journal, which shares them. */
	if (c->io.splices_max + 1 + JOURNAL_WORKERS > c->io.workers_max)
		return conf_fail(place, "io.splices leaves too few io.workers for the journal; lower it, or raise "
			"io.workers.");
	return 0;
}

uint32_t conf_syncs_max(const struct conf *c)
{
	uint32_t left = c->io.workers_max - c->io.splices_max - JOURNAL_WORKERS, third = (c->io.workers_max + 2) / 3;
	return left < third ? left : third;
}

int conf_check(const struct conf *c, char *ret_error, size_t error_max)
{
	struct conf_place place = {
		.name = "configuration", .error = ret_error, .error_max = error_max};
	int err = check_sizes(c, &place);

	if (!err)
		err = check_counts(c, &place);
	if (!err)
		err = check_directories(c, &place);
	if (!err && c->export.group && !getgrnam(c->export.group))
		err = conf_fail(&place,
			"export.group: there is no group %.60s; create it, or name another.",
			c->export.group);
	return err;
}

void conf_dump(const struct conf *c, FILE *to)
{
	struct conf defaults;
	bool have_defaults = !conf_init(&defaults);
	const char *section = "";
	size_t section_bytes = 0;

	for (size_t i = 0; i < conf_keys_count; i++) {
		const struct conf_key *key = &conf_keys[i];
		const char *dot = strchr(key->path, '.');

		if (dot && (section_bytes != (size_t)(dot - key->path) ||
				   strncmp(section, key->path, section_bytes))) {
			section = key->path;
			section_bytes = dot - key->path;
			fprintf(to, "%.*s:\n", (int)section_bytes, section);
		}
		fprintf(to, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : key->path);
		conf_key_print(c, key, to);
		fputs(have_defaults && conf_key_equal(c, &defaults, key) ? "  # default\n" : "\n",
			to);
	}
	if (have_defaults)
		conf_fini(&defaults);
}
