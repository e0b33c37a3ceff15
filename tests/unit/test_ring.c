/*
 * daemon/ring.c on a real io_uring: every call with what it returns and how it fails, and the rules
 * of ring.h about cancelling, posting, order and caps.
 */
#include "ring_world.h"

#include <errno.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

static struct ring_world w;

static void set_up(void)
{
	ring_world_init(&w);
}

static void tear_down(void)
{
	ring_world_fini(&w);
}

TestSuite(ring, .init = set_up, .fini = tear_down);

/* A pipe whose reader waits: the kernel needs a worker for a splice out of it. */
static void blocking_pipe(int fds[2])
{
	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
}

static void close_pipe(int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

Test(ring, the_kernel_is_good_enough)
{
	char error[256] = "";
	cr_expect_eq(ring_check_kernel(error, sizeof(error)), 0, "%s", error);
	cr_expect_str_eq(error, "");
}

/* --- files ------------------------------------------------------------------------------------ */

Test(ring, writes)
{
	struct work work = {0};
	char got[16] = "";
	int fd = ring_world_file(&w, "f", "", 0);
	ring_write(w.ring, work_op(&work), fd, "hello world", 11, 100);
	cr_expect_eq(ring_busy_count(w.ring), 1);
	cr_expect_not(op_is_idle(&work.op));
	cr_expect_eq(ring_world_result(&w, &work), 11);
	cr_expect_eq(ring_busy_count(w.ring), 0);
	cr_expect_eq(pread(fd, got, sizeof(got), 106), 5);
	cr_expect_str_eq(got, "world");
	struct iovec iov[] = {{"ab", 2}, {"", 0}, {"cde", 3}};
	ring_writev(w.ring, work_op(&work), fd, iov, 3, 0);
	cr_expect_eq(ring_world_result(&w, &work), 5);
	cr_expect_eq(pread(fd, got, 6, 0), 6);
	cr_expect_arr_eq(got, "abcde", 6);
	close(fd);
	ring_write(w.ring, work_op(&work), fd, got, 1, 0);
	cr_expect_eq(ring_world_result(&w, &work), -EBADF);
	ring_writev(w.ring, work_op(&work), fd, iov, 3, 0);
	cr_expect_eq(ring_world_result(&w, &work), -EBADF);
}

Test(ring, open)
{
	struct work work = {0};
	struct stat st;
	umask(0);
	ring_openat(w.ring, work_op(&work), w.dir_fd, "new", O_RDWR | O_CREAT | O_EXCL, 0640);
	int fd = ring_world_result(&w, &work);
	cr_assert_geq(fd, 0);
	cr_expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_expect_eq(fstat(fd, &st), 0);
	cr_expect_eq(st.st_mode & 07777, 0640);
	ring_openat(w.ring, work_op(&work), w.dir_fd, "new", O_RDWR | O_CREAT | O_EXCL, 0640);
	cr_expect_eq(ring_world_result(&w, &work), -EEXIST);
	ring_openat(w.ring, work_op(&work), w.dir_fd, "none", O_RDWR, 0);
	cr_expect_eq(ring_world_result(&w, &work), -ENOENT);
	close(fd);
}

Test(ring, sizes_and_syncs)
{
	struct work work = {0};
	struct stat st;
	int fd = ring_world_file(&w, "f", "x", 1);
	ring_fallocate(w.ring, work_op(&work), fd, 0, 4096, 3 << 20);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	fstat(fd, &st);
	cr_expect_eq(st.st_size, 4096 + (3 << 20));
	ring_fallocate(w.ring, work_op(&work), fd, FALLOC_FL_KEEP_SIZE, 8 << 20, 1 << 20);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	fstat(fd, &st);
	cr_expect_eq(st.st_size, 4096 + (3 << 20));
	cr_expect_geq(st.st_blocks * 512, 4 << 20);
	ring_fallocate(w.ring, work_op(&work), fd, 0, 0, 0);
	cr_expect_eq(ring_world_result(&w, &work), -EINVAL);
	ring_fallocate(w.ring, work_op(&work), fd, 0, 0, 1ull << 62);
	cr_expect_eq(ring_world_result(&w, &work), -EFBIG, "a length of 64 bits arrives whole");
	ring_ftruncate(w.ring, work_op(&work), fd, 7);
	cr_expect_eq(ring_busy_count(w.ring), 1);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	fstat(fd, &st);
	cr_expect_eq(st.st_size, 7);
	ring_fsync(w.ring, work_op(&work), fd);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	ring_fdatasync(w.ring, work_op(&work), fd);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	ring_write_behind(w.ring, work_op(&work), fd, 0, 7);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	close(fd);
	ring_ftruncate(w.ring, work_op(&work), fd, 7);
	cr_expect_eq(ring_world_result(&w, &work), -EBADF);
	int pipe_fds[2];
	blocking_pipe(pipe_fds);
	ring_fsync(w.ring, work_op(&work), pipe_fds[0]);
	cr_expect_eq(ring_world_result(&w, &work), -EINVAL);
	ring_fdatasync(w.ring, work_op(&work), pipe_fds[0]);
	cr_expect_eq(ring_world_result(&w, &work), -EINVAL);
	ring_write_behind(w.ring, work_op(&work), pipe_fds[0], 0, 7);
	cr_expect_eq(ring_world_result(&w, &work), -ESPIPE);
	close_pipe(pipe_fds);
}

Test(ring, unlink)
{
	struct work work = {0};
	cr_assert_eq(mkdirat(w.dir_fd, "d", 0700), 0);
	int d = openat(w.dir_fd, "d", O_RDONLY | O_DIRECTORY);
	close(openat(d, "c", O_WRONLY | O_CREAT, 0600));
	ring_unlinkat(w.ring, work_op(&work), w.dir_fd, "d", AT_REMOVEDIR);
	cr_expect_eq(ring_world_result(&w, &work), -ENOTEMPTY);
	ring_unlinkat(w.ring, work_op(&work), d, "c", 0);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	ring_unlinkat(w.ring, work_op(&work), d, "c", 0);
	cr_expect_eq(ring_world_result(&w, &work), -ENOENT);
	ring_unlinkat(w.ring, work_op(&work), w.dir_fd, "d", AT_REMOVEDIR);
	cr_expect_eq(ring_world_result(&w, &work), 0);
	close(d);
}

Test(ring, splice_goes_to_its_offset)
{
	struct work work = {0};
	char got[10];
	int fds[2], fd = ring_world_file(&w, "f", "0123456789", 10);
	blocking_pipe(fds);
	cr_assert_eq(write(fds[1], "abcdef", 6), 6);
	ring_splice(w.ring, work_op(&work), fds[0], fd, 4, 3);
	cr_expect_eq(ring_world_result(&w, &work), 3);
	ring_splice(w.ring, work_op(&work), fds[0], fd, 0, 1000);
	cr_expect_eq(ring_world_result(&w, &work), 3, "what there is");
	cr_expect_eq(pread(fd, got, 10, 0), 10);
	cr_expect_arr_eq(got, "def3abc789", 10);
	close(fds[1]);
	ring_splice(w.ring, work_op(&work), fds[0], fd, 0, 10);
	cr_expect_eq(ring_world_result(&w, &work), 0, "the writer has gone");
	ring_splice(w.ring, work_op(&work), fd, fd, 0, 10);
	cr_expect_eq(ring_world_result(&w, &work), -EINVAL, "no pipe");
	close(fd);
	close(fds[0]);
}

/* --- sockets ---------------------------------------------------------------------------------- */

Test(ring, poll_and_send)
{
	struct work poll = {0}, send = {0};
	int s[2];
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
	ring_poll_in(w.ring, work_op(&poll), s[0]);
	ring_turn(w.ring, 0);
	cr_expect_eq(poll.done_count, 0);
	cr_expect_eq(poll.op.state, OP_INFLIGHT);
	ring_send(w.ring, work_op(&send), s[1], "hi", 2);
	cr_expect_eq(ring_world_result(&w, &send), 2);
	ring_world_until(&w, &poll.done_count, 1);
	cr_expect_eq(poll.res & POLLIN, POLLIN);
	cr_expect(op_is_idle(&poll.op), "one shot");
	char got[2];
	cr_expect_eq(sock_recv(s[0], got, 2), 2);
	close(s[0]);
	ring_send(w.ring, work_op(&send), s[1], "hi", 2);
	cr_expect_eq(ring_world_result(&w, &send), -EPIPE, "and no signal");
	close(s[1]);
}

/* A send that doesn't fit at once waits for room; being a stream's, it may be short. */
Test(ring, send_waits_for_room)
{
	static char much[4 << 20], got[1 << 16];
	struct work send = {0};
	int s[2];
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s), 0);
	while (write(s[1], much, sizeof(much)) > 0)
		;
	ring_send(w.ring, work_op(&send), s[1], much, sizeof(much));
	ring_turn(w.ring, 20);
	if (send.done_count == 0) {
		while (send.done_count == 0) {
			cr_assert_neq(sock_recv(s[0], got, sizeof(got)), 0);
			ring_turn(w.ring, 1);
		}
		cr_expect_gt(send.res, 0);
	} else {
		cr_expect_eq(send.res, -EAGAIN, "the fd is non-blocking");
	}
	close(s[0]);
	close(s[1]);
}

struct acceptor {
	struct work work;
	int fds[8];
	uint32_t count;
};

static void on_accepted(struct work *work)
{
	struct acceptor *a = work->arg;
	if (work->res >= 0)
		a->fds[a->count++] = work->res;
}

Test(ring, accept_goes_on_until_cancelled)
{
	struct acceptor a = {.work = {.then = on_accepted, .arg = &a}};
	char name[64];
	int listener;
	cr_assert_eq(sys_listen("127.0.0.1:0", false, &listener, name, sizeof(name)), 0);
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	getsockname(listener, (struct sockaddr *)&ss, &len);
	ring_accept_multi(w.ring, work_op(&a.work), listener);
	int clients[5];
	for (uint32_t i = 0; i < 5; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM, 0);
		cr_assert_eq(connect(clients[i], (struct sockaddr *)&ss, len), 0);
		if (i % 2)
			ring_world_until(&w, &a.count, i + 1);
	}
	ring_world_until(&w, &a.count, 5);
	cr_expect(a.work.op.more);
	cr_expect_eq(a.work.op.state, OP_INFLIGHT);
	cr_expect_eq(ring_busy_count(w.ring), 1);
	for (uint32_t i = 0; i < 5; i++) {
		cr_expect(fcntl(a.fds[i], F_GETFL) & O_NONBLOCK);
		cr_expect(fcntl(a.fds[i], F_GETFD) & FD_CLOEXEC);
		close(a.fds[i]);
		close(clients[i]);
	}
	ring_cancel(w.ring, &a.work.op);
	ring_cancel(w.ring, &a.work.op);
	ring_world_until(&w, &a.work.done_count, 6);
	cr_expect_eq(a.work.res, -ECANCELED);
	cr_expect_not(a.work.op.more);
	cr_expect_eq(a.count, 5);
	ring_accept_multi(w.ring, work_op(&a.work), w.dir_fd);
	cr_expect_eq(ring_world_result(&w, &a.work), -ENOTSOCK);
	close(listener);
}

/* --- cancelling ------------------------------------------------------------------------------- */

Test(ring, cancel_of_an_idle_operation_does_nothing)
{
	struct work work = {0};
	int fd = ring_world_file(&w, "f", "x", 1);
	ring_cancel(w.ring, work_op(&work));
	ring_write(w.ring, work_op(&work), fd, "y", 1, 0);
	cr_expect_eq(ring_world_result(&w, &work), 1);
	ring_cancel(w.ring, &work.op);
	ring_turn(w.ring, 0);
	cr_expect_eq(work.done_count, 1);
	close(fd);
}

/* What the kernel has not seen yet, it never sees. */
Test(ring, cancel_of_a_queued_operation)
{
	struct work unlink = {0}, again = {0};
	close(ring_world_file(&w, "f", "x", 1));
	ring_unlinkat(w.ring, work_op(&unlink), w.dir_fd, "f", 0);
	cr_expect_eq(unlink.op.state, OP_QUEUED);
	ring_cancel(w.ring, &unlink.op);
	cr_expect_eq(unlink.done_count, 0, "nothing is called from inside a call");
	cr_expect_eq(ring_world_result(&w, &unlink), -ECANCELED);
	cr_expect_eq(faccessat(w.dir_fd, "f", F_OK, 0), 0);
	ring_unlinkat(w.ring, work_op(&unlink), w.dir_fd, "f", 0);
	cr_expect_eq(ring_world_result(&w, &unlink), 0, "the mark is gone");
	ring_unlinkat(w.ring, work_op(&again), w.dir_fd, "f", 0);
	cr_expect_eq(ring_world_result(&w, &again), -ENOENT);
}

Test(ring, cancel_in_flight)
{
	enum { COUNT = 300 }; /* more than the submission queue takes */
	static struct work polls[COUNT];
	struct work splice = {0}, held = {0};
	int fds[2], fd = ring_world_file(&w, "f", "", 0);
	blocking_pipe(fds);
	for (uint32_t i = 0; i < COUNT; i++)
		ring_poll_in(w.ring, work_op(&polls[i]), fds[0]);
	ring_splice(w.ring, work_op(&splice), fds[0], fd, 0, 10);
	ring_splice(w.ring, work_op(&held), fds[0], fd, 0, 10);
	for (int i = 0; i < 20; i++)
		ring_turn(w.ring, 1);
	cr_expect_eq(ring_busy_count(w.ring), COUNT + 2);
	for (uint32_t i = 0; i < COUNT; i++) {
		cr_expect_eq(polls[i].op.state, OP_INFLIGHT);
		ring_cancel(w.ring, &polls[i].op);
	}
	cr_expect_eq(splice.op.state, OP_INFLIGHT);
	ring_cancel(w.ring, &splice.op);
	for (uint32_t i = 0; i < COUNT; i++)
		ring_world_until(&w, &polls[i].done_count, 1);
	ring_world_until(&w, &splice.done_count, 1);
	for (uint32_t i = 0; i < COUNT; i++)
		cr_expect_eq(polls[i].res, -ECANCELED);
	cr_expect_eq(splice.res, -ECANCELED, "a worker that waits is woken: %d", splice.res);
	cr_expect_eq(held.done_count, 0, "another operation on the same fd goes on");
	cr_assert_eq(write(fds[1], "abc", 3), 3);
	ring_world_until(&w, &held.done_count, 1);
	cr_expect_eq(held.res, 3);
	close(fd);
	close_pipe(fds);
}

struct pair {
	struct work first, second;
	int fds[2];
	bool requeued;
};

static void on_either(struct work *work)
{
	struct pair *p = work->arg;
	struct work *other = work == &p->first ? &p->second : &p->first;
	if (p->requeued)
		return;
	/* The other one's completion is in the same batch, or has been: its op is queued anew
	 * there. */
	if (other->done_count == 0) {
		ring_cancel(w.ring, &other->op);
	} else {
		p->requeued = true;
		ring_poll_in(w.ring, work_op(work), p->fds[0]);
	}
}

/* A cancel that comes too late must not hit what the op does next. */
Test(ring, late_cancel_spares_the_next_use)
{
	struct pair p = {0};
	int ready[2];
	blocking_pipe(ready);
	blocking_pipe(p.fds);
	cr_assert_eq(write(ready[1], "x", 1), 1);
	p.first = p.second = (struct work){.then = on_either, .arg = &p};
	ring_poll_in(w.ring, work_op(&p.first), ready[0]);
	ring_poll_in(w.ring, work_op(&p.second), ready[0]);
	while (!p.requeued)
		ring_turn(w.ring, 100);
	for (int i = 0; i < 5; i++)
		ring_turn(w.ring, 1);
	struct work *again = op_is_idle(&p.first.op) ? &p.second : &p.first;
	cr_expect_eq(again->op.state, OP_INFLIGHT);
	cr_expect_eq(again->done_count, 1);
	cr_assert_eq(write(p.fds[1], "x", 1), 1);
	ring_world_until(&w, &again->done_count, 2);
	cr_expect_eq(again->res & POLLIN, POLLIN);
	close_pipe(ready);
	close_pipe(p.fds);
}

/* --- caps ------------------------------------------------------------------------------------- */

static uint32_t count_state(const struct work *works, uint32_t count, enum op_state state)
{
	uint32_t found = 0;
	for (uint32_t i = 0; i < count; i++)
		found += works[i].op.state == state;
	return found;
}

Test(ring, stuck_splices_leave_workers)
{
	enum { COUNT = 10, CAP = 2 };
	struct work splices[COUNT] = {0}, write_op = {0}, sync = {0};
	int fds[COUNT][2], fd = ring_world_file(&w, "f", "x", 1);
	for (uint32_t i = 0; i < COUNT; i++) {
		blocking_pipe(fds[i]);
		ring_splice(w.ring, work_op(&splices[i]), fds[i][0], fd, i, 1);
	}
	for (int i = 0; i < 5; i++)
		ring_turn(w.ring, 1);
	cr_expect_eq(count_state(splices, COUNT, OP_INFLIGHT), CAP);
	cr_expect_eq(count_state(splices, COUNT, OP_QUEUED), COUNT - CAP);
	ring_write(w.ring, work_op(&write_op), fd, "y", 1, 0);
	cr_expect_eq(ring_world_result(&w, &write_op), 1);
	ring_fdatasync(w.ring, work_op(&sync), fd);
	cr_expect_eq(ring_world_result(&w, &sync), 0);
	ring_cancel(w.ring, &splices[COUNT - 1].op);
	/* The first two end, and the next two take their places, and so on: in order of
	 * queueing. */
	for (uint32_t i = 0; i < COUNT - 1; i++) {
		cr_expect_leq(count_state(splices, COUNT, OP_INFLIGHT), CAP);
		cr_expect_eq(splices[i].done_count, 0);
		cr_assert_eq(write(fds[i][1], "y", 1), 1);
		ring_world_until(&w, &splices[i].done_count, 1);
		cr_expect_eq(splices[i].res, 1);
	}
	ring_world_until(&w, &splices[COUNT - 1].done_count, 1);
	cr_expect_eq(splices[COUNT - 1].res, -ECANCELED);
	for (uint32_t i = 0; i < COUNT; i++)
		close_pipe(fds[i]);
	close(fd);
}

Test(ring, syncs_are_capped)
{
	enum { COUNT = 24, CAP = 2 };
	static struct work syncs[COUNT];
	int fd = ring_world_file(&w, "f", "x", 1);
	for (uint32_t i = 0; i < COUNT; i++) {
		if (i % 3 == 0)
			ring_write_behind(w.ring, work_op(&syncs[i]), fd, 0, 1);
		else if (i % 3 == 1)
			ring_fsync(w.ring, work_op(&syncs[i]), fd);
		else
			ring_fdatasync(w.ring, work_op(&syncs[i]), fd);
	}
	for (uint32_t turns = 1; ring_busy_count(w.ring) > 0; turns++) {
		cr_assert_lt(turns, 10000);
		ring_turn(w.ring, 100);
		cr_expect_leq(count_state(syncs, COUNT, OP_INFLIGHT), CAP);
		cr_expect_geq(count_state(syncs, COUNT, OP_QUEUED) + turns * CAP, COUNT);
	}
	for (uint32_t i = 0; i < COUNT; i++) {
		cr_expect_eq(syncs[i].done_count, 1);
		cr_expect_eq(syncs[i].res, 0);
	}
	close(fd);
}

/* The journal's goes at once, whatever waits for its turn. */
Test(ring, one_sync_does_not_wait_for_others)
{
	enum { COUNT = 8 };
	static struct work syncs[COUNT], now;
	int fd = ring_world_file(&w, "f", "x", 1);
	for (int i = 0; i < COUNT; i++)
		ring_fsync(w.ring, work_op(&syncs[i]), fd);
	ring_fdatasync_now(w.ring, work_op(&now), fd);
	ring_turn(w.ring, 0);
	cr_expect_neq(now.op.state, OP_QUEUED);
	cr_expect_geq(count_state(syncs, COUNT, OP_QUEUED), 4, "they are capped");
	cr_expect_eq(ring_world_result(&w, &now), 0);
	for (int i = 0; i < COUNT; i++)
		ring_world_until(&w, &syncs[i].done_count, 1);
	close(fd);
}

/* Operations that wait only because the submission queue was full must not sleep through the
 * turn. */
Test(ring, a_full_queue_delays_no_capped_operation)
{
	struct work polls[7] = {0}, splice = {0}, sync = {0};
	int fds[2], data[2], fd = ring_world_file(&w, "f", "x", 1);
	ring_free(w.ring);
	struct ring_conf conf = {.entries = 8, .workers_max = 4, .splices_max = 2, .syncs_max = 2};
	cr_assert_eq(ring_new(&conf, &w.ring), 0);
	blocking_pipe(fds);
	blocking_pipe(data);
	cr_assert_eq(write(data[1], "abc", 3), 3);
	for (int i = 0; i < 7; i++) /* with the ring's own poll for posts: 8 */
		ring_poll_in(w.ring, work_op(&polls[i]), fds[0]);
	ring_splice(w.ring, work_op(&splice), data[0], fd, 0, 3);
	ring_fsync(w.ring, work_op(&sync), fd);
	uint64_t from_ms = sys_mono_ms();
	while (splice.done_count == 0 || sync.done_count == 0)
		ring_turn(w.ring, 3000);
	cr_expect_lt(sys_mono_ms() - from_ms, 2000);
	for (int i = 0; i < 7; i++) {
		ring_cancel(w.ring, &polls[i].op);
		ring_world_until(&w, &polls[i].done_count, 1);
	}
	close(fd);
	close_pipe(fds);
	close_pipe(data);
}

/* --- turns, posts and calls ------------------------------------------------------------------- */

Test(ring, a_turn_waits_no_longer_than_told)
{
	uint64_t from_ns = sys_mono_ns();
	ring_turn(w.ring, 0);
	ring_turn(w.ring, 0);
	cr_expect_lt(sys_mono_ns() - from_ns, 1000000000);
	from_ns = sys_mono_ns();
	ring_turn(w.ring, 30);
	cr_expect_geq(sys_mono_ns() - from_ns, 29000000);
	cr_expect_leq(ring_now_ms(w.ring), sys_mono_ms());
	cr_expect_geq(ring_now_ms(w.ring), from_ns / 1000000 + 29);
}

static void queue_another(struct work *work)
{
	if (work->done_count < 5)
		ring_write(w.ring, work_op(work), *(int *)work->arg, "y", 1, 0);
	cr_expect_eq(work->done_count < 5, !op_is_idle(&work->op));
}

Test(ring, done_may_queue_its_own_operation)
{
	int fd = ring_world_file(&w, "f", "x", 1);
	struct work work = {.then = queue_another, .arg = &fd};
	ring_write(w.ring, work_op(&work), fd, "y", 1, 0);
	ring_world_until(&w, &work.done_count, 5);
	ring_turn(w.ring, 0);
	cr_expect_eq(work.done_count, 5);
	close(fd);
}

/* More completions than one batch takes. */
Test(ring, many_at_once)
{
	enum { COUNT = 2000 };
	static struct work writes[COUNT];
	static char got[COUNT];
	int fd = ring_world_file(&w, "f", "", 0);
	for (uint32_t i = 0; i < COUNT; i++)
		ring_write(w.ring, work_op(&writes[i]), fd, &"0123456789"[i % 10], 1, i);
	cr_expect_eq(ring_busy_count(w.ring), COUNT);
	for (uint32_t i = 0; i < COUNT; i++)
		ring_world_until(&w, &writes[i].done_count, 1);
	cr_expect_eq(pread(fd, got, COUNT, 0), COUNT);
	for (uint32_t i = 0; i < COUNT; i++) {
		cr_assert_eq(writes[i].res, 1);
		cr_assert_eq(writes[i].done_count, 1);
		cr_assert_eq(got[i], '0' + (char)(i % 10));
	}
	close(fd);
}

enum { POSTERS = 3, POSTS = 2000 };

struct poster {
	pthread_t thread;
	struct work posts[POSTS];
	uint32_t seen;
};

static void on_post(struct work *work)
{
	struct poster *p = work->arg;
	cr_assert_eq(work - p->posts, p->seen, "order of one poster");
	p->seen++;
}

static void *post_all(void *arg)
{
	struct poster *p = arg;
	for (uint32_t i = 0; i < POSTS; i++) {
		if (i % 500 == 0)
			usleep(1000); /* so that the ring's thread falls asleep now and then */
		ring_post(w.ring, work_op(&p->posts[i]));
	}
	return NULL;
}

Test(ring, posts_of_threads_keep_their_order)
{
	static struct poster posters[POSTERS];
	for (int i = 0; i < POSTERS; i++) {
		for (int k = 0; k < POSTS; k++)
			posters[i].posts[k] = (struct work){.then = on_post, .arg = &posters[i]};
		cr_assert_eq(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
	}
	uint64_t from_ms = sys_mono_ms();
	for (int i = 0; i < POSTERS; i++) {
		while (posters[i].seen < POSTS) {
			cr_assert_lt(sys_mono_ms() - from_ms, 10000);
			ring_turn(w.ring, 20000);
		}
		pthread_join(posters[i].thread, NULL);
	}
	cr_expect_lt(sys_mono_ms() - from_ms, 10000, "every post woke the ring");
	cr_expect_eq(ring_busy_count(w.ring), 0);
}

static void post_again(struct work *work)
{
	if (work->done_count < 3)
		ring_post(w.ring, &work->op);
}

Test(ring, post_to_oneself)
{
	struct work work = {.then = post_again};
	ring_post(w.ring, work_op(&work));
	cr_expect_eq(work.done_count, 0, "nothing is called from inside a call");
	uint64_t from_ms = sys_mono_ms();
	for (uint32_t i = 1; i <= 3; i++) {
		ring_turn(w.ring, 5000);
		cr_expect_eq(work.done_count, i, "a post made in done waits for the next turn");
	}
	cr_expect_lt(sys_mono_ms() - from_ms, 4000);
	ring_turn(w.ring, 0);
	cr_expect_eq(work.done_count, 3);
}

struct call {
	struct work work;
	pthread_t thread;
	uint32_t order;
	int gate[2];
};

static _Atomic uint32_t calls_run;

static int on_helper(struct op *op)
{
	struct call *c = (struct call *)op;
	char byte;
	if (c->gate[0] && read(c->gate[0], &byte, 1) != 1)
		return -EIO;
	c->thread = pthread_self();
	c->order = calls_run++;
	return -(int)c->order - 1000;
}

static void calls_run_in_order_on(enum ring_lane lane, enum ring_lane other)
{
	struct call calls[4] = {0}, beside = {0};
	struct work open = {0};
	calls_run = 0;
	blocking_pipe(calls[0].gate);
	for (uint32_t i = 0; i < 4; i++)
		ring_call(w.ring, work_op(&calls[i].work), lane, on_helper);
	cr_expect_eq(ring_busy_count(w.ring), 4);
	ring_cancel(w.ring, &calls[3].work.op);
	ring_openat(w.ring, work_op(&open), w.dir_fd, ".", O_RDONLY, 0);
	cr_expect_geq(ring_world_result(&w, &open), 0, "a slow call holds up nothing else");
	close(open.res);
	ring_call(w.ring, work_op(&beside.work), other, on_helper);
	ring_world_until(&w, &beside.work.done_count, 1);
	calls_run = 0;
	for (uint32_t i = 0; i < 4; i++)
		cr_expect_not(op_is_idle(&calls[i].work.op));
	cr_assert_eq(write(calls[0].gate[1], "x", 1), 1);
	for (uint32_t i = 0; i < 4; i++) {
		ring_world_until(&w, &calls[i].work.done_count, 1);
		cr_expect_eq(calls[i].order, i);
		cr_expect(pthread_equal(calls[i].thread, calls[0].thread));
		cr_expect_not(pthread_equal(calls[i].thread, beside.thread), "each lane has a thread of its own");
		cr_expect_not(pthread_equal(calls[i].thread, pthread_self()));
		cr_expect_eq(calls[i].work.res, -(int)i - 1000);
	}
	cr_expect_eq(ring_busy_count(w.ring), 0);
	int fd = ring_world_file(&w, "f", "x", 1);
	ring_write(w.ring, work_op(&calls[0].work), fd, "y", 1, 0);
	cr_expect_eq(ring_world_result(&w, &calls[0].work), 1, "an op may be used for something else");
	ring_post(w.ring, &calls[0].work.op);
	cr_expect_eq(ring_world_result(&w, &calls[0].work), 1);
	cr_expect_eq(ring_busy_count(w.ring), 0);
	close(fd);
	close_pipe(calls[0].gate);
}

Test(ring, calls_run_on_one_thread_per_lane_in_order)
{
	for (int i = 0; i < RING_LANES; i++)
		calls_run_in_order_on((enum ring_lane)i, (enum ring_lane)((i + 1) % RING_LANES));
}

/* No thread is to be had: that is an error of the start, not the end of a daemon at work. */
Test(ring, a_ring_without_threads_is_none)
{
	struct ring_conf conf = {.entries = 8, .workers_max = 4, .splices_max = 2, .syncs_max = 2};
	struct ring *none = NULL;
	pthread_attr_t attr, usual;
	cr_assert_eq(pthread_getattr_default_np(&usual), 0);
	cr_assert_eq(pthread_attr_init(&attr), 0);
	cr_assert_eq(pthread_attr_setstacksize(&attr, (size_t)1 << 47), 0); /* more than there are addresses */
	cr_assert_eq(pthread_setattr_default_np(&attr), 0);
	cr_expect_lt(ring_new(&conf, &none), 0);
	cr_expect_null(none);
	cr_assert_eq(pthread_setattr_default_np(&usual), 0);
	cr_assert_eq(ring_new(&conf, &none), 0);
	ring_free(none);
	pthread_attr_destroy(&attr);
	pthread_attr_destroy(&usual);
}

/* More than are handed back in one go, some of them begun in the done of others. */
Test(ring, a_flood_of_short_calls)
{
	enum { CALLS = 500 };
	static struct call calls[CALLS];
	calls_run = 0;
	for (uint32_t i = 0; i < CALLS; i++)
		ring_call(w.ring, work_op(&calls[i].work), RING_FILES, on_helper);
	for (uint32_t i = 0; i < CALLS; i++) {
		ring_world_until(&w, &calls[i].work.done_count, 1);
		cr_expect_eq(calls[i].order, i);
		ring_call(w.ring, work_op(&calls[i].work), RING_FILES, on_helper);
	}
	for (uint32_t i = 0; i < CALLS; i++) {
		ring_world_until(&w, &calls[i].work.done_count, 2);
		cr_expect_eq(calls[i].order, CALLS + i);
	}
	cr_expect_eq(ring_busy_count(w.ring), 0);
}

static _Atomic bool is_called;
static uint32_t afters, after_ops;

static int on_helper_gated(struct op *op)
{
	is_called = true;
	return on_helper(op);
}

static void on_after(struct op *const ops[], size_t ops_count)
{
	afters++;
	after_ops += (uint32_t)ops_count;
	for (size_t i = 0; i < ops_count; i++) {
		const struct call *c = container_of(ops[i], struct call, work.op);
		cr_expect_eq(c->work.done_count, 0, "nobody has been told");
		cr_expect(pthread_equal(c->thread, pthread_self()));
	}
}

/* What waits while the lane is busy is called in one go, and what comes after it, too; calls that
 * nothing comes after may stand between. */
Test(ring, what_comes_after_calls_comes_once_for_many)
{
	enum { CALLS = RING_TOGETHER_MAX + 9, PLAIN = 5 };
	static struct call first, calls[CALLS];
	blocking_pipe(first.gate);
	ring_call(w.ring, work_op(&first.work), RING_FILES, on_helper_gated);
	while (!is_called)
		usleep(100);
	for (uint32_t i = 0; i < CALLS; i++)
		ring_call_then(w.ring, work_op(&calls[i].work), RING_FILES, on_helper,
			i == PLAIN ? NULL : on_after);
	cr_assert_eq(write(first.gate[1], "x", 1), 1);
	for (uint32_t i = 0; i < CALLS; i++)
		ring_world_until(&w, &calls[i].work.done_count, 1);
	cr_expect_eq(after_ops, CALLS - 1);
	cr_expect_eq(afters, 3, "before and behind the plain one, and the second go");
	close_pipe(first.gate);
}

/* The owner may look at its op at any time, also in the moment when the helper hands it back. */
Test(ring, a_call_is_not_idle_before_its_done)
{
	struct work work = {0};
	int fd = ring_world_file(&w, "f", "", 0);
	for (uint64_t i = 1; i <= 300; i++) {
		ring_ftruncate(w.ring, work_op(&work), fd, i);
		while (work.done_count < i) {
			cr_assert_not(op_is_idle(&work.op));
			ring_turn(w.ring, 0);
		}
		cr_assert_eq(work.res, 0);
	}
	close(fd);
}
