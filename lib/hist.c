/*
 * A log-linear histogram.
 *
 * Values below HIST_SUB have a bucket each. From there on, every power of two is cut into HIST_SUB
 * equal buckets: a value's bucket is its highest bit and the five bits below it, so a bucket is at
 * most 1/32 of the values in it wide. 60 groups of 32 hold all of uint64_t: the exact ones, and
 * one for each highest bit from 5 to 63.
 */
#include <string.h>
#include "hist.h"

enum { SUB_BITS = 5 };

_Static_assert(HIST_SUB == 1 << SUB_BITS && HIST_BUCKETS == (64 - SUB_BITS + 1) * HIST_SUB,
	"the buckets hold every uint64_t");

static unsigned bucket_of(uint64_t value)
{
	if (value < HIST_SUB)
		return (unsigned)value;
	unsigned shift = 63 - SUB_BITS - (unsigned)__builtin_clzll(value);
	return (shift + 1) * HIST_SUB + (unsigned)(value >> shift & (HIST_SUB - 1));
}

/* The greatest value that falls into a bucket. */
static uint64_t bucket_last(unsigned idx)
{
	if (idx < HIST_SUB)
		return idx;
	unsigned shift = idx / HIST_SUB - 1;
	uint64_t first = (uint64_t)(HIST_SUB + idx % HIST_SUB) << shift;
	return first + ((UINT64_C(1) << shift) - 1);
}

static uint64_t add_saturating(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

void hist_init(struct hist *h)
{
	memset(h, 0, sizeof(*h));
}

void hist_add(struct hist *h, uint64_t value)
{
	h->count++;
	h->sum = add_saturating(h->sum, value);
	if (value > h->max)
		h->max = value;
	h->buckets[bucket_of(value)]++;
}

uint64_t hist_quantile(const struct hist *h, double q)
{
	if (h->count == 0)
		return 0;
	if (q >= 1)
		return h->max;
	/* At least so many values must lie at or below the answer. A q that is NaN counts as 0. */
	double share = q > 0 ? q * (double)h->count : 0;
	uint64_t wanted = (uint64_t)share, seen = 0;
	if ((double)wanted < share || wanted == 0)
		wanted++;
	if (wanted > h->count)
		wanted = h->count;
	unsigned idx = 0;
	while (seen + h->buckets[idx] < wanted)
		seen += h->buckets[idx++];
	uint64_t last = bucket_last(idx);
	return last < h->max ? last : h->max;
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->count += from->count;
	into->sum = add_saturating(into->sum, from->sum);
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}
