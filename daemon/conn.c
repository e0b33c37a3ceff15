/*
 * The life of a connection: its beginning, the run list, its time limits, its end. conn.h has the
 * states.
 *
 * Two run lists, so that a turn ends: what is noted while the lists are worked off is still done
 * in this turn, unless it asked for a later one because it has used up its share. Of those the first are
 * stepped for a quarter of a millisecond, behind all others, and the rest wait for the next turn.
 *
 * One timer for all limits. It is armed for the nearest one, and not moved when that gets later
 * (with every received byte): when it fires too early it is armed again.
 */
#include "conn.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "address.h"
#include "hold.h"
#include "log.h"
#include "reply.h"

enum {
	/* How long the peer may take to read our last words; the same when the daemon ends. */
	LINGER_MS = 2000,
	LINGER_MS_STOPPING = 100,
	DISCARD_BYTES_MAX = 1 << 20,
	SHED_AFTER_MS = 2000,
	SHED_EVERY_MS = 250,
	LATER_NS = 250000,
};

/* Descriptors of connections in the daemon, against mqtt.connections_max. */
static _Atomic uint32_t open_count;

/* --- the lists -------------------------------------------------------------------------------- */

int conns_new(struct reactor *rt, struct conns **ret)
{
	struct conns *cs = calloc(1, sizeof(*cs));
	if (!cs)
		return -ENOMEM;
	cs->rt = rt;
	cs->now_tail = &cs->now;
	cs->later_tail = &cs->later;
	cs->hold = hold_new();
	if (!cs->hold || rates_new(rt->conf->limits.client_bytes_rate || rt->conf->limits.client_messages_rate,
		&cs->rates) < 0) {
		conns_free(cs);
		return -ENOMEM;
	}
	*ret = cs;
	return 0;
}

void conns_free(struct conns *cs)
{
	if (!cs)
		return;
	assert(cs->statuses == 0);
	timers_disarm(&cs->rt->timers, &cs->starved_timer);
	hold_free(cs->hold);
	rates_free(cs->rates);
	free(cs);
}

static void link_all(struct conn *c)
{
	struct conns *cs = c->rt->conns;
	c->next = cs->all;
	if (c->next)
		c->next->pprev = &c->next;
	c->pprev = &cs->all;
	cs->all = c;
	cs->count++;
}

static void unlink_all(struct conn *c)
{
	*c->pprev = c->next;
	if (c->next)
		c->next->pprev = c->pprev;
	c->rt->conns->count--;
}

static void run_push(struct conn *c, struct conn ***tail)
{
	if (c->run_pprev)
		return;
	c->run_next = NULL;
	c->run_pprev = *tail;
	**tail = c;
	*tail = &c->run_next;
}

static void run_unlink(struct conn *c)
{
	struct conns *cs = c->rt->conns;
	if (!c->run_pprev)
		return;
	*c->run_pprev = c->run_next;
	if (c->run_next)
		c->run_next->run_pprev = c->run_pprev;
	else if (cs->now_tail == &c->run_next)
		cs->now_tail = c->run_pprev;
	else
		cs->later_tail = c->run_pprev;
	c->run_pprev = NULL;
}

void conn_run(struct conn *c)
{
	if (c->state != CONN_MOVING)
		run_push(c, &c->rt->conns->now_tail);
}

void conn_run_later(struct conn *c)
{
	if (c->state == CONN_MOVING)
		return;
	/* One that has used up its share may have noted itself already, by what it has sent. */
	run_unlink(c);
	run_push(c, &c->rt->conns->later_tail);
}

/* --- stopping and going on -------------------------------------------------------------------- */

void conn_stop(struct conn *c, enum conn_stop why)
{
	if (c->stops & why)
		return;
	c->stops |= (uint16_t)why;
	c->window_ms = 0;
	if (why & STOPS_LONG)
		conn_let_heir(c);
	if (why == STOP_OUTPUT) {
		c->active_ms = ring_now_ms(c->rt->ring);
		conn_watch(c);
	}
}

void conn_go_on(struct conn *c, enum conn_stop why)
{
	if (!(c->stops & why))
		return;
	c->stops &= (uint16_t)~why;
	if (c->stops)
		return;
	/* While nothing was read the peer had no chance to be heard. */
	c->active_ms = ring_now_ms(c->rt->ring);
	conn_watch(c);
	conn_run_later(c);
}

static void on_gate(struct upload_gate *g)
{
	conn_go_on(container_of(g, struct conn, gate), STOP_GATE);
}

void conn_hold(struct conn *c, uint64_t delay_ms)
{
	if (c->stops & STOP_HOLD)
		return;
	conn_stop(c, STOP_HOLD);
	c->until_ms = ring_now_ms(c->rt->ring) + delay_ms;
	conn_watch(c);
	if (c->stops & STOP_DRAIN)
		conn_run(c); /* the daemon's end does not wait for it */
}

/* --- taking over ------------------------------------------------------------------------------ */

/* The one before c is gone, or has had its time: c's CONNECT is read again. */
static void heir_go_on(struct conn *c)
{
	c->has_waited = true;
	c->until_ms = ring_now_ms(c->rt->ring) + c->rt->conf->mqtt.connect_timeout_ms;
	conn_go_on(c, STOP_HEIR);
}

/* c waits for nobody any more, and nobody for c. */
static void heirs_leave(struct conn *c)
{
	struct conn *heir = c->heir;
	if (c->before)
		c->before->heir = NULL;
	c->before = NULL;
	c->heir = NULL;
	if (heir) {
		heir->before = NULL;
		heir_go_on(heir);
	}
}

/* Until when c waits for `old`: those who come one after the other do not wait longer than one. */
static uint64_t heir_deadline(const struct conn *c, const struct conn *old, uint64_t now_ms)
{
	if (!old->heir)
		return now_ms + c->rt->conf->mqtt.takeover_timeout_ms;
	return old->heir->has_waited ? now_ms : old->heir->until_ms;
}

enum turn conn_take_turn(struct conn *c, struct conn *holder)
{
	uint64_t now_ms = ring_now_ms(c->rt->ring);
	if (c->has_waited && holder && holder != c->before)
		return TURN_PAST;
	if (c->has_waited || !holder || !conn_is_behind(holder))
		return TURN_NOW;
	if (c->before != holder) {
		uint64_t until_ms = heir_deadline(c, holder, now_ms);
		if (holder->heir)
			conn_end(holder->heir, 0, false);
		c->before = holder;
		holder->heir = c;
		c->until_ms = until_ms;
	}
	if (now_ms >= c->until_ms)
		return TURN_NOW;
	conn_stop(c, STOP_HEIR);
	conn_watch(c);
	return TURN_LATER;
}

void conn_let_heir(struct conn *c)
{
	if (c->heir)
		conn_go_on(c->heir, STOP_HEIR);
}

/* --- time limits ------------------------------------------------------------------------------ */

/* How long the peer may be silent: one and a half times the keep alive [MQTT-3.1.2-22];
 * UINT64_MAX: for ever. */
static uint64_t silence_ms(const struct conn *c)
{
	return c->keep_alive_s ? (uint64_t)c->keep_alive_s * 1500 : UINT64_MAX;
}

static uint64_t nearer(uint64_t a, uint64_t from, uint64_t ms)
{
	uint64_t b = ms == UINT64_MAX ? UINT64_MAX : from + ms;
	return a < b ? a : b;
}

static uint64_t next_limit(const struct conn *c)
{
	uint32_t window_ms = c->rt->conf->mqtt.min_rate_window_ms;
	uint64_t at = UINT64_MAX;
	if (c->state != CONN_OPEN || (c->stops & STOP_HOLD))
		return c->until_ms;
	if (c->stops & STOP_RATE)
		at = conn_rate_due_ms(c);
	if (c->stops & STOP_OUTPUT)
		at = nearer(at, c->active_ms, c->keep_alive_s ? silence_ms(c) : window_ms);
	if (c->stops == 0)
		at = nearer(at, c->active_ms, silence_ms(c));
	if (c->stops == 0 && c->window_ms)
		at = nearer(at, c->window_ms, window_ms);
	return at;
}

void conn_watch(struct conn *c)
{
	uint64_t at = next_limit(c);
	if (at != UINT64_MAX && (!timer_is_armed(&c->timer) || at < c->timer.deadline_ms))
		timers_arm(&c->rt->timers, &c->timer, at);
}

/* Inside a packet: the window is over. Was it enough? Then the next one begins. */
static bool rate_is_low(struct conn *c, uint64_t now_ms)
{
	const struct conf *conf = c->rt->conf;
	if (c->stops || !c->window_ms || now_ms < c->window_ms + conf->mqtt.min_rate_window_ms)
		return false;
	uint64_t least = (uint64_t)conf->mqtt.min_rate_bytes * conf->mqtt.min_rate_window_ms / 1000;
	bool is_low = c->window_bytes < least;
	c->window_ms = now_ms;
	c->window_bytes = 0;
	return is_low;
}

static void on_timer(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, timer);
	uint64_t now_ms = ring_now_ms(c->rt->ring);
	switch ((enum conn_state)c->state) {
	case CONN_CONNECT:
		if (now_ms >= c->until_ms && c->before && !c->has_waited)
			heir_go_on(c);
		else if (now_ms >= c->until_ms)
			conn_end(c, 0, false);
		break;
	case CONN_OPEN:
		if (c->run_pprev && c->stops == 0) { /* it waits for its turn, we don't for it */
			c->active_ms = now_ms;
			c->window_ms = c->window_ms ? now_ms : 0;
			c->window_bytes = 0;
		}
		if (now_ms >= conn_rate_due_ms(c))
			conn_go_on(c, STOP_RATE);
		if (rate_is_low(c, now_ms))
			conn_end(c, MQTT_RC_KEEP_ALIVE_TIMEOUT, true);
		else if (now_ms >= next_limit(c))
			conn_end(c, c->stops & STOP_HOLD ? 0 : MQTT_RC_KEEP_ALIVE_TIMEOUT, true);
		break;
	case CONN_MOVING:
	case CONN_CLOSING:
		break;
	}
	conn_run(c);
	conn_watch(c);
}

/* --- beginning -------------------------------------------------------------------------------- */

/* For each segment that streams a connection leaves another one free: those who are let in are to
 * send. Their segments may take some of what is kept for other files, too. */
static bool descriptors_are_left(const struct reactor *rt, bool for_segment)
{
	uint64_t open = atomic_load(&open_count), streams = payload_streams();
	if (rt->descriptors_max == 0)
		return true;
	return for_segment ? open + streams < (uint64_t)rt->descriptors_max + rt->descriptors_spare :
		open + 2 * streams <= rt->descriptors_max;
}

/* Has it sent so little of its segment, for so long, that it will hardly reach the least rate? */
static bool is_dawdling(const struct conn *c, uint64_t now_ms)
{
	if (c->state != CONN_OPEN || c->stops || !c->payload || c->payload->kind != PAYLOAD_STREAM ||
		!c->window_ms || now_ms < c->window_ms + SHED_AFTER_MS)
		return false;
	return (uint64_t)c->window_bytes * 1000 / (now_ms - c->window_ms) < c->rt->conf->mqtt.min_rate_bytes;
}

/* Looking through all of them takes a while, so it is not done for every byte. */
static void shed(struct conns *cs)
{
	uint64_t now_ms = ring_now_ms(cs->rt->ring), count = 0;
	if (now_ms < cs->shed_ms + SHED_EVERY_MS)
		return;
	cs->shed_ms = now_ms;
	for (struct conn *c = cs->all, *next; c; c = next) {
		next = c->next;
		if (!is_dawdling(c, now_ms))
			continue;
		conn_end(c, MQTT_RC_KEEP_ALIVE_TIMEOUT, true);
		count++;
	}
	if (count)
		log_warn("slow connections ended early: their descriptors are needed", LU("count", count), NULL);
}

bool conns_may_take_descriptor(struct reactor *rt, bool for_segment)
{
	if (descriptors_are_left(rt, for_segment))
		return true;
	shed(rt->conns);
	return descriptors_are_left(rt, for_segment);
}

/* Counts one more connection. NULL, or which limit stands against it, and whether that is the
 * address's. */
static const char *limit_reached(struct reactor *rt, int fd, struct address **ret, bool *ret_is_own)
{
	const struct conf *conf = rt->conf;
	uint8_t bytes[ADDRESS_BYTES];
	if (atomic_fetch_add(&open_count, 1) >= conf->mqtt.connections_max)
		return "mqtt.connections_max";
	if (!conns_may_take_descriptor(rt, false))
		return "descriptors";
	if (conf->mqtt.connections_address_max == 0 && conf->mqtt.connect_rate_address == 0)
		return NULL;
	*ret_is_own = true;
	sock_peer_address(fd, bytes);
	if (conf->mqtt.connections_address_max > 0) {
		*ret = address_enter(bytes, conf->mqtt.connections_address_max);
		if (!*ret)
			return "mqtt.connections_address_max";
	}
	if (conf->mqtt.connect_rate_address > 0 &&
		!address_take_rate(bytes, conf->mqtt.connect_rate_address, ring_now_ms(rt->ring)))
		return "mqtt.connect_rate_address";
	return NULL;
}

static void refuse(struct reactor *rt, int fd, const char *limit)
{
	if (log_is_due(&rt->conns->refused_ms, ring_now_ms(rt->ring))) {
		char peer[64];
		sock_peer_name(fd, peer, sizeof(peer));
		log_warn("connection refused", LZ("peer", peer), LZ("limit", limit ? limit : "memory"), NULL);
	}
	atomic_fetch_sub(&open_count, 1);
	sys_close(fd);
}

bool conn_accept(struct reactor *rt, int fd, bool is_power)
{
	struct address *address = NULL;
	struct conn *c = NULL;
	bool is_own = false;
	const char *limit = limit_reached(rt, fd, &address, &is_own);
	if (!limit)
		c = calloc(1, sizeof(*c));
	if (!c) {
		refuse(rt, fd, limit);
		address_leave(address);
		return !limit || !is_own;
	}
	c->address = address;
	sock_setup(fd);
	c->rt = rt;
	c->fd = fd;
	c->is_power = is_power;
	c->timer.fire = on_timer;
	c->gate.resume = on_gate;
	c->out_tail = &c->out;
	c->replies_tail = &c->replies;
	idset_init(&c->pending);
	c->active_ms = ring_now_ms(rt->ring);
	c->until_ms = c->active_ms + rt->conf->mqtt.connect_timeout_ms;
	link_all(c);
	STAT_ADD(rt, connections, 1);
	STAT_ADD(rt, connections_total, 1);
	conn_watch(c);
	conn_run(c);
	return true;
}

static void on_arrived(struct op *op)
{
	struct conn *c = container_of(op, struct conn, op);
	c->state = CONN_CONNECT;
	link_all(c);
	STAT_ADD(c->rt, connections, 1);
	if (c->rt->stopping)
		conn_end(c, 0, false);
	conn_watch(c);
	conn_run(c);
}

/* Gives c to its owner; it must not be touched afterwards. Its unread bytes travel in the stash. */
static void move(struct conn *c)
{
	timers_disarm(&c->rt->timers, &c->timer);
	run_unlink(c);
	unlink_all(c);
	STAT_SUB(c->rt, connections, 1);
	c->rt = c->rt->peers[c->move_to];
	c->op.done = on_arrived;
	ring_post(c->rt->ring, &c->op);
}

/* --- end -------------------------------------------------------------------------------------- */

static void send_disconnect(struct conn *c, uint8_t reason)
{
	uint8_t packet[8];
	struct mqtt_disconnect d = {.reason = reason};
	if (reason == 0 || c->version < MQTT_V5 || c->state != CONN_OPEN)
		return;
	size_t bytes = mqtt_encode_disconnect(packet, sizeof(packet), c->version,
		MQTT_DISCONNECT, &d);
	conn_send(c, packet, (uint32_t)bytes, NULL, 0);
}

/* Out of everything but its own output. The session, if any, is the caller's. */
static void leave(struct conn *c, uint8_t reason)
{
	send_disconnect(c, reason);
	if (c->session)
		log_debug("client disconnected",
			LS("clientid", c->session->clientid, c->session->clientid_bytes),
			LU("reason", reason), NULL);
	conn_rate_end(c);
	heirs_leave(c);
	/* From here on no answer finds its way to it. */
	c->state = CONN_CLOSING;
	c->until_ms = ring_now_ms(c->rt->ring) + (c->rt->stopping ? LINGER_MS_STOPPING : LINGER_MS);
	STAT_SUB(c->rt, connections, 1);
	reply_leave_all(c);
	payload_cut(c);
	upload_gate_cancel(&c->gate);
	bufs_wait_cancel(&c->buf_waiter);
	conn_free_aliases(c);
	received_free(c->stash, c->stash_bytes);
	c->stash = NULL;
	c->stash_bytes = 0;
	c->session = NULL;
	conn_watch(c);
	conn_run(c);
}

void conn_end(struct conn *c, uint8_t reason, bool with_will)
{
	struct session *s = c->session;
	if (c->state == CONN_CLOSING)
		return;
	leave(c, reason);
	if (s)
		session_detach(s, with_will);
}

void conn_taken_over(struct conn *c)
{
	leave(c, MQTT_RC_TAKEN_OVER);
}

void conn_fail(struct conn *c, uint8_t reason)
{
	log_debug("protocol error", LS("clientid", c->session ? c->session->clientid : NULL,
		c->session ? c->session->clientid_bytes : 0), LU("reason", reason), NULL);
	conn_end(c, reason, true);
}

/* Our side is sent and ended: waits for the peer's end, throwing away what it still sends. True:
 * it has come. */
static bool peer_has_ended(struct conn *c)
{
	int n = 1;
	if (!op_is_idle(&c->op))
		return false;
	n = sock_discard(c->fd, DISCARD_BYTES_MAX);
	if (n > 0)
		conn_run_later(c);
	else if (n == -EAGAIN)
		ring_poll_in(c->rt->ring, &c->op, c->fd);
	return n <= 0 && n != -EAGAIN;
}

static void on_closing(struct op *op)
{
	conn_run(container_of(op, struct conn, op));
}

/* The last state, until nothing is in flight. Returns whether c is freed. */
static bool close_step(struct conn *c)
{
	c->failed = c->failed || ring_now_ms(c->rt->ring) >= c->until_ms;
	if (!c->failed && c->out) {
		conn_flush(c);
		return false;
	}
	if (!c->failed && !c->fin_sent) {
		sock_shutdown_send(c->fd);
		c->fin_sent = true;
		if (op_is_idle(&c->op))
			c->op.done = on_closing;
	}
	if (!c->failed && !peer_has_ended(c))
		return false;
	c->failed = true;
	ring_cancel(c->rt->ring, &c->op);
	conn_send_cancel(c);
	if (!op_is_idle(&c->op) || !conn_send_is_idle(c))
		return false;
	conn_send_free(c);
	timers_disarm(&c->rt->timers, &c->timer);
	run_unlink(c);
	unlink_all(c);
	sys_close(c->fd);
	atomic_fetch_sub(&open_count, 1);
	address_leave(c->address);
	free(c);
	return true;
}

/* --- the step --------------------------------------------------------------------------------- */

static void conn_step(struct conn *c)
{
	switch ((enum conn_state)c->state) {
	case CONN_CONNECT:
	case CONN_OPEN:
		conn_read(c);
		if (c->failed)
			conn_end(c, 0, true);
		else if ((c->stops & STOP_DRAIN) && (c->replies_count == 0 || c->stops & STOP_HOLD))
			conn_end(c, MQTT_RC_SERVER_SHUTDOWN, true);
		break;
	case CONN_MOVING:
	case CONN_CLOSING:
		break;
	}
	if (c->state == CONN_MOVING)
		move(c);
	else if (c->state != CONN_CLOSING)
		conn_flush(c);
	else
		close_step(c);
}

bool conns_are_noted(const struct conns *cs)
{
	return cs->now || cs->later;
}

static void step_noted(struct conns *cs)
{
	while (cs->now) {
		struct conn *c = cs->now;
		run_unlink(c);
		conn_step(c);
	}
}

void conns_run(struct conns *cs)
{
	uint32_t left = 0;
	for (const struct conn *c = cs->later; c; c = c->run_next)
		left++;
	step_noted(cs);
	for (uint64_t until_ns = left ? sys_mono_ns() + LATER_NS : 0; left > 0 && cs->later; left--) {
		struct conn *c = cs->later;
		run_unlink(c);
		conn_step(c);
		step_noted(cs);
		if (sys_mono_ns() >= until_ns)
			break;
	}
}

void conns_drain(struct conns *cs)
{
	for (struct conn *c = cs->all, *next; c; c = next) {
		next = c->next;
		if (c->state == CONN_CONNECT)
			conn_end(c, 0, false);
		if (c->state != CONN_OPEN)
			continue;
		payload_cut(c);
		conn_stop(c, STOP_DRAIN);
		conn_run(c);
	}
}

void conns_end_all(struct conns *cs)
{
	for (struct conn *c = cs->all, *next; c; c = next) {
		next = c->next;
		conn_end(c, MQTT_RC_SERVER_SHUTDOWN, true);
		c->until_ms = 0; /* what does not leave at once is not waited for */
		conn_run(c);
	}
}
