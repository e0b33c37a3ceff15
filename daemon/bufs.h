/*
 * Buffers and pipes of one reactor: pools with a fixed size, one holder at a time.
 *
 * A buffer is counted: the connection that filled it and each write that still reads from it hold
 * one reference. Who finds a pool empty registers a waiter. A buffer that comes back goes to the
 * oldest waiter, not to whoever asks first, so nobody waits longer than for those before him; a
 * pipe that comes back wakes the oldest. Memory is allocated when first needed and kept.
 *
 * A pipe goes back only when it is empty; one that may still hold bytes is closed and replaced, so
 * that no byte of one transfer can reach another.
 */
#ifndef SLUICE_BUFS_H
#define SLUICE_BUFS_H

#include <stdbool.h>
#include <stdint.h>

struct bufs;

struct buf {
	struct bufs *pool;
	struct buf *next;
	uint32_t refs;
	uint32_t bytes_max;
	uint8_t *data;
};

struct pipe {
	struct bufs *pool;
	struct pipe *next;
	int fds[2];           /* read end, write end */
	uint32_t bytes_max;   /* what it holds */
	uint32_t bytes;       /* in it now; kept by the holder */
};

/* A place in the queue for a buffer or a pipe. */
struct bufs_waiter {
	struct bufs_waiter *next, **pprev; /* pprev == NULL: not waiting */
	struct bufs_waiter ***tail;        /* the queue's */
	struct buf *granted;               /* what it was woken with; NULL once it is taken */
	void (*wake)(struct bufs_waiter *w);
};

int bufs_new(uint32_t buffer_bytes, uint32_t buffers_max, uint32_t pipe_bytes, uint32_t pipes_max,
	struct bufs **ret);
void bufs_free(struct bufs *p); /* NULL is fine; everything must have come back */
/* Opens all pipes that the pool may have, so that the process's descriptors are the same before and
 * after the first load; fewer when there are not enough of these. Without this call they are opened
 * when first needed. */
void pipes_open_all(struct bufs *p);

/* One reference, or NULL when all are out. */
struct buf *bufs_take(struct bufs *p);
/* The buffer that w was woken with: one reference, the caller's. NULL: none. */
struct buf *bufs_take_granted(struct bufs_waiter *w);
void buf_ref(struct buf *b);
void buf_unref(struct buf *b); /* NULL is fine */

/* An empty pipe, or NULL: the pool is empty (then wait) or the process has no descriptors left
 * (*ret_err = −EMFILE …). */
struct pipe *pipes_take(struct bufs *p, int *ret_err);
/* p->bytes == 0 and the last splice was not cut: back to the pool. Else it is closed. NULL is
 * fine. */
void pipes_give(struct pipe *p, bool is_clean);

/* Waits for the next buffer (pipe) to come back. Idempotent, also while one is granted. The waiter
 * is unlinked before wake is called. */
void bufs_wait(struct bufs *p, struct bufs_waiter *w);
void pipes_wait(struct bufs *p, struct bufs_waiter *w);
/* Idempotent. A buffer that was granted and not taken goes to the next. */
void bufs_wait_cancel(struct bufs_waiter *w);

/* Once per turn, after all that was woken has run. Who was woken for a pipe may have died without
 * taking it, and a buffer that could not be allocated may be had now: what is free goes to the
 * next. */
void bufs_step(struct bufs *p);

uint32_t bufs_used(const struct bufs *p);
uint32_t pipes_used(const struct bufs *p);

#endif
