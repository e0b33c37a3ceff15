/*
 * Accepting. One multishot operation; when descriptors or memory run out it is begun again after a
 * moment, since a connection that waits in the backlog would otherwise make it fail at once, again
 * and again.
 *
 * With mqtt.connect_rate they are accepted one by one, and none while the daemon is over it: what
 * comes too fast waits in the backlog, where it costs nothing but its place. A multishot operation
 * would empty that as soon as it began. What a full daemon refuses counts, too: accepting and closing
 * is what a flood costs. What is over a limit of its own address takes nothing of the rate: else one
 * that is over mqtt.connect_rate_address would keep all others waiting.
 */
#include "listener.h"

#include <errno.h>
#include <stdatomic.h>
#include "conn.h"
#include "log.h"
#include "pace.h"

enum { RETRY_MS = 100, BATCH_MAX = 64 };

/* Of all listeners: the pace of mqtt.connect_rate. */
static _Atomic uint64_t connects_until_ns;

static bool may_pass(int err)
{
	return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ENOBUFS;
}

static void close_fd(struct listener *l)
{
	if (l->fd >= 0)
		sys_close(l->fd);
	l->fd = -1;
}

/* --- the rate --------------------------------------------------------------------------------- */

static uint64_t rate_wait_ns(const struct listener *l)
{
	struct pace p = {atomic_load(&connects_until_ns)};
	return pace_wait_ns(&p, ring_now_ms(l->rt->ring) * 1000000);
}

static void rate_take(const struct listener *l)
{
	uint64_t was = atomic_load(&connects_until_ns);
	struct pace p;
	do {
		p.until_ns = was;
		pace_take(&p, l->rt->conf->mqtt.connect_rate, 1, ring_now_ms(l->rt->ring) * 1000000);
	} while (!atomic_compare_exchange_weak(&connects_until_ns, &was, p.until_ns));
}

static void take_one(struct listener *l, int fd)
{
	if (conn_accept(l->rt, fd, l->is_power) && l->rt->conf->mqtt.connect_rate)
		rate_take(l);
}

/* Takes what waits behind the one that was accepted, as far as the rate lets it. */
static void take_batch(struct listener *l)
{
	for (uint32_t i = 1; i < BATCH_MAX && rate_wait_ns(l) == 0; i++) {
		int fd = sock_accept(l->fd);
		if (fd < 0)
			return;
		take_one(l, fd);
	}
}

/* --- accepting -------------------------------------------------------------------------------- */

static void arm(struct listener *l)
{
	uint64_t now_ms = ring_now_ms(l->rt->ring), wait_ns = 0;
	if (l->rt->conf->mqtt.connect_rate)
		wait_ns = rate_wait_ns(l);
	if (wait_ns) {
		timers_arm(&l->rt->timers, &l->retry, now_ms + (wait_ns + 999999) / 1000000);
		if (log_is_due(&l->rate_logged_ms, now_ms))
			log_info("connections wait to be accepted: mqtt.connect_rate is reached",
				LU("per_s", l->rt->conf->mqtt.connect_rate), NULL);
	} else if (l->rt->conf->mqtt.connect_rate) {
		ring_accept_one(l->rt->ring, &l->op, l->fd);
	} else {
		ring_accept_multi(l->rt->ring, &l->op, l->fd);
	}
}

static void on_retry(struct timer *t)
{
	arm(container_of(t, struct listener, retry));
}

static void wait_a_moment(struct listener *l, int err)
{
	uint64_t now_ms = ring_now_ms(l->rt->ring);
	if (log_is_due(&l->failed_logged_ms, now_ms))
		log_warn("connections can't be accepted", LE("error", err), NULL);
	if (!l->op.more)
		timers_arm(&l->rt->timers, &l->retry, now_ms + RETRY_MS);
}

static void on_accepted(struct op *op)
{
	struct listener *l = container_of(op, struct listener, op);
	if (op->res >= 0 && l->rt->stopping)
		sys_close(op->res);
	else if (op->res >= 0)
		take_one(l, op->res);
	if (op->more)
		return;
	if (l->rt->stopping) {
		close_fd(l);
		return;
	}
	if (op->res >= 0 && l->rt->conf->mqtt.connect_rate)
		take_batch(l);
	if (may_pass(op->res))
		wait_a_moment(l, op->res);
	else
		arm(l); /* it was gone before it was accepted, or the kernel begins anew */
}

void listener_start(struct listener *l, struct reactor *rt, int fd, bool is_power)
{
	*l = (struct listener){.rt = rt, .op.done = on_accepted, .retry.fire = on_retry, .fd = fd,
		.is_power = is_power};
	arm(l);
}

void listener_stop(struct listener *l)
{
	timers_disarm(&l->rt->timers, &l->retry);
	if (op_is_idle(&l->op))
		close_fd(l);
	else
		ring_cancel(l->rt->ring, &l->op);
}

bool listener_is_closed(const struct listener *l)
{
	return l->fd < 0;
}
