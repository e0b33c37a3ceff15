/*
 * Surroundings for the tests of what runs on a ring: a real one, a directory of its own under
 * $TMPDIR, and operations that write down how they ended.
 */
#ifndef SLUICE_TEST_RING_WORLD_H
#define SLUICE_TEST_RING_WORLD_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ring.h"

/* An operation of a test. */
struct work {
	struct op op;
	uint32_t done_count;
	int res; /* of the last completion */
	void (*then)(struct work *w);
	void *arg;
};

struct ring_world {
	struct ring *ring;
	char dir[64];
	int dir_fd;
};

static inline void work_done(struct op *op)
{
	struct work *w = (struct work *)op;
	cr_assert_eq(op_is_idle(op), !op->more);
	w->done_count++;
	w->res = op->res;
	if (w->then)
		w->then(w);
}

static inline struct op *work_op(struct work *w)
{
	w->op.done = work_done;
	return &w->op;
}

static inline void ring_world_init_with(struct ring_world *w, struct ring_conf conf)
{
	cr_assert_eq(ring_new(&conf, &w->ring), 0);
	strcpy(w->dir, "/tmp/sluice-unit-XXXXXX");
	cr_assert_not_null(mkdtemp(w->dir));
	w->dir_fd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert_geq(w->dir_fd, 0);
}

static inline void ring_world_init(struct ring_world *w)
{
	ring_world_init_with(w, (struct ring_conf){.entries = 64, .workers_max = 8, .splices_max = 2,
		.syncs_max = 2});
}

static inline int ring_world_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline void ring_world_fini(struct ring_world *w)
{
	cr_expect_eq(ring_busy_count(w->ring), 0);
	ring_free(w->ring);
	close(w->dir_fd);
	nftw(w->dir, ring_world_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* Turns the ring until count is reached, for 10 seconds at most. */
static inline void ring_world_until(struct ring_world *w, const uint32_t *count, uint32_t wanted)
{
	uint64_t end_ms = sys_mono_ms() + 10000;
	while (*count < wanted) {
		cr_assert_lt(sys_mono_ms(), end_ms, "%u of %u after 10 seconds", *count, wanted);
		ring_turn(w->ring, 100);
	}
}

/* The result of an operation that was just queued. */
static inline int ring_world_result(struct ring_world *w, struct work *work)
{
	ring_world_until(w, &work->done_count, work->done_count + 1);
	cr_assert(op_is_idle(&work->op));
	return work->res;
}

/* A new file in the directory, open for reading and writing. */
static inline int ring_world_file(struct ring_world *w, const char *name, const void *data, size_t bytes)
{
	int fd = openat(w->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(pwrite(fd, data, bytes, 0), (ssize_t)bytes);
	return fd;
}

#endif
