/*
 * Output of a connection: appended to chunks, sent one send at a time.
 *
 * What is appended during a turn leaves in one send at its end. While a send is in flight, the
 * rest of its chunk and further chunks fill; the kernel looks only at the bytes that it was given.
 * Chunks are freed when they are sent, so an idle connection has none.
 *
 * Output is bounded by who appends: the broker stops at 256 KiB, and reading (which is what makes
 * answers) stops at 1 MiB. Of all connections together there may be mqtt.unsent_total, of which each
 * reactor has its part, so that they share nothing. Beyond it both stop for whoever has not taken all of
 * his. That leaves the answers to what was read already, which are always sent, and a message each:
 * where these come to twice as much, nobody gets a message (starved), the first who asked is the first
 * to be asked again, and those who have long taken nothing are closed.
 */
#include "conn.h"

#include <stdlib.h>
#include <string.h>
#include "log.h"

enum {
	CHUNK_BYTES_MIN = 2048,
	CHUNK_BYTES_USUAL_MAX = 64 * 1024,
	/* While stopped for it, reading goes on when no more than this is unsent. */
	UNSENT_LOW = 256 * 1024,
	ACK_BYTES_MAX = 256,
	STARVED_MS = 100,
};

struct chunk {
	struct op op;
	struct conn *conn;
	struct chunk *next;
	uint32_t sent, bytes, bytes_max;
	uint8_t data[];
};

static void on_sent(struct op *op);

static void log_used_up(const struct conn *c, const char *outcome)
{
	if (!log_is_due(&c->rt->conns->unsent_ms, ring_now_ms(c->rt->ring)))
		return;
	log_info("mqtt.unsent_total is used up", LZ("connection", outcome),
		LS("clientid", c->session ? c->session->clientid : NULL,
			c->session ? c->session->clientid_bytes : 0), NULL);
}

/* Is so many times the reactor's part used up? */
static bool is_used_up(const struct conns *cs, uint32_t times)
{
	return cs->unsent_bytes > times * (cs->rt->conf->mqtt.unsent_bytes_max / cs->rt->count);
}

uint32_t conn_unsent(const struct conn *c)
{
	return c->unsent > 0 && is_used_up(c->rt->conns, 1) ? UINT32_MAX : c->unsent;
}

/* --- when nobody gets a message --------------------------------------------------------------- */

static void starved_unlink(struct conn *c)
{
	struct conns *cs = c->rt->conns;
	if (!c->starved_pprev)
		return;
	*c->starved_pprev = c->starved_next;
	if (c->starved_next)
		c->starved_next->starved_pprev = c->starved_pprev;
	else
		cs->starved_tail = c->starved_pprev;
	c->starved_next = NULL;
	c->starved_pprev = NULL;
}

static void close_deaf(struct conns *cs)
{
	uint64_t now_ms = ring_now_ms(cs->rt->ring);
	for (struct conn *c = cs->all; c; c = c->next) {
		if (c->unsent == 0 || c->failed || now_ms < c->taken_ms + cs->rt->conf->mqtt.min_rate_window_ms)
			continue;
		log_used_up(c, "closed");
		c->failed = true;
		conn_run(c);
	}
}

static void on_starved_due(struct timer *timer)
{
	struct conns *cs = container_of(timer, struct conns, starved_timer);
	if (is_used_up(cs, 2))
		close_deaf(cs);
	while (cs->starved && !is_used_up(cs, 2)) {
		struct conn *c = cs->starved;
		starved_unlink(c);
		if (c->session)
			session_pump(c->session);
	}
	if (cs->starved)
		timers_arm(&cs->rt->timers, timer, ring_now_ms(cs->rt->ring) + STARVED_MS);
}

uint32_t conn_unsent_for_message(struct conn *c)
{
	struct conns *cs = c->rt->conns;
	if (!is_used_up(cs, 2))
		return conn_unsent(c);
	log_used_up(c, "waits");
	if (!c->starved_pprev) {
		if (!cs->starved_tail)
			cs->starved_tail = &cs->starved;
		c->starved_pprev = cs->starved_tail;
		*cs->starved_tail = c;
		cs->starved_tail = &c->starved_next;
	}
	cs->starved_timer.fire = on_starved_due;
	if (!timer_is_armed(&cs->starved_timer))
		timers_arm(&cs->rt->timers, &cs->starved_timer, ring_now_ms(cs->rt->ring) + STARVED_MS);
	return UINT32_MAX;
}

/* --- chunks ----------------------------------------------------------------------------------- */

static void chunk_free(struct chunk *k)
{
	k->conn->rt->conns->unsent_bytes -= sizeof(*k) + k->bytes_max;
	free(k);
}

static struct chunk *chunk_new(struct conn *c, uint32_t bytes_needed)
{
	uint32_t bytes_max = CHUNK_BYTES_MIN;
	while (bytes_max < c->unsent && bytes_max < CHUNK_BYTES_USUAL_MAX)
		bytes_max *= 2;
	if (bytes_max < bytes_needed)
		bytes_max = bytes_needed;
	struct chunk *k = malloc(sizeof(*k) + bytes_max);
	if (!k)
		return NULL;
	c->rt->conns->unsent_bytes += sizeof(*k) + bytes_max;
	*k = (struct chunk){.op.done = on_sent, .conn = c, .bytes_max = bytes_max};
	return k;
}

static struct chunk *last_chunk(const struct conn *c)
{
	return c->out ? container_of(c->out_tail, struct chunk, next) : NULL;
}

static void append(struct chunk *k, const void *from, uint32_t bytes)
{
	if (bytes > 0)
		memcpy(k->data + k->bytes, from, bytes);
	k->bytes += bytes;
}

bool conn_send(struct conn *c, const void *head, uint32_t head_bytes, const void *body,
	uint32_t body_bytes)
{
	if (c->state != CONN_OPEN && c->state != CONN_CONNECT)
		return false;
	uint32_t bytes = head_bytes + body_bytes;
	struct chunk *k = last_chunk(c);
	if (!k || k->bytes_max - k->bytes < bytes) {
		k = chunk_new(c, bytes);
		if (!k) {
			c->failed = true;
			conn_run(c);
			return false;
		}
		*c->out_tail = k;
		c->out_tail = &k->next;
	}
	append(k, head, head_bytes);
	append(k, body, body_bytes);
	if (c->unsent == 0)
		c->taken_ms = ring_now_ms(c->rt->ring);
	c->unsent += bytes;
	conn_run(c);
	return true;
}

void conn_send_ack(struct conn *c, uint8_t type, uint16_t packet_id, uint8_t reason,
	const char *text)
{
	uint8_t packet[ACK_BYTES_MAX];
	struct mqtt_ack ack = {.packet_id = packet_id, .reason = reason};
	if (text && c->version >= MQTT_V5 && !c->no_problem_info) {
		ack.props.has = 1u << MQTT_P_REASON_STRING;
		ack.props.reason_string = (struct mqtt_str){text, (uint32_t)strlen(text)};
	}
	size_t bytes = mqtt_encode_ack(packet, sizeof(packet), c->version, type, &ack);
	/* A reason string that makes the packet larger than the client takes is left out
	 * [MQTT-3.4.2-2]. */
	if (ack.props.has && (bytes == 0 || bytes > c->session->client_packet_max)) {
		ack.props.has = 0;
		bytes = mqtt_encode_ack(packet, sizeof(packet), c->version, type, &ack);
	}
	conn_send(c, packet, (uint32_t)bytes, NULL, 0);
	bool is_final = type == MQTT_PUBCOMP || (type == MQTT_PUBREC && reason >= 0x80);
	/* A PUBCOMP may end an exchange that began on an earlier connection, whose count is
	 * gone. */
	if (is_final && c->unacked > 0)
		c->unacked--;
}

void conn_flush(struct conn *c)
{
	struct chunk *k = c->out;
	if (!k || !op_is_idle(&k->op) || c->failed)
		return;
	ring_send(c->rt->ring, &k->op, c->fd, k->data + k->sent, k->bytes - k->sent);
}

static void on_sent(struct op *op)
{
	struct chunk *k = container_of(op, struct chunk, op);
	struct conn *c = k->conn;
	conn_run(c);
	if (op->res <= 0) {
		c->failed = true;
		return;
	}
	k->sent += (uint32_t)op->res;
	c->unsent -= (uint32_t)op->res;
	if (k->sent == k->bytes) {
		c->taken_ms = ring_now_ms(c->rt->ring);
		c->out = k->next;
		if (!c->out)
			c->out_tail = &c->out;
		chunk_free(k);
	}
	if (c->stops & STOP_OUTPUT)
		c->active_ms = ring_now_ms(c->rt->ring);
	if (conn_unsent(c) <= UNSENT_LOW) {
		conn_go_on(c, STOP_OUTPUT);
		if (c->session)
			session_pump(c->session);
	}
}

void conn_send_cancel(struct conn *c)
{
	if (c->out)
		ring_cancel(c->rt->ring, &c->out->op);
}

bool conn_send_is_idle(const struct conn *c)
{
	return !c->out || op_is_idle(&c->out->op);
}

void conn_send_free(struct conn *c)
{
	starved_unlink(c);
	while (c->out) {
		struct chunk *next = c->out->next;
		chunk_free(c->out);
		c->out = next;
	}
	c->out_tail = &c->out;
	c->unsent = 0;
}
