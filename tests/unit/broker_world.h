/*
 * Surroundings for the tests of the broker: two brokers as on two reactors, one clock, one wheel,
 * and connections that keep every PUBLISH that was sent to them, decoded.
 *
 * forward puts messages into a list, as a post to another thread would; world_settle hands them
 * over.
 */
#ifndef SLUICE_TEST_BROKER_WORLD_H
#define SLUICE_TEST_BROKER_WORLD_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker_impl.h"

enum { WORLD_BROKERS = 2, WORLD_FORWARDS_MAX = 64, GOT_HEAD_MAX = 1024, GOT_PAYLOAD_MAX = 64 };

/* A PUBLISH as a client sees it. Its strings point into head, so it must not be copied. */
struct got {
	struct mqtt_publish p;
	uint8_t head[GOT_HEAD_MAX];
	char payload[GOT_PAYLOAD_MAX]; /* the beginning of it, NUL-terminated */
	uint32_t packet_bytes;
};

struct conn {
	uint8_t version;
	bool failing;      /* send returns false */
	uint32_t unsent;
	void *arg;         /* of the test */
	struct got **got;
	uint32_t got_count;
	uint32_t seen;     /* of conn_next */
};

struct world {
	struct conf conf;
	struct timers timers;
	uint64_t now_ms;
	struct broker *b[WORLD_BROKERS];
	struct {
		struct broker *from;
		struct message *m;
	} forwards[WORLD_FORWARDS_MAX];
	uint32_t forwards_count;
	uint32_t forwarded; /* ever */
};

static inline struct mqtt_str span(const char *z)
{
	return (struct mqtt_str){ z, (uint32_t)strlen(z) };
}

static inline bool span_is(struct mqtt_str s, const char *z)
{
	return s.bytes == strlen(z) && memcmp(s.s, z, s.bytes) == 0;
}

/* ---- what the broker asks for ---- */

static inline bool world_send(struct conn *c, const void *head, uint32_t head_bytes,
	const void *body, uint32_t body_bytes)
{
	cr_assert_not_null(c, "sent to no connection");
	if (c->failing)
		return false;
	struct got *g = calloc(1, sizeof *g);
	cr_assert_leq(head_bytes, GOT_HEAD_MAX);
	memcpy(g->head, head, head_bytes);
	uint32_t decoded_bytes = 0;
	int r = mqtt_decode_publish_head(g->head, head_bytes, c->version, &g->p, &decoded_bytes);
	cr_assert_eq(r, 0, "decoding what was sent: %d", r);
	cr_assert_eq(decoded_bytes, head_bytes);
	cr_assert_eq(g->p.payload_bytes, body_bytes);
	uint32_t kept = body_bytes < GOT_PAYLOAD_MAX ? body_bytes : GOT_PAYLOAD_MAX - 1;
	if (kept > 0)
		memcpy(g->payload, body, kept);
	g->packet_bytes = head_bytes + body_bytes;
	c->got = realloc(c->got, (c->got_count + 1) * sizeof *c->got);
	c->got[c->got_count++] = g;
	return true;
}

static inline uint32_t world_unsent(struct conn *c)
{
	return c->unsent;
}

static inline uint64_t world_now(struct broker *b)
{
	return ((struct world *)broker_arg(b))->now_ms;
}

static inline void world_forward(struct broker *b, struct message *m)
{
	struct world *w = broker_arg(b);
	cr_assert_lt(w->forwards_count, WORLD_FORWARDS_MAX);
	message_ref(m);
	w->forwards[w->forwards_count].from = b;
	w->forwards[w->forwards_count++].m = m;
	w->forwarded++;
}

/* ---- the world ---- */

static inline void world_init(struct world *w)
{
	memset(w, 0, sizeof *w);
	w->now_ms = 1000000;
	w->conf.mqtt.sessions_max = 1000;
	w->conf.mqtt.subscriptions_max = 100;
	w->conf.mqtt.filter_levels_max = 128;
	w->conf.mqtt.queue_messages_max = 1000;
	w->conf.mqtt.queue_bytes_max = 1 << 20;
	w->conf.mqtt.queue_total_bytes_max = 1 << 28;
	w->conf.mqtt.inflight_max = 32;
	timers_init(&w->timers, w->now_ms);
	struct broker_ops ops = {
		.send = world_send,
		.unsent_bytes = world_unsent,
		.forward = world_forward,
		.now_ms = world_now,
		.timers = &w->timers,
		.arg = w,
	};
	for (uint32_t i = 0; i < WORLD_BROKERS; i++)
		cr_assert_eq(broker_new(&w->conf, i, &ops, &w->b[i]), 0);
}

/* Hands over what was forwarded. */
static inline void world_settle(struct world *w)
{
	for (uint32_t i = 0; i < w->forwards_count; i++) {
		for (uint32_t to = 0; to < WORLD_BROKERS; to++)
			if (w->b[to] != w->forwards[i].from)
				broker_deliver(w->b[to], w->forwards[i].m);
		message_unref(w->forwards[i].m);
	}
	w->forwards_count = 0;
}

static inline void world_fini(struct world *w)
{
	world_settle(w);
	for (uint32_t i = 0; i < WORLD_BROKERS; i++)
		broker_free(w->b[i]);
	cr_assert_eq(w->timers.count, 0, "a session is gone, its timer is not");
	cr_assert_eq(broker_sums.held_bytes, 0, "messages or deliveries leak");
	cr_assert_eq(broker_sums.sessions, 0);
	cr_assert_eq(broker_sums.filters[0] + broker_sums.filters[1], 0);
}

static inline void world_pass(struct world *w, uint64_t ms)
{
	w->now_ms += ms;
	timers_expire(&w->timers, w->now_ms);
	world_settle(w);
}

/* ---- connections ---- */

static inline void conn_forget(struct conn *c)
{
	for (uint32_t i = 0; i < c->got_count; i++)
		free(c->got[i]);
	free(c->got);
	c->got = NULL;
	c->got_count = c->seen = 0;
}

/* The next PUBLISH that was not looked at yet; NULL: none. */
static inline const struct got *conn_next(struct conn *c)
{
	return c->seen < c->got_count ? c->got[c->seen++] : NULL;
}

/* What a client would say in CONNECT. */
struct hello {
	const char *clientid;
	uint8_t version;       /* 0: 5 */
	bool clean_start;
	uint32_t expiry_s;
	uint16_t receive_max;  /* 0: none given */
	uint32_t packet_max;   /* 0: none given */
	const char *will_topic;
	uint32_t will_delay_s;
	bool is_silent;        /* session_resume is left to the test */
};

struct welcome {
	struct session *s;
	bool present;
	struct conn *old_conn;
};

static inline struct message *message_make(struct world *w, const char *topic, const char *payload,
	uint8_t qos, uint64_t publisher)
{
	struct mqtt_publish p = {
		.qos = qos,
		.packet_id = qos > 0,
		.topic = span(topic),
		.payload_bytes = (uint32_t)strlen(payload),
	};
	struct message *m = message_new(&p, payload, publisher, w->now_ms);
	cr_assert_not_null(m);
	return m;
}

static inline struct welcome world_connect(struct world *w, uint32_t broker, struct conn *c,
	const struct hello *h)
{
	struct welcome ret = { 0 };
	int r = session_attach(w->b[broker], c, h->clientid, (uint32_t)strlen(h->clientid),
		h->clean_start, &ret.s, &ret.present, &ret.old_conn);
	cr_assert_eq(r, 0);
	struct session *s = ret.s;
	c->version = s->version = h->version != 0 ? h->version : MQTT_V5;
	s->expiry_s = h->expiry_s;
	if (h->receive_max != 0)
		s->client_receive_max = h->receive_max;
	if (h->packet_max != 0)
		s->client_packet_max = h->packet_max;
	if (h->will_topic != NULL) {
		s->will = message_make(w, h->will_topic, h->clientid, 1, s->id);
		s->will_delay_s = h->will_delay_s;
	}
	if (!h->is_silent)
		session_resume(s);
	world_settle(w);
	return ret;
}

static inline struct session *world_join(struct world *w, uint32_t broker, struct conn *c,
	const char *clientid, uint32_t expiry_s)
{
	struct hello h = { .clientid = clientid, .expiry_s = expiry_s };
	return world_connect(w, broker, c, &h).s;
}

static inline void world_leave(struct world *w, struct session *s, bool with_will)
{
	session_detach(s, with_will);
	world_settle(w);
}

/* As the daemon when from is NULL, then on the first broker. */
static inline bool world_publish(struct world *w, struct session *from, const char *topic,
	const char *payload, uint8_t qos)
{
	struct message *m = message_make(w, topic, payload, qos, from != NULL ? from->id : 0);
	bool matched = broker_publish(from != NULL ? from->broker : w->b[0], m);
	message_unref(m);
	world_settle(w);
	return matched;
}

/* The next PUBLISH is this one. Returns its packet identifier. */
static inline uint16_t conn_expect(struct conn *c, const char *topic, const char *payload,
	uint8_t qos)
{
	const struct got *g = conn_next(c);
	cr_assert_not_null(g, "no PUBLISH, want %s %s", topic, payload);
	cr_assert(span_is(g->p.topic, topic), "%.*s, want %s", (int)g->p.topic.bytes,
		g->p.topic.s, topic);
	cr_assert_str_eq(g->payload, payload);
	cr_assert_eq(g->p.qos, qos);
	cr_assert_eq(g->p.packet_id != 0, qos > 0);
	return g->p.packet_id;
}

static inline void conn_expect_none(struct conn *c)
{
	const struct got *g = conn_next(c);
	cr_assert_null(g, "unexpected %.*s %s", (int)g->p.topic.bytes, g->p.topic.s, g->payload);
}

#endif
