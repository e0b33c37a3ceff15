/*
 * A large segment: socket → pipe → file, never in user space. spool.c has the pipes, which segments
 * that follow each other share.
 *
 * The bytes that came together with the header are written from their buffer.
 *
 * After a failure the payload is drained and thrown away, so that the connection can go on.
 *
 * Who ends a stream: the connection has let go (all bytes taken, or ingest_cut), none of its bytes
 * is in a pipe, and no operation is in flight.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "log.h"
#include "segment.h"
#include "spool.h"

struct stream {
	struct seg *seg;
	struct spool_user spooled;
	uint32_t taken;         /* payload bytes taken from the socket, prefix included */
	bool started;           /* the target is known */
	bool failed;            /* drain and throw away */
	bool held;              /* the connection still holds the segment */
	bool waiting;           /* the connection waits for resume */
	bool cut;
	bool to_scratch;
	bool fd_counted;        /* counts the staging file's fd */
	bool target_open;
	int scratch_fd;
	int err;
	uint32_t inflight;
	struct buf *prefix_buf; /* prefix not yet written */
	const uint8_t *prefix;
	uint32_t prefix_bytes;
	uint64_t prefix_off;
	struct op prefix_op;
	struct op file_op;      /* opens the scratch file; copies from it */
	void (*copied)(struct seg *s, int err);
	void (*resume)(void *arg);
	void *arg;
};

static void on_moved(struct spool_user *x, int err);
static void on_spool_ready(struct spool_user *x);
static void on_prefix_written(struct op *op);
static void on_scratch_opened(struct op *op);

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
	st->spooled.moved = on_moved;
	st->spooled.wake = on_spool_ready;
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
	spool_leave(&st->spooled);
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

static bool is_through(const struct stream *st)
{
	return st->inflight == 0 && st->spooled.bytes == 0 && !st->held;
}

/* Nothing is under way and the connection has let go: the segment goes on, or ends. */
static void finish_if_through(struct stream *st)
{
	struct seg *s = st->seg;
	if (!is_through(st))
		return;
	if (st->cut)
		seg_discard(s);
	else if (st->failed)
		seg_fail_errno(s, st->err); /* answered already: this only frees it */
	else if (st->taken == s->bytes && s->state == SEG_RECEIVING && !st->prefix_bytes)
		seg_on_received(s);
}

static void fail(struct stream *st, int err)
{
	struct outcome o;
	struct reply *rp = st->seg->reply;
	if (st->failed)
		return;
	st->failed = true;
	st->err = err;
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
	if (is_through(st))
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

/* --- into the file ---------------------------------------------------------------------------- */

static void on_moved(struct spool_user *x, int err)
{
	struct stream *st = container_of(x, struct stream, spooled);
	if (err)
		fail(st, err);
	finish_if_through(st);
}

static void on_spool_ready(struct spool_user *x)
{
	wake(container_of(x, struct stream, spooled));
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

/* --- from the socket -------------------------------------------------------------------------- */

static enum ingest_pull wait(struct stream *st)
{
	st->waiting = true;
	return INGEST_WAIT;
}

/* The spool drains what there is at the end of the connection's turn, together with what follows. */
static enum ingest_pull let_go(struct stream *st)
{
	st->held = false;
	st->waiting = false;
	finish_if_through(st);
	return INGEST_DONE;
}

static enum ingest_pull next_turn(struct stream *st)
{
	st->resume(st->arg);
	return INGEST_WAIT;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static enum ingest_pull throw_away(struct stream *st, int sock_fd, uint32_t budget)
{
	while (st->taken < st->seg->bytes) {
		int n = sock_discard(sock_fd, smaller(st->seg->bytes - st->taken, budget));
		if (n == -EAGAIN)
			return INGEST_POLL;
		if (n <= 0)
			return INGEST_EOF;
		st->taken += (uint32_t)n;
		budget -= (uint32_t)n;
		if (budget == 0 && st->taken < st->seg->bytes)
			return next_turn(st);
	}
	return let_go(st);
}

static int join_spool(struct stream *st)
{
	if (st->spooled.spool)
		return 0;
	return st->to_scratch ? spool_join_file(&st->spooled, st->seg->u, st->scratch_fd)
			      : spool_join_staging(&st->spooled, st->seg->t);
}

/* The next pull throws the payload away. */
static enum ingest_pull give_up(struct stream *st, int err)
{
	fail(st, err);
	return next_turn(st);
}

enum ingest_pull ingest_pull(struct seg *s, int sock_fd, uint32_t bytes_max)
{
	struct stream *st = s->stream;
	uint32_t budget = bytes_max;
	st->waiting = false;
	if (st->failed)
		return throw_away(st, sock_fd, budget);
	if (!st->target_open)
		return wait(st);
	write_prefix(st);
	int err = join_spool(st);
	if (err)
		return give_up(st, err);
	uint64_t start = st->to_scratch ? 0 : s->off;
	while (st->taken < s->bytes) {
		int n = spool_pull(&st->spooled, sock_fd, start + st->taken,
			smaller(s->bytes - st->taken, budget));
		if (n == SPOOL_WAIT)
			return wait(st);
		if (n == -EAGAIN)
			return INGEST_POLL;
		if (n == -EMFILE || n == -ENFILE || n == -ENOMEM)
			return give_up(st, n);
		if (n <= 0)
			return INGEST_EOF;
		st->taken += (uint32_t)n;
		budget -= (uint32_t)n;
		if (budget == 0 && st->taken < s->bytes)
			return next_turn(st);
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
	spool_flush(&st->spooled); /* others' bytes may lie in the same pipe */
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
	ring_call(s->u->rt->ring, &st->file_op, RING_RARE, call_copy);
}
