/*
 * What the kernels for x86 share: unrolled loops, and SHA256RNDS2's form of a state.
 */
#ifndef SLUICE_SHA256_X86_H
#define SLUICE_SHA256_X86_H

#include <immintrin.h>
#include <stdint.h>

#define SHA_NI __attribute__((target("sha,sse4.1,ssse3")))
#define SHA_NI_INLINE SHA_NI __attribute__((always_inline)) static inline

/* Unrolled by request: else the compiler keeps the streams in memory, and two together are as slow
 * as one after the other (1.74 against 3.62 GB/s, GCC 12 on Zen 4). */
#ifdef __clang__
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

struct ni_state {
	__m128i abef, cdgh;
};

SHA_NI_INLINE void ni_load(struct ni_state *s, const uint32_t h[8])
{
	__m128i dcba = _mm_loadu_si128((const __m128i *)h);
	__m128i hgfe = _mm_loadu_si128((const __m128i *)(h + 4));
	__m128i cdab = _mm_shuffle_epi32(dcba, 0xb1);
	__m128i efgh = _mm_shuffle_epi32(hgfe, 0x1b);
	s->abef = _mm_alignr_epi8(cdab, efgh, 8);
	s->cdgh = _mm_blend_epi16(efgh, cdab, 0xf0);
}

SHA_NI_INLINE void ni_store(const struct ni_state *s, uint32_t h[8])
{
	__m128i feba = _mm_shuffle_epi32(s->abef, 0x1b);
	__m128i dchg = _mm_shuffle_epi32(s->cdgh, 0xb1);
	_mm_storeu_si128((__m128i *)h, _mm_blend_epi16(feba, dchg, 0xf0));
	_mm_storeu_si128((__m128i *)(h + 4), _mm_alignr_epi8(dchg, feba, 8));
}

SHA_NI_INLINE void ni_add(struct ni_state *s, const struct ni_state *before)
{
	s->abef = _mm_add_epi32(s->abef, before->abef);
	s->cdgh = _mm_add_epi32(s->cdgh, before->cdgh);
}

#endif
