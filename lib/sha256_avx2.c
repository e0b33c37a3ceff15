/*
 * SHA-256 in eight lanes of AVX2 (Haswell, Zen and newer), for CPUs without the SHA extensions: these,
 * where they exist, are better, since AVX2 has no rotation, so one is two shifts and an exclusive or.
 */
#include "sha256_impl.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define EIGHT_LANES __attribute__((target("avx2")))
#define EIGHT_LANES_KERNEL sha256_avx2_8

bool sha256_avx2_available(void)
{
	/* Includes that the operating system saves the registers. */
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx2");
}

#define AND _mm256_and_si256
#define XOR _mm256_xor_si256
#define rotate(x, bits) XOR(_mm256_srli_epi32(x, bits), _mm256_slli_epi32(x, 32 - (bits)))
#define xor3(a, b, c) XOR(XOR(a, b), c)
#define choice(e, f, g) XOR(g, AND(e, XOR(f, g)))
#define majority(a, b, c) XOR(AND(XOR(a, b), XOR(b, c)), b)

#include "sha256_lanes8.h"

#else /* another architecture */

#include <stdlib.h>

bool sha256_avx2_available(void)
{
	return false;
}

void sha256_avx2_8(uint32_t *const h[], const uint8_t *const data[], size_t blocks)
{
	(void)h, (void)data, (void)blocks;
	abort();
}

#endif
