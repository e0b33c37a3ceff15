/*
 * How one file is cut into segments, and in which order they are sent.
 *
 * A plan is a handful of numbers: any segment is computed from its index, so a file of 100 GiB in
 * 1 KiB segments and random order takes no more memory than a small one.
 */
#ifndef SLUICE_BENCH_PLAN_H
#define SLUICE_BENCH_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum plan_order { PLAN_IN, PLAN_REVERSE, PLAN_RANDOM };

struct plan_rules {
	uint64_t seed;
	uint32_t segment_bytes_min, segment_bytes_max; /* 1 ≤ min ≤ max */
	enum plan_order order;
	unsigned duplicate_percent; /* 0–100 */
};

struct plan {
	struct plan_rules rules;
	uint64_t key; /* of this file */
	uint64_t file_bytes;
	uint64_t segments_count; /* without duplicates */
	unsigned half_bits;      /* PLAN_RANDOM: half the width of the permutation's domain */
};

struct plan_cursor {
	uint64_t idx;     /* in sending order */
	uint64_t ordinal; /* segments handed out, duplicates included */
	bool duplicate_due;
};

struct plan_segment {
	uint64_t from;
	uint32_t bytes;
	bool is_duplicate;
};

void plan_init(
	struct plan *p, const struct plan_rules *rules, uint64_t file_idx, uint64_t file_bytes);
/* The next segment in sending order; false at the end. The cursor begins zeroed. */
bool plan_next(const struct plan *p, struct plan_cursor *cursor, struct plan_segment *ret);
/* How many segments plan_next will hand out, duplicates included; walks the whole plan. */
uint64_t plan_count(const struct plan *p);

#endif
