/*
 * The states of the hash that a journal keeps, one for every MIDSTATE_BYTES: after a restart hashing goes on from the
 * last one that belongs to content which is there, and from no other.
 */
#include "recover_craft.h"

enum { MID = MIDSTATE_BYTES, TAIL = 1000 };

static uint32_t mids[2][8]; /* of zeros */
static uint8_t digest[32];  /* of 2 · MID + TAIL zeros */

static void hash_zeros(void)
{
	static const uint8_t zeros[1 << 20];
	struct sha256 s;
	sha256_init(&s);
	for (int i = 0; i < 2; i++) {
		for (uint64_t at = 0; at < MID; at += sizeof(zeros))
			sha256_update(&s, zeros, sizeof(zeros));
		memcpy(mids[i], s.h, sizeof(mids[i]));
	}
	sha256_update(&s, zeros, TAIL);
	sha256_digest(&s, digest);
}

static void put_mid(uint64_t frontier, const uint32_t h[8])
{
	struct record r = {.type = RECORD_MIDSTATE, .tid = 1, .frontier = frontier};
	memcpy(r.h, h, sizeof(r.h));
	put(r);
}

/* A sparse file, of which so much is covered, and both states. */
static void craft_zeros(struct bench *b, uint64_t file_bytes)
{
	char path[512];
	craft(b);
	b->conf.verify.step_bytes = 1 << 30; /* nothing is hashed before a fin */
	make_file(b, "staging/e1-x", "", 0);
	in_data(b, "staging/e1-x", path);
	cr_assert_eq(truncate(path, (off_t)file_bytes), 0);
	put_open(1, 1, "e1-x");
	put_meta(1, "{\"name\":\"a\"}");
	put_extent(1, 0, 2 * MID + TAIL);
	put_mid(MID, mids[0]);
	put_mid(2 * MID, mids[1]);
}

static void expect_hashed(const struct bench *b, uint32_t mids_count, const char *what)
{
	const struct transfer *t = transfer_find(b->rt.uploads, &ID);
	cr_assert_not_null(t);
	cr_assert_eq(t->mids_count, mids_count, "%s: %u states", what, t->mids_count);
	cr_assert_eq(t->frontier, mids_count * (uint64_t)MID, "%s: from %lu", what, (unsigned long)t->frontier);
	for (uint32_t i = 0; i < mids_count; i++)
		cr_assert_arr_eq(t->mids[i], mids[i], sizeof(mids[i]));
}

/* Only the tail is hashed at the fin, also after another restart, which reads them from a checkpoint. */
Test(recover_midstates, hashing_goes_on, .timeout = 60)
{
	struct bench b;
	hash_zeros();
	craft_zeros(&b, 2 * MID + TAIL);
	make_set(&b, "set-000000000001", true);
	for (int i = 0; i < 2; i++) {
		bench_up(&b);
		expect_hashed(&b, 2, "all is there");
		if (i == 0)
			bench_down(&b);
	}
	assert_ok(do_fin(&b, 2 * MID + TAIL, digest));
	cr_assert_eq(atomic_load(&b.rt.stats.hashed_bytes), TAIL);
	bench_fini(&b);
}

/* What is written over after a restart is hashed again, from the state below it. */
Test(recover_midstates, content_that_is_written_over, .timeout = 60)
{
	static const uint8_t change[3] = "abc", zeros[3];
	struct bench b;
	hash_zeros();
	craft_zeros(&b, 2 * MID + TAIL);
	make_set(&b, "set-000000000001", true);
	bench_up(&b);
	assert_ok(do_small(&b, MID + 5, change, sizeof(change)));
	expect_hashed(&b, 1, "written over");
	bench_restart(&b);
	expect_hashed(&b, 1, "and restarted");
	assert_fails(do_fin(&b, 2 * MID + TAIL, digest), 0x80, "checksum_mismatch");
	assert_ok(do_small(&b, MID + 5, zeros, sizeof(zeros)));
	assert_ok(do_fin(&b, 2 * MID + TAIL, digest));
	bench_fini(&b);
}

enum change { NOTHING, UNCOVERED, UNCOVERED_HIGH, LOST_NONE_SYNCED, LOST_ONE_SYNCED, REPEATED, CHANGES };

static void put_change(enum change change)
{
	static const uint32_t other[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	switch (change) {
	case NOTHING:
	case CHANGES:
		return;
	case UNCOVERED:
		put((struct record){.type = RECORD_UNCOVER, .tid = 1, .from = MID - 1, .to = MID});
		put_extent(1, MID - 1, MID); /* with other bytes */
		return;
	case UNCOVERED_HIGH:
		put((struct record){.type = RECORD_UNCOVER, .tid = 1, .from = MID, .to = MID + 1});
		return;
	case LOST_ONE_SYNCED:
		put_synced(1, 0, 2 * MID - 1);
		put((struct record){.type = RECORD_LOST, .tid = 1});
		put_extent(1, 2 * MID - 1, 2 * MID + TAIL); /* received again, with other bytes */
		return;
	case LOST_NONE_SYNCED:
		put_synced(1, 1, 2 * MID);
		put((struct record){.type = RECORD_LOST, .tid = 1});
		put_extent(1, 0, 1);
		return;
	case REPEATED: /* the later one counts; one that follows nothing does not */
		put_mid(MID, other);
		put_mid(MID, mids[0]);
		put_mid(MID + 64, other);
		put_mid(4 * MID, other);
		return;
	}
}

/* A state counts as long as all that it stands for is there, and the same. */
Test(recover_midstates, states_of_content_that_is_gone, .timeout = 60)
{
	static const struct {
		const char *what;
		enum change change;
		uint64_t file_bytes;
		bool cache_alive;
		uint32_t mids_count;
	} rows[] = {
		{"taken out below the first", UNCOVERED, 2 * MID + TAIL, true, 0},
		{"taken out behind the first", UNCOVERED_HIGH, 2 * MID + TAIL, true, 1},
		{"lost but for what the first stands for", LOST_ONE_SYNCED, 2 * MID + TAIL, true, 1},
		{"lost but for what begins later", LOST_NONE_SYNCED, 2 * MID + TAIL, true, 0},
		{"written twice", REPEATED, 2 * MID + TAIL, true, 2},
		{"cut off", NOTHING, 2 * MID - 1, true, 1},
		{"cut off at its end", NOTHING, 2 * MID, true, 2},
		{"cut off below the first", NOTHING, MID - 1, true, 0},
		{"never synced", NOTHING, 2 * MID + TAIL, false, 0},
	};
	hash_zeros();
	for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
		struct bench b;
		craft_zeros(&b, rows[i].file_bytes);
		put_change(rows[i].change);
		make_set(&b, "set-000000000001", rows[i].cache_alive);
		bench_up(&b);
		expect_hashed(&b, rows[i].mids_count, rows[i].what);
		bench_fini(&b);
	}
}
