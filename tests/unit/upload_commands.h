/*
 * Commands to one transfer in the bench, each waited for until nothing goes on any more, and what
 * is found afterwards.
 */
#ifndef SLUICE_TEST_UPLOAD_COMMANDS_H
#define SLUICE_TEST_UPLOAD_COMMANDS_H

#include "upload_bench.h"

static inline void bench_init(struct bench *b)
{
	bench_prepare(b, "/tmp");
	bench_up(b);
}

static inline void bench_fini(struct bench *b)
{
	bench_down(b);
	bench_remove(b);
}

/* A restart; what was not journaled is lost. */
static inline void bench_restart(struct bench *b)
{
	bench_down(b);
	bench_up(b);
}

/* --- commands --------------------------------------------------------------------------------- */

static const struct upload_id ID = {"cam", 3, "f1", 2, NULL};

static bool bench_is_power; /* the commands come on a connection of durability power */

static inline struct reply *reply_for(struct caught *c)
{
	struct reply *rp = calloc(1, sizeof(*rp));
	*c = (struct caught){0};
	rp->is_power = bench_is_power;
	rp->conn = (struct conn *)c;
	rp->qos = 1;
	return rp;
}

/* Those with `_of` are for another id than ID. */
static inline struct caught do_init_of(struct bench *b, const struct upload_id *id, const char *json)
{
	struct caught c;
	upload_init(b->rt.uploads, id, json, (uint32_t)strlen(json), reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static inline struct caught do_init(struct bench *b, const char *json)
{
	return do_init_of(b, &ID, json);
}

static inline struct filecmd segment_cmd(uint64_t off)
{
	return (struct filecmd){.verb = FILECMD_SEGMENT, .offset = off};
}

static inline struct caught do_small_of(struct bench *b, const struct upload_id *id, uint64_t off,
	const void *data, uint32_t bytes)
{
	struct caught c;
	struct filecmd cmd = segment_cmd(off);
	struct buf *buf = bufs_take(b->rt.bufs);
	memcpy(buf->data, data, bytes);
	ingest_small(b->rt.uploads, id, &cmd, buf, buf->data, bytes, reply_for(&c));
	ingest_flush(b->rt.uploads);
	buf_unref(buf);
	settle(b);
	cr_assert(c.done);
	return c;
}

static inline struct caught do_small(struct bench *b, uint64_t off, const void *data, uint32_t bytes)
{
	return do_small_of(b, &ID, off, data, bytes);
}

static inline void note_resume(void *arg)
{
	*(bool *)arg = true;
}

/* A large segment over a socket, the first prefix_bytes of it from a buffer. */
static inline struct caught do_large(struct bench *b, uint64_t off, const uint8_t *data, uint32_t bytes,
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
		enum ingest_pull p = ingest_pull(s, fds[0], UINT32_MAX);
		ingest_flush(b->rt.uploads);
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

static inline struct caught do_fin_of(struct bench *b, const struct upload_id *id, uint64_t size,
	const uint8_t *checksum)
{
	struct caught c;
	struct filecmd cmd = {.verb = FILECMD_FIN, .size = size};
	if (checksum) {
		cmd.has_checksum = true;
		memcpy(cmd.checksum, checksum, 32);
	}
	upload_fin(b->rt.uploads, id, &cmd, reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static inline struct caught do_fin(struct bench *b, uint64_t size, const uint8_t *checksum)
{
	return do_fin_of(b, &ID, size, checksum);
}

static inline struct caught do_status(struct bench *b)
{
	struct caught c;
	upload_status(b->rt.uploads, &ID, reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static inline struct caught do_abort_of(struct bench *b, const struct upload_id *id)
{
	struct caught c;
	upload_abort(b->rt.uploads, id, reply_for(&c));
	settle(b);
	cr_assert(c.done);
	return c;
}

static inline struct caught do_abort(struct bench *b)
{
	return do_abort_of(b, &ID);
}

static inline uint8_t *noise(uint32_t bytes, uint32_t seed)
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

static inline void digest_of(const uint8_t *data, uint32_t bytes, uint8_t ret[32])
{
	struct sha256 s;
	sha256_init(&s);
	sha256_update(&s, data, bytes);
	sha256_digest(&s, ret);
}

static inline void assert_file(struct bench *b, const char *path, const uint8_t *data, uint32_t bytes)
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

static inline int count_name(void *arg, const char *name)
{
	(void)name;
	++*(int *)arg;
	return 0;
}

static inline int staging_count(struct bench *b)
{
	int count = 0;
	cr_assert_eq(sys_list_dir(b->rt.store->staging_fd, count_name, &count), 0);
	return count;
}

static inline void assert_ok(struct caught c)
{
	cr_assert_eq(c.o.reason, 0, "reason %02x %s", c.o.reason, c.o.text);
}

static inline void assert_fails(struct caught c, uint8_t reason, const char *text)
{
	cr_assert_eq(c.o.reason, reason, "reason %02x %s", c.o.reason, c.o.text);
	cr_assert_str_eq(c.o.text, text);
}

#endif
