/*
 * The answer to one $file command: from the PUBLISH that carried it to its PUBACK or PUBREC and its response message.
 *
 * conn_mqtt.c makes a reply for each command and hands it to upload.c or ingest.c, which owns it until it calls
 * reply_finish, exactly once. Acknowledgements leave in the order in which the PUBLISHes came [MQTT-4.6.0-2], but a reply that
 * was detached (a synchronous fin, which may take long) does not hold up those behind it.
 *
 * When the connection ends first, conn becomes NULL: the command goes on, only its response message is sent.
 * A reply belongs to the connection it came on; no other one ever gets its acknowledgement.
 */
#ifndef SLUICE_REPLY_H
#define SLUICE_REPLY_H

#include <stdbool.h>
#include <stdint.h>
#include "cover.h"
#include "answer.h"

struct conn;
struct reactor;

/* How a command ended. Copied by reply_finish. */
struct outcome {
	uint8_t reason;           /* 0 or the v5 reason code */
	const char *text;         /* reason_description: a static string; "success" when reason is 0 */
	/* Of a failure: may pass by itself (no space, quota, I/O error). A v3 connection is then closed without the
	 * acknowledgement (PROTOCOL: "never told a lie"). */
	bool is_transient;
	bool has_missing;
	bool truncated;           /* more ranges than listed */
	uint64_t missing_bytes;
	uint32_t missing_count;
	struct extent missing[ANSWER_MISSING_MAX];
	bool has_digests;
	uint8_t expected[32], actual[32];
	bool has_status;          /* the rest: answer to `status` */
	const char *state;
	bool status_has_size;
	uint64_t status_size, received, frontier;
};

struct reply {
	struct reply *next, **pprev; /* the connection's list, in order of arrival */
	struct reactor *reactor;
	struct conn *conn;           /* NULL: the connection has ended */
	uint16_t packet_id;
	uint8_t qos;
	uint8_t version;
	bool is_async;               /* $file-async */
	bool dup;                    /* the PUBLISH had DUP set */
	bool is_ready;               /* result known, waits for its turn */
	bool is_detached;
	bool acked;                  /* ($file-async fin) the acknowledgement has been sent already */
	char *clientid, *topic, *response_topic; /* owned; response_topic NULL: $file-response/<clientid> */
	uint32_t clientid_bytes, topic_bytes, response_topic_bytes;
	uint8_t *correlation;        /* owned or NULL */
	uint32_t correlation_bytes;
	struct outcome *outcome;     /* owned; NULL: success, while it waits for its turn */
};

/* Ends the command: acknowledges it (in turn), sends the response message, and frees rp when all is done. o NULL: success. */
void reply_finish(struct reply *rp, const struct outcome *o);
/* The command never happened (its connection ended inside the payload): no acknowledgement, no message; frees rp. */
void reply_discard(struct reply *rp);
/* Lets later replies of the connection overtake this one. */
void reply_detach(struct reply *rp);
/* $file-async fin: acknowledges now with 0x00; the response message follows at reply_finish. */
void reply_ack_now(struct reply *rp);

/* Shorthand: a failure with this reason and text. */
void reply_fail(struct reply *rp, uint8_t reason, const char *text, bool is_transient);

#endif
