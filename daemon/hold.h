/*
 * Who of the MQTT 3.1.1 clients is held, and for how long: they can't be told that a command
 * failed, only not be told that it succeeded.
 *
 * A transient failure (no space, quota, I/O error) is withheld: the connection is silent for a
 * while and then closed, so that the client sends the command again. The time doubles with each
 * failure of the client id. An error that has come three times in a row counts as permanent, and
 * is acknowledged. A row ends when the command that failed succeeds, or after FORGET_MS.
 *
 * The table is small and bounded: when its place is taken by others, a client begins anew.
 */
#ifndef SLUICE_HOLD_H
#define SLUICE_HOLD_H

#include <stdbool.h>
#include <stdint.h>

struct hold;

struct hold_key {
	const char *clientid, *topic; /* topic: of the command */
	uint32_t clientid_bytes, topic_bytes;
};

struct hold *hold_new(void); /* NULL: out of memory */
void hold_free(struct hold *h);
/* Would hold_fail withhold this? text: what failed, a static string. */
bool hold_would(const struct hold *h, const struct hold_key *k, const char *text, uint64_t now_ms);
/* A command failed. True: withhold its acknowledgement for *ret_delay_ms, then close. False:
 * acknowledge it. */
bool hold_fail(struct hold *h, const struct hold_key *k, const char *text, uint64_t now_ms,
	uint64_t *ret_delay_ms);
/* A command succeeded. */
void hold_succeed(struct hold *h, const struct hold_key *k);

#endif
