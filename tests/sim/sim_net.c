/*
 * sim_net.h. Each direction is a queue of bytes, of which those up to `arrived` can be read; one
 * event at a time moves that mark on.
 */
#include "sim_net.h"

#include <errno.h>
#include <string.h>

enum { LISTENERS_MAX = 4, BACKLOG_MAX = 64 };

struct way {
	uint8_t *data;
	uint32_t begin, end, max;      /* bytes [begin, end) of data */
	uint32_t arrived;              /* of them, have arrived */
	bool ended;                    /* the sender has ended */
	bool end_arrived;
	bool moving;                   /* an event is under way */
};

struct waiter {
	net_ready_fn *fn;
	void *arg;
};

struct sock {
	struct sock *next;
	uint32_t id;
	struct client *client;         /* NULL: has forgotten it */
	bool accepted, dead, paused;
	bool daemon_closed;
	bool reset;                    /* what the daemon's side sees */
	bool reset_told;
	struct way up, down;           /* to the daemon, to the client */
	struct waiter reader, writer;
};

struct net_conf net;

static struct sock *socks;
static uint32_t socks_count;
static bool listening;
static struct sock *backlog[BACKLOG_MAX];
static uint32_t backlog_count;
static struct acceptor {
	int listener;
	struct waiter waiter;
} acceptors[LISTENERS_MAX];

static void move_up(struct sock *s);
static void move_down(struct sock *s);
static void reset_daemon(struct sock *s);
static void end_client(struct sock *s);

/* --- queues ----------------------------------------------------------------------------------- */

static void way_put(struct way *w, const void *data, uint32_t len)
{
	if (w->begin > 0 && w->begin == w->end)
		w->begin = w->end = 0;
	if (w->begin > 0 && w->end + len > w->max) {
		memmove(w->data, w->data + w->begin, w->end - w->begin);
		w->end -= w->begin;
		w->begin = 0;
	}
	if (w->end + len > w->max) {
		w->max = (w->end + len) * 2;
		w->data = sim_realloc(w->data, w->max);
	}
	if (len > 0)
		memcpy(w->data + w->end, data, len);
	w->end += len;
}

static uint32_t way_bytes(const struct way *w)
{
	return w->end - w->begin;
}

static void way_drop(struct way *w, uint32_t len)
{
	w->begin += len;
	w->arrived -= len;
}

static void waiter_call(struct waiter *w)
{
	struct waiter now = *w;
	w->fn = NULL;
	if (now.fn)
		now.fn(now.arg);
}

/* --- moving ----------------------------------------------------------------------------------- */

static void on_up(void *arg, uint64_t num)
{
	struct sock *s = arg;
	(void)num;
	s->up.moving = false;
	if (s->dead || s->daemon_closed || s->reset)
		return;
	if (!net.calm && sim_chance(net.resets)) {
		SIM_TRACE("broken", s->id, 0, "net   s%u: reset by the network", s->id);
		reset_daemon(s);
		end_client(s);
		return;
	}
	uint32_t waiting = way_bytes(&s->up) - s->up.arrived;
	uint32_t room = net.receive_max > s->up.arrived ? net.receive_max - s->up.arrived : 0;
	uint32_t most = waiting < room ? waiting : room;
	if (most > 0) {
		if (most > net.piece_max)
			most = net.piece_max;
		s->up.arrived += sim_chance(5000) ? most : 1 + sim_below(most);
		SIM_TRACE("up", s->id, s->up.arrived, "net   s%u: %u bytes can be read", s->id,
			s->up.arrived);
	} else if (waiting == 0 && s->up.ended) {
		s->up.end_arrived = true;
		SIM_TRACE("up end", s->id, 0, "net   s%u: the client has ended", s->id);
	}
	waiter_call(&s->reader);
	move_up(s);
}

static void move_up(struct sock *s)
{
	struct way *w = &s->up;
	bool more = way_bytes(w) > w->arrived ? w->arrived < net.receive_max :
		w->ended && !w->end_arrived;
	if (w->moving || !more || s->dead || s->daemon_closed || s->reset)
		return;
	w->moving = true;
	sim_after(sim_skewed(1000, net.delay_ns_max), false, on_up, s, 0);
}

static void end_client(struct sock *s)
{
	struct client *c = s->client;
	s->client = NULL;
	if (c)
		client_on_end(c);
}

static void on_down(void *arg, uint64_t num)
{
	struct sock *s = arg;
	struct way *w = &s->down;
	(void)num;
	w->moving = false;
	if (s->dead || s->paused || !s->client)
		return;
	uint32_t bytes = way_bytes(w);
	if (bytes > 0) {
		if (bytes > net.piece_max)
			bytes = net.piece_max;
		bytes = sim_chance(7000) ? bytes : 1 + sim_below(bytes);
		const uint8_t *data = w->data + w->begin;
		w->arrived = bytes;
		client_on_bytes(s->client, data, bytes);
		way_drop(w, bytes);
		waiter_call(&s->writer);
	} else if (w->ended) {
		end_client(s);
		return;
	}
	move_down(s);
}

static void move_down(struct sock *s)
{
	if (s->down.moving || s->dead || s->paused || (!way_bytes(&s->down) && !s->down.ended))
		return;
	s->down.moving = true;
	sim_after(sim_skewed(1000, net.delay_ns_max), false, on_down, s, 0);
}

/* --- the client's end ------------------------------------------------------------------------- */

/* Any of those that wait: which listener gets a connection is the kernel's choice. */
static void wake_acceptor(void)
{
	uint32_t first = sim_below(LISTENERS_MAX);
	for (uint32_t i = 0; i < LISTENERS_MAX; i++) {
		struct waiter *w = &acceptors[(first + i) % LISTENERS_MAX].waiter;
		if (w->fn) {
			waiter_call(w);
			return;
		}
	}
}

struct sock *net_connect(struct client *c)
{
	if (!listening || backlog_count == BACKLOG_MAX)
		return NULL;
	struct sock *s = sim_alloc(sizeof(*s));
	s->id = ++socks_count;
	s->client = c;
	s->next = socks;
	socks = s;
	backlog[backlog_count++] = s;
	wake_acceptor();
	return s;
}

void net_send(struct sock *s, const void *data, uint32_t len)
{
	if (s->daemon_closed || s->dead || s->reset)
		return;
	way_put(&s->up, data, len);
	move_up(s);
}

void net_end(struct sock *s)
{
	s->up.ended = true;
	move_up(s);
}

static void reset_daemon(struct sock *s)
{
	if (s->reset || s->dead)
		return;
	s->reset = true;
	if (sim_chance(5000))
		s->up.arrived = 0;
	waiter_call(&s->reader);
	waiter_call(&s->writer);
}

void net_abort(struct sock *s)
{
	SIM_TRACE("reset", s->id, 0, "net   s%u: reset by the client", s->id);
	reset_daemon(s);
}

void net_go_dead(struct sock *s)
{
	SIM_TRACE("dead", s->id, 0, "net   s%u: goes dead", s->id);
	s->dead = true;
}

void net_pause(struct sock *s, bool paused)
{
	s->paused = paused;
	if (!paused)
		move_down(s);
}

void net_release(struct sock *s)
{
	s->client = NULL;
	if (!s->up.ended || sim_chance(2000))
		reset_daemon(s);
}

/* --- the daemon's end ------------------------------------------------------------------------- */

int net_listen(void)
{
	listening = true;
	return 0;
}

void net_unlisten(void)
{
	listening = false;
	memset(acceptors, 0, sizeof(acceptors));
	while (backlog_count > 0)
		sock_close(backlog[--backlog_count]);
}

struct sock *net_accept(void)
{
	if (backlog_count == 0)
		return NULL;
	struct sock *s = backlog[0];
	memmove(backlog, backlog + 1, --backlog_count * sizeof(*backlog));
	s->accepted = true;
	return s;
}

void net_want_accept(int listener, net_ready_fn *fn, void *arg)
{
	struct acceptor *a = acceptors;
	while (a->listener != listener && a->listener)
		a++;
	*a = (struct acceptor){listener, {fn, arg}};
	if (fn && backlog_count > 0)
		waiter_call(&a->waiter);
}

int sock_take(struct sock *s, void *buf, uint32_t len, bool peek)
{
	uint32_t n = s->up.arrived < len ? s->up.arrived : len;
	if (n == 0 && s->reset) {
		bool told = s->reset_told;
		s->reset_told = true;
		return told ? 0 : -ECONNRESET;
	}
	if (n == 0)
		return s->up.end_arrived && s->up.arrived == 0 ? 0 : -EAGAIN;
	if (buf)
		memcpy(buf, s->up.data + s->up.begin, n);
	if (!peek) {
		way_drop(&s->up, n);
		move_up(s);
	}
	return (int)n;
}

int sock_put(struct sock *s, const void *buf, uint32_t len)
{
	uint32_t used = way_bytes(&s->down);
	if (s->reset || s->down.ended)
		return -EPIPE;
	if (used >= net.send_max)
		return -EAGAIN;
	if (len > net.send_max - used)
		len = net.send_max - used;
	if (len > 1 && sim_chance(500))
		len = 1 + sim_below(len);
	way_put(&s->down, buf, len);
	move_down(s);
	return (int)len;
}

bool sock_is_readable(const struct sock *s)
{
	return s->up.arrived > 0 || s->up.end_arrived || s->reset;
}

void sock_want_read(struct sock *s, net_ready_fn *fn, void *arg)
{
	s->reader = (struct waiter){fn, arg};
}

void sock_want_write(struct sock *s, net_ready_fn *fn, void *arg)
{
	s->writer = (struct waiter){fn, arg};
}

void sock_end(struct sock *s)
{
	s->down.ended = true;
	move_down(s);
}

/* With bytes unread it becomes a reset, which may overtake what was sent. */
void sock_close(struct sock *s)
{
	bool resets = way_bytes(&s->up) > 0 || s->reset;
	s->daemon_closed = true;
	s->reader.fn = s->writer.fn = NULL;
	if (resets && sim_chance(5000))
		s->down.end = s->down.begin + (way_bytes(&s->down) ? sim_below(way_bytes(&s->down)) : 0);
	s->down.ended = true;
	move_down(s);
}

uint32_t sock_id(const struct sock *s)
{
	return s->id;
}

void net_reset(const struct net_conf *conf)
{
	net_fini();
	net = *conf;
}

void net_fini(void)
{
	while (socks) {
		struct sock *next = socks->next;
		sim_free(socks->up.data);
		sim_free(socks->down.data);
		sim_free(socks);
		socks = next;
	}
	listening = false;
	backlog_count = socks_count = 0;
	memset(acceptors, 0, sizeof(acceptors));
}
