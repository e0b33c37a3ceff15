/*
 * Coverage: which bytes of a file are there.
 *
 * A set of disjoint, non-adjacent half-open extents [from, to) of uint64_t in a balanced tree.
 * Adding merges with neighbours, so a file that arrives in order stays one node. Node memory is
 * bounded by extents_max, given at init, and follows the number of extents up and down.
 *
 * Everywhere a range with from ≥ to is empty. Since `to` is one past the end, the byte at
 * UINT64_MAX itself can't be there. One thread at a time.
 */
#ifndef SLUICE_COVER_H
#define SLUICE_COVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cover_node;

struct extent {
	uint64_t from; /* first byte */
	uint64_t to;   /* one past the last byte; from < to */
};

struct cover {
	struct cover_node *root; /* NULL: nothing is there */
	struct cover_node *last; /* the highest extent: where a file that arrives in order grows */
	uint64_t bytes;       /* sum of all extents */
	uint32_t count;       /* extents now */
	uint32_t extents_max; /* never more than this many */
};

void cover_init(struct cover *c, uint32_t extents_max);
/* Frees all nodes; the cover is then empty, as after init. Idempotent. */
void cover_fini(struct cover *c);

/* Adds [from, to). Empty ranges succeed. 0; −E2BIG when it would need one extent more than
 * extents_max (nothing changed); −ENOMEM (nothing changed). */
int cover_add(struct cover *c, uint64_t from, uint64_t to);
/* Would cover_add succeed with respect to extents_max? */
bool cover_may_add(const struct cover *c, uint64_t from, uint64_t to);
/* Takes [from, to) out; may split one extent in two. Errors as cover_add, and only for a split:
 * taking out what reaches an end of its extents always succeeds. */
int cover_remove(struct cover *c, uint64_t from, uint64_t to);
/* Is every byte of [from, to) there? An empty range is. */
bool cover_has(const struct cover *c, uint64_t from, uint64_t to);
/* Is any byte of [from, to) there? */
bool cover_overlaps(const struct cover *c, uint64_t from, uint64_t to);
/* End of the run that begins at `at`: the first byte ≥ at whose presence differs from that of
 * `at`; UINT64_MAX when nothing changes any more. *ret_present (may be NULL) says whether `at`
 * itself is there. */
uint64_t cover_run_end(const struct cover *c, uint64_t at, bool *ret_present);
/* Up to gaps_max missing ranges of [from, to) in ascending order; returns their number. */
size_t cover_gaps(const struct cover *c, uint64_t from, uint64_t to, struct extent *ret_gaps,
	size_t gaps_max);
/* How many bytes of [from, to) are there. */
uint64_t cover_bytes_in(const struct cover *c, uint64_t from, uint64_t to);
/* The first extent that ends after `at`; false when there is none. Iterate with at = e.to. */
bool cover_next(const struct cover *c, uint64_t at, struct extent *ret);
/* The end of the last extent; 0: there is none. In logarithmic time. */
uint64_t cover_end(const struct cover *c);

#endif
