/*
 * SHA-256 of four streams: rounds on the SHA extensions, the message schedule in AVX-512 (Zen 4 and
 * newer).
 *
 * The SHA extensions' own schedule instructions take up the unit that the rounds need. Here a vector
 * holds four schedule words of each of the four streams, a quarter of it for each, and common vector
 * instructions extend them, on units that would be idle. The schedule of a block is computed
 * while the rounds of the one before it run, and handed over through the first-level cache with the
 * round constants already added. 3.32 GB/s instead of the 2.80 of two streams (Zen 5); what the rounds
 * alone would allow is 3.7.
 *
 * For two streams the same in half a vector was slower (2.35 GB/s) than sha256_ni_2.
 *
 * Not on Intel's: the SHA extensions have only the encoding that leaves the upper parts of the vectors
 * alone, and there each change between it and wide vectors takes hundreds of cycles (Emerald Rapids:
 * 0.01 GB/s). With wide vectors in registers 16 to 31 only, which that encoding can't name, there is
 * no such change, but nothing is won: 1.69 GB/s, as 1.67 of sha256_ni_2 beside it. So the rounds alone
 * must be the limit there.
 */
#include "sha256_impl.h"

#if defined(__x86_64__)

#include "sha256_x86.h"

#define NI_AVX512 __attribute__((target("sha,avx512f,avx512bw,avx512vl")))
#define NI_AVX512_INLINE NI_AVX512 __attribute__((always_inline)) static inline
#define EACH_STREAM UNROLLED for (int i = 0; i < WIDTH; i++)
#define EACH_GROUP UNROLLED for (int g = 0; g < 16; g++)

enum { WIDTH = 4 };

bool sha256_ni_avx512_available(void)
{
	return __builtin_cpu_is("amd") && sha256_ni_available() && sha256_avx512_available() &&
		__builtin_cpu_supports("avx512vl");
}

NI_AVX512_INLINE __m512i small_sigma0(__m512i w)
{
	return _mm512_ternarylogic_epi32(_mm512_ror_epi32(w, 7), _mm512_ror_epi32(w, 18),
		_mm512_srli_epi32(w, 3), 0x96);
}

NI_AVX512_INLINE __m512i small_sigma1(__m512i w)
{
	return _mm512_ternarylogic_epi32(_mm512_ror_epi32(w, 17), _mm512_ror_epi32(w, 19),
		_mm512_srli_epi32(w, 10), 0x96);
}

/* Words 4g … 4g + 3 of every stream from its block; g < 4. */
NI_AVX512_INLINE __m512i group_load(int g, const uint8_t *const data[], size_t off)
{
	const __m512i big_endian = _mm512_broadcast_i32x4(
		_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
	const __m128i *from[WIDTH];
	EACH_STREAM
		from[i] = (const void *)(data[i] + off + 16 * g);
	__m512i w = _mm512_castsi128_si512(_mm_loadu_si128(from[0]));
	w = _mm512_inserti32x4(w, _mm_loadu_si128(from[1]), 1);
	w = _mm512_inserti32x4(w, _mm_loadu_si128(from[2]), 2);
	w = _mm512_inserti32x4(w, _mm_loadu_si128(from[3]), 3);
	return _mm512_shuffle_epi8(w, big_endian);
}

/* The same from the 16 words before them. Of four words the last two need the first two: so these
 * are finished first, from the two words before, and then the others from them. */
NI_AVX512_INLINE __m512i group_extend(int g, const __m512i m[4])
{
	__m512i w16 = m[g % 4], w12 = m[(g + 1) % 4], w8 = m[(g + 2) % 4], w4 = m[(g + 3) % 4];
	__m512i w = _mm512_add_epi32(w16, small_sigma0(_mm512_alignr_epi8(w12, w16, 4)));
	w = _mm512_add_epi32(w, _mm512_alignr_epi8(w4, w8, 4));
	w = _mm512_add_epi32(w, small_sigma1(_mm512_maskz_shuffle_epi32(0x3333, w4, 0x0e)));
	return _mm512_add_epi32(w, small_sigma1(_mm512_maskz_shuffle_epi32(0xcccc, w, 0x40)));
}

/* The next group into the ring of 16 words, and with its round constants to *ret. */
NI_AVX512_INLINE void schedule(__m512i m[4], int g, const uint8_t *const data[], size_t off, __m512i *ret)
{
	m[g % 4] = g < 4 ? group_load(g, data, off) : group_extend(g, m);
	const __m128i k = _mm_loadu_si128((const void *)(sha256_k + 4 * g));
	_mm512_store_si512(ret, _mm512_add_epi32(m[g % 4], _mm512_broadcast_i32x4(k)));
}

NI_AVX512_INLINE void four_rounds(struct ni_state *s, __m128i wk)
{
	s->cdgh = _mm_sha256rnds2_epu32(s->cdgh, s->abef, wk);
	s->abef = _mm_sha256rnds2_epu32(s->abef, s->cdgh, _mm_shuffle_epi32(wk, 0x0e));
}

NI_AVX512 void sha256_ni_avx512_4(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	struct ni_state s[WIDTH], before[WIDTH];
	__m512i m[4], wk[2][16]; /* of the block whose rounds run, and of the one behind it */
	if (blocks == 0)
		return;
	EACH_STREAM
		ni_load(&s[i], h[i]);
	EACH_GROUP
		schedule(m, g, data, 0, &wk[0][g]);
	for (size_t block = 0; block < blocks; block++) {
		/* Behind the last block there is none: its own schedule once more, for nobody. */
		size_t ahead = (block + 1 < blocks ? block + 1 : block) * SHA256_BLOCK_BYTES;
		const __m512i *now = wk[block % 2];
		__m512i *next = wk[(block + 1) % 2];
		EACH_STREAM
			before[i] = s[i];
		EACH_GROUP {
			EACH_STREAM
				four_rounds(&s[i], _mm_load_si128((const __m128i *)&now[g] + i));
			schedule(m, g, data, ahead, &next[g]);
		}
		EACH_STREAM
			ni_add(&s[i], &before[i]);
	}
	EACH_STREAM
		ni_store(&s[i], h[i]);
}

#else /* another architecture */

#include <stdlib.h>

bool sha256_ni_avx512_available(void)
{
	return false;
}

void sha256_ni_avx512_4(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	(void)h, (void)data, (void)blocks;
	abort();
}

#endif
