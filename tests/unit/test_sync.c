/*
 * What survives the machine: the order of syncs, how many wait for one, and what is left when one
 * fails.
 *
 * A sync that fails is one whose completion says so: its result is replaced.
 */
#include "upload_commands.h"

enum { BYTES = 100000 };

/* --- completions, looked at and changed ------------------------------------------------------- */

static struct {
	struct bench *b;
	void (*data_done)(struct op *op), (*entry_done)(struct op *op);
	uint32_t data_fails, entry_fails; /* so many of the next ones */
	uint32_t data_syncs, entry_syncs;
	bool changes;                     /* content is taken out while the file is synced */
	const struct caught *early;       /* not answered before the journal is synced */
} hook;

static struct transfer *the_transfer(struct bench *b)
{
	return transfer_find(b->rt.uploads, &ID);
}

static uint64_t stat_of(_Atomic uint64_t *counter)
{
	return atomic_load(counter);
}

static void on_data(struct op *op)
{
	hook.data_syncs++;
	if (hook.early) {
		cr_assert_not(hook.early->done);
		cr_assert_eq(hook.entry_syncs, 0);
		cr_assert_eq(the_transfer(hook.b)->cover.bytes, 0, "it counts too early");
	}
	if (hook.changes)
		transfer_uncover(the_transfer(hook.b), 15000, 15010);
	if (hook.data_fails) {
		hook.data_fails--;
		op->res = -EIO;
	}
	hook.data_done(op);
}

static void on_entry(struct op *op)
{
	hook.entry_syncs++;
	if (hook.early) {
		cr_assert_not(hook.early->done);
		cr_assert_eq(hook.data_syncs, 1);
		cr_assert_eq(the_transfer(hook.b)->cover.bytes, 0, "it counts too early");
	}
	if (hook.entry_fails) {
		hook.entry_fails--;
		op->res = -EIO;
	}
	hook.entry_done(op);
}

/* Once there is a transfer. */
static void hook_up(struct bench *b)
{
	struct transfer *t = the_transfer(b);
	struct uploads *u = b->rt.uploads;
	memset(&hook, 0, sizeof(hook));
	hook.b = b;
	hook.data_done = t->sync_op.done;
	t->sync_op.done = on_data;
	hook.entry_done = u->entry_op.done;
	u->entry_op.done = on_entry;
}

/* --- commands --------------------------------------------------------------------------------- */

/* Many syncs, of which none must be real. */
static const char *parent(void)
{
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static void begin(struct bench *b)
{
	bench_is_power = false;
	bench_prepare(b, parent());
	bench_up(b);
	assert_ok(do_init(b, "{\"name\":\"a\"}"));
	hook_up(b);
}

static struct caught crash(struct bench *b, uint64_t off, const void *data, uint32_t bytes)
{
	bench_is_power = false;
	return do_small(b, off, data, bytes);
}

static struct caught power(struct bench *b, uint64_t off, const void *data, uint32_t bytes)
{
	bench_is_power = true;
	struct caught c = do_small(b, off, data, bytes);
	bench_is_power = false;
	return c;
}

static void send_small(struct bench *b, const struct upload_id *id, uint64_t off, const uint8_t *data,
	uint32_t bytes, struct caught *c)
{
	struct filecmd cmd = segment_cmd(off);
	struct buf *buf = NULL;
	for (int i = 0; i < 2000 && !(buf = bufs_take(b->rt.bufs)); i++)
		turn(b);
	cr_assert_not_null(buf);
	memcpy(buf->data, data, bytes);
	bench_is_power = true;
	ingest_small(b->rt.uploads, id, &cmd, buf, buf->data, bytes, reply_for(c));
	bench_is_power = false;
	buf_unref(buf);
}

/* Another page cache: what a restart finds after the machine died, as far as the journal and the
 * files got to the disk, which here is all of it. */
static void restart_machine(struct bench *b)
{
	char command[256];
	bench_down(b);
	snprintf(command, sizeof(command), "echo another boot >$(echo '%s'/journal/set-*/page-cache)", b->dir);
	cr_assert_eq(system(command), 0);
	bench_up(b);
	if (the_transfer(b))
		hook_up(b);
}

/* --- the order -------------------------------------------------------------------------------- */

Test(sync, file_then_directory_then_journal_then_answer)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	struct caught c;
	begin(&b);
	uint64_t journal_syncs = stat_of(&b.rt.stats.journal_syncs);
	send_small(&b, &ID, 0, data, 1000, &c);
	hook.early = &c;
	ingest_flush(b.rt.uploads);
	settle(&b);
	hook.early = NULL;
	cr_assert(c.done);
	assert_ok(c);
	cr_assert_eq(hook.data_syncs, 1);
	cr_assert_eq(hook.entry_syncs, 1);
	cr_assert_eq(stat_of(&b.rt.stats.journal_syncs), journal_syncs + 1);
	/* The entry of the file is synced once. */
	assert_ok(power(&b, 1000, data + 1000, 1000));
	cr_assert_eq(hook.data_syncs, 2);
	cr_assert_eq(hook.entry_syncs, 1);
	/* What waits for nothing of that costs nothing of it. */
	assert_ok(crash(&b, 2000, data + 2000, 1000));
	cr_assert_eq(hook.data_syncs, 2);
	cr_assert_eq(stat_of(&b.rt.stats.journal_syncs), journal_syncs + 2);
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, 2000, "neither more nor less");
	assert_ok(do_large(&b, 2000, data + 2000, BYTES - 2000, 100, NULL));
	assert_ok(do_fin(&b, BYTES, NULL));
	assert_file(&b, "cam/f1/a", data, BYTES);
	free(data);
	bench_fini(&b);
}

/* Large ones, with and without a checksum, prefix and scratch file. */
Test(sync, segments_of_all_kinds_survive)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1), digest[32];
	begin(&b);
	bench_is_power = true;
	assert_ok(do_large(&b, 0, data, 30000, 0, NULL));
	digest_of(data + 30000, 30000, digest);
	assert_ok(do_large(&b, 30000, data + 30000, 30000, 500, digest));
	assert_ok(do_large(&b, 20000, data + 20000, 30000, 0, NULL)); /* all of it is there */
	uint8_t *other = noise(20000, 2);
	assert_ok(do_large(&b, 25000, other, 20000, 0, NULL)); /* written over what is there */
	memcpy(data + 25000, other, 20000);
	bench_is_power = false;
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, 60000);
	assert_ok(do_large(&b, 60000, data + 60000, BYTES - 60000, 0, NULL));
	digest_of(data, BYTES, digest);
	assert_ok(do_fin(&b, BYTES, digest));
	assert_file(&b, "cam/f1/a", data, BYTES);
	free(other);
	free(data);
	bench_fini(&b);
}

/* What came over a connection of level crash, and is sent again over one of level power, is synced
 * before it is acknowledged again; once that is so, it is not synced a second time. */
Test(sync, a_retransmission_is_synced_once)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	begin(&b);
	assert_ok(crash(&b, 0, data, 3000));
	cr_assert_eq(hook.data_syncs, 0);
	assert_ok(power(&b, 1000, data + 1000, 1000));
	cr_assert_eq(hook.data_syncs, 1);
	assert_ok(power(&b, 1000, data + 1000, 1000));
	assert_ok(power(&b, 1500, data + 1500, 100));
	cr_assert_eq(hook.data_syncs, 1);
	assert_ok(power(&b, 500, data + 500, 1000));
	cr_assert_eq(hook.data_syncs, 2);
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, 1500);
	cr_assert(cover_has(&the_transfer(&b)->cover, 500, 2000));
	free(data);
	bench_fini(&b);
}

/* Before synced bytes are written over, even on behalf of a connection of level crash, the journal
 * must have taken its word for them back on the disk. */
Test(sync, synced_bytes_are_not_vouched_for_while_they_change)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	begin(&b);
	assert_ok(crash(&b, 5000, data, 1000));
	uint64_t syncs = stat_of(&b.rt.stats.journal_syncs);
	assert_ok(crash(&b, 5000, data + 50, 1000));
	cr_assert_eq(stat_of(&b.rt.stats.journal_syncs), syncs, "no one had vouched for them");
	assert_ok(power(&b, 0, data, 1000));
	syncs = stat_of(&b.rt.stats.journal_syncs);
	assert_ok(crash(&b, 500, data, 1000));
	cr_assert_eq(stat_of(&b.rt.stats.journal_syncs), syncs + 1);
	cr_assert(cover_has(&the_transfer(&b)->cover, 0, 1500));
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, 500);
	free(data);
	bench_fini(&b);
}

/* --- groups ----------------------------------------------------------------------------------- */

Test(sync, many_wait_for_one)
{
	enum { FILES = 10, SEGMENTS = 20 };
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	struct caught c[FILES][SEGMENTS];
	char file_id[FILES][4];
	bench_prepare(&b, parent());
	b.buffers_max = FILES * SEGMENTS; /* all at once: the time that a sync takes decides nothing */
	bench_up(&b);
	for (uint32_t i = 0; i < FILES * SEGMENTS; i++) {
		uint32_t f = i % FILES, s = i / FILES;
		snprintf(file_id[f], sizeof(file_id[f]), "g%u", f);
		struct upload_id id = {"cam", 3, file_id[f], 2, NULL};
		send_small(&b, &id, s * 2000ull, data, 1000, &c[f][s]);
		ingest_flush(b.rt.uploads);
	}
	settle(&b);
	for (uint32_t i = 0; i < FILES * SEGMENTS; i++) {
		cr_assert(c[i % FILES][i / FILES].done);
		assert_ok(c[i % FILES][i / FILES]);
	}
	uint64_t files = stat_of(&b.rt.stats.file_syncs), dirs = stat_of(&b.rt.stats.dir_syncs);
	uint64_t journal = stat_of(&b.rt.stats.journal_syncs);
	cr_expect_geq(files, FILES);
	cr_expect_leq(files, FILES * SEGMENTS / 2, "%lu syncs of files", (unsigned long)files);
	cr_expect_leq(dirs, FILES, "%lu syncs of the directory", (unsigned long)dirs);
	cr_expect_leq(journal, files + 1, "%lu syncs of the journal", (unsigned long)journal);
	free(data);
	bench_fini(&b);
}

/* --- failures --------------------------------------------------------------------------------- */

/* The sync fails, the next one would succeed: what was synced before is kept, in another file; the
 * rest, also what was acknowledged at level crash, is missing and received again. */
Test(sync, a_failed_sync_is_final_for_the_file)
{
	for (int restarts = 0; restarts < 3; restarts++) {
		struct bench b;
		uint8_t *data = noise(BYTES, 1), *other = noise(BYTES, 2);
		struct sys_stat before, after;
		begin(&b);
		assert_ok(power(&b, 0, data, 10000));
		assert_ok(power(&b, 50000, data + 50000, 10000));
		assert_ok(crash(&b, 10000, other, 10000));
		struct transfer *t = the_transfer(&b);
		cr_assert_eq(sys_stat_at(b.rt.store->staging_fd, t->staging, &before), 0);
		int held = sys_openat(b.rt.store->staging_fd, t->staging, O_RDONLY, 0);
		hook.data_fails = 1;
		assert_fails(power(&b, 70000, data + 70000, 1000), 0x80, "io_error");
		cr_assert_eq(do_status(&b).o.received, 20000);
		if (restarts == 1)
			bench_restart(&b);
		else if (restarts == 2)
			restart_machine(&b);
		cr_assert_eq(do_status(&b).o.received, 20000);
		assert_ok(power(&b, 10000, data + 10000, 10000));
		assert_ok(power(&b, 70000, data + 70000, 1000));
		t = the_transfer(&b);
		cr_assert_eq(sys_stat_at(b.rt.store->staging_fd, t->staging, &after), 0);
		cr_assert_neq(before.ino, after.ino);
		cr_assert_eq(staging_count(&b), 1, "the old one is gone");
		restart_machine(&b);
		cr_assert_eq(do_status(&b).o.received, 31000);
		assert_ok(do_large(&b, 20000, data + 20000, 30000, 0, NULL));
		assert_ok(do_large(&b, 60000, data + 60000, 40000, 0, NULL));
		uint8_t digest[32];
		digest_of(data, BYTES, digest);
		assert_ok(do_fin(&b, BYTES, digest));
		assert_file(&b, "cam/f1/a", data, BYTES);
		cr_assert_eq(atomic_load(&b.rt.store->unallocated_bytes), 0);
		cr_assert_eq(atomic_load(&b.rt.store->staged_bytes), 0);
		close(held);
		free(other);
		free(data);
		bench_fini(&b);
	}
}

/* One after the other, and with segments of level crash on their way into the file that fails. */
Test(sync, files_that_fail_again_and_again)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	struct caught big, small;
	struct filecmd cmd = segment_cmd(50000);
	int fds[2];
	bool resumed = false;
	begin(&b);
	assert_ok(power(&b, 0, data, 1000));
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
		struct seg *s = ingest_begin(b.rt.uploads, &ID, &cmd, 50000, NULL, NULL, 0, reply_for(&big),
			note_resume, &resumed);
		cr_assert_not_null(s);
		cr_assert_eq(write(fds[1], data + 50000, 20000), 20000);
		for (int k = 0; k < 2000 && ingest_taken(s) < 20000; k++) {
			(void)ingest_pull(s, fds[0], UINT32_MAX);
			ingest_flush(b.rt.uploads);
			turn(&b);
		}
		cr_assert_eq(ingest_taken(s), 20000);
		hook.data_fails = 1;
		send_small(&b, &ID, 1000, data + 1000, 1000, &small);
		ingest_flush(b.rt.uploads);
		while (!small.done)
			turn(&b);
		assert_fails(small, 0x80, "io_error");
		cr_assert_eq(write(fds[1], data + 70000, 30000), 30000);
		for (int k = 0; k < 2000 && !big.done; k++) {
			enum ingest_pull p = ingest_pull(s, fds[0], UINT32_MAX);
			ingest_flush(b.rt.uploads);
			if (p == INGEST_DONE)
				break;
			turn(&b);
		}
		settle(&b);
		assert_fails(big, 0x80, "io_error");
		cr_assert_eq(do_status(&b).o.received, 1000);
		close(fds[0]);
		close(fds[1]);
	}
	assert_ok(do_large(&b, 1000, data + 1000, BYTES - 1000, 0, NULL));
	cr_assert_str_eq(strrchr(the_transfer(&b)->staging, '.'), ".3");
	assert_ok(do_fin(&b, BYTES, NULL));
	assert_file(&b, "cam/f1/a", data, BYTES);
	cr_assert_eq(staging_count(&b), 0);
	free(data);
	bench_fini(&b);
}

/* Aborted while the file is to be replaced: neither of the two stays. */
Test(sync, an_abort_after_a_failed_sync)
{
	for (int turns = 0; turns < 6; turns++) {
		struct bench b;
		uint8_t *data = noise(BYTES, 1);
		struct caught c, aborted;
		begin(&b);
		assert_ok(power(&b, 0, data, 1000));
		hook.data_fails = 1;
		assert_fails(power(&b, 1000, data, 1000), 0x80, "io_error");
		send_small(&b, &ID, 1000, data, 1000, &c);
		ingest_flush(b.rt.uploads);
		for (int i = 0; i < turns; i++)
			turn_for(&b, 0);
		upload_abort(b.rt.uploads, &ID, reply_for(&aborted));
		settle(&b);
		cr_assert(c.done && aborted.done);
		assert_ok(aborted);
		cr_assert_eq(staging_count(&b), 0);
		cr_assert_eq(b.rt.uploads->count, 0);
		bench_restart(&b);
		cr_assert_eq(staging_count(&b), 0);
		free(data);
		bench_fini(&b);
	}
}

/* New files can't be made durable any more; those that are go on, and so does level crash. */
Test(sync, a_directory_that_fails_to_sync)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	static const struct upload_id other = {"cam", 3, "f2", 2, NULL};
	struct caught c;
	begin(&b);
	assert_ok(power(&b, 0, data, 1000));
	hook.entry_fails = 1;
	for (int i = 0; i < 2; i++) {
		send_small(&b, &other, 0, data, 1000, &c);
		ingest_flush(b.rt.uploads);
		settle(&b);
		assert_fails(c, 0x80, "io_error");
	}
	cr_assert_eq(hook.entry_syncs, 2, "it is not tried again");
	assert_ok(power(&b, 1000, data + 1000, 1000));
	assert_ok(crash(&b, 2000, data + 2000, 1000));
	free(data);
	bench_fini(&b);
}

/* What is acknowledged as equal to an export stays acknowledged, also when that gets a successor. */
Test(sync, replays_of_a_power_connection_survive)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	begin(&b);
	assert_ok(do_large(&b, 0, data, BYTES, 0, NULL));
	assert_ok(do_fin(&b, BYTES, NULL));
	uint64_t syncs = stat_of(&b.rt.stats.journal_syncs);
	assert_ok(power(&b, 0, data, 50000));
	cr_assert_eq(stat_of(&b.rt.stats.journal_syncs), syncs + 1);
	restart_machine(&b);
	/* The next generation takes them over, and must not need the page cache for them. */
	data[60000] ^= 1;
	assert_ok(power(&b, 50000, data + 50000, 50000));
	cr_assert_eq(do_status(&b).o.received, BYTES);
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, BYTES);
	assert_ok(do_fin(&b, BYTES, NULL));
	assert_file(&b, "cam/f1~2/a", data, BYTES);
	free(data);
	bench_fini(&b);
}

/* At any level a long transfer is synced now and then; not what is written over meanwhile. */
Test(sync, a_long_transfer_is_synced_now_and_then)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	begin(&b);
	b.conf.transfer.sync_bytes = 10000;
	assert_ok(crash(&b, 50000, data + 50000, 20000));
	assert_ok(crash(&b, 0, data, 9999));
	cr_assert_eq(hook.data_syncs, 0, "not enough in sequence");
	assert_ok(crash(&b, 9999, data + 9999, 2));
	cr_assert_eq(hook.data_syncs, 1);
	cr_assert_eq(the_transfer(&b)->synced.bytes, 10001);
	assert_ok(crash(&b, 10001, data + 10001, 9999));
	cr_assert_eq(hook.data_syncs, 1);
	hook.data_fails = 1;
	assert_ok(crash(&b, 20000, data + 20000, 1));
	cr_assert_eq(hook.data_syncs, 2);
	cr_assert_eq(do_status(&b).o.received, 10001, "that one failed: what it was to sync is lost");
	assert_ok(do_large(&b, 10001, data + 10001, 30000, 0, NULL));
	cr_assert_eq(hook.data_syncs, 2, "no more of them");
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, 10001);
	/* While it runs, something changes. */
	b.conf.transfer.sync_bytes = 10000;
	hook.changes = true;
	assert_ok(crash(&b, 10001, data + 10001, 11000));
	cr_assert_eq(hook.data_syncs, 1);
	cr_assert_eq(the_transfer(&b)->synced.bytes, 10001, "not marked");
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, 10001);
	free(data);
	bench_fini(&b);
}

/* A fin syncs all: it counts after a power cut, also when the publish came to nothing. */
Test(sync, what_a_fin_synced_is_marked)
{
	struct bench b;
	uint8_t *data = noise(BYTES, 1);
	char path[256];
	begin(&b);
	assert_ok(do_large(&b, 0, data, BYTES, 0, NULL));
	/* A file where the client's directory has to be. */
	snprintf(path, sizeof(path), "%s/export/cam", b.dir);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	close(fd);
	assert_fails(do_fin(&b, BYTES, NULL), 0x80, "io_error");
	restart_machine(&b);
	cr_assert_eq(do_status(&b).o.received, BYTES);
	cr_assert_eq(unlink(path), 0);
	assert_ok(do_fin(&b, BYTES, NULL));
	assert_file(&b, "cam/f1/a", data, BYTES);
	free(data);
	bench_fini(&b);
}

/* What is synced is a part of what is there, also when one of the two has no room. */
Test(sync, both_covers_or_none)
{
	struct bench b;
	begin(&b);
	struct transfer *t = the_transfer(&b);
	uint64_t before = t->cover.bytes, synced = t->synced.bytes;
	uint32_t max = t->synced.extents_max;
	t->synced.extents_max = t->synced.count;
	cr_assert_eq(transfer_add_synced(t, 5000, 6000), -E2BIG);
	t->synced.extents_max = max;
	cr_assert_eq(t->cover.bytes, before);
	t->cover.extents_max = t->cover.count;
	cr_assert_eq(transfer_add_synced(t, 5000, 6000), -E2BIG);
	t->cover.extents_max = max;
	cr_assert_eq(t->cover.bytes, before);
	cr_assert_eq(t->synced.bytes, synced);
	cr_assert_eq(transfer_add_synced(t, 5000, 6000), 0);
	cr_assert_eq(t->cover.bytes, before + 1000);
	cr_assert_eq(t->synced.bytes, synced + 1000);
	bench_fini(&b);
}
