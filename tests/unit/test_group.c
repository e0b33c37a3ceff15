/*
 * daemon/group.c: small files that are written one after another are hashed as lanes of one call. Each
 * has its own number of segments and its own fate: a right or a wrong checksum, a write that fails or is
 * short.
 */
#include "upload_commands.h"

enum { FILES = 40, SEGS_MAX = 3, SEG_BYTES = 3000, FILE_BYTES_MAX = SEGS_MAX * SEG_BYTES, SHORT = 7, FAILS = 11 };

static struct bench b;
static uint8_t *data;
static struct caught segs[FILES][SEGS_MAX];
static char ids[FILES][8];
static _Atomic size_t most_lanes;
static _Atomic bool was_short, has_failed;

int __real_sys_pwritev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off);
int __wrap_sys_pwritev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off);
void __real_sha256_update_lanes(struct sha256_lane *lanes, size_t lanes_count);
void __wrap_sha256_update_lanes(struct sha256_lane *lanes, size_t lanes_count);

static uint32_t file_bytes(uint32_t i)
{
	return (i % SEGS_MAX) * SEG_BYTES + 1 + i * 61;
}

int __wrap_sys_pwritev(int fd, const struct iovec *iov, uint32_t iov_count, uint64_t off)
{
	static _Atomic bool is_begun;
	size_t bytes = 0;
	if (!is_begun) {
		is_begun = true;
		usleep(50000); /* meanwhile the others queue up behind it */
	}
	for (uint32_t i = 0; i < iov_count; i++)
		bytes += iov[i].iov_len;
	if (bytes == file_bytes(FAILS) && !has_failed) {
		has_failed = true;
		return -EIO;
	}
	if (bytes == file_bytes(SHORT) && !was_short) {
		struct iovec part = {iov[0].iov_base, 100};
		was_short = true;
		return __real_sys_pwritev(fd, &part, 1, off);
	}
	return __real_sys_pwritev(fd, iov, iov_count, off);
}

void __wrap_sha256_update_lanes(struct sha256_lane *lanes, size_t lanes_count)
{
	if (lanes_count > most_lanes)
		most_lanes = lanes_count;
	__real_sha256_update_lanes(lanes, lanes_count);
}

static struct upload_id id_of(uint32_t i)
{
	return (struct upload_id){"cam", 3, ids[i], (uint32_t)strlen(ids[i]), NULL};
}

static const uint8_t *bytes_of(uint32_t i)
{
	return data + i * 100;
}

static void set_up(void)
{
	bench_prepare(&b, "/tmp");
	b.buffers_max = 256;
	bench_up(&b);
	data = noise(FILES * 100 + FILE_BYTES_MAX + FILES * 61, 3);
	for (uint32_t i = 0; i < FILES; i++) {
		char json[96];
		snprintf(ids[i], sizeof(ids[i]), "f%u", i);
		snprintf(json, sizeof(json), "{\"name\":\"a\",\"size\":%u}", file_bytes(i));
		struct upload_id id = id_of(i);
		assert_ok(do_init_of(&b, &id, json));
	}
}

static void tear_down(void)
{
	free(data);
	bench_fini(&b);
}

TestSuite(group, .init = set_up, .fini = tear_down);

/* As from connections that are read in the same turn. */
static void send_all(void)
{
	for (uint32_t i = 0; i < FILES; i++) {
		struct upload_id id = id_of(i);
		uint32_t off = 0;
		for (uint32_t k = 0; off < file_bytes(i); k++) {
			struct filecmd cmd = segment_cmd(off);
			uint32_t bytes = file_bytes(i) - off < SEG_BYTES ? file_bytes(i) - off : SEG_BYTES;
			struct buf *buf = bufs_take(b.rt.bufs);
			cr_assert_not_null(buf);
			memcpy(buf->data, bytes_of(i) + off, bytes);
			ingest_small(b.rt.uploads, &id, &cmd, buf, buf->data, bytes, reply_for(&segs[i][k]));
			buf_unref(buf);
			off += bytes;
		}
		ingest_flush(b.rt.uploads);
	}
	settle(&b);
}

Test(group, files_that_are_hashed_together_keep_their_own_digests)
{
	uint8_t digest[32];
	char path[sizeof(ids) + 8];
	send_all();
	cr_expect(was_short);
	cr_expect(has_failed);
	cr_expect_gt(most_lanes, 1);
	for (uint32_t i = 0; i < FILES; i++) {
		struct upload_id id = id_of(i);
		if (i == FAILS) {
			cr_expect_neq(segs[i][0].o.reason, 0);
			continue;
		}
		assert_ok(segs[i][0]);
		digest_of(bytes_of(i), file_bytes(i), digest);
		if (i % 4 == 0) {
			digest[i % 32] ^= 1;
			cr_expect_neq(do_fin_of(&b, &id, file_bytes(i), digest).o.reason, 0, "file %u", i);
			digest[i % 32] ^= 1;
		}
		assert_ok(do_fin_of(&b, &id, file_bytes(i), digest));
		snprintf(path, sizeof(path), "cam/%s/a", ids[i]);
		assert_file(&b, path, bytes_of(i), file_bytes(i));
	}
}
