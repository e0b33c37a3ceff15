/*
 * daemon/journal.c when it can't be written, synced or rotated.
 */
#include "journal_world.h"

/* Puts another file in the place of the journal's descriptor. */
static void replace_file(const char *path, int flags)
{
	char name[JOURNAL_NAME_MAX];
	struct sys_stat wanted, st;
	journal_file_name(REACTOR, FIRST_SEQ, name);
	cr_assert_eq(sys_stat_at(w.dir_fd, name, &wanted), 0);
	int other = open(path, flags | O_CLOEXEC), found = 0;
	cr_assert_geq(other, 0);
	for (int fd = 3; fd < 256; fd++) {
		if (sys_fstat(fd, &st) == 0 && st.ino == wanted.ino && st.dev == wanted.dev) {
			cr_assert_eq(dup2(other, fd), fd);
			found++;
		}
	}
	cr_assert_eq(found, 1);
	close(other);
}

/* From now on every waiter gets the error, nothing is appended, and the journal is at rest. */
static void expect_broken(int err)
{
	struct waiter later[2] = {0};
	cr_expect_eq(journal_error(j), err);
	cr_expect(journal_is_idle(j));
	cr_expect_eq(errors_logged, 1);
	append_extent(0, 1, 2);
	cr_expect(journal_is_idle(j), "appending to it is forgetting");
	wait_for(&later[0], JOURNAL_WRITTEN);
	wait_for(&later[1], JOURNAL_SYNCED);
	cr_expect_not(journal_is_idle(j));
	journal_flush(j);
	for (int i = 0; i < 2; i++) {
		cr_expect_eq(later[i].done_count, 1);
		cr_expect_eq(later[i].err, err);
	}
	cr_expect(journal_is_idle(j));
	cr_expect_eq(ring_busy_count(w.ring), 0);
	cr_expect_eq(errors_logged, 1, "it is said once");
}

/* Waiters of all ages meet the error: of the batch being written, and of the one that fills. */
static void write_and_fail(int err)
{
	struct waiter now[2] = {0}, next[2] = {0};
	append_extent(0, 1, 2);
	wait_for(&now[0], JOURNAL_WRITTEN);
	wait_for(&now[1], JOURNAL_SYNCED);
	journal_flush(j);
	append_extent(0, 7, 8);
	wait_for(&next[0], JOURNAL_WRITTEN);
	wait_for(&next[1], JOURNAL_SYNCED);
	journal_flush(j);
	cr_expect_eq(completions, 0);
	while (ring_busy_count(w.ring) > 0)
		ring_turn(w.ring, 100);
	cr_expect_not(journal_is_idle(j), "the waiters have not been told");
	settle();
	cr_expect_eq(completions, 4);
	for (int i = 0; i < 2; i++) {
		cr_expect_eq(now[i].err, err);
		cr_expect_eq(now[i].done_count, 1);
		cr_expect_eq(next[i].err, err);
		cr_expect_eq(next[i].done_count, 1);
	}
	expect_broken(err);
}

Test(journal, a_full_disk)
{
	replace_file("/dev/full", O_RDWR);
	write_and_fail(-ENOSPC);
}

Test(journal, a_file_that_can_not_be_written)
{
	replace_file("/dev/null", O_RDONLY);
	write_and_fail(-EBADF);
}

/* The file ends in the middle of the batch: a part of it was written, and that is an error too. */
Test(journal, a_short_write)
{
	signal(SIGXFSZ, SIG_IGN);
	struct rlimit limit;
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = 200;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	state.open[0] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 0, .text = "a name that takes some room, and more",
		.text_bytes = 37, .clientid = "a client id of some length as well",
		.clientid_bytes = 34};
	journal_append(j, &open);
	write_and_fail(-ENOSPC);
	cr_expect_eq(recover().best.records, 0);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
}

/* Written is written; that it can't be synced, only those hear who asked for it, and all who come
 * later. */
Test(journal, a_failing_sync)
{
	struct waiter written = {0}, synced = {0}, next = {0};
	replace_file("/dev/null", O_RDWR);
	append_extent(0, 1, 2);
	wait_for(&written, JOURNAL_WRITTEN);
	wait_for(&synced, JOURNAL_SYNCED);
	journal_flush(j);
	while (written.done_count == 0)
		ring_turn(w.ring, 100);
	cr_expect_eq(written.err, 0);
	journal_flush(j); /* the sync */
	append_extent(0, 5, 6);
	wait_for(&next, JOURNAL_SYNCED);
	journal_flush(j); /* and a write beside it */
	settle();
	cr_expect_eq(synced.err, -EINVAL);
	cr_expect_eq(next.err, -EINVAL);
	cr_expect_eq(completions, 3);
	expect_broken(-EINVAL);
}

static void trust(void)
{
	int fd = openat(w.dir_fd, "page-cache", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	close(fd);
}

/* Is the page cache believed at the next start? */
static bool is_trusted(void)
{
	struct sys_stat st;
	return sys_stat_at(w.dir_fd, "page-cache", &st) == 0;
}

static void append_lost(void)
{
	struct record lost = {.type = RECORD_LOST, .tid = 0};
	journal_append(j, &lost);
}

/* A loss is said, as safely as level says; then the journal fails. */
static void lose_and_fail(enum journal_level level)
{
	struct waiter said = {0};
	trust();
	append_lost();
	wait_for(&said, level);
	journal_flush(j);
	settle();
	cr_assert_eq(said.done_count, 1);
	completions = 0;
	replace_file("/dev/full", O_RDWR);
	write_and_fail(-ENOSPC);
}

/* What the disk has lost, and the journal may not be able to say, nobody must take for received. */
Test(journal, a_loss_that_can_not_be_written)
{
	trust();
	replace_file("/dev/full", O_RDWR);
	append_lost();
	cr_expect(is_trusted());
	journal_flush(j);
	settle();
	cr_expect_eq(journal_error(j), -ENOSPC);
	cr_expect_not(is_trusted());
}

/* One that is safe is no reason to believe nothing. */
Test(journal, a_loss_that_was_written_and_synced)
{
	lose_and_fail(JOURNAL_SYNCED);
	cr_expect(is_trusted());
}

Test(journal, a_loss_that_was_only_written)
{
	lose_and_fail(JOURNAL_WRITTEN);
	cr_expect_not(is_trusted(), "the file's pages may be gone with the sync that failed");
}

Test(journal, a_loss_after_the_failure)
{
	trust();
	replace_file("/dev/full", O_RDWR);
	write_and_fail(-ENOSPC);
	cr_expect(is_trusted(), "all that was written is in the cache");
	append_lost();
	cr_expect_not(is_trusted());
}

/* The file for the next checkpoint can't be made. */
static void rotate_and_fail(int err)
{
	struct waiter dropped[2] = {0}, late = {0};
	append_extent(0, 1, 2);
	wait_for(&dropped[0], JOURNAL_WRITTEN);
	wait_for(&dropped[1], JOURNAL_SYNCED);
	journal_flush(j);
	append_extent(0, 7, 8);
	wait_for(&late, JOURNAL_WRITTEN);
	settle();
	cr_expect_eq(dropped[0].err, err);
	cr_expect_eq(dropped[1].err, err);
	cr_expect_eq(late.err, err);
	cr_expect_eq(completions, 3);
	expect_broken(err);
}

Test(journal_small, a_directory_that_has_gone)
{
	char name[JOURNAL_NAME_MAX];
	state.open[0] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	fill_file(0);
	journal_file_name(REACTOR, FIRST_SEQ, name);
	cr_assert_eq(unlinkat(w.dir_fd, name, 0), 0);
	cr_assert_eq(rmdir(w.dir), 0);
	rotate_and_fail(-ENOENT);
}

/* What was begun is taken away, and the old file stays: recovery reads all that was
 * acknowledged. */
Test(journal_small, no_room_for_the_next_file)
{
	state.open[0] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	fill_file(0);
	signal(SIGXFSZ, SIG_IGN);
	struct rlimit limit;
	getrlimit(RLIMIT_FSIZE, &limit);
	limit.rlim_cur = 4095;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	rotate_and_fail(-EFBIG);
	struct recovery rc = recover();
	cr_expect_eq(rc.files, 1);
	cr_expect_eq(rc.best.file_seq, FIRST_SEQ);
	expect_same(&rc.best.state, &state);
	/* At start-up likewise. */
	struct journal *other = NULL;
	cr_expect_eq(journal_new(&rt, &store, 77, checkpoint, &state, &other), -EFBIG);
	cr_expect_null(other);
	cr_expect_eq(recover().files, 1);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_FSIZE, &limit);
}

/* A checkpoint that lacks a record takes no file's place. */
Test(journal_small, no_memory_for_the_checkpoint)
{
	state.open[0] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	fill_file(0);
	checkpoint_fails = true;
	rotate_and_fail(-ENOMEM);
	struct recovery rc = recover();
	cr_expect_eq(rc.files, 1);
	cr_expect_eq(rc.best.file_seq, FIRST_SEQ);
	expect_same(&rc.best.state, &state);
	struct journal *other = NULL;
	cr_expect_eq(journal_new(&rt, &store, 77, checkpoint, &state, &other), -ENOMEM);
	cr_expect_null(other);
	cr_expect_eq(recover().files, 1);
}
