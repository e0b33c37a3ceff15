/*
 * SHA-256 [FIPS 180-4] as resumable states, several at a time.
 *
 * Three parts. *Kernels* (sha256_impl.h) compress whole blocks of `width` unrelated messages at
 * once; sha256_choose.c knows which one is the best for how many. *Lanes* are handed to it: a slot
 * is given to the next lane as soon as its lane runs out of whole blocks, so lanes of uneven length
 * don't wait for each other, and only the last ones run narrower. *States* keep what is less than a
 * block until the rest of it arrives.
 *
 * After init a state is touched by the calls that name it and by nothing else, and the choice of
 * kernels is made before threads are: any number of threads may hash, each its own states.
 *
 * It deliberately does not look at how its bytes come from a file; that is the verify pool's work.
 */
#include "sha256.h"
#include "sha256_impl.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

/* ---- lanes ---- */

enum { TURN_BLOCKS = 64 };

/* Whole blocks of one lane, on their way through a kernel. */
struct slot {
	struct sha256 *state;
	const uint8_t *data;
	size_t blocks;
	size_t rest_bytes; /* behind them, less than a block: for the tail */
};

/* The bytes of a state that wait for the rest of their block. */
static size_t tail_bytes(const struct sha256 *s)
{
	return s->bytes % SHA256_BLOCK_BYTES;
}

/* Advances the first slots, as many as the kernel has place for. Places that are left over do what
 * the first one does, on a state that nobody looks at. */
static void slots_compress(const struct sha256_kernel *k, const struct slot *slots, unsigned count,
	size_t blocks)
{
	uint32_t unused[8] = {0};
	uint32_t *h[SHA256_WIDTH_MAX];
	const uint8_t *data[SHA256_WIDTH_MAX];
	for (unsigned i = 0; i < k->width; i++) {
		h[i] = i < count ? slots[i].state->h : unused;
		data[i] = i < count ? slots[i].data : slots[0].data;
	}
	k->run(h, data, blocks);
}

/* Takes a lane up: fills the tail, finds the whole blocks. The state's count runs ahead to what it
 * will be when the slot is done. False when there is nothing for a kernel to do. */
static bool slot_begin(struct slot *slot, struct sha256 *s, const uint8_t *data, size_t bytes)
{
	size_t tail = tail_bytes(s);
	s->bytes += bytes;
	if (tail > 0) {
		size_t fill = SHA256_BLOCK_BYTES - tail;
		if (bytes < fill) {
			if (bytes > 0)
				memcpy(s->tail + tail, data, bytes);
			return false;
		}
		memcpy(s->tail + tail, data, fill);
		slots_compress(sha256_kernel_for(1), &(struct slot){.state = s, .data = s->tail}, 1, 1);
		data += fill;
		bytes -= fill;
	}
	slot->state = s;
	slot->data = data;
	slot->blocks = bytes / SHA256_BLOCK_BYTES;
	slot->rest_bytes = bytes % SHA256_BLOCK_BYTES;
	if (slot->blocks == 0 && slot->rest_bytes > 0)
		memcpy(s->tail, data, slot->rest_bytes);
	return slot->blocks > 0;
}

/* Those with the most blocks to the front, as many as run. */
static void slots_order(struct slot *slots, unsigned count, unsigned front)
{
	for (unsigned i = 0; i < front; i++) {
		unsigned most = i;
		for (unsigned j = i + 1; j < count; j++)
			most = slots[j].blocks > slots[most].blocks ? j : most;
		struct slot swapped = slots[i];
		slots[i] = slots[most];
		slots[most] = swapped;
	}
}

/* Advances slots by the blocks that the shortest of them has, and drops those that are done.
 * Returns how many are left. When there are more slots than the kernel has places they take turns,
 * the longest first, so that not one is left over at the end that would have to run alone. */
static unsigned slots_run(struct slot *slots, unsigned count)
{
	const struct sha256_kernel *k = sha256_kernel_for(count);
	unsigned run = k->width < count ? k->width : count;
	size_t blocks = SIZE_MAX;
	if (run < count) {
		slots_order(slots, count, run);
		blocks = TURN_BLOCKS;
	}
	for (unsigned i = 0; i < run; i++)
		blocks = slots[i].blocks < blocks ? slots[i].blocks : blocks;
	slots_compress(k, slots, run, blocks);

	unsigned kept = 0;
	for (unsigned i = 0; i < count; i++) {
		struct slot *s = &slots[i];
		if (i < run) {
			s->data += blocks * SHA256_BLOCK_BYTES;
			s->blocks -= blocks;
		}
		if (s->blocks > 0)
			slots[kept++] = *s;
		else if (s->rest_bytes > 0)
			memcpy(s->state->tail, s->data, s->rest_bytes);
	}
	return kept;
}

void sha256_update_lanes(struct sha256_lane *lanes, size_t lanes_count)
{
	struct slot slots[SHA256_WIDTH_MAX];
	unsigned wanted = sha256_lanes_wanted(), busy = 0;
	for (size_t next = 0; next < lanes_count || busy > 0;) {
		while (busy < wanted && next < lanes_count) {
			const struct sha256_lane *l = &lanes[next++];
			busy += slot_begin(&slots[busy], l->state, l->data, l->data_bytes);
		}
		if (busy > 0)
			busy = slots_run(slots, busy);
	}
}

/* ---- states ---- */

void sha256_init(struct sha256 *s)
{
	*s = (struct sha256){.h = {
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
		0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	}};
}

void sha256_update(struct sha256 *s, const void *data, size_t data_bytes)
{
	sha256_update_lanes(&(struct sha256_lane){s, data, data_bytes}, 1);
}

void sha256_digest(const struct sha256 *s, uint8_t ret_digest[SHA256_DIGEST_BYTES])
{
	/* A one bit, zeros, and the length in bits as the last 8 bytes of a block. */
	struct sha256 padded = *s;
	uint64_t bits = htobe64(s->bytes * 8);
	uint8_t padding[SHA256_BLOCK_BYTES + sizeof(bits)] = {0x80};
	size_t zeros_end = (SHA256_BLOCK_BYTES * 2 - sizeof(bits) - 1 - tail_bytes(s))
		% SHA256_BLOCK_BYTES + 1;
	memcpy(padding + zeros_end, &bits, sizeof(bits));
	sha256_update(&padded, padding, zeros_end + sizeof(bits));
	assert(tail_bytes(&padded) == 0);

	for (int i = 0; i < 8; i++) {
		uint32_t word = htobe32(padded.h[i]);
		memcpy(ret_digest + 4 * i, &word, sizeof(word));
	}
}

void sha256_resume(struct sha256 *s, const uint32_t h[8], uint64_t bytes)
{
	assert(bytes % SHA256_BLOCK_BYTES == 0);
	struct sha256 resumed = {.bytes = bytes};
	memcpy(resumed.h, h, sizeof(resumed.h)); /* h may be that of *s itself */
	*s = resumed;
}

/* ---- hex ---- */

void sha256_to_hex(const uint8_t digest[SHA256_DIGEST_BYTES], char ret_hex[65])
{
	static const char digits[] = "0123456789abcdef";
	for (int i = 0; i < SHA256_DIGEST_BYTES; i++) {
		ret_hex[2 * i] = digits[digest[i] >> 4];
		ret_hex[2 * i + 1] = digits[digest[i] & 15];
	}
	ret_hex[2 * SHA256_DIGEST_BYTES] = '\0';
}

/* −1: not a digit. */
static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int sha256_from_hex(const char *hex, size_t hex_bytes, uint8_t ret_digest[SHA256_DIGEST_BYTES])
{
	uint8_t digest[SHA256_DIGEST_BYTES];
	if (hex_bytes != 2 * SHA256_DIGEST_BYTES)
		return -EINVAL;
	for (int i = 0; i < SHA256_DIGEST_BYTES; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
		if (high < 0 || low < 0)
			return -EINVAL;
		digest[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret_digest, digest, sizeof(digest));
	return 0;
}
