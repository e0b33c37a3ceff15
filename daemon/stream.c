/*
 * A large segment: socket → pipe → file, never in user space.
 *
 * Two pipes at most: one drains into the file (an operation of the ring, in a kernel worker) while
 * the next fills from the socket (at once; it only moves references to pages). What has been
 * gathered in a pipe is sent on as soon as nothing drains, so a slow sender's bytes do not hold a
 * pipe, and a fast one's go in steps as large as a pipe.
 *
 *     FREE ──pipes_take, sock_splice──► FILLING ──nothing drains──► DRAINING ──empty──► FREE
 *
 * The bytes that came together with the header are written from their buffer.
 *
 * After a failure the payload is drained and thrown away, so that the connection can go on; the
 * pipe that may still hold bytes is closed, not given back.
 *
 * Who ends a stream: the connection has let go (all bytes taken, or ingest_cut) and no operation is
 * in flight.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "segment.h"

enum { PULL_BYTES_MAX = 8 << 20 };

enum side_state { SIDE_FREE, SIDE_FILLING, SIDE_DRAINING };

struct side {
	struct op op;           /* pipe → file */
	struct stream *stream;
	struct pipe *pipe;
	enum side_state state;
	uint64_t file_off;      /* of the pipe's first byte in the target */
};

struct stream {
	struct seg *seg;
	uint32_t taken;         /* payload bytes taken from the socket, prefix included */
	bool started;           /* the target is known */
	bool failed;            /* drain and throw away */
	bool held;              /* the connection still holds the segment */
	bool waiting;           /* the connection waits for resume */
	bool pipe_is_due;       /* a pipe was free for us; we have not pulled since */
	bool cut;
	bool to_scratch;
	bool fd_counted;        /* counts the staging file's fd */
	bool target_open;
	int scratch_fd;
	int err;
	uint32_t inflight;
	struct side sides[2];
	struct buf *prefix_buf; /* prefix not yet written */
	const uint8_t *prefix;
	uint32_t prefix_bytes;
	uint64_t prefix_off;
	struct op prefix_op;
	struct op file_op;      /* opens the scratch file; copies from it */
	void (*copied)(struct seg *s, int err);
	struct bufs_waiter pipe_waiter;
	void (*resume)(void *arg);
	void *arg;
};

static void on_drained(struct op *op);
static void on_prefix_written(struct op *op);
static void on_scratch_opened(struct op *op);
static void on_pipe_free(struct bufs_waiter *w);

static int target_fd(const struct stream *st)
{
	return st->to_scratch ? st->scratch_fd : st->seg->t->fd;
}

static void wake(struct stream *st)
{
	if (!st->waiting)
		return;
	st->waiting = false;
	st->resume(st->arg);
}

/* --- begin and end ---------------------------------------------------------------------------- */

struct seg *ingest_begin(struct uploads *u, const struct upload_id *id, const struct filecmd *cmd,
	uint32_t payload_bytes, struct buf *b, const uint8_t *prefix, uint32_t prefix_bytes,
	struct reply *rp, void (*resume)(void *arg), void *arg)
{
	struct stream *st = calloc(1, sizeof(*st));
	if (!st) {
		reply_fail(rp, 0x80, "no_memory", true);
		return NULL;
	}
	struct seg *s = ingest_open(u, id, cmd, payload_bytes, rp);
	if (!s) {
		free(st);
		return NULL;
	}
	st->seg = s;
	st->held = true;
	st->scratch_fd = -1;
	st->resume = resume;
	st->arg = arg;
	st->prefix_op.done = on_prefix_written;
	st->file_op.done = on_scratch_opened;
	st->pipe_waiter.wake = on_pipe_free;
	for (int i = 0; i < 2; i++) {
		st->sides[i].stream = st;
		st->sides[i].op.done = on_drained;
	}
	if (prefix_bytes) {
		st->prefix_buf = b;
		buf_ref(b);
		st->prefix = prefix;
		st->prefix_bytes = prefix_bytes;
	}
	st->taken = prefix_bytes;
	s->stream = st;
	transfer_step(s->t);
	return s;
}

void stream_free(struct seg *s)
{
	struct stream *st = s->stream;
	if (!st)
		return;
	assert(st->inflight == 0 && !st->held);
	bufs_wait_cancel(&st->pipe_waiter);
	for (int i = 0; i < 2; i++)
		pipes_give(st->sides[i].pipe, false);
	buf_unref(st->prefix_buf);
	if (st->scratch_fd >= 0)
		sys_close(st->scratch_fd);
	if (st->to_scratch)
		atomic_fetch_sub(&s->u->store->scratch_bytes, s->bytes);
	if (st->fd_counted)
		staging_put(s->t);
	free(st);
	s->stream = NULL;
}

int stream_scratch_fd(const struct seg *s)
{
	return s->stream->scratch_fd;
}

/* Nothing is in flight and the connection has let go: the segment goes on, or ends. */
static void finish_if_through(struct stream *st)
{
	struct seg *s = st->seg;
	if (st->inflight || st->held)
		return;
	if (st->cut)
		seg_discard(s);
	else if (st->failed)
		seg_fail_errno(s, st->err); /* answered already: this only frees it */
	else if (st->taken == s->bytes && s->state == SEG_RECEIVING && !st->prefix_bytes)
		seg_on_received(s);
}

/* A pipe that was being filled is closed: its bytes go nowhere. */
static void give_filling(struct stream *st)
{
	for (int i = 0; i < 2; i++) {
		if (st->sides[i].state != SIDE_FILLING)
			continue;
		pipes_give(st->sides[i].pipe, false);
		st->sides[i].pipe = NULL;
		st->sides[i].state = SIDE_FREE;
	}
}

static void fail(struct stream *st, int err)
{
	struct outcome o;
	struct reply *rp = st->seg->reply;
	if (st->failed)
		return;
	st->failed = true;
	st->err = err;
	give_filling(st);
	st->seg->reply = NULL;
	if (!st->cut && rp) {
		log_warn("segment failed", LS("clientid", st->seg->t->clientid, st->seg->t->clientid_bytes),
			LS("fileid", st->seg->t->fileid, st->seg->t->fileid_bytes),
			LU("offset", st->seg->off), LE("error", err), NULL);
		outcome_storage(&o, err);
		reply_finish(rp, &o);
	} else if (rp) {
		reply_discard(rp);
	}
	wake(st);
}

bool stream_fail(struct seg *s, const struct outcome *o)
{
	struct stream *st = s->stream;
	(void)o;
	st->failed = true;
	if (st->inflight == 0 && !st->held)
		return true;
	wake(st);
	return false;
}

/* --- the target ------------------------------------------------------------------------------- */

void stream_start(struct seg *s, bool to_scratch)
{
	struct stream *st = s->stream;
	struct store *store = s->u->store;
	st->started = true;
	st->to_scratch = to_scratch;
	st->fd_counted = !to_scratch;
	if (!to_scratch) {
		st->target_open = true;
		wake(st);
		return;
	}
	uint64_t taken = atomic_fetch_add(&store->scratch_bytes, s->bytes);
	if (taken + s->bytes > s->u->conf->transfer.scratch_bytes_max) {
		fail(st, -EDQUOT);
		return;
	}
	st->inflight++;
	ring_openat(s->u->rt->ring, &st->file_op, store->staging_fd, ".", O_TMPFILE | O_RDWR, 0600);
}

static void on_scratch_opened(struct op *op)
{
	struct stream *st = container_of(op, struct stream, file_op);
	st->inflight--;
	if (op->res < 0) {
		fail(st, op->res);
	} else {
		st->scratch_fd = op->res;
		st->target_open = true;
		wake(st);
	}
	finish_if_through(st);
}

/* --- pipe → file ------------------------------------------------------------------------------ */

static void drain(struct stream *st, struct side *side)
{
	side->state = SIDE_DRAINING;
	st->inflight++;
	ring_splice(st->seg->u->rt->ring, &side->op, side->pipe->fds[0], target_fd(st), side->file_off,
		side->pipe->bytes);
}

static struct side *side_in(struct stream *st, enum side_state state)
{
	for (int i = 0; i < 2; i++) {
		if (st->sides[i].state == state)
			return &st->sides[i];
	}
	return NULL;
}

/* Sends on what has been gathered, unless the other pipe still drains. */
static void drain_next(struct stream *st)
{
	struct side *side = side_in(st, SIDE_FILLING);
	if (side && side->pipe->bytes && !side_in(st, SIDE_DRAINING))
		drain(st, side);
}

static void on_drained(struct op *op)
{
	struct side *side = container_of(op, struct side, op);
	struct stream *st = side->stream;
	st->inflight--;
	if (op->res > 0) {
		STAT_ADD(st->seg->u->rt, bytes_spliced, (uint64_t)op->res);
		side->pipe->bytes -= (uint32_t)op->res;
		side->file_off += (uint64_t)op->res;
	}
	if (op->res <= 0)
		fail(st, op->res < 0 ? op->res : -EIO);
	if (side->pipe->bytes && !st->failed && !st->cut) {
		drain(st, side); /* short */
		return;
	}
	pipes_give(side->pipe, !st->failed && op->res > 0);
	side->pipe = NULL;
	side->state = SIDE_FREE;
	if (!st->failed && !st->cut)
		drain_next(st);
	wake(st);
	finish_if_through(st);
}

static void on_prefix_written(struct op *op)
{
	struct stream *st = container_of(op, struct stream, prefix_op);
	st->inflight--;
	if (op->res > 0) {
		st->prefix += op->res;
		st->prefix_bytes -= (uint32_t)op->res;
		st->prefix_off += (uint64_t)op->res;
	} else {
		fail(st, op->res < 0 ? op->res : -EIO);
	}
	if (st->prefix_bytes && !st->failed && !st->cut) {
		st->inflight++;
		ring_write(st->seg->u->rt->ring, &st->prefix_op, target_fd(st), st->prefix, st->prefix_bytes,
			st->prefix_off);
		return;
	}
	buf_unref(st->prefix_buf);
	st->prefix_buf = NULL;
	st->prefix_bytes = 0;
	finish_if_through(st);
}

static void write_prefix(struct stream *st)
{
	if (!st->prefix_bytes || !op_is_idle(&st->prefix_op))
		return;
	st->prefix_off = st->to_scratch ? 0 : st->seg->off;
	STAT_ADD(st->seg->u->rt, bytes_copied, st->prefix_bytes);
	st->inflight++;
	ring_write(st->seg->u->rt->ring, &st->prefix_op, target_fd(st), st->prefix, st->prefix_bytes,
		st->prefix_off);
}

/* --- socket → pipe ---------------------------------------------------------------------------- */

static void on_pipe_free(struct bufs_waiter *w)
{
	struct stream *st = container_of(w, struct stream, pipe_waiter);
	st->pipe_is_due = true;
	wake(st);
}

/* We shall not take the pipe that we were woken for: giving it back wakes the next who waits. */
static void pass_pipe_on(struct stream *st)
{
	struct bufs *bufs = st->seg->u->rt->bufs;
	int err;
	if (st->pipe_is_due)
		pipes_give(pipes_take(bufs, &err), true);
	st->pipe_is_due = false;
}

static enum ingest_pull wait(struct stream *st)
{
	st->waiting = true;
	return INGEST_WAIT;
}

/* The pipe to fill: the one that is being filled, or a new one. NULL: *ret says what to do. */
static struct side *filling_side(struct stream *st, enum ingest_pull *ret)
{
	struct side *side = side_in(st, SIDE_FILLING);
	int err = 0;
	if (side && side->pipe->bytes < side->pipe->bytes_max)
		return side;
	if (side || !(side = side_in(st, SIDE_FREE))) {
		*ret = wait(st); /* both are in use: the one that drains wakes us */
		return NULL;
	}
	side->pipe = pipes_take(st->seg->u->rt->bufs, &err);
	if (!side->pipe) {
		/* None left: one of our own coming back wakes us, or anybody's. With no descriptor
		 * left at all it is the same: one that exists will come back. */
		if (err != -EAGAIN && pipes_used(st->seg->u->rt->bufs) == 0) {
			fail(st, err);
			st->resume(st->arg); /* the next pull throws the payload away */
			*ret = INGEST_WAIT;
			return NULL;
		}
		if (!side_in(st, SIDE_DRAINING))
			pipes_wait(st->seg->u->rt->bufs, &st->pipe_waiter);
		*ret = wait(st);
		return NULL;
	}
	side->state = SIDE_FILLING;
	side->file_off = (st->to_scratch ? 0 : st->seg->off) + st->taken;
	return side;
}

static enum ingest_pull let_go(struct stream *st)
{
	st->held = false;
	st->waiting = false;
	if (!st->failed)
		drain_next(st);
	finish_if_through(st);
	return INGEST_DONE;
}

static enum ingest_pull throw_away(struct stream *st, int sock_fd)
{
	while (st->taken < st->seg->bytes) {
		int n = sock_discard(sock_fd, st->seg->bytes - st->taken);
		if (n == -EAGAIN)
			return INGEST_POLL;
		if (n <= 0)
			return INGEST_EOF;
		st->taken += (uint32_t)n;
	}
	return let_go(st);
}

enum ingest_pull ingest_pull(struct seg *s, int sock_fd)
{
	struct stream *st = s->stream;
	enum ingest_pull ret = INGEST_POLL;
	uint32_t budget = PULL_BYTES_MAX;
	st->waiting = false;
	bufs_wait_cancel(&st->pipe_waiter);
	if (st->failed) {
		pass_pipe_on(st);
		return throw_away(st, sock_fd);
	}
	st->pipe_is_due = false;
	if (!st->target_open)
		return wait(st);
	write_prefix(st);
	while (st->taken < s->bytes) {
		struct side *side = filling_side(st, &ret);
		if (!side)
			return ret;
		uint32_t room = side->pipe->bytes_max - side->pipe->bytes, left = s->bytes - st->taken;
		int n = sock_splice(sock_fd, side->pipe->fds[1], left < room ? left : room);
		if (n == -EAGAIN && side->pipe->bytes) {
			/* The socket is empty, or the pipe's slots are used up before its bytes:
			 * send on what there is. */
			bool was_idle = !side_in(st, SIDE_DRAINING);
			drain_next(st);
			if (was_idle)
				return INGEST_POLL;
			return wait(st);
		}
		if (n <= 0) {
			if (side->pipe->bytes == 0) {
				pipes_give(side->pipe, true);
				side->pipe = NULL;
				side->state = SIDE_FREE;
			}
			return n == -EAGAIN ? INGEST_POLL : INGEST_EOF;
		}
		side->pipe->bytes += (uint32_t)n;
		st->taken += (uint32_t)n;
		drain_next(st);
		if (budget <= (uint32_t)n && st->taken < s->bytes) {
			st->resume(st->arg);
			return INGEST_WAIT;
		}
		budget -= (uint32_t)n;
	}
	return let_go(st);
}

uint32_t ingest_left(const struct seg *s)
{
	return s->bytes - s->stream->taken;
}

uint32_t ingest_taken(const struct seg *s)
{
	return s->stream->taken;
}

void ingest_cut(struct seg *s)
{
	struct stream *st = s->stream;
	st->held = false;
	st->waiting = false;
	st->cut = true;
	bufs_wait_cancel(&st->pipe_waiter);
	pass_pipe_on(st);
	give_filling(st);
	finish_if_through(st);
}

/* --- scratch → staging ------------------------------------------------------------------------ */

static int call_copy(struct op *op)
{
	struct stream *st = container_of(op, struct stream, file_op);
	const struct seg *s = st->seg;
	return sys_copy_range(st->scratch_fd, 0, s->t->fd, s->off, s->bytes);
}

static void on_copied(struct op *op)
{
	struct stream *st = container_of(op, struct stream, file_op);
	st->inflight--;
	st->copied(st->seg, op->res);
}

void stream_copy(struct seg *s, void (*done)(struct seg *s, int err))
{
	struct stream *st = s->stream;
	st->copied = done;
	st->inflight++;
	st->file_op.done = on_copied;
	ring_call(s->u->rt->ring, &st->file_op, call_copy);
}
