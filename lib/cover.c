/*
 * Coverage: an AA tree of extents, ordered by their first byte.
 *
 * Invariants, between any two calls:
 *   1. Extents are not empty, don't overlap and don't touch: for neighbours a < b, a.to < b.from.
 *      So ordering by `from` is also ordering by `to`, and one search by `to` answers everything.
 *   2. `bytes` is the sum of their lengths, `count` their number, `count` ≤ `extents_max`.
 *   3. `last` is the rightmost node, or NULL when there is none.
 *   4. AA: a leaf has level 1; a left child is one level below its parent; a right child is one
 *      level below or on the same level, but never two on one level in a row.
 *
 * The order in which extents arrive is chosen by the peer. Therefore the balance is a guarantee
 * and not a matter of luck: with invariant 4 the depth is at most 2 log2(count + 1), which for a
 * 32-bit count bounds the recursion below by 64. (A treap would be as short, but a peer that
 * knows the generator of its priorities could line up the nodes.)
 *
 * Growing, shrinking and merging keep an extent's place in the order, so they only write to its
 * node. The tree itself changes when an extent appears or disappears. Whatever can fail (the
 * limit, the allocation) comes before the first change.
 *
 * It deliberately keeps no sums per subtree: cover_bytes_in walks the extents of its range.
 */
#include "cover.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

struct cover_node {
	struct extent e;
	struct cover_node *left;  /* lower extents */
	struct cover_node *right; /* higher extents */
	uint32_t level;           /* 1: leaf */
};

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ---- the tree ---- */

static uint32_t node_level(const struct cover_node *t)
{
	return t != NULL ? t->level : 0;
}

/* A left child on the level of its parent becomes the parent. */
static struct cover_node *node_skew(struct cover_node *t)
{
	if (t == NULL || t->left == NULL || t->left->level != t->level)
		return t;
	struct cover_node *l = t->left;
	t->left = l->right;
	l->right = t;
	return l;
}

/* Of three on one level in a row the middle one goes up. */
static struct cover_node *node_split(struct cover_node *t)
{
	if (t == NULL || t->right == NULL || node_level(t->right->right) != t->level)
		return t;
	struct cover_node *r = t->right;
	t->right = r->left;
	r->left = t;
	r->level++;
	return r;
}

static struct cover_node *node_insert(struct cover_node *t, struct cover_node *new)
{
	if (t == NULL)
		return new;
	if (new->e.from < t->e.from)
		t->left = node_insert(t->left, new);
	else
		t->right = node_insert(t->right, new);
	return node_split(node_skew(t));
}

/* Restores invariant 4 at t after something below it went away. */
static struct cover_node *node_rebalance(struct cover_node *t)
{
	uint32_t left = node_level(t->left), right = node_level(t->right);
	uint32_t level = (left < right ? left : right) + 1;
	if (level < t->level) {
		t->level = level;
		if (right > level)
			t->right->level = level;
	}
	t = node_skew(t);
	t->right = node_skew(t->right);
	if (t->right != NULL)
		t->right->right = node_skew(t->right->right);
	t = node_split(t);
	t->right = node_split(t->right);
	return t;
}

/* Takes the extent that begins at `from` out; it must exist. An inner node takes over the extent
 * of a neighbour, whose node is freed instead: pointers to nodes don't survive this. */
static struct cover_node *node_delete(struct cover_node *t, uint64_t from)
{
	assert(t != NULL);
	if (from < t->e.from) {
		t->left = node_delete(t->left, from);
	} else if (from > t->e.from) {
		t->right = node_delete(t->right, from);
	} else if (t->left != NULL) {
		const struct cover_node *below = t->left;
		while (below->right != NULL)
			below = below->right;
		t->e = below->e;
		t->left = node_delete(t->left, t->e.from);
	} else if (t->right != NULL) {
		const struct cover_node *above = t->right;
		while (above->left != NULL)
			above = above->left;
		t->e = above->e;
		t->right = node_delete(t->right, t->e.from);
	} else {
		free(t);
		return NULL;
	}
	return node_rebalance(t);
}

static void node_free_all(struct cover_node *t)
{
	if (t == NULL)
		return;
	node_free_all(t->left);
	node_free_all(t->right);
	free(t);
}

/* ---- extents: the tree and the numbers about it ---- */

/* The first extent that ends at `at` or after it; NULL when there is none. */
static struct cover_node *extent_find(const struct cover *c, uint64_t at)
{
	struct cover_node *found = NULL;
	for (struct cover_node *t = c->root; t != NULL;) {
		if (t->e.to >= at) {
			found = t;
			t = t->left;
		} else {
			t = t->right;
		}
	}
	return found;
}

/* The first extent that ends after `at`, so has a byte at `at` or after it. */
static struct cover_node *extent_find_after(const struct cover *c, uint64_t at)
{
	return at == UINT64_MAX ? NULL : extent_find(c, at + 1);
}

/* A node of its own for [from, to), not yet in the tree. */
static int extent_new(const struct cover *c, uint64_t from, uint64_t to, struct cover_node **ret)
{
	if (c->count >= c->extents_max)
		return -E2BIG;
	struct cover_node *n = malloc(sizeof(*n));
	if (n == NULL)
		return -ENOMEM;
	*n = (struct cover_node){.e = {from, to}, .level = 1};
	*ret = n;
	return 0;
}

static void extent_link(struct cover *c, struct cover_node *n)
{
	c->root = node_insert(c->root, n);
	c->count++;
	c->bytes += n->e.to - n->e.from;
	if (c->last == NULL || n->e.from > c->last->e.from)
		c->last = n;
}

static void extent_delete(struct cover *c, struct extent e)
{
	c->root = node_delete(c->root, e.from);
	c->count--;
	c->bytes -= e.to - e.from;
	c->last = c->root;
	while (c->last != NULL && c->last->right != NULL)
		c->last = c->last->right;
}

/* Moves the ends of an extent; the caller sees to it that it stays clear of its neighbours. */
static void extent_set(struct cover *c, struct cover_node *n, uint64_t from, uint64_t to)
{
	c->bytes -= n->e.to - n->e.from;
	c->bytes += to - from;
	n->e = (struct extent){from, to};
}

/* ---- the contract ---- */

void cover_init(struct cover *c, uint32_t extents_max)
{
	*c = (struct cover){.extents_max = extents_max};
}

void cover_fini(struct cover *c)
{
	node_free_all(c->root);
	cover_init(c, c->extents_max);
}

int cover_add(struct cover *c, uint64_t from, uint64_t to)
{
	if (from >= to)
		return 0;

	/* In order, or again: no search. */
	struct cover_node *n = c->last;
	if (n != NULL && from >= n->e.from && from <= n->e.to) {
		extent_set(c, n, n->e.from, max_u64(n->e.to, to));
		return 0;
	}

	n = extent_find(c, from);
	if (n == NULL || n->e.from > to) {
		int err = extent_new(c, from, to, &n);
		if (err != 0)
			return err;
		extent_link(c, n);
		return 0;
	}

	/* The extent at n is touched. It swallows those behind it that are touched too. */
	struct extent first = n->e;
	uint64_t merged_to = max_u64(first.to, to);
	for (n = extent_find_after(c, first.to); n != NULL && n->e.from <= merged_to;
		n = extent_find_after(c, first.to)) {
		merged_to = max_u64(merged_to, n->e.to);
		extent_delete(c, n->e);
	}
	n = extent_find(c, first.to);
	extent_set(c, n, min_u64(first.from, from), merged_to);
	return 0;
}

bool cover_may_add(const struct cover *c, uint64_t from, uint64_t to)
{
	if (from >= to || c->count < c->extents_max)
		return true;
	const struct cover_node *n = extent_find(c, from);
	return n != NULL && n->e.from <= to;
}

int cover_remove(struct cover *c, uint64_t from, uint64_t to)
{
	struct cover_node *n = from < to ? extent_find_after(c, from) : NULL;
	if (n == NULL)
		return 0;

	if (n->e.from < from && n->e.to > to) {
		struct cover_node *rest;
		int err = extent_new(c, to, n->e.to, &rest);
		if (err != 0)
			return err;
		extent_set(c, n, n->e.from, from);
		extent_link(c, rest);
		return 0;
	}

	if (n->e.from < from) {
		extent_set(c, n, n->e.from, from);
		n = extent_find_after(c, from);
	}
	while (n != NULL && n->e.to <= to) {
		extent_delete(c, n->e);
		n = extent_find_after(c, from);
	}
	if (n != NULL && n->e.from < to)
		extent_set(c, n, to, n->e.to);
	return 0;
}

bool cover_has(const struct cover *c, uint64_t from, uint64_t to)
{
	if (from >= to)
		return true;
	const struct cover_node *n = extent_find(c, to);
	return n != NULL && n->e.from <= from;
}

bool cover_overlaps(const struct cover *c, uint64_t from, uint64_t to)
{
	if (from >= to)
		return false;
	const struct cover_node *n = extent_find_after(c, from);
	return n != NULL && n->e.from < to;
}

uint64_t cover_run_end(const struct cover *c, uint64_t at, bool *ret_present)
{
	const struct cover_node *n = extent_find_after(c, at);
	bool present = n != NULL && n->e.from <= at;
	if (ret_present != NULL)
		*ret_present = present;
	if (n == NULL)
		return UINT64_MAX;
	return present ? n->e.to : n->e.from;
}

size_t cover_gaps(const struct cover *c, uint64_t from, uint64_t to, struct extent *ret_gaps,
	size_t gaps_max)
{
	size_t gaps = 0;
	while (from < to && gaps < gaps_max) {
		const struct cover_node *n = extent_find_after(c, from);
		uint64_t end = n != NULL ? min_u64(n->e.from, to) : to;
		if (from < end)
			ret_gaps[gaps++] = (struct extent){from, end};
		from = n != NULL ? n->e.to : to;
	}
	return gaps;
}

uint64_t cover_end(const struct cover *c)
{
	const struct cover_node *n = c->root;
	while (n != NULL && n->right != NULL)
		n = n->right;
	return n != NULL ? n->e.to : 0;
}

uint64_t cover_bytes_in(const struct cover *c, uint64_t from, uint64_t to)
{
	uint64_t bytes = 0;
	if (from == 0 && to >= cover_end(c))
		return c->bytes; /* the usual question, which peers may ask as often as they like */
	while (from < to) {
		bool present;
		uint64_t end = min_u64(cover_run_end(c, from, &present), to);
		if (present)
			bytes += end - from;
		from = end;
	}
	return bytes;
}

bool cover_next(const struct cover *c, uint64_t at, struct extent *ret)
{
	const struct cover_node *n = extent_find_after(c, at);
	if (n == NULL)
		return false;
	*ret = n->e;
	return true;
}
