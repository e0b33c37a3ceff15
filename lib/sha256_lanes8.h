/*
 * SHA-256 in eight lanes of 256-bit vectors: what sha256_avx2.c and sha256_avx512vl.c have in common.
 *
 * The streams are transposed: a vector holds one word of each of eight messages, and every
 * instruction does the same step of all of them.
 *
 * A block costs the same whether all lanes are wanted or not: sha256_choose.c decides from how many
 * streams on this is better than one after the other.
 *
 * Before it is included: EIGHT_LANES is the target attribute, EIGHT_LANES_KERNEL the kernel's name;
 * rotate, xor3, choice and majority are defined.
 */
#include "sha256_x86.h"

#define EIGHT_LANES_INLINE EIGHT_LANES __attribute__((always_inline)) static inline
#define ADD _mm256_add_epi32
#define SHIFT _mm256_srli_epi32

enum { LANES = 8 };

/* 8 rows of 8 words become 8 columns: by words and pairs of words within each half of the
 * registers, then by halves. */
EIGHT_LANES_INLINE void transpose(__m256i r[8])
{
	__m256i t[8];
	UNROLLED for (int i = 0; i < 8; i += 2) {
		t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
	}
	UNROLLED for (int i = 0; i < 8; i += 4) {
		r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	UNROLLED for (int i = 0; i < 4; i++) {
		t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
		t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
	}
	UNROLLED for (int i = 0; i < 8; i++)
		r[i] = t[i];
}

/* Half of the next block of every stream, as eight schedule words. */
EIGHT_LANES_INLINE void load_half(__m256i w[8], const uint8_t *const data[], size_t off)
{
	const __m256i big_endian = _mm256_broadcastsi128_si256(
		_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
	UNROLLED for (int i = 0; i < LANES; i++)
		w[i] = _mm256_shuffle_epi8(_mm256_loadu_si256((const void *)(data[i] + off)), big_endian);
	transpose(w);
}

/* As in sha256_portable.c, where the letters' places are explained. */
#define ROUND(a, b, c, d, e, f, g, h, i) do { \
	if (t > 0) { \
		__m256i w2 = w[((i) + 14) % 16], w15 = w[((i) + 1) % 16]; \
		w[i] = ADD(ADD(w[i], w[((i) + 9) % 16]), \
			ADD(xor3(rotate(w2, 17), rotate(w2, 19), SHIFT(w2, 10)), \
				xor3(rotate(w15, 7), rotate(w15, 18), SHIFT(w15, 3)))); \
	} \
	__m256i t1 = ADD(ADD(h, ADD(w[i], _mm256_set1_epi32((int)sha256_k[t + (i)]))), \
		ADD(xor3(rotate(e, 6), rotate(e, 11), rotate(e, 25)), choice(e, f, g))); \
	d = ADD(d, t1); \
	h = ADD(t1, ADD(xor3(rotate(a, 2), rotate(a, 13), rotate(a, 22)), majority(a, b, c))); \
} while (0)

EIGHT_LANES_INLINE void compress(__m256i s[8], __m256i w[16])
{
	__m256i a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
	UNROLLED for (int t = 0; t < 64; t += 16) {
		SHA256_EIGHT_ROUNDS(0);
		SHA256_EIGHT_ROUNDS(8);
	}
	s[0] = ADD(s[0], a), s[1] = ADD(s[1], b), s[2] = ADD(s[2], c), s[3] = ADD(s[3], d);
	s[4] = ADD(s[4], e), s[5] = ADD(s[5], f), s[6] = ADD(s[6], g), s[7] = ADD(s[7], h);
}

EIGHT_LANES void EIGHT_LANES_KERNEL(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	uint32_t words[8][LANES] __attribute__((aligned(32)));
	__m256i s[8], w[16];
	for (int lane = 0; lane < LANES; lane++) {
		UNROLLED for (int i = 0; i < 8; i++)
			words[i][lane] = h[lane][i];
	}
	UNROLLED for (int i = 0; i < 8; i++)
		s[i] = _mm256_load_si256((const void *)words[i]);
	for (size_t block = 0; block < blocks; block++) {
		load_half(w, data, block * SHA256_BLOCK_BYTES);
		load_half(w + 8, data, block * SHA256_BLOCK_BYTES + 32);
		compress(s, w);
	}
	UNROLLED for (int i = 0; i < 8; i++)
		_mm256_store_si256((void *)words[i], s[i]);
	for (int lane = 0; lane < LANES; lane++) {
		UNROLLED for (int i = 0; i < 8; i++)
			h[lane][i] = words[i][lane];
	}
}
