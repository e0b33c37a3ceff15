/*
 * Ordinary publish and subscribe: messages, sessions, and how a message finds its subscribers.
 *
 * Each reactor has one broker: the sessions of the client ids that hash to it, and a trie of their
 * subscriptions. A message published on one reactor is matched there and handed (a counted
 * reference) to every other reactor that has subscriptions at all, and matched there: nothing but
 * messages is shared.
 *
 * A session lives from CONNECT to its expiry. It has at most one connection. What can't be sent now
 * waits in its queue, bounded by messages and bytes: QoS 0 is dropped first, then the newest QoS 1
 * message is refused. An empty queue takes one message of any size. QoS 0 doesn't wait for a
 * session without a connection.
 *
 * Order: what one publisher sends to one topic with one QoS arrives in that order [MQTT-4.6.0-5].
 * QoS 0 may overtake QoS 1 that waits for acknowledgements, since nothing else holds it back.
 *
 * One session gets a message once, however many of its filters match: with the highest QoS and
 * every subscription identifier of them [MQTT-3.3.4-2, -4]. The one exception: more than
 * MQTT_SUBIDS_MAX identifiers make further copies, as 3.3.4 allows.
 *
 * Everything here runs on the reactor's thread, but for messages' counts. Files: message.c;
 * broker.c (matching); session.c (sessions and subscriptions); session_out.c (queue, window,
 * sending).
 *
 * Not here (the broker's own issue): retained messages, outbound QoS 2, shared subscriptions,
 * sessions that survive a restart. The shapes have room for them.
 */
#ifndef SLUICE_BROKER_H
#define SLUICE_BROKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "conf.h"
#include "mqtt.h"
#include "timers.h"
#include "trie.h"
#include "window.h"

struct conn;
struct broker;

/* A message on its way: immutable once made, shared between reactors by count. */
struct message {
	_Atomic uint32_t refs;
	uint8_t qos;             /* as published */
	bool retain;
	uint64_t publisher;      /* session id, for No Local; 0: the daemon */
	uint64_t expires_ms;     /* monotonic; UINT64_MAX: never */
	struct mqtt_str topic;   /* these point into data */
	struct mqtt_str payload;
	/* v5 properties that are forwarded unaltered: payload format, content type, response topic,
	 * correlation data, user properties; and the message expiry as it was published. props.has
	 * has only these; strings point into data. */
	struct mqtt_props props;
	uint64_t bytes;          /* memory it takes */
	char data[];
};

/* Copies everything. publish->topic is the real name (aliases resolved); of publish->props only
 * what is forwarded counts. payload has publish->payload_bytes. refs is 1. NULL: out of memory. */
struct message *message_new(const struct mqtt_publish *publish, const void *payload,
	uint64_t publisher, uint64_t now_ms);
void message_ref(struct message *m);
void message_unref(struct message *m); /* NULL is fine; any thread */

struct session {
	struct broker *broker;
	struct session *hash_next;
	uint64_t id;              /* unique in the daemon, never 0; clean start keeps it */
	char *clientid;           /* lies behind the struct */
	uint32_t clientid_bytes;
	uint32_t hash;            /* of the client id */
	struct conn *conn;        /* NULL: not connected */
	/* Set by the edge, clamped by mqtt.session_expiry_max. UINT32_MAX: never. */
	uint32_t expiry_s;
	uint8_t version;          /* of this connection; set by the edge, as the next two are */
	bool live;                /* session_resume was called: PUBLISH may be sent */
	uint16_t client_receive_max; /* after session_attach: 65535 */
	uint32_t client_packet_max;  /* largest it takes; after session_attach: UINT32_MAX */
	uint32_t will_delay_s;
	/* the will of this connection, not shared with anyone; NULL: none. session_detach(…, true)
	 * publishes it after will_delay_s, or drops it; the session owns the reference. */
	struct message *will;
	struct timer timer;       /* armed while not connected: the will's delay or the expiry */
	uint64_t detached_ms;     /* valid while not connected */
	struct idset received;    /* QoS 2 received, not yet released (conn_mqtt.c uses it) */
	struct session_out *out;  /* queue, window, subscriptions; NULL: never subscribed */
};

/* What the broker needs of its surroundings; given once at broker_new. None of these may call back
 * into the broker: a connection that finds itself dead in `send` calls session_detach later. */
struct broker_ops {
	/* Appends bytes to the connection's output (copied). The two spans are sent back to back.
	 * False: the connection is closing or out of memory; then nothing of it was sent. */
	bool (*send)(struct conn *c, const void *head, uint32_t head_bytes, const void *body,
		uint32_t body_bytes);
	/* Bytes waiting to be sent on the connection. The broker keeps a message in the queue while
	 * it is over 256 KiB. When that may have changed, the connection calls session_pump. */
	uint32_t (*unsent_bytes)(struct conn *c);
	/* Hands m (with a reference of its own) to the other reactors' broker_deliver. */
	void (*forward)(struct broker *b, struct message *m);
	/* The clock of the reactor. */
	uint64_t (*now_ms)(struct broker *b);
	struct timers *timers;
	void *arg;                /* the surroundings' own; broker_arg */
};

/* reactor_idx < 65536. conf must outlive the broker, ops are copied. 0 or −ENOMEM. */
int broker_new(const struct conf *conf, uint32_t reactor_idx, const struct broker_ops *ops,
	struct broker **ret);
void broker_free(struct broker *b); /* and all sessions; no will is published. NULL is fine */
void *broker_arg(struct broker *b);
/* Frees some of what was dropped with sessions and connections that ended: thousands of messages in one go would keep
 * everybody waiting. To be called each turn. Returns whether something is left of it. */
bool broker_sweep(struct broker *b);

/* Matches m here and forwards it. Takes no reference. True when at least one subscriber is known
 * here, or another reactor has any subscription (so "no matching subscribers" is only said when it
 * is certain). */
bool broker_publish(struct broker *b, struct message *m);
/* The other half: matches here only. */
void broker_deliver(struct broker *b, struct message *m);
/* May any subscription anywhere match a topic that begins with "$"? A cheap filter (one atomic
 * counter over all reactors of filters that begin with "$"), so that response messages nobody asked
 * for are never built. */
bool broker_wants_dollar(void);

/* CONNECT: finds or makes the session. clean_start drops an old one's state. *ret_present as
 * CONNACK says it; *ret_old_conn the connection it was taken from (NULL: none), already unlinked
 * from the session: the caller closes it with 0x8E and does not call session_detach for it. The old
 * connection's will: published when its session ends now (clean start, or its expiry_s is 0) or the
 * will has no delay, else dropped, since the session is continued within the delay [MQTT-3.1.3-9,
 * 3.1.4-3]. 0, −ENOMEM, or −ENOSPC (mqtt.sessions_max). The caller then sets version, expiry_s,
 * will and limits; until session_resume nothing is sent. expiry_s of a session that is new is 0. */
int session_attach(struct broker *b, struct conn *c, const char *clientid, uint32_t clientid_bytes,
	bool clean_start, struct session **ret, bool *ret_present, struct conn **ret_old_conn);
/* Called after CONNACK was sent: sends again what was in flight (DUP), then the queue. */
void session_resume(struct session *s);
/* The connection is gone. with_will: publish the will, after its delay or when the session ends,
 * whichever comes first; else it is dropped. The session ends now when expiry_s is 0, else later; s
 * must not be used afterwards. */
void session_detach(struct session *s, bool with_will);
struct session *session_find(struct broker *b, const char *clientid, uint32_t clientid_bytes);

/* A validated, authorised filter; one that is there already is replaced. Returns the granted QoS
 * (0–1) or a v5 reason code ≥ 0x80 (0x9E shared, 0x97 too many, 0x80 out of memory). */
uint8_t session_subscribe(struct session *s, struct mqtt_str filter, uint8_t options,
	uint32_t identifier);
/* 0x00 or 0x11. */
uint8_t session_unsubscribe(struct session *s, struct mqtt_str filter);
/* PUBACK from the client (any reason). False: no such identifier in flight (harmless). */
bool session_puback(struct session *s, uint16_t packet_id);
/* Sends what the window and the output allow. */
void session_pump(struct session *s);

struct broker_stats {
	uint64_t sessions;        /* connected or not */
	uint64_t subscriptions;
	uint64_t queued_messages; /* waiting; a message waits once per session */
	uint64_t queued_bytes;
	uint64_t delivered;       /* PUBLISH packets handed to connections, repeated ones too */
	uint64_t dropped;         /* no room, expired, or larger than the client takes */
};
/* Of this reactor, on its thread. */
void broker_stats(const struct broker *b, struct broker_stats *ret);

#endif
