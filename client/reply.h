/*
 * What the server says on $file-response/<clientid>: the JSON of one response message, checked.
 */
#ifndef CLIENT_REPLY_H
#define CLIENT_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cover.h"
#include "filecmd.h"

enum { REPLY_MISSING_MAX = 64, REPLY_TEXT_MAX = 256 };

enum reply_state { REPLY_NONE, REPLY_OPEN, REPLY_VERIFYING, REPLY_EXPORTED };

struct reply {
	struct filecmd cmd;         /* what it answers; borrows from json */
	uint8_t reason_code;
	char description[REPLY_TEXT_MAX];
	bool has_status;            /* the rest is valid */
	enum reply_state state;
	bool has_size;
	uint64_t size;
	uint64_t received;          /* bytes */
	struct extent missing[REPLY_MISSING_MAX];
	size_t missing_count;
	bool truncated;             /* beyond the last missing range there may be more */
	void *json;                 /* owned */
};

/* 0, or −EBADMSG when it is no response message. On success the caller owns *ret: reply_fini. */
int reply_parse(const char *text, size_t text_bytes, struct reply *ret);
void reply_fini(struct reply *r); /* idempotent */

/* Which bytes the server has, as far as the status tells. With a known size (the file's, which
 * beats the server's) the answer covers [0, size); without, what lies below the end of the
 * received bytes. *ret_covered is initialised here, the caller owns it. *ret_is_partial: only
 * the beginning is known, so what was taken for covered beyond the last missing range must be
 * asked for again. 0 or −ENOMEM, −E2BIG. */
int reply_coverage(const struct reply *r, bool has_size, uint64_t size, struct cover *ret_covered,
	bool *ret_is_partial);

#endif
