/*
 * The reactors' threads: setting up, the loop, messages between them, stopping. reactor.h has the
 * order of things.
 *
 * Stopping is the join of a connection one level up. First listeners and connections go, exports
 * under way end, the journal is written. A reactor that is through goes on turning until all are,
 * since others may still post to it; only then are rings freed.
 */
#include "reactor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "bufs.h"
#include "conn.h"
#include "journal.h"
#include "listener.h"
#include "log.h"
#include "recover.h"
#include "retention.h"
#include "ring.h"
#include "transfer.h"

enum {
	RING_ENTRIES = 1024,
	TURN_MS_MAX = 60000,
	TURN_MS_STOPPING = 20,
	/* An operation that does not end within this after all else has is left to the process's
	 * end. */
	FINAL_MS = 2000,
};

struct reactors {
	struct reactor **peers;
	uint32_t count;
	pthread_t *threads;
	pthread_t owner;
	/* How many have: set up; come to rest; run their last turn; ended. */
	_Atomic uint32_t ready, through, settled, ended;
	_Atomic int err;           /* the first failure of setting up */
	pthread_mutex_t lock;
	pthread_cond_t changed;
};

/* A request to one reactor's thread. Freed there. */
struct envelope {
	struct op op;
	struct reactor *rt;
	struct message *message;   /* to be delivered */
	const int *fds;            /* listening sockets, one per address; owned by the envelope */
};

uint32_t reactor_owner(const char *clientid, uint32_t clientid_bytes, uint32_t count)
{
	return (uint32_t)(XXH3_64bits(clientid, clientid_bytes) % count);
}

/* --- messages --------------------------------------------------------------------------------- */

static uint64_t envelope_bytes(const struct message *m)
{
	return sizeof(struct envelope) + m->bytes;
}

/* A publisher may be faster than a reactor with many subscribers, which then must not gather
 * without end what it is to deliver: like a session's queue, an inbox takes so much, and one
 * message of any size when it is empty. */
static bool inbox_take(struct reactor *to, const struct message *m)
{
	uint64_t bytes = envelope_bytes(m), most = to->conf->mqtt.queue_total_bytes_max / to->count;
	uint64_t before =
		atomic_fetch_add_explicit(&to->inbox_bytes, bytes, memory_order_relaxed);
	if (before == 0 || before + bytes <= most)
		return true;
	atomic_fetch_sub_explicit(&to->inbox_bytes, bytes, memory_order_relaxed);
	return false;
}

static void on_message(struct op *op)
{
	struct envelope *e = container_of(op, struct envelope, op);
	atomic_fetch_sub_explicit(&e->rt->inbox_bytes, envelope_bytes(e->message),
		memory_order_relaxed);
	broker_deliver(e->rt->broker, e->message);
	message_unref(e->message);
	free(e);
}

static void forward(struct broker *b, struct message *m)
{
	struct reactor *rt = broker_arg(b);
	for (uint32_t i = 0; i < rt->count; i++) {
		if (i == rt->idx || !inbox_take(rt->peers[i], m))
			continue;
		struct envelope *e = calloc(1, sizeof(*e));
		if (!e) { /* without memory a message is lost, as with a full queue */
			atomic_fetch_sub_explicit(&rt->peers[i]->inbox_bytes, envelope_bytes(m),
				memory_order_relaxed);
			continue;
		}
		e->op.done = on_message;
		e->rt = rt->peers[i];
		e->message = m;
		message_ref(m);
		ring_post(e->rt->ring, &e->op);
	}
}

void reactor_publish(struct reactor *rt, const char *topic, uint32_t topic_bytes,
	const void *payload, uint32_t payload_bytes, const void *correlation,
	uint32_t correlation_bytes)
{
	struct mqtt_publish p = {.qos = 1, .topic = {topic, topic_bytes},
		.payload_bytes = payload_bytes};
	if (correlation) {
		p.props.has = 1u << MQTT_P_CORRELATION_DATA;
		p.props.correlation_data = (struct mqtt_str){correlation, correlation_bytes};
	}
	struct message *m = message_new(&p, payload, 0, ring_now_ms(rt->ring));
	if (!m)
		return;
	broker_publish(rt->broker, m);
	message_unref(m);
}

/* --- setting up ------------------------------------------------------------------------------- */

static uint64_t now_ms(struct broker *b)
{
	const struct reactor *rt = broker_arg(b);
	return ring_now_ms(rt->ring);
}

static int set_up(struct reactor *rt)
{
	const struct conf *conf = rt->conf;
	struct ring_conf ring = {.entries = RING_ENTRIES, .workers_max = conf->io.workers_max,
		.splices_max = conf->io.splices_max, .syncs_max = conf_syncs_max(conf)};
	struct broker_ops ops = {.send = conn_send, .unsent_bytes = conn_unsent_for_message,
		.forward = forward, .now_ms = now_ms, .timers = &rt->timers, .arg = rt};
	int err = ring_new(&ring, &rt->ring);
	if (!err)
		err = bufs_new(conf->io.buffer_bytes, conf->io.buffers_max, conf->io.pipe_bytes,
			conf->io.pipes_max, &rt->bufs);
	if (!err)
		err = broker_new(conf, rt->idx, &ops, &rt->broker);
	if (!err)
		err = conns_new(rt, &rt->conns);
	if (!err)
		err = retention_new(rt, &rt->retention);
	return err;
}

/* After the last turn. The ring stays: a thread that has posted to it, and whose post has been
 * run, may still be about to look whether it must be woken. */
static void tear_down(struct reactor *rt)
{
	uploads_free(rt->uploads);
	rt->uploads = NULL;
	journal_free(rt->journal);
	rt->journal = NULL;
	retention_free(rt->retention);
	rt->retention = NULL;
	conns_free(rt->conns);
	broker_free(rt->broker);
	bufs_free(rt->bufs);
	free(rt->listeners);
	rt->conns = NULL;
	rt->broker = NULL;
	rt->bufs = NULL;
	rt->listeners = NULL;
}

/* --- the loop --------------------------------------------------------------------------------- */

static uint32_t turn_timeout(struct reactor *rt, bool more)
{
	uint64_t now = ring_now_ms(rt->ring), ms = timers_next_ms(&rt->timers, now);
	uint32_t most = rt->stopping ? TURN_MS_STOPPING : TURN_MS_MAX;
	if (more)
		return 0;
	return ms < most ? (uint32_t)ms : most;
}

static void publish_gauges(struct reactor *rt)
{
	struct broker_stats b;
	broker_stats(rt->broker, &b);
	atomic_store_explicit(&rt->stats.buffers, bufs_used(rt->bufs), memory_order_relaxed);
	atomic_store_explicit(&rt->stats.pipes, pipes_used(rt->bufs), memory_order_relaxed);
	atomic_store_explicit(&rt->stats.sessions, b.sessions, memory_order_relaxed);
	atomic_store_explicit(&rt->stats.subscriptions, b.subscriptions, memory_order_relaxed);
	atomic_store_explicit(&rt->stats.delivered, b.delivered, memory_order_relaxed);
	atomic_store_explicit(&rt->stats.dropped, b.dropped, memory_order_relaxed);
}

/* Returns whether there is more to do at once. */
static bool turn(struct reactor *rt, bool more)
{
	ring_turn(rt->ring, turn_timeout(rt, more));
	timers_expire(&rt->timers, ring_now_ms(rt->ring));
	conns_run(rt->conns);
	bufs_step(rt->bufs);
	/* A waiter that has nothing to wait for is called in here, and answers. */
	journal_flush(rt->journal);
	publish_gauges(rt);
	bool is_left = broker_sweep(rt->broker);
	return conns_are_noted(rt->conns) || is_left;
}

static bool listeners_are_closed(const struct reactor *rt)
{
	for (uint32_t i = 0; rt->listeners && i < rt->conf->listen_count; i++) {
		if (!listener_is_closed(&rt->listeners[i]))
			return false;
	}
	return true;
}

/* Everything of this reactor has come to rest. */
static bool is_through(struct reactor *rt)
{
	return rt->conns->count == 0 && listeners_are_closed(rt) && uploads_is_idle(rt->uploads) &&
		journal_is_idle(rt->journal);
}

static void run(struct reactor *rt)
{
	struct reactors *rs = rt->all;
	bool more = false, counted = false, gave_up = false;
	while (atomic_load(&rs->through) < rs->count) {
		more = turn(rt, more);
		if (!rt->stopping || counted)
			continue;
		uint64_t now = ring_now_ms(rt->ring);
		if (now >= rt->stop_at_ms && !gave_up) {
			gave_up = true;
			conns_end_all(rt->conns);
		}
		if (is_through(rt) || now >= rt->stop_at_ms + FINAL_MS) {
			counted = true;
			atomic_fetch_add(&rs->through, 1);
		}
	}
}

/* Posts that were under way, and operations that only have to be reaped. False: some can't be
 * waited for. */
static bool settle(struct reactor *rt)
{
	uint64_t end_ms = ring_now_ms(rt->ring) + FINAL_MS;
	bool at_rest;
	conns_end_all(rt->conns);
	do {
		turn(rt, true);
		at_rest = is_through(rt) && ring_busy_count(rt->ring) == 0;
	} while (!at_rest && ring_now_ms(rt->ring) < end_ms);
	return at_rest;
}

static void wait_for_all(struct reactors *rs, _Atomic uint32_t *arrived)
{
	pthread_mutex_lock(&rs->lock);
	atomic_fetch_add(arrived, 1);
	pthread_cond_broadcast(&rs->changed);
	while (atomic_load(arrived) < rs->count)
		pthread_cond_wait(&rs->changed, &rs->lock);
	pthread_mutex_unlock(&rs->lock);
}

static void *reactor_main(void *arg)
{
	struct reactor *rt = arg;
	struct reactors *rs = rt->all;
	int err = set_up(rt), none = 0;
	bool at_rest = true;
	if (err)
		atomic_compare_exchange_strong(&rs->err, &none, err);
	wait_for_all(rs, &rs->ready);
	if (atomic_load(&rs->err) == 0) {
		uploads_resume(rt->uploads);
		run(rt);
		at_rest = settle(rt);
	}
	wait_for_all(rs, &rs->settled);
	/* What can't be waited for is still the kernel's: its memory stays until the process
	 * ends. */
	if (at_rest) {
		/* Another reactor's last turn may have posted a will whose time had come. There is no
		 * ring where it could not be set up. */
		if (rt->ring)
			ring_turn(rt->ring, 0);
		tear_down(rt);
	} else {
		log_warn("stopped with operations in flight", LU("reactor", rt->idx), NULL);
		rt->ring = NULL;
	}
	atomic_fetch_add(&rs->ended, 1);
	pthread_kill(rs->owner, SIGUSR2);
	return NULL;
}

/* --- for main --------------------------------------------------------------------------------- */

bool reactors_are_done(const struct reactors *rs)
{
	return atomic_load(&rs->ended) == rs->count;
}

void reactors_free(struct reactors *rs)
{
	if (!rs)
		return;
	for (uint32_t i = 0; i < rs->count; i++)
		pthread_join(rs->threads[i], NULL);
	free(rs->threads);
	pthread_mutex_destroy(&rs->lock);
	pthread_cond_destroy(&rs->changed);
	free(rs);
}

static struct reactors *reactors_new(struct reactor **peers, uint32_t count)
{
	struct reactors *rs = calloc(1, sizeof(*rs));
	if (!rs)
		return NULL;
	rs->threads = calloc(count, sizeof(*rs->threads));
	if (!rs->threads) {
		free(rs);
		return NULL;
	}
	rs->peers = peers;
	rs->count = count;
	rs->owner = pthread_self();
	pthread_mutex_init(&rs->lock, NULL);
	pthread_cond_init(&rs->changed, NULL);
	return rs;
}

int reactors_start(struct reactor **peers, uint32_t count, struct reactors **ret, char *ret_error,
	size_t error_max)
{
	struct reactors *rs = reactors_new(peers, count);
	uint32_t started = 0;
	int err = rs ? 0 : ENOMEM;
	for (; !err && started < count; started += !err) {
		peers[started]->all = rs;
		err = pthread_create(&rs->threads[started], NULL, reactor_main, peers[started]);
	}
	if (rs) {
		pthread_mutex_lock(&rs->lock);
		if (err) {
			rs->count = started; /* those that never began are not waited for */
			atomic_store(&rs->err, -err);
		}
		pthread_cond_broadcast(&rs->changed);
		while (atomic_load(&rs->ready) < rs->count)
			pthread_cond_wait(&rs->changed, &rs->lock);
		pthread_mutex_unlock(&rs->lock);
		err = -atomic_load(&rs->err);
	}
	if (err) {
		snprintf(ret_error, error_max,
			"the reactors can't be started: %s: raise the limits of this process "
			"(LimitNOFILE=, LimitMEMLOCK=, TasksMax= in the unit), or lower reactors "
			"and io.workers", strerror(err));
		reactors_free(rs);
		return -err;
	}
	*ret = rs;
	return 0;
}

static void on_listen(struct op *op)
{
	struct envelope *e = container_of(op, struct envelope, op);
	struct reactor *rt = e->rt;
	uint32_t count = rt->conf->listen_count;
	if (rt->keeps_pipes)
		pipes_open_all(rt->bufs);
	rt->listeners = calloc(count, sizeof(*rt->listeners));
	for (uint32_t i = 0; i < count; i++) {
		struct conf_listener listener;
		conf_listener(rt->conf, i, &listener);
		if (rt->listeners && !rt->stopping)
			listener_start(&rt->listeners[i], rt, e->fds[i],
				listener.durability == CONF_POWER);
		else
			sys_close(e->fds[i]);
	}
	if (rt->stopping) {
		free(rt->listeners);
		rt->listeners = NULL;
	} else if (!rt->listeners) {
		log_error("out of memory: a reactor does not listen", LU("reactor", rt->idx), NULL);
	}
	free(e);
}

void reactors_listen(struct reactors *rs, const int *fds)
{
	for (uint32_t i = 0; i < rs->count; i++) {
		struct reactor *rt = rs->peers[i];
		size_t bytes = rt->conf->listen_count * sizeof(int);
		struct envelope *e = calloc(1, sizeof(*e) + bytes);
		if (!e) {
			log_error("out of memory: a reactor does not listen", LU("reactor", i),
				NULL);
			continue;
		}
		e->fds = memcpy(e + 1, fds + i * rt->conf->listen_count, bytes);
		e->op.done = on_listen;
		e->rt = rt;
		ring_post(rt->ring, &e->op);
	}
}

static void on_stop(struct op *op)
{
	struct reactor *rt = container_of(op, struct envelope, op)->rt;
	rt->stopping = true;
	rt->stop_at_ms = ring_now_ms(rt->ring) + rt->conf->mqtt.drain_ms;
	for (uint32_t i = 0; rt->listeners && i < rt->conf->listen_count; i++)
		listener_stop(&rt->listeners[i]);
	retention_stop(rt->retention);
	conns_drain(rt->conns);
	free(container_of(op, struct envelope, op));
}

void reactors_stop(struct reactors *rs)
{
	for (uint32_t i = 0; i < rs->count; i++) {
		struct envelope *e = calloc(1, sizeof(*e));
		if (!e)
			_exit(1); /* every acknowledged byte is in the journal */
		e->op.done = on_stop;
		e->rt = rs->peers[i];
		ring_post(e->rt->ring, &e->op);
	}
}
