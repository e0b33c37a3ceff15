/*
 * The subscription trie.
 *
 * A node stands for a path of levels from the root. "+" and "#" have pointers of their own in their
 * parent; every other child is found through the parent's hash table: open addressing, linear
 * probing, at most three quarters full, so that one node can have a hundred thousand children
 * ($file-response/<clientid>) as well as one.
 *
 * The subscriptions of a node are an array in the order of arrival (the last one fills the place of
 * one that is removed). As soon as it is long, a table from owner to place goes with it: a hundred
 * thousand clients may subscribe to one filter, and each leaves in constant time.
 *
 * Invariants: every node but the root has a subscription, or a child; a node is in its parent's
 * table exactly if it is neither "+" nor "#"; a "#" node has no children.
 *
 * Nothing here recurses, since a filter may have 65,536 levels: adding and removing walk one path,
 * freeing and matching find their way back by the parent pointers.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "trie.h"

enum { TABLE_MIN = 2, SCAN_MAX = 8 };

/* Subscriptions of one node. */
struct sub {
	void *owner;
	struct trie_sub value;
};

struct subs {
	struct sub *list;
	uint32_t count, room;
	uint32_t *places;    /* by owner's hash: 1 + index in list, 0 = free; NULL at first */
	uint32_t places_max; /* a power of two */
};

struct trie_node {
	struct trie_node *parent;
	struct trie_node *plus, *hash;
	struct trie_node **children;
	uint32_t children_count;
	uint32_t children_max; /* a power of two, or 0 */
	uint32_t level_hash;
	uint16_t level_bytes;
	struct subs subs;
	char level[];
};

/* Tables are grown before they are more than three quarters full: probing always meets a gap. */
static bool table_is_full(uint32_t count, uint32_t max)
{
	return (uint64_t)(count + 1) * 4 > (uint64_t)max * 3;
}

/* ---- subscriptions ---- */

static uint32_t owner_hash(const void *owner)
{
	return (uint32_t)(((uintptr_t)owner * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

/* The place of an owner's entry in `places`, or of the free one where it would be. */
static uint32_t places_find(const struct subs *s, const void *owner)
{
	uint32_t mask = s->places_max - 1, at = owner_hash(owner) & mask;

	while (s->places[at] && s->list[s->places[at] - 1].owner != owner)
		at = (at + 1) & mask;
	return at;
}

/* Takes an entry out and closes the gap: what was pushed on by it moves back. */
static void places_remove(struct subs *s, uint32_t at)
{
	uint32_t mask = s->places_max - 1, gap = at;

	for (at = (at + 1) & mask; s->places[at]; at = (at + 1) & mask) {
		uint32_t home = owner_hash(s->list[s->places[at] - 1].owner) & mask;
		if (((at - home) & mask) >= ((at - gap) & mask)) {
			s->places[gap] = s->places[at];
			gap = at;
		}
	}
	s->places[gap] = 0;
}

static int places_build(struct subs *s, uint32_t max)
{
	uint32_t *places = calloc(max, sizeof(*places));

	if (!places)
		return -ENOMEM;
	free(s->places);
	s->places = places;
	s->places_max = max;
	for (uint32_t i = 0; i < s->count; i++)
		s->places[places_find(s, s->list[i].owner)] = i + 1;
	return 0;
}

static struct sub *subs_find(const struct subs *s, const void *owner)
{
	if (s->places) {
		uint32_t place = s->places[places_find(s, owner)];
		return place ? &s->list[place - 1] : NULL;
	}
	for (uint32_t i = 0; i < s->count; i++)
		if (s->list[i].owner == owner)
			return &s->list[i];
	return NULL;
}

static int subs_add(struct subs *s, void *owner, const struct trie_sub *value)
{
	if (s->count == s->room) {
		uint32_t room = s->room ? s->room * 2 : 1;
		struct sub *list = realloc(s->list, room * sizeof(*list));
		if (!list)
			return -ENOMEM;
		s->list = list;
		s->room = room;
	}
	if (s->count >= SCAN_MAX && table_is_full(s->count, s->places_max) &&
		places_build(s, s->places_max ? s->places_max * 2 : SCAN_MAX * 4))
		return -ENOMEM;
	if (s->places)
		s->places[places_find(s, owner)] = s->count + 1;
	s->list[s->count++] = (struct sub){owner, *value};
	return 0;
}

static void subs_remove(struct subs *s, struct sub *sub)
{
	uint32_t place = (uint32_t)(sub - s->list), last = s->count - 1;

	if (s->places) {
		places_remove(s, places_find(s, sub->owner));
		if (place != last)
			s->places[places_find(s, s->list[last].owner)] = place + 1;
	}
	s->list[place] = s->list[last];
	s->count = last;
	if (s->count == 0) {
		free(s->list);
		free(s->places);
		*s = (struct subs){0};
	}
}

/* ---- nodes ---- */

/* A level of a filter or name: [text, text + bytes). */
struct level {
	const char *text;
	size_t bytes;
};

/* The level that begins at `at`; at == text_bytes is an empty one. */
static struct level level_at(const char *text, size_t text_bytes, size_t at)
{
	const char *slash = at < text_bytes ? memchr(text + at, '/', text_bytes - at) : NULL;

	return (struct level){text + at, slash ? (size_t)(slash - text) - at : text_bytes - at};
}

static bool level_is(const struct level *l, char c)
{
	return l->bytes == 1 && *l->text == c;
}

static uint32_t level_hash(const struct trie *t, const struct level *l)
{
	return (uint32_t)XXH3_64bits_withSeed(l->text, l->bytes, t->seed);
}

/* The place of a level in the table of children, or of the free one where it would be. */
static uint32_t children_find(const struct trie_node *n, const struct level *l, uint32_t hash)
{
	uint32_t mask = n->children_max - 1, at = hash & mask;
	const struct trie_node *child;

	while ((child = n->children[at])) {
		if (child->level_hash == hash && child->level_bytes == l->bytes &&
			memcmp(child->level, l->text, l->bytes) == 0)
			break;
		at = (at + 1) & mask;
	}
	return at;
}

static struct trie_node *child_find(const struct trie *t, const struct trie_node *n,
	const struct level *l)
{
	return n->children_max ? n->children[children_find(n, l, level_hash(t, l))] : NULL;
}

static int children_grow(struct trie_node *n)
{
	uint32_t max = n->children_max ? n->children_max * 2 : TABLE_MIN, mask = max - 1;
	struct trie_node **table = calloc(max, sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (uint32_t i = 0; i < n->children_max; i++) {
		if (!n->children[i])
			continue;
		uint32_t at = n->children[i]->level_hash & mask;
		while (table[at])
			at = (at + 1) & mask;
		table[at] = n->children[i];
	}
	free(n->children);
	n->children = table;
	n->children_max = max;
	return 0;
}

static void children_remove(struct trie_node *n, const struct trie_node *child)
{
	uint32_t mask = n->children_max - 1, gap = child->level_hash & mask;

	while (n->children[gap] != child)
		gap = (gap + 1) & mask;
	for (uint32_t at = (gap + 1) & mask; n->children[at]; at = (at + 1) & mask) {
		uint32_t home = n->children[at]->level_hash & mask;
		if (((at - home) & mask) >= ((at - gap) & mask)) {
			n->children[gap] = n->children[at];
			gap = at;
		}
	}
	n->children[gap] = NULL;
	if (--n->children_count == 0) {
		free(n->children);
		n->children = NULL;
		n->children_max = 0;
	}
}

/* The child of a filter's level: an existing one or NULL. */
static struct trie_node *child_get(const struct trie *t, const struct trie_node *n,
	const struct level *l)
{
	if (level_is(l, '+'))
		return n->plus;
	if (level_is(l, '#'))
		return n->hash;
	return child_find(t, n, l);
}

static struct trie_node *child_new(struct trie *t, struct trie_node *parent, const struct level *l)
{
	bool is_wild = level_is(l, '+') || level_is(l, '#');

	if (!is_wild && table_is_full(parent->children_count, parent->children_max) &&
		children_grow(parent))
		return NULL;
	struct trie_node *n = calloc(1, sizeof(*n) + l->bytes);
	if (!n)
		return NULL;
	assert(l->bytes <= UINT16_MAX); /* a filter is an MQTT string */
	n->parent = parent;
	n->level_bytes = (uint16_t)l->bytes;
	memcpy(n->level, l->text, l->bytes);
	if (level_is(l, '+')) {
		parent->plus = n;
	} else if (level_is(l, '#')) {
		parent->hash = n;
	} else {
		n->level_hash = level_hash(t, l);
		parent->children[children_find(parent, l, n->level_hash)] = n;
		parent->children_count++;
	}
	t->nodes++;
	return n;
}

static bool node_is_empty(const struct trie_node *n)
{
	return n->subs.count == 0 && n->children_count == 0 && !n->plus && !n->hash;
}

/* Frees a node, its parent, … as long as they hold nothing. */
static void node_prune(struct trie *t, struct trie_node *n)
{
	while (n != t->root && node_is_empty(n)) {
		struct trie_node *parent = n->parent;
		if (parent->plus == n)
			parent->plus = NULL;
		else if (parent->hash == n)
			parent->hash = NULL;
		else
			children_remove(parent, n);
		/* An addition that failed may have left an empty table or list. */
		free(n->children);
		free(n->subs.list);
		free(n);
		t->nodes--;
		n = parent;
	}
}

/* ---- the interface ---- */

size_t trie_levels(const char *filter, size_t filter_bytes)
{
	size_t levels = 1;

	for (size_t i = 0; i < filter_bytes; i++)
		levels += filter[i] == '/';
	return levels;
}

int trie_init(struct trie *t)
{
	*t = (struct trie){.root = calloc(1, sizeof(struct trie_node))};
	if (!t->root)
		return -ENOMEM;
	/* lib/ has no source of randomness, but the address of a heap block is one: peers don't
	 * know it, and nothing that can be observed depends on it. */
	t->seed = (uint64_t)(uintptr_t)t->root * UINT64_C(0x9e3779b97f4a7c15);
	return 0;
}

void trie_fini(struct trie *t)
{
	/* A list of the nodes still to be freed, linked by their parent pointers. */
	struct trie_node *todo = t->root;

	while (todo) {
		struct trie_node *n = todo;
		todo = n->parent;
		struct trie_node *wild[] = {n->plus, n->hash};
		for (uint32_t i = 0; i < n->children_max + 2; i++) {
			struct trie_node *child = i < 2 ? wild[i] : n->children[i - 2];
			if (!child)
				continue;
			child->parent = todo;
			todo = child;
		}
		free(n->children);
		free(n->subs.list);
		free(n->subs.places);
		free(n);
	}
	*t = (struct trie){0};
}

int trie_add(struct trie *t, const char *filter, size_t filter_bytes, void *owner,
	const struct trie_sub *sub)
{
	struct trie_node *n = t->root;

	for (size_t at = 0; at <= filter_bytes;) {
		struct level l = level_at(filter, filter_bytes, at);
		struct trie_node *child = child_get(t, n, &l);
		if (!child)
			child = child_new(t, n, &l);
		if (!child) {
			node_prune(t, n);
			return -ENOMEM;
		}
		n = child;
		at += l.bytes + 1;
	}
	struct sub *old = subs_find(&n->subs, owner);
	if (old) {
		old->value = *sub;
		return 0;
	}
	if (subs_add(&n->subs, owner, sub)) {
		node_prune(t, n);
		return -ENOMEM;
	}
	t->count++;
	return 1;
}

int trie_remove(struct trie *t, const char *filter, size_t filter_bytes, void *owner)
{
	struct trie_node *n = t->root;

	for (size_t at = 0; n && at <= filter_bytes;) {
		struct level l = level_at(filter, filter_bytes, at);
		n = child_get(t, n, &l);
		at += l.bytes + 1;
	}
	struct sub *sub = n ? subs_find(&n->subs, owner) : NULL;
	if (!sub)
		return 0;
	subs_remove(&n->subs, sub);
	node_prune(t, n);
	t->count--;
	return 1;
}

static void emit(const struct trie_node *n, trie_match_fn *fn, void *arg)
{
	for (uint32_t i = 0; i < n->subs.count; i++)
		fn(arg, n->subs.list[i].owner, &n->subs.list[i].value);
}

/* Walks every path of the trie that the name can take, depth first: at each node the child of the
 * name's level, then "+". `at` is where the level below node n begins, one past the end when the
 * name is used up; `from` is the child that was left last, NULL when n is entered. */
void trie_match(const struct trie *t, const char *topic, size_t topic_bytes, trie_match_fn *fn,
	void *arg)
{
	/* [MQTT-4.7.2-1]: in the first level no wildcard matches a name that begins with "$". */
	bool is_hidden = topic_bytes > 0 && topic[0] == '$';
	const struct trie_node *n = t->root, *from = NULL, *next;
	size_t at = 0;

	for (;;) {
		bool may_be_wild = n != t->root || !is_hidden, is_end = at > topic_bytes;
		struct level l = {0};
		if (!from && n->hash && may_be_wild)
			emit(n->hash, fn, arg); /* "#" includes the level above it */
		if (!from && is_end)
			emit(n, fn, arg);
		next = NULL;
		if (!is_end) {
			l = level_at(topic, topic_bytes, at);
			if (!from)
				next = child_find(t, n, &l);
			if (!next && may_be_wild && from != n->plus)
				next = n->plus;
		}
		if (next) {
			n = next;
			from = NULL;
			at += l.bytes + 1;
			continue;
		}
		if (n == t->root)
			return;
		from = n;
		n = n->parent;
		/* Back over the slash, then to the beginning of the level in front of it. */
		const char *slash = at > 1 ? memrchr(topic, '/', at - 1) : NULL;
		at = slash ? (size_t)(slash - topic) + 1 : 0;
	}
}
