/*
 * The answer to one $file command: from the PUBLISH that carried it to its PUBACK or PUBREC and
 * its response message.
 *
 * conn_publish.c makes a reply for each command and hands it to upload.c or ingest.c, which owns
 * it until it calls reply_finish, exactly once. Acknowledgements leave in the order in which the
 * PUBLISHes came [MQTT-4.6.0-2], but a reply that was detached (a synchronous fin, which may take
 * long) does not hold up those behind it.
 *
 * When the connection ends first, conn becomes NULL: the command goes on, only its response
 * message is sent. A reply belongs to the connection it came on; no other one ever gets its
 * acknowledgement.
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
	const char *text;         /* reason_description, static; "success" when reason is 0 */
	/* Of a failure: may pass by itself (no space, quota, I/O error). A v3 connection is then
	 * closed without the acknowledgement (PROTOCOL: "never told a lie"). */
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
	bool is_status;
	bool dup;                    /* the PUBLISH had DUP set */
	bool is_power;               /* finished when what it says survives the machine */
	bool is_ready;               /* what is to be acknowledged is known; waits for its turn */
	bool is_detached;            /* on the connection's other list, which has no order */
	bool is_finished;            /* the owner has let go; freed when it leaves the list */
	bool is_plain;               /* no command: an ordinary PUBLISH, carried out already */
	/* What the acknowledgement says; valid when is_ready. */
	uint8_t reason;
	bool has_missing;
	const char *text;            /* static */
	struct extent missing;       /* the first range, when has_missing */
	/* The strings lie behind the struct, but for topic of a plain one: NULL. */
	char *clientid, *topic;
	char *response_topic;        /* NULL: $file-response/<clientid> */
	uint32_t clientid_bytes, topic_bytes, response_topic_bytes;
	uint8_t *correlation;        /* NULL: none */
	uint32_t correlation_bytes;
	uint32_t bytes;              /* of memory; a connection may have so many outstanding */
};

/* Ends the command: acknowledges it (in turn), sends the response message, and frees rp when all
 * is done. o NULL: success. */
void reply_finish(struct reply *rp, const struct outcome *o);
/* The command never happened (its connection ended inside the payload): no acknowledgement, no
 * message; frees rp. */
void reply_discard(struct reply *rp);
/* Lets later replies of the connection overtake this one. */
void reply_detach(struct reply *rp);
/* $file-async fin: acknowledges now with 0x00; the response message follows at reply_finish.
 * Idempotent. */
void reply_ack_now(struct reply *rp);

/* --- for the connection ----------------------------------------------------------------------- */

struct mqtt_publish;

/* A command that came on c, in order of arrival. p->topic is the real name, aliases resolved. The
 * response topic is p's, unless use_default: then $file-response/<clientid>. NULL: out of
 * memory. */
struct reply *reply_new(struct conn *c, const struct mqtt_publish *p, bool use_default);
/* Acknowledges an ordinary PUBLISH, after those that came before it. 0 or −ENOMEM: then the
 * connection is failed. */
int reply_plain(struct conn *c, uint8_t qos, uint16_t packet_id, uint8_t reason);
/* Would a transient failure with this text, of a v3 client, be withheld now? */
bool reply_would_hold(const struct reply *rp, const char *text);
/* Does a PUBLISH of QoS 2 with this packet identifier wait for its PUBREC on c? */
bool reply_is_pending(const struct conn *c, uint16_t packet_id);
/* The connection ends: its replies live on without it. */
void reply_leave_all(struct conn *c);

/* Shorthand: a failure with this reason and text. */
void reply_fail(struct reply *rp, uint8_t reason, const char *text, bool is_transient);

#endif
