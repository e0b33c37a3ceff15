/*
 * SHA-256 [FIPS 180-4] as resumable states, several at a time.
 *
 * Three parts. *Kernels* compress whole blocks of `width` unrelated messages at once; which ones
 * this CPU can run is found out before main. *Lanes* are handed to the widest kernel that can be
 * filled: a slot is given to the next lane as soon as its lane runs out of whole blocks, so lanes
 * of uneven length don't wait for each other, and only the last ones run narrower. *States* keep
 * what is less than a block until the rest of it arrives.
 *
 * After init a state is touched by the calls that name it and by nothing else; there is no other
 * mutable data, so any number of threads may hash, each its own states.
 *
 * It deliberately does not look at how its bytes come from a file; that is the verify pool's work.
 */
#include "sha256.h"
#include "sha256_impl.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

const uint32_t sha256_k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

/* ---- the portable kernel ---- */

static inline uint32_t rotate(uint32_t x, int bits)
{
	return x >> bits | x << (32 - bits);
}

static inline uint32_t load_be32(const uint8_t *at)
{
	uint32_t value;
	memcpy(&value, at, sizeof(value));
	return be32toh(value);
}

/* Round t + i, on a ring of the 16 last words of the schedule; from t = 16 on, each word is made
 * where it is used. The letters change their places instead of their values: the next round names
 * them one further on, and after eight they are back. */
#define ROUND(a, b, c, d, e, f, g, h, i) do { \
	if (t > 0) { \
		uint32_t w2 = w[(i + 14) % 16], w15 = w[(i + 1) % 16]; \
		w[i] += (rotate(w2, 17) ^ rotate(w2, 19) ^ w2 >> 10) + w[(i + 9) % 16] \
			+ (rotate(w15, 7) ^ rotate(w15, 18) ^ w15 >> 3); \
	} \
	uint32_t t1 = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) \
		+ sha256_k[t + i] + w[i]; \
	d += t1; \
	h = t1 + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b))); \
} while (0)

#define EIGHT_ROUNDS(i) do { \
	ROUND(a, b, c, d, e, f, g, h, i); \
	ROUND(h, a, b, c, d, e, f, g, i + 1); \
	ROUND(g, h, a, b, c, d, e, f, i + 2); \
	ROUND(f, g, h, a, b, c, d, e, i + 3); \
	ROUND(e, f, g, h, a, b, c, d, i + 4); \
	ROUND(d, e, f, g, h, a, b, c, i + 5); \
	ROUND(c, d, e, f, g, h, a, b, i + 6); \
	ROUND(b, c, d, e, f, g, h, a, i + 7); \
} while (0)

static void portable_block(uint32_t state[8], const uint8_t *block)
{
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
	uint32_t w[16];
	for (int i = 0; i < 16; i++)
		w[i] = load_be32(block + 4 * i);

	for (int t = 0; t < 64; t += 16) {
		EIGHT_ROUNDS(0);
		EIGHT_ROUNDS(8);
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d;
	state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static void portable_1(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	for (size_t i = 0; i < blocks; i++)
		portable_block(h[0], data[0] + i * SHA256_BLOCK_BYTES);
}

/* ---- which kernels there are ---- */

struct kernel {
	const char *name;
	unsigned width;
	sha256_kernel_fn *run;
	bool (*available)(void); /* NULL: everywhere */
};

/* From wide to narrow; among the same width the best comes first. The last one runs everywhere. */
static const struct kernel kernels[] = {
	{"sha-ni", 2, sha256_ni_2, sha256_ni_available},
	{"sha-ni", 1, sha256_ni_1, sha256_ni_available},
	{"portable", 1, portable_1, NULL},
};

enum { KERNELS_COUNT = sizeof(kernels) / sizeof(kernels[0]) };

/* For n streams at hand, the widest kernel that they fill. Written before main. */
static const struct kernel *kernel_for[SHA256_WIDTH_MAX + 1];
static unsigned width_max; /* of those in kernel_for */

__attribute__((constructor)) static void kernels_choose(void)
{
	sha256_force_portable(false);
}

void sha256_force_portable(bool portable)
{
	bool usable[KERNELS_COUNT];
	for (unsigned i = 0; i < KERNELS_COUNT; i++) {
		const struct kernel *k = &kernels[i];
		usable[i] = k->available == NULL || (!portable && k->available());
	}
	for (unsigned n = 1; n <= SHA256_WIDTH_MAX; n++) {
		unsigned i = 0;
		while (!usable[i] || kernels[i].width > n)
			i++;
		kernel_for[n] = &kernels[i];
	}
	width_max = kernel_for[SHA256_WIDTH_MAX]->width;
}

const char *sha256_impl_name(void)
{
	return kernel_for[1]->name;
}

/* ---- lanes ---- */

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

static void compress_one(struct sha256 *s, const uint8_t *data, size_t blocks)
{
	kernel_for[1]->run(&(uint32_t *){s->h}, &(const uint8_t *){data}, blocks);
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
		compress_one(s, s->tail, 1);
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

/* Advances all slots by the blocks that the shortest of them has, and drops those that are done.
 * Returns how many are left. */
static unsigned slots_run(struct slot *slots, unsigned count)
{
	uint32_t *h[SHA256_WIDTH_MAX];
	const uint8_t *data[SHA256_WIDTH_MAX];
	const struct kernel *k = kernel_for[count];
	size_t blocks = slots[0].blocks;
	for (unsigned i = 0; i < k->width; i++) {
		h[i] = slots[i].state->h;
		data[i] = slots[i].data;
		blocks = slots[i].blocks < blocks ? slots[i].blocks : blocks;
	}
	k->run(h, data, blocks);

	unsigned kept = 0;
	for (unsigned i = 0; i < count; i++) {
		struct slot *s = &slots[i];
		if (i < k->width) {
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
	unsigned busy = 0;
	for (size_t next = 0; next < lanes_count || busy > 0;) {
		while (busy < width_max && next < lanes_count) {
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
