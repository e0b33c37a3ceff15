/*
 * Journal records: what was written comes back, and whatever was damaged, torn or left over from an
 * earlier use of the file never does.
 */
#include "record.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { SALT = 0x5a17, BUF_BYTES = 8192 };

/* One of every type, FIN in both of its forms. */
static const struct record samples[] = {
	{.type = RECORD_OPEN, .tid = 1, .epoch = UINT64_MAX, .at_ms = -5, .generation = 7,
		.clientid = "client", .clientid_bytes = 6, .fileid = "file\0id", .fileid_bytes = 7,
		.text = "00/1-7", .text_bytes = 6},
	{.type = RECORD_META, .tid = 2, .text = "{\"name\":\"a\"}", .text_bytes = 12},
	{.type = RECORD_RESERVE, .tid = 3, .size = 1ull << 40},
	{.type = RECORD_EXTENT, .tid = 4, .from = 4096, .to = 8192},
	{.type = RECORD_UNCOVER, .tid = 5, .from = 0, .to = UINT64_MAX},
	{.type = RECORD_MIDSTATE, .tid = 6, .frontier = 64ull << 20,
		.h = {1, 2, 3, 4, 5, 6, 7, UINT32_MAX}},
	{.type = RECORD_FIN, .tid = 7, .size = 10},
	{.type = RECORD_FIN, .tid = 8, .size = 11, .has_digest = true, .digest = {1, 2, [31] = 3}},
	{.type = RECORD_FIN_FAILED, .tid = 9},
	{.type = RECORD_PUBLISHING, .tid = 10, .size = 12, .digest = {4, [31] = 5},
		.text = "client/file/a", .text_bytes = 13},
	{.type = RECORD_PUBLISHED, .tid = 11, .at_ms = INT64_MAX},
	{.type = RECORD_ABORTED, .tid = 12},
	{.type = RECORD_EXPIRED, .tid = 13},
	{.type = RECORD_FORGET, .tid = UINT64_MAX},
	{.type = RECORD_CHECKPOINT_END},
	{.type = RECORD_SYNCED, .tid = 7, .from = 4096, .to = 1ull << 40},
	{.type = RECORD_LOST, .tid = 7},
	{.type = RECORD_STAGING, .tid = 7, .text = "e1-another", .text_bytes = 10},
	{.type = RECORD_SYNC_MARK, .size = 64},
	{.type = RECORD_USER, .tid = 14, .text = "user\0 name", .text_bytes = 10},
};

enum { SAMPLES_COUNT = sizeof(samples) / sizeof(samples[0]) };

static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static bool same_span(const char *a, uint32_t a_bytes, const char *b, uint32_t b_bytes)
{
	return a_bytes == b_bytes && (a_bytes == 0 || memcmp(a, b, a_bytes) == 0);
}

static bool same_record(const struct record *a, const struct record *b)
{
	return a->type == b->type && a->tid == b->tid && a->from == b->from && a->to == b->to
		&& a->size == b->size && a->frontier == b->frontier
		&& memcmp(a->h, b->h, sizeof(a->h)) == 0 && a->has_digest == b->has_digest
		&& memcmp(a->digest, b->digest, sizeof(a->digest)) == 0
		&& a->generation == b->generation && a->epoch == b->epoch && a->at_ms == b->at_ms
		&& same_span(a->clientid, a->clientid_bytes, b->clientid, b->clientid_bytes)
		&& same_span(a->fileid, a->fileid_bytes, b->fileid, b->fileid_bytes)
		&& same_span(a->text, a->text_bytes, b->text, b->text_bytes);
}

static struct record_writer writer(uint8_t *buf, size_t buf_max)
{
	return (struct record_writer){.buf = buf, .buf_max = buf_max, .salt = SALT};
}

static struct record_reader reader(const uint8_t *buf, size_t buf_bytes)
{
	return (struct record_reader){.buf = buf, .buf_bytes = buf_bytes, .salt = SALT};
}

static void append_samples(struct record_writer *w)
{
	for (int i = 0; i < SAMPLES_COUNT; i++) {
		size_t before = w->bytes;
		cr_assert_eq(record_append(w, &samples[i]), 0);
		cr_assert_eq(w->bytes, before + record_size(&samples[i]));
		cr_assert_eq(w->bytes % 8, 0);
	}
}

/* Reads to the end; what comes must be the samples in their order. Returns how many. */
static int read_samples(struct record_reader *r, int *ret_err)
{
	int count = 0;
	struct record got;
	while ((*ret_err = record_next(r, &got)) == 1) {
		cr_assert_lt(count, SAMPLES_COUNT);
		cr_assert(same_record(&got, &samples[count]), "sample %d", count);
		count++;
	}
	return count;
}

/* ---- round trips ---- */

Test(record, every_type_comes_back)
{
	uint8_t buf[BUF_BYTES];
	memset(buf, 0xff, sizeof(buf));
	struct record_writer w = writer(buf, sizeof(buf));
	append_samples(&w);
	cr_assert_eq(w.seq, SAMPLES_COUNT);
	uint32_t types = 0;
	for (int i = 0; i < SAMPLES_COUNT; i++)
		types |= 1u << samples[i].type;
	cr_assert_eq(types, (2u << RECORD_TYPE_MAX) - 2, "a type has no sample");

	int err;
	struct record_reader r = reader(buf, w.bytes);
	cr_assert_eq(read_samples(&r, &err), SAMPLES_COUNT);
	cr_assert_eq(err, 0);
	cr_assert_eq(r.off, w.bytes);
	cr_assert_eq(r.seq, w.seq);

	/* What follows in the file, 0xff here, is not a record. */
	r = reader(buf, sizeof(buf));
	cr_assert_eq(read_samples(&r, &err), SAMPLES_COUNT);
	cr_assert_eq(err, 0);
	cr_assert_eq(r.off, w.bytes);
}

Test(record, text_of_every_length)
{
	static char text[600];
	uint8_t buf[800];
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i * 7);
	for (uint32_t bytes = 0; bytes <= sizeof(text); bytes++) {
		struct record in = {.type = RECORD_OPEN, .tid = bytes, .clientid = text + bytes,
			.clientid_bytes = bytes % 3, .fileid = text, .fileid_bytes = bytes % 11,
			.text = text, .text_bytes = bytes}, out;
		in.clientid = bytes % 3 == 0 ? NULL : text + bytes % 13;
		struct record_writer w = writer(buf, sizeof(buf));
		cr_assert_eq(record_append(&w, &in), 0);
		struct record_reader r = reader(buf, w.bytes);
		cr_assert_eq(record_next(&r, &out), 1);
		cr_assert(same_record(&in, &out));
		cr_assert_eq(record_next(&r, &out), 0);
	}
}

/* Fields that the type does not have are not written. */
Test(record, foreign_fields_are_ignored)
{
	uint8_t buf[256];
	struct record_writer w = writer(buf, sizeof(buf));
	struct record full, out;
	memset(&full, 0x11, sizeof(full));
	full.type = RECORD_ABORTED;
	full.has_digest = true;
	cr_assert_eq(record_append(&w, &full), 0);
	cr_assert_eq(w.bytes, 24);
	struct record_reader r = reader(buf, w.bytes);
	cr_assert_eq(record_next(&r, &out), 1);
	cr_assert(same_record(&out, &(struct record){.type = RECORD_ABORTED, .tid = full.tid}));
}

/* The bytes of the essay, so that a change of the format can't slip in. */
Test(record, layout_is_that_of_the_essay)
{
	uint8_t buf[64];
	struct record_writer w = writer(buf, sizeof(buf));
	w.seq = 0x1122334455667788;
	struct record extent = {.type = RECORD_EXTENT, .tid = 0x0102, .from = 0x0304, .to = 0x0506};
	cr_assert_eq(record_append(&w, &extent), 0);
	static const uint8_t expected[32] = {
		4, 40, 0, 0, 0x88, 0x77, 0x66, 0x55, 2, 1, 0, 0, 0, 0, 0, 0,
		4, 3, 0, 0, 0, 0, 0, 0, 6, 5, 0, 0, 0, 0, 0, 0,
	};
	cr_assert_eq(w.bytes, 40);
	cr_assert_arr_eq(buf + 8, expected, sizeof(expected));

	uint8_t header[RECORD_HEADER_BYTES];
	record_header_encode(header, 0x0908, 0x0706, 5);
	static const uint8_t head[56] = {'s', 'l', 'u', 'i', 'c', 'e', 'J', '\n', 3, 0, 0, 0, 5, 0, 0, 0,
		8, 9, 0, 0, 0, 0, 0, 0, 6, 7, 0, 0, 0, 0, 0, 0};
	cr_assert_arr_eq(header, head, sizeof(head));
}

/* ---- damage ---- */

Test(record, every_truncation_is_seen)
{
	uint8_t buf[BUF_BYTES];
	struct record_writer w = writer(buf, sizeof(buf));
	append_samples(&w);
	int whole = 0;
	size_t end = record_size(&samples[0]);
	for (size_t bytes = 0; bytes <= w.bytes; bytes++) {
		if (whole < SAMPLES_COUNT && bytes == end) {
			whole++;
			end += whole < SAMPLES_COUNT ? record_size(&samples[whole]) : 0;
		}
		/* Once the file ends there, once zeros follow; both in exactly that much memory. */
		uint8_t *cut = malloc(bytes > 0 ? bytes : 1), *zeros = calloc(1, w.bytes);
		memcpy(cut, buf, bytes);
		memcpy(zeros, buf, bytes);
		int err;
		struct record_reader r = reader(cut, bytes);
		cr_assert_eq(read_samples(&r, &err), whole);
		cr_assert_eq(err, 0);
		r = reader(zeros, w.bytes);
		int count = read_samples(&r, &err);
		cr_assert_eq(err, 0);
		/* Zeros at the end of a record may be what was there anyway. */
		cr_assert(count >= whole && memcmp(zeros, buf, r.off) == 0);
		free(cut);
		free(zeros);
	}
	cr_assert_eq(whole, SAMPLES_COUNT);
}

Test(record, every_flipped_byte_is_seen)
{
	uint8_t buf[BUF_BYTES];
	struct record_writer w = writer(buf, sizeof(buf));
	append_samples(&w);
	size_t begin = 0;
	for (int i = 0; i < SAMPLES_COUNT; i++) {
		size_t end = begin + record_size(&samples[i]);
		for (size_t at = begin; at < end; at++) {
			for (int flip = 1; flip < 256; flip++) {
				int err;
				buf[at] ^= flip;
				struct record_reader r = reader(buf, w.bytes);
				cr_assert_eq(read_samples(&r, &err), i, "byte %zu ^ %d", at, flip);
				cr_assert_eq(err, 0);
				cr_assert_eq(r.off, begin);
				buf[at] ^= flip;
			}
		}
		begin = end;
	}
}

Test(record, records_in_another_order_are_the_end)
{
	uint8_t buf[256], swapped[256];
	struct record_writer w = writer(buf, sizeof(buf));
	struct record r1 = {.type = RECORD_ABORTED, .tid = 1}, r2 = {.type = RECORD_EXPIRED, .tid = 2}, out;
	cr_assert_eq(record_append(&w, &r1), 0);
	cr_assert_eq(record_append(&w, &r2), 0);
	memcpy(swapped, buf + 24, 24);
	memcpy(swapped + 24, buf, 24);
	struct record_reader r = reader(swapped, 48);
	cr_assert_eq(record_next(&r, &out), 0);
	memcpy(swapped, buf, 24);
	r = reader(swapped, 48);
	cr_assert_eq(record_next(&r, &out), 1);
	cr_assert_eq(record_next(&r, &out), 0, "the first one twice");
}

/* ---- old content ---- */

/* Old records behind each prefix of the new ones, at the very places where new ones would begin. */
static void check_old_content(uint64_t old_salt, uint64_t old_seq, uint64_t new_salt, uint64_t new_seq)
{
	enum { COUNT = 50 };
	uint8_t old[COUNT * 40], buf[COUNT * 40];
	struct record_writer w = {.buf = old, .buf_max = sizeof(old), .salt = old_salt, .seq = old_seq};
	for (uint64_t i = 0; i < COUNT; i++) {
		struct record e = {.type = RECORD_EXTENT, .tid = i, .from = i, .to = i + 1};
		cr_assert_eq(record_append(&w, &e), 0);
	}
	for (int count = 0; count < COUNT; count++) {
		memcpy(buf, old, sizeof(buf));
		w = (struct record_writer){.buf = buf, .buf_max = sizeof(buf), .salt = new_salt,
			.seq = new_seq};
		for (int i = 0; i < count; i++) {
			struct record e = {.type = RECORD_EXTENT, .tid = 99, .from = 1, .to = 2};
			cr_assert_eq(record_append(&w, &e), 0);
		}
		struct record_reader r = {.buf = buf, .buf_bytes = sizeof(buf), .salt = new_salt,
			.seq = new_seq};
		struct record out;
		int got = 0;
		while (record_next(&r, &out) == 1)
			got++;
		cr_assert_eq(got, count);
		cr_assert_eq(r.off, w.bytes);
	}
}

Test(record, old_content_never_parses)
{
	check_old_content(SALT, 0, SALT, 50);             /* older */
	check_old_content(SALT, 0, SALT, 7);              /* older, overlapping numbers */
	check_old_content(SALT, 3, SALT, 3 + (1ull << 32)); /* the same lower half */
	check_old_content(SALT, 0, SALT + 1, 0);          /* another salt, the same numbers */
	check_old_content(SALT + 1, 0, SALT, 1);          /* salts and numbers that are near */
	check_old_content(SALT, 1, SALT + 1, 0);
	check_old_content(0, 0, 1ull << 63, 0);
}

/* ---- contents that break the rules under a good checksum ---- */

/* Makes a wrong record look right. The formula of the essay, written down once more. */
static void seal(uint8_t *frame, size_t padded, uint64_t seq)
{
	uint64_t checksum = XXH3_64bits_withSeed(frame + 8, padded - 8,
		SALT + seq * 0x9e3779b97f4a7c15);
	for (int i = 0; i < 8; i++)
		frame[i] = (uint8_t)(checksum >> 8 * i);
}

static int read_one(const uint8_t *buf, size_t bytes)
{
	struct record out, before;
	memset(&out, 0x77, sizeof(out));
	memcpy(&before, &out, sizeof(out));
	struct record_reader r = reader(buf, bytes);
	int got = record_next(&r, &out);
	if (got != 1) {
		cr_assert_eq(memcmp(&out, &before, sizeof(out)), 0);
		cr_assert_eq(r.off, 0);
		cr_assert_eq(r.seq, 0);
	}
	return got;
}

/* The sample at the begin of buf; returns its bytes. */
static size_t put_sample(uint8_t *buf, const struct record *sample)
{
	memset(buf, 0, 128);
	struct record_writer w = writer(buf, 128);
	cr_assert_eq(record_append(&w, sample), 0);
	return w.bytes;
}

Test(record, unknown_types_are_refused)
{
	uint8_t buf[128];
	for (int type = 0; type < 256; type++) {
		size_t padded = put_sample(buf, &(struct record){.type = RECORD_CHECKPOINT_END});
		buf[8] = (uint8_t)type;
		seal(buf, padded, 0);
		cr_assert_eq(read_one(buf, padded), type == RECORD_CHECKPOINT_END ? 1 : -EBADMSG, "%d", type);
	}
}

/* Any length that the type can't have. A text takes every length. */
Test(record, lengths_that_a_type_does_not_have_are_refused)
{
	uint8_t buf[128];
	for (int i = 0; i < SAMPLES_COUNT; i++) {
		const struct record *s = &samples[i];
		size_t right = put_sample(buf, s);
		bool has_text = s->type == RECORD_OPEN || s->type == RECORD_META
			|| s->type == RECORD_PUBLISHING || s->type == RECORD_STAGING
			|| s->type == RECORD_USER;
		size_t least = record_size(s);
		if (has_text) {
			struct record no_text = *s;
			no_text.text_bytes = 0;
			uint8_t scratch[128];
			put_sample(scratch, &no_text);
			least = (size_t)scratch[9];
		}
		for (size_t bytes = 0; bytes <= 120; bytes++) {
			size_t padded = (bytes + 7) & ~(size_t)7;
			put_sample(buf, s);
			memset(buf + bytes, 0, 128 - bytes);
			buf[9] = (uint8_t)bytes;
			int expected = bytes < 16 ? 0 : bytes == right || (has_text && bytes >= least)
				? 1 : -EBADMSG;
			if (s->type == RECORD_FIN && (bytes == 32 || bytes == 64))
				expected = 1;
			if (padded >= 16)
				seal(buf, padded, 0);
			cr_assert_eq(read_one(buf, 128), expected, "type %d, %zu bytes", s->type, bytes);
		}
	}
}

Test(record, fields_that_break_the_rules_are_refused)
{
	uint8_t buf[128];
	/* from > to */
	for (int type = RECORD_EXTENT; type <= RECORD_UNCOVER; type++) {
		size_t padded = put_sample(buf, &(struct record){.type = type, .from = 5, .to = 5});
		cr_assert_eq(read_one(buf, padded), 1);
		buf[24] = 6;
		seal(buf, padded, 0);
		cr_assert_eq(read_one(buf, padded), -EBADMSG);
	}
	/* a frontier within a block */
	size_t padded = put_sample(buf, &(struct record){.type = RECORD_MIDSTATE, .frontier = 64});
	buf[24] = 65;
	seal(buf, padded, 0);
	cr_assert_eq(read_one(buf, padded), -EBADMSG);
	/* ids that don't fit into the body */
	padded = put_sample(buf, &samples[0]);
	buf[16 + 28] = 14;
	seal(buf, padded, 0);
	cr_assert_eq(read_one(buf, padded), -EBADMSG);
	buf[16 + 28] = 12;
	seal(buf, padded, 0);
	cr_assert_eq(read_one(buf, padded), 1, "the text became shorter");
	/* padding that is not zero */
	padded = put_sample(buf, &samples[1]);
	cr_assert_neq(buf[9] % 8, 0);
	buf[padded - 1] = 1;
	seal(buf, padded, 0);
	cr_assert_eq(read_one(buf, padded), -EBADMSG);
}

/* ---- behind the end ---- */

/* Whatever is wrong with the records between, the one behind them is found; in a file that was used
 * before, nothing of that is. */
Test(record, what_lies_behind_a_bad_record_is_found)
{
	uint8_t buf[BUF_BYTES], old[BUF_BYTES];
	struct record_writer w = writer(old, sizeof(old));
	w.salt = SALT + 1;
	append_samples(&w);
	for (int bad = 0; bad < SAMPLES_COUNT; bad++) {
		for (int count = 1; bad + count <= SAMPLES_COUNT; count++) {
			size_t from = 0;
			memcpy(buf, old, sizeof(buf));
			w = writer(buf, sizeof(buf));
			append_samples(&w);
			for (int i = 0; i < bad; i++)
				from += record_size(&samples[i]);
			size_t to = from;
			for (int i = bad; i < bad + count; i++)
				to += record_size(&samples[i]);
			memset(buf + from, count % 2 ? 0 : 0xa5, to - from);
			struct record_reader r = reader(buf, sizeof(buf));
			struct record out;
			while (record_next(&r, &out) == 1)
				;
			cr_assert_eq(r.off, from);
			bool is_behind = bad + count < SAMPLES_COUNT;
			cr_assert_eq(record_skip(&r), is_behind, "%d records from %d on", count, bad);
			cr_assert_eq(r.off, is_behind ? to : from);
			cr_assert_eq(r.seq, is_behind ? bad + count : bad);
			if (!is_behind)
				continue;
			cr_assert_eq(record_next(&r, &out), 1);
			cr_assert(same_record(&out, &samples[bad + count]));
		}
	}
}

/* ---- extending ---- */

Test(record, extend_lengthens_only_the_last_matching_extent)
{
	uint8_t buf[512];
	struct record_writer w = writer(buf, sizeof(buf));
	struct record e = {.type = RECORD_EXTENT, .tid = 4, .from = 10, .to = 20}, out;
	struct record other = {.type = RECORD_UNCOVER, .tid = 4, .from = 10, .to = 40};
	cr_assert_not(record_extend_extent(&w, SIZE_MAX, RECORD_EXTENT, 4, 20, 30));
	w.seq = 41;
	cr_assert_eq(record_append(&w, &other), 0);
	size_t off = w.bytes;
	cr_assert_eq(record_append(&w, &e), 0);
	uint8_t before[512];
	memcpy(before, buf, sizeof(buf));
	cr_assert_not(record_extend_extent(&w, SIZE_MAX, RECORD_EXTENT, 4, 20, 30));
	cr_assert_not(record_extend_extent(&w, off, RECORD_EXTENT, 5, 20, 30), "another transfer");
	cr_assert_not(record_extend_extent(&w, off, RECORD_EXTENT, 4, 21, 30), "a hole");
	cr_assert_not(record_extend_extent(&w, off, RECORD_EXTENT, 4, 19, 30), "an overlap");
	cr_assert_not(record_extend_extent(&w, 0, RECORD_EXTENT, 4, 40, 50), "not the last");
	cr_assert_arr_eq(buf, before, w.bytes);

	cr_assert(record_extend_extent(&w, off, RECORD_EXTENT, 4, 20, 30));
	cr_assert(record_extend_extent(&w, off, RECORD_EXTENT, 4, 30, UINT64_MAX));
	cr_assert_eq(w.bytes, off + 40);
	cr_assert_eq(w.seq, 43);
	struct record_reader r = reader(buf, w.bytes);
	r.seq = 41;
	cr_assert_eq(record_next(&r, &out), 1);
	cr_assert_eq(record_next(&r, &out), 1);
	cr_assert(same_record(&out, &(struct record){.type = RECORD_EXTENT, .tid = 4, .from = 10,
		.to = UINT64_MAX}));
	cr_assert_eq(record_next(&r, &out), 0);

	/* An extent that fits, but has another record behind it. */
	w.bytes = 0;
	cr_assert_eq(record_append(&w, &e), 0);
	cr_assert_eq(record_append(&w, &(struct record){.type = RECORD_ABORTED, .tid = 4}), 0);
	memcpy(before, buf, sizeof(buf));
	cr_assert_not(record_extend_extent(&w, 0, RECORD_EXTENT, 4, 20, 30));
	cr_assert_arr_eq(buf, before, w.bytes);

	/* Bytes that are synced are not joined to bytes that are only written. */
	cr_assert_not(record_extend_extent(&w, 0, RECORD_SYNCED, 4, 20, 30));
	w.bytes = 0;
	e.type = RECORD_SYNCED;
	cr_assert_eq(record_append(&w, &e), 0);
	cr_assert_not(record_extend_extent(&w, 0, RECORD_EXTENT, 4, 20, 30));
	cr_assert(record_extend_extent(&w, 0, RECORD_SYNCED, 4, 20, 30));

	/* The same bytes in an UNCOVER are no extent. */
	off = w.bytes;
	cr_assert_eq(record_append(&w, &other), 0);
	cr_assert_not(record_extend_extent(&w, off, RECORD_EXTENT, 4, 40, 50));
}

/* A batch of segments that mostly follow each other, as a reactor makes it. */
Test(record, random_batches_with_extends)
{
	static uint8_t buf[65536];
	uint64_t rng = 1, ends[200][3];
	for (int run = 0; run < 50; run++) {
		struct record_writer w = writer(buf, sizeof(buf));
		int count = 0;
		size_t last_off = SIZE_MAX;
		uint64_t at[2] = {0, 0};
		for (int i = 0; i < 200; i++) {
			uint64_t tid = random_next(&rng) % 8 == 0, from = at[tid];
			from += random_next(&rng) % 8 == 0;
			at[tid] = from + random_next(&rng) % 100;
			if (record_extend_extent(&w, last_off, RECORD_EXTENT, tid, from, at[tid])) {
				ends[count - 1][2] = at[tid];
				continue;
			}
			last_off = w.bytes;
			cr_assert_eq(record_append(&w, &(struct record){.type = RECORD_EXTENT, .tid = tid,
				.from = from, .to = at[tid]}), 0);
			memcpy(ends[count++], (uint64_t[]){tid, from, at[tid]}, sizeof(ends[0]));
		}
		cr_assert_lt(count, 150);
		struct record_reader r = reader(buf, w.bytes);
		struct record out;
		for (int i = 0; i < count; i++) {
			cr_assert_eq(record_next(&r, &out), 1);
			cr_assert_eq(out.tid, ends[i][0]);
			cr_assert_eq(out.from, ends[i][1]);
			cr_assert_eq(out.to, ends[i][2]);
		}
		cr_assert_eq(record_next(&r, &out), 0);
	}
}

/* ---- sizes ---- */

Test(record, a_full_buffer_stays_as_it_was)
{
	uint8_t buf[128];
	for (int i = 0; i < SAMPLES_COUNT; i++) {
		size_t size = record_size(&samples[i]);
		for (size_t room = 0; room < size; room++) {
			memset(buf, 0xcc, sizeof(buf));
			struct record_writer w = writer(room == 0 ? NULL : buf, room);
			cr_assert_eq(record_append(&w, &samples[i]), -ENOSPC);
			cr_assert_eq(w.bytes, 0);
			cr_assert_eq(w.seq, 0);
			for (size_t j = 0; j < sizeof(buf); j++)
				cr_assert_eq(buf[j], 0xcc);
		}
		struct record_writer w = writer(buf, size);
		cr_assert_eq(record_append(&w, &samples[i]), 0);
	}
}

Test(record, the_longest_record)
{
	enum { TEXT_MAX = RECORD_BYTES_MAX - 24 };
	char *text = malloc(TEXT_MAX + 1);
	uint8_t *buf = malloc(RECORD_BYTES_MAX * 2);
	memset(text, 'x', TEXT_MAX + 1);
	struct record meta = {.type = RECORD_META, .text = text, .text_bytes = TEXT_MAX}, out;
	struct record_writer w = writer(buf, RECORD_BYTES_MAX * 2);
	cr_assert_eq(record_append(&w, &meta), 0);
	cr_assert_eq(w.bytes, RECORD_BYTES_MAX);
	meta.text_bytes++;
	cr_assert_eq(record_append(&w, &meta), -E2BIG);
	meta.text_bytes = UINT32_MAX;
	cr_assert_eq(record_append(&w, &meta), -E2BIG);
	cr_assert_eq(w.bytes, RECORD_BYTES_MAX);
	cr_assert_eq(w.seq, 1);
	struct record_reader r = reader(buf, w.bytes);
	cr_assert_eq(record_next(&r, &out), 1);
	meta.text_bytes = TEXT_MAX;
	cr_assert(same_record(&out, &meta));

	struct record open = {.type = RECORD_OPEN, .clientid = text, .clientid_bytes = 65535,
		.fileid = text, .fileid_bytes = 65535};
	w.bytes = 0;
	w.seq = 0;
	cr_assert_eq(record_append(&w, &open), 0);
	r = reader(buf, w.bytes);
	cr_assert_eq(record_next(&r, &out), 1);
	cr_assert(same_record(&out, &open));
	open.clientid_bytes++;
	cr_assert_eq(record_append(&w, &open), -E2BIG);
	open.clientid_bytes--;
	open.fileid_bytes++;
	cr_assert_eq(record_append(&w, &open), -E2BIG);
	free(text);
	free(buf);
}

/* A length that points past the limit or the file is the end, whatever the checksum. */
Test(record, lengths_beyond_the_file_are_the_end)
{
	uint8_t buf[128];
	put_sample(buf, &samples[3]);
	for (unsigned bytes = 129; bytes < 1u << 24; bytes += 4099) {
		buf[9] = (uint8_t)bytes;
		buf[10] = (uint8_t)(bytes >> 8);
		buf[11] = (uint8_t)(bytes >> 16);
		cr_assert_eq(read_one(buf, 128), 0);
	}
	/* One step above the limit, and else all right. */
	size_t above = RECORD_BYTES_MAX + 8;
	uint8_t *big = calloc(1, above);
	put_sample(big, &samples[1]);
	memcpy(big + 9, (uint8_t[]){above & 255, above >> 8 & 255, above >> 16}, 3);
	seal(big, above, 0);
	cr_assert_eq(read_one(big, above), 0);
	free(big);

	struct record out;
	struct record_reader r = reader(buf, 128);
	r.off = 128;
	cr_assert_eq(record_next(&r, &out), 0);
	r.off = 129;
	cr_assert_eq(record_next(&r, &out), 0);
}

/* ---- the header ---- */

Test(record, header_comes_back)
{
	uint8_t buf[RECORD_HEADER_BYTES];
	uint64_t salt, file_seq;
	uint32_t reactor_idx;
	memset(buf, 0xff, sizeof(buf));
	record_header_encode(buf, UINT64_MAX - 1, UINT64_MAX - 2, UINT32_MAX - 3);
	cr_assert_eq(record_header_decode(buf, sizeof(buf), &salt, &file_seq, &reactor_idx), 0);
	cr_assert_eq(salt, UINT64_MAX - 1);
	cr_assert_eq(file_seq, UINT64_MAX - 2);
	cr_assert_eq(reactor_idx, UINT32_MAX - 3);
}

Test(record, damaged_headers_are_told_apart)
{
	uint8_t buf[RECORD_HEADER_BYTES];
	uint64_t salt = 1, file_seq = 2;
	uint32_t reactor_idx = 3;
	record_header_encode(buf, 11, 12, 13);
	for (size_t bytes = 0; bytes < sizeof(buf); bytes++)
		cr_assert_eq(record_header_decode(buf, bytes, &salt, &file_seq, &reactor_idx), -EINVAL);
	for (size_t at = 0; at < sizeof(buf); at++) {
		for (int flip = 1; flip < 256; flip++) {
			buf[at] ^= flip;
			cr_assert_eq(record_header_decode(buf, sizeof(buf), &salt, &file_seq, &reactor_idx),
				at < 8 ? -EINVAL : -EBADMSG);
			buf[at] ^= flip;
		}
	}
	/* What an older program wrote is read. */
	for (uint8_t version = 1; version < 3; version++) {
		buf[8] = version;
		uint64_t sum = XXH3_64bits(buf, 56);
		memcpy(buf + 56, &sum, 8);
		cr_assert_eq(record_header_decode(buf, sizeof(buf), &salt, &file_seq, &reactor_idx), 0);
		cr_assert_eq(salt, 11);
		cr_assert_eq(file_seq, 12);
		record_header_encode(buf, 11, 12, 13);
		salt = 1;
		file_seq = 2;
		reactor_idx = 3;
	}
	/* Whole, but of another version, or with something in what must be zero. */
	for (size_t at = 8; at < 56; at += at == 8 ? 24 : 1) {
		buf[at] ^= 4;
		uint64_t checksum = XXH3_64bits(buf, 56);
		memcpy(buf + 56, &checksum, 8); /* the tests run on little-endian machines */
		cr_assert_eq(record_header_decode(buf, sizeof(buf), &salt, &file_seq, &reactor_idx), -EPROTO);
		buf[at] ^= 4;
	}
	cr_assert_eq(salt, 1);
	cr_assert_eq(file_seq, 2);
	cr_assert_eq(reactor_idx, 3);
}
