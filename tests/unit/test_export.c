/*
 * Publishing, with each of its steps failing once, or being the last one before the daemon is
 * killed; and many files in the same rounds.
 *
 * The calls of a round are replaced by ones that pass through here. For a failure, what a step says
 * is replaced by an error, and what the step had done is taken back. For a kill, the data directory
 * is copied at that moment; the daemon comes to its end, and another one begins with the copy.
 */
#include "upload_commands.h"

#include <stdint.h>
#include <sys/stat.h>
#include "export_impl.h"

enum { BYTES = 100000 };

enum step {
	FSYNC_FILE, MKDIR_OWN_TOO_EARLY, MKDIR_CLIENT, MKDIR_OWN, OPEN_MANIFEST, WRITE_MANIFEST, FSYNC_MANIFEST,
	OPEN_PARENT, FSYNC_PARENT, FSYNC_ROOT, RENAME, OPEN_OWN, FSYNC_OWN, STEPS,
};

/* The calls of a round pass through here when it is armed; before them the sync of the file. */
static struct {
	struct bench *b;
	void (*sync_done)(struct op *op);
	bool armed;
	enum step at, fails;
	bool take_away; /* a consumer takes the file as soon as it appears */
	bool copies;    /* it does not fail but is the last one before a kill */
} hook;

/* What the tests of many files look at and change: paths that contain `path` are met. */
static struct {
	uint32_t syncfs_count, fsync_count;
	uint64_t dirty_bytes, syncfs_ms, now_ms;
	int syncfs_res;
	const char *path;
	int mkdir_res, open_res;          /* instead of the call; 0: nothing is replaced */
	uint32_t manifest_fsyncs_fail;    /* so many, from the first */
	const char *blocks_rename;        /* a file of that path appears before the first rename */
} many = {.dirty_bytes = UINT64_MAX, .syncfs_ms = 5000};

static void run(const char *format, const char *a, const char *b)
{
	char command[512];
	snprintf(command, sizeof(command), format, a, b);
	cr_assert_eq(system(command), 0, "%s", command);
}

static void in_export(const struct bench *b, const char *path, char ret[256])
{
	snprintf(ret, 256, "%s/export/%s", b->dir, path);
}

static void take_back(struct bench *b, enum step step, int res)
{
	char path[256], staging[256];
	struct transfer *t = transfer_find(b->rt.uploads, &ID);
	switch (step) {
	case MKDIR_CLIENT:
	case MKDIR_OWN:
		in_export(b, step == MKDIR_OWN ? "cam/f1" : "cam", path);
		cr_assert_eq(rmdir(path), 0);
		break;
	case OPEN_OWN:
	case OPEN_MANIFEST:
	case OPEN_PARENT:
		close(res);
		break;
	case RENAME:
		in_export(b, "cam/f1/a", path);
		snprintf(staging, sizeof(staging), "%s/staging/%s", b->dir, t->staging);
		cr_assert_eq(rename(path, staging), 0);
		break;
	default:
		break;
	}
}

static int step_ends(int res)
{
	char path[256];
	if (!hook.armed)
		return res;
	if (hook.at == FSYNC_OWN && hook.take_away) {
		in_export(hook.b, "cam/f1/a", path);
		cr_assert_eq(unlink(path), 0);
	}
	if (hook.at == hook.fails && hook.copies) {
		run("cp -a '%s' '%s.copy'", hook.b->dir, hook.b->dir);
	} else if (hook.at == hook.fails) {
		cr_assert(hook.at == MKDIR_OWN_TOO_EARLY ? res == -ENOENT : res >= 0);
		take_back(hook.b, hook.at, res);
		res = -EIO;
	}
	hook.at++;
	return res;
}

static int hooked_mkdirat(int dir_fd, const char *path, uint32_t mode)
{
	if (many.path && strstr(path, many.path) && many.mkdir_res)
		return many.mkdir_res;
	return step_ends(sys_mkdirat(dir_fd, path, mode));
}

static int hooked_openat(int dir_fd, const char *path, int flags, uint32_t mode)
{
	if (many.path && strstr(path, many.path) && many.open_res)
		return many.open_res;
	return step_ends(sys_openat(dir_fd, path, flags, mode));
}

static int hooked_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	return step_ends(sys_pwrite(fd, buf, len, off));
}

static int hooked_fsync(int fd)
{
	struct sys_stat st;
	many.fsync_count++;
	if (many.manifest_fsyncs_fail && sys_fstat(fd, &st) == 0 && st.is_regular) {
		many.manifest_fsyncs_fail--;
		return -EIO;
	}
	return step_ends(sys_fsync(fd));
}

static int hooked_syncfs(int fd)
{
	many.syncfs_count++;
	many.now_ms += many.syncfs_ms;
	return many.syncfs_res ? many.syncfs_res : sys_syncfs(fd);
}

static uint64_t hooked_mono_ms(void)
{
	return many.now_ms;
}

static uint64_t hooked_dirty_bytes(void)
{
	return many.dirty_bytes;
}

static int hooked_renameat2(int from_dir, const char *from, int to_dir, const char *to, uint32_t flags)
{
	if (many.blocks_rename && strcmp(to, many.blocks_rename) == 0) {
		int fd = sys_openat(to_dir, to, O_WRONLY | O_CREAT | O_EXCL, 0644);
		cr_assert_geq(fd, 0);
		sys_close(fd);
		many.blocks_rename = NULL;
	}
	return step_ends(sys_renameat2(from_dir, from, to_dir, to, flags));
}

#define sys_mkdirat hooked_mkdirat
#define sys_openat hooked_openat
#define sys_pwrite hooked_pwrite
#define sys_fsync hooked_fsync
#define sys_syncfs hooked_syncfs
#define sys_dirty_bytes hooked_dirty_bytes
#define sys_mono_ms hooked_mono_ms
#define sys_renameat2 hooked_renameat2
#include "export_round.c"
#undef sys_mkdirat
#undef sys_openat
#undef sys_pwrite
#undef sys_fsync
#undef sys_syncfs
#undef sys_dirty_bytes
#undef sys_mono_ms
#undef sys_renameat2

static void on_sync(struct op *op)
{
	op->res = step_ends(op->res);
	op->done = hook.sync_done;
	op->done(op);
}

static struct caught do_fin_hooked(struct bench *b, uint64_t size)
{
	struct caught c;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = size};
	struct transfer *t = transfer_find(b->rt.uploads, &ID);
	upload_fin(b->rt.uploads, &ID, &cmd, reply_for(&c));
	hook.b = b;
	hook.at = FSYNC_FILE;
	hook.sync_done = t->sync_op.done;
	hook.armed = true;
	t->sync_op.done = on_sync;
	settle(b);
	hook.armed = false;
	cr_assert(c.done);
	return c;
}

static struct caught do_fin_failing(struct bench *b, uint64_t size, enum step fails, bool take_away)
{
	hook.fails = fails;
	hook.take_away = take_away;
	hook.copies = false;
	return do_fin_hooked(b, size);
}

/* What find counts below the export directory. */
static int count_found(struct bench *b, const char *condition)
{
	char command[256];
	int count = -1;
	snprintf(command, sizeof(command), "find '%s/export' -mindepth 1 %s | wc -l", b->dir, condition);
	FILE *f = popen(command, "r");
	cr_assert_eq(fscanf(f, "%d", &count), 1);
	pclose(f);
	return count;
}

static int count_exported(struct bench *b)
{
	return count_found(b, "-not -name cam");
}

static uint8_t *begin(struct bench *b)
{
	uint8_t *data = noise(BYTES, 7);
	/* Many syncs, of which none must be real. */
	bench_prepare(b, access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	b->conf.io.journal_bytes = 64 * 1024;
	bench_up(b);
	assert_ok(do_init(b, "{\"name\":\"a\",\"size\":100000}"));
	assert_ok(do_large(b, 0, data, BYTES, 0, NULL));
	return data;
}

Test(export, each_step_may_fail_once)
{
	for (enum step fails = FSYNC_FILE; fails < STEPS; fails++) {
		struct bench b;
		uint8_t *data = begin(&b);
		assert_fails(do_fin_failing(&b, BYTES, fails, false), 0x80, "io_error");
		cr_assert_gt(hook.at, fails, "there is no step %d", fails);
		cr_assert_eq(count_exported(&b), 0, "step %d left something", fails);
		cr_assert_str_eq(do_status(&b).o.state, "open");
		if (fails == FSYNC_FILE)
			assert_ok(do_large(&b, 0, data, BYTES, 0, NULL));
		assert_ok(do_fin(&b, BYTES, NULL));
		cr_assert_eq(staging_count(&b), 0);
		cr_assert_eq(count_exported(&b), 3, "a directory, a manifest, a file");
		assert_file(&b, "cam/f1/a", data, BYTES);
		cr_assert_eq(atomic_load(&b.rt.store->unallocated_bytes), 0);
		free(data);
		bench_fini(&b);
	}
}

/* The next fsync of the file would succeed, over lost writes: none of it counts any more, also
 * after a restart. */
Test(export, what_could_not_be_synced_is_received_again)
{
	for (int restarts = 0; restarts < 2; restarts++) {
		struct bench b;
		uint8_t *data = begin(&b);
		struct transfer *t = transfer_find(b.rt.uploads, &ID);
		struct sys_stat before, after;
		cr_assert_eq(sys_stat_at(b.rt.store->staging_fd, t->staging, &before), 0);
		/* Held, it keeps its inode number to itself. */
		int held = sys_openat(b.rt.store->staging_fd, t->staging, O_RDONLY, 0);
		assert_fails(do_fin_failing(&b, BYTES, FSYNC_FILE, false), 0x80, "io_error");
		if (restarts)
			bench_restart(&b);
		struct caught c = do_fin(&b, BYTES, NULL);
		assert_fails(c, 0x80, "incomplete");
		cr_assert_eq(c.o.missing_bytes, BYTES);
		assert_ok(do_large(&b, 0, data, BYTES, 0, NULL));
		t = transfer_find(b.rt.uploads, &ID);
		cr_assert_eq(sys_stat_at(b.rt.store->staging_fd, t->staging, &after), 0);
		cr_assert_neq(before.ino, after.ino);
		assert_ok(do_fin(&b, BYTES, NULL));
		assert_file(&b, "cam/f1/a", data, BYTES);
		close(held);
		free(data);
		bench_fini(&b);
	}
}

/* A rename that can't be taken back: nothing is written into that file any more. */
Test(export, a_file_that_stays_in_the_export_directory_is_left_alone)
{
	struct bench b;
	uint8_t *data = begin(&b);
	struct transfer *t = transfer_find(b.rt.uploads, &ID);
	char path[256];
	snprintf(path, sizeof(path), "%s/staging/%s", b.dir, t->staging);
	int taken = open(path, O_RDONLY);
	assert_fails(do_fin_failing(&b, BYTES, FSYNC_OWN, true), 0x80, "io_error");
	uint8_t *other = noise(BYTES, 8);
	assert_ok(do_large(&b, 0, other, BYTES, 0, NULL));
	assert_ok(do_small(&b, 5, "small", 5));
	memcpy(other + 5, "small", 5);
	uint8_t *got = malloc(BYTES);
	cr_assert_eq(pread(taken, got, BYTES, 0), BYTES);
	cr_assert_eq(memcmp(got, data, BYTES), 0, "the consumer's file was written to");
	assert_ok(do_fin(&b, BYTES, NULL));
	assert_file(&b, "cam/f1~2/a", other, BYTES);
	cr_assert_eq(staging_count(&b), 0);
	close(taken);
	free(got);
	free(other);
	free(data);
	bench_fini(&b);
}

static int journal_fd(void)
{
	for (int fd = 3; fd < 256; fd++) {
		char link[64], name[512];
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, name, sizeof(name) - 1);
		if (n <= 0)
			continue;
		name[n] = 0;
		if (strstr(name, "/journal/set-") && strstr(name, "/r00-"))
			return fd;
	}
	cr_assert_fail("no journal is open");
	return -1;
}

/* PUBLISHED is written but can't be synced: the fin fails, and the file stays, for after a restart
 * the record may count. */
Test(export, a_record_that_may_stand_keeps_the_file)
{
	struct bench b;
	uint8_t *data = begin(&b);
	struct caught c;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = BYTES};
	struct transfer *t = transfer_find(b.rt.uploads, &ID);
	upload_fin(b.rt.uploads, &ID, &cmd, reply_for(&c));
	for (int i = 0; i < 2000 && !t->is_published; i++) {
		journal_flush(b.rt.journal);
		ring_turn(b.rt.ring, 5);
	}
	journal_flush(b.rt.journal);
	while (ring_busy_count(b.rt.ring))
		ring_turn(b.rt.ring, 5);
	int null = open("/dev/null", O_RDWR), fd = journal_fd(); /* which takes writes and can't be synced */
	cr_assert_eq(dup2(null, fd), fd);
	close(null);
	settle(&b);
	cr_assert(c.done);
	assert_fails(c, 0x80, "io_error");
	assert_file(&b, "cam/f1/a", data, BYTES);
	assert_fails(do_fin(&b, 0, NULL), 0x80, "io_error");
	bench_restart(&b);
	cr_assert_str_eq(do_status(&b).o.state, "exported");
	assert_ok(do_fin(&b, BYTES, NULL));
	assert_file(&b, "cam/f1/a", data, BYTES);
	cr_assert_eq(count_exported(&b), 3);
	cr_assert_eq(staging_count(&b), 0);
	free(data);
	bench_fini(&b);
}

/* --- killed ----------------------------------------------------------------------------------- */

/* Ends the daemon as if it had been killed behind a step of its publish. The directories stay the
 * same ones, for the identity of the page cache. */
static void kill_behind(struct bench *b, enum step step)
{
	hook.fails = step;
	hook.take_away = false;
	hook.copies = true;
	assert_ok(do_fin_hooked(b, BYTES));
	cr_assert_gt(hook.at, step);
	bench_down(b);
	run("cd '%s' && find . -mindepth 2 -delete && cp -a '%s.copy'/. .", b->dir, b->dir);
	run("rm -rf '%s.copy'%s", b->dir, "");
}

/* Whatever was done by then, the file appears once and nothing else is left; also under another
 * layout from then on. */
Test(export, killed_behind_each_step)
{
	for (int i = 0; i < 2 * STEPS; i++) {
		struct bench b;
		uint8_t *data = begin(&b);
		kill_behind(&b, i % STEPS);
		if (i >= STEPS)
			b.conf.export.layout = CONF_LAYOUT_EMQX;
		bench_up(&b);
		settle(&b);
		cr_assert_str_eq(do_status(&b).o.state, "exported");
		assert_ok(do_fin(&b, BYTES, NULL));
		cr_assert_eq(staging_count(&b), 0);
		cr_assert_eq(count_found(&b, "-type f -name a"), 1);
		cr_assert_eq(count_found(&b, "-type f"), 2, "and a manifest");
		cr_assert_eq(count_found(&b, "-type d -empty -not -name cam"), 0);
		assert_file(&b, transfer_find(b.rt.uploads, &ID)->exported.path, data, BYTES);
		bench_restart(&b);
		cr_assert_str_eq(do_status(&b).o.state, "exported");
		free(data);
		bench_fini(&b);
	}
}

/* Killed when its directory was chosen but not made: what is there now is what a consumer left of
 * another export. */
Test(export, another_exports_manifest_is_left_alone)
{
	static const char theirs[] = "{\n\t\"clientid\":\t\"cam\",\n\t\"fileid\":\t\"f1\",\n\t\"generation\":\t4\n}\n";
	struct bench b;
	uint8_t *data = begin(&b);
	char path[256];
	kill_behind(&b, MKDIR_CLIENT);
	in_export(&b, "cam/f1", path);
	cr_assert_eq(mkdir(path, 0755), 0);
	in_export(&b, "cam/f1/.manifest.json", path);
	FILE *f = fopen(path, "w");
	fputs(theirs, f);
	fclose(f);
	bench_up(&b);
	settle(&b);
	cr_assert_str_eq(do_status(&b).o.state, "exported");
	assert_file(&b, "cam/f1~2/a", data, BYTES);
	assert_file(&b, "cam/f1/.manifest.json", (const uint8_t *)theirs, sizeof(theirs) - 1);
	cr_assert_eq(count_found(&b, "-type f"), 3);
	free(data);
	bench_fini(&b);
}

/* --- many that fail at once ------------------------------------------------------------------- */

static struct {
	uintptr_t lowest, highest;
	uint32_t failed;
} stack;

static void note_stack(struct caught *c)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	if (c->o.reason == 0)
		return;
	stack.lowest = stack.failed == 0 || here < stack.lowest ? here : stack.lowest;
	stack.highest = here > stack.highest ? here : stack.highest;
	stack.failed++;
}

Test(export, a_queue_of_failures_is_a_loop)
{
	enum { MANY = 200 };
	static struct caught c[MANY];
	struct upload_id ids[MANY];
	char names[MANY][16];
	struct bench b;
	struct filecmd cmd = {.verb = FILECMD_FIN};
	bench_init(&b);
	for (int i = 0; i < MANY; i++) {
		struct caught init;
		snprintf(names[i], sizeof(names[i]), "n%d", i);
		ids[i] = (struct upload_id){"cam", 3, names[i], (uint32_t)strlen(names[i]), NULL};
		upload_init(b.rt.uploads, &ids[i], "{\"name\":\"a\"}", 12, reply_for(&init));
		settle(&b);
		assert_ok(init);
	}
	/* All places are taken until the last one comes; neither fchmod nor anything else works on
	 * these descriptors. */
	int path_only = open("/", O_PATH);
	b.rt.uploads->exporter->count = b.conf.export.parallel_max;
	for (int i = 0; i < MANY; i++) {
		struct reply *rp = reply_for(&c[i]);
		struct transfer *t = transfer_find(b.rt.uploads, &ids[i]);
		c[i].ended = note_stack;
		upload_fin(b.rt.uploads, &ids[i], &cmd, rp);
		if (i == MANY - 1)
			b.rt.uploads->exporter->count = 0;
		for (int k = 0; k < 2000 && !t->publish && !c[i].done; k++)
			turn(&b);
		if (i < MANY - 1)
			cr_assert_eq(dup2(path_only, t->fd), t->fd);
	}
	settle(&b);
	for (int i = 0; i < MANY; i++)
		cr_assert(c[i].done);
	assert_ok(c[MANY - 1]);
	cr_assert_eq(stack.failed, MANY - 1);
	cr_assert_lt(stack.highest - stack.lowest, 4096, "%zu", (size_t)(stack.highest - stack.lowest));
	close(path_only);
	bench_fini(&b);
}

/* --- many together ---------------------------------------------------------------------------- */

enum { FILES = 24, FILE_BYTES = 3000 };

struct fleet {
	struct bench b;
	struct upload_id ids[FILES];
	char names[FILES][8];
	struct caught c[FILES];
};

static void fleet_send(struct fleet *f, int i)
{
	struct caught init, segment;
	struct filecmd cmd = segment_cmd(0);
	struct buf *buf = bufs_take(f->b.rt.bufs);
	uint8_t *data = noise(FILE_BYTES, 100 + (uint32_t)i);
	snprintf(f->names[i], sizeof(f->names[i]), "n%02d", i);
	f->ids[i] = (struct upload_id){"cam", 3, f->names[i], (uint32_t)strlen(f->names[i]), NULL};
	static const char json[] = "{\"name\":\"a\",\"size\":3000}";
	upload_init(f->b.rt.uploads, &f->ids[i], json, sizeof(json) - 1, reply_for(&init));
	memcpy(buf->data, data, FILE_BYTES);
	ingest_small(f->b.rt.uploads, &f->ids[i], &cmd, buf, buf->data, FILE_BYTES, reply_for(&segment));
	ingest_flush(f->b.rt.uploads);
	buf_unref(buf);
	free(data);
	settle(&f->b);
	assert_ok(init);
	assert_ok(segment);
}

/* All fins in one turn. */
static void fleet_fin(struct fleet *f)
{
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = FILE_BYTES};
	for (int i = 0; i < FILES; i++)
		upload_fin(f->b.rt.uploads, &f->ids[i], &cmd, reply_for(&f->c[i]));
	settle(&f->b);
	for (int i = 0; i < FILES; i++)
		cr_assert(f->c[i].done);
}

static void fleet_begin(struct fleet *f)
{
	bench_init(&f->b);
	for (int i = 0; i < FILES; i++)
		fleet_send(f, i);
	many.fsync_count = many.syncfs_count = 0;
}

static void fleet_check(struct fleet *f, int i, const char *suffix)
{
	char path[64];
	struct sys_stat st;
	uint8_t *data = noise(FILE_BYTES, 100 + (uint32_t)i);
	assert_ok(f->c[i]);
	snprintf(path, sizeof(path), "cam/n%02d%s/a", i, suffix);
	assert_file(&f->b, path, data, FILE_BYTES);
	cr_assert_eq(sys_stat_at(f->b.rt.store->export_fd, path, &st), 0);
	cr_assert_eq(st.mode, 0640);
	free(data);
}

/* All but one, which the caller looks at. */
static void fleet_check_but(struct fleet *f, int other)
{
	for (int i = 0; i < FILES; i++) {
		if (i != other)
			fleet_check(f, i, "");
	}
}

static void fleet_end(struct fleet *f)
{
	cr_assert_eq(staging_count(&f->b), 0);
	cr_assert_eq(count_found(&f->b, "-type f -name .manifest.json"), FILES);
	bench_restart(&f->b);
	for (int i = 0; i < FILES; i++)
		cr_assert_eq(transfer_find(f->b.rt.uploads, &f->ids[i])->state, TRANSFER_EXPORTED);
	bench_fini(&f->b);
}

Test(export, many_become_durable_together)
{
	struct fleet f;
	many.dirty_bytes = 0;
	fleet_begin(&f);
	fleet_fin(&f);
	fleet_check_but(&f, -1);
	cr_assert_eq(many.fsync_count, 0);
	cr_assert_geq(many.syncfs_count, 3, "for each of the stages");
	cr_assert_leq(many.syncfs_count, 12, "%u for %u files", many.syncfs_count, FILES);
	fleet_end(&f);
}

/* Where much is dirty a sync of all is tried, and if it took long each is synced by itself. */
Test(export, where_much_is_dirty_each_is_synced_by_itself)
{
	struct fleet f;
	fleet_begin(&f);
	fleet_fin(&f);
	fleet_check_but(&f, -1);
	cr_assert_eq(many.syncfs_count, 1);
	cr_assert_geq(many.fsync_count, 2 * FILES, "manifests and directories");
	fleet_end(&f);
}

/* Dirty is what belongs to others: the sync of all was quick. */
Test(export, where_much_is_dirty_elsewhere_all_is_synced_together)
{
	struct fleet f;
	many.syncfs_ms = 3;
	fleet_begin(&f);
	fleet_fin(&f);
	fleet_check_but(&f, -1);
	cr_assert_geq(many.syncfs_count, 3);
	cr_assert_eq(many.fsync_count, 0);
	fleet_end(&f);
}

/* The file system says once that something was lost: it is not asked again, and each file answers
 * for itself. */
Test(export, a_sync_of_all_that_fails_is_followed_by_one_of_each)
{
	struct fleet f;
	many.dirty_bytes = 0;
	many.syncfs_res = -EIO;
	fleet_begin(&f);
	many.manifest_fsyncs_fail = 1;
	fleet_fin(&f);
	cr_assert_eq(many.syncfs_count, 1);
	cr_assert_geq(many.fsync_count, 2 * FILES);
	int failed = -1;
	for (int i = 0; i < FILES; i++) {
		if (f.c[i].o.reason == 0)
			continue;
		cr_assert_eq(failed, -1, "%d fails like %d", i, failed);
		assert_fails(f.c[i], 0x80, "io_error");
		failed = i;
	}
	cr_assert_neq(failed, -1);
	fleet_check_but(&f, failed);
	cr_assert_eq(count_found(&f.b, "-type f -name .manifest.json"), FILES - 1);
	fleet_fin(&f);
	fleet_check_but(&f, -1);
	cr_assert_eq(many.syncfs_count, 1);
	fleet_end(&f);
}

/* Both ways to make them durable. */
static void with_both(void (*test)(void))
{
	for (int i = 0; i < 2; i++) {
		many.dirty_bytes = i ? UINT64_MAX : 0;
		test();
		many.path = NULL;
		many.mkdir_res = many.open_res = 0;
	}
}

static void one_name_is_taken(void)
{
	struct fleet f;
	char path[256];
	fleet_begin(&f);
	in_export(&f.b, "cam", path);
	cr_assert_eq(mkdir(path, 0755), 0);
	in_export(&f.b, "cam/n05", path);
	cr_assert_eq(mkdir(path, 0755), 0);
	fleet_fin(&f);
	fleet_check_but(&f, 5);
	fleet_check(&f, 5, "~2");
	cr_assert_eq(count_found(&f.b, "-type d -empty"), 1, "somebody else's stays");
	fleet_end(&f);
}

Test(export, among_many_one_name_is_taken)
{
	with_both(one_name_is_taken);
}

static void one_rename_is_blocked(void)
{
	struct fleet f;
	fleet_begin(&f);
	many.blocks_rename = "cam/n07/a";
	fleet_fin(&f);
	cr_assert_null(many.blocks_rename);
	fleet_check_but(&f, 7);
	fleet_check(&f, 7, "~2");
	assert_file(&f.b, "cam/n07/a", (const uint8_t *)"", 0);
	run("rm -r '%s/export/cam/n07'%s", f.b.dir, "");
	fleet_end(&f);
}

Test(export, among_many_one_rename_is_blocked)
{
	with_both(one_rename_is_blocked);
}

static void one_fails(void)
{
	struct fleet f;
	for (int i = 0; i < 2; i++) {
		fleet_begin(&f);
		many.path = i ? "n09/.manifest" : "n09";
		many.mkdir_res = i ? 0 : -ENOSPC;
		many.open_res = i ? -ENOSPC : 0;
		fleet_fin(&f);
		assert_fails(f.c[9], 0x97, "enospc");
		fleet_check_but(&f, 9);
		cr_assert_eq(count_found(&f.b, "-name 'n09*'"), 0);
		many.path = NULL;
		fleet_fin(&f);
		fleet_check_but(&f, -1);
		fleet_end(&f);
	}
}

Test(export, among_many_one_fails)
{
	with_both(one_fails);
}

/* The directory of the client, known to be durable, is taken away with all that was in it. */
static void the_clients_directory_goes(void)
{
	struct fleet f;
	fleet_begin(&f);
	fleet_fin(&f);
	run("rm -r '%s/export/cam'%s", f.b.dir, "");
	const struct upload_id id = {"cam", 3, "f1", 2, NULL};
	assert_ok(do_init(&f.b, "{\"name\":\"b\"}"));
	assert_ok(do_small(&f.b, 0, "again", 5));
	assert_ok(do_fin(&f.b, 5, NULL));
	cr_assert_eq(transfer_find(f.b.rt.uploads, &id)->state, TRANSFER_EXPORTED);
	assert_file(&f.b, "cam/f1/b", (const uint8_t *)"again", 5);
	bench_fini(&f.b);
}

Test(export, a_directory_known_to_be_durable_is_made_again)
{
	with_both(the_clients_directory_goes);
}
