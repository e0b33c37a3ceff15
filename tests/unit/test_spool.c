/*
 * daemon/spool.c: whose bytes reach the file with which operation, and what is left when one fails.
 * That segments end right is test_upload.c's and test_upload_model.c's.
 */
#include "upload_commands.h"

#include <signal.h>
#include <sys/resource.h>
#include "spool.h"

enum { USERS = 3, PIECE = 20000 };

struct user {
	struct spool_user x;
	uint32_t moved, woken;
	int err;
	bool leaves; /* as soon as all of it has moved */
};

static struct bench bench;
static struct user users[USERS];
static int socks[2], file_fd;

static void on_moved(struct spool_user *x, int err)
{
	struct user *u = container_of(x, struct user, x);
	u->moved++;
	u->err = err ? err : u->err;
	if (u->leaves && x->bytes == 0)
		spool_leave(x);
}

static void on_wake(struct spool_user *x)
{
	container_of(x, struct user, x)->woken++;
}

static void set_up(void)
{
	bench_init(&bench);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, socks), 0);
	file_fd = open(bench.dir, O_TMPFILE | O_RDWR, 0600);
	cr_assert_geq(file_fd, 0);
	memset(users, 0, sizeof(users));
	for (int i = 0; i < USERS; i++) {
		users[i].x.moved = on_moved;
		users[i].x.wake = on_wake;
	}
}

static void tear_down(void)
{
	for (int i = 0; i < USERS; i++)
		spool_leave(&users[i].x);
	cr_expect_eq(pipes_used(bench.rt.bufs), 0);
	close(socks[0]);
	close(socks[1]);
	close(file_fd);
	bench_fini(&bench);
}

TestSuite(spool, .init = set_up, .fini = tear_down);

/* So much of a byte of its own into the pipe. */
static int pull(int user, uint64_t off, uint32_t bytes)
{
	uint8_t data[PIECE];
	memset(data, 'a' + user, sizeof(data));
	cr_assert_eq(write(socks[1], data, bytes), (ssize_t)bytes);
	return spool_pull(&users[user].x, socks[0], off, bytes);
}

static void expect_bytes(uint64_t off, uint32_t bytes, char want)
{
	char got[PIECE];
	cr_assert_eq(pread(file_fd, got, bytes, (off_t)off), (ssize_t)bytes);
	for (uint32_t i = 0; i < bytes; i++)
		cr_assert_eq(got[i], want, "at %llu: %c", (unsigned long long)off + i, got[i]);
}

/* Joins them all to one transfer's spool. */
static struct transfer *join_all(void)
{
	assert_ok(do_init(&bench, "{\"name\":\"a\"}"));
	struct transfer *t = transfer_find(bench.rt.uploads, &ID);
	cr_assert_not_null(t);
	t->fd = file_fd; /* the staging file is not open yet: this one stands in for it */
	for (int i = 0; i < USERS; i++)
		cr_assert_eq(spool_join_staging(&users[i].x, t), 0);
	return t;
}

static void leave_all(struct transfer *t)
{
	for (int i = 0; i < USERS; i++)
		spool_leave(&users[i].x);
	cr_expect_null(t->spool);
	t->fd = -1;
}

Test(spool, what_follows_in_the_file_is_one_operation)
{
	struct transfer *t = join_all();
	for (int i = 0; i < USERS; i++)
		cr_assert_eq(pull(i, 100 + (uint64_t)i * PIECE, PIECE), PIECE);
	cr_expect_eq(pipes_used(bench.rt.bufs), 1);
	cr_expect_eq(ring_busy_count(bench.rt.ring), 0, "nothing drains before the turn's end");
	spools_flush(bench.rt.uploads);
	cr_expect_eq(ring_busy_count(bench.rt.ring), 1);
	settle(&bench);
	for (int i = 0; i < USERS; i++) {
		cr_expect_eq(users[i].moved, 1);
		cr_expect_eq(users[i].x.bytes, 0);
		expect_bytes(100 + (uint64_t)i * PIECE, PIECE, (char)('a' + i));
	}
	leave_all(t);
}

Test(spool, what_does_not_follow_is_another)
{
	struct transfer *t = join_all();
	cr_assert_eq(pull(0, 0, PIECE), PIECE);
	cr_assert_eq(pull(1, 3 * PIECE, PIECE), PIECE);
	cr_expect_eq(pipes_used(bench.rt.bufs), 2);
	cr_expect_eq(ring_busy_count(bench.rt.ring), 1, "one drains, the other fills");
	uint32_t woken = users[2].woken;
	cr_expect_eq(pull(2, 6 * PIECE, PIECE), SPOOL_WAIT);
	settle(&bench);
	cr_expect_gt(users[2].woken, woken);
	cr_assert_eq(spool_pull(&users[2].x, socks[0], 6 * PIECE, PIECE), PIECE);
	spool_flush(&users[2].x);
	settle(&bench);
	for (int i = 0; i < USERS; i++)
		expect_bytes(3 * (uint64_t)i * PIECE, PIECE, (char)('a' + i));
	spools_flush(bench.rt.uploads);
	leave_all(t);
}

/* The one in the middle leaves in its own call; the spool outlives that. */
Test(spool, users_leave_when_their_bytes_have_moved)
{
	struct transfer *t = join_all();
	for (int i = 0; i < USERS; i++) {
		users[i].leaves = true;
		cr_assert_eq(pull(i, (uint64_t)i * 1000, 1000), 1000);
	}
	spools_flush(bench.rt.uploads);
	settle(&bench);
	for (int i = 0; i < USERS; i++)
		cr_expect_null(users[i].x.spool);
	leave_all(t);
}

/* A failed operation takes all that was in its pipe along, and the pipe itself; others go on. */
Test(spool, failure)
{
	struct transfer *t = join_all();
	struct rlimit old, low;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	low = (struct rlimit){.rlim_cur = PIECE, .rlim_max = old.rlim_max};
	cr_assert_eq(pull(0, PIECE, 1000), 1000);
	cr_assert_eq(pull(1, PIECE + 1000, 1000), 1000);
	setrlimit(RLIMIT_FSIZE, &low);
	cr_assert_eq(pull(2, 0, 1000), 1000);
	spools_flush(bench.rt.uploads);
	settle(&bench);
	setrlimit(RLIMIT_FSIZE, &old);
	cr_expect_eq(users[0].err, -EFBIG);
	cr_expect_eq(users[1].err, -EFBIG);
	cr_expect_eq(users[2].err, 0);
	expect_bytes(0, 1000, 'c');
	for (int i = 0; i < USERS; i++)
		cr_expect_eq(users[i].x.bytes, 0);
	leave_all(t);
}

Test(spool, a_file_of_its_own)
{
	cr_assert_eq(spool_join_file(&users[0].x, bench.rt.uploads, file_fd), 0);
	cr_expect_eq(spool_pull(&users[0].x, socks[0], 0, 10), -EAGAIN);
	cr_expect_eq(pipes_used(bench.rt.bufs), 0, "an empty pipe is given back");
	cr_assert_eq(pull(0, 0, 10), 10);
	spool_flush(&users[0].x);
	settle(&bench);
	expect_bytes(0, 10, 'a');
	close(socks[1]);
	cr_expect_eq(spool_pull(&users[0].x, socks[0], 10, 10), 0);
	socks[1] = dup(0);
	spools_flush(bench.rt.uploads);
}

/* With every pipe in use somewhere else, the next that comes back wakes. */
Test(spool, waits_for_a_pipe)
{
	struct pipe *pipes[4];
	int err;
	for (uint32_t i = 0; i < 4; i++)
		cr_assert_not_null(pipes[i] = pipes_take(bench.rt.bufs, &err));
	cr_assert_eq(spool_join_file(&users[0].x, bench.rt.uploads, file_fd), 0);
	cr_expect_eq(pull(0, 0, 10), SPOOL_WAIT);
	cr_expect_eq(users[0].woken, 0);
	pipes_give(pipes[0], true);
	cr_expect_eq(users[0].woken, 1);
	cr_expect_eq(spool_pull(&users[0].x, socks[0], 0, 10), 10);
	spools_flush(bench.rt.uploads);
	settle(&bench);
	for (uint32_t i = 1; i < 4; i++)
		pipes_give(pipes[i], true);
}
