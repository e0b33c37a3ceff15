/*
 * Segment plans.
 *
 * Cuts. Segments come in pairs: the first has a bytes, the second min + max − a, a uniform in
 * [min, max]. So both are uniform, every pair is equally long, and segment i is found without
 * walking over its predecessors. The last one is cut off by the end of the file.
 *
 * Random order. A four-round Feistel network permutes the smallest domain of an even number of bits
 * that holds all indices; results beyond the last index are permuted again until they are inside
 * (cycle walking), at most four times on average.
 *
 * Duplicates. After a segment that the seed selects, a second one follows. Half of these repeat it
 * exactly; half begin inside it, at any byte, and reach as far into its successor, so that nothing
 * is aligned with anything sent before. The bytes at one position are always the same.
 */
#include "plan.h"

#include "rng.h"

enum { FEISTEL_ROUNDS = 4 };

/* What a hash is for: mixed into the key. */
enum { FOR_CUT = 1, FOR_ORDER, FOR_DUPLICATE, FOR_SHIFT };

static uint64_t plan_hash(const struct plan *p, uint64_t purpose, uint64_t place)
{
	return rng_hash(p->key + purpose, place);
}

static uint64_t plan_pair_bytes(const struct plan *p)
{
	return (uint64_t)p->rules.segment_bytes_min + p->rules.segment_bytes_max;
}

static uint64_t plan_first_of_pair_bytes(const struct plan *p, uint64_t pair)
{
	uint64_t choices = p->rules.segment_bytes_max - p->rules.segment_bytes_min + 1u;

	return p->rules.segment_bytes_min + rng_below(plan_hash(p, FOR_CUT, pair), choices);
}

void plan_init(
	struct plan *p, const struct plan_rules *rules, uint64_t file_idx, uint64_t file_bytes)
{
	uint64_t pairs, rest;

	*p = (struct plan){.rules = *rules, .file_bytes = file_bytes};
	p->key = rng_hash(rules->seed, file_idx);
	pairs = file_bytes / plan_pair_bytes(p);
	rest = file_bytes % plan_pair_bytes(p);
	p->segments_count = 2 * pairs;
	if (rest > 0)
		p->segments_count += rest <= plan_first_of_pair_bytes(p, pairs) ? 1 : 2;
	p->half_bits = 1;
	while (p->half_bits < 32 && p->segments_count >> (2 * p->half_bits) != 0)
		p->half_bits++;
}

/* A permutation of 0 … segments_count − 1. */
static uint64_t plan_permute(const struct plan *p, uint64_t idx)
{
	uint64_t mask = ((uint64_t)1 << p->half_bits) - 1;

	do {
		uint64_t left = idx >> p->half_bits, right = idx & mask;

		for (unsigned round = 0; round < FEISTEL_ROUNDS; round++) {
			uint64_t mixed = plan_hash(p, FOR_ORDER, (right << 3) | round) & mask;
			uint64_t next = left ^ mixed;

			left = right;
			right = next;
		}
		idx = (left << p->half_bits) | right;
	} while (idx >= p->segments_count);
	return idx;
}

static struct plan_segment plan_at(const struct plan *p, uint64_t idx)
{
	uint64_t pair = idx / 2;
	uint64_t from = pair * plan_pair_bytes(p);
	uint64_t first_bytes = plan_first_of_pair_bytes(p, pair);
	uint64_t bytes = first_bytes;

	if (idx % 2 == 1) {
		from += first_bytes;
		bytes = plan_pair_bytes(p) - first_bytes;
	}
	if (bytes > p->file_bytes - from)
		bytes = p->file_bytes - from;
	return (struct plan_segment){.from = from, .bytes = (uint32_t)bytes};
}

/* The duplicate of a segment, from hash bits of its own. */
static struct plan_segment plan_duplicate(const struct plan *p, uint64_t idx, struct plan_segment s)
{
	uint64_t hash = plan_hash(p, FOR_SHIFT, idx);

	s.is_duplicate = true;
	if (hash & 1)
		return s;
	s.from += rng_below(hash, s.bytes);
	if (s.bytes > p->file_bytes - s.from)
		s.bytes = (uint32_t)(p->file_bytes - s.from);
	return s;
}

bool plan_next(const struct plan *p, struct plan_cursor *cursor, struct plan_segment *ret)
{
	uint64_t idx = cursor->idx;

	if (idx >= p->segments_count)
		return false;
	switch (p->rules.order) {
	case PLAN_IN:
		break;
	case PLAN_REVERSE:
		idx = p->segments_count - 1 - idx;
		break;
	case PLAN_RANDOM:
		idx = plan_permute(p, idx);
		break;
	}
	*ret = plan_at(p, idx);
	cursor->ordinal++;
	if (cursor->duplicate_due) {
		*ret = plan_duplicate(p, idx, *ret);
		cursor->duplicate_due = false;
		cursor->idx++;
	} else if (rng_below(plan_hash(p, FOR_DUPLICATE, idx), 100) < p->rules.duplicate_percent) {
		cursor->duplicate_due = true;
	} else {
		cursor->idx++;
	}
	return true;
}

uint64_t plan_count(const struct plan *p)
{
	struct plan_cursor cursor = {0};
	struct plan_segment segment;

	if (p->rules.duplicate_percent == 0)
		return p->segments_count;
	while (plan_next(p, &cursor, &segment))
		;
	return cursor.ordinal;
}
