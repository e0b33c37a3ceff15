/*
 * One fault, at every place of an upload where there can be one: the n-th write, fallocate, mkdir,
 * rename, fsync of an upload fails, for each n, alone or with all that follow. The functions of
 * ring.h are wrapped by the linker (-Wl,--wrap), so it is the daemon's own code that meets the error.
 *
 * Each run uploads a file of four segments, fin included, and goes on after what is refused, as a
 * client would. Then the disk is well again: what is missing is sent, and the file is exported,
 * after a restart if the journal says that it wants one. What must hold:
 *
 * - Nothing is refused without an error, and nothing acknowledged goes missing, except what was never
 *   synced of a file whose sync has failed (durability: crash).
 * - In the end there is one export, equal to what was sent; nothing stays in staging, no descriptor is
 *   left open.
 *
 * What happened is printed: a line per place, what the client was told and what was needed to go on.
 */
#include <pthread.h>
#include <dirent.h>
#include "export_impl.h"
#include "upload_commands.h"

enum place {
	RING_WRITE, RING_WRITEV, RING_SPLICE, RING_FALLOCATE, RING_FTRUNCATE, RING_FSYNC, RING_FDATASYNC,
	SYS_OPENAT, SYS_PREAD, SYS_PWRITE, SYS_PWRITEV, SYS_FTRUNCATE, SYS_FALLOCATE, SYS_FSYNC, SYS_SYNCFS,
	SYS_MKDIRAT, SYS_RENAMEAT2, PLACES
};

static const char *const place_names[PLACES] = {"write", "writev", "splice", "fallocate", "ftruncate", "fsync",
	"fdatasync", "open (thread)", "read (thread)", "write (thread)", "writev (thread)", "ftruncate (thread)",
	"fallocate (thread)", "fsync (thread)", "syncfs (thread)", "mkdir (thread)", "rename (thread)"};

enum { SHORT = 1 }; /* in the place of an error: half of it is done */

static struct {
	bool armed, sticky;
	enum place place;
	uint32_t nth, calls;
	int err;
	bool hit, hit_sync_of_staging;
	char what[16];
	uint64_t later_ms;  /* the clock is ahead */
} fault;

/* --- the seam --------------------------------------------------------------------------------- */

static void note_hit(int fd)
{
	char link[64], path[256];
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t n = readlink(link, path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = 0;
	bool is_sync = fault.place == RING_FSYNC || fault.place == RING_FDATASYNC || fault.place == SYS_FSYNC ||
		fault.place == SYS_SYNCFS;
	if (is_sync)
		fault.hit_sync_of_staging = fault.hit_sync_of_staging || !strstr(path, "/journal/");
	if (!fault.hit)
		snprintf(fault.what, sizeof(fault.what), "%s",
			strstr(path, "/journal") ? "journal" : strstr(path, "/staging/") ? "staging file" :
			strstr(path, "/staging") ? "staging dir" : "export");
	fault.hit = true;
}

/* Is this the call that fails? */
static bool hits(enum place place, int fd)
{
	if (!__atomic_load_n(&fault.armed, __ATOMIC_SEQ_CST) || place != fault.place)
		return false;
	uint32_t n = __atomic_add_fetch(&fault.calls, 1, __ATOMIC_SEQ_CST);
	if (n != fault.nth && !(fault.sticky && n > fault.nth))
		return false;
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* several threads of a ring make calls */
	pthread_mutex_lock(&lock);
	note_hit(fd);
	pthread_mutex_unlock(&lock);
	return true;
}

static int call_fail(struct op *op)
{
	(void)op;
	return -fault.err;
}

static void fail(struct ring *r, struct op *op)
{
	ring_call(r, op, RING_RARE, call_fail);
}

#define REAL(type, name, ...) \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

REAL(void, ring_write, struct ring *r, struct op *op, int fd, const void *buf, uint32_t len, uint64_t off)
{
	if (!hits(RING_WRITE, fd))
		__real_ring_write(r, op, fd, buf, len, off);
	else if (fault.err == SHORT)
		__real_ring_write(r, op, fd, buf, len / 2, off);
	else
		fail(r, op);
}

REAL(void, ring_writev, struct ring *r, struct op *op, int fd, const struct iovec *iov, uint32_t count,
	uint64_t off)
{
	if (hits(RING_WRITEV, fd) && fault.err != SHORT)
		fail(r, op);
	else
		__real_ring_writev(r, op, fd, iov, count, off);
}

REAL(void, ring_splice, struct ring *r, struct op *op, int pipe_fd, int fd, uint64_t off, uint32_t len)
{
	if (!hits(RING_SPLICE, fd))
		__real_ring_splice(r, op, pipe_fd, fd, off, len);
	else if (fault.err == SHORT && len > 1)
		__real_ring_splice(r, op, pipe_fd, fd, off, len / 2);
	else
		fail(r, op);
}

REAL(void, ring_fallocate, struct ring *r, struct op *op, int fd, int mode, uint64_t off, uint64_t len)
{
	if (hits(RING_FALLOCATE, fd))
		fail(r, op);
	else
		__real_ring_fallocate(r, op, fd, mode, off, len);
}

REAL(void, ring_ftruncate, struct ring *r, struct op *op, int fd, uint64_t len)
{
	if (hits(RING_FTRUNCATE, fd))
		fail(r, op);
	else
		__real_ring_ftruncate(r, op, fd, len);
}

REAL(void, ring_fsync, struct ring *r, struct op *op, int fd)
{
	if (hits(RING_FSYNC, fd))
		fail(r, op);
	else
		__real_ring_fsync(r, op, fd);
}

REAL(void, ring_fdatasync, struct ring *r, struct op *op, int fd)
{
	if (hits(RING_FDATASYNC, fd))
		fail(r, op);
	else
		__real_ring_fdatasync(r, op, fd);
}

REAL(void, ring_fdatasync_now, struct ring *r, struct op *op, int fd)
{
	if (hits(RING_FDATASYNC, fd))
		fail(r, op);
	else
		__real_ring_fdatasync_now(r, op, fd);
}

REAL(int, sys_openat, int dir, const char *path, int flags, uint32_t mode)
{
	return flags & O_CREAT && hits(SYS_OPENAT, dir) ? -fault.err : __real_sys_openat(dir, path, flags, mode);
}

REAL(int64_t, sys_pread, int fd, void *buf, size_t len, uint64_t off)
{
	return hits(SYS_PREAD, fd) ? -fault.err : __real_sys_pread(fd, buf, len, off);
}

REAL(int, sys_pwrite, int fd, const void *buf, size_t len, uint64_t off)
{
	return hits(SYS_PWRITE, fd) ? -fault.err : __real_sys_pwrite(fd, buf, len, off);
}

REAL(int, sys_pwritev, int fd, const struct iovec *iov, uint32_t count, uint64_t off)
{
	return hits(SYS_PWRITEV, fd) ? -fault.err : __real_sys_pwritev(fd, iov, count, off);
}

REAL(int, sys_ftruncate, int fd, uint64_t len)
{
	return hits(SYS_FTRUNCATE, fd) ? -fault.err : __real_sys_ftruncate(fd, len);
}

REAL(int, sys_fallocate, int fd, uint64_t off, uint64_t len)
{
	return hits(SYS_FALLOCATE, fd) ? -fault.err : __real_sys_fallocate(fd, off, len);
}

REAL(int, sys_fsync, int fd)
{
	return hits(SYS_FSYNC, fd) ? -fault.err : __real_sys_fsync(fd);
}

REAL(int, sys_syncfs, int fd)
{
	return hits(SYS_SYNCFS, fd) ? -fault.err : __real_sys_syncfs(fd);
}

REAL(int, sys_mkdirat, int dir, const char *path, uint32_t mode)
{
	return hits(SYS_MKDIRAT, dir) ? -fault.err : __real_sys_mkdirat(dir, path, mode);
}

REAL(int, sys_renameat2, int from_dir, const char *from, int to_dir, const char *to, uint32_t flags)
{
	return hits(SYS_RENAMEAT2, to_dir) ? -fault.err :
		__real_sys_renameat2(from_dir, from, to_dir, to, flags);
}

/* The bench's sockets are no TCP ones: they drop nothing without copying it. */
int __wrap_sock_discard(int fd, uint32_t len);
int __wrap_sock_discard(int fd, uint32_t len)
{
	static uint8_t dropped[65536];
	ssize_t n = recv(fd, dropped, len < sizeof(dropped) ? len : sizeof(dropped), MSG_DONTWAIT);
	return n < 0 ? -errno : (int)n;
}

uint64_t __real_ring_now_ms(const struct ring *r);
uint64_t __wrap_ring_now_ms(const struct ring *r);
uint64_t __wrap_ring_now_ms(const struct ring *r)
{
	return __real_ring_now_ms(r) + fault.later_ms;
}

/* --- an upload -------------------------------------------------------------------------------- */

enum { BYTES = 300000, SEGMENTS = 4 };
#define META "{\"name\":\"a\",\"size\":300000}"

static const struct extent segments[SEGMENTS] = {{0, 150000}, {150000, 298000}, {298000, 299000}, {299000, BYTES}};
static const char *const segment_names[SEGMENTS] = {"large segment", "checksummed segment", "small segment",
	"small segment"};

struct run {
	struct bench b;
	uint8_t *data;
	uint8_t digest[32];
	bool init_acked, acked[SEGMENTS], fin_acked;
	char told[128];          /* first refusal: the step, its code and text */
};

static void note_told(struct run *r, const char *step, const struct caught *c)
{
	if (c->o.reason && !r->told[0])
		snprintf(r->told, sizeof(r->told), "%s: 0x%02x %s", step, c->o.reason, c->o.text);
}

static void send_segment(struct run *r, int i)
{
	const struct extent *e = &segments[i];
	const uint8_t *at = r->data + e->from;
	uint32_t bytes = (uint32_t)(e->to - e->from);
	uint8_t sum[32];
	struct outcome refused;
	struct filecmd cmd = segment_cmd(e->from);
	struct caught c = {0};
	digest_of(at, bytes, sum);
	/* As a connection asks, before it takes the payload. */
	if (!upload_segment_admit(r->b.rt.uploads, &ID, &cmd, bytes, &refused))
		c.o = refused;
	else if (bytes > 10000)
		c = do_large(&r->b, e->from, at, bytes, 4000, i == 1 ? sum : NULL);
	else
		c = do_small(&r->b, e->from, at, bytes);
	settle(&r->b);
	note_told(r, segment_names[i], &c);
	if (c.o.reason == 0)
		r->acked[i] = true;
}

static bool is_missing(const struct caught *status, int i)
{
	if (status->o.reason || strcmp(status->o.state, "none") == 0)
		return true;
	for (uint32_t k = 0; k < status->o.missing_count; k++) {
		if (status->o.missing[k].from < segments[i].to && segments[i].from < status->o.missing[k].to)
			return true;
	}
	return false;
}

/* Sends init, what is missing, and fin. */
static void upload(struct run *r)
{
	struct caught status = do_status(&r->b);
	if (status.o.reason || strcmp(status.o.state, "exported") != 0) {
		struct caught c = do_init(&r->b, META);
		note_told(r, "init", &c);
		r->init_acked = r->init_acked || c.o.reason == 0;
		status = do_status(&r->b);
		for (int i = 0; i < SEGMENTS; i++) {
			if (is_missing(&status, i))
				send_segment(r, i);
		}
	}
	struct caught fin = do_fin(&r->b, BYTES, r->digest);
	note_told(r, "fin", &fin);
	r->fin_acked = r->fin_acked || fin.o.reason == 0;
}

/* What was acknowledged must be there. False: segments of a file that failed to sync are gone, which
 * at durability crash may be. */
static bool check_kept(struct run *r, const char *when)
{
	struct caught status = do_status(&r->b);
	bool lost = false;
	if (status.o.reason) /* a journal that has failed answers nothing */
		return true;
	if (r->fin_acked)
		cr_assert_str_eq(status.o.state, "exported", "%s: %s", when, status.o.state);
	for (int i = 0; i < SEGMENTS; i++)
		lost = lost || (r->acked[i] && is_missing(&status, i));
	bool may_be_lost = fault.hit_sync_of_staging && !bench_is_power;
	cr_assert(!lost || may_be_lost, "%s: acknowledged segments are missing", when);
	if (r->init_acked && !may_be_lost)
		cr_assert_str_neq(status.o.state, "none", "%s: init was acknowledged", when);
	return !lost;
}

static uint32_t open_descriptors(void)
{
	uint32_t count = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static uint32_t exports_count(struct bench *b)
{
	int count = 0;
	int fd = sys_openat(b->rt.store->export_fd, "cam", O_RDONLY | O_DIRECTORY, 0);
	cr_assert_geq(fd, 0);
	cr_assert_eq(sys_list_dir(fd, count_name, &count), 0);
	sys_close(fd);
	return (uint32_t)count;
}

static void prepare(struct run *r, uint64_t journal_bytes)
{
	memset(r, 0, sizeof(*r));
	bench_prepare(&r->b, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	r->b.conf.io.journal_bytes = journal_bytes;
	r->b.conf.durability = bench_is_power ? CONF_POWER : CONF_CRASH;
	bench_up(&r->b);
	r->data = noise(BYTES, 7);
	digest_of(r->data, BYTES, r->digest);
}

/* What the daemon has told its operator, in the log: it does not go on by itself. */
static bool wants_restart(struct bench *b)
{
	return journal_error(b->rt.journal) || b->rt.uploads->entry_err;
}

/* The upload with the fault, then without. False: the upload has fewer such calls. */
static bool run_one(uint64_t journal_bytes, char *ret_line, size_t line_max)
{
	struct run r;
	uint32_t descriptors = open_descriptors();
	const char *needed = "goes on";
	fault.calls = 0;
	fault.hit = fault.hit_sync_of_staging = false;
	prepare(&r, journal_bytes);
	__atomic_store_n(&fault.armed, true, __ATOMIC_SEQ_CST);
	upload(&r);
	__atomic_store_n(&fault.armed, false, __ATOMIC_SEQ_CST);
	bool kept = check_kept(&r, "after the fault");
	char told[sizeof(r.told)];
	snprintf(told, sizeof(told), "%s", r.told[0] ? r.told : "nothing, all is acknowledged");
	if (!r.fin_acked)
		upload(&r);
	if (!r.fin_acked && journal_error(r.b.rt.journal)) {
		needed = "goes on a second later";
		fault.later_ms += 1000; /* when a journal without room tries again */
		upload(&r);
	}
	if (!r.fin_acked && wants_restart(&r.b)) {
		needed = "goes on after a restart";
		bench_restart(&r.b);
		kept = check_kept(&r, "after the restart") && kept;
		r.told[0] = 0;
		upload(&r);
	}
	cr_assert(r.fin_acked, "the disk is well, but: %s", r.told);
	bench_restart(&r.b);
	check_kept(&r, "at the end");
	assert_file(&r.b, "cam/f1/a", r.data, BYTES);
	cr_assert_eq(exports_count(&r.b), 1);
	cr_assert_eq(staging_count(&r.b), 0);
	bench_fini(&r.b);
	free(r.data);
	cr_assert_eq(open_descriptors(), descriptors, "descriptors are left open");
	snprintf(ret_line, line_max, "%-13s %-44s %s", fault.what, told,
		kept ? needed : "goes on, all is sent again");
	return fault.hit;
}

/* --- every place ------------------------------------------------------------------------------ */

static bool is_sensible(enum place place, int err)
{
	bool moves_bytes = place == RING_WRITE || place == RING_SPLICE;
	if (place == SYS_PREAD)
		return err == EIO;
	return err == SHORT ? moves_bytes : true;
}

static uint32_t try_place(enum place place, int err, bool sticky, uint64_t journal_bytes)
{
	char line[512];
	uint32_t n = 1;
	fault.place = place;
	fault.err = err;
	fault.sticky = sticky;
	for (; n < 100; n++) {
		fault.nth = n;
		if (!run_one(journal_bytes, line, sizeof(line)))
			break;
		printf("%-6s %-7s %-7s %2u. %-18s %-8s %s\n", bench_is_power ? "power" : "crash",
			journal_bytes < 65536 ? "rotates" : "", sticky ? "and on" : "once", n,
			place_names[place], err == SHORT ? "short" : strerrorname_np(err), line);
		fflush(stdout);
	}
	return n - 1;
}

static void try_all(bool is_power, uint64_t journal_bytes)
{
	static const int errors[] = {ENOSPC, EIO, SHORT};
	uint32_t count = 0, places = 0;
	bench_is_power = is_power;
	for (int place = 0; place < PLACES; place++) {
		uint32_t before = count;
		for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
			if (!is_sensible((enum place)place, errors[i]))
				continue;
			count += try_place((enum place)place, errors[i], false, journal_bytes);
			if (errors[i] != SHORT)
				count += try_place((enum place)place, errors[i], true, journal_bytes);
		}
		places += count > before;
	}
	printf("%u faults at %u kinds of calls\n", count, places);
	/* The kinds that every upload comes through: else the wraps don't work. */
	cr_assert_geq(places, 8);
}

Test(upload_faults, crash)
{
	try_all(false, 1 << 20);
}

Test(upload_faults, crash_while_the_journal_rotates)
{
	try_all(false, 64);
}

Test(upload_faults, power)
{
	try_all(true, 1 << 20);
}

/* --- a journal without room -------------------------------------------------------------------- */

enum { FILL_BYTES = 1000, SMALL_JOURNAL = 4096 };

static uint8_t fill_one(struct run *r, int at)
{
	return do_small(&r->b, (uint64_t)at * FILL_BYTES, r->data + at * FILL_BYTES, FILL_BYTES).o.reason;
}

/* From now on there is no room for another journal file. */
static void take_room(void)
{
	fault.place = SYS_FALLOCATE;
	fault.err = ENOSPC;
	fault.sticky = true;
	fault.nth = 1;
	fault.calls = 0;
	__atomic_store_n(&fault.armed, true, __ATOMIC_SEQ_CST);
}

/* Segments until the file is full: so many were taken. */
static int fill_journal(struct run *r)
{
	int taken = 0;
	take_room();
	while (taken < BYTES / FILL_BYTES && fill_one(r, taken) == 0)
		taken++;
	cr_assert(taken > 0 && taken < BYTES / FILL_BYTES, "%d", taken);
	return taken;
}

static void make_room(struct run *r)
{
	__atomic_store_n(&fault.armed, false, __ATOMIC_SEQ_CST);
	fault.later_ms += 1200;
	turn(&r->b);
	settle(&r->b);
	cr_assert_eq(journal_error(r->b.rt.journal), 0);
}

/* The journal can't say that the transfer is over: its file stays. When it can, the file goes, without
 * a restart. */
Test(upload_faults, what_was_dropped_is_deleted_when_the_journal_has_room)
{
	struct run r;
	prepare(&r, SMALL_JOURNAL);
	assert_ok(do_init(&r.b, META));
	fill_journal(&r);
	(void)do_abort(&r.b);
	cr_assert_null(transfer_find(r.b.rt.uploads, &ID));
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(staging_count(&r.b), 1, "the journal has the transfer still");
		fault.later_ms += 1200;
		turn(&r.b);
		settle(&r.b);
		cr_assert_eq(journal_error(r.b.rt.journal), -ENOSPC, "it was asked again");
	}
	make_room(&r);
	cr_assert_eq(staging_count(&r.b), 0);
	bench_restart(&r.b);
	cr_assert_null(transfer_find(r.b.rt.uploads, &ID));
	bench_fini(&r.b);
	free(r.data);
}

/* That other bytes come to an acknowledged range can't be recorded: they don't come, not even when they
 * are sent twice. */
Test(upload_faults, nothing_acknowledged_is_overwritten_without_room_for_the_journal)
{
	struct run r;
	prepare(&r, SMALL_JOURNAL);
	assert_ok(do_init(&r.b, META));
	fill_journal(&r);
	for (int i = 0; i < 3; i++) {
		cr_expect_eq(do_small(&r.b, 0, r.data + 5000, 1000).o.reason, 0x97);
		fault.later_ms += 1200;
		turn(&r.b);
		settle(&r.b);
	}
	__atomic_store_n(&fault.armed, false, __ATOMIC_SEQ_CST);
	bench_restart(&r.b); /* as after a kill: what the journal has not got is forgotten */
	assert_ok(do_fin(&r.b, FILL_BYTES, NULL));
	assert_file(&r.b, "cam/f1/a", r.data, FILL_BYTES);
	bench_fini(&r.b);
	free(r.data);
}

/* The fin of a file of so many segments, when there is no room for another journal file. True: it waited
 * for that with the file in its place. */
static bool publish_without_room(int segs)
{
	struct run r;
	struct caught fin;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = (uint64_t)segs * FILL_BYTES};
	bool waits = false;
	prepare(&r, SMALL_JOURNAL);
	assert_ok(do_init(&r.b, "{\"name\":\"a\"}"));
	for (int i = 0; i < segs; i++)
		cr_assert_eq(fill_one(&r, i), 0);
	take_room();
	upload_fin(r.b.rt.uploads, &ID, &cmd, reply_for(&fin));
	for (int i = 0; i < 2000 && !fin.done && !waits; i++) {
		turn_for(&r.b, 1);
		const struct transfer *t = transfer_find(r.b.rt.uploads, &ID);
		waits = t->publish && timer_is_armed(&t->publish->retry);
	}
	for (int i = 0; i < 3 && waits; i++) {
		fault.later_ms += 1200;
		turn(&r.b);
		turn(&r.b);
		cr_assert_not(fin.done, "there is no room yet");
	}
	make_room(&r);
	cr_assert(fin.done);
	if (waits)
		assert_ok(fin);
	bench_restart(&r.b);
	if (!waits)
		assert_ok(do_fin(&r.b, cmd.size, NULL));
	cr_expect_str_eq(do_status(&r.b).o.state, "exported");
	assert_file(&r.b, "cam/f1/a", r.data, (uint32_t)cmd.size);
	cr_expect_eq(exports_count(&r.b), 1);
	cr_expect_eq(staging_count(&r.b), 0);
	bench_fini(&r.b);
	free(r.data);
	return waits;
}

Test(upload_faults, what_is_published_waits_for_room_in_the_journal)
{
	struct run r;
	prepare(&r, SMALL_JOURNAL);
	assert_ok(do_init(&r.b, "{\"name\":\"a\"}"));
	int segs = fill_journal(&r), tries = 0;
	__atomic_store_n(&fault.armed, false, __ATOMIC_SEQ_CST);
	bench_fini(&r.b);
	free(r.data);
	/* With fewer before it, more of what a fin writes has room: only the last record has none. */
	while (!publish_without_room(--segs))
		cr_assert_lt(++tries, 40, "the last record always had room");
}
