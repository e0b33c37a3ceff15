/*
 * daemon/bufs.c: the two pools, and their queues of waiters against an array that says who stands
 * where.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bufs.h"
#include "ring.h"

enum { BUFFER_BYTES = 5000, BUFFERS = 3, PIPE_BYTES = 8192, PIPES = 2 };

static struct bufs *pool;

static void set_up(void)
{
	cr_assert_eq(bufs_new(BUFFER_BYTES, BUFFERS, PIPE_BYTES, PIPES, &pool), 0);
}

static void tear_down(void)
{
	bufs_free(pool);
}

TestSuite(bufs, .init = set_up, .fini = tear_down);

struct waiter {
	struct bufs_waiter w;
	uint32_t woken;
	uint32_t at; /* of all wakings, which this was */
	bool takes;
	struct buf *got;
};

static uint32_t wakings;

static void on_wake(struct bufs_waiter *w)
{
	struct waiter *waiter = (struct waiter *)w;
	cr_assert_null(w->pprev, "out of the queue before it is called");
	waiter->woken++;
	waiter->at = ++wakings;
	if (waiter->takes) {
		waiter->got = bufs_take_granted(w);
		cr_assert_not_null(waiter->got);
		cr_expect_null(bufs_take_granted(w), "once");
	} else {
		buf_unref(bufs_take_granted(w));
	}
}

/* --- buffers ---------------------------------------------------------------------------------- */

Test(bufs, each_is_held_once)
{
	struct buf *b[BUFFERS];
	for (uint32_t i = 0; i < BUFFERS; i++) {
		b[i] = bufs_take(pool);
		cr_assert_not_null(b[i]);
		cr_expect_eq(b[i]->bytes_max, BUFFER_BYTES);
		cr_expect_eq(b[i]->refs, 1);
		cr_expect_eq(bufs_used(pool), i + 1);
		memset(b[i]->data, (int)i, BUFFER_BYTES);
	}
	cr_expect_null(bufs_take(pool));
	for (uint32_t i = 0; i < BUFFERS; i++) {
		for (uint32_t k = 0; k < BUFFER_BYTES; k++)
			cr_assert_eq(b[i]->data[k], i);
	}
	buf_unref(b[1]);
	cr_expect_eq(bufs_used(pool), BUFFERS - 1);
	struct buf *again = bufs_take(pool);
	cr_expect_eq(again, b[1]);
	cr_expect_eq(again->refs, 1);
	cr_expect_null(bufs_take(pool));
	for (uint32_t i = 0; i < BUFFERS; i++)
		buf_unref(b[i]);
	cr_expect_eq(bufs_used(pool), 0);
	buf_unref(NULL);
}

Test(bufs, goes_back_with_the_last_reference)
{
	struct waiter waiter = {.w.wake = on_wake};
	struct buf *b[BUFFERS];
	for (uint32_t i = 0; i < BUFFERS; i++)
		b[i] = bufs_take(pool);
	buf_ref(b[0]);
	buf_ref(b[0]);
	bufs_wait(pool, &waiter.w);
	buf_unref(b[0]);
	buf_unref(b[0]);
	cr_expect_eq(bufs_used(pool), BUFFERS);
	cr_expect_eq(waiter.woken, 0);
	cr_expect_null(bufs_take(pool));
	buf_unref(b[0]);
	cr_expect_eq(bufs_used(pool), BUFFERS - 1);
	cr_expect_eq(waiter.woken, 1);
	buf_unref(b[1]);
	buf_unref(b[2]);
	cr_expect_eq(waiter.woken, 1);
}

Test(bufs, one_too_many_given_back, .signal = SIGABRT)
{
	struct buf *b = bufs_take(pool);
	buf_unref(b);
	buf_unref(b);
}

Test(bufs, not_all_have_come_back, .signal = SIGABRT)
{
	cr_assert_not_null(bufs_take(pool));
	bufs_free(pool);
}

/* --- waiters ---------------------------------------------------------------------------------- */

Test(bufs, each_give_wakes_the_oldest)
{
	struct waiter waiters[4] = {0};
	struct buf *b[BUFFERS];
	for (uint32_t i = 0; i < BUFFERS; i++)
		b[i] = bufs_take(pool);
	for (uint32_t i = 0; i < 4; i++) {
		waiters[i] = (struct waiter){.w.wake = on_wake, .takes = true};
		bufs_wait(pool, &waiters[i].w);
		bufs_wait(pool, &waiters[0].w); /* keeps its place */
	}
	for (uint32_t i = 0; i < BUFFERS; i++) {
		buf_unref(b[i]);
		cr_expect_eq(waiters[i].woken, 1);
		cr_expect_eq(waiters[i].at, i + 1);
		cr_expect_eq(waiters[i].got, b[i], "it takes what was given back, in wake");
	}
	cr_expect_eq(waiters[3].woken, 0);
	buf_unref(waiters[0].got);
	cr_expect_eq(waiters[3].woken, 1);
	for (uint32_t i = 1; i < 4; i++)
		buf_unref(waiters[i].got);
	cr_expect_eq(bufs_used(pool), 0);
}

static uint32_t rnd(uint32_t below)
{
	static uint64_t seed = 1;
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

/* Waiters come, go and are woken at random; model[] holds their numbers in order. */
Test(bufs, waiters_against_a_model)
{
	enum { COUNT = 12 };
	struct waiter waiters[COUNT] = {0};
	uint32_t model[COUNT], count = 0, woken[COUNT] = {0};
	for (uint32_t i = 0; i < COUNT; i++)
		waiters[i].w.wake = on_wake;
	for (uint32_t step = 0; step < 30000; step++) {
		uint32_t n = rnd(COUNT), at = 0;
		while (at < count && model[at] != n)
			at++;
		switch (rnd(3)) {
		case 0:
			bufs_wait(pool, &waiters[n].w);
			if (at == count)
				model[count++] = n;
			break;
		case 1:
			bufs_wait_cancel(&waiters[n].w);
			if (at < count) {
				memmove(model + at, model + at + 1, (count - at - 1) * sizeof(model[0]));
				count--;
			}
			break;
		default:
			/* Each one woken gives the buffer back at once, which wakes the next. */
			buf_unref(bufs_take(pool));
			for (; count > 0; count--)
				woken[model[count - 1]]++;
		}
		for (uint32_t i = 0; i < COUNT; i++)
			cr_assert_eq(waiters[i].woken, woken[i], "step %u", step);
	}
	for (uint32_t i = 0; i < COUNT; i++)
		bufs_wait_cancel(&waiters[i].w);
}

static void wait_again(struct bufs_waiter *w)
{
	struct waiter *waiter = (struct waiter *)w;
	struct buf *b = bufs_take_granted(w);
	waiter->woken++;
	waiter->at = ++wakings;
	bufs_wait(pool, w);
	waiter->got = b;
}

Test(bufs, who_waits_again_in_wake_goes_to_the_end)
{
	struct waiter eager = {.w.wake = wait_again}, other = {.w.wake = on_wake, .takes = true};
	bufs_wait(pool, &eager.w);
	bufs_wait(pool, &other.w);
	buf_unref(bufs_take(pool));
	cr_expect_eq(eager.woken, 1);
	cr_expect_eq(other.woken, 0);
	buf_unref(eager.got);
	cr_expect_eq(eager.woken, 1);
	cr_expect_eq(other.woken, 1);
	buf_unref(other.got);
	cr_expect_eq(eager.woken, 2);
	bufs_wait_cancel(&eager.w);
	buf_unref(eager.got);
}

Test(bufs, buffers_and_pipes_have_a_queue_each)
{
	struct waiter for_buf = {.w.wake = on_wake}, for_pipe = {.w.wake = on_wake};
	int err = 0;
	bufs_wait(pool, &for_buf.w);
	pipes_wait(pool, &for_pipe.w);
	pipes_give(pipes_take(pool, &err), true);
	cr_expect_eq(for_buf.woken, 0);
	cr_expect_eq(for_pipe.woken, 1);
	buf_unref(bufs_take(pool));
	cr_expect_eq(for_buf.woken, 1);
	cr_expect_eq(for_pipe.woken, 1);
}

/* Woken, and does nothing yet. */
static void on_news(struct bufs_waiter *w)
{
	((struct waiter *)w)->woken++;
}

/* The first one that was woken dies without taking the pipe: the end of the turn wakes the next. */
Test(bufs, a_pipe_that_nobody_took_wakes_the_next)
{
	struct waiter dies = {.w.wake = on_news}, next = {.w.wake = on_news};
	int err = 0;
	struct pipe *pipe = pipes_take(pool, &err);
	pipes_wait(pool, &dies.w);
	pipes_wait(pool, &next.w);
	bufs_step(pool);
	cr_expect_eq(dies.woken, 0, "one is out");
	pipes_give(pipe, true);
	cr_expect_eq(dies.woken, 1);
	cr_expect_eq(next.woken, 0);
	for (int i = 0; i < 2; i++) {
		bufs_step(pool);
		cr_expect_eq(next.woken, 1);
	}
}

/* Between a waiter's waking and its turn others ask for buffers: his is not theirs. */
Test(bufs, nobody_overtakes_who_was_woken)
{
	struct waiter first = {.w.wake = on_news}, second = {.w.wake = on_news};
	struct buf *b[BUFFERS];
	for (uint32_t i = 0; i < BUFFERS; i++)
		b[i] = bufs_take(pool);
	bufs_wait(pool, &first.w);
	bufs_wait(pool, &second.w);
	buf_unref(b[0]);
	cr_expect_eq(first.woken, 1);
	cr_expect_eq(bufs_used(pool), BUFFERS, "it is the first one's");
	cr_expect_null(bufs_take(pool));
	bufs_wait(pool, &first.w);
	bufs_step(pool);
	cr_expect_eq(second.woken, 0);
	bufs_wait_cancel(&first.w); /* it dies without having taken it */
	cr_expect_eq(second.woken, 1);
	cr_expect_null(bufs_take(pool));
	cr_expect_null(bufs_take_granted(&first.w));
	cr_expect_eq(bufs_take_granted(&second.w), b[0]);
	bufs_wait_cancel(&second.w);
	bufs_wait_cancel(&first.w);
	cr_expect_eq(bufs_used(pool), BUFFERS);
	for (uint32_t i = 0; i < BUFFERS; i++)
		buf_unref(b[i]);
	cr_expect_eq(bufs_used(pool), 0);
}

/* Who began to wait although one is free (it could not be allocated a moment ago) gets it. */
Test(bufs, a_step_serves_who_waits_beside_free_ones)
{
	struct waiter waiter = {.w.wake = on_wake, .takes = true};
	bufs_wait(pool, &waiter.w);
	bufs_step(pool);
	cr_expect_eq(waiter.woken, 1);
	bufs_step(pool);
	cr_expect_eq(waiter.woken, 1);
	cr_expect_eq(bufs_used(pool), 1);
	buf_unref(waiter.got);
}

/* --- pipes ------------------------------------------------------------------------------------ */

Test(bufs, pipes_are_empty_when_taken)
{
	struct waiter waiter = {.w.wake = on_wake};
	char got[8];
	int err = 0;
	struct pipe *a = pipes_take(pool, &err), *b = pipes_take(pool, &err);
	cr_assert(a && b && a != b);
	cr_expect_eq(pipes_used(pool), PIPES);
	cr_expect_geq(a->bytes_max, PIPE_BYTES);
	cr_expect_null(pipes_take(pool, &err));
	cr_expect_eq(err, -EAGAIN);
	pipes_wait(pool, &waiter.w);
	cr_expect_eq(write(a->fds[1], "left", 4), 4);
	a->bytes = 4;
	pipes_give(a, true); /* the holder believes that it is empty, but its own count says no */
	cr_expect_eq(waiter.woken, 1);
	cr_expect_eq(pipes_used(pool), PIPES - 1);
	struct pipe *c = pipes_take(pool, &err);
	cr_assert_not_null(c);
	cr_expect_eq(c->bytes, 0);
	cr_expect_eq(read(c->fds[0], got, sizeof(got)), -1);
	cr_expect_eq(write(c->fds[1], "left", 4), 4);
	pipes_give(c, false); /* a splice was cut: nobody knows what is in it */
	c = pipes_take(pool, &err);
	cr_assert_not_null(c);
	cr_expect_eq(read(c->fds[0], got, sizeof(got)), -1);
	pipes_give(b, true);
	pipes_give(c, true);
	pipes_give(NULL, true);
	cr_expect_eq(pipes_used(pool), 0);
}

/* A clean pipe is kept; a dirty one gives its descriptors back to the process. */
Test(bufs, descriptors_of_pipes)
{
	int err = 0, before = dup(0), after;
	close(before);
	struct pipe *p = pipes_take(pool, &err);
	int fds[2] = {p->fds[0], p->fds[1]};
	pipes_give(p, true);
	cr_expect_neq(fcntl(fds[0], F_GETFD), -1);
	cr_expect_eq(pipes_take(pool, &err), p);
	cr_expect_eq(p->fds[0], fds[0]);
	for (int i = 0; i < 50; i++) {
		pipes_give(p, false);
		cr_expect_eq(fcntl(fds[0], F_GETFD), -1);
		cr_expect_eq(fcntl(fds[1], F_GETFD), -1);
		p = pipes_take(pool, &err);
		cr_assert_not_null(p);
	}
	pipes_give(p, false);
	after = dup(0);
	close(after);
	cr_expect_eq(after, before);
}

/* After this, load opens no more descriptors. */
Test(bufs, all_pipes_opened_at_once)
{
	struct pipe *pipes[PIPES];
	int err = 0, before, after;
	pipes_open_all(pool);
	cr_expect_eq(pipes_used(pool), 0);
	before = dup(0);
	close(before);
	for (int i = 0; i < PIPES; i++) {
		pipes[i] = pipes_take(pool, &err);
		cr_assert_not_null(pipes[i]);
	}
	cr_expect_null(pipes_take(pool, &err));
	cr_expect_eq(err, -EAGAIN);
	after = dup(0);
	close(after);
	cr_expect_eq(after, before);
	for (int i = 0; i < PIPES; i++)
		pipes_give(pipes[i], true);
}

Test(bufs, no_descriptors_left)
{
	int err = 0;
	struct rlimit old, few;
	getrlimit(RLIMIT_NOFILE, &old);
	int next = dup(0);
	close(next);
	few = (struct rlimit){.rlim_cur = (rlim_t)next + 1, .rlim_max = old.rlim_max};
	setrlimit(RLIMIT_NOFILE, &few); /* room for one, and a pipe needs two */
	cr_expect_null(pipes_take(pool, &err));
	cr_expect_eq(err, -EMFILE);
	cr_expect_eq(pipes_used(pool), 0);
	setrlimit(RLIMIT_NOFILE, &old);
	struct pipe *p = pipes_take(pool, &err);
	cr_expect_not_null(p);
	pipes_give(p, true);
}

Test(bufs, nothing_to_free)
{
	bufs_free(NULL);
}
