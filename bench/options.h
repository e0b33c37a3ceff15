/*
 * The command line of every subcommand.
 */
#ifndef SLUICE_BENCH_OPTIONS_H
#define SLUICE_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "plan.h"

/* Bits, so that an option can say which of them take it. */
enum options_command {
	OPTIONS_INGEST = 1 << 0,
	OPTIONS_PUBLISH = 1 << 1,
	OPTIONS_PUT = 1 << 2,
	OPTIONS_FLOOR = 1 << 3,
	OPTIONS_LOOP = 1 << 4,
	OPTIONS_IDLE = 1 << 5,
	OPTIONS_PING = 1 << 6,
};

enum options_checksum { CHECKSUM_NONE, CHECKSUM_FIN, CHECKSUM_SEGMENT };

enum options_mode { MODE_DISCARD, MODE_SPLICE, MODE_POLL_SPLICE, MODE_SPLICE_SHA, MODE_SHA };

struct options_range {
	uint64_t min, max;
};

struct options {
	enum options_command command;
	const char *host, *port;
	uint32_t connections;
	uint32_t files; /* 0: not given */
	struct options_range size;
	struct options_range segment;
	uint16_t window;
	enum options_checksum checksum;
	uint8_t mqtt_version; /* MQTT_V5 or MQTT_V311 */
	enum plan_order order;
	unsigned duplicate_percent;
	uint64_t seed;
	const char *dir;        /* ingest: NULL: made-up content; floor, loop: where to write */
	const char *verify_dir; /* NULL: no comparison */
	const char *client_prefix;
	const char *topic; /* publish; NULL: file commands */
	const char *path;  /* put: what stands before a file's name; NULL: no HTTP, bytes alone */
	bool spread;
	bool json;
	bool raw;         /* put */
	bool no_dir_sync; /* loop */
	unsigned together; /* loop: files; 0: one by one */
	pid_t daemon_pid; /* 0: not given */
	unsigned timeout_s;
	enum options_mode mode; /* floor */
	unsigned lanes;         /* floor: streams that one thread hashes together; 0: the fastest number */
	unsigned threads;       /* floor: that hash; 0: one per processor */
	unsigned seconds;       /* idle, ping */
	unsigned keep_alive_s;  /* idle */
	unsigned interval_ms;   /* ping */
};

/* Parses argv (argv[0] is the subcommand). 0; 1 when --help was printed; −EINVAL after a message on
 * stderr. Strings borrow from argv. */
int options_parse(struct options *ret, enum options_command command, int argc, char **argv);

#endif
