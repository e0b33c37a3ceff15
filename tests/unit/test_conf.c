/*
 * The configuration: every key's default, range and round trip by the table; the strictness of
 * files; the sentences; and that the manual names what the table has.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "conf_key.h"

static char error[512];
static struct conf conf;

static void init(void)
{
	cr_assert_eq(conf_init(&conf), 0);
	*error = '\0';
}

static void fini(void)
{
	conf_fini(&conf);
	conf_fini(&conf);
}

TestSuite(conf, .init = init, .fini = fini);

static int load(const char *text)
{
	return conf_load_text(&conf, "f.yaml", text, strlen(text), error, sizeof(error));
}

static int set(const char *assignment)
{
	return conf_set(&conf, assignment, error, sizeof(error));
}

static void assert_refused(const char *text, const char *sentence)
{
	cr_expect_eq(load(text), -EINVAL, "taken: %s", text);
	cr_expect_str_eq(error, sentence);
}

/* What the struct must hold is written out here once more, so that the table can't be wrong alone.
 */
Test(conf, defaults)
{
	cr_expect_str_eq(conf.data, "./sluice-data");
	cr_expect_eq(conf.reactors, 0);
	cr_expect_eq(conf.durability, CONF_CRASH);
	cr_expect_eq(conf.listen_count, 1);
	cr_expect_str_eq(conf.listen[0], "127.0.0.1:1883");
	cr_expect_eq(conf.log.level, CONF_LOG_INFO);
	cr_expect_eq(conf.mqtt.connect_timeout_ms, 10000);
	cr_expect_eq(conf.mqtt.keep_alive_max_s, 0);
	cr_expect_eq(conf.mqtt.min_rate_bytes, 1024);
	cr_expect_eq(conf.mqtt.packet_bytes_max, 268435460);
	cr_expect_eq(conf.mqtt.session_expiry_max_s, 7 * 86400);
	cr_expect_eq(conf.mqtt.received_bytes_max, 512ull << 20);
	cr_expect_eq(conf.mqtt.queue_total_bytes_max, 256ull << 20);
	cr_expect_eq(conf.transfer.file_bytes_max, 1ull << 40);
	cr_expect_eq(conf.transfer.staged_bytes_max, 0);
	cr_expect_eq(conf.transfer.replay_window_s, 86400);
	cr_expect_eq(conf.transfer.prealloc, CONF_RESERVE);
	cr_expect_null(conf.export.dir);
	cr_expect_null(conf.export.group);
	cr_expect_eq(conf.export.file_mode, 0640);
	cr_expect_eq(conf.export.dir_mode, 0750);
	cr_expect_eq(conf.export.manifest, true);
	cr_expect_eq(conf.io.splice_min, 48 << 10);
	cr_expect_eq(conf.io.journal_bytes, 16 << 20);
	cr_expect_eq(conf.verify.threads, 0);
	cr_expect_eq(conf.events.subscribers_count, 0);
	cr_expect_eq(conf_check(&conf, error, sizeof(error)), 0, "%s", error);
}

Test(conf, keys_are_distinct_and_sections_stand_together)
{
	for (size_t i = 0; i < conf_keys_count; i++) {
		const char *path = conf_keys[i].path;
		const char *dot = strchr(path, '.');
		bool left = false;

		cr_expect_eq(conf_key_find(path, strlen(path)), &conf_keys[i], "%s twice", path);
		cr_expect_lt(strlen(path), CONF_PATH_BYTES_MAX);
		for (size_t j = i + 1; dot && j < conf_keys_count; j++) {
			bool same = !strncmp(conf_keys[j].path, path, dot - path + 1);

			cr_expect_not(same && left, "section of %s is split", conf_keys[j].path);
			left = left || !same;
		}
	}
}

/* A text for a key at, below or above its range; NULL when there is none such. */
static const char *text_of(const struct conf_key *key, uint64_t value)
{
	static char text[32];

	switch (key->type) {
	case CONF_COUNT:
	case CONF_SIZE32:
	case CONF_SIZE64:
		snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
		return text;
	case CONF_SECONDS:
		snprintf(text, sizeof(text), "%llus", (unsigned long long)value);
		return text;
	case CONF_MILLIS:
		snprintf(text, sizeof(text), "%llums", (unsigned long long)value);
		return text;
	default:
		return NULL;
	}
}

static int set_number(const struct conf_key *key, uint64_t value)
{
	char assignment[128];

	snprintf(assignment, sizeof(assignment), "%s=%s", key->path, text_of(key, value));
	return set(assignment);
}

Test(conf, every_range_is_kept)
{
	unsigned ranges = 0;

	for (size_t i = 0; i < conf_keys_count; i++) {
		const struct conf_key *key = &conf_keys[i];

		if (!text_of(key, 0))
			continue;
		ranges++;
		cr_expect_eq(set_number(key, key->min), 0, "%s", error);
		cr_expect_eq(set_number(key, key->max), 0, "%s", error);
		cr_expect_eq(set_number(key, key->max + 1), -EINVAL, "%s", key->path);
		if (key->min)
			cr_expect_eq(set_number(key, key->min - 1), -EINVAL, "%s", key->path);
		if (key->type == CONF_COUNT || key->type == CONF_SIZE32)
			cr_expect_leq(key->max, UINT32_MAX);
	}
	cr_expect_gt(ranges, 40);
}

static char *dump(const struct conf *c)
{
	char *text = NULL;
	size_t bytes;
	FILE *memory = open_memstream(&text, &bytes);

	cr_assert(memory);
	conf_dump(c, memory);
	fclose(memory);
	return text;
}

Test(conf, dump_of_defaults_marks_every_line_as_default)
{
	char *text = dump(&conf);
	size_t marks = 0;

	for (char *at = text; (at = strstr(at, "  # default\n")); at++)
		marks++;
	cr_expect_eq(marks, conf_keys_count);
	cr_expect_eq(load(text), 0, "%s", error);
	free(text);
}

/* Each numeric key in turn at both ends of its range, and the others at values with every awkward
 * character. */
Test(conf, dump_loads_to_the_same)
{
	struct conf again;

	cr_assert_eq(
		load("data: \"a\\n\\\"b\\\\ \\x7f\\x01: #c\"\nlisten: ['[::1]:0', "
		     "'0.0.0.0:65535']\n"
		     "export: {dir: 'x', group: \"g'\", manifest: false, file_mode: '0604'}\n"
		     "events: {subscribers: ['*', 'a, b', \"\\u4e2d\"]}\nlog: {level: error}\n"),
		0, "%s", error);
	for (size_t i = 0; i < 2 * conf_keys_count; i++) {
		const struct conf_key *key = &conf_keys[i / 2];
		char *text;

		if (text_of(key, 0))
			cr_assert_eq(set_number(key, i % 2 ? key->max : key->min), 0);
		text = dump(&conf);
		cr_assert_eq(conf_init(&again), 0);
		cr_assert_eq(
			conf_load_text(&again, "dump", text, strlen(text), error, sizeof(error)), 0,
			"%s", error);
		for (size_t j = 0; j < conf_keys_count; j++)
			cr_expect(conf_key_equal(&conf, &again, &conf_keys[j]), "%s: %s",
				conf_keys[j].path, text);
		conf_fini(&again);
		free(text);
	}
	cr_expect_str_eq(conf.events.subscribers[1], "a, b");
	cr_expect_eq(conf.export.file_mode, 0604);
}

Test(conf, empty_files_change_nothing)
{
	static const char *const texts[] = {
		"", "\n\n", "# only a comment\n", "---\n", "{}", "---\n...\n"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		cr_expect_eq(load(texts[i]), 0, "%s", error);
	cr_expect_str_eq(conf.data, "./sluice-data");
}

Test(conf, file_over_defaults)
{
	cr_assert_eq(
		load("data: /srv\nmqtt:\n  inflight: 7\n  connect_timeout: 1500ms\n"
		     "transfer:\n  preallocate: sparse\nlisten:\n  - 0.0.0.0:1\n  - 10.0.0.1:2\n"
		     "durability: crash\nreactors: 3\n"),
		0, "%s", error);
	cr_expect_str_eq(conf.data, "/srv");
	cr_expect_eq(conf.mqtt.inflight_max, 7);
	cr_expect_eq(conf.mqtt.connect_timeout_ms, 1500);
	cr_expect_eq(conf.transfer.prealloc, CONF_SPARSE);
	cr_expect_eq(conf.listen_count, 2);
	cr_expect_str_eq(conf.listen[1], "10.0.0.1:2");
	cr_expect_eq(conf.reactors, 3);
	cr_expect_eq(conf.mqtt.receive_max, 1024);
}

Test(conf, keys_that_are_none)
{
	assert_refused("data: x\n\nmqtt:\n  inflight: 1\n  inflght: 3\n",
		"f.yaml:5: mqtt.inflght is no key; did you mean mqtt.inflight?");
	assert_refused("transfer:\n  inflight: 3\n",
		"f.yaml:2: transfer.inflight is no key; did you mean mqtt.inflight?");
	assert_refused("zebra: 1\n", "f.yaml:1: zebra is no key; remove it, or see sluiced.yaml(5) "
				     "for the keys there are.");
	assert_refused("mqtt.inflight: 3\n", "f.yaml:1: \"mqtt.inflight\" is no key; in a file a "
					     "section is a mapping: write its name and a "
					     "colon, and the key indented beneath it.");
	cr_expect_eq(load("\"\": 1\n"), -EINVAL);
}

Test(conf, keys_given_twice)
{
	assert_refused("data: a\n\ndata: b\n",
		"f.yaml:3: data is given a second time, after line 1; remove one of the two.");
	assert_refused("mqtt:\n  inflight: 1\n  inflight: 1\n",
		"f.yaml:3: mqtt.inflight is given a second time, after line 2; remove one of the "
		"two.");
	assert_refused("mqtt:\n  inflight: 1\nlog: {}\nmqtt:\n  queue_bytes: 1\n",
		"f.yaml:4: mqtt is given a second time, after line 1; remove one of the two.");
}

Test(conf, shapes)
{
	assert_refused(
		"mqtt: 3\n", "f.yaml:1: mqtt is a section; write its keys indented beneath it.");
	assert_refused("\nmqtt: [a]\n",
		"f.yaml:2: mqtt is a section; write its keys indented beneath it.");
	assert_refused("data: [a]\n",
		"f.yaml:1: data takes one value, not a list; write it without brackets.");
	assert_refused(
		"data: {a: b}\n", "f.yaml:1: data takes no keys beneath it; write one value.");
	assert_refused("mqtt: {inflight: {a: b}}\n",
		"f.yaml:1: mqtt.inflight takes no keys beneath it; see sluiced.yaml(5).");
	assert_refused("listen: 0.0.0.0:1\n",
		"f.yaml:1: listen takes a list; write [a, b], or [] for none.");
	assert_refused("listen: [[0.0.0.0:1]]\n",
		"f.yaml:1: a list where none can be; write \"key: value\" lines.");
	assert_refused("- a\n", "f.yaml:1: a list where none can be; write \"key: value\" lines.");
	assert_refused("data\n", "f.yaml:1: \"data\" is no mapping; write \"key: value\" lines.");
	assert_refused(
		"? [a]\n: b\n", "f.yaml:1: a list where none can be; write \"key: value\" lines.");
	assert_refused("log:\n",
		"f.yaml:1: log has no value; give it one, or remove it to get the default.");
	assert_refused("log:\n  level: ~\n",
		"f.yaml:2: log.level has no value; give it one, or remove it to get the default.");
	/* Quoted, it is a text like any other. */
	cr_expect_eq(load("data: 'null'\n"), 0);
	cr_expect_str_eq(conf.data, "null");
}

Test(conf, yaml_that_is_refused)
{
	static const char anchors[] =
		"anchors, aliases and tags are not taken; write the value itself.";
	char sentence[256];

	snprintf(sentence, sizeof(sentence), "f.yaml:1: %s", anchors);
	assert_refused("data: &a x\n", sentence);
	assert_refused("data: *a\n", sentence);
	assert_refused("data: !!str x\n", sentence);
	assert_refused("mqtt: &m {inflight: 3}\n", sentence);
	assert_refused("listen: &l [0.0.0.0:1]\n", sentence);
	assert_refused("&m\ndata: x\n", sentence);
	assert_refused("data: x\n---\ndata: y\n",
		"f.yaml:2: a second document begins; keep one, without \"---\".");
	assert_refused(
		"data: x\nexport: {dir: \"a\\0b\"}\n", "f.yaml:2: a NUL character; remove it.");
	assert_refused("data: x\nlog: {level: a\n\n",
		"f.yaml:4: this is not YAML: did not find expected ',' or '}'; correct the line.");
	assert_refused("data: x\n# \xff\n",
		"f.yaml:2: this is not YAML: invalid leading UTF-8 octet; correct the line.");
	/* A line break in the text does not break the sentence. */
	cr_expect_eq(load("reactors: \"1\\n2\\x1b[0m\"\n"), -EINVAL);
	cr_expect_null(strpbrk(error, "\n\x1b"));
}

Test(conf, bombs_are_refused_early)
{
	size_t bytes = CONF_FILE_BYTES_MAX;
	char *text = malloc(bytes + 1);

	cr_assert(text);
	memset(text, '[', bytes);
	cr_expect_eq(conf_load_text(&conf, "f", text, bytes, error, sizeof(error)), -EINVAL);
	for (size_t i = 0; i + 4 <= bytes; i += 4)
		memcpy(text + i, "{a: ", 4);
	cr_expect_eq(conf_load_text(&conf, "f", text, bytes, error, sizeof(error)), -EINVAL);
	for (size_t i = 0; i + 8 <= bytes; i += 8) {
		char line[16];

		snprintf(line, sizeof(line), "%06zx:\n", i);
		memcpy(text + i, line, 8);
	}
	cr_expect_eq(conf_load_text(&conf, "f", text, bytes, error, sizeof(error)), -EINVAL);
	/* Comments to the last byte are fine, one more is not. */
	memset(text, '#', bytes + 1);
	cr_expect_eq(conf_load_text(&conf, "f", text, bytes, error, sizeof(error)), 0, "%s", error);
	cr_expect_eq(conf_load_text(&conf, "f", text, bytes + 1, error, sizeof(error)), -EINVAL);
	cr_expect_str_eq(
		error, "f: larger than 1MiB; it can't be a configuration, name another file.");
	free(text);
}

Test(conf, values_that_are_refused)
{
	assert_refused("mqtt:\n  inflight: 0\n",
		"f.yaml:2: mqtt.inflight is \"0\"; it takes a whole number from 1 to 65535.");
	assert_refused("io: {splice_min: 64KB}\n",
		"f.yaml:1: io.splice_min is \"64KB\"; it takes a size from 1KiB to 16MiB, in bytes "
		"or with KiB, "
		"MiB, GiB or TiB.");
	assert_refused("mqtt: {connect_timeout: 10}\n",
		"f.yaml:1: mqtt.connect_timeout is \"10\"; it takes a time from 100ms to 1h, with "
		"ms, s, m, h or "
		"d.");
	assert_refused("transfer: {ttl_min: 1500ms}\n",
		"f.yaml:1: transfer.ttl_min is \"1500ms\"; it takes a time from 1s to 4294967295s, "
		"with s, m, h "
		"or d.");
	assert_refused("reactors: 0\n",
		"f.yaml:1: reactors is \"0\"; it takes \"auto\" or a whole number from 1 to 64.");
	assert_refused(
		"durability: off\n", "f.yaml:1: durability is \"off\"; it takes crash or power.");
	assert_refused("log: {level: all}\n",
		"f.yaml:1: log.level is \"all\"; it takes error, warn, info or debug.");
	assert_refused("export: {manifest: yes}\n",
		"f.yaml:1: export.manifest is \"yes\"; it takes true or false.");
	assert_refused("export: {file_mode: 0200}\n",
		"f.yaml:1: export.file_mode is \"0200\"; it takes an octal mode with at least 0400 "
		"in it, such as "
		"0640.");
	cr_expect_eq(set("export.dir_mode=01777"), -EINVAL);
	cr_expect_eq(set("export.dir_mode=0790"), -EINVAL);
	cr_expect_eq(set("export.dir_mode=7"), -EINVAL);
	assert_refused("data: ''\n",
		"f.yaml:1: data is empty; give it a value, or remove it to get ./sluice-data.");
	assert_refused("listen: []\n", "f.yaml:1: listen has 0 items; it takes from 1 to 8.");
	assert_refused("listen: [localhost:1]\n", "f.yaml:1: listen has \"localhost:1\"; it takes "
						  "a numeric ADDR:PORT such as 127.0.0.1:1883 or "
						  "[::1]:1883, perhaps with \" durability=power\" "
						  "behind it.");
	assert_refused("events: {subscribers: [a, '']}\n",
		"f.yaml:1: events.subscribers has an item that is empty or longer than 4095 bytes; "
		"remove it.");
}

Test(conf, assignments)
{
	cr_expect_eq(set("listen=0.0.0.0:1,[::]:2"), 0);
	cr_expect_eq(conf.listen_count, 2);
	cr_expect_str_eq(conf.listen[1], "[::]:2");
	/* A list that is refused leaves the one that was there. */
	cr_expect_eq(set("listen=0.0.0.0:3,nowhere"), -EINVAL);
	cr_expect_eq(conf.listen_count, 2);
	cr_expect_str_eq(conf.listen[0], "0.0.0.0:1");
	cr_expect_eq(set("events.subscribers=a,b"), 0);
	cr_expect_eq(set("events.subscribers="), 0);
	cr_expect_eq(conf.events.subscribers_count, 0);
	cr_expect_eq(set("export.dir=/x=y"), 0);
	cr_expect_str_eq(conf.export.dir, "/x=y");
	cr_expect_eq(set("export.dir="), 0);
	cr_expect_null(conf.export.dir);
	cr_expect_eq(set("reactors=2"), 0);
	cr_expect_eq(set("reactors=auto"), 0);
	cr_expect_eq(conf.reactors, 0);
	cr_expect_eq(set("reactors"), -EINVAL);
	cr_expect_str_eq(error, "-o: \"reactors\" has no value; write key.path=value.");
	cr_expect_eq(set("reactor=1"), -EINVAL);
	cr_expect_str_eq(error, "-o: reactor is no key; did you mean reactors?");
	cr_expect_eq(set("mqtt=1"), -EINVAL);
	cr_expect_eq(set("=1"), -EINVAL);
}

static void assert_check(const char *assignment, const char *sentence)
{
	struct conf c;

	cr_assert_eq(conf_init(&c), 0);
	cr_expect_eq(conf_set(&c, assignment, error, sizeof(error)), 0, "%s", error);
	cr_expect_eq(
		conf_check(&c, error, sizeof(error)), sentence ? -EINVAL : 0, "%s", assignment);
	if (sentence)
		cr_expect_str_eq(error, sentence);
	conf_fini(&c);
}

Test(conf, checks_that_span_keys)
{
	assert_check("io.buffer_size=128KiB", NULL);
	assert_check("io.buffer_size=131071", "configuration: io.buffer_size is less than twice "
					     "io.splice_min plus mqtt.header_max; make it at "
					     "least 128KiB.");
	assert_check("transfer.ttl_min=1d", NULL);
	assert_check("transfer.ttl_min=25h",
		"configuration: transfer.ttl_min is more than transfer.ttl_max; lower it.");
	assert_check("io.splices=22", "configuration: io.splices leaves too few io.workers for the journal; lower "
				      "it, or raise io.workers.");
	assert_check("io.splices=21", NULL);
	assert_check("transfer.backlog_max=513MiB", "configuration: transfer.backlog_max is more "
						    "than transfer.backlog_total; lower it.");
	assert_check("verify.step=65MiB",
		"configuration: verify.step is more than transfer.backlog_max; lower it.");
	assert_check("transfer.open_max=9999", "configuration: transfer.open_client_max is more "
					       "than transfer.open_max; lower it.");
	assert_check("transfer.open_user_max=100000", NULL);
	assert_check("transfer.open_user_max=100001", "configuration: transfer.open_user_max is more "
						      "than transfer.open_max; lower it.");
	assert_check("limits.user_bytes_rate=64KiB", NULL);
	assert_check("limits.user_bytes_rate=65535", "configuration: limits.user_bytes_rate is below "
						     "64KiB; raise it, or make it 0, which is no limit.");
	assert_check("mqtt.packet_max=64KiB",
		"configuration: mqtt.message_max is more than mqtt.packet_max; lower it.");
	assert_check("mqtt.received_total=1MiB", "configuration: mqtt.message_max plus "
		"mqtt.header_max is more than mqtt.received_total; raise that.");
	assert_check("mqtt.queue_total=1KiB",
		"configuration: mqtt.queue_bytes is more than mqtt.queue_total; lower it.");
	assert_check("export.group=root", NULL);
	assert_check("export.group=no-such-group", "configuration: export.group: there is no group "
						   "no-such-group; create it, or name another.");
}

Test(conf, a_buffer_that_may_not_be_kept)
{
	cr_assert_eq(conf_set(&conf, "io.buffer_size=64MiB", error, sizeof(error)), 0);
	cr_assert_eq(conf_set(&conf, "mqtt.received_total=63MiB", error, sizeof(error)), 0);
	cr_expect_eq(conf_check(&conf, error, sizeof(error)), -EINVAL);
	cr_expect_str_eq(error, "configuration: io.buffer_size is more than mqtt.received_total; "
				"raise that.");
}

Test(conf, directories_that_lie_within_each_other)
{
	static const char contains[] = "configuration: export.dir (%s) contains the data "
				       "directory; give it a directory of its own.";
	static const char *const outer[] = {
		".", "sluice-data", "./sluice-data/", "/", "./x/..", "sluice-data/export/.."};
	static const char *const apart[] = {"./sluice-data/export", "sluice-data/exports/a",
		"sluice-data2", "/somewhere/else", "../x", "sluice-data/stagings"};
	char assignment[128], sentence[256];

	for (size_t i = 0; i < sizeof(outer) / sizeof(outer[0]); i++) {
		snprintf(assignment, sizeof(assignment), "export.dir=%s", outer[i]);
		snprintf(sentence, sizeof(sentence), contains, outer[i]);
		assert_check(assignment, sentence);
	}
	for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++) {
		snprintf(assignment, sizeof(assignment), "export.dir=%s", apart[i]);
		assert_check(assignment, NULL);
	}
	assert_check("export.dir=sluice-data//staging/x",
		"configuration: export.dir (sluice-data//staging/x) lies in the daemon's own "
		"staging directory; "
		"give it a directory of its own.");
	assert_check("export.dir=x/../sluice-data/journal",
		"configuration: export.dir (x/../sluice-data/journal) lies in the daemon's own "
		"journal directory; "
		"give it a directory of its own.");
}

Test(conf, files)
{
	char path[] = "/tmp/test_conf.XXXXXX";
	int fd = mkstemp(path);
	char sentence[256];

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, "data: x\nreactors: y\n", 20), 20);
	cr_expect_eq(conf_load_file(&conf, path, error, sizeof(error)), -EINVAL);
	snprintf(sentence, sizeof(sentence),
		"%s:2: reactors is \"y\"; it takes \"auto\" or a whole number from 1 to 64.", path);
	cr_expect_str_eq(error, sentence);
	cr_assert_eq(ftruncate(fd, 8), 0);
	cr_expect_eq(conf_load_file(&conf, path, error, sizeof(error)), 0);
	cr_assert_eq(ftruncate(fd, CONF_FILE_BYTES_MAX + 1), 0);
	cr_expect_eq(conf_load_file(&conf, path, error, sizeof(error)), -EINVAL);
	close(fd);
	unlink(path);
	cr_expect_eq(conf_load_file(&conf, path, error, sizeof(error)), -EINVAL);
	snprintf(sentence, sizeof(sentence),
		"%s: can't be opened (No such file or directory); correct the path or its "
		"permissions.",
		path);
	cr_expect_str_eq(error, sentence);
	cr_expect_eq(conf_load_file(&conf, "/", error, sizeof(error)), -EINVAL);
	cr_expect_str_eq(error, "/: can't be read (Is a directory); name a readable file.");
}

/* A buffer for the sentence that is too short, or none, is no error of its own. */
Test(conf, short_error_buffers)
{
	char small[8] = "xxxxxxx";

	cr_expect_eq(conf_load_text(&conf, "f.yaml", "a: 1\n", 5, small, 4), -EINVAL);
	cr_expect_str_eq(small, "f.y");
	cr_expect_eq(conf_load_text(&conf, "f.yaml", "a: 1\n", 5, small, 0), -EINVAL);
	cr_expect_str_eq(small, "f.y");
}

/* xorshift64: the same values in every run. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

Test(conf_values, formatted_values_parse_to_themselves)
{
	uint64_t state = 42;

	for (unsigned i = 0; i < 100000; i++) {
		/* Of every magnitude, and multiples of every unit. */
		uint64_t value = next_random(&state) >> next_random(&state) % 64, again;
		char text[CONF_TEXT_BYTES_MAX];

		if (i % 3 == 0)
			value <<= 10 * (next_random(&state) % 5);
		else if (i % 3 == 1)
			value -= value % 60000;
		conf_size_format(value, text);
		cr_assert_eq(conf_size_parse(text, &again), 0, "%s", text);
		cr_assert_eq(again, value, "%s", text);
		conf_time_format(value, text);
		cr_assert_eq(conf_time_parse(text, &again), 0, "%s", text);
		cr_assert_eq(again, value, "%s", text);
	}
}

Test(conf_values, forms)
{
	static const char *const bad_sizes[] = {"", " 1", "1 ", "1 MiB", "-1", "+1", "1.5MiB",
		"1mib", "1M", "MiB", "1KiBB", "0x10", "1KiB1"};
	static const char *const bad_times[] = {
		"", "1", "00", "1 s", "-1s", "1.5s", "1min", "1w", "s", "1h30m", "1S"};
	uint64_t value = 77;

	for (size_t i = 0; i < sizeof(bad_sizes) / sizeof(bad_sizes[0]); i++)
		cr_expect_eq(conf_size_parse(bad_sizes[i], &value), -EINVAL, "%s", bad_sizes[i]);
	for (size_t i = 0; i < sizeof(bad_times) / sizeof(bad_times[0]); i++)
		cr_expect_eq(conf_time_parse(bad_times[i], &value), -EINVAL, "%s", bad_times[i]);
	cr_expect_eq(conf_size_parse("18446744073709551616", &value), -ERANGE);
	cr_expect_eq(conf_size_parse("16777216TiB", &value), -ERANGE);
	cr_expect_eq(conf_time_parse("18446744073709552s", &value), -ERANGE);
	cr_expect_eq(value, 77, "an output is untouched on failure");
	cr_expect_eq(conf_size_parse("18446744073709551615", &value), 0);
	cr_expect_eq(value, UINT64_MAX);
	cr_expect_eq(conf_size_parse("007B", &value), 0);
	cr_expect_eq(value, 7);
	cr_expect_eq(conf_time_parse("2h", &value), 0);
	cr_expect_eq(value, 7200000);
	cr_expect_eq(conf_time_parse("0", &value), 0);
	cr_expect_eq(value, 0);
}

Test(conf_values, addresses)
{
	static const char *const good[] = {
		"127.0.0.1:1883", "0.0.0.0:0", "[::]:65535", "[fe80::1]:1", "[::ffff:1.2.3.4]:8",
		"127.0.0.1:1 durability=crash", "[::1]:2 durability=power"};
	static const char *const bad[] = {"", ":", ":1", "1883", "127.0.0.1",
		"127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:+1", "127.0.0.256:1",
		"::1:1883", "[::1]", "[::1:1", "[]:1", "[:1", "]:1", "[127.0.0.1]:1", "host:1",
		"[::1]1883", "*:1883", "127.0.0.1:1 ", "127.0.0.1:1  durability=power",
		"127.0.0.1:1 durability", "127.0.0.1:1 durability=", "127.0.0.1:1 durability=powers",
		" 127.0.0.1:1", "durability=power", "127.0.0.1:1 durability=power ",
		"127.0.0.1:1 durability=power durability=crash",
		"[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc]:1"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_expect(conf_listen_valid(good[i]), "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_not(conf_listen_valid(bad[i]), "%s", bad[i]);
}

/* A listener's own word counts, else that of the daemon. */
Test(conf, durability_per_listener)
{
	struct conf_listener l;
	cr_expect_not(conf_has_power(&conf));
	cr_expect_eq(set("listen=127.0.0.1:1,[::1]:2 durability=power,0.0.0.0:3 durability=crash"), 0);
	static const enum conf_durability own[] = {CONF_CRASH, CONF_POWER, CONF_CRASH};
	for (uint32_t i = 0; i < 3; i++) {
		conf_listener(&conf, i, &l);
		cr_expect_eq(l.durability, own[i]);
	}
	cr_expect_str_eq(l.address, "0.0.0.0:3");
	cr_expect(conf_has_power(&conf));
	cr_expect_eq(set("durability=power"), 0);
	conf_listener(&conf, 0, &l);
	cr_expect_str_eq(l.address, "127.0.0.1:1");
	cr_expect_eq(l.durability, CONF_POWER);
	conf_listener(&conf, 2, &l);
	cr_expect_eq(l.durability, CONF_CRASH);
	cr_expect_eq(set("listen=127.0.0.1:1 durability=crash"), 0);
	cr_expect_not(conf_has_power(&conf));
}

/* In the manual a key is the line ".It Va path = default"; an empty default is written ‘""’, a list
 * "[a]". */
static void manual_line(const struct conf_key *key, char *ret_line, size_t line_max)
{
	bool list = key->type == CONF_LIST;
	const char *quote = *key->text || list ? "" : "\\(dq\\(dq";

	snprintf(ret_line, line_max, "\n.It Va %s = %s%s%s%s\n", key->path, list ? "[" : "",
		key->text, quote, list ? "]" : "");
}

Test(conf_manual, names_every_key_with_its_default_and_nothing_else)
{
	FILE *file = fopen("daemon/sluiced.yaml.5", "re");
	static char text[256 * 1024];
	size_t bytes, items = 0;
	char line[256];

	cr_assert(file, "run from the top of the tree");
	bytes = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[bytes] = '\0';
	for (size_t i = 0; i < conf_keys_count; i++) {
		manual_line(&conf_keys[i], line, sizeof(line));
		cr_expect(strstr(text, line), "the manual lacks:%s", line);
	}
	for (char *at = text; (at = strstr(at, "\n.It Va ")); at++)
		items++;
	cr_expect_eq(items, conf_keys_count, "the manual has a key that the table has not");
}
