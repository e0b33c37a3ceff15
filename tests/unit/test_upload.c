/*
 * Transfers, one command at a time. What commands do to each other that are not waited for is test_upload_model.c's.
 */
#include "upload_bench.h"

static void bench_init(struct bench *b)
{
	bench_prepare(b, "/tmp");
	bench_up(b);
}

static void bench_fini(struct bench *b)
{
	bench_down(b);
	bench_remove(b);
}

/* A restart; what was not journaled is lost. */
static void bench_restart(struct bench *b)
{
	bench_down(b);
	bench_up(b);
}

/* --- commands --------------------------------------------------------------------------------- */

static const struct upload_id ID = {"cam", 3, "f1", 2};

static struct reply *reply_for(struct caught *c)
{
	struct reply *rp = calloc(1, sizeof(*rp));
	*c = (struct caught){0};
	rp->conn = (struct conn *)c;
	rp->qos = 1;
	return rp;
}

static struct caught do_init(struct bench *b, const char *json)
{
	struct caught c;
	upload_init(b->rt.uploads, &ID, json, (uint32_t)strlen(json), reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static struct filecmd segment_cmd(uint64_t off)
{
	return (struct filecmd){.verb = FILECMD_SEGMENT, .offset = off};
}

static struct caught do_small(struct bench *b, uint64_t off, const void *data, uint32_t bytes)
{
	struct caught c;
	struct filecmd cmd = segment_cmd(off);
	struct buf *buf = bufs_take(b->rt.bufs);
	memcpy(buf->data, data, bytes);
	ingest_small(b->rt.uploads, &ID, &cmd, buf, buf->data, bytes, reply_for(&c));
	ingest_flush(b->rt.uploads);
	buf_unref(buf);
	settle(b);
	cr_assert(c.done);
	return c;
}

static void note_resume(void *arg)
{
	*(bool *)arg = true;
}

/* A large segment over a socket, the first prefix_bytes of it from a buffer. */
static struct caught do_large(struct bench *b, uint64_t off, const uint8_t *data, uint32_t bytes,
	uint32_t prefix_bytes, const uint8_t *checksum)
{
	struct caught c;
	int fds[2];
	bool resumed = false;
	struct filecmd cmd = segment_cmd(off);
	if (checksum) {
		cmd.has_checksum = true;
		memcpy(cmd.checksum, checksum, 32);
	}
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	struct buf *buf = bufs_take(b->rt.bufs);
	memcpy(buf->data, data, prefix_bytes);
	struct seg *s = ingest_begin(b->rt.uploads, &ID, &cmd, bytes, buf, buf->data, prefix_bytes,
		reply_for(&c), note_resume, &resumed);
	buf_unref(buf);
	cr_assert_not_null(s);
	uint32_t sent = prefix_bytes;
	for (int i = 0; i < 100000; i++) {
		ssize_t n = sent < bytes ? write(fds[1], data + sent, bytes - sent) : 0;
		sent += n > 0 ? (uint32_t)n : 0;
		enum ingest_pull p = ingest_pull(s, fds[0]);
		if (p == INGEST_DONE)
			break;
		cr_assert_neq(p, INGEST_EOF);
		if (p == INGEST_WAIT) {
			for (int k = 0; k < 2000 && !resumed; k++)
				turn(b);
			cr_assert(resumed, "never resumed");
			resumed = false;
		}
	}
	settle(b);
	cr_assert(c.done);
	close(fds[0]);
	close(fds[1]);
	return c;
}

static struct caught do_fin(struct bench *b, uint64_t size, const uint8_t *checksum)
{
	struct caught c;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = size};
	if (checksum) {
		cmd.has_checksum = true;
		memcpy(cmd.checksum, checksum, 32);
	}
	upload_fin(b->rt.uploads, &ID, &cmd, reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static struct caught do_status(struct bench *b)
{
	struct caught c;
	upload_status(b->rt.uploads, &ID, reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static struct caught do_abort(struct bench *b)
{
	struct caught c;
	upload_abort(b->rt.uploads, &ID, reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static uint8_t *noise(uint32_t bytes, uint32_t seed)
{
	uint8_t *data = malloc(bytes);
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
	for (uint32_t i = 0; i < bytes; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		data[i] = (uint8_t)x;
	}
	return data;
}

static void digest_of(const uint8_t *data, uint32_t bytes, uint8_t ret[32])
{
	struct sha256 s;
	sha256_init(&s);
	sha256_update(&s, data, bytes);
	sha256_digest(&s, ret);
}

static void assert_file(struct bench *b, const char *path, const uint8_t *data, uint32_t bytes)
{
	char full[512];
	snprintf(full, sizeof(full), "%s/export/%s", b->dir, path);
	int fd = open(full, O_RDONLY);
	cr_assert_geq(fd, 0, "%s is not there", full);
	uint8_t *got = malloc(bytes + 1);
	cr_assert_eq(read(fd, got, bytes + 1), (ssize_t)bytes, "%s has another size", full);
	cr_assert_eq(memcmp(got, data, bytes), 0, "%s has other bytes", full);
	free(got);
	close(fd);
}

static int count_name(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return 0;
}

static int staging_count(struct bench *b)
{
	int count = 0;
	cr_assert_eq(sys_list_dir(b->rt.store->staging_fd, count_name, &count), 0);
	return count;
}

static void assert_ok(struct caught c)
{
	cr_assert_eq(c.o.reason, 0, "reason %02x %s", c.o.reason, c.o.text);
}

static void assert_fails(struct caught c, uint8_t reason, const char *text)
{
	cr_assert_eq(c.o.reason, reason, "reason %02x %s", c.o.reason, c.o.text);
	cr_assert_str_eq(c.o.text, text);
}

/* --- tests ------------------------------------------------------------------------------------ */

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
	/* Then the same with a changed end: the next generation is whole though its beginning was a replay. */
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
