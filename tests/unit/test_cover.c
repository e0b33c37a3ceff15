/*
 * Coverage against a bitmap: whatever happens to the tree happens to an array of booleans too, and
 * every question must get the same answer from both. The tree's own invariants need its nodes,
 * so the implementation is included instead of linked.
 */
#include "../../lib/cover.c"

#include <criterion/criterion.h>
#include <string.h>

enum { MODEL_BYTES = 400 };

/* splitmix64: the same numbers in every run. */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

/* ---- invariants ---- */

struct walk {
	uint64_t bytes;
	uint32_t count;
	uint32_t depth;
	const struct cover_node *prev; /* in order */
};

static void walk_node(struct walk *w, const struct cover_node *t, uint32_t depth)
{
	if (t == NULL)
		return;
	cr_assert_eq(node_level(t->left), t->level - 1);
	cr_assert(node_level(t->right) == t->level || node_level(t->right) == t->level - 1);
	if (t->right != NULL)
		cr_assert_lt(node_level(t->right->right), t->level);
	walk_node(w, t->left, depth + 1);
	cr_assert_lt(t->e.from, t->e.to);
	if (w->prev != NULL)
		cr_assert_lt(w->prev->e.to, t->e.from);
	w->prev = t;
	w->bytes += t->e.to - t->e.from;
	w->count++;
	w->depth = w->depth > depth ? w->depth : depth;
	walk_node(w, t->right, depth + 1);
}

static void check_invariants(const struct cover *c)
{
	struct walk w = {0};
	walk_node(&w, c->root, 1);
	cr_assert_eq(w.bytes, c->bytes);
	cr_assert_eq(w.count, c->count);
	cr_assert_leq(c->count, c->extents_max);
	cr_assert_eq(w.prev, c->last);
	uint32_t log2_count = 0;
	while ((2u << log2_count) <= w.count + 1)
		log2_count++;
	cr_assert_leq(w.depth, 2 * (log2_count + 1), "depth %u at %u", w.depth, w.count);
}

/* ---- the model ---- */

static bool model_all(const bool *map, uint64_t from, uint64_t to)
{
	while (from < to && map[from])
		from++;
	return from >= to;
}

static uint64_t model_count(const bool *map, uint64_t from, uint64_t to)
{
	uint64_t count = 0;
	for (; from < to; from++)
		count += map[from];
	return count;
}

static uint64_t model_run_end(const bool *map, uint64_t at)
{
	bool present = map[at];
	while (at < MODEL_BYTES && map[at] == present)
		at++;
	return at < MODEL_BYTES ? at : present ? MODEL_BYTES : UINT64_MAX;
}

static uint32_t model_extents(const bool *map)
{
	uint32_t count = 0;
	for (int i = 0; i < MODEL_BYTES; i++)
		count += map[i] && (i == 0 || !map[i - 1]);
	return count;
}

static void check_against_model(const struct cover *c, const bool *map, uint64_t from, uint64_t to,
	size_t gaps_max)
{
	uint64_t inside = model_count(map, from, to);
	cr_assert_eq(c->bytes, model_count(map, 0, MODEL_BYTES));
	cr_assert_eq(c->count, model_extents(map));
	cr_assert_eq(cover_has(c, from, to), model_all(map, from, to));
	cr_assert_eq(cover_overlaps(c, from, to), inside > 0);
	cr_assert_eq(cover_bytes_in(c, from, to), inside);
	uint64_t end = 0;
	for (struct extent e; cover_next(c, end, &e);)
		end = e.to;
	cr_assert_eq(cover_end(c), end);
	cr_assert_eq(cover_bytes_in(c, 0, end), c->bytes);

	bool present;
	cr_assert_eq(cover_run_end(c, from, &present), model_run_end(map, from));
	cr_assert_eq(present, map[from]);
	cr_assert_eq(cover_run_end(c, from, NULL), model_run_end(map, from));

	struct extent gaps[MODEL_BYTES];
	size_t gaps_count = cover_gaps(c, from, to, gaps, gaps_max), gap = 0;
	for (uint64_t at = from; at < to && gap < gaps_max;) {
		uint64_t end = model_run_end(map, at);
		end = end < to ? end : to;
		if (!map[at]) {
			cr_assert_lt(gap, gaps_count);
			cr_assert_eq(gaps[gap].from, at);
			cr_assert_eq(gaps[gap].to, end);
			gap++;
		}
		at = end;
	}
	cr_assert_eq(gap, gaps_count);

	bool seen[MODEL_BYTES] = {0};
	struct extent e = {0, 0};
	while (cover_next(c, e.to, &e))
		memset(seen + e.from, true, e.to - e.from);
	cr_assert_eq(memcmp(seen, map, sizeof(seen)), 0);
}

/* One random change to both; the limit must strike exactly when the model says so. */
static void change_both(struct cover *c, bool *map, uint64_t *rng, uint64_t len_max)
{
	uint64_t from = random_below(rng, MODEL_BYTES);
	uint64_t to = from + random_below(rng, len_max);
	to = to < MODEL_BYTES ? to : MODEL_BYTES;
	bool add = random_below(rng, 5) < 3;

	bool after[MODEL_BYTES];
	memcpy(after, map, sizeof(after));
	if (from < to)
		memset(after + from, add, to - from);
	bool fits = model_extents(after) <= c->extents_max;
	if (add)
		cr_assert_eq(cover_may_add(c, from, to), fits);
	int err = add ? cover_add(c, from, to) : cover_remove(c, from, to);
	cr_assert_eq(err, fits ? 0 : -E2BIG);
	if (fits)
		memcpy(map, after, sizeof(after));
}

static void run_model(uint64_t seed, uint32_t extents_max, uint64_t len_max, int steps)
{
	struct cover c;
	bool map[MODEL_BYTES] = {0};
	cover_init(&c, extents_max);
	for (int i = 0; i < steps; i++) {
		change_both(&c, map, &seed, len_max);
		check_invariants(&c);
		uint64_t from = random_below(&seed, MODEL_BYTES);
		uint64_t to = from + random_below(&seed, MODEL_BYTES - from + 1);
		check_against_model(&c, map, from, to, random_below(&seed, 40));
	}
	cover_fini(&c);
}

Test(cover, random_changes_match_a_bitmap)
{
	run_model(1, 1000, 12, 3000);
	run_model(2, 1000, 3, 6000);
	run_model(3, 1000, 90, 2000);
}

Test(cover, limit_strikes_exactly_when_one_more_is_needed)
{
	run_model(4, 1, 40, 1500);
	run_model(5, 7, 12, 3000);
	run_model(6, 40, 4, 4000);
}

/* ---- cases ---- */

Test(cover, empty_ranges_change_nothing)
{
	struct cover c;
	cover_init(&c, 0);
	cr_assert_eq(cover_add(&c, 5, 5), 0);
	cr_assert_eq(cover_add(&c, 9, 5), 0);
	cr_assert_eq(cover_remove(&c, 5, 5), 0);
	cr_assert_eq(cover_remove(&c, 0, UINT64_MAX), 0);
	cr_assert(cover_may_add(&c, 5, 5));
	cr_assert_not(cover_may_add(&c, 5, 6));
	cr_assert_eq(cover_add(&c, 5, 6), -E2BIG);
	cr_assert(cover_has(&c, 7, 7));
	cr_assert_not(cover_has(&c, 7, 8));
	cr_assert_not(cover_overlaps(&c, 7, 7));
	cr_assert_eq(c.count, 0);
	cr_assert_eq(c.bytes, 0);
	cover_fini(&c);
}

Test(cover, neighbours_merge)
{
	struct cover c;
	struct extent e;
	cover_init(&c, 3);
	cr_assert_eq(cover_add(&c, 10, 20), 0);
	cr_assert_eq(cover_add(&c, 30, 40), 0);
	cr_assert_eq(c.count, 2);
	cr_assert_eq(cover_add(&c, 40, 50), 0); /* behind */
	cr_assert_eq(cover_add(&c, 5, 10), 0);  /* before */
	cr_assert_eq(c.count, 2);
	cr_assert_eq(cover_add(&c, 20, 30), 0); /* between */
	cr_assert_eq(c.count, 1);
	cr_assert(cover_next(&c, 0, &e));
	cr_assert_eq(e.from, 5);
	cr_assert_eq(e.to, 50);
	cr_assert_not(cover_next(&c, 50, &e));
	cr_assert_eq(cover_add(&c, 52, 53), 0); /* a hole of one byte and more stays a hole */
	cr_assert_eq(c.count, 2);
	check_invariants(&c);
	cover_fini(&c);
}

Test(cover, one_range_swallows_many)
{
	struct cover c;
	cover_init(&c, 1000);
	for (uint64_t i = 0; i < 1000; i++)
		cr_assert_eq(cover_add(&c, i * 10, i * 10 + 5), 0);
	cr_assert_eq(c.count, 1000);
	cr_assert_eq(cover_add(&c, 20000, 20001), -E2BIG);
	cr_assert_eq(c.bytes, 5000);
	cr_assert_eq(cover_add(&c, 7, 9992), 0);
	cr_assert_eq(c.count, 2);
	cr_assert_eq(c.bytes, 5 + 9995 - 7);
	check_invariants(&c);
	cr_assert_eq(cover_remove(&c, 0, UINT64_MAX), 0);
	cr_assert_eq(c.count, 0);
	cr_assert_eq(c.bytes, 0);
	cr_assert_null(c.root);
	cr_assert_null(c.last);
	cover_fini(&c);
}

Test(cover, a_split_needs_room)
{
	struct cover c;
	cover_init(&c, 1);
	cr_assert_eq(cover_add(&c, 0, 100), 0);
	cr_assert_eq(cover_remove(&c, 40, 60), -E2BIG);
	cr_assert_eq(c.bytes, 100);
	cr_assert(cover_has(&c, 0, 100));
	cr_assert_eq(cover_remove(&c, 0, 40), 0);
	cr_assert_eq(cover_remove(&c, 60, 100), 0);
	cr_assert(cover_has(&c, 40, 60));
	cr_assert_eq(c.bytes, 20);
	cover_fini(&c);
}

Test(cover, edges_of_64_bits)
{
	const uint64_t top = UINT64_MAX;
	struct cover c;
	struct extent e;
	bool present;
	cover_init(&c, 8);
	cr_assert_eq(cover_add(&c, top - 1, top), 0);
	cr_assert_eq(cover_add(&c, 0, 1), 0);
	cr_assert_eq(cover_run_end(&c, top - 1, &present), top);
	cr_assert(present);
	cr_assert_eq(cover_run_end(&c, top, &present), top);
	cr_assert_not(present);
	cr_assert(cover_next(&c, 1, &e));
	cr_assert_eq(e.from, top - 1);
	cr_assert_not(cover_next(&c, top, &e));
	cr_assert_eq(cover_gaps(&c, 0, top, &e, 1), 1);
	cr_assert_eq(e.from, 1);
	cr_assert_eq(e.to, top - 1);

	cr_assert_eq(cover_add(&c, 0, top), 0);
	cr_assert_eq(c.count, 1);
	cr_assert_eq(c.bytes, top);
	cr_assert(cover_has(&c, 0, top));
	cr_assert_eq(cover_bytes_in(&c, 0, top), top);
	cr_assert_eq(cover_add(&c, 0, top), 0);
	cr_assert_eq(cover_remove(&c, 1, top - 1), 0);
	cr_assert_eq(c.bytes, 2);
	cr_assert_eq(cover_remove(&c, top - 1, top), 0);
	cr_assert_eq(cover_remove(&c, 0, 1), 0);
	cr_assert_eq(c.count, 0);
	check_invariants(&c);
	cover_fini(&c);
}

Test(cover, in_order_stays_one_node)
{
	struct cover c;
	cover_init(&c, 1);
	for (uint64_t at = 0; at < 1000 * 4096; at += 4096) {
		cr_assert_eq(cover_add(&c, at, at + 4096), 0);
		cr_assert_eq(cover_add(&c, at, at + 4096), 0); /* sent again */
		cr_assert_eq(c.root, c.last);
	}
	cr_assert_eq(c.bytes, 1000 * 4096);
	cover_fini(&c);
}

/* The orders in which a naive tree becomes a list, or loses its balance when thinned out. */
Test(cover, depth_is_bounded_in_every_order)
{
	enum { COUNT = 20000 };
	for (int order = 0; order < 4; order++) {
		struct cover c;
		uint64_t rng = 7;
		cover_init(&c, COUNT);
		for (uint64_t i = 0; i < COUNT; i++) {
			uint64_t at = order == 0 ? i : order == 1 ? COUNT - 1 - i
				: order == 2 ? (i % 2 ? COUNT - 1 - i / 2 : i / 2)
				: i * 7919 % COUNT;
			cr_assert_eq(cover_add(&c, at * 2, at * 2 + 1), 0);
		}
		check_invariants(&c);
		cr_assert_eq(c.count, COUNT);
		for (int i = 0; i < COUNT * 2; i++) {
			uint64_t at = random_below(&rng, COUNT);
			cr_assert_eq(cover_remove(&c, at * 2, at * 2 + 1), 0);
			if (i % 1000 == 0)
				check_invariants(&c);
		}
		check_invariants(&c);
		cover_fini(&c);
	}
}

Test(cover, fini_twice_and_use_again)
{
	struct cover c;
	cover_init(&c, 4);
	cr_assert_eq(cover_add(&c, 1, 2), 0);
	cover_fini(&c);
	cover_fini(&c);
	cr_assert_eq(c.bytes, 0);
	cr_assert_eq(c.count, 0);
	cr_assert_not(cover_overlaps(&c, 0, UINT64_MAX));
	cr_assert_eq(cover_add(&c, 1, 2), 0);
	cover_fini(&c);
}
