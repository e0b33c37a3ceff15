/*
 * The two clocks that every measurement reads.
 */
#ifndef SLUICE_BENCH_CLOCKS_H
#define SLUICE_BENCH_CLOCKS_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clocks_read_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t clocks_now_ns(void)
{
	return clocks_read_ns(CLOCK_MONOTONIC);
}

/* That this process has used, in all its threads, io_uring's workers included. */
static inline uint64_t clocks_cpu_ns(void)
{
	return clocks_read_ns(CLOCK_PROCESS_CPUTIME_ID);
}

#endif
