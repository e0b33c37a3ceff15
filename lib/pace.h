/*
 * A rate limit as one point in time: until when what was taken is paid for.
 *
 * Everything taken moves the point on by what it costs, n / rate. While it lies ahead of now the
 * taker is in debt and waits; where it lies behind, the difference is credit, of which PACE_BURST_NS
 * at most is kept. So the state is one number, an idle one needs no tending, and taking more than
 * there was credit for is not refused but waited for afterwards: over time the rate holds exactly.
 */
#ifndef SLUICE_PACE_H
#define SLUICE_PACE_H

#include <stdint.h>

#define PACE_BURST_NS ((uint64_t)1000000000) /* what may be taken at once after a pause: a second's */

struct pace {
	uint64_t until_ns; /* of the caller's clock; 0: nothing was taken yet */
};

/* Takes n at `per_s` > 0. */
static inline void pace_take(struct pace *p, uint64_t per_s, uint32_t n, uint64_t now_ns)
{
	uint64_t least = now_ns > PACE_BURST_NS ? now_ns - PACE_BURST_NS : 0;
	if (p->until_ns < least)
		p->until_ns = least;
	/* Rounded up, since the rate is not to be passed. n < 2^32 and per_s < 2^62: no overflow. */
	p->until_ns += (n * (uint64_t)1000000000 + per_s - 1) / per_s;
}

/* 0: more may be taken now. */
static inline uint64_t pace_wait_ns(const struct pace *p, uint64_t now_ns)
{
	return p->until_ns > now_ns ? p->until_ns - now_ns : 0;
}

#endif
