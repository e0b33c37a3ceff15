/*
 * SHA-256 kernels that run everywhere: our own in C, and wolfSSL's.
 *
 * wolfSSL's is as fast as the assembly that it was built with. Debian builds it without any, and
 * then the compiler makes more of ours (0.45 against 0.32 GB/s, on Zen 5); on a machine whose wolfSSL
 * uses the processor's own instructions it is the other way round. sha256_calibrate() finds out.
 *
 * A midstate is taken up by writing it into wolfSSL's structure, which its headers lay open: digest
 * is the eight words in the host's order, in every build that compresses in software.
 */
#include "sha256.h"
#include "sha256_impl.h"

#include <assert.h>
#include <endian.h>
#include <string.h>
#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/sha256.h>

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

static void portable_block(uint32_t state[8], const uint8_t *block)
{
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
	uint32_t w[16];
	for (int i = 0; i < 16; i++)
		w[i] = load_be32(block + 4 * i);

	for (int t = 0; t < 64; t += 16) {
		SHA256_EIGHT_ROUNDS(0);
		SHA256_EIGHT_ROUNDS(8);
	}
	state[0] += a, state[1] += b, state[2] += c, state[3] += d;
	state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

void sha256_portable_1(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	for (size_t i = 0; i < blocks; i++)
		portable_block(h[0], data[0] + i * SHA256_BLOCK_BYTES);
}

/* ---- wolfSSL's ---- */

void sha256_wolfssl_1(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	enum { BLOCKS_MAX = 1 << 20 }; /* their lengths have 32 bits */
	struct wc_Sha256 sha;
	int err = wc_InitSha256(&sha);
	memcpy(sha.digest, h[0], sizeof(sha.digest));
	for (size_t done = 0, step; done < blocks && !err; done += step) {
		step = blocks - done < BLOCKS_MAX ? blocks - done : BLOCKS_MAX;
		err = wc_Sha256Update(&sha, data[0] + done * SHA256_BLOCK_BYTES,
			(word32)(step * SHA256_BLOCK_BYTES));
	}
	assert(!err);
	memcpy(h[0], sha.digest, sizeof(sha.digest));
	wc_Sha256Free(&sha);
}
