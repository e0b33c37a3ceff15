/*
 * Randomness that needs no state: a value is a hash of what it is for.
 *
 * Everything that a run decides at random (sizes, cuts, order, content) is computed from the seed
 * and the place it is for. So nothing has to be remembered to be sent again or to be checked, and
 * two runs with one seed are the same.
 */
#ifndef SLUICE_BENCH_RNG_H
#define SLUICE_BENCH_RNG_H

#include <stdint.h>

/* The finalizer of SplitMix64: every bit of x reaches every bit of the result. */
static inline uint64_t rng_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline uint64_t rng_hash(uint64_t key, uint64_t place)
{
	return rng_mix(rng_mix(key) ^ place);
}

/* A hash scaled to 0 … below − 1; below > 0. */
static inline uint64_t rng_below(uint64_t hash, uint64_t below)
{
	return (uint64_t)(((unsigned __int128)hash * below) >> 64);
}

#endif
