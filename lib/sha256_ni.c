/*
 * SHA-256 kernels on x86's SHA extensions (Goldmont, Zen, Ice Lake and newer).
 *
 * SHA256RNDS2 does two rounds on a state that is kept as two vectors, (a b e f) and (c d g h); each
 * use waits for the one before. On Zen its latency is 4 cycles and one can start every 2: a single
 * stream leaves half of the unit idle. Hence sha256_ni_2; three or four streams are no better, since
 * the message schedule (SHA256MSG1, SHA256MSG2) runs on the same unit (Zen 5: 1.83, 2.80, 2.79,
 * 2.85 GB/s for one to four). Both are the same function, inlined with a constant width. What helps
 * is to take the schedule elsewhere: sha256_ni_avx512.c.
 *
 * The file is compiled for the baseline of the architecture; only the functions marked SHA_NI use
 * the extensions, and sha256.c calls them when sha256_ni_available() says so.
 */
#include "sha256_impl.h"

#if defined(__x86_64__) || defined(__i386__)

#include <cpuid.h>
#include "sha256_x86.h"

struct stream {
	struct ni_state s;
	__m128i m[4]; /* the last 16 words of the message schedule, 4 to a vector */
};

bool sha256_ni_available(void)
{
	unsigned a, b, c, d;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1))
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & bit_SHA;
}

/* Rounds 4g … 4g + 3, and what they let the message schedule do: the words of four rounds are
 * begun by SHA256MSG1 three steps before they are finished by SHA256MSG2. */
SHA_NI_INLINE void stream_rounds(struct stream *s, int g, const uint8_t *block)
{
	const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
	__m128i *now = &s->m[g % 4], *next = &s->m[(g + 1) % 4], *prev = &s->m[(g + 3) % 4];
	if (g < 4)
		*now = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(block + 16 * g)), big_endian);
	__m128i wk = _mm_add_epi32(*now, _mm_loadu_si128((const __m128i *)(sha256_k + 4 * g)));
	s->s.cdgh = _mm_sha256rnds2_epu32(s->s.cdgh, s->s.abef, wk);
	if (g >= 3 && g < 15) {
		*next = _mm_add_epi32(*next, _mm_alignr_epi8(*now, *prev, 4));
		*next = _mm_sha256msg2_epu32(*next, *now);
	}
	s->s.abef = _mm_sha256rnds2_epu32(s->s.abef, s->s.cdgh, _mm_shuffle_epi32(wk, 0x0e));
	if (g >= 1 && g < 13)
		*prev = _mm_sha256msg1_epu32(*prev, *now);
}

#define EACH_STREAM UNROLLED for (int i = 0; i < width; i++)

/* `width` must be a constant where this is inlined. */
SHA_NI_INLINE void compress(uint32_t *const h[], const uint8_t *const data[], size_t blocks,
	const int width)
{
	struct stream s[2];
	struct ni_state before[2];
	EACH_STREAM
		ni_load(&s[i].s, h[i]);
	for (size_t block = 0; block < blocks; block++) {
		EACH_STREAM
			before[i] = s[i].s;
		UNROLLED for (int g = 0; g < 16; g++) {
			EACH_STREAM
				stream_rounds(&s[i], g, data[i] + 64 * block);
		}
		EACH_STREAM
			ni_add(&s[i].s, &before[i]);
	}
	EACH_STREAM
		ni_store(&s[i].s, h[i]);
}

SHA_NI void sha256_ni_1(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	compress(h, data, blocks, 1);
}

SHA_NI void sha256_ni_2(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	compress(h, data, blocks, 2);
}

#else /* another architecture */

#include <stdlib.h>

bool sha256_ni_available(void)
{
	return false;
}

void sha256_ni_1(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	(void)h, (void)data, (void)blocks;
	abort();
}

void sha256_ni_2(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	(void)h, (void)data, (void)blocks;
	abort();
}

#endif
