/*
 * The command line of `sluice-bench ingest`.
 */
#ifndef SLUICE_BENCH_OPTIONS_H
#define SLUICE_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "plan.h"

enum options_checksum { CHECKSUM_NONE, CHECKSUM_FIN, CHECKSUM_SEGMENT };

struct options_range {
	uint64_t min, max;
};

struct options {
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
	const char *dir;        /* NULL: made-up content */
	const char *verify_dir; /* NULL: no comparison */
	const char *client_prefix;
	bool spread;
	bool json;
	pid_t daemon_pid; /* 0: not given */
	unsigned timeout_s;
};

/* Parses argv (argv[0] is the subcommand). 0; 1 when --help was printed; −EINVAL after a message on
 * stderr. Strings borrow from argv. */
int options_parse(struct options *ret, int argc, char **argv);

#endif
