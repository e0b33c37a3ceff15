/*
 * Sets of packet identifiers.
 *
 * A session has a few such sets, and nearly always a window of a dozen identifiers at most in
 * each, so those live in the struct and cost no allocation: an idle session stays small, and one
 * with a publish at a time never calls malloc. A client that keeps thousands unacknowledged gets a
 * bitmap in 16 pages, each there only while it holds something. The set goes back to its small form
 * when it is empty, not before, so that a window about as large as the limit does not move to and
 * fro.
 *
 * 0 is no identifier [MQTT-2.2.1-3]: it is never in a set, and to add it is a programmer's error.
 */
#include "window.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum { PAGES_COUNT = 16, PAGE_IDS = 4096, PAGE_WORDS = PAGE_IDS / 64, ID_MAX = 65535 };

struct idset_pages {
	uint64_t *words[PAGES_COUNT]; /* NULL: none of the page's identifiers is in the set */
	uint16_t counts[PAGES_COUNT]; /* how many of them are */
};

static uint64_t bit_of(uint16_t id)
{
	return 1ull << id % 64;
}

static uint64_t *word_of(uint64_t *words, uint16_t id)
{
	return &words[id % PAGE_IDS / 64];
}

static void pages_free(struct idset_pages *p)
{
	for (int i = 0; i < PAGES_COUNT; i++)
		free(p->words[i]);
	free(p);
}

static bool pages_has(const struct idset_pages *p, uint16_t id)
{
	uint64_t *words = p->words[id / PAGE_IDS];

	return words && (*word_of(words, id) & bit_of(id));
}

/* An identifier that is not there. */
static int pages_add(struct idset_pages *p, uint16_t id)
{
	unsigned page = id / PAGE_IDS;

	if (!p->words[page]) {
		p->words[page] = calloc(PAGE_WORDS, sizeof(uint64_t));
		if (!p->words[page])
			return -ENOMEM;
	}
	*word_of(p->words[page], id) |= bit_of(id);
	p->counts[page]++;
	return 0;
}

/* An identifier that is there. */
static void pages_remove(struct idset_pages *p, uint16_t id)
{
	unsigned page = id / PAGE_IDS;

	*word_of(p->words[page], id) &= ~bit_of(id);
	if (--p->counts[page] == 0) {
		free(p->words[page]);
		p->words[page] = NULL;
	}
}

/* The first identifier ≥ from that is not there, or 0. */
static uint16_t pages_free_from(const struct idset_pages *p, uint32_t from)
{
	while (from <= ID_MAX) {
		uint64_t *words = p->words[from / PAGE_IDS];

		if (!words)
			return (uint16_t)from;
		uint64_t unused = ~*word_of(words, (uint16_t)from) >> from % 64;

		if (unused)
			return (uint16_t)(from + (unsigned)__builtin_ctzll(unused));
		from = (from / 64 + 1) * 64;
	}
	return 0;
}

/* Moves the few into pages. */
static int page_out(struct idset *s)
{
	struct idset_pages *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->count; i++) {
		if (pages_add(p, s->few[i]) < 0) {
			pages_free(p);
			return -ENOMEM;
		}
	}
	s->pages = p;
	s->paged = true;
	return 0;
}

/* Where the identifier stands among the few, or `count`. */
static uint32_t few_find(const struct idset *s, uint16_t id)
{
	uint32_t i = 0;

	while (i < s->count && s->few[i] != id)
		i++;
	return i;
}

void idset_init(struct idset *s)
{
	*s = (struct idset){0};
}

void idset_fini(struct idset *s)
{
	if (s->paged)
		pages_free(s->pages);
	idset_init(s);
}

bool idset_has(const struct idset *s, uint16_t id)
{
	return s->paged ? pages_has(s->pages, id) : few_find(s, id) < s->count;
}

int idset_add(struct idset *s, uint16_t id)
{
	assert(id != 0);
	if (idset_has(s, id))
		return 0;
	if (!s->paged && s->count < IDSET_FEW) {
		s->few[s->count++] = id;
		return 1;
	}
	if (!s->paged && page_out(s) < 0)
		return -ENOMEM;
	if (pages_add(s->pages, id) < 0)
		return -ENOMEM;
	s->count++;
	return 1;
}

bool idset_remove(struct idset *s, uint16_t id)
{
	if (!idset_has(s, id))
		return false;
	s->count--;
	if (!s->paged) { /* the last one, which has just fallen off the end, fills the gap */
		uint32_t gap = few_find(s, id);

		s->few[gap] = s->few[s->count];
		return true;
	}
	pages_remove(s->pages, id);
	if (s->count == 0) {
		pages_free(s->pages);
		s->paged = false;
	}
	return true;
}

/* The first identifier ≥ from that is not in the set, or 0. */
static uint16_t free_from(const struct idset *s, uint32_t from)
{
	if (s->paged)
		return pages_free_from(s->pages, from);
	while (from <= ID_MAX && few_find(s, (uint16_t)from) < s->count)
		from++;
	return from <= ID_MAX ? (uint16_t)from : 0;
}

uint16_t idset_take(struct idset *s)
{
	uint16_t id = free_from(s, s->last + 1u);

	if (id == 0)
		id = free_from(s, 1);
	if (id == 0 || idset_add(s, id) < 0)
		return 0;
	s->last = id;
	return id;
}
