/*
 * A start at which one call to the kernel fails, or one allocation: each of them, one after the other, alone or with
 * all that follow.
 *
 * The start is refused, or all is served. Neither takes away what was acknowledged: the next start, at which nothing
 * fails, has it. What was taken is given back.
 */
#include <cjson/cJSON.h>
#include "recover_craft.h"

/* --- the seam --------------------------------------------------------------------------------- */

static struct {
	bool armed, and_on, of_memory;
	uint32_t nth, calls;
	int err;
	const char *what; /* was hit last */
} fault;
static int64_t live_count; /* blocks */

static bool hits(bool is_memory, const char *what)
{
	if (!fault.armed || is_memory != fault.of_memory)
		return false;
	uint32_t n = ++fault.calls;
	if (n != fault.nth && !(fault.and_on && n > fault.nth))
		return false;
	fault.what = what;
	return true;
}

#define REAL(type, name, ...) \
	type __real_##name(__VA_ARGS__); \
	type __wrap_##name(__VA_ARGS__)

#define FAILING(type, name, parameters, arguments) \
	type __real_##name parameters; \
	type __wrap_##name parameters; \
	type __wrap_##name parameters \
	{ \
		return hits(false, #name) ? -fault.err : __real_##name arguments; \
	}

FAILING(int, sys_openat, (int dir, const char *path, int flags, uint32_t mode), (dir, path, flags, mode))
FAILING(int, sys_mkdirs, (const char *path, uint32_t mode), (path, mode))
FAILING(int64_t, sys_pread, (int fd, void *buf, size_t len, uint64_t off), (fd, buf, len, off))
FAILING(int, sys_pwrite, (int fd, const void *buf, size_t len, uint64_t off), (fd, buf, len, off))
FAILING(int, sys_fsync, (int fd), (fd))
FAILING(int, sys_ftruncate, (int fd, uint64_t len), (fd, len))
FAILING(int, sys_fallocate, (int fd, uint64_t off, uint64_t len), (fd, off, len))
FAILING(int, sys_renameat2, (int from_dir, const char *from, int to_dir, const char *to, uint32_t flags),
	(from_dir, from, to_dir, to, flags))
FAILING(int, sys_unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
FAILING(int, sys_lock_dir, (int fd), (fd))
FAILING(int, sys_fstat, (int fd, struct sys_stat *ret), (fd, ret))
FAILING(int, sys_stat_at, (int dir, const char *path, struct sys_stat *ret), (dir, path, ret))
FAILING(int, sys_list_dir, (int dir, int (*fn)(void *arg, const char *name), void *arg), (dir, fn, arg))
FAILING(int, sys_cache_identity, (int dir, char *ret, size_t ret_max), (dir, ret, ret_max))
FAILING(int, sys_random, (void *buf, size_t len), (buf, len))

static void *counted(void *p)
{
	live_count += p != NULL;
	return p;
}

REAL(void *, malloc, size_t bytes)
{
	return hits(true, "malloc") ? NULL : counted(__real_malloc(bytes));
}

REAL(void *, calloc, size_t count, size_t bytes)
{
	return hits(true, "calloc") ? NULL : counted(__real_calloc(count, bytes));
}

REAL(void *, realloc, void *p, size_t bytes)
{
	if (hits(true, "realloc"))
		return NULL;
	void *moved = __real_realloc(p, bytes);
	return p ? moved : counted(moved);
}

REAL(char *, strdup, const char *text)
{
	return hits(true, "strdup") ? NULL : counted(__real_strdup(text));
}

REAL(char *, strndup, const char *text, size_t bytes)
{
	return hits(true, "strndup") ? NULL : counted(__real_strndup(text, bytes));
}

int __wrap_asprintf(char **ret, const char *format, ...);
int __wrap_asprintf(char **ret, const char *format, ...)
{
	va_list args;
	if (hits(true, "asprintf"))
		return -1;
	va_start(args, format);
	int bytes = vasprintf(ret, format, args);
	va_end(args);
	live_count += bytes >= 0;
	return bytes;
}

REAL(void, free, void *p)
{
	live_count -= p != NULL;
	__real_free(p);
}

/* --- a data directory with something of everything -------------------------------------------- */

static void craft_all(struct bench *b)
{
	uint8_t *data = noise(3000, 1), digest[32];
	digest_of(data, 3000, digest);
	craft_in(b, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	b->conf.io.journal_bytes = 64 * 1024; /* else most of the time goes into clearing memory */
	make_dir(b, "export/cam/f1");
	make_file(b, "export/cam/f1/a", data, 3000);
	make_file(b, "staging/e1-y", data, 3000);
	make_file(b, "staging/e1-over", data, 10);
	make_file(b, "staging/e1-unknown", data, 10);
	put_open(1, 1, "e1-x");
	put_meta(1, "{\"name\":\"a\"}");
	put_publishing(1, 3000, digest, "cam/f1/a");
	put((struct record){.type = RECORD_PUBLISHED, .tid = 1, .at_ms = sys_wall_ms()});
	put_open(2, 2, "e1-y");
	put_meta(2, "{\"name\":\"b\",\"user_data\":[1]}");
	put((struct record){.type = RECORD_MIDSTATE, .tid = 2, .frontier = MIDSTATE_BYTES});
	put_synced(2, 0, 1000);
	put_extent(2, 1000, 1500);
	put_extent(2, 2000, 2500);
	put((struct record){.type = RECORD_FIN, .tid = 2, .size = 3000});
	put_open(3, 3, "e1-over");
	put((struct record){.type = RECORD_ABORTED, .tid = 3});
	put((struct record){.type = RECORD_OPEN, .tid = 4, .generation = 1, .epoch = 1, .at_ms = sys_wall_ms(),
		.clientid = "c", .clientid_bytes = 1, .fileid = "gone", .fileid_bytes = 4, .text = "e1-z",
		.text_bytes = 4});
	put_extent(4, 0, 77);
	make_set(b, "set-000000000001", true);
	make_set_as_is(b, "set-000000000002", true);
	make_set_as_is(b, "new", true);
	free(data);
}

static void check_served(struct uploads *u, const char *when)
{
	const struct transfer *t = transfer_find(u, &ID);
	cr_assert(t && t->generation == 2, "%s, call %u (%s)", when, fault.nth, fault.what);
	cr_assert_eq(t->cover.bytes, 2000, "%s, call %u (%s): %lu bytes", when, fault.nth, fault.what,
		(unsigned long)t->cover.bytes);
	cr_assert(t->has_meta && strcmp(t->meta.name, "b") == 0, "%s, call %u (%s): metadata", when, fault.nth,
		fault.what);
	cr_assert(t->staging_exists, "%s, call %u (%s)", when, fault.nth, fault.what);
	cr_assert(t->fins && t->fins->size == 3000, "%s, call %u: its fin", when, fault.nth);
	cr_assert(t->previous && t->previous->state == TRANSFER_EXPORTED, "%s, call %u", when, fault.nth);
	cr_assert_eq(transfer_find(u, &(struct upload_id){"c", 1, "gone", 4, NULL})->cover.bytes, 0);
}

/* With a fin that waits they would not be freed: something may go on. */
static void drop_fin(struct uploads *u)
{
	struct transfer *t = u ? transfer_find(u, &ID) : NULL;
	if (t) {
		free(t->fins);
		t->fins = NULL;
	}
}

/* As the daemon does it, up to where the ring begins. */
static bool start(struct bench *b)
{
	struct reactor one = {.count = 1, .conf = &b->conf}, *rts[1] = {&one};
	char error[512] = "";
	one.peers = rts;
	timers_init(&one.timers, sys_mono_ms());
	int err = store_open(&b->conf, &one.store, error, sizeof(error));
	if (!err)
		err = recover_run(rts, 1, error, sizeof(error));
	fault.armed = false;
	if (!err)
		check_served(one.uploads, "it was served");
	else
		cr_assert(error[0] || err == -ENOMEM, "call %u (%s): %d, and no word about it", fault.nth, fault.what,
			err);
	drop_fin(one.uploads);
	uploads_free(one.uploads);
	journal_free(one.journal);
	store_close(one.store);
	return !err;
}

/* --- the tests -------------------------------------------------------------------------------- */

static int open_fds(void)
{
	int count = 0;
	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* False: there is no such call. */
static bool fail_one(uint32_t nth, uint32_t *refused)
{
	struct bench b;
	craft_all(&b);
	int64_t live_before = live_count;
	int fds_before = open_fds();
	fault.armed = true;
	fault.nth = nth;
	fault.calls = 0;
	fault.what = NULL;
	bool served = start(&b);
	*refused += !served;
	cr_assert_eq(live_count, live_before, "call %u (%s): %d blocks stay", nth, fault.what,
		(int)(live_count - live_before));
	cr_assert_eq(open_fds(), fds_before, "call %u (%s): descriptors stay", nth, fault.what);
	cr_assert(served || fault.what, "refused, and nothing failed");
	cr_assert(start(&b), "after call %u (%s)", nth, fault.what);
	cr_assert_eq(count_names(&b, "journal", "set-*"), 1);
	cr_assert_eq(count_names(&b, "staging", "e1-unknown*") + count_names(&b, "orphans", "e1-unknown*"), 1,
		"after call %u (%s)", nth, fault.what);
	bench_remove(&b);
	return fault.what != NULL;
}

static void fail_each(bool of_memory, int err, bool and_on, uint32_t at_least)
{
	uint32_t nth = 1, refused = 0;
	fault.of_memory = of_memory;
	fault.err = err;
	fault.and_on = and_on;
	while (fail_one(nth, &refused))
		nth++;
	cr_expect_geq(nth, at_least, "%u calls", nth);
	fprintf(stderr, "%u calls, %u starts refused\n", nth - 1, refused);
	cr_expect_gt(refused, (nth - 1) / 2);
}

static void hooks_init(void)
{
	cJSON_Hooks hooks = {malloc, free};
	cJSON_InitHooks(&hooks);
}

TestSuite(start_failures, .init = hooks_init);

Test(start_failures, the_kernel, .timeout = 120)
{
	fail_each(false, EIO, false, 40);
	fail_each(false, ENOMEM, true, 40);
}

Test(start_failures, memory, .timeout = 120)
{
	fail_each(true, ENOMEM, false, 30);
	fail_each(true, ENOMEM, true, 30);
}
