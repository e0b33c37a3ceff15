/*
 * What broker.c, session.c and session_out.c share, and nobody else sees.
 *
 * One copy of a message on its way to one session is a `struct delivery`. It is on exactly one
 * list:
 *
 *     session_deliver ──► queue[qos] ──session_pump──► inflight ──session_puback──► gone
 *                              ▲          │ QoS 0: gone    │
 *                              └── session_out_disconnect ─┘ (to the front, with dup set)
 *
 * or, when its session or, with QoS 0, its connection has ended, on broker.dropped, until
 * broker_sweep frees it.
 *
 * In queue[1] those that were sent before (packet_id ≠ 0) come first. `inflight` holds exactly what
 * was sent on the present connection and is not acknowledged, so its count is what Receive Maximum
 * bounds.
 */
#ifndef SLUICE_BROKER_IMPL_H
#define SLUICE_BROKER_IMPL_H

#include "broker.h"

enum {
	/* While more than this waits in a connection's output, messages wait in the session's
	 * queue. */
	BROKER_UNSENT_MAX = 256 * 1024,
	/* of SUBSCRIBE's options */
	SUB_QOS = 0x03, SUB_NO_LOCAL = 0x04, SUB_RETAIN_AS_PUBLISHED = 0x08,
};

/* Sums over all reactors: limits that belong to the daemon, and "can anyone at all want this?". */
struct broker_sums {
	_Atomic uint64_t sessions;
	/* Memory of messages, and of deliveries, queued or in flight. A message counts once,
	 * however many sessions it waits for, so this is what it costs. */
	_Atomic uint64_t held_bytes;
	_Atomic uint64_t filters[2]; /* [1]: those that begin with "$" */
};
extern struct broker_sums broker_sums;

struct delivery;

struct delivery_list {
	struct delivery *first, *last;
	uint32_t count;
	uint64_t bytes;
};

struct broker {
	const struct conf *conf;
	struct broker_ops ops;
	struct session **buckets;
	uint32_t buckets_count;      /* a power of two */
	uint64_t hash_seed;
	uint64_t session_id_next;
	struct trie trie;
	uint64_t filters[2];         /* as in broker_sums, of this reactor */
	/* While a message is matched: the sessions that get it. */
	struct message *matching;
	struct session *matched_first, **matched_end;
	uint64_t matches;
	struct delivery_list dropped; /* of sessions and connections that have ended: broker_sweep frees them */
	uint8_t *head;               /* a PUBLISH up to its payload is encoded here */
	size_t head_max;
	struct broker_stats stats;   /* but `subscriptions`, which is the trie's count */
};

/* How one session gets a message. */
struct copy {
	uint8_t qos;
	bool retain, dup;
	uint8_t subids_count;
	uint16_t packet_id;          /* 0: not sent yet */
};

struct delivery {
	struct delivery *next;
	struct message *m;
	uint64_t seq;                /* order in which a session got its messages */
	struct copy copy;
	uint32_t subids[];           /* copy.subids_count */
};

struct filter {
	struct filter *next;
	uint32_t bytes;
	char text[];
};

struct session_out {
	struct delivery_list queue[2]; /* by QoS */
	struct delivery_list inflight;
	uint64_t seq_next;
	uint64_t expires_ms_min;     /* nothing in the queues expires earlier */
	struct idset ids;            /* of inflight and of the front of queue[1] */
	struct filter *filters;
	uint32_t filters_count;
	/* While a message is matched: on broker.matched_first, and what its matching subscriptions
	 * sum up to. */
	bool is_matched;
	struct copy match;
	struct session *matched_next;
	uint32_t match_subids[MQTT_SUBIDS_MAX];
};

/* NULL when out of memory. */
struct session_out *session_out_new(void);
/* Everything that waits is dropped, and freed by and by. The filters must be gone. NULL is fine. */
void session_out_free(struct broker *b, struct session_out *o);
/* The connection is gone: what was in flight will be sent again, QoS 0 is forgotten. */
void session_out_disconnect(struct session *s);
/* Sends a copy of m or queues it, if the limits allow. s->out must be there. */
void session_deliver(struct session *s, struct message *m, const struct copy *copy,
	const uint32_t *subids);

/* Ends the session: subscriptions, queue, memory. The will, if any, is dropped. */
void session_free(struct session *s);

static inline uint64_t broker_now_ms(struct broker *b)
{
	return b->ops.now_ms(b);
}

/* A message expires when more time has passed than its interval, so one with interval 0 still
 * reaches those who are there now. */
static inline bool message_is_expired(const struct message *m, uint64_t now_ms)
{
	return now_ms > m->expires_ms;
}

static inline bool topic_is_dollar(const char *topic, uint32_t topic_bytes)
{
	return topic_bytes > 0 && topic[0] == '$';
}

#endif
