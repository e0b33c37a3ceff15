/*
 * Journal records: the format.
 *
 * A journal file is a header and then records, back to back, to the end of what was written. The
 * file is preallocated, and may be one that was used before; so what lies behind the last record
 * is zeros, or old records, or half of a record that a crash tore. All integers are little-endian
 * and unsigned unless it says otherwise.
 *
 * HEADER, 64 bytes:
 *
 *     0   8   magic: "sluiceJ\n"
 *     8   4   version: 3; what is written in versions 1 and 2 is read in the same way, they have fewer types
 *    12   4   index of the reactor that wrote the file
 *    16   8   salt: chosen at random for every file, also when a file is used again
 *    24   8   sequence number of the file among its reactor's journals
 *    32  24   zero
 *    56   8   checksum: XXH3-64 of the bytes 0–55
 *
 * Magic, version and checksum keep their places in every version, so that a damaged header and
 * one from the future can be told apart: the checksum is looked at first.
 *
 * RECORD: a frame of 16 bytes, a body, zeros up to a multiple of 8:
 *
 *     0   8   checksum: XXH3-64 of all that follows, the padding too; its seed is made of the salt
 *             and the record's whole sequence number
 *     8   1   type: enum record_type
 *     9   3   bytes: frame and body, without the padding
 *    12   4   the lower half of the sequence number of the record within the file
 *    16   …   body
 *
 * BODY: the fields that record_fields[] gives to the type, in this order and without gaps:
 *
 *     tid          8
 *     range       16   from, to: from ≤ to
 *     size         8
 *     midstate    40   frontier, a multiple of 64; eight words of SHA-256 state, 4 bytes each
 *     epoch        8
 *     at_ms        8   signed
 *     generation   4
 *     ids          4   bytes of clientid, bytes of fileid, 2 each; the ids themselves stand behind
 *                      the fields of fixed size, clientid first
 *     digest      32   in FIN it may be missing; whether it is there follows from the length. In
 *                      PUBLISHING, zeros: nobody asked for it
 *     text         …   all the rest of the body: no terminator, may be empty
 *
 * There is one way only to write a given record. The most frequent one, EXTENT, takes 40 bytes.
 *
 * READING begins behind the header with sequence number 0 (or with what the writer began with)
 * and takes a record when its length is possible and fits into the file, its sequence number is
 * the expected one and its checksum is right. The first that isn't so is the end. Hence:
 *
 *   - Zeros are the end: no record is 0 bytes long.
 *   - A torn record is the end: the checksum covers every byte but its own, and is itself compared.
 *   - Records of an earlier use of the file are the end: they were made with another salt. Should
 *     a writer keep the salt, then the sequence number is an older one.
 *   - A record moved to another place is the end, for its sequence number says where it belongs.
 *
 * Whether that end is where the writer stopped or the disk lost something, the bytes alone can't
 * say. record_skip looks whether records of the file lie behind it: when the machine died they may,
 * since pages reach the disk in any order. But a SYNC_MARK among them says up to where all was on
 * the disk before it was written; a bad record below that is damage. What has a good checksum and
 * yet breaks the rules above was written so by a program: an error of its own, −EBADMSG.
 *
 * It deliberately does no I/O and knows nothing of what the records mean to each other.
 */
#include "record.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

/* Most records are some tens of bytes: a call into the library costs more than their hash. */
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { RECORD_VERSION = 3, FRAME_BYTES = 16, EXTENT_BYTES = 40, ID_BYTES_MAX = 65535 };

static const char record_magic[8] = {'s', 'l', 'u', 'i', 'c', 'e', 'J', '\n'};

enum field {
	FIELD_TID = 1 << 0,
	FIELD_RANGE = 1 << 1,
	FIELD_SIZE = 1 << 2,
	FIELD_MIDSTATE = 1 << 3,
	FIELD_EPOCH = 1 << 4,
	FIELD_AT_MS = 1 << 5,
	FIELD_GENERATION = 1 << 6,
	FIELD_IDS = 1 << 7,
	FIELD_DIGEST = 1 << 8,
	FIELD_DIGEST_MAYBE = 1 << 9,
	FIELD_TEXT = 1 << 10,
};

static const uint16_t record_fields[RECORD_TYPE_MAX + 1] = {
	[RECORD_OPEN] = FIELD_TID | FIELD_EPOCH | FIELD_AT_MS | FIELD_GENERATION | FIELD_IDS | FIELD_TEXT,
	[RECORD_META] = FIELD_TID | FIELD_TEXT,
	[RECORD_RESERVE] = FIELD_TID | FIELD_SIZE,
	[RECORD_EXTENT] = FIELD_TID | FIELD_RANGE,
	[RECORD_UNCOVER] = FIELD_TID | FIELD_RANGE,
	[RECORD_MIDSTATE] = FIELD_TID | FIELD_MIDSTATE,
	[RECORD_FIN] = FIELD_TID | FIELD_SIZE | FIELD_DIGEST_MAYBE,
	[RECORD_FIN_FAILED] = FIELD_TID,
	[RECORD_PUBLISHING] = FIELD_TID | FIELD_SIZE | FIELD_DIGEST | FIELD_TEXT,
	[RECORD_PUBLISHED] = FIELD_TID | FIELD_AT_MS,
	[RECORD_ABORTED] = FIELD_TID,
	[RECORD_EXPIRED] = FIELD_TID,
	[RECORD_FORGET] = FIELD_TID,
	[RECORD_CHECKPOINT_END] = 0,
	[RECORD_SYNCED] = FIELD_TID | FIELD_RANGE,
	[RECORD_LOST] = FIELD_TID,
	[RECORD_STAGING] = FIELD_TID | FIELD_TEXT,
	[RECORD_SYNC_MARK] = FIELD_SIZE,
	[RECORD_USER] = FIELD_TID | FIELD_TEXT,
};

/* ---- integers at a cursor; the caller has made sure of the room ---- */

static void put_bytes(uint8_t **at, const void *bytes, size_t count)
{
	if (count > 0)
		memcpy(*at, bytes, count);
	*at += count;
}

static void put_u16(uint8_t **at, uint16_t value)
{
	value = htole16(value);
	put_bytes(at, &value, sizeof(value));
}

static void put_u32(uint8_t **at, uint32_t value)
{
	value = htole32(value);
	put_bytes(at, &value, sizeof(value));
}

static void put_u64(uint8_t **at, uint64_t value)
{
	value = htole64(value);
	put_bytes(at, &value, sizeof(value));
}

static uint16_t get_u16(const uint8_t **at)
{
	uint16_t value;
	memcpy(&value, *at, sizeof(value));
	*at += sizeof(value);
	return le16toh(value);
}

static uint32_t get_u32(const uint8_t **at)
{
	uint32_t value;
	memcpy(&value, *at, sizeof(value));
	*at += sizeof(value);
	return le32toh(value);
}

static uint64_t get_u64(const uint8_t **at)
{
	uint64_t value;
	memcpy(&value, *at, sizeof(value));
	*at += sizeof(value);
	return le64toh(value);
}

static uint64_t peek_u64(const uint8_t *at)
{
	return get_u64(&at);
}

/* ---- the header ---- */

static uint64_t header_checksum(const uint8_t *buf)
{
	return XXH3_64bits(buf, RECORD_HEADER_BYTES - sizeof(uint64_t));
}

void record_header_encode(uint8_t *buf, uint64_t salt, uint64_t file_seq, uint32_t reactor_idx)
{
	uint8_t *at = buf;
	memset(buf, 0, RECORD_HEADER_BYTES);
	put_bytes(&at, record_magic, sizeof(record_magic));
	put_u32(&at, RECORD_VERSION);
	put_u32(&at, reactor_idx);
	put_u64(&at, salt);
	put_u64(&at, file_seq);
	at = buf + RECORD_HEADER_BYTES - sizeof(uint64_t);
	put_u64(&at, header_checksum(buf));
}

int record_header_decode(const uint8_t *buf, size_t buf_bytes, uint64_t *ret_salt,
	uint64_t *ret_file_seq, uint32_t *ret_reactor_idx)
{
	if (buf_bytes < RECORD_HEADER_BYTES || memcmp(buf, record_magic, sizeof(record_magic)) != 0)
		return -EINVAL;
	if (peek_u64(buf + RECORD_HEADER_BYTES - sizeof(uint64_t)) != header_checksum(buf))
		return -EBADMSG;

	const uint8_t *at = buf + sizeof(record_magic);
	uint32_t version = get_u32(&at);
	if (version == 0 || version > RECORD_VERSION)
		return -EPROTO;
	uint32_t reactor_idx = get_u32(&at);
	uint64_t salt = get_u64(&at);
	uint64_t file_seq = get_u64(&at);
	/* Whoever gives the zeros a meaning must give the format another version. */
	if ((get_u64(&at) | get_u64(&at) | get_u64(&at)) != 0)
		return -EPROTO;
	*ret_salt = salt;
	*ret_file_seq = file_seq;
	*ret_reactor_idx = reactor_idx;
	return 0;
}

/* ---- frames ---- */

static size_t pad(size_t bytes)
{
	return (bytes + 7) & ~(size_t)7;
}

/* The odd factor (2^64 by the golden ratio) spreads the sequence over the seed, so that salts which
 * are near each other don't meet each other's sequences. */
static uint64_t frame_checksum(const uint8_t *frame, size_t padded, uint64_t salt, uint64_t seq)
{
	return XXH3_64bits_withSeed(frame + sizeof(uint64_t), padded - sizeof(uint64_t),
		salt + seq * 0x9e3779b97f4a7c15);
}

static void frame_seal(uint8_t *frame, size_t padded, uint64_t salt, uint64_t seq)
{
	put_u64(&frame, frame_checksum(frame, padded, salt, seq));
}

/* ---- bodies ---- */

/* Bytes of the fields whose size does not depend on their contents. */
static size_t fields_fixed_bytes(unsigned fields)
{
	return (fields & FIELD_TID ? 8 : 0) + (fields & FIELD_RANGE ? 16 : 0)
		+ (fields & FIELD_SIZE ? 8 : 0) + (fields & FIELD_MIDSTATE ? 40 : 0)
		+ (fields & FIELD_EPOCH ? 8 : 0) + (fields & FIELD_AT_MS ? 8 : 0)
		+ (fields & FIELD_GENERATION ? 4 : 0) + (fields & FIELD_IDS ? 4 : 0)
		+ (fields & FIELD_DIGEST ? 32 : 0);
}

/* The fields of this very record: the digest that may be there is there or not. */
static unsigned fields_of(const struct record *r)
{
	assert(r->type >= RECORD_OPEN && r->type <= RECORD_TYPE_MAX);
	unsigned fields = record_fields[r->type];
	if (fields & FIELD_DIGEST_MAYBE && r->has_digest)
		fields |= FIELD_DIGEST;
	return fields;
}

static size_t record_bytes(const struct record *r, unsigned fields)
{
	size_t bytes = FRAME_BYTES + fields_fixed_bytes(fields);
	if (fields & FIELD_IDS)
		bytes += (size_t)r->clientid_bytes + r->fileid_bytes;
	if (fields & FIELD_TEXT)
		bytes += r->text_bytes;
	return bytes;
}

static void body_put(uint8_t **at, const struct record *r, unsigned fields)
{
	if (fields & FIELD_TID)
		put_u64(at, r->tid);
	if (fields & FIELD_RANGE) {
		assert(r->from <= r->to);
		put_u64(at, r->from);
		put_u64(at, r->to);
	}
	if (fields & FIELD_SIZE)
		put_u64(at, r->size);
	if (fields & FIELD_MIDSTATE) {
		assert(r->frontier % 64 == 0);
		put_u64(at, r->frontier);
		for (int i = 0; i < 8; i++)
			put_u32(at, r->h[i]);
	}
	if (fields & FIELD_EPOCH)
		put_u64(at, r->epoch);
	if (fields & FIELD_AT_MS)
		put_u64(at, (uint64_t)r->at_ms);
	if (fields & FIELD_GENERATION)
		put_u32(at, r->generation);
	if (fields & FIELD_IDS) {
		put_u16(at, (uint16_t)r->clientid_bytes);
		put_u16(at, (uint16_t)r->fileid_bytes);
	}
	if (fields & FIELD_DIGEST)
		put_bytes(at, r->digest, sizeof(r->digest));
	if (fields & FIELD_IDS) {
		put_bytes(at, r->clientid, r->clientid_bytes);
		put_bytes(at, r->fileid, r->fileid_bytes);
	}
	if (fields & FIELD_TEXT)
		put_bytes(at, r->text, r->text_bytes);
}

/* Reads the fields of fixed size, which the caller has made sure are there. */
static bool body_get_fixed(const uint8_t **at, struct record *r, unsigned fields)
{
	bool ok = true;
	if (fields & FIELD_TID)
		r->tid = get_u64(at);
	if (fields & FIELD_RANGE) {
		r->from = get_u64(at);
		r->to = get_u64(at);
		ok = r->from <= r->to;
	}
	if (fields & FIELD_SIZE)
		r->size = get_u64(at);
	if (fields & FIELD_MIDSTATE) {
		r->frontier = get_u64(at);
		for (int i = 0; i < 8; i++)
			r->h[i] = get_u32(at);
		ok = r->frontier % 64 == 0;
	}
	if (fields & FIELD_EPOCH)
		r->epoch = get_u64(at);
	if (fields & FIELD_AT_MS)
		r->at_ms = (int64_t)get_u64(at);
	if (fields & FIELD_GENERATION)
		r->generation = get_u32(at);
	if (fields & FIELD_IDS) {
		r->clientid_bytes = get_u16(at);
		r->fileid_bytes = get_u16(at);
	}
	if (fields & FIELD_DIGEST) {
		memcpy(r->digest, *at, sizeof(r->digest));
		*at += sizeof(r->digest);
	}
	return ok;
}

/* Contents of a record whose checksum is good. False when they break the rules of its type. */
static bool body_get(const uint8_t *at, size_t body_bytes, unsigned type, struct record *ret)
{
	if (type < RECORD_OPEN || type > RECORD_TYPE_MAX)
		return false;
	struct record r = {.type = (enum record_type)type};
	unsigned fields = record_fields[type];
	if (fields & FIELD_DIGEST_MAYBE && body_bytes > fields_fixed_bytes(fields)) {
		fields |= FIELD_DIGEST;
		r.has_digest = true;
	}
	if (body_bytes < fields_fixed_bytes(fields) || !body_get_fixed(&at, &r, fields))
		return false;

	size_t rest = body_bytes - fields_fixed_bytes(fields);
	if (fields & FIELD_IDS) {
		if (rest < (size_t)r.clientid_bytes + r.fileid_bytes)
			return false;
		rest -= (size_t)r.clientid_bytes + r.fileid_bytes;
		r.clientid = (const char *)at;
		r.fileid = r.clientid + r.clientid_bytes;
		at += r.clientid_bytes + r.fileid_bytes;
	}
	if (fields & FIELD_TEXT) {
		r.text = (const char *)at;
		r.text_bytes = (uint32_t)rest;
		rest = 0;
	}
	if (rest != 0)
		return false;
	*ret = r;
	return true;
}

/* ---- the contract ---- */

size_t record_size(const struct record *r)
{
	return pad(record_bytes(r, fields_of(r)));
}

int record_append(struct record_writer *w, const struct record *r)
{
	unsigned fields = fields_of(r);
	size_t bytes = record_bytes(r, fields), padded = pad(bytes);
	if (padded > RECORD_BYTES_MAX)
		return -E2BIG;
	if (fields & FIELD_IDS && (r->clientid_bytes > ID_BYTES_MAX || r->fileid_bytes > ID_BYTES_MAX))
		return -E2BIG;
	assert(w->bytes <= w->buf_max);
	if (padded > w->buf_max - w->bytes)
		return -ENOSPC;

	uint8_t *frame = w->buf + w->bytes, *at = frame + sizeof(uint64_t);
	put_u32(&at, (uint32_t)r->type | (uint32_t)bytes << 8);
	put_u32(&at, (uint32_t)w->seq);
	body_put(&at, r, fields);
	assert(at == frame + bytes);
	memset(at, 0, padded - bytes);
	frame_seal(frame, padded, w->salt, w->seq);
	w->bytes += padded;
	w->seq++;
	return 0;
}

bool record_extend_extent(struct record_writer *w, size_t last_off, enum record_type type,
	uint64_t tid, uint64_t from, uint64_t to)
{
	assert(from <= to && (type == RECORD_EXTENT || type == RECORD_SYNCED));
	if (last_off == SIZE_MAX || last_off + EXTENT_BYTES != w->bytes)
		return false;
	uint8_t *frame = w->buf + last_off;
	const uint8_t *at = frame + sizeof(uint64_t);
	uint32_t type_bytes = get_u32(&at), seq_low = get_u32(&at);
	if (type_bytes != ((uint32_t)type | EXTENT_BYTES << 8))
		return false;
	assert(seq_low == (uint32_t)(w->seq - 1));
	if (peek_u64(frame + FRAME_BYTES) != tid || peek_u64(frame + FRAME_BYTES + 16) != from)
		return false;
	uint8_t *ret_to = frame + FRAME_BYTES + 16;
	put_u64(&ret_to, to);
	frame_seal(frame, EXTENT_BYTES, w->salt, w->seq - 1);
	return true;
}

int record_next(struct record_reader *r, struct record *ret)
{
	if (r->off > r->buf_bytes || r->buf_bytes - r->off < FRAME_BYTES)
		return 0;
	const uint8_t *frame = r->buf + r->off, *at = frame;
	uint64_t checksum = get_u64(&at);
	uint32_t type_bytes = get_u32(&at), seq_low = get_u32(&at);
	size_t bytes = type_bytes >> 8, padded = pad(bytes);
	if (bytes < FRAME_BYTES || padded > RECORD_BYTES_MAX || padded > r->buf_bytes - r->off)
		return 0;
	if (seq_low != (uint32_t)r->seq || checksum != frame_checksum(frame, padded, r->salt, r->seq))
		return 0;

	for (size_t i = bytes; i < padded; i++) {
		if (frame[i] != 0)
			return -EBADMSG;
	}
	if (!body_get(at, bytes - FRAME_BYTES, type_bytes & 0xff, ret))
		return -EBADMSG;
	r->off += padded;
	r->seq++;
	return 1;
}

bool record_skip(struct record_reader *r)
{
	for (size_t off = r->off; off <= r->buf_bytes && r->buf_bytes - off >= FRAME_BYTES; off += 8) {
		const uint8_t *frame = r->buf + off, *at = frame;
		uint64_t checksum = get_u64(&at);
		uint32_t type_bytes = get_u32(&at), seq_low = get_u32(&at);
		size_t bytes = type_bytes >> 8, padded = pad(bytes);
		/* No record is shorter than a frame, so this many may lie between. */
		uint64_t between = seq_low - (uint32_t)r->seq;
		if (bytes < FRAME_BYTES || padded > RECORD_BYTES_MAX || padded > r->buf_bytes - off ||
			between == 0 || between > (off - r->off) / FRAME_BYTES)
			continue;
		if (checksum != frame_checksum(frame, padded, r->salt, r->seq + between))
			continue;
		r->off = off;
		r->seq += between;
		return true;
	}
	return false;
}
