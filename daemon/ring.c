/*
 * ring.h on io_uring.
 *
 * Queued operations wait on one of three lists: those that may go at once, splices into files, and
 * syncs. The last two are capped, because the kernel runs each of them in a worker that may be
 * stuck behind a slow disk for seconds; the cap leaves workers for the journal and for opening files.
 * A turn fills submission entries from the lists, submits, waits, copies a bounded batch of
 * completions, and only then runs their done: so done may queue anything.
 *
 * Posts from other threads go through a lock-free stack, turned round when it is taken (so each
 * poster's order is kept), and an eventfd that is written only when the ring's thread may be
 * asleep.
 *
 * Blocking calls run on the ring's own threads, one per lane, which start with the ring: there, a
 * limit on threads can still be reported. A call for a thread that is busy wakes nobody, and a
 * lane of short calls posts the results of several together: under load, an operation there costs
 * its system call and no switch of threads. (One in the kernel's pool of workers was seen to cost
 * 20 to 50 µs of them, several times the call.)
 *
 * Files are not registered with the ring: that saves two atomic operations each time, and a GB in 1 MiB
 * segments takes some thousands of operations, of the third of a second that it costs.
 *
 * CQE flags are read here and nowhere else. The kernel's restart codes, which a worker hit by a
 * signal may return, are mapped to −EINTR, and an interrupted operation that has done nothing yet
 * is simply queued again: but for what was cancelled, which is how a cancel ends a waiting worker.
 */
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

enum op_kind {
	K_NONE, K_ACCEPT, K_POLL, K_SEND, K_SPLICE, K_WRITE, K_WRITEV, K_OPENAT,
	K_FALLOCATE, K_FSYNC, K_FSYNC_NOW, K_SYNC_RANGE, K_UNLINKAT, K_CALL,
};

enum { BATCH_MAX = 256, CANCEL_TAG = 1, WANTS_MIN = 64 };

struct op_list {
	struct op *head, **tail;
};

struct helper {
	struct ring *ring;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct op_list calls;
	uint32_t posts_together; /* results, at most */
	bool stop;
};

struct ring {
	struct io_uring uring;
	uint64_t now_ms;
	uint32_t busy;                 /* queued or in flight, the ring's own left out */
	struct op_list ready, splices, syncs;
	uint32_t splices_inflight, splices_max;
	uint32_t syncs_inflight, syncs_max;
	struct op **wants;             /* cancel requests not yet submitted */
	uint32_t wants_count, wants_max;
	/* posts */
	_Atomic(struct op *) inbox;
	atomic_bool asleep;
	int event_fd;
	struct op event_op;
	struct helper helpers[RING_LANES];
};

static void list_init(struct op_list *l)
{
	l->head = NULL;
	l->tail = &l->head;
}

static void list_push(struct op_list *l, struct op *op)
{
	op->next = NULL;
	*l->tail = op;
	l->tail = &op->next;
}

static struct op *list_pop(struct op_list *l)
{
	struct op *op = l->head;
	if (op) {
		l->head = op->next;
		if (!l->head)
			l->tail = &l->head;
		op->next = NULL;
	}
	return op;
}

/* --- start and end ---------------------------------------------------------------------------- */

static void helper_init(struct helper *h, struct ring *r, uint32_t posts_together)
{
	h->ring = r;
	h->posts_together = posts_together;
	list_init(&h->calls);
	pthread_mutex_init(&h->lock, NULL);
	pthread_cond_init(&h->wake, NULL);
}

static void *helper_main(void *arg);

static int helper_start(struct helper *h)
{
	int err = pthread_create(&h->thread, NULL, helper_main, h);
	h->started = err == 0;
	return -err;
}

static void helper_fini(struct helper *h)
{
	if (h->started) {
		pthread_mutex_lock(&h->lock);
		h->stop = true;
		pthread_cond_signal(&h->wake);
		pthread_mutex_unlock(&h->lock);
		pthread_join(h->thread, NULL);
	}
	pthread_mutex_destroy(&h->lock);
	pthread_cond_destroy(&h->wake);
}

static int uring_init(struct io_uring *u, uint32_t entries)
{
	static const unsigned wishes[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CLAMP,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CLAMP,
		IORING_SETUP_CLAMP,
	};
	int err = -EINVAL;
	for (unsigned i = 0; i < sizeof(wishes) / sizeof(wishes[0]); i++) {
		struct io_uring_params p = {.flags = wishes[i] | IORING_SETUP_CQSIZE,
			.cq_entries = entries * 8};
		err = io_uring_queue_init_params(entries, u, &p);
		if (err != -EINVAL)
			return err;
	}
	return err;
}

static bool opcodes_present(void)
{
	static const int needed[] = {IORING_OP_ACCEPT, IORING_OP_POLL_ADD, IORING_OP_SEND,
		IORING_OP_SPLICE, IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_OPENAT,
		IORING_OP_FALLOCATE, IORING_OP_FSYNC, IORING_OP_SYNC_FILE_RANGE,
		IORING_OP_UNLINKAT, IORING_OP_ASYNC_CANCEL};
	struct io_uring_probe *probe = io_uring_get_probe();
	if (!probe)
		return false;
	bool all = true;
	for (unsigned i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		all = all && io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	return all;
}

int ring_check_kernel(char *ret_error, size_t error_max)
{
	struct utsname uts;
	unsigned major = 0, minor = 0;
	if (uname(&uts) == 0 && sscanf(uts.release, "%u.%u", &major, &minor) == 2 &&
		(major < 6 || (major == 6 && minor < 1))) {
		snprintf(ret_error, error_max,
			"this kernel is Linux %s, but sluiced needs 6.1 or newer: upgrade the kernel "
			"(Debian 12 has 6.1)", uts.release);
		return -ENOSYS;
	}
	struct io_uring u;
	int err = uring_init(&u, 64);
	switch (err) {
	case 0:
		break;
	case -EPERM:
		snprintf(ret_error, error_max,
			"io_uring is switched off for this process: set kernel.io_uring_disabled to 0 "
			"with sysctl, or allow io_uring_setup in the container's seccomp profile");
		return err;
	case -ENOSYS:
		snprintf(ret_error, error_max,
			"io_uring is not available: use a kernel built with CONFIG_IO_URING, or allow "
			"io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp "
			"profile");
		return err;
	case -ENOMEM:
		snprintf(ret_error, error_max,
			"too little locked memory for io_uring: raise it (LimitMEMLOCK= in the unit, "
			"or ulimit -l) to 8 MiB or more");
		return err;
	case -EMFILE:
	case -ENFILE:
		snprintf(ret_error, error_max,
			"too few file descriptors: raise the limit (LimitNOFILE= in the unit, or ulimit -n)");
		return err;
	default:
		snprintf(ret_error, error_max, "io_uring could not be set up: %s", strerror(-err));
		return err;
	}
	io_uring_queue_exit(&u);
	if (opcodes_present())
		return 0;
	snprintf(ret_error, error_max,
		"this kernel's io_uring lacks operations that sluiced needs: upgrade to Linux 6.1 or newer");
	return -ENOSYS;
}

static void enqueue(struct ring *r, struct op *op)
{
	assert(op->state == OP_IDLE && op->done);
	op->state = OP_QUEUED;
	op->cancelled = op->dropped = false;
	if (op != &r->event_op)
		r->busy++;
	switch ((enum op_kind)op->kind) {
	case K_SPLICE:
		list_push(&r->splices, op);
		break;
	case K_FSYNC:
	case K_SYNC_RANGE:
		list_push(&r->syncs, op);
		break;
	default:
		list_push(&r->ready, op);
	}
}

static void on_event(struct op *op);

static void arm_event(struct ring *r)
{
	r->event_op.done = on_event;
	r->event_op.kind = K_POLL;
	r->event_op.fd = r->event_fd;
	r->event_op.ptr = r;
	enqueue(r, &r->event_op);
}

static void on_event(struct op *op)
{
	struct ring *r = (struct ring *)op->ptr;
	uint64_t count;
	if (read(r->event_fd, &count, sizeof(count)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
	arm_event(r);
}

int ring_new(const struct ring_conf *conf, struct ring **ret)
{
	struct ring *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	/* Enough for the end of a daemon that has few connections, which then needs no memory. */
	r->wants = malloc(WANTS_MIN * sizeof(*r->wants));
	if (!r->wants) {
		free(r);
		return -ENOMEM;
	}
	r->wants_max = WANTS_MIN;
	list_init(&r->ready);
	list_init(&r->splices);
	list_init(&r->syncs);
	r->splices_max = conf->splices_max;
	r->syncs_max = conf->syncs_max;
	r->now_ms = sys_mono_ms();
	int err = uring_init(&r->uring, conf->entries);
	if (err) {
		free(r->wants);
		free(r);
		return err;
	}
	/* Bounded workers run file operations, unbounded ones the rest; 0 leaves a value as it
	 * is. */
	unsigned workers[2] = {conf->workers_max, 0};
	(void)io_uring_register_iowq_max_workers(&r->uring, workers);
	(void)io_uring_register_ring_fd(&r->uring);
	r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->event_fd < 0) {
		err = -errno;
		io_uring_queue_exit(&r->uring);
		free(r->wants);
		free(r);
		return err;
	}
	for (int i = 0; i < RING_LANES; i++)
		helper_init(&r->helpers[i], r, i == RING_FILES ? RING_TOGETHER_MAX : 1);
	for (int i = 0; !err && i < RING_LANES; i++)
		err = helper_start(&r->helpers[i]);
	if (err) {
		ring_free(r);
		return err;
	}
	arm_event(r);
	*ret = r;
	return 0;
}

void ring_free(struct ring *r)
{
	if (!r)
		return;
	for (int i = 0; i < RING_LANES; i++)
		helper_fini(&r->helpers[i]);
	io_uring_queue_exit(&r->uring);
	close(r->event_fd);
	free(r->wants);
	free(r);
}

/* --- the turn --------------------------------------------------------------------------------- */

static void prep(struct io_uring_sqe *sqe, struct op *op)
{
	switch ((enum op_kind)op->kind) {
	case K_ACCEPT:
		if (op->flags)
			io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		else
			io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL,
				SOCK_NONBLOCK | SOCK_CLOEXEC);
		break;
	case K_POLL:
		io_uring_prep_poll_add(sqe, op->fd, POLLIN);
		break;
	case K_SEND:
		io_uring_prep_send(sqe, op->fd, op->ptr, op->len, MSG_NOSIGNAL);
		break;
	case K_SPLICE:
		io_uring_prep_splice(sqe, op->fd, -1, op->fd2, (int64_t)op->off, op->len, SPLICE_F_MOVE);
		break;
	case K_WRITE:
		io_uring_prep_write(sqe, op->fd, op->ptr, op->len, op->off);
		break;
	case K_WRITEV:
		io_uring_prep_writev(sqe, op->fd, op->ptr, op->len, op->off);
		break;
	case K_OPENAT:
		io_uring_prep_openat(sqe, op->fd, op->ptr, (int)op->flags, op->len);
		break;
	case K_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, (int)op->flags, (off_t)op->off, (off_t)(uintptr_t)op->ptr);
		break;
	case K_FSYNC:
	case K_FSYNC_NOW:
		io_uring_prep_fsync(sqe, op->fd, op->flags);
		break;
	case K_SYNC_RANGE:
		io_uring_prep_sync_file_range(sqe, op->fd, op->len, op->off, (int)op->flags);
		break;
	case K_UNLINKAT:
		io_uring_prep_unlinkat(sqe, op->fd, op->ptr, (int)op->flags);
		break;
	case K_CALL:
	case K_NONE:
		assert(!"an operation that is not the kernel's");
	}
	io_uring_sqe_set_data(sqe, op);
}

static bool submit_from(struct ring *r, struct op_list *l)
{
	if (!l->head)
		return false;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
	if (!sqe)
		return false;
	struct op *op = list_pop(l);
	op->state = OP_INFLIGHT;
	op->dropped = op->cancelled;
	if (op->dropped) {
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, op);
	} else {
		prep(sqe, op);
	}
	return true;
}

static void fill_sqes(struct ring *r)
{
	while (r->wants_count > 0) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);
		if (!sqe)
			return;
		io_uring_prep_cancel(sqe, r->wants[--r->wants_count], 0);
		io_uring_sqe_set_data64(sqe, CANCEL_TAG);
	}
	while (submit_from(r, &r->ready))
		;
	while (r->splices_inflight < r->splices_max && submit_from(r, &r->splices))
		r->splices_inflight++;
	while (r->syncs_inflight < r->syncs_max && submit_from(r, &r->syncs))
		r->syncs_inflight++;
}

/* Is something left that only the size of the submission queue held back? Then a turn must not
 * sleep. */
static bool has_pending(const struct ring *r)
{
	return r->ready.head || r->wants_count > 0 ||
		(r->splices.head && r->splices_inflight < r->splices_max) ||
		(r->syncs.head && r->syncs_inflight < r->syncs_max);
}

/* A cancel that has not been submitted yet must not meet the next operation at the same address. */
static void forget_want(struct ring *r, const struct op *op)
{
	for (uint32_t i = 0; i < r->wants_count; i++) {
		if (r->wants[i] == op)
			r->wants[i--] = r->wants[--r->wants_count];
	}
}

static void finish(struct ring *r, struct op *op, int32_t res, bool more)
{
	/* −512…−516 are the kernel's own restart codes, which leak from workers hit by a signal. */
	if (res <= -512 && res >= -516)
		res = -EINTR;
	if (op->dropped || (res == -EINTR && op->cancelled))
		res = -ECANCELED;
	bool again = res == -EINTR && !more;
	op->res = res;
	op->more = more;
	if (!more) {
		if (op->kind == K_SPLICE)
			r->splices_inflight--;
		else if (op->kind == K_FSYNC || op->kind == K_SYNC_RANGE)
			r->syncs_inflight--;
		op->state = OP_IDLE;
		if (op->cancelled && r->wants_count)
			forget_want(r, op);
		if (op != &r->event_op)
			r->busy--;
	}
	if (again)
		enqueue(r, op);
	else
		op->done(op);
}

static void run_posts(struct ring *r)
{
	struct op *stack = atomic_exchange(&r->inbox, NULL), *fifo = NULL;
	while (stack) {
		struct op *next = stack->next;
		stack->next = fifo;
		fifo = stack;
		stack = next;
	}
	while (fifo) {
		struct op *op = fifo;
		fifo = op->next;
		op->next = NULL;
		op->state = OP_IDLE;
		op->more = false;
		if (op->kind == K_CALL) {
			r->busy--;
			op->kind = K_NONE;
		}
		op->done(op);
	}
}

struct done {
	struct op *op;
	int32_t res;
	bool more;
};

static unsigned reap(struct ring *r, struct done *batch)
{
	struct io_uring_cqe *cqes[BATCH_MAX];
	unsigned n = io_uring_peek_batch_cqe(&r->uring, cqes, BATCH_MAX), count = 0;
	for (unsigned i = 0; i < n; i++) {
		if (cqes[i]->user_data == CANCEL_TAG)
			continue;
		batch[count++] = (struct done){.op = io_uring_cqe_get_data(cqes[i]),
			.res = cqes[i]->res, .more = cqes[i]->flags & IORING_CQE_F_MORE};
	}
	io_uring_cq_advance(&r->uring, n);
	return count;
}

void ring_turn(struct ring *r, uint32_t timeout_ms)
{
	struct done batch[BATCH_MAX];
	fill_sqes(r);
	bool pending = has_pending(r);
	if (timeout_ms > 0 && !pending) {
		atomic_store(&r->asleep, true);
		if (atomic_load(&r->inbox))
			timeout_ms = 0;
	}
	if (timeout_ms > 0 && !pending) {
		struct io_uring_cqe *cqe;
		struct __kernel_timespec ts = {.tv_sec = timeout_ms / 1000,
			.tv_nsec = (long long)(timeout_ms % 1000) * 1000000};
		int err = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
		assert(err >= 0 || err == -ETIME || err == -EINTR || err == -EAGAIN || err == -EBUSY);
	} else {
		int err = io_uring_submit_and_get_events(&r->uring);
		assert(err >= 0 || err == -EINTR || err == -EAGAIN || err == -EBUSY);
	}
	atomic_store(&r->asleep, false);
	r->now_ms = sys_mono_ms();
	unsigned n = reap(r, batch);
	for (unsigned i = 0; i < n; i++)
		finish(r, batch[i].op, batch[i].res, batch[i].more);
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

/* From the newest to the oldest, linked by next. */
static void post(struct ring *to, struct op *newest, struct op *oldest)
{
	struct op *head = atomic_load_explicit(&to->inbox, memory_order_relaxed);
	do
		oldest->next = head;
	while (!atomic_compare_exchange_weak(&to->inbox, &head, newest));
	if (atomic_exchange(&to->asleep, false)) {
		uint64_t one = 1;
		if (write(to->event_fd, &one, sizeof(one)) < 0)
			assert(errno == EAGAIN);
	}
}

void ring_post(struct ring *to, struct op *op)
{
	assert(op->state == OP_IDLE && op->done);
	op->state = OP_QUEUED;
	post(to, op, op);
}

void ring_cancel(struct ring *r, struct op *op)
{
	if (op->state == OP_IDLE || op->cancelled)
		return;
	op->cancelled = true;
	if (op->kind == K_CALL)
		return;
	if (op->state == OP_QUEUED)
		return; /* submit_from sees the mark: the kernel never gets to see the operation */
	if (r->wants_count == r->wants_max) {
		uint32_t max = r->wants_max * 2;
		struct op **wants = realloc(r->wants, max * sizeof(*wants));
		assert(wants);
		r->wants = wants;
		r->wants_max = max;
	}
	r->wants[r->wants_count++] = op;
}

/* --- queueing --------------------------------------------------------------------------------- */

static void queue(struct ring *r, struct op *op, enum op_kind kind, int fd)
{
	op->kind = (uint8_t)kind;
	op->fd = fd;
	enqueue(r, op);
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

static void queue_write(struct ring *r, struct op *op, enum op_kind kind, int fd, const void *buf,
	uint32_t len, uint64_t off)
{
	op->ptr = buf;
	op->len = len;
	op->off = off;
	queue(r, op, kind, fd);
}

void ring_write(struct ring *r, struct op *op, int fd, const void *buf, uint32_t len, uint64_t off)
{
	queue_write(r, op, K_WRITE, fd, buf, len, off);
}

void ring_writev(struct ring *r, struct op *op, int fd, const struct iovec *iov, uint32_t iov_count,
	uint64_t off)
{
	queue_write(r, op, K_WRITEV, fd, iov, iov_count, off);
}

void ring_openat(struct ring *r, struct op *op, int dir_fd, const char *path, int flags, uint32_t mode)
{
	op->ptr = path;
	op->flags = (uint32_t)(flags | O_CLOEXEC);
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
	op->flags = 0;
	queue(r, op, K_FSYNC, fd);
}

void ring_fdatasync(struct ring *r, struct op *op, int fd)
{
	op->flags = IORING_FSYNC_DATASYNC;
	queue(r, op, K_FSYNC, fd);
}

void ring_fdatasync_now(struct ring *r, struct op *op, int fd)
{
	op->flags = IORING_FSYNC_DATASYNC;
	queue(r, op, K_FSYNC_NOW, fd);
}

void ring_write_behind(struct ring *r, struct op *op, int fd, uint64_t off, uint32_t len)
{
	op->off = off;
	op->len = len;
	op->flags = SYNC_FILE_RANGE_WRITE;
	queue(r, op, K_SYNC_RANGE, fd);
}

void ring_unlinkat(struct ring *r, struct op *op, int dir_fd, const char *path, int flags)
{
	op->ptr = path;
	op->flags = (uint32_t)flags;
	queue(r, op, K_UNLINKAT, dir_fd);
}

/* --- the helper threads ----------------------------------------------------------------------- */

/* What comes after calls: op->ptr is the function. */
static void run_after(struct op *calls)
{
	struct op *same[RING_TOGETHER_MAX];
	size_t count = 0;
	for (struct op *op = calls; op; op = op->next) {
		if (op->ptr)
			same[count++] = op;
		if (count > 0 && (!op->next || op->next->ptr != same[0]->ptr)) {
			((op_after_fn *)same[0]->ptr)(same, count);
			count = 0;
		}
	}
}

/* Calls in a helper's hands: op->ptr2 is the function. The results come back as posts of kind
 * K_CALL, so that busy is counted down on the ring's own thread. */
static void run_calls(struct helper *h, struct op *calls)
{
	struct op *newest = NULL, *oldest = NULL;
	while (calls) {
		struct op *op = calls;
		calls = op->next;
		op->res = ((op_call_fn *)op->ptr2)(op);
		op->next = newest;
		newest = op;
		oldest = oldest ? oldest : op;
	}
	run_after(newest);
	/* Still OP_QUEUED, which the owners may read meanwhile: run_posts makes them idle. */
	assert(oldest);
	post(h->ring, newest, oldest);
}

static struct op *take_calls(struct helper *h)
{
	struct op_list taken;
	list_init(&taken);
	for (uint32_t i = 0; i < h->posts_together && h->calls.head; i++)
		list_push(&taken, list_pop(&h->calls));
	return taken.head;
}

static void *helper_main(void *arg)
{
	struct helper *h = arg;
	pthread_mutex_lock(&h->lock);
	for (;;) {
		struct op *calls = take_calls(h);
		if (!calls) {
			if (h->stop)
				break;
			pthread_cond_wait(&h->wake, &h->lock);
			continue;
		}
		pthread_mutex_unlock(&h->lock);
		run_calls(h, calls);
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

void ring_call_then(struct ring *r, struct op *op, enum ring_lane lane, op_call_fn *fn,
	op_after_fn *after)
{
	assert(op->state == OP_IDLE && op->done);
	struct helper *h = &r->helpers[lane];
	op->kind = K_CALL;
	op->state = OP_QUEUED;
	op->cancelled = op->dropped = false;
	op->ptr = (const void *)after;
	op->ptr2 = (const void *)fn;
	r->busy++;
	pthread_mutex_lock(&h->lock);
	bool was_idle = !h->calls.head;
	list_push(&h->calls, op);
	pthread_mutex_unlock(&h->lock);
	if (was_idle)
		pthread_cond_signal(&h->wake);
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
