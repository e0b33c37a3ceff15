/*
 * daemon/chain.c: large segments with checksums, many under way at once. The ordinary hash jobs are
 * put out of action by a step that is never reached, so where the frontier stands says how far the
 * segments have taken the digest; fin compares it, and the exported bytes are compared, too.
 */
#include "upload_commands.h"

#include "segment.h"

enum { SEG_BYTES = 96 * 1024, SEGS = 12, FILE_BYTES = SEGS * SEG_BYTES };

struct sent {
	struct caught caught;
	struct seg *seg;
	int fds[2];
	bool resumed;
};

static struct bench b;
static uint8_t *data;
static struct sent sent[64];
static uint32_t sent_count;

static void set_up(void)
{
	bench_prepare(&b, "/tmp");
	b.conf.verify.step_bytes = 1 << 30;
	bench_up(&b);
	data = noise(FILE_BYTES, 5);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
}

static void tear_down(void)
{
	free(data);
	bench_fini(&b);
}

TestSuite(chain, .init = set_up, .fini = tear_down);

/* All of the payload is taken from the socket; what follows from that goes on meanwhile. */
static void pull_all(struct sent *e, const uint8_t *payload, uint32_t bytes)
{
	uint32_t put = 0;
	for (int i = 0; i < 100000; i++) {
		ssize_t n = put < bytes ? write(e->fds[1], payload + put, bytes - put) : 0;
		put += n > 0 ? (uint32_t)n : 0;
		enum ingest_pull p = ingest_pull(e->seg, e->fds[0], UINT32_MAX);
		ingest_flush(b.rt.uploads);
		if (p == INGEST_DONE)
			break;
		cr_assert_neq(p, INGEST_EOF);
		for (int k = 0; p == INGEST_WAIT && !e->resumed; k++) {
			cr_assert_lt(k, 2000, "never resumed");
			turn(&b);
		}
		e->resumed = false;
	}
	close(e->fds[0]);
	close(e->fds[1]);
}

/* Begins a segment with the checksum of what should be there; payload is what is sent. */
static struct sent *begin(uint64_t off, uint32_t bytes, const uint8_t *payload, bool is_power)
{
	struct sent *e = &sent[sent_count++];
	struct filecmd cmd = segment_cmd(off);
	cmd.has_checksum = true;
	digest_of(data + off, bytes, cmd.checksum);
	e->resumed = false;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, e->fds), 0);
	struct buf *buf = bufs_take(b.rt.bufs);
	struct reply *rp = reply_for(&e->caught);
	rp->is_power = is_power;
	e->seg = ingest_begin(b.rt.uploads, &ID, &cmd, bytes, buf, buf->data, 0, rp, note_resume,
		&e->resumed);
	buf_unref(buf);
	cr_assert_not_null(e->seg);
	pull_all(e, payload, bytes);
	return e;
}

static struct sent *send_seg(uint32_t idx)
{
	uint64_t off = (uint64_t)idx * SEG_BYTES;
	return begin(off, SEG_BYTES, data + off, false);
}

static struct sent *send_wrong(uint32_t idx)
{
	return begin((uint64_t)idx * SEG_BYTES, SEG_BYTES, data, false);
}

/* Until all bytes are in the file: pipes drain in any order, and what is tested needs a certain one. */
static struct sent *received(struct sent *e)
{
	for (int i = 0; !e->caught.done && !e->seg->received; i++) {
		cr_assert_lt(i, 2000, "never received");
		turn(&b);
	}
	return e;
}

static void all_are_right(void)
{
	settle(&b);
	for (uint32_t i = 0; i < sent_count; i++) {
		cr_assert(sent[i].caught.done);
		assert_ok(sent[i].caught);
	}
}

static void expect_frontier(uint32_t segs)
{
	const struct transfer *t = transfer_find(b.rt.uploads, &ID);
	cr_assert_not_null(t);
	cr_expect_eq(t->frontier, (uint64_t)segs * SEG_BYTES, "at %llu",
		(unsigned long long)t->frontier / SEG_BYTES);
	cr_expect_eq(t->hasher->hash.bytes, t->frontier);
	cr_expect_eq(t->hashing, 0);
	cr_expect_null(t->chain);
}

static void fin_is_right(void)
{
	uint8_t digest[32];
	digest_of(data, FILE_BYTES, digest);
	assert_ok(do_fin(&b, FILE_BYTES, digest));
	assert_file(&b, "cam/f1/a", data, FILE_BYTES);
}

Test(chain, in_order_the_digest_keeps_up)
{
	for (uint32_t i = 0; i < SEGS; i++)
		received(send_seg(i));
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

/* As fast as they come; some become whole before those in front of them. */
Test(chain, in_order_all_at_once)
{
	for (uint32_t i = 0; i < SEGS - 1; i++)
		send_seg(i);
	all_are_right();
	send_seg(SEGS - 1);
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

/* Segments count only when they are synced; those behind them do not wait for that. */
Test(chain, with_durability_power)
{
	for (uint32_t i = 0; i < SEGS; i++)
		begin((uint64_t)i * SEG_BYTES, SEG_BYTES, data + (size_t)i * SEG_BYTES, i % 5 != 1);
	all_are_right();
	const struct transfer *t = transfer_find(b.rt.uploads, &ID);
	cr_expect_geq(t->frontier, SEG_BYTES);
	fin_is_right();
}

/* The one that is wrong holds the frontier; what was fed to the digest behind it is forgotten. When
 * it has come again, the next one takes up what lies between. */
Test(chain, a_mismatch_in_the_middle)
{
	for (uint32_t i = 0; i < 3; i++)
		received(send_seg(i));
	const struct sent *wrong = received(send_wrong(3));
	for (uint32_t i = 4; i < SEGS - 1; i++)
		send_seg(i);
	settle(&b);
	for (uint32_t i = 0; i < sent_count; i++) {
		cr_assert(sent[i].caught.done);
		if (&sent[i] == wrong)
			assert_fails(sent[i].caught, 0x80, "checksum_mismatch");
		else
			assert_ok(sent[i].caught);
	}
	expect_frontier(3);

	sent_count = 0;
	send_seg(3);
	all_are_right();
	expect_frontier(4);
	send_seg(SEGS - 1);
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

/* Wrong and right ones of the same range in one go, again and again: no digest may remember the
 * bytes that did not count. */
Test(chain, mismatches_and_their_repetitions_at_once)
{
	for (uint32_t round = 0; round < 3; round++) {
		uint32_t first = round * 4;
		send_seg(first);
		send_wrong(first + 1);
		send_seg(first + 2);
		send_wrong(first + 3);
		send_seg(first + 1);
		send_wrong(first + 2);
		send_seg(first + 3);
	}
	settle(&b);
	for (uint32_t i = 0; i < sent_count; i++)
		cr_assert(sent[i].caught.done);
	fin_is_right();
}

/* The one behind the wrong one waits for its sync, and counts when the right one has been hashed: by
 * its frontier alone it might be taken for one that may take the digest along. */
Test(chain, a_repetition_overtakes_a_sync)
{
	b.conf.verify.step_bytes = 4096;
	for (uint32_t i = 0; i < SEGS; i += 3) {
		for (uint32_t k = i; k < i + 3; k++)
			begin((uint64_t)k * SEG_BYTES, SEG_BYTES,
				k == i + 1 ? data : data + (size_t)k * SEG_BYTES, true);
		received(send_seg(i + 1));
	}
	settle(&b);
	for (uint32_t i = 0; i < sent_count; i++)
		cr_assert(sent[i].caught.done);
	fin_is_right();
}

Test(chain, out_of_order)
{
	static const uint8_t order[SEGS] = {1, 0, 3, 2, 6, 5, 4, 7, 11, 10, 9, 8};
	for (uint32_t i = 0; i < SEGS; i++)
		send_seg(order[i]);
	all_are_right();
	fin_is_right();
}

/* What came out of order is a gap in front of the next segment that follows it. */
Test(chain, gaps_are_taken_along)
{
	send_seg(1);
	send_seg(2);
	all_are_right();
	expect_frontier(0);
	send_seg(0);
	all_are_right();
	expect_frontier(1);
	received(send_seg(3));
	send_seg(4);
	all_are_right();
	expect_frontier(5);
	for (uint32_t i = 5; i < SEGS; i++)
		received(send_seg(i));
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

Test(chain, without_checksums_between)
{
	for (uint32_t i = 0; i < SEGS; i++) {
		if (i % 3 == 1)
			assert_ok(do_small(&b, (uint64_t)i * SEG_BYTES, data + (size_t)i * SEG_BYTES,
				SEG_BYTES));
		else
			received(send_seg(i));
	}
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

Test(chain, duplicates)
{
	for (uint32_t i = 0; i < SEGS; i++) {
		received(send_seg(i));
		send_seg(i);
		if (i > 2)
			send_seg(i - 2);
	}
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

/* Bytes below the frontier change while segments above it are under way. */
Test(chain, content_is_replaced_below)
{
	for (uint32_t i = 0; i < 6; i++)
		send_seg(i);
	for (uint32_t i = 0; i < SEG_BYTES; i++)
		data[SEG_BYTES + i] ^= 0x55;
	send_seg(1);
	for (uint32_t i = 6; i < SEGS; i++)
		send_seg(i);
	all_are_right();
	fin_is_right();
}

Test(chain, abort_while_it_runs)
{
	struct caught aborted, again;
	for (uint32_t i = 0; i < SEGS; i++)
		send_seg(i);
	upload_abort(b.rt.uploads, &ID, reply_for(&aborted));
	settle(&b);
	cr_assert(aborted.done);
	assert_ok(aborted);
	for (uint32_t i = 0; i < sent_count; i++)
		cr_assert(sent[i].caught.done);
	cr_expect_null(transfer_find(b.rt.uploads, &ID));
	cr_expect_eq(staging_count(&b), 0);

	again = do_init(&b, "{\"name\":\"a\"}");
	assert_ok(again);
	sent_count = 0;
	for (uint32_t i = 0; i < SEGS; i++)
		send_seg(i);
	all_are_right();
	fin_is_right();
}

/* The file can be written, but not read: what is checked now fails, and may come again. */
Test(chain, reading_back_fails)
{
	for (uint32_t i = 0; i < 4; i++)
		received(send_seg(i));
	all_are_right();
	struct transfer *t = transfer_find(b.rt.uploads, &ID);
	char path[64];
	int whole = dup(t->fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", whole);
	int blind = open(path, O_WRONLY);
	cr_assert_geq(blind, 0);
	cr_assert_eq(dup2(blind, t->fd), t->fd);
	sent_count = 0;
	for (uint32_t i = 4; i < SEGS; i++)
		received(send_seg(i));
	settle(&b);
	for (uint32_t i = 0; i < sent_count; i++) {
		cr_assert(sent[i].caught.done);
		assert_fails(sent[i].caught, 0x80, "io_error");
	}
	expect_frontier(4);

	cr_assert_eq(dup2(whole, t->fd), t->fd);
	close(whole);
	close(blind);
	sent_count = 0;
	for (uint32_t i = 4; i < SEGS; i++)
		received(send_seg(i));
	all_are_right();
	expect_frontier(SEGS);
	fin_is_right();
}

/* A midstate is kept at its boundary although no segment ends there. */
Test(chain, a_midstate_inside_a_segment)
{
	enum { EACH = 3 << 20, COUNT = 24 };
	uint8_t digest[32], *small = data;
	b.conf.verify.step_bytes = 4096;
	data = noise(EACH * COUNT, 6);
	for (uint32_t i = 0; i < COUNT; i++)
		begin((uint64_t)i * EACH, EACH, data + (size_t)i * EACH, false);
	all_are_right();
	const struct transfer *t = transfer_find(b.rt.uploads, &ID);
	cr_expect_eq(t->mids_count, 1);
	digest_of(data, EACH * COUNT, digest);
	assert_ok(do_fin(&b, EACH * COUNT, digest));
	free(data);
	data = small;
}
