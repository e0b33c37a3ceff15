/*
 * Cursors over a packet: one that reads, one that writes, both with a sticky error.
 *
 * A parser reads field after field and asks once, at the end or before a value decides something,
 * whether all of them were there: after the first read past the end every further read gives zeros
 * and the cursor stays at the end, so that loops over it end too. Integers are big endian, as MQTT
 * has them.
 *
 * The writer has a second use: without a buffer it only counts, so that one function both sizes a
 * packet and writes it, and the two can't disagree.
 *
 * Neither owns memory, neither knows what the fields mean.
 */
#ifndef SLUICE_WIRE_H
#define SLUICE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WIRE_VARINT_MAX = 268435455 }; /* four groups of seven bits [MQTT 5.0, 1.5.5] */

struct wire_reader {
	const uint8_t *at, *end; /* at ≤ end */
	/* 0 while all is well. How many bytes the first failed read lacked: a stream parser waits
	 * for them. WIRE_BAD when no number of further bytes can help. */
	size_t missing_bytes;
};

#define WIRE_BAD SIZE_MAX

static inline struct wire_reader wire_reader_make(const uint8_t *buf, size_t buf_bytes)
{
	/* An empty body may come as NULL, to which C allows no offset, not even 0. */
	return (struct wire_reader){.at = buf, .end = buf_bytes > 0 ? buf + buf_bytes : buf};
}

static inline bool wire_read_failed(const struct wire_reader *r)
{
	return r->missing_bytes != 0;
}

static inline size_t wire_read_left(const struct wire_reader *r)
{
	return (size_t)(r->end - r->at);
}

static inline void wire_read_fail(struct wire_reader *r, size_t missing_bytes)
{
	if (r->missing_bytes == 0)
		r->missing_bytes = missing_bytes;
	r->at = r->end;
}

/* The next `bytes` bytes, borrowed; NULL when there are fewer. */
static inline const uint8_t *wire_read_bytes(struct wire_reader *r, size_t bytes)
{
	size_t left = wire_read_left(r);
	const uint8_t *found = r->at;

	if (__builtin_expect(bytes > left || r->missing_bytes != 0, false)) {
		wire_read_fail(r, bytes - left);
		return NULL;
	}
	r->at += bytes;
	return found;
}

static inline uint8_t wire_read_u8(struct wire_reader *r)
{
	const uint8_t *b = wire_read_bytes(r, 1);

	return b ? b[0] : 0;
}

static inline uint16_t wire_read_u16(struct wire_reader *r)
{
	const uint8_t *b = wire_read_bytes(r, 2);

	return b ? (uint16_t)(b[0] << 8 | b[1]) : 0;
}

static inline uint32_t wire_read_u32(struct wire_reader *r)
{
	const uint8_t *b = wire_read_bytes(r, 4);

	return b ? (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3] : 0;
}

/* A variable byte integer of at most four bytes. A fifth byte is WIRE_BAD, and so is an encoding
 * longer than needed. [MQTT-1.5.5-1] */
static inline uint32_t wire_read_varint(struct wire_reader *r)
{
	uint32_t value = 0;

	for (unsigned shift = 0; shift < 28; shift += 7) {
		const uint8_t *b = wire_read_bytes(r, 1);

		if (!b)
			return 0;
		value |= (uint32_t)(*b & 0x7f) << shift;
		if (!(*b & 0x80)) {
			if (*b == 0 && shift > 0)
				break;
			return value;
		}
	}
	wire_read_fail(r, WIRE_BAD);
	return 0;
}

/* A string or binary value behind its two-byte length, borrowed. NULL and 0 bytes when it is cut
 * short; an empty one that is there is not NULL. */
static inline const uint8_t *wire_read_span(struct wire_reader *r, uint32_t *ret_bytes)
{
	uint32_t bytes = wire_read_u16(r);
	const uint8_t *found = wire_read_bytes(r, bytes);

	*ret_bytes = found ? bytes : 0;
	return found;
}

struct wire_writer {
	uint8_t *buf; /* NULL: only count */
	size_t bytes, bytes_max;
	bool failed; /* something did not fit; `bytes` then means nothing */
};

static inline struct wire_writer wire_writer_make(uint8_t *buf, size_t bytes_max)
{
	return (struct wire_writer){.buf = buf, .bytes_max = bytes_max};
}

static inline struct wire_writer wire_counter_make(void)
{
	return (struct wire_writer){.bytes_max = SIZE_MAX};
}

static inline void wire_write_bytes(struct wire_writer *w, const void *src, size_t bytes)
{
	if (w->failed || bytes > w->bytes_max - w->bytes) {
		w->failed = true;
		return;
	}
	if (w->buf && bytes > 0)
		memcpy(w->buf + w->bytes, src, bytes);
	w->bytes += bytes;
}

static inline void wire_write_u8(struct wire_writer *w, uint8_t value)
{
	wire_write_bytes(w, &value, 1);
}

static inline void wire_write_u16(struct wire_writer *w, uint16_t value)
{
	wire_write_bytes(w, (uint8_t[]){value >> 8, value & 0xff}, 2);
}

static inline void wire_write_u32(struct wire_writer *w, uint32_t value)
{
	wire_write_bytes(w,
		(uint8_t[]){value >> 24, value >> 16 & 0xff, value >> 8 & 0xff, value & 0xff}, 4);
}

/* A value over WIRE_VARINT_MAX fails. */
static inline void wire_write_varint(struct wire_writer *w, uint32_t value)
{
	if (value > WIRE_VARINT_MAX) {
		w->failed = true;
		return;
	}
	do {
		uint8_t group = value & 0x7f;

		value >>= 7;
		wire_write_u8(w, group | (value ? 0x80 : 0));
	} while (value);
}

/* A string or binary value with its two-byte length; longer than that can say fails. */
static inline void wire_write_span(struct wire_writer *w, const void *src, size_t bytes)
{
	if (bytes > UINT16_MAX) {
		w->failed = true;
		return;
	}
	wire_write_u16(w, (uint16_t)bytes);
	wire_write_bytes(w, src, bytes);
}

#endif
