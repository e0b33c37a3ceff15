/*
 * One table says which options there are, which subcommands take each, how its value is read, and
 * what --help says of it. Everything that depends on more than one option is checked at the end.
 */
#include "options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mqtt.h"
#include "rng.h"

enum {
	CONNECTIONS_MAX = 1000000,
	FILES_MAX = 100000000,
	CLIENT_PREFIX_BYTES_MAX = 64,
	TOPIC_BYTES_MAX = 100,
	PATH_BYTES_MAX = 1000,
	LANES_MAX = 64,
	/* What a PUBLISH needs beside its payload: topic with checksum, packet id, properties. */
	PUBLISH_OVERHEAD_MAX = 512,
	SEGMENT_BYTES_MAX = MQTT_REMAINING_MAX - PUBLISH_OVERHEAD_MAX,
};

enum option_type {
	TYPE_TEXT,   /* const char *; at most .max bytes */
	TYPE_SWITCH, /* bool */
	TYPE_NUMBER, /* an unsigned member of any width, .min … .max */
	TYPE_RANGE,  /* struct options_range, .min … .max */
	TYPE_WORD,   /* an enum or a byte: the place of the word in .words */
};

struct option_row {
	const char *name, *value, *help;
	unsigned commands; /* bits of enum options_command */
	enum option_type type;
	size_t offset, bytes; /* of the member */
	uint64_t min, max;
	const char *const *words; /* NULL-terminated */
};

static const char *const checksum_words[] = {"none", "fin", "segment", NULL};
static const char *const order_words[] = {"in", "reverse", "random", NULL};
static const char *const version_words[] = {"5", "3.1.1", NULL};
static const uint8_t versions[] = {MQTT_V5, MQTT_V311};
static const char *const mode_words[] = {
	"discard", "splice", "poll-splice", "splice+sha", "sha", NULL};

#define MEMBER(member) \
	.offset = offsetof(struct options, member), .bytes = sizeof(((struct options *)0)->member)
#define MQTT_LOADS (OPTIONS_INGEST | OPTIONS_PUBLISH)
#define LOADS (MQTT_LOADS | OPTIONS_PUT)
#define CLIENTS (LOADS | OPTIONS_IDLE | OPTIONS_PING)
#define SENDERS (LOADS | OPTIONS_FLOOR)
#define WRITERS (OPTIONS_FLOOR | OPTIONS_LOOP)
#define ALL (CLIENTS | WRITERS)

static const struct option_row option_table[] = {
	{"host", "HOST", "where the server listens (127.0.0.1)", CLIENTS, TYPE_TEXT, MEMBER(host),
		.max = UINT64_MAX},
	{"port", "PORT", "(1883)", CLIENTS, TYPE_TEXT, MEMBER(port), .max = UINT64_MAX},
	{"mode", "MODE", "discard, splice, poll-splice, splice+sha or sha (splice)", OPTIONS_FLOOR,
		TYPE_WORD, MEMBER(mode), .words = mode_words},
	{"connections", "N", "connections (4)", SENDERS | OPTIONS_IDLE, TYPE_NUMBER,
		MEMBER(connections), .min = 1, .max = CONNECTIONS_MAX},
	{"files", "N", "files, over all connections (one per connection)", SENDERS | WRITERS,
		TYPE_NUMBER, MEMBER(files), .min = 1, .max = FILES_MAX},
	{"size", "SIZE|MIN-MAX", "bytes of a file: 4096, 64K, 1M-1G (16M)", SENDERS | WRITERS,
		TYPE_RANGE, MEMBER(size), .max = INT64_MAX},
	{"segment", "SIZE|MIN-MAX", "bytes of a segment (256K)", MQTT_LOADS | OPTIONS_FLOOR,
		TYPE_RANGE, MEMBER(segment), .min = 1, .max = SEGMENT_BYTES_MAX},
	{"window", "N", "unacknowledged commands per connection (32)",
		MQTT_LOADS | OPTIONS_FLOOR, TYPE_NUMBER, MEMBER(window), .min = 1, .max = UINT16_MAX},
	{"checksum", "WHAT", "none, fin or segment (none)", OPTIONS_INGEST, TYPE_WORD,
		MEMBER(checksum), .words = checksum_words},
	{"mqtt", "VERSION", "5 or 3.1.1 (5)", MQTT_LOADS, TYPE_WORD, MEMBER(mqtt_version),
		.words = version_words},
	{"order", "ORDER", "in, reverse or random (in)", OPTIONS_INGEST, TYPE_WORD, MEMBER(order),
		.words = order_words},
	{"duplicate", "PERCENT", "of the segments are sent twice (0)", OPTIONS_INGEST, TYPE_NUMBER,
		MEMBER(duplicate_percent), .max = 100},
	{"topic", "TOPIC", "of every message (sluice/bench)", OPTIONS_PUBLISH, TYPE_TEXT,
		MEMBER(topic), .max = TOPIC_BYTES_MAX},
	{"path", "PATH", "put before each file's name (/)", OPTIONS_PUT, TYPE_TEXT, MEMBER(path),
		.max = PATH_BYTES_MAX},
	{"raw", NULL, "no HTTP: a connection per file, its bytes, the end", OPTIONS_PUT,
		TYPE_SWITCH, MEMBER(raw)},
	{"lanes", "N", "streams that one thread hashes together (what is fastest here)", OPTIONS_FLOOR, TYPE_NUMBER,
		MEMBER(lanes), .min = 1, .max = LANES_MAX},
	{"threads", "N", "threads that hash (one per processor)", OPTIONS_FLOOR, TYPE_NUMBER,
		MEMBER(threads), .min = 1, .max = 256},
	{"seed", "N", "repeats an earlier run (chosen by the clock)", SENDERS | WRITERS,
		TYPE_NUMBER, MEMBER(seed), .max = INT64_MAX},
	{"dir", "PATH", "sends the files found there", OPTIONS_INGEST, TYPE_TEXT, MEMBER(dir),
		.max = UINT64_MAX},
	{"dir", "PATH", "where the files are written (.)", WRITERS, TYPE_TEXT, MEMBER(dir),
		.max = UINT64_MAX},
	{"no-dir-sync", NULL, "leaves out the fsync of the directory", OPTIONS_LOOP, TYPE_SWITCH,
		MEMBER(no_dir_sync)},
	{"together", "N", "so many files at a time, as sluiced publishes them (one by one)", OPTIONS_LOOP,
		TYPE_NUMBER, MEMBER(together), .min = 1, .max = 10000},
	{"verify-dir", "PATH", "compares the exported files with what was sent", OPTIONS_INGEST,
		TYPE_TEXT, MEMBER(verify_dir), .max = UINT64_MAX},
	{"spread", NULL, "a source address in 127.0.0.0/8 for each connection", MQTT_LOADS,
		TYPE_SWITCH, MEMBER(spread)},
	{"client-prefix", "TEXT", "client ids are TEXT-0, TEXT-1, ... (bench)",
		MQTT_LOADS | OPTIONS_IDLE | OPTIONS_PING, TYPE_TEXT, MEMBER(client_prefix),
		.max = CLIENT_PREFIX_BYTES_MAX},
	{"seconds", "N", "how long (10)", OPTIONS_IDLE | OPTIONS_PING, TYPE_NUMBER, MEMBER(seconds),
		.min = 1, .max = 86400},
	{"keep-alive", "SECONDS", "between two PINGREQs of a connection (60)", OPTIONS_IDLE,
		TYPE_NUMBER, MEMBER(keep_alive_s), .min = 1, .max = 30000},
	{"interval", "MS", "between two PINGREQs (10)", OPTIONS_PING, TYPE_NUMBER,
		MEMBER(interval_ms), .min = 1, .max = 10000},
	{"pid", "PID", "measures the server's processor time and memory", LOADS | OPTIONS_IDLE,
		TYPE_NUMBER, MEMBER(daemon_pid), .min = 1, .max = INT32_MAX},
	{"timeout", "SECONDS", "without any answer, after which a connection fails (60)", CLIENTS,
		TYPE_NUMBER, MEMBER(timeout_s), .min = 1, .max = 86400},
	{"json", NULL, "the result as JSON", ALL, TYPE_SWITCH, MEMBER(json)},
};

enum { OPTIONS_COUNT = sizeof(option_table) / sizeof(option_table[0]), OPT_HELP = OPTIONS_COUNT };

/* Digits, then one of K M G T or nothing. Moves *text behind them. */
static bool options_read_number(const char **text, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *s = *text, *unit;
	uint64_t value = 0;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
			return false;
	}
	unit = *s != '\0' ? strchr(units, *s) : NULL;
	if (unit != NULL) {
		unsigned shift = 10 * (unsigned)(unit - units + 1);

		if (value > (uint64_t)INT64_MAX >> shift)
			return false;
		value <<= shift;
		s++;
	}
	*text = s;
	*ret = value;
	return value <= INT64_MAX;
}

static bool options_read_range(
	const char *text, uint64_t min, uint64_t max, struct options_range *ret)
{
	struct options_range range;

	if (!options_read_number(&text, &range.min))
		return false;
	range.max = range.min;
	if (*text == '-') {
		text++;
		if (!options_read_number(&text, &range.max))
			return false;
	}
	if (*text != '\0' || range.min < min || range.max > max || range.min > range.max)
		return false;
	*ret = range;
	return true;
}

/* The index of a word in a NULL-terminated list. */
static bool options_read_word(const char *text, const char *const *words, uint64_t *ret)
{
	for (unsigned i = 0; words[i] != NULL; i++) {
		if (strcmp(text, words[i]) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static void options_store(void *member, size_t bytes, uint64_t value)
{
	switch (bytes) {
	case 1:
		*(uint8_t *)member = (uint8_t)value;
		return;
	case 2:
		*(uint16_t *)member = (uint16_t)value;
		return;
	case 4:
		*(uint32_t *)member = (uint32_t)value;
		return;
	default:
		assert(bytes == 8);
		*(uint64_t *)member = value;
	}
}

static bool options_set(struct options *o, const struct option_row *row, const char *value)
{
	void *member = (char *)o + row->offset;
	struct options_range range;
	uint64_t n = 0;

	switch (row->type) {
	case TYPE_TEXT:
		*(const char **)member = value;
		return *value != '\0' && strlen(value) <= row->max;
	case TYPE_SWITCH:
		*(bool *)member = true;
		return true;
	case TYPE_NUMBER:
		if (strchr(value, '-') != NULL ||
			!options_read_range(value, row->min, row->max, &range))
			return false;
		options_store(member, row->bytes, range.min);
		return true;
	case TYPE_RANGE:
		return options_read_range(value, row->min, row->max, member);
	case TYPE_WORD:
		if (!options_read_word(value, row->words, &n))
			return false;
		if (row->words == version_words)
			n = versions[n];
		options_store(member, row->bytes, n);
		return true;
	}
	return false;
}

/* What the table can't say of a value. */
static bool options_is_sound(const struct options *o)
{
	if (strpbrk(o->client_prefix, "/+#") != NULL) {
		fputs("sluice-bench: --client-prefix: may not have any of / + #\n", stderr);
		return false;
	}
	if (o->topic != NULL && strpbrk(o->topic, "+#") != NULL) {
		fputs("sluice-bench: --topic: may not have any of + #\n", stderr);
		return false;
	}
	if (o->command == OPTIONS_PUBLISH && o->size.min == 0) {
		fputs("sluice-bench: --size: an empty file is no message\n", stderr);
		return false;
	}
	return true;
}

static void options_usage(enum options_command command, const char *name)
{
	printf("usage: sluice-bench %s [options]\n", name);
	for (unsigned i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &option_table[i];
		char left[64];

		if ((row->commands & command) == 0)
			continue;
		snprintf(left, sizeof(left), "--%s %s", row->name,
			row->value != NULL ? row->value : "");
		printf("  %-22s %s\n", left, row->help);
	}
}

/* A seed that two runs started by hand won't share. */
static uint64_t options_clock_seed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return rng_hash((uint64_t)now.tv_sec, (uint64_t)now.tv_nsec) >> 32;
}

static struct options options_defaults(enum options_command command)
{
	return (struct options){
		.command = command,
		.host = "127.0.0.1",
		.port = "1883",
		.connections = 4,
		.size = {16 << 20, 16 << 20},
		.segment = {256 << 10, 256 << 10},
		.window = 32,
		.mqtt_version = MQTT_V5,
		.client_prefix = "bench",
		.topic = command == OPTIONS_PUBLISH ? "sluice/bench" : NULL,
		.path = "/",
		.dir = (command & WRITERS) != 0 ? "." : NULL,
		.timeout_s = 60,
		.seed = options_clock_seed(),
		.mode = MODE_SPLICE,
		.seconds = 10,
		.keep_alive_s = 60,
		.interval_ms = 10,
	};
}

/* What getopt wants to know of this command's options; the codes are places in the table. */
static void options_fill_long(struct option *ret, enum options_command command)
{
	for (unsigned i = 0; i < OPTIONS_COUNT; i++) {
		const struct option_row *row = &option_table[i];

		if ((row->commands & command) != 0)
			*ret++ = (struct option){row->name,
				row->value != NULL ? required_argument : no_argument, NULL, (int)i};
	}
	*ret++ = (struct option){"help", no_argument, NULL, OPT_HELP};
	*ret = (struct option){0};
}

int options_parse(struct options *ret, enum options_command command, int argc, char **argv)
{
	struct options o = options_defaults(command);
	struct option known[OPTIONS_COUNT + 2];
	int code;

	options_fill_long(known, command);
	optind = 1;
	opterr = 0;
	while ((code = getopt_long(argc, argv, "", known, NULL)) != -1) {
		if (code == OPT_HELP) {
			options_usage(command, argv[0]);
			return 1;
		}
		if (code == '?') {
			fprintf(stderr,
				"sluice-bench: %s: unknown, or its value is missing\n"
				"Try: sluice-bench %s --help\n",
				argv[optind - 1], argv[0]);
			return -EINVAL;
		}
		if (!options_set(&o, &option_table[code], optarg)) {
			fprintf(stderr, "sluice-bench: --%s: \"%s\" is not allowed\n",
				option_table[code].name, optarg);
			if (strcmp(option_table[code].name, "segment") == 0)
				fprintf(stderr,
					"A segment has 1 to %d bytes: what fits into an MQTT "
					"packet.\n",
					SEGMENT_BYTES_MAX);
			return -EINVAL;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "sluice-bench: unexpected argument \"%s\"\n", argv[optind]);
		return -EINVAL;
	}
	if (!options_is_sound(&o))
		return -EINVAL;
	*ret = o;
	return 0;
}
