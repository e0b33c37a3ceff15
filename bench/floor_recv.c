/*
 * The receiver of the floors, one loop around one io_uring.
 *
 * A connection pulls what its socket holds into a pipe (at once: it only moves references to pages)
 * and has it drained into the file, by a kernel worker (splice, splice+sha) or at once too
 * (poll-splice). Two pipes per connection: one fills while the other drains. What a pipe has
 * gathered drains as soon as the socket is empty or the pipe is full, and nothing else of the
 * connection drains.
 *
 *     FREE ──pull──► FILLING ──nothing drains──► DRAINING ──empty──► FREE
 *
 * A file goes on alone when all its bytes are in pipes: its connection begins the next one. It ends
 * with its fsync, which waits for its last hash.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clocks.h"
#include "floor.h"
#include "floor_hash.h"

enum {
	RING_ENTRIES = 1024,
	PIPE_BYTES = 1 << 20,
	PULL_BYTES_MAX = 8 << 20, /* of one call */
	/* As daemon/content.c. */
	BEHIND_BYTES = 8 << 20,
	HASH_STEP_BYTES = 1 << 20,
};

struct op {
	void (*done)(struct op *op, int res);
};

#define OWNER(op_ptr, type, member) ((type *)((char *)(op_ptr)-offsetof(type, member)))

struct receiver;

struct file {
	struct receiver *receiver;
	int fd;
	uint64_t bytes;
	uint64_t written, hashed; /* from its beginning */
	uint64_t behind;          /* write-back has been begun below */
	bool hashes, writes_behind, syncs;
	bool is_synced;
	struct floor_job job;
	struct sha256 sha;
	struct op behind_op, sync_op;
};

enum side_state { SIDE_FREE, SIDE_FILLING, SIDE_DRAINING };

struct side {
	struct op op;
	struct conn *conn;
	enum side_state state;
	int fds[2];
	uint32_t bytes, bytes_max;
	struct file *file; /* where the bytes go */
	uint64_t file_off;
};

struct conn {
	struct receiver *receiver;
	int fd;
	uint32_t file_idx;  /* the one that comes now */
	struct file *file;  /* NULL: not begun */
	uint64_t pulled;    /* of it */
	bool polls;
	struct op poll_op;
	struct side sides[2];
};

struct receiver {
	const struct options *options;
	const struct source *source;
	struct io_uring ring;
	struct conn *conns;
	struct floor_pool *pool;
	int hashed_fd, dir_fd;
	struct op hashed_op;
	uint32_t files_left;
	struct floor_result result;
};

static void pull(struct conn *c);

static void fail(struct receiver *r, const char *what, int error)
{
	if (r->result.error == 0)
		fprintf(stderr, "sluice-bench: the receiver: %s: %s\n", what, strerror(-error));
	r->result.error = error;
}

static struct io_uring_sqe *next_sqe(struct receiver *r, struct op *op)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);

	while (sqe == NULL) {
		io_uring_submit(&r->ring);
		sqe = io_uring_get_sqe(&r->ring);
	}
	io_uring_sqe_set_data(sqe, op); /* prep functions leave it as it is from liburing 2.2 on */
	return sqe;
}

/* --- files ------------------------------------------------------------------------------------ */

static void file_step(struct file *f);

static void file_name(uint32_t idx, char name[32])
{
	snprintf(name, 32, "floor-%u.bin", idx);
}

static struct file *file_open(struct receiver *r, uint32_t idx)
{
	struct file *f = calloc(1, sizeof(*f));
	char name[32];

	if (f == NULL)
		return NULL;
	f->receiver = r;
	f->bytes = r->source->files[idx].bytes;
	f->fd = -1;
	sha256_init(&f->sha);
	if (r->options->mode == MODE_DISCARD)
		return f;
	file_name(idx, name);
	f->fd = openat(r->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (f->fd < 0 || (f->bytes > 0 && fallocate(f->fd, 0, 0, (off_t)f->bytes) != 0 &&
				 errno != EOPNOTSUPP)) {
		fail(r, name, -errno);
		if (f->fd >= 0)
			close(f->fd);
		free(f);
		return NULL;
	}
	return f;
}

static void file_on_behind(struct op *op, int res)
{
	struct file *f = OWNER(op, struct file, behind_op);

	if (res < 0)
		fail(f->receiver, "sync_file_range", res);
	f->writes_behind = false;
	file_step(f);
}

static void file_on_synced(struct op *op, int res)
{
	struct file *f = OWNER(op, struct file, sync_op);

	if (res < 0)
		fail(f->receiver, "fsync", res);
	f->is_synced = true;
	file_step(f);
}

static void file_hash(struct file *f)
{
	uint64_t ready = f->written - f->hashed;

	if (f->hashes || ready == 0 || (ready < HASH_STEP_BYTES && f->written < f->bytes))
		return;
	f->hashes = true;
	f->job = (struct floor_job){
		.state = &f->sha, .fd = f->fd, .from = f->hashed, .to = f->written};
	floor_pool_give(f->receiver->pool, &f->job);
}

/* Whatever has come back: what is to be begun now? Frees the file at its end. */
static void file_step(struct file *f)
{
	struct receiver *r = f->receiver;
	bool hashes = r->options->mode == MODE_SPLICE_SHA;
	uint64_t frontier;

	if (hashes)
		file_hash(f);
	frontier = hashes ? f->hashed : f->written;
	if (f->fd >= 0 && !f->writes_behind && !f->syncs && frontier - f->behind >= BEHIND_BYTES) {
		f->writes_behind = true;
		f->behind_op.done = file_on_behind;
		io_uring_prep_sync_file_range(next_sqe(r, &f->behind_op), f->fd,
			(unsigned)(frontier - f->behind), f->behind, SYNC_FILE_RANGE_WRITE);
		f->behind = frontier;
	}
	if (f->fd >= 0 && frontier == f->bytes && !f->syncs) {
		f->syncs = true;
		f->sync_op.done = file_on_synced;
		io_uring_prep_fsync(next_sqe(r, &f->sync_op), f->fd, 0);
	}
	if (frontier < f->bytes || f->writes_behind || (f->fd >= 0 && !f->is_synced))
		return;
	if (f->fd >= 0)
		close(f->fd);
	r->result.files++;
	r->result.bytes += f->bytes;
	r->files_left--;
	free(f);
}

static void on_hashed(struct op *op, int res)
{
	struct receiver *r = OWNER(op, struct receiver, hashed_op);
	struct floor_job *job, *next;
	eventfd_t ignored;

	(void)res;
	eventfd_read(r->hashed_fd, &ignored);
	io_uring_prep_poll_add(next_sqe(r, op), r->hashed_fd, POLLIN);
	for (job = floor_pool_take(r->pool); job != NULL; job = next) {
		struct file *f = OWNER(job, struct file, job);

		next = job->next;
		if (job->error != 0)
			fail(r, "reading back", job->error);
		f->hashes = false;
		f->hashed = job->to;
		file_step(f);
	}
}

/* --- pipe → file ------------------------------------------------------------------------------ */

static struct side *side_in(struct conn *c, enum side_state state)
{
	for (int i = 0; i < 2; i++) {
		if (c->sides[i].state == state)
			return &c->sides[i];
	}
	return NULL;
}

static void side_advance(struct side *s, uint32_t bytes)
{
	s->bytes -= bytes;
	s->file_off += bytes;
	s->file->written += bytes;
	if (s->bytes > 0)
		return;
	s->state = SIDE_FREE;
	file_step(s->file);
	s->file = NULL;
}

static void drain_next(struct conn *c);

static void on_drained(struct op *op, int res)
{
	struct side *s = OWNER(op, struct side, op);
	struct conn *c = s->conn;

	if (res <= 0) {
		fail(c->receiver, "splice to the file", res < 0 ? res : -EIO);
		return;
	}
	side_advance(s, (uint32_t)res);
	if (s->state == SIDE_DRAINING)
		s->state = SIDE_FILLING; /* short: the rest once more */
	drain_next(c);
	if (!c->polls)
		pull(c);
}

/* The kernel does it here and now. */
static void drain_inline(struct side *s)
{
	while (s->state == SIDE_DRAINING) {
		loff_t off = (loff_t)s->file_off;
		ssize_t n = splice(s->fds[0], NULL, s->file->fd, &off, s->bytes, SPLICE_F_MOVE);

		if (n <= 0) {
			fail(s->conn->receiver, "splice to the file", n < 0 ? -errno : -EIO);
			return;
		}
		s->conn->receiver->result.drains++;
		side_advance(s, (uint32_t)n);
	}
}

static void drain_next(struct conn *c)
{
	struct receiver *r = c->receiver;
	struct side *s = side_in(c, SIDE_FILLING), *other;

	if (s == NULL || s->bytes == 0 || side_in(c, SIDE_DRAINING) != NULL)
		return;
	/* Of two that wait, the one with the earlier bytes. */
	other = s == &c->sides[0] ? &c->sides[1] : &c->sides[0];
	if (other->state == SIDE_FILLING && other->bytes > 0 &&
		(other->file == s->file ? other->file_off < s->file_off : s->file == c->file))
		s = other;
	s->state = SIDE_DRAINING;
	if (r->options->mode == MODE_POLL_SPLICE) {
		drain_inline(s);
		if (r->result.error == 0)
			drain_next(c);
		return;
	}
	s->op.done = on_drained;
	r->result.drains++;
	io_uring_prep_splice(next_sqe(r, &s->op), s->fds[0], -1, s->file->fd, (int64_t)s->file_off,
		s->bytes, SPLICE_F_MOVE);
}

/* --- socket → pipe ---------------------------------------------------------------------------- */

static void on_readable(struct op *op, int res)
{
	struct conn *c = OWNER(op, struct conn, poll_op);

	c->polls = false;
	if (res < 0)
		fail(c->receiver, "poll", res);
	else
		pull(c);
}

static void poll_start(struct conn *c)
{
	if (c->polls)
		return;
	c->polls = true;
	c->poll_op.done = on_readable;
	io_uring_prep_poll_add(next_sqe(c->receiver, &c->poll_op), c->fd, POLLIN);
}

/* The side that takes more of the present file, or a free one. */
static struct side *filling_side(struct conn *c)
{
	struct side *s;

	for (int i = 0; i < 2; i++) {
		s = &c->sides[i];
		if (s->state == SIDE_FILLING && s->file == c->file)
			return s->bytes < s->bytes_max ? s : side_in(c, SIDE_FREE);
	}
	return side_in(c, SIDE_FREE);
}

/* Takes bytes of the present file: their count, 0 at the end of the connection, −errno; −EBUSY when
 * both pipes are in use. */
static int64_t pull_some(struct conn *c, uint64_t left)
{
	struct side *s = NULL;
	ssize_t n;

	if (c->receiver->options->mode == MODE_DISCARD) {
		n = recv(c->fd, NULL, left < PULL_BYTES_MAX ? left : PULL_BYTES_MAX,
			MSG_TRUNC | MSG_DONTWAIT);
	} else {
		s = filling_side(c);
		if (s == NULL)
			return -EBUSY;
		if (left > s->bytes_max - s->bytes)
			left = s->bytes_max - s->bytes;
		n = splice(c->fd, NULL, s->fds[1], NULL, left, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	}
	if (n <= 0)
		return n < 0 ? -errno : 0;
	c->receiver->result.pulls++;
	if (s == NULL) {
		c->file->written += (uint64_t)n;
		return n;
	}
	if (s->state == SIDE_FREE) {
		s->state = SIDE_FILLING;
		s->file = c->file;
		s->file_off = c->pulled;
	}
	s->bytes += (uint32_t)n;
	return n;
}

/* Until the socket is empty, both pipes are in use, or nothing more will come. */
static void pull(struct conn *c)
{
	struct receiver *r = c->receiver;

	while (r->result.error == 0 && c->file_idx < r->source->files_count) {
		int64_t n;

		if (c->file == NULL && (c->file = file_open(r, c->file_idx)) == NULL) {
			fail(r, "a file", -ENOMEM);
			return;
		}
		n = c->pulled < c->file->bytes ? pull_some(c, c->file->bytes - c->pulled) : 0;
		if (n == -EAGAIN)
			break;
		if (n == -EBUSY) {
			drain_next(c);
			if (filling_side(c) == NULL)
				return; /* the one that drains goes on here */
			continue;
		}
		if (n <= 0 && c->pulled < c->file->bytes) {
			fail(r, "receive", n < 0 ? (int)n : -EPIPE);
			return;
		}
		c->pulled += (uint64_t)n;
		if (c->pulled == c->file->bytes) {
			if (r->options->mode == MODE_DISCARD || c->pulled == 0)
				file_step(c->file);
			c->file = NULL;
			c->pulled = 0;
			c->file_idx += r->options->connections;
		}
	}
	drain_next(c);
	if (c->file_idx < r->source->files_count)
		poll_start(c);
}

/* --- the run ---------------------------------------------------------------------------------- */

static int conn_init(struct receiver *r, struct conn *c, uint32_t idx, int fd)
{
	*c = (struct conn){.receiver = r, .fd = fd, .file_idx = idx};
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	for (int i = 0; i < 2 && r->options->mode != MODE_DISCARD; i++) {
		struct side *s = &c->sides[i];
		int bytes;

		s->conn = c;
		if (pipe2(s->fds, O_CLOEXEC | O_NONBLOCK) != 0)
			return -errno;
		(void)fcntl(s->fds[1], F_SETPIPE_SZ, PIPE_BYTES);
		bytes = fcntl(s->fds[1], F_GETPIPE_SZ);
		s->bytes_max = bytes > 0 ? (uint32_t)bytes : 4096;
	}
	return 0;
}

static int receiver_init(struct receiver *r, const int *fds)
{
	const struct options *o = r->options;
	struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER |
						  IORING_SETUP_DEFER_TASKRUN |
						  IORING_SETUP_CQSIZE,
		.cq_entries = RING_ENTRIES * 8};
	int error = io_uring_queue_init_params(RING_ENTRIES, &r->ring, &params);

	if (error == -EINVAL)
		error = io_uring_queue_init(RING_ENTRIES, &r->ring, 0);
	r->files_left = r->source->files_count;
	r->dir_fd = open(o->dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	r->hashed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->conns = calloc(o->connections, sizeof(*r->conns));
	if (error == 0 && (r->dir_fd < 0 || r->hashed_fd < 0 || r->conns == NULL))
		error = errno != 0 ? -errno : -ENOMEM;
	for (uint32_t i = 0; i < o->connections && error == 0; i++)
		error = conn_init(r, &r->conns[i], i, fds[i]);
	if (error == 0 && o->mode == MODE_SPLICE_SHA)
		error = floor_pool_new(o->threads, o->lanes, r->hashed_fd, &r->pool);
	return error;
}

static void receiver_loop(struct receiver *r)
{
	struct io_uring_cqe *cqe;
	unsigned head, count;

	if (r->pool != NULL) {
		r->hashed_op.done = on_hashed;
		io_uring_prep_poll_add(next_sqe(r, &r->hashed_op), r->hashed_fd, POLLIN);
	}
	for (uint32_t i = 0; i < r->options->connections; i++)
		pull(&r->conns[i]);
	while (r->files_left > 0 && r->result.error == 0) {
		int error = io_uring_submit_and_wait(&r->ring, 1);

		if (error < 0 && error != -EINTR) {
			fail(r, "io_uring", error);
			return;
		}
		count = 0;
		io_uring_for_each_cqe(&r->ring, head, cqe)
		{
			struct op *op = io_uring_cqe_get_data(cqe);

			op->done(op, cqe->res);
			count++;
		}
		io_uring_cq_advance(&r->ring, count);
	}
}

void floor_receive(const struct options *o, const struct source *source, const int *fds,
	int ready_fd, struct floor_result *ret)
{
	struct receiver r = {.options = o, .source = source};
	int error = receiver_init(&r, fds);
	uint64_t began_ns, began_cpu_ns;

	if (error != 0)
		fail(&r, o->dir, error);
	if (write(ready_fd, "", 1) != 1)
		fail(&r, "pipe", -errno);
	began_ns = clocks_now_ns();
	began_cpu_ns = clocks_cpu_ns();
	if (r.result.error == 0)
		receiver_loop(&r);
	r.result.ns = clocks_now_ns() - began_ns;
	r.result.cpu_ns = clocks_cpu_ns() - began_cpu_ns;
	*ret = r.result;
	/* The process ends here; what it holds ends with it. */
}

void floor_remove_files(const struct options *o, const struct source *source)
{
	int dir_fd = open(o->dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	char name[32];

	for (uint32_t i = 0; i < source->files_count && dir_fd >= 0; i++) {
		file_name(i, name);
		unlinkat(dir_fd, name, 0);
	}
	if (dir_fd >= 0)
		close(dir_fd);
}
