/*
 * The command line of every command: one table of options, one struct.
 */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include "session.h"

enum { EXIT_OK = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_NO_CONNECTION = 3 };

struct options {
	const char *host, *port, *client_id, *username, *password;
	const char *file_id, *name, *user_data;
	uint8_t mqtt_version;
	uint32_t segment_bytes;
	uint32_t window;            /* segments unacknowledged at once */
	uint64_t ttl_s;             /* 0: not given */
	uint64_t timeout_ms, retry_max_ms;
	bool no_checksum, segment_checksum, is_async, quiet;
	char **args;                /* what is left: borrowed from argv */
	int args_count;
};

enum options_command { OPTIONS_SEND = 1, OPTIONS_STATUS = 2, OPTIONS_ABORT = 4 };

/* Fills o with defaults, the environment and argv. 0; EXIT_USAGE after saying why on stderr; −1
 * when --help was given and answered. */
int options_parse(struct options *o, enum options_command command, int argc, char **argv);

/* What the session needs of it; borrows from o. */
struct session_conf options_session_conf(const struct options *o);

#endif
