/*
 * A journal file of any content: reading it never goes wrong, and what was read is written again to the
 * same bytes, since there is one way only to write a record.
 *
 * The checksums would keep a fuzzer out of everything behind them. So the input is read twice: as it is, and
 * as a copy whose header and frames were given the right sequence numbers and checksums first.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "record.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void store_le(uint8_t *at, uint64_t value, int count)
{
	for (int i = 0; i < count; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static size_t frame_padded(const uint8_t *frame)
{
	size_t bytes = frame[9] | frame[10] << 8 | frame[11] << 16;

	return (bytes + 7) & ~(size_t)7;
}

/* The formulas of record.c's essay. Frames follow each other as their lengths say. */
static void seal(uint8_t *file, size_t bytes, uint64_t salt)
{
	uint64_t seq = 0;

	store_le(file + 56, XXH3_64bits(file, 56), 8);
	for (size_t off = RECORD_HEADER_BYTES; off + 16 <= bytes; seq++) {
		uint8_t *frame = file + off;
		size_t padded = frame_padded(frame);

		if (padded < 16 || padded > bytes - off)
			break;
		store_le(frame + 12, seq, 4);
		store_le(frame, XXH3_64bits_withSeed(frame + 8, padded - 8,
			salt + seq * 0x9e3779b97f4a7c15), 8);
		off += padded;
	}
}

static void check_again(const struct record_reader *before, size_t size, const struct record *got)
{
	uint8_t *buf = malloc(size);
	struct record_writer w = {.buf = buf, .buf_max = size, .salt = before->salt, .seq = before->seq};

	assert(buf && record_size(got) == size);
	assert(!record_append(&w, got));
	assert(w.bytes == size && !memcmp(buf, before->buf + before->off, size));
	free(buf);
}

/* A sealed file is read on behind records that break the rules: each of them is met. */
static void read_file(const uint8_t *file, size_t bytes, bool sealed)
{
	struct record_reader r = {.buf = file, .buf_bytes = bytes};
	uint64_t file_seq = 0;
	uint32_t reactor_idx = 0;
	struct record got;

	if (!record_header_decode(file, bytes, &r.salt, &file_seq, &reactor_idx)) {
		uint8_t again[RECORD_HEADER_BYTES];

		/* But for the version, which may be an older one, and the checksum over it. */
		record_header_encode(again, r.salt, file_seq, reactor_idx);
		assert(!memcmp(again, file, 8) && !memcmp(again + 12, file + 12, 44));
	}
	r.off = bytes < RECORD_HEADER_BYTES ? bytes : RECORD_HEADER_BYTES;
	for (;;) {
		struct record_reader before = r;
		int rc = record_next(&r, &got);

		assert(r.off <= bytes);
		if (rc == 1) {
			assert(r.seq == before.seq + 1 && r.off > before.off);
			check_again(&before, r.off - before.off, &got);
			continue;
		}
		assert(r.off == before.off && r.seq == before.seq);
		if (!rc && record_skip(&r)) {
			assert(r.off > before.off && r.seq > before.seq);
			struct record_reader found = r;
			assert(record_next(&found, &got) != 0);
		}
		if (!rc || !sealed)
			break;
		r.off += frame_padded(file + r.off);
		r.seq++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	read_file(data, bytes, false);
	if (bytes >= RECORD_HEADER_BYTES) {
		uint8_t *copy = malloc(bytes);
		uint64_t salt = 0, file_seq;
		uint32_t reactor_idx;

		assert(copy);
		memcpy(copy, data, bytes);
		seal(copy, bytes, 0);
		/* Whether this header is accepted decides which salt read_file() uses. */
		if (!record_header_decode(copy, bytes, &salt, &file_seq, &reactor_idx))
			seal(copy, bytes, salt);
		read_file(copy, bytes, true);
		free(copy);
	}
	return 0;
}
