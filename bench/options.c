/*
 * One table says which options there are and how each value is read; everything that depends on
 * more than one option is checked at the end.
 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
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
	/* What a PUBLISH needs beside its payload: topic with checksum, packet id, properties. */
	PUBLISH_OVERHEAD_MAX = 512,
	SEGMENT_BYTES_MAX = MQTT_REMAINING_MAX - PUBLISH_OVERHEAD_MAX,
};

static const char usage_text[] =
	"usage: sluice-bench ingest [options]\n"
	"  --host HOST            where the daemon listens (127.0.0.1)\n"
	"  --port PORT            (1883)\n"
	"  --connections N        MQTT connections (4)\n"
	"  --files N              files, over all connections (one per connection)\n"
	"  --size SIZE|MIN-MAX    bytes of a file: 4096, 64K, 1M-1G (16M)\n"
	"  --segment SIZE|MIN-MAX bytes of a segment (256K)\n"
	"  --window N             unacknowledged commands per connection (32)\n"
	"  --checksum WHAT        none, fin or segment (none)\n"
	"  --mqtt VERSION         5 or 3.1.1 (5)\n"
	"  --order ORDER          in, reverse or random (in)\n"
	"  --duplicate PERCENT    of the segments are sent twice (0)\n"
	"  --seed N               repeats an earlier run (chosen by the clock)\n"
	"  --dir PATH             sends the files found there\n"
	"  --verify-dir PATH      compares the exported files with what was sent\n"
	"  --spread               a source address in 127.0.0.0/8 for each connection\n"
	"  --client-prefix TEXT   client ids are TEXT-0, TEXT-1, ... (bench)\n"
	"  --pid PID              measures the daemon's processor time and memory\n"
	"  --timeout SECONDS      without any answer, after which a connection fails (60)\n"
	"  --json                 the result as JSON\n";

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

static bool options_read_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret)
{
	struct options_range range;

	if (strchr(text, '-') != NULL || !options_read_range(text, min, max, &range))
		return false;
	*ret = range.min;
	return true;
}

/* The index of a word in a NULL-terminated list. */
static bool options_read_word(const char *text, const char *const *words, unsigned *ret)
{
	for (unsigned i = 0; words[i] != NULL; i++) {
		if (strcmp(text, words[i]) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

enum option_code {
	OPT_HOST = 256,
	OPT_PORT,
	OPT_CONNECTIONS,
	OPT_FILES,
	OPT_SIZE,
	OPT_SEGMENT,
	OPT_WINDOW,
	OPT_CHECKSUM,
	OPT_MQTT,
	OPT_ORDER,
	OPT_DUPLICATE,
	OPT_SEED,
	OPT_DIR,
	OPT_VERIFY_DIR,
	OPT_SPREAD,
	OPT_CLIENT_PREFIX,
	OPT_PID,
	OPT_TIMEOUT,
	OPT_JSON,
	OPT_HELP,
};

static const struct option option_table[] = {
	{"host", required_argument, NULL, OPT_HOST},
	{"port", required_argument, NULL, OPT_PORT},
	{"connections", required_argument, NULL, OPT_CONNECTIONS},
	{"files", required_argument, NULL, OPT_FILES},
	{"size", required_argument, NULL, OPT_SIZE},
	{"segment", required_argument, NULL, OPT_SEGMENT},
	{"window", required_argument, NULL, OPT_WINDOW},
	{"checksum", required_argument, NULL, OPT_CHECKSUM},
	{"mqtt", required_argument, NULL, OPT_MQTT},
	{"order", required_argument, NULL, OPT_ORDER},
	{"duplicate", required_argument, NULL, OPT_DUPLICATE},
	{"seed", required_argument, NULL, OPT_SEED},
	{"dir", required_argument, NULL, OPT_DIR},
	{"verify-dir", required_argument, NULL, OPT_VERIFY_DIR},
	{"spread", no_argument, NULL, OPT_SPREAD},
	{"client-prefix", required_argument, NULL, OPT_CLIENT_PREFIX},
	{"pid", required_argument, NULL, OPT_PID},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, OPT_HELP},
	{NULL, 0, NULL, 0},
};

/* The options whose value is one of a few words. */
static bool options_set_word(struct options *o, int code, const char *value)
{
	static const char *const checksums[] = {"none", "fin", "segment", NULL};
	static const char *const orders[] = {"in", "reverse", "random", NULL};
	static const char *const versions[] = {"5", "3.1.1", NULL};
	unsigned word = 0;

	switch (code) {
	case OPT_CHECKSUM:
		if (!options_read_word(value, checksums, &word))
			return false;
		o->checksum = (enum options_checksum)word;
		return true;
	case OPT_ORDER:
		if (!options_read_word(value, orders, &word))
			return false;
		o->order = (enum plan_order)word;
		return true;
	default:
		if (!options_read_word(value, versions, &word))
			return false;
		o->mqtt_version = word == 0 ? MQTT_V5 : MQTT_V311;
		return true;
	}
}

/* The options whose value is a whole number. */
static bool options_set_number(struct options *o, int code, const char *value)
{
	uint64_t n = 0;

	switch (code) {
	case OPT_CONNECTIONS:
		if (!options_read_uint(value, 1, CONNECTIONS_MAX, &n))
			return false;
		o->connections = (uint32_t)n;
		return true;
	case OPT_FILES:
		if (!options_read_uint(value, 1, FILES_MAX, &n))
			return false;
		o->files = (uint32_t)n;
		return true;
	case OPT_WINDOW:
		if (!options_read_uint(value, 1, UINT16_MAX, &n))
			return false;
		o->window = (uint16_t)n;
		return true;
	case OPT_DUPLICATE:
		if (!options_read_uint(value, 0, 100, &n))
			return false;
		o->duplicate_percent = (unsigned)n;
		return true;
	case OPT_PID:
		if (!options_read_uint(value, 1, INT32_MAX, &n))
			return false;
		o->daemon_pid = (pid_t)n;
		return true;
	case OPT_TIMEOUT:
		if (!options_read_uint(value, 1, 86400, &n))
			return false;
		o->timeout_s = (unsigned)n;
		return true;
	default:
		return options_read_uint(value, 0, INT64_MAX, &o->seed);
	}
}

static bool options_set(struct options *o, int code, const char *value)
{
	switch (code) {
	case OPT_HOST:
		o->host = value;
		return *value != '\0';
	case OPT_PORT:
		o->port = value;
		return *value != '\0';
	case OPT_DIR:
		o->dir = value;
		return *value != '\0';
	case OPT_VERIFY_DIR:
		o->verify_dir = value;
		return *value != '\0';
	case OPT_CLIENT_PREFIX:
		o->client_prefix = value;
		return *value != '\0' && strlen(value) <= CLIENT_PREFIX_BYTES_MAX &&
		       strpbrk(value, "/+#") == NULL;
	case OPT_SPREAD:
		o->spread = true;
		return true;
	case OPT_JSON:
		o->json = true;
		return true;
	case OPT_SIZE:
		return options_read_range(value, 0, INT64_MAX, &o->size);
	case OPT_SEGMENT:
		return options_read_range(value, 1, SEGMENT_BYTES_MAX, &o->segment);
	case OPT_CHECKSUM:
	case OPT_ORDER:
	case OPT_MQTT:
		return options_set_word(o, code, value);
	default:
		return options_set_number(o, code, value);
	}
}

/* A seed that two runs started by hand won't share. */
static uint64_t options_clock_seed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return rng_hash((uint64_t)now.tv_sec, (uint64_t)now.tv_nsec) >> 32;
}

int options_parse(struct options *ret, int argc, char **argv)
{
	struct options o = {
		.host = "127.0.0.1",
		.port = "1883",
		.connections = 4,
		.size = {16 << 20, 16 << 20},
		.segment = {256 << 10, 256 << 10},
		.window = 32,
		.mqtt_version = MQTT_V5,
		.client_prefix = "bench",
		.timeout_s = 60,
		.seed = options_clock_seed(),
	};
	int code, idx = 0;

	optind = 1;
	opterr = 0;
	while ((code = getopt_long(argc, argv, "", option_table, &idx)) != -1) {
		if (code == OPT_HELP) {
			fputs(usage_text, stdout);
			return 1;
		}
		if (code == '?') {
			fprintf(stderr,
				"sluice-bench: %s: unknown, or its value is missing\n"
				"Try: sluice-bench ingest --help\n",
				argv[optind - 1]);
			return -EINVAL;
		}
		if (!options_set(&o, code, optarg)) {
			fprintf(stderr, "sluice-bench: --%s: \"%s\" is not allowed\n",
				option_table[idx].name, optarg);
			if (code == OPT_SEGMENT)
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
	*ret = o;
	return 0;
}
