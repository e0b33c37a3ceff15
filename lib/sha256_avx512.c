/*
 * SHA-256 in sixteen lanes of AVX-512 (Skylake-X, Ice Lake, Zen 4 and newer).
 *
 * The streams are transposed: a vector holds one word of each of sixteen messages, and every
 * instruction does the same step of all of them. AVX-512 has what SHA-256 asks for: a rotation
 * (VPRORD) and any function of three operands (VPTERNLOGD), so that sums, choice and majority are
 * one instruction each behind their rotations. All of a round's state and the ring of 16 schedule
 * words fit into the 32 registers.
 *
 * A block costs the same whether all lanes are wanted or not: sha256.c decides from how many
 * streams on this is better than SHA-NI.
 */
#include "sha256_impl.h"

#if defined(__x86_64__)

#include "sha256_x86.h"

#define AVX512 __attribute__((target("avx512f,avx512bw")))
#define AVX512_INLINE AVX512 __attribute__((always_inline)) static inline

enum { LANES = 16 };

bool sha256_avx512_available(void)
{
	/* Includes that the operating system saves the registers. */
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

#define XOR3(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0x96)
#define CHOICE(e, f, g) _mm512_ternarylogic_epi32(e, f, g, 0xca)
#define MAJORITY(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0xe8)

AVX512_INLINE __m512i big_sigma0(__m512i a)
{
	return XOR3(_mm512_ror_epi32(a, 2), _mm512_ror_epi32(a, 13), _mm512_ror_epi32(a, 22));
}

AVX512_INLINE __m512i big_sigma1(__m512i e)
{
	return XOR3(_mm512_ror_epi32(e, 6), _mm512_ror_epi32(e, 11), _mm512_ror_epi32(e, 25));
}

AVX512_INLINE __m512i small_sigma0(__m512i w)
{
	return XOR3(_mm512_ror_epi32(w, 7), _mm512_ror_epi32(w, 18), _mm512_srli_epi32(w, 3));
}

AVX512_INLINE __m512i small_sigma1(__m512i w)
{
	return XOR3(_mm512_ror_epi32(w, 17), _mm512_ror_epi32(w, 19), _mm512_srli_epi32(w, 10));
}

#define ADD _mm512_add_epi32

/* 16 rows of 16 words become 16 columns: by words and pairs of words within each quarter of the
 * registers, then by quarters. */
AVX512_INLINE void transpose(__m512i r[16])
{
	__m512i t[16];
	UNROLLED for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
	}
	UNROLLED for (int i = 0; i < 16; i += 4) {
		r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
		r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
		r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
		r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
	}
	UNROLLED for (int i = 0; i < 4; i++) {
		t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
		t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
		t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
		t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
	}
	UNROLLED for (int i = 0; i < 4; i++) {
		r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
		r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
		r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
		r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
	}
}

/* The next block of every stream, as schedule words 0 … 15. */
AVX512_INLINE void load_block(__m512i w[16], const uint8_t *const data[], size_t off)
{
	const __m512i big_endian = _mm512_broadcast_i32x4(
		_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
	UNROLLED for (int i = 0; i < LANES; i++)
		w[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(data[i] + off), big_endian);
	transpose(w);
}

/* The compiler must not reorder the sum that x ends: it would, and put back into a chain what is
 * written below so that the next round's a and e wait for few additions (3.9 against 5.3 GB/s, GCC
 * 12 on Zen 5). */
#define SUM_ENDS(x) __asm__("" : "+v"(x))

/* As in sha256_portable.c, where the letters' places are explained. */
#define ROUND(a, b, c, d, e, f, g, h, i) do { \
	if (t > 0) \
		w[i] = ADD(ADD(w[i], w[((i) + 9) % 16]), \
			ADD(small_sigma1(w[((i) + 14) % 16]), small_sigma0(w[((i) + 1) % 16]))); \
	__m512i wk = ADD(w[i], _mm512_set1_epi32((int)sha256_k[t + (i)])); \
	__m512i sigma = big_sigma1(e), early = ADD(ADD(h, wk), CHOICE(e, f, g)); \
	SUM_ENDS(early); \
	__m512i d_early = ADD(d, early), t1 = ADD(early, sigma); \
	SUM_ENDS(d_early); \
	SUM_ENDS(t1); \
	d = ADD(d_early, sigma); \
	h = ADD(t1, ADD(big_sigma0(a), MAJORITY(a, b, c))); \
} while (0)

AVX512_INLINE void compress(__m512i s[8], __m512i w[16])
{
	__m512i a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
	UNROLLED for (int t = 0; t < 64; t += 16) {
		SHA256_EIGHT_ROUNDS(0);
		SHA256_EIGHT_ROUNDS(8);
	}
	s[0] = ADD(s[0], a), s[1] = ADD(s[1], b), s[2] = ADD(s[2], c), s[3] = ADD(s[3], d);
	s[4] = ADD(s[4], e), s[5] = ADD(s[5], f), s[6] = ADD(s[6], g), s[7] = ADD(s[7], h);
}

AVX512 void sha256_avx512_16(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	uint32_t words[8][LANES] __attribute__((aligned(64)));
	__m512i s[8], w[16];
	for (int lane = 0; lane < LANES; lane++) {
		UNROLLED for (int i = 0; i < 8; i++)
			words[i][lane] = h[lane][i];
	}
	UNROLLED for (int i = 0; i < 8; i++)
		s[i] = _mm512_load_si512(words[i]);
	for (size_t block = 0; block < blocks; block++) {
		load_block(w, data, block * SHA256_BLOCK_BYTES);
		compress(s, w);
	}
	UNROLLED for (int i = 0; i < 8; i++)
		_mm512_store_si512(words[i], s[i]);
	for (int lane = 0; lane < LANES; lane++) {
		UNROLLED for (int i = 0; i < 8; i++)
			h[lane][i] = words[i][lane];
	}
}

#else /* another architecture */

#include <stdlib.h>

bool sha256_avx512_available(void)
{
	return false;
}

void sha256_avx512_16(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	(void)h, (void)data, (void)blocks;
	abort();
}

#endif
