/*
 * spool.h: two pipes a file, and whose bytes are in them.
 */
#include "spool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "transfer.h"

/* A pipe with so many segments' bytes in it counts as full. */
enum { PARTS_MAX = 64 };

enum side_state { SIDE_FREE, SIDE_FILLING, SIDE_DRAINING };

struct part {
	struct spool_user *user;
	uint32_t bytes;
};

struct side {
	struct op op;           /* pipe → file */
	struct spool *spool;
	struct pipe *pipe;
	enum side_state state;
	uint64_t file_off;      /* of the pipe's first byte */
	uint32_t parts_at, parts_end;
	struct part parts[PARTS_MAX]; /* in the pipe's order: [parts_at, parts_end) */
};

struct spool {
	struct uploads *u;
	struct transfer *t;     /* NULL: a file of its own */
	int fd;
	struct spool_user *users;
	struct spool *due_next;
	bool due;               /* is in the list of spools_flush, which then frees it */
	bool busy;              /* is calling its users */
	struct bufs_waiter pipe_waiter;
	struct side sides[2];
};

/* --- life ------------------------------------------------------------------------------------- */

static void wake_all(struct spool *sp)
{
	struct spool_user *next;
	for (struct spool_user *x = sp->users; x; x = next) {
		next = x->next;
		x->wake(x);
	}
}

static void on_pipe_free(struct bufs_waiter *w)
{
	wake_all(container_of(w, struct spool, pipe_waiter));
}

static void on_drained(struct op *op);

static struct spool *spool_new(struct uploads *u, struct transfer *t, int fd)
{
	struct spool *sp = calloc(1, sizeof(*sp));
	if (!sp)
		return NULL;
	sp->u = u;
	sp->t = t;
	sp->fd = fd;
	sp->pipe_waiter.wake = on_pipe_free;
	for (int i = 0; i < 2; i++) {
		sp->sides[i].spool = sp;
		sp->sides[i].op.done = on_drained;
	}
	return sp;
}

static void free_if_unused(struct spool *sp)
{
	if (sp->users || sp->due || sp->busy)
		return;
	assert(sp->sides[0].state == SIDE_FREE && sp->sides[1].state == SIDE_FREE);
	bufs_wait_cancel(&sp->pipe_waiter);
	free(sp);
}

static int join(struct spool_user *x, struct spool *sp)
{
	if (!sp)
		return -ENOMEM;
	x->spool = sp;
	x->bytes = 0;
	x->next = sp->users;
	if (x->next)
		x->next->pprev = &x->next;
	x->pprev = &sp->users;
	sp->users = x;
	return 0;
}

int spool_join_staging(struct spool_user *x, struct transfer *t)
{
	if (!t->spool)
		t->spool = spool_new(t->u, t, t->fd);
	return join(x, t->spool);
}

int spool_join_file(struct spool_user *x, struct uploads *u, int fd)
{
	return join(x, spool_new(u, NULL, fd));
}

void spool_leave(struct spool_user *x)
{
	struct spool *sp = x->spool;
	if (!sp)
		return;
	assert(x->bytes == 0);
	*x->pprev = x->next;
	if (x->next)
		x->next->pprev = x->pprev;
	x->spool = NULL;
	/* Whoever comes next may use another file. */
	if (!sp->users && sp->t) {
		sp->t->spool = NULL;
		sp->t = NULL;
	}
	free_if_unused(sp);
}

/* --- pipe → file ------------------------------------------------------------------------------ */

static struct side *side_in(struct spool *sp, enum side_state state)
{
	for (int i = 0; i < 2; i++) {
		if (sp->sides[i].state == state)
			return &sp->sides[i];
	}
	return NULL;
}

static void drain(struct side *side)
{
	struct spool *sp = side->spool;
	side->state = SIDE_DRAINING;
	ring_splice(sp->u->rt->ring, &side->op, side->pipe->fds[0], sp->fd, side->file_off,
		side->pipe->bytes);
}

/* Sends on what has been gathered, unless the other pipe still drains. */
static void drain_next(struct spool *sp)
{
	struct side *side = side_in(sp, SIDE_FILLING);
	if (side && side->pipe->bytes && !side_in(sp, SIDE_DRAINING))
		drain(side);
}

/* Takes so many bytes from the front of the pipe's parts. Writes down whose last byte is out of
 * this pipe; their count. */
static uint32_t consume(struct side *side, uint32_t bytes, struct spool_user *ret_out[PARTS_MAX])
{
	uint32_t count = 0;
	side->pipe->bytes -= bytes;
	side->file_off += bytes;
	while (bytes > 0) {
		struct part *part = &side->parts[side->parts_at];
		uint32_t n = bytes < part->bytes ? bytes : part->bytes;
		part->bytes -= n;
		part->user->bytes -= n;
		bytes -= n;
		if (part->bytes > 0)
			break;
		ret_out[count++] = part->user;
		side->parts_at++;
	}
	return count;
}

static void release(struct side *side, bool is_clean)
{
	pipes_give(side->pipe, is_clean);
	side->pipe = NULL;
	side->state = SIDE_FREE;
	side->parts_at = side->parts_end = 0;
}

/* No user of this array can leave but in its own call: it is being received, and has no other
 * operation that could end it. */
static void tell(struct spool_user **users, uint32_t count, int err)
{
	for (uint32_t i = 0; i < count; i++)
		users[i]->moved(users[i], err);
}

static void on_drained(struct op *op)
{
	struct side *side = container_of(op, struct side, op);
	struct spool *sp = side->spool;
	struct spool_user *moved[PARTS_MAX], *lost[PARTS_MAX];
	uint32_t moved_count = 0, lost_count = 0;
	int err = op->res < 0 ? op->res : op->res == 0 ? -EIO : 0;
	if (!err) {
		STAT_ADD(sp->u->rt, bytes_spliced, (uint64_t)op->res);
		moved_count = consume(side, (uint32_t)op->res, moved);
	} else {
		lost_count = consume(side, side->pipe->bytes, lost);
	}
	if (side->pipe->bytes) {
		drain(side); /* it was short */
	} else {
		release(side, !err); /* after an error nobody knows what is left in it */
		drain_next(sp);
	}
	sp->busy = true;
	tell(moved, moved_count, 0);
	tell(lost, lost_count, err);
	wake_all(sp);
	sp->busy = false;
	free_if_unused(sp);
}

/* --- socket → pipe ---------------------------------------------------------------------------- */

static bool continues(const struct side *side, const struct spool_user *x, uint64_t file_off)
{
	return side->pipe->bytes < side->pipe->bytes_max &&
		file_off == side->file_off + side->pipe->bytes &&
		(side->parts_end < PARTS_MAX || side->parts[side->parts_end - 1].user == x);
}

/* The pipe to fill: the one that is being filled, or a new one. NULL: *ret_err says why. */
static struct side *filling_side(struct spool *sp, const struct spool_user *x, uint64_t file_off,
	int *ret_err)
{
	struct bufs *bufs = sp->u->rt->bufs;
	struct side *side = side_in(sp, SIDE_FILLING);
	int err = 0;
	if (side && continues(side, x, file_off))
		return side;
	drain_next(sp);
	side = side_in(sp, SIDE_FREE);
	if (!side) {
		*ret_err = SPOOL_WAIT; /* both are in use: the one that drains wakes us */
		return NULL;
	}
	side->pipe = pipes_take(bufs, &err);
	if (!side->pipe) {
		/* None left: one of our own coming back wakes us, or anybody's. With no descriptor
		 * left at all it is the same: one that exists will come back. */
		bool can_come = err == -EAGAIN || pipes_used(bufs) > 0;
		if (can_come && !side_in(sp, SIDE_DRAINING))
			pipes_wait(bufs, &sp->pipe_waiter);
		*ret_err = can_come ? SPOOL_WAIT : err;
		return NULL;
	}
	side->state = SIDE_FILLING;
	side->file_off = file_off;
	return side;
}

static void add_part(struct side *side, struct spool_user *x, uint32_t bytes)
{
	struct part *last = side->parts_end ? &side->parts[side->parts_end - 1] : NULL;
	if (!last || last->user != x) {
		last = &side->parts[side->parts_end++];
		*last = (struct part){.user = x};
	}
	last->bytes += bytes;
	x->bytes += bytes;
	side->pipe->bytes += bytes;
}

static void note_due(struct spool *sp)
{
	if (sp->due)
		return;
	sp->due = true;
	sp->due_next = sp->u->spools_due;
	sp->u->spools_due = sp;
}

int spool_pull(struct spool_user *x, int sock_fd, uint64_t file_off, uint32_t bytes_max)
{
	struct spool *sp = x->spool;
	int err;
	struct side *side = filling_side(sp, x, file_off, &err);
	if (!side)
		return err;
	uint32_t room = side->pipe->bytes_max - side->pipe->bytes;
	int n = sock_splice(sock_fd, side->pipe->fds[1], bytes_max < room ? bytes_max : room);
	if (n == -EAGAIN && side->pipe->bytes) {
		/* The socket is empty, or the pipe's slots are used up before its bytes: send on
		 * what there is. */
		bool was_idle = !side_in(sp, SIDE_DRAINING);
		drain_next(sp);
		return was_idle ? -EAGAIN : SPOOL_WAIT;
	}
	if (n <= 0) {
		if (side->pipe->bytes == 0)
			release(side, true);
		return n;
	}
	add_part(side, x, (uint32_t)n);
	if (side->pipe->bytes == side->pipe->bytes_max)
		drain_next(sp);
	else
		note_due(sp);
	return n;
}

void spool_flush(struct spool_user *x)
{
	if (x->spool)
		drain_next(x->spool);
}

void spools_flush(struct uploads *u)
{
	while (u->spools_due) {
		struct spool *sp = u->spools_due;
		u->spools_due = sp->due_next;
		sp->due = false;
		drain_next(sp);
		free_if_unused(sp);
	}
}
