/*
 * Subscriptions as a trie by topic level.
 *
 * Maps (filter, owner) to a small value. Matching a name calls back for every (owner, value) whose
 * filter matches; an owner with several matching filters is called several times. The order
 * depends on nothing but the history of adds and removes.
 *
 * A node is a level of a filter: about 100 bytes, and a filter of 65,535 bytes can have 65,536 of
 * them. The caller bounds `nodes` and the levels of one filter (trie_levels), not this module.
 */
#ifndef SLUICE_TRIE_H
#define SLUICE_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trie_node;

struct trie {
	struct trie_node *root;
	uint64_t count; /* subscriptions */
	uint64_t nodes; /* levels allocated, the root not counted */
	uint64_t seed;  /* of the hash of a level, so that a peer can't choose colliding ones */
};

struct trie_sub {
	uint8_t options;         /* SUBSCRIBE's options byte, QoS already as granted */
	uint32_t identifier;     /* v5 Subscription Identifier; 0 = none */
};

typedef void trie_match_fn(void *arg, void *owner, const struct trie_sub *sub);

/* 0 or −ENOMEM. */
int trie_init(struct trie *t);
/* How many levels has a filter or name? (One more than it has slashes.) */
size_t trie_levels(const char *filter, size_t filter_bytes);
void trie_fini(struct trie *t);  /* idempotent */
/* Adds or replaces. 1 when new, 0 when it replaced one, −ENOMEM. The filter must be valid. */
int trie_add(struct trie *t, const char *filter, size_t filter_bytes, void *owner,
	const struct trie_sub *sub);
/* 1 removed, 0 there was none. Empty nodes are freed. */
int trie_remove(struct trie *t, const char *filter, size_t filter_bytes, void *owner);
/* Calls fn for each match. fn must not change the trie. */
void trie_match(const struct trie *t, const char *topic, size_t topic_bytes, trie_match_fn *fn,
	void *arg);

#endif
