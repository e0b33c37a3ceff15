/*
 * daemon/journal.c over a real ring and directory.
 *
 * The model of the daemon's state is a bitmap of units per transfer and the number of the turn that
 * it was last changed in. What recovery would read from the directory, at any moment, must be the
 * state after one whole turn, and of one that is not older than the last turn acknowledged.
 */
#include "ring_world.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "journal.h"
#include "log.h"
#include "reactor.h"
#include "store.h"

enum { TIDS = 8, UNITS = 64, TURNS_MAX = 4000, FIRST_SEQ = 5, REACTOR = 3 };

struct state {
	uint64_t turn;
	bool open[TIDS];
	uint64_t units[TIDS]; /* one bit each */
};

struct waiter {
	struct journal_waiter w;
	uint32_t done_count;
	uint32_t at; /* of all completions, which this was */
	int err;
	uint64_t turn; /* in which it was registered */
};

static struct ring_world w;
static struct conf conf;
static struct store store;
static struct reactor rt;
static struct journal *j;
static struct state state;
static uint32_t completions, errors_logged;
static char *big_text; /* part of every checkpoint, when there is one */
static uint32_t big_text_bytes;

/* --- the daemon around it --------------------------------------------------------------------- */

static void units_put(const struct state *s, uint32_t tid, void (*put)(void *, const struct record *), void *arg)
{
	for (uint32_t from = 0; from < UNITS; from++) {
		uint32_t to = from;
		while (to < UNITS && s->units[tid] >> to & 1)
			to++;
		if (to == from)
			continue;
		struct record r = {.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to};
		put(arg, &r);
		from = to;
	}
}

static void checkpoint(void *arg, void (*put)(void *put_arg, const struct record *r), void *put_arg)
{
	const struct state *s = arg;
	for (uint32_t tid = 0; tid < TIDS; tid++) {
		struct record open = {.type = RECORD_OPEN, .tid = tid, .clientid = "c", .clientid_bytes = 1,
			.fileid = "f", .fileid_bytes = 1, .text = "staged", .text_bytes = 6};
		if (!s->open[tid])
			continue;
		put(put_arg, &open);
		units_put(s, tid, put, put_arg);
	}
	if (big_text) {
		struct record meta = {.type = RECORD_META, .tid = 99, .text = big_text,
			.text_bytes = big_text_bytes};
		put(put_arg, &meta);
	}
	struct record turn = {.type = RECORD_RESERVE, .tid = TIDS, .size = s->turn};
	put(put_arg, &turn);
}

static void on_log(const char *line, size_t bytes)
{
	(void)line;
	(void)bytes;
	errors_logged++;
}

static void start(uint64_t journal_bytes)
{
	ring_world_init(&w);
	log_init(CONF_LOG_ERROR, sys_wall_ms, on_log);
	conf.io.journal_bytes = journal_bytes;
	store.set_fd = w.dir_fd;
	rt.idx = REACTOR;
	rt.conf = &conf;
	rt.ring = w.ring;
	cr_assert_eq(journal_new(&rt, &store, FIRST_SEQ, checkpoint, &state, &j), 0);
}

static void set_up(void)
{
	start(1 << 20);
}

static void tear_down(void)
{
	journal_free(j);
	ring_world_fini(&w);
}

TestSuite(journal, .init = set_up, .fini = tear_down);

static void set_up_small(void)
{
	start(4096);
}

TestSuite(journal_small, .init = set_up_small, .fini = tear_down);

static void on_waited(struct journal_waiter *waiter, int err)
{
	struct waiter *x = (struct waiter *)waiter;
	cr_assert_not(waiter->waiting);
	x->done_count++;
	x->at = ++completions;
	x->err = err;
}

static void wait_for(struct waiter *x, enum journal_level level)
{
	x->w.done = on_waited;
	x->turn = state.turn;
	journal_wait(j, &x->w, level);
	cr_assert(x->w.waiting);
}

static void append_extent(uint64_t tid, uint64_t from, uint64_t to)
{
	struct record r = {.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to};
	journal_append(j, &r);
}

/* Turns as the reactor does until nothing is left to do. */
static void settle(void)
{
	uint64_t end_ms = sys_mono_ms() + 10000;
	do {
		cr_assert_lt(sys_mono_ms(), end_ms);
		journal_flush(j);
		ring_turn(w.ring, ring_busy_count(w.ring) ? 100 : 0);
	} while (!journal_is_idle(j) || ring_busy_count(w.ring) > 0);
}

/* --- recovery, as simple as can be ------------------------------------------------------------ */

static void apply(struct state *s, const struct record *r)
{
	switch (r->type) {
	case RECORD_OPEN:
		s->open[r->tid] = true;
		s->units[r->tid] = 0;
		break;
	case RECORD_EXTENT:
		cr_assert(s->open[r->tid]);
		for (uint64_t u = r->from; u < r->to; u++)
			s->units[r->tid] |= 1ull << u;
		break;
	case RECORD_ABORTED:
		s->open[r->tid] = false;
		s->units[r->tid] = 0;
		break;
	case RECORD_RESERVE:
		s->turn = r->size;
		break;
	default:
		break;
	}
}

struct found {
	struct state state;
	uint64_t file_seq, file_bytes, used_bytes;
	uint32_t records; /* behind the checkpoint, without marks */
	uint32_t marks;
	uint64_t marked_off; /* by the last of them */
	bool whole;
};

/* False: it was there when the directory was read, but the rotation has taken it away since. */
static bool read_file(const char *name, struct found *ret)
{
	static uint8_t buf[4 << 20];
	uint32_t reactor_idx = 0;
	char check[JOURNAL_NAME_MAX];
	int fd = sys_openat(w.dir_fd, name, O_RDONLY, 0);
	if (fd == -ENOENT)
		return false;
	cr_assert_geq(fd, 0);
	int64_t bytes = sys_pread(fd, buf, sizeof(buf), 0);
	sys_close(fd);
	cr_assert_geq(bytes, 0);
	*ret = (struct found){.file_bytes = (uint64_t)bytes};
	struct record_reader reader = {.buf = buf, .buf_bytes = (size_t)bytes, .off = RECORD_HEADER_BYTES};
	if (record_header_decode(buf, (size_t)bytes, &reader.salt, &ret->file_seq, &reactor_idx))
		return true; /* still being made */
	cr_assert_eq(reactor_idx, REACTOR);
	journal_file_name(reactor_idx, ret->file_seq, check);
	cr_assert_str_eq(check, name);
	struct record r;
	int more;
	uint64_t turn = 0;
	while ((more = record_next(&reader, &r)) == 1) {
		/* What the checkpoint holds already is not written a second time. */
		cr_assert(!ret->whole || r.type != RECORD_RESERVE || r.size > turn);
		turn = r.type == RECORD_RESERVE ? r.size : turn;
		if (r.type == RECORD_SYNC_MARK) {
			cr_assert_gt(r.size, ret->marked_off);
			cr_assert_leq(r.size, reader.off);
			ret->marks++;
			ret->marked_off = r.size;
			continue;
		}
		ret->records += ret->whole;
		ret->whole |= r.type == RECORD_CHECKPOINT_END;
		apply(&ret->state, &r);
	}
	cr_assert_eq(more, 0);
	ret->used_bytes = reader.off;
	return true;
}

struct recovery {
	struct found best;
	uint32_t files;
};

static int on_name(void *arg, const char *name)
{
	struct recovery *rc = arg;
	struct found f;
	if (name[0] != 'r')
		return 0;
	if (!read_file(name, &f))
		return -EAGAIN;
	rc->files++;
	if (f.whole && f.file_seq > rc->best.file_seq)
		rc->best = f;
	return 0;
}

static struct recovery recover(void)
{
	struct recovery rc;
	int err;
	do {
		rc = (struct recovery){0};
		err = sys_list_dir(w.dir_fd, on_name, &rc);
	} while (err == -EAGAIN);
	cr_assert_eq(err, 0);
	cr_assert(rc.best.whole);
	return rc;
}

static void expect_same(const struct state *got, const struct state *wanted)
{
	cr_assert_eq(got->turn, wanted->turn);
	for (int i = 0; i < TIDS; i++) {
		cr_assert_eq(got->open[i], wanted->open[i], "turn %lu, %d", (unsigned long)got->turn, i);
		cr_assert_eq(got->units[i], wanted->units[i], "turn %lu, %d", (unsigned long)got->turn, i);
	}
}

/* With nothing on its way, all of it is there. */
static void expect_recovered(void)
{
	struct recovery rc = recover();
	expect_same(&rc.best.state, &state);
}

/* --- the order of waiting --------------------------------------------------------------------- */

Test(journal, a_new_one_holds_the_checkpoint)
{
	struct recovery rc = recover();
	cr_expect_eq(rc.files, 1);
	cr_expect_eq(rc.best.file_seq, FIRST_SEQ);
	cr_expect_eq(rc.best.file_bytes, 1 << 20, "preallocated");
	cr_expect_eq(rc.best.records, 0);
	cr_expect(journal_is_idle(j));
	cr_expect_eq(journal_error(j), 0);
	journal_flush(j);
	cr_expect_eq(ring_busy_count(w.ring), 0);
	journal_free(NULL);
}

Test(journal, written_comes_before_synced)
{
	struct waiter synced[2] = {0}, written[3] = {0};
	state.open[2] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 2};
	journal_append(j, &open);
	wait_for(&synced[0], JOURNAL_SYNCED);
	wait_for(&written[0], JOURNAL_WRITTEN);
	append_extent(2, 1, 4);
	wait_for(&written[1], JOURNAL_WRITTEN);
	wait_for(&synced[1], JOURNAL_SYNCED);
	wait_for(&written[2], JOURNAL_WRITTEN);
	cr_expect_not(journal_is_idle(j));
	ring_turn(w.ring, 0);
	cr_expect_eq(completions, 0, "nothing happens before flush");
	journal_flush(j);
	cr_expect_eq(completions, 0);
	settle();
	cr_expect_eq(completions, 5);
	for (uint32_t i = 0; i < 3; i++)
		cr_expect_eq(written[i].at, i + 1);
	for (uint32_t i = 0; i < 2; i++)
		cr_expect_eq(synced[i].at, i + 4);
	state.units[2] = 0xe;
	expect_recovered();
	cr_expect_eq(rt.stats.journal_batches, 1);
	cr_expect_eq(rt.stats.journal_records, 2);
}

/* Who waits with nothing appended waits for what is on its way, or for nothing. */
Test(journal, waiters_without_records)
{
	struct waiter a = {0}, b = {0}, c = {0};
	wait_for(&a, JOURNAL_WRITTEN);
	wait_for(&b, JOURNAL_SYNCED);
	cr_expect_not(journal_is_idle(j));
	journal_flush(j);
	cr_expect_eq(a.done_count, 1, "all is written already");
	cr_expect_eq(b.done_count, 1, "and synced");
	cr_expect_eq(rt.stats.journal_batches, 0);
	cr_expect_eq(rt.stats.journal_syncs, 0);
	state.open[1] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 1};
	journal_append(j, &open);
	journal_flush(j);
	wait_for(&c, JOURNAL_WRITTEN);
	journal_flush(j);
	cr_expect_eq(c.done_count, 0, "a batch is being written");
	settle();
	cr_expect_eq(c.done_count, 1);
	cr_expect_eq(rt.stats.journal_batches, 1);
	expect_recovered();
}

/* While one sync runs, all who want one are gathered for the next; when nothing was written since,
 * there is none. */
Test(journal, group_sync)
{
	struct waiter synced[40] = {0}, again = {0};
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	wait_for(&synced[0], JOURNAL_SYNCED);
	journal_flush(j);
	while (rt.stats.journal_syncs == 0) {
		ring_turn(w.ring, 100);
		journal_flush(j);
	}
	for (uint32_t i = 1; i < 40; i++) {
		append_extent(0, i, i + 1);
		wait_for(&synced[i], JOURNAL_SYNCED);
	}
	settle();
	cr_expect_eq(completions, 40);
	cr_expect_eq(rt.stats.journal_syncs, 2);
	wait_for(&again, JOURNAL_SYNCED);
	journal_flush(j);
	cr_expect_eq(again.done_count, 1);
	cr_expect_eq(rt.stats.journal_syncs, 2);
}

/* How far the last sync reached is said once, with what is written after it. */
Test(journal, syncs_are_marked)
{
	struct waiter synced[2] = {0};
	struct record open = {.type = RECORD_OPEN, .tid = 1};
	journal_append(j, &open);
	settle();
	cr_expect_eq(recover().best.marks, 0);
	append_extent(1, 0, 1);
	wait_for(&synced[0], JOURNAL_SYNCED);
	settle();
	cr_expect_eq(recover().best.marks, 0, "it goes with the next batch");
	uint64_t end = recover().best.used_bytes;
	append_extent(1, 2, 3);
	settle();
	append_extent(1, 4, 5);
	wait_for(&synced[1], JOURNAL_SYNCED);
	settle();
	cr_expect_eq(recover().best.marks, 1);
	cr_expect_eq(recover().best.marked_off, end);
	end = recover().best.used_bytes;
	append_extent(1, 6, 7);
	settle();
	cr_expect_eq(recover().best.marks, 2);
	cr_expect_eq(recover().best.marked_off, end);
}

/* While one batch is being written, all that comes is the next. */
Test(journal, group_commit)
{
	struct waiter waiters[20] = {0};
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	for (uint32_t i = 0; i < 20; i++) {
		append_extent(0, i * 3, i * 3 + 1);
		wait_for(&waiters[i], i % 2 ? JOURNAL_WRITTEN : JOURNAL_SYNCED);
		journal_flush(j);
	}
	cr_expect_eq(rt.stats.journal_batches, 1);
	settle();
	cr_expect_eq(completions, 20);
	cr_expect_eq(rt.stats.journal_batches, 2);
	cr_expect_eq(rt.stats.journal_records, 21);
	cr_expect_eq(recover().best.records, 21);
}

/* A run of bytes is one record, as long as it is in one batch. */
Test(journal, extents_that_follow_each_other_are_one_record)
{
	struct record open = {.type = RECORD_OPEN, .tid = 4};
	state.open[4] = true;
	journal_append(j, &open);
	for (uint32_t i = 10; i < 20; i++)
		append_extent(4, i, i + 1);
	cr_expect_eq(recover().best.records, 0);
	journal_flush(j);
	append_extent(4, 20, 21); /* the batch before is the kernel's */
	append_extent(4, 22, 23);
	settle();
	cr_expect_eq(recover().best.records, 4);
	state.units[4] = 0x5ffc00;
	expect_recovered();
}

static struct waiter next_waiter;

static void wait_once_more(struct journal_waiter *waiter, int err)
{
	on_waited(waiter, err);
	append_extent(0, completions, completions + 1);
	wait_for(&next_waiter, JOURNAL_SYNCED);
}

Test(journal, done_may_append_and_wait)
{
	struct waiter first = {0};
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	first.w.done = wait_once_more;
	journal_wait(j, &first.w, JOURNAL_WRITTEN);
	settle();
	cr_expect_eq(first.done_count, 1);
	cr_expect_eq(next_waiter.done_count, 1);
	cr_expect_eq(recover().best.state.units[0], 2);
}

/* A waiter that is called by journal_flush itself appends: the same flush takes that on its way,
 * for nothing else may come in whose turn would. */
Test(journal, what_a_flush_makes_append_is_flushed)
{
	struct waiter first = {0};
	first.w.done = wait_once_more;
	journal_wait(j, &first.w, JOURNAL_WRITTEN);
	journal_flush(j);
	cr_expect_eq(first.done_count, 1);
	cr_expect_eq(ring_busy_count(w.ring), 1, "the batch is being written");
	settle();
	cr_expect_eq(next_waiter.done_count, 1);
}

/* A batch larger than the file ends in a checkpoint; a checkpoint larger than the file, in a larger
 * file. */
Test(journal, batches_and_checkpoints_of_any_size)
{
	struct waiter waiter = {0};
	big_text_bytes = 400000;
	big_text = calloc(1, big_text_bytes);
	struct record meta = {.type = RECORD_META, .tid = 99, .text = big_text, .text_bytes = big_text_bytes};
	for (int i = 0; i < 2; i++)
		journal_append(j, &meta);
	wait_for(&waiter, JOURNAL_SYNCED);
	settle();
	cr_expect_eq(waiter.done_count, 1);
	cr_expect_eq(recover().best.records, 2);
	journal_append(j, &meta);
	settle();
	cr_expect_eq(recover().best.file_seq, FIRST_SEQ + 1);
	cr_expect_eq(recover().best.records, 0);
	for (int i = 0; i < 5; i++)
		journal_append(j, &meta);
	settle();
	cr_expect_eq(recover().best.file_seq, FIRST_SEQ + 2);
	cr_expect_eq(recover().best.file_bytes, 1 << 20);
	conf.io.journal_bytes = 4096;
	for (int i = 0; i < 5; i++)
		journal_append(j, &meta);
	settle();
	cr_expect_eq(recover().best.file_seq, FIRST_SEQ + 3);
	cr_expect_eq(recover().best.file_bytes, 1 << 20, "twice the checkpoint at least");
	cr_expect_eq(recover().files, 1);
	free(big_text);
}

/* --- rotation --------------------------------------------------------------------------------- */

static struct state history[TURNS_MAX];
static uint64_t acknowledged;

static uint32_t rnd(uint32_t below)
{
	static uint64_t seed = 11;
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

static void check_recovery(void)
{
	struct state got = recover().best.state;
	cr_assert_geq(got.turn, acknowledged, "acknowledged, but not there");
	cr_assert_leq(got.turn, state.turn);
	expect_same(&got, &history[got.turn]);
}

static void on_acknowledged(struct journal_waiter *waiter, int err)
{
	struct waiter *x = (struct waiter *)waiter;
	on_waited(waiter, err);
	cr_assert_eq(err, 0);
	if (x->turn > acknowledged)
		acknowledged = x->turn;
	if (rnd(20) == 0)
		check_recovery();
}

/* One turn of a reactor: the state changes, and with it the journal. */
static void change_state(void)
{
	for (uint32_t n = rnd(4); n > 0; n--) {
		uint32_t tid = rnd(TIDS), from = rnd(UNITS), to = from + rnd(UNITS - from) / 4 + 1;
		struct record r = {.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to};
		if (!state.open[tid])
			r = (struct record){.type = RECORD_OPEN, .tid = tid};
		else if (rnd(12) == 0)
			r = (struct record){.type = RECORD_ABORTED, .tid = tid};
		apply(&state, &r);
		journal_append(j, &r);
	}
	struct record turn = {.type = RECORD_RESERVE, .tid = TIDS, .size = ++state.turn};
	journal_append(j, &turn);
	history[state.turn] = state;
}

Test(journal_small, what_recovery_reads_is_a_state_that_was)
{
	enum { TURNS = 2500 };
	static struct waiter waiters[TURNS + 1];
	uint32_t waiting = 0;
	for (uint32_t i = 1; i <= TURNS; i++) {
		change_state();
		if (rnd(3)) {
			waiters[i] = (struct waiter){.w.done = on_acknowledged, .turn = state.turn};
			journal_wait(j, &waiters[i].w, rnd(4) ? JOURNAL_WRITTEN : JOURNAL_SYNCED);
			waiting++;
		}
		journal_flush(j);
		ring_turn(w.ring, rnd(3) == 0);
		if (rnd(10) == 0)
			check_recovery(); /* in whatever state the journal is, also while it rotates */
	}
	settle();
	cr_expect_eq(completions, waiting, "each once");
	for (uint32_t i = 1; i <= TURNS; i++)
		cr_expect_leq(waiters[i].done_count, 1);
	struct recovery rc = recover();
	expect_same(&rc.best.state, &state);
	cr_expect_eq(rc.files, 1, "the old ones are gone");
	cr_expect_geq(rc.best.file_seq, FIRST_SEQ + 10);
}

/* Fills the file up until room is left for so many more small records. */
static void fill_file(uint32_t left)
{
	struct record meta = {.type = RECORD_META, .tid = 98, .text = "0123456789", .text_bytes = 10};
	struct recovery rc = recover();
	while (rc.best.file_bytes - rc.best.used_bytes >= (left + 1) * record_size(&meta)) {
		journal_append(j, &meta);
		settle();
		rc = recover();
	}
	cr_assert_gt(rc.best.records, 10);
}

Test(journal_small, rotation_drops_the_batch_and_keeps_its_waiters)
{
	struct waiter written = {0}, synced = {0}, late = {0}, late_synced = {0};
	struct record open = {.type = RECORD_OPEN, .tid = 6};
	fill_file(0);
	uint64_t batches = rt.stats.journal_batches;
	apply(&state, &open);
	journal_append(j, &open);
	wait_for(&synced, JOURNAL_SYNCED);
	wait_for(&written, JOURNAL_WRITTEN);
	journal_flush(j);
	cr_expect_eq(ring_busy_count(w.ring), 1, "the rotation alone");
	cr_expect_eq(rt.stats.journal_batches, batches);
	/* What comes now is not in the checkpoint: it follows it in the new file. */
	append_extent(6, 3, 5);
	append_extent(6, 5, 6);
	append_extent(6, 9, 10);
	wait_for(&late, JOURNAL_WRITTEN);
	wait_for(&late_synced, JOURNAL_SYNCED);
	journal_flush(j);
	while (written.done_count == 0 || synced.done_count == 0) {
		cr_expect_eq(late.done_count, 0);
		ring_turn(w.ring, 100);
	}
	cr_expect_eq(recover().best.file_seq, FIRST_SEQ + 1);
	cr_expect_eq(recover().best.records, 0);
	cr_expect(recover().best.state.open[6], "the dropped record is in the checkpoint");
	settle();
	cr_expect_eq(late.at, 3);
	cr_expect_eq(late_synced.at, 4);
	cr_expect_eq(recover().best.records, 2);
	cr_expect_eq(recover().best.state.units[6], 0x238);
	cr_expect_eq(recover().files, 1);
}

/* A sync works on the old file: it ends before the file may be closed, or is left to the new
 * one. */
Test(journal_small, no_sync_beside_a_rotation)
{
	struct waiter synced[3] = {0};
	state.open[0] = true;
	struct record open = {.type = RECORD_OPEN, .tid = 0};
	journal_append(j, &open);
	fill_file(2);
	append_extent(0, 1, 2);
	wait_for(&synced[0], JOURNAL_SYNCED);
	journal_flush(j);
	while (ring_busy_count(w.ring) > 0)
		ring_turn(w.ring, 100);
	journal_flush(j);
	cr_expect_eq(ring_busy_count(w.ring), 1, "the sync");
	append_extent(0, 11, 12);
	append_extent(0, 14, 15);
	journal_flush(j);
	cr_expect_eq(ring_busy_count(w.ring), 1, "no rotation beside it");
	settle();
	cr_expect_eq(synced[0].done_count, 1);
	cr_expect_eq(recover().best.file_seq, FIRST_SEQ + 1);
	/* Now the sync is due, but has not begun. */
	fill_file(2);
	append_extent(0, 21, 22);
	wait_for(&synced[1], JOURNAL_SYNCED);
	journal_flush(j);
	while (ring_busy_count(w.ring) > 0)
		ring_turn(w.ring, 100);
	append_extent(0, 31, 32);
	append_extent(0, 34, 35);
	wait_for(&synced[2], JOURNAL_SYNCED);
	journal_flush(j);
	cr_expect_eq(ring_busy_count(w.ring), 1, "the rotation alone");
	cr_expect_eq(synced[1].done_count, 0);
	settle();
	cr_expect_eq(synced[1].done_count, 1);
	cr_expect_eq(synced[2].done_count, 1);
	cr_expect_eq(synced[1].err, 0);
	cr_expect_eq(recover().best.file_seq, FIRST_SEQ + 2);
}

/* --- failures --------------------------------------------------------------------------------- */

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
