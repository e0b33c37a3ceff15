/*
 * Transfers, one command at a time. What commands do to each other that are not waited for is
 * test_upload_model.c's.
 */
#include <netinet/in.h>
#include <sys/socket.h>
#include "upload_commands.h"

static struct caught small;
static int gates_opened;

static void note_gate(struct upload_gate *g)
{
	(void)g;
	gates_opened++;
}

/* Answered into `small`. */
static void begin_small(struct bench *b, uint64_t off, const void *data, uint32_t bytes)
{
	struct filecmd cmd = segment_cmd(off);
	struct buf *buf = bufs_take(b->rt.bufs);
	memcpy(buf->data, data, bytes);
	ingest_small(b->rt.uploads, &ID, &cmd, buf, buf->data, bytes, reply_for(&small));
	ingest_flush(b->rt.uploads);
	buf_unref(buf);
}

Test(upload, small_segments_are_exported)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a.txt\",\"size\":11}"));
	assert_ok(do_small(&b, 6, "world", 5));
	assert_ok(do_small(&b, 0, "hello ", 6));
	assert_ok(do_fin(&b, 11, NULL));
	assert_file(&b, "cam/f1/a.txt", (const uint8_t *)"hello world", 11);
	cr_assert_eq(staging_count(&b), 0);
	cr_assert_str_eq(do_status(&b).o.state, "exported");
	bench_fini(&b);
}

/* What is acknowledged is never taken out of coverage by a repetition that reaches beyond it. */
Test(upload, partial_repetition)
{
	struct bench b;
	bench_init(&b);
	uint8_t *data = noise(300000, 1), *other = noise(1000, 2);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_small(&b, 1000, data + 1000, 1000));
	assert_ok(do_small(&b, 5000, data + 5000, 1000));
	struct transfer *t = transfer_find(b.rt.uploads, &ID);
	uint32_t gen = t->content_gen;
	assert_ok(do_small(&b, 1500, data + 1500, 1000));
	assert_ok(do_small(&b, 0, data, 7000)); /* over two of them */
	assert_ok(do_large(&b, 6500, data + 6500, 293500, 100, NULL));
	cr_expect_eq(t->content_gen, gen);
	assert_ok(do_small(&b, 299500, other, 1000));
	cr_expect_gt(t->content_gen, gen, "other bytes do take out");
	memcpy(data + 299500, other, 500);
	assert_ok(do_fin(&b, 300000, NULL));
	assert_file(&b, "cam/f1/a", data, 300000);
	free(data);
	free(other);
	bench_fini(&b);
}

Test(upload, empty_file)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"empty\"}"));
	assert_ok(do_fin(&b, 0, NULL));
	assert_file(&b, "cam/f1/empty", (const uint8_t *)"", 0);
	bench_fini(&b);
}

Test(upload, large_segments_with_prefix_and_checksum)
{
	struct bench b;
	bench_init(&b);
	enum { N = 3000000 };
	uint8_t *data = noise(N, 1), sum[32], digest[32];
	digest_of(data + 1000000, 2000000, sum);
	digest_of(data, N, digest);
	assert_ok(do_init(&b, "{\"name\":\"big\",\"size\":3000000}"));
	assert_ok(do_large(&b, 1000000, data + 1000000, 2000000, 4000, sum));
	assert_ok(do_large(&b, 0, data, 1000000, 0, NULL));
	sum[0] ^= 1;
	assert_fails(do_large(&b, 0, data, 1000000, 10, sum), 0x80, "checksum_mismatch");
	digest[0] ^= 1;
	assert_fails(do_fin(&b, N, digest), 0x80, "checksum_mismatch");
	digest[0] ^= 1;
	assert_ok(do_fin(&b, N, digest));
	assert_file(&b, "cam/f1/big", data, N);
	cr_assert_eq(staging_count(&b), 0);
	free(data);
	bench_fini(&b);
}

Test(upload, incomplete_names_what_is_missing)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_small(&b, 2, "xx", 2));
	struct caught c = do_fin(&b, 6, NULL);
	assert_fails(c, 0x80, "incomplete");
	cr_assert_eq(c.o.missing_count, 2);
	cr_assert_eq(c.o.missing_bytes, 4);
	cr_assert_eq(c.o.missing[1].from, 4);
	assert_ok(do_small(&b, 0, "ab", 2));
	assert_ok(do_small(&b, 4, "yz", 2));
	assert_ok(do_fin(&b, 6, NULL));
	assert_file(&b, "cam/f1/a", (const uint8_t *)"abxxyz", 6);
	bench_fini(&b);
}

Test(upload, last_write_wins)
{
	struct bench b;
	bench_init(&b);
	uint8_t *data = noise(200000, 3), *other = noise(200000, 4), digest[32];
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_large(&b, 0, data, 200000, 0, NULL));
	assert_ok(do_large(&b, 0, data, 200000, 77, NULL)); /* equal */
	memcpy(data + 50000, other, 100000);
	assert_ok(do_large(&b, 50000, other, 100000, 500, NULL)); /* differs */
	memcpy(data + 10, "changed", 7);
	assert_ok(do_small(&b, 10, "changed", 7));
	memcpy(data + 199000, other, 1000);
	assert_ok(do_large(&b, 150000, data + 150000, 50000, 0, NULL));
	digest_of(data, 200000, digest);
	assert_ok(do_fin(&b, 200000, digest));
	assert_file(&b, "cam/f1/a", data, 200000);
	cr_assert_eq(staging_count(&b), 0);
	free(data);
	free(other);
	bench_fini(&b);
}

static uint64_t frontier(struct bench *b)
{
	const struct transfer *t = transfer_find(b->rt.uploads, &ID);
	cr_assert_eq(t->hashing, 0);
	return t->frontier;
}

/* By the thread that writes it: a job for the verify pool begins at verify.step bytes, or with the
 * fin. */
Test(upload, a_whole_small_file_is_hashed_as_it_is_written)
{
	struct bench b;
	uint8_t digest[32];
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\",\"size\":5}"));
	assert_ok(do_small(&b, 0, "hello", 5));
	cr_assert_eq(frontier(&b), 5);
	/* Something else in its place, and then no longer the whole. */
	assert_ok(do_small(&b, 0, "hallo", 5));
	cr_assert_eq(frontier(&b), 5);
	assert_ok(do_small(&b, 1, "u", 1));
	cr_assert_eq(frontier(&b), 0);
	digest_of((const uint8_t *)"hullo", 5, digest);
	assert_ok(do_fin(&b, 5, digest));
	assert_file(&b, "cam/f1/a", (const uint8_t *)"hullo", 5);
	bench_fini(&b);
}

/* The declared size is not the last word: a fin for less, and for more. */
Test(upload, what_was_hashed_as_a_whole_is_hashed_again_for_another_size)
{
	for (uint64_t size = 3; size <= 7; size += 4) {
		struct bench b;
		uint8_t digest[32];
		bench_init(&b);
		assert_ok(do_init(&b, "{\"name\":\"a\",\"size\":5}"));
		assert_ok(do_small(&b, 0, "hello", 5));
		assert_ok(do_small(&b, 5, "es", 2));
		cr_assert_eq(frontier(&b), 5);
		digest_of((const uint8_t *)"helloes", (uint32_t)size, digest);
		assert_ok(do_fin(&b, size, digest));
		assert_file(&b, "cam/f1/a", (const uint8_t *)"helloes", (uint32_t)size);
		bench_fini(&b);
	}
}

/* The blocks of a small file are taken when it is written back, those of a larger one at init. */
Test(upload, small_files_are_not_preallocated)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\",\"size\":65536}"));
	const struct transfer *t = transfer_find(b.rt.uploads, &ID);
	cr_assert_eq(t->fallocated, 0);
	cr_assert_eq(atomic_load(&b.rt.store->unallocated_bytes), 65536, "it is accounted for");
	assert_ok(do_abort(&b));
	assert_ok(do_init(&b, "{\"name\":\"a\",\"size\":65537}"));
	t = transfer_find(b.rt.uploads, &ID);
	cr_assert_eq(t->fallocated, 65537);
	cr_assert_eq(atomic_load(&b.rt.store->unallocated_bytes), 0);
	bench_fini(&b);
}

Test(upload, abort_forgets_all)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\",\"size\":100000}"));
	assert_ok(do_small(&b, 0, "abc", 3));
	assert_ok(do_abort(&b));
	assert_ok(do_abort(&b));
	cr_assert_eq(staging_count(&b), 0);
	assert_fails(do_fin(&b, 3, NULL), 0x80, "incomplete");
	cr_assert_str_eq(do_status(&b).o.state, "none");
	cr_assert_eq(atomic_load(&b.rt.store->staged_bytes), 0);
	cr_assert_eq(atomic_load(&b.rt.store->unallocated_bytes), 0);
	bench_fini(&b);
}

Test(upload, restart_keeps_what_was_acknowledged)
{
	struct bench b;
	bench_init(&b);
	uint8_t *data = noise(300000, 5), digest[32];
	digest_of(data, 300000, digest);
	assert_ok(do_init(&b, "{\"name\":\"a\",\"size\":300000}"));
	assert_ok(do_large(&b, 100000, data + 100000, 100000, 0, NULL));
	bench_restart(&b);
	struct caught c = do_status(&b);
	cr_assert_str_eq(c.o.state, "open");
	cr_assert_eq(c.o.received, 100000);
	cr_assert_eq(c.o.missing_count, 2);
	assert_ok(do_large(&b, 0, data, 100000, 0, NULL));
	assert_ok(do_large(&b, 200000, data + 200000, 100000, 0, NULL));
	assert_ok(do_fin(&b, 300000, digest));
	bench_restart(&b);
	cr_assert_str_eq(do_status(&b).o.state, "exported");
	assert_ok(do_fin(&b, 300000, digest));
	assert_fails(do_fin(&b, 299999, NULL), 0x80, "size_mismatch");
	assert_file(&b, "cam/f1/a", data, 300000);
	cr_assert_eq(staging_count(&b), 0);
	free(data);
	bench_fini(&b);
}

Test(upload, replays_and_generations)
{
	struct bench b;
	bench_init(&b);
	uint8_t *data = noise(300000, 6), digest[32];
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_large(&b, 0, data, 300000, 0, NULL));
	assert_ok(do_fin(&b, 300000, NULL));
	/* All of it again: nothing is stored. */
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_large(&b, 0, data, 150000, 5, NULL));
	assert_ok(do_large(&b, 150000, data + 150000, 150000, 0, NULL));
	cr_assert_eq(staging_count(&b), 0);
	assert_ok(do_fin(&b, 300000, NULL));
	/* Then the same with a changed end: the next generation is whole though its beginning was a
	 * replay. */
	assert_ok(do_large(&b, 0, data, 150000, 0, NULL));
	memcpy(data + 299000, "changed", 7);
	assert_ok(do_large(&b, 150000, data + 150000, 150000, 0, NULL));
	digest_of(data, 300000, digest);
	assert_ok(do_fin(&b, 300000, digest));
	assert_file(&b, "cam/f1~2/a", data, 300000);
	cr_assert_eq(staging_count(&b), 0);
	free(data);
	bench_fini(&b);
}

/* Acknowledged when the journal has it, not before: then a restart answers it. */
Test(upload, an_async_fin_is_acknowledged_once_it_is_recorded)
{
	struct bench b;
	struct caught fins[4];
	const uint64_t sizes[4] = {3, 3, 4, 3};
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_small(&b, 0, "abc", 3));
	begin_small(&b, 0, "xyz", 3); /* holds the first one up */
	for (int i = 0; i < 4; i++) {
		struct filecmd cmd = {.verb = FILECMD_FIN, .size = sizes[i], .is_async = true};
		struct reply *rp = reply_for(&fins[i]);
		rp->is_async = true;
		upload_fin(b.rt.uploads, &ID, &cmd, rp);
	}
	const struct transfer *t = transfer_find(b.rt.uploads, &ID);
	for (int k = 0; k < 5000 && !fins[0].acked; k++) {
		for (int i = 0; i < 4; i++)
			cr_assert(!fins[i].acked && !fins[i].done);
		turn(&b);
	}
	cr_expect(fins[0].acked && fins[1].acked && fins[3].acked);
	cr_expect(t->fin_recorded && !fins[0].done, "not at its end yet");
	cr_expect_not(fins[2].acked, "it asks for something else: known to no record");
	settle(&b);
	for (int i = 0; i < 4; i++) {
		cr_expect(fins[i].acked && fins[i].done);
		if (i == 2)
			assert_fails(fins[i], 0x80, "size_mismatch");
		else
			assert_ok(fins[i]);
	}
	assert_file(&b, "cam/f1/a", (const uint8_t *)"xyz", 3);
	bench_fini(&b);
}

/* An init with other metadata that is pipelined behind a fin is about what comes after it. */
Test(upload, an_init_waits_for_the_fin_before_it)
{
	static const char *const others[] = {"{\"name\":\"b\"}", "{\"name\":\"a\"}"};
	for (int same = 0; same < 2; same++) {
		for (int fails = 0; fails < 2; fails++) {
			struct bench b;
			struct caught fin, init;
			struct upload_gate g = {.resume = note_gate};
			bench_init(&b);
			assert_ok(do_init(&b, "{\"name\":\"a\"}"));
			assert_ok(do_small(&b, 0, "abc", 3));
			struct filecmd cmd = {.verb = FILECMD_FIN, .size = fails ? 4 : 3};
			gates_opened = 0;
			/* The segment that is being written holds the fin up. */
			begin_small(&b, 0, "xyz", 3);
			upload_fin(b.rt.uploads, &ID, &cmd, reply_for(&fin));
			cr_expect_eq(upload_init(b.rt.uploads, &ID, others[same], 12, reply_for(&init)), same);
			cr_expect_not(upload_gate_pass(b.rt.uploads, &ID, &g));
			settle(&b);
			cr_expect_eq(gates_opened, 1);
			cr_assert(fin.done && init.done && small.done);
			assert_ok(small);
			if (fails)
				assert_fails(fin, 0x80, "incomplete");
			else
				assert_ok(fin);
			if (fails && !same)
				assert_fails(init, 0x80, "filemeta_conflict");
			else
				assert_ok(init);
			assert_ok(do_small(&b, 0, "new!", 4));
			assert_ok(do_fin(&b, 4, NULL));
			if (!fails)
				assert_file(&b, "cam/f1/a", (const uint8_t *)"xyz", 3);
			assert_file(&b, fails ? "cam/f1/a" : same ? "cam/f1~2/a" : "cam/f1~2/b",
				(const uint8_t *)"new!", 4);
			bench_fini(&b);
		}
	}
}

/* A fin of the client's next connection does not overtake an init of the one before that still waits. */
Test(upload, a_fin_waits_for_the_init_before_it)
{
	for (int is_aborted = 0; is_aborted < 2; is_aborted++) {
		struct bench b;
		struct caught fins[2], init, abort;
		struct filecmd cmd = {.verb = FILECMD_FIN, .size = 4};
		bench_init(&b);
		assert_ok(do_init(&b, "{\"name\":\"a\"}"));
		begin_small(&b, 0, "xyz", 3); /* holds the first one up */
		upload_fin(b.rt.uploads, &ID, &cmd, reply_for(&fins[0]));
		cr_expect_not(upload_init(b.rt.uploads, &ID, "{\"name\":\"b\"}", 12, reply_for(&init)));
		cmd.size = 3;
		upload_fin(b.rt.uploads, &ID, &cmd, reply_for(&fins[1]));
		if (is_aborted)
			upload_abort(b.rt.uploads, &ID, reply_for(&abort));
		settle(&b);
		cr_assert(fins[0].done && init.done && fins[1].done);
		if (is_aborted) {
			assert_fails(fins[0], 0x80, "aborted");
			assert_ok(init);
			assert_fails(fins[1], 0x80, "aborted");
			assert_ok(abort);
		} else {
			assert_fails(fins[0], 0x80, "incomplete");
			assert_fails(init, 0x80, "filemeta_conflict");
			assert_ok(fins[1]);
			assert_file(&b, "cam/f1/a", (const uint8_t *)"xyz", 3);
		}
		bench_fini(&b);
	}
}

/* Whose metadata a generation has is known after a restart, too: that of the one before may be
 * replaced, its own not. */
Test(upload, metadata_taken_over_is_told_from_its_own_after_a_restart)
{
	struct bench b;
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_small(&b, 0, "abc", 3));
	assert_ok(do_fin(&b, 3, NULL));
	assert_ok(do_small(&b, 0, "new", 3));
	bench_restart(&b);
	assert_ok(do_init(&b, "{\"name\":\"b\"}"));
	bench_restart(&b);
	assert_fails(do_init(&b, "{\"name\":\"a\"}"), 0x80, "filemeta_conflict");
	assert_fails(do_init(&b, "{\"name\":\"c\"}"), 0x80, "filemeta_conflict");
	assert_ok(do_init(&b, "{\"name\":\"b\"}"));
	assert_ok(do_fin(&b, 3, NULL));
	assert_file(&b, "cam/f1~2/b", (const uint8_t *)"new", 3);
	bench_fini(&b);
}

Test(upload, journal_rotates)
{
	struct bench b;
	bench_init(&b);
	b.conf.io.journal_bytes = 4096;
	bench_restart(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	for (int i = 299; i >= 0; i--)
		assert_ok(do_small(&b, (uint64_t)i * 2, "x", 1));
	bench_restart(&b);
	struct caught c = do_status(&b);
	cr_assert_eq(c.o.received, 300);
	for (int i = 0; i < 300; i++)
		assert_ok(do_small(&b, (uint64_t)i * 2 + 1, "y", 1));
	assert_ok(do_fin(&b, 600, NULL));
	bench_fini(&b);
}

static void tcp_pair(int ret[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t at_bytes = sizeof(at);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(bind(listener, (struct sockaddr *)&at, at_bytes), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&at, &at_bytes), 0);
	ret[1] = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(connect(ret[1], (struct sockaddr *)&at, at_bytes), 0);
	ret[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	cr_assert_geq(ret[0], 0);
	close(listener);
}

/* One pull takes a second's worth at most, also of what is thrown away, and asks for the next turn
 * then. */
static void pulls_are_within_the_rate(bool is_failing)
{
	enum { RATE = 65536, BYTES = 1 << 20, WRITTEN = 4 * RATE };
	struct bench b;
	struct caught c;
	struct filecmd cmd = segment_cmd(0);
	uint8_t *data = calloc(1, BYTES);
	bool resumed = false;
	uint32_t taken = 0, full = 0;
	int fds[2];
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	if (is_failing) {
		assert_ok(do_small(&b, 0, "x", 1));
		b.conf.transfer.scratch_bytes_max = 0;
	}
	tcp_pair(fds);
	struct seg *s = ingest_begin(b.rt.uploads, &ID, &cmd, BYTES, NULL, NULL, 0, reply_for(&c), note_resume,
		&resumed);
	cr_assert_not_null(s);
	cr_assert_eq(write(fds[1], data, WRITTEN), WRITTEN);
	for (int i = 0; i < 2000 && taken < WRITTEN; i++) {
		resumed = false;
		enum ingest_pull p = ingest_pull(s, fds[0], RATE);
		uint32_t now = ingest_taken(s);
		cr_assert_leq(now - taken, RATE);
		if (now - taken == RATE) {
			full++;
			cr_expect(p == INGEST_WAIT && resumed);
		}
		taken = now;
		ingest_flush(b.rt.uploads);
		turn(&b);
	}
	cr_expect_eq(taken, WRITTEN);
	cr_expect_geq(full, 1);
	cr_expect_eq(c.done, is_failing);
	ingest_cut(s);
	settle(&b);
	close(fds[0]);
	close(fds[1]);
	free(data);
	bench_fini(&b);
}

Test(upload, one_pull_is_within_the_rate)
{
	pulls_are_within_the_rate(false);
}

Test(upload, one_pull_thrown_away_is_within_the_rate)
{
	pulls_are_within_the_rate(true);
}

/* As long as a fin that names a digest is there the file is to be hashed. When it has failed nothing is
 * in arrears: the gate would be shut for good. */
Test(upload, a_fin_that_asked_and_failed_leaves_no_backlog)
{
	struct bench b;
	struct caught fin;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = 9000, .has_checksum = true};
	bench_init(&b);
	b.conf.verify.digest = CONF_DIGEST_ASKED;
	b.conf.verify.step_bytes = 100000; /* what arrives stays unhashed */
	uint8_t *data = noise(8000, 8);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	begin_small(&b, 0, data, 8000);
	upload_fin(b.rt.uploads, &ID, &cmd, reply_for(&fin)); /* waits for the segment, which counts meanwhile */
	settle(&b);
	assert_ok(small);
	assert_fails(fin, 0x80, "incomplete");
	cr_expect_eq(transfer_find(b.rt.uploads, &ID)->backlog, 0);
	cr_expect_eq(atomic_load(&b.rt.store->backlog_bytes), 0);
	free(data);
	bench_fini(&b);
}

/* Connections of a transfer with many unfinished segments are not read until there are fewer. */
Test(upload, a_transfer_takes_so_many_segments_at_once)
{
	enum { MAX = 3 };
	struct bench b;
	struct caught c[MAX];
	struct upload_gate g = {.resume = note_gate};
	bench_init(&b);
	b.conf.transfer.unfinished_max = MAX;
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	gates_opened = 0;
	for (int i = 0; i < MAX; i++) {
		struct filecmd cmd = segment_cmd((uint64_t)i * 10);
		struct buf *buf = bufs_take(b.rt.bufs);
		cr_assert(upload_gate_pass(b.rt.uploads, &ID, &g), "%d of %d", i, MAX);
		memset(buf->data, 'a' + i, 10);
		ingest_small(b.rt.uploads, &ID, &cmd, buf, buf->data, 10, reply_for(&c[i]));
		buf_unref(buf);
	}
	cr_assert_not(upload_gate_pass(b.rt.uploads, &ID, &g));
	cr_expect_eq(gates_opened, 0);
	ingest_flush(b.rt.uploads);
	settle(&b);
	cr_expect_eq(gates_opened, 1);
	for (int i = 0; i < MAX; i++)
		assert_ok(c[i]);
	cr_expect(upload_gate_pass(b.rt.uploads, &ID, &g));
	bench_fini(&b);
}

/* A sync that was under way when the fin came fails while the file is hashed: bytes are lost, and the
 * fin says which. */
Test(upload, a_fin_whose_file_loses_bytes_is_incomplete)
{
	enum { N = 12 << 20 };
	struct bench b;
	struct caught fin;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = N};
	uint8_t *data = noise(N, 9);
	bench_init(&b);
	b.conf.verify.step_bytes = 2 * N;
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_large(&b, 0, data, N, 0, NULL));
	struct transfer *t = transfer_find(b.rt.uploads, &ID);
	upload_fin(b.rt.uploads, &ID, &cmd, reply_for(&fin));
	cr_assert(t->state == TRANSFER_VERIFYING && t->hashing);
	transfer_lose(t, -EIO);
	settle(&b);
	assert_fails(fin, 0x80, "incomplete");
	cr_expect_eq(fin.o.missing_bytes, N);
	assert_ok(do_large(&b, 0, data, N, 0, NULL));
	assert_ok(do_fin(&b, N, NULL));
	assert_file(&b, "cam/f1/a", data, N);
	cr_expect_eq(staging_count(&b), 0);
	free(data);
	bench_fini(&b);
}

/* A segment that differs and is refused for want of room opens nothing: the export is what it was. */
Test(upload, a_refused_segment_opens_no_generation)
{
	struct bench b;
	uint8_t *data = noise(6000, 10);
	bench_init(&b);
	assert_ok(do_init(&b, "{\"name\":\"a\"}"));
	assert_ok(do_small(&b, 0, data, 1000));
	assert_ok(do_fin(&b, 1000, NULL));
	b.conf.transfer.staged_client_max = 2000;
	assert_fails(do_small(&b, 0, data + 1000, 5000), 0x97, "quota_exceeded");
	cr_expect_str_eq(do_status(&b).o.state, "exported");
	cr_expect_eq(atomic_load(&b.rt.store->open_count), 0);
	assert_ok(do_small(&b, 0, data + 1000, 2000));
	cr_expect_str_eq(do_status(&b).o.state, "open");
	free(data);
	bench_fini(&b);
}
