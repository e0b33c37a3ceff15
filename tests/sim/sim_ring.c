/*
 * ring.h without io_uring. An operation is a flight with two events: one at which it happens, one
 * at which it is known; both at chance's time, so operations overtake each other as the kernel's
 * do. Polls, accepts and sends wait for the network in between.
 *
 * A call of ring_call runs on a thread of the ring's, one per lane, one after another, as in ring.c.
 */
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include "sim_sys.h"

enum kind {
	K_NONE, K_ACCEPT, K_POLL, K_SEND, K_SPLICE, K_WRITE, K_WRITEV, K_OPENAT,
	K_FALLOCATE, K_FSYNC, K_SYNC_RANGE, K_UNLINKAT, K_CALL,
};

static const char *const kind_names[] = {"none", "accept", "poll", "send", "splice",
	"write", "writev", "openat", "fallocate", "fsync", "write-behind", "unlinkat",
	"call"};

enum { BATCH_MAX = 64 };

struct flight {
	struct flight *next, *done_next;
	struct ring *ring;
	struct op *op;
	uint64_t number;        /* events carry it: a flight's memory is used again */
	bool happened;
	int32_t res;
	bool more;
};

struct ring {
	struct ring *next;
	uint64_t now_ms;
	uint32_t busy;
	struct sim_thread *thread;      /* that turns it; waits in ring_turn, if parked */
	struct flight *flights;         /* queued or under way */
	struct op *queued, **queued_tail;
	struct flight *done, **done_tail;
	struct op *posts, **posts_tail;
	struct lane {
		struct ring *ring;
		struct sim_thread *thread;
		struct op *calls, **calls_tail;
	} lanes[RING_LANES];
	bool stop;
};

static struct ring *rings;
static struct flight *free_flights;
static uint64_t flights_count;

static void on_happen(void *arg, uint64_t num);

/* --- flights ---------------------------------------------------------------------------------- */

static struct flight *flight_new(struct ring *r, struct op *op)
{
	struct flight *f = free_flights;
	if (f)
		free_flights = f->next;
	else
		f = sim_alloc(sizeof(*f));
	*f = (struct flight){.next = r->flights, .ring = r, .op = op, .number = ++flights_count};
	r->flights = f;
	return f;
}

static void flight_free(struct flight *f)
{
	struct flight **p = &f->ring->flights;
	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	f->number = 0;
	f->next = free_flights;
	free_flights = f;
}

static void on_known(void *arg, uint64_t num)
{
	struct flight *f = arg;
	if (f->number != num)
		return;
	f->done_next = NULL;
	*f->ring->done_tail = f;
	f->ring->done_tail = &f->done_next;
	sim_wake(f->ring->thread);
}

/* It has happened; the ring hears of it later. */
static void known_later(struct flight *f, int32_t res)
{
	f->happened = true;
	f->res = res;
	sim_after(sim_skewed(200, 100000), true, on_known, f, f->number);
}

/* --- what happens ----------------------------------------------------------------------------- */

static struct inode *file_of(int fd)
{
	return sim_fd_get(fd, FD_FILE)->inode;
}

static int32_t happen_splice(const struct op *op)
{
	struct sim_pipe *p = sim_fd_get(op->fd, FD_PIPE_OUT)->pipe;
	uint32_t len = p->bytes < op->len ? p->bytes : op->len;
	if (len == 0)
		return -EAGAIN;
	int64_t n = inode_write(file_of(op->fd2), p->data + p->begin, len, op->off);
	if (n > 0) {
		p->begin += (uint32_t)n;
		p->bytes -= (uint32_t)n;
	}
	return (int32_t)n;
}

static void begins(const struct op *op)
{
	struct iovec one = {(void *)(uintptr_t)op->ptr, op->len};
	if (op->kind == K_SPLICE) {
		const struct sim_pipe *p = sim_fd_get(op->fd, FD_PIPE_OUT)->pipe;
		one = (struct iovec){p->data + p->begin, p->bytes < op->len ? p->bytes : op->len};
		sim_write_begins(op->fd2, &one, 1, op->off);
	} else if (op->kind == K_WRITE) {
		sim_write_begins(op->fd, &one, 1, op->off);
	} else if (op->kind == K_WRITEV) {
		sim_write_begins(op->fd, op->ptr, op->len, op->off);
	}
}

static int32_t happen(const struct op *op)
{
	switch ((enum kind)op->kind) {
	case K_SPLICE:
		return happen_splice(op);
	case K_WRITE:
		return (int32_t)inode_write(file_of(op->fd), op->ptr, op->len, op->off);
	case K_WRITEV:
		return sim_writev(op->fd, op->ptr, op->len, op->off);
	case K_OPENAT:
		return sim_openat(op->fd, op->ptr, (int)op->flags);
	case K_FALLOCATE:
		return inode_allocate(file_of(op->fd), op->off, (uint64_t)(uintptr_t)op->ptr);
	case K_FSYNC:
		return inode_sync(file_of(op->fd));
	case K_SYNC_RANGE:
		(void)file_of(op->fd);
		return 0;
	case K_UNLINKAT:
		return sim_unlinkat(op->fd, op->ptr, (int)op->flags);
	case K_ACCEPT:
	case K_POLL:
	case K_SEND:
	case K_CALL:
	case K_NONE:
		break;
	}
	sim_fail("an operation of kind %d", op->kind);
}

/* --- what waits for the network --------------------------------------------------------------- */

static void on_acceptable(void *arg);

static void accept_next(struct flight *f)
{
	struct sock *s = net_accept();
	if (!s) {
		net_want_accept(f->op->fd, on_acceptable, f);
		return;
	}
	f->more = f->op->flags == 0;
	known_later(f, sim_fd_of_sock(s));
}

static void on_acceptable(void *arg)
{
	accept_next(arg);
}

static void on_readable(void *arg)
{
	known_later(arg, POLLIN);
}

static void send_some(void *arg)
{
	struct flight *f = arg;
	const struct op *op = f->op;
	struct sock *s = sim_fd_get(op->fd, FD_SOCK)->sock;
	int n = sock_put(s, op->ptr, op->len);
	if (n == -EAGAIN)
		sock_want_write(s, send_some, f);
	else
		known_later(f, n);
}

static void poll_some(struct flight *f)
{
	struct sock *s = sim_fd_get(f->op->fd, FD_SOCK)->sock;
	if (sock_is_readable(s))
		known_later(f, POLLIN);
	else
		sock_want_read(s, on_readable, f);
}

static void on_happen(void *arg, uint64_t num)
{
	struct flight *f = arg;
	if (f->number != num || f->happened)
		return;
	if (f->op->kind == K_ACCEPT) {
		(void)sim_fd_get(f->op->fd, FD_LISTEN);
		accept_next(f);
	} else if (f->op->kind == K_POLL) {
		poll_some(f);
	} else if (f->op->kind == K_SEND) {
		send_some(f);
	} else {
		known_later(f, happen(f->op));
		SIM_TRACE("happens", f->op->kind, f->res, "ring  %s(%d) = %d",
			kind_names[f->op->kind], f->op->fd, f->res);
	}
}

/* --- the turn --------------------------------------------------------------------------------- */

static void list_push(struct op *op, struct op ***tail)
{
	op->next = NULL;
	**tail = op;
	*tail = &op->next;
}

static struct op *list_take(struct op **head, struct op ***tail)
{
	struct op *all = *head;
	*head = NULL;
	*tail = head;
	return all;
}

int ring_check_kernel(char *ret_error, size_t error_max)
{
	(void)ret_error;
	(void)error_max;
	return 0;
}

int ring_new(const struct ring_conf *conf, struct ring **ret)
{
	struct ring *r = sim_alloc(sizeof(*r));
	(void)conf;
	r->queued_tail = &r->queued;
	r->done_tail = &r->done;
	r->posts_tail = &r->posts;
	for (int i = 0; i < RING_LANES; i++)
		r->lanes[i] = (struct lane){.ring = r, .calls_tail = &r->lanes[i].calls};
	r->thread = sim_thread_self();
	r->now_ms = sys_mono_ms();
	r->next = rings;
	rings = r;
	*ret = r;
	return 0;
}

static void ring_release(struct ring *r)
{
	struct ring **p = &rings;
	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	while (r->flights)
		flight_free(r->flights);
	sim_free(r);
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	if (r->flights || r->queued)
		sim_fail("a ring is freed with operations under way");
	r->stop = true;
	for (int i = 0; i < RING_LANES; i++) {
		struct sim_thread *t = r->lanes[i].thread;
		if (t)
			sim_wake(t);
		while (t && !sim_thread_is_done(t))
			sim_park(UINT64_MAX);
	}
	ring_release(r);
}

static void submit(struct ring *r)
{
	struct op *op = list_take(&r->queued, &r->queued_tail);
	while (op) {
		struct op *next = op->next;
		struct flight *f = flight_new(r, op);
		bool is_file = op->kind > K_SEND;
		op->next = NULL;
		op->state = OP_INFLIGHT;
		if (op->cancelled) {
			known_later(f, -ECANCELED);
			op = next;
			continue;
		}
		begins(op);
		sim_after(sim_skewed(300, is_file ? 3 * SIM_MS : 50000), true, on_happen, f, f->number);
		op = next;
	}
}

static void finish(struct ring *r, struct flight *f)
{
	struct op *op = f->op;
	bool more = f->more && !op->cancelled;
	op->res = f->res;
	op->more = more;
	if (more) {
		f->more = false;
		f->happened = false;
		accept_next(f);
	} else {
		flight_free(f);
		op->state = OP_IDLE;
		r->busy--;
	}
	op->done(op);
}

static void run_posts(struct ring *r)
{
	struct op *op = list_take(&r->posts, &r->posts_tail);
	while (op) {
		struct op *next = op->next;
		op->next = NULL;
		op->state = OP_IDLE;
		op->more = false;
		if (op->kind == K_CALL) {
			r->busy--;
			op->kind = K_NONE;
		}
		op->done(op);
		op = next;
	}
}

void ring_turn(struct ring *r, uint32_t timeout_ms)
{
	submit(r);
	if (timeout_ms > 0 && !r->done && !r->posts)
		sim_park(timeout_ms * SIM_MS);
	else
		sim_sleep(sim_skewed(200, 20000));
	r->now_ms = sys_mono_ms();
	for (uint32_t n = 1 + sim_below(BATCH_MAX); n > 0 && r->done; n--) {
		struct flight *f = r->done;
		r->done = f->done_next;
		if (!r->done)
			r->done_tail = &r->done;
		finish(r, f);
	}
	run_posts(r);
}

uint32_t ring_busy_count(const struct ring *r)
{
	return r->busy;
}

uint64_t ring_now_ms(const struct ring *r)
{
	return r->now_ms;
}

void ring_post(struct ring *to, struct op *op)
{
	assert(op->state == OP_IDLE && op->done);
	op->state = OP_QUEUED;
	list_push(op, &to->posts_tail);
	sim_wake(to->thread);
}

void ring_cancel(struct ring *r, struct op *op)
{
	if (op->state == OP_IDLE || op->cancelled)
		return;
	op->cancelled = true;
	for (struct flight *f = r->flights; f; f = f->next) {
		/* An operation on the disk that has not begun may end before it does. */
		if (f->op != op || f->happened || (op->kind > K_SEND && sim_chance(5000)))
			continue;
		if (op->kind == K_ACCEPT)
			net_want_accept(op->fd, NULL, NULL);
		else if (op->kind == K_POLL)
			sock_want_read(sim_fd_get(op->fd, FD_SOCK)->sock, NULL, NULL);
		else if (op->kind == K_SEND)
			sock_want_write(sim_fd_get(op->fd, FD_SOCK)->sock, NULL, NULL);
		known_later(f, -ECANCELED);
		return;
	}
}

/* --- queueing --------------------------------------------------------------------------------- */

static void queue(struct ring *r, struct op *op, enum kind kind, int fd)
{
	assert(op->state == OP_IDLE && op->done);
	op->kind = (uint8_t)kind;
	op->fd = fd;
	op->state = OP_QUEUED;
	op->cancelled = op->dropped = false;
	r->busy++;
	list_push(op, &r->queued_tail);
}

void ring_accept_multi(struct ring *r, struct op *op, int fd)
{
	op->flags = 0;
	queue(r, op, K_ACCEPT, fd);
}

void ring_accept_one(struct ring *r, struct op *op, int fd)
{
	op->flags = 1;
	queue(r, op, K_ACCEPT, fd);
}

void ring_poll_in(struct ring *r, struct op *op, int fd)
{
	queue(r, op, K_POLL, fd);
}

void ring_send(struct ring *r, struct op *op, int fd, const void *buf, uint32_t len)
{
	op->ptr = buf;
	op->len = len;
	queue(r, op, K_SEND, fd);
}

void ring_splice(struct ring *r, struct op *op, int pipe_fd, int file_fd, uint64_t file_off, uint32_t len)
{
	op->fd2 = file_fd;
	op->off = file_off;
	op->len = len;
	queue(r, op, K_SPLICE, pipe_fd);
}

static void queue_io(struct ring *r, struct op *op, enum kind kind, int fd, const void *buf, uint32_t len,
	uint64_t off)
{
	op->ptr = buf;
	op->len = len;
	op->off = off;
	queue(r, op, kind, fd);
}

void ring_write(struct ring *r, struct op *op, int fd, const void *buf, uint32_t len, uint64_t off)
{
	queue_io(r, op, K_WRITE, fd, buf, len, off);
}

void ring_writev(struct ring *r, struct op *op, int fd, const struct iovec *iov, uint32_t iov_count,
	uint64_t off)
{
	queue_io(r, op, K_WRITEV, fd, iov, iov_count, off);
}

void ring_openat(struct ring *r, struct op *op, int dir_fd, const char *path, int flags, uint32_t mode)
{
	op->ptr = path;
	op->flags = (uint32_t)flags;
	op->len = mode;
	queue(r, op, K_OPENAT, dir_fd);
}

void ring_fallocate(struct ring *r, struct op *op, int fd, int mode, uint64_t off, uint64_t len)
{
	op->flags = (uint32_t)mode;
	op->off = off;
	op->ptr = (const void *)(uintptr_t)len;
	queue(r, op, K_FALLOCATE, fd);
}

void ring_fsync(struct ring *r, struct op *op, int fd)
{
	queue(r, op, K_FSYNC, fd);
}

void ring_fdatasync(struct ring *r, struct op *op, int fd)
{
	queue(r, op, K_FSYNC, fd);
}

/* There is no cap here. */
void ring_fdatasync_now(struct ring *r, struct op *op, int fd)
{
	ring_fdatasync(r, op, fd);
}

void ring_write_behind(struct ring *r, struct op *op, int fd, uint64_t off, uint32_t len)
{
	op->off = off;
	op->len = len;
	queue(r, op, K_SYNC_RANGE, fd);
}

void ring_unlinkat(struct ring *r, struct op *op, int dir_fd, const char *path, int flags)
{
	op->ptr = path;
	op->flags = (uint32_t)flags;
	queue(r, op, K_UNLINKAT, dir_fd);
}

/* --- blocking calls --------------------------------------------------------------------------- */

static void *lane_main(void *arg)
{
	struct lane *l = arg;
	struct ring *r = l->ring;
	while (!r->stop || l->calls) {
		struct op *op = l->calls;
		if (!op) {
			sim_park(UINT64_MAX);
			continue;
		}
		l->calls = op->next;
		if (!l->calls)
			l->calls_tail = &l->calls;
		op->res = ((op_call_fn *)op->ptr2)(op);
		if (op->ptr)
			((op_after_fn *)op->ptr)(&op, 1);
		list_push(op, &r->posts_tail);
		sim_wake(r->thread);
	}
	return NULL;
}

void ring_call_then(struct ring *r, struct op *op, enum ring_lane lane, op_call_fn *fn,
	op_after_fn *after)
{
	struct lane *l = &r->lanes[lane];
	assert(op->state == OP_IDLE && op->done);
	op->kind = K_CALL;
	op->state = OP_QUEUED;
	op->cancelled = op->dropped = false;
	op->ptr = (const void *)after;
	op->ptr2 = (const void *)fn;
	r->busy++;
	list_push(op, &l->calls_tail);
	if (l->thread)
		sim_wake(l->thread);
	else
		l->thread = sim_thread_start(lane_main, l);
}

void ring_call(struct ring *r, struct op *op, enum ring_lane lane, op_call_fn *fn)
{
	ring_call_then(r, op, lane, fn, NULL);
}

static int call_ftruncate(struct op *op)
{
	return sys_ftruncate(op->fd, op->off);
}

void ring_ftruncate(struct ring *r, struct op *op, int fd, uint64_t len)
{
	op->fd = fd;
	op->off = len;
	ring_call(r, op, RING_RARE, call_ftruncate);
}

/* --- the end of the process ------------------------------------------------------------------- */

void sim_rings_crash(void)
{
	while (rings) {
		struct ring *r = rings;
		/* What the kernel had begun it may have finished, or part of it. */
		disk.dying = true;
		for (struct flight *f = r->flights; f; f = f->next) {
			if (!f->happened && f->op->kind > K_SEND && sim_chance(5000))
				(void)happen(f->op);
		}
		disk.dying = false;
		ring_release(r);
	}
}

void sim_rings_drop(void)
{
	while (rings)
		ring_release(rings);
}
