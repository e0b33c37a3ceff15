/*
 * Packets that go to the kernel in one call.
 */
#ifndef SLUICE_BENCH_BATCH_H
#define SLUICE_BENCH_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "peer.h"

enum {
	BATCH_ENTRIES = 128,
	BATCH_SPANS = 512, /* ≤ IOV_MAX */
	BATCH_BYTES = 1 << 20,
	BATCH_ARENA_BYTES = 64 << 10,
};

struct batch {
	unsigned spans_count, entries_count;
	size_t bytes; /* of all spans */
	size_t arena_used;
	struct iovec spans[BATCH_SPANS];
	uint64_t totals[BATCH_ENTRIES]; /* whole length of each entry */
	uint8_t arena[BATCH_ARENA_BYTES];
};

/* Empties it. */
void batch_init(struct batch *b);
/* Is there room for one entry more, at least for its head and some of its payload? */
bool batch_has_room(const struct batch *b);
/* Adds one entry of the peer's outbox without its first `done` bytes, the payload as far as there
 * is room. False when the packet can't be made (out of memory). */
bool batch_add_entry(struct batch *b, const struct peer *p, uint32_t entry, uint64_t done);

#endif
