/*
 * bufs.h: two pools, each a stack of what is free and a queue of who waits.
 */
#include "bufs.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "ring.h"

struct waiters {
	struct bufs_waiter *head, **tail;
};

struct bufs {
	uint32_t buffer_bytes, buffers_max, buffers_made, buffers_out;
	uint32_t pipe_bytes, pipes_max, pipes_out;
	struct buf *free_bufs;
	struct pipe *free_pipes;
	struct waiters buf_waiters, pipe_waiters;
};

static void waiters_init(struct waiters *w)
{
	w->head = NULL;
	w->tail = &w->head;
}

int bufs_new(uint32_t buffer_bytes, uint32_t buffers_max, uint32_t pipe_bytes, uint32_t pipes_max,
	struct bufs **ret)
{
	struct bufs *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->buffer_bytes = buffer_bytes;
	p->buffers_max = buffers_max;
	p->pipe_bytes = pipe_bytes;
	p->pipes_max = pipes_max;
	waiters_init(&p->buf_waiters);
	waiters_init(&p->pipe_waiters);
	*ret = p;
	return 0;
}

static void pipe_destroy(struct pipe *p)
{
	sys_close(p->fds[0]);
	sys_close(p->fds[1]);
	free(p);
}

void bufs_free(struct bufs *p)
{
	if (!p)
		return;
	assert(p->buffers_out == 0 && p->pipes_out == 0);
	while (p->free_bufs) {
		struct buf *b = p->free_bufs;
		p->free_bufs = b->next;
		free(b->data);
		free(b);
	}
	while (p->free_pipes) {
		struct pipe *pipe = p->free_pipes;
		p->free_pipes = pipe->next;
		pipe_destroy(pipe);
	}
	free(p);
}

static void unlink_waiter(struct bufs_waiter *w)
{
	if (!w->pprev)
		return;
	*w->pprev = w->next;
	if (w->next)
		w->next->pprev = w->pprev;
	else
		*w->tail = w->pprev;
	w->next = NULL;
	w->pprev = NULL;
}

/* Hands `granted` (NULL: nothing but the news) to the oldest. False: nobody waits. */
static bool wake_one(struct waiters *ws, struct buf *granted)
{
	struct bufs_waiter *w = ws->head;
	if (!w)
		return false;
	unlink_waiter(w);
	w->granted = granted;
	w->wake(w);
	return true;
}

static void wait_in(struct waiters *ws, struct bufs_waiter *w)
{
	if (w->pprev || w->granted)
		return;
	w->next = NULL;
	w->tail = &ws->tail;
	w->pprev = ws->tail;
	*ws->tail = w;
	ws->tail = &w->next;
}

void bufs_wait_cancel(struct bufs_waiter *w)
{
	unlink_waiter(w);
	buf_unref(bufs_take_granted(w));
}

void bufs_wait(struct bufs *p, struct bufs_waiter *w)
{
	wait_in(&p->buf_waiters, w);
}

void pipes_wait(struct bufs *p, struct bufs_waiter *w)
{
	wait_in(&p->pipe_waiters, w);
}

struct buf *bufs_take(struct bufs *p)
{
	struct buf *b = p->free_bufs;
	if (b) {
		p->free_bufs = b->next;
	} else {
		if (p->buffers_made == p->buffers_max || !(b = malloc(sizeof(*b))))
			return NULL;
		b->data = malloc(p->buffer_bytes);
		if (!b->data) {
			free(b);
			return NULL;
		}
		b->pool = p;
		b->bytes_max = p->buffer_bytes;
		p->buffers_made++;
	}
	b->next = NULL;
	b->refs = 1;
	p->buffers_out++;
	return b;
}

struct buf *bufs_take_granted(struct bufs_waiter *w)
{
	struct buf *b = w->granted;
	w->granted = NULL;
	return b;
}

void buf_ref(struct buf *b)
{
	assert(b->refs > 0);
	b->refs++;
}

void buf_unref(struct buf *b)
{
	if (!b)
		return;
	assert(b->refs > 0);
	if (--b->refs > 0)
		return;
	struct bufs *p = b->pool;
	if (p->buf_waiters.head) {
		b->refs = 1;
		wake_one(&p->buf_waiters, b);
		return;
	}
	b->next = p->free_bufs;
	p->free_bufs = b;
	p->buffers_out--;
}

static int pipe_new(struct bufs *p, struct pipe **ret)
{
	struct pipe *pipe = calloc(1, sizeof(*pipe));
	if (!pipe)
		return -ENOMEM;
	int err = pipe_open(p->pipe_bytes, pipe->fds, &pipe->bytes_max);
	if (err) {
		free(pipe);
		return err;
	}
	pipe->pool = p;
	*ret = pipe;
	return 0;
}

void pipes_open_all(struct bufs *p)
{
	assert(p->pipes_out == 0 && !p->free_pipes);
	for (uint32_t i = 0; i < p->pipes_max; i++) {
		struct pipe *pipe;
		if (pipe_new(p, &pipe) != 0)
			return; /* pipes_take tells who needs one */
		pipe->next = p->free_pipes;
		p->free_pipes = pipe;
	}
}

struct pipe *pipes_take(struct bufs *p, int *ret_err)
{
	struct pipe *pipe = p->free_pipes;
	if (pipe) {
		p->free_pipes = pipe->next;
	} else {
		int err = p->pipes_out < p->pipes_max ? pipe_new(p, &pipe) : -EAGAIN;
		if (err) {
			*ret_err = err;
			return NULL;
		}
	}
	pipe->next = NULL;
	pipe->bytes = 0;
	p->pipes_out++;
	return pipe;
}

void pipes_give(struct pipe *pipe, bool is_clean)
{
	if (!pipe)
		return;
	struct bufs *p = pipe->pool;
	p->pipes_out--;
	if (is_clean && pipe->bytes == 0) {
		pipe->next = p->free_pipes;
		p->free_pipes = pipe;
	} else {
		pipe_destroy(pipe);
	}
	wake_one(&p->pipe_waiters, NULL);
}

void bufs_step(struct bufs *p)
{
	struct buf *b = p->buf_waiters.head ? bufs_take(p) : NULL;
	if (b)
		wake_one(&p->buf_waiters, b);
	/* With none out, nobody will give one back: whoever is first finds out whether another can
	 * be made. */
	if (p->free_pipes || p->pipes_out == 0)
		wake_one(&p->pipe_waiters, NULL);
}

uint32_t bufs_used(const struct bufs *p)
{
	return p->buffers_out;
}

uint32_t pipes_used(const struct bufs *p)
{
	return p->pipes_out;
}
