/*
 * The log: one line per event on stderr, key=value, safe from any thread.
 *
 *   2026-11-21T05:26:18.123Z info listening addr=127.0.0.1:1883
 *
 * Values that are not plain are quoted and escaped, so a peer's bytes can't forge a line. A line is
 * one write, cut when it would be longer than a pipe takes whole. The clock comes in through
 * log_init.
 */
#ifndef SLUICE_LOG_H
#define SLUICE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "conf.h"

/* now_ms: milliseconds since the epoch; put: writes one whole line (NULL: to stderr by stdio). To
 * be called before there are threads. */
void log_init(enum conf_log_level level, int64_t (*now_ms)(void),
	void (*put)(const char *, size_t));
bool log_enabled(enum conf_log_level level);

/* event is a short fixed phrase ("transfer exported"); then pairs of key and value built by the
 * macros below, ended by NULL:
 *   log_info("transfer exported", LS("clientid", id, id_bytes), LU("size", size), NULL); */
struct log_field;
#define LS(key, s, n) "s" key, (const char *)(s), (size_t)(n) /* with length; NULL prints - */
#define LZ(key, s)    "z" key, (const char *)(s)              /* NUL-terminated */
#define LU(key, v)    "u" key, (uint64_t)(v)
#define LI(key, v)    "i" key, (int64_t)(v)
#define LE(key, e)    "e" key, (int)(e)                       /* errno (either sign) as its text */

/* What a peer may cause without end is said once a second. *last_ms: when it was last said, kept by the caller; 0:
 * never. now_ms: any clock that does not go back. */
static inline bool log_is_due(uint64_t *last_ms, uint64_t now_ms)
{
	if (*last_ms && now_ms < *last_ms + 1000)
		return false;
	*last_ms = now_ms;
	return true;
}

void log_error(const char *event, ...) __attribute__((sentinel));
void log_warn(const char *event, ...) __attribute__((sentinel));
void log_info(const char *event, ...) __attribute__((sentinel));
void log_debug(const char *event, ...) __attribute__((sentinel));

#endif
