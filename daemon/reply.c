/*
 * Answers to commands: the order of acknowledgements, the response messages, and what a v3 client
 * is not told.
 *
 * A reply stands in its connection's list from its PUBLISH to its acknowledgement. The head of the
 * list is acknowledged when it is ready, then the next one: so they leave in the order of the
 * PUBLISHes, whatever took longer. A detached one stands in a list of its own and is acknowledged
 * when it is ready. An ordinary PUBLISH needs no reply unless one stands before it.
 *
 * The response message does not wait for that turn. Nobody may be listening, which costs two loads
 * to find out.
 *
 * A reply is freed when it has left the connection's list and its owner has finished it, in either
 * order.
 */
#include "reply.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conn.h"
#include "hold.h"
#include "log.h"
#include "topic.h"

/* --- life ------------------------------------------------------------------------------------- */

static void link_to(struct conn *c, struct reply *rp)
{
	rp->conn = c;
	rp->pprev = c->replies_tail;
	*c->replies_tail = rp;
	c->replies_tail = &rp->next;
	c->replies_count++;
	c->replies_bytes += rp->bytes;
}

static void take_out(struct reply *rp)
{
	*rp->pprev = rp->next;
	if (rp->next)
		rp->next->pprev = rp->pprev;
	else if (!rp->is_detached)
		rp->conn->replies_tail = rp->pprev;
	rp->next = NULL;
	rp->pprev = NULL;
}

static void unlink_from(struct reply *rp)
{
	struct conn *c = rp->conn;
	take_out(rp);
	rp->conn = NULL;
	if (rp->qos == 2)
		idset_remove(&c->pending, rp->packet_id);
	c->replies_count--;
	c->replies_bytes -= rp->bytes;
	c->statuses -= rp->is_status;
	c->rt->conns->statuses -= rp->is_status;
	conn_go_on(c, STOP_REPLIES);
	if (c->stops & STOP_DRAIN)
		conn_run(c);
}

static char *put(char **at, const void *from, uint32_t bytes)
{
	char *to = *at;
	if (bytes > 0)
		memcpy(to, from, bytes);
	to[bytes] = 0;
	*at += bytes + 1;
	return to;
}

struct reply *reply_new(struct conn *c, const struct mqtt_publish *p, bool use_default)
{
	const struct session *s = c->session;
	struct mqtt_str none = {0};
	struct mqtt_str response = use_default ? none : p->props.response_topic;
	struct mqtt_str correlation = p->props.correlation_data;
	size_t bytes = sizeof(struct reply) + s->clientid_bytes + p->topic.bytes + response.bytes +
		correlation.bytes + 4;
	struct reply *rp = malloc(bytes);
	if (rp && p->qos == 2 && idset_add(&c->pending, p->packet_id) < 0) {
		free(rp);
		rp = NULL;
	}
	if (!rp)
		return NULL;
	char *at = (char *)(rp + 1);
	*rp = (struct reply){.reactor = c->rt, .packet_id = p->packet_id, .qos = p->qos,
		.version = c->version, .dup = p->dup, .is_power = c->is_power, .clientid_bytes = s->clientid_bytes,
		.topic_bytes = p->topic.bytes, .response_topic_bytes = response.bytes,
		.correlation_bytes = correlation.bytes, .bytes = (uint32_t)bytes};
	rp->clientid = put(&at, s->clientid, s->clientid_bytes);
	rp->topic = put(&at, p->topic.s, p->topic.bytes);
	if (response.s)
		rp->response_topic = put(&at, response.s, response.bytes);
	if (correlation.s)
		rp->correlation = (uint8_t *)put(&at, correlation.s, correlation.bytes);
	link_to(c, rp);
	return rp;
}

/* --- acknowledgements ------------------------------------------------------------------------- */

/* The Reason String; buf is used when it has to be put together. NULL: none. */
static const char *reason_string(const struct reply *rp, char *buf, size_t buf_max)
{
	if (rp->reason < 0x80 || !rp->text)
		return NULL;
	if (!rp->has_missing)
		return rp->text;
	snprintf(buf, buf_max, "%s: [%" PRIu64 ",%" PRIu64 ")", rp->text, rp->missing.from,
		rp->missing.to);
	return buf;
}

static void send_ack(struct conn *c, const struct reply *rp)
{
	char text[96];
	if (rp->qos == 0)
		return;
	/* It enters the set now that its result is stored, so that a copy is not carried out
	 * again. */
	if (rp->qos == 2 && rp->reason < 0x80 &&
		idset_add(&c->session->received, rp->packet_id) < 0) {
		c->failed = true;
		conn_run(c);
		return;
	}
	conn_send_ack(c, rp->qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, rp->packet_id, rp->reason,
		reason_string(rp, text, sizeof(text)));
}

static void acknowledge(struct reply *rp)
{
	send_ack(rp->conn, rp);
	unlink_from(rp);
	if (rp->is_finished)
		free(rp);
}

/* Acknowledges from the head of the list as far as it is ready. */
static void flush(struct conn *c)
{
	while (c->replies && c->replies->is_ready)
		acknowledge(c->replies);
}

static void set_ready(struct reply *rp, uint8_t reason)
{
	rp->reason = reason;
	rp->is_ready = true;
	if (rp->is_detached)
		acknowledge(rp);
	else
		flush(rp->conn);
}

int reply_plain(struct conn *c, uint8_t qos, uint16_t packet_id, uint8_t reason)
{
	if (qos == 0)
		return 0;
	/* It has been carried out, so a copy that comes before its turn must not be. */
	if (qos == 2 && reason < 0x80 && idset_add(&c->session->received, packet_id) < 0)
		goto no_memory;
	if (!c->replies) {
		conn_send_ack(c, qos == 1 ? MQTT_PUBACK : MQTT_PUBREC, packet_id, reason, NULL);
		return 0;
	}
	if (qos == 2 && idset_add(&c->pending, packet_id) < 0)
		goto no_memory;
	struct reply *rp = malloc(sizeof(*rp));
	if (!rp)
		goto no_memory;
	*rp = (struct reply){.reactor = c->rt, .packet_id = packet_id, .qos = qos,
		.version = c->version, .is_plain = true, .is_finished = true, .is_ready = true,
		.reason = reason, .bytes = sizeof(*rp)};
	link_to(c, rp);
	return 0;
no_memory:
	c->failed = true;
	conn_run(c);
	return -ENOMEM;
}

void reply_detach(struct reply *rp)
{
	struct conn *c = rp->conn;
	if (!c || rp->is_detached)
		return;
	take_out(rp);
	rp->is_detached = true;
	rp->next = c->detached;
	if (rp->next)
		rp->next->pprev = &rp->next;
	rp->pprev = &c->detached;
	c->detached = rp;
	flush(c);
}

void reply_ack_now(struct reply *rp)
{
	if (rp->conn && !rp->is_ready)
		set_ready(rp, 0);
}

bool reply_is_pending(const struct conn *c, uint16_t packet_id)
{
	return idset_has(&c->pending, packet_id);
}

static void leave_list(struct reply *rp)
{
	while (rp) {
		struct reply *next = rp->next;
		rp->conn = NULL;
		rp->next = NULL;
		rp->pprev = NULL;
		if (rp->is_finished)
			free(rp);
		rp = next;
	}
}

void reply_leave_all(struct conn *c)
{
	leave_list(c->replies);
	leave_list(c->detached);
	c->replies = NULL;
	c->replies_tail = &c->replies;
	c->detached = NULL;
	idset_fini(&c->pending);
	c->replies_count = 0;
	c->replies_bytes = 0;
	c->rt->conns->statuses -= c->statuses;
	c->statuses = 0;
}

/* --- response messages ------------------------------------------------------------------------ */

static char *to_json(const struct reply *rp, const struct outcome *o, size_t *ret_bytes)
{
	struct answer a = {.topic = rp->topic, .topic_bytes = rp->topic_bytes,
		.packet_id = rp->packet_id, .description = "success"};
	if (o) {
		a.reason_code = o->reason;
		a.description = o->text ? o->text : "success";
		a.has_missing = o->has_missing;
		a.missing_bytes = o->missing_bytes;
		a.missing = o->missing;
		a.missing_count = o->missing_count;
		a.truncated = o->truncated;
		a.expected = o->has_digests ? o->expected : NULL;
		a.actual = o->has_digests ? o->actual : NULL;
		a.has_status = o->has_status;
		a.state = o->state;
		a.status_has_size = o->status_has_size;
		a.status_size = o->status_size;
		a.received = o->received;
		a.frontier = o->frontier;
	}
	return answer_to_json(&a, ret_bytes);
}

/* The default response topic, in memory that the caller frees. NULL: the client has none (see
 * auth.h). */
static char *default_topic(const struct reply *rp, uint32_t *ret_bytes)
{
	static const char prefix[] = "$file-response/";
	uint32_t bytes = (uint32_t)sizeof(prefix) - 1 + rp->clientid_bytes;
	char *topic = malloc(bytes);
	if (!topic)
		return NULL;
	memcpy(topic, prefix, sizeof(prefix) - 1);
	memcpy(topic + sizeof(prefix) - 1, rp->clientid, rp->clientid_bytes);
	if (!topic_name_ok(topic, bytes)) {
		free(topic);
		return NULL;
	}
	*ret_bytes = bytes;
	return topic;
}

static void respond(struct reply *rp, const struct outcome *o)
{
	const char *topic = rp->response_topic;
	uint32_t topic_bytes = rp->response_topic_bytes;
	char *own_topic = NULL;
	size_t json_bytes;
	if (!topic || topic[0] == '$') {
		if (!broker_wants_dollar())
			return;
	}
	if (!topic)
		topic = own_topic = default_topic(rp, &topic_bytes);
	char *json = topic ? to_json(rp, o, &json_bytes) : NULL;
	if (json)
		reactor_publish(rp->reactor, topic, topic_bytes, json, (uint32_t)json_bytes,
			rp->correlation, rp->correlation_bytes);
	free(json);
	free(own_topic);
}

/* --- the end of a command --------------------------------------------------------------------- */

static struct hold_key hold_key_of(const struct reply *rp)
{
	return (struct hold_key){rp->clientid, rp->topic, rp->clientid_bytes, rp->topic_bytes};
}

/* Can the client only be told by silence? */
static bool is_mute(const struct reply *rp)
{
	return rp->version < MQTT_V5 && rp->qos > 0 && rp->conn && !rp->is_ready;
}

bool reply_would_hold(const struct reply *rp, const char *text)
{
	struct hold_key key = hold_key_of(rp);
	return is_mute(rp) && hold_would(rp->reactor->conns->hold, &key, text,
		ring_now_ms(rp->reactor->ring));
}

/* A transient failure of a v3 client, unless it has persisted: keeps silent. */
static bool withhold(struct reply *rp, const struct outcome *o)
{
	struct hold *hold = rp->reactor->conns->hold;
	struct hold_key key = hold_key_of(rp);
	uint64_t delay_ms;
	if (!is_mute(rp))
		return false;
	if (!o || o->reason < 0x80) {
		hold_succeed(hold, &key);
		return false;
	}
	if (!o->is_transient)
		return false;
	/* What else fails before the close is the same failure, not a further one: many segments
	 * in flight may meet the full disk at once. */
	if (rp->conn->stops & STOP_HOLD) {
		rp->is_finished = true;
		return true;
	}
	if (!hold_fail(hold, &key, o->text, ring_now_ms(rp->reactor->ring), &delay_ms))
		return false;
	log_info("answer withheld", LS("clientid", rp->clientid, rp->clientid_bytes),
		LS("topic", rp->topic, rp->topic_bytes), LZ("reason", o->text),
		LU("ms", delay_ms), NULL);
	/* It stays in the list, so that none behind it is acknowledged either, until the
	 * connection is closed. */
	rp->is_finished = true;
	conn_hold(rp->conn, delay_ms);
	return true;
}

void reply_finish(struct reply *rp, const struct outcome *o)
{
	if (withhold(rp, o))
		return;
	respond(rp, o);
	if (!rp->conn) {
		free(rp);
		return;
	}
	rp->is_finished = true;
	if (rp->is_ready)
		return; /* acknowledged ahead of its end, but its turn has not come yet */
	rp->text = o ? o->text : NULL;
	rp->has_missing = o && o->has_missing && o->missing_count > 0 && !o->has_status;
	if (rp->has_missing)
		rp->missing = o->missing[0];
	set_ready(rp, o ? o->reason : 0);
}

void reply_discard(struct reply *rp)
{
	struct conn *c = rp->conn;
	if (c) {
		unlink_from(rp);
		flush(c);
	}
	free(rp);
}

void reply_fail(struct reply *rp, uint8_t reason, const char *text, bool is_transient)
{
	struct outcome o = {.reason = reason, .text = text, .is_transient = is_transient};
	reply_finish(rp, &o);
}
