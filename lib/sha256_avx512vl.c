/*
 * SHA-256 in eight lanes of AVX-512's instructions on 256-bit vectors (Skylake-X, Ice Lake, Zen 4 and
 * newer).
 *
 * They have what SHA-256 asks for (sha256_avx512.c). For eight streams this is better than half of
 * sixteen lanes, and on Intel's, which have three units for vectors of this width and two for wider
 * ones, better than the SHA extensions from seven streams on (Emerald Rapids,
 * at a lower clock than in sha256_ni_avx512.c: 2.06 GB/s, sha256_ni_2 beside it 1.59).
 */
#include "sha256_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define EIGHT_LANES __attribute__((target("avx2,avx512f,avx512vl")))
#define EIGHT_LANES_KERNEL sha256_avx512vl_8

bool sha256_avx512vl_available(void)
{
	return sha256_avx512_available() && sha256_avx2_available() && __builtin_cpu_supports("avx512vl");
}

#define rotate _mm256_ror_epi32
#define xor3(a, b, c) _mm256_ternarylogic_epi32(a, b, c, 0x96)
#define choice(e, f, g) _mm256_ternarylogic_epi32(e, f, g, 0xca)
#define majority(a, b, c) _mm256_ternarylogic_epi32(a, b, c, 0xe8)

#include "sha256_lanes8.h"

#else /* another architecture */

#include <stdlib.h>

bool sha256_avx512vl_available(void)
{
	return false;
}

void sha256_avx512vl_8(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	(void)h, (void)data, (void)blocks;
	abort();
}

#endif
