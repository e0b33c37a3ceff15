/*
 * daemon/journal.c: who waits for what, groups, rotation.
 */
#include "journal_world.h"

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

enum { CHANGES_MAX = 3 };

static struct state history[TURNS_MAX];
static struct {
	struct record records[CHANGES_MAX];
	uint32_t count;
} changes[TURNS_MAX + 1]; /* that a turn begins with */
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
	struct state was = history[got.turn];
	/* Of a batch that is being written the beginning may be there: of the next turn a part. */
	for (uint32_t n = 0; n < changes[got.turn + 1].count && !is_same(&got, &was); n++)
		apply(&was, &changes[got.turn + 1].records[n]);
	expect_same(&got, &was);
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
	uint64_t turn_begun = state.turn + 1;
	for (uint32_t n = rnd(CHANGES_MAX + 1); n > 0; n--) {
		uint32_t tid = rnd(TIDS), from = rnd(UNITS), to = from + rnd(UNITS - from) / 4 + 1;
		struct record r = {.type = RECORD_EXTENT, .tid = tid, .from = from, .to = to};
		if (!state.open[tid])
			r = (struct record){.type = RECORD_OPEN, .tid = tid};
		else if (rnd(12) == 0)
			r = (struct record){.type = RECORD_ABORTED, .tid = tid};
		apply(&state, &r);
		journal_append(j, &r);
		changes[turn_begun].records[changes[turn_begun].count++] = r;
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
