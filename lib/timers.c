/*
 * A hierarchical timer wheel without wrap-around.
 *
 * Time is counted in ticks. A timer's level is the highest group of six bits in which its tick
 * differs from now_tick, its slot the value of its tick in that group. Hence, always:
 *
 *   - all timers of one level agree with now_tick in every group above theirs, and are later than
 *     it in theirs: no slot at or before now_tick's own is ever occupied;
 *   - a timer on a lower level is due before any on a higher one, and within a level lower slots
 *     come first: the lowest bit of the lowest busy level is what comes next.
 *
 * Advancing is a jump to the beginning of that slot. On level 0 its timers are due; on a higher one
 * they are placed again, now at least one level lower. A timer moves at most nine times in its
 * life, and idle time costs nothing, however long. Ten levels hold every tick of a 64-bit
 * millisecond clock, so there is no list of far ones.
 *
 * expire() first gathers all that are due and only then calls back. What a callback arms for a time
 * that has passed goes to the due list, which was taken already: no callback keeps expire() busy.
 */
#include <assert.h>
#include "timers.h"

enum { SLOT_BITS = 6 };

static const uint64_t TICK_MAX = UINT64_MAX / TIMERS_TICK_MS;

static_assert(TIMERS_SLOTS == 1 << SLOT_BITS, "a slot is a group of bits");
static_assert(UINT64_MAX / TIMERS_TICK_MS <= UINT64_MAX >> (64 - SLOT_BITS * TIMERS_LEVELS),
	"the levels hold every tick");

void timers_init(struct timers *w, uint64_t now_ms)
{
	*w = (struct timers){.now_tick = now_ms / TIMERS_TICK_MS};
}

static void list_push(struct timer **head, struct timer *t)
{
	t->next = *head;
	t->pprev = head;
	if (t->next)
		t->next->pprev = &t->next;
	*head = t;
}

static void list_unlink(struct timer *t)
{
	*t->pprev = t->next;
	if (t->next)
		t->next->pprev = t->pprev;
	t->next = NULL;
	t->pprev = NULL;
}

/* Never early: a deadline inside a tick is due at the next one. */
static uint64_t deadline_tick(const struct timer *t)
{
	uint64_t tick = t->deadline_ms / TIMERS_TICK_MS + (t->deadline_ms % TIMERS_TICK_MS != 0);

	return tick < TICK_MAX ? tick : TICK_MAX;
}

static void place(struct timers *w, struct timer *t)
{
	uint64_t tick = deadline_tick(t);

	assert(tick > w->now_tick);
	unsigned level = (63 - (unsigned)__builtin_clzll(tick ^ w->now_tick)) / SLOT_BITS;
	unsigned slot = tick >> (level * SLOT_BITS) & (TIMERS_SLOTS - 1);
	list_push(&w->slots[level][slot], t);
	w->busy[level] |= UINT64_C(1) << slot;
}

void timers_arm(struct timers *w, struct timer *t, uint64_t deadline_ms)
{
	assert(t->fire);
	timers_disarm(w, t);
	t->deadline_ms = deadline_ms;
	if (deadline_tick(t) > w->now_tick)
		place(w, t);
	else
		list_push(&w->due, t);
	w->count++;
}

void timers_disarm(struct timers *w, struct timer *t)
{
	if (!timer_is_armed(t))
		return;
	struct timer **head = t->pprev;
	list_unlink(t);
	w->count--;
	/* The last one of a slot is linked from the slot itself. The difference wraps for the other
	 * heads (the due list, the one in expire, another timer), which makes it large. */
	uintptr_t off = (uintptr_t)head - (uintptr_t)w->slots;
	if (!*head && off < sizeof(w->slots)) {
		size_t idx = off / sizeof(*head);
		w->busy[idx / TIMERS_SLOTS] &= ~(UINT64_C(1) << idx % TIMERS_SLOTS);
	}
}

/* The tick at which the next occupied slot begins; false when all are empty. */
static bool next_slot(const struct timers *w, unsigned *ret_level, unsigned *ret_slot,
	uint64_t *ret_tick)
{
	for (unsigned level = 0; level < TIMERS_LEVELS; level++) {
		if (!w->busy[level])
			continue;
		unsigned slot = (unsigned)__builtin_ctzll(w->busy[level]);
		unsigned shift = level * SLOT_BITS;
		uint64_t above = w->now_tick >> shift >> SLOT_BITS << SLOT_BITS;
		*ret_level = level;
		*ret_slot = slot;
		*ret_tick = (above | slot) << shift;
		return true;
	}
	return false;
}

/* Advances to a tick, appending what becomes due at *tail. */
static void advance(struct timers *w, uint64_t tick, struct timer **tail)
{
	unsigned level, slot;
	uint64_t begin;

	while (next_slot(w, &level, &slot, &begin) && begin <= tick) {
		struct timer *list = w->slots[level][slot];
		w->slots[level][slot] = NULL;
		w->busy[level] &= ~(UINT64_C(1) << slot);
		w->now_tick = begin;
		while (list) {
			struct timer *t = list;
			list = t->next;
			if (deadline_tick(t) > begin) {
				place(w, t);
				continue;
			}
			list_push(tail, t);
			tail = &t->next;
		}
	}
	if (tick > w->now_tick)
		w->now_tick = tick;
}

unsigned timers_expire(struct timers *w, uint64_t now_ms)
{
	struct timer *firing = w->due, **tail = &firing;
	unsigned fired = 0;

	w->due = NULL;
	if (firing)
		firing->pprev = &firing;
	while (*tail)
		tail = &(*tail)->next;
	advance(w, now_ms / TIMERS_TICK_MS, tail);
	while (firing) {
		struct timer *t = firing;
		list_unlink(t);
		w->count--;
		fired++;
		t->fire(t);
	}
	return fired;
}

uint64_t timers_next_ms(const struct timers *w, uint64_t now_ms)
{
	unsigned level, slot;
	uint64_t tick;

	if (w->due)
		return 0;
	if (!next_slot(w, &level, &slot, &tick))
		return UINT64_MAX;
	uint64_t at_ms = tick * TIMERS_TICK_MS;
	return at_ms > now_ms ? at_ms - now_ms : 0;
}
