/*
 * A histogram of durations or sizes with bounded relative error (1/32), fixed memory, no
 * allocation.
 */
#ifndef SLUICE_HIST_H
#define SLUICE_HIST_H

#include <stdint.h>

enum { HIST_SUB = 32, HIST_BUCKETS = 60 * HIST_SUB };

struct hist {
	uint64_t count;
	uint64_t sum; /* stays at UINT64_MAX once it is there */
	uint64_t max;
	uint64_t buckets[HIST_BUCKETS];
};

void hist_init(struct hist *h);
void hist_add(struct hist *h, uint64_t value);
/* A value at or below which the fraction q (0…1) of all values lies: never less than the exact
 * quantile, and at most 1/32 more. 0 when empty. */
uint64_t hist_quantile(const struct hist *h, double q);
void hist_merge(struct hist *into, const struct hist *from);

#endif
