/*
 * The directories of journal files (daemon/journal_set.c), and the room that the files in them
 * hold.
 */
#include "ring_world.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "journal.h"
#include "journal_set.h"
#include "log.h"
#include "reactor.h"

enum { FILE_BYTES = 1 << 20, FIRST_SEQ = 5 };

static struct ring_world w;
static struct conf conf;
static struct reactor rt;
static struct store *store;
static char error[512];

static void open_store(void)
{
	cr_assert_eq(store_open(&conf, &store, error, sizeof(error)), 0, "%s", error);
}

static void on_log(const char *line, size_t bytes)
{
	(void)line;
	(void)bytes;
}

static void set_up(void)
{
	ring_world_init(&w);
	log_init(CONF_LOG_ERROR, sys_wall_ms, on_log);
	cr_assert_eq(conf_init(&conf), 0);
	free(conf.data);
	cr_assert_gt(asprintf(&conf.data, "%s/data", w.dir), 0);
	conf.io.journal_bytes = FILE_BYTES;
	open_store();
	rt.conf = &conf;
	rt.ring = w.ring;
	rt.store = store;
}

static void tear_down(void)
{
	store_close(store);
	conf_fini(&conf);
	ring_world_fini(&w);
}

TestSuite(journal_set, .init = set_up, .fini = tear_down);

/* --- sets ------------------------------------------------------------------------------------- */

static void reopen(struct journal_set *set)
{
	store_close(store);
	open_store();
	rt.store = store;
	cr_assert_eq(journal_set_open(store, set), 0);
}

static void put_file(int dir_fd, const char *name, const char *text)
{
	int fd = sys_openat(dir_fd, name, O_RDWR | O_CREAT | O_TRUNC, 0600);
	cr_assert_geq(fd, 0);
	cr_assert_eq(sys_pwrite(fd, text, strlen(text), 0), 0);
	sys_close(fd);
}

static bool is_there(int dir_fd, const char *name)
{
	struct sys_stat st;
	return sys_stat_at(dir_fd, name, &st) == 0;
}

Test(journal_set, one_follows_the_other)
{
	struct journal_set set;
	cr_assert_eq(journal_set_open(store, &set), 0);
	cr_expect_eq(set.number, 0);
	cr_expect_eq(set.fd, -1);
	cr_expect_not(set.cache_alive);
	for (uint64_t i = 1; i < 4; i++) {
		cr_assert_eq(journal_set_begin(store), 0);
		put_file(store->set_fd, "file", "text");
		cr_assert_eq(journal_set_commit(store, &set), 0);
		cr_expect_eq(set.fd >= 0 && is_there(set.fd, "file"), i > 1, "the old one is still there");
		journal_set_wipe_older(store, &set);
		cr_expect_eq(set.fd >= 0 && is_there(set.fd, "file"), false, "the old one is wiped");
		journal_set_close(&set);
		reopen(&set);
		cr_expect_eq(set.number, i);
		cr_expect(set.cache_alive);
		cr_expect(is_there(set.fd, "file"));
	}
	journal_set_close(&set);
	journal_set_close(&set);
}

/* Before the commit there is only the old one, and what was begun is wiped by the next. */
Test(journal_set, one_that_was_not_finished_is_none)
{
	struct journal_set set;
	cr_assert_eq(journal_set_open(store, &set), 0);
	cr_assert_eq(journal_set_begin(store), 0);
	put_file(store->set_fd, "half", "text");
	reopen(&set);
	cr_expect_eq(set.number, 0);
	cr_assert_eq(journal_set_begin(store), 0);
	cr_expect_not(is_there(store->set_fd, "half"));
	cr_assert_eq(journal_set_commit(store, &set), 0);
	reopen(&set);
	cr_expect_eq(set.number, 1);
	journal_set_close(&set);
}

Test(journal_set, the_page_cache_is_that_of_the_set)
{
	struct journal_set set;
	cr_assert_eq(journal_set_open(store, &set), 0);
	cr_assert_eq(journal_set_begin(store), 0);
	cr_assert_eq(journal_set_commit(store, &set), 0);
	put_file(store->set_fd, "page-cache", "boot of another day");
	reopen(&set);
	cr_expect_not(set.cache_alive);
	cr_assert_eq(journal_set_begin(store), 0);
	struct journal_set again;
	cr_assert_eq(journal_set_open(store, &again), 0);
	cr_expect_not(again.cache_alive, "as long as the next one is not whole");
	journal_set_close(&again);
	cr_assert_eq(journal_set_commit(store, &set), 0);
	journal_set_close(&set);
	reopen(&set);
	cr_expect(set.cache_alive);
	journal_set_close(&set);
}

Test(journal_set, what_is_set_aside_stays)
{
	struct journal_set set;
	cr_assert_eq(journal_set_open(store, &set), 0);
	cr_assert_eq(journal_set_begin(store), 0);
	put_file(store->set_fd, "file", "text");
	cr_assert_eq(journal_set_commit(store, &set), 0);
	reopen(&set);
	cr_assert_eq(journal_set_begin(store), 0);
	cr_assert_eq(journal_set_commit(store, &set), 0);
	journal_set_aside(store, &set, "file", -EBADMSG);
	journal_set_wipe_older(store, &set);
	cr_expect(is_there(store->journal_fd, "damaged-000000000001-file"));
	cr_expect_not(is_there(store->journal_fd, "set-000000000001"));
	journal_set_close(&set);
}

/* --- room for the next file ------------------------------------------------------------------- */

static void checkpoint(void *arg, void (*put)(void *put_arg, const struct record *r), void *put_arg)
{
	(void)arg;
	struct record r = {.type = RECORD_RESERVE, .tid = 1, .size = 77};
	put(put_arg, &r);
}

static struct journal *start_journal(void)
{
	struct journal *j;
	cr_assert_eq(journal_set_begin(store), 0);
	cr_assert_eq(journal_new(&rt, store, FIRST_SEQ, checkpoint, NULL, &j), 0);
	return j;
}

static struct sys_stat stat_of(const char *name)
{
	struct sys_stat st;
	cr_assert_eq(sys_stat_at(store->set_fd, name, &st), 0, "%s is not there", name);
	return st;
}

static const char *name_of(uint64_t seq)
{
	static char name[JOURNAL_NAME_MAX];
	journal_file_name(0, seq, name);
	return name;
}

static int synced;

static void on_synced(struct journal_waiter *waiter, int err)
{
	(void)waiter;
	cr_assert_eq(err, 0);
	synced++;
}

/* A batch that no file can hold is a rotation. */
static void rotate_once(struct journal *j)
{
	struct journal_waiter waiter = {.done = on_synced};
	uint32_t bytes = 400000;
	int before = synced;
	char *text = calloc(1, bytes);
	struct record meta = {.type = RECORD_META, .tid = 1, .text = text, .text_bytes = bytes};
	for (int i = 0; i < 3; i++)
		journal_append(j, &meta);
	journal_wait(j, &waiter, JOURNAL_SYNCED);
	for (int i = 0; i < 1000 && !(journal_is_idle(j) && ring_busy_count(w.ring) == 0); i++) {
		journal_flush(j);
		ring_turn(w.ring, ring_busy_count(w.ring) ? 100 : 0);
	}
	cr_assert_eq(synced, before + 1);
	free(text);
}

/* Its records, of which there must be only those of the checkpoint. */
static void expect_checkpoint(uint64_t seq)
{
	static uint8_t buf[FILE_BYTES];
	int fd = sys_openat(store->set_fd, name_of(seq), O_RDONLY, 0);
	cr_assert_geq(fd, 0);
	int64_t bytes = sys_pread(fd, buf, sizeof(buf), 0);
	sys_close(fd);
	uint64_t file_seq;
	uint32_t idx;
	struct record r;
	struct record_reader reader = {.buf = buf + RECORD_HEADER_BYTES};
	cr_assert_eq(record_header_decode(buf, (size_t)bytes, &reader.salt, &file_seq, &idx), 0);
	cr_expect_eq(file_seq, seq);
	reader.buf_bytes = (size_t)bytes - RECORD_HEADER_BYTES;
	cr_expect_eq(record_next(&reader, &r), 1);
	cr_expect_eq(r.size, 77);
	cr_expect_eq(record_next(&reader, &r), 1);
	cr_expect_eq(r.type, RECORD_CHECKPOINT_END);
	cr_expect_eq(record_next(&reader, &r), 0);
}

Test(journal_set, the_old_file_becomes_the_one_after_the_next)
{
	struct journal *j = start_journal();
	struct sys_stat first = stat_of(name_of(FIRST_SEQ));
	journal_reserve_next(j);
	struct sys_stat second = stat_of("spare-00");
	cr_expect_geq(second.blocks_bytes, FILE_BYTES);
	rotate_once(j);
	cr_expect_eq(stat_of(name_of(FIRST_SEQ + 1)).ino, second.ino);
	cr_expect_eq(stat_of("spare-00").ino, first.ino);
	rotate_once(j);
	cr_expect_eq(stat_of(name_of(FIRST_SEQ + 2)).ino, first.ino);
	cr_expect_not(is_there(store->set_fd, name_of(FIRST_SEQ)));
	cr_expect_not(is_there(store->set_fd, name_of(FIRST_SEQ + 1)));
	expect_checkpoint(FIRST_SEQ + 2);
	journal_free(j);
}

/* Whoever asks for more than this at once finds the disk full. */
static void fill_disk(uint32_t bytes_max)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, bytes_max, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
	cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	cr_assert_eq(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program), 0);
}

Test(journal_set, a_disk_without_room_for_a_whole_file)
{
	struct journal *j = start_journal();
	fill_disk(FILE_BYTES / 2);
	journal_reserve_next(j); /* only a warning */
	cr_expect_not(is_there(store->set_fd, "spare-00"));
	rotate_once(j);
	cr_expect_eq(stat_of(name_of(FIRST_SEQ + 1)).size, 128 * 1024);
	expect_checkpoint(FIRST_SEQ + 1);
	rotate_once(j);
	cr_expect_eq(stat_of(name_of(FIRST_SEQ + 2)).size, 128 * 1024);
	expect_checkpoint(FIRST_SEQ + 2);
	cr_expect_eq(journal_error(j), 0);
	journal_free(j);
}
