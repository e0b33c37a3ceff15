/*
 * One table says for every option its letter, its commands, its help and how its value is read;
 * getopt's arrays and the help text are made from it.
 */
#include "options.h"

#include <cJSON.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "mqtt.h"
#include "utf8.h"

enum { ID_BYTES_MAX = 1024, SEGMENT_MAX = 256 << 20, WINDOW_MAX = 1024 };

enum { ALL = OPTIONS_SEND | OPTIONS_STATUS | OPTIONS_ABORT, SEND = OPTIONS_SEND };

struct option_def {
	int letter;            /* > 255: it has none */
	const char *name;
	const char *value;     /* what its value is called, NULL: it has none */
	int commands;
	const char *help;
};

enum {
	O_HELP = 256, O_FILE_ID, O_SEGMENT_SIZE, O_WINDOW, O_NO_CHECKSUM, O_SEGMENT_CHECKSUM,
	O_ASYNC, O_MQTT, O_NAME, O_USER_DATA, O_TTL, O_USERNAME, O_PASSWORD, O_TIMEOUT, O_RETRY_MAX,
};

static const struct option_def defs[] = {
	{'h', "host", "HOST", ALL, "the server (localhost)"},
	{'p', "port", "PORT", ALL, "its port (1883)"},
	{'i', "client-id", "ID", ALL, "the MQTT client id (sluice-<user>-<host>)"},
	{O_USERNAME, "username", "NAME", ALL, "the user name"},
	{O_PASSWORD, "password", "WORD", ALL, "the password; better in $SLUICE_PASSWORD"},
	{O_MQTT, "mqtt", "5|3.1.1", ALL, "the version of MQTT (5)"},
	{O_FILE_ID, "file-id", "ID", ALL, "the file id, for one file (from path, size and mtime)"},
	{O_NAME, "name", "NAME", ALL, "the name on the server, for one file (that of the file)"},
	{O_SEGMENT_SIZE, "segment-size", "SIZE", SEND, "bytes per segment (256KiB)"},
	{O_WINDOW, "window", "N", SEND, "segments under way at once (32)"},
	{O_NO_CHECKSUM, "no-checksum", NULL, SEND, "don't send the file's SHA-256 with fin"},
	{O_SEGMENT_CHECKSUM, "segment-checksum", NULL, SEND, "send the SHA-256 of each segment"},
	{O_ASYNC, "async", NULL, SEND, "finish by $file-async"},
	{O_USER_DATA, "user-data", "JSON", SEND, "a value for the server to keep with the file"},
	{O_TTL, "ttl", "TIME", SEND, "how long the server keeps an incomplete file"},
	{O_TIMEOUT, "timeout", "TIME", ALL, "without a sign of life the connection is lost (60s)"},
	{O_RETRY_MAX, "retry-max-time", "TIME", ALL, "without progress, give up (5m; 0: never)"},
	{'q', "quiet", NULL, ALL, "errors only"},
	{O_HELP, "help", NULL, ALL, "this text"},
};

enum { DEFS_COUNT = sizeof(defs) / sizeof(defs[0]) };

static const char *command_text(enum options_command command, const char **ret_args)
{
	switch (command) {
	case OPTIONS_SEND:
		*ret_args = "FILE… (\"-\" is standard input)";
		return "send";
	case OPTIONS_STATUS:
		*ret_args = "[FILE…]";
		return "status";
	case OPTIONS_ABORT:
		break;
	}
	*ret_args = "[FILE…]";
	return "abort";
}

static void show_help(enum options_command command)
{
	const char *args;
	const char *name = command_text(command, &args);

	printf("usage: sluice %s [OPTION…] %s\n\n", name, args);
	for (int i = 0; i < DEFS_COUNT; i++) {
		const struct option_def *d = &defs[i];
		char left[64];
		if (!(d->commands & (int)command)) {
			continue;
		}
		if (d->letter < 256) {
			snprintf(left, sizeof(left), "-%c, --%s%s%s", d->letter, d->name,
				d->value ? " " : "", d->value ? d->value : "");
		} else {
			snprintf(left, sizeof(left), "    --%s%s%s", d->name, d->value ? " " : "",
				d->value ? d->value : "");
		}
		printf("  %-26s %s\n", left, d->help);
	}
}

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {{"", 1}, {"B", 1}, {"K", 1 << 10}, {"KiB", 1 << 10},
	{"M", 1 << 20}, {"MiB", 1 << 20}, {"G", 1 << 30}, {"GiB", 1 << 30}, {NULL, 0}};
static const struct unit duration_units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000},
	{"h", 3600000}, {"d", 86400000}, {NULL, 0}};

/* A number and one of the units, at most `max` when multiplied. 0 or −EINVAL. */
static int parse_with_unit(const char *text, const struct unit *units, uint64_t max, uint64_t *ret)
{
	char *end;

	if (text[0] < '0' || text[0] > '9') {
		return -EINVAL;
	}
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	for (const struct unit *u = units; errno == 0 && u->name; u++) {
		if (strcmp(end, u->name) == 0 && n <= max / u->factor) {
			*ret = n * u->factor;
			return 0;
		}
	}
	return -EINVAL;
}

/* "256KiB", "1MiB", "4096", … → bytes. 0 or −EINVAL. */
static int parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_with_unit(text, size_units, UINT64_MAX, ret_bytes);
}

/* "90", "90s", "5m", "2h", "1d" → milliseconds. 0 or −EINVAL. */
static int parse_duration(const char *text, uint64_t *ret_ms)
{
	return parse_with_unit(text, duration_units, INT64_MAX, ret_ms);
}

static bool json_ok(const char *text)
{
	cJSON *json = cJSON_ParseWithOpts(text, NULL, 1);

	cJSON_Delete(json);
	return json != NULL;
}

/* What may stand in a topic, as one level of it or, for a client id, as a whole of levels. */
static bool id_ok(const char *id, bool may_have_slash)
{
	size_t n = strlen(id);

	return n > 0 && n <= ID_BYTES_MAX && utf8_mqtt_ok(id, n) && !strpbrk(id, "+#") &&
	       (may_have_slash || !strchr(id, '/'));
}

static bool get_count(const char *text, uint64_t min, uint64_t max, uint32_t *ret)
{
	uint64_t n;

	if (parse_size(text, &n) < 0 || n < min || n > max) {
		return false;
	}
	*ret = (uint32_t)n;
	return true;
}

static bool get_version(const char *text, uint8_t *ret)
{
	if (!strcmp(text, "5") || !strcmp(text, "5.0")) {
		*ret = MQTT_V5;
		return true;
	}
	*ret = MQTT_V311;
	return !strcmp(text, "3.1.1") || !strcmp(text, "3");
}

/* False when the value is not acceptable. */
static bool set_option(struct options *o, int letter, const char *value)
{
	uint64_t ms;

	switch (letter) {
	case 'h':
		o->host = value;
		return value[0] != 0;
	case 'p':
		o->port = value;
		return value[0] != 0;
	case 'i':
		o->client_id = value;
		return id_ok(value, true);
	case 'q':
		o->quiet = true;
		return true;
	case O_USERNAME:
		o->username = value;
		return utf8_mqtt_ok(value, strlen(value)) && strlen(value) <= ID_BYTES_MAX;
	case O_PASSWORD:
		o->password = value;
		return strlen(value) <= UINT16_MAX;
	case O_MQTT:
		return get_version(value, &o->mqtt_version);
	case O_FILE_ID:
		o->file_id = value;
		return id_ok(value, false);
	case O_NAME:
		o->name = value;
		return true;
	case O_SEGMENT_SIZE:
		/* The packet's head must fit beside it: MQTT's packets end at 256 MiB. */
		return get_count(value, 1, SEGMENT_MAX - 4096, &o->segment_bytes);
	case O_WINDOW:
		return get_count(value, 1, WINDOW_MAX, &o->window);
	case O_NO_CHECKSUM:
		o->no_checksum = true;
		return true;
	case O_SEGMENT_CHECKSUM:
		o->segment_checksum = true;
		return true;
	case O_ASYNC:
		o->is_async = true;
		return true;
	case O_USER_DATA:
		o->user_data = value;
		return json_ok(value);
	case O_TTL:
		if (parse_duration(value, &ms) < 0 || ms < 1000) {
			return false;
		}
		o->ttl_s = ms / 1000;
		return true;
	case O_TIMEOUT:
		return parse_duration(value, &o->timeout_ms) == 0 && o->timeout_ms > 0;
	default:
		return parse_duration(value, &o->retry_max_ms) == 0;
	}
}

static int check(const struct options *o, enum options_command command)
{
	const char *problem = NULL;
	int pipes = 0;

	for (int i = 0; i < o->args_count; i++) {
		pipes += strcmp(o->args[i], "-") == 0;
	}
	if (command == OPTIONS_SEND && o->args_count == 0) {
		problem = "which file? (\"-\" is standard input)";
	} else if (command != OPTIONS_SEND && (o->args_count == 0) != (o->file_id != NULL)) {
		problem = "give either --file-id or the files";
	} else if (command != OPTIONS_SEND && pipes > 0) {
		problem = "a pipe has no file id of its own; give --file-id";
	} else if (o->args_count > 1 && (o->file_id || o->name)) {
		problem = "--file-id and --name are for one file";
	} else if (pipes > 1) {
		problem = "standard input can be sent once only";
	} else if (o->password && !o->username) {
		problem = "a password needs a --username";
	}
	if (problem) {
		fprintf(stderr, "sluice: %s\n", problem);
		return EXIT_USAGE;
	}
	return 0;
}

static void fill_defaults(struct options *o)
{
	*o = (struct options){
		.host = "localhost",
		.port = "1883",
		.mqtt_version = MQTT_V5,
		.segment_bytes = 256 << 10,
		.window = 32,
		.timeout_ms = 60 * 1000,
		.retry_max_ms = 5 * 60 * 1000,
		.username = getenv("SLUICE_USERNAME"),
	};
}

int options_parse(struct options *o, enum options_command command, int argc, char **argv)
{
	struct option longs[DEFS_COUNT + 1] = {0};
	char shorts[2 * DEFS_COUNT + 1];
	int longs_count = 0, shorts_bytes = 0, letter, idx = 0;

	fill_defaults(o);
	for (int i = 0; i < DEFS_COUNT; i++) {
		const struct option_def *d = &defs[i];
		if (!(d->commands & (int)command)) {
			continue;
		}
		longs[longs_count++] = (struct option){d->name,
			d->value ? required_argument : no_argument, NULL, d->letter};
		if (d->letter < 256) {
			shorts[shorts_bytes++] = (char)d->letter;
			if (d->value) {
				shorts[shorts_bytes++] = ':';
			}
		}
	}
	shorts[shorts_bytes] = 0;
	/* getopt names the program in its messages. */
	argv[0] = (char *)"sluice";
	while ((letter = getopt_long(argc, argv, shorts, longs, &idx)) != -1) {
		if (letter == O_HELP) {
			show_help(command);
			return -1;
		}
		if (letter == '?') {
			return EXIT_USAGE;
		}
		if (!set_option(o, letter, optarg)) {
			const char *name = "";
			for (int i = 0; i < DEFS_COUNT; i++) {
				name = defs[i].letter == letter ? defs[i].name : name;
			}
			fprintf(stderr, "sluice: --%s can't be \"%s\"\n", name, optarg);
			return EXIT_USAGE;
		}
	}
	if (!o->password && o->username) {
		o->password = getenv("SLUICE_PASSWORD");
	}
	o->args = argv + optind;
	o->args_count = argc - optind;
	return check(o, command);
}

struct session_conf options_session_conf(const struct options *o)
{
	return (struct session_conf){
		.host = o->host,
		.port = o->port,
		.clientid = o->client_id,
		.username = o->username,
		.password = o->password,
		.version = o->mqtt_version,
		.timeout_ms = o->timeout_ms,
		.retry_max_ms = o->retry_max_ms,
	};
}
