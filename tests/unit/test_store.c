/*
 * daemon/store.c: directories and locks on a real file system; admission against a disk that the
 * test makes up. The source is included so that the clock and the free space can be the test's.
 */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring.h"

static struct {
	bool is_real;     /* space: of the file system that is there */
	struct sys_space space;
	int space_err;
	_Atomic uint32_t readings;
	uint64_t mono_ms; /* moved by sleeping alone */
	uint64_t mono_ns; /* another one, for looks */
	uint64_t unlock_at_ms;
	int unlock_fd;
} fake;

static int fake_space(int fd, struct sys_space *ret)
{
	fake.readings++;
	if (fake.is_real)
		return sys_space(fd, ret);
	*ret = fake.space;
	return fake.space_err;
}

static uint64_t fake_mono_ms(void)
{
	return fake.mono_ms;
}

static uint64_t fake_mono_ns(void)
{
	return fake.mono_ns;
}

static void fake_sleep_ms(uint32_t ms)
{
	fake.mono_ms += ms;
	if (fake.unlock_at_ms && fake.mono_ms >= fake.unlock_at_ms)
		flock(fake.unlock_fd, LOCK_UN);
}

#define sys_space(fd, ret) fake_space(fd, ret)
#define sys_mono_ms() fake_mono_ms()
#define sys_mono_ns() fake_mono_ns()
#define sys_sleep_ms(ms) fake_sleep_ms(ms)
#include "../../daemon/store.c"
#undef sys_space
#undef sys_mono_ms
#undef sys_mono_ns
#undef sys_sleep_ms

enum { MIB = 1 << 20 };

static char dir[64], data[96], export_dir[96], error[256];
static struct conf conf;
static struct store *s;
static uint64_t now_ms = 1000;

static void set_up(void)
{
	strcpy(dir, "/tmp/sluice-unit-XXXXXX");
	cr_assert_not_null(mkdtemp(dir));
	snprintf(data, sizeof(data), "%s/data", dir);
	snprintf(export_dir, sizeof(export_dir), "%s/out/of/it", dir);
	conf = (struct conf){.data = data, .export = {.dir_mode = 0751},
		.transfer = {.open_max = 100, .disk_free_min = 10 * MIB,
			.disk_free_stop = 10 * MIB}};
	fake.space = (struct sys_space){.free_bytes = 1000 * MIB, .free_inodes = 1000, .has_inodes = true};
}

static void set_up_open(void)
{
	set_up();
	cr_assert_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void tear_down(void)
{
	store_close(s);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

TestSuite(store, .init = set_up, .fini = tear_down);
TestSuite(space, .init = set_up_open, .fini = tear_down);

static void expect_dir(const char *path, mode_t mode, int fd)
{
	struct stat a, b;
	cr_assert_eq(stat(path, &a), 0, "%s", path);
	cr_expect(S_ISDIR(a.st_mode));
	cr_expect_eq(a.st_mode & 07777, mode, "%s has %o", path, a.st_mode & 07777);
	cr_expect_eq(fstat(fd, &b), 0);
	cr_expect_eq(a.st_ino, b.st_ino);
	cr_expect(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static const char *in_data(const char *name)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/%s", data, name);
	return path;
}

/* --- directories and locks -------------------------------------------------------------------- */

Test(store, makes_what_is_missing)
{
	umask(077);
	cr_assert_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
	expect_dir(data, 0750, s->data_fd);
	expect_dir(in_data("staging"), 0700, s->staging_fd);
	expect_dir(in_data("journal"), 0700, s->journal_fd);
	expect_dir(in_data("export"), 0751, s->export_fd);
	cr_expect_str_eq(s->export_path, in_data("export"));
	cr_expect_eq(s->epoch, 1);
	cr_expect_eq(s->next_tid, 1);
	cr_expect_eq(s->group, UINT32_MAX);
	store_close(s);
	s = NULL;
	store_close(NULL);
	conf.export.dir = export_dir;
	cr_assert_eq(store_open(&conf, &s, error, sizeof(error)), 0, "it is there already: %s", error);
	expect_dir(export_dir, 0751, s->export_fd);
	cr_expect_str_eq(s->export_path, export_dir);
}

/* One daemon per data directory, and one per export directory. */
Test(store, a_second_one_is_refused)
{
	struct store *other = NULL;
	struct conf other_conf = conf;
	char other_data[96];
	conf.export.dir = export_dir;
	cr_assert_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
	cr_expect_eq(store_open(&conf, &other, error, sizeof(error)), -EAGAIN);
	cr_expect_not_null(strstr(error, "another sluiced uses the directory"));
	cr_expect_not_null(strstr(error, data));
	cr_expect_null(other);
	snprintf(other_data, sizeof(other_data), "%s/other", dir);
	other_conf.data = other_data;
	other_conf.export.dir = export_dir;
	cr_expect_eq(store_open(&other_conf, &other, error, sizeof(error)), -EAGAIN);
	cr_expect_not_null(strstr(error, "another sluiced"));
	cr_expect_not_null(strstr(error, export_dir));
	other_conf.export.dir = NULL;
	cr_expect_eq(store_open(&other_conf, &other, error, sizeof(error)), 0,
		"what was locked before the refusal is free again: %s", error);
	store_close(other);
	store_close(s);
	s = NULL;
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
}

/* The kernel may close a killed daemon's descriptors a little later. */
Test(store, a_lock_about_to_go_is_waited_for)
{
	cr_assert_eq(mkdir(data, 0750), 0);
	fake.unlock_fd = open(data, O_RDONLY | O_DIRECTORY);
	cr_assert_eq(flock(fake.unlock_fd, LOCK_EX), 0);
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), -EAGAIN);
	cr_expect_geq(fake.mono_ms, LOCK_MS);
	cr_expect_leq(fake.mono_ms, LOCK_MS + 100);
	fake.unlock_at_ms = fake.mono_ms + LOCK_MS / 2;
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
	close(fake.unlock_fd);
}

Test(store, what_can_not_be_used)
{
	char file[96], path[128];
	snprintf(file, sizeof(file), "%s/file", dir);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	snprintf(path, sizeof(path), "%s/sub", file);
	conf.export.dir = path;
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), -ENOTDIR);
	cr_expect_not_null(strstr(error, path));
	conf.export.dir = NULL;
	conf.data = file;
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), -ENOTDIR);
	cr_expect_not_null(strstr(error, file));
	conf.data = data;
	conf.export.group = "no such group";
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), -ENOENT);
	cr_expect_not_null(strstr(error, "there is no group no such group"));
	cr_expect_null(s);
	conf.export.group = "root";
	cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
	cr_expect_eq(s->group, 0);
}

/* An export on another file system can't be one rename. */
Test(store, both_on_one_file_system)
{
	char shm[] = "/dev/shm/sluice-unit-XXXXXX";
	struct stat a, b;
	if (!mkdtemp(shm))
		return; /* this machine has no other file system to write to */
	cr_assert_eq(stat(dir, &a), 0);
	cr_assert_eq(stat(shm, &b), 0);
	conf.export.dir = shm;
	int err = store_open(&conf, &s, error, sizeof(error));
	cr_expect_eq(err, a.st_dev == b.st_dev ? 0 : -EXDEV);
	if (err) {
		cr_expect_not_null(strstr(error, shm));
		cr_expect_not_null(strstr(error, "another file system"));
	}
	rmdir(shm);
}

/* No try leaves a descriptor open. */
Test(store, descriptors)
{
	int before = dup(0), after;
	close(before);
	for (int i = 0; i < 3; i++) {
		conf.export.group = i == 1 ? "no such group" : NULL;
		cr_expect_eq(store_open(&conf, &s, error, sizeof(error)), i == 1 ? -ENOENT : 0);
		if (i != 1)
			store_close(s);
		s = NULL;
	}
	after = dup(0);
	close(after);
	cr_expect_eq(after, before);
}

/* --- admission -------------------------------------------------------------------------------- */

static void expect_counts(uint64_t open, uint64_t staged, uint64_t unallocated)
{
	cr_expect_eq(s->open_count, open);
	cr_expect_eq(s->staged_bytes, staged);
	cr_expect_eq(s->unallocated_bytes, unallocated);
}

Test(space, what_is_kept_free_is_not_promised)
{
	cr_expect_eq(store_reserve(s, 990 * MIB + 1, now_ms), -ENOSPC);
	expect_counts(0, 0, 0);
	cr_expect_eq(store_reserve(s, UINT64_MAX, now_ms), -ENOSPC);
	expect_counts(0, 0, 0);
	cr_expect_eq(store_reserve(s, 500 * MIB, now_ms), 0);
	cr_expect_eq(store_reserve(s, 490 * MIB + 1, now_ms), -ENOSPC);
	cr_expect_eq(store_reserve_more(s, 490 * MIB + 1, now_ms), -ENOSPC);
	expect_counts(1, 500 * MIB, 500 * MIB);
	cr_expect_eq(store_reserve_more(s, 490 * MIB, now_ms), 0);
	expect_counts(1, 990 * MIB, 990 * MIB);
	cr_expect_eq(store_reserve_more(s, 1, now_ms), -ENOSPC);
	cr_expect_eq(store_reserve_more(s, UINT64_MAX, now_ms), -ENOSPC);
	cr_expect_eq(store_reserve(s, 0, now_ms), 0, "of unknown size: it may come to nothing");
	cr_expect_eq(store_reserve_more(s, 0, now_ms), 0);
	expect_counts(2, 990 * MIB, 990 * MIB);
	fake.space.free_bytes = 10 * MIB - 1;
	now_ms += 1000;
	cr_expect_eq(store_reserve_more(s, 1, now_ms), -ENOSPC, "less than what is kept free");
}

/* Two marks: what is open may grow while nothing more is opened. */
Test(space, two_marks)
{
	conf.transfer.disk_free_stop = 4 * MIB;
	cr_expect_not(store_is_low(s, now_ms));
	cr_expect_eq(store_reserve(s, 0, now_ms), 0);
	fake.space.free_bytes = 9 * MIB;
	now_ms += 1000;
	cr_expect_eq(store_reserve(s, 0, now_ms), -ENOSPC, "not even one of unknown size");
	cr_expect_eq(store_reserve(s, 1, now_ms), -ENOSPC);
	expect_counts(1, 0, 0);
	cr_expect_eq(store_reserve_more(s, 5 * MIB, now_ms), 0);
	cr_expect_eq(store_reserve_more(s, 1, now_ms), -ENOSPC);
	cr_expect_not(store_is_low(s, now_ms));
	fake.space.free_bytes = 4 * MIB - 1;
	cr_expect_not(store_is_low(s, now_ms), "it is looked at now and then");
	now_ms += 1000;
	cr_expect(store_is_low(s, now_ms));
	uint32_t readings = fake.readings;
	for (int i = 0; i < 100; i++)
		cr_expect(store_is_low(s, now_ms + 1));
	cr_expect_eq(fake.readings, readings);
	fake.space.free_bytes = 4 * MIB;
	now_ms += 1000;
	cr_expect_not(store_is_low(s, now_ms));
	/* The lower one is never above the upper one. */
	conf.transfer.disk_free_min = 2 * MIB;
	fake.space.free_bytes = 3 * MIB;
	now_ms += 1000;
	cr_expect_not(store_is_low(s, now_ms));
}

/* What has become blocks is not free any more: it must not be counted as neither, nor as both. */
Test(space, reservations_become_blocks)
{
	cr_expect_eq(store_reserve(s, 600 * MIB, now_ms), 0);
	fake.space.free_bytes -= 600 * MIB;
	store_allocated(s, 600 * MIB);
	expect_counts(1, 600 * MIB, 0);
	cr_expect_eq(store_reserve(s, 390 * MIB + 1, now_ms), -ENOSPC, "in the same millisecond");
	cr_expect_eq(store_reserve(s, 390 * MIB, now_ms), 0);
	fake.space.free_bytes -= 200 * MIB;
	store_allocated(s, 200 * MIB);
	expect_counts(2, 990 * MIB, 190 * MIB);
	cr_expect_eq(store_reserve_more(s, 1, now_ms), -ENOSPC);
	/* The first is dropped, and its file is gone. */
	store_release(s, 600 * MIB);
	fake.space.free_bytes += 600 * MIB;
	now_ms += SPACE_MS;
	expect_counts(1, 390 * MIB, 190 * MIB);
	cr_expect_eq(store_reserve_more(s, 600 * MIB + 1, now_ms), -ENOSPC);
	cr_expect_eq(store_reserve_more(s, 600 * MIB, now_ms), 0);
}

/* The disk fills from elsewhere too: it is looked at again, but not for every init. */
Test(space, the_disk_is_read_now_and_then)
{
	cr_expect_eq(store_reserve(s, MIB, now_ms), 0);
	uint32_t readings = fake.readings;
	for (int i = 0; i < 20; i++)
		cr_expect_eq(store_reserve(s, MIB, now_ms + SPACE_MS - 1), 0);
	cr_expect_eq(fake.readings, readings);
	fake.space.free_bytes = 40 * MIB;
	cr_expect_eq(store_reserve(s, MIB, now_ms + SPACE_MS), 0);
	cr_expect_eq(fake.readings, readings + 1);
	cr_expect_eq(store_reserve(s, 9 * MIB, now_ms + SPACE_MS), -ENOSPC);
	cr_expect_eq(store_reserve(s, 8 * MIB, now_ms + SPACE_MS), 0);
	/* Space that was given free a moment ago is seen before anybody is refused. */
	cr_expect_eq(store_reserve(s, 4 * MIB, now_ms + SPACE_MS), -ENOSPC);
	fake.space.free_bytes += 4 * MIB;
	cr_expect_eq(store_reserve(s, 4 * MIB, now_ms + SPACE_MS), 0);
	fake.space_err = -EIO;
	fake.space.free_bytes = 0;
	cr_expect_eq(store_reserve(s, MIB, now_ms + 10 * SPACE_MS), -ENOSPC, "the last reading counts");
}

Test(space, limits_of_the_configuration)
{
	conf.transfer.staged_bytes_max = 5 * MIB;
	conf.transfer.open_max = 3;
	cr_expect_eq(store_reserve(s, 5 * MIB + 1, now_ms), -EDQUOT);
	expect_counts(0, 0, 0);
	cr_expect_eq(store_reserve(s, 2 * MIB, now_ms), 0);
	cr_expect_eq(store_reserve_more(s, 3 * MIB + 1, now_ms), -EDQUOT);
	cr_expect_eq(store_reserve_more(s, 3 * MIB, now_ms), 0);
	cr_expect_eq(store_reserve(s, 1, now_ms), -EDQUOT);
	expect_counts(1, 5 * MIB, 5 * MIB);
	store_allocated(s, 5 * MIB);
	cr_expect_eq(store_reserve(s, 1, now_ms), -EDQUOT, "staged, be it on the disk or not");
	cr_expect_eq(store_reserve(s, 0, now_ms), 0);
	cr_expect_eq(store_reserve(s, 0, now_ms), 0);
	cr_expect_eq(store_reserve(s, 0, now_ms), -EDQUOT, "three are open");
	store_release(s, 5 * MIB);
	expect_counts(2, 0, 0);
	cr_expect_eq(store_reserve(s, 1, now_ms), 0);
	cr_expect_eq(store_reserve(s, 990 * MIB, now_ms), -EDQUOT);
	conf.transfer.open_max = 100;
	cr_expect_eq(store_reserve(s, 990 * MIB, now_ms), -ENOSPC, "the disk is the first reason");
}

/* Every transfer takes inodes: a staging file, and the directories and the manifest of its
 * export. */
Test(space, inodes)
{
	fake.space.free_inodes = 15;
	cr_expect_eq(store_reserve(s, MIB, now_ms), -ENOSPC);
	expect_counts(0, 0, 0);
	fake.space.free_inodes = 16;
	cr_expect_eq(store_reserve(s, MIB, now_ms), 0);
	now_ms += SPACE_MS;
	fake.space.free_inodes = 0;
	cr_expect_eq(store_reserve_more(s, MIB, now_ms), 0, "it has its file already");
	now_ms += SPACE_MS;
	fake.space.has_inodes = false;
	cr_expect_eq(store_reserve(s, MIB, now_ms), 0, "this file system does not count them");
	expect_counts(2, 3 * MIB, 3 * MIB);
}

Test(space, of_the_real_disk)
{
	struct sys_space space;
	fake.is_real = true;
	cr_assert_eq(sys_space(s->staging_fd, &space), 0);
	conf.transfer.disk_free_min = 0;
	cr_expect_eq(store_reserve(s, 4096, now_ms), 0);
	cr_expect_eq(store_reserve(s, space.free_bytes * 2, now_ms), -ENOSPC);
	conf.transfer.disk_free_min = space.free_bytes * 2;
	cr_expect_eq(store_reserve(s, 4096, now_ms), -ENOSPC);
}

/* --- reactors at once ------------------------------------------------------------------------- */

enum { THREADS = 4, TRIES = 20000, ROOM = 3 };

/* The total that is limited, and its limit; the others may be above it for a moment. */
struct greedy {
	pthread_t thread;
	const _Atomic uint64_t *total;
	uint64_t max;
	uint32_t held, too_many;
};

/* Takes and gives back, so that there is always one place less than threads that want it. */
static void *reserve_and_release(void *arg)
{
	struct greedy *g = arg;
	for (uint32_t i = 0; i < TRIES; i++) {
		if (store_reserve(s, MIB, now_ms) == 0)
			g->held++;
		g->too_many += *g->total > g->max;
		if (g->held > i % 2) {
			store_allocated(s, MIB);
			store_release(s, MIB);
			g->held--;
		}
	}
	return NULL;
}

static void reserve_at_once(const _Atomic uint64_t *total, uint64_t max)
{
	struct greedy all[THREADS];
	uint64_t held = 0;
	for (int i = 0; i < THREADS; i++)
		all[i] = (struct greedy){.total = total, .max = max};
	for (int i = 0; i < THREADS; i++)
		cr_assert_eq(pthread_create(&all[i].thread, NULL, reserve_and_release, &all[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(all[i].thread, NULL);
		cr_expect_eq(all[i].too_many, 0);
		held += all[i].held;
	}
	expect_counts(held, held * MIB, held * MIB);
	while (store_reserve(s, MIB, now_ms) == 0)
		held++;
	cr_expect_eq(held, ROOM);
	expect_counts(ROOM, ROOM * MIB, ROOM * MIB);
}

Test(space, the_last_bytes_are_promised_once)
{
	fake.space.free_bytes = (10 + ROOM) * MIB;
	reserve_at_once(&s->unallocated_bytes, ROOM * MIB);
}

Test(space, no_more_are_open_than_allowed)
{
	conf.transfer.open_max = ROOM;
	reserve_at_once(&s->open_count, ROOM);
}

Test(space, no_more_are_staged_than_allowed)
{
	conf.transfer.staged_bytes_max = ROOM * MIB;
	reserve_at_once(&s->staged_bytes, ROOM * MIB);
}

/* --- exports ---------------------------------------------------------------------------------- */

Test(store, an_export_is_gone_when_nothing_is_there)
{
	cr_assert_eq(store_open(&conf, &s, error, sizeof(error)), 0, "%s", error);
	cr_expect(store_export_is_gone(s, "dir/file"));
	cr_assert_eq(mkdir(in_data("export/dir"), 0700), 0);
	cr_expect(store_export_is_gone(s, "dir/file"));
	close(openat(s->export_fd, "dir/file", O_WRONLY | O_CREAT, 0));
	cr_expect_not(store_export_is_gone(s, "dir/file"));
	cr_expect(store_export_is_gone(s, "dir/file/below"));
	char name[NAME_MAX + 2];
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	cr_expect_not(store_export_is_gone(s, name), "an error says nothing");
}

/* A round of looks, all of which find something: how many there are. */
static uint32_t look(struct looks *l, struct pace *p, uint32_t exports)
{
	uint32_t n = 0;
	for (looks_begin(l, exports); looks_may_go_on(l, p); n++)
		looks_charge(l, p);
	return n;
}

/* Bounded in one go, and over time. */
Test(store, looks_are_bounded)
{
	struct pace p = {0};
	uint64_t looks = 0;
	struct looks l = {.now_ms = now_ms};
	cr_expect_eq(look(&l, &p, 0), 0);
	cr_expect_eq(look(&l, &p, 3), 3);
	cr_expect_eq(look(&l, &p, 1000), 64);
	p = (struct pace){0};
	for (l.now_ms = now_ms; l.now_ms < now_ms + 10000; l.now_ms++)
		looks += look(&l, &p, 100000);
	cr_expect(looks >= 10 * 1024 && looks <= 11 * 1024 + 64, "%lu in ten seconds", looks);
}

/* Those that find nothing are not, but by the time, which is that of all accounts. */
Test(store, looks_take_so_long)
{
	struct pace p = {0}, other = {0};
	struct looks l = {.now_ms = now_ms};
	fake.mono_ns = 5000000;
	looks_begin(&l, 1);
	for (int i = 0; i < 10000; i++)
		cr_assert(looks_may_go_on(&l, &p));
	fake.mono_ns += 1500000;
	looks_begin(&l, 1);
	cr_expect(looks_may_go_on(&l, &other));
	fake.mono_ns += 499999;
	cr_expect(looks_may_go_on(&l, &other));
	fake.mono_ns++;
	cr_expect_not(looks_may_go_on(&l, &other));
	looks_begin(&l, 1);
	cr_expect_not(looks_may_go_on(&l, &p));
}
