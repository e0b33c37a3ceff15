/*
 * Accepting. One multishot operation; when descriptors or memory run out it is begun again after a
 * moment, since a connection that waits in the backlog would otherwise make it fail at once, again
 * and again.
 */
#include "listener.h"

#include <errno.h>
#include "conn.h"
#include "log.h"

enum { RETRY_MS = 100, LOG_MS = 1000 };

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

static void arm(struct listener *l)
{
	ring_accept_multi(l->rt->ring, &l->op, l->fd);
}

static void on_retry(struct timer *t)
{
	arm(container_of(t, struct listener, retry));
}

static void wait_a_moment(struct listener *l, int err)
{
	uint64_t now_ms = ring_now_ms(l->rt->ring);
	if (now_ms >= l->logged_ms + LOG_MS) {
		log_warn("connections can't be accepted", LE("error", err), NULL);
		l->logged_ms = now_ms;
	}
	if (!l->op.more)
		timers_arm(&l->rt->timers, &l->retry, now_ms + RETRY_MS);
}

static void on_accepted(struct op *op)
{
	struct listener *l = container_of(op, struct listener, op);
	if (op->res >= 0 && l->rt->stopping)
		sys_close(op->res);
	else if (op->res >= 0)
		conn_accept(l->rt, op->res, l->is_power);
	if (op->more)
		return;
	if (l->rt->stopping)
		close_fd(l);
	else if (may_pass(op->res))
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
