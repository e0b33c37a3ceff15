/*
 * From the socket to packets.
 *
 * Ordinarily a receive buffer is taken, the stash (what was left over last time) put in front, the
 * socket read into the rest, and every whole packet handled where it lies; payloads of small
 * segments stay there, counted. What is left goes back into the stash, and the buffer to the pool
 * as soon as nobody writes from it any more.
 *
 * After a large segment the next one is expected to be large, too: the socket is looked at without
 * taking anything, and when a large segment's head is there, just that is read. Its payload is
 * then spliced from its first byte and never copied. When it is anything else, or not enough to
 * tell, the ordinary way takes it from the socket (left there, it would make the poll spin).
 *
 * A receive that the ring makes itself, multishot into provided buffers, would save the calls, and
 * copy what is to be spliced. With 1 KiB segments and a window of 64 one call brings 63 of them: 8,350
 * calls in 1.2 s of processor time, which at a microsecond each is less than 1 %.
 *
 * A budget per turn, of bytes and of time, lets other connections have theirs: what is left of the
 * packets that were read waits in the stash.
 */
#include "conn.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "reply.h"

enum {
	BUDGET_BYTES = 512 * 1024,
	/* Thousands of commands fit into a buffer. The clock is looked at after so many packets. */
	BUDGET_NS = 500000,
	BUDGET_PACKETS = 16,
	PEEK_BYTES = 1024,
	/* After a large segment, when something else stands before the next head: so little of its
	 * payload is copied. */
	READ_BYTES_LARGE = 4096,
	/* With a limit on messages. */
	READ_BYTES_PACED = 8192,
	READ_BYTES_PER_MESSAGE = 256,
	READ_MS_PACED = 20,
	UNSENT_HIGH = 1 << 20,
	/* Memory that answers not yet given may take: with long ids and topics fewer of them are
	 * let in. */
	REPLIES_BYTES_MAX = 4 << 20,
};

/* Received bytes that all connections of the daemon keep in memory. */
static _Atomic uint64_t received_total;

static void log_used_up(const struct conn *c)
{
	if (!log_is_due(&c->rt->conns->used_up_ms, ring_now_ms(c->rt->ring)))
		return;
	log_info("connection closed: mqtt.received_total is used up",
		LS("clientid", c->session ? c->session->clientid : NULL,
			c->session ? c->session->clientid_bytes : 0), NULL);
}

uint8_t *received_resize(const struct conn *c, uint8_t *data, uint32_t bytes, uint32_t new_bytes)
{
	uint64_t more = new_bytes - bytes;
	if (atomic_fetch_add(&received_total, more) + more <= c->rt->conf->mqtt.received_bytes_max) {
		uint8_t *resized = realloc(data, new_bytes);
		if (resized)
			return resized;
	} else {
		log_used_up(c);
	}
	atomic_fetch_sub(&received_total, more);
	return NULL;
}

void received_free(uint8_t *data, uint32_t bytes)
{
	if (data)
		atomic_fetch_sub(&received_total, bytes);
	free(data);
}

int conn_stash(struct conn *c, const uint8_t *data, uint32_t bytes)
{
	if (bytes == 0)
		return 0;
	c->stash = received_resize(c, NULL, 0, bytes);
	if (!c->stash) {
		c->failed = true;
		return -ENOMEM;
	}
	memcpy(c->stash, data, bytes);
	c->stash_bytes = bytes;
	return 0;
}

void conn_count_received(struct conn *c, uint32_t bytes)
{
	STAT_ADD(c->rt, bytes_received, bytes);
	c->active_ms = ring_now_ms(c->rt->ring);
	conn_take_bytes(c, bytes);
	if (__builtin_add_overflow(c->window_bytes, bytes, &c->window_bytes))
		c->window_bytes = UINT32_MAX;
}

/* Before each packet: may its answer be made? */
static void check_room(struct conn *c)
{
	const struct conf *conf = c->rt->conf;
	if (c->replies_count >= conf->mqtt.replies_max || c->replies_bytes >= REPLIES_BYTES_MAX)
		conn_stop(c, STOP_REPLIES);
	if (conn_unsent(c) > UNSENT_HIGH)
		conn_stop(c, STOP_OUTPUT);
	/* Bytes that are here already are paid for; they count before the next reading. */
	if (conn_is_over_messages(c))
		conn_check_rate(c);
}

static enum take take_connect(struct conn *c, const struct input *in, uint8_t type,
	uint32_t packet_bytes, uint32_t *ret_used)
{
	/* What is no CONNECT, or too long for one, gets no answer: it may not even be MQTT
	 * [MQTT-3.1.0-1]. */
	if (type != MQTT_CONNECT || packet_bytes > c->rt->conf->mqtt.head_bytes_max) {
		conn_end(c, 0, false);
		return TAKE_LEFT;
	}
	return in->bytes < packet_bytes ? TAKE_MORE : conn_connect(c, in, ret_used);
}

/* The packet in front. */
static enum take take_packet(struct conn *c, const struct input *in, uint32_t *ret_used)
{
	uint8_t type, flags;
	uint32_t remaining, header_bytes;
	int rc = mqtt_decode_fixed(in->data, in->bytes, &type, &flags, &remaining, &header_bytes);
	if (rc == MQTT_MORE)
		return TAKE_MORE;
	if (rc < 0) {
		conn_fail(c, (uint8_t)-rc);
		return TAKE_LEFT;
	}
	const struct conf *conf = c->rt->conf;
	uint32_t packet_bytes = header_bytes + remaining;
	if (c->state == CONN_CONNECT)
		return take_connect(c, in, type, packet_bytes, ret_used);
	if (packet_bytes > conf->mqtt.packet_bytes_max ||
		(type != MQTT_PUBLISH && packet_bytes > conf->mqtt.head_bytes_max)) {
		conn_fail(c, MQTT_RC_PACKET_TOO_LARGE);
		return TAKE_LEFT;
	}
	if (type == MQTT_PUBLISH)
		return conn_publish(c, in, ret_used);
	if (in->bytes < packet_bytes)
		return TAKE_MORE;
	*ret_used = packet_bytes;
	conn_packet(c, type, in->data + header_bytes, remaining);
	return c->state == CONN_OPEN ? TAKE_DONE : TAKE_LEFT;
}

static bool time_is_up(struct conns *cs)
{
	return ++cs->turn_packets % BUDGET_PACKETS == 0 && sys_mono_ns() >= cs->turn_ns + BUDGET_NS;
}

/* Handles whole packets, and stashes what is left of the input. */
static void take_packets(struct conn *c, const struct input *in)
{
	uint32_t at = 0;
	c->yields = false;
	for (;;) {
		struct input rest = {in->buf, in->data + at, in->bytes - at};
		uint32_t used = 0;
		if (rest.bytes > 0)
			check_room(c);
		bool stops = !conn_is_reading(c) || (at > 0 && rest.bytes > 0 && time_is_up(c->rt->conns));
		if (rest.bytes == 0 || stops || c->payload) {
			c->yields = rest.bytes > 0 && stops;
			if (c->state != CONN_CLOSING)
				conn_stash(c, rest.data, rest.bytes);
			return;
		}
		enum take taken = take_packet(c, &rest, &used);
		if (taken == TAKE_LEFT)
			return;
		if (taken == TAKE_MORE) {
			c->yields = !conn_is_reading(c); /* it was not let in */
			conn_stash(c, rest.data, rest.bytes);
			return;
		}
		conn_take_packet(c, rest.data[0] >> 4);
		at += used;
	}
}

/* After a large segment: reads the head of the next one, and nothing else. False: it is not there,
 * or not large. */
static bool read_large_head(struct conn *c, uint32_t *ret_bytes)
{
	uint8_t head[PEEK_BYTES];
	uint32_t head_bytes;
	int n = sock_peek(c->fd, head, sizeof(head));
	if (n <= 0 || !conn_peek_is_large(c, head, (uint32_t)n, &head_bytes))
		return false;
	n = sock_discard(c->fd, head_bytes);
	if (n != (int)head_bytes) {
		c->failed = true; /* it was there a moment ago */
		return true;
	}
	conn_count_received(c, head_bytes);
	*ret_bytes = head_bytes;
	struct input in = {.data = head, .bytes = head_bytes};
	take_packets(c, &in);
	return true;
}

static void on_buffer(struct bufs_waiter *w)
{
	struct conn *c = container_of(w, struct conn, buf_waiter);
	conn_go_on(c, STOP_BUFFER);
	conn_run_later(c); /* stopped for another reason, too: conn_read lets go of the buffer */
}

static struct buf *take_buffer(struct conn *c)
{
	struct buf *b = bufs_take_granted(&c->buf_waiter);
	if (!b)
		b = bufs_take(c->rt->bufs);
	if (!b) {
		c->buf_waiter.wake = on_buffer;
		conn_stop(c, STOP_BUFFER);
		bufs_wait(c->rt->bufs, &c->buf_waiter);
	}
	return b;
}

static bool stash_is_whole(const struct conn *c)
{
	uint8_t type, flags;
	uint32_t remaining, header_bytes;
	return c->stash && mqtt_decode_fixed(c->stash, c->stash_bytes, &type, &flags, &remaining,
		&header_bytes) == 0 && c->stash_bytes - header_bytes >= remaining;
}

/* How much to read behind the stash: no more than is to be waited for. Where messages are limited,
 * what is read beyond those that may be handled is copied into the stash and out of it again until
 * their time has come: so nothing is read behind a packet that is whole, and little otherwise. But as
 * much again as there is of one that is not. */
static uint32_t room_to_read(const struct conn *c, uint32_t room)
{
	uint64_t paced = (uint64_t)conn_messages_rate(c) * READ_MS_PACED / 1000 * READ_BYTES_PER_MESSAGE;
	uint64_t most = conn_bytes_max(c, room);
	if (c->last_large && room > READ_BYTES_LARGE)
		room = READ_BYTES_LARGE;
	if (conn_messages_rate(c) > 0) {
		if (stash_is_whole(c))
			return 0;
		if (paced < READ_BYTES_PACED)
			paced = READ_BYTES_PACED;
		if (most > paced)
			most = paced;
	}
	if (most < c->stash_bytes)
		most = c->stash_bytes;
	return room < most ? room : (uint32_t)most;
}

static enum step receive(struct conn *c, uint32_t *ret_bytes)
{
	if (c->last_large && !c->stash && read_large_head(c, ret_bytes))
		return STEP_AGAIN;
	struct buf *b = take_buffer(c);
	if (!b)
		return STEP_STOP;
	/* A stash as large as the buffer holds whole packets, read before something made us
	 * stop. */
	uint32_t stashed = c->stash_bytes, room = room_to_read(c, b->bytes_max - stashed);
	if (stashed > 0)
		memcpy(b->data, c->stash, stashed);
	received_free(c->stash, stashed);
	c->stash = NULL;
	c->stash_bytes = 0;
	int n = room > 0 ? sock_recv(c->fd, b->data + stashed, room) : -EAGAIN;
	bool is_end = n == 0 || (n < 0 && n != -EAGAIN);
	uint32_t got = n > 0 ? (uint32_t)n : 0;
	if (got > 0)
		conn_count_received(c, got);
	*ret_bytes = got;
	struct input in = {b, b->data, stashed + got};
	take_packets(c, &in);
	ingest_flush(c->rt->uploads);
	buf_unref(b);
	if (is_end && conn_is_reading(c) && !c->yields) {
		c->failed = true;
		return STEP_STOP;
	}
	return got < room && !c->payload ? STEP_POLL : STEP_AGAIN;
}

static void on_readable(struct op *op)
{
	conn_run(container_of(op, struct conn, op));
}

/* Waits for the socket; inside a packet with an eye on the clock. */
static void wait_readable(struct conn *c)
{
	if (!c->payload && !c->stash) {
		c->window_ms = 0;
	} else if (c->window_ms == 0) {
		c->window_ms = ring_now_ms(c->rt->ring);
		c->window_bytes = 0;
		conn_watch(c);
	}
	c->op.done = on_readable;
	ring_poll_in(c->rt->ring, &c->op, c->fd);
	if (!c->payload && !c->stash)
		conn_let_heir(c);
}

bool conn_is_behind(const struct conn *c)
{
	uint8_t byte;
	if (c->failed || c->stops & STOPS_LONG)
		return false;
	if (op_is_idle(&c->op) || sock_peek(c->fd, &byte, 1) > 0)
		return true;
	/* The rest may be under way; a peer that is gone sends nothing. */
	return (c->payload || c->stash) &&
		ring_now_ms(c->rt->ring) < c->active_ms + c->rt->conf->mqtt.takeover_timeout_ms;
}

static void read_packets(struct conn *c)
{
	uint32_t done = 0;
	if (!op_is_idle(&c->op))
		return; /* nothing has come since it was armed */
	c->rt->conns->turn_ns = sys_mono_ns();
	c->rt->conns->turn_packets = 0;
	while (conn_is_reading(c)) {
		uint32_t bytes = 0;
		enum step step = c->payload ? payload_step(c, &bytes) : receive(c, &bytes);
		if (c->rate.bytes.until_ns || c->user_rate.bytes.until_ns)
			conn_check_rate(c);
		if (!conn_is_reading(c))
			return;
		if (step == STEP_POLL && !c->yields) {
			wait_readable(c);
			return;
		}
		done += bytes;
		if (done >= BUDGET_BYTES || c->yields) {
			conn_run_later(c);
			return;
		}
	}
}

void conn_read(struct conn *c)
{
	read_packets(c);
	ingest_flush(c->rt->uploads);
	if (c->buf_waiter.granted)
		bufs_wait_cancel(&c->buf_waiter); /* others need it more than one who doesn't read */
}
