/*
 * Publishing, with each of its steps failing once, or being the last one before the daemon is
 * killed.
 *
 * For a failure, what a step's completion says is replaced by an error, and what the step had done
 * is taken back. For a kill, the data directory is copied at that moment; the daemon comes to its
 * end, and another one begins with the copy.
 */
#include "upload_commands.h"

#include <stdint.h>
#include <sys/stat.h>

enum { BYTES = 100000 };

enum step {
	FSYNC_FILE, MKDIR_CLIENT, MKDIR_OWN, OPEN_OWN, OPEN_MANIFEST, WRITE_MANIFEST, FSYNC_MANIFEST,
	OPEN_PARENT, FSYNC_PARENT, FSYNC_ROOT, RENAME, FSYNC_OWN, STEPS,
};

/* The operation of a publish is its first member: its completions pass through here; before them
 * that of the sync of its file. */
static struct {
	struct bench *b;
	void (*done)(struct op *op), (*sync_done)(struct op *op);
	enum step at, fails;
	bool take_away; /* a consumer takes the file as soon as it appears */
	bool copies;    /* it does not fail but is the last one before a kill */
} hook;

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

static void step_ends(struct op *op)
{
	char path[256];
	if (hook.at == FSYNC_OWN && hook.take_away) {
		in_export(hook.b, "cam/f1/a", path);
		cr_assert_eq(unlink(path), 0);
	}
	if (hook.at == hook.fails && hook.copies) {
		run("cp -a '%s' '%s.copy'", hook.b->dir, hook.b->dir);
	} else if (hook.at == hook.fails) {
		cr_assert_geq(op->res, 0);
		take_back(hook.b, hook.at, op->res);
		op->res = -EIO;
	}
	hook.at++;
}

static void on_step(struct op *op)
{
	step_ends(op);
	hook.done(op);
}

static void on_sync(struct op *op)
{
	step_ends(op);
	op->done = hook.sync_done;
	op->done(op);
}

static struct caught do_fin_hooked(struct bench *b, uint64_t size)
{
	struct caught c;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = size};
	struct transfer *t = transfer_find(b->rt.uploads, &ID);
	upload_fin(b->rt.uploads, &ID, &cmd, reply_for(&c));
	for (int i = 0; i < 2000 && !t->publish; i++) {
		cr_assert_not(c.done);
		turn(b);
	}
	struct op *op = (struct op *)t->publish;
	hook.b = b;
	hook.at = FSYNC_FILE;
	hook.done = op->done;
	op->done = on_step;
	hook.sync_done = t->sync_op.done;
	t->sync_op.done = on_sync;
	settle(b);
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
		ids[i] = (struct upload_id){"cam", 3, names[i], (uint32_t)strlen(names[i])};
		upload_init(b.rt.uploads, &ids[i], "{\"name\":\"a\"}", 12, reply_for(&init));
		settle(&b);
		assert_ok(init);
	}
	/* All places are taken until the last one comes; neither fchmod nor anything else works on
	 * these descriptors. */
	int path_only = open("/", O_PATH);
	b.rt.uploads->publishing = b.conf.export.parallel_max;
	for (int i = 0; i < MANY; i++) {
		struct reply *rp = reply_for(&c[i]);
		struct transfer *t = transfer_find(b.rt.uploads, &ids[i]);
		c[i].ended = note_stack;
		upload_fin(b.rt.uploads, &ids[i], &cmd, rp);
		if (i == MANY - 1)
			b.rt.uploads->publishing = 0;
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
